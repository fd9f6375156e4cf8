"""What `archdsl.compile` and `archdsl.verify` say to arguments that they cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.backend import BackendError
from archdsl.weights.initial import initialize

TEXT = "arch net input 8x8x3 classes 4 stem { conv_k3_o4 } stage c1 { k3_e3_o4 } head { pool fc }"


@pytest.fixture
def arch() -> archdsl.Arch:
    return archdsl.parse(TEXT)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"seed": -1}, ValueError, "seed -1: must be from 0"),
        ({"seed": 1 << 63}, ValueError, "must be from 0"),
        ({"seed": "1"}, TypeError, "seed '1': must be a whole number"),
        ({"seed": 1.0}, TypeError, "must be a whole number"),
        ({"seed": True}, TypeError, "must be a whole number"),
        ({"seed": 0, "weights": {}}, ValueError, "where weights are given"),
        ({"weights": 3}, TypeError, "a mapping of arrays or a path is wanted, not int"),
        (
            {"weights": [np.zeros(3)]},
            TypeError,
            "a mapping of arrays or a path is wanted, not list",
        ),
        ({"weights": {1: np.zeros(3)}}, TypeError, "keys of a mapping must be texts"),
        ({"features": "c1"}, TypeError, "features 'c1': must be a list of names"),
        ({"features": 1}, TypeError, "features 1: must be a list of names"),
        ({"features": [1]}, TypeError, "names are texts"),
        ({"dtype": "float8"}, BackendError, "writes float32, float16 and int8, not 'float8'"),
        ({"dtype": ["float32"]}, BackendError, "not \\['float32'\\]"),
        ({"ranges": "max"}, ValueError, "ranges 'max': must be one of minmax, percentile, mse"),
        ({"ranges": None}, ValueError, "ranges None: must be one of"),
        ({"ranges": ["mse"]}, ValueError, "must be one of"),
        ({"to": "onyx"}, BackendError, "did you mean 'onnx'"),
        ({"to": 3}, TypeError, "backend 3: must be a name"),
    ],
    ids=str,
)
def test_arguments_of_compile(
    arch: archdsl.Arch, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        archdsl.compile(arch, **{"to": "onnx", **options})


@pytest.mark.parametrize("given", ["mnv2", TEXT, None, Path("net.arch")])
def test_what_is_no_architecture(given: Any) -> None:
    for call in (lambda: archdsl.compile(given, "onnx"), lambda: archdsl.verify(given)):
        with pytest.raises(TypeError, match=r"an Arch is wanted, not .*archdsl\.load"):
            call()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"seed": -1}, ValueError, "seed -1: must be from 0"),
        ({"seed": "1"}, TypeError, "must be a whole number"),
        ({"backends": "onnx"}, TypeError, "backends 'onnx': must be a list of names"),
        ({"dtypes": "int8"}, TypeError, "dtypes 'int8': must be a list of names"),
        ({"dtypes": ["int4"]}, ValueError, "must be some of"),
    ],
    ids=str,
)
def test_arguments_of_verify(
    arch: archdsl.Arch, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        archdsl.verify(arch, **options)


def test_a_seed_is_that_of_the_weights(arch: archdsl.Arch) -> None:
    drawn = {seed: archdsl.compile(arch, "onnx", seed=seed).data for seed in (0, 1)}
    assert drawn[0] == archdsl.compile(arch, "onnx").data != drawn[1]
    for seed, data in drawn.items():
        weights = initialize(arch.graph(), seed)
        assert archdsl.compile(arch, "onnx", weights=weights).data == data


def test_a_dash_is_the_name_of_a_file(
    arch: archdsl.Arch,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = archdsl.compile(arch, "onnx")
    assert artifact.write("-") == "-"
    assert Path("-").read_bytes() == artifact.data
    assert capfd.readouterr().out == ""
