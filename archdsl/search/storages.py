"""Where studies are kept: the file of a journal, or a database, in Optuna's format.

A journal is held by one process at a time. In a database a process that is at work on a study says
so in it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from archdsl.extras import needs
from archdsl.lang.diagnostics import ArchError, Diagnostic

_STALE = 1.0
"""Seconds after which a lock of the journal is one that a process left when it was killed."""

_BEAT = 15.0
"""Seconds between the signs of life of a process that is at work on a study in a database."""

_SILENT = 60.0
"""Seconds without one after which it is held to be gone."""


class Busy(Exception):
    """Another process is at work on the study."""


class Storage:
    """A storage of Optuna's, opened.

    Raises:
        ImportError: Optuna or a database's driver is not installed; the message names the install
            line.
        ArchError: E1009 for a file that is no journal.
        Busy: another process holds the file.
        OSError: the file cannot be written, or the database not be reached.
    """

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.optuna = _optuna()
        self._where = os.fspath(where)
        self.name = without_password(self._where)
        """What it is called in a message."""
        self.shared = "://" in self._where
        """Whether it is a database, which others may write to meanwhile."""
        self._lock: int | None = None
        try:
            with self.reached():
                self.studies = self._opened()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Within it Optuna is quiet, and what a database refuses is an `OSError` that names it.

        Raises:
            Busy: a trial of ours was ended by another process.
            ImportError: the database's driver is missing; the message names the install line.
        """
        try:
            with _hushed(self.optuna):
                yield
        except self.optuna.exceptions.UpdateFinishedTrialError:
            raise Busy("another process is at work on this study") from None
        except (OSError, ArchError, Busy):
            raise
        except ImportError as error:
            raise ImportError(_driver_missing(self.name, error)) from None
        except Exception as error:
            first = str(error).strip().split("\n")[0][:200] or type(error).__name__
            raise OSError(f"{self.name}: {first.replace(self._where, self.name)}") from None

    def _opened(self) -> Any:
        if self.shared:
            return self.optuna.storages.get_storage(self._where)
        Path(self._where).parent.mkdir(exist_ok=True)
        self._lock = locked(self._where)
        _mend(self._where)
        try:
            return self.optuna.storages.JournalStorage(
                self.optuna.storages.journal.JournalFileBackend(self._where)
            )
        except OSError:
            raise
        except Exception as error:
            raise unreadable(self.name, f"{type(error).__name__}: {error}") from None


def _optuna() -> Any:
    """Optuna's module.

    Raises:
        ImportError: it is not installed.
    """
    with needs("search", "studies are kept by Optuna"):
        import optuna
        import optuna.storages.journal
    return optuna


def _driver_missing(where: str, error: ImportError) -> str:
    """Optuna says that there is none, and its cause says of what name."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "name", None) is None:
        cause = cause.__cause__ or cause.__context__
    name = str(getattr(cause, "name", None) or "").partition(".")[0]
    if not name:
        return f"{where}: the driver of the database cannot be imported ({error})"
    install = f"pip install {_DRIVERS.get(name, name)}"
    return f"{where}: the driver of the database, {name}, is missing; {install}"


_DRIVERS = {"psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What a driver's package is called, where not as its module."""


@contextmanager
def _hushed(optuna: Any) -> Iterator[None]:
    """Let Optuna say no more than what is wrong."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def without_password(where: str) -> str:
    """A storage as it may be shown: a file, or a URL without what is secret in it.

    >>> without_password("postgresql://me:secret@host/studies?sslpassword=secret&connect_timeout=3")
    'postgresql://me@host/studies?sslpassword=...&connect_timeout=3'
    """
    scheme, there, rest = where.partition("://")
    if not there:
        return where
    user, at, place = rest.rpartition("@")
    place = re.sub(r"(?i)([?&][^=&]*(?:passw|secret|token)[^=&]*=)[^&]*", r"\1...", place)
    return f"{scheme}://{user.partition(':')[0]}{at}{place}"


def locked(path: str) -> int:
    """Hold a journal for as long as the process lives.

    Raises:
        Busy: another process holds it.
        OSError: it cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl
    except ImportError:
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise Busy(f"another process is at work on {path}") from None
    except OSError:
        # Some network file systems have no locks.
        pass
    return handle


def unreadable(where: str, why: str) -> ArchError:
    """E1009 for a file or a database."""
    message = f"{where} holds no study of archdsl's"
    return ArchError([Diagnostic("E1009", message, None, f"{why[:200]}; take another one")])


def require_journal(where: str, content: bytes) -> None:
    """Refuse a file that is not the journal of studies; its last line may be cut.

    Raises:
        ArchError: E1009.
    """
    if not (content.startswith(_FIRST) or _FIRST.startswith(content)):
        raise unreadable(where, "it is no journal of Optuna's")
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            raise unreadable(where, f"line {number} of it is broken") from None


_FIRST = b'{"op_code":'
"""How every journal of Optuna's begins."""


def _mend(path: str) -> None:
    """Take away what a process that was killed left half done: a line, and Optuna's own lock.

    Raises:
        ArchError: E1009 for what is no journal; it is left alone.
    """
    with open(path, "rb+") as file:
        whole = file.read()
        require_journal(path, whole)
        if not whole.endswith(b"\n"):
            file.truncate(whole.rfind(b"\n") + 1)
    left = Path(path + ".lock")
    with suppress(OSError):
        before = left.lstat()
        until = time.monotonic() + _STALE
        while time.monotonic() < until:
            time.sleep(0.05)
            now = left.lstat()
            if (now.st_ino, now.st_mtime_ns) != (before.st_ino, before.st_mtime_ns):
                return
        left.unlink()


# --------------------------------------------------------------------------------------- owner


class Owner:
    """This process, as it is written to a study in a database: a file has a lock instead."""

    def __init__(self, storage: Any, study: int) -> None:
        self._storage, self._study = storage, study
        self._over = threading.Event()
        self._write({**_here(), "time": time.time()})
        # An evaluation may take hours, during which nothing else is written.
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._over.set()
        self._thread.join(_STALE)
        # Where the database is gone, the silence tells.
        with suppress(Exception):
            self._write(None)

    def _live(self) -> None:
        while not self._over.wait(_BEAT):
            with suppress(Exception):
                self._write({**_here(), "time": time.time()})

    def _write(self, owner: dict[str, Any] | None) -> None:
        self._storage.set_study_user_attr(self._study, OWNER, owner)


OWNER = "archdsl:owner"


def _here() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def require_free(owner: Any, where: str) -> None:
    """Refuse a study of which another process has lately said that it is at work on it.

    Of the processes of this machine it is known whether they live.

    Raises:
        Busy: one is.
    """
    if not isinstance(owner, dict) or time.time() - owner["time"] > _SILENT:
        return
    if owner["host"] == socket.gethostname():
        try:
            os.kill(owner["pid"], 0)
        except ProcessLookupError:
            return
        except OSError:
            pass
    raise Busy(
        f"another process is at work on the study in {where}: {owner['pid']} on {owner['host']}"
    )
