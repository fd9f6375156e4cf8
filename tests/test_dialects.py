"""The notations of other libraries, read and written: texts, and every published network."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import pytest
from peer_networks import changed

import archdsl
from archdsl import ArchError, dialects
from archdsl.cli.converting import DIALECTS
from archdsl.lang.dialects.reading import arch_name
from archdsl.lang.printer import print_block
from archdsl.lang.source import SourceText
from archdsl.library import members

MEMBERS = [member.name for member in members()]

# tensorflow/tpu models/official/mnasnet/mnasnet_models.py
OFFICIAL = {
    "mnasnet_b1": [
        *("r1_k3_s11_e1_i32_o16_noskip", "r3_k3_s22_e3_i16_o24", "r3_k5_s22_e3_i24_o40"),
        *("r3_k5_s22_e6_i40_o80", "r2_k3_s11_e6_i80_o96", "r4_k5_s22_e6_i96_o192"),
        "r1_k3_s11_e6_i192_o320_noskip",
    ],
    "mnasnet_a1": [
        *("r1_k3_s11_e1_i32_o16_noskip", "r2_k3_s22_e6_i16_o24", "r3_k5_s22_e3_i24_o40_se0.25"),
        *("r4_k3_s22_e6_i40_o80", "r2_k3_s11_e6_i80_o112_se0.25"),
        *("r3_k5_s22_e6_i112_o160_se0.25", "r1_k3_s11_e6_i160_o320"),
    ],
    "mnasnet_small": [
        *("r1_k3_s11_e1_i16_o8", "r1_k3_s22_e3_i8_o16", "r2_k3_s22_e6_i16_o16"),
        *("r4_k5_s22_e6_i16_o32_se0.25", "r3_k3_s11_e6_i32_o32_se0.25"),
        *("r3_k5_s22_e6_i32_o88_se0.25", "r1_k3_s11_e6_i88_o144"),
    ],
    "mnasnet_d1": [
        *("r1_k3_s11_e9_i32_o24", "r3_k3_s22_e9_i24_o36", "r5_k3_s22_e9_i36_o48"),
        *("r4_k5_s22_e9_i48_o96", "r5_k7_s11_e3_i96_o96", "r3_k3_s22_e9_i96_o80"),
        "r1_k7_s11_e6_i80_o320_noskip",
    ],
}


def figures(arch: archdsl.Arch) -> tuple[Any, ...]:
    """What the network is made of, and the figures that follow."""
    operators = [node.op for _, unit in arch.blocks() for node in unit.fragment.nodes]
    return arch.input, arch.cost().params, arch.cost().macs, operators


def made(text: str, dialect: str) -> archdsl.Arch:
    return archdsl.parse(dialects.read(SourceText(f"net.{dialect}", text), dialect))


def test_the_command_knows_all_dialects() -> None:
    assert set(DIALECTS) == set(dialects.DIALECTS)


@pytest.mark.parametrize("call", [dialects.read, dialects.write])
def test_an_unknown_dialect(call: Any) -> None:
    with pytest.raises(ValueError, match="onnx"):
        call(archdsl.load("mnv2"), "onnx") if call is dialects.write else call("", "onnx")


# How the names begin of the published networks that a notation can say.
WRITTEN = {
    "arch": "",
    "json": "",
    "mnasnet": "mnasnet",
    "ofa": "efficientnet_lite|mn_multi|mnasnet_[bd]|mnv[23]",
    "timm": "(?!mn_edgetpu|mnasnet_d)",
}


@pytest.mark.parametrize("text", [None, b"[]", 5, [["ds_r1_k3_s1_c16"]], {"arch_def": []}])
def test_what_is_no_text(text: Any) -> None:
    for dialect in dialects.DIALECTS:
        with pytest.raises(TypeError, match="a text is wanted, not"):
            dialects.read(text, dialect)
        with pytest.raises(TypeError, match="an Arch is wanted"):
            dialects.write(text, dialect)


@pytest.mark.parametrize("dialect", dialects.DIALECTS)
@pytest.mark.parametrize("name", MEMBERS)
def test_what_is_written_reads_back(name: str, dialect: str) -> None:
    """Every published network: written and read it is the same, or refused with codes."""
    arch = archdsl.load(name)
    if dialect == "ofa":  # which always pads as PyTorch does
        arch = changed(name, (("pad same", "pad symmetric"),))
    if not re.match(WRITTEN[dialect], name):
        with pytest.raises(ArchError) as caught:
            dialects.write(arch, dialect)
        assert {d.code for d in caught.value.diagnostics} == {"E0606"}
        assert all(d.span is not None for d in caught.value.diagnostics)
        return
    written = dialects.write(arch, dialect)
    again = made(written.text, dialect)
    if dialect == "ofa":  # which does not say the image
        arch = arch.resized(again.input)
    assert figures(again) == figures(arch)
    assert {d.code for d in written.warnings} <= {"W0601"}
    once_more = made(dialects.write(again, dialect).text, dialect)
    assert once_more.to_text() == again.to_text()


TRAINED_FOR_LONG = """\
arch net
input 96x80x{channels}
norm batch eps=1e-5 momentum={momentum}
pad {pad}
droppath 0.9995
stem {{ conv_k3_s22_o32 }}
stage {{ r2_k3_s22_e6_o24 }}
head {{
  conv_k1_o1280!
  pool
  dropout_p0.9995
  fc
}}
"""


@pytest.mark.parametrize("momentum", ["1", "0.1", "0.003", "1e-10"])
@pytest.mark.parametrize("channels", [1, 3, 12])
@pytest.mark.parametrize("dialect", ["mnasnet", "ofa", "timm"])
def test_extreme_settings_come_back(dialect: str, channels: int, momentum: str) -> None:
    """Whatever the language allows is written so that it can be read, or said to be left out."""
    pad = "symmetric" if dialect == "ofa" else "same"
    text = TRAINED_FOR_LONG.format(channels=channels, momentum=momentum, pad=pad)
    arch = archdsl.parse(text)
    written = dialects.write(arch, dialect)
    again = archdsl.parse(dialects.read(written.text, dialect), input=arch.input)
    assert figures(again) == figures(arch)
    assert again.attributes.norm == arch.attributes.norm
    said = [warning.message for warning in written.warnings]
    lost = dialect != "timm"
    assert again.attributes.droppath == (0 if lost else 0.9995)
    assert any("droppath" in message for message in said) == lost
    assert any("96x80" in message for message in said) == (dialect == "ofa")


def test_a_momentum_that_mnasnet_cannot_say() -> None:
    text = TRAINED_FOR_LONG.format(channels=3, momentum="1e-13", pad="same")
    with pytest.raises(ArchError, match="momentum"):
        dialects.write(archdsl.parse(text), "mnasnet")


@pytest.mark.parametrize("width", [0.1, 0.15, 0.25, 1.0])
@pytest.mark.parametrize("mark", ["", "!"])
def test_a_least_width_comes_back_from_timm(width: float, mark: str) -> None:
    """MobileNetV1 has at least 8 channels everywhere; a width that is marked has fewer."""
    text = archdsl.load("mnv1").to_text().replace("sep_k3_o64", f"sep_k3_o6{mark}")
    arch = archdsl.parse(text, width=width)
    assert figures(made(dialects.write(arch, "timm").text, "timm")) == figures(arch)


def test_timm_cannot_build_attention_where_a_resolution_ends() -> None:
    """timm asks the last block of a resolution for its features, which its attention has not."""
    text = archdsl.load("mnv4_conv_m").to_text()
    ending = "  uib_s3_e4_o160\n}"
    assert text.count(ending) == 1
    with pytest.raises(ArchError, match="attention that is the last before a stride"):
        text_of_attention = text.replace(ending, ending[:-1] + "  mqa_h4_d64\n}")
        dialects.write(archdsl.parse(text_of_attention), "timm")
    inside = text.replace(ending, "  mqa_h4_d64\n" + ending)
    dialects.write(archdsl.parse(inside), "timm")


@pytest.mark.parametrize("dialect", ["mnasnet", "ofa", "timm"])
def test_comments_that_are_lost_are_told(dialect: str) -> None:
    pad = "symmetric" if dialect == "ofa" else "same"
    text = TRAINED_FOR_LONG.format(channels=3, momentum="0.1", pad=pad)
    for comments, says in (("", None), ("# one\n", "a comment"), ("# one\n# two\n", "2 comments")):
        warnings = dialects.write(archdsl.parse(text + comments), dialect).warnings
        said = [warning.message for warning in warnings if "comment" in warning.message]
        assert said == ([f"left out: {says}"] if says else [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('["r1_k3_s11_e1_i32_o16"]', "--from mnasnet"),
        ("[['ds_r1_k3_s1_e1_c16']]", "--from timm"),
        ('{"arch_def": []}', "--from timm"),
        ('{"blocks_args": []}', "--from mnasnet"),
        ('{"name": "MobileNetV3", "first_conv": {}}', "--from ofa"),
    ],
)
def test_json_of_another_library_is_named(text: str, wanted: str) -> None:
    with pytest.raises(ArchError) as caught:
        made(text, "json")
    (found,) = caught.value.diagnostics
    assert wanted in (found.help or "")


def test_most_published_networks_can_be_written() -> None:
    counts = dict.fromkeys(dialects.DIALECTS, 0)
    for name in MEMBERS:
        for dialect in dialects.DIALECTS:
            try:
                dialects.write(archdsl.load(name), dialect)
            except ArchError:
                continue
            counts[dialect] += 1
    assert counts["arch"] == counts["json"] == len(MEMBERS)
    assert counts["timm"] > len(MEMBERS) / 2
    assert counts["mnasnet"] >= 10


# -- MnasNet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("form", ["object", "list", "lines", "python", "python lines"])
def test_official_mnasnets(name: str, form: str) -> None:
    strings = OFFICIAL[name]
    stem, dropout = (8, 0.0) if name == "mnasnet_small" else (32, 0.2)
    text = {
        "object": json.dumps({"blocks_args": strings, "stem_size": stem, "dropout_rate": dropout}),
        "list": json.dumps(strings),
        "lines": "\n".join(["# official", *strings]),
        "python": f"# official\n  blocks_args = [\n    {', '.join(map(repr, strings))},\n  ]\n",
        "python lines": "".join(f"    {string!r},  # of {len(strings)}\r\n" for string in strings),
    }[form]
    arch = made(text, "mnasnet")
    published = archdsl.load(name)
    if name == "mnasnet_small" and form != "object":
        return  # a list alone does not say that the stem is narrower than `i`
    assert arch.cost().params == published.cost().params
    assert arch.cost().macs == published.cost().macs
    data = json.loads(dialects.write(arch, "mnasnet").text)
    if name != "mnasnet_small":  # whose first `i` is not what comes in
        assert data["blocks_args"] == strings
    assert figures(made(json.dumps(data), "mnasnet")) == figures(arch)


def test_mnasnet_width() -> None:
    data = {"blocks_args": OFFICIAL["mnasnet_a1"], "depth_multiplier": 1.4}
    arch = made(json.dumps(data), "mnasnet")
    assert arch.cost().params == archdsl.load("mnasnet_a1_140").cost().params
    assert json.loads(dialects.write(arch, "mnasnet").text)["depth_multiplier"] == 1.4


# -- Once-for-All --------------------------------------------------------------------------------


def conv(kernel: int, stride: int, before: int, after: int, act: str, **more: Any) -> Any:
    layer = {"name": "ConvLayer", "kernel_size": kernel, "stride": stride, "dilation": 1}
    layer |= {"groups": 1, "bias": False, "has_shuffle": False, "in_channels": before}
    layer |= {"out_channels": after, "use_bn": True, "act_func": act, "dropout_rate": 0}
    return {**layer, "ops_order": "weight_bn_act", **more}


def identity(channels: int) -> Any:
    return {
        "name": "IdentityLayer",
        **{"in_channels": [channels], "out_channels": [channels], "use_bn": False},
        **{"act_func": None, "dropout_rate": 0, "ops_order": "weight_bn_act"},
    }


def linear(before: int, dropout: float) -> Any:
    return {
        "name": "LinearLayer",
        **{"in_features": before, "out_features": 1000, "bias": True, "use_bn": False},
        **{"act_func": None, "dropout_rate": dropout, "ops_order": "weight_bn_act"},
    }


def mobilenetv2() -> Any:
    """MobileNetV2 in the words of ProxylessNAS."""
    blocks, before = [], 32
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for ratio, after, count, stride in (*rows, (6, 160, 3, 2), (6, 320, 1, 1)):
        for number in range(count):
            step = stride if number == 0 else 1
            layer = {"name": "MBInvertedConvLayer", "in_channels": before, "out_channels": after}
            layer |= {"kernel_size": 3, "stride": step, "expand_ratio": ratio}
            shortcut = identity(after) if step == 1 and before == after else None
            block = {"name": "MobileInvertedResidualBlock", "mobile_inverted_conv": layer}
            blocks.append({**block, "shortcut": shortcut})
            before = after
    return {
        "name": "ProxylessNASNets",
        "bn": {"momentum": 0.1, "eps": 0.001},
        "first_conv": conv(3, 2, 3, 32, "relu6"),
        "feature_mix_layer": conv(1, 1, 320, 1280, "relu6"),
        "classifier": linear(1280, 0.2),
        "blocks": blocks,
    }


def mobilenetv3(seed: int | None = None) -> Any:
    """MobileNetV3-Large in the words of Once-for-All, or a random subnet."""
    choose = random.Random(seed)
    rows = [(3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2)]
    rows += [(3, 72, 24, False, "relu", 1), (5, 72, 40, True, "relu", 2)]
    rows += [(5, 120, 40, True, "relu", 1)] * 2 + [(3, 240, 80, False, "h_swish", 2)]
    rows += [(3, 200, 80, False, "h_swish", 1)] + [(3, 184, 80, False, "h_swish", 1)] * 2
    rows += [(3, 480, 112, True, "h_swish", 1), (3, 672, 112, True, "h_swish", 1)]
    rows += [(5, 672, 160, True, "h_swish", 2)] + [(5, 960, 160, True, "h_swish", 1)] * 2
    blocks, before = [], 16
    for kernel, middle, after, use_se, act, stride in rows:
        mid: int | None = middle
        ratio: float = 1 if middle == before else middle / before
        if seed is not None and middle != before:
            kernel, ratio, mid = choose.choice((3, 5, 7)), choose.choice((3, 4, 6)), None
        layer = {"name": "MBConvLayer", "in_channels": before, "out_channels": after}
        layer |= {"kernel_size": kernel, "stride": stride, "expand_ratio": ratio}
        layer |= {"mid_channels": mid, "act_func": act, "use_se": use_se, "groups": None}
        shortcut = identity(after) if stride == 1 and before == after else None
        if seed is not None and shortcut and choose.random() < 0.3:
            layer = {"name": "ZeroLayer"}  # a block that the search left out
        blocks.append({"name": "ResidualBlock", "conv": layer, "shortcut": shortcut})
        before = after
    return {
        "name": "MobileNetV3",
        "bn": {"momentum": 0.1, "eps": 1e-05, "ws_eps": None},
        "first_conv": conv(3, 2, 3, 16, "h_swish", use_se=False),
        "blocks": blocks,
        "final_expand_layer": conv(1, 1, 160, 960, "h_swish"),
        "feature_mix_layer": conv(1, 1, 960, 1280, "h_swish", use_bn=False),
        "classifier": linear(1280, 0.1),
    }


def test_proxyless_words_for_mobilenetv2() -> None:
    arch = made(json.dumps(mobilenetv2()), "ofa")
    published = archdsl.load("mnv2")
    assert arch.cost().params == published.cost().params
    assert arch.cost().macs == published.cost().macs


def test_ofa_words_for_mobilenetv3() -> None:
    """As published but for the bias of the last convolution, which Once-for-All leaves out."""
    arch = made(json.dumps(mobilenetv3()), "ofa")
    published = archdsl.load("mnv3_large")
    assert arch.cost().params == published.cost().params - 1280
    assert arch.cost().macs == published.cost().macs


@pytest.mark.parametrize("seed", range(20))
def test_ofa_subnets_read_and_write(seed: int) -> None:
    arch = made(json.dumps(mobilenetv3(seed)), "ofa")
    written = dialects.write(arch, "ofa")
    assert not written.warnings
    again = made(written.text, "ofa")
    assert again.to_text() == arch.to_text()
    data = json.loads(written.text)
    convs = [b["conv"] for b in mobilenetv3(seed)["blocks"] if b["conv"]["name"] != "ZeroLayer"]
    wanted = [(c["kernel_size"], c["in_channels"], c["out_channels"], c["stride"]) for c in convs]
    found = [b["conv"] for b in data["blocks"]]
    keys = ("kernel_size", "in_channels", "out_channels", "stride")
    assert [tuple(c[key] for key in keys) for c in found] == wanted


def test_once_for_alls_reference_network() -> None:
    """Its config says expanded widths alone: `expand_ratio` is null."""
    config = mobilenetv3()
    for block in config["blocks"][1:]:
        block["conv"]["expand_ratio"] = None
    assert (
        made(json.dumps(config), "ofa").to_text()
        == made(json.dumps(mobilenetv3()), "ofa").to_text()
    )


@pytest.mark.parametrize(
    ("at", "change", "codes", "wanted"),
    [
        (("blocks", 3, "conv"), {"in_channels": 32}, ["E0203"], "the layer before gives 24"),
        (("blocks", 3, "conv"), {"in_channels": None}, ["E0604"], "`in_channels` must not be null"),
        (("blocks", 3, "conv"), {"in_channels": True}, ["E0604"], "must be a whole number"),
        (("blocks", 3, "conv"), {"stride": None}, ["E0604"], "`stride` must not be null"),
        (("blocks", 3, "conv"), {"out_channels": -1}, ["E0604"], "must be a whole number"),
        (("blocks", 4, "conv"), {"out_channels": 10**30}, ["E0604"], "must be a whole number"),
        (("blocks", 3, "conv"), {"name": None}, ["E0604"], "`name` must be a string"),
        (
            ("blocks", 3, "conv"),
            {"expand_ratio": None, "mid_channels": None},
            ["E0604"],
            "the layer needs `mid_channels`",
        ),
        ((), {"first_conv": None}, ["E0604"], "a ConvLayer must be an object"),
        (("classifier",), {"in_features": 1024}, ["E0203"], "the layer before gives 1280"),
        (("classifier",), {"dropout_rate": 1}, ["E0604"], "less than 1"),
    ],
)
def test_one_fault_of_a_net_config_is_told_once(
    at: tuple[Any, ...], change: dict[str, Any], codes: list[str], wanted: str
) -> None:
    config = place = mobilenetv3()
    for step in at:
        place = place[step]
    place |= change
    with pytest.raises(ArchError, match=wanted) as caught:
        made(json.dumps(config), "ofa")
    assert [found.code for found in caught.value.diagnostics] == codes


def test_bn_has_each_familys_defaults() -> None:
    for config, eps in ((mobilenetv2(), 1e-3), (mobilenetv3(), 1e-5)):
        del config["bn"]
        norm = made(json.dumps(config), "ofa").attributes.norm
        assert (norm.eps, norm.momentum) == (eps, 0.1)


def test_whole_ratios_are_written_whole() -> None:
    """Once-for-All compares ratios with 1 and makes keys of them."""
    text = dialects.write(made(json.dumps(mobilenetv3()), "ofa"), "ofa").text
    ratios = [layer["conv"]["expand_ratio"] for layer in json.loads(text)["blocks"]]
    assert {repr(ratio) for ratio in ratios} >= {"1", "3", "4", "6", "2.5"}


def test_the_image_of_mnasnet_has_three_sides() -> None:
    parameters = {"blocks_args": OFFICIAL["mnasnet_a1"], "input_size": [224, 224]}
    with pytest.raises(ArchError, match=r"must be \[height, width, channels\]") as caught:
        made(json.dumps(parameters), "mnasnet")
    assert [found.code for found in caught.value.diagnostics] == ["E0604"]


def test_a_classifier_may_have_no_bias() -> None:
    config = mobilenetv3()
    config["classifier"]["bias"] = False
    assert print_block(made(json.dumps(config), "ofa").spec.head[-1]) == "fc_nobias"


def test_use_keras_is_true_or_false() -> None:
    parameters = {"blocks_args": OFFICIAL["mnasnet_a1"], "use_keras": 3}
    with pytest.raises(ArchError, match="`use_keras` must be true or false"):
        made(json.dumps(parameters), "mnasnet")


@pytest.mark.parametrize(
    ("least", "block"), [(8, "r1_k3_s11_e1_o16_noskip"), (24, "r1_k3_s11_e1_o16")]
)
def test_a_residual_compares_widths_after_the_least(least: int, block: str) -> None:
    """The first block's `i` is only compared: where 24 is least, 8 and the stem's 16 are both."""
    parameters = {"blocks_args": ["r1_k3_s11_e1_i8_o16"], "stem_size": 16}
    parameters |= {"depth_multiplier": 1.0, "min_depth": least}
    (stage,) = made(json.dumps(parameters), "mnasnet").spec.stages
    assert " ".join(map(print_block, stage.blocks)) == block


@pytest.mark.parametrize("decay", [0, 0.5, 0.997])
def test_what_global_params_has_besides(decay: float) -> None:
    parameters = {"blocks_args": OFFICIAL["mnasnet_a1"], "batch_norm_momentum": decay}
    parameters |= {"data_format": "channels_last", "use_keras": True, "min_depth": None}
    arch = made(json.dumps(parameters), "mnasnet")
    assert arch.cost().params == archdsl.load("mnasnet_a1").cost().params
    assert arch.attributes.norm.momentum == pytest.approx(1 - decay)
    with pytest.raises(ArchError, match="`data_format` must be"):
        made(json.dumps(parameters | {"data_format": "channels"}), "mnasnet")


@pytest.mark.parametrize(
    ("text", "name"), [("4net", "net_4net"), ("b0", "b0"), ("x", "x"), ("act", "act_net")]
)
def test_any_text_becomes_a_name(text: str, name: str) -> None:
    assert arch_name(text) == name


# -- timm's strings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "more", "ours"),
    [
        # The second of two blocks that one string comes to has no stride.
        (
            "ir_r2_k3_s2_e1.3_c40",
            {"stem_size": 20, "channel_divisor": 4},
            "r1_k3_s22_e1.2_o40 r1_k3_s11_e1.4_o40",
        ),
        ("cn_r1_k3_s1_c32_skip", {}, "conv_r1_k3_s11_o32_residual"),
        (
            "uir_r1_a3_k3_s1_e1_c32",
            {"stem_size": 24, "fix_stem": True, "channel_divisor": 32},
            "uib_r1_s3_m3_st11_x24!_o32",
        ),
        ("mha_r1_k3_h4_s1_d8_c32", {}, "mha_r1_k3_h4_d8_s11_o32"),
        ("ir_r2_k3_s1_e6_c32", {"depth_multiplier": 2}, "r4_k3_s11_e6_o32"),
        ("ir_r2_k3_s1_e6_c32", {"depth_multiplier": [2]}, "r4_k3_s11_e6_o32"),
        ("ir_r2_k3_s1_e6_c32", {"depth_multiplier": 1.1}, "r3_k3_s11_e6_o32"),
        (
            "ir_r2_k3_s1_e6_c32",
            {"depth_multiplier": 1.1, "depth_trunc": "round"},
            "r2_k3_s11_e6_o32",
        ),
    ],
)
def test_strings_of_timm(theirs: str, more: dict[str, Any], ours: str) -> None:
    arch = made(json.dumps({"arch_def": [[theirs]], **more}), "timm")
    (stage,) = arch.spec.stages
    assert " ".join(map(print_block, stage.blocks)) == ours


@pytest.mark.parametrize(
    ("theirs", "code", "place"),
    [
        ("mha_r1_k3_h0_s1_d64_c256", "E0211", "h0"),
        ("uir_r1_a0_k0_s2_e4_c32", "E0304", "s2"),
        ("ir_r1_k3_s1_e0_c32_skip_noskip", "E0204", "noskip"),
    ],
)
def test_a_fault_of_a_string_is_told_where_it_stands(theirs: str, code: str, place: str) -> None:
    with pytest.raises(ArchError) as caught:
        made(json.dumps({"arch_def": [[theirs]]}), "timm")
    (found,) = caught.value.diagnostics
    assert found.span is not None
    assert (found.code, found.span.text) == (code, place)


def test_timm_dilates_beyond_its_output_stride() -> None:
    with pytest.raises(ArchError, match="turns a stride beyond 2 in all into dilation"):
        made('{"arch_def": [["ir_r1_k3_s2_e2_c32"]], "output_stride": 2}', "timm")


def test_stages_of_timm_are_a_list() -> None:
    with pytest.raises(ArchError, match="an `arch_def` must be a list"):
        made('{"arch_def": 3}', "timm")


@pytest.mark.parametrize(
    ("rule", "blocks", "strings"),
    [
        ("", "ir_k3_o16 ir_k3_e1_o16", "ds_r1_k3_s1_c16 ds_r1_k3_s1_e1_c16"),
        # 96 is six times the 16 that come in first, and four times the 24 of the second.
        ("", "r2_k3_s11_x96_o24", "ir_r1_k3_s1_e6_c24 ir_r1_k3_s1_e4_c24"),
        # 0.3 of 16 is 4.8, to a multiple of eight 8.
        ("se from=input round=8", "k3_e4_se0.3_o32", "ir_r1_k3_s1_e4_c32_se0.3"),
        # 0.3 of 16 is 4.8: cut off here, and rounded by timm.
        ("se from=input round=1", "k3_x56_se0.3_o32", "ir_r1_k3_s1_e3.5_c32_se0.25"),
    ],
)
def test_strings_for_timm(rule: str, blocks: str, strings: str) -> None:
    head = f"arch net input 64x64x3 {rule} stem {{ conv_k3_s2_o16 }}"
    arch = archdsl.parse(f"{head} stage {{ {blocks} }} head {{ conv_k1_o64 pool fc }}")
    written = dialects.write(arch, "timm").text
    assert " ".join(json.loads(written)["arch_def"][0]) == strings
    assert made(written, "timm").cost() == arch.cost()


# -- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("ir_r1_k3_s1_e6_c32_gs16", "r1_k3_s11_e6_o32_g16"),
        ("ir_r1_k3_s1_e6_c32_gs1", "r1_k3_s11_e6_o32"),
        ("ir_r1_k3_s1_e2_c32_gs0", "r1_k3_s11_e2_o32_g64"),
        ("ds_r1_k3_s1_c32_gs8", "r1_k3_s11_o32_g8"),
        ("dsa_r1_k3_s1_c32_gs8", "sep_r1_k3_s11_o32_g8"),
        ("uir_r1_a3_k5_s1_e2_c32_gs8", "uib_r1_s3_m5_st11_e2_o32_g8"),
        ("er_r1_k3_s1_e4_c32_gs64", "fused_r1_k3_s11_e4_o32_g64"),
        ("cn_r1_k3_s1_c64_gs8", "conv_r1_k3_s11_o64_g16"),
        ("cn_r1_k3_s1_c32_gs1", "dw_r1_k3_s11_o32"),
        ("cn_r1_k3_s1_c64_gs1", "conv_r1_k3_s11_o64_g2"),
        # The second has another input than the first.
        ("cn_r2_k3_s1_c64_gs8", "conv_r1_k3_s11_o64_g16 conv_r1_k3_s11_o64_g8"),
        ("ir_r2_k3_s1_e2_c64_gs0", "r1_k3_s11_e2_o64_g64 r1_k3_s11_e2_o64_g128"),
    ],
)
def test_groups_of_timm(theirs: str, ours: str) -> None:
    arch = made(f"[['{theirs}']]", "timm")
    (stage,) = arch.spec.stages
    assert " ".join(map(print_block, stage.blocks)) == ours
    assert made(dialects.write(arch, "timm").text, "timm").cost() == arch.cost()


# -- what is hostile -----------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["json", "mnasnet", "ofa", "timm"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "[" * 100_000,
        "[[" + "'ds_r1_k3_s1_c16'," * 70_000 + "]]",
        "(" * 50_000 + ")" * 50_000,
        "[['ds_r1_k3_s1_c" + "9" * 100_000 + "']]",
        "[['" + "ds_" * 300_000 + "']]",
        "[['ir_r1000_k3_s1_e6_c16'" + ",'ir_r1000_k3_s1_e6_c16'" * 100 + "]]",
        "{" + '"a":' * 20_000 + "1" + "}" * 20_000,
        '{"arch_def": [["ds_r1_k3_s1_c16"]], "depth_multiplier": 1e308}',
        '{"arch_def": [["ir_r1_k3_s1_e1e9_c16"]], "stem_size": -1}',
        '{"name": "MobileNetV3", "blocks": [' + '{"conv": null},' * 5_000 + "]}",
        "r1_k3_s11_e1_i32_o16\n" * 20_000,
        "-" * 100_000,
        "'\\ud800'",
        '[["ds_r1_k3_s1_c16\\n"]]',
        "[[None, True, 1.5, {'a': ()}], []]",
        "[[f'ds_r1_k3_s1_c16']]",
        "__import__('os').getcwd()",
        "[\N{RIGHT-TO-LEFT OVERRIDE}]",
    ],
)
def test_hostile_texts_are_refused_soon(text: str, dialect: str) -> None:
    start = time.monotonic()
    with pytest.raises(ArchError) as caught:
        made(text, dialect)
    assert len(str(caught.value)) < 200_000
    assert time.monotonic() - start < 20


def test_random_slips_never_end_in_a_traceback() -> None:
    choose = random.Random(5)
    sources = [
        ("mnasnet", json.dumps({"blocks_args": OFFICIAL["mnasnet_a1"], "stem_size": 32})),
        ("ofa", json.dumps(mobilenetv3())),
        ("timm", dialects.write(archdsl.load("mnv4_hybrid_m"), "timm").text),
        ("timm", dialects.write(archdsl.load("mnv3_small"), "timm").text),
    ]
    for dialect, text in sources * 60:
        letters = list(text)
        for _ in range(choose.randint(1, 3)):
            at = choose.randrange(len(letters))
            letters[at] = choose.choice(["", letters[at] * 2, choose.choice('_0159"[]{},.:e-x')])
        try:
            arch = made("".join(letters), dialect)
        except ArchError:
            continue
        assert arch.cost().params > 0
