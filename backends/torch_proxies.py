"""Zero-cost proxies: scores of a network that was never trained. They rank, and are no accuracies.

Of both, more is better. `synflow` is the logarithm of SynFlow (Tanaka et al., arXiv:2006.05467),
summed over a network as Abdelfattah et al. do (arXiv:2101.08134). `naswot` is that of Mellor et al.
(arXiv:2006.04647): codes of signs, and the log-determinant of how alike they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from archdsl.backend import compile
from archdsl.compiler import Arch
from archdsl.datasets import DIGITS, load_data
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Input,
    LayerScale,
    Linear,
    MatMul,
    Mul,
    Reshape,
    Softmax,
    Transpose,
)
from archdsl.search.outcomes import Failed
from archdsl.weights.initial import drawn

from .torch_training import Seed, Side, ready, sized, threads

_SCALES = (0, -500, -950)
"""Powers of two by which input and output are scaled, until no value is beyond float64."""

_GATES = ("sigmoid", "hsigmoid")


@dataclass(frozen=True)
class Synflow:
    """The logarithm of the sum of |w * dR/dw| over the kernels of convolutions and linear layers.

    R is the sum of the outputs for an image of ones, in a network whose kernels are replaced by
    their absolute values. As in the code of arXiv:2101.08134, norms are left out and the arithmetic
    is in float64. All values are positive then, where a ReLU does nothing; so every activation is
    left out. What that network would have saturated is taken at its limit: a gate of
    squeeze-and-excitation is 1, a softmax is even. Biases start at 0, and layer scales are norms.
    """

    size: int | None
    seed: int

    def __call__(self, arch: Arch) -> float:
        """The score of a network with initial weights.

        Raises:
            Failed: it is so deep that its score is beyond float64.
        """
        graph = sized(arch, self.size).graph()
        kernels = {
            node.name: torch.tensor(weights[f"{node.name}.weight"], dtype=torch.float64)
            for weights in [drawn(graph, self.seed)]
            for node in graph
            if isinstance(node.op, (Conv2d, Linear))
        }
        for exponent in _SCALES:
            score = _flow(graph, kernels, 2.0**exponent)
            if 0 < score < math.inf:
                return math.log(score) - 2 * exponent * math.log(2)
        raise Failed("the network is so deep that its synaptic flow is beyond any float")


def _flow(graph: Graph, kernels: Mapping[str, Any], scale: float) -> float:
    """The sum of w * dR/dw, times the scale squared: input and output are scaled by it."""
    with threads(1):
        weights = {name: kernel.abs().requires_grad_() for name, kernel in kernels.items()}
        values: dict[str, Any] = {}
        for node in graph:
            inputs = [values[name] for name in node.inputs]
            if isinstance(node.op, Input):
                value = torch.full((1, *node.shape), scale, dtype=torch.float64)
            else:
                value = _LINEAR[type(node.op)](node, weights.get(node.name), *inputs)
            values[node.name] = value
        (values[graph.output] * scale).sum().backward()
        # A kernel whose value is not read on, or as a gate, has no gradient: nothing flows there.
        used = [w for w in weights.values() if w.grad is not None]
        flows = [float((w.detach() * w.grad).sum()) for w in used]
    return math.fsum(flows) if all(map(math.isfinite, flows)) else math.inf


def _convolved(node: Node, weight: Any, x: Any) -> Any:
    op = node.op
    assert isinstance(op, Conv2d)
    top, bottom, left, right = op.padding
    x = F.pad(x.movedim(-1, 1), (left, right, top, bottom))
    return F.conv2d(x, weight, stride=op.stride, groups=op.groups).movedim(1, -1)


def _product(node: Node, _: Any, a: Any, b: Any) -> Any:
    op = node.op
    assert isinstance(op, MatMul)
    return op.scale * (a @ (b.transpose(-1, -2) if op.transpose_b else b))


def _transposed(node: Node, _: Any, x: Any) -> Any:
    assert isinstance(node.op, Transpose)
    return x.permute(0, *(axis + 1 for axis in node.op.axes))


def _same(node: Node, _: Any, x: Any, *gate: Any) -> Any:
    return x


_LINEAR: dict[type, Callable[..., Any]] = {
    Conv2d: _convolved,
    Linear: lambda node, weight, x: F.linear(x, weight),
    Add: lambda node, _, a, b: a + b,
    MatMul: _product,
    Softmax: lambda node, _, x: torch.full_like(x, 1 / x.shape[-1]),
    GlobalAvgPool: lambda node, _, x: x.mean((1, 2), keepdim=True),
    Reshape: lambda node, _, x: x.reshape(1, *node.shape),
    Transpose: _transposed,
    Mul: _same,
    Activation: _same,
    BatchNorm: _same,
    LayerScale: _same,
    Dropout: _same,
}
"""The linear network that is left, on values (1, height, width, channels)."""


@dataclass(frozen=True)
class Naswot:
    """The log-determinant of how alike the codes of a batch of images are.

    The code of an image says of every unit whether its activation's input is positive. The kernel
    has, for two images, the number of units in which they agree; its determinant is largest where
    all images are told apart. Weights are initial ones, norms use the batch, as in the reference.
    A unit is one of relu, and as well of relu6, hswish, swish and gelu, which all are near 0 on one
    side and grow on the other; gates (sigmoid, hsigmoid) are none.
    """

    data: str
    size: int | None
    batch: int
    seed: int

    def __call__(self, arch: Arch) -> float:
        """The score of a network with initial weights.

        Raises:
            Failed: it has no units, or cannot tell two images apart.
            OSError, ImportError, ArchError: the data cannot be read, or do not fit.
        """
        arch = sized(arch, self.size)
        height, width, channels = arch.input
        images = load_data(self.data, (height, width), channels).train
        rng = np.random.Generator(np.random.PCG64(self.seed))
        chosen = images[rng.permutation(len(images))[: self.batch]]
        units = [
            node.name
            for node in arch.graph()
            if isinstance(node.op, Activation) and node.op.function not in _GATES
        ]
        if not units:
            raise Failed("the network has no activations whose signs could be a code")
        kernel = torch.zeros(len(chosen), len(chosen), dtype=torch.float64)

        def count(module: Any, inputs: Any, output: Any) -> None:
            code = (inputs[0] > 0).flatten(1).float()
            kernel.add_(code @ code.T + (1 - code) @ (1 - code).T)

        with threads(1), torch.no_grad():
            module = compile(arch, "torch", seed=self.seed).load().train()
            for name, part in module.named_modules():
                if isinstance(part, torch.nn.Dropout):
                    part.eval()
                if name in units:
                    part.register_forward_hook(count)
            module(torch.tensor(chosen))
            sign, value = torch.linalg.slogdet(kernel)
        if float(sign) <= 0 or not math.isfinite(float(value)):
            raise Failed("two images have the same code in every unit: the kernel is singular")
        return float(value)


def synflow(*, size: Side | None = None, seed: Seed = 0) -> Synflow:
    """How much flows through a network's kernels; no data are needed."""
    return Synflow(size, seed)


def naswot(
    *,
    data: str = DIGITS,
    size: Side | None = 32,
    batch: Annotated[int, Field(ge=2, le=4096)] = 128,
    seed: Seed = 0,
) -> Naswot:
    """How well a network's activations tell images apart."""
    ready(data, size)
    return Naswot(data, size, batch, seed)
