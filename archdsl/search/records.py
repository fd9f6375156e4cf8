"""Studies on disk: every trial as soon as there is something to say of it, in an Optuna storage.

A trial is one of Optuna's, with the same number: its parameters are the decisions by path, its
values the goals, so that Optuna's own tools show what they know to show. What else is known of it
are its user attributes. What finished is written in two steps, first what was found and then that
it is over; a trial that a crash left between them has finished.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from archdsl.extras import needs
from archdsl.lang.diagnostics import ArchError, Diagnostic, listed
from archdsl.search.objectives import Objectives
from archdsl.search.space import Space, Vector
from archdsl.search.trials import Trial

FORMAT = 1
"""Of the attributes; another one is not read."""

_STALE = 1.0
"""Seconds after which a lock of the journal is one that a process left when it was killed."""


_BEAT = 15.0
"""Seconds between the signs of life of a process that is at work on a study in a database."""
_SILENT = 60.0
"""Seconds without one after which it is held to be gone."""


class Busy(Exception):
    """Another process is at work on the study."""


class Unfinished(NamedTuple):
    """A proposal of which it is not known what became of it."""

    number: int
    vector: Vector
    hash: str
    figures: dict[str, float]


class Told(NamedTuple):
    """A trial that is over, and the hash of its network."""

    trial: Trial
    hash: str


class Records:
    """A study in a storage: the file of a journal, or the URL of a database.

    `identity` says what the study is of; a study that is there already is continued if it is of
    the same.

    Raises:
        ImportError: Optuna or a database's driver is not installed; the message names the install
            line.
        ArchError: E1006 for a study of something else, E1009 for what is no study.
        Busy: another process is at work on the file, or on the study in a database.
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        space: Space,
        objectives: Objectives,
        identity: Mapping[str, Any],
        storage: str | os.PathLike[str],
        name: str | None = None,
    ) -> None:
        self._space = space
        self._objectives = objectives
        self._optuna = _optuna()
        self._lock: Any = None
        self._owner: _Owner | None = None
        self._where = os.fspath(storage)
        self.told: list[Told] = []
        """Those that are over, in the order in which they came to be."""
        self.unfinished: list[Unfinished] = []
        self.count = 0
        try:
            with _hushed(self._optuna):
                self._storage = self._open()
                with self._reached():
                    self._study = self._begin(name or space.name, identity)
                    self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file, or of the study in a database."""
        if self._owner is not None:
            self._owner.leave()
            self._owner = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------------------------ opening

    def _open(self) -> Any:
        if "://" in self._where:
            with self._reached():
                return self._optuna.storages.get_storage(self._where)
        Path(self._where).parent.mkdir(exist_ok=True)
        self._lock = locked(self._where)
        _mend(self._where)
        try:
            return self._optuna.storages.JournalStorage(
                self._optuna.storages.journal.JournalFileBackend(self._where)
            )
        except OSError:
            raise
        except Exception as error:
            raise self._unreadable(f"{type(error).__name__}: {error}") from None

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Within it, what a database refuses is an `OSError` that names it.

        Raises:
            Busy: a trial of ours was ended by another process.
            ImportError: the database's driver is missing; the message names the install line.
        """
        try:
            yield
        except self._optuna.exceptions.UpdateFinishedTrialError:
            raise Busy("another process is at work on this study") from None
        except (OSError, ArchError, Busy):
            raise
        except ImportError as error:
            raise ImportError(_driver_missing(without_password(self._where), error)) from None
        except Exception as error:
            first = str(error).strip().split("\n")[0][:200] or type(error).__name__
            where = without_password(self._where)
            raise OSError(f"{where}: {first.replace(self._where, where)}") from None

    def _unreadable(self, why: str) -> ArchError:
        return unreadable(without_password(self._where), why)

    def _begin(self, name: str, identity: Mapping[str, Any]) -> int:
        """The study's number in the storage, made where there is none."""
        whole = {"format": FORMAT, **identity}
        shared = self._lock is None
        studies = self._storage.get_all_studies()
        there = [study for study in studies if study.study_name == name]
        if not shared:
            for other in studies:
                if other.study_name != name:
                    self._displace(other, name, whole)
        if there:
            study: int = there[0]._study_id
            stored = there[0].user_attrs.get("archdsl")
            trials = self._storage.get_all_trials(study, deepcopy=False)
            if shared:
                require_free(there[0].user_attrs.get(_OWNER), without_password(self._where))
            if stored is None and trials:
                raise self._unreadable(f"`{name}` was begun by another program")
            if any("outcome" in trial.user_attrs for trial in trials):
                require_same(stored, whole, without_password(self._where))
            if stored == json.loads(json.dumps(whole)):
                if shared:
                    self._owner = _Owner(self._storage, study)
                return study
            # Nothing has come of it: what it was of, such as a misspelt name, is no matter.
            self._storage.delete_study(study)
        study = self._storage.create_new_study(self._directions(), name)
        if shared:
            self._owner = _Owner(self._storage, study)
        self._storage.set_study_user_attr(study, "archdsl", whole)
        self._storage.set_study_user_attr(study, "goals", list(self._objectives.goals))
        return study

    def _displace(self, other: Any, name: str, whole: Mapping[str, Any]) -> None:
        """Take away a study of another name, of which nothing has come: a file holds one alone,
        and so does the folder around it.

        Raises:
            ArchError: E1006 where something has, E1009 for one that another program began.
        """
        stored = other.user_attrs.get("archdsl")
        trials = self._storage.get_all_trials(other._study_id, deepcopy=False)
        if stored is None and trials:
            raise self._unreadable(f"`{other.study_name}` was begun by another program")
        if any("outcome" in trial.user_attrs for trial in trials):
            there, here = {**stored, "name": other.study_name}, {**whole, "name": name}
            require_same(there, here, without_password(self._where))
        self._storage.delete_study(other._study_id)

    def _directions(self) -> list[Any]:
        direction = self._optuna.study.StudyDirection
        if not self._several:
            return [direction.MAXIMIZE]
        return [
            direction.MAXIMIZE if goal == "accuracy" else direction.MINIMIZE
            for goal in self._objectives.goals
        ]

    @property
    def _several(self) -> bool:
        return len(self._objectives.goals) > 1

    def _read(self) -> None:
        try:
            trials = self._storage.get_all_trials(self._study, deepcopy=False)
            self.count = len(trials)
            finished: list[tuple[int, Told]] = []
            for trial in trials:
                attrs = trial.user_attrs
                vector = tuple(attrs["vector"])
                if "outcome" in attrs:
                    outcome = dict(attrs["outcome"])
                    order = outcome.pop("order")
                    for field in ("objectives", "violations"):
                        outcome[field] = tuple(outcome[field])
                    told = Trial(trial.number, vector, attrs["figures"], **outcome)
                    finished.append((order, Told(told, attrs["hash"])))
                    if not trial.state.is_finished():
                        self._end(told)
                elif not trial.state.is_finished():
                    self.unfinished.append(
                        Unfinished(trial.number, vector, attrs["hash"], attrs["figures"])
                    )
            self.told = [told for _, told in sorted(finished, key=lambda pair: pair[0])]
        except (KeyError, TypeError, ValueError) as error:
            raise self._unreadable(f"a trial of it is broken ({type(error).__name__})") from None

    # ------------------------------------------------------------------------------ writing

    def propose(self, asked: Unfinished, trial: Trial | None = None) -> None:
        """Put down a proposal; with a trial one that is over already.

        Raises:
            Busy: another process has put down trials.
        """
        state = self._state(trial)
        attrs: dict[str, Any] = {
            "vector": list(asked.vector),
            "hash": asked.hash,
            "figures": asked.figures,
        }
        if trial is not None:
            attrs["outcome"] = self._outcome(trial)
        params, distributions = {}, {}
        for column in self._space.active(asked.vector):
            choice = self._space.choices[column]
            params[choice.path] = choice.options[asked.vector[column]]
            distributions[choice.path] = self._optuna.distributions.CategoricalDistribution(
                choice.options
            )
        template = self._optuna.trial.create_trial(
            state=state,
            values=self._values(trial) if trial is not None else None,
            params=params,
            distributions=distributions,
            user_attrs=attrs,
        )
        with self._reached(), _hushed(self._optuna):
            if self._storage.get_n_trials(self._study) != asked.number:
                raise Busy("another process is at work on this study")
            self._storage.create_new_trial(self._study, template)
        self.count += 1
        if trial is not None:
            self.told.append(Told(trial, asked.hash))

    def finish(self, trial: Trial, hash: str) -> None:
        """Put down what became of a proposal.

        Raises:
            Busy: another process has done so.
        """
        with self._reached():
            outcome = self._outcome(trial)
            self._storage.set_trial_user_attr(self._key(trial.number), "outcome", outcome)
            self._end(trial)
        self.told.append(Told(trial, hash))

    def _key(self, number: int) -> int:
        key: int = self._storage.get_trial_id_from_study_id_trial_number(self._study, number)
        return key

    def _end(self, trial: Trial) -> None:
        self._storage.set_trial_state_values(
            self._key(trial.number), self._state(trial), self._values(trial)
        )

    def _outcome(self, trial: Trial) -> dict[str, Any]:
        fields = ("violations", "state", "accuracy", "reward", "objectives", "fault")
        outcome = {field: getattr(trial, field) for field in (*fields, "seconds", "same_as")}
        return {**outcome, "extra": dict(trial.extra), "order": len(self.told)}

    def _state(self, trial: Trial | None) -> Any:
        states = self._optuna.trial.TrialState
        if trial is None:
            return states.RUNNING
        return {
            "complete": states.COMPLETE,
            "infeasible": states.PRUNED,
            "failed": states.FAIL,
        }[trial.state]

    def _values(self, trial: Trial) -> list[float] | None:
        if trial.state != "complete":
            return None
        assert trial.reward is not None
        if not self._several:
            return [trial.reward]
        return list(self._objectives.values(trial.accuracy, trial.figures))


# --------------------------------------------------------------------------------------- owner


class _Owner:
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
        self._storage.set_study_user_attr(self._study, _OWNER, owner)


_OWNER = "archdsl:owner"


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


# ------------------------------------------------------------------------------------ identity


def require_same(
    stored: Mapping[str, Any],
    wanted: Mapping[str, Any],
    where: str,
    what: str = "study",
    code: str = "E1006",
) -> None:
    """Refuse to continue a study, or another kind of search, of something else.

    Raises:
        ArchError: of the code, which names all that differs.
    """
    # As they are when they have been written and read.
    asked = json.loads(json.dumps(wanted))
    kept = json.loads(json.dumps(stored))
    different = [key for key in dict.fromkeys((*asked, *kept)) if asked.get(key) != kept.get(key)]
    if not different:
        return
    words = [_WORDS.get(key, key) for key in different]
    shown = [
        f"{_WORDS.get(key, key)}: {_shown(kept.get(key))} there, {_shown(asked.get(key))} here"
        for key in different
        if key not in _UNSHOWN
    ]
    message = f"the {what} in {where} has another {listed(words, 'and')}"
    help = "\n".join([*shown, "go on with what it was begun with, or keep this one elsewhere"])
    raise ArchError([Diagnostic(code, message, None, help)])


_WORDS = {"space": "search space", "algorithm_settings": "setting of the algorithm"}
_UNSHOWN = {"space", "network"}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


# ------------------------------------------------------------------------------------- storage


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
