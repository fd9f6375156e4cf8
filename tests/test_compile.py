"""`archdsl compile`: its options, the files it writes, and what it refuses to write."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np
import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.backend import PRECISIONS, Precision
from archdsl.cli import compiling
from archdsl.cli.program import program
from archdsl.quantization.ranges import DEFAULT, METHODS
from archdsl.weights.initial import initialize
from archdsl.weights.store import save_weights

TEXT = """\
arch net
input 32x32x3
classes 10
stem { conv_k3_s22_o8 }
stage c2 { k3_e3_o8_se0.25 }
stage c3 { k5_s22_e3_o16 }
head { pool fc }
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `archdsl` with these words, in a folder with net.arch and trained.safetensors."""
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT)
    arch = archdsl.parse(TEXT)
    save_weights("trained.safetensors", initialize(arch.graph(), 7))
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}

    def call(*words: object) -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, [str(w) for w in words], prog_name="archdsl")

    return call


def made(folder: Path) -> set[str]:
    """The files that were not there before."""
    return {path.name for path in folder.iterdir()} - {"net.arch", "trained.safetensors"}


# -- options


def test_choices_are_those_of_python() -> None:
    """They stand in the command again, which must not import numpy to be shown."""
    assert compiling.PRECISIONS == PRECISIONS == get_args(Precision)
    assert compiling.METHODS == METHODS
    assert compiling.DEFAULT == DEFAULT
    for taken in (archdsl.compile, archdsl.verify):
        assert signature(taken).parameters["ranges"].default == DEFAULT


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--weights", "trained.safetensors", "--seed", "1"), "exclude each other"),
        (("--dtype", "int8"), "--calibration X.npz"),
        (("--calibration", "x.npz"), "--calibration is for --dtype int8"),
        (("--ranges", "mse"), "--ranges is for --dtype int8"),
        (("--dtype", "int8_dynamic", "--calibration", "x.npz"), "is for --dtype int8"),
        (("--preprocess", "imagenet"), "--preprocess"),
        (("--features", "c2,,c3"), "--features"),
        (("--seed", "-1"), "at least 0"),
        (("--dtype", "int4"), "int4"),
        (("--weights", "nowhere.safetensors"), "nowhere.safetensors: No such file"),
    ],
    ids=" ".join,
)
def test_misuse(run: Run, tmp_path: Path, words: tuple[str, ...], wanted: str) -> None:
    result = run("compile", "net.arch", "--to", "tflite", *words)
    assert result.exit_code == 2
    assert wanted in result.stderr
    assert not result.stdout
    assert not made(tmp_path)


def test_a_precision_that_a_backend_lacks_is_misuse(run: Run) -> None:
    result = run("compile", "net.arch", "--to", "torch", "--dtype", "float16")
    assert result.exit_code == 2
    assert "writes float32, not 'float16'" in result.stderr


def test_stages_that_there_are_not(run: Run, tmp_path: Path) -> None:
    result = run("compile", "net.arch", "--to", "onnx", "--features", "c3,c5")
    assert result.exit_code == 1
    assert "error[E0503]" in result.stderr
    assert not made(tmp_path)


def test_features_are_outputs(run: Run) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    assert run("compile", "net.arch", "--to", "onnx", "--features", "c3, c2").exit_code == 0
    outputs = onnxruntime.InferenceSession("net.onnx").get_outputs()
    assert [output.name for output in outputs] == ["output", "c3", "c2"]


def test_norms_are_folded_unless_they_are_kept(run: Run) -> None:
    for words, kept in (((), False), (("--keep-norm",), True)):
        assert run("compile", "net.arch", "--to", "onnx", *words).exit_code == 0
        assert (b"BatchNormalization" in Path("net.onnx").read_bytes()) == kept


# -- weights


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_seed_gives_the_same_bytes(run: Run, to: str) -> None:
    found = []
    for words in ((), ("--seed", "0"), ("--seed", "0"), ("--seed", "1")):
        assert run("compile", "net.arch", "--to", to, *words).exit_code == 0
        found.append(Path(f"net.{to}").read_bytes())
    assert found[0] == found[1] == found[2] != found[3]


def test_weights_are_those_of_the_file(run: Run) -> None:
    seeded = run("compile", "net.arch", "--to", "onnx", "--seed", "7", "-o", "-").stdout_bytes
    words = ("--weights", "trained.safetensors", "-o", "-")
    assert run("compile", "net.arch", "--to", "onnx", *words).stdout_bytes == seeded


@pytest.mark.parametrize("words", [("--weights", "trained.safetensors"), ("--seed", "7")])
def test_weights_lie_beside_pytorch_source(run: Run, words: tuple[str, ...]) -> None:
    result = run("compile", "net.arch", "--to", "torch", "-o", "mine.py", "--json", *words)
    record = json.loads(result.stdout)
    sizes = {name: Path(name).stat().st_size for name in ("mine.py", "mine.safetensors")}
    assert record == {
        "file": "mine.py",
        "bytes": sizes["mine.py"],
        "backend": "torch",
        "dtype": "float32",
        "beside": [{"file": "mine.safetensors", "bytes": sizes["mine.safetensors"]}],
    }
    assert Path("mine.safetensors").read_bytes() == Path("trained.safetensors").read_bytes()
    said = run("compile", "net.arch", "--to", "torch", "-o", "mine.py", *words).stderr
    assert [line.split(":")[0] for line in said.splitlines()] == list(sizes)


def test_source_alone_has_no_weights(run: Run, tmp_path: Path) -> None:
    assert run("compile", "net.arch", "--to", "torch").exit_code == 0
    assert made(tmp_path) == {"net.py"}


def _with(key: str, value: Any) -> None:
    weights = initialize(archdsl.parse(TEXT).graph(), 7)
    save_weights("wrong.safetensors", {**weights, key: np.asarray(value, np.float32)})


@pytest.mark.parametrize("to", ["torch", "onnx", "tflite"])
def test_weights_that_are_none(run: Run, tmp_path: Path, to: str) -> None:
    whole = Path("trained.safetensors").read_bytes()
    _with("head.1.bias", [0.0] * 11)
    for code, data in (
        ("E0801", Path("wrong.safetensors").read_bytes()),
        ("E0802", whole[: len(whole) // 2]),
        ("E0802", b"no such thing"),
        ("E0802", b""),
    ):
        Path("wrong.safetensors").write_bytes(data)
        result = run("compile", "net.arch", "--to", to, "--weights", "wrong.safetensors")
        assert result.exit_code == 1, result.output
        assert f"error[{code}]" in result.stderr
    _with("head.1.bias", [float("nan")] * 10)
    result = run("compile", "net.arch", "--to", to, "--weights", "wrong.safetensors")
    assert (result.exit_code, "error[E0803]" in result.stderr) == (1, True)
    assert made(tmp_path) == {"wrong.safetensors"}


# -- where to


def test_what_lies_beside_cannot_go_to_standard_output(run: Run, tmp_path: Path) -> None:
    words = ("--to", "torch", "--weights", "trained.safetensors", "-o", "-")
    result = run("compile", "net.arch", *words)
    assert result.exit_code == 2
    assert "net.safetensors must lie beside" in result.stderr
    assert not result.stdout
    assert not made(tmp_path)


def test_nothing_that_is_read_is_written_over(run: Run, tmp_path: Path) -> None:
    os.link("trained.safetensors", "other.safetensors")
    Path("name.safetensors").write_text(TEXT)
    Path("folder.safetensors").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    weights = ("--to", "torch", "--weights", "trained.safetensors")
    for words in (
        ("net.arch", *weights, "-o", "net.arch"),
        ("net.arch", *weights, "-o", "trained.safetensors"),
        # What lies beside is named after the file.
        ("net.arch", *weights, "-o", "trained.py"),
        ("net.arch", *weights, "-o", "other.py"),
        ("name.safetensors", *weights, "-o", "name.py"),
        ("net.arch", *weights, "-o", "folder.py"),
        ("net.arch", *weights, "-o", "."),
        ("net.arch", *weights, "-o", "nowhere/net.py"),
    ):
        result = run("compile", *words)
        assert result.exit_code == 2, words
        assert result.stderr.startswith("error: -o ")
        assert not result.stdout
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("to", ["torch", "onnx", "tflite"])
def test_a_device_that_is_full(run: Run, to: str) -> None:
    result = run("compile", "net.arch", "--to", to, "-o", "/dev/full")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No space left on device" in result.stderr


def test_nothing_can_lie_beside_a_device(run: Run) -> None:
    words = ("--to", "torch", "--weights", "trained.safetensors", "-o", os.devnull)
    result = run("compile", "net.arch", *words)
    assert result.exit_code == 2
    assert "is no file that null.safetensors can lie beside" in result.stderr


@pytest.mark.parametrize("to", ["torch", "onnx", "tflite"])
@pytest.mark.parametrize(
    ("function", "number"), [("os.fsync", errno.ENOSPC), ("tempfile.mkstemp", errno.EACCES)]
)
def test_a_refusing_disk_leaves_nothing_behind(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, function: str, number: int
) -> None:
    def refuse(*words: object, **options: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(function, refuse)
    words = ("--weights", "trained.safetensors")
    result = run("compile", "net.arch", "--to", to, *words)
    assert result.exit_code == 2
    assert os.strerror(number) in result.stderr
    assert not made(tmp_path)


# -- packages


@pytest.mark.parametrize("weights", [(), ("--weights", "trained.safetensors")])
def test_what_is_written_needs_no_runtime(
    run: Run, monkeypatch: pytest.MonkeyPatch, weights: tuple[str, ...]
) -> None:
    for package in ("torch", "onnx", "onnxruntime", "ai_edge_litert"):
        monkeypatch.setitem(sys.modules, package, None)
    for to in ("torch", "onnx", "tflite"):
        assert run("compile", "net.arch", "--to", to, *weights).exit_code == 0


def test_a_missing_package_names_its_install_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    result = run("compile", "net.arch", "--to", "tflite")
    assert result.exit_code == 2
    assert 'pip install "archdsl[tflite]"' in result.stderr
    assert not made(tmp_path)


# -- int8


def _images(count: int = 6, side: int = 32) -> None:
    images = np.random.default_rng(0).normal(size=(count, side, side, 3))
    np.savez("x.npz", images=images.astype(np.float32))


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_int8_is_calibrated(run: Run, to: str) -> None:
    pytest.importorskip("onnxruntime")
    _images()
    found = {}
    for ranges in (None, *METHODS):
        asked = ["--ranges", ranges] if ranges else []
        words = ("--dtype", "int8", "--calibration", "x.npz", "-o", f"{ranges}.{to}")
        result = run("compile", "net.arch", "--to", to, *words, *asked)
        assert result.exit_code == 0, result.output
        assert "\x1b" not in result.stderr
        found[ranges] = Path(f"{ranges}.{to}").read_bytes()
    assert found[None] == found["mse"]
    assert len(set(found.values())) == len(METHODS)


def test_images_that_do_not_fit(run: Run, tmp_path: Path) -> None:
    words = ("--to", "tflite", "--dtype", "int8", "--calibration")
    for count, side in ((6, 31), (0, 32)):
        _images(count, side)
        result = run("compile", "net.arch", *words, "x.npz")
        assert (result.exit_code, "error[E0804]" in result.stderr) == (1, True)
    result = run("compile", "net.arch", *words, "nowhere.npz")
    assert (result.exit_code, "nowhere.npz: No such file" in result.stderr) == (2, True)
    Path("photos").mkdir()
    result = run("compile", "net.arch", *words, "photos")
    assert (result.exit_code, "name the preprocessing" in result.stderr) == (1, True)
    assert made(tmp_path) == {"x.npz", "photos"}


def test_calibration_needs_onnxruntime(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    _images()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    words = ("--dtype", "int8", "--calibration", "x.npz")
    result = run("compile", "net.arch", "--to", "tflite", *words)
    assert result.exit_code == 2
    assert 'pip install "archdsl[onnx]"' in result.stderr


# -- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", stream())
    with compiling.progress_bar("calibrating") as progress:
        if progress is not None:
            progress(3, 8)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert ("calibrating" in shown) == ("3/8" in shown) == (stream is Terminal)


def test_weights_of_others_are_not_replaced(run: Run) -> None:
    """`net.safetensors` is what trained weights would be called too."""
    Path("net.safetensors").write_bytes(b"trained for weeks")
    result = run("compile", "net.arch", "--to", "torch", "--seed", "1", "-o", "net.py")
    assert result.exit_code == 2
    assert "net.safetensors holds something else" in result.stderr
    assert Path("net.safetensors").read_bytes() == b"trained for weeks"
    assert not Path("net.py").exists()
    os.remove("net.safetensors")
    for _ in range(2):  # its own bytes it may write again
        assert (
            run("compile", "net.arch", "--to", "torch", "--seed", "1", "-o", "net.py").exit_code
            == 0
        )
