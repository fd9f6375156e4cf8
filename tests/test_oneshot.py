"""One-shot searches: what they learn, what they leave behind, and how they go on."""

from __future__ import annotations

import json
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import archdsl
from archdsl.backend import backend
from archdsl.cli.program import program
from archdsl.search.evaluators import resolve
from archdsl.search.objectives import Objectives
from archdsl.search.outcomes import Failed
from archdsl.search.refining import refined, require_refinable
from archdsl.search.storages import Busy
from archdsl.search.tables import Tables

torch = pytest.importorskip("torch")
from archdsl.backends.torch_oneshot import OneShot  # noqa: E402

SPACE = """
arch tiny
input 8x8x1
norm batch eps=1e-3 momentum=0.1
round 4
classes 3
stem { conv_k3_s22_o8 }
stage c1 { ( k{3,5}_e{2,4} | skip ) k3_s22_e2_o{8,16} }
head { pool fc }
"""
DEVICE = "pixel6-cpu-int8"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Bars in three directions, which a small network tells apart soon."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (120, 8, 8), np.uint8)
    labels = np.arange(120) % 3
    for image, label in zip(images, labels, strict=True):
        at = rng.integers(1, 7)
        if label == 0:
            image[at] = 255
        elif label == 1:
            image[:, at] = 255
        else:
            np.fill_diagonal(image, 255)
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    np.savez(path, x=images, y=labels)
    return str(path)


def oneshot(text: str, data: str, objectives: Any = None, **more: Any) -> Any:
    rest = {key: more.pop(key) for key in ("folder", "watch") if key in more}
    settings = {"steps": 12, "batch": 16, "warmup": 0.5, "shift": 0.0, **more}
    search = backend("torch").oneshot  # type: ignore[attr-defined]
    return search(archdsl.parse_space(text), data, objectives, settings, **rest)


def toward(us: float) -> Objectives:
    device = archdsl.load_device(DEVICE)
    return Objectives(devices=(device,), targets={DEVICE: us}, reward="absolute")


def test_a_search_gives_a_member_with_weights_that_are_as_good_as_it_says(data: str) -> None:
    winner = oneshot(SPACE, data, toward(1.0), steps=60)
    space = archdsl.parse_space(SPACE)
    assert winner.vector in space
    assert winner.text == space.text_of(winner.vector)
    assert len(winner.history) == 2 * 30
    (costs,) = toward(1.0).measure(Tables(space), [winner.vector])
    assert winner.figures == costs
    from archdsl.datasets import load_data

    images = load_data(data, 8, 1)
    network = archdsl.compile(winner.arch, to="torch", weights=winner.weights).load()
    with torch.no_grad():
        named = network(torch.tensor(images.validation)).argmax(1).numpy()
    assert (named == images.validation_labels).mean() == pytest.approx(winner.accuracy)
    assert winner.accuracy == winner.shared_accuracy > 0.6


def test_the_policy_learns_what_is_rewarded() -> None:
    """Without images: the reward is the time alone, and the fastest network has to win."""
    from archdsl.backends.torch_oneshot import Judgement, OneShot, Settings

    space = archdsl.parse_space(SPACE.replace("classes 3", "classes 10"))
    device = archdsl.load_device(DEVICE)
    times = Tables(space).cost(list(space), devices=[device]).latency_us[DEVICE]
    one = OneShot(space, "digits", toward(float(times.min())), Settings(steps=300, size=8))
    rng = random.Random(0)
    for step in range(75, 300):
        vector = one.controller.sample(rng)
        (costs,) = one.objectives.measure(one.tables, [vector])
        one._learn([Judgement(step, vector, 0.5, one.objectives.reward_of(0.5, costs))])
    assert one.controller.best() == list(space)[int(times.argmin())]


def test_the_same_seed_gives_the_same_search_and_a_break_changes_nothing(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = oneshot(SPACE, data, toward(2.0), folder=tmp_path / "whole", seed=3)
    module = __import__("archdsl.backends.torch_oneshot", fromlist=["_"])
    monkeypatch.setattr(module, "_EVERY", -1.0)

    def interrupt(done: int, steps: int) -> None:
        if done in (4, 9):
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            oneshot(SPACE, data, toward(2.0), folder=tmp_path / "broken", seed=3, watch=interrupt)
    seen: list[int] = []
    again = oneshot(
        SPACE,
        data,
        toward(2.0),
        folder=tmp_path / "broken",
        seed=3,
        watch=lambda done, steps: seen.append(done),
    )
    assert seen == [10, 11, 12]
    assert again.history == whole.history
    assert again.vector == whole.vector
    assert again.accuracy == whole.accuracy
    for key, value in whole.weights.items():
        np.testing.assert_array_equal(again.weights[key], value)
    other = oneshot(SPACE, data, toward(2.0), seed=4)
    assert other.history != whole.history


def test_the_folder_has_the_winner_and_all_that_was_judged(data: str, tmp_path: Path) -> None:
    winner = oneshot(SPACE, data, folder=tmp_path / "found")
    found = tmp_path / "found"
    winners = {"winner.arch", "winner.safetensors"}
    names = {"judged.jsonl", "progress.lock", "progress.pt", "report.json", *winners}
    assert {path.name for path in found.iterdir()} == names
    arch = archdsl.load(str(found / "winner.arch"))
    assert arch.to_text() == winner.text
    # Shares of 12 images, and not the nearest numbers of 32 bits.
    assert all(one.accuracy == round(12 * one.accuracy) / 12 for one in winner.history)
    archdsl.compile(arch, to="torch", weights=str(found / "winner.safetensors")).load()
    lines = [json.loads(line) for line in (found / "judged.jsonl").read_text().splitlines()]
    assert len(lines) == len(winner.history) == 12
    assert all(tuple(line["vector"]) in archdsl.parse_space(SPACE) for line in lines)
    report = json.loads((found / "report.json").read_text())
    assert report["network"] == winner.text
    assert sum(report["chances"]["stages.c1.0[1].k"].values()) == pytest.approx(1)


def test_a_winner_is_trained_anew_where_that_is_asked_for(data: str) -> None:
    winner = oneshot(SPACE, data, epochs=4, steps=4)
    # By the recipe of the search: its learning rate is that of stochastic gradient descent.
    recipe = {"epochs": 4, "batch": 16, "lr": 0.1, "optimizer": "sgd", "shift": 0.0, "flip": False}
    trainer: Any = resolve("train", {"data": data, **recipe})
    accuracy, weights = trainer.fine_tune(winner.arch)
    assert winner.accuracy == accuracy
    assert winner.weights.keys() == weights.keys()
    for key, value in weights.items():
        np.testing.assert_array_equal(winner.weights[key], value)


def test_the_winner_has_the_classes_of_the_data_and_the_image_of_the_space(data: str) -> None:
    text = SPACE.replace("classes 3", "classes 7").replace("8x8x1", "16x16x1")
    winner = oneshot(text, data, size=8, steps=4)
    assert winner.arch.classes == 3
    assert winner.arch.input == (16, 16, 1)


def test_spaces_of_several_image_sizes(data: str) -> None:
    winner = oneshot(SPACE.replace("8x8x1", "( 8x8x1 | 12x12x1 )"), data, steps=8)
    assert winner.arch.input in ((8, 8, 1), (12, 12, 1))


# ---------------------------------------------------------------------------------------- refused


def test_what_a_search_refuses(data: str, tmp_path: Path) -> None:
    with pytest.raises(archdsl.ArchError, match="no network of `tiny` comes down to") as caught:
        oneshot(SPACE, data, toward(1e-6))
    assert caught.value.diagnostics[0].code == "E1007"
    with pytest.raises(archdsl.ArchError) as caught:
        oneshot(SPACE.replace("8x8x1", "8x8x2"), data)
    assert caught.value.diagnostics[0].code == "E1010"
    with pytest.raises(Failed, match="give 4x4x16 numbers, and the data have 3 classes"):
        oneshot(SPACE.replace("pool fc", "conv_o16").replace("_s22_e2", "_e2"), data)
    with pytest.raises(Failed, match="training diverged"):
        oneshot(SPACE, data, lr=100.0, steps=40)
    halved = "conv_k3_s22_o8 conv_k3_s22_o8 ( conv_k3_s22_o8 | k3 ) ( conv_k3_s22_o8 | k3 )"
    deep = f"arch deep input 64x64x1 stem {{ {halved} }} head {{ pool fc }}"
    with pytest.raises(Failed, match="on images of 8x8 pixels only 3 of the space's 4 networks"):
        oneshot(deep, data, size=8)
    with pytest.raises(ValueError, match="batch 1: must be from 2 to"):
        oneshot(SPACE, data, batch=1)
    with pytest.raises(archdsl.ArchError) as caught:
        oneshot(SPACE.replace("stage c1", "stage pop"), data)
    assert caught.value.diagnostics[0].code == "E0702"


def test_a_folder_of_another_search_or_of_none(data: str, tmp_path: Path) -> None:
    oneshot(SPACE, data, folder=tmp_path, steps=2)
    with pytest.raises(archdsl.ArchError, match="steps: 2 there, 3 here") as caught:
        oneshot(SPACE, data, folder=tmp_path, steps=3)
    assert caught.value.diagnostics[0].code == "E1006"
    whole = (tmp_path / "progress.pt").read_bytes()
    for broken in (b"", b"hello", whole[: len(whole) // 2], whole[:-100]):
        (tmp_path / "progress.pt").write_bytes(broken)
        with pytest.raises(archdsl.ArchError, match="no search that can be gone on with") as caught:
            oneshot(SPACE, data, folder=tmp_path, steps=2)
        assert caught.value.diagnostics[0].code == "E1009"


def test_two_searches_do_not_share_a_folder(data: str, tmp_path: Path) -> None:
    others: list[Any] = []

    def begin_another(done: int, steps: int) -> None:
        with pytest.raises(Busy, match="another process is at work on"):
            oneshot(SPACE, data, folder=tmp_path / "found", steps=2)
        (tmp_path / "tiny.arch").write_text(SPACE)
        others.append(run(str(tmp_path / "tiny.arch"), "--data", data, "-o", f"{tmp_path}/found"))

    whole = oneshot(SPACE, data, folder=tmp_path / "found", steps=2, watch=begin_another)
    assert [other.exit_code for other in others] == [2, 2]
    assert "another process is at work on" in others[0].stderr
    assert oneshot(SPACE, data, folder=tmp_path / "found", steps=2).history == whole.history


class _Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("evil"),)


def test_a_folder_that_would_run_code_is_refused(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"about": _Evil()}, tmp_path / "progress.pt")
    with pytest.raises(archdsl.ArchError, match="E1009"):
        oneshot(SPACE, data, folder=tmp_path)
    assert not Path("evil").exists()


# --------------------------------------------------------------------------------- the fine stage


@pytest.mark.parametrize("name", ["s", "m", "l"])
def test_the_fine_space_of_a_published_network_is_the_shipped_one(name: str) -> None:
    made = archdsl.parse_space(refined(archdsl.load(f"mnv4_conv_{name}")))
    shipped = archdsl.load_space(f"mnv4_fine_{name}")
    assert [(c.path, c.options) for c in made.choices] == [
        (c.path, c.options) for c in shipped.choices
    ]
    assert made.count == shipped.count


def test_the_fine_space_of_a_coarse_network_has_it_as_a_member() -> None:
    coarse = archdsl.load_space("mnv4_coarse")
    rng = random.Random(0)
    for _ in range(5):
        arch = coarse.arch_of(coarse.sample(rng))
        fine = archdsl.parse_space(refined(arch))
        vector = fine.encode(arch)
        assert fine.arch_of(vector).total == arch.total
        assert all("e" not in choice.path.rpartition(".")[2] for choice in fine.choices)


def test_what_a_fine_space_keeps() -> None:
    text = (
        "arch a input 32x32x3 stage c1 { uib_m3_st22_e4_o16_noskip uib_m3_e4_o16 uib_s3_e4_o16 "
        "uib_r2_m5_e4_o24_relu6 uib_m3_st21_e4_o24_relu6 k3 } head { pool fc } "
    )
    stage = refined(archdsl.parse(text)).partition("stage c1 {")[2].partition("}\nhead")[0]
    both = "s{0,3,5}_m{0,3,5}"
    assert stage.split()[:4] == [
        f"uib_each_r1_{both}_st22_e4_o16_noskip",
        f"uib_each_r2_{both}_e4_o16",
        f"uib_each_r2_{both}_e4_o24_relu6",
        f"uib_each_r1_{both}_st21_e4_o24_relu6",
    ]


def test_a_network_that_has_nothing_to_refine() -> None:
    with pytest.raises(archdsl.ArchError, match="has no universal inverted bottleneck") as caught:
        refined(archdsl.load("mnv2"))
    assert caught.value.diagnostics[0].code == "E1016"


@pytest.mark.parametrize(
    "blocks", ["uib_m3_e4", "( k3 | uib_m{3,5}_e4 )", "each_r{1,2}_uib_m3_e{2,4}"]
)
def test_any_option_that_is_refined_is_enough(blocks: str) -> None:
    text = SPACE.replace("k3_s22_e2_o{8,16}", f"k3_s22_e2_o{{8,16}} {blocks}")
    require_refinable(archdsl.parse_space(text))
    # Only stages are refined.
    with pytest.raises(archdsl.ArchError, match="E1016"):
        require_refinable(archdsl.parse_space(SPACE.replace("o8 }", f"o8 {blocks} }}")))


# ------------------------------------------------------------------------------- the command line

V4 = """
arch v4
input 8x8x1
round 4
classes 3
stem { conv_k3_o8 }
stage c1 { uib_r{1,2}_m3_st22_e2_o{8,12} }
head { pool fc }
"""
QUICK = ("--steps", "4", "--batch", "16", "--size", "8", "--judged", "1")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(program, ["oneshot", *arguments], prog_name="archdsl")


def test_both_stages_from_the_command_line(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v4.arch").write_text(V4)
    target = ("--device", DEVICE, "--target-ms", "0.002")
    done = run("v4.arch", "--data", data, *target, *QUICK, "--fine", "-o", "found")
    assert done.exit_code == 0, done.output
    assert "found/coarse/winner.arch: " in done.stdout
    assert "found/fine/winner.arch: " in done.stdout
    coarse = archdsl.load("found/coarse/winner.arch")
    fine = archdsl.load_space("found/fine_space.arch")
    assert archdsl.parse_space(refined(coarse)).source.text == fine.source.text
    winner = archdsl.load("found/fine/winner.arch")
    assert fine.encode(winner) in fine
    archdsl.compile(winner, to="torch", weights="found/fine/winner.safetensors").load()


def test_json_and_the_default_folder(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v4.arch").write_text(V4)
    done = run("v4.arch", "--data", data, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["file"] == "v4-oneshot/winner.arch"
    assert found["network"] == Path(found["file"]).read_text()
    first, accuracy, figures, _, vector, *_ = found["network"].splitlines()
    assert first == "# the likeliest network of a one-shot search of v4, seed 0"
    assert accuracy.startswith(f"# accuracy {found['accuracy']:.6g} with shared weights, on ")
    assert f"{found['figures']['macs']:,} MACs" in figures
    assert vector == "# vector " + " ".join(map(str, found["vector"]))
    assert done.stderr == ""


def test_an_interrupt_waits_for_the_step_and_keeps_it(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = oneshot(SPACE, data, seed=4, folder=tmp_path / "whole")

    def interrupt(done: int, steps: int) -> None:
        if done == 5:
            # In the midst of the next step.
            monkeypatch.setattr(OneShot, "_draw", drawing)

    draw = OneShot._draw

    def drawing(self: OneShot, rng: random.Random) -> Any:
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(OneShot, "_draw", draw)
        return draw(self, rng)

    with pytest.raises(KeyboardInterrupt):
        oneshot(SPACE, data, seed=4, folder=tmp_path / "broken", watch=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    steps: list[int] = []
    again = oneshot(
        SPACE, data, seed=4, folder=tmp_path / "broken", watch=lambda done, _: steps.append(done)
    )
    assert steps[0] == 7
    assert again.history == whole.history


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--target-ms", "1"), 2, "--device and --target-ms go together"),
        (("--device", DEVICE), 2, "--device and --target-ms go together"),
        (("--steps", "0"), 2, "--steps"),
        (("--torch-device", "nonsense"), 2, "nonsense"),
        (("-o", "-"), 2, "what is written is a folder"),
        (("-o", "no/where"), 2, "there is no folder"),
        (("-o", "v4.arch"), 2, "is a file"),
        (("--data", "nowhere"), 2, "nowhere"),
        (("--device", DEVICE, "--target-ms", "1e-9"), 1, "E1007"),
    ],
)
def test_what_the_command_refuses(
    options: tuple[str, ...],
    status: int,
    message: str,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("v4.arch").write_text(V4)
    done = run("v4.arch", *(() if "--data" in options else ("--data", data)), *QUICK, *options)
    assert done.exit_code == status, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output


def test_a_space_that_has_no_fine_stage(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.arch").write_text(SPACE)
    done = run("tiny.arch", "--data", data, *QUICK, "--fine")
    assert done.exit_code == 1
    assert "E1016" in done.stderr
    assert "`tiny` has no universal inverted bottleneck" in done.stderr
    # It is said before anything is searched.
    assert not Path("tiny-oneshot").exists()
