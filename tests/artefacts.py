"""What the tests of the artefacts share: images, values, and tables that are printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import archdsl
from archdsl.backend import Artifact
from archdsl.quantization.ranges import Range, observe

TOLERANCE = 1e-4
"""Of the largest logit."""

FEW = 1 << 13
"""Pixels of the random images of `lively` that are enough for a small network."""

SMALL = """\
arch small
input 33x29x3
act hswish
se from=input round=1 act=relu gate=hsigmoid
classes 10
stem { conv_k3_s22_o16 }
stage c1 { ir_k3_e3_o16_se0.5_relu fused_k3_s2_e2_o24_g4 }
stage c2 { r2_k5_e3_o24_relu6 uib_s3_m5_st2_e2_o32 }
stage c3 { mqa_h2_d16_kv2 mha_h2_d8 sep_k3_o32_swish }
head { conv_k1_o48! pool dropout_p0.2 fc }
"""


def images(arch: archdsl.Arch, count: int = 1) -> Any:
    return np.random.default_rng(5).normal(size=(count, *arch.input)).astype(np.float32)


def values(artifact: Artifact, batch: Any) -> dict[str, Any]:
    session = artifact.session()
    return session.values(session.run(session.feed(batch)))


def departure(artifact: Artifact, weights: Any) -> tuple[float, float]:
    """The largest logit in PyTorch, and how far the artefact is from it, as a share."""
    batch = images(artifact.arch)
    emitted = archdsl.compile(artifact.arch, to="torch", weights=weights)
    expected = values(emitted, batch)["output"]
    found = values(artifact, batch)["output"]
    assert found.shape == expected.shape
    largest = float(np.abs(expected).max())
    return largest, float(np.abs(found - expected).max()) / largest


def difference(arch: archdsl.Arch, weights: Any, *, to: str, **options: Any) -> tuple[float, float]:
    """The `departure` of what a network is compiled to."""
    return departure(archdsl.compile(arch, to=to, weights=weights, **options), weights)


def ranges(arch: archdsl.Arch, weights: Any, batch: Any, *, to: str) -> dict[str, Range]:
    """The ranges that the float file's own values have."""
    session = archdsl.compile(arch, to=to, weights=weights, layers=True).session()
    return observe(lambda images: session.values(session.run(session.feed(images))), batch)


def integer(arch: archdsl.Arch, weights: Any, *, to: str, **options: Any) -> Artifact:
    found = ranges(arch, weights, images(arch, 4), to=to)
    return archdsl.compile(arch, to=to, weights=weights, dtype="int8", ranges=found, **options)


def sqnr(found: Any, wanted: Any) -> float:
    """The signal-to-quantisation-noise ratio in decibels."""
    noise = float(np.square(np.asarray(found, np.float64) - wanted).sum())
    return 10 * float(np.log10(np.square(wanted, dtype=np.float64).sum() / max(noise, 1e-30)))


def printed(request: pytest.FixtureRequest, head: str) -> Iterator[list[str]]:
    """Rows for a fixture to give, printed under a head when the module's tests are done."""
    rows: list[str] = []
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join([head, *rows]))
