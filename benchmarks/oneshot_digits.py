"""The winner of a one-shot search on the digits against random networks of its latency.

    python -m benchmarks.oneshot_digits [STEPS] [EPOCHS] [COUNT] [FOLDER]

The search is `archdsl oneshot docs/digits_space.arch --device pixel6-cpu-int8 --target-ms 0.004`.
Winner and random members are then trained from scratch by the same recipe and seed; the accuracy is
that on the fifth of the digits that neither search nor training has seen. Random members are drawn
from all that are within 5 % of the winner's latency.
"""

from __future__ import annotations

import random
import statistics
import sys
import time

import archdsl
from archdsl.backend import backend
from archdsl.search.evaluators import resolve
from archdsl.search.objectives import Objectives, latency_of
from archdsl.search.tables import Tables

TARGET = 4.0
"""Microseconds."""


def main(steps: int = 1000, epochs: int = 10, count: int = 10, folder: str | None = None) -> None:
    space = archdsl.load_space("docs/digits_space.arch")
    device = archdsl.load_device("pixel6-cpu-int8")
    objectives = Objectives(devices=(device,), targets={device.name: TARGET}, reward="absolute")
    search = backend("torch").oneshot  # type: ignore[attr-defined]
    settings = {"size": 32, "steps": steps}
    winner = search(space, "digits", objectives, settings, folder=folder)
    figure = latency_of(device.name)
    us = winner.figures[figure]
    print(f"winner: {us:.3f} us, shared weights {winner.shared_accuracy:.2%}, ", end="")
    print(f"{winner.seconds:.0f} s", flush=True)
    print(winner.text, flush=True)
    evaluator = resolve("digits", {"epochs": epochs, "lr": 0.003})
    rng, tables = random.Random(0), Tables(space)
    drawn = [space.sample(rng) for _ in range(20_000)]
    times = tables.cost(drawn, devices=[device]).latency_us[device.name]
    alike = [v for v, t in zip(drawn, times, strict=True) if abs(t / us - 1) <= 0.05]
    found = []
    for vector in [winner.vector, *alike[:count]]:
        started = time.perf_counter()
        said = evaluator(space.arch_of(vector))
        found.append(said["accuracy"])
        (cost,) = objectives.measure(tables, [vector])
        print(f"{found[-1]:.2%}  {cost[figure]:.3f} us  ", end="")
        print(f"{time.perf_counter() - started:.0f} s  {vector}", flush=True)
    first, *others = found
    print(f"winner {first:.2%}; {len(others)} random ones of its latency: ", end="")
    print(f"mean {statistics.mean(others):.2%}, best {max(others):.2%}, ", end="")
    print(f"better than the winner: {sum(other > first for other in others)}")


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:4]]
    main(*numbers, **({"folder": sys.argv[4]} if len(sys.argv) > 4 else {}))  # type: ignore[arg-type]
