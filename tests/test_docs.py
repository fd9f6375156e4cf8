"""The documents say what the program does: their tables, examples, outputs, links and rooms."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import archdsl
from archdsl.lang import printer
from archdsl.roofline.profiles import shipped

ROOT = Path(__file__).parent.parent
LINKED = (
    *("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs/latency.md"),
    *("docs/architectures.md", "docs/language.md", "docs/cost.md", "docs/weights.md"),
    *("docs/backends.md", "docs/dialects.md", "docs/differences.md", "docs/claims.md"),
    *("docs/limits.md", "docs/spaces.md", "docs/testing.md", "docs/algorithms.md"),
    *("docs/search.md", "docs/evaluators.md"),
    *("docs/netadapt.md", "docs/supernet.md"),
    *("docs/calibration.md", "benchmarks/README.md", "benchmarks/latency/README.md"),
)


def _generator() -> ModuleType:
    """docs/generate.py, which is a program and in no package."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


generate = _generator()


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


EXAMPLES = [
    pytest.param(block, id=f"{name}:{read(name)[: block.start].count(chr(10))}")
    for name in generate.DOCUMENTS
    for block in generate.fenced(read(name))
    if block.language in ("arch", "block")
]


@pytest.mark.parametrize("name", generate.DOCUMENTS)
def test_what_is_generated_is_up_to_date(name: str) -> None:
    text = read(name)
    assert generate.generated(text) == text, "run `python docs/generate.py` and read the difference"


@pytest.mark.parametrize("name", generate.SCHEMAS)
def test_a_published_schema_is_up_to_date(name: str) -> None:
    assert read(name) == generate.json_schema(name)


def test_every_part_stands_in_a_document() -> None:
    text = "".join(map(read, generate.DOCUMENTS))
    assert set(re.findall(r"<!-- generated: (\w+) -->", text)) == set(generate.PARTS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_gives_the_codes_it_states_and_no_other(example: generate.Block) -> None:
    found = Counter(diagnostic.code for diagnostic in generate.diagnostics(example))
    assert found == Counter(example.codes)


@pytest.mark.parametrize("name", generate.DOCUMENTS)
def test_python_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(b.text for b in generate.fenced(read(name)) if b.language == "pycon")
    runner = doctest.DocTestRunner(verbose=False)
    with generate.workplace() as folder:
        monkeypatch.chdir(folder)
        runner.run(doctest.DocTestParser().get_doctest(text, {}, name, name, 0))
    assert runner.failures == 0
    assert runner.tries == text.count(">>> ")


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(name)):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[^a-z0-9 -]", "", title.lower()) for title in titles}
            assert anchor in {slug.replace(" ", "-") for slug in slugs}


# -- sentences of the documents that hold a number or a list --------------------------------------


def test_order_of_fields() -> None:
    assert f"`{' '.join(printer._ORDER)}`" in " ".join(read("docs/language.md").split())


def test_depth_rounds_up() -> None:
    texts = [f"arch n input 8x8x3 depth 1.2 stage {{ conv_r{r}_o8 }}" for r in (1, 2, 3, 5)]
    assert [len(archdsl.parse(text).placed[0].run.units) for text in texts] == [2, 3, 4, 6]
    assert "1, 2, 3, 5 become 2, 3, 4, 6" in read("docs/language.md")


@pytest.mark.parametrize("kind", ["mqa", "mha"])
def test_attention_products(kind: str) -> None:
    """P K h d MACs for the scores and as many for the values."""
    cost = archdsl.block(f"{kind}_h4_d64_kv2").cost((16, 16, 160))
    assert cost.macs_attention == 2 * (16 * 16) * (8 * 8) * 4 * 64


def test_share_of_the_memory_bound_operators() -> None:
    """A tenth of the MACs, a quarter of the time."""
    text, shape = generate._BLOCK
    cost = archdsl.block(text).cost(shape, dtype="int8")
    times = generate.DEVICE.layer_times(cost.work, dtype="int8")
    bound = [
        (layer.macs, time.seconds)
        for layer, time in zip(cost.layers, times, strict=True)
        if time.bound == "memory"
    ]
    assert round(sum(macs for macs, _ in bound) / cost.macs, 2) == 0.10
    assert round(sum(s for _, s in bound) / sum(time.seconds for time in times), 1) == 0.3
    assert generate.DEVICE.ridge_point == 5


def test_readme_counts_the_profiles() -> None:
    count = len(list(shipped()))
    assert f"one of {count} profiles" in read("README.md")
    assert f": {count} profiles in TOML" in read("CHANGELOG.md")


def test_readme_has_the_two_commands() -> None:
    """The first needs no torch; .ci/run takes the second out of the README and runs it."""
    lines = read("README.md").splitlines()
    start = "python3 -m venv .venv && .venv/bin/pip install"
    compiled = ".venv/bin/archdsl compile architectures/mnv4_conv_m.arch --to torch"
    assert f"{start} . && {compiled}" in lines
    assert f'{start} -e ".[dev]" && .venv/bin/python -m pytest' in lines


# -- ARCHITECTURE.md ------------------------------------------------------------------------------


def _rooms() -> list[list[str]]:
    """The rooms, from the bottom up: the paths that each row of the table starts with."""
    rows = re.findall(r"^\| (`archdsl/[^|]+) \|", read("ARCHITECTURE.md"), re.M)
    return [re.findall(r"`([^`]+)`", row) for row in rows]


def _room(path: str) -> int:
    """The number of a file's room."""
    (found,) = [
        number
        for number, places in enumerate(_rooms())
        for place in places
        if path == place or (place.endswith("/") and path.startswith(place))
    ]
    return found


def _imported(tree: ast.AST) -> set[str]:
    """The modules of archdsl that a file imports, wherever in it, as paths."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            # A module may be imported from its package.
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    paths = set()
    for name in names:
        if name.split(".")[0] == "archdsl":
            module = ROOT / name.replace(".", "/")
            if module.with_suffix(".py").exists():
                paths.add(f"{name.replace('.', '/')}.py")
            elif (module / "__init__.py").exists():
                paths.add(f"{name.replace('.', '/')}/__init__.py")
    return paths


def _sources() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "archdsl").rglob("*.py"))


@pytest.mark.parametrize("path", _sources())
def test_a_module_imports_only_from_its_room_and_those_above(path: str) -> None:
    for other in _imported(ast.parse(read(path))):
        assert _room(other) <= _room(path), f"{path} imports {other}"


def test_every_module_is_described() -> None:
    """By its name, in the row of its room; commands by their folder."""
    text = read("ARCHITECTURE.md")
    for path in _sources():
        name = Path(path).stem
        if name != "__init__" and "/cli/" not in path:
            assert re.search(rf"[`/]{name}(`|\.py)", text), path


def test_every_file_that_is_named_exists() -> None:
    text = read("ARCHITECTURE.md")
    places = ("", "archdsl/", "archdsl/lang/")
    for path in re.findall(r"`([a-z_./]+(?:\.py|\.md|\.toml|\.csv|/))`", text):
        assert any((ROOT / place / path).exists() for place in places), path
