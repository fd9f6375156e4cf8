"""The emitted modules against other implementations, with random weights in every tensor.

Both hold their tensors in the order of the forward pass, so the n-th of one is the n-th of the
other. The catalogued departures are undone on the side of timm: its padding, its norms' epsilon,
and the residual that it gives MnasNet-small's first block.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import nn

import archdsl

pytestmark = pytest.mark.peers
TOLERANCE = 1e-5

# name: timm's name, the epsilon of its norms
PEERS = {
    "mnv1": ("mobilenetv1_100", 1e-3),
    "mnv2": ("mobilenetv2_100", 1e-3),
    "mnv2_140": ("mobilenetv2_140", 1e-3),
    "mnv3_large": ("tf_mobilenetv3_large_100", 1e-3),
    "mnv3_large_075": ("tf_mobilenetv3_large_075", 1e-3),
    "mnv3_small": ("tf_mobilenetv3_small_100", 1e-3),
    "mnv4_conv_s": ("mobilenetv4_conv_small", 1e-6),
    "mnv4_conv_m": ("mobilenetv4_conv_medium", 1e-3),
    "mnv4_hybrid_m": ("mobilenetv4_hybrid_medium", 1e-3),
    "mnasnet_a1": ("semnasnet_100", 1e-3),
    "mnasnet_b1": ("mnasnet_100", 1e-3),
    "mnasnet_small": ("mnasnet_small", 1e-3),
}


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
    return [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in state.items()]


def peer_of(name: str, timm: ModuleType, state: dict[str, torch.Tensor]) -> nn.Module:
    """timm's network with our tensors."""
    peer, eps = PEERS[name]
    theirs: nn.Module = timm.create_model(peer, pad_type="same", bn_eps=eps).eval()
    if name == "mnasnet_small":
        theirs.blocks[0][0].has_skip = False
    other = theirs.state_dict()
    assert roles(state) == roles(other)
    theirs.load_state_dict(dict(zip(other, state.values(), strict=True)))
    return theirs


def difference(ours: nn.Module, theirs: nn.Module, image: torch.Tensor) -> float:
    """The largest difference of two networks' logits, as a share of the largest logit."""
    with torch.inference_mode():
        logits, expected = ours(image), theirs(image)
    largest = float(expected.abs().max())
    assert largest > 1, "logits without life prove nothing"
    return float((logits - expected).abs().max()) / largest


@pytest.mark.parametrize("name", PEERS)
def test_equals_timm(name: str, timm: ModuleType) -> None:
    arch = archdsl.load(name)
    height, width, _ = arch.input
    torch.manual_seed(1)
    ours = archdsl.compile(arch, to="torch").load()
    enliven(ours, torch.randn(2, 3, height, width))
    theirs = peer_of(name, timm, ours.state_dict())
    for size in ((height, width), (97, 131)):
        assert difference(ours, theirs, torch.randn(1, 3, *size)) <= TOLERANCE


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("pad same", "pad symmetric"),
        ("eps=1e-3", "eps=1e-5"),
        ("act relu6", "act relu"),
        ("r2_k3_s22_e6_o24", "r2_k3_s22_e6_o24_noskip"),
    ],
)
def test_a_wrong_line_is_seen(written: str, wrong: str, timm: ModuleType) -> None:
    """The comparison is tight enough: one wrong attribute shows."""
    right = " ".join(archdsl.load("mnv2").to_text().split())
    assert right.count(written) == 1
    torch.manual_seed(1)
    images = torch.randn(2, 3, 224, 224)
    ours = archdsl.compile(archdsl.parse(right.replace(written, wrong)), to="torch").load()
    enliven(ours, images)
    theirs = peer_of("mnv2", timm, ours.state_dict())
    assert difference(ours, theirs, images) > 10 * TOLERANCE
