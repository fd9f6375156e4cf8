"""Measured times: five kinds of files, what is said of bad ones, and the networks they are of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import archdsl
from archdsl.calibration import results as module
from archdsl.calibration.json_places import place
from archdsl.calibration.measurement import Results
from archdsl.calibration.results import read_results, results_of
from archdsl.lang.diagnostics import ArchError, render
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_MEASURED

TEXT = "arch own\ninput 32x32x3\nstem { conv_k3_s22_o8 }\nhead { pool fc_o10 }\n"
OURS = {
    "format": "archdsl-results",
    "runtime": "onnxruntime",
    "runtime_version": "1.20.0",
    "dtype": "float32",
    "threads": 1,
    "machine": "a machine",
    "networks": [
        {"name": "mnv2", "us": 8933.0, "spread": 0.01, "runs": 40, "macs": 300774272},
        {"name": "dw3_112", "us": 2484.0},
        {"name": "own", "us": 12.5, "arch": TEXT},
        {"name": "a_network_of_theirs", "us": 5.0},
    ],
}
LOG = """\
INFO: STARTING!
INFO: Num threads: [1]
INFO: Graph: [/data/local/tmp/mnv2_int8.tflite]
INFO: Loaded model /data/local/tmp/mnv2_int8.tflite
INFO: count=61 first=9000 curr=8100 min=8000 max=9000 avg=8200 std=90 p5=1 median=2 p95=3
INFO: count=122 first=8100 curr=8110 min=8000 max=9000 avg=8200 std=90 p5=8010 median=8150 p95=8330
INFO: Inference timings in us: Init: 5579, First inference: 9000, Warmup (avg): 8200, \
Inference (avg): 8200.5
Graph: [refused.tflite]
Failed to apply the delegate.
I tflite  : Graph: [mnv1.tflite]
I tflite  : count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565
I tflite  : Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): \
1.3576e+06, Inference (avg): 1.24027e+06
"""
PROFILE = [
    {"cat": "Session", "dur": 2928, "ts": 454, "ph": "X", "name": "session_initialization"},
    {"cat": "Session", "dur": 9999, "ts": 3400, "ph": "X", "name": "model_run", "args": {}},
    {"cat": "Node", "dur": 97, "ts": 3497, "ph": "X", "name": "stem.0.act_kernel_time"},
    {"cat": "Session", "dur": 105, "ts": 3500, "ph": "X", "name": "model_run", "args": {}},
    {"cat": "Session", "dur": 103, "ts": 3600, "ph": "X", "name": "model_run", "args": {}},
    {"cat": "Session", "dur": 110, "ts": 3800, "ph": "X", "name": "model_run", "args": {}},
]
JOB = {
    "execution_summary": {
        "estimated_inference_time": 417,
        "all_inference_times": [417, 420, 431, 419],
        "first_load_time": 100000,
    },
    "execution_detail": [{"name": "conv", "compute_unit": "NPU", "execution_time": 12}],
}
TABLE = "# a paper's table\nnetwork,top1,ms\nmnv2,71.8,9.8\n\n mnv3_large.tflite ,75.2,7.5\n"


def written(folder: Path, name: str, what: Any) -> Path:
    path = folder / name
    text = what if isinstance(what, str) else json.dumps(what, indent=1)
    path.write_text(text, encoding="utf-8")
    return path


def times(results: Results) -> dict[str, float]:
    return {one.name: one.us for one in results.measurements}


def codes(call: Any) -> list[str]:
    with pytest.raises(ArchError) as caught:
        call()
    return [one.code for one in caught.value.diagnostics]


def of(what: Any, **options: Any) -> Results:
    text = what if isinstance(what, str) else json.dumps(what)
    return results_of(SourceText("times.json", text), **options)


# ----------------------------------------------------------------------------------- the formats


def test_our_own_results(tmp_path: Path) -> None:
    results = read_results(written(tmp_path, "results.json", OURS))
    assert times(results) == {"mnv2": 8933.0, "dw3_112": 2484.0, "own": 12.5}
    mnv2, block, own = results.measurements
    assert mnv2.spread == 0.01
    assert sum(mnv2.work.macs) == archdsl.load("mnv2").cost().macs
    assert sum(own.work.macs) == archdsl.parse(TEXT).cost().macs
    assert [mnv2.whole, block.whole, own.whole] == [True, False, True]
    assert results.skipped == (("a_network_of_theirs", "no network of this name is known"),)
    said = (results.runtime, results.runtime_version, results.dtype, results.threads)
    assert said == ("onnxruntime", "1.20.0", "float32", 1)
    assert (results.machine, results.source) == ("a machine", "results.json")


def test_what_benchmark_model_says() -> None:
    results = of(LOG, dtype="int8")
    assert times(results) == {"mnv2": 8150.0, "mnv1": 1.24027e6}
    assert results.measurements[0].spread == pytest.approx(160 / 8150)
    assert (results.runtime, results.threads, results.dtype) == ("tflite", 1, "int8")
    assert results.skipped == (("refused.tflite", "benchmark_model gave no time for it"),)


def test_a_log_of_one_network_is_named_by_its_file(tmp_path: Path) -> None:
    lines = [line for line in LOG.splitlines() if "timings" in line]
    path = written(tmp_path, "mnv3_small.txt", lines[0])
    assert times(read_results(path, dtype="int8")) == {"mnv3_small": 8200.5}


def test_a_log_that_windows_wrote(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_bytes(LOG.replace("\n", "\r\n").encode("utf-16"))
    assert times(read_results(path, dtype="int8")) == {"mnv2": 8150.0, "mnv1": 1.24027e6}


def test_a_profile_of_onnxruntime(tmp_path: Path) -> None:
    path = written(tmp_path, "mnv2_2026-11-22_04-10-11_072.json", PROFILE)
    results = read_results(path, dtype="float32")
    # The first run warms up.
    assert times(results) == {"mnv2": 105.0}
    assert results.runtime == "onnxruntime"


def test_a_profile_that_onnxruntime_wrote(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    import numpy as np

    artifact = archdsl.compile(archdsl.load("mnv3_small_035", input=(32, 32, 3)), "onnx")
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "mnv3_small_035")
    session = onnxruntime.InferenceSession(
        artifact.data, options, providers=["CPUExecutionProvider"]
    )
    for _ in range(5):
        session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 32, 32), np.float32)})
    path = session.end_profiling()
    (us,) = times(read_results(path, dtype="float32")).values()
    assert 1 < us < 1e6
    assert read_results(path, dtype="float32").measurements[0].name == "mnv3_small_035"


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("mnv2_job_jp4lr7k8p_results.json", JOB),
        ("mnv2.json", JOB),
        ("job.json", {"name": "mnv2", **JOB}),
        ("jobs.json", {"mnv2": JOB}),
        ("jobs.json", [{"name": "mnv2", **JOB}]),
    ],
)
def test_profiles_of_ai_hub(tmp_path: Path, file: str, what: Any) -> None:
    results = read_results(written(tmp_path, file, what), dtype="int8")
    assert times(results) == {"mnv2": 417}
    assert results.measurements[0].spread is not None


def test_a_table(tmp_path: Path) -> None:
    results = read_results(written(tmp_path, "table.csv", TABLE), dtype="int8")
    assert times(results) == {"mnv2": 9800.0, "mnv3_large": 7500.0}


def test_a_table_of_paths(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    (inside / "nets").mkdir(parents=True)
    written(inside / "nets", "own.arch", TEXT)
    written(tmp_path, "outside.arch", TEXT)
    table = "model,total_us\nnets/own.arch,12\n../outside.arch,13\n/outside.arch,14\n"
    results = read_results(written(inside, "table.csv", table), dtype="int8")
    assert times(results) == {"nets/own.arch": 12.0}
    # A path that leads out of the folder is not followed.
    assert [name for name, _ in results.skipped] == ["../outside.arch", "/outside.arch"]


def test_a_folder_of_files(tmp_path: Path) -> None:
    written(tmp_path, "mnv2_2026-11-22_04-10-11.json", PROFILE)
    written(tmp_path, "mnv1_2026-11-22_04-11-11.json", PROFILE)
    written(tmp_path, "README.md", "no results")
    results = read_results(tmp_path, dtype="float32")
    assert times(results) == {"mnv1": 105.0, "mnv2": 105.0}


# ---------------------------------------------------------------------------------------- a kit


def kit(models: Any = None, **more: Any) -> dict[str, Any]:
    model = {"name": "own", "file": "own.onnx", "arch": TEXT, "sha256": "12ab", "whole": False}
    return {"runtime": "tflite", "dtype": "int8", "models": models or [model], **more}


def test_networks_and_dtype_are_the_kits(tmp_path: Path) -> None:
    written(tmp_path, "kit.json", kit())
    path = written(tmp_path, "log.txt", LOG.replace("mnv1.tflite", "own.tflite"))
    for results in (read_results(path), read_results(path, tmp_path / "kit.json")):
        assert times(results) == {"mnv2": 8150.0, "own": 1.24027e6}
        assert results.dtype == "int8"
        assert [one.whole for one in results.measurements] == [True, False]


def test_a_kits_network_comes_before_a_published_one(tmp_path: Path) -> None:
    written(tmp_path, "kit.json", kit([{"name": "mnv2", "arch": TEXT}]))
    results = read_results(written(tmp_path, "table.csv", "network,us\nmnv2,5\n"))
    macs = sum(results.measurements[0].work.macs)
    assert macs == archdsl.parse(TEXT).cost().macs


def test_a_kits_file_names_are_never_followed(tmp_path: Path) -> None:
    model = {"name": "own", "file": "../../../../../etc/passwd", "arch": TEXT}
    written(tmp_path, "kit.json", kit([model]))
    results = read_results(written(tmp_path, "t.csv", "network,us\n../../etc/passwd,5\nown,6\n"))
    assert times(results) == {"own": 6.0}
    assert [name for name, _ in results.skipped] == ["../../etc/passwd"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("{", ["E0907"]),
        ("[]", ["E0907"]),
        ({"models": 3}, ["E0907"]),
        (kit([3]), ["E0908"]),
        (kit([{"name": "own"}, {"arch": TEXT}]), ["E0908", "E0908"]),
        (kit([{"name": "own", "arch": TEXT}] * 2), ["E0910"]),
        (kit([{"name": "own", "arch": "arch own\ninput 8x8x3\nstem { conv_k3_o }"}]), ["E0208"]),
        (kit([{"name": str(n), "arch": ""} for n in range(MAX_MEASURED + 1)]), ["E0907"]),
        (kit(dtype="float8"), ["E0908"]),
    ],
)
def test_a_faulty_kit(tmp_path: Path, table: Any, expected: list[str]) -> None:
    written(tmp_path, "kit.json", table)
    path = written(tmp_path, "t.csv", "network,us\nown,6\n")
    found = codes(lambda: read_results(path))
    assert len(found) == len(expected) and (found == expected or "E0208" in expected)


def test_times_of_another_file_than_the_kits(tmp_path: Path) -> None:
    written(tmp_path, "kit.json", kit())
    networks = [{"name": "own", "us": 5.0, "sha256": "34cd"}]
    path = written(tmp_path, "results.json", {"networks": networks})
    assert codes(lambda: read_results(path)) == ["E0909"]


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("", "E0907"),
        ("{", "E0907"),
        ("[" * 100_000, "E0907"),
        ("[1e999]", "E0907"),
        ("[" + "9" * 5000 + "]", "E0907"),
        ('{"networks": [{"name": "mnv2", "us": 5, "us": 6}]}', "E0907"),
        ("{}", "E0907"),
        ({"models": []}, "E0907"),
        ([{"dur": 3, "name": "session_initialization"}], "E0907"),
        ('network,us\n"mnv2,3\n', "E0907"),
        ("network,us,ms\nmnv2,3,3\n", "E0907"),
        ("network,us\nmnv2,3,3\n", "E0908"),
        ("network,us\nmnv2,nan\n", "E0908"),
        ("network,us\nmnv2,soon\n", "E0908"),
        ({"networks": [3]}, "E0908"),
        ({"networks": [{"name": "mnv2"}]}, "E0908"),
        ({"networks": [{"name": 3, "us": 3}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": True}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 10**400}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": float("inf")}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3}], "threads": "one"}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3}], "dtype": ["int8"]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3}], "dtype": "float32"}, "E0910"),
        ({"networks": [{"name": "mnv2", "us": 3, "macs": {}}]}, "E0909"),
        ({"execution_summary": 3}, "E0908"),
        ({"execution_summary": {"estimated_inference_time": None}, "name": "mnv2"}, "E0908"),
        ([{"name": "model_run", "dur": "soon"}], "E0908"),
        ([{"name": "model_run", "dur": 0}], "E0908"),
        ([{"name": "model_run", "dur": us} for us in (1, 10**400, 10**400, 1)], "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3, "spread": 10**400}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3, "batch": 10**400}]}, "E0908"),
        ({"networks": [{"name": "mnv2", "us": 3, "macs": 10**400}]}, "E0909"),
        (
            {
                "name": "mnv2",
                "execution_summary": {
                    "estimated_inference_time": 3,
                    "all_inference_times": [1, 2, 10**400, 10**400],
                },
            },
            "E0908",
        ),
        (LOG.replace("8150", "-8150"), "E0908"),
        (LOG + LOG.replace("[1]", "[4]"), "E0910"),
        (LOG + LOG, "E0910"),
    ],
)
def test_what_is_said_of_bad_results(what: Any, code: str) -> None:
    found = codes(lambda: of(what, dtype="int8"))
    assert set(found) == {code}


def test_an_event_with_a_bad_time_is_pointed_at() -> None:
    events = json.dumps([{"name": "model_run", "dur": 5}, {"name": "model_run", "dur": [7]}])
    with pytest.raises(ArchError) as caught:
        results_of(SourceText("mnv2.json", events), dtype="int8")
    (fault,) = caught.value.diagnostics
    assert fault.span is not None and fault.span.text == "[7]"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"dtype": "float32"}, {"dtype": "int8"}),
        ({"threads": 1}, {"threads": 4}),
        ({"runtime": "tflite"}, {"runtime": "torch"}),
    ],
)
def test_files_that_do_not_belong_together(tmp_path: Path, first: Any, second: Any) -> None:
    base = {"dtype": "int8"}
    written(tmp_path, "a.json", {**base, **first, "networks": [{"name": "mnv1", "us": 3.0}]})
    written(tmp_path, "b.json", {**base, **second, "networks": [{"name": "mnv2", "us": 3.0}]})
    assert codes(lambda: read_results(tmp_path)) == ["E0910"]


def test_a_network_in_two_files(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        written(tmp_path, name, "network,us\nmnv2,3\n")
    assert codes(lambda: read_results(tmp_path, dtype="int8")) == ["E0910"]


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "results.json")
    assert codes(lambda: read_results(tmp_path)) == ["E0907"]
    path = written(tmp_path, "results.json", OURS)
    with pytest.raises(FileNotFoundError):
        read_results(path, tmp_path / "nowhere")


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RESULTS", 100)
    path = written(tmp_path, "results.json", OURS)
    assert codes(lambda: read_results(path)) == ["E0110"]


def test_too_many_networks() -> None:
    lines = "".join(f"net{n},1\n" for n in range(MAX_MEASURED + 1))
    assert codes(lambda: of(f"network,us\n{lines}", dtype="int8")) == ["E0907"]


SAMPLES = [json.dumps(OURS), json.dumps(PROFILE), json.dumps({"mnv2": JOB}), LOG, TABLE]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_no_text_ends_in_a_traceback(sample: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(sample)))
    length = data.draw(st.integers(0, 12))
    put = data.draw(
        st.sampled_from(["", "-", "NaN", "{", "]", '"', "\0", "é\ud800", ",", "0", "null"])
    )
    try:
        found = results_of(SourceText("x.json", sample[:at] + put + sample[at + length :]), "int8")
    except ArchError as error:
        assert all(render(one) for one in error.diagnostics)
    else:
        assert all(0 < one.us <= 1e12 for one in found.measurements)


# ----------------------------------------------------------------------------------------- places

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.sampled_from([None, 1]))
def test_every_value_is_found_in_its_place(value: Any, indent: int | None) -> None:
    text = f" {json.dumps(value, indent=indent)}\n"

    def walk(path: tuple[str | int, ...], one: Any) -> None:
        start, end = place(text, path)
        assert json.loads(text[start:end]) == one
        if isinstance(one, (dict, list)):
            for key, inner in one.items() if isinstance(one, dict) else enumerate(one):
                walk((*path, key), inner)

    walk((), value)


def test_the_example_of_the_documents_is_read() -> None:
    page = (Path(__file__).parent.parent / "docs" / "calibration.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert times(of(example)) == {"mnv2": 8933.0, "mine": 412.5}


def test_where_the_times_are_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(OURS), encoding="utf-8")
    monkeypatch.chdir(folder)
    assert [read_results(path).source for path in (".", "results.json", folder)] == [
        *("phone", "results.json", "phone")
    ]
