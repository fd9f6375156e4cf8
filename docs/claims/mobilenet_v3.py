"""MobileNetV3: its redrawn ends, squeeze-and-excitation, and hard swish."""

from __future__ import annotations

import math
from collections.abc import Iterator

import archdsl
from claims.page import Claim, Paper, Text, near, ours, printed, reduction, said

V3 = Paper("MobileNetV3", "1905.02244")

NETWORK = Text("mnv3_large")
DEVICE = "pixel1-cpu-fp32"


def claims() -> Iterator[Claim]:
    """In the order of the paper."""
    yield last_stage()
    yield stem()
    yield hard_swish()
    yield squeeze()


def milliseconds(text: Text) -> float:
    """The nominal time on a big core of a Pixel 1, where the paper measures."""
    return (text.arch.latency(archdsl.load_device(DEVICE)).us or math.nan) / 1000


def last_stage() -> Claim:
    """Section 5.1: the last bottleneck and the features behind the pool."""
    old = Text(
        "mnv3_large",
        (
            ("conv_k1_o960\n", "k3_e6_o320\n conv_k1_o1280+\n"),
            ("pool\n conv_k1_o1280+_bias_nonorm", "pool"),
        ),
    )
    before, after = old.arch.cost(), NETWORK.arch.cost()
    slow, fast = milliseconds(old), milliseconds(NETWORK)
    return Claim(
        "last_stage",
        "The cheaper last stage",
        "30M multiplications and 11 % of the time less",
        V3,
        "section 5.1, Figure 5",
        "with its last convolution behind the pool, the network can leave out three layers: 30M "
        "multiplications and 7 ms, 11 % of the running time, on a Pixel 1.",
        [old, NETWORK],
        [
            printed("multiplications saved", "30M", before.macs - after.macs, to=10),
            near(f"time saved (nominal, `{DEVICE}`)", "11", reduction(slow, fast), unit=" %"),
            ours("time saved (nominal)", slow - fast, unit=" ms"),
            ours("parameters more", after.params - before.params),
        ],
        "30M is a round figure, and the count is 34.3M: a depthwise 3x3 on 960 channels, a "
        "projection to 320 and 1280 features at 7x7 go, 1280 features at one position come. The "
        "old last stage is read from the figure as MobileNetV2 and MnasNet-A1 end, with a 3x3 "
        "kernel. The estimate gives the time the share of the multiplications; the phone saved "
        "less of it. An earlier version of the paper says 10 ms and 15 %.",
    )


def stem() -> Claim:
    """Section 5.1: 16 filters in the stem."""
    old = Text("mnv3_large", (("conv_k3_s22_o16", "conv_k3_s22_o32"),))
    before, after = old.arch.cost(), NETWORK.arch.cost()
    filters = before.layers[0].macs - after.layers[0].macs
    return Claim(
        "stem",
        "16 filters in the stem",
        "10M multiplications and 2 ms less",
        V3,
        "section 5.1",
        'hard swish does with 16 filters what takes 32 otherwise, which "saves an additional 2 '
        'milliseconds and 10 million MAdds".',
        [old, NETWORK],
        [
            printed("multiplications saved", "10M", before.macs - after.macs),
            ours("of these in the stem", filters),
            ours("of these in the block behind it", before.macs - after.macs - filters),
            near(
                f"time saved (nominal, `{DEVICE}`)",
                "2",
                milliseconds(old) - milliseconds(NETWORK),
                unit=" ms",
            ),
        ],
        "The multiplications are those of the stem and of the first block, whose input is half "
        "as wide too; the stem alone saves half of it. A nominal core computes at its peak from "
        "the first layer on; the phone was slower there.",
    )


def hard_swish() -> Claim:
    """Section 6.2.1, Table 5: what the activation costs."""
    relu = Text("mnv3_large", (("act hswish", "act relu"),))
    own, other = NETWORK.arch.cost(), relu.arch.cost()
    return Claim(
        "hard_swish",
        "Hard swish",
        "1 ms more than ReLU",
        V3,
        "section 6.2.1, Table 5",
        '"optimized h-swish only adds an additional 1ms compared to traditional ReLU": 51.4 ms '
        "against 50.5 ms on a Pixel 1, and 57.5 ms where it is not optimized.",
        [NETWORK, relu],
        [
            said("multiplications more", "free", own.macs - other.macs, own.macs == other.macs),
            said(
                "bytes more",
                "free",
                own.activation_bytes - other.activation_bytes,
                own.activation_bytes == other.activation_bytes,
            ),
            near(
                f"time with, as a multiple of without (nominal, `{DEVICE}`)",
                "1.02",
                milliseconds(NETWORK) / milliseconds(relu),
            ),
        ],
        "To a nominal roofline an activation runs in the convolution before it, and costs nothing. "
        "That is the optimized case, to the 2 % that it measures; the 14 % of the other one no "
        "count shows.",
    )


def squeeze() -> Claim:
    """Section 5.3: a quarter of the expanded width instead of the input's."""
    without = Text("mnv3_large", (("_se0.25", ""),))
    of_input = Text("mnv3_large", (("se from=expanded round=8", "se from=input round=1"),))
    own, small, none = (text.arch.cost() for text in (NETWORK, of_input, without))
    more = 100 * (own.params / small.params - 1)
    slower = 100 * (milliseconds(NETWORK) / milliseconds(of_input) - 1)
    return Claim(
        "squeeze",
        "The larger squeeze-and-excitation",
        "modestly more parameters, no latency",
        V3,
        "section 5.3",
        "the squeeze, which MnasNet makes a quarter of the block's input, is made a quarter of the "
        'expanded width: "at the modest increase of number of parameters, and no discernible '
        'latency cost".',
        [NETWORK, of_input, without],
        [
            said("parameters more", "modest", more, more <= 10, unit="%"),
            said(
                "multiplications more",
                "not discernible",
                100 * (own.macs / small.macs - 1),
                own.macs / small.macs <= 1.02,
                unit="%",
            ),
            said(
                f"time more (nominal, `{DEVICE}`)", "not discernible", slower, slower <= 2, unit="%"
            ),
            ours("share of the parameters", reduction(own.params, none.params), unit="%"),
            ours("share of the multiplications", reduction(own.macs, none.macs), unit="%"),
        ],
        "Modest is taken as up to 10 %, not discernible as up to 2 %. The time is as the paper "
        "says, since the squeeze runs at one position. The parameters are not a modest increase: "
        "squeeze-and-excitation has more than a quarter of this network's, and where weights "
        "are read anew for each image, at high ridge points, they cost time.",
    )
