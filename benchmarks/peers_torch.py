"""torch's exporters, in the environment of `requirements-litert.txt`; a process of its own.

    peers_torch.py floor KIND              imports alone
    peers_torch.py emit KIND REQUEST       a new network to a file, as a user's script does it
    peers_torch.py convert KIND REQUEST    the network with given weights to a file

KIND is `dynamo` or `legacy` (torch.onnx's exporters), or `litert` (litert-torch). REQUEST is a JSON
file: `timm` and `options` of the network, `input`, `weights`, `out`; seconds go to `out`.json.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from peers import load

OPSET = {"legacy": 17, "dynamo": 20}
"""Of a network's operators: `Gelu` and `HardSwish` are single ones, as in archdsl's files."""


def imports(kind: str) -> None:
    load("timm")
    if kind == "litert":
        importlib.import_module("litert_torch")
    elif kind == "dynamo":
        importlib.import_module("onnxscript")


def network(request: dict[str, Any]) -> Any:
    return load("timm").create_model(request["timm"], **request["options"]).eval()


def fill(net: Any, path: str) -> None:
    """Both sides hold their tensors in the order of the forward pass: the n-th is the n-th."""
    import numpy as np
    import torch

    with np.load(path) as file:
        given = [file[key] for key in file.files]
    own = [value for value in net.state_dict().values() if value.is_floating_point()]
    assert len(given) == len(own), f"{len(given)} tensors for {len(own)}"
    with torch.no_grad():
        for value, new in zip(own, given, strict=True):
            assert value.numel() == new.size, f"{tuple(value.shape)} is given {new.shape}"
            value.copy_(torch.from_numpy(new).reshape(value.shape))


def export(kind: str, net: Any, request: dict[str, Any]) -> None:
    import torch

    height, width, channels = request["input"]
    if kind == "litert":
        litert_torch = importlib.import_module("litert_torch")
        # The layout that LiteRT works in, as litert-torch's documentation advises.
        turned = litert_torch.to_channel_last_io(net, args=[0])
        made = litert_torch.convert(turned, (torch.zeros(1, height, width, channels),))
        made.export(request["out"])
        return
    options: dict[str, Any] = {"dynamo": kind == "dynamo", "opset_version": OPSET[kind]}
    if kind == "dynamo":
        options["external_data"] = False
    image = torch.zeros(1, channels, height, width)
    torch.onnx.export(net, (image,), request["out"], verbose=False, **options)


def main() -> None:
    what, kind = sys.argv[1:3]
    start = time.perf_counter()
    imports(kind)
    imported = time.perf_counter()
    if what == "floor":
        return
    request = json.loads(Path(sys.argv[3]).read_text())
    net = network(request)
    if what == "convert":
        fill(net, request["weights"])
    built, used = time.perf_counter(), time.process_time()
    export(kind, net, request)
    facts = {
        "import_seconds": imported - start,
        "build_seconds": built - imported,
        "export_seconds": time.perf_counter() - built,
        "export_cpu_seconds": time.process_time() - used,
    }
    Path(request["out"] + ".json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
