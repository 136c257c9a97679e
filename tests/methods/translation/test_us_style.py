"""Card 02: the networks, losses and training. Sampling and serving (M10 to M12) are in test_us_style_sampling.py, the mix of
training sets and the grid of segmenters (M13, M14) in tests/evaluation/test_style_grid.py."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.losses.divergence import map_kl
from medsynth_tf.losses.style import content_distance, gram_distance, gram_matrix, moment_distance
from medsynth_tf.methods.translation.us_style.networks import Decoder, Encoder, Gaussian, StyleEncoder, restyle
from medsynth_tf.networks.vgg_features import VGG16Features
from medsynth_tf.ops.instance_statistics import adaptive_instance_normalization, channel_statistics
from tests.methods.tiny import TINY

SOURCE = "phantom:ultrasound?count=12&size=16"
THREE = {
    "network.filters": [4, 6, 8],
    "perceptual.filters": [4, 6, 8],
    "losses.perceptual": [0.0, 0.5, 1.0],
    "losses.style": [1.0, 0.0, 2.0],
}


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, len(shape)])


def uniform(*shape, seed=0):
    return tf.random.stateless_uniform(shape, [seed, len(shape)])


def tiny(**overrides):
    return ms.load_config("us_style", overrides={**TINY["us_style"][0], "image_size": 16, **overrides})


def create(**overrides):
    return ms.create("us_style", tiny(**overrides))


def batch_of(config, source=SOURCE):
    return next(iter(ms.create("us_style", config).dataset(ms.open_source(source), config, "train", epochs=None)))


# -- networks -----------------------------------------------------------------------------------------------------------------


def test_m1_five_scales_of_the_papers_widths_and_size():
    config = ms.load_config("us_style", "paper")
    own = config.network
    assert own.filters == (64, 128, 256, 512, 1024)
    shapes = [(None, 256 // 2**i, 256 // 2**i, width) for i, width in enumerate(own.filters)]
    image, seeds = tf.keras.Input([256, 256, 1]), tf.keras.Input([], dtype=tf.int64)
    content, style = Encoder(own.filters, 0.9, 0), StyleEncoder(own.filters, own.style_head, 0.5, 0.9, 1)
    decoder = Decoder(own.filters, True, 0.9, 2)
    features = content(image)
    assert [tuple(f.shape) for f in features] == shapes
    style((image, seeds))
    for each, shape in zip(style.distributions(image), shapes):
        assert tuple(each.mean.shape) == tuple(each.deviation.shape) == shape
    assert tuple(decoder(features).shape) == (None, 256, 256, 1)
    parameters = sum(v.shape.num_elements() for part in (content, style, decoder) for v in part.trainable_variables)
    assert parameters / 1e6 == pytest.approx(77.8, abs=0.1)


@pytest.mark.parametrize("head", ["conv1x1", "convblock"])
def test_m1_the_encoders_are_independent_and_distributions_are_in_range(head):
    content, style = Encoder([4, 6], 0.9, 0), StyleEncoder([4, 6], head, 0.5, 0.9, 1)
    images = 3 * normal(3, 8, 8, 1)
    for each in style.distributions(images):
        assert -1 <= np.min(each.mean) < np.max(each.mean) <= 1
        assert 0 < np.min(each.deviation) < np.max(each.deviation) < 1
    content(images)
    style((images, tf.range(3, dtype=tf.int64)))
    assert not {v.ref() for v in content.variables} & {v.ref() for v in style.variables}
    a, b = content.blocks[0].convolutions[1].kernel, style.trunk.blocks[0].convolutions[1].kernel
    assert not np.allclose(a, b)  # nor equal weights
    heads = [len(h.trainable_variables) for h in style.heads]
    assert heads == [2, 2] if head == "conv1x1" else heads == [10, 10]


def test_m2_samples_have_noise_of_their_own_scaled_by_tau():
    mean, deviation = normal(2, 60, 60, 3), 0.1 + uniform(2, 60, 60, 3, seed=1)
    style = Gaussian(tf.repeat(mean[:1], 2, 0), tf.repeat(deviation[:1], 2, 0))
    z = style.sample(tf.constant([5, 6], tf.int64), 0.5, "style 0").numpy()
    noise = (z - style.mean.numpy()) / style.deviation.numpy()
    assert noise.std() == pytest.approx(0.5, abs=0.01)
    assert abs(noise.mean()) < 0.01
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.04  # per sample
    assert abs(np.corrcoef(noise[0, :, :, 0].ravel(), noise[0, :, :, 1].ravel())[0, 1]) < 0.07  # per channel
    np.testing.assert_array_equal(z, style.sample(tf.constant([5, 6], tf.int64), 0.5, "style 0"))
    assert np.abs(z - style.sample(tf.constant([7, 8], tf.int64), 0.5, "style 0")).max() > 0.1  # per call
    np.testing.assert_array_equal(style.sample(tf.constant([5, 6], tf.int64), 0.0, "style 0"), style.mean)


def test_m2_tau_is_one_half_by_default_and_without_it_outputs_repeat():
    assert ms.method_info("us_style").config_class()().style.noise_scale == 0.5
    content, style = uniform(1, 16, 16, 1), uniform(1, 16, 16, 1, seed=1)
    for scale, repeats in ((0.5, False), (0.0, True)):
        model = create(**{"style.noise_scale": scale})
        first, second = (model.transfer(content, style, tf.constant([s], tf.int64)).numpy() for s in (1, 2))
        assert np.array_equal(first, second) == repeats


def test_m3_adain_identities():
    c, s = 3.0 + 2.0 * normal(2, 9, 7, 5), normal(2, 4, 6, 5, seed=1) * 0.3 - 1.0
    np.testing.assert_allclose(adaptive_instance_normalization(c, c), c, atol=1e-3)
    result = adaptive_instance_normalization(c, s)
    for made, wanted in zip(channel_statistics(result), channel_statistics(s)):
        np.testing.assert_allclose(made, wanted, atol=3e-5)
    scale, offset = 0.5 + uniform(5), normal(5)
    np.testing.assert_allclose(adaptive_instance_normalization(scale * c + offset, s), result, atol=1e-4)
    unit = (s - channel_statistics(s)[0]) / channel_statistics(s)[1]
    reference = c.numpy().astype(np.float64)
    reference = (reference - reference.mean((1, 2), keepdims=True)) / reference.std((1, 2), keepdims=True)
    np.testing.assert_allclose(adaptive_instance_normalization(c, unit), reference, atol=1e-4)
    assert adaptive_instance_normalization(tf.cast(c, tf.float16), s).dtype == tf.float16


def test_m3_epsilon_is_added_to_both_deviations_and_constant_maps_have_gradients():
    c, s = tf.Variable(tf.fill([1, 4, 4, 1], 3.0)), tf.Variable(normal(1, 4, 4, 1))
    with tf.GradientTape() as tape:
        made = adaptive_instance_normalization(c, s, epsilon=1e-5)
    for gradient in tape.gradient(made, [c, s]):
        assert np.isfinite(gradient).all()
    np.testing.assert_allclose(made, tf.fill([1, 4, 4, 1], tf.reduce_mean(s)), rtol=1e-5)
    ramp = tf.reshape(tf.constant([-1.0, 1.0]), [1, 1, 2, 1])  # deviation 1
    flat = tf.zeros([1, 2, 2, 1])
    np.testing.assert_allclose(adaptive_instance_normalization(ramp, flat, 0.5)[0, 0, :, 0], [-1 / 3, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize(("site", "counted"), [("decoder", [0, 1, 2]), ("skip", [0, 1, 2]), ("bottleneck", [2])])
def test_m4_the_style_of_each_scale_counts(site, counted):
    filters = [4, 6, 8]
    decoder = Decoder(filters, site != "bottleneck", 0.9, 0)
    content = [normal(1, 16 // 2**i, 16 // 2**i, width) for i, width in enumerate(filters)]
    style = [normal(1, 8, 8, width, seed=1) for width in filters]
    before = restyle(decoder, content, style, site).numpy()
    for scale in range(3):
        changed = [2.0 * s + 1.0 if i == scale else s for i, s in enumerate(style)]
        assert (np.abs(restyle(decoder, content, changed, site) - before).max() > 1e-3) == (scale in counted)
    moved = [tf.roll(s, 3, axis=1) for s in style]  # statistics alone count
    np.testing.assert_allclose(restyle(decoder, content, moved, site), before, atol=1e-5)
    if site != "decoder":  # all that is not normalised is as it was: the content's own scale is gone from normalised maps
        scaled = [3.0 * c if site == "skip" else c for c in content[:-1]] + [3.0 * content[-1]]
        np.testing.assert_allclose(restyle(decoder, scaled, style, site), before, atol=1e-3)


# -- losses -------------------------------------------------------------------------------------------------------------------


def test_m5_the_divergence_is_that_of_gaussians():
    mean, deviation = normal(2, 3, 4, 5), 0.05 + uniform(2, 3, 4, 5)
    exact = tfp.distributions.kl_divergence(tfp.distributions.Normal(mean, deviation), tfp.distributions.Normal(0.0, 1.0))
    assert float(map_kl(mean, deviation)) == pytest.approx(float(tf.reduce_mean(exact)), rel=1e-5)
    m, s, rng = 0.7, 0.4, np.random.default_rng(0)
    z = m + s * rng.normal(size=400_000)
    sampled = np.mean(-0.5 * ((z - m) / s) ** 2 - np.log(s) + 0.5 * z**2)
    assert float(map_kl(tf.constant([m]), tf.constant([s]))) == pytest.approx(sampled, abs=0.01)
    m, s = mean.numpy().astype(np.float64), deviation.numpy().astype(np.float64)
    paper = 0.5 * (m**2 / s**2 + s**2 - np.log(s**2) - 1)
    assert float(map_kl(mean, deviation, "paper")) == pytest.approx(paper.mean(), rel=1e-4)
    for form in ("exact", "paper"):
        assert float(map_kl(tf.zeros([3]), tf.ones([3]), form)) == 0.0
        for off in ((0.1, 1.0), (-0.1, 1.0), (0.0, 0.9), (0.0, 1.1)):
            assert float(map_kl(*(tf.constant([v]) for v in off), form)) > 1e-3
        assert np.isfinite(map_kl(tf.zeros([1]), tf.zeros([1]), form))


def test_m6_gram_matrices():
    features = normal(2, 5, 7, 4)
    gram = gram_matrix(features).numpy()
    f = features.numpy().astype(np.float64)
    np.testing.assert_allclose(gram, np.einsum("bhwu,bhwv->buv", f, f) / (4 * 5 * 7), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gram, gram.transpose(0, 2, 1))
    assert np.linalg.eigvalsh(gram.astype(np.float64)).min() > -1e-6
    pixels = tf.reshape(features, [2, 35, 4])
    shuffled = tf.reshape(tf.gather(pixels, np.random.default_rng(0).permutation(35), axis=1), [2, 7, 5, 4])
    for same in (shuffled, features[:, ::-1], features[:, :, ::-1]):
        np.testing.assert_allclose(gram_matrix(same), gram, atol=1e-6)
    a = np.array([1.0, -2.0, 0.5], np.float32)
    np.testing.assert_allclose(gram_matrix(tf.tile(a[None, None, None], [1, 6, 4, 1]))[0], np.outer(a, a) / 3, rtol=1e-5)


def test_m6_distances_are_their_formulas():
    a, b = normal(3, 4, 4, 2), normal(3, 6, 5, 2, seed=1)
    g, h = gram_matrix(a).numpy(), gram_matrix(b).numpy()
    np.testing.assert_allclose(gram_distance(a, b), 0.5 * ((g - h) ** 2).mean((1, 2)), rtol=1e-5)
    moments = [(getattr(x.numpy(), n)((1, 2))) for x in (a, b) for n in ("mean", "std")]
    expected = ((moments[0] - moments[2]) ** 2).mean(-1) + ((moments[1] - moments[3]) ** 2).mean(-1)
    np.testing.assert_allclose(moment_distance(a, b), expected, rtol=1e-4)
    np.testing.assert_allclose(content_distance(a, 2 * a), (a.numpy() ** 2).mean((1, 2, 3)), rtol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch([a, b])
        total = tf.reduce_sum(gram_distance(a, b) + moment_distance(a, b)) + tf.reduce_sum(content_distance(a, a))
    assert tape.gradient(total, b) is not None  # nothing goes into targets: of a, only content_distance's second argument
    with tf.GradientTape() as tape:
        tape.watch(a)
        total = tf.reduce_sum(gram_distance(a, b) + moment_distance(a, b) + content_distance(a, tf.stop_gradient(a)))
    assert tape.gradient(total, a) is None


@pytest.mark.parametrize("form", ["gram", "moments"])
def test_m7_losses_vanish_where_they_should(form):
    objective = create(**THREE, **{"losses.style_form": form}).objective
    content, style = uniform(2, 16, 16, 1), uniform(2, 16, 16, 1, seed=1) ** 2
    for made, zero, other in ((style, "style", "perceptual"), (content, "perceptual", "style")):
        _, parts = objective(content, style, made, [])
        assert float(parts[zero]) == pytest.approx(0.0, abs=1e-9 * float(parts[other]))
        assert float(parts[other]) > 0


def test_m7_vgg_sees_blue_green_red_less_their_means_at_224():
    seen = VGG16Features([0]).prepare(tf.fill([1, 32, 48, 1], 0.5))
    assert seen.shape == [1, 224, 224, 3]
    np.testing.assert_allclose(seen[0, 7, 5], 127.5 - np.array([103.939, 116.779, 123.68]), rtol=1e-5)
    keras = tf.keras.applications.vgg16.preprocess_input(np.full([1, 224, 224, 3], 127.5, np.float32))
    np.testing.assert_allclose(seen, keras, rtol=1e-5)


def test_m7_features_are_those_of_keras_vgg16_with_the_files_weights(tmp_path):
    network = tf.keras.applications.VGG16(include_top=False, weights=None, input_shape=(None, None, 3))
    file = tmp_path / "vgg16.h5"
    network.save_weights(file)
    features = VGG16Features([0, 2, 4], file, input_size=32)
    images = uniform(2, 20, 24, 1)
    names = [f"block{i}_conv1" for i in (1, 3, 5)]
    reference = tf.keras.Model(network.input, [network.get_layer(name).output for name in names])(features.prepare(images))
    for found, expected in zip(features(images), reference):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="VGG16's are"):
        VGG16Features([0], file, filters=(8, 8))
    with pytest.raises(ConfigError, match="does not exist"):
        VGG16Features([0], tmp_path / "other.h5")


@pytest.mark.parametrize("overrides", [{}, {"style.variational": False, "network.adain_site": "bottleneck"}])
def test_m7_gradients_reach_both_encoders_and_the_decoder_and_nothing_else(overrides):
    model = create(**THREE, **overrides)
    model.compile(tf.keras.optimizers.SGD(1.0))
    batch = batch_of(tiny(**THREE, **overrides))
    before = [[v.numpy() for v in group] for group in (model.network_variables, model.objective.variables)]
    model.train_step(batch)
    moved = [not np.array_equal(v, old) for v, old in zip(model.network_variables, before[0])]
    names = [v.name for v in model.network_variables]
    still = [name for name, each in zip(names, moved) if not each]
    # a bias before a batch norm has no effect; deterministic single-scale transfer uses no finer features of the style than it pools
    assert all("bias" in name for name in still), still
    assert all(np.array_equal(v, old) for v, old in zip(model.objective.variables, before[1]))
    assert model.objective.trainable_variables == []
    assert {id(v) for v in model.optimizer.variables[2:]}.isdisjoint({id(v) for v in model.objective.variables})


def test_m8_weights_default_to_the_papers_and_layers_without_any_are_not_computed():
    config = ms.method_info("us_style").config_class()()
    assert config.losses.perceptual == (0.0, 0.0, 0.0, 0.0, 0.01)
    assert config.losses.style == (0.1, 0.002, 0.001, 0.01, 10.0)
    model = create(**{**THREE, "losses.perceptual": [0.0, 0.0, 3.0], "losses.style": [2.0, 0.0, 0.0]})
    assert model.objective.network.blocks == [0, 2]
    content, style, made = (uniform(2, 16, 16, 1, seed=i) for i in range(3))
    total, parts = model.objective(content, style, made, [])
    features = [model.objective.network(x) for x in (content, style, made)]
    assert [tuple(f.shape[1:]) for f in features[0]] == [(16, 16, 4), (4, 4, 8)]
    to_content = float(tf.reduce_mean((features[0][1] - features[2][1]) ** 2))
    to_style = float(tf.reduce_mean(gram_distance(features[1][0], features[2][0])))
    assert float(parts["perceptual"]) == pytest.approx(3 * to_content, rel=1e-4)
    assert float(parts["style"]) == pytest.approx(2 * to_style, rel=1e-4)
    assert float(total) == pytest.approx(3 * to_content + 2 * to_style, rel=1e-4)
    short = create(**{**THREE, "losses.perceptual": [1.0, 0.0, 0.0], "losses.style": [1.0, 0.0, 0.0]})
    assert [len(block) for block in short.objective.network.convolutions] == [1]  # nothing after the last that counts


def test_m8_calibration_puts_unrelated_images_at_distance_one():
    model = create(**THREE, **{"perceptual.calibration_batches": 4})
    source = ms.open_source("phantom:ultrasound?count=40&size=16")
    model.calibrate(source)
    batches = model.dataset(source, model.config, "train", model.config.seed, epochs=None).take(4)
    found = []
    for batch in batches:
        content, style = (model.unit(batch[name]) for name in ("content", "style"))
        features = model.objective.network(content), model.objective.network(style)
        found.append([tf.stack(d) for d in model.objective.distances(features[0], features[0], features[1])])
    for place, scale in enumerate((model.objective.content_scale, model.objective.style_scale)):
        mean = np.mean([f[place] for f in found], 0)
        np.testing.assert_allclose(np.where(mean > 0, mean / scale, 1.0), 1.0, rtol=1e-4)
    assert (model.objective.style_scale.numpy()[[0, 2]] != 1.0).all()
    assert model.objective.content_scale.numpy()[0] == 1.0  # has no weight


def test_further_terms_are_their_formulas():
    overrides = {"losses.kl": 3.0, "losses.kl_form": "paper", "losses.reconstruction": 2.0, "losses.total_variation": 0.5}
    model = create(**THREE, **overrides)
    content, style, made = (uniform(2, 16, 16, 1, seed=i) for i in range(3))
    styles = [Gaussian(normal(2, 4, 4, 2), 0.2 + uniform(2, 4, 4, 2)) for _ in range(2)]
    total, parts = model.objective(content, style, made, styles)
    x = made.numpy()
    variation = (np.abs(np.diff(x, axis=1)).sum() + np.abs(np.diff(x, axis=2)).sum()) / x.size
    assert float(parts["total_variation"]) == pytest.approx(variation, rel=1e-4)
    assert float(parts["reconstruction"]) == pytest.approx(float(tf.reduce_mean((made - content) ** 2)), rel=1e-5)
    assert float(parts["kl"]) == pytest.approx(sum(float(map_kl(*each, "paper")) for each in styles), rel=1e-5)
    expected = parts["perceptual"] + parts["style"] + 3 * parts["kl"] + 2 * parts["reconstruction"] + 0.5 * variation
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    assert {"reconstruction", "total_variation"} <= set(model.means)


# -- stages -------------------------------------------------------------------------------------------------------------------


def test_m9_encoders_are_pre_trained_and_handed_over_and_decoders_are_not():
    model = create(**{"pretraining.learning_rate": 0.02, "perceptual.calibration_batches": 1})
    model.compile()
    source = ms.open_source("phantom:ultrasound?count=24&size=16")
    stages = model.stages(source)
    assert [stage.name for stage in stages] == ["content", "style", "transfer"]
    assert [stage.epochs for stage in stages] == [1, 1, model.config.training.epochs]
    parts = (model.content_encoder, model.style_encoder, model.decoder)

    def weights():
        return [[v.numpy() for v in part.variables] for part in parts]

    def changed(before, after):
        return [any(not np.array_equal(a, b) for a, b in zip(*pair)) for pair in zip(before, after)]

    states = [weights()]
    for stage, names in zip(stages, ({"reconstruction"}, {"reconstruction", "kl"}, {"loss", "perceptual", "style", "kl"})):
        if stage.begin is not None:
            stage.begin()
        states.append(weights())
        batches, losses = stage.batches(0), []
        for steps in (3, 40) if stage.end is not None else (3,):
            history = stage.model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0).history
            losses.append(history.get("reconstruction", [0.0])[0])
        states.append(weights())
        assert set(history) == names
        if stage.end is not None:
            assert losses[1] < 0.7 * losses[0]  # it does learn to reconstruct
            made = stage.preview(next(iter(batches)))
            assert made["reconstruction"].dtype == tf.uint8
            assert made["reconstruction"].shape == made["image"].shape
            stage.end()
            followed = [np.array_equal(a, v) for a, v in zip(model.average.averages, model._parts("variables"))]
            assert all(followed)  # averages begin with what was learnt
    assert changed(states[1], states[2]) == [True, False, False]
    assert changed(states[3], states[4]) == [False, True, False]
    assert changed(states[4], states[5]) == [False, False, False]  # handed over, to the last bit; the decoder is fresh
    assert changed(states[5], states[6]) == [True, True, True]
    assert stages[0].model.decoder is not model.decoder
    assert create(**{"pretraining.epochs": 0}).stages(source)[0].name == "transfer"


# -- data and settings --------------------------------------------------------------------------------------------------------


def test_m13_pairs_are_random_and_unrestricted_and_label_maps_are_the_contents():
    source, config = ms.open_source("phantom:ultrasound?count=20&size=16"), tiny(**{"data.split_fractions": [1.0, 0.0, 0.0]})
    plain = config.replace({"data.flip_horizontal": False})
    records = [source.read(key) for key in source.keys()]
    known = {record["image"].tobytes(): i for i, record in enumerate(records)}
    passes = list(ms.create("us_style", plain).dataset(source, plain, "train", epochs=None).take(20).as_numpy_iterator())
    contents, styles = ([known[x.tobytes()] for b in passes for x in b[name]] for name in ("content", "style"))
    for each in (contents, styles):  # a pass goes once over all
        assert sorted(each[:20]) == sorted(each[20:]) == list(range(20))
    assert contents[:20] != contents[20:]
    assert len(set(zip(contents, styles))) > 35
    labels = [(int(a), int(b)) for batch in passes for a, b in zip(batch["content_label"], batch["style_label"])]
    assert any(a == b for a, b in labels)
    assert any(a != b for a, b in labels)
    assert labels == [(records[c]["label"], records[s]["label"]) for c, s in zip(contents, styles)]
    for batch, place in zip(passes, range(0, 40, 2)):
        for i in range(2):
            np.testing.assert_array_equal(batch["label_map"][i], records[contents[place + i]]["mask"])
    later = next(iter(ms.create("us_style", plain).dataset(source, plain, "train", first_step=7, epochs=None)))
    np.testing.assert_array_equal(later["content"], passes[7]["content"])
    np.testing.assert_array_equal(later["style"], passes[7]["style"])


def test_m13_flips_take_the_label_map_along_and_colour_becomes_grey(tmp_path):
    from PIL import Image

    config = tiny(**{"data.split_fractions": [1.0, 0.0, 0.0]})
    source = ms.open_source("phantom:ultrasound?count=20&size=16&style=1")
    for batch in ms.create("us_style", config).dataset(source, config, "train", epochs=1):
        inside = batch["content"].numpy()[..., 0][batch["label_map"].numpy() == 1]
        assert inside.mean() < 80 < batch["content"].numpy()[batch["label_map"].numpy() == 0].mean()
    for i in range(4):
        Image.fromarray(np.full([20, 20, 3], [255, 0, 0], np.uint8)).save(tmp_path / f"{i}.png")
    batch = next(iter(ms.create("us_style", config).dataset(ms.open_source(f"folder:{tmp_path}"), config, "train")))
    assert batch["content"].shape == [2, 16, 16, 1]
    assert set(batch["content"].numpy().ravel()) == {76}  # of red, 0.2989 is seen
    assert "label_map" not in batch
    with pytest.raises(DataError, match="split 'val' is empty"):
        ms.create("us_style", config).dataset(source, config, "val")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 15}, "multiple of 2"),
        ({"losses.style": [1.0]}, "expected 2 weights"),
        ({"losses.style": [0.0, 0.0], "losses.perceptual": [0.0, 0.0]}, "nothing would be learnt"),
        ({"perceptual.filters": [4] * 6, "losses.style": [1.0] * 6, "losses.perceptual": [1.0] * 6}, "one to 5"),
        ({"perceptual.weights": "nowhere.h5"}, None),
    ],
)
def test_wrong_settings_are_refused(overrides, message):
    if message is None:
        with pytest.raises(ConfigError, match="does not exist"):
            create(**overrides)
        return
    with pytest.raises(ConfigError, match=message):
        tiny(**overrides)


def test_mixed_precision_trains_with_statistics_and_losses_in_float32():
    config = tiny(**{"training.mixed_precision": "float16"})
    model = ms.create("us_style", config)
    model.compile()
    losses = model.train_step(batch_of(config))
    assert all(np.isfinite(v) and v.dtype == tf.float32 for v in losses.values())
    features = model.content_encoder(uniform(1, 16, 16, 1))
    assert features[0].dtype == tf.float16
    assert model.objective.network(uniform(1, 16, 16, 1))[0].dtype == tf.float32
    assert model.style_code(uniform(1, 16, 16, 1))[0].dtype == tf.float32
