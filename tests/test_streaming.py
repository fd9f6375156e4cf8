"""Artefacts are written piece by piece: what is made when, and what a failure leaves."""

from __future__ import annotations

import copy
import math
import os
import pickle
import threading
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from artefacts import FEW

import archdsl
from archdsl.backend import Artifact
from archdsl.files import Content, Piece, write_together, write_whole
from archdsl.ir.lazy import Lazy, LazyWeights
from archdsl.weights.initial import drawn, initialize
from archdsl.weights.lively import lively
from archdsl.weights.store import Digest, digest, fitted, open_weights, save_weights
from archdsl.weights.tensors import to_safetensors

TEXT = """\
arch net
input 16x16x3
classes 10
stem { conv_k3_s22_o8 }
stage c2 { k3_e3_o8_se0.25 }
stage c3 { mqa_h2_d8 }
head { pool fc }
"""

WIDE = """\
arch wide
input 8x8x3
classes 10
stem { conv_k1_o512 }
stage c1 { conv_k1_o512_r20 }
head { pool fc }
"""


@pytest.fixture
def arch() -> archdsl.Arch:
    return archdsl.parse(TEXT)


@pytest.fixture
def path(tmp_path: Path, arch: archdsl.Arch) -> Path:
    """A file of weights under which no value is as it was drawn."""
    found = tmp_path / "w.safetensors"
    save_weights(found, lively(arch, pixels=FEW))
    return found


def refused(call: Callable[[], object], code: str) -> str:
    with pytest.raises(archdsl.ArchError) as caught:
        call()
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code
    return diagnostic.message


# -------------------------------------------------------------------------------------- content


def test_the_length_of_a_content_makes_nothing() -> None:
    made: list[int] = []

    def make() -> bytes:
        made.append(1)
        return b"cd"

    content = Content([b"a", b"b", Piece(2, make), b"", Piece(2, make), b"e"])
    assert len(content) == 7 and not made
    assert bytes(content) == b"".join(content) == b"abcdcde"
    assert len(made) == 4


def test_a_file_of_pieces_is_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise archdsl.ArchError([])

    first, second = tmp_path / "first", tmp_path / "second"
    second.write_bytes(b"old")
    whole = Content([b"new", Piece(1, lambda: b"!")])
    for bad in (Content([b"begun", Piece(1, fails)]), Content([Piece(2, lambda: b"one")])):
        with pytest.raises((archdsl.ArchError, ValueError)):
            write_together({first: whole, second: bad})
        assert [file.name for file in tmp_path.iterdir()] == ["second"]
        assert second.read_bytes() == b"old"
    write_together({first: whole, second: whole})
    assert first.read_bytes() == second.read_bytes() == b"new!"


def test_a_pipe_gets_nothing_of_what_cannot_be_made(tmp_path: Path) -> None:
    def fails() -> bytes:
        raise archdsl.ArchError([])

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(archdsl.ArchError):
            write_whole(pipe, Content([b"begun", Piece(1, fails)]))
        write_whole(pipe, Content([b"who", Piece(2, lambda: b"le")]))
        assert os.read(end, 100) == b"whole"
    finally:
        os.close(end)


# -------------------------------------------------------------------------------------- weights


def test_drawn_weights_are_the_initial_ones(arch: archdsl.Arch) -> None:
    graph = arch.graph()
    lazy, wanted = drawn(graph, 3), initialize(graph, 3)
    assert list(lazy) == list(wanted) == list(graph.state())
    for key, value in wanted.items():
        assert (lazy.lazy[key].shape, lazy.lazy[key].dtype) == (value.shape, value.dtype)
        np.testing.assert_array_equal(lazy[key], value)


def counted(weights: LazyWeights) -> tuple[LazyWeights, list[str]]:
    made: list[str] = []

    def counting(key: str, lazy: Lazy) -> Lazy:
        def change(value: Any) -> Any:
            made.append(key)
            return value

        return lazy.then(change)

    return LazyWeights({key: counting(key, lazy) for key, lazy in weights.lazy.items()}), made


@pytest.mark.parametrize(
    "order",
    [
        lambda keys: keys,
        lambda keys: keys[::-1],
        lambda keys: keys[5:] + keys[:5],
        lambda keys: [],
        lambda keys: [key for key in keys if key.endswith("weight")] * 2,
    ],
    ids=["in order", "backwards", "rotated", "none", "some, twice"],
)
@pytest.mark.parametrize("little", [0, 1 << 20])
def test_a_digest_is_that_of_any_order(
    arch: archdsl.Arch,
    order: Callable[[list[str]], Iterable[str]],
    little: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("archdsl.weights.store._LITTLE", little)
    weights = drawn(arch.graph())
    found = Digest(weights)
    for key in order(list(weights)):
        np.testing.assert_array_equal(found.weights[key], weights[key])
    assert found.hexdigest() == found.hexdigest() == digest(initialize(arch.graph()))


def test_weights_read_in_order_are_made_once_for_their_digest(arch: archdsl.Arch) -> None:
    weights, made = counted(drawn(arch.graph()))
    found = Digest(weights)
    for key in weights:
        found.weights[key]
    found.hexdigest()
    assert made == list(weights)


def test_a_tensor_without_elements_is_hashed_once() -> None:
    weights = LazyWeights.of({"a": np.ones(3), "b": np.zeros(0), "c": np.ones(1)})
    found = Digest(weights)
    for key in ("a", "b", "b", "c", "b"):
        found.weights[key]
    assert found.hexdigest() == digest(dict(weights))


def test_lazy_weights_are_checked_too(arch: archdsl.Arch) -> None:
    graph = arch.graph()
    weights = drawn(graph)
    key = "head.1.weight"
    wrong = LazyWeights({**weights.lazy, key: weights.lazy[key].then(lambda v: v * np.inf)})
    assert key in refused(lambda: fitted(wrong, graph), "E0803")
    refused(
        lambda: fitted(LazyWeights({**weights.lazy, "more": weights.lazy[key]}), graph), "E0801"
    )
    assert digest(fitted(weights, graph)) == digest(weights)


def test_what_is_written_is_what_the_own_library_writes() -> None:
    types = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
    weights = {f"ä\n{t}": np.arange(6).astype(t).reshape(2, 3) for t in types}
    weights |= {"scalar": np.array(3), "none": np.zeros((0, 4), np.float32)}
    weights["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T
    own = {key: np.asarray(value, order="C") for key, value in weights.items()}
    assert to_safetensors(weights) == safetensors.numpy.save(own)
    with pytest.raises(ValueError, match="complex64"):
        to_safetensors({"a": np.zeros(1, np.complex64)})


# ------------------------------------------------------------------------------------ artefacts


@pytest.mark.parametrize("to", ["onnx", "tflite", "torch"])
@pytest.mark.parametrize("given", ["seed", "file", "arrays"])
def test_what_is_written_is_the_data(
    arch: archdsl.Arch, path: Path, tmp_path: Path, to: str, given: str
) -> None:
    options: dict[str, Any] = {"weights": path} if given == "file" else {"seed": 1}
    if given == "arrays":
        options = {"weights": lively(arch, pixels=FEW)}
    artifact = archdsl.compile(arch, to, **options)
    out = Path(artifact.write(tmp_path / artifact.filename))
    assert out.read_bytes() == artifact.data
    assert archdsl.compile(arch, to, **options).data == artifact.data
    beside = {name: out.parent / name for name in artifact.emission.beside}
    assert list(beside) == (["net.safetensors"] if to == "torch" and given != "seed" else [])
    for name, file in beside.items():
        assert file.read_bytes() == bytes(artifact.emission.beside[name]) == path.read_bytes()
    assert artifact.size == sum(file.stat().st_size for file in (out, *beside.values()))


@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("given", ["seed", "file"])
def test_a_few_tensors_are_in_memory_at_a_time(tmp_path: Path, to: str, given: str) -> None:
    arch = archdsl.parse(WIDE)
    graph = arch.graph()
    weights = tmp_path / "w.safetensors"
    if given == "file":
        save_weights(weights, initialize(graph))
    sizes = [4 * math.prod(shape) for shape in graph.state().values()]
    options: dict[str, Any] = {"weights": weights} if given == "file" else {"seed": 0}
    # Imports, and the table that variates are taken from.
    archdsl.compile(archdsl.parse(TEXT), to).write(tmp_path / "warm")
    tracemalloc.start()
    try:
        archdsl.compile(arch, to, **options).write(tmp_path / "made")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    whole = (tmp_path / "made").stat().st_size
    assert peak < 4 * max(sizes) + (1 << 20) < whole / 3


def test_each_weight_is_drawn_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for norms and biases, which are little: those that are folded are needed twice."""
    arch = archdsl.load("mnv4_hybrid_m", input=(32, 32, 3))
    taken: list[tuple[LazyWeights, list[str]]] = []

    def counting(graph: Any, seed: int) -> LazyWeights:
        taken.append(counted(drawn(graph, seed)))
        return taken[-1][0]

    monkeypatch.setattr("archdsl.weights.initial.drawn", counting)
    for to in ("onnx", "tflite"):
        archdsl.compile(arch, to).write(tmp_path / "made")
        weights, made = taken[-1]
        large = [key for key in weights if weights.lazy[key].nbytes > 100_000]
        # TensorFlow Lite's projections behind a norm take it into kernel and bias.
        again = [key for key in large if made.count(key) > 1]
        assert all(made.count(key) for key in large)
        assert len(again) <= (30 if to == "tflite" else 0), again


@pytest.mark.parametrize("to", ["onnx", "tflite", "torch"])
def test_a_file_of_weights_that_goes_away(arch: archdsl.Arch, path: Path, to: str) -> None:
    artifact = archdsl.compile(arch, to, weights=path)
    expected = bytes(archdsl.compile(arch, to, weights=path).emission.content)
    other = lively(arch, 1, pixels=FEW)
    path.unlink()
    save_weights(path, other)
    artifact.write(path.parent / artifact.filename)
    assert artifact.data == expected


@pytest.mark.parametrize("to", ["onnx", "tflite", "torch"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_file_of_weights_that_is_changed(
    arch: archdsl.Arch, path: Path, to: str, cut: bool
) -> None:
    artifact = archdsl.compile(arch, to, weights=path)
    if cut:
        os.truncate(path, path.stat().st_size // 2)
    else:
        with path.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\0")
        os.utime(path, (0, 0))
    out = path.parent / artifact.filename
    assert "was changed" in refused(lambda: artifact.write(out), "E0802")
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("to", ["onnx", "tflite", "torch"])
def test_arrays_that_are_changed(arch: archdsl.Arch, tmp_path: Path, to: str) -> None:
    weights = lively(arch, pixels=FEW)
    artifact, expected = (archdsl.compile(arch, to, weights=weights) for _ in range(2))
    digests = {bytes(data) for data in (expected.data, *expected.emission.beside.values())}
    for value in weights.values():
        value[...] = 0
    assert digests == {bytes(d) for d in (artifact.data, *artifact.emission.beside.values())}


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_folding_that_overflows_leaves_nothing(arch: archdsl.Arch, tmp_path: Path, to: str) -> None:
    weights = lively(arch, pixels=FEW)
    for name in ("weight", "running_var"):
        weights[f"stem.0.norm.{name}"][:] = 3e38 if name == "weight" else 0
    (tmp_path / "net").write_bytes(b"old")
    artifact = archdsl.compile(arch, to, weights=weights)
    said = refused(lambda: artifact.write(tmp_path / "net"), "E0803")
    assert "stem.0.conv" in said
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_threads_that_ask_for_the_same_bytes(arch: archdsl.Arch, path: Path) -> None:
    wanted = archdsl.compile(arch, "onnx", weights=path).data
    artifact: Artifact = archdsl.compile(arch, "onnx", weights=path)
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(bytes(artifact.emission.content)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and set(found) == {wanted}


@pytest.mark.parametrize("to", ["onnx", "tflite", "torch"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_a_copy_is_whole(
    arch: archdsl.Arch, path: Path, to: str, copied: Callable[[Artifact], Artifact]
) -> None:
    artifact = archdsl.compile(arch, to, weights=path)
    other = copied(artifact)
    path.write_bytes(b"no longer there")
    wanted = archdsl.compile(arch, to, weights=lively(arch, pixels=FEW))
    assert other.data == wanted.data and other.size == wanted.size
    for name, data in wanted.emission.beside.items():
        assert bytes(other.emission.beside[name]) == bytes(data)
    assert digest(other.job.weights) == digest(lively(arch, pixels=FEW))


def test_open_weights_read_anew(arch: archdsl.Arch, path: Path) -> None:
    weights = open_weights(path, arch.graph())
    first = weights["head.1.weight"]
    first[...] = 0
    assert weights["head.1.weight"].any()
