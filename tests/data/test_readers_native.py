"""The short way through common DICOM files: the same records as the long way, and what is odd goes the long way."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medsynth_tf.data.readers import dicom
from medsynth_tf.data.readers.dicom import read_dicom, read_dicom_header, read_patient_id
from medsynth_tf.data.readers.native import native_header, native_image, native_patient_id
from tests.data.dicom_files import write_dicom

GEOMETRY = {"ImagePositionPatient": [1, -2.5, 3e1], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}


def native(path):
    with path.open("rb") as file:
        return native_image(file, path)


def by_pydicom(path, monkeypatch):
    """(record, header, patient id) with the short way closed."""
    with monkeypatch.context() as patch:
        for name in ("native_image", "native_header", "native_patient_id"):
            patch.setattr(dicom, name, lambda *_: None)
        return read_dicom(path), read_dicom_header(path), read_patient_id(path)


def assert_same(path, monkeypatch):
    record, header, patient_id = by_pydicom(path, monkeypatch)
    image, kept = native(path)
    np.testing.assert_array_equal(image, record["image"])
    assert image.dtype == record["image"].dtype
    assert kept == header == read_dicom_header(path)
    assert kept.patient_id == patient_id == read_patient_id(path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("spare", [0, 4])
def test_as_pydicom_for_types_and_stored_bits(tmp_path, monkeypatch, dtype, photometric, spare):
    info = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(info.min, info.max, (7, 9), dtype, endpoint=True)  # also in the spare bits
    elements = {"BitsStored": info.bits - spare, "HighBit": info.bits - spare - 1, "PhotometricInterpretation": photometric}
    assert_same(write_dicom(tmp_path / "a.dcm", pixels, **elements, **GEOMETRY), monkeypatch)


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": 2, "RescaleIntercept": -1024},
        {"RescaleSlope": "0.5", "RescaleIntercept": ""},
        {"PixelSpacing": "", "ImagerPixelSpacing": [0.1, 0.2]},
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": [1, 2, 3], "SliceThickness": ""},
        {"SpacingBetweenSlices": -4},
        {"PatientID": " a b "},
        {"PatientID": "", "Modality": "", "SeriesInstanceUID": ""},
        {"NumberOfFrames": 2, "Rows": 2},
        {"ICCProfile": b"x" * 40000},
    ],
)
def test_as_pydicom_for_elements(tmp_path, monkeypatch, elements):
    pixels = np.arange(20, dtype=np.int16).reshape((2, 2, 5) if "NumberOfFrames" in elements else (4, 5))
    assert_same(write_dicom(tmp_path / "a.dcm", pixels, **elements), monkeypatch)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_as_pydicom_behind_nested_sequences(tmp_path, monkeypatch, implicit, undefined):
    path = write_dicom(tmp_path / "a.dcm", np.arange(20, dtype=np.int16).reshape(4, 5))
    dataset = pydicom.dcmread(path)
    inner, outer = Dataset(), Dataset()
    inner.PatientID, inner.Rows = "another", 999
    inner.is_undefined_length_sequence_item = outer.is_undefined_length_sequence_item = undefined
    outer.ReferencedStudySequence = [inner, inner]
    dataset.ReferencedImageSequence = [outer]
    dataset["ReferencedImageSequence"].is_undefined_length = undefined
    outer["ReferencedStudySequence"].is_undefined_length = undefined
    if implicit:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True)
    assert_same(path, monkeypatch)


@pytest.mark.parametrize("elements", [{"PatientID": "Müller", "SpecificCharacterSet": "ISO_IR 100"}, {"PatientID": "a~b"}])
def test_texts_that_need_a_character_set_are_pydicoms(tmp_path, monkeypatch, elements):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.int16), **elements)
    assert native(path) is None
    assert read_patient_id(path) == by_pydicom(path, monkeypatch)[2] == elements["PatientID"]


def test_what_is_odd_is_pydicoms(tmp_path):
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4, 0, 16], b"\0" * 8, "US"
    pixels = np.zeros((4, 4), np.uint16)
    assert native(write_dicom(tmp_path / "table", pixels, ModalityLUTSequence=[table])) is None
    assert native(write_dicom(tmp_path / "colour", np.zeros((4, 4, 3), np.uint8))) is None
    assert native(write_dicom(tmp_path / "wide", np.zeros((4, 4), np.uint32))) is None
    assert native(write_dicom(tmp_path / "long", pixels, PixelData=b"\0" * 40)) is None
    assert native(write_dicom(tmp_path / "slopes", pixels, RescaleSlope=[1, 2], RescaleIntercept=0)) is None
    whole = write_dicom(tmp_path / "whole", pixels).read_bytes()
    for keep in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:keep])
        assert native(tmp_path / "cut") is None, keep
    dataset = pydicom.dcmread(tmp_path / "whole")
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(tmp_path / "big", dataset, implicit_vr=False, little_endian=False)
    assert native(tmp_path / "big") is None


def test_headers_of_compressed_files_are_read_and_their_pixels_left(tmp_path, monkeypatch):
    path = write_dicom(tmp_path / "a.dcm", np.zeros((8, 8), np.uint16), RLELossless)
    assert native(path) is None
    with path.open("rb") as file:
        assert native_patient_id(file) == "P1"
        file.seek(0)
        assert native_header(file) == by_pydicom(path, monkeypatch)[1]


def test_sequences_nested_without_end_are_pydicoms(tmp_path):
    whole = write_dicom(tmp_path / "a.dcm", np.zeros((2, 2), np.int16)).read_bytes()
    at = whole.index(b"\x08\x00\x16\x00UI")
    nested = (b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    (tmp_path / "deep.dcm").write_bytes(whole[:at] + nested)
    assert native(tmp_path / "deep.dcm") is None


def test_shared_files_are_as_pydicom_reads_them(shared_data, monkeypatch):
    taken = []
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        with path.open("rb") as file:
            header = native_header(file)
        if header is not None:
            assert header == by_pydicom(path, monkeypatch)[1], path.name
        if native(path) is not None:
            taken.append(path.stem)
            assert_same(path, monkeypatch)
    assert {"MR2_UNCI", "693_UNCI"} <= set(taken)
