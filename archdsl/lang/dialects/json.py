"""The typed specification as JSON, and its published JSON Schema."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from archdsl.lang.diagnostics import ArchError, Diagnostic, quoted
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import KINDS, ArchSpec, Norm, Rounding, SqueezeExcite, vocabulary
from archdsl.lang.values import limit_hint, sentence
from archdsl.limits import MAX_ERRORS, most
from archdsl.limits import hint as limit_of

_LIST = "a list of block strings is of another library: `--from mnasnet` or `--from timm`"
_SPACE = re.compile(r"[ \t\r\n]*")


def write_json(spec: ArchSpec) -> str:
    """A specification as JSON text; fields at their default are left out."""
    return json.dumps(spec.to_data(), indent=2, ensure_ascii=False) + "\n"


def read_json(source: SourceText) -> SourceText:
    """The canonical `.arch` text of a JSON specification.

    Raises:
        ArchError: E0601 where it is not JSON, E0602 where it is not a specification; each error
            points at the value to blame.
    """
    if len(source.text) > most("text"):
        message = f"the text has {len(source.text):,} characters; the limit is {most('text'):,}"
        raise ArchError([Diagnostic("E0110", message, source.span(0, 1), limit_of("text"))])
    try:
        data = _loads(source)
        notation = _foreign(data)
        if notation:
            message = "this is no architecture of this language"
            raise ArchError([Diagnostic("E0602", message, source.span(0, 1), notation)])
        spec = ArchSpec.model_validate(data)
    except ValidationError as errors:
        places = _Places(source)
        listed = errors.errors(include_url=False, include_input=False)[:MAX_ERRORS]
        raise ArchError([_diagnostic(places, error) for error in listed]) from None
    except RecursionError:
        message = "this is not JSON that can be read: too deeply nested"
        raise ArchError([Diagnostic("E0601", message, source.span(0, 1))]) from None
    return SourceText(f"{source.name} (as .arch)", print_spec(spec))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the typed specification."""
    # The defaults of the attributes are written into the schema: their classes must be complete.
    for model in (Norm, Rounding, SqueezeExcite):
        model.model_rebuild()
    schema = ArchSpec.model_json_schema(by_alias=False)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "archdsl architecture"
    return schema


def _loads(source: SourceText) -> Any:
    try:
        return json.loads(
            source.text, parse_constant=_refuse_constant, object_pairs_hook=unique_keys
        )
    except json.JSONDecodeError as error:
        at = min(error.pos, max(len(source.text) - 1, 0))
        message = f"this is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        hint = _LIST if source.text.lstrip()[:1] == "[" else None
        raise ArchError([Diagnostic("E0601", message, source.span(at, at + 1), hint)]) from None
    except ValueError as error:
        message = f"this is not JSON that can be read: {str(error)[:120]}"
        raise ArchError([Diagnostic("E0601", message, source.span(0, 1))]) from None


def _foreign(data: Any) -> str | None:
    """What to do with JSON that has another library's form."""
    if isinstance(data, list):
        return _LIST
    keys = data if isinstance(data, dict) else ()
    known = {"arch_def": "timm", "blocks_args": "mnasnet", "first_conv": "ofa"}
    found = next((known[key] for key in known if key in keys), None)
    return f"in another library's notation: `--from {found}`" if found else None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


class KeyTwiceError(ValueError):
    """An object of JSON has two values under one key."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `object_pairs_hook`.

    Raises:
        KeyTwiceError: the last value would be taken, and nothing said of the others.
    """
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise KeyTwiceError(f"the key {quoted(twice)} stands twice in one object")
    return result


def _diagnostic(places: _Places, error: Any) -> Diagnostic:
    path = list(error["loc"])
    unknown = error["type"] == "extra_forbidden"
    span, reached = places.locate(path, key=unknown)
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in reached).lstrip(".")
    prefix = f"at {quoted(where, 80)}: " if where else ""
    if error["type"] == "missing":
        kind, name = ["", *path][-2:]
        name = vocabulary(kind).keys.get(name, name) if kind in KINDS else name
        return Diagnostic("E0602", f"{prefix}the key `{name}` is missing", span)
    if unknown:
        return Diagnostic("E0602", f"{prefix}no such key in this place", span)
    return Diagnostic("E0602", f"{prefix}{sentence(error)}", span, limit_hint(error))


class _Places:
    """Where the values of a JSON text stand; each object and array is walked once."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.decoder = json.JSONDecoder()
        self.members: dict[int, dict[Any, tuple[int, int]]] = {}

    def locate(self, path: Sequence[Any], *, key: bool) -> tuple[Span, list[Any]]:
        """The span of the value at a path (or of its key), and the path's part within the text.

        pydantic's paths hold the kind of a block between its number and its field; what is not
        in the text is passed over.
        """
        text = self.source.text
        start = at = _skip(text, 0)
        reached: list[Any] = []
        for step in path:
            child = self.children(start).get(step)
            if child is not None:
                at, start = child
                reached.append(step)
        begin = at if key else start
        first_line = text[begin : self.decoder.raw_decode(text, begin)[1]].split("\n")[0]
        return self.source.span(begin, begin + len(first_line)), reached

    def children(self, start: int) -> dict[Any, tuple[int, int]]:
        """The members of the value at `start`: where their keys and their values begin."""
        found = self.members.get(start)
        if found is None:
            found = self.members[start] = {}
            text, closing = self.source.text, {"{": "}", "[": "]"}.get(self.source.text[start])
            position = _skip(text, start + 1)
            while closing is not None and text[position] != closing:
                at, name = position, len(found)
                if closing == "}":
                    name, position = self.decoder.raw_decode(text, position)
                    position = _skip(text, _skip(text, position) + 1)
                found[name] = (at, position)
                position = _skip(text, self.decoder.raw_decode(text, position)[1])
                if text[position] == ",":
                    position = _skip(text, position + 1)
        return found


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
