"""`-o` of every command: one meaning of `-`, of folders that are not there, of full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from archdsl.cli.program import program

TEXT = "arch net input 8x8x3 stem { conv_k3_s22_o8 } head { pool fc_o4 }\n"

COMMANDS = {
    "compile": ("compile net.arch --to onnx", "net.onnx"),
    "convert": ("convert net.arch --to json", "net.json"),
    "weights init": ("weights init net.arch --seed 3", "w.safetensors"),
    "weights import": ("weights import given.safetensors --for net.arch", "w.safetensors"),
    "sweep": ("sweep net.arch", "a.csv"),
    "plot roofline": ("plot roofline net.arch --device pixel6-cpu-int8", "a.svg"),
    "plot layers": ("plot layers net.arch --ridge 50", "a.svg"),
}
"""Each command that writes a file, and the file's name."""

NAMED = {"sweep", "plot roofline", "plot layers"}
"""Those where the name's ending says what is written."""

each = pytest.mark.parametrize("command", COMMANDS)
anywhere = pytest.mark.parametrize("command", sorted(COMMANDS.keys() - NAMED))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(TEXT)
    assert run("weights init net.arch", "given.safetensors").exit_code == 0
    return tmp_path


def run(words: str, out: str) -> Result:
    return CliRunner().invoke(program, [*words.split(), "-o", out])


def written() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"net.arch", "given.safetensors"}


def test_the_table_has_every_command() -> None:
    def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from commands(command, f"{prefix}{name} ")
            else:
                yield f"{prefix}{name}", command

    assert isinstance(program, click.Group)
    taking = {
        name
        for name, command in commands(program, "")
        if any("-o" in parameter.opts for parameter in command.params)
    }
    # `calibrate` wants results of measurements, some a space, and `netadapt` prints what took its
    # time before it writes: they have their own tests.
    others = {"bench-kit", "calibrate", "space sample", "search", "oneshot", "netadapt"}
    assert taking == {*COMMANDS, *others}


@pytest.mark.parametrize(
    ("command", "marks"),
    [
        ("search", ("study.json", "study.journal")),
        ("oneshot", ("progress.pt", "coarse/progress.pt", "fine/progress.pt")),
        ("netadapt", ("evaluations.jsonl",)),
    ],
)
def test_a_folder_has_the_results_of_one_command(command: str, marks: tuple[str, ...]) -> None:
    asked = {
        "search": "search mnv4_coarse --objective macs --budget 1 -o",
        "oneshot": "oneshot mnv4_coarse -o",
        "netadapt": "netadapt net.arch --device pixel6-cpu-int8 --target-ratio 0.9 --report",
    }
    for number, mark in enumerate(marks):
        folder = Path(f"kept{number}")
        place = folder / mark
        place.parent.mkdir(parents=True)
        place.touch()
        for other in asked.keys() - {command}:
            result = CliRunner().invoke(program, [*asked[other].split(), str(folder)])
            assert result.exit_code == 2, result.output
            option = asked[other].split()[-1]
            said = f"{option} {folder}: has the results of `archdsl {command}`; take another folder"
            assert said in " ".join(result.stderr.split())
        assert [path for path in folder.rglob("*") if path.is_file()] == [place]


@pytest.mark.parametrize(
    "words", ["bench-kit --runtime onnxruntime", "space sample mnasnet_space -n 2"]
)
def test_a_dash_is_no_folder(words: str) -> None:
    result = run(words, "-")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: -o -: what is written is a folder")
    assert written() == set()


@anywhere
def test_a_dash_is_standard_output(command: str) -> None:
    words, name = COMMANDS[command]
    assert run(words, name).exit_code == 0
    data = Path(name).read_bytes()
    result = run(words, "-")
    assert (result.exit_code, result.stdout_bytes) == (0, data)
    assert written() == {name}


@anywhere
def test_a_dash_and_json_exclude_each_other(command: str) -> None:
    if command == "convert":
        return
    result = run(f"{COMMANDS[command][0]} --json", "-")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "leave out --json" in result.stderr
    assert written() == set()


@pytest.mark.parametrize("command", sorted(NAMED))
def test_a_dash_does_not_say_which_picture(command: str) -> None:
    result = run(COMMANDS[command][0], "-")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: -o -: must end with ")
    assert written() == set()


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of its own")
@pytest.mark.parametrize(("command", "status"), [("weights init", 2), ("convert", 0)])
def test_a_terminal_gets_text_alone(command: str, status: int) -> None:
    import pty

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "archdsl", *COMMANDS[command][0].split(), "-o", "-"],
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(theirs)
    assert done.returncode == status
    assert (b"error: -o -: a terminal cannot show these bytes" in done.stderr) == (status == 2)
    os.close(ours)


@each
@pytest.mark.parametrize("place", ["nowhere/", "nowhere/{}", ".", "deep/er/{}"])
def test_a_folder_that_is_not_there(command: str, place: str) -> None:
    words, name = COMMANDS[command]
    if command in NAMED and "{}" not in place:
        return
    out = place.format(name)
    result = run(words, out)
    assert (result.exit_code, result.stdout) == (2, "")
    folder = "nowhere" if place.startswith("nowhere") else "deep/er"
    said = "is a folder" if place == "." else f"there is no folder {folder}"
    assert f"error: -o {out}: {said}" in result.stderr
    assert written() == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@each
def test_a_full_disk_is_named(command: str) -> None:
    words, name = COMMANDS[command]
    Path(name).symlink_to("/dev/full")
    result = run(words, name)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {name}: No space left on device\n"
