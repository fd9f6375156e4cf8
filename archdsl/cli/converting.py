"""`archdsl convert` reads and writes the other notations; `archdsl schema` describes JSON's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from archdsl.cli.options import (
    Overrides,
    Status,
    deliver,
    file_argument,
    output_option,
    overridable,
    read,
    writable,
)
from archdsl.cli.output import say, size, visible, write

if TYPE_CHECKING:
    from archdsl.lang.source import SourceText

DIALECTS = ("arch", "json", "mnasnet", "ofa", "timm")


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
@output_option("Where to write. Default: standard output.", default="-")
def convert(file: str, overrides: Overrides, from_: str | None, to: str, out: str) -> Status:
    """Translate between notations.

    arch and json are this language's own; mnasnet is MnasNet's list of block strings, timm an
    arch_def with timm's keywords, ofa the net.config of Once-for-All and ProxylessNAS. With a
    variant or another override the result is that one network; otherwise the whole file.

    \b
    Examples:
      archdsl convert net.arch --to json -o net.json
      archdsl convert net.json --to arch
      archdsl convert mnv4_conv_m --to timm
      archdsl convert arch_def.py --from timm --to arch
    """
    from archdsl.compiler import parse
    from archdsl.dialects import read as read_dialect
    from archdsl.dialects import write as write_dialect
    from archdsl.lang.diagnostics import render

    writable(out, file)
    source, chosen = read(file, overrides)
    arch = parse(read_dialect(source, from_ or _dialect(source)), **chosen)
    written = write_dialect(arch, to)
    for warning in written.warnings:
        say(render(warning).rstrip("\n"))
    data = written.text.encode("utf-8")
    deliver(out, data)
    if out != "-":
        say(f"{visible(out)}: {size(len(data))}")
    return 0


def _dialect(source: SourceText) -> str:
    """JSON by its ending or its first character; no `.arch` file begins with a brace.

    Which library's JSON it is, is not guessed: `--from` says it.
    """
    is_json = source.name.endswith(".json") or source.text.lstrip()[:1] in ("{", "[")
    return "json" if is_json else "arch"


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
