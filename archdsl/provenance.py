"""Whether a file is what a text and weights compile to: told by its bytes, and by its hashes.

The file is read as bytes alone: no runtime loads it, and no path in it is followed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from archdsl.backend import Artifact
from archdsl.files import Content
from archdsl.lang.diagnostics import quoted
from archdsl.weights.store import digest
from archdsl.weights.tensors import open_regular

_PIECE = 1 << 20


class Departure(NamedTuple):
    """A file that is not what was made: which one, and why."""

    file: str
    why: str


def departures(path: str | os.PathLike[str], made: Artifact) -> list[Departure]:
    """What of a file, and of those that must lie beside it, is not as it was made anew.

    `made` is compiled under the file's own name. Where the file departs, the hashes in its
    metadata tell whether the text, the weights or something else is another one.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0802 where it is no ordinary file; what making it anew raises.
    """
    found = []
    place = _first_difference(path, made.emission.content)
    if place is not None:
        found += [Departure(os.fspath(path), why) for why in _reasons(path, made, place)]
    for name, content in made.emission.beside.items():
        beside = Path(path).parent / name
        if not beside.exists():
            found.append(Departure(os.fspath(beside), "is missing"))
            continue
        place = _first_difference(beside, content)
        if place is not None:
            found.append(Departure(os.fspath(beside), f"departs at byte {place:,}"))
    return found


def _first_difference(path: str | os.PathLike[str], wanted: bytes | Content) -> int | None:
    """The first byte at which a file departs, or None."""
    pieces: Iterable[bytes | memoryview] = [wanted] if isinstance(wanted, bytes) else wanted
    place = 0
    with open_regular(path) as file:
        for piece in pieces:
            view = memoryview(piece).cast("B")
            for start in range(0, len(view), _PIECE):
                part = bytes(view[start : start + _PIECE])
                found = file.read(len(part))
                if found != part:
                    pairs = enumerate(zip(found, part, strict=False))
                    same = next((at for at, (one, other) in pairs if one != other), len(found))
                    return place + start + same
            place += len(view)
        return place if file.read(1) else None


def _reasons(path: str | os.PathLike[str], made: Artifact, place: int) -> list[str]:
    """Why a file departs, as far as its hashes tell."""
    source = made.arch.origins.source
    hashes = {
        "source_sha256": hashlib.sha256(source.text.encode()).hexdigest(),
        "weights_sha256": digest(made.job.weights),
    }
    held = _held(path, [*hashes, *hashes.values()])
    others = {
        "source_sha256": f"it was compiled of another text than {quoted(source.name, 100)}",
        "weights_sha256": "it was compiled with other weights",
    }
    found = [others[key] for key, value in hashes.items() if key in held and value not in held]
    if found:
        return found
    hint = "other options or another archdsl wrote it, or it was changed since"
    if hashes.keys() <= held:
        return [f"text and weights are those, and it departs at byte {place:,}: {hint}"]
    return [f"it departs at byte {place:,}, and holds no hashes: {hint}"]


def _held(path: str | os.PathLike[str], words: Iterable[str]) -> set[str]:
    """Which of some words stand in a file."""
    wanted = {word: word.encode() for word in words}
    overlap = max(map(len, wanted.values()))
    found: set[str] = set()
    tail = b""
    with open_regular(path) as file:
        while part := file.read(_PIECE):
            tail += part
            found |= {word for word, data in wanted.items() if data in tail}
            tail = tail[-overlap:]
    return found
