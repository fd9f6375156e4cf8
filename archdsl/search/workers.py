"""Evaluators on this machine: in child processes, each ended when its time is up, or in this one.

A child is a program of its own (`evaluating.py`) that is given texts and answers with numbers, a
line of JSON each. What an evaluator does to its process, it does to a child alone.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from archdsl.limits import in_force
from archdsl.search.evaluating import end_tree, evaluated
from archdsl.search.outcomes import EvaluatorError, one_line
from archdsl.search.trials import Evaluation, Evaluator

_TAIL = 1 << 16
"""Bytes of what an evaluator says of a network that are kept."""
_SAID = 1 << 24
"""Bytes that it may have said of a network before those beyond the tail are thrown away."""
_LOOK = 1.0
"""Seconds between looks at the children: who has died, and who says too much."""
_LOADING = 300.0
"""Seconds that a child may take until it is ready, where the time limit is shorter."""


class HereWorkers:
    """Evaluates in this process, one network at a time, without a time limit.

    For Python callables that no other process could find. What is printed goes where this process
    prints; the traceback of what is raised is added to the file `log`.
    """

    slots = 1

    def __init__(self, evaluator: Evaluator, log: str | os.PathLike[str] | None = None) -> None:
        self._evaluator = evaluator
        self._log = log
        self._waiting: deque[tuple[int, str]] = deque()

    def submit(self, number: int, text: str) -> None:
        self._waiting.append((number, text))

    def wait(self) -> list[tuple[int, Evaluation]]:
        if not self._waiting:
            return []
        number, text = self._waiting.popleft()

        def complain(said: str) -> None:
            _log(self._log, f"trial {number}", said)

        return [(number, evaluated(self._evaluator, text, complain))]

    def close(self) -> None:
        self._waiting.clear()


class LocalWorkers:
    """Evaluates in `slots` child processes, each of which is ended `timeout` seconds after it was
    given a network; what it started is ended with it, and another child takes its place.

    `evaluator` is a name that `resolve` knows, to which the `settings` go; with `program`, a
    command, the evaluator is that program. What an evaluator says while it is at a network is
    added to the file `log` when that is over.

    Raises:
        ValueError: fewer slots than one, or a time limit that is no positive number.
    """

    def __init__(
        self,
        evaluator: str | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        program: str | None = None,
        slots: int = 1,
        timeout: float | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots {slots}: must be at least 1")
        if timeout is not None and not 0 < timeout < float("inf"):
            raise ValueError(f"timeout {timeout:g}: must be a number of seconds above 0")
        self.slots = slots
        self._timeout = timeout
        self._start = {
            "evaluator": evaluator,
            "settings": dict(settings or {}),
            "program": program,
            "limits": dict(in_force()),
        }
        self._environment = _environment(slots)
        self._log = log
        self._waiting: deque[tuple[int, str]] = deque()
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._refused: str | None = None
        """Why the evaluator cannot be had."""

    def submit(self, number: int, text: str) -> None:
        """Have the network of a text evaluated, under the number of its trial."""
        self._waiting.append((number, text))
        self._assign()

    def wait(self) -> list[tuple[int, Evaluation]]:
        """What has ended, with its numbers; nothing where nothing is under way.

        Raises:
            EvaluatorError: the evaluator cannot be had: there is none, or it lacks a package.
        """
        ended: list[tuple[int, Evaluation]] = []
        while not ended and (self._waiting or self._busy()):
            if self._refused is not None:
                raise EvaluatorError(self._refused)
            self._assign()
            until = min((child.until for child in self._busy()), default=float("inf"))
            # What it left may hold the pipe open, and so its end is not that of its answers. What
            # it has answered by now is in the pipe.
            dead = {child for child in self._children if child.dead}
            left = 0.0 if dead else max(0.0, min(_LOOK, until - time.monotonic()))
            for key, _ in self._selector.select(left):
                child: _Child = key.data
                for said in child.read():
                    self._heard(child, said, ended)
                if child.over:
                    self._lost(child, ended)
                else:
                    dead.discard(child)
            for child in dead.intersection(self._children):
                self._lost(child, ended)
            for child in self._children:
                child.shorten()
            for child in self._busy():
                if time.monotonic() >= child.until:
                    self._late(child, ended)
        return ended

    def close(self) -> None:
        """End all children, and all that they started."""
        children, self._children = self._children, []
        self._waiting.clear()
        for child in children:
            child.end()
        self._selector.close()

    # ------------------------------------------------------------------------------ inside

    def _busy(self) -> list[_Child]:
        return [child for child in self._children if child.number is not None]

    def _assign(self) -> None:
        while self._waiting:
            child = next((child for child in self._children if child.idle), None)
            if child is None:
                if len(self._children) >= self.slots:
                    return
                # A thread may be over before the search is.
                by_main = threading.current_thread() is threading.main_thread()
                child = _Child({**self._start, "by_main_thread": by_main}, self._environment)
                self._children.append(child)
                self._selector.register(child.answers, selectors.EVENT_READ, child)
            number, text = self._waiting.popleft()
            child.give(number, text, self._timeout)

    def _heard(self, child: _Child, said: Mapping[str, Any], ended: list[Any]) -> None:
        if "refused" in said:
            # What others have found meanwhile is not lost for it.
            self._refused = str(said["refused"])
            return
        if "ready" in said:
            child.ready = True
            child.begin(self._timeout)
            return
        if said.get("number") is None or said["number"] != child.number:
            # A process that the evaluator forked came back from it too.
            return
        number, child.number = child.number, None
        self._take_down(number, child)
        fields = ("accuracy", "fault", "extra", "seconds")
        ended.append((number, Evaluation(**{field: said[field] for field in fields})))

    def _lost(self, child: _Child, ended: list[Any]) -> None:
        """A child ended by itself."""
        number, seconds = child.number, child.seconds
        fault = child.ending(self._take_down(number, child))
        lost = child.killed
        self._drop(child)
        if number is not None:
            ended.append((number, Evaluation(None, fault, seconds=seconds, lost=lost)))

    def _late(self, child: _Child, ended: list[Any]) -> None:
        number, seconds = child.number, child.seconds
        self._take_down(number, child)
        fault = f"it took longer than {self._timeout:g} s, and was ended"
        if not child.ready:
            fault = f"the evaluator was not ready after {seconds:.0f} s, and was ended"
        self._drop(child)
        ended.append((number, Evaluation(None, fault, seconds=seconds)))

    def _drop(self, child: _Child) -> None:
        self._selector.unregister(child.answers)
        self._children.remove(child)
        child.end()

    def _take_down(self, number: int | None, child: _Child) -> str:
        """Add what a child has said to the log; the last line of it."""
        text = child.said()
        _log(self._log, "between trials" if number is None else f"trial {number}", text)
        return next((line for line in reversed(text.split("\n")) if line.strip()), "")


def _log(path: str | os.PathLike[str] | None, heading: str, text: str) -> None:
    """Add what was said to a log, if there is one.

    A search is not worth less without its log, and goes on.
    """
    if text and path is not None:
        with suppress(OSError), open(path, "a", encoding="utf-8", errors="replace") as log:
            log.write(f"--- {heading}\n{text.rstrip()}\n")


class _Child:
    """A child process, the network it is at, and when its time is up."""

    def __init__(self, start: Mapping[str, Any], environment: dict[str, str]) -> None:
        self.number: int | None = None
        self.until = float("inf")
        self.ready = False
        self.over = False
        self._began = time.monotonic()
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        _append(self._said.fileno())
        self._unread = b""
        self._kept = b""
        # A session of its own: Ctrl-C at the terminal is for the search, which ends its children.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BEGIN, json.dumps([p or os.getcwd() for p in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            start_new_session=True,
            env=environment,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._orders = self._process.stdin
        self.answers = self._process.stdout
        self._send(start)

    def _send(self, said: Mapping[str, Any]) -> None:
        # A child that has ended is noticed where its answer would be read.
        with suppress(OSError):
            self._orders.write(json.dumps(said, default=str).encode() + b"\n")
            self._orders.flush()

    @property
    def idle(self) -> bool:
        return self.number is None and not self.dead

    @property
    def dead(self) -> bool:
        return self._process.poll() is not None

    @property
    def killed(self) -> bool:
        return self._process.poll() == -signal.SIGKILL

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def give(self, number: int, text: str, timeout: float | None) -> None:
        self.number = number
        self.begin(timeout)
        self._send({"number": number, "text": text})

    def begin(self, timeout: float | None) -> None:
        """Start the clock; a child that is not ready has more time, for what it imports."""
        self._began = time.monotonic()
        if timeout is not None:
            self.until = self._began + (timeout if self.ready else max(timeout, _LOADING))

    def read(self) -> list[dict[str, Any]]:
        """What has come from it; sets `over` where nothing will."""
        data = os.read(self.answers.fileno(), 1 << 16)
        self.over = not data
        *lines, self._unread = (self._unread + data).split(b"\n")
        return [said for line in lines if (said := _object(line)) is not None]

    def said(self) -> str:
        """The end of what it has said since this was asked last."""
        text, self._kept = self._taken(), b""
        return text.decode("utf-8", "replace")

    def shorten(self) -> None:
        """Throw away all but the end of what it has said, where that is too much for the disk."""
        if os.fstat(self._said.fileno()).st_size > _SAID:
            self._kept = self._taken()

    def _taken(self) -> bytes:
        name = self._said.fileno()
        size = os.fstat(name).st_size
        text = self._kept + os.pread(name, _TAIL, max(0, size - _TAIL))
        # The child appends to it, wherever its end is.
        os.ftruncate(name, 0)
        return text[-_TAIL:]

    def ending(self, last: str) -> str:
        """Why it ended, in a sentence; one that has only fallen silent is still there."""
        said = f" ({one_line(last)})" if last else ""
        try:
            status = self._process.wait(_LOOK)
        except subprocess.TimeoutExpired:
            return f"the evaluator closed the pipe of its answers, and was ended{said}"
        if status < 0:
            with suppress(ValueError):
                return f"the evaluator was ended by {signal.Signals(-status).name}{said}"
            return f"the evaluator was ended by signal {-status}{said}"
        return f"the evaluator ended its process with exit status {status}{said}"

    def end(self) -> None:
        end_tree(self._process.pid)
        self._process.wait()
        for pipe in (self._orders, self.answers, self._said):
            with suppress(OSError):
                pipe.close()


def _append(file: int) -> None:
    """Have what is written to a file go to its end, also when it has become shorter."""
    import fcntl

    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)


def _object(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that an evaluator wrote where only answers belong."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


# What the search can import its evaluators can, and the programs that these run are left alone.
_BEGIN = (
    "import sys, json; sys.path[:] = json.loads(sys.argv.pop()); "
    "from archdsl.search.evaluating import main; main()"
)


def _environment(slots: int) -> dict[str, str]:
    """The environment of a child: several share the cores, unless the user has settled that."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // slots))} if slots > 1 else {}
    return {**share, **os.environ}
