"""Write a bench kit: a folder of models, a script that times them, and what they are."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from archdsl.calibration.kit import Runtime, is_whole, networks
from archdsl.calibration.measuring import emitted
from archdsl.calibration.results import KIT
from archdsl.calibration.running import PACKAGES
from archdsl.compiler import Arch
from archdsl.passes.cost import Dtype

SCHEMA_VERSION = 1

Progress = Callable[[int, int], None]


def write_kit(
    folder: str | os.PathLike[str],
    runtime: Runtime,
    dtype: Dtype = "float32",
    *,
    archs: Iterable[Arch] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write a kit's folder, whole or not at all, and return the bytes of its models.

    An empty folder and an earlier kit that nothing was added to are replaced. `archs` are other
    networks than the built-in ones; `progress` is called with the models done, and their number.

    Raises:
        OSError: the folder holds something else, or the disk refuses.
        BackendError: the runtime has no such type of numbers, or a package is missing.
        ArchError: the backend cannot express a network.
    """
    target = Path(os.path.abspath(folder))
    _refuse_others(target)
    made = target.parent / f".{target.name[:64]}.{secrets.token_hex(6)}"
    made.mkdir()
    try:
        size = _write(made, runtime, dtype, tuple(archs or networks()), progress)
        _refuse_others(target)
        _replace(target, made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return size


def _write(
    folder: Path, runtime: Runtime, dtype: Dtype, archs: tuple[Arch, ...], progress: Progress | None
) -> int:
    models: list[dict[str, Any]] = []
    size = 0
    for index, arch in enumerate(archs):
        if progress is not None:
            progress(index, len(archs))
        artifact = emitted(arch, runtime, dtype)
        path = folder / artifact.filename
        artifact.write(path)
        size += path.stat().st_size
        cost = arch.cost()
        models.append(
            {
                "name": arch.name,
                "file": artifact.filename,
                "whole": is_whole(arch.name),
                "input": list(arch.input),
                "macs": cost.macs,
                "params": cost.params,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                "arch": arch.to_text(),
            }
        )
    if progress is not None:
        progress(len(archs), len(archs))
    table = {
        "schema_version": SCHEMA_VERSION,
        "format": "archdsl-kit",
        "runtime": runtime,
        "dtype": dtype,
        "models": models,
    }
    (folder / KIT).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    source = files("archdsl.calibration").joinpath("running.py").read_text(encoding="utf-8")
    (folder / "run.py").write_text(source, encoding="utf-8")
    (folder / "README.md").write_text(_readme(runtime, dtype, models), encoding="utf-8")
    return size


def _refuse_others(target: Path) -> None:
    """Check that nothing but a kit is replaced.

    Raises:
        OSError: something else lies there.
    """
    if not target.exists() and not target.is_symlink():
        return
    if target.is_symlink() or not target.is_dir():
        raise FileExistsError(errno.EEXIST, "is there already, and is no folder", str(target))
    added = sorted({entry.name for entry in target.iterdir()} - _files_of(target))
    if added:
        what = f"holds {added[0]!r}, which is no part of a bench kit; take another folder"
        raise FileExistsError(errno.EEXIST, what, str(target))


def _files_of(kit: Path) -> set[str]:
    """The names of a kit's files; of another folder none."""
    try:
        table = json.loads((kit / KIT).read_text(encoding="utf-8"))
        if table["format"] != "archdsl-kit":
            return set()
        return {str(model["file"]) for model in table["models"]} | {KIT, "run.py", "README.md"}
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()


def _replace(target: Path, made: Path) -> None:
    if not target.exists():
        made.rename(target)
        return
    old = made.with_name(f"{made.name}.old")
    target.rename(old)
    try:
        made.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _readme(runtime: Runtime, dtype: Dtype, models: list[dict[str, Any]]) -> str:
    phone = _PHONE if runtime == "tflite" else _PROFILES if runtime == "onnxruntime" else ""
    rows = "\n".join(
        f"| {model['name']} | {'x'.join(map(str, model['input']))} | {model['macs'] / 1e6:,.1f} | "
        f"{model['params'] / 1e6:,.2f} |"
        for model in models
    )
    return _README.format(
        runtime=runtime, dtype=dtype, package=PACKAGES[runtime], phone=phone, rows=rows
    )


_README = """\
# Bench kit: {runtime}, {dtype}

Networks whose times tell what a device is good at; `kit.json` has their texts. On the machine at
hand (Python 3.10 or newer, numpy and {package}, nothing else running):

    python run.py

takes about a minute and writes `results.json`. `--threads N` uses more than one thread, `--cpu N`
stays on one CPU (on Linux; the cores of a phone's processor differ), `--seconds S` measures longer.
{phone}
Then, where archdsl is installed:

    archdsl calibrate results.json

| network | image | million MACs | million parameters |
| --- | --- | ---: | ---: |
{rows}
"""

_PHONE = """
On a phone, with LiteRT's `benchmark_model` for Android:

    adb push benchmark_model *.tflite /data/local/tmp
    for model in *.tflite; do
        adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/$model --num_threads=1
    done > results.txt 2>&1

and then `archdsl calibrate results.txt --kit .`: the log names each model. `--use_gpu=true` and the
like measure another unit of the phone; a profile is of one unit.
"""

_PROFILES = """
Elsewhere, a session with `SessionOptions.enable_profiling` and `profile_file_prefix` set to a
model's name writes a profile at each model; `archdsl calibrate FOLDER --kit .` reads a folder of
them.
"""
