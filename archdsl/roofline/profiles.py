"""Device profiles by name or path, from TOML; every fault with its place in the text."""

from __future__ import annotations

import errno
import os
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from archdsl.files import decode_source, read_source
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.source import SourceText, Span
from archdsl.lang.values import sentence
from archdsl.limits import MAX_ERRORS, MAX_PROFILES_DEPTH, MAX_PROFILES_TEXT
from archdsl.roofline.model import Device
from archdsl.roofline.profile import Fault, ProfileFile
from archdsl.roofline.toml_places import Place, places

_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\[^\n])*+"?+|'[^'\n]*+'?+)"""
_DEEP = re.compile(
    r'''"""(?:[^\\]|\\.)*?(?:"{3,5}+|\\?\Z)|'''
    r"'''.*?(?:'{3,5}+|\Z)|"
    r"#[^\n]*+|"
    rf"(?P<key>{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_PROFILES_DEPTH},}}+)|{_PART}",
    re.S,
)
"""A key of too many parts. What may look like one, texts and comments, is stepped over, and so is
what is cut off: whatever a text is, it is gone through once."""

_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def read_profiles(source: SourceText) -> tuple[Device, ...]:
    """The devices of a TOML text.

    Raises:
        ArchError: E0901 to E0905, every fault at once.
    """
    data = _toml(source)
    where = _Where(source)
    try:
        file = ProfileFile.model_validate(data)
    except ValidationError as errors:
        found = [_diagnostic(e, where) for e in errors.errors(include_url=False)[:MAX_ERRORS]]
        raise ArchError(found) from None
    faults = [
        fault._replace(path=("profile", index, *fault.path))
        for index, profile in enumerate(file.profile)
        for fault in profile.faults()
    ]
    seen: set[str] = set()
    for index, profile in enumerate(file.profile):
        if profile.name in seen:
            message = f"two profiles are called `{profile.name}`"
            faults.append(Fault(("profile", index, "name"), "E0905", message))
        seen.add(profile.name)
    if faults:
        raise ArchError(Diagnostic(f.code, f.message, where(f.path), f.repair) for f in faults)
    return tuple(profile.to_device(file.device) for profile in file.profile)


def _toml(source: SourceText) -> dict[str, Any]:
    if len(source.text) > MAX_PROFILES_TEXT:
        message = f"a file of profiles has at most {MAX_PROFILES_TEXT:,} characters"
        raise ArchError([Diagnostic("E0110", message, source.span(0, 0))])
    # What tomllib takes, and what the places of the text do, grows with the square of the depth.
    deep = next((found for found in _DEEP.finditer(source.text) if found["key"]), None)
    if deep is not None:
        message = f"a key of a profile has at most {MAX_PROFILES_DEPTH} parts, joined by dots"
        raise ArchError([Diagnostic("E0110", message, source.span(*deep.span("key")))])
    try:
        data = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        found = _AT.search(message)
        start = len(source.text.rstrip())
        if found and found[1]:
            lines = source.text.split("\n")
            start = sum(len(line) + 1 for line in lines[: int(found[1]) - 1]) + int(found[2]) - 1
        start = min(start, max(len(source.text) - 1, 0))
        said = _AT.sub("", message)
        text = f"this is not TOML: {said[:1].lower()}{said[1:]}"
        raise ArchError([Diagnostic("E0901", text, source.span(start, start + 1))]) from None
    except RecursionError:
        text = "this is not TOML that can be read: it is nested too deeply"
        raise ArchError([Diagnostic("E0901", text, source.span(0, 0))]) from None
    except ValueError as error:
        text = f"this is not TOML that can be read: {error}"
        raise ArchError([Diagnostic("E0901", text, source.span(0, 0))]) from None
    if _is_deep(data):
        message = (
            "tables and arrays of a file of profiles stand inside each other at most "
            f"{MAX_PROFILES_DEPTH} deep"
        )
        raise ArchError([Diagnostic("E0110", message, source.span(0, 0))])
    return data


def _is_deep(data: dict[str, Any]) -> bool:
    """Whether tables and arrays are nested beyond the limit."""
    level: list[Any] = [data]
    for _ in range(MAX_PROFILES_DEPTH + 1):
        nested = [one.values() if isinstance(one, dict) else one for one in level]
        level = [one for inner in nested for one in inner if isinstance(one, (dict, list))]
    return bool(level)


class _Where:
    """Spans of a TOML text by path; of what is not there, the span of the table that lacks it."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self.places: dict[tuple[str | int, ...], Place] = places(source.text)

    def __call__(self, path: tuple[str | int, ...], *, value: bool = False) -> Span:
        for end in range(len(path), 0, -1):
            place = self.places.get(path[:end])
            if place is not None:
                return self._source.span(*(place.value if value else place.key))
        return self._source.span(0, 0)


def _diagnostic(error: Any, where: _Where) -> Diagnostic:
    kind = error["type"]
    # A union's location names the type that was tried; the places of the text do not have it.
    path = tuple(part for part in error["loc"] if not _of_union(part))
    if path[2:3] == ("source",) and len(path) == 3:
        message = "`source`: must be a text, or a table of one for each number"
        return Diagnostic("E0904", message, where(path, value=True))
    *before, last = path
    table = _named(before)
    if kind == "missing":
        return Diagnostic("E0902", f"{table} has no `{last}`", where(path))
    if kind == "extra_forbidden":
        known = _keys(before)
        guess = did_you_mean(str(last), known)
        repair = f"did you mean `{guess}`?" if guess else f"{table} has {listed(known, 'and')}"
        return Diagnostic("E0903", f"unknown key {quoted(str(last))}", where(path), repair)
    key = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    words = _LENGTHS.get(kind) or sentence(error).removeprefix("value error, ")
    hint: str | None = None
    if kind == "literal_error":
        allowed = re.findall(r"'(\w+)'", str(error.get("ctx", {}).get("expected", "")))
        guess = did_you_mean(str(error.get("input")), allowed)
        hint = f"did you mean `{guess}`?" if guess else None
    return Diagnostic("E0904", f"`{key}`: {words}", where(path, value=True), hint)


_LENGTHS = {
    "too_short": "must have more entries",
    "too_long": "has too many entries",
    "list_type": "must be an array",
    "string_too_short": "must not be empty",
}


def _of_union(part: str | int) -> bool:
    return isinstance(part, str) and bool(re.search(r"[\[\(]|^constrained-", part))


def _named(path: list[str | int]) -> str:
    tables = [str(part) for part in path if isinstance(part, str)]
    return f"`{'.'.join(tables)}`" if tables else "the file"


def _keys(path: list[str | int]) -> list[str]:
    """The keys that the table of a path may have."""
    model: Any = ProfileFile
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            models = [m for m in _models(model.model_fields[part].annotation)]
            if not models:
                return []
            model = models[0]
    return list(model.model_fields)


def _models(annotation: Any) -> Iterator[Any]:
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


# ------------------------------------------------------------------------------------- by name


@cache
def _folder() -> tuple[str, ...]:
    folder = files("archdsl.roofline").joinpath("devices")
    return tuple(sorted(e.name for e in folder.iterdir() if e.name.endswith(".toml")))


@cache
def _shipped(file: str) -> tuple[Device, ...]:
    data = files("archdsl.roofline").joinpath("devices", file).read_bytes()
    return read_profiles(decode_source(file, data))


def shipped() -> Iterator[Device]:
    """Every profile of the package, device by device."""
    for file in _folder():
        yield from _shipped(file)


def load_devices(where: str | os.PathLike[str]) -> tuple[Device, ...]:
    """The profiles of a name or a TOML file.

    A name is a profile's (`pixel6-cpu-int8`) or a device's (`pixel6`), which means all of its
    profiles; a path means all profiles of the file, `board.toml:NAME` one of them.

    Raises:
        FileNotFoundError: neither a file nor a profile.
        OSError: the file cannot be read.
        ArchError: it is no file of profiles.

    >>> [device.name for device in load_devices("rpi5")]
    ['rpi5-cpu-fp32', 'rpi5-cpu-fp16', 'rpi5-cpu-int8']
    """
    text = os.fspath(where)
    if "\0" in text:
        raise FileNotFoundError(f"{text!r} is neither a file nor a device profile")
    file, ending, name = text.rpartition(".toml:")
    if ending and isinstance(where, str):
        return _one_of(f"{file}.toml", name)
    path = Path(text)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
    looks_like_path = not isinstance(where, str) or os.sep in text or text.endswith(".toml")
    if looks_like_path or path.is_file():
        return read_profiles(read_source(where))
    # A profile's name begins with that of its file.
    for file in sorted(_folder(), key=len, reverse=True):
        stem = file.removesuffix(".toml")
        if text == stem:
            return _shipped(file)
        if text.startswith(f"{stem}-"):
            named = tuple(device for device in _shipped(file) if device.name == text)
            if named:
                return named
    names = [device.name for device in shipped()] if len(text) <= 64 else []
    guess = did_you_mean(text, names)
    hint = f"did you mean {guess}?" if guess else "`archdsl devices` lists them"
    raise FileNotFoundError(f"{text!r} is neither a file nor a device profile; {hint}")


def load_device(where: str | os.PathLike[str]) -> Device:
    """The one profile of a name or a TOML file.

    Raises:
        FileNotFoundError: neither a file nor a profile.
        ValueError: it has several.
        ArchError: it is no file of profiles.

    >>> load_device("pixel6-cpu-int8").ridge_point
    3.5
    """
    found = load_devices(where)
    if len(found) > 1:
        text = os.fspath(where)
        prefix = f"{text}:" if text.endswith(".toml") else ""
        raise ValueError(f"{text} has {len(found)} profiles; name one: {prefix}{found[0].name}")
    return found[0]


def _one_of(path: str, name: str) -> tuple[Device, ...]:
    """The one profile of a file that has this name.

    Raises:
        FileNotFoundError: the file, or the profile in it, is not there.
    """
    found = load_devices(path)
    named = tuple(device for device in found if device.name == name)
    if not named:
        names = [device.name for device in found]
        guess = did_you_mean(name, names) or listed(names, "and")
        raise FileNotFoundError(f"{path} has no profile {name!r}; it has {guess}")
    return named


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a file of profiles, as data."""
    schema = ProfileFile.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "archdsl device profiles",
    }
