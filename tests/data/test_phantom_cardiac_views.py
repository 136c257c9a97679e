"""phantom:cardiac_views: the same image for the same index, balance, and views that differ as drawn."""

import numpy as np
import pytest

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.data.phantoms import PhantomSource


def test_images_depend_on_index_and_seed_alone():
    long, short, other = (
        PhantomSource("cardiac_views", 12),
        PhantomSource("cardiac_views", 6),
        PhantomSource("cardiac_views", 6, seed=1),
    )
    for i in range(6):
        image = long.read(long.keys()[i])["image"]
        np.testing.assert_array_equal(image, short.read(short.keys()[i])["image"])
        assert not np.array_equal(image, other.read(other.keys()[i])["image"])
        assert image.shape == (40, 40, 1)
        assert image.dtype == np.uint16


def test_views_take_turns_or_have_their_shares():
    assert [key.label for key in PhantomSource("cardiac_views", 8).keys()] == [0, 1, 2, 3] * 2
    labels = [key.label for key in PhantomSource("cardiac_views", 4000, balance="imbalanced").keys()]
    np.testing.assert_allclose(np.bincount(labels) / 4000, [0.6, 0.25, 0.1, 0.05], atol=0.02)
    with pytest.raises(ConfigError, match="balance"):
        PhantomSource("cardiac_views", 4, balance="odd")


def test_chambers_are_brighter_than_walls_and_walls_than_the_background():
    source = PhantomSource("cardiac_views", 40, size=64)
    for key in source.keys():
        record = source.read(key)
        means = [record["image"][..., 0][record["mask"] == code].mean() for code in np.unique(record["mask"])]
        assert means == sorted(means)
        assert len(means) == (2 if key.label == 3 else 3), "vessels in the flow view have no wall"
