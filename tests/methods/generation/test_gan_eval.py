"""Card 10: the items of the protocol, each by its number; those of the GANs are in test_gan_eval_gans.py."""

import csv
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from scipy import linalg
from sklearn.decomposition import PCA
from sklearn.metrics import confusion_matrix, roc_auc_score

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.gan_protocol_config import EvaluatorConfig, FlagConfig, GANProtocolConfig, StructureConfig
from medsynth_tf.evaluation.gan_eval import structure
from medsynth_tf.evaluation.gan_eval.discriminability import Run, confusion_scores, median_run, one_run, summary
from medsynth_tf.evaluation.gan_eval.evaluator import Evaluator
from medsynth_tf.evaluation.gan_eval.images import ImagePool, RealImages, SeededGenerator, read_pool
from medsynth_tf.evaluation.gan_eval.judge import real_images
from medsynth_tf.evaluation.gan_eval.protocol import compare_generators
from medsynth_tf.evaluation.gan_eval.report import write_comparison
from medsynth_tf.evaluation.gan_eval.visual import Ellipse, PrincipalPlane, Projection, bhattacharyya, project
from medsynth_tf.metrics.gaussian_distances import expected_mahalanobis, floor, gaussian_frechet, mahalanobis
from medsynth_tf.metrics.msssim import max_ms_ssim, pairwise_ms_ssim
from medsynth_tf.metrics.template_matching import Lattice, max_template_match, mosaic
from medsynth_tf.networks.two_sample_cnn import TwoSampleCNN

SIDE = 24
PROTOCOL = GANProtocolConfig(
    runs=2,
    evaluator=EvaluatorConfig(width=2, features=6, epochs=2, batch_size=8),
    classifiers=False,
    structure=StructureConfig(scales=2, mosaic=3),
)


def lesions(count, seed=0, size=SIDE, classes=1):
    source = ms.open_source(f"phantom:lesion?count={count}&size={size}&seed={seed}&classes={classes}")
    return np.stack([source.read(key)["image"] for key in source.keys()])


def real_of(train, test, labels=None):
    labels = labels or (np.zeros(len(train), int), np.zeros(len(test), int))
    names = [np.array([f"{part}{i}" for i in range(len(images))]) for part, images in (("a", train), ("b", test))]
    return RealImages(train, test, *labels, *names)


def copies_of(images, deviation=0.0):
    def sample(seeds, label):
        rng = np.random.default_rng(seeds[0])
        chosen = images[rng.integers(len(images), size=len(seeds))] / 255.0
        return np.clip(chosen + rng.normal(0, deviation, chosen.shape), 0, 1)

    return sample


# -- M1, M2: who is in which set -------------------------------------------------------------------------------------------


def test_m1_no_patient_is_in_training_and_test_images():
    config = ms.load_config("gan_eval", overrides={"data.split_fractions": [0.6, 0.0, 0.4]})
    source = ms.open_source("phantom:lesion?count=40&size=32&classes=2&slices=4")
    real = real_images(source, config)
    patients = {part: set(getattr(real, f"{part}_patients").tolist()) for part in ("train", "test")}
    assert not patients["train"] & patients["test"]
    assert len(patients["train"] | patients["test"]) == 10
    assert len(real.train) == 4 * len(patients["train"])
    by_id = {key.patient_id: key.label for key in source.keys()}
    assert [by_id[patient] for patient in real.test_patients] == real.test_labels.tolist()
    with pytest.raises(DataError, match="split by patient"):
        images = lesions(4)
        RealImages(images[:2], images[2:], *[np.zeros(2, int)] * 2, np.array(["p", "q"]), np.array(["q", "r"]))


def test_m2_seeds_of_training_and_test_images_never_meet():
    seen = []
    generator = SeededGenerator("g", lambda seeds, label: seen.append(seeds) or np.zeros([len(seeds), 16, 16, 1]), seed=3)
    for run in range(3):
        for label in (None, 0, 1):
            for purpose in ("train", "test"):
                assert generator.draw(purpose, run, 70, label).shape == (70, 16, 16, 1)
    everything = np.concatenate(seen)
    assert len(np.unique(everything)) == len(everything) == 3 * 3 * 2 * 70
    np.testing.assert_array_equal(generator.seeds("train", 1, 5, 0), SeededGenerator("g", None, 3).seeds("train", 1, 5, 0))


def test_m2_halves_of_a_pool_are_disjoint_and_each_run_chooses_anew():
    images = np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones([1, 16, 16, 1], np.uint8)
    pool = ImagePool("files", images, np.arange(40) % 2)
    draws = {(purpose, run): pool.draw(purpose, run, 6, 1)[:, 0, 0, 0] for purpose in ("train", "test") for run in range(4)}
    used = {p: {round(255 * v) for (q, _), d in draws.items() if q == p for v in d} for p in ("train", "test")}
    assert not used["train"] & used["test"]
    assert all(value % 2 == 1 for values in used.values() for value in values)
    assert len({tuple(np.sort(draws["train", run])) for run in range(4)}) > 1


def test_m2_gans_are_trained_on_the_training_split_alone():
    config = ms.load_config("gan_eval", overrides={"class_index": 0, "training.batch_size": 2, "data.flip_vertical": False})
    config = config.replace({"augmentation": {"rotation": 0.0, "shift": 0.0}, "data.flip_horizontal": False})
    source = ms.open_source("phantom:lesion?count=30&size=32&classes=2")
    real = real_images(source, config)
    known = {image.tobytes() for image in real.of(0)[0]}
    stage = ms.create("gan_eval", config).stages(source)[0]
    seen = [image.tobytes() for batch in stage.batches(0).take(3) for image in batch["image"].numpy()]
    assert len(seen) == 6
    assert set(seen) <= known


# -- M3: the evaluator ------------------------------------------------------------------------------------------------------


def test_m3_layers_and_parameters_of_the_evaluator():
    network = TwoSampleCNN()
    outputs = network(tf.keras.Input([80, 80, 1]))
    assert {name: list(value.shape) for name, value in outputs.items()} == {"features": [None, 128], "logit": [None]}
    assert [layer.filters for layer in network.convolutions] == [32, 32, 64, 64, 128, 128, 256, 256]
    assert {layer.kernel_size for layer in network.convolutions} == {(3, 3)}
    channels = [1, 32, 32, 64, 64, 128, 128, 256, 256]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(channels))
    assert network.count_params() == convolutions + (6400 * 128 + 128) + (128 + 1)
    images = np.random.default_rng(0).random([2, 80, 80, 1], np.float32)
    features = network(images)["features"]
    expected = np.where(features > 0, features, 0.2 * features.numpy()) @ network.score.kernel.numpy() + network.score.bias
    np.testing.assert_allclose(network(images)["logit"], expected[:, 0], rtol=1e-4, atol=1e-6)


def test_m3_values_outside_0_to_1_are_refused_and_small_images_too():
    evaluator = Evaluator(PROTOCOL.evaluator, (16, 16, 1))
    good = np.zeros([4, 16, 16, 1], np.float32)
    for bad in (good - 0.1, good + 1.1, good * np.nan):
        with pytest.raises(DataError, match=r"outside \[0, 1\]|not finite"):
            evaluator.answer(bad)
        with pytest.raises(DataError, match=r"outside \[0, 1\]|not finite"):
            evaluator.train(good, bad, 0)
    with pytest.raises(DataError, match="needs 16"):
        Evaluator(PROTOCOL.evaluator, (12, 16, 1))


def test_m3_an_evaluator_learns_and_starts_anew_each_time():
    rng = np.random.default_rng(0)
    dark, light = (rng.uniform(low, low + 0.3, [48, 16, 16, 1]).astype(np.float32) for low in (0.1, 0.6))
    config = EvaluatorConfig(width=2, features=6, epochs=8, batch_size=16, learning_rate=5e-3)
    evaluator = Evaluator(config, (16, 16, 1))
    first = evaluator.train(dark, light, 1)
    answers = [evaluator.answer(dark).probability, evaluator.answer(light).probability]
    assert answers[0].max() < 0.5 < answers[1].min()
    features = evaluator.answer(light).features
    evaluator.train(light, dark, 2)
    assert evaluator.answer(light).probability.max() < 0.5
    assert evaluator.train(dark, light, 1) == pytest.approx(first, rel=1e-4)
    np.testing.assert_allclose(evaluator.answer(light).features, features, rtol=1e-3, atol=1e-4)
    assert evaluator._learn.experimental_get_tracing_count() == 1
    evaluator.activated = True
    np.testing.assert_allclose(
        evaluator.answer(light).features, np.where(features > 0, features, 0.2 * features), rtol=1e-3, atol=1e-4
    )


# -- M4, M5: runs and scores ------------------------------------------------------------------------------------------------


def test_m4_an_evaluator_for_each_generator_class_and_run(monkeypatch):
    trained = []
    original = Evaluator.train

    def spy(self, real, synthetic, seed):
        trained.append((len(real), seed))
        return original(self, real, synthetic, seed)

    monkeypatch.setattr(Evaluator, "train", spy)
    images = lesions(40, classes=2)
    labels = np.arange(28) % 2, np.arange(12) % 2
    real = real_of(images[:28], images[28:], labels)
    generators = [SeededGenerator("a", copies_of(images)), SeededGenerator("b", copies_of(images), labels=[1])]
    groups = compare_generators(generators, real, PROTOCOL, seed=5)
    assert [(group.name, list(group.generators)) for group in groups] == [("class_0", ["a"]), ("class_1", ["a", "b"])]
    assert [count for count, _ in trained] == [14] * 6  # 2 runs each
    assert len({seed for _, seed in trained}) == 6
    runs = groups[1].generators["b"].runs
    assert len(runs) == 2
    for score, found in summary(runs).items():
        values = [run.scores[score] for run in runs]
        assert found == {"mean": pytest.approx(np.mean(values)), "std": pytest.approx(np.std(values))}
    trained.clear()
    pooled = compare_generators(generators[:1], real, PROTOCOL.replace({"by_class": False, "runs": 1}))
    assert [group.name for group in pooled] == ["pooled"]
    assert [count for count, _ in trained] == [28]
    with pytest.raises(DataError, match=r"b makes class \[1\], real images are of \[0, 1\]: compare by class"):
        compare_generators(generators, real, PROTOCOL.replace({"by_class": False}))


@pytest.mark.parametrize("redraw", [True, False])
def test_m4_runs_redraw_synthetic_images_or_only_train_anew(redraw):
    images = lesions(20)
    asked = []

    def sample(seeds, label):
        asked.append(tuple(seeds))
        return images[: len(seeds)]

    protocol = PROTOCOL.replace({"redraw": redraw, "evaluator.epochs": 1})
    compare_generators([SeededGenerator("g", sample)], real_of(images[:12], images[12:]), protocol)
    assert len(asked) == 4  # two runs, each for training and for testing
    assert len(set(asked)) == (4 if redraw else 2)


def test_m5_recall_and_specificity_of_a_confusion_matrix_made_by_hand():
    real = np.array([0.1, 0.2, 0.7, 0.4, 0.3])  # 4 of 5 kept
    synthetic = np.array([0.9, 0.5, 0.4, 0.8])  # 3 of 4 caught
    truth, predicted = np.repeat([0, 1], [5, 4]), np.concatenate([real, synthetic]) >= 0.5
    (kept, false), (missed, caught) = confusion_matrix(truth, predicted)
    assert (kept, false, missed, caught) == (4, 1, 1, 3)
    scores = confusion_scores(real, synthetic)
    assert scores["recall"] == pytest.approx(0.75)
    assert scores["specificity"] == pytest.approx(0.8)
    assert scores["accuracy"] == pytest.approx(7 / 9)
    assert scores["balanced_accuracy"] == pytest.approx(0.775)
    assert scores["auc"] == pytest.approx(roc_auc_score(truth, np.concatenate([real, synthetic])))
    assert scores["p_value"] == pytest.approx((36 + 9 + 1) / 2**9)  # P(7, 8 or 9 of 9 right)
    other = confusion_scores(real, synthetic, positive="real")
    assert (other["recall"], other["specificity"]) == (scores["specificity"], scores["recall"])


def test_m5_the_median_run_and_ranks():
    runs = [Run({"balanced_accuracy": value}, None, None) for value in (0.9, 0.5, 0.7, 0.6)]
    assert median_run(runs) == 3
    assert median_run(runs[:3]) == 2


# -- M6, M7, M8: distances --------------------------------------------------------------------------------------------------


def test_m6_mean_squared_mahalanobis_of_a_sample_is_the_number_of_features():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=[8000, 12])
    assert (mahalanobis(samples, samples) ** 2).mean() == pytest.approx(12, rel=0.05)
    point = np.array([[3.0, 4.0]])
    square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]) * np.sqrt(3) / 2  # covariance I
    assert mahalanobis(point, square, "pinv") == pytest.approx(5.0)


@pytest.mark.parametrize("estimator", ["auto", "plain", "pinv"])
def test_m6_mahalanobis_does_not_change_with_the_features_coordinates(estimator):
    rng = np.random.default_rng(1)
    real, synthetic = rng.normal(size=[60, 5]), rng.normal(0.5, 2.0, size=[40, 5])
    matrix, shift = rng.normal(size=[5, 5]), rng.normal(size=5)
    before = mahalanobis(synthetic, real, estimator)
    np.testing.assert_allclose(mahalanobis(synthetic @ matrix + shift, real @ matrix + shift, estimator), before, rtol=1e-6)


def test_m6_few_images_need_another_estimator():
    rng = np.random.default_rng(2)
    real, synthetic = rng.normal(size=[10, 20]), rng.normal(size=[7, 20])
    with pytest.raises(DataError, match="singular: use shrinkage or pinv"):
        mahalanobis(synthetic, real, "plain")
    np.testing.assert_array_equal(mahalanobis(synthetic, real), mahalanobis(synthetic, real, "shrinkage"))
    assert np.isfinite(mahalanobis(synthetic, real, "pinv")).all()
    with pytest.raises(DataError, match="do not vary"):
        mahalanobis(synthetic, np.ones([5, 20]))


def test_m7_frechet_of_gaussians_in_closed_form():
    rng = np.random.default_rng(0)
    size, count = 6, 200
    white = rng.normal(size=[count, size])
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False)).T)  # covariance I exactly
    a, b = rng.normal(size=[2, size])
    expected = ((a - b) ** 2).sum() + size * (2.0 - 0.5) ** 2
    assert gaussian_frechet(a + 2.0 * white, b + 0.5 * white) == pytest.approx(expected, rel=1e-9)
    assert gaussian_frechet(white, white) == pytest.approx(0.0, abs=1e-9)


def test_m7_frechet_is_symmetric_and_scipys():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=[50, 7]) @ rng.normal(size=[7, 7]), 1 + rng.normal(size=[40, 7]) @ rng.normal(size=[7, 7])
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    gap = first.mean(0) - second.mean(0)
    reference = gap @ gap + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert gaussian_frechet(first, second) == pytest.approx(reference, rel=1e-4)
    assert gaussian_frechet(second, first) == pytest.approx(gaussian_frechet(first, second), rel=1e-9)


def test_m7_frechet_stands_covariances_without_full_rank():
    rng = np.random.default_rng(2)
    few = rng.normal(size=[3, 30]), rng.normal(size=[4, 30])
    flat = np.zeros([5, 30]), np.ones([5, 30])
    assert np.isfinite(gaussian_frechet(*few))
    assert gaussian_frechet(*few) > 0
    assert gaussian_frechet(*flat) == pytest.approx(30.0)
    assert gaussian_frechet(few[0], few[0]) == pytest.approx(0.0, abs=1e-7)


def test_m8_floors_are_those_of_halves_of_one_distribution():
    rng = np.random.default_rng(0)
    features, count = 20, 100
    pool = rng.normal(size=[400, features])
    found, deviation = floor(lambda x, y: float(np.sqrt((mahalanobis(x, y) ** 2).mean())), pool, count, count, 40, 0)
    assert found == pytest.approx(expected_mahalanobis(count, features), rel=0.03)
    assert 0 < deviation < 0.3
    assert expected_mahalanobis(225, 128) == pytest.approx(17.4, abs=0.05)  # the paper's sets: 225 and 283 images
    assert expected_mahalanobis(283, 128) == pytest.approx(15.4, abs=0.05)
    assert expected_mahalanobis(130, 128) is None
    seen = []
    floor(lambda x, y: seen.append((x, y)) or 0.0, np.arange(30.0)[:, None], 40, 20, 3, 0)  # too few: both scaled down
    for x, y in seen:
        assert (len(x), len(y)) == (20, 10)
        assert not set(x[:, 0]) & set(y[:, 0])


def test_m8_every_run_reports_distances_beside_their_floors():
    images = lesions(60)
    evaluator = Evaluator(PROTOCOL.evaluator, (SIDE, SIDE, 1))
    protocol = PROTOCOL.replace({"classifiers": True})
    noise = np.random.default_rng(0).random([40, SIDE, SIDE, 1])
    run = one_run(evaluator, protocol, (images[:40], images[40:]), (noise[:20], noise[20:]), 0)
    assert {"mahalanobis", "mahalanobis_floor", "frechet", "frechet_floor"} <= set(run.scores)
    assert run.scores["frechet"] > 3 * run.scores["frechet_floor"]
    kinds = {f"classifier.{name}" for name in ("tree", "forest", "svm", "neighbours", "adaboost")}
    assert kinds <= set(run.scores)
    assert all(run.scores[kind] > 0.9 for kind in kinds)
    assert not any(
        name.startswith("classifier") for name in one_run(evaluator, PROTOCOL, (images, images), (noise, noise), 0).scores
    )


# -- M9, M10: MS-SSIM -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scales", "window", "size", "channels"), [(3, 11, 45, 1), (2, 7, 15, 3), (1, 11, 11, 1)])
def test_m9_pairwise_ms_ssim_is_tensorflows(scales, window, size, channels):
    rng = np.random.default_rng(0)
    base = rng.random([1, size, size, channels])
    first, second = (np.clip(base + rng.normal(0, 0.2, [n, size, size, channels]), 0, 1).astype(np.float32) for n in (3, 4))
    factors = np.array([0.0448, 0.2856, 0.3001])[:scales]
    expected = [[tf.image.ssim_multiscale(x, y, 1.0, factors / factors.sum(), window) for y in second] for x in first]
    found = pairwise_ms_ssim(first, second, scales, window)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(found, pairwise_ms_ssim(second, first, scales, window).T, atol=1e-6)
    assert (found >= 0).all()
    assert (found <= 1).all()
    np.testing.assert_allclose(np.diag(pairwise_ms_ssim(first, first, scales, window, symmetric=True)), 1.0, atol=1e-5)


def test_m9_symmetric_sets_need_half_the_pairs_and_give_the_same():
    images = lesions(300, size=22)
    whole = pairwise_ms_ssim(images, images, 2)
    np.testing.assert_allclose(pairwise_ms_ssim(images, images, 2, symmetric=True), whole, atol=1e-5)


def test_m9_images_that_are_too_small_are_refused_with_the_size_needed():
    images = lesions(2, size=40)
    with pytest.raises(DataError, match="3 scales with a window of 11 needs images of 44 pixels, these have 40"):
        pairwise_ms_ssim(images, images)
    assert pairwise_ms_ssim(images, images, window=10).shape == (2, 2)
    with pytest.raises(DataError, match="must be 1 to 5"):
        pairwise_ms_ssim(images, images, scales=6)


def test_m10_an_image_is_not_compared_with_itself_and_duplicates_are_found():
    images = lesions(12)
    settings = StructureConfig(scales=2, mosaic=2)
    alone = structure.within(images, settings)
    assert all((values < 0.9999).all() for values in alone.values())
    twice = np.concatenate([images, images[3:4]])
    found = structure.within(twice, settings)
    for measure, values in found.items():
        exact = np.flatnonzero(values > 0.9999).tolist()
        assert exact == [3, 12], measure
    asked = structure.within(twice, settings.replace({"queries": 13}))
    np.testing.assert_array_equal(asked["ms_ssim"], found["ms_ssim"])
    assert len(structure.within(twice, settings.replace({"queries": 5}))["ms_ssim"]) == 5
    assert set(structure.within(images, settings.replace({"template_matching": False}))) == {"ms_ssim"}
    with pytest.raises(DataError, match="there are none"):
        max_ms_ssim(images[:1], images[:1], 2, own=np.zeros(1, int))


# -- M11: template matching -------------------------------------------------------------------------------------------------


def test_m11_heat_maps_are_brute_force_correlations():
    rng = np.random.default_rng(0)
    canvas, template = rng.random([14, 17]), rng.random([4, 5])
    expected = np.zeros([11, 13])
    for p in range(11):
        for q in range(13):
            part = canvas[p : p + 4, q : q + 5]
            expected[p, q] = (template * part).sum() / np.sqrt((template**2).sum() * (part**2).sum())
    np.testing.assert_allclose(Lattice(canvas, 4, 5).match(template), expected, atol=1e-10)


def test_m11_a_template_is_found_where_it_was_cut_out_at_any_place_and_brightness():
    rng = np.random.default_rng(1)
    canvas, template = rng.random([20, 20]), rng.random([6, 6])
    for place in ((0, 0), (3, 9), (14, 14)):
        moved = canvas.copy()
        moved[place[0] : place[0] + 6, place[1] : place[1] + 6] = template
        lattice = Lattice(moved, 6, 6)
        heat = lattice.match(template)
        assert np.unravel_index(heat.argmax(), heat.shape) == place
        assert heat.max() == pytest.approx(1.0)
        np.testing.assert_allclose(lattice.match(0.3 * template), heat, atol=1e-10)


def test_m11_empty_windows_and_templates_give_0():
    canvas = np.zeros([12, 12])
    canvas[:3, :3] = 0.5
    heat = Lattice(canvas, 3, 3).match(np.ones([3, 3]))
    assert np.isfinite(heat).all()
    assert heat[0, 0] == pytest.approx(1.0)
    assert (heat[4:, 4:] == 0).all()
    assert (Lattice(canvas, 3, 3).match(np.zeros([3, 3])) == 0).all()


def test_m11_mosaics_hold_every_image_once_and_the_best_match_is_over_all_of_them():
    images = np.arange(1, 6)[:, None, None] * np.ones([1, 2, 3])
    canvas = mosaic(images, 2 + 1)
    assert canvas.shape == (4, 9)
    np.testing.assert_array_equal(canvas[::2, ::3], [[1, 2, 3], [4, 5, 0]])
    with pytest.raises(DataError, match="holds 1 to 4 images, not 5"):
        mosaic(images, 2)
    rng = np.random.default_rng(2)
    references = rng.random([9, 8, 8, 1])
    found = max_template_match(0.5 * references[[8, 2]], references, side=2)  # three mosaics
    np.testing.assert_allclose(found, 1.0)
    assert (max_template_match(references[[8, 2]], references, 2, own=np.array([8, 2])) < 0.99).all()


# -- M12: the picture -------------------------------------------------------------------------------------------------------


def test_m12_projections_are_sklearns_up_to_sign():
    rng = np.random.default_rng(0)
    features = rng.normal(size=[50, 6]) * np.array([5.0, 3.0, 1.0, 1.0, 0.5, 0.1]) + 7
    new = rng.normal(size=[9, 6])
    reference = PCA(2).fit(features)
    found, expected = PrincipalPlane(features)(new), reference.transform(new)
    np.testing.assert_allclose(found * np.sign((found * expected).sum(0)), expected, atol=1e-9)


def test_m12_ellipses_have_the_roots_of_eigenvalues_as_axes():
    rng = np.random.default_rng(1)
    points = rng.normal(size=[80, 2]) @ np.array([[3.0, 1.0], [0.0, 0.5]]) + [2.0, -1.0]
    ellipse = Ellipse.of(points)
    covariance = np.cov(points.T)
    np.testing.assert_allclose(ellipse.lengths, np.sqrt(np.linalg.eigvalsh(covariance)[::-1]))
    np.testing.assert_allclose(ellipse.covariance, covariance, atol=1e-12)
    np.testing.assert_allclose(ellipse.axes @ ellipse.axes.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(ellipse.centre, points.mean(0))
    assert bhattacharyya(ellipse, ellipse) == pytest.approx(0.0, abs=1e-12)
    shifted = Projection(points, points + np.array([3.0, 4.0])).summary()
    assert shifted["centre_distance"] == pytest.approx(5.0)
    gap = np.array([3.0, 4.0])
    assert shifted["bhattacharyya"] == pytest.approx(gap @ np.linalg.solve(covariance, gap) / 8)


def test_m12_the_reference_is_the_mean_over_evaluators_and_may_be_aligned():
    rng = np.random.default_rng(2)
    real, synthetic = rng.normal(size=[40, 5]) * [4, 2, 1, 1, 1], rng.normal(size=[30, 5])
    turn = linalg.qr(rng.normal(size=[5, 5]))[0]
    sets = {"a": (real, synthetic), "b": (real @ turn + 3.0, synthetic @ turn + 3.0)}
    plane = PrincipalPlane((real + real @ turn + 3.0) / 2)
    np.testing.assert_allclose(project(sets)["b"].synthetic, plane(synthetic @ turn + 3.0))
    aligned = project(sets, align=True)
    np.testing.assert_allclose(aligned["b"].synthetic, aligned["a"].synthetic, atol=1e-9)
    np.testing.assert_allclose(np.abs(aligned["a"].real), np.abs(PrincipalPlane(real)(real)), atol=1e-9)


# -- M15, M16: flags and report ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged():
    images = lesions(64, size=48)
    real = real_of(images[:40], images[40:])
    generators = [
        SeededGenerator("fresh", lambda seeds, _: lesions(len(seeds), seed=int(seeds[0] % 2**31), size=48)),
        SeededGenerator("memo", copies_of(images[:40], 0.005)),
        SeededGenerator("collapse", copies_of(lesions(3, seed=9, size=48), 0.02)),
    ]
    protocol = PROTOCOL.replace({"runs": 1, "structure.scales": 3, "flags.chance": 1.0})
    return compare_generators(generators, real, protocol), real, protocol


def test_m15_memorising_and_collapsed_generators_are_flagged_and_fresh_images_are_not(judged):
    generators = judged[0][0].generators
    flags = {name: (each.flags["memorisation"], each.flags["collapse"]) for name, each in generators.items()}
    assert flags["fresh"] == (False, False)
    assert flags["memo"][0]
    assert flags["collapse"][1]
    assert np.median(generators["memo"].similarities["ms_ssim"].synthetic_real) > 0.99
    assert all(each.flags["evaluator_at_chance"] for each in generators.values())  # a score below 1, in this protocol
    warnings = " ".join(judged[0][0].warnings())
    assert "memo, class 0: memorisation" in warnings
    assert "collapse, class 0: mode collapse" in warnings


def test_m15_thresholds_of_the_flags():
    def similarities(copied, alike, usual):
        return structure.Similarities(*(np.full(5, value) for value in (copied, alike, usual)))

    settings = FlagConfig(margin=0.05, near_one=0.01)
    assert structure.flags(similarities(0.94, 0.94, 0.9), settings) == {"memorisation": False, "collapse": False}
    assert structure.flags(similarities(0.96, 0.9, 0.9), settings)["memorisation"]
    assert structure.flags(similarities(0.995, 0.9, 0.97), settings)["memorisation"]
    assert structure.flags(similarities(0.9, 0.96, 0.9), settings)["collapse"]


def test_m16_the_report_is_written_as_json_csv_arrays_and_pictures(judged, tmp_path):
    groups, real, protocol = judged
    metrics = write_comparison(tmp_path, "three generators", groups, protocol, {0: real.test})
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    full = json.loads((tmp_path / "comparison.json").read_text())["class_0"]
    scores = groups[0].generators["memo"].runs[0].scores
    assert full["generators"]["memo"]["runs"][0] == pytest.approx(scores)
    assert full["generators"]["memo"]["scores"]["frechet"]["mean"] == pytest.approx(scores["frechet"])
    assert full["expected_mahalanobis"] == expected_mahalanobis(24, 6)
    assert set(full["ranking"]["memo"]) == {"recall", "specificity", "mahalanobis", "frechet", "mean"}
    assert sorted(each["frechet"] for each in full["ranking"].values()) == [1, 2, 3]
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["generator"]: row for row in csv.DictReader(file)}
    assert float(rows["memo"]["recall"]) == pytest.approx(scores["recall"])
    assert rows["memo"]["memorisation"] == "True"
    with (tmp_path / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    with np.load(tmp_path / "arrays.npz") as arrays:
        assert len(arrays["class_0/memo/ms_ssim/real_real"]) == 40
        assert arrays["class_0/fresh/plane/synthetic"].shape == (24, 2)
    for name in ("images", "ellipses", "similarity"):
        assert (tmp_path / f"class_0_{name}.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "index.html").read_text()
    assert "memorisation" in page
    assert page.count("data:image/png") == 3


def test_m16_pools_are_read_from_arrays_and_folders(tmp_path):
    from PIL import Image

    images = lesions(6)
    np.save(tmp_path / "a.npy", images[..., 0])
    np.savez(tmp_path / "b.npz", images=images / 255.0, labels=np.arange(6) % 2)
    (tmp_path / "c").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / "c" / f"{number}.png")
    shape = (SIDE, SIDE, 1)
    pools = {name: read_pool(name, tmp_path / name, shape) for name in ("a.npy", "b.npz", "c")}
    for pool in pools.values():
        assert sorted(pool.images.reshape(6, -1).sum(1) / pool.images.max()) == pytest.approx(
            sorted(images.reshape(6, -1).sum(1) / images.max()), rel=1e-6
        )
    assert pools["b.npz"].labels() == [0, 1]
    assert pools["a.npy"].labels() is None
    with pytest.raises(DataError, match="sizes must be the same"):
        read_pool("a", tmp_path / "a.npy", (16, 16, 1))
    np.savez(tmp_path / "d.npz", pictures=images)
    with pytest.raises(DataError, match="no array 'images'"):
        read_pool("d", tmp_path / "d.npz", shape)
    (tmp_path / "e.npy").write_text("no array")
    with pytest.raises(DataError, match=r"e\.npy: cannot be read"):
        read_pool("e", tmp_path / "e.npy", shape)
