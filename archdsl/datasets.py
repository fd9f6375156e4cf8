"""Images to learn from, with their classes: digits, folders of photos and `.npz` files.

Prepared once for a size: resized, standardised, and split into images to learn from and images to
judge by, always in the same way.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import numpy as np

from archdsl.extras import needs
from archdsl.ir.execute import Array
from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.limits import MAX_CLASSES, MAX_IMAGE_BYTES
from archdsl.quantization.images import PHOTOS, npz_archive, photos_in, read_photos
from archdsl.quantization.presets import Preset

DIGITS = "digits"
"""The handwritten digits that come with scikit-learn: 1,797 images of 8x8 grey pixels."""

VALIDATION = 0.2
"""The share of each class that is judged by, where the data have no such part of their own."""

_LUMA = (0.299, 0.587, 0.114)
_WHOLE = Preset("bilinear", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_LEARN, _JUDGE = ("train", "training"), ("val", "valid", "validation", "test")


@dataclass(frozen=True, eq=False)
class Data:
    """Images (count, channels, height, width), float32, standardised, and their classes, int64."""

    name: str
    train: Array
    train_labels: Array
    validation: Array
    validation_labels: Array
    classes: tuple[str, ...]
    """Their names, by number."""

    def __repr__(self) -> str:
        counts = f"{len(self.train):,} + {len(self.validation):,} images"
        sizes = "x".join(map(str, self.input))
        return f"Data({self.name!r}, {counts} of {sizes}, {len(self.classes)} classes)"

    @property
    def input(self) -> tuple[int, int, int]:
        """Height, width, channels of the images."""
        _, channels, height, width = self.train.shape
        return height, width, channels


def load_data(
    source: str | os.PathLike[str],
    size: int | tuple[int, int],
    channels: int = 3,
    *,
    seed: int = 0,
    validation: float = VALIDATION,
) -> Data:
    """Data of a size (a side, or height and width): `digits`, a folder, or a `.npz` file.

    A folder has a folder of photos for each class, or such folders inside `train` and `val`. A
    `.npz` file has `x`, images (count, height, width) or (count, height, width, channels), and `y`,
    their classes; it may have `x_test` and `y_test`. Photos and images are resized until they cover
    the size, and cut to it. Grey images are repeated for three channels; coloured ones become their
    luma for one. Each channel is standardised by what is learned from.

    Where the data have no part to judge by, it is the share `validation` of each class, drawn by
    `seed`. The last few data sets are remembered: the arrays are shared, and not to be written to.

    Raises:
        OSError: the file or the folder cannot be read.
        ImportError: scikit-learn or Pillow is missing; the message names the install line.
        ArchError: E1010 where there is nothing to be learned.
    """
    sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if channels not in (1, 3):
        message = f"the network takes images of {channels} channels, and these have 1 or 3"
        refuse(message, "give the network an input of 1 or 3 channels")
    name = os.fspath(source)
    return _load(name, _stamp(name), sides, channels, seed, validation)


def parts(images: int, batch: int) -> int:
    """Into how many batches images are split: of `batch` at most, but of two at least.

    One image of a single pixel has no variance, which norms want.

    >>> parts(10, 4), parts(9, 8), parts(3, 2), parts(1, 8)
    (3, 2, 1, 1)
    """
    return max(1, min(math.ceil(images / batch), images // 2))


def batches(
    images: Array,
    labels: Array,
    batch: int,
    rng: np.random.Generator,
    *,
    shift: float = 0.0,
    flip: bool = False,
) -> Iterator[tuple[Array, Array]]:
    """All images once, in another order each time, in batches of equal size but for rounding.

    Each is moved by up to `shift` of its sides, the border repeated, and mirrored by half a chance
    where `flip` is set.
    """
    for indices in np.array_split(rng.permutation(len(images)), parts(len(images), batch)):
        yield _augmented(images[indices], rng, shift, flip), labels[indices]


def _augmented(images: Array, rng: np.random.Generator, shift: float, flip: bool) -> Array:
    count, _, height, width = images.shape
    far = round(height * shift), round(width * shift)
    if any(far):
        rows = np.arange(height) + rng.integers(-far[0], far[0] + 1, (count, 1))
        columns = np.arange(width) + rng.integers(-far[1], far[1] + 1, (count, 1))
        rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
        rows, columns = rows[:, None, :, None], columns[:, None, None, :]
        images = np.take_along_axis(np.take_along_axis(images, rows, 2), columns, 3)
    if flip:
        mirrored: Array = rng.random((count, 1, 1, 1)) < 0.5
        images = np.where(mirrored, images[..., ::-1], images)
    return np.ascontiguousarray(images)


# ------------------------------------------------------------------------------------- reading


def _stamp(name: str) -> tuple[int, int] | None:
    """What tells that a file is another one; a folder's photos are not looked at."""
    if name == DIGITS:
        return None
    found = os.stat(name)
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=3)
def _load(
    name: str,
    stamp: tuple[int, int] | None,
    sides: tuple[int, int],
    channels: int,
    seed: int,
    validation: float,
) -> Data:
    if name == DIGITS:
        parts, classes = _digits(sides, channels)
    elif Path(name).is_dir():
        parts, classes = _folder(Path(name), sides, channels)
    else:
        parts, classes = _npz(Path(name), sides, channels)
    images, labels = parts[0]
    what = quoted(name, 200)
    present = np.unique(labels)
    if len(present) < 2:
        refuse(f"{what}: there are fewer than two classes to learn from", None)
    if len(parts) == 1:
        judged = _split(labels, validation, seed)
        if not judged.any():
            refuse(f"{what}: no class has two images, and one of them is to judge by", None)
        parts = [(images[~judged], labels[~judged]), (images[judged], labels[judged])]
    (train, train_labels), (judge, judge_labels) = parts
    axes = (0, 2, 3)
    mean = train.mean(axes, np.float64, keepdims=True).astype(np.float32)
    deviation = train.std(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    # Channels that are the same everywhere become 0.
    deviation = np.where(deviation > 1e-6 * np.abs(mean), deviation, 1).astype(np.float32)
    made = []
    for part in (train, judge):
        standard = (part - mean) / deviation
        if channels == 3 and standard.shape[1] == 1:
            standard = np.repeat(standard, 3, axis=1)
        made.append(standard)
    for array in (*made, train_labels, judge_labels):
        array.setflags(write=False)
    title = name if name == DIGITS else Path(name).resolve().name
    return Data(title, made[0], train_labels, made[1], judge_labels, classes)


_Parts = list[tuple[Array, Array]]
"""Images (count, channels, height, width) and labels: to learn from, and perhaps to judge by."""


def _digits(sides: tuple[int, int], channels: int) -> tuple[_Parts, tuple[str, ...]]:
    with needs("search", "the digits come with scikit-learn"):
        from sklearn.datasets import load_digits
    found = load_digits()
    images = _sized(found.images[..., None], sides, channels, DIGITS)
    return [(images, found.target.astype(np.int64))], tuple(map(str, range(10)))


def _npz(path: Path, sides: tuple[int, int], channels: int) -> tuple[_Parts, tuple[str, ...]]:
    what = quoted(os.fspath(path), 200)
    hint = "write one with numpy.savez(path, x=..., y=...), or name a folder of photos"
    raw = []
    with npz_archive(path, hint, refuse) as archive:
        for x, y in (("x", "y"), ("x_test", "y_test")):
            if x == "x_test" and x not in archive.names and y not in archive.names:
                continue
            for name in (x, y):
                if name not in archive.names:
                    refuse(f"{what}: has no array `{name}`", f"it has {archive.listed}")
            _check_images(f"{what}: `{x}`", *archive.header(x), sides, channels)
            dtype, shape = archive.header(y)
            if dtype.kind not in "iuU" or shape != archive.header(x)[1][:1]:
                is_ = f"{'x'.join(map(str, shape)) or 'one'} of {dtype}"
                refuse(f"{what}: `{y}` is {is_}, and a whole number for each image is wanted", None)
            images = archive.array(x)
            images = images[..., None] if images.ndim == 3 else images
            raw.append((_sized(images, sides, channels, f"{what}: `{x}`"), archive.array(y)))
    names = np.unique(raw[0][1])
    if len(names) > MAX_CLASSES:
        refuse(f"{what}: there are more than {MAX_CLASSES:,} classes", None)
    parts = []
    for images, labels in raw:
        strange = labels[~np.isin(labels, names)]
        if len(strange):
            shown = quoted(str(strange[0]))
            refuse(f"{what}: the class {shown} of `y_test` is none of `y`", None)
        parts.append((images, np.searchsorted(names, labels).astype(np.int64)))
    return parts, tuple(map(str, names))


def _check_images(
    what: str, dtype: np.dtype, shape: tuple[int, ...], sides: tuple[int, int], channels: int
) -> None:
    """Refuse an array by its type and shape, before its values are read."""
    hint = "images are (count, height, width), or (count, height, width, channels)"
    known = len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
    if not known or not all(shape):
        if len(shape) == 4 and shape[1] in (1, 3):
            hint = "channels stand last: transpose these with .transpose(0, 2, 3, 1)"
        refuse(f"{what} has the shape {'x'.join(map(str, shape)) or 'of a number'}", hint)
    if dtype.kind not in "iufb":
        refuse(f"{what} has elements of {dtype}, and numbers are wanted", None)
    _check_bytes(what, shape[0], math.prod(shape[1:]), sides, channels)


def _check_bytes(what: str, count: int, pixels: int, sides: tuple[int, int], channels: int) -> None:
    most = MAX_IMAGE_BYTES // (4 * max(pixels, channels * math.prod(sides)))
    if count > most:
        hint = "take a smaller size, or fewer images"
        refuse(f"{what}: {count:,} images are too many; the limit is {most:,} of this size", hint)


def _folder(path: Path, sides: tuple[int, int], channels: int) -> tuple[_Parts, tuple[str, ...]]:
    what = quoted(os.fspath(path), 200)
    folders = sorted(f for f in path.iterdir() if f.is_dir() and not f.name.startswith("."))
    by_name = {folder.name.lower(): folder for folder in folders}
    learn = [by_name[name] for name in _LEARN if name in by_name]
    judge = [by_name[name] for name in _JUDGE if name in by_name]
    roots = [learn[0], judge[0]] if learn and judge else [path]
    names: list[str] = []
    parts = []
    for root in roots:
        files = [file for file in photos_in(root) if file.parent != root]
        if not files:
            refuse(
                f"{quoted(os.fspath(root), 200)}: no folders of photos are in it",
                f"each class has a folder with its photos; {PHOTOS}",
            )
        classes = [file.relative_to(root).parts[0] for file in files]
        if not names:
            names = sorted(set(classes))
        strange = sorted(set(classes) - set(names))
        if strange:
            refuse(f"{what}: the class {quoted(strange[0])} has no photos to learn from", None)
        _check_bytes(what, len(files), 1, sides, channels)
        images = np.empty((len(files), channels, *sides), np.float32)
        # Photos are read in the number of channels that is wanted.
        found = read_photos(root, files, (*sides, channels), _WHOLE, refuse)
        for index, photo in enumerate(found):
            images[index] = photo.transpose(2, 0, 1)
        numbers = {name: number for number, name in enumerate(names)}
        parts.append((images, np.array([numbers[name] for name in classes], np.int64)))
    return parts, tuple(names)


def _split(labels: Array, share: float, seed: int) -> Array:
    """Which images are judged by: of each class the share, at least one if it has two."""
    judged = np.zeros(len(labels), bool)
    rng = np.random.Generator(np.random.PCG64(seed))
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        count = min(max(round(share * len(where)), 1), len(where) - 1)
        judged[rng.permutation(where)[:count]] = True
    return judged


# ------------------------------------------------------------------------------------- resizing


def _sized(images: Array, sides: tuple[int, int], channels: int, what: str) -> Array:
    """Images (count, height, width, channels) of any numbers as (count, channels, *sides)."""
    values = np.moveaxis(images, -1, 1).astype(np.float32)
    if channels == 1 and values.shape[1] == 3:
        values = np.tensordot(np.asarray(_LUMA, np.float32), values, ([0], [1]))[:, None]
    height, width = values.shape[2:]
    scale = max(sides[0] / height, sides[1] / width)
    for axis, (old, new) in enumerate(zip((height, width), sides, strict=True), 2):
        values = np.moveaxis(np.moveaxis(values, axis, -1) @ _resizing(old, new, scale).T, -1, axis)
    if not np.isfinite(values.sum(dtype=np.float64)):
        refuse(f"{what} holds values that are infinite, too large or not numbers", None)
    return np.ascontiguousarray(values, np.float32)


def _resizing(old: int, new: int, scale: float) -> Array:
    """The matrix (new, old) of bilinear resizing by a scale, about the centre.

    Where the image becomes smaller, the triangles become wider, so that no pixel is left out.
    """
    reach = max(1.0, 1 / scale)
    centres = (np.arange(new) + 0.5 - new / 2) / scale + old / 2
    away = (np.arange(old) + 0.5)[None, :] - centres[:, None]
    weights = np.maximum(0.0, 1 - np.abs(away) / reach)
    found: Array = weights / weights.sum(1, keepdims=True)
    return found.astype(np.float32)


def refuse(message: str, help: str | None = None) -> NoReturn:
    """Say of data that nothing can be learned from them.

    Raises:
        ArchError: E1010.
    """
    raise ArchError([Diagnostic("E1010", message, None, help)])
