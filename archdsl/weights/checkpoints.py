"""Checkpoints of other libraries as layers: what is in the file is looked at, nothing is run.

Which format a file has is told by its first bytes, since `.bin`, `.h5` and `.pt` name many things.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from archdsl.extras import needs
from archdsl.ir.execute import Array
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.limits import MAX_HEADER, MAX_TENSORS
from archdsl.weights.archives import (
    HDF5,
    OLD_PTH,
    ZIP,
    Unreadable,
    check_sums,
    disk_fails,
    foreign,
    members,
)
from archdsl.weights.keras import read_keras
from archdsl.weights.layers import Checkpoint, Layer, Tensor
from archdsl.weights.store import TRACKED
from archdsl.weights.tensors import FLOATS, Entry, open_regular, read_header, read_tensor

_NESTS = (
    # averaged weights first: they are what the figures of a recipe are measured with
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "network", "module", "weights"),
)
"""Under which keys training scripts keep the weights, beside optimisers and counters."""

_COUNTERS = {TRACKED, "n_averaged", "total_ops", "total_params"}
"""What modules count in tensors: batches, averaged models, operations (of a profiler)."""


@contextmanager
def opened(path: str | os.PathLike[str], count: int) -> Iterator[Checkpoint]:
    """The layers of a checkpoint, whose tensors can be read while it is open.

    `count` is the number of weights that are wanted: nothing that would unpack to far more is.

    Raises:
        OSError: the file cannot be read.
        ImportError: the package that reads it is missing; the message names the install line.
        ArchError: E0802 where it is no checkpoint, or not a whole one.
    """
    try:
        with ExitStack() as stack:
            yield _opened(path, count, stack)
    except Unreadable as fault:
        message = f"{quoted(os.fspath(path), 200)} is not a whole checkpoint: {fault}"
        hint = "read are safetensors, PyTorch's .pth and Keras' .h5, .weights.h5 and .keras"
        raise ArchError([Diagnostic("E0802", message, None, hint)]) from None


def _opened(path: str | os.PathLike[str], count: int, stack: ExitStack) -> Checkpoint:
    with open_regular(path) as file:
        head = file.read(16)
    if head[8:9] == b"{":
        return _safetensors(path)
    if head.startswith(HDF5) or (head.startswith(ZIP) and _is_keras(path)):
        return read_keras(path, count, stack)
    if head.startswith((ZIP, OLD_PTH)):
        return _pytorch(path)
    what = foreign(path, head[:8])
    raise Unreadable(f"it is {what}" if what else "its first bytes are of no format that is read")


def _is_keras(path: str | os.PathLike[str]) -> bool:
    return any(info.filename.endswith(".h5") for info in members(path))


# ----------------------------------------------------------------------------------- safetensors


def _safetensors(path: str | os.PathLike[str]) -> Checkpoint:
    header = read_header(path)
    tensors = {
        key: Tensor(entry.shape, partial(_read, path, entry))
        for key, entry in header.items()
        if key.rpartition(".")[2] not in _COUNTERS
    }
    for key in tensors:
        if header[key].dtype not in FLOATS:
            raise Unreadable(f"{quoted(key, 100)} is of {header[key].dtype}, not floating")
    # The writers sort tensors by size and name.
    return Checkpoint(grouped(tensors), in_order=False)


def _read(path: str | os.PathLike[str], entry: Entry) -> Array:
    with open_regular(path) as file:
        return read_tensor(file, entry)


def grouped(tensors: Mapping[str, Tensor]) -> list[Layer]:
    """Tensors by key as layers: `blocks.0.conv.weight` is the role `weight` of `blocks.0.conv`."""
    found: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        name, _, role = key.rpartition(".")
        found[name][role] = tensor
    return [Layer(name, tuple(name.split(".")), roles) for name, roles in found.items()]


# --------------------------------------------------------------------------------------- PyTorch


def _pytorch(path: str | os.PathLike[str]) -> Checkpoint:
    with needs("torch", "a .pth file is read with PyTorch"):
        import torch  # noqa: TID251 - its own files are the one thing that only it reads safely
    archive = zipfile.is_zipfile(path)
    if archive:
        entries = members(path)
        if any(info.compress_type != zipfile.ZIP_STORED for info in entries):
            raise Unreadable("its entries are compressed, which PyTorch's never are")
        if any(info.file_size > MAX_HEADER for info in entries if info.filename.endswith(".pkl")):
            raise Unreadable(f"its table of tensors has more than {MAX_HEADER:,} bytes")
        if sum(info.file_size for info in entries) > os.path.getsize(path):
            raise Unreadable("its entries overlap")
        # PyTorch looks at no checksums.
        check_sums(path)
    try:
        with warnings.catch_warnings():
            # Of a broken pickle it remarks that its version is new.
            warnings.simplefilter("ignore")
            # weights_only: a pickle that calls anything but tensors' constructors is refused.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except Exception as fault:  # the unpickler raises whatever a broken pickle leads it to
        if disk_fails(fault):
            raise
        first = str(fault).strip().partition("\n")[0][:200]
        hint = "; save `model.state_dict()`" if "weights_only" in str(fault).lower() else ""
        raise Unreadable(f"PyTorch cannot load it as weights alone ({first}){hint}") from None
    notes: list[str] = []
    state = _state(torch, found, notes)
    tensors = {}
    for key, value in state.items():
        if not isinstance(value, torch.Tensor) or key.rpartition(".")[2] in _COUNTERS:
            continue
        if value.layout != torch.strided or not value.is_floating_point():
            raise Unreadable(f"{quoted(key, 100)} is of {value.dtype}, {value.layout}")
        if value.is_meta:
            raise Unreadable(f"{quoted(key, 100)} has no values: it is on the device `meta`")
        tensors[key] = Tensor(tuple(value.shape), partial(_array, torch, value))
    if len(tensors) > MAX_TENSORS:
        raise Unreadable(f"it has {len(tensors):,} tensors; the limit is {MAX_TENSORS:,}")
    # A `state_dict` comes as the module was built. One that is sorted by name has lost that order.
    keys = list(tensors)
    return Checkpoint(grouped(tensors), keys != sorted(keys), tuple(notes))


def _array(torch: Any, value: Any) -> Array:
    found: Array = value.detach().to(torch.float32).numpy()
    return np.array(found)


def _state(torch: Any, found: Any, notes: list[str], depth: int = 0) -> Mapping[str, Any]:
    """The `state_dict` in what a training script saved."""
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise Unreadable("it holds no tensors by name")
    nests = [key for key in _NESTS if isinstance(found.get(key), Mapping)]
    if nests and depth < 4:
        if len(nests) > 1:
            notes.append(f"took {quoted(nests[0])}, and left {_listed(nests[1:])}")
        return _state(torch, found[nests[0]], notes, depth + 1)
    if not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise Unreadable("it holds no tensors by name")
    return found


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))
