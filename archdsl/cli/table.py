"""Tables without a frame: text to the left, figures to the right and never cut."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Sequence

from archdsl.cli.output import colored, write

# The width where no terminal shows the table, and the least there is.
_WIDTH, _LEAST = 100, 80
# What remains of a column of text where figures take the rest.
_TEXT = 8

Row = Sequence[str] | None
"""A cell for each column, or None for a gap."""


def columns_wide() -> int:
    """The terminal's width."""
    return shutil.get_terminal_size((_WIDTH, 24)).columns


def write_table(columns: Sequence[str], rows: Sequence[Row], total: Row = None) -> None:
    """Write a table, no wider than the terminal.

    A title that begins with `>` makes a column of figures, one that ends with `…` a column
    whose texts are cut and not folded.
    """
    # rich takes longer to import than most commands take to run.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    filled = [row for row in (*rows, total) if row]
    terminal = columns_wide()
    padding = 1 if terminal >= _WIDTH else 0
    gap = 1 + 2 * padding
    least = gap * len(columns)
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, padding),
        pad_edge=False,
        show_edge=False,
        show_footer=total is not None,
    )
    for index, column in enumerate(columns):
        figures = column.startswith(">")
        title = column.strip(">…")
        width = max([len(title), *(len(row[index]) for row in filled)])
        least += width if figures else min(width, _TEXT)
        table.add_column(
            title,
            footer=total[index] if total else "",
            justify="right" if figures else "left",
            no_wrap=figures,
            overflow="fold",
            header_style="bold",
            footer_style="bold",
        )
    for row in rows:
        if row is None:
            table.add_section()
        else:
            cut = (column.endswith("…") for column in columns)
            table.add_row(
                *(
                    Text(cell, no_wrap=True, overflow="ellipsis") if c else Text(cell)
                    for cell, c in zip(row, cut, strict=True)
                )
            )
    color = colored(sys.stdout)
    drawn = io.StringIO()
    console = Console(
        file=drawn,
        width=max(terminal, least, _LEAST),
        force_terminal=color,
        no_color=not color,
        highlight=False,
    )
    console.print(table)
    write("".join(line.rstrip() + "\n" for line in drawn.getvalue().splitlines()))
