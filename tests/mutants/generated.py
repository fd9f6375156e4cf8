"""`python -m tests.mutants.generated`: mutmut's mutants of the core, and which the tests find.

mutmut 3 (`pip install mutmut`) says what the mutants are, and this how they are run: its own runner
puts switches into the classes' methods, and knows no samples. A mutant here is in the code of a
plain function or method, as there; decorated functions have none. The checkout is never changed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import Any

from .running import Copy

ROOT = Path(__file__).parents[2]

PACKAGES = ("archdsl/lang", "archdsl/lang/dialects", "archdsl/ir", "archdsl/passes")

QUICK = (
    *("tests/test_lang_golden.py", "tests/test_lang_parts.py", "tests/test_language.py"),
    *("tests/test_diagnostics.py", "tests/test_passes.py", "tests/test_executor.py"),
    *("tests/test_dialects.py", "tests/test_dialects_golden.py", "tests/test_dialects_bounds.py"),
    *("tests/test_dialects_timm.py", "tests/test_json_schema.py", "tests/test_equality.py"),
    *("tests/test_members.py", "tests/test_api.py", "tests/test_cost_lines.py"),
    *("archdsl/lang", "archdsl/ir", "archdsl/passes"),
)
"""What is run first: quick, and about the core."""

REST = (
    *("tests/test_limits.py", "tests/test_hostile.py", "tests/test_testing.py"),
    *("tests/test_cli.py", "tests/test_cli_golden.py", "tests/test_cli_hostile.py"),
    *("tests/test_compile.py", "tests/test_space.py", "tests/test_variants.py"),
    *("tests/test_roofline.py", "tests/test_quantization.py"),
)
"""What is run on mutants that survive those: what else runs the core, and loads no framework."""

CONTROLS = 5
"""So many mutants that change nothing stand among the others: what finds one has found nothing."""


def mutants(file: str) -> Iterator[dict[str, Any]]:
    """mutmut's mutants of a file (a path from the repository's root), under mutmut's names."""
    import libcst
    from libcst.metadata import MetadataWrapper, PositionProvider
    from mutmut.mutation.file_mutation import create_mutations

    text = (ROOT / file).read_text(encoding="utf-8")
    module, found, _, _ = create_mutations(file, text)
    places = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    classes = {
        child: f"{node.name.value}."
        for node in module.body
        if isinstance(node, libcst.ClassDef)
        for child in node.body.body
    }
    counts: Counter[str] = Counter()
    dotted = file.removesuffix(".py").replace("/", ".")
    for mutation in found:
        function = mutation.contained_by_top_level_function
        if not isinstance(function, libcst.FunctionDef):
            continue
        name = classes.get(function, "") + function.name.value
        counts[name] += 1
        place = places.get(mutation.original_node)
        span = places[function]
        yield {
            "name": f"{dotted}.{name}__{counts[name]}",
            "module": dotted,
            "function": name,
            "file": file,
            "line": place.start.line if place else span.start.line,
            "span": (span.start.line, span.end.line),
            "source": lambda m=mutation: module.deep_replace(m.original_node, m.mutated_node).code,
        }


def sampled(package: str, count: int | None, seed: int) -> tuple[list[dict[str, Any]], int]:
    """A sample of the mutants of a package (all: None), and how many there are."""
    files = sorted((ROOT / package).glob("*.py"))
    every = [mutant for file in files for mutant in mutants(file.relative_to(ROOT).as_posix())]
    size = len(every) if count is None else min(count, len(every))
    return random.Random(f"{seed} {package}").sample(every, size), len(every)


def interval(found: int, run: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z = 1.959964
    middle = (found + z * z / 2) / (run + z * z)
    half = z / (run + z * z) * math.sqrt(found * (run - found) / run + z * z / 4)
    return middle - half, middle + half


def run(
    chosen: Sequence[dict[str, Any]], tests: Sequence[str], **limits: Any
) -> list[dict[str, Any]]:
    """Run tests on mutants; `limits` are `minutes`, `seconds` and `baseline` of the options."""
    with Copy(ROOT) as copy, tempfile.TemporaryDirectory() as scratch:
        faults = []
        for mutant in chosen:
            path = copy.path / mutant["file"]
            text = path.read_text(encoding="utf-8")
            source = mutant["source"]() if "source" in mutant else text
            diff = [*unified_diff(text.splitlines(), source.splitlines(), n=0, lineterm="")][2:]
            faults.append({**mutant, "source": source, "diff": diff})
        order, out = Path(scratch) / "faults.json", Path(scratch) / "out"
        files = [f"{package}/*.py" for package in PACKAGES]
        files = sorted(str(p.relative_to(ROOT)) for name in files for p in ROOT.glob(name))
        baseline = limits["baseline"] or Path(scratch) / "baseline.json"
        given = {**limits, "baseline": str(Path(baseline).resolve())}
        order.write_text(json.dumps({"faults": faults, "files": files, "out": str(out), **given}))
        options = ["-q", "-p", "no:cacheprovider", "--tb=no", "-o", "addopts=--doctest-modules"]
        plugin = ["-p", "tests.mutants.switching"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(copy.path), os.environ.get("PYTHONPATH")])
            ),
            "ARCHDSL_FAULTS": str(order),
            "ARCHDSL_TEST_CACHE": str(ROOT / ".cache" / "weights"),
        }
        command = [sys.executable, "-m", "pytest", *options, *plugin, *tests]
        subprocess.run(command, cwd=copy.path, env=environment, stdout=sys.stderr, check=False)
        outcomes = [json.loads(line) for line in out.read_text().splitlines()]
    known = {fault["name"]: fault for fault in faults}
    return [
        {**outcome, **{key: known[outcome["name"]][key] for key in ("line", "diff")}}
        for outcome in outcomes
    ]


def survey(
    chosen: Sequence[dict[str, Any]], tests: Sequence[str], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """What became of mutants, by name, and of some that change nothing."""
    step = max(1, len(chosen) // CONTROLS)
    mixed = list(chosen)
    for at, mutant in enumerate(chosen[::step]):
        control = {key: value for key, value in mutant.items() if key != "source"}
        mixed.insert(at * (step + 1), {**control, "name": f"control {mutant['name']}"})
    limits = {key: getattr(options, key) for key in ("minutes", "seconds", "baseline")}
    return {outcome["name"]: outcome for outcome in run(mixed, tests, **limits)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants.generated", description=__doc__)
    parser.add_argument("packages", nargs="*", default=PACKAGES, help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--sample", type=int, help="so many mutants of each package, not all")
    parser.add_argument("--seed", type=int, default=0, help="which sample")
    parser.add_argument("--minutes", type=float, default=1e9, help="start no mutant afterwards")
    parser.add_argument("--tests", nargs="*", default=QUICK, help="other tests than the quick ones")
    parser.add_argument(
        "--rest", nargs="*", default=REST, help="other tests for what survives those (or none)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="tests of a mutant, the quickest first, that take so many seconds without it",
    )
    parser.add_argument(
        "--baseline",
        type=Path,
        help="a file of which tests run which lines: made, or read where it is there; one with "
        "`.rest` behind its name is of the second tests",
    )
    parser.add_argument("--again", type=Path, help="only those that survive in this report")
    parser.add_argument("--report", type=Path, required=True, help="what became of each, as JSON")
    options = parser.parse_args()
    chosen, sizes = [], {}
    for package in options.packages:
        some, sizes[package] = sampled(package, options.sample, options.seed)
        chosen += some
    before: list[dict[str, Any]] = []
    if options.again:
        before = json.loads(options.again.read_text())
        survived = {outcome["name"] for outcome in before if not outcome["killer"]}
        chosen = [mutant for mutant in chosen if mutant["name"] in survived]
    # In any order: what is not reached in time is any part of the sample.
    random.Random(options.seed).shuffle(chosen)
    again = survey(chosen, options.tests, options)
    left = [mutant for mutant in chosen if again.get(mutant["name"], {}).get("killer") == ""]
    if options.rest and left:
        if options.baseline:
            options.baseline = options.baseline.with_name(f"{options.baseline.name}.rest")
        found = survey(left, options.rest, options)
        again |= {name: o for name, o in found.items() if o["killer"] or name not in again}
    whole = [again.pop(outcome["name"], outcome) for outcome in before] + list(again.values())
    options.report.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    real = [outcome for outcome in whole if not outcome["name"].startswith("control ")]
    for package, size in sizes.items():
        prefix = package.replace("/", ".") + "."
        mine = [o for o in real if o["name"].startswith(prefix)]
        mine = [o for o in mine if "dialects" in package or ".dialects." not in o["name"]]
        killed = sum(bool(outcome["killer"]) for outcome in mine)
        if mine:
            low, high = interval(killed, len(mine))
            print(
                f"{package}: {killed} of {len(mine)} found ({killed / len(mine):.1%}; of all "
                f"{size:,}: {low:.1%} to {high:.1%})"
            )
    wrong = [outcome for outcome in whole if outcome["name"].startswith("control ")]
    wrong = [outcome for outcome in wrong if outcome["killer"]]
    for outcome in wrong:
        print(f"{outcome['name']}: nothing was changed, and {outcome['killer']} failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
