"""Card 20: volumes segmented from several views, by windows, with learned fusion; and the signatures that do it."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

import medsynth_tf as ms
from medsynth_tf.methods.segmentation.multiplanar_unet.fusion import ViewFusion, fusion_batches
from medsynth_tf.methods.segmentation.multiplanar_unet.intensity import MOST_VALUES, normalised, robust_scale
from medsynth_tf.methods.segmentation.multiplanar_unet.segmenter import VolumeSegmenter
from medsynth_tf.methods.segmentation.multiplanar_unet.views import view_frames
from medsynth_tf.ops import planes as geometry
from medsynth_tf.ops.views import View, accumulate_view, cropped_back, padded_to_multiple
from medsynth_tf.ops.windows import windowed_mean

TINY = {
    "planes": {"annotation": 2, "training": 8, "size": 16},
    "network": {"filters": 2, "levels": 2},
    "comparator": {"size": 8, "stride": 4, "filters": 2, "levels": 1},
    "views": {"count": 3, "slices": 5},
}
QUARTER = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
SHEARED = np.array([[0.8, -0.6, 0.1], [0.55, 0.9, 0.0], [0.0, 0.2, 2.4]])
SHAPE = (7, 10, 13)


@tf.function(reduce_retracing=True)
def _fuse(volume, axes, rotation, pixel, slices: int, ones: bool, nearest: bool):
    shape = tf.shape(volume)
    view = View.over(shape, axes, rotation, pixel)
    predict = tf.ones_like if ones else tf.identity
    how = "nearest" if nearest else "linear"
    return tf.reshape(accumulate_view(tf.zeros([tf.size(volume)]), volume, view, predict, tf.constant(0.0), slices, how), shape)


def fused(volume, frame, axes=None, pixel=1.0, slices=4, ones=False, nearest=False):
    """One view of a volume whose network is the identity, or always says 1."""
    axes = np.eye(3) if axes is None else axes
    args = (tf.constant(volume, tf.float32), tf.constant(axes, tf.float64), tf.constant(frame, tf.float64))
    return _fuse(*args, tf.constant(pixel, tf.float64), slices, ones, nearest).numpy()


def segmenter(network, **overrides):
    config = ms.load_config("multiplanar_unet", overrides={**TINY, **overrides})
    return VolumeSegmenter(config, network, 4, view_frames(config))


def logits_of_input(images):
    """A network whose probability is σ(intensity)."""
    return images


def volume_of(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


# -- M11 ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slices", [1, 4, 16])
@pytest.mark.parametrize("frame", [np.eye(3), QUARTER, geometry.axis_frame(1), geometry.axis_frame(2)])
def test_m11_views_along_the_axes_and_quarter_turns_give_back_the_volume_exactly(frame, slices):
    volume = volume_of()
    np.testing.assert_array_equal(fused(volume, frame, slices=slices), volume)
    np.testing.assert_array_equal(fused(volume, frame, np.diag([1.0, 0.5, 2.0]), 0.5, slices), volume)
    np.testing.assert_array_equal(fused(volume, frame, slices=slices, nearest=True), volume)


def test_m11_a_turned_view_gives_back_a_ramp_and_a_smooth_volume():
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(*map(np.arange, (16, 18, 17)), indexing="ij"), -1).astype(float)
    ramp = places @ [0.5, -0.2, 0.3]
    smooth = ndimage.gaussian_filter(rng.normal(size=ramp.shape), 2.0)
    inner = (slice(3, -3),) * 3
    for _ in range(4):
        frame = geometry.random_frame(rng)
        np.testing.assert_allclose(fused(ramp, frame, pixel=0.7)[inner], ramp[inner], atol=1e-4)
        error = np.abs(fused(smooth, frame, pixel=0.5) - smooth)[inner]
        assert error.max() < 0.15 * smooth.std()


def test_m11_every_voxel_is_predicted_once_by_each_view_corners_included():
    rng = np.random.default_rng(2)
    for number in range(12):
        axes = np.diag(rng.uniform(0.4, 2.5, 3)) if number % 2 else SHEARED
        slices, pixel = (1, 3, 8)[number % 3], rng.uniform(0.5, 2.0)
        for nearest in (False, True):
            ones = fused(np.zeros(SHAPE), geometry.random_frame(rng), axes, pixel, slices, ones=True, nearest=nearest)
            np.testing.assert_allclose(ones, 1.0, atol=1e-5)


def test_m11_the_way_back_agrees_with_a_rotation_by_scipy():
    rng = np.random.default_rng(3)
    volume, frame = volume_of(3, (9, 11, 10)), geometry.random_frame(rng)
    axes, pixel = np.diag([1.5, 0.8, 1.0]), 0.9
    place = geometry.Geometry(volume.shape, axes)
    view = View.over(tf.constant(volume.shape), tf.constant(axes), frame, tf.constant(pixel, tf.float64))
    points = geometry.grid_points(frame, np.zeros(3), view.shape.numpy(), pixel)
    turned = geometry.sample_linear(
        volume, place.indices(points), 0.0
    )  # the whole rotated volume, which the library never makes
    predicted = np.tanh(turned)
    voxels = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    back = ((voxels - place.middle) @ axes.T @ frame) / pixel + (view.shape.numpy() - 1) / 2
    wanted = ndimage.map_coordinates(predicted, np.moveaxis(back, -1, 0), order=1)
    total = accumulate_view(tf.zeros([volume.size]), tf.constant(volume), view, tf.tanh, tf.constant(0.0), 3)
    np.testing.assert_allclose(tf.reshape(total, volume.shape), wanted, atol=1e-5)


def test_m11_the_segmenter_covers_all_and_pads_slices_for_the_network():
    sure = segmenter(lambda images: tf.fill(tf.shape(images), 40.0))
    found = sure.probability(tf.constant(volume_of()), tf.constant(SHEARED)).numpy()
    np.testing.assert_allclose(found, 1.0, atol=1e-6)
    images = tf.constant(volume_of(0, (2, 5, 9)))[..., tf.newaxis]
    padded = padded_to_multiple(images, 4)
    assert padded.shape == (2, 8, 12, 1)
    np.testing.assert_array_equal(padded[:, 0, 1], images[:, 0, 0])
    np.testing.assert_array_equal(cropped_back(padded, tf.constant(5), tf.constant(9)), images)


# -- M12 ----------------------------------------------------------------------------------------------------------------------


def test_m12_fusion_is_the_mean_of_probabilities_then_a_threshold_and_no_vote():
    many = segmenter(logits_of_input)
    volume, axes = tf.constant(volume_of()), tf.constant(np.diag([1.0, 0.7, 1.2]))
    each = [many.probability(volume, axes, [view]).numpy() for view in range(3)]
    fused_mean = many.probability(volume, axes).numpy()
    np.testing.assert_allclose(fused_mean, np.mean(each, 0), atol=1e-6)
    vote = np.mean([p > 0.5 for p in each], 0) > 0.5
    assert ((fused_mean > 0.5) != vote).any(), "this volume tells the two apart"


def test_m12_the_served_mask_is_the_mean_above_one_half():
    model = ms.create("multiplanar_unet", ms.load_config("multiplanar_unet", overrides=TINY))
    made = model.signatures()["serving_default"](volume=tf.constant(volume_of()[None]), spacing=tf.ones([1, 3]))
    np.testing.assert_array_equal(made["mask"], (made["probability"].numpy() > 0.5).astype(np.uint8))
    each = [model.segmenter.probability(tf.constant(volume_of()), tf.eye(3, dtype=tf.float64), [k]) for k in range(3)]
    np.testing.assert_allclose(made["probability"][0], np.mean(each, 0), atol=1e-5)


def test_views_are_as_many_as_asked_fixed_by_the_seed_and_different():
    frames = [view_frames(ms.load_config("multiplanar_unet", overrides={"views.count": 6, "seed": s})) for s in (0, 0, 1)]
    assert len(frames[0]) == 6
    np.testing.assert_array_equal(frames[0], frames[1])
    assert np.abs(np.array(frames[0]) - frames[2]).max() > 0.1


# -- learned fusion -----------------------------------------------------------------------------------------------------------


def test_learned_fusion_starts_as_the_mean_and_is_a_softmax_of_weighted_views():
    config = ms.load_config("multiplanar_unet", overrides={**TINY, "views.fusion": "learned"})
    fusion = ViewFusion(config, 3)
    views = np.random.default_rng(0).uniform(size=(50, 3)).astype(np.float32)
    np.testing.assert_array_equal(fusion(views).numpy() > 0.5, views.mean(1) > 0.5)
    rng = np.random.default_rng(1)
    w, b = rng.normal(size=(3, 2)), rng.normal(size=2)
    fusion.view_weights.assign(w)
    fusion.class_bias.assign(b)
    classes = np.stack([1 - views, views], -1)
    z = (w * classes).sum(1) + b
    np.testing.assert_allclose(fusion(views), np.exp(z[:, 1]) / np.exp(z).sum(1), atol=1e-5)
    # voxel by voxel in the segmenter, whose slabs add up scores
    many = VolumeSegmenter(config, logits_of_input, 4, view_frames(config), fusion)
    volume, axes = tf.constant(volume_of()), tf.eye(3, dtype=tf.float64)
    each = np.stack([many.probability(volume, axes, [view]).numpy().ravel() for view in range(3)], -1)
    np.testing.assert_allclose(many.probability(volume, axes).numpy().ravel(), fusion(each), atol=1e-5)


def test_learned_fusion_trusts_the_view_that_is_right():
    config = ms.load_config("multiplanar_unet", overrides={**TINY, "views.fusion": "learned", "fusion.learning_rate": 0.05})
    fusion = ViewFusion(config, 2)
    fusion.compile()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 4000).astype(np.uint8)
    views = np.stack([0.8 * labels + 0.1, rng.uniform(size=4000)], 1).astype(np.float32)
    data = fusion_batches(views, labels, 256, 1, 0)
    first = fusion.fit(data, steps_per_epoch=40, epochs=2, verbose=0).history["fusion"]
    assert first[1] < first[0]
    weights = fusion.view_weights.numpy().sum(1)
    assert weights[0] > weights[1] + 1
    np.testing.assert_array_equal(
        next(iter(fusion_batches(views, labels, 8, 1, 3)))["views"],
        list(fusion_batches(views, labels, 8, 1, 0).take(4))[3]["views"],
    )


# -- the comparator's windows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 12, 17), (3, 20, 8)])
def test_windows_are_averaged_over_the_whole_volume(shape):
    volume = volume_of(0, shape)
    same = windowed_mean(tf.constant(volume), 8, 4, tf.identity, tf.constant(0.0))
    np.testing.assert_allclose(same, volume, atol=1e-6)
    # windows that say where in the window a voxel is: an independent loop
    place = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    sides = [max(8, -(-side // 4) * 4) for side in shape]
    total, times = np.zeros(sides), np.zeros(sides)
    for d in range(0, sides[0] - 7, 4):
        for h in range(0, sides[1] - 7, 4):
            for w in range(0, sides[2] - 7, 4):
                total[d : d + 8, h : h + 8, w : w + 8] += place
                times[d : d + 8, h : h + 8, w : w + 8] += 1
    found = windowed_mean(tf.constant(volume), 8, 4, lambda window: 0 * window + place, tf.constant(0.0))
    np.testing.assert_allclose(found, (total / times)[: shape[0], : shape[1], : shape[2]], rtol=1e-5)


def test_the_comparator_segments_on_cubic_voxels_and_goes_back():
    by_windows = segmenter(logits_of_input, model="unet3d")
    volume = volume_of(1, (6, 9, 11))
    median, scale, _ = (float(v) for v in robust_scale(tf.constant(volume)))
    wanted = 1 / (1 + np.exp(-(volume - median) / scale))
    for axes in (np.eye(3), np.diag([3.0, 1.0, 1.0]), np.diag([2.0, 1.0, 0.5])):
        found = by_windows.probability(tf.constant(volume), tf.constant(axes)).numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-5)


# -- intensities --------------------------------------------------------------------------------------------------------------


def test_intensities_are_scaled_by_median_and_quartiles():
    volume = np.random.default_rng(0).gamma(2.0, 30.0, (20, 21, 22)).astype(np.float32)
    low, first, median, third = np.percentile(volume, [1, 25, 50, 75])
    scaled, background = normalised(volume)
    np.testing.assert_allclose(scaled, (volume - median) / (third - first), atol=1e-4)
    assert background == pytest.approx((low - median) / (third - first), abs=1e-4)
    empty = np.zeros((10, 10, 10), np.uint8)
    assert normalised(empty)[0].std() == 0.0
    empty[0] = 200  # quartiles are all background
    assert normalised(empty)[0].std() == pytest.approx(1.0, abs=1e-4)
    large = np.random.default_rng(1).normal(5.0, 2.0, 3 * MOST_VALUES + 17).astype(np.float32)
    np.testing.assert_allclose([float(v) for v in robust_scale(tf.constant(large))][:2], [5.0, 2.0 * 1.349], rtol=0.01)


# -- signatures ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served():
    model = ms.create("multiplanar_unet", ms.load_config("multiplanar_unet", overrides=TINY))
    return model.signatures()


def test_serving_default_takes_any_shape_and_each_answer_is_its_own(served):
    volumes = tf.constant(np.stack([volume_of(seed) for seed in range(3)]))
    spacing = tf.constant([[1.0, 1.0, 1.0], [2.0, 0.5, 1.0], [1.0, 1.0, 3.0]])
    together = served["serving_default"](volume=volumes, spacing=spacing)
    for i in range(3):
        alone = served["serving_default"](volume=volumes[i : i + 1], spacing=spacing[i : i + 1])
        np.testing.assert_array_equal(alone["probability"][0], together["probability"][i])
    assert served["serving_default"](volume=tf.zeros([1, 1, 4, 6]), spacing=tf.ones([1, 3]))["mask"].shape == (1, 1, 4, 6)


def test_oblique_volumes_are_segmented_in_millimetres(served):
    volume = tf.constant(volume_of()[np.newaxis])
    affine = np.eye(4, dtype=np.float32)[np.newaxis]
    affine[0, :3, :3] = np.diag([2.0, 0.5, 1.0])
    plain = served["serving_default"](volume=volume, spacing=tf.constant([[2.0, 0.5, 1.0]]))
    same = served["oblique"](volume=volume, affine=tf.constant(affine))
    np.testing.assert_allclose(same["probability"], plain["probability"], atol=1e-6)
    affine[0, :3, 3] = 700.0  # where the volume lies does not matter
    moved = served["oblique"](volume=volume, affine=tf.constant(affine))
    np.testing.assert_array_equal(moved["probability"], same["probability"])
    affine[0, :3, :3] = SHEARED
    other = served["oblique"](volume=volume, affine=tf.constant(affine))
    assert np.abs(other["probability"] - same["probability"]).max() > 1e-4


@pytest.mark.parametrize(
    ("volume", "spacing", "words"),
    [
        (np.zeros([0, 4, 4, 4]), np.ones([0, 3]), "the batch is empty"),
        (np.zeros([2, 4, 4, 4]), np.ones([1, 3]), "differ in batch size"),
        (np.zeros([1, 4, 0, 4]), np.ones([1, 3]), "a side is 0"),
        (np.full([1, 4, 4, 4], np.nan), np.ones([1, 3]), "values must be finite"),
        (np.zeros([1, 4, 4, 4]), np.array([[1.0, -1.0, 1.0]]), "millimetres above 0"),
        (np.zeros([1, 4, 4, 4]), np.array([[1.0, np.inf, 1.0]]), "millimetres above 0"),
        (np.zeros([1, 4, 4, 4]), np.array([[1e-4, 1.0, 1.0]]), "more than 2048 points"),
    ],
)
def test_unusable_requests_are_refused_in_words(served, volume, spacing, words):
    with pytest.raises(tf.errors.InvalidArgumentError, match=words):
        served["serving_default"](volume=tf.constant(volume, tf.float32), spacing=tf.constant(spacing, tf.float32))


def test_flat_affines_are_refused_in_words(served):
    flat = np.eye(4, dtype=np.float32)[np.newaxis]
    flat[0, :, 1] = flat[0, :, 0]
    with pytest.raises(tf.errors.InvalidArgumentError, match="axes independent"):
        served["oblique"](volume=tf.zeros([1, 4, 4, 4]), affine=tf.constant(flat))
