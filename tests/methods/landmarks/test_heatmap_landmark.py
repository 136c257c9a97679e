"""heatmap_landmark: targets, loss, decoder, data, augmentation, translator; each M-item of its card by name."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy import ndimage, optimize
from skimage.filters import threshold_otsu
from skimage.morphology import disk

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.challenge_points import read_points, write_points
from medsynth_tf.losses.adversarial import least_squares_discriminator, least_squares_generator
from medsynth_tf.losses.binary_segmentation import soft_dice_loss
from medsynth_tf.losses.heatmap import heatmap_loss
from medsynth_tf.methods.landmarks.heatmap_landmark.augmentation import augment, mirror, recolour
from medsynth_tf.methods.landmarks.heatmap_landmark.config import FOLDS, DecoderConfig
from medsynth_tf.methods.landmarks.heatmap_landmark.data import keys_of
from medsynth_tf.methods.landmarks.heatmap_landmark.decoding import decode
from medsynth_tf.methods.schedules import WarmupCosine
from medsynth_tf.metrics.points import PointF1, match_points, point_scores
from medsynth_tf.networks.heatmap_unet import PlainHeatmapUNet, ResNeXtUNet
from medsynth_tf.networks.resnet_translator import PatchScorer, ResNetTranslator
from medsynth_tf.ops import blobs
from medsynth_tf.ops.affine import affine, affine_points
from medsynth_tf.ops.heatmaps import gaussian_heatmaps
from tests.methods.tiny import TINY

SIZE = (96, 160)


def tiny(**overrides):
    return ms.load_config("heatmap_landmark", overrides={**TINY["heatmap_landmark"][0], **overrides})


def heatmap(points, size=SIZE, variance=32.0, compose="sum_minmax"):
    return gaussian_heatmaps(tf.constant([points], tf.float32), size, variance, compose)[0].numpy()


def found(mask, **settings):
    """Points of a binary map, [N, 2]."""
    options = {"threshold": "fixed", "max_points": 16, **settings}
    answer = decode(tf.constant(mask, tf.float32)[tf.newaxis], DecoderConfig(**options))
    return answer["points"][0, : int(answer["count"][0])].numpy()


def discs(size, *discs):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.any([np.hypot(rows - row, columns - column) <= radius for row, column, radius in discs], 0).astype(np.float32)


# -- targets ----------------------------------------------------------------------------------------------------------------


def test_m1_any_number_of_points_has_one_channel_and_none_has_no_nan():
    points = np.full([3, 5, 2], np.nan, np.float32)
    points[1, 0] = (20, 30)
    points[2] = [(10, 10), (10, 60), (50, 10), (50, 90), (80, 150)]
    maps = gaussian_heatmaps(tf.constant(points), SIZE, 32.0).numpy()
    assert maps.shape == (3, *SIZE)
    assert not maps[0].any()
    assert np.isfinite(maps).all()
    assert ndimage.label(maps[2] > 0.9)[1] == 5
    np.testing.assert_array_equal(gaussian_heatmaps(tf.zeros([2, 0, 2]), SIZE, 32.0), np.zeros([2, *SIZE]))


def test_m2_a_lone_point_peaks_where_it_is_and_falls_to_a_half_at_its_half_width():
    far = math.sqrt(2 * math.log(2) * 32.0)
    for compose in ("sum_minmax", "max"):
        alone = heatmap([(40, 70)], compose=compose)
        assert alone[40, 70] == 1.0
        assert np.unravel_index(alone.argmax(), SIZE) == (40, 70)
        np.testing.assert_allclose(np.interp(70 + far, np.arange(160), alone[40]), 0.5, atol=2e-3)
        np.testing.assert_allclose(heatmap([(40, 70), (40, 70)], compose=compose), alone, atol=1e-6)
    half = heatmap([(40.5, 70.0)])
    np.testing.assert_allclose(half[40], half[41], atol=1e-6)  # sub-pixel: between two rows


def test_m3_overlap_lowers_lone_peaks_under_sum_and_not_under_max():
    two = heatmap([(48, 30), (48, 110)])
    np.testing.assert_allclose([two[48, 30], two[48, 110]], [1.0, 1.0], atol=1e-5)
    three = heatmap([(48, 30), (48, 110), (48, 34)])
    expected = 1 / (2 * math.exp(-4 / 64))  # the sum's maximum is midway between two Gaussians 4 px apart
    np.testing.assert_allclose(three[48, 110], expected, atol=2e-3)
    np.testing.assert_allclose(heatmap([(48, 30), (48, 110), (48, 34)], compose="max")[48, [30, 34, 110]], 1.0)


# -- network and loss -------------------------------------------------------------------------------------------------------


def test_m4_the_networks_give_logits_of_the_input_size():
    network = ResNeXtUNet()
    assert network(tf.keras.Input([288, 512, 3])).shape[1:] == [288, 512, 1]
    # encoder without BN: 22,979,904 - 68,224 + BN 68,224, as ResNeXt-50 32×4d without its classifier is known to have
    encoder = [network.stem, *(block for stage in network.stages for block in stage)]
    assert sum(int(tf.size(v)) for part in encoder for v in part.trainable_variables) == 22_979_904
    widths = [2048 + 1024, 256 + 512, 128 + 256, 64 + 64, 32]
    decoder = sum(9 * w * out + 9 * out * out + 4 * out for w, out in zip(widths, (256, 128, 64, 32, 16)))
    total = sum(int(tf.size(v)) for v in network.trainable_variables)
    assert total == 22_979_904 + decoder + 17
    assert 31e6 < total < 33e6
    plain = PlainHeatmapUNet()
    assert plain(tf.keras.Input([288, 512, 3])).shape[1:] == [288, 512, 1]
    assert plain.down[-1][0].convolution.kernel.shape[-2:] == [256, 512]
    small = PlainHeatmapUNet((2, 4))
    logits = small(100.0 * tf.random.stateless_normal([1, 8, 8, 3], [1, 2])).numpy()
    assert logits.min() < 0.0 or logits.max() > 1.0  # no sigmoid in it


def test_m5_dice_is_of_the_whole_batch():
    zeros, nothing = tf.zeros([2, 8, 8]), tf.fill([2, 8, 8], -30.0)
    assert float(heatmap_loss(nothing, zeros)) == pytest.approx(0.0, abs=1e-6)
    target = np.zeros([2, 8, 8], np.float32)
    target[0, :2], target[1, 0, 0] = 1.0, 1.0
    perfect = tf.constant(60.0 * target - 30.0)
    assert float(heatmap_loss(perfect, tf.constant(target))) == pytest.approx(0.0, abs=1e-6)
    half = tf.zeros([2, 8, 8])  # p = 0.5 everywhere
    whole = 1 - (2 * 0.5 * 17 + 1) / (64 + 17 + 1)
    apart = 1 - np.mean([(2 * 0.5 * n + 1) / (32 + n + 1) for n in (16, 1)])
    assert float(heatmap_loss(half, tf.constant(target))) == pytest.approx(whole, abs=1e-6)
    assert abs(whole - apart) > 0.01


def test_m5_the_other_losses_are_what_they_say():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=[2, 4, 4]), rng.uniform(size=[2, 4, 4])
    p = 1 / (1 + np.exp(-logits))
    entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    dice = 1 - (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
    mse = ((p - target) ** 2).mean()
    expected = {
        "dice": dice,
        "bce_dice": entropy + dice,
        "focal": 0.8 * (1 - np.exp(-entropy)) ** 2 * entropy,
        "mse": mse,
        "mse_dice": mse + dice,
    }
    for kind, value in expected.items():
        assert float(heatmap_loss(tf.constant(logits), tf.constant(target), kind)) == pytest.approx(value, rel=1e-5)


def test_m6_the_best_binary_disc_for_a_gaussian_has_the_closed_form_radius():
    theta = optimize.brentq(lambda t: t * (2 - math.log(t)) - 1, 0.05, 0.9)
    assert theta == pytest.approx(0.318, abs=1e-3)
    variance = 32.0
    size = (129, 129)
    target = gaussian_heatmaps(tf.constant([[[64.0, 64.0]]]), size, variance)
    radii = np.arange(4.0, 14.0, 0.25)
    scores = []
    for radius in radii:
        disc = discs(size, (64, 64, radius))
        scores.append(1 - float(soft_dice_loss(tf.constant(60.0 * disc - 30.0)[tf.newaxis], target, 0.0)))
    best = int(np.argmax(scores))
    assert radii[best] == pytest.approx(math.sqrt(-2 * variance * math.log(theta)), abs=0.5)  # 8.56 px
    assert scores[best] == pytest.approx(0.636, abs=0.01)
    itself = np.log(np.clip(target, 1e-9, 1 - 1e-7) / (1 - np.clip(target, 1e-9, 1 - 1e-7)))
    assert 1 - float(soft_dice_loss(tf.constant(itself), target, 0.0)) == pytest.approx(0.5, abs=0.02)


# -- decoder ----------------------------------------------------------------------------------------------------------------


def test_m7_otsu_is_scikit_images_and_the_brute_force_maximum():
    rng = np.random.default_rng(3)
    maps = np.stack(
        [rng.beta(0.5, 2, (40, 50)), rng.normal(size=(40, 50)), np.where(rng.uniform(size=(40, 50)) < 0.1, 0.9, 0.1)]
    )
    thresholds = blobs.otsu_threshold(tf.constant(maps, tf.float32)).numpy()
    for values, threshold in zip(maps.astype(np.float32), thresholds):
        bins = (values.max() - values.min()) / 256
        assert abs(threshold - threshold_otsu(values)) < 1.01 * bins

        def between(t, values=values):
            low, high = values[values < t], values[values >= t]
            return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

        edges = values.min() + bins * np.arange(1, 256)
        assert between(threshold) >= 0.995 * max(map(between, edges))


def test_m7_constant_maps_and_faint_ones_hold_no_points():
    flat = np.full([2, 16, 16], 0.7, np.float32)
    assert np.asarray(decode(tf.constant(flat), DecoderConfig())["count"]).tolist() == [0, 0]
    faint = 0.05 * discs((32, 32), (16, 16, 5))
    assert len(found(faint, threshold="otsu")) == 1
    assert len(found(faint, threshold="otsu", minimum_peak=0.1)) == 0


def test_m8_opening_is_scipys_and_spares_discs_but_no_specks():
    rng = np.random.default_rng(0)
    masks = ndimage.gaussian_filter(rng.normal(size=[3, 60, 70]), (0, 2, 2)) > 0.02
    for radius in (1, 2, 3):
        opened = blobs.opening(tf.constant(masks), radius).numpy()
        for mask, result in zip(masks, opened):
            np.testing.assert_array_equal(result, ndimage.binary_opening(mask, disk(radius)))
    specks = discs((40, 60), (10, 10, 1), (30, 12, 5), (20, 40, 1.5))
    points = found(specks, cut=False)
    np.testing.assert_allclose(points, [(30, 12)], atol=0.1)


def test_components_areas_and_boxes_are_scipys():
    rng = np.random.default_rng(1)
    masks = ndimage.gaussian_filter(rng.normal(size=[4, 50, 40]), (0, 1, 1)) > 0.05
    measured = blobs.measure_components(blobs.label_components(tf.constant(masks)))
    position = 0
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones([3, 3]))
        names = range(1, count + 1)
        own = slice(position, position + count)
        assert (measured.image[own].numpy() == index).all()
        np.testing.assert_array_equal(measured.area[own], ndimage.sum_labels(mask, labels, names))
        np.testing.assert_allclose(measured.centroid[own], ndimage.center_of_mass(mask, labels, names), atol=1e-4)
        boxes = ndimage.find_objects(labels)
        np.testing.assert_array_equal(measured.low[own], [[s.start for s in box] for box in boxes])
        np.testing.assert_array_equal(measured.high[own], [[s.stop for s in box] for box in boxes])
        position += count
    assert position == len(measured.area)


DUMBBELL = [(30, 40, 8), (42, 40, 8)]
ISOLATED = [(20, 90, 6), (60, 90, 6), (75, 30, 6)]


def near(points, truth):
    return len(match_points(points, np.asarray(truth), 3.0)) == len(truth)


def test_m9_a_dumbbell_is_cut_across_its_shorter_side():
    truth = [(row, column) for row, column, _ in DUMBBELL + ISOLATED]
    upright = discs((96, 110), *DUMBBELL, *ISOLATED)
    points = found(upright)
    assert len(points) == 5
    assert near(points, truth)
    lying = found(upright.T)
    assert len(lying) == 5
    assert near(lying, [(column, row) for row, column in truth])
    np.testing.assert_allclose(sorted(map(tuple, lying[:, ::-1])), sorted(map(tuple, points)), atol=1e-4)


def test_m9_lines_end_with_their_blobs_box_and_squares_are_cut_by_a_row():
    mask = np.zeros([1, 20, 40], bool)
    mask[0, 4:12, 4:12] = True  # a square blob; another one beside it at the height of the line
    mask[0, 7:9, 14:17] = True
    found_blobs = blobs.measure_components(blobs.label_components(tf.constant(mask)))
    line = blobs.cut_lines(found_blobs, tf.constant([True, False]), tf.constant([1, 20, 40])).numpy()[0]
    expected = np.zeros([20, 40], bool)
    expected[7, 4:12] = True  # int(7.5)
    np.testing.assert_array_equal(line, expected)


def test_m10_without_cutting_a_dumbbell_is_one_point_and_equal_discs_are_not_all_cut():
    points = found(discs((96, 110), *DUMBBELL, *ISOLATED), cut=False)
    assert len(points) == 4
    assert near(points, [(36, 40), *((row, column) for row, column, _ in ISOLATED)])
    equal = discs((96, 160), (20, 20, 5), (20, 60, 5), (20, 100, 5), (70, 40, 5))
    assert len(found(equal)) == 4  # none is above the mean
    larger = discs((96, 160), (20, 20, 5), (20, 60, 5), (20, 100, 6))
    assert len(found(larger)) == 4  # the largest alone is
    assert len(found(larger, cut_area_factor=2.0)) == 3


def test_points_beyond_the_limit_are_those_of_the_smallest_blobs_and_batching_changes_nothing():
    many = discs((96, 160), (20, 20, 5), (20, 60, 4), (20, 100, 6), (70, 40, 3))
    options = DecoderConfig(threshold="fixed", cut=False, opening_radius=0, max_points=2)
    other = discs((96, 160), (50, 50, 7))
    together = decode(tf.constant(np.stack([many, np.zeros_like(many), other])), options)
    assert together["count"].numpy().tolist() == [2, 0, 1]
    np.testing.assert_allclose(together["points"][0], [(20, 100), (20, 20)], atol=1e-4)
    np.testing.assert_array_equal(together["points"][1], -np.ones([2, 2]))
    np.testing.assert_array_equal(together["points"][2], decode(tf.constant(other[np.newaxis]), options)["points"][0])


def test_m11_matching_is_greedy_one_to_one_and_counts_add_up_over_frames():
    assert match_points(np.array([[0.0, 0], [0, 3]]), np.array([[0.0, 1]]), 6.0) == [(0, 0)]
    assert len(match_points(np.array([[0.0, 6.0]]), np.array([[0.0, 0.0]]), 6.0)) == 1  # exactly 6 counts
    assert match_points(np.array([[0.0, 6.001]]), np.array([[0.0, 0.0]]), 6.0) == []
    # a chain: found at 0 and 5, true at 4 and 9: the nearest pair (5, 4) goes first, and leaves 0 and 9 apart
    chain = match_points(np.array([[0.0, 0.0], [0.0, 5.0]]), np.array([[0.0, 4.0], [0.0, 9.0]]), 6.0)
    assert chain == [(1, 0)]
    frames = [
        (np.zeros([1, 2]), np.zeros([1, 2])),
        (np.zeros([0, 2]), np.full([3, 2], 9.0)),
        (np.full([1, 2], 50.0), np.zeros([0, 2])),
    ]
    scores = point_scores(frames, 6.0)
    assert (scores["true_positives"], scores["false_positives"], scores["false_negatives"]) == (1, 1, 3)
    assert (scores["precision"], scores["sensitivity"], scores["f1"]) == (0.5, 0.25, pytest.approx(1 / 3))
    nothing = point_scores([(np.zeros([0, 2]), np.zeros([0, 2]))], 6.0)
    assert nothing["precision"] is None
    assert nothing["f1"] is None


def test_m11_the_graph_counts_as_numpy_does():
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(0, 40, [20, 9, 2]).astype(np.float32), rng.uniform(0, 40, [20, 7, 2]).astype(np.float32)
    counts = rng.integers(0, 10, 20)
    truth[rng.uniform(size=[20, 7]) < 0.3] = np.nan
    metric = PointF1(6.0)
    metric.update_state(tf.constant(truth), tf.constant(predicted), tf.constant(counts, tf.int32))
    frames = [(p[:n], t[np.isfinite(t).all(-1)]) for p, n, t in zip(predicted, counts, truth)]
    assert float(metric.result()) == pytest.approx(point_scores(frames, 6.0)["f1"], rel=1e-6)
    assert float(metric.matched) == point_scores(frames, 6.0)["true_positives"]


# -- data -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """All fourteen surgeries of the challenge, two frames each; one frame has no point."""
    root = tmp_path_factory.mktemp("adaptor")
    for surgery in range(1, 15):
        folder = root / f"aicm{surgery}" / "video_01"
        (folder / "images").mkdir(parents=True)
        (folder / "point_labels").mkdir()
        for frame in range(2):
            Image.fromarray(np.full([36, 64, 3], 10 * surgery + frame, np.uint8)).save(folder / "images" / f"{frame:06d}.png")
            points = [(8.5, 20.25), (20.0, 40.0)] if frame or surgery > 1 else []
            write_points(folder / "point_labels" / f"{frame:06d}.json", points, (36, 64))
    return root


def test_m12_folds_hold_out_surgeries(challenge):
    source = ms.open_source(f"folder:{challenge}")
    for domains, number in (("sim", 5), ("intraop", 4)):
        everyone = set()
        for fold in range(1, number + 1):
            config = tiny(train_domains=domains, fold=fold)
            train, held_out = ({k.patient_id for k in keys_of(source, config, split, domains)} for split in ("train", "val"))
            assert held_out == set(FOLDS[domains][fold])
            assert not train & held_out
            assert len(train | held_out) == (10 if domains == "sim" else 4)
            everyone |= held_out
        assert len(everyone) == (10 if domains == "sim" else 4), "each surgery is held out once"
    mixed = tiny(train_domains="intraop+sim", fold=1)
    assert {k.patient_id for k in keys_of(source, mixed, "train", "sim")} == {f"aicm{i}" for i in range(1, 11)}
    with pytest.raises(ConfigError, match="fold = 5"):
        tiny(train_domains="intraop", fold=5)


def test_m12_fractions_keep_surgeries_together_too():
    source = ms.open_source("phantom:valve_landmarks?count=80&size=32&width=48")
    config = tiny(train_domains="intraop", **{"data.split_fractions": [0.5, 0.25, 0.25]})
    surgeries = [{k.patient_id for k in keys_of(source, config, split, "intraop")} for split in ("train", "val", "test")]
    assert not surgeries[0] & surgeries[1]
    assert not surgeries[0] & surgeries[2]
    assert sum(map(len, surgeries)) == 10


def test_frames_without_points_are_read_and_landmarks_scale_with_the_image(challenge):
    source = ms.open_source(f"folder:{challenge}")
    config = tiny(train_domains="sim", fold=5, image_height=72, image_width=128)
    batch = next(iter(ms.create("heatmap_landmark", config).dataset(source, config, "val").unbatch().batch(4)))
    points = batch["landmarks"].numpy()
    assert np.isnan(points[0]).all()  # aicm1, frame 0
    np.testing.assert_allclose(points[1, :2], [(17.5, 41.0), (40.5, 80.5)])
    assert np.isnan(points[1, 2:]).all()
    few = tiny(train_domains="sim", fold=5, **{"decoder.max_points": 1})
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"more landmarks than decoder.max_points = 1"):
        list(ms.create("heatmap_landmark", few).dataset(source, few, "val"))


def test_batches_of_two_domains_begin_with_the_simulator():
    source = ms.open_source(TINY["heatmap_landmark"][1])
    config = tiny(translated_ratio=0.25, **{"training.batch_size": 4})
    stream = ms.create("heatmap_landmark", config).dataset(source, config, "train", epochs=None)
    sim = {k.id for k in source.keys() if k.label == 0}
    originals = {source.read(k)["image"].tobytes(): k.id for k in source.keys()}
    for batch in stream.take(3):
        ids = [originals[image.tobytes()] for image in batch["image"].numpy()]
        assert [i in sim for i in ids] == [True, False, False, False]
        assert len(set(batch["seed"].numpy().tolist())) == 4
    with pytest.raises(ConfigError, match="leaves one of the domains out"):
        tiny(translated_ratio=0.1)


# -- translator -------------------------------------------------------------------------------------------------------------


def test_m13_the_generator_keeps_the_shape_and_perfect_players_have_no_loss():
    made = ResNetTranslator(3, 2, 1)(tf.random.stateless_uniform([1, 32, 48, 3], [1, 2], -1.0, 1.0))
    assert made.shape == [1, 32, 48, 3]
    assert float(tf.reduce_max(tf.abs(made))) <= 1.0
    assert float(least_squares_discriminator(tf.ones([2, 3, 3, 1]), tf.zeros([2, 3, 3, 1]))) == 0.0
    assert float(least_squares_generator(tf.ones([2, 3, 3, 1]))) == 0.0
    scorer = PatchScorer(64, sigmoid=True, reflect=True)
    assert scorer(tf.keras.Input([288, 512, 3])).shape[1:] == [34, 62, 1]
    scores = PatchScorer(2, sigmoid=True, reflect=True)(100.0 * tf.random.stateless_normal([1, 32, 48, 3], [1, 2])).numpy()
    assert 0.0 <= scores.min() <= scores.max() <= 1.0
    own = ms.load_config("heatmap_landmark", "paper").translator
    assert (own.cycle, own.identity, own.learning_rate, own.blocks) == (10.0, 0.5, 1e-5, 9)


def test_m13_each_pair_moves_in_its_own_step_and_points_are_reused():
    model = ms.create("heatmap_landmark", tiny())
    model.compile()
    source = ms.open_source(TINY["heatmap_landmark"][1])
    translator, detector = model.stages(source)
    assert [translator.name, detector.name] == ["translator", "detector"]
    batch = next(iter(translator.batches(0)))
    parts = {"generator": translator.model.generator_variables, "discriminator": translator.model.scorer_variables}
    for moving in parts:
        for name in parts:
            rate = 1.0 if name == moving else 0.0
            setattr(translator.model, f"{name}_optimizer", tf.keras.optimizers.SGD(rate))
        before = {name: [v.numpy() for v in variables] for name, variables in parts.items()}
        translator.model.train_step(batch)
        for name, variables in parts.items():
            moved = [not np.array_equal(v, old) for v, old in zip(variables, before[name])]
            assert (np.mean(moved) > 0.5) == (name == moving)
            assert any(moved) == (name == moving)
    # the detector's step: simulator frames are translated, their points are not touched, the translator rests
    batch = next(iter(detector.batches(0)))
    off = {"rotation_probability": 0.0, "colour_probability": 0.0, "brightness_probability": 0.0}
    model.config = tiny(augmentation=off, **{"data.flip_horizontal": False, "data.flip_vertical": False})
    images, target = model.prepared(batch)
    own = tf.cast(batch["image"], tf.float32) / 255.0
    expected = (model.translator(2.0 * own[:1] - 1.0) + 1.0) / 2.0
    np.testing.assert_allclose(images[:1], expected, atol=1e-6)
    np.testing.assert_allclose(images[1:], own[1:], atol=1e-6)
    np.testing.assert_allclose(target, model.targets(batch["landmarks"]), atol=1e-6)
    resting = [v.numpy() for v in translator.model.variables]
    learning = [v.numpy() for v in model.detector.trainable_variables]
    model.train_step(batch)
    assert all(np.array_equal(v, old) for v, old in zip(translator.model.variables, resting))
    assert np.mean([not np.array_equal(v, old) for v, old in zip(model.detector.trainable_variables, learning)]) > 0.9


# -- augmentation -----------------------------------------------------------------------------------------------------------


def test_m14_mirrors_twice_are_none_and_move_points_exactly():
    images = tf.random.stateless_uniform([2, 10, 14, 3], [1, 2])
    points = tf.constant([[[2.25, 3.5], [np.nan, np.nan]], [[9.0, 13.0], [0.0, 0.0]]], tf.float32)
    chosen = tf.constant([True, False])
    for axis in (0, 1):
        once = mirror(images, points, chosen, axis)
        np.testing.assert_array_equal(once[0][0], tf.reverse(images[0], [axis]))
        np.testing.assert_array_equal(once[0][1], images[1])
        assert float(once[1][0, 0, axis]) == [9, 13][axis] - float(points[0, 0, axis])
        twice = mirror(*once, chosen, axis)
        np.testing.assert_array_equal(twice[0], images)
        np.testing.assert_array_equal(twice[1], points)


def test_m14_turning_is_undone_exactly_and_takes_heatmaps_where_it_takes_points():
    rng = np.random.default_rng(0)
    count = 8
    points = tf.constant(rng.uniform([30, 40], [66, 120], [count, 1, 2]), tf.float32)
    angle = tf.constant(rng.uniform(-0.7, 0.7, count), tf.float32)
    shift = tf.constant(rng.uniform(-0.05, 0.05, [count, 2]), tf.float32)
    scale = tf.constant(rng.uniform(0.9, 1.1, count), tf.float32)
    still = tf.zeros([count, 2])
    moved = affine_points(points, SIZE, angle, shift, scale)
    back = affine_points(affine_points(points, SIZE, angle, still, scale), SIZE, -angle, still, 1.0 / scale)
    np.testing.assert_allclose(back, points, atol=1e-4)
    warped = affine(gaussian_heatmaps(points, SIZE, 8.0)[..., tf.newaxis], angle, shift, scale)[..., 0].numpy()
    for place, image in zip(moved.numpy()[:, 0], warped):
        peak = np.unravel_index(image.argmax(), SIZE)
        assert np.abs(np.subtract(peak, place)).max() <= 1.0
        centre = ndimage.center_of_mass(image)
        np.testing.assert_allclose(centre, place, atol=0.05)


def test_m14_augmentation_is_the_seeds_and_drops_points_that_leave():
    config = tiny(**{"augmentation": {"rotation": 40.0, "rotation_probability": 1.0}, "data.flip_vertical": True})
    images = tf.random.stateless_uniform([6, 32, 48, 3], [1, 2])
    points = tf.tile(tf.constant([[[0.0, 0.0], [15.5, 23.5], [np.nan, np.nan]]], tf.float32), [6, 1, 1])
    seeds = tf.range(6, dtype=tf.int64)
    first = augment(images, points, seeds, config.augmentation, config.data)
    again = augment(images[2:4], points[2:4], seeds[2:4], config.augmentation, config.data)
    for whole, part in zip(first, again):
        np.testing.assert_allclose(whole[2:4], part, atol=1e-6)
    moved = first[1].numpy()
    np.testing.assert_allclose(moved[:, 1], points[:, 1], atol=1e-4)  # the middle stays
    assert np.isnan(moved[:, 2]).all()
    corner = moved[:, 0]
    inside = np.isfinite(corner).all(-1)
    assert (~inside).any(), "a corner leaves when the frame turns"
    assert (corner[inside] > -0.5).all()


def test_m14_colours_change_images_alone_and_stay_in_range():
    config = tiny().augmentation
    images = tf.random.stateless_uniform([64, 4, 6, 3], [1, 2])
    changed = recolour(images, tf.range(64, dtype=tf.int64), config).numpy()
    assert 0.0 <= changed.min() <= changed.max() <= 1.0
    share = np.mean([not np.allclose(a, b, atol=1e-5) for a, b in zip(images, changed)])
    assert 0.6 < share < 0.9  # one of two changes of probability a half: three quarters
    off = tiny(**{"augmentation": {"colour_probability": 0.0, "brightness_probability": 0.0}}).augmentation
    np.testing.assert_array_equal(recolour(images, tf.range(64, dtype=tf.int64), off), images)


# -- schedule, test-time augmentation, files --------------------------------------------------------------------------------


def test_m15_the_rate_warms_up_and_falls_along_a_cosine():
    optimizer = tf.keras.optimizers.SGD(1.0)
    released = WarmupCosine(optimizer, 1e-4, 50, 5)
    assert [released.factor(e) for e in (0, 1, 5)] == [0.0, 0.2, 1.0]
    assert released.factor(27.5) == pytest.approx(0.5)
    assert released.factor(50) == pytest.approx(0.0, abs=1e-9)
    assert WarmupCosine(optimizer, 1e-4, 50, 5, skip_zero=True).factor(0) == 0.2
    released.on_epoch_begin(1)
    assert float(optimizer.learning_rate) == pytest.approx(2e-5)
    model = ms.create("heatmap_landmark", tiny(train_domains="intraop"))
    model.compile()
    assert isinstance(model.optimizer, tf.keras.optimizers.AdamW)
    assert model.optimizer.weight_decay == pytest.approx(0.01)
    [stage] = model.stages(ms.open_source(TINY["heatmap_landmark"][1]))
    assert any(isinstance(callback, WarmupCosine) for callback in stage.callbacks)


def test_m16_averaging_over_mirrors_changes_nothing_for_an_equivariant_network():
    class Pointwise(tf.keras.Model):
        def call(self, images, training=False):
            return 6.0 * images[..., :1] - 3.0

    class Shifted(Pointwise):
        def call(self, images, training=False):
            return super().call(tf.roll(images, 1, 2))

    image = tf.cast(tf.random.stateless_uniform([2, 32, 48, 3], [1, 2], 0, 256, tf.int32), tf.uint8)
    models = [
        ms.create("heatmap_landmark", tiny(train_domains="intraop", **{"decoder.flips": flips})) for flips in (False, True)
    ]
    for network, same in ((Pointwise(), True), (Shifted(), False)):
        for model in models:
            model.detector = network
        plain, averaged = (model.probability(image).numpy() for model in models)
        assert np.allclose(plain, averaged, atol=1e-6) == same


def test_m17_challenge_files_round_trip(tmp_path):
    points = np.array([[10.25, 500.5], [287.0, 0.0]], np.float32)
    write_points(tmp_path / "label.json", points, (288, 512))
    np.testing.assert_array_equal(read_points(tmp_path / "label.json"), points)
    assert json.loads((tmp_path / "label.json").read_text()) == {
        "imageHeight": 288,
        "imageWidth": 512,
        "points": [{"x": 500.5, "y": 10.25}, {"x": 0.0, "y": 287.0}],
    }
    write_points(tmp_path / "found.json", [], "aicm13/video_01/000007")
    assert json.loads((tmp_path / "found.json").read_text()) == {
        "folderName": "aicm13",
        "subfolderName": "video_01",
        "imageFileName": "000007.png",
        "points": [],
    }
    assert read_points(tmp_path / "found.json").shape == (0, 2)
    for text, message in (
        ("{", "is not JSON"),
        ("[]", "has no list 'points'"),
        ('{"points": [{"x": 1}]}', "expected finite numbers"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read_points(tmp_path / "bad.json")


# -- training ---------------------------------------------------------------------------------------------------------------


def test_the_best_validation_weights_are_put_back_at_the_end():
    source = ms.open_source("phantom:valve_landmarks?count=100&size=32&width=48")
    config = tiny(
        train_domains="intraop",
        **{"training.epochs": 3, "training.steps_per_epoch": 1, "data.split_fractions": [0.6, 0.4, 0.0]},
    )
    model = ms.create("heatmap_landmark", config)
    model.compile()
    [stage] = model.stages(source)
    scores = iter([0.2, 0.9, 0.4])
    seen = []

    class Scores(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_f1"] = next(scores)
            seen.append(model.detector.head.kernel.numpy())

    model.fit(stage.batches(0), epochs=3, steps_per_epoch=1, callbacks=[Scores(), *stage.callbacks], verbose=0)
    np.testing.assert_array_equal(model.detector.head.kernel, seen[1])
    assert not np.array_equal(seen[1], seen[2])
