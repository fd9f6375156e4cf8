"""What the commands share: FILE, the options that change it, `-o`, `--json`; reading, writing."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import click
from click.shell_completion import CompletionItem

from archdsl.cli.output import Refusal, visible, write
from archdsl.limits import RAISABLE, most, raised

if TYPE_CHECKING:
    from archdsl.compiler import Arch
    from archdsl.files import Content
    from archdsl.lang.source import SourceText
    from archdsl.roofline.model import Device

Status = int | None
"""What a command returns: its exit status, None for 0."""

Command = Callable[..., Status]


class Overrides(TypedDict):
    """What the command line changes in a file."""

    variant: str | None
    width: float | None
    input: tuple[int, int, int] | None
    classes: int | None


Check = Callable[[click.Context, click.Parameter, Any], Any]


def within(low: float, highest: float | str, *, above: bool = False) -> Check:
    """A check that a number lies between two; `above` means not at the lower one itself.

    The higher one may be the name of a limit.
    """

    def call(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
        high = most(highest) if isinstance(highest, str) else highest
        # A NaN fails every comparison.
        if value is None or (low < value <= high) or (value == low and not above):
            return value
        first = f"more than {low:,g}" if above else f"at least {low:,g}"
        raise click.BadParameter(f"must be {first} and at most {high:,.16g}")

    return call


def _image(
    ctx: click.Context, param: click.Parameter, value: str | None
) -> tuple[int, int, int] | None:
    """The sizes that HEIGHTxWIDTHxCHANNELS gives."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})x([0-9]{1,9})", value.lower())
    if match is None:
        raise click.BadParameter("must be HEIGHTxWIDTHxCHANNELS, such as 224x224x3")
    height, width, channels = (int(side) for side in match.groups())
    if not (1 <= height <= most("side") and 1 <= width <= most("side")):
        raise click.BadParameter(f"sides must be from 1 to {most('side')} pixels")
    if not 1 <= channels <= most("channels"):
        raise click.BadParameter(f"channels must be from 1 to {most('channels')}")
    return height, width, channels


_OVERRIDES: tuple[Callable[[Command], Command], ...] = (
    click.option("--variant", metavar="NAME", help="A member that the file names."),
    click.option(
        "--width",
        type=float,
        callback=within(0, "scale", above=True),
        metavar="F",
        help="Another width multiplier.",
    ),
    click.option("--input", callback=_image, metavar="HxWxC", help="Another image size."),
    click.option(
        "--classes",
        type=int,
        callback=within(1, "classes"),
        metavar="N",
        help="Outputs of the classifier.",
    ),
)


def overridable(command: Command) -> Command:
    """Give a command `--variant --width --input --classes`, as one argument `overrides`."""

    @functools.wraps(command)
    def call(
        *args: Any,
        variant: str | None,
        width: float | None,
        input: tuple[int, int, int] | None,
        classes: int | None,
        **options: Any,
    ) -> Status:
        overrides = Overrides(variant=variant, width=width, input=input, classes=classes)
        return command(*args, overrides=overrides, **options)

    extended: Command = call
    for option in reversed(_OVERRIDES):
        extended = option(extended)
    return extended


def as_json(command: Command) -> Command:
    """Give a command `--json`, as the argument `json`."""
    return click.option("--json", is_flag=True, help="Print the result as JSON.")(command)


def _complete_file(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Published names and `.arch` files here; where none begins so, the shell's own paths."""
    from archdsl.library import members

    found = [member.name for member in members()]
    found += sorted(path.name for path in Path().glob("*.arch"))
    items = [CompletionItem(name) for name in found if name.startswith(incomplete)]
    return items or [CompletionItem(incomplete, type="file")]


def _raise_limits(ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> None:
    """Raise the limits that are named, until the command is done."""
    for word in words:
        name, _, value = word.partition("=")
        if name not in RAISABLE:
            raise click.BadParameter(
                f"no limit is called {name!r}; there are {', '.join(RAISABLE)}"
            )
        if not re.fullmatch(r"[0-9]{1,16}", value.replace("_", "")):
            raise click.BadParameter(f"{name}: must be NAME=VALUE with a whole number")
        try:
            ctx.with_resource(raised(**{name: int(value)}))
        except ValueError as error:
            raise click.BadParameter(str(error)) from None


def limits_option(command: Command) -> Command:
    """Let a command raise limits by `--limit`."""
    return click.option(
        "--limit",
        multiple=True,
        # Before the values of the other options are read.
        is_eager=True,
        expose_value=False,
        callback=_raise_limits,
        metavar="NAME=VALUE",
        help="Raise a limit (docs/limits.md); may be repeated.",
    )(command)


def file_argument(command: Command) -> Command:
    """Give a command FILE, as the argument `file`, and `--limit`."""
    command = limits_option(command)
    return click.argument("file", metavar="FILE", shell_complete=_complete_file)(command)


def files_argument(command: Command) -> Command:
    """Give a command one or more FILEs, as the argument `files`, and `--limit`."""
    command = limits_option(command)
    return click.argument(
        "files", metavar="FILE...", nargs=-1, required=True, shell_complete=_complete_file
    )(command)


def _complete_device(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Shipped profiles; where none begins so, the shell's own paths."""
    from archdsl.roofline.profiles import shipped

    found = [device for device in shipped() if device.name.startswith(incomplete)]
    items = [CompletionItem(device.name, help=device.device) for device in found]
    return items or [CompletionItem(incomplete, type="file")]


def device_option(command: Command, *, required: bool = False, many: bool = True) -> Command:
    """Give a command `--device`, as the argument `device` (a tuple where it may be repeated)."""
    return click.option(
        "--device",
        metavar="NAME|FILE.toml",
        multiple=many,
        required=required,
        shell_complete=_complete_device,
        help="A device profile" + ("; may be repeated." if many else "."),
    )(command)


def devices(names: tuple[str, ...]) -> list[Device]:
    """The profiles of all names and files, each once.

    Raises:
        OSError: there is no such profile or file.
        ArchError: a file has faults.
    """
    if not names:
        return []
    from archdsl.roofline.profiles import load_devices

    found = [device for name in names for device in load_devices(name)]
    return list(dict.fromkeys(found))


def one_device(name: str) -> Device:
    """The one profile of a name or a file.

    Raises:
        OSError: there is no such profile or file.
        Refusal: it has several profiles.
        ArchError: the file has faults.
    """
    from archdsl.roofline.profiles import load_device

    try:
        return load_device(name)
    except ValueError as error:
        raise Refusal(f"--device: {error}") from None


def optional_files_argument(command: Command) -> Command:
    """Give a command FILEs that may be left out, as the argument `files`, and `--limit`."""
    command = limits_option(command)
    return click.argument("files", metavar="[FILE]...", nargs=-1, shell_complete=_complete_file)(
        command
    )


def output_option(help: str, **more: Any) -> Callable[[Command], Command]:
    """Give a command `-o OUT`, as the argument `out`."""
    return click.option(
        "-o", "--output", "out", type=click.Path(), metavar="OUT", help=help, **more
    )


# ------------------------------------------------------------------------------------- reading


def read_stdin() -> SourceText:
    """The text on standard input.

    Raises:
        OSError: standard input is closed.
        ArchError: its bytes are not a text.
    """
    from archdsl.files import decode_source

    if sys.stdin is None:
        raise OSError("standard input is closed")
    data = sys.stdin.buffer.read(4 * most("text") + 1)
    return decode_source("<stdin>", data)


def read(file: str, overrides: Overrides) -> tuple[SourceText, Overrides]:
    """The text of a FILE, and the overrides with the variant that a published name means.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ArchError: it is not a text.
    """
    from archdsl.library import chosen, open_source

    if file == "-":
        return read_stdin(), overrides
    source, named = open_source(file)
    return source, {**overrides, "variant": chosen(overrides["variant"], named)}


def load(file: str, overrides: Overrides) -> Arch:
    """The architecture of a FILE.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ArchError: it is not a valid architecture.
    """
    from archdsl.compiler import parse

    source, chosen = read(file, overrides)
    return parse(source, **chosen)


# ------------------------------------------------------------------------------------- writing


def results_folder(out: str, hint: str = "") -> Path:
    """The folder to write results to, which need not be there.

    Raises:
        Refusal: it cannot be, or is standard output: then with a hint of what else can be done.
    """
    if out == "-":
        raise Refusal(f"-o -: what is written is a folder{hint}")
    folder = Path(out)
    if not folder.parent.is_dir():
        raise Refusal(f"-o {out}: there is no folder {folder.parent}")
    if folder.exists() and not folder.is_dir():
        raise Refusal(f"-o {out}: is a file")
    return folder


_MARKS = {
    "search": ("study.json", "study.journal"),
    "oneshot": ("progress.pt", "coarse/progress.pt", "fine/progress.pt"),
    "netadapt": ("evaluations.jsonl",),
}
"""For each command what only its folders have."""


def require_unmixed(folder: Path, command: str, option: str = "-o") -> None:
    """Refuse a folder that has the results of another command.

    Raises:
        Refusal: it has.
    """
    for other, marks in _MARKS.items():
        if other != command and any((folder / mark).exists() for mark in marks):
            raise Refusal(
                f"{option} {folder}: has the results of `archdsl {other}`; take another folder"
            )


def key_values(
    ctx: click.Context, param: click.Parameter, words: tuple[str, ...]
) -> dict[str, str]:
    """What an option KEY=VALUE, given once or more, says."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise click.BadParameter(f"{visible(word[:60])!r}: must be KEY=VALUE")
        if key in found:
            raise click.BadParameter(f"{key!r} is set twice")
        found[key] = value
    return found


def writable(out: str, file: str, *others: str | None, json: bool = False) -> str:
    """The path to write to, checked before any work is done; `-` is standard output.

    `others` are files that are read too, None for none. `json` is whether the result is asked for.

    Raises:
        Refusal: it is a folder, lies in no folder, or is the FILE itself or another that is read.
        UsageError: both the file and JSON would go to standard output.
    """
    if out == "-":
        if json:
            raise click.UsageError("with -o - the file itself is the output: leave out --json")
        return out
    path = Path(out)
    if path.is_dir():
        raise Refusal(f"-o {out}: is a folder; name a file in it")
    folder = out if out.endswith(os.sep) else path.parent
    if not Path(folder).is_dir():
        raise Refusal(f"-o {out}: there is no folder {folder}")
    if file != "-" and _same(path, file):
        raise Refusal(f"-o {out}: would replace the architecture itself")
    for other in others:
        if other is not None and _same(path, other):
            raise Refusal(f"-o {out}: would replace {other}, which is read; take another name")
    return out


def _same(path: Path, other: str) -> bool:
    return path.exists() and Path(other).exists() and path.samefile(other)


def deliver(out: str, data: bytes | Content) -> None:
    """Write a file whole or not at all; `-` is standard output.

    Raises:
        Refusal: standard output is a terminal, and what is written is no text.
        OSError: the folder, the disk or standard output refuses; it names what was written to.
    """
    if out != "-":
        from archdsl.files import write_whole

        with named(out):
            write_whole(out, data)
        return
    whole = bytes(data)
    if sys.stdout is not None and sys.stdout.isatty() and b"\0" in whole:
        raise Refusal("-o -: a terminal cannot show these bytes; name a file, or redirect them")
    write(whole)


@contextmanager
def named(out: str) -> Iterator[None]:
    """Let what the system refuses say for which file, where it does not by itself."""
    try:
        yield
    except OSError as failure:
        if failure.filename is None:
            failure.filename = out
        raise
