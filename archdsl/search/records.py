"""Studies on disk: every trial as soon as there is something to say of it, in an Optuna storage.

A trial is one of Optuna's, with the same number: its parameters are the decisions by path, its
values the goals, so that Optuna's own tools show what they know to show. What else is known of it
are its user attributes. What finished is written in two steps, first what was found and then that
it is over; a trial that a crash left between them has finished.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from archdsl.lang.diagnostics import ArchError, Diagnostic, listed
from archdsl.search.objectives import Objectives
from archdsl.search.space import Space, Vector
from archdsl.search.storages import (
    OWNER,
    Busy,
    Owner,
    Storage,
    require_free,
    unreadable,
)
from archdsl.search.trials import Trial

FORMAT = 1
"""Of the attributes; another one is not read."""


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
        self._owner: Owner | None = None
        self.told: list[Told] = []
        """Those that are over, in the order in which they came to be."""
        self.unfinished: list[Unfinished] = []
        self.count = 0
        self._place = Storage(storage)
        self._optuna = self._place.optuna
        self._storage = self._place.studies
        try:
            with self._place.reached():
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
        self._place.close()

    # ------------------------------------------------------------------------------ opening

    def _begin(self, name: str, identity: Mapping[str, Any]) -> int:
        """The study's number in the storage, made where there is none."""
        whole = {"format": FORMAT, **identity}
        shared, where = self._place.shared, self._place.name
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
                require_free(there[0].user_attrs.get(OWNER), where)
            if stored is None and trials:
                raise unreadable(where, f"`{name}` was begun by another program")
            if any("outcome" in trial.user_attrs for trial in trials):
                require_same(stored, whole, where)
            if stored == json.loads(json.dumps(whole)):
                if shared:
                    self._owner = Owner(self._storage, study)
                return study
            # Nothing has come of it: what it was of, such as a misspelt name, is no matter.
            self._storage.delete_study(study)
        study = self._storage.create_new_study(self._directions(), name)
        if shared:
            self._owner = Owner(self._storage, study)
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
            raise unreadable(self._place.name, f"`{other.study_name}` was begun by another program")
        if any("outcome" in trial.user_attrs for trial in trials):
            there, here = {**stored, "name": other.study_name}, {**whole, "name": name}
            require_same(there, here, self._place.name)
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
            why = f"a trial of it is broken ({type(error).__name__})"
            raise unreadable(self._place.name, why) from None

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
        with self._place.reached():
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
        with self._place.reached():
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
    message = f"the {what} in {where} is not this one: it differs in {listed(words, 'and')}"
    help = "\n".join([*shown, "go on with what it was begun with, or keep this one elsewhere"])
    raise ArchError([Diagnostic(code, message, None, help)])


_WORDS = {"space": "search space", "algorithm_settings": "setting of the algorithm"}
_UNSHOWN = {"space", "network"}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
