"""Time the networks of a folder in turns: the file `run.py` of a bench kit.

It needs the runtime and numpy alone, and is copied into each kit as it stands.

    python run.py [--threads N] [--seconds S] [--cpu N] [-o results.json]

Each network is run a few times in every round, so that a machine that slows down or is used by
others meanwhile does so for all of them.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA_VERSION = 1
PACKAGES = {"onnxruntime": "onnxruntime", "tflite": "ai-edge-litert", "torch": "torch"}
"""The package of each runtime, by its name on PyPI."""

WARM_UP = 0.05
"""Seconds that a network runs before it is timed; once at least, for code is chosen then."""
ROUNDS = 15
LONG = 0.1
"""Seconds of a run that what ran before does not matter to."""
MOST_RUNS = 200
"""Of a network in a round: more tell nothing new."""

LEAST_QUIET = 3
"""Runs that nothing disturbed, to do without the others."""

_THREAD_TIME = time.get_clock_info("thread_time").resolution < 1e-6
"""Whether a thread's processor time is known well enough (on Windows it is to 16 ms)."""

Run = Callable[[], object]
Progress = Callable[[int, int], None]


class Timing(NamedTuple):
    """The times of a network in µs: of one run each.

    `us` is the median of the runs that no other program disturbed or, where there are hardly any,
    of the processor time of all; `min_us` the least. `spread` is the relative half width of the
    middle four fifths of the rounds' medians (`rounds`, in order), `runs` the number of runs that
    these are of, `disturbed` the share of all in which the processor did something else.
    """

    us: float
    min_us: float
    spread: float
    runs: int
    disturbed: float
    rounds: tuple[float, ...]


# ------------------------------------------------------------------------------------- taking times


def timed_in_turns(
    runs: Sequence[Run],
    seconds: float,
    *,
    single: bool = True,
    progress: Progress | None = None,
) -> list[Timing]:
    """Time functions in rounds, `seconds` for all together (at least three rounds are made).

    In a round each is called for its share of the time, or once. `single` says that the functions
    work in this thread alone: then its processor time shows whether a run was disturbed.
    `progress` is called with the rounds done, and their number.
    """
    estimates = [_warmed(run) for run in runs]
    share = seconds / ROUNDS / max(len(runs), 1)
    counts = [max(1, min(MOST_RUNS, round(share / each))) for each in estimates]
    # With the run before those that are timed.
    pairs = zip(counts, estimates, strict=True)
    once = sum((count + (each < LONG)) * each for count, each in pairs)
    rounds = max(3, min(ROUNDS, round(seconds / once))) if once > 0 else 3
    walls: list[list[list[float]]] = [[] for _ in runs]
    busy: list[list[list[float]]] = [[] for _ in runs]
    for done in range(rounds):
        if progress is not None:
            progress(done, rounds)
        # Forwards and backwards, so that nobody always runs behind the same neighbour.
        order = range(len(runs)) if done % 2 == 0 else range(len(runs) - 1, -1, -1)
        for index in order:
            wall, cpu = _run(runs[index], counts[index], estimates[index])
            walls[index].append(wall)
            busy[index].append(cpu)
    if progress is not None:
        progress(rounds, rounds)
    return [_timing(*pair, single) for pair in zip(walls, busy, strict=True)]


def _warmed(run: Run) -> float:
    """Seconds of a run, after the first ones."""
    run()
    times: list[float] = []
    while not times or (sum(times) < WARM_UP and len(times) < MOST_RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-7)


def _run(run: Run, count: int, estimate: float) -> tuple[list[float], list[float]]:
    """Seconds of each of some runs by the clock, and of this thread's processor time."""
    if estimate < LONG:
        # What ran before has left its own weights in the caches.
        run()
    walls, busy = [], []
    for _ in range(count):
        worked = time.thread_time()
        start = time.perf_counter()
        run()
        walls.append(time.perf_counter() - start)
        busy.append(time.thread_time() - worked)
    return walls, busy


def _timing(walls: list[list[float]], busy: list[list[float]], single: bool) -> Timing:
    rounds = [list(zip(*pair, strict=True)) for pair in zip(walls, busy, strict=True)]
    count = sum(map(len, rounds))
    kept, disturbed = walls, 0
    if single and _THREAD_TIME:
        quiet = [[wall for wall, cpu in one if wall < 1.02 * cpu + 20e-6] for one in rounds]
        disturbed = count - sum(map(len, quiet))
        # A long run has never the processor to itself where others want it too.
        kept = quiet if count - disturbed >= LEAST_QUIET else busy
    values = [value for one in kept for value in one]
    middle = statistics.median(values)
    in_order = [statistics.median(one) if one else math.nan for one in kept]
    medians = sorted(value for value in in_order if value == value)
    cut = len(medians) // 10
    return Timing(
        us=middle * 1e6,
        min_us=min(values) * 1e6,
        spread=(medians[-1 - cut] - medians[cut]) / 2 / middle,
        runs=len(values),
        disturbed=disturbed / count,
        rounds=tuple(value * 1e6 for value in in_order),
    )


def drift(timings: Iterable[Timing]) -> list[float]:
    """How slow the machine was in each round: 1.02 for 2 % slower than in the middle one.

    The median over the networks of what each took in that round, by its own time.
    """
    relative = ([value / one.us for value in one.rounds] for one in timings)
    found = []
    for values in zip(*relative, strict=True):
        known = [value for value in values if value == value]
        found.append(statistics.median(known) if known else math.nan)
    return found


# ------------------------------------------------------------------------------------- the runtimes


def loaded(runtime: str, path: str, shape: Sequence[int], threads: int) -> Run:
    """A function that runs the network of a file once, for one image (height, width, channels).

    Raises:
        ImportError: the runtime is not installed.
        ValueError: no such runtime.
    """
    if runtime not in _LOADERS:
        raise ValueError(f"runtime {runtime!r}: must be one of {', '.join(_LOADERS)}")
    return _LOADERS[runtime](path, tuple(shape), threads)


def _image(shape: tuple[int, ...]) -> Any:
    """An image (1, height, width, channels) of normally distributed numbers."""
    import numpy as np

    return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)


def _onnxruntime(path: str, shape: tuple[int, ...], threads: int) -> Run:
    import onnxruntime  # noqa: TID251

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    fed = {session.get_inputs()[0].name: _image(shape).transpose(0, 3, 1, 2).copy()}
    return lambda: session.run(None, fed)


def _tflite(path: str, shape: tuple[int, ...], threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped]

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _image(shape))
    return interpreter.invoke  # type: ignore[no-any-return]


def _torch(path: str, shape: tuple[int, ...], threads: int) -> Run:
    import torch  # noqa: TID251

    torch.set_num_threads(threads)
    name = f"_kit_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.Model().eval()
    image = torch.from_numpy(_image(shape)).movedim(-1, 1).contiguous()

    def run() -> object:
        with torch.inference_mode():
            return network(image)

    return run


_LOADERS: Mapping[str, Callable[[str, tuple[int, ...], int], Run]] = {
    "onnxruntime": _onnxruntime,
    "tflite": _tflite,
    "torch": _torch,
}


# -------------------------------------------------------------------------------------- the machine


def machine() -> str:
    """The processor, the system, and how many processors there are."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}, {count} CPUs, {platform.system()} {platform.machine()}"


def processor() -> str:
    """The processor's name, with family and model where they tell more."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    name = facts.get("model name") or facts.get("Hardware") or platform.machine()
    family = facts.get("cpu family")
    numbers = f" (family {family} model {facts.get('model', '?')})" if family else ""
    return f"{name}{numbers}"


def package_version(runtime: str) -> str:
    """The runtime's version; empty where it is not installed."""
    try:
        return version(PACKAGES[runtime])
    except (KeyError, PackageNotFoundError):
        return ""


# --------------------------------------------------------------------------------------- the folder


def results(
    kit: Mapping[str, Any], networks: Iterable[Mapping[str, Any]], threads: int
) -> dict[str, Any]:
    """What `results.json` holds, from a kit's table and the timed networks."""
    return {
        "schema_version": SCHEMA_VERSION,
        "format": "archdsl-results",
        "runtime": kit["runtime"],
        "runtime_version": package_version(str(kit["runtime"])),
        "dtype": kit["dtype"],
        "threads": threads,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "networks": list(networks),
    }


def timing_record(timing: Timing) -> dict[str, float]:
    """A timing as results have it: tenths of µs."""
    return {
        "us": round(timing.us, 2),
        "min_us": round(timing.min_us, 2),
        "spread": round(timing.spread, 4),
        "runs": timing.runs,
        "disturbed": round(timing.disturbed, 3),
    }


def _models(folder: Path, kit: Mapping[str, Any], threads: int) -> Iterator[tuple[Any, Run]]:
    for model in kit["models"]:
        _tell(f"loading {model['name']}")
        path = str(folder / model["file"])
        yield model, loaded(kit["runtime"], path, model["input"], threads)


def _tell(text: str) -> None:
    """Show what is done, where somebody is looking."""
    if sys.stderr.isatty():
        print(text, end="\x1b[K\r", file=sys.stderr)


def _write_whole(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the kit that this file lies in."""
    folder = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Time the networks of this kit.")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--seconds", type=float, default=40, metavar="S", help="default: 40")
    parser.add_argument("--cpu", type=int, metavar="N", help="stay on this CPU (Linux)")
    parser.add_argument("-o", "--output", type=Path, default=folder / "results.json")
    options = parser.parse_args(arguments)
    if options.threads < 1 or not options.seconds > 0:
        parser.error("--threads and --seconds must be positive")
    if options.cpu is not None:
        try:
            os.sched_setaffinity(0, {options.cpu})
        except (AttributeError, OSError, ValueError) as failure:
            parser.error(f"--cpu: {failure}")
    kit = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
    try:
        models, runs = zip(*_models(folder, kit, options.threads), strict=True)
    except ImportError as failure:
        print(f"{kit['runtime']} cannot be imported: {failure}", file=sys.stderr)
        return 2

    def tell(done: int, count: int) -> None:
        _tell(f"round {done} of {count}")

    single = options.threads == 1
    timings = timed_in_turns(runs, options.seconds, single=single, progress=tell)
    keys = ("name", "whole", "macs", "params", "sha256", "arch")
    networks = [
        {**{key: model[key] for key in keys}, **timing_record(timing)}
        for model, timing in zip(models, timings, strict=True)
    ]
    record = results(kit, networks, options.threads)
    record["drift"] = [round(value, 4) for value in drift(timings)]
    try:
        _write_whole(options.output, json.dumps(record, indent=1) + "\n")
    except OSError as failure:
        print(f"{options.output}: {failure.strerror}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
