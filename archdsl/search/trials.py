"""What a search is made of: trials, what is wanted of them, and who proposes and evaluates them.

An algorithm proposes vectors of a space and is told what became of them. Costs come from the
tables, before anything is evaluated; an accuracy is whatever the user's evaluator says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from archdsl.compiler import Arch
from archdsl.search.space import Vector

Evaluator = Callable[[Arch], "float | Mapping[str, float]"]
"""Gives a network's accuracy (more is better; any finite number), or figures with `accuracy`."""

State = Literal["complete", "infeasible", "failed"]
"""Evaluated; beyond a bound, and so not evaluated; evaluated in vain: there is no accuracy."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluator said of a network: an accuracy, or why there is none."""

    accuracy: float | None
    fault: str | None = None
    """One plain sentence; set where there is no accuracy."""
    extra: Mapping[str, float] = field(default_factory=dict)
    """What else it said."""
    seconds: float = 0.0
    lost: bool = False
    """Whether somebody else ended the evaluator, as a machine that is out of memory does."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A network that was proposed, what it costs, and what became of it."""

    number: int
    """From 0, in the order of proposals."""
    vector: Vector
    figures: Mapping[str, float]
    """`params`, `macs`, `weight_bytes`, `activation_bytes`, `peak_activation_bytes`, and
    `latency_us:DEVICE` for each device."""
    violations: tuple[float, ...]
    """For each hard bound, figure / bound - 1: positive where it is broken."""
    state: State
    accuracy: float | None = None
    """None but for complete trials, and where a search is on costs alone."""
    reward: float | None = None
    """What is maximised where only one number is: None but for complete trials."""
    objectives: tuple[float, ...] = ()
    """What is maximised where several are (costs negated): empty but for complete trials."""
    fault: str | None = None
    extra: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    same_as: int | None = None
    """The trial whose network is the same, and whose accuracy was taken."""


class Algorithm(Protocol):
    """Proposes vectors of one space; made from a space, a seed and its own settings.

    It has no state but what it was told: told the same trials in the same order, it proposes the
    same. That is how a study goes on after a crash. `ask` may be called again before a proposal
    has been told, where several are evaluated at once.
    """

    def ask(self, number: int) -> Vector:
        """A member of the space, to be tried as trial `number`."""

    def tell(self, trial: Trial) -> None:
        """Learn what became of a proposal, or of a network that somebody else proposed."""


class Workers(Protocol):
    """Evaluates networks somewhere, several at a time; no evaluator's fault ends it."""

    slots: int
    """How many may be under way at once."""

    def submit(self, number: int, text: str) -> None:
        """Have the network of a text evaluated, under the number of its trial."""

    def wait(self) -> list[tuple[int, Evaluation]]:
        """What has ended, with its numbers; waits until something has."""

    def close(self) -> None:
        """End everything that is under way."""
