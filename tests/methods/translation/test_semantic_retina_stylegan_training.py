"""Card 29, variant: how the conditional StyleGAN of label maps plays, trains, samples and resumes."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.methods.base import precision
from medsynth_tf.methods.translation.semantic_retina.style_model import StyleLabelGAN, StyleLevel
from medsynth_tf.ops import random
from medsynth_tf.training.trainer import train
from tests.methods.interruption import StopAfter
from tests.methods.translation.test_semantic_retina_labels import SOURCE
from tests.methods.translation.test_semantic_retina_progressive import batch, check_that_it_samples_exports_answers_and_loads
from tests.methods.translation.test_semantic_retina_stylegan import difference, made, perturb, tiny

# -- losses -----------------------------------------------------------------------------------------------------------------


def test_the_critics_losses_are_those_of_a_linear_critic():
    level = made(**{"style_gan.gradient_penalty": 7.0, "style_gan.drift": 0.5}).levels[0]
    rng = np.random.default_rng(0)
    slope = rng.normal(0, 0.2, [4 * 4 * 9, 1]).astype(np.float32)
    real, fake = (rng.normal(size=[3, 4, 4, 9]).astype(np.float32) for _ in range(2))

    def judged(self, planes, training):
        return {"score": tf.matmul(tf.reshape(planes, [-1, 4 * 4 * 9]), slope) + 2.0}

    scores = [planes.reshape(3, -1) @ slope + 2.0 for planes in (real, fake)]
    with mock.patch.object(StyleLevel, "judged", judged):
        losses = level.adversarial_losses(
            *({"planes": tf.constant(planes), "score": score} for planes, score in zip((real, fake), scores)),
            tf.range(3, dtype=tf.int64),
            "once",
        )
    assert float(losses["discriminator"]) == pytest.approx(scores[1].mean() - scores[0].mean(), rel=1e-4)
    assert float(losses["gradient_penalty"]) == pytest.approx((np.linalg.norm(slope) - 1) ** 2, rel=1e-4)
    assert float(losses["drift"]) == pytest.approx((scores[0] ** 2).mean(), rel=1e-5)
    total = level.discriminator_objective({**losses, "class_real": tf.constant(3.0), "class_fake": tf.constant(4.0)})
    expected = float(losses["discriminator"]) + 7.0 * float(losses["gradient_penalty"]) + 0.5 * float(losses["drift"]) + 7.0
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_is_between_the_augmented_planes_that_the_critic_saw():
    level = made(augmentation={"enabled": True, "fixed_probability": 1.0}).levels[1]
    seen = []
    judged = StyleLevel.judged

    def spy(self, planes, training):
        seen.append(planes.numpy())
        return judged(self, planes, training)

    data = batch()
    planes = level.real_planes(data["label_map"])
    with mock.patch.object(StyleLevel, "judged", spy):
        level.discriminator_step(planes, data["grade"], data["seed"], "d")
    real, fake, between = seen
    assert difference(real, planes) > 0.5
    shares = [((b - f) * (r - f)).sum() / ((r - f) ** 2).sum() for r, f, b in zip(real, fake, between)]
    assert min(shares) >= 0.0
    assert max(shares) <= 1.0
    assert len({round(share, 4) for share in shares}) == 4
    np.testing.assert_allclose(between, [s * r + (1 - s) * f for s, r, f in zip(shares, real, fake)], atol=1e-4)


def test_the_penalty_moves_every_kernel_as_it_must_in_a_critic_whose_scores_are_proportional_to_each():
    """A critic without biases doubles with any of its kernels W, so W · ∂/∂W of E[(n - 1)²] is E[2 (n - 1) n], n being ‖∇D‖.

    It holds through the second derivatives of convolutions, activations, pooling and the batch's deviation.
    """
    level = made().levels[2]
    rng = np.random.default_rng(0)
    real, fake = ({"planes": tf.constant(rng.random([4, 16, 16, 9]), tf.float32), "score": tf.zeros([4, 1])} for _ in range(2))
    seeds = tf.range(4, dtype=tf.int64)
    level.discriminator.score.kernel.assign(3.0 * level.discriminator.score.kernel)
    kernels = [v for v in level.discriminator.variables_of(2) if "kernel" in v.name and "grade" not in v.name]
    kernels = [v for v in kernels if "entry_1" not in v.name]  # faded out
    assert len(kernels) == 8
    with tf.GradientTape() as tape:
        penalty = level.adversarial_losses(real, fake, seeds, "d")["gradient_penalty"]
    slopes = [float(tf.reduce_sum(gradient * kernel)) for gradient, kernel in zip(tape.gradient(penalty, kernels), kernels)]
    u = random.uniform(seeds, (1,), "d/between")[:, :, None, None]
    between = u * real["planes"] + (1 - u) * fake["planes"]
    with tf.GradientTape() as tape:
        tape.watch(between)
        score = tf.reduce_sum(level.judged(between, training=True)["score"])
    norms = np.sqrt((tape.gradient(score, between).numpy() ** 2).sum((1, 2, 3)))
    assert float(penalty) == pytest.approx(((norms - 1) ** 2).mean(), rel=1e-4)
    assert abs((2 * (norms - 1) * norms).mean()) > 0.05
    np.testing.assert_allclose(slopes, (2 * (norms - 1) * norms).mean(), rtol=2e-3)


# -- training ---------------------------------------------------------------------------------------------------------------


def test_a_level_trains_only_what_is_its_own_in_one_graph_one_step_each():
    model = made()
    level = model.levels[1]
    level.plan(8)
    before = {v.ref(): v.numpy() for v in (*model.generator.variables, *model.discriminator.variables)}
    data = tf.data.Dataset.from_tensors(batch()).repeat()
    history = level.fit(data, epochs=3, steps_per_epoch=1, verbose=0).history
    assert set(history) == set(StyleLevel.LOSSES)
    assert np.isfinite(list(history.values())).all()
    np.testing.assert_allclose(history["alpha"], [0.0, 0.25, 0.5])
    assert int(level.generator_optimizer.iterations) == int(level.discriminator_optimizer.iterations) == 3
    assert level.train_tf_function.experimental_get_tracing_count() == 1
    kinds = {
        op.type for op in level.train_tf_function._list_all_concrete_functions_for_serialization()[0].graph.get_operations()
    }
    assert not kinds & {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
    trained = [*model.generator.variables_of(1), *model.discriminator.variables_of(1), model.generator.mean_style.means]
    moved = {ref for ref, value in before.items() if not np.array_equal(ref.deref(), value)}
    assert moved == {v.ref() for v in trained}


def test_each_player_moves_alone():
    model = made()
    level, data = model.levels[1], batch()
    level.plan(8)
    level.step.assign(2)  # both heads and both entries take part
    for player, step in (
        ("generator", lambda: level.generator_step(data["seed"], "g")),
        (
            "discriminator",
            lambda: level.discriminator_step(level.real_planes(data["label_map"]), data["grade"], data["seed"], "d"),
        ),
    ):
        before = [v.numpy() for v in model.trainable_variables]
        step()
        moved = {v.ref() for v, b in zip(model.trainable_variables, before) if not np.array_equal(v, b)}
        assert moved == {v.ref() for v in getattr(level, f"{player}_variables")}, player


def test_half_precision_leaves_the_critics_step_as_it_is():
    """The penalty's own gradient is not scaled, and the critic computes in single precision: only the loss scale could tell."""
    data, moved = batch(), []
    fake = {"planes": tf.nn.softmax(tf.random.stateless_normal([4, 8, 8, 9], [1, 2])), "grade": tf.constant([0, 1, 2, 3])}
    for kind in ("none", "float16"):
        config = tiny().replace({"training.mixed_precision": kind})
        with precision(config):
            model = StyleLabelGAN(config)
            model.compile()
        level = model.levels[1]
        sgd = level.with_loss_scale(tf.keras.optimizers.SGD(0.1))
        sgd.build(level.discriminator_variables)
        level.discriminator_optimizer = sgd
        before = [v.numpy() for v in level.discriminator_variables]
        with mock.patch.object(StyleLevel, "fake", return_value=fake):
            losses = level.discriminator_step(level.real_planes(data["label_map"]), data["grade"], data["seed"], "d")
        assert losses["gradient_penalty"].dtype == tf.float32
        moved.append([v.numpy() - b for v, b in zip(level.discriminator_variables, before)])
    for one, other in zip(*moved):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # and the last of them, in half precision, makes maps and takes whole steps
    assert model.generator.blocks[1].convolutions[0].compute_dtype == "float16"
    before = [v.numpy() for v in level.generator_variables]
    assert all(np.isfinite(float(loss)) for loss in level.train_step(data).values())
    assert sum(not np.array_equal(v, b) for v, b in zip(level.generator_variables, before)) > 10
    assert all(np.isfinite(v).all() for v in level.generator_variables)


def test_a_sample_is_its_seeds_and_its_grades_whatever_batch_it_is_in():
    model = made()
    perturb(model.generator)
    grade, seed = tf.constant([0, 4, 4, 2]), tf.constant([7, 7, 8, 2**40], tf.int64)
    for sampler in (model, model.levels[1]):
        together = sampler({"grade": grade, "seed": seed}).numpy()
        two = sampler({"grade": tf.gather(grade, [2, 0]), "seed": tf.gather(seed, [2, 0])})
        np.testing.assert_allclose(two, together[[2, 0]], atol=1e-6)
        np.testing.assert_allclose(sampler({"grade": grade[3:], "seed": seed[3:]})[0], together[3], atol=1e-6)
        assert min(difference(together[0], together[1]), difference(together[1], together[2])) > 1e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = train(tiny(), ms.open_source(SOURCE), tmp_path_factory.mktemp("style") / "run", progress=False)
    assert run.finished
    return run


def test_it_trains_exports_answers_and_loads(trained, tmp_path):
    label_gan = trained.model.label_gan
    assert isinstance(label_gan, StyleLabelGAN)
    assert float(tf.reduce_max(tf.abs(label_gan.generator.mean_style.means))) > 0.0
    again = check_that_it_samples_exports_answers_and_loads(trained, tmp_path)
    np.testing.assert_array_equal(again.label_gan.generator.mean_style.means, label_gan.generator.mean_style.means)


@pytest.mark.slow
def test_a_run_broken_off_while_a_level_fades_in_ends_with_the_same_weights(trained, tmp_path):
    source = ms.open_source(SOURCE)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), source, tmp_path / "run", progress=False, callbacks=[StopAfter(3)])  # the first of labels_8
    resumed = train(tiny(), source, tmp_path / "run", progress=False)
    assert resumed.finished
    for one, other in zip(trained.model.label_gan.variables, resumed.model.label_gan.variables):
        np.testing.assert_array_equal(one, other, err_msg=one.name)


MIRRORED = """
import json
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from medsynth_tf.methods.translation.semantic_retina.style_model import StyleLabelGAN
from tests.methods.translation.test_semantic_retina_progressive import batch
from tests.methods.translation.test_semantic_retina_stylegan import tiny
strategies = {"one": tf.distribute.OneDeviceStrategy("CPU:0"), "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
for name, strategy in strategies.items():
    with strategy.scope():
        model = StyleLabelGAN(tiny())
        model.compile()
        level = model.levels[1]
        for player in ("generator", "discriminator"):  # Adam turns rounding of tiny gradients into whole steps
            optimizer = tf.keras.optimizers.SGD(0.01)
            optimizer.build(getattr(level, player + "_variables"))
            setattr(level, player + "_optimizer", optimizer)
    level.plan(4)
    data = tf.data.Dataset.from_tensor_slices(batch(8)).batch(8).repeat()
    losses = level.fit(data, epochs=2, steps_per_epoch=1, verbose=0).history
    print(json.dumps({"losses": losses, "means": model.generator.mean_style.means.numpy().tolist()}))
"""


@pytest.mark.slow
def test_two_replicas_compute_what_one_does():
    """Groups of four lie within a replica, and mean styles are over both."""
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads(line) for line in done.stdout.strip().splitlines()[-2:])
    assert one["losses"].keys() == two["losses"].keys()
    for name, values in one["losses"].items():
        np.testing.assert_allclose(two["losses"][name], values, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(two["means"], one["means"], atol=1e-6)
    assert np.abs(one["means"]).max() > 1e-3
