"""Backends and their artefacts: found by entry point, so a stranger's enters by the same door."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from archdsl.compiler import Arch
from archdsl.files import Content, write_together
from archdsl.lang.diagnostics import ArchError, Diagnostic, did_you_mean, listed, quoted
from archdsl.plugins import installed, owner
from archdsl.search.space import Space

if TYPE_CHECKING:
    from archdsl.ir.execute import Array
    from archdsl.ir.graph import Graph
    from archdsl.ir.lazy import LazyWeights
    from archdsl.quantization.ranges import Method, Range

GROUP = "archdsl.backends"

Precision = Literal["float32", "float16", "int8", "int8_dynamic"]
"""float16: weights at half the size, arithmetic in float32. int8: weights and activations, with
ranges from a calibration set. int8_dynamic: weights, and activations as they come; depthwise
convolutions stay float."""

PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8", "int8_dynamic")

OUTPUT = "output"
"""The name of an artefact's output; feature maps have their stages' names."""


class BackendError(Exception):
    """A backend that is unknown, broken, claimed twice, or that lacks a package."""


@dataclass(frozen=True)
class Options:
    """How an artefact is wanted."""

    dtype: Precision = "float32"
    features: tuple[str, ...] = ()
    """Stages whose feature maps are outputs too."""
    fold: bool = True
    """Whether norms become part of the convolutions before them, where the target has norms."""
    layers: bool = False
    """Whether every operator's value is an output, under the name of its node: to compare with."""


@dataclass(frozen=True)
class Job:
    """What a backend is asked to make: an architecture, its weights, and how."""

    arch: Arch
    options: Options = field(default_factory=Options)
    seed: int = 0
    given: Mapping[str, Any] | str | os.PathLike[str] | None = None
    """Weights by `state_dict` key or a safetensors file; None for initial ones from the seed."""
    ranges: Mapping[str, Range] | None = None
    """For int8: the least and the largest value of every node of the folded graph."""
    filename: str = ""
    """The name of the file that the artefact will be written to, without its folder."""
    calibrated: Mapping[str, str] = field(default_factory=dict)
    """For int8: how the ranges were found, and on which images, as metadata."""

    @cached_property
    def graph(self) -> Graph:
        """The operators; results are the output and the feature maps that are asked for."""
        return self.arch.graph().keeping(self.options.features)

    @cached_property
    def weights(self) -> LazyWeights:
        """The weights, checked against the graph: float32, in its order.

        Each is drawn or read when it is asked for; `dict(job.weights)` holds them all.

        Raises:
            OSError, ArchError: see `archdsl.weights.store`.
        """
        # numpy takes its time to import: PyTorch source without weights does without.
        from archdsl.weights.initial import drawn
        from archdsl.weights.store import fitted, open_weights

        if self.given is None:
            return drawn(self.graph, self.seed)
        if isinstance(self.given, Mapping):
            return fitted(self.given, self.graph)
        return open_weights(self.given, self.graph)


class Session(Protocol):
    """An artefact in its runtime, for whoever compares or times it on one thread."""

    def feed(self, images: Array) -> Any:
        """Images (batch, height, width, channels), float32, as the runtime takes them."""

    def run(self, fed: Any) -> Any:
        """One inference: what is timed."""

    def values(self, results: Any) -> dict[str, Array]:
        """Results by name (`output`, stages, nodes); feature maps are (batch, h, w, channels)."""


class Backend(Protocol):
    """What a backend offers; the entry point names a class that is made without arguments."""

    suffix: str
    """The ending of the artefact's file name, such as `.py`."""

    runtime: str
    """The package that runs the artefact, by its name on PyPI."""

    dtypes: Sequence[Precision]
    """The precisions it writes."""

    def emit(self, job: Job) -> Emission | bytes:
        """The artefact's bytes: the same for the same job.

        Raises:
            ArchError: the backend cannot express something; every such place, each with its span.
            BackendError: a package is missing; the message names the install line.
        """

    def load(self, artifact: Artifact) -> Any:
        """The artefact in its runtime, as that runtime's users know it.

        Raises:
            BackendError: the runtime is not installed; the message names the install line.
        """

    def session(self, artifact: Artifact) -> Session:
        """The artefact in its runtime, to compare and to time.

        Raises:
            BackendError: the runtime is not installed; the message names the install line.
        """


class Supernet(Protocol):
    """All networks of a search space in one module with shared weights."""

    space: Space
    filename: str
    """The default file name."""
    params: int
    """Its trainable parameters."""
    source: str

    def write(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the source, whole or not at all, and return the path."""

    def load(self, seed: int | None = None) -> Any:
        """The module, with initial weights; `choose(vector)` sets it to a member of the space.

        Raises:
            BackendError: the runtime is not installed; the message names the install line.
        """

    def extract(
        self, vector: Sequence[int], state: Mapping[str, Any]
    ) -> tuple[str, dict[str, Array]]:
        """A member's text, and its weights cut out of the module's `state_dict`.

        Raises:
            ValueError: it is no member's vector.
            KeyError: the state is of another supernet.
        """


@dataclass(frozen=True)
class Emission:
    """An artefact's bytes, and files that must lie beside it, by name.

    A `Content` is made piece by piece when it is written. What lies beside is written first.
    """

    content: bytes | Content = field(repr=False)
    beside: Mapping[str, bytes | Content] = field(default_factory=dict, repr=False)

    @cached_property
    def data(self) -> bytes:
        """All of the artefact's bytes: in memory from then on."""
        return bytes(self.content)


@dataclass(frozen=True)
class Artifact:
    """What a backend made of a job."""

    job: Job
    backend: Backend
    emission: Emission

    def __repr__(self) -> str:
        return f"Artifact({self.filename!r}, {self.job.options.dtype}, {self.size:,} bytes)"

    @property
    def arch(self) -> Arch:
        return self.job.arch

    @property
    def data(self) -> bytes:
        """Its bytes, without what lies beside it; made when first asked for.

        Raises:
            OSError, ArchError: the file of weights is gone or was changed meanwhile (E0802); a
                folded weight is beyond float32 (E0803).
        """
        return self.emission.data

    @property
    def filename(self) -> str:
        """The default file name: the architecture's."""
        return self.job.filename

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return len(self.emission.content) + sum(map(len, self.emission.beside.values()))

    def write(self, path: str | os.PathLike[str] | None = None) -> str:
        """Write the artefact, each file whole or not at all, and return the path.

        All are on the disk before the first takes its place, those beside it (weights) first.
        Weights are drawn or read, and written, one by one. `-` is a file of that name.

        Raises:
            OSError: the folder or the disk refuses.
            ArchError: as for `data`; nothing is left behind.
        """
        target = Path(path if path is not None else self.filename)
        emission = self.emission
        if emission.beside and target.name != self.job.filename:
            # The artefact names the files beside it, which are named after it.
            renamed = replace(self.job, filename=target.name, given=self.job.weights)
            emission = _emission(self.backend, renamed)
        files: dict[str | os.PathLike[str], bytes | Content] = {
            target.parent / name: data for name, data in emission.beside.items()
        }
        files[os.fspath(path) if path is not None else target] = emission.content
        write_together(files)
        return os.fspath(target)

    def load(self) -> Any:
        """The artefact in its runtime: a `torch.nn.Module`, an onnxruntime `InferenceSession`, a
        LiteRT `Interpreter`."""
        return self.backend.load(self)

    def session(self) -> Session:
        """The artefact in its runtime, behind one face for all of them."""
        return self.backend.session(self)


def available() -> dict[str, EntryPoint]:
    """The installed backends by name.

    Raises:
        BackendError: two packages claim one name.
    """
    return installed(GROUP, "backends", BackendError)


def backend(name: str) -> Backend:
    """The backend of a name.

    Raises:
        BackendError: there is none, or it cannot be imported.
        TypeError: it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"backend {name!r}: must be a name, such as 'onnx'")
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
            f"the backend {name!r} ({entry.value} of {owner(entry)}) is broken: {error}"
        ) from error
    return made


def compile(
    arch: Arch,
    to: str,
    *,
    seed: int | None = None,
    weights: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    dtype: Precision = "float32",
    features: Iterable[str] = (),
    fold: bool = True,
    layers: bool = False,
    calibration: Array | str | os.PathLike[str] | None = None,
    preprocess: str | None = None,
    ranges: Method | Mapping[str, Range] = "mse",
    filename: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Artifact:
    """Compile an architecture with the backend called `to`.

    `weights` is a mapping by `state_dict` key or a safetensors file; without it, initial weights
    are drawn from `seed` (None: 0). They are drawn, or read from the file, when the artefact is
    written; arrays are copied. `features` names stages whose feature maps are outputs too;
    `fold=False` keeps the norms where the target has them; `layers` makes every operator's value an
    output.

    `calibration` holds images for int8: an array (count, height, width, channels), a `.npz` file
    with the array `images`, or a folder of photos, which `preprocess` says how to prepare
    (`archdsl.quantization.presets`); `ranges` says how their ranges are found (`minmax`,
    `percentile`, `mse`), or gives them. `filename` is the name it will be written under, `progress`
    is called with the calibration images done and their number.

    Raises:
        BackendError: no such backend, or it lacks a package or a precision.
        OSError: a file cannot be read.
        ArchError: the backend cannot express the architecture (E0701); weights (E08) or a
            calibration set (E0804) that do not fit it.
        TypeError, ValueError: an argument of another type, or a seed beside weights.
    """
    check_arch(arch)
    if seed is not None:
        check_seed(seed)
        if weights is not None:
            raise ValueError("seed: there is nothing to draw where weights are given")
    if not isinstance(ranges, Mapping) and ranges != "mse":
        # numpy takes its time to import, and most calls leave the default.
        from archdsl.quantization.ranges import METHODS

        if ranges not in METHODS:
            raise ValueError(f"ranges {ranges!r}: must be one of {', '.join(METHODS)}, or a table")
    given = _kept(weights)
    chosen = backend(to)
    dtypes = tuple(chosen.dtypes)
    if dtype not in dtypes:
        raise BackendError(f"the backend {to!r} writes {listed(dtypes, 'and')}, not {dtype!r}")
    options = Options(dtype, _stages(arch, features), fold, layers)
    name = filename or arch.name + chosen.suffix
    job = Job(arch, options, seed or 0, given, filename=name)
    if dtype == "int8":
        # They are needed several times: all are held.
        job = replace(job, given=dict(job.weights))
        found, how = _ranges(job, calibration, preprocess, ranges, progress)
        job = replace(job, ranges=found, calibrated=how)
    return Artifact(job, chosen, _emission(chosen, job))


def compile_supernet(space: Space, to: str = "torch") -> Supernet:
    """All networks of a search space as one module of the backend called `to`.

    Raises:
        BackendError: no such backend, or it has no supernets.
        ArchError: the backend cannot express the space (E0701, E0702), or the supernet is beyond
            the limits of networks (E0110).
        TypeError: it is no search space.
    """
    if not isinstance(space, Space):
        raise TypeError(
            f"a Space is wanted, not {type(space).__name__}: archdsl.load_space takes a name or a "
            "path, archdsl.parse_space a text"
        )
    make = getattr(backend(to), "supernet", None)
    if make is None:
        raise BackendError(f"the backend {to!r} makes no supernets; the backend 'torch' does")
    made: Supernet = make(space)
    return made


def check_arch(arch: object) -> None:
    """Raises: TypeError for what is no architecture, such as its name or text."""
    if not isinstance(arch, Arch):
        raise TypeError(
            f"an Arch is wanted, not {type(arch).__name__}: archdsl.load takes a name or a path, "
            "archdsl.parse a text"
        )


def check_seed(seed: object) -> None:
    """Raises: TypeError, ValueError for what is no whole number from 0 to 2**63 - 1."""
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed {seed!r}: must be a whole number")
    if not 0 <= seed < 2**63:
        raise ValueError(f"seed {seed}: must be from 0 to 2**63 - 1")


def checked_names(what: str, names: Iterable[Any]) -> tuple[Any, ...]:
    """The names that an argument lists, each once.

    Raises:
        TypeError: it is one string, whose characters would be taken for names, or no strings.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise TypeError(f"{what} {names!r}: must be a list of names")
    found = tuple(names)
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"{what} {list(found)}: names are texts")
    return tuple(dict.fromkeys(found))


def _kept(weights: object) -> Mapping[str, Any] | str | os.PathLike[str] | None:
    """Weights as they are now: the artefact is written later, and arrays may change."""
    if weights is None or isinstance(weights, (str, os.PathLike)):
        return weights
    if not isinstance(weights, Mapping):
        kind = type(weights).__name__
        raise TypeError(f"weights: a mapping of arrays or a path is wanted, not {kind}")
    if not all(isinstance(key, str) for key in weights):
        raise TypeError("weights: the keys of a mapping must be texts, those of a state_dict")
    from archdsl.ir.lazy import LazyWeights

    if isinstance(weights, LazyWeights):
        return weights
    import numpy as np

    return {key: np.array(value) for key, value in weights.items()}


def refuse_unknown(name: str, graph: Graph, known: Container[type]) -> None:
    """Check that a backend, by its name, knows the type of every operator of a graph.

    Raises:
        ArchError: E0701 for each node whose operator it does not know, in its place.
    """
    unknown = [node for node in graph if type(node.op) not in known]
    if unknown:
        raise ArchError(
            Diagnostic(
                "E0701",
                f"the backend {quoted(name)} has no operator for {quoted(node.op.name)} "
                f"({node.name})",
                node.origin.span if node.origin else None,
                "compile to another backend, or replace the block",
            )
            for node in unknown
        )


def _emission(chosen: Backend, job: Job) -> Emission:
    made = chosen.emit(job)
    return made if isinstance(made, Emission) else Emission(made)


def _stages(arch: Arch, features: Iterable[str]) -> tuple[str, ...]:
    asked = checked_names("features", features)
    sections = (path.split(".") for path, _ in arch.spec.sections())
    stages = [path[1] for path in sections if path[0] == "stages"]
    diagnostics = []
    for name in asked:
        if name not in stages:
            guess = did_you_mean(name, stages)
            has = f"stages: {listed(stages, 'and')}" if stages else "it has no stages"
            hint = f"did you mean {quoted(guess)}?" if guess else has
            message = f"{arch.name!r} has no stage {quoted(name)} to take feature maps from"
            diagnostics.append(Diagnostic("E0503", message, None, hint))
    if diagnostics:
        raise ArchError(diagnostics)
    return asked


def _ranges(
    job: Job,
    calibration: Array | str | os.PathLike[str] | None,
    preprocess: str | None,
    ranges: Method | Mapping[str, Range],
    progress: Callable[[int, int], None] | None,
) -> tuple[Mapping[str, Range], dict[str, str]]:
    """The ranges of a job's values, observed by running its float model, and how."""
    if isinstance(ranges, Mapping):
        return ranges, {"ranges": "given"}
    from archdsl.quantization.images import calibration_images
    from archdsl.quantization.ranges import observe

    if calibration is None:
        raise BackendError("int8 needs a calibration set: some hundred images like those to come")
    images = calibration_images(calibration, job.arch, preprocess)
    # Results stay readable: nothing is folded behind them, in the float file as in this one.
    options = Options(features=job.options.features, layers=True)
    float_job = replace(job, options=options)
    runner = backend("onnx")
    session = Artifact(float_job, runner, _emission(runner, float_job)).session()
    found = observe(
        lambda batch: session.values(session.run(session.feed(batch))), images, ranges, progress
    )
    # A name without its folders: an artefact is the same wherever it is made.
    known = isinstance(calibration, (str, os.PathLike))
    name = Path(calibration).resolve().name if known else "an array"  # type: ignore[arg-type]
    how = {"ranges": ranges, "calibration": name, "calibration_images": str(len(images))}
    return found, how | ({} if preprocess is None else {"preprocess": preprocess})
