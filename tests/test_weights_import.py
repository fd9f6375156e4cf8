"""Checkpoints of other libraries: each tensor lands where its own network has it, or none does.

Every tensor of a peer's `state_dict` is filled with its own number, so that where each of them went
can be read off; test_torch_peers.py proves that the n-th tensor of a peer is the n-th of ours.

By hand, with files of Keras 3.15 (TensorFlow 2.21) in `.h5`, `.weights.h5` and `.keras`, random
weights and the norms' statistics those of random images: MobileNet, MobileNet (0.25, 128 pixels),
MobileNetV2, MobileNetV3Small, MobileNetV3Large, MobileNetV3Small minimalistic and EfficientNetB0
of keras.applications, imported for mnv1, mnv1, mnv2, mnv3_small, mnv3_large, mnv3_small_min and
efficientnet_b0, gave logits within 7.1e-6, 6.7e-6, 6.5e-6, 1.4e-6, 1.5e-6, 1.3e-6 and 7.8e-6 of the
largest logit (1000 classes, two images; EfficientNet on images divided by 255, the others as
Keras' own preprocessing has them).
"""

from __future__ import annotations

import json
import math
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import keras_files
import numpy as np
import pytest
import torch
from artefacts import FEW
from click.testing import CliRunner, Result
from peer_networks import TIMM_PEERS, TORCHVISION_PEERS, Peer, as_published
from safetensors.torch import save_file
from test_photos import CLASSES, NETS, PHOTOS, Trained
from test_photos import TOLERANCE as PHOTO_TOLERANCE
from test_torch_peers import enliven
from torch import nn

import archdsl
from archdsl.backend import available
from archdsl.cli.program import program
from archdsl.ir.execute import execute
from archdsl.lang.diagnostics import ArchError
from archdsl.weights.checkpoints import grouped
from archdsl.weights.importing import import_weights, imported
from archdsl.weights.initial import initialize
from archdsl.weights.keras import look_into
from archdsl.weights.layers import Tensor
from archdsl.weights.libraries import differences, library_of
from archdsl.weights.lively import lively
from archdsl.weights.order import known, ranks
from archdsl.weights.store import digest, load_weights, save_weights

DATA = Path(__file__).parent / "data"
TOLERANCE = 1e-5

SMALL = """\
arch net
input 32x32x3
classes 5
se from=input round=1 act=relu gate=hsigmoid
stem { conv_k3_s22_o8 }
stage c2 { r2_k3_e2_se0.25_o8 sep_k3_o8 }
head { pool fc }
"""
"""Repeated blocks: most layers have their like."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Two processes of tests on two cores wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def refused(act: Callable[[], object], code: str) -> str:
    """What is said, under this code and no other."""
    with pytest.raises(ArchError) as caught:
        act()
    assert {diagnostic.code for diagnostic in caught.value.diagnostics} == {code}
    return str(caught.value)


def same(found: dict[str, Any], weights: dict[str, Any]) -> None:
    """Both hold the same numbers, but for counters."""
    assert list(found) == list(weights)
    for key, value in weights.items():
        assert found[key].dtype == value.dtype
        assert key.endswith("tracked") or (found[key] == value).all(), key


def as_state(weights: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {key: torch.tensor(value) for key, value in weights.items()}


# ----------------------------------------------------------------------------- timm and torchvision

_LARGE = re.compile(r"efficientnet_(b[1-7]|lite[1-4])|_[ml]$|_l_|150d")
"""What takes long to build and to save; by hand all of them were."""

SMALLER = [
    pytest.param(peer, id=f"{peer.library}-{peer.name}-{peer.member}")
    for peer in (*TIMM_PEERS, *TORCHVISION_PEERS)
    if not _LARGE.search(peer.member) and not _LARGE.search(peer.name)
]


def numbered(network: nn.Module) -> dict[str, torch.Tensor]:
    """A state in which the n-th tensor is full of n, without memory."""
    return {
        key: torch.tensor(float(number)).expand(value.shape)
        if value.is_floating_point()
        else torch.zeros(value.shape, dtype=value.dtype)
        for number, (key, value) in enumerate(network.state_dict().items())
    }


@pytest.mark.peers
@pytest.mark.parametrize("peer", SMALLER)
def test_every_tensor_lands_where_it_belongs(peer: Peer, tmp_path: Path) -> None:
    arch = as_published(peer)
    with torch.device("meta"):
        network = peer.build()
    state = numbered(network)
    keys = list(arch.graph().state())
    assert len(keys) == len(state)
    torch.save(state, tmp_path / "a.pth")
    # As training scripts save it, and sorted, so that the order must come from the names.
    nested = {f"module.{key}": value for key, value in sorted(state.items())}
    torch.save({"epoch": 3, "state_dict": nested}, tmp_path / "b.pth")
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        found = import_weights(tmp_path / name, arch)
        for number, key in enumerate(keys):
            if not key.endswith("tracked"):
                assert (found[key] == number).all(), (name, key)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("timm", "mobilenetv2_050"),
        ("timm", "tf_mobilenetv3_small_100"),
        ("timm", "mobilenetv4_conv_small"),
        ("timm", "mobilenetv4_hybrid_medium_075"),
        ("timm", "semnasnet_050"),
        ("torchvision", "mobilenet_v2"),
        ("torchvision", "mobilenet_v3_small"),
        ("torchvision", "mnasnet0_5"),
        ("torchvision", "efficientnet_b0"),
    ],
)
def test_logits_are_those_of_the_library(library: str, name: str, tmp_path: Path) -> None:
    peers = [*TIMM_PEERS, *TORCHVISION_PEERS]
    peer = next(p for p in peers if (p.library, p.name) == (library, name))
    arch = as_published(peer)
    torch.manual_seed(3)
    theirs = peer.build()
    enliven(theirs, torch.randn(2, 3, 128, 128))
    image = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        expected = theirs(image)
    largest = float(expected.abs().max())
    assert largest > 1, "logits without life prove nothing"
    save_file(theirs.state_dict(), tmp_path / "a.safetensors")
    torch.save({"model_ema": theirs.state_dict(), "model": {}}, tmp_path / "a.pth")
    digests = set()
    for file in ("a.safetensors", "a.pth"):
        weights = import_weights(tmp_path / file, arch)
        digests.add(digest(weights))
    assert len(digests) == 1
    ours = archdsl.compile(arch, to="torch", weights=weights).load()
    with torch.inference_mode():
        found = ours(image)
    assert float((found - expected).abs().max()) <= TOLERANCE * largest


# -------------------------------------------------------------------------------- trained networks

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(package) is None, reason=package))
    for name, package in (
        ("torch", "torch"),
        ("onnx", "onnxruntime"),
        ("tflite", "ai_edge_litert"),
    )
    if name in available()
]


@pytest.mark.photos
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_trained_networks_in_every_runtime(
    net: Trained, backend: str, weights_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = weights_command("import", weights_dir / net.checkpoint, "--for", net.path, "-o", "w")
    assert result.exit_code == 0, result.stderr
    artifact = archdsl.compile(archdsl.load(net.path), to=backend, weights="w")
    session = artifact.session()
    for photo in PHOTOS:
        image = net.image(photo).numpy().transpose(0, 2, 3, 1)
        logits = session.values(session.run(session.feed(image)))["output"][0]
        assert int(logits.argmax()) in CLASSES[photo]
        expected = net.logits[photo]
        assert {index: float(logits[index]) for index in expected} == pytest.approx(
            expected, abs=PHOTO_TOLERANCE, rel=0
        )


@pytest.mark.photos
def test_a_trained_checkpoint_keeps_its_place_by_names_alone(
    weights_dir: Path, tmp_path: Path
) -> None:
    """As safetensors, where tensors are sorted by size and name."""
    for net in NETS.values():
        arch = archdsl.load(net.path)
        state = torch.load(weights_dir / net.checkpoint, weights_only=True)
        saved(state, tmp_path / "w.safetensors")
        by_order = import_weights(weights_dir / net.checkpoint, arch)
        assert digest(import_weights(tmp_path / "w.safetensors", arch)) == digest(by_order)


# The person detector: its Keras file, and the int8 file that its makers converted from it.


def crops() -> Any:
    """Photos and parts of them, 96x96 pixels from 0 to 255, as the detector takes them."""
    from PIL import Image

    found = []
    for photo in PHOTOS:
        with Image.open(DATA / "photos" / f"{photo}.png") as file:
            image = file.convert("RGB")
        for box in (None, (0, 0, 300, 300), (100, 50, 260, 210), (200, 20, 360, 180)):
            part = image if box is None else image.crop(box)
            found.append(np.asarray(part.resize((96, 96), Image.Resampling.BILINEAR), np.float32))
    return np.stack(found)


def published_int8(path: Path, images: Any) -> Any:
    """What the makers' own int8 file says: the share of `person`."""
    from ai_edge_litert.interpreter import Interpreter

    runtime = Interpreter(str(path))
    runtime.allocate_tensors()
    (taken,), (given,) = runtime.get_input_details(), runtime.get_output_details()
    found = []
    for image in images:
        runtime.set_tensor(taken["index"], image[None])
        runtime.invoke()
        found.append(runtime.get_tensor(given["index"])[0, 0])
    return np.array(found)


def shares(arch: archdsl.Arch, weights: Any, images: Any) -> Any:
    logits = execute(arch.graph(), weights, images)[arch.graph().output]
    return 1 / (1 + np.exp(logits[:, 1] - logits[:, 0]))


@pytest.mark.photos
def test_the_person_detector_is_its_makers_int8_file(
    weights_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DATA / "visual_wake_words.arch").read_text(encoding="utf-8")
    arch = archdsl.parse(text)
    path = weights_dir / "visual_wake_words.h5"
    found = imported(path, arch)
    assert found.notes == ("27 biases before norms moved into the norms' means",)
    images = crops()
    expected = published_int8(weights_dir / "visual_wake_words.tflite", images)
    ours = shares(arch, found.weights, images)
    noise = float(((ours - expected) ** 2).sum())
    sqnr = 10 * math.log10(float((ours**2).sum()) / noise)
    correlation = float(np.corrcoef(ours, expected)[0, 1])
    with capsys.disabled():
        print(f"\nvisual_wake_words: float against int8 {sqnr:.1f} dB, r = {correlation:.4f}")
    assert expected.max() - expected.min() > 0.5, "an answer that never changes proves nothing"
    assert ((ours > 0.5) == (expected > 0.5)).all()
    assert correlation > 0.995
    assert sqnr > 20
    # A line that is not the network's is seen.
    for written, wrong in (
        ("act      relu", "act relu6"),
        ("pad      same", "pad symmetric"),
        ("eps=1e-3", "eps=1e-1"),
    ):
        assert written in text
        other = archdsl.parse(text.replace(written, wrong))
        departed = shares(other, import_weights(path, other), images)
        assert float(((departed - expected) ** 2).sum()) > 2 * noise, wrong


# ------------------------------------------------------------------------------------------- Keras


def keras(arch: archdsl.Arch, weights: dict[str, Any]) -> list[keras_files.KerasLayer]:
    return list(keras_files.keras_layers(arch, weights))


@pytest.mark.parametrize("name", ["mnv1_025", "mnv2_035", "mnv3_small_050", "mnasnet_a1_035"])
def test_keras_files(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # These are sound: the process that would look into each first takes most of the time.
    monkeypatch.setattr("archdsl.weights.keras.looked_into", look_into)
    arch = archdsl.load(name)
    weights = initialize(arch.graph(), 4)
    rng = np.random.default_rng(0)
    for key, value in weights.items():
        if value.ndim == 1:
            weights[key] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    layers = keras(arch, weights)
    keras_files.write_h5(tmp_path / "three.h5", layers)
    keras_files.write_h5(tmp_path / "two.h5", layers, keras=2)
    keras_files.write_h5(tmp_path / "weights.h5", layers, keras=2, whole=False)
    keras_files.write_weights_h5(tmp_path / "three.weights.h5", layers)
    keras_files.write_keras(tmp_path / "three.keras", layers)
    for path in sorted(tmp_path.iterdir()):
        same(import_weights(path, arch), weights)


def test_keras_models_within_models_and_preprocessing(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    weights = lively(arch, pixels=FEW)
    layers = keras(arch, weights)
    path = tmp_path / "nested.h5"
    with h5py.File(path, "w") as file:
        norm = file.create_group("normalization")
        names = [f"normalization/{word}" for word in ("mean", "variance", "count")]
        for name in names:
            norm[name] = np.float32(1)
        norm.attrs["weight_names"] = names
        body = file.create_group("body")
        written = []
        for name, layer in keras_files._counted(layers[:-1]):
            for role, value in layer.tensors.items():
                body[f"{name}/{role}:0"] = value
                written.append(f"{name}/{role}:0")
        body.attrs["weight_names"] = written
        top = file.create_group("top")
        for role, value in layers[-1].tensors.items():
            top[f"top/{role}:0"] = value
        top.attrs["weight_names"] = [f"top/{role}:0" for role in layers[-1].tensors]
        file.attrs["layer_names"] = ["normalization", "body", "top"]
    found = imported(path, arch)
    same(found.weights, weights)
    assert found.notes == ("the network prepares its images itself, in its layer `normalization`",)


def test_a_classifier_that_is_a_convolution(tmp_path: Path) -> None:
    """As in Keras' MobileNet and MobileNetV3; and a linear layer where ours has a convolution."""
    arch = archdsl.load("mnv3_small_050", classes=7)
    weights = lively(arch, pixels=FEW)
    state = as_state(weights)
    head = "head.4.weight"
    assert state[head].ndim == 2
    state[head] = state[head][:, :, None, None]
    before = "head.2.conv.weight"
    state[before] = state[before][:, :, 0, 0]
    torch.save({f"net.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    same(import_weights(tmp_path / "a.pth", arch), weights)


def test_biases_before_norms(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    weights = lively(arch, pixels=FEW)
    rng = np.random.default_rng(1)
    layers = [
        layer._replace(tensors={**layer.tensors, "bias": rng.normal(size=8).astype(np.float32)})
        if layer.kind == "conv2d" and layer.tensors["kernel"].shape == (3, 3, 3, 8)
        else layer
        for layer in keras(arch, weights)
    ]
    bias = layers[0].tensors["bias"]
    keras_files.write_h5(tmp_path / "a.h5", layers)
    found = imported(tmp_path / "a.h5", arch)
    assert found.notes == ("1 biases before norms moved into the norms' means",)
    mean = "stem.0.norm.running_mean"
    assert found.weights[mean] == pytest.approx(weights[mean] - bias)
    # A text that has the bias takes it as it is.
    biased = archdsl.parse(SMALL.replace("conv_k3_s22_o8", "conv_k3_s22_o8_bias"))
    taken = imported(tmp_path / "a.h5", biased)
    assert not taken.notes
    assert (taken.weights["stem.0.conv.bias"] == bias).all()
    image = rng.normal(size=(1, 32, 32, 3))
    values = [
        execute(net.graph(), w, image)["stem.0.norm"]
        for net, w in ((arch, found.weights), (biased, taken.weights))
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5, abs=1e-5)
    # Where theirs has none and ours has one, they are not the same network.
    keras_files.write_h5(tmp_path / "b.h5", keras(arch, weights))
    said = refused(lambda: import_weights(tmp_path / "b.h5", biased), "E0805")
    assert "1 layer has another set of tensors" in said
    assert "bias weight" in said


def test_norms_without_scale_or_shift(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    weights = lively(arch, pixels=FEW)
    state = as_state(weights)
    del state["stem.0.norm.weight"], state["stem.0.norm.bias"]
    torch.save(state, tmp_path / "a.pth")
    found = imported(tmp_path / "a.pth", arch)
    assert found.notes == ("1 norms without a scale or a shift got 1 and 0",)
    assert (found.weights["stem.0.norm.weight"] == 1).all()
    assert (found.weights["stem.0.norm.bias"] == 0).all()


# ------------------------------------------------------------------------------------ the structure


def saved(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_another_network_is_shown_where_it_parts(suffix: str, tmp_path: Path) -> None:
    state = as_state(initialize(archdsl.parse(SMALL.replace("r2_k3", "r2_k5")).graph()))
    path = saved(state, tmp_path / f"a{suffix}")
    said = refused(lambda: import_weights(path, archdsl.parse(SMALL)), "E0805")
    assert "a" + suffix in said
    (row,) = [line for line in said.splitlines() if line.strip().startswith(">")]
    assert row.split() == [
        *(">", "stages.c2.0.depthwise.conv", "depthwise", "16x1x5x5"),
        *("stages.c2.0.depthwise.conv", "depthwise", "16x1x3x3"),
    ]
    counts = [line.split() for line in said.splitlines()[-5:]]
    assert counts == [
        ["layers", "checkpoint", "architecture"],
        ["convolution", "1", "1"],
        ["depthwise", "3", "3"],
        ["dense", "10", "10"],
        ["norm", "9", "9"],
    ]


def test_fewer_and_more_layers(tmp_path: Path) -> None:
    weights = as_state(initialize(archdsl.parse(SMALL).graph()))
    for text, end in ((SMALL.replace("r2_k3", "r3_k3"), False), (SMALL.replace(" fc", ""), True)):
        path = saved(weights, tmp_path / "a.pth")
        said = refused(
            lambda path=path, text=text: import_weights(path, archdsl.parse(text)), "E0805"
        )
        assert ("(ends)" in said) == end
    state = {**weights, "auxiliary.weight": torch.zeros(3, 3, 3)}
    said = refused(
        lambda: import_weights(saved(state, tmp_path / "a.pth"), archdsl.parse(SMALL)), "E0805"
    )
    assert "auxiliary" in said


def test_other_classes_are_told_the_option(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    path = saved(as_state(initialize(archdsl.parse(SMALL, classes=6).graph())), tmp_path / "a.pth")
    said = refused(lambda: import_weights(path, arch), "E0805")
    assert "its classifier has 6 classes: try --classes 6" in said
    assert import_weights(path, archdsl.parse(SMALL, classes=6))


def test_an_order_that_names_do_not_tell(tmp_path: Path) -> None:
    """Two equal blocks under names without order: a guess would pass, so none is made."""
    arch = archdsl.parse(SMALL)
    weights = lively(arch, pixels=FEW)
    names = {"stages.c2.0": "net.first", "stages.c2.1": "net.second"}
    state = {}
    for key, value in as_state(weights).items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = value
    said = refused(lambda: import_weights(saved(state, tmp_path / "a.safetensors"), arch), "E0805")
    assert "its names do not tell which of `net.first." in said
    # A .pth keeps the order, unless it was sorted.
    same(import_weights(saved(state, tmp_path / "a.pth"), arch), weights)
    shuffled = dict(sorted(state.items()))
    assert "do not tell" in refused(
        lambda: import_weights(saved(shuffled, tmp_path / "b.pth"), arch), "E0805"
    )


def test_layers_in_another_order(tmp_path: Path) -> None:
    """The same layers, as many of each shape, but the names run otherwise."""
    text = "arch n input 16x16x3 stem { conv_k3_o8 } stage a { k3_e1_o8 conv_k5_o8 }"
    other = "arch n input 16x16x3 stem { conv_k3_o8 } stage a { conv_k5_o8 k3_e1_o8 }"
    weights = as_state(initialize(archdsl.parse(other).graph()))
    path = saved(
        {f"net.{key}": value for key, value in weights.items()}, tmp_path / "a.safetensors"
    )
    said = refused(lambda: import_weights(path, archdsl.parse(text)), "E0805")
    assert "the same layers in another order" in said
    import_weights(path, archdsl.parse(other))


def test_numbers_in_names_are_numbers(tmp_path: Path) -> None:
    text = "arch n input 8x8x8 stem { conv_k3_o8 conv_r12_k3_o8 }"
    weights = lively(archdsl.parse(text), pixels=FEW)
    layers = list(dict.fromkeys(key.rpartition(".")[0] for key in weights))
    state = {}
    for key, value in as_state(weights).items():
        name, _, role = key.rpartition(".")
        state[f"{layers.index(name)}.{role}"] = value
    found = import_weights(saved(state, tmp_path / "a.safetensors"), archdsl.parse(text))
    same(found, weights)


def test_what_names_tell_of_the_order() -> None:
    def in_order(*names: str, kept: bool = False) -> bool:
        paths = [tuple(name.split(".")) for name in names]
        order = ranks(paths, kept)
        assert len(paths) == 2
        one, other = (order[path] for path in paths)
        return known(one, other) and one < other

    assert in_order("blocks.2.1", "blocks.10.0")
    assert in_order("conv2d", "conv2d_1")
    assert in_order("conv2d_9", "conv2d_10")
    assert in_order("block1a_bn", "block2a_bn")
    assert in_order("conv_stem.x", "blocks.0")
    assert in_order("features.18", "classifier.1")
    assert not in_order("conv_a", "conv_b")
    assert not in_order("conv_b", "conv_a")
    assert in_order("conv_b", "conv_a", kept=True)
    assert not in_order("1", "01")
    # Numbers that run against the file's order make it worth nothing.
    assert not in_order("b.2", "b.1", kept=True)
    assert in_order("b.1", "b.2", kept=True)


# --------------------------------------------------------------------------------- within a .pth


def test_averaged_weights_are_taken(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    averaged, last = initialize(arch.graph(), 1), initialize(arch.graph(), 2)
    state = {f"module.{key}": value for key, value in as_state(averaged).items()}
    state["n_averaged"] = torch.tensor(5)
    torch.save(
        {"model": as_state(last), "model_ema": state, "optimizer": {"state": {}}, "epoch": 90},
        tmp_path / "a.pth",
    )
    found = imported(tmp_path / "a.pth", arch)
    same(found.weights, averaged)
    assert found.notes == ("took `model_ema`, and left `model`",)


def test_halves_and_old_files(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    weights = initialize(arch.graph())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        state = {
            key: value.to(dtype) if value.is_floating_point() else value
            for key, value in as_state(weights).items()
        }
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=dtype != torch.float64)
        found = import_weights(tmp_path / "a.pth", arch)
        for key, value in state.items():
            assert (found[key] == value.float().numpy()).all()


class Explosive:
    """Pickled, it is a call of `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("new", [True, False])
def test_no_pickle_is_run(new: bool, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    torch.save({"a": Explosive(mark)}, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    said = refused(lambda: import_weights(tmp_path / "a.pth", archdsl.parse(SMALL)), "E0802")
    assert "as weights alone" in said
    assert not mark.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    said = refused(lambda: import_weights(tmp_path / "a.pth", archdsl.parse(SMALL)), "E0802")
    assert "save `model.state_dict()`" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1, 2], "no tensors by name"),
        ({"epoch": 1}, "no tensors by name"),
        ({1: torch.zeros(2)}, "no tensors by name"),
        ({"state_dict": {"model": {"net": {"module": {"ema": {"weights": {}}}}}}}, "no tensors"),
        ({"a.weight": torch.zeros(2, dtype=torch.int8)}, "is of torch.int8"),
        ({"a.weight": torch.eye(2).to_sparse()}, "torch.sparse_coo"),
        ({"a.weight": torch.zeros(2, dtype=torch.complex64)}, "is of torch.complex64"),
        ({"a.weight": torch.zeros(2, device="meta")}, "has no values: it is on the device `meta`"),
    ],
)
def test_what_is_no_state(value: object, said: str, tmp_path: Path) -> None:
    torch.save(value, tmp_path / "a.pth")
    assert said in refused(
        lambda: import_weights(tmp_path / "a.pth", archdsl.parse(SMALL)), "E0802"
    )


def test_an_archive_with_two_entries_of_a_name_is_refused(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    torch.save(as_state(initialize(arch.graph())), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data/0"))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(name, archive.read(name))
    said = refused(lambda: import_weights(tmp_path / "a.pth", arch), "E0802")
    assert "two entries of one name" in said


def test_a_huge_view_of_one_number_is_not_copied(tmp_path: Path) -> None:
    state = as_state(initialize(archdsl.parse(SMALL).graph()))
    state["head.1.weight"] = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save(state, tmp_path / "a.pth")
    said = refused(lambda: import_weights(tmp_path / "a.pth", archdsl.parse(SMALL)), "E0805")
    assert "1048576x1048576" in said


def test_not_finite(tmp_path: Path) -> None:
    weights = initialize(archdsl.parse(SMALL).graph())
    weights["head.1.bias"][0] = math.nan
    torch.save(as_state(weights), tmp_path / "a.pth")
    refused(lambda: import_weights(tmp_path / "a.pth", archdsl.parse(SMALL)), "E0803")


# ------------------------------------------------------------------------------------ hostile files


def said_of(path: Path) -> str:
    return refused(lambda: import_weights(path, archdsl.parse(SMALL)), "E0802")


def test_archives_that_unpack_to_more(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\0" * (1 << 20))
    assert "compressed" in said_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\0" * ((1 << 25) + 1))
    assert "the limit" in said_of(path) or "more than 33,554,432 bytes" in said_of(path)
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"\0" * (70 << 20))
    assert "the network's weights take" in said_of(path)


def test_broken_archives(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    path = tmp_path / "a.keras"
    keras_files.write_keras(path, keras(arch, lively(arch, pixels=FEW)))
    data = path.read_bytes()
    for cut in (10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        said_of(path)
    # An entry of another content than its checksum's.
    place = data.index(b"\x89HDF") + 5000
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert "broken zip archive" in said_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.h5", b"")
    assert "no one model.weights.h5" in said_of(path)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file that is read."""
    arch, path = archdsl.parse(SMALL), tmp_path_factory.mktemp("keras") / "a.h5"
    keras_files.write_h5(path, keras(arch, lively(arch, pixels=FEW)))
    import_weights(path, arch)
    return path.read_bytes()


@pytest.fixture
def h5(tmp_path: Path, sound: bytes) -> Path:
    path = tmp_path / "a.h5"
    path.write_bytes(sound)
    return path


KERNEL = "model_weights/conv2d/conv2d/kernel"


def _external_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("other.h5", "/x")


def _soft_link(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/model_weights/conv2d_1/conv2d_1/kernel")


def _external_data(file: h5py.File) -> None:
    del file[KERNEL]
    place = [("/etc/passwd", 0, 3 * 3 * 3 * 8 * 4)]
    file.create_dataset(KERNEL, (3, 3, 3, 8), "f4", external=place)


def _virtual_data(file: h5py.File) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((3, 3, 3, 8), "f4")
    layout[...] = h5py.VirtualSource("other.h5", "x", (3, 3, 3, 8))
    file.create_virtual_dataset(KERNEL, layout)


def _filter(file: h5py.File) -> None:
    del file[KERNEL]
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((3, 3, 3, 8))
    creation.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    space = h5py.h5s.create_simple((3, 3, 3, 8))
    group = file["model_weights/conv2d/conv2d"]
    h5py.h5d.create(group.id, b"kernel", h5py.h5t.IEEE_F32LE, space, creation)


def _cycle(file: h5py.File) -> None:
    file["model_weights/conv2d/again"] = file["model_weights"]


def _integers(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = np.zeros((3, 3, 3, 8), np.int32)


def _missing(file: h5py.File) -> None:
    del file[KERNEL]


def _missing_layer(file: h5py.File) -> None:
    del file["model_weights/conv2d"]


def _empty(file: h5py.File) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.Empty("f4")


def _type(file: h5py.File) -> None:
    file["model_weights/conv2d/type"] = np.dtype("f4")


def _names(file: h5py.File) -> None:
    file["model_weights"].attrs["layer_names"] = np.zeros((2, 2))


def _no_names(file: h5py.File) -> None:
    del file["model_weights"].attrs["layer_names"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_external_link, "is a link to another place or file"),
        (_soft_link, "is a link to another place or file"),
        (_external_data, "keeps its numbers in other files"),
        (_virtual_data, "keeps its numbers in other files"),
        (_filter, "a filter that is not HDF5's own"),
        (_cycle, "groups lie more than 32 deep"),
        (_integers, "is of int32, not floating"),
        (_missing, "the tensor `conv2d/kernel` is missing"),
        (_missing_layer, "the layer `conv2d` is missing"),
        (_empty, "is empty"),
        (_type, "neither a group nor a tensor"),
        (_names, "no list of names"),
        (_no_names, "has no place in a Keras file"),
    ],
)
def test_hostile_hdf5(h5: Path, change: Callable[[h5py.File], None], said: str) -> None:
    (h5.parent / "other.h5").write_bytes(b"")
    with h5py.File(h5, "r+") as file:
        change(file)
    assert said in said_of(h5)


def test_a_compressed_dataset_is_read(h5: Path) -> None:
    arch = archdsl.parse(SMALL)
    before = digest(import_weights(h5, arch))
    with h5py.File(h5, "r+") as file:
        values = file[KERNEL][()]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=values, compression="gzip", shuffle=True)
    assert digest(import_weights(h5, arch)) == before


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for data in (b"", b"PK", b"\x80\x04.", b"arch net\n", b"PK\x03\x04" + b"\0" * 40):
        path.write_bytes(data)
        said_of(path)


# ----------------------------------------------------------- what no checkpoint says of its network


@pytest.mark.peers
@pytest.mark.parametrize("peer", SMALLER)
def test_a_library_is_told_by_its_names(peer: Peer) -> None:
    """A right text is never warned of; a wrong one is, where the names can tell."""
    with torch.device("meta"):
        layers = grouped(
            {k: Tensor(tuple(v.shape), lambda: 0) for k, v in peer.build().state_dict().items()}
        )
    library = library_of(layers)
    assert library is not None
    assert peer.library in library.name
    arch = as_published(peer)
    warnings, notes = differences("x", peer.name, arch.attributes, library)
    assert warnings == []
    assert len(notes) == (len(library.settings) > 1)
    other = arch.attributes.model_copy(
        update={"pad": {"same": "symmetric"}.get(arch.attributes.pad, "same")}
    )
    warnings, notes = differences("x", peer.name, other, library)
    assert all(warning.code == "W0801" for warning in warnings)
    # timm's MobileNetV3 and EfficientNet alone have both.
    doubtful = re.match(
        r"(tf_)?(mobilenetv3|efficientnet|mnasnet|semnasnet|mobilenet_edgetpu)", peer.name
    )
    assert bool(warnings) or (peer.library == "timm" and bool(doubtful) and bool(notes))


@pytest.mark.peers
def test_a_checkpoint_of_another_padding_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    peer = next(peer for peer in TORCHVISION_PEERS if peer.name == "mobilenet_v2")
    torch.save(peer.build().state_dict(), "v2.pth")
    result = weights_command("import", "v2.pth", "--for", "mnv2")
    assert result.exit_code == 0
    assert "warning[W0801]: `v2.pth` has the names of torchvision's MobileNetV2" in result.stderr
    assert "`mnv2`: `pad same` and `eps=1e-3`" in result.stderr
    assert "docs/differences.md" in result.stderr
    record = json.loads(weights_command("import", "v2.pth", "--for", "mnv2", "--json").stdout)
    assert [warning["code"] for warning in record["warnings"]] == ["W0801"]
    right = weights_command("import", "v2.pth", "--for", DATA / "mobilenet_v2_torchvision.arch")
    assert "W0801" not in right.stderr
    assert "note" not in right.stderr


def test_names_of_no_library_get_a_note(tmp_path: Path) -> None:
    arch = archdsl.parse(SMALL)
    state = as_state(lively(arch, pixels=FEW))
    torch.save({f"encoder.{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    found = imported(tmp_path / "a.pth", arch)
    assert found.warnings == ()
    (note,) = found.notes
    assert note.startswith("`net` has `pad same` and `eps=1e-3`: whether the checkpoint's")
    # Our own names are of a network that the text made.
    for prefix in ("", "module."):
        torch.save({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "b.pth")
        assert imported(tmp_path / "b.pth", arch)[1:] == ((), ())


@pytest.mark.peers
def test_the_example_of_the_help_is_a_right_pair() -> None:
    text = weights_command("import", "--help").stdout
    name, member = re.findall(r"import (\w+)\.safetensors --for (\w+)", text)[0]
    peer = next(p for p in TIMM_PEERS if p.name == name)
    assert (peer.member, tuple(peer.changes)) == (member, ())
    attributes = archdsl.load(member).attributes
    assert (peer.settings.pad, peer.settings.eps) == (attributes.pad, attributes.norm.eps)


def test_weights_that_are_not_finite_name_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = archdsl.parse(SMALL)
    state = as_state(lively(arch, pixels=FEW))
    state["stem.0.conv.weight"][0, 0, 0, 0] = math.nan
    torch.save(state, "diverged.pth")
    said = refused(lambda: import_weights("diverged.pth", arch), "E0803")
    assert "`diverged.pth` holds values that are infinite or not numbers" in said
    assert "`stem.0.conv.weight`" in said


# ----------------------------------------------------------------------------------- the command


def weights_command(*words: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "", "FORCE_COLOR": ""})
    return runner.invoke(program, ["weights", *map(str, words)], prog_name="archdsl")


def test_import_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.arch").write_text(SMALL)
    arch = archdsl.parse(SMALL, classes=9)
    weights = lively(arch, pixels=FEW)
    torch.save({"ema": as_state(weights), "model": as_state(weights)}, "c.pth")
    words = ("import", "c.pth", "--for", "net.arch", "--classes", 9)
    result = weights_command(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[0] == "note: took `ema`, and left `model`"
    assert result.stderr.splitlines()[1].startswith("net.safetensors: 64 tensors for net, ")
    assert digest(load_weights("net.safetensors", arch.graph())) == digest(weights)
    record = json.loads(weights_command(*words, "--json", "-o", "o.safetensors").stdout)
    assert record["weights_sha256"] == digest(weights)
    assert record["notes"] == ["took `ema`, and left `model`"]
    for place in ("c.pth", "net.arch"):
        result = weights_command(*words, "-o", place)
        assert result.exit_code == 2
        assert "would replace" in result.stderr
    result = weights_command("import", "c.pth", "--for", "net.arch", "-o", "none.safetensors")
    assert result.exit_code == 1
    assert "--classes 9" in result.stderr
    assert not Path("none.safetensors").exists()
    assert weights_command("import", "none.pth", "--for", "net.arch").exit_code == 2
    save_weights("own.safetensors", weights)
    assert weights_command("import", "own.safetensors", *words[2:], "-o", "p").exit_code == 0


@pytest.mark.parametrize(
    ("package", "file", "line"),
    [("torch", "c.pth", "archdsl[torch]"), ("h5py", "c.h5", "archdsl[keras]")],
)
def test_a_missing_package_names_its_install_line(
    package: str, file: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arch = archdsl.parse(SMALL)
    Path("net.arch").write_text(SMALL)
    torch.save(as_state(initialize(arch.graph())), "c.pth")
    keras_files.write_h5(Path("c.h5"), keras(arch, initialize(arch.graph())))
    monkeypatch.setitem(sys.modules, package, None)
    result = weights_command("import", file, "--for", "net.arch")
    assert result.exit_code == 2
    assert f'pip install "{line}"' in result.stderr
