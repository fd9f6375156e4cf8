"""Ranges and scales: what the integers of an int8 artefact mean, whichever backend writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import archdsl
from archdsl import ArchError
from archdsl.quantization import ranges
from archdsl.quantization.ranges import METHODS, checked_ranges, observe
from archdsl.quantization.scheme import activation_scale, quantized_kernel


def images(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).reshape(len(values), 1, 1, -1)


def identity(batch: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": batch}


def test_minmax_takes_the_extremes_of_all_images_and_zero() -> None:
    data = images(np.array([[1.0, 3.0], [2.0, 7.0]]))
    assert observe(identity, data) == {"x": (0.0, 7.0)}
    assert observe(lambda batch: {"x": -batch}, data) == {"x": (-7.0, 0.0)}


def test_percentile_and_mse_clip_an_outlier() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 50_000))
    values[0, 0] = 40.0
    data = images(values)
    # One value of 200,000 is nothing to a percentile, and worth a coarser step to an error's mean.
    for method, most in (("percentile", 5), ("mse", 35)):
        low, high = observe(identity, data, method)["x"]
        assert -6 < low < -2.5
        assert 3 < high < most


@pytest.mark.parametrize("method", METHODS)
def test_what_is_constant_has_a_range(method: str) -> None:
    assert observe(identity, images(np.zeros((2, 8))), method) == {"x": (0.0, 0.0)}


def test_mse_errs_less_than_minmax() -> None:
    values = np.random.default_rng(1).standard_t(3, size=(2, 40_000))
    data = images(values)
    errors = {}
    for method in ("minmax", "mse"):
        scale, zero = activation_scale(observe(identity, data, method)["x"])
        integers = np.clip(np.rint(data / scale) + zero, -128, 127)
        errors[method] = float(((integers - zero) * scale - data).var())
    assert errors["mse"] < 0.9 * errors["minmax"]


@pytest.mark.parametrize("skew", [0.0, 1.0, -3.0])
def test_mse_takes_the_least_of_its_errors(skew: float) -> None:
    """As counted one by one: each bin's rounding within the ends, and its distance beyond them."""
    values = np.random.default_rng(2).standard_t(2, size=5000) * 3 + skew
    counts, edges = np.histogram(values, 2048)
    centres = (edges[:-1] + edges[1:]) / 2

    def error(low: float, high: float) -> float:
        outside = centres - np.clip(centres, low, high)
        step = (high - low) / 255
        return float((counts * np.where(outside == 0, step**2 / 12, outside**2)).sum())

    low, high = float(edges[0]), float(edges[-1])
    shares = np.linspace(1, 0.1, 80).tolist()
    best = min((high * share for share in shares), key=lambda end: error(low, end))
    least = min((low * share for share in shares), key=lambda end: error(end, best))
    assert ranges._mse(counts, low, high) == (least, best)
    assert (least, best) != (low, high)


def test_progress_counts_every_look_at_an_image() -> None:
    seen: list[tuple[int, int]] = []
    observe(identity, images(np.ones((3, 2))), "mse", lambda done, all_: seen.append((done, all_)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="method 'median'"):
        observe(identity, images(np.ones((1, 2))), "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs an image"):
        observe(identity, np.zeros((0, 1, 1, 2), np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_has_no_range(value: float) -> None:
    with pytest.raises(ArchError, match="`x` is not finite on image 1") as caught:
        observe(identity, images(np.array([[0.0, 1.0], [1.0, value]])))
    assert caught.value.diagnostics[0].code == "E0804"


def test_ranges_must_hold_every_node_the_right_way_round() -> None:
    graph = archdsl.parse("arch net input 4x4x3 stem { conv_k1_o8_nonorm_linear }").graph()
    good = {"input": (0.0, 1.0), "stem.0.conv": (-1.0, 1.0)}
    assert checked_ranges(graph, good) == good
    for bad in (
        {},
        good | {"input": (1.0, 0.0)},
        good | {"input": (0.0, np.inf)},
        good | {"input": (0.0, 1e30)},
        None,
    ):
        with pytest.raises(ArchError, match="has none of `input`"):
            checked_ranges(graph, bad)


@given(st.floats(-1e6, 0), st.floats(0, 1e6))
def test_zero_is_exact_and_the_ends_are_near(low: float, high: float) -> None:
    scale, zero = activation_scale((low, high))
    assert -128 <= zero <= 127
    if high - low > 1e-6:
        # Zero is moved onto a step, by half of one at most.
        assert (-128 - zero) * scale <= low + 0.51 * scale
        assert (127 - zero) * scale >= high - 0.51 * scale


@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 10), st.booleans())
def test_a_kernel_is_its_integers_times_its_scales(seed: int, step: float, biased: bool) -> None:
    rng = np.random.default_rng(seed)
    spread = 10.0 ** rng.integers(-6, 3, (4, 1, 1, 1))
    weight = (rng.normal(size=(4, 3, 2, 2)) * spread).astype(np.float32)
    bias = rng.normal(size=4).astype(np.float32) if biased else None
    kernel = quantized_kernel(weight, bias, step)
    assert kernel.weight.dtype == np.int8 and kernel.bias.dtype == np.int32
    assert np.abs(kernel.weight.astype(int)).max() <= 127
    if not biased:  # which a large bias may ask to be coarser
        assert (np.abs(kernel.weight).max(axis=(1, 2, 3)) == 127).all()
    scales = kernel.scales.reshape(4, 1, 1, 1)
    assert (np.abs(kernel.weight * scales - weight) <= 0.5001 * scales).all()
    offsets = kernel.bias * (kernel.scales.astype(float) * step)
    wanted = np.zeros(4) if bias is None else bias
    assert (np.abs(offsets - wanted) <= 0.5001 * kernel.scales * step).all()


def test_a_dead_channel_keeps_its_bias() -> None:
    """Weights of nothing beside a bias: the scale grows until the bias fits 32 bits."""
    weight = np.zeros((2, 1, 1, 1), np.float32)
    weight[1] = 1
    kernel = quantized_kernel(weight, np.array([5.0, 5.0], np.float32), 1e-3)
    restored = kernel.bias * kernel.scales.astype(float) * 1e-3
    np.testing.assert_allclose(restored, 5.0, rtol=1e-6)


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_file_says_how_its_ranges_were_found(to: str, tmp_path: Path) -> None:
    arch = archdsl.parse("arch net input 8x8x3 stem { conv_k3_o8 } head { pool fc_o4 }")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    (tmp_path / "secret").mkdir()
    path = tmp_path / "secret" / "some.npz"
    np.savez(path, images=pixels)
    options = {"to": to, "dtype": "int8", "calibration": path, "preprocess": "unit"}
    made = archdsl.compile(arch, **options, ranges="percentile")
    assert made.job.calibrated == {
        "ranges": "percentile",
        "calibration": "some.npz",
        "calibration_images": "3",
        "preprocess": "unit",
    }
    for text in (b"calibration_images", b"some.npz", b"percentile", b"unit"):
        assert text in made.data
    assert b"secret" not in made.data
    again = archdsl.compile(arch, to, dtype="int8", ranges=made.job.ranges)
    assert again.job.calibrated == {"ranges": "given"}
    assert b"calibration_images" not in again.data
