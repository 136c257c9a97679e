import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.evaluation import memorisation as module
from medsynth_tf.evaluation.memorisation import memorisation, nearest_rows
from medsynth_tf.metrics.extractors import TextureExtractor


def _phantoms(seed, count):
    source = PhantomSource("fundus", count, size=48, seed=seed)
    keys = source.keys()
    return np.stack([source.read(key)["image"] for key in keys])


@pytest.fixture(scope="module")
def sets():
    return _phantoms(0, 120), _phantoms(1, 100), _phantoms(2, 60)


@pytest.mark.parametrize("chunk", [64, 1000, 2**24])
def test_nearest_rows_are_scipys_for_any_chunk(monkeypatch, chunk):
    monkeypatch.setattr(module, "_CHUNK_NUMBERS", chunk)
    rng = np.random.default_rng(0)
    queries, references = rng.normal(5, 1, (37, 11)).astype(np.float32), rng.normal(5, 1, (53, 11)).astype(np.float32)
    distances = cdist(queries.astype(np.float64), references.astype(np.float64))
    nearest, distance = nearest_rows(queries, references)
    np.testing.assert_array_equal(nearest, distances.argmin(1))
    np.testing.assert_allclose(distance, distances.min(1), rtol=1e-6)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_NUMBERS", 2**16)
    rng = np.random.default_rng(0)
    queries, references = (rng.integers(0, 256, (400, 4096)).astype(np.uint8) for _ in range(2))
    tracemalloc.start()
    nearest_rows(queries, references)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * references.size * 4  # less than half of one set as float32


def test_distances_are_grey_levels(sets):
    train, held_out, _ = sets
    brighter = np.clip(train[:5].astype(int), 0, 250).astype(np.uint8)
    pixels, _ = memorisation(brighter + np.uint8(5), brighter, held_out, TextureExtractor())
    np.testing.assert_array_equal(pixels.nearest, np.arange(5))
    np.testing.assert_allclose(pixels.distance, 5.0)


def test_new_images_are_seldom_flagged(sets):
    train, held_out, synthetic = sets
    for space in memorisation(synthetic, train, held_out, TextureExtractor()):
        assert space.flagged(5).mean() < 0.2
        assert not space.copied.any()


def test_a_copied_training_image_is_flagged(sets):
    train, held_out, synthetic = sets
    synthetic = synthetic.copy()
    synthetic[7] = train[33]
    pixels, features = memorisation(synthetic, train, held_out, TextureExtractor())
    for space in (pixels, features):
        assert space.nearest[7] == 33
        assert space.distance[7] == 0
        assert space.flagged(1)[7]
    assert pixels.summary()["copies"] == 1


def test_a_nearly_copied_training_image_is_flagged(sets):
    train, held_out, synthetic = sets
    synthetic = synthetic.copy()
    noise = np.random.default_rng(0).integers(-3, 4, train[33].shape)
    synthetic[7] = np.clip(train[33] + noise, 0, 255)
    pixels, _ = memorisation(synthetic, train, held_out, TextureExtractor())
    assert pixels.nearest[7] == 33
    assert pixels.flagged(1)[7]


def test_summary_counts(sets):
    train, held_out, _ = sets
    summary = memorisation(train[:10], train, held_out, TextureExtractor())[0].summary()
    assert summary["copies"] == summary["nearer_than_percentile_1"] == summary["nearer_than_percentile_5"] == 10
    assert summary["share_nearer_than_percentile_5"] == 1.0
    assert summary["median_distance"] == 0 < summary["median_distance_held_out"]


def test_sets_that_cannot_be_compared_are_refused(sets):
    train, held_out, synthetic = sets
    with pytest.raises(DataError, match="differ in size"):
        memorisation(synthetic[:, :40], train, held_out, TextureExtractor())
    with pytest.raises(DataError, match="expected uint8"):
        memorisation(synthetic / 255, train, held_out, TextureExtractor())
    with pytest.raises(DataError, match="held-out images: 0"):
        memorisation(synthetic, train, held_out[:0], TextureExtractor())
