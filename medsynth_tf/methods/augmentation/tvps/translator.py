"""From vessel maps to photographs: CycleGAN as a Keras model of its own (stage A), and the identity for images."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.adversarial import least_squares_discriminator, least_squares_generator
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.networks.resnet_translator import AveragedPatchScorer, ResNetTranslator
from medsynth_tf.ops import random


class IdentityTranslator(tf.keras.layers.Layer):
    """Maps that are images already: [0, 1] → [-1, 1]."""

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [B, S, S, C] → the same shape."""
        return 2.0 * maps - 1.0


class ReplayBuffer(tf.keras.layers.Layer):
    """The last fakes, of which discriminators are shown some again (Shrivastava et al., arXiv:1612.07828, section 2.3).

    A new fake fills an empty place, and is handed on; when all are full it is handed on with probability one half, else it takes
    the place of an earlier one, which is handed on instead. Each replica has a buffer of its own.

    Args:
        capacity: places (50).
        shape: of one image.
    """

    def __init__(self, capacity: int, shape: list[int], **kwargs: Any):
        super().__init__(dtype=tf.float32, **kwargs)
        self.capacity = capacity
        common: dict[str, Any] = {
            "trainable": False,
            "experimental_autocast": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
        }
        # half precision is finer than the 256 levels of the images and takes half the memory
        self.images = self.add_weight(name="images", shape=[capacity, *shape], dtype=tf.float16, initializer="zeros", **common)
        self.filled = self.add_weight(name="filled", shape=[], dtype=tf.int64, initializer="zeros", **common)
        self.built = True

    def call(self, fakes: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Fakes float32 [B, …], which are put in one after the other, and seeds int64 [B] → what to show, float32 [B, …]."""
        numbers = random.uniform(seeds, (2,), f"replay {self.name}")
        batch = tf.shape(fakes)[0]
        capacity = tf.constant(self.capacity, tf.int64)

        def step(index: tf.Tensor, images: tf.Tensor, filled: tf.Tensor, shown: tf.TensorArray) -> tuple[Any, ...]:
            fake = tf.cast(fakes[index], tf.float16)
            full = filled >= capacity
            drawn = tf.minimum(tf.cast(numbers[index, 0] * self.capacity, tf.int64), capacity - 1)
            place = tf.where(full, drawn, filled)
            swap = full & (numbers[index, 1] < 0.5)
            shown = shown.write(index, tf.where(swap, images[place], fake))
            kept = tf.where(~full | swap, fake, images[place])
            images = tf.tensor_scatter_nd_update(images, [[place]], [kept])
            return index + 1, images, tf.minimum(filled + 1, capacity), shown

        _, images, filled, shown = tf.while_loop(
            lambda index, *_: index < batch,
            step,
            (
                tf.constant(0),
                tf.convert_to_tensor(self.images),
                tf.convert_to_tensor(self.filled),
                tf.TensorArray(tf.float16, batch),
            ),
        )
        self.images.assign(images)
        self.filled.assign(filled)
        return tf.cast(tf.ensure_shape(shown.stack(), fakes.shape), tf.float32)


class CycleTranslator(Optimisation, tf.keras.Model):
    """CycleGAN between vessel maps and photographs, with a train step of its own.

    Call it on maps float32 [B, S, S, 1] in [0, 1] for photographs float32 [B, S, S, C] in [-1, 1].

    Args:
        config: the method's; `config.translator` is read.
    """

    config: TVPSConfig
    LOSSES: ClassVar[tuple[str, ...]] = ("translator", "cycle", "identity", "translator_discriminator")

    def __init__(self, config: TVPSConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config, own = config, config.translator
        self.distribute_reduction_method = "first"  # as for methods: what is measured is a mean over replicas already
        self.repeats = config.channels if own.identity > 0 else 1  # the identity's loss needs equal numbers of channels
        seed, size = layer_seed(config.seed, "translator"), config.image_size

        def part(kind: Any, name: str, *arguments: Any) -> Any:
            return kind(*arguments, seed=layer_seed(seed, name), name=name)

        self.to_image = part(ResNetTranslator, "to_image", config.channels, own.filters, own.blocks)
        self.to_vessels = part(ResNetTranslator, "to_vessels", self.repeats, own.filters, own.blocks)
        self.image_scorer = part(AveragedPatchScorer, "image_scorer", own.filters)
        self.vessel_scorer = part(AveragedPatchScorer, "vessel_scorer", own.filters)
        image, vessels = tf.keras.Input([size, size, config.channels]), tf.keras.Input([size, size, self.repeats])
        for network, example in ((self.to_image, vessels), (self.vessel_scorer, vessels), (self.to_vessels, image)):
            network(example)
        self.image_scorer(image)
        self.buffers = [
            ReplayBuffer(own.buffer, [size, size, channels], name=name)
            for name, channels in (("image_buffer", config.channels), ("vessel_buffer", self.repeats))
            if own.buffer
        ]
        names = [name for name in self.LOSSES if name != "identity" or own.identity > 0]
        self.loss_means = {name: tf.keras.metrics.Mean(name=name) for name in names}
        self.built = True

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of the losses."""
        return list(self.loss_means.values())

    @property
    def generator_variables(self) -> list[tf.Variable]:
        """Of both directions."""
        return self.to_image.trainable_variables + self.to_vessels.trainable_variables

    @property
    def scorer_variables(self) -> list[tf.Variable]:
        """Of both discriminators."""
        return self.image_scorer.trainable_variables + self.vessel_scorer.trainable_variables

    def compile(self, **kwargs: Any) -> None:
        """As Keras's, with CycleGAN's two Adam optimisers."""
        own = self.config.translator
        self.generator_optimizer = self.make_adam(own.learning_rate, own.beta_1, 0.999)
        self.discriminator_optimizer = self.make_adam(own.learning_rate, own.beta_1, 0.999)
        super().compile(optimizer=self.generator_optimizer, **kwargs)
        self.generator_optimizer.build(self.generator_variables)
        self.discriminator_optimizer.build(self.scorer_variables)

    def planes(self, maps: tf.Tensor) -> tf.Tensor:
        """Maps [B, S, S, 1] in [0, 1] → what the networks take, [B, S, S, 1 or C] in [-1, 1]."""
        return tf.repeat(2.0 * maps - 1.0, self.repeats, axis=-1)

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps float32 [B, S, S, 1] in [0, 1] → photographs float32 [B, S, S, C] in [-1, 1]."""
        return self.to_image(self.planes(maps), training=training)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of both pairs on {"image": uint8 [B, S, S, C], "vessels": uint8 [B, S, S], "seed": int64 [B]}, which need not
        belong together."""
        own = self.config.translator
        image = tf.cast(batch["image"], tf.float32) / 127.5 - 1.0
        vessels = self.planes(tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255.0)
        losses: dict[str, tf.Tensor] = {}
        with tf.GradientTape() as tape:
            fake_image, fake_vessels = self.to_image(vessels, training=True), self.to_vessels(image, training=True)
            losses["translator"] = least_squares_generator(
                self.image_scorer(fake_image, training=True)
            ) + least_squares_generator(self.vessel_scorer(fake_vessels, training=True))
            losses["cycle"] = _l1(self.to_vessels(fake_image, training=True), vessels) + _l1(
                self.to_image(fake_vessels, training=True), image
            )
            objective = losses["translator"] + own.cycle * losses["cycle"]
            if own.identity > 0:
                losses["identity"] = _l1(self.to_image(image, training=True), image) + _l1(
                    self.to_vessels(vessels, training=True), vessels
                )
                objective += own.identity * losses["identity"]
            objective = self.replica_loss(objective, self.generator_optimizer)
        gradients = tape.gradient(objective, self.generator_variables)
        shown = [tf.stop_gradient(fake_image), tf.stop_gradient(fake_vessels)]
        if self.buffers:
            shown = [buffer(fake, batch["seed"]) for buffer, fake in zip(self.buffers, shown)]
        with tf.GradientTape() as tape:
            losses["translator_discriminator"] = tf.add_n(
                [
                    least_squares_discriminator(scorer(real, training=True), scorer(fake, training=True))
                    for scorer, real, fake in zip((self.image_scorer, self.vessel_scorer), (image, vessels), shown)
                ]
            )
            objective = self.replica_loss(losses["translator_discriminator"], self.discriminator_optimizer)
        scorer_gradients = tape.gradient(objective, self.scorer_variables)
        self.apply(self.generator_optimizer, gradients, self.generator_variables)
        self.apply(self.discriminator_optimizer, scorer_gradients, self.scorer_variables)
        for name, mean in self.loss_means.items():
            mean.update_state(losses[name])
        return {name: mean.result() for name, mean in self.loss_means.items()}

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Vessel maps, photographs made of them, photographs, maps made of those, each uint8 [B, S, S, 1 or 3]."""
        maps = tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255.0
        back = self.to_vessels(tf.cast(batch["image"], tf.float32) / 127.5 - 1.0)
        return {
            "vessels": batch["vessels"][..., tf.newaxis],
            "synthetic photograph": from_unit_range(self(maps)),
            "photograph": batch["image"],
            "synthetic vessels": from_unit_range(back),
        }


def _l1(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.abs(tf.cast(first, tf.float32) - tf.cast(second, tf.float32)))
