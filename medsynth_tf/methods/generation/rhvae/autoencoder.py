"""The generator of one class: a VAE, a VAE with a VampPrior, or an RHVAE with the metric that it learned, as a Keras model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from sklearn.mixture import GaussianMixture

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.early_stopping import BestWeights
from medsynth_tf.methods.generation.rhvae import objective
from medsynth_tf.methods.generation.rhvae.config import SAMPLERS, RHVAEConfig
from medsynth_tf.methods.generation.rhvae.sampling import Mixture, geometric, of_mixture
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.networks.vae import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    DenseDecoder,
    DenseEncoder,
    MetricFactor,
    VAENetworks,
)
from medsynth_tf.ops import random
from medsynth_tf.ops.hamiltonian import Chains
from medsynth_tf.ops.riemannian import LatentMetric

Batch = dict[str, tf.Tensor]
MakeNetworks = Callable[[RHVAEConfig, int], VAENetworks]

_TERMS = {
    "vae": ("loss", "reconstruction", "kl"),
    "vamp": ("loss", "reconstruction", "prior", "posterior"),
    "rhvae": ("loss", "reconstruction", "prior", "momentum", "posterior", "largest_momentum"),
}


def make_networks(config: RHVAEConfig, label: int) -> VAENetworks:
    """The networks that the configuration describes, with weights of their own for each class."""
    own, seed = config.network, layer_seed(config.seed, f"class {label}")
    common: dict[str, Any] = {"shape": config.image_shape, "latent": config.latent_size, "initialiser": own.initialiser}

    def options(name: str) -> dict[str, Any]:
        return {**common, "seed": layer_seed(seed, name), "name": name}

    encoder: tf.keras.Model
    decoder: tf.keras.Model
    if own.kind == "mlp":
        encoder = DenseEncoder(hidden=own.hidden, **options("encoder"))
        decoder = DenseDecoder(hidden=own.hidden, **options("decoder"))
    else:
        encoder = ConvolutionalEncoder(filters=own.filters, dense=own.dense, **options("encoder"))
        decoder = ConvolutionalDecoder(filters=own.filters, dense=own.dense, **options("decoder"))
    metric = None
    if config.model == "rhvae":
        metric = MetricFactor(hidden=own.hidden, pooling=own.metric_pooling, **options("metric"))
    return VAENetworks(encoder, decoder, metric)


class ClassGenerator(Optimisation, tf.keras.Model):
    """Learns the images of one class and makes more of them.

    Call it on {"image": uint8 [B, H, W, C], "seed": int64 [B]} for what the forward pass knows, as `forward` says.

    Args:
        config: of the method.
        label: the class.
        networks: makes encoder, decoder and metric network.
    """

    def __init__(self, config: RHVAEConfig, label: int, networks: MakeNetworks = make_networks, **kwargs: Any):
        super().__init__(name=f"class_{label}", **kwargs)
        self.config, self.label = config, label
        self.distribute_reduction_method = "first"
        self.encoder, self.decoder, self.metric_network = networks(config, label)
        size, most = config.latent_size, config.metric.centroids

        def stored(name: str, value: tf.Tensor) -> tf.Variable:
            aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
            return tf.Variable(value, trainable=False, name=name, aggregation=aggregation)

        # what samplers need, so that the encoder and the images need not be shipped
        self.centroids = stored("centroids", tf.zeros([most, size]))
        self.filled = stored("filled", tf.zeros([most]))
        state = [self.centroids, self.filled]
        self.matrices: tf.Variable | None = None
        if config.model == "rhvae":
            self.matrices = stored("matrices", tf.zeros([most, size, size]))
            state.append(self.matrices)
        self.pseudo_inputs: tf.Variable | None = None
        if config.model == "vamp":
            # the values of the authors of the VampPrior
            key = [layer_seed(config.seed, "pseudo-inputs"), label]
            shape = [config.vamp.pseudo_inputs, *config.image_shape]
            self.pseudo_inputs = tf.Variable(tf.random.stateless_normal(shape, key, 0.05, 0.01), name="pseudo_inputs")
        components = {"gmm": config.sampling.mixture_components, "vamp": config.vamp.pseudo_inputs}.get(
            config.sampling.sampler, 0
        )
        self.mixture: Mixture | None = None
        if components:
            self.mixture = Mixture(
                stored("mixture_weights", tf.ones([components])),
                stored("mixture_means", tf.zeros([components, size])),
                stored("mixture_factors", tf.eye(size, batch_shape=[components])),
            )
            state += list(self.mixture)
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self._measures()}
        self.best = BestWeights([*self.trainable_variables, *state], config.patience, config.training.steps_per_epoch or 1)
        self.built = True

    def _measures(self) -> tuple[str, ...]:
        exact = self.config.model == "rhvae" and self.config.flow.elbo == "exact"
        return (*_TERMS[self.config.model], *(("momentum_posterior",) if exact else ()))

    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with the authors' Adam unless another optimiser is given."""
        optimizer = self.with_loss_scale(optimizer or self.make_adam(self.config.learning_rate, 0.9, 0.999))
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=optimizer, **kwargs)
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the loss and its terms."""
        return list(self.loss_means.values())

    # -- the metric ---------------------------------------------------------------------------------------------------------
    def latent_metric(self) -> LatentMetric:
        """The stored metric.

        Raises:
            ConfigError: the model learns none.
        """
        if self.matrices is None:
            raise ConfigError(f"model '{self.config.model}' learns no metric; model 'rhvae' does")
        used = tf.reduce_max(tf.where(self.filled > 0, tf.range(1, self.filled.shape[0] + 1), 1))
        return self._metric(self.centroids[:used], self.matrices[:used], self.filled[:used])

    def _metric(self, centroids: tf.Tensor, matrices: tf.Tensor, weights: tf.Tensor) -> LatentMetric:
        own = self.config.metric
        return LatentMetric(
            tf.convert_to_tensor(centroids),
            tf.convert_to_tensor(matrices),
            tf.convert_to_tensor(weights),
            own.temperature,
            own.regularisation,
        )

    def _store(self, slots: tf.Tensor, means: tf.Tensor, matrices: tf.Tensor | None) -> None:
        """Writes a batch's centroids and matrices to their slots; those without a slot are left out."""
        has_slot = slots >= 0
        index = tf.boolean_mask(slots, has_slot)[:, tf.newaxis]
        written = [(self.centroids, means), (self.filled, tf.ones_like(means[:, 0]))]
        if self.matrices is not None and matrices is not None:
            written.append((self.matrices, matrices))
        for variable, rows in written:
            variable.assign(tf.tensor_scatter_nd_update(variable, index, tf.boolean_mask(rows, has_slot)))

    # -- forward ------------------------------------------------------------------------------------------------------------
    def pixels(self, batch: Batch, training: bool) -> tf.Tensor:
        """Images float32 [B, H, W, C] in [0, 1], in training perhaps drawn black and white."""
        images = tf.cast(batch["image"], tf.float32) / 255.0
        if training and self.config.binarise:
            drawn = random.uniform(batch["seed"], self.config.image_shape, "binarised")
            images = tf.cast(drawn < images, tf.float32)
        return images

    def forward(self, batch: Batch, training: bool = False, weights: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        """Encodes, moves and decodes.

        Args:
            batch: "image" uint8 [B, H, W, C], "seed" int64 [B].
            training: the metric is that of the batch, over all replicas, and gradients flow through it; else the stored one.
            weights: float32 [B], 0 for images that are not of this class.

        Returns:
            "loss" and its terms [B]; "reconstruction_image" probabilities [B, H, W, C]; "mean", "log_variance", "start" (z_0), "latent"
            (z_K) [B, D]; with a metric "momentum_end" (ρ_K) [B, D], "inverse_metric" (at z_K) [B, D, D], "log_det_metric" [B],
            "matrices" (of the images) [B, D, D].
        """
        images = self.pixels(batch, training)
        mean, log_variance = self.encoder(images)
        size = self.config.latent_size
        noise = random.normal(batch["seed"], (2, size), "posterior")
        start = objective.posterior_sample(mean, log_variance, noise[:, 0])
        outputs = {"mean": mean, "log_variance": log_variance, "start": start}
        if self.metric_network is None:
            logits, latent = self.decoder(start), start
            if self.config.model == "vae":
                terms = objective.vae_terms(images, logits, mean, log_variance)
            else:
                terms = objective.vamp_terms(images, logits, start, (mean, log_variance), self.pseudo_posteriors())
        else:
            factors = self.metric_network(images)
            matrices = tf.matmul(factors, factors, transpose_b=True)
            if training:
                weights = tf.ones_like(start[:, 0]) if weights is None else weights
                metric = self._metric(*(_of_all_replicas(value) for value in (mean, matrices, weights)))
            else:
                metric = self.latent_metric()
            moved = objective.flow(self.config.flow, metric, images, self.decoder, start, noise[:, 1], factors)
            latent = moved.end.points
            logits = self.decoder(latent)
            log_posterior = objective.log_normal(start, mean, log_variance)
            terms = objective.rhvae_terms(self.config.flow, images, logits, moved, log_posterior)
            outputs |= {
                "momentum_end": moved.momentum,
                "inverse_metric": moved.end.inverse,
                "log_det_metric": -2.0 * moved.end.log_density,
                "matrices": matrices,
            }
        return {**outputs, **terms, "latent": latent, "reconstruction_image": tf.sigmoid(logits)}

    def call(self, inputs: Batch, training: bool = False) -> dict[str, tf.Tensor]:
        """As `forward`."""
        return self.forward(inputs, training)

    def pseudo_posteriors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Means and log-variances [K, D] of the pseudo-inputs."""
        return self.encoder(tf.clip_by_value(self.pseudo_inputs, 0.0, 1.0))

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step on images of this class."""
        return self.learn(batch, tf.ones_like(batch["seed"], tf.float32))

    def learn(self, batch: Batch, weights: tf.Tensor) -> dict[str, tf.Tensor]:
        """One step on the images whose weight, float32 [B], is 1; returns the running means."""
        with tf.GradientTape() as tape:
            made = self.forward(batch, training=True, weights=weights)
            loss = _mean(made["loss"], weights)
            scaled = self.replica_loss(loss, self.optimizer)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled, variables)
        # a broken step must not break the weights; where losses are scaled, the optimiser sees to overflowing gradients
        finite = tf.math.is_finite(loss)
        if not isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            finite &= tf.math.is_finite(tf.linalg.global_norm(gradients))
        self.apply(self.optimizer, [tf.where(finite, g, tf.zeros_like(g)) for g in gradients], variables)
        slots = tf.where(finite & (weights > 0), batch["slot"], tf.constant(-1, tf.int64))
        matrices = _of_all_replicas(made["matrices"]) if "matrices" in made else None
        self._store(_of_all_replicas(slots), _of_all_replicas(made["mean"]), matrices)
        if self.config.sampling.sampler == "vamp":
            self._keep_pseudo_posteriors()
        self.best.update(tf.where(finite, loss, float("nan")))
        return self.record(made, weights)

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The loss and its terms with the stored metric, without learning."""
        return self.record(self.forward(batch), tf.ones_like(batch["seed"], tf.float32))

    def record(self, made: dict[str, tf.Tensor], weights: tf.Tensor) -> dict[str, tf.Tensor]:
        """Adds what `forward` returned to the running means, and returns these."""
        for name, mean in self.loss_means.items():
            value = tf.reduce_max(made[name]) if name == "largest_momentum" else _mean(made[name], weights)
            finite = tf.math.is_finite(value)  # the run ends by `best`, whose state says why
            mean.update_state(tf.where(finite, value, 0.0), sample_weight=tf.cast(finite, tf.float32))
        return {name: mean.result() for name, mean in self.loss_means.items()}

    def _keep_pseudo_posteriors(self) -> None:
        assert self.mixture is not None
        mean, log_variance = self.pseudo_posteriors()
        self.mixture.means.assign(mean)
        self.mixture.factors.assign(tf.linalg.diag(tf.exp(0.5 * log_variance)))

    # -- the end of training ------------------------------------------------------------------------------------------------
    def finish(self, images: tf.data.Dataset) -> None:
        """Goes back to the best epoch, and stores what samplers need.

        Args:
            images: batches of all training images of the class, as they are, with "slot".

        Raises:
            NonFiniteLossError: no epoch had a finite loss.
        """
        self.best.restore()
        means = []
        refresh = self.config.metric.store == "refresh"
        if refresh:
            self.filled.assign(tf.zeros_like(self.filled))
        for batch in images:
            pixels = self.pixels(batch, training=False)
            mean, _ = self.encoder(pixels)
            means.append(mean.numpy())
            if refresh:
                factors = self.metric_network(pixels) if self.metric_network is not None else None
                matrices = tf.matmul(factors, factors, transpose_b=True) if factors is not None else None
                self._store(batch["slot"], mean, matrices)
        if self.config.sampling.sampler == "gmm":
            self._fit_mixture(np.concatenate(means))
        elif self.config.sampling.sampler == "vamp":
            self._keep_pseudo_posteriors()

    def _fit_mixture(self, codes: np.ndarray) -> None:
        """A Gaussian mixture of encoded training images; with few images, of fewer Gaussians."""
        assert self.mixture is not None
        most = self.config.sampling.mixture_components
        count = max(1, min(most, len(codes) // 2))
        seed = derive_seed(self.config.seed, "mixture", self.label) % 2**31
        fitted = GaussianMixture(count, reg_covar=1e-6, random_state=seed).fit(codes.astype(np.float64))
        unused = most - count
        size = codes.shape[-1]
        factors = np.linalg.cholesky(fitted.covariances_)
        self.mixture.weights.assign(np.concatenate([fitted.weights_, np.zeros(unused)]))
        self.mixture.means.assign(np.concatenate([fitted.means_, np.zeros([unused, size])]))
        self.mixture.factors.assign(np.concatenate([factors, np.tile(np.eye(size), [unused, 1, 1])]))

    # -- sampling -----------------------------------------------------------------------------------------------------------
    @tf.function(autograph=False, reduce_retracing=True)
    def sample(self, seeds: tf.Tensor, sampler: str | None = None, keep_trace: bool = False) -> Chains:
        """Latent vectors, one for each seed, whatever else is in the batch.

        Args:
            seeds: int64 [B].
            sampler: default: the configuration's.
            keep_trace: return the states of Markov chains.

        Raises:
            ConfigError: the model has no such sampler.
        """
        sampler = sampler or self.config.sampling.sampler
        if sampler not in SAMPLERS[self.config.model]:
            allowed = ", ".join(SAMPLERS[self.config.model])
            raise ConfigError(f"sampler '{sampler}': model '{self.config.model}' has {allowed}")
        if sampler == "prior":
            latent = random.normal(seeds, (self.config.latent_size,), "latent")
        elif sampler in ("gmm", "vamp"):
            if self.mixture is None or sampler != self.config.sampling.sampler:
                raise ConfigError(f"sampler '{sampler}' needs a model that was trained with sampling.sampler '{sampler}'")
            latent = of_mixture(Mixture(*map(tf.convert_to_tensor, self.mixture)), seeds)
        else:
            settings = self.config.sampling.replace({"sampler": sampler})
            return geometric(settings, self.latent_metric(), seeds, keep_trace)
        return Chains(latent, tf.ones_like(latent[:, 0]), None)

    def decode(self, latent: tf.Tensor) -> tf.Tensor:
        """Latent vectors [B, D] → images float32 [B, H, W, C] in [0, 1]."""
        return tf.sigmoid(self.decoder(latent))

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Images, their reconstructions and as many synthetic ones, uint8 [B, H, W, C]."""
        mean, _ = self.encoder(self.pixels(batch, training=False))
        synthetic = self.decode(self.sample(batch["seed"]).states)
        return {
            "image": batch["image"],
            "reconstruction": to_bytes(self.decode(mean)),
            "synthetic": to_bytes(synthetic),
        }


def to_bytes(images: tf.Tensor) -> tf.Tensor:
    """[0, 1] → uint8, rounded."""
    return tf.saturate_cast(tf.round(images * 255.0), tf.uint8)


def _of_all_replicas(values: tf.Tensor) -> tf.Tensor:
    """A replica's rows, followed or preceded by those of the others; gradients flow back to each."""
    context = tf.distribute.get_replica_context()
    return context.all_gather(values, 0) if context.num_replicas_in_sync > 1 else values


def _mean(values: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighted mean, 0 if all weights are; float32 scalar."""
    return tf.math.divide_no_nan(tf.reduce_sum(weights * values), tf.reduce_sum(weights))
