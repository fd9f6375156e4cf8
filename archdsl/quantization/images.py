"""Images to calibrate or to judge with: from arrays, `.npz` files and folders of photos."""

from __future__ import annotations

import csv
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from archdsl.compiler import Arch
from archdsl.ir.execute import Array
from archdsl.ir.ops import Shape
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.limits import MAX_IMAGE_BYTES, MAX_TEXT
from archdsl.quantization.presets import PRESETS, Preset, pixels, prepared
from archdsl.weights.archives import disk_fails

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_SHOWN = 8


@dataclass(frozen=True)
class Images:
    """Images (count, height, width, channels) as a network takes them, float32, and their classes.

    `labels` holds a class number for each image, int64; None where none are known.
    """

    images: Array
    labels: Array | None = None


def calibration_images(
    given: Array | str | os.PathLike[str], arch: Arch, preprocess: str | None = None
) -> Array:
    """The images of `read_images`.

    Raises:
        OSError, ImportError, ArchError: as there.
    """
    return read_images(given, arch, preprocess).images


def read_images(
    given: Array | str | os.PathLike[str], arch: Arch, preprocess: str | None = None
) -> Images:
    """Images of the network's size from an array, a `.npz` file or a folder of photos.

    An array is (count, height, width, channels). A floating one is taken as it stands. One of uint8
    has pixels, which the preset called `preprocess` brings into the network's range; a folder's
    photos it resizes and crops before. A `.npz` file has the array `images`, and may have `labels`,
    integers; a folder has them in a `labels.csv` (file, label), or in folders named after them.
    Labels are numbers of the network's classes, from 0.

    Raises:
        OSError: the file or the folder cannot be read.
        ImportError: Pillow, which reads photos, is missing; the message names the install line.
        ArchError: E0804 where they are no images, or not the network's.
    """
    preset = None if preprocess is None else _preset(preprocess)
    if not isinstance(given, (str, os.PathLike)):
        return Images(_checked("the array of images", np.asarray(given), arch.input, preset))
    path = Path(given)
    if path.is_dir():
        return _folder(path, arch, preset)
    return _npz(path, arch, preset)


def _preset(name: str) -> Preset:
    found = PRESETS.get(name)
    if found is None:
        guess = did_you_mean(name, PRESETS)
        hint = (
            f"did you mean {quoted(guess)}?" if guess else f"there are {listed([*PRESETS], 'and')}"
        )
        _refuse(f"no preprocessing is called {quoted(name)}", hint)
    return found


def no_class(labels: Array, arch: Arch) -> int | None:
    """A label that is not the number of a class; a network without classes has any number."""
    graph = arch.graph()
    shape = graph[graph.output].shape
    count = shape[0] if len(shape) == 1 else 2**63
    # As Python's integers: in numpy's, a large one of uint64 may become negative.
    ends = int(labels.min()), int(labels.max())
    return next((label for label in ends if not 0 <= label < count), None)


# ------------------------------------------------------------------------------------ the arrays


def _checked(what: str, images: Array, input: Shape, preset: Preset | None) -> Array:
    """An array that is already here, as float32 in the network's range."""
    _check_header(what, images.dtype, images.shape, input, preset)
    if images.dtype == np.uint8:
        assert preset is not None, "has been checked"
        return prepared(images, preset)
    with np.errstate(over="ignore", invalid="ignore"):
        values = images.astype(np.float32, copy=False)
        # A sum is finite only where all its terms are.
        bad = not np.isfinite(values.sum(dtype=np.float64))
    if bad:
        _refuse(f"{what}: holds values that are infinite or not numbers")
    return values


def _check_header(what: str, dtype: Any, shape: Shape, input: Shape, preset: Preset | None) -> None:
    """Refuse an array by its type and shape, before its values are read."""
    if len(shape) != 4 or shape[1:] != tuple(input):
        wanted = f"count x {_sizes(input)}"
        hint = "images are (count, height, width, channels)"
        if len(shape) == 4 and (shape[2], shape[3], shape[1]) == tuple(input):
            hint += ": transpose these with .transpose(0, 2, 3, 1)"
        _refuse(f"{what}: the shape is {_sizes(shape)}, the network takes {wanted}", hint)
    if not shape[0]:
        _refuse(f"{what}: it is empty")
    if math.prod(shape) * max(4, dtype.itemsize) > MAX_IMAGE_BYTES:
        most = MAX_IMAGE_BYTES // (4 * math.prod(input))
        _refuse(f"{what}: {shape[0]:,} images are too many; the limit is {most:,} of this size")
    if dtype == np.uint8:
        if preset is None:
            names = listed([*PRESETS])
            _refuse(
                f"{what}: pixels of uint8, and how the network takes them is not said",
                f"name the preprocessing it was trained with: {names}",
            )
    elif dtype.kind != "f":
        _refuse(f"{what}: its elements are {dtype}, not floating numbers or pixels of uint8")
    elif preset is not None:
        _refuse(
            f"{what}: its numbers are floating, so taken as they stand, and preprocessing is named",
            "give pixels of uint8, or no preprocessing",
        )


def _check_labels(what: str, dtype: Any, shape: Shape, count: int) -> None:
    if dtype.kind not in "iu" or shape != (count,):
        wanted = f"{count:,} integers"
        _refuse(f"{what}: `labels` is {_sizes(shape)} of {dtype}, and {wanted} are wanted")


def _checked_labels(what: str, labels: Array, arch: Arch) -> Array:
    """Labels that are numbers of the network's classes, where it has some."""
    bad = no_class(labels, arch)
    if bad is not None:
        _refuse(f"{what}: the label {bad} is no class of the network", "classes count from 0")
    return labels.astype(np.int64)


def _npz(path: Path, arch: Arch, preset: Preset | None) -> Images:
    input = arch.input
    what = quoted(os.fspath(path), 200)
    hint = "write one with numpy.savez(path, images=...), or name a folder of photos"
    with npz_archive(path, hint) as archive:
        if "images" not in archive.names:
            _refuse(f"{what}: has no array `images`", f"it has {archive.listed}")
        dtype, shape = archive.header("images")
        _check_header(what, dtype, shape, input, preset)
        labels = None
        if "labels" in archive.names:
            _check_labels(what, *archive.header("labels"), shape[0])
            labels = _checked_labels(what, archive.array("labels"), arch)
        images = archive.array("images")
    return Images(_checked(what, images, input, preset), labels)


Refuse = Callable[[str, str | None], NoReturn]
"""Raises an ArchError of a message and a help."""


@contextmanager
def npz_archive(path: Path, hint: str, refuse: Refuse | None = None) -> Iterator[NpzArchive]:
    """A `.npz` file whose arrays are read while it is open; `hint` is for what is no such file.

    Raises:
        OSError: it cannot be read.
        ArchError: it is no `.npz` file, or a broken one: as `refuse` says it, or else E0804.
    """
    refuse = refuse or _refuse
    what = quoted(os.fspath(path), 200)
    ordinary = path.is_file() or not path.exists()
    if ordinary:
        with path.open("rb"):
            # Who may not read it shall be told so.
            pass
    if not ordinary or not zipfile.is_zipfile(path):
        refuse(f"{what}: is not a .npz file", hint)
    try:
        with zipfile.ZipFile(path) as archive:
            yield NpzArchive(archive, what, refuse)
    except (ArchError, MemoryError):
        raise
    except Exception as fault:  # zipfile, zlib and numpy raise many kinds for broken files
        if disk_fails(fault):
            raise
        refuse(f"{what}: is a broken .npz file ({str(fault)[:200]})", None)


class NpzArchive:
    """The arrays of a `.npz` file by name: types and shapes first, so that no bomb is unpacked."""

    def __init__(self, archive: zipfile.ZipFile, what: str, refuse: Refuse) -> None:
        self._archive, self._what, self._refuse = archive, what, refuse
        files = Counter(info.filename for info in archive.infolist())
        for name, count in files.items():
            if count > 1:
                refuse(f"{what}: has {count:,} entries called {quoted(name, 100)}", None)
            # Its name stands twice, and is compared.
            archive.open(name).close()
        self.names = sorted(n.removesuffix(".npy") for n in files if n.endswith(".npy"))

    @property
    def listed(self) -> str:
        """Some of the names, for a message."""
        return listed([quoted(name) for name in self.names[:8]]) or "no arrays"

    def header(self, name: str) -> tuple[Any, Shape]:
        """The element type and the shape of an array, of whose data nothing has been read."""
        with self._archive.open(f"{name}.npy") as file:
            # A later version than the second is for names of fields, which these have none of.
            if np.lib.format.read_magic(file) == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(file)
            size = file.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject or self._archive.getinfo(f"{name}.npy").file_size != size:
            message = f"{self._what}: `{name}` is not an array of numbers, or not a whole one"
            self._refuse(message, None)
        return dtype, shape

    def array(self, name: str) -> Array:
        """The whole array; its header should have been looked at."""
        with self._archive.open(f"{name}.npy") as file:
            found: Array = np.lib.format.read_array(file, allow_pickle=False)
            # The checksum is looked at where the entry ends.
            file.read(1)
        return found


# ------------------------------------------------------------------------------------- the folder


def _folder(path: Path, arch: Arch, preset: Preset | None) -> Images:
    input = arch.input
    what = quoted(os.fspath(path), 200)
    if preset is None:
        names = listed([*PRESETS])
        hint = f"name the preprocessing the network was trained with: {names}"
        _refuse(f"{what}: how photos become the network's images is not said", hint)
    if input[2] not in (1, 3):
        _refuse(f"{what}: photos have 1 or 3 channels, the network's images {input[2]}")
    files = photos_in(path)
    if not files:
        _refuse(f"{what}: no photos are in it", PHOTOS)
    _check_header(what, np.dtype(np.uint8), (len(files), *input), input, preset)
    labels = _labels(path, files, what)
    if labels is not None:
        labels = _checked_labels(what, labels, arch)
    images = np.empty((len(files), *input), np.float32)
    for index, found in enumerate(read_photos(path, files, input, preset)):
        images[index] = prepared(found, preset)
    return Images(images, labels)


def photos_in(path: Path) -> list[Path]:
    """The photos of a folder and those inside it, in order."""
    return sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in _SUFFIXES and file.is_file() and not file.name.startswith(".")
    )


PHOTOS = f"photos are files that end with {listed(_SUFFIXES)}"


def read_photos(
    path: Path, files: list[Path], input: Shape, preset: Preset, refuse: Refuse | None = None
) -> Iterator[Array]:
    """The pixels of a folder's photos, one by one: uint8 (height, width, channels).

    Raises:
        ImportError: Pillow is missing; the message names the install line.
        ArchError: some cannot be read: as `refuse` says it, or else E0804.
    """
    faults = []
    for file in files:
        try:
            found = pixels(file, input, preset)
        except (ImportError, MemoryError):
            raise
        except Exception as fault:  # Pillow raises many kinds for broken files
            refused = fault.strerror if isinstance(fault, OSError) else None
            reason = refused or str(fault).partition("\n")[0][:100]
            faults.append(f"{quoted(os.fspath(file.relative_to(path)), 100)}: {reason}")
            if len(faults) == _SHOWN:
                break
        else:
            yield found
    if faults:
        what = quoted(os.fspath(path), 200)
        (refuse or _refuse)(f"{what}: photos cannot be read", "\n".join(faults))


def _labels(path: Path, files: list[Path], what: str) -> Array | None:
    """The classes of a folder's photos."""
    table = path / "labels.csv"
    names = [file.relative_to(path).as_posix() for file in files]
    if table.is_file():
        written = _table(table, what)
        lacking = [name for name in names if name not in written]
        if lacking:
            shown = ", ".join(quoted(name, 100) for name in lacking[:_SHOWN])
            _refuse(f"{what}: `labels.csv` has no label for {len(lacking):,} photos", shown)
        found = [written[name] for name in names]
    else:
        folders = [name.partition("/")[0] for name in names if "/" in name]
        if not all(map(_whole, folders)) or len(folders) < len(names):
            return None
        found = list(map(int, folders))
    return np.array(found, np.int64)


def _table(path: Path, what: str) -> Mapping[str, int]:
    if path.stat().st_size > MAX_TEXT:
        _refuse(f"{what}: `labels.csv` has more than {MAX_TEXT:,} bytes")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as fault:
        _refuse(f"{what}: `labels.csv` is no table ({fault})")
    if rows and rows[0] == ["file", "label"]:
        del rows[0]
    found = {}
    for row in rows:
        if len(row) != 2 or not _whole(row[1].strip()):
            shown = quoted(",".join(row), 100)
            _refuse(f"{what}: `labels.csv` has the row {shown}", "a row is: file,label")
        found[row[0].strip()] = int(row[1])
    return found


def _whole(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 9


def _sizes(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a number"


def _refuse(message: str, hint: str | None = None) -> NoReturn:
    raise ArchError([Diagnostic("E0804", message, None, hint)])
