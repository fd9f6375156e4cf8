"""Rewrites keep every value: proven by running the graph before and after, in float64."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

import archdsl
from archdsl.ir.execute import activate, execute
from archdsl.ir.graph import Graph, GraphError
from archdsl.ir.lazy import Lazy
from archdsl.ir.node import INPUT, Node
from archdsl.ir.ops import (
    NO_PADDING,
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    Dropout,
    GlobalAvgPool,
    Input,
    LayerScale,
    Linear,
    MatMul,
    Mul,
    Op,
    Pad,
    Reshape,
    ShapeError,
    Softmax,
    Transpose,
)
from archdsl.passes.cost import Totals, add_totals, fragment_cost
from archdsl.passes.fold import fold_batch_norm
from archdsl.passes.fuse import fuse_activations, schedule
from archdsl.passes.shapes import infer_shapes

NETS = {
    "same_se_hswish": """
        arch net input 33x30x3 act hswish se from=expanded round=8 act=relu gate=hsigmoid
        stem { conv_k3_s22_o16 }
        stage a { k5_s22_e4_o24_se0.25 r2_k3_e3.5_o24_se0.5_relu }
        stage b { fused_k3_s22_e4_o32_g16_relu6 uib_s3_m5_e2_gelu_ls uib_e3 }
        head { conv_k1_o64 pool conv_k1_o32_bias_nonorm dropout_p0.2 fc_o10 }
    """,
    "symmetric_attention": """
        arch net input 24x20x4 act gelu pad symmetric layer_scale 1e-5 norm batch eps=1e-2
        stem { conv_k7_s21_o16_swish sep_k3_s2_o24 }
        stage { uib_s3_st22_e4_o32 mqa_h4_d8_kv2 mqa_h2_d16_nols }
        stage { mha_h4_d8 mha_h2_d8_kv2_k5_o40 fused_e1_o48 dw_k3_linear }
        head { pool fc_o12_relu fc_o5_nobias }
    """,
}


def graph_of(text: str) -> Graph:
    return archdsl.parse(text).graph()


def lively(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights and statistics under which no part of the network goes silent."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in graph.state().items():
        field = name.rsplit(".", 1)[1]
        if field == "running_var":
            weights[name] = rng.uniform(0.5, 2.0, shape)
        elif field in ("gamma",):
            weights[name] = rng.uniform(0.5, 1.5, shape)
        elif field == "weight" and len(shape) == 1:
            weights[name] = rng.uniform(0.5, 1.5, shape) * rng.choice([-1, 1], shape)
        elif field == "weight":
            weights[name] = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        elif field == "num_batches_tracked":
            weights[name] = np.zeros(shape)
        else:
            weights[name] = rng.normal(0, 0.5, shape)
    return weights


def images(graph: Graph, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, *graph.input))


def same_results(graph: Graph, other: Graph, before: dict, after: dict) -> None:
    assert np.abs(before[graph.output]).max() > 0.1, "a silent network proves nothing"
    assert list(graph.features) == list(other.features)
    for mine, theirs in [
        (graph.output, other.output),
        *zip(graph.features.values(), other.features.values(), strict=True),
    ]:
        np.testing.assert_allclose(after[theirs], before[mine], rtol=1e-9, atol=1e-9)


@pytest.fixture(params=NETS)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(NETS[request.param])


def test_the_nets_hold_every_operator() -> None:
    found = {node.op.name for text in NETS.values() for node in graph_of(text)}
    assert found == {
        "input", "conv2d", "batch_norm", "activation", "add", "mul", "global_avg_pool", "linear",
        "matmul", "softmax", "reshape", "transpose", "layer_scale", "dropout",
    }  # fmt: skip


def test_shapes_are_those_that_values_have(graph: Graph) -> None:
    values = execute(graph, lively(graph), images(graph))
    shapes = infer_shapes(graph)
    for node in graph:
        assert values[node.name].shape[1:] == shapes[node.name] == node.shape, node


def test_shapes_of_another_image() -> None:
    """Symmetric padding is that of every image."""
    text = "arch net input {} pad symmetric stem {{ conv_k7_s21_o16 k5_s2_e2_se0.5_o24 }}"
    small, large = (graph_of(text.format(size)) for size in ("24x20x4", "65x47x4"))
    shapes = infer_shapes(small, (65, 47, 4))
    assert dict(shapes) == {node.name: node.shape for node in large} != dict(infer_shapes(small))


def test_a_residuals_input_stays_until_it_is_added() -> None:
    cost = archdsl.parse("arch net input 8x8x8 stem { k3_e2_o8 }").cost()
    # While the depthwise convolution runs: its input and output, and the block's input.
    assert cost.peak_activation_bytes == 4 * 8 * 8 * (16 + 16 + 8)


def test_nothing_fuses_behind_what_is_read_twice() -> None:
    shape = (4, 4, 8)
    nodes = [
        Node("conv", Conv2d(8, 8, (1, 1)), (INPUT,), shape),
        Node("act", Activation("relu"), ("conv",), shape),
        Node("add", Add(), ("conv", "act"), shape),
    ]
    assert [len(group.members) for group in schedule(nodes).groups] == [1, 1, 1]
    assert [len(group.members) for group in schedule(nodes[:2]).groups] == [2]
    assert [len(group.members) for group in schedule(nodes[:2], ["conv"]).groups] == [1, 1]


def test_norms_are_those_of_the_file() -> None:
    graph = graph_of(
        "arch net input 8x8x3 norm batch eps=2e-3 momentum=0.03 stem { conv_o8 mqa_h2_d4 }"
    )
    norms = [node.op for node in graph if isinstance(node.op, BatchNorm)]
    assert norms == [BatchNorm(8, 2e-3, 0.03)] * 2


def test_only_the_values_that_are_asked_for_are_kept(graph: Graph) -> None:
    weights = lively(graph)
    values = execute(graph, weights, images(graph))
    kept = execute(graph, weights, images(graph), keep=graph.kept)
    assert set(kept) == graph.kept
    assert all((kept[name] == values[name]).all() for name in kept)
    assert execute(graph, weights, images(graph), keep=()) == {}


def test_folding_keeps_every_result(graph: Graph) -> None:
    weights = lively(graph)
    folded, folded_weights = fold_batch_norm(graph, weights)
    folded.verify()
    assert set(folded_weights) == set(folded.state())
    before = execute(graph, weights, images(graph))
    same_results(graph, folded, before, execute(folded, folded_weights, images(graph)))
    # Only norms that follow no convolution are left: those before attention.
    norms = [node for node in folded if isinstance(node.op, BatchNorm)]
    attention = {n.origin.path for n in graph if n.origin and n.op.name == "softmax"}
    assert {n.origin.path for n in norms if n.origin} == attention
    assert not any(isinstance(node.op, LayerScale) for node in folded)


def test_fusing_keeps_every_result(graph: Graph) -> None:
    weights = lively(graph)
    folded, folded_weights = fold_batch_norm(graph, weights)
    fused = fuse_activations(folded)
    fused.verify()
    before = execute(graph, weights, images(graph))
    same_results(graph, fused, before, execute(fused, folded_weights, images(graph)))
    assert not any(isinstance(node.op, Activation) for node in fused)


def test_fusing_without_folding_keeps_activations_behind_their_norms(graph: Graph) -> None:
    weights = lively(graph)
    fused = fuse_activations(graph)
    before = execute(graph, weights, images(graph))
    same_results(graph, fused, before, execute(fused, weights, images(graph)))


def test_results_that_are_activations_are_those_of_the_layers_they_join() -> None:
    text = "stem { conv_k3_o8 } stage c1 { sep_k3_s2_o8_gelu } head { pool fc_o5_hswish }"
    graph = graph_of(f"arch net input 8x8x3 {text}")
    weights = lively(graph)
    folded, folded_weights = fold_batch_norm(graph, weights)
    fused = fuse_activations(folded)
    assert not any(isinstance(node.op, Activation) for node in fused)
    assert isinstance(fused[fused.output].op, Linear)
    assert isinstance(fused[fused.features["c1"]].op, Conv2d)
    before = execute(graph, weights, images(graph))
    same_results(graph, fused, before, execute(fused, folded_weights, images(graph)))


def explicit_padding(graph: Graph) -> Graph:
    """Put a `Pad`, which no block is lowered to, before each convolution of uneven padding."""
    nodes: list[Node] = []
    for node in graph:
        op = node.op
        if isinstance(op, Conv2d) and (
            op.padding[0] != op.padding[1] or op.padding[2] != op.padding[3]
        ):
            (source,) = node.inputs
            border = Pad(op.padding)
            shape = border.output(graph[source].shape)
            nodes.append(Node(f"{node.name}.pad", border, (source,), shape, node.origin))
            node = node._replace(op=replace(op, padding=NO_PADDING), inputs=(f"{node.name}.pad",))
        nodes.append(node)
    return graph.replaced(nodes)


def test_explicit_padding_keeps_every_result(graph: Graph) -> None:
    weights = lively(graph)
    padded = explicit_padding(graph)
    padded.verify()
    before = execute(graph, weights, images(graph))
    same_results(graph, padded, before, execute(padded, weights, images(graph)))
    for node in padded:
        if isinstance(node.op, Conv2d):
            top, bottom, left, right = node.op.padding
            assert (top, left) == (bottom, right)
    uneven = graph.attributes.pad == "same"
    assert any(isinstance(node.op, Pad) for node in padded) == uneven


@pytest.mark.parametrize("weight", ["running_mean", "running_var", "weight", "bias"])
def test_folding_reads_every_statistic(graph: Graph, weight: str) -> None:
    """Each statistic moves the folded result: a fold that dropped one would be found."""
    weights = lively(graph)
    norm = next(n for n in graph if isinstance(n.op, BatchNorm))
    changed = {**weights, f"{norm.name}.{weight}": weights[f"{norm.name}.{weight}"] * 1.5}
    one, one_weights = fold_batch_norm(graph, weights)
    two, two_weights = fold_batch_norm(graph, changed)
    first = execute(one, one_weights, images(graph))[one.output]
    second = execute(two, two_weights, images(graph))[two.output]
    assert np.abs(first - second).max() > 1e-3


# -- verify


def broken(graph: Graph, change: dict[str, Node]) -> list[Node]:
    return [change.get(node.name, node) for node in graph]


def test_verify_finds_what_a_pass_could_break() -> None:
    graph = graph_of(NETS["same_se_hswish"])
    node = graph["stem.0.conv"]
    from dataclasses import replace

    with pytest.raises(GraphError, match="says"):
        graph.replaced(broken(graph, {node.name: node._replace(shape=(1, 1, 16))}))
    with pytest.raises(GraphError, match="not before it"):
        graph.replaced(broken(graph, {node.name: node._replace(inputs=("head.4",))}))
    with pytest.raises(GraphError, match="takes 3 channels"):
        wrong = node._replace(op=replace(node.op, in_channels=3, groups=1))
        stem = graph["stem.0.norm"]
        graph.replaced(
            broken(graph, {stem.name: wrong._replace(name=stem.name, inputs=(node.name,))})
        )
    with pytest.raises(GraphError, match="are called"):
        graph.replaced([*graph, node])
    with pytest.raises(GraphError, match="nothing reads"):
        graph.replaced([*graph, Node("spare", Reshape((33 * 30 * 3,)), (INPUT,), (33 * 30 * 3,))])
    with pytest.raises(GraphError, match="result"):
        graph.replaced([n for n in graph if n.name != graph.output])
    with pytest.raises(GraphError, match="two equal shapes"):
        graph.replaced(
            [*graph, Node("spare", Add(), (INPUT, graph.output), graph[graph.output].shape)]
        )


def test_the_graph_cannot_be_changed() -> None:
    import networkx as nx

    graph = graph_of(NETS["same_se_hswish"])
    with pytest.raises(nx.NetworkXError):
        graph.nx.remove_node(INPUT)


def test_an_add_of_one_value_twice_keeps_both_operands() -> None:
    graph = graph_of("arch net input 4x4x3 stem { conv_k1_o8 }")
    last = graph[graph.output]
    doubled = Node("twice", Add(), (last.name, last.name), last.shape)
    twice = graph.replaced([*graph, doubled], {graph.output: "twice"})
    assert twice.nx.edges[last.name, "twice"]["operands"] == (0, 1)


@pytest.mark.parametrize(
    ("op", "inputs", "said"),
    [
        (Add(), [(4, 4, 8)], "add takes two equal shapes"),
        (Add(), [(4, 4, 8), (4, 4, 7)], "add takes two equal shapes"),
        (Mul(), [(4, 4, 8)], "mul takes a feature map and a value a channel"),
        (Mul(), [(4, 4, 8), (1, 1, 7)], "mul takes a feature map and a value a channel"),
        (MatMul(), [(2, 3), (3,)], "matmul takes two matrices"),
        (MatMul(), [(3,), (3,)], "matmul takes two matrices"),
        (MatMul(), [(2, 3), (2, 3)], r"matmul of \(2, 3\) and \(2, 3\)"),
        (MatMul(), [(1, 2, 3), (2, 3, 2)], "matmul of"),
        (Linear(8, 4), [(1, 1, 8)], r"linear takes the shape \(8,\), not \(1, 1, 8\)"),
        (LayerScale(8, 1.0), [(4, 4, 7)], "layer_scale takes 8 channels, not 7"),
        (Pad((1, 1, 1, 1)), [(8,)], r"pad takes a feature map, not the shape \(8,\)"),
        (GlobalAvgPool(), [(8,)], "global_avg_pool takes a feature map"),
        (Dropout(0.1), [(8,), (8,)], "dropout takes one input, not 2"),
        (Softmax(), [], "softmax takes one input, not 0"),
        (Reshape((4, 4)), [(4, 5)], "has not as many elements"),
        (Transpose((0, 0)), [(4, 5)], r"transpose of \(4, 5\) by \(0, 0\)"),
        (Input((4, 4, 3)), [(4, 4, 3)], "the image has no inputs"),
    ],
    ids=lambda value: value.name if isinstance(value, Op) else None,
)
def test_an_operator_says_which_shapes_it_does_not_take(
    op: Op, inputs: list[tuple[int, ...]], said: str
) -> None:
    with pytest.raises(ShapeError, match=said):
        op.output(*inputs)


def test_a_matrix_of_each_head_is_multiplied() -> None:
    assert MatMul().output((2, 16, 4), (2, 4, 9)) == (2, 16, 9)
    assert MatMul(transpose_b=True).output((2, 16, 4), (2, 9, 4)) == (2, 16, 9)
    assert MatMul(transpose_b=True).macs((2, 16, 4), (2, 9, 4)) == 2 * 16 * 9 * 4


def test_lazy_arrays_change_when_they_are_made() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    lazy = Lazy.of(array)
    turned = lazy.transposed(2, 0, 1)
    assert turned.shape == turned.make().shape == (4, 2, 3)
    assert np.array_equal(turned.make(), array.transpose(2, 0, 1))
    assert np.array_equal(turned.then(np.negative).make(), -array.transpose(2, 0, 1))
    assert lazy.nbytes == array.nbytes


def test_folded_weights_are_as_announced() -> None:
    """Backends write the place of a weight before it is made."""
    graph = graph_of("arch net input 8x8x3 stem { conv_k3_o8 } stage { uib_s3_m3_e2_o8_ls ir_k3 }")
    weights = {key: value.astype(np.float32) for key, value in lively(graph).items()}
    found = fold_batch_norm(graph, weights).weights
    announced = {key: (lazy.shape, np.dtype(lazy.dtype)) for key, lazy in found.lazy.items()}
    assert announced == {key: (value.shape, value.dtype) for key, value in found.items()}
    assert {dtype for _, dtype in announced.values()} == {np.dtype(np.float32)}


def test_folding_that_overflows_is_said() -> None:
    graph = graph_of("arch net input 4x4x3 stem { conv_k1_o8 }")
    weights = {key: np.ones(shape, np.float32) for key, shape in graph.state().items()}
    weights["stem.0.norm.weight"] *= np.float32(3e38)
    weights["stem.0.norm.running_var"] *= 0
    folded = fold_batch_norm(graph, weights).weights
    for key in ("stem.0.conv.weight", "stem.0.conv.bias"):
        # It is said once: numpy has nothing to add to it.
        with warnings.catch_warnings(), pytest.raises(archdsl.ArchError) as caught:
            warnings.simplefilter("error")
            folded[key]
        (diagnostic,) = caught.value.diagnostics
        assert diagnostic.code == "E0803"
        assert diagnostic.message == "the norm behind `stem.0.conv` gives weights beyond float32"
        assert diagnostic.help is not None and "take another checkpoint" in diagnostic.help
        assert diagnostic.span is not None and diagnostic.span.text == "conv_k1_o8"


def test_a_kernel_may_exceed_the_image_on_one_side() -> None:
    for image in ((2, 9, 8), (9, 2, 8)):
        with pytest.raises(ShapeError, match="a 3x3 kernel exceeds the image"):
            Conv2d(8, 8, (3, 3)).output(image)


def test_a_linear_layer_without_bias_has_none() -> None:
    assert Linear(8, 4, bias=False).parameters() == {"weight": (4, 8)}
    assert Linear(8, 4).parameters() == {"weight": (4, 8), "bias": (4,)}


def test_a_view_of_what_comes_in_is_read_as_that() -> None:
    nodes = [
        Node("rows", Reshape((16, 8)), (INPUT,), (16, 8)),
        Node("heads", Reshape((2, 8, 8)), ("rows",), (2, 8, 8)),
        Node("soft", Softmax(), ("heads",), (2, 8, 8)),
        Node("back", Reshape((16, 8)), ("soft",), (16, 8)),
        Node("again", Softmax(), ("back",), (16, 8)),
    ]
    plan = schedule(nodes)
    assert [group.inputs for group in plan.groups] == [(INPUT,), ("soft",)]
    assert plan.tensors["rows"] == plan.tensors["heads"] == INPUT


def test_an_activation_joins_what_it_follows_itself() -> None:
    """Not a view of it, and not another activation."""
    shape = (4, 4, 8)
    nodes = [
        Node("conv", Conv2d(8, 8, (1, 1)), (INPUT,), shape),
        Node("relu", Activation("relu"), ("conv",), shape),
        Node("gelu", Activation("gelu"), ("relu",), shape),
        Node("view", Reshape((16, 8)), ("gelu",), (16, 8)),
        Node("swish", Activation("swish"), ("view",), (16, 8)),
    ]
    found = [[node.name for node in group.members] for group in schedule(nodes).groups]
    assert found == [["conv", "relu"], ["gelu"], ["swish"]]
    nodes = [nodes[0], Node("view", Reshape((16, 8)), ("conv",), (16, 8))]
    nodes.append(Node("swish", Activation("swish"), ("view",), (16, 8)))
    found = [[node.name for node in group.members] for group in schedule(nodes).groups]
    assert found == [["conv"], ["swish"]]


def test_rows_say_their_class_and_their_function() -> None:
    arch = archdsl.parse("arch net input 8x8x8 stem { k3_e2_se0.5_o8 } head { pool conv_k3_o8 fc }")
    units = [unit.fragment for _, unit in arch.blocks()]
    found = [(row.op_class, row.function) for unit in units for row in fragment_cost(unit).rows]
    assert found == [
        ("pointwise", "relu"),
        ("depthwise", "relu"),
        ("elementwise", None),
        ("linear", "relu"),
        ("linear", "sigmoid"),
        ("elementwise", None),
        ("pointwise", None),
        ("elementwise", None),
        ("elementwise", None),
        ("conv", "relu"),
        ("linear", None),
    ]


def test_totals_add_up() -> None:
    parts = [Totals(1, 2, 3, 4, 5, 6), Totals(10, 20, 30, 40, 50, 7), Totals(1, 1, 1, 1, 1, 1)]
    assert add_totals(parts) == Totals(12, 23, 34, 45, 56, 7)


def test_activations_are_what_they_are_called() -> None:
    x = np.array([-4.0, -1.0, 0.0, 2.0, 8.0])
    assert activate("relu", x).tolist() == [0, 0, 0, 2, 8]
    assert activate("relu6", x).tolist() == [0, 0, 0, 2, 6]
    assert activate(None, x) is x
