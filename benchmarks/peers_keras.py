"""TensorFlow's own conversion, in the environment of `requirements-tensorflow.txt`.

    peers_keras.py float|int8 REQUEST

REQUEST is a JSON file: `application` (a network of keras.applications), `input`, `weights`,
`images`, `out`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf


def fill(net: Any, path: str) -> None:
    """Both sides hold their tensors in the order of the forward pass; Keras' kernels end in the
    channels that torch's begin with."""
    with np.load(path) as file:
        given = [file[key] for key in file.files]
    own = net.weights
    assert len(given) == len(own), f"{len(given)} tensors for {len(own)}"
    for variable, new in zip(own, given, strict=True):
        if len(variable.shape) == 4:
            depthwise = "depthwise" in variable.path
            kernel = new if new.ndim == 4 else new[:, :, None, None]
            new = kernel.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        assert tuple(variable.shape) == new.shape, f"{variable.path} is given {new.shape}"
        variable.assign(new)


def main() -> None:
    what, path = sys.argv[1:]
    request = json.loads(Path(path).read_text())
    net = getattr(keras.applications, request["application"])(
        input_shape=tuple(request["input"]),
        weights=None,
        include_preprocessing=False,
        classifier_activation=None,
    )
    fill(net, request["weights"])
    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    if what == "int8":
        with np.load(request["images"]) as file:
            images = file["calibration"]

        def samples() -> Iterator[list[Any]]:
            for image in images:
                yield [image[None]]

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
    Path(request["out"]).write_bytes(converter.convert())


if __name__ == "__main__":
    main()
