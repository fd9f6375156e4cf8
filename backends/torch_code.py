"""Python source that is known to be harmless, and the templates that print nothing else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from archdsl.ir.ops import (
    Shape,
)

COLUMNS = 100
"""Where a line of the emitted source is broken."""


class Code(str):
    """Python source that is known to be harmless."""

    __slots__ = ()


def _only_code(value: object) -> object:
    """What the templates may print: source, and numbers."""
    if isinstance(value, (Code, int, float)):
        return value
    raise TypeError(f"a template prints {value!r}, which nothing has checked")


def _template(name: str) -> str:
    return files("archdsl.backends").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(_template),
        undefined=StrictUndefined,
        finalize=_only_code,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(name: str, context: Mapping[str, Any]) -> str:
    """The text of a template under `templates/`."""
    return _environment().get_template(name).render(context)


_CALL = re.compile(r"( *)([^()#]*\()(.*)(\),?)(  #.*)?")


def broken(line: str) -> str:
    """A line of source, or the lines of a call that is too long for one."""
    match = _CALL.fullmatch(line) if len(line) > COLUMNS else None
    if match is None:
        return line
    indent, head, inside, tail, comment = match.groups(default="")
    deeper = f"{indent}    "
    if len(deeper + inside) > COLUMNS:
        inside = inside.replace(" for _ in ", f"\n{deeper}for _ in ")
    return f"{indent}{head}\n{deeper}{inside}\n{indent}{tail}{comment}"


def checked(name: str) -> Code:
    """A name of the user's: the language allows small letters, digits and underscores."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(f"{name!r} is not a name of the language")
    return Code(name)


def escaped(text: str) -> str:
    r"""A user's text as it may stand in a docstring.

    >>> print(escaped('back\\slash, "quotes", a bell \a, a reversal \u202e'))
    back\\slash, \"quotes\", a bell \x07, a reversal \u202e
    """
    return "".join(
        f"\\{c}" if c in '\\"' else c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text
    )


def shape_of(shape: Shape) -> Code:
    """A shape of the core as PyTorch has it: the batch, then the channels."""
    return Code(f"(N, {', '.join(map(str, (shape[-1], *shape[:-1])))})")


def wrapped(text: str) -> list[Code]:
    """A paragraph of a docstring; the text is harmless already."""
    lines = textwrap.wrap(text, COLUMNS, break_long_words=False, break_on_hyphens=False)
    return [Code(line) for line in lines]
