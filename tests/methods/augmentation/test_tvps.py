"""Card 28, by its items: the generator, its latent mixture, holes, discriminator, baselines and measures."""

import dataclasses
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings
from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.mixture_latent import MixtureParameters, draw_component, sample_latent
from medsynth_tf.losses.divergence import gaussian_kl, mixture_kl, mixture_kl_reference
from medsynth_tf.methods.augmentation.tvps import config as settings
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.augmentation.tvps.networks import PartialDecoder, PartialEncoder, PatchScorer
from medsynth_tf.metrics.classification import cohen_kappa, macro_auc
from medsynth_tf.ops import mixing
from medsynth_tf.ops.patch_masks import compose, hole_weight

TINY = {
    "image_size": 16,
    "crop": "none",
    "generator": {"levels": 2, "filters": 4, "hidden": 8, "components": 3, "latent": 4},
    "discriminator": {"filters": 4, "patch": 8},
    "classifier": {"filters": 4},
    "training": {"batch_size": 4},
}


def tiny(**overrides):
    return ms.load_config("tvps", overrides={**TINY, **overrides})


def make(**overrides):
    return ms.create("tvps", tiny(**overrides))


def images(batch, channels=1, size=16, seed=0):
    pixels = np.random.default_rng(seed).integers(30, 255, (batch, size, size, channels), np.uint8)
    return {
        "image": tf.constant(pixels),
        "label": tf.constant(np.arange(batch) % 4, tf.int64),
        "seed": tf.range(batch, dtype=tf.int64) + 10 * seed,
    }


def random_mixture(batch, components, size, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, components))
    log_weights = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    mean, log_variance = rng.normal(size=(2, batch, components, size))
    return [tf.constant(value, tf.float32) for value in (log_weights, mean, log_variance)]


# -- M1 ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paper_shapes():
    """The generator's symbolic outputs at 512."""
    encoder, decoder = PartialEncoder(512), PartialDecoder(512)
    maps, heads = encoder(tf.keras.Input([512, 512, 2]))
    return encoder, decoder, maps, heads, decoder((tf.keras.Input([64]), maps))


def test_m1_layers_at_512(paper_shapes):
    encoder, decoder, maps, (log_weights, mean, log_variance), output = paper_shapes
    assert [tuple(m.shape[1:]) for m in maps] == [(512 // 2**i, 512 // 2**i, 16 * 2**i) for i in range(6)]
    assert maps[-1].shape[1:] == [16, 16, 512]
    assert (log_weights.shape[1:], mean.shape[1:], log_variance.shape[1:]) == ([5], [5, 64], [5, 64])
    assert [up.filters for up in decoder.ups] == [256, 128, 64, 32, 16]
    assert output.shape[1:] == [512, 512, 1]
    # the bottleneck's dense layers hold most of it: 131072×256 and 64×131072, with biases
    assert encoder.hidden.count_params() == 131072 * 256 + 256
    assert decoder.entry.count_params() == 131072 * 65
    convolutions = sum(9 * a * b + 2 * b for a, b in zip([2, 16, 32, 64, 128, 256], [16, 32, 64, 128, 256, 512]))
    heads = 257 * (5 + 2 * 5 * 64)
    assert sum(int(tf.size(v)) for v in encoder.trainable_variables) == convolutions + 131072 * 256 + 256 + heads


@pytest.mark.parametrize(("size", "levels", "depth"), [(24, 3, 2), (16, 1, 1), (64, 4, 1)])
def test_m1_sizes_and_depths_are_free(size, levels, depth):
    encoder = PartialEncoder(size, levels, 2, depth, hidden=4, components=2, latent=3)
    decoder = PartialDecoder(size, levels, 2, depth, channels=3)
    maps, (_, mean, _) = encoder(tf.zeros([2, size, size, 4]))
    assert len(maps) == levels + 1
    assert maps[-1].shape == [2, size // 2**levels, size // 2**levels, 2 * 2**levels]
    assert decoder((mean[:, 0], maps)).shape == [2, size, size, 3]
    assert sum(len(block.convolutions) for block in encoder.blocks) == depth * (levels + 1)
    with pytest.raises(ConfigError, match="multiple of 2"):
        tiny(image_size=18)


# -- M2 ---------------------------------------------------------------------------------------------------------------------


def test_m2_divergence_is_zero_at_the_prior_and_never_below():
    uniform = tf.fill([2, 4], -math.log(4.0))
    parts = mixture_kl(uniform, tf.zeros([2, 4, 3]), tf.zeros([2, 4, 3]))
    np.testing.assert_allclose(parts, np.zeros([2, 2]), atol=1e-6)
    for seed in range(20):
        assert all((part.numpy() >= -1e-6).all() for part in mixture_kl(*random_mixture(8, 5, 3, seed)))


def test_m2_one_component_is_the_usual_gaussian():
    log_weights, mean, log_variance = random_mixture(6, 1, 7)
    categorical, gaussian = mixture_kl(log_weights, mean, log_variance)
    np.testing.assert_allclose(categorical, np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(tf.reduce_mean(gaussian), gaussian_kl(mean[:, 0], log_variance[:, 0]), rtol=1e-5)


@pytest.mark.parametrize("components", [1, 3, 8])
def test_m2_divergence_is_what_monte_carlo_says(components):
    log_weights, mean, log_variance = random_mixture(2, components, 6, seed=components)
    draws = 100_000
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros([6]))
    for i, closed in enumerate(sum(mixture_kl(log_weights, mean, log_variance)).numpy()):
        posterior = tfp.distributions.MultivariateNormalDiag(mean[i], tf.exp(0.5 * log_variance[i]))
        z = posterior.sample(draws, seed=i)  # [draws, K, D]
        ratio = log_weights[i] + posterior.log_prob(z) - prior.log_prob(z) + math.log(components)
        # every component is sampled and weighted, which has less noise than drawing it
        estimate = tf.reduce_mean(tf.reduce_sum(tf.exp(log_weights[i]) * ratio, -1))
        assert abs(float(estimate) - closed) < 0.01 * closed


def test_m2_the_batch_divergence_is_the_mean_of_single_ones():
    mixture = random_mixture(5, 3, 4)
    together = np.mean(sum(mixture_kl(*mixture)).numpy())
    alone = [float(sum(mixture_kl(*(value[i : i + 1] for value in mixture)))[0]) for i in range(5)]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
    # the authors' file is right for one sample, and off by (B - 1)(log K - D/2) else
    first = [value[:1] for value in mixture]
    assert float(mixture_kl_reference(*first)) == pytest.approx(alone[0], rel=1e-5)
    assert float(mixture_kl_reference(*mixture)) == pytest.approx(sum(alone) - 4 * (math.log(3) - 2), rel=1e-5)


def test_m2_divergence_between_two_mixtures_is_matched_by_component():
    q, p = random_mixture(3, 4, 5, 1), random_mixture(3, 4, 5, 2)
    normal = tfp.distributions.MultivariateNormalDiag
    pairs = tfp.distributions.kl_divergence(normal(q[1], tf.exp(0.5 * q[2])), normal(p[1], tf.exp(0.5 * p[2])))
    expected = tf.reduce_sum(tf.exp(q[0]) * (q[0] - p[0] + pairs), -1)
    np.testing.assert_allclose(sum(mixture_kl(*q, prior=p)), expected, rtol=1e-4)
    np.testing.assert_allclose(sum(mixture_kl(*q, prior=q)), np.zeros(3), atol=1e-5)


# -- M3, M4 -----------------------------------------------------------------------------------------------------------------


def test_m3_components_are_one_hot_and_pass_gradients_to_the_weights():
    logits = tf.Variable([[0.3, -0.2, 0.9]] * 50)
    with tf.GradientTape() as tape:
        chosen = draw_component(tf.nn.log_softmax(logits), tf.range(50, dtype=tf.int64))
        loss = tf.reduce_sum(chosen * [1.0, 2.0, 5.0])
    assert set(np.unique(chosen)) == {0.0, 1.0}  # exactly
    np.testing.assert_array_equal(tf.reduce_sum(chosen, -1), np.ones(50))
    assert float(tf.reduce_max(tf.abs(tape.gradient(loss, logits)))) > 1e-3


def test_m3_frequencies_are_the_weights_and_the_reference_input_has_others():
    weights = np.array([0.05, 0.15, 0.8], np.float32)
    logs = tf.tile(tf.math.log(weights)[tf.newaxis], [10_000, 1])
    seeds = tf.range(10_000, dtype=tf.int64)
    draw = tf.function(draw_component)  # ten thousand streams take long one by one
    np.testing.assert_allclose(tf.reduce_mean(draw(logs, seeds), 0), weights, atol=0.02)
    reference = tf.reduce_mean(draw(logs, seeds, gumbel_input="reference"), 0).numpy()
    np.testing.assert_allclose(reference, np.exp(weights) / np.exp(weights).sum(), atol=0.02)
    assert np.abs(reference - weights).max() > 0.1


def test_m3_temperature_changes_the_gradient_and_not_the_draw():
    logits = tf.Variable(tf.random.stateless_normal([30, 3], [1, 2]))
    seeds, found = tf.range(30, dtype=tf.int64), []
    for temperature in (0.3, 1.0):
        with tf.GradientTape() as tape:
            chosen = draw_component(tf.nn.log_softmax(logits), seeds, temperature)
            loss = tf.reduce_sum(chosen[:, 0])
        found.append((chosen.numpy(), tape.gradient(loss, logits).numpy()))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert not np.allclose(found[0][1], found[1][1])


def test_m4_each_component_has_its_own_mean_and_deviation():
    draws = 6_000
    log_weights, mean, log_variance = (tf.repeat(value, draws, axis=0) for value in random_mixture(1, 3, 2, seed=4))
    mixture = MixtureParameters(log_weights, mean, log_variance)
    seeds = tf.range(draws, dtype=tf.int64)

    @tf.function
    def sample(component):
        return sample_latent(mixture, seeds, component=component)

    drawn, chosen = sample(tf.fill([draws], -1))  # -1 draws
    for k in range(3):
        forced, omega = sample(tf.fill([draws], k))
        np.testing.assert_array_equal(omega, tf.one_hot(tf.fill([draws], k), 3))
        own = drawn.numpy()[chosen.numpy()[:, k] == 1]
        for values in (forced.numpy(), own):
            deviation = np.exp(0.5 * log_variance[0, k])
            error = 4 * deviation / math.sqrt(len(values))
            assert (np.abs(values.mean(0) - mean[0, k]) < error).all()
            np.testing.assert_allclose(values.std(0), deviation, rtol=0.1)
    few = MixtureParameters(*(value[:50] for value in (log_weights, mean, log_variance)))
    np.testing.assert_allclose(sample_latent(few, seeds[:50])[0], drawn[:50], rtol=1e-5, atol=1e-6)
    likely, _ = sample_latent(few, seeds[:50], most_likely=True)
    np.testing.assert_array_equal(likely, tf.repeat(mean[:1, int(np.argmax(log_weights[0]))], 50, axis=0))


def test_m4_log_variances_stay_within_their_range():
    encoder = PartialEncoder(8, 1, 2, hidden=4, components=2, latent=3, log_variance_range=(-1.0, 0.5))
    _, (_, _, log_variance) = encoder(1e3 * tf.random.stateless_normal([4, 8, 8, 2], [0, 1]))
    assert float(tf.reduce_min(log_variance)) == -1.0
    assert float(tf.reduce_max(log_variance)) == 0.5


# -- M5, M6, M7 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["square", "centre", "squares", "strokes"])
def test_m5_outside_the_hole_the_image_is_exactly_itself(recipe):
    model = make(**{"masks.recipe": recipe, "masks.feather": 1.5, "masks.count": 2})
    batch = images(6)
    made = model.synthesize(batch, n=2)
    pixels, keep = from_unit_range(made["image"]).numpy(), made["mask"].numpy().astype(bool)
    original = np.repeat(batch["image"].numpy()[:, None], 2, axis=1)
    np.testing.assert_array_equal(pixels[keep], original[keep])
    assert (pixels[~keep] != original[~keep]).any()
    assert 0 < keep.mean() < 1


def test_m5_a_mask_of_ones_returns_the_image():
    batch = images(3)
    made = make().synthesize(batch, mask=tf.ones([3, 16, 16]))
    np.testing.assert_array_equal(from_unit_range(made["image"][:, 0]), batch["image"])


def test_m5_the_border_rises_within_the_hole_and_reaches_the_whole_of_a_whole_hole():
    keep = np.ones([1, 40, 40, 1], np.float32)
    keep[:, 8:34, 8:34] = 0
    weight = hole_weight(tf.constant(keep), 2.0).numpy()[0, ..., 0]
    assert (weight[keep[0, ..., 0] == 1] == 0).all()
    assert weight[20, 20] > 0.99
    assert 0 < weight[20, 9] < weight[20, 11] < weight[20, 15]
    np.testing.assert_allclose(hole_weight(tf.zeros([1, 16, 16, 1]), 5.0), np.ones([1, 16, 16, 1]), atol=1e-5)
    a, b = (tf.random.stateless_normal([1, 40, 40, 3], [0, i]) for i in range(2))
    np.testing.assert_array_equal(compose(a, b, tf.zeros([1, 40, 40, 1])), a)
    np.testing.assert_array_equal(compose(a, b, tf.ones([1, 40, 40, 1])), b)


def test_m6_what_the_hole_hides_cannot_leak():
    model = make(**{"masks.feather": 0.0})  # a soft border shows some of the hidden pixels again
    batch = images(3)
    keep = np.ones([3, 16, 16], np.float32)
    keep[:, 4:10, 5:12] = 0
    before = model.synthesize(batch, mask=tf.constant(keep))
    other = np.where(keep[..., None] == 1, batch["image"], 255 - batch["image"].numpy()).astype(np.uint8)
    changed = {**batch, "image": tf.constant(other)}
    after = model.synthesize(changed, mask=tf.constant(keep))
    for name in ("map", "component", "generated", "image"):
        np.testing.assert_array_equal(before[name], after[name])
    seen = {**batch, "image": tf.constant((batch["image"].numpy() // 2).astype(np.uint8))}
    assert not np.allclose(model.synthesize(seen, mask=tf.constant(keep))["map"], before["map"])


@pytest.mark.parametrize("shortcuts", [True, False])
def test_m7_without_shortcuts_the_decoder_sees_the_latent_vector_alone(shortcuts):
    encoder = PartialEncoder(16, 2, 4, hidden=8, components=2, latent=4)
    decoder = PartialDecoder(16, 2, 4, shortcuts=shortcuts)
    latent = tf.random.stateless_normal([2, 4], [0, 1])
    maps, _ = encoder(tf.random.stateless_uniform([2, 16, 16, 2], [0, 2]))
    with tf.GradientTape() as tape:
        tape.watch([latent, *maps])
        output = decoder((latent, maps))
    to_latent, *to_maps = tape.gradient(output, [latent, *maps], unconnected_gradients=tf.UnconnectedGradients.ZERO)
    assert np.abs(to_latent).max() > 0
    assert [bool(np.abs(gradient).max() > 0) for gradient in to_maps] == [shortcuts, shortcuts, False]  # never the bottleneck


# -- M9, M10 ----------------------------------------------------------------------------------------------------------------


def test_m9_draws_differ_inside_the_hole_and_nowhere_else():
    model = make()
    keep = np.ones([2, 16, 16], np.float32)
    keep[:, 3:11, 3:11] = 0
    batch = images(2)
    deviation = model.synthesize(batch, n=16, mask=tf.constant(keep))["image"].numpy().ptp(axis=1)[..., 0]
    assert (deviation[keep == 1] == 0).all()
    hidden = deviation[(hole_weight(tf.constant(keep)[..., None], model.config.masks.feather).numpy() > 0)[..., 0]]
    assert (hidden > 1e-5).mean() > 0.95
    still = model.synthesize(batch, n=3, mask=tf.constant(keep), most_likely=True)["image"].numpy()
    np.testing.assert_array_equal(still[:, 0], still[:, 2])


def test_m10_scores_by_size_and_range():
    scorer = PatchScorer(4, 64)
    assert scorer(tf.keras.Input([64, 64, 1], batch_size=3)).shape == [3]
    assert scorer(tf.keras.Input([512, 512, 1], batch_size=2)).shape == [2 * 29 * 29]
    widths = [convolution.filters for convolution in scorer.convolutions]
    assert widths == [64, 128, 256, 512, 1]
    assert len(scorer.norms) == 3  # none on the first, none before the last
    probabilities = tf.sigmoid(PatchScorer(2, 4)(tf.random.stateless_normal([3, 24, 24, 1], [0, 1], stddev=50.0)))
    assert probabilities.shape == [3 * 3 * 3]
    assert ((probabilities >= 0) & (probabilities <= 1)).numpy().all()


# -- M13, M14, M15 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augmentation", ["none", "mixup", "cutout", "cutmix"])
def test_m13_baselines_mix_labels_to_one(augmentation):
    model = make(augmentation=augmentation)
    batch = images(16)
    mixed, targets = model.mix(batch)
    np.testing.assert_allclose(tf.reduce_sum(targets, -1), np.ones(16), rtol=1e-6)
    assert mixed.shape == [16, 16, 16, 1]
    changed = bool(np.abs(mixed - (batch["image"].numpy() / 127.5 - 1)).max() > 1e-3)
    assert changed == (augmentation != "none")
    assert bool((targets.numpy().max(-1) < 1).any()) == (augmentation in ("mixup", "cutmix"))
    assert model.encoder is None and model.discriminator is None
    assert set(model.signatures()) == {"serving_default", "classify"}


def test_m13_cutmix_share_is_the_kept_area():
    batch, size = 40, 24
    planes = np.broadcast_to(np.arange(1, batch + 1, dtype=np.float32)[:, None, None, None], (batch, size, size, 1))
    seeds = tf.range(batch, dtype=tf.int64)
    mixed, targets, kept = mixing.cutmix(tf.constant(planes), tf.one_hot(tf.range(batch), batch), seeds)
    own = (mixed.numpy() == planes).mean((1, 2, 3))
    np.testing.assert_allclose(kept, own, atol=1e-6)
    np.testing.assert_allclose(np.diagonal(targets), own, atol=1e-6)
    partner = np.roll(planes, 1, axis=0)
    assert ((mixed == planes) | (mixed == partner)).numpy().all()
    assert kept.numpy().std() > 0.1


def test_m13_mixup_and_cutout_by_their_formulas():
    batch = 30
    pictures = tf.random.stateless_normal([batch, 8, 8, 1], [0, 1])
    seeds = tf.range(batch, dtype=tf.int64)
    mixed, targets = mixing.mixup(pictures, tf.one_hot(tf.range(batch), batch), seeds, 0.4)
    share = np.diagonal(targets)[:, None, None, None]
    np.testing.assert_allclose(mixed, share * pictures + (1 - share) * np.roll(pictures, 1, axis=0), atol=1e-5)
    shares = tf.function(lambda: mixing.beta(tf.range(5_000, dtype=tf.int64), 0.4, "test"))().numpy()
    assert abs(shares.mean() - 0.5) < 0.02
    assert abs(shares.var() - 1 / (4 * (2 * 0.4 + 1))) < 0.01  # of Beta(α, α)
    cut = mixing.cutout(tf.ones([batch, 20, 20, 1]), seeds, 0.5).numpy()
    holes = (cut == 0).sum((1, 2, 3))
    assert holes.max() == 100 and holes.min() < 100  # some are clipped by the image's border


def test_m14_kappa_and_auc_in_the_corner_cases():
    truth = np.array([0, 1, 2, 3, 4, 2, 2, 1])
    assert cohen_kappa(truth, truth, 5, "quadratic") == 1.0
    assert cohen_kappa(truth, np.full_like(truth, 2), 5, "quadratic") == pytest.approx(0.0, abs=1e-12)
    # one of five classes is absent from truth: its curve is left out
    scores = np.eye(5)[np.array([0, 1, 2, 3, 2, 2])]
    assert macro_auc(np.array([0, 1, 2, 3, 2, 2]), scores) == 1.0
    flipped = 1.0 - scores
    assert macro_auc(np.array([0, 1, 2, 3, 2, 2]), flipped) == 0.0


def test_m15_every_setting_says_where_its_default_comes_from():
    own = [
        c
        for c in vars(settings).values()
        if isinstance(c, type) and issubclass(c, Settings) and c.__module__ == settings.__name__
    ]
    assert TVPSConfig in own and len(own) == 10
    inherited = {field.name for field in dataclasses.fields(TVPSConfig.__mro__[1])}
    for kind in own:
        for field in dataclasses.fields(kind):
            if field.name not in inherited:
                assert field.metadata["help"].endswith(("[G]", "[R]", "[D]")), f"{kind.__name__}.{field.name}"
