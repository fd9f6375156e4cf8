"""Images to calibrate with: what is read, how it is prepared, and what is refused before it is."""

from __future__ import annotations

import io
import math
import os
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import archdsl
from archdsl.cli.program import program
from archdsl.lang.diagnostics import ArchError
from archdsl.quantization.images import calibration_images, read_images
from archdsl.quantization.presets import PRESETS

PHOTOS = Path(__file__).parent / "data" / "photos"
ARCH = archdsl.parse("arch net input 32x32x3 stem { conv_k3_s22_o8 } head { pool fc_o4 }")


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(ArchError) as caught:
        act()
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["E0804"]
    return str(caught.value)


def noise(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


# -------------------------------------------------------------------------------------- arrays


def test_floating_arrays_are_taken_as_they_stand() -> None:
    images = noise(3, 32, 32, 3)
    assert calibration_images(images, ARCH) is images
    for dtype in (np.float16, np.float64):
        found = calibration_images(images.astype(dtype), ARCH)
        assert found.dtype == np.float32
        assert (found == images.astype(dtype).astype(np.float32)).all()
    assert read_images(images, ARCH).labels is None


@pytest.mark.parametrize("name", PRESETS)
def test_pixels_are_brought_into_the_range(name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    preset = PRESETS[name]
    expected = (pixels / 255 - np.array(preset.mean)) / np.array(preset.std)
    found = calibration_images(pixels, ARCH, name)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_ranges_of_the_presets() -> None:
    ends = np.zeros((2, 32, 32, 3), np.uint8)
    ends[1] = 255
    ranges = {name: calibration_images(ends, ARCH, name) for name in PRESETS}
    assert (ranges["inception"][0] == -1).all()
    assert (ranges["inception"][1] == 1).all()
    assert ranges["unit"].max() == 1
    assert ranges["bytes"].max() == pytest.approx(255)
    assert ranges["imagenet"].min() == pytest.approx(-0.485 / 0.229)
    assert (ranges["imagenet"] == ranges["imagenet_bicubic"]).all()


@pytest.mark.parametrize(
    ("images", "preprocess", "said"),
    [
        (noise(3, 32, 30, 3), None, "the shape is 3 x 32 x 30 x 3, the network takes count x 32 x"),
        (noise(3, 3, 32, 32), None, "transpose these with .transpose(0, 2, 3, 1)"),
        (noise(32, 32, 3), None, "the shape is 32 x 32 x 3"),
        (np.float32(1), None, "the shape is a number"),
        (noise(0, 32, 32, 3), None, "it is empty"),
        (np.zeros((1, 32, 32, 3), np.uint8), None, "name the preprocessing"),
        (np.zeros((1, 32, 32, 3), np.int32), None, "its elements are int32"),
        (np.zeros((1, 32, 32, 3), bool), None, "its elements are bool"),
        (np.zeros((1, 32, 32, 3), object), None, "its elements are object"),
        (np.zeros((1, 32, 32, 3), np.complex64), None, "its elements are complex64"),
        (noise(1, 32, 32, 3), "imagenet", "taken as they stand"),
        (np.full((1, 32, 32, 3), math.nan, np.float32), None, "infinite or not numbers"),
        (np.full((1, 32, 32, 3), math.inf, np.float32), None, "infinite or not numbers"),
        (np.full((1, 32, 32, 3), 1e300), None, "infinite or not numbers"),
        (np.zeros((1, 32, 32, 3), np.uint8), "imagnet", "did you mean `imagenet`?"),
        (np.zeros((1, 32, 32, 3), np.uint8), "x", "there are imagenet"),
        (
            np.broadcast_to(np.float32(0), (1 << 20, 32, 32, 3)),
            None,
            "too many; the limit is 349,525",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arrays_that_are_refused(images: Any, preprocess: str | None, said: str) -> None:
    found = refused(lambda: read_images(images, ARCH, preprocess))
    assert found.startswith("error[E0804]: ")
    assert said in found


# ---------------------------------------------------------------------------------------- .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(save: Callable[..., None], tmp_path: Path) -> None:
    images = noise(3, 32, 32, 3)
    save(tmp_path / "x.npz", images=images, labels=np.array([2, 0, 1], np.uint8), other=[1])
    found = read_images(tmp_path / "x.npz", ARCH)
    assert (found.images == images).all()
    assert found.labels is not None
    assert (found.labels.dtype, found.labels.tolist()) == (np.int64, [2, 0, 1])
    save(tmp_path / "y.npz", images=np.asfortranarray(images))
    assert (calibration_images(str(tmp_path / "y.npz"), ARCH) == images).all()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": noise(1, 32, 32, 3)}, "it has `pictures`"),
        ({"images": noise(1, 3, 32, 32)}, "transpose"),
        ({"images": np.array([{}])}, "not an array of numbers"),
        ({"images": noise(2, 32, 32, 3), "labels": [1]}, "2 integers are wanted"),
        ({"images": noise(2, 32, 32, 3), "labels": [1.0, 2.0]}, "of float64"),
        ({"images": noise(2, 32, 32, 3), "labels": [[1], [2]]}, "is 2 x 1 of int64"),
        ({"images": noise(2, 32, 32, 3), "labels": [3, 4]}, "the label 4 is no class"),
        ({"images": noise(2, 32, 32, 3), "labels": [3, -1]}, "the label -1 is no class"),
        # int64 would make it -1.
        (
            {"images": noise(1, 32, 32, 3), "labels": np.array([2**64 - 1], np.uint64)},
            f"the label {2**64 - 1} is no class",
        ),
        ({"images": np.zeros(1, [("a", "f4")])}, "the shape is 1"),
    ],
)
def test_npz_that_is_refused(arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    found = refused(lambda: read_images(tmp_path / "x.npz", ARCH))
    assert said in found
    assert "x.npz" in found


def _header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (_header("(1000000, 32, 32, 3)"), "not a whole one"),
        (_header("(-1, 32, 32, 3)"), "not a whole one"),
        (_header("(1, 32, 32, 3)") + bytes(100), "not a whole one"),
        (_header("(1, 32, 32, 3)") + bytes(4 * 32 * 32 * 3 + 1), "not a whole one"),
        (_header("(1, 32, 32, 3)", "|O") + bytes(8 * 32 * 32 * 3), "not an array of numbers"),
        (_header("__import__('os').getcwd()"), "broken"),
        (b"\x93NUMPY\x09\x00", "broken"),
        (b"", "broken"),
        (b"PK\x03\x04", "broken"),
    ],
)
def test_npz_entries_that_lie(entry: bytes, said: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", entry)
    assert said in refused(lambda: read_images(tmp_path / "x.npz", ARCH))


def test_npz_with_two_arrays_of_a_name(tmp_path: Path) -> None:
    entry = _header("(1, 32, 32, 3)") + bytes(4 * 32 * 32 * 3)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", entry)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("images.npy", entry)
    said = refused(lambda: read_images(tmp_path / "x.npz", ARCH))
    assert "has 2 entries called `images.npy`" in said


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """128 MiB of zeros in some hundred KiB, of another shape than the network's."""
    with (
        zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(_header("(1, 8192, 4096, 1)"))
        for _ in range(8):
            entry.write(bytes(1 << 24))
    tracemalloc.start()
    said = refused(lambda: read_images(tmp_path / "x.npz", ARCH))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "8192" in said or "not a whole one" in said
    assert peak < 4 << 20


def test_broken_npz(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=noise(2, 32, 32, 3))
    data = path.read_bytes()
    for cut in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        refused(lambda: read_images(path, ARCH))
    # Bytes of another content than the archive's checksum.
    path.write_bytes(data[:5000] + bytes([data[5000] ^ 255]) + data[5001:])
    assert "broken" in refused(lambda: read_images(path, ARCH))
    with pytest.raises(FileNotFoundError):
        read_images(tmp_path / "none.npz", ARCH)
    np.save(tmp_path / "x.npy", noise(1, 32, 32, 3))
    assert "not a .npz file" in refused(lambda: read_images(tmp_path / "x.npy", ARCH))


@pytest.mark.skipif(os.name != "posix", reason="needs pipes by name")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.npz")
    assert "not a .npz file" in refused(lambda: read_images(tmp_path / "x.npz", ARCH))


# -------------------------------------------------------------------------------------- folders


def torchvisions(path: Path, side: int, resample: Image.Resampling) -> Any:
    """torchvision's Resize and CenterCrop, written down a second time."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    short = round(side / 0.875)
    if image.width <= image.height:
        size = short, int(short * image.height / image.width)
    else:
        size = int(short * image.width / image.height), short
    image = image.resize(size, resample)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("name", PRESETS)
def test_photos_are_prepared_as_torchvision_does(name: str) -> None:
    arch = archdsl.load("mnv2")
    preset = PRESETS[name]
    found = read_images(PHOTOS, arch, name)
    files = sorted(PHOTOS.glob("*.png"))
    assert found.images.shape == (len(files), 224, 224, 3)
    assert found.labels is None
    for image, file in zip(found.images, files, strict=True):
        pixels = torchvisions(file, 224, Image.Resampling[preset.resample.upper()])
        expected = calibration_images(pixels[None], arch, name)[0]
        assert (image == expected).all()


@pytest.mark.parametrize("size", [(32, 32), (48, 64), (64, 48), (20, 200), (8, 8)])
@pytest.mark.parametrize("shape", ["32x32x3", "32x64x3", "64x32x1"])
def test_any_photo_fills_any_image(size: tuple[int, int], shape: str, tmp_path: Path) -> None:
    height, width, channels = map(int, shape.split("x"))
    arch = archdsl.parse("arch n input 8x8x3 stem { conv_o8 }", input=(height, width, channels))
    Image.new("RGB", size, (255, 255, 255)).save(tmp_path / "a.png")
    found = calibration_images(tmp_path, arch, "unit")
    assert found.shape == (1, height, width, channels)
    # A border that the photo did not reach would be black.
    assert (found == 1).all()


def test_photos_of_every_kind(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    for mode in ("RGB", "RGBA", "L", "P", "CMYK", "1", "LA"):
        image = Image.fromarray(rgb).convert(mode)
        image.save(tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    Image.fromarray(rgb).save(tmp_path / "a.BMP")
    Image.fromarray(rgb).save(tmp_path / "b.webp")
    (tmp_path / ".hidden.png").write_bytes(b"none")
    (tmp_path / "README.md").write_text("these are photos")
    assert len(calibration_images(tmp_path, ARCH, "imagenet")) == 9


@pytest.mark.parametrize("channels", [1, 3])
def test_greys_of_16_bits_are_scaled(channels: int, tmp_path: Path) -> None:
    arch = archdsl.parse("arch n input 8x8x3 stem { conv_o8 }", input=(16, 16, channels))
    greys = np.linspace(0, 65535, 18 * 18).reshape(18, 18)  # 18 pixels: what `unit` cuts 16 out of
    Image.fromarray(greys.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray((greys / 257).round().astype(np.uint8)).save(tmp_path / "b.png")
    sixteen, eight = calibration_images(tmp_path, arch, "unit")
    assert 0 < eight.min() < 0.1 and 0.9 < eight.max() < 1
    assert abs(sixteen - eight).max() < 1.5 / 255


def test_without_classes_a_label_is_any_number(tmp_path: Path) -> None:
    arch = archdsl.parse("arch net input 32x32x3 stem { conv_k3_s22_o8 }")
    np.savez(tmp_path / "x.npz", images=noise(1, 32, 32, 3), labels=[1000])
    found = read_images(tmp_path / "x.npz", arch)
    assert found.labels is not None
    assert found.labels.tolist() == [1000]
    np.savez(tmp_path / "x.npz", images=noise(1, 32, 32, 3), labels=np.array([2**63], np.uint64))
    assert f"the label {2**63}" in refused(lambda: read_images(tmp_path / "x.npz", arch))


def test_labels_from_folders_and_tables(tmp_path: Path) -> None:
    thirteen = archdsl.parse("arch net input 32x32x3 stem { conv_k3_o8 } head { pool fc_o13 }")
    for name in ("7/a.png", "7/b.png", "12/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    found = read_images(tmp_path, thirteen, "unit")
    assert found.labels is not None
    assert found.labels.tolist() == [12, 7, 7]  # sorted as paths
    assert "the label 7 is no class" in refused(lambda: read_images(tmp_path, ARCH, "unit"))
    (tmp_path / "labels.csv").write_text(
        "file,label\n7/a.png,1\n\n7/b.png, 2\n12/c.png,3\nz.png,9\n"
    )
    found = read_images(tmp_path, ARCH, "unit")
    assert found.labels is not None
    assert found.labels.tolist() == [3, 1, 2]
    (tmp_path / "labels.csv").write_text("7/a.png,1\n")
    said = refused(lambda: read_images(tmp_path, ARCH, "unit"))
    assert "no label for 2 photos" in said
    assert "`12/c.png`, `7/b.png`" in said
    for wrong in ("7/a.png\n", "7/a.png,x\n", "7/a.png,1,2\n", "7/a.png,-1\n", "a,1.5\n"):
        (tmp_path / "labels.csv").write_text(wrong)
        assert "has the row" in refused(lambda: read_images(tmp_path, ARCH, "unit"))
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe")
    assert "is no table" in refused(lambda: read_images(tmp_path, ARCH, "unit"))
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "7").rename(tmp_path / "cats")
    assert read_images(tmp_path, ARCH, "unit").labels is None


def test_folders_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gif").touch()
    said = refused(lambda: read_images(tmp_path, ARCH, "unit"))
    assert f"`{tmp_path}`: no photos are in it" in said
    assert ".png, .jpg, .jpeg, .bmp or .webp" in said
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    said = refused(lambda: read_images(tmp_path, ARCH))
    assert "name the preprocessing" in said
    assert all(name in said for name in PRESETS)
    deep = archdsl.parse("arch n input 8x8x4 stem { conv_o8 }")
    assert "the network's images 4" in refused(lambda: read_images(tmp_path, deep, "unit"))


def test_broken_photos_are_named(tmp_path: Path) -> None:
    good = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        good, "PNG"
    )
    (tmp_path / "good.png").write_bytes(good.getvalue())
    (tmp_path / "cut.png").write_bytes(good.getvalue()[:2000])
    (tmp_path / "text.png").write_text("no photo")
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    said = refused(lambda: read_images(tmp_path, ARCH, "unit"))
    for name in ("`cut.png`", "`text.png`", "`script.jpg`"):
        assert name in said
    assert "`text.png`: it is none of PNG, JPEG, BMP, WEBP" in said
    assert "good.png" not in said


def test_photos_that_are_too_large(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "a.png")
    assert "decompression bomb" in refused(lambda: read_images(tmp_path, ARCH, "unit"))
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    assert "more than 67,108,864 pixels" in refused(lambda: read_images(tmp_path, ARCH, "unit"))
    Image.new("1", (1, 100_000_000 // 2)).save(tmp_path / "a.png")
    assert "too thin a strip" in refused(lambda: read_images(tmp_path, ARCH, "unit"))


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "archdsl\[images\]"'):
        read_images(tmp_path, ARCH, "unit")


def test_int8_is_calibrated_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for file in PHOTOS.glob("*.png"):
        (tmp_path / "photos" / file.name).write_bytes(file.read_bytes())
    Path("net.arch").write_text(
        "arch net input 32x32x3 stem { conv_k3_s22_o8 } head { pool fc_o4 }\n"
    )
    words = ["compile", "net.arch", "--to", "tflite", "--dtype", "int8", "--calibration", "photos"]
    result = CliRunner().invoke(program, [*words, "--preprocess", "imagenet"])
    assert result.exit_code == 0, result.output
    assert Path("net.tflite").stat().st_size > 0
    result = CliRunner().invoke(program, [*words, "--preprocess", "imagnet"])
    assert result.exit_code == 1
    assert "E0804" in result.output
