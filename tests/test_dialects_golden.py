"""What reading and writing other notations gives, to the letter: networks, refusals, warnings.

The pages in golden/dialects are of cases: a title, a text that a user could have written, and what
becomes of it. With ARCHDSL_UPDATE_GOLDEN=1 in the environment the latter is written anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from test_dialects import figures

import archdsl
from archdsl import ArchError, dialects
from archdsl.lang.diagnostics import render
from archdsl.lang.source import SourceText

PAGES = sorted((Path(__file__).parent / "golden" / "dialects").glob("*.md"))
CASE = re.compile(
    r"^## (?P<title>[^\n]+)\n\n```(?P<notation>\w+)(?: to (?P<to>\w+))?\n(?P<text>.*?)^```\n\n"
    r"```\n(?P<result>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
CASES = [(page, case) for page in PAGES for case in CASE.finditer(page.read_text("utf-8"))]


def becomes(text: str, notation: str, to: str | None) -> str:
    """What is read of a text, or written of it; or what is said against it."""
    source = SourceText(f"net.{notation}", text)
    said = ""
    try:
        read = dialects.read(source, notation)
        said = read.text if to is None else ""
        arch = archdsl.parse(read)
        if to is None:
            assert arch.to_text() == read.text
            return said
        written = dialects.write(arch, to)
    except ArchError as error:
        return "\n".join(filter(None, [said, str(error)]))
    again = archdsl.parse(dialects.read(written.text, to), input=arch.input)
    assert figures(again) == figures(arch)
    return "\n".join([written.text, *map(render, written.warnings)])


@pytest.mark.parametrize(
    ("page", "case"), CASES, ids=[f"{page.stem}: {case['title']}" for page, case in CASES]
)
def test_a_case(page: Path, case: re.Match[str]) -> None:
    result = becomes(case["text"], case["notation"], case["to"])
    if os.environ.get("ARCHDSL_UPDATE_GOLDEN"):
        head = case[0][: case.start("result") - case.start()]
        text = page.read_text("utf-8").replace(case[0], f"{head}{result}```", 1)
        page.write_text(text, encoding="utf-8")
    else:
        assert result == case["result"]


def test_every_case_is_read() -> None:
    """Each title on a page has a case, and no other of the page has its title."""
    for page in PAGES:
        titles = re.findall("^## .+", page.read_text("utf-8"), re.MULTILINE)
        assert titles == [f"## {case['title']}" for where, case in CASES if where == page]
        assert len(set(titles)) == len(titles)
