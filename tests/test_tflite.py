"""The TensorFlow Lite backend in float: every published network against its PyTorch module.

What LiteRT computes is compared with PyTorch and with `archdsl.ir.execute`, which share no code
with the emitter; what lies in a file is read back by LiteRT's own schema, which had no part in
writing it. Every network must run inside one XNNPACK delegate, whatever its batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import artefacts
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from artefacts import TOLERANCE, departure, images, printed, values
from hypothesis import HealthCheck, given, settings

import archdsl
from archdsl.backend import Artifact, BackendError, Job
from archdsl.backends import tflite_network, tflite_ops, tflite_plan, to_tflite
from archdsl.backends.tflite_flatbuffer import Model, Tensor, content
from archdsl.files import Piece
from archdsl.ir.execute import execute
from archdsl.ir.graph import Graph
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.ir.node import Node
from archdsl.ir.ops import (
    NO_PADDING,
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    GlobalAvgPool,
    MatMul,
    Op,
    Shape,
)
from archdsl.library import members
from archdsl.passes.fold import Folded, fold_batch_norm
from archdsl.testing import architectures
from archdsl.weights.lively import lively

SMALL = artefacts.SMALL.replace("st2_e2_o32", "st2_e2_o32_gelu")


def operators_run(interpreter: Any) -> Counter[str]:
    """The operators that make the outputs, once the delegate has taken what it takes.

    The list names a delegate's node behind those that it replaces: the last producer counts.
    """
    producers = {}
    for details in interpreter._get_ops_details():
        producers.update(dict.fromkeys(details["outputs"], details))
    wanted = [details["index"] for details in interpreter.get_output_details()]
    found = {}
    while wanted:
        details = producers.get(wanted.pop())
        if details is not None and details["index"] not in found:
            found[details["index"]] = details["op_name"]
            wanted += [index for index in details["inputs"] if index >= 0]
    return Counter(found.values())


def assert_one_delegate(artifact: Artifact, batch: int = 1) -> None:
    interpreter = artifact.load()
    if batch != 1:
        (image,) = interpreter.get_input_details()
        interpreter.resize_tensor_input(image["index"], (batch, *artifact.arch.input), strict=True)
        interpreter.allocate_tensors()
    assert operators_run(interpreter) == {"DELEGATE": 1}


def read(artifact: Artifact) -> Any:
    """The file as LiteRT's schema reads it."""
    return schema.ModelT.InitFromPackedBuf(artifact.data, 0)


difference = partial(artefacts.difference, to="tflite")


# -------------------------------------------------------------------------- published networks

FILES = [member.name for member in members() if member.variant is None]
LARGE = {f"efficientnet_b{size}": 224 for size in (4, 5, 6, 7)}
"""Networks that are tried on a smaller image than their own, since theirs takes too long.

It is the one that lively weights have their statistics from: at another, 55 blocks of B7 multiply
its small departures, and PyTorch itself is 1e-4 from float64."""


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    head = f"{'network':24} {'image':>5} {'largest logit':>14} {'difference':>11}"
    yield from printed(request, head)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_published_network_is_its_pytorch_module(name: str, table: list[str]) -> None:
    side = LARGE.get(name)
    arch = archdsl.load(name, input=(side, side, 3) if side else None)
    weights = lively(arch)
    artifact = archdsl.compile(arch, to="tflite", weights=weights)
    assert_one_delegate(artifact)
    largest, share = departure(artifact, weights)
    table.append(f"{name:24} {arch.input[0]:5} {largest:14.2f} {share:11.1e}")
    assert largest > 1, "a reference without signal proves nothing"
    assert share <= TOLERANCE


# ------------------------------------------------------------------------------ random networks


def enlivened(graph: Graph) -> dict[str, Any]:
    """Random values in every tensor, so that none stands for another unseen."""
    generator = np.random.default_rng(3)
    return {
        key: generator.uniform(0.5, 2, shape)
        if key.endswith("running_var")
        else generator.normal(0, 0.6, shape)
        for key, shape in graph.state().items()
    }


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(architectures(largest=17))
def test_a_random_network_is_its_graph(arch: archdsl.Arch) -> None:
    weights = enlivened(arch.graph())
    single = {key: value.astype(np.float32) for key, value in weights.items()}
    graph = arch.graph()
    artifact = archdsl.compile(arch, to="tflite", weights=single, features=graph.features)
    batch = images(arch, 2)
    double = {key: value.astype(np.float64) for key, value in single.items()}
    wanted = execute(graph, double, batch.astype(np.float64))
    found = values(artifact, batch)
    results = {**graph.features, "output": graph.output}
    assert found.keys() == results.keys()
    for name, node in results.items():
        scale = float(np.abs(wanted[node]).max())
        np.testing.assert_allclose(
            found[name], wanted[node], rtol=0, atol=TOLERANCE * scale + 1e-6, err_msg=name
        )
    assert_one_delegate(artifact)
    assert_well_formed(artifact)


# ------------------------------------------------------------------------------------- the file


def assert_well_formed(artifact: Artifact) -> None:
    """What every reader of the format relies on."""
    data = artifact.data
    assert data[4:8] == b"TFL3"
    flat = schema.Model.GetRootAs(data, 0)
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert flat.Buffers(0).DataLength() == 0
    for index in range(1, flat.BuffersLength()):
        content = flat.Buffers(index).DataAsNumpy()
        assert (content.ctypes.data - start) % 16 == 0
    model = read(artifact)
    (graph,) = model.subgraphs
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    for code in model.operatorCodes:
        assert code.deprecatedBuiltinCode == min(code.builtinCode, 127)
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert {entry.tensorIndex for entry in signature.inputs} == set(graph.inputs)
    assert {entry.tensorIndex for entry in signature.outputs} == set(graph.outputs)
    made = set(graph.inputs) | {i for i, t in enumerate(graph.tensors) if t.buffer}
    for operator in graph.operators:
        # Schedule order, and nothing that is made twice or never.
        assert set(operator.inputs) <= made
        assert made.isdisjoint(operator.outputs)
        made |= set(operator.outputs)
    assert made == set(range(len(graph.tensors)))


def operators(artifact: Artifact) -> list[tuple[str, int]]:
    """The operators of a file in order, with their versions."""
    names = {
        number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"
    }
    model = read(artifact)
    codes = [(names[code.builtinCode], code.version) for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


@pytest.fixture(scope="module")
def small() -> tuple[archdsl.Arch, dict[str, Any]]:
    arch = archdsl.parse(SMALL)
    return arch, lively(arch)


Small = tuple[archdsl.Arch, dict[str, Any]]


def test_the_file_is_well_formed(small: Small) -> None:
    arch, weights = small
    artifact = archdsl.compile(arch, to="tflite", weights=weights, features=["c1", "c2"])
    assert_well_formed(artifact)
    again = archdsl.compile(arch, to="tflite", weights=weights, features=["c1", "c2"])
    assert again.data == artifact.data


def test_operators_and_versions(small: Small) -> None:
    arch, weights = small
    found = set(operators(archdsl.compile(arch, to="tflite", weights=weights)))
    assert ("CONV_2D", 6) in found, "the grouped convolution"
    assert {version for name, version in found - {("CONV_2D", 6)}} == {1}
    assert {"GELU", "HARD_SWISH", "BATCH_MATMUL", "LOGISTIC", "SOFTMAX"} <= dict(found).keys()
    hybrid = set(operators(archdsl.compile(arch, to="tflite", weights=weights, dtype="float16")))
    assert ("DEQUANTIZE", 3) in hybrid


def test_published_networks_have_the_operators_they_need() -> None:
    """Gates, activations and paddings cost no operators of their own."""

    def counted(name: str) -> Counter[str]:
        artifact = archdsl.compile(archdsl.load(name), to="tflite")
        return Counter(name for name, _ in operators(artifact))

    assert counted("mnasnet_b1") == {
        "CONV_2D": 35,
        "DEPTHWISE_CONV_2D": 17,
        "ADD": 10,
        "MEAN": 1,
        "RESHAPE": 1,
        "FULLY_CONNECTED": 1,
    }
    assert set(counted("mnv3_large")) <= {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "ADD",
        "MUL",
        "PAD",
        "MEAN",
        "RESHAPE",
        "FULLY_CONNECTED",
        "HARD_SWISH",
    }
    assert "TRANSPOSE" not in counted("mnv4_hybrid_m")


def test_tensors_are_named_after_nodes_and_weights(small: Small) -> None:
    arch, weights = small
    artifact = archdsl.compile(arch, to="tflite", weights=weights, features=["c2"])
    (graph,) = read(artifact).subgraphs
    names = {tensor.name.decode() for tensor in graph.tensors}
    nodes = {node.name for node in arch.graph()}
    plain = {name for name in names if name in nodes}
    assert {"image", "output", "c2", "stem.0.act", "stem.0.conv.weight"} <= names
    assert len(plain) > 30
    signature = artifact.load().get_signature_list()["serving_default"]
    assert signature == {"inputs": ["image"], "outputs": ["c2", "output"]}


def test_metadata(small: Small) -> None:
    arch, weights = small
    model = read(archdsl.compile(arch, to="tflite", weights=weights))
    (entry,) = model.metadata
    assert entry.name == b"archdsl"
    about = json.loads(bytes(model.buffers[entry.buffer].data))
    assert about["architecture"] == "small"
    assert about["dtype"] == "float32"
    assert about["archdsl_version"] == archdsl.__version__


# -------------------------------------------------------------------------------------- running


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8_dynamic"])
@pytest.mark.parametrize("name", ["mnv3_small", "mnv4_hybrid_m"])
def test_the_batch_may_be_resized(name: str, dtype: Any) -> None:
    arch = archdsl.load(name, input=(96, 96, 3))
    weights = lively(arch)
    artifact = archdsl.compile(arch, to="tflite", weights=weights, dtype=dtype)
    assert_one_delegate(artifact)
    assert_one_delegate(artifact, batch=4)
    batch = images(arch, 4)
    together = values(artifact, batch)["output"]
    alone = np.concatenate([values(artifact, batch[i : i + 1])["output"] for i in range(4)])
    tolerance = 1e-5 if dtype != "int8_dynamic" else 0.02
    np.testing.assert_allclose(together, alone, atol=tolerance * np.abs(alone).max(), rtol=0)


def test_half_weights_are_half_the_size_and_nearly_equal(small: Small) -> None:
    arch, weights = small
    whole = archdsl.compile(arch, to="tflite", weights=weights)
    half = archdsl.compile(arch, to="tflite", weights=weights, dtype="float16")
    assert_one_delegate(half)
    _, share = difference(arch, weights, dtype="float16")
    assert 1e-6 < share < 0.01
    large = archdsl.load("mnasnet_b1")
    sizes = [
        archdsl.compile(large, to="tflite", dtype=dtype).size for dtype in ("float32", "float16")
    ]
    assert 0.49 < sizes[1] / sizes[0] < 0.52
    assert half.size < whole.size


def test_a_weight_beyond_float16_stays_whole(small: Small) -> None:
    arch, weights = small
    key = "stem.0.conv.weight"
    large = {**weights, key: weights[key] * np.float32(1e7)}
    artifact = archdsl.compile(arch, to="tflite", weights=large, dtype="float16")
    assert np.isfinite(values(artifact, images(arch))["output"]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_layer_is_an_output_on_request(small: Small, dtype: Any) -> None:
    arch, weights = small
    artifact = archdsl.compile(arch, to="tflite", weights=weights, layers=True, dtype=dtype)
    assert_well_formed(artifact)
    batch = images(arch, 2)
    found = values(artifact, batch)
    graph, folded = fold_batch_norm(arch.graph(), weights)
    wanted = execute(graph, folded, batch.astype(np.float64))
    assert found.keys() == {"output", *wanted}
    for name, value in wanted.items():
        tolerance = (1e-5 if dtype == "float32" else 1e-2) * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance, err_msg=name)


def test_features_are_outputs_on_request(small: Small) -> None:
    arch, weights = small
    batch = images(arch)
    stages = ["c1", "c2", "c3"]
    found = values(archdsl.compile(arch, to="tflite", weights=weights, features=stages), batch)
    torch = archdsl.compile(arch, to="torch", weights=weights, features=stages)
    wanted = values(torch, batch)
    assert found.keys() == wanted.keys() == {*stages, "output"}
    for name in wanted:
        np.testing.assert_allclose(
            found[name], wanted[name], atol=1e-5 * np.abs(wanted[name]).max()
        )


@pytest.mark.parametrize(
    "body", ["stage c1 { skip }", "stage c1 { conv_k3_o3 } head { dropout_p0.1 }"]
)
def test_results_that_are_one_value(body: str) -> None:
    """A network that does nothing, and a feature map that is the output too."""
    arch = archdsl.parse(f"arch net input 8x8x3 {body}")
    artifact = archdsl.compile(arch, to="tflite", features=["c1"])
    found = values(artifact, images(arch, 2))
    wanted = values(archdsl.compile(arch, to="torch", features=["c1"]), images(arch, 2))
    assert found.keys() == wanted.keys() == {"c1", "output"}
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-6)


# ---------------------------------------------------------------------------------- fault injection

# Each stands for a slip in the emitter, and gives networks that run without complaint. What they
# compute must be seen to be wrong by the comparison that holds the published networks.

FAULTY = """\
arch faulty
input 33x30x3
act hswish
norm batch eps=1e-3
se from=input round=1 act=relu gate=hsigmoid
classes 10
stem { conv_k3_s22_o16 }
stage c1 { ir_k3_e3_o16_se0.5_relu6 fused_k3_s2_e2_o24_g4 ir_k3_e3_o24 }
stage c2 { uib_s3_m5_st2_e2_o32_gelu sep_k5_s2_o32_relu }
stage c3 { mqa_h2_d16_kv2 mha_h2_d8 mha_h3_d5 }
head { conv_k1_o48! pool fc }
"""

Rewrite = Callable[[Node], Node]


def every(kind: type[Op], change: Callable[[Any], Op]) -> Rewrite:
    return lambda node: node._replace(op=change(node.op)) if isinstance(node.op, kind) else node


def _side(op: Conv2d) -> Conv2d:
    top, bottom, left, right = op.padding
    return replace(op, padding=(bottom, top, right, left))


def _relu(op: Activation) -> Activation:
    return Activation("relu") if op.function == "relu6" else op


def _swish(op: Activation) -> Activation:
    return Activation("swish") if op.function == "hswish" else op


def _sigmoid(op: Activation) -> Activation:
    return Activation("sigmoid") if op.function == "hsigmoid" else op


def _alone(node: Node) -> Node:
    """A residual that adds its branch to itself."""
    return node._replace(inputs=(node.inputs[0],) * 2) if isinstance(node.op, Add) else node


def _early(node: Node) -> Node:
    """Squeeze-and-excitation that looks at what is before the activation."""
    if isinstance(node.op, GlobalAvgPool) and node.name.endswith("se.pool"):
        return node._replace(inputs=(node.inputs[0].removesuffix(".act") + ".norm",))
    return node


GRAPH_FAULTS: dict[str, Rewrite] = {
    "eps": every(BatchNorm, lambda op: replace(op, eps=0.1)),
    "padding side": every(Conv2d, _side),
    "relu for relu6": every(Activation, _relu),
    "swish for hswish": every(Activation, _swish),
    "sigmoid for hsigmoid": every(Activation, _sigmoid),
    "residual": _alone,
    "score scale": every(MatMul, lambda op: replace(op, scale=1.0)),
    "SE order": _early,
}


def rewritten(graph: Graph, change: Rewrite) -> Graph:
    nodes = [change(node) for node in graph]
    assert nodes != list(graph), "the fault is nowhere"
    read = {name for node in nodes for name in node.inputs} | graph.kept
    unread = [node for node in nodes if node.name not in read]
    assert not unread
    return graph.replaced(nodes)


@pytest.fixture(scope="module")
def faulty() -> Small:
    arch = archdsl.parse(FAULTY)
    return arch, lively(arch)


def test_strides_differ_by_side() -> None:
    text = "arch net input 24x17x3 classes 5 stem { conv_k3_s21_o8 dw_k5_s12 } head { pool fc }"
    arch = archdsl.parse(text)
    assert difference(arch, lively(arch))[1] <= TOLERANCE


def test_the_network_to_break_is_right(faulty: Small) -> None:
    largest, share = difference(*faulty)
    assert largest > 1
    assert share < TOLERANCE / 10


@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_wrong_graph_is_found(fault: str, faulty: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def folded(graph: Graph, weights: Mapping[str, Any]) -> Folded:
        return fold_batch_norm(rewritten(graph, GRAPH_FAULTS[fault]), weights)

    monkeypatch.setattr(to_tflite, "fold_batch_norm", folded)
    _, share = difference(*faulty)
    assert share > TOLERANCE


@pytest.mark.parametrize("groups", ["depthwise", "grouped"])
def test_channels_in_the_wrong_group_are_found(
    groups: str, faulty: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folded(graph: Graph, weights: Mapping[str, Any]) -> Folded:
        made = fold_batch_norm(graph, weights)
        rolled = dict(made.weights)
        for node in made.graph:
            op = node.op
            if not isinstance(op, Conv2d) or op.groups == 1:
                continue
            if op.depthwise == (groups == "depthwise"):
                key = f"{node.name}.weight"
                rolled[key] = np.roll(rolled[key], 1, axis=0)
        return Folded(made.graph, LazyWeights.of(rolled))

    monkeypatch.setattr(to_tflite, "fold_batch_norm", folded)
    _, share = difference(*faulty)
    assert share > TOLERANCE


def _always_same(op: Conv2d, size: Shape, wanted: Shape) -> tuple[int, Any]:
    return tflite_ops.SAME, NO_PADDING


def _as_they_are(p: Any, node: Node, weight: Any) -> tuple[Any, Any]:
    """Weights without the factors and norms that others left to them."""
    own = getattr(node.op, "bias", False)
    zeros = Lazy.of(np.zeros(weight.shape[0], np.float32))
    return weight, p.parameter(node, "bias") if own else zeros


def _layouts(name: str, order: tuple[int, ...]) -> Any:
    return {**tflite_network._LAYOUTS, name: order}


EMISSION_FAULTS: dict[str, tuple[Any, str, Any]] = {
    "kernels transposed": (tflite_network, "_LAYOUTS", _layouts("CONV_2D", (0, 3, 2, 1))),
    "depthwise transposed": (
        tflite_network,
        "_LAYOUTS",
        _layouts("DEPTHWISE_CONV_2D", (1, 3, 2, 0)),
    ),
    "clamp forgotten": (tflite_plan, "_clamping", lambda node: 0),
    "factors forgotten": (tflite_plan, "_taken_in", _as_they_are),
    "SAME for symmetric": (tflite_plan, "_padding_scheme", _always_same),
}


@pytest.mark.parametrize("fault", EMISSION_FAULTS)
def test_a_wrong_emission_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = archdsl.parse(FAULTY.replace("classes", "pad symmetric classes"))
    weights = lively(arch)
    assert difference(arch, weights)[1] < TOLERANCE / 10
    monkeypatch.setattr(*EMISSION_FAULTS[fault])
    assert difference(arch, weights)[1] > TOLERANCE


# --------------------------------------------------------------------------------------- refusals


@dataclass(frozen=True)
class Cube(Op):
    """An operator of a stranger's."""

    name: ClassVar[str] = "cube"

    def output(self, *inputs: Shape) -> Shape:
        return inputs[0]


def test_every_unknown_operator_is_reported_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    arch = archdsl.parse("arch net input 8x8x3 stage c1 { k3_e2_o8 } head { conv_k1_o8 }")
    graph = arch.graph()
    nodes = [n._replace(op=Cube()) if isinstance(n.op, Activation) else n for n in graph]
    strange = graph.replaced(nodes)
    job = Job(arch, given=lively(arch), filename="net.tflite")
    job.__dict__["graph"] = strange
    with pytest.raises(archdsl.ArchError) as caught:
        to_tflite.TfliteBackend().emit(job)
    diagnostics = caught.value.diagnostics
    assert [d.code for d in diagnostics] == ["E0701"] * 3
    assert [d.span.text for d in diagnostics if d.span] == ["k3_e2_o8"] * 2 + ["conv_k1_o8"]
    assert "`cube`" in diagnostics[0].message


@pytest.mark.parametrize("name", ["output", "image"])
def test_a_stage_that_has_the_name_of_another_tensor(name: str) -> None:
    arch = archdsl.parse(f"arch net input 8x8x3 stage {name} {{ conv_k3_o3 }}")
    assert values(archdsl.compile(arch, to="tflite"), images(arch)).keys() == {"output"}
    with pytest.raises(archdsl.ArchError, match="E0503"):
        archdsl.compile(arch, to="tflite", features=[name])


@pytest.mark.parametrize(
    ("package", "act"), [("flatbuffers", "emit"), ("ai_edge_litert.interpreter", "load")]
)
def test_a_missing_package_is_named(
    package: str, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = archdsl.parse("arch net input 8x8x3 stage { conv_k3_o3 }")
    artifact = archdsl.compile(arch, to="tflite")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BackendError, match=r'pip install "archdsl\[tflite\]"'):
        artifact.load() if act == "load" else archdsl.compile(arch, to="tflite")


def test_a_file_of_two_gibibytes_is_refused() -> None:
    def never() -> bytes:
        raise AssertionError("what does not fit need not be made")

    block = Piece(1 << 28, never)
    model = Model("net", "")
    tensors = [Tensor(f"t{i}", tflite_ops.INT8, (1 << 28,), block) for i in range(8)]
    model.tensors += tensors
    with pytest.raises(BackendError, match="2 GiB"):
        content(model)


def test_emission_imports_neither_runtime_nor_framework() -> None:
    code = (
        "import sys, archdsl; archdsl.compile(archdsl.load('mnasnet_small'), to='tflite');"
        "print(sorted({'torch', 'tensorflow', 'ai_edge_litert', 'onnx'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
