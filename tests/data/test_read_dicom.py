"""DICOM reading against pydicom's own arrays and closed forms."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut
from pydicom.uid import JPEG2000Lossless, RLELossless

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.readers import read_image, read_mask
from medsynth_tf.data.readers.dicom import read_dicom_header, read_patient_id
from tests.data.dicom_files import write_dicom, write_series

REAL = {  # file: (shape, dtype)
    "693_J2KR": ((512, 512, 1), "int16"),
    "693_UNCI": ((512, 512, 1), "int16"),
    "JPEG-LL": ((1024, 256, 1), "int16"),
    "MR-SIEMENS-DICOM-WithOverlays": ((484, 484, 1), "uint16"),
    "MR2_J2KI": ((1024, 1024, 1), "float32"),
    "MR2_UNCI": ((1024, 1024, 1), "float32"),
    "OBXXXX1A_rle": ((600, 800, 3), "uint8"),
    "US1_J2KI": ((480, 640, 3), "uint8"),
    "US1_UNCI": ((480, 640, 3), "uint8"),
    "bad_sequence": ((512, 512, 1), "int16"),
    "color-pl": ((120, 256, 3), "uint8"),
    "emri_small": ((10, 64, 64, 1), "uint16"),
    "emri_small_RLE": ((10, 64, 64, 1), "uint16"),
    "explicit_VR-UN": ((512, 512, 1), "int16"),
    "liver": ((3, 512, 512, 1), "uint8"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_file_is_what_pydicom_says(shared_data, name):
    path = shared_data / "dicom" / f"{name}.dcm"
    record = read_image(path)
    dataset = pydicom.dcmread(path)
    expected = dataset.pixel_array
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        expected = apply_color_lut(expected, dataset) / 256  # 16-bit entries that end in a zero byte
    elif dataset.SamplesPerPixel == 1:
        expected = apply_modality_lut(expected, dataset)
    assert (record["image"].shape, record["image"].dtype) == REAL[name]
    np.testing.assert_allclose(record["image"].reshape(expected.shape), expected, rtol=1e-6)
    assert record.get("patient_id", "") == (dataset.get("PatientID") or "")
    assert record["modality"] == dataset.Modality
    if "PixelSpacing" in dataset:
        np.testing.assert_allclose(record["spacing"], dataset.PixelSpacing)
    assert set(record) <= {"image", "spacing", "patient_id", "modality"}


def test_every_shared_file_is_in_the_table(shared_data):
    assert {path.stem for path in (shared_data / "dicom").glob("*.dcm")} == set(REAL)


def test_suffix_is_not_needed(tmp_path):
    path = write_dicom(tmp_path / "IM000001", np.arange(20, dtype=np.int16).reshape(4, 5))
    record = read_image(path)
    np.testing.assert_array_equal(record["image"][..., 0], np.arange(20).reshape(4, 5))
    np.testing.assert_array_equal(record["spacing"], [0.5, 0.25])
    assert record["patient_id"] == read_patient_id(path) == "P1"


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_lossless_syntaxes_give_the_same_pixels(tmp_path, syntax, dtype):
    pixels = np.random.default_rng(0).integers(0, 120, (65, 48)).astype(dtype) * (1 if dtype == "uint8" else 200)
    pixels[5:20] = 7  # runs for RLE
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm", pixels, syntax))["image"][..., 0], pixels)


def test_rle_colour_and_frames(tmp_path):
    colour = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dcm", colour, RLELossless))["image"], colour)
    frames = np.random.default_rng(0).integers(0, 255, (4, 9, 7), np.uint16)
    path = write_dicom(tmp_path / "b.dcm", frames, RLELossless, NumberOfFrames=4)
    record = read_image(path)
    np.testing.assert_array_equal(record["image"][..., 0], frames)
    np.testing.assert_array_equal(record["spacing"], [2, 0.5, 0.25])


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, -1024, "int16"), (2, 5, "int16"), (-1, 0, "int16"), (100, 0, "int32"), (0.5, 1, "float32")],
)
def test_rescale_is_lossless_and_keeps_integers(tmp_path, slope, intercept, dtype):
    stored = np.array([[0, 1, 4095], [700, 30, 2]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept)
    image = read_image(path)["image"]
    assert image.dtype == dtype
    np.testing.assert_array_equal(image[..., 0], stored.astype(np.float64) * slope + intercept)


def test_rescale_beyond_sixteen_bits_does_not_wrap(tmp_path):
    stored = np.array([[65535, 0], [40000, 1]], np.uint16)
    path = write_dicom(tmp_path / "a.dcm", stored, RescaleSlope=1, RescaleIntercept=-32768)
    np.testing.assert_array_equal(read_image(path)["image"][..., 0], stored.astype(int) - 32768)
    assert read_image(path)["image"].dtype == np.int16
    path = write_dicom(tmp_path / "b.dcm", stored, RescaleSlope=1, RescaleIntercept=-1)
    assert read_image(path)["image"].dtype == np.int32
    np.testing.assert_array_equal(read_image(path)["image"][..., 0], stored.astype(int) - 1)


def test_rescale_of_each_frame(tmp_path):
    def groups(slope: float, intercept: float) -> Dataset:
        transformation, frame = Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = slope, intercept, "US"
        frame.PixelValueTransformationSequence = [transformation]
        return frame

    stored = np.stack([np.full((3, 3), 10, np.uint16)] * 2)
    path = write_dicom(
        tmp_path / "a.dcm", stored, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=[groups(1.5, 0), groups(2, -3)]
    )
    image = read_image(path)["image"]
    assert image.dtype == np.float32
    assert image[0].max() == 15
    assert image[1].min() == 17


def test_modality_table_of_values(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], np.array([0, 10, 500, 40000], "<u2").tobytes(), "US"
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 3]], np.uint8), ModalityLUTSequence=[table])
    np.testing.assert_array_equal(read_image(path)["image"][..., 0], [[0, 10], [500, 40000]])


@pytest.mark.parametrize(("dtype", "bits", "expected"), [("uint16", 12, 4095 - 100), ("uint8", 8, 155), ("int16", 16, -101)])
def test_monochrome1_is_turned_so_that_higher_is_brighter(tmp_path, dtype, bits, expected):
    pixels = np.full((2, 2), 100, dtype)
    path = write_dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1", BitsStored=bits, HighBit=bits - 1)
    assert np.all(read_image(path)["image"] == expected)


def test_ybr_becomes_rgb_and_planes_become_pixels(tmp_path):
    # Full-range BT.601: Y=150 with neutral chroma is grey 150; Y=76, Cb=85, Cr=255 is red.
    ybr = np.array([[[150, 128, 128], [76, 85, 255]]], np.uint8)
    image = read_image(write_dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation="YBR_FULL"))["image"]
    np.testing.assert_allclose(image[0], [[150, 150, 150], [254, 0, 0]], atol=1)
    planes = np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]], np.uint8)  # [3, H, W]
    path = write_dicom(tmp_path / "b.dcm", np.zeros((2, 2, 3), np.uint8), PlanarConfiguration=1, PixelData=planes.tobytes())
    np.testing.assert_array_equal(read_image(path)["image"], planes.transpose(1, 2, 0))


@pytest.mark.parametrize("keep", [0, 100, 300, 800])
def test_truncated_file_is_refused_in_one_line(tmp_path, keep):
    whole = write_dicom(tmp_path / "whole.dcm", np.zeros((20, 20), np.int16)).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"cut\.dcm: ") as caught:
        read_image(tmp_path / "cut.dcm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_truncated_compressed_pixels_are_refused(tmp_path, syntax):
    pixels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", pixels, syntax)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"a\.dcm: "):
        read_image(path)


def test_objects_without_an_image_are_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8))
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(DataError, match="no pixels"):
        read_image(path)


def test_header_that_asks_for_absurd_memory_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8), Rows=65535, Columns=65535)
    with pytest.raises(DataError, match="more than"):
        read_image(path)


def test_segmentation_is_read_as_a_mask(shared_data):
    mask = read_mask(shared_data / "dicom" / "liver.dcm")
    assert mask.shape == (3, 512, 512)
    assert set(np.unique(mask)) == {0, 1}


def test_no_name_is_kept_in_a_header(tmp_path):
    header = read_dicom_header(write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.uint8)))
    assert "Secret" not in repr(header)


def test_series_is_sorted_along_its_normal(tmp_path):
    write_series(tmp_path / "s", [6.0, 0.0, 3.0])
    record = read_image(tmp_path / "s")
    np.testing.assert_array_equal(record["image"][:, 0, 0, 0], [1, 2, 0])
    np.testing.assert_allclose(record["spacing"], [3, 0.5, 0.25])
    assert record["patient_id"] == "P1"


def test_series_of_another_orientation(tmp_path):
    folder = tmp_path / "s"
    folder.mkdir()
    for index, y in enumerate([4, 2, 0]):  # coronal: the normal of rows (x) and columns (-z) is +y
        write_dicom(
            folder / f"{index}", np.full((2, 2), index, np.int16), ImagePositionPatient=[0, y, 0],
            ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
        )  # fmt: skip
    np.testing.assert_array_equal(read_image(folder)["image"][:, 0, 0, 0], [2, 1, 0])


@pytest.mark.parametrize(
    ("heights", "message"),
    [([0, 1, 2, 4], "gap of 2.000 mm after slice 2"), ([0, 1, 1], "same position")],
)
def test_series_with_missing_or_double_slices_is_refused(tmp_path, heights, message):
    write_series(tmp_path / "s", heights)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "s")


def test_series_of_mixed_sizes_series_or_patients_is_refused(tmp_path):
    geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 9]}
    for name, pixels, elements, message in (
        ("size", np.zeros((9, 9), np.int16), {}, "slices of shapes"),
        ("series", np.zeros((4, 5), np.int16), {"SeriesInstanceUID": "9.9"}, "2 series"),
        ("patient", np.zeros((4, 5), np.int16), {"PatientID": "P2"}, "2 patient ids"),
        ("spacing", np.zeros((4, 5), np.int16), {"PixelSpacing": [1, 1]}, "different pixel spacings"),
    ):
        write_series(tmp_path / name, [0, 3, 6])
        write_dicom(tmp_path / name / "odd.dcm", pixels, **{**geometry, **elements})
        with pytest.raises(DataError, match=message):
            read_image(tmp_path / name)
    write_dicom(tmp_path / "size" / "lost.dcm", np.zeros((4, 5), np.int16))
    with pytest.raises(DataError, match="no ImagePositionPatient"):
        read_image(tmp_path / "size")
