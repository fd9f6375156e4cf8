"""Files from others that broke: a diagnostic, or a file that no checksum could tell is another."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
import torch

from archdsl.calibration.results import read_results
from archdsl.lang.diagnostics import ArchError
from archdsl.quantization.images import read_images
from archdsl.weights import keras
from archdsl.weights.importing import import_weights
from archdsl.weights.lively import lively

CORRUPTIONS = 300
SEED = 0


@pytest.mark.parametrize("name", foreign.READERS)
def test_random_corruptions(name: str) -> None:
    """In a process of its own, since what reads some files are libraries that may crash."""
    endings, code = foreign.broken(name, CORRUPTIONS, SEED)
    summed = foreign.READERS[name].summed
    wrong = [
        ending
        for ending in endings
        if ending.verdict not in {"refused", "the same", "another"}
        or (ending.verdict == "another" and ending.suffix in summed)
    ]
    assert not wrong
    assert (code, len(endings)) == (0, CORRUPTIONS)
    assert any(ending.verdict == "refused" for ending in endings)


def test_a_crash_is_told() -> None:
    """The child's end is looked at, not only what it printed."""
    _, code = foreign.broken("no such reader", 1, SEED)
    assert code != 0


def said(act: Callable[[], object]) -> str:
    with pytest.raises(ArchError) as caught:
        act()
    return str(caught.value)


# --------------------------------------------------------------------------------- found by them


def test_hdf5_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 goes in circles where an object of its heap is said to have no bytes."""
    data = bytearray(foreign.READERS["keras"].samples()[".h5"])
    heap = data.index(b"GCOL")
    data[heap + 2000 : heap + 2300] = bytes(300)
    path = tmp_path / "a.h5"
    path.write_bytes(data)
    monkeypatch.setattr(keras, "_PATIENCE", 4)
    assert "does not come to an end" in said(lambda: import_weights(path, foreign.net()))


def test_hdf5_that_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(foreign.READERS["keras"].samples()[".h5"])

    def crashed(*_: object, **__: object) -> Any:
        return subprocess.CompletedProcess([], -11)

    monkeypatch.setattr(keras.subprocess, "run", crashed)
    assert "crashes on it (signal 11)" in said(lambda: import_weights(path, foreign.net()))


@pytest.mark.parametrize("summed", [True, False])
def test_checksums_of_pytorch(summed: bool, tmp_path: Path) -> None:
    """PyTorch loads numbers that their checksum contradicts; it can be told to write none."""
    path = tmp_path / "a.pth"
    state = {key: torch.tensor(value) for key, value in lively(foreign.net()).items()}
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(summed)
    try:
        torch.save(state, path)
    finally:
        torch.serialization.set_crc32_options(before)
    import_weights(path, foreign.net())
    found = bytearray(path.read_bytes())
    # One bit of one number.
    found[found.index(state["stem.0.conv.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(found)
    if summed:
        assert "Bad CRC-32" in said(lambda: import_weights(path, foreign.net()))
    else:
        import_weights(path, foreign.net())


def test_checksums_of_packed_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.ones((2, 8, 8, 3), np.float32))
    with zipfile.ZipFile(path) as archive:
        stated = archive.getinfo("images.npy").CRC.to_bytes(4, "little")
    data = path.read_bytes()
    path.write_bytes(data.replace(stated, bytes(4)))
    assert "Bad CRC-32" in said(lambda: read_images(path, foreign.net()))


def test_a_name_of_an_array_that_broke(tmp_path: Path) -> None:
    """Labels under another name would be no labels."""
    path, file = tmp_path / "a.npz", io.BytesIO()
    np.savez(file, images=np.ones((2, 8, 8, 3), np.float32), labels=np.array([0, 1]))
    data = file.getvalue()
    place = data.rindex(b"labels.npy")
    path.write_bytes(data[:place] + b"Labels.npy" + data[place + 10 :])
    assert "is a broken .npz file" in said(lambda: read_images(path, foreign.net()))


def test_places_before_a_file(tmp_path: Path) -> None:
    """A broken table of contents leads the disk to negative places: no fault of the disk's."""
    path, file = tmp_path / "a.npz", io.BytesIO()
    np.savez(file, images=np.ones((2, 8, 8, 3), np.float32))
    data = bytearray(file.getvalue())
    end = data.rindex(b"PK\5\6")
    # The table is said to begin later than it does, so all else lies earlier.
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    data[end + 16 : end + 20] = (start + 40).to_bytes(4, "little")
    path.write_bytes(data)
    assert "is a broken .npz file" in said(lambda: read_images(path, foreign.net()))


@pytest.mark.parametrize("fields", ["p5=801g0 median=815 p95=833", "median=815 p95=8..3"])
def test_a_percentile_that_is_no_number(fields: str, tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    data = foreign.READERS["results"].samples()[".log"]
    path.write_bytes(data.replace(b"p5=8010 median=8150 p95=8330", fields.encode()))
    (found,) = read_results(path, dtype="int8").measurements
    assert found.us == 815


def test_the_table_is_of_all_readers() -> None:
    lines = foreign.markdown({"arch": [foreign.Ending(".arch", 0, "refused")]}).splitlines()
    assert lines[-1] == "| arch | 1 | 1 | 0 | 0 |"
    assert json.loads(json.dumps(foreign.Ending(".arch", 0, "refused"))) == [".arch", 0, "refused"]


def test_the_program_breaks_what_it_is_told() -> None:
    command = [sys.executable, str(foreign.ROOT / "tests" / "foreign.py"), "timm", "3", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3


# ------------------------------------------------------------------------------------- fuzzing


def test_every_reader_is_fuzzed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(foreign.ROOT)
    from fuzz.target import TARGETS

    assert set(TARGETS) == set(foreign.READERS)


CORPUS = foreign.ROOT / "fuzz" / "corpus"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: path.name)
def test_the_corpus_is_read(path: Path) -> None:
    """Runs begin with files that are read, and so lead far into the readers."""
    assert foreign.READERS[path.parent.name].read(path)
