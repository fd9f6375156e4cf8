"""Random networks, whole: from the text to three artefacts that agree.

`pytest -m deep` makes 1,000 (or ARCHDSL_DEEP of them), prints how many agreed, were refused with a
reason, or failed, and names the seeds of those that failed: `random_architecture(seed)` is the
network. Every run of the tests does a few of them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.ir.execute import execute
from archdsl.lang.formatter import format_source
from archdsl.lang.source import SourceText
from archdsl.testing import random_architecture
from archdsl.verification import TOLERANCE
from archdsl.weights.lively import lively

A_FEW = 25

LEAST_OUTPUT = 1e-2
"""Where an activation leaves less of values of about 10, the comparison is one of rounding: ONNX
Runtime's sigmoid is exact to some 5e-8, whatever its value, and so swish at -14 to 6e-7."""


def counted(net: nn.Module, images: torch.Tensor) -> tuple[int, int, dict[str, tuple[int, ...]]]:
    """MACs of layers, MACs of all, and outputs' shapes of a module that runs: by hooks."""
    layers = 0
    shapes: dict[str, tuple[int, ...]] = {}

    def hook(name: str) -> Any:
        def count(module: nn.Module, _: Any, output: Any) -> None:
            nonlocal layers
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Each output is a sum over the weights of one of the output channels.
                layers += output.numel() * module.weight[0].numel()
            if isinstance(output, torch.Tensor):
                shapes[name] = tuple(output.shape)

        return count

    handles = [m.register_forward_hook(hook(name)) for name, m in net.named_modules() if name]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        shapes[""] = tuple(net(images).shape)
    for handle in handles:
        handle.remove()
    return layers, counter.get_total_flops() // 2, shapes


def examine(arch: archdsl.Arch, seed: int) -> str | None:
    """None where all that should hold of a network does, or why it says nothing.

    Raises:
        AssertionError: something does not hold.
    """
    text = arch.to_text()
    again = archdsl.parse(text)
    assert again.spec == arch.spec
    assert format_source(SourceText("net.arch", text)) == text

    cost = arch.cost()
    assert sum(layer.macs for layer in cost.layers) == cost.macs
    assert min(min(layer.macs, layer.params) for layer in cost.layers) >= 0 if cost.layers else True

    net = archdsl.compile(arch, to="torch", seed=seed).load()
    assert sum(parameter.numel() for parameter in net.parameters()) == cost.params
    height, width, channels = arch.input
    layers, all_, shapes = counted(net, torch.zeros(1, channels, height, width))
    # At a single position attention multiplies numbers, which is no matrix product to PyTorch.
    single = sum(
        unit.cost.totals.macs_attention
        for _, unit in arch.blocks()
        if unit.fragment.input[:2] == (1, 1)
    )
    assert (layers, all_) == (cost.macs_conv_linear, cost.macs - single)
    graph = arch.graph()
    for name, shape in shapes.items():
        node = name if name in graph else None
        expected = graph[node].shape if node else arch.output if not name else None
        if expected is not None:
            order = (expected[-1], *expected[:-1])
            assert shape == (1, *order), name

    weights = lively(arch, seed, pixels=1 << 13)
    images = np.random.default_rng(seed).normal(size=(4, *arch.input)).astype(np.float32)
    report = archdsl.verify(arch, weights=weights, images=images, runs=0)
    if report.largest < LEAST_OUTPUT:
        return f"its largest output is less than {LEAST_OUTPUT:g}"
    if not report.ok and (reason := amplified(arch, weights, images)):
        return reason
    assert report.ok, "; ".join(report.all_faults())
    assert len(report.comparisons) == 3
    for comparison in report.comparisons:
        assert comparison.difference is not None and comparison.difference <= TOLERANCE
    return None


def amplified(arch: archdsl.Arch, weights: dict[str, Any], images: Any) -> str | None:
    """Whether it is the network that makes more of float32's rounding than may be.

    Then PyTorch in float64 is exact, PyTorch in float32 is not, and no other backend is farther
    off than by a few times as much.
    """
    graph = arch.graph()
    exact = execute(graph, weights, images.astype(np.float64))[graph.output]
    net = archdsl.compile(arch, to="torch", weights=weights).load().double()
    with torch.inference_mode():
        double = net(torch.from_numpy(images.astype(np.float64)).movedim(-1, 1)).numpy()
    if not off(np.moveaxis(double, 1, -1), exact) < 1e-9:
        return None
    found = {}
    for to in ("torch", "onnx", "tflite"):
        session = archdsl.compile(arch, to=to, weights=weights).session()
        runs = [session.values(session.run(session.feed(one[None]))) for one in images]
        found[to] = off(np.concatenate([values["output"] for values in runs]), exact)
    if found["torch"] < TOLERANCE / 4 or max(found.values()) > 5 * found["torch"]:
        return None
    return f"it makes {found['torch']:.0e} of the largest output of PyTorch's rounding alone"


def off(found: Any, exact: Any) -> float:
    """The largest difference, as a share of the largest value."""
    return float(np.abs(found - exact).max() / np.abs(exact).max())


def deep_run(seeds: range) -> tuple[Counter[str], list[str]]:
    """How many networks agreed, were refused, and failed; the reasons of the last two."""
    counts: Counter[str] = Counter(agreed=0, refused=0, failed=0)
    reasons = []
    for seed in seeds:
        torch.manual_seed(seed)
        try:
            reason = examine(random_architecture(seed), seed)
        except archdsl.ArchError as error:
            # None is refused by the parser, which would be a failure: they are valid.
            codes = {diagnostic.code for diagnostic in error.diagnostics}
            kind = "refused" if codes <= {"E0701", "E0702"} else "failed"
            reason = str(error)
        except Exception as failure:
            kind, reason = "failed", repr(failure)
        else:
            kind = "refused" if reason else "agreed"
        counts[kind] += 1
        if reason:
            reasons.append(f"seed {seed}, {kind}: {reason}"[:600])
    return counts, reasons


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """One thread for small networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_few_random_networks_agree_everywhere() -> None:
    counts, reasons = deep_run(range(A_FEW))
    assert counts["failed"] == 0, "\n".join(reasons)
    assert counts["agreed"] > A_FEW / 2


@pytest.mark.deep
def test_many_random_networks_agree_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    number = int(os.environ.get("ARCHDSL_DEEP", 1000))
    started = time.monotonic()
    counts, reasons = deep_run(range(number))
    minutes = (time.monotonic() - started) / 60
    with capsys.disabled():
        print()
        print(*reasons, sep="\n")
        parts = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        print(f"{number:,} networks in {minutes:.1f} minutes: {parts}")
    assert counts["failed"] == 0
