"""`archdsl space`: search spaces, their sizes and their members."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from archdsl.cli.options import (
    Command,
    Status,
    as_json,
    limits_option,
    read_stdin,
    results_folder,
    within,
)
from archdsl.cli.output import visible, write, write_json
from archdsl.cli.table import Row, write_table

if TYPE_CHECKING:
    from archdsl.search.space import Space, Vector

_MOST = 1_000_000
"""Networks that one command writes."""


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shipped spaces and `.arch` files here; where none begins so, the shell's own paths."""
    from archdsl.search.space import shipped_spaces

    found = [*shipped_spaces(), *sorted(path.name for path in Path().glob("*.arch"))]
    items = [CompletionItem(name) for name in found if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def space_argument(command: Command) -> Command:
    """Give a command FILE, a search space, as the argument `file`, and `--limit`."""
    command = limits_option(command)
    return click.argument("file", metavar="FILE", shell_complete=_complete)(command)


def load_space(file: str) -> Space:
    """The search space of a FILE.

    Raises:
        OSError: there is no such file or shipped space, or it cannot be read.
        ArchError: it is not a valid search space.
    """
    from archdsl.search.space import parse_space, space_source

    return parse_space(read_stdin() if file == "-" else space_source(file))


@click.group("space")
def space() -> None:
    """Count, draw and list the networks of a search space.

    FILE is a path, - for standard input, or a shipped space: mnasnet_space, mnv4_coarse,
    mnv4_fine_l, mnv4_fine_m, mnv4_fine_s, ofa_mnv3, proxylessnas_space, tunas_space.

    \b
    Examples:
      archdsl space show mnasnet_space
      archdsl space sample space.arch -n 3 --seed 1
    """


@space.command("show")
@space_argument
@as_json
def show(file: str, json: bool) -> Status:
    """Show the decisions of a space, and what each option excludes.

    \b
    Examples:
      archdsl space show mnv4_coarse
    """
    found = load_space(file)
    excluded = found.excluded()
    if json:
        write_json(_record(found, excluded))
        return 0
    rows: list[Row] = []
    for column, choice in enumerate(found.choices):
        line, _ = found.source.position(choice.span.start)
        without = [
            f"{option} not with "
            + ", ".join(
                f"{found.choices[c].path} {found.choices[c].options[i]}"
                for c, i in excluded[(column, index)]
            )
            for index, option in enumerate(choice.options)
            if (column, index) in excluded
        ]
        rows.append((choice.path, str(line), " ".join(choice.options), "; ".join(without)))
    write(f"{found.name}: {found.count:,} networks\n")
    if rows:
        write("\n")
        write_table(("choice", ">line", "options", "excludes"), rows)
    return 0


def _record(space: Space, excluded: dict[tuple[int, int], Any]) -> dict[str, Any]:
    return {
        **_counted(space),
        "choices": [
            {
                "path": choice.path,
                "line": space.source.position(choice.span.start)[0],
                "options": list(choice.options),
                "excludes": {
                    option: [
                        f"{space.choices[c].path} {space.choices[c].options[i]}"
                        for c, i in excluded[(column, index)]
                    ]
                    for index, option in enumerate(choice.options)
                    if (column, index) in excluded
                },
            }
            for column, choice in enumerate(space.choices)
        ],
    }


def _counted(space: Space) -> dict[str, Any]:
    # Other languages read larger numbers as floats.
    return {
        "name": space.name,
        "networks": str(space.count),
        "combinations": str(space.combinations),
    }


@space.command("count")
@space_argument
@as_json
def count(file: str, json: bool) -> Status:
    """Count the networks of a space, exactly.

    With --json also the product of all options, which counts decisions that others leave out.

    \b
    Examples:
      archdsl space count tunas_space
    """
    found = load_space(file)
    if json:
        write_json(_counted(found))
    else:
        write(f"{found.count}\n")
    return 0


_as_lines = click.option("--jsonl", is_flag=True, help="A line of JSON for each: vector and text.")


@space.command("sample")
@space_argument
@click.option(
    "-n", "number", type=int, default=1, callback=within(1, _MOST), metavar="N", help="How many."
)
@click.option("--seed", type=int, default=0, show_default=True, help="What they are drawn from.")
@_as_lines
@click.option(
    "-o", "--output", "out", type=click.Path(), metavar="FOLDER", help="Write a file for each here."
)
def sample(file: str, number: int, seed: int, jsonl: bool, out: str | None) -> Status:
    """Draw networks, all with the same chance; one may come twice.

    \b
    Examples:
      archdsl space sample mnasnet_space > net.arch
      archdsl space sample mnasnet_space -n 100 --seed 7 -o nets
    """
    if jsonl and out is not None:
        raise click.UsageError("--jsonl goes to standard output: leave out -o")
    found = load_space(file)
    rng = random.Random(seed)
    if out is None:
        for place in range(number):
            _write(found, found.sample(rng), place, number, jsonl)
        return 0
    from archdsl.files import write_whole

    folder = results_folder(out, "; without -o the texts are printed")
    folder.mkdir(exist_ok=True)
    digits = len(str(number))
    for place in range(1, number + 1):
        name = f"{found.name}_{place:0{digits}}"
        text = found.text_of(found.sample(rng), name)
        write_whole(folder / f"{name}.arch", text.encode())
    write(f"{number} networks in {visible(out)}\n")
    return 0


@space.command("enumerate")
@space_argument
@click.option(
    "-n",
    "most",
    type=int,
    default=1000,
    show_default=True,
    callback=within(1, _MOST),
    metavar="N",
    help="At most so many.",
)
@_as_lines
def enumerate_(file: str, most: int, jsonl: bool) -> Status:
    """List the networks of a space, in the order of their vectors.

    \b
    Examples:
      archdsl space enumerate mnv4_coarse -n 10 --jsonl
    """
    found = load_space(file)
    number = min(most, found.count)
    for place, vector in enumerate(islice(found, most)):
        _write(found, vector, place, number, jsonl)
    return 0


def _write(space: Space, vector: Vector, place: int, number: int, jsonl: bool) -> None:
    text = space.text_of(vector)
    if jsonl:
        from json import dumps

        write(dumps({"vector": list(vector), "text": text}) + "\n")
        return
    # Every network is a text of its own, which a comment begins.
    write(f"# {place + 1} of {number}\n{text}" if number > 1 else text)
