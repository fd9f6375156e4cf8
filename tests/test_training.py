"""Evaluators that train, the data they learn from, and scores without training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import archdsl
from archdsl.compiler import Arch
from archdsl.datasets import Data, batches, load_data
from archdsl.search.evaluators import EvaluatorError, Failed, evaluate, resolve
from archdsl.weights.initial import initialize

SMALL = """
arch small
input 16x16x3
act {act}
norm batch eps=1e-3 momentum=0.01
stem {{ conv_k3_s22_o16 }}
stage c1 {{ k3_e3_o16 r1_k3_s22_e3_o24_se0.25 }}
head {{ conv_k1_o64 pool dropout_p0.2 fc }}
"""


def small(act: str = "relu", **overrides: Any) -> Arch:
    return archdsl.parse(SMALL.format(act=act), **overrides)


def chain(text: str, **overrides: Any) -> Arch:
    return archdsl.parse(f"arch chain {text}", **overrides)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- data -----------------------------------------------------------------------------------------


def said(*args: Any, **more: Any) -> str:
    with pytest.raises(archdsl.ArchError) as caught:
        load_data(*args, **more)
    (found,) = caught.value.diagnostics
    assert found.code == "E1010"
    return f"{found.message}; {found.help}"


def test_digits_are_standardised_and_split_by_class() -> None:
    data = load_data("digits", 16)
    assert data.input == (16, 16, 3)
    assert len(data.train) + len(data.validation) == 1797
    assert data.classes == tuple("0123456789")
    assert data.train.dtype == data.validation.dtype == np.float32
    assert data.train.mean() == pytest.approx(0, abs=1e-5)
    assert data.train.std() == pytest.approx(1, abs=1e-5)
    # Grey images, three times.
    assert (data.train[:, 0] == data.train[:, 2]).all()
    shares = np.bincount(data.validation_labels) / np.bincount(
        np.concatenate([data.train_labels, data.validation_labels])
    )
    assert np.abs(shares - 0.2).max() < 0.01
    assert repr(data) == "Data('digits', 1,438 + 359 images of 16x16x3, 10 classes)"


def test_digits_of_their_own_size_are_as_they_came() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits", 8, 1)
    pixels = {image.round(4).tobytes() for image in load_digits().images.astype(np.float32)}
    raw = load_digits().images
    scale = (data.train.max() - data.train.min()) / 16
    back = (data.train - data.train.min()) / scale
    assert {np.round(image[0], 0).astype(np.float32).tobytes() for image in back} <= pixels
    assert raw.max() == 16


def test_the_split_is_the_same_at_every_size_and_hangs_on_its_seed() -> None:
    labels = [load_data("digits", size, 1).validation_labels for size in (8, 12)]
    assert (labels[0] == labels[1]).all()
    other = load_data("digits", 8, 1, seed=1)
    assert (other.validation != load_data("digits", 8, 1).validation).any()


def test_images_are_resized_as_pillow_does() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((4, 16, 16)).astype(np.float32)
    for side in (5, 8, 40):
        data = _npz_data(x, [0, 0, 1, 1], side)
        found = np.concatenate([data.train, data.validation])[:, 0]
        wanted = np.stack(
            [
                np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR))
                for one in x
            ]
        )
        # Standardised by what is learned from: the same but for a shift and a scale.
        order = [
            int(np.argmax([np.corrcoef(f.ravel(), w.ravel())[0, 1] for w in wanted])) for f in found
        ]
        assert sorted(order) == [0, 1, 2, 3]
        learned = wanted[order[: len(data.train)]]
        assert found == pytest.approx((wanted[order] - learned.mean()) / learned.std(), abs=2e-5)


_folder = Path()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> None:
    global _folder
    _folder = tmp_path


def _npz(**arrays: Any) -> Path:
    path = _folder / f"data{len(list(_folder.iterdir()))}.npz"
    np.savez(path, **arrays)
    return path


def _npz_data(x: Any, y: Any, side: int = 8, channels: int = 1, **more: Any) -> Data:
    return load_data(_npz(x=x, y=y, **more), side, channels)


def test_images_that_are_wider_are_cut_to_their_middle() -> None:
    x = np.zeros((4, 8, 24), np.uint8)
    x[:, :, :8] = 50  # cut off
    x[:, :, 8:16] = np.arange(4)[:, None, None] * np.eye(8, dtype=np.uint8)
    data = _npz_data(x, [0, 1, 0, 1])
    # What is left of the border's 50 would be the largest value.
    assert data.train.shape[2:] == (8, 8)
    for image in np.concatenate([data.train, data.validation])[:, 0]:
        assert np.ptp(image[~np.eye(8, dtype=bool)]) == pytest.approx(0, abs=1e-6)


def test_coloured_images_become_their_luma_for_one_channel() -> None:
    x = np.zeros((4, 8, 8, 3), np.float64)
    x[0, ..., 0] = x[1, ..., 1] = x[2, ..., 2] = 1
    data = _npz_data(x, [0, 0, 1, 1], x_test=x, y_test=[0, 0, 1, 1])
    red, green, blue, black = data.validation[:, 0, 0, 0]
    share = np.array([red, green, blue]) - black
    assert share / share.sum() == pytest.approx([0.299, 0.587, 0.114], abs=1e-4)


def test_what_is_given_to_judge_by_is_taken_and_classes_have_their_names() -> None:
    x = np.random.default_rng(0).random((6, 8, 8))
    data = _npz_data(x, ["b", "a", "b", "a", "b", "a"], x_test=x[:2], y_test=["a", "b"])
    assert data.classes == ("a", "b")
    assert data.train_labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert data.validation_labels.tolist() == [0, 1]
    assert len(data.train) == 6


def test_channels_that_are_alike_everywhere_are_no_fault() -> None:
    data = _npz_data(np.full((4, 8, 8), 7, np.uint8), [0, 0, 1, 1])
    assert not data.train.any()


def test_a_changed_file_is_read_again() -> None:
    path = _npz(x=np.zeros((4, 8, 8)), y=[0, 0, 1, 1])
    assert len(load_data(path, 8).classes) == 2
    np.savez(path, x=np.zeros((6, 8, 8)), y=[0, 0, 1, 1, 2, 2])
    assert len(load_data(path, 8).classes) == 3


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": [0, 1]}, "has no array `x`; it has `y`"),
        ({"x": np.zeros((2, 8, 8))}, "has no array `y`"),
        ({"x": np.zeros((2, 8)), "y": [0, 1]}, "`x` has the shape 2x8"),
        ({"x": np.zeros((2, 3, 8, 8)), "y": [0, 1]}, "transpose these with .transpose(0, 2, 3, 1)"),
        ({"x": np.zeros((0, 8, 8)), "y": []}, "`x` has the shape 0x8x8"),
        ({"x": np.zeros((2, 8, 8), complex), "y": [0, 1]}, "elements of complex128"),
        ({"x": np.zeros((2, 8, 8)), "y": [0.5, 1]}, "`y` is 2 of float64"),
        ({"x": np.zeros((2, 8, 8)), "y": [0, 1, 2]}, "`y` is 3 of int64"),
        ({"x": np.zeros((2, 8, 8)), "y": [1, 1]}, "fewer than two classes"),
        ({"x": np.zeros((2, 8, 8)), "y": [0, 1]}, "no class has two images"),
        (
            {"x": np.full((4, 8, 8), np.nan), "y": [0, 0, 1, 1]},
            "infinite, too large or not numbers",
        ),
        (
            {"x": np.zeros((2, 8, 8)), "y": [0, 1], "x_test": np.zeros((1, 8, 8)), "y_test": [2]},
            "the class `2` of `y_test` is none of `y`",
        ),
        (
            {"x": np.zeros((2, 8, 8)), "y": [0, 1], "x_test": np.zeros((1, 8, 8))},
            "has no array `y_test`",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_arrays(arrays: dict[str, Any], message: str) -> None:
    assert message in said(_npz(**arrays), 8)


def test_more_images_than_fit_into_memory_are_refused_unread() -> None:
    shown = said(_npz(x=np.zeros((400, 1, 1), np.uint8), y=np.arange(400) % 2), 4096)
    assert "400 images are too many; the limit is 21 of this size" in shown


def test_other_channels_and_other_files_are_refused() -> None:
    assert "2 channels" in said("digits", 8, 2)
    (_folder / "text.npz").write_text("no archive")
    assert "is not a .npz file" in said(_folder / "text.npz", 8)
    with pytest.raises(FileNotFoundError):
        load_data(_folder / "nothing.npz", 8)


def _photos(root: Path, counts: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (12, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def test_a_folder_of_photos() -> None:
    _photos(_folder / "data", {"cat": 5, "dog": 5})
    data = load_data(_folder / "data", (8, 12))
    assert data.input == (8, 12, 3)
    assert data.classes == ("cat", "dog")
    assert np.bincount(data.validation_labels).tolist() == [1, 1]
    assert load_data(_folder / "data", 8, 1).input == (8, 8, 1)


def test_a_folder_with_photos_to_judge_by() -> None:
    _photos(_folder / "data" / "train", {"cat": 3, "dog": 2})
    _photos(_folder / "data" / "val", {"dog": 4})
    data = load_data(_folder / "data", 8)
    assert (len(data.train), len(data.validation)) == (5, 4)
    assert data.validation_labels.tolist() == [1] * 4


def test_what_is_wrong_with_a_folder() -> None:
    (_folder / "data").mkdir()
    assert "no folders of photos are in it" in said(_folder / "data", 8)
    _photos(_folder / "data", {"cat": 2, "dog": 2})
    (_folder / "data" / "cat" / "broken.png").write_bytes(b"\x89PNG no")
    assert "photos cannot be read; `cat/broken.png`" in said(_folder / "data", 8)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 9, 33])
@pytest.mark.parametrize("batch", [2, 3, 4, 8, 32])
def test_no_batch_has_one_image(count: int, batch: int) -> None:
    images = np.zeros((count, 1, 1, 1), np.float32)
    sizes = [len(x) for x, _ in batches(images, np.arange(count), batch, np.random.default_rng(0))]
    assert sum(sizes) == count
    assert min(sizes) >= min(2, count) and max(sizes) <= batch + (count % batch == 1)
    assert max(sizes) - min(sizes) <= 1


def test_batches_have_every_image_once() -> None:
    images = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, 1, 4, 4), np.float32
    )
    rng = np.random.default_rng(0)
    found = list(batches(images, np.arange(10), 4, rng))
    assert [len(x) for x, _ in found] == [4, 3, 3]
    order = np.concatenate([y for _, y in found])
    assert sorted(order) == list(range(10))
    assert (np.concatenate([x for x, _ in found])[:, 0, 0, 0] == order).all()
    again = np.concatenate([y for _, y in batches(images, np.arange(10), 4, rng)])
    assert (again != order).any()


def test_images_are_moved_and_mirrored() -> None:
    ramp = np.arange(8, dtype=np.float32)[None, None, None, :] + np.zeros((64, 1, 8, 1), np.float32)
    ((moved, _),) = batches(ramp, np.zeros(64), 64, np.random.default_rng(0), shift=0.25)
    steps = moved[:, 0, 0, 4] - 4
    assert set(steps) == {-2, -1, 0, 1, 2}
    assert (moved == np.clip(ramp + steps[:, None, None, None], 0, 7)).all()
    ((mirrored, _),) = batches(ramp, np.zeros(64), 64, np.random.default_rng(0), flip=True)
    flipped = mirrored[:, 0, 0, 0] == 7
    assert 16 < flipped.sum() < 48
    assert (mirrored[flipped] == ramp[flipped][..., ::-1]).all()
    assert (mirrored[~flipped] == ramp[~flipped]).all()


# -- training -------------------------------------------------------------------------------------


def digits(**settings: Any) -> Any:
    return resolve("digits", {"size": 8, "epochs": 1, **settings})


def test_the_same_again_for_a_seed_and_something_else_for_another() -> None:
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    first = evaluate(digits(), small())
    # The caller's random numbers and threads stay as they were.
    assert torch.rand(1) == drawn
    assert torch.get_num_threads() == 1
    again, other = evaluate(digits(), small()), evaluate(digits(seed=1), small())
    assert first.fault is None
    assert first.accuracy == again.accuracy
    assert first.extra["loss"] == again.extra["loss"] != other.extra["loss"]
    assert first.extra["epochs"] == 1
    assert first.extra["seconds"] > 0


def test_repeats_are_the_mean_of_trainings_under_seeds_in_turn() -> None:
    alone = [evaluate(digits(seed=seed), small()) for seed in (3, 4)]
    both = evaluate(digits(seed=3, repeats=2), small())
    first, second = (found.accuracy for found in alone)
    assert first is not None and second is not None and first != second
    assert both.accuracy == pytest.approx((first + second) / 2)
    assert both.extra["loss"] == pytest.approx(sum(one.extra["loss"] for one in alone) / 2)
    assert both.extra["deviation"] == pytest.approx(abs(first - second) / math.sqrt(2))
    assert both.extra["epochs"] == alone[0].extra["epochs"]
    assert "deviation" not in alone[0].extra


def test_a_little_network_learns_the_digits() -> None:
    found = evaluate(digits(epochs=5, lr=0.02), small())
    assert found.accuracy is not None and found.accuracy > 0.9


def test_stochastic_gradient_descent_learns_too() -> None:
    found = evaluate(digits(epochs=4, optimizer="sgd", lr=0.2), small())
    assert found.accuracy is not None and found.accuracy > 0.7


@pytest.mark.slow
def test_a_searched_network_learns_the_digits() -> None:
    tiny = archdsl.load_space(str(Path(__file__).parents[1] / "docs" / "tiny_space.arch"))
    found = evaluate(resolve("digits"), tiny.arch_of(tiny.member(0)))
    assert found.accuracy is not None and found.accuracy > 0.9


def test_networks_are_fitted_to_the_data() -> None:
    network = archdsl.load("mnv3_small", width=0.75)
    fitted = digits(size=32).fitted(network)
    assert (fitted.input, fitted.classes, fitted.output) == ((32, 32, 3), 10, (10,))
    assert fitted.attributes.width == 0.75
    assert resolve("train", {"data": "digits"}).fitted(small()).input == (16, 16, 3)  # type: ignore[attr-defined]


def test_grey_networks_train_too() -> None:
    grey = archdsl.parse(SMALL.format(act="relu").replace("16x16x3", "16x16x1"))
    assert evaluate(digits(), grey).fault is None


@pytest.mark.parametrize(
    ("arch", "fault"),
    [
        ("input 16x16x3 stem { conv_k3_o4 }", "the network gives 8x8x8 numbers, and the data"),
        ("input 16x16x3 stem { conv_k3_o4 } head { pool fc_o9 }", "gives 9 numbers, and the data"),
        ("input 16x16x2 stem { conv_k3_o4 } head { pool fc }", "takes images of 2 channels"),
    ],
)
def test_networks_that_cannot_learn_the_digits(arch: str, fault: str) -> None:
    found = evaluate(digits(), chain(arch))
    assert found.accuracy is None and fault in (found.fault or "")


def test_images_that_are_too_small_are_a_sentence() -> None:
    found = evaluate(digits(), archdsl.load("mnv2"))
    assert "the image is too small" in (found.fault or "")


def test_training_that_diverges_is_a_sentence() -> None:
    linear = "conv_k3_o8_nonorm_linear"
    arch = chain(f"input 8x8x3 stem {{ {linear} {linear} {linear} }} head {{ pool fc }}")
    found = evaluate(digits(lr=100, optimizer="sgd"), arch)
    assert found.accuracy is None and "training diverged" in (found.fault or "")


def test_going_on_from_weights() -> None:
    evaluator = digits()
    fitted = evaluator.fitted(small())
    accuracy, weights = evaluator.fine_tune(small(), None, 2)
    assert set(weights) == set(initialize(fitted.graph()))
    assert all(value.flags.c_contiguous for value in weights.values())
    # Nothing is learned in no epochs, and all is as it was.
    same, kept = evaluator.fine_tune(small(), weights, 0)
    assert same == accuracy
    learned = [key for key in weights if not key.endswith("num_batches_tracked")]
    assert all((kept[key] == weights[key]).all() for key in learned)
    better, _ = evaluator.fine_tune(small(), weights, 2)
    assert better > accuracy
    with pytest.raises(archdsl.ArchError):
        evaluator.fine_tune(small(width=2), weights, 0)


def test_norms_see_what_they_were_trained_with() -> None:
    """Running averages are the means over the images learned from."""
    evaluator = digits()
    _, weights = evaluator.fine_tune(small(), None, 1)
    data = load_data("digits", 8)
    kernel = torch.tensor(weights["stem.0.conv.weight"])
    out = torch.nn.functional.conv2d(
        torch.nn.functional.pad(torch.tensor(data.train), (0, 1, 0, 1)), kernel, stride=2
    )
    assert weights["stem.0.norm.running_mean"] == pytest.approx(
        out.mean((0, 2, 3)).numpy(), abs=0.02
    )
    assert weights["stem.0.norm.running_var"] == pytest.approx(out.var((0, 2, 3)).numpy(), rel=0.1)


def test_a_users_own_images() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = rng.normal(size=(200, 16, 16, 3)) + y[:, None, None, None]
    settings = {"data": str(_npz(x=x, y=y)), "epochs": "3", "batch": "20"}
    found = evaluate(resolve("train", settings), small())
    assert found.accuracy == 1.0


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("train", {}, EvaluatorError),
        ("train", {"data": "nowhere"}, FileNotFoundError),
        ("digits", {"device": "abacus"}, EvaluatorError),
        ("digits", {"epochs": "0"}, EvaluatorError),
        ("digits", {"lr": "nan"}, EvaluatorError),
        ("digits", {"optimizer": "adam"}, EvaluatorError),
        ("naswot", {"batch": "1"}, EvaluatorError),
        ("naswot", {"data": "nowhere"}, FileNotFoundError),
    ],
)
def test_settings_are_refused_before_anything_is_trained(
    name: str, settings: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        resolve(name, settings)


# -- SynFlow --------------------------------------------------------------------------------------


def flow(arch: Arch, **settings: Any) -> float:
    found = evaluate(resolve("synflow", settings), arch)
    assert found.accuracy is not None, found.fault
    return found.accuracy


def test_the_flow_of_two_layers_by_hand() -> None:
    """Each layer's share is the whole flow: twice the sum of |W2| |W1| x."""
    arch = chain("input 1x1x3 classes 5 stem { conv_k1_o8_nonorm } head { pool fc }")
    weights = initialize(arch.graph())
    first = np.abs(weights["stem.0.conv.weight"].astype(np.float64)).reshape(8, 3)
    second = np.abs(weights["head.1.weight"].astype(np.float64))
    whole = (second @ first @ np.ones(3)).sum()
    assert flow(arch) == pytest.approx(math.log(2 * whole), rel=1e-12)


def test_the_flow_through_a_residual_by_hand() -> None:
    """Only what goes through a layer is its share."""
    arch = chain("input 1x1x8 classes 3 stage c1 { fused_k1_e2_o8 } head { pool fc }")
    weights = initialize(arch.graph())
    kernels = {k: np.abs(v.astype(np.float64)) for k, v in weights.items() if k.endswith("weight")}
    wide = kernels["stages.c1.0.expand.conv.weight"].reshape(16, 8)
    narrow = kernels["stages.c1.0.project.conv.weight"].reshape(8, 16)
    last = kernels["head.1.weight"]
    through = (last @ narrow @ wide @ np.ones(8)).sum()
    beside = (last @ np.ones(8)).sum()
    assert flow(arch) == pytest.approx(math.log(2 * through + (through + beside)), rel=1e-12)


def test_the_flow_of_a_plain_network_is_the_references() -> None:
    """The reference: norms out of the way, absolute weights, an image of ones, |w dR/dw|."""
    arch = small().resized((16, 16, 3))
    module = archdsl.compile(arch, "torch").load().double()
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.forward = lambda x: x
        if name.endswith("se.gate"):
            # Of such large sums a sigmoid is 1.
            part.forward = torch.ones_like
    with torch.no_grad():
        for value in module.parameters():
            value.abs_()
    module(torch.ones(1, 3, 16, 16, dtype=torch.float64)).sum().backward()
    kernels = [
        part.weight
        for part in module.modules()
        if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear)) and part.weight.grad is not None
    ]
    score = sum(float((w.detach() * w.grad).abs().sum()) for w in kernels)
    assert flow(arch) == pytest.approx(math.log(score), rel=1e-9)


def test_the_flow_says_nothing_of_activations_and_norms() -> None:
    plain = flow(small())
    assert flow(small("hswish")) == flow(small("relu6")) == plain
    eps = archdsl.parse(SMALL.format(act="relu").replace("eps=1e-3", "eps=1e-5"))
    assert flow(eps) == plain
    assert flow(small(), seed=1) != plain
    assert flow(small(), size=32) == flow(small().resized((32, 32, 3)))


def test_wider_networks_have_more_flow() -> None:
    assert flow(small(width=0.5)) < flow(small()) < flow(small(width=2))


def test_attention_has_a_flow() -> None:
    arch = chain(
        "input 16x16x3 stem { conv_k3_s22_o16 } "
        "stage c1 { mqa_h2_d8_kv2_ls mha_h2_d8 } head { pool fc }"
    )
    assert math.isfinite(flow(arch))


def test_flows_beyond_a_float_are_logarithms_still() -> None:
    deep = "input 4x4x64 stage c1 {{ r{}_k3_e6_noskip }} head {{ pool fc }}"
    few, many = (flow(chain(deep.format(count))) for count in (75, 150))
    # More than float64 holds, and twice as deep is about twice the logarithm.
    assert many > math.log(2) * 1024
    assert many == pytest.approx(2 * few, rel=0.05)


# -- NASWOT ---------------------------------------------------------------------------------------


def codes(arch: Arch, **settings: Any) -> float:
    found = evaluate(resolve("naswot", {"size": 16, "batch": 32, **settings}), arch)
    assert found.accuracy is not None, found.fault
    return found.accuracy


def test_the_codes_of_a_layer_by_hand() -> None:
    arch = chain("input 16x16x3 stem { conv_k3_s22_o8 } head { pool fc }")
    data = load_data("digits", 16).train
    chosen = data[np.random.Generator(np.random.PCG64(0)).permutation(len(data))[:32]]
    padded = np.pad(chosen, ((0, 0), (0, 0), (0, 1), (0, 1)))
    kernel = initialize(arch.graph())["stem.0.conv.weight"]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))[:, :, ::2, ::2]
    out = np.einsum("ncyxij,ocij->noyx", windows.astype(np.float64), kernel.astype(np.float64))
    # Its norm's weight is 1 and its bias 0: what is above the batch's mean is positive.
    code = (out > out.mean((0, 2, 3), keepdims=True)).reshape(32, -1).astype(float)
    agree = code @ code.T + (1 - code) @ (1 - code).T
    assert (np.diag(agree) == 8 * 8 * 8).all()
    assert codes(arch) == pytest.approx(np.linalg.slogdet(agree)[1], abs=0.2)


def test_codes_hang_on_seed_and_images_and_are_the_same_again() -> None:
    assert codes(small()) == codes(small())
    assert codes(small()) != codes(small(), seed=1)
    path = _npz(x=np.random.default_rng(0).random((64, 16, 16)), y=np.arange(64) % 2)
    assert codes(small(), data=str(path)) != codes(small())


@pytest.mark.parametrize("act", ["relu6", "hswish", "swish", "gelu"])
def test_every_activation_has_a_sign(act: str) -> None:
    assert math.isfinite(codes(small(act)))


def test_gates_are_no_units() -> None:
    text = "input 16x16x3 stem { conv_k3_s22_o8 } stage c1 { k3_e2_o8_se0.25 } head { pool fc }"
    module = archdsl.compile(chain(text), "torch").load()
    assert "stages.c1.0.se.gate" in dict(module.named_modules())
    linear = chain("input 16x16x3 stem { conv_k3_s22_o8_linear } head { pool fc }")
    found = evaluate(resolve("naswot", {"size": 16}), linear)
    assert "no activations" in (found.fault or "")


def test_images_that_are_alike_have_no_determinant() -> None:
    path = _npz(x=np.zeros((8, 16, 16)), y=np.arange(8) % 2)
    found = evaluate(resolve("naswot", {"data": str(path), "size": 16}), small())
    assert "same code" in (found.fault or "")


def test_more_units_tell_more_apart() -> None:
    assert codes(small(width=0.5)) < codes(small(width=2))


def test_failures_are_of_one_kind() -> None:
    with pytest.raises(Failed):
        digits().fitted(chain("input 16x16x3 stem { conv_k3_o4 }"))
