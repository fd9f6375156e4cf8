"""What makes two networks the same: their operators, however their texts are written."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import lru_cache

from archdsl.compiler import Arch, Run
from archdsl.ir.node import INPUT, Fragment
from archdsl.ir.ops import Dropout, Op, Shape

# What training sets, and no search chooses: networks that differ in it alone are one.
_OF_TRAINING = frozenset({"eps", "momentum", "init"})


@lru_cache(maxsize=1 << 14)
def _said(op: Op) -> str:
    values = (f"{f.name}={getattr(op, f.name)!r}" for f in fields(op) if f.name not in _OF_TRAINING)
    return f"{op.name}({','.join(values)})"


def tokens(fragment: Fragment) -> Iterator[str]:
    """A word for each operator of a block but dropout, with how far back its inputs are.

    Blocks form a chain, so the words of a network are those of its blocks, and say nothing of
    where one ends.
    """
    places = {INPUT: -1}
    place = 0
    for node in fragment.nodes:
        if isinstance(node.op, Dropout):
            # Nothing at inference: who reads it reads its input.
            places[node.name] = places[node.inputs[0]]
            continue
        places[node.name] = place
        back = (place - places[name] for name in node.inputs)
        yield f"{_said(node.op)}<{','.join(map(str, back))}>{node.shape}"
        place += 1


def run_tokens(run: Run) -> tuple[str, ...]:
    """The words of a block with its repeats."""
    return tuple(word for unit in run.units for word in tokens(unit.fragment))


def digest(image: Shape, words: Iterable[str]) -> str:
    """A hash of a network, as 64 hexadecimal digits."""
    state = hashlib.sha256(repr(tuple(image)).encode())
    for word in words:
        state.update(word.encode() + b"\n")
    return state.hexdigest()


def canonical_hash(arch: Arch) -> str:
    """A hash under which equal networks are equal, however they are written.

    It is made of the operators with their shapes. Names, stages, `skip`, the split into blocks
    and what only training sets (the norm's eps and momentum, dropout, the initial layer scale)
    are not in it.

    >>> import archdsl
    >>> text = "arch {} input 8x8x3 stem {{ {} }}"
    >>> one = archdsl.parse(text.format("one", "r2_k3_o3 skip"))
    >>> two = archdsl.parse(text.format("two", "k3_e1_o3_se0 ir"))
    >>> canonical_hash(one) == canonical_hash(two)
    True
    """
    words = (word for item in arch.placed for word in run_tokens(item.run))
    return digest(arch.input, words)
