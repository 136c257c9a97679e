"""Masks for photographs that have none: a U-Net per structure or lesion, class activation maps for what only images are labelled with.

The paper trains both on small annotated sets and conditions DR-GAN on their soft predictions for a large set that has grades alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.methods.translation.dr_gan.config import DRGANConfig
from medsynth_tf.methods.translation.dr_gan.grading import unit_range
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.networks.unet import UNet2D

SoftMask = Callable[[tf.Tensor], tf.Tensor]
"""Images [B, S, S, 3] float32 in [-1, 1] → a soft mask [B, S, S] float32 in [0, 1]."""


class MaskNetwork(tf.keras.Model):
    """The U-Net of one structure or lesion, trained with cross-entropy plus soft Dice loss on batches of `DRGAN.dataset`.

    Args:
        code: of the class in label maps.
        widths: of the U-Net's levels; the images' sides must be multiples of 2^(levels - 1).
        seed: of the kernels.
    """

    def __init__(self, code: int, widths: Sequence[int] = (64, 128, 256, 512, 512), seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.code = code
        self.network = UNet2D(1, widths, seed, name="network")
        step = 2 ** (len(widths) - 1)
        self.network(tf.keras.Input([4 * step, 4 * step, 3]))
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, S, S, 3] float32 in [-1, 1] → logits [B, S, S] float32."""
        return self.network(images, training=training)[..., 0]

    def soft_mask(self, images: tf.Tensor) -> tf.Tensor:
        """Images [B, S, S, 3] float32 in [-1, 1] → probabilities [B, S, S]."""
        return tf.sigmoid(self(images))

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running mean of the loss."""
        return [self.loss_mean]

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step."""
        target = tf.cast(batch["label_map"] == self.code, tf.float32)
        with tf.GradientTape() as tape:
            loss = mask_loss(self(unit_range(batch["image"]), training=True), target)
            shared = loss / self.distribute_strategy.num_replicas_in_sync
        self.optimizer.apply_gradients(zip(tape.gradient(shared, self.trainable_variables), self.trainable_variables))
        self.loss_mean.update_state(loss)
        return {"loss": self.loss_mean.result()}


def mask_loss(logits: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Binary cross-entropy plus soft Dice loss of [B, S, S], float32 scalar; lesions cover too little for the former alone."""
    entropy = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=target, logits=logits))
    probability = tf.sigmoid(logits)
    common = tf.reduce_sum(probability * target, axis=[1, 2])
    total = tf.reduce_sum(probability, axis=[1, 2]) + tf.reduce_sum(target, axis=[1, 2])
    return entropy + 1.0 - tf.reduce_mean((2.0 * common + 1.0) / (total + 1.0))


def class_activation_map(classifier: ImageClassifier, label: int, images: tf.Tensor) -> tf.Tensor:
    """Where in an image a classifier sees a class, as a soft mask (Zhou et al., CVPR 2016, eq. 2).

    The last feature maps, weighted as the class's logit weights them; what speaks for the class is kept, scaled so that its highest
    value is the class's probability, and enlarged. So an image without the lesion has a mask near 0.

    Args:
        classifier: with a head on average-pooled feature maps.
        label: the class.
        images: [B, S, S, 3] float32 in [-1, 1].

    Returns:
        float32 [B, S, S] in [0, 1].
    """
    maps = tf.cast(classifier.feature_maps(images)[-1], tf.float32)
    evidence = tf.nn.relu(tf.einsum("bhwc,c->bhw", maps, classifier.head.kernel[:, label]))
    highest = tf.reduce_max(evidence, axis=[1, 2], keepdims=True)
    probability = tf.nn.softmax(classifier(images)["logits"])[:, label]
    scaled = tf.math.divide_no_nan(evidence, highest) * probability[:, tf.newaxis, tf.newaxis]
    return tf.image.resize(scaled[..., tf.newaxis], images.shape[1:3])[..., 0]


def soft_planes(images: tf.Tensor, makers: Mapping[str, SoftMask], config: DRGANConfig) -> tf.Tensor:
    """Condition planes of photographs: each channel by its maker, whether U-Net or activation map; 0 where it has none.

    Args:
        images: [B, S, S, 3] float32 in [-1, 1].
        makers: by channel name.
        config: the method's.

    Returns:
        float32 [B, S, S, K] in [0, 1].

    Raises:
        ValueError: a maker is for no channel.
    """
    strangers = sorted(set(makers) - set(config.channels))
    if strangers:
        raise ValueError(f"masks of {', '.join(strangers)}: no such channel; channels are {', '.join(config.channels)}")
    nothing = tf.zeros_like(images[..., 0])
    planes = [makers[name](images) if name in makers else nothing for name in config.channels]
    return tf.clip_by_value(tf.stack(planes, axis=-1), 0.0, 1.0)


def with_soft_planes(dataset: tf.data.Dataset, makers: Mapping[str, SoftMask], config: DRGANConfig) -> tf.data.Dataset:
    """Batches of `DRGAN.dataset` with "planes" added, which the model takes in place of their label maps."""

    def add(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**batch, "planes": soft_planes(unit_range(batch["image"]), makers, config)}

    return dataset.map(add)
