"""Which library's network a checkpoint is of, and how that pads and norms, which no tensor shows.

A network of other padding or of another epsilon takes the same weights and computes something else.
docs/differences.md has the whole table; here stands what names of layers tell of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from archdsl.lang.diagnostics import Diagnostic, quoted
from archdsl.lang.printer import decimal
from archdsl.lang.spec import Attributes
from archdsl.weights.layers import Layer

PAGE = "docs/differences.md"


class Setting(NamedTuple):
    """What a text says with `pad` and with `norm batch eps=`; `whose` names networks within a
    library that have it."""

    pad: str
    eps: float
    whose: str = ""

    def __str__(self) -> str:
        whose = f" ({self.whose})" if self.whose else ""
        return f"`pad {self.pad}` and `eps={decimal(self.eps)}`{whose}"


class Library(NamedTuple):
    """Networks of a library that are told by their layers' names, and the settings they have."""

    name: str
    settings: tuple[Setting, ...]


_TORCH, _TF = Setting("symmetric", 1e-5), Setting("same", 1e-3)

KERAS = Library("Keras", (_TF,))

TIMM = Library(
    "timm",
    (
        Setting("symmetric", 1e-5, "most"),
        Setting("same", 1e-3, "those called `tf_`"),
        Setting("symmetric", 1e-3, "`mobilenetv3_rw`"),
    ),
)

TIMM_PLAIN = Library("timm", (_TORCH,))
"""Families of which timm has no network that is called `tf_`."""

# From the libraries' sources, timm 1.0.31 and torchvision 0.28; the first that fits a layer's name.
_NAMES = tuple(
    (re.compile(rf"(?:^|\.){pattern}"), library)
    for pattern, library in (
        (r"blocks\.\d+\.\d+\.(?:dw_start|dw_mid|pw_exp)\.", TIMM_PLAIN),
        (r"conv_stem$", TIMM),
        (r"features\.\d+\.conv\.", Library("torchvision's MobileNetV2", (_TORCH,))),
        (
            r"features\.\d+\.block\.",
            Library("torchvision's MobileNetV3", (Setting("symmetric", 1e-3),)),
        ),
        (
            r"features\.\d+\.\d+\.block\.",
            Library(
                "torchvision's EfficientNet",
                (Setting("symmetric", 1e-5, "B0 to B4"), Setting("symmetric", 1e-3, "B5 to B7")),
            ),
        ),
        (r"layers\.\d+\.\d+\.layers\.", Library("torchvision's MnasNet", (_TORCH,))),
        (r"_conv_stem$", Library("efficientnet_pytorch", (_TF,))),
    )
)


def library_of(layers: Sequence[Layer]) -> Library | None:
    """The library whose names layers have; None for one that is not known."""
    for pattern, library in _NAMES:
        if any(pattern.search(layer.name) for layer in layers):
            return TIMM_PLAIN if library is TIMM and _has_no_twin(layers) else library
    return None


def _has_no_twin(layers: Sequence[Layer]) -> bool:
    """Whether a network with timm's names is a MobileNetV1 or V2.

    Those called `tf_` have kernels of 5x5, squeeze-and-excitation, or the last convolution of
    MobileNetV3, which no norm follows.
    """
    ends = {layer.path[-1] for layer in layers}
    kernels = {shape[2:] for layer in layers if len(shape := layer.signature[1]) == 4}
    return (
        kernels <= {(1, 1), (3, 3)}
        and "conv_reduce" not in ends
        and ("conv_head" not in ends or _above(layers, "conv_head") <= _above(layers, "bn2"))
    )


def _above(layers: Sequence[Layer], end: str) -> set[tuple[str, ...]]:
    return {layer.path[:-1] for layer in layers if layer.path[-1] == end}


def differences(
    file: str, name: str, has: Attributes, library: Library | None
) -> tuple[list[Diagnostic], list[str]]:
    """Warnings and notes on what an architecture makes of a checkpoint's weights.

    W0801 where the library has no such network; a note where it has some, and others.
    """
    own = Setting(has.pad, has.norm.eps)
    if library is None:
        return [], [
            f"{quoted(name)} has {own}: whether the checkpoint's network does, its names do not "
            f"tell; TensorFlow and Keras have {_TF}, PyTorch's libraries mostly {_TORCH} ({PAGE})"
        ]
    settings = {(setting.pad, setting.eps): setting for setting in library.settings}
    found = settings.pop((own.pad, own.eps), None)
    if found is None:
        message = f"{file} has the names of {library.name}, and {quoted(name)} other settings"
        rows = [*(f"{library.name}: {one}" for one in library.settings), f"{quoted(name)}: {own}"]
        rows.append(f"the weights compute something else so; {PAGE} says what to write")
        return [Diagnostic("W0801", message, None, "\n".join(rows))], []
    if not settings:
        return [], []
    return [], [
        f"{quoted(name)} has {found}: whether the checkpoint's network does, its names do not "
        f"tell; others of {library.name} have {' or '.join(map(str, settings.values()))} ({PAGE})"
    ]
