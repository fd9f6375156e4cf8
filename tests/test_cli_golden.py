"""What the commands print, as transcripts: `$ command`, then its output and its exit status.

A transcript is written anew by running this file with ARCHDSL_UPDATE_GOLDEN=1 in the environment.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from archdsl.cli.program import program

FOLDER = Path(__file__).parent / "golden" / "cli"
TRANSCRIPTS = sorted(path.name for path in FOLDER.glob("*.txt"))


def run(line: str) -> str:
    """What a terminal shows of a line such as `COLUMNS=80 archdsl list`."""
    words = shlex.split(line)
    environment = {"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": "", "ARCHDSL_DEBUG": ""}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    assert words[0] == "archdsl"
    result = CliRunner(env=environment).invoke(program, words[1:], prog_name="archdsl")
    status = f"[exit status {result.exit_code}]\n" if result.exit_code else ""
    return f"$ {line}\n{result.output}{status}"


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcript(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    path = FOLDER / name
    wanted = path.read_text(encoding="utf-8")
    lines = [line[2:] for line in wanted.splitlines() if line.startswith("$ ")]
    assert lines
    shown = "\n".join(map(run, lines))
    if os.environ.get("ARCHDSL_UPDATE_GOLDEN"):
        path.write_text(shown, encoding="utf-8")
    else:
        assert shown == wanted


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_fits_the_terminal(name: str) -> None:
    limit = 100
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("$ "):
            limit = 80 if "COLUMNS=80" in line else 100
            # A record stands on one line, however long.
            limit = 10_000 if "--json" in line else limit
        assert len(line) <= limit
