"""What is said of texts with faults, and how texts without are formatted and printed.

Each file in golden/language is a list of cases: `=== ` and a title, a text, and behind `---` the
answer. With ARCHDSL_UPDATE_GOLDEN=1 in the environment the answers are written anew. A new case is
written into its file, or, of slips, into the text below.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import archdsl
from archdsl.lang.diagnostics import ArchError, Diagnostic, in_order, render
from archdsl.lang.elaborate import elaborate
from archdsl.lang.formatter import format_source
from archdsl.lang.grammar import grammar
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import ArchSpec
from archdsl.lang.syntax import parse_file

FOLDER = Path(__file__).parent / "golden" / "language"
UPDATE = bool(os.environ.get("ARCHDSL_UPDATE_GOLDEN"))

# A text in which each kind of item stands once.
WHOLE = """arch net
source "a paper"
input 8x8x3
norm batch eps=1e-3
se from=input

stem { conv_k3_s22_o16 }
stage c2 {
  r2_k3_e6_o24_se0.25
  ( k3 | k5 )
}
head { pool fc_o10 }
expect params=13_326
variant wide { width=2 published macs=1M }
"""
STRAY = ("{", "}", "(", "|", "=", '"', '"x"', "x", "x=1", "conv", "stem", "act", "variant")


def said(diagnostic: Diagnostic) -> str:
    """A diagnostic in a line: its place, the words that its carets stand under, what it says."""
    assert diagnostic.span is not None
    line, column = diagnostic.span.source.position(diagnostic.span.start)
    text = f"{line}:{column} {diagnostic.span.text!r} {diagnostic.code}: {diagnostic.message}\n"
    return text + "".join(f"    {part}\n" for part in (diagnostic.help or "").splitlines())


def check(text: str) -> str:
    return "".join(map(said, archdsl.check(SourceText("net.arch", text))))


def rendered(text: str) -> str:
    return "\n".join(map(render, archdsl.check(SourceText("net.arch", text))))


def tidy(text: str) -> str:
    formatted = format_source(SourceText("net.arch", text))
    assert format_source(SourceText("net.arch", formatted)) == formatted
    return formatted


def read(text: str) -> ArchSpec:
    """What a text says; its blocks need not fit together."""
    elaborated = elaborate(parse_file(SourceText("net.arch", text)))
    assert elaborated.spec is not None, "".join(map(render, elaborated.diagnostics))
    return elaborated.spec


def printed(text: str) -> str:
    """The canonical form of a text, and what it says as JSON."""
    spec = read(text)
    canonical = print_spec(spec)
    assert read(canonical) == spec
    return f"{canonical}\n{json.dumps(spec.to_data(), ensure_ascii=False)}\n"


ANSWERS: dict[str, Callable[[str], str]] = {
    "said.txt": check,
    "rendered.txt": rendered,
    "formatted.txt": tidy,
    "printed.txt": printed,
}


def cases(name: str) -> Iterator[tuple[str, str, str]]:
    """The cases of a file: title, text, answer."""
    for case in (FOLDER / name).read_text(encoding="utf-8").split("=== ")[1:]:
        title, _, rest = case.partition("\n")
        text, _, answer = rest.partition("---\n")
        yield title, text, answer.removesuffix("\n")


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [(name, *case[1:]) for name in ANSWERS for case in cases(name)],
    ids=[case[0] for name in ANSWERS for case in cases(name)],
)
def test_answer(name: str, text: str, answer: str) -> None:
    assert UPDATE or ANSWERS[name](text) == answer


def test_a_text_that_cannot_be_parsed_is_not_formatted() -> None:
    """And all others are, whatever else is wrong with them."""
    for _, text, _ in cases("said.txt"):
        found = parse_file(SourceText("net.arch", text)).diagnostics
        if not found:
            assert tidy(text) or not text.strip()
            continue
        with pytest.raises(ArchError) as caught:
            tidy(text)
        assert list(caught.value.diagnostics) == in_order(found)


@pytest.mark.parametrize("name", ANSWERS)
def test_no_case_stands_twice(name: str) -> None:
    texts = [text for _, text, _ in cases(name)]
    assert len(texts) == len(set(texts))
    if UPDATE:
        parts = [f"=== {title}\n{t}---\n{ANSWERS[name](t)}\n" for title, t, _ in cases(name)]
        (FOLDER / name).write_text("".join(parts), encoding="utf-8")


# ------------------------------------------------------------------------------------------ slips


def slips() -> Iterator[tuple[str, str, str]]:
    """The whole text with one slip: of which sort, what it is, the text."""
    matches = [m for m in grammar("arch.lark", "file").scan(WHOLE) if m.lastgroup != "SPACE"]
    for word, behind in zip(matches, [*matches[1:], None], strict=True):
        start, end = word.span()
        line = WHOLE.count("\n", 0, start) + 1
        before, after = WHOLE[:start], WHOLE[end:]
        yield "left out", f"{line}: {word[0]}", before + after
        yield "twice", f"{line}: {word[0]}", f"{before}{word[0]} {word[0]}{after}"
        if behind is not None:
            between = WHOLE[end : behind.start()]
            swapped = f"{before}{behind[0]}{between}{word[0]}{WHOLE[behind.end() :]}"
            yield "exchanged", f"{line}: {behind[0]} {word[0]}", swapped
    lines = WHOLE.splitlines(keepends=True)
    for at in (at for at, line in enumerate(lines) if line.strip()):
        for sign in STRAY:
            text = "".join([*lines[:at], f"{sign} ", *lines[at:]])
            yield f"before a line: {sign}", f"{at + 1}", text


SORTS = list(dict.fromkeys(sort for sort, _, _ in slips()))


def said_of(sort: str) -> str:
    """All that is said of the slips of a sort, but for what is said of the text without them."""
    always = set(re.findall(r"[EW]\d+: .*", check(WHOLE)))
    parts = []
    for of, what, text in slips():
        if of == sort:
            found = archdsl.check(SourceText("net.arch", text))
            new = [d for d in found if f"{d.code}: {d.message}" not in always]
            parts.append(f"{what}\n{''.join(map(said, new))}\n")
    return f"=== {sort}\n\n{''.join(parts)}"


@pytest.mark.parametrize("sort", SORTS)
def test_slips(sort: str) -> None:
    golden = (FOLDER / "slips.txt").read_text(encoding="utf-8")
    assert UPDATE or said_of(sort) in golden


def test_all_slips_are_known() -> None:
    path = FOLDER / "slips.txt"
    if UPDATE:
        path.write_text("".join(map(said_of, SORTS)), encoding="utf-8")
    titles = re.findall(r"^=== (.*)", path.read_text(encoding="utf-8"), re.M)
    assert titles == SORTS
