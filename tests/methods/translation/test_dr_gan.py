"""Card 31: the items, each by its number. Attention (M4 to M6) is in test_dr_gan_attention.py; masks, editing
and metrics (M14 to M16) are in test_dr_gan_masks.py."""

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.layers.adaptive_normalization import AdaptiveInstanceNormalization
from medsynth_tf.losses.classification import cross_entropy, focal_loss
from medsynth_tf.losses.feature_distance import mean_absolute_distance, root_mean_square_distance
from medsynth_tf.methods.translation.dr_gan.config import SCALES
from medsynth_tf.methods.translation.dr_gan.grading import GradeGaussians
from medsynth_tf.methods.translation.dr_gan.networks import (
    CoarseGenerator,
    DiscriminatorPyramid,
    FineGenerator,
    GradedDiscriminator,
    SynthesisBlock,
    plane_pyramid,
)
from tests.methods.tiny import TINY

SOURCE = "phantom:graded_lesions?count=11&size=32"


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, len(shape)])


def randomised(layer, seed=0, scale=0.5):
    """Random weights everywhere, so that nothing hides behind a zero."""
    for index, weight in enumerate(layer.trainable_variables):
        weight.assign(weight + scale * tf.random.stateless_normal(weight.shape, [seed, index]))
    return layer


def tiny(**overrides):
    return ms.load_config("dr_gan", overrides={**TINY["dr_gan"][0], **overrides})


def create(**overrides):
    return ms.create("dr_gan", tiny(**overrides))


@pytest.fixture(scope="module")
def model():
    return create()


@pytest.fixture(scope="module")
def batch():
    config = tiny()
    return next(iter(ms.create("dr_gan", config).dataset(ms.open_source(SOURCE), config, "train", epochs=None)))


# -- adaptive normalisation ---------------------------------------------------------------------------------------------------


def adain_with_style(channels=5):
    layer, style = AdaptiveInstanceNormalization(), normal(3, 4, seed=1)
    layer.build(([None, 8, 8, channels], [None, 4]))
    return randomised(layer), style


def test_m1_adain_sets_mean_and_deviation_of_every_channel_whatever_the_input():
    layer, style = adain_with_style()
    x = normal(3, 8, 8, 5) * tf.constant([1.0, 30.0, 0.05, 2.0, 400.0]) + tf.constant([0.0, -50.0, 3.0, 1e3, 0.1])
    gamma, beta = np.split(layer.affine(style).numpy(), 2, -1)
    y = layer((x, style)).numpy()
    np.testing.assert_allclose(y.mean((1, 2)), beta, atol=1e-3)
    np.testing.assert_allclose(y.std((1, 2)), np.abs(1 + gamma), atol=1e-3)
    scaled = layer((x * 7.0 + 11.0, style))
    np.testing.assert_allclose(scaled, y, atol=2e-3)


def test_m2_without_style_adain_is_instance_norm_and_each_block_has_its_own_affine_function(model):
    layer, style = adain_with_style()
    for weight in layer.affine.weights:
        weight.assign(tf.zeros_like(weight))
    x = np.random.default_rng(0).normal(2, 3, [3, 8, 8, 5])
    reference = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    np.testing.assert_allclose(layer((tf.constant(x, tf.float32), style)), reference, atol=1e-5)
    kernels = [block.adain.affine.kernel for block in model.coarse.synthesis]
    widths = [block.fuse_noise.filters for block in model.coarse.synthesis]
    assert [kernel.shape[1] for kernel in kernels] == [2 * width for width in widths] == [64, 32, 16]
    assert len({kernel.ref() for kernel in kernels}) == SCALES


# -- grade Gaussians ----------------------------------------------------------------------------------------------------------


def graded_features(size=3, count=60):
    rng = np.random.default_rng(1)
    grades = rng.integers(0, 2, count)  # none of grade 2
    features = rng.normal(0, 1, [count, size]) @ rng.normal(0, 1, [size, size]) + 5.0 * grades[:, None]
    return features.astype(np.float32), grades


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_m3_gaussians_have_the_moments_of_each_grades_features_and_sampling_reproduces_them(covariance):
    features, grades = graded_features()
    gaussians = GradeGaussians(3, 3, covariance, shrinkage=0.25, minimum_deviation=1e-3)
    with pytest.raises(ValueError, match="no features"):
        gaussians.settle()
    for part in np.array_split(np.arange(60), 7):  # any batching
        gaussians.add(tf.constant(features[part]), tf.constant(grades[part]))
    gaussians.settle()
    asked = np.repeat([0, 1, 2], 4000)
    drawn = tf.function(gaussians.sample)(tf.constant(asked), tf.range(12000, dtype=tf.int64)).numpy()
    for grade in (0, 1, 2):
        own = features[grades == grade] if grade < 2 else features  # nothing is known of grade 2
        expected = np.cov(own.T, bias=True)
        expected = np.diag(np.diag(expected)) * 0.25 + 0.75 * expected
        np.testing.assert_allclose(gaussians.mean[grade], own.mean(0), rtol=1e-5)
        samples = drawn[asked == grade]
        np.testing.assert_allclose(samples.mean(0), own.mean(0), atol=0.2)
        if covariance == "full":
            factor = gaussians.factor[grade].numpy()
            np.testing.assert_allclose(factor @ factor.T, expected, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.08 * np.abs(expected).max())
        else:
            np.testing.assert_allclose(gaussians.factor[grade] ** 2, np.diag(expected), rtol=1e-4)
            np.testing.assert_allclose(samples.std(0), own.std(0), rtol=0.05)
    standardised = gaussians.standardised(tf.constant(features)).numpy()
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised.std(0), 1, atol=1e-4)


def test_m3_a_sample_depends_on_its_own_grade_and_seed_alone():
    features, grades = graded_features()
    gaussians = GradeGaussians(3, 3, "diagonal", 0.1, 1e-3)
    gaussians.add(tf.constant(features), tf.constant(grades))
    gaussians.settle()
    together = gaussians.sample(tf.constant([0, 1, 1]), tf.constant([5, 6, 7], tf.int64))
    alone = gaussians.sample(tf.constant([1]), tf.constant([6], tf.int64))
    np.testing.assert_allclose(together[1], alone[0], rtol=1e-6)


def test_m3_the_stage_makes_one_pass_and_counting_again_changes_nothing():
    config = tiny()
    model = ms.create("dr_gan", config)
    model.compile()
    source = ms.open_source(SOURCE)
    stages = model.stages(source)
    assert [stage.name for stage in stages] == ["grading", "gaussians", "coarse", "fine"]
    assert [stage.model for stage in stages] == [model.grader, model.moments, model, model]
    counting = stages[1]
    assert (counting.epochs, counting.steps_per_epoch) == (1, 5)  # 9 images in batches of 2
    counting.model.fit(counting.batches(0), steps_per_epoch=2, verbose=0)  # killed after two steps, and resumed
    counting.model.fit(counting.batches(2), steps_per_epoch=3, verbose=0)
    stages[2].begin()
    assert model.gaussians.count.numpy().sum() == len(source.split("train", config.data.split_fractions, config.seed)) == 9
    mean = model.gaussians.mean.numpy()
    model.collect_grades(model.dataset(source, config, "train", training=False))
    np.testing.assert_allclose(model.gaussians.mean, mean, rtol=1e-5)
    images, truth = [], []
    for part in model.dataset(source, config, "train", training=False):
        images.append(model.grader(tf.cast(part["image"], tf.float32) / 127.5 - 1)["features"].numpy())
        truth.append(part["grade"].numpy())
    images, truth = np.concatenate(images), np.concatenate(truth)
    for grade in range(3):
        np.testing.assert_allclose(mean[grade], images[truth == grade].mean(0), rtol=1e-3, atol=1e-5)


# -- losses and discriminators ------------------------------------------------------------------------------------------------


def test_m7_focal_loss_is_cross_entropy_at_gamma_zero_and_weighs_a_sure_answer_by_a_hundredth(model):
    logits, labels = normal(6, 5), tf.constant([0, 1, 2, 3, 4, 0])
    np.testing.assert_allclose(focal_loss(logits, labels, 0.0), cross_entropy(logits, labels), rtol=1e-6)
    sure = tf.math.log([[0.9, 0.1]])
    np.testing.assert_allclose(focal_loss(sure, [0], 2.0) / cross_entropy(sure, [0]), 0.01, rtol=1e-4)
    # the method uses it, with its gamma
    images = {"planes": normal(2, 32, 32, 4), "fake": normal(2, 32, 32, 3), "real": normal(2, 32, 32, 3, seed=1)}
    images["grade"] = tf.constant([0, 1])
    losses = model.confront(images)
    scales = len(model.discriminators.discriminators)  # fresh heads give each of three grades about a third
    assert float(losses["classification"]) == pytest.approx(scales * (2 / 3) ** 2 * np.log(3), rel=0.02)


def test_m8_discriminators_share_layout_but_no_weights_and_see_image_and_masks_at_three_scales():
    pyramid = DiscriminatorPyramid(3, 4, grades=5)
    x = normal(2, 64, 64, 7)
    pyramid(x)
    parts = pyramid.discriminators
    layouts = [[tuple(weight.shape) for weight in part.weights] for part in parts]
    assert layouts[0] == layouts[1] == layouts[2]
    assert len({weight.ref() for part in parts for weight in part.weights}) == 3 * len(layouts[0])
    assert not np.allclose(parts[0].weights[0], parts[1].weights[0])
    means = np.stack([x.numpy().reshape(2, 64 // f, f, 64 // f, f, 7).mean((2, 4)) for f in (2, 4)][1:])[0]
    for part, level, size in zip(parts, plane_pyramid(x, 3), (64, 32, 16)):
        assert level.shape == [2, size, size, 7]
        assert [feature.shape[1] for feature in part(level)["features"]] == [size // 2**i for i in (1, 2, 3, 4)]
    np.testing.assert_allclose(plane_pyramid(x, 3)[2], means, atol=1e-6)
    expected = [part(level) for part, level in zip(parts, plane_pyramid(x, 3))]
    for one, other in zip(pyramid(x), expected):
        np.testing.assert_allclose(one["score"], other["score"])
        assert one["score"].shape == [2, 1]
        assert one["grade_logits"].shape == [2, 5]
    for side in (17, 40, 90):  # any size, by global pooling
        assert parts[0](normal(1, side, side + 3, 7))["score"].shape == [1, 1]


def test_m8_the_discriminator_is_the_papers():
    network = GradedDiscriminator(64, 5)
    network(tf.keras.Input([64, 64, 11]))
    assert [layer.kernel.shape[0] for layer in network.convolutions] == [4] * 4
    assert [layer.strides for layer in network.convolutions] == [(2, 2)] * 4
    assert [layer.filters for layer in network.convolutions] == [64, 128, 256, 512]
    assert network.norms == [None] * 4


def test_m9_matching_losses_are_zero_for_a_perfect_image_with_zero_gradient():
    features = [normal(2, 4, 4, 3), normal(2, 2, 2, 5)]
    others = [feature + 0.5 for feature in features]
    for distance in (root_mean_square_distance, mean_absolute_distance):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(features)
            same = distance(features, features)
            far = distance(features, others)
        assert float(same) == 0.0
        np.testing.assert_allclose(far, 0.5, rtol=1e-5)
        assert all(gradient is None or not np.any(gradient) for gradient in tape.gradient(same, features))
        assert tape.gradient(far, features) == [None, None]  # targets are constants


def both_players(model):
    return model.generator_variables, model.discriminators.trainable_variables


def test_m9_matching_losses_move_neither_discriminators_nor_the_perceptual_network(batch):
    updates = []
    for weight in (0.0, 100.0):
        model = create(**{"losses.feature_matching": weight, "losses.perceptual": max(weight, 1.0)})
        model.compile(tf.keras.optimizers.SGD(0.0), tf.keras.optimizers.SGD(1.0))
        frozen = [variable.numpy() for variable in model.grader.variables]
        players = [[variable.numpy() for variable in part] for part in both_players(model)]
        model.train_step(batch)
        kept, moved = ([not np.array_equal(v, b) for v, b in zip(*pair)] for pair in zip(both_players(model), players))
        assert not any(kept)
        assert all(moved)
        updates.append([variable.numpy() for variable in model.discriminators.trainable_variables])
        assert all(np.array_equal(v, b) for v, b in zip(model.grader.variables, frozen))
    assert all(np.array_equal(one, other) for one, other in zip(*updates))


# -- generators ---------------------------------------------------------------------------------------------------------------


def test_m10_a_silent_fine_path_leaves_the_coarse_features_as_they_are():
    network = FineGenerator(4, 8)
    planes, coarse = normal(1, 32, 32, 3), normal(1, 16, 16, 8)
    assert network((planes, coarse)).shape == [1, 32, 32, 3]
    assert np.abs(network.join(planes, coarse) - coarse).max() > 1e-4
    network.second.convolution.kernel.assign(tf.zeros_like(network.second.convolution.kernel))
    np.testing.assert_array_equal(network.join(planes, coarse), coarse)


def test_m10_the_fine_stage_takes_over_the_coarse_weights_and_trains_both(batch):
    model = create()
    model.compile(tf.keras.optimizers.SGD(1.0), tf.keras.optimizers.SGD(0.0))
    for block in model.coarse.synthesis:  # at 0, where training starts, attention's convolutions have no gradient
        block.attention.spatial.residual_scale.assign(0.5)
    parts = {"coarse": model.coarse, "head": model.coarse_image, "fine": model.fine, "mapping": model.mapping}

    def snapshot():
        return {name: [v.numpy() for v in part.trainable_variables] for name, part in parts.items()}

    def moved(before):
        return {
            name: np.mean([not np.array_equal(v, b) for v, b in zip(part.trainable_variables, before[name])])
            for name, part in parts.items()
        }

    model.set_phase("coarse")
    start = snapshot()
    images, _ = model.reconstruct(batch, training=False)
    assert images["fake"].shape == images["real"].shape == [2, 16, 16, 3]
    model.train_step(batch)
    trained = moved(start)
    assert trained["fine"] == 0
    assert min(trained["coarse"], trained["head"], trained["mapping"]) > 0.9
    between = snapshot()
    model.set_phase("fine")
    assert max(moved(between).values()) == 0  # nothing is made anew
    model.train_step(batch)
    trained = moved(between)
    assert trained["head"] == 0
    assert min(trained["coarse"], trained["fine"], trained["mapping"]) > 0.9


def test_m11_a_synthesis_block_joins_noise_of_a_quarter_encoder_features_and_masks():
    block = SynthesisBlock(16, adaptive=True, attention=tiny().attention, reduction=2)
    inputs = {
        "features": normal(1, 4, 4, 16),
        "noise": normal(1, 4, 4, 4, seed=1),
        "skip": normal(1, 4, 4, 16, seed=2),
        "planes": normal(1, 4, 4, 3, seed=3),
        "style": normal(1, 6, seed=4),
    }
    assert block(inputs).shape == [1, 8, 8, 8]
    assert block.noise_channels == 4
    assert block.fuse_noise.kernel.shape == [1, 1, 16 + 4, 16]
    assert block.fuse_masks.convolution.kernel.shape == [3, 3, 16 + 16 + 3, 16]
    randomised(block, scale=0.1)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = tf.reduce_sum(block(inputs) ** 2)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(total, inputs).values())


def test_m11_the_same_seed_repeats_an_image_and_another_changes_it(model, batch):
    def images(seeds):
        return model({**batch, "seed": tf.constant(seeds, tf.int64)}).numpy()

    first, again, other = images([3, 4]), images([3, 4]), images([3, 5])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first[0], other[0], atol=1e-6)
    assert np.abs(first[1] - other[1]).max() > 1e-6
    # noise is on without grading vectors too
    plain = create(use_agm=False)
    assert np.abs(plain({**batch, "seed": [3, 4]}) - plain({**batch, "seed": [5, 6]})).max() > 1e-7


def test_m12_the_grade_head_is_trained_and_decides_where_no_grade_is_given(batch):
    model = create()
    with tf.GradientTape() as tape:
        _, losses = model.reconstruct(batch, training=True)
    gradients = tape.gradient(
        losses["grade_head"], [model.coarse.grade_head.kernel, model.coarse.encoding[0].trainable_variables[0]]
    )
    assert all(np.abs(gradient).max() > 0 for gradient in gradients)
    model.coarse.grade_head.bias.assign([0.0, 9.0, 0.0])
    planes, seeds = model.condition(batch), batch["seed"]
    spread_gaussians(model)
    decided = model.generate(planes, None, seeds)
    np.testing.assert_array_equal(decided["grade"], [1, 1])
    told = model.generate(planes, tf.constant([2, -1], tf.int64), seeds)
    np.testing.assert_array_equal(told["grade"], [2, 1])
    np.testing.assert_allclose(told["image"][1], decided["image"][1], atol=1e-6)
    assert np.abs(told["image"][0] - decided["image"][0]).max() > 1e-6
    predicting = create(grade_source="predicted")
    assert "grade" not in predicting.example_inputs()["serving_default"]
    spread_gaussians(predicting)
    np.testing.assert_array_equal(
        predicting({**batch, "grade": tf.constant([0, 0], tf.int64)}),
        predicting({**batch, "grade": tf.constant([2, 2], tf.int64)}),
    )


def spread_gaussians(model):
    """Grades far apart in feature space."""
    model.gaussians.mean.assign(3.0 * normal(*model.gaussians.mean.shape))


def test_m13_no_attention_no_agm_no_grade_heads_and_no_perceptual_loss_leave_their_parts_out(model, batch):
    full = {variable.name for variable in model.variables}
    assert any("attention" in name for name in full)
    without = create(use_sca=False)
    assert all(block.attention is None for block in without.coarse.synthesis)
    assert not any("attention" in variable.name for variable in without.variables)
    headless = create(use_cls_in_d=False)
    assert all(part.grade_head is None for part in headless.discriminators.discriminators)
    assert set(headless.loss_means) == set(model.loss_means) - {"classification", "discriminator_classification"}
    blind = create(use_perceptual=False)
    assert "perceptual" not in blind.loss_means
    assert blind.grader is not None  # the Gaussians need it
    neither = create(use_perceptual=False, use_agm=False)
    assert neither.grader is None
    assert [stage.name for stage in neither.stages(ms.open_source(SOURCE))] == ["coarse", "fine"]
    neither.compile()
    assert all(np.isfinite(value) for value in neither.train_step(batch).values())


def test_m13_without_lesion_masks_their_channels_are_zero_for_both_players(batch):
    model = create(use_lesion_masks=False)
    planes = model.condition(batch)
    lesions = len(model.config.structures)
    assert float(tf.reduce_max(planes[..., :lesions])) == 1.0
    assert not np.any(planes[..., lesions:])
    images, _ = model.reconstruct(batch, training=False)
    assert not np.any(images["planes"][..., lesions:])
    hidden = {**batch, "label_map": tf.where(batch["label_map"] == 3, tf.cast(0, tf.uint8), batch["label_map"])}
    np.testing.assert_array_equal(model(batch), model(hidden))


def test_m13_without_agm_nothing_depends_on_the_grade(batch):
    model = create(use_agm=False)
    assert model.mapping is None
    assert model.gaussians is None
    assert all(block.adain is None and block.norm is not None for block in model.coarse.synthesis)
    np.testing.assert_array_equal(
        model({**batch, "grade": tf.constant([0, 0], tf.int64)}), model({**batch, "grade": tf.constant([2, 1], tf.int64)})
    )
    assert "grade" not in model.example_inputs()["serving_default"]
    adaptive = create()
    spread_gaussians(adaptive)
    assert (
        np.abs(
            adaptive({**batch, "grade": tf.constant([0, 0], tf.int64)})
            - adaptive({**batch, "grade": tf.constant([2, 1], tf.int64)})
        ).max()
        > 1e-6
    )


# -- data, configuration, signatures --------------------------------------------------------------------------------------------


def test_the_papers_configuration_has_the_papers_shapes():
    config = ms.load_config("dr_gan", profile="paper")
    network = CoarseGenerator(64, 7, 5, adaptive=True, attention=config.attention)
    shapes = network.noise_shapes(640)
    assert shapes == [(80, 80, 128), (160, 160, 64), (320, 320, 32)]
    inputs = {
        "planes": tf.keras.Input([640, 640, 8]),
        "noise": [tf.keras.Input(shape) for shape in shapes],
        "style": tf.keras.Input([512]),
    }
    features, logits = network(inputs)
    assert features.shape == [None, 640, 640, 64]
    assert logits.shape == [None, 5]
    assert [block.convolution.filters for block in network.encoding] == [64, 128, 256, 512]
    assert [block.attention.spatial.reduction for block in network.synthesis] == [8, 16, 32]
    assert [block.attention.spatial.query.filters for block in network.synthesis] == [64, 16, 4]
    residual = 7 * 2 * (9 * 512**2 + 2 * 512)
    assert sum(v.shape.num_elements() for block in network.residuals for v in block.trainable_variables) == residual
    assert config.channels == (
        "vessel",
        "optic_disc",
        "microaneurysm",
        "haemorrhage",
        "hard_exudate",
        "soft_exudate",
        "laser_mark",
        "proliferate_membrane",
    )


def test_the_configuration_refuses_what_cannot_work():
    for overrides, message in (
        ({"image_size": 40}, "multiple of 16"),
        ({"structures": ["nerve"]}, "nerve"),
        ({"lesions": ["vessel"]}, "different names"),
        ({"generator.filters": 5}, "even"),
        ({"discriminator.count": 4}, "at least 8"),
        ({"discriminator.norm": "instance"}, "blanks"),
        ({"grading.weights": "x.h5"}, "small"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny(**overrides)


def test_batches_and_their_refusals(batch):
    assert {name: (value.dtype.name, value.shape[1:].as_list()) for name, value in batch.items()} == {
        "image": ("uint8", [32, 32, 3]),
        "label_map": ("uint8", [32, 32]),
        "grade": ("int64", []),
        "seed": ("int64", []),
    }
    config = tiny(grades=2)
    with pytest.raises(DataError, match=r"grade 2: dr_gan was told of grades 0 … 1"):
        next(iter(ms.create("dr_gan", config).dataset(ms.open_source(SOURCE), config, "train")))


def test_signatures_refuse_what_they_do_not_know(model):
    signatures = model.signatures()
    maps, two = tf.zeros([2, 32, 32], tf.uint8), tf.constant([1, 2], tf.int64)
    for inputs, message in (
        ({"label_map": maps, "seed": two[:1], "grade": two}, "seed differ in batch size"),
        ({"label_map": maps, "seed": two, "grade": two[:1]}, "grade differ in batch size"),
        ({"label_map": maps, "seed": two, "grade": two + 1}, r"must be 0 … 2, or -1"),
        ({"label_map": maps, "seed": two, "grade": two - 3}, r"must be 0 … 2, or -1"),
        ({"label_map": maps + 4, "seed": two, "grade": two}, r"0 … 3 or 255"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            signatures["serving_default"](**inputs)
    for value in (np.nan, -0.1, 1.1):
        planes = np.zeros([2, 32, 32, 4], np.float32)
        planes[1, 3, 4, 2] = value
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"numbers in \[0, 1\]"):
            signatures["synthesize_planes"](planes=tf.constant(planes), seed=two, grade=two)


def test_planes_of_a_label_map_give_the_image_of_the_label_map(model, batch):
    signatures = model.signatures()
    others = {"seed": batch["seed"], "grade": batch["grade"]}
    from_map = signatures["serving_default"](label_map=batch["label_map"], **others)
    from_planes = signatures["synthesize_planes"](planes=model.planes(batch["label_map"]), **others)
    for name, value in from_map.items():
        np.testing.assert_array_equal(value, from_planes[name])
    np.testing.assert_array_equal(from_map["grade"], batch["grade"])
    np.testing.assert_allclose(tf.reduce_sum(from_map["grade_probabilities"], -1), [1, 1], rtol=1e-5)


def test_fit_warns_while_the_gaussians_know_nothing_and_traces_each_phase_once(batch):
    model = create(**{"use_sca": False, "generator.residual_blocks": 0})
    model.compile()
    data = tf.data.Dataset.from_tensors(batch).repeat()
    model.set_phase("coarse")
    with pytest.warns(UserWarning, match="without its grade Gaussians"):
        model.fit(data, steps_per_epoch=2, verbose=0)
    model.fit(data, steps_per_epoch=2, verbose=0)
    assert model.train_function.experimental_get_tracing_count() == 1
    model.collect_grades(data.take(2))
    model.set_phase("fine")
    model.fit(data, steps_per_epoch=3, verbose=0)
    assert model.train_function.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_keeps_styles_and_losses_in_float32(batch, precision):
    model = create(**{"training.mixed_precision": precision, "generator.residual_blocks": 0})
    model.compile()
    assert model.coarse.encoding[0].convolution.compute_dtype == precision
    assert model.style(batch["grade"], batch["seed"]).dtype == tf.float32
    assert model(batch).dtype == tf.float32
    assert all(np.isfinite(value) for value in model.grader.train_step(batch).values())
    assert all(np.isfinite(value) and value.dtype == tf.float32 for value in model.train_step(batch).values())
    full = create(**{"generator.residual_blocks": 0})
    np.testing.assert_allclose(model(batch), full(batch), atol=0.05)
