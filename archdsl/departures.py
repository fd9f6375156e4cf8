"""Which operator departs first: every value of a network in a runtime, against the executor's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from archdsl.backend import Artifact
from archdsl.compiler import Arch
from archdsl.ir.execute import Array, execute
from archdsl.ir.graph import Graph
from archdsl.ir.node import Node
from archdsl.lang.diagnostics import Diagnostic, quoted
from archdsl.lang.source import Span
from archdsl.passes.fold import fold_batch_norm


def relative(found: Array, wanted: Array) -> float:
    """The largest difference of two arrays, as a share of the largest value that is wanted."""
    if not wanted.size:
        return 0.0
    wanted = wanted.astype(np.float64, copy=False)
    largest = float(np.abs(wanted).max())
    difference = float(np.abs(found - wanted).max())
    return difference / largest if largest else difference


@dataclass(frozen=True)
class Layer:
    """An operator's value in a runtime; `difference` as in `relative`, None where the shape is
    another one or a value is not finite."""

    node: Node
    difference: float | None


@dataclass(frozen=True)
class Joined:
    """That an artefact departs, and compiled with layers, which joins nothing, it agrees.

    `stage` is the first whose feature map departs in an artefact that gives them, None where none
    does; `span` is its first block.
    """

    stage: str | None
    span: Span | None


@dataclass(frozen=True)
class Trace:
    """The operators whose values a backend gave, in the order of the schedule, and how many it did
    not give; those above `limit` depart. `joined` says that the whole departs and none of them."""

    backend: str
    layers: tuple[Layer, ...]
    missing: int
    limit: float
    joined: Joined | None = None

    @property
    def first(self) -> Layer | None:
        """The first operator that departs: what stands before it agrees, so that it is at fault."""
        for layer in self.layers:
            if layer.difference is None or layer.difference > self.limit:
                return layer
        return None

    @property
    def worst(self) -> Layer | None:
        """The operator that differs most."""
        return max(self.layers, key=lambda layer: _rank(layer.difference), default=None)

    def diagnostic(self) -> Diagnostic | None:
        """The first departure, with the block that it came from; or the stage, where no operator
        departs by itself.

        It has no code: the backend is at fault, and not the text.
        """
        if self.first is None and self.joined is not None:
            return self._joined(self.joined)
        if self.first is None:
            return None
        node = self.first.node
        what = f"`{node.name}` ({node.op.name})"
        if self.first.difference is None:
            message = f"{self.backend}: {what} has another shape, or values that are not finite"
        else:
            message = f"{self.backend}: {what} departs by {self.first.difference:.1e}"
        help = f"the first operator that differs by more than {self.limit:.0e} of its largest value"
        return Diagnostic("", message, node.origin.span if node.origin else None, help)

    def _joined(self, joined: Joined) -> Diagnostic:
        message = (
            f"{self.backend}: no operator departs by itself: the fault lies in what the backend "
            "joins; compiled with layers it agrees"
        )
        if joined.stage is None:
            help = "no feature map departs: look behind the last stage, or across a stage's end"
        else:
            help = f"the first feature map that departs is that of the stage {quoted(joined.stage)}"
        return Diagnostic("", message, joined.span, help)

    def summary(self) -> dict[str, Any]:
        """The first departure as `--json` prints it."""
        span = self.joined.span if self.joined else None
        return {
            "backend": self.backend,
            "first": self.first.node.name if self.first else None,
            "joined": self.joined is not None,
            "stage": self.joined.stage if self.joined else None,
            "line": span.source.position(span.start)[0] if span else None,
            "compared": len(self.layers),
            "missing": self.missing,
            "tolerance": self.limit,
        }

    def to_json(self) -> list[dict[str, Any]]:
        """A record for each operator."""
        return [{"backend": self.backend, **_record(layer)} for layer in self.layers]


def _rank(difference: float | None) -> float:
    return float("inf") if difference is None else difference


def _record(layer: Layer) -> dict[str, Any]:
    node = layer.node
    span = node.origin.span if node.origin else None
    line, column = span.source.position(span.start) if span else (None, None)
    return {
        "node": node.name,
        "op": node.op.name,
        "block": node.origin.path if node.origin else None,
        "file": span.source.name if span else None,
        "line": line,
        "column": column,
        "difference": layer.difference,
    }


def trace(
    arch: Arch,
    weights: Mapping[str, Array],
    image: Array,
    artifacts: Mapping[str, Artifact],
    limit: float,
) -> Iterator[Trace]:
    """Compare every operator of artefacts that were compiled with `layers`.

    The executor runs in float64, so that all of a difference is the runtime's. An artefact gives
    values under the nodes' names, of the graph with its norms folded or of the one with norms: it
    is the latter where values of norms are among them.
    """
    # Without feature maps, as the artefacts are: kept ones stop norms from being folded.
    plain = arch.graph().keeping(())
    folded = fold_batch_norm(plain, weights)
    norms = {node.name for node in plain} - {node.name for node in folded.graph}
    wanted: dict[bool, dict[str, Array]] = {}
    for name, artifact in artifacts.items():
        session = artifact.session()
        found = session.values(session.run(session.feed(image)))
        with_norms = not norms.isdisjoint(found)
        graph, own = (plain, weights) if with_norms else folded
        if with_norms not in wanted:
            wanted[with_norms] = execute(graph, own, image.astype(np.float64))
        yield _traced(name, graph, found, wanted[with_norms], limit)


def _traced(
    name: str, graph: Graph, found: Mapping[str, Array], wanted: Mapping[str, Array], limit: float
) -> Trace:
    layers = []
    missing = 0
    for node in graph:
        if not node.inputs:
            continue
        value = found.get(node.name)
        if value is None:
            missing += 1
        elif value.shape != wanted[node.name].shape or not np.isfinite(value).all():
            layers.append(Layer(node, None))
        else:
            layers.append(Layer(node, relative(value, wanted[node.name])))
    return Trace(name, tuple(layers), missing, limit)
