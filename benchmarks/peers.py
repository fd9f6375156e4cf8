"""The peers: timm builds the network, torchinfo, ptflops or torch itself counts it.

Needs what `requirements-peers.txt` here and in tests/ name; a peer that is missing is left out, and
the report says why.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

# torchvision._meta_registrations fails on import when torchvision's compiled operators do not match
# the torch that is installed (as after `pip install --no-deps`). None of them is needed here.
SHIM = "torchvision._meta_registrations"


def load(name: str) -> Any:
    """A peer's module.

    Raises:
        ImportError: it is not installed, or it does not import.
    """
    sys.modules.setdefault(SHIM, types.ModuleType(SHIM))
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever stops it, its line says so and the rest is measured
        raise ImportError(f"{name} does not import: {error}") from error


class Counted(NamedTuple):
    params: int
    macs: int


class Peer(NamedTuple):
    """A way to a network's cost: `count` builds nothing, it counts what `build` gives."""

    name: str
    build: Callable[[], Any]
    count: Callable[[Any], Counted]
    counts: str
    """What its MACs are, in words."""


def timm_network(name: str) -> Any:
    """A network of timm, its weights drawn as for training (what `create_model` does)."""
    return load("timm").create_model(name).eval()


def timm_network_meta(name: str) -> Any:
    """The same without memory for its weights and without drawing them: torch's `meta` device."""
    with load("torch").device("meta"):
        return timm_network(name)


def by_torchinfo(net: Any, size: int) -> Counted:
    """torchinfo runs the network with hooks on all modules."""
    device = next(net.parameters()).device.type
    found = load("torchinfo").summary(net, (1, 3, size, size), device=device, verbose=0)
    return Counted(found.total_params, found.total_mult_adds)


def by_ptflops(net: Any, size: int, backend: str) -> Counted:
    """ptflops runs the network with hooks (`pytorch`) or with torch's operators traced (`aten`)."""
    macs, params = load("ptflops").get_model_complexity_info(
        net,
        (3, size, size),
        as_strings=False,
        print_per_layer_stat=False,
        verbose=False,
        backend=backend,
    )
    return Counted(params, macs)


def by_torch(net: Any, size: int) -> Counted:
    """torch's own counter of floating point operations, two to a MAC."""
    torch = load("torch")
    counter = load("torch.utils.flop_counter").FlopCounterMode(display=False)
    device = next(net.parameters()).device
    with torch.no_grad(), counter:
        net(torch.empty(1, 3, size, size, device=device))
    params = sum(parameter.numel() for parameter in net.parameters())
    return Counted(params, counter.get_total_flops() // 2)


def peers(name: str, size: int) -> tuple[list[Peer], dict[str, str]]:
    """The peers that import, and for each that does not the reason."""

    def build() -> Any:
        return timm_network(name)

    def build_meta() -> Any:
        return timm_network_meta(name)

    def torchinfo(net: Any) -> Counted:
        return by_torchinfo(net, size)

    def ptflops(net: Any) -> Counted:
        return by_ptflops(net, size, "pytorch")

    def ptflops_aten(net: Any) -> Counted:
        return by_ptflops(net, size, "aten")

    def torch_counter(net: Any) -> Counted:
        return by_torch(net, size)

    linear_bias = "convolutions, linear; the classifier's bias as 1,000 more"
    everything = "convolutions, linear, biases; norms, activations and pools too"
    all_peers = {
        "torchinfo": Peer("timm + torchinfo", build, torchinfo, linear_bias),
        "ptflops": Peer("timm + ptflops", build, ptflops, everything),
        "ptflops (aten)": Peer("timm + ptflops (aten)", build, ptflops_aten, linear_bias),
        "torchinfo (meta)": Peer("timm on meta + torchinfo", build_meta, torchinfo, linear_bias),
        "torch (meta)": Peer(
            "timm on meta + torch FlopCounterMode",
            build_meta,
            torch_counter,
            "convolutions and linear",
        ),
    }
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for key, peer in all_peers.items():
        try:
            load("timm")
            load(key.split()[0])
        except ImportError as error:
            missing[peer.name] = str(error)
        else:
            found.append(peer)
    return found, missing
