"""The Python interface: what it takes, what it refuses, and how it remembers."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

import archdsl
from archdsl.compiler import BlockCompiler
from archdsl.files import write_whole
from archdsl.lang.formatter import format_source
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_BLOCKS
from archdsl.roofline.model import Device

NET = "arch net input 32x32x3 stem { conv_k3_s22_o16 } stage { k3_e3 } head { pool fc_o10 }"


# -- inputs


@pytest.mark.parametrize("image", [(28, 28), (28, 28, 0), "28x28", {1, 2, 3}, 28, (28.0, 28, 3)])
def test_an_image_that_is_none_is_an_arch_error(image: Any) -> None:
    for read in (
        lambda: archdsl.parse(NET, input=image),
        lambda: archdsl.block("k3").cost(input=image),
    ):
        with pytest.raises(archdsl.ArchError, match=r"HEIGHTxWIDTHxCHANNELS|from 1 to"):
            read()


def test_an_image_may_be_a_text() -> None:
    assert archdsl.block("k3").cost("28x28x3") == archdsl.block("k3").cost((28, 28, 3))


@pytest.mark.parametrize("batch", [0, -1, 2.5, True, "2"])
def test_a_batch_is_a_whole_number(batch: Any) -> None:
    with pytest.raises(ValueError, match="whole number"):
        archdsl.parse(NET).cost(batch=batch)


def test_a_batch_multiplies_work_and_maps_but_not_weights() -> None:
    one, four = archdsl.parse(NET).cost(), archdsl.parse(NET).cost(batch=4)
    assert (four.macs, four.activation_bytes) == (4 * one.macs, 4 * one.activation_bytes)
    assert four.peak_activation_bytes == 4 * one.peak_activation_bytes
    assert (four.params, four.weight_bytes) == (one.params, one.weight_bytes)
    assert sum(layer.macs for layer in four.layers) == four.macs


def test_a_name_with_a_null_is_no_file() -> None:
    with pytest.raises(FileNotFoundError):
        archdsl.load("mnv2\0")


def test_streams_are_lists() -> None:
    coster = archdsl.Coster(archdsl.parse(NET))
    with pytest.raises(TypeError, match="list"):
        coster("k3_e3")
    with pytest.raises(archdsl.ArchError, match=f"{MAX_BLOCKS:,} blocks"):
        coster(["r1000_k3"] * 5)


@pytest.mark.parametrize("figure", ["10_", "1__0"])
def test_underscores_part_digits_or_are_refused(figure: str) -> None:
    text = NET.replace("input", f"classes {figure} input")
    assert [d.code for d in archdsl.check(SourceText("net.arch", text))] == ["E0403"]


def test_depth_leaves_every_stage_a_block() -> None:
    text = NET.replace("input", "depth 1e-10 input")
    assert list(archdsl.parse(text).graph().features) == ["stage1"]


# -- memory


def test_the_memo_forgets_and_still_counts_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockCompiler, "_LIMIT", 5)
    coster = archdsl.Coster(archdsl.parse(NET))
    for width in range(8, 400, 8):
        blocks = [f"k3_e3_o{width}", "k5_e2"]
        whole = archdsl.parse(NET.replace("k3_e3", " ".join(blocks))).cost()
        assert coster(blocks).macs == whole.macs
        assert len(coster._compiler._runs) <= 5


def test_faults_of_blocks_keep_no_frames_alive() -> None:
    compiler = archdsl.Coster(archdsl.parse(NET))._compiler
    with pytest.raises(archdsl.ArchError):
        archdsl.parse(NET.replace("k3_e3", "i7_k3_e3"))
    for run in compiler._runs.values():
        assert not any(isinstance(problem, BaseException) for problem in run.problems)


# -- files


def test_a_link_keeps_leading_to_the_file_that_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "net.py", tmp_path / "link.py"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.py", "net.py"]


def test_a_pipe_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_whole(link, b"bytes")
    reader.join(timeout=30)
    assert read == [b"bytes"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


# -- formatting


@pytest.mark.parametrize(
    "text",
    [
        "variant a # c\n{ width=0.5 input=16x16x3 }",
        "variant a { # c\n width=0.5 # d\n input=16x16x3 }",
        "input 8x8x3\n\nnorm # c\nbatch eps=1e-3\nact relu",
        "act relu # x\n\n\n# y\n\nnorm batch # z\n# end",
        "stem # a\n{ # b\n conv_o8 # c\n # d\n } # e\n",
    ],
)
def test_formatting_twice_is_formatting_once(text: str) -> None:
    once = format_source(SourceText("net.arch", text))
    assert format_source(SourceText("net.arch", once)) == once
    for comment in (line.split("#")[1].split()[0] for line in text.splitlines() if "#" in line):
        assert f"# {comment}" in once


# -- fusion


def test_a_block_costs_the_same_wherever_it_stands() -> None:
    """A norm that stands alone is not fused into the convolution of the block before it."""
    from archdsl.passes.cost import rows, totals
    from archdsl.passes.fuse import schedule

    text = "arch net input 9x9x3 stem { conv_linear_nonorm_o16 mqa_h1_d4_noskip mqa_h1_d4 }"
    arch = archdsl.parse(text)
    graph = arch.graph()
    whole = totals(rows(schedule(graph.nodes, graph.kept), graph.nodes, {}), 0)
    assert whole.activations * 4 == arch.cost().activation_bytes


# -- what users try


def test_check_takes_a_text() -> None:
    assert [d.code for d in archdsl.check("arch n input 64x64x3 stage { k4 }")] == ["E0209"]


def test_a_name_and_a_variant_that_contradict_each_other_are_refused() -> None:
    assert archdsl.load("mnv2_140", variant="140").name == "mnv2_140"
    with pytest.raises(archdsl.ArchError, match="another is asked for"):
        archdsl.load("mnv2_140", variant="050")


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        archdsl.load(str(tmp_path))
    with pytest.raises(IsADirectoryError):
        write_whole(f"{tmp_path}/missing/", b"")
    assert not os.listdir(tmp_path)


def test_json_is_recognised() -> None:
    (found,) = archdsl.check('{\n  "name": "net"\n}')
    assert (found.code, found.message) == ("E0102", "this is JSON, not an `.arch` text")


def test_what_was_scaled_says_so() -> None:
    half = archdsl.load("mnv2", width=0.5)
    assert half.cost().to_json()["width"] == 0.5
    assert b"width 0.5" in archdsl.compile(half, to="torch").data.split(b"\n", 1)[0]


@pytest.mark.parametrize("name", ["mnasnet_a1", "mnv3_small"])
def test_a_printed_file_is_as_clean_as_the_one_it_prints(name: str) -> None:
    assert archdsl.check(archdsl.load(name).to_text()) == []


def test_files_that_belong_together_change_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills while the second is written leaves both as they were."""
    from archdsl import files

    first, second = tmp_path / "net.safetensors", tmp_path / "net.py"
    first.write_bytes(b"old")
    second.write_bytes(b"old")
    synced = iter([None, OSError(28, "No space left on device")])

    def fsync(handle: int) -> None:
        failure = next(synced)
        if failure:
            raise failure

    monkeypatch.setattr(files.os, "fsync", fsync)
    with pytest.raises(OSError, match="No space"):
        files.write_together({first: b"new", second: b"new"})
    assert first.read_bytes() == second.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.py", "net.safetensors"]


# -- the record of a cost


def test_the_record_of_a_cost() -> None:
    """Each number worked out by hand: two images, two bytes a number."""
    text = "arch tiny input 8x8x3 classes 4 stem { conv_k3_s2_o8 } head { pool fc }"
    device = Device("a device", 1e9, 1e12)
    record = archdsl.parse(text).cost(batch=2, dtype="float16", devices=[device]).to_json()
    conv = {"op": "conv2d", "block": "stem.0", "input": [8, 8, 3], "output": [4, 4, 8]}
    pool = {"op": "global_avg_pool", "block": "head.0", "input": [4, 4, 8], "output": [1, 1, 8]}
    fc = {"op": "linear", "block": "head.1", "input": [8], "output": [4]}
    sums = ("params", "macs", "weight_bytes", "activation_bytes")
    layers = [
        # 3x3x3x8 numbers, and a scale and a shift for each channel; 4x4 places
        {"name": "stem.0.conv", **conv, "op_class": "conv"}
        | dict(zip(sums, (216 + 16, 2 * 16 * 216, 2 * 216, 2 * 2 * (192 + 128)), strict=True)),
        {"name": "head.0", **pool, "op_class": "elementwise"}
        | dict(zip(sums, (0, 0, 0, 2 * 2 * (128 + 8)), strict=True)),
        {"name": "head.1", **fc, "op_class": "linear"}
        | dict(zip(sums, (32 + 4, 2 * 32, 2 * 32, 2 * 2 * (8 + 4)), strict=True)),
    ]
    (latency,) = record.pop("latency")
    convention = record.pop("byte_convention")
    assert "each fused operator: kernel + inputs + output once" in convention
    assert record == {
        "schema_version": 1,
        "cost_model_version": 1,
        "name": "tiny",
        "input": [8, 8, 3],
        "classes": 4,
        "width": 1.0,
        "batch": 2,
        "dtype": "float16",
        **{key: sum(layer[key] for layer in layers) for key in sums},
        "macs_conv_linear": 2 * (16 * 216 + 32),
        "macs_attention": 0,
        "peak_activation_bytes": 2 * 2 * (192 + 128),
        "layers": layers,
    }
    # Memory is so fast that all but the pool's time is what is computed, at 1e9 MACs a second.
    macs = 2 * (16 * 216 + 32)
    assert latency.pop("us") == pytest.approx(macs / 1e9 * 1e6, rel=0.01)
    assert latency.pop("equivalent_macs") == pytest.approx(macs, rel=0.01)
    fixed = {"device": "a device", "dtype": "float16", "bound": "compute"}
    assert latency == {**fixed, "mode": "nominal", "held_out_error_percent": None}


def test_a_cost_is_of_one_image_and_says_which_types_there_are() -> None:
    arch = archdsl.parse(NET)
    assert arch.cost() == arch.cost(batch=1, dtype="float32")
    with pytest.raises(ValueError, match=r"^dtype 'int4': must be one of float32, float16, int8"):
        arch.cost(dtype="int4")  # type: ignore[arg-type]
