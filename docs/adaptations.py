"""What docs/netadapt.md shows of MobileNetV3-Large: the steps of two runs, made anew.

The accuracies are read from the tables that the runs wrote (`netadapt/DEVICE.csv`), for asking
the evaluator takes minutes; all else is what the program does with them today. The tests ask the
evaluator for some of them again.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import archdsl
from archdsl.cli.adapting import sections_table, short, steps_table
from archdsl.compiler import Arch
from archdsl.search.identity import canonical_hash
from archdsl.search.netadapt import NetAdapt

DEVICES = ("pixel6-cpu-int8", "pixel1-cpu-fp32-fitted")
SETTINGS = {"size": 64}
"""Of synflow."""


def table(device: str) -> Path:
    """What `--report` wrote."""
    return Path(__file__).parent / "netadapt" / f"{device}.csv"


@cache
def replayed(device: str) -> NetAdapt:
    """The run for a device, with the accuracies of its table."""
    with table(device).open(encoding="utf-8", newline="") as file:
        known = {row["hash"]: float(row["accuracy"]) for row in csv.DictReader(file)}

    def recorded(arch: Arch) -> float:
        return known[canonical_hash(arch)]

    arch = archdsl.load("mnv3_large")
    target = archdsl.load_device(device)
    return NetAdapt(arch, target, 0.8 * (arch.latency(target).us or 0), recorded).run()


def adapted_int8() -> str:
    """On a CPU of 8-bit numbers."""
    return _shown(DEVICES[0])


def adapted_float() -> str:
    """On the phone of the paper, in float32."""
    return _shown(DEVICES[1])


def _shown(device: str) -> str:
    run = replayed(device)
    steps = _markdown(*steps_table(run), 7)
    return f"{steps}\n{_markdown(*_sections(run), 6)}\n{_gone(run)}{_widths(run)}"


def _gone(run: NetAdapt) -> str:
    """What share went, and from where."""
    sums = [[sum(part[n] for part in side) for n in range(3)] for side in _sides(run)]
    params, macs, us = (f"{(1 - now / was) * 100:.1f} %" for was, now in zip(*sums, strict=True))
    saved = {name: was[2] - now[2] for name, was, now in run.sections()}
    ranked = sorted((name for name in saved if saved[name]), key=lambda name: -saved[name])
    shares = (f"{saved[name] / sum(saved.values()) * 100:.0f} % in `{name}`" for name in ranked)
    return (
        f"- gone: {params} of the parameters, {macs} of the MACs, {us} of the time\n"
        f"- of the time saved: {', '.join(shares)}\n"
    )


def _sides(run: NetAdapt) -> tuple[list[tuple[int, int, float]], list[tuple[int, int, float]]]:
    rows = run.sections()
    return [was for _, was, _ in rows], [now for _, _, now in rows]


def _sections(run: NetAdapt) -> tuple[Sequence[str], list[Sequence[str]]]:
    head, rows, last = sections_table(run)
    return head, [row for row in (*rows, last) if row is not None]


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str] | None], numbers: int) -> str:
    titles = [title.strip(">") for title in head]
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    lines = (titles, rule, *(row for row in rows if row is not None))
    return "".join(f"| {' | '.join(line)} |\n".replace("  ", " ") for line in lines)


def _widths(run: NetAdapt) -> str:
    """All widths that shrank."""
    pairs = (
        (f"`{short(width.place)}` {run.first.count(width)} to {run.network.count(width)}", width)
        for width in run.network.widths
        if run.network.count(width) != run.first.count(width)
    )
    kinds: dict[str, list[str]] = {"expansion": [], "bottleneck": []}
    for text, width in pairs:
        kinds[width.kind].append(text)
    return "".join(f"- {kind}s: {', '.join(texts) or 'none'}\n" for kind, texts in kinds.items())
