"""What is remembered of lines, and of what stands above the sections, changes no document."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from archdsl.lang import syntax
from archdsl.lang.grammar import grammar
from archdsl.lang.source import SourceText
from archdsl.lang.syntax import parse_file
from archdsl.library import members, published_source
from archdsl.testing import nearly_valid, texts

LINES = st.sampled_from(
    [
        "arch a",
        "input 8x8x3",
        "act  relu # as in the paper",
        'source "x',
        'source "{ stem"',
        "norm batch eps=1e-3",
        "norm batch eps=",
        "input=8x8x3",
        "stem { k3_o8 }",
        "stem",
        "  stage c1 {",
        "stage c2 { ( k3 | k5_e{3,6} ) }",
        "  k3_s2_o8\r",
        "}",
        "variant small { width=0.5 expect params=1",
        "published macs=3M",
        "head { pool fc_o10 }\x0b",
        "x" * 1030,
        "x" * 1030 + "=",
        "stem\u2028{ k3 }",
        "",
    ]
)


def words_of_whole(text: str) -> list[tuple[str, int]]:
    """The texts and places of the words, found in the text as a whole."""
    scanned = grammar("arch.lark", "file").scan(text)
    return [(found[0], found.start()) for found in scanned if found.lastgroup != "SPACE"]


@given(texts() | nearly_valid() | st.lists(LINES, max_size=12).map("\n".join))
@settings(max_examples=300)
def test_parts_that_are_remembered_are_the_text_as_a_whole(text: str) -> None:
    assert [(word.text, word.start) for word in syntax._words(text, 0)] == words_of_whole(text)
    source = SourceText("net.arch", text)
    read = parse_file(source)
    assume(not read.unread)
    syntax._of_line.cache_clear()
    assert read == syntax._read(source)


def test_the_published_networks_are_read_by_parts() -> None:
    for file in {member.file for member in members()}:
        source = published_source(file)
        section = syntax._SECTION.search(source.text)
        assert section is not None
        above = syntax._above(source.text[: section.start()], ())
        assert above is not None and above.items
        assert parse_file(source) == syntax._read(source)


def test_long_lines_and_heads_are_not_remembered() -> None:
    syntax._of_line.cache_clear()
    syntax._above.cache_clear()
    comment = "# " + "x" * 5_000
    parse_file(SourceText("net.arch", f"{comment}\n{comment}"))
    assert syntax._of_line.cache_info().currsize == 0
    parse_file(SourceText("net.arch", f"arch a\n{comment}\nstem {{ k3 }}"))
    assert syntax._above.cache_info().currsize == 0
