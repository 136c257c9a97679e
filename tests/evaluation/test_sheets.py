import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.evaluation.memorisation import Neighbours
from medsynth_tf.evaluation.sheets import (
    Row,
    colour_map,
    write_masks_and_images,
    write_nearest,
    write_real_and_synthetic,
    write_sheet,
    write_source,
)


def _flat(*values, side=100):
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def _contains(sheet, image):
    """Whether the picture stands in the sheet, pixel for pixel."""
    windows = np.lib.stride_tricks.sliding_window_view(sheet, image.shape[:2], axis=(0, 1))
    corners = np.argwhere((windows[..., 0, 0] == image[0, 0]).all(-1))
    return any((windows[row, column].transpose(1, 2, 0) == image).all() for row, column in corners)


def test_images_stand_in_the_sheet_unchanged(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 100, 100, 3)).astype(np.uint8)
    sheet = np.asarray(Image.open(write_sheet(tmp_path / "sheet.png", "Title", [Row("A", images[:2]), Row("B", images[2:])])))
    assert all(_contains(sheet, image) for image in images)


def test_label_maps_are_coloured_not_grey(tmp_path):
    masks = np.zeros((1, 100, 100), np.uint8)
    masks[0, 40:60] = 1
    masks[0, :10] = 255
    sheet = np.asarray(Image.open(write_masks_and_images(tmp_path / "m.png", masks, _flat(90), {"retina": 0, "vessel": 1})))
    assert _contains(sheet, colour_map(masks[0]))
    assert len({tuple(colour) for colour in colour_map(np.array([[0, 1, 2, 3, 4, 5, 6, 7, 255]], np.uint8))[0]}) == 9


def test_nearest_pairs_come_in_order(tmp_path):
    synthetic, train = _flat(10, 20, 30), _flat(110, 120)
    neighbours = Neighbours("pixels", np.array([1, 0, 1]), np.array([5.0, 1.0, 9.0]), np.array([4.0, 6.0]))
    sheet = np.asarray(Image.open(write_nearest(tmp_path / "n.png", synthetic, train, neighbours, count=2)))
    above, below = sheet[120 - 50, :, 0], sheet[120 + 24 + 76, :, 0]
    assert above[10] == 20
    assert above[120] == 10
    assert below[10] == 110
    assert below[120] == 120
    assert not (sheet == 30).all(-1).sum() > 5000


def test_pictures_are_taken_from_the_whole_set(tmp_path):
    images, masks = _flat(*range(101, 130)), np.zeros((29, 100, 100), np.uint8)
    for path in (
        write_real_and_synthetic(tmp_path / "r.png", images[:1], images, count=3),
        write_masks_and_images(tmp_path / "m.png", masks, images, count=3),
    ):
        sheet = np.asarray(Image.open(path))
        assert [value for value in range(101, 130) if (sheet == value).all(-1).sum() >= 100 * 100] == [101, 115, 129]


@pytest.mark.parametrize(("side", "shown"), [(32, 96), (128, 128), (1024, 256)])
def test_small_images_are_enlarged_and_large_ones_shrunk(tmp_path, side, shown):
    sheet = Image.open(write_sheet(tmp_path / "sheet.png", "T", [Row("R", _flat(7, side=side))]))
    assert (np.asarray(sheet) == 7).all(-1).sum() == shown**2


def test_what_is_no_image_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(DataError, match="no images"):
        write_sheet(tmp_path / "sheet.png", "T", [Row("R", _flat(1)[:0])])
    with pytest.raises(DataError, match="expected uint8"):
        write_sheet(tmp_path / "sheet.png", "T", [Row("R", np.zeros((1, 8, 8, 3), np.float32))])
    assert not list(tmp_path.iterdir())


def test_a_source_is_drawn_with_its_maps_and_classes(tmp_path):
    from medsynth_tf.data.phantoms import PhantomSource

    path = write_source(tmp_path / "sheet.png", PhantomSource("fundus", 6, size=48, labels="myopia"), count=3)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    tile = 96
    assert pixels.shape[1] >= 3 * tile
    assert pixels.shape[0] > 2 * tile
    for colour in (colour_map(np.array([[code]], np.uint8))[0, 0] for code in (0, 1)):  # retina and disc of the label maps
        assert (pixels == colour).all(-1).any()
