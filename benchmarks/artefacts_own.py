"""archdsl's side of the artefacts, in archdsl's environment: weights, images, files, emission.

    artefacts_own.py prepare NETWORK FOLDER    weights, images and archdsl's files, into FOLDER
    artefacts_own.py emit NETWORK BACKEND ROUNDS    graph and weights in hand, to the file's bytes

prints what it did as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import archdsl
from archdsl.backend import Job, backend, compile
from archdsl.weights.initial import initialize
from archdsl.weights.lively import lively
from archdsl.weights.random import Stream

CALIBRATION, SHOWN = 16, 8
"""Images to calibrate with, and others to compare outputs on."""

WANTED = {
    "onnx": ("float32", "float16", "int8", "int8 mse"),
    "tflite": ("float32", "float16", "int8", "int8 mse", "int8_dynamic"),
}
"""Precisions, and how ranges are found where not by the extremes."""


def images(arch: archdsl.Arch, purpose: str, count: int) -> Any:
    """Images (count, height, width, channels) such as the weights' statistics are those of."""
    shape = (count, *arch.input)
    return Stream(0, f"benchmark:{purpose}").normal(int(np.prod(shape)), 1.0).reshape(shape)


def prepare(name: str, folder: Path) -> dict[str, Any]:
    """Everything is made anew: what is timed is what this checkout makes."""
    arch = archdsl.load(name)
    weights = lively(arch)
    # In the order of the forward pass, which is how the peers take them.
    kept = {key: value for key, value in weights.items() if value.dtype.kind == "f"}
    digest = hashlib.sha256()
    for key, value in kept.items():
        digest.update(key.encode() + value.tobytes())
    np.savez(folder / "weights.npz", **kept)
    calibration, shown = (
        images(arch, "calibration", CALIBRATION),
        images(arch, "shown", SHOWN),
    )
    np.savez(folder / "images.npz", calibration=calibration, shown=shown)
    digest.update(calibration.tobytes())
    files: dict[str, str] = {}
    missing: dict[str, str] = {}
    for to, wanted in WANTED.items():
        for precision in wanted:
            label = f"archdsl {to} {precision}"
            try:
                made = _compiled(arch, to, precision, weights, calibration)
                path = folder / f"archdsl-{precision.replace(' ', '-')}{made.backend.suffix}"
                made.write(path)
                files[label] = path.name
            except Exception as error:  # its line says what stops it, and the rest is measured
                missing[label] = (str(error).splitlines() or [type(error).__name__])[0]
    return {
        "input": list(arch.input),
        "digest": digest.hexdigest(),
        "files": files,
        "missing": missing,
    }


def _compiled(arch: archdsl.Arch, to: str, precision: str, weights: Any, calibration: Any) -> Any:
    dtype, _, ranges = precision.partition(" ")
    options: dict[str, Any] = {"weights": weights, "dtype": dtype}
    if dtype == "int8":
        options |= {"calibration": calibration, "ranges": ranges or "minmax"}
    return compile(arch, to, **options)


def emit(name: str, to: str, rounds: int) -> dict[str, Any]:
    """Emission proper: the first round, which fills caches and memos, is kept apart."""
    arch = archdsl.load(name)
    weights = initialize(arch.graph())
    seconds, cpu, size = [], [], 0
    for _ in range(rounds + 1):
        job = Job(arch, given=weights, filename=f"{name}.{to}")
        # Both are made when first asked for.
        assert job.graph and job.weights
        chosen = backend(to)
        start, used = time.perf_counter(), time.process_time()
        made = chosen.emit(job)
        data = made if isinstance(made, bytes) else made.data
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        size = len(data)
    return {"seconds": seconds[1:], "cpu_seconds": cpu[1:], "first": seconds[0], "bytes": size}


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        found = prepare(sys.argv[2], Path(sys.argv[3]))
    else:
        found = emit(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    print(json.dumps(found))
