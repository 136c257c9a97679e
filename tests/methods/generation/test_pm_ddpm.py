"""Card 30: the items of the diffusion model, each by its number."""

import math
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.methods.generation.pm_ddpm.sampling import sample_resumable
from medsynth_tf.networks import diffusion_unet
from medsynth_tf.networks.diffusion_unet import DiffusionUNet, PixelAttention, step_encoding
from medsynth_tf.ops import diffusion

TINY = {
    "image_size": 16,
    "network": {"widths": [4, 8], "bottleneck": 8, "attention": [], "predicts": "noise"},
    "schedule.kind": "paper",
    "schedule.steps": 20,
    "sampling": {"sampler": "ddpm", "steps": None, "few_steps": 5, "clip_start": False},
    "fixed_samples": 2,
    "optimiser.average_warmup": 0,
    "training": {"batch_size": 4, "ema_decay": 0.5, "steps_per_epoch": None},
}
CLASSES = {"condition.classes": 2}


def created(**overrides):
    model = ms.create("pm_ddpm", ms.load_config("pm_ddpm", overrides={**TINY, **overrides}))
    model.compile()
    return model


def batch_of(model, seed=0):
    source = ms.open_source("phantom:optic_disc?count=12&size=16&atrophy=0.5")
    return next(iter(model.dataset(source, model.config, "train", seed)))


def schedule(kind="paper", steps=300):
    return diffusion.make_schedule(kind, steps)


def normals(shape, name):
    """Fresh noise for `reverse`: t → standard normal."""
    return lambda t: tf.random.stateless_normal(shape, tf.stack([t, name]))


# -- M6 ---------------------------------------------------------------------------------------------------------------------


def test_m6_fixed_grid_is_reproducible_and_drawn_by_the_averaged_weights():
    model = created()
    model.train_step(batch_of(model))
    grid = model.fixed_grid().numpy()
    assert grid.shape == (2, 16, 16, 4)
    np.testing.assert_array_equal(grid, model.fixed_grid())
    for weight in model.network.trainable_variables:  # the average alone counts
        weight.assign_add(0.1 * tf.ones_like(weight))
    np.testing.assert_array_equal(grid, model.fixed_grid())
    assert {name: p.shape for name, p in model.preview({}).items()} == {"synthetic 0": (2, 16, 16, 3), "mask 0": (2, 16, 16, 1)}


def test_m6_a_restored_model_goes_on_with_the_same_loss(tmp_path):
    model = created(**CLASSES, **{"optimiser.average_warmup": 2})
    for seed in range(2):
        model.train_step(batch_of(model, seed))
    model.save(tmp_path / "model")
    restored = ms.load(tmp_path / "model")
    losses = []
    for one in (model, restored):
        one.loss_mean.reset_state()
        losses.append([float(one.train_step(batch_of(one, seed))["loss"]) for seed in (2, 3)])
    assert losses[0] == losses[1]
    for a, b in zip(model.average.averages, restored.average.averages):
        np.testing.assert_array_equal(a, b)


# -- M7, M8 -----------------------------------------------------------------------------------------------------------------


def test_m7_what_the_schedules_leave_of_the_image():
    paper = schedule()
    assert (np.diff(paper.alpha_bar) < 0).all()
    assert paper.alpha_bar[0] == 1
    assert paper.alpha_bar[1] == pytest.approx(0.9999, abs=1e-8)
    assert paper.alpha_bar[300] == pytest.approx(0.0481, abs=5e-5)
    assert paper.beta[[1, 300]] == pytest.approx([1e-4, 0.02])
    thousand = schedule(steps=1000)
    assert np.sqrt(thousand.alpha_bar[-1]) == pytest.approx(0.0064, abs=5e-5)
    rescaled = schedule("rescaled")
    assert rescaled.beta[[1, 300]] == pytest.approx([1e-3 / 3, 0.02 / 0.3])
    assert rescaled.alpha_bar[-1] == pytest.approx(3.4e-5, rel=0.02)
    np.testing.assert_array_equal(schedule("rescaled", 1000).beta, thousand.beta)
    cosine = schedule("cosine")
    assert (np.diff(cosine.alpha_bar) < 0).all()
    share = np.cos((np.arange(301) / 300 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine.alpha_bar[:300], (share / share[0])[:300], rtol=1e-9)
    with pytest.raises(ValueError, match="must be in"):
        diffusion.make_schedule("rescaled", 10)
    with pytest.raises(ConfigError, match="must be below 1"):
        created(**{"schedule.kind": "rescaled", "schedule.steps": 15})


def test_m7_moments_of_the_forward_process():
    process, t = schedule(), np.array([1, 40, 150, 300])
    x = tf.constant([0.9, -0.4, 0.7, 1.0])[:, tf.newaxis] * tf.ones([4, 100_000])
    noisy = (
        diffusion.q_sample(process, x, tf.constant(t), tf.random.stateless_normal(x.shape, [1, 2])).numpy().astype(np.float64)
    )
    spread = np.sqrt(1 - process.alpha_bar[t])
    np.testing.assert_array_less(np.abs(noisy.mean(1) - np.sqrt(process.alpha_bar[t]) * x[:, 0]), 0.02 * spread)
    np.testing.assert_allclose(noisy.var(1), 1 - process.alpha_bar[t], rtol=0.02)


@pytest.mark.parametrize("kind", ["paper", "rescaled"])
def test_m8_the_true_noise_gives_the_image_back_at_every_step(kind):
    process = schedule(kind)
    t = tf.range(1, 301)
    x = tf.random.stateless_uniform([300, 6, 6, 4], [3, 4], -1.0, 1.0)
    noise = tf.random.stateless_normal(x.shape, [5, 6])
    noisy = diffusion.q_sample(process, x, t, noise)
    np.testing.assert_allclose(diffusion.predict_start(process, noisy, t, noise), x, atol=1e-4)
    np.testing.assert_allclose(diffusion.noise_of(process, noisy, t, x), noise, atol=1e-3)


# -- M9, M10: the reverse process with exact predictions --------------------------------------------------------------------


def table(values, t):
    return tf.gather(tf.constant(values, tf.float32), t)


def run(process, predict, shape, *, steps=None, name=0, start=None, **how):
    times = diffusion.timetable(process.steps, steps or process.steps)
    start = tf.random.stateless_normal(shape, [99, name]) if start is None else start
    return tf.function(lambda x: diffusion.reverse(process, times, predict, normals(shape, name), x, 0, len(times) - 1, **how))(
        start
    )


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("paper", {}),
        ("rescaled", {}),
        ("cosine", {}),
        ("paper", {"clip_start": True}),
        ("paper", {"sampler": "ddim", "steps": 10}),
        ("rescaled", {"sampler": "ddim", "steps": 1}),
        ("cosine", {"sampler": "ddim", "steps": 25, "eta": 1.0}),
        ("paper", {"sampler": "ddim", "steps": 300, "eta": 0.5, "clip_start": True}),
    ],
)
def test_m9_samples_of_a_single_point_are_that_point(kind, how):
    process = schedule(kind)
    point = tf.constant([0.5, -0.25, 0.8])

    def predict(x, t):
        return (x - table(np.sqrt(process.alpha_bar), t) * point) / table(np.sqrt(1 - process.alpha_bar), t)

    np.testing.assert_allclose(run(process, predict, [40, 3], **how), np.tile(point, (40, 1)), atol=2e-5)


@pytest.mark.parametrize(("kind", "mean", "std"), [("paper", 0.7959, 0.3019), ("rescaled", 0.8004, 0.3028)])
def test_m9_samples_of_a_gaussian_have_its_mean_and_spread(kind, mean, std):
    m, s, process = 0.8, 0.3, schedule(kind)
    bar, beta = process.alpha_bar, process.beta
    total = bar * s**2 + 1 - bar

    def predict(x, t):
        return table(np.sqrt(1 - bar) / total, t) * (x - table(np.sqrt(bar) * m, t))

    samples = run(process, predict, [400, 500]).numpy().astype(np.float64)
    # the steps are linear, so that mean and variance follow in float64
    centre, variance = 0.0, 1.0
    for t in range(300, 0, -1):
        pull = beta[t] / total[t]  # of (x - √ᾱ m)
        centre = (centre - pull * (centre - np.sqrt(bar[t]) * m)) / np.sqrt(1 - beta[t])
        variance = variance * (1 - pull) ** 2 / (1 - beta[t]) + (beta[t] if t > 1 else 0)
    assert centre == pytest.approx(mean, abs=6e-4)  # the card's figures
    assert np.sqrt(variance) == pytest.approx(std, abs=1.5e-3)
    assert samples.mean() == pytest.approx(centre, abs=0.003)
    assert samples.std() == pytest.approx(np.sqrt(variance), abs=0.002)


def test_m9_ddim_with_full_noise_is_ddpm_with_the_posterior_variance():
    process = schedule()
    x, predicted = (tf.random.stateless_normal([50, 3], [seed, 0]) for seed in (1, 2))
    zero = tf.zeros_like(x)
    one = tf.ones_like(x)
    for t in (2, 100, 300):
        step = tf.constant(t)
        ddpm = diffusion.ddpm_step(process, x, step, predicted, zero)
        ddim = diffusion.ddim_step(process, x, step, step - 1, predicted, zero, eta=1.0)
        np.testing.assert_allclose(ddim, ddpm, atol=2e-5)
        spread = diffusion.ddim_step(process, x, step, step - 1, predicted, one, eta=1.0) - ddim
        bar = process.alpha_bar
        posterior = process.beta[t] * (1 - bar[t - 1]) / (1 - bar[t])
        np.testing.assert_allclose(spread, np.full([50, 3], np.sqrt(posterior)), rtol=1e-3)
        spread = diffusion.ddpm_step(process, x, step, predicted, one) - ddpm
        np.testing.assert_allclose(spread, np.full([50, 3], np.sqrt(process.beta[t])), rtol=1e-3)
    last = diffusion.ddpm_step(process, x, tf.constant(1), predicted, one)
    np.testing.assert_allclose(last, diffusion.ddpm_step(process, x, tf.constant(1), predicted, zero))


def two_mode_noise(process, dimensions, spread=0.1, weight=0.9):
    """The exact ε of data that are +1 in all coordinates with the weight, else -1, each with the spread."""
    bar = process.alpha_bar

    def predict(x, t):
        root, variance = table(np.sqrt(bar), t), table(bar * spread**2 + 1 - bar, t)
        distances = [tf.reduce_sum((x - sign * root) ** 2, -1, keepdims=True) for sign in (1.0, -1.0)]
        odds = tf.math.log(weight / (1 - weight)) + (distances[1] - distances[0]) / (2 * variance)
        mean = root * (2 * tf.sigmoid(odds) - 1)
        return table(np.sqrt(1 - bar), t) * (x - mean) / variance

    return predict


@pytest.mark.parametrize(("kind", "frequency", "tolerance"), [("paper", 0.71, 0.03), ("rescaled", 0.90, 0.02)])
def test_m10_the_papers_schedule_forgets_the_modes_weights(kind, frequency, tolerance):
    process = schedule(kind)
    samples = run(process, two_mode_noise(process, 64), [3000, 64]).numpy().mean(-1)
    assert np.abs(np.abs(samples) - 1).max() < 0.2
    assert (samples > 0).mean() == pytest.approx(frequency, abs=tolerance)


def test_m10_a_gaussian_start_with_the_datas_moments_remembers_them():
    # a reverse process that is exact ends in a mode as often as its start belongs to it
    process, weight, spread = schedule("paper"), 0.9, 0.1
    left, rng = process.alpha_bar[-1], np.random.default_rng(0)
    noise = math.sqrt(1 - left) * rng.normal(size=[3000, 64])
    mode = 2 * weight - 1 + 2 * math.sqrt(weight * (1 - weight)) * rng.normal(size=[3000, 1])  # the sign's mean and deviation
    for start, expected in ((noise, 0.71), (noise + math.sqrt(left) * (mode + spread * rng.normal(size=[3000, 64])), 0.90)):
        odds = np.log(weight / (1 - weight)) + 2 * math.sqrt(left) * start.sum(1) / (left * spread**2 + 1 - left)
        belongs = (1 / (1 + np.exp(-odds))).mean()
        samples = run(process, two_mode_noise(process, 64), [3000, 64], start=tf.constant(start, tf.float32)).numpy().mean(-1)
        assert (samples > 0).mean() == pytest.approx(belongs, abs=0.03)
        assert belongs == pytest.approx(expected, abs=0.05)


def test_a_gaussian_start_has_the_moments_of_noised_data_and_is_saved(tmp_path):
    model = created(**{"sampling.start": "gaussian"})
    batches = [batch_of(model, seed) for seed in range(3)]
    for batch in batches:
        model.train_step(batch)
    seen = np.concatenate([model.joined(batch).numpy() for batch in batches])
    np.testing.assert_allclose(model.data.mean, seen.mean(0), atol=1e-6)
    left, seeds = model.schedule.alpha_bar[-1], tf.range(300, dtype=tf.int64)
    start = model.start(seeds).numpy()
    gaussian = model.data(seeds).numpy()
    noise = (start - math.sqrt(left) * gaussian) / math.sqrt(1 - left)
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1.0, rel=0.01)
    model.save(tmp_path / "model")
    loaded = ms.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.start(seeds), start)
    loaded.stages(ms.open_source("phantom:optic_disc?count=12&size=16&atrophy=0.5"))  # training on other data begins anew
    assert int(loaded.data.observed) == 0
    model.config = model.config.replace({"sampling.start": "noise"})
    np.testing.assert_allclose(model.start(seeds), noise, atol=1e-5)


def test_timetables():
    assert diffusion.timetable(300, 300).tolist() == list(range(300, -1, -1))
    assert diffusion.timetable(300, 4).tolist() == [300, 200, 101, 1, 0]
    assert diffusion.timetable(300, 1).tolist() == [300, 0]
    with pytest.raises(ValueError, match="301 sampling steps of 300"):
        diffusion.timetable(300, 301)
    with pytest.raises(ConfigError, match="ddpm takes all 20"):
        created(**{"sampling.steps": 10})
    with pytest.raises(ConfigError, match=r"at most schedule.steps"):
        created(**{"sampling.few_steps": 21})


# -- M11 --------------------------------------------------------------------------------------------------------------------


def test_m11_the_average_follows_its_closed_form_and_copies_while_warming_up():
    model = created(**{"optimiser.average_warmup": 2, "training.ema_decay": 0.75})
    weights = []
    for seed in range(5):
        model.train_step(batch_of(model, seed))
        weights.append(model.network.exit.kernel.numpy().astype(np.float64))
    index = [v is model.network.exit.kernel for v in model.network.trainable_variables].index(True)
    expected = weights[1]  # the second step still copies
    for value in weights[2:]:
        expected = 0.75 * expected + 0.25 * value
    np.testing.assert_allclose(model.average.averages[index], expected, rtol=1e-5, atol=1e-7)
    assert created(**{"training.ema_decay": None}).average is None


def test_m11_samples_are_made_with_the_average(tmp_path):
    model = created()
    model.train_step(batch_of(model))
    seeds = tf.constant([1, 2], tf.int64)
    raw = model.sample(seeds).numpy()
    with model.averaged_weights():
        averaged = {name: value.numpy() for name, value in model.signatures()["serving_default"](seeds).items()}
        assert not np.array_equal(raw, model.sample(seeds))
    served = tf.saved_model.load(str(ms.export(model, tmp_path / "served"))).signatures["serving_default"](seed=seeds)
    resumable = sample_resumable(model, [1, 2], tmp_path / "state.npz")
    for name, value in averaged.items():
        np.testing.assert_array_equal(served[name], value)
        np.testing.assert_array_equal(resumable[name], value)


# -- M12 --------------------------------------------------------------------------------------------------------------------


def inputs(size, channels):
    return {"x": tf.keras.Input([size, size, channels]), "t": tf.keras.Input([], dtype=tf.int32)}


@pytest.mark.parametrize(("channels", "weights"), [(4, 23_333_380), (5, 23_334_021)])
def test_m12_weights_of_the_papers_network(channels, weights):
    network = DiffusionUNet(64, channels)
    output = network(inputs(64, channels))
    assert output.shape[1:] == [64, 64, channels]
    assert network.count_params() == weights
    config = ms.load_config("pm_ddpm", "paper")
    assert (list(config.network.widths), config.network.bottleneck) == ([64, 128, 256, 256], 512)
    assert set(network.attention) == {"down_0", "down_1", "down_2", "up_0", "up_1", "up_2"}
    assert [network.attention[place].channels for place in network.attention] == [128, 256, 256, 128, 64, 64]


@pytest.mark.parametrize("size", [32, 64])
def test_m12_the_output_has_the_inputs_shape_and_the_step_reaches_every_block(size):
    network = DiffusionUNet(size, 4, (4, 8, 8, 12), 16, most_attention_side=16)
    assert set(network.attention) == (
        {"down_0", "down_1", "down_2", "up_0", "up_1"} if size == 32 else {"down_1", "down_2", "up_0"}
    )
    x, t = tf.random.stateless_normal([2, size, size, 4], [0, 1]), tf.constant([3, 200])
    with tf.GradientTape() as tape:
        output = network({"x": x, "t": t})
        loss = tf.reduce_sum(output**2)
    assert output.shape == x.shape
    kernels = {block.name: block.encoding.kernel for block in [*network.down, *network.up]}
    assert set(kernels) == {"down_0", "down_1", "down_2", "up_0", "up_1", "up_2"}
    gradients = tape.gradient(loss, list(kernels.values()))
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 1e-6 for gradient in gradients)
    assert not np.allclose(output, network({"x": x, "t": t + 50}), atol=1e-4)


def test_m12_step_encoding_in_float64():
    t, k = np.array([0, 1, 150, 300]), np.arange(128)
    angles = t[:, None] * 10000.0 ** (-2 * k / 256)
    np.testing.assert_allclose(step_encoding(t), np.concatenate([np.sin(angles), np.cos(angles)], 1), atol=2e-5)


def test_m12_blocks_are_what_the_card_says():
    block = diffusion_unet.DiffusionDoubleConvolution(6, residual=True)
    x = tf.random.stateless_normal([2, 5, 5, 6], [7, 7])
    result = block(x).numpy()
    x = x.numpy().astype(np.float64)

    def group_norm(values):
        return (values - values.mean((1, 2, 3), keepdims=True)) / np.sqrt(values.var((1, 2, 3), keepdims=True) + 1e-5)

    def convolution(values, layer):
        return tf.nn.conv2d(tf.constant(values), tf.cast(layer.kernel, tf.float64), 1, "SAME").numpy()

    y = group_norm(convolution(x, block.convolutions[0]))
    y = group_norm(convolution(tf.nn.gelu(y, approximate=False), block.convolutions[1]))
    np.testing.assert_allclose(result, tf.nn.gelu(x + y, approximate=False), atol=1e-5)
    assert len(block.trainable_variables) == 6, "two kernels, two scales and offsets, no biases"


def test_m12_attention_is_softmax_attention_also_in_parts():
    layer = PixelAttention(8)
    x = tf.random.stateless_normal([2, 4, 6, 8], [1, 1])
    whole = layer(x).numpy()
    with mock.patch.object(diffusion_unet, "_QUERIES", 5):
        np.testing.assert_allclose(layer(x), whole, atol=1e-5)
    reference = tf.keras.layers.MultiHeadAttention(4, 2)
    tokens = tf.reshape(x, [2, 24, 8])
    normed = layer.norm(tokens)
    reference(normed, normed)
    kernels, biases = np.split(layer.into.kernel.numpy(), 3, axis=1), np.split(layer.into.bias.numpy(), 3)
    weights = [w for k, b in zip(kernels, biases) for w in (k.reshape(8, 4, 2), b.reshape(4, 2))]
    weights = [weights[0], weights[1], weights[2], weights[3], weights[4], weights[5]]
    reference.set_weights([*weights, layer.out.kernel.numpy().reshape(4, 2, 8), layer.out.bias.numpy()])
    tokens = tokens + reference(normed, normed)
    expected = tokens + layer.feed[1](tf.nn.gelu(layer.feed[0](layer.feed_norm(tokens))))
    np.testing.assert_allclose(whole, tf.reshape(expected, x.shape), atol=1e-5)


# -- M13 --------------------------------------------------------------------------------------------------------------------


def test_m13_guidance_of_one_is_conditional_and_of_zero_unconditional():
    x, t = tf.random.stateless_normal([3, 16, 16, 4], [1, 5]), tf.constant([2, 9, 20])
    labels = tf.constant([0, 1, 1], tf.int64)
    plain = created(**CLASSES)
    conditional, unconditional = plain.noise(x, t, labels).numpy(), plain.noise(x, t, None).numpy()
    assert not np.allclose(conditional, unconditional, atol=1e-3)
    assert not np.allclose(plain.noise(x, t, 1 - labels), conditional, atol=1e-3)
    for scale, expected in (
        (0.0, unconditional),
        (1.0, conditional),
        (3.0, unconditional + 3.0 * (conditional - unconditional)),
        (0.5, (unconditional + conditional) / 2),
    ):
        plain.config = plain.config.replace({"condition.guidance": scale})
        np.testing.assert_allclose(plain.guided_noise(x, t, labels), expected, atol=1e-4)
    np.testing.assert_array_equal(plain.guided_noise(x, t, None), unconditional)


def test_m13_a_tenth_of_the_labels_is_dropped_in_training_only():
    model = created(**CLASSES)
    batch = {"seed": tf.range(20_000, dtype=tf.int64), "label": tf.ones([20_000], tf.int64)}
    kept = tf.function(model.kept_labels)(batch).numpy()
    assert (kept == -1).mean() == pytest.approx(0.1, abs=0.008)
    assert set(kept) == {-1, 1}
    assert created().kept_labels(batch) is None
    model.config = model.config.replace({"condition.drop": 0.0})
    batch = {name: value[:1000] for name, value in batch.items()}
    assert (tf.function(model.kept_labels)(batch).numpy() == 1).all()
    batch = batch_of(model)
    assert set(batch["label"].numpy()) <= {0, 1}
    model.train_step(batch)
    source = ms.open_source("phantom:optic_disc?count=8&size=16")
    with pytest.raises(DataError, match="conditional on classes"):
        without = mock.Mock(wraps=source)
        type(without).__hash__ = object.__hash__
        without.spec = lambda keys: source.spec([]) if not keys else _without_label(source, keys)
        model.dataset(without, model.config, "train")


def _without_label(source, keys):
    from medsynth_tf.data.records import RecordSpec

    return RecordSpec.of(source.read(keys[0]), ("mask", "modality"))


def test_m13_classes_are_asked_for_by_name():
    signatures = created(**CLASSES).signatures()
    seeds = tf.constant([1, 1], tf.int64)
    made = signatures["serving_default"](seed=seeds, label=tf.constant([0, 1], tf.int64))
    assert not np.array_equal(made["image"][0], made["image"][1])
    with pytest.raises(tf.errors.InvalidArgumentError, match="label: classes are 0 … 1"):
        signatures["serving_default"](seed=seeds, label=tf.constant([0, 2], tf.int64))
    with pytest.raises(tf.errors.InvalidArgumentError, match="differ in batch size"):
        signatures["few_steps"](seed=seeds, label=tf.constant([0], tf.int64))


# -- training and sampling --------------------------------------------------------------------------------------------------


def test_steps_are_drawn_from_the_whole_range():
    seeds, model = tf.range(30_000, dtype=tf.int64), created()
    drawn = tf.function(model.drawn_steps)(seeds).numpy()
    counts = np.bincount(drawn, minlength=21)
    assert counts[0] == 0
    assert drawn.max() == 20
    np.testing.assert_allclose(counts[1:], 1500, atol=5 * np.sqrt(1500))
    model.config = model.config.replace({"schedule.train_on_last": False})
    assert tf.function(model.drawn_steps)(seeds).numpy().max() == 19


def test_the_loss_is_the_mean_square_of_the_noise_error_over_all_channels():
    model = created()
    batch = batch_of(model)
    seen = {}
    model.predicted = lambda x, t, labels: seen.setdefault("x", x) * 0.0  # predicts nothing
    loss = float(model.objective(model.joined(batch), batch["seed"], None))
    start, t = model.joined(batch), model.drawn_steps(batch["seed"])
    noise = diffusion.noise_of(model.schedule, seen["x"], t, start).numpy()
    assert loss == pytest.approx((noise**2).mean(), rel=1e-3)
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize("kind", ["paper", "rescaled", "cosine"])
def test_velocity_and_noise_follow_from_each_other_at_every_step(kind):
    process, t = schedule(kind), tf.range(1, 301)
    x = tf.random.stateless_uniform([300, 6, 6, 4], [3, 4], -1.0, 1.0)
    noise = tf.random.stateless_normal(x.shape, [5, 6])
    noisy, velocity = diffusion.q_sample(process, x, t, noise), diffusion.velocity(process, x, t, noise)
    angle = np.arctan2(np.sqrt(1 - process.alpha_bar[1:]), np.sqrt(process.alpha_bar[1:]))[:, None, None, None]
    # x_t = cos φ x_0 + sin φ ε turns with φ, and v is the speed at which it does
    np.testing.assert_allclose(velocity, np.cos(angle) * noise - np.sin(angle) * x, atol=1e-5)
    np.testing.assert_allclose(diffusion.noise_of_velocity(process, noisy, t, velocity), noise, atol=1e-5)


def test_a_network_of_velocities_learns_them_and_samples_by_them():
    model = created(**{"network.predicts": "velocity", "schedule.kind": "cosine"})
    batch = batch_of(model)
    real, t = model.joined(batch), model.drawn_steps(batch["seed"])
    seen = {}
    model.predicted = lambda x, t, labels: seen.setdefault("x", x) * 0.0  # predicts nothing
    loss = float(model.objective(real, batch["seed"], None))
    noise = diffusion.noise_of(model.schedule, seen["x"], t, real).numpy().astype(np.float64)
    bar = model.schedule.alpha_bar[t.numpy()][:, None, None, None]
    assert loss == pytest.approx(((np.sqrt(bar) * noise - np.sqrt(1 - bar) * real.numpy()) ** 2).mean(), rel=1e-3)

    point = real[:1]  # data of a single image, whose velocities are known exactly

    def exact(x, t, labels):
        noise = diffusion.noise_of(model.schedule, x, t, point)
        return diffusion.velocity(model.schedule, tf.broadcast_to(point, tf.shape(x)), t, noise)

    model.predicted = exact
    samples = model.sample(tf.constant([1, 2], tf.int64))
    np.testing.assert_allclose(samples, tf.tile(point, [2, 1, 1, 1]), atol=1e-4)


def test_every_weight_learns_and_the_step_is_traced_once():
    model = created(**CLASSES)
    before = [v.numpy() for v in model.network.trainable_variables]
    source = ms.open_source("phantom:optic_disc?count=24&size=16&atrophy=0.5")
    model.fit(model.dataset(source, model.config, "train", epochs=None), steps_per_epoch=3, epochs=2, verbose=0)
    assert all(not np.array_equal(v, b) for v, b in zip(model.network.trainable_variables, before))
    assert model.train_function.experimental_get_tracing_count() == 1


def test_samplers_differ_as_they_should():
    seeds, samples, model = tf.constant([1, 2], tf.int64), {}, created(**{"schedule.steps": 8})
    plain = model.config
    try:
        tf.config.run_functions_eagerly(True)  # one model, no graph for each sampler
        for name, how in {
            "ddpm": {},
            "ddim": {"sampler": "ddim"},
            "ddim 5": {"sampler": "ddim", "steps": 5},
            "ddim noisy": {"sampler": "ddim", "eta": 1.0},
            "clipped": {"clip_start": True},
        }.items():
            model.config = plain.replace({f"sampling.{key}": value for key, value in how.items()})
            samples[name] = model.sample(seeds).numpy()
            assert np.abs(samples[name]).max() <= 1
            if name in ("ddpm", "ddim 5"):
                samples[f"few of {name}"] = model.sample(seeds, few=True).numpy()
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_array_equal(samples.pop("few of ddim 5"), samples["ddim 5"])
    np.testing.assert_array_equal(samples.pop("few of ddpm"), samples["ddim 5"])
    names = list(samples)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not np.allclose(samples[first], samples[second], atol=1e-3), f"{first} and {second}"


def test_sampling_goes_on_after_a_kill_to_the_same_bytes(tmp_path):
    model = created()
    state, seeds = tmp_path / "state.npz", [5, 2**40 + 1]
    whole = sample_resumable(model, seeds, tmp_path / "whole.npz", every=1000)
    advance, calls = model.advance, []

    def killed(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments[3:5])
        return advance(*arguments)

    model.advance = killed
    with pytest.raises(KeyboardInterrupt):
        sample_resumable(model, seeds, state, every=4)
    assert [tuple(map(int, call)) for call in calls] == [(0, 4), (4, 8)]
    resumed = []
    model.advance = lambda *arguments: resumed.append(int(arguments[3])) or advance(*arguments)
    made = sample_resumable(model, seeds, state, every=3)
    assert resumed[0] == 8
    for name, value in whole.items():
        np.testing.assert_array_equal(made[name], value)
    resumed.clear()
    again = sample_resumable(model, seeds, state)
    assert not resumed
    np.testing.assert_array_equal(again["image"], whole["image"])
    with pytest.raises(DataError, match="another run"):
        sample_resumable(model, [5, 6], state)
    model.network.exit.bias.assign_add(tf.ones([4]))
    model.average.averages[-1].assign_add(tf.ones([4]))
    with pytest.raises(DataError, match="another run"):
        sample_resumable(model, seeds, state)


def test_mixed_precision_keeps_norms_noise_and_samples_in_float32():
    model = created(**{"training.mixed_precision": "bfloat16"})
    assert model.network.entry.convolutions[0].compute_dtype == "bfloat16"
    assert model.network.entry.norms[0].compute_dtype == "float32"
    assert all(v.dtype == tf.float32 for v in model.network.trainable_variables)
    loss = model.train_step(batch_of(model))["loss"]
    assert np.isfinite(loss)
    samples = model.sample(tf.constant([1], tf.int64), few=True)
    assert samples.dtype == tf.float32


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="no block 'down_1'; blocks: down_0, up_0"):
        created(**{"network.attention": ["down_1"]})
    with pytest.raises(ConfigError, match="multiples of 4"):
        created(**{"network.widths": [4, 6], "network.attention": None})
    with pytest.raises(ConfigError, match="multiple of 32"):
        created(**{"image_size": 16, "network.widths": [4] * 6, "network.attention": []})
