"""`archdsl verify`: that backends which agree pass, and that each way to differ is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.backend import GROUP, Artifact, BackendError, Emission, Job, Session, backend
from archdsl.cli.program import program
from archdsl.departures import Layer, Trace, relative
from archdsl.ir.execute import execute
from archdsl.ir.node import Node
from archdsl.ir.ops import Activation, BatchNorm, Conv2d
from archdsl.quantization import ranges
from archdsl.verification import INNER_TOLERANCE, TOLERANCE, Report, verify
from archdsl.weights.initial import initialize
from archdsl.weights.lively import lively
from archdsl.weights.store import save_weights

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("ai_edge_litert")

PICO = Path(__file__).parent.parent / "docs" / "pico.arch"

Run = Callable[..., Result]


@pytest.fixture
def pico() -> archdsl.Arch:
    return archdsl.load(PICO)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `archdsl` with these words, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}

    def call(*words: object) -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, [str(w) for w in words], prog_name="archdsl")

    return call


# -- backends that differ ------------------------------------------------------------------------


class Faulty:
    """The ONNX backend, given another network than it was asked for."""

    suffix = ".onnx"
    runtime = "onnxruntime"
    dtypes = ("float32",)

    def __init__(self) -> None:
        self.right = backend("onnx")

    def changed(self, node: Node) -> Node:
        return node

    def emit(self, job: Job) -> Emission:
        wrong = replace(job, given=job.weights)
        graph = job.graph.replaced([self.changed(node) for node in job.graph])
        # A job makes its graph when it is first asked for it.
        vars(wrong)["graph"] = graph
        made = self.right.emit(wrong)
        assert isinstance(made, Emission)
        return made

    def load(self, artifact: Artifact) -> Any:
        return self.right.load(artifact)

    def session(self, artifact: Artifact) -> Session:
        return self.right.session(artifact)


class OtherActivation(Faulty):
    """Ends the second block's first convolution with hard-swish."""

    def changed(self, node: Node) -> Node:
        here = node.name == "stages.c2.0.expand.act"
        return node._replace(op=Activation("hswish")) if here else node


class OtherEps(Faulty):
    def changed(self, node: Node) -> Node:
        if isinstance(node.op, BatchNorm) and node.name.startswith("stages.c3.0"):
            return node._replace(op=replace(node.op, eps=node.op.eps * 100))
        return node


class OtherPadding(Faulty):
    """Pads the other side of an even image."""

    def changed(self, node: Node) -> Node:
        if isinstance(node.op, Conv2d) and node.op.padding[0] != node.op.padding[1]:
            top, bottom, left, right = node.op.padding
            return node._replace(op=replace(node.op, padding=(bottom, top, right, left)))
        return node


class OtherResidual(Faulty):
    def changed(self, node: Node) -> Node:
        if node.name != "stages.c3.2.add":
            return node
        # What the block made, added to an earlier map of that shape.
        (source,) = (name for name in node.inputs if not name.endswith(".add"))
        return node._replace(inputs=("stages.c3.0.project.norm", source))


class OtherValues(Faulty):
    """Gives what `turned` makes of the right values."""

    def turned(self, value: Any) -> Any:
        raise NotImplementedError

    def session(self, artifact: Artifact) -> Session:
        session, turned = self.right.session(artifact), self.turned

        class Turned:
            def feed(self, images: Any) -> Any:
                return session.feed(images)

            def run(self, fed: Any) -> Any:
                return session.run(fed)

            def values(self, results: Any) -> Any:
                return {name: turned(value) for name, value in session.values(results).items()}

        return Turned()


class Infinite(OtherValues):
    def turned(self, value: Any) -> Any:
        return np.where(value == value.max(), np.inf, value)


class OtherShape(OtherValues):
    def turned(self, value: Any) -> Any:
        return value[..., :-1]


class Crashing(Faulty):
    def session(self, artifact: Artifact) -> Session:
        raise RuntimeError("[ONNXRuntimeError] : 10 : INVALID_GRAPH")


class Absent(Faulty):
    def session(self, artifact: Artifact) -> Session:
        raise BackendError('no runtime; pip install "archdsl[absent]"')


class Missing:
    """Lacks a package that it writes with."""

    suffix = ".bin"
    runtime = "absent"
    dtypes = ("float32",)

    def emit(self, job: Job) -> Emission:
        raise BackendError('no writer; pip install "archdsl[absent]"')


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have these backends installed, by name; classes of this file beside the real ones."""

    def call(*names: str, **classes: type) -> None:
        real = [entry for entry in entry_points(group=GROUP) if entry.name in names]
        ours = [
            EntryPoint(name, f"{cls.__module__}:{cls.__name__}", GROUP)
            for name, cls in classes.items()
        ]
        monkeypatch.setattr("archdsl.plugins.entry_points", lambda group: [*real, *ours])

    return call


def by_name(report: Report, name: str) -> Any:
    (found,) = [comparison for comparison in report.comparisons if comparison.backend == name]
    return found


# -- agreement -----------------------------------------------------------------------------------


def test_the_backends_agree(run: Run) -> None:
    result = run("verify", PICO, "--runs", "2")
    assert result.exit_code == 0, result.output
    assert not result.stderr
    head, *lines = result.stdout.splitlines()
    assert head == ("pico: input 96x96x3, 4 random images, weights random and lively, of seed 0")
    rows = {line.split()[0]: line for line in lines if line.startswith(("torch", "onnx", "tfl"))}
    assert list(rows) == ["torch", "onnx", "tflite"]
    assert "reference" in rows["torch"]
    for name in ("onnx", "tflite"):
        assert "100.0%" in rows[name]
        assert rows[name].endswith("µs")
    notes = " ".join(lines)
    for phrase in ("median of 2 runs", "one thread", "onnxruntime 1", "ai-edge-litert 2", "torch"):
        assert phrase in notes


def test_json_is_the_whole_report(run: Run) -> None:
    result = run("verify", PICO, "--runs", "3", "--layers", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["ok"], found["faults"], found["threads"], found["runs"]) == (True, [], 1, 3)
    assert found["reference"].startswith("torch 2")
    assert found["largest"] > 1
    for record in found["backends"]:
        assert record["difference"] <= TOLERANCE
        assert record["agreement"] == 1
        assert record["latency_us"] > 0
        assert record["bytes"] > 280_000
        assert list(record["features"]) == ["c2", "c3"]
        assert all(value <= TOLERANCE for value in record["features"].values())
    assert [record["first"] for record in found["departures"]] == [None] * 3
    nodes = {(row["backend"], row["node"]): row for row in found["layers"]}
    row = nodes["tflite", "stages.c3.1.se.gate"]
    assert (row["op"], row["block"], row["line"]) == ("activation", "stages.c3.1", 15)
    assert row["difference"] < TOLERANCE
    # Every operator of ONNX and TFLite, the modules of PyTorch.
    assert {name for (name, _) in nodes} == {"torch", "onnx", "tflite"}
    missing = {record["backend"]: record["missing"] for record in found["departures"]}
    assert missing["onnx"] == missing["tflite"] == 0


@pytest.mark.parametrize("name", ["mnv1_025", "mnv2_035", "mnv3_small", "mnv4_hybrid_m_075"])
def test_published_networks_agree(name: str) -> None:
    report = verify(archdsl.load(name, input=(96, 96, 3)), runs=0, layers=True)
    assert report.ok, report.all_faults()
    assert {c.backend for c in report.comparisons} == {"torch", "onnx", "tflite"}
    assert report.largest > 1


def test_a_network_without_stages_or_classes() -> None:
    arch = archdsl.parse("arch a input 16x16x3 stem { conv_k3_s22_o8 }")
    report = verify(arch, runs=0, layers=True)
    assert report.ok, report.all_faults()
    assert [(c.agreement, dict(c.features)) for c in report.comparisons] == [(None, {})] * 3


def test_half_precision_is_no_failure(pico: archdsl.Arch) -> None:
    report = verify(pico, dtypes=["float32", "float16"], runs=0)
    assert report.ok
    sizes = {(c.backend, c.dtype): c.bytes for c in report.comparisons}
    halves = [c for c in report.comparisons if c.dtype == "float16"]
    assert {c.backend for c in halves} == {"onnx", "tflite"}
    for comparison in halves:
        assert comparison.difference and comparison.difference > TOLERANCE
        assert comparison.sqnr and 40 < comparison.sqnr < 90
        assert comparison.latency is None
        assert comparison.bytes < 0.6 * sizes[comparison.backend, "float32"]


def test_integers_are_judged_by_their_noise(
    pico: archdsl.Arch, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).normal(size=(6, *pico.input)).astype(np.float32)
    observed = []
    observe = ranges.observe
    monkeypatch.setattr(ranges, "observe", lambda *a: observed.append(a) or observe(*a))
    dtypes = ["int8", "int8_dynamic"]
    report = verify(pico, dtypes=dtypes, calibration=images, backends=["onnx", "tflite"], runs=0)
    assert report.ok, report.all_faults()
    found = {(c.backend, c.dtype): c for c in report.comparisons}
    assert {"onnx", "tflite"} == {name for name, dtype in found if dtype == "int8"}
    for comparison in report.comparisons[1:]:
        assert comparison.sqnr and comparison.sqnr > 15, comparison
    # Both have the same ranges, from one run of the float network.
    assert len(observed) == 1


def test_feature_maps_that_stop_a_norm_from_being_folded() -> None:
    arch = archdsl.parse(
        "arch net input 16x16x3 stage c1 { conv_k1_o16_linear } stage c2 { mqa_h2_d8_noskip } "
        "head { pool fc_o4 }"
    )
    images = np.random.default_rng(0).normal(size=(4, *arch.input)).astype(np.float32)
    report = verify(arch, dtypes=["float32", "int8"], calibration=images, runs=0, layers=True)
    assert report.ok, report.all_faults()
    integers = [c for c in report.comparisons if c.dtype == "int8"]
    assert {c.backend for c in integers} == {"onnx", "tflite"}
    for comparison in integers:
        assert comparison.sqnr and comparison.sqnr > 15, comparison


def test_the_same_seed_gives_the_same_report(pico: archdsl.Arch) -> None:
    one, two, three = (verify(pico, seed=seed, runs=0).to_json() for seed in (0, 0, 1))
    assert one == two
    assert one["largest"] != three["largest"]


def test_weights_and_images_that_are_given(pico: archdsl.Arch, tmp_path: Path) -> None:
    weights = lively(pico, 3)
    save_weights(tmp_path / "w.safetensors", weights)
    images = np.random.default_rng(0).normal(size=(7, *pico.input))
    graph = pico.graph()
    labels = execute(graph, weights, images)[graph.output].argmax(axis=1)
    labels[0] = (labels[0] + 1) % 10
    one = verify(pico, weights=tmp_path / "w.safetensors", images=images, labels=labels, runs=0)
    two = verify(pico, weights=weights, images=images, labels=labels, runs=0)
    assert one.comparisons == two.comparisons
    assert (one.images, one.given, one.labelled) == (7, True, True)
    assert {c.accuracy for c in one.comparisons} == {6 / 7}


@pytest.mark.parametrize("shape", [(0, 96, 96, 3), (2, 3, 96, 96), (96, 96, 3)])
def test_images_of_another_shape(pico: archdsl.Arch, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must be \(count, 96, 96, 3\)"):
        verify(pico, images=np.zeros(shape))


@pytest.mark.parametrize("labels", [[1], [1.0, 2.0], [[1, 2]]])
def test_labels_of_another_shape(pico: archdsl.Arch, labels: Any) -> None:
    with pytest.raises(ValueError, match="labels must be 2 whole numbers"):
        verify(pico, images=np.zeros((2, 96, 96, 3)), labels=labels)


@pytest.mark.parametrize("label", [10, -1])
def test_labels_that_are_no_classes(pico: archdsl.Arch, label: int) -> None:
    with pytest.raises(ValueError, match=f"the label {label} is no class of the network"):
        verify(pico, images=np.zeros((2, 96, 96, 3)), labels=[0, label])


def test_lively_attention_is_no_matter_of_rounding() -> None:
    """With scores of some hundreds softmax picks one position, and rounding says which."""
    arch = archdsl.load("mnv4_hybrid_m")
    graph, weights = arch.graph(), lively(arch)
    image = np.random.default_rng(0).normal(size=(1, *arch.input))
    double = execute(graph, weights, image)[graph.output]
    single = execute(graph, weights, image.astype(np.float32))[graph.output]
    assert relative(single, double) < TOLERANCE / 5


@pytest.mark.parametrize("side", [64, 224, 448])
def test_lively_logits_are_of_one_size_at_every_image(side: int) -> None:
    """Values that grow with the image would leave float32 no digits in a deep network."""
    arch = archdsl.load("efficientnet_b0", input=(side, side, 3))
    graph = arch.graph()
    image = np.random.default_rng(0).normal(size=(1, *arch.input)).astype(np.float32)
    logits = execute(graph, lively(arch), image, keep=[graph.output])[graph.output]
    assert 3 < np.abs(logits).max() < 30


# -- what is compared with what ------------------------------------------------------------------


def test_without_pytorch_the_reference_is_ours(
    install: Callable[..., None], pico: archdsl.Arch
) -> None:
    install("onnx", "tflite")
    report = verify(pico, runs=0)
    assert report.ok
    assert report.reference == "archdsl.ir.execute, float64"
    assert [c.is_reference for c in report.comparisons] == [False, False]


def test_one_backend_is_compared_with_our_own_reference(pico: archdsl.Arch) -> None:
    report = verify(pico, backends=["torch"], runs=0)
    assert report.ok
    assert report.reference == "archdsl.ir.execute, float64"
    assert 0 < by_name(report, "torch").difference < TOLERANCE


def test_pytorch_is_the_reference_where_others_are_asked_for(pico: archdsl.Arch) -> None:
    report = verify(pico, backends=["tflite"], runs=0)
    assert [c.backend for c in report.comparisons] == ["torch", "tflite"]
    assert report.reference.startswith("torch 2")


def test_a_missing_runtime_is_skipped_with_its_install_line(
    install: Callable[..., None], run: Run
) -> None:
    install("torch", "onnx", absent=Absent)
    result = run("verify", PICO, "--runs", "0")
    assert result.exit_code == 0, result.output
    assert result.stderr == 'skipped absent float32: no runtime; pip install "archdsl[absent]"\n'


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("torch", "torch", "torch"),
        ("onnxruntime", "onnx", "onnx"),
        ("ai_edge_litert", "tflite", "tflite"),
    ],
)
def test_a_package_that_is_not_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    for loaded in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("verify", PICO, "--runs", "0")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"skipped {name} float32: ")
    assert f'pip install "archdsl[{extra}]"' in result.stderr


def test_no_backend_at_all_is_a_failure(install: Callable[..., None], run: Run) -> None:
    install(absent=Missing)
    result = run("verify", PICO, "--runs", "0")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("error: no backend could be run\n")


def test_a_backend_that_there_is_not(run: Run) -> None:
    result = run("verify", PICO, "--backend", "tflit")
    assert result.exit_code == 2
    assert "did you mean 'tflite'?" in result.stderr


# -- differences ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "node", "line"),
    [
        (OtherActivation, "stages.c2.0.expand.act", 12),
        (OtherEps, "stages.c3.0.start.conv", 14),
        (OtherPadding, "stem.0.conv", 11),
        (OtherResidual, "stages.c3.2.add", 15),
    ],
)
def test_a_fault_is_found_and_its_operator_named(
    install: Callable[..., None], run: Run, fault: type, node: str, line: int
) -> None:
    install("torch", "onnx", wrong=fault)
    result = run("verify", PICO, "--runs", "0", "--layers")
    assert result.exit_code == 1
    assert "error: wrong float32: differs by " in result.stderr
    assert f"error: wrong: `{node}`" in result.stderr
    assert f"{PICO}:{line}:" in result.stderr
    assert "^^^ here" in result.stderr
    assert "onnx: none of 40 operators departs" in result.stderr
    result = run("verify", PICO, "--runs", "0", "--layers", "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["ok"]
    firsts = {record["backend"]: record["first"] for record in found["departures"]}
    assert firsts == {"torch": None, "onnx": None, "wrong": node}


@pytest.mark.parametrize(("stage", "line"), [("c2", 12), ("c3", 14), (None, None)])
def test_a_fault_in_what_is_joined_is_narrowed_to_a_stage(
    run: Run, monkeypatch: pytest.MonkeyPatch, stage: str | None, line: int | None
) -> None:
    """A kernel that shall clamp and does not: with layers the relu is an operator of its own."""
    plan = import_module("archdsl.backends.tflite_plan")
    clamping = plan._clamping
    start = f"stages.{stage}" if stage else "head"

    def forgets(node: Node) -> int:
        here = isinstance(node.op, Activation) and node.name.startswith(start)
        return plan.ACTIVATIONS[None] if here else clamping(node)

    monkeypatch.setattr(plan, "_clamping", forgets)
    result = run("verify", PICO, "--runs", "0", "--layers", "--backend", "tflite")
    assert result.exit_code == 1
    assert "tflite: no operator departs by itself: the fault lies in what the back" in result.stderr
    assert "compiled with layers it agrees" in result.stderr
    if stage:
        assert f"{PICO}:{line}:" in result.stderr
        assert f"the first feature map that departs is that of the stage `{stage}`" in result.stderr
    else:
        assert "no feature map departs" in result.stderr
    result = run("verify", PICO, "--runs", "0", "--layers", "--backend", "tflite", "--json")
    found = {record["backend"]: record for record in json.loads(result.stdout)["departures"]}
    wanted = {"first": None, "joined": True, "stage": stage, "line": line}
    assert found["tflite"].items() >= wanted.items()
    assert not found["torch"]["joined"]


def test_rounding_in_an_operator_is_no_departure() -> None:
    """Feature maps and operators have one limit: what a map may, the operator that gives it may."""
    text = "arch a input 16x16x3 stage c1 { conv_k3_o8_linear } head { pool fc_o4 }"
    node = archdsl.parse(text).graph().nodes[-1]
    for difference, departs in ((0.9 * INNER_TOLERANCE, False), (1.1 * INNER_TOLERANCE, True)):
        trace = Trace("wrong", (Layer(node, difference),), 0, INNER_TOLERANCE)
        assert (trace.first is not None) is departs
    report = verify(archdsl.parse(text), runs=0, layers=True)
    assert {trace.limit for trace in report.traces} == {INNER_TOLERANCE}


def test_layers_where_a_backend_fails(install: Callable[..., None]) -> None:
    install("torch", "onnx", wrong=Crashing)
    report = verify(archdsl.load(PICO), runs=0, layers=True)
    assert not report.ok
    assert [trace.backend for trace in report.traces] == ["torch", "onnx"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Infinite, "output holds values that are infinite or not numbers"),
        (OtherShape, "output has the shape 4x9, the reference's is 4x10"),
        (Crashing, "fails with RuntimeError: [ONNXRuntimeError] : 10"),
    ],
)
def test_what_cannot_be_compared_is_a_failure(
    install: Callable[..., None], run: Run, fault: type, said: str
) -> None:
    install("torch", "onnx", wrong=fault)
    result = run("verify", PICO, "--runs", "0")
    assert result.exit_code == 1
    assert f"error: wrong float32: {said}" in result.stderr
    result = run("verify", PICO, "--runs", "0", "--json")
    (record,) = (r for r in json.loads(result.stdout)["backends"] if r["backend"] == "wrong")
    assert record["difference"] is None
    assert record["faults"][0].startswith(said)


def test_values_that_are_not_finite_are_a_departure(install: Callable[..., None]) -> None:
    install("torch", "onnx", wrong=Infinite)
    report = verify(archdsl.load(PICO), runs=0, layers=True)
    (trace,) = (trace for trace in report.traces if trace.backend == "wrong")
    assert trace.first and trace.first.difference is None
    diagnostic = trace.diagnostic()
    assert diagnostic and "not finite" in diagnostic.message


def test_logits_near_zero_are_a_failure(run: Run, pico: archdsl.Arch) -> None:
    weights = initialize(pico.graph())
    weights["head.2.weight"] *= 1e-6
    save_weights("tiny.safetensors", weights)
    result = run("verify", PICO, "--weights", "tiny.safetensors", "--runs", "0")
    assert result.exit_code == 1
    assert "too little to compare by" in result.stderr


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "wanted"),
    [
        (("--weights", "w", "--seed", "1"), 2, "exclude each other"),
        (("--dtype", "int8"), 2, "--calibration X.npz"),
        (("--calibration", "x.npz"), 2, "--calibration is for --dtype int8"),
        (("--preprocess", "imagenet"), 2, "--preprocess"),
        (("--weights", "nowhere"), 2, "nowhere: No such file"),
        (("--runs", "-1"), 2, "at least 0"),
    ],
)
def test_misuse(run: Run, words: tuple[str, ...], status: int, wanted: str) -> None:
    result = run("verify", PICO, *words)
    assert result.exit_code == status
    assert wanted in result.stderr


def test_what_a_backend_cannot_express_is_an_error_of_the_input(run: Run) -> None:
    Path("net.arch").write_text("arch net input 8x8x3 stage pop { k3_o16 } head { pool fc_o4 }")
    result = run("verify", "net.arch", "--runs", "0")
    assert result.exit_code == 1
    assert "error[E0702]" in result.stderr
    # PyTorch was not asked for, and is no more than a reference.
    assert run("verify", "net.arch", "--runs", "0", "--backend", "onnx").exit_code == 0


def test_runtimes_are_silent(tmp_path: Path) -> None:
    """LiteRT greets on standard error, past Python."""
    command = [sys.executable, "-m", "archdsl", "verify", str(PICO), "--runs", "0"]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_python_says_comes_through_the_silence() -> None:
    script = (
        "import os, sys\n"
        "from archdsl.cli.quiet import hushed\n"
        "with hushed():\n"
        "    os.write(2, b'library ')\n"
        "    print('program', file=sys.stderr)\n"
        "os.write(2, b'after')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stderr == b"program\nafter"


def test_relative_difference() -> None:
    assert relative(np.array([1.0, -4.5]), np.array([1.0, -4.0])) == 0.125
    assert relative(np.array([0.5]), np.array([0.0])) == 0.5
    assert relative(np.zeros((0,)), np.zeros((0,))) == 0


def test_what_was_asked_for_must_have_been_compared() -> None:
    arch = archdsl.parse("arch net input 8x8x3 stem { conv_k3_o8 } head { pool fc_o4 }")
    report = archdsl.verify(arch, backends=["onnx"], dtypes=["int8_dynamic"], runs=0)
    assert not report.ok
    assert report.faults == ("nothing could be compared in int8_dynamic",)
    for options in ({"dtypes": ["x"]}, {"dtypes": []}, {"backends": []}):
        with pytest.raises(ValueError, match="must"):
            archdsl.verify(arch, runs=0, **options)


def test_results_that_are_no_numbers_are_json() -> None:
    import json

    arch = archdsl.parse("arch net input 8x8x3 stem { conv_k3_o8_nonorm } head { pool fc_o4 }")
    weights = {key: np.full(shape, 3e38, np.float32) for key, shape in arch.graph().state().items()}
    report = archdsl.verify(arch, weights=weights, runs=0)
    assert not report.ok
    json.dumps(report.to_json(), allow_nan=False)


def test_an_artefact_is_shown_in_a_line() -> None:
    arch = archdsl.parse("arch net input 8x8x3 stem { conv_k3_o8 }")
    shown = repr(archdsl.compile(arch, to="onnx"))
    assert shown.startswith("Artifact('net.onnx', float32, ")
    assert len(shown) < 80
