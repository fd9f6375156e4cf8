"""Backends and their artefacts: found by entry point, so a stranger's enters by the same door."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from archdsl.compiler import Arch
from archdsl.files import write_whole
from archdsl.lang.diagnostics import did_you_mean, listed

GROUP = "archdsl.backends"


class BackendError(Exception):
    """A backend that is unknown, broken, claimed twice, or that lacks a package."""


class Backend(Protocol):
    """What a backend offers; the entry point names a class that is made without arguments."""

    suffix: str
    """The ending of the artefact's file name, such as `.py`."""

    def emit(self, arch: Arch) -> bytes:
        """The artefact's bytes: the same for the same architecture.

        Raises:
            ArchError: the backend cannot express something; every such place, each with its span.
        """

    def load(self, artifact: Artifact, *, seed: int) -> Any:
        """The artefact in its runtime, ready to run.

        Raises:
            BackendError: the runtime is not installed; the message names the install line.
        """


@dataclass(frozen=True)
class Artifact:
    """What a backend made of an architecture."""

    arch: Arch
    backend: Backend
    data: bytes
    seed: int = 0

    @property
    def filename(self) -> str:
        """The default file name: the architecture's."""
        return self.arch.name + self.backend.suffix

    def write(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the artefact, whole or not at all, and return the path.

        Raises:
            OSError: the folder or the disk refuses.
        """
        target = os.fspath(path) if path is not None else self.filename
        write_whole(target, self.data)
        return target

    def load(self) -> Any:
        """The artefact in its runtime: a `torch.nn.Module` for torch."""
        return self.backend.load(self, seed=self.seed)


def available() -> dict[str, EntryPoint]:
    """The installed backends by name.

    Raises:
        BackendError: two packages claim one name.
    """
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        other = found.setdefault(entry.name, entry)
        # An editable install may be listed twice: the same object is no conflict.
        if other.value != entry.value:
            raise BackendError(
                f"two backends are called {entry.name!r}: "
                f"{other.value} of {_owner(other)} and {entry.value} of {_owner(entry)}; "
                "uninstall one of them"
            )
    return found


def _owner(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "an unknown package"


def backend(name: str) -> Backend:
    """The backend of a name.

    Raises:
        BackendError: there is none, or it cannot be imported.
    """
    found = available()
    entry = found.get(name)
    if entry is None:
        guess = did_you_mean(name, found)
        hint = f"did you mean {guess!r}?" if guess else f"installed: {listed(sorted(found), 'and')}"
        raise BackendError(f"no backend is called {name!r}; {hint}")
    try:
        made: Backend = entry.load()()
    except Exception as error:
        raise BackendError(
            f"the backend {name!r} ({entry.value} of {_owner(entry)}) is broken: {error}"
        ) from error
    return made


def compile(arch: Arch, to: str, *, seed: int = 0) -> Artifact:
    """Compile an architecture with the backend called `to`.

    `seed` is for the initial weights that `Artifact.load` gives the network.

    Raises:
        BackendError: no such backend.
        ArchError: the backend cannot express the architecture.
    """
    chosen = backend(to)
    return Artifact(arch, chosen, chosen.emit(arch), seed)
