"""Ten thousand architectures from one search space, as lists of block strings or as whole texts.

Each call is one measurement in a fresh process on one core: the first pass finds empty memos, the
second costs as many *other* architectures of the same space. Prints JSON; `run.py` calls it

    stream.py lists|texts SPACE COUNT    seconds of both passes, and a digest of all results
    stream.py alone SPACE SEED NUMBER    one architecture's figures from a process that saw no other
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from texts import Blocks, base_text, drawn, flat, whole_text

import archdsl

FIGURES = ("params", "macs_conv_linear", "macs_attention", "weight_bytes", "activation_bytes")
FIGURES += ("peak_activation_bytes",)
COLD, WARM = 1, 2
"""The seeds of the two passes."""


def figures(cost: archdsl.Cost) -> list[int]:
    return [getattr(cost, name) for name in FIGURES]


def layers(cost: archdsl.Cost) -> list[Any]:
    """Every layer's figures; its name holds the stage's, which a list of blocks has not."""
    return [[row.op, row.input, row.output, row.params, row.macs] for row in cost.layers]


def one_core() -> bool:
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return True


def costs(call: Callable[[Any], archdsl.Cost], inputs: Sequence[Any]) -> tuple[float, list[Any]]:
    """Seconds for all inputs, and the costs."""
    gc.collect()
    found = []
    start = time.perf_counter()
    for item in inputs:
        found.append(call(item))
    return time.perf_counter() - start, found


def measure(form: str, space: str, count: int) -> dict[str, Any]:
    pinned = one_core()
    architectures = {seed: drawn(space, seed, count) for seed in (COLD, WARM)}
    coster = archdsl.Coster(archdsl.parse(base_text()))

    def of_text(text: str) -> archdsl.Cost:
        return archdsl.parse(text).cost()

    call: Callable[[Any], archdsl.Cost] = coster if form == "lists" else of_text
    seconds: dict[int, float] = {}
    digest = hashlib.sha256()
    for seed, drawn_ in architectures.items():
        inputs: list[Any] = [flat(stages) for stages in drawn_]
        if form == "texts":
            inputs = [whole_text(f"net{n}", stages) for n, stages in enumerate(drawn_)]
        seconds[seed], found = costs(call, inputs)
        digest.update(json.dumps([figures(cost) for cost in found]).encode())
        digest.update(json.dumps([layers(cost) for cost in found[:: count // 100]]).encode())
    blocks = [flat(stages) for stages in architectures[COLD]]
    return {
        "cold": count / seconds[COLD],
        "warm": count / seconds[WARM],
        "digest": digest.hexdigest(),
        "one_core": pinned,
        "blocks_per_architecture": sum(map(len, blocks)) / count,
        "distinct_strings": len({text for flat_ in blocks for text in flat_}),
        "distinct_architectures": len({tuple(flat_) for flat_ in blocks}),
    }


def alone(space: str, seed: int, number: int) -> dict[str, Any]:
    """One architecture from the text of a file, in a process whose memos hold nothing else."""
    stages: list[Blocks] = drawn(space, seed, number + 1)[number]
    text = figures(archdsl.parse(whole_text("alone", stages)).cost())
    return {"figures": text, "graph": _from_graph(archdsl.parse(whole_text("alone", stages)))}


def in_a_stream(space: str, seed: int, numbers: Sequence[int]) -> dict[str, Any]:
    """The figures of the same architectures from one Coster that has seen all before them."""
    coster = archdsl.Coster(archdsl.parse(base_text()))
    found = [figures(coster(flat(s))) for s in drawn(space, seed, max(numbers) + 1)]
    return {"figures": [found[number] for number in numbers]}


def _from_graph(arch: archdsl.Arch) -> list[int]:
    """Parameters and MACs summed over the operator graph, with neither memo nor fused rows."""
    graph = arch.graph()
    shapes = {node.name: node.shape for node in graph.nodes}
    params = sum(node.op.parameter_count for node in graph.nodes)
    inputs = ((node, [shapes[name] for name in node.inputs]) for node in graph.nodes if node.inputs)
    return [params, sum(node.op.macs(*shapes_) for node, shapes_ in inputs)]


if __name__ == "__main__":
    what, space, *rest = sys.argv[1:]
    numbers = [int(number) for number in rest]
    if what == "alone":
        result = alone(space, *numbers)
    elif what == "streamed":
        result = in_a_stream(space, numbers[0], numbers[1:])
    else:
        result = measure(what, space, *numbers)
    json.dump(result, sys.stdout)
