"""The language, sentence by sentence: what a text means, shown on networks of a few blocks."""

from __future__ import annotations

import pytest

import archdsl
from archdsl.compiler import Arch
from archdsl.ir.node import Node
from archdsl.ir.ops import Activation, BatchNorm, Conv2d, Dropout, LayerScale, Linear, Op
from archdsl.lang.diagnostics import ArchError, Diagnostic, render
from archdsl.lang.formatter import format_source
from archdsl.lang.printer import decimal
from archdsl.lang.source import SourceText
from archdsl.lang.spec import KINDS

IMAGE = "input 32x32x16"


def net(body: str, attributes: str = "") -> Arch:
    """A network with 32x32x16 for an image, of whatever sections `body` has."""
    return archdsl.parse(f"arch net\n{IMAGE}\n{attributes}\n{body}\n")


def block(text: str, attributes: str = "") -> Arch:
    """A network of one block."""
    return net(f"stem {{ {text} }}", attributes)


def nodes(arch: Arch) -> dict[str, Node]:
    """The nodes of a network of one section, under their names within it."""
    return {node.name.removeprefix("stem."): node for node in arch.graph()}


def names(text: str, attributes: str = "") -> list[str]:
    """The layers of a block, in order, under their names in the block."""
    found = [name for name in nodes(block(text, attributes)) if name != "input"]
    return [name.removeprefix("0.") for name in found]


def op(text: str, name: str, attributes: str = "") -> Op:
    return nodes(block(text, attributes))[f"0.{name}"].op


def conv(text: str, name: str, attributes: str = "") -> Conv2d:
    found = op(text, name, attributes)
    assert isinstance(found, Conv2d)
    return found


def widths(arch: Arch) -> list[int]:
    """The output width of each block, repeats counted."""
    return [unit.fragment.output[-1] for _, unit in arch.blocks()]


def shapes(arch: Arch) -> list[tuple[int, ...]]:
    return [unit.fragment.output for _, unit in arch.blocks()]


def codes(text: str) -> list[str]:
    return [d.code for d in archdsl.check(SourceText("net.arch", text))]


def has_residual(text: str, attributes: str = "") -> bool:
    return names(text, attributes)[-1:] == ["add"]


# ------------------------------------------------------------------------------------------ files


def test_a_file_has_a_name_an_image_and_blocks() -> None:
    arch = archdsl.parse("arch tiny input 8x6x3 stem { conv_k3_o16 }")
    assert (arch.name, arch.input, arch.output) == ("tiny", (8, 6, 3), (8, 6, 16))
    assert codes("input 8x8x3 stem { conv_k3_o16 }") == ["E0401"]
    assert codes("arch tiny stem { conv_k3_o16 }") == ["E0401"]
    assert codes("arch tiny input 8x8x3") == ["E0306"]


def test_the_image_is_height_width_channels() -> None:
    arch = archdsl.parse("arch tiny input 40x20x3 stem { conv_k3_s21_o16 }")
    assert arch.output == (20, 20, 16)


def test_white_space_and_line_ends_are_free() -> None:
    tidy = (
        "arch net\ninput 8x8x3\nact relu6\n\nstem {\n  conv_k3_o16\n  k3_e6_o16\n}\nexpect macs=1\n"
    )
    assert archdsl.parse(" ".join(tidy.split())).spec == archdsl.parse(tidy).spec
    assert archdsl.parse(tidy.replace("\n", "\r\n\t\r\n")).spec == archdsl.parse(tidy).spec
    assert archdsl.parse(tidy.replace("=", " = ")).spec == archdsl.parse(tidy).spec


def test_a_comment_goes_to_the_end_of_its_line() -> None:
    text = "# a net\narch net # its name {\ninput 8x8x3# no space\nstem { # }\nconv_k3_o16 #k4\n} #"
    assert (
        archdsl.parse(text).spec == archdsl.parse("arch net input 8x8x3 stem { conv_k3_o16 }").spec
    )


def test_a_text_in_quotes_may_hold_anything_but_quotes() -> None:
    arch = block("k3", 'source "a # b { } = ( é"')
    assert arch.spec.source == "a # b { } = ( é"


def test_statements_may_stand_in_any_order() -> None:
    one = archdsl.parse("arch net act relu6 input 8x8x3 stem { conv_o16 } width 0.5")
    other = archdsl.parse("width 0.5 stem { conv_o16 } input 8x8x3 act relu6 arch net")
    assert one.spec == other.spec


def test_the_sections_are_stem_stages_and_head() -> None:
    arch = net("stem { conv_o16 } stage a { k3_o24 k3_o24 } stage b { k3_o32 } head { pool fc }")
    paths = [origin.path for origin, _ in arch.blocks()]
    assert paths == ["stem.0", "stages.a.0", "stages.a.1", "stages.b.0", "head.0", "head.1"]
    assert codes(f"arch net {IMAGE} stage a {{ k3 }} stem {{ k3 }}") == ["E0406"]


def test_a_stage_names_its_output_as_a_feature_map() -> None:
    arch = net("stage c2 { s2_o24 k3_o24 } stage c3 { s2_o32 } head { conv_k1_o64 }")
    graph = arch.graph()
    assert {name: graph[node].shape for name, node in graph.features.items()} == {
        "c2": (16, 16, 24),
        "c3": (8, 8, 32),
    }


def test_stages_without_names_are_numbered_by_position() -> None:
    graph = net("stage { k3 } stage b { k3 } stage { k3 }").graph()
    assert list(graph.features) == ["stage1", "b", "stage3"]
    assert codes(f"arch net {IMAGE} stage stage2 {{ k3 }} stage {{ k3 }}") == ["E0407"]


def test_expect_is_proved() -> None:
    text = "arch net input 8x8x3 stem { conv_k3_o16 } expect params={} macs={}"
    assert codes(text.replace("{}", "464", 1).replace("{}", "27_648")) == []
    assert codes(text.replace("{}", "463", 1).replace("{}", "27_649")) == ["E0412", "E0412"]


def test_expect_speaks_of_the_text_s_own_width_image_and_classes() -> None:
    source = SourceText("net", "arch net input 8x8x3 head { pool fc } expect params=4000")
    assert archdsl.check(source) == archdsl.check(source, classes=10) == []
    assert archdsl.check(source, input=(9, 9, 3)) == archdsl.check(source, width=2) == []


@pytest.mark.parametrize(
    ("figures", "off"),
    [
        ("params=464", False),
        ("params=465", True),
        ("params=0.5K", False),
        ("params=0.46K", False),
        ("params=0.47K", True),
        ("macs=27.6K", False),
        ("macs=28K", False),
        ("macs=27K", True),
        ("macs=0.03M", False),
        ("macs=0.0G", False),
        ("params=464 macs=1M", True),
        ('top1=75.2 latency="23 ms" source="a paper"', False),
    ],
)
def test_published_figures_are_proved_to_their_printed_precision(figures: str, off: bool) -> None:
    text = f"arch net input 8x8x3 stem {{ conv_k3_o16 }} published {figures}"
    assert codes(text) == (["W0501"] if off else [])


def test_published_keeps_facts() -> None:
    arch = block("k3", 'published params=1K top1=75.2 source="a, b" published year=2018')
    first, second = arch.published
    assert (first.params, first.source, first.facts) == ("1K", "a, b", {"top1": "75.2"})
    assert second.facts == {"year": "2018"}


def test_variants_are_members_of_the_family() -> None:
    text = (
        f"arch net {IMAGE} classes 10 stem {{ conv_k3_o32 }} stage {{ r2_k3_o32 }}"
        " head { pool fc } variant wide { width=2 } variant small { input=8x8x16 classes=5 }"
        " variant 2 { depth=2 droppath=0.1 }"
    )
    assert archdsl.parse(text).name == "net"
    wide = archdsl.parse(text, variant="wide")
    assert (wide.name, widths(wide)) == ("net_wide", [64, 64, 64, 64, 10])
    small = archdsl.parse(text, variant="net_small")
    assert (small.input, small.output) == ((8, 8, 16), (5,))
    deep = archdsl.parse(text, variant="2")
    assert (len(widths(deep)), deep.attributes.droppath) == (7, 0.1)
    assert archdsl.parse(text, variant="wide", classes=3).output == (3,)
    with pytest.raises(ArchError, match="did you mean `wide`"):
        archdsl.parse(text, variant="wild")


def test_each_variant_has_its_own_figures() -> None:
    text = "arch net input 8x8x3 head {{ pool fc }} variant a {{ classes=10 expect params={} }}"
    assert codes(text.format(40)) == []
    assert codes(text.format(4000)) == ["E0412"]


def test_a_search_space_is_not_one_architecture() -> None:
    for choice in ("k{3,5}", "e{3,6}_o24", "r{2,3,4}", "se{0,0.25}", "k{3}", "( k3 | k5 | skip )"):
        assert codes(f"arch net {IMAGE} stem {{ {choice} }}") == ["E0107"]


# -------------------------------------------------------------------------------- block strings

# tensorflow/tpu models/official/mnasnet/mnasnet_models.py, letter by letter.
MNASNET_B1 = [
    *["r1_k3_s11_e1_i32_o16_noskip", "r3_k3_s22_e3_i16_o24", "r3_k5_s22_e3_i24_o40"],
    *["r3_k5_s22_e6_i40_o80", "r2_k3_s11_e6_i80_o96", "r4_k5_s22_e6_i96_o192"],
    "r1_k3_s11_e6_i192_o320_noskip",
]
MNASNET_A1 = [
    *["r1_k3_s11_e1_i32_o16_noskip", "r2_k3_s22_e6_i16_o24", "r3_k5_s22_e3_i24_o40_se0.25"],
    *["r4_k3_s22_e6_i40_o80", "r2_k3_s11_e6_i80_o112_se0.25", "r3_k5_s22_e6_i112_o160_se0.25"],
    "r1_k3_s11_e6_i160_o320",
]
MNASNET_SMALL = [
    *["r1_k3_s11_e1_i8_o8_noskip", "r1_k3_s22_e3_i8_o16", "r2_k3_s22_e6_i16_o16"],
    *["r4_k5_s22_e6_i16_o32_se0.25", "r3_k3_s11_e6_i32_o32_se0.25"],
    *["r3_k5_s22_e6_i32_o88_se0.25", "r1_k3_s11_e6_i88_o144"],
]


@pytest.mark.parametrize(
    ("name", "strings"),
    [("mnasnet_b1", MNASNET_B1), ("mnasnet_a1", MNASNET_A1), ("mnasnet_small", MNASNET_SMALL)],
)
def test_official_mnasnet_strings_are_valid_as_they_stand(name: str, strings: list[str]) -> None:
    arch = archdsl.load(name)
    cost = archdsl.Coster(arch)(strings)
    assert (cost.params, cost.macs) == (arch.cost().params, arch.cost().macs)


def test_the_proof_of_i_finds_the_slip_in_the_official_small_net() -> None:
    """Its first string says i16, where the stem gives 8: the file has i8 and noskip instead."""
    official = ["r1_k3_s11_e1_i16_o8", *MNASNET_SMALL[1:]]
    with pytest.raises(ArchError, match="declared i16, but the previous block gives 8 channels"):
        archdsl.Coster(archdsl.load("mnasnet_small"))(official)


def test_fields_may_stand_in_any_order() -> None:
    whole = archdsl.block("r3_k5_s22_e6_i40_o80_se0.25").block
    assert archdsl.block("se0.25_o80_i40_e6_s22_k5_r3").block == whole
    assert archdsl.block("ir_o80_se0.25_r3_k5_e6_s22_i40").block == whole


def test_without_a_kind_it_is_an_inverted_residual() -> None:
    assert archdsl.block("k3_o16").block == archdsl.block("ir_k3_o16").block
    assert archdsl.block("noskip_o16").block == archdsl.block("ir_noskip_o16").block
    assert archdsl.block("swish").block == archdsl.block("ir_swish").block


def test_there_are_twelve_kinds() -> None:
    wanted = "ir fused uib sep mqa mha conv dw pool fc dropout skip"
    assert " ".join(KINDS) == wanted


def test_st_is_the_stride_of_every_kind() -> None:
    for kind in ("ir", "fused", "sep", "conv", "dw"):
        assert archdsl.block(f"{kind}_st21").block == archdsl.block(f"{kind}_s21").block
    assert archdsl.block("uib_m3_st2").block.stride == (2, 2)


def test_the_stride_is_height_then_width() -> None:
    assert block("conv_s21_o16").output == (16, 32, 16)
    assert block("conv_s12_o16").output == (32, 16, 16)
    assert block("conv_s2_o16").output == block("conv_s22_o16").output == (16, 16, 16)


def test_the_stride_is_the_first_repeat_s_only() -> None:
    assert shapes(block("r3_k3_s22_e6_o24")) == [(16, 16, 24)] * 3
    first, second = (nodes(block("r2_k3_s22_e6_o24"))[f"{n}.depthwise.conv"].op for n in (0, 1))
    assert isinstance(first, Conv2d) and isinstance(second, Conv2d)
    assert (first.stride, second.stride) == ((2, 2), (1, 1))
    assert second.in_channels == 6 * 24


def test_repeats_flatten_into_consecutive_blocks() -> None:
    paths = [origin.path for origin, _ in block("r2_k3_o24 k3_o24 r2_k5").blocks()]
    assert paths == ["stem.0", "stem.1", "stem.2", "stem.3", "stem.4"]


def test_without_o_the_width_is_the_input_s() -> None:
    assert (
        widths(block("ir fused uib sep conv dw mqa_h1_d8 mha_h1_d8 skip dropout_p0.1 pool"))
        == [16] * 11
    )


def test_i_is_proved_and_not_needed() -> None:
    assert block("i16_o24 i24_o32 i32").output[-1] == 32
    assert codes(f"arch net {IMAGE} stem {{ i24_o24 }}") == ["E0203"]


def test_i_is_compared_with_the_width_as_written() -> None:
    strings = "conv_k3_i16_o32 k3_i32_o40 k3_i40_o80+ k3_i80_o96! k3_i96"
    assert widths(block(strings, "width 1.4")) == [48, 56, 112, 96, 96]
    with pytest.raises(ArchError, match="E0203"):
        block("conv_k3_o32 k3_i48", "width 1.4")


# ------------------------------------------------------------------------------------- defaults


@pytest.mark.parametrize(
    ("short", "whole"),
    [
        ("ir", "r1_k3_s11_e1_se0"),
        ("fused", "fused_r1_k3_s11_e4_se0"),
        ("uib", "uib_r1_s0_m0_st11_e4"),
        ("sep", "sep_k3_s1"),
        ("conv", "conv_k3_s1"),
        ("dw", "dw_k3_s1"),
        ("mqa_h4_d8", "mqa_h4_d8_kv1_k3"),
        ("mha_h4_d8", "mha_h4_d8_kv1_k3"),
        ("fc", "fc_bias_nonorm"),
    ],
)
def test_defaults_of_fields(short: str, whole: str) -> None:
    assert archdsl.block(short).block == archdsl.block(whole).block


def test_defaults_of_the_file() -> None:
    text = (
        f"arch net {IMAGE} act relu norm batch eps=1e-3 momentum=0.01 pad same"
        " round 8 limit=0.9 width 1 depth 1 se from=input round=1 act=relu gate=sigmoid"
        " layer_scale 0 droppath 0 classes 1000 stem { se0.25_e6_o24 uib_m3 } head { pool fc }"
    )
    short = f"arch net {IMAGE} stem {{ se0.25_e6_o24 uib_m3 }} head {{ pool fc }}"
    assert archdsl.parse(text).attributes == archdsl.parse(short).attributes
    layers = [[(n.name, n.op) for n in archdsl.parse(t).graph()] for t in (text, short)]
    assert layers[0] == layers[1]


# --------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (
            "ir_k5_e6_o24",
            "expand.conv expand.norm expand.act depthwise.conv depthwise.norm depthwise.act"
            " project.conv project.norm",
        ),
        ("ir_k3_e1_o24", "depthwise.conv depthwise.norm depthwise.act project.conv project.norm"),
        (
            "ir_k3_e1_se0.25",
            "depthwise.conv depthwise.norm depthwise.act se.pool se.reduce se.act se.expand"
            " se.gate se.mul project.conv project.norm add",
        ),
        ("fused_k3_e4_o24", "expand.conv expand.norm expand.act project.conv project.norm"),
        ("fused_k3_e1_o24", "project.conv project.norm"),
        (
            "uib_s3_m5_o24",
            "start.conv start.norm expand.conv expand.norm expand.act middle.conv middle.norm"
            " middle.act project.conv project.norm",
        ),
        (
            "uib_s3",
            "start.conv start.norm expand.conv expand.norm expand.act project.conv"
            " project.norm add",
        ),
        (
            "uib_m3_ls",
            "expand.conv expand.norm expand.act middle.conv middle.norm middle.act project.conv"
            " project.norm layer_scale add",
        ),
        ("uib", "expand.conv expand.norm expand.act project.conv project.norm add"),
        (
            "sep_k3_o24",
            "depthwise.conv depthwise.norm depthwise.act pointwise.conv pointwise.norm"
            " pointwise.act",
        ),
        (
            "sep_k3_o24_se0.25",
            "depthwise.conv depthwise.norm depthwise.act se.pool se.reduce se.act se.expand"
            " se.gate se.mul pointwise.conv pointwise.norm pointwise.act",
        ),
        ("conv_k3_o24", "conv norm act"),
        ("conv_k3_o24_residual", "conv norm act"),
        ("conv_k3_s2_residual", "conv norm act"),
        ("conv_k3_residual", "conv norm act add"),
        ("dw_k3_residual_nonorm", "conv act add"),
        ("conv_k3_o24_nonorm_bias_linear", "conv"),
        ("dw_k3", "conv norm act"),
        ("dropout_p0.2", ""),
        ("skip", None),
        ("pool", ""),
    ],
)
def test_a_block_is_made_of_these_layers(text: str, layers: str | None) -> None:
    wanted = [] if layers is None else ["0"] if layers == "" else layers.split()
    assert names(text) == wanted


@pytest.mark.parametrize(
    ("text", "functions"),
    [
        ("ir_k3_e3", ["relu", "relu"]),
        ("ir_k3_e3_gelu", ["gelu", "gelu"]),
        ("fused_k3_e3_gelu", ["gelu"]),
        ("uib_s3_m3_e2_gelu", ["gelu", "gelu"]),
        ("sep_k3_gelu", ["gelu", "gelu"]),
        ("conv_k3_gelu", ["gelu"]),
        ("dw_k3_gelu", ["gelu"]),
        ("dw_k3_linear", []),
        ("pool fc_o8_gelu", ["gelu"]),
    ],
)
def test_the_function_of_a_block_is_the_file_s_or_its_own(text: str, functions: list[str]) -> None:
    ops = [node.op for node in block(text).graph()]
    assert [op.function for op in ops if isinstance(op, Activation)] == functions


def test_fc_flattens_and_weighs() -> None:
    ops = [node.op for node in block("pool fc_o10").graph()][-2:]
    assert [found.name for found in ops] == ["reshape", "linear"]
    assert ops[1] == Linear(16, 10, bias=True)


def test_convolutions_before_a_norm_have_no_bias() -> None:
    for text in ("ir_e6_o24", "fused_o24", "uib_s3_m3_o24", "sep_o24", "conv_o24"):
        for name in names(text):
            if name.endswith("conv"):
                assert not conv(text, name).bias
    assert conv("conv_o24_bias", "conv").bias
    assert conv("ir_se0.25", "se.reduce").bias and conv("ir_se0.25", "se.expand").bias


def test_kernels_stand_where_they_should() -> None:
    assert conv("ir_k5_e6", "depthwise.conv").kernel == (5, 5)
    assert conv("ir_k5_e6", "expand.conv").kernel == (1, 1)
    assert conv("fused_k5", "expand.conv").kernel == (5, 5)
    assert conv("fused_k5", "project.conv").kernel == (1, 1)
    assert conv("uib_s3_m5", "start.conv").kernel == (3, 3)
    assert conv("uib_s3_m5", "middle.conv").kernel == (5, 5)
    assert conv("fused_k5_e1", "project.conv").kernel == (1, 1)


def test_depthwise_convolutions_have_a_group_a_channel() -> None:
    assert conv("ir_e6", "depthwise.conv").groups == 96
    assert conv("uib_s3_m5_e2", "start.conv").groups == 16
    assert conv("uib_s3_m5_e2", "middle.conv").groups == 32
    assert conv("sep", "depthwise.conv").groups == conv("dw", "conv").groups == 16
    assert conv("fused", "expand.conv").groups == conv("conv", "conv").groups == 1


def test_a_fused_block_of_ratio_one_is_a_1x1_convolution_and_a_norm() -> None:
    assert names("fused_k3_s22_e1_o24") == ["project.conv", "project.norm"]
    assert conv("fused_k3_s22_e1_o24", "project.conv").stride == (2, 2)


def test_g_is_the_size_of_a_group() -> None:
    assert conv("ir_e6_g16", "depthwise.conv").groups == 6
    assert conv("ir_e6_g16", "expand.conv").groups == conv("ir_e6_g16", "project.conv").groups == 1
    assert conv("sep_g4", "depthwise.conv").groups == 4
    assert conv("uib_s3_m5_e2_g16", "start.conv").groups == 1
    assert conv("uib_s3_m5_e2_g16", "middle.conv").groups == 2
    assert conv("conv_o32_g8", "conv").groups == 4
    assert conv("conv_o32_g2", "conv").groups == 16
    assert conv("fused_e8_g64", "expand.conv").groups == 2
    assert conv("fused_e8_g64", "project.conv").groups == 1
    assert conv("fused_e8_g128", "expand.conv").groups == 1
    assert codes(f"arch net {IMAGE} stem {{ fused_e8_g48 }}") == ["E0305"]


def test_the_stride_of_a_uib_is_the_middle_s_or_the_start_s() -> None:
    assert conv("uib_s3_m5_st2", "middle.conv").stride == (2, 2)
    assert conv("uib_s3_m5_st2", "start.conv").stride == (1, 1)
    assert conv("uib_s3_st21", "start.conv").stride == (2, 1)
    assert codes(f"arch net {IMAGE} stem {{ uib_st2 }}") == ["E0304"]


@pytest.mark.parametrize("kind", ["ir_e6", "ir", "fused_e4", "fused_e1", "uib_m3", "uib"])
def test_a_residual_stands_where_stride_and_width_allow(kind: str) -> None:
    assert has_residual(kind)
    assert has_residual(f"{kind}_o16")
    assert not has_residual(f"{kind}_o24")
    assert not has_residual(f"{kind}_noskip")
    if kind != "uib":
        assert not has_residual(f"{kind}_st2")


def test_a_residual_compares_the_widths_after_scaling() -> None:
    assert not has_residual("k3_o18!")
    arch = block("conv_o12 k3_o16!", "width 1.4 round 8")
    assert widths(arch) == [16, 16]
    assert "1.add" in nodes(arch)


def test_later_repeats_have_a_residual() -> None:
    assert "0.add" not in nodes(block("r2_s22_e6_o24"))
    assert "1.add" in nodes(block("r2_s22_e6_o24"))


def test_convolutions_and_separables_have_no_residual() -> None:
    for text in ("conv", "dw", "sep"):
        assert not has_residual(text)


# -------------------------------------------------------------------------------------- attention


def test_attention_is_normed_projected_attended_and_projected() -> None:
    found = names("mqa_h4_d8")
    assert [name for name in found if isinstance(op("mqa_h4_d8", name), Conv2d)] == [
        "query",
        "key",
        "value",
        "output",
    ]
    assert found[0] == "norm" and found[-1] == "add"
    assert "softmax" in found


def test_multi_query_attention_shares_keys_and_values() -> None:
    assert conv("mqa_h4_d8", "query").out_channels == 32
    assert conv("mqa_h4_d8", "key").out_channels == 8
    assert conv("mha_h4_d8", "key").out_channels == conv("mha_h4_d8", "value").out_channels == 32
    assert conv("mqa_h4_d8_o24", "output").out_channels == 24


def test_keys_and_values_have_each_their_own_reduction() -> None:
    found = names("mqa_h4_d8_kv2_k5")
    for name in ("key_reduce.conv", "value_reduce.conv"):
        assert name in found
        reduction = conv("mqa_h4_d8_kv2_k5", name)
        assert (reduction.kernel, reduction.stride, reduction.groups) == ((5, 5), (2, 2), 16)
    assert "key_reduce.conv" not in names("mqa_h4_d8")


def test_attention_costs_its_two_products() -> None:
    pixels = 32 * 32
    assert block("mqa_h4_d8").cost().macs_attention == 2 * pixels * pixels * 4 * 8
    assert block("mha_h4_d8").cost().macs_attention == 2 * pixels * pixels * 4 * 8
    assert block("mqa_h4_d8_kv2").cost().macs_attention == 2 * pixels * (pixels // 4) * 4 * 8


def test_heads_and_their_width_are_never_scaled() -> None:
    assert conv("mqa_h4_d8", "query", "width 2").out_channels == 32
    assert conv("mqa_h4_d8_o24", "output", "width 2").out_channels == 48


def test_attention_has_a_residual_and_may_have_layer_scale() -> None:
    for kind in ("mqa", "mha"):
        assert has_residual(f"{kind}_h4_d8")
        assert not has_residual(f"{kind}_h4_d8_noskip")
        assert not has_residual(f"{kind}_h4_d8_o24")
        assert names(f"{kind}_h4_d8_ls")[-2:] == ["layer_scale", "add"]


# ------------------------------------------------------------------------- widths and rounding


def test_widths_are_scaled_and_rounded_to_a_multiple_of_eight() -> None:
    assert widths(block("conv_o32 conv_o24 conv_o16", "width 0.75")) == [24, 24, 16]
    assert widths(block("conv_o30")) == [32]


@pytest.mark.parametrize(
    ("written", "rounded"),
    [(1, 8), (8, 8), (11, 16), (12, 16), (18, 24), (20, 24), (36, 40), (45, 48)],
)
def test_rounding_goes_to_the_nearest_and_never_ten_percent_below(
    written: int, rounded: int
) -> None:
    assert widths(block(f"conv_o{written}")) == [rounded]


def test_the_rule_of_rounding_can_be_said() -> None:
    assert widths(block("conv_o30", "round 1")) == [30]
    assert widths(block("conv_o30", "round 4")) == [32]
    assert widths(block("conv_o3", "round 4 min=16")) == [16]
    assert widths(block("conv_o11", "round 8 limit=0")) == [8]
    assert widths(block("conv_o11", "round 8 limit=0.5")) == [8]


def test_an_exclamation_mark_keeps_a_width_as_it_is() -> None:
    assert widths(block("conv_o30! conv_o1280!", "width 0.35")) == [30, 1280]
    assert conv("k3_x100!", "expand.conv", "width 0.35").out_channels == 100


def test_a_plus_keeps_a_width_from_falling() -> None:
    assert widths(block("conv_o1280+", "width 0.35")) == [1280]
    assert widths(block("conv_o1280+", "width 1.4")) == [1792]
    assert widths(block("conv_o1280", "width 0.35")) == [448]


def test_the_expanded_width_follows_the_actual_input_and_is_rounded() -> None:
    assert conv("e6", "expand.conv").out_channels == 96
    assert conv("e3.5", "expand.conv").out_channels == 56
    assert conv("e2.7", "expand.conv").out_channels == 40
    assert conv("e6", "expand.conv", "width 0.35").out_channels == 96


def test_x_is_the_expanded_width_itself() -> None:
    assert conv("k3_x184", "expand.conv").out_channels == 184
    assert conv("k3_x184", "expand.conv", "width 0.5").out_channels == 96
    assert conv("uib_m3_x64", "expand.conv").out_channels == 64
    assert conv("fused_x64", "expand.conv").out_channels == 64
    assert codes(f"arch net {IMAGE} stem {{ k3_e4_x64 }}") == ["E0210"]


def test_an_expanded_width_that_is_the_input_s_expands_nothing() -> None:
    assert "expand.conv" not in names("k3_x16")
    assert "expand.conv" in names("k3_x24")
    assert names("fused_x16_o24") == ["project.conv", "project.norm"]


def test_a_uib_always_expands() -> None:
    assert conv("uib_m3_e1", "expand.conv").out_channels == 16


def test_the_outputs_of_fc_are_the_classes_and_exact() -> None:
    assert block("pool fc", "classes 37 width 0.5").output == (37,)
    assert block("pool fc_o13", "width 0.5").output == (13,)
    assert archdsl.parse(f"arch net {IMAGE} head {{ pool fc }}", classes=7).output == (7,)


def test_depth_multiplies_the_repeats_of_stages_and_rounds_up() -> None:
    body = "stem { r2_k3 } stage { r5_k3 r1_k3 } stage { r3_k3 } head { r2_k3 }"
    paths = [origin.path.rsplit(".", 1)[0] for origin, _ in net(body, "depth 1.2").blocks()]
    assert [paths.count(p) for p in dict.fromkeys(paths)] == [2, 6 + 2, 4, 2]


def test_overrides_replace_what_the_text_says() -> None:
    text = f"arch net {IMAGE} width 0.5 classes 10 stem {{ conv_o32 }} head {{ pool fc }}"
    arch = archdsl.parse(text, width=1.0, input="8x8x3", classes=5)
    assert (arch.input, widths(arch)) == ((8, 8, 3), [32, 32, 5])


# ----------------------------------------------------------------------------- what the file says


def test_activations_are_the_file_s_or_the_block_s() -> None:
    def function(text: str, name: str, attributes: str = "") -> str:
        found = op(text, name, attributes)
        assert isinstance(found, Activation)
        return found.function

    assert function("conv", "act") == "relu"
    assert function("conv", "act", "act hswish") == "hswish"
    assert function("conv_gelu", "act", "act hswish") == "gelu"
    assert function("e6_swish", "expand.act") == function("e6_swish", "depthwise.act") == "swish"
    assert names("conv_linear") == ["conv", "norm"]
    assert names("conv", "act linear") == ["conv", "norm"]
    assert block("pool fc", "act relu6").graph().output.endswith("stem.1")
    assert isinstance(block("pool fc_hswish").graph().nodes[-1].op, Activation)


def test_norm_is_batch_norm_with_torch_s_momentum() -> None:
    found = op("conv", "norm", "norm batch eps=1e-5 momentum=0.1")
    assert found == BatchNorm(16, eps=1e-5, momentum=0.1)


@pytest.mark.parametrize(
    ("size", "text", "same", "symmetric"),
    [
        (32, "conv_k3_s2", (0, 1), 1),
        (31, "conv_k3_s2", (1, 1), 1),
        (32, "conv_k5_s2", (1, 2), 2),
        (32, "conv_k3", (1, 1), 1),
        (32, "conv_k1", (0, 0), 0),
    ],
)
def test_padding_is_tensorflow_s_or_pytorch_s(
    size: int, text: str, same: tuple[int, int], symmetric: int
) -> None:
    def padding(rule: str) -> tuple[int, ...]:
        arch = archdsl.parse(f"arch net input {size}x{size}x16 pad {rule} stem {{ {text} }}")
        found = arch.graph()["stem.0.conv"].op
        assert isinstance(found, Conv2d)
        return found.padding

    assert padding("same") == (*same, *same)
    assert padding("symmetric") == (symmetric,) * 4


@pytest.mark.parametrize(
    ("rule", "inner"),
    [
        ("from=input round=1", 4),
        ("from=expanded round=1", 24),
        ("from=expanded round=8", 24),
        ("from=input round=8", 8),
    ],
)
def test_the_squeeze_is_taken_from_what_the_file_says(rule: str, inner: int) -> None:
    assert conv("e6_se0.25", "se.reduce", f"se {rule}").out_channels == inner
    assert conv("e6_se0.25", "se.expand", f"se {rule}").out_channels == 96


def test_a_squeeze_that_is_not_rounded_is_truncated_and_at_least_one() -> None:
    assert conv("se0.1_e6", "se.reduce").out_channels == 1
    assert conv("se0.24_e6", "se.reduce").out_channels == 3
    assert conv("se0.01_e6", "se.reduce").out_channels == 1


def test_the_squeeze_s_functions_are_the_file_s() -> None:
    assert op("se0.25", "se.gate") == Activation("sigmoid")
    assert op("se0.25", "se.act", "act swish") == Activation("relu")
    assert op("se0.25", "se.gate", "se gate=hsigmoid act=swish") == Activation("hsigmoid")
    assert op("se0.25", "se.act", "se gate=hsigmoid act=swish") == Activation("swish")
    assert op("se0.25", "se.act", "se act=block act hswish") == Activation("hswish")
    assert op("sep_se0.25_gelu", "se.act", "se act=block act hswish") == Activation("gelu")
    assert "se.act" not in names("se0.25_linear", "se act=block")


def test_se0_is_no_squeeze() -> None:
    assert names("se0_e6") == names("e6")


def test_layer_scale_is_the_file_s_or_the_block_s() -> None:
    assert "layer_scale" not in names("uib_m3")
    assert op("uib_m3", "layer_scale", "layer_scale 1e-4") == LayerScale(16, 1e-4)
    assert op("mqa_h1_d8", "layer_scale", "layer_scale 1e-4") == LayerScale(16, 1e-4)
    assert "layer_scale" not in names("uib_m3_nols", "layer_scale 1e-4")
    assert op("uib_m3_ls", "layer_scale") == LayerScale(16, 1e-5)
    assert "layer_scale" not in names("ir_e6", "layer_scale 1e-4")


def test_dropout_has_its_rate() -> None:
    assert block("dropout_p0.2").graph().nodes[-1].op == Dropout(0.2)


def test_droppath_costs_nothing() -> None:
    text = "stage { r3_e6_o24 }"
    assert net(text, "droppath 0.2").cost().params == net(text).cost().params


def test_skip_is_nothing() -> None:
    assert block("conv_o24 skip skip conv").cost().params == block("conv_o24 conv").cost().params


# ------------------------------------------------------------------------------- the contract's own


def test_the_file_of_the_contract_reads() -> None:
    text = """
    # MobileNetV4-Conv-Medium
    arch mnv4_conv_m
    source "arXiv:2404.10518, Table 11"

    input  256x256x3            # height x width x channels
    act    relu                 # default activation
    norm   batch eps=1e-3 momentum=0.01
    pad    same                 # same (TensorFlow) | symmetric (PyTorch)
    round  8                    # channels are rounded to a multiple of 8

    stem {
      conv_k3_s22_o32
    }
    stage c2 { fused_k3_s22_e4_o48 }
    stage c3 {
      uib_s3_m5_st22_e4_o80
      uib_s3_m3_e2
    }
    head {
      conv_k1_o960
      pool
      conv_k1_o1280
      dropout_p0.2
      fc
    }
    """
    arch = archdsl.parse(text)
    assert list(arch.graph().features) == ["c2", "c3"]
    assert arch.output == (1000,)


def test_the_error_of_the_contract_reads() -> None:
    text = "arch net\ninput 8x8x3\nse from=input\nstem { conv_k3_o48 }\nstage {\n"
    text += "  r3_k5_s22_e6_i40_o80_se0.25\n}\n"
    (found,) = archdsl.check(SourceText("net.arch", text))
    assert str(ArchError([found])) == (
        "error[E0203]: declared i40, but the previous block gives 48 channels\n"
        " --> net.arch:6:16\n"
        "  |\n"
        "6 |   r3_k5_s22_e6_i40_o80_se0.25\n"
        "  |                ^^^ here\n"
        "  = help: write i48, or leave i out\n"
    )


def test_a_stride_is_blamed_where_it_is_written() -> None:
    for text, place in (
        ("arch net input 4x4x16 stem { mha_h4_d8_kv5 }", "kv5"),
        ("arch net input 4x4x16 stem { conv_k3_s5_o8 }", "s5"),
    ):
        (found,) = archdsl.check(SourceText("net.arch", text))
        assert found.span is not None
        assert (found.code, found.span.text) == ("E0301", place)


def test_a_faulty_field_is_not_missing_too() -> None:
    assert codes(f"arch net {IMAGE} stem {{ mha_h_d8 }}") == ["E0207"]


def test_a_keyword_is_no_name_on_its_line_alone() -> None:
    assert codes(f"arch act\n{IMAGE}\nstem {{ k3_o16 }}") == ["E0102"]
    assert codes(f"arch\nact\n{IMAGE}\nstem {{ k3_o16 }}") == ["E0405", "E0405"]


def test_what_follows_a_fault_is_passed_over_in_silence() -> None:
    """Up to a word that begins a line, and not up to any other sign that does."""
    assert codes(f"arch net {IMAGE} ( |\n) k3_o16\nstem {{ k3_o16 }}") == ["E0102"]


def test_after_a_hundred_errors_it_is_told_that_there_are_more() -> None:
    found = codes(f"arch net {IMAGE} {'act x=1 ' * 200} stem {{ k3_o16 }}")
    assert len(found) == 101
    assert found[-1] == "E0110"
    assert "E0110" not in found[:-1]


@pytest.mark.parametrize("setting", ["width=x", "input=x", "depth=-1"])
def test_a_variants_setting_is_blamed_where_it_stands(setting: str) -> None:
    text = f"arch net {IMAGE} stem {{ k3_o16 }} variant v {{ {setting} }}"
    (found,) = archdsl.check(SourceText("net.arch", text))
    assert found.span is not None
    assert (found.code, found.span.text) == ("E0403", setting.partition("=")[2])


def test_controls_do_not_reach_a_terminal() -> None:
    span = SourceText("net\x1b[2J.arch", "stem \x07\u202e{").span(0, 4)
    text = render(Diagnostic("E0101", "no \x1b[31mred\n\u2028", span))
    assert "no \ufffd[31mred\ufffd\ufffd\n" in text
    assert "net\ufffd[2J.arch:1:1" in text
    assert "stem \ufffd\ufffd{" in text


def test_the_last_published_statement_that_may_stand() -> None:
    text = f"arch net {IMAGE} stem {{ k3_o16 }}\n"
    assert codes(text + "published top1=3\n" * 256) == []
    assert codes(text + "published top1=3\n" * 257) == ["E0110"]
    assert codes(text + "published top1=3\n" * 259) == ["E0110"]


def test_small_numbers_are_written_with_exponents() -> None:
    assert [decimal(x) for x in (3e-7, 2.5e-6, 0.025)] == ["3e-7", "0.0000025", "0.025"]


def test_published_words_are_quoted_where_they_must() -> None:
    line = 'published params=3.4M top1=72.0 on="a b" source="a paper"\n'
    assert net("stem { k3_o16 }\n" + line).to_text().endswith(line)


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        ("expect params=3504872\n", "expect params=3_504_872\n"),
        ("published params=3504872\n", "published params=3504872\n"),
        ("stem {# why\nk3_o16 }\n", "stem {  # why\n  k3_o16\n}\n"),
        # A comment on its own line begins another column of comments.
        (
            "stage {\nk3_o16 # a\n# then\nk3_e1.5_o32_se0.25 # b\n}\n",
            "stage {\n  k3_o16  # a\n  # then\n  k3_e1.5_o32_se0.25  # b\n}\n",
        ),
    ],
)
def test_what_fmt_makes_of_it(text: str, tidy: str) -> None:
    head = f"arch net\n\n{IMAGE}\n\n".replace(" ", "  ", 1).replace("arch  ", "arch ")
    formatted = format_source(SourceText("net.arch", head + text))
    assert formatted.endswith(tidy)
