"""MobileNetV2: what a bottleneck costs, and what it keeps in memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from archdsl.compiler import Unit
from claims.page import Block, Claim, Figure, Paper, Text, ours, said

V2 = Paper("MobileNetV2", "1801.04381")

NETWORK = Text("mnv2")
BEFORE = Text("mnv1")


def claims() -> Iterator[Claim]:
    """In the order of the paper."""
    yield bottleneck()
    yield channels()
    yield peak()


def bottleneck() -> Claim:
    """The formula of section 3.3, at stride 1 and at stride 2."""
    cases = (
        (Block("k3_e6_o24", (56, 56, 24)), (56, 24, 24), "stride 1, 24 channels"),
        (Block("k3_e6_o96", (14, 14, 64)), (14, 64, 96), "stride 1, 64 to 96 channels"),
        (Block("k3_s22_e6_o160", (14, 14, 96)), (14, 96, 160), "stride 2, 96 to 160 channels"),
    )
    figures = []
    for block, (side, inside, outside), what in cases:
        formula = side * side * inside * 6 * (inside + 9 + outside)
        counted = block.cost().macs
        figures.append(Figure(what, f"{formula:,}", counted, f"{counted:,}", counted == formula))
    return Claim(
        "bottleneck",
        "The cost of a bottleneck",
        "h·w·d'·t·(d' + k² + d'')",
        V2,
        "section 3.3",
        "a block of h x w positions, d' channels in, d'' out, expansion t and kernel k costs "
        "h·w·d'·t·(d' + k² + d'') multiplications.",
        [block for block, _, _ in cases],
        figures,
        "It is exact where the stride is 1. Where it is 2, only the expansion runs at h x w; the "
        "depthwise convolution and the projection run at a quarter of it, and the formula, which "
        "knows one size, is too high.",
    )


_TABLE3 = {
    112: ("64", "1600", "16", "400"),
    56: ("128", "800", "32", "200"),
    28: ("256", "400", "64", "100"),
    14: ("512", "200", "160", "62"),
    7: ("1024", "199", "320", "32"),
}


def channels() -> Claim:
    """Table 3: channels between blocks at each size, and their kilobytes."""
    figures = []
    for name, text, at in (("V1", BEFORE, 0), ("V2", NETWORK, 2)):
        widest = _widest(text)
        for side, row in _TABLE3.items():
            kilobytes = 2 * side * side * widest[side] / 1000
            close = abs(kilobytes - int(row[at + 1])) <= max(1, kilobytes / 100)
            figures.append(
                Figure(
                    f"{name}, {side}x{side}",
                    f"{row[at]}, {row[at + 1]} kB",
                    widest[side],
                    f"{widest[side]}, {kilobytes:.0f} kB",
                    widest[side] == int(row[at]) and close,
                )
            )
    return Claim(
        "materialized",
        "Maps between the blocks",
        "at most 1600 kB in V1, 400 kB in V2",
        V2,
        "section 3.3, Table 3",
        "the most channels, and kilobytes at 16 bits, that must be materialized at each size: "
        "between V1's blocks 1600 kB, between V2's bottlenecks 400 kB.",
        [BEFORE, NETWORK],
        figures,
        "Kilobytes are compared to 1 % or 1 kB. V1 is as printed but for the 199 "
        "kB at 7x7, which are 100. Of V2, from 56x56 to 14x14 the paper gives each size the "
        "channels of the next smaller one: a bottleneck of stride 2 takes in 56x56 and puts out "
        "28x28, so that 32 channels never stand at 56x56. The largest of either network, 1600 "
        "and 400, is right, if the stem and the first bottleneck run as one, since the stem alone "
        "puts out 32 channels at 112x112. One version of the paper makes the table start at "
        "56x56, with 800 kB and 200 kB as the largest; there V2 has 151.",
    )


def _widest(text: Text) -> dict[int, int]:
    """The most channels behind a block, by the side of the map; the stem is not looked at."""
    found: dict[int, int] = {}
    for origin, unit in text.arch.blocks():
        side = unit.fragment.output[0]
        if origin.path.startswith("stages."):
            found[side] = max(found.get(side, 0), unit.fragment.output[-1])
    return found


def peak() -> Claim:
    """The most memory at once, operator by operator."""
    of_v1, of_v2 = (text.arch.cost(dtype="float16") for text in (BEFORE, NETWORK))
    blocks = [(2 * prod(u.fragment.input), 2 * prod(u.fragment.output)) for u in _stages(NETWORK)]
    return Claim(
        "peak_memory",
        "Memory at once",
        "V2 needs little if a bottleneck is one operation",
        V2,
        "section 5.1",
        "if a bottleneck runs as one operation, whose inner map is made and used piece by piece, "
        '"the total amount of memory would be dominated by the size of bottleneck tensors, rather '
        'than the size of tensors that are internal to bottleneck (and much larger)". Bytes are '
        "for 16 bits.",
        [BEFORE, NETWORK],
        [
            ours("peak of V1, bytes", of_v1.peak_activation_bytes),
            said(
                "V2, a bottleneck as one operation, bytes",
                "less than V1",
                max(map(sum, blocks)),
                max(map(sum, blocks)) < of_v1.peak_activation_bytes,
            ),
            said(
                "V2, operator by operator, bytes",
                "less than V1",
                of_v2.peak_activation_bytes,
                of_v2.peak_activation_bytes < of_v1.peak_activation_bytes,
            ),
        ],
        "The saving hangs on the condition. Where each operator reads and writes whole maps, as "
        "runtimes do, the map of 112x112x96 inside V2's second bottleneck must exist, and V2 "
        "needs a quarter more than V1.",
    )


def _stages(text: Text) -> list[Unit]:
    return [u for origin, u in text.arch.blocks() if origin.path.startswith("stages.")]
