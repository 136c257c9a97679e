"""Card 31, M14 to M16: editing masks, soft masks, and the metrics of the card."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg, stats
from scipy.ndimage import gaussian_filter

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError, UnknownNameError
from medsynth_tf.methods.translation.dr_gan.editing import Masks
from medsynth_tf.methods.translation.dr_gan.masks import (
    MaskNetwork,
    class_activation_map,
    mask_loss,
    soft_planes,
    with_soft_planes,
)
from medsynth_tf.methods.translation.dr_gan.networks import plane_pyramid
from medsynth_tf.metrics.classification import cohen_kappa
from medsynth_tf.metrics.sliced_wasserstein import (
    enlarged,
    laplacian_pyramid,
    sliced_wasserstein,
    wasserstein_of_projections,
)
from medsynth_tf.metrics.tfgan import frechet_distance
from medsynth_tf.networks.classifiers import ImageClassifier
from tests.methods.tiny import TINY

SOURCE = "phantom:graded_lesions?count=11&size=64"


@pytest.fixture(scope="module")
def model():
    config = ms.load_config("dr_gan", overrides={**TINY["dr_gan"][0], "image_size": 64})
    return ms.create("dr_gan", config)


@pytest.fixture(scope="module")
def batch(model):
    return next(iter(model.dataset(ms.open_source(SOURCE), model.config, "train", epochs=None)))  # always the same


@pytest.fixture(scope="module")
def masks(model, batch):
    return Masks.of(model, batch["label_map"][0].numpy())


# -- M14: editing -------------------------------------------------------------------------------------------------------------


def test_m14_adding_a_lesion_changes_the_image_around_it(model, batch, masks):
    centre, radius = (40, 24), 3.0
    edited = masks.add("lesion", centre, radius)
    model.generate(model.condition(batch), batch["grade"], batch["seed"], training=True)  # moving statistics of something
    one = tf.constant([1], tf.int64)
    before, after = (model.generate(tf.constant(m.planes[np.newaxis]), one, one)["image"][0] for m in (masks, edited))
    change = np.abs(after - before).sum(-1)
    rows, columns = np.indices(change.shape)
    near = np.hypot(rows - centre[0], columns - centre[1]) <= 4 * radius
    assert near.mean() < 0.12
    assert change[near].sum() > 0.9 * change.sum() > 0


def test_m14_lesions_are_added_moved_removed_and_scattered(model, masks):
    start = masks.plane("lesion")
    added = masks.add("lesion", (40, 24), 3.0)
    assert added.plane("lesion")[40, 24] == 1
    assert (added.plane("lesion") >= start).all()
    assert abs(masks.remove("lesion").add("lesion", (40, 24), 3.0).plane("lesion").sum() - np.pi * 9) < 4
    others = [i for i, name in enumerate(model.config.channels) if name != "lesion"]
    np.testing.assert_array_equal(added.planes[..., others], masks.planes[..., others])
    np.testing.assert_array_equal(masks.plane("lesion"), start)  # masks themselves never change
    empty = masks.remove("lesion")
    assert not empty.plane("lesion").any()
    alone = empty.add("lesion", (20, 20), 2.0)
    moved = alone.move("lesion", (20, 20), (10, -5))
    np.testing.assert_allclose(moved.plane("lesion"), empty.add("lesion", (30, 15), 2.0).plane("lesion"), atol=1e-6)
    np.testing.assert_array_equal(moved.move("lesion", (30, 15), (-10, 5)).planes, alone.planes)
    two = alone.add("lesion", (50, 50), 2.0)
    np.testing.assert_array_equal(two.remove("lesion", at=(50, 50)).planes, alone.planes)
    scattered = empty.scatter("lesion", 5, (1.5, 3.0), seed=4)
    np.testing.assert_array_equal(scattered.planes, empty.scatter("lesion", 5, (1.5, 3.0), seed=4).planes)
    assert 5 * np.pi < scattered.plane("lesion").sum() < 5 * np.pi * 12
    assert np.any(scattered.planes != empty.scatter("lesion", 5, (1.5, 3.0), seed=5).planes)
    with pytest.raises(DataError, match="no lesion at row 20, column 20"):
        empty.move("lesion", (20, 20), (1, 1))
    with pytest.raises(UnknownNameError, match="lesion"):
        masks.add("lesions", (1, 1), 1)


def test_m14_sampling_sets_the_grade_and_is_repeatable(model, batch, masks):
    images = masks.sample([1, 2, 1], grade=2)
    assert images.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(images[0], images[2])
    inputs = {"label_map": batch["label_map"][:1], "seed": tf.constant([2], tf.int64), "grade": tf.constant([2], tf.int64)}
    served = model.signatures()["serving_default"](**inputs)["image"]
    assert np.abs(served[0].numpy().astype(int) - images[1]).max() <= 1
    with pytest.raises(DataError, match=r"grade 3: this model has 0 … 2"):
        masks.sample([1], grade=3)
    with pytest.raises(DataError, match="takes 64×64"):
        Masks.of(model, np.zeros([32, 32], np.uint8))
    assert masks.sample([1]).shape == (1, 64, 64, 3)  # the encoder reads the grade off the masks


# -- M15: metrics -------------------------------------------------------------------------------------------------------------


def test_m15_frechet_distance_is_the_closed_form_between_gaussians():
    rng = np.random.default_rng(0)
    real, synthetic = rng.normal(0, 1, [400, 4]) @ rng.normal(0, 1, [4, 4]), rng.normal(1, 2, [300, 4])
    (m, c), (n, d) = ((x.mean(0), np.cov(x.T)) for x in (real, synthetic))
    expected = ((m - n) ** 2).sum() + np.trace(c + d - 2 * np.real(linalg.sqrtm(c @ d)))
    assert frechet_distance(real, synthetic) == pytest.approx(expected, rel=1e-2)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-4)
    shifted = frechet_distance(real, real + 3.0)  # equal covariances: the squared distance of the means alone
    assert shifted == pytest.approx(4 * 9.0, rel=1e-4)


def test_m15_sliced_wasserstein_projections_agree_with_scipy():
    rng = np.random.default_rng(0)
    first, second, directions = rng.normal(0, 1, [50, 6]), rng.normal(0.5, 2, [50, 6]), rng.normal(0, 1, [6, 9])
    expected = np.mean([stats.wasserstein_distance(first @ axis, second @ axis) for axis in directions.T])
    assert wasserstein_of_projections(first, second, directions) == pytest.approx(expected, rel=1e-9)


def test_m15_the_laplacian_pyramid_sums_back_and_its_bands_have_no_mean():
    images = np.random.default_rng(0).uniform(0, 1, [2, 64, 48, 3]).astype(np.float32)
    levels = laplacian_pyramid(images)
    assert [level.shape[1:3] for level in levels] == [(64, 48), (32, 24)]
    rest = levels[-1]
    for band in reversed(levels[:-1]):
        assert abs(band.mean()) < 0.01
        rest = band + enlarged(rest, band.shape)
    np.testing.assert_allclose(rest, images, atol=1e-5)
    flat = laplacian_pyramid(np.full([1, 64, 64, 1], 0.3, np.float32))
    np.testing.assert_allclose(flat[0], 0, atol=1e-6)


def test_m15_sliced_wasserstein_is_small_for_one_distribution_and_finds_the_scale_that_differs():
    rng = np.random.default_rng(0)

    def photographs(count):
        noise = rng.normal(0, 1, [count, 64, 64, 3])
        smooth = gaussian_filter(noise, (0, 4, 4, 0)) * 8
        return np.clip(0.5 + 0.1 * smooth + 0.05 * noise, 0, 1).astype(np.float32), smooth

    (one, _), (other, smooth) = photographs(12), photographs(12)
    same = sliced_wasserstein(one, other)
    assert set(same) == {"64", "32", "16", "mean"}
    assert same["mean"] == pytest.approx(np.mean([same[level] for level in ("64", "32", "16")]))
    patchy = np.repeat(np.repeat(rng.integers(0, 2, [12, 4, 4, 1]), 16, 1), 16, 2) * np.sqrt(
        2
    )  # fine noise in every other place
    fine = 0.05 * patchy * rng.normal(0, 1, smooth.shape)
    different = sliced_wasserstein(one, np.clip(0.5 + 0.1 * smooth + fine, 0, 1).astype(np.float32))
    assert different["64"] > 3 * same["64"]
    assert different["64"] > 2 * different["16"]
    assert sliced_wasserstein(one, other) == same
    with pytest.raises(DataError, match="sizes must be the same"):
        sliced_wasserstein(one, other[:, :32])
    with pytest.raises(DataError, match="at least 7 pixels"):
        sliced_wasserstein(one[:, :6, :6], other[:, :6, :6])


def test_m15_quadratic_kappa_is_one_for_identity_and_zero_for_independence():
    truth, predicted = (grid.ravel() for grid in np.meshgrid(np.arange(5), np.arange(5)))
    assert cohen_kappa(truth, truth, 5, "quadratic") == 1.0
    assert cohen_kappa(truth, predicted, 5, "quadratic") == pytest.approx(0.0, abs=1e-12)


# -- M16: soft masks ----------------------------------------------------------------------------------------------------------


def test_m16_a_microaneurysm_of_one_pixel_survives_every_scale():
    planes = np.zeros([1, 64, 64, 1], np.float32)
    planes[0, 37, 21, 0] = 1
    for level, half in enumerate(plane_pyramid(tf.constant(planes), 4)):
        assert half[0, 37 >> level, 21 >> level, 0] == 4.0**-level
        assert float(tf.reduce_sum(half)) == 4.0**-level


def test_m16_a_u_net_learns_its_lesion_and_an_activation_map_shows_what_its_class_is_seen_by(model, batch):
    data = tf.data.Dataset.from_tensors(batch).repeat()
    network = MaskNetwork(model.config.labels.index("lesion"), widths=(8, 16))
    network.compile(tf.keras.optimizers.Adam(1e-2))
    first = network.fit(data, steps_per_epoch=1, verbose=0).history["loss"][0]
    last = network.fit(data, steps_per_epoch=60, verbose=0).history["loss"][0]
    assert last < 0.6 * first
    images = tf.cast(batch["image"], tf.float32) / 127.5 - 1
    predicted, lesion = network.soft_mask(images).numpy(), batch["label_map"].numpy() == 3
    assert predicted[lesion].mean() > predicted[~lesion].mean() + 0.4

    classifier = ImageClassifier("small", 3, filters=2, seed=1)
    classifier.head.kernel.assign(tf.constant(np.eye(8, 3), tf.float32))
    shown = class_activation_map(classifier, 1, images).numpy()
    evidence = classifier.feature_maps(images)[-1][..., 1].numpy()
    probability = tf.nn.softmax(classifier(images)["logits"])[:, 1].numpy()
    expected = evidence / evidence.max((1, 2), keepdims=True) * probability[:, None, None]
    assert evidence.shape[1:] == (16, 16)
    np.testing.assert_allclose(shown, tf.image.resize(expected[..., None], [64, 64])[..., 0], atol=1e-6)

    makers = {"vessel": network.soft_mask, "lesion": lambda x: class_activation_map(classifier, 1, x)}
    planes = soft_planes(images, makers, model.config).numpy()
    channels = model.config.channels
    assert planes.shape == (2, 64, 64, len(channels))
    assert planes.min() >= 0
    assert planes.max() <= 1
    np.testing.assert_allclose(planes[..., channels.index("vessel")], predicted, atol=1e-6)
    np.testing.assert_allclose(planes[..., channels.index("lesion")], shown, atol=1e-6)
    assert not planes[..., channels.index("optic_disc")].any()
    with pytest.raises(ValueError, match="no such channel"):
        soft_planes(images, {"nerve": network.soft_mask}, model.config)
    # both stand in for the label map in training
    soft = next(iter(with_soft_planes(tf.data.Dataset.from_tensors(batch), makers, model.config)))
    np.testing.assert_allclose(soft["planes"], planes, atol=1e-5)
    np.testing.assert_array_equal(model.condition(soft), soft["planes"])
    assert np.abs(model(soft) - model(batch)).max() > 1e-6
    model.compile()
    assert all(np.isfinite(value) for value in model.train_step(soft).values())


def test_m16_the_mask_loss_is_zero_for_certainty_and_counts_a_missed_lesion():
    target = np.zeros([1, 16, 16], np.float32)
    target[0, 3:6, 3:6] = 1
    sure = tf.constant((2 * target - 1) * 50)
    assert float(mask_loss(sure, target)) == pytest.approx(0, abs=1e-6)
    assert float(mask_loss(tf.fill([1, 16, 16], -50.0), target)) == pytest.approx(50 * 9 / 256 + 0.9, rel=1e-3)
