"""A plugin of pytest that runs the collected tests on one fault after the other.

`python -m tests.mutants.generated` gives it the faults. Tests are collected once. A forked child
runs all of them without a fault first, and tells how long each takes and which lines of the core
it runs. Then each fault has a child of its own, whose code is switched: functions are given the
code objects that they have in the faulty source. The tests that run the fault's line follow, those
first that have found faults of the same module, and then the quickest, up to the first failure.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import resource
import signal
import time
import traceback
import types
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any

import pytest

_PATIENCE = 10.0
"""A child may use so many times the processor time that its tests take without a fault."""

_LEAST_SECONDS = 30
_MOST_BYTES = 12 << 30

_REMEMBERED = 10
"""So many tests that found faults of a module are tried first on the next."""


def pytest_runtestloop(session: pytest.Session) -> bool:
    """In place of pytest's own loop over the tests."""
    order = json.loads(Path(os.environ["ARCHDSL_FAULTS"]).read_text(encoding="utf-8"))
    items = {item.nodeid: item for item in session.items}
    if session.testsfailed:
        raise session.Failed("the tests cannot be collected")
    base = Path(order["baseline"])
    if not base.exists():
        _child(lambda: _without_fault(session, order["files"]), base)
    seconds, lines = json.loads(base.read_text(encoding="utf-8"))
    seconds = {test: time for test, time in seconds.items() if test in items}
    remembering = [
        value
        for value in gc.get_objects()
        if isinstance(value, functools._lru_cache_wrapper) and "archdsl" in value.__module__
    ]
    gc.freeze()  # what a child does not touch, it need not have a copy of
    until = time.monotonic() + order["minutes"] * 60
    found: dict[str, list[str]] = defaultdict(list)
    with open(order["out"], "w", encoding="utf-8") as out:
        for fault in order["faults"]:
            if time.monotonic() > until:
                break
            before = found[fault["module"]]
            running = _tests_of(fault, lines) & seconds.keys()
            tests = _chosen(running, seconds, before, order["seconds"])
            chosen = [items[test] for test in tests]
            limit = max(_LEAST_SECONDS, int(_PATIENCE * sum(seconds[test] for test in tests)))
            started = time.monotonic()
            killer = _child(
                functools.partial(_with_fault, session, fault, chosen, limit, remembering),
                Path(order["out"] + ".one"),
            )
            if killer in items:
                before[:] = [killer, *(test for test in before if test != killer)][:_REMEMBERED]
            took = round(time.monotonic() - started, 2)
            outcome = {"name": fault["name"], "killer": killer, "seconds": took}
            outcome |= {"ran": len(tests), "of": len(running)}
            print(json.dumps(outcome), file=out, flush=True)
    return True


def _child(work: Any, scratch: Path) -> Any:
    """What some work gives in a forked process, or how that ended."""
    scratch.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        try:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, 1)
            scratch.write_text(json.dumps(work()), encoding="utf-8")
        except Exception:
            traceback.print_exc()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"(ends with {signal.Signals(-code).name})"
    if not scratch.exists():
        raise RuntimeError("a child ended without a result")
    return json.loads(scratch.read_text(encoding="utf-8"))


def _without_fault(session: pytest.Session, files: Sequence[str]) -> tuple[Any, Any]:
    """How long each test takes that passes, and which tests run which line of the files."""
    from coverage import Coverage

    cover = Coverage(data_file=None, include=[str(Path(file).resolve()) for file in files])
    cover.start()
    seconds = {}
    for item, after in zip_longest(session.items, session.items[1:]):
        cover.switch_context(item.nodeid)
        failed, started = session.testsfailed, time.process_time()
        _run(item, after)
        if session.testsfailed == failed:
            seconds[item.nodeid] = round(time.process_time() - started, 3)
    cover.stop()
    data = cover.get_data()
    lines = {file: data.contexts_by_lineno(str(Path(file).resolve())) for file in files}
    return seconds, lines


def _run(item: pytest.Item, after: pytest.Item | None) -> None:
    item.ihook.pytest_runtest_protocol(item=item, nextitem=after)


def _tests_of(fault: Any, lines: Any) -> set[str]:
    """The tests that run a fault's line; or its function, where the line is none that is told.

    They are those of the file where no test runs the function: what it made once is kept.
    """
    tests = lines.get(fault["file"], {})
    first, last = fault["span"]
    found = set(tests.get(str(fault["line"]), ()))
    found = found or {test for line in range(first, last + 1) for test in tests.get(str(line), ())}
    return found or {test for names in tests.values() for test in names}


def _chosen(
    tests: Iterable[str], seconds: Mapping[str, float], first: Sequence[str], budget: float
) -> list[str]:
    """As many of some tests as begin within so many seconds, one after the other.

    Those of `first`, then the quickest case of every test function, then the next of each.
    """
    cases: Counter[str] = Counter()
    rank = {}
    for test in sorted(tests, key=lambda test: seconds[test]):
        function = test.partition("[")[0]
        rank[test] = (test not in first, cases[function], seconds[test])
        cases[function] += 1
    order = sorted(rank, key=lambda test: rank[test])
    ends = accumulate(seconds[test] for test in order)
    pairs = zip(order, ends, strict=True)
    return [test for test, end in pairs if end - seconds[test] <= budget]


def _with_fault(
    session: pytest.Session,
    fault: Any,
    items: Sequence[pytest.Item],
    limit: int,
    remembering: Sequence[Any],
) -> str:
    """The first of some tests that fails with a fault, or ""; caches are emptied before."""
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(limit * 10)
    try:
        switch(fault["module"], fault["function"], fault["file"], fault["source"])
    except Exception as error:
        return f"(importing it raises {type(error).__name__})"
    for cached in remembering:
        cached.cache_clear()
    before = session.testsfailed
    for item, after in zip_longest(items, items[1:]):
        _run(item, after)
        if session.testsfailed > before:
            return item.nodeid
    return ""


def switch(module: str, function: str, file: str, source: str) -> None:
    """Give a function, wherever it is referred to, the code that it has in another source."""
    live = importlib.import_module(module)
    scope = {**vars(live)}
    exec(compile(source, file, "exec"), scope)
    old, new = (_function(where, function) for where in (vars(live), scope))
    old.__code__, old.__defaults__, old.__kwdefaults__ = (
        new.__code__,
        new.__defaults__,
        new.__kwdefaults__,
    )


def _function(scope: Any, name: str) -> types.FunctionType:
    within, _, last = name.rpartition(".")
    value = vars(scope[within])[last] if within else scope[last]
    value = getattr(value, "__func__", value)
    if not isinstance(value, types.FunctionType):
        raise LookupError(f"{name} is no function")
    return value
