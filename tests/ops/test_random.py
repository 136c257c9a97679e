import numpy as np
import tensorflow as tf

from medsynth_tf.ops import random


def test_a_sample_depends_on_its_seed_and_not_on_its_batch():
    seeds = tf.constant([5, 2**62 + 11, 5, 7], tf.int64)
    together = random.normal(seeds, (3, 2), "style").numpy()
    alone = [random.normal(seeds[i : i + 1], (3, 2), "style").numpy()[0] for i in range(4)]
    np.testing.assert_array_equal(together, np.stack(alone))
    np.testing.assert_array_equal(together[0], together[2])
    assert not np.allclose(together[0], together[3])


def test_maps_of_a_size_known_in_the_graph_depend_on_their_seed_alone():
    seeds = tf.constant([5, 2**62 + 11], tf.int64)
    maps = tf.function(lambda images: random.normal_maps(seeds, tf.shape(images)[1], tf.shape(images)[2], 3, "style"))
    together = maps(tf.zeros([2, 4, 6, 1])).numpy()
    assert together.shape == (2, 4, 6, 3)
    np.testing.assert_array_equal(together, random.normal(seeds, (4, 6, 3), "style"))


def test_uses_are_independent_and_all_64_bits_count():
    seeds = tf.range(4000, dtype=tf.int64)
    a, b = (tf.function(random.normal)(seeds, (1,), name).numpy()[:, 0] for name in ("style", "posterior"))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.06  # about four standard errors
    assert abs(a.mean()) < 0.07
    assert abs(a.std() - 1) < 0.05
    high, low = (random.uniform(tf.constant([s], tf.int64), (4,), "x").numpy() for s in (1 + 2**40, 1))
    assert not np.allclose(high, low)
