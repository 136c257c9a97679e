"""Card 29: the items of stage 1 (label maps by grade), each by its number."""

import json
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.layers.adaptive_augmentation import AdaptiveAugmentation
from medsynth_tf.losses.adversarial import hinge_discriminator, hinge_generator
from medsynth_tf.methods.translation.semantic_retina.config import LESION_LABELS
from medsynth_tf.methods.translation.semantic_retina.data import label_batches
from medsynth_tf.methods.translation.semantic_retina.grading import make_grading
from medsynth_tf.methods.translation.semantic_retina.label_model import LabelGAN
from medsynth_tf.methods.translation.semantic_retina.label_networks import LabelDiscriminator, LabelGenerator
from medsynth_tf.methods.translation.semantic_retina.sampling import copy_paste, disc
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.ops import labels
from medsynth_tf.ops.affine import affine, quarter_turns

TINY = {
    "image_size": 64,
    "labels": LESION_LABELS,
    "generator": {"filters": 2, "hidden_filters": 4},
    "style": {"size": 4, "filters": 2},
    "discriminator": {"filters": 4},
    "training": {"batch_size": 2},
    "label_generator": {
        "enabled": True,
        "size": 64,
        "doublings": 4,
        "generator_filters": 32,
        "discriminator_filters": 2,
        "batch_size": 4,
    },
}
SOURCE = "phantom:fundus?count=12&size=64"


def tiny(**settings):
    overrides = {f"label_generator.{name}": value for name, value in settings.items()}
    return ms.load_config("semantic_retina", overrides=TINY).replace(overrides)


def planes(count=3, size=16, channels=9, seed=0):
    codes = np.random.default_rng(seed).integers(channels, size=[count, size, size])
    return tf.one_hot(codes, channels)


def batch(config, count=4):
    maps = np.random.default_rng(1).integers(len(config.labels), size=[count, 64, 64]).astype(np.uint8)
    return {"label_map": maps, "grade": tf.range(count) % 5, "seed": tf.range(count, dtype=tf.int64)}


# -- M2, M3 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("conditioning", ["multiply", "concat"])
def test_m2_maps_are_probabilities_that_the_grade_changes(size, conditioning):
    generator = LabelGenerator(size, 5, filters=32, conditioning=conditioning, seed=1)
    latent = tf.repeat(tf.random.stateless_normal([1, 128], [0, 1]), 2, 0)
    maps = generator({"latent": latent, "grade": tf.constant([0, 3])})
    assert maps.shape == [2, size, size, 5]
    assert float(tf.reduce_min(maps)) >= 0.0
    np.testing.assert_allclose(tf.reduce_sum(maps, -1), np.ones([2, size, size]), atol=1e-5)
    assert float(tf.reduce_max(tf.abs(maps[0] - maps[1]))) > 0.0


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def test_m3_capacities_are_imbalanced_as_in_the_authors_code():
    generator, discriminator = LabelGenerator(256, 9), LabelDiscriminator()
    generator({"latent": tf.keras.Input([128]), "grade": tf.keras.Input([], dtype=tf.int32)})
    discriminator(tf.keras.Input([256, 256, 9]))
    convolutions = [v for layer in (*generator.convolutions, generator.to_classes) for v in layer.weights]
    assert count(generator.embedding.weights) == 640
    assert count(generator.dense.weights) == 1_056_768
    assert count(convolutions) == 1_573_867
    assert count(v for norm in generator.norms for v in norm.trainable_variables) == 1_010
    assert count(generator.trainable_variables) == 2_632_285
    assert count(v for layer in discriminator.convolutions for v in layer.weights) == 246_024
    assert count(v for norm in discriminator.norms for v in norm.trainable_variables) == 752
    assert count(discriminator.score.weights + discriminator.grade.weights) == 12_294
    assert count(discriminator.trainable_variables) == 259_070


def test_the_discriminator_with_spectral_norm_bounds_its_kernels():
    discriminator = LabelDiscriminator(filters=2, spectral_norm=True)
    for _ in range(60):
        discriminator(planes(size=64), training=True)
    kernel = discriminator.convolutions[2].normalised_kernel().numpy()
    assert np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0] == pytest.approx(1.0, abs=0.02)


# -- M4, M5 -----------------------------------------------------------------------------------------------------------------


def test_m4_without_probability_nothing_changes():
    images, seeds = planes(), tf.range(3, dtype=tf.int64)
    np.testing.assert_array_equal(AdaptiveAugmentation()(images, seeds), images)


def test_m4_geometry_keeps_one_hot_sums_and_noise_has_the_probability_as_its_deviation():
    images, seeds = planes(64), tf.range(64, dtype=tf.int64)
    background = [0.0] * 8 + [1.0]
    layer = AdaptiveAugmentation(background, fixed_probability=0.8)
    changed = layer(images, seeds).numpy()
    sums = changed.sum(-1) - 1.0
    noisy = np.abs(sums).max((1, 2)) > 1e-3
    np.testing.assert_allclose(sums[~noisy], 0.0, atol=1e-5)
    assert 0.6 < noisy.mean() < 0.95
    assert sums[noisy].std() == pytest.approx(0.8 * np.sqrt(9), rel=0.05)  # nine independent channels add up
    same = (changed == images.numpy()).all((1, 2, 3))
    assert same.mean() < 0.1
    np.testing.assert_array_equal(layer(images[5:6], seeds[5:6])[0], changed[5])  # a sample's change is its own


def test_m4_probability_moves_by_the_sign_of_the_overfitting_within_its_bounds():
    layer = AdaptiveAugmentation(target=0.5)
    seen = []
    for scores in ([1.0, 1.0, 1.0, -1.0], [2.0, 1.0, 3.0, 0.1], [-1.0, 1.0, 1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]):
        layer.update(tf.constant(scores))
        seen.append(float(layer.probability))
    # r = 0.5 is not above 0.5; then 1; then 0; the last would fall below zero
    np.testing.assert_allclose(seen, [0.0, 0.01, 0.0, 0.0, 0.0], atol=1e-7)
    for _ in range(100):
        layer.update(tf.ones([2]))
    assert float(layer.probability) == pytest.approx(0.85)
    fixed = AdaptiveAugmentation(fixed_probability=0.3)
    fixed.update(tf.ones([2]))
    assert float(fixed.probability) == pytest.approx(0.3)


def test_m4_gradients_reach_the_fake():
    layer = AdaptiveAugmentation([0.0] * 9, fixed_probability=1.0)
    images = planes(2)
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(layer(images, tf.constant([3, 4], tf.int64)) * tf.range(9.0))
    gradient = tape.gradient(loss, images)
    assert (np.abs(gradient).max((1, 2, 3)) > 1).all()


def test_m5_quarter_turns_are_those_of_numpy_and_four_are_none():
    images = tf.random.stateless_normal([4, 6, 6, 2], [0, 1])
    turned = quarter_turns(images, tf.range(4))
    for k in range(4):
        np.testing.assert_array_equal(turned[k], np.rot90(images[k], k))
    once = images
    for _ in range(4):
        once = quarter_turns(once, tf.ones([4], tf.int32))
    np.testing.assert_array_equal(once, images)


def test_m5_affine_maps_fill_with_the_background_and_place_pixels_where_they_should():
    images = planes(1, 8, 3)
    still = affine(images, tf.zeros([1]), tf.zeros([1, 2]), tf.ones([1]), [0.0, 0.0, 1.0])
    np.testing.assert_allclose(still, images, atol=1e-6)
    shifted = affine(images, tf.zeros([1]), tf.constant([[0.25, -0.5]]), tf.ones([1]), [0.0, 0.0, 1.0]).numpy()[0]
    np.testing.assert_allclose(shifted[2:, :4], images[0, :6, 4:], atol=1e-6)
    np.testing.assert_allclose(shifted[:2], np.broadcast_to([0.0, 0.0, 1.0], [2, 8, 3]), atol=1e-6)
    np.testing.assert_allclose(shifted[:, 4:], np.broadcast_to([0.0, 0.0, 1.0], [8, 4, 3]), atol=1e-6)
    turned = affine(images, tf.constant([np.pi / 2]), tf.zeros([1, 2]), tf.ones([1]), [0.0, 0.0, 1.0]).numpy()[0]
    assert any(np.allclose(turned, np.rot90(images[0], k), atol=1e-4) for k in (1, 3))
    point = np.zeros([1, 9, 9, 1], np.float32)
    point[0, 4, 6] = 1.0  # two to the right of the centre: enlarged twice, four
    enlarged = affine(tf.constant(point), tf.zeros([1]), tf.zeros([1, 2]), tf.constant([2.0])).numpy()[0, ..., 0]
    assert np.unravel_index(enlarged.argmax(), [9, 9]) == (4, 8)


# -- M6, M7, M8 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("critic", "generator"), [(1, 2), (3, 1)])
def test_m6_steps_are_counted_and_each_has_noise_and_grades_of_its_own(critic, generator):
    config = tiny(discriminator_steps=critic, generator_steps=generator)
    model = LabelGAN(config)
    model.compile()
    drawn = []
    fake = LabelGAN.fake

    def spy(self, seeds, use):
        answer = fake(self, seeds, use)
        drawn.append((answer["planes"].numpy(), answer["grade"].numpy()))
        return answer

    with mock.patch.object(LabelGAN, "fake", spy):
        model.train_step(batch(config, 8))
    assert int(model.discriminator_optimizer.iterations) == critic
    assert int(model.generator_optimizer.iterations) == generator
    assert len(drawn) == critic + generator
    assert len({planes.tobytes() for planes, _ in drawn}) == len(drawn)
    assert len({grades.tobytes() for _, grades in drawn}) == len(drawn)
    assert set(np.concatenate([grades for _, grades in drawn])) <= set(range(5))


def test_m7_hinge_values():
    assert float(hinge_discriminator(tf.constant([2.0]), tf.constant([-2.0]))) == 0.0
    assert float(hinge_discriminator(tf.constant([0.0]), tf.constant([0.0]))) == 2.0
    assert float(hinge_generator(tf.constant([1.0, 4.0]))) == -2.5


def test_m7_the_discriminators_objective_classifies_real_and_fake():
    config = tiny()
    config = config.replace({"label_generator.augmentation.enabled": False})
    model = LabelGAN(config)
    model.compile()
    data = batch(config, 8)
    real = labels.one_hot(data["label_map"], 9)
    fake = model.fake(data["seed"], "once")
    on_real, on_fake = (model.discriminator(x, training=True) for x in (real, fake["planes"]))

    def cross_entropy(logits, grade):
        logits = logits.numpy().astype(np.float64)
        return (np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(logits)), np.asarray(grade)]).mean()

    with mock.patch.object(LabelGAN, "fake", return_value=fake):
        losses = model.discriminator_step(real, data["grade"], data["seed"], "once")
    assert float(losses["class_real"]) == pytest.approx(cross_entropy(on_real["grade"], data["grade"]), rel=1e-5)
    assert float(losses["class_fake"]) == pytest.approx(cross_entropy(on_fake["grade"], fake["grade"]), rel=1e-5)
    hinge = np.maximum(0, 1 - on_real["score"]).mean() + np.maximum(0, 1 + on_fake["score"]).mean()
    assert float(losses["discriminator"]) == pytest.approx(hinge, rel=1e-5)


def test_m7_each_player_moves_alone_and_the_generator_feels_the_class_term():
    moved = {}
    for weight in (0.0, 1.0):
        config = tiny(generator_class_loss=weight)
        model = LabelGAN(config)
        model.compile()
        data = batch(config)
        before = [v.numpy() for v in model.discriminator.trainable_variables]
        model.generator_step(data["seed"], "g")
        assert all(np.array_equal(v, b) for v, b in zip(model.discriminator.trainable_variables, before))
        moved[weight] = model.generator_optimizer.variables[1].numpy()  # first moment, of the embedding
        before = [v.numpy() for v in model.generator.trainable_variables]
        model.discriminator_step(labels.one_hot(data["label_map"], 9), data["grade"], data["seed"], "d")
        assert all(np.array_equal(v, b) for v, b in zip(model.generator.trainable_variables, before))
    assert not np.allclose(moved[0.0], moved[1.0], rtol=1e-2)


def test_m8_the_discriminators_gradient_is_clipped():
    config = tiny(discriminator_clip_norm=0.01)
    model = LabelGAN(config)
    model.compile()
    data = batch(config)
    model.discriminator_step(labels.one_hot(data["label_map"], 9), data["grade"], data["seed"], "d")
    # after one step Adam's first moment is (1 - β₁) times the gradient it was given
    moments = [v.numpy() for v in model.discriminator_optimizer._momentums]
    norm = np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in moments)) / 0.5
    assert norm == pytest.approx(0.01, rel=1e-3)


# -- M14 --------------------------------------------------------------------------------------------------------------------


def test_m14_each_class_comes_from_one_map_of_the_grade_asked_for():
    rng = np.random.default_rng(0)
    maps = np.where(rng.random([12, 32, 32]) < 0.5, rng.integers(1, 5, [12, 32, 32]), 0).astype(np.uint8)
    maps[:, :, 0] = 255
    grades = np.arange(12) % 3
    order = (4, 2, 1, 3)
    sources = set()
    for seed in range(6):
        made = copy_paste(maps, grades, 1, order, seed)
        covered = np.zeros_like(made, bool)
        for code in reversed(order):  # the last painted is whole, the others but for what covers them
            matches = [i for i in np.flatnonzero(grades == 1) if np.array_equal((maps[i] == code) & ~covered, made == code)]
            assert len(matches) == 1
            sources.add((code, matches[0]))
            covered |= made == code
        np.testing.assert_array_equal(made[~covered], np.where(disc(32), 0, 255)[~covered])
    assert len(sources) > 8  # of 16: sources are drawn anew for each class
    with pytest.raises(DataError, match="none of the 12 label maps has grade 7"):
        copy_paste(maps, grades, 7, order, 0)


# -- M18 and the data of stage 1 --------------------------------------------------------------------------------------------


def test_m18_grades_come_from_the_records_from_chance_or_from_a_classifier(tmp_path):
    source = ms.open_source(SOURCE)
    given = next(iter(label_batches(source, tiny(batch_size=12), "all", 0, 0, 1, False)))
    np.testing.assert_array_equal(given["grade"], [key.label for key in source.keys()])
    assert given["label_map"].shape == [12, 64, 64]
    random = make_grading(tiny(grading="random"))({"seed": tf.range(2000, dtype=tf.int64)}).numpy()
    np.testing.assert_allclose(np.bincount(random, minlength=5) / 2000, 0.2, atol=0.03)
    images = tf.random.stateless_uniform([4, 32, 32, 3], [0, 1], 0, 256, tf.int32)
    data = {"image": tf.cast(images, tf.uint8), "label_map": tf.constant(np.arange(4 * 64).reshape(4, 8, 8) % 8, tf.uint8)}
    for how, channels in (("image_model", 3), ("label_model", 9)):
        classifier = ImageClassifier("small", 5, channels=channels, seed=3)
        classifier.save_weights(tmp_path / how)
        grading = make_grading(tiny(grading=how, grading_weights=str(tmp_path / how), grading_backbone="small"))
        inputs = tf.cast(data["image"], tf.float32) / 127.5 - 1.0 if channels == 3 else labels.one_hot(data["label_map"], 9)
        np.testing.assert_array_equal(grading(data), classifier(inputs)["logits"].numpy().argmax(-1))
    with pytest.raises(ConfigError, match="not those of the classifier"):
        make_grading(tiny(grading="image_model", grading_weights=str(tmp_path / "label_model"), grading_backbone="small"))
    with pytest.raises(ConfigError, match="there is no file"):
        make_grading(tiny(grading="image_model", grading_weights=str(tmp_path / "absent")))
    with pytest.raises(ConfigError, match="needs weights"):
        tiny(grading="image_model")


def test_records_without_grades_are_refused_in_words(tmp_path):
    from PIL import Image

    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for i in range(5):
        Image.fromarray(np.full([64, 64, 3], 90, np.uint8)).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(np.zeros([64, 64], np.uint8)).save(tmp_path / "masks" / f"{i}.png")
    with pytest.raises(DataError, match="records have no label"):
        label_batches(ms.open_source(f"folder:{tmp_path}"), tiny(), "all", 0, 0, 1, False)


def test_both_stages_train_export_and_answer(tmp_path):
    config = tiny(epochs=1, steps_per_epoch=2).replace({"training.epochs": 1, "training.steps_per_epoch": 1})
    source = ms.open_source(SOURCE)
    model = ms.create("semantic_retina", config)
    model.compile()
    stages = model.stages(source)
    assert [stage.name for stage in stages] == ["labels", "translation"]
    for stage in stages:
        stage.model.fit(stage.batches(0), epochs=1, steps_per_epoch=stage.steps_per_epoch, verbose=0)
    assert int(model.label_gan.generator_optimizer.iterations) == 4
    version = ms.export(model, tmp_path / "served")
    loaded = tf.saved_model.load(str(version)).signatures["generate"]
    grade, seed = tf.constant([0, 4, 4]), tf.constant([7, 7, 8], tf.int64)
    answer = loaded(grade=grade, seed=seed)
    assert answer["image"].shape == [3, 64, 64, 3]
    alone = loaded(grade=grade[1:2], seed=seed[1:2])
    np.testing.assert_array_equal(alone["label_map"][0], answer["label_map"][1])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be 0 … 4"):
        loaded(grade=tf.constant([5]), seed=seed[:1])
    pictures = model.preview_labels(next(iter(stages[0].batches(0))))
    assert pictures["sampled"].shape == pictures["real"].shape == [4, 64, 64, 1]
    model.save(tmp_path / "saved")
    again = ms.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.sample_labels(grade, seed), model.sample_labels(grade, seed))


MIRRORED = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from medsynth_tf.methods.translation.semantic_retina.label_model import LabelGAN
from tests.methods.translation.test_semantic_retina_labels import batch, tiny
strategies = {"one": tf.distribute.OneDeviceStrategy("CPU:0"), "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])}
config = tiny(augmentation={"target": -1.0})
for name, strategy in strategies.items():
    with strategy.scope():
        model = LabelGAN(config)
        model.compile()
        for player in ("generator", "discriminator"):  # Adam turns rounding of tiny gradients into whole steps
            optimizer = tf.keras.optimizers.SGD(0.05)
            optimizer.build(getattr(model, player).trainable_variables)
            setattr(model, player + "_optimizer", optimizer)
    data = tf.data.Dataset.from_tensor_slices(batch(config, 8)).batch(8).repeat()
    history = model.fit(data, epochs=1, steps_per_epoch=1, verbose=0).history
    print(json.dumps({"losses": history, "probability": float(model.augmentation.probability.numpy())}))
"""


def test_both_label_learning_rates_fall_over_the_last_epochs():
    config = tiny(epochs=4, decay_epochs=2, steps_per_epoch=1, generator_learning_rate=3e-4, discriminator_learning_rate=6e-4)
    model = ms.create("semantic_retina", config)
    model.compile()
    stage = model.stages(ms.open_source(SOURCE))[0]
    rates = []
    for epoch in range(4):
        for callback in stage.callbacks:
            callback.on_epoch_begin(epoch)
        players = (model.label_gan.generator_optimizer, model.label_gan.discriminator_optimizer)
        rates.append([float(player.learning_rate) for player in players])
    np.testing.assert_allclose(rates, [[3e-4, 6e-4], [3e-4, 6e-4], [2e-4, 4e-4], [1e-4, 2e-4]], rtol=1e-6)
    constant = ms.create("semantic_retina", tiny(epochs=4))
    constant.compile()
    assert constant.stages(ms.open_source(SOURCE))[0].callbacks == []
    with pytest.raises(ConfigError, match=r"label_generator.decay_epochs = 5: more than label_generator.epochs = 4"):
        tiny(epochs=4, decay_epochs=5)


def test_a_discriminator_that_ends_in_one_pixel_is_refused():
    with pytest.raises(ConfigError, match=r"must be a multiple of 2\^doublings = 64, and at least twice that"):
        tiny(doublings=6)
    # what it would do: batch norm leaves the same mean and deviation in every channel, whatever the batch
    discriminator = LabelDiscriminator(filters=2, halvings=6)
    noise = tf.random.stateless_uniform([64, 64, 64, 4], [1, 2])
    discriminator(noise, training=True)
    ends = []
    for batch in (noise, 0.2 * noise + 0.4):
        x = batch
        for convolution in discriminator.convolutions[:-1]:
            x = tf.nn.leaky_relu(convolution(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])), 0.2)
        x = discriminator.convolutions[-1](tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]))
        ends.append(discriminator.norms[-1](1e6 * x, training=True)[:, 0, 0])
    first, second = (tf.reduce_mean(end, 0).numpy() for end in ends)
    np.testing.assert_allclose(first, second, atol=1e-3)


@pytest.mark.slow
def test_two_replicas_compute_what_one_does():
    """In the first step: one discriminator step, and two of the generator, the second of which feels the first.

    Not in the ones after it: two players and batch norm over eight maps make this tiny GAN chaotic. On one device, weights that differ
    by 1e-7 of themselves give losses that differ by 0.06 at the second step and 0.8 at the third, more than two replicas do.
    """
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads(line) for line in done.stdout.strip().splitlines()[-2:])
    assert one["losses"].keys() == two["losses"].keys()
    for name, values in one["losses"].items():
        np.testing.assert_allclose(two["losses"][name], values, atol=1e-4, err_msg=name)
    assert one["probability"] == pytest.approx(0.01)
    assert two["probability"] == pytest.approx(0.01)
