"""What bounds the notations of other libraries: the limits to the letter, and their names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_dialects_golden import CASES

import archdsl
from archdsl import ArchError, dialects, limits
from archdsl.lang.dialects.json import json_schema
from archdsl.lang.dialects.mnasnet import write_mnasnet
from archdsl.lang.dialects.ofa_write import write_ofa
from archdsl.lang.dialects.reading import arch_name
from archdsl.lang.dialects.timm import scaled_depth
from archdsl.lang.dialects.timm_write import write_timm
from archdsl.lang.source import SourceText
from archdsl.limits import raised

WRITERS = {"mnasnet": write_mnasnet, "ofa": write_ofa, "timm": write_timm}


def said(text: str, dialect: str) -> list[tuple[str, str, str | None]]:
    """The faults of a text: code, message, help."""
    try:
        dialects.read(SourceText("net.x", text), dialect)
    except ArchError as error:
        return [(found.code, found.message, found.help) for found in error.diagnostics]
    return []


def helped(name: str, value: str) -> str:
    return f"the limit `{name}` is {value}; `--limit {name}=N` raises it"


def net_config(blocks: int = 0, **more: Any) -> str:
    block = {"conv": {"name": "MBConvLayer", "in_channels": 8, "out_channels": 8}, "shortcut": None}
    data = {
        "name": "ProxylessNASNets",
        "first_conv": {"name": "ConvLayer", "in_channels": 3, "out_channels": 8},
        "blocks": [{"name": "ResidualBlock", **block}] * blocks,
        "feature_mix_layer": None,
        "classifier": {"name": "LinearLayer", "in_features": 8, "out_features": 5},
    }
    return json.dumps(data | more)


TEXTS = {
    "json": '{"name": "net", "attributes": {"input": [8, 8, 3]}}',
    "mnasnet": "r1_k3_s11_e1_i8_o8",
    "ofa": net_config(),
    "timm": "[['ds_r1_k3_s1_c8']]",
}


@pytest.mark.parametrize("dialect", TEXTS)
def test_the_longest_text(dialect: str) -> None:
    for text in {TEXTS[dialect], TEXTS["timm"]} if dialect == "mnasnet" else {TEXTS[dialect]}:
        longest = text + " " * ((1 << 20) - len(text))
        assert "E0110" not in [code for code, _, _ in said(longest, dialect)]
        ((code, message, help),) = said(longest + "\n", dialect)
        with pytest.raises(ArchError, match=r"net\.x:1:1\n"):
            dialects.read(SourceText("net.x", longest + "\n"), dialect)
        assert (code, help) == ("E0110", helped("text", "1,048,576"))
        if dialect == "mnasnet" and text != TEXTS["timm"]:
            assert message == "the text has more than 1,048,576 characters"
        else:
            assert message == "the text has 1,048,577 characters; the limit is 1,048,576"
    assert said(TEXTS[dialect] + " " * (1 << 20), dialect)
    with raised(text=1 << 21):
        assert not said(TEXTS[dialect] + " " * (1 << 20), dialect)


@pytest.mark.parametrize("dialect", ["ofa", "timm"])
def test_the_most_words_and_signs(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Brackets, numbers and the commas between them; spaces and comments do not count."""
    monkeypatch.setitem(limits._DEFAULTS, "tokens", 1_201)
    most = "[" + "1,   " * 599 + "1 ]"
    beyond = [("E0110", "the text has more than 1,201 words and signs", helped("tokens", "1,201"))]
    assert said(most, dialect) != beyond
    if dialect == "timm":
        assert said(f"# {most}\n{most} # {most}", dialect) != beyond
    assert said(most.replace("1 ]", "1, 1]"), dialect) == beyond
    with pytest.raises(ArchError) as caught:
        dialects.read(SourceText("net.x", most.replace("1 ]", "1, 22]")), dialect)
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert found.span.text == "22"
    with raised(tokens=1_203):
        assert said(most.replace("1 ]", "1, 1]"), dialect) != beyond


@pytest.mark.parametrize(
    ("text", "place"),
    [("", (0, 1)), ("[", (0, 1)), ("[1", (1, 2)), ("[\n", (1, 2)), ("@", (0, 1)), ('"a', (0, 1))],
)
def test_a_fault_at_the_end_of_a_text_is_shown_at_its_last_sign(
    text: str, place: tuple[int, int]
) -> None:
    with pytest.raises(ArchError) as caught:
        dialects.read(text, "ofa")
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert (found.span.start, found.span.end) == place


def test_the_schema_says_what_it_is_of() -> None:
    assert json_schema()["title"] == "archdsl architecture"


@pytest.mark.parametrize("brackets", ["[]", "()", "{}"])
def test_the_deepest_nesting(brackets: str) -> None:
    opening, closing = ('{"a":', "}") if brackets == "{}" else (brackets[0], brackets[1])
    for depth in (31, 32, 33):
        text = opening * depth + "1," * (brackets == "()") + closing * depth
        text = text.replace("1,", "'',")
        if brackets == "{}":
            text = text.replace(":}", ":1}")
        (first, *_) = said(text, "timm")
        assert (first[1] == "this is not a Python literal or JSON: too deeply nested") == (
            depth > 32
        )
    # Beside one another they may stand as many as they like.
    assert "nested" not in said(f"[{'[[]], ' * 40}]", "timm")[0][1]


def test_the_longest_block_string() -> None:
    """1,024 characters, of which most stand for a name that fits nowhere."""
    for length, code in ((1024, "E0202"), (1025, "E0212")):
        word = "ds_r1_k3_s1_c8_"
        text = json.dumps([[word + "z" * (length - len(word))]])
        assert [found[0] for found in said(text, "timm")] == [code]
    with raised(word=2000):
        assert said(text, "timm")[0][0] == "E0202"


@pytest.mark.parametrize("dialect", ["mnasnet", "ofa", "timm"])
def test_the_most_blocks(dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits._DEFAULTS, "blocks", 20)

    def text(count: int, *before: str) -> str:
        if dialect == "ofa":
            return net_config(count, **dict.fromkeys(before, 1))
        repeats, rest = ("_k3_s11_e1_i8_o8", "") if dialect == "mnasnet" else ("_k1_s1_c8", "cn_")
        blocks = [*before, f"{rest}r9{repeats}", f"{rest}r{count - 9}{repeats}"]
        return json.dumps([blocks] if dialect == "timm" else blocks)

    beyond = ("E0110", "the network has more than 20 blocks", helped("blocks", "20"))
    assert not said(text(20), dialect)
    assert said(text(21), dialect) == [beyond]
    # What was found before is told as well.
    assert len(said(text(21, "z"), dialect)) == 2
    assert beyond in said(text(21, "z"), dialect)
    with pytest.raises(ArchError) as caught:
        dialects.read(text(21), dialect)
    (found,) = caught.value.diagnostics
    assert found.span is not None
    shown = {"mnasnet": "r12", "ofa": '{"name": "ResidualBlock", "conv"', "timm": "r12"}[dialect]
    assert found.span.text.startswith(shown)
    with raised(blocks=21):
        assert not said(text(21), dialect)


@pytest.mark.parametrize("dialect", ["mnasnet", "ofa", "timm"])
def test_the_most_faults(dialect: str) -> None:
    """A hundred are shown, and that there are more."""

    def text(count: int) -> str:
        if dialect == "ofa":
            return net_config(**{f"key{number}": 1 for number in range(count)})
        kind, rest = ("", "r1_k3_s11_e1_i8_o8_z") if dialect == "mnasnet" else ("[", "cn_z")
        return f"[{kind}{', '.join([repr(rest)] * count)}]{']' * bool(kind)}"

    assert len(said(text(100), dialect)) == 100
    for count in (101, 150):
        found = said(text(count), dialect)
        assert len(found) == 101
        more = ("E0110", "the text has more than 100 errors: the others are not shown", None)
        assert found[-1] == more


def test_the_most_faults_of_json() -> None:
    data = {f"key{number}": 1 for number in range(150)}
    assert len(said(json.dumps(data), "json")) == 100


def test_json_that_is_too_deep_to_be_read() -> None:
    deep = "[" * 100_000 + "]" * 100_000
    says = "this is not JSON that can be read: too deeply nested"
    assert said(f'{{"name": {deep}}}', "json") == [("E0601", says, None)]


def test_json_with_a_key_of_many_letters_that_stands_twice() -> None:
    key = "k" * 200
    ((code, message, _),) = said(f'{{"{key}": 1, "{key}": 2}}', "json")
    assert code == "E0601"
    assert message == (
        f"this is not JSON that can be read: the key `{key[:39]}…` stands twice in one object"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("EfficientNet-B0", "efficientnet_b0"),
        ("  --A  b--  ", "a_b"),
        ("mnas_net", "mnas_net"),
        ("é", "net"),
        ("aéb", "a_b"),
        ("", "net"),
        ("<stdin>", "net"),
        ("a<b", "a_b"),
        ("2net", "net_2net"),
        ("_2", "net_2"),
        ("stage", "stage_net"),
        ("head", "head_net"),
        ("Width", "width_net"),
        ("variant", "variant_net"),
        ("variants", "variants"),
        ("x" * 99, "x" * 56),
        ("9" * 99, "net_" + "9" * 56),
        ("x" * 55 + "- y", "x" * 55),
    ],
)
def test_names_of_networks(text: str, name: str) -> None:
    assert arch_name(text) == name
    archdsl.parse(f"arch {name} input 8x8x3 stem {{ conv_k3_o8 }}")


@pytest.mark.parametrize("dialect", ["mnasnet", "ofa", "timm"])
def test_a_network_has_its_files_name(dialect: str) -> None:
    for file, name in (("a/Net 1.json", "net_1"), ("<stdin>", "net"), ("2", "net_2")):
        read = dialects.read(SourceText(file, TEXTS[dialect]), dialect)
        assert archdsl.parse(read).name == name
        assert read.name == f"{file} (as .arch)"
    module = {"mnasnet": "read_mnasnet", "ofa": "read_ofa", "timm": "read_timm"}[dialect]
    read = getattr(dialects, module)(TEXTS[dialect])
    assert read.name == "<string> (as .arch)"
    assert read.text == dialects.read(TEXTS[dialect], dialect).text


@pytest.mark.parametrize(
    ("repeats", "multiplier", "trunc", "found"),
    [
        ([1], 1.0, "ceil", [1]),
        ([3], 1.0, "round", [3]),
        ([1, 2], 1.1, "ceil", [1, 3]),
        ([1, 2], 1.1, "round", [1, 2]),
        ([4], 1.4, "ceil", [6]),
        ([5], 1.5, "round", [8]),
        ([4, 4], 0.5, "ceil", [2, 2]),
        ([4, 4], 0.1, "round", [1, 1]),
        ([1], 0.1, "round", [1]),
        ([1, 1, 1], 0.1, "ceil", [1, 1, 1]),
        ([2, 3, 4], 1.8, "ceil", [4, 5, 8]),
        ([2, 3, 4], 2.2, "round", [4, 7, 9]),
        ([1, 10], 0.3, "ceil", [1, 4]),
        ([10, 1], 0.3, "ceil", [3, 1]),
        ([1, 7, 2], 3.1, "ceil", [3, 22, 6]),
    ],
)
def test_depths_are_shared_out_as_timm_does(
    repeats: list[int], multiplier: float, trunc: str, found: list[int]
) -> None:
    """From the last block to the first, each by its share of what is left, at least one."""
    assert scaled_depth(repeats, multiplier, trunc) == found


WRITTEN = [(page, case) for page, case in CASES if case["to"] in WRITERS]


@pytest.mark.parametrize(
    ("page", "case"), WRITTEN, ids=[f"{page.stem}: {case['title']}" for page, case in WRITTEN]
)
def test_what_is_written_of_a_specification_without_a_text(page: Any, case: Any) -> None:
    """The same text, refusals and warnings, but for the comments, and without places."""
    try:
        arch = archdsl.parse(case["text"])
    except ArchError:
        return
    outcomes = []
    for origins in (arch.origins, None):
        try:
            written = WRITERS[case["to"]](arch.spec, origins)
            outcomes.append((written.text, written.warnings))
        except ArchError as error:
            outcomes.append(("", error.diagnostics))
    (text, with_places), (again, without) = outcomes
    assert text == again
    kept = [found for found in with_places if "comment" not in found.message]
    assert sorted((d.code, d.message, d.help or "") for d in kept) == sorted(
        (d.code, d.message, d.help or "") for d in without
    ) or {(d.code, d.message) for d in kept} == {(d.code, d.message) for d in without}
    assert all(found.span is None for found in without)
