"""Latency: a kept network on a device, one device against ten, networks against ridge points.

`run.py` calls it `estimates.py [--quick]` and prints the table of the JSON that it writes; the
command itself is timed from outside, by `measure_commands`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measure import Case, interleave, ratios, run_process, summary

NETWORKS = ("mnv3_small", "mnv4_conv_m", "mnv4_hybrid_l")
DEVICES = (
    *("pixel1-cpu-fp32", "pixel2-cpu-fp32", "pixel4-cpu-fp32", "pixel6-cpu-fp32", "rpi4-cpu-fp32"),
    *("rpi5-cpu-fp32", "jetson-nano-gpu-fp32", "t4-gpu-fp32", "v100-gpu-fp32", "h200-gpu-fp32"),
)
COUNT, POINTS = 50, 500
"""Networks and ridge points of a sweep."""


def measure(quick: bool) -> dict[str, Any]:
    """What is timed in one process; equation 1 is recomputed from the layers beside it."""
    import archdsl
    from archdsl.library import members, published_source
    from archdsl.roofline.sweep import Candidate, ridge_points, sweep

    rounds = 3 if quick else 15
    devices = [archdsl.load_device(name) for name in DEVICES]
    archs = {name: archdsl.load(name) for name in NETWORKS}
    wrong = []
    for arch in archs.values():
        for device, latency in zip(devices, arch.cost(devices=devices).latency, strict=True):
            moved = ((x, x.weight_bytes + x.activation_bytes) for x in arch.cost().layers)
            times = (max(x.macs / device.peak_macs, b / device.bandwidth) for x, b in moved)
            if abs((latency.us or 0.0) / (sum(times) * 1e6) - 1) > 1e-9:
                wrong.append(f"{arch.name} on {device.name} is not equation 1")
    kept = [
        Case(name, partial(arch.latency, devices[0]), 200 if quick else 1000)
        for name, arch in archs.items()
    ]
    source = published_source("mnv4_conv_m.arch")

    def cost_on(number: int) -> object:
        return archdsl.parse(source).cost(devices=devices[:number])

    texts = [Case("one", partial(cost_on, 1), 30), Case("ten", partial(cost_on, 10), 30)]
    names = [member.name for member in members()][:COUNT]
    networks = [Candidate(name, archdsl.load(name).work, 70.0) for name in names]
    points = ridge_points(0, 500, POINTS)
    swept = Case("sweep", lambda: sweep(networks, points).shares)
    interleave([*kept, *texts, swept], rounds)
    return {
        "wrong": wrong,
        "rounds": rounds,
        "kept": {
            case.name: {"layers": len(archs[case.name].work), "seconds": summary(case.rounds)}
            for case in kept
        },
        "text_one": summary(texts[0].rounds),
        "text_ten": summary(texts[1].rounds),
        "text_ratio": ratios(texts[1].rounds, texts[0].rounds),
        "sweep": summary(swept.rounds),
        "networks": len(networks),
        "points": POINTS,
    }


def measure_commands(quick: bool) -> dict[str, Any]:
    """The command with one device, with ten, and a sweep, from fork to exit, in turns."""
    archdsl = [sys.executable, "-c", "import sys; from archdsl.cli import main; sys.exit(main())"]
    folder = Path(__file__).resolve().parent.parent / "architectures"
    files = sorted(str(path) for path in folder.glob("*.arch"))
    # Each file once; what is missing to fifty networks again.
    swept = (files * 2)[:COUNT]
    commands: dict[str, list[str]] = {
        "one": ["cost", "mnv4_conv_m", "--device", DEVICES[0]],
        "ten": ["cost", "mnv4_conv_m", *(w for name in DEVICES for w in ("--device", name))],
        "sweep": ["sweep", *swept, "--steps", str(POINTS), "--json"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    busy: dict[str, list[float]] = {name: [] for name in commands}
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(1 + (3 if quick else 15)):
            for name, words in commands.items():
                done = run_process([*archdsl, *words], place)
                if done.status:
                    wrong.append(f"archdsl {' '.join(words[:3])}: {done.stderr[:200]}")
                elif number:
                    seconds[name].append(done.seconds)
                    busy[name].append(done.cpu_seconds)
    found: dict[str, Any] = {name: summary(values) for name, values in seconds.items() if values}
    found |= {f"{name}, CPU": summary(values) for name, values in busy.items() if values}
    if not wrong:
        found["ratio"] = ratios(seconds["ten"], seconds["one"])
    return {"wrong": wrong, "commands": found}


def table(result: dict[str, Any], lines: Callable[..., str], verdict: Callable[..., str]) -> str:
    """The figures as text; `lines` and `verdict` are the report's."""
    commands = result["commands"]

    def row(name: str, found: dict[str, Any], scale: float) -> list[str]:
        return [name, *(f"{found[key] * scale:,.1f}" for key in ("median", "min", "max"))]

    us = [
        row(f"arch.latency(device): {name}, {case['layers']} layers", case["seconds"], 1e6)
        for name, case in result["kept"].items()
    ]
    ms = [
        row("text to cost on one device", result["text_one"], 1e3),
        row("text to cost on ten devices", result["text_ten"], 1e3),
        row(f"sweep of {result['networks']} networks, {POINTS} ridge points", result["sweep"], 1e3),
    ]
    titles = {"one": "cost on one device", "ten": "cost on ten", "sweep": "sweep of 50 FILEs"}
    ms += [
        row(f"archdsl {titles[name]}{of}", commands[f"{name}{of}"], 1e3)
        for name in titles
        for of in ("", ", CPU")
        if name in commands
    ]
    parts = [
        "",
        "6  Latency",
        lines(["µs", "median", "min", "max"], us),
        lines(["ms", "median", "min", "max"], ms),
    ]
    slowest = max(case["seconds"]["median"] for case in result["kept"].values())
    parts.append(verdict(slowest, 1e-4, f"{slowest * 1e6:.1f} µs a kept network (microseconds)"))
    for name, found in (("in Python, from a text", result["text_ratio"]),) + (
        (("the command", commands["ratio"]),) if "ratio" in commands else ()
    ):
        text = f"ten devices take {found['median']:.2f} times one: {name} (target: 1.5 at most)"
        parts.append(verdict(found["median"], 1.5, text))
    for name, found in (("in Python", result["sweep"]), ("the command", commands.get("sweep"))):
        if found:
            text = f"a sweep takes {found['median']:.2f} s: {name} (target: under 2 s)"
            parts.append(verdict(found["median"], 2, text))
    return "\n".join(parts)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    json.dump(measure("--quick" in sys.argv), sys.stdout)
