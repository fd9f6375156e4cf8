"""No input ends in a traceback: hostile texts, files that cannot be read, faults of our own."""

from __future__ import annotations

import errno
import json

import pytest
from click.testing import CliRunner, Result

from archdsl.cli.program import program


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "ARCHDSL_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def run(*words: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(program, words, input=stdin, prog_name="archdsl")


HOSTILE = {
    "empty": b"",
    "zeros": b"\0" * 100,
    "not utf-8": b"arch a\xff\xfe",
    "escapes": b"arch \x1b[2J\x1b]0;x\x07 { input",
    "braces": b"{" * 20_000,
    "brackets": b"[" * 20_000,
    "parentheses": b"arch a input 8x8x3 stem { " + b"( " * 20_000,
    "digits": b"arch a input 8x8x3 stem { conv_o" + b"9" * 5000 + b" }",
    "large": b"a" * 5_000_000,
    "lone surrogate": b'{"name": "\\ud800"}',
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=list(HOSTILE))
@pytest.mark.parametrize(
    "words",
    [
        ("check", "-"),
        ("check", "-", "--json"),
        ("fmt", "-"),
        ("show", "-"),
        ("cost", "-", "--json"),
        ("compile", "-", "--to", "torch", "-o", "-"),
        ("convert", "-", "--to", "json"),
        ("convert", "-", "--from", "json", "--to", "arch"),
    ],
    ids=" ".join,
)
def test_hostile_input(words: tuple[str, ...], data: bytes) -> None:
    result = run(*words, stdin=data)
    # An empty file is in canonical form.
    assert result.exit_code == (0 if words[0] == "fmt" and not data else 1)
    assert "Traceback" not in result.output
    assert "\x1b" not in result.output
    if "--json" in words and words[0] == "check":
        assert json.loads(result.stdout)[0]["code"].startswith("E")
    elif result.exit_code:
        assert not result.stdout
        assert "error[E" in result.stderr


def test_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr("archdsl.library.read_source", refuse)
    result = run("show", "net.arch")
    assert result.exit_code == 2
    assert result.stderr == "error: net.arch: Permission denied\n"


def test_a_fault_of_its_own_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("archdsl.compiler.parse", broken)
    result = run("show", "mnv2")
    assert result.exit_code == 70
    assert len(result.stderr.splitlines()) == 1
    assert "please report it" in result.stderr
    monkeypatch.setenv("ARCHDSL_DEBUG", "1")
    assert "Traceback" in run("show", "mnv2").stderr
