"""Measured times from the files of the tools that took them, each with the network it is of."""

from __future__ import annotations

import codecs
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, get_args

from archdsl.calibration import kit as built_in
from archdsl.calibration.formats import (
    Entries,
    Entry,
    entries_of,
    read_json,
    span_of,
    unreadable,
)
from archdsl.calibration.measurement import Measurement, Results
from archdsl.compiler import Arch, parse
from archdsl.lang.diagnostics import ArchError, Diagnostic, listed, quoted
from archdsl.lang.source import SourceText
from archdsl.library import find_member, load
from archdsl.limits import MAX_ERRORS, MAX_MEASURED, MAX_RESULTS
from archdsl.passes.cost import DTYPES, Dtype

KIT = "kit.json"
MAX_US = 1e12
"""Of a run: eleven days."""

_ENDINGS = (".json", ".txt", ".log", ".csv")
"""Of the files of a folder that may hold results."""

_FILE = re.compile(r"\.(onnx|ort|tflite|py|pt2?|arch|json|txt|log|csv)$")
_PRECISION = re.compile(r"[-_.](float32|fp32|float16|fp16|int8)$")


def read_results(
    path: str | os.PathLike[str],
    kit: str | os.PathLike[str] | None = None,
    *,
    dtype: Dtype | None = None,
) -> Results:
    """The measured times of a file, or of all files of a folder.

    Networks are found by the names of their files: in `kit` (the folder of a bench kit or its
    kit.json; without it the one beside the results), among the networks of the kit that archdsl
    writes, and among the published ones. What is found nowhere is skipped, and listed. `dtype` is
    for files that do not tell the type of the numbers.

    Raises:
        OSError: a file cannot be read.
        ArchError: E0907 a file in no known format; E0908 values that cannot be; E0909 times of
            another network than the one of that name; E0910 times that do not belong together.
    """
    files = _files(Path(path))
    known = _Networks.beside(Path(path)) if kit is None else _Networks.of(Path(kit))
    return _read(map(_text, files), known, dtype, os.fspath(path))


def results_of(source: SourceText, dtype: Dtype | None = None) -> Results:
    """As `read_results`, of a text, with the networks that archdsl knows by name.

    Raises:
        OSError, ArchError: as `read_results`.
    """
    return _read([source], _Networks(), dtype, source.name)


def _read(
    sources: Iterable[SourceText], known: _Networks, dtype: Dtype | None, path: str
) -> Results:
    reading = _Reading(known, dtype)
    for source in sources:
        reading.add(entries_of(source))
    return reading.finish(path)


def _files(path: Path) -> Iterator[Path]:
    """The files that may hold results, in order of their names."""
    if not path.is_dir():
        yield path
        return
    found = [
        entry
        for entry in sorted(path.iterdir())
        if entry.suffix in _ENDINGS and entry.name != KIT and not entry.name.startswith(".")
    ]
    if not found:
        message = "the folder has no results: .json, .txt, .log or .csv"
        raise unreadable(SourceText(os.fspath(path), ""), message)
    if len(found) > MAX_MEASURED:
        message = f"the folder has {len(found):,} files; the limit is {MAX_MEASURED:,}"
        raise unreadable(SourceText(os.fspath(path), ""), message)
    yield from found


def _text(path: Path) -> SourceText:
    """The text of a file; bytes that are no text become signs that are none.

    Raises:
        OSError: the file cannot be read.
        ArchError: E0110, it is larger than such files are.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_RESULTS + 1)
    name = os.fspath(path)
    if len(data) > MAX_RESULTS:
        message = f"a file of results has at most {MAX_RESULTS:,} bytes"
        raise ArchError([Diagnostic("E0110", message, SourceText(name, "").span(0, 0))])
    # Windows' shells write what a program says as UTF-16.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return SourceText(name, data.decode("utf-16" if wide else "utf-8-sig", errors="replace"))


# ------------------------------------------------------------------------------------- networks


@dataclass(frozen=True)
class _Kept:
    """What a kit's table says of a network; `index` is its place there."""

    text: SourceText
    facts: Mapping[str, Any]
    index: int


class _Networks:
    """Networks by the names of their files: a kit's, the built-in kit's, the published ones.

    The files that a kit names are never opened.
    """

    def __init__(self, table: SourceText | None = None) -> None:
        self.dtype: str | None = None
        self.runtime = ""
        self.table = table
        self.kept: dict[str, _Kept] = {}
        self._found: dict[str, Arch | None] = {}
        if table is not None:
            self._read(table)

    @classmethod
    def of(cls, path: Path) -> _Networks:
        """Those of a kit's folder, or of its kit.json.

        Raises:
            OSError, ArchError: as `read_results`.
        """
        return cls(_text(path / KIT if path.is_dir() else path))

    @classmethod
    def beside(cls, results: Path) -> _Networks:
        """Those of the kit that results lie in, if they do."""
        table = (results if results.is_dir() else results.parent) / KIT
        return cls(_text(table)) if table.is_file() else cls()

    def _read(self, table: SourceText) -> None:
        data = read_json(table)
        models = data.get("models") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not isinstance(models, list):
            raise unreadable(table, "this is no table of a bench kit")
        if len(models) > MAX_MEASURED:
            raise unreadable(table, f"a kit has at most {MAX_MEASURED:,} networks")
        self.runtime = str(data.get("runtime", ""))
        self.dtype = data.get("dtype")
        faults = []
        if self.dtype is not None and not _is_dtype(self.dtype):
            faults.append(_no_dtype(table))
        for index, model in enumerate(models):
            texts = [model.get(key) for key in ("name", "arch")] if isinstance(model, dict) else []
            if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
                message = "a network of a kit must have a `name` and its text, `arch`"
                faults.append(Diagnostic("E0908", message, span_of(table, ("models", index))))
                continue
            name, text = map(str, texts)
            if name in self.kept:
                message = f"the kit has two networks called {quoted(name)}"
                faults.append(
                    Diagnostic("E0910", message, span_of(table, ("models", index), "name"))
                )
            source = SourceText(f"{table.name}: {name}", text)
            self.kept[name] = _Kept(source, model, index)
        if faults:
            raise ArchError(faults[:MAX_ERRORS])

    def find(self, name: str, results: str) -> tuple[str, Arch] | None:
        """The network of a name, of a file or of a path to an `.arch` file, and what it is called.

        Paths lead from the folder of the results, and not out of it: who sent them does not choose
        which files are opened here.

        Raises:
            OSError, ArchError: an `.arch` file that cannot be read.
        """
        if name.endswith(".arch") and "\0" not in name:
            folder = Path(results).resolve().parent
            path = (folder / name).resolve()
            if path.is_relative_to(folder) and path.is_file():
                return name, load(path)
        stem = _FILE.sub("", PurePosixPath(name.replace("\\", "/")).name)
        for candidate in dict.fromkeys((stem, _PRECISION.sub("", stem))):
            if candidate not in self._found:
                self._found[candidate] = self._named(candidate)
            found = self._found[candidate]
            if found is not None:
                return candidate, found
        return None

    def _named(self, name: str) -> Arch | None:
        if name in self.kept:
            return parse(self.kept[name].text)
        if name in self._built_in:
            return self._built_in[name]
        # No more than a name: neither a path nor a variant of one.
        if re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) and find_member(name) is not None:
            return load(name)
        return None

    @cached_property
    def _built_in(self) -> dict[str, Arch]:
        return {arch.name: arch for arch in built_in.networks()}


# -------------------------------------------------------------------------------------- reading


class _Reading:
    """Files of results that belong together: gathers what they hold, and all faults."""

    def __init__(self, networks: _Networks, dtype: Dtype | None) -> None:
        self.networks, self.asked = networks, dtype
        self.faults: list[Diagnostic] = []
        self.measurements: dict[str, Measurement] = {}
        self.skipped: list[tuple[str, str]] = []
        self.facts: dict[str, tuple[Any, Entries]] = {}
        self.undecided: Entries | None = None

    def add(self, found: Entries) -> None:
        """Check the entries of a file.

        Raises:
            OSError, ArchError: as `read_results`.
        """
        if len(found.entries) + len(self.measurements) > MAX_MEASURED:
            message = f"at most {MAX_MEASURED:,} networks can be measured together"
            raise unreadable(found.source, message)
        self._describe(found)
        self.skipped += found.skipped
        for entry in found.entries:
            self._entry(found.source, entry)
            if len(self.faults) >= MAX_ERRORS:
                break
        if self.faults:
            raise ArchError(self.faults)

    def _fault(
        self, code: str, message: str, source: SourceText, entry: Entry, key: str = ""
    ) -> None:
        span = span_of(source, entry.where, *([key] if key else []))
        self.faults.append(Diagnostic(code, message, span))

    # -- what is said of all networks of a file

    def _describe(self, found: Entries) -> None:
        dtype = found.facts.get("dtype", self.networks.dtype or self.asked)
        if dtype is None:
            self.undecided = found
        elif not _is_dtype(dtype):
            raise ArchError([_no_dtype(found.source)])
        elif self.asked not in (None, dtype):
            message = f"the times are of {dtype}, and {self.asked} is asked for"
            raise ArchError([Diagnostic("E0910", message, found.source.span(0, 1))])
        threads = found.facts.get("threads")
        if threads is not None and (type(threads) is not int or threads < 1):
            message = "`threads` must be a whole number, at least 1"
            raise ArchError([Diagnostic("E0908", message, span_of(found.source, (), "threads"))])
        said = {**found.facts, "dtype": dtype}
        for key in ("runtime", "runtime_version", "dtype", "threads", "machine"):
            value = said.get(key)
            if value is None or value == "":
                continue
            value = value if key == "threads" else str(value)[:200]
            first, where = self.facts.setdefault(key, (value, found))
            if first != value:
                message = (
                    f"times of one calibration have one {key.replace('_', ' ')}: here it is "
                    f"{quoted(str(value))}, in {PurePath(where.source.name).name} "
                    f"{quoted(str(first))}"
                )
                raise ArchError([Diagnostic("E0910", message, found.source.span(0, 1))])

    # -- a network

    def _entry(self, source: SourceText, entry: Entry) -> None:
        us = entry.us
        number = isinstance(us, (int, float)) and not isinstance(us, bool)
        if not number or not 0 < us <= MAX_US:
            message = f"{quoted(entry.name)}: a time must be more than 0 and at most 10^12 µs"
            self._fault("E0908", message, source, entry, entry.key)
            return
        spread, batch = entry.facts.get("spread"), entry.facts.get("batch", 1)
        if spread is not None and not _within(spread, 0, 1e6):
            message = f"{quoted(entry.name)}: `spread` must be a number, at least 0"
            self._fault("E0908", message, source, entry, "spread")
            return
        if type(batch) is not int or not 0 < batch <= 1 << 20:
            message = f"{quoted(entry.name)}: `batch` must be a whole number, at least 1"
            self._fault("E0908", message, source, entry, "batch")
            return
        found = self._network(source, entry)
        if found is None:
            self.skipped.append((entry.name, "no network of this name is known"))
            return
        name, arch = found
        if name in self.measurements:
            message = f"{quoted(name)} was measured twice; keep one of its times"
            self._fault("E0910", message, source, entry, "name")
            return
        if self._is_of(arch, source, entry, name):
            whole = self._recorded(entry, name).get("whole", built_in.is_whole(name))
            self.measurements[name] = Measurement(
                name, arch.work, float(us), batch, spread, whole is not False
            )

    def _recorded(self, entry: Entry, name: str) -> Mapping[str, Any]:
        """What the kit says of a network or, without one, the results."""
        kept = self.networks.kept.get(name)
        return kept.facts if kept else entry.facts

    def _network(self, source: SourceText, entry: Entry) -> tuple[str, Arch] | None:
        text = entry.facts.get("arch")
        if isinstance(text, str) and entry.name not in self.networks.kept:
            return entry.name, parse(SourceText(f"{source.name}: {entry.name}", text))
        return self.networks.find(entry.name, source.name)

    def _is_of(self, arch: Arch, source: SourceText, entry: Entry, name: str) -> bool:
        """Whether what is recorded of the measured network is true of the one of that name."""
        cost = arch.cost()
        for key, what, ours in (
            ("macs", "MACs", cost.macs),
            ("params", "parameters", cost.params),
        ):
            theirs = entry.facts.get(key)
            if theirs is not None and theirs != ours:
                shown = f"{theirs:,}" if type(theirs) is int else quoted(str(theirs))
                message = (
                    f"the measured {quoted(name)} has {shown} {what}, the network of this name "
                    f"{ours:,}"
                )
                self._fault("E0909", message, source, entry, key)
                return False
        kept = self.networks.kept.get(name)
        digest = entry.facts.get("sha256")
        if kept is not None and digest is not None and digest != kept.facts.get("sha256"):
            message = f"the measured file of {quoted(name)} is not the kit's"
            self._fault("E0909", message, source, entry, "sha256")
            return False
        return True

    def finish(self, path: str) -> Results:
        """The results.

        Raises:
            ArchError: E0908, nobody says what type the numbers have.
        """
        if self.undecided is not None:
            message = "the results do not say which type of numbers the networks had"
            help_ = f"say it: --dtype {', '.join(get_args(Dtype))}"
            span = self.undecided.source.span(0, 1)
            raise ArchError([Diagnostic("E0908", message, span, help_)])
        facts = {key: value for key, (value, _) in self.facts.items()}
        results = Results(tuple(self.measurements.values()), facts.pop("dtype"))
        facts.setdefault("runtime", self.networks.runtime)
        # A folder may be called `.`, and says where the times are from all the same.
        source = os.path.basename(os.path.abspath(path))
        return replace(results, **facts, source=source, skipped=tuple(self.skipped))


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and value in DTYPES


def _no_dtype(source: SourceText) -> Diagnostic:
    message = f"`dtype`: must be one of {listed(list(DTYPES))}"
    return Diagnostic("E0908", message, span_of(source, (), "dtype"))


def _within(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and low <= value <= high
