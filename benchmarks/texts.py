"""What is costed: MobileNetV4-Conv-Medium, texts near it, architectures drawn from spaces."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "architectures" / "mnv4_conv_m.arch"
TIMM_NAME = "mobilenetv4_conv_medium"
SIZE = 256
PARAMS, MACS = 9_715_512, 1_080_244_224

Blocks = list[str]


# ------------------------------------------------------------------- texts near a published one


def published_text() -> str:
    return FILE.read_text(encoding="utf-8")


def _replaced(pattern: str, by: str | Callable[[re.Match[str]], str], text: str) -> str:
    """`re.sub` on lines, which must find something: the published text may be laid out anew."""
    text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
    assert count, f"nothing in the text matches {pattern!r}"
    return text


def _renamed(text: str, tag: str) -> str:
    text = _replaced(r"^arch +\w+", f"arch net_{tag}", text)
    return _replaced(r"^stage +(\w+)", rf"stage \1_{tag}", text)


def reordered_texts(seed: int) -> Iterator[str]:
    """Texts that differ in names and in the order of the blocks; each block has been seen before.

    The blocks of c4 and c5 that keep the resolution are shuffled: more than 10**9 orders.
    """
    draw = random.Random(seed)

    def shuffled(section: re.Match[str]) -> str:
        blocks = section["rest"].splitlines(keepends=True)
        return section["first"] + "".join(draw.sample(blocks, len(blocks)))

    for number in itertools.count():
        text = _replaced(
            r"(?P<first>^stage +c[45] *\{\n.*\n)(?P<rest>(?:  .*\n)+)", shuffled, published_text()
        )
        yield _renamed(text, f"{seed}_{number}")


def rescaled_texts(seed: int) -> Iterator[str]:
    """Texts that differ in width multiplier and image size: known block strings, shapes new."""
    draw = random.Random(seed)
    for number in itertools.count():
        width, height, side = draw.uniform(0.5, 2), draw.randrange(96, 512), draw.randrange(96, 512)
        text = _replaced("^input .*", f"input {height}x{side}x3", published_text())
        text = _replaced("^round .*", rf"\g<0>\nwidth {width:.6f}", text)
        yield _renamed(text, f"{seed}_{number}")


def foreign_texts(seed: int) -> Iterator[str]:
    """Texts none of whose stage blocks has been seen before: drawn expansions and widths."""
    draw = random.Random(seed)

    def block(match: re.Match[str]) -> str:
        return f"_e{float(match['e']) * draw.uniform(0.8, 1.2):.6f}_o{match['o']}"

    for number in itertools.count():
        text = published_text()
        for width in (48, 80, 160, 256):
            drawn = draw.randrange(width * 3 // 4, width * 5 // 4)
            text = _replaced(rf"_o{width}\b", f"_o{drawn}", text)
        text = _replaced(r"_e(?P<e>\d)_o(?P<o>\d+)", block, text)
        yield _renamed(text, f"{seed}_{number}")


# ----------------------------------------------------------------------------------- a stream

# Width, stride and layers of MnasNet-B1's stages; a search draws what stands around them.
_STAGES = ((16, 1, 1), (24, 2, 3), (40, 2, 3), (80, 2, 3), (96, 1, 2), (192, 2, 4), (320, 1, 1))

_HEAD = """
head {
  conv_k1_o1280!
  pool
  dropout_p0.2
  fc
}
"""


def _top(name: str) -> str:
    return f"""arch {name}
input  224x224x3
act    relu
norm   batch eps=1e-3 momentum=0.01
pad    same
round  8
se     from=input round=1 act=relu gate=sigmoid

stem {{
  conv_k3_s22_o32
}}
"""


def stagewise(draw: random.Random) -> list[Blocks]:
    """One architecture of a MnasNet-like space: each stage is one block string, repeated.

    As in arXiv:1807.11626, section 4.1: kind of layer, kernel, squeeze-and-excitation, skip,
    width 0.75, 1 or 1.25 times the base's, and one layer less or more.
    """
    stages: list[Blocks] = []
    for base, stride, layers in _STAGES:
        repeats = max(1, layers + draw.choice((-1, 0, 1)))
        kernel = draw.choice((3, 5))
        width = int(base * draw.choice((0.75, 1, 1.25))) // 8 * 8
        tail = f"k{kernel}_s{stride}{stride}"
        kind = draw.choice(("ir", "ir", "ir", "sep", "conv"))
        if kind == "ir":
            block = f"r{repeats}_{tail}_e{draw.choice((3, 6))}_o{width}"
            block += draw.choice(("", "_se0.25")) + draw.choice(("", "_noskip"))
        else:
            block = f"{kind}_r{repeats}_{tail}_o{width}"
        stages.append([block])
    return stages


def layerwise(draw: random.Random) -> list[Blocks]:
    """One architecture of a space whose layers are drawn one by one, as in ProxylessNAS."""
    stages: list[Blocks] = []
    for width, stride, layers in _STAGES:
        blocks: Blocks = []
        for number in range(layers + draw.choice((0, 1))):
            step = 1 if number else stride
            block = f"k{draw.choice((3, 5, 7))}_s{step}{step}_e{draw.choice((3, 4, 6))}_o{width}"
            blocks.append(block + draw.choice(("", "_se0.25")))
        stages.append(blocks)
    return stages


SPACES = {"stagewise": stagewise, "layerwise": layerwise}


def drawn(space: str, seed: int, count: int) -> list[list[Blocks]]:
    """Architectures as lists of stages; the same for the same seed."""
    draw = random.Random(f"{space} {seed}")
    return [SPACES[space](draw) for _ in range(count)]


def flat(stages: list[Blocks]) -> Blocks:
    """The stages as `archdsl.Coster` takes them."""
    return [block for stage in stages for block in stage]


def base_text() -> str:
    """The file whose attributes, stem and head the streamed architectures have."""
    return whole_text("base", [["k3_o16"]])


def whole_text(name: str, stages: list[Blocks]) -> str:
    """An architecture as the text of a file."""
    bodies = ("\n".join(f"  {block}" for block in blocks) for blocks in stages)
    sections = (f"stage c{n} {{\n{body}\n}}\n" for n, body in enumerate(bodies, 1))
    return _top(name) + "\n".join(sections) + _HEAD
