"""The notations of other libraries: read into `.arch` texts, written from specifications.

>>> import archdsl
>>> from archdsl import dialects
>>> definition = [["ds_r1_k3_s1_c16"], ["ir_r2_k3_s2_e6_c24"]]
>>> net = archdsl.parse(dialects.read(str(definition), "timm"))
>>> dialects.write(net, "timm").text.splitlines()[-4:]
['    ["ds_r1_k3_s1_c16"],', '    ["ir_r2_k3_s2_e6_c24"]', '  ]', '}']
"""

from __future__ import annotations

from archdsl.compiler import Arch
from archdsl.lang.dialects.json import read_json, write_json
from archdsl.lang.dialects.mnasnet import read_mnasnet, write_mnasnet
from archdsl.lang.dialects.ofa import read_ofa
from archdsl.lang.dialects.ofa_write import write_ofa
from archdsl.lang.dialects.timm import read_timm
from archdsl.lang.dialects.timm_write import write_timm
from archdsl.lang.dialects.walking import Written
from archdsl.lang.printer import print_spec
from archdsl.lang.source import SourceText
from archdsl.lang.spec import ArchSpec

__all__ = [
    "DIALECTS",
    "Written",
    "member",
    "read",
    "read_json",
    "read_mnasnet",
    "read_ofa",
    "read_timm",
    "write",
    "write_json",
    "write_mnasnet",
    "write_ofa",
    "write_timm",
]

_READERS = {
    "json": read_json,
    "mnasnet": read_mnasnet,
    "ofa": read_ofa,
    "timm": read_timm,
}
_WRITERS = {"mnasnet": write_mnasnet, "ofa": write_ofa, "timm": write_timm}
DIALECTS: tuple[str, ...] = ("arch", *_READERS)
"""The names of the notations."""


def read(text: SourceText | str, dialect: str) -> SourceText:
    """The `.arch` text of a text in one of the `DIALECTS`.

    Raises:
        ArchError: the text is none of that notation, or the language cannot say it.
        TypeError: it is no text, such as the list that a text would hold.
        ValueError: an unknown dialect.
    """
    _check_text(text)
    source = text if isinstance(text, SourceText) else SourceText("<string>", text)
    if dialect == "arch":
        return source
    if dialect not in _READERS:
        raise ValueError(f"no such dialect: {dialect!r}; there are {', '.join(DIALECTS)}")
    return _READERS[dialect](source)


def write(arch: Arch, dialect: str) -> Written:
    """An architecture in one of the `DIALECTS`, with warnings of what is left out.

    With a variant or another override the result is that one network; otherwise the whole file,
    where the notation has a place for it.

    Raises:
        ArchError: E0606, all that the notation cannot carry.
        TypeError: it is no architecture, such as its name.
        ValueError: an unknown dialect.
    """
    _check_arch(arch)
    spec = member(arch)
    if dialect in _WRITERS:
        return _WRITERS[dialect](spec, arch.origins)
    if dialect not in DIALECTS:
        raise ValueError(f"no such dialect: {dialect!r}; there are {', '.join(DIALECTS)}")
    return Written(write_json(spec) if dialect == "json" else print_spec(spec))


def _check_text(text: object) -> None:
    """Raises: TypeError for what is no text, such as the list that a text would hold."""
    if not isinstance(text, (SourceText, str)):
        hint = ": str() makes one of a definition" if isinstance(text, (list, dict)) else ""
        raise TypeError(f"a text is wanted, not {type(text).__name__}{hint}")


def _check_arch(arch: object) -> None:
    """Raises: TypeError for what is no architecture, such as its name."""
    if not isinstance(arch, Arch):
        raise TypeError(f"an Arch is wanted, not {type(arch).__name__}: archdsl.load makes one")


def member(arch: Arch) -> ArchSpec:
    """The specification of a file, or of the one member that was asked for: `Arch.member`."""
    return arch.member
