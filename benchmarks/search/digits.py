"""A search on the handwritten digits against chance, at equal MACs.

    python -m benchmarks.search.digits [FOLDER]

The images are three parts of equal size. A search learns from the first and judges by the second;
its networks may have the MACs of the median network of `docs/digits_space.arch` (at 16x16 pixels).
The verdict is another: the search's best by its own accuracies, and fifty that were drawn with the
same chance among the networks of between 0.9 and 1 times those MACs, learn from the first two parts
under other seeds, and are judged by the third, which no search has seen. So what was best by luck
has none left. The parts are the command line's own: `archdsl search` and the evaluator `train`.
Interrupted, the same command goes on. Prints the tables of README.md.
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

import numpy as np
from sklearn.datasets import load_digits

import archdsl
from archdsl.search.objectives import Objectives
from archdsl.search.space import Space, Vector, parse_space
from archdsl.search.study import Study
from archdsl.search.tables import Tables

ROOT = Path(__file__).parents[2]
SETTINGS = {"size": 16, "epochs": 6, "lr": 0.01, "shift": 0, "flip": False}
SEARCHED, DRAWN, BEST = 60, 50, 5
"""Networks of the search; of those drawn; of the search's that the verdict is about."""
REPEATS = {"search": 3, "drawn": 2, "best": 8}
VERDICT_SEED = 100


def write_parts(folder: Path) -> None:
    """The images to search by, and those for the verdict, each with what they are judged by."""
    digits = load_digits()
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(digits.images))
    x, y = digits.images[order].astype(np.float32), digits.target[order]
    third = len(x) // 3
    first, second, last = slice(third), slice(third, 2 * third), slice(2 * third, None)
    both = slice(2 * third)
    for name, learn, judge in (("search", first, second), ("verdict", both, last)):
        path = folder / f"{name}.npz"
        if not path.exists():
            np.savez(path, x=x[learn], y=y[learn], x_test=x[judge], y_test=y[judge])


class Given:
    """Proposes members of a list, one after the other."""

    def __init__(self, vectors: Sequence[Vector]) -> None:
        self._vectors = vectors

    def ask(self, number: int) -> Vector:
        return self._vectors[number % len(self._vectors)]

    def tell(self, trial: Any) -> None:
        """They stand fast."""


def drawn(space: Space, most: int) -> list[Vector]:
    """Members of nearly so many MACs, all with the same chance, none twice."""
    rng, tables = random.Random("drawn"), Tables(space)
    found: dict[Vector, None] = {}
    while len(found) < DRAWN:
        vector = space.sample(rng)
        if 0.9 * most <= int(tables.cost([vector]).macs[0]) <= most:
            found[vector] = None
    return list(found)


def judged(space: Space, name: str, vectors: Sequence[Vector], folder: Path) -> list[Any]:
    """The trials of the verdict on networks."""
    settings = {
        **SETTINGS,
        "data": str(folder / "verdict.npz"),
        "seed": VERDICT_SEED,
        "repeats": REPEATS[name],
    }
    with Study(
        *(space, Objectives(goals=("accuracy", "macs"))),
        evaluator="train",
        settings=settings,
        algorithm=Given(vectors),
        workers=2,
        storage=folder / f"{name}.journal",
    ) as study:
        study.run(len(vectors))
    return list(study.complete)


def searched(space: Path, most: int, folder: Path) -> dict[str, Any]:
    """What `archdsl search` prints; its folder has the rest."""
    settings = {**SETTINGS, "data": folder / "search.npz", "repeats": REPEATS["search"]}
    command = [sys.executable, "-m", "archdsl", "search", str(space), "--evaluator", "train"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    command += ["--max-macs", str(most), "--budget", str(SEARCHED), "--workers", "2"]
    command += ["--algorithm", "evolution", "--objective", "accuracy", "--objective", "macs"]
    done = subprocess.run(
        [*command, "-o", str(folder / "search"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main(folder: Path) -> None:
    started = time.monotonic()
    text = (ROOT / "docs" / "digits_space.arch").read_text(encoding="utf-8")
    text = text.replace("input    32x32x1", "input    16x16x1")
    (folder / "space.arch").write_text(text, encoding="utf-8")
    write_parts(folder)
    space = parse_space(text)
    rng = random.Random(0)
    sample = [space.sample(rng) for _ in range(20_000)]
    most = int(sorted(Tables(space).cost(sample).macs.tolist())[len(sample) // 2])

    found = searched(folder / "space.arch", most, folder)
    lines = (folder / "search" / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    trials = [json.loads(line) for line in lines]
    trials = [t for t in trials if t["state"] == "complete" and t["same_as"] is None]
    top = sorted(trials, key=lambda t: -t["accuracy"])[:BEST]
    best = judged(space, "best", [tuple(t["vector"]) for t in top], folder)
    chance = judged(space, "drawn", drawn(space, most), folder)
    took = time.monotonic() - started

    print(f"archdsl {archdsl.__version__}, {took:.0f} s; at most {most:,} MACs\n")
    print("| | networks | accuracy, mean | sd | best | MACs, mean |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, some in (
        ("the search's first 20, by chance", [(t["accuracy"], t["macs"]) for t in trials[:20]]),
        ("its last 20", [(t["accuracy"], t["macs"]) for t in trials[-20:]]),
        (f"its best {BEST}", [(t["accuracy"], t["macs"]) for t in top]),
        (f"verdict: these {BEST}", [(t.accuracy, t.figures["macs"]) for t in best]),
        (f"verdict: {DRAWN} drawn", [(t.accuracy, t.figures["macs"]) for t in chance]),
    ):
        accuracies, macs = [one for one, _ in some], [other for _, other in some]
        print(
            f"| {name} | {len(some)} | {mean(accuracies):.3f} | {stdev(accuracies):.3f} | "
            f"{max(accuracies):.3f} | {mean(macs):,.0f} |"
        )
    beaten = mean(trial.accuracy < mean(t.accuracy for t in best) for trial in chance)
    print(f"\nOf those drawn, {beaten:.0%} are below the mean of the search's best.\n")
    print("The front of the search, by its own accuracies:\n")
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
