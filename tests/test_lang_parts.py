"""The parts of the language on their own: places in texts, words, values, limits, widths."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import archdsl
from archdsl.lang.decode import decode
from archdsl.lang.diagnostics import Diagnostic, did_you_mean, in_order, listed, quoted, render
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.fields import Width
from archdsl.lang.grammar import Unexpected, grammar
from archdsl.lang.origins import Origins
from archdsl.lang.printer import block_value, decimal
from archdsl.lang.source import SourceText
from archdsl.lang.spec import KINDS, Attributes, Expect, Norm, Published, Rounding, vocabulary
from archdsl.lang.syntax import parse_block, parse_file
from archdsl.lang.trees import Section, Statement, Variant, Word, setting_of
from archdsl.lang.values import is_vast, limit_hint, number, sentence
from archdsl.lang.widths import deepened, rounded, scaled, squeezed
from archdsl.limits import MAX_SKIPPED, MAX_TEXT, MAX_TOKENS, MAX_WORD

# ------------------------------------------------------------------------------- texts and places

LINES = SourceText("net.arch", "ab\r\n\nç\td\nend")


@pytest.mark.parametrize(
    ("offset", "place"),
    [(0, (1, 1)), (2, (1, 3)), (3, (1, 4)), (4, (2, 1)), (5, (3, 1)), (7, (3, 3)), (12, (4, 4))],
)
def test_places_count_from_one(offset: int, place: tuple[int, int]) -> None:
    assert LINES.position(offset) == place


def test_lines_have_no_ends() -> None:
    assert [LINES.line(number) for number in (1, 2, 3, 4)] == ["ab", "", "ç\td", "end"]
    assert SourceText("", "").line(1) == ""
    assert SourceText("", " a \t\r\nb").line(1) == " a \t"


def test_spans_know_their_text() -> None:
    span = LINES.span(5, 8)
    assert (span.text, str(span), repr(span)) == (
        "ç\td",
        "net.arch:3:1",
        "Span(net.arch:3:1, 'ç\\td')",
    )
    part = span.part(1, 3)
    assert (part.start, part.end, part.text, part.source) == (6, 8, "\td", LINES)
    assert repr(SourceText("x", "y" * 50).span(0, 50)) == f"Span(x:1:1, '{'y' * 40}')"
    assert repr(LINES) == "SourceText('net.arch', 12 characters)"


# ------------------------------------------------------------------------------------ diagnostics


def test_diagnostics_as_data() -> None:
    assert Diagnostic("W0501", "doubtful").to_json() == {
        "code": "W0501",
        "severity": "warning",
        "message": "doubtful",
        "file": None,
        "line": None,
        "column": None,
        "end_column": None,
        "help": None,
    }
    found = Diagnostic("E0103", "wrong", LINES.span(5, 11), "repair it").to_json()
    assert (found["file"], found["line"]) == ("net.arch", 3)
    # A span of several lines ends with its first.
    assert (found["column"], found["end_column"], found["help"]) == (1, 4, "repair it")


def test_diagnostics_come_in_order_and_once() -> None:
    first, second = (Diagnostic("E0103", "a", LINES.span(at, at + 1)) for at in (1, 5))
    nowhere = Diagnostic("E0110", "b")
    assert in_order([nowhere, second, first, second]) == [first, second, nowhere]
    assert str(archdsl.ArchError([second, first])) == f"{render(first)}\n{render(second)}"


def test_a_diagnostic_without_a_place_or_code() -> None:
    assert render(Diagnostic("E0110", "too\nmuch", None, "less\nof it")) == (
        "error[E0110]: too\ufffdmuch\n  = help: less\n          of it\n"
    )
    assert render(Diagnostic("", "so it is")) == "error: so it is\n"


def test_a_label_stands_behind_the_carets() -> None:
    shown = render(Diagnostic("W0501", "odd", LINES.span(0, 2), label="first used here"))
    assert shown == (
        "warning[W0501]: odd\n --> net.arch:1:1\n  |\n1 | ab\n  | ^^ first used here\n"
    )
    assert render(Diagnostic("W0501", "odd", LINES.span(0, 2), label="")).endswith("  | ^^\n")


def test_a_place_at_the_end_of_the_text_has_one_caret() -> None:
    assert render(Diagnostic("E0103", "more", LINES.span(12, 12))).endswith(
        "4 | end\n  |    ^ here\n"
    )
    assert render(Diagnostic("E0103", "more", LINES.span(4, 4))).endswith("2 |\n  | ^ here\n")


def test_colors() -> None:
    span = LINES.span(0, 2)
    assert render(Diagnostic("E0103", "bad", span, "mend it\nor not"), color=True) == (
        "\x1b[1;31merror[E0103]\x1b[0m\x1b[1m: bad\x1b[0m\n"
        "\x1b[1;34m -->\x1b[0m net.arch:1:1\n"
        "  \x1b[1;34m|\x1b[0m\n"
        "\x1b[1;34m1\x1b[0m \x1b[1;34m|\x1b[0m ab\n"
        "  \x1b[1;34m|\x1b[0m \x1b[1;31m^^ here\x1b[0m\n"
        "  \x1b[1;34m=\x1b[0m \x1b[1mhelp\x1b[0m: mend it\n"
        "          or not\n"
    )
    assert render(Diagnostic("W0501", "odd", span), color=True).startswith("\x1b[1;33mwarning")


def test_words_inside_messages() -> None:
    assert [listed(words) for words in ([], ["a"], ["a", "b"])] == ["", "a", "a or b"]
    assert listed(["a", "b", "c", "d"], "and") == "a, b, c and d"
    assert quoted("a" * 40) == f"`{'a' * 40}`"
    assert quoted("a" * 41) == f"`{'a' * 39}…`"
    assert quoted("abc", limit=2) == "`a…`"
    assert quoted("a\tb\n\u2029\u202e\ud800é") == "`a    b\ufffd\ufffd\ufffd\ufffdé`"


def test_what_was_meant() -> None:
    assert did_you_mean("INPTU", ["act", "input", "inputs"]) == "input"
    assert did_you_mean("lstm", ["act", "input"]) is None
    assert did_you_mean("a" * 40, ["a" * 39]) == "a" * 39
    assert did_you_mean("a" * 41, ["a" * 41]) is None


# ----------------------------------------------------------------------------------- words, trees


def test_tokens_know_where_they_end() -> None:
    text = (
        'act relu norm batch eps = 1e-3 source "a"  variant v { width=2 } stage c2 { k3 } head {}'
    )
    items = parse_file(SourceText("net.arch", text)).items
    spans = [text[item.start : item.end] for item in items]
    assert spans == [
        "act relu",
        "norm batch eps = 1e-3",
        'source "a"',
        "variant v { width=2 }",
        "stage c2 { k3 }",
        "head {}",
    ]
    norm, variant, stage = items[1], items[3], items[4]
    assert isinstance(norm, Statement) and isinstance(variant, Variant)
    assert isinstance(stage, Section)
    (setting,) = norm.settings
    assert (setting.name, setting.value) == ("eps", Word("WORD", "1e-3", text.index("1e-3")))
    assert text[setting.start : setting.end] == "eps = 1e-3"
    for item in (variant, stage):
        assert (text[item.opened], text[item.closed]) == ("{", "}")


def test_a_setting_is_a_key_and_a_value() -> None:
    found = setting_of(Word("SETTING", 'source =\t"a = b"', 10))
    assert found.key == Word("KEY", "source", 10)
    assert found.value == Word("STRING", '"a = b"', 19)
    assert setting_of(Word("SETTING", "eps=1", 0)).value == Word("WORD", "1", 4)


def test_parts_of_a_block_string() -> None:
    parts, errors = parse_block("conv_k3_o1280!_se.5_e{3,6}_x{8!}_noskip")
    assert errors == []
    assert [(part.key.text, part.key.start, part.values) for part in parts] == [
        ("conv", 0, None),
        ("k", 5, ("3",)),
        ("o", 8, ("1280!",)),
        ("se", 15, (".5",)),
        ("e", 20, ("3", "6")),
        ("x", 27, ("8!", "8!")),
        ("noskip", 33, None),
    ]


def test_a_grammar_says_what_fits() -> None:
    feed = grammar("arch.lark", "file").start()
    items = {"KEYWORD", "SECTION", "VARIANT", "$END"}
    assert feed.accepts() == items
    feed.feed_token(Word("KEYWORD", "act", 0))
    assert feed.accepts() == items | {"WORD", "STRING", "SETTING", "LPAR"}
    with pytest.raises(Unexpected, match="RBRACE"):
        feed.feed_token(Word("RBRACE", "}", 4))
    # What does not fit leaves the parse as it was.
    assert feed.accepts() == items | {"WORD", "STRING", "SETTING", "LPAR"}
    feed.feed_token(Word("WORD", "relu", 4))
    assert feed.accepts() == items | {"SETTING"}
    (item,) = feed.feed_token(Word("$END", "", 8))
    assert item == Statement(Word("KEYWORD", "act", 0), Word("WORD", "relu", 4), ())


# ---------------------------------------------------------------------------------- where it stands

PLACES = """arch net input 8x8x3
stem { conv_k3_o16 k3 }
stage { k3_s2_o24 }
stage c3 { ( k3 | k5 ) k5 }
expect params=1 macs = 2
published top1=70
published top1=71 source="b"
variant v { width=2 expect params=3 }
variant w { expect params=4 macs=5 }
"""


def test_the_places_of_a_specification() -> None:
    origins = Origins(parse_file(SourceText("net.arch", PLACES)))

    def text(span: Any) -> str | None:
        return span and f"{span.text} {span.source.position(span.start)[0]}"

    assert list(origins.sections) == ["stem", "stages.stage1", "stages.c3"]
    assert text(origins.field("stem", 0, "kernel")) == "k3 2"
    assert text(origins.field("stem", 1, "kernel")) == "k3 2"
    assert text(origins.field("stages.stage1", 0, "stride")) == "s2 3"
    # A field that is not written is its block, as is none.
    assert text(origins.field("stages.stage1", 0, "expansion")) == "k3_s2_o24 3"
    assert text(origins.field("stages.stage1", 0, None)) == "k3_s2_o24 3"
    # Alternatives have no fields, and what is not there has no place.
    assert origins.block("stages.c3", 0) is None
    assert origins.field("stages.c3", 0, "kernel") is None
    assert text(origins.field("stages.c3", 1, "kernel")) == "k5 4"
    assert origins.field("head", 0, "kernel") is None
    assert text(origins.setting("expect", "macs")) == "macs = 2 5"
    assert text(origins.setting("published", "top1")) == "top1=70 6"
    assert text(origins.setting("published", "top1", index=1)) == "top1=71 7"
    assert text(origins.setting("published", "source", index=1)) == 'source="b" 7'
    assert origins.setting("published", "source") is None
    assert origins.setting("published", "top1", index=2) is None
    assert text(origins.setting("expect", "params", "v")) == "params=3 8"
    assert text(origins.setting("expect", "params", "w")) == "params=4 9"
    assert origins.setting("expect", "macs", "v") is None
    assert origins.setting("expect", "params", "x") is None
    assert [text(origins.variant(name)) for name in ("v", "w", "x", None)] == [
        "v 8",
        "w 9",
        None,
        None,
    ]
    assert len(origins.statements("published")) == 2
    assert len(origins.statements("expect", "w")) == 1
    assert origins.statements("act") == []


# ----------------------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("007", 7),
        ("9_715_512", 9_715_512),
        ("1_2", 12),
        ("1__2", "1__2"),
        ("_1", "_1"),
        ("1_", "1_"),
        ("+1", "+1"),
        ("-1", "-1"),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        (".", "."),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("1e+3", 1000.0),
        ("1.5.2", "1.5.2"),
        ("e3", "e3"),
        ("1e", "1e"),
        ("1e999", "1e999"),
        ("9" * 43, int("9" * 43)),
        ("9" * 44, float("9" * 44)),
        ("9" * 400, "9" * 400),
        ("inf", "inf"),
        ("nan", "nan"),
        ("²", "²"),
        ("٣", "٣"),
        ("1 ", "1 "),
        ("", ""),
    ],
)
def test_numbers(text: str, value: object) -> None:
    assert (number(text), type(number(text))) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "vast"),
    [
        *[(10**40, False), (10**40 + 1, False), (10**41, True), (1e40, False), (1e41, True)],
        *[("1e40", False), ("1e41", True), ("x1e41", False), (None, False), ((1e41,), False)],
        *[(float("inf"), True), (float("nan"), False), (-(10**41), False), ("-1e41", False)],
    ],
)
def test_vast_values(value: object, vast: bool) -> None:
    assert is_vast(value) is vast


def refused(model: type[BaseModel], values: dict[str, Any]) -> list[str]:
    """What is said of values, each with the hint that follows it."""
    try:
        model.model_validate(values)
    except ValidationError as errors:
        found: list[Any] = list(errors.errors(include_url=False))
        return [
            " / ".join([".".join(map(str, e["loc"])), sentence(e), *filter(None, [limit_hint(e)])])
            for e in found
        ]
    return []


CONV: dict[str, Any] = {"kind": "conv"}
MQA: dict[str, Any] = {"kind": "mqa", "heads": 1, "head_width": 8}
CHANNELS = "must be from 1 to 1048576 channels"
WIDTH = "must be a whole number, or one with `!` or `+` after it"
RAISES = "the limit `channels` is 1,048,576; `--limit channels=N` raises it"
STRIDE = "must be one digit, or two for height and width, each from 1 to 9"
IMAGE = "must be HEIGHTxWIDTHxCHANNELS, such as 224x224x3"
SIDES = "sides must be from 1 to 32768 pixels, channels from 1 to 1048576"
KERNEL = "must be at most 31 / the limit `kernel` is 31; `--limit kernel=N` raises it"
REPEATS = "must be at most 1000 / the limit `repeats` is 1,000; `--limit repeats=N` raises it"
EXPANSION = "must be at most 128 / the limit `expansion` is 128; `--limit expansion=N` raises it"
SIDE = "the limit `side` is 32,768; `--limit side=N` raises it"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        *[("out_channels", value, None) for value in (1, 1 << 20, "8", "8!", "8+", Width(8, "!"))],
        *[("out_channels", value, CHANNELS) for value in (0, "0!")],
        *[
            ("out_channels", value, f"{CHANNELS} / {RAISES}")
            for value in ((1 << 20) + 1, 10**50, 1e50, "1e50", "1048577+", "9" * 99)
        ],
        *[("out_channels", v, WIDTH) for v in (True, 8.0, 8.5, "8?", "8!+", "x", "", [8], 1.5j)],
        *[("stride", value, None) for value in (1, 9, 11, 29, 99, [1, 9], (2, 1))],
        *[
            ("stride", value, STRIDE)
            for value in (0, 10, 20, 100, -1, True, "2", 2.0, [1], [1, 2, 3])
        ],
        *[("stride", value, STRIDE) for value in ([0, 1], [1, 10], [1, True], [1.0, 1])],
        *[("kernel", value, None) for value in (1, 3, 31)],
        *[("kernel", value, "must be odd") for value in (2, 30, 32)],
        *[("kernel", value, "must be at least 1") for value in (0, -1, -2)],
        ("kernel", 33, KERNEL),
        *[("kernel", value, "must be a whole number") for value in (3.0, 3.5, "3", True, None)],
        *[("repeats", 1000, None), ("repeats", 1001, REPEATS)],
        *[("bias", "x", "must be true or false"), ("bias", [], "must be true or false")],
        ("act", "relu6", None),
        ("act", "tanh", "must be `relu`, `relu6`, `hswish`, `swish`, `gelu` or `linear`"),
        ("in_channels", None, None),
        ("in_channels", 0, "must be at least 1"),
    ],
)
def test_values_of_blocks(field: str, value: object, said: str | None) -> None:
    expected = [] if said is None else [f"{field} / {said}"]
    assert refused(KINDS["conv"], {**CONV, field: value}) == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        *[("1x1x1", None), ("32768x32768x1048576", None), ([8, 9, 3], None), ((8, 9, 3), None)],
        *[(text, IMAGE) for text in ("8x8", "8x8x3x1", "8X8x3", "x8x3", "", "8" * 1000 + "x8x3")],
        *[(8, IMAGE), (None, IMAGE), ([8, 8], IMAGE), ([8, 8, 3, 1], IMAGE)],
        *[([8, 8, 3.0], IMAGE), ([8, True, 3], IMAGE), ([-1, 8, 3], SIDES)],
        *[(value, SIDES) for value in ("0x8x3", "8x0x3", "8x8x0")],
        *[(value, f"{SIDES} / {SIDE}") for value in ("32769x8x3", "8x32769x3", "32769x8x1048577")],
        ("8x8x1048577", f"{SIDES} / {RAISES}"),
    ],
)
def test_values_of_images(value: object, said: str | None) -> None:
    assert refused(Attributes, {"input": value}) == ([] if said is None else [f"input / {said}"])


@pytest.mark.parametrize(
    ("model", "values", "said"),
    [
        (Norm, {"eps": 1}, []),
        (
            Norm,
            {"eps": 0, "momentum": 1.5},
            ["eps / must be more than 0", "momentum / must be at most 1"],
        ),
        (Norm, {"eps": float("nan")}, ["eps / must be a finite number"]),
        (Norm, {"eps": "1"}, ["eps / must be a number"]),
        (Norm, {"kind": "layer"}, ["kind / must be `batch`"]),
        (Rounding, {"limit": -0.1}, ["limit / must be at least 0"]),
        (Expect, {"macs": -1}, ["macs / must be at least 0"]),
        (Published, {"macs": "3.4M", "params": "300"}, []),
        (
            Published,
            {"macs": "3.4T"},
            ["macs / must match ^[0-9]+(\\.[0-9]+)?[KMGkmg]?$"],
        ),
        (Published, {"macs": "1" * 25}, ["macs / must have at most 24 characters"]),
        (Published, {"macs": 3}, ["macs / must be a text"]),
        (Published, {"facts": 3}, ["facts / must be an object"]),
        (KINDS["dropout"], {"kind": "dropout", "rate": 1}, ["rate / must be less than 1"]),
        (KINDS["dropout"], {"kind": "dropout"}, ["p / Field required"]),
        (KINDS["mqa"], {**MQA, "heads": 0}, ["heads / must be at least 1"]),
        (
            KINDS["mqa"],
            {**MQA, "stride": 2},
            ["stride / must be 1: attention keeps the resolution"],
        ),
        (KINDS["ir"], {"kind": "ir", "expansion": 129}, [f"expansion / {EXPANSION}"]),
        (KINDS["ir"], {"kind": "ir", "expansion": "1e99"}, [f"expansion / {EXPANSION}"]),
        (KINDS["ir"], {"kind": "ir", "se": 1.5}, ["se / must be at most 1"]),
    ],
)
def test_what_is_said_of_values(
    model: type[BaseModel], values: dict[str, Any], said: list[str]
) -> None:
    assert refused(model, values) == said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(8, "8"), (8.0, "8"), (-2.0, "-2"), (0.0, "0"), (0.35, "0.35"), (0.1, "0.1")],
        *[(0.01, "0.01"), (0.001, "1e-3"), (0.0001, "1e-4"), (0.002, "0.002"), (1e-5, "1e-5")],
        *[(2e-5, "0.00002"), (2e-6, "2e-6"), (1.5e-7, "1.5e-7"), (123456.75, "123456.75")],
        *[(1e14, "100000000000000"), (1e15, "1e15"), (1.5e20, "1.5e20"), (0.025, "0.025")],
    ],
)
def test_decimals(value: float, text: str) -> None:
    assert decimal(value) == text
    assert float(text) == value


def test_values_in_block_strings() -> None:
    values = [(2, 1), 6.0, 0.25, 1e-5, 3, Width(8, "+"), Width(8), "relu"]
    assert [block_value(value) for value in values] == [
        *["21", "6", "0.25", "0.00001", "3", "8+", "8", "relu"]
    ]


def test_the_vocabulary_of_a_kind() -> None:
    words = vocabulary("dw")
    assert words.keys == {
        "r": "repeats",
        "i": "in_channels",
        "o": "out_channels",
        "k": "kernel",
        "s": "stride",
        "st": "stride",
    }
    assert words.flags["nonorm"] == ("norm", False)
    # `st` says the same as `s`, and is not listed.
    assert words.listed() == (
        "r, i, o, k, s, relu, relu6, hswish, swish, gelu, linear, bias, nonorm, residual"
    )
    assert vocabulary("uib").keys["st"] == "stride"
    assert vocabulary("uib").keys["s"] == "start_kernel"
    assert vocabulary("uib").listed() == (
        "r, i, o, e, x, g, s, m, st, noskip, relu, relu6, hswish, swish, gelu, linear, ls, nols"
    )
    assert "st" not in vocabulary("pool").keys


def test_a_block_string_knows_where_its_fields_stand() -> None:
    decoded = decode("uib_m3_st2_o24_noskip_r2")
    assert decoded.problems == () and decoded.guess is None
    assert decoded.places == {
        "middle_kernel": (4, 6),
        "stride": (7, 10),
        "out_channels": (11, 14),
        "residual": (15, 21),
        "repeats": (22, 24),
    }
    assert decode("uib_m3") is decode("uib_m3")


def test_a_faulty_block_string_is_guessed_without_its_faults() -> None:
    decoded = decode("conv_k4_o24_q1")
    assert decoded.block is None
    assert decoded.guess == decode("conv_o24").block
    assert [(p.code, p.start, p.end) for p in decoded.problems] == [
        ("E0202", 12, 14),
        ("E0209", 5, 7),
    ]
    assert decode("mqa_h0_d8").guess is None
    assert decode("conf_k3").guess is None


# ------------------------------------------------------------------------------------------ limits


def checked(text: str) -> list[tuple[str, str, str | None, int, str]]:
    return [
        (d.code, d.message, d.help, d.span.start, d.span.text)
        for d in archdsl.check(SourceText("net.arch", text))
        if d.span is not None
    ]


NET = "arch net input 8x8x3 stem { conv_o16 }"


def test_as_long_as_a_text_may_be() -> None:
    assert checked(NET + " " * (MAX_TEXT - len(NET))) == []
    assert checked(NET + " " * (MAX_TEXT + 1 - len(NET))) == [
        (
            "E0110",
            "the text has 1,048,577 characters; the limit is 1,048,576",
            "the limit `text` is 1,048,576; `--limit text=N` raises it",
            0,
            "a",
        )
    ]


def test_as_many_words_as_a_text_may_have() -> None:
    words = NET + "\n#" * (MAX_TOKENS // 2 - 8)
    assert len(list(grammar("arch.lark", "file").scan(words))) == MAX_TOKENS - 1
    assert checked(words + "\n") == []
    assert checked(words + "\n#") == [
        (
            "E0110",
            "the text has more than 65,536 words, signs and spaces",
            "the limit `tokens` is 65,536; `--limit tokens=N` raises it",
            len(words) + 1,
            "#",
        )
    ]


def test_as_long_as_a_word_may_be() -> None:
    assert checked(f"{NET} published a={'x' * 900} source {'x' * 1000}") == []
    (told,) = checked(f"{NET} source {'x' * MAX_WORD}")
    assert told[:2] == ("E0403", f"`{'x' * 39}…`: must have at most 1000 characters")
    _, found = checked(f"{NET} source {'x' * (MAX_WORD + 1)}")
    assert found == (
        "E0110",
        "this word is longer than 1,024 characters",
        "the limit `word` is 1,024; `--limit word=N` raises it",
        len(NET) + 8,
        "x" * (MAX_WORD + 1),
    )


def test_as_many_statements_as_a_text_may_have() -> None:
    hint = "the limit `statements` is 256; `--limit statements=N` raises it"
    for item, told, word in (
        ("variant v@ {}", "there are more than 256 variants", "v256"),
        ("published a=1", "there are more than 256 `published` statements", "published"),
    ):
        items = [item.replace("@", str(number)) for number in range(258)]
        assert checked(" ".join([NET, *items[:256]])) == []
        (found,) = checked(" ".join([NET, *items[:257]]))
        assert found[:3] == ("E0110", told, hint)
        assert found[3:] == (len(" ".join([NET, *items[:256]])) + 1 + 8 * (word == "v256"), word)


def test_a_text_that_fits_nowhere_is_not_read_to_its_end() -> None:
    (first,) = checked(f"{NET} {'} ' * MAX_SKIPPED}")
    assert first[:2] == ("E0102", "this `}` closes nothing")
    found = checked(f"{NET} {'} ' * (MAX_SKIPPED + 2)}")
    assert [(code, message) for code, message, *_ in found] == [
        ("E0110", "too much in this text fits nowhere: its rest was not read"),
        ("E0102", "this `}` closes nothing"),
    ]


def test_a_hundred_errors_of_syntax_are_told() -> None:
    found = checked(f"arch net input 8x8x3 stem {{ {'conv_o16 ' * 3} }}" + "\nfoo" * 150)
    assert [code for code, *_ in found].count("E0104") == 100
    assert [message for code, message, *_ in found if code == "E0110"] == [
        "too much in this text fits nowhere: its rest was not read"
    ]
    assert len(found) == 101


# ------------------------------------------------------------------------------------------ widths


def attributes(text: str) -> Attributes:
    return archdsl.parse(f"arch net input 8x8x3 {text} stem {{ conv_o16 }}").attributes


@pytest.mark.parametrize(
    ("rule", "value", "found"),
    [
        ("round 8", 20, 24),
        ("round 8", 19.9, 24),
        ("round 8", 18, 24),
        ("round 8", 17.7, 16),
        ("round 8", 3, 8),
        ("round 8 min=16", 3, 16),
        ("round 4", 3, 4),
        ("round 8 limit=0.5", 11, 8),
    ],
)
def test_rounded(rule: str, value: float, found: int) -> None:
    assert rounded(value, attributes(rule)) == found


def test_scaled() -> None:
    half, double = attributes("width 0.5"), attributes("width 2")
    assert [scaled(Width(48), a) for a in (half, double)] == [24, 96]
    assert [scaled(Width(48, "+"), a) for a in (half, double)] == [48, 96]
    assert [scaled(Width(50, "!"), a) for a in (half, double)] == [50, 50]
    assert scaled(Width(50, "+"), half) == 48


def test_squeezed() -> None:
    plain = attributes("se from=input")
    assert [squeezed(0.25, n, 96, plain) for n in (1, 16, 19, 20)] == [1, 4, 4, 5]
    rule = attributes("se from=expanded round=8")
    assert [squeezed(0.25, 16, n, rule) for n in (8, 96, 120)] == [8, 24, 32]
    rule = attributes("se from=input round=4")
    assert [squeezed(0.25, n, 96, rule) for n in (4, 16, 24)] == [4, 4, 8]


def test_deepened() -> None:
    assert [deepened(n, attributes("depth 1.2")) for n in (1, 2, 5, 10)] == [2, 3, 6, 12]
    assert [deepened(n, attributes("depth 0.1")) for n in (1, 9, 11)] == [1, 1, 2]


def test_a_source_is_no_longer_in_a_text_than_in_json() -> None:
    text = 'arch net source "{}" input 8x8x3 stem {{ conv_o16 }}'
    spec = archdsl.parse(text.format("x" * 1000)).spec
    assert archdsl.parse(read_json(SourceText("net.json", write_json(spec)))).spec == spec
    (found,) = archdsl.check(text.format("x" * 1001))
    assert found.code == "E0403"
    assert found.message.endswith("must have at most 1000 characters")
    assert found.span is not None and found.span.text == f'"{"x" * 1001}"'
