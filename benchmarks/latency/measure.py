"""This machine's times: the bench kit and the published networks, in every runtime.

    python benchmarks/latency/measure.py [TARGET...] [--cpu N] [--seconds S] [--again]

A TARGET is a runtime and a type of numbers, such as onnxruntime-float32; without one all of them
are measured, those left out that lie in the folder already (an interrupted run goes on at the next
target). Everything runs on one thread of one CPU. The networks of a target, the kit's and the
published ones, take turns in rounds, so that what changes on the machine meets both alike; how slow
each round was is written beside the times, and said where it is more than 3 %.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archdsl.calibration import kit, running
from archdsl.calibration.measuring import timings
from archdsl.compiler import Arch
from archdsl.files import write_whole
from archdsl.library import networks

TARGETS = (
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("tflite", "float32"),
    ("tflite", "int8"),
    ("torch", "float32"),
)
FOLDER = Path(__file__).resolve().parent / "data"
DRIFT = 0.03
"""How much slower than usual a round may be before it is mentioned."""


def chosen(most_gmacs: float, only: list[str] | None) -> Iterator[Arch]:
    """The kit's networks and the published ones; where some are named, those of the latter."""
    yield from kit.networks()
    for arch in networks():
        if arch.cost().macs <= most_gmacs * 1e9 and (only is None or arch.name in only):
            yield arch


def measured(runtime: Any, dtype: Any, options: argparse.Namespace) -> dict[str, Any]:
    """The file of results of a target."""
    start = time.monotonic()

    def tell(doing: str, done: int, count: int) -> None:
        seconds = time.monotonic() - start
        text = f"{runtime} {dtype}: {doing} {done} of {count}, {seconds:.0f} s"
        print(text, end="\x1b[K\r", file=sys.stderr)

    archs = chosen(options.most_gmacs, options.only)
    found = timings(archs, runtime, dtype, seconds=options.seconds, progress=tell)
    drift = running.drift(one.timing for one in found)
    record = running.results(
        {"runtime": runtime, "dtype": dtype}, [one.to_json() for one in found], threads=1
    )
    record["drift"] = [round(value, 4) for value in drift]
    slowest, disturbed = max(drift), [one.timing.disturbed for one in found]
    print(
        f"{runtime} {dtype}: {len(found)} networks, {len(drift)} rounds, "
        f"{time.monotonic() - start:.0f} s; {sum(disturbed) / len(disturbed):.0%} of the runs were "
        f"disturbed, the slowest round took {slowest - 1:+.1%}"
        + ("; measure again on a quiet machine" if slowest > 1 + DRIFT else "")
    )
    return record


def compact(record: dict[str, Any]) -> bytes:
    """The results as JSON, a network to a line."""
    facts = {key: value for key, value in record.items() if key != "networks"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in facts.items()]
    body = ",\n".join(f"  {json.dumps(entry)}" for entry in record["networks"])
    return ("{\n" + "".join(lines) + f' "networks": [\n{body}\n ]\n}}\n').encode()


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the kit and the published networks.")
    names = {f"{runtime}-{dtype}": (runtime, dtype) for runtime, dtype in TARGETS}
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=150, help="for a target; default: 150")
    parser.add_argument("--cpu", type=int, default=0, help="the CPU to stay on; default: 0")
    parser.add_argument("--most-gmacs", type=float, default=40.0, help="of a published network")
    parser.add_argument("--only", nargs="+", help="published networks; default: all")
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, metavar="FOLDER")
    options = parser.parse_args()
    for target in options.targets:
        if target not in names:
            parser.error(f"no target {target!r}: {', '.join(names)}")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.cpu})
    options.output.mkdir(parents=True, exist_ok=True)
    for target in options.targets or names:
        path = options.output / f"{target}.json"
        if path.exists() and not options.again:
            print(f"{target}: is there already")
            continue
        write_whole(path, compact(measured(*names[target], options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
