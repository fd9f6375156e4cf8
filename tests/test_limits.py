"""Limits: each names itself, is checked before anything is built, and can be raised."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl import limits
from archdsl.cli.program import program
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.source import SourceText
from archdsl.limits import HIGHEST, RAISABLE, most, raised

HEAD = "arch net input 32x32x3 "


def stem(blocks: str, more: str = "") -> str:
    return f"{HEAD}{more} stem {{ {blocks} }}\n"


# For each limit that can be raised: a text beyond it, and a value with which it is within. Where
# other limits bound the same, these are raised before.
BEYOND: dict[str, tuple[str, int]] = {
    "text": (stem("k3_o16") + " " * (1 << 20), 1 << 21),
    "tokens": (stem("k3_o16") + "#\n" * 40_000, 100_000),
    "word": (stem(f"e2.{'0' * 900}_se0.25{'0' * 900}_o16"), 3000),
    "statements": (stem("k3_o16") + "published top1=3\n" * 300, 300),
    "blocks": (stem("dw_r1000_nonorm_linear " * 5), 5000),
    "repeats": (stem("r1001_o16"), 1001),
    "kernel": (stem("k33_o16"), 33),
    "channels": (stem("conv_o1048577"), 1 << 21),
    "side": ("arch net input 32769x9x3 stem { conv_s9_o1 }", 32_769),
    "expansion": (stem("e128.5"), 129),
    "heads": (stem("mqa_h1025_d1"), 1025),
    "classes": (f"{HEAD} classes 16777217 head {{ pool fc }}", 1 << 25),
    "scale": (stem("k3_o16", "width 65"), 65),
    "operators": (stem("mha_r1000_h1_d1_kv2_ls"), 100_000),
    "params": (stem("conv_o65536 conv_o65536"), HIGHEST),
    "weight_bytes": (stem("conv_o65536 conv_o65536"), HIGHEST),
    "activation_bytes": ("arch net input 32768x32768x3 stem { conv_o64 }", HIGHEST),
    "macs": ("arch net input 2048x2048x3 stem { conv_o1024 conv_k31_o1024 }", HIGHEST),
}
BEFORE = {"weight_bytes": {"params": HIGHEST}}
EACH = pytest.mark.parametrize("name", BEYOND)


def faults(text: str) -> list[Diagnostic]:
    with pytest.raises(ArchError) as caught:
        archdsl.parse(text)
    return caught.value.diagnostics


def test_every_limit_that_can_be_raised_has_a_text() -> None:
    # `steps` is of search spaces: tests/test_space.py
    assert {*BEYOND, "steps"} == set(RAISABLE)


@EACH
def test_a_value_beyond_a_limit_is_told_at_once_with_its_name_and_value(name: str) -> None:
    text, _ = BEYOND[name]
    started = time.process_time()
    with raised(**BEFORE.get(name, {})):
        (found,) = faults(text)
    assert time.process_time() - started < 2
    assert found.span is not None and found.span.text
    assert found.help == f"the limit `{name}` is {most(name):,}; `--limit {name}=N` raises it"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (stem("k3_o16", "width 1e400"), "scale"),
        (stem("k3_o16", f"depth {'9' * 999}"), "scale"),
        (stem("k3_o16", f"classes {'9' * 60}"), "classes"),
        (stem("r999999999_o16"), "repeats"),
        (stem(f"r{'9' * 300}_o16"), "repeats"),
        (stem("conv_o99999999999"), "channels"),
        (stem(f"conv_o{'9' * 99}"), "channels"),
        (stem(f"conv_o{'9' * 400}!"), "channels"),
        (stem(f"e{'9' * 400}.5_o16"), "expansion"),
        (stem(f"k{'9' * 50}_o16"), "kernel"),
        (stem(f"mqa_h{'9' * 50}_d1"), "heads"),
        (f"arch net input {'9' * 30}x9x3 stem {{ conv_o1 }}", "side"),
        (f"arch net input 9x9x{'9' * 600} stem {{ conv_o1 }}", "channels"),
    ],
    ids=lambda text: text if len(text) < 20 else f"…{text[22:50]}",
)
def test_numbers_beyond_all_numbers_are_beyond_their_limit(text: str, name: str) -> None:
    """Where neither a whole number nor a float holds what is written."""
    (found,) = faults(text)
    assert found.help == f"the limit `{name}` is {most(name):,}; `--limit {name}=N` raises it"


@pytest.mark.parametrize("value", ["1e400", "9" * 60, "9" * 4200])
def test_vast_numbers_in_json(value: str) -> None:
    text = write_json(archdsl.parse(stem("conv_o16", "width 0.5")).spec)
    for key, old, name in (("width", "0.5", "scale"), ("out_channels", "16", "channels")):
        changed = text.replace(f'"{key}": {old}', f'"{key}": {value}')
        assert changed != text
        with pytest.raises(ArchError) as caught:
            read_json(SourceText("net.json", changed))
        (found,) = caught.value.diagnostics
        assert found.help == f"the limit `{name}` is {most(name):,}; `--limit {name}=N` raises it"


@EACH
def test_a_raised_limit_holds_inside_alone(name: str) -> None:
    text, value = BEYOND[name]
    # What is beyond the one of these two is beyond the other.
    before = {"weight_bytes": HIGHEST} if name == "params" else BEFORE.get(name, {})
    with raised(**before):
        faults(text)
        with raised(**{name: value}):
            inside = archdsl.parse(text)
            assert archdsl.parse(inside.to_text()).spec == inside.spec
        # What is remembered of the text, its blocks and attributes is not taken for valid here.
        (found,) = faults(text)
    assert f"`{name}`" in str(found.help)


def test_remembered_faults_are_not_kept_either() -> None:
    text = stem("r1001_k5_o16")
    for _ in range(2):
        faults(text)
        with raised(repeats=1001):
            assert len(archdsl.parse(text).placed[0].run.units) == 1001


def test_blocks_beyond_the_limit_are_counted_anew_when_it_is_raised() -> None:
    """A run of too many repeats is cut short, and remembered so."""
    text = f"{HEAD} depth 8 stage {{ dw_r1000_k3_nonorm_linear }}"
    faults(text)
    with raised(blocks=8000):
        assert len(archdsl.parse(text).placed[0].run.units) == 8000


def test_a_coster_holds_to_the_limits_of_each_call() -> None:
    coster = archdsl.Coster(archdsl.load("mnv2"))
    stream = ["r1001_k3_o16"]
    with pytest.raises(ArchError, match="at most 1000"):
        coster(stream)
    with raised(repeats=2000):
        cost = coster(stream)
        assert cost == coster(stream)
        with raised(repeats=3000):
            assert coster(stream) == cost
    with pytest.raises(ArchError, match="`repeats`"):
        coster(stream)


def test_a_coster_refuses_networks_beyond_a_limit() -> None:
    coster = archdsl.Coster(archdsl.load("mnv2"))
    with pytest.raises(ArchError, match="parameters"):
        coster(["conv_o65536", "conv_o65536"])


@pytest.mark.parametrize("image", ["9x32769x3", "32769x9x3", "9x9x1048577", "0x9x3", "9x9x0"])
def test_an_image_beyond_its_limits_is_told_both(image: str) -> None:
    (found,) = faults(f"arch net input {image} stem {{ conv_s9_o1 }}")
    sides = "sides must be from 1 to 32768 pixels, channels from 1 to 1048576"
    assert found.message == f"`{image}`: {sides}"
    beyond = "side" if "32769" in image else "channels" if "1048577" in image else None
    assert (found.help or "").startswith(f"the limit `{beyond}` is" if beyond else "")
    assert (found.help is None) == (beyond is None)


def test_overrides_are_held_to_the_limits() -> None:
    with pytest.raises(ArchError, match="limit `scale` is 64"):
        archdsl.load("mnv2", width=65)
    with pytest.raises(ArchError, match="limit `side` is 32,768"):
        archdsl.load("mnv2", input=(40_000, 8, 3))
    with raised(scale=70):
        assert archdsl.parse(stem("k3_o16"), width=65).attributes.width == 65


def test_json_beyond_a_limit() -> None:
    with raised(repeats=2000):
        text = write_json(archdsl.parse(stem("r2000_o8")).spec)
        assert "r2000" in read_json(SourceText("net.json", text)).text
    with pytest.raises(ArchError) as caught:
        read_json(SourceText("net.json", text))
    (found,) = caught.value.diagnostics
    assert found.help == "the limit `repeats` is 1,000; `--limit repeats=N` raises it"


def test_limits_are_those_of_a_thread() -> None:
    found: list[int] = []
    with raised(repeats=2000):
        thread = threading.Thread(target=lambda: found.append(most("repeats")))
        thread.start()
        thread.join()
    assert (found, most("repeats")) == ([limits.MAX_REPEATS], limits.MAX_REPEATS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stride": 12}, "no limit 'stride'"),
        ({"errors": 1000}, "no limit 'errors'"),
        ({"repeats": 999}, "from 1,000"),
        ({"repeats": HIGHEST + 1}, "to 9,007,199,254,740,992"),
        ({"repeats": 2e3}, "whole number"),
        ({"repeats": True}, "whole number"),
        ({"repeats": "2000"}, "whole number"),
    ],
)
def test_what_cannot_be_raised(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said), raised(**wrong):
        pass
    assert limits.in_force() == ()


# ------------------------------------------------------------------------------ the command line


def run(*words: str, stdin: str = "") -> Result:
    return CliRunner().invoke(program, words, input=stdin, prog_name="archdsl")


COMMANDS = ["check -", "cost - --json", "show -", "convert - --to json", "sweep - --json"]
COMMANDS += ["compile - --to torch -o -", "weights init - -o -"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_raises_limits(command: str) -> None:
    text = stem("r1001_k1_o8")
    assert run(*command.split(), stdin=text).exit_code == 1
    result = run(*command.split(), "--limit", "repeats=1_001", stdin=text)
    assert result.exit_code == 0, result.stderr
    assert limits.in_force() == ()


def test_overrides_of_a_command_are_held_to_raised_limits() -> None:
    words, text = ("cost", "-", "--json", "--width", "65"), stem("conv_k1_o8")
    assert run(*words, stdin=text).exit_code == 2
    # Wherever it stands.
    for asked in ([*words, "--limit", "scale=65"], ["cost", "--limit=scale=65", *words[1:]]):
        result = run(*asked, stdin=text)
        assert json.loads(result.stdout)["params"] == 3 * 520 + 2 * 520


def test_fmt_raises_limits() -> None:
    text, value = BEYOND["tokens"]
    assert run("fmt", "-", stdin=text).exit_code == 1
    assert run("fmt", "-", "--limit", f"tokens={value}", stdin=text).exit_code == 0


@pytest.mark.parametrize(
    "word",
    ["repeats", "repeats=", "repeats=x", "repeats=-1", "repeats=10", "stride=12", "=3", "²=²"],
)
def test_limits_that_are_none(word: str) -> None:
    result = run("check", "mnv2", "--limit", word)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--limit" in result.stderr and "Traceback" not in result.stderr
