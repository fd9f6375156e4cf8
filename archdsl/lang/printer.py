"""The canonical form of a block and of a specification."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from archdsl.lang.source import SourceText
from archdsl.lang.spec import (
    ArchSpec,
    Attributes,
    Block,
    Expect,
    Published,
    Variant,
    vocabulary,
)
from archdsl.lang.syntax import parse_file
from archdsl.lang.trees import (
    Statement,
)

LINE = 88
INDENT = "  "

# The one order of a block's fields.
_ORDER = ("r", "k", "h", "d", "kv", "s", "m", "st", "e", "x", "i", "o", "se", "g", "p")
# File-level attributes that a printed file states even at their default.
_STATED = ("input", "act", "norm", "pad", "round")


def print_block(block: Block) -> str:
    """A block's canonical string: its fields in one order and one spelling.

    A field that was written at its default stays: the official strings are quoted letter by letter.

    >>> from archdsl.lang.decode import decode
    >>> print_block(decode("ir_s2_o80_r1_k5").block)
    'r1_k5_s22_o80'
    """
    words = vocabulary(block.kind)
    parts = [] if block.kind == "ir" else [block.kind]
    fields = type(block).model_fields
    for letter in _ORDER:
        name = words.keys.get(letter)
        # `st` is an alias of `s` on most kinds: the name is printed once.
        if name is None or (letter == "st" and words.keys.get("s") == name):
            continue
        value = getattr(block, name)
        told = name in block.model_fields_set or value != fields[name].default
        if told and value is not None:
            parts.append(letter + block_value(value))
    written: set[str] = set()
    for word, (name, value) in words.flags.items():
        told = name in block.model_fields_set or value != fields[name].default
        if told and getattr(block, name) == value and name not in written:
            written.add(name)
            parts.append(word)
    return "_".join(parts) or "ir"


def block_value(value: Any) -> str:
    """A field's value as a block string writes it: without exponents."""
    if isinstance(value, tuple):
        return "".join(str(step) for step in value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return str(value)


def decimal(value: float) -> str:
    """The usual text of a number.

    >>> decimal(0.001), decimal(0.003), decimal(1e-5), decimal(8)
    ('1e-3', '0.003', '1e-5', '8')
    """
    if float(value).is_integer() and abs(value) < 1e15:
        return str(int(value))
    number = Decimal(repr(value)).normalize()
    plain = format(number, "f")
    mantissa, _, exponent = format(number, "e").partition("e")
    short = f"{mantissa}e{int(exponent)}"
    # Powers of ten are what eps and layer scale are; other numbers are read more easily plain.
    return (
        short if (mantissa == "1" and int(exponent) < -2) or len(short) < len(plain) - 3 else plain
    )


# ------------------------------------------------------------------------------- specifications


def print_spec(spec: ArchSpec) -> str:
    """A whole file in canonical form; parsing it gives an equal specification."""
    lines = [f"arch {spec.name}"]
    if spec.source is not None:
        lines.append(f'source "{spec.source}"')
    squeezes = any(getattr(b, "se", 0) for _, blocks in spec.sections() for b in blocks)
    stated = (*_STATED, "se") if squeezes else _STATED
    lines += ["", *_attributes(spec.attributes, stated), ""]
    if spec.stem:
        lines += _section("stem", spec.stem)
    for stage in spec.stages:
        lines += _section("stage" if stage.name is None else f"stage {stage.name}", stage.blocks)
    if spec.head:
        lines += _section("head", spec.head)
    figures = [*_expect(spec.expect), *(_published(p) for p in spec.published)]
    if figures:
        lines += ["", *figures]
    for variant in spec.variants:
        lines += ["", *_variant(variant)]
    return "\n".join(lines) + "\n"


def _attributes(attributes: Attributes, stated: Sequence[str]) -> list[str]:
    rows: list[tuple[str, str]] = []
    for name, field in type(attributes).model_fields.items():
        value = getattr(attributes, name)
        if name not in stated and value == field.default:
            continue
        if name == "input":
            text = "x".join(map(str, value))
        elif isinstance(value, BaseModel):
            text = _settings_of(value, all_of=name in ("norm", "se"))
        else:
            text = value if isinstance(value, str) else decimal(value)
        rows.append((name, text))
    width = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{width}}{text}" for name, text in rows]


def _settings_of(model: Any, *, all_of: bool) -> str:
    parts = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        text = value if isinstance(value, str) else None if value is None else decimal(value)
        if name == model.positional:
            parts.append(text)
        elif text is not None and (all_of or value != field.default):
            parts.append(f"{field.alias or name}={text}")
    return " ".join(str(part) for part in parts)


def _section(title: str, blocks: Iterable[Block]) -> list[str]:
    return _braced(title, [print_block(block) for block in blocks])


def _braced(title: str, words: Sequence[str]) -> list[str]:
    line = " ".join([title, "{", *words, "}"])
    if len(words) <= 1 and len(line) <= LINE:
        return [line]
    return [f"{title} {{", *(INDENT + word for word in words), "}"]


def _expect(expect: Expect | None) -> list[str]:
    if expect is None:
        return []
    pairs = [f"{name}={value:_}" for name, value in expect if value is not None]
    return [" ".join(["expect", *pairs])] if pairs else []


def _published(published: Published) -> str:
    pairs = [
        f"{name}={_worded(value)}"
        for name, value in (
            ("params", published.params),
            ("macs", published.macs),
            *published.facts.items(),
        )
        if value is not None
    ]
    if published.source is not None:
        pairs.append(f'source="{published.source}"')
    return " ".join(["published", *pairs])


def _worded(value: str) -> str:
    """A value as a bare word where it reads back as one, else in quotes."""
    document = parse_file(SourceText("", f"published it={value}"))
    items = document.items
    plain = (
        not document.diagnostics
        and len(items) == 1
        and type(items[0]) is Statement
        and len(items[0].settings) == 1
        and items[0].settings[0].value == ("WORD", value, len("published it="))
    )
    return value if plain else f'"{value}"'


def _variant(variant: Variant) -> list[str]:
    settings = []
    for name, value in variant.overrides.items():
        text = "x".join(map(str, value)) if name == "input" else decimal(value)
        settings.append(f"{name}={text}")
    bodies = [*_expect(variant.expect), *(_published(p) for p in variant.published)]
    line = " ".join([f"variant {variant.name} {{", *settings, *bodies, "}"])
    if len(line) <= LINE:
        return [line]
    body = [" ".join(settings), *bodies] if settings else bodies
    return [f"variant {variant.name} {{", *(INDENT + text for text in body), "}"]
