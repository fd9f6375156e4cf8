"""Whether an artefact is what a text and weights compile to: no runtime is asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from foreign import corrupted

import archdsl
from archdsl.cli.program import program
from archdsl.provenance import departures
from archdsl.weights.lively import lively
from archdsl.weights.store import save_weights

TEXT = (
    "arch net\ninput 16x16x3\nstem { conv_k3_s22_o8 }\nstage c2 { r2_k3_e2_o8 }\nhead { pool fc }\n"
)

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder with a text, its weights and artefacts of both."""
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT, encoding="utf-8")
    arch = archdsl.load("net.arch")
    save_weights("net.safetensors", dict(lively(arch)))
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"})
    for suffix, to in TO.items():
        name = f"net{suffix}"
        archdsl.compile(arch, to, weights="net.safetensors", filename=name).write(name)
    return lambda *words: runner.invoke(program, ["verify", "net.arch", *words])


WEIGHTS = ("--weights", "net.safetensors")
TO = {".onnx": "onnx", ".tflite": "tflite", ".py": "torch"}


@pytest.mark.parametrize("file", ["net.onnx", "net.tflite", "net.py"])
def test_what_was_compiled_is_what_is_compiled(run: Run, file: str) -> None:
    result = run("--artefact", file, *WEIGHTS)
    assert (result.exit_code, result.stdout) == (
        0,
        f"{file} is what net compiles to, byte for byte\n",
    )


@pytest.mark.parametrize("file", ["net.onnx", "net.tflite"])
def test_the_hashes_tell_what_is_another(run: Run, file: str) -> None:
    result = run("--artefact", file, "--seed", "1")
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {file}: it was compiled with other weights\n",
    )
    Path("net.arch").write_text(TEXT + "# another text\n", encoding="utf-8")
    result = run("--artefact", file, *WEIGHTS)
    assert result.exit_code == 1
    assert result.stderr == f"error: {file}: it was compiled of another text than `net.arch`\n"


@pytest.mark.parametrize("file", ["net.onnx", "net.tflite"])
def test_a_changed_weight_is_found(run: Run, file: str) -> None:
    """The hashes in it still are those: a file's own word is not what is believed."""
    data = bytearray(Path(file).read_bytes())
    place = len(data) // 2
    data[place] ^= 1
    Path(file).write_bytes(data)
    result = run("--artefact", file, *WEIGHTS)
    assert result.exit_code == 1
    assert f"text and weights are those, and it departs at byte {place:,}:" in result.stderr


def test_a_file_that_was_cut_or_grew(run: Run) -> None:
    data = Path("net.onnx").read_bytes()
    for changed in (data[:-1], data + b"\0", b""):
        Path("net.onnx").write_bytes(changed)
        result = run("--artefact", "net.onnx", *WEIGHTS)
        assert result.exit_code == 1
        place = min(len(changed), len(data))
        assert f"departs at byte {place:,}" in result.stderr


def test_weights_beside_are_looked_at_too(run: Run) -> None:
    (beside,) = {path.name for path in Path().glob("net*.safetensors")}
    Path("net.safetensors").rename("given.safetensors")
    words = ("--artefact", "net.py", "--weights", "given.safetensors")
    result = run(*words)
    assert (result.exit_code, result.stderr) == (1, f"error: {beside}: is missing\n")
    data = bytearray(Path("given.safetensors").read_bytes())
    data[-1] ^= 1
    Path(beside).write_bytes(data)
    assert f"departs at byte {len(data) - 1:,}" in run(*words).stderr


def test_integers_are_made_anew_of_their_images(run: Run) -> None:
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    np.savez("images.npz", images=images)
    arch = archdsl.load("net.arch")
    options = {"dtype": "int8", "calibration": "images.npz", "weights": "net.safetensors"}
    archdsl.compile(arch, "onnx", filename="net.onnx", **options).write("net.onnx")  # type: ignore[arg-type]
    words = ("--artefact", "net.onnx", *WEIGHTS)
    assert run(*words, "--dtype", "int8", "--calibration", "images.npz").exit_code == 0
    assert "other options" in run(*words).stderr


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("it.onnx", ("--features", "c2")),
        ("it.onnx", ("--keep-norm",)),
        ("it.onnx", ("--features", "c2", "--keep-norm")),
        ("it.onnx", ("--dtype", "float16")),
        ("it.tflite", ("--features", "c2")),
        ("it.tflite", ("--dtype", "int8_dynamic")),
        ("it.tflite", ("--width", "0.5", "--input", "24x24x3", "--classes", "7")),
        ("it.py", ("--width", "0.5", "--input", "24x24x3", "--classes", "7")),
    ],
    ids=lambda words: words if isinstance(words, str) else " ".join(words),
)
def test_what_compile_was_told_verify_is_told(run: Run, file: str, options: Sequence[str]) -> None:
    """Whatever options made a file, the same make it again; others make another file."""
    weights = ("--seed", "3") if "--width" in options else WEIGHTS
    words = ["compile", "net.arch", "--to", TO[Path(file).suffix], "-o", file, *weights, *options]
    made = CliRunner().invoke(program, words)
    assert made.exit_code == 0, made.output
    result = run("--artefact", file, *weights, *options)
    assert result.exit_code == 0, result.output
    assert run("--artefact", file, *weights).exit_code == 1


def test_options_of_a_file_that_is_not_named(run: Run) -> None:
    for words in (("--features", "c2"), ("--keep-norm",)):
        result = run(*words)
        assert (result.exit_code, "how --artefact was compiled" in result.stderr) == (2, True)
    result = run("--artefact", "net.tflite", "--keep-norm", *WEIGHTS)
    assert (result.exit_code, "they are always folded" in result.stderr) == (2, True)
    result = run("--artefact", "net.onnx", "--features", "c9", *WEIGHTS)
    assert (result.exit_code, "error[E0503]" in result.stderr) == (1, True)
    result = run("--artefact", "net.onnx", "--features", "c2,,c3", *WEIGHTS)
    assert (result.exit_code, "takes names of stages" in result.stderr) == (2, True)


@pytest.mark.parametrize("file", ["net.onnx", "net.tflite", "net.py"])
def test_random_corruptions_of_artefacts(run: Run, file: str) -> None:
    """300 of each: every file that is not the same is told, and none is run to tell."""
    del run
    sound = Path(file).read_bytes()
    made = archdsl.compile(
        archdsl.load("net.arch"), TO[Path(file).suffix], weights="net.safetensors", filename=file
    )
    chance = random.Random(0)
    for _ in range(300):
        data = corrupted(sound, chance)
        Path(file).write_bytes(data)
        found = departures(file, made)
        assert bool(found) == (data != sound), found
        assert all(departure.file == file and departure.why for departure in found)


def test_what_is_no_artefact(run: Run) -> None:
    assert run("--artefact", "net.arch").exit_code == 2
    assert run("--artefact", "nowhere.onnx").exit_code == 2
    assert "no --images" in run("--artefact", "net.onnx", "--layers").stderr
    assert run("--artefact", "/dev/zero", "--backend", "onnx").exit_code == 1
    result = run("--artefact", "net.onnx", *WEIGHTS, "--json")
    assert '"faults": []' in result.stdout
