"""TFRecord sources: the records that went in, by key and by stream."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import records
from medsynth_tf.data.open import open_source
from medsynth_tf.data.source import RecordKey
from tests.data.record_factory import assert_same_record, make_record

COUNT = 9


@pytest.fixture(params=["", "GZIP"])
def folder(tmp_path, request):
    made = [make_record(number) for number in range(COUNT)]
    records.write_shards(made[:6], tmp_path, "train", 2, request.param)
    records.write_shards(made[6:], tmp_path, "val", 1, request.param)
    return tmp_path


def test_keys_splits_and_records(folder):
    source = open_source(f"tfrecord:{folder}")
    assert source.describe() | {"path": ""} == {"kind": "tfrecord", "path": "", "shards": 3, "count": COUNT}
    assert {key.id for key in source.split("train")} == {f"record-{n}" for n in range(6)}
    assert {key.id for key in source.split("val")} == {f"record-{n}" for n in range(6, 9)}
    assert source.split("test") == []
    for key in source.keys():
        assert_same_record(source.read(key), make_record(key.label))


def test_stream_shuffles_truly_and_skips_exactly(folder):
    source = open_source(f"tfrecord:{folder}")
    keys = source.keys()
    whole = list(source.stream(keys, seed=2, epochs=3))
    order = [int(record["label"]) for record in whole]
    assert all(sorted(order[e * COUNT : (e + 1) * COUNT]) == list(range(COUNT)) for e in range(3))
    tail = list(open_source(f"tfrecord:{folder}").stream(keys, seed=2, epochs=3, skip=11))
    assert [int(record["index"]) for record in tail] == list(range(11, 27))
    assert [int(record["label"]) for record in tail] == order[11:]
    for record in whole[:3]:
        expected = make_record(int(record["label"]))
        np.testing.assert_array_equal(record["image"], expected["image"])
        np.testing.assert_array_equal(record["boxes"], expected["boxes"])


def test_optional_names_are_those_that_all_have(tmp_path):
    without = {name: value for name, value in make_record(1).items() if name != "mask"}
    records.write_shards([make_record(0), without], tmp_path, "train", 1)
    source = open_source(f"tfrecord:{tmp_path}")
    assert "mask" not in source.stream(source.keys()).element_spec
    assert "mask" in source.stream(source.keys()[:1]).element_spec


def test_order_is_that_of_other_sources_with_the_same_keys(folder):
    from tests.data.test_source import Counting

    source = open_source(f"tfrecord:{folder}")
    keys = sorted(source.keys(), key=lambda key: key.id)
    here = [record["id"].numpy() for record in source.stream(keys, seed=4, epochs=2)]
    there = [record["id"].numpy() for record in Counting(COUNT).stream(Counting(COUNT).keys(), seed=4, epochs=2)]
    assert here == there


def test_splits_from_the_names_of_shards(tmp_path):
    shard = tmp_path / "Split-eval" / "data_tfrecord-00000-of-00001.gz"  # as TFX names them
    shard.parent.mkdir()
    with tf.io.TFRecordWriter(str(shard), "GZIP") as writer:
        writer.write(records.encode(make_record(0)))
    (key,) = open_source(f"tfrecord:{tmp_path}").keys()
    assert key == RecordKey("record-0", "patient-0", "val", 0)


def test_fingerprint_does_not_depend_on_shards_or_compression(tmp_path):
    made = [make_record(number) for number in range(4)]
    fingerprints = set()
    for name, shards, compression in (("a", 1, ""), ("b", 3, ""), ("c", 2, "GZIP")):
        records.write_shards(made, tmp_path / name, "train", shards, compression)
        fingerprints.add(open_source(f"tfrecord:{tmp_path / name}").fingerprint())
    assert len(fingerprints) == 1


def test_bad_shards_are_refused(tmp_path):
    records.write_shards([make_record(0)], tmp_path, "train", 1)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    (tmp_path / "again.tfrecord").write_bytes(whole)
    with pytest.raises(DataError, match="'record-0' is in"):
        open_source(f"tfrecord:{tmp_path}").keys()
    (tmp_path / "again.tfrecord").unlink()
    source = open_source(f"tfrecord:{path}")
    assert len(source.keys()) == 1
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="cut short"):
        source.read(source.keys()[0])
    path.write_bytes(b"")
    with pytest.raises(DataError, match="without a record"):
        open_source(f"tfrecord:{path}").keys()
    with pytest.raises(DataError, match="no record 'x'"):
        source.read(RecordKey("x", "x"))
