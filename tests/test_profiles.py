"""Device profiles: those that are shipped, those that are hostile, and the schema."""

from __future__ import annotations

import csv
import json
import math
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import archdsl
from archdsl.cli.program import program
from archdsl.lang.source import SourceText
from archdsl.roofline.profiles import json_schema, read_profiles, shipped
from archdsl.roofline.toml_places import places

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "archdsl" / "roofline" / "devices"
FILES = sorted(FOLDER.glob("*.toml"))
SCHEMA = jsonschema.Draft202012Validator(json_schema())
ENDINGS = {"float32": "fp32", "float16": "fp16", "int8": "int8"}

GOOD = """\
device = "My board"

[[profile]]
name = "board-cpu-int8"
dtype = "int8"
mode = "nominal"
peak_gmacs = 38.4
bandwidth_gbs = 12.8
"""


def codes(text: str) -> list[str]:
    with pytest.raises(archdsl.ArchError) as caught:
        read_profiles(SourceText("board.toml", text))
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


# -- what is shipped -----------------------------------------------------------------------------


def test_there_are_many_and_each_name_is_one() -> None:
    names = [device.name for device in shipped()]
    assert len(names) >= 50
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shipped_profiles(path: Path) -> None:
    for device in archdsl.load_devices(path):
        assert device.name.startswith(f"{path.stem}-")
        assert device.dtype is not None
        assert ENDINGS[device.dtype] in device.name
        assert device.name.endswith("-ridge") == device.relative
        assert device.name.endswith(("-ridge", "-fitted")) == (device.mode == "calibrated")
        if device.name.endswith("-fitted"):
            assert device.calibration and device.calibration.provenance and device.error
        else:
            numbers = {"ridge_point"} if device.relative else {"peak_gmacs", "bandwidth_gbs"}
            assert numbers <= {key for key, _ in device.sources}
        assert all(said for _, said in device.sources)
        assert archdsl.load_device(device.name) == device


def test_figures_are_those_of_the_reference() -> None:
    """tests/data/devices.csv: nominal peaks and bandwidths, row by row."""
    with open(ROOT / "tests" / "data" / "devices.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    devices = {device.name: device for device in shipped() if device.mode == "nominal"}
    assert {row["profile"] for row in rows} == set(devices)
    for row in rows:
        device = devices[row["profile"]]
        assert device.peak_macs == float(row["peak_gmacs"]) * 1e9
        assert device.bandwidth == float(row["peak_gbs"] or "inf") * 1e9


def test_nominal_and_calibrated_are_far_apart() -> None:
    """The paper's fitted ridge point is nine times that of the data sheet."""
    nominal, fitted = map(archdsl.load_device, ("pixel6-cpu-int8", "pixel6-cpu-int8-ridge"))
    assert nominal.ridge_point == pytest.approx(3.5)
    assert fitted.ridge_point == 31.2
    assert (nominal.mode, fitted.mode) == ("nominal", "calibrated")


# -- names and files -----------------------------------------------------------------------------


def test_a_device_means_all_its_profiles() -> None:
    assert len(archdsl.load_devices("pixel6")) == 8
    with pytest.raises(ValueError, match="2 profiles; name one: rpi4-cpu-fp32"):
        archdsl.load_device("rpi4")


@pytest.mark.parametrize("name", ["pixel6-cpu-int4", "nowhere.toml", "", "a\0b", "x" * 10_000])
def test_no_such_profile(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError):
        archdsl.load_devices(name)
    result = CliRunner().invoke(program, ["cost", "mnv2", "--device", name])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert len(result.stderr) < 20_000 and "Traceback" not in result.stderr


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(GOOD)
    result = CliRunner().invoke(program, ["cost", "mnv2", "--device", str(path), "--json"])
    (latency,) = json.loads(result.stdout)["latency"]
    assert (latency["device"], latency["dtype"]) == ("board-cpu-int8", "int8")
    (device,) = archdsl.load_devices(path)
    assert device.source("peak_gmacs") == "unverified"


def test_one_profile_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(GOOD + GOOD.partition("\n\n")[2].replace("cpu", "gpu"))
    with pytest.raises(ValueError, match=r"one: .*board\.toml:board-cpu-int8"):
        archdsl.load_device(path)
    assert archdsl.load_device(f"{path}:board-gpu-int8").name == "board-gpu-int8"
    with pytest.raises(FileNotFoundError, match="it has board-gpu-int8"):
        archdsl.load_device(f"{path}:board-gpu-int4")


def test_what_is_fitted_is_printed_with_its_error() -> None:
    shown = CliRunner().invoke(program, ["devices", "pixel6", str(ROOT / "docs" / "board.toml")])
    assert shown.exit_code == 0
    said = {
        block.partition("\n")[0]: " ".join(block.split()) for block in shown.stdout.split("\n\n")
    }
    fitted = said["board-cpu-int8-fitted"]
    assert "efficiency: depthwise 0.25, pointwise 0.9" in fitted
    assert "overhead: fixed_us 40, op_us.depthwise 3," in fitted
    assert "fusion: free add" in fitted
    assert "error: 6.5 % on average (8 networks)" in fitted
    assert "error: not measured" in said["pixel6-cpu-int8-ridge"]
    assert "efficiency" not in said["pixel6-cpu-int8"] and "error" not in said["pixel6-cpu-int8"]


def test_every_number_is_in_the_record() -> None:
    shown = CliRunner().invoke(program, ["devices", "pixel8-edgetpu-int8-fitted", "--json"])
    (record,) = json.loads(shown.stdout)
    device = archdsl.load_device("pixel8-edgetpu-int8-fitted")
    assert device.calibration is not None and device.activation_cost
    assert list(record["activation_ns"]) == [name for name, _ in device.activation_cost]
    assert record["calibration"]["classes"] == list(device.calibration.classes)


def test_one_source_for_all_numbers() -> None:
    text = GOOD + 'source = "data sheet"\n'
    (device,) = read_profiles(SourceText("board.toml", text))
    assert device.source("bandwidth_gbs") == "data sheet"


def test_every_key_reaches_the_device() -> None:
    text = (
        GOOD.replace("nominal", "calibrated")
        + """
runtime = "LiteRT 2.1"
weight_bandwidth_gbs = 5
activation_bandwidth_gbs = inf
overlap = 0.5
on_chip = { weight_bytes = 8_000_000, activation_bytes = 1e6, bandwidth_gbs = 100 }
overhead = { fixed_us = 10, op_us = { all = 2, conv = 3 } }
efficiency = { all = 0.9, depthwise = 0.25 }
memory_efficiency = { elementwise = 0.5 }
fusion.free = ["add"]
[profile.calibration]
method = "least squares"
measurements = 31
error_percent = 7.5
held_out = "whole networks"
spearman = 0.99
runtime_version = "2.1.0"
provenance = "our own desk"
range_us = [100, 20_000]
intervals."overhead.fixed_us" = [8, 12]
"""
    )
    (device,) = read_profiles(SourceText("board.toml", text))
    assert not device.plain
    assert device.weight_bandwidth == 5e9 and device.activation_bandwidth == math.inf
    assert device.on_chip.weight_bytes == 8e6 and device.on_chip.bandwidth == 100e9
    assert device.fixed_overhead == pytest.approx(10e-6)
    assert device.op_overhead.conv == pytest.approx(3e-6)
    assert device.op_overhead.linear == pytest.approx(2e-6)
    assert (device.efficiency.depthwise, device.efficiency.conv) == (0.25, 0.9)
    assert (device.memory_efficiency.elementwise, device.memory_efficiency.conv) == (0.5, 1)
    assert device.free_ops == {"add"}
    assert device.calibration is not None
    assert device.calibration.range_us == (100, 20_000)
    assert device.calibration.intervals == (("overhead.fixed_us", 8, 12),)
    SCHEMA.validate(tomllib.loads(text.replace("inf", "1e3")))


# -- hostile texts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (("38.4", "-38.4"), ["E0904"]),
        (("38.4", "0"), ["E0904"]),
        (("38.4", "1e-300"), ["E0904"]),
        (("38.4", "1e300"), ["E0904"]),
        (("38.4", "nan"), ["E0904"]),
        (("38.4", "inf"), ["E0904"]),
        (("12.8", "-inf"), ["E0904"]),
        (("38.4", "true"), ["E0904"]),
        (("38.4", '"38.4"'), ["E0904"]),
        (("38.4", "[38.4]"), ["E0904"]),
        (("38.4", "2026-01-01"), ["E0904"]),
        (("38.4", "9" * 400), ["E0904"]),
        (("38.4", "9" * 5000), ["E0901"]),
        (("38.4", "38,4"), ["E0901"]),
        (("peak_gmacs", "peak_gflops"), ["E0903"]),
        (("peak_gmacs = 38.4\n", ""), ["E0902"]),
        (('dtype = "int8"\n', ""), ["E0902"]),
        (('mode = "nominal"\n', ""), ["E0902"]),
        (("nominal", "calibrated"), ["E0902"]),
        (('device = "My board"\n', ""), ["E0902"]),
        (("board-cpu-int8", "Board"), ["E0904"]),
        (("board-cpu-int8", "a\\u001b[2J"), ["E0904"]),
        (("[[profile]]", "[profile]"), ["E0904"]),
        ((GOOD, ""), ["E0902", "E0902"]),
        ((GOOD, "\0"), ["E0901"]),
        ((GOOD, "a = " + "[" * 20_000), ["E0901"]),
        ((GOOD, "a." * 15 + "a = 1"), ["E0902", "E0902", "E0903"]),
        ((GOOD, "a." * 16 + "a = 1"), ["E0110"]),
        ((GOOD, "a." * 60_000 + "b = 1"), ["E0110"]),
        ((GOOD, "[" + "a . " * 60_000 + "b]"), ["E0110"]),
        ((GOOD, "a = {" + '\'\'."\\".".' * 20_000 + "b = 1}"), ["E0110"]),
        ((GOOD, 'a = """\'""""\nb = {c = \'x\', ' + "a." * 16 + "b = 1}"), ["E0110"]),
        ((GOOD, "a.a.a.a." * 3 + "a.a = {" + "a.a = {" * 100 + "}" * 101), ["E0110"]),
        ((GOOD, "a = " + "[" * 16 + "]" * 16), ["E0902", "E0902", "E0903"]),
        ((GOOD, "a = " + "[" * 17 + "]" * 17), ["E0110"]),
        ((GOOD, '"\\"' * 60_000), ["E0901"]),
        ((GOOD, '"""' + '\\"""' * 60_000), ["E0901"]),
        ((GOOD, "#" * 300_000), ["E0110"]),
        ((GOOD, "device = 3\nprofile = []"), ["E0904", "E0904"]),
    ],
    ids=lambda value: str(value)[:40],
)
def test_hostile_profiles(change: tuple[str, str], found: list[str]) -> None:
    assert sorted(codes(GOOD.replace(*change))) == found


def test_dots_that_join_no_keys() -> None:
    dots = "a." * 40 + "a = 1"
    for text in (
        f"'{dots}'",
        f"'My \\'  # {dots}",
        f'"\\"{dots}"',
        f'"""\n{dots}\n\\""" {dots}"""',
    ):
        assert read_profiles(SourceText("board.toml", GOOD.replace('"My board"', text)))
    assert codes(GOOD.replace("38.4", f"[{'1.5, ' * 40}]")) == ["E0904"]


def test_names_that_are_taken() -> None:
    assert codes(GOOD + GOOD.partition("\n\n")[2]) == ["E0905"]


def test_hostile_files_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    for data in (b"\xff\xfe", b"\x1b]0;x\x07 = {", b"=" * 200_000, GOOD.encode()[:-20]):
        path.write_bytes(data)
        for words in (["devices", str(path)], ["cost", "mnv2", "--device", str(path)]):
            result = CliRunner().invoke(program, words)
            assert result.exit_code == 1
            assert not result.stdout
            assert "error[E" in result.stderr
            assert "\x1b" not in result.stderr


# -- places --------------------------------------------------------------------------------------


def test_places_of_every_form() -> None:
    text = (
        'a = """x\ny"""  # "b = 1\n'
        "b.c = [1, {d = 'e', \"f g\" = 2}, [3]]\n"
        "[t.u]\nv = 1979-05-27T07:32:00Z\n[[t.w]]\n[[t.w]]\n'x.y' = '''z'''\n[t.w.s]\nk = -1\n"
    )
    found = places(text)
    expected = {
        ("a",): '"""x\ny"""',
        ("b", "c"): "[1, {d = 'e', \"f g\" = 2}, [3]]",
        ("b", "c", 0): "1",
        ("b", "c", 1, "d"): "'e'",
        ("b", "c", 1, "f g"): "2",
        ("b", "c", 2, 0): "3",
        ("t", "u", "v"): "1979-05-27T07:32:00Z",
        ("t", "w", 1, "x.y"): "'''z'''",
        ("t", "w", 1, "s", "k"): "-1",
    }
    for path, value in expected.items():
        start, end = found[path].value
        assert text[start:end] == value


def paths(value: object, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """The paths to all that is no table and no array."""
    items = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[var-annotated, arg-type]
    found: set[tuple[str | int, ...]] = set()
    for key, item in items:
        inner = (*path, key)
        found |= paths(item, inner) if isinstance(item, (dict, list)) else {inner}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_places_of_the_shipped_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = places(text)
    for where in paths(tomllib.loads(text)):
        start, end = found[where].value
        value = tomllib.loads(f"x = {text[start:end]}")["x"]
        data: object = tomllib.loads(text)
        for key in where:
            data = data[key]  # type: ignore[index]
        assert value == data


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for whole in (text, GOOD + text, GOOD.replace("38.4", text)):
        try:
            read_profiles(SourceText("board.toml", whole))
        except archdsl.ArchError as error:
            assert error.diagnostics
            assert str(error)


# -- the schema ----------------------------------------------------------------------------------


def test_it_is_a_schema_and_takes_what_is_shipped() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA.schema)
    for path in FILES:
        SCHEMA.validate(tomllib.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "change",
    [("38.4", "-38.4"), ("38.4", '"x"'), ('int8"\nmode', 'int9"\nmode'), ("peak_gmacs", "peak")],
)
def test_schema_and_reader_refuse_alike(change: tuple[str, str]) -> None:
    text = GOOD.replace(*change)
    assert not SCHEMA.is_valid(tomllib.loads(text))
    assert codes(text)
