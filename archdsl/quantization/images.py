"""Images to calibrate or to judge with: from arrays, `.npz` files and folders of photos."""

from __future__ import annotations

import os

from archdsl.compiler import Arch
from archdsl.ir.execute import Array


def calibration_images(given: Array | str | os.PathLike[str], arch: Arch) -> Array:
    """Images (count, height, width, channels), float32, as the network takes them."""
    raise NotImplementedError
