"""The values that words stand for, and what pydantic finds wrong in the words of this language."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from archdsl.limits import hint

_NUMBER = re.compile(r"[0-9]{1,3}(?:_?[0-9]){0,40}")
_DECIMAL = re.compile(r"(?:[0-9]{1,999}\.?[0-9]{0,999}|\.[0-9]{1,999})(?:[eE][+-]?[0-9]{1,999})?")
_VAST = 1e40

# What pydantic finds wrong, in the words of this language.
_SENTENCES = {
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "greater_than": "must be more than {gt}",
    "less_than": "must be less than {lt}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "literal_error": "must be {expected}",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_unicode": "must be a text without half characters",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "dict_type": "must be an object",
    "tuple_type": "must be an array",
    "union_tag_not_found": "a block needs its `kind`",
    "union_tag_invalid": "`kind` must be one of {expected_tags}",
}
CODES = {
    "even_kernel": "E0209",
    "no_heads": "E0211",
    "conflict": "E0210",
    "no_depthwise": "E0304",
    "missing": "E0206",
}


@lru_cache(maxsize=1 << 12)
def number(text: str) -> int | float | str:
    """The value a text stands for: a whole number, a decimal, or the text itself.

    >>> number("9_715_512"), number("1e-3"), number("relu"), number("1e999")
    (9715512, 0.001, 'relu', '1e999')
    """
    if _NUMBER.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        value = float(text)
        return value if math.isfinite(value) else text
    return text


def is_vast(value: object) -> bool:
    """Whether a value, or the number that a text is of, lies beyond whatever a limit may be.

    Such numbers are no whole ones any more, or no finite ones.

    >>> [is_vast(value) for value in ("1e999", "9" * 99, 10**400, 1e300, 10**9, "inf", "relu")]
    [True, True, True, True, False, False, False]
    """
    if isinstance(value, str):
        return _DECIMAL.fullmatch(value) is not None and float(value) > _VAST
    return isinstance(value, (int, float)) and value > _VAST


def limit_hint(error: Mapping[str, Any]) -> str | None:
    """What to say of the limit that a value is beyond, if that is what pydantic finds wrong."""
    name = error.get("ctx", {}).get("limit")
    return hint(name) if name else None


def sentence(error: Mapping[str, Any]) -> str:
    """What a pydantic error says, as the end of a sentence ("must be at least 1")."""
    template = _SENTENCES.get(error["type"])
    if template is not None:
        context = dict(error.get("ctx", {}))
        for key in {"expected", "expected_tags"} & set(context):
            context[key] = str(context[key]).replace("'", "`")
        # A limit of 1.0 reads as 1.
        plain = {k: f"{v:g}" if type(v) is float else v for k, v in context.items()}
        return template.format(**plain)
    message = str(error["msg"])
    return message if error["type"] in CODES else message[0].lower() + message[1:]
