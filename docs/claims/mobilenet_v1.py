"""MobileNetV1: what separable convolutions, thinner layers and smaller images save."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from math import prod

import archdsl
from archdsl.passes.cost import Cost
from claims.page import Block, Claim, Figure, Paper, Text, ours, printed, said, without_norms

V1 = Paper("MobileNetV1", "1704.04861")
TUTORIAL = Paper("A Basic Introduction to Separable Convolutions")

NETWORK = Text("mnv1")

_SEPARABLE = """
arch separable
input 8x8x3
stage depthwise { dw_k5 }
stage pointwise { conv_k1_o256 }
"""
_STANDARD = """
arch standard
input 8x8x3
stage c1 { conv_k5_o256 }
"""


def claims() -> Iterator[Claim]:
    """In the order of the paper."""
    yield saving()
    yield example()
    yield by_layer_type()
    yield one_layer()
    yield full_convolutions()
    yield shallow()
    yield width()
    yield resolution()


def saving() -> Claim:
    """Equation 5 for every block of the network."""
    found: dict[int, set[Fraction]] = {}
    for item in NETWORK.arch.placed:
        if item.run.block.kind == "sep":
            for _, unit in item.units():
                channels = unit.fragment.output[-1]
                stride = unit.fragment.input[0] // unit.fragment.output[0]
                full = archdsl.block(f"conv_k3_s{stride}_o{channels}", NETWORK.arch)
                ratio = Fraction(
                    unit.cost.totals.macs_conv_linear, full.cost(unit.fragment.input).macs
                )
                found.setdefault(channels, set()).add(ratio)
    ratios = {n: max(of_blocks) for n, of_blocks in found.items()}
    figures = [
        Figure(
            f"cost of the blocks with N = {n}",
            "1/N + 1/9",
            ratio,
            f"{ratio} = {float(ratio):.4f}",
            found[n] == {Fraction(1, n) + Fraction(1, 9)},
        )
        for n, ratio in ratios.items()
    ]
    figures += [
        Figure(
            f"less computation, N = {n}",
            "8 to 9 times",
            1 / ratio,
            f"{float(1 / ratio):.2f} times",
            8 <= 1 / ratio <= 9,
        )
        for n, ratio in ratios.items()
    ]
    return Claim(
        "separable_saving",
        "The saving of a separable convolution",
        "1/N + 1/k² of a full one, 8 to 9 times less",
        V1,
        "section 3.1, equation 5",
        "a depthwise separable convolution with N filters and a kernel of k x k has 1/N + 1/k² of "
        'the multiplications of a full one; with k = 3 "between 8 to 9 times less".',
        [NETWORK],
        figures,
        "The formula is exact for every block, strides included, since both are counted at the "
        "output. With N = 64, the first block, it gives a little less than 8 times; the other "
        "blocks are in the range, and none reaches 9, which is the limit of large N.",
    )


def example() -> Claim:
    """The 5x5 example that tutorials compute."""
    standard, separable = Text(source=_STANDARD), Text(source=_SEPARABLE)
    depthwise, pointwise = (layer.macs for layer in separable.arch.cost().layers)
    full, split = standard.arch.cost().macs, separable.arch.cost().macs
    return Claim(
        "separable_example",
        "The 5x5 example",
        "1,228,800 multiplications against 53,952",
        TUTORIAL,
        "towardsdatascience.com",
        "an example that many tutorials repeat: 256 kernels of "
        "5x5x3 at 8x8 positions take 1,228,800 multiplications; 3 of 5x5x1 and 256 "
        "of 1x1x3 take 4,800 + 49,152 = 53,952.",
        [standard, separable],
        [
            printed("full 5x5 convolution", "1,228,800", full),
            printed("depthwise 5x5", "4,800", depthwise),
            printed("1x1", "49,152", pointwise),
            printed("both", "53,952", split),
            ours("times less", full / split),
        ],
        "It is no network's layer: with 3 input channels and a 5x5 kernel the saving, 1/256 + "
        "1/25, is far above that of 3x3 kernels. The example convolves a 12x12 image without "
        "padding; a text has an 8x8 one with padding, whose output, and so the count, is the same.",
    )


_TYPES = {"pointwise": "1x1 convolutions", "depthwise": "depthwise 3x3", "conv": "full 3x3"}
_TYPES |= {"linear": "fully connected"}
_TABLE2 = {
    "pointwise": ("94.86%", "74.59%"),
    "depthwise": ("3.06%", "1.06%"),
    "conv": ("1.19%", "0.02%"),
    "linear": ("0.18%", "24.33%"),
}


def by_layer_type() -> Claim:
    """Table 2."""
    cost = NETWORK.arch.cost(dtype="int8")
    macs: Counter[str] = Counter()
    kernels: Counter[str] = Counter()
    for layer in cost.layers:
        macs[layer.op_class] += layer.macs
        kernels[layer.op_class] += layer.weight_bytes
    figures = []
    for kind, (share_macs, share_params) in _TABLE2.items():
        name = _TYPES[kind]
        figures += [
            printed(f"{name}, multiplications", share_macs, Fraction(100 * macs[kind], cost.macs)),
            printed(
                f"{name}, parameters",
                share_params,
                Fraction(100 * kernels[kind], cost.weight_bytes),
            ),
        ]
    return Claim(
        "layer_types",
        "The share of the 1x1 convolutions",
        "95 % of the multiplications, 75 % of the parameters",
        V1,
        "section 3.2, Table 2",
        "the shares of multiplications and parameters by type of layer.",
        [NETWORK],
        figures,
        "All but one agree to the last digit, with parameters meaning kernels, without norms and "
        "biases. The 1.19 % of the first convolution is 1.91 % with its digits exchanged: only "
        "with 1.91 % does the paper's column come to 100 %.",
    )


def one_layer() -> Claim:
    """Table 3: each change on top of the ones before it."""
    rows = (
        ("full convolution", Block("conv_k3_o512", (14, 14, 512)), "462M", "2.36M"),
        ("depthwise separable", Block("sep_k3_o512", (14, 14, 512)), "52.3M", "0.27M"),
        ("α = 0.75", Block("sep_k3_o384", (14, 14, 384)), "29.6M", "0.15M"),
        ("ρ = 0.714", Block("sep_k3_o384", (10, 10, 384)), "15.1M", "0.15M"),
    )
    figures = []
    for name, block, macs, params in rows:
        cost = block.cost()
        figures += [
            printed(f"{name}, multiplications", macs, cost.macs),
            printed(f"{name}, parameters", params, cost.params),
        ]
    return Claim(
        "one_layer",
        "One layer made cheaper",
        "from 462M to 15.1M multiplications",
        V1,
        "section 3.4, Table 3",
        "a 3x3 layer from 512 to 512 channels on a 14x14 map: made separable, then thinner by α, "
        "then smaller by ρ.",
        [row[1] for row in rows],
        figures,
        "Our parameters have the norms', which do not show at this precision.",
    )


def full_convolutions() -> Claim:
    """Table 4."""
    full = Text("mnv1", (("sep_", "conv_"),))
    own, other = NETWORK.arch.cost(), full.arch.cost()
    classifier = own.layers[-1].macs
    return Claim(
        "full_convolutions",
        "MobileNet with full convolutions",
        "4866M multiplications instead of 569M",
        V1,
        "section 4.1, Table 4",
        "with full convolutions in place of the separable ones the network has 4866M "
        "multiplications and 29.3M parameters, and is 1.1 points more accurate.",
        [NETWORK, full],
        [
            printed("separable, multiplications", "569M", own.macs),
            printed("separable, parameters", "4.2M", own.params),
            printed("full, multiplications", "4866M", other.macs),
            printed("full, parameters", "29.3M", other.params),
            ours("full, without the classifier", other.macs - classifier),
            ours("times less", other.macs / own.macs),
        ],
        "4866M is the count of the convolutions alone; the 569M beside it has the classifier, of "
        "1,024,000 multiplications, in it.",
    )


def shallow() -> Claim:
    """Table 5."""
    text = Text("mnv1", (("sep_r6_k3_s22_o512", "sep_k3_s22_o512"),))
    narrow, cost = archdsl.load("mnv1_075").cost(), text.arch.cost()
    return Claim(
        "shallow",
        "Thinner or shallower",
        "325M and 307M multiplications",
        V1,
        "section 4.1, Table 5",
        "without the five blocks of 512 channels on the 14x14 map the network costs about what it "
        "costs at width 0.75, and is 3.1 points less accurate.",
        [Text("mnv1_075"), text],
        [
            printed("thinner, multiplications", "325M", narrow.macs),
            printed("thinner, parameters", "2.6M", narrow.params),
            printed("shallower, multiplications", "307M", cost.macs),
            printed("shallower, parameters", "2.9M", cost.params),
        ],
        "The costs are as printed; accuracies cannot be counted.",
    )


def width() -> Claim:
    """Table 6: alpha squared, and what keeps a network from it."""
    whole = NETWORK.arch.cost()
    table = {0.75: ("325M", "2.6M"), 0.5: ("149M", "1.3M"), 0.25: ("41M", "0.5M")}
    texts = [Text("mnv1", width=alpha) for alpha in table]
    figures = []
    for text, (alpha, (macs, params)) in zip(texts, table.items(), strict=True):
        cost = text.arch.cost()
        share = Fraction(cost.macs, whole.macs)
        figures += [
            printed(f"α = {alpha:g}, multiplications", macs, cost.macs),
            printed(f"α = {alpha:g}, parameters", params, cost.params),
            said(
                f"α = {alpha:g}, share of the multiplications",
                f"roughly {alpha**2:g}",
                share,
                share <= Fraction(alpha**2) * Fraction(5, 4),
            ),
            said(
                f"α = {alpha:g}, share of the parameters",
                f"roughly {alpha**2:g}",
                Fraction(cost.params, whole.params),
                Fraction(cost.params, whole.params) <= Fraction(alpha**2) * Fraction(5, 4),
            ),
        ]
    wide = _linear_in_width(whole)
    return Claim(
        "width",
        "The width multiplier",
        "cost and parameters fall by roughly α²",
        V1,
        "section 3.3, equation 6; Table 6",
        '"reducing computational cost and the number of parameters quadratically by roughly α²".',
        [NETWORK, *texts],
        [*figures, ours("share of the multiplications that α scales once", 100 * wide, unit="%")],
        "Roughly is taken as at most a quarter above. What α scales only once is the first "
        "convolution, whose input is the image, the depthwise convolutions and the classifier: "
        "little of the multiplications, so that they follow α², but of the parameters the "
        "classifier alone is a quarter, and thin networks are mostly classifier.",
    )


def _linear_in_width(cost: Cost) -> Fraction:
    """The share of MACs in layers of which only one side has the width."""
    macs = sum(layer.macs for layer in cost.layers if layer.op_class != "pointwise")
    return Fraction(macs, cost.macs)


def resolution() -> Claim:
    """Table 7: rho squared."""
    whole = NETWORK.arch.cost()
    table = {192: "418M", 160: "290M", 128: "186M"}
    texts = [Text("mnv1", input=(side, side, 3)) for side in table]
    half = Text("mnv1", width=0.5, input=(160, 160, 3))
    classifier = whole.layers[-1].macs
    figures = []
    for text, (side, macs) in zip(texts, table.items(), strict=True):
        cost = text.arch.cost()
        share = Fraction(cost.macs - classifier, whole.macs - classifier)
        square = Fraction(prod(cost.input[:2]), prod(whole.input[:2]))
        figures += [
            printed(f"{side}x{side}, multiplications", macs, cost.macs),
            Figure(
                f"{side}x{side}, share of the convolutions",
                f"ρ² = {float(square):.4f}",
                share,
                f"{float(share):.4f}",
                share == square,
            ),
        ]
    figures.append(printed("α = 0.5 at 160x160, multiplications", "76M", half.arch.cost().macs))
    figures.append(printed("α = 0.5 at 160x160, parameters", "1.32M", half.arch.cost().params))
    figures.append(ours("α = 0.5, parameters without norms", without_norms(half.arch)))
    return Claim(
        "resolution",
        "The resolution multiplier",
        "cost falls by ρ²",
        V1,
        "section 3.4, equation 7; Tables 7 and 9",
        '"reducing computational cost by ρ²", with the counts of images of 192, 160 and 128 '
        "pixels, and of a network that is half as wide too.",
        [NETWORK, *texts, half],
        figures,
        "The convolutions scale by ρ² exactly, since all sides divide by 32; the classifier and "
        "all parameters stay. 290M and 76M are cut, not rounded, and 1.32M is the count "
        "without norms.",
    )
