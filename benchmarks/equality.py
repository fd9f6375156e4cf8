"""Keras' and TensorFlow's networks against ours, with random weights in every tensor.

    python benchmarks/equality.py [keras] [tf-models]

runs where archdsl is installed beside TensorFlow (README.md, "Keras and TensorFlow"), and needs no
torch: ours is computed by archdsl's executor in numpy, in float64. Each network of
tests/peer_networks.py is built by its library, gets our weights, and must give our logits, in
float32 and, where rounding explains nothing, in float64 (`within` there). What was counted and
compared is written to tests/data/tensorflow.csv, which docs/differences.md and the tests read. The
exit status is 1 where a network differs.
"""

from __future__ import annotations

import csv
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
from peer_networks import KERAS_PEERS, TF_MODELS_PEERS, Peer, as_published, within

from archdsl.ir.execute import execute
from archdsl.ir.graph import Graph
from archdsl.ir.ops import BatchNorm, Conv2d, LayerScale, Linear
from archdsl.weights.lively import lively
from archdsl.weights.random import Stream

RESULTS = Path(__file__).parent.parent / "tests" / "data" / "tensorflow.csv"
SIZES = ((128, 128), (97, 131))

# The module that has a library's layers, its networks, and the packages whose versions count.
LIBRARIES = {
    "keras": ("keras", KERAS_PEERS, ("keras", "tensorflow-cpu")),
    "tf-models": (
        "tf_keras",
        TF_MODELS_PEERS,
        ("tf-models-official", "tf-keras", "tensorflow"),
    ),
}
_KINDS = {
    "Conv2D": "conv",
    "DepthwiseConv2D": "depthwise",
    "BatchNormalization": "norm",
    "SyncBatchNormalization": "norm",
    "Dense": "linear",
    "MultiQueryAttentionLayerV2": "attention",
    "MNV4LayerScale": "scale",
}


def kind(layer: Any) -> str | None:
    """What a layer that holds weights of its own is."""
    return _KINDS.get(type(layer).__name__)


@dataclass
class Run:
    """The layers of a network in the order in which they ran, each with its output's shape."""

    logits: Any = None
    layers: list[tuple[Any, tuple[int, ...]]] = field(default_factory=list)
    dropout: float = 0.0


@contextmanager
def watched(base: Any, run: Run) -> Iterator[None]:
    """Every layer that holds weights of its own reports when it runs."""
    call = base.__call__

    def reporting(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = call(layer, *args, **kwargs)
        if kind(layer):
            run.layers.append((layer, tuple(result.shape)))
        elif type(layer).__name__ == "Dropout" and layer.noise_shape is None:
            run.dropout = layer.rate
        return result

    base.__call__ = reporting
    try:
        yield
    finally:
        base.__call__ = call


def ran(module: str, network: Any, image: Any) -> Run:
    run = Run()
    with watched(importlib.import_module(module).layers.Layer, run):
        run.logits = np.asarray(network(image, training=False)).reshape(len(image), -1)
    return run


def fill(run: Run, graph: Graph, weights: Any) -> None:
    """Give each layer the weights of ours that run in its place."""
    kinds = (BatchNorm, Conv2d, LayerScale, Linear)
    own = iter([node for node in graph if isinstance(node.op, kinds)])
    for layer, _ in run.layers:
        nodes = [next(own) for _ in range(4 if kind(layer) == "attention" else 1)]
        given = [
            weights[f"{node.name}.{role}"]
            for node in nodes
            for role in (*node.op.parameters(), *node.op.buffers())
            if role != "num_batches_tracked"
        ]
        assign(layer, given)
    assert next(own, None) is None, "ours has more layers"


def assign(layer: Any, given: list[Any]) -> None:
    """Our tensors in TensorFlow's axes, where channels stand last."""
    if kind(layer) == "scale":
        layer._gamma.assign(given[0])
        return
    if (
        kind(layer) == "attention"
    ):  # of einsum: (head, width, in), (in, width) twice, (out, head, width)
        query, key, value, output = (weight[:, :, 0, 0] for weight in given)
        heads, width, inputs = layer.get_weights()[0].shape
        given = [query.reshape(heads, width, inputs), key.T, value.T]
        given.append(output.reshape(len(output), heads, width))
    elif kind(layer) == "linear":
        given = [given[0].T, *given[1:]]
    elif kind(layer) != "norm":
        kernel = given[0].reshape((*given[0].shape, 1, 1)[:4])
        axes = (2, 3, 0, 1) if kind(layer) == "depthwise" else (2, 3, 1, 0)
        given = [kernel.transpose(axes), *given[1:]]
    layer.set_weights(given)


def counted(network: Any, run: Run) -> tuple[int, int]:
    """The parameters that train, and the MACs of convolutions and linear layers."""
    macs = 0
    for layer, shape in run.layers:
        if kind(layer) in ("conv", "depthwise", "linear"):
            macs += prod(shape[1:-1]) * layer.get_weights()[0].size
        elif kind(layer) == "attention":  # its four projections
            macs += prod(shape[1:-1]) * sum(weight.size for weight in layer.get_weights())
    return sum(prod(weight.shape) for weight in network.trainable_weights), macs


def one(values: Iterator[float]) -> float:
    (value,) = {round(value, 12) for value in values}
    return value


def difference(module: str, peer: Peer, size: tuple[int, int], dtype: str) -> tuple[float, float]:
    """The largest logit, and the largest difference as a share of it."""
    arch = as_published(peer).resized((*size, 3))
    # Ours in float64, so that all of a difference is theirs.
    graph = arch.graph()
    weights = {key: value.astype(np.float64) for key, value in lively(arch).items()}
    image = Stream(0, f"equality:{size}").normal(prod(arch.input), 1.0).astype(np.float64)
    image = image.reshape(1, *arch.input)
    (ours,) = execute(graph, weights, image, keep={graph.output}).values()
    with computing(module, dtype):
        network = peer.build(input_shape=arch.input)
        # Keras holds the factor in float32, whatever the layers compute in.
        given = (image / np.float64(np.float32(peer.scale))).astype(dtype)
        fill(ran(module, network, given), graph, weights)
        theirs = ran(module, network, given).logits
    largest = float(np.abs(theirs).max())
    return largest, float(np.abs(ours.reshape(1, -1) - theirs).max()) / largest


@contextmanager
def computing(module: str, dtype: str) -> Iterator[None]:
    """Layers that are made here compute in another precision."""
    _choose(module, dtype)
    try:
        yield
    finally:
        _choose(module, "float32")


def _choose(module: str, dtype: str) -> None:
    library = importlib.import_module(module)
    library.backend.set_floatx(dtype)
    library.mixed_precision.set_global_policy(dtype)


def compared(module: str, peer: Peer) -> dict[str, Any]:
    arch = as_published(peer)
    network = peer.build(input_shape=arch.input)
    run = ran(module, network, np.zeros((1, *arch.input), np.float32))
    params, macs = counted(network, run)
    norms = [layer for layer, _ in run.layers if kind(layer) == "norm"]
    sizes = SIZES[: 1 if peer.limited else None]
    found = [difference(module, peer, size, "float32") for size in sizes]
    _, exact = difference(module, peer, SIZES[0], "float64")
    return {
        "library": peer.library,
        "network": peer.name,
        "member": peer.member,
        "params": params,
        "macs": macs,
        "eps": one(norm.epsilon for norm in norms),
        "momentum": one(1 - norm.momentum for norm in norms),
        "dropout": run.dropout,
        "largest": f"{min(largest for largest, _ in found):.2f}",
        "float32": f"{max(worst for _, worst in found):.1e}",
        "float64": f"{exact:.1e}",
    }


def versions(packages: tuple[str, ...]) -> str:
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} of unknown version")
    return ", ".join(found)


def kept(chosen: list[str]) -> tuple[list[str], list[dict[str, Any]]]:
    """What the file says of libraries that do not run now."""
    if not RESULTS.exists():
        return [], []
    lines = RESULTS.read_text(encoding="utf-8").splitlines()
    heads = [line for line in lines if line[:1] == "#" and line[2:].split(":")[0] not in chosen]
    rows = list(csv.DictReader(line for line in lines if line[:1] != "#"))
    return heads, [row for row in rows if row["library"] not in chosen]


def main() -> int:
    chosen = sys.argv[1:] or list(LIBRARIES)
    heads, rows = kept(chosen)
    failed = 0
    for library in chosen:
        module, peers, packages = LIBRARIES[library]
        heads.append(f"# {library}: {date.today().isoformat()}, {versions(packages)}")
        for peer in peers:
            row = compared(module, peer)
            wrong = not within(row)
            failed += wrong
            print(*row.values(), "DIFFERS" if wrong else "", flush=True)
            rows.append(row)
    rows.sort(key=lambda row: str(row["library"]))
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{head}\n" for head in sorted(heads))
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
