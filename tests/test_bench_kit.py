"""The bench kit: what its networks tell apart, how it is written, and how it is run."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner

import archdsl
from archdsl.backend import BackendError
from archdsl.calibration import kit, running, writing
from archdsl.calibration.measuring import emitted, measure, nominal_ranges
from archdsl.calibration.results import read_results
from archdsl.calibration.running import Timing, drift, timed_in_turns
from archdsl.calibration.writing import write_kit
from archdsl.cli.benching import RUNTIMES
from archdsl.cli.program import program
from archdsl.compiler import Arch
from archdsl.ir.ops import Activation
from archdsl.lang.source import SourceText
from archdsl.library import members, networks
from archdsl.passes.cost import OP_CLASSES

PACKAGES = {"onnxruntime": "onnxruntime", "tflite": "ai_edge_litert", "torch": "torch"}
RUNTIME = [
    pytest.param(name, marks=pytest.mark.skipif(not _there, reason=f"needs {name}"))
    for name, _there in ((n, find_spec(p)) for n, p in PACKAGES.items())
]


def small() -> list[Arch]:
    """Networks of the kit that take no time."""
    return [arch for arch in kit.networks() if arch.name in ("one_op", "small_ops", "linear")]


# ------------------------------------------------------------------------------- the networks


def test_the_kit_is_of_networks_that_are_not_published() -> None:
    names = [arch.name for arch in kit.networks()]
    assert 30 <= len(names) <= 40 and len(set(names)) == len(names)
    assert not set(names) & {member.name for member in members()}
    published = {arch.cost().macs for arch in networks()}
    assert not published & {arch.cost().macs for arch in kit.networks()}


def test_whole_networks_span_the_sizes_of_published_ones() -> None:
    macs = sorted(a.cost().macs for a in kit.networks() if kit.is_whole(a.name))
    assert len(macs) >= 12 and macs[0] < 40e6 and macs[-1] > 3e9
    steps = np.diff(np.log(macs))
    assert steps.max() < np.log(4)


def test_the_kit_tells_apart_what_is_to_be_fitted() -> None:
    """Times that are sums of these numbers times the columns below have one solution."""
    rows = []
    for arch in kit.networks():
        work = arch.work
        classes = np.array(work.classes)
        macs = [np.array(work.macs)[classes == n].sum() for n in range(len(OP_CLASSES) - 1)]
        elementwise = np.array(work.activations)[classes == OP_CLASSES.index("elementwise")].sum()
        bytes_ = [sum(work.weights), sum(work.activations), elementwise]
        rows.append([*macs, *bytes_, len(work), 1.0])
    table = np.array(rows)
    # In shares of each network's own time, at a peak of 40 GMAC/s and the like: what can be seen.
    table *= np.array([1 / 40e9] * 5 + [4 / 10e9] * 3 + [1e-6, 1e-5])
    table /= table.sum(axis=1, keepdims=True)
    table /= np.linalg.norm(table, axis=0)
    assert np.linalg.cond(table) < 30


def test_activations_stand_in_the_kit() -> None:
    found = {
        node.op.function
        for arch in kit.networks()
        for node in arch.graph()
        if isinstance(node.op, Activation)
    }
    assert {"relu", "relu6", "hswish", "swish", "gelu", "sigmoid", "hsigmoid"} <= found


def test_int8_needs_no_images() -> None:
    for arch in kit.networks():
        assert all(low < high for low, high in nominal_ranges(arch.graph()).values())
    # These two have every operator.
    for arch in (arch for arch in kit.networks() if arch.name in ("mqa_16", "ir_7_swish_se")):
        assert (
            emitted(arch, "onnxruntime", "int8").size
            < emitted(arch, "onnxruntime", "float32").size / 2
        )


# --------------------------------------------------------------------------------- the folder


@pytest.mark.parametrize("runtime", RUNTIME)
def test_a_kit_is_written_run_and_read(tmp_path: Path, runtime: Any) -> None:
    folder = tmp_path / "kit"
    write_kit(folder, runtime, archs=small())
    table = json.loads((folder / "kit.json").read_text())
    assert [model["name"] for model in table["models"]] == ["linear", "small_ops", "one_op"]
    assert (table["schema_version"], table["runtime"], table["dtype"]) == (1, runtime, "float32")
    for model, arch in zip(table["models"], small(), strict=True):
        again = archdsl.parse(SourceText("x", model["arch"])).cost()
        assert again.macs == model["macs"] == arch.cost().macs
        assert again.params == model["params"] and model["input"] == list(arch.input)
    done = subprocess.run(
        [sys.executable, folder / "run.py", "--seconds", "0.1"],
        # Where archdsl is not installed.
        env={**os.environ, "PYTHONPATH": "", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "wrote" in done.stderr and "\x1b" not in done.stderr
    results = read_results(folder / "results.json")
    assert [one.name for one in results.measurements] == ["linear", "small_ops", "one_op"]
    assert all(one.us > 0 and not one.whole for one in results.measurements)
    assert (results.runtime, results.dtype, results.threads) == (runtime, "float32", 1)
    assert results.runtime_version and results.machine and not results.skipped


def test_run_alone_needs_no_archdsl() -> None:
    source = Path(running.__file__).read_text()
    assert "archdsl." not in source.replace("archdsl-results", "")


def test_run_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_kit(tmp_path / "kit", "onnxruntime", archs=small()[:1])
    for arguments, said in (
        (["--threads", "0"], "must be positive"),
        (["--seconds", "nan"], "must be positive"),
        (["--cpu", "-3"], "--cpu"),
        (["--seconds", "0.01", "-o", tmp_path / "none" / "x.json"], "No such file"),
    ):
        command = [sys.executable, tmp_path / "kit" / "run.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_an_earlier_kit_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "kit"
    folder.mkdir()
    write_kit(folder, "onnxruntime", archs=small())
    write_kit(folder, "torch", archs=small()[:1])
    assert sorted(os.listdir(folder)) == ["README.md", "kit.json", "linear.py", "run.py"]
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(tmp_path.stat().st_mode) | 0o055
    (folder / "results.json").write_text("{}")
    before = sorted(os.listdir(folder))
    with pytest.raises(FileExistsError, match=r"results\.json"):
        write_kit(folder, "onnxruntime", archs=small())
    assert sorted(os.listdir(folder)) == before and os.listdir(tmp_path) == ["kit"]


@pytest.mark.parametrize("content", [None, "{", '{"format": "archdsl-kit", "models": [3]}', "[]"])
def test_another_folder_is_left_alone(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    if content is not None:
        (folder / "kit.json").write_text(content)
    before = sorted(os.listdir(folder))
    with pytest.raises(FileExistsError):
        write_kit(folder, "onnxruntime", archs=small())
    with pytest.raises(FileExistsError):
        write_kit(folder / "thesis.txt", "onnxruntime", archs=small())
    with pytest.raises(FileNotFoundError):
        write_kit(tmp_path / "no" / "kit", "onnxruntime", archs=small())
    assert sorted(os.listdir(folder)) == before and os.listdir(tmp_path) == ["mine"]


def test_nothing_is_left_of_a_kit_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arch: Arch, *more: Any) -> Any:
        if arch.name == "one_op":
            raise KeyboardInterrupt
        return emitted(arch, *more)

    monkeypatch.setattr(writing, "emitted", fail)
    with pytest.raises(KeyboardInterrupt):
        write_kit(tmp_path / "kit", "torch", archs=small())
    assert os.listdir(tmp_path) == []


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert RUNTIMES == tuple(kit.RUNTIMES) == get_args(kit.Runtime)
    monkeypatch.chdir(tmp_path)
    few = tuple(small())
    monkeypatch.setattr(kit, "networks", lambda: few)
    monkeypatch.setattr(writing, "networks", lambda: few)
    done = CliRunner().invoke(program, ["bench-kit", "--runtime", "torch"], standalone_mode=False)
    assert done.exit_code == 0 and "kit-torch-float32: 3 models" in done.stderr
    assert "linear" in (tmp_path / "kit-torch-float32" / "README.md").read_text()
    refused = CliRunner().invoke(program, ["bench-kit", "--runtime", "torch", "--dtype", "int8"])
    assert refused.exit_code == 2 and "writes float32" in refused.stderr


# ---------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize("runtime", RUNTIME)
def test_networks_are_measured_here(runtime: Any) -> None:
    told: list[tuple[str, int, int]] = []
    tell: Callable[..., None] = lambda *what: told.append(what)  # noqa: E731
    results = measure(small(), runtime, seconds=0.1, progress=tell)
    assert [one.name for one in results.measurements] == ["linear", "small_ops", "one_op"]
    linear, ops, one = (measurement.us for measurement in results.measurements)
    assert min(linear, ops) > 2 * one > 0
    assert told[0] == ("compiling", 0, 3) and told[-1][0] == "timing"
    assert told[-1][1] == told[-1][2] >= 3
    assert (results.machine, results.threads) == (running.machine(), 1)


def test_what_cannot_be_measured() -> None:
    with pytest.raises(BackendError, match="writes float32"):
        measure(small(), "torch", "int8")
    with pytest.raises(BackendError, match="must be one of"):
        measure(small(), "tensorrt")  # type: ignore[arg-type]
    for options in ({"threads": 0}, {"seconds": 0.0}, {"seconds": float("nan")}):
        with pytest.raises(ValueError, match="positive"):
            measure(small(), "onnxruntime", **options)  # type: ignore[arg-type]


def test_functions_take_turns() -> None:
    order: list[str] = []
    runs = [lambda: order.append("a"), lambda: order.append("b")]
    timings = timed_in_turns(runs, 0.001)
    # Whole rounds, every second one backwards.
    turns = [name for name, before in zip(order, ["", *order], strict=False) if name != before]
    assert turns[:6] == ["a", "b", "a", "b", "a", "b"][: len(turns[:6])]
    assert len(timings) == 2 and all(one.us > 0 for one in timings)


def test_a_pause_is_no_work() -> None:
    """A run in which the processor was elsewhere does not count, where others were not."""
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        until = time.thread_time() + 1e-3
        while time.thread_time() < until:
            pass
        if calls % 3 == 0:
            time.sleep(5e-3)

    (timing,) = timed_in_turns([work], 0.2)
    assert timing.us < 3e3 and timing.disturbed > 0.2
    (timing,) = timed_in_turns([lambda: time.sleep(2e-3)], 0.05, single=False)
    assert timing.us > 2e3 and timing.disturbed == 0


def test_drift_is_of_all_networks_together() -> None:
    base = Timing(100.0, 90.0, 0.0, 3, 0.0, (100.0, 110.0, 100.0))
    other = base._replace(us=200.0, rounds=(200.0, 220.0, float("nan")))
    assert drift([base, other]) == pytest.approx([1.0, 1.1, 1.0])
