"""NIfTI reading against nibabel and closed forms."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers import read_image, read_mask

NAMES = ("CT_AVM", "CT_pitch", "MR_Gd", "chris_MRA", "chris_PD", "chris_t1")


@pytest.mark.parametrize("name", NAMES)
def test_real_volume_is_what_nibabel_says(shared_data, name):
    path = shared_data / "nifti" / f"{name}.nii.gz"
    record = read_image(path)
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    np.testing.assert_allclose(record["image"][..., 0], canonical.get_fdata().T, rtol=1e-6)
    np.testing.assert_allclose(record["spacing"], canonical.header.get_zooms()[::-1], rtol=1e-6)
    assert set(record) == {"image", "spacing"}


def test_every_shared_volume_is_in_the_table(shared_data):
    assert {path.name.split(".")[0] for path in (shared_data / "nifti").glob("*.nii.gz")} == set(NAMES)


def test_any_stored_orientation_gives_the_same_volume(tmp_path):
    values = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(np.int16)
    straight = nibabel.Nifti1Image(values, np.diag([0.5, 1.0, 2.0, 1.0]))
    straight.to_filename(tmp_path / "ras.nii")
    for codes in ("LPS", "ASR", "IPL"):
        turn = nibabel.orientations.ornt_transform(
            nibabel.io_orientation(straight.affine), nibabel.orientations.axcodes2ornt(codes)
        )
        straight.as_reoriented(turn).to_filename(tmp_path / f"{codes}.nii")
        record = read_image(tmp_path / f"{codes}.nii")
        np.testing.assert_array_equal(record["image"][..., 0], values.transpose(2, 1, 0))
        np.testing.assert_array_equal(record["spacing"], [2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "dtype"),
    [("uint8", 1, 0, "uint8"), ("int16", 2, -1024, "int16"), ("int16", 3000, 0, "int32"), ("uint8", 0.25, 1, "float32")],
)
def test_slope_and_intercept(tmp_path, stored, slope, intercept, dtype):
    values = np.random.default_rng(0).integers(0, 100, (3, 4, 5)).astype(stored)
    volume = nibabel.Nifti1Image(values, np.eye(4))
    volume.header.set_slope_inter(slope, intercept)
    nibabel.save(volume, tmp_path / "scaled.nii")
    raw = bytearray((tmp_path / "scaled.nii").read_bytes())  # nibabel divides on saving: put the stored values back
    raw[352:] = np.asfortranarray(values).tobytes(order="F")
    (tmp_path / "scaled.nii").write_bytes(raw)
    image = read_image(tmp_path / "scaled.nii")["image"]
    assert image.dtype == dtype
    np.testing.assert_array_equal(image[..., 0], (values.astype(float) * slope + intercept).T)


@pytest.mark.parametrize("stored", ["int8", "uint8", "uint16", "int32", "int64", "float32", "float64"])
def test_stored_types(tmp_path, stored):
    values = np.arange(24).reshape(2, 3, 4).astype(stored)
    nibabel.Nifti1Image(values, np.eye(4), dtype=values.dtype).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")["image"][..., 0], values.T)


def test_fourth_axis_and_colours_become_channels_and_2d_one_slice(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "4d.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "4d.nii")["image"], values.transpose(2, 1, 0, 3))
    nibabel.Nifti1Image(values[:, :, 0, 0], np.eye(4)).to_filename(tmp_path / "2d.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "2d.nii")["image"], values[:, :, 0, 0].T[np.newaxis, ..., np.newaxis])
    colours = np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"] = 7
    nibabel.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "rgb.nii")
    assert read_image(tmp_path / "rgb.nii")["image"].shape == (4, 3, 2, 3)
    assert read_image(tmp_path / "rgb.nii")["image"][..., 1].min() == 7


def test_metres_become_millimetres(tmp_path):
    volume = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.diag([0.001, 0.001, 0.002, 1]))
    volume.header.set_xyzt_units("meter")
    volume.to_filename(tmp_path / "a.nii")
    np.testing.assert_allclose(read_image(tmp_path / "a.nii")["spacing"], [2, 1, 1], rtol=1e-6)


def test_broken_values_are_counted(tmp_path):
    values = np.zeros((2, 2, 2), np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.nan, np.inf
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "a.nii")
    with pytest.raises(DataError, match="2 of 8 values"):
        read_image(tmp_path / "a.nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("keep", [0, 60, 0.5, 0.9])
def test_truncated_file_is_refused_in_one_line(tmp_path, name, keep):
    values = np.random.default_rng(0).integers(0, 255, (20, 20, 20)).astype(np.uint8)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: keep if keep > 1 else int(keep * len(whole))])
    with pytest.raises(DataError, match=name) as caught:
        read_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_masks_hold_whole_labels(tmp_path):
    labels = np.array([[[0, 1], [300, 2]]], np.float32)
    nibabel.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "a.nii")
    mask = read_mask(tmp_path / "a.nii")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, labels.T)
    nibabel.Nifti1Image(labels / 2, np.eye(4)).to_filename(tmp_path / "b.nii")
    with pytest.raises(DataError, match="whole labels"):
        read_mask(tmp_path / "b.nii")
