"""Tables of accuracies, and `archdsl rank` by them: a search's own, and others'."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import archdsl
from archdsl.cli.program import program
from archdsl.lang.source import SourceText
from archdsl.limits import MAX_RESULTS
from archdsl.roofline.accuracies import accuracies_of, read_accuracies
from archdsl.roofline.reward import SOFT, mnasnet_reward

DEVICE = "pixel6-cpu-int8"


def run(*words: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"})
    return runner.invoke(program, [*map(str, words)], prog_name="archdsl")


def table(text: str) -> dict[str, float]:
    return accuracies_of(SourceText("table", text))


names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)
accuracies = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(names, st.none() | accuracies, min_size=1))
def test_a_table_says_the_same_in_every_notation(said: dict[str, float | None]) -> None:
    wanted = {name: accuracy for name, accuracy in said.items() if accuracy is not None}
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["number", "Accuracy", "model"])
    for number, (name, accuracy) in enumerate(said.items()):
        rows.writerow([number, accuracy, name])
    assert table(text.getvalue()) == wanted
    objects = [{"network": n, "accuracy": a, "text": "{"} for n, a in said.items()]
    assert table(json.dumps(objects, indent=1)) == wanted
    assert table("".join(json.dumps(one) + "\n" for one in objects)) == wanted
    if not {"name", "network", "model"}.intersection(said):
        assert table(json.dumps(said)) == wanted


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "no table of accuracies"),
        ("name,top1\na,1\n", 1, "no table of accuracies"),
        ("name,model,accuracy\na,b,1\n", 1, "no table of accuracies"),
        ("name,accuracy\n\na,0.5\nb,0.5,3\n", 4, "3 cells, and the first one has 2"),
        ('name,accuracy\n"a\nb",0.5\nc,best\n', 4, "`c` is no number: `best`"),
        ("name,accuracy\na,nan\n", 2, "is no number"),
        ("name,accuracy\n,1\n", 2, "no network's name"),
        ("name,accuracy\na,1\na,1.0\na,2\n", 4, "two accuracies, 1 and 2"),
        ('name,accuracy\n"a"b,1\n', 2, "no table"),
        ('{"name": "a", "accuracy": true}', 1, "is no number"),
        ('{"name": "a", "accuracy": 0.5}\n{"name": "b"}\n', 2, "no table of accuracies"),
        ('{"name": "a", "accuracy": 0.5}\n{"name": ', 2, "no table of accuracies"),
        ('{"name": 3, "accuracy": 0.5}', 1, "no network's name"),
        ('{"a": Infinity}', 1, "is no number"),
        (f'{{"a": 1{"0" * 400}}}', 1, "is no number"),
        ('{"name": "a", "accuracy": 1, "accuracy": 1}', 1, "`accuracy` stands twice"),
        ('{"name": "a", "accuracy": 1}\n{"name": "b", "name": "c"}\n', 2, "`name` stands twice"),
        ('{"a": 0.5, "a": 0.7}', 1, "the key `a` stands twice in one object"),
        ("[1]", 1, "no table of accuracies"),
        ("[" * 100_000, 1, "no table of accuracies"),
    ],
)
def test_what_is_no_table_is_refused_at_its_line(text: str, line: int, said: str) -> None:
    with pytest.raises(archdsl.ArchError) as failure:
        table(text)
    (found,) = failure.value.diagnostics
    assert found.code == "E1011" and said in found.message
    assert found.span is not None and found.span.source.position(found.span.start) == (line, 1)


def test_a_table_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    path.write_bytes(b"name,accuracy\n" + b"\n" * MAX_RESULTS)
    with pytest.raises(archdsl.ArchError, match="E0110"):
        read_accuracies(path)


def test_the_front_of_a_search_is_ranked_by_its_own_accuracies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "arch s input 32x32x3 classes 4 stem { conv_k{1,3,5}_s22_o{8,16,24} } head { pool fc }"
    Path("s.arch").write_text(text)
    Path("judge.py").write_text("def sized(arch):\n    return 1 - 1 / arch.cost().params\n")
    monkeypatch.setattr("archdsl.search.reports.pictures", lambda study: {})
    searched = run("search", "s.arch", "--evaluator", "judge:sized", "--budget", "9", "--json")
    front = json.loads(searched.stdout)["front"]
    assert len(front) > 2
    words = ("rank", *sorted(Path("s-search/front").iterdir()), "--device", DEVICE)
    words = (*words, "--target-ms", "0.01", "--accuracies")
    ranked = json.loads(run(*words, "s-search/trials.csv", "--json").stdout)
    device = archdsl.load_device(DEVICE)
    expected = {}
    for trial in front:
        ms = (archdsl.load(trial["file"]).latency(device).us or 0) / 1e3
        alpha, beta = SOFT
        reward = mnasnet_reward(trial["accuracy"], ms, 0.01, alpha=alpha, beta=beta)
        expected[trial["name"]] = (trial["accuracy"], ms, reward)
    found = {n["name"]: (n["accuracy"], n["ms"], n["reward"]) for n in ranked["networks"]}
    assert found == expected
    lines = run(*words, "s-search/trials.jsonl")
    assert lines.exit_code == 0 and "accuracy x (latency / 0.01 ms)^w" in lines.stdout
    head = next(line for line in lines.stdout.splitlines() if "network" in line)
    assert head.split()[:4] == ["network", "accuracy", "ms", "reward"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_networks_of_another_study_are_told_by_their_counts(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    total = archdsl.load("mnv2").total
    macs = total.macs_conv_linear + total.macs_attention
    table = Path(f"trials.{suffix}")

    def ranked(params: object, macs: object) -> Result:
        row = {"name": "mnv2", "accuracy": 0.5, "params": params, "macs": macs}
        lines = [",".join(row), ",".join(map(str, row.values()))]
        table.write_text("\n".join(lines) if suffix == "csv" else json.dumps(row))
        words = ("--device", DEVICE, "--target-ms", "5", "--accuracies", table)
        results = run("rank", "mnv2", *words), run("rank", *words)
        assert results[0].exit_code == results[1].exit_code
        return results[0]

    for other in ((total.params + 1, macs), (total.params, macs + 1)):
        result = ranked(*other)
        assert result.exit_code == 2 and not result.stdout
        said = "it is another mnv2 that has an accuracy there: of {:,} parameters and {:,} MACs"
        assert said.format(*other) in " ".join(result.stderr.split())
    # The second is of a batch, and the last are in other units.
    for same in ((total.params, macs), (total.params, 4 * macs), ("", ""), (3.5, 300.8)):
        assert ranked(*same).exit_code == 0


def test_published_networks_are_ranked_by_a_table_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"mnv2": 0.5, "mnv2_140": 0.625, "another": 0.75}')
    words = ("rank", "--device", DEVICE, "--target-ms", "5", "--accuracies", path)
    found = json.loads(run(*words, "--json").stdout)["networks"]
    assert {(one["name"], one["accuracy"]) for one in found} == {("mnv2", 0.5), ("mnv2_140", 0.625)}
    some = run(*words, "mnv2", "mnv1")
    assert some.exit_code == 0 and f"left out, for {path} has no accuracy: mnv1" in some.stderr
    none = run(*words, "mnv1")
    assert none.exit_code == 2 and "has an accuracy of none of these networks" in none.stderr
    path.write_text('{"mnv2": -0.5}')
    below = run(*words)
    assert below.exit_code == 2 and "an accuracy below 0" in below.stderr
    path.write_text("mnv2 0.5")
    unread = run(*words)
    assert unread.exit_code == 1 and "error[E1011]" in unread.stderr
    missing = run(*words[:-1], tmp_path / "nowhere.csv")
    assert missing.exit_code == 2 and "nowhere.csv" in missing.stderr
