"""A generator for each class of a small set of images, sampled along the learned geometry (Chadebec and Allassonnière, DALI 2021)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.early_stopping import StopWhenStale
from medsynth_tf.methods.generation.rhvae.autoencoder import Batch, ClassGenerator, MakeNetworks, make_networks, to_bytes
from medsynth_tf.methods.generation.rhvae.config import RHVAEConfig
from medsynth_tf.methods.generation.rhvae.data import batches, keys_by_class
from medsynth_tf.methods.stage import Stage


class RHVAE(Method):
    """Images of a class from seeds.

    Call it on {"label": int64 [B], "seed": int64 [B]} for float32 [B, H, W, C] in [0, 1]; without classes "seed" is enough.

    `models[k]` is the generator of class k. A class is trained by a stage of its own; `fit` on batches of mixed classes trains all
    at once, without going back to the best epoch.

    Args:
        config: its settings; (H, W) is `image_size`, C is `channels`.
        networks: (config, class) → other encoders, decoders and metric networks; `medsynth_tf.load` makes those of the configuration.
    """

    config_class = RHVAEConfig
    config: RHVAEConfig

    def __init__(self, config: RHVAEConfig, networks: MakeNetworks = make_networks, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.models = [ClassGenerator(config, label, networks) for label in range(config.classes)]
        self.built = True

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: RHVAEConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, H, W, C], "label", "seed", "slot": int64 [B]} of all classes; "slot" is the place of a training
        image's centroid, -1 for others."""
        return batches(source, config, split, seed, first_step, epochs, split == "train" if training is None else training)

    @classmethod
    def record_requirements(cls, config: RHVAEConfig) -> RecordRequirements:
        """8-bit images; with classes also labels."""
        return RecordRequirements(
            names=("label",) if config.conditional else (), labels=config.classes if config.conditional else None
        )

    def stages(self, source: Source) -> list[Stage]:
        """One stage for each class, which ends when its training loss falls no more; then the class's best weights are restored and
        its centroids stored.

        Raises:
            DataError: a class has no training record, or fewer than there are replicas.
        """
        found = keys_by_class(source, self.config, "train")
        replicas = self.distribute_strategy.num_replicas_in_sync
        for label in range(self.config.classes):
            if len(found.get(label, [])) < replicas:
                raise DataError(f"the training split holds {len(found.get(label, []))} records of class {label}: too few")
        return [self._class_stage(source, model, len(found[model.label])) for model in self.models]

    def _class_stage(self, source: Source, model: ClassGenerator, available: int) -> Stage:
        config, replicas = self.config, self.distribute_strategy.num_replicas_in_sync
        batch = min(config.training.batch_size, available // replicas * replicas)
        steps = config.training.steps_per_epoch or available // batch
        label = model.label

        def begin() -> None:
            with self.distribute_strategy.scope():
                model.best.steps_per_epoch.assign(steps)

        def end() -> None:
            with self.distribute_strategy.scope():
                model.finish(batches(source, config, "train", config.seed, 0, 1, training=False, label=label))

        return Stage(
            name=f"class_{label}",
            model=model,
            epochs=config.training.epochs,
            steps_per_epoch=steps,
            batches=lambda first: batches(source, config, "train", config.seed, first, None, True, label, batch),
            begin=begin,
            end=end,
            callbacks=[StopWhenStale(model.best)],
            preview=model.preview,
        )

    # -- optimisers ---------------------------------------------------------------------------------------------------------
    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with the authors' Adam, or a copy of the given optimiser, for each class."""
        for model in self.models:
            own = None if optimizer is None else type(optimizer).from_config(optimizer.get_config())
            model.compile(own, **kwargs)
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.models[0].optimizer, **kwargs)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of all classes' losses."""
        return [metric for model in self.models for metric in model.metrics]

    # -- Keras steps --------------------------------------------------------------------------------------------------------
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of each class on its own images of a mixed batch."""
        return self._by_class(batch, lambda model, own, weights: model.learn(own, weights))

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The losses of each class on its own images, without learning."""
        return self._by_class(batch, lambda model, own, weights: model.record(model.forward(own), weights))

    def _by_class(self, batch: Batch, step: Callable[..., dict[str, tf.Tensor]]) -> dict[str, tf.Tensor]:
        results: dict[str, tf.Tensor] = {}
        for model in self.models:
            rows = tf.where(batch["label"] == model.label)[:, 0]
            # a class without images gets the batch's first one, which counts nothing: networks are not asked about empty batches
            rows = tf.pad(rows, [[0, 1]])[: tf.maximum(tf.size(rows), 1)]
            own = {name: tf.gather(value, rows) for name, value in batch.items()}
            weights = tf.cast(own["label"] == model.label, tf.float32)
            prefix = f"class_{model.label}/" if self.config.conditional else ""
            results |= {prefix + name: value for name, value in step(model, own, weights).items()}
        return results

    # -- sampling -----------------------------------------------------------------------------------------------------------
    def sample(self, label: tf.Tensor | None, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images float32 [B, H, W, C] in [0, 1], and what share of its proposals each one's Markov chain accepted, float32 [B] (1 where
        the sampler has no chain).

        Args:
            label: int64 [B] in 0 … classes - 1; without classes None.
            seed: int64 [B]; decides the image together with the label, whatever else is in the batch.
        """

        def draw(model: ClassGenerator, rows: tf.Tensor) -> list[tf.Tensor]:
            chains = model.sample(tf.gather(seed, rows))
            return [model.decode(chains.states), chains.acceptance]

        images, acceptance = self._dealt(label, tf.size(seed), draw, [tf.zeros([0, *self.config.image_shape]), tf.zeros([0])])
        return images, acceptance

    def reconstruct(self, label: tf.Tensor | None, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Images uint8 [B, H, W, C] through the encoder's mean: float32 [B, H, W, C] in [0, 1], mean and log-variance [B, D]."""

        def through(model: ClassGenerator, rows: tf.Tensor) -> list[tf.Tensor]:
            pixels = model.pixels({"image": tf.gather(image, rows)}, training=False)
            mean, log_variance = model.encoder(pixels)
            return [model.decode(mean), mean, log_variance]

        latent = tf.zeros([0, self.config.latent_size])
        empty = [tf.zeros([0, *self.config.image_shape]), latent, latent]
        images, mean, log_variance = self._dealt(label, tf.shape(image)[0], through, empty)
        return images, mean, log_variance

    def _dealt(
        self,
        label: tf.Tensor | None,
        count: tf.Tensor,
        work: Callable[[ClassGenerator, tf.Tensor], list[tf.Tensor]],
        empty: list[tf.Tensor],
    ) -> list[tf.Tensor]:
        """`work`(model, rows) of each class that is asked for, as one batch, put back in the request's order."""
        everyone = tf.range(count)
        if label is None:
            return work(self.models[0], everyone)
        index, parts = [], []
        for model in self.models:
            rows = tf.boolean_mask(everyone, label == model.label)
            index.append(rows)
            parts.append(tf.cond(tf.size(rows) > 0, lambda m=model, r=rows: work(m, r), lambda: empty))
        return [tf.dynamic_stitch(index, list(results)) for results in zip(*parts)]

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """{"label": int64 [B], "seed": int64 [B]} → images float32 [B, H, W, C] in [0, 1]."""
        return self.sample(inputs["label"] if self.config.conditional else None, inputs["seed"])[0]

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """`serving_default`: label int64 [B], seed int64 [B] → image uint8 [B, H, W, C], acceptance float32 [B] (what share of its
        proposals the image's Markov chain accepted). `reconstruct`: image uint8 [B, H, W, C], label int64 [B] → image, and mean and
        log_variance float32 [B, D] of its latent vector. Without classes neither takes a label."""
        classes, shape = self.config.classes, self.config.image_shape

        def checked(name: str, first: tf.Tensor, label: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
            # before anything runs: kernels may not stand an empty batch
            checks = [tf.debugging.assert_positive(tf.shape(first)[0], f"{name}: the batch is empty")]
            if label is not None:
                message = f"{name} and label differ in batch size"
                checks.append(tf.debugging.assert_equal(tf.shape(first)[0], tf.shape(label)[0], message))
                known = tf.reduce_all((label >= 0) & (label < classes))
                checks.append(tf.debugging.assert_equal(known, True, f"label: classes are 0 … {classes - 1}"))
            with tf.control_dependencies(checks):
                return tf.identity(first), None if label is None else tf.identity(label)

        def synthesize(seed: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
            seed, label = checked("seed", seed, label)
            images, acceptance = self.sample(label, seed)
            return {"image": tf.ensure_shape(to_bytes(images), [None, *shape]), "acceptance": acceptance}

        def reconstruct(image: tf.Tensor, label: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
            image, label = checked("image", image, label)
            images, mean, log_variance = self.reconstruct(label, image)
            images = tf.ensure_shape(to_bytes(images), [None, *shape])
            return {"image": images, "mean": mean, "log_variance": log_variance}

        labels = [tf.TensorSpec([None], tf.int64, name="label")] if self.config.conditional else []
        seeds = tf.TensorSpec([None], tf.int64, name="seed")
        images = tf.TensorSpec([None, *shape], tf.uint8, name="image")
        return {
            "serving_default": tf.function(synthesize, input_signature=[seeds, *labels]),
            "reconstruct": tf.function(reconstruct, input_signature=[images, *labels]),
        }

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature: class 0, a grey image."""
        labels = {"label": np.zeros([1], np.int64)} if self.config.conditional else {}
        grey = np.full([1, *self.config.image_shape], 128, np.uint8)
        return {"serving_default": {"seed": np.zeros([1], np.int64), **labels}, "reconstruct": {"image": grey, **labels}}

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Images, their reconstructions and synthetic ones of the same classes, uint8 [B, H, W, C]."""
        label = batch["label"] if self.config.conditional else None
        reconstruction = to_bytes(self.reconstruct(label, batch["image"])[0])
        synthetic = to_bytes(self.sample(label, batch["seed"])[0])
        return {"image": batch["image"], "reconstruction": reconstruction, "synthetic": synthetic}
