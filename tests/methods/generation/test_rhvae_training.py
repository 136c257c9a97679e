"""Card 17: training by class, what is stored, what samplers need, replicas; each item by its number."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import NonFiniteLossError
from medsynth_tf.methods.early_stopping import BestWeights
from medsynth_tf.methods.generation.rhvae.data import slots
from medsynth_tf.methods.generation.rhvae.model import RHVAE
from medsynth_tf.training.trainer import train
from tests.methods.generation.test_rhvae import SOURCE, batch_of, created, tiny
from tests.methods.interruption import StopAfter

# -- M14, M15 ---------------------------------------------------------------------------------------------------------------


def followed(values, patience=3, steps=1):
    variable = tf.Variable(0.0)
    best = BestWeights([variable], patience, steps)

    @tf.function
    def step(value, loss):
        variable.assign(value)
        best.update(loss)

    stopped = None
    for i, loss in enumerate(values):
        step(tf.constant(float(i)), tf.constant(loss))
        if stopped is None and best.stopped:
            stopped = i
    return variable, best, stopped


def test_m14_the_best_epoch_is_kept_until_patience_ends():
    variable, best, stopped = followed([5.0, 3.0, 4.0, 4.0, 4.0, 1.0, 0.5], patience=3)
    assert stopped == 4
    best.restore()
    assert float(variable) == 1.0, "epochs after the stop do not count"
    variable, best, stopped = followed([5.0, 4.0, 4.5, 3.0, 9.0, 9.0], patience=3)
    assert stopped is None
    best.restore()
    assert float(variable) == 3.0
    # an epoch of two steps is judged by its mean, with the weights of its end
    variable, best, stopped = followed([5.0, 5.0, 1.0, 8.0, 9.0, 2.0], patience=2, steps=2)
    best.restore()
    assert float(variable) == 3.0
    assert float(best.lowest) == 4.5


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_m15_a_broken_loss_ends_training_with_the_best_state(broken):
    variable, best, stopped = followed([5.0, 3.0, broken, 1.0])
    assert stopped == 2
    assert best.broken
    best.restore()
    assert float(variable) == 1.0
    assert all(np.isfinite(v) for v in (best.lowest, best.total)), "a checkpoint refuses what is not finite"
    _, best, _ = followed([broken, 1.0])
    with pytest.raises(NonFiniteLossError, match="no epoch ended"):
        best.restore()


def test_m15_a_broken_step_does_not_touch_the_weights_and_the_run_goes_on_to_the_next_class(tmp_path, monkeypatch):
    model = created()
    generator = model.models[0]
    generator.train_step(batch_of())
    before = [v.numpy() for v in generator.trainable_variables]
    generator.decoder.logits.bias.assign(tf.fill([256], math.nan))
    result = generator.train_step(batch_of())
    assert all(np.isfinite(value) for value in result.values())
    assert generator.best.broken
    model.models[0].finish(RHVAE.dataset(ms.open_source(SOURCE), tiny(), "train", training=False).take(0))
    after = [v.numpy() for v in generator.trainable_variables]
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)


def test_m14_a_stage_ends_with_the_best_weights_and_the_metric_of_these():
    source = ms.open_source(SOURCE)
    model = created()
    stage = model.stages(source)[0]
    generator = stage.model
    stage.begin()
    losses = generator.fit(stage.batches(0), epochs=6, steps_per_epoch=1, verbose=0).history["loss"]
    generator.decoder.logits.bias.assign_add(tf.ones([256]))  # whatever came after the best epoch is gone
    stage.end()
    assert float(generator.best.lowest) == pytest.approx(min(losses), rel=1e-5)
    for copy, variable in zip(generator.best.copies, generator.trainable_variables):
        np.testing.assert_array_equal(copy, variable)
    placed = slots(source, model.config)
    mine = [key for key in source.keys() if key.id in placed and key.label == 0]
    for key in mine:
        image = tf.constant(source.read(key)["image"][np.newaxis] / 255, tf.float32)
        factor = generator.metric_network(image)[0]
        np.testing.assert_allclose(generator.centroids[placed[key.id]], generator.encoder(image)[0][0], atol=1e-5)
        np.testing.assert_allclose(generator.matrices[placed[key.id]], factor @ tf.transpose(factor), atol=1e-5)
    assert float(tf.reduce_sum(generator.filled)) == len(mine)


def test_m14_classes_are_trained_one_after_the_other_and_go_on_after_a_kill(tmp_path):
    source = ms.open_source(SOURCE)
    config = tiny(model="vae", **{"sampling.sampler": "gmm", "training.epochs": 5})
    whole = train(config, source, tmp_path / "whole", progress=False)
    assert whole.finished
    per_class = [sum(k.label == c for k in source.split("train", (0.6, 0.2, 0.2), 0)) for c in (0, 1)]
    for generator, count in zip(whole.model.models, per_class):
        assert int(generator.optimizer.iterations) == 5 * (count // 6)

    with pytest.raises(KeyboardInterrupt):
        train(config, source, tmp_path / "killed", progress=False, callbacks=[StopAfter(3)])
    resumed = train(config, source, tmp_path / "killed", progress=False)
    for a, b in zip(whole.model.variables, resumed.model.variables):
        np.testing.assert_array_equal(a, b)


def test_m14_a_saved_model_has_the_same_metric_and_samples(tmp_path):
    model = created()
    for label, generator in enumerate(model.models):
        generator.train_step(batch_of(label=label))
    model.save(tmp_path / "model")
    again = ms.load(tmp_path / "model")
    seeds = tf.constant([3, 2**40], tf.int64)
    points = tf.constant([[0.1, -0.2, 0.3], [1.0, 1.0, 1.0]])
    for a, b in zip(model.models, again.models):
        np.testing.assert_array_equal(a.latent_metric().at(points).inverse, b.latent_metric().at(points).inverse)
        np.testing.assert_array_equal(a.sample(seeds).states, b.sample(seeds).states)
    request = {"label": tf.constant([1, 0], tf.int64), "seed": seeds}
    np.testing.assert_array_equal(model(request), again(request))


def test_a_stale_class_ends_early_and_accumulated_metrics_stay_as_training_left_them(tmp_path):
    config = tiny(patience=1, learning_rate=100.0, **{"training.epochs": 40, "metric.store": "accumulate"})
    source = ms.open_source(SOURCE)
    model = created(patience=1, learning_rate=100.0, **{"training.epochs": 40, "metric.store": "accumulate"})
    stage = model.stages(source)[0]
    stage.begin()
    stage.model.fit(stage.batches(0), epochs=40, steps_per_epoch=1, callbacks=list(stage.callbacks), verbose=0)
    assert int(stage.model.optimizer.iterations) < 40
    stage.end()
    kept = stage.model.centroids.numpy()
    best = stage.model.best
    position = [v is stage.model.centroids for v in best._followed].index(True)
    np.testing.assert_array_equal(kept, best.copies[position])
    refreshed = [stage.model.encoder(b["image"] / 255)[0] for b in RHVAE.dataset(source, config, "train", training=False)]
    assert not np.allclose(
        np.sort(kept[: len(refreshed)].ravel()), np.sort(np.concatenate(refreshed)[: len(refreshed)].ravel())
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_learns_and_overflowing_gradients_end_nothing(precision):
    model = created(**{"training.mixed_precision": precision})
    generator = model.models[0]
    made = generator.forward(batch_of(), training=True)
    assert {made[name].dtype for name in ("loss", "latent", "inverse_metric", "mean")} == {tf.float32}
    losses = [float(generator.train_step(batch_of())["loss"]) for _ in range(8)]
    assert losses[-1] < losses[0]
    assert not generator.best.broken


# -- M16 and signatures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_name", "sampler"),
    [
        ("rhvae", "metric_hmc"),
        ("rhvae", "random_walk"),
        ("rhvae", "wrapped_normal"),
        ("rhvae", "gmm"),
        ("vae", "prior"),
        ("vamp", "vamp"),
    ],
)
def test_m16_samplers_ask_neither_encoder_nor_images(model_name, sampler):
    model = created(model=model_name, **{"sampling.sampler": sampler})
    source = ms.open_source(SOURCE)
    for label, generator in enumerate(model.models):
        generator.train_step(batch_of(label=label))
        generator.finish(model.stages(source)[label].batches(0).take(1))
    read = model.signatures()["serving_default"].get_concrete_function().variables
    forbidden = [
        variable
        for generator in model.models
        for network in (generator.encoder, generator.metric_network)
        if network is not None
        for variable in network.variables
    ]
    forbidden += [generator.pseudo_inputs for generator in model.models if generator.pseudo_inputs is not None]
    assert not {variable.ref() for variable in read} & {variable.ref() for variable in forbidden}
    made = model.signatures()["serving_default"](label=tf.constant([0, 1], tf.int64), seed=tf.constant([5, 5], tf.int64))
    assert made["image"].shape == (2, 16, 16, 1)
    assert not np.array_equal(made["image"][0], made["image"][1])


def test_classes_are_dealt_out_and_put_back_in_order():
    model = created()
    for label, generator in enumerate(model.models):
        generator.train_step(batch_of(label=label))
    label, seed = np.array([1, 0, 1, 1, 0]), np.arange(5) * 7
    together, acceptance = model.sample(tf.constant(label, tf.int64), tf.constant(seed, tf.int64))
    assert acceptance.shape == (5,)
    for i in range(5):
        generator = model.models[label[i]]
        alone = generator.decode(generator.sample(tf.constant([seed[i]], tf.int64)).states)[0]
        np.testing.assert_allclose(together[i], alone, atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"classes are 0 … 1"):
        model.signatures()["serving_default"](label=tf.constant([2], tf.int64), seed=tf.constant([0], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in batch size"):
        model.signatures()["serving_default"](label=tf.constant([0], tf.int64), seed=tf.constant([0, 1], tf.int64))


def test_one_class_needs_no_labels():
    model = created(classes=1)
    assert model.record_requirements(model.config).names == ()
    source = ms.open_source(SOURCE)
    (stage,) = model.stages(source)
    batch = next(iter(stage.batches(0)))
    assert (batch["label"] == 0).numpy().all()
    model.models[0].train_step(batch)
    made = model.signatures()["serving_default"](seed=tf.constant([1], tf.int64))
    assert made["image"].dtype == tf.uint8
    assert set(model.example_inputs()["serving_default"]) == {"seed"}


def test_reconstruction_is_the_decoded_mean():
    model = created()
    batch = batch_of(label=1)
    made = model.signatures()["reconstruct"](image=batch["image"], label=batch["label"])
    mean, log_variance = model.models[1].encoder(batch["image"] / 255)
    np.testing.assert_allclose(made["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(made["log_variance"], log_variance, atol=1e-6)
    expected = np.rint(255 * model.models[1].decode(mean))
    assert np.abs(made["image"].numpy().astype(int) - expected).max() <= 1


def test_a_mixed_batch_trains_each_class_as_its_own_batch_would():
    mixed, alone = created(), created()
    parts = [batch_of(4, label=0), batch_of(3, label=1)]
    both = {name: tf.concat([parts[0][name], parts[1][name]], 0) for name in parts[0]}
    order = [4, 0, 1, 5, 2, 6, 3]
    mixed.train_step({name: tf.gather(value, order) for name, value in both.items()})
    for generator, part in zip(alone.models, parts):
        generator.train_step(part)
    for a, b in zip(mixed.models, alone.models):
        for one, other in zip(a.trainable_variables, b.trainable_variables):
            np.testing.assert_allclose(one, other, atol=2e-5)
        np.testing.assert_allclose(a.centroids, b.centroids, atol=1e-5)
    before = [v.numpy() for v in mixed.models[1].trainable_variables]
    optimizer = mixed.models[1].optimizer
    optimizer.learning_rate.assign(0.0)
    mixed.train_step(parts[0])
    for a, b in zip(before, mixed.models[1].trainable_variables):
        np.testing.assert_array_equal(a, b)


def test_a_fitted_mixture_is_that_of_the_encoded_images():
    model = created(model="vae", **{"sampling.sampler": "gmm", "sampling.mixture_components": 2})
    generator = model.models[0]
    generator.train_step(batch_of())
    generator.finish(model.stages(ms.open_source(SOURCE))[0].batches(0).take(3))
    assert float(tf.reduce_sum(generator.mixture.weights)) == pytest.approx(1.0, abs=1e-5)
    codes = np.concatenate(
        [generator.encoder(b["image"] / 255)[0] for b in model.stages(ms.open_source(SOURCE))[0].batches(0).take(3)]
    )
    mean = np.einsum("k,kd->d", generator.mixture.weights, generator.mixture.means)
    np.testing.assert_allclose(mean, codes.mean(0), atol=1e-3)  # EM keeps the mean


REPLICAS = """
import json
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.methods.generation.test_rhvae import batch_of, tiny
from medsynth_tf.methods.early_stopping import StopWhenStale
from medsynth_tf.methods.saving import create
results = []
mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], tf.distribute.ReductionToOneDevice())
for strategy in (tf.distribute.get_strategy(), mirrored):
    with strategy.scope():
        model = create("rhvae", tiny(classes=1, **{"flow.steps": 1, "flow.step_size": 0.05}))
        model.compile()
    generator = model.models[0]
    data = tf.data.Dataset.from_tensors(batch_of()).unbatch().batch(6).repeat()
    stop = [StopWhenStale(generator.best)]
    losses = generator.fit(data, epochs=4, steps_per_epoch=1, callbacks=stop, verbose=0).history["loss"]
    stored = [v.numpy().tolist() for v in (generator.centroids, generator.matrices, generator.best.lowest)]
    with strategy.scope():
        generator.finish(data.take(1))
    stored += [v.numpy().tolist() for v in (generator.centroids, generator.matrices)]
    weights = [float(np.abs(v.numpy()).sum()) for v in generator.trainable_variables]
    results.append({"losses": losses, "stored": stored, "weights": weights})
print(json.dumps(results))
"""


def test_two_replicas_learn_what_one_device_does():
    process = subprocess.run(
        [sys.executable, "-c", REPLICAS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    one, two = json.loads(process.stdout.strip().splitlines()[-1])
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-4)
    for a, b in zip(one["stored"], two["stored"]):
        np.testing.assert_allclose(a, b, atol=1e-3)
