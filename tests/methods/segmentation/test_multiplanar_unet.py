"""Card 20: networks, loss, training, what is kept, and the law that the paper fits."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.losses.masked import masked_binary_cross_entropy
from medsynth_tf.methods.best import BestWeights, KeepBest
from medsynth_tf.methods.segmentation.multiplanar_unet.planes import UNKNOWN, annotation_shares
from medsynth_tf.metrics.log_linear import f_test, fit_log_linear
from medsynth_tf.metrics.masked_dice import MaskedDice
from medsynth_tf.networks.multiplanar_unet import MultiPlanarUNet2D, upsample_nearest
from medsynth_tf.networks.unet3d import UNet3D
from medsynth_tf.training.trainer import train
from tests.methods.segmentation.volumes import Volumes

TINY = {
    "planes": {"annotation": 4, "training": 8, "size": 16},
    "network": {"filters": 2, "levels": 2, "batch_momentum": 0.9},
    "comparator": {"size": 8, "stride": 4, "filters": 2, "levels": 1},
    "training": {"batch_size": 4, "epochs": 1, "steps_per_epoch": 2},
    "optimiser.learning_rate": 1e-2,
    "data.split_fractions": [0.34, 0.33, 0.33],
}


def tiny(**overrides):
    return ms.load_config("multiplanar_unet", overrides={**TINY, **overrides})


def created(**overrides):
    model = ms.create("multiplanar_unet", tiny(**overrides))
    model.compile()
    return model


def elements(variables):
    return sum(v.shape.num_elements() for v in variables)


def batch_of(model, seed=0):
    rng = np.random.default_rng(seed)
    shape = (4, *model.config.shape)
    return {
        "image": tf.constant(rng.normal(size=(*shape, 1)), tf.float32),
        "label": tf.constant(rng.choice([0, 1, UNKNOWN], shape), tf.uint8),
        "seed": tf.range(4, dtype=tf.int64),
    }


# -- M1, M2, M17: networks ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_network():
    config = ms.load_config("multiplanar_unet", "paper")
    network = MultiPlanarUNet2D(1, config.network.filters, config.network.levels)
    network(tf.keras.Input([config.planes.size, config.planes.size, 1]))
    return network


def test_m1_the_network_has_the_papers_parameters(paper_network):
    assert elements(paper_network.trainable_variables) == 31_044_289
    assert elements(paper_network.variables) == 31_057_985


def test_m2_up_sampling_repeats_pixels_and_each_block_convolution_has_a_norm(paper_network):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_array_equal(
        upsample_nearest(tf.constant(x)), np.kron(x.transpose(0, 3, 1, 2), np.ones((2, 2))).transpose(0, 2, 3, 1)
    )
    layers = list(paper_network.submodules)
    convolutions = [layer for layer in layers if isinstance(layer, tf.keras.layers.Conv2D)]
    assert not any(isinstance(layer, tf.keras.layers.Conv2DTranspose) for layer in layers)
    assert sum(isinstance(layer, BatchNormalization) for layer in layers) == 22
    assert len(convolutions) == 23
    assert all(layer.use_bias for layer in convolutions)
    assert sorted(layer.kernel_size[0] for layer in convolutions) == [1] + [2] * 4 + [3] * 18


def test_m2_the_network_is_orientation_agnostic_in_size_and_starts_with_unlike_kernels():
    network = MultiPlanarUNet2D(1, 4, 3, seed=1)
    assert network(tf.zeros([1, 16, 24, 1])).shape == (1, 16, 24, 1)
    assert not np.array_equal(
        network.down[0].blocks[1].convolution.kernel[..., :4, :], network.up[-1].blocks[1].convolution.kernel
    )
    he = MultiPlanarUNet2D(1, 4, 3, seed=1, initialiser="he_normal")
    he(tf.zeros([1, 16, 16, 1]))
    spread = [float(tf.math.reduce_std(n.down[3].blocks[1].convolution.kernel)) for n in (network, he)]
    assert spread[0] == pytest.approx(np.sqrt(6 / (2 * 9 * 32)) / np.sqrt(3), rel=0.03)
    assert spread[1] == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.03)


def test_m17_the_comparator_is_the_3d_unet_and_smaller(paper_network):
    network = UNet3D()
    network(tf.keras.Input([16, 16, 16, 1]))
    assert elements(network.trainable_variables) == 19_073_665
    assert elements(network.trainable_variables) < elements(paper_network.trainable_variables)
    # Çiçek et al.: three channels in and out, no norms' parameters, no biases of the transposed convolutions
    kernels = elements(v for v in network.trainable_variables if "gamma" not in v.name and "beta" not in v.name)
    more_in_and_out = 2 * 27 * 32 + 2 * (64 + 1)
    transposed_biases = 512 + 256 + 128
    assert kernels + more_in_and_out - transposed_biases == 19_069_955
    config = ms.load_config("multiplanar_unet", "paper", {"model": "unet3d"})
    assert config.shape == (64, 64, 64)
    assert 4 * config.planes.size**2 == config.comparator.size**3


def test_m17_the_comparator_trains_on_the_same_sparse_volume():
    model = created(model="unet3d", **{"training.batch_size": 1, "data.split_fractions": [1.0, 0.0, 0.0]})
    stage = model.stages(Volumes(2))[0]
    batch = next(iter(stage.batches(0)))
    assert batch["image"].shape == (1, 8, 8, 8, 1)
    before = [v.numpy() for v in model.network.trainable_variables]
    history = model.fit(stage.batches(0), steps_per_epoch=2, epochs=2, verbose=0).history
    assert all(np.isfinite(history["loss"]))
    assert np.mean([not np.array_equal(v, b) for v, b in zip(model.network.trainable_variables, before)]) > 0.9
    probability, mask = model.segment(np.random.default_rng(0).normal(size=(9, 10, 11)), [1.0, 1.0, 2.0])
    assert probability.shape == mask.shape == (9, 10, 11)


# -- M7: the loss ---------------------------------------------------------------------------------------------------------------


def reference_loss(logits, labels):
    """In float64."""
    known = labels != UNKNOWN
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    y = labels == 1
    return float((-np.log(np.where(y, p, 1 - p)) * known).sum() / max(known.sum(), 1))


def test_m7_the_loss_is_cross_entropy_of_annotated_pixels():
    model = created()
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 8)).astype(np.float32)
    for labels in (rng.choice([0, 1, UNKNOWN], logits.shape), rng.integers(0, 2, logits.shape), np.full(logits.shape, UNKNOWN)):
        found = model.loss_of(tf.constant(logits[..., None]), tf.constant(labels, tf.uint8))
        assert float(found) == pytest.approx(reference_loss(logits, labels), rel=1e-5)
    assert float(found) == 0.0, "m = 0 everywhere gives 0, not NaN"
    # the sum is over the batch, so a plane with few labels does not count as much as one with many
    labels = np.full(logits.shape, UNKNOWN)
    labels[0, 0, 0], labels[1] = 1, 0
    assert float(model.loss_of(logits[..., None], tf.constant(labels, tf.uint8))) == pytest.approx(
        reference_loss(logits, labels), rel=1e-5
    )


def test_m7_pixels_without_annotation_change_neither_loss_nor_gradients():
    model = created()
    batch = batch_of(model)
    known = (batch["label"] != UNKNOWN).numpy()

    def measured(label):
        with tf.GradientTape() as tape:
            loss = model.loss_of(model.network(batch["image"], training=True), label)
        return tape.gradient(loss, model.network.trainable_variables)

    gradients = measured(batch["label"])
    assert all(gradient is not None for gradient in gradients)
    weights = tf.constant(known, tf.float32)
    logits = tf.constant(np.random.default_rng(1).normal(size=known.shape), tf.float32)
    values = []
    for other in (0.0, 1.0):  # other labels at m = 0
        labels = tf.where(known, tf.cast(batch["label"] == 1, tf.float32), other)
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total, count = masked_binary_cross_entropy(logits, labels, weights)
        values.append((float(total), float(count)))
        np.testing.assert_array_equal(tape.gradient(total, logits).numpy()[~known], 0.0)
    assert values[0] == values[1]
    wild = tf.where(known, logits, np.float32(np.inf))  # other predictions at m = 0
    assert float(masked_binary_cross_entropy(wild, labels, weights)[0]) == pytest.approx(values[0][0], rel=1e-6)
    nothing = measured(tf.fill(batch["label"].shape, tf.constant(UNKNOWN, tf.uint8)))
    assert all(np.all(np.asarray(gradient) == 0.0) for gradient in nothing)


def test_dice_of_many_batches_is_over_all_their_annotated_pixels():
    rng = np.random.default_rng(0)
    predicted, truth, known = (rng.integers(0, 2, (6, 50)) for _ in range(3))
    metric = MaskedDice()
    assert float(metric.result()) == 1.0
    for part in range(3):
        rows = slice(2 * part, 2 * part + 2)
        metric.update_state(predicted[rows], truth[rows], known[rows])
    a, b = predicted[known > 0], truth[known > 0]
    assert float(metric.result()) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


# -- training -------------------------------------------------------------------------------------------------------------------


def test_a_step_learns_and_leaves_nothing_but_the_network_changed():
    model = created(**{"training.ema_decay": 0.5})
    batch = batch_of(model)
    run = model.make_train_function()
    data = tf.data.Dataset.from_tensors(batch).repeat()
    losses = [float(run(iter(data))["loss"]) for _ in range(2)]
    for _ in range(30):
        model.reset_metrics()
        losses.append(float(run(iter(data))["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert int(model.steps_done) == 32
    assert model.train_function.experimental_get_tracing_count() == 1
    weight, average = model.network.trainable_variables[0], model.average.averages[0]
    assert not np.array_equal(weight, average)


TWO_REPLICAS = """
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.methods.segmentation.test_multiplanar_unet import UNKNOWN, batch_of, created

batch = batch_of(created())
unknown = tf.fill([2, 16, 16], tf.constant(UNKNOWN, tf.uint8))  # one replica has a single annotated pixel, the other many
labels = tf.concat([unknown, batch["label"][2:]], 0)
batch["label"] = tf.tensor_scatter_nd_update(labels, [[0, 3, 3]], tf.constant([1], tf.uint8))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = created()
with strategy.scope():
    two = created()
one.compile(tf.keras.optimizers.SGD(1.0))  # Adam would make rounding of biases before a norm as large as any step
with strategy.scope():
    two.compile(tf.keras.optimizers.SGD(1.0))
data = tf.data.Dataset.from_tensors(batch)
losses = [model.fit(data, verbose=0).history["loss"][0] for model in (one, two)]
assert abs(losses[0] - losses[1]) < 1e-5, losses
for a, b in zip(one.network.variables, two.network.variables):
    tf.debugging.assert_near(a, b.values[0], atol=1e-5)
assert int(two.steps_done.numpy()) == 1
print("equal")
"""


@pytest.mark.slow
def test_replicas_together_step_as_one_device_does():
    done = subprocess.run([sys.executable, "-c", TWO_REPLICAS], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_keeps_loss_and_answer_in_float32(precision):
    model = created(**{"training.mixed_precision": precision})
    assert model.network.down[0].blocks[0].convolution.compute_dtype == precision
    batch = batch_of(model)
    logits = model.network(batch["image"])
    assert logits.dtype == tf.float32
    assert model.train_step(batch)["loss"].dtype == tf.float32


def test_m14_validation_has_half_the_annotated_planes():
    source, config = Volumes(9), tiny(**{"planes.annotation": 8})
    assert sum(annotation_shares(source, config, "train", 0)) == 8
    assert sum(annotation_shares(source, config, "val", 0)) == 4
    assert sum(annotation_shares(source, tiny(**{"planes.annotation": 1}), "val", 0)) == 1
    model = ms.create("multiplanar_unet", config)
    planes = model.stages(source)[0]
    shown = np.concatenate([batch["label"] for batch in planes.validation()])
    assert len(shown) == config.planes.training // 2
    alone = tiny(**{"planes.annotation": 8, "planes.training": 0})
    assert sum(len(batch["label"]) for batch in model.dataset(source, alone, "val")) == 4


def test_m14_the_best_weights_are_put_back_after_the_last_epoch():
    variable = tf.Variable([0.0])
    best = BestWeights([variable])
    keep = KeepBest(best, "val_dice", 4, evaluate=lambda: 0.7)
    for epoch, score in enumerate([0.3, 0.9, 0.5]):
        variable.assign([float(epoch)])
        keep.on_epoch_end(epoch, {"val_dice": score})
    assert variable.numpy() == [2.0], "not before the end"
    assert float(best.score) == pytest.approx(0.9)
    variable.assign([3.0])
    keep.catch_up(4)  # a run killed after its last step, before it was judged
    assert variable.numpy() == [1.0]
    untouched = BestWeights([variable])
    variable.assign([5.0])
    untouched.restore()
    assert variable.numpy() == [5.0]


def test_m14_m16_a_run_keeps_the_best_epoch_reports_annotated_pixels_and_goes_on_after_a_kill(tmp_path):
    source = Volumes(3)
    config = tiny(
        **{"training.epochs": 4, "training.steps_per_epoch": 2, "training.checkpoint_steps": 1, "optimiser.learning_rate": 0.1}
    )
    seen = {}

    class Watch(tf.keras.callbacks.Callback):
        def __init__(self, stop=None):
            super().__init__()
            self.stop, self.steps = stop, 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            if self.steps == self.stop:  # checkpoints come first: the one of this step is written
                raise KeyboardInterrupt

        def on_epoch_end(self, epoch, logs=None):
            seen[epoch] = (logs["val_dice"], [v.numpy() for v in self.model.network.variables], logs["annotated_pixels"])

    run = train(config, source, tmp_path / "whole", progress=False, callbacks=[Watch()])
    best = max(seen, key=lambda epoch: (seen[epoch][0], -epoch))
    # the last epoch is seen after it was judged, so its weights are the best one's already
    for variable, wanted in zip(run.model.network.variables, seen[3][1]):
        np.testing.assert_array_equal(variable, wanted)
    if best < 3:
        for variable, wanted in zip(run.model.network.variables, seen[best][1]):
            np.testing.assert_array_equal(variable, wanted)
    assert float(run.model.best.score) == pytest.approx(seen[best][0])
    pixels = {values[2] for values in seen.values()}
    assert pixels == {float(run.model.annotated_pixels)}
    examples = [batch["label"] for batch in run.model.dataset(source, config, "train", config.seed, training=False)]
    assert pixels == {float((np.concatenate(examples) != UNKNOWN).sum())}
    assert "annotated_pixels" in (tmp_path / "whole" / "log.csv").read_text()

    with pytest.raises(KeyboardInterrupt):  # at the end of an epoch, before it is judged
        train(config, source, tmp_path / "killed", progress=False, callbacks=[Watch(stop=4)])
    again = train(config, source, tmp_path / "killed", progress=False)
    assert float(again.model.best.score) == float(run.model.best.score)
    for variable, wanted in zip(again.model.network.variables, run.model.network.variables):
        np.testing.assert_array_equal(variable, wanted)


def test_the_fusion_stage_learns_weights_of_views_and_nothing_else(tmp_path):
    config = tiny(
        **{"views": {"count": 2, "fusion": "learned"}, "fusion": {"epochs": 1, "steps_per_epoch": 3, "batch_size": 64}}
    )
    model = ms.create("multiplanar_unet", config)
    assert [stage.name for stage in model.stages(Volumes(3))] == ["planes", "fusion"]
    run = train(config, Volumes(3), tmp_path / "run", progress=False)
    assert run.finished
    assert np.abs(run.model.fusion.view_weights.numpy() - 1.0).max() > 1e-3
    views, labels = run.model.annotated_views(Volumes(3))
    assert views.shape == (len(labels), 2)
    assert set(np.unique(labels)) <= {0, 1}
    restored = ms.load(tmp_path / "run" / "model")
    np.testing.assert_array_equal(restored.fusion.view_weights, run.model.fusion.view_weights)


def test_preview_shows_planes_annotation_and_probability():
    for overrides in ({}, {"model": "unet3d"}):
        model = created(**overrides)
        pictures = model.preview(batch_of(model))
        side = model.config.shape[0]
        assert {name: tuple(p.shape) for name, p in pictures.items()} == dict.fromkeys(
            ("image", "annotation", "probability"), (4, side, side, 1)
        )
        assert all(picture.dtype == tf.uint8 for picture in pictures.values())


def test_settings_that_do_not_fit_are_refused():
    for overrides in (
        {"model": "unet3d", "planes.draw": "live"},
        {"model": "unet3d", "views.fusion": "learned"},
        {"comparator.stride": 5},
        {"data.cache": True},
        {"planes.training": 0, "planes.draw": "redraw"},
        {"augmentation.scale": [1.2, 0.8]},
    ):
        with pytest.raises(ConfigError):
            tiny(**overrides)
    with pytest.raises(DataError, match="training split is empty"):
        created(**{"data.split_fractions": [0.1, 0.1, 0.8]}).stages(Empty())


class Empty(Volumes):
    def split(self, name, fractions=(0.8, 0.1, 0.1), seed=0):
        return [] if name == "train" else self.keys()


# -- M15: the law -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "digit", "numerator", "p"),
    [
        (9.9, 0.1, 1, 0.0019),
        (36.0, 1.0, 1, 9.1e-9),
        (6.2, 0.1, 1, 0.014),  # printed as 0.14: a misprint
        (0.0071, 0.0001, 1, 0.93),
        (0.20, 0.01, 1, 0.65),
        (0.79, 0.01, 1, 0.38),
        (23.0, 1.0, 2, 1.1e-9),
        (13.0, 1.0, 2, 5.1e-6),
        (0.5, 0.1, 2, 0.61),
    ],
)
def test_m15_p_values_are_the_papers(f, digit, numerator, p):
    """Within what the printed digits of F leave open."""
    least, most = (f_test(f + sign * digit / 2, numerator, 189).p for sign in (1, -1))
    assert least * 0.97 <= p <= most * 1.03


def test_m15_the_fit_recovers_known_slopes_and_tests_them():
    rng = np.random.default_rng(0)
    n_a, n_t = (values.ravel() for values in np.meshgrid([4, 8, 12, 16], [128, 256, 384, 512]))
    n_a, n_t = np.tile(n_a, 12), np.tile(n_t, 12)
    exact = 0.019 * np.log(n_a) + 0.010 * np.log(n_t) + 0.80
    fit = fit_log_linear(n_a, n_t, exact)
    np.testing.assert_allclose([fit.alpha_a, fit.alpha_t, fit.beta], [0.019, 0.010, 0.80], atol=1e-12)
    assert fit_log_linear([4, 8, 4, 8], [128, 128, 512, 512], [0.1, 0.2, 0.1, 0.2]).alpha_a == pytest.approx(0.1 / np.log(2))
    scores = 0.03 * np.log(n_a) + 0.8 + rng.normal(0, 0.02, len(n_a))
    fit = fit_log_linear(n_a, n_t, scores)
    assert fit.without_a.degrees == (1, 189)
    assert fit.without_both.degrees == (2, 189)
    # against the t test of each slope, whose square is F
    x = np.stack([np.log(n_a), np.log(n_t), np.ones(len(n_a))], 1)
    covariance = np.linalg.inv(x.T @ x)
    slopes = covariance @ x.T @ scores
    variance = ((scores - x @ slopes) ** 2).sum() / 189
    for test, column in ((fit.without_a, 0), (fit.without_t, 1)):
        t = slopes[column] / np.sqrt(variance * covariance[column, column])
        assert test.f == pytest.approx(t**2, rel=1e-8)
        assert test.p == pytest.approx(2 * stats.t.sf(abs(t), 189), rel=1e-8)
    assert fit.without_a.p < 1e-6
    assert fit.without_t.p > 0.001


def test_m15_tables_that_cannot_be_fitted_are_refused():
    for n_a, n_t, words in (
        ([4, 8, 4, 8], [0, 1, 1, 1], "above 0"),
        ([4, 4, 4, 4], [1, 2, 3, 4], "both vary"),
        ([4], [1], "at least 4"),
    ):
        with pytest.raises(DataError, match=words):
            fit_log_linear(n_a, n_t, np.ones(len(n_a)))
