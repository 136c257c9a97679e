"""Records as tf.Examples: exact round trips through our code and through TensorFlow's, and refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data import records
from medsynth_tf.data.example import to_example
from medsynth_tf.data.tfrecord_files import read_frames
from tests.data.record_factory import assert_same_record, make_record


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", records.IMAGE_TYPES)
def test_round_trip_is_exact(dimensions, dtype):
    record = make_record(3, dimensions, dtype, channels=2)
    serialized = records.encode(record, "val")
    assert_same_record(records.decode(serialized), record)
    parsed = records.parse(tf.constant(serialized), records.RecordSpec.of(record))
    assert_same_record(
        {k: v.numpy().decode() if v.dtype == tf.string else v.numpy() for k, v in parsed.items()},
        {**record, "label": np.int64(3)},
    )


@pytest.mark.parametrize("names", [(), ("mask",), ("spacing", "label"), ("boxes", "box_labels")])
def test_optional_names_stay_absent(names):
    full = make_record(1)
    record = {name: full[name] for name in (*records.REQUIRED, *names)}
    assert_same_record(records.decode(records.encode(record)), record)
    assert set(records.parse(records.encode(record), records.RecordSpec.of(record))) == set(record)


def test_no_boxes_is_not_the_same_as_no_entry():
    record = make_record(0) | {"boxes": np.zeros((0, 4), np.float32), "box_labels": np.zeros(0, np.int64)}
    assert_same_record(records.decode(records.encode(record)), record)


def test_masks_of_sixteen_bits_and_extremes():
    record = make_record(0, dtype="int32")
    record["image"][0, 0, 0], record["image"][1, 0, 0] = np.iinfo(np.int32).min, np.iinfo(np.int32).max
    record["mask"] = np.full((6, 5), 65535, np.uint16)
    assert_same_record(records.decode(records.encode(record)), record)


def test_example_is_tensorflows_own_and_little_endian():
    record = make_record(0, dtype="int16")
    example = tf.train.Example.FromString(records.encode(record, "train"))
    features = example.features.feature
    assert features["image"].bytes_list.value[0] == record["image"].astype("<i2").tobytes()
    assert list(features["image/shape"].int64_list.value) == [6, 5, 1]
    assert features["image/dtype"].bytes_list.value[0] == b"int16"
    assert list(features["image/channels"].int64_list.value) == [1]
    assert list(features["mask/values"].int64_list.value) == sorted({int(v) for v in record["mask"].ravel()} - {255})
    assert features["split"].bytes_list.value[0] == b"train"
    assert_same_record(records.decode(example.SerializeToString()), record)


def test_the_same_record_is_the_same_bytes():
    assert records.encode(make_record(5)) == records.encode(dict(reversed(make_record(5).items())))


def test_big_endian_arrays_are_stored_little_endian():
    record = make_record(0, dtype="int16")
    swapped = record | {"image": record["image"].astype(">i2")}
    assert records.encode(swapped) == records.encode(record)


BAD = {
    "nan": ({"image": np.full((6, 5, 1), np.nan, np.float32)}, "30 values that are NaN"),
    "float64": ({"image": np.zeros((6, 5, 1))}, "float64, expected uint8"),
    "no channel": ({"image": np.zeros((6, 5), np.uint8)}, r"shape \(6, 5\)"),
    "empty": ({"image": np.zeros((0, 5, 1), np.uint8)}, "none of them 0"),
    "no array": ({"image": [[1]]}, "is a list"),
    "mask size": ({"mask": np.zeros((5, 6), np.uint8)}, r"mask of size \(5, 6\), but the image has \(6, 5\)"),
    "mask type": ({"mask": np.zeros((6, 5), np.int64)}, "mask of type int64"),
    "label": ({"label": 1.5}, "label = 1.5"),
    "bool label": ({"label": True}, "label = True"),
    "spacing": ({"spacing": np.array([0, 1], np.float32)}, "above 0"),
    "spacing size": ({"spacing": np.ones(3, np.float32)}, r"shape \[3\], expected \[2\]"),
    "landmarks": ({"landmarks": np.zeros((2, 3), np.float32)}, r"expected \[N, 2\]"),
    "infinite": ({"landmarks": np.full((2, 2), np.inf, np.float32)}, "infinite"),
    "box outside": ({"boxes": np.array([[0, 0, 7, 2]], np.float32)}, "outside the image"),
    "box empty": ({"boxes": np.array([[2, 0, 2, 2]], np.float32)}, "empty or outside"),
    "box labels": ({"box_labels": np.zeros(2, np.int64)}, r"expected \[1\]"),
    "unknown": ({"masks": 1}, "did you mean 'mask'"),
    "id": ({"id": ""}, "id = ''"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused(case):
    change, message = BAD[case]
    with pytest.raises(DataError, match=message):
        records.validate(make_record(0) | change)


@pytest.mark.parametrize("name", records.REQUIRED)
def test_missing_names_are_refused(name):
    record = make_record(0)
    del record[name]
    with pytest.raises(DataError, match=f"no '{name}'"):
        records.validate(record, "somewhere")
    with pytest.raises(DataError, match="go together"):
        records.validate({k: v for k, v in make_record(0).items() if k != "box_labels"})


def test_parsing_another_type_names_the_record():
    spec = records.RecordSpec.of(make_record(0, dtype="int16"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="record-7"):
        records.parse(records.encode(make_record(7)), spec)


def test_parse_works_in_a_graph_with_static_rank():
    spec = records.RecordSpec.of(make_record(0, 3))
    dataset = tf.data.Dataset.from_tensors(records.encode(make_record(0, 3))).map(lambda s: records.parse(s, spec))
    assert dataset.element_spec == spec.signature()


def test_decoding_rubbish_is_refused():
    for rubbish in (b"rubbish", b"", tf.train.Example().SerializeToString()):
        with pytest.raises(DataError, match="here: "):
            records.decode(rubbish, "here")


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_shards_hold_all_records_in_turn(tmp_path, compression):
    made = [make_record(number) for number in range(7)]
    paths = records.write_shards(iter(made), tmp_path, "train", 3, compression)
    assert [path.name[:20] for path in paths] == [f"train-0000{i}-of-00003"[:20] for i in range(3)]
    for shard, path in enumerate(paths):
        by_us = [serialized for _, serialized in read_frames(path)]
        by_tensorflow = [t.numpy() for t in tf.data.TFRecordDataset(str(path), compression)]
        assert by_us == by_tensorflow == [records.encode(record, "train") for record in made[shard::3]]


def test_files_of_tensorflow_are_read(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for text in (b"one", b"", b"three" * 1000):
            writer.write(text)
    assert [record for _, record in read_frames(tmp_path / "a.tfrecord")] == [b"one", b"", b"three" * 1000]


def test_a_bad_record_leaves_no_shard(tmp_path):
    with pytest.raises(DataError, match="NaN"):
        records.write_shards([make_record(0), make_record(1) | BAD["nan"][0]], tmp_path, "train", 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", [5, 20, -2])
def test_damaged_shards_are_refused(tmp_path, where):
    (path,) = records.write_shards([make_record(0)], tmp_path, "train", 1)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        list(read_frames(path))
    path.write_bytes(data[:50])
    with pytest.raises(DataError):
        list(read_frames(path))


def test_writing_needs_no_tensorflow():
    code = "import sys, medsynth_tf.data.ingest as i; assert not {'tensorflow', 'apache_beam'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16383, 16384, 2**21])
def test_large_values_are_framed_as_protobuf_does(length):
    value = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    features = {"id": ("bytes_list", [b"a"]), "label": ("int64_list", [3])}
    serialized = to_example(features, {"image": memoryview(value), "mask": b"m"})
    parsed = tf.train.Example.FromString(serialized).features.feature
    assert parsed["image"].bytes_list.value == [value]
    assert parsed["mask"].bytes_list.value == [b"m"]
    assert (parsed["id"].bytes_list.value, parsed["label"].int64_list.value) == ([b"a"], [3])
    assert len(serialized) == len(to_example(features | {"image": ("bytes_list", [value]), "mask": ("bytes_list", [b"m"])}))
