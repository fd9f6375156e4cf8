"""What every error and warning code means, as `archdsl explain` and docs/errors.md show it.

Each code has a smallest text that gives it and the same text mended; a test proves both. The texts
are `.arch` files, or what `NOTATIONS` says. Of some a text alone is not at fault, so
`archdsl.demonstrations` asks: E0106 is given by its text saved as Latin-1, E0502 by `--variant
140`, E0503 by `--features c5`, E0606 and W0601 by converting to MnasNet's list, E0701 by a backend
that knows nothing but convolutions, E0702 by compiling to PyTorch, E0906 by fitting a device, W0901
by asking for the time of `mnv1`. Those of E08 and W08 are compiled with a file: `w.safetensors`
holds the initial weights of the mended text (for E0802 cut by a byte, for E0803 with a NaN, for
E0805 and W0801 under the names of a checkpoint, to be imported), and `x.npz` eight images of the
mended text's size. Those of E10 are read as search spaces, but for E1005, whose text is looked for
in one, E1006 to E1009, of which studies are made, E1011, which is a table, E1013 to E1015 and
E1017, whose networks are made faster, and E1016, whose network is refined.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """An error (E) or a warning (W): what it is called, why the rule exists, how to mend it."""

    code: str
    title: str
    explanation: str
    example: str
    repaired: str


NOTATIONS = {
    **{"E0601": "json", "E0602": "json"},
    **{"E0603": "timm", "E0604": "timm", "E0605": "timm", "E0607": "ofa"},
    **{f"E090{number}": "toml" for number in range(1, 6)},
    **{code: "results" for code in ("E0906", "E0907", "E0908", "E0909", "E0910")},
    "W0901": "toml",
    "E1009": "journal",
    "E1011": "csv",
}
"""What the examples of these codes are written in."""


def _codes(*codes: Code) -> dict[str, Code]:
    return {code.code: code for code in codes}


_WEIGHTED = """\
arch net
input 32x32x3
stem { conv_k3_s22_o32 }
"""

CODES: dict[str, Code] = _codes(
    # ------------------------------------------------------------------------- E01: the text
    Code(
        "E0102",
        "a word or a sign that does not fit here",
        "A file is made of statements (`act relu`), sections (`stem { ... }`) and variants. A "
        "statement has one value, which is a word or a text in quotes, and settings written "
        "`key=value`; the words of the language cannot be names. What does not fit is skipped, "
        "and the rest of the file is read.",
        """\
arch net
source MobileNetV2 paper
input 224x224x3
stem { conv_k3_s22_o32 }
""",
        """\
arch net
source "MobileNetV2 paper"
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0103",
        "a brace is missing",
        "The blocks of a section stand in braces, and a section ends where its brace closes: "
        "white space and line ends mean nothing. Where a section begins inside another one, the "
        "first was not closed.",
        """\
arch net
input 224x224x3
stem {
  conv_k3_s22_o32
stage c1 {
  k3_e1_o16
}
""",
        """\
arch net
input 224x224x3
stem {
  conv_k3_s22_o32
}
stage c1 {
  k3_e1_o16
}
""",
    ),
    Code(
        "E0104",
        "an unknown statement or section",
        "A file says its attributes with statements (`input`, `act`, `norm`, `pad`, `round` and "
        "so on) and its layers in three kinds of section: `stem`, `stage` and `head`. An unknown "
        "word is an error rather than passed over, for a misspelt `round` would change the "
        "network in silence.",
        """\
arch net
input 224x224x3
activation relu6
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
act relu6
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0105",
        "a text without its closing quote",
        'A text in quotes ends on the line it begins on. It cannot hold a `"`.',
        """\
arch net
source "arXiv:1801.04381, Table 2
input 224x224x3
stem { conv_k3_s22_o32 }
""",
        """\
arch net
source "arXiv:1801.04381, Table 2"
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0106",
        "the file is not UTF-8",
        "Files are UTF-8, on every machine. This error comes from a file that an editor saved in "
        "another encoding, or that is no text at all. The example gives it when it is saved as "
        "Latin-1; saved as UTF-8 it is right.",
        """\
arch net  # un réseau
input 224x224x3
stem { conv_k3_s22_o32 }
""",
        """\
arch net  # un réseau
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0107",
        "a choice, where one architecture is wanted",
        "`k{3,5}` and `( a | b )` leave something open: the file is a search space, as MnasNet "
        "and MobileNetV3 were searched for in one. Parameters can be counted, and code can be "
        "written, for one architecture only.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k{3,5}_e6_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_e6_o16 }
""",
    ),
    Code(
        "E0110",
        "beyond a limit",
        "Texts, words, blocks and errors are limited, far above any network of this family, so "
        "that no text can take a machine's memory or time. The deepest MobileNets have about "
        "fifty blocks; the limit is 4,096, with repeats counted.",
        """\
arch net
input 224x224x3
stage c1 { r1000_k3_e6_o16 r1000_k3_e6_o16 r1000_k3_e6_o16 r1000_k3_e6_o16 r1000_k3_e6_o16 }
""",
        """\
arch net
input 224x224x3
stage c1 { r10_k3_e6_o16 r10_k3_e6_o16 r10_k3_e6_o16 r10_k3_e6_o16 r10_k3_e6_o16 }
""",
    ),
    # ----------------------------------------------------------------------- E02: block strings
    Code(
        "E0201",
        "an unknown kind of block",
        "A block string begins with its kind: `ir` (inverted residual), `fused`, `uib`, `sep`, "
        "`mqa`, `mha`, `conv`, `dw`, `pool`, `fc`, `dropout` or `skip`. Without a kind it is "
        "`ir`, so that MnasNet's own strings are valid as they are.",
        """\
arch net
input 224x224x3
stem { conf_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0202",
        "an unknown field",
        "After its kind a block string holds fields, joined by `_`: a letter with a value (`k3`, "
        "`se0.25`), or a flag (`noskip`). No kind of block has the field that stands here.",
        """\
arch net
input 224x224x3
se from=input
stage c1 { k5_s22_e6_o40_sse0.25 }
""",
        """\
arch net
input 224x224x3
se from=input
stage c1 { k5_s22_e6_o40_se0.25 }
""",
    ),
    Code(
        "E0203",
        "`i` is not the width of what comes in",
        "A block's input channels are the previous block's output channels, so `i` is never "
        "needed. MnasNet's strings state it all the same; where it is stated it is proved, "
        "which finds a block that was moved or left out. It is compared with the width as it is "
        "written, before the width multiplier.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_e6_i40_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_e6_i32_o16 }
""",
    ),
    Code(
        "E0204",
        "a field that stands twice",
        "Each field of a block may stand once, in any order; a later one does not win. Two "
        "activations are two values of one field.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_k5_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0205",
        "a field of another kind of block",
        "Each kind has its own fields. A `conv` is not squeezed, a `sep` does not expand, and a "
        "`uib` has no `k`, since it has two depthwise kernels: `s` at the start and `m` in the "
        "middle.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { uib_k3_e4_o48 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { uib_m3_e4_o48 }
""",
    ),
    Code(
        "E0206",
        "a field is missing",
        "Most fields have a default. Attention has none for its heads (`h`) and their width "
        "(`d`), nor dropout for its rate (`p`): there is no value that most networks use.",
        """\
arch net
input 16x16x160
stage c4 { mqa_h4_kv2 }
""",
        """\
arch net
input 16x16x160
stage c4 { mqa_h4_d64_kv2 }
""",
    ),
    Code(
        "E0207",
        "a value that the field cannot have",
        "Kernels, strides, widths and repeats are whole numbers from 1, expansion ratios are "
        "more than 0, a squeeze-and-excitation ratio lies between 0 and 1. `o` may have a mark: "
        "`o1280!` is not scaled by the width multiplier, `o1280+` never below its value.",
        """\
arch net
input 224x224x3
se from=input
stage c1 { k3_s22_e6_o40_se4 }
""",
        """\
arch net
input 224x224x3
se from=input
stage c1 { k3_s22_e6_o40_se0.25 }
""",
    ),
    Code(
        "E0208",
        "`s` is not the stride of a `uib`",
        "In MobileNetV4's universal inverted bottleneck `s` is the kernel of the start depthwise "
        "convolution, as `m` is that of the middle one. Its stride is `st`, which may be written "
        "for the stride of every other kind too.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c2 { uib_s22_m3_e4_o48 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c2 { uib_st22_m3_e4_o48 }
""",
    ),
    Code(
        "E0209",
        "an even kernel",
        "Kernels are odd in all MobileNets: 3, 5, sometimes 7. An even one has no middle, so its "
        "output would lie half a pixel beside its input, and no residual would fit.",
        """\
arch net
input 224x224x3
stem { conv_k4_s22_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0210",
        "fields that exclude each other",
        "`e` gives the expanded width as a ratio, `x` gives it itself: a block has one of them. "
        "A fused block that does not expand is a 1x1 convolution, as the official code has it: "
        "it has no expanded map to squeeze or to group. A `uib` without depthwise convolutions has "
        "nothing to group either.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_e6_x184_o48 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_x184_o48 }
""",
    ),
    Code(
        "E0211",
        "attention without heads",
        "Attention compares queries with keys in `h` heads of `d` channels each. With no heads "
        "there is nothing to compare.",
        """\
arch net
input 16x16x160
stage c4 { mqa_h0_d64 }
""",
        """\
arch net
input 16x16x160
stage c4 { mqa_h4_d64 }
""",
    ),
    Code(
        "E0212",
        "a block string that cannot be read",
        "A block string is fields joined by one `_` each, such as `r3_k5_s22_e6_o80_se0.25`: "
        "letters, and digits after them. Blocks are parted by spaces or line ends.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32, conv_k1_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 conv_k1_o16 }
""",
    ),
    Code(
        "E0213",
        "the kind stands after a field",
        "The fields may stand in any order, but the kind comes first: it says what the letters "
        "mean.",
        """\
arch net
input 224x224x3
stem { k3_s22_o32_conv }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    # ----------------------------------------------------------------------- E03: the network
    Code(
        "E0301",
        "the image is too small",
        "Each stride of 2 halves the map. Where fewer pixels are left than a stride steps over, "
        "the network has more strides than its image can take.",
        """\
arch net
input 2x2x3
stem { conv_k3_s22_o16 conv_k3_s22_o16 }
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 conv_k3_s22_o16 }
""",
    ),
    Code(
        "E0302",
        "a linear layer on a feature map",
        "`fc` weighs a vector of features. In every MobileNet the map is averaged first, by "
        "`pool`, so that the number of weights does not depend on the image's size.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
head { fc }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
head { pool fc }
""",
    ),
    Code(
        "E0303",
        "a depthwise convolution that changes the width",
        "A depthwise convolution filters each channel by itself, so it gives as many as it "
        "takes. What mixes channels is the 1x1 convolution that follows: the two together are "
        "MobileNetV1's `sep`.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 dw_k3_o64 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 sep_k3_o64 }
""",
    ),
    Code(
        "E0304",
        "a stride and nothing to carry it",
        "In a `uib` a depthwise convolution takes the stride: the middle one, or the start one "
        "where there is no middle one. The block with neither is a feed-forward network of 1x1 "
        "convolutions, which keeps the map's size.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c2 { uib_st22_e4_o48 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c2 { uib_m3_st22_e4_o48 }
""",
    ),
    Code(
        "E0305",
        "groups that do not fit",
        "With `g64` a convolution works in groups of 64 output channels: a `conv`, the expansion "
        "of a `fused` block (EdgeTPU-V2), and what is depthwise without it in the other kinds. Its "
        "output must be a multiple of 64, and its input must part into as many equal groups.",
        """\
arch net
input 56x56x48
stage c2 { fused_k3_e6_g64_o48 }
""",
        """\
arch net
input 56x56x48
stage c2 { fused_k3_e8_g64_o48 }
""",
    ),
    Code(
        "E0306",
        "the file has no blocks",
        "An architecture is its blocks; they stand in `stem`, `stage` and `head`.",
        """\
arch net
input 224x224x3
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0307",
        "a block for feature maps after `fc`",
        "`fc` leaves a vector, which has neither height nor width: no convolution, no pooling "
        "and no attention can follow it. MobileNetV3 and V4 widen their features after `pool` "
        "with a 1x1 convolution, which goes before `fc`.",
        """\
arch net
input 224x224x3
head { pool fc_o10 conv_k1_o1280 }
""",
        """\
arch net
input 224x224x3
head { pool conv_k1_o1280 fc_o10 }
""",
    ),
    # ----------------------------------------------------------------- E04: statements and names
    Code(
        "E0401",
        "a statement that no file can do without",
        "Every file says the architecture's name (`arch`) and the size of its image (`input`); "
        "all else has a default. The size has none, since MACs and memory depend on it.",
        """\
arch net
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0402",
        "a statement that stands twice",
        "Each statement holds for the whole file, wherever it stands; a later one does not win. "
        "Only `published` may stand more than once, once for each source.",
        """\
arch net
input 224x224x3
act relu
act relu6
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
act relu6
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0403",
        "a value that the statement cannot have",
        "The message says which values there are. An image is height x width x channels, as in "
        "`224x224x3`.",
        """\
arch net
input 224x224
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0404",
        "an unknown key",
        "Each statement has its own keys, and a misspelt one would change the network in "
        "silence. Only `published` takes any key, for facts that nobody can compute (`top1=75.2`).",
        """\
arch net
input 224x224x3
norm batch epsilon=1e-5
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
norm batch eps=1e-5
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0405",
        "a value is missing",
        "A statement without its value says nothing. To have the default, leave the statement out.",
        """\
arch net
input 224x224x3
act
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
act relu
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0406",
        "sections in another order than the data's",
        "A picture goes through the stem, then the stages in the order in which they stand, then "
        "the head. A file has at most one stem and one head.",
        """\
arch net
input 224x224x3
head { pool fc }
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
head { pool fc }
""",
    ),
    Code(
        "E0407",
        "two stages of one name",
        "A stage's name names its output, which a detector or a segmentation head takes as a "
        "feature map, and it is part of the names of its weights. A stage without a name is "
        "called `stage1`, `stage2` and so on, by its position.",
        """\
arch net
input 224x224x3
stage c2 { k3_s22_o16 }
stage c2 { k3_s22_o24 }
""",
        """\
arch net
input 224x224x3
stage c2 { k3_s22_o16 }
stage c3 { k3_s22_o24 }
""",
    ),
    Code(
        "E0408",
        "not a name",
        "Names become file names, Python classes and keys of weight files, so they are made of "
        "small letters, digits and `_`. Only stages have names; there is one stem and one head.",
        """\
arch MobileNet-V2
input 224x224x3
stem { conv_k3_s22_o32 }
""",
        """\
arch mobilenet_v2
input 224x224x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0409",
        "a key that stands twice",
        "Each key may stand once in a statement; a later one does not win.",
        """\
arch net
input 224x224x3
norm batch eps=1e-3 eps=1e-5
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 224x224x3
norm batch eps=1e-5
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0412",
        "`expect` does not hold",
        "`expect` states exact figures, and a change of the network that nobody meant shows at "
        "once. Parameters are the trainable ones; MACs are those of convolutions, linear layers "
        "and attention, for the file's own image and classes.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
expect params=992
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
expect params=928
""",
    ),
    # --------------------------------------------------------------------------- E05: variants
    Code(
        "E0501",
        "two variants of one name",
        "A variant is asked for by its name: `--variant 075`, or `net_075` from anywhere.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
variant 075 { width=0.75 }
variant 075 { width=0.5 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
variant 075 { width=0.75 }
variant 050 { width=0.5 }
""",
    ),
    Code(
        "E0502",
        "no such variant",
        "`--variant NAME` takes a variant that the file has. Any other width, image or number of "
        "classes can be had without one: `--width 1.4`, `--input 192x192x3`, `--classes 10`. The "
        "example gives this error with `--variant 140`.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
variant 075 { width=0.75 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
variant 075 { width=0.75 }
variant 140 { width=1.4 }
""",
    ),
    Code(
        "E0503",
        "no such stage to take feature maps from",
        "`--features c3,c4,c5` makes the feature maps of these stages outputs of the artefact, "
        "under the names of the stages, as detectors need them. The example gives this error with "
        "`--features c5`.",
        """\
arch net
input 32x32x3
stage c4 { k3_s22_o16 }
""",
        """\
arch net
input 32x32x3
stage c4 { k3_s22_o16 }
stage c5 { k3_s22_o24 }
""",
    ),
    # ------------------------------------------------------------------------------- E06: JSON
    Code(
        "E0601",
        "not JSON",
        "An architecture as JSON is read strictly: no comments, no trailing commas, no NaN, and "
        "no key twice in one object, since readers differ in which one they take.",
        """\
{"name": "net", "attributes": {"input": [224, 224, 3]},
 "stem": [{"kind": "conv", "out_channels": 32},]}
""",
        """\
{"name": "net", "attributes": {"input": [224, 224, 3]},
 "stem": [{"kind": "conv", "out_channels": 32}]}
""",
    ),
    Code(
        "E0602",
        "JSON, but not an architecture",
        "The JSON form of an architecture has the same fields as a file, under whole names: "
        "`out_channels` is `o`. `archdsl schema` prints its JSON Schema.",
        """\
{"name": "net", "attributes": {"input": [224, 224, 3]},
 "stem": [{"kind": "conv", "kernel_size": 3, "out_channels": 32}]}
""",
        """\
{"name": "net", "attributes": {"input": [224, 224, 3]},
 "stem": [{"kind": "conv", "kernel": 3, "out_channels": 32}]}
""",
    ),
    # -------------------------------------------------------- E06: notations of other libraries
    Code(
        "E0603",
        "neither a Python literal nor JSON",
        "timm's `arch_def` and MnasNet's list stand in Python code, so that they are read as "
        "Python's literals are written, or as JSON: lists, strings, numbers. Nothing is evaluated, "
        "and a name or a call is no value. The example is read with `--from timm`.",
        """\
[["ds_r1_k3_s1_e1_c16"], [f"ir_r2_k3_s2_e6_c24"]]
""",
        """\
[["ds_r1_k3_s1_e1_c16"], ["ir_r2_k3_s2_e6_c24"]]
""",
    ),
    Code(
        "E0604",
        "a faulty key of another library's configuration",
        "The keys of another library's configuration have the names and the types that they have "
        "there. An unknown key is an error rather than passed over, since it may have been meant "
        "for one that changes the network; no key stands twice. The example is read with "
        "`--from timm`.",
        """\
{"arch_def": [["ds_r1_k3_s1_e1_c16"]], "chanel_multiplier": 0.75}
""",
        """\
{"arch_def": [["ds_r1_k3_s1_e1_c16"]], "channel_multiplier": 0.75}
""",
    ),
    Code(
        "E0605",
        "a network that this language cannot say",
        "Other libraries build networks of parts that this language has no blocks for: "
        "convolutions that depend on the image (`cc`), kernels of several sizes in one layer, "
        "other norms. A network without them would be another one, so that it is not read at "
        "all. The example is read with `--from timm`.",
        """\
[["ds_r1_k3_s1_e1_c16"], ["ir_r4_k5_s2_e6_c192_se0.25_cc4"]]
""",
        """\
[["ds_r1_k3_s1_e1_c16"], ["ir_r4_k5_s2_e6_c192_se0.25"]]
""",
    ),
    Code(
        "E0606",
        "a network that the other notation cannot say",
        "`archdsl convert --to` writes a network only where the other library builds the same "
        "one of it. All that has no place there is reported at once. The example is written with "
        "`--to mnasnet`, whose blocks are inverted residuals with relu.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage { sep_k3_o16 }
head { conv_k1_o1280! pool fc }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage { k3_o16 }
head { conv_k1_o1280! pool fc }
""",
    ),
    Code(
        "E0607",
        "a net.config of another family",
        "Once-for-All and ProxylessNAS write one format for several families of networks. Those "
        "of mobile inverted blocks, `MobileNetV3` and `ProxylessNASNets`, are read; a ResNet's "
        "bottlenecks are none of this language's blocks. The example is read with `--from ofa`.",
        """\
{"name": "ResNets", "input_stem": [], "blocks": [], "classifier": {}}
""",
        """\
{"name": "ProxylessNASNets",
 "first_conv": {"name": "ConvLayer", "kernel_size": 3, "stride": 2, "in_channels": 3,
  "out_channels": 32, "act_func": "relu6"},
 "blocks": [{"name": "ResidualBlock", "shortcut": null, "conv": {"name": "MBConvLayer",
  "in_channels": 32, "out_channels": 16, "kernel_size": 3, "stride": 1, "expand_ratio": 1}}],
 "feature_mix_layer": null,
 "classifier": {"name": "LinearLayer", "in_features": 16, "out_features": 1000}}
""",
    ),
    # --------------------------------------------------------------------------- E07: backends
    Code(
        "E0701",
        "an operator that the backend does not have",
        "A backend writes what its format can say. The backends of this package know every "
        "operator of the language; one of a stranger's may not, and a stranger's block may be "
        "made of other operators. Every place is reported, and nothing is written. The example "
        "gives this error with a backend that knows nothing but convolutions.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o16 }
head { conv_k1_o64! pool }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o16 }
head { conv_k1_o64! }
""",
    ),
    Code(
        "E0702",
        "the PyTorch module cannot have this stage name",
        "In the emitted module a stage's name is an attribute and a part of the keys of its "
        "weights. Some names are taken: `pop` is a method of the `torch.nn.ModuleDict` that "
        "holds the stages, and Python keeps words such as `pass` for itself.",
        """\
arch net
input 224x224x3
stage pop { k3_s22_o16 }
""",
        """\
arch net
input 224x224x3
stage c1 { k3_s22_o16 }
""",
    ),
    # ---------------------------------------------------------------------------- E08: weights
    Code(
        "E0801",
        "weights that are not this network's",
        "A set of weights has the keys of the emitted PyTorch module, with the shapes that the "
        "network gives them, and floating numbers; all are compared before anything is read. "
        "Counters of batches may be missing. In the example the weights are those of the repaired "
        "network. Checkpoints of other libraries are read by `archdsl weights import`.",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0802",
        "not a weight file, or a part of one",
        "Weights are safetensors. A file is used only if its table of tensors, their places and "
        "its size agree: a copy that stopped half-way does not. Of checkpoints to import, files "
        "that reach beyond themselves are refused too: pickles that call functions, links and "
        "data in other files, archives that unpack to far more. In the example the file lacks its "
        "last byte.",
        _WEIGHTED,
        _WEIGHTED,
    ),
    Code(
        "E0803",
        "weights that are not finite",
        "A weight that is infinite or not a number, or a variance below zero, makes every output "
        "of the network meaningless, and integers cannot stand for it. In the example the first "
        "weight is not a number.",
        _WEIGHTED,
        _WEIGHTED,
    ),
    Code(
        "E0804",
        "images that the network does not take",
        "Images to calibrate or to judge with are a `.npz` file with an array `images`, floating "
        "and of shape (count, height, width, channels), or photos and pixels of uint8, for which "
        "`--preprocess` names how the network was trained to see them. In the example the images "
        "have 32x32 pixels.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o32 }
""",
    ),
    Code(
        "E0805",
        "a checkpoint of another network",
        "An imported checkpoint has other names, so its layers are told by kind, shape and order. "
        "The table shows the first that differs. A checkpoint whose names do not tell the order "
        "of equal layers is refused too, since a guess could pass and compute nonsense. In the "
        "example the checkpoint is the repaired network's.",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
stage c1 { sep_k3_o32 }
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
stage c1 { sep_k5_o32 }
""",
    ),
    # ----------------------------------------------------------------- E09: device profiles
    Code(
        "E0901",
        "a device profile that is not TOML",
        "Profiles of devices are TOML: a line `key = value` for each number, texts in quotes, "
        "a header `[[profile]]` before each profile.",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = int8
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
""",
    ),
    Code(
        "E0902",
        "a profile that lacks something",
        "A profile says its name, its dtype, whether its numbers are nominal or calibrated, "
        "its peak and its bandwidth, or, calibrated, a ridge point alone. Where no bandwidth "
        "is known, `bandwidth_gbs = inf` leaves memory out and says so.",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
""",
    ),
    Code(
        "E0903",
        "an unknown key in a profile",
        "An unknown key is an error rather than passed over, for a misspelt number would "
        "change the latency in silence. docs/latency.md lists the keys.",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwith_gbs = 12.8
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
""",
    ),
    Code(
        "E0904",
        "a value that a profile cannot have",
        "Rates are positive numbers in the unit that the key names: `peak_gmacs` are 10^9 "
        "MAC/s (a MAC is two FLOP), `bandwidth_gbs` 10^9 bytes/s. Times and capacities may be "
        "zero; shares lie above it.",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = -12.8
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
""",
    ),
    Code(
        "E0905",
        "numbers of a profile that contradict each other",
        "A nominal profile holds what data sheets say; overheads, efficiencies and ridge "
        "points are fitted to measured times, and a profile that has them is calibrated and "
        "says how. The two are never mixed. A ridge point has no times, so it stands without "
        "a peak and a bandwidth; two profiles of a file have two names; a range ends behind "
        "its beginning.",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
efficiency.depthwise = 0.3
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "calibrated"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
efficiency.depthwise = 0.3
calibration.method = "fitted by hand to three networks"
""",
    ),
    # ------------------------------------------------------------------------ E09: measured times
    Code(
        "E0906",
        "too few measured times, or times of no device",
        "A device has a peak and a bandwidth at least: three networks fix the two, and can "
        "contradict them. With more of them more numbers are fitted, always fewer than there are "
        "measurements.",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv1", "us": 14061.0},
  {"name": "mnv2", "us": 8933.0}
 ]
}
""",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv1", "us": 14061.0},
  {"name": "mnv2", "us": 8933.0},
  {"name": "mnv3_large", "us": 7168.0}
 ]
}
""",
    ),
    Code(
        "E0907",
        "measured times in no known format",
        "Read are the `results.json` of a bench kit, the output of LiteRT's `benchmark_model`, "
        "profiles of ONNX Runtime and of AI Hub, and tables with the columns `network` and `us` "
        "(or `ms`). A file that was cut off is none of them.",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 8933.0},
""",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 8933.0}
 ]
}
""",
    ),
    Code(
        "E0908",
        "a measured time, or what is said of it, that cannot be",
        "A time is a positive number. What is measured has a type of numbers, `float32`, "
        "`float16` or `int8`: the file says it, the bench kit, or `--dtype`.",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 0}
 ]
}
""",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 8933.0}
 ]
}
""",
    ),
    Code(
        "E0909",
        "the measured network is another one",
        "A network is found by its name, and where its MACs, its parameters or the checksum of its "
        "file are recorded, these are proved: a time of another network under the same name would "
        "spoil every number that is fitted to it.",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "macs": 582195824, "us": 16241.0}
 ]
}
""",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2_140", "macs": 582195824, "us": 16241.0}
 ]
}
""",
    ),
    Code(
        "E0910",
        "measured times that do not belong together",
        "One profile is fitted to times of one runtime, one type of numbers and one number of "
        "threads on one machine, and each network has one time.",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 8933.0},
  {"name": "mnv2", "us": 9817.0}
 ]
}
""",
        """\
{
 "runtime": "onnxruntime", "dtype": "float32",
 "networks": [
  {"name": "mnv2", "us": 8933.0}
 ]
}
""",
    ),
    # ------------------------------------------------------------------------------- warnings
    Code(
        "W0501",
        "a published figure that the network does not have",
        "Papers print rounded figures, and some of them are wrong or count otherwise: MACs as "
        "two operations each, parameters without batch norms, a network that is not the "
        "released one. A figure that exact counting does not round to is worth a look, but it is "
        "no fault of the text: it is a warning, not an error.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
published params=1.2K source="arXiv:0000.00000, Table 1"
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
published params=0.9K source="arXiv:0000.00000, Table 1"
""",
    ),
    Code(
        "W0502",
        "a width that is rounded",
        "Channels are rounded to a multiple of the `round` statement's number, as in all "
        "MobileNets, since hardware works on vectors of eight. A width that is written otherwise "
        "is not the width that the network has.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o20 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o20! }
""",
    ),
    Code(
        "W0503",
        "what the squeeze-and-excitation ratio is taken from",
        "In MnasNet `se0.25` is a quarter of the block's input width, in MobileNetV3 a quarter "
        "of the expanded width, four or six times as wide. Both are written 0.25 in papers and "
        "code, so a file should say which one it means.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o16 }
stage c1 { k5_s22_e3_o40_se0.25 }
""",
        """\
arch net
input 224x224x3
se from=input round=1 act=relu gate=sigmoid
stem { conv_k3_s22_o16 }
stage c1 { k5_s22_e3_o40_se0.25 }
""",
    ),
    Code(
        "W0601",
        "something that stays behind in a conversion",
        "Other notations have no place for a network's source, its published figures, its "
        "variants or the names of its stages. The network is the same without them, and "
        "`archdsl convert` says what it leaves out. The example is written with `--to mnasnet`.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage c1 { k3_o16 }
head { conv_k1_o1280! pool fc }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o32 }
stage { k3_o16 }
head { conv_k1_o1280! pool fc }
""",
    ),
    Code(
        "W0801",
        "a checkpoint of a network with other settings",
        "Padding and the norms' `eps` are in no checkpoint: a network that has others takes the "
        "same weights and computes something else. By the names of its layers this checkpoint is "
        "of a library that has no such network with the text's settings. In the example it is one "
        "of torchvision's MobileNetV2.",
        """\
arch net
input 32x32x3
norm batch eps=1e-3
pad same
stem { conv_k3_s22_o8 }
stage c1 { k3_s22_e2_o8 }
""",
        """\
arch net
input 32x32x3
norm batch eps=1e-5
pad symmetric
stem { conv_k3_s22_o8 }
stage c1 { k3_s22_e2_o8 }
""",
    ),
    # ------------------------------------------------------------------ E10: search spaces
    Code(
        "E1001",
        "an option that no network can have",
        "Every option of a search space has to be of use: there must be a network of the space "
        "that has it. What excludes what is found from the shapes, and from the declared widths; "
        "the help says what would be wrong with such a network.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o{16,24} }
stage c1 { k3_e{3,6}_i16_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o{16,24} }
stage c1 { k3_e{3,6}_o16 }
""",
    ),
    Code(
        "E1002",
        "a statement that speaks of one network, in a search space",
        "`expect` and `variant` belong to a network. The networks of a space differ in what they "
        "cost, and widths and images are left open by alternatives: `width ( 0.75 | 1 )`.",
        """\
arch net
input 224x224x3
stem { conv_k{3,5}_s22_o16 }
expect params=464
""",
        """\
arch net
input 224x224x3
stem { conv_k{3,5}_s22_o16 }
""",
    ),
    Code(
        "E1003",
        "a choice that is none",
        "A choice has at least two options, and they differ: or else a network would be counted "
        "twice, and drawn twice as often as others.",
        """\
arch net
input 224x224x3
stem { conv_k{3,5,3}_s22_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k{3,5}_s22_o16 }
""",
    ),
    Code(
        "E1004",
        "layers that choose for themselves, and nobody says how many",
        "`each` repeats a block whose layers decide for themselves, so it needs `r`.",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o16 }
stage c1 { each_k{3,5}_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k3_s22_o16 }
stage c1 { each_r{2,3}_k{3,5}_o16 }
""",
    ),
    Code(
        "E1005",
        "a network that is not in the space",
        "`Space.encode` finds the vector of a network, however its text is written, as long as "
        "its operators are those of a member. The place is that of the first block with which "
        "no member goes on. In the example the space has `conv_k{3,5}_s22_o16`, and nothing else.",
        """\
arch net
input 224x224x3
stem { conv_k7_s22_o16 }
""",
        """\
arch net
input 224x224x3
stem { conv_k5_s22_o16 }
""",
    ),
    Code(
        "E1006",
        "a study of something else",
        "`archdsl search` goes on with the study that it finds in its folder, or where `--storage` "
        "says; then too a folder has the results of one study. What is there was found under the "
        "space, the objectives, the evaluator with its settings, the algorithm and the seed of the "
        "time, and means nothing under others: name another folder, or search as before. How many "
        "are evaluated, where, and how long each may take can change. The example goes on with a "
        "study of the repaired space.",
        """\
arch net
input 32x32x3
stem { conv_k{3,5}_s22_o{16,24} }
head {
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stem { conv_k{3,5}_s22_o{16,32} }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1007",
        "a bound or a target that no network of the space reaches",
        "Before anything is evaluated, the least that any network of the space has of each figure "
        "is found, exactly, and held against the bounds (`--max-params`) and the target "
        "(`--target-ms`). A device whose fast memory holds weights is held against a time that no "
        "network falls below. The example is searched for networks of at most 400 parameters.",
        """\
arch net
input 32x32x3
stem { conv_k{3,5}_s22_o{16,24} }
""",
        """\
arch net
input 32x32x3
stem { conv_k{1,3}_s22_o{8,24} }
""",
    ),
    Code(
        "E1008",
        "an evaluator that never works",
        "A network whose evaluation fails costs the search that network alone. Where the first "
        "five all fail in the same way the fault is not theirs, and the search ends. The example's "
        "evaluator takes images of 32x32 pixels alone.",
        """\
arch net
input 96x96x3
stem { conv_k{1,3,5}_s22_o{16,24} }
""",
        """\
arch net
input 32x32x3
stem { conv_k{1,3,5}_s22_o{16,24} }
""",
    ),
    Code(
        "E1009",
        "a file that holds no study",
        "A study is kept in the journal of a storage of Optuna's, a line of JSON for each event. A "
        "last line that was cut when a process was killed is taken away, and its trial is tried "
        "again; anything else that is no such line is left alone, and the study is not begun.",
        """\
number,state,accuracy
0,complete,0.9
""",
        """\
{"op_code":0,"worker_id":"w","study_name":"net","directions":[2]}
""",
    ),
    Code(
        "E1010",
        "data that nothing can be learned from",
        "The evaluator `train` takes a folder that has a folder of photos for each class, or a "
        "`.npz` file with `x`, images (count, height, width) or (count, height, width, channels), "
        "and `y`, a whole number for each (docs/evaluators.md). There must be two classes or more, "
        "and an image to judge by. A network takes them as 1 or 3 channels.",
        """\
arch net
input 32x32x2
stem { conv_k3_s22_o8 }
head {
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o8 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1011",
        "a table of accuracies that is none",
        "`archdsl rank --accuracies TABLE` takes a search's `trials.csv` or `trials.jsonl`, or a "
        "table of your own: CSV with a line of column names, objects of JSON on a line each or in "
        "a list, or one object of JSON with a number for each name. The columns are `name` (or "
        "`network`, `model`) and `accuracy`; others are passed over, and so are rows that have no "
        "accuracy. A network has one accuracy, which is a finite number.",
        """\
name,accuracy
net_3,0.981
net_7,98.1 %
""",
        """\
name,accuracy
net_3,0.981
net_7,0.981
""",
    ),
    Code(
        "E1013",
        "a latency that no shrinking reaches",
        "`archdsl netadapt` shrinks the widths of a network's stages, and stops where none is "
        "left that saves as much as a step has to. What was reached until then is printed and "
        "written. The example is asked to take 0.5 ms on a device of 1 GMAC/s and 1 GB/s.",
        """\
arch net
input 64x64x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o24 }
head {
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o24 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1014",
        "no network that the evaluator could evaluate",
        "Of a proposal without an accuracy nothing is known, and it is dropped; where that is "
        "true of all proposals of a step, or of the network that is begun with, `archdsl "
        "netadapt` cannot go on. The example's evaluator has images of 32x32 pixels.",
        """\
arch net
input 64x64x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o24 }
head {
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o24 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1015",
        "a network without a width that could shrink",
        "NetAdapt shrinks what blocks of stages expand to and what they give. Stem and head "
        "stay as they are, but for a width that a residual ties to a stage, and so does all "
        "that follows a `pool`. The example is asked to take 0.5 ms, as in E1013.",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
head {
  conv_k1_o256
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stem { conv_k3_s22_o16 }
stage c1 { conv_k1_o256 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1016",
        "a network whose blocks have no kernels to refine",
        "MobileNetV4's second stage decides for each universal inverted bottleneck (`uib`) which "
        "depthwise convolutions it has, and of which size. `archdsl oneshot --fine` goes there "
        "from the winner of the first stage, which therefore needs such blocks in its stages.",
        """\
arch net
input 32x32x3
stage c1 { r2_k3_s22_e4_o16 }
head {
  pool
  fc
}
""",
        """\
arch net
input 32x32x3
stage c1 { uib_r2_m3_st22_e4_o16 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "E1017",
        "an adaptation of something else",
        "`archdsl netadapt --report FOLDER` goes on with what it finds in the folder. It was found "
        "for the network, the device, the target, the step, the evaluator with its settings and "
        "the weights of the time, and means nothing for others: name another folder, or ask as "
        "before. How many steps are taken, how many networks are evaluated at once, and how long "
        "each may take can change. A broken journal is refused as well, but for a last line that "
        "was cut when a process was killed. The example goes on with an adaptation of the repaired "
        "network.",
        """\
arch net
input 64x64x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o32 }
head {
  pool
  fc
}
""",
        """\
arch net
input 64x64x3
stem { conv_k3_s22_o16 }
stage c1 { r2_k3_s22_e6_o24 }
head {
  pool
  fc
}
""",
    ),
    Code(
        "W0901",
        "a time beyond what was measured",
        "A calibrated profile foretells well what lies among the networks that it was fitted to. "
        "It says how long the shortest and the longest of them took (`range_us`), and which "
        "classes of operators they had (`classes`); what lies beyond is extrapolated.",
        """\
device = "My board"

[[profile]]
name = "board-cpu"
dtype = "float32"
mode = "calibrated"
peak_gmacs = 20
bandwidth_gbs = 10

[profile.calibration]
method = "measured by hand"
range_us = [50, 9000]
classes = ["conv", "depthwise", "elementwise"]
""",
        """\
device = "My board"

[[profile]]
name = "board-cpu"
dtype = "float32"
mode = "calibrated"
peak_gmacs = 20
bandwidth_gbs = 10

[profile.calibration]
method = "measured by hand"
range_us = [50, 90000]
classes = ["conv", "depthwise", "elementwise", "linear", "pointwise"]
""",
    ),
)
"""Every code, in order."""
