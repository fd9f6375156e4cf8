"""The command as a shell runs it: streams, pipes, signals, and what a cold start imports."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden" / "cli"
ARCHDSL = [sys.executable, "-c", "import sys; from archdsl.cli import main; sys.exit(main())"]
QUIET = ("NO_COLOR", "FORCE_COLOR", "ARCHDSL_DEBUG", "COLUMNS")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in QUIET}

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")


def archdsl(
    *words: object, stdin: bytes = b"", cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*ARCHDSL, *map(str, words)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        timeout=60,
        check=False,
    )


def test_results_and_messages_part(tmp_path: Path) -> None:
    done = archdsl("check", "mnv2", "nowhere.arch", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == b"mnv2: ok, 3,504,872 parameters, 300,774,272 MACs\n"
    assert done.stderr == b"error: nowhere.arch: No such file or directory\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["check", GOLDEN / "tiny.arch"], 0),
        (["show", GOLDEN / "wrong.arch"], 1),
        (["show"], 2),
        (["show", GOLDEN], 2),
        (["compile", GOLDEN / "tiny.arch", "--to", "nonsense"], 2),
    ],
    ids=str,
)
def test_exit_status(words: list[object], status: int) -> None:
    done = archdsl(*words)
    assert done.returncode == status, done
    assert b"Traceback" not in done.stderr
    assert bool(done.stderr) == (status != 0)


def test_standard_input_and_output() -> None:
    source = (GOLDEN / "tiny.arch").read_bytes()
    assert archdsl("fmt", "-", stdin=source).stdout == source
    assert archdsl("check", "-", stdin=source).stdout.startswith(b"<stdin>: ok, ")


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_file_names_of_any_bytes(tmp_path: Path) -> None:
    name = b"\xff\x1b[2J\n.arch"
    (tmp_path / os.fsdecode(name)).write_bytes((GOLDEN / "tiny.arch").read_bytes())
    command = [*map(os.fsencode, ARCHDSL), b"check", name]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 0, done
    assert b"\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 1


# -- streams that take nothing -------------------------------------------------------------------


@pytest.mark.parametrize("command", ["show mnv4_hybrid_l --ops", "cost mnv2 --json"])
def test_closed_pipe_ends_quietly(command: str) -> None:
    process = subprocess.Popen(
        [*ARCHDSL, *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


@linux
def test_full_disk() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*ARCHDSL, "list"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 2
    assert done.stderr == b"error: No space left on device\n"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell to close a stream")
@pytest.mark.parametrize(("closed", "status"), [(">&-", 2), ("2>&-", 0), ("<&-", 0)])
def test_closed_streams(closed: str, status: int) -> None:
    line = f'"$@" check mnv2 {closed}'
    command = ["sh", "-c", line, "sh", *ARCHDSL]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr


# -- Ctrl-C --------------------------------------------------------------------------------------

posix = pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")


@posix
def test_interrupted() -> None:
    process = subprocess.Popen(
        [*ARCHDSL, "check", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    # More than a pipe holds: this returns when the program reads, and then waits for the rest.
    process.stdin.write(b" " * (1 << 18))
    process.stdin.flush()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == b""
    assert err.strip() == b""


WAITING = """\
import os, signal
signal.signal(signal.SIGINT, lambda *_: os._exit(130))
os.write(2, b".")
from archdsl.cli import main
main()
"""
"""Says when it begins; until it is archdsl's turn to handle SIGINT it does so itself."""


@posix
@pytest.mark.parametrize("words", [["check", "mnv4_conv_m"], ["compile", "mnv2", "--to", "onnx"]])
def test_interrupted_at_any_moment(words: list[str], tmp_path: Path) -> None:
    """While it imports, builds classes, works and ends: 130, unless it was done before."""
    started = time.monotonic()
    assert archdsl(*words, cwd=tmp_path).returncode == 0
    whole = time.monotonic() - started
    moments = 12
    quiet = 0
    for moment in range(moments):
        process = subprocess.Popen(
            [sys.executable, "-c", WAITING, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        assert process.stderr is not None
        assert process.stderr.read(1) == b"."
        time.sleep(whole * moment / moments)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        if process.returncode == 130:
            quiet += 1
            assert err.strip() == b"", err
        else:
            assert process.returncode == 0, err
            assert words[0] == "compile" or out.startswith(b"mnv4_conv_m: ok")
    assert quiet > moments / 4


@posix
@pytest.mark.parametrize(
    "made_of_it",
    [
        "raise ValueError('building a class')",  # as pydantic-core does
        "raise ImportError('no extension')",  # as modules in C do
        "pass",  # as a bare `except` does
    ],
)
def test_an_interrupt_that_a_library_takes(made_of_it: str) -> None:
    script = (
        "import os, signal, sys\n"
        "from archdsl.cli import main\n"
        "def parse(*_, **__):\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        f"    except BaseException:\n        {made_of_it}\n"
        "    raise SystemExit(1)\n"
        "import archdsl.compiler\n"
        "archdsl.compiler.parse = parse\n"
        "main(['cost', 'mnv2'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, b"", b"")


@posix
def test_an_interrupt_in_a_finaliser() -> None:
    script = (
        "import os, signal, time\n"
        "from archdsl.cli import main\n"
        "class Late:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "def parse(*_, **__):\n"
        "    Late()\n"
        "    time.sleep(30)\n"
        "import archdsl.compiler\n"
        "archdsl.compiler.parse = parse\n"
        "main(['cost', 'mnv2'])\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, b"")
    assert time.monotonic() - started < 20


@posix
def test_a_background_job_ignores_ctrl_c() -> None:
    script = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from archdsl.cli import main, interrupts\n"
        "finish = interrupts.finish\n"
        "interrupts.finish = lambda: (os.kill(os.getpid(), signal.SIGINT), finish())\n"
        "main(['check', 'mnv2'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# -- colour --------------------------------------------------------------------------------------


def test_colour_is_for_terminals() -> None:
    words = ("check", GOLDEN / "wrong.arch")
    assert b"\x1b[" not in archdsl(*words).stderr
    assert b"\x1b[" in archdsl(*words, FORCE_COLOR="1").stderr
    assert b"\x1b[" not in archdsl(*words, FORCE_COLOR="1", NO_COLOR="1").stderr


# -- cold start ----------------------------------------------------------------------------------

NEVER = ("torch", "networkx", "numpy", "rich", "jinja2", "archdsl.backend")
LIGHT = (*NEVER, "pydantic", "lark", "archdsl.compiler", "importlib.metadata")


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["check", "mnv4_conv_m"], NEVER),
        (["cost", "mnv4_conv_m"], NEVER),
        (["cost", "mnv4_conv_m", "--device", "pixel6", "--json"], NEVER),
        (["sweep", "mnv2", "--steps", "2", "--json"], ("torch", "networkx", "matplotlib")),
        (["fmt", "--check", str(GOLDEN / "tiny.arch")], NEVER),
        (["--version"], LIGHT),
        (["--help"], LIGHT),
        (["check", "--help"], LIGHT),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_cold_start_imports_little(words: list[str], absent: tuple[str, ...]) -> None:
    """What is not imported takes no time: `check` answers before a person notices."""
    script = (
        "import sys\n"
        "from archdsl.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as done:\n    assert not done.code, done.code\n"
        f"print([name for name in {absent!r} if name in sys.modules], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


# -- shells --------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_completion_script(tmp_path: Path) -> None:
    runner = tmp_path / "archdsl"
    runner.write_text(f'#!/bin/sh\nexec {shlex.join(ARCHDSL)} "$@"\n')
    runner.chmod(0o755)
    lines = (
        'eval "$(archdsl completion bash)"',
        "COMP_WORDS=(archdsl show mnv4_conv_) COMP_CWORD=2",
        "_archdsl_completion archdsl",
        "echo ${COMPREPLY[@]}",
    )
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=60,
        check=True,
    )
    assert {"mnv4_conv_s", "mnv4_conv_m", "mnv4_conv_l"} <= set(done.stdout.split())
