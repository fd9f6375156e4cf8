"""Runtimes' remarks on standard error, kept from the user: LiteRT greets with each interpreter."""

from __future__ import annotations

import faulthandler
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed() -> Iterator[None]:
    """Take what libraries write to descriptor 2 by themselves out of standard error.

    What Python writes to `sys.stderr` comes through. A runtime that ends the process is told of
    by `faulthandler`, since its last words would be lost.
    """
    try:
        number = sys.stderr.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        number = -1
    if number != 2:
        # Closed, or a test's: nothing that a library could reach.
        yield
        return
    sys.stderr.flush()
    python = sys.stderr
    kept = os.fdopen(
        os.dup(2), "w", encoding=python.encoding, errors=python.errors, buffering=1, closefd=True
    )
    watch = not faulthandler.is_enabled()
    with tempfile.TemporaryFile() as remarks:
        os.dup2(remarks.fileno(), 2)
        sys.stderr = kept
        if watch:
            faulthandler.enable(kept)
        try:
            yield
        finally:
            if watch:
                faulthandler.disable()
            sys.stderr = python
            kept.flush()
            os.dup2(kept.fileno(), 2)
            kept.close()
