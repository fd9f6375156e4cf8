"""Taking times: interleaved rounds in one process, whole processes from outside, and summaries."""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_MIB = 1 << 20
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, smallest and largest, with the values themselves in the order they were taken."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


@dataclass
class Case:
    """Something to time: `call` is run `calls` times a round; a round's figure is s per call."""

    name: str
    call: Callable[[], object]
    calls: int = 1
    warmup: float = 0.0
    rounds: list[float] = field(default_factory=list)

    def time(self) -> float:
        call = self.call
        start = time.perf_counter()
        for _ in range(self.calls):
            call()
        return (time.perf_counter() - start) / self.calls


def interleave(cases: Sequence[Case], rounds: int) -> None:
    """Time all cases in every round, each round starting with another case.

    What disturbs the machine for a second then disturbs all cases and not one of them. The first
    round is the warm-up: it is kept apart, in `Case.warmup`. What it leaves (torch's modules and
    everything else) is taken from the garbage collector: a case pays for its own objects only.
    """
    for number in range(rounds + 1):
        turn = number % len(cases)
        for case in [*cases[turn:], *cases[:turn]]:
            seconds = case.time()
            if number:
                case.rounds.append(seconds)
            else:
                case.warmup = seconds
        if not number:
            gc.collect()
            gc.freeze()


def ratios(peer: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """How many times as long the peer took, round by round."""
    return summary([theirs / own for theirs, own in zip(peer, ours, strict=True)])


@dataclass(frozen=True)
class Process:
    """A process that has ended: times, peak resident memory, exit status, what it wrote."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    status: int
    stdout: str
    stderr: str


def run_process(command: Sequence[str], cwd: str | os.PathLike[str]) -> Process:
    """Run a command from fork to exit.

    The peak memory is the child's own `ru_maxrss`. The kernel counts into it what the parent held
    when it forked, so the caller must be a small process: one that has imported no framework.
    """
    # An installed package has its bytecode. Without it, one measures Python's compiler.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    # Files, not pipes: a full pipe would make the child wait for the parent.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            env=environment,
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        peak = usage.ru_maxrss * _MAXRSS_UNIT / _MIB
        cpu = usage.ru_utime + usage.ru_stime
        return Process(seconds, cpu, peak, child.returncode, *texts)


def worker(script: str, *arguments: str) -> Any:
    """What a script of this folder prints as JSON, run in a process of its own."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks/{script} ended with status {done.returncode}")
    return json.loads(done.stdout)
