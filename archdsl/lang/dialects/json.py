"""The typed specification as JSON, and its published JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from pydantic import ValidationError

from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import ArchSpec, Norm, Rounding, SqueezeExcite
from archdsl.lang.values import sentence
from archdsl.limits import MAX_TEXT

_MAX_ERRORS = 20
"""Errors that are shown: finding each one's place reads the text up to it."""

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
    if len(source.text) > MAX_TEXT:
        message = f"the text has {len(source.text):,} characters; the limit is {MAX_TEXT:,}"
        raise ArchError([Diagnostic("E0110", message, source.span(0, 1))])
    data = _loads(source)
    try:
        spec = ArchSpec.model_validate(data)
    except ValidationError as errors:
        raise ArchError(
            _diagnostic(source, error)
            for error in errors.errors(include_url=False, include_input=False)[:_MAX_ERRORS]
        ) from None
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
            source.text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
        )
    except json.JSONDecodeError as error:
        at = min(error.pos, max(len(source.text) - 1, 0))
        message = f"this is not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        raise ArchError([Diagnostic("E0601", message, source.span(at, at + 1))]) from None
    except (ValueError, RecursionError) as error:
        said = "too deeply nested" if isinstance(error, RecursionError) else str(error)[:120]
        message = f"this is not JSON that can be read: {said}"
        raise ArchError([Diagnostic("E0601", message, source.span(0, 1))]) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice in one object")
    return result


def _diagnostic(source: SourceText, error: Any) -> Diagnostic:
    path = list(error["loc"])
    span, reached = _locate(source, path)
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in reached).lstrip(".")
    prefix = f"at `{where}`: " if where else ""
    if error["type"] == "missing":
        return Diagnostic("E0602", f"{prefix}the key `{path[-1]}` is missing", span)
    if error["type"] == "extra_forbidden":
        return Diagnostic("E0602", f"{prefix}no such key in this place", span)
    return Diagnostic("E0602", f"{prefix}{sentence(error)}", span)


def _locate(source: SourceText, path: Sequence[Any]) -> tuple[Span, list[Any]]:
    """The span of the value at a path, and the part of the path that leads into the text.

    pydantic's paths hold the kind of a block between its number and its field; what is not in
    the text is passed over.
    """
    text = source.text
    decoder = json.JSONDecoder()
    start = _skip(text, 0)
    reached: list[Any] = []
    for step in path:
        child = None
        if text[start] == "{" and isinstance(step, str):
            child = _member(text, start, step, decoder)
        elif text[start] == "[" and isinstance(step, int):
            child = _element(text, start, step, decoder)
        if child is not None:
            start = child
            reached.append(step)
    end = decoder.raw_decode(text, start)[1]
    newline = text.find("\n", start)
    return source.span(start, end if newline < 0 else min(end, newline)), reached


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _member(text: str, start: int, key: str, decoder: json.JSONDecoder) -> int | None:
    position = _skip(text, start + 1)
    while text[position] != "}":
        name, position = decoder.raw_decode(text, position)
        position = _skip(text, _skip(text, position) + 1)
        if name == key:
            return position
        position = _skip(text, decoder.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
    return None


def _element(text: str, start: int, number: int, decoder: json.JSONDecoder) -> int | None:
    position = _skip(text, start + 1)
    while text[position] != "]":
        if number == 0:
            return position
        number -= 1
        position = _skip(text, decoder.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
    return None
