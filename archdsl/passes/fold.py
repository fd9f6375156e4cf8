"""Batch-norm folding: the norm behind a convolution becomes its bias and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, LayerScale
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.lang.source import Span


class Folded(NamedTuple):
    """A graph without the folded norms, and its weights under the graph's keys."""

    graph: Graph
    weights: LazyWeights


def fold_batch_norm(graph: Graph, weights: Mapping[str, Array]) -> Folded:
    """Fold each norm, and each layer scale, into the convolution that alone feeds it.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta; a layer
    scale multiplies both. Folding is done in float64 and rounded once to the weights' dtype, when
    the weight is asked for. A norm that follows no convolution (before attention) stays.

    A folded weight raises ArchError, E0803, where finite weights give a product that is not.

    Raises:
        KeyError: a weight is missing.
    """
    given = LazyWeights.of(weights)
    folds: dict[str, _Fold] = {}
    renamed: dict[str, str] = {}
    nodes: dict[str, Node] = {}
    for node in graph:
        inputs = tuple(renamed.get(name, name) for name in node.inputs)
        target = nodes.get(inputs[0]) if inputs else None
        if (
            isinstance(node.op, (BatchNorm, LayerScale))
            and target is not None
            and isinstance(target.op, Conv2d)
            and len(graph.readers(node.inputs[0])) == 1
            and node.inputs[0] not in graph.kept
        ):
            conv = target.name
            if conv not in folds:
                folds[conv] = _Fold(target, given, [])
                nodes[conv] = target._replace(op=replace(target.op, bias=True))
            folds[conv].followers.append(node)
            renamed[node.name] = conv
        else:
            nodes[node.name] = node._replace(inputs=inputs)
    lazy = dict(given.lazy)
    for conv, fold in folds.items():
        weight = lazy[f"{conv}.weight"]
        lazy[f"{conv}.weight"] = weight._replace(make=fold.weight)
        lazy[f"{conv}.bias"] = Lazy(weight.shape[:1], weight.dtype, fold.bias)
    folded = graph.replaced(nodes.values(), renamed)
    return Folded(folded, LazyWeights({name: lazy[name] for name in folded.state()}))


class _Fold(NamedTuple):
    """A convolution, as it was, and what is folded into it."""

    conv: Node
    weights: LazyWeights
    followers: list[Node]

    def weight(self) -> Array:
        weight = self.weights[f"{self.conv.name}.weight"]
        scale, _ = self._affine()
        with np.errstate(over="ignore", invalid="ignore"):
            # The product is taken in the scale's float64, piece by piece.
            scaled = np.empty_like(weight)
            np.multiply(weight, scale[:, None, None, None], out=scaled, casting="same_kind")
        return self._finite(scaled)

    def bias(self) -> Array:
        _, shift = self._affine()
        with np.errstate(over="ignore"):
            return self._finite(shift.astype(self.weights.lazy[f"{self.conv.name}.weight"].dtype))

    def _affine(self) -> tuple[Array, Array]:
        """The scale and shift, in float64, of all that is folded together."""
        scale, shift = _identity(self.conv, self.weights)
        for node in self.followers:
            factor, term = _affine(node, self.weights)
            scale, shift = scale * factor, shift * factor + term
        return scale, shift

    def _finite(self, values: Array) -> Array:
        with np.errstate(invalid="ignore"):
            whole = values.sum(dtype=np.float64)
        if not np.isfinite(whole):
            message = f"the norm behind {quoted(self.conv.name, 100)} gives weights beyond"
            hint = "its scale is huge, or its variance nearly zero; take another checkpoint"
            span = _span(self.conv)
            raise ArchError([Diagnostic("E0803", f"{message} {values.dtype}", span, hint)])
        return values


def _span(node: Node) -> Span | None:
    return node.origin.span if node.origin else None


def _identity(conv: Node, weights: Mapping[str, Array]) -> tuple[Array, Array]:
    assert isinstance(conv.op, Conv2d)
    channels = conv.op.out_channels
    bias = weights[f"{conv.name}.bias"].astype(np.float64) if conv.op.bias else np.zeros(channels)
    return np.ones(channels), bias


def _affine(node: Node, weights: Mapping[str, Array]) -> tuple[Array, Array]:
    """The scale and shift of a norm or a layer scale, in float64."""
    if isinstance(node.op, LayerScale):
        gamma = weights[f"{node.name}.gamma"].astype(np.float64)
        return gamma, np.zeros_like(gamma)
    assert isinstance(node.op, BatchNorm)
    gamma, beta, mean, variance = (
        weights[f"{node.name}.{name}"].astype(np.float64) for name in _STATISTICS
    )
    scale = gamma / np.sqrt(variance + node.op.eps)
    return scale, beta - mean * scale


_STATISTICS = ("weight", "bias", "running_mean", "running_var")
