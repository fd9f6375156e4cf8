"""Batch-norm folding: the norm behind a convolution becomes its bias and scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.ir.ops import BatchNorm, Conv2d, LayerScale
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.lang.source import Span


class Folded(NamedTuple):
    """A graph without the folded norms, and its weights under the graph's keys."""

    graph: Graph
    weights: dict[str, Array]


def fold_batch_norm(graph: Graph, weights: Mapping[str, Array]) -> Folded:
    """Fold each norm, and each layer scale, into the convolution that alone feeds it.

    w' = w * gamma / sqrt(var + eps), b' = (b - mean) * gamma / sqrt(var + eps) + beta; a layer
    scale multiplies both. Folding is done in float64 and rounded once to the weights' dtype.
    A norm that follows no convolution (before attention) stays.

    Raises:
        KeyError: a weight is missing.
        ArchError: E0803 where finite weights give a product that is not.
    """
    kept = {name: np.asarray(value) for name, value in weights.items()}
    scales: dict[str, tuple[Array, Array]] = {}
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
            scale, shift = _affine(node, kept)
            if conv not in scales:
                scales[conv] = _identity(target, kept)
            before, offset = scales[conv]
            scales[conv] = before * scale, offset * scale + shift
            nodes[conv] = target._replace(op=replace(target.op, bias=True))
            renamed[node.name] = conv
        else:
            nodes[node.name] = node._replace(inputs=inputs)
    for conv, (scale, shift) in scales.items():
        weight = kept[f"{conv}.weight"]
        scaled = np.empty_like(weight)
        with np.errstate(over="ignore", invalid="ignore"):
            # The product is taken in the scale's float64, piece by piece.
            np.multiply(weight, scale[:, None, None, None], out=scaled, casting="same_kind")
            bias = shift.astype(weight.dtype)
            whole = scaled.sum(dtype=np.float64) + bias.sum(dtype=np.float64)
        if not np.isfinite(whole):
            message = f"the norm behind {quoted(conv, 100)} gives weights beyond {weight.dtype}"
            hint = "its scale is huge, or its variance nearly zero; take another checkpoint"
            raise ArchError([Diagnostic("E0803", message, _span(nodes[conv]), hint)])
        kept[f"{conv}.weight"] = scaled
        kept[f"{conv}.bias"] = bias
    folded = graph.replaced(nodes.values(), renamed)
    return Folded(folded, {name: kept[name] for name in folded.state()})


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
