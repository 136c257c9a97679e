import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.data.open import open_source
from medsynth_tf.data.pipelines import prepared_stream


def prepare(record):
    return {"mean": tf.reduce_mean(tf.cast(record["image"], tf.float32)), "mask": record["mask"]}


def listed(dataset):
    return [(int(e["index"]), float(e["mean"])) for e in dataset]


@pytest.fixture(scope="module")
def source():
    return open_source("phantom:fundus?count=7&size=32")


@pytest.mark.parametrize("cache", [False, True])
def test_a_stream_skipped_is_the_tail_of_the_whole_one(source, cache):
    arguments = {"seed": 3, "shuffle": True, "epochs": 3, "cache": cache}
    whole = listed(prepared_stream(source, source.keys(), prepare, **arguments))
    assert [index for index, _ in whole] == list(range(21))
    assert listed(prepared_stream(source, source.keys(), prepare, skip=10, **arguments)) == whole[10:]


def test_cached_and_read_examples_are_the_same(source):
    arguments = {"seed": 5, "shuffle": True, "epochs": 2}
    read, cached = (list(prepared_stream(source, source.keys(), prepare, cache=c, **arguments)) for c in (False, True))
    for a, b in zip(read, cached, strict=True):
        for name in ("mean", "mask", "index"):
            np.testing.assert_array_equal(a[name], b[name])


def test_anew_gives_another_pass_each_time_with_every_record_in_it(source):
    stream = prepared_stream(source, source.keys(), prepare, seed=1, shuffle=True, epochs=1, anew=True)
    first, second = listed(stream), listed(stream)
    assert sorted(mean for _, mean in first) == sorted(mean for _, mean in second)
    assert [mean for _, mean in first] != [mean for _, mean in second]
    assert {index for index, _ in first}.isdisjoint(index for index, _ in second)
