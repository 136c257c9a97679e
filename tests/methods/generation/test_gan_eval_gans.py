"""Card 10: the four GANs; items of the protocol are in test_gan_eval.py."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.cli.main import main
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.losses import adversarial
from medsynth_tf.methods.generation.gan_eval.data import augmented, batches
from medsynth_tf.methods.generation.gan_eval.model import make_discriminator, make_generator
from medsynth_tf.networks.lesion_gans import Parts, StridedDiscriminator, start_side

GANS = ("dcgan", "lsgan", "wgangp", "acgan")
TINY = {
    "image_size": 16,
    "classes": 2,
    "class_index": 1,
    "hyper": {"generator_filters": 2, "discriminator_filters": 2, "latent_size": 4},
    "fixed_samples": 4,
    "training": {"batch_size": 4, "ema_decay": None, "steps_per_epoch": None},
    "data.cache": False,
}
SOURCE = "phantom:lesion?count=40&size=16&classes=2"


def tiny(gan, **overrides):
    return ms.load_config("gan_eval", overrides={**TINY, "gan": gan, **overrides})


def created(gan, **overrides):
    model = ms.create("gan_eval", tiny(gan, **overrides))
    model.compile()
    return model


def batch_of(model):
    return next(iter(model.dataset(ms.open_source(SOURCE), model.config, "train")))


# -- settings and networks --------------------------------------------------------------------------------------------------


def test_the_gan_brings_its_row_of_table_3_and_settings_go_before_it():
    rows = {
        "dcgan": (1e-4, 1e-4, 0.5, 0.99, 3, 5, 100, "leaky_relu", "none", 0.1),
        "lsgan": (1e-4, 1e-4, 0.5, 0.99, 3, 5, 1024, "relu", "none", 0.0),
        "wgangp": (2e-4, 1e-4, 0.0, 0.90, 3, 3, 128, "leaky_relu", "generator", 0.0),
        "acgan": (2e-4, 2e-4, 0.5, 0.99, 5, 3, 110, "relu", "none", 0.0),
    }
    rates = ("generator_rate", "discriminator_rate", "beta_1", "beta_2")
    layers = (
        "generator_kernel",
        "discriminator_kernel",
        "latent_size",
        "generator_activation",
        "batch_norm",
        "label_smoothing",
    )
    for gan, row in rows.items():
        chosen = ms.load_config("gan_eval", "paper", {"gan": gan}).chosen
        assert tuple(getattr(chosen, name) for name in rates + layers) == row
    mine = ms.load_config("gan_eval", "paper", {"gan": "lsgan", "hyper.beta_1": 0.0, "hyper.latent_size": 7}).chosen
    assert (mine.beta_1, mine.latent_size, mine.beta_2) == (0.0, 7, 0.99)
    for wrong in ({"gan": "wgangp", "hyper.batch_norm": "both"}, {"gan": "lsgan", "hyper.label_smoothing": 0.1}):
        with pytest.raises(ConfigError, match=r"hyper\."):
            ms.load_config("gan_eval", "paper", wrong)
    with pytest.raises(ConfigError, match="classes are 0 … 1"):
        tiny("dcgan", class_index=2)


@pytest.mark.parametrize(
    ("gan", "generator", "discriminator"),
    [
        (
            "dcgan",
            [512, *(("T", w, 3, 2) for w in (256, 128, 64, 32)), ("C", 1, 3, 1)],
            [*(("C", w, 5, 2) for w in (64, 128, 256, 512)), 1],
        ),
        (
            "lsgan",
            [256, *(("T", w, 3, s) for w in (256, 256, 128, 64) for s in (2, 1)), ("C", 1, 3, 1)],
            [*(("C", w, 5, 2) for w in (64, 128, 256, 512)), 1],
        ),
        (
            "acgan",
            [384, *(("T", w, 5, 2) for w in (192, 96, 48, 1))],
            [*(("C", 16 * 2**i, 3, 2 - i % 2) for i in range(5)), 1, 2],
        ),
    ],
)
def test_layers_at_the_papers_size(gan, generator, discriminator):
    config = ms.load_config("gan_eval", "paper", {"gan": gan})

    def layout(network):
        found = []
        for layer in network._flatten_layers(include_self=False):
            if isinstance(layer, tf.keras.layers.Conv2D):  # transposed ones derive from it
                kind = "T" if isinstance(layer, tf.keras.layers.Conv2DTranspose) else "C"
                found.append((kind, layer.filters, layer.kernel_size[0], layer.strides[0]))
            else:
                found.append(layer.units)
        return found

    network = make_generator(config)
    size = config.chosen.latent_size + (2 if gan == "acgan" else 0)
    assert network(tf.keras.Input([size])).shape == [None, 80, 80, 1]
    assert sorted(map(str, layout(network))) == sorted(map(str, [generator[0] * 25, *generator[1:]]))
    judge = make_discriminator(config)
    judge(tf.keras.Input([80, 80, 1]))
    assert sorted(map(str, layout(judge))) == sorted(map(str, discriminator))


def test_residual_networks_at_the_papers_size():
    config = ms.load_config("gan_eval", "paper", {"gan": "wgangp"})
    generator, critic = make_generator(config), make_discriminator(config)
    assert generator(tf.keras.Input([128])).shape == [None, 80, 80, 1]
    assert critic(tf.keras.Input([80, 80, 1])).shape == [None]
    assert [layer.filters for layer in generator.second] == [512, 256, 128, 64]
    assert [critic.entry.filters, *(layer.filters for layer in critic.second)] == [64, 128, 256, 512, 512]
    assert all(norm is not None for norm in generator.norms)
    assert not any("norm" in variable.name for variable in critic.variables)

    def block(a, b):  # two 3×3 convolutions and a 1×1
        return 9 * a * b + b + 9 * b * b + b + a * b + b

    widths = [512, 512, 256, 128, 64]
    blocks = sum(block(a, b) for a, b in itertools.pairwise(widths))
    norms = 2 * (sum(a + b for a, b in itertools.pairwise(widths)) + 64)
    trainable = sum(int(np.prod(v.shape)) for v in generator.trainable_variables)
    assert trainable == 129 * 12800 + blocks + norms + 9 * 64 + 1
    widths = [64, 128, 256, 512, 512]
    expected = 9 * 64 + 64 + sum(block(a, b) for a, b in itertools.pairwise(widths)) + 25 * 512 + 1
    assert critic.count_params() == expected


def test_norms_stand_where_they_are_asked_for():
    for where, (generator, discriminator) in {"none": (0, 0), "generator": (5, 0), "both": (5, 3)}.items():
        model = created("dcgan", **{"hyper.batch_norm": where})
        assert sum(norm is not None for norm in [model.generator.first_norm, *model.generator.norms]) == generator
        assert sum(norm is not None for norm in model.discriminator.norms) == discriminator
    with pytest.raises(ValueError, match="multiple of 16"):
        start_side(40)
    with pytest.raises(ConfigError, match="multiple of 16"):
        tiny("dcgan", image_size=40)


# -- M13: losses ------------------------------------------------------------------------------------------------------------


def test_m13_losses_on_constants():
    real, fake = tf.constant([0.7, 0.7]), tf.constant([-0.3, -0.3])
    p, q = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(0.3))
    smooth = -0.9 * math.log(p) - 0.1 * math.log(1 - p) - math.log(1 - q)
    assert float(adversarial.logistic_discriminator(real, fake, 0.9)) == pytest.approx(smooth, rel=1e-6)
    assert float(adversarial.logistic_generator(fake)) == pytest.approx(-math.log(q), rel=1e-6)
    assert float(adversarial.least_squares_discriminator(real, fake)) == pytest.approx(0.5 * 0.09 + 0.5 * 0.09, rel=1e-6)
    assert float(adversarial.wasserstein_critic(real, fake)) == pytest.approx(-1.0, rel=1e-6)


@pytest.mark.parametrize("gan", GANS)
def test_m13_each_gan_has_its_own_losses(gan):
    """Networks that answer 0.7 to real images and -0.3 to synthetic ones, and 2 to 0 for class 1."""
    model = created(gan, gradient_penalty=4.0)
    batch = {"seed": tf.constant([1, 2], tf.int64), "label": tf.constant([1, 0], tf.int64)}
    real, fake = tf.ones([2, 16, 16, 1]), -tf.ones([2, 16, 16, 1])

    def judged(images, seeds, name, training):
        score = 0.2 + 0.5 * tf.reduce_mean(images, [1, 2, 3])
        return score, tf.constant([[0.0, 2.0], [0.0, 2.0]]) if gan == "acgan" else None

    model.judged = judged
    found = {name: float(value) for name, value in model.discriminator_losses(real, fake, batch, "", True).items()}
    generator = float(model.generator_loss(fake, batch, "", True))
    p, q = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(0.3))
    classes = -0.5 * (math.log(1 / (1 + math.exp(-2))) + math.log(1 / (1 + math.exp(2))))
    penalty = (0.5 / 16 - 1) ** 2  # 256 pixels, of slope 0.5/256 each
    expected = {
        "dcgan": (-0.9 * math.log(p) - 0.1 * math.log(1 - p) - math.log(1 - q), -math.log(q)),
        "lsgan": (0.5 * 0.09 + 0.5 * 0.09, 0.5 * 1.69),
        "wgangp": (-1.0 + 4.0 * penalty, 0.3),
        "acgan": (-math.log(p) - math.log(1 - q) + 2 * classes, -math.log(q) + classes),
    }[gan]
    assert (found["discriminator"], generator) == pytest.approx(expected, rel=1e-4)
    if gan == "wgangp":
        assert found["gradient_penalty"] == pytest.approx(penalty, rel=1e-4)


def test_m13_gradient_penalty_of_a_linear_critic():
    rng = np.random.default_rng(0)
    weights = tf.Variable(rng.normal(0, 0.4, [12, 1]), dtype=tf.float32)
    real, fake = (tf.constant(rng.normal(size=[5, 3, 4]), tf.float32) for _ in range(2))

    def critic(x):
        return tf.matmul(tf.reshape(x, [-1, 12]), weights)[:, 0]

    norm = np.linalg.norm(weights)
    with tf.GradientTape() as tape:
        penalty = adversarial.gradient_penalty(critic, real, fake, tf.constant([0.0, 0.3, 0.5, 0.9, 1.0]))
    assert 10 * float(penalty) == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5)
    np.testing.assert_allclose(tape.gradient(penalty, weights), 2 * (norm - 1) * weights / norm, rtol=1e-4)


def test_m13_gradient_penalty_is_taken_between_real_and_fake():
    real, fake = tf.constant([[3.0], [3.0]]), tf.constant([[1.0], [1.0]])
    found = adversarial.gradient_penalty(lambda x: tf.reduce_sum(x**2, -1), real, fake, tf.constant([1.0, 0.25]))
    assert float(found) == pytest.approx(((2 * 3 - 1) ** 2 + (2 * 1.5 - 1) ** 2) / 2)
    flat = adversarial.gradient_penalty(lambda x: tf.reduce_sum(0.0 * x, -1), real, fake, tf.constant([1.0, 0.0]))
    assert float(flat) == pytest.approx(1.0, rel=1e-5)


# -- M14: updates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gan", "steps"), [("lsgan", 2), ("acgan", 3)])
def test_m14_updates_are_counted_and_each_moves_its_own_player(gan, steps):
    model = created(gan, discriminator_steps=steps)
    networks = {"generator": model.generator, "discriminator": model.discriminator}
    moved = []
    original = model.apply

    def spy(optimizer, gradients, variables):
        before = {name: [v.numpy() for v in network.trainable_variables] for name, network in networks.items()}
        assert all(gradient is not None for gradient in gradients)
        original(optimizer, gradients, variables)
        moved.append(
            tuple(
                name
                for name, network in networks.items()
                if any(not np.array_equal(v, b) for v, b in zip(network.trainable_variables, before[name]))
            )
        )

    model.apply = spy
    model.train_step(batch_of(model))
    assert moved == [("discriminator",)] * steps + [("generator",)]
    assert int(model.discriminator_optimizer.iterations) == steps
    assert int(model.generator_optimizer.iterations) == 1


def test_m14_the_class_head_learns_from_real_and_from_synthetic_images():
    model = created("acgan")
    batch = batch_of(model)
    real = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
    head = model.discriminator.classifier.kernel
    for part in ("class_real", "class_fake"):
        with tf.GradientTape() as tape:
            fake = model.synthesize(batch["seed"], batch["label"])
            losses = model.discriminator_losses(real, fake, batch, "", training=True)
        assert float(tf.norm(tape.gradient(losses[part], head))) > 1e-6
    losses = model.discriminator_losses(real, fake, batch, "", training=False)
    on_real, on_fake = (model.judged(images, batch["seed"], "", training=False)[0] for images in (real, fake))
    source = adversarial.logistic_discriminator(on_real, on_fake)
    assert float(losses["discriminator"]) == pytest.approx(
        float(source + losses["class_real"] + losses["class_fake"]), rel=1e-5
    )


def test_m14_synthetic_images_of_each_update_are_new():
    model = created("dcgan")
    names = []
    original = model.synthesize

    def spy(seeds, labels, name="latent", training=False):
        names.append(name)
        return original(seeds, labels, name, training)

    model.synthesize = spy
    model.train_step(batch_of(model))
    assert len(set(names)) == len(names) == 3
    seeds = tf.constant([1, 2], tf.int64)
    assert len({model.latent(seeds, name).numpy().tobytes() for name in names}) == 3


def test_dropout_is_of_the_sample_and_of_training_alone():
    model = created("acgan")
    images = tf.random.stateless_uniform([2, 16, 16, 1], [1, 2])
    seeds = tf.constant([5, 6], tf.int64)
    together = model.judged(images, seeds, "a", training=True)[0]
    alone = model.judged(images[1:], seeds[1:], "a", training=True)[0]
    np.testing.assert_allclose(together[1:], alone, rtol=1e-4, atol=1e-6)
    assert not np.allclose(together, model.judged(images, seeds, "b", training=True)[0])
    plain = model.judged(images, seeds, "a", training=False)[0]
    np.testing.assert_array_equal(plain, model.discriminator(images)[0])
    assert not np.allclose(together, plain)


# -- data -------------------------------------------------------------------------------------------------------------------


def test_unconditional_gans_see_one_class_and_acgan_all():
    source = ms.open_source(SOURCE)
    for gan, expected in (("dcgan", {1}), ("acgan", {0, 1})):
        config = tiny(gan)
        labels = {int(label) for batch in batches(source, config, "train", 0, 0, 1, True) for label in batch["label"]}
        assert labels == expected
    with pytest.raises(DataError, match="has label 1: gan_eval needs 0 … 0|needs 0 …"):
        next(iter(batches(ms.open_source("phantom:graded_lesions?count=12&size=32"), tiny("dcgan"), "train", 0, 0, 1, True)))
    one = tiny("dcgan", classes=1, class_index=0)
    assert {int(v) for batch in batches(source, one, "train", 0, 0, 1, True) for v in batch["label"]} == {0}
    with pytest.raises(DataError, match="less than a batch"):
        ms.create("gan_eval", tiny("dcgan", **{"training.batch_size": 64})).stages(source)


def test_augmentation_turns_moves_and_flips_by_the_sample():
    config = tiny("dcgan", **{"augmentation": {"rotation": 0.0, "shift": 0.0}, "data.flip_vertical": True})
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, [1, 16, 16, 1]).astype(np.uint8)
    images, seeds = np.repeat(image, 32, 0), tf.range(32, dtype=tf.int64)
    flips = {(r, c): image[0, ::r, ::c].tobytes() for r in (1, -1) for c in (1, -1)}
    found = {each.tobytes() for each in augmented(images, seeds, config).numpy()}
    assert found == set(flips.values())
    still = config.replace({"data.flip_horizontal": False, "data.flip_vertical": False})
    np.testing.assert_array_equal(augmented(images, seeds, still), images)
    dot = np.zeros([64, 16, 16, 1], np.uint8)
    dot[:, 7:9, 7:9] = 255
    moved = augmented(dot, tf.range(64, dtype=tf.int64), still.replace({"augmentation.shift": 3.0})).numpy().astype(float)
    rows = (moved[..., 0].sum(2) @ np.arange(16)) / moved[..., 0].sum((1, 2)) - 7.5
    assert 2.2 < np.abs(rows).max() <= 3.1
    bar = np.zeros([64, 16, 16, 1], np.uint8)
    bar[:, 2:14, 7:9] = 200
    turned = augmented(bar, tf.range(64, dtype=tf.int64), still.replace({"augmentation.rotation": 175.0})).numpy()
    assert len({each.tobytes() for each in turned}) == 64
    np.testing.assert_allclose(turned.sum((1, 2, 3)) / bar[0].sum(), 1.0, atol=0.08)
    alone = augmented(bar[:1], tf.constant([7], tf.int64), still.replace({"augmentation.rotation": 175.0}))
    np.testing.assert_array_equal(alone[0], turned[7])


def test_hounsfield_units_are_windowed_and_pixels_outside_the_region_are_0():
    source = ms.open_source("phantom:thorax_ct?count=12&size=32")
    changes = {"classes": 1, "class_index": 0, "image_size": 32, "intensity.window": [-1000.0, 400.0]}
    plain = next(iter(batches(source, tiny("dcgan", **changes), "train", 0, 0, 1, False)))["image"].numpy()
    key = source.split("train", tiny("dcgan").data.split_fractions, 0)[0]
    record = source.read(key)
    expected = np.rint(255 * np.clip((record["image"].astype(float) + 1000) / 1400, 0, 1))
    np.testing.assert_allclose(plain[0], expected, atol=1)
    region = next(iter(batches(source, tiny("dcgan", **changes, **{"intensity.roi": True}), "train", 0, 0, 1, False)))["image"]
    inside = (record["mask"] > 0) & (record["mask"] != 255)
    np.testing.assert_array_equal(region[0, ..., 0], np.where(inside, plain[0, ..., 0], 0))
    larger = next(
        iter(batches(source, tiny("dcgan", **{**changes, "image_size": 48, "intensity.fit": "pad"}), "train", 0, 0, 1, False))
    )
    np.testing.assert_array_equal(larger["image"][0, 8:40, 8:40], plain[0])
    assert int(tf.reduce_max(larger["image"][0, :8])) == 0


# -- serving and the command ------------------------------------------------------------------------------------------------


def test_a_class_that_was_not_learnt_is_refused_in_words():
    for gan, wrong, words in (("dcgan", 0, "trained on class 1 alone"), ("acgan", 2, "classes are 0, 1")):
        signature = created(gan).signatures()["serving_default"]
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            signature(seed=tf.constant([1, 2], tf.int64), label=tf.constant([1, wrong], tf.int64))
        with pytest.raises(tf.errors.InvalidArgumentError, match="differ in batch size"):
            signature(seed=tf.constant([1, 2], tf.int64), label=tf.constant([1], tf.int64))
        image = signature(seed=tf.constant([1, 2], tf.int64), label=tf.constant([1, 1], tf.int64))["image"]
        assert image.dtype == tf.uint8
        assert not np.array_equal(image[0], image[1])
    only = created("dcgan", classes=1, class_index=0)
    assert set(only.example_inputs()["serving_default"]) == {"seed"}
    assert only.signatures()["serving_default"](seed=tf.constant([3], tf.int64))["image"].shape == [1, 16, 16, 1]


def test_acgan_draws_the_class_that_is_asked_for():
    model = created("acgan")
    seeds = tf.constant([1], tf.int64)
    zero, one = (model({"seed": seeds, "label": tf.constant([label], tf.int64)}) for label in (0, 1))
    assert not np.allclose(zero, one)
    unconditional = created("lsgan")
    zero, one = (unconditional({"seed": seeds, "label": tf.constant([label], tf.int64)}) for label in (0, 1))
    np.testing.assert_array_equal(zero, one)


def test_the_command_compares_models_and_files(tmp_path, capsys):
    acgan = ms.create("gan_eval", tiny("acgan", **{"image_size": 32, "data.split_fractions": [0.6, 0.0, 0.4]}))
    acgan.compile()
    acgan.save(tmp_path / "acgan")
    version = ms.export(acgan, tmp_path / "served")
    source = "phantom:lesion?count=40&size=32&classes=2"
    np.save(tmp_path / "files.npy", np.random.default_rng(0).random([24, 32, 32, 1]))
    quick = {
        "image_size": 32,
        "protocol.runs": 1,
        "protocol.evaluator": "{width: 2, features: 4, epochs: 1}",
        "protocol.structure": "{scales: 1, queries: 4, mosaic: 2}",
        "protocol.classifiers": "false",
        "data.split_fractions": "[0.6, 0.0, 0.4]",
    }
    models = [f"--model=net={tmp_path / 'acgan'}", f"--model=served={version}", f"--model=files={tmp_path / 'files.npy'}"]
    settings = [f"--set={name}={value}" for name, value in quick.items()]
    arguments = ["evaluate", "--protocol=gan_eval", f"--data={source}", f"--out={tmp_path / 'report'}"]
    assert main([*arguments, *models, *settings]) == 0
    shown = capsys.readouterr().out
    assert "net" in shown
    assert "class_1" in shown
    with (tmp_path / "report" / "scores.csv").open() as file:
        assert len(file.readlines()) == 1 + 2 * 3
    leaking = [*settings, "--set=seed=7"]
    assert main([*arguments, models[0], *leaking]) == 3
    assert "was trained on" in capsys.readouterr().err
    assert main([*arguments, models[0], *settings, "--set=channels=3"]) == 3
    assert "set image_size=32 and channels=1" in capsys.readouterr().err
    assert main([*arguments, *settings]) == 2
    assert "--model NAME=PATH" in capsys.readouterr().err
    assert main(["evaluate", f"--data={source}", "--out=x"]) == 2
    assert "give one model's folder" in capsys.readouterr().err
    assert main([*arguments, models[0], models[0], *settings]) == 2
    assert "named twice" in capsys.readouterr().err


def test_discriminators_are_leaky():
    judge = StridedDiscriminator((1,), Parts(3, "n002", "leaky_relu", False, 0))
    judge(tf.zeros([1, 16, 16, 1]))
    judge.convolutions[0].kernel.assign(-tf.ones_like(judge.convolutions[0].kernel))
    judge.score.kernel.assign(tf.ones_like(judge.score.kernel))
    ones = tf.ones([1, 16, 16, 1])
    linear = float(tf.reduce_sum(judge.convolutions[0](ones)))
    assert linear < 0
    assert float(judge(ones)[0]) == pytest.approx(0.2 * linear, rel=1e-5)
