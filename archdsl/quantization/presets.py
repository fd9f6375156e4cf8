"""How photos become a network's images: the recipes that published networks were trained with."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from archdsl.extras import needs
from archdsl.ir.execute import Array
from archdsl.ir.ops import Shape
from archdsl.limits import MAX_PIXELS

Three = tuple[float, float, float]


class Preset(NamedTuple):
    """A photo is resized until its centre, `crop` of it, has the network's size, and cut to it.

    Then each channel, from 0 to 1, has `mean` taken off and is divided by `std`.
    """

    resample: Literal["bilinear", "bicubic"]
    crop: float
    mean: Three
    std: Three


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

PRESETS: dict[str, Preset] = {
    "imagenet": Preset("bilinear", 0.875, _MEAN, _STD),
    "imagenet_bicubic": Preset("bicubic", 0.875, _MEAN, _STD),
    "inception": Preset("bicubic", 0.875, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "unit": Preset("bilinear", 0.875, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "bytes": Preset("bilinear", 0.875, (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
}
"""By name. `imagenet` is torchvision's, `imagenet_bicubic` that of most of timm's networks, and
`inception`, from -1 to 1, TensorFlow's; `unit` leaves 0 to 1, `bytes` 0 to 255."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""Those that are pictures and nothing else: Pillow would run Ghostscript for PostScript."""


def prepared(pixels: Array, preset: Preset) -> Array:
    """Pixels (..., channels) from 0 to 255 as float32 in the network's range.

    A network of one channel has that of the first of the preset's.
    """
    channels = pixels.shape[-1]
    mean, std = (np.asarray(three, np.float32) for three in (preset.mean, preset.std))
    if channels != 3:
        mean, std = mean[:1], std[:1]
    values: Array = pixels.astype(np.float32) / 255
    values -= mean
    values /= std
    return values


def pixels(path: Path, input: Shape, preset: Preset) -> Array:
    """A photo's pixels, resized and cut: uint8 (height, width, channels).

    Raises:
        ImportError: Pillow is missing; the message names the install line.
        OSError, ValueError: it is no photo of a known format, or too large.
    """
    with needs("images", "photos are read with Pillow"):
        from PIL import Image, UnidentifiedImageError
    height, width, channels = input
    with path.open("rb") as file, warnings.catch_warnings():
        # Pillow warns of large images before their size is known here, and refuses larger ones.
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = Image.open(file, formats=_FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"it is none of {', '.join(_FORMATS)}") from None
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS:,} pixels")
        if image.mode.startswith("I"):
            # Greys of 16 bits, which Pillow would clip to 255.
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        image = image.convert("RGB" if channels == 3 else "L")
    # The side that binds gets its size exactly; as torchvision does, the other is cut to a number.
    tall, wide = round(height / preset.crop), round(width / preset.crop)
    if tall * image.width >= wide * image.height:
        wide = int(tall * image.width / image.height)
    else:
        tall = int(wide * image.height / image.width)
    if tall * wide > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels are too thin a strip")
    image = image.resize((wide, tall), Image.Resampling[preset.resample.upper()])
    left, top = round((wide - width) / 2), round((tall - height) / 2)
    found = np.asarray(image.crop((left, top, left + width, top + height)))
    return found.reshape(input)
