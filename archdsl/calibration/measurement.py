"""A measured time of a network, and a set of them from one runtime on one machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from archdsl.passes.cost import Dtype, Work


@dataclass(frozen=True, slots=True)
class Measurement:
    """The time of one network, or of one block, in µs a run.

    `work` is what it computes and moves for one image; `batch` images were run at once.
    `spread` is the relative half width within which repeated runs fell (0.02 for 2 %), where it
    is known. `whole` is False for a single block or operator, which helps to fix a device's numbers
    and is no network whose time anyone wants foretold.
    """

    name: str
    work: Work
    us: float
    batch: int = 1
    spread: float | None = None
    whole: bool = True


@dataclass(frozen=True)
class Results:
    """What was measured on one unit of one machine, in one runtime and type of numbers.

    `skipped` are the entries that name no network that is known, with the reason.
    """

    measurements: tuple[Measurement, ...]
    dtype: Dtype
    runtime: str = ""
    runtime_version: str = ""
    machine: str = ""
    threads: int | None = None
    source: str = ""
    """Where the times are from: a file's name, a paper's table."""
    skipped: tuple[tuple[str, str], ...] = field(default=())
