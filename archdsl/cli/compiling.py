"""`archdsl compile` writes what a backend makes of a network."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import (
    Command,
    Overrides,
    Status,
    as_json,
    deliver,
    file_argument,
    load,
    named,
    output_option,
    overridable,
    within,
    writable,
)
from archdsl.cli.output import Refusal, say, size, visible, write_json

if TYPE_CHECKING:
    from archdsl.backend import Artifact
    from archdsl.compiler import Arch
    from archdsl.ir.execute import Array

# Those of archdsl.backend and archdsl.quantization.ranges, which take their time to import; a test
# holds them equal.
PRECISIONS = ("float32", "float16", "int8", "int8_dynamic")
METHODS = ("minmax", "percentile", "mse")
DEFAULT = "mse"


def complete_backend(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The installed backends that begin so."""
    from archdsl.backend import available

    return [CompletionItem(name) for name in sorted(available()) if name.startswith(incomplete)]


class Weights(TypedDict):
    """Which weights: a file's, or those that a seed gives; None for neither."""

    weights: str | None
    seed: int | None


class Calibration(TypedDict):
    """The images that int8 finds its ranges with, how they are read, and how ranges are found."""

    calibration: str | None
    preprocess: str | None
    ranges: str | None


def weighted(command: Command) -> Command:
    """Give a command `--weights` or `--seed`, as one argument `weights`."""

    @functools.wraps(command)
    def call(*args: Any, weights: str | None, seed: int | None, **options: Any) -> Status:
        if weights is not None and seed is not None:
            raise click.UsageError("--weights and --seed exclude each other")
        return command(*args, weights=Weights(weights=weights, seed=seed), **options)

    extended: Command = call
    for option in (
        click.option(
            "--seed",
            type=int,
            callback=within(0, 2**63 - 1),
            metavar="N",
            help="Draw random weights from this seed.",
        ),
        click.option(
            "--weights",
            type=click.Path(),
            metavar="W",
            help="A safetensors file with the keys of the PyTorch module.",
        ),
    ):
        extended = option(extended)
    return extended


def calibrated(command: Command) -> Command:
    """Give a command `--calibration --preprocess --ranges`, as one argument `calibration`."""

    @functools.wraps(command)
    def call(
        *args: Any,
        calibration: str | None,
        preprocess: str | None,
        ranges: str | None,
        **options: Any,
    ) -> Status:
        chosen = Calibration(calibration=calibration, preprocess=preprocess, ranges=ranges)
        return command(*args, calibration=chosen, **options)

    extended: Command = call
    for option in (
        click.option(
            "--ranges",
            type=click.Choice(METHODS),
            help=f"How int8 finds its ranges. Default: {DEFAULT}.",
        ),
        click.option(
            "--preprocess",
            metavar="NAME",
            help="How a folder's photos become the network's images.",
        ),
        click.option(
            "--calibration",
            type=click.Path(),
            metavar="X",
            help="Images for int8: a .npz file, or a folder of photos.",
        ),
    ):
        extended = option(extended)
    return extended


def demand_calibration(int8: bool, given: Calibration) -> None:
    """Refuse int8 without a calibration set, and a set that nothing uses.

    Raises:
        UsageError: as said.
    """
    if int8 and given["calibration"] is None:
        message = "int8 needs a calibration set: --calibration X.npz, or a folder of photos"
        raise click.UsageError(message)
    if not int8:
        for option in ("calibration", "ranges"):
            if given[option] is not None:
                raise click.UsageError(f"--{option} is for --dtype int8")


def pictures(path: str, preprocess: str | None, arch: Arch) -> tuple[Array, Array | None]:
    """The images of a `.npz` file or of a folder, and their labels where it has them.

    Raises:
        OSError: it cannot be read.
        ArchError: E0804 where they are not the network's images.
        Refusal: a package is missing.
    """
    from archdsl.quantization.images import read_images

    try:
        found = read_images(path, arch, preprocess)
    except ImportError as failure:
        raise Refusal(str(failure)) from None
    return found.images, found.labels


@click.command("compile")
@file_argument
@overridable
@click.option(
    "--to",
    "to",
    required=True,
    metavar="BACKEND",
    shell_complete=complete_backend,
    help="What to make: torch, onnx or tflite.",
)
@output_option("Where to write; - for standard output. Default: the network's name, here.")
@weighted
@click.option(
    "--dtype",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Precision of the weights, and with int8 of the values too.",
)
@calibrated
@click.option("--features", metavar="STAGES", help="Stages that are outputs too, as c3,c4,c5.")
@click.option("--keep-norm", is_flag=True, help="Leave norms apart from the convolutions.")
@click.option(
    "--supernet", is_flag=True, help="All networks of a search space in one, with shared weights."
)
@as_json
def compile_(
    file: str,
    overrides: Overrides,
    to: str,
    out: str | None,
    weights: Weights,
    dtype: Any,
    calibration: Calibration,
    features: str | None,
    keep_norm: bool,
    supernet: bool,
    json: bool,
) -> Status:
    """Compile to PyTorch source, ONNX or TFLite.

    \b
    Examples:
      archdsl compile mnv4_conv_m --to torch
      archdsl compile net.arch --to onnx --weights net.safetensors -o models/net.onnx
      archdsl compile net.arch --to tflite --dtype int8 --calibration images.npz
      archdsl compile mnv4_coarse --to torch --supernet -o supernet.py
    """
    if supernet:
        given = {
            **{name: overrides[name] for name in ("variant", "width", "input", "classes")},
            **{"weights": weights["weights"], "seed": weights["seed"]},
            **{name: calibration[name] for name in ("calibration", "preprocess", "ranges")},
            **{"features": features, "keep-norm": keep_norm or None},
            "dtype": None if dtype == "float32" else dtype,
        }
        for name, value in given.items():
            if value is not None:
                raise click.UsageError(f"--{name} is for one network, and --supernet is a space's")
        return _supernet(file, to, out, json=json)
    # No matrices are multiplied here, and threads for it take their time to start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from archdsl.backend import BackendError, compile

    demand_calibration(dtype == "int8", calibration)
    if calibration["preprocess"] is not None and calibration["calibration"] is None:
        raise click.UsageError("--preprocess says how --calibration is read, and there is none")
    if out is not None:
        writable(out, file, json=json)
    arch = load(file, overrides)
    try:
        with progress_bar("calibrating") as progress:
            artifact = compile(
                arch,
                to,
                weights=given_weights(arch, weights),
                dtype=dtype,
                features=stages(features),
                fold=not keep_norm,
                calibration=calibration["calibration"],
                preprocess=calibration["preprocess"],
                ranges=calibration["ranges"] or DEFAULT,  # type: ignore[arg-type]
                filename=Path(out).name if out not in (None, "-") else None,
                progress=progress,
            )
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    except ImportError as failure:
        # With a name it is Python's own, and not what tells of a package that is to be installed.
        if failure.name is not None:
            raise
        raise Refusal(str(failure)) from None
    beside = artifact.emission.beside
    if out == "-":
        if beside:
            names = ", ".join(map(visible, beside))
            raise Refusal(f"-o -: {names} must lie beside the artefact: name a file")
        deliver(out, artifact.data)
        return 0
    path = _written(artifact, out or artifact.filename, file, weights["weights"])
    places = {str(Path(path).parent / name): len(data) for name, data in beside.items()}
    if json:
        write_json(
            {
                "file": path,
                "bytes": len(artifact.emission.content),
                "backend": to,
                "dtype": dtype,
                "beside": [{"file": name, "bytes": count} for name, count in places.items()],
            }
        )
    else:
        for name, count in {path: len(artifact.emission.content), **places}.items():
            say(f"{visible(name)}: {size(count)}")
    return 0


def _supernet(file: str, to: str, out: str | None, *, json: bool) -> Status:
    """Write a space's supernet."""
    from archdsl.backend import BackendError, compile_supernet
    from archdsl.cli.spacing import load_space

    if out is not None:
        writable(out, file, json=json)
    space = load_space(file)
    try:
        made = compile_supernet(space, to)
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    data = made.source.encode()
    if out == "-":
        deliver(out, data)
        return 0
    path = writable(out or made.filename, file)
    with named(path):
        made.write(path)
    if json:
        write_json(
            {"file": path, "bytes": len(data), "backend": to, "networks": space.count}
            | {"params": made.params}
        )
    else:
        say(f"{visible(path)}: {size(len(data))}, {made.params:,} parameters")
    return 0


def _written(artifact: Artifact, out: str, file: str, weights: str | None) -> str:
    """Write an artefact and what lies beside it, over nothing that was read.

    Raises:
        Refusal: a place is no place for a file, or holds what was read.
        OSError: the folder or the disk refuses.
    """
    target = Path(writable(out, file, weights))
    if artifact.emission.beside and target.exists() and not target.is_file():
        names = ", ".join(map(visible, artifact.emission.beside))
        raise Refusal(f"-o {out}: is no file that {names} can lie beside")
    for name, data in artifact.emission.beside.items():
        beside = Path(writable(str(target.parent / name), file, weights))
        # `net.safetensors` is what trained weights would be called too.
        if name.endswith(".safetensors") and beside.exists() and beside.read_bytes() != bytes(data):
            raise Refusal(
                f"{visible(str(beside))} holds something else; move it, or take another -o"
            )
    with named(out):
        return artifact.write(out)


def given_weights(arch: Arch, given: Weights) -> Mapping[str, Array] | str | None:
    """The weights to compile with; None for the backend's own choice, drawn from seed 0.

    A seed that is written stands for weights that are wanted: PyTorch source has none inside.
    """
    if given["seed"] is None:
        return given["weights"]
    from archdsl.weights.initial import drawn

    return drawn(arch.graph(), given["seed"])


def stages(written: str | None) -> list[str]:
    """The names in `--features`.

    Raises:
        UsageError: one is empty.
    """
    if written is None:
        return []
    names = [name.strip() for name in written.split(",")]
    if not all(names):
        raise click.UsageError("--features takes names of stages with commas, such as c3,c4,c5")
    return names


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error, where that is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True
    ) as bar:
        task = bar.add_task(title, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
