"""`python -m tests.mutants`: put every fault into a copy of the compiler, and run the tests on it.

The checkout is never changed: a copy of it is made in a temporary folder, and its package is
found before the installed one. Exit code 1 says that a fault was not found.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .running import Copy, Outcome, markdown, run
from .table import MUTANTS

ROOT = Path(__file__).parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="run only those whose name or area has a word")
    parser.add_argument("--list", action="store_true", help="list them, and run nothing")
    parser.add_argument("--markdown", type=Path, help="write the table into this file too")
    options = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not options.words
        or any(word in f"{mutant.area}: {mutant.name}" for word in options.words)
    ]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.area}: {mutant.name}  [{mutant.file}]")
        return 0
    outcomes: list[Outcome] = []
    with Copy(ROOT) as copy:
        for mutant in chosen:
            outcomes.append(run(copy, mutant))
            print(outcomes[-1], flush=True)
        killers = sorted({outcome.killer for outcome in outcomes if outcome.killer})
        failing = copy.failing(killers)
    survivors = [outcome.mutant.name for outcome in outcomes if not outcome.killer]
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} faults found")
    if options.markdown:
        options.markdown.write_text(markdown(outcomes), encoding="utf-8")
    if failing:
        # What fails without a fault has found none.
        print(f"these tests fail in the copy without any fault: {', '.join(failing)}")
    return 1 if survivors or failing else 0


if __name__ == "__main__":
    sys.exit(main())
