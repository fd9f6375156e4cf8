"""Every width of every published file, in all runtimes, on an image small enough for all of them.

The files' own members are compared at their own sizes in test_onnx.py and test_tflite.py.
"""

from __future__ import annotations

import pytest
from test_onnx import checked
from test_tflite import assert_one_delegate

import archdsl
from archdsl.library import members
from archdsl.weights.lively import lively

VARIANTS = [member.name for member in members() if member.variant is not None]

pytestmark = pytest.mark.slow


def test_there_are_variants() -> None:
    assert {"mnv2_140", "mnv3_large_075", "mn_edgetpu_175"} <= set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_is_one_network_in_all_runtimes(name: str) -> None:
    arch = archdsl.load(name, input=(128, 128, 3))
    weights = lively(arch)
    checked(archdsl.compile(arch, to="onnx", weights=weights))
    assert_one_delegate(archdsl.compile(arch, to="tflite", weights=weights))
    report = archdsl.verify(arch, weights=weights, runs=0)
    assert report.reference.startswith("torch")
    assert not report.skipped
    assert report.ok, report.all_faults()
    assert report.largest > 1
    print(f"{name:24} {report.largest:8.2f}", *(f"{c.difference:.1e}" for c in report.comparisons))
