"""The bench kit: small networks whose times tell what a device is good at.

None is a published network, so that those can prove what was learnt from the kit. Some repeat one
block, so that one kind of operator, at one size, takes most of the time; the others are whole
networks in the manner of every family (`networks/*.arch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, NamedTuple

from archdsl.compiler import Arch, parse
from archdsl.files import decode_source
from archdsl.lang.source import SourceText

Runtime = Literal["onnxruntime", "tflite", "torch"]
RUNTIMES: Mapping[Runtime, str] = {"onnxruntime": "onnx", "tflite": "tflite", "torch": "torch"}
"""The runtimes that a kit can be made for, and the backend that writes its files."""


class Repeated(NamedTuple):
    """A network that repeats a block: an image, what makes the first map of it, and the blocks.

    A pool ends it, so that its output is small in every runtime.
    """

    side: int
    stem: str
    blocks: str
    head: str = "pool"
    attributes: str = "act relu"


REPEATED: Mapping[str, Repeated] = {
    # full convolutions
    "conv3_112": Repeated(112, "conv_k1_o32", "conv_r3_k3"),
    "conv3_14": Repeated(14, "conv_k1_o256", "conv_r4_k3"),
    "conv3_stride": Repeated(
        160, "conv_k3_s22_o24", "conv_k3_s22_o48 conv_k3_s22_o96 conv_k3_s22_o192 conv_k3_s22_o384"
    ),
    "conv5_28": Repeated(28, "conv_k1_o64", "conv_r4_k5"),
    "stem_320": Repeated(320, "conv_k3_s22_o16", "dw_k3_s22"),
    # depthwise convolutions, from many pixels to many channels
    "dw3_112": Repeated(112, "conv_k1_o64", "dw_r8_k3"),
    "dw3_7": Repeated(7, "conv_k1_o960", "dw_r16_k3"),
    "dw5_56": Repeated(56, "conv_k1_o96", "dw_r6_k5"),
    "dw5_14": Repeated(14, "conv_k1_o480", "dw_r12_k5"),
    "dw_stride": Repeated(224, "conv_k1_o32", "dw_k3_s22 dw_k5_s22 dw_k3_s22 dw_k5_s22 dw_k3_s22"),
    # pointwise convolutions: narrow on many pixels, wide on few
    "pw_112": Repeated(112, "conv_k1_o16", "conv_k1_o64 conv_k1_o24 conv_k1_o96 conv_k1_o16"),
    "pw_28": Repeated(28, "conv_k1_o48", " ".join(["conv_k1_o240 conv_k1_o48"] * 4)),
    "pw_14": Repeated(14, "conv_k1_o512", "conv_r6_k1"),
    "pw_7": Repeated(7, "conv_k1_o192", " ".join(["conv_k1_o1152 conv_k1_o192"] * 5)),
    # a single pixel: weights are all that moves
    "linear": Repeated(
        8,
        "conv_k3_s22_o64",
        "conv_k3_s22_o128",
        "pool conv_k1_o2048_bias_nonorm conv_k1_o2560_bias_nonorm fc_o2000",
    ),
    # the blocks of the families
    "ir_14_se": Repeated(
        14,
        "conv_k1_o112",
        "r5_k3_e6_se0.25",
        attributes="act hswish\nse from=expanded round=8 act=relu gate=hsigmoid",
    ),
    "ir_7_swish_se": Repeated(
        7,
        "conv_k1_o192",
        "r5_k5_e6_se0.25",
        attributes="act swish\nse from=input round=1 act=swish gate=sigmoid",
    ),
    "fused_56": Repeated(56, "conv_k1_o32", "fused_r4_k3_e4"),
    "uib_14": Repeated(14, "conv_k1_o160", "uib_r4_s3_m5_e4"),
    "mqa_16": Repeated(16, "conv_k1_o160", "mqa_r6_h4_d64_kv2"),
    "mha_16": Repeated(16, "conv_k1_o128", "mha_r5_h4_d32"),
    # activations that a runtime may take as operators of their own
    "swish_56": Repeated(56, "conv_k1_o32", "conv_r8_k1", attributes="act swish"),
    "hswish_56": Repeated(56, "conv_k1_o32", "conv_r8_k1", attributes="act hswish"),
    # little to compute: sums of large maps, scaled maps, and operators that are all overhead
    "add_112": Repeated(112, "conv_k1_o16", "fused_r12_e1"),
    "se_56": Repeated(56, "conv_k1_o64", "r6_k3_e1_se0.25"),
    "small_ops": Repeated(4, "conv_k1_o16", "r12_k3_e2"),
    "one_op": Repeated(4, "conv_k1_o16", "conv_k1"),
}


def is_whole(name: str) -> bool:
    """Whether a network is one from image to classes, and not a block of the kit, repeated.

    >>> is_whole("mnv2"), is_whole("dw3_112")
    (True, False)
    """
    return name not in REPEATED


def _text(name: str, made: Repeated) -> str:
    blocks = made.blocks.replace(" ", "\n  ")
    head = made.head.replace(" ", "\n  ")
    return f"""\
arch {name}
input {made.side}x{made.side}x3
{made.attributes}
stem {{ {made.stem} }}
stage body {{
  {blocks}
}}
head {{
  {head}
}}
"""


@cache
def _folder() -> tuple[str, ...]:
    folder = files("archdsl.calibration").joinpath("networks")
    return tuple(sorted(e.name for e in folder.iterdir() if e.name.endswith(".arch")))


def sources() -> Iterator[SourceText]:
    """The texts of the kit's networks."""
    for name, made in REPEATED.items():
        yield SourceText(f"{name}.arch", _text(name, made))
    folder = files("archdsl.calibration").joinpath("networks")
    for file in _folder():
        yield decode_source(file, folder.joinpath(file).read_bytes())


@cache
def networks() -> tuple[Arch, ...]:
    """The kit's networks, those that repeat a block first.

    >>> len(networks()), networks()[0]
    (40, Arch('conv3_112', input=112x112x3))
    """
    return tuple(parse(source) for source in sources())
