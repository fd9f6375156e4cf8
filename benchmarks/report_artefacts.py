"""The section on artefacts as Markdown, ready for the README."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from artefacts import DYNAMIC, DYNAMIC_RECIPES, EXPORTERS, KERAS, STATIC, SUFFIXES

NOISE = 1.03
"""What a file takes longer than another by less than this is not said to be slower."""

DOT_PRODUCTS = ("amx_int8", "asimddp", "i8mm")

RUNTIMES = {"onnx": "ONNX Runtime", "tflite": "LiteRT"}

Row = Sequence[str]


def _table(head: Row, rows: Sequence[Row], names: int = 1) -> list[str]:
    """Markdown; the first columns are names, the others are figures."""
    rule = ["---" if number < names or not title else "---:" for number, title in enumerate(head)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


def _mb(mib: float) -> float:
    return mib * 1.048576


def ratio(found: dict[str, Any], base: dict[str, Any], what: str = "seconds") -> float:
    """How many times as long, round by round: the median."""
    pairs = zip(found[what]["values"], base[what]["values"], strict=True)
    return median(theirs / ours for theirs, ours in pairs)


class Targets:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def judge(self, what: str, figure: float, limit: float, unit: str, least: bool = False) -> None:
        met = figure >= limit if least else figure <= limit
        word = "at least" if least else "at most"
        digits = 3 if unit.strip() == "s" else 0 if "MB" in unit else 2
        self.rows.append(
            [
                what,
                f"{figure:.{digits}f}{unit}",
                f"{word} {limit:g}{unit}",
                "met" if met else "**missed**",
            ]
        )


def artefacts(result: dict[str, Any]) -> str:
    targets = Targets()
    lines = ["", "## Artefacts", ""]
    versions = result["versions"]
    for name, found in versions.items():
        shown = ", ".join(f"{package} {version}" for package, version in found.items())
        lines.append(f"- {name}: {shown}")
    instructions = result["instructions"]
    if instructions is not None:
        lines.append(f"- vector instructions: {', '.join(instructions) or 'none that matter here'}")
        if not any("vnni" in name or name in DOT_PRODUCTS for name in instructions):
            lines.append(
                "- **this processor has no dot products of 8-bit integers** (VNNI and its like): "
                "int8 gains little over float on it, whoever wrote the file"
            )
    lines += ["", *_emission(result["emission"], targets)]
    for runtime in RUNTIMES:
        lines += ["", *_latency(runtime, result["latency"], targets)]
    lines += ["", *_table(["target", "figure", "limit", ""], targets.rows)]
    if result["missing"]:
        lines += ["", *(f"- left out: {name} ({why})" for name, why in result["missing"].items())]
    others = result["others_cores"]
    load = "unknown" if others is None else f"{others:.2f} cores"
    lines += ["", f"{result['took_seconds']:.0f} s; other processes kept {load} busy meanwhile."]
    return "\n".join(lines)


def _emission(found: dict[str, Any], targets: Targets) -> list[str]:
    processes, rows = found["processes"], []
    proper = found["proper"]
    own = {to: f"archdsl compile --to {to}" for to in ("tflite", "onnx")}
    peers = {label: (kind, SUFFIXES[kind][1:]) for kind, label in EXPORTERS.items()}

    def growth(label: str, floor: str) -> float:
        peak = processes[label]["peak_mib"]["median"]
        return _mb(peak - processes[f"floor {floor}"]["peak_mib"]["median"])

    for label, (floor, to) in {**{own[to]: (to, to) for to in own}, **peers}.items():
        if label not in processes:
            continue
        process = processes[label]
        seconds = process["seconds"]
        alone = proper[to]["seconds"] if label == own[to] else found["export_seconds"][label]
        cells = [
            label,
            f"{seconds['median']:.2f} ({seconds['min']:.2f}..{seconds['max']:.2f})",
            f"{process['cpu_seconds']['median']:.2f}",
            f"{_mb(process['peak_mib']['median']):.0f}",
            f"{growth(label, floor):.0f}",
            f"{alone['median']:.3f}",
        ]
        if label == own[to] or own[to] not in processes:
            cells += ["", "", ""]
        else:
            base = processes[own[to]]
            cells += [
                f"{seconds['median'] / base['seconds']['median']:.1f}",
                f"{growth(label, floor) / growth(own[to], to):.1f}",
                f"{alone['median'] / proper[to]['seconds']['median']:.0f}",
            ]
        rows.append(cells)
    for to, limit, megabytes in (("tflite", 0.7, 200.0), ("onnx", 0.9, None)):
        if own[to] not in processes:
            continue
        process = processes[own[to]]
        targets.judge(f"`{own[to]}`, wall", process["seconds"]["median"], limit, " s")
        if megabytes:
            peak = _mb(process["peak_mib"]["max"])
            targets.judge(f"`{own[to]}`, peak memory", peak, megabytes, " MB")
        alone = proper[to]["seconds"]["median"]
        targets.judge(f"graph and weights to {to} bytes", alone, 0.1, " s")
        for label, (kind, format_) in peers.items():
            if format_ != to or label not in processes:
                continue
            times = processes[label]["seconds"]["median"] / process["seconds"]["median"]
            least = 25 if kind == "litert" else 8
            if kind != "legacy":
                targets.judge(f"{label} takes, of archdsl's time", times, least, " times", True)
            grown = growth(label, kind) / growth(own[to], to)
            targets.judge(f"{label} grows, of archdsl's memory", grown, 10, " times", True)
    head = [
        f"{found['network']}, a whole process",
        "wall s (min..max)",
        "CPU s",
        "peak MB",
        "MB over imports",
        "export alone s",
        "wall to archdsl",
        "growth to archdsl",
        "export to archdsl",
    ]
    return _table(head, rows)


def _latency(runtime: str, networks: dict[str, Any], targets: Targets) -> list[str]:
    rows: list[Row] = []
    for name, network in networks.items():
        files = network.get(runtime, {})
        timed = {label: facts for label, facts in files.items() if facts["seconds"]}
        own = {
            dtype: timed.get(f"archdsl {runtime} {dtype}")
            for dtype in ("float32", "int8", "int8_dynamic")
        }
        for label, facts in files.items():
            if facts["timed"] and label not in timed:
                continue
            cells = [name, label.replace(f"archdsl {runtime}", "archdsl")]
            cells += _times(label, facts, own, timed) if facts["timed"] else [""] * 5
            cells += [f"{facts['bytes'] / 1e6:.1f}", str(facts.get("nodes", ""))]
            if runtime == "tflite":
                left = sum(facts.get("left", {}).values())
                cells.append(f"{facts.get('partitions', '')} + {left}" if left else "all")
            sqnr = facts.get("compared", {}).get("sqnr")
            cells.append("" if sqnr is None or sqnr > 100 else f"{sqnr:.1f}")
            rows.append(cells)
        _targets(runtime, name, timed, own, targets)
    head = [
        "network",
        f"file in {RUNTIMES[runtime]}",
        "ms",
        "CPU ms",
        "to archdsl",
        "CPU to archdsl",
        "times its float",
        "MB",
        "nodes",
        *(["delegated"] if runtime == "tflite" else []),
        "SQNR dB",
    ]
    return _table(head, rows, names=2)


def _counterpart(label: str, group: str | None) -> str:
    """The precision of archdsl's file that a file is compared with."""
    if group == DYNAMIC or label in DYNAMIC_RECIPES.values() or "int8_dynamic" in label:
        return "int8_dynamic"
    return "int8" if group == STATIC or "int8" in label else "float32"


def _times(
    label: str, facts: dict[str, Any], own: dict[str, Any], timed: dict[str, Any]
) -> list[str]:
    """Milliseconds, wall and CPU; both to archdsl's counterpart; how much faster than its float."""
    cells = [f"{facts[what]['median'] * 1e3:.2f}" for what in ("seconds", "cpu_seconds")]
    base = own[_counterpart(label, facts["group"])]
    if base and facts is not base and "float16" not in label:
        cells += [f"{ratio(facts, base):.2f}", f"{ratio(facts, base, 'cpu_seconds'):.2f}"]
    else:
        cells += ["", ""]
    reference = timed.get(facts.get("reference", ""))
    faster = reference is not None and ("int8" in label or facts["group"])
    return [*cells, f"{1 / ratio(facts, reference):.2f}" if faster and reference else ""]


def _targets(
    runtime: str,
    name: str,
    timed: dict[str, Any],
    own: dict[str, Any],
    targets: Targets,
) -> None:
    where = f"{name} in {RUNTIMES[runtime]}"
    if own["float32"]:
        for kind, label in EXPORTERS.items():
            if label in timed and SUFFIXES[kind] == f".{runtime}":
                found = 1 / ratio(timed[label], own["float32"])
                targets.judge(f"{where}: float, of {label}'s time", found, NOISE, "")
    if own["int8_dynamic"]:
        for label, facts in timed.items():
            if facts["group"] == DYNAMIC:
                found = 1 / ratio(facts, own["int8_dynamic"])
                text = f"{where}: dynamic int8, of the best peer's time ({label})"
                targets.judge(text, found, NOISE, "")
    if not own["int8"]:
        return
    if own["float32"]:
        found = ratio(own["float32"], own["int8"])
        targets.judge(f"{where}: int8, times as fast as its float", found, 1.7, "", True)
    for label, facts in timed.items():
        if facts["group"] == STATIC:
            found = 1 / ratio(facts, own["int8"])
            targets.judge(f"{where}: int8, of the best peer's time ({label})", found, NOISE, "")
        if label == KERAS["int8"]:
            found = ratio(facts, own["int8"])
            targets.judge(f"{where}: int8, times as fast as {label}", found, 2, "", True)
