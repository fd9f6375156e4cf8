"""MobileNetV4's second stage: from a network of the coarse space to the fine space around it.

The first stage finds filter sizes and depths, with one and the same block; the second decides for
each layer whether it has a depthwise convolution at its start and in its middle, and of which size
(arXiv 2404.10518, the two-stage search).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from archdsl.compiler import Arch
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.printer import print_block, print_spec
from archdsl.lang.spec import AnyBlock, Block, Stage, UniversalInvertedBottleneck
from archdsl.search.reading import read_plan
from archdsl.search.space import Space

KERNELS = (0, 3, 5)
"""What each of the two depthwise convolutions is chosen from: none, or its size."""


def refined(arch: Arch) -> str:
    """The text of the fine space around a network.

    Every universal inverted bottleneck of its stages chooses its kernels, layer by layer;
    neighbours of one width that halve nothing between them become one block. Where ratios differ,
    each layer chooses among those of the whole network.

    Raises:
        ArchError: there is no such block (E1016).

    >>> import archdsl
    >>> text = "arch a input 32x32x3 stage c1 { uib_r2_m3_st22_e4_o16 } head { pool fc }"
    >>> print(refined(archdsl.parse(text)).split("stage")[1].splitlines()[0])
     c1 { uib_each_r2_s{0,3,5}_m{0,3,5}_st22_e4_o16 }
    """
    stages = [list(_runs(stage.blocks)) for stage in arch.spec.stages]
    found = [run[0] for runs in stages for run in runs if _refinable(run[0])]
    if not found:
        raise _unrefinable(arch.name)
    expansions = sorted(
        {
            block.expansion
            for runs in stages
            for run in runs
            for block in run
            if isinstance(block, UniversalInvertedBottleneck) and block.expanded is None
        }
    )
    marked: dict[str, str] = {}
    made = []
    for stage, runs in zip(arch.spec.stages, stages, strict=True):
        blocks: list[AnyBlock] = []
        for run in runs:
            block = run[0]
            if isinstance(block, UniversalInvertedBottleneck):
                # A block that stands for the open one while the rest is printed.
                count = sum(one.repeats for one in run)
                kernels = {"start_kernel": 3, "middle_kernel": 3, "repeats": count}
                block = block.model_copy(update=kernels | {"in_channels": None})
                printed = print_block(block)
                marked[printed] = _opened(printed, block, expansions)
            blocks.append(block)
        made.append(Stage.model_construct(name=stage.name, blocks=tuple(blocks)))
    update = {
        **{"name": f"{arch.name}_fine", "attributes": arch.attributes, "stages": tuple(made)},
        **{"variants": (), "expect": None, "published": ()},
    }
    text = print_spec(arch.spec.model_copy(update=update))
    longest = sorted(map(re.escape, marked), key=len, reverse=True)
    return re.sub(rf"(?<!\S)({'|'.join(longest)})(?!\S)", lambda m: marked[m[0]], text)


def require_refinable(space: Space) -> None:
    """Refuse a space of which no network has a fine space around it.

    Raises:
        ArchError: no option of its stages is a block that is refined (E1016).
    """
    places = read_plan(space.source).places
    menus = [place.menu for place in places if place.section.startswith("stages.")]
    while menus:
        for option in menus.pop().options:
            if _refinable(option.block):
                return
            menus += option.layers
    raise _unrefinable(space.name)


def _unrefinable(name: str) -> ArchError:
    """E1016 for a network or a space."""
    message = f"`{name}` has no universal inverted bottleneck, whose kernels are refined"
    help = "the fine stage is for networks of `uib` blocks, such as those of mnv4_coarse"
    return ArchError([Diagnostic("E1016", message, None, help)])


def _refinable(block: Block | None) -> bool:
    return isinstance(block, UniversalInvertedBottleneck)


def _runs(blocks: Iterable[AnyBlock]) -> Iterator[Sequence[AnyBlock]]:
    """Blocks that become one; others stand alone."""
    run: list[AnyBlock] = []
    for block in blocks:
        if run and _alike(run[0], block):
            run.append(block)
            continue
        if run:
            yield run
        run = [block]
    if run:
        yield run


def _alike(first: Block, block: Block) -> bool:
    """Whether a block differs from the first of a run in its kernels, depth and ratio at most."""
    if not isinstance(first, UniversalInvertedBottleneck) or type(block) is not type(first):
        return False
    assert isinstance(block, UniversalInvertedBottleneck)
    if block.stride != (1, 1) or block.out_channels not in (None, first.out_channels):
        return False
    same = ("expanded", "residual", "act", "layer_scale", "group_size")
    return all(getattr(first, name) == getattr(block, name) for name in same)


def _opened(printed: str, block: UniversalInvertedBottleneck, expansions: Sequence[float]) -> str:
    """A block string with its choices."""
    kernels = f"{{{','.join(map(str, KERNELS))}}}"
    ratios = ",".join(f"{value:g}" for value in expansions)
    words = []
    for word in printed.split("_"):
        if word in ("s3", "m3"):
            word = word[0] + kernels
        elif re.fullmatch(r"e[\d.]+", word) and len(expansions) > 1:
            word = f"e{{{ratios}}}"
        words.append(word)
    opened = [word for word in words if word != "uib"]
    # One layer has its count too: `each` asks for it.
    if not any(re.fullmatch(r"r\d+", word) for word in opened):
        opened.insert(0, "r1")
    return "_".join(["uib", "each", *opened])
