"""Real trained networks, run on real photos by the PyTorch module that archdsl emits.

The top class alone is a weak judge: most small faults of a network leave it where it was. So the
logits are held to those of the network that the weights were trained in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import archdsl

DATA = Path(__file__).parent / "data"
PHOTOS = ("coffee", "camera", "chelsea")
CLASSES = {"coffee": {967}, "camera": {872}, "chelsea": {281, 282, 285}}  # espresso, tripod, cats
TOLERANCE = 1e-3

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trained:
    """A trained network: its text, its checkpoint and how its images are prepared."""

    arch: str
    checkpoint: str
    resample: Image.Resampling
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    logits: dict[str, dict[int, float]]  # photo -> class -> logit, measured in the original

    @property
    def path(self) -> Path:
        return DATA / self.arch

    def image(self, photo: str) -> torch.Tensor:
        """The photo as a (1, 3, 224, 224) tensor: short side to 256, centre crop, normalised."""
        with Image.open(DATA / "photos" / f"{photo}.png") as file:
            image = file.convert("RGB")
        short = min(image.size)
        width, height = (int(256 * side / short) for side in image.size)
        image = image.resize((width, height), self.resample)
        left, top = round((width - 224) / 2), round((height - 224) / 2)
        pixels = np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32) / 255
        normal = (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(normal.transpose(2, 0, 1)).unsqueeze(0)


MOBILENET_V2 = Trained(
    arch="mobilenet_v2_torchvision.arch",
    checkpoint="mobilenet_v2-b0353104.pth",
    resample=Image.Resampling.BILINEAR,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    logits={  # torchvision 0.28
        "coffee": {967: 21.0802, 925: 15.6438, 968: 14.5203},
        "camera": {872: 18.0391, 447: 13.7275, 593: 12.5008},
        "chelsea": {285: 18.8495, 282: 17.2662, 281: 17.1388},
    },
)

EFFICIENTNET_LITE0 = Trained(
    arch="efficientnet_lite0.arch",
    checkpoint="efficientnet-lite0-57934424.pth",
    resample=Image.Resampling.BICUBIC,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    logits={  # tf_efficientnet_lite0 of timm 1.0.31 with this checkpoint
        "coffee": {967: 11.4122, 968: 7.2698, 925: 6.5662},
        "camera": {872: 11.2850, 593: 6.7643, 447: 6.6157},
        "chelsea": {282: 9.2356, 285: 9.1381, 281: 8.3953},
    },
)

NETS = {"mobilenet_v2": MOBILENET_V2, "efficientnet_lite0": EFFICIENTNET_LITE0}

pytestmark = pytest.mark.photos
each_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS)
each_photo = pytest.mark.parametrize("photo", PHOTOS)


def transplant(checkpoint: State, module: torch.nn.Module) -> torch.nn.Module:
    """Load a checkpoint into a module that names the same tensors otherwise, and set it to eval.

    Both list their tensors in the order of the forward pass, so the n-th of one is the n-th of the
    other. Role (`weight`, `running_mean`, ...) and shape must agree throughout.
    """

    def roles(state: State) -> list[tuple[str, tuple[int, ...]]]:
        return [(key.rpartition(".")[2], tuple(tensor.shape)) for key, tensor in state.items()]

    own = module.state_dict()
    assert roles(own) == roles(checkpoint)
    module.load_state_dict(dict(zip(own, checkpoint.values(), strict=True)))
    return module.eval()


def emit(arch: object) -> torch.nn.Module:
    """The module that archdsl's PyTorch backend writes for an architecture."""
    return archdsl.compile(arch, to="torch").load()


def logits(module: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = module(image)[0]
    assert result.shape == (1000,)
    return result


@pytest.fixture(scope="module")
def checkpoint(weights_dir: Path) -> Callable[[Trained], State]:
    """The tensors of a network's checkpoint, in the order they were saved."""
    return lambda net: torch.load(weights_dir / net.checkpoint, weights_only=True)


@pytest.fixture(scope="module")
def emitted(checkpoint: Callable[[Trained], State]) -> Callable[[Trained], torch.nn.Module]:
    """A trained network in the module that archdsl emits for its `.arch` file."""
    modules: dict[str, torch.nn.Module] = {}

    def load(net: Trained) -> torch.nn.Module:
        if net.arch not in modules:
            modules[net.arch] = transplant(checkpoint(net), emit(archdsl.load(net.path)))
        return modules[net.arch]

    return load


@each_photo
@each_net
def test_names_what_is_in_the_photo(
    net: Trained, photo: str, emitted: Callable[[Trained], torch.nn.Module]
) -> None:
    result = logits(emitted(net), net.image(photo))
    assert int(result.argmax()) in CLASSES[photo]
    expected = net.logits[photo]
    assert {index: float(result[index]) for index in expected} == pytest.approx(
        expected, abs=TOLERANCE, rel=0
    )
    assert result.topk(len(expected)).indices.tolist() == list(expected)


@pytest.mark.parametrize(
    ("name", "written", "wrong"),
    [
        ("mobilenet_v2", "pad    symmetric", "pad    same"),
        ("mobilenet_v2", "eps=1e-5", "eps=1e-3"),
        ("mobilenet_v2", "act    relu6", "act    relu"),
        ("efficientnet_lite0", "pad    same", "pad    symmetric"),
        ("efficientnet_lite0", "eps=1e-3", "eps=1e-5"),
        ("efficientnet_lite0", "i24_o40", "i24_o40_noskip"),
    ],
)
def test_a_wrong_line_shows_in_the_logits(
    name: str, written: str, wrong: str, checkpoint: Callable[[Trained], State]
) -> None:
    """The tolerance is tight enough: one wrong attribute of the file is seen."""
    net = NETS[name]
    text = net.path.read_text(encoding="utf-8")
    assert text.count(written) == 1
    arch = archdsl.parse(text.replace(written, wrong))
    result = logits(transplant(checkpoint(net), emit(arch)), net.image("coffee"))
    expected = net.logits["coffee"]
    assert max(abs(float(result[index]) - expected[index]) for index in expected) > 10 * TOLERANCE


@pytest.mark.peers
@pytest.mark.parametrize("name", NETS)
def test_every_logit_is_that_of_the_reference(
    name: str,
    timm: ModuleType,
    torchvision: ModuleType,
    checkpoint: Callable[[Trained], State],
    emitted: Callable[[Trained], torch.nn.Module],
) -> None:
    """All thousand logits, against the library that the weights were trained or ported in."""
    build: dict[str, Callable[[], torch.nn.Module]] = {
        "mobilenet_v2": torchvision.models.mobilenet_v2,
        "efficientnet_lite0": lambda: timm.create_model("tf_efficientnet_lite0"),
    }
    net = NETS[name]
    reference = transplant(checkpoint(net), build[name]())
    for photo in PHOTOS:
        image = net.image(photo)
        expected = logits(reference, image)
        assert float(expected.max()) > 1, "a reference without signal proves nothing"
        assert float((logits(emitted(net), image) - expected).abs().max()) < TOLERANCE
