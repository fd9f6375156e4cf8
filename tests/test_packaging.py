"""What a user installs: the wheel holds every file of every package, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
# folder of the checkout -> its place in the import package
FOLDERS = {
    folder: package.replace(".", "/")
    for package, folder in CONFIG["tool"]["setuptools"]["package-dir"].items()
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel built from it."""
    checkout = tmp_path_factory.mktemp("checkout") / "archdsl"
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, checkout, ignore=unwanted)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run(
        command, cwd=checkout, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> zipfile.ZipFile:
    (path,) = dist.glob("*.whl")
    return zipfile.ZipFile(path)


def installed_names() -> set[str]:
    """Where each file of the package folders belongs in a wheel."""
    return {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_file_and_no_other(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == installed_names()


@pytest.mark.parametrize("suffix", [".lark", ".arch", ".j2", ".toml", "py.typed"])
def test_wheel_holds_data(wheel: zipfile.ZipFile, suffix: str) -> None:
    """The comparison above cannot pass for want of files to compare."""
    wanted = {name for name in installed_names() if name.endswith(suffix)}
    assert wanted
    assert wanted <= set(wheel.namelist())


def test_wheel_states_licence_and_entry_points(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    metadata = wheel.read(f"{info}/METADATA").decode("utf-8")
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert wheel.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    entry_points = wheel.read(f"{info}/entry_points.txt").decode("utf-8")
    assert "archdsl = archdsl.cli:main" in entry_points
    for name in ("onnx", "tflite", "torch"):
        backend = f"{name} = archdsl.backends.to_{name}:{name.capitalize()}Backend\n"
        assert backend in entry_points.partition("[archdsl.backends]\n")[2]


def test_sdist_holds_the_sources(dist: Path) -> None:
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        f"{folder}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources | {"LICENSE", "README.md", "pyproject.toml"} <= names
    assert not [name for name in names if name.endswith((".pth", ".whl", ".pyc"))]
