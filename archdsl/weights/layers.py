"""Layers with weights, a checkpoint's and a graph's: of which kind they are, and of which shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.ir.ops import BatchNorm, Shape

Kind = Literal["convolution", "depthwise", "dense", "norm", "scale", "other"]
"""`dense` is a linear layer or a 1x1 convolution: libraries disagree which of them to take on a
pooled map. `other` is what no network of ours has."""

Signature = tuple[Kind, Shape]
"""A layer's kind, and the shape that tells it from its like: the kernel's, or its channels."""

KINDS: tuple[Kind, ...] = ("convolution", "depthwise", "dense", "norm", "scale", "other")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint: its shape in PyTorch's order of axes, and how to read it so."""

    shape: Shape
    read: Callable[[], Array]


@dataclass(frozen=True)
class Layer:
    """The tensors of one layer by role: `weight`, `bias`, `running_mean`, `running_var`, `gamma`.

    `path` is where the order is read from; it is the parts of the name unless the file tells more.
    """

    name: str
    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]

    @cached_property
    def signature(self) -> Signature:
        return signature({role: tensor.shape for role, tensor in self.tensors.items()})


class Checkpoint(NamedTuple):
    """The layers of a file; `in_order` if it lists them as the network was built.

    `keras` is whether Keras wrote it: its layers' names are the network's own.
    """

    layers: list[Layer]
    in_order: bool
    notes: tuple[str, ...] = ()
    keras: bool = False


def signature(roles: Mapping[str, Shape]) -> Signature:
    """What a layer is by the shapes of its tensors."""
    shapes = set(roles.values())
    first = next(iter(roles.values()), ())
    if "running_mean" in roles:
        whole = {"running_mean", "running_var"} <= set(roles) <= _NORM
        return ("norm" if whole and len(shapes) == 1 and len(first) == 1 else "other"), first
    if set(roles) == {"gamma"}:
        return "scale", first
    weight = roles.get("weight", ())
    if not {"weight"} <= set(roles) <= {"weight", "bias"} or len(weight) not in (2, 4):
        return "other", first
    if "bias" in roles and roles["bias"] != weight[:1]:
        return "other", weight
    if weight[2:] in ((), (1, 1)):
        return "dense", weight[:2]
    return ("depthwise" if weight[1] == 1 and weight[0] > 1 else "convolution"), weight


_NORM = {"weight", "bias", "running_mean", "running_var"}


@dataclass(frozen=True)
class Own:
    """A node of our graph that has weights; `norm` is the norm that alone reads it."""

    name: str
    roles: Mapping[str, Shape]
    norm: str | None = None

    @cached_property
    def signature(self) -> Signature:
        return signature(self.roles)


def own_layers(graph: Graph) -> list[Own]:
    """The nodes with weights in the order of the forward pass."""
    found = []
    for node in graph:
        roles = dict(node.op.parameters())
        if isinstance(node.op, BatchNorm):
            roles |= {name: (node.op.channels,) for name in ("running_mean", "running_var")}
        readers = graph.readers(node.name)
        alone = len(readers) == 1 and isinstance(readers[0].op, BatchNorm)
        if roles:
            kept = node.name in graph.kept
            found.append(Own(node.name, roles, readers[0].name if alone and not kept else None))
    return found
