"""Runs the tests on a copy of the repository with one fault in it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .table import AREAS, Mutant

_INSIDE = ("grammars", "architectures", "backends")
"""Folders that are installed inside the package."""

_LEFT_OUT = (".git", ".venv", ".cache", ".hypothesis", "__pycache__", "*.egg-info", ".*_cache")

_NO_SHRINKING = """
from hypothesis import Phase, settings

settings.register_profile("faults", phases=[Phase.explicit, Phase.generate])
settings.load_profile("faults")
"""
"""That a test fails is all that is asked: the smallest example takes minutes to find."""

_PATIENCE = 3600
"""Seconds after which tests are taken to hang, which is a fault found."""


class Outcome(NamedTuple):
    """What became of a mutant: the test that found it, or "" where none did."""

    mutant: Mutant
    killer: str
    seconds: float

    def __str__(self) -> str:
        found = self.killer or "SURVIVED"
        return f"{self.mutant.area}: {self.mutant.name}: {found} ({self.seconds:.1f} s)"


class Copy:
    """A copy of a repository whose package is imported in place of the installed one."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __enter__(self) -> Copy:
        self._folder = tempfile.TemporaryDirectory(prefix="mutants-")
        self.path = Path(self._folder.name) / "archdsl"
        ignore = shutil.ignore_patterns(*_LEFT_OUT)
        shutil.copytree(self._root, self.path, ignore=ignore, symlinks=True)
        for name in _INSIDE:
            (self.path / "archdsl" / name).symlink_to(self.path / name)
        with (self.path / "tests" / "conftest.py").open("a", encoding="utf-8") as conftest:
            conftest.write(_NO_SHRINKING)
        code = "import archdsl, archdsl.backends as b; print(archdsl.__file__, b.__file__)"
        found = self._python("-c", code).stdout.split()
        if not found or not all(Path(file).is_relative_to(self.path) for file in found):
            raise RuntimeError(f"the copy in {self.path} is not what is imported: {found}")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def write(self, file: str, text: str) -> None:
        path = self.path / file
        path.write_text(text, encoding="utf-8")
        if path.suffix == ".py":
            # Bytecode is told to be old by seconds and size, and a fault may change neither.
            Path(importlib.util.cache_from_source(path)).unlink(missing_ok=True)

    def first_failure(self, files: Sequence[str]) -> str:
        """The first test that fails in these files of tests, in this order; "" if all pass."""
        try:
            done = self._pytest("-x", *files)
        except subprocess.TimeoutExpired:
            return "(the tests hang)"
        if done.returncode == 0:
            return ""
        return next(iter(_failed(done.stdout)), f"(pytest ends with {done.returncode})")

    def failing(self, tests: Iterable[str]) -> list[str]:
        """Those of some tests that fail; hangs and crashes have no test and are left out."""
        chosen = [test for test in tests if not test.startswith("(")]
        return _failed(self._pytest(*chosen).stdout) if chosen else []

    def _pytest(self, *words: str) -> subprocess.CompletedProcess[str]:
        options = ["-q", "-p", "no:cacheprovider", "--tb=no", "--color=no", "-o", "addopts="]
        return self._python("-m", "pytest", *options, "-rfE", *words)

    def _python(self, *words: str) -> subprocess.CompletedProcess[str]:
        cache = os.environ.get("ARCHDSL_TEST_CACHE") or self._root / ".cache" / "weights"
        own = {"PYTHONPATH": str(self.path), "ARCHDSL_TEST_CACHE": str(cache)}
        return subprocess.run(
            [sys.executable, *words],
            cwd=self.path,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )


def _failed(output: str) -> list[str]:
    return re.findall(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output, re.M)


def mutated(text: str, mutant: Mutant) -> str:
    """A file's text with a fault.

    Raises:
        ValueError: the mutant's old text does not stand in it exactly once.
    """
    count = text.count(mutant.old)
    if count != 1:
        raise ValueError(f"{mutant.name}: its old text stands {count} times in {mutant.file}")
    return text.replace(mutant.old, mutant.new)


def run(copy: Copy, mutant: Mutant, *, rest: bool = True) -> Outcome:
    """Run the tests on a copy with a fault: those of its area, then (with `rest`) all others.

    Raises:
        ValueError: the mutant's old text does not stand in its file exactly once.
    """
    text = (copy.path / mutant.file).read_text(encoding="utf-8")
    started = time.monotonic()
    copy.write(mutant.file, mutated(text, mutant))
    try:
        first = [f"tests/{name}" for name in AREAS[mutant.area]]
        killer = copy.first_failure(first)
        if not killer and rest:
            # Not the tests of the mutants themselves, which look for the old texts.
            others = sorted((copy.path / "tests").glob("test_*.py"))
            names = [f"tests/{path.name}" for path in others if path.stem != "test_mutants"]
            killer = copy.first_failure([name for name in names if name not in first])
    finally:
        copy.write(mutant.file, text)
    return Outcome(mutant, killer, time.monotonic() - started)


def markdown(outcomes: Iterable[Outcome]) -> str:
    """The table of the documents."""
    rows = ["| area | fault | found by | seconds |", "| --- | --- | --- | ---: |"]
    for mutant, killer, seconds in outcomes:
        found = f"`{killer.removeprefix('tests/')}`" if killer else "**nothing**"
        rows.append(f"| {mutant.area} | {mutant.name} | {found} | {seconds:.0f} |")
    return "\n".join(rows) + "\n"
