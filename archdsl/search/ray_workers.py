"""Evaluators on a Ray cluster: `archdsl search --engine ray`.

Each worker is an actor with the resources of one trial, and evaluates one network at a time. A
worker that dies, or whose time is up, takes its trial with it and nothing else: another one is
started in its place. `docs/ray.md` says how to use it.
"""

from __future__ import annotations

import math
import os
import pickle
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from archdsl.compiler import parse
from archdsl.lang.diagnostics import ArchError
from archdsl.search.evaluators import Program, resolve
from archdsl.search.outcomes import evaluate, one_line
from archdsl.search.trials import Evaluation, Evaluator

_STORE_BYTES = 100_000_000
"""Of a local cluster's object store: texts and numbers are all that it holds."""
_GRACE = 5.0
"""Seconds that a program, which its worker ends itself, has above the time limit."""
_PATIENCE = 0.5
"""Seconds between looks at the clock."""


@dataclass
class _Task:
    """A trial that is not done; `tries` are those that began."""

    number: int
    text: str
    tries: int = 0
    actor: Any = None
    began: float = 0.0


class RayWorkers:
    """Evaluates networks on a Ray cluster: the `Workers` of `--engine ray`.

    `evaluator` is a name that `resolve` knows (its `settings` go with it), or a callable that
    pickle takes; with `program`, a command, the evaluator is that program. Workers import archdsl
    and the evaluator themselves: on other machines both must be installed.

    `address` is a cluster's (`--ray-address`: `auto`, `HOST:PORT` or `ray://HOST:PORT`); without
    one Ray's own `RAY_ADDRESS` counts, and where that is not set either a cluster of this machine
    is started, which `close` ends. A connection that the process already has is used as it is.
    `slots` (`--workers`) are the most trials at once, by default what the cluster has room for;
    `cpus` (`--cpus`) and `gpus` (`--gpus`) are what each of them needs.

    A trial whose worker dies is tried again `retries` times. `timeout` is the time limit of a try
    in seconds, counted from when a worker is ready for it; then the worker is killed.

    Raises:
        ImportError: Ray is not installed.
        ValueError: numbers out of range, a callable that cannot be pickled, or a cluster on which
            no node has what a trial needs.
        EvaluatorError: there is no such program.
        ConnectionError: there is no cluster at the address, or none can be started.
    """

    def __init__(
        self,
        evaluator: str | Evaluator,
        settings: Mapping[str, Any] | None = None,
        *,
        slots: int | None = None,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
        retries: int = 2,
        timeout: float | None = None,
        program: str | None = None,
    ) -> None:
        _check(slots, cpus, gpus, retries, timeout)
        self._ray = _ray()
        made: Any = evaluator
        if program is not None:
            made = Program(program, timeout)
        self._program = isinstance(made, Program)
        self._retries = retries
        self._limit = timeout
        if self._program and timeout is not None:
            self._limit = timeout + _GRACE
        asked = made if isinstance(made, str) else self._pickled(made)
        self._arguments = (asked, dict(settings or {}), os.getcwd(), list(sys.path))
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._connected = _connect(self._ray, address)
        self._waiting: deque[_Task] = deque()
        self._running: dict[Any, _Task] = {}
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        try:
            room = self._room(cpus, gpus)
            # A cluster elsewhere may get further nodes.
            if room < 1 and (slots is None or address == "local"):
                raise ValueError(
                    f"no node of the cluster has {cpus:g} CPU and {gpus:g} GPU for a trial"
                )
            self.slots = room if slots is None else slots
            options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
            if self._program:
                # One for `stop`, which comes while the program runs.
                options["max_concurrency"] = 2
            self._actor = self._ray.remote(_Worker).options(**options)
        except BaseException:
            self.close()
            raise

    def _pickled(self, evaluator: Evaluator) -> bytes:
        try:
            return bytes(self._ray.cloudpickle.dumps(evaluator))
        except Exception as error:
            raise ValueError(f"the evaluator cannot be sent to workers: {error}") from error

    def _room(self, cpus: float, gpus: float) -> int:
        """How many trials the nodes have room for; at most a million."""
        needs = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need}
        rooms = [
            min(int(node["Resources"].get(name, 0.0) / need) for name, need in needs.items())
            for node in self._ray.nodes()
            if node["Alive"]
        ]
        return min(sum(rooms), 1_000_000)

    # ------------------------------------------------------------------------------ the protocol

    def submit(self, number: int, text: str) -> None:
        """Have the network of a text evaluated, under the number of its trial."""
        self._waiting.append(_Task(number, text))
        self._assign()

    def wait(self) -> list[tuple[int, Evaluation]]:
        """What has ended, with its numbers; nothing where nothing is under way."""
        while self._waiting or self._running:
            self._assign()
            watched = [*self._running, *self._starting]
            done, _ = self._ray.wait(watched, num_returns=1, timeout=_PATIENCE)
            ended = [found for ref in done if (found := self._settle(ref)) is not None]
            ended += self._late()
            if ended:
                return ended
        return []

    def close(self) -> None:
        """End all workers, and the connection; a cluster that was started here ends with it."""
        self._end([task.actor for task in self._running.values()])
        for actor in (*self._starting.values(), *self._idle):
            with suppress(Exception):
                self._ray.kill(actor)
        self._waiting.clear()
        self._running.clear()
        self._starting.clear()
        self._idle.clear()
        if self._connected:
            self._connected = False
            self._ray.shutdown()

    # ------------------------------------------------------------------------------ inside

    def _assign(self) -> None:
        """Give waiting trials to idle workers, and start the workers that are wanting."""
        while self._waiting and self._idle:
            actor = self._idle.pop()
            try:
                self._ray.get(actor.ready.remote(), timeout=_GRACE)
            except self._ray.exceptions.RayError:
                # It died between two trials, which costs none.
                continue
            task = self._waiting.popleft()
            task.actor, task.began = actor, time.monotonic()
            task.tries += 1
            self._running[actor.evaluate.remote(task.text)] = task
        room = self.slots - len(self._running) - len(self._starting)
        for _ in range(min(room, len(self._waiting) - len(self._starting))):
            actor = self._actor.remote(*self._arguments)
            self._starting[actor.ready.remote()] = actor

    def _settle(self, ref: Any) -> tuple[int, Evaluation] | None:
        """Take down what has become of a worker; its trial's number and end, if that ended."""
        try:
            found = self._ray.get(ref)
        except self._ray.exceptions.RayError:
            return self._died(ref)
        if ref in self._starting:
            self._idle.append(self._starting.pop(ref))
            return None
        task = self._running.pop(ref)
        self._idle.append(task.actor)
        return task.number, found

    def _died(self, ref: Any) -> tuple[int, Evaluation] | None:
        if ref in self._starting:
            del self._starting[ref]
            if not self._waiting:
                return None
            # It was started for the first of them.
            task = self._waiting.popleft()
            task.tries += 1
        else:
            task = self._running.pop(ref)
        if task.tries <= self._retries:
            self._waiting.appendleft(task)
            return None
        again = f" in each of {task.tries} tries" if task.tries > 1 else ""
        return task.number, Evaluation(None, f"its worker died{again}")

    def _late(self) -> list[tuple[int, Evaluation]]:
        """Kill the workers whose time is up."""
        if self._limit is None:
            return []
        now = time.monotonic()
        late = [(r, task) for r, task in self._running.items() if now - task.began > self._limit]
        self._end([task.actor for _, task in late])
        for ref, _ in late:
            del self._running[ref]
        fault = f"it took longer than {self._limit:g} s, and was ended"
        return [
            (task.number, Evaluation(None, fault, seconds=now - task.began)) for _, task in late
        ]

    def _end(self, actors: Sequence[Any]) -> None:
        """End workers in the midst of a trial."""
        # Where the cluster is gone, so are they.
        with suppress(Exception):
            if self._program and actors:
                stopped = [actor.stop.remote() for actor in actors]
                self._ray.wait(stopped, num_returns=len(stopped), timeout=_GRACE)
        for actor in actors:
            with suppress(Exception):
                self._ray.kill(actor)


class _Worker:
    """An actor on the cluster. What its evaluator is, it finds out there, in the same folder."""

    def __init__(
        self, evaluator: str | bytes, settings: Mapping[str, Any], folder: str, path: Sequence[str]
    ) -> None:
        # Another machine may not have them.
        with suppress(OSError):
            os.chdir(folder)
        sys.path += [place for place in path if place not in sys.path]
        self._fault: str | None = None
        try:
            if isinstance(evaluator, str):
                self._evaluator = resolve(evaluator, settings)
            else:
                self._evaluator = pickle.loads(evaluator)
        except Exception as error:
            self._fault = one_line(f"on a worker: {error}")

    def ready(self) -> None:
        """Comes back once the evaluator is there."""

    def stop(self) -> None:
        """Kill the program that runs: it outlives its worker."""
        if self._fault is None and isinstance(self._evaluator, Program):
            self._evaluator.stop()

    def evaluate(self, text: str) -> Evaluation:
        """What is to be said of the network of a text."""
        if self._fault is not None:
            return Evaluation(None, self._fault)
        try:
            arch = parse(text)
        except ArchError as error:
            return Evaluation(None, f"on a worker: {error.diagnostics[0].message}")
        return evaluate(self._evaluator, arch)


def _check(
    slots: int | None, cpus: float, gpus: float, retries: int, timeout: float | None
) -> None:
    for name, value, least in (("slots", slots, 1), ("retries", retries, 0)):
        if value is not None and value < least:
            raise ValueError(f"{name} {value}: must be at least {least}")
    for name, amount in (("cpus", cpus), ("gpus", gpus)):
        if not 0 <= amount < math.inf:
            raise ValueError(f"{name} {amount:g}: must be a number, at least 0")
    if not cpus and not gpus:
        raise ValueError("a trial needs a CPU or a GPU, or a part of one")
    if timeout is not None and not 0 < timeout < math.inf:
        raise ValueError(f"timeout {timeout:g}: must be a number of seconds above 0")


def _ray() -> Any:
    """Ray's module, which reports nothing to its makers.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        message = f'ray cannot be imported ({error}); pip install "archdsl[ray]"'
        raise ImportError(message) from None
    return ray


def _connect(ray: Any, address: str) -> bool:
    """Connect to a cluster, or start one; whether that had still to be done."""
    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "CRITICAL"}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
    _knock(address)
    # It would say of each worker that dies so on standard output.
    ray._private.worker._worker_logs_enabled = False
    try:
        ray.init(address=address, **options)
    except Exception as error:
        first = str(error).strip().split("\n", 1)[0]
        what = (
            "no Ray cluster can be started" if address == "local" else f"no Ray cluster: {address}"
        )
        raise ConnectionError(f"{what} ({first})") from None
    return True


def _knock(address: str) -> None:
    """See that somebody is there: Ray itself asks for two minutes, and then ends the process.

    Raises:
        ConnectionError: nobody is.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"no Ray cluster answers at {address} ({error})") from None
