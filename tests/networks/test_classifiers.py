import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.core.errors import ConfigError, UnknownNameError
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.networks.unet import UNet2D


def test_the_small_classifier_is_seeded_and_pools_its_last_map():
    images = tf.random.stateless_uniform([2, 17, 16, 1], [0, 1], -1.0, 1.0)
    first, again, other = (ImageClassifier("small", 4, channels=1, filters=3, seed=seed) for seed in (1, 1, 2))
    answer = first(images)
    assert answer["features"].shape == [2, 12]
    assert answer["logits"].shape == [2, 4]
    np.testing.assert_array_equal(answer["logits"], again(images)["logits"])
    assert not np.allclose(answer["logits"], other(images)["logits"])
    maps = first.feature_maps(images)
    assert [m.shape.as_list() for m in maps] == [[2, 17, 16, 3], [2, 9, 8, 6], [2, 5, 4, 12]]
    np.testing.assert_allclose(answer["features"], maps[-1].numpy().mean((1, 2)), rtol=1e-5)
    count = 9 * (1 * 3 + 3 * 6 + 6 * 12) + 2 * (3 + 6 + 12) + 12 * 4 + 4
    assert sum(np.prod(v.shape) for v in first.trainable_variables) == count


def test_a_resnet_takes_label_planes_its_own_weights_and_no_others(tmp_path):
    planes = ImageClassifier("resnet50", 5, channels=9, seed=1)
    assert planes(tf.zeros([1, 32, 32, 9]))["features"].shape == [1, 2048]
    grey = ImageClassifier("resnet50", 5, channels=1, seed=1)
    image = tf.random.stateless_uniform([1, 32, 32, 1], [0, 1], -1.0, 1.0)
    expected = grey(image)["features"]
    grey.network.save_weights(tmp_path / "resnet.h5")
    loaded = ImageClassifier("resnet50", 5, weights=tmp_path / "resnet.h5", seed=2)
    np.testing.assert_allclose(loaded(tf.repeat(image, 3, -1))["features"], expected, rtol=1e-5)
    with pytest.raises(ConfigError, match="not those of vgg16"):
        ImageClassifier("vgg16", 5, weights=tmp_path / "resnet.h5")
    with pytest.raises(ConfigError, match="there is no file"):
        ImageClassifier("vgg16", 5, weights=tmp_path / "absent.h5")
    with pytest.raises(ConfigError, match="'small' has none"):
        ImageClassifier("small", 5, weights=tmp_path / "resnet.h5")
    with pytest.raises(UnknownNameError, match="resnet50"):
        ImageClassifier("resnet5", 5)


def test_unet_shapes_weights_and_reach():
    network = UNet2D(2, widths=(4, 8, 16), seed=3)
    images = tf.random.stateless_uniform([1, 96, 16, 3], [0, 1])
    with tf.GradientTape() as tape:
        tape.watch(images)
        logits = network(images)
        corner = logits[0, 0, 0, 0]
    assert logits.shape == [1, 96, 16, 2]
    widths = [(3, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (24, 8), (8, 8), (12, 4), (4, 4)]
    count = sum(9 * i * o + 2 * o for i, o in widths) + 4 * 2 + 2
    assert sum(np.prod(v.shape) for v in network.trainable_variables) == count
    reached = np.abs(tape.gradient(corner, images)).sum((0, 3)) > 0
    assert reached[0, 0]
    assert not reached[-1, -1]
