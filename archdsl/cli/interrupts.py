"""Ctrl-C: whenever it comes, the program ends quietly with status 130.

An exception alone does not do: pydantic-core makes an error of its own from what is raised while it
builds a class, an extension module's import an ImportError, and a finaliser swallows it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

INTERRUPTED = 130
"""What a shell reports of a program that SIGINT ended."""

_came = False


def leave_at_once() -> None:
    """From here on an interrupt ends the process: there is nothing yet to be tidied up."""
    _handle(_leave)


def raise_once() -> None:
    """From here on an interrupt is a KeyboardInterrupt, which tidies up; the next ends the process.

    One that is lost in a finaliser ends the process too.
    """
    _handle(_raise)
    sys.unraisablehook = _lost


def came() -> bool:
    """Whether an interrupt has been raised, whatever has become of it."""
    return _came


def finish() -> None:
    """From here on the status is settled: an interrupt comes too late, but for a second one."""
    if not _came:
        _handle(signal.SIG_IGN)


def _handle(handler: Callable[[int, object], object] | signal.Handlers) -> None:
    # A shell's background jobs ignore SIGINT, and go on doing so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        # A thread that is not the main one has no part in signals, and may set no handler.
        with suppress(ValueError):
            signal.signal(signal.SIGINT, handler)


def _leave(*_: object) -> None:
    os._exit(INTERRUPTED)


def _raise(*_: object) -> None:
    global _came
    if _came:
        _leave()
    _came = True
    raise KeyboardInterrupt


def _lost(unraisable: sys.UnraisableHookArgs) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(unraisable)
