"""Evaluators on a Ray cluster: `archdsl search --engine ray`.

Each worker is an actor with the resources of one trial. It evaluates one network at a time as a
search on its machine would, in a child process that ends when it does. A worker that dies takes
its trial with it and nothing else: another one is started in its place. `docs/ray.md` says how to
use it.
"""

from __future__ import annotations

import base64
import math
import os
import pickle
import socket
import sys
import tempfile
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from archdsl.compiler import Arch
from archdsl.extras import needs
from archdsl.limits import in_force, raised
from archdsl.search.evaluators import Program
from archdsl.search.outcomes import EvaluatorError, one_line
from archdsl.search.trials import Evaluation, Evaluator
from archdsl.search.workers import LocalWorkers

_STORE_BYTES = 100_000_000
"""Of a local cluster's object store: texts and numbers are all that it holds."""
_GRACE = 5.0
"""Seconds in which a worker says that it is still there."""
_PATIENCE = 2.0
"""Seconds between looks at what the cluster has to spare."""
_STARTING = 300.0
"""Seconds that a worker may take to start, while the cluster has what it needs to spare."""
_SILENCE = 30.0
"""Seconds without a worker after which that is said."""
_ENVIRONMENT = {"RAY_kill_child_processes_on_worker_exit": "0"}
"""Of workers: Ray would kill their children alone, and what those started would live on. A child
whose worker is gone ends all that it started, and itself."""


@dataclass
class _Task:
    """A trial that is not done; `tries` are those that began."""

    number: int
    text: str
    tries: int = 0
    actor: Any = None


@dataclass
class _Start:
    """A worker that is not ready; `since` counts only while there is room for it."""

    actor: Any
    since: float


@dataclass(frozen=True)
class _Answer:
    """What comes back from a worker: an evaluation, or why the evaluator cannot be had."""

    evaluation: Evaluation | None
    refused: str | None
    said: str
    """What the evaluator said, as the log has it."""


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
    in seconds, counted from when its evaluator is ready for it; then the evaluator is killed. What
    evaluators say is added to the file `log`, and `say` is told where the cluster has no room.

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
        log: str | os.PathLike[str] | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        _check(slots, cpus, gpus, retries, timeout)
        self._ray = _ray()
        if program is not None:
            evaluator = Program(program)
        asked = {**self._asked(evaluator, dict(settings or {})), "timeout": timeout}
        self._arguments = (asked, dict(in_force()), os.getcwd(), list(sys.path))
        self._retries = retries
        self._log = log
        self._say = say
        self._needs = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need}
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._connected = _connect(self._ray, address)
        self._waiting: deque[_Task] = deque()
        self._running: dict[Any, _Task] = {}
        self._starting: dict[Any, _Start] = {}
        self._idle: list[Any] = []
        self._refused: str | None = None
        """Why the evaluator cannot be had."""
        self._looked = self._served = time.monotonic()
        try:
            room = self._room()
            # A cluster elsewhere may get further nodes.
            if room < 1 and (slots is None or address == "local"):
                raise ValueError(
                    f"no node of the cluster has {cpus:g} CPU and {gpus:g} GPU for a trial"
                )
            self.slots = room if slots is None else slots
            self._actor = self._ray.remote(_Worker).options(
                num_cpus=cpus,
                num_gpus=gpus,
                max_restarts=0,
                runtime_env={"env_vars": _ENVIRONMENT},
            )
        except BaseException:
            self.close()
            raise

    def _asked(self, evaluator: str | Evaluator, settings: dict[str, Any]) -> dict[str, Any]:
        """The evaluator, as `LocalWorkers` takes it."""
        if isinstance(evaluator, str):
            return {"evaluator": evaluator, "settings": settings}
        if isinstance(evaluator, Program):
            return {"program": evaluator.command}
        try:
            pickled = self._ray.cloudpickle.dumps(evaluator)
        except Exception as error:
            raise ValueError(f"the evaluator cannot be sent to workers: {error}") from error
        text = base64.b64encode(pickled).decode("ascii")
        return {"evaluator": f"{__name__}:{sent.__name__}", "settings": {"evaluator": text}}

    def _room(self) -> int:
        """How many trials the nodes have room for; at most a million."""
        rooms = [
            min(int(node["Resources"].get(name, 0.0) / need) for name, need in self._needs.items())
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
        """What has ended, with its numbers; nothing where nothing is under way.

        Raises:
            EvaluatorError: a worker cannot have the evaluator; there is none, or it lacks a
                package.
        """
        while self._waiting or self._running:
            if self._refused is not None:
                raise EvaluatorError(f"on a worker: {self._refused}")
            self._assign()
            watched = [*self._running, *self._starting]
            self._ray.wait(watched, num_returns=1, timeout=_PATIENCE)
            done, _ = self._ray.wait(watched, num_returns=len(watched), timeout=0)
            ended = [found for ref in done if (found := self._settle(ref)) is not None]
            ended += self._unplaced()
            if ended:
                return ended
        return []

    def close(self) -> None:
        """End all workers, and the connection; a cluster that was started here ends with it."""
        working = [task.actor for task in self._running.values()]
        starting = [start.actor for start in self._starting.values()]
        for actor in (*working, *starting, *self._idle):
            self._end(actor)
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
                self._end(actor)
                continue
            task = self._waiting.popleft()
            task.actor = actor
            task.tries += 1
            self._running[actor.evaluate.remote(task.number, task.text)] = task
        room = self.slots - len(self._running) - len(self._starting)
        for _ in range(min(room, len(self._waiting) - len(self._starting))):
            actor = self._actor.remote(*self._arguments)
            self._starting[actor.ready.remote()] = _Start(actor, time.monotonic())

    def _settle(self, ref: Any) -> tuple[int, Evaluation] | None:
        """Take down what has become of a worker; its trial's number and end, if that ended."""
        try:
            answer: _Answer | None = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            return self._died(ref, error)
        self._served = time.monotonic()
        if answer is None:
            self._idle.append(self._starting.pop(ref).actor)
            return None
        task = self._running.pop(ref)
        self._idle.append(task.actor)
        if answer.said and self._log is not None:
            # A search is not worth less without its log.
            with suppress(OSError), open(self._log, "a", encoding="utf-8") as log:
                log.write(answer.said)
        if answer.refused is not None:
            # What others have found meanwhile is not lost for it.
            self._refused = answer.refused
            self._waiting.appendleft(task)
            return None
        assert answer.evaluation is not None
        if answer.evaluation.lost:
            return self._lost(task, answer.evaluation)
        return task.number, answer.evaluation

    def _died(self, ref: Any, error: Exception) -> tuple[int, Evaluation] | None:
        """A worker is gone, or is of no more use."""
        if ref in self._running:
            task = self._running.pop(ref)
            self._end(task.actor)
            return self._lost(task, Evaluation(None, "its worker died"))
        return self._not_started(ref, _last_line(error))

    def _not_started(self, ref: Any, why: str) -> tuple[int, Evaluation] | None:
        self._end(self._starting.pop(ref).actor)
        if not self._waiting:
            return None
        # It was started for the first of them.
        task = self._waiting.popleft()
        task.tries += 1
        return self._lost(task, Evaluation(None, f"no worker could be started ({why})"))

    def _lost(self, task: _Task, found: Evaluation) -> tuple[int, Evaluation] | None:
        """A try was in vain, and not by the evaluator's doing."""
        if task.tries <= self._retries:
            self._waiting.appendleft(task)
            return None
        again = f" in each of {task.tries} tries" if task.tries > 1 else ""
        return task.number, replace(found, fault=f"{found.fault}{again}")

    def _unplaced(self) -> list[tuple[int, Evaluation]]:
        """End workers that do not start though there is room; say so where there is none."""
        now = time.monotonic()
        if not self._starting or now - self._looked < _PATIENCE:
            return []
        self._looked = now
        free = self._ray.available_resources()
        if any(free.get(name, 0.0) < need for name, need in self._needs.items()):
            # The room may be that of workers of other searches, for as long as these like.
            for start in self._starting.values():
                start.since = now
            if not self._running and self._say is not None and now - self._served > _SILENCE:
                self._served = math.inf
                needs = " and ".join(f"{need:g} {name}" for name, need in self._needs.items())
                self._say(f"waiting for a worker: the cluster has no {needs} to spare")
            return []
        late = [ref for ref, start in self._starting.items() if now - start.since > _STARTING]
        why = f"not within {_STARTING:g} s"
        return [found for ref in late if (found := self._not_started(ref, why)) is not None]

    def _end(self, actor: Any) -> None:
        # Where the cluster is gone, so is it.
        with suppress(Exception):
            self._ray.kill(actor)


class _Worker:
    """An actor on the cluster: a search's local workers there, of which it has one."""

    def __init__(
        self, asked: Mapping[str, Any], limits: Mapping[str, int], folder: str, path: Sequence[str]
    ) -> None:
        # Another machine may not have them.
        with suppress(OSError):
            os.chdir(folder)
        sys.path += [place for place in path if place not in sys.path]
        self._log = Path(tempfile.gettempdir(), f"archdsl-{uuid.uuid4().hex}.log")
        with raised(**limits):
            self._workers = LocalWorkers(**asked, log=self._log)

    def ready(self) -> None:
        """Comes back once the worker is there."""

    def evaluate(self, number: int, text: str) -> _Answer:
        """What is to be said of the network of a text."""
        self._workers.submit(number, text)
        try:
            ((_, found),) = self._workers.wait()
        except EvaluatorError as error:
            return _Answer(None, str(error), self._said())
        return _Answer(found, None, self._said())

    def _said(self) -> str:
        try:
            text = self._log.read_text("utf-8", "replace")
            self._log.unlink()
        except OSError:
            return ""
        return text


def _unpickled(text: str) -> Any:
    try:
        return pickle.loads(base64.b64decode(text))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def sent(arch: Arch, evaluator: Annotated[Any, BeforeValidator(_unpickled)]) -> Any:
    """An evaluator for `resolve`, whose setting is the callable that was sent to the workers."""
    return evaluator(arch)


def _last_line(error: Exception) -> str:
    """Ray's messages end with what was raised on the worker."""
    lines = [line for line in str(error).split("\n") if line.strip()]
    return one_line(lines[-1] if lines else type(error).__name__)


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
    with needs("ray", "ray cannot be imported"):
        import ray
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
        if address == "local":
            raise ConnectionError(f"no Ray cluster can be started ({first})") from None
        # Ray sends its token to addresses that it was given only where it is told to.
        asked = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        hint = "" if asked else "; one that wants a token needs RAY_AUTH_MODE=token here as well"
        raise ConnectionError(f"no Ray cluster: {address} ({first}){hint}") from None
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
