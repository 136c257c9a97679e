"""CycleGAN between two domains of images (Zhu et al., arXiv:1703.10593): networks and one train step, for methods that translate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.replay_buffer import ReplayBuffer
from medsynth_tf.losses.adversarial import least_squares_discriminator, least_squares_generator
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.running_means import recorded
from medsynth_tf.networks.resnet_translator import PatchScorer, ResNetTranslator


class CycleGAN(Optimisation, tf.keras.Model):
    """Translators of two domains into each other and their discriminators, on images float32 in [-1, 1].

    Call it on images of the first domain for images of the second.

    Args:
        config: of the method, for precision and clipping.
        size: height and width of the images.
        channels: of the first and the second domain.
        filters: first width of all networks.
        blocks: residual blocks of the translators.
        cycle, identity: weights of the two L1 losses; the identity needs equal channels.
        paired: weight of the L1 between translations and the other domain's image; not 0 only where these belong together.
        learning_rate, beta_1: of both Adam optimisers.
        names: of the domains.
        buffer: earlier fakes that discriminators are shown; 0: none.
        scorer: options of the discriminators.
        seed: of all weights.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("translator", "cycle", "identity", "paired", "translator_discriminator")

    def __init__(
        self,
        config: Any,
        size: Sequence[int],
        channels: tuple[int, int],
        filters: int,
        blocks: int,
        cycle: float,
        identity: float,
        learning_rate: float,
        beta_1: float,
        names: tuple[str, str],
        buffer: int = 0,
        paired: float = 0.0,
        scorer: dict[str, Any] | None = None,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.config, self.cycle, self.identity, self.paired = config, cycle, identity, paired
        self.learning_rate, self.beta_1 = learning_rate, beta_1
        self.distribute_reduction_method = "first"  # as for methods: what is measured is a mean over replicas already
        first, second = names

        def part(kind: Any, name: str, *arguments: Any, **options: Any) -> Any:
            return kind(*arguments, seed=layer_seed(seed, name), name=name, **options)

        self.to_second = part(ResNetTranslator, f"to_{second}", channels[1], filters, blocks)
        self.to_first = part(ResNetTranslator, f"to_{first}", channels[0], filters, blocks)
        self.second_scorer = part(PatchScorer, f"{second}_scorer", filters, **(scorer or {}))
        self.first_scorer = part(PatchScorer, f"{first}_scorer", filters, **(scorer or {}))
        of_first, of_second = (tf.keras.Input([*size, count]) for count in channels)
        for network, example in (
            (self.to_second, of_first),
            (self.first_scorer, of_first),
            (self.to_first, of_second),
            (self.second_scorer, of_second),
        ):
            network(example)
        self.buffers = [
            ReplayBuffer(buffer, [*size, count], name=f"{name}_buffer")
            for name, count in zip((second, first), reversed(channels))
            if buffer
        ]
        left_out = {name for name, weight in (("identity", identity), ("paired", paired)) if weight == 0}
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in self.LOSSES if name not in left_out}
        self.built = True

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """Of both directions."""
        return self.to_second.trainable_variables + self.to_first.trainable_variables

    @property
    def scorer_variables(self) -> list[tf.Variable]:
        """Of both discriminators."""
        return self.second_scorer.trainable_variables + self.first_scorer.trainable_variables

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with CycleGAN's two Adam optimisers."""
        self.generator_optimizer = self.make_adam(self.learning_rate, self.beta_1, 0.999)
        self.discriminator_optimizer = self.make_adam(self.learning_rate, self.beta_1, 0.999)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.scorer_variables)

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images of the first domain, float32 [B, H, W, C] in [-1, 1] → of the second."""
        return self.to_second(images, training=training)

    def domains(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The two domains' images of a training batch, float32 in [-1, 1]; they need not belong together unless `paired` is set."""
        raise NotImplementedError(f"{type(self).__name__} says not where its batches have the two domains")

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of both pairs on the batch's `domains` and its "seed", int64 [B]."""
        first, second = self.domains(batch)
        losses: dict[str, tf.Tensor] = {}
        with tf.GradientTape() as tape:
            fake_second, fake_first = self.to_second(first, training=True), self.to_first(second, training=True)
            losses["translator"] = least_squares_generator(
                self.second_scorer(fake_second, training=True)
            ) + least_squares_generator(self.first_scorer(fake_first, training=True))
            losses["cycle"] = _l1(self.to_first(fake_second, training=True), first) + _l1(
                self.to_second(fake_first, training=True), second
            )
            objective = losses["translator"] + self.cycle * losses["cycle"]
            if self.identity > 0:
                losses["identity"] = _l1(self.to_second(second, training=True), second) + _l1(
                    self.to_first(first, training=True), first
                )
                objective += self.identity * losses["identity"]
            if self.paired > 0:
                losses["paired"] = _l1(fake_second, second) + _l1(fake_first, first)
                objective += self.paired * losses["paired"]
            objective = self.replica_loss(objective, self.generator_optimizer)
        gradients = tape.gradient(objective, self.generator_variables)
        shown = [tf.stop_gradient(fake_second), tf.stop_gradient(fake_first)]
        if self.buffers:
            shown = [buffer(fake, batch["seed"]) for buffer, fake in zip(self.buffers, shown)]
        with tf.GradientTape() as tape:
            losses["translator_discriminator"] = tf.add_n(
                [
                    least_squares_discriminator(scorer(real, training=True), scorer(fake, training=True))
                    for scorer, real, fake in zip((self.second_scorer, self.first_scorer), (second, first), shown)
                ]
            )
            objective = self.replica_loss(losses["translator_discriminator"], self.discriminator_optimizer)
        scorer_gradients = tape.gradient(objective, self.scorer_variables)
        self.apply(self.generator_optimizer, gradients, self.generator_variables)
        self.apply(self.discriminator_optimizer, scorer_gradients, self.scorer_variables)
        return recorded(self.loss_means, losses)


def _l1(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(tf.cast(first, tf.float32) - tf.cast(second, tf.float32)))
