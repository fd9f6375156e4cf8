"""MobileNetV4: shared keys and values, fewer of them, and the universal inverted bottleneck."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

import archdsl
from archdsl.passes.cost import Cost
from archdsl.roofline.sweep import equivalent_macs
from claims.page import Block, Claim, Figure, Paper, Text, near, ours, printed, reduction, said

V4 = Paper("MobileNetV4", "2404.10518")

_SHAPES = {
    "Hybrid-L, 12x12x512": ("h8_d64", (12, 12, 512)),
    "Hybrid-M, 8x8x256": ("h4_d64", (8, 8, 256)),
    "Hybrid-L, 24x24x192, `kv2`": ("h8_d48_kv2", (24, 24, 192)),
    "Hybrid-M, 16x16x160, `kv2`": ("h4_d64_kv2", (16, 16, 160)),
}
_BLOCKS = {
    name: (Block(f"mha_{fields}", shape), Block(f"mqa_{fields}", shape))
    for name, (fields, shape) in _SHAPES.items()
}
_TEXTS = [block for pair in _BLOCKS.values() for block in pair]
_LARGE = _BLOCKS["Hybrid-L, 12x12x512"]

EDGETPU = "pixel8-edgetpu-int8-ridge"
GPU = "s23-gpu-fp16"
CPU = "pixel6-cpu-int8"


def claims() -> Iterator[Claim]:
    """In the order of the paper."""
    yield universal()
    yield shared_keys()
    yield intensity()
    yield faster_attention()
    yield spatial_reduction()


def universal() -> Claim:
    """Section 4: the four blocks on one map."""
    names = {"FFN": "", "ConvNext-like": "s3_", "IB": "m3_", "ExtraDW": "s3_m3_"}
    blocks = {name: Block(f"uib_{field}e4", (16, 16, 160)) for name, field in names.items()}
    costs = {name: block.cost("int8") for name, block in blocks.items()}
    figures = []
    for name, cost in costs.items():
        figures += [
            ours(f"{name}, multiplications", cost.macs),
            ours(f"{name}, bytes at 8 bits", _bytes(cost)),
        ]
    ib, extra, convnext = (costs[name] for name in ("IB", "ExtraDW", "ConvNext-like"))
    figures += [
        _more("ConvNext-like against IB, multiplications", "cheaper", convnext.macs, ib.macs, 0),
        _more("ConvNext-like against IB, bytes", "cheaper", _bytes(convnext), _bytes(ib), 0),
        _more("ExtraDW against IB, multiplications", "inexpensive", extra.macs, ib.macs, 10),
        _more("ExtraDW against IB, parameters", "inexpensive", extra.params, ib.params, 10),
        _more("ExtraDW against IB, bytes", "inexpensive", _bytes(extra), _bytes(ib), 10),
    ]
    return Claim(
        "universal",
        "The universal inverted bottleneck",
        "ConvNext-like is cheaper than IB, ExtraDW inexpensive",
        V4,
        "section 4",
        'IB mixes space on the expanded features, "at increased cost"; ConvNext-like is cheaper, '
        'since it does so before the expansion; ExtraDW, which does both, "inexpensively '
        'increases the network depth and receptive field".',
        list(blocks.values()),
        figures,
        "Inexpensive is taken as up to a tenth. In multiplications the four differ by 3.5 %; what "
        "tells them apart is the bytes of the wide map, which a depthwise convolution reads and "
        "writes once more.",
    )


def _more(what: str, words: str, cost: int, base: int, limit: float) -> Figure:
    more = 100 * (cost / base - 1)
    return said(what, words, more, more < limit, unit="%")


def _bytes(cost: Cost) -> int:
    return cost.weight_bytes + cost.activation_bytes


def shared_keys() -> Claim:
    """Section 5, Table 2: parameters and multiplications."""
    figures = []
    for name, (mha, mqa) in _BLOCKS.items():
        before, after = mha.cost(), mqa.cost()
        for what, old, new in (
            ("parameters", before.params, after.params),
            ("multiplications", before.macs, after.macs),
        ):
            fewer = reduction(old, new)
            figures.append(said(f"{name}: fewer {what}", "over 25 %", fewer, fewer > 25, unit="%"))
    before, after = (block.cost() for block in _LARGE)
    figures += [
        printed(
            "three blocks of Hybrid-L, parameters fewer",
            "1.3M",
            3 * (before.params - after.params),
            terms=2,
        ),
        printed(
            "three blocks of Hybrid-L, multiplications fewer",
            "0.2G",
            3 * (before.macs - after.macs),
            terms=2,
        ),
        ours("three blocks of multi-head attention, parameters", 3 * before.params),
    ]
    return Claim(
        "shared_keys",
        "The size of multi-query attention",
        "over 25 % fewer parameters and multiplications",
        V4,
        "section 5, Table 2",
        "one key and one value for all heads, instead of each head's own, \"reduces MACs and model "
        'parameters by >25%": of what three attention blocks add to a network, 0.7G '
        "multiplications and 5.1M parameters, 28.6 % and 25.5 % go.",
        _TEXTS,
        figures,
        "Parameters fall by (h - 1) / 2h in the projections, 37.5 % with 4 heads, 43.75 % with 8, "
        "in every block of the networks. Multiplications fall by a quarter only where keys and "
        "values are of the full resolution: with `kv2` they are few already, and what is left is "
        "the products, which sharing leaves as they are. The paper's differences, of two figures "
        "with one decimal each, fit three blocks as Hybrid-L has them; that they are a quarter "
        "there and 44 % here is because the paper's three additions have 5.1M parameters, and "
        "these blocks 3.1M.",
    )


def intensity() -> Claim:
    """Section 5: multiplications for each byte."""
    figures = []
    for name, pair in _BLOCKS.items():
        before, after = (_intensity(block.cost("int8")) for block in pair)
        figures += [
            ours(f"{name}: MACs per byte, multi-head", before),
            said(f"{name}: MACs per byte, multi-query", "higher", after, after > before),
        ]
    return Claim(
        "intensity",
        "The intensity of multi-query attention",
        "higher than that of multi-head attention",
        V4,
        "section 5",
        'where there are few positions and many features, sharing "reduces memory bandwidth '
        'requirements—significantly improving Operational Intensity".',
        _TEXTS,
        figures,
        "It is counted at 8 bits over the whole block, the transposes of multi-head attention "
        "included. The bytes always fall, by 23 to 38 %; the intensity rises where the "
        "multiplications fall less. In Hybrid-L's last stage, 512 features at 144 positions, it "
        "sinks a little: the projections that go were among the layers of the highest intensity.",
    )


def _intensity(cost: Cost) -> float:
    return cost.macs / _bytes(cost)


def faster_attention() -> Claim:
    """Section 5, Table 2: the time of the block, at a ridge point and on a nominal device."""
    tpu, gpu = archdsl.load_device(EDGETPU), archdsl.load_device(GPU)
    at_tpu = [_equivalent(block, tpu.ridge_point) for block in _LARGE]
    at_gpu = [gpu.estimate(b.cost("float16").work, dtype="float16").us or math.nan for b in _LARGE]
    mha = _LARGE[0].cost("int8")
    moved = sum(
        tpu.ridge_point * (layer.weight_bytes + layer.activation_bytes)
        for layer in mha.layers
        if layer.op == "transpose"
    )
    return Claim(
        "faster_attention",
        "The speed of multi-query attention",
        "39 % faster",
        V4,
        "section 5, Table 2",
        "of the time that three attention blocks add, 39.0 % go on a Pixel 8 EdgeTPU, 41.1 % on a "
        "Galaxy S23 GPU, 84.2 % on a Pixel 7 EdgeTPU.",
        _LARGE,
        [
            near(f"less time at the ridge point of `{EDGETPU}`", "39", _less(at_tpu), unit=" %"),
            ours(
                "of this without the transposes of multi-head attention",
                _less([at_tpu[0] - moved, at_tpu[1]]),
                unit="%",
            ),
            near(f"less time on `{GPU}` (nominal)", "41.1", _less(at_gpu), unit=" %"),
            ours(
                "less time where only multiplications count",
                reduction(mha.macs, _LARGE[1].cost().macs),
                unit="%",
            ),
        ],
        "These are estimates by equation 1, the first at the ridge point that the paper's authors "
        "fitted (Table 16: 434 MACs per byte, calibrated), the other nominal. The ridge point "
        "says nearly what was measured. A third of it is the transposes that heads of their own "
        "need on the way. The 84.2 % of the Pixel 7 no count explains; appendix G traces "
        "much of such times to transposes.",
    )


def _less(times: list[float]) -> float:
    return reduction(*times)


def _equivalent(block: Block, ridge_point: float) -> float:
    return float(equivalent_macs(block.cost("int8").work, np.array([ridge_point]))[0])


def spatial_reduction() -> Claim:
    """Section 5, Table 3: keys and values at half the resolution."""
    with_it, without = Text("mnv4_hybrid_m"), Text("mnv4_hybrid_m", (("_kv2", ""),))
    before, after = without.arch.cost(), with_it.arch.cost()
    block = [Block(f"mqa_h4_d64{field}", (16, 16, 160)) for field in ("", "_kv2")]
    one = [b.cost() for b in block]
    gains = {}
    for name in (CPU, GPU):
        device = archdsl.load_device(name)
        times = [text.arch.latency(device).us or math.nan for text in (without, with_it)]
        gains[name] = 100 * (times[0] / times[1] - 1)
    return Claim(
        "spatial_reduction",
        "Spatial reduction of keys and values",
        "3 % fewer multiplications, over 20 % faster",
        V4,
        "section 5, Table 3",
        "with a depthwise convolution of stride 2 before keys and values, Hybrid-M has 1.245G "
        "multiplications instead of 1.285G, 3 % better, and is 23 % faster on a CPU and 25 % on "
        "a GPU.",
        [without, with_it, *block],
        [
            printed("multiplications without", "1.285G", before.macs),
            printed("multiplications with", "1.245G", after.macs),
            near("gain in multiplications", "3", 100 * (before.macs / after.macs - 1), unit=" %"),
            near(f"gain on `{CPU}` (nominal)", "23", gains[CPU], unit=" %"),
            near(f"gain on `{GPU}` (nominal)", "25", gains[GPU], unit=" %"),
            printed(
                "multiplications saved, with the products of one head alone",
                "0.040G",
                4 * (one[0].macs_conv_linear - one[1].macs_conv_linear)
                + one[0].macs_attention
                - one[1].macs_attention,
                terms=2,
            ),
            ours("one block, multiplications without", one[0].macs),
            ours("one block, multiplications with", one[1].macs),
            ours("one block, its products without", one[0].macs_attention),
            ours("one block, its products with", one[1].macs_attention),
        ],
        "It is a gain, and for us three times the paper's: the products of attention are a "
        "quarter of what they were, in each of the four blocks at 16x16. Neither of the paper's "
        "two figures is a count of this network or of its Table 13 (`mnv4_hybrid_m_paper`), but "
        "their difference is what four blocks save if the products are counted for one of their "
        "four heads. The measured gains are larger than a nominal roofline's.",
    )
