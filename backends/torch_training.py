"""Evaluators that train: a network learns from images, and its accuracy is that on others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from archdsl.backend import compile
from archdsl.compiler import Arch
from archdsl.datasets import DIGITS, Data, batches, load_data, parts
from archdsl.ir.execute import Array
from archdsl.search.outcomes import EvaluatorError, Failed

Epochs = Annotated[int, Field(ge=1, le=100_000)]
Batch = Annotated[int, Field(ge=2, le=65_536)]
Rate = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=8, le=4096)]
Count = Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True, kw_only=True)
class Training:
    """The evaluator `train`: a network learns from data, and is judged by the part kept back.

    The accuracy is a share, 0 to 1. A network is trained with the data's classes and, where `size`
    is set, on square images of that side. On one thread of a CPU the same network and settings give
    the same accuracy again.

    Raises:
        EvaluatorError: there is no such device.
        OSError, ImportError, ArchError: the data cannot be read.
    """

    data: str
    """`digits`, a folder or a `.npz` file."""
    size: Side | None = None
    """The images' sides; None for those that the network asks for."""
    epochs: Epochs = 10
    batch: Batch = 32
    lr: Rate = 0.01
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """The second is stochastic gradient descent with Nesterov's momentum."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 1e-4
    smoothing: Share = 0.1
    shift: Share = 0.125
    flip: bool = True
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: Seed = 0
    """Of the initial weights, the order of images, and dropout; the part kept back is the same."""
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    """So many trainings under this seed and those after it, of which the means are given."""
    threads: Count = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        ready(self.data, self.size, self.device)

    def __call__(self, arch: Arch) -> Mapping[str, float]:
        """Train a network: its `accuracy`, `loss` there, and what it took.

        With repeats `deviation` is the standard deviation of the trainings' accuracies.

        Raises:
            Failed: the network gives no classes, or its training diverged.
            OSError, ImportError, ArchError: the data cannot be read, or do not fit.
        """
        seeds = range(self.seed, self.seed + self.repeats)
        runs = [self._trained(arch, None, self.epochs, seed)[0] for seed in seeds]
        figures = {key: fmean(run[key] for run in runs) for key in runs[0]}
        figures["seconds"] *= self.repeats
        if self.repeats > 1:
            figures["deviation"] = stdev(run["accuracy"] for run in runs)
        return figures

    def fitted(self, arch: Arch) -> Arch:
        """The network as it is trained: for the data's classes and images of the size.

        Raises:
            Failed: it gives no classes.
            OSError, ImportError, ArchError: the data cannot be read, or the image is too small.
        """
        classes = len(self.loaded(arch).classes)
        made = sized(arch, self.size, classes)
        if math.prod(made.output) != max(made.output) or max(made.output) < classes:
            shown = "x".join(map(str, made.output))
            raise Failed(f"the network gives {shown} numbers, and the data have {classes} classes")
        return made

    def loaded(self, arch: Arch) -> Data:
        """The data as this network takes them.

        Raises:
            OSError, ImportError, ArchError: they cannot be read, or do not fit.
        """
        height, width, channels = arch.input
        size = (height, width) if self.size is None else self.size
        return load_data(self.data, size, channels, validation=self.validation)

    def fine_tune(
        self, arch: Arch, weights: Mapping[str, Array] | None = None, epochs: int | None = None
    ) -> tuple[float, dict[str, Array]]:
        """Train a network on from weights, by `state_dict` key: the accuracy, and its new weights.

        The weights are those of `fitted(arch)`. Without any it starts from initial ones. With no
        epochs nothing is learned, and its accuracy is that of the weights.

        Raises:
            Failed, OSError, ImportError, ArchError: as for the call; weights that do not fit.
        """
        count = self.epochs if epochs is None else epochs
        figures, module = self._trained(arch, weights, count, self.seed)
        state = module.state_dict()
        return figures["accuracy"], {
            key: np.ascontiguousarray(value.cpu().numpy()) for key, value in state.items()
        }

    def _trained(
        self, arch: Arch, weights: Mapping[str, Array] | None, epochs: int, seed: int
    ) -> tuple[dict[str, float], nn.Module]:
        started = time.perf_counter()
        data = self.loaded(arch)
        arch = self.fitted(arch)
        initial = seed if weights is None else None
        with threads(self.threads), torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            module = compile(arch, "torch", seed=initial, weights=weights).load()
            if weights is None:
                _unbiased(module)
            # Convolutions are a third faster with the channels last.
            module = module.to(self.device, memory_format=torch.channels_last)
            if epochs:
                self._learn(module, data, epochs, seed)
                settle(module, data.train, self.batch, self._tensor)
            accuracy, loss = self._judged(module, data)
        figures = {"accuracy": accuracy, "loss": loss, "epochs": float(epochs)}
        return figures | {"seconds": time.perf_counter() - started}, module

    def _learn(self, module: nn.Module, data: Data, epochs: int, seed: int) -> None:
        rng = np.random.Generator(np.random.PCG64(seed))
        groups = decaying(module, self.weight_decay)
        optimizer: Any = (
            torch.optim.AdamW(groups, lr=self.lr)
            if self.optimizer == "adamw"
            else torch.optim.SGD(groups, lr=self.lr, momentum=0.9, nesterov=True)
        )
        steps = epochs * parts(len(data.train), self.batch)
        warm = max(1, steps // 10)
        step = 0
        module.train()
        for _ in range(epochs):
            for images, labels in self._fed(data, rng):
                rate = min((step + 1) / warm, 0.5 * (1 + math.cos(math.pi * step / steps)))
                for group in optimizer.param_groups:
                    group["lr"] = self.lr * rate
                loss = F.cross_entropy(
                    module(images).flatten(1), labels, label_smoothing=self.smoothing
                )
                value = loss.item()
                if not math.isfinite(value):
                    raise Failed(
                        f"training diverged: the loss was {value} in step {step + 1} of {steps}"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1

    def _fed(self, data: Data, rng: np.random.Generator) -> Iterator[tuple[Any, Any]]:
        drawn = batches(
            data.train, data.train_labels, self.batch, rng, shift=self.shift, flip=self.flip
        )
        for images, labels in drawn:
            yield self._tensor(images), self._tensor(labels)

    def _tensor(self, array: Array) -> Any:
        tensor = torch.tensor(array, device=self.device)
        return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

    def _judged(self, module: nn.Module, data: Data) -> tuple[float, float]:
        """The share of images that are named rightly, and the loss, of the part kept back."""
        module.eval()
        right, loss = 0, 0.0
        with torch.inference_mode():
            for start in range(0, len(data.validation), 256):
                labels = self._tensor(data.validation_labels[start : start + 256])
                logits = module(self._tensor(data.validation[start : start + 256])).flatten(1)
                right += int((logits.argmax(1) == labels).sum())
                loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        if not math.isfinite(loss):
            raise Failed(f"training diverged: the loss on the images kept back is {loss}")
        return right / len(data.validation), loss / len(data.validation)


@dataclass(frozen=True, kw_only=True)
class Digits(Training):
    """The evaluator `digits`: training on the handwritten digits that come with scikit-learn."""

    data: str = field(default=DIGITS, init=False)
    size: Side = 32
    epochs: Epochs = 6
    shift: Share = 0.0
    flip: bool = field(default=False, init=False)


def sized(arch: Arch, size: int | None, classes: int | None = None) -> Arch:
    """The same network for square images of a side, and for a number of classes; None: its own.

    Raises:
        ArchError: the image is too small for it.
    """
    height, width, channels = arch.input
    if size is not None:
        height = width = size
    return Arch(
        arch.spec,
        arch.origins,
        variant=arch.variant.name if arch.variant else None,
        width=arch.attributes.width,
        input=(height, width, channels),
        classes=arch.classes if classes is None else classes,
    )


def _unbiased(module: nn.Module) -> None:
    """Let training begin with all classes alike.

    Published initial weights of a classifier have the variance of 1,000 outputs; with ten, its
    first guesses are so sure, and wrong, that little is learned for a while.
    """
    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    if layers and isinstance(layers[-1], nn.Linear):
        nn.init.zeros_(layers[-1].weight)


def decaying(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay (kernels), and those without (biases, norms, scales)."""
    parts = list(module.parameters())
    return [
        {"params": [part for part in parts if part.ndim > 1], "weight_decay": decay},
        {"params": [part for part in parts if part.ndim <= 1], "weight_decay": 0.0},
    ]


def settle(
    module: nn.Module, images: Array, batch: int, tensor: Callable[[Array], torch.Tensor]
) -> None:
    """Take the norms' running averages anew, as means over images, and leave all else as it is.

    `tensor` brings images to where the module is.
    """
    # Only norms learn: dropout changes what they see, and there is none when they are used.
    module.eval()
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        # In parts of equal size: each weighs the same, and a norm has no variance of one image.
        for part in np.array_split(images, parts(len(images), batch)):
            module(tensor(part))
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Have PyTorch compute on so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def ready(data: str, size: int | None, device: str = "cpu") -> None:
    """Look before a search begins whether its networks can be trained at all.

    Raises:
        EvaluatorError: there is no such device.
        OSError, ImportError, ArchError: the data cannot be read.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).partition("\n")[0]
        raise EvaluatorError(f"device={device}: {first}") from None
    # What is wrong with data shows at any size.
    load_data(data, size or 8)
