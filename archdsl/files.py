"""Reading source texts and writing artefacts: whole, or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_TEXT


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that its path holds the old content or all of the new, never a part.

    Raises:
        OSError: the folder or the disk refuses; nothing is left behind.
    """
    write_together({path: data})


def write_together(files: Mapping[str | os.PathLike[str], bytes]) -> None:
    """Write files that belong together, each as `write_whole` does.

    The first takes its place when all are on the disk.

    Raises:
        OSError: a folder or the disk refuses; nothing is left behind.
    """
    ready: list[tuple[str, Path]] = []
    try:
        for path, data in files.items():
            written = _beside(path, data)
            if written is not None:
                ready.append(written)
        while ready:
            temporary, target = ready[0]
            os.replace(temporary, target)
            del ready[0]
    except BaseException:
        for temporary, _ in ready:
            os.unlink(temporary)
        raise


def _beside(path: str | os.PathLike[str], data: bytes) -> tuple[str, Path] | None:
    """Write the new content under another name; that name, and the place it is for.

    None where the path is a device or a pipe, which is written to at once.
    """
    target = Path(path)
    if os.fspath(path).endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():
        # A device or a pipe, and what a link to one leads to, is written to and never replaced.
        target.write_bytes(data)
        return None
    # What a link points to is replaced, not the link.
    target = Path(os.path.realpath(target))
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name[:64]}.", dir=target.parent)
    except OSError as refusal:
        # The user asked for the target, not for the temporary file.
        refusal.filename = os.fspath(path)
        raise
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(target))
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary, target


# Asking for the umask means setting it: once, before there are threads.
_UMASK = os.umask(0o022)
os.umask(_UMASK)


def _mode(target: Path) -> int:
    """The permissions of the file that is replaced, or those of a new one."""
    return target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_UMASK


def decode_source(name: str, data: bytes) -> SourceText:
    """The text of a `.arch` file's bytes.

    Raises:
        ArchError: E0106 where the bytes are not UTF-8, E0110 where there are too many.
    """
    if len(data) > 4 * MAX_TEXT:
        message = f"the file has {len(data):,} bytes; the limit is {MAX_TEXT:,} characters"
        raise ArchError([Diagnostic("E0110", message, SourceText(name, "").span(0, 0))])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        source = SourceText(name, data[: error.start].decode("utf-8") + "\N{REPLACEMENT CHARACTER}")
        end = len(source.text)
        message = f"the file is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}"
        raise ArchError([Diagnostic("E0106", message, source.span(end - 1, end))]) from None
    return SourceText(name, text)


def read_source(path: str | os.PathLike[str]) -> SourceText:
    """The text of a `.arch` file.

    Raises:
        OSError: the file cannot be read.
        ArchError: its bytes are not a text.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        return decode_source(name, file.read(4 * MAX_TEXT + 1))
