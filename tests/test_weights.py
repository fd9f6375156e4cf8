"""Sets of weights: the same bytes everywhere, checked before use; and the commands for them."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import statistics
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.program import program
from archdsl.ir.execute import execute
from archdsl.lang.diagnostics import ArchError
from archdsl.weights.initial import initialize
from archdsl.weights.lively import lively
from archdsl.weights.random import Stream
from archdsl.weights.store import digest, fitted, load_weights, save_weights
from archdsl.weights.tensors import read_header, to_safetensors

PICO = Path(__file__).parent.parent / "docs" / "pico.arch"
TEXT = "arch net input 8x8x3 classes 2 stem { conv_k3_s22_o8 } head { pool fc }\n"

linux = pytest.mark.skipif(os.name != "posix", reason="needs pipes by name")


def net(text: str = TEXT) -> archdsl.Arch:
    return archdsl.parse(text)


def refused(act: Callable[[], object], code: str) -> str:
    """What is said, under this code and no other."""
    with pytest.raises(ArchError) as caught:
        act()
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {code}
    return str(caught.value)


# ----------------------------------------------------------------------------- the same everywhere


def test_known_numbers() -> None:
    """Computed once; a machine or a numpy that gives others changes everybody's weights."""
    stream = Stream(0, "a")
    assert [float(x).hex() for x in stream.uniform(4, -1, 1)] == [
        *("-0x1.c8bc000000000p-7", "0x1.73a6f00000000p-2"),
        *("-0x1.db9b780000000p-2", "-0x1.3831800000000p-3"),
    ]
    assert [float(x).hex() for x in stream.normal(4, 2.0)] == [
        *("-0x1.651dce0000000p-1", "0x1.42ea6c0000000p+1"),
        *("0x1.acfc6c0000000p-4", "0x1.0248bc0000000p+0"),
    ]
    last = Stream(2**63 - 1, "stem.0.conv.weight").normal(1, 1)
    assert float(last[0]).hex() == "-0x1.0f2a8e0000000p+1"


def test_normal_numbers_are_normal() -> None:
    values = np.sort(Stream(1, "normal").normal(1 << 17, 1.0).astype(np.float64))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    exact = statistics.NormalDist()
    for share in (0.001, 0.02, 0.3, 0.5, 0.9, 0.999):
        assert abs(values[int(share * len(values))] - exact.inv_cdf(share)) < 0.05
    assert 4 < values.max() < 4.4
    # Drawn from a table of quantiles, which is exact to the precision of float32.
    from archdsl.weights.random import _quantiles

    table = _quantiles()
    assert (table == -table[::-1]).all()
    for place in range(0, len(table), 997):
        wanted = exact.inv_cdf((place + 0.5) / len(table))
        assert table[place] == pytest.approx(wanted, rel=3e-6, abs=1e-7)


def test_uniform_numbers_are_uniform() -> None:
    values = Stream(1, "uniform").uniform(1 << 17, -2, 6)
    counts, _ = np.histogram(values, 16, (-2, 6))
    assert counts.sum() == 1 << 17
    assert abs(counts - (1 << 13)).max() < 500


def test_streams_hang_on_seed_and_name() -> None:
    first = Stream(0, "a").uniform(100, 0, 1)
    for seed, name in ((1, "a"), (0, "b"), (-1, "a")):
        assert abs(np.corrcoef(first, Stream(seed, name).uniform(100, 0, 1))[0, 1]) < 0.5
    for count in (0, 1, 2, 3, 99):
        assert (Stream(0, "a").uniform(count, 0, 1) == first[:count]).all()
        assert len(Stream(0, "a").normal(count, 1)) == count


@pytest.mark.parametrize(
    ("name", "seed", "sha256"),
    [
        ("mnv2", 0, "95bdebd3c218b4646741a62bf01a8f3848171229c9f361fb7f0a057c0a5b138c"),
        ("mnv2", 1, "f783c9fa5be8cc49823e70649ead59795d46c2352db07c5e01a87add465d5af2"),
        (PICO, 0, "f93183c7a81efaf673ca2ebb5940c07deaf00752c4a68b59793c288572135572"),
        (PICO, 1, "27ac97a4950dda9a66574d28b511d6f2bd02a15dd7047c54b1acc721ee387281"),
        ("mnv4_hybrid_m", 0, "8c6eb332b458a8c91aa46970df08192758f3d208fb55baa89436bee7b4cc942f"),
    ],
)
def test_the_same_bytes_for_the_same_seed(name: str, seed: int, sha256: str) -> None:
    graph = archdsl.load(name).graph()
    weights = initialize(graph, seed)
    assert digest(weights) == sha256
    assert {key: value.shape for key, value in weights.items()} == graph.state()
    assert list(weights) == list(graph.state())


def test_a_tensor_keeps_its_numbers_when_others_change() -> None:
    one = initialize(net().graph())
    other = initialize(net(TEXT.replace("classes 2", "classes 3")).graph())
    assert (one["stem.0.conv.weight"] == other["stem.0.conv.weight"]).all()
    assert one["head.1.weight"].shape != other["head.1.weight"].shape


def test_initial_weights_have_the_published_spread() -> None:
    weights = initialize(archdsl.load("mnv2").graph())
    project = weights["stages.c5.3.project.conv.weight"]
    assert project.std() == pytest.approx(math.sqrt(2 / 320), rel=0.01)
    depthwise = weights["stages.c5.1.depthwise.conv.weight"]
    assert depthwise.std() == pytest.approx(math.sqrt(2 / 9), rel=0.03)
    head = weights["head.3.weight"]
    assert abs(head).max() <= 1 / math.sqrt(1000)
    assert abs(head).max() > 0.999 / math.sqrt(1000)


@pytest.mark.parametrize("name", ["mnv1_025", "mnv3_small_050", PICO])
def test_lively_weights_make_every_layer_vary(name: str) -> None:
    arch = archdsl.load(name)
    small = arch.resized((96, 96, 3))
    weights = lively(small)
    images = Stream(9, "images").normal(2 * 96 * 96 * 3, 1.0).reshape(2, 96, 96, 3)
    values = execute(small.graph(), weights, images)
    for node in small.graph():
        assert float(values[node.name].std()) > 0.01, node.name
    assert 0.3 < float(values[small.graph().output].std()) < 30
    assert digest(lively(small)) == digest(weights)
    assert digest(lively(small, 1)) != digest(weights)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        (PICO, "0a95a27b456829260bb953565119aa76d6c2a03fe398c70c5bfb319d2bff1e6e"),
        ("mnv3_small", "c8152032c2903072f4b413cec38a0f4643bbee84bdec181a56c04cebf8a3ee9f"),
        ("mnv4_hybrid_m", "2cc80fb5ab8114915c75a74e84763ef4d4c62d5689d4f43078e4f0ad9d1fd2ec"),
    ],
)
def test_lively_bytes_hang_on_the_seed_alone(
    name: str, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known ones, whatever the machine; and with more noise in each value than sums leave."""
    arch = archdsl.load(name)
    assert digest(lively(arch)) == sha256
    rng = np.random.default_rng(0)

    def noisy(graph: Any, weights: Any, images: Any, before: Any, keep: Any) -> Any:
        def stirred(node: Any, inputs: list[Any]) -> None:
            for place, value in enumerate(inputs):
                inputs[place] = value * (1 + 1e-15 * rng.normal(size=value.shape))
            before(node, inputs)

        return execute(graph, weights, images, stirred, keep)

    monkeypatch.setattr("archdsl.weights.lively.execute", noisy)
    assert digest(lively(arch)) == sha256


@pytest.mark.parametrize(("side", "count"), [(16, 100), (96, 11), (224, 2), (600, 1)])
def test_lively_weights_see_no_more_images_than_tell_something(
    side: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    monkeypatch.setattr(
        "archdsl.weights.lively.execute",
        lambda graph, weights, images, before, keep: batches.append(images.shape),
    )
    lively(archdsl.load(PICO, input=(side, side, 3)))
    assert batches == [(count, side, side, 3)]


# --------------------------------------------------------------------------------- into files, back


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    arch = archdsl.load(PICO)
    weights = lively(arch)
    weights["stem.0.norm.num_batches_tracked"] = np.array(7)
    path = tmp_path / "w.safetensors"
    save_weights(path, weights)
    found = load_weights(path, arch.graph())
    assert list(found) == list(weights)
    for key, value in weights.items():
        assert found[key].dtype == value.dtype
        assert found[key].shape == value.shape
        assert (found[key] == value).all()
        assert found[key].flags.writeable
    # The library that the format comes from reads the same.
    for key, value in safetensors.numpy.load_file(path).items():
        assert (weights[key] == value).all()
    assert to_safetensors(weights) == to_safetensors(dict(reversed(weights.items())))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, "bfloat16"])
def test_floating_types_become_float32(tmp_path: Path, dtype: Any) -> None:
    weights = initialize(net().graph(), 3)
    key = "stem.0.conv.weight"
    path = tmp_path / "w.safetensors"
    if dtype == "bfloat16":
        written = {k: _bfloat16(v) for k, v in weights.items() if v.dtype == np.float32}
        path.write_bytes(_file({k: ("BF16", v.shape, v.tobytes()) for k, v in written.items()}))
        expected = (written[key].astype(np.uint32) << 16).view(np.float32)
    else:
        kept = {k: v.astype(dtype) for k, v in weights.items() if v.dtype == np.float32}
        save_weights(path, kept)
        expected = kept[key].astype(np.float32)
    found = load_weights(path, net().graph())
    assert found[key].dtype == np.float32
    assert (found[key] == expected).all()
    # Counters may be missing.
    assert found["stem.0.norm.num_batches_tracked"] == 0


def _bfloat16(values: Any) -> Any:
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _file(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """A safetensors file, written here."""
    header, data = {}, b""
    for key, (dtype, shape, content) in tensors.items():
        places = [len(data), len(data) + len(content)]
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": places}
        data += content
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_given_arrays_are_checked_and_not_copied() -> None:
    graph = net().graph()
    weights = initialize(graph)
    assert all(found is weights[key] for key, found in fitted(weights, graph).items())
    half = {key: value.astype(np.float16) for key, value in weights.items()}
    assert all(v.dtype in (np.float32, np.int64) for v in fitted(half, graph).values())
    lists = {key: value.tolist() for key, value in weights.items()}
    assert digest(fitted(lists, graph)) == digest(weights)


def test_misfits_are_told_all_at_once() -> None:
    graph = net().graph()
    weights: dict[str, Any] = dict(initialize(graph))
    weights["head.1.wieght"] = weights.pop("head.1.weight")
    weights["stem.0.conv.weight"] = weights["stem.0.conv.weight"][:4]
    weights["stem.0.norm.bias"] = weights["stem.0.norm.bias"].astype(np.int32)
    weights["zeros"] = np.zeros((0, 3), np.float32)
    said = refused(lambda: fitted(weights, graph), "E0801")
    assert "5 keys differ, of 8" in said
    for row in (
        "stem.0.conv.weight  8x3x3x3   4x3x3x3",
        "stem.0.norm.bias    8         of int32, not floating",
        "head.1.weight       2x8       missing",
        "head.1.wieght       none      2x8",
        "zeros               none      0x3",
        "`head.1.wieght`: did you mean `head.1.weight`?",
    ):
        assert row in said


def test_keys_of_another_library_are_told_so() -> None:
    weights = {f"module.{key}": value for key, value in initialize(net().graph()).items()}
    assert "`archdsl weights import`" in refused(lambda: fitted(weights, net().graph()), "E0801")


def test_a_long_table_is_cut() -> None:
    said = refused(lambda: fitted({}, archdsl.load("mnv2").graph()), "E0801")
    assert "262 keys differ, of 314" in said
    assert "and 222 more" in said
    assert said.count("\n") < 50


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    weights = initialize(net().graph())
    weights["head.1.bias"][1] = value
    assert "`head.1.bias`" in refused(lambda: fitted(weights, net().graph()), "E0803")
    path = tmp_path / "w.safetensors"
    save_weights(path, weights)
    assert "w.safetensors" in refused(lambda: load_weights(path, net().graph()), "E0803")


def test_a_negative_variance_and_a_number_beyond_float32() -> None:
    weights: dict[str, Any] = dict(initialize(net().graph()))
    weights["stem.0.norm.running_var"][0] = -1e-9
    assert "negative" in refused(lambda: fitted(weights, net().graph()), "E0803")
    weights = dict(initialize(net().graph()))
    weights["head.1.bias"] = np.array([1e300, 0])
    refused(lambda: fitted(weights, net().graph()), "E0803")


# ------------------------------------------------------------------------------------- broken files


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[bytes], str]:
    """What is said of a file with these bytes."""

    def call(data: bytes) -> str:
        path = tmp_path / "w.safetensors"
        path.write_bytes(data)
        return refused(lambda: load_weights(path, net().graph()), "E0802")

    return call


def _with_header(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _entry(dtype: object = "F32", shape: object = (2,), places: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": places}


STRICTER = {"fields of no meaning", "short list"}
"""What the format's own library lets pass."""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "end within the header"),
        (b"{}", "end within the header"),
        (struct.pack("<Q", 100_000_000) + b"{}", "end within the header"),
        (_with_header(b"[1]"), "not an object"),
        (_with_header(b"{"), "not JSON"),
        (_with_header(b"\xff{}"), "not JSON"),
        (_with_header(b'{"a": 1, "a": 2}'), "stands twice"),
        (_with_header(b"[" * 100_000), "nested too deeply"),
        (_with_header(b'{"a": ' + b"9" * 5000 + b"}"), "not JSON"),
        (_with_header({"a": 1}), "must have dtype"),
        (_with_header({"a": {**_entry(), "b": 1}}, b"8 bytes!"), "fields of no meaning"),
        (_with_header({"a": _entry("F31")}, b"8 bytes!"), "`F31` is unknown"),
        (_with_header({"a": _entry(["F32"])}, b"8 bytes!"), "is unknown"),
        (_with_header({"a": _entry(shape=[-2])}, b"8 bytes!"), "natural numbers"),
        (_with_header({"a": _entry(shape=[2.0])}, b"8 bytes!"), "natural numbers"),
        (_with_header({"a": _entry(shape=[True, 2])}, b"8 bytes!"), "natural numbers"),
        (_with_header({"a": _entry(shape=[1] * 99 + [2])}, b"8 bytes!"), "short list"),
        (_with_header({"a": _entry(shape=[1 << 62] * 9)}, b"8 bytes!"), "its place has 8"),
        (_with_header({"a": _entry(shape=[1 << 64])}, b"8 bytes!"), "natural numbers"),
        (_with_header({"a": _entry(places=[8, 0])}, b"8 bytes!"), "its place has -8"),
        (_with_header({"a": _entry(places=[0, 8, 9])}, b"8 bytes!"), "two natural numbers"),
        (_with_header({"a": _entry()}, b"9 bytes!!"), "the file at byte"),
        (_with_header({"a": _entry()}, b"7bytes!"), "the file at byte"),
        (_with_header({"a": _entry(), "b": _entry()}, b"8 bytes!"), "overlaps"),
        (_with_header({"a": _entry(places=[4, 12])}, b"12 bytes    "), "leaves a hole"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_headers(broken: Callable[[bytes], str], data: bytes, said: str) -> None:
    found = broken(data)
    assert said in found
    assert len(found) < 1000
    if said not in STRICTER:
        with pytest.raises(safetensors.SafetensorError):
            safetensors.deserialize(data)


def test_a_header_of_a_hundred_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 100_000_000))
    os.truncate(path, 100_000_008)
    tracemalloc.start()
    said = refused(lambda: load_weights(path, net().graph()), "E0802")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "the limit is 33,554,432" in said
    assert peak < 1 << 20


def test_nothing_is_read_before_all_is_compared(tmp_path: Path) -> None:
    """A file that is as large as it says, of which one shape does not fit."""
    weights = {
        key: ("F32", shape, 4 * math.prod(shape)) for key, shape in net().graph().state().items()
    }
    weights["head.1.weight"] = ("F32", (50_000, 10_000), 2_000_000_000)
    header, end = {}, 0
    for key, (dtype, shape, size) in weights.items():
        header[key] = _entry(dtype, shape, [end, end + size])
        end += size
    path = tmp_path / "w.safetensors"
    path.write_bytes(_with_header(header))
    os.truncate(path, path.stat().st_size + end)
    tracemalloc.start()
    said = refused(lambda: load_weights(path, net().graph()), "E0801")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "50000x10000" in said
    assert peak < 1 << 20


def test_random_corruptions(tmp_path: Path) -> None:
    """300 files that broke at random: each is refused or read, as the format's own library says."""
    data = to_safetensors(initialize(net().graph()))
    length = 8 + int.from_bytes(data[:8], "little")
    path = tmp_path / "w.safetensors"
    chance = random.Random(0)
    verdicts = set()
    for _ in range(300):
        found = bytearray(data)
        kind = chance.randrange(4)
        if kind == 0:
            del found[chance.randrange(len(found)) :]
        elif kind == 1:
            place = chance.randrange(len(found))
            found[place:place] = chance.randbytes(chance.randrange(1, 9))
        else:
            for _ in range(chance.randrange(1, 4)):
                found[chance.randrange(length if kind == 2 else 8)] = chance.randrange(256)
        path.write_bytes(found)
        try:
            read_header(path)
            whole = True
        except ArchError:
            whole = False
        try:
            with safetensors.safe_open(path, "np"):
                expected = True
        except safetensors.SafetensorError:
            expected = False
        assert whole == expected, bytes(found[:length])
        try:
            load_weights(path, net().graph())
            verdicts.add("")
        except ArchError as error:
            verdicts |= {diagnostic.code for diagnostic in error.diagnostics}
    assert {"E0802", "E0801"} <= verdicts <= {"", "E0801", "E0802", "E0803"}


@linux
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "a pipe" in refused(lambda: read_header(tmp_path / "pipe"), "E0802")
    refused(lambda: read_header("/dev/zero"), "E0802")
    with pytest.raises(IsADirectoryError):
        read_header(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "none")


# ----------------------------------------------------------------------------------- the commands

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `archdsl weights` with these words, in a folder with net.arch."""
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT)
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}

    def call(*words: object) -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, ["weights", *map(str, words)], prog_name="archdsl")

    return call


def test_init(run: Run) -> None:
    result = run("init", "net.arch")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "net.safetensors: 8 tensors for net, 1.69 kB\n"
    assert digest(load_weights("net.safetensors", net().graph())) == digest(
        initialize(net().graph())
    )
    record = json.loads(
        run("init", "net.arch", "--seed", 5, "-o", "five.safetensors", "--json").stdout
    )
    weights = initialize(net().graph(), 5)
    assert record == {
        "file": "five.safetensors",
        "architecture": "net",
        "tensors": 8,
        "bytes": Path("five.safetensors").stat().st_size,
        "weights_sha256": digest(weights),
        "notes": [],
        "warnings": [],
    }
    assert run("init", "net.arch", "--lively", "--classes", 3, "-o", "l.safetensors").exit_code == 0
    arch = archdsl.load("net.arch", classes=3)
    assert digest(load_weights("l.safetensors", arch.graph())) == digest(lively(arch))


def test_init_refuses(run: Run, tmp_path: Path) -> None:
    for words, said in (
        (("init", "net.arch", "-o", "net.arch"), "would replace the architecture"),
        (("init", "net.arch", "-o", "."), "is a folder"),
        (("init", "net.arch", "-o", "none/w.safetensors"), "there is no folder"),
        (("init", "net.arch", "--seed", "-1"), "must be at least 0"),
        (("init", "none.arch"), "none.arch"),
    ):
        result = run(*words)
        assert result.exit_code == 2, words
        assert said in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["net.arch"]


def test_a_full_disk_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Path("net.safetensors").write_bytes(b"old")
    monkeypatch.setattr("os.fsync", full)
    result = run("init", "net.arch")
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"net.arch", "net.safetensors"}
    assert Path("net.safetensors").read_bytes() == b"old"


def test_inspect(run: Run) -> None:
    weights = initialize(net().graph())
    weights["head.1.bias"][:] = (math.nan, 2.5)
    save_weights("w.safetensors", weights)
    result = run("inspect", "w.safetensors")
    assert result.exit_code == 1
    (row,) = [line for line in result.stdout.splitlines() if "head.1.bias" in line]
    assert row.split() == ["head.1.bias", "F32", "2", "2.5", "2.5", "1"]
    assert "8 tensors, 267 numbers, 1.07 kB" in result.stdout
    assert "1 infinite or not numbers" in result.stdout
    record = json.loads(run("inspect", "w.safetensors", "--json").stdout)
    assert record["elements"] == 267
    assert record["not_finite"] == 1
    (bias,) = [row for row in record["tensors"] if row["key"] == "head.1.bias"]
    assert bias == {
        **{"key": "head.1.bias", "dtype": "F32", "shape": [2], "elements": 2, "bytes": 8},
        **{"min": 2.5, "max": 2.5, "not_finite": 1},
    }


def test_inspect_says_whether_they_fit(run: Run) -> None:
    save_weights("w.safetensors", initialize(net().graph()))
    result = run("inspect", "w.safetensors", "--for", "net.arch")
    assert result.exit_code == 0
    assert "fits net\n" in result.stdout
    assert digest(initialize(net().graph())) in result.stdout
    result = run("inspect", "w.safetensors", "--for", "net.arch", "--classes", 5, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["fits"] is False
    assert "error[E0801]" in result.stderr
    assert run("inspect", "w.safetensors", "--classes", 5).exit_code == 2
    assert run("inspect", "none.safetensors").exit_code == 2


def test_inspect_shows_any_types_and_orders(run: Run) -> None:
    tensors = {f"layer.{number}": ("I32", (1,), b"\x07\0\0\0") for number in (10, 9)}
    tensors |= {"eight": ("F8_E4M3", (4,), b"1234"), "empty": ("F32", (0,), b"")}
    Path("w.safetensors").write_bytes(_file(tensors))
    lines = run("inspect", "w.safetensors").stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["eight", "empty", "layer.9", "layer.10"]
    Path("w.safetensors").write_bytes(b"PK")
    result = run("inspect", "w.safetensors")
    assert result.exit_code == 1
    assert "error[E0802]" in result.stderr


@pytest.mark.parametrize("fitting", [True, False, None])
def test_inspect_finds_what_is_not_finite(
    fitting: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT)
    weights: dict[str, Any] = dict(initialize(net().graph()))
    weights["head.1.weight"][0, 0] = math.nan
    weights["head.1.bias"][0] = math.inf
    if fitting is False:
        weights["stray"] = np.zeros(1, np.float32)
    save_weights("w.safetensors", weights)
    words = ["weights", "inspect", "w.safetensors"]
    words += [] if fitting is None else ["--for", "net.arch"]
    for result in (
        CliRunner().invoke(program, words),
        CliRunner().invoke(program, [*words, "--json"]),
    ):
        assert result.exit_code == 1
        assert result.stderr.count("error[E0803]: `w.safetensors` holds values that are inf") == 1
        assert "`head.1.bias`" in result.stderr
        assert "`head.1.weight`" in result.stderr
        assert ("E0801" in result.stderr) == (fitting is False)


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("m.pth", b"PK\x03\x04" + bytes(30), "a PyTorch checkpoint"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(30), "a Keras file"),
        ("m.keras", b"PK\x03\x04" + bytes(30), "a Keras file"),
        ("m.onnx", b"\x08\x08\x12\x07archdsl:" + bytes(30), "an ONNX file"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(30), "a TensorFlow Lite file"),
    ],
)
def test_weights_in_another_format(
    name: str, data: bytes, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT)
    Path(name).write_bytes(data)
    command = f"`archdsl weights import {name} --for FILE` makes one of it"
    for words in ("compile net.arch --to torch --weights", "verify net.arch --weights"):
        result = CliRunner().invoke(program, [*words.split(), name])
        assert result.exit_code == 1
        assert f"error[E0802]: `{name}` is {what}, not a safetensors file" in result.stderr
        assert (command in result.stderr) == (what in ("a PyTorch checkpoint", "a Keras file"))
