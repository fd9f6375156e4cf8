"""TuNAS's one-shot search: shared weights and a policy learn in turns, and one training is enough.

In each step the shared weights learn from a batch, as the network that the policy has drawn; then
networks are drawn and judged on images that weights never learn from, and the policy is made to
draw more like those above the average (arXiv 2008.06120, section 3; the authors' code is
google-research/tunas, `mobile_architecture_search.py`). What is rewarded is accuracy less what the
network's time is off the target, the time being looked up. In the first part only weights learn.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from archdsl.backend import compile
from archdsl.compiler import Arch, overridden, parse
from archdsl.datasets import Data, batches, load_data, parts
from archdsl.files import Content, write_together
from archdsl.ir.execute import Array
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import SourceText
from archdsl.search.algorithms.controller import Controller
from archdsl.search.bounds import unreachable
from archdsl.search.objectives import Objectives
from archdsl.search.outcomes import EvaluatorError, Failed
from archdsl.search.reading import read_plan
from archdsl.search.records import require_same
from archdsl.search.space import Space, Vector
from archdsl.search.storages import locked
from archdsl.search.study import digest_of
from archdsl.search.tables import Tables
from archdsl.weights.tensors import safetensors

from .to_torch import TorchBackend
from .torch_training import Training, decaying, settle

_SPLIT = 0.25
"""The share of the images to learn from that the policy's networks are judged on instead."""

_GROWTH = 10.0
"""How much larger the policy's learning rate is in the end than when it begins, as in TuNAS."""

_COMMON = (
    *("size", "batch", "lr", "weight_decay", "smoothing", "shift", "flip", "seed"),
    *("threads", "device"),
)
"""Settings that the training of the winner has in common with the search."""

_CHECKPOINT = "progress.pt"
_LOCK = "progress.lock"
"""What a search holds for as long as it is at work in a folder."""

_EVERY = 20.0
"""Seconds between two times that what is done is kept."""

Inputs = tuple[int, int, int]
"""Height, width, channels."""


@dataclass(frozen=True)
class Settings:
    """How a one-shot search is run. Shares are of `steps`."""

    steps: int = 2000
    """Batches that the shared weights learn from."""
    warmup: float = 0.25
    """The share in which only weights learn; in it the widest networks are drawn more often, less
    and less so."""
    batch: int = 64
    """Images of a batch, in learning and in judging."""
    size: int | None = None
    """Sides of the images; None for those that the space asks for."""
    lr: float = 0.1
    """Of the weights: it rises for a tenth of the time and falls as a cosine."""
    controller_lr: float = 0.02
    """Of the policy, in its first step: in its last it is ten times as large."""
    judged: int = 2
    """Networks that are judged at each step."""
    seed: int = 0
    weight_decay: float = 1e-4
    smoothing: float = 0.1
    shift: float = 0.1
    """How far images are moved, as a share of their sides."""
    flip: bool = False
    """Whether images are mirrored."""
    epochs: int = 0
    """How long the winner is trained anew in the end: its own weights instead of shared ones."""
    threads: int = 1
    device: str = "cpu"
    """Where PyTorch computes."""

    def __post_init__(self) -> None:
        limits = {
            **{"steps": (1, 10**8), "warmup": (0, 1), "batch": (2, 65_536), "lr": (0, 100)},
            **{"controller_lr": (0, 100), "judged": (1, 1_024), "seed": (0, 2**63 - 1)},
            **{"weight_decay": (0, 1), "smoothing": (0, 1), "shift": (0, 1)},
            **{"epochs": (0, 100_000), "threads": (1, 1_024)},
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} {value}: must be from {low} to {high:,}")


@dataclass(frozen=True)
class Judgement:
    """A network that the policy drew, and what was said of it."""

    step: int
    vector: Vector
    accuracy: float
    """With shared weights, on one batch."""
    reward: float


@dataclass(frozen=True)
class Winner:
    """What a search came to."""

    vector: Vector
    text: str
    """The network, for the data's classes."""
    weights: Mapping[str, Array]
    """Shared ones, with the norms' statistics taken anew; or its own, where it was trained."""
    shared_accuracy: float
    """With shared weights, on images that nothing in the search has seen."""
    accuracy: float
    """With `weights`, on the same images."""
    figures: Mapping[str, float]
    history: Sequence[Judgement]
    seconds: float

    chances: Mapping[str, Mapping[str, float]]
    """For each choice the chances that the policy gives its options in the end."""

    @property
    def arch(self) -> Arch:
        return parse(self.text)

    def report(self) -> dict[str, Any]:
        """It as JSON, without the weights."""
        return {
            "network": self.text,
            "vector": list(self.vector),
            "shared_accuracy": self.shared_accuracy,
            "accuracy": self.accuracy,
            "figures": dict(self.figures),
            "judged": len(self.history),
            "seconds": round(self.seconds, 1),
            "chances": {path: dict(options) for path, options in self.chances.items()},
        }

    def files(self) -> dict[str, bytes | Content]:
        """The network, its weights, the report, and a line for each network that was judged."""
        lines = [
            json.dumps(
                {"step": j.step, "vector": j.vector, "accuracy": j.accuracy, "reward": j.reward}
            )
            for j in self.history
        ]
        return {
            "judged.jsonl": "".join(f"{line}\n" for line in lines).encode(),
            "report.json": (json.dumps(self.report(), indent=2) + "\n").encode(),
            "winner.safetensors": safetensors(self.weights),
            "winner.arch": self.text.encode(),
        }


Watch = Callable[[int, int], None]
"""Told of the steps done and of all."""


def refitted(space: Space, *, classes: int, size: int | None = None) -> Space:
    """The same space for data of so many classes, and for square images of a size.

    The vectors are those of the space.

    Raises:
        ArchError: the image is too small for some option.
    """
    plan = read_plan(space.source)
    members = []
    for picks, spec in plan.members:
        changes: dict[str, Any] = {"classes": classes}
        if size is not None:
            changes["input"] = (size, size, spec.attributes.input[2])
        attributes = overridden(spec.attributes, changes)
        members.append((picks, spec.model_copy(update={"attributes": attributes})))
    return Space(replace(plan, members=tuple(members)))


def search(
    space: Space,
    data: str,
    objectives: Objectives | None = None,
    settings: Settings | None = None,
    *,
    folder: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
) -> Winner:
    """Search a space by training its supernet once.

    `data` is `digits`, a folder or a `.npz` file. Of the objectives the devices, targets and the
    reward count: without a target it is accuracy alone. With a `folder` what is done is kept there
    every few seconds, and the same call goes on from it; on one thread of a CPU its result is that
    of a search without a break.

    Raises:
        ArchError: data that do not fit the space (E1010), a target that no network comes down to
            (E1007), the folder is another search's (E1006) or broken (E1009), a supernet that
            cannot be.
        Failed: training diverged, or networks do not give a number for each class.
        EvaluatorError: PyTorch has no such device.
        Busy: another process is at work in the folder.
        OSError, ImportError: data or folder cannot be read or written; a package is missing.
    """
    chosen = settings or Settings()
    return OneShot(space, data, objectives or Objectives(), chosen).run(folder, watch)


@contextmanager
def _whole_steps() -> Iterator[Callable[[], bool]]:
    """Hold an interrupt back until the step under way is done and kept; a second one is not held.

    Gives what tells whether one came.
    """
    before = signal.getsignal(signal.SIGINT)
    came = False

    def note(number: int, frame: Any) -> None:
        nonlocal came
        if came and callable(before):
            before(number, frame)
        came = True

    held = callable(before) and threading.current_thread() is threading.main_thread()
    if held:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: came
    finally:
        if held:
            signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


class OneShot:
    """A one-shot search, step by step; `search` runs it."""

    def __init__(self, space: Space, data: str, objectives: Objectives, settings: Settings) -> None:
        self.data_name, self.objectives, self.settings = data, objectives, settings
        try:
            torch.empty(0, device=settings.device)
        except (RuntimeError, AssertionError) as fault:
            first = str(fault).partition("\n")[0]
            raise EvaluatorError(f"device={settings.device}: {first}") from None
        self.given = space
        inputs = {paths.attributes.input for paths in space.graphs if paths.ways}
        classes = {len(self._loaded(image).classes) for image in inputs}.pop()
        self.space = refitted(space, classes=classes)
        """What costs are of, and what the winner is a member of."""
        faults = unreachable(self.space, objectives)
        if faults:
            raise ArchError(faults)
        self.trained = refitted(space, classes=classes, size=settings.size)
        """The same on the images that are learned from."""
        if self.trained.count != self.space.count:
            # Shapes decide what is a member: one must be drawn that can be both.
            raise Failed(
                f"on images of {settings.size}x{settings.size} pixels only {self.trained.count:,} "
                f"of the space's {self.space.count:,} networks are possible; take a larger size"
            )
        for paths in self.trained.graphs:
            for node in paths.levels[-1]:
                shape = node.state.shape
                if paths.ways and (math.prod(shape) != max(shape) or max(shape) < classes):
                    shown = "x".join(map(str, shape))
                    message = f"networks of this space give {shown} numbers"
                    raise Failed(f"{message}, and the data have {classes} classes")
        self.net = TorchBackend().supernet(self.trained)
        self.tables = Tables(self.space)
        self.controller = Controller(self.space, learning_rate=settings.controller_lr)
        self.history: list[Judgement] = []
        self.step = 0
        self._feeds: dict[tuple[Inputs, bool], Iterator[tuple[Any, Any]]] = {}
        self._drawn: dict[tuple[Inputs, bool], int] = {}
        self._wide = _widest(self.space)

    # ------------------------------------------------------------------------------------ images

    def _loaded(self, image: Inputs) -> Data:
        height, width, channels = image
        side = self.settings.size
        size = (height, width) if side is None else (side, side)
        return load_data(self.data_name, size, channels)

    def _part(self, image: Inputs, judged: bool) -> tuple[Array, Array]:
        """The images that weights learn from, or those that the policy's networks are judged on."""
        data = self._loaded(image)
        order = np.random.default_rng(0).permutation(len(data.train))
        cut = min(max(1, round(len(order) * _SPLIT)), len(order) - 1)
        indices = order[:cut] if judged else order[cut:]
        return data.train[indices], data.train_labels[indices]

    def _batch(self, image: Inputs, judged: bool) -> tuple[Any, Any]:
        key = image, judged
        if key not in self._feeds:
            self._feeds[key] = self._feed(image, judged, self._drawn.get(key, 0))
        self._drawn[key] = self._drawn.get(key, 0) + 1
        images, labels = next(self._feeds[key])
        device = self.settings.device
        return torch.tensor(images, device=device), torch.tensor(labels, device=device)

    def _feed(self, image: Inputs, judged: bool, begun: int) -> Iterator[tuple[Any, Any]]:
        """Batches without end; the first `begun` were there before."""
        images, labels = self._part(image, judged)
        settings = self.settings
        shift, flip = (0.0, False) if judged else (settings.shift, settings.flip)
        epoch, skipped = divmod(begun, parts(len(images), settings.batch))
        while True:
            rng = np.random.default_rng((settings.seed, epoch, int(judged)))
            for number, found in enumerate(
                batches(images, labels, settings.batch, rng, shift=shift, flip=flip)
            ):
                if number >= skipped:
                    yield found
            epoch, skipped = epoch + 1, 0

    # ------------------------------------------------------------------------------------ a step

    @property
    def _warm(self) -> int:
        return round(self.settings.warmup * self.settings.steps)

    def _draw(self, rng: random.Random) -> Vector:
        """A network for the weights to learn as: in the first part often one as wide as can be."""
        vector = self.controller.sample(rng)
        if self.step < self._warm and rng.random() >= self.step / self._warm:
            active = set(self.space.active(vector))
            wide = tuple(
                self._wide.get(column, index) if column in active else index
                for column, index in enumerate(vector)
            )
            if wide in self.space:
                return wide
        return vector

    def _image(self, vector: Vector) -> Inputs:
        height, width, channels = self.space.path_of(vector)[0].attributes.input
        return height, width, channels

    def advance(self, module: Any, optimizer: Any) -> None:
        """One step: a batch that weights learn from, and one for each network that is judged.

        Raises:
            Failed: training diverged.
        """
        settings, step = self.settings, self.step
        rng = random.Random(f"{settings.seed}/{step}")
        torch.manual_seed(rng.getrandbits(62))
        rising = (step + 1) / max(1, settings.steps // 10)
        rate = min(rising, 0.5 * (1 + math.cos(math.pi * step / settings.steps)))
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate
        vector = self._draw(rng)
        module.train()
        module.choose(vector)
        images, labels = self._batch(self._image(vector), judged=False)
        logits = module(images).flatten(1)
        loss = F.cross_entropy(logits, labels, label_smoothing=settings.smoothing)
        value = loss.item()
        if not math.isfinite(value):
            raise Failed(f"training diverged: the loss was {value} in step {step + 1}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step >= self._warm:
            vectors = [self.controller.sample(rng) for _ in range(settings.judged)]
            figures = self.objectives.measure(self.tables, vectors)
            found = []
            for one, costs in zip(vectors, figures, strict=True):
                accuracy = self._judge(module, one)
                reward = self.objectives.reward_of(accuracy, costs)
                found.append(Judgement(step, one, accuracy, reward))
            self._learn(found)
        self.step += 1

    def _learn(self, found: Sequence[Judgement]) -> None:
        """Let the policy learn of networks."""
        step = found[0].step
        progress = (step - self._warm) / max(1, self.settings.steps - self._warm)
        self.controller.learning_rate = self.settings.controller_lr * _GROWTH**progress
        self.controller.update([one.vector for one in found], [one.reward for one in found])
        self.history += found

    def _judge(self, module: Any, vector: Vector) -> float:
        """The share of a batch that a network names rightly, normed by this batch as in TuNAS."""
        module.choose(vector)
        images, labels = self._batch(self._image(vector), judged=True)
        module.eval()
        norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 0.0  # what is judged leaves no trace
        with torch.no_grad():
            right = int((module(images).flatten(1).argmax(1) == labels).sum())
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return right / len(labels)

    # ------------------------------------------------------------------------------------ all of it

    def run(
        self, folder: str | os.PathLike[str] | None = None, watch: Watch | None = None
    ) -> Winner:
        """Search, or go on searching where the folder has a search that was ended.

        Raises:
            Failed, ArchError, Busy, OSError: as `search` says.
        """
        started = time.perf_counter()
        target = None if folder is None else Path(folder)
        lock = None
        if target:
            target.mkdir(exist_ok=True)
            lock = locked(os.fspath(target / _LOCK))
        before = torch.get_num_threads()
        torch.set_num_threads(self.settings.threads)
        try:
            with torch.random.fork_rng(devices=()):
                module = self.net.load(self.settings.seed).to(self.settings.device)
                optimizer = _optimizer(module, self.settings)
                done = self._restore(target, module, optimizer) if target else 0.0
                saved = time.monotonic()
                with _whole_steps() as interrupted:
                    while self.step < self.settings.steps and not interrupted():
                        self.advance(module, optimizer)
                        ended = self.step == self.settings.steps or interrupted()
                        if target and (ended or time.monotonic() - saved > _EVERY):
                            spent = done + time.perf_counter() - started
                            self._save(target, module, optimizer, spent)
                            saved = time.monotonic()
                        if watch is not None:
                            watch(self.step, self.settings.steps)
                winner = self._winner(module, done + time.perf_counter() - started)
                if target:
                    write_together({target / name: data for name, data in winner.files().items()})
                return winner
        finally:
            torch.set_num_threads(before)
            if lock is not None:
                os.close(lock)

    def _winner(self, module: Any, seconds: float) -> Winner:
        vector = self.controller.best()
        image = self._image(vector)
        _, weights = self.net.extract(vector, module.state_dict())
        arch = parse(SourceText("<winner>", self.trained.text_of(vector)))
        chosen = self.settings
        common = {name: getattr(chosen, name) for name in _COMMON}
        training = Training(
            data=self.data_name, epochs=max(1, chosen.epochs), optimizer="sgd", **common
        )
        shared, weights = training.fine_tune(arch, self._settled(arch, weights, image), 0)
        accuracy = shared
        if self.settings.epochs:
            accuracy, weights = training.fine_tune(arch, None, self.settings.epochs)
        (figures,) = self.objectives.measure(self.tables, [vector])
        text = self.space.text_of(vector)
        chances = {
            choice.path: dict(zip(choice.options, map(float, found), strict=True))
            for choice, found in zip(
                self.space.choices, self.controller.probabilities(), strict=True
            )
        }
        history = tuple(self.history)
        return Winner(vector, text, weights, shared, accuracy, figures, history, seconds, chances)

    def _settled(
        self, arch: Arch, weights: Mapping[str, Array], image: Inputs
    ) -> Mapping[str, Array]:
        """The weights with the norms' statistics of this network alone, from what it learned of."""
        module = compile(arch, "torch", weights=weights).load().to(self.settings.device)
        images, _ = self._part(image, judged=False)
        device = self.settings.device
        settle(module, images, self.settings.batch, partial(torch.tensor, device=device))
        return {key: value.cpu().numpy() for key, value in module.state_dict().items()}

    # --------------------------------------------------------------------------------- the folder

    @property
    def identity(self) -> dict[str, Any]:
        """All that a search must have in common with one that it goes on with."""
        settings = asdict(self.settings)
        del settings["epochs"]  # of what comes behind
        wanted = self.objectives.identity()
        return {
            "space": digest_of(self.given),
            "data": self.data_name,
            **{name: wanted[name] for name in ("reward", "targets", "devices")},
            **settings,
        }

    def _save(self, folder: Path, module: Any, optimizer: Any, seconds: float) -> None:
        state = {
            "about": json.dumps(
                {
                    "identity": self.identity,
                    "step": self.step,
                    "seconds": seconds,
                    "drawn": [[*key[0], key[1], n] for key, n in self._drawn.items()],
                    "history": [[j.step, j.vector, j.accuracy, j.reward] for j in self.history],
                }
            ),
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        data = io.BytesIO()
        torch.save(state, data)
        write_together({folder / _CHECKPOINT: data.getvalue()})

    def _restore(self, folder: Path, module: Any, optimizer: Any) -> float:
        """Go on from what a folder has; the seconds that it took."""
        path = folder / _CHECKPOINT
        if not path.exists():
            return 0.0
        data = io.BytesIO(path.read_bytes())
        try:
            state = torch.load(data, map_location=self.settings.device, weights_only=True)
            about = json.loads(state["about"])
            identity = dict(about["identity"])
        except Exception as fault:
            raise _broken(path, fault) from None
        require_same(identity, self.identity, str(path))
        try:
            module.load_state_dict(state["module"])
            optimizer.load_state_dict(state["optimizer"])
            for *image, judged, count in about["drawn"]:
                height, width, channels = image
                self._drawn[(height, width, channels), bool(judged)] = int(count)
            told: dict[int, list[Judgement]] = {}
            for step, vector, accuracy, reward in about["history"]:
                told.setdefault(step, []).append(Judgement(step, tuple(vector), accuracy, reward))
            for found in told.values():
                self._learn(found)
            self.step = int(about["step"])
            return float(about["seconds"])
        except Exception as fault:
            raise _broken(path, fault) from None


def _broken(path: Path, fault: Exception) -> ArchError:
    message = f"{path} holds no search that can be gone on with"
    first = str(fault).partition("\n")[0][:200]
    return ArchError([Diagnostic("E1009", message, None, f"{first}; remove it to begin anew")])


def _optimizer(module: Any, settings: Settings) -> Any:
    groups = decaying(module, settings.weight_decay)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=0.9, nesterov=True)


def _widest(space: Space) -> dict[int, int]:
    """For each choice of a width or a ratio its largest option."""
    found = {}
    for column, choice in enumerate(space.choices):
        letter = choice.path.rpartition(".")[2]
        if letter in ("o", "e", "x"):
            values = [float(text.removeprefix(letter).rstrip("!+")) for text in choice.options]
            found[column] = values.index(max(values))
    return found
