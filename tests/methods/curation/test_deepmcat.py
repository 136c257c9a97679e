"""deepmcat: measures, k-means, sampler, network, rounds; each M-item of its card by name."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.data.source import Source
from medsynth_tf.layers.adaptive_pooling import AdaptiveAveragePooling2D
from medsynth_tf.methods.curation.deepmcat import clusters, sampler, views
from medsynth_tf.methods.curation.deepmcat.config import AugmentationConfig
from medsynth_tf.methods.curation.deepmcat.data import ImageSet, in_order
from medsynth_tf.metrics.clustering import normalised_mutual_information, purity
from medsynth_tf.networks.deep_clustering import VGG16, ClusteringNetwork, dense
from medsynth_tf.ops.clustering import _split_into_empty, kmeans, squared_distances
from medsynth_tf.training.trainer import train
from tests.methods.interruption import StopAfter
from tests.methods.tiny import TINY

OVERRIDES, SOURCE = TINY["deepmcat"]


def tiny(**more):
    return ms.load_config("deepmcat", overrides={**OVERRIDES, **{name.replace("__", "."): v for name, v in more.items()}})


def made(config):
    model = ms.create("deepmcat", config)
    model.compile()
    return model


def source(count=20, **options):
    return PhantomSource("cardiac_views", count, size=32, **options)


# -- measures -----------------------------------------------------------------------------------------------------------------


def test_m1_normalised_mutual_information():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, 4000), rng.integers(0, 5, 4000)
    assert normalised_mutual_information(first, first) == pytest.approx(1.0)
    renamed = np.array([3, 0, 4, 1, 2])[first]
    assert normalised_mutual_information(renamed, second) == pytest.approx(normalised_mutual_information(first, second))
    assert normalised_mutual_information(first, renamed) == pytest.approx(1.0)
    assert normalised_mutual_information(first, second) < 0.01
    assert normalised_mutual_information(np.zeros(9, int), np.arange(9) % 3) == 0.0
    assert normalised_mutual_information(np.zeros(9, int), np.full(9, 4)) == 1.0
    # by hand: the joint table [[3, 1], [1, 3]] of eight elements
    information = sum(n / 8 * math.log(n / 8 / 0.25) for n in (3, 1, 1, 3))
    found = normalised_mutual_information(np.array([0] * 4 + [1] * 4), np.array([0, 0, 0, 1, 1, 1, 1, 0]))
    assert found == pytest.approx(2 * information / (2 * math.log(2)))


def test_m2_purity():
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert purity(np.arange(6), labels) == 1.0
    assert purity(np.zeros(6, int), labels) == 0.5
    assert purity(np.array([0, 0, 1, 1, 1, 1]), labels) == pytest.approx(4 / 6)
    rng = np.random.default_rng(1)
    partition, labels = rng.integers(0, 4, 300), rng.integers(0, 3, 300)
    for cluster in range(4):
        split = np.where((partition == cluster) & (rng.uniform(size=300) < 0.5), 9, partition)
        assert purity(split, labels) >= purity(partition, labels)


def test_m3_pure_clusters_of_equal_size_have_the_mutual_information_of_the_closed_form():
    partition = np.repeat(np.arange(24), 10)
    labels = partition // 8
    assert purity(partition, labels) == 1.0
    expected = 2 * math.log(3) / (math.log(3) + math.log(24))
    assert normalised_mutual_information(partition, labels) == pytest.approx(expected)
    assert expected == pytest.approx(0.514, abs=1e-3)


# -- k-means ------------------------------------------------------------------------------------------------------------------


def test_m4_features_of_unit_length_and_the_geometry_on_the_sphere():
    rng = np.random.default_rng(2)
    features = clusters.l2_normalised(np.concatenate([rng.normal(size=[20, 7]), np.zeros([1, 7])]).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(features[:-1], axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(features[-1], np.zeros(7))
    points = features[:-1]
    distances = squared_distances(tf.constant(points), tf.constant(points))
    np.testing.assert_allclose(distances, 2.0 - 2.0 * points @ points.T, atol=1e-6)


@pytest.mark.parametrize("chunk", [7, 8192])
def test_m5_lloyds_iterations(chunk):
    rng = np.random.default_rng(3)
    points = rng.normal(size=[200, 3]).astype(np.float32)
    found = kmeans(points, 6, seed=11, iterations=15, chunk=chunk)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in zip(found.history, found.history[1:]))
    distances = ((points[:, None].astype(np.float64) - found.centroids) ** 2).sum(-1)
    np.testing.assert_array_equal(found.assignments, distances.argmin(1))
    assert found.objective == pytest.approx(distances.min(1).sum(), rel=1e-5)
    assert set(found.assignments) == set(range(6))
    again, other = (kmeans(points, 6, seed=seed, iterations=15, chunk=chunk) for seed in (11, 12))
    np.testing.assert_array_equal(again.centroids, found.centroids)
    assert not np.array_equal(other.centroids, found.centroids)
    start = points[np.random.default_rng(11).choice(200, 6, replace=False)]
    reference = KMeans(6, init=start, n_init=1, max_iter=15, tol=0, algorithm="lloyd").fit(points)
    np.testing.assert_allclose(found.objective, reference.inertia_, rtol=1e-4)
    np.testing.assert_allclose(found.centroids, reference.cluster_centers_, atol=1e-4)


def test_m5_no_cluster_is_empty_unless_there_are_fewer_distinct_points():
    rng = np.random.default_rng(4)
    few = rng.normal(size=[5, 2]).astype(np.float32)
    points = np.concatenate([np.repeat(few[:1], 60, 0), few[1:]])  # most first centroids coincide
    for seed in range(8):
        found = kmeans(points, 5, seed)
        assert set(found.assignments) == set(range(5))
        assert found.objective == pytest.approx(0.0, abs=1e-9)
    found = kmeans(points, 8, 0)
    assert len(set(found.assignments)) == 5
    with pytest.raises(ValueError, match="at least as many points"):
        kmeans(few, 6, 0)


def test_m5_each_round_clusters_with_another_seed(monkeypatch):
    seeds = []
    real = clusters.kmeans
    monkeypatch.setattr(clusters, "kmeans", lambda f, k, seed, n: seeds.append(seed) or real(f, k, seed, n))
    model = made(tiny())
    images = ImageSet(source(), model.config, "train")
    for number in (0, 1, 2):
        model.cluster_images(images, number)
    assert len(set(seeds)) == 3


# -- sampler ------------------------------------------------------------------------------------------------------------------


def test_m6_as_many_images_of_each_cluster():
    assignments = np.repeat([0, 1, 3, 4], [90, 3, 5, 2])  # cluster 2 has none
    order = sampler.uniform_over_clusters(assignments, 100, np.random.default_rng(5))
    assert order.shape == (100,)
    each = 100 // 4 + 1
    counts = np.bincount(assignments[order], minlength=5)
    assert counts[2] == 0
    assert counts[[0, 1, 3, 4]].max() <= each
    assert counts.sum() == 100
    assert (counts[[0, 1, 3, 4]] >= each - (4 * each - 100)).all()
    drawn = order[assignments[order] == 0]
    assert len(set(drawn)) == len(drawn), "large clusters without replacement"
    assert set(order[assignments[order] == 1]) == {90, 91, 92}, "small ones with it"
    assert not np.array_equal(np.sort(order), order)
    natural = sampler.natural(100, 250, np.random.default_rng(6))
    assert set(np.bincount(natural)) <= {2, 3}


# -- rounds -------------------------------------------------------------------------------------------------------------------


def test_m7_the_top_layer_begins_anew_and_the_trunk_goes_on():
    config = tiny(clustering__clusters=16, network__hidden=[256], training__batch_size=32)
    model = made(config)
    images = source(60)
    stage = model.stages(images)[0]
    model.cluster(images)
    first = model.top.kernel.numpy()
    assert first.std() == pytest.approx(0.01, rel=0.1)
    batch = next(iter(stage.batches(0)))
    loss = float(model.train_step(batch)["loss"])
    assert loss == pytest.approx(math.log(16), abs=0.15)
    momentum = [v.numpy() for v in model.optimizer.variables if v.shape.rank]
    assert momentum
    assert any(np.abs(m).max() > 0 for m in momentum)
    trunk = [v.numpy() for v in model.network.variables]
    model.cluster(images)
    assert not np.array_equal(model.top.kernel, first)
    assert not np.any(model.top.bias)
    assert all(np.array_equal(v, old) for v, old in zip(model.network.variables, trunk))
    after = [v.numpy() for v in model.optimizer.variables if v.shape.rank]
    assert all(np.array_equal(a, b) for a, b in zip(after, momentum))


def test_m7_weight_decay_is_coupled_and_the_gradients_are_those_of_one_loss():
    config = tiny(optimiser__weight_decay=0.1, optimiser__momentum=0.0, network__dropout=0.0)
    model = made(config)
    images = source()
    model.cluster(images)
    batch = next(iter(model.dataset(images, config, "train", epochs=None)))
    cluster = tf.gather(model.assignments, batch["position"])
    variables = model.network.trainable_variables + model.top.trainable_variables
    for _ in range(2):  # the second step would show a momentum of the top layer
        model.reset_metrics()
        before = [v.numpy() for v in variables]
        with tf.GradientTape() as tape:  # moving statistics aside, the plain way
            logits = model.top(
                tf.nn.relu(model.network(model.views(batch["image"], batch["seed"]), training=True, seeds=batch["seed"]))
            )
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=cluster, logits=logits))
        plain = tape.gradient(loss, variables)
        assert float(model.train_step(batch)["loss"]) == pytest.approx(float(loss), rel=1e-5)
        for variable, old, gradient in zip(variables, before, plain):
            expected = old - config.optimiser.learning_rate * (np.asarray(gradient) + 0.1 * old)
            np.testing.assert_allclose(variable, expected, atol=2e-6)


def test_m8_features_are_those_of_inference_in_the_images_order_whatever_the_batch():
    model = made(tiny())
    images = source()
    before = [v.numpy() for v in model.network.non_trainable_variables]
    found = model.extract(ImageSet(images, model.config, "train"), 3)
    assert all(np.array_equal(v, b) for v, b in zip(model.network.non_trainable_variables, before))
    larger = model.config.replace({"training.batch_size": 7})
    np.testing.assert_allclose(model.extract(ImageSet(images, larger, "train"), 3), found, atol=1e-5)
    other_view = model.extract(ImageSet(images, model.config, "train"), 4)
    assert np.abs(other_view - found).max() > 1e-3
    middle = made(tiny(clustering__augment=False))
    middle.network.set_weights(model.network.get_weights())
    held = ImageSet(images, middle.config, "train")
    features = clusters.l2_normalised(middle.extract(held, 0))
    np.testing.assert_array_equal(middle.extract(held, 0), middle.extract(held, 1))
    for i in (0, 5, 11):
        image = images.read(held.keys[i])["image"].astype(np.float32)
        np.testing.assert_allclose(middle({"image": image[np.newaxis]})[0], features[i], atol=1e-5)


def test_m9_z_scores_do_not_change_with_brightness_and_contrast():
    image = np.random.default_rng(7).uniform(size=[2, 9, 8, 1]).astype(np.float32)
    scores = views.z_scores(tf.constant(image))
    np.testing.assert_allclose(tf.reduce_mean(scores, [1, 2, 3]), 0.0, atol=1e-6)
    np.testing.assert_allclose(tf.math.reduce_std(scores, [1, 2, 3]), 1.0, atol=1e-5)
    np.testing.assert_allclose(views.z_scores(tf.constant(3.5 * image + 20.0)), scores, atol=1e-4)
    np.testing.assert_array_equal(views.z_scores(tf.fill([1, 4, 4, 1], 0.1)), np.zeros([1, 4, 4, 1]))
    model = made(tiny())
    batch = tf.constant(np.random.default_rng(8).uniform(0, 900, [3, 32, 32, 1]).astype(np.float32))
    seeds = tf.constant([1, 2, 3], tf.int64)
    np.testing.assert_allclose(model.views(2.0 * batch + 50.0, seeds), model.views(batch, seeds), atol=1e-3)


class Relabelled(Source):
    """Another source with its labels dealt out anew."""

    def __init__(self, inner, seed):
        labels = [key.label for key in inner.keys()]
        self.inner, self.labels = (
            inner,
            dict(zip([k.id for k in inner.keys()], np.random.default_rng(seed).permutation(labels))),
        )

    def keys(self):
        return [type(key)(key.id, key.patient_id, key.split, int(self.labels[key.id])) for key in self.inner.keys()]

    def read(self, key):
        return {**self.inner.read(key), "label": int(self.labels[key.id])}

    def describe(self):
        return self.inner.describe()


def test_m10_labels_change_measures_and_nothing_else():
    results = []
    for images in (source(24), Relabelled(source(24), 1)):
        model = made(tiny(training__epochs=2))
        logs = []
        for stage in model.stages(images):
            stage.begin()
            history = model.fit(stage.batches(0), epochs=1, steps_per_epoch=stage.steps_per_epoch, verbose=0).history
            logs.append((history["loss"][0], float(model.round_values["purity"])))
        results.append((model, logs))
    (first, logs), (second, shuffled) = results
    assert [loss for loss, _ in logs] == [loss for loss, _ in shuffled]
    assert [value for _, value in logs] != [value for _, value in shuffled]
    for a, b in zip(first.network.variables + first.top.variables, second.network.variables + second.top.variables):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(first.assignments, second.assignments)


# -- network ------------------------------------------------------------------------------------------------------------------


def test_m11_vgg16_has_as_many_parameters_as_torchvisions():
    with tf.Graph().as_default():  # variables are declared, not filled
        network = ClusteringNetwork(VGG16, 7, (4096, 4096), 0.5)
        network(tf.keras.Input([224, 224, 3]))
        top = dense(1000, 0, "top")
        top.build([None, 4096])
        count = sum(int(np.prod(v.shape)) for v in network.trainable_variables + top.trainable_variables)
    assert count == 138_365_992


def test_m12_adaptive_pooling_averages_its_bins():
    x = np.random.default_rng(9).normal(size=[2, 10, 7, 3]).astype(np.float32)
    found = AdaptiveAveragePooling2D(4)(tf.constant(x)).numpy()
    for i in range(4):
        for j in range(4):
            rows = slice(math.floor(i * 10 / 4), math.ceil((i + 1) * 10 / 4))
            columns = slice(math.floor(j * 7 / 4), math.ceil((j + 1) * 7 / 4))
            np.testing.assert_allclose(found[:, i, j], x[:, rows, columns].mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(AdaptiveAveragePooling2D(7)(x[:, :7]), x[:, :7])
    layer = AdaptiveAveragePooling2D(2)
    assert layer.compute_output_shape([None, 10, 7, 3]) == AdaptiveAveragePooling2D.from_config(
        layer.get_config()
    ).compute_output_shape([None, 10, 7, 3])


# -- whole runs ---------------------------------------------------------------------------------------------------------------


def test_m13_a_run_that_was_broken_off_ends_as_one_that_was_not(tmp_path):
    config = tiny(training__epochs=3, training__checkpoint_steps=4, data__split_fractions=[0.8, 0.0, 0.2])
    whole = train(config, source(), tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(
            config, source(), tmp_path / "broken", progress=False, callbacks=[StopAfter(14)]
        )  # in the second round, between checkpoints
    again = train(config, source(), tmp_path / "broken", progress=False)
    assert whole.finished
    assert again.finished
    for first, second in zip(whole.model.variables, again.model.variables):
        np.testing.assert_array_equal(first, second)
    for first, second in zip(whole.model.optimizer.variables, again.model.optimizer.variables):
        np.testing.assert_array_equal(first, second)
    exported = again.model.export_clusters()
    assert exported["assignments"].shape == (16,)
    assert exported["sizes"].sum() == 16
    assert int(again.model.clustered_round) == 3
    restored = ms.load(tmp_path / "broken" / "model")
    np.testing.assert_array_equal(restored.export_clusters()["centroids"], exported["centroids"])


def test_m14_each_round_leaves_its_figures(tmp_path):
    config = tiny(training__epochs=2, data__split_fractions=[0.8, 0.2, 0.0])  # validation resets running means
    run = train(config, source(), tmp_path / "run", progress=False)
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["stage"] for row in rows] == ["round-0000", "round-0001"]
    assert {"loss", "objective", "nmi_previous", "nonempty", "purity", "nmi_labels"} <= set(rows[0])
    assert float(rows[0]["nmi_previous"]) == 0.0 < float(rows[1]["nmi_previous"])
    files = sorted(path.name for path in (tmp_path / "run" / "clusters").iterdir())
    assert files == ["clusters.csv", "round-0000.json", "round-0001.json", "round-0002.json"]
    last = json.loads((tmp_path / "run" / "clusters" / "round-0002.json").read_text())
    assert sum(last["sizes"]) == 16
    assert last["nonempty"] == sum(size > 0 for size in last["sizes"])
    second = json.loads((tmp_path / "run" / "clusters" / "round-0001.json").read_text())
    assert second["loss"] == pytest.approx(float(rows[1]["loss"]))
    assert second["purity"] == pytest.approx(float(rows[1]["purity"]))
    table = list(csv.DictReader((tmp_path / "run" / "clusters" / "clusters.csv").open()))
    by_id = {row["id"]: int(row["cluster"]) for row in table}
    keys = source().split("train", (0.8, 0.2, 0.0), config.seed)
    assert [by_id[key.id] for key in keys] == run.model.assignments.numpy().tolist()


def test_m15_a_rare_class_keeps_a_cluster_of_its_own():
    images = PhantomSource("cardiac_views", 200, balance="imbalanced")
    config = ms.load_config("deepmcat", "small", {"training.epochs": 4, "data.split_fractions": [1.0, 0.0, 0.0]})
    model = made(config)
    for stage in model.stages(images):
        stage.begin()
        model.fit(stage.batches(0), epochs=1, steps_per_epoch=stage.steps_per_epoch, verbose=0)
        if stage.end:
            stage.end()
    labels = np.array([key.label for key in images.keys()])
    sizes = np.bincount(labels)
    assert sizes.max() / sizes.min() >= 10
    rare, found = int(sizes.argmin()), model.assignments.numpy()
    assert any(np.bincount(labels[found == cluster]).argmax() == rare for cluster in np.unique(found))


class Counting(Source):
    """Another source that notes what it reads."""

    def __init__(self, inner):
        self.inner, self.reads = inner, 0

    def keys(self):
        return self.inner.keys()

    def read(self, key):
        self.reads += 1
        return self.inner.read(key)

    def describe(self):
        return self.inner.describe()


def test_m16_images_are_read_as_they_are_needed():
    config = tiny(data__cache=False)
    images = Counting(source(200))
    held = ImageSet(images, config, "train")
    iterator = iter(held.batches(in_order(len(held.keys)), 1, 0, whole=False))
    next(iterator)
    assert images.reads < 100, "a batch is not the data set"
    model = made(config)
    cached = made(tiny(data__cache=True))
    cached.network.set_weights(model.network.get_weights())
    streamed = model.extract(held, 0)
    assert streamed.shape == (120, 8)
    np.testing.assert_array_equal(streamed, cached.extract(ImageSet(images, cached.config, "train"), 0))


# -- options ------------------------------------------------------------------------------------------------------------------


def test_random_views_are_crops_of_the_image():
    # a plane: bilinear sampling of it is exact, so a view is a plane whose slope says how it was cut and turned
    y, x = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    plane = np.repeat((2.0 * y + 0.5 * x)[None, ..., None], 200, 0).astype(np.float32)
    seeds = tf.range(200, dtype=tf.int64)
    data = tiny().data
    config = AugmentationConfig(rotation=0.0, area=(0.3, 0.7), aspect=(0.8, 1.25))
    found = views.random_views(tf.constant(plane), seeds, 16, config, data).numpy()[..., 0]
    down, across = np.diff(found, axis=1).mean((1, 2)) / 2.0, np.diff(found, axis=2).mean((1, 2)) / 0.5
    np.testing.assert_allclose(np.diff(found, 2, axis=1), 0.0, atol=1e-2)
    area, aspect = down * across * 16**2 / 40**2, across / down
    assert 0.3 - 1e-3 <= area.min() < 0.4
    assert 0.6 < area.max() <= 0.7 + 1e-3
    assert 0.8 - 1e-3 <= aspect.min() < 0.9
    assert 1.1 < aspect.max() <= 1.25 + 1e-3
    turned = views.random_views(
        tf.constant(plane), seeds, 16, AugmentationConfig(rotation=30.0, area=(0.4, 0.4), aspect=(1.0, 1.0)), data
    ).numpy()[:, 4:12, 4:12, 0]
    slope = np.stack([np.diff(turned, axis=1).mean((1, 2)), np.diff(turned, axis=2).mean((1, 2))], -1)
    np.testing.assert_allclose(np.linalg.norm(slope, axis=1), math.hypot(2, 0.5) * 40 * math.sqrt(0.4) / 16, rtol=1e-3)
    angles = np.degrees(np.arctan2(slope[:, 1], slope[:, 0]) - math.atan2(0.5, 2.0))
    assert 20 < angles.max() <= 30.1
    assert -30.1 <= angles.min() < -20
    flipped = data.__class__(flip_horizontal=True)
    mirrored = views.random_views(tf.constant(plane), seeds, 16, config, flipped).numpy()[..., 0]
    share = (np.diff(mirrored, axis=2).mean((1, 2)) < 0).mean()
    assert 0.35 < share < 0.65


def test_sobel_derivatives_and_global_scores():
    image = np.random.default_rng(10).normal(size=[1, 6, 7, 3]).astype(np.float32)
    found = views.sobel(tf.constant(image)).numpy()
    grey = np.pad(image[0].mean(-1), 1)
    kernel = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])
    for i in range(6):
        for j in range(7):
            window = grey[i : i + 3, j : j + 3]
            np.testing.assert_allclose(found[0, i, j], [(window * kernel).sum(), (window * kernel.T).sum()], atol=1e-5)
    model = made(tiny(input__filter="sobel", input__normalisation="global"))
    images = source()
    model.cluster(images)
    pixels = np.stack([images.read(key)["image"] for key in ImageSet(images, model.config, "train").keys]).astype(np.float64)
    np.testing.assert_allclose(model.intensity, [pixels.mean(), pixels.std()], rtol=1e-5)
    assert model.network.groups[0][0][0].kernel.shape[2] == 2


def test_whitened_components_are_those_of_scikit_learn():
    features = (
        np.random.default_rng(11).normal(size=[300, 6]).astype(np.float32) * np.array([5, 3, 2, 1, 0.5, 0.1], np.float32) + 4
    )
    offset, projection = clusters.whitening(features, 3)
    found = (features - offset) @ projection
    expected = PCA(3, whiten=True, svd_solver="full").fit_transform(features.astype(np.float64)) * math.sqrt(300 / 299)
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-3)
    with pytest.raises(DataError, match="too few"):
        clusters.whitening(features[:3], 3)
    model = made(tiny(clustering__feature_reduction="pca", clustering__components=2, clustering__clusterer="minibatch_kmeans"))
    model.cluster(source())
    assert model.centroids.shape == (3, 2)
    answer = model.assign(tf.zeros([2, 32, 32, 1]))
    assert answer["cluster"].shape == (2,)


def test_reassigning_less_often_makes_longer_rounds():
    config = tiny(training__epochs=5, clustering__reassign_every=2, clustering__sampler="natural")
    stages = made(config).stages(source())
    assert [stage.steps_per_epoch for stage in stages] == [12, 12, 6]  # twelve images, batches of two


def test_clusters_get_the_names_of_a_few_labelled_images():
    table = clusters.majority_labels(np.array([0, 0, 0, 2, 2]), np.array([5, 5, 1, 3, 0]), 4)
    np.testing.assert_array_equal(table, [5, -1, 0, -1])
    model = made(tiny())
    images = source()
    model.cluster(images)
    few = [images.read(key) for key in images.keys()[:4]]
    assert (model.assign(tf.constant(np.stack([r["image"] for r in few])))["label"] == -1).numpy().all()
    names = model.name_clusters(np.stack([record["image"] for record in few]), np.array([record["label"] for record in few]))
    answer = model.signatures()["categorize"](image=tf.constant(np.stack([r["image"] for r in few]).astype(np.float32)))
    np.testing.assert_array_equal(answer["label"], names[answer["cluster"].numpy()])
    with pytest.raises(DataError, match="as many labels"):
        model.name_clusters(np.zeros([2, 32, 32, 1]), np.array([1]))
    model.cluster(images)
    assert (model.cluster_labels.numpy() == -1).all(), "names belonged to the clusters before"


def test_a_trained_model_learns_the_clusters_of_other_data():
    config = tiny()
    model = made(config)
    for images in (source(20), source(30, seed=1)):
        stage = model.stages(images)[0]
        stage.begin()
        count = len(ImageSet(images, config, "train").keys)
        assert len(model.assignments.numpy()) == count
        assert int(model.clustered_round) == 0
        model.fit(stage.batches(0), epochs=1, steps_per_epoch=2, verbose=0)
        model.cluster(images)  # as training does at its end
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"call cluster\(source\) on this data first"):
        larger = source(200)
        model.fit(model.dataset(larger, config, "train"), epochs=1, steps_per_epoch=10, verbose=0)


def test_clusters_that_are_empty_take_over_half_of_another():
    centroids, counts = np.array([[8.0, 8.0, 8.0], [1.0, 2.0, 3.0]]), np.array([0.0, 10.0])
    found = _split_into_empty(centroids, counts, np.random.default_rng(0))
    signs = np.array([1, -1, 1]) / 1024
    np.testing.assert_allclose(found, [[1.0, 2.0, 3.0] * (1 + signs), [1.0, 2.0, 3.0] * (1 - signs)])
    np.testing.assert_array_equal(counts, [5, 5])
    alone = np.array([[8.0], [1.0]])
    np.testing.assert_array_equal(_split_into_empty(alone.copy(), np.array([0.0, 1.0]), np.random.default_rng(0)), alone)


def test_what_cannot_be_sorted_is_refused_in_words():
    model = made(tiny())
    with pytest.raises(tf.errors.InvalidArgumentError, match="it has no clusters"):
        model.signatures()["categorize"](image=tf.zeros([1, 32, 32, 1]))
    images = source()
    batch = next(iter(model.dataset(images, model.config, "train")))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"call cluster\(source\) on this data first"):
        model.train_step(batch)
    model.cluster(images)
    signature = model.signatures()["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or infinite"):
        signature(image=tf.fill([1, 32, 32, 1], float("nan")))
    with pytest.raises(tf.errors.InvalidArgumentError, match="no pixels"):
        signature(image=tf.zeros([1, 0, 32, 1]))
    with pytest.raises(DataError, match=r"fewer than clustering.clusters = 15"):
        made(tiny(clustering__clusters=15)).cluster(images)
    with pytest.raises(DataError, match="volumes are sorted slice by slice"):
        ImageSet(PhantomSource("capsules", 4, size=16), tiny(), "train")
    for broken, said in (
        ({"input.size": 48}, "input.loaded_size"),
        ({"input.size": 8, "network.stages": [[2]] * 4}, "too small"),
        ({"clustering.feature_reduction": "pca", "clustering.components": 9}, "8 dimensions"),
        ({"training.ema_decay": 0.9}, "leave it null"),
        ({"augmentation.area": [0.9, 0.3]}, "must not be above"),
    ):
        with pytest.raises(ConfigError, match=said):
            tiny(**broken)


_REPLICAS = """
import sys
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1]))
from medsynth_tf.training.trainer import train
from tests.methods.curation.test_deepmcat import source, tiny
settings = {"training.batch_size": 4, "training.epochs": 2, "training.strategy": sys.argv[2], "network.dropout": 0.5}
model = train(tiny(**settings, **{"data.split_fractions": [float(s) for s in sys.argv[4].split(",")]}), source(20), sys.argv[3]).model
np.savez(sys.argv[3] + "/found.npz", *[v.numpy() for v in model.network.variables], *[v.numpy() for v in model.top.variables])
print(model.distribute_strategy.num_replicas_in_sync)
"""


@pytest.mark.slow
def test_two_replicas_learn_what_one_device_does_and_share_batches_that_are_not_whole(tmp_path):
    def learnt(devices, strategy, fractions):
        folder = tmp_path / f"{strategy}-{fractions}"
        command = [sys.executable, "-W", "ignore", "-c", _REPLICAS, str(devices), strategy, str(folder), fractions]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.split()[-1] == str(devices)
        return list(np.load(folder / "found.npz").values())

    for first, second in zip(learnt(1, "one_device", "0.6,0.4,0.0"), learnt(2, "mirrored", "0.6,0.4,0.0")):
        np.testing.assert_allclose(second, first, atol=1e-4)
    assert all(np.isfinite(v).all() for v in learnt(2, "mirrored", "0.65,0.25,0.1"))  # 13 and 5 images in batches of 4
