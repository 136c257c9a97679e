"""Splits and streams, on a source that counts what it reads."""

from __future__ import annotations

import collections
import itertools
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.source import RecordKey, Source, assign_splits, stream_order
from tests.data.record_factory import make_record


class Counting(Source):
    """`count` records, two to a patient; remembers which were read."""

    def __init__(self, count: int):
        self.count = count
        self.reads: list[str] = []

    def keys(self) -> list[RecordKey]:
        return [RecordKey(f"record-{n}", f"patient-{n // 2}", None, n) for n in range(self.count)]

    def read(self, key: RecordKey) -> dict[str, Any]:
        self.reads.append(key.id)
        return make_record(int(key.id.split("-")[1]))

    def describe(self) -> dict[str, Any]:
        return {"kind": "counting", "count": self.count}


def ids(dataset: tf.data.Dataset) -> list[str]:
    return [record["id"].numpy().decode() for record in dataset]


def patients(count: int, per_patient: int = 1) -> list[RecordKey]:
    return [RecordKey(f"{p}-{i}", f"p{p}") for p in range(count) for i in range(per_patient)]


@pytest.mark.parametrize(
    ("count", "fractions", "expected"),
    [
        (20, (0.8, 0.1, 0.1), (16, 2, 2)),
        (10, (0.8, 0.1, 0.1), (8, 1, 1)),
        (7, (0.7, 0.2, 0.1), (5, 1, 1)),
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),
        (5, (0.9, 0.0, 0.1), (4, 0, 1)),
        (2, (0.8, 0.1, 0.1), (2, 0, 0)),
        (1, (1.0, 0.0, 0.0), (1, 0, 0)),
        (1000, (0.333, 0.333, 0.334), (333, 333, 334)),
    ],
)
def test_shares_are_as_near_as_whole_patients_allow(count, fractions, expected):
    splits = assign_splits(patients(count, 3), fractions, seed=1)
    counts = collections.Counter(splits.values())
    assert tuple(counts[name] for name in ("train", "val", "test")) == expected


def test_split_is_by_patient_whole_and_depends_on_the_seed():
    source = Counting(40)
    parts = {name: source.split(name, (0.5, 0.25, 0.25), seed=3) for name in ("train", "val", "test")}
    assert sorted(key.id for part in parts.values() for key in part) == sorted(key.id for key in source.split("all"))
    homes = collections.defaultdict(set)
    for name, part in parts.items():
        for key in part:
            homes[key.patient_id].add(name)
    assert all(len(names) == 1 for names in homes.values())
    assert parts["val"] == Counting(40).split("val", (0.5, 0.25, 0.25), seed=3)
    assert parts["val"] != source.split("val", (0.5, 0.25, 0.25), seed=4)
    assert source.split("all") == source.keys()
    assert source.reads == []


def test_split_does_not_depend_on_the_order_of_keys():
    keys = patients(30, 2)
    assert assign_splits(keys, (0.8, 0.1, 0.1), 0) == assign_splits(keys[::-1], (0.8, 0.1, 0.1), 0)


def test_named_splits_win_and_take_the_whole_patient():
    keys = [RecordKey("a", "p0", "test"), RecordKey("b", "p0"), *patients(10)[1:]]
    splits = assign_splits(keys, (1.0, 0.0, 0.0), 0)
    assert splits["p0"] == "test"
    assert collections.Counter(splits.values()) == {"train": 9, "test": 1}


@pytest.mark.parametrize(
    ("keys", "fractions", "message"),
    [
        (
            [RecordKey("a", "p", "train"), RecordKey("b", "p", "val")],
            (0.8, 0.1, 0.1),
            "patient 'p' is in two splits: train, val",
        ),
        ([RecordKey("a", "p", "trian")], (0.8, 0.1, 0.1), "did you mean 'train'"),
        (patients(3), (0.8, 0.1, 0.2), "sum to 1"),
        (patients(3), (1.1, -0.1, 0.0), "sum to 1"),
    ],
)
def test_impossible_splits_are_refused(keys, fractions, message):
    with pytest.raises(DataError, match=message):
        assign_splits(keys, fractions, 0)


def test_unknown_split_is_refused():
    with pytest.raises(DataError, match="did you mean 'test'"):
        Counting(4).split("tests")


@pytest.mark.parametrize("count", [1, 2, 3, 10, 57])
def test_every_pass_is_a_permutation_of_its_own(count):
    source = Counting(count)
    keys = source.keys()
    stream = ids(source.stream(keys, seed=5, epochs=4))
    passes = [stream[i * count : (i + 1) * count] for i in range(4)]
    assert all(sorted(one) == sorted(key.id for key in keys) for one in passes)
    if count >= 10:
        assert len({tuple(one) for one in passes}) == 4
        assert passes[0] != [key.id for key in keys]
        assert passes[0] != ids(source.stream(keys, seed=6, epochs=1))
    assert stream == ids(Counting(count).stream(keys, seed=5, epochs=4, workers=2))


def test_positions_are_shuffled_evenly():
    order = [int(position) for _, position in stream_order(8, seed=0, shuffle=True, epochs=400, skip=0)]
    for place in (0, 3, 7):
        counts = np.bincount(order[place::8], minlength=8)
        assert np.sum((counts - 50) ** 2 / 50) < 24.3  # chi-squared with 7 degrees of freedom, p = 0.001


@pytest.mark.parametrize("skip", [0, 1, 9, 10, 25])
@pytest.mark.parametrize("shuffle", [True, False])
def test_skip_gives_the_tail_and_reads_nothing_before_it(skip, shuffle):
    source = Counting(10)
    whole = list(source.stream(source.keys(), seed=1, shuffle=shuffle, epochs=3))
    source.reads.clear()
    tail = list(source.stream(source.keys(), seed=1, shuffle=shuffle, epochs=3, skip=skip))
    assert [int(record["index"]) for record in tail] == list(range(skip, 30))
    for expected, actual in zip(whole[skip:], tail):
        assert expected["id"] == actual["id"]
        np.testing.assert_array_equal(expected["image"], actual["image"])
    assert len(source.reads) == 30 - skip + 2  # and the first record, for types and for names


def test_a_far_skip_of_an_endless_stream_is_immediate():
    source = Counting(10)
    (record,) = source.stream(source.keys(), skip=10**12 + 3).take(1)
    assert record["index"] == 10**12 + 3
    assert len(source.reads) < 100


def test_without_shuffling_the_order_is_that_of_the_keys():
    source = Counting(5)
    keys = source.keys()[::-1]
    assert ids(source.stream(keys, shuffle=False, epochs=2)) == [key.id for key in keys] * 2


def test_records_may_be_chosen_by_their_index():
    source = Counting(5)
    chosen = source.stream(source.keys(), choose=lambda index: index * 2 % 5, skip=1).take(4)
    assert ids(chosen) == ["record-2", "record-4", "record-1", "record-3"]
    assert [int(record["index"]) for record in chosen] == [1, 2, 3, 4]


def test_elements_have_static_rank_and_all_names():
    source = Counting(4)
    stream = source.stream(source.keys())
    assert stream.element_spec["image"] == tf.TensorSpec([None, None, 1], tf.uint8)
    assert stream.element_spec["mask"] == tf.TensorSpec([None, None], tf.uint8)
    assert set(stream.element_spec) == {*make_record(0), "index"}


def test_a_record_unlike_the_first_ends_the_stream_with_its_name():
    class Mixed(Counting):
        def read(self, key: RecordKey) -> dict[str, Any]:
            return make_record(1, dtype="int16") | {"id": key.id} if key.id == "record-3" else super().read(key)

    source = Mixed(4)
    with pytest.raises(tf.errors.OpError, match=r"record-3.*int16.*first record's is 2-D uint8"):
        list(source.stream(source.keys(), epochs=1))


def test_no_keys_are_refused():
    with pytest.raises(DataError, match="no records"):
        Counting(4).stream([])


def test_fingerprint_follows_contents_and_not_order():
    assert Counting(4).fingerprint() == Counting(4).fingerprint() != Counting(5).fingerprint()

    class Reversed(Counting):
        def keys(self) -> list[RecordKey]:
            return super().keys()[::-1]

    assert Reversed(4).fingerprint() == Counting(4).fingerprint()


def test_seeds_of_passes_do_not_collide():
    source = Counting(12)
    orders = [
        tuple(ids(source.stream(source.keys(), seed=seed, epochs=2))[12 * e : 12 * e + 12])
        for seed, e in itertools.product(range(3), range(2))
    ]
    assert len(set(orders)) == 6
