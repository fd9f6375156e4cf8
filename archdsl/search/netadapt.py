"""NetAdapt: a network made faster a width at a time, keeping the best trade at each step.

The layer-wise search of MobileNetV3 (arXiv 1905.02244, section 4.2), after NetAdapt (arXiv
1804.03230). Each step has a proposal for each width: the least shrinking that makes the network
faster by `step` of the seed's latency, of an expansion or of a bottleneck in all blocks that
share it. Each is evaluated, and that with the greatest change of accuracy for its change of
latency is kept.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from archdsl.compiler import Arch
from archdsl.ir.execute import Array
from archdsl.ir.graph import Graph
from archdsl.lang.diagnostics import Diagnostic, quoted
from archdsl.passes.cost import SCHEMA_VERSION, Latency
from archdsl.roofline.model import Device
from archdsl.search.objectives import device_digest
from archdsl.search.outcomes import evaluate
from archdsl.search.resuming import Kept
from archdsl.search.shrinking import Kind, Network, Shrinkable
from archdsl.search.slicing import sliced
from archdsl.search.trials import Evaluation, Evaluator, Workers
from archdsl.search.workers import HereWorkers

STEP = 0.01
"""The share of the seed's latency that a step takes at least (arXiv 1905.02244, section 4.2)."""

End = Literal["reached", "nothing to do", "exhausted", "steps", "failed", "interrupted"]
"""The target is reached; it was before; no width is left; as many steps as wanted; no proposal
could be evaluated; somebody stopped it."""

Weights = Mapping[str, Array]


class FineTuner(Protocol):
    """An evaluator that trains on from given weights, and gives what they became.

    Where it trains another network than it is given (for other classes, or images), it has
    `fitted(arch)`, which gives that one; the weights are those of it.
    """

    def fine_tune(
        self, arch: Arch, weights: Weights | None, epochs: int | None
    ) -> tuple[float, Weights]:
        """The accuracy and the weights after some epochs.

        Without weights it begins with initial ones; None is as many epochs as it takes by itself,
        and with none it only judges.
        """


class _Candidate(NamedTuple):
    """A proposal before it is evaluated: a width, its channels before and now, the network."""

    width: Shrinkable
    before: int
    after: int
    network: Network


@dataclass(frozen=True)
class Proposal:
    """A network that differs from the one before in a width, and what was found of it."""

    kind: Kind
    place: str
    """The blocks of the width: `stages.c3.1`, `stages.c3.0-2`."""
    before: int
    """Channels."""
    after: int
    network: Network
    latency_us: float
    evaluation: Evaluation
    ratio: float | None
    """Change of accuracy over change of latency in µs, which is positive; None without either."""

    @property
    def params(self) -> int:
        return self.network.totals.params

    @property
    def macs(self) -> int:
        total = self.network.totals
        return total.macs_conv_linear + total.macs_attention

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "place": self.place,
            "before": self.before,
            "after": self.after,
            "latency_us": self.latency_us,
            "params": self.params,
            "macs": self.macs,
            "accuracy": self.evaluation.accuracy,
            "ratio": self.ratio,
            "fault": self.evaluation.fault,
            "hash": self.network.hash,
        }


@dataclass(frozen=True)
class Step:
    """All proposals of a step in the order of the text, and which of them was kept."""

    number: int
    """From 1."""
    latency_us: float
    """Before the step, as the accuracy."""
    accuracy: float
    proposals: tuple[Proposal, ...]
    index: int

    @property
    def kept(self) -> Proposal:
        return self.proposals[self.index]

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "latency_us": self.latency_us,
            "accuracy": self.accuracy,
            "kept": self.index,
            "text": self.kept.network.text(),
            "proposals": [proposal.to_json() for proposal in self.proposals],
        }


@dataclass
class NetAdapt:
    """An adaptation of a network to a device: iterating over it does it, step by step.

    `target_us` is the latency that is wanted, in µs, and `step` the share of the seed's latency
    that each step takes at least. `evaluator` is a callable, or workers that have one. With
    `epochs` it is a `FineTuner`: each proposal is trained so long from the weights of the network
    before, cut to its widths. The seed's are `weights`, by `state_dict` key; None has it trained
    first. An equal network is evaluated once, but where it is fine-tuned. `progress` is called with
    the proposals of a step that are evaluated, and their number.

    `network` is the best so far, `end` says how it ended, `problems` why it could not go on, and
    `lost` what was said of proposals that could not be evaluated. With `keep` what is evaluated is
    kept in a folder, from which an equal run goes on.

    Raises:
        ValueError: a target or a step that is none, or a device without times.
        TypeError: `epochs` for an evaluator that does not fine-tune.
    """

    seed: Arch
    device: Device
    target_us: float
    evaluator: Evaluator | Workers | FineTuner
    step: float = STEP
    max_steps: int | None = None
    epochs: int = 0
    weights: Weights | None = None
    progress: Callable[[int, int], None] | None = None

    network: Network = field(init=False)
    steps: list[Step] = field(init=False, default_factory=list)
    end: End = field(init=False, default="interrupted")
    problems: list[Diagnostic] = field(init=False, default_factory=list)
    lost: list[str] = field(init=False, default_factory=list)
    seed_accuracy: float | None = field(init=False, default=None)
    kept: Kept | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.device.relative:
            raise ValueError(f"{self.device.name} has a ridge point and no times")
        if not 0 < self.target_us < math.inf:
            raise ValueError(f"target {self.target_us:g} µs: must be a time above 0")
        if not 0 < self.step < 1:
            raise ValueError(f"step {self.step:g}: must be more than 0 and less than 1")
        if self.epochs and not hasattr(self.evaluator, "fine_tune"):
            raise TypeError("the evaluator does not fine-tune: it has no `fine_tune`")
        self.network = self._start = Network.of(self.seed)
        self.latency_us = self.seed_us = self._time(self.network)
        self._known: dict[str, Evaluation] = {}
        self._asked = 0
        self._graph_of: tuple[Network, Graph] | None = None
        self._workers: Workers = (
            self.evaluator  # type: ignore[assignment]
            if hasattr(self.evaluator, "submit")
            else HereWorkers(self.evaluator)  # type: ignore[arg-type]
        )

    def keep(self, folder: str | os.PathLike[str], **more: Any) -> Kept:
        """Keep what is evaluated in a folder, and go on from what an equal run has kept there.

        Equal are runs of the same network, device, target, step and fine-tuning, and of the same
        `more`, which is JSON: who evaluates, with which settings. Close what is given at the end.

        Raises:
            ArchError, Busy, OSError: as `Kept` says.
        """
        text = self._start.text()
        identity = {
            "name": self.seed.name,
            "network": hashlib.sha256(text.encode()).hexdigest(),
            "device": {self.device.name: device_digest(self.device)},
            "target in µs": self.target_us,
            "step": self.step,
            "epochs of fine-tuning": self.epochs,
        }
        self.kept = Kept(folder, identity | more)
        if not self.epochs:
            self._known = {hash: found for (_, hash), found in self.kept.known.items()}
        return self.kept

    @property
    def delta_us(self) -> float:
        """What a step takes at least, in µs."""
        return self.step * self.seed_us

    @property
    def least_us(self) -> float:
        """The time with all widths at their least: no target below it is reached, in µs."""
        return self._time(self._start.narrowest())

    @property
    def taken(self) -> str:
        """How many steps there are, in words."""
        return "1 step" if len(self.steps) == 1 else f"{len(self.steps)} steps"

    @property
    def first(self) -> Network:
        """The seed."""
        return self._start

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the best network so far."""
        return self.steps[-1].kept.evaluation.accuracy if self.steps else self.seed_accuracy

    def __iter__(self) -> Iterator[Step]:
        """Go on, a step at a time, until the target is reached or nothing more can be done.

        Raises:
            EvaluatorError: the workers have no evaluator.
        """
        while True:
            if self.latency_us <= self.target_us:
                self.end = "reached" if self.steps else "nothing to do"
                return
            if self.max_steps is not None and len(self.steps) >= self.max_steps:
                self.end = "steps"
                return
            if self.seed_accuracy is None and not self._begin():
                self.end = "failed"
                return
            found = list(self._proposed())
            if not found:
                self.end = "exhausted"
                self.problems.append(self._unreached())
                return
            done = self._chosen(found)
            if done is None:
                self.end = "failed"
                return
            self.steps.append(done)
            self.network, self.latency_us = done.kept.network, done.kept.latency_us
            yield done

    def run(self) -> NetAdapt:
        """Do all of it."""
        for _ in self:
            pass
        return self

    # ------------------------------------------------------------------------------ a step

    def _begin(self) -> bool:
        """Evaluate the seed; whether it has an accuracy."""
        if not self.network.widths:
            message = f"{quoted(self.seed.name)} has no width that could shrink"
            hint = "what shrinks are blocks of stages: expansions, and the widths that they give"
            self.problems.append(Diagnostic("E1015", message, None, hint))
            return False
        ((found, weights),) = self._evaluated([self.network])
        if found.accuracy is None:
            message = f"{quoted(self.seed.name)} itself could not be evaluated: {found.fault}"
            self.problems.append(Diagnostic("E1014", message))
            return False
        self._hold(0, weights)
        self.seed_accuracy = found.accuracy
        return True

    def _proposed(self) -> Iterator[_Candidate]:
        """For each width the least shrinking that is enough."""
        now = self.latency_us

        def enough(other: Network) -> bool:
            return now - self._time(other) >= self.delta_us

        for width in self.network.widths:
            found = self.network.least(width, enough)
            if found is not None:
                yield _Candidate(width, self.network.count(width), *found)

    def _chosen(self, found: Sequence[_Candidate]) -> Step | None:
        """The step, or None where no proposal has an accuracy."""
        accuracy = self.accuracy
        assert accuracy is not None
        number = len(self.steps) + 1
        proposals: list[Proposal] = []
        best, kept_weights = None, self.weights
        evaluated = self._evaluated([candidate.network for candidate in found])
        for candidate, (evaluation, weights) in zip(found, evaluated, strict=True):
            width, before, after, network = candidate
            latency = self._time(network)
            ratio = None
            if evaluation.accuracy is None:
                shrunk = f"{width.kind} {width.place} {before} -> {after}"
                self.lost.append(f"step {number}: {shrunk}: {evaluation.fault}")
            else:
                ratio = (evaluation.accuracy - accuracy) / (self.latency_us - latency)
            made = Proposal(
                width.kind, width.place, before, after, network, latency, evaluation, ratio
            )
            proposals.append(made)
            if ratio is not None and (best is None or _better(made, proposals[best])):
                best, kept_weights = len(proposals) - 1, weights
        if best is None:
            why = proposals[0].evaluation.fault
            message = f"none of the {len(found)} proposals of step {number} could be evaluated"
            self.problems.append(Diagnostic("E1014", message, None, f"the first: {why}"))
            return None
        self._hold(number, kept_weights)
        return Step(number, self.latency_us, accuracy, tuple(proposals), best)

    def _evaluated(
        self, networks: Sequence[Network]
    ) -> Iterator[tuple[Evaluation, Weights | None]]:
        """What the evaluator says of networks, and the weights that they then have."""
        step = 0 if self.seed_accuracy is None else len(self.steps) + 1
        if self.epochs:
            # One at a time: what has been judged lets go of its weights, if it is not the best.
            for number, network in enumerate(networks):
                if self.kept is not None and step <= self.kept.last:
                    yield self.kept.evaluation(step, network.hash), None
                    continue
                found, weights = self._tuned(network, number, len(networks))
                self._note(step, network.hash, found)
                yield found, weights
            return
        waiting: dict[int, str] = {}
        for network in networks:
            if network.hash not in self._known and network.hash not in waiting.values():
                waiting[self._asked] = network.hash
                self._workers.submit(self._asked, network.text())
                self._asked += 1
        while waiting:
            self._tell(len(networks) - len(waiting), len(networks))
            ended = self._workers.wait()
            if not ended:
                raise RuntimeError("the workers gave no answer")
            for number, evaluation in ended:
                hash = waiting.pop(number)
                self._known[hash] = evaluation
                self._note(step, hash, evaluation)
        for network in networks:
            yield self._known[network.hash], None

    def _note(self, step: int, hash: str, evaluation: Evaluation) -> None:
        if self.kept is not None:
            self.kept.add(step, hash, evaluation)

    def _hold(self, step: int, weights: Weights | None) -> None:
        """Take over the weights after a step, or those that were kept then."""
        if self.kept is not None:
            if step > self.kept.last:
                self.kept.finish(step, weights)
            elif self.epochs and step == self.kept.last:
                weights = self.kept.weights()
        self.weights = weights

    def _tuned(self, network: Network, done: int, count: int) -> tuple[Evaluation, Weights | None]:
        """A network trained on from the weights of the one before; the seed is trained first."""
        self._tell(done, count)
        trained: list[Weights] = []

        def tune(arch: Arch) -> Any:
            start = self.weights
            epochs: int | None = self.epochs
            if network is not self.network:
                assert start is not None
                start = sliced(start, self._graph(), self.fitted(arch).graph())
            else:
                epochs = None if start is None else 0
            accuracy, weights = self.evaluator.fine_tune(arch, start, epochs)  # type: ignore[union-attr]
            trained.append(weights)
            return accuracy

        found = evaluate(tune, network.arch())
        return found, trained[0] if trained else None

    def _graph(self) -> Graph:
        """The graph that the weights are of, made once for a step."""
        if self._graph_of is None or self._graph_of[0] is not self.network:
            self._graph_of = self.network, self.fitted(self.network.arch()).graph()
        return self._graph_of[1]

    def fitted(self, arch: Arch) -> Arch:
        """The network that the evaluator trains in place of one: its weights are of that."""
        fit = getattr(self.evaluator, "fitted", None)
        made: Arch = arch if fit is None else fit(arch)
        return made

    def _tell(self, done: int, count: int) -> None:
        if self.progress is not None:
            self.progress(done, count)

    def _time(self, network: Network) -> float:
        """Its latency, in µs."""
        us = self.device.estimate(network.work).us
        assert us is not None
        return us

    def _unreached(self) -> Diagnostic:
        best = self.latency_us
        message = (
            f"no shrinking gives {quoted(self.seed.name)} {self.target_us / 1e3:,.4g} ms on "
            f"{self.device.name}: the best is {best / 1e3:,.4g} ms"
        )
        hint = (
            f"no width is left that saves {self.delta_us / 1e3:,.3g} ms: "
            "take a smaller step, image or network"
        )
        return Diagnostic("E1013", message, None, hint)

    # ------------------------------------------------------------------------------ for reports

    def latency(self, network: Network | None = None) -> Latency:
        """The estimate for a network, without one for the best so far."""
        return self.device.estimate((network or self.network).work)

    def source(self) -> str:
        """What the file of the result says of its origin."""
        return f"{self.seed.name}, by NetAdapt for {self.device.name}"

    def text(self) -> str:
        """The best network so far as an `.arch` file, with comments that say where it is from."""
        ratio = self.latency_us / self.seed_us
        lines = [
            f"{self.seed.name}, made faster by NetAdapt ({self.taken}) for "
            f"{self.device.name} ({self.device.mode}):",
            f"{self.seed_us / 1e3:.4f} ms before, {self.latency_us / 1e3:.4f} ms now "
            f"({ratio:.3f} of it); {_TARGET[self.end]} {self.target_us / 1e3:.4f} ms",
        ]
        if self.seed.spec.source:
            lines.append(f"before: {self.seed.spec.source}")
        comments = "".join(f"# {' '.join(line.split())}\n" for line in lines)
        return f"{comments}\n{self.network.text(self.source())}"

    def sections(self) -> list[tuple[str, tuple[int, int, float], tuple[int, int, float]]]:
        """For each section its parameters, MACs and µs, before and now.

        Where a device takes time for each run, that is a row of its own, `run`.
        """
        before, after = self._by_section(self._start), self._by_section(self.network)
        found = [(name, before[name], after[name]) for name in before]
        fixed = (0, 0, self.device.fixed_overhead * 1e6)
        return [*found, ("run", fixed, fixed)] if fixed[2] else found

    def _by_section(self, network: Network) -> dict[str, tuple[int, int, float]]:
        times = iter(self.device.layer_times(network.work))
        found: dict[str, tuple[int, int, float]] = {}
        for path, unit in network.blocks:
            name = path.rpartition(".")[0].removeprefix("stages.")
            params, macs, us = found.get(name, (0, 0, 0.0))
            us += sum(next(times).seconds for _ in unit.cost.rows) * 1e6
            total = unit.cost.totals
            macs += total.macs_conv_linear + total.macs_attention
            found[name] = params + total.params, macs, us
        return found

    def to_json(self) -> dict[str, Any]:
        """The record that `archdsl netadapt --json` prints."""
        device, latency = self.device, self.latency()
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.seed.name,
            "input": list(self.seed.input),
            "device": device.name,
            "mode": device.mode,
            "dtype": latency.dtype,
            "target_us": self.target_us,
            "step": self.step,
            "delta_us": self.delta_us,
            "end": self.end,
            "before": self._figures(self._start, self.seed_us, self.seed_accuracy),
            "after": self._figures(self.network, self.latency_us, self.accuracy),
            "text": self.text(),
            "lost": list(self.lost),
            "steps": [step.to_json() for step in self.steps],
        }

    @staticmethod
    def _figures(network: Network, us: float, accuracy: float | None) -> dict[str, Any]:
        total = network.totals
        return {
            "latency_us": us,
            "accuracy": accuracy,
            "params": total.params,
            "macs": total.macs_conv_linear + total.macs_attention,
            "hash": network.hash,
        }


_TARGET: dict[End, str] = {
    "reached": "wanted were",
    "nothing to do": "wanted were",
    "exhausted": "it cannot reach",
    "steps": "on the way to",
    "failed": "on the way to",
    "interrupted": "on the way to",
}


def _better(one: Proposal, other: Proposal) -> bool:
    """Whether a proposal is to be kept rather than an earlier one: of equals the faster."""
    assert one.ratio is not None and other.ratio is not None
    if one.ratio != other.ratio:
        return one.ratio > other.ratio
    return one.latency_us < other.latency_us
