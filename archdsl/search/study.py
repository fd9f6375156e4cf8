"""A search: an algorithm proposes, workers evaluate, and every trial is written down.

A study goes on where it was left, however it was ended: what is stored is told to the algorithm
anew, in the same order, and what was under way is tried again.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.formatter import format_source
from archdsl.lang.grammar import grammar
from archdsl.roofline.pareto import best
from archdsl.search.algorithms import make
from archdsl.search.bounds import require_reachable
from archdsl.search.objectives import Objectives, Unweighable
from archdsl.search.outcomes import EvaluatorError
from archdsl.search.programs import Program
from archdsl.search.records import Records, Unfinished
from archdsl.search.space import Space
from archdsl.search.tables import Tables
from archdsl.search.trials import Algorithm, Evaluation, Evaluator, Trial, Workers
from archdsl.search.workers import HereWorkers, LocalWorkers

IDLE = 1000
"""Proposals running that bring nothing to evaluate, after which a search ends."""

ALIKE = 5
"""First evaluations that all fail in the same way, after which a search ends."""

Reason = Literal["budget", "everything", "idle"]
"""All that was asked for is evaluated; the whole space is; no new network is proposed."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, and how many trials of the study became what."""

    reason: Reason
    evaluated: int
    """Networks that were evaluated, in vain or not."""
    failed: int
    infeasible: int
    repeated: int
    """Proposals of a network that had been evaluated before."""


class Study:
    """A search of a space. `run` runs it, and runs on with it.

    `evaluator` is a name (`digits`, `MODULE:FUNCTION`, to which `settings` go), a `Program`, or a
    Python callable. Names and programs run in child processes, as many as `workers` says, with a
    limit of `timeout` seconds for each network; a callable runs in this process, one network at a
    time. `workers` may also be what starts `Workers` of another kind; these know their evaluator
    and their time limit themselves. A search on costs alone (the reward `cost`) does without an
    evaluator: its trials are complete as soon as they are proposed, and have no accuracy.

    `algorithm` is the name of one of `archdsl.search.algorithms` (to which `algorithm_settings`
    go), or one that the caller has made for this space; without one it is `pymoo-nsga2` where
    there are several goals and no target, else `evolution`. `storage` is a file, or the URL of a
    database that Optuna knows; without one the study is forgotten with the process.

    Raises:
        ArchError: E1006 for a stored study of something else, E1007 for a bound or a target
            that no network of the space comes down to, E1009 for a storage that is none.
        ImportError: a package is missing; the message names the install line.
        ValueError: there is no such algorithm, no time limit where one was asked for, or no
            evaluator where accuracies are wanted.
        Busy: another process is at work on the study.
        OSError: the storage cannot be written.
    """

    def __init__(
        self,
        space: Space,
        objectives: Objectives,
        *,
        evaluator: str | Program | Evaluator | None = None,
        settings: Mapping[str, Any] | None = None,
        algorithm: str | Algorithm | None = None,
        algorithm_settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        workers: int | Callable[[], Workers] = 1,
        timeout: float | None = None,
        storage: str | os.PathLike[str] | None = None,
        name: str | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        self.space = space
        self.objectives = objectives
        require_reachable(space, objectives)
        self.tables = Tables(space)
        self._evaluator = evaluator
        self._settings = dict(settings or {})
        self._workers, self._timeout, self._log = workers, timeout, log
        self._check_workers()
        if algorithm is None:
            algorithm = usual_algorithm(objectives)
        chosen = dict(algorithm_settings or {})
        called = algorithm if isinstance(algorithm, str) else type(algorithm).__qualname__
        self.algorithm: Algorithm = (
            make(algorithm, space, seed, **chosen) if isinstance(algorithm, str) else algorithm
        )
        self.identity = {
            "space": digest_of(space),
            **objectives.identity(),
            "evaluator": _name(evaluator),
            "settings": {key: _plain(value) for key, value in sorted(self._settings.items())},
            "algorithm": called,
            "algorithm_settings": {k: _plain(value) for k, value in sorted(chosen.items())},
            "seed": seed,
        }
        self._records: Records | None = None
        self._trials: dict[int, Trial] = {}
        self._known: dict[str, Trial] = {}
        """The first complete trial of each network, by its hash."""
        self._best: Trial | None = None
        self._evaluated = 0
        self._count = 0
        self._again: list[Unfinished] = []
        if storage is not None:
            self._records = Records(space, objectives, self.identity, storage, name)
            self._count = self._records.count
            self._again = self._records.unfinished
            for trial, hash in self._records.told:
                self._learn(trial, hash)

    def close(self) -> None:
        """Let go of the storage."""
        if self._records is not None:
            self._records.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------ what it found

    @property
    def judged(self) -> bool:
        """Whether an evaluator judges networks: without one, costs are all that there is."""
        return self._evaluator is not None

    @property
    def trials(self) -> list[Trial]:
        """All trials that are over, by number."""
        return [self._trials[number] for number in sorted(self._trials)]

    @property
    def complete(self) -> list[Trial]:
        """Those that were evaluated with success, one for each network."""
        return [t for t in self.trials if t.state == "complete" and t.same_as is None]

    @property
    def best(self) -> Trial | None:
        """The one of the largest reward; of equals the better in the goals, then the earlier."""
        return self._best

    @property
    def front(self) -> list[Trial]:
        """Those that no other one beats in all goals, the best in the first goal first."""
        found = self.complete
        on = best([trial.objectives for trial in found])
        kept = [trial for trial, is_on in zip(found, on, strict=True) if is_on]
        return sorted(kept, key=lambda trial: trial.objectives, reverse=True)

    @property
    def evaluated(self) -> int:
        """How many networks have been evaluated, in vain or not."""
        return self._evaluated

    def ending(self, reason: Reason = "budget") -> Ending:
        """What has become of the trials so far."""
        trials = self.trials
        return Ending(
            reason,
            self.evaluated,
            sum(trial.state == "failed" for trial in trials),
            sum(trial.state == "infeasible" for trial in trials),
            sum(trial.same_as is not None for trial in trials),
        )

    # ------------------------------------------------------------------------------ running

    def run(self, budget: int, watch: Callable[[Trial], None] | None = None) -> Ending:
        """Search until `budget` networks have been evaluated, those of earlier runs counted.

        Proposals that break a bound, and those of networks that were evaluated before, cost
        nothing; the search ends where `IDLE` of them come one behind the other. `watch` is told
        of every trial that is over. What is under way when it is interrupted is tried again by
        the next run.

        Raises:
            ArchError: E1008 where the first evaluations all fail in the same way.
            EvaluatorError: there is no such evaluator, or it lacks a package.
            Busy: another process is at work on the study.
        """
        run = _Run(self, budget, watch)
        try:
            return run.run()
        finally:
            run.workers.close()

    def _check_workers(self) -> None:
        """Refuse what cannot be kept to, before any work is done."""
        if self._evaluator is None:
            if self.objectives.reward != "cost":
                raise ValueError("accuracies are wanted, and there is no evaluator")
            if self._settings or self._workers != 1 or self._timeout is not None:
                raise ValueError("settings, workers and a time limit are for an evaluator")
            return
        if not isinstance(self._workers, int) or isinstance(self._evaluator, (str, Program)):
            return
        if self._workers > 1 or self._timeout is not None:
            raise ValueError(
                "a Python callable runs in this process, one network at a time and without a time "
                "limit; name it MODULE:FUNCTION"
            )

    def _made_workers(self) -> Workers:
        if not isinstance(self._workers, int):
            return self._workers()
        if self._evaluator is None:
            # Nobody is asked, and so no child is started.
            return LocalWorkers()
        if isinstance(self._evaluator, (str, Program)):
            program = self._evaluator.command if isinstance(self._evaluator, Program) else None
            return LocalWorkers(
                None if program is not None else str(self._evaluator),
                self._settings,
                program=program,
                slots=self._workers,
                timeout=self._timeout,
                log=self._log,
            )
        return HereWorkers(self._evaluator, self._log)

    def _learn(self, trial: Trial, hash: str) -> None:
        self._trials[trial.number] = trial
        if trial.state == "complete":
            self._known.setdefault(hash, trial)
            if self._best is None or _rank(trial) > _rank(self._best):
                self._best = trial
        if trial.state != "infeasible" and trial.same_as is None:
            self._evaluated += 1
        self.algorithm.tell(trial)


def usual_algorithm(objectives: Objectives) -> str:
    """The algorithm of a search that names none."""
    several = len(objectives.goals) > 1 and not objectives.weighed
    return "pymoo-nsga2" if several else "evolution"


def _rank(trial: Trial) -> tuple[float, tuple[float, ...], int]:
    assert trial.reward is not None
    return trial.reward, trial.objectives, -trial.number


class _Run:
    """One run of a study."""

    def __init__(self, study: Study, budget: int, watch: Callable[[Trial], None] | None) -> None:
        self.study = study
        self.workers = study._made_workers()
        self._budget = budget
        self._watch = watch
        self._left = budget - study.evaluated
        """Networks that may still be given to workers."""
        self._under_way: dict[int, Unfinished] = {}
        self._waiting: dict[str, list[Unfinished]] = {}
        """Proposals of networks that are under way, by hash; the first of each is the one."""
        self._idle = 0
        self._faults: list[str] | None = None if study._known else []
        """Why the first evaluations failed, until one has not, now or in an earlier run."""

    def run(self) -> Ending:
        again, self.study._again = self.study._again, []
        try:
            while again and self._left > 0:
                self._put(again[0])
                again.pop(0)
                if len(self._under_way) >= self.workers.slots:
                    self._wait()
            while self._left > 0 or self._under_way:
                while self._wanted():
                    self._ask()
                if not self._under_way:
                    break
                self._wait()
        finally:
            self.study._again = [*self._open(), *again]
        reason: Reason = "budget"
        if self._left > 0:
            reason = "idle" if self._idle >= IDLE else "everything"
        return self.study.ending(reason)

    def _open(self) -> list[Unfinished]:
        found = [asked for waiting in self._waiting.values() for asked in waiting]
        return sorted(found)

    def _wanted(self) -> bool:
        return (
            self._left > 0
            and len(self._under_way) < self.workers.slots
            and self._idle < IDLE
            and not self._everything
        )

    @property
    def _everything(self) -> bool:
        """Whether every member has been proposed."""
        study = self.study
        return study.space.count <= study._count and study.space.count <= len(
            {trial.vector for trial in study._trials.values()}
        )

    def _ask(self) -> None:
        study = self.study
        number = study._count
        vector = study.algorithm.ask(number)
        (figures,) = study.objectives.measure(study.tables, [vector])
        asked = Unfinished(number, tuple(map(int, vector)), study.space.hash_of(vector), figures)
        self._idle += 1
        violations = study.objectives.violations(figures)
        if any(violation > 0 for violation in violations):
            trial = Trial(number, asked.vector, figures, violations, "infeasible")
            self._propose(asked, trial)
            return
        known = study._known.get(asked.hash)
        if known is not None:
            self._propose(asked, self._like(asked, known))
            return
        if not study.judged:
            self._left -= 1
            self._idle = 0
            self._propose(asked, self._judged(asked, Evaluation(None)))
            return
        self._propose(asked, None)
        self._put(asked)

    def _propose(self, asked: Unfinished, trial: Trial | None) -> None:
        study = self.study
        if study._records is not None:
            study._records.propose(asked, trial)
        study._count += 1
        if trial is not None:
            study._learn(trial, asked.hash)
            self._show(trial)

    def _put(self, asked: Unfinished) -> None:
        """Have a network evaluated, or wait for the same one that is under way."""
        known = self.study._known.get(asked.hash)
        if known is not None:
            self._show(self._finish(asked, self._like(asked, known)))
            return
        waiting = self._waiting.setdefault(asked.hash, [])
        waiting.append(asked)
        if len(waiting) == 1:
            self._under_way[asked.number] = asked
            self._left -= 1
            self._idle = 0
            self.workers.submit(asked.number, self.study.space.text_of(asked.vector))

    def _wait(self) -> None:
        """Take down all that has ended, before anybody may want to end the search."""
        ended: list[Trial] = []
        finished: list[Trial] = []
        for number, evaluation in self.workers.wait():
            asked = self._under_way.pop(number)
            trial = self._judged(asked, evaluation)
            others = self._waiting.pop(asked.hash)[1:]
            ended.append(trial)
            finished.append(self._finish(asked, trial))
            finished += [self._finish(other, self._like(other, trial)) for other in others]
        for trial in finished:
            self._show(trial)
        for trial in ended:
            self._count_fault(trial)

    def _judged(self, asked: Unfinished, evaluation: Evaluation) -> Trial:
        """The trial that an evaluation makes of a proposal."""
        objectives = self.study.objectives
        figures = asked.figures
        trial = Trial(
            asked.number,
            asked.vector,
            figures,
            objectives.violations(figures),
            "failed",
            fault=evaluation.fault,
            extra=evaluation.extra,
            seconds=evaluation.seconds,
        )
        if evaluation.accuracy is None and self.study.judged:
            return replace(trial, fault=evaluation.fault or "the evaluator gave no accuracy")
        try:
            reward = objectives.reward_of(evaluation.accuracy, figures)
        except Unweighable as error:
            return replace(trial, fault=str(error))
        return replace(
            trial,
            state="complete",
            accuracy=evaluation.accuracy,
            reward=reward,
            objectives=objectives.maximised(evaluation.accuracy, figures),
        )

    def _like(self, asked: Unfinished, known: Trial) -> Trial:
        """The trial of a network of which another trial has told."""
        first = known.number if known.same_as is None else known.same_as
        evaluation = Evaluation(known.accuracy, known.fault, known.extra)
        return replace(self._judged(asked, evaluation), same_as=first)

    def _finish(self, asked: Unfinished, trial: Trial) -> Trial:
        if self.study._records is not None:
            self.study._records.finish(trial, asked.hash)
        self.study._learn(trial, asked.hash)
        return trial

    def _show(self, trial: Trial) -> None:
        if self._watch is not None:
            self._watch(trial)

    def _count_fault(self, trial: Trial) -> None:
        """End a search whose evaluator does not work at all.

        Raises:
            ArchError: E1008.
        """
        if self._faults is None:
            return
        if trial.state == "complete":
            self._faults = None
            return
        self._faults.append(trial.fault or "")
        require_working(self._faults)


def require_working(faults: list[str]) -> None:
    """Refuse to go on where the first evaluations all failed in the same way.

    Raises:
        ArchError: E1008, where `ALIKE` faults are there and differ in numbers at most.
    """
    if len(faults) >= ALIKE and len({re.sub(r"\d+", "0", fault) for fault in faults}) == 1:
        message = f"the first {len(faults)} evaluations all failed in the same way: {faults[0]}"
        help = (
            "the search was ended; with the evaluator mended the same command goes on\n"
            f"these {len(faults)} count against its budget; another folder begins anew"
        )
        raise ArchError([Diagnostic("E1008", message, None, help)])


def _name(evaluator: str | Program | Evaluator | None) -> str | None:
    """What an evaluator is known by."""
    if evaluator is None or isinstance(evaluator, str):
        return evaluator
    if isinstance(evaluator, Program):
        return f"program {evaluator.command}"
    module = getattr(evaluator, "__module__", type(evaluator).__module__)
    return f"{module}:{getattr(evaluator, '__qualname__', type(evaluator).__qualname__)}"


def _plain(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def digest_of(space: Space) -> str:
    """A hash of a space's text as `archdsl fmt` writes it, but for its comments and layout."""
    found = grammar("arch.lark", "file").scan(format_source(space.source))
    words = (match[0] for match in found if match.lastgroup not in ("SPACE", "COMMENT"))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


__all__ = ["ALIKE", "IDLE", "Ending", "EvaluatorError", "Study"]
