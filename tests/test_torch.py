"""The PyTorch that archdsl writes: as source, as a network, and against the figures of the text."""

from __future__ import annotations

import ast
import copy
import doctest
import keyword
import math
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import archdsl
from archdsl.lang.diagnostics import ArchError
from archdsl.library import members
from archdsl.passes.cost import Cost

ALL = [member.name for member in members()]
FAMILIES = ["mnv1", "mnv2", "mnv3_large", "mnv4_conv_s", "mnv4_hybrid_m", "mnasnet_a1"]
each_family = pytest.mark.parametrize("name", FAMILIES)

# Every kind of block that has weights, every option of one that changes the emitted classes.
TINY = """
arch tiny
source "tests/test_torch.py"
input 33x40x3
act relu
norm batch eps=1e-2 momentum=0.2
pad same
round 4
layer_scale 0.25
droppath 0.2
se from=input round=1 act=relu gate=sigmoid
classes 10

stem { conv_k3_s22_o8 }
stage c2 { fused_k3_s22_e4_o16 fused_e1_o16 k5_e3_se0.25_hswish r2_k3_e1_noskip }
stage c3 { uib_s3_m5_st22_e2_o24 uib_m3 uib_s3_nols sep_o32 mqa_h2_d8_kv2 mha_h2_d4 dw_bias }
head { conv_k1_o32 pool conv_k1_o40_bias_nonorm_hswish dropout_p0.2 fc }
"""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """TorchScript still works, and says each time that it is deprecated.

    One thread: small networks gain nothing from more, and several test processes share the cores.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        yield
    torch.set_num_threads(threads)


@cache
def source(name: str) -> str:
    """The emitted source of a published network."""
    return archdsl.compile(archdsl.load(name), to="torch").data.decode("utf-8")


@cache
def network(name: str) -> nn.Module:
    """A published network; a test that changes one takes a copy."""
    return archdsl.compile(archdsl.load(name), to="torch").load()


def emit(text: str) -> str:
    return archdsl.compile(archdsl.parse(text), to="torch").data.decode("utf-8")


def load(text: str) -> Any:
    return archdsl.compile(archdsl.parse(text), to="torch").load()


def executed(text: str) -> dict[str, Any]:
    """The names that an emitted source defines."""
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(text, "emitted.py", "exec"), names)
    return names


def top_level_names(text: str) -> list[str]:
    """The names that a source binds at its top level, each as often as it is bound."""
    names: list[str] = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return names


def images(height: int, width: int, number: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, 3, height, width, generator=generator)


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def random_statistics(net: nn.Module) -> nn.Module:
    """Statistics that are not those of an identity."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


# ---------------------------------------------------------------------------------------- source


@pytest.mark.parametrize("name", ALL)
def test_every_published_network_compiles(name: str) -> None:
    tree = ast.parse(source(name))
    assert ast.get_docstring(tree)
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= {"math", "torch"}
    cost = archdsl.load(name).cost()
    assert f"{cost.params:,} parameters, {cost.macs:,} multiply-accumulates" in source(name)


@each_family
def test_the_same_text_gives_the_same_bytes(name: str) -> None:
    arch = archdsl.load(name)
    assert archdsl.compile(arch, to="torch").data.decode() == source(name)
    assert archdsl.parse(arch.to_text(), variant=arch.variant and arch.variant.name).name == name


@pytest.mark.parametrize("name", [*FAMILIES, "mnv4_conv_m", "mnasnet_small", None])
def test_the_source_is_formatted_and_clean(name: str | None, tmp_path: Path) -> None:
    text = emit(TINY) if name is None else source(name)
    path = tmp_path / "net.py"
    path.write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    rules = ["--isolated", "--line-length=100", "--target-version=py310"]
    for command in (
        [*ruff, "format", "--diff", *rules, str(path)],
        [*ruff, "check", *rules, "--select=E,W,F,I,UP,B,C4,SIM,PIE,RET,RUF,D1,ANN", str(path)],
    ):
        if "check" in command:
            command.append("--ignore=D102,D107")
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_blocks_are_lines_and_equal_ones_a_loop() -> None:
    text = source("mnv4_conv_m")
    lines = re.findall(r"UniversalInvertedBottleneck\(\d.*", text)
    assert len(lines) == 18  # of 21 blocks
    assert "*(UniversalInvertedBottleneck(256, 1024, 256) for _ in range(2))," in text
    assert (
        "UniversalInvertedBottleneck(80, 480, 160, start=3, middle=5, stride=2),  # 160x16x16"
        in text
    )
    assert len(text.splitlines()) < 250


@pytest.mark.parametrize(
    ("name", "there", "not_there"),
    [
        ("mnv1", {"ConvNormAct", "DepthwiseSeparable", "SameConv2d"}, {"Residual", "DropPath"}),
        ("mnv2", {"InvertedResidual"}, {"SqueezeExcite", "LayerScale", "MultiQueryAttention"}),
        ("mnv3_large", {"InvertedResidual", "SqueezeExcite"}, {"UniversalInvertedBottleneck"}),
        ("mnv4_conv_m", {"UniversalInvertedBottleneck", "DropPath"}, {"LayerScale"}),
        ("mnv4_hybrid_m", {"MultiQueryAttention", "LayerScale"}, {"MultiHeadAttention"}),
    ],
)
def test_only_what_is_used_is_defined(name: str, there: set[str], not_there: set[str]) -> None:
    defined = {node.name for node in ast.parse(source(name)).body if isinstance(node, ast.ClassDef)}
    assert there <= defined
    assert not not_there & defined


def test_emission_needs_no_torch() -> None:
    code = (
        "import archdsl, sys; archdsl.compile(archdsl.load('mnv4_hybrid_m'), to='torch');"
        "print([name for name in ('torch', 'numpy', 'networkx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_backends_examples_hold() -> None:
    backend = type(archdsl.compile(archdsl.parse(TINY), to="torch").backend)
    package = backend.__module__.rpartition(".")[0]
    modules = [m for name, m in sorted(sys.modules.items()) if name.startswith(f"{package}.t")]
    results = [doctest.testmod(module) for module in modules]
    assert sum(result.attempted for result in results) >= 2
    assert not any(result.failed for result in results)


# ------------------------------------------------------------------------------ weights and shapes


@each_family
def test_parameters_are_those_of_the_cost(name: str) -> None:
    cost = archdsl.load(name).cost()
    assert sum(parameter.numel() for parameter in network(name).parameters()) == cost.params


@each_family
def test_state_is_that_of_the_graph_in_its_order(name: str) -> None:
    state = archdsl.load(name).graph().state()
    assert list(shapes(network(name).state_dict()).items()) == list(state.items())


@each_family
def test_the_docstring_names_a_key(name: str) -> None:
    text = ast.get_docstring(ast.parse(source(name)))
    assert text is not None
    keys = [key for key in re.findall(r"`([\w.]+)`", text) if key.count(".") > 2]
    assert keys
    assert set(keys) <= set(network(name).state_dict())


@each_family
@pytest.mark.parametrize("size", [None, (97, 131)], ids=["native", "odd"])
def test_shapes_are_those_of_the_graph(name: str, size: tuple[int, int] | None) -> None:
    arch = archdsl.load(name, input=(*size, 3) if size else None)
    graph = arch.graph()
    image = images(*arch.input[:2], number=1)
    with torch.inference_mode():
        features = network(name).forward_features(image)
        assert tuple(network(name)(image).shape) == (1, *arch.output)
    assert list(features) == list(graph.features)
    for stage, node in graph.features.items():
        height, width, channels = graph[node].shape
        assert tuple(features[stage].shape) == (1, channels, height, width)


@each_family
def test_an_independent_count_gives_the_macs(name: str) -> None:
    """PyTorch's own counter, over the operators that run."""
    arch = archdsl.load(name)
    cost: Cost = arch.cost()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(name)(images(*arch.input[:2], number=1))
    assert counter.get_total_flops() == 2 * cost.macs


def test_classes_are_an_argument() -> None:
    model = executed(source("mnv2_035"))["Model"]
    assert model(num_classes=7)(images(64, 64)).shape == (2, 7)
    assert model().state_dict().keys() == network("mnv2_035").state_dict().keys()


def test_a_layer_behind_the_classifier_follows_the_classes() -> None:
    text = "arch net input 8x8x3 head { pool fc_relu dropout_p0.1 fc_nobias fc_o5 }"
    model = executed(emit(text))["Model"]
    assert model(num_classes=7)(images(8, 8)).shape == (2, 5)
    assert [tuple(p.shape) for p in model(7).parameters()] == [(7, 3), (7,), (7, 7), (5, 7), (5,)]


def test_without_a_classifier_there_is_no_argument() -> None:
    model = executed(emit("arch net input 8x8x3 stage c1 { conv_o8 } head { pool fc_o5 }"))["Model"]
    with pytest.raises(TypeError):
        model(num_classes=7)
    features = load("arch net input 8x8x3 stage c1 { conv_o8 }")
    assert torch.equal(features(images(8, 8)), features.forward_features(images(8, 8))["c1"])


# ----------------------------------------------------------------------------- PyTorch's compilers


@each_family
def test_it_scripts(name: str) -> None:
    net = random_statistics(copy.deepcopy(network(name)))
    scripted = torch.jit.script(net)
    with torch.inference_mode():
        for image in (images(64, 96), images(97, 131)):
            assert torch.allclose(scripted(image), net(image), rtol=1e-5, atol=1e-6)
            features = net.forward_features(image)
            for stage, value in scripted.forward_features(image).items():
                assert torch.allclose(value, features[stage], rtol=1e-5, atol=1e-5)


def test_a_scripted_network_survives_a_file(tmp_path: Path) -> None:
    net = random_statistics(load(TINY))
    path = str(tmp_path / "net.pt")
    torch.jit.script(net).save(path)
    assert torch.equal(torch.jit.load(path)(images(33, 40)), net(images(33, 40)))


def test_it_compiles() -> None:
    net = random_statistics(load(TINY))
    compiled = torch.compile(net, backend="eager", fullgraph=True, dynamic=False)
    assert torch.allclose(compiled(images(33, 40)), net(images(33, 40)), rtol=1e-5, atol=1e-6)


def test_it_is_exported_for_images_of_any_size() -> None:
    net = random_statistics(load(TINY))
    free = torch.export.Dim.AUTO
    sizes = {"x": {0: free, 2: free, 3: free}}
    exported = torch.export.export(net, (images(33, 40),), dynamic_shapes=sizes).module()
    for image in (images(33, 40), images(48, 31, number=3)):
        assert torch.allclose(exported(image), net(image), rtol=1e-5, atol=1e-6)


def test_channels_last_is_the_same() -> None:
    net = random_statistics(load(TINY))
    expected = net(images(33, 40))
    last = net.to(memory_format=torch.channels_last)
    found = last(images(33, 40).to(memory_format=torch.channels_last))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", [*FAMILIES, None])
def test_gradients_reach_every_parameter(name: str | None) -> None:
    net = load(TINY) if name is None else copy.deepcopy(network(name))
    for module in net.modules():
        if hasattr(module, "rate"):
            module.rate = 0.0  # a block that was dropped has none
    torch.manual_seed(0)
    net.train()(images(64, 64)).square().sum().backward()
    without = [key for key, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_it_learns() -> None:
    torch.manual_seed(0)
    net = load(TINY).train()
    labels = torch.arange(8) % 10
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(net(images(33, 40, number=8)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < sum(losses[:5]) / 2


@pytest.mark.parametrize("loaded", [True, False])
def test_initialisation_is_as_published(loaded: bool) -> None:
    """As `load` draws it from a seed, and as the module does by itself."""
    if loaded:
        made = network("mnv3_large")
    else:
        namespace: dict[str, Any] = {"__name__": "mnv3_large"}
        exec(archdsl.compile(archdsl.load("mnv3_large"), "torch").data, namespace)
        torch.manual_seed(0)
        made = namespace["Model"]()
    for name, module in made.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            std = math.sqrt(2 / fan_out)
            error = 5 / math.sqrt(2 * module.weight.numel())  # five standard errors
            assert module.weight.std().item() == pytest.approx(std, rel=error), name
            assert abs(module.weight.mean().item()) < 5 * std / math.sqrt(module.weight.numel())
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            assert 0.99 * bound < module.weight.abs().max().item() <= bound
        elif isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones_like(module.weight))
        bias = getattr(module, "bias", None)
        assert not isinstance(bias, torch.Tensor) or not bias.any()


def test_norms_are_those_of_the_file() -> None:
    norms = [module for module in load(TINY).modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(0.01, 0.2)}


def test_layer_scale_starts_at_the_files_value_where_there_is_one() -> None:
    state = load(TINY).state_dict()
    scales = {key: value for key, value in state.items() if key.endswith("gamma")}
    blocks = sorted(key.removesuffix(".layer_scale.gamma") for key in scales)
    assert blocks == [f"stages.c3.{index}" for index in (0, 1, 4, 5)]
    assert all(torch.equal(value, torch.full_like(value, 0.25)) for value in scales.values())


def test_stochastic_depth_rises_over_the_residuals_to_its_peak() -> None:
    net = load(TINY)
    rates = [(name, module.rate) for name, module in net.named_modules() if hasattr(module, "rate")]
    residuals = [name.removesuffix(".drop_path") for name, _ in rates]
    graph = archdsl.parse(TINY).graph()
    assert residuals == [node.name.removesuffix(".add") for node in graph if node.op.name == "add"]
    peak, number = 0.2, len(rates)
    assert [rate for _, rate in rates] == pytest.approx(
        [peak * index / number for index in range(1, number + 1)]
    )


def test_stochastic_depth_drops_samples_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop_path = executed(emit(TINY))["DropPath"]()
    drop_path.rate = 0.25
    ones = torch.ones(10_000, 2, 3, 3)
    dropped = drop_path.train()(ones)
    kept = dropped[:, 0, 0, 0]
    assert torch.equal(dropped, kept.view(-1, 1, 1, 1).expand_as(dropped))
    assert set(kept.tolist()) == {0.0, float(torch.tensor(1) / torch.tensor(0.75))}
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)
    assert torch.equal(drop_path.eval()(ones), ones)


def test_dropout_is_of_the_files_rate_and_for_training() -> None:
    net = load(TINY)
    assert [module.p for module in net.modules() if isinstance(module, nn.Dropout)] == [0.2]
    assert torch.equal(net(images(33, 40)), net(images(33, 40)))
    assert not torch.equal(net.train()(images(33, 40)), net(images(33, 40)))


# ----------------------------------------------------------------------------------------- loading


def test_a_loaded_network_is_ready_for_inference_and_seeded() -> None:
    artifacts = [archdsl.compile(archdsl.parse(TINY), to="torch", seed=seed) for seed in (0, 0, 1)]
    before = torch.get_rng_state()
    first, same, other = (artifact.load() for artifact in artifacts)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    states = [net.state_dict() for net in (first, same, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert any(not torch.equal(states[0][key], states[2][key]) for key in states[0])


def test_networks_of_one_name_do_not_share_their_source() -> None:
    narrow, wide = (TINY.replace("_o8", f"_o{width}") for width in (4, 12))
    for text in (narrow, wide, TINY.replace("pad same", "pad symmetric")):
        net = load(text)
        image = images(33, 40)
        assert torch.allclose(torch.jit.script(net)(image), net(image), rtol=1e-5, atol=1e-6)


def test_loading_many_networks_keeps_few_modules() -> None:
    for width in range(1, 300):
        load(f"arch many input 8x8x3 head {{ pool fc_o{width} }}")
    assert sum(name.startswith("_archdsl_") for name in sys.modules) <= 256


def test_a_written_file_is_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert archdsl.compile(archdsl.parse(TINY), to="torch").write() == "tiny.py"
    import tiny  # type: ignore[import-not-found]

    try:
        assert tiny.Model is tiny.Tiny is tiny.tiny
        assert tiny.Model().eval()(images(33, 40)).shape == (2, 10)
    finally:
        del sys.modules["tiny"]


def test_without_torch_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = archdsl.compile(archdsl.parse(TINY), to="torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(archdsl.BackendError, match=r'pip install "archdsl\[torch\]"'):
        artifact.load()


# ------------------------------------------------------------------------------- what a user writes

HOSTILE = [
    "back\\slash \\n \\x41 \\u0041 \\N{BELL} \\",
    "'''; import os; os.abort() #",
    "{{ 7 * 7 }} {% raise %} {# #} ${x} %s {0}",
    "\\' + str(__import__('os').abort()) + '",
    "caf\u00e9 \u6771\u4eac \u202e right to left \u200b \ufeff",
    "line\u2028separator \u2029 \x85 \x0b \x0c \x1c tab\there",
    "\x1b[31m bell \x07 nul \x00 delete \x7f",
    "no spaces " + "x" * 900,
    '*/ --> <!-- "quoted"'.replace('"', "\u201c"),
]


@pytest.mark.parametrize("words", HOSTILE)
def test_a_source_is_no_source_code(words: str) -> None:
    plain = emit('arch net source "plain" input 8x8x3 stage c1 { conv_o8 } head { pool fc }')
    text = emit(f'arch net source "{words}" input 8x8x3 stage c1 {{ conv_o8 }} head {{ pool fc }}')
    assert "\0" not in text
    assert text.isprintable() or set(filter(lambda c: not c.isprintable(), text)) == {"\n"}
    tree, expected = ast.parse(text), ast.parse(plain)
    docstring = ast.get_docstring(tree, clean=False)
    assert docstring is not None
    assert "".join(docstring.split()).count("".join(words.split())) == 1
    assert ast.dump(ast.Module(tree.body[1:], [])) == ast.dump(ast.Module(expected.body[1:], []))


def test_quotes_from_json_stay_in_the_docstring() -> None:
    """The text form has no quotes inside quotes; a specification from elsewhere could."""
    words = '""" + exit() + """ \\'
    arch = archdsl.parse('arch net source "x" input 8x8x3 stem { conv_o8 }')
    arch.spec = arch.spec.model_copy(update={"source": words})
    tree = ast.parse(archdsl.compile(arch, to="torch").data)
    assert words in (ast.get_docstring(tree, clean=False) or "")


@pytest.mark.parametrize(
    ("name", "class_name", "alias"),
    [
        ("mnv4_conv_m", "Mnv4ConvM", True),
        ("mnv2_140", "Mnv2_140", True),
        ("a__1_2_", "A1_2", True),
        ("class", "Class", False),
        ("match", "Match", False),
        ("none", "NoneNet", True),
        ("torch", "Torch", False),
        ("nn", "Nn", False),
        ("math", "Math", False),
        ("f", "FNet", True),
        ("tensor", "TensorNet", True),
        ("model", "Model", True),
        ("print", "Print", False),
        ("exception", "ExceptionNet", True),
        ("initialize", "Initialize", False),
        ("same_padding", "SamePadding", False),
        ("inverted_residual", "InvertedResidualNet", True),
        ("conv_norm_act", "ConvNormActNet", True),
        ("x", "X", True),
        ("self", "Self", True),
    ],
)
def test_no_name_takes_anothers_place(name: str, class_name: str, alias: bool) -> None:
    text = TINY.replace("arch tiny", f"arch {name}")
    defined = top_level_names(emit(text))
    assert len(set(defined)) == len(defined)
    names = executed(emit(text))
    assert names["Model"].__name__ == class_name
    assert (names.get(name) is names["Model"]) == alias
    assert load(text).forward_features(images(33, 40)).keys() == {"c2", "c3"}


def test_stages_that_pytorch_cannot_name_are_reported_at_once() -> None:
    text = """\
arch net input 32x32x3
stage pop { conv_o8 }
stage c2 { conv_o8 }
stage class { conv_o8 }
stage torch { conv_o8 }
stage { conv_o8 }
"""
    with pytest.raises(ArchError) as raised:
        emit(text)
    found = [(d.code, d.span and d.span.text, d.help) for d in raised.value.diagnostics]
    assert found == [("E0702", name, "rename the stage") for name in ("pop", "class", "torch")]
    assert [str(d.span) for d in raised.value.diagnostics] == [
        "<string>:2:7",
        "<string>:4:7",
        "<string>:5:7",
    ]


def test_every_name_that_pytorch_takes_is_known() -> None:
    """Every word of Python and every attribute of a ModuleDict is refused, and nothing else."""
    taken = {*dir(nn.ModuleDict()), *keyword.kwlist, "torch"}
    names = {name for name in taken if re.fullmatch(r"[a-z][a-z0-9_]*", name)}
    others = {"stages", "self", "print", "match", "x", "name", "features", "c2"}
    for name in sorted(names | others):
        text = f"arch net input 8x8x3 stage {name} {{ conv_o8 }}"
        if name in names:
            with pytest.raises(ArchError, match="E0702"):
                emit(text)
        else:
            net = load(text)
            assert list(torch.jit.script(net).forward_features(images(8, 8))) == [name]
            torch.export.export(net, (images(8, 8),))
            assert f"stages.{name}.0.conv.weight" in net.state_dict()
