"""`archdsl bench-kit`: models to measure a device with."""

from __future__ import annotations

from typing import Any

import click

from archdsl.cli.compiling import progress_bar
from archdsl.cli.output import Refusal, refused, say, size, visible

# Those of archdsl.calibration.kit, which takes its time to import; a test holds them equal.
RUNTIMES = ("onnxruntime", "tflite", "torch")


@click.command("bench-kit")
@click.option("--runtime", type=click.Choice(RUNTIMES), required=True, help="What runs the models.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="Precision of the weights, and with int8 of the values too.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(),
    metavar="FOLDER",
    help="Where to write. Default: kit-RUNTIME-DTYPE, here.",
)
def bench_kit(runtime: Any, dtype: Any, folder: str | None) -> None:
    """Write models to measure a device with, and a script that does.

    Its results are what `archdsl calibrate` reads.

    \b
    Examples:
      archdsl bench-kit --runtime onnxruntime
      archdsl bench-kit --runtime tflite --dtype int8 -o phone
    """
    from archdsl.backend import BackendError
    from archdsl.calibration.kit import networks
    from archdsl.calibration.writing import write_kit

    if folder == "-":
        raise Refusal("-o -: what is written is a folder; name it")
    folder = folder or f"kit-{runtime}-{dtype}"
    try:
        with progress_bar("compiling") as progress:
            written = write_kit(folder, runtime, dtype, progress=progress)
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    except OSError as failure:
        raise Refusal(refused(failure)) from None
    count = len(networks())
    say(f"{visible(folder)}: {count} models, {size(written)}; its README.md says how to run them")
