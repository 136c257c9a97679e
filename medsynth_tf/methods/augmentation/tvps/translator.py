"""From vessel maps to photographs: CycleGAN (stage A), and the identity for images."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.methods.augmentation.tvps.config import TVPSConfig
from medsynth_tf.methods.cycle_gan import CycleGAN


class IdentityTranslator(tf.keras.layers.Layer):
    """Maps that are images already: [0, 1] → [-1, 1]."""

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float32 [B, S, S, C] → the same shape."""
        return 2.0 * maps - 1.0


class CycleTranslator(CycleGAN):
    """CycleGAN from vessel maps to photographs, with a train step of its own.

    Call it on maps float32 [B, S, S, 1] in [0, 1] for photographs float32 [B, S, S, C] in [-1, 1].

    Args:
        config: the method's; `config.translator` is read.
    """

    def __init__(self, config: TVPSConfig, **kwargs: Any):
        own, size = config.translator, config.image_size
        # the identity's loss needs equal numbers of channels
        channels = (config.channels if own.identity > 0 else 1, config.channels)
        super().__init__(
            config,
            [size, size],
            channels,
            own.filters,
            own.blocks,
            own.cycle,
            own.identity,
            own.learning_rate,
            own.beta_1,
            names=("vessels", "image"),
            buffer=own.buffer,
            paired=own.paired,
            scorer={"averaged": True},
            seed=layer_seed(config.seed, "translator"),
            **kwargs,
        )
        self.repeats = channels[0]

    def planes(self, maps: tf.Tensor) -> tf.Tensor:
        """Maps [B, S, S, 1] in [0, 1] → what the networks take, [B, S, S, 1 or C] in [-1, 1]."""
        return tf.repeat(2.0 * maps - 1.0, self.repeats, axis=-1)

    def call(self, maps: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Maps float32 [B, S, S, 1] in [0, 1] → photographs float32 [B, S, S, C] in [-1, 1]."""
        return super().call(self.planes(maps), training=training)

    def domains(self, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Vessel maps and photographs of {"image": uint8 [B, S, S, C], "vessels": uint8 [B, S, S], …}."""
        vessels = self.planes(tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255.0)
        return vessels, tf.cast(batch["image"], tf.float32) / 127.5 - 1.0

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Vessel maps, photographs made of them, photographs, maps made of those, each uint8 [B, S, S, 1 or 3]."""
        maps = tf.cast(batch["vessels"], tf.float32)[..., tf.newaxis] / 255.0
        back = self.to_first(tf.cast(batch["image"], tf.float32) / 127.5 - 1.0)
        return {
            "vessels": batch["vessels"][..., tf.newaxis],
            "synthetic photograph": from_unit_range(self(maps)),
            "photograph": batch["image"],
            "synthetic vessels": from_unit_range(back),
        }
