"""What is costed: MobileNetV4-Conv-Medium, texts near it, architectures drawn from spaces."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "architectures" / "mnv4_conv_m.arch"
TIMM_NAME = "mobilenetv4_conv_medium"
SIZE = 256
PARAMS, MACS = 9_715_512, 1_080_244_224

Blocks = list[str]


# ------------------------------------------------------------------- texts near a published one


def published_text() -> str:
    return FILE.read_text(encoding="utf-8")


def _renamed(text: str, tag: str) -> str:
    text = text.replace("arch mnv4_conv_m", f"arch net_{tag}")
    return re.sub(r"stage (c\d)", rf"stage \1_{tag}", text)


def reordered_texts(seed: int) -> Iterator[str]:
    """Texts that differ in names and in the order of the blocks; each block has been seen before.

    The blocks of c4 and c5 that keep the resolution are shuffled: more than 10**9 orders.
    """
    draw = random.Random(seed)
    lines = published_text().splitlines()
    starts = [number for number, line in enumerate(lines) if re.match(r"stage c[45]", line)]
    spans = [(start + 2, lines.index("}", start)) for start in starts]
    for number in range(10**9):
        for start, end in spans:
            lines[start:end] = draw.sample(lines[start:end], end - start)
        yield _renamed("\n".join(lines), f"{seed}_{number}")


def rescaled_texts(seed: int) -> Iterator[str]:
    """Texts that differ in the width multiplier: known block strings, all shapes new."""
    for number in range(10**9):
        width = f"width    {1 + (number + 1) * 1e-4 + seed * 1e-7:.7f}\nround    8"
        yield _renamed(published_text().replace("round    8", width), f"{seed}_{number}")


def foreign_texts(seed: int) -> Iterator[str]:
    """Texts none of whose stage blocks has been seen before: drawn expansions and widths."""
    draw = random.Random(seed)
    for number in range(10**9):

        def block(match: re.Match[str]) -> str:
            ratio = float(match["e"]) * draw.uniform(0.8, 1.2)
            return f"_e{ratio:.6f}_o{match['o']}"

        text = published_text()
        for width in (48, 80, 160, 256):
            drawn = draw.randrange(width * 3 // 4, width * 5 // 4)
            text = re.sub(rf"_o{width}\b", f"_o{drawn}", text)
        text = re.sub(r"_e(?P<e>\d)_o(?P<o>\d+)", block, text)
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
