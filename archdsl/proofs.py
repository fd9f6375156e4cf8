"""What `archdsl check` proves: the text, its shapes, `expect` and `published`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from archdsl.compiler import Arch, faults
from archdsl.lang.diagnostics import ArchError, Diagnostic, in_order, quoted
from archdsl.lang.elaborate import Elaborated, elaborate
from archdsl.lang.fields import Width
from archdsl.lang.origins import Origins
from archdsl.lang.source import SourceText
from archdsl.lang.spec import Attributes, Block, Published
from archdsl.lang.syntax import parse_file
from archdsl.lang.widths import rounded
from archdsl.limits import hint, most

_UNITS = {"k": Decimal(10) ** 3, "m": Decimal(10) ** 6, "g": Decimal(10) ** 9}


def check(
    text: str | SourceText,
    *,
    variant: str | None = None,
    width: float | None = None,
    input: Sequence[int] | str | None = None,
    classes: int | None = None,
) -> list[Diagnostic]:
    """Every diagnostic of a text: errors and warnings, in the order of their places.

    Without overrides the file's own network and all its variants are proved; `expect` and
    `published` speak of the text's own width, input and classes, so an override leaves them out.
    """
    source = text if isinstance(text, SourceText) else SourceText("<string>", text)
    elaborated = elaborate(parse_file(source))
    spec, origins = elaborated.spec, elaborated.origins
    if spec is None:
        return in_order(faults(elaborated))
    overridden = any(value is not None for value in (width, input, classes))
    names = [variant] if variant or overridden else [None, *(v.name for v in spec.variants)]
    found = list(elaborated.diagnostics)
    operators, most_proved = 0, 2 * most("operators")
    for name in names:
        try:
            arch = Arch(spec, origins, variant=name, width=width, input=input, classes=classes)
        except ArchError as error:
            found += _named(error, name)
            if name is None:
                break  # the variants have these errors too
            continue
        if not overridden:
            found += prove_expect(arch)
            found += prove_published(arch)
        operators += sum(item.run.operators for item in arch.placed)
        if operators > most_proved:
            message = f"the variants have more than {most_proved:,} operators in all"
            found.append(Diagnostic("E0110", message, origins.variant(name), hint("operators")))
            break
    found += _tacit(elaborated)
    return in_order(found)


def _named(error: ArchError, variant: str | None) -> Iterator[Diagnostic]:
    """The errors of a variant, said to be such."""
    for d in error.diagnostics:
        # Only what stands in the text is the variant's: it may be that there is none.
        said = f"{d.message} (in variant `{variant}`)" if variant and d.span else d.message
        yield replace(d, message=said)


def prove_expect(arch: Arch) -> Iterator[Diagnostic]:
    """An error for each exact figure that does not hold."""
    if arch.expect is None:
        return
    cost = arch.cost()
    variant = arch.variant.name if arch.variant else None
    for name, wanted in arch.expect:
        counted = getattr(cost, name)
        if wanted is not None and wanted != counted:
            span = arch.origins.setting("expect", name, variant)
            message = f"expected {name}={wanted:_}, but the network has {counted:_}"
            hint = f"if the network is right, write {name}={counted:_}"
            yield Diagnostic("E0412", message, span, hint)


def prove_published(arch: Arch) -> Iterator[Diagnostic]:
    """A warning for each printed figure that exact counting does not round to."""
    cost = arch.cost()
    variant = arch.variant.name if arch.variant else None
    for number, published in enumerate(arch.published):
        for name, counted in (("params", cost.params), ("macs", cost.macs)):
            printed = getattr(published, name)
            if printed is not None and not _rounds_to(counted, printed):
                span = arch.origins.setting("published", name, variant, number)
                message = f"published {name}={printed}, but the network has {counted:,}"
                yield Diagnostic("W0501", message, span, _whose(published))


def _whose(published: Published) -> str | None:
    return f"the figure is from {quoted(published.source, 80)}" if published.source else None


def _rounds_to(counted: int, printed: str) -> bool:
    """Whether a count, rounded to the printed precision, is the printed figure.

    >>> _rounds_to(3_504_872, "3.5M"), _rounds_to(300_774_272, "300M")
    (True, False)
    """
    unit = _UNITS.get(printed[-1].lower(), Decimal(1))
    value = Decimal(printed.rstrip("KMGkmg"))
    # Half of the last printed place, both ends included.
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(Decimal(counted) - value * unit) <= Decimal(10) ** exponent * unit / 2


def _tacit(elaborated: Elaborated) -> Iterator[Diagnostic]:
    """Warnings where the text leaves to a default what implementations disagree on."""
    spec, origins = elaborated.spec, elaborated.origins
    assert spec is not None
    attributes = spec.attributes
    warned_se = bool(origins.statements("se"))
    for path, blocks in spec.sections():
        for index, block in enumerate(blocks):
            if getattr(block, "se", 0) and not warned_se:
                warned_se = True
                message = (
                    "the file does not say what the squeeze-and-excitation ratio is taken from"
                )
                hint = (
                    "write `se from=input round=1 act=relu gate=sigmoid` (MnasNet, the default)\n"
                    "or `se from=expanded round=8 act=relu gate=hsigmoid` (MobileNetV3)"
                )
                yield Diagnostic("W0503", message, origins.field(path, index, "se"), hint)
            if attributes.width == 1:
                yield from _rounded_widths(origins, path, index, block, attributes)


def _rounded_widths(
    origins: Origins, path: str, index: int, block: Block, attributes: Attributes
) -> Iterator[Diagnostic]:
    for name, letter in (("out_channels", "o"), ("expanded", "x")):
        width = getattr(block, name, None)
        if isinstance(width, Width) and width.mark != "!":
            actual = rounded(width.channels, attributes)
            if actual != width.channels:
                rule = f"`round {attributes.round.divisor}`"
                message = f"{letter}{width} becomes {actual} channels by {rule}"
                hint = f"write {letter}{actual}, or {letter}{width.channels}! to keep it"
                yield Diagnostic("W0502", message, origins.field(path, index, name), hint)
