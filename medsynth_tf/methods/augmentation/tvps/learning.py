"""How tvps learns: the online loop of discriminator, generator and classifier, and the baselines' step."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.losses.adversarial import logistic_discriminator, logistic_generator
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.augmentation.tvps.networks import PartialDecoder, PartialEncoder, PatchScorer
from medsynth_tf.methods.augmentation.tvps.synthesis import Generated, Holes, draw_holes
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.ops import mixing
from medsynth_tf.ops.patch_masks import crop_around_hole

Batch = dict[str, tf.Tensor]


class OnlineLearning(Optimisation):
    """The steps of `TVPS`, which brings the networks, their optimisers, and the way from maps to compositions."""

    config: TVPSConfig
    classifier: ImageClassifier
    encoder: PartialEncoder | None
    decoder: PartialDecoder | None
    discriminator: PatchScorer | None
    total_steps: tf.Variable
    generator_optimizer: tf.keras.optimizers.Optimizer
    discriminator_optimizer: tf.keras.optimizers.Optimizer
    classifier_optimizer: tf.keras.optimizers.Optimizer
    maps_of: Any
    generate: Any
    finish_map: Any
    compose: Any
    tuned_variables: Any

    def reconstruction(self, raw: tf.Tensor, maps: tf.Tensor, visible: tf.Tensor) -> dict[str, tf.Tensor]:
        """The weighted loss of each pixel's mean, and its parts: {"loss", "hole", "context"}, float32 scalars."""
        own = self.config.losses
        if self.config.domain == "vessel":
            errors = tf.nn.sigmoid_cross_entropy_with_logits(labels=maps, logits=raw)
        else:
            errors = tf.abs(raw - maps)
        errors = tf.reduce_mean(errors, -1, keepdims=True)
        hole = 1.0 - visible
        return {
            "loss": tf.reduce_mean(errors * (own.hole_weight * hole + own.context_weight * visible)),
            "hole": tf.math.divide_no_nan(tf.reduce_sum(errors * hole), tf.reduce_sum(hole)),
            "context": tf.math.divide_no_nan(tf.reduce_sum(errors * visible), tf.reduce_sum(visible)),
        }

    def judged(self, maps: tf.Tensor, keep: tf.Tensor) -> tf.Tensor:
        """What the discriminator sees of maps [B, S, S, C]: the patch around the hole, or all."""
        if self.config.discriminator.scope == "full":
            return maps
        return crop_around_hole(maps, keep, self.config.discriminator.patch)

    def schedule(self) -> tuple[tf.Tensor, tf.Tensor]:
        """How far λ_kl has risen, in [0, 1], and whether the warm-up is over, 0 or 1; by the classifier's steps so far."""
        own = self.config.losses
        total = tf.cast(tf.maximum(self.total_steps, 1), tf.float32)
        progress = tf.cast(self.classifier_optimizer.iterations, tf.float32) / total
        ramp = tf.minimum(progress / own.kl_ramp, 1.0) if own.kl_ramp else tf.constant(1.0)
        return ramp, tf.cast(progress >= own.warm_up, tf.float32)

    def online_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Draws holes, fills and composes them, and lets discriminator, generator and classifier learn, in this order.

        The generator's losses are functions of the decoder's output alone: each is differentiated there once, which also tells how
        strongly each pulls, and their sum goes back through decoder and encoder.
        """
        image, label, seeds = batch["image"], batch["label"], batch["seed"]
        maps = self.maps_of(batch)
        holes = draw_holes(self.config.masks, image, seeds)
        ramp, active = self.schedule()
        with tf.GradientTape() as tape:
            made = self.generate(maps, holes.visible, seeds, training=True)
            divergence = self.replica_loss(self.config.losses.kl * ramp * made.kl, self.generator_optimizer)
        measured = self._discriminator_step(maps, made.raw, holes.keep)
        gradient, tuned, composition, more = self.output_gradients(image, label, maps, made.raw, holes, active)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables  # type: ignore[union-attr]
        targets, weights = [made.raw], [gradient]
        if self.config.generator.variational:
            targets, weights = [*targets, divergence], [*weights, tf.ones_like(divergence)]
        gradients = tape.gradient(
            targets, variables, output_gradients=weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        self.apply(self.generator_optimizer, [*gradients, *tuned], variables + self.tuned_variables)
        measured |= more | self._classifier_step(image, label, composition, active)
        measured["kl_component"] = tf.reduce_mean(made.kl_component)
        measured["kl_gaussian"] = tf.reduce_mean(made.kl_gaussian)
        return measured | self.usage(made)

    def usage(self, made: Generated) -> dict[str, tf.Tensor]:
        """Share of the batch that each component of the mixture was drawn for."""
        usage = tf.reduce_mean(made.component, axis=0)
        return {f"component_{k}": usage[k] for k in range(self.config.generator.components)}

    def _discriminator_step(self, maps: tf.Tensor, raw: tf.Tensor, keep: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.discriminator is None:
            return {}
        fake = self.judged(tf.stop_gradient(self.finish_map(raw, maps, keep)), keep)
        with tf.GradientTape() as tape:
            on_real = self.discriminator(self.judged(maps, keep), training=True)
            on_fake = self.discriminator(fake, training=True)
            loss = logistic_discriminator(on_real, on_fake)
            objective = self.replica_loss(loss, self.discriminator_optimizer)
        variables = self.discriminator.trainable_variables
        self.apply(self.discriminator_optimizer, tape.gradient(objective, variables), variables)
        right = tf.concat([on_real > 0.0, on_fake <= 0.0], 0)
        return {"discriminator": loss, "discriminator_accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}

    def output_gradients(
        self, image: tf.Tensor, label: tf.Tensor, maps: tf.Tensor, raw: tf.Tensor, holes: Holes, active: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor], tf.Tensor, dict[str, tf.Tensor]]:
        """Gradient of the generator's losses at its output, that of the fine-tuned translator, the compositions, and measures.

        The classifier judges in inference mode here: neither its weights nor its batch-norm statistics move.
        """
        own, optimizer = self.config.losses, self.generator_optimizer
        measured: dict[str, tf.Tensor] = {}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(raw)
            errors = self.reconstruction(raw, maps, holes.visible)
            reconstruction = self.replica_loss(own.reconstruction * errors["loss"], optimizer)
            finished = self.finish_map(raw, maps, holes.keep)
            composition, _ = self.compose(image, finished, holes.keep)
            if self.discriminator is not None:
                measured["generator"] = logistic_generator(self.discriminator(self.judged(finished, holes.keep), training=True))
                adversarial = self.replica_loss(own.adversarial * measured["generator"], optimizer)
            if own.task:
                measured["task"] = cross_entropy(self.classifier(composition, training=False)["logits"], label)
                task = self.replica_loss(active * own.task * own.task_sign * measured["task"], optimizer)
        by_reconstruction = tape.gradient(reconstruction, raw)
        gradient, tuned = by_reconstruction, [tf.zeros_like(v) for v in self.tuned_variables]
        if self.discriminator is not None:
            gradient += tape.gradient(adversarial, raw)
        if own.task:
            by_task, tuned = tape.gradient(task, [raw, self.tuned_variables])
            gradient += by_task
            measured["task_gradient_ratio"] = tf.math.divide_no_nan(tf.norm(by_task), tf.norm(by_reconstruction))
        measured["reconstruction_hole"], measured["reconstruction_context"] = errors["hole"], errors["context"]
        return gradient, tuned, composition, measured

    def _classifier_step(
        self, image: tf.Tensor, label: tf.Tensor, composition: tf.Tensor, active: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """CE on real images + λ_syn CE on compositions, in one pass; its gradient ends at the compositions."""
        images = tf.concat([to_unit(image), tf.stop_gradient(composition)], 0)
        with tf.GradientTape() as tape:
            on_real, on_synthetic = tf.split(self.classifier(images, training=True)["logits"], 2)
            losses = {
                "classifier_real": cross_entropy(on_real, label),
                "classifier_synthetic": cross_entropy(on_synthetic, label),
            }
            weight = active * self.config.losses.synthetic
            loss = losses["classifier_real"] + weight * losses["classifier_synthetic"]
            objective = self.replica_loss(loss, self.classifier_optimizer)
        variables = self.classifier.trainable_variables
        self.apply(self.classifier_optimizer, tape.gradient(objective, variables), variables)
        return losses | {"accuracy": mean_accuracy(on_real, label)}

    def baseline_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """The classifier on the baseline's images and targets."""
        images, targets = self.mix(batch)
        with tf.GradientTape() as tape:
            logits = self.classifier(images, training=True)["logits"]
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits))
            objective = self.replica_loss(loss, self.classifier_optimizer)
        variables = self.classifier.trainable_variables
        self.apply(self.classifier_optimizer, tape.gradient(objective, variables), variables)
        return {"classifier_real": loss, "accuracy": mean_accuracy(logits, batch["label"])}

    def mix(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """The baseline's images float32 [B, S, S, C] in [-1, 1] and targets [B, K]."""
        own, seeds = self.config.mixing, batch["seed"]
        images, targets = to_unit(batch["image"]), tf.one_hot(batch["label"], self.config.classes)
        if self.config.augmentation == "mixup":
            return mixing.mixup(images, targets, seeds, own.alpha)
        if self.config.augmentation == "cutmix":
            return mixing.cutmix(images, targets, seeds, own.alpha)[:2]
        if self.config.augmentation == "cutout":
            images = mixing.cutout(images, seeds, own.cutout_side)
        return images, targets


def to_unit(image: tf.Tensor) -> tf.Tensor:
    """uint8 → float32 in [-1, 1]."""
    return tf.cast(image, tf.float32) / 127.5 - 1.0


def mean_accuracy(logits: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
    """Share of right answers, float32 scalar: logits [B, K], label int64 [B]."""
    return tf.reduce_mean(tf.cast(tf.argmax(logits, -1) == label, tf.float32))
