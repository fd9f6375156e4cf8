"""`archdsl convert` reads and writes the other notations; `archdsl schema` describes JSON's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from archdsl.cli.options import Overrides, Status, file_argument, overridable, read, writable
from archdsl.cli.output import say, size, visible, write

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.lang.source import SourceText
    from archdsl.lang.spec import ArchSpec

DIALECTS = ("arch", "json")


@click.command()
@file_argument
@overridable
@click.option(
    "--from",
    "from_",
    type=click.Choice(DIALECTS),
    help="What FILE is written in. Default: seen from FILE.",
)
@click.option("--to", type=click.Choice(DIALECTS), required=True, help="What to write.")
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(),
    metavar="OUT",
    default="-",
    help="Where to write. Default: standard output.",
)
def convert(file: str, overrides: Overrides, from_: str | None, to: str, out: str) -> Status:
    """Translate between notations.

    With a variant or another override the result is that one network; otherwise the whole file.

    \b
    Examples:
      archdsl convert net.arch --to json -o net.json
      archdsl convert net.json --to arch
    """
    from archdsl.compiler import parse
    from archdsl.lang.dialects.json import read_json, write_json
    from archdsl.lang.printer import print_spec

    if out != "-":
        writable(out, file)
    source, chosen = read(file, overrides)
    if (from_ or _dialect(source)) == "json":
        source = read_json(source)
    arch = parse(source, **chosen)
    spec = _spec(arch)
    data = (write_json(spec) if to == "json" else print_spec(spec)).encode("utf-8")
    if out == "-":
        write(data)
        return 0
    from archdsl.files import write_whole

    write_whole(out, data)
    say(f"{visible(out)}: {size(len(data))}")
    return 0


def _dialect(source: SourceText) -> str:
    """JSON by its ending or its first character; no `.arch` file begins with a brace."""
    is_json = source.name.endswith(".json") or source.text.lstrip()[:1] in ("{", "[")
    return "json" if is_json else "arch"


def _spec(arch: Arch) -> ArchSpec:
    """The specification of a file, or of the one member that was asked for."""
    if arch.variant is None and not arch.overridden:
        return arch.spec
    # Figures speak of the member as it is published.
    kept = not arch.overridden
    return arch.spec.model_copy(
        update={
            "name": arch.name,
            "attributes": arch.attributes,
            "expect": arch.expect if kept else None,
            "published": arch.published if kept else (),
            "variants": (),
        }
    )


@click.command()
def schema() -> Status:
    """Print the JSON Schema of `convert --to json`.

    \b
    Examples:
      archdsl schema > arch.schema.json
    """
    from archdsl.lang.dialects.json import json_schema

    write(json.dumps(json_schema(), indent=2) + "\n")
    return 0
