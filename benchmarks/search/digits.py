"""A search on the handwritten digits against chance, at equal MACs.

    python -m benchmarks.search.digits [FOLDER]

Fifty networks are drawn from `docs/digits_space.arch` (at 16x16 pixels), all with the same chance
among those of between 0.9 and 1 times the MACs of the median network. A search has fewer
evaluations, and may use no more MACs. What it finds best by its own accuracies is then trained
anew under another seed, and so are some of the drawn: the best of many is best by luck too, and a
fresh training has none of that. The parts are the command line's own: `archdsl search` and the
evaluator `digits`. Interrupted, the same command goes on. Prints the tables of README.md.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import archdsl
from archdsl.search.evaluators import resolve
from archdsl.search.objectives import Objectives
from archdsl.search.space import Space, Vector, parse_space
from archdsl.search.study import Study
from archdsl.search.tables import Tables

ROOT = Path(__file__).parents[2]
SETTINGS = {"size": 16, "epochs": 4}
DRAWN, SEARCHED = 50, 30
AGAIN = 4
"""Networks of each side that are trained anew, under these seeds."""
SEEDS = (1,)


def space_of() -> Space:
    text = (ROOT / "docs" / "digits_space.arch").read_text(encoding="utf-8")
    return parse_space(text.replace("input    32x32x1", "input    16x16x1"))


class Drawn:
    """Proposes members within a range of MACs, all with the same chance."""

    def __init__(self, space: Space, low: float, high: float) -> None:
        self._space, self._tables = space, Tables(space)
        self._range = low, high

    def ask(self, number: int) -> Vector:
        rng = random.Random(f"drawn {number}")
        low, high = self._range
        while True:
            vector = self._space.sample(rng)
            if low <= int(self._tables.cost([vector]).macs[0]) <= high:
                return vector

    def tell(self, trial: Any) -> None:
        """Chance learns nothing."""


def words(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def searched(space: Path, most: int, folder: Path) -> dict[str, Any]:
    """What `archdsl search` prints; its folder has the rest."""
    command = [sys.executable, "-m", "archdsl", "search", str(space), "--evaluator", "digits"]
    command += [
        *words(SETTINGS),
        "--max-macs",
        str(most),
        "--budget",
        str(SEARCHED),
        "--workers",
        "2",
    ]
    command += ["--algorithm", "evolution", "--algorithm-set", "population=12"]
    command += ["--algorithm-set", "tournament=4", "--objective", "accuracy", "--objective", "macs"]
    done = subprocess.run(
        [*command, "-o", str(folder), "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trained_anew(space: Space, vectors: Sequence[Vector]) -> list[float]:
    """For each network its mean accuracy under other seeds than the search's."""
    evaluators = [resolve("digits", {**SETTINGS, "seed": seed}) for seed in SEEDS]
    found = []
    for vector in vectors:
        arch = space.arch_of(vector)
        said: list[Any] = [evaluator(arch) for evaluator in evaluators]
        found.append(mean(float(one["accuracy"]) for one in said))
    return found


def main(folder: Path) -> None:
    started = time.monotonic()
    space = space_of()
    rng = random.Random(0)
    sample = [space.sample(rng) for _ in range(20_000)]
    most = int(sorted(Tables(space).cost(sample).macs.tolist())[len(sample) // 2])
    (folder / "digits_space.arch").write_text(
        (ROOT / "docs" / "digits_space.arch")
        .read_text(encoding="utf-8")
        .replace("input    32x32x1", "input    16x16x1"),
        encoding="utf-8",
    )
    with Study(
        *(space, Objectives(goals=("accuracy", "macs"))),
        evaluator="digits",
        settings=SETTINGS,
        algorithm=Drawn(space, 0.9 * most, most),
        workers=2,
        storage=folder / "drawn.journal",
    ) as study:
        study.run(DRAWN)
    drawn = study.complete
    found = searched(folder / "digits_space.arch", most, folder / "search")
    lines = (folder / "search" / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    trials = [json.loads(line) for line in lines]
    trials = [t for t in trials if t["state"] == "complete" and t["same_as"] is None]
    best = sorted(trials, key=lambda t: -t["accuracy"])[:AGAIN]
    again = trained_anew(space, [tuple(t["vector"]) for t in best])
    control = trained_anew(space, [trial.vector for trial in drawn[:AGAIN]])
    chance = [trial.accuracy or 0.0 for trial in drawn]
    took = time.monotonic() - started
    print(f"archdsl {archdsl.__version__}, {took:.0f} s; at most {most:,} MACs\n")
    print("| | networks | accuracy, mean | sd | best | MACs, mean |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, accuracies, macs in (
        ("drawn at random", chance, [t.figures["macs"] for t in drawn]),
        ("searched, all", [t["accuracy"] for t in trials], [t["macs"] for t in trials]),
        (f"searched, the best {AGAIN}", [t["accuracy"] for t in best], [t["macs"] for t in best]),
        ("the same, trained anew", again, [t["macs"] for t in best]),
        (
            f"{AGAIN} of those drawn, trained anew",
            control,
            [t.figures["macs"] for t in drawn[:AGAIN]],
        ),
    ):
        print(
            f"| {name} | {len(accuracies)} | {mean(accuracies):.3f} | {stdev(accuracies):.3f} | "
            f"{max(accuracies):.3f} | {mean(macs):,.0f} |"
        )
    better = mean(value > mean(again) for value in chance)
    print(f"\nOf those drawn, {better:.0%} are above the mean of the searched trained anew.\n")
    print("The front of the search:\n")
    print("| trial | accuracy | MACs | parameters |\n| ---: | ---: | ---: | ---: |")
    for trial in found["front"]:
        print(
            f"| {trial['number']} | {trial['accuracy']:.3f} | {trial['macs']:,} | "
            f"{trial['params']:,} |"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(exist_ok=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
