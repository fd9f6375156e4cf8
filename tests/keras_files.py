"""Files as Keras writes them, from a set of our weights: what TensorFlow would be needed for.

The layouts were compared with files of Keras 3.15 and with one of Keras 2.4 (see
tests/test_weights_import.py).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

import archdsl
from archdsl.ir.ops import BatchNorm, Conv2d, Linear

Weights = dict[str, Any]


class KerasLayer(NamedTuple):
    """A layer: its class in Keras' words, and its tensors in Keras' order."""

    kind: str
    tensors: dict[str, Any]


def keras_layers(arch: archdsl.Arch, weights: Weights) -> Iterator[KerasLayer]:
    """The layers of a network in the order of the forward pass."""
    of_nodes: dict[str, Weights] = {}
    for key, value in weights.items():
        name, _, role = key.rpartition(".")
        of_nodes.setdefault(name, {})[role] = value
    for node in arch.graph():
        own = of_nodes.get(node.name, {})
        if isinstance(node.op, BatchNorm):
            names = ("weight", "bias", "running_mean", "running_var")
            words = ("gamma", "beta", "moving_mean", "moving_variance")
            tensors = {word: own[name] for word, name in zip(words, names, strict=True)}
            yield KerasLayer("batch_normalization", tensors)
        elif isinstance(node.op, (Conv2d, Linear)):
            bias = {"bias": own["bias"]} if "bias" in own else {}
            if isinstance(node.op, Linear):
                yield KerasLayer("dense", {"kernel": own["weight"].T, **bias})
            elif node.op.depthwise:
                kernel = own["weight"].transpose(2, 3, 0, 1)
                yield KerasLayer("depthwise_conv2d", {"depthwise_kernel": kernel, **bias})
            else:
                yield KerasLayer("conv2d", {"kernel": own["weight"].transpose(2, 3, 1, 0), **bias})
        elif own:
            raise NotImplementedError(node.op)


def _counted(layers: list[KerasLayer]) -> Iterator[tuple[str, KerasLayer]]:
    """Layers under their classes' names, counted: `conv2d`, `conv2d_1` ..."""
    seen: dict[str, int] = {}
    for layer in layers:
        number = seen.get(layer.kind, 0)
        seen[layer.kind] = number + 1
        yield f"{layer.kind}_{number}" if number else layer.kind, layer


def write_h5(path: Path, layers: list[KerasLayer], keras: int = 3, whole: bool = True) -> None:
    """`model.save(path)`, or with `whole=False` Keras 2's `model.save_weights(path)`."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        if whole:
            file.attrs["model_config"] = "{}"
            optimizer = file.create_group("optimizer_weights")
            optimizer["learning_rate"] = 1e-3
        names = ["input_1"]
        root.create_group("input_1").attrs["weight_names"] = np.array([])
        for name, layer in _counted(layers):
            group = root.create_group(name)
            written = []
            for role, value in layer.tensors.items():
                word = "kernel" if keras == 3 and role == "depthwise_kernel" else role
                word = word if keras == 3 else f"{word}:0"
                group[f"{name}/{word}"] = value
                written.append(f"{name}/{word}")
            group.attrs["weight_names"] = _texts(written, keras)
            names.append(name)
        if keras == 2:
            # Attributes of more than 64 KiB are cut.
            half = len(names) // 2
            root.attrs["layer_names0"] = _texts(names[:half], keras)
            root.attrs["layer_names1"] = _texts(names[half:], keras)
        else:
            root.attrs["layer_names"] = _texts(names, keras)


def _texts(names: list[str], keras: int) -> Any:
    return [name.encode() for name in names] if keras == 2 else names


def write_weights_h5(path: Path | io.BytesIO, layers: list[KerasLayer]) -> None:
    """Keras 3's `model.save_weights("x.weights.h5")`."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)
        file["optimizer/vars/0"] = np.int64(7)
        for name, layer in _counted(layers):
            for number, value in enumerate(layer.tensors.values()):
                file[f"layers/{name}/vars/{number}"] = value


def write_keras(path: Path, layers: list[KerasLayer]) -> None:
    """Keras 3's `model.save("x.keras")`."""
    inner = io.BytesIO()
    write_weights_h5(inner, layers)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", inner.getvalue())
