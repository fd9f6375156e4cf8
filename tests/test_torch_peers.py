"""The emitted modules against other implementations, with random weights in every tensor.

Both hold their tensors in the order of the forward pass, so the n-th of one is the n-th of the
other. Three kinds of peers: timm's and torchvision's networks, and, for members that neither has,
timm's blocks put together by the rows of the catalogue, written a second time in timm's notation.

Where a peer departs from the official network, its line says how, as a change of our text that
makes the same departure: `pad same` becomes `pad symmetric`, a scaled stem a fixed one. Two things
are set right on the peer itself: timm's padding and its norms' epsilon.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

import archdsl
from archdsl.library import find_member, members, published_source

pytestmark = pytest.mark.peers
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Peer:
    """Another implementation of a member, and the changes of our text that make its departures."""

    build: Callable[[], nn.Module]
    changes: tuple[tuple[str, str], ...] = ()
    side: int = 128


def timm_models() -> ModuleType:
    return sys.modules["timm"].models  # type: ignore[no-any-return]


def timms(name: str, eps: float = 1e-3, **options: Any) -> Callable[[], nn.Module]:
    """A network of timm's, by name."""

    def build() -> nn.Module:
        model: nn.Module = sys.modules["timm"].create_model(
            name, pad_type="same", bn_eps=eps, **options
        )
        return model

    return build


def scaled(generator: str, name: str, width: float, eps: float = 1e-3) -> Callable[[], nn.Module]:
    """A network of timm's at a width that it has no name for."""

    def build() -> nn.Module:
        models = timm_models()
        file = models.mobilenetv3 if generator[-2:] in ("v3", "v4") else models.efficientnet
        model: nn.Module = getattr(file, f"_gen_{generator}")(
            name, width, pad_type="same", bn_eps=eps
        )
        return model

    return build


def rows(
    *stages: str, tail: str = "", act: str = "relu", width: float | None = 1.0, **options: Any
) -> Callable[[], nn.Module]:
    """timm's blocks, stage by stage: `tail` is how the network ends (see below)."""

    def build() -> nn.Module:
        models = timm_models()
        builder = models._efficientnet_builder
        layers = sys.modules["timm.layers"]
        settings: dict[str, Any] = {
            "block_args": builder.decode_arch_def([stage.split() for stage in stages]),
            "round_chs_fn": partial(builder.round_channels, multiplier=width),
            "norm_layer": partial(nn.BatchNorm2d, eps=1e-3),
            "act_layer": layers.get_act_layer(act),
            "pad_type": "same",
            **options,
        }
        if tail == "v3":  # behind the pool, with a bias in place of the norm; and V3's squeeze
            settings["se_layer"] = partial(
                models._efficientnet_blocks.SqueezeExcite,
                gate_layer="hard_sigmoid",
                force_act_layer=nn.ReLU,
                rd_round_fn=builder.round_channels,
            )
        elif tail == "v4":  # behind the pool, with a norm
            settings |= {"head_norm": True, "head_bias": False}
        cls = models.MobileNetV3 if tail else models.EfficientNet
        network: nn.Module = cls(**settings)
        return network

    return build


def torchvisions(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A network of torchvision's, by name."""

    def build() -> nn.Module:
        model: nn.Module = getattr(sys.modules["torchvision"].models, name)(**options)
        return model

    return build


def torchvisions_reduced(name: str, last: int) -> Callable[[], nn.Module]:
    """MobileNetV3 of torchvision with its tail reduced."""

    def build() -> nn.Module:
        file = sys.modules["torchvision"].models.mobilenetv3
        blocks, channels = file._mobilenet_v3_conf(name, reduced_tail=True)
        assert channels == last
        network: nn.Module = file.MobileNetV3(blocks, channels)
        return network

    return build


# ----------------------------------------------------------------------------- what differs where


def fixed_stem(channels: int) -> tuple[str, str]:
    stem = f"stem {{\n conv_k3_s22_o{channels}"
    return stem, f"{stem}!"


def fixed_tail(channels: int) -> tuple[str, str]:
    return f"_o{channels}+", f"_o{channels}!"


# timm's first block of the EdgeTPU networks has an activation.
ACTIVE = ("fused_e1_", "conv_k1_")
SYMMETRIC = ("pad same", "pad symmetric")

TIMM = {
    "mnv1": Peer(timms("mobilenetv1_100")),
    **{
        f"mnv1_{width:03.0f}": Peer(scaled("mobilenet_v1", "mobilenetv1_100", width / 100))
        for width in (75, 50, 25)
    },
    "mnv2": Peer(timms("mobilenetv2_100")),
    **{
        f"mnv2_{width:03.0f}": Peer(scaled("mobilenet_v2", "mobilenetv2_100", width / 100))
        for width in (35, 50, 75, 130, 140, 150, 200)
    },
    "mnv3_large": Peer(timms("tf_mobilenetv3_large_100")),
    "mnv3_large_075": Peer(timms("tf_mobilenetv3_large_075")),
    "mnv3_large_min": Peer(timms("tf_mobilenetv3_large_minimal_100")),
    "mnv3_small": Peer(timms("tf_mobilenetv3_small_100")),
    "mnv3_small_075": Peer(timms("tf_mobilenetv3_small_075")),
    "mnv3_small_min": Peer(timms("tf_mobilenetv3_small_minimal_100")),
    # timm keeps the stem of a V3 below a width of 0.75 ...
    **{
        f"mnv3_{size}_{width:03.0f}": Peer(
            scaled("mobilenet_v3", f"mobilenetv3_{size}_100", width / 100), (fixed_stem(16),)
        )
        for size in ("large", "small")
        for width in (35, 50)
    },
    # ... and its last convolution at every width.
    "mnv3_large_125": Peer(
        scaled("mobilenet_v3", "mobilenetv3_large_100", 1.25), (fixed_tail(1280),)
    ),
    "mnv3_small_125": Peer(
        scaled("mobilenet_v3", "mobilenetv3_small_100", 1.25), (fixed_tail(1024),)
    ),
    "mnv4_conv_s": Peer(timms("mobilenetv4_conv_small", 1e-6)),
    # The stem of a V4 it keeps at every width below 1.
    "mnv4_conv_s_035": Peer(
        scaled("mobilenet_v4", "mobilenetv4_conv_small", 0.35, 1e-6), (fixed_stem(32),)
    ),
    "mnv4_conv_s_050": Peer(
        scaled("mobilenet_v4", "mobilenetv4_conv_small", 0.5, 1e-6), (fixed_stem(32),)
    ),
    "mnv4_conv_m": Peer(timms("mobilenetv4_conv_medium")),
    "mnv4_conv_l": Peer(timms("mobilenetv4_conv_large")),
    "mnv4_hybrid_m": Peer(timms("mobilenetv4_hybrid_medium")),
    "mnv4_hybrid_m_075": Peer(
        scaled("mobilenet_v4", "mobilenetv4_hybrid_medium", 0.75), (fixed_stem(32),)
    ),
    "mnv4_hybrid_l": Peer(timms("mobilenetv4_hybrid_large")),
    "mn_edgetpu": Peer(timms("mobilenet_edgetpu_100"), (ACTIVE,)),
    "mn_edgetpu_075": Peer(scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", 0.75), (ACTIVE,)),
    # The wide ones, and the narrow head: timm keeps 1280 features at every width.
    "mn_edgetpu_075_960": Peer(
        scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", 0.75),
        (ACTIVE, ("conv_k1_o1280", "conv_k1_o1280!")),
    ),
    **{
        f"mn_edgetpu_{width:03.0f}": Peer(
            scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", width / 100),
            (ACTIVE, fixed_tail(1280)),
        )
        for width in (125, 150, 175)
    },
    # timm's xs has a 3x3 stem.
    "mn_edgetpu_v2_xs": Peer(
        timms("mobilenet_edgetpu_v2_xs"), (ACTIVE, ("conv_k5_s22", "conv_k3_s22"))
    ),
    **{
        f"mn_edgetpu_v2_{size}": Peer(timms(f"mobilenet_edgetpu_v2_{size}"), (ACTIVE,))
        for size in ("s", "m", "l")
    },
    "mnasnet_a1": Peer(timms("semnasnet_100")),
    **{
        f"mnasnet_a1_{width:03.0f}": Peer(scaled("mnasnet_a1", "semnasnet_100", width / 100))
        for width in (35, 50, 75, 140)
    },
    "mnasnet_b1": Peer(timms("mnasnet_100")),
    **{
        f"mnasnet_b1_{width:03.0f}": Peer(scaled("mnasnet_b1", "mnasnet_100", width / 100))
        for width in (35, 50, 75, 130, 140)
    },
    # timm gives the first block a residual.
    "mnasnet_small": Peer(timms("mnasnet_small"), (("o8_noskip", "o8"),)),
    **{f"efficientnet_b{n}": Peer(timms(f"tf_efficientnet_b{n}")) for n in range(8)},
    **{f"efficientnet_lite{n}": Peer(timms(f"tf_efficientnet_lite{n}")) for n in range(5)},
}

_MULTI_MAX = (
    "ir_r1_k3_s2_e3_c32",
    "ir_r1_k5_s2_e6_c64 ir_r2_k3_s1_e2_c64",
    "ir_r1_k5_s2_e6_c128 ir_r1_k3_s1_e4_c128 ir_r2_k3_s1_e3_c128 {} ir_r1_k3_s1_e3_c128",
)
_MULTI_AVG = (
    "ir_r1_k3_s2_e3_c32 ir_r1_k3_s1_e2_c32",
    "ir_r1_k5_s2_e5_c64 ir_r1_k3_s1_e3_c64 ir_r1_k3_s1_e2_c64 ir_r1_k3_s1_e3_c64",
    "ir_r1_k5_s2_e6_c128 ir_r3_k3_s1_e3_c128 ir_r1_k3_s1_e6_c160 ir_r1_k3_s1_e4_c160",
)
_MULTI_MAX_160 = (
    "ir_r1_k3_s2_e6_c160 ir_r1_k5_s1_e4_c160 ir_r1_k3_s1_e5_c160 ir_r1_k5_s1_e4_c160",
    "cn_r1_k1_s1_c960",
)
_MULTI_AVG_192 = ("ir_r1_k3_s2_e6_c192 ir_r3_k5_s1_e4_c192", "cn_r1_k1_s1_c960")
_RESIDUAL = "ir_r1_k3_s1_e6_c128"
_SMALL = (
    "ds_r1_k3_s2_e1_c16_se0.25_nre",
    "ir_r1_k3_s2_e4.5_c24_nre ir_r1_k3_s1_e3.67_c24_nre",
    "ir_r1_k5_s2_e4_c40_se0.25 ir_r2_k5_s1_e6_c40_se0.25 ir_r2_k5_s1_e3_c48_se0.25",
)


def _multi_max(middle: str, *rest: str) -> tuple[str, ...]:
    return (*(stage.format(middle) for stage in _MULTI_MAX), *rest)


_multi = partial(rows, tail="v4", stem_size=32, num_features=1280)
_small = partial(rows, tail="v3", act="hard_swish", stem_size=16, num_features=1024)

ROWS = {
    "mn_multi_max": Peer(_multi(*_multi_max(_RESIDUAL, *_MULTI_MAX_160))),
    "mn_multi_max_150": Peer(
        partial(rows, tail="v4", stem_size=32, num_features=1920)(
            *_multi_max(_RESIDUAL, *_MULTI_MAX_160), width=1.5
        )
    ),
    "mn_multi_max_tunas": Peer(
        rows(
            *_multi_max(f"{_RESIDUAL}_noskip", *_MULTI_MAX_160),
            tail="v3",
            stem_size=32,
            num_features=1280,
        )
    ),
    "mn_multi_max_seg": Peer(
        _multi(
            *_multi_max(_RESIDUAL),
            "ir_r1_k3_s2_e6_c160 ir_r1_k5_s1_e2_c96 ir_r1_k3_s1_e4_c96 ir_r1_k5_s1_e3.33333_c96",
            "cn_r1_k1_s1_c448",
        )
    ),
    "mn_multi_avg": Peer(_multi(*_MULTI_AVG, *_MULTI_AVG_192)),
    "mn_multi_avg_150": Peer(
        partial(rows, tail="v4", stem_size=32, num_features=1920)(
            *_MULTI_AVG, *_MULTI_AVG_192, width=1.5
        )
    ),
    "mn_multi_avg_seg": Peer(
        _multi(
            *_MULTI_AVG,
            "ir_r1_k3_s2_e6_c192 ir_r1_k5_s1_e2_c96 ir_r2_k5_s1_e4_c96",
            "cn_r1_k1_s1_c448",
        )
    ),
    "mn_edgetpu_v2_tiny": Peer(
        rows(
            "cn_r1_k1_s1_c16",
            "er_r1_k3_s2_e8_c32 er_r1_k3_s1_e4_gs64_c32",
            "er_r1_k3_s2_e8_gs64_c48 er_r3_k3_s1_e4_gs64_c48",
            "er_r1_k3_s2_e8_gs64_c80 ir_r3_k3_s1_e4_c80",
            "ir_r1_k3_s1_e8_c112 ir_r3_k3_s1_e4_c112",
            "ir_r1_k3_s2_e8_c160 ir_r3_k3_s1_e4_c160",
            "ir_r1_k3_s1_e8_c192",
            stem_size=32,
            stem_kernel_size=5,
            num_features=1280,
        ),
        (ACTIVE,),
    ),
    # timm rounds the expanded widths to multiples of 8, also where the channels are as written.
    "mnasnet_d1": Peer(
        rows(
            "ir_r1_k3_s1_e9_c24",
            "ir_r3_k3_s2_e9_c36",
            "ir_r5_k3_s2_e9_c48",
            "ir_r4_k5_s2_e9_c96 ir_r5_k7_s1_e3_c96",
            "ir_r3_k3_s2_e9_c80",
            "ir_r1_k7_s1_e6_c320_noskip",
            width=None,
        ),
        (("round 1", "round 8"), ("o36", "o36!")),
    ),
    "mnasnet_d1_320": Peer(
        rows(
            "ir_r3_k5_s1_e6_c24",
            "ir_r4_k7_s2_e9_c36",
            "ir_r5_k5_s2_e9_c48",
            "ir_r5_k7_s2_e6_c96",
            "ir_r5_k3_s1_e9_c144",
            "ir_r5_k5_s2_e6_c160",
            "ir_r1_k7_s1_e9_c320",
            width=None,
        ),
        (("round 1", "round 8"), ("o36", "o36!")),
    ),
    "mnv3_large_det": Peer(
        rows(
            "ds_r1_k3_s1_e1_c16_nre",
            "ir_r1_k3_s2_e4_c24_nre ir_r1_k3_s1_e3_c24_nre",
            "ir_r3_k5_s2_e3_c40_se0.25_nre",
            "ir_r1_k3_s2_e6_c80 ir_r1_k3_s1_e2.5_c80 ir_r2_k3_s1_e2.3_c80",
            "ir_r2_k3_s1_e6_c112_se0.25",
            "ir_r3_k5_s2_e6_c80_se0.25",
            "cn_r1_k1_s1_c480",
            tail="v3",
            act="hard_swish",
            stem_size=16,
            num_features=1280,
        )
    ),
    "mnv3_small_det": Peer(_small(*_SMALL, "ir_r3_k5_s2_e6_c48_se0.25", "cn_r1_k1_s1_c288")),
    "mnv3_small_reduced": Peer(
        _small(
            *_SMALL,
            "ir_r1_k5_s2_e3_c48_se0.25 ir_r2_k5_s1_e6_c48_se0.25",
            "cn_r1_k1_s1_c288",
        )
    ),
    "mnv4_conv_m_seg": Peer(
        rows(
            "er_r1_k3_s2_e4_c48",
            "uir_r1_a3_k5_s2_e4_c80 uir_r1_a3_k3_s1_e2_c80",
            "uir_r1_a3_k5_s2_e6_c160 uir_r2_a3_k3_s1_e4_c160 uir_r1_a3_k5_s1_e4_c160 "
            "uir_r1_a3_k3_s1_e4_c160 uir_r2_a3_k0_s1_e4_c160",
            "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c128 uir_r2_a3_k5_s1_e4_c128 "
            "uir_r1_a3_k0_s1_e4_c128 uir_r1_a3_k5_s1_e2_c128 uir_r1_a5_k5_s1_e4_c128 "
            "uir_r1_a5_k0_s1_e2_c128",
            "cn_r1_k1_s1_c448",
            tail="v4",
            act="relu6",
            stem_size=32,
            num_features=1280,
        )
    ),
    "mnv4_hybrid_m_paper": Peer(
        rows(
            "er_r1_k3_s2_e4_c48",
            "uir_r1_a3_k5_s2_e4_c80 uir_r1_a3_k3_s1_e2_c80",
            "uir_r1_a3_k5_s2_e6_c160 uir_r2_a3_k3_s1_e4_c160 uir_r1_a3_k5_s1_e4_c160 "
            "mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a3_k3_s1_e4_c160 "
            "mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a3_k0_s1_e4_c160 "
            "mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a0_k0_s1_e4_c160 "
            "mqa_r1_k3_h4_s1_v2_d64_c160 uir_r1_a3_k0_s1_e4_c160",
            "uir_r1_a5_k5_s2_e6_c256 uir_r1_a5_k5_s1_e4_c256 uir_r2_a3_k5_s1_e4_c256 "
            "uir_r1_a0_k0_s1_e4_c256 uir_r1_a3_k0_s1_e4_c256 uir_r1_a3_k5_s1_e2_c256 "
            "mqa_r1_k3_h4_s1_d64_c256 uir_r1_a5_k5_s1_e4_c256 "
            "mqa_r1_k3_h4_s1_d64_c256 uir_r1_a0_k0_s1_e4_c256 "
            "mqa_r1_k3_h4_s1_d64_c256 uir_r1_a0_k0_s1_e4_c256 "
            "mqa_r1_k3_h4_s1_d64_c256 uir_r1_a5_k0_s1_e4_c256",
            "cn_r1_k1_s1_c960",
            tail="v4",
            stem_size=32,
            num_features=1280,
            layer_scale_init_value=1e-5,
        )
    ),
}

# torchvision pads as PyTorch does. Its norms' epsilon is 1e-5, but in V3 and EfficientNet-B5 to B7.
_EPS = ("eps=1e-3", "eps=1e-5")
TORCHVISION = {
    "mnv2": Peer(torchvisions("mobilenet_v2"), (SYMMETRIC, _EPS)),
    "mnv2_050": Peer(torchvisions("mobilenet_v2", width_mult=0.5), (SYMMETRIC, _EPS)),
    "mnv3_large": Peer(torchvisions("mobilenet_v3_large"), (SYMMETRIC,)),
    "mnv3_small": Peer(torchvisions("mobilenet_v3_small"), (SYMMETRIC,)),
    # It halves the last convolution too.
    "mnv3_large_det": Peer(
        torchvisions_reduced("mobilenet_v3_large", 640), (SYMMETRIC, ("o1280+", "o640"))
    ),
    "mnv3_small_det": Peer(
        torchvisions_reduced("mobilenet_v3_small", 512), (SYMMETRIC, ("o1024+", "o512"))
    ),
    "mnasnet_b1": Peer(torchvisions("mnasnet1_0"), (SYMMETRIC, _EPS)),
    "mnasnet_b1_050": Peer(torchvisions("mnasnet0_5"), (SYMMETRIC, _EPS)),
    "mnasnet_b1_075": Peer(torchvisions("mnasnet0_75"), (SYMMETRIC, _EPS)),
    "mnasnet_b1_130": Peer(torchvisions("mnasnet1_3"), (SYMMETRIC, _EPS)),
    **{
        f"efficientnet_b{n}": Peer(
            torchvisions(f"efficientnet_b{n}"), (SYMMETRIC, _EPS) if n < 5 else (SYMMETRIC,)
        )
        for n in range(8)
    },
}

PEERS = [
    pytest.param(name, peer, id=f"{library}-{name}")
    for library, table in (("timm", TIMM), ("rows", ROWS), ("torchvision", TORCHVISION))
    for name, peer in table.items()
]


# ------------------------------------------------------------------------------------- comparing


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order: the comparison does not hang on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def enliven(module: nn.Module, images: torch.Tensor) -> None:
    """Random values wherever an initialisation is constant, and the statistics of real batches."""
    torch.manual_seed(7)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
            part.momentum = 1.0
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
            nn.init.normal_(part.bias, std=0.2)
        elif isinstance(part, nn.Conv2d) and part.bias is not None:
            nn.init.normal_(part.bias, std=0.2)
        elif hasattr(part, "gamma"):
            nn.init.uniform_(part.gamma, 0.5, 1.5)
        elif isinstance(part, nn.Dropout):
            part.p = 0.0
        elif hasattr(part, "rate"):
            part.rate = 0.0
    with torch.no_grad():
        module.train()(images)
    module.eval()


def roles(state: dict[str, torch.Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    """The last words of the keys and the shapes; a 1x1 convolution is a matrix."""
    return [
        (key.rpartition(".")[2], tuple(size for size in tensor.shape if size > 1))
        for key, tensor in state.items()
    ]


class OtherTensors(Exception):
    """Two networks differ already in the shapes of their weights."""


def with_tensors(peer: Peer, state: dict[str, torch.Tensor]) -> nn.Module:
    """The peer's network, built without memory, with our tensors."""
    with torch.device("meta"):
        theirs = peer.build().eval()
    other = theirs.state_dict()
    if roles(state) != roles(other):
        raise OtherTensors
    for (key, tensor), ours in zip(list(other.items()), state.values(), strict=True):
        other[key] = ours.view(tensor.shape)
    theirs.load_state_dict(other, assign=True)
    return theirs


def changed(name: str, changes: tuple[tuple[str, str], ...]) -> archdsl.Arch:
    """A member with lines of its text changed; each change must find something."""
    member = find_member(name)
    assert member is not None
    text = re.sub(" +", " ", published_source(member.file).text)  # columns are no matter here
    for written, other in changes:
        assert written in text, written
        text = text.replace(written, other)
    return archdsl.parse(text, variant=member.variant)


def difference(ours: nn.Module, theirs: nn.Module, image: torch.Tensor) -> float:
    """The largest difference of two networks' logits, as a share of the largest logit."""
    with torch.inference_mode():
        logits, expected = ours(image), theirs(image)
    largest = float(expected.abs().max())
    assert largest > 1, "logits without life prove nothing"
    return float((logits - expected).abs().max()) / largest


def compared(arch: archdsl.Arch, peer: Peer) -> float:
    """The largest difference at two sizes, where padding falls differently."""
    torch.manual_seed(1)
    ours = archdsl.compile(arch, to="torch").load()
    enliven(ours, torch.randn(2, 3, peer.side, peer.side))
    theirs = with_tensors(peer, ours.state_dict())
    sizes = ((peer.side, peer.side), (97, 131))
    return max(difference(ours, theirs, torch.randn(1, 3, *size)) for size in sizes)


@pytest.mark.parametrize(("name", "peer"), PEERS)
def test_equals(name: str, peer: Peer) -> None:
    assert compared(changed(name, peer.changes), peer) <= TOLERANCE


def test_every_member_has_a_peer() -> None:
    assert {member.name for member in members()} == {*TIMM, *ROWS}


@pytest.mark.parametrize("name", [name for name, peer in {**TIMM, **ROWS}.items() if peer.changes])
def test_a_departure_is_one(name: str) -> None:
    """Without its changes the member is another network than the peer's."""
    with suppress(OtherTensors):
        assert compared(changed(name, ()), {**TIMM, **ROWS}[name]) > 100 * TOLERANCE


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("pad same", "pad symmetric"),
        ("eps=1e-3", "eps=1e-5"),
        ("act relu6", "act relu"),
        ("r2_k3_s22_e6_o24", "r2_k3_s22_e6_o24_noskip"),
    ],
)
def test_a_wrong_line_is_seen(written: str, wrong: str) -> None:
    """The comparison is tight enough: one wrong attribute shows."""
    assert compared(changed("mnv2", ((written, wrong),)), TIMM["mnv2"]) > 10 * TOLERANCE
