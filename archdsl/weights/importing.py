"""Weights of other libraries' checkpoints, under our keys."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from archdsl.compiler import Arch
from archdsl.ir.execute import Array
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.weights.checkpoints import opened
from archdsl.weights.layers import Layer, Own, own_layers
from archdsl.weights.libraries import KERAS, differences, library_of
from archdsl.weights.matching import matched
from archdsl.weights.store import fitted, table

_SHOWN = 20
"""Rows of a table."""


class Imported(NamedTuple):
    """A set of weights, and what was noted on the way.

    `warnings` are W0801, where the network that was trained has other settings.
    """

    weights: dict[str, Array]
    notes: tuple[str, ...]
    warnings: tuple[Diagnostic, ...] = ()


def import_weights(path: str | os.PathLike[str], arch: Arch) -> dict[str, Array]:
    """A checkpoint of timm, torchvision, Keras or the like, as a set of weights of an architecture.

    Read are safetensors, PyTorch's `.pth` (as `weights_only`) and Keras' `.h5`, `.weights.h5` and
    `.keras`. Layers are matched by kind, shape and order; names only tell the order. Padding and
    the norms' epsilon are in no checkpoint: `imported` also gives what its names tell of them.

    Raises:
        OSError: the file cannot be read.
        ImportError: a package that reads the file is missing; the message names the install line.
        ArchError: E0802 where the file is no checkpoint, or not a whole one; E0803 where a weight
            is not finite; E0805 where the network is another one, or its order is not known.
    """
    return imported(path, arch).weights


def imported(path: str | os.PathLike[str], arch: Arch) -> Imported:
    """The same with notes: what had to be chosen, or brought into another form; with warnings.

    Raises:
        OSError, ImportError, ArchError: as `import_weights`.
    """
    graph = arch.graph()
    state = graph.state()
    file = quoted(os.fspath(path), 200)
    title = f"{file} is no {quoted(graph.name)}"
    ours = own_layers(graph)
    with opened(path, sum(map(math.prod, state.values()))) as checkpoint:
        layers = matched(title, checkpoint.layers, ours, checkpoint.in_order)
        notes = [*checkpoint.notes, *_compared(title, ours, layers)]
        warnings: list[Diagnostic] = []
        # DistributedDataParallel puts a `module.` before every name.
        names = {layer.name.removeprefix("module.") for layer in checkpoint.layers}
        if names != {mine.name for mine in ours}:
            library = KERAS if checkpoint.keras else library_of(checkpoint.layers)
            warnings, more = differences(file, graph.name, arch.attributes, library)
            notes += more
        weights = _read(ours, layers)
    # A linear layer's kernel is a 1x1 convolution's, and the other way round.
    shaped = {key: value.reshape(state[key]) for key, value in weights.items()}
    return Imported(dict(fitted(shaped, graph, file)), tuple(notes), tuple(warnings))


def _compared(title: str, ours: Sequence[Own], layers: Mapping[str, Layer]) -> Iterator[str]:
    """Compare which tensors the layers have, and note what `_read` makes of the differences.

    Raises:
        ArchError: E0805 where one has a bias and the other has none.
    """
    rows: list[tuple[str, str, str, str]] = []
    plain = shifted = 0
    for mine in ours:
        layer = layers[mine.name]
        has, wanted = set(layer.tensors), set(mine.roles)
        if mine.signature[0] == "norm":
            plain += has != wanted
        elif has - wanted == {"bias"} and mine.norm is not None:
            shifted += 1
        elif has != wanted:
            rows.append((layer.name, " ".join(sorted(has)), mine.name, " ".join(sorted(wanted))))
    if rows:
        head = ("checkpoint", "", "architecture", "")
        count = f"{len(rows):,} {'layer has' if len(rows) == 1 else 'layers have'}"
        message = f"{title}: {count} another set of tensors"
        raise ArchError([Diagnostic("E0805", message, None, table(head, rows[:_SHOWN]))])
    if shifted:
        yield f"{shifted:,} biases before norms moved into the norms' means"
    if plain:
        yield f"{plain:,} norms without a scale or a shift got 1 and 0"


def _read(ours: Sequence[Own], layers: Mapping[str, Layer]) -> dict[str, Array]:
    weights: dict[str, Array] = {}
    shifts: dict[str, Array] = {}
    for mine in ours:
        tensors = layers[mine.name].tensors
        for role, shape in mine.roles.items():
            if role in tensors:
                value = tensors[role].read()
            else:
                value = (np.ones if role == "weight" else np.zeros)(shape, np.float32)
            weights[f"{mine.name}.{role}"] = value
        if mine.norm is not None and "bias" in tensors and "bias" not in mine.roles:
            # The norm subtracts its mean from what the bias was added to.
            shifts[mine.norm] = tensors["bias"].read()
    for name, bias in shifts.items():
        mean = weights[f"{name}.running_mean"].astype(np.float64)
        weights[f"{name}.running_mean"] = (mean - bias).astype(np.float32)
    return weights
