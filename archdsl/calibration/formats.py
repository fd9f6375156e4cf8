"""What tools write of the times of networks, as entries that are yet to be checked.

Read are our own results, LiteRT's `benchmark_model`, ONNX Runtime's profiles, the profiles of
Qualcomm's AI Hub, and tables of names and times.
"""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, NamedTuple

from archdsl.calibration.json_places import Path, place
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.dialects.json import KeyTwiceError, unique_keys
from archdsl.lang.source import SourceText, Span
from archdsl.limits import MAX_MEASURED, MAX_TEXT


class Offsets(NamedTuple):
    """A part of a text."""

    start: int
    end: int


Where = Path | Offsets
"""A value's place: its path in a JSON text, or its offsets in another."""


def span_of(source: SourceText, where: Where, *keys: str) -> Span:
    """The span of a place; `keys` lead on from a path of JSON."""
    if isinstance(where, Offsets):
        return source.span(*where)
    if len(source.text) > MAX_TEXT:
        # Each place is found by reading up to it; messages name the network too.
        return source.span(0, 1)
    try:
        return source.span(*place(source.text, (*where, *keys)))
    except RecursionError:
        # Nested to the last level that could be read at all.
        return source.span(0, 1)


@dataclass(frozen=True)
class Entry:
    """A network and its time in µs, as a file states them: nothing is checked."""

    name: str
    us: Any
    where: Where
    key: str = "us"
    """Of the time, in a JSON text."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else is recorded: spread, batch, macs, params, sha256, arch."""


@dataclass(frozen=True)
class Entries:
    """What a file holds; `facts` are runtime, runtime_version, dtype, threads, machine."""

    source: SourceText
    entries: tuple[Entry, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: tuple[tuple[str, str], ...] = ()


def entries_of(source: SourceText) -> Entries:
    """The entries of a text in any of the formats.

    Raises:
        ArchError: E0907, the text is in none of them.
    """
    text = source.text
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start and start in "{[":
        return _of_json(source, read_json(source))
    if _TIMINGS in text:
        return _benchmark_model(source)
    return _table(source)


def unreadable(source: SourceText, why: str, at: int = 0) -> ArchError:
    """E0907 at an offset."""
    last = max(len(source.text) - 1, 0)
    help_ = "`archdsl explain E0907` lists the files that are read"
    span = source.span(min(at, last), min(at, last) + 1)
    return ArchError([Diagnostic("E0907", why, span, help_)])


def _refuse_more(source: SourceText, count: int) -> None:
    """Refuse more entries than there are networks to be measured, before all are read."""
    if count > MAX_MEASURED:
        raise unreadable(source, f"at most {MAX_MEASURED:,} networks can be measured together")


def read_json(source: SourceText) -> Any:
    """The value of a JSON text; NaN and infinities among its numbers are left to be refused.

    A whole number that no float can hold is infinite.

    Raises:
        ArchError: E0907, it is none.
    """
    try:
        return json.loads(source.text, parse_int=_whole, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        cut = " (is the file whole?)" if error.pos >= len(source.text.rstrip()) else ""
        what = re.sub(r"( starting)? at$", "", error.msg[:1].lower() + error.msg[1:])
        raise unreadable(source, f"this is not JSON: {what}{cut}", error.pos) from None
    except RecursionError:
        raise unreadable(source, "this is not JSON that can be read: nested too deeply") from None
    except KeyTwiceError as error:
        raise unreadable(source, f"this is not JSON that can be read: {error}") from None
    except ValueError:
        raise unreadable(source, "this is not JSON that can be read: a number too long") from None


def _whole(digits: str) -> int | float:
    found = int(digits)
    if abs(found) <= _LARGEST:
        return found
    return math.inf if found > 0 else -math.inf


_LARGEST = int(sys.float_info.max)


# ----------------------------------------------------------------------------------------- JSON


def _of_json(source: SourceText, data: Any) -> Entries:
    name = PurePath(source.name).name
    if isinstance(data, dict):
        if "execution_summary" in data:
            return _ai_hub(source, {(): (str(data.get("name") or name), data)})
        if isinstance(data.get("networks"), list):
            return _ours(source, data)
        if "models" in data:
            why = "this is a kit's table; its times are in the results.json that run.py writes"
            raise unreadable(source, why)
        profiles: dict[Path, tuple[str, Any]] = {
            (str(key),): (str(key), one) for key, one in data.items() if _is_profile(one)
        }
        if profiles:
            return _ai_hub(source, profiles)
    elif isinstance(data, list):
        if any(isinstance(event, dict) and "dur" in event for event in data):
            return _onnxruntime(source, data)
        found: dict[Path, tuple[str, Any]] = {
            (index,): (str(one.get("name") or one.get("model_name") or index), one)
            for index, one in enumerate(data)
            if _is_profile(one)
        }
        if found:
            return _ai_hub(source, found)
    raise unreadable(source, "this JSON is in no format of results that is known")


def _ours(source: SourceText, data: dict[str, Any]) -> Entries:
    _refuse_more(source, len(data["networks"]))
    entries = []
    for index, one in enumerate(data["networks"]):
        where = ("networks", index)
        if not isinstance(one, dict) or not isinstance(one.get("name"), str) or "us" not in one:
            message = "a network of the results must have a `name` and `us`, its time"
            raise ArchError([Diagnostic("E0908", message, span_of(source, where))])
        entries.append(Entry(one["name"], one["us"], where, facts=one))
    return Entries(source, tuple(entries), data)


def _onnxruntime(source: SourceText, events: list[Any]) -> Entries:
    """A profile: the whole runs are events called `model_run`, the first ones warm up."""
    runs = [
        (index, event["dur"])
        for index, event in enumerate(events)
        if isinstance(event, dict) and event.get("name") == "model_run" and "dur" in event
    ]
    if not runs:
        raise unreadable(source, "this profile of ONNX Runtime has no event `model_run`")
    bad = [run for run in runs if not _is_number(run[1])]
    name = re.sub(_PROFILE_ENDING, "", PurePath(source.name).name)
    first = runs[0][0]
    facts = {"runtime": "onnxruntime"}
    if bad:
        index, value = bad[0]
        return Entries(source, (Entry(name, value, (index,), "dur"),), facts)
    timed = [us for _, us in runs[max(1, len(runs) // 10) :]] or [runs[0][1]]
    entry = Entry(name, statistics.median(timed), (first,), "dur", {"spread": _spread(timed)})
    return Entries(source, (entry,), facts)


_PROFILE_ENDING = re.compile(r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?(?=\.json$)")


def _is_profile(one: Any) -> bool:
    return isinstance(one, dict) and "execution_summary" in one


def _ai_hub(source: SourceText, profiles: Mapping[Path, tuple[str, Any]]) -> Entries:
    """Profile jobs of AI Hub: `execution_summary` states the time of an inference in µs."""
    key = "estimated_inference_time"
    entries = []
    for path, (name, profile) in profiles.items():
        summary = profile["execution_summary"]
        where = (*path, "execution_summary")
        if not isinstance(summary, dict) or key not in summary:
            message = f"a profile's `execution_summary` must have `{key}`"
            raise ArchError([Diagnostic("E0908", message, span_of(source, where))])
        times = summary.get("all_inference_times")
        known = isinstance(times, list) and len(times) > 2 and all(map(_is_number, times))
        facts = {"spread": _spread(times)} if known and isinstance(times, list) else {}
        entries.append(Entry(_JOB_ENDING.sub("", name), summary[key], where, key, facts))
    return Entries(source, tuple(entries))


_JOB_ENDING = re.compile(r"(_job)?_j[0-9a-z]{8}(_results|_profile)?(?=\.json$|$)")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _spread(times: list[float]) -> float | None:
    """The relative half width of the middle four fifths."""
    ordered = sorted(times)
    cut = len(ordered) // 10
    middle = statistics.median(ordered)
    return (ordered[-1 - cut] - ordered[cut]) / 2 / middle if middle > 0 else None


# ---------------------------------------------------------------------------------------- texts

_TIMINGS = "Inference timings in us:"
_LINE = re.compile(r"[^\n]+")
_GRAPH = re.compile(r"(?:\bGraph: \[([^\]]*)\]|\bLoaded model (\S.*\S))")
_COUNT = re.compile(r"\bcount=[0-9].*")
_FIELD = re.compile(r"\b(p5|median|p95)=([-+.0-9a-z]{1,24})")
_AVERAGE = re.compile(r"Inference \(avg\): *(\S{1,24})")
_THREADS = re.compile(r"\bNum threads: \[([0-9]{1,4})\]")


def _benchmark_model(source: SourceText) -> Entries:
    """What LiteRT's `benchmark_model` says: of one network, or of several one after the other."""
    entries: list[Entry] = []
    skipped: list[tuple[str, str]] = []
    threads: set[int] = set()
    graph, fields = "", ""
    for line in _LINE.finditer(source.text):
        found = _GRAPH.search(line[0])
        if found is not None:
            named = (found[1] or found[2]).strip()
            if graph and named != graph:
                skipped.append((graph, "benchmark_model gave no time for it"))
                _refuse_more(source, len(skipped))
            graph, fields = named, fields if named == graph else ""
        elif _COUNT.search(line[0]):
            fields = line[0]
        elif _TIMINGS in line[0]:
            average = _AVERAGE.search(line[0])
            stated = {key: _number(value) for key, value in _FIELD.findall(fields)}
            us = stated.get("median", _number(average[1]) if average else None)
            facts: dict[str, Any] = {}
            ends = [stated.get(key) for key in ("p5", "p95")]
            low, high = (end if isinstance(end, float) else math.nan for end in ends)
            if isinstance(us, float) and us > 0 and not math.isnan(high - low):
                facts["spread"] = (high - low) / 2 / us
            name = graph or PurePath(source.name).name
            entries.append(Entry(name, us, Offsets(line.start(), line.end()), facts=facts))
            _refuse_more(source, len(entries))
            graph, fields = "", ""
        threads.update(int(count) for count in _THREADS.findall(line[0]))
    if graph:
        skipped.append((graph, "benchmark_model gave no time for it"))
    if len(threads) > 1:
        message = f"the runs used {' and '.join(map(str, sorted(threads)))} threads"
        raise ArchError([Diagnostic("E0910", message, source.span(0, 1))])
    facts = {"runtime": "tflite", **({"threads": threads.pop()} if threads else {})}
    return Entries(source, tuple(entries), facts, tuple(skipped))


def _number(text: str) -> Any:
    """A number, or the text that is none."""
    try:
        return float(text.rstrip(","))
    except ValueError:
        return text


def _table(source: SourceText) -> Entries:
    """A table: a network to a line, by name or by a path to its `.arch` file."""
    lines = _cells(source)
    head = next(lines, None)
    names = [cell.strip().lower() for cell in head[1]] if head else []
    times = [n for n, name in enumerate(names) if re.fullmatch(r"(.*_)?(us|µs|ms)", name)]
    networks = [n for n, name in enumerate(names) if name in ("network", "name", "model")]
    if len(times) != 1 or len(networks) != 1:
        raise unreadable(source, "this is in no format of results that is known")
    scale = 1000.0 if names[times[0]].endswith("ms") else 1.0
    entries = []
    for where, cells in lines:
        if len(cells) != len(names):
            message = f"the line has {len(cells)} cells, and the first one has {len(names)}"
            raise ArchError([Diagnostic("E0908", message, source.span(*where))])
        us = _number(cells[times[0]].strip())
        us = us * scale if isinstance(us, float) else us
        entries.append(Entry(cells[networks[0]].strip(), us, where))
        _refuse_more(source, len(entries))
    return Entries(source, tuple(entries))


def _cells(source: SourceText) -> Iterator[tuple[Offsets, list[str]]]:
    for line in _LINE.finditer(source.text):
        if not line[0].strip() or line[0].startswith("#"):
            continue
        try:
            (cells,) = csv.reader([line[0].rstrip("\r")], strict=True)
        except (csv.Error, ValueError) as error:
            raise unreadable(source, f"this is no table: {error}", line.start()) from None
        yield Offsets(line.start(), line.end()), cells
