"""The networks of other libraries that bear the names of ours, and what makes each of one of ours.

This table is the only place that says it. tests/test_torch_peers.py proves it for timm and
torchvision, benchmarks/equality.py for Keras and TensorFlow's models, and docs/differences.md is
generated from it. No library is imported here before a network is built.

A difference is a change of our text. Two kinds are kept apart: *settings*, which no count shows
(padding, the norms' epsilon and momentum, dropout), and what makes another network.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import archdsl
from archdsl.library import find_member, published_source

Change = tuple[str, str]
"""What is written, and what stands in its place; nothing written adds a statement."""


# ------------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class Settings:
    """What does not show in the counts; no dropout is 0."""

    pad: str
    eps: float
    momentum: float
    dropout: float

    @staticmethod
    def of(text: str) -> Settings:
        """The settings that a text has."""
        found = re.search(r"dropout_p(\S+)", text)
        return Settings(
            pad=_words(r"pad (\w+)", text)[0],
            eps=float(_words(r"norm batch eps=(\S+)", text)[0]),
            momentum=float(_words(r" momentum=(\S+)", text)[0]),
            dropout=float(found[1]) if found else 0.0,
        )

    def changes(self, text: str) -> Iterator[Change]:
        """The changes that give a text these settings."""
        own = Settings.of(text)
        if self.pad != own.pad:
            yield f"pad {own.pad}", f"pad {self.pad}"
        for name in ("eps", "momentum"):
            if getattr(self, name) != getattr(own, name):
                (written,) = _words(rf"norm .*?({name}=\S+)", text)
                yield written, f"{name}={getattr(self, name):g}"
        if self.dropout != own.dropout:
            assert own.dropout, "a text without dropout gets none"
            (written,) = _words(r"\n (dropout_p\S+)", text)
            yield (
                (f" {written}\n", "")
                if not self.dropout
                else (written, f"dropout_p{self.dropout:g}")
            )


def _words(pattern: str, text: str) -> tuple[str, ...]:
    match = re.search(pattern, text)
    assert match is not None, pattern
    return match.groups()


TIMM = Settings("symmetric", 1e-5, 0.1, 0.0)
TIMM_TF = Settings("same", 1e-3, 0.1, 0.0)
"""Of timm's networks that bear TensorFlow's weights: `tf_*`."""


# ----------------------------------------------------------------------------------------- peers


@dataclass(frozen=True)
class Peer:
    """A network of a library: `name` is the call there, `settings` are what it has by default."""

    library: str
    name: str
    member: str
    build: Callable[..., Any]
    settings: Settings
    changes: tuple[Change, ...] = ()
    scale: float = 1.0
    """What the network itself multiplies its images by."""
    limited: str = ""
    """Why images whose sides are odd, or not the same, are not compared."""


def text_of(member: str) -> str:
    """The text of a member's file; columns are no matter here."""
    found = find_member(member)
    assert found is not None, member
    return re.sub(" +", " ", published_source(found.file).text)


def within(row: Mapping[str, Any]) -> bool:
    """Whether the logits of a row of tensorflow.csv are alive, and equal ours.

    Against exact sums float32 is a little above 1e-5 in deep networks. That it is rounding, float64
    shows, where 1e-14 is usual; TensorFlow's gelu keeps its constant in float32.
    """
    near = float(row["float32"]) <= 1e-4 and float(row["float64"]) <= 1e-6
    return near and float(row["largest"]) > 1


def changed(member: str, changes: tuple[Change, ...]) -> archdsl.Arch:
    """A member with its text changed; each change must find something."""
    text = text_of(member)
    for written, other in changes:
        assert written in text, written
        text = text.replace(written, other) if written else f"{text}\n{other}\n"
    found = find_member(member)
    return archdsl.parse(text, variant=found.variant if found else None)


def as_published(peer: Peer) -> archdsl.Arch:
    """The peer's network with its settings, as an architecture."""
    return changed(peer.member, (*peer.changes, *peer.settings.changes(text_of(peer.member))))


# ------------------------------------------------------------------------------------ departures


def fixed_stem(channels: int) -> Change:
    """A stem that the width does not scale."""
    stem = f"stem {{\n conv_k3_s22_o{channels}"
    return stem, f"{stem}!"


def fixed_tail(channels: int) -> Change:
    """A last convolution that the width does not scale."""
    return f"_o{channels}+", f"_o{channels}!"


def scaled_tail(channels: int) -> Change:
    """A last convolution that the width narrows too."""
    return f"_o{channels}+", f"_o{channels}"


ACTIVE = ("fused_e1_", "conv_k1_")
"""timm's first block of the EdgeTPU networks has an activation."""

WIDE_STEM = ("conv_k5_s22", "conv_k3_s22")
"""timm's EdgeTPU-V2 xs begins with a 3x3 convolution."""

RESIDUAL = ("o8_noskip", "o8")
"""timm gives MnasNet-small's first block a residual."""

# torchvision's V3 scales the expanded widths of the paper's table, not what comes in times a ratio.
_LARGE_EXPANDED = (
    *(("k3_s22_e4_o24", "k3_s22_x64_o24"), ("k3_e3_o24", "k3_x72_o24")),
    ("r3_k5_s22_e3_o40_se0.25_relu", "k5_s22_x72_o40_se0.25_relu\n r2_k5_x120_o40_se0.25_relu"),
    *(("k3_s22_e6_o80", "k3_s22_x240_o80"), ("k3_e2.5_o80", "k3_x200_o80")),
    ("r2_k3_e2.3_o80", "r2_k3_x184_o80"),
    ("r2_k3_e6_o112_se0.25", "k3_x480_o112_se0.25\n k3_x672_o112_se0.25"),
    ("r3_k5_s22_e6_o160_se0.25", "k5_s22_x672_o160_se0.25\n r2_k5_x960_o160_se0.25"),
)
_SMALL_EXPANDED = (
    *(("k3_s22_e4.5_o24", "k3_s22_x72_o24"), ("k3_e3.67_o24", "k3_x88_o24")),
    *(("k5_s22_e4_o40", "k5_s22_x96_o40"), ("r2_k5_e6_o40", "r2_k5_x240_o40")),
    ("r2_k5_e3_o48_se0.25", "k5_x120_o48_se0.25\n k5_x144_o48_se0.25"),
    ("r3_k5_s22_e6_o96_se0.25", "k5_s22_x288_o96_se0.25\n r2_k5_x576_o96_se0.25"),
)
_SMALL_LAST = ("conv_k1_o576", "conv_k1_o192!")
"""Its convolution before the pool has six times the last block's width, which is 32 at 0.35."""


# ----------------------------------------------------------------------------------------- timm


def _timm(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, **options)


def _timms(
    member: str,
    name: str,
    *changes: Change,
    settings: Settings | None = None,
) -> Peer:
    usual = TIMM_TF if name.startswith("tf_") else TIMM
    return Peer("timm", name, member, partial(_timm, name), settings or usual, changes)


def _deeper(*rows: tuple[str, int, int]) -> tuple[Change, ...]:
    """Other repeats of rows."""
    return tuple((f"r{old}_{row}", f"r{new}_{row}") for row, old, new in rows)


def _v2_deeper(width: float, *repeats: int) -> tuple[Change, ...]:
    rows = ("k3_s22_e6_o24", "k3_s22_e6_o32", "k3_s22_e6_o64", "k3_e6_o96", "k3_s22_e6_o160")
    deeper = zip(rows, (2, 3, 4, 3, 3), repeats, strict=True)
    return (("", f"width {width}"), *_deeper(*deeper), fixed_stem(32), fixed_tail(1280))


TIMM_PEERS = [
    _timms("mnv1", "mobilenetv1_100"),
    _timms("mnv1", "mobilenetv1_100h", ("head {\n pool", "head {\n conv_k1_o1024\n pool")),
    _timms("mnv1", "mobilenetv1_125", ("", "width 1.25")),
    _timms("mnv2", "mobilenetv2_100"),
    *(_timms(f"mnv2_{width}", f"mobilenetv2_{width}") for width in ("035", "050", "075", "140")),
    _timms("mnv2", "mobilenetv2_110d", *_v2_deeper(1.1, 3, 4, 5, 4, 4)),
    _timms("mnv2", "mobilenetv2_120d", *_v2_deeper(1.2, 3, 5, 6, 5, 5)),
    *(
        _timms(member, f"{prefix}mobilenetv3_{size}")
        for member, size in (
            ("mnv3_large", "large_100"),
            ("mnv3_large_075", "large_075"),
            ("mnv3_small", "small_100"),
            ("mnv3_small_075", "small_075"),
        )
        for prefix in ("", "tf_")
    ),
    _timms("mnv3_large_min", "tf_mobilenetv3_large_minimal_100"),
    _timms("mnv3_small_min", "tf_mobilenetv3_small_minimal_100"),
    # A V3 keeps its stem below a width of 0.75, and its last convolution at every width.
    _timms("mnv3_small_050", "mobilenetv3_small_050", fixed_stem(16)),
    _timms(
        "mnv3_large",
        "mobilenetv3_large_150d",
        *(("", "width 1.5"), fixed_tail(1280)),
        ("k3_e1_o16_relu", "r2_k3_e1_o16_relu"),
        ("k3_e3_o24_relu", "r2_k3_e3_o24_relu"),
        ("r3_k5_s22_e3_o40", "r4_k5_s22_e3_o40"),
        ("k3_e2.5_o80", "r2_k3_e2.5_o80"),
        ("r2_k3_e6_o112", "r3_k3_e6_o112"),
        ("r3_k5_s22_e6_o160", "r4_k5_s22_e6_o160"),
        ("conv_k1_o960", "conv_r2_k1_o960"),
    ),
    _timms(
        "mnv3_large",
        "mobilenetv3_rw",
        # Squeezed to no multiple of 8, with each block's own activation.
        ("se from=expanded round=8 act=relu", "se from=expanded round=1 act=block"),
        ("k3_e1_o16_relu", "k3_e1_o16_relu_noskip"),
        ("o1280+_bias_nonorm", "o1280_nonorm"),
        settings=Settings("symmetric", 1e-3, 0.1, 0.0),
    ),
    _timms("mnv4_conv_s", "mobilenetv4_conv_small"),
    # Below a width of 1 a V4 keeps its stem.
    _timms("mnv4_conv_s_035", "mobilenetv4_conv_small_035", fixed_stem(32)),
    _timms("mnv4_conv_s_050", "mobilenetv4_conv_small_050", fixed_stem(32)),
    _timms("mnv4_conv_m", "mobilenetv4_conv_medium"),
    _timms("mnv4_conv_l", "mobilenetv4_conv_large"),
    _timms("mnv4_hybrid_m", "mobilenetv4_hybrid_medium"),
    _timms("mnv4_hybrid_m_075", "mobilenetv4_hybrid_medium_075", fixed_stem(32)),
    _timms("mnv4_hybrid_l", "mobilenetv4_hybrid_large"),
    _timms(
        "mnv4_hybrid_l",
        "mobilenetv4_hybrid_large_075",
        *(("", "width 0.75"), fixed_stem(24)),
    ),
    _timms("mn_edgetpu", "mobilenet_edgetpu_100", ACTIVE),
    _timms("mn_edgetpu_v2_xs", "mobilenet_edgetpu_v2_xs", ACTIVE, WIDE_STEM),
    *(
        _timms(f"mn_edgetpu_v2_{size}", f"mobilenet_edgetpu_v2_{size}", ACTIVE)
        for size in ("s", "m", "l")
    ),
    _timms("mnasnet_a1", "semnasnet_100"),
    *(_timms(f"mnasnet_a1_{width}", f"semnasnet_{width}") for width in ("050", "075", "140")),
    _timms("mnasnet_b1", "mnasnet_100"),
    *(_timms(f"mnasnet_b1_{width}", f"mnasnet_{width}") for width in ("050", "075", "140")),
    _timms("mnasnet_small", "mnasnet_small", RESIDUAL),
    *(
        _timms(f"efficientnet_{size}", f"{prefix}efficientnet_{size}")
        for size in (*(f"b{n}" for n in range(8)), *(f"lite{n}" for n in range(5)))
        for prefix in ("", "tf_")
    ),
]


# ------------------------------------------------------------------------------------ torchvision


def _vision(name: str, **options: Any) -> Any:
    from torchvision import models

    return getattr(models, name)(**options)


def _vision_reduced(name: str) -> Any:
    """MobileNetV3 with its tail reduced; no function of torchvision's has the argument."""
    from torchvision.models import mobilenetv3

    return mobilenetv3.MobileNetV3(*mobilenetv3._mobilenet_v3_conf(name, reduced_tail=True))


def _vision_first(alpha: float) -> Any:
    """A MnasNet as the first version of its checkpoints makes it: reading one rebuilds the stem."""
    from torchvision import models

    network = models.MNASNet(alpha)
    with warnings.catch_warnings():  # it says that there is a newer version
        warnings.simplefilter("ignore")
        network._load_from_state_dict({}, "", {"version": 1}, True, [], [], [])
    return network


def _visions(
    member: str,
    name: str,
    settings: Settings,
    *changes: Change,
    build: Callable[..., Any] | None = None,
) -> Peer:
    function, _, options = name.partition("(")
    given = {
        key: float(value) for key, value in (o.split("=") for o in options[:-1].split(", ") if o)
    }
    build = build or partial(_vision, function, **given)
    return Peer("torchvision", name, member, build, settings, changes)


_V2 = Settings("symmetric", 1e-5, 0.1, 0.2)
_V3 = Settings("symmetric", 1e-3, 0.01, 0.2)
_MNASNET = Settings("symmetric", 1e-5, 3e-4, 0.2)
_DROPOUT = (0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5)
"""Of EfficientNet-B0 to B7, everywhere."""

TORCHVISION_PEERS = [
    _visions("mnv2", "mobilenet_v2", _V2),
    *(
        _visions(f"mnv2_{width:03.0f}", f"mobilenet_v2(width_mult={width / 100:g})", _V2)
        for width in (35, 50, 75, 130, 140, 150, 200)
    ),
    _visions("mnv3_large", "mobilenet_v3_large", _V3),
    _visions("mnv3_small", "mobilenet_v3_small", _V3),
    *(
        _visions(
            f"mnv3_{size}_{width:03.0f}",
            f"mobilenet_v3_{size}(width_mult={width / 100:g})",
            _V3,
            *expanded,
            *((scaled_tail(tail),) if width < 100 else ()),
            *((_SMALL_LAST,) if (size, width) == ("small", 35) else ()),
        )
        for size, expanded, tail in (
            ("large", _LARGE_EXPANDED, 1280),
            ("small", _SMALL_EXPANDED, 1024),
        )
        for width in (35, 50, 75, 125)
    ),
    # It halves the last convolution too.
    *(
        _visions(
            f"mnv3_{size}_det",
            f"mobilenet_v3_{size}, reduced_tail=True",
            _V3,
            (f"o{tail}+", f"o{tail // 2}"),
            build=partial(_vision_reduced, f"mobilenet_v3_{size}"),
        )
        for size, tail in (("large", 1280), ("small", 1024))
    ),
    *(
        _visions(member, f"mnasnet{name}", _MNASNET)
        for member, name in (
            ("mnasnet_b1", "1_0"),
            ("mnasnet_b1_050", "0_5"),
            ("mnasnet_b1_075", "0_75"),
            ("mnasnet_b1_130", "1_3"),
        )
    ),
    *(
        _visions(f"mnasnet_b1_{width:03.0f}", f"MNASNet(alpha={width / 100:g})", _MNASNET)
        for width in (35, 140)
    ),
    # The widths of the first two convolutions are fixed in the checkpoints of its first version.
    _visions(
        "mnasnet_b1_050",
        "mnasnet0_5, a checkpoint of version 1",
        _MNASNET,
        fixed_stem(32),
        ("o16_noskip", "o16!_noskip"),
        build=partial(_vision_first, 0.5),
    ),
    *(
        _visions(
            f"efficientnet_b{n}",
            f"efficientnet_b{n}",
            Settings("symmetric", *((1e-5, 0.1) if n < 5 else (1e-3, 0.01)), _DROPOUT[n]),
        )
        for n in range(8)
    ),
]


# ------------------------------------------------------------------------------------------ Keras


def _keras(function: str, **options: Any) -> Any:
    import keras

    if function.startswith("MobileNetV3"):
        options["include_preprocessing"] = False
    return getattr(keras.applications, function)(
        weights=None, classifier_activation=None, **options
    )


def _kerases(
    member: str, function: str, settings: Settings, *changes: Change, **given: Any
) -> Peer:
    arguments = ", ".join(f"{key}={value}" for key, value in given.items())
    name = f"{function}({arguments})" if given else function
    return Peer(
        "keras",
        name,
        member,
        partial(_keras, function, **given),
        settings,
        changes,
        scale=1 / 255 if function.startswith("EfficientNet") else 1.0,
        limited="pads one row and column behind the map" if function == "MobileNet" else "",
    )


_KERAS_V1 = Settings("same", 1e-3, 0.01, 0.001)
_KERAS_V2 = Settings("same", 1e-3, 0.001, 0.0)
_KERAS_V3 = Settings("same", 1e-3, 0.001, 0.2)

KERAS_PEERS = [
    _kerases("mnv1", "MobileNet", _KERAS_V1),
    *(
        _kerases(f"mnv1_{width:03.0f}", "MobileNet", _KERAS_V1, alpha=width / 100)
        for width in (75, 50, 25)
    ),
    _kerases("mnv2", "MobileNetV2", _KERAS_V2),
    *(
        _kerases(f"mnv2_{width:03.0f}", "MobileNetV2", _KERAS_V2, alpha=width / 100)
        for width in (35, 50, 75, 130, 140, 150, 200)
    ),
    *(
        peer
        for size in ("large", "small")
        for function in (f"MobileNetV3{size.capitalize()}",)
        for peer in (
            _kerases(f"mnv3_{size}", function, _KERAS_V3),
            # Its stem has 16 channels at every width.
            *(
                _kerases(
                    f"mnv3_{size}_{width:03.0f}",
                    function,
                    _KERAS_V3,
                    fixed_stem(16),
                    *((_SMALL_LAST,) if (size, width) == ("small", 35) else ()),
                    alpha=width / 100,
                )
                for width in (35, 50, 75, 125)
            ),
            _kerases(f"mnv3_{size}_min", function, _KERAS_V3, minimalistic=True),
        )
    ),
    *(
        _kerases(
            f"efficientnet_b{n}", f"EfficientNetB{n}", Settings("same", 1e-3, 0.01, _DROPOUT[n])
        )
        for n in range(8)
    ),
]

# ----------------------------------------------------------------------------- TensorFlow's models


def _tf_models(model: str, input_shape: tuple[int, int, int], **options: Any) -> Any:
    import tensorflow as tf
    import tf_keras
    from official.modeling import activations
    from official.vision.modeling.backbones.mobilenet import MobileNet
    from official.vision.modeling.classification_model import ClassificationModel

    # Its own multiplies by 0.16667, which shows in the fourth digit of a V3's logits.
    activations.hard_sigmoid = lambda x: tf.nn.relu6(x + 3.0) / 6.0
    specs = tf_keras.layers.InputSpec(shape=(None, *input_shape))
    backbone = MobileNet(model, input_specs=specs, **options)
    return ClassificationModel(backbone, num_classes=1000, input_specs=specs)


def _tf_modelses(member: str, model: str, width: float = 1) -> Peer:
    given = {} if width == 1 else {"filter_size_scale": width}
    name = f"{model}(filter_size_scale={width:g})" if given else model
    # The defaults of the classes; a recipe's file gives others.
    settings = Settings("same", 1e-3, 0.01, 0.0)
    limited = "its attention takes square maps" if "Hybrid" in model else ""
    build = partial(_tf_models, model, **given)
    return Peer("tf-models", name, member, build, settings, limited=limited)


TF_MODELS_PEERS = [
    _tf_modelses(f"{member}_{width:03.0f}" if width != 100 else member, model, width / 100)
    for member, model, widths in (
        ("mnv1", "MobileNetV1", (100, 75, 50, 25)),
        ("mnv2", "MobileNetV2", (100, 35, 50, 75, 130, 140, 150, 200)),
        ("mnv3_large", "MobileNetV3Large", (100, 35, 50, 75, 125)),
        ("mnv3_small", "MobileNetV3Small", (100, 35, 50, 75, 125)),
        ("mnv3_small_reduced", "MobileNetV3SmallReducedFilters", (100,)),
        ("mnv4_conv_s", "MobileNetV4ConvSmall", (100, 35, 50)),
        ("mnv4_conv_m", "MobileNetV4ConvMedium", (100,)),
        ("mnv4_conv_m_seg", "MobileNetV4ConvMediumSeg", (100,)),
        ("mnv4_conv_l", "MobileNetV4ConvLarge", (100,)),
        ("mnv4_hybrid_m", "MobileNetV4HybridMedium", (100, 75)),
        ("mnv4_hybrid_l", "MobileNetV4HybridLarge", (100,)),
        ("mn_edgetpu", "MobileNetV3EdgeTPU", (100, 75, 125, 150, 175)),
        ("mn_multi_max", "MobileNetMultiMAX", (100, 150)),
        ("mn_multi_max_seg", "MobileNetMultiMAXSeg", (100,)),
        ("mn_multi_avg", "MobileNetMultiAVG", (100, 150)),
        ("mn_multi_avg_seg", "MobileNetMultiAVGSeg", (100,)),
    )
    for width in widths
]


# ---------------------------------------------------------- the official code, otherwise configured


def _unbuilt() -> Any:
    raise NotImplementedError("its code does not run with today's TensorFlow")


def _official(member: str, name: str, *changes: Change) -> Peer:
    own = Settings.of(text_of(member))
    return Peer("official code", name, member, _unbuilt, own, changes)


OFFICIAL_PEERS = [
    # The published checkpoints have the mode, and slim's default is without.
    *(
        _official(f"mnv2_{width}", "slim, no finegrain_classification_mode", scaled_tail(1280))
        for width in ("035", "050", "075")
    ),
    _official("mnv3_large_075", "slim, no finegrain_classification_mode", scaled_tail(1280)),
    _official("mnv3_small_075", "slim, no finegrain_classification_mode", scaled_tail(1024)),
    _official("mnv3_small", "the paper's first version", ("o1024+", "o1280+")),
    # 36 channels become 40.
    *(
        _official(member, "tpu, depth_multiplier=1.0", ("round 1", "round 8"))
        for member in ("mnasnet_d1", "mnasnet_d1_320")
    ),
]
ALL_PEERS = [
    *(*TIMM_PEERS, *TORCHVISION_PEERS, *KERAS_PEERS, *TF_MODELS_PEERS),
    *OFFICIAL_PEERS,
]
