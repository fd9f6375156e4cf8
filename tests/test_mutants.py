"""The command `python -m tests.mutants`: its table is sound, and it tells found from not found."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from mutants.generated import interval
from mutants.running import Copy, Outcome, markdown, mutated, run
from mutants.switching import switch
from mutants.table import AREAS, MUTANTS, Mutant

ROOT = Path(__file__).parent.parent

# One of each kind whose area's first tests are quick; the command runs all.
SAMPLE = (
    "widths are cut off instead of rounded",
    "the layer scale is dropped",
    "the odd pixel of padding comes before",
    "biases are not counted",
    "the mean has the wrong sign on folding",
    "a zero point has the wrong sign",
)


def test_the_table_is_sound() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.area for mutant in MUTANTS} == set(AREAS)
    named = {test.partition("::")[0] for tests in AREAS.values() for test in tests}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} >= named


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_is_where_the_table_says(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    changed = mutated(text, mutant)
    assert changed != text
    if mutant.file.endswith(".py"):
        compile(changed, mutant.file, "exec")


def test_a_text_that_is_gone_or_stands_twice() -> None:
    for text in ("", "old old"):
        with pytest.raises(ValueError, match="its old text stands"):
            mutated(text, Mutant("a name", "cost", "a file", "old", "new"))


@pytest.fixture(scope="module")
def copy() -> Iterator[Copy]:
    with Copy(ROOT) as made:
        yield made


@pytest.fixture(scope="module")
def outcomes(copy: Copy) -> dict[str, Outcome]:
    sample = [mutant for mutant in MUTANTS if mutant.name in SAMPLE]
    return {mutant.name: run(copy, mutant, rest=False) for mutant in sample}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_fault_is_found(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].killer.startswith("tests/test_")
    assert name in str(outcomes[name])


@pytest.mark.slow
def test_without_a_fault_the_same_tests_pass(copy: Copy, outcomes: dict[str, Outcome]) -> None:
    assert copy.failing([outcome.killer for outcome in outcomes.values()]) == []


@pytest.mark.slow
def test_what_no_test_finds_survives(copy: Copy) -> None:
    harmless = Mutant("a word", "latency", "archdsl/rounding.py", "the only copy", "one copy")
    outcome = run(copy, harmless, rest=False)
    assert outcome.killer == ""
    assert "SURVIVED" in str(outcome)
    assert "**nothing**" in markdown([outcome, Outcome(harmless, "tests/test_a.py::test_b", 1.0)])
    assert (copy.path / harmless.file).read_text() == (ROOT / harmless.file).read_text()


SOURCE = """
def twice(value, more=1):
    return value * 2 + more

class Sum:
    def __init__(self, *values):
        self.values = values

    @staticmethod
    def of(values):
        return sum(values)

    def total(self):
        return self.of(self.values)
"""


@pytest.mark.parametrize(
    ("function", "old", "new", "result"),
    [
        ("twice", "* 2", "* 3", (10, 6)),
        ("twice", "more=1", "more=2", (8, 6)),
        ("Sum.of", "sum(values)", "sum(values) + 1", (7, 7)),
        ("Sum.total", "self.of(self.values)", "None", (7, None)),
    ],
)
def test_a_function_is_given_other_code_wherever_it_is_known(
    function: str, old: str, new: str, result: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("a_module")
    exec(SOURCE, vars(module))
    monkeypatch.setitem(sys.modules, "a_module", module)
    twice, total = module.twice, module.Sum(1, 2, 3)
    assert (twice(3), total.total()) == (7, 6)
    switch("a_module", function, "a_module.py", SOURCE.replace(old, new))
    assert (twice(3), total.total()) == result


def test_the_interval_of_a_share() -> None:
    assert interval(85, 100) == pytest.approx((0.7672, 0.9069), abs=1e-4)
    assert interval(30, 30) == pytest.approx((0.8865, 1), abs=1e-4)
