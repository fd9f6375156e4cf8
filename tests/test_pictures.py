"""Pictures: the same bytes each time, complete in themselves, and of the right numbers."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.program import program
from archdsl.roofline import figures
from archdsl.roofline.breakdown import breakdown
from archdsl.roofline.model import Device, PerClass
from archdsl.roofline.plots import layers_figure, roofline_figure
from archdsl.roofline.sweep import Candidate, ridge_points, sweep
from archdsl.roofline.sweep_plots import sweep_figure

pytest.importorskip("matplotlib")

COMMANDS = {
    "roofline": ("plot", "roofline", "mnv3_small", "--device", "pixel6-cpu-int8"),
    "ridge": ("plot", "roofline", "mnv3_small", "--device", "pixel8-edgetpu-int8-ridge"),
    "unbounded": ("plot", "roofline", "mnv3_small", "--device", "ethos-u55-npu-int8"),
    "layers": ("plot", "layers", "mnv3_small", "--device", "coral"),
    "panels": ("plot", "layers", "mnv3_small", "--ridge", "5", "--ridge", "500", "--ops"),
    "sweep": ("sweep", "mnv1", "mnv3_small", "--steps", "20"),
    "sweep log": ("sweep", "mnv1", "mnv4_conv_m_seg", "--steps", "20", "--ridge", "1:9", "--log"),
}


def run(*words: str) -> Result:
    return CliRunner().invoke(program, words)


@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_a_picture_twice_is_the_same_bytes(words: tuple[str, ...], tmp_path: Path) -> None:
    for suffix in figures.SUFFIXES if words == COMMANDS["roofline"] else [".svg"]:
        found = []
        for name in ("one", "two"):
            path = tmp_path / f"{name}{suffix}"
            result = run(*words, "-o", str(path))
            assert (result.exit_code, result.stdout) == (0, ""), result.output
            found.append(path.read_bytes())
        assert found[0] == found[1]
        assert len(found[0]) > 5_000


def test_the_files_are_what_they_say(tmp_path: Path) -> None:
    words = COMMANDS["roofline"]
    for suffix in figures.SUFFIXES:
        assert run(*words, "-o", str(tmp_path / f"a{suffix}")).exit_code == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert "<dc:date>" not in svg and "atplotlib v" not in svg
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "mnv3_small on pixel6-cpu-int8" in html
    # Names of XML are no addresses: nothing is fetched.
    for text in (svg, html):
        assert not re.search(r'(?:src|href)="(?!#)|url\((?!#)|@import|<script', text)


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (COMMANDS["roofline"], "a.pdf"),
        (COMMANDS["roofline"], "nowhere/a.svg"),
        (COMMANDS["roofline"], ""),
        (("plot", "layers", "mnv2"), "a.svg"),
        (("plot", "layers", "mnv2", "--device", "pixel6"), "a.svg"),
        (("plot", "layers", "mnv2", "--ridge", "0"), "a.svg"),
        (("plot", "roofline", "mnv2", "--device", "rpi5"), "a.svg"),
    ],
    ids=str,
)
def test_wrong_usage(
    words: tuple[str, ...], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words, "-o", file)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for words in (COMMANDS["roofline"], COMMANDS["layers"], COMMANDS["sweep"]):
        result = run(*words, "-o", str(tmp_path / "a.svg"))
        assert result.exit_code == 2
        assert 'pip install "archdsl[plot]"' in result.stderr
    assert not list(tmp_path.iterdir())


def test_labels_do_not_overlap() -> None:
    """Names beside points stand clear of each other, on every kind of roof."""
    for name in ("pixel6-cpu-int8", "t4-gpu-fp16", "coral-edgetpu-int8", "pixel1-cpu-fp32"):
        device = archdsl.load_device(name)
        for network in ("mnv4_hybrid_m", "mnv3_small"):
            with figures.style():
                figure = roofline_figure(network, breakdown(archdsl.load(network).cost(), device))
                figure.canvas.draw()
                renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
                below = figure.axes[1]
                boxes = [text.get_window_extent(renderer) for text in below.texts]
            assert len(boxes) >= 3
            for number, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:number])


def test_bars_are_the_times() -> None:
    device = Device("slow", 1e10, 1e10, fixed_overhead=1e-3, op_overhead=PerClass.same(1e-5))
    found = breakdown(archdsl.load("mnv2").cost(), device)
    with figures.style():
        figure = layers_figure("mnv2", [found])
        widths = [patch.get_width() for patch in figure.axes[0].patches]  # type: ignore[attr-defined]
    assert sum(widths) == pytest.approx(found.time - found.fixed)


def test_panels_say_what_their_numbers_are() -> None:
    names = ("pixel6-cpu-int8", "pixel6-cpu-int8-fitted")
    cost = archdsl.load("mnv2").cost()
    found = [breakdown(cost, archdsl.load_device(name)) for name in names]
    with figures.style():
        titles = [axes.get_title() for axes in layers_figure("mnv2", found).axes]
    for name, mode, title in zip(names, ("nominal", "calibrated"), titles, strict=True):
        assert title.startswith(f"{name}\n{mode}: ")


@pytest.mark.parametrize("what", ["roofline", "layers"])
def test_what_is_extrapolated_is_said(what: str, tmp_path: Path) -> None:
    words = ("plot", what, "efficientnet_b7", "--device", "pixel1-cpu-fp32-fitted")
    result = run(*words, "-o", str(tmp_path / "a.svg"))
    assert result.exit_code == 0 and "W0901" in result.stderr


def test_every_network_has_its_line() -> None:
    names = ("mnv1", "mnv2", "mnv3_large")
    networks = [Candidate(name, archdsl.load(name).work) for name in names]
    found = sweep(networks, ridge_points(0, 100, 11))
    with figures.style():
        (axes,) = sweep_figure(found).axes
    assert [list(line.get_ydata()) for line in axes.lines] == found.relative.tolist()
