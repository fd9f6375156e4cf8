"""What each ridge point prefers: section 3 of the MobileNetV4 paper, with exact counts."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, pairwise, takewhile
from pathlib import Path

import numpy as np

import archdsl
from archdsl.library import networks
from archdsl.passes.cost import DTYPES, Work
from archdsl.roofline.pareto import front
from archdsl.roofline.sweep import Array, Candidate, equivalent_macs, sweep
from claims.mobilenet_v4 import V4
from claims.page import Claim, Figure, Text, ours, said, table

TABLE_6 = Path(__file__).parents[2] / "benchmarks" / "latency" / "tables" / "mobilenetv4_table6.csv"
RIDGES = tuple(
    f"{target}-ridge"
    for target in ("pixel6-cpu-int8", "s23-cpu-int8", "pixel4-hexagon-int8", "pixel8-edgetpu-int8")
)
"""The targets of Table 16."""

HIGHEST = 500
"""MACs per byte: the range of the paper's figures 2 and 3 is 0 to this."""

V3_TOP1 = 75.5
"""Of MobileNetV3-Large trained anew: section 7.1; it has no row in Table 6."""


def claims() -> Iterator[Claim]:
    """In the order of the paper."""
    yield few_multiplications()
    yield fully_connected()
    yield never_both()
    yield fronts()
    yield measured_fronts()


def kinks(works: Sequence[Work]) -> Array:
    """The ridge points at which a layer of some network turns from compute to memory.

    Between two of them the time of each network is a straight line.
    """
    size = DTYPES["int8"]
    found = {0.0, float(HIGHEST)}
    for work in works:
        found |= {macs / (moved * size) for macs, moved in work.pairs() if moved}
    return np.array(sorted(point for point in found if point <= HIGHEST))


def edges(works: Sequence[Work]) -> Array:
    """The ridge points at which two networks change places, and the ends of the range."""
    points = kinks(works)
    times = [equivalent_macs(work, points) for work in works]
    found = {0.0, float(HIGHEST)}
    for one, other in combinations(times, 2):
        gap = one - other
        for place in np.flatnonzero(np.sign(gap[1:]) != np.sign(gap[:-1])):
            share = gap[place] / (gap[place] - gap[place + 1])
            found.add(float(points[place] + share * (points[place + 1] - points[place])))
    return np.array(sorted(found))


@cache
def compared() -> tuple[Candidate, ...]:
    """The MobileNets of the paper's Table 6, with the top-1 that it has, and V3-Large."""
    found = [
        Candidate(arch.name, arch.work, float(published.facts["top1"]))
        for arch in networks()
        for published in arch.published
        if "top1" in published.facts and "2404.10518" in (published.source or "")
    ]
    return (*found, Candidate("mnv3_large", Text("mnv3_large").arch.work, V3_TOP1))


def front_ranges(candidates: Sequence[Candidate]) -> dict[str, list[tuple[float, float]]]:
    """From which ridge point to which each network is on the front of time and top-1, exactly.

    Who is faster changes at the edges alone, so that a front in the middle of two holds between.
    """
    ends = edges([candidate.work for candidate in candidates])
    on = sweep(candidates, (ends[1:] + ends[:-1]) / 2).on_front
    found: dict[str, list[tuple[float, float]]] = {}
    for number, candidate in enumerate(candidates):
        ranges: list[tuple[float, float]] = []
        for held, (low, high) in zip(on[number], pairwise(ends.tolist()), strict=True):
            if held:
                start = ranges.pop()[0] if ranges and ranges[-1][1] == low else low
                ranges.append((start, high))
        found[candidate.name] = ranges
    return found


def share(ranges: Sequence[tuple[float, float]]) -> float:
    """The share of the range, in percent."""
    return 100 * sum(high - low for low, high in ranges) / HIGHEST


def fronts() -> Claim:
    """Who is on the front, and for how much of the range."""
    candidates = compared()
    found = front_ranges(candidates)
    shares = {name: share(ranges) for name, ranges in found.items()}
    top1 = {candidate.name: candidate.top1 or 0.0 for candidate in candidates}
    figures = [
        said(f"`{name}`", "mostly optimal", shares[name], shares[name] > 50, unit="%")
        for name in sorted(shares, key=top1.__getitem__)
        if name.startswith("mnv4")
    ]
    times = {c.name: equivalent_macs(c.work, np.array([0.0, HIGHEST])) for c in candidates}
    slower = times["mnv3_large"] / times["mnv4_conv_s"]
    rest = [name for name in shares if not name.startswith("mnv4")]
    always = [name for name in rest if shares[name] > 99]
    figures.append(_others("others that are on it everywhere", always))
    figures += [
        ours(f"time of `mnv3_large` / time of `mnv4_conv_s` at {point}", float(ratio))
        for point, ratio in zip((0, HIGHEST), slower, strict=True)
    ]
    rows = [
        (f"`{name}`", f"{top1[name]:g}", f"{shares[name]:.2f}", _said(found[name]))
        for name in sorted(shares, key=lambda name: (-shares[name], -top1[name]))
    ]
    return Claim(
        "fronts",
        "On the front",
        "MobileNetV4 mostly, at all ridge points, and no other",
        V4,
        "section 3, Figure 2",
        '"mostly Pareto-optimal performance at all ridge points" from 0 to 500 MACs per byte, '
        'against other convolutional MobileNets; "a characteristic not found in any other models '
        'tested".',
        [Text(name) for name in sorted(shares)],
        figures,
        "Every MobileNetV4 is on the front at every ridge point. So are two networks from before, "
        "with accuracies between Conv-S and Conv-M, where no MobileNetV4 stands: V3-Large, though "
        "it goes from a sixth slower than Conv-S to more than twice as slow, and "
        "Multi-Hardware-MAX at width 1.5. MobileNetV1 comes onto the front where bytes count, V2 "
        "at width 1.5 and V3 at half width leave it there. Accuracies are the paper's, all of "
        "modern training; V3-Large has the 75.5 % of its section 7.1. A front is one of the "
        "networks that are compared.",
        table(
            ("network", "top-1 %", "% of the range", "on the front at ridge points"), rows, "lrrl"
        ),
    )


def _others(what: str, names: Sequence[str]) -> Figure:
    """Who has what the paper says that no other network has."""
    shown = ", ".join(f"`{name}`" for name in names) or "none"
    return Figure(what, "none", len(names), shown, not names)


def _said(ranges: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{low:.4g} to {high:.4g}" for low, high in ranges) or "nowhere"


def few_multiplications() -> Claim:
    """Few MACs win where the ridge point is low, much computing of few bytes where it is high."""
    texts = [Text("mnv3_large", width=1.5), Text("mnv1", width=1.5)]
    v3, v1 = (text.arch.work for text in texts)
    low, high = (
        float(equivalent_macs(v1, point)[0] / equivalent_macs(v3, point)[0])
        for point in (np.array([0.0]), np.array([float(HIGHEST)]))
    )
    crossings = edges([v3, v1])[1:-1].tolist()
    return Claim(
        "few_multiplications",
        "Few multiplications or few bytes",
        "low ridge points prefer the one, high ones the other",
        V4,
        "section 3",
        'on hardware of a low ridge point one minimizes multiplications "even at the cost of '
        'increased memory complexity (MobileNetV3Large-1.5x)"; at high ones they "do not '
        'meaningfully slow down the model but can increase model capacity (MobileNetV1-1.5x)".',
        texts,
        [
            said("time of V1 / time of V3 at ridge point 0", "above 1", low, low > 1),
            said("time of V1 / time of V3 at ridge point 500", "below 1", high, high < 1),
            *(ours("they are equally fast at", crossing) for crossing in crossings),
        ],
        "They change places once. At 0 a network is its multiplications, of which V1 has 2.6 "
        "times as many; at 500 it is its bytes, of which it has fewer.",
    )


def fully_connected() -> Claim:
    """Where V3's time goes at both ends."""
    text = Text("mnv3_large", width=1.5)
    at = {point: _shares_of_time(text, point) for point in (0, HIGHEST)}
    grown = at[HIGHEST]["linear"] / at[0]["linear"]
    return Claim(
        "fully_connected",
        "Waiting for fully connected layers",
        "networks for low ridge points do, at high ones",
        V4,
        "section 3",
        'they "run slowly at high-RPs because memory-intensive and low-MAC fully-connected (FC) '
        'layers are bottlenecked on memory bandwidth".',
        [text],
        [
            ours("layers at one position, share of the time at 0", 100 * at[0]["linear"], unit="%"),
            said(
                "layers at one position, share of the time at 500",
                "larger",
                100 * at[HIGHEST]["linear"],
                grown > 1,
                unit="%",
            ),
            said("times as much of the time", "more", grown, grown > 1),
            ours("depthwise, share at 0", 100 * at[0]["depthwise"], unit="%"),
            ours("depthwise, share at 500", 100 * at[HIGHEST]["depthwise"], unit="%"),
            ours("additions, products and means, share at 0", 100 * at[0]["elementwise"], unit="%"),
            ours(
                "additions, products and means, share at 500",
                100 * at[HIGHEST]["elementwise"],
                unit="%",
            ),
        ],
        "The layers at one position are the last two and squeeze-and-excitation. Their share "
        "grows most, but they are not alone: depthwise convolutions and what has no "
        "multiplications at all take more together.",
    )


def _shares_of_time(text: Text, point: float) -> dict[str, float]:
    """The share of the time by class of operator, at a ridge point."""
    times: dict[str, float] = {}
    for layer in text.arch.cost(dtype="int8").layers:
        moved = layer.weight_bytes + layer.activation_bytes
        times[layer.op_class] = times.get(layer.op_class, 0.0) + max(layer.macs, point * moved)
    whole = sum(times.values())
    return {name: time / whole for name, time in times.items()}


def never_both() -> Claim:
    """The expensive ends of MobileNetV4 are not expensive at once."""
    texts = [Text(f"mnv4_conv_{size}") for size in "sml"]
    figures = []
    for text in texts:
        points = kinks([text.arch.work]).tolist()
        # Between kinks a share is a quotient of straight lines, and largest at an end.
        first, last = zip(*(_ends(text, point) for point in points), strict=True)
        both = [sum(ends) for ends in zip(first, last, strict=True)]
        where = both.index(max(both))
        name = f"`{text.member}`"
        figures += [
            ours(f"{name}: first convolutions at 0", first[0], unit="%"),
            said(
                f"{name}: first convolutions at 500",
                "less",
                first[-1],
                first[-1] < first[0],
                unit="%",
            ),
            ours(f"{name}: last layers at 0", last[0], unit="%"),
            said(f"{name}: last layers at 500", "more", last[-1], last[-1] > last[0], unit="%"),
            ours(
                f"{name}: both, at {points[where]:.3g}, where they are most", both[where], unit="%"
            ),
        ]
    return Claim(
        "never_both",
        "The two ends of MobileNetV4",
        "never both slow at once",
        V4,
        "section 3",
        "the large first convolutions are expensive at low ridge points, the last fully connected "
        'layers at high ones, the more so in the smaller networks, and MobileNetV4 "will never '
        'see both slowdowns at the same time".',
        texts,
        figures,
        "Shares of the time. First convolutions are all up to the first UIB, last layers the two "
        "behind the pool. The first cost less where the last cost more, but for Conv-L, where both "
        "are little. Between the ends of the range Conv-S spends half of its time on both: neither "
        "slowdown is whole there, and neither is gone.",
    )


def _ends(text: Text, point: float) -> tuple[float, float]:
    """The share of the time, in percent, before the first UIB and behind the pool."""
    kinds = {origin.path: origin.block.kind for origin, _ in text.arch.blocks()}
    before = list(takewhile(lambda path: kinds[path] != "uib", kinds))
    times = {"first": 0.0, "last": 0.0, "all": 0.0}
    for layer in text.arch.cost(dtype="int8").layers:
        moved = layer.weight_bytes + layer.activation_bytes
        time = max(layer.macs, point * moved)
        times["all"] += time
        if layer.block in before:
            times["first"] += time
        elif layer.op_class == "linear":
            times["last"] += time
    return 100 * times["first"] / times["all"], 100 * times["last"] / times["all"]


def measured_times() -> dict[str, dict[str, float]]:
    """Milliseconds by device and network, as the paper's Table 6 has them."""
    found: dict[str, dict[str, float]] = {device: {} for device in RIDGES}
    for row in csv.DictReader(TABLE_6.read_text(encoding="utf-8").splitlines()):
        width = round(100 * float(row["width"]))
        network = row["network"] + ("" if width == 100 else f"_{width:03}")
        for device, times in found.items():
            time = row[device.removesuffix("-ridge").replace("-", "_")]
            if time:
                times[network] = float(time)
    return found


def measured_fronts() -> Claim:
    """The fronts of the paper's own measurements, beside those at its fitted ridge points."""
    candidates = {candidate.name: candidate for candidate in compared()}
    figures = []
    always = [name for name in candidates if not name.startswith("mnv4")]
    for device, times in measured_times().items():
        names = list(times)
        top1 = [candidates[name].top1 or 0.0 for name in names]
        on = dict(zip(names, front(list(times.values()), top1), strict=True))
        point = archdsl.load_device(device).ridge_point
        estimated = sweep([candidates[name] for name in names], np.array([point])).on_front[:, 0]
        ours_on = [name for name in names if name.startswith("mnv4") and on[name]]
        count = sum(name.startswith("mnv4") for name in names)
        others = [name for name in names if on[name] and not name.startswith("mnv4")]
        always = [name for name in always if name in others]
        same = sum(bool(place) == on[name] for name, place in zip(names, estimated, strict=True))
        what = f"`{device}`, {point:g}"
        figures += [
            Figure(
                f"{what}: MobileNetV4s on the measured front",
                "mostly",
                len(ours_on),
                f"{len(ours_on)} of {count}",
                2 * len(ours_on) > count,
            ),
            Figure(
                f"{what}: others on it",
                "",
                len(others),
                ", ".join(f"`{name}`" for name in others),
                None,
            ),
            Figure(
                f"{what}: placed by the ridge point as measured",
                "",
                same,
                f"{same} of {len(names)}",
                None,
            ),
        ]
    figures.append(_others("others on all four", always))
    return Claim(
        "measured_fronts",
        "The measured fronts",
        "MobileNetV4 mostly, on all hardware",
        V4,
        "section 7.1, Table 6; Table 16",
        '"MNv4 models are mostly Pareto-optimal across a range of accuracies and mobile targets", '
        'measured, "a characteristic not found in any other models tested". The four targets here '
        "have a fitted ridge point.",
        [Text(name) for name in candidates if name != "mnv3_large"],
        figures,
        "Every MobileNetV4 is on every measured front of these networks. So are MobileNetV1 and V2 "
        "at width 1.5, trained anew. Whether a network is on it, equation 1 with exact counts and "
        "the paper's ridge point says for most. It fails where times are close: three on the "
        "Hexagon lie between 5.6 and 6.9 ms, the other two within a printed digit of a better one.",
    )
