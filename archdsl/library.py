"""The published architectures, and loading by path or by name."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from archdsl.compiler import Arch, parse
from archdsl.files import decode_source, read_source
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean
from archdsl.lang.elaborate import elaborate
from archdsl.lang.source import SourceText
from archdsl.lang.syntax import parse_file
from archdsl.lang.values import number


@dataclass(frozen=True, slots=True)
class Member:
    """A published network: its name, its file and, where it is not the file's own, its variant."""

    name: str
    file: str
    variant: str | None


def _folder_names() -> list[str]:
    folder = files("archdsl.architectures")
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".arch"))


@cache
def published_source(file: str) -> SourceText:
    """The text of a published file, such as `mnv2.arch`."""
    return decode_source(file, files("archdsl.architectures").joinpath(file).read_bytes())


def members() -> Iterator[Member]:
    """Every published network, file by file, variants behind their file's own."""
    for file in _folder_names():
        spec = elaborate(parse_file(published_source(file))).spec
        if spec is not None:
            yield Member(spec.name, file, None)
            for variant in spec.variants:
                yield Member(f"{spec.name}_{variant.name}", file, variant.name)


def networks() -> Iterator[Arch]:
    """Every published network, in the order of `members`; each file is read once.

    >>> next(networks())
    Arch('efficientnet_b0', input=224x224x3)
    """
    for file in _folder_names():
        read = elaborate(parse_file(published_source(file)))
        if read.spec is not None:
            yield Arch(read.spec, read.origins)
            for variant in read.spec.variants:
                yield Arch(read.spec, read.origins, variant=variant.name)


def year_of(source: str | None) -> int | None:
    """The year that a file's `source` tells: that of an arXiv number, or one that is written out.

    >>> year_of("arXiv:1801.04381, Table 2"), year_of("Google AI Blog, November 2019"), year_of("")
    (2018, 2019, None)
    """
    number = re.search(r"\barXiv:([0-9]{2})[0-9]{2}\.[0-9]", source or "")
    written = re.search(r"\b20[0-9]{2}\b", source or "")
    return 2000 + int(number[1]) if number else int(written[0]) if written else None


def top1_of(arch: Arch) -> float | None:
    """The top-1 on ImageNet, in percent, of the first `published` statement that has one.

    What is published speaks of the network as its file has it: with another width, image or
    number of classes nothing is known.

    >>> top1_of(load("mnv4_conv_m")), top1_of(load("mnv4_conv_m", width=0.5))
    (79.9, None)
    """
    texts = (statement.facts["top1"] for statement in arch.published if "top1" in statement.facts)
    first = number(str(next(texts, "")))
    known = isinstance(first, (int, float)) and 0 < first <= 100 and not arch.overridden
    return float(first) if known else None


def find_member(name: str) -> Member | None:
    """The published network of a name, or None."""
    names = _folder_names()
    # A member's file has the longest name that the member's begins with.
    for file in sorted(names, key=len, reverse=True):
        stem = file.removesuffix(".arch")
        if name == stem:
            return Member(name, file, None)
        if name.startswith(stem + "_"):
            spec = elaborate(parse_file(published_source(file))).spec
            short = name.removeprefix(stem + "_")
            if spec and any(variant.name == short for variant in spec.variants):
                return Member(name, file, short)
    return None


def open_source(where: str | os.PathLike[str]) -> tuple[SourceText, str | None]:
    """The text of a path or of a published name, and the variant that the name means.

    Raises:
        FileNotFoundError: neither a file nor a published name.
        OSError: the file cannot be read.
        ArchError: the file is not a text.
    """
    text = os.fspath(where)
    if "\0" in text:
        raise FileNotFoundError(f"{text!r} is neither a file nor a published architecture")
    if Path(text).is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), text)
    looks_like_path = not isinstance(where, str) or os.sep in text or text.endswith(".arch")
    if looks_like_path or Path(text).is_file():
        return read_source(where), None
    member = find_member(text)
    if member is None:
        guess = did_you_mean(text, [m.name for m in members()]) if len(text) <= 40 else None
        hint = f"did you mean {guess}?" if guess else "`archdsl list` shows the published names"
        raise FileNotFoundError(f"{text!r} is neither a file nor a published architecture; {hint}")
    return published_source(member.file), member.variant


def chosen(asked: str | None, named: str | None) -> str | None:
    """The variant that is meant, by an option or by the name of a member.

    Raises:
        ArchError: E0502 where the two contradict each other.
    """
    if asked and named and asked != named and not asked.endswith(f"_{named}"):
        message = f"the name means the variant `{named}`, and another is asked for"
        hint = "name the file's own network, or leave the variant out"
        raise ArchError([Diagnostic("E0502", message, None, hint)])
    return asked or named


def load(
    where: str | os.PathLike[str],
    *,
    variant: str | None = None,
    width: float | None = None,
    input: Sequence[int] | str | None = None,
    classes: int | None = None,
) -> Arch:
    """Read an architecture from a `.arch` file or by its published name, such as `mnv2_140`.

    `variant` names a member of the file; `width`, `input` (height, width, channels) and
    `classes` replace what the text says.

    Raises:
        FileNotFoundError: neither a file nor a published name.
        ArchError: the text is not a valid architecture; it carries every diagnostic.

    >>> load("mnv2_140").cost().params
    6108776
    """
    source, named = open_source(where)
    return parse(source, variant=chosen(variant, named), width=width, input=input, classes=classes)
