"""A NetAdapt run on disk, so that the same run goes on after Ctrl-C or a crash.

A folder has a journal, `evaluations.jsonl`. Its first line says of which run it is; behind that
stands a line for each evaluation, written as soon as it is known, and one for each finished step.
To go on is to do the run again with what the journal knows in the evaluator's place, so that what
comes of it is what comes of an unbroken run. Where networks are fine-tuned, the weights after the
last finished step lie beside it.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archdsl.files import write_whole
from archdsl.ir.execute import Array
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.search.records import require_same
from archdsl.search.storages import Busy, locked
from archdsl.search.trials import Evaluation

JOURNAL = "evaluations.jsonl"
_FIRST = b'{"archdsl netadapt": '
"""How every journal begins."""


class Kept:
    """What has been evaluated of one run, in a folder that is made for the first evaluation.

    `identity` is what the run is not to be continued without, as JSON. `known` has the evaluations
    by step (0 is the seed's) and canonical hash; `last` is the last finished step, -1 for none. Who
    failed in a step that was not finished is asked again.

    Raises:
        ArchError: E1017 for a folder of another run, or a journal that is none.
        Busy: another process is at work on it.
        OSError: it cannot be read or written.
    """

    def __init__(self, folder: str | os.PathLike[str], identity: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.known: dict[tuple[int, str], Evaluation] = {}
        self.last = -1
        self._identity = identity
        self._path = self.folder / JOURNAL
        self._lock: int | None = None
        if self._path.exists():
            try:
                self._lock = locked(os.fspath(self._path))
                self._read()
            except BaseException:
                self.close()
                raise

    def evaluation(self, step: int, hash: str) -> Evaluation:
        """What was said of a network in a step.

        Raises:
            ArchError: E1017 where it was not asked for there: the run took other steps.
        """
        found = self.known.get((step, hash))
        if found is None:
            why = "it was begun with another version; take another folder"
            raise _refused(f"the adaptation in {self.folder} has another step {step}", why)
        return found

    def add(self, step: int, hash: str, found: Evaluation) -> None:
        """Keep an evaluation.

        Raises:
            Busy: another process has begun a run in the folder.
            OSError: the folder or the disk refuses.
        """
        self.known[step, hash] = found
        self._append({"step": step, "hash": hash, "accuracy": found.accuracy, "fault": found.fault})

    def finish(self, step: int, weights: Mapping[str, Array] | None) -> None:
        """Note that a step is done, and keep the weights after it in place of those before it.

        Raises:
            OSError: the folder or the disk refuses.
        """
        if weights is not None:
            written = io.BytesIO()
            np.savez(written, **weights)  # type: ignore[arg-type]
            write_whole(self._weights(step), written.getvalue())
        self._append({"finished": step})
        self.last = step
        self._weights(step - 1).unlink(missing_ok=True)

    def weights(self) -> dict[str, Array]:
        """The weights after the step `last`.

        Raises:
            OSError: they cannot be read.
            ArchError: E1017, the file is broken.
        """
        path = self._weights(self.last)
        try:
            with np.load(path) as file:
                return dict(file)
        except (ValueError, EOFError, zipfile.BadZipFile):
            raise _refused(f"{path} holds no weights", "take another folder") from None

    def close(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _weights(self, step: int) -> Path:
        return self.folder / f"weights-{step}.npz"

    def _append(self, entry: Mapping[str, Any]) -> None:
        if self._lock is None:
            self.folder.mkdir(exist_ok=True)
            self._lock = locked(os.fspath(self._path))
            if self._path.stat().st_size:
                raise Busy(f"another process is at work on {self._path}")
        with open(self._path, "ab") as file:
            if not file.tell():
                file.write(_line({"archdsl netadapt": self._identity}))
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        whole = self._path.read_bytes()
        if not (whole.startswith(_FIRST) or _FIRST.startswith(whole)):
            raise self._broken(1)
        *lines, cut = whole.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                self._learn(number, json.loads(line))
            except (ValueError, RecursionError, LookupError, TypeError):
                raise self._broken(number) from None
        # A process that was killed may have left half a line.
        os.truncate(self._path, len(whole) - len(cut))
        kept = self.known.items()
        self.known = {k: found for k, found in kept if k[0] <= self.last or not found.fault}
        self._weights(self.last - 1).unlink(missing_ok=True)

    def _learn(self, number: int, entry: Any) -> None:
        if number == 1:
            where = os.fspath(self.folder)
            require_same(
                entry["archdsl netadapt"], self._identity, where, "adaptation", code="E1017"
            )
        elif "finished" in entry:
            self.last = int(entry["finished"])
        else:
            accuracy = entry["accuracy"]
            found = Evaluation(None if accuracy is None else float(accuracy), entry["fault"])
            self.known[int(entry["step"]), str(entry["hash"])] = found

    def _broken(self, line: int) -> ArchError:
        what = f"{self._path} holds no adaptation of archdsl's"
        return _refused(what, f"line {line} of it is broken; take another folder")


def _line(entry: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(entry)}\n".encode()


def _refused(message: str, help: str) -> ArchError:
    return ArchError([Diagnostic("E1017", message, None, help)])
