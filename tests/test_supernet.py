"""Supernets: what a member is inside one is what it is alone, to the weight and the logit."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import archdsl
from archdsl.cli.program import program
from archdsl.search.space import Space, shipped_spaces, space_source

torch = pytest.importorskip("torch")

ODD = """
arch odd
input ( 16x16x3 | 24x24x1 )
act ( relu | hswish )
pad ( same | symmetric )
classes ( 10 | 7 )
droppath 0.1
stem {
  conv_k3_s22_o{16,24}
  ( dw_k{3,5} | sep_k{3,5}_o24_se{0,0.25} | dw_k3_bias_nonorm | dw_k3_residual_gelu )
}
stage c1 {
  (
    conv_k3_s22_o24_bias | conv_k3_o24 | conv_k3_g8_o24_residual | fused_k3_e{1,4}_o24
    | fused_k3_g8_e4_o24_swish | ir_k{3,5}_s{2,21}_e{3,6}_o24_relu6 | skip
  )
  each_r{1,3}_k{3,5}_e2_o{24,32}_se{0,0.5}
  r{1,2}_k3_noskip
}
head { conv_k1_o32_nonorm_bias pool conv_k1_o{32,48}_nonorm dropout_p{0.1,0.3} fc_o{12,16} fc }
"""

HYBRID = """
arch hybrid
input 12x12x3
droppath ( 0 | 0.2 )
width ( 1 | 0.75 )
layer_scale 1e-2
stem { conv_k3_o{16,24} }
stage c1 {
  ( uib_s{0,3}_m{0,3}_g8 | uib_s3_m5_st22_nols | uib_r{1,2}_s{3,5} )
  ( mqa_h{2,4}_d8_kv{1,2}_k{3,5} | mha_h{2,4}_d{8,16}_o{24,32} | mha_h2_d8_kv2_noskip_ls | skip )
  k3_e{2,3}
}
"""


def small(name: str, *, sets: bool = False) -> Space:
    """A shipped space with a quarter of its widths, for images of 32x32.

    Without `sets`, of each set of values only the first and the last one are left.
    """
    text = space_source(name).text
    text = re.sub(r"^input .*", "input 32x32x3\nwidth 0.25\nclasses 10", text, flags=re.M)
    if not sets:
        text = re.sub(r"\{([\d.]+),[\d.,]+,([\d.]+)\}", r"{\1,\2}", text)
    return archdsl.parse_space(text)


@cache
def supernet(text: str) -> Any:
    return archdsl.compile_supernet(archdsl.parse_space(text))


def lively(module: Any, seed: int = 0) -> Any:
    """A module whose norms, biases and statistics are none of them what they start as."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if value.ndim == 1:
                low = -0.5 if name.endswith("mean") else 0.1
                value.add_(torch.rand(value.shape, generator=draw) + low)
    return module


def agree(net: Any, module: Any, vector: tuple[int, ...]) -> Any:
    """A member in the supernet and alone: the same logits, and statistics after training on them.

    Both run the same operators on the same numbers, but a slice of a wider tensor may lie in
    memory in another way, for which a library may add in another order: hence the tolerance.
    """
    module.choose(vector)
    text, weights = net.extract(vector, module.state_dict())
    arch = archdsl.parse(text)
    alone = archdsl.compile(arch, to="torch", weights=weights).load()
    height, width, channels = arch.input
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(2, channels, height, width, generator=draw)
    outputs = []
    with torch.no_grad():
        for training in (False, True):
            for each in (module, alone):
                torch.manual_seed(2)  # dropout and stochastic depth
                outputs.append(each.train(training)(x))
            ours, own = outputs[-2:]
            assert ours.shape == own.shape
            torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)
    after = net.extract(vector, module.state_dict())[1]
    own_state = alone.state_dict()
    assert list(after) == list(own_state)
    for key, value in after.items():
        if not key.endswith("num_batches_tracked"):
            np.testing.assert_allclose(value, own_state[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert outputs[0].std() > 0
    return outputs[0]


@pytest.mark.parametrize("name", shipped_spaces())
def test_members_of_shipped_spaces(name: str) -> None:
    space = small(name)
    net = archdsl.compile_supernet(space)
    module = lively(net.load(0))
    assert sum(value.numel() for value in module.parameters()) == net.params
    rng = random.Random(0)
    for _ in range(2):
        agree(net, module, space.sample(rng))


KINDS = {
    ODD: {"conv", "dw", "sep", "ir", "fused", "pool", "fc", "dropout", "skip"},
    HYBRID: {"conv", "uib", "mqa", "mha", "ir", "skip"},
}


@pytest.mark.parametrize("text", KINDS, ids=["odd", "hybrid"])
def test_members_with_blocks_of_all_kinds_and_open_statements(text: str) -> None:
    net = supernet(text)
    module = lively(net.load(0))
    rng = random.Random(11)
    seen = set()
    for _ in range(12):
        vector = net.space.sample(rng)
        agree(net, module, vector)
        sections = net.space.spec_of(vector).sections()
        seen |= {block.kind for _, section in sections for block in section}
    assert seen == KINDS[text]


@pytest.mark.slow
@pytest.mark.parametrize("text", KINDS, ids=["odd", "hybrid"])
def test_many_members_with_blocks_of_all_kinds(text: str) -> None:
    net = supernet(text)
    module = lively(net.load(0))
    rng = random.Random(4)
    for _ in range(100):
        agree(net, module, net.space.sample(rng))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnasnet_space", "mnv4_fine_m", "tunas_space"])
def test_members_of_whole_spaces(name: str) -> None:
    net = archdsl.compile_supernet(small(name, sets=True))
    module = lively(net.load(0))
    rng = random.Random(5)
    for _ in range(10):
        agree(net, module, net.space.sample(rng))


def test_members_differ_and_what_lies_outside_one_does_not_matter_to_it() -> None:
    net = archdsl.compile_supernet(
        archdsl.parse_space("arch s input 8x8x3 stem { k{3,5}_e{2,4}_o{8,16} } head { pool fc_o4 }")
    )
    module = lively(net.load(0)).eval()
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def logits(*vector: int) -> Any:
        module.choose(vector)
        with torch.no_grad():
            return module(x)

    narrow, wide, other = logits(0, 0, 0), logits(0, 1, 1), logits(1, 0, 0)
    assert not torch.allclose(narrow, wide)
    assert not torch.allclose(narrow, other)
    block = module.stem[0]
    with torch.no_grad():
        block["depthwise_k5"].conv.weight += 1
        block["expand"].conv.weight[8:] += 1
        block["project"].norm.bias[8:] += 1
    assert torch.equal(logits(0, 0, 0), narrow)
    assert not torch.allclose(logits(0, 1, 1), wide)
    assert not torch.allclose(logits(1, 0, 0), other)


def test_weights_are_shared_as_tunas_shares_them() -> None:
    text = "arch s input 8x8x3 stem { ( k{3,5}_e{2,4}_o8 | fused_k3_e4_o8 | conv_k3_o8 ) }"
    shapes = {
        name: tuple(value.shape)
        for name, value in archdsl.compile_supernet(archdsl.parse_space(text))
        .load()
        .named_parameters()
        if name.endswith("conv.weight")
    }
    assert shapes == {
        "stem.0.conv_k3.conv.weight": (8, 3, 3, 3),
        "stem.0.expand.conv.weight": (16, 3, 1, 1),  # for both kernels and both ratios
        "stem.0.expand_k3.conv.weight": (16, 3, 3, 3),
        "stem.0.depthwise_k3.conv.weight": (16, 1, 3, 3),
        "stem.0.depthwise_k5.conv.weight": (16, 1, 5, 5),
        "stem.0.project.conv.weight": (8, 16, 1, 1),  # of `ir` and `fused`
    }


def test_gradients_reach_what_was_chosen_and_nothing_else() -> None:
    net = archdsl.compile_supernet(archdsl.parse_space("arch s input 8x8x3 stem { k{3,5}_e2_o8 }"))
    module = net.load(0)
    module.choose((1,))
    module(torch.randn(2, 3, 8, 8)).square().mean().backward()
    without = {name for name, value in module.named_parameters() if value.grad is None}
    assert without == {
        "stem.0.depthwise_k3.conv.weight",
        "stem.0.depthwise_k3.norm.weight",
        "stem.0.depthwise_k3.norm.bias",
    }


def test_a_vector_that_makes_no_network_is_refused_and_changes_nothing() -> None:
    text = "arch s input 8x8x3 stem { conv_o{8,16} ( k{3,5}_e{2,4} | conv_k3_o8 ) }"
    module = archdsl.compile_supernet(archdsl.parse_space(text)).load(0)
    x = torch.ones(2, 3, 8, 8)
    module.choose((1, 0, 1, 1))
    before = module(x)
    for vector, message in (
        ((1, 0), "has 4 indices"),
        ((1, 0, 2, 0), "an option of the number 2"),
        ((-1, 0, 0, 0), "an option of the number -1"),
    ):
        with pytest.raises(ValueError, match=message):
            module.choose(vector)
        assert module.vector == (1, 0, 1, 1)
        assert torch.equal(module(x), before)
    block = module.stem[1]["expand"]
    block.settings["out"].table.pop((1, 8))
    with pytest.raises(ValueError, match="no network of this space has this vector"):
        module.choose((0, 0, 0, 1))
    assert torch.equal(module(x), before)
    module.choose(torch.tensor([1, 1, 0, 0]))
    assert module.vector == (1, 1, 0, 0)


def test_choices_are_the_spaces() -> None:
    net = supernet(ODD)
    assert net.load(0).choices == {c.path: c.options for c in net.space.choices}


def test_the_source_is_the_same_each_time_and_needs_torch_alone(tmp_path: Path) -> None:
    text = "arch s input ( 16x16x3 | 24x24x1 ) classes ( 10 | 7 ) stem { k{3,5}_e{2,4}_o{8,16} }"
    text += " head { pool fc }"
    net = supernet(text)
    assert net.source == archdsl.compile_supernet(archdsl.parse_space(text)).source
    path = tmp_path / "supernet.py"
    assert net.write(path) == str(path)
    script = (
        "import sys, torch, supernet; net = supernet.Model(); net.choose((1, 1, 0, 1, 0)); "
        "print(tuple(net(torch.ones(2, 1, 24, 24)).shape)); "
        "assert not any('archdsl' in name for name in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(2, 7)", done.stderr


def test_lines_of_the_source_are_not_too_long() -> None:
    for text in (ODD, HYBRID):
        assert max(map(len, supernet(text).source.splitlines())) <= 100


def test_the_seed_gives_the_weights_and_leaves_pytorchs_own_state() -> None:
    net = archdsl.compile_supernet(archdsl.parse_space("arch s input 8x8x3 stem { k{3,5}_o8 }"))
    state = torch.random.get_rng_state()
    one, same, other = (net.load(seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_network_is_a_space_of_one() -> None:
    arch = archdsl.parse("arch s input 8x8x3 stem { r2_k3_s22_e2_o8_se0.25 } head { pool fc }")
    net = archdsl.compile_supernet(archdsl.parse_space(arch.to_text()))
    agree(net, lively(net.load(0)), ())
    assert net.params == arch.cost().params


# ---------------------------------------------------------------------------------------- refused


def test_what_cannot_be_expressed_is_said_all_at_once() -> None:
    text = "arch s input 8x8x3 stage pop { k{3,5} } stage class { k3 } stage fine { k3 }"
    with pytest.raises(archdsl.ArchError) as caught:
        archdsl.compile_supernet(archdsl.parse_space(text))
    found = caught.value.diagnostics
    assert [d.code for d in found] == ["E0702", "E0702"]
    assert [d.span.text for d in found if d.span] == ["pop", "class"]


def test_a_supernet_beyond_the_limits_of_networks() -> None:
    from archdsl.limits import most, raised

    # Each of the two is within them, and both together are not.
    space = archdsl.parse_space(
        "arch s input 1x1x60000 stem { ( conv_k1_o60000! | ir_e1_o60000! ) }"
    )
    with pytest.raises(archdsl.ArchError, match=f"more than {most('params'):,} parameters") as e:
        archdsl.compile_supernet(space)
    (found,) = e.value.diagnostics
    assert found.code == "E0110"
    assert found.span is not None
    assert found.span.text.startswith("conv_k1")
    with raised(params=2 * most("params")):
        assert archdsl.compile_supernet(space).params > most("params") / 2


def test_too_many_ways_to_fill_the_blocks() -> None:
    text = "arch s input 8x8x3 stem { r{1,400}_k{3,5}_e{%s} }"
    space = archdsl.parse_space(text % ",".join(map(str, range(1, 100))))
    with pytest.raises(archdsl.ArchError, match="more than 65,536 ways to fill its blocks"):
        archdsl.compile_supernet(space)


def test_what_is_no_space_and_what_has_no_supernets() -> None:
    with pytest.raises(TypeError, match=r"a Space is wanted, not str: archdsl.load_space takes"):
        archdsl.compile_supernet("mnv4_coarse")  # type: ignore[arg-type]
    space = archdsl.parse_space("arch s input 8x8x3 stem { k{3,5} }")
    with pytest.raises(archdsl.BackendError, match="'onnx' makes no supernets"):
        archdsl.compile_supernet(space, "onnx")
    with pytest.raises(ValueError, match="no member"):
        archdsl.compile_supernet(space).extract((7,), {})


# ------------------------------------------------------------------------------- the command line


def run(*arguments: str) -> Any:
    return CliRunner().invoke(program, [*arguments], prog_name="archdsl")


def test_compile_writes_a_supernet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.arch").write_text("arch s input 8x8x3 stem { k{3,5}_o8 }")
    done = run("compile", "s.arch", "--to", "torch", "--supernet")
    assert done.exit_code == 0, done.output
    source = Path("s_supernet.py").read_text()
    assert source == archdsl.compile_supernet(archdsl.load_space("s.arch")).source
    assert run("compile", "s.arch", "--to", "torch", "--supernet", "-o", "-").stdout == source
    done = run("compile", "s.arch", "--to", "torch", "--supernet", "--json", "-o", "x.py")
    assert json.loads(done.stdout) == {
        "file": "x.py",
        "bytes": len(source),
        "backend": "torch",
        "networks": 2,
        "params": archdsl.compile_supernet(archdsl.load_space("s.arch")).params,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "onnx"), "makes no supernets"),
        (("--to", "torch", "--seed", "1"), "--seed is for one network"),
        (("--to", "torch", "--classes", "3"), "--classes is for one network"),
        (("--to", "torch", "--keep-norm"), "--keep-norm is for one network"),
        (("--to", "torch", "--dtype", "int8"), "--dtype is for one network"),
        (("--to", "torch", "-o", "no/where.py"), "there is no folder"),
    ],
)
def test_compile_refuses(options: tuple[str, ...], message: str) -> None:
    done = run("compile", "mnv4_coarse", "--supernet", *options)
    assert done.exit_code == 2
    assert message in done.stderr
