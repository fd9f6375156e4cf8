"""What a child of `workers.py` runs: texts come in, evaluations go out, a line of JSON each.

Its standard output is the search's; what the evaluator prints goes to standard error. When the
search is gone, however that came, nobody is left to answer: the child ends all that it started,
and itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from archdsl.compiler import parse
from archdsl.lang.diagnostics import ArchError
from archdsl.limits import most, raised
from archdsl.search.outcomes import EvaluatorError, evaluate, one_line
from archdsl.search.trials import Evaluation, Evaluator


def evaluated(
    evaluator: Evaluator, text: str, complain: Callable[[str], object] | None = None
) -> Evaluation:
    """What an evaluator says of the network of a text; no fault of it is passed on.

    `complain` is given the traceback of one.
    """
    try:
        arch = parse(text)
    except ArchError as error:
        return Evaluation(None, one_line(error.diagnostics[0].message))
    return evaluate(evaluator, arch, complain)


def main() -> None:
    """Answer until there are no more orders."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    orders = os.fdopen(os.dup(0), "r", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    start = json.loads(orders.readline() or "null")
    if start is None:
        return
    if start["by_main_thread"]:
        end_with_parent()
    waiting: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(orders, waiting), daemon=True).start()
    with ExitStack() as stack:
        limits = {name: value for name, value in start["limits"].items() if value > most(name)}
        stack.enter_context(raised(**limits))
        try:
            evaluator = _made(start)
        except (EvaluatorError, ArchError, OSError) as error:
            _answer(answers, {"refused": str(error)})
            return
        _answer(answers, {"ready": True})
        while True:
            order = waiting.get()
            found = evaluated(evaluator, order["text"], _complain)
            fields = {name: getattr(found, name) for name in ("accuracy", "fault", "seconds")}
            _answer(answers, {"number": order["number"], **fields, "extra": dict(found.extra)})


def _made(start: dict[str, Any]) -> Evaluator:
    from archdsl.search.evaluators import Program, resolve

    if start["program"] is not None:
        program = Program(start["program"])
        program.echo = 2
        return program
    return resolve(start["evaluator"], start["settings"])


def _complain(text: str) -> None:
    """Put a traceback behind what the evaluator has printed, also where it took standard error."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


def _answer(answers: IO[str], said: dict[str, Any]) -> None:
    # Where nobody reads it, the other thread ends the process.
    with suppress(OSError):
        answers.write(json.dumps(said) + "\n")


def end_with_parent() -> None:
    """Have the system end this process three seconds after its parent, come what may.

    To the system the parent is the thread that started this process, not all of the parent.
    The thread that listens is sooner, and ends what was started too; but it runs only where the
    evaluator lets it, which one that is busy in C may not. The handler is the C library's own
    `alarm`, which is given the signal's number as its seconds and needs no Python.
    """
    if sys.platform != "linux":
        return
    import ctypes

    # A libc that has not all of it leaves things as they are elsewhere.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        alarm = ctypes.cast(libc.alarm, ctypes.c_void_p)
        libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        libc.signal.restype = ctypes.c_void_p
        libc.signal(int(signal.SIGQUIT), alarm)
        libc.prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGQUIT))


_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of <linux/prctl.h>."""


def _listen(orders: IO[str], waiting: queue.SimpleQueue[dict[str, Any]]) -> None:
    with suppress(OSError, ValueError):
        for line in orders:
            waiting.put(json.loads(line))
    end_tree(os.getpid())


def end_tree(process: int) -> None:
    """Kill a process that leads a session, all that it started, and their whole sessions.

    So who started another and has ended itself, as `(sleep 100 &)` does, leaves nobody behind: the
    session stays the same, unless one of its own was begun. Programs are in sessions of their own.
    Where there is no `/proc`, the group is all.
    """
    running = _running()
    tree = _descendants(process, running)
    sessions = {process, *(running[other].session for other in tree)}
    for other, (_, session) in running.items():
        if other != process and (other in tree or session in sessions):
            with suppress(OSError):
                os.kill(other, signal.SIGKILL)
    with suppress(OSError):
        os.killpg(process, signal.SIGKILL)


class _Process(NamedTuple):
    parent: int
    session: int


def _running() -> dict[int, _Process]:
    """All processes of this machine that `/proc` shows."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        with suppress(OSError, ValueError, IndexError):
            # The name in brackets may have blanks and brackets of its own.
            words = (folder / "stat").read_text().rpartition(")")[2].split()
            found[int(folder.name)] = _Process(int(words[1]), int(words[3]))
    return found


def _descendants(process: int, running: Mapping[int, _Process]) -> set[int]:
    children: dict[int, list[int]] = {}
    for number, one in running.items():
        children.setdefault(one.parent, []).append(number)
    found: set[int] = set()
    waiting = [process]
    while waiting:
        behind = children.get(waiting.pop(), [])
        found.update(behind)
        waiting += behind
    return found
