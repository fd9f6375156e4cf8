"""One network in every runtime: `archdsl.verify` compares their values, and times them.

All are given the same weights and the same images, one image at a time. What they give is held
against PyTorch's values or, where PyTorch is not installed, against `archdsl.ir.execute`.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from archdsl.backend import (
    OUTPUT,
    PRECISIONS,
    Artifact,
    BackendError,
    Job,
    Precision,
    Session,
    available,
    backend,
    check_arch,
    check_seed,
    checked_names,
    compile,
)
from archdsl.compiler import Arch
from archdsl.departures import Joined, Trace, relative, trace
from archdsl.ir.execute import Array, execute
from archdsl.lang.diagnostics import ArchError
from archdsl.passes.fold import fold_batch_norm
from archdsl.quantization.images import no_class
from archdsl.quantization.ranges import DEFAULT
from archdsl.weights.lively import lively
from archdsl.weights.random import Stream

if TYPE_CHECKING:
    from archdsl.quantization.ranges import Method, Range

SCHEMA_VERSION = 1

TOLERANCE = 1e-4
"""The largest difference between float32 backends, as a share of the reference's largest value.

Sums in another order come to some 1e-6 of it, in float32 and through hundreds of operators; a wrong
epsilon, or a border that is padded on the other side, to 1e-3 and more.
"""

INNER_TOLERANCE = 3 * TOLERANCE
"""The same of every value inside, feature maps and single operators: no pooling behind them evens
rounding out, which in the hundreds of operators of EfficientNet-B7 comes to half of this."""

LEAST_LOGIT = 1e-3
"""Logits below it say nothing: a network that is almost constant hides nearly every fault."""

REFERENCE = "torch"
"""The backend whose values the others' are held against, where it can run."""

RANDOM_IMAGES = 4
"""Images drawn where none are given; of given ones, as many have their feature maps compared."""

_WARM_UP = 3


@dataclass(frozen=True)
class Comparison:
    """What one backend's artefact gave in one precision.

    A difference is the largest one, as a share of the reference's largest value; None where values
    cannot be compared, and `faults` says why. `agreement` and `accuracy` are shares of the images,
    None where there are no classes or no labels. `sqnr` is the output's signal-to-noise ratio in
    dB, None where nothing differs. `latency` is the median of the runs in microseconds, for one
    image on one thread.
    """

    backend: str
    dtype: Precision
    runtime: str
    is_reference: bool
    difference: float | None
    features: Mapping[str, float | None]
    agreement: float | None
    sqnr: float | None
    accuracy: float | None
    bytes: int
    latency: float | None
    faults: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as `--json` prints it."""
        return {
            "backend": self.backend,
            "dtype": self.dtype,
            "runtime": self.runtime,
            "reference": self.is_reference,
            "difference": self.difference,
            "features": dict(self.features),
            "agreement": self.agreement,
            "sqnr_db": self.sqnr,
            "accuracy": self.accuracy,
            "bytes": self.bytes,
            "latency_us": self.latency,
            "faults": list(self.faults),
        }


@dataclass(frozen=True)
class Skipped:
    """A backend that was not compared in a precision, and why."""

    backend: str
    dtype: Precision
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"backend": self.backend, "dtype": self.dtype, "why": self.why}


@dataclass(frozen=True)
class Report:
    """What `verify` found.

    `reference` says whose values the others were held against, `weights` which were used, `given`
    whether the images were, and are not random; `largest` is the reference's largest output.
    `faults` are those of the comparison as a whole; each backend has its own.
    """

    name: str
    input: tuple[int, ...]
    reference: str
    weights: str
    images: int
    given: bool
    labelled: bool
    largest: float
    runs: int
    machine: str
    comparisons: tuple[Comparison, ...]
    skipped: tuple[Skipped, ...]
    traces: tuple[Trace, ...]
    faults: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all backends agree."""
        return not self.all_faults() and not any(trace.first for trace in self.traces)

    def all_faults(self) -> list[str]:
        """What is wrong, a sentence each; operators that depart are in `traces`."""
        found = list(self.faults)
        for comparison in self.comparisons:
            label = f"{comparison.backend} {comparison.dtype}"
            found += [f"{label}: {fault}" for fault in comparison.faults]
        return found

    def to_json(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "input": list(self.input),
            "ok": self.ok,
            "faults": self.all_faults(),
            "reference": self.reference,
            "tolerance": TOLERANCE,
            "inner_tolerance": INNER_TOLERANCE,
            "weights": self.weights,
            "images": self.images,
            "given": self.given,
            "labelled": self.labelled,
            "largest": self.largest if np.isfinite(self.largest) else None,
            "runs": self.runs,
            "threads": 1,
            "machine": self.machine,
            "backends": [comparison.to_json() for comparison in self.comparisons],
            "skipped": [skipped.to_json() for skipped in self.skipped],
        }
        if self.traces:
            record["departures"] = [trace.summary() for trace in self.traces]
            record["layers"] = [row for trace in self.traces for row in trace.to_json()]
        return record


Progress = Callable[[str], None]


def verify(
    arch: Arch,
    *,
    weights: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    seed: int = 0,
    backends: Iterable[str] | None = None,
    dtypes: Iterable[Precision] = ("float32",),
    images: Array | None = None,
    labels: Array | Sequence[int] | None = None,
    calibration: Array | str | os.PathLike[str] | None = None,
    ranges: Method | Mapping[str, Range] = DEFAULT,
    runs: int = 20,
    layers: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compile a network with every installed backend, run them all, and compare what they give.

    `weights` is a mapping by `state_dict` key or a safetensors file; without it `lively` weights
    are drawn from `seed`, and images too where none are given (count, height, width, channels).
    `labels` are the images' classes. `calibration` and `ranges` are those of `archdsl.compile`,
    for int8. Each backend is timed for `runs` inferences, 0 for none. `layers` compares every
    operator of the float32 networks too. `progress` is called with what is done next.

    A backend whose runtime is not installed is skipped; the report says so.

    Raises:
        BackendError: no such backend; int8 without a calibration set.
        OSError: a file cannot be read.
        ArchError: a backend cannot express the architecture (E0701); weights (E08) that do not fit.
        ValueError: images or labels of another shape, labels that are no classes, an unknown
            precision, or no backend.
        TypeError, ValueError: an argument of another type, a seed that is none.
    """
    check_arch(arch)
    check_seed(seed)
    tell = progress or (lambda _: None)
    precisions: tuple[Precision, ...] = checked_names("dtypes", dtypes)
    installed = available()
    names = checked_names("backends", sorted(installed) if backends is None else backends)
    unknown = [dtype for dtype in precisions if dtype not in PRECISIONS]
    if unknown or not precisions:
        raise ValueError(f"dtypes {list(precisions)}: must be some of {', '.join(PRECISIONS)}")
    if backends is not None and not names:
        raise ValueError("backends: must name one at least")
    for name in names:
        if name not in installed:
            backend(name)  # says so, and what was meant
    if "int8" in precisions and calibration is None and not isinstance(ranges, Mapping):
        raise BackendError("int8 needs a calibration set: some hundred images like those to come")
    tell("weights")
    if weights is None:
        values, whose = lively(arch, seed), f"random and lively, of seed {seed}"
    else:
        values = dict(Job(arch, given=weights).weights)
        whose = "given" if isinstance(weights, Mapping) else os.fspath(weights)
    pictures = _images(arch, images, seed)
    classes = _labels(arch, labels, len(pictures))
    bench = _Bench(arch, values, pictures, calibration, ranges, runs, tell)

    measured: list[_Measured] = []
    skipped: list[Skipped] = []
    for name, dtype in _order(names, precisions):
        try:
            if backends is not None or dtype in backend(name).dtypes:
                measured.append(bench.measure(name, dtype))
        except BackendError as failure:
            if name in names:
                skipped.append(Skipped(name, dtype, str(failure)))
        except ArchError:
            # What was not asked for is no more than a reference.
            if name in names:
                raise
    reference, whom = bench.reference(measured)
    largest = float(np.abs(reference.outputs).max(initial=0))
    faults = []
    if not measured:
        faults.append("no backend could be run")
    elif not largest >= LEAST_LOGIT:
        faults.append(
            f"the largest output of the reference is {largest:.1e}, too little to compare by: "
            "weights as they are before training, or of another network"
        )
    for dtype in precisions:
        if measured and not any(m.dtype == dtype for m in measured):
            faults.append(f"nothing could be compared in {dtype}")
    comparisons = tuple(_compared(m, reference, classes) for m in measured)
    traces: tuple[Trace, ...] = ()
    if layers:
        tell("operators, in the reference")
        whole = [m for m in measured if m.dtype == "float32" and m.values is not None]
        image = _worst_image([m.values.outputs for m in whole if m.values], reference.outputs)
        traces = tuple(bench.traces([m.backend for m in whole], image))
        traces = _with_joined(traces, comparisons, arch)
    return Report(
        name=arch.name,
        input=arch.input,
        reference=whom,
        weights=whose,
        images=len(pictures),
        given=images is not None,
        labelled=classes is not None,
        largest=largest,
        runs=runs,
        machine=_machine(),
        comparisons=comparisons,
        skipped=tuple(skipped),
        traces=traces,
        faults=tuple(faults),
    )


def _order(
    names: Sequence[str], precisions: Sequence[Precision]
) -> Iterator[tuple[str, Precision]]:
    """What to measure, the reference first."""
    if REFERENCE in available():
        yield REFERENCE, "float32"
    for dtype in precisions:
        for name in names:
            if (name, dtype) != (REFERENCE, "float32"):
                yield name, dtype


def _images(arch: Arch, given: Array | None, seed: int) -> Array:
    if given is None:
        count = RANDOM_IMAGES * int(np.prod(arch.input))
        return Stream(seed, "verify").normal(count, 1.0).reshape(-1, *arch.input)
    images = np.asarray(given, np.float32)
    if not len(images) or images.shape[1:] != arch.input:
        raise ValueError(f"images must be (count, {', '.join(map(str, arch.input))})")
    return images


def _labels(arch: Arch, given: Array | Sequence[int] | None, count: int) -> Array | None:
    if given is None:
        return None
    labels = np.asarray(given)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(f"labels must be {count} whole numbers, one for each image")
    bad = no_class(labels, arch)
    if bad is not None:
        raise ValueError(f"the label {bad} is no class of the network")
    return labels


# ------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Values:
    """What a runtime gave: its outputs for all images, its feature maps for the first few."""

    outputs: Array
    features: Mapping[str, Array]


@dataclass(frozen=True)
class _Measured:
    backend: str
    dtype: Precision
    runtime: str
    bytes: int
    values: _Values | None
    latency: float | None
    faults: tuple[str, ...] = ()


class _Bench:
    """A network, its weights and images; what each backend makes of them."""

    def __init__(
        self,
        arch: Arch,
        weights: Mapping[str, Array],
        images: Array,
        calibration: Array | str | os.PathLike[str] | None,
        ranges: Method | Mapping[str, Range],
        runs: int,
        tell: Progress,
    ) -> None:
        self.arch, self.weights, self.images, self.runs = arch, weights, images, runs
        self.stages = tuple(arch.graph().features)
        self._calibration, self._ranges, self._tell = calibration, ranges, tell
        self._observed: dict[tuple[str, ...], Mapping[str, Range]] = {}
        self._doing = ""

    def measure(self, name: str, dtype: Precision) -> _Measured:
        """Compile, run and time.

        Raises:
            BackendError: a package is missing, or the backend does not write that precision.
            ArchError: the backend cannot express the architecture.
        """
        self._doing = f"{name} {dtype}"
        self._tell(self._doing)
        size = 0
        try:
            artifact = self._compiled(name, dtype)
            size = artifact.size
            session = artifact.session()
            outputs = [self._run(session, image)[OUTPUT] for image in self._single(self.images)]
            latency = self._latency(session)
            values = _Values(np.concatenate(outputs), self._features(name, dtype))
        except (BackendError, ArchError, OSError, MemoryError):
            raise
        except Exception as failure:
            # A runtime that refuses its artefact is what we look for, however it says so.
            fault = f"fails with {type(failure).__name__}: {failure}"[:400]
            return _Measured(name, dtype, _runtime(name), size, None, None, (fault,))
        return _Measured(name, dtype, _runtime(name), size, values, latency)

    def reference(self, measured: Sequence[_Measured]) -> tuple[_Values, str]:
        """The values to compare with, and whose they are."""
        first = measured[0] if measured else None
        if first and first.values and first.backend == REFERENCE and len(measured) > 1:
            return first.values, f"{first.runtime}, float32"
        self._tell("the reference")
        graph = self.arch.graph()
        outputs, maps = [], []
        for index, image in enumerate(self._single(self.images)):
            found = execute(graph, self.weights, image.astype(np.float64), keep=graph.kept)
            outputs.append(found[graph.output])
            if index < RANDOM_IMAGES:
                maps.append({stage: found[node] for stage, node in graph.features.items()})
        return _Values(np.concatenate(outputs), _joined(maps)), "archdsl.ir.execute, float64"

    def traces(self, names: Iterable[str], image: int) -> Iterator[Trace]:
        """Every operator's values for an image in each backend, against the executor's."""
        yield from trace(
            self.arch,
            self.weights,
            self.images[image : image + 1],
            {name: self._compiled(name, "float32", layers=True) for name in names},
            INNER_TOLERANCE,
        )

    def _compiled(
        self, name: str, dtype: Precision, features: tuple[str, ...] = (), **options: Any
    ) -> Artifact:
        # Observed once for all backends; again only where kept feature maps change what is folded.
        values: tuple[str, ...] = ()
        if dtype == "int8":
            graph = self.arch.graph().keeping(features)
            values = tuple(fold_batch_norm(graph, self.weights).graph.table)
        artifact = compile(
            self.arch,
            name,
            weights=self.weights,
            dtype=dtype,
            calibration=self._calibration,
            features=features,
            ranges=self._observed.get(values, self._ranges),
            progress=self._calibrating,
            **options,
        )
        if artifact.job.ranges is not None:
            self._observed[values] = artifact.job.ranges
        return artifact

    def _features(self, name: str, dtype: Precision) -> Mapping[str, Array]:
        """Feature maps, from an artefact of its own: as outputs they would cost the other time."""
        if not self.stages:
            return {}
        session = self._compiled(name, dtype, features=self.stages).session()
        found = [self._run(session, image) for image in self._single(self.images[:RANDOM_IMAGES])]
        return _joined([{stage: maps[stage] for stage in self.stages} for maps in found])

    def _calibrating(self, done: int, total: int) -> None:
        self._tell(self._doing if done == total else f"{self._doing}, calibration {done}/{total}")

    @staticmethod
    def _single(images: Array) -> Iterator[Array]:
        for index in range(len(images)):
            yield images[index : index + 1]

    @staticmethod
    def _run(session: Session, image: Array) -> dict[str, Array]:
        found = session.values(session.run(session.feed(image)))
        # A runtime may give its own memory, which the next inference writes over.
        return {name: np.array(value) for name, value in found.items()}

    def _latency(self, session: Session) -> float | None:
        fed = session.feed(self.images[:1])
        times = []
        for index in range(_WARM_UP + self.runs if self.runs else 0):
            start = time.perf_counter()
            session.run(fed)
            if index >= _WARM_UP:
                times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6 if times else None


def _joined(maps: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([found[name] for found in maps]) for name in maps[0]}


def _runtime(name: str) -> str:
    """The package that runs a backend's artefacts, with its version."""
    package = backend(name).runtime
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


# ------------------------------------------------------------------------------------- comparing


def _compared(measured: _Measured, reference: _Values, labels: Array | None) -> Comparison:
    faults = list(measured.faults)
    difference = agreement = sqnr = accuracy = None
    features: dict[str, float | None] = {}
    is_reference = measured.values is reference
    if measured.values is not None:
        found, wanted = measured.values.outputs, reference.outputs
        difference = _difference(found, wanted, OUTPUT, faults)
        for stage, value in reference.features.items():
            features[stage] = _difference(measured.values.features[stage], value, stage, faults)
        # A vector of several classes has a first one.
        if difference is not None and wanted.ndim == 2 and wanted.shape[1] > 1:
            first = found.argmax(axis=1)
            agreement = float((first == wanted.argmax(axis=1)).mean())
            accuracy = float((first == labels).mean()) if labels is not None else None
        if difference is not None:
            sqnr = _sqnr(found, wanted)
        if measured.dtype == "float32":
            for name, share in {OUTPUT: difference, **features}.items():
                limit = _limit(name)
                if share is not None and share > limit:
                    what = "the largest output" if name == OUTPUT else f"the largest of {name}"
                    faults.append(f"differs by {share:.1e} of {what}; the limit is {limit:.0e}")
    return Comparison(
        backend=measured.backend,
        dtype=measured.dtype,
        runtime=measured.runtime,
        is_reference=is_reference,
        difference=difference,
        features=features,
        agreement=agreement,
        sqnr=sqnr,
        accuracy=accuracy,
        bytes=measured.bytes,
        latency=measured.latency,
        faults=tuple(faults),
    )


def _limit(name: str) -> float:
    """The largest difference that is no fault, of the output or of a stage's feature map."""
    return TOLERANCE if name == OUTPUT else INNER_TOLERANCE


def _departs(name: str, difference: float | None) -> bool:
    return difference is None or difference > _limit(name)


def _worst_image(outputs: Sequence[Array], wanted: Array) -> int:
    """The image on which outputs differ most: where a fault is to be looked for."""
    with np.errstate(invalid="ignore"):
        differences = [np.abs(found - wanted) for found in outputs if found.shape == wanted.shape]
    if not differences:
        return 0
    # The first one where values are not numbers.
    return int(np.max(differences, axis=0).reshape(len(wanted), -1).max(axis=1).argmax())


def _with_joined(
    traces: Iterable[Trace], comparisons: Iterable[Comparison], arch: Arch
) -> tuple[Trace, ...]:
    """The traces, with what departs only as a whole: compiled with layers nothing is joined."""
    whole = {c.backend: c for c in comparisons if c.dtype == "float32"}
    of = {trace.backend: trace for trace in traces}
    # Against a reference that is at fault itself, everything departs.
    doubtful = any(whole[name].is_reference and trace.first for name, trace in of.items())
    return tuple(
        trace if doubtful else replace(trace, joined=_joined_fault(trace, whole[name], arch))
        for name, trace in of.items()
    )


def _joined_fault(trace: Trace, whole: Comparison, arch: Arch) -> Joined | None:
    stage = next((name for name, share in whole.features.items() if _departs(name, share)), None)
    if stage is None and not _departs(OUTPUT, whole.difference):
        return None
    if trace.first or not trace.layers or _departs(OUTPUT, trace.layers[-1].difference):
        return None
    inside = f"stages.{stage}."
    origins = (node.origin for node in arch.graph() if node.origin)
    spans = (origin.span for origin in origins if origin.path.startswith(inside))
    return Joined(stage, next(spans, None))


def _difference(found: Array, wanted: Array, name: str, faults: list[str]) -> float | None:
    """The largest difference as a share of the largest value, or None with a fault."""
    if found.shape != wanted.shape:
        sizes = "x".join(map(str, found.shape)), "x".join(map(str, wanted.shape))
        faults.append(f"{name} has the shape {sizes[0]}, the reference's is {sizes[1]}")
        return None
    if not np.isfinite(found).all():
        faults.append(f"{name} holds values that are infinite or not numbers")
        return None
    return relative(found, wanted)


def _sqnr(found: Array, wanted: Array) -> float | None:
    signal = wanted.astype(np.float64)
    noise = float(((found - signal) ** 2).sum())
    power = float((signal**2).sum())
    return 10 * float(np.log10(power / noise)) if noise and power else None
