"""Card 17, M13: the driver of the augmentation study, its classifiers and the judge of the task."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.study_config import StudyConfig
from medsynth_tf.evaluation import augmentation_study as module
from medsynth_tf.evaluation.augmentation_study import Labelled, augmentation_study, classic_augmentation, study_table
from medsynth_tf.evaluation.class_generation import nearness
from medsynth_tf.evaluation.run import evaluate_model
from medsynth_tf.networks.plain_classifiers import convolutional_classifier, dense_classifier, densenet_bc
from tests.methods.tiny import TINY


def dots(count, seed, noise=40):
    """Class 0 is bright on the left, class 1 on the right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.normal(80, noise, [count, 8, 8, 1])
    images[labels == 0, :, :4] += 60
    images[labels == 1, :, 4:] += 60
    return Labelled(np.clip(images, 0, 255).astype(np.uint8), labels)


def test_m13_arms_runs_means_and_deviations(monkeypatch):
    asked = []

    def predictions(settings, classes, train, validation, test, seed):
        asked.append((len(train.labels), seed))
        right = np.arange(len(test)) % 4  # the test set below has classes 0, 0, 0, 1
        wrong_every = 2 if seed == asked[0][1] else 4  # another number of errors in the first run
        return np.where(right == 3, 1, np.where(np.arange(len(test)) % wrong_every == 0, 1, 0))

    monkeypatch.setattr(module, "_predictions", predictions)
    real, test = dots(10, 0), Labelled(np.zeros([16, 8, 8, 1], np.uint8), np.array([0, 0, 0, 1] * 4))
    made = []

    def synthesise(run, each):
        made.append((run, each))
        return dots(2 * each, 100 + run)

    settings = StudyConfig(samples=(3, 5), classic=(4,), runs=3)
    results = augmentation_study(settings, 2, real, real, test, synthesise)
    assert list(results) == ["raw", "classic_4", "raw_and_synthetic_3", "synthetic_3", "raw_and_synthetic_5", "synthetic_5"]
    assert [count for count, _ in asked[::3]] == [10, 40, 16, 6, 20, 10]
    seeds = [seed for _, seed in asked]
    assert len(set(seeds[:3])) == 3
    assert seeds[:3] == seeds[3:6], "an arm's runs begin as the other arms' do"
    assert set(made) == {(run, each) for run in range(3) for each in (3, 5)}
    # first run: 8 of 12 zeros wrong … half of the even ones are of class 0
    first = predictions(settings, 2, real, real, test.images, asked[0][1])
    later = predictions(settings, 2, real, real, test.images, -1)
    shares = [(p == test.labels).mean() for p in (first, later, later)]
    balanced = [(1 + (p[test.labels == 0] == 0).mean()) / 2 for p in (first, later, later)]
    assert results["raw"]["accuracy"] == pytest.approx(np.mean(shares))
    assert results["raw"]["accuracy_std"] == pytest.approx(np.std(shares, ddof=1))
    assert results["raw"]["balanced_accuracy"] == pytest.approx(np.mean(balanced))
    assert results["raw"]["balanced_accuracy_std"] == pytest.approx(np.std(balanced, ddof=1))
    assert results["raw"]["accuracy"] != pytest.approx(results["raw"]["balanced_accuracy"])
    assert "raw: accuracy " in study_table(results)[0]
    with pytest.raises(DataError, match="validation images"):
        augmentation_study(settings, 2, real, Labelled(real.images[:0], real.labels[:0]), test, synthesise)


def test_m13_a_classifier_learns_from_synthetic_images_what_few_real_ones_do_not_tell():
    settings = StudyConfig(samples=(60,), runs=1, epochs=8, patience=8)
    few = dots(4, 0, noise=90)
    results = augmentation_study(
        settings, 2, few, dots(20, 1, noise=90), dots(200, 2, noise=90), lambda run, n: dots(2 * n, 5 + run, noise=90)
    )
    assert results["synthetic_60"]["accuracy"] > 0.9
    assert results["raw_and_synthetic_60"]["accuracy"] > 0.9
    assert results["raw"]["accuracy"] < results["synthetic_60"]["accuracy"]


def test_m13_convolutional_classifiers_learn_too():
    settings = StudyConfig(classifier="cnn", epochs=6, patience=6)
    test = dots(100, 2)
    predicted = module._predictions(settings, 2, dots(80, 0), dots(20, 1), test.images, 0)
    assert (predicted == test.labels).mean() > 0.9


def test_m13_the_best_validation_weights_count():
    # training labels are turned round after all: what is learned first is right, and validation says so
    real = dots(40, 0, noise=10)
    flipped = Labelled(real.images, 1 - real.labels)
    settings = StudyConfig(runs=1, epochs=3, patience=1)
    predicted = module._predictions(settings, 2, flipped, real, real.images, 3)
    short = module._predictions(StudyConfig(runs=1, epochs=1, patience=1), 2, flipped, real, real.images, 3)
    np.testing.assert_array_equal(predicted, short)


def test_m13_the_papers_classifiers():
    shape = (28, 28, 1)
    assert dense_classifier(shape, 10).count_params() == 785 * 400 + 401 * 10
    cnn = convolutional_classifier((208, 176, 1), 2)
    trainable = sum(int(np.prod(v.shape)) for v in cnn.trainable_variables)
    assert trainable == 9 * (16 + 16 * 32 + 32 * 64) + 2 * (16 + 32 + 64) + 26 * 22 * 64 * 2 + 2
    # DenseNet-BC: 24 maps, six layers a block of 4·12 and 12 maps, transitions by one half
    width, expected = 24, 9 * 24
    for block in range(3):
        for _ in range(6):
            expected += 2 * width + width * 48 + 2 * 48 + 9 * 48 * 12
            width += 12
        if block < 2:
            expected += 2 * width + width * (width // 2)
            width //= 2
    expected += 2 * width + width * 10 + 10
    dense = densenet_bc(shape, 10)
    assert sum(int(np.prod(v.shape)) for v in dense.trainable_variables) == expected
    assert dense(tf.zeros([2, *shape])).shape == (2, 10)
    kernels = [v.numpy().ravel()[:50] for v in dense.trainable_variables if v.shape.rank == 4 and v.shape[0] == 3]
    assert all((a != b).any() for a, b in itertools.pairwise(kernels))
    with pytest.raises(ValueError, match=r"4 \+ 6 n"):
        densenet_bc(shape, 10, depth=12)


def test_classic_augmentation_keeps_images_and_labels_and_changes_copies():
    real = dots(6, 0)
    made = classic_augmentation(real, 5, seed=1)
    assert len(made.labels) == 30
    np.testing.assert_array_equal(made.images[:6], real.images)
    np.testing.assert_array_equal(made.labels, np.tile(real.labels, 5))
    assert all((copy != image).any() for copy, image in zip(made.images[6:], np.tile(real.images, (4, 1, 1, 1))))
    np.testing.assert_array_equal(made.images, classic_augmentation(real, 5, seed=1).images)
    assert (made.images[6:] != classic_augmentation(real, 5, seed=2).images[6:]).any()


def test_nearness_is_distance_to_nearest_neighbours():
    grey = [np.full([1, 4, 4, 1], value, np.uint8) for value in (0, 51, 102, 255)]
    synthetic, real, train = np.concatenate([grey[0], grey[1]]), np.concatenate([grey[1], grey[3]]), grey[2]
    found = nearness(synthetic, real, train)
    assert found["fidelity"] == pytest.approx((0.2 + 0.0) / 2)
    assert found["coverage"] == pytest.approx((0.0 + 0.8) / 2)
    assert found["fidelity_of_training_images"] == pytest.approx(0.2)
    assert found["coverage_of_training_images"] == pytest.approx((0.2 + 0.6) / 2)


def test_m13_a_trained_model_is_judged(tmp_path):
    overrides, source = TINY["rhvae"]
    config = ms.load_config(
        "rhvae", overrides={**overrides, "training": {"batch_size": 2, "epochs": 1, "steps_per_epoch": None}}
    )
    model = ms.create("rhvae", config)
    model.compile()
    data = ms.open_source(source)
    for stage in model.stages(data):
        stage.model.train_step(next(iter(stage.batches(0))))
        stage.end()
    model.save(tmp_path / "model")
    metrics = evaluate_model(tmp_path / "model", data, tmp_path / "report")
    assert set(metrics["study"]) == {"raw", "raw_and_synthetic_8", "synthetic_8"}
    assert 0 <= metrics["acceptance"] <= 1
    assert metrics["nearness"]["fidelity"] > 0
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["study"] == metrics["study"]
    assert (tmp_path / "report" / "classes.png").is_file()
