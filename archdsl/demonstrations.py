"""What the examples of the codes give: `archdsl explain` and docs/errors.md show it.

How each example is asked stands in `archdsl.lang.codes`, in words.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from archdsl.backend import compile as emit
from archdsl.backend import refuse_unknown
from archdsl.calibration.fit import fit
from archdsl.calibration.results import results_of
from archdsl.compiler import Arch, parse
from archdsl.dialects import read, write
from archdsl.files import decode_source
from archdsl.ir.ops import Activation, BatchNorm, Conv2d, Input
from archdsl.lang.codes import NOTATIONS, Code
from archdsl.lang.diagnostics import ArchError, Diagnostic
from archdsl.lang.source import SourceText
from archdsl.library import load
from archdsl.proofs import check
from archdsl.roofline.accuracies import accuracies_of
from archdsl.roofline.extrapolation import extrapolations
from archdsl.roofline.model import Device
from archdsl.roofline.profiles import read_profiles
from archdsl.search.space import parse_space

if TYPE_CHECKING:
    from archdsl.ir.execute import Array


def given(code: Code, repaired: bool = False) -> list[Diagnostic]:
    """All that is said of a code's example, or of the repaired one.

    Raises:
        BackendError: the example needs a backend that is not installed.
    """
    text = code.repaired if repaired else code.example
    encoding = "latin-1" if code.code == "E0106" and not repaired else "utf-8"
    notation = NOTATIONS.get(code.code, "arch")
    try:
        source = decode_source(f"net.{notation}", text.encode(encoding))
        if code.code == "E1005":
            parse_space(_SPACE).encode(source)
            return []
        if code.code in _SEARCHED:
            _SEARCHED[code.code](source, SourceText("net.arch", code.repaired))
            return []
        if code.code.startswith("E10") and code.code not in _ASKED:
            parse_space(source)
            return []
        if notation == "toml":
            return _extrapolated(read_profiles(source))
        if notation == "results":
            measured = results_of(source)
            if code.code == "E0906":
                fit(measured, "board")
            return []
        source = read(source, notation)
        found = check(source, variant="140" if code.code == "E0502" else None)
        if code.code in _CONVERTED:
            found += write(parse(source), "mnasnet").warnings
        elif code.code in _ASKED and not found:
            _ask(code, source, repaired)
    except ArchError as error:
        return list(error.diagnostics)
    return found


_SPACE = "arch space input 224x224x3 stem { conv_k{3,5}_s22_o16 }"


def _another(source: SourceText, mended: SourceText) -> None:
    from archdsl.search.records import require_same
    from archdsl.search.study import digest_of

    found, kept = ({"space": digest_of(parse_space(text))} for text in (source, mended))
    require_same(kept, found, "net-search/study.journal")


def _bounded(source: SourceText, mended: SourceText) -> None:
    from archdsl.search.bounds import require_reachable
    from archdsl.search.objectives import Objectives

    require_reachable(parse_space(source), Objectives(bounds={"params": 400}))


def _searched(source: SourceText, mended: SourceText) -> None:
    from archdsl.search.objectives import Objectives
    from archdsl.search.outcomes import Failed
    from archdsl.search.study import Study

    def accuracy(network: Arch) -> float:
        if network.input != (32, 32, 3):
            raise Failed("its images have not 32x32 pixels")
        return 1.0

    Study(parse_space(source), Objectives(), evaluator=accuracy, algorithm="random").run(5)


def _journal(source: SourceText, mended: SourceText) -> None:
    from archdsl.search.storages import require_journal

    require_journal("net-search/study.journal", source.text.encode())


def _table(source: SourceText, mended: SourceText) -> None:
    accuracies_of(source)


_SEARCHED: dict[str, Callable[[SourceText, SourceText], None]] = {
    "E1006": _another,
    "E1007": _bounded,
    "E1008": _searched,
    "E1009": _journal,
    "E1011": _table,
}


def _extrapolated(devices: tuple[Device, ...]) -> list[Diagnostic]:
    arch = load("mnv1")
    times = [(device, arch.latency(device)) for device in devices]
    return [w for device, time in times for w in extrapolations(arch.name, arch.work, device, time)]


_CONVERTED = {"E0606", "W0601"}


def _ask(code: Code, source: SourceText, repaired: bool) -> None:
    """Do with the example's network what its code is about.

    Raises:
        ArchError: what is said of it, with files by their names alone.
    """
    arch = parse(source)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _ASKED[code.code](arch, parse(code.repaired), repaired, Path(folder))
        except ArchError as error:
            prefix = os.path.join(folder, "")
            raise ArchError(
                replace(one, message=one.message.replace(prefix, "")) for one in error.diagnostics
            ) from None


Asked = Callable[[Arch, Arch, bool, Path], object]
"""Takes the network, the repaired one, whether both are the same, and a folder for files."""


def _features(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    return emit(arch, "torch", features=["c5"])


def only_convolutions(arch: Arch) -> None:
    """What a backend does that knows no other operators.

    Raises:
        ArchError: E0701 for every other operator.
    """
    refuse_unknown("convolutions", arch.graph(), {Input, Conv2d, BatchNorm, Activation})


def _operators(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    only_convolutions(arch)
    return None


def _module(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    return emit(arch, "torch")


def _other_weights(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    return _loaded(arch, _drawn(mended), folder)


def _cut_weights(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    return _loaded(arch, _drawn(mended), folder, cut=not repaired)


def _diverged_weights(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    weights = _drawn(mended)
    if not repaired:
        next(iter(weights.values())).flat[0] = float("nan")
    return _loaded(arch, weights, folder)


def _images(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    import numpy as np

    from archdsl.quantization.images import read_images

    np.savez(folder / "x.npz", images=np.zeros((8, *mended.input), np.float32))
    return read_images(folder / "x.npz", arch)


def _data(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    import numpy as np

    from archdsl.datasets import load_data

    x = np.zeros((4, 32, 32, 3), np.uint8)
    np.savez(folder / "data.npz", x=x, y=[0, 0, 1, 1])
    height, width, channels = arch.input
    return load_data(folder / "data.npz", (height, width), channels)


def _checkpoint(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    from archdsl.weights.importing import import_weights
    from archdsl.weights.store import save_weights

    weights = _drawn(mended)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    named = {
        f"{layers.index(key.rpartition('.')[0])}.{key.rpartition('.')[2]}": value
        for key, value in weights.items()
    }
    save_weights(folder / "w.safetensors", named)
    return import_weights(folder / "w.safetensors", arch)


def _settings(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    from archdsl.weights.importing import imported
    from archdsl.weights.store import save_weights

    parts = ("0.0", "0.1", "1.0", "1.1", "2", "3")
    names = ("0.0", "0.1", *(f"1.conv.{part}" for part in parts))
    weights = _drawn(mended)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    of = {layer: f"features.{name}" for layer, name in zip(layers, names, strict=True)}
    split = {key: key.rpartition(".") for key in weights}
    named = {f"{of[layer]}.{role}": weights[key] for key, (layer, _, role) in split.items()}
    save_weights(folder / "w.safetensors", named)
    raise ArchError(imported(folder / "w.safetensors", arch).warnings)


def _drawn(arch: Arch) -> dict[str, Array]:
    from archdsl.weights.initial import initialize

    return initialize(arch.graph())


def _loaded(arch: Arch, weights: dict[str, Array], folder: Path, cut: bool = False) -> object:
    from archdsl.weights.store import load_weights
    from archdsl.weights.tensors import to_safetensors

    data = to_safetensors(weights)
    path = folder / "w.safetensors"
    path.write_bytes(data[:-1] if cut else data)
    return load_weights(path, arch.graph())


def _adapted(arch: Arch, evaluator: Callable[[Arch], float]) -> object:
    from archdsl.search.netadapt import NetAdapt

    device = Device("board", peak_macs=1e9, bandwidth=1e9)
    raise ArchError(NetAdapt(arch, device, 500.0, evaluator).run().problems)


def _shrunk(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    return _adapted(arch, lambda network: 1.0)


def _evaluated(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    from archdsl.search.outcomes import Failed

    def accuracy(network: Arch) -> float:
        if network.input != mended.input:
            raise Failed(f"its images have {mended.input[0]}x{mended.input[1]} pixels")
        return 1.0

    return _adapted(arch, accuracy)


def _gone_on(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    from archdsl.search.netadapt import NetAdapt

    device = Device("board", peak_macs=1e9, bandwidth=1e9)
    for network in (mended, arch):
        run = NetAdapt(network, device, 500.0, lambda network: 1.0, max_steps=1)
        kept = run.keep(folder / "net-steps", evaluator="mine:accuracy")
        try:
            run.run()
        finally:
            kept.close()
    return None


def _refined(arch: Arch, mended: Arch, repaired: bool, folder: Path) -> object:
    from archdsl.search.refining import refined

    return refined(arch)


_ASKED: dict[str, Asked] = {
    "E0503": _features,
    "E0701": _operators,
    "E0702": _module,
    "E0801": _other_weights,
    "E0802": _cut_weights,
    "E0803": _diverged_weights,
    "E0804": _images,
    "E0805": _checkpoint,
    "E1010": _data,
    "E1013": _shrunk,
    "E1014": _evaluated,
    "E1015": _shrunk,
    "E1016": _refined,
    "E1017": _gone_on,
    "W0801": _settings,
}
