"""Written files: read back with our readers and with the libraries themselves."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers import read_image, read_mask
from medsynth_tf.data.writers import Provenance, write_image

PROVENANCE = Provenance("retina", "3", 42, "semantic_retina", "2024-05-01T12:34:56+00:00")


def pixels(dtype: str, *shape: int) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 255, shape)
    return (
        (values / 7).astype(dtype) if dtype == "float32" else (values - (100 if dtype.startswith("int") else 0)).astype(dtype)
    )


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("a.png", "uint8", (5, 7, 1)),
        ("a.png", "uint8", (5, 7, 3)),
        ("a.png", "uint16", (5, 7, 1)),
        ("a.dcm", "uint8", (5, 7, 1)),
        ("a.dcm", "uint8", (5, 7, 3)),
        ("a.dcm", "uint16", (4, 6, 1)),
        ("a.dcm", "uint8", (3, 5, 7, 1)),
        ("a.dcm", "uint16", (3, 5, 7, 1)),
        ("a.dcm", "uint8", (3, 5, 7, 3)),
        ("a.nii.gz", "uint8", (3, 5, 7, 1)),
        ("a.nii", "int16", (3, 5, 7, 1)),
        ("a.nii", "uint16", (3, 5, 7, 2)),
        ("a.nii", "int32", (3, 5, 7, 1)),
        ("a.nii.gz", "float32", (3, 5, 7, 1)),
    ],
)
def test_pixels_spacing_and_masks_come_back(tmp_path, name, dtype, shape):
    image = pixels(dtype, *shape)
    mask = np.random.default_rng(1).choice([0, 1, 255], shape[:-1]).astype(np.uint8)
    spacing = [0.75, 0.5, 0.25][-(len(shape) - 1) :]
    paths = write_image(tmp_path / name, image, PROVENANCE, mask=mask, spacing=spacing)
    assert all(path.is_file() for path in paths)
    back = read_image(tmp_path / name)
    assert back["image"].dtype == dtype
    np.testing.assert_array_equal(back["image"], image)
    np.testing.assert_array_equal(read_mask(tmp_path / name.replace("a.", "a_mask.")), mask)
    if not name.endswith(".png"):
        np.testing.assert_allclose(back["spacing"], spacing)


def test_two_dimensional_nifti_is_a_volume_of_one_slice(tmp_path):
    image = pixels("float32", 5, 7, 1)
    write_image(tmp_path / "a.nii", image, PROVENANCE)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")["image"], image[np.newaxis])


def test_png_says_that_it_is_synthetic(tmp_path):
    write_image(tmp_path / "a.png", pixels("uint8", 4, 4, 1), PROVENANCE)
    text = Image.open(tmp_path / "a.png").text
    assert text["SYNTHETIC"] == "true"
    assert text["medsynth:model"] == "retina"
    assert text["medsynth:version"] == "3"
    assert text["medsynth:seed"] == "42"
    assert "SYNTHETIC" in text["Description"]


def test_nifti_says_that_it_is_synthetic_in_header_and_sidecar(tmp_path):
    write_image(tmp_path / "a.nii.gz", pixels("uint8", 2, 4, 4, 1), PROVENANCE)
    assert bytes(nibabel.load(tmp_path / "a.nii.gz").header["descrip"]).startswith(b"SYNTHETIC retina v3 seed 42")
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert sidecar["SYNTHETIC"] is True
    assert (sidecar["model"], sidecar["version"], sidecar["seed"]) == ("retina", "3", 42)


@pytest.mark.parametrize("shape", [(5, 7, 1), (3, 5, 7, 1), (5, 7, 3)])
def test_dicom_is_a_marked_secondary_capture_without_a_patient(tmp_path, shape):
    write_image(tmp_path / "a.dcm", pixels("uint8", *shape), PROVENANCE)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert "Secondary Capture" in dataset.SOPClassUID.name
    assert dataset.PatientID == "SYNTHETIC"
    assert dataset.PatientBirthDate == ""
    assert dataset.SyntheticData == "YES"
    assert dataset.BurnedInAnnotation == "NO"
    assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
    assert "model retina version 3, seed 42" in dataset.DerivationDescription
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        assert pydicom.uid.UID(dataset[name].value).is_valid
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
    assert len(dataset.PixelData) % 2 == 0


def test_repeats_are_the_same_bytes_and_other_seeds_other_objects(tmp_path):
    image = pixels("uint8", 4, 4, 1)
    for suffix in (".dcm", ".nii.gz", ".png"):
        first = write_image(tmp_path / f"a{suffix}", image, PROVENANCE)[0].read_bytes()
        assert write_image(tmp_path / f"b{suffix}", image, PROVENANCE)[0].read_bytes() == first
    other = Provenance("retina", "3", 43, "semantic_retina", PROVENANCE.created)
    write_image(tmp_path / "c.dcm", image, other)
    uids = {pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in ("a.dcm", "b.dcm", "c.dcm")}
    assert len(uids) == 2


@pytest.mark.parametrize(
    ("name", "image", "arguments", "message"),
    [
        ("a.jpg", pixels("uint8", 4, 4, 1), {}, "allowed: .png, .nii.gz, .nii, .dcm"),
        ("a.png", pixels("float32", 4, 4, 1), {}, "PNG cannot hold float32"),
        ("a.png", pixels("uint8", 2, 4, 4, 1), {}, "PNG cannot hold"),
        ("a.dcm", pixels("int16", 4, 4, 1), {}, "cannot hold int16"),
        ("a.nii", np.zeros((4, 4)), {}, r"expected \[H, W, C\]"),
        ("a.png", pixels("uint8", 4, 4, 1), {"mask": np.zeros((4, 5), np.uint8)}, "mask of shape"),
        ("a.png", pixels("uint8", 4, 4, 1), {"spacing": [1.0]}, "spacing of 1"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, image, arguments, message):
    with pytest.raises(DataError, match=message):
        write_image(tmp_path / name, image, PROVENANCE, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_time_that_is_no_time_is_refused(tmp_path):
    broken = Provenance("m", "1", 0, "x", "yesterday")
    with pytest.raises(DataError, match="ISO 8601"):
        write_image(tmp_path / "a.dcm", pixels("uint8", 4, 4, 1), broken)
