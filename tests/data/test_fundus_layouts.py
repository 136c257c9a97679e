"""Public fundus sets in the trees they come in, tiny."""

import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.folder_source import FolderSource
from medsynth_tf.data.fundus_layouts import structure
from medsynth_tf.data.joint_images import complete_keys

SIZE = (24, 32)  # [H, W]


def photograph(path, level=120):
    """A lit circle on black."""
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    inside = (rows - 11.5) ** 2 + (columns - 15.5) ** 2 <= 11**2
    image = np.zeros([*SIZE, 3], np.uint8)
    image[inside] = (level, level // 2, level // 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **({"quality": 100} if path.suffix.lower() in (".jpg", ".jpeg") else {}))
    return inside


def box(top, left, height=4, width=4):
    mask = np.zeros(SIZE, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def write_mask(path, mask, style="white on black"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if style == "white on black":
        image = Image.fromarray(mask.astype(np.uint8) * 255)
    elif style == "black on white":
        image = Image.fromarray(np.where(mask, 0, 255).astype(np.uint8))
    elif style == "ones":
        image = Image.fromarray(mask.astype(np.uint8))
    else:  # red on black in a palette, with alpha or as RGB
        image = Image.fromarray(mask[..., None] * np.array([255, 0, 0], np.uint8))
        image = image.convert({"red palette": "P", "red alpha": "RGBA", "red": "RGB"}[style])
    image.save(path)


def records(root, layout):
    source = FolderSource(root)
    assert source.layout == layout
    return source, {key.id: source.read(key) for key in source.keys()}


@pytest.mark.parametrize("style", ["white on black", "black on white", "ones", "red", "red palette", "red alpha"])
def test_m1_the_polarity_of_masks_is_found(tmp_path, style):
    for number, mask in enumerate((box(8, 10), box(0, 3, 20, 20), np.zeros(SIZE, bool))):
        if style == "ones" and not mask.any():
            continue
        write_mask(tmp_path / f"{number}.png", mask, style)
        np.testing.assert_array_equal(structure(tmp_path / f"{number}.png"), mask)


def test_eyepacs(tmp_path):
    for name in ("10_left", "10_right", "7_left"):
        photograph(tmp_path / "train" / f"{name}.jpeg")
    (tmp_path / "trainLabels.csv").write_text("image,level\n10_left,0\n10_right,3\n7_left,4\n99_left,1\n")
    source, found = records(tmp_path, "eyepacs")
    assert {key.id: (key.patient_id, key.label) for key in source.keys()} == {
        "10_left": ("10", 0),
        "10_right": ("10", 3),
        "7_left": ("7", 4),
    }
    assert found["10_left"]["image"].shape == (*SIZE, 3)
    assert found["10_left"]["modality"] == "OP"
    photograph(tmp_path / "train" / "8_left.jpeg")
    with pytest.raises(DataError, match="8_left.jpeg: no grade in"):
        FolderSource(tmp_path).keys()


def test_aptos(tmp_path):
    for name in ("000c1434d8d7", "001639a390f0"):
        photograph(tmp_path / "train_images" / f"{name}.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n000c1434d8d7,2\n001639a390f0,4\n")
    source, _ = records(tmp_path, "aptos")
    assert [(key.id, key.label) for key in source.keys()] == [("000c1434d8d7", 2), ("001639a390f0", 4)]
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n000c1434d8d7,two\n")
    with pytest.raises(DataError, match="line 2: 'two' is no grade"):
        FolderSource(tmp_path).keys()


def test_fgadr(tmp_path):
    inside = photograph(tmp_path / "Original_Images" / "0001_1.png")
    photograph(tmp_path / "Original_Images" / "0002_1.png")
    empty = np.zeros(SIZE, bool)
    lesions = {
        "HardExudate_Masks": box(8, 10, 6, 6),
        "Hemohedge_Masks": box(8, 12, 6, 6),
        "Microaneurysms_Masks": box(8, 14, 2, 2),
        "SoftExudate_Masks": box(13, 18, 2, 2),
        "IRMA_Masks": box(16, 14, 2, 3),
        "Neovascularization_Masks": box(16, 12, 2, 4),
    }
    for folder, mask in lesions.items():
        write_mask(tmp_path / folder / "0001_1.png", mask)
        write_mask(tmp_path / folder / "0002_1.png", empty)
    (tmp_path / "DR_Seg_Grading_Label.csv").write_text("0001_1.png,3\n0002_1.png,0\n")
    source, found = records(tmp_path, "fgadr")
    assert [key.label for key in source.keys()] == [3, 0]
    mask = found["0001_1"]["mask"]
    assert mask.dtype == np.uint8
    expected = np.zeros(SIZE, np.uint8)
    for folder, code in (  # the papers' painting order: exudate, haemorrhage, microaneurysm, soft exudate, new vessels, IRMA
        ("HardExudate_Masks", 4),
        ("Hemohedge_Masks", 3),
        ("Microaneurysms_Masks", 2),
        ("SoftExudate_Masks", 5),
        ("Neovascularization_Masks", 6),
        ("IRMA_Masks", 7),
    ):
        expected[lesions[folder]] = code
    np.testing.assert_array_equal(mask, np.where(inside, expected, 255))
    assert set(np.unique(mask)) == {0, 2, 3, 4, 5, 6, 7, 255}
    assert set(np.unique(found["0002_1"]["mask"])) == {0, 255}


@pytest.mark.parametrize("below", ["", "A. Segmentation"])
def test_idrid(tmp_path, below):
    base = tmp_path / below
    truth = base / "2. All Segmentation Groundtruths"
    photograph(base / "1. Original Images" / "a. Training Set" / "IDRiD_01.jpg")
    inside = photograph(base / "1. Original Images" / "b. Testing Set" / "IDRiD_55.jpg")
    disc, exudate, dots = box(9, 12, 6, 6), box(8, 8), box(14, 16, 1, 1)
    write_mask(truth / "a. Training Set" / "5. Optic Disc" / "IDRiD_01_OD.tif", disc, "red")
    write_mask(truth / "b. Testing Set" / "1. Microaneurysms" / "IDRiD_55_MA.tif", dots, "red alpha")
    write_mask(truth / "b. Testing Set" / "3. Hard Exudates" / "IDRiD_55_EX.tif", exudate, "red")
    write_mask(truth / "b. Testing Set" / "5. Optic Disc" / "IDRiD_55_OD.tif", disc, "red")
    source, found = records(tmp_path, "idrid")
    assert [key.id for key in source.keys()] == ["IDRiD_01", "IDRiD_55"]
    expected = np.zeros(SIZE, np.uint8)
    expected[disc] = 1
    expected[exudate] = 4
    expected[dots] = 2
    np.testing.assert_array_equal(found["IDRiD_55"]["mask"] == 255, ~found_field(found["IDRiD_55"]["image"]))
    np.testing.assert_array_equal(found["IDRiD_55"]["mask"][inside], expected[inside])
    assert set(np.unique(found["IDRiD_01"]["mask"])) == {0, 1, 255}


def found_field(image):
    return image.max(-1) > 10


def palm_tree(root):
    images, disc_and_lesion = root / "PALM-Training400" / "PALM-Training400", root / "PALM-Training400"
    for name in ("H0001", "N0001", "P0001", "P0002"):
        photograph(images / f"{name}.jpg")
    for name in ("H0001", "P0001"):
        write_mask(
            disc_and_lesion / "PALM-Training400-Annotation-D&F" / "Disc_Masks" / f"{name}.bmp", box(9, 12), "black on white"
        )
    atrophy = disc_and_lesion / "PALM-Training400-Annotation-Lession" / "Lesion_Masks" / "Atrophy"
    for name in ("P0001", "P0002"):
        write_mask(atrophy / f"{name}.bmp", box(8, 10, 8, 8), "black on white")
    write_mask(atrophy.parent / "Detachment" / "P0002.bmp", box(4, 12), "black on white")


def test_palm(tmp_path):
    palm_tree(tmp_path)
    source, found = records(tmp_path, "palm")
    assert {key.id: key.label for key in source.keys()} == {"H0001": 0, "N0001": 0, "P0001": 1, "P0002": 1}
    mask = found["P0001"]["mask"]
    assert (mask[box(9, 12)] == 1).all(), "the disc is on top"
    assert (mask[box(8, 10, 8, 8) & ~box(9, 12)] == 2).all()
    assert (mask == 2).sum() == 8 * 8 - 16
    assert set(np.unique(found["P0002"]["mask"])) == {0, 2, 255}
    assert "mask" not in found["N0001"]
    for name in ("V0001", "T0400"):
        photograph(tmp_path / "PALM-Validation400" / f"{name}.jpg")
    assert {key.label for key in FolderSource(tmp_path).keys() if key.id[0] in "VT"} == {None}


def test_m1_of_palm_the_complete_pairs_are_kept(tmp_path):
    import medsynth_tf as ms

    palm_tree(tmp_path)
    source = FolderSource(tmp_path)
    small = {"image_size": 32, "data.split_fractions": [1.0, 0.0, 0.0]}
    kept = [
        [key.id for key in complete_keys(source, ms.load_config("pm_dcgan", overrides={**small, "channels": c}), "train")]
        for c in (3, 4, 5)
    ]
    assert kept == [["H0001", "N0001", "P0001", "P0002"], ["H0001", "P0001"], ["P0001"]]


def test_adam_without_its_diseased_eyes(tmp_path):
    photograph(tmp_path / "Training400" / "AMD" / "A0001.jpg")
    for name in ("N0001", "N0002"):
        photograph(tmp_path / "Training400" / "Non-AMD" / f"{name}.jpg")
    for name in ("A0001", "N0001"):
        write_mask(tmp_path / "Disc_Masks" / f"{name}.bmp", box(9, 12), "black on white")
    source, found = records(tmp_path, "adam")
    assert [(key.id, key.label) for key in source.keys()] == [("N0001", 0), ("N0002", 0)]
    np.testing.assert_array_equal(found["N0001"]["mask"] == 1, box(9, 12))
    assert "mask" not in found["N0002"]


@pytest.mark.parametrize("below", ["", "1000images"])
def test_fundus1000(tmp_path, below):
    names = [
        "0.0.Normal",
        "0.1.Tessellated fundus",
        "0.2.Large optic cup",
        "2.0.BRVO",
        "10.0.Possible glaucoma",
        "13.Dragged Disc",
    ]
    for index, name in enumerate(names):
        photograph(tmp_path / below / name / f"1ffa9{index}.JPG")
        photograph(tmp_path / below / name / "same.JPG")
    source, _ = records(tmp_path, "fundus1000")
    assert [(key.id, key.label) for key in source.keys()][::2] == [(f"{name}/1ffa9{i}", i) for i, name in enumerate(names)]
    assert len(source.keys()) == 12


def test_masks_of_another_size_and_names_that_stand_twice_are_refused(tmp_path):
    palm_tree(tmp_path)
    disc = next(tmp_path.rglob("Disc_Masks")) / "P0001.bmp"
    Image.new("L", (5, 5), 255).save(disc)
    source = FolderSource(tmp_path)
    with pytest.raises(DataError, match=r"P0001.bmp: mask of size \[5, 5\], its photograph has \[24, 32\]"):
        source.read(next(key for key in source.keys() if key.id == "P0001"))
    photograph(tmp_path / "copy" / "P0001.jpg")
    with pytest.raises(DataError, match="have one name"):
        FolderSource(tmp_path).keys()


def test_other_folders_are_not_taken_for_one_of_these(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        photograph(tmp_path / name)
    assert FolderSource(tmp_path).layout == "files"
