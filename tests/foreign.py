"""Files from others: what reads them, samples, and files that broke at random.

`test_foreign_files.py` breaks the samples of each reader 300 times; `python -m fuzz` starts from
them. `python tests/foreign.py [COUNT]` prints the table of what became of them, and
`python tests/foreign.py READER COUNT SEED` a line for each file.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import archdsl
from archdsl import dialects
from archdsl.calibration.results import read_results
from archdsl.dialects import read_json, read_mnasnet, read_ofa, read_timm
from archdsl.files import decode_source
from archdsl.lang.diagnostics import ArchError
from archdsl.lang.formatter import format_source
from archdsl.lang.source import SourceText
from archdsl.quantization.images import read_images
from archdsl.roofline.accuracies import read_accuracies
from archdsl.roofline.profiles import load_devices
from archdsl.weights import keras
from archdsl.weights.archives import Unreadable
from archdsl.weights.importing import import_weights
from archdsl.weights.lively import lively
from archdsl.weights.store import digest, load_weights
from archdsl.weights.tensors import to_safetensors

ROOT = Path(__file__).parent.parent

NET = """\
arch net
input 8x8x3
se from=input round=1 act=relu gate=hsigmoid
classes 4
stem { conv_k3_s22_o8 }
stage c2 { r2_k3_e2_se0.25_o8 sep_k3_o8 }
head { pool fc }
"""


class Reader(NamedTuple):
    """A reader of files from others.

    `samples` are sound files by the ending of their names. `read` gives, of a file's path, what
    two files that hold the same are told by; it may raise ArchError. `summed` are the endings of
    files that hold checksums of their numbers: no broken one may be read as other numbers.
    """

    read: Callable[[Path], object]
    samples: Callable[[], dict[str, bytes]]
    summed: frozenset[str] = frozenset()


@cache
def net() -> archdsl.Arch:
    return archdsl.parse(NET)


def _weights() -> dict[str, Any]:
    return dict(lively(net()))


# -------------------------------------------------------------------------------------- readers


def _source(path: Path) -> SourceText:
    return decode_source(path.name, path.read_bytes())


def _arch(path: Path) -> object:
    """Parsed, printed and parsed again, formatted twice: all must be said of one network."""
    source = _source(path)
    found = archdsl.check(source)
    formatted = None
    try:
        formatted = format_source(source)
    except ArchError:
        assert found, "a text without faults is not formatted"
    if formatted is not None:
        assert format_source(SourceText("again", formatted)) == formatted
    arch = archdsl.parse(source)
    printed = dialects.write(arch, "arch").text
    assert archdsl.parse(printed).spec == arch.spec
    return printed


def _dialect(read: Callable[[SourceText], SourceText]) -> Callable[[Path], object]:
    return lambda path: read(_source(path)).text


def _safetensors(path: Path) -> object:
    return digest(load_weights(path, net().graph()))


def _forked(path: str | os.PathLike[str], count: int) -> None:
    """As `keras.looked_into`, in a process that costs less where there are no threads."""
    child = os.fork()
    if child == 0:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(10)
        with contextlib.suppress(Exception):
            keras.look_into(os.fspath(path), count)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise Unreadable(f"signal {os.WTERMSIG(status)}")


def forking() -> None:
    """Fork where a file is looked into first: a process to each is dear where there are many."""
    keras.looked_into = _forked


def _checkpoint(path: Path) -> object:
    return digest(import_weights(path, net()))


def _npz(path: Path) -> object:
    found = read_images(path, net())
    labels = b"" if found.labels is None else found.labels.tobytes()
    return sha256(found.images.tobytes() + labels).hexdigest()


def _photo(path: Path) -> object:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).write_bytes(path.read_bytes())
        return sha256(read_images(folder, net(), "inception").images.tobytes()).hexdigest()


# -------------------------------------------------------------------------------------- samples


def _texts(**samples: Any) -> Callable[[], dict[str, bytes]]:
    """Samples that are texts; the last `_` of a name is the dot before its ending."""
    return lambda: {
        "." + name.replace("_", "."): (
            what if isinstance(what, str) else json.dumps(what, indent=1)
        ).encode()
        for name, what in samples.items()
    }


def _safetensors_samples() -> dict[str, bytes]:
    return {".safetensors": to_safetensors(_weights())}


def _saved_by_torch() -> dict[str, bytes]:
    import torch

    state = {key: torch.tensor(value) for key, value in _weights().items()}
    found = {}
    for suffix, new in ((".pth", True), (".old.pth", False)):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        found[suffix] = file.getvalue()
    return found


def _saved_by_keras() -> dict[str, bytes]:
    import keras_files

    layers = list(keras_files.keras_layers(net(), _weights()))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        for suffix, write in (
            (".h5", keras_files.write_h5),
            (".weights.h5", keras_files.write_weights_h5),
            (".keras", keras_files.write_keras),
        ):
            write(path, layers)  # type: ignore[operator]
            found[suffix] = path.read_bytes()
    return found


def _npz_samples() -> dict[str, bytes]:
    chance = np.random.default_rng(0)
    images = chance.normal(size=(2, *net().input)).astype(np.float32)
    found = {}
    for suffix, save in ((".npz", np.savez), (".packed.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, images=images, labels=np.array([1, 3]))
        found[suffix] = file.getvalue()
    return found


def _photo_samples() -> dict[str, bytes]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    found = {}
    for suffix in (".png", ".jpg", ".bmp", ".webp"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, {".jpg": "JPEG"}.get(suffix, suffix[1:]))
        found[suffix] = file.getvalue()
    return found


def _json_sample() -> dict[str, bytes]:
    return {".json": dialects.write(net(), "json").text.encode()}


def _ofa_sample() -> dict[str, bytes]:
    text = (ROOT / "architectures" / "mnv2.arch").read_text(encoding="utf-8")
    arch = archdsl.parse(re.sub(r"\bpad +same", "pad symmetric", text))
    return {".json": dialects.write(arch, "ofa").text.encode()}


def _profile_samples() -> dict[str, bytes]:
    folder = ROOT / "archdsl" / "roofline" / "devices"
    return {f".{path.stem}.toml": path.read_bytes() for path in sorted(folder.glob("*.toml"))[:2]}


RESULTS = {
    "format": "archdsl-results",
    "runtime": "onnxruntime",
    "dtype": "int8",
    "networks": [
        {"name": "mnv2", "us": 8933.0, "spread": 0.01, "runs": 40, "macs": 300774272},
        {"name": "net", "us": 12.5, "arch": NET},
    ],
}
LOG = """\
INFO: Graph: [/data/local/tmp/mnv2_int8.tflite]
INFO: count=122 first=8100 curr=8110 min=8000 max=9000 avg=8200 std=90 p5=8010 median=8150 p95=8330
INFO: Inference timings in us: Init: 5579, First inference: 9000, Warmup (avg): 8200, \
Inference (avg): 8200.5
"""

READERS: dict[str, Reader] = {
    "arch": Reader(_arch, _texts(arch=NET)),
    "json": Reader(_dialect(read_json), _json_sample),
    "timm": Reader(
        _dialect(read_timm),
        _texts(txt="[['ds_r1_k3_s1_c16'], ['ir_r2_k3_s2_e6_c24_se0.25'], ['cn_r1_k1_s1_c96']]\n"),
    ),
    "mnasnet": Reader(
        _dialect(read_mnasnet),
        _texts(txt="['r1_k3_s11_e1_i32_o16_noskip', 'r2_k3_s22_e6_i16_o24_se0.25']\n"),
    ),
    "ofa": Reader(_dialect(read_ofa), _ofa_sample),
    "profile": Reader(lambda path: repr(load_devices(path)), _profile_samples),
    "results": Reader(
        lambda path: repr(read_results(path, dtype="int8").measurements),
        _texts(json=RESULTS, log=LOG, csv="network,top1,ms\nmnv2,71.8,9.8\n"),
    ),
    "accuracies": Reader(
        lambda path: repr(read_accuracies(path)),
        _texts(
            csv="name,state,accuracy\na_1,complete,0.5\n", jsonl='{"name":"a","accuracy":0.5}\n'
        ),
    ),
    "safetensors": Reader(_safetensors, _safetensors_samples),
    "pytorch": Reader(_checkpoint, _saved_by_torch, frozenset({".pth"})),
    "keras": Reader(_checkpoint, _saved_by_keras, frozenset({".keras"})),
    "npz": Reader(_npz, _npz_samples, frozenset({".npz", ".packed.npz"})),
    "photo": Reader(_photo, _photo_samples, frozenset({".png"})),
}


# ---------------------------------------------------------------------------------- corruptions


def corrupted(data: bytes, chance: random.Random) -> bytes:
    """A file that broke: bits, bytes, numbers and lengths, cuts and splices."""
    found = bytearray(data)
    size = len(found)
    match chance.randrange(7):
        case 0:
            for _ in range(chance.choice((1, 1, 2, 8))):
                found[chance.randrange(size)] ^= 1 << chance.randrange(8)
        case 1:
            for _ in range(chance.choice((1, 4, 16))):
                found[chance.randrange(size)] = chance.choice((0, 1, 127, 128, 255))
        case 2:
            del found[chance.randrange(size) :]
        case 3:
            place = chance.randrange(size)
            found[place:place] = chance.randbytes(chance.randrange(1, 64))
        case 4:
            # a part of it in another place
            start, place = chance.randrange(size), chance.randrange(size)
            part = found[start : start + chance.randrange(1, 256)]
            found[place : place + chance.choice((0, len(part)))] = part
        case 5:
            # a length, a place, a size
            width = chance.choice((2, 4, 8))
            value = chance.choice((0, 1, 255, 1 << 15, (1 << 31) - 1, 1 << 31, 1 << 40, -1))
            place = chance.randrange(max(1, size - width))
            code = (value % (1 << (8 * width))).to_bytes(width, chance.choice(("little", "big")))
            found[place : place + width] = code
        case _:
            # a number that is written as digits, or else the file's head
            numbers = list(re.finditer(rb"[0-9]+", data))
            if numbers:
                number = chance.choice(numbers)
                other = chance.choice((b"0", b"-1", b"9" * 30, b"1e400", b"nan", b"1.5"))
                found[number.start() : number.end()] = other
            else:
                found[: chance.randrange(1, 16)] = b""
    return bytes(found)


class Ending(NamedTuple):
    """What became of a broken file: `refused`, `the same`, `another`, or else what went wrong."""

    suffix: str
    number: int
    verdict: str


def endings(name: str, count: int, seed: int) -> Iterator[Ending]:
    """Break a reader's samples `count` times in all; each file may take 20 seconds."""
    reader = READERS[name]

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    samples = reader.samples()
    with tempfile.TemporaryDirectory() as folder:
        for index, (suffix, data) in enumerate(samples.items()):
            chance = random.Random(f"{seed} {suffix}")
            path = Path(folder) / f"a{suffix}"
            path.write_bytes(data)
            sound = reader.read(path)
            for number in range(index, count, len(samples)):
                path.write_bytes(corrupted(data, chance))
                signal.setitimer(signal.ITIMER_REAL, 20)
                try:
                    verdict = "the same" if reader.read(path) == sound else "another"
                except ArchError as error:
                    verdict = "refused" if error.diagnostics and str(error) else "nothing is said"
                except BaseException as error:
                    verdict = f"{type(error).__name__}: {error}"
                signal.setitimer(signal.ITIMER_REAL, 0)
                yield Ending(suffix, number, verdict)


def broken(name: str, count: int, seed: int) -> tuple[list[Ending], int]:
    """The `endings` in a process of their own, and how it ended: 0 where it came to its end.

    Raises:
        subprocess.TimeoutExpired: it did not in 10 minutes.
    """
    command = [sys.executable, __file__, name, str(count), str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=600)
    return [Ending(*json.loads(line)) for line in done.stdout.splitlines()], done.returncode


def markdown(found: Mapping[str, Sequence[Ending]]) -> str:
    """The table of the documents: how many files were broken, and what became of them."""
    rows = ["| reader | broken | refused | read as the same | read as another |"]
    rows.append("| --- | ---: | ---: | ---: | ---: |")
    for name, ends in found.items():
        counts = Counter(end.verdict for end in ends)
        numbers = (len(ends), counts["refused"], counts["the same"], counts["another"])
        rows.append(f"| {name} | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows) + "\n"


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more than it has."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    if len(sys.argv) < 4:
        count = int(sys.argv[1]) if len(sys.argv) == 2 else 300
        print(markdown({name: broken(name, count, 0)[0] for name in READERS}), end="")
        return
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    READERS[name].samples()  # imports what reads them
    forking()
    _limit_memory(1 << 31)
    for ending in endings(name, count, seed):
        print(json.dumps(ending), flush=True)


if __name__ == "__main__":
    main()
