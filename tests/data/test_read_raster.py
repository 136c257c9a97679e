"""Raster files: what was written comes back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers import read_image, read_mask

GREY = np.random.default_rng(0).integers(0, 255, (5, 7), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 255, (5, 7, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_and_colour(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"g{suffix}")
    Image.fromarray(COLOUR).save(tmp_path / f"c{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"g{suffix}")["image"], GREY[..., np.newaxis])
    np.testing.assert_array_equal(read_image(tmp_path / f"c{suffix}")["image"], COLOUR)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("top", [1000, 65535])
def test_sixteen_bits_are_kept(tmp_path, suffix, top):
    values = np.array([[0, 1, 256], [top, 500, 2]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")["image"]
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image[..., 0], values)


def test_floats_and_broken_floats(tmp_path):
    values = np.array([[0.5, -2.0]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")["image"][..., 0], values)
    Image.fromarray(values * np.nan).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="2 of 2 values"):
        read_image(tmp_path / "b.tif")


def test_palette_gives_colours_for_images_and_indices_for_masks(tmp_path):
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")["image"][1, 0].tolist() == [70, 80, 90]
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), indices)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_not_blended(tmp_path, mode):
    image = Image.fromarray(COLOUR).convert(mode)
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image)[..., : len(mode) - 1]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")["image"], expected)


def test_bilevel_is_0_and_255(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")["image"][..., 0], (GREY > 100) * 255)


def test_pages_become_slices(tmp_path):
    pages = [Image.fromarray(GREY), Image.fromarray(GREY // 2), Image.fromarray(GREY // 3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")["image"][..., 0], [GREY, GREY // 2, GREY // 3])
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[Image.fromarray(GREY[:2])])
    with pytest.raises(DataError, match="different sizes"):
        read_image(tmp_path / "b.tif")


def test_photographs_are_turned_as_exif_says(tmp_path):
    image = Image.fromarray(np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[:, None], 16, axis=1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")["image"][..., 0], np.asarray(image)[::-1, ::-1])


def test_real_photograph_and_masks(shared_data):
    drive = shared_data / "drive"
    image = read_image(drive / "images" / "21_training.tif")["image"]
    np.testing.assert_array_equal(image, np.asarray(Image.open(drive / "images" / "21_training.tif")))
    assert set(np.unique(read_mask(drive / "1st_manual" / "21_manual1.gif"))) == {0, 255}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".gif", ".jpg"])
@pytest.mark.parametrize("keep", [0, 30, 0.5])
def test_truncated_file_is_refused_in_one_line(tmp_path, suffix, keep):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if keep > 1 else int(keep * len(whole))])
    with pytest.raises(DataError, match="a" + suffix) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_bombs_are_refused(tmp_path, monkeypatch):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    monkeypatch.setattr("medsynth_tf.data.readers.common.MAX_VOXELS", 10)
    with pytest.raises(DataError, match=r"35 values.*more than the 10 allowed"):
        read_image(tmp_path / "a.png")
    monkeypatch.undo()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match="exceeds limit"):
        read_image(tmp_path / "a.png")


def test_wrong_paths_and_formats(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="not a known image format"):
        read_image(tmp_path / "notes.txt")
    (tmp_path / "notes.png").write_text("hello")
    with pytest.raises(DataError, match="damaged, or the suffix is wrong"):
        read_image(tmp_path / "notes.png")
    Image.fromarray(COLOUR).save(tmp_path / "c.png")
    with pytest.raises(DataError, match="one channel"):
        read_mask(tmp_path / "c.png")
