"""A file is the old one or the new one, never half: kills, Ctrl-C, full disks, two writers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archdsl.files import write_whole

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")

TEXT = "arch net input 16x16x3 stem {{ conv_s2_o{} }} head {{ conv_k1_o1280 pool fc }}\n"
"""With some megabytes of weights: enough to be in the midst of them."""

WORKING = """\
import os, signal, sys
from archdsl.cli import main
os.write(2, b".")
main()
"""
"""Says when it begins to work, all being imported that can be."""


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.read(1) == b"."
    return process


def ended(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=120)
    return process.returncode


COMMANDS = {
    "onnx": ("compile {} --to onnx -o out", "out"),
    "tflite": ("compile {} --to tflite -o out", "out"),
    "weights": ("weights init {} -o out", "out"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "old.arch").write_text(TEXT.format(8))
    (tmp_path / "new.arch").write_text(TEXT.format(16))
    yield tmp_path


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name not in {"old.arch", "new.arch"}]


@posix
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "SIGINT"])
def test_a_process_that_is_ended_leaves_the_old_file_or_the_new(
    folder: Path, name: str, sent: signal.Signals
) -> None:
    words, target = COMMANDS[name]
    out = folder / target
    assert ended(started(folder, *words.format("new.arch").split())) == 0
    new = out.read_bytes()
    began = time.monotonic()
    assert ended(started(folder, *words.format("old.arch").split())) == 0
    whole = time.monotonic() - began
    old = out.read_bytes()
    assert old != new

    before, chance = 0, random.Random(name)
    for moment in (0.1, chance.uniform(0.1, 1), chance.uniform(0.1, 1)):
        out.write_bytes(old)
        process = started(folder, *words.format("new.arch").split())
        time.sleep(moment * whole)
        process.send_signal(sent)
        status = ended(process)
        found = out.read_bytes()
        assert found in (old, new), len(found)
        before += found == old
        if status == 0:
            assert found == new
        if sent == signal.SIGINT:
            # It has time to tidy up.
            assert status in (0, 130)
            assert leftovers(folder) == [target]
    assert before, "none came in time"


@posix
def test_kills_in_the_midst_of_writing(tmp_path: Path) -> None:
    """Of a file that is written for seconds, piece by piece."""
    script = (
        "import sys, time\n"
        "from archdsl.files import Content, Piece, write_whole\n"
        "def make():\n    sys.stderr.write('.')\n    sys.stderr.flush()\n    time.sleep(0.02)\n"
        "    return b'new' * 1000\n"
        "write_whole('out', Content([Piece(3000, make) for _ in range(100)]))\n"
    )
    out = tmp_path / "out"
    moments = random.Random(1)
    for _ in range(4):
        out.write_bytes(b"old")
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE
        )
        assert process.stderr is not None
        process.stderr.read(moments.randint(1, 99))
        process.kill()
        process.communicate(timeout=60)
        assert out.read_bytes() == b"old"


def test_two_processes_that_write_one_file(folder: Path) -> None:
    out = folder / "out"
    contents = set()
    for name in ("old", "new"):
        assert ended(started(folder, "weights", "init", f"{name}.arch", "-o", "out")) == 0
        contents.add(out.read_bytes())
    for _ in range(2):
        both = [
            started(folder, "weights", "init", f"{name}.arch", "-o", "out")
            for name in ("old", "new")
        ]
        assert [ended(process) for process in both] == [0, 0]
        assert out.read_bytes() in contents
        assert leftovers(folder) == ["out"]


WRITER = """\
import sys
from archdsl.files import write_whole
for round in range(40):
    write_whole("out", sys.argv[1].encode() * 300_000)
"""


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"a" * 300_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, letter], cwd=tmp_path) for letter in "ab"
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        data = out.read_bytes()
        assert len(data) == 300_000 and len(set(data)) == 1
        seen.add(data[:1])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {b"a", b"b"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.skipif(sys.platform != "linux", reason="the bound on a file's size is the system's")
@pytest.mark.parametrize("name", ["onnx", "tflite", "weights"])
def test_a_disk_that_becomes_full_leaves_the_old_file(folder: Path, name: str) -> None:
    """A file that may not grow: some of it is written before the system refuses."""
    words, target = COMMANDS[name]
    (folder / target).write_bytes(b"old")
    script = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from archdsl.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words.format("new.arch").split()],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done
    assert b"File too large" in done.stderr and b"Traceback" not in done.stderr
    assert (folder / target).read_bytes() == b"old"
    assert leftovers(folder) == [target]


def test_what_fails_between_two_writes_leaves_each_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_whole(out, b"old")
    for function in ("os.replace", "os.fsync", "os.chmod"):
        with monkeypatch.context() as patch:

            def interrupted(*_: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(function, interrupted)
            with pytest.raises(KeyboardInterrupt):
                write_whole(out, b"new")
        assert out.read_bytes() == b"old"
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
