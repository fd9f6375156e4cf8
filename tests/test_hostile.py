"""No text, however hostile, ends in anything but diagnostics: soon, and with little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import archdsl
from archdsl.files import decode_source
from archdsl.lang.codes import CODES
from archdsl.lang.diagnostics import ArchError, Diagnostic, render
from archdsl.lang.dialects.json import read_json
from archdsl.lang.formatter import format_source
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_ERRORS

# Seconds after which a text counts as a hang: it takes under two alone on a machine, but tests do
# not run alone.
PATIENCE = 20

TESTS = Path(__file__).parent


def check_text(text: str) -> list[Diagnostic]:
    return archdsl.check(SourceText("net.arch", text))


# ------------------------------------------------------------------------------------------ texts

HEAD = "arch net\ninput 32x32x3\n"


def stem(blocks: str) -> str:
    return f"{HEAD}stem {{ {blocks} }}\n"


def many(pattern: str, count: int) -> str:
    return "".join(pattern.format(number) for number in range(count))


MEGA = 1_000_000

# A text, and the codes of which each must be said; more may be.
HOSTILE: dict[str, tuple[str, set[str]]] = {
    "empty": ("", {"E0401"}),
    "only spaces": (" " * MEGA, {"E0401"}),
    "only line ends": ("\n" * MEGA, {"E0401"}),
    "only a comment": ("# arch net", {"E0401"}),
    "comments": ("#\n" * 500_000, {"E0110"}),
    "zeros": ("\0" * 100_000, {"E0110"}),
    "zeros between": ("\0".join(stem("k3_o16")), {"E0104"}),
    "a zero in a block": (stem("k3\0_o16"), {"E0212"}),
    "a byte order mark in the middle": ("\ufeff" + stem("k3_o16"), {"E0104"}),
    "lone surrogates": ("\ud800 arch \udfff\n" + stem("k3_\ud800"), {"E0104", "E0212"}),
    "superscript digits": (stem("k3_o2²"), {"E0212"}),
    "other scripts' digits": (stem("k٣_o１６"), {"E0212"}),
    "repeats beyond all": (stem("r999999999"), {"E0207"}),
    "channels beyond all": (stem("o99999999999"), {"E0207"}),
    "a thousand digits": (stem("o" + "9" * 1000), {"E0207"}),
    "an exponent in a block": (stem("e1e400"), {"E0212"}),
    "a ratio beyond all": (stem("e" + "9" * 1000), {"E0207"}),
    "no number": (stem("k3_o16") + "width nan", {"E0403"}),
    "infinite": (stem("k3_o16") + "depth inf droppath -inf", {"E0403"}),
    "an exponent beyond all": (stem("k3_o16") + "width 1e400 norm batch eps=1e-400", {"E0403"}),
    "figures beyond all": (stem("k3_o16") + f"expect params={'9' * 1000}", {"E0403"}),
    "printed figures beyond all": (stem("k3_o16") + f"published macs={'9' * 999}", {"E0403"}),
    "an image beyond all": ("arch net input 99999999999x1x1 stem { k3_o16 }", {"E0403"}),
    "a long image": (f"arch net input {'9' * 900}x1x1 stem {{ k3_o16 }}", {"E0403"}),
    "half an image": ("arch net input 8x8 stem { k3_o16 }", {"E0403"}),
    "an image of nothing": ("arch net input 0x8x3 stem { k3_o16 }", {"E0403"}),
    "a kernel of zero": (stem("k0_o16"), {"E0207"}),
    "a stride of zero": (stem("s0_o16"), {"E0207"}),
    "a stride of zeros": (stem("s00_o16"), {"E0207"}),
    "strides of nine": (stem("s99_o16 s99_o16 s99_o16"), {"E0301"}),
    "negative numbers": (stem("k-1_o-8"), {"E0212"}),
    "negative values": (stem("k3_o16") + "width -1 classes -1 layer_scale -1", {"E0403"}),
    "squeezing twofold": (stem("se2_o16"), {"E0207"}),
    "dropping all": (stem("dropout_p1"), {"E0207"}),
    "no width": (stem("k3_o16") + "width 0", {"E0403"}),
    "everything twice": (
        2 * (stem("k3_k3_o16_o16") + "act relu norm batch eps=1 eps=1 expect macs=1 macs=1\n"),
        {"E0204", "E0402", "E0406", "E0409"},
    ),
    "words of the language as names": (
        "arch stem input input stem stem { stem } stage stage { arch } variant variant { } head",
        {"E0102", "E0103"},
    ),
    "open braces": ("{" * 200_000, {"E0110"}),
    "a megabyte of open braces": ("{" * MEGA, {"E0110"}),
    "a megabyte of closing braces": ("}" * MEGA, {"E0110"}),
    "a megabyte of parentheses": ("(" * MEGA, {"E0110"}),
    "nested choices": (stem("(" * 20_000 + "k3" + ")" * 20_000), {"E0102", "E0110"}),
    "a wide choice": (stem("( " + "k3 | " * 10_000 + "k5 )"), {"E0107"}),
    "many choices": (stem("( k3 | k5 ) " * 4000), {"E0107", "E0110"}),
    "a wide set": (stem("k{" + "3," * 100_000 + "5}"), {"E0110"}),
    "nested sets": (stem("k{{{{3}}}}" * 3000), {"E0102"}),
    "a line of a megabyte": ("a" * MEGA, {"E0110"}),
    "a block of a megabyte": (stem("k" * MEGA), {"E0110"}),
    "half a million words": ("a " * 500_000, {"E0110"}),
    "half a million lines": ("a\n" * 500_000, {"E0110"}),
    "words in their line": ("a " * 30_000, {"E0110"}),
    "words in lines": ("a\n" * 30_000, {"E0110"}),
    "too long a text": ("a" * 2_000_000, {"E0110"}),
    "equals signs": ("=" * 60_000, {"E0110"}),
    "keys": ("a = " * 15_000, {"E0110"}),
    "keys without values": ("a=\n" * 15_000, {"E0110", "E0405"}),
    "a key far from its sign": ("a" + " " * 900_000 + "=", {"E0104"}),
    "tabs": ("\t" * 400_000 + "x" + "\t" * 400_000, {"E0104"}),
    "quotes": ('"' * 500_001, {"E0110"}),
    "an open text": (stem("k3_o16") + 'source "' + "a" * 900_000, {"E0105"}),
    "open texts": ('source "a\n' * 10_000, {"E0105", "E0110"}),
    "open settings": ('published a="b\n' * 8000, {"E0105", "E0110"}),
    "100,000 stages": (HEAD + "stage { k3_o16 }\n" * 60_000, {"E0110"}),
    "stages within the words": (HEAD + many("stage a{} {{ k3_o16 }}\n", 5000), {"E0110"}),
    "stages of one name": (HEAD + "stage a { k3_o16 }\n" * 5000, {"E0110", "E0407"}),
    "100,000 blocks": (stem("r1000 " * 100_000), {"E0110"}),
    "blocks within the words": (stem("r1000_o16 " * 30_000), {"E0110"}),
    "depth and repeats": (HEAD + "depth 64 stage { r1000_o16 }", {"E0110"}),
    "faulty blocks": (stem("q1 " * 30_000), {"E0110", "E0202"}),
    "different faulty blocks": (stem(many("q{} ", 30_000)), {"E0110", "E0202"}),
    "different unknown kinds": (stem(many("abcdefgh{}x_k3 ", 10_000)), {"E0110"}),
    "fields of a block": (stem("_".join(["relu"] * 200)), {"E0110", "E0204"}),
    "nothing but joints": (stem("_" * 1000), {"E0212"}),
    "unknown statements": (many("foo{} bar\n", 10_000), {"E0104", "E0110"}),
    "unknown sections": (many("foo{} {{ k4 }}\n", 5000), {"E0104", "E0110"}),
    "statements again": (HEAD + "act relu\n" * 15_000, {"E0110", "E0402"}),
    "keys again": (stem("k3_o16") + "norm batch " + "eps=1 " * 15_000, {"E0110", "E0409"}),
    "unknown keys": (stem("k3_o16") + "norm batch " + many("epx{}=1 ", 15_000), {"E0110", "E0404"}),
    "expectations": (stem("k3_o16") + "expect macs=1\n" * 9000, {"E0110", "E0402"}),
    "publications": (stem("k3_o16") + "published macs=9M\n" * 9000, {"E0110"}),
    "variants": (stem("k3_o16") + many("variant a{} {{ }}\n", 8000), {"E0110"}),
    "as many different blocks as fit": (
        stem(" ".join(f"mha_h1_d{depth}_kv2_o8" for depth in range(1, 2700))),
        {"E0110"},
    ),
    "nearly as many, in variants": (
        stem(" ".join(f"mha_h1_d{depth}_kv2_o8" for depth in range(1, 1000)))
        + many("variant a{} {{ }}\n", 2).replace("{ }", "{ width=1.1 }", 1),
        {"E0110"},
    ),
    "variants of one name": (stem("k3_o16") + "variant a { }\n" * 8000, {"E0110", "E0501"}),
    "publications of variants": (
        stem("k3_o16") + many("variant a{} {{ " + "published macs=9M " * 60 + "}}\n", 100),
        {"E0110"},
    ),
    "open sections": ("stem {\n" * 15_000, {"E0103", "E0110"}),
    "sections without braces": ("stage a\n" * 15_000, {"E0103", "E0110"}),
    "open variants": ("variant a {\n" * 10_000, {"E0103", "E0110"}),
    "words in the place of variants' statements": (
        stem("k3_o16") + "variant a b c { } variant a{} b{} variant variant",
        {"E0102", "E0103"},
    ),
    "unknown sections with long names": (
        "foo " + "b" * 500 + " { k3 } " * 3000,
        {"E0102", "E0104"},
    ),
    "four thousand wrong declarations": (
        HEAD + "stage { conv_k1_i9_o16_nonorm_linear }\n" * 4000,
        {"E0203"},
    ),
    "four thousand rounded widths": (
        HEAD + "stage { conv_o20_k1_nonorm_linear }\n" * 4000,
        {"W0502"},
    ),
    "terminal escapes": (
        "arch net\ninput 32x32x3\nact \x1b[31mrelu\nvariant \x1b[1m { act \x1b[5m }\n"
        "variant \x1b[1m { }\nstage \x1b[3m { k3\x1b }\nstage \x1b[3m { k4 }\n"
        "norm batch eps=\x1b[3m \x1b[4m=3\npublished macs=\x1b[2J\nexpect macs=\x9b",
        {"E0212", "E0403", "E0404", "E0405", "E0407", "E0408"},
    ),
    "terminal escapes in a source": (
        stem("k3_o16") + 'published macs=1M source="\x1b[31m\x1b]0;x\x07\u202e\x9b"',
        {"W0501"},
    ),
    "other directions": (
        stem("\u202ek3\u2066") + "act \u202erelu\npad \u200bsame",
        {"E0212", "E0403"},
    ),
    "spaces of all kinds": ("\x0b\x0c\x1c\x1d\x85\u2028\u00a0" * 1000 + "foo", {"E0104"}),
    "carriage returns": (stem("k4_o16").replace("\n", "\r"), {"E0209"}),
}

RAW = re.compile(
    "[\0-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_ends_in_diagnostics(name: str) -> None:
    text, wanted = HOSTILE[name]
    started = time.process_time()
    found = check_text(text)
    seconds = time.process_time() - started
    assert wanted <= {diagnostic.code for diagnostic in found}
    assert seconds < PATIENCE
    assert len(found) <= MAX_ERRORS + 1 or {d.code for d in found} <= {"E0203", "W0502"}
    for diagnostic in found:
        span = diagnostic.span
        assert span is not None and 0 <= span.start <= span.end <= len(text)
    shown = "".join(map(render, found)) + json.dumps(
        [d.to_json() for d in found], ensure_ascii=False
    )
    assert not RAW.search(shown)
    # Whether it is parsed or formatted: the same errors, and no other exception.
    for read in (archdsl.parse, lambda text: format_source(SourceText("net.arch", text))):
        try:
            read(text)
        except ArchError as error:
            assert not RAW.search(str(error))


@pytest.mark.skipif(sys.platform != "linux", reason="the bound on memory is Linux's")
def test_hostile_text_takes_two_seconds_and_300_megabytes_at_most() -> None:
    """In a process that has no more; seconds of its own, however busy the machine is."""
    program = (
        "import resource, sys, time; sys.path.insert(0, sys.argv[1]); import test_hostile as t\n"
        "resource.setrlimit(resource.RLIMIT_AS, (300_000_000, 300_000_000))\n"
        "for name, (text, _) in t.HOSTILE.items():\n"
        "    started = time.process_time()\n"
        "    t.check_text(text)\n"
        "    seconds = time.process_time() - started\n"
        "    if seconds > 2: print(f'{name}: {seconds:.1f} s')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(TESTS)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def test_windows_line_ends_are_no_fault() -> None:
    text = (TESTS.parent / "architectures" / "mnv2.arch").read_text(encoding="utf-8")
    assert check_text(text.replace("\n", "\r\n")) == check_text(text) == []


def test_a_byte_order_mark_at_the_start_of_a_file_is_no_fault() -> None:
    source = decode_source("net.arch", "\ufeff".encode() + stem("k3_o16").encode())
    assert archdsl.check(source) == []


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b"arch n\xe9t", b"\xed\xa0\x80", b"\xf8", b"\xc0\x80"]
)
def test_bytes_that_are_not_utf8_have_a_place(data: bytes) -> None:
    with pytest.raises(ArchError) as caught:
        decode_source("net.arch", data)
    (found,) = caught.value.diagnostics
    assert found.code == "E0106"
    assert found.span is not None and found.span.text == "\N{REPLACEMENT CHARACTER}"


# ------------------------------------------------------------------------ blocks, streams and JSON


@cache
def coster() -> archdsl.Coster:
    return archdsl.Coster(archdsl.load("mnv2"))


@pytest.mark.parametrize(
    "text",
    [
        *["", " ", "\0", "k3 k5", " k3", "k3\n", "_", "_" * 1000, "k" * 5000, "k3_" * 400, "stem"],
        *[
            "( k3 | k5 )",
            "k{3,5}",
            "\ud800",
            "\x1b[31m",
            "\u202e",
            "{",
            "k3#c",
            '"k3"',
            "k٣",
            "a=3",
        ],
        *[
            "dropout",
            "mqa",
            "k4",
            "k0",
            "s00",
            "uib_s22",
            "e4_x4",
            "o1!!",
            "k3_ir",
            "r1001",
            "e1e9",
        ],
    ],
)
def test_hostile_blocks_end_in_diagnostics(text: str) -> None:
    for read in (archdsl.block, lambda text: coster()([text])):
        with pytest.raises(ArchError) as caught:
            read(text)
        assert not RAW.search(str(caught.value))
        for found in caught.value.diagnostics:
            assert found.code in CODES
            assert found.span is not None and found.span.source.text == text


@pytest.mark.parametrize(
    ("blocks", "code", "place"),
    [
        (["k3_o24", "i16"], "E0203", "<block 2>"),
        (["pool", "fc_o10", "k3_o16"], "E0307", "<block 3>"),
        (["s99", "s99", "s99"], "E0301", "<block 3>"),
        (["fc"], "E0302", "<block 1>"),
    ],
)
def test_errors_of_a_stream_name_the_block(blocks: list[str], code: str, place: str) -> None:
    with pytest.raises(ArchError) as caught:
        coster()(blocks)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert found.span is not None and found.span.source.name == place


def json_with(block: str) -> str:
    return f'{{"name": "net", "attributes": {{"input": [8, 8, 3]}}, "stem": [{block}]}}'


HOSTILE_JSON = {
    "empty": "",
    "a space": " ",
    "null": "null",
    "a number": "3",
    "a text": '"arch net"',
    "an array": "[]",
    "an object": "{}",
    "a zero": "\0",
    "a byte order mark": "\ufeff{}",
    "a surrogate": "\ud800",
    "cut off": '{"name": ',
    "two values": "{} {}",
    "deep arrays": "[" * 100_000,
    "deep objects": '{"a": ' * 100_000,
    "deep in a block": json_with('{"kind": "ir", "kernel": ' + "[" * 400 + "]" * 400 + "}"),
    "an integer of 5,000 digits": json_with('{"kind": "ir", "kernel": ' + "9" * 5000 + "}"),
    "an integer of 4,000 digits": json_with('{"kind": "ir", "kernel": ' + "9" * 4000 + "}"),
    "a float beyond all": json_with('{"kind": "ir", "expansion": 1e999}'),
    "no number": json_with('{"kind": "ir", "expansion": NaN}'),
    "infinite": json_with('{"kind": "ir", "expansion": -Infinity}'),
    "a key twice": '{"name": "a", "name": "b"}',
    "truth for a kernel": json_with('{"kind": "ir", "kernel": true}'),
    "an array for a width": json_with('{"kind": "ir", "out_channels": [16]}'),
    "a fraction for a width": json_with('{"kind": "ir", "out_channels": 16.5}'),
    "three strides": json_with('{"kind": "ir", "stride": [2, 2, 2]}'),
    "an object for a stride": json_with('{"kind": "ir", "stride": {}}'),
    "no kind": json_with("{}"),
    "a number for a kind": json_with('{"kind": 3}'),
    "an array for a kind": json_with('{"kind": []}'),
    "an escape for a kind": json_with('{"kind": "\\u001b[31m"}'),
    "a block string": json_with('"k3_o16"'),
    "a key of a surrogate": json_with('{"kind": "ir", "\\ud800": 3}'),
    "negative numbers": json_with('{"kind": "ir", "kernel": -3, "repeats": -1}'),
    "an even kernel": json_with('{"kind": "ir", "kernel": 4}'),
    "both widths": json_with('{"kind": "ir", "expanded": 8, "expansion": 3}'),
    "no name": '{"attributes": {"input": [8, 8, 3]}}',
    "a bad name": '{"name": "A b", "attributes": {"input": [8, 8, 3]}}',
    "a name with a line end": '{"name": "a\\n", "attributes": {"input": [8, 8, 3]}}',
    "a source with a quote": '{"name": "a", "source": "\\"", "attributes": {"input": [8, 8, 3]}}',
    "an array for attributes": '{"name": "a", "attributes": []}',
    "wrong attributes": '{"name": "a", "attributes": {"input": 8, "act": 5, "norm": []}}',
    "wrong figures": '{"name": "a", "attributes": {"input": [8, 8, 3]}, "expect": {"macs": -1}}',
    "half a million numbers": "[" + "1," * 400_000 + "1]",
    "60,000 keys": "{" + many('"a{}": 1, ', 60_000) + '"b": 1}',
    "40,000 wrong blocks": json_with(", ".join(['{"kind": "ir", "q": 1}'] * 40_000)),
    "60,000 keys and one twice": "{" + many('"a{}": 1, ', 60_000) + '"a59999": 1}',
    "escapes for a key": json_with('{"kind": "ir", "\\u001b[31m": 3}'),
    "wrong blocks behind right ones": json_with(
        '{"kind": "ir"}, ' * 40_000 + ", ".join(['{"kind": "ir", "q": 1}'] * 200)
    ),
    "too long a text": " " * 2_000_000,
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_ends_in_diagnostics(name: str) -> None:
    text = HOSTILE_JSON[name]
    started = time.process_time()
    with pytest.raises(ArchError) as caught:
        read_json(SourceText("net.json", text))
    assert time.process_time() - started < PATIENCE
    assert not RAW.search(str(caught.value))
    for found in caught.value.diagnostics:
        assert found.code in {"E0110", "E0601", "E0602"}
        span = found.span
        assert span is not None and 0 <= span.start <= span.end <= max(len(text), 1)


def test_json_nested_to_any_depth_ends_in_diagnostics() -> None:
    for depth in range(150, 1100):
        nested = "[" * depth + "]" * depth
        for text in (json_with(nested), json_with(f'{{"kind": "ir", "kernel": {nested}}}')):
            with pytest.raises(ArchError):
                read_json(SourceText("net.json", text))


def test_unknown_keys_of_json_are_underlined() -> None:
    with pytest.raises(ArchError) as caught:
        read_json(SourceText("net.json", json_with('{"kind": "ir", "kernel_size": 3}')))
    (found,) = caught.value.diagnostics
    assert found.span is not None and found.span.text == '"kernel_size"'


def test_names_reach_the_terminal_without_escapes() -> None:
    (found,) = archdsl.check(SourceText("\x1b[31mnet.arch", stem("k4_o16")))
    assert not RAW.search(render(found))
    with pytest.raises(ArchError) as caught:
        archdsl.load("mnv2", variant="\x1b[31m")
    assert not RAW.search(str(caught.value))


def test_a_fact_that_is_no_word_is_printed_in_quotes() -> None:
    text = stem("k3_o16") + 'published note="0{}" other="a=b"'
    spec = archdsl.parse(text).spec
    assert archdsl.parse(archdsl.parse(text).to_text()).spec == spec


@pytest.mark.parametrize(
    "text",
    [
        many("stage a{} {{ k3_o16 }} # c\n", 5000),
        "stage a { k3_o16 } " * 6000 + "# c",
        "act relu\n" * 10_000 + "# c",
        stem("k3_o16 " * 30_000 + "# c\n"),
        "# c\n" * 30_000,
    ],
    ids=["stages and comments", "stages", "statements", "blocks", "comments"],
)
def test_formatting_takes_no_longer_than_its_text(text: str) -> None:
    started = time.process_time()
    format_source(SourceText("net.arch", text))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"width": 0}, "more than 0"),
        ({"width": -1.0}, "more than 0"),
        ({"width": float("nan")}, "finite"),
        ({"width": 1e9}, "at most 64"),
        ({"width": 10**400}, "at most 64"),
        ({"width": "wide"}, "number"),
        ({"input": (0, 8, 3)}, "from 1"),
        ({"input": (8, 8)}, "HEIGHTxWIDTHxCHANNELS"),
        ({"input": "8x8"}, "HEIGHTxWIDTHxCHANNELS"),
        ({"input": 8}, "HEIGHTxWIDTHxCHANNELS"),
        ({"input": (8.5, 8, 3)}, "HEIGHTxWIDTHxCHANNELS"),
        ({"classes": 0}, "at least 1"),
        ({"classes": 1.5}, "whole number"),
        ({"variant": "3000"}, "no variant"),
    ],
)
def test_impossible_overrides_end_in_diagnostics(override: dict[str, object], said: str) -> None:
    load: Callable[..., object] = archdsl.load
    with pytest.raises(ArchError, match=said):
        load("mnv2", **override)
