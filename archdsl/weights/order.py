"""The order in which a checkpoint's layers run, as far as their names tell it.

A safetensors file sorts its tensors by name, and Keras counts the layers of each class by
themselves, so the order of a file is rarely that of the network.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

# Names of siblings in the order of the forward pass, each line from one library's source. A line
# holds only for siblings that all stand in it, and the first such line holds.
_SIBLINGS = tuple(
    line.split()
    for line in (
        # timm: networks, blocks, their parts, and attention
        "conv_stem bn1 blocks conv_head bn2 norm_head classifier",
        "conv_dw bn1 se conv_pw bn2",
        "conv_pw bn1 conv_dw bn2 se conv_pwl bn3",
        "conv_exp bn1 se conv_pwl bn2",
        "conv bn1",
        "dw_start pw_exp dw_mid pw_proj dw_end layer_scale",
        "conv bn",
        "conv_reduce conv_expand",
        "norm attn layer_scale",
        "query key value output",
        "down_conv norm proj",
        # torchvision
        "features classifier",
        "layers classifier",
        "fc1 fc2",
        # efficientnet_pytorch, from which many Lite checkpoints come
        "_conv_stem _bn0 _blocks _conv_head _bn1 _fc",
        "_expand_conv _bn0 _depthwise_conv _bn1 _se_reduce _se_expand _project_conv _bn2",
        # ours
        "stem stages head",
        "expand depthwise se project",
        "start expand middle project layer_scale",
        "depthwise pointwise",
        "norm query key_reduce key value_reduce value output layer_scale",
        "reduce expand",
        "conv norm",
    )
)

Rank = tuple[tuple[int, int], ...]
"""For each part of a path the chain it stands in and its place there. Ranks sort all paths; two
are known to lie so only if they first differ within one chain."""


def ranks(paths: Iterable[tuple[str, ...]], in_order: bool) -> dict[tuple[str, ...], Rank]:
    """The order of layers, from the parts of their names.

    Siblings are ordered by a library's known names, by their numbers where the names are else the
    same, and, if the file keeps the order in which they were made (`in_order`), by that.
    """
    children: dict[tuple[str, ...], dict[str, None]] = defaultdict(dict)
    given = list(paths)
    for path in given:
        for depth, part in enumerate(path):
            children[path[:depth]][part] = None
    places = {parent: _chained(list(names), in_order) for parent, names in children.items()}
    return {
        path: tuple(places[path[:depth]][part] for depth, part in enumerate(path)) for path in given
    }


def _chained(names: list[str], in_order: bool) -> dict[str, tuple[int, int]]:
    """The chain, and the place in it, of each of some siblings."""
    for line in _SIBLINGS:
        if set(names) <= set(line):
            return {name: (0, line.index(name)) for name in names}
    chains: dict[str, list[tuple[tuple[int, ...], str]]] = defaultdict(list)
    for name in names:
        stem, numbers = _numbered(name)
        chains[stem].append((numbers, name))
    if in_order and all(chain == sorted(chain) for chain in chains.values()):
        return {name: (0, place) for place, name in enumerate(names)}
    found = {}
    number = 0
    for stem in sorted(chains):
        last: tuple[int, ...] | None = None
        for place, (numbers, name) in enumerate(sorted(chains[stem])):
            if numbers == last:
                # `1` and `01`: nobody knows.
                number += 1
            found[name] = number, place
            last = numbers
        number += 1
    return found


def _numbered(name: str) -> tuple[str, tuple[int, ...]]:
    """A name without its numbers, and the numbers; one at the end may be missing, for zero."""
    match = re.fullmatch(r"(.*?)_?([0-9]{0,9})", name, re.S)
    assert match is not None
    inner = re.compile(r"[0-9]{1,9}")
    numbers = [*inner.findall(match[1]), match[2] or "0"]
    return inner.sub("#", match[1]), tuple(map(int, numbers))


def known(one: Rank, other: Rank) -> bool:
    """Whether it is known which of two comes first."""
    for (chain, place), (other_chain, other_place) in zip(one, other, strict=False):
        if (chain, place) != (other_chain, other_place):
            return chain == other_chain
    return False
