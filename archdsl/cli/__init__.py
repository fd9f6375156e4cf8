"""The command line: arguments, exit codes, printing. Nothing here decides what a network is."""

from archdsl.cli.program import main

__all__ = ["main"]
