"""What the readers of other libraries' notations have in common: checked values, all faults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, cast

from pydantic import ValidationError

from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.lang.dialects.literal import Members, Value
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText, Span
from archdsl.lang.spec import KINDS, SECTIONS, STATEMENTS, AnyBlock, ArchSpec, vocabulary
from archdsl.lang.values import CODES, limit_hint, sentence
from archdsl.limits import MAX_ERRORS, most
from archdsl.limits import hint as limit_of

Placed = tuple[Any, Span]
"""A value and where it stands."""


class Reading:
    """One text of another notation: gathers its faults, and ends as a `.arch` text."""

    def __init__(self, source: SourceText) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self.blocks = 0

    def error(self, code: str, message: str, at: Span, help: str | None = None) -> None:
        """Note a fault.

        Raises:
            ArchError: the text has more faults than anyone reads.
        """
        if len(self.diagnostics) >= MAX_ERRORS:
            message = f"the text has more than {MAX_ERRORS} errors: the others are not shown"
            raise ArchError([*self.diagnostics, Diagnostic("E0110", message, at)])
        self.diagnostics.append(Diagnostic(code, message, at, help))

    def refuse(self, what: str, at: Span, help: str | None = None) -> None:
        """Say that the language cannot carry something."""
        self.error("E0605", what, at, help)

    def stop(self) -> None:
        """Raise what was found so far, if anything was."""
        if self.diagnostics:
            raise ArchError(self.diagnostics)

    # -- values

    def members(
        self, value: Value, known: Iterable[str], what: str, required: Sequence[str] = ()
    ) -> dict[str, Value]:
        """The members of an object under their keys; others are faults, and so are
        repeated and missing ones.
        """
        if not isinstance(value.data, Members):
            self.error("E0604", f"{what} must be an object", value.span)
            return {}
        names = list(known)
        found: dict[str, Value] = {}
        for key, member in value.data.pairs:
            name = str(key.data)
            if name not in names:
                guess = did_you_mean(name, names)
                hint = f"did you mean `{guess}`?" if guess else f"keys: {', '.join(names)}"
                self.error("E0604", f"{what} has no key {quoted(name)}", key.text, hint)
            elif name in found:
                message = f"the key {quoted(name)} stands twice"
                self.error("E0604", message, key.text, "keep one of them")
            else:
                found[name] = member
        for name in required:
            if name not in found:
                start = value.span.part(0, 1)
                self.error("E0604", f"{what} lacks the key `{name}`", start)
        return found

    def items(self, value: Value, what: str) -> tuple[Value, ...]:
        if isinstance(value.data, tuple):
            return value.data
        self.error("E0604", f"{what} must be a list", value.span)
        return ()

    def number(
        self,
        value: Value,
        name: str,
        low: float,
        high: float,
        *,
        above: bool = False,
        below: bool = False,
    ) -> float | None:
        """A number within its limits (`above` its lower one, `below` its upper one)."""
        data = value.data
        if isinstance(data, (int, float)) and not isinstance(data, bool):
            fits = data > low if above else data >= low
            if fits and (data < high if below else data <= high):
                return float(data)
            least = "more than" if above else "at least"
            most = "less than" if below else "at most"
            says = f"must be {least} {low:g} and {most} {high:,g}"
        else:
            says = "must be a number"
        self.error("E0604", f"`{name}` {says}", value.span)
        return None

    def whole(self, value: Value, name: str, low: int, high: int) -> int | None:
        data = value.data
        if isinstance(data, int) and not isinstance(data, bool) and low <= data <= high:
            return data
        message = f"`{name}` must be a whole number from {low:,} to {high:,}"
        self.error("E0604", message, value.span)
        return None

    def image(self, value: Value, order: Sequence[str]) -> list[int] | None:
        """What `input_size` says, in the order of these names: height, width, channels."""
        sides = value.data if isinstance(value.data, tuple) else ()
        if len(sides) != 3:
            self.error("E0604", f"`input_size` must be [{', '.join(order)}]", value.span)
            return None
        limits = [most("channels" if name == "channels" else "side") for name in order]
        pairs = zip(sides, limits, strict=True)
        whole = [self.whole(side, "input_size", 1, limit) for side, limit in pairs]
        found = [side for side in whole if side is not None]
        return found if len(found) == 3 else None

    def truth(self, value: Value, name: str) -> bool | None:
        if isinstance(value.data, bool):
            return value.data
        self.error("E0604", f"`{name}` must be true or false", value.span)
        return None

    def word(self, value: Value, name: str, words: Sequence[str]) -> str | None:
        if isinstance(value.data, str) and value.data in words:
            return value.data
        shown = f", not {quoted(str(value.data))}" if isinstance(value.data, str) else ""
        guess = did_you_mean(value.data, words) if isinstance(value.data, str) else None
        hint = f"did you mean `{guess}`?" if guess else None
        names = [f"`{word}`" if word else '`""`' for word in words]
        message = f"`{name}` must be {listed(names)}{shown}"
        self.error("E0604", message, value.text if shown else value.span, hint)
        return None

    # -- blocks

    def repeats(self, count: int, at: Span) -> None:
        """Count blocks.

        Raises:
            ArchError: there are more than a network may have.
        """
        self.blocks += count
        if self.blocks > most("blocks"):
            message = f"the network has more than {most('blocks'):,} blocks"
            raise ArchError(
                [*self.diagnostics, Diagnostic("E0110", message, at, limit_of("blocks"))]
            )

    def block(self, kind: str, fields: Mapping[str, Placed], at: Span) -> AnyBlock | None:
        """A block of our kind; a value that a field cannot have is a fault where it stands."""
        values = {name: value for name, (value, _) in fields.items() if value is not None}
        try:
            return cast(AnyBlock, KINDS[kind].model_validate({"kind": kind, **values}))
        except ValidationError as errors:
            for error in errors.errors(include_url=False, include_input=False):
                name = str(error["loc"][0] if error["loc"] else error["ctx"]["field"])
                name = vocabulary(kind).keys.get(name, name)
                span = fields[name][1] if name in fields else at
                says = sentence(error)
                if says.startswith("must"):
                    says = f"{quoted(span.text)}: {says}"
                self.error(CODES.get(error["type"], "E0207"), says, span, limit_hint(error))
        return None

    def finish(self, data: Mapping[str, Any]) -> SourceText:
        """The `.arch` text of a specification.

        Raises:
            ArchError: faults were found.
        """
        self.stop()
        spec = ArchSpec.model_validate({**data, "name": data.get("name") or self.name()})
        return SourceText(f"{self.source.name} (as .arch)", print_spec(spec))

    def name(self) -> str:
        """A network's name from its file's."""
        return arch_name(PurePath(self.source.name).stem)


def arch_name(text: str) -> str:
    """A text as a name of the language.

    >>> arch_name("EfficientNet-B0"), arch_name("<stdin>"), arch_name("stage")
    ('efficientnet_b0', 'net', 'stage_net')
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()[:56]).strip("_")
    if text.startswith("<") or not name:
        return "net"
    if not name[0].isalpha():
        name = f"net_{name}"
    return f"{name}_net" if name in (*SECTIONS, *STATEMENTS, "variant") else name
