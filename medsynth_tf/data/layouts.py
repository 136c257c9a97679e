"""How folders are laid out: a manifest, or one of the trees in `LAYOUTS`. Each gives the entries of a folder.

A new public data set is a function here and a line in the table.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import challenge_points
from medsynth_tf.data import fundus_layouts as fundus
from medsynth_tf.data.entries import Entry, identifiers, image_files
from medsynth_tf.data.manifest import read_labels
from medsynth_tf.data.readers import image_format, read_mask
from medsynth_tf.data.readers.dicom_series import series_of
from medsynth_tf.data.records import OUTSIDE


@dataclasses.dataclass(frozen=True)
class Layout:
    """A tree of files: when a folder has it, and what its entries are."""

    recognises: Callable[[Path], bool]
    entries: Callable[[Path], list[Entry]]


def _plain(root: Path) -> list[Entry]:
    return [Entry(identity, (path,)) for path, identity in identifiers(image_files(root), root).items()]


def _series(root: Path) -> list[Entry]:
    """Each DICOM series a volume, named by its folder, with a number where a folder holds several."""
    files = [path for path in image_files(root) if image_format(path) == "dicom"]
    folders: dict[str, list[Entry]] = collections.defaultdict(list)
    for slices in series_of(files).values():
        paths, header = tuple(path for path, _ in slices), slices[0][1]
        name = paths[0].parent.relative_to(root).as_posix()
        folders[root.name if name == "." else name].append(Entry("", paths, patient_id=header.patient_id or None))
    return [
        dataclasses.replace(entry, id=name if len(entries) == 1 else f"{name}-{number}")
        for name, entries in folders.items()
        for number, entry in enumerate(entries)
    ]


def _images_masks(root: Path) -> list[Entry]:
    """`images/x.*`, its mask `masks/x.*` or `masks/x_mask.*`; classes and patients in `labels.csv`."""
    masks: dict[str, Path] = {}
    for path, identity in identifiers(image_files(root / "masks"), root / "masks").items():
        masks[identity.removesuffix("_mask")] = path
    labels = read_labels(root / "labels.csv") if (root / "labels.csv").is_file() else {}
    entries = []
    for path, identity in identifiers(image_files(root / "images"), root / "images").items():
        mask = (masks.pop(identity),) if identity in masks else ()
        entries.append(Entry(identity, (path,), mask, **labels.pop(identity, {})))
    if masks:
        raise DataError(f"{next(iter(masks.values()))}: a mask without an image of that name in {root / 'images'}")
    if labels:
        raise DataError(f"{root / 'labels.csv'}: no image '{next(iter(labels))}' in {root / 'images'}")
    return entries


def drive_label_map(paths: Sequence[Path]) -> np.ndarray:
    """DRIVE's vessel map and field of view → uint8 [H, W]: 0 retina, 1 vessel, 255 outside the field of view."""
    vessels, view = (read_mask(path) for path in paths)
    if vessels.shape != view.shape:
        raise DataError(f"{paths[1]}: field of view of size {view.shape}, but the vessels have {vessels.shape}")
    return np.where(view > 0, (vessels > 0).astype(np.uint8), np.uint8(OUTSIDE))


def _drive(root: Path) -> list[Entry]:
    """DRIVE (Staal et al. 2004) as distributed; each photograph is of another patient."""
    return [
        Entry(
            id=image.stem,
            image=(image,),
            masks=(
                root / "1st_manual" / f"{image.stem.split('_')[0]}_manual1.gif",
                root / "mask" / f"{image.stem}_mask.gif",
            ),
            compose_mask=drive_label_map,
            modality="OP",
        )
        for image in sorted((root / "images").glob("*.tif"))
    ]


def _has(*folders: str) -> Callable[[Path], bool]:
    return lambda root: all((root / name).is_dir() for name in folders)


LAYOUTS: dict[str, Layout] = {  # the first that recognises a folder is used
    "drive": Layout(_has("images", "1st_manual", "mask"), _drive),
    "eyepacs": Layout(fundus.is_eyepacs, fundus.eyepacs),
    "aptos": Layout(fundus.is_aptos, fundus.aptos),
    "fgadr": Layout(fundus.is_fgadr, fundus.fgadr),
    "idrid": Layout(fundus.is_idrid, fundus.idrid),
    "adam": Layout(fundus.is_adam, fundus.adam),
    "palm": Layout(fundus.is_palm, fundus.palm),
    "fundus1000": Layout(fundus.is_fundus1000, fundus.fundus1000),
    "adaptor": Layout(challenge_points.is_challenge, challenge_points.challenge_entries),
    "images-masks": Layout(_has("images", "masks"), _images_masks),
    "series": Layout(lambda root: False, _series),  # slices may be meant as images, so this one must be asked for
    "files": Layout(lambda root: True, _plain),
}
