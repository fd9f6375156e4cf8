"""A program, in whatever language, that reads an architecture and prints its accuracy."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO, Any

from archdsl.compiler import Arch
from archdsl.lang.diagnostics import quoted
from archdsl.lang.printer import print_spec
from archdsl.limits import MAX_PRINTED
from archdsl.search.outcomes import EvaluatorError, Failed, one_line

_TAIL = 4096
"""Bytes of standard error that are kept: its last line is shown."""

_DRAINED = 5.0
"""Seconds that what a program has printed may take to arrive after it has ended."""


class Program:
    """An evaluator that runs a program, without a shell, once for each network.

    The text of the one network that is judged is its standard input: with the variant, the width,
    the image and the classes that it was made with. The accuracy is what it prints: a number on the
    last line that is not empty, or a JSON object that has `accuracy` and may have other numbers.
    It and its children are killed when `timeout` seconds are over (None: it may take for ever).
    Calls from several threads run several programs at once. What it says on standard error is its
    own, but where `echo` is set to an open file's number, it is written there too, as it comes.

    Raises:
        EvaluatorError: the command is empty, has an open quotation, or there is no such program.
    """

    echo: int | None = None

    def __init__(self, command: str, timeout: float | None = None) -> None:
        self.command = command
        self.timeout = timeout
        try:
            self._words = shlex.split(command)
        except ValueError as error:
            raise EvaluatorError(f"the command {quoted(command, 80)}: {error}".lower()) from None
        if not self._words:
            raise EvaluatorError("the command of the program is empty")
        if shutil.which(self._words[0]) is None:
            shown = quoted(self._words[0], 80)
            if not os.path.isfile(self._words[0]):
                raise EvaluatorError(f"there is no program {shown}")
            if not os.access(self._words[0], os.X_OK):
                raise EvaluatorError(f"{shown} is not executable: `chmod +x` makes it so")
            raise EvaluatorError(f"there is no program {shown}; the file here needs `./` before it")
        self._prepare()

    def _prepare(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Program({self.command!r}, timeout={self.timeout})"

    def __getstate__(self) -> dict[str, Any]:
        # For another process, in which nothing runs yet.
        kept = ("command", "timeout", "_words")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    def __call__(self, arch: Arch) -> float | Mapping[str, float]:
        """The accuracy of a network, or figures with `accuracy`.

        Raises:
            Failed: the program ended in vain, or has not ended, or printed no accuracy.
        """
        with tempfile.TemporaryFile() as text:
            # A file and not a pipe: it may read or not, and as late as it likes.
            text.write(print_spec(arch.member).encode())
            text.seek(0)
            try:
                child = subprocess.Popen(
                    self._words,
                    stdin=text,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except OSError as error:
                raise Failed(f"the program cannot be run: {error.strerror or error}") from None
        with self._lock:
            self._running.add(child)
        try:
            printed, complained = self._awaited(child)
        finally:
            with self._lock:
                self._running.discard(child)
        if child.returncode:
            raise Failed(_ending(child.returncode, complained))
        return _figures(printed)

    def stop(self) -> None:
        """Kill what runs, children included; the calls that wait for it raise `Failed`."""
        with self._lock:
            running = list(self._running)
        for child in running:
            _kill(child)

    def _awaited(self, child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
        """What the program printed, and the end of its standard error; it has ended then."""
        assert child.stdout is not None and child.stderr is not None
        printed, complained = bytearray(), bytearray()
        # A thread for each stream: a full pipe would stop the program.
        readers = [
            threading.Thread(target=_gather, args=(child, child.stdout, printed), daemon=True),
            threading.Thread(target=_tail, args=(child.stderr, complained, self.echo), daemon=True),
        ]
        for reader in readers:
            reader.start()
        late = False
        try:
            child.wait(self.timeout)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            # Ctrl-C comes by here too; and what it has started ends with it.
            _kill(child)
            child.wait()
            until = time.monotonic() + _DRAINED
            for reader in readers:
                reader.join(max(0.0, until - time.monotonic()))
        if late:
            raise Failed(f"the program has not ended after {self.timeout:g} s, and was killed")
        if len(printed) > MAX_PRINTED:
            raise Failed(f"the program printed more than {MAX_PRINTED:,} bytes, and was killed")
        return bytes(printed), bytes(complained)


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            # It leads a group of its own, in which its children are.
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()


def _gather(child: subprocess.Popen[bytes], stream: IO[bytes], into: bytearray) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while data := os.read(stream.fileno(), 1 << 16):
            into += data
            if len(into) > MAX_PRINTED:
                _kill(child)
                return


def _tail(stream: IO[bytes], into: bytearray, echo: int | None) -> None:
    with contextlib.suppress(OSError, ValueError), stream:
        while data := os.read(stream.fileno(), 1 << 16):
            if echo is not None:
                with contextlib.suppress(OSError):
                    os.write(echo, data)
            into += data
            del into[:-_TAIL]


def _ending(status: int, complained: bytes) -> str:
    lines = complained.decode("utf-8", "replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    said = f": {one_line(last)}" if last else ", and said nothing on standard error"
    if status > 0:
        return f"the program ended with exit status {status}{said}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the program was ended by {name}{said}"


def _figures(printed: bytes) -> float | Mapping[str, float]:
    """The figures that a program printed.

    Raises:
        Failed: they are none.
    """
    text = printed.decode("utf-8", "replace").strip()
    if not text:
        raise Failed("the program printed nothing, and an accuracy is wanted")
    last = text.split("\n")[-1].strip()
    # An object may stand on its own line, or fill several.
    for candidate in (last, text):
        if candidate.startswith("{"):
            try:
                found = json.loads(candidate)
            except (ValueError, RecursionError):
                continue
            if isinstance(found, dict):
                return found
    try:
        return float(last)
    except ValueError:
        shown = quoted(one_line(last, 60), 60)
        raise Failed(f"the last line that the program printed is {shown}, not a number") from None
