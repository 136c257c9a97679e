import numpy as np
import pytest
from scipy import ndimage

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.metrics.extractors import InceptionExtractor, TextureExtractor, default_extractor
from medsynth_tf.metrics.tfgan import frechet_distance, kernel_distance


@pytest.fixture(scope="module")
def phantoms():
    source = PhantomSource("fundus", 240, size=64)
    keys = source.keys()
    return np.stack([source.read(key)["image"] for key in keys])


def test_stand_in_says_that_it_is_one():
    assert "stand-in" in default_extractor().name
    assert default_extractor(None)(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 55)


def test_features_are_finite_and_bounded_for_any_image():
    rng = np.random.default_rng(0)
    images = np.stack([np.zeros((40, 33, 3)), np.ones((40, 33, 3)), rng.integers(0, 2, (40, 33, 3)), rng.random((40, 33, 3))])
    features = TextureExtractor()(images.astype(np.float32))
    assert np.isfinite(features).all()
    assert np.abs(features).max() <= 10


def test_bytes_and_floats_and_batches_give_the_same_features(phantoms):
    few = phantoms[:7]
    features = TextureExtractor()(few)
    np.testing.assert_allclose(TextureExtractor(batch_size=2)(few), features, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(TextureExtractor()(few.astype(np.float32) / 255), features, rtol=1e-5, atol=1e-5)


def test_grey_images_are_colour_images_of_one_colour(phantoms):
    grey = phantoms[:3, ..., :1]
    np.testing.assert_allclose(TextureExtractor()(grey), TextureExtractor()(grey.repeat(3, -1)), atol=1e-5)


def test_mean_colour_of_the_quadrants():
    image = np.zeros((1, 32, 32, 3), np.float32)
    image[0, :16, 16:] = (0.9, 0.6, 0.0)
    features = TextureExtractor()(image)[0, :12].reshape(3, 4)
    np.testing.assert_allclose(features[:, 1], [10 * (0.5 - 0.4), 10 * (0.3 - 0.2), 10 * (0.75 - 0.2)], rtol=1e-4)
    np.testing.assert_allclose(features[:, [0, 2, 3]], [[-4] * 3, [-2] * 3, [-2] * 3], rtol=1e-6)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_damage_moves_images_away_the_more_the_worse(phantoms, distance):
    extract = TextureExtractor()
    real, others = extract(phantoms[:120]), phantoms[120:]
    rng = np.random.default_rng(0)

    def damaged(kind, strength):
        if kind == "blur":
            return ndimage.gaussian_filter(others, (0, strength, strength, 0))
        if kind == "noise":
            return np.clip(others + rng.normal(0, 10 * strength, others.shape), 0, 255).astype(np.uint8)
        return np.clip(others * [1 - 0.2 * strength, 1.0, 1 + 0.2 * strength], 0, 255).astype(np.uint8)

    untouched = distance(real, extract(others))
    for kind in ("blur", "noise", "colour"):
        weak, strong = (distance(real, extract(damaged(kind, strength))) for strength in (0.7, 2.0))
        assert untouched < weak < strong


def test_wrong_images_are_refused():
    extract = TextureExtractor()
    with pytest.raises(DataError, match="32 pixels"):
        extract(np.zeros((1, 16, 64, 3), np.uint8))
    with pytest.raises(DataError, match="image 1 has values that are not finite"):
        extract(np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), np.inf)]))
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        extract(np.full((1, 32, 32, 3), 2.0))
    with pytest.raises(DataError, match="at least 1"):
        extract(np.zeros((0, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="N, H, W"):
        extract(np.zeros((32, 32, 3), np.uint8))


def test_inception_reads_a_local_file_only(tmp_path):
    with pytest.raises(DataError, match="no file of Inception weights"):
        InceptionExtractor(tmp_path / "absent.h5")
    (tmp_path / "broken.h5").write_bytes(b"not weights")
    with pytest.raises(DataError, match="not Keras weights of Inception v3") as caught:
        InceptionExtractor(tmp_path / "broken.h5")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_inception_features_are_the_networks(tmp_path):
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    network = tf.keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg", input_shape=(299, 299, 3))
    network.save_weights(tmp_path / "weights.h5")
    extract = InceptionExtractor(tmp_path / "weights.h5", batch_size=2)
    assert "Inception v3" in extract.name
    images = np.random.default_rng(0).integers(0, 256, (3, 299, 299, 3)).astype(np.uint8)
    expected = network(tf.keras.applications.inception_v3.preprocess_input(images.astype(np.float32)), training=False)
    np.testing.assert_allclose(extract(images), expected, rtol=1e-3, atol=1e-4)
