"""Ingest: what goes in comes out, the damaged is listed, nothing is half there."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.ingest import ingest
from medsynth_tf.data.open import open_source
from tests.data.dicom_files import write_dicom
from tests.data.record_factory import assert_same_record


@pytest.fixture
def hundred(tmp_path):
    """A hundred DICOM files of fifty patients, the 38th cut short."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(100):
        pixels = np.full((8, 9), number, np.int16)
        write_dicom(folder / f"{number:03d}.dcm", pixels, PatientID=f"P{number // 2}", RescaleIntercept=-1000, RescaleSlope=1)
    damaged = folder / "037.dcm"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return folder


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_ninety_nine_of_a_hundred(tmp_path, hundred, compression):
    report = ingest(f"folder:{hundred}", tmp_path / "out", compression=compression, workers=2)
    assert sum(report.counts.values()) == 99
    with (tmp_path / "out" / "rejected.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["file"]) == ("037", str(hundred / "037.dcm"))
    assert "037.dcm: cannot decode pixels" in row["reason"]
    assert "\n" not in row["reason"]

    inside, outside = open_source(f"folder:{hundred}"), open_source(f"tfrecord:{tmp_path / 'out'}")
    keys = {key.id: key for key in inside.keys()}
    assert {key.id for key in outside.keys()} == set(keys) - {"037"}
    for key in outside.keys():
        assert_same_record(outside.read(key), inside.read(keys[key.id]))
    for split in ("train", "val", "test"):
        assert {key.id for key in outside.split(split)} == {key.id for key in inside.split(split)} - {"037"}

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["counts"] == report.counts
    assert manifest["fingerprint"] == report.fingerprint
    assert manifest["rejected"] == 1
    assert len(manifest["records"]) == 99
    assert manifest["records"][0] == {
        "id": "000", "split": next(k.split for k in outside.keys() if k.id == "000"), "file": str(hundred / "000.dcm"),
    }  # fmt: skip


def test_workers_do_not_change_a_byte(tmp_path, hundred):
    first = ingest(f"folder:{hundred}", tmp_path / "one", workers=1, shards=3)
    second = ingest(f"folder:{hundred}", tmp_path / "two", workers=2, shards=3)
    assert first.fingerprint == second.fingerprint
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert "train-00002-of-00003.tfrecord" in names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_fingerprint_is_the_sources_when_nothing_is_rejected(tmp_path):
    for number in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.full((3, 3), number, np.uint8)).save(tmp_path / "in" / f"{number}.png")
    report = ingest(f"folder:{tmp_path / 'in'}", tmp_path / "out", workers=1)
    assert report.fingerprint == open_source(f"folder:{tmp_path / 'in'}").fingerprint()
    assert report.rejected == ()


def test_progress_is_told(tmp_path, hundred):
    calls = []
    ingest(f"folder:{hundred}", tmp_path / "out", workers=2, shards=2, on_shard=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_real_photographs(tmp_path, shared_data):
    report = ingest(f"folder:{shared_data / 'drive'}", tmp_path / "out", workers=2)
    assert report.counts == {"train": 16, "val": 2, "test": 2}
    source = open_source(f"tfrecord:{tmp_path / 'out'}")
    assert source.stream(source.split("train")).element_spec["mask"].shape.rank == 2


def test_nothing_is_left_when_it_cannot_be_done(tmp_path, hundred):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="exists already"):
        ingest(f"folder:{hundred}", tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.dcm").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"none of 1 records could be used; the first: .*a\.dcm"):
        ingest(f"folder:{tmp_path / 'bad'}", tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ingest(f"folder:{hundred}", tmp_path / "file" / "out")
    with pytest.raises(DataError, match="shards = 0"):
        ingest(f"folder:{hundred}", tmp_path / "none", shards=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "file", "in", "out"]


def test_a_patient_in_two_splits_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "manifest.csv").write_text("image,patient_id,split\na.png,p,train\nb.png,p,val\n")
    with pytest.raises(DataError, match="patient 'p' is in two splits"):
        ingest(f"folder:{tmp_path / 'in'}", tmp_path / "out")


def test_beam_reads_the_same_records(tmp_path, hundred):
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    from medsynth_tf.data.beam_records import RecordsFromSource
    from medsynth_tf.data.tfrecord_files import read_frames

    ingest(f"folder:{hundred}", tmp_path / "out", workers=1)
    expected = [
        (path.name.split("-")[0], serialized)
        for path in (tmp_path / "out").glob("*.tfrecord")
        for _, serialized in read_frames(path)
    ]
    with beam.Pipeline() as pipeline:
        outputs = pipeline | RecordsFromSource(f"folder:{hundred}")
        assert_that(outputs["examples"], equal_to(expected), label="examples")
        assert_that(outputs["rejected"] | beam.Map(lambda rejection: rejection.id), equal_to(["037"]), label="rejected")
