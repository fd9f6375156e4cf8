"""Keras' files as layers: `.h5` of all ages, `.weights.h5`, and the `.keras` archive.

What is read is the HDF5 file's own numbers. Links to other places or files, data that lie in other
files, and filters that HDF5 would load as plug-ins are refused, and no layer's code is looked at.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

import numpy as np

from archdsl.extras import needs
from archdsl.ir.execute import Array
from archdsl.ir.ops import Shape
from archdsl.lang.diagnostics import quoted
from archdsl.limits import MAX_NESTING, MAX_TENSORS
from archdsl.weights.archives import Unreadable, disk_fails, members
from archdsl.weights.layers import Checkpoint, Layer, Tensor

_FILTERS = {1, 2, 3, 4, 5, 6}
"""HDF5's own: deflate, shuffle, fletcher32, szip, nbit, scaleoffset."""

_ROLES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

# What may lie beside the weights in a .keras archive: Adam keeps two more numbers for each.
_SLACK, _COPIES = 64 << 20, 8

_PATIENCE, _PACE = 60, 1 << 20
"""Seconds that a file's reading may take, and one more for so many weights."""


def read_keras(path: str | os.PathLike[str], count: int, stack: ExitStack) -> Checkpoint:
    """The layers of a Keras file, which `stack` closes; `count` weights are wanted of it.

    Raises:
        OSError: the file cannot be read.
        ImportError: h5py is missing; the message names the install line.
        Unreadable: it is not a whole Keras file, or one that reaches beyond itself.
    """
    h5py = _h5py()
    looked_into(path, count)
    return _read_keras(h5py, path, count, stack)


def looked_into(path: str | os.PathLike[str], count: int) -> None:
    """Let another process read a file first: some broken ones HDF5 never comes to an end with.

    What that process finds to be wrong is found, and said, here.

    Raises:
        Unreadable: it crashed, or took longer than reading takes.
    """
    code = (
        "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
        "from archdsl.weights.keras import look_into; look_into(sys.argv[2], int(sys.argv[3]))"
    )
    words = [json.dumps(sys.path), os.path.abspath(path), str(count)]
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE + count / _PACE,
        )
    except subprocess.TimeoutExpired:
        raise Unreadable("HDF5 does not come to an end with it") from None
    if done.returncode < 0:
        raise Unreadable(f"HDF5 crashes on it (signal {-done.returncode})")


def look_into(path: str, count: int) -> None:
    """Read all that `read_keras` lets be read of a file."""
    with ExitStack() as stack, suppress(Unreadable):
        for layer in _read_keras(_h5py(), path, count, stack).layers:
            for tensor in layer.tensors.values():
                if math.prod(tensor.shape) <= count:
                    with suppress(Unreadable):
                        tensor.read()


def _read_keras(
    h5py: Any, path: str | os.PathLike[str], count: int, stack: ExitStack
) -> Checkpoint:
    source = _unpacked(path, count) if zipfile.is_zipfile(path) else path
    try:
        file = stack.enter_context(h5py.File(source, "r"))
        leaves = dict(_leaves(h5py, file, "", 0, [0]))
        prefix = "model_weights/" if "model_weights" in file else ""
        root = file[prefix] if prefix else file
        names = _strings(root, "layer_names")
        if names is None:
            return _counted(leaves)
        return _listed(leaves, root, prefix, names)
    except (Unreadable, MemoryError):
        raise
    except Exception as fault:  # h5py raises what a broken file leads it to: OSError, KeyError ...
        raise Unreadable(f"HDF5 cannot read it ({str(fault)[:200]})") from None


def _h5py() -> Any:
    with needs("keras", "Keras' files are read with h5py"):
        import h5py
    return h5py


def _unpacked(path: str | os.PathLike[str], count: int) -> io.BytesIO:
    """The HDF5 file in a .keras archive."""
    files = [info for info in members(path) if info.filename == "model.weights.h5"]
    if len(files) != 1:
        raise Unreadable("the archive has no one model.weights.h5")
    limit = _SLACK + 4 * _COPIES * count
    if files[0].file_size > limit:
        raise Unreadable(
            f"its model.weights.h5 has {files[0].file_size:,} bytes, and the network's weights "
            f"take {4 * count:,}"
        )
    try:
        with zipfile.ZipFile(path) as archive, archive.open(files[0]) as entry:
            data = entry.read(limit + 1)
    except Exception as fault:  # zipfile and zlib raise several kinds
        if disk_fails(fault):
            raise
        raise Unreadable(f"a broken zip archive ({fault})") from None
    if len(data) != files[0].file_size:
        raise Unreadable("a broken zip archive: an entry has another size than its table says")
    return io.BytesIO(data)


# ------------------------------------------------------------------------------------- the tree


def _leaves(
    h5py: Any, group: Any, prefix: str, depth: int, seen: list[int]
) -> Iterator[tuple[str, Any]]:
    """The datasets of a file by path; those of optimisers are left out."""
    if depth > MAX_NESTING:
        raise Unreadable(f"groups lie more than {MAX_NESTING} deep")
    for name in group:
        seen[0] += 1
        if seen[0] > MAX_TENSORS:
            raise Unreadable(f"it has more than {MAX_TENSORS:,} groups and tensors")
        path = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Unreadable(f"{quoted(path, 100)} is a link to another place or file")
        if depth == 0 and name.startswith("optimizer"):
            continue
        item = group[name]
        if isinstance(item, h5py.Group):
            yield from _leaves(h5py, item, f"{path}/", depth + 1, seen)
        elif isinstance(item, h5py.Dataset):
            _check(item, path)
            yield path, item
        else:
            raise Unreadable(f"{quoted(path, 100)} is neither a group nor a tensor")


def _check(dataset: Any, path: str) -> None:
    """Refuse what would be read from elsewhere, or by code from elsewhere."""
    if dataset.external or dataset.is_virtual:
        raise Unreadable(f"{quoted(path, 100)} keeps its numbers in other files")
    plist = dataset.id.get_create_plist()
    if any(plist.get_filter(i)[0] not in _FILTERS for i in range(plist.get_nfilters())):
        raise Unreadable(f"{quoted(path, 100)} is packed by a filter that is not HDF5's own")
    if dataset.shape is None:
        raise Unreadable(f"{quoted(path, 100)} is empty")


def _strings(group: Any, name: str) -> list[str] | None:
    """A list of names among a group's attributes; long ones are cut into `name0`, `name1` ..."""
    if name in group.attrs:
        parts = [name]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(f"{name}{len(parts)}")
    found: list[str] = []
    for part in parts:
        shape = group.attrs.get_id(part).shape
        if len(shape) != 1 or shape[0] > MAX_TENSORS:
            raise Unreadable(f"its attribute {quoted(part)} is no list of names")
        # Without weights the list is empty, and then of no particular type.
        found += [
            value.decode("utf-8") if isinstance(value, bytes) else str(value)
            for value in group.attrs[part]
        ]
    return found if parts else None


# --------------------------------------------------------------------------------- the two layouts


def _listed(leaves: Mapping[str, Any], root: Any, prefix: str, names: list[str]) -> Checkpoint:
    """The layout of `model.save("x.h5")` and of Keras 2: layers in order, their tensors by name."""
    layers: list[Layer] = []
    notes: list[str] = []
    for index, name in enumerate(names):
        if re.match(r"normalization|rescaling", name):
            notes.append(f"the network prepares its images itself, in its layer {quoted(name)}")
            continue
        if f"{prefix}{name}" in leaves or name not in root:
            raise Unreadable(f"the layer {quoted(name, 100)} is missing")
        # A model within the model is one layer here, with the tensors of all of its own.
        parts: dict[str, dict[str, Any]] = defaultdict(dict)
        for weight in _strings(root[name], "weight_names") or ():
            part, _, role = weight.rpartition("/")
            dataset = leaves.get(f"{prefix}{name}/{weight}")
            if dataset is None:
                raise Unreadable(f"the tensor {quoted(weight, 100)} is missing")
            parts[part or name][role.partition(":")[0]] = dataset
        for place, (part, roles) in enumerate(parts.items()):
            if not set(roles) <= _ROLES.keys():
                tensors = {role: _tensor(dataset, None) for role, dataset in roles.items()}
            else:
                tensors = {_ROLES[role]: _tensor(d, role) for role, d in roles.items()}
            layers.append(Layer(part, (str(index), str(place)), tensors))
    return Checkpoint(layers, in_order=True, notes=tuple(notes), keras=True)


def _counted(leaves: Mapping[str, Any]) -> Checkpoint:
    """The layout of `.weights.h5`: tensors are numbered, and layers are in each class of them."""
    groups: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
    for path, dataset in leaves.items():
        *parts, folder, number = path.split("/") if "/" in path else ("", "", path)
        if folder != "vars" or not number.isdigit():
            raise Unreadable(f"{quoted(path, 100)} has no place in a Keras file")
        groups[tuple(parts)][number] = dataset
    layers: list[Layer] = []
    notes: list[str] = []
    for name, numbered in groups.items():
        if "seed_generator" in name[-1]:
            continue
        if re.fullmatch(r"normalization(_\d+)?", name[-1]):
            notes.append(f"the network prepares its images itself, in its layer {quoted(name[-1])}")
            continue
        datasets = [numbered[key] for key in sorted(numbered, key=int)]
        layers.append(Layer("/".join(name), name, _by_shape(datasets)))
    return Checkpoint(layers, in_order=False, notes=tuple(notes), keras=True)


def _by_shape(datasets: Sequence[Any]) -> dict[str, Tensor]:
    """The roles of a layer's numbered tensors: a kernel and its bias, or a norm's four."""
    axes = [len(dataset.shape) for dataset in datasets]
    if axes in ([4], [4, 1], [2], [2, 1]):
        roles = ["kernel", "bias"]
    elif axes == [1, 1, 1, 1]:
        roles = ["gamma", "beta", "moving_mean", "moving_variance"]
    else:
        return {str(index): _tensor(dataset, None) for index, dataset in enumerate(datasets)}
    return {_ROLES[role]: _tensor(d, role) for role, d in zip(roles, datasets, strict=False)}


# ----------------------------------------------------------------------------------- the numbers


def _tensor(dataset: Any, role: str | None) -> Tensor:
    """A tensor with PyTorch's axes: kernels are (height, width, in, out) in Keras."""
    if dataset.dtype.kind != "f":
        raise Unreadable(f"{quoted(dataset.name, 100)} is of {dataset.dtype}, not floating")
    shape: Shape = tuple(dataset.shape)
    axes = tuple(range(len(shape)))
    if role in ("kernel", "depthwise_kernel"):
        if len(shape) == 2:
            axes = (1, 0)
        elif len(shape) == 4 and (role == "depthwise_kernel" or (shape[3] == 1 < shape[2])):
            # (height, width, in, multiplier), where the multiplier is 1 in this family
            axes = (2, 3, 0, 1)
        elif len(shape) == 4:
            axes = (3, 2, 0, 1)
    return Tensor(tuple(shape[axis] for axis in axes), partial(_read, dataset, axes))


def _read(dataset: Any, axes: tuple[int, ...]) -> Array:
    try:
        with np.errstate(over="ignore"):
            values = np.asarray(dataset[()]).astype(np.float32)
    except Exception as fault:  # a broken chunk: HDF5 finds it only now
        raise Unreadable(
            f"HDF5 cannot read {quoted(dataset.name, 100)} ({str(fault)[:200]})"
        ) from None
    return np.ascontiguousarray(values.transpose(axes))
