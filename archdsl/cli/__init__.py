"""The command line: arguments, exit codes, printing. Nothing here decides what a network is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from archdsl.cli import interrupts


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line, on `sys.argv` unless arguments are given, and exit."""
    interrupts.leave_at_once()
    try:
        # Imported here, so that Ctrl-C is quiet from the first moment.
        from archdsl.cli.program import main as run

        run(arguments)
    except KeyboardInterrupt:
        sys.exit(interrupts.INTERRUPTED)


__all__ = ["main"]
