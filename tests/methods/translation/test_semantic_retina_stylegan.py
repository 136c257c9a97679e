"""Card 29, variant: label maps by a conditional StyleGAN that grows from 4×4."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.methods.base import precision
from medsynth_tf.methods.translation.semantic_retina.style_model import StyleLabelGAN, StyleLevel
from medsynth_tf.methods.translation.semantic_retina.style_networks import (
    StyleEpilogue,
    StyleLabelDiscriminator,
    StyleLabelGenerator,
    StyleMapping,
    noise_sizes,
)
from medsynth_tf.ops import random
from medsynth_tf.ops.resize import downsample_average
from medsynth_tf.training.trainer import train
from tests.methods.interruption import StopAfter
from tests.methods.translation.test_semantic_retina_labels import SOURCE
from tests.methods.translation.test_semantic_retina_progressive import TINY, batch, enlarged

WIDTHS = (8, 6, 4)
TINY = {
    **TINY,
    "label_generator": {
        "enabled": True,
        "source": "stylegan",
        "size": 16,
        "doublings": 2,
        "latent_size": 6,
        "augmentation": {"enabled": False},
        "generator_steps": 1,
        "generator_learning_rate": 2e-3,
        "discriminator_learning_rate": 2e-3,
        "beta_1": 0.0,
        "beta_2": 0.99,
        "discriminator_clip_norm": None,
        "steps_per_epoch": 2,
        "progressive": {"epochs": [1, 2, 2], "batch_sizes": [8, 4, 2], "filters": WIDTHS},
        "style_gan": {"mapping_layers": 2},
    },
}


def tiny(**settings):
    overrides = {f"label_generator.{name}": value for name, value in settings.items()}
    return ms.load_config("semantic_retina", overrides=TINY).replace(overrides)


def perturb(*models):
    """Away from the first values: noise has no strength at first, and biases are alike."""
    rng = np.random.default_rng(0)
    for model in models:
        for variable in model.trainable_variables:
            variable.assign_add(0.3 * rng.normal(size=variable.shape))


def make_generator(**settings):
    generator = StyleLabelGenerator(WIDTHS, 5, latent_size=6, mapping_layers=2, seed=1, **settings)
    perturb(generator)
    return generator


def inputs(level, count=4, seed=1):
    rng = np.random.default_rng(seed)
    return {
        "latent": tf.constant(rng.normal(size=[count, 6]), tf.float32),
        "grade": tf.range(count) % 5,
        "noise": tf.constant(rng.normal(size=[count, sum(noise_sizes(level))]), tf.float32),
    }


def mixed(level, crossover):
    other = np.random.default_rng(7).normal(size=[4, 6])
    return {**inputs(level), "other_latent": tf.constant(other, tf.float32), "crossover": tf.constant(crossover)}


def made(**settings):
    model = StyleLabelGAN(tiny(**settings))
    model.compile()
    return model


def difference(one, other):
    return float(tf.reduce_max(tf.abs(one - other)))


# -- networks ---------------------------------------------------------------------------------------------------------------


def test_parameters_are_as_many_as_in_the_official_networks_at_1024():
    """26.2 million in the generator (section 2 of the paper); to the last one as the official code counts them, without the grade."""
    widths = [512, 512, 512, 512, 256, 128, 64, 32, 16]
    generator, discriminator = StyleLabelGenerator(widths, 3), StyleLabelDiscriminator(widths, 3)

    def count(variables):
        return sum(int(np.prod(v.shape)) for v in variables)

    grade = count(generator.mapping.embedding.weights) + 512 * 512  # the table, and the first layer's rows for it
    assert grade == 5 * 512 + 512 * 512
    assert count(generator.trainable_variables) - grade == 26_219_627
    assert count(generator.mapping.trainable_variables) - grade == 8 * (512 * 512 + 512)
    assert count(discriminator.trainable_variables) - count(discriminator.grade.weights) == 23_087_249


def test_the_mapping_network_is_its_formula():
    mapping = StyleMapping(5, 6, depth=2, learning_rate_multiplier=0.1, seed=3)
    latent, grade = 9 * np.random.default_rng(0).normal(size=[4, 6]).astype(np.float32), np.array([1, 0, 4, 1])
    style = mapping((latent, grade))
    halves = [latent, mapping.embedding.embeddings.numpy()[grade]]
    x = np.concatenate([half / np.sqrt((half**2).mean(-1, keepdims=True) + 1e-8) for half in halves], -1)
    for dense, fan_in in zip(mapping.dense_layers, (12, 6)):
        assert dense.kernel.numpy().std() == pytest.approx(10.0, rel=0.35)
        x = x @ (0.1 * np.sqrt(2 / fan_in) * dense.kernel.numpy())
        x = np.where(x > 0, x, 0.2 * x)
    np.testing.assert_allclose(style, x, rtol=1e-4, atol=1e-4)


def test_noise_bias_activation_norm_and_style_follow_in_the_papers_order():
    epilogue = StyleEpilogue(5, seed=2)
    rng = np.random.default_rng(0)
    x, noise, style = (rng.normal(size=shape).astype(np.float32) for shape in ([3, 4, 4, 5], [3, 4, 4, 1], [3, 6]))
    epilogue((x, noise, style))
    perturb(epilogue)
    y = x + noise * epilogue.noise.strength.numpy() + epilogue.bias.numpy()
    y = np.where(y > 0, y, 0.2 * y)
    y = (y - y.mean((1, 2), keepdims=True)) / np.sqrt(y.var((1, 2), keepdims=True) + 1e-8)
    affine = (style @ epilogue.modulation.affine.scaled_kernel() + epilogue.modulation.affine.bias)[:, None, None]
    np.testing.assert_allclose(epilogue((x, noise, style)), y * (1 + affine[..., :5]) + affine[..., 5:], atol=1e-4)


@pytest.mark.parametrize("training", [False, True])
def test_probabilities_sum_to_one_and_latent_grade_and_noise_change_them_at_each_level(training):
    generator = make_generator()
    for level in range(3):
        given = inputs(level)
        maps = generator(given, level=level, training=training)
        assert maps.shape == (4, 4 * 2**level, 4 * 2**level, 5)
        for alpha in (None, 0.0, 0.3, 1.0):
            values = generator(given, level=level, alpha=alpha, training=training).numpy()
            assert values.min() >= 0.0
            np.testing.assert_allclose(values.sum(-1), 1.0, atol=1e-5)
        for name, value in inputs(level, seed=5).items():
            changed = {**given, name: value if name != "grade" else (value + 1) % 5}
            each = tf.reduce_max(tf.abs(generator(changed, level=level, training=training) - maps), [1, 2, 3])
            assert float(tf.reduce_min(each)) > 1e-3, name


def test_alpha_goes_from_the_previous_level_enlarged_to_the_levels_own_head():
    generator = make_generator()
    for level in (1, 2):
        given = inputs(level)
        previous = enlarged(generator({**given, "noise": given["noise"][:, : sum(noise_sizes(level - 1))]}, level=level - 1))
        ends = [generator(given, level=level, alpha=alpha).numpy() for alpha in (0.0, 1.0)]
        np.testing.assert_array_equal(ends[0], previous)
        np.testing.assert_array_equal(ends[1], generator(given, level=level))
        assert difference(*ends) > 0.01
        np.testing.assert_allclose(generator(given, level=level, alpha=0.25), 0.75 * ends[0] + 0.25 * ends[1], atol=1e-6)


def test_the_critic_goes_from_the_previous_level_on_pooled_planes_to_its_own():
    critic = StyleLabelDiscriminator(WIDTHS, 5, seed=2)
    planes = tf.nn.softmax(3 * tf.random.stateless_normal([4, 16, 16, 5], [3, 4]))
    old, new = critic(downsample_average(planes, 2), level=1), critic(planes, level=2)
    assert old["grade"].shape == [4, 5]
    for name in ("score", "grade"):
        np.testing.assert_array_equal(critic(planes, level=2, alpha=0.0)[name], old[name])
        np.testing.assert_array_equal(critic(planes, level=2, alpha=1.0)[name], new[name])
        assert difference(new[name], old[name]) > 1e-4


def test_the_critic_sees_the_variety_of_its_groups_and_nothing_else_of_its_neighbours():
    critic = StyleLabelDiscriminator(WIDTHS, 5, minibatch_group=2, seed=2)
    planes = tf.nn.softmax(3 * tf.random.stateless_normal([4, 16, 16, 5], [3, 4]))
    score = critic(planes, level=2)["score"]
    np.testing.assert_allclose(critic(planes[2:], level=2)["score"], score[2:], atol=1e-5)
    assert difference(critic(tf.gather(planes, [0, 0, 2, 3]), level=2)["score"][0], score[0]) > 1e-5
    single = StyleLabelDiscriminator(WIDTHS, 5, minibatch_group=1, seed=2)
    np.testing.assert_allclose(single(planes[1:2], level=2)["score"], single(planes, level=2)["score"][1:2], atol=1e-5)


def test_gradients_reach_a_level_and_those_below_it():
    generator, critic = make_generator(), StyleLabelDiscriminator(WIDTHS, 5)
    for level in range(3):
        with tf.GradientTape(persistent=True) as tape:
            maps = generator(inputs(level), level=level, alpha=0.5, training=True)
            answer = critic(maps, level=level, alpha=0.5, training=True)
            loss = tf.reduce_sum(answer["score"] ** 2) + tf.reduce_sum(answer["grade"] ** 2)
        for network in (generator, critic):
            gradients = tape.gradient(loss, network.trainable_variables)
            reached = {v.ref() for v, gradient in zip(network.trainable_variables, gradients) if gradient is not None}
            assert reached == {variable.ref() for variable in network.variables_of(level)}


# -- styles -----------------------------------------------------------------------------------------------------------------


def test_mixing_changes_the_styles_from_the_crossover_on_and_no_others():
    generator = make_generator()
    styles, other = (
        generator.styles({**inputs(2), "latent": latent}, 2, training=False)
        for latent in (inputs(2)["latent"], mixed(2, [6] * 4)["other_latent"])
    )
    assert styles.shape == [4, 6, 6]
    both = generator.styles(mixed(2, [1, 3, 5, 6]), 2, training=False)
    for i, crossover in enumerate([1, 3, 5, 6]):
        np.testing.assert_array_equal(both[i, :crossover], styles[i, :crossover])
        np.testing.assert_array_equal(both[i, crossover:], other[i, crossover:])
    # a level's map follows from its styles alone: up to level 1 there are four
    heads = [generator(mixed(2, [4] * 4), level=2, alpha=0.0), generator(inputs(2), level=2, alpha=0.0)]
    np.testing.assert_array_equal(*heads)
    maps = [generator(given, level=2) for given in (inputs(2), mixed(2, [4] * 4), mixed(2, [6] * 4))]
    assert difference(maps[0], maps[1]) > 1e-3
    np.testing.assert_array_equal(maps[0], maps[2])


def test_draws_mix_as_often_as_asked_at_every_place_of_the_level_and_in_training_only():
    seeds = tf.range(1000, dtype=tf.int64)
    for number, places in ((0, 2), (2, 6)):
        level = made().levels[number]
        crossover = tf.function(level.draws)(seeds, "name", training=True)["crossover"].numpy()
        assert (crossover < places).mean() == pytest.approx(0.9, abs=0.03)
        shares = np.bincount(crossover, minlength=places + 1)[1:places] / 1000
        np.testing.assert_allclose(shares, 0.9 / (places - 1), atol=0.04)
        assert set(level.draws(seeds[:2], "name", training=False)) == {"latent", "noise"}
    never = made(**{"style_gan.style_mixing": 0.0}).levels[1]
    assert set(never.draws(seeds[:2], "name", training=True)) == {"latent", "noise"}
    first, second = (never.draws(seeds[:2], name, training=True) for name in ("one", "two"))
    assert all(difference(first[name], second[name]) > 0.1 for name in first)
    assert first["noise"].shape == [2, 2 * (16 + 64)]


def test_the_mean_style_of_a_grade_moves_towards_its_batches_in_training_only():
    generator = make_generator()
    given = {**mixed(1, [1, 2, 3, 4]), "grade": tf.constant([1, 3, 1, 1])}
    style = generator.mapping((given["latent"], given["grade"])).numpy()
    generator(given, level=1)
    assert float(tf.reduce_max(tf.abs(generator.mean_style.means))) == 0.0
    for _ in range(3):
        generator(given, level=1, training=True)
    means = generator.mean_style.means.numpy()
    share = 1 - 0.995**3
    np.testing.assert_allclose(means[1], share * style[[0, 2, 3]].mean(0), rtol=1e-4)  # the mixed-in styles do not count
    np.testing.assert_allclose(means[3], share * style[1], rtol=1e-4)
    np.testing.assert_array_equal(means[[0, 2, 4]], np.zeros([3, 6]))


@pytest.mark.parametrize("truncation", [0.0, 0.25, 1.0])
def test_truncation_draws_sampled_styles_towards_the_mean_of_their_grade(truncation):
    generator = make_generator(truncation=truncation)
    generator.mean_style.means.assign(np.random.default_rng(3).normal(size=[5, 6]))
    given = {**inputs(1), "grade": tf.constant([2, 0, 2, 4])}
    style = generator.mapping((given["latent"], given["grade"])).numpy()
    mean = generator.mean_style.means.numpy()[[2, 0, 2, 4]]
    styles = generator.styles(given, 1, training=False).numpy()
    for i in range(4):
        np.testing.assert_allclose(styles[:, i], mean + truncation * (style - mean), atol=1e-6)
    if truncation == 0.0:
        np.testing.assert_array_equal(styles[0], styles[2])  # one style for all of a grade
    np.testing.assert_array_equal(generator.styles(given, 1, training=True)[:, 0], style)


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
    assert [int(level.step) for level in label_gan.levels] == [2, 4, 4]
    assert float(tf.reduce_max(tf.abs(label_gan.generator.mean_style.means))) > 0.0
    pictures = {path.name.rpartition("-")[0] for path in (trained.folder / "pictures").iterdir()}
    assert pictures == {"labels_4", "labels_8", "labels_16", "translation"}
    grade, seed = tf.constant([0, 4, 4]), tf.constant([7, 7, 8], tf.int64)
    soft = label_gan({"grade": grade, "seed": seed})
    assert soft.shape == [3, 16, 16, 9]
    np.testing.assert_array_equal(soft, label_gan.levels[-1]({"grade": grade, "seed": seed}))  # α is 1 at the end
    version = ms.export(trained.model, tmp_path / "served")
    served = tf.saved_model.load(str(version)).signatures["generate"]
    answer = served(grade=grade, seed=seed)
    np.testing.assert_array_equal(answer["label_map"], trained.model.sample_labels(grade, seed))
    assert answer["image"].shape == [3, 32, 32, 3]
    alone = served(grade=grade[1:2], seed=seed[1:2])
    np.testing.assert_array_equal(alone["label_map"][0], answer["label_map"][1])
    again = ms.load(trained.folder / "model")
    np.testing.assert_array_equal(again.label_gan({"grade": grade, "seed": seed}), soft)
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


# -- settings ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 32}, r"label_generator.size = 32, doublings = 2: 'stylegan' grows from 4"),
        ({"progressive.filters": [4, 4]}, r"progressive.filters = \(4, 4\): size 16 needs 3 values"),
        ({"conditioning": "concat"}, "conditioning = 'concat': changes nothing with source 'stylegan', .* mapping network"),
        ({"batch_size": 8}, "batch_size = 8: changes nothing .* progressive.batch_sizes"),
        ({"epochs": 8}, "epochs = 8: changes nothing .* progressive.epochs"),
        ({"discriminator_filters": 4}, "discriminator_filters = 4: changes nothing with source 'stylegan'"),
        ({"spectral_norm": True}, "spectral_norm = True: changes nothing with source 'stylegan'"),
        ({"augmentation": {"enabled": True}}, "label_generator.augmentation: .* set augmentation.fixed_probability, or"),
        ({"style_gan.minibatch_group": 3}, r"batch_sizes\[0\] = 8: must be a multiple of .*minibatch_group = 3"),
        ({"style_gan.truncation": 1.5}, "truncation"),
        ({"style_gan.gradient_penalty": 0.0}, "gradient_penalty"),
        ({"source": "progan"}, "label_generator.style_gan: changes nothing while label_generator.source = 'progan'"),
        ({"source": "acgan", "progressive": {}}, "changes nothing while label_generator.source = 'acgan'"),
    ],
)
def test_settings_that_cannot_be_or_would_change_nothing_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**settings)


def test_settings_reach_the_networks():
    model = StyleLabelGAN(
        tiny(
            generator_filters=5,
            augmentation={"enabled": True, "fixed_probability": 0.5},
            **{"style_gan.mapping_layers": 3, "style_gan.mapping_learning_rate": 0.1, "style_gan.truncation": 0.7},
            **{"style_gan.minibatch_group": 2},
        )
    )
    assert [block.convolutions[-1].filters for block in model.generator.blocks] == [5, 5, 4]
    assert [entry.filters for entry in model.discriminator.entries] == [5, 5, 4]
    assert [dense.learning_rate_multiplier for dense in model.generator.mapping.dense_layers] == [0.1] * 3
    assert model.generator.truncation == 0.7
    assert model.discriminator.deviation.group_size == 2
    assert float(model.augmentation.probability) == 0.5


def test_the_optimisers_of_the_successors_profile():
    config = ms.load_config("semantic_retina", "stylegan")
    settings = config.label_generator
    assert (settings.levels, settings.size, config.label_channels) == (7, 256, 7)
    assert (settings.generator_learning_rate, settings.beta_1, settings.beta_2) == (2e-3, 0.0, 0.99)
    assert (settings.style_gan.gradient_penalty, settings.style_gan.drift) == (10.0, 1e-3)
    level = made().levels[0]
    for optimizer in (level.generator_optimizer, level.discriminator_optimizer):
        assert (float(optimizer.learning_rate), optimizer.beta_1, optimizer.beta_2) == (pytest.approx(2e-3), 0.0, 0.99)
        assert optimizer.global_clipnorm is None
