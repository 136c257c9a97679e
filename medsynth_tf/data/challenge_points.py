"""The AdaptOR challenge's files: frames of endoscopic mitral-valve repair with JSON lists of suture points, and JSON predictions.

<root>/<surgery>/<video>/images/000000.png
<root>/<surgery>/<video>/point_labels/000000.json    {"imageHeight", "imageWidth", "points": [{"x": column, "y": row}, …]}
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text
from medsynth_tf.data.entries import Entry

SIMULATOR, INTRAOPERATIVE = 0, 1
_SIMULATED_SURGERIES = 10  # aicm1 … aicm10 are on the simulator, aicm11 … aicm14 patients


def is_challenge(root: Path) -> bool:
    """Whether a folder has a surgery's video with frames and labels."""
    return any(folder.is_dir() for folder in root.glob("*/*/point_labels"))


def challenge_entries(root: Path) -> list[Entry]:
    """One entry a frame: id surgery/video/frame, `patient_id` the surgery, `label` 0 simulator or 1 intra-operative, landmarks.

    Raises:
        DataError: a frame without labels, or labels that are no list of points.
    """
    entries = []
    for labels in sorted(root.glob("*/*/point_labels")):
        video, surgery = labels.parent.name, labels.parent.parent.name
        for image in sorted((labels.parent / "images").glob("*.png")):
            file = labels / f"{image.stem}.json"
            points = tuple((float(row), float(column)) for row, column in read_points(file))
            entries.append(
                Entry(
                    f"{surgery}/{video}/{image.stem}",
                    (image,),
                    patient_id=surgery,
                    label=_domain(surgery),
                    landmarks=points,
                    modality="ES",  # DICOM's code of endoscopy
                )
            )
    return entries


def _domain(surgery: str) -> int | None:
    number = surgery.removeprefix("aicm")
    if not number.isdecimal():
        return None
    return SIMULATOR if int(number) <= _SIMULATED_SURGERIES else INTRAOPERATIVE


def read_points(path: str | Path) -> np.ndarray:
    """The points of a label or prediction file, float32 [N, 2] as (row, column); N may be 0.

    Raises:
        DataError: the file cannot be read, is not JSON, or holds no list of points with numbers x and y.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    points = values.get("points") if isinstance(values, dict) else None
    if not isinstance(points, list):
        raise DataError(f"{path}: has no list 'points'")
    found = []
    for point in points:
        pair = (point.get("y"), point.get("x")) if isinstance(point, dict) else (None, None)
        if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in pair):
            raise DataError(f"{path}: point {point!r}, expected finite numbers x and y")
        found.append(pair)
    return np.asarray(found, np.float32).reshape(-1, 2)


def write_points(path: str | Path, points: Iterable[Iterable[float]], image: tuple[int, int] | str) -> None:
    """Writes points (row, column) as the challenge's JSON, whole or not at all.

    Args:
        path: the file.
        points: any number of them.
        image: (height, width), for a label file; or the frame's id surgery/video/frame, for a prediction.
    """
    listed = [{"x": float(column), "y": float(row)} for row, column in points]
    values: dict[str, Any]
    if isinstance(image, str):
        surgery, video, frame = image.split("/")
        values = {"folderName": surgery, "subfolderName": video, "imageFileName": f"{frame}.png", "points": listed}
    else:
        values = {"imageHeight": image[0], "imageWidth": image[1], "points": listed}
    write_text(path, json.dumps(values, indent=2) + "\n")
