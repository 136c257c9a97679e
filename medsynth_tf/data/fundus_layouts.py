"""Public sets of fundus photographs as they are distributed: EyePACS, APTOS, FGADR, IDRiD, PALM, ADAM, Fundus1000.

Each function gives the entries of an unpacked archive; docs/data.md shows the trees. Masks are composed to one label map when a
record is read: structures painted over each other in the papers' order, 255 outside the photograph's field of view.
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.entries import Entry, image_files
from medsynth_tf.data.fundus import field_of_view
from medsynth_tf.data.readers import read_image
from medsynth_tf.data.records import OUTSIDE

# Codes of the semantic_retina paper, in its painting order: later ones cover earlier ones.
_LESIONS = {"OD": 1, "EX": 4, "HE": 3, "MA": 2, "SE": 5, "NV": 6, "IRMA": 7}
_MYOPIA = {"atrophy": 2, "disc": 1}  # the disc is on top of the atrophy around it

_FGADR = {  # "Hemohedge" is how the archive spells it
    "EX": "HardExudate_Masks",
    "HE": "Hemohedge_Masks",
    "MA": "Microaneurysms_Masks",
    "SE": "SoftExudate_Masks",
    "NV": "Neovascularization_Masks",
    "IRMA": "IRMA_Masks",
}
_FGADR_GRADES = "DR_Seg_Grading_Label.csv"
_IDRID_IMAGES, _IDRID_MASKS = "1. Original Images", "2. All Segmentation Groundtruths"
_IDRID = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}
_PALM_NAME = re.compile(r"[HNPVT]\d{4}")  # high myopia, normal, pathological myopia; validation and test say nothing
_CLASS_FOLDER = re.compile(r"(\d+)\.(?:(\d+)\.)?\D.*")


def structure(path: Path) -> np.ndarray:
    """Where a mask file has its structure, bool [H, W], whatever its colours: 0 and 255, 0 and 1, red on black, black on white.

    Some challenges store the structure dark on white: what most of the picture's border shows is the background.

    Raises:
        DataError: the file cannot be read.
    """
    values = read_image(path)["image"].max(-1)
    bright = values > values.max() / 2
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    return ~bright if border.mean() > 0.5 else bright


def compose(paths: Sequence[Path], codes: Sequence[int]) -> np.ndarray:
    """The label map of a photograph and its masks.

    Args:
        paths: the photograph, whose field of view is taken, then the masks.
        codes: of the masks, in painting order.

    Returns:
        uint8 [H, W]: 0 retina, the codes, 255 outside the field of view.

    Raises:
        DataError: a file cannot be read, or a mask is of another size than its photograph.
    """
    photograph = read_image(paths[0])["image"]
    painted = np.zeros(photograph.shape[:2], np.uint8)
    for path, code in zip(paths[1:], codes):
        inside = structure(path)
        if inside.shape != painted.shape:
            raise DataError(f"{path}: mask of size {list(inside.shape)}, its photograph has {list(painted.shape)}")
        painted[inside] = code
    rgb = photograph if photograph.shape[-1] == 3 else photograph[..., :1].repeat(3, -1)
    return np.where(field_of_view(rgb), painted, np.uint8(OUTSIDE))


def _entry(image: Path, masks: Mapping[str, Path], codes: Mapping[str, int], label: int | None = None) -> Entry:
    """A record of a photograph with the masks that exist; without any it has no label map."""
    present = {name: masks[name] for name in codes if name in masks}
    composed: Callable[[Sequence[Path]], np.ndarray] = functools.partial(compose, codes=[codes[name] for name in present])
    if not present:
        return Entry(image.stem, (image,), label=label, modality="OP")
    return Entry(image.stem, (image,), (image, *present.values()), composed, label=label, modality="OP")


def _by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Files by name without suffix.

    Raises:
        DataError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise DataError(f"{path} and {found[path.stem]} have one name: one of them only can be meant")
        found[path.stem] = path
    return found


def _folders(root: Path, name: str) -> list[Path]:
    """Folders of that name, at most two levels below the root: archives unpack into folders of their own."""
    return [path for pattern in (name, f"*/{name}", f"*/*/{name}") for path in sorted(root.glob(pattern)) if path.is_dir()]


def _rows(path: Path) -> Iterator[list[str]]:
    """Rows of a CSV file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from (row for row in csv.reader(file) if row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a table: {error}") from error


def _grades(path: Path) -> dict[str, int]:
    """Image name without suffix → grade, from the first two columns; a header is passed over.

    Raises:
        DataError: a grade is no whole number, or stands twice.
    """
    grades: dict[str, int] = {}
    for number, row in enumerate(_rows(path), 1):
        grade = row[1].strip() if len(row) > 1 else ""
        if not grade.isdigit():
            if number == 1:
                continue
            raise DataError(f"{path}, line {number}: '{grade}' is no grade")
        name = row[0].strip()
        name = name.rsplit(".", 1)[0] if name.lower().endswith((".png", ".jpg", ".jpeg")) else name
        if name in grades:
            raise DataError(f"{path}, line {number}: '{name}' stands twice")
        grades[name] = int(grade)
    return grades


def _graded(images: Iterable[Path], table: Path) -> Iterator[tuple[Path, int]]:
    """The images that are there with their grades; rows of others are passed over, since these sets are often kept in part.

    Raises:
        DataError: an image has no grade.
    """
    grades = _grades(table)
    for stem, path in _by_stem(images).items():
        if stem not in grades:
            raise DataError(f"{path}: no grade in {table}")
        yield path, grades[stem]


# -- graded sets ------------------------------------------------------------------------------------------------------------


def is_eyepacs(root: Path) -> bool:
    """`trainLabels.csv` at the root."""
    return (root / "trainLabels.csv").is_file()


def eyepacs(root: Path) -> list[Entry]:
    """EyePACS (Kaggle 2015): `<patient>_left.jpeg`, `<patient>_right.jpeg` at any depth, grades in `trainLabels.csv`."""
    entries = []
    for path, grade in _graded(image_files(root), root / "trainLabels.csv"):
        patient, _, side = path.stem.rpartition("_")
        if side not in ("left", "right") or not patient:
            raise DataError(f"{path}: expected <patient>_left or <patient>_right")
        entries.append(Entry(path.stem, (path,), patient_id=patient, label=grade, modality="OP"))
    return entries


def is_aptos(root: Path) -> bool:
    """`train.csv` beside `train_images`."""
    return (root / "train.csv").is_file() and (root / "train_images").is_dir()


def aptos(root: Path) -> list[Entry]:
    """APTOS 2019 (Kaggle): `train_images/*.png`, grades in `train.csv` (`id_code,diagnosis`); no patient ids are given."""
    graded = _graded(image_files(root / "train_images"), root / "train.csv")
    return [Entry(path.stem, (path,), label=grade, modality="OP") for path, grade in graded]


def _class_folders(root: Path) -> list[Path]:
    """Folders named by number and class, by number: `0.0.Normal`, `0.1.Tessellated fundus`, …, `29.1.Blur fundus`."""
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        numbered = [
            (match, path) for path in folder.iterdir() if path.is_dir() and (match := _CLASS_FOLDER.fullmatch(path.name))
        ]
        if len(numbered) > 1 and any(match[2] for match, _ in numbered):
            return [path for *_, path in sorted((int(match[1]), int(match[2] or 0), path) for match, path in numbered)]
    return []


def is_fundus1000(root: Path) -> bool:
    """Folders named by number and class."""
    return bool(_class_folders(root))


def fundus1000(root: Path) -> list[Entry]:
    """1000 fundus images of 39 categories (JSIEC): one folder a class; labels count the folders in the order of their numbers."""
    return [
        Entry(f"{folder.name}/{path.stem}", (path,), label=label, modality="OP")
        for label, folder in enumerate(_class_folders(root))
        for path in image_files(folder)
    ]


# -- sets with masks --------------------------------------------------------------------------------------------------------


def is_fgadr(root: Path) -> bool:
    """`Original_Images` beside `HardExudate_Masks`."""
    return (root / "Original_Images").is_dir() and (root / _FGADR["EX"]).is_dir()


def fgadr(root: Path) -> list[Entry]:
    """FGADR's Seg-set: `Original_Images`, a folder of masks a lesion, grades in `DR_Seg_Grading_Label.csv` (no header)."""
    masks = {name: _by_stem(image_files(root / folder)) for name, folder in _FGADR.items() if (root / folder).is_dir()}
    images = image_files(root / "Original_Images")
    table = root / _FGADR_GRADES
    labels: dict[Path, int] = dict(_graded(images, table)) if table.is_file() else {}
    return [
        _entry(
            path, {name: files[path.stem] for name, files in masks.items() if path.stem in files}, _LESIONS, labels.get(path)
        )
        for path in _by_stem(images).values()
    ]


def is_idrid(root: Path) -> bool:
    """The numbered folders of the segmentation part, at the root or below `A. Segmentation`."""
    return any(
        (folder / _IDRID_MASKS).is_dir() and (folder / _IDRID_IMAGES).is_dir() for folder in (root, root / "A. Segmentation")
    )


def idrid(root: Path) -> list[Entry]:
    """IDRiD's segmentation part, both sets together: `IDRiD_01.jpg` with `IDRiD_01_MA.tif`, `_HE`, `_EX`, `_SE`, `_OD`."""
    base = root if (root / _IDRID_MASKS).is_dir() else root / "A. Segmentation"
    masks: dict[str, dict[str, Path]] = {name: {} for name in _IDRID}
    for part in sorted((base / _IDRID_MASKS).iterdir()):
        for name, folder in _IDRID.items():
            if (part / folder).is_dir():
                masks[name] |= {
                    stem.removesuffix(f"_{name}"): path for stem, path in _by_stem(image_files(part / folder)).items()
                }
    return [
        _entry(path, {name: files[stem] for name, files in masks.items() if stem in files}, _LESIONS)
        for stem, path in _by_stem(image_files(base / _IDRID_IMAGES)).items()
    ]


def _photographs(root: Path, named: Callable[[Path], bool]) -> list[Path]:
    """Photographs of a set whose masks lie in the same tree."""
    return [
        path
        for path in image_files(root)
        if named(path) and not any("mask" in part.lower() for part in path.relative_to(root).parts)
    ]


def _masks_in(root: Path, name: str) -> dict[str, Path]:
    return _by_stem(path for folder in _folders(root, name) for path in image_files(folder))


def is_adam(root: Path) -> bool:
    """A folder `Non-AMD` and one `Disc_Masks`."""
    return bool(_folders(root, "Non-AMD") and _folders(root, "Disc_Masks"))


def adam(root: Path) -> list[Entry]:
    """ADAM's training set (iChallenge-AMD): the photographs in `Non-AMD` alone, with `Disc_Masks`; label 0, no pathological myopia."""
    discs = _masks_in(root, "Disc_Masks")
    return [
        _entry(path, {"disc": discs[path.stem]} if path.stem in discs else {}, _MYOPIA, label=0)
        for path in _by_stem(_photographs(root, lambda path: path.parent.name == "Non-AMD")).values()
    ]


def is_palm(root: Path) -> bool:
    """A folder `Disc_Masks`, and none `Non-AMD`."""
    return bool(_folders(root, "Disc_Masks")) and not _folders(root, "Non-AMD")


def palm(root: Path) -> list[Entry]:
    """PALM (iChallenge-PM): `P0001.jpg` …, `Disc_Masks/P0001.bmp`, `Lesion_Masks/Atrophy/P0001.bmp`; detachment is left out.

    The label is 1 for P (pathological myopia) and 0 for H and N (high myopia, normal); names of validation and test say none.
    """
    masks = {"disc": _masks_in(root, "Disc_Masks"), "atrophy": _masks_in(root, "Lesion_Masks/Atrophy")}
    entries = []
    for stem, path in _by_stem(_photographs(root, lambda path: bool(_PALM_NAME.fullmatch(path.stem)))).items():
        label = None if stem[0] in "VT" else int(stem[0] == "P")
        entries.append(_entry(path, {name: files[stem] for name, files in masks.items() if stem in files}, _MYOPIA, label))
    return entries
