"""Folders: layouts, manifests, patients, optional names."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import ConfigError, DataError, UnknownNameError
from medsynth_tf.data.open import SourceSpec, open_source
from medsynth_tf.data.source import RecordKey
from tests.data.dicom_files import write_dicom, write_series


def save(path, value: int = 7, size: tuple[int, int] = (4, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


def test_plain_folder_lists_images_of_any_depth_and_nothing_else(tmp_path):
    for name in ("b.png", "a/c.tif", "a/b.png", ".hidden/d.png", ".e.png"):
        save(tmp_path / name)
    (tmp_path / "README.txt").write_text("hello")
    write_dicom(tmp_path / "a" / "1.2.3", np.zeros((2, 2), np.int16))
    source = open_source(f"folder:{tmp_path}")
    assert [key.id for key in source.keys()] == ["a/1.2.3", "a/b", "a/c", "b"]
    assert [key.patient_id for key in source.keys()] == ["P1", "a/b", "a/c", "b"]
    assert source.describe()["layout"] == "files"
    assert source.read(source.keys()[3])["image"].shape == (4, 5, 1)


def test_names_that_differ_by_suffix_alone_keep_it(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "a.tif")
    assert [key.id for key in open_source(f"folder:{tmp_path}").keys()] == ["a.png", "a.tif"]


def test_patient_may_be_the_first_folder(tmp_path):
    save(tmp_path / "p1" / "x" / "a.png")
    save(tmp_path / "p1" / "b.png")
    save(tmp_path / "c.png")
    keys = open_source(f"folder:{tmp_path}?patient=folder").keys()
    assert {key.id: key.patient_id for key in keys} == {"p1/x/a": "p1", "p1/b": "p1", "c": "c"}


def test_drive(shared_data):
    source = open_source(f"folder:{shared_data / 'drive'}")
    assert source.describe()["layout"] == "drive"
    assert len(source.keys()) == 20
    record = source.read(source.keys()[0])
    assert record["image"].shape == (584, 565, 3)
    view = np.asarray(Image.open(shared_data / "drive" / "mask" / "21_training_mask.gif"))
    vessels = np.asarray(Image.open(shared_data / "drive" / "1st_manual" / "21_manual1.gif"))
    np.testing.assert_array_equal(record["mask"] == 255, view == 0)
    np.testing.assert_array_equal(record["mask"] == 1, (vessels == 255) & (view == 255))
    assert {name: len(source.split(name)) for name in ("train", "val", "test")} == {"train": 16, "val": 2, "test": 2}
    assert record["modality"] == "OP"


def test_images_and_masks_with_labels(tmp_path):
    for name in ("a", "b", "s/c"):
        save(tmp_path / "images" / f"{name}.png")
    save(tmp_path / "masks" / "a.png", 1)
    save(tmp_path / "masks" / "s" / "c_mask.png", 255)
    (tmp_path / "labels.csv").write_text("image,label,patient_id,split\na.png,0,p,train\nb,3,p,\n")
    source = open_source(f"folder:{tmp_path}")
    assert source.describe()["with"] == {"mask": 2, "label": 2, "landmarks": 0, "boxes": 0}
    records = {key.id: source.read(key) for key in source.keys()}
    assert records["a"]["label"] == 0
    assert records["b"]["label"] == 3
    assert "mask" not in records["b"]
    assert records["s/c"]["mask"].max() == 255
    assert {key.id: (key.patient_id, key.label) for key in source.keys()} == {
        "a": ("p", 0),
        "b": ("p", 3),
        "s/c": ("s/c", None),
    }
    assert open_source(f"folder:{tmp_path}?masks=binary").read(RecordKey("s/c", "s/c"))["mask"].max() == 1


@pytest.mark.parametrize(("extra", "message"), [("masks/z.png", "mask without an image"), ("labels", "no image 'z'")])
def test_parts_without_an_image_are_refused(tmp_path, extra, message):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png")
    if extra == "labels":
        (tmp_path / "labels.csv").write_text("image,label\nz,1\n")
    else:
        save(tmp_path / extra)
    with pytest.raises(DataError, match=message):
        open_source(f"folder:{tmp_path}").keys()


def test_series_layout_makes_volumes(tmp_path):
    write_series(tmp_path / "p1", [2.0, 0.0, 1.0])
    write_series(tmp_path / "two", [0.0, 1.0], SeriesInstanceUID="5.1", PatientID="P2")
    for path in write_series(tmp_path / "other", [0.0, 1.0], SeriesInstanceUID="5.2", PatientID="P2"):
        path.rename(tmp_path / "two" / f"other{path.name}")
    source = open_source(f"folder:{tmp_path}?layout=series")
    assert [(key.id, key.patient_id) for key in source.keys()] == [("p1", "P1"), ("two-0", "P2"), ("two-1", "P2")]
    record = source.read(source.keys()[0])
    assert record["image"].shape == (3, 4, 5, 1)
    np.testing.assert_allclose(record["spacing"], [1, 0.5, 0.25])
    (element,) = source.stream(source.keys()[:1], epochs=1)
    assert element["spacing"].shape == (3,)


MANIFEST = """image,mask,label,patient_id,split,id,spacing,landmarks,boxes,box_labels,doctor
x/a.png,x/m.png,2,p1,train,first,"[0.5, 0.25]","[[1, 2], [null, null]]","[[0, 0, 2, 3]]",[4],Bob
x/b.png,,0,p2,,,,,,,
"""


def test_csv_and_json_manifests_say_the_same(tmp_path):
    save(tmp_path / "x" / "a.png", 1)
    save(tmp_path / "x" / "b.png", 2)
    save(tmp_path / "x" / "m.png", 1)
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    source = open_source(f"folder:{tmp_path}")
    assert source.keys() == [RecordKey("first", "p1", "train", 2), RecordKey("x/b", "p2", None, 0)]
    record = source.read(source.keys()[0])
    np.testing.assert_array_equal(record["landmarks"], np.array([[1, 2], [np.nan, np.nan]], np.float32))
    np.testing.assert_array_equal(record["boxes"], np.array([[0, 0, 2, 3]], np.float32))
    np.testing.assert_array_equal(record["spacing"], np.array([0.5, 0.25], np.float32))
    assert record["box_labels"].tolist() == [4]
    assert record["mask"].max() == 1
    rows = [
        {"image": "x/a.png", "mask": "x/m.png", "label": 2, "patient_id": "p1", "split": "train", "id": "first",
         "spacing": [0.5, 0.25], "landmarks": [[1, 2], [None, None]], "boxes": [[0, 0, 2, 3]], "box_labels": [4]},
        {"image": "x/b.png", "label": 0, "patient_id": "p2"},
    ]  # fmt: skip
    (tmp_path / "elsewhere.json").write_text(json.dumps({"records": rows}))
    other = open_source(f"folder:{tmp_path}?manifest={tmp_path}/elsewhere.json")
    assert other.keys() == source.keys()
    assert other.fingerprint() == source.fingerprint()
    assert source.optional_names(source.keys()) == {"label"}
    assert "mask" not in source.stream(source.keys()).element_spec
    assert "mask" in source.stream(source.keys()[:1]).element_spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,pateint_id\na.png,1\n", "line 2: unknown column 'pateint_id'; did you mean 'patient_id'"),
        ("image\na.png\na.png\n", "line 3: id 'a' stands twice"),
        ("image,label\na.png,x\n", "line 2: label = 'x': expected a whole number"),
        ("image,label\na.png,1.5\n", "expected a whole number"),
        ('image,boxes\na.png,"[1, 2]"\n', "boxes = .*expected a list of lists"),
        ("mask\na.png\n", "line 2: no 'image'"),
        ("image\na.png,b\n", "more cells than columns"),
        ("image\n", "no rows"),
        ("", "no rows"),
    ],
)
def test_bad_manifests_name_the_line(tmp_path, text, message):
    save(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_source(f"folder:{tmp_path}").keys()
    assert "\n" not in str(caught.value)


def test_json_that_is_no_table_is_refused(tmp_path):
    for text in ("{", "{}", "[1]"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(DataError, match=r"manifest\.json"):
            open_source(f"folder:{tmp_path}").keys()


def test_bad_files_are_named_when_read(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png", size=(5, 4))
    source = open_source(f"folder:{tmp_path}")
    with pytest.raises(DataError, match=r"images/a\.png: mask of size \(5, 4\)"):
        source.read(source.keys()[0])
    (tmp_path / "images" / "a.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"images/a\.png"):
        source.read(source.keys()[0])
    with pytest.raises(DataError, match="no record 'zzz'"):
        source.read(RecordKey("zzz", "zzz"))


def test_a_damaged_header_does_not_stop_listing_or_take_names_away(tmp_path):
    for name in ("a", "b"):
        write_dicom(tmp_path / f"{name}.dcm", np.zeros((2, 2), np.int16))
    (tmp_path / "c.dcm").write_bytes(b"rubbish")
    source = open_source(f"folder:{tmp_path}")
    assert [key.patient_id for key in source.keys()] == ["P1", "P1", "c"]
    assert source.optional_names(source.keys()) == {"spacing", "modality"}


def test_fingerprint_follows_contents_masks_and_labels(tmp_path):
    save(tmp_path / "images" / "a.png")
    save(tmp_path / "masks" / "a.png")
    seen = {open_source(f"folder:{tmp_path}").fingerprint()}
    save(tmp_path / "masks" / "a.png", 1)
    seen.add(open_source(f"folder:{tmp_path}").fingerprint())
    (tmp_path / "labels.csv").write_text("image,label\na,1\n")
    seen.add(open_source(f"folder:{tmp_path}").fingerprint())
    save(tmp_path / "images" / "a.png", 9)
    seen.add(open_source(f"folder:{tmp_path}").fingerprint())
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("folder", ConfigError, "expected kind:path"),
        ("data/x", ConfigError, "for example 'folder:data/x'"),
        ("folder:", ConfigError, "expected kind:path"),
        ("floder:x", UnknownNameError, "did you mean 'folder'"),
        ("folder:/none/here", DataError, "no such folder"),
        ("tfrecord:/none/here", DataError, "no such file"),
        ("folder:{tmp}?layuot=x", UnknownNameError, "unknown option 'layuot'.*did you mean 'layout'"),
        ("folder:{tmp}?layout=dirve", UnknownNameError, "did you mean 'drive'"),
        ("folder:{tmp}?layout", ConfigError, "key=value"),
        ("folder:{tmp}?layout=drive&layout=files", ConfigError, "twice"),
        ("folder:{tmp}?patient=x", DataError, "allowed: header, folder"),
    ],
)
def test_bad_specifications_are_refused(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        open_source(text.format(tmp=tmp_path))


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images found"):
        open_source(f"folder:{tmp_path}").keys()


def test_specification_is_taken_apart():
    assert SourceSpec.parse("phantom:fundus?count=64&name=a%26b") == SourceSpec(
        "phantom", "fundus", {"count": "64", "name": "a&b"}
    )
