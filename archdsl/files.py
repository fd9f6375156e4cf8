"""Reading source texts and writing artefacts: whole, or not at all."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import SourceText
from archdsl.limits import hint, most


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes whose number is known before they are made."""

    size: int
    make: Callable[[], bytes | memoryview]


class Content:
    """A file's bytes in pieces, each of which is made when its turn comes to be written.

    `len()` is their number, which makes none; `bytes()` makes all.

    >>> bytes(Content([b"two ", Piece(6, lambda: b"pieces")]))
    b'two pieces'
    """

    def __init__(self, pieces: Iterable[bytes | Piece]) -> None:
        self._pieces = list(_joined(pieces))
        self._size = sum(p.size if isinstance(p, Piece) else len(p) for p in self._pieces)

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for piece in self._pieces:
            if not isinstance(piece, Piece):
                yield piece
                continue
            made = piece.make()
            if len(made) != piece.size:
                # What lies behind it has its place already.
                raise ValueError(f"a piece has {len(made):,} bytes, and said {piece.size:,}")
            yield made

    def __bytes__(self) -> bytes:
        whole = io.BytesIO()
        whole.writelines(self)
        return whole.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, or a pickle, has nothing that is still to be made.
        return Content, ([bytes(self)],)


def _joined(pieces: Iterable[bytes | Piece]) -> Iterator[bytes | Piece]:
    """The same with neighbouring bytes as one."""
    together: list[bytes] = []
    for piece in pieces:
        if not isinstance(piece, Piece):
            together.append(piece)
            continue
        if together:
            yield b"".join(together)
            together.clear()
        yield piece
    yield b"".join(together)


def write_whole(path: str | os.PathLike[str], data: bytes | Content) -> None:
    """Write a file so that its path holds the old content or all of the new, never a part.

    Raises:
        OSError: the folder or the disk refuses; nothing is left behind.
    """
    write_together({path: data})


def write_together(files: Mapping[str | os.PathLike[str], bytes | Content]) -> None:
    """Write files that belong together, each as `write_whole` does.

    The first takes its place when all are on the disk. What making a piece raises is passed on,
    and nothing is left behind then either.

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


def _beside(path: str | os.PathLike[str], data: bytes | Content) -> tuple[str, Path] | None:
    """Write the new content under another name; that name, and the place it is for.

    None where the path is a device or a pipe, which is written to at once.
    """
    target = Path(path)
    if os.fspath(path).endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not target.is_file():
        # A device or a pipe, and what a link to one leads to, is written to and never replaced. All
        # is made before, since nothing can be taken back.
        target.write_bytes(bytes(data))
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
            file.writelines([data] if isinstance(data, bytes) else data)
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
    if len(data) > 4 * most("text"):
        message = f"the file has {len(data):,} bytes; the limit is {most('text'):,} characters"
        place = SourceText(name, "").span(0, 0)
        raise ArchError([Diagnostic("E0110", message, place, hint("text"))])
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
        return decode_source(name, file.read(4 * most("text") + 1))
