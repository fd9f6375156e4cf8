"""The fit: it finds what made the times, says how sure it is, and its profile is what it says."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import archdsl
from archdsl.calibration import kit
from archdsl.calibration.fit import FOLDS, Fit, fit, mean_error, rank_correlation
from archdsl.calibration.measurement import Measurement, Results
from archdsl.cli.program import program
from archdsl.lang.source import SourceText
from archdsl.passes.cost import Dtype, Work
from archdsl.roofline.model import ZERO, Device, PerClass
from archdsl.roofline.profile import ProfileFile
from archdsl.roofline.profiles import read_profiles

DEVICE = Device(
    "truth",
    peak_macs=40e9,
    bandwidth=12e9,
    mode="calibrated",
    dtype="float32",
    weight_bandwidth=20e9,
    fixed_overhead=150e-6,
    op_overhead=PerClass.same(4e-6),
    efficiency=PerClass(0.3, 1.0, 0.8, 0.7, 0.6, 1.0),
    overlap=0.4,
    activation_cost=(("swish", 0.8e-9),),
)


@cache
def works() -> dict[str, Work]:
    """Networks to measure: the bench kit's."""
    return {arch.name: arch.work for arch in kit.networks()}


def measured(
    device: Device, noise: float = 0.0, seed: int = 0, dtype: Dtype = "float32"
) -> Results:
    """The kit's times on a device, give or take some noise."""
    rng = random.Random(seed)
    found = []
    for name, work in works().items():
        us = device.estimate(work, dtype=dtype).us
        assert us is not None
        us *= math.exp(rng.gauss(0, noise))
        found.append(Measurement(name, work, us, whole=kit.is_whole(name)))
    return Results(tuple(found), dtype, runtime="made up", runtime_version="1", machine="a test")


@cache
def fitted(noise: float = 0.0) -> Fit:
    return fit(measured(DEVICE, noise), "board")


# -- what it finds -------------------------------------------------------------------------------


def test_times_that_the_model_made_are_found_again() -> None:
    """Weak priors bend the numbers a little: less than the model is ever off."""
    found = fitted()
    assert found.error < 1.5
    whole = [(p.fitted, p.measured) for p in found.predictions if kit.is_whole(p.name)]
    assert mean_error(whole) < 1
    calibration = found.device.calibration
    assert calibration is not None
    assert calibration.error is not None and calibration.error < 3
    assert calibration.spearman is not None and calibration.spearman > 0.99


@pytest.mark.parametrize("network", ["mnv2", "mnv3_large", "mnv4_hybrid_m", "efficientnet_b0"])
def test_networks_that_were_not_measured(network: str) -> None:
    arch = archdsl.load(network)
    true, found = arch.latency(DEVICE).us, arch.latency(fitted().device).us
    assert true and found and abs(found / true - 1) < 0.03


def test_most_numbers_lie_in_their_intervals() -> None:
    """Of 95 % intervals, under noise of the size that the fit expects."""
    truth = {
        "peak_gmacs": 40.0,
        "bandwidth_gbs": 12.0,
        "weight_bandwidth_gbs": 20.0,
        "overhead.fixed_us": 150.0,
        "overhead.op_us.all": 4.0,
        "overhead.op_us.linear": 4.0,
        "overlap": 0.4,
        "efficiency.depthwise": 0.3,
        "efficiency.conv": 0.8,
        "efficiency.linear": 0.7,
        "efficiency.attention": 0.6,
        "activation_ns.swish": 0.8,
        "activation_ns.hswish": 0.0,
        "activation_ns.gelu": 0.0,
    }
    inside = total = 0
    for seed in range(6):
        found = fit(measured(DEVICE, 0.05, seed), "board", held_out=False)
        calibration = found.profile.calibration
        assert calibration is not None and set(truth) <= set(calibration.intervals)
        for key, value in truth.items():
            low, high = calibration.intervals[key]
            assert low <= found.values()[key] <= high
            inside += low <= value <= high
            total += 1
    assert inside / total > 0.85


def test_an_odd_time_does_not_bend_the_rest() -> None:
    results = measured(DEVICE, 0.01)
    first = results.measurements[0]
    odd = replace(first, us=first.us * 5)
    bent = fit(replace(results, measurements=(odd, *results.measurements[1:])), "board")
    for prediction in bent.predictions[1:]:
        assert abs(prediction.fitted / prediction.measured - 1) < 0.15
    # And it is told from the others by what the others foretell.
    assert bent.predictions[0].held_out == pytest.approx(first.us, rel=0.2)


def test_the_unit_of_time_does_not_matter() -> None:
    """A device a thousand times as slow has a thousandth of the rates."""
    results = measured(DEVICE, 0.03)
    slow = tuple(replace(m, us=m.us * 1000) for m in results.measurements)
    one = fit(results, "board", held_out=False).values()
    other = fit(replace(results, measurements=slow), "board", held_out=False).values()
    assert other["peak_gmacs"] == pytest.approx(one["peak_gmacs"] / 1000, rel=1e-2)
    assert other["overlap"] == pytest.approx(one["overlap"], abs=2e-2)


def test_order_does_not_matter() -> None:
    results = measured(DEVICE, 0.03)
    other = replace(results, measurements=results.measurements[::-1])
    assert fit(other, "board", held_out=False).values() == pytest.approx(
        fit(results, "board", held_out=False).values(), rel=1e-2, abs=1e-3
    )


# -- held-out errors -----------------------------------------------------------------------------


def test_a_held_out_time_is_foretold_without_it() -> None:
    """Left out by hand: the fit to all the others says the same."""
    results = measured(DEVICE, 0.05)
    few = replace(results, measurements=results.measurements[25:40])
    assert len(few.measurements) < FOLDS
    found = fit(few, "board")
    for index in (0, 7):
        rest = [m for i, m in enumerate(few.measurements) if i != index]
        other = fit(replace(few, measurements=tuple(rest)), "board", held_out=False)
        alone = other.device.estimate(few.measurements[index].work).us
        assert found.predictions[index].held_out == pytest.approx(alone, rel=1e-3)


def test_the_stated_error_is_that_of_whole_networks() -> None:
    found = fitted(0.05)
    calibration = found.profile.calibration
    assert calibration is not None
    pairs = [
        (p.held_out, p.measured)
        for p in found.predictions
        if kit.is_whole(p.name) and p.held_out is not None
    ]
    assert calibration.error_percent == pytest.approx(mean_error(pairs), abs=0.01)
    assert calibration.held_out.startswith(f"{len(pairs)} networks")
    assert calibration.measurements == len(found.predictions) > len(pairs)


def test_errors_and_ranks() -> None:
    assert mean_error([(110.0, 100.0), (70.0, 100.0)]) == pytest.approx(20)
    assert rank_correlation([(1, 10), (2, 20), (3, 30)]) == pytest.approx(1)
    assert rank_correlation([(1, 30), (2, 20), (3, 10)]) == pytest.approx(-1)
    assert rank_correlation([(1, 30), (2, 20)]) is None
    assert rank_correlation([(1, 30), (1, 20), (1, 10)]) is None


# -- few measurements ----------------------------------------------------------------------------


@pytest.mark.parametrize("count", range(3, 14))
def test_fewer_numbers_than_measurements(count: int) -> None:
    results = measured(DEVICE, 0.03)
    known = results.measurements[-count:]
    found = fit(replace(results, measurements=known), "board")
    assert 2 <= len(found.values()) < count
    assert found.error < 40
    assert (found.profile.calibration.error_percent is None) == (count == 3)  # type: ignore[union-attr]


def test_two_numbers_are_equation_1() -> None:
    found = fit(measured(DEVICE), "board", numbers=2, held_out=False)
    assert set(found.values()) == {"peak_gmacs", "bandwidth_gbs"}
    assert found.device.plain


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few(count: int) -> None:
    results = measured(DEVICE)
    with pytest.raises(archdsl.ArchError, match="E0906"):
        fit(replace(results, measurements=results.measurements[:count]), "board")


# -- the profile ---------------------------------------------------------------------------------


def test_a_profile_reads_as_the_device_that_was_fitted() -> None:
    found = fitted(0.05)
    text = ProfileFile(device=found.title, profile=[found.profile]).to_toml()
    (device,) = read_profiles(SourceText("board.toml", text))
    assert device == found.device
    for prediction in found.predictions:
        us = device.estimate(works()[prediction.name]).us
        assert us == pytest.approx(prediction.fitted, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    peak=st.floats(1e9, 1e15),
    bandwidth=st.floats(1e8, 1e13),
    fixed=st.floats(0, 1e-2),
    op=st.floats(0, 1e-3),
    depthwise=st.floats(0.01, 2),
    overlap=st.floats(0, 1),
    gelu=st.floats(0, 1e-8),
    dtype=st.sampled_from(["float32", "float16", "int8"]),
    batch=st.integers(1, 8),
)
def test_any_device_and_the_fast_sums_agree(
    peak: float,
    bandwidth: float,
    fixed: float,
    op: float,
    depthwise: float,
    overlap: float,
    gelu: float,
    dtype: Dtype,
    batch: int,
) -> None:
    """Whatever was measured: the fitted times are the profile's estimates."""
    device = Device(
        *("any", peak, bandwidth, "calibrated", dtype),
        fixed_overhead=fixed,
        op_overhead=PerClass.same(op),
        efficiency=PerClass(depthwise, 1, 1, 1, 1, 1),
        overlap=overlap,
        activation_cost=(("gelu", gelu),),
    )
    known = []
    for name in ("slim_v1", "hybrid_v4", "small_v3", "swish_small", "one_op", "mha_16"):
        us = device.estimate(works()[name], batch=batch).us
        assert us is not None
        known.append(Measurement(name, works()[name], us, batch=batch))
    found = fit(Results(tuple(known), dtype), "any", held_out=False)
    for one, prediction in zip(known, found.predictions, strict=True):
        us = found.device.estimate(one.work, batch=batch).us
        assert us == pytest.approx(prediction.fitted, rel=1e-9)


def test_activation_functions_cost_what_they_cost() -> None:
    """swish at 1 ns an element: 1 ns for each element that it is applied to, counted by hand."""
    text = "arch net\ninput 8x8x3\nact swish\nstem { conv_k3_s22_o4_linear }\nhead { conv_k1_o5! }"
    arch = archdsl.parse(text)
    bare = Device("bare", 1e9, 1e9)
    paid = replace(bare, activation_cost=(("swish", 1e-9), ("relu", 1e-3)))
    more = (arch.latency(paid).us or 0) - (arch.latency(bare).us or 0)
    # The head's map is 4x4x5; the stem has no activation.
    assert more == pytest.approx(4 * 4 * 5 * 1e-3)
    assert paid.op_overhead == ZERO and not paid.plain


# -- the command ---------------------------------------------------------------------------------


def results_file(folder: Path) -> Path:
    path = folder / "results.json"
    networks = [{"name": m.name, "us": m.us} for m in measured(DEVICE, 0.02).measurements]
    record = {"runtime": "onnxruntime", "dtype": "float32", "networks": networks}
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_from_results_to_an_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = results_file(tmp_path)
    run = CliRunner().invoke
    made = run(program, ["calibrate", str(path), "--name", "board-cpu", "--device", "My board"])
    assert made.exit_code == 0, made.stderr
    assert "networks that the fit had not seen" in made.stdout and "peak_gmacs" in made.stdout
    cost = run(program, ["cost", "mnv2", "--device", "board-cpu.toml", "--json"])
    (latency,) = json.loads(cost.stdout)["latency"]
    assert latency["mode"] == "calibrated" and latency["held_out_error_percent"] < 10
    assert latency["us"] == pytest.approx(archdsl.load("mnv2").latency(DEVICE).us, rel=0.05)


def test_the_profile_or_json_on_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = str(results_file(tmp_path))
    text = CliRunner().invoke(program, ["calibrate", path, "-o", "-"]).stdout
    (device,) = read_profiles(SourceText("-", text))
    assert device.name == "onnxruntime-float32"
    record = json.loads(CliRunner().invoke(program, ["calibrate", path, "--json"]).stdout)
    assert record["profile"]["peak_gmacs"] * 1e9 == pytest.approx(device.peak_macs)
    assert {entry["name"] for entry in record["networks"]} == set(works())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "either RESULTS or --here"),
        (["--here"], 2, "--runtime"),
        (["x.json", "--here", "--runtime", "torch"], 2, "either RESULTS or --here"),
        (["x.json", "--threads", "2"], 2, "go with --here"),
        (["--here", "--runtime", "torch", "--kit", "x"], 2, "--kit goes with RESULTS"),
        (["--here", "--runtime", "tensorrt"], 2, "tensorrt"),
        (["missing.json"], 2, "missing.json"),
        (["x.json", "--name", "../x"], 2, "small letters"),
    ],
)
def test_wrong_usage(
    arguments: list[str],
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(program, ["calibrate", *arguments])
    assert result.exit_code == status
    assert said in result.stderr and not result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("us", [1e-300, 1e-4, 1e12, math.inf, math.nan])
def test_times_of_no_device(us: float) -> None:
    results = measured(DEVICE)
    odd = replace(results.measurements[0], us=us)
    with pytest.raises(archdsl.ArchError, match="E0906"):
        fit(replace(results, measurements=(odd, *results.measurements[1:])), "board")


def test_times_without_rhyme_make_a_profile_or_are_refused() -> None:
    known = measured(DEVICE).measurements[:12]
    rng = random.Random(0)
    refused = 0
    for count in (3, 4, 5, 8, 12) * 2:
        odd = tuple(replace(m, us=10 ** rng.uniform(-3, 9)) for m in known[:count])
        try:
            found = fit(Results(odd, "float32"), "board")
        except archdsl.ArchError as error:
            assert [d.code for d in error.diagnostics] == ["E0906"]
            refused += 1
        else:
            text = ProfileFile(device="x", profile=[found.profile]).to_toml()
            assert read_profiles(SourceText("x", text))
    assert refused


def test_nothing_is_looked_for_where_no_number_is() -> None:
    us = [1e-3 if number % 2 else 1e9 for number in range(12)]
    known = measured(DEVICE).measurements[:12]
    odd = tuple(replace(m, us=each) for m, each in zip(known, us, strict=True))
    with pytest.raises(archdsl.ArchError, match="are of no device"):
        fit(Results(odd, "float32"), "board")


@pytest.mark.parametrize("us", [1e-3, 1e9])
def test_extreme_times_still_make_a_profile(us: float) -> None:
    results = measured(DEVICE)
    known = tuple(replace(m, us=us) for m in results.measurements)
    found = fit(replace(results, measurements=known), "board", held_out=False)
    assert read_profiles(
        SourceText("x", ProfileFile(device="x", profile=[found.profile]).to_toml())
    ) == (replace(found.device, device="x"),)
