"""Card 29, variant: label maps by a conditional StyleGAN that grows from 4×4."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.methods.translation.semantic_retina.style_model import StyleLabelGAN
from medsynth_tf.methods.translation.semantic_retina.style_networks import (
    StyleEpilogue,
    StyleLabelDiscriminator,
    StyleLabelGenerator,
    StyleMapping,
    noise_sizes,
)
from medsynth_tf.ops.resize import downsample_average
from tests.methods.translation.test_semantic_retina_progressive import TINY, enlarged

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
