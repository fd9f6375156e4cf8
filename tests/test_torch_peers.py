"""The emitted modules against other implementations, with random weights in every tensor.

Both hold their tensors in the order of the forward pass, so the n-th of one is the n-th of the
other. peer_networks.py has the networks of timm and torchvision, and what makes them of ours; here
it is proved in two ways. As the library makes it, a network is ours with the changes of its line.
And with timm's padding and epsilon set right, its networks prove that the members are the official
ones; those that timm has no name for are made by its generators at another width, or of its blocks
by the rows of the catalogue, written a second time in timm's notation.
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
from peer_networks import (
    ACTIVE,
    TIMM_PEERS,
    TORCHVISION_PEERS,
    Change,
    Peer,
    Settings,
    as_published,
    changed,
    fixed_stem,
    fixed_tail,
    text_of,
)
from torch import nn

import archdsl
from archdsl.library import members

pytestmark = pytest.mark.peers
TOLERANCE = 1e-5
SIDE = 128


# ------------------------------------------------------------------------- the official networks


@dataclass(frozen=True)
class Official:
    """A network with the official padding and epsilon set on it, and what it still departs in."""

    build: Callable[[], nn.Module]
    changes: tuple[Change, ...] = ()


def timm_models() -> ModuleType:
    return sys.modules["timm"].models  # type: ignore[no-any-return]


def named(peer: Peer) -> Official:
    """A network of timm's, by name."""
    eps = Settings.of(text_of(peer.member)).eps
    return Official(partial(peer.build, pad_type="same", bn_eps=eps), peer.changes)


def scaled(generator: str, name: str, width: float) -> Callable[[], nn.Module]:
    """A network of timm's at a width that it has no name for."""

    def build() -> nn.Module:
        models = timm_models()
        file = models.mobilenetv3 if generator[-2:] in ("v3", "v4") else models.efficientnet
        model: nn.Module = getattr(file, f"_gen_{generator}")(
            name, width, pad_type="same", bn_eps=1e-3
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


# ----------------------------------------------------------------------------- what differs where

# The first that timm has for a member.
NAMED = {peer.member: named(peer) for peer in reversed(TIMM_PEERS)}

SCALED = {
    **{
        f"mnv1_{width:03.0f}": Official(scaled("mobilenet_v1", "mobilenetv1_100", width / 100))
        for width in (75, 50, 25)
    },
    **{
        f"mnv2_{width:03.0f}": Official(scaled("mobilenet_v2", "mobilenetv2_100", width / 100))
        for width in (130, 150, 200)
    },
    **{
        f"mnv3_{size}_{width:03.0f}": Official(
            scaled("mobilenet_v3", f"mobilenetv3_{size}_100", width / 100), (fixed_stem(16),)
        )
        for size, width in (("large", 35), ("large", 50), ("small", 35))
    },
    "mnv3_large_125": Official(
        scaled("mobilenet_v3", "mobilenetv3_large_100", 1.25), (fixed_tail(1280),)
    ),
    "mnv3_small_125": Official(
        scaled("mobilenet_v3", "mobilenetv3_small_100", 1.25), (fixed_tail(1024),)
    ),
    "mn_edgetpu_075": Official(
        scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", 0.75), (ACTIVE,)
    ),
    # The wide ones, and the narrow head: timm keeps 1280 features at every width.
    "mn_edgetpu_075_960": Official(
        scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", 0.75),
        (ACTIVE, ("conv_k1_o1280", "conv_k1_o1280!")),
    ),
    **{
        f"mn_edgetpu_{width:03.0f}": Official(
            scaled("mobilenet_edgetpu", "mobilenet_edgetpu_100", width / 100),
            (ACTIVE, fixed_tail(1280)),
        )
        for width in (125, 150, 175)
    },
    "mnasnet_a1_035": Official(scaled("mnasnet_a1", "semnasnet_100", 0.35)),
    "mnasnet_b1_035": Official(scaled("mnasnet_b1", "mnasnet_100", 0.35)),
    "mnasnet_b1_130": Official(scaled("mnasnet_b1", "mnasnet_100", 1.3)),
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
    "mn_multi_max": Official(_multi(*_multi_max(_RESIDUAL, *_MULTI_MAX_160))),
    "mn_multi_max_150": Official(
        partial(rows, tail="v4", stem_size=32, num_features=1920)(
            *_multi_max(_RESIDUAL, *_MULTI_MAX_160), width=1.5
        )
    ),
    "mn_multi_max_tunas": Official(
        rows(
            *_multi_max(f"{_RESIDUAL}_noskip", *_MULTI_MAX_160),
            tail="v3",
            stem_size=32,
            num_features=1280,
        )
    ),
    "mn_multi_max_seg": Official(
        _multi(
            *_multi_max(_RESIDUAL),
            "ir_r1_k3_s2_e6_c160 ir_r1_k5_s1_e2_c96 ir_r1_k3_s1_e4_c96 ir_r1_k5_s1_e3.33333_c96",
            "cn_r1_k1_s1_c448",
        )
    ),
    "mn_multi_avg": Official(_multi(*_MULTI_AVG, *_MULTI_AVG_192)),
    "mn_multi_avg_150": Official(
        partial(rows, tail="v4", stem_size=32, num_features=1920)(
            *_MULTI_AVG, *_MULTI_AVG_192, width=1.5
        )
    ),
    "mn_multi_avg_seg": Official(
        _multi(
            *_MULTI_AVG,
            "ir_r1_k3_s2_e6_c192 ir_r1_k5_s1_e2_c96 ir_r2_k5_s1_e4_c96",
            "cn_r1_k1_s1_c448",
        )
    ),
    "mn_edgetpu_v2_tiny": Official(
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
    "mnasnet_d1": Official(
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
    "mnasnet_d1_320": Official(
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
    "mnv3_large_det": Official(
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
    "mnv3_small_det": Official(_small(*_SMALL, "ir_r3_k5_s2_e6_c48_se0.25", "cn_r1_k1_s1_c288")),
    "mnv3_small_reduced": Official(
        _small(
            *_SMALL,
            "ir_r1_k5_s2_e3_c48_se0.25 ir_r2_k5_s1_e6_c48_se0.25",
            "cn_r1_k1_s1_c288",
        )
    ),
    "mnv4_conv_m_seg": Official(
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
    "mnv4_hybrid_m_paper": Official(
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

OFFICIAL = {**NAMED, **SCALED, **ROWS}

# A comparison takes a second: of the networks whose settings alone differ, one of each kind.
SAMPLE = {
    *("mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_medium"),
    *("mnasnet_100", "efficientnet_b0", "tf_efficientnet_lite0"),
}
AS_IS = [
    peer
    for peer in (*TIMM_PEERS, *TORCHVISION_PEERS)
    if peer.changes or peer.library == "torchvision" or peer.name in SAMPLE
]


def each(peers: list[Peer]) -> list[Any]:
    return [pytest.param(peer, id=f"{peer.library}-{peer.name}") for peer in peers]


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


def with_tensors(build: Callable[[], nn.Module], state: dict[str, torch.Tensor]) -> nn.Module:
    """The peer's network, built without memory, with our tensors."""
    with torch.device("meta"):
        theirs = build()
    other = theirs.state_dict()
    if roles(state) != roles(other):
        raise OtherTensors
    for (key, tensor), ours in zip(list(other.items()), state.values(), strict=True):
        other[key] = ours.view(tensor.shape)
    theirs.load_state_dict(other, assign=True)
    return theirs.eval()


def difference(ours: nn.Module, theirs: nn.Module, image: torch.Tensor) -> float:
    """The largest difference of two networks' logits, as a share of the largest logit."""
    with torch.inference_mode():
        logits, expected = ours(image), theirs(image)
    largest = float(expected.abs().max())
    assert largest > 1, "logits without life prove nothing"
    return float((logits - expected).abs().max()) / largest


def compared(arch: archdsl.Arch, build: Callable[[], nn.Module]) -> float:
    """The largest difference at two sizes, where padding falls differently."""
    torch.manual_seed(1)
    ours = archdsl.compile(arch, to="torch").load()
    enliven(ours, torch.randn(2, 3, SIDE, SIDE))
    theirs = with_tensors(build, ours.state_dict())
    sizes = ((SIDE, SIDE), (97, 131))
    return max(difference(ours, theirs, torch.randn(1, 3, *size)) for size in sizes)


@pytest.mark.parametrize("name", OFFICIAL)
def test_a_member_is_the_official_network(name: str) -> None:
    official = OFFICIAL[name]
    assert compared(changed(name, official.changes), official.build) <= TOLERANCE


def test_every_member_is_compared() -> None:
    assert {member.name for member in members()} == {*OFFICIAL}


@pytest.mark.parametrize("name", [name for name, peer in OFFICIAL.items() if peer.changes])
def test_a_departure_is_one(name: str) -> None:
    """Without its changes the member is another network than the peer's."""
    with suppress(OtherTensors):
        assert compared(changed(name, ()), OFFICIAL[name].build) > 100 * TOLERANCE


@pytest.mark.parametrize("peer", each(AS_IS))
def test_equals_as_the_library_makes_it(peer: Peer) -> None:
    assert compared(as_published(peer), peer.build) <= TOLERANCE


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
    wrongly = changed("mnv2", ((written, wrong),))
    assert compared(wrongly, OFFICIAL["mnv2"].build) > 10 * TOLERANCE


# timm's networks that the language cannot say: the tensors of the plain ones, pooled in between.
ANTI_ALIASED = {
    "mobilenetv4_conv_aa_medium": "mobilenetv4_conv_medium",
    "mobilenetv4_conv_blur_medium": "mobilenetv4_conv_medium",
    "mobilenetv4_conv_aa_large": "mobilenetv4_conv_large",
}


def test_every_mobilenet_and_mnasnet_of_timm_is_compared(timm: ModuleType) -> None:
    names = [
        name
        for module in ("efficientnet", "mobilenetv3")
        for name in timm.list_models(module=module)
        if re.match(r"(tf_)?(mobilenet|(se)?mnasnet|efficientnet_(b[0-7]|lite[0-4])$)", name)
    ]
    assert {*names} == {*(peer.name for peer in TIMM_PEERS), *ANTI_ALIASED}


@pytest.mark.parametrize("name", ANTI_ALIASED)
def test_an_anti_aliased_network_has_the_tensors_of_the_plain_one(
    name: str, timm: ModuleType
) -> None:
    with torch.device("meta"):
        found, plain = (
            timm.create_model(which).state_dict() for which in (name, ANTI_ALIASED[name])
        )
    shapes = [{key: tensor.shape for key, tensor in state.items()} for state in (found, plain)]
    assert shapes[0] == shapes[1]


# -------------------------------------------------------------------------------------- counting


def counted(network: nn.Module, side: tuple[int, int]) -> tuple[int, int]:
    """The parameters of a network on torch's meta device, and the MACs of its convolutions and
    linear layers."""
    macs = 0

    def count(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal macs
        weight = layer.weight
        positions = output.numel() // weight.shape[0]  # type: ignore[operator]
        macs += positions * weight.numel()  # type: ignore[operator]

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network(torch.empty(1, 3, *side, device="meta"))
    return sum(parameter.numel() for parameter in network.parameters()), macs


def settings(network: nn.Module) -> Settings:
    """The settings that a network has, read from its layers."""
    norms = {(m.eps, m.momentum) for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    strided = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    same = {type(conv).__name__ == "Conv2dSame" for conv in strided}
    rates = {m.p for m in network.modules() if type(m) is nn.Dropout}
    ((eps, momentum),), (padded,) = norms, same
    (rate,) = rates or {getattr(network, "drop_rate", 0.0)}
    assert momentum is not None
    return Settings("same" if padded else "symmetric", eps, round(momentum, 12), rate)


@pytest.mark.parametrize("peer", each([*TIMM_PEERS, *TORCHVISION_PEERS]))
def test_counts_and_settings(peer: Peer) -> None:
    """What docs/differences.md prints, counted by archdsl, is true of the library's own network."""
    with torch.device("meta"):
        network = peer.build().eval()
    assert settings(network) == peer.settings
    arch = as_published(peer)
    cost = arch.cost()
    assert counted(network, arch.input[:2]) == (cost.params, cost.macs - cost.macs_attention)
