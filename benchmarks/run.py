"""Every benchmark in one run: `python benchmarks/run.py [--quick] [--json OUT]`.

Exit status: 0 measured; 1 a result is wrong. A missed target is printed, not an error: a slow
machine is no fault of the code.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artefacts
import estimates
import machine
import report
import report_artefacts
import shell
from measure import summary, worker
from texts import SPACES


def one_text(options: argparse.Namespace) -> dict[str, Any]:
    quick = ["--quick"] if options.quick else []
    result: dict[str, Any] = worker("one_text.py", str(options.torch_threads), *quick)
    return result


def stream(options: argparse.Namespace) -> dict[str, Any]:
    """Lists and texts take turns, each pass in a fresh process: a memo is cold once in its life."""
    rounds, count = (1, 2_000) if options.quick else (3, 10_000)
    passes: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for space in SPACES:
            for form in ("lists", "texts"):
                found = worker("stream.py", form, space, str(count))
                passes.setdefault((space, form), []).append(found)
    wrong = []
    spaces: dict[str, Any] = {}
    for space in SPACES:
        lists, texts = passes[space, "lists"], passes[space, "texts"]
        if len({found["digest"] for found in lists + texts}) != 1:
            wrong.append(f"{space}: lists of blocks and whole texts give different costs")
        first = lists[0]
        facts = ("blocks_per_architecture", "distinct_strings", "distinct_architectures")
        spaces[space] = {
            **{name: first[name] for name in facts},
            "one_core": first["one_core"],
            **{
                f"{form}_{memo}": summary([found[memo] for found in passes[space, form]])
                for form in ("lists", "texts")
                for memo in ("cold", "warm")
            },
        }
    sample = sorted({count * n // 10 for n in range(2 if options.quick else 10)})
    checked = 0
    for space in SPACES:
        numbers = [str(number) for number in sample]
        streamed = worker("stream.py", "streamed", space, "1", *numbers)["figures"]
        for number, figures in zip(numbers, streamed, strict=True):
            alone = worker("stream.py", "alone", space, "1", number)
            params, macs = alone["graph"]
            checked += 1
            if alone["figures"] != figures or [params, macs] != [figures[0], sum(figures[1:3])]:
                wrong.append(f"{space}: architecture {number} costs otherwise alone")
    return {"wrong": wrong, "rounds": rounds, "count": count, "checked": checked, "spaces": spaces}


def cold(options: argparse.Namespace) -> dict[str, Any]:
    return shell.measure(options.quick)


def latency(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = worker("estimates.py", *(["--quick"] if options.quick else []))
    commands = estimates.measure_commands(options.quick)
    return {**result, **commands, "wrong": result["wrong"] + commands["wrong"]}


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "one_text": one_text,
    "stream": stream,
    "shell": cold,
    "artefacts": artefacts.measure,
    "latency": latency,
}
REPORTS = {
    **report.SECTIONS,
    "artefacts": report_artefacts.artefacts,
    "latency": report.latency,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="What archdsl costs, in time and in memory.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a minute, rough")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write all figures here too")
    parser.add_argument("--only", choices=SECTIONS, help="one section alone")
    parser.add_argument(
        "--torch-threads",
        metavar="N",
        type=int,
        default=1,
        help="threads for torch in the first section (1, as archdsl has: no lock-step to disturb)",
    )
    for name, peer in (("litert", "litert-torch"), ("tensorflow", "TensorFlow")):
        parser.add_argument(
            f"--{name}-python",
            metavar="PATH",
            default=os.environ.get(f"ARCHDSL_{name.upper()}_PYTHON"),
            help=f"the interpreter of {peer}'s environment, for the artefacts "
            f"(default: $ARCHDSL_{name.upper()}_PYTHON)",
        )
    parser.add_argument(
        "--cache",
        metavar="FOLDER",
        type=Path,
        default=Path(__file__).resolve().parent.parent / ".cache" / "benchmarks",
        help="where the artefacts' files lie; what the peers made is kept (.cache/benchmarks)",
    )
    options = parser.parse_args()

    results: dict[str, Any] = {"schema_version": 1, "quick": options.quick}
    results["machine"] = machine.describe()
    print(report.machine(results["machine"], options.quick), flush=True)
    wrong: list[str] = []
    for name in [options.only] if options.only else SECTIONS:
        others, start = machine.Others(), time.monotonic()
        result = SECTIONS[name](options)
        result["others_cores"] = others.share()
        result["took_seconds"] = time.monotonic() - start
        results[name] = result
        wrong += result["wrong"]
        print(REPORTS[name](result), flush=True)
    for line in wrong:
        print(f"WRONG RESULT: {line}")
    if options.json:
        temporary = options.json.with_name(options.json.name + ".part")
        temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, options.json)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
