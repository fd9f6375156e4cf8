"""What a search wants: figures of networks, bounds on them, and what is maximised."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from archdsl.lang.diagnostics import did_you_mean
from archdsl.passes.cost import DTYPES, Dtype
from archdsl.roofline.model import Device, common_dtype
from archdsl.roofline.reward import HARD, SOFT, absolute_reward, mnasnet_reward
from archdsl.search.space import Vector
from archdsl.search.tables import Tables

COUNTS = (
    *("params", "macs", "weight_bytes", "activation_bytes"),
    "peak_activation_bytes",
)
"""The figures that every network has; `latency_us:DEVICE` is one for each device."""

RewardName = Literal["soft", "hard", "absolute", "accuracy", "cost"]

ABSOLUTE_BETA = -0.10
"""beta of TuNAS's absolute reward: the default of the authors' code (google-research, tunas)."""


class Unweighable(ValueError):
    """An accuracy that a reward has no meaning for; the message says why."""


def latency_of(device: str) -> str:
    """The name of the figure that is the time on a device.

    >>> latency_of("pixel6-cpu-int8")
    'latency_us:pixel6-cpu-int8'
    """
    return f"latency_us:{device}"


@dataclass(frozen=True)
class Objectives:
    """What is measured of every network, what it must not exceed, and what is maximised.

    `goals` are `accuracy` and figures, which are wanted small; without any they are the accuracy
    and the time on each device, or the MACs where there is no device. `targets` has a time in
    microseconds for each device that the reward is about.

    The reward is one number for algorithms that follow one: `accuracy` alone, MnasNet's
    ACC x (LAT/T)^w with its `soft` or `hard` exponents, or TuNAS's `absolute` one,
    ACC + beta |LAT/T - 1| (`archdsl.roofline.reward`). With several devices LAT/T is the largest
    of theirs. `cost` is the first goal, negated, where the accuracy is none: such a search needs
    no evaluator.

    Raises:
        ValueError: devices of one name or for different precisions, an unknown figure or reward,
            a bound or a target that is not a positive number, a reward that wants a target
            without one, the reward `cost` with the goal `accuracy`.
    """

    devices: tuple[Device, ...] = ()
    goals: tuple[str, ...] = ()
    bounds: Mapping[str, float] | None = None
    """The most that a network may have of a figure."""
    targets: Mapping[str, float] | None = None
    """Microseconds, by the device's name."""
    reward: RewardName | None = None
    """Without one: `soft` where there is a target, else `accuracy` or `cost` as the goals are."""
    dtype: Dtype | None = None
    """What networks are counted in; without one, the devices'."""
    batch: int = 1

    def __post_init__(self) -> None:
        names = [device.name for device in self.devices]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two devices are called {name}")
        for device in self.devices:
            if device.relative:
                raise ValueError(f"{device.name} is known by its ridge point: it has no times")
        if type(self.batch) is not int or self.batch < 1:
            raise ValueError(f"batch {self.batch!r}: must be a whole number, at least 1")
        own = {d.dtype: d.name for d in self.devices if d.dtype is not None}
        if len(own) > 1:
            raise ValueError(
                "the devices are profiles for different precisions, and networks are counted in "
                f"one: {', '.join(f'{name} is for {dtype}' for dtype, name in own.items())}"
            )
        dtype = common_dtype(self.devices, self.dtype)
        if dtype not in DTYPES:
            raise ValueError(f"dtype {dtype!r}: must be one of {', '.join(DTYPES)}")
        costs = tuple(map(latency_of, names)) or ("macs",)
        goals = self.goals or ("accuracy", *costs)
        for goal in goals:
            self._known(goal, "accuracy", *self.figures)
        if len(set(goals)) < len(goals):
            raise ValueError(f"a goal is named twice: {', '.join(goals)}")
        bounds, targets = dict(self.bounds or {}), dict(self.targets or {})
        for figure, value in bounds.items():
            self._known(figure, *self.figures)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the bound {value} of {figure}: must be a positive number")
        for name, value in targets.items():
            if name not in names:
                raise ValueError(f"a target for {name}, which is none of the devices")
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"the target {value} of {name}: must be a positive number")
        goal = "accuracy" if "accuracy" in goals else "cost"
        reward = self.reward or ("soft" if targets else goal)
        if reward not in get_args(RewardName):
            raise ValueError(f"reward {reward!r}: must be soft, hard, absolute, accuracy or cost")
        if reward == "cost" and "accuracy" in goals:
            raise ValueError("the reward `cost` is for goals without the accuracy")
        if reward not in ("accuracy", "cost") and not targets:
            raise ValueError(f"the reward `{reward}` needs a device and a target time")
        settled: dict[str, Any] = {"dtype": dtype, "goals": goals, "reward": reward}
        for field, value_of in {**settled, "bounds": bounds, "targets": targets}.items():
            object.__setattr__(self, field, value_of)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all that is measured."""
        return (*COUNTS, *(latency_of(device.name) for device in self.devices))

    @staticmethod
    def _known(name: str, *known: str) -> None:
        if name not in known:
            guess = did_you_mean(name, known)
            hint = f"did you mean {guess}?" if guess else f"there are {', '.join(known)}"
            raise ValueError(f"no figure is called {name!r}; {hint}")

    def measure(self, tables: Tables, vectors: Sequence[Vector]) -> list[dict[str, float]]:
        """The figures of members, which are the compiler's.

        Raises:
            ValueError: one is no member's vector.
        """
        found = tables.cost(vectors, dtype=self.dtype, batch=self.batch, devices=self.devices)
        columns = {name: getattr(found, name).tolist() for name in COUNTS}
        for device in self.devices:
            columns[latency_of(device.name)] = found.latency_us[device.name].tolist()
        return [
            {name: column[row] for name, column in columns.items()} for row in range(len(vectors))
        ]

    def violations(self, figures: Mapping[str, float]) -> tuple[float, ...]:
        """For each bound, figure / bound - 1: positive where it is broken."""
        return tuple(figures[name] / most - 1 for name, most in (self.bounds or {}).items())

    @property
    def weighed(self) -> bool:
        """Whether the reward is a number of its own: accuracy and time in one."""
        return self.reward not in ("accuracy", "cost")

    def reward_of(self, accuracy: float | None, figures: Mapping[str, float]) -> float:
        """What is maximised where only one number is; `cost` alone needs no accuracy.

        Raises:
            Unweighable: MnasNet's reward of an accuracy below 0, or too large a number.
        """
        if self.reward == "cost":
            return -float(figures[self.goals[0]])
        assert accuracy is not None
        if self.reward == "accuracy":
            return accuracy
        ratio = max(figures[latency_of(name)] / t for name, t in (self.targets or {}).items())
        if self.reward == "absolute":
            return absolute_reward(accuracy, ratio, 1.0, beta=ABSOLUTE_BETA)
        if accuracy < 0:
            raise Unweighable(
                f"an accuracy of {accuracy:g} cannot be weighed by a product; the rewards "
                "`absolute` and `accuracy` take numbers below 0"
            )
        alpha, beta = SOFT if self.reward == "soft" else HARD
        try:
            return mnasnet_reward(accuracy, ratio, 1.0, alpha=alpha, beta=beta)
        except (ValueError, OverflowError):
            raise Unweighable(f"there is no reward for {ratio:g} times the target") from None

    def values(self, accuracy: float | None, figures: Mapping[str, float]) -> tuple[float, ...]:
        """The goals as they are: accuracy large, figures small."""
        known = figures if accuracy is None else {**figures, "accuracy": accuracy}
        return tuple(known[goal] for goal in self.goals)

    def maximised(self, accuracy: float | None, figures: Mapping[str, float]) -> tuple[float, ...]:
        """The goals with costs negated."""
        values = self.values(accuracy, figures)
        return tuple(
            value if goal == "accuracy" else -value
            for goal, value in zip(self.goals, values, strict=True)
        )

    def limits(self) -> list[tuple[str, float, str]]:
        """The figures that something is asked of: name, the most there may be, and in which role.

        A target is what a search is to come near to; a bound what it must not exceed.
        """
        targets = {latency_of(name): value for name, value in (self.targets or {}).items()}
        return [
            *((name, value, "bound") for name, value in (self.bounds or {}).items()),
            *((name, value, "target") for name, value in targets.items()),
        ]

    def identity(self) -> dict[str, Any]:
        """All of it as JSON: what a study is not to be continued without."""
        return {
            "goals": list(self.goals),
            "reward": self.reward,
            "bounds": dict(sorted((self.bounds or {}).items())),
            "targets": dict(sorted((self.targets or {}).items())),
            "devices": {device.name: device_digest(device) for device in self.devices},
            "dtype": self.dtype,
            "batch": self.batch,
        }


def device_digest(device: Device) -> str:
    """A hash of a device's numbers."""
    return hashlib.sha256(repr(device).encode()).hexdigest()[:16]


def amount(figure: str, value: float) -> str:
    """A figure as a person reads it.

    >>> amount("latency_us:phone", 1234.5), amount("params", 1234567.0)
    ('1.234 ms on phone', '1,234,567 parameters')
    """
    kind, _, device = figure.partition(":")
    if device:
        return f"{value / 1000:,.4g} ms on {device}"
    return f"{value:,.12g} {_UNITS.get(kind, kind)}"


_UNITS = {
    "params": "parameters",
    "macs": "MACs",
    "weight_bytes": "bytes of weights",
    "activation_bytes": "bytes of activations moved",
    "peak_activation_bytes": "bytes of activations at once",
}


def read_goals(words: Iterable[str], devices: Iterable[Device]) -> tuple[str, ...]:
    """Goals as the command line names them: `latency` is the time on every device.

    Raises:
        ValueError: a latency without a device.
    """
    names = [device.name for device in devices]
    found: list[str] = []
    for word in words:
        kind, _, device = word.partition(":")
        if kind in ("latency", "latency_us"):
            if not names:
                raise ValueError("the goal `latency` needs a device")
            found += [latency_of(name) for name in ([device] if device else names)]
        else:
            found.append(_SHORT.get(word, word))
    return tuple(found)


_SHORT = {"bytes": "weight_bytes", "peak": "peak_activation_bytes"}
