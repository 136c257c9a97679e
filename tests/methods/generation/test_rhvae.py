"""Card 17: losses, networks and data, each item by its number."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import medsynth_tf as ms
from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.data.phantoms import PhantomSource
from medsynth_tf.methods.generation.rhvae import objective
from medsynth_tf.methods.generation.rhvae.autoencoder import make_networks
from medsynth_tf.methods.generation.rhvae.data import slots
from medsynth_tf.methods.generation.rhvae.model import RHVAE
from medsynth_tf.networks.vae import ConvolutionalDecoder, ConvolutionalEncoder, DenseEncoder, VAENetworks

TINY = {
    "image_size": [16, 16],
    "latent_size": 3,
    "network.hidden": 12,
    "metric.centroids": 16,
    # the theory's flow; profiles take the authors'
    "flow": {"steps": 2, "fixed_point_iterations": 2, "momentum_init": "cholesky_G", "elbo": "exact", "gradient": "full"},
    "sampling": {"steps": 4, "leapfrog_steps": 3},
    "training": {"batch_size": 6, "steps_per_epoch": None, "epochs": 3, "checkpoint_steps": 2},
    "data.split_fractions": [0.6, 0.2, 0.2],
}
SOURCE = "phantom:shapes?count=30&size=16&classes=2"


def tiny(**overrides):
    return ms.load_config("rhvae", overrides={**TINY, **overrides})


def created(**overrides):
    model = ms.create("rhvae", tiny(**overrides))
    model.compile()
    return model


def batch_of(count=6, label=0, seed=3):
    source = PhantomSource("shapes", 2 * count, size=16, classes=2, seed=seed)
    records = [source.read(key) for key in source.keys() if key.label == label]
    return {
        "image": tf.constant(np.stack([r["image"] for r in records])),
        "label": tf.fill([count], tf.constant(label, tf.int64)),
        "seed": tf.range(count, dtype=tf.int64),
        "slot": tf.range(count, dtype=tf.int64),
    }


# -- M7, M8 -----------------------------------------------------------------------------------------------------------------


def test_m7_without_flow_the_exact_bound_is_the_vaes_one_sample_bound():
    generator = created(**{"flow.steps": 0, "flow.elbo": "exact"}).models[0]
    batch = batch_of()
    made = generator.forward(batch, training=True)
    images = np.asarray(batch["image"], np.float64) / 255
    probabilities = np.asarray(tf.sigmoid(tf.cast(generator.decoder(made["start"]), tf.float64)))
    likelihood = (images * np.log(probabilities) + (1 - images) * np.log(1 - probabilities)).sum((1, 2, 3))
    normal = tfp.distributions.MultivariateNormalDiag
    prior = normal(tf.zeros([3]), tf.ones([3])).log_prob(made["start"])
    posterior = normal(made["mean"], tf.exp(0.5 * made["log_variance"])).log_prob(made["start"])
    np.testing.assert_allclose(made["loss"], -(likelihood + prior - posterior), rtol=1e-5)
    np.testing.assert_array_equal(made["latent"], made["start"])
    # the reference lacks the momentum's entropy
    reference = created(**{"flow.steps": 0, "flow.elbo": "reference"}).models[0].forward(batch, training=True)
    assert np.abs(reference["loss"] - made["loss"]).min() > 1e-3


@pytest.mark.parametrize("momentum", ["cholesky_G", "reference"])
def test_m8_the_loss_is_the_sum_of_log_densities(momentum):
    generator = created(**{"flow.elbo": "exact", "flow.momentum_init": momentum, "flow.step_size": 0.05}).models[0]
    batch = batch_of()
    made = {name: np.asarray(value, np.float64) for name, value in generator.forward(batch, training=True).items()}
    total = sum(made[name] for name in ("reconstruction", "prior", "momentum", "posterior", "momentum_posterior"))
    np.testing.assert_allclose(made["loss"], total, rtol=1e-6)
    normal = tfp.distributions.MultivariateNormalDiag
    zeros = np.zeros(3)
    np.testing.assert_allclose(made["prior"], -normal(zeros, np.ones(3)).log_prob(made["latent"]), rtol=1e-5)
    np.testing.assert_allclose(
        made["posterior"], normal(made["mean"], np.exp(0.5 * made["log_variance"])).log_prob(made["start"]), rtol=1e-4
    )
    covariance = np.linalg.inv(made["inverse_metric"])
    full = tfp.distributions.MultivariateNormalFullCovariance(zeros, covariance)
    np.testing.assert_allclose(made["momentum"], -full.log_prob(made["momentum_end"]), rtol=1e-3)
    np.testing.assert_allclose(made["log_det_metric"], np.linalg.slogdet(covariance)[1], rtol=1e-4, atol=1e-4)
    # the momentum's own density, with the covariance that it was drawn with
    factors = generator.metric_network(tf.cast(batch["image"], tf.float32) / 255.0)
    metric = generator._metric(made["mean"].astype(np.float32), factors @ tf.transpose(factors, [0, 2, 1]), tf.ones([6]))
    start = metric.at(tf.constant(made["start"], tf.float32))
    noise = tf.constant(np.random.default_rng(0).normal(size=(6, 3)), tf.float32)
    images = tf.cast(batch["image"], tf.float32) / 255.0
    moved = objective.flow(generator.config.flow, metric, images, generator.decoder, start.points, noise, factors)
    scale = start.tensor if momentum == "cholesky_G" else factors @ tf.transpose(factors, [0, 2, 1])
    drawn = moved.momentum_start * generator.config.flow.beta_zero_sqrt
    own = tfp.distributions.MultivariateNormalFullCovariance(zeros, np.asarray(scale, np.float64))
    np.testing.assert_allclose(moved.log_momentum_posterior, own.log_prob(np.asarray(drawn, np.float64)), rtol=1e-3)


def test_m8_the_plain_vae_and_the_vampprior():
    generator = created(model="vae", **{"sampling.sampler": "prior"}).models[0]
    made = generator.forward(batch_of())
    kl = tfp.distributions.kl_divergence(
        tfp.distributions.MultivariateNormalDiag(made["mean"], tf.exp(0.5 * made["log_variance"])),
        tfp.distributions.MultivariateNormalDiag(tf.zeros([3]), tf.ones([3])),
    )
    np.testing.assert_allclose(made["loss"], made["reconstruction"] + kl, rtol=1e-5)
    generator = created(model="vamp", **{"sampling.sampler": "vamp", "vamp.pseudo_inputs": 4}).models[0]
    made = generator.forward(batch_of())
    mean, log_variance = generator.encoder(generator.pseudo_inputs)
    mixture = tfp.distributions.MixtureSameFamily(
        tfp.distributions.Categorical(logits=tf.zeros([4])),
        tfp.distributions.MultivariateNormalDiag(mean, tf.exp(0.5 * log_variance)),
    )
    np.testing.assert_allclose(made["prior"], -mixture.log_prob(made["latent"]), rtol=1e-4)
    log_q = tfp.distributions.MultivariateNormalDiag(made["mean"], tf.exp(0.5 * made["log_variance"])).log_prob(made["latent"])
    np.testing.assert_allclose(made["loss"], made["reconstruction"] + made["prior"] + log_q, rtol=1e-5)


def test_m8_momenta_are_drawn_from_the_metric():
    metric = created().models[0]._metric(tf.zeros([1, 3]), tf.constant([np.diag([4.0, 1.0, 0.25])], tf.float32), tf.ones([1]))
    noise = tf.random.stateless_normal([20000, 3], [1, 2])
    here = metric.at(tf.zeros([20000, 3]))
    covariance = np.cov(here.momentum(noise).numpy().T)
    np.testing.assert_allclose(covariance, np.diag([1 / 4.001, 1 / 1.001, 1 / 0.251]), atol=0.1)


def test_m8_the_reference_bound_lacks_the_momentums_entropy_alone():
    exact, reference = (created(**{"flow.elbo": elbo}).models[0].forward(batch_of()) for elbo in ("exact", "reference"))
    assert "momentum_posterior" not in reference
    np.testing.assert_allclose(exact["loss"] - exact["momentum_posterior"], reference["loss"], rtol=1e-5)


@pytest.mark.parametrize("gradient", ["full", "detached"])
def test_gradients_reach_all_networks_and_the_flow_is_differentiated_as_asked(gradient):
    settings = {"flow.gradient": gradient, "flow.step_size": 0.05}
    generator = created(**settings).models[0]
    batch = batch_of()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(generator.forward(batch, training=True)["loss"])
    gradients = tape.gradient(loss, generator.trainable_variables)
    assert all(float(tf.reduce_max(tf.abs(g))) > 0 for g in gradients)
    # against finite differences along a random direction: only the full gradient is the loss's own
    rng = np.random.default_rng(0)
    direction = [tf.constant(rng.normal(size=v.shape), tf.float32) for v in generator.trainable_variables]
    step = 2e-3

    def at(shift):
        for variable, d in zip(generator.trainable_variables, direction):
            variable.assign_add(shift * d)
        value = float(tf.reduce_mean(tf.cast(generator.forward(batch, training=True)["loss"], tf.float64)))
        for variable, d in zip(generator.trainable_variables, direction):
            variable.assign_sub(shift * d)
        return value

    measured = (at(step) - at(-step)) / (2 * step)
    predicted = float(sum(tf.reduce_sum(g * d) for g, d in zip(gradients, direction)))
    if gradient == "full":
        assert predicted == pytest.approx(measured, rel=0.02)
    else:
        full = created(**{**settings, "flow.gradient": "full"}).models[0]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(full.forward(batch, training=True)["loss"])
        others = tape.gradient(loss, full.trainable_variables)
        assert max(float(tf.reduce_max(tf.abs(a - b))) for a, b in zip(gradients, others)) > 1e-4


# -- networks ---------------------------------------------------------------------------------------------------------------


def test_the_papers_networks_have_their_size():
    config = ms.load_config("rhvae", "paper")
    height, width = config.image_size
    assert (height, width, config.channels) == (208, 176, 1)
    networks = make_networks(config, 0)
    d = config.latent_size
    convolutions = sum(9 * a * b + b for a, b in ((1, 32), (32, 64), (64, 128), (128, 128)))
    features = 13 * 11 * 128
    assert networks.encoder.count_params() == convolutions + features * 256 + 256 + 2 * (256 * d + d)
    mirrored = sum(9 * a * b + b for a, b in ((128, 128), (128, 64), (64, 32), (32, 1)))
    assert networks.decoder.count_params() == d * 256 + 256 + 256 * features + features + mirrored
    pooled = 52 * 44
    below = d * (d - 1) // 2
    assert networks.metric.count_params() == pooled * 400 + 400 + 401 * (d + below)
    assert networks.decoder(tf.zeros([1, d])).shape == (1, 208, 176, 1)


def test_torch_initialisation_is_uniform_by_fan_in():
    shape = (16, 16, 1)
    encoder = DenseEncoder(shape, 2, 400, "torch", 0)
    for layer, fan_in in ((encoder.hidden, 256), (encoder.heads.mean, 400)):
        for weight in (layer.kernel, layer.bias):
            values = weight.numpy().ravel()
            limit = fan_in**-0.5
            assert np.abs(values).max() <= limit
            if values.size > 100:
                assert values.std() == pytest.approx(limit / math.sqrt(3), rel=0.1)
    assert np.abs(encoder.heads.mean.kernel - encoder.heads.log_variance.kernel).max() > 0
    assert not DenseEncoder(shape, 2, 8, "glorot", 0).hidden.bias.numpy().any()
    convolution = ConvolutionalEncoder(shape, 2, (4, 8), 6, "torch", 0).convolutions[1]
    assert np.abs(convolution.kernel).max() <= 36**-0.5
    decoder = ConvolutionalDecoder(shape, 2, (4, 8), 6, "torch", 0)
    assert np.abs(decoder.convolutions[0].kernel).max() <= 36**-0.5
    assert decoder(tf.zeros([3, 2])).shape == (3, 16, 16, 1)


def test_a_convolutional_rhvae_learns_and_others_networks_can_be_given():
    overrides = {"network.kind": "conv", "network.filters": [4, 8], "network.dense": 8, "network.metric_pooling": 4}
    model = created(**overrides)
    first = model.models[0].train_step(batch_of())["loss"]
    for _ in range(5):
        last = model.models[0].train_step(batch_of())["loss"]
    assert float(last) < float(first)

    def of_mine(config, label):
        mine = make_networks(config, label)
        return VAENetworks(
            mine.encoder, tf.keras.Sequential([tf.keras.layers.Dense(256), tf.keras.layers.Reshape([16, 16, 1])]), mine.metric
        )

    def built(config, label):
        networks = of_mine(config, label)
        networks.decoder.build([None, config.latent_size])
        return networks

    mine = RHVAE(tiny(), networks=built)
    mine.compile()
    mine.models[1].train_step(batch_of(label=1))
    assert mine.models[1].decode(tf.zeros([2, 3])).shape == (2, 16, 16, 1)


# -- data -------------------------------------------------------------------------------------------------------------------


def test_binarised_images_are_bernoulli_draws_that_change_with_the_seed():
    generator = created(binarise=True).models[0]
    batch = {"image": tf.fill([2, 16, 16, 1], tf.constant(64, tf.uint8)), "seed": tf.constant([1, 2], tf.int64)}
    drawn = generator.pixels(batch, training=True).numpy()
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert drawn.mean() == pytest.approx(64 / 255, abs=0.06)
    assert not np.array_equal(drawn[0], drawn[1])
    np.testing.assert_allclose(generator.pixels(batch, training=False), 64 / 255, rtol=1e-6)


def test_every_training_image_has_a_slot_of_its_own():
    source = ms.open_source(SOURCE)
    config = tiny()
    placed = slots(source, config)
    by_class = {label: sorted(placed[k.id] for k in source.keys() if k.label == label and k.id in placed) for label in (0, 1)}
    train_keys = {key.id for key in source.split("train", config.data.split_fractions, config.seed)}
    assert set(placed) == train_keys
    for found in by_class.values():
        assert found == list(range(len(found)))
    few = slots(source, tiny(**{"metric.centroids": 2}))
    assert sorted(few.values()) == [0, 0, 1, 1]
    for batch in RHVAE.dataset(source, config, "val"):
        assert (batch["slot"] == -1).numpy().all()
    seen = [int(slot) for batch in RHVAE.dataset(source, config, "train", training=False) for slot in batch["slot"]]
    assert sorted(seen) == sorted(placed.values())


def test_unfit_data_and_settings_are_refused():
    source = ms.open_source(SOURCE)
    with pytest.raises(DataError, match="beyond classes"):
        list(RHVAE.dataset(PhantomSource("vessel_classes", 12), tiny(), "train"))
    with pytest.raises(DataError, match="class 2"):
        created(classes=3).stages(source)
    with pytest.raises(ConfigError, match="model 'vae' has prior, gmm"):
        tiny(model="vae")
    with pytest.raises(ConfigError, match="multiples of 2"):
        tiny(**{"network.kind": "conv", "image_size": [16, 20]})
    with pytest.raises(ConfigError, match="metric_pooling"):
        tiny(**{"network.metric_pooling": 5})
    with pytest.raises(ConfigError, match="keeps no average"):
        tiny(**{"training.ema_decay": 0.9})
    with pytest.raises(ConfigError, match="learns no metric"):
        created(model="vae", **{"sampling.sampler": "prior"}).models[0].latent_metric()
    model = created()
    with pytest.raises(ConfigError, match="model 'rhvae' has"):
        model.models[0].sample(tf.constant([1], tf.int64), "vamp")
