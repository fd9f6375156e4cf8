"""The measurements as tables a person reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import estimates

Row = Sequence[str]


def _table(head: Row, rows: Sequence[Row]) -> str:
    """Columns by width; the first is a name, the others are figures."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.3f}" if ms < 10 else f"{ms:.1f}" if ms < 1000 else f"{ms:,.0f}"


def _times(found: dict[str, Any], show: Callable[[float], str] = _ms) -> list[str]:
    return [show(found["median"]), show(found["min"]), show(found["max"])]


def _ratio(found: dict[str, Any]) -> str:
    return f"{found['median']:.0f}x ({found['min']:.0f}..{found['max']:.0f})"


def _verdict(value: float, limit: float, text: str, *, least: bool = False) -> str:
    met = value >= limit if least else value <= limit
    return f"  {'met   ' if met else 'MISSED'}  {text}"


def _quiet(result: dict[str, Any]) -> str:
    others = result["others_cores"]
    load = "unknown" if others is None else f"{others:.2f} cores"
    return f"  [{result['took_seconds']:.0f} s; other processes kept {load} busy meanwhile]"


def _missing(missing: dict[str, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"  left out ({reason}): {'; '.join(names)}" for reason, names in by_reason.items()]


def machine(found: dict[str, Any], quick: bool) -> str:
    def versions(names: dict[str, str | None]) -> str:
        return ", ".join(f"{name} {version or 'missing'}" for name, version in names.items())

    return "\n".join(
        [
            f"machine   {found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, "
            f"{found['system']}",
            f"software  {found['python']}; {versions(found['packages'])}",
            f"peers     {versions(found['peers'])}",
            f"run       {found['date']}, commit {found['commit'] or 'unknown'}"
            + (f", niceness {found['niceness']}" if found["niceness"] else "")
            + (", --quick: too few rounds to quote" if quick else ""),
            *(
                ["          benchmarks/README.md says how to install the missing peers"]
                if None in found["peers"].values()
                else []
            ),
        ]
    )


def _counted(found: dict[str, Any]) -> str:
    return f"{found['params']:,} parameters, {found['macs']:,} MACs"


def one_text(result: dict[str, Any]) -> str:
    ours, peers = result["archdsl"], result["peers"]
    rows = [
        [f"archdsl: {name}", *_times(case["seconds"]), _ms(case["warmup"]), "", ""]
        for name, case in ours.items()
    ]
    best = ours["same"]["seconds"]["min"]
    for name, peer in peers.items():
        for label, seconds, ratio, warmup in (
            (name, peer["seconds"], peer["ratio"], _ms(peer["warmup"])),
            ("   counting alone", peer["count_alone"], peer["ratio_count_alone"], ""),
        ):
            cells = [*_times(seconds), warmup, _ratio(ratio), f"{seconds['min'] / best:.0f}x"]
            rows.append([label, *cells])
    head = ["ms", "median", "min", "max", "warm-up", "to archdsl: same", "best/best"]
    parts = [
        "",
        "1  MobileNetV4-Conv-Medium from its text to its cost, in a warm process",
        _table(head, rows),
        *_missing(result["missing"]),
    ]
    if peers:
        others = [name for name in ours if name != "same"]
        rows = [
            [n, *(_ratio(peer["ratio_to"][case]) for case in others)] for n, peer in peers.items()
        ]
        parts.append(_table(["ratio", *(f"to archdsl: {name}" for name in others)], rows))
    parts.append(f"  rounds: {result['rounds']}; torch threads: {result['torch_threads']}; texts")
    parts += [f"    {name}: {case['what']}" for name, case in ours.items()]
    parts.append("  what is counted")
    parts.append(
        f"    archdsl: {_counted(result['counts'])} (convolutions and linear), bytes, peak memory"
    )
    parts += [f"    {name}: {_counted(peer)} ({peer['counts']})" for name, peer in peers.items()]
    median = ours["same"]["seconds"]["median"]
    parts.append(_verdict(median, 2e-3, f"{_ms(median)} ms a text (target: 2 ms at most)"))
    for name, peer in peers.items():
        if "meta" not in name:
            ratio = peer["ratio"]["median"]
            text = f"{ratio:.0f} times as fast as {name} (target: 100 at least, aim 300)"
            parts.append(_verdict(ratio, 100, text, least=True))
    return "\n".join([*parts, _quiet(result)])


def stream(result: dict[str, Any]) -> str:
    names = {
        "lists_cold": "archdsl.Coster(blocks), memo empty",
        "lists_warm": "archdsl.Coster(blocks), warm",
        "texts_cold": "archdsl.parse(text).cost(), memo empty",
        "texts_warm": "archdsl.parse(text).cost(), warm",
    }
    targets = {"lists": 20_000, "texts": 1_000}
    count = result["count"]
    parts = ["", f"2  {count:,} architectures of one search space, one core"]
    verdicts = []
    for space, found in result["spaces"].items():
        parts.append(
            f"  {space} space: {found['blocks_per_architecture']:.1f} block strings an "
            f"architecture, {found['distinct_strings']:,} distinct strings, "
            f"{found['distinct_architectures']:,} distinct architectures"
            + ("" if found["one_core"] else " (this system does not pin a process to a core)")
        )
        rows = [
            [name, *_times(found[key], lambda rate: f"{rate:,.0f}")] for key, name in names.items()
        ]
        parts.append(_table(["architectures/s", "median", "min", "max"], rows))
        for key in names:
            target, rate = targets[key.split("_")[0]], found[key]["median"]
            text = f"{rate:,.0f}/s: {space}, {names[key]} (target: {target:,})"
            verdicts.append(_verdict(rate, target, text, least=True))
    parts += verdicts
    if not result["wrong"]:
        parts.append(
            f"  equal: all {2 * count:,} costs of each space as lists and as texts; "
            f"{result['checked']} of them from a process that saw no other, and from its graph"
        )
    return "\n".join([*parts, _quiet(result)])


def shell(result: dict[str, Any]) -> str:
    found = result["commands"]
    base = found.get("archdsl check FILE") or found["python -c 'import archdsl'"]
    base_name = "check" if "archdsl check FILE" in found else "import"
    rows, verdicts = [], []
    for name, command in found.items():
        ratio = command["seconds"]["median"] / base["seconds"]["median"]
        cpu, memory = command["cpu_seconds"]["median"], command["peak_mib"]
        cells = [str(command["runs"]), *_times(command["seconds"]), _ms(command["warmup"])]
        cells += [f"{ratio:.1f}x", _ms(cpu)]
        rows.append([name, *cells, f"{memory['median']:.0f}", f"{memory['max']:.0f}"])
        if (limit := command["target_seconds"]) is not None:
            median = command["seconds"]["median"]
            text = f"{name}: {median:.3f} s (target: under {limit} s)"
            verdicts.append(_verdict(median, limit, text))
        if (limit := command["target_mib"]) is not None:
            text = f"{name}: {memory['max'] * 1.048576:.0f} MB at its peak (target: under 100 MB)"
            verdicts.append(_verdict(memory["max"], limit, text))
    head = [
        "ms",
        "runs",
        "median",
        "min",
        "max",
        "warm-up",
        f"to {base_name}",
        "CPU",
        "peak MiB",
        "max",
    ]
    return "\n".join(
        [
            "",
            "3, 4  Whole processes from a cold shell: their time and their peak memory",
            _table(head, rows),
            *_missing(result["missing"]),
            *verdicts,
            _quiet(result),
        ]
    )


def latency(result: dict[str, Any]) -> str:
    return "\n".join([estimates.table(result, _table, _verdict), _quiet(result)])


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "one_text": one_text,
    "stream": stream,
    "shell": shell,
}
