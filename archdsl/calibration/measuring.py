"""Times of networks on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archdsl.backend import Artifact, BackendError, compile
from archdsl.calibration.kit import RUNTIMES, Runtime, is_whole
from archdsl.calibration.measurement import Measurement, Results
from archdsl.calibration.running import (
    Timing,
    loaded,
    machine,
    package_version,
    timed_in_turns,
    timing_record,
)
from archdsl.compiler import Arch
from archdsl.extras import needs
from archdsl.ir.graph import Graph
from archdsl.ir.ops import Activation, Softmax
from archdsl.passes.cost import Dtype

SECONDS = 40.0
"""For the whole kit: enough for a median of each network that repeats to some 1 %."""

Progress = Callable[[str, int, int], None]
"""Takes what is done (`compiling`, `timing`), how much of it is over, and how much there is."""


def emitted(arch: Arch, runtime: Runtime, dtype: Dtype) -> Artifact:
    """A network's artefact to time: initial weights, and for int8 ranges that nothing was run for.

    A kernel takes as long for one number as for another.

    Raises:
        BackendError: no such runtime, or it has no such type of numbers, or a package is missing.
        ArchError: the backend cannot express the network.
    """
    if runtime not in RUNTIMES:
        raise BackendError(f"runtime {runtime!r}: must be one of {', '.join(RUNTIMES)}")
    ranges = nominal_ranges(arch.graph()) if dtype == "int8" else {}
    return compile(arch, RUNTIMES[runtime], dtype=dtype, ranges=ranges)


def nominal_ranges(graph: Graph) -> dict[str, tuple[float, float]]:
    """A range for the value of every node, as wide as a trained network's would be."""
    found = {}
    for node in graph:
        low, high = -6.0, 6.0
        if isinstance(node.op, Activation):
            low = {"hswish": -0.375, "swish": -0.28, "gelu": -0.17}.get(node.op.function, 0.0)
            high = 1.0 if "sigmoid" in node.op.function else 6.0
        elif isinstance(node.op, Softmax):
            low, high = 0.0, 1.0
        found[node.name] = (low, high)
    return found


def measure(
    archs: Iterable[Arch],
    runtime: Runtime,
    dtype: Dtype = "float32",
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Results:
    """The times of networks in a runtime on this machine's processor.

    The networks take turns, `seconds` for all together and at least three rounds.

    Raises:
        BackendError: the runtime is not installed, or does not have this type of numbers.
        ArchError: a backend cannot express a network.
        ValueError: threads or seconds that are not positive.
    """
    timed = timings(archs, runtime, dtype, threads=threads, seconds=seconds, progress=progress)
    return Results(
        measurements=tuple(
            Measurement(
                one.arch.name,
                one.arch.work,
                one.timing.us,
                spread=one.timing.spread,
                whole=is_whole(one.arch.name),
            )
            for one in timed
        ),
        dtype=dtype,
        runtime=runtime,
        runtime_version=package_version(runtime),
        machine=machine(),
        threads=threads,
        source="measured here",
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """A network and its time."""

    arch: Arch
    timing: Timing

    def to_json(self) -> dict[str, Any]:
        """The entry of a file of results, without the network's text."""
        cost = self.arch.cost()
        record = {"name": self.arch.name, "macs": cost.macs, "params": cost.params}
        return {**record, **timing_record(self.timing)}


def timings(
    archs: Iterable[Arch],
    runtime: Runtime,
    dtype: Dtype,
    *,
    threads: int = 1,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> tuple[Timed, ...]:
    """As `measure`, with all that is known of each time.

    Raises:
        BackendError, ArchError, ValueError: as `measure`.
    """
    if threads < 1 or not seconds > 0:
        raise ValueError("threads and seconds must be positive")
    chosen: Sequence[Arch] = tuple(archs)
    tell = progress or (lambda doing, done, count: None)
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for index, arch in enumerate(chosen):
            tell("compiling", index, len(chosen))
            artifact = emitted(arch, runtime, dtype)
            # Networks of one name may be measured together: each has a place of its own.
            path = Path(folder) / str(index) / artifact.filename
            path.parent.mkdir()
            artifact.write(path)
            with needs(RUNTIMES[runtime], f"{runtime} cannot be imported", BackendError):
                runs.append(loaded(runtime, str(path), arch.input, threads))
        found = timed_in_turns(
            runs,
            seconds,
            single=threads == 1,
            progress=lambda done, count: tell("timing", done, count),
        )
    return tuple(Timed(arch, timing) for arch, timing in zip(chosen, found, strict=True))
