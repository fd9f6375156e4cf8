"""`archdsl search`: what it prints and leaves, what it refuses, and that it goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.program import program
from archdsl.search.objectives import Objectives
from archdsl.search.reports import write_results, write_tables
from archdsl.search.space import parse_space
from archdsl.search.study import Study

TEXT = """\
arch small
input ( 8x8x3 | 16x16x3 )
classes 2
stem { conv_k{1,3}_s22_o{8,16,24} }
stage c1 { ( k3 | k5_e{3,6} | skip ) each_r{1,2}_k{3,5}_o16 }
head { pool fc }
"""
DEVICE = "pixel6-cpu-int8"
FIGURES = ("params", "macs", "weight_bytes", "activation_bytes", "peak_activation_bytes")

MODULE = """\
import os, time

def sized(arch):
    time.sleep(float(os.environ.get("NAP", "0")))
    return {"accuracy": 1 - 1 / arch.cost().params, "loss": 0.5}

def moody(arch):
    if arch.cost().params % 3 == 0:
        raise RuntimeError(f"diverged after {arch.cost().params} steps")
    return 0.5

def loud(arch):
    print("a word")
    return sized(arch)

def broken(arch):
    print("looking for data")
    raise FileNotFoundError("no data")
"""

PROGRAM = """\
#!/bin/sh
cat > /dev/null
sleep 100 & echo $! >> pids
sleep ${NAP:-0}
echo 0.7
"""

Run = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.fspath(tmp_path))
    (tmp_path / "space.arch").write_text(TEXT)
    (tmp_path / "searched_here.py").write_text(MODULE)
    (tmp_path / "program.sh").write_text(PROGRAM)
    (tmp_path / "program.sh").chmod(0o755)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    environment = {"COLUMNS": "100", "NO_COLOR": "1"}

    def call(*words: object) -> Result:
        runner = CliRunner(env=environment)
        return runner.invoke(program, ["search", *map(str, words)], prog_name="archdsl")

    return call


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures, which take longer than all else."""
    monkeypatch.setattr("archdsl.search.reports.pictures", lambda study: {})


SIZED = ("space.arch", "--evaluator", "searched_here:sized")


def test_a_search_leaves_its_trials_its_front_and_a_picture(run: Run, folder: Path) -> None:
    asked = (*SIZED, "--device", DEVICE, "--target-ms", "0.05", "--max-params", "9000")
    result = run(*asked, "--budget", "10", "--seed", "3")
    assert result.exit_code == 0, result.output
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith("small: 10 networks evaluated")
    assert second == (
        f"evolution, seed 3; front of accuracy and latency on {DEVICE}; reward soft, target "
        f"0.05 ms on {DEVICE}; at most 9,000 parameters"
    )
    out = folder / "small-search"
    assert {path.name for path in out.iterdir()} == {
        *("study.journal", "study.json", "trials.csv", "trials.jsonl"),
        *("front", "front.svg", "front.png"),
    }
    trials = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    with (out / "trials.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [int(row["number"]) for row in rows] == list(range(len(trials)))
    assert sum(t["state"] == "complete" and t["same_as"] is None for t in trials) == 10
    space = parse_space(TEXT)
    for trial, row in zip(trials, rows, strict=True):
        assert space.encode(trial["text"]) == tuple(trial["vector"])
        assert row["state"] == trial["state"]
        cost = archdsl.parse(trial["text"]).cost(dtype="int8")
        assert [trial[name] for name in FIGURES] == [getattr(cost, name) for name in FIGURES]
        assert (trial["params"] > 9000) is (trial["state"] == "infeasible")
        assert trial["extra"] == ({"loss": 0.5} if trial["state"] == "complete" else {})
    by_name = {f"small_{t['number']}.arch": t for t in trials}
    front = sorted((out / "front").iterdir())
    assert front
    for path in front:
        text = path.read_text()
        trial = by_name[path.name]
        assert archdsl.check(text) == []
        assert archdsl.parse(text).name == path.stem
        assert f"accuracy {trial['accuracy']:.6g}" in text
        assert "# vector " + " ".join(map(str, trial["vector"])) + "\n" in text
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("undrawn")
def test_the_same_command_goes_on_and_a_larger_budget_adds(run: Run, folder: Path) -> None:
    asked = (*SIZED, "--max-macs", "300000", "-o", "here", "--json")
    one = json.loads(run(*asked, "--budget", "6").stdout)
    again = run(*asked, "--budget", "6")
    assert "going on with here/study.journal: 6 networks are evaluated" in again.stderr
    assert json.loads(again.stdout) == one
    more = json.loads(run(*asked, "--budget", "9").stdout)
    assert (one["evaluated"], more["evaluated"]) == (6, 9)
    lines = (folder / "here" / "trials.jsonl").read_text().splitlines()
    assert len(lines) >= 9 + more["infeasible"]
    names = {path.name for path in (folder / "here" / "front").iterdir()}
    assert names == {Path(trial["file"]).name for trial in more["front"]}
    accuracies = [trial["accuracy"] for trial in more["front"]]
    costs = [trial["macs"] for trial in more["front"]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert costs == sorted(costs, reverse=True)
    assert more["best"]["accuracy"] == max(accuracies)


@pytest.mark.usefixtures("undrawn")
def test_what_failed_is_said_by_its_reasons(run: Run, folder: Path) -> None:
    words = ("space.arch", "--evaluator", "searched_here:moody", "--algorithm", "random")
    result = run(*words, "--budget", "20", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    (lost,) = found["lost"]
    assert len(lost["trials"]) == found["failed"] > 1
    assert f"{found['failed']} failed (trials " in result.stderr
    assert "diverged after" in result.stderr


def test_an_evaluator_that_never_works_ends_it(run: Run, folder: Path) -> None:
    result = run("space.arch", "--evaluator", "searched_here:broken")
    assert result.exit_code == 1
    assert "error[E1008]" in result.stderr and "FileNotFoundError: no data" in result.stderr
    assert result.stderr.count("no data") == 1
    assert "these 5 count against its budget" in result.stderr
    assert "small-search/evaluator.log has what the evaluator said" in result.stderr
    assert not result.stdout
    assert len((folder / "small-search" / "trials.csv").read_text().splitlines()) == 6
    said = (folder / "small-search" / "evaluator.log").read_text().split("--- trial ")
    assert [one.split("\n")[0] for one in said] == ["", "0", "1", "2", "3", "4"]
    for one in said[1:]:
        assert one.index("looking for data") < one.index('raise FileNotFoundError("no data")')
        assert "outcomes.py" not in one


def test_what_a_program_complains_of_is_in_the_log(run: Run, folder: Path) -> None:
    command = "sh -c 'echo first >&2; echo last >&2; exit 3'"
    result = run("space.arch", "--program", command, "--budget", "1")
    assert result.exit_code == 1
    assert "1 failed (trial 0): the program ended with exit status 3: last" in result.stderr
    assert "small-search/evaluator.log has what" in result.stderr
    log = (folder / "small-search" / "evaluator.log").read_text()
    assert log == "--- trial 0\nfirst\nlast\n"
    late = run("space.arch", "--program", "sh -c 'echo slow >&2; sleep 9'", "--budget", "1",
        "--timeout", "1", "-o", "late")  # fmt: skip
    assert late.exit_code == 1
    assert "slow" in (folder / "late" / "evaluator.log").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_search_on_costs_alone_needs_no_evaluator(run: Run, folder: Path) -> None:
    asked = ("space.arch", "--device", DEVICE, "--objective", "latency", "--objective", "params")
    result = run(*asked, "--budget", "20")
    assert result.exit_code == 0, result.output
    first, second, _, head, *_ = result.stdout.splitlines()
    assert first.startswith("small: 20 networks evaluated")
    assert second == f"pymoo-nsga2, seed 0; front of latency on {DEVICE} and parameters"
    assert head.split() == ["trial", "ms", "on", DEVICE, "MACs", "parameters"]
    found = json.loads(run(*asked, "--budget", "20", "--json").stdout)
    assert found["study"]["evaluator"] is None and found["study"]["reward"] == "cost"
    costs = [(one[f"latency_us:{DEVICE}"], one["params"]) for one in found["front"]]
    assert sorted(costs) == costs and sorted(costs, key=lambda two: -two[1]) == costs
    assert {one["accuracy"] for one in found["front"]} == {None}
    text = Path(found["front"][0]["file"]).read_text()
    assert "accuracy" not in text and "None" not in text and "# vector" in text
    with (folder / "small-search" / "trials.csv").open() as table:
        assert {(row["state"], row["accuracy"]) for row in csv.DictReader(table)} == {
            ("complete", "")
        }
    # Bounds that can each be kept, but not together.
    blocks = "stem { ( conv_k3_s22_o8 | conv_k1_o24 ) } head { pool fc }"
    (folder / "two.arch").write_text(f"arch two input 8x8x3 classes 2 {blocks}")
    words = ("two.arch", "--objective", "macs", "--max-macs", "4000", "--max-params", "200")
    both = run(*words)
    assert both.exit_code == 1, both.output
    assert "0 networks evaluated, 2 beyond a bound" in both.stdout
    assert "no network is within the bounds" in both.stderr


def test_a_target_that_no_member_reaches_ends_it_before_it_begins(run: Run, folder: Path) -> None:
    result = run(*SIZED, "--device", DEVICE, "--target-ms", "1e-6")
    assert result.exit_code == 1
    assert "error[E1007]" in result.stderr and "the least is" in result.stderr
    assert not (folder / "small-search").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_study_of_something_else_is_left_alone(run: Run, folder: Path) -> None:
    assert run(*SIZED, "--budget", "1").exit_code == 0
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    result = run(*SIZED, "--budget", "1", "--seed", "1")
    assert result.exit_code == 1
    assert "error[E1006]" in result.stderr and "seed: 0 there, 1 here" in result.stderr
    (folder / "other.arch").write_text(TEXT.replace("arch small", "arch other"))
    result = run("other.arch", *SIZED[1:], "--budget", "1", "-o", "small-search")
    assert result.exit_code == 1
    assert "error[E1006]" in result.stderr and "name: small there, other here" in result.stderr
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("undrawn")
def test_a_folder_has_the_results_of_one_study_wherever_that_is(run: Run, folder: Path) -> None:
    url = f"sqlite:///{folder}/studies.db"
    asked = (*SIZED, "--budget", "1", "-o", "out")
    assert run(*asked, "--storage", url).exit_code == 0
    before = {path: path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    (folder / "other.arch").write_text(TEXT.replace("arch small", "arch other"))
    other = ("other.arch", *asked[1:])
    for words in ((*other, "--storage", url), (*asked, "--seed", "1", "--storage", "a.journal")):
        result = run(*words)
        assert result.exit_code == 1 and not result.stdout
        assert "error[E1006]: the study in out is not this one" in result.stderr
    assert "seed: 0 there, 1 here" in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder / "a.journal").exists()
    # The same study from another storage; a folder of its own for the other one.
    assert run(*asked, "--storage", "a.journal").exit_code == 0
    assert run(*other, "--storage", url, "-o", "third").exit_code == 0
    (folder / "out" / "study.json").write_text("[]")
    broken = run(*asked, "--storage", url)
    assert broken.exit_code == 1 and "error[E1009]: out/study.json holds no" in broken.stderr


@pytest.mark.usefixtures("undrawn")
def test_a_folder_of_which_nothing_came_is_anybodys(run: Run, folder: Path) -> None:
    text = "stem { ( conv_k3_s22_o8 | conv_k1_o24 ) } head { pool fc }"
    (folder / "two.arch").write_text(f"arch two input 8x8x3 classes 2 {text}")
    study = Study(parse_space(TEXT), Objectives(), evaluator="digts")
    write_results(study, folder / "out", {})
    assert not (folder / "out" / "study.json").exists()
    asked = ("two.arch", "--objective", "macs", "--budget", "1", "-o", "out")
    assert run(*asked, "--storage", "b.journal").exit_code == 0
    with pytest.raises(archdsl.ArchError, match="E1006"):
        write_results(study, folder / "out", {})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("space.arch",), "--evaluator"),
        (("space.arch", "--objective", "accuracy", "--objective", "macs"), "whose accuracies?"),
        (("space.arch", "--objective", "macs", "--reward", "accuracy"), "whose accuracies?"),
        (
            ("space.arch", "--objective", "macs", "--device", DEVICE, "--target-ms", "3"),
            "--max-ms in place of --target-ms",
        ),
        (("space.arch", "--objective", "macs", "--set", "epochs=3"), "--set is for"),
        (("space.arch", "--objective", "macs", "--workers", "2"), "--workers is for"),
        (("space.arch", "--objective", "macs", "--timeout", "2"), "--timeout is for"),
        (("space.arch", "--objective", "macs", "--engine", "ray"), "--engine ray is for"),
        ((*SIZED, "--program", "true"), "exclude each other"),
        (("space.arch", "--evaluator", "digts"), "digits"),
        (("space.arch", "--evaluator", "searched_here:size"), "sized"),
        (("space.arch", "--program", "./no-such-program"), "no program"),
        ((*SIZED, "--target-ms", "3"), "--device"),
        ((*SIZED, "--max-ms", "3"), "--device"),
        ((*SIZED, "--reward", "hard"), "--target-ms"),
        ((*SIZED, "--device", DEVICE, "--target-ms", "1", "--target-ms", "2"), "one for each"),
        ((*SIZED, "--device", DEVICE, "--target-ms", "nan"), "must be"),
        ((*SIZED, "--device", "pixel"), "pixel"),
        (
            (*SIZED, "--device", DEVICE, "--device", "pixel1-cpu-fp32-fitted"),
            f"different precisions, and networks are counted in one: {DEVICE} is for int8, "
            "pixel1-cpu-fp32-fitted is for float32",
        ),
        ((*SIZED, "--objective", "speed"), "no figure"),
        ((*SIZED, "--objective", "latency"), "needs a device"),
        ((*SIZED, "--algorithm", "evolutoin"), "evolution"),
        ((*SIZED, "--algorithm-set", "population=0"), "population"),
        ((*SIZED, "--algorithm-set", "population"), "KEY=VALUE"),
        ((*SIZED, "--set", "epochs=3"), "epochs"),
        ((*SIZED, "--budget", "0"), "must be"),
        ((*SIZED, "--workers", "0"), "must be"),
        ((*SIZED, "--cpus", "2"), "--engine ray"),
        ((*SIZED, "-o", "no/such/folder"), "there is no folder"),
        ((*SIZED, "-o", "space.arch"), "is a file"),
        ((*SIZED, "-o", "-"), "folder"),
        ((*SIZED, "--storage", "sqlite:////no/such/folder/x.db"), "unable to open"),
        ((*SIZED, "--storage", "no/such/study.journal"), "no/such"),
        ((*SIZED, "--storage", "nothing://here"), "nothing://here"),
        (("nowhere.arch", "--evaluator", "digits"), "nowhere.arch"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    run: Run, folder: Path, words: tuple[str, ...], said: str
) -> None:
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert not result.stdout
    assert not (folder / "small-search").exists()


def test_a_refusal_leaves_what_was_there_before(run: Run, folder: Path) -> None:
    (folder / "here").mkdir()
    (folder / "here" / "mine.txt").write_text("kept")
    words = ("space.arch", "--evaluator", "digts", "-o", "here")
    assert run(*words, "--storage", "other.journal").exit_code == 2
    assert [path.name for path in (folder / "here").iterdir()] == ["mine.txt"]
    assert not (folder / "other.journal").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_database_keeps_a_study_too(run: Run, folder: Path) -> None:
    url = f"sqlite:///{folder}/studies.db"
    asked = ("space.arch", "--evaluator", "searched_here:loud", "--storage", url, "--json")
    # What an evaluator says has a place, though no study has made the folder.
    assert json.loads(run(*asked, "--budget", "3").stdout)["evaluated"] == 3
    assert "a word" in (folder / "small-search" / "evaluator.log").read_text()
    again = run(*asked, "--budget", "4")
    assert json.loads(again.stdout)["evaluated"] == 4
    assert f"going on with {url}: 3 networks are evaluated" in again.stderr
    assert not (folder / "small-search" / "study.journal").exists()


@pytest.mark.usefixtures("undrawn")
def test_tables_grow_while_it_runs(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[int] = []

    def counting(study: Any, where: Path) -> None:
        write_tables(study, where)
        lines.append(len((where / "trials.jsonl").read_text().splitlines()))
        raise OSError("the disk is full")

    monkeypatch.setattr("archdsl.cli.search_running._EVERY", 0.0)
    monkeypatch.setattr("archdsl.cli.search_running._SHARE", 0)
    monkeypatch.setattr("archdsl.search.reports.write_tables", counting)
    assert run(*SIZED, "--algorithm", "random", "--budget", "3").exit_code == 0
    assert lines[:3] == [1, 2, 3]


def test_a_fault_of_ours_is_no_refusal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, budget: int, watch: Any) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("archdsl.search.study.Study.run", broken)
    assert run(*SIZED, "--budget", "3").exit_code == 70


@pytest.mark.parametrize("missing", ["optuna", "matplotlib"])
def test_a_package_that_is_missing_is_named_with_its_line(
    missing: str, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    result = run(*SIZED, "--budget", "1")
    extra = {"optuna": "search", "matplotlib": "plot"}[missing]
    assert f'pip install "archdsl[{extra}]"' in result.stderr
    # Without a picture a search is none the worse.
    assert result.exit_code == (2 if missing == "optuna" else 0)
    assert (folder / "small-search" / "trials.csv").exists() is (missing == "matplotlib")


# ----------------------------------------------------------------------------------- interruption


def started(folder: Path, nap: str) -> subprocess.Popen[str]:
    words = ["search", "space.arch", "--program", "./program.sh", "-o", "out"]
    return subprocess.Popen(
        [sys.executable, "-m", "archdsl", *words, "--budget", "6", "--workers", "2"],
        cwd=folder,
        env={**os.environ, "NAP": nap},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def pids(folder: Path, count: int) -> list[int]:
    """The processes that programs have left running, once there are so many."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (folder / "pids").exists():
            found = (folder / "pids").read_text().split()
            if len(found) >= count:
                return [int(word) for word in found]
        time.sleep(0.05)
    raise AssertionError("the programs were not started")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def none_left(found: list[int]) -> bool:
    until = time.monotonic() + 10
    while any(map(alive, found)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, found))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_and_kill_leave_nobody_behind_and_the_search_goes_on(folder: Path) -> None:
    process = started(folder, "100")
    found = pids(folder, 2)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not said
    assert "interrupted: 0 of 6 networks are evaluated; the same command goes on" in complained
    assert complained.endswith("wrote trials.csv, trials.jsonl and 0 networks in front/ in out\n")
    assert none_left(found)
    process = started(folder, "100")
    found = pids(folder, 4)
    process.kill()
    process.communicate()
    assert none_left(found)
    process = started(folder, "0")
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, complained
    assert said.startswith("small: 6 networks evaluated")
    lines = (folder / "out" / "trials.jsonl").read_text().splitlines()
    trials: list[Any] = [json.loads(line) for line in lines]
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert sum(trial["same_as"] is None for trial in trials) == 6
    assert none_left(pids(folder, 1))
