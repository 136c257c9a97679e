"""Valid records for tests."""

from __future__ import annotations

from typing import Any

import numpy as np


def make_record(number: int = 0, dimensions: int = 2, dtype: str = "uint8", channels: int = 1) -> dict[str, Any]:
    """A record with every name, its values drawn from `number`."""
    rng = np.random.default_rng(number)
    size = (3, 6, 5)[-dimensions:]
    high = 255 if dtype == "uint8" else 30000
    return {
        "id": f"record-{number}",
        "patient_id": f"patient-{number // 2}",
        "image": rng.integers(0, high, (*size, channels)).astype(dtype) - np.array(dtype.startswith("int")).astype(dtype) * 9,
        "mask": rng.choice([0, 1, 255], size).astype(np.uint8),
        "label": number,
        "landmarks": np.array([[1.25] * dimensions, [np.nan] * dimensions], np.float32),
        "boxes": np.array([[0] * dimensions + [2] * dimensions], np.float32),
        "box_labels": np.array([4], np.int64),
        "spacing": np.array([2.5, 0.1, 0.7][-dimensions:], np.float32),
        "modality": "MR",
    }


def assert_same_record(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            assert actual[name].dtype == value.dtype, name
            np.testing.assert_array_equal(actual[name], value, err_msg=name)
        else:
            assert actual[name] == value, name
