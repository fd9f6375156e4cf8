"""`archdsl cost --jsonl`: an architecture a line in, a result or its errors a line out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import archdsl
from archdsl.cli.program import program
from archdsl.limits import MAX_TEXT

GOOD = "arch {} input 8x8x3 stem {{ conv_k3_o{} }}"


def run(*words: str, text: str | bytes = "") -> Result:
    return CliRunner().invoke(program, ["cost", "--jsonl", *words], input=text)


def answers(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_line_has_its_answer_in_order(tmp_path: Path) -> None:
    whole = archdsl.load("mnv2").to_text()
    lines = [
        GOOD.format("a", 8),
        json.dumps(whole),
        "",
        json.dumps({"text": GOOD.format("c", 16), "vector": [1]}),
    ]
    file = tmp_path / "nets.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    result = run(str(file), "--batch", "2", "--device", "pixel6-cpu-int8")
    assert result.exit_code == 0
    found = answers(result)
    assert [answer["line"] for answer in found] == [1, 2, 4]
    device = archdsl.load_device("pixel6-cpu-int8")
    for answer, text in zip(found, (lines[0], whole, GOOD.format("c", 16)), strict=True):
        cost = archdsl.parse(text).cost(batch=2, devices=[device])
        wanted = cost.to_json()
        del wanted["layers"]
        assert answer == {"line": answer["line"], **wanted}


def test_faulty_lines_have_errors_and_the_others_their_results() -> None:
    lines: list[bytes] = [
        GOOD.format("a", 8).encode(),
        b"arch b input 8x8x3 stem { conv_k4_o8 conv_q3 }",
        b"\xff",
        b'{"text": 3}',
        b'{"text": ' + b"[" * 100_000,
        b"x" * (4 * MAX_TEXT + 10),
        b'"arch c input 8x8x3 stem { conv_k{3,5} }"',
        GOOD.format("d", 8).encode(),
    ]
    result = run("-", text=b"\n".join(lines))
    assert result.exit_code == 1
    found = answers(result)
    assert [answer["line"] for answer in found] == list(range(1, 9))
    said = [[e["code"] for e in answer.get("errors", [])] for answer in found]
    assert said == [
        *([], ["E0209", "E0202"], ["E0106"], ["E0102"], ["E0102"], ["E0110"], ["E0107"], [])
    ]
    assert found[0]["params"] == found[-1]["params"] == 232


def test_what_is_no_line_is_refused() -> None:
    assert run("no/such/file").exit_code == 2
    clash = run("-", "--dtype", "float32", "--device", "pixel6-cpu-int8", text=GOOD.format("a", 8))
    assert clash.exit_code == 2 and "--dtype" in clash.stderr


def test_the_members_of_a_space_are_read_as_they_are_drawn() -> None:
    drawn = CliRunner().invoke(program, ["space", "sample", "mnv4_coarse", "-n", "3", "--jsonl"])
    space = archdsl.load_space("mnv4_coarse")
    for line, answer in zip(
        drawn.stdout.splitlines(), answers(run("-", text=drawn.stdout)), strict=True
    ):
        vector = json.loads(line)["vector"]
        assert answer["params"] == space.arch_of(vector).cost().params
