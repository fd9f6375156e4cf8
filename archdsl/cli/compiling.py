"""`archdsl compile` writes what a backend makes of a network."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import (
    Overrides,
    Status,
    as_json,
    file_argument,
    load,
    overridable,
    writable,
)
from archdsl.cli.output import Refusal, say, size, visible, write, write_json


def _complete_backend(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from archdsl.backend import available

    return [CompletionItem(name) for name in sorted(available()) if name.startswith(incomplete)]


@click.command("compile")
@file_argument
@overridable
@click.option(
    "--to",
    "to",
    required=True,
    metavar="BACKEND",
    shell_complete=_complete_backend,
    help="What to make: torch.",
)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(),
    metavar="OUT",
    help="Where to write; - for standard output. Default: the network's name, here.",
)
@as_json
def compile_(file: str, overrides: Overrides, to: str, out: str | None, json: bool) -> Status:
    """Compile to another form, such as PyTorch source.

    \b
    Examples:
      archdsl compile mnv4_conv_m --to torch
      archdsl compile net.arch --to torch -o models/net.py
    """
    from archdsl.backend import BackendError, compile

    if json and out == "-":
        raise click.UsageError("with -o - the artefact itself is the output: leave out --json")
    if out not in (None, "-"):
        writable(str(out), file)
    arch = load(file, overrides)
    try:
        artifact = compile(arch, to)
    except BackendError as failure:
        raise Refusal(str(failure)) from None
    if out == "-":
        write(artifact.data)
        return 0
    path = artifact.write(writable(out or artifact.filename, file))
    if json:
        write_json({"file": path, "bytes": len(artifact.data), "backend": to})
    else:
        say(f"{visible(path)}: {size(len(artifact.data))}")
    return 0
