"""Trains one fresh two-sample network after the other: compiled once, weights assigned anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.data.gan_protocol_config import EvaluatorConfig
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.metrics.arrays import as_unit_float, require_images
from medsynth_tf.networks.two_sample_cnn import SLOPE, TwoSampleCNN

LEAST_SIDE = 16  # four halvings
_SMALL_SET, _SMALL_BATCH, _BATCH = 500, 32, 128
_INFERENCE = 256


@dataclasses.dataclass(frozen=True)
class Answers:
    """What the network says of images.

    Attributes:
        probability: that each is synthetic, float32 [N].
        features: float32 [N, F].
    """

    probability: np.ndarray
    features: np.ndarray


class Evaluator:
    """A network, its optimiser and its train step, used again for each run.

    Args:
        config: width, training.
        shape: of the images, (H, W, C).
        activated: features after their LeakyReLU instead of before.

    Raises:
        DataError: images under 16 pixels.
    """

    def __init__(self, config: EvaluatorConfig, shape: tuple[int, int, int], activated: bool = False):
        if min(shape[:2]) < LEAST_SIDE:
            raise DataError(f"images of {shape[0]}×{shape[1]}: the evaluator halves them four times and needs {LEAST_SIDE}")
        self.config, self.activated = config, activated
        self.network = TwoSampleCNN(config.width, config.features)
        self.network(tf.keras.Input(shape))
        self.optimizer = tf.keras.optimizers.Adam(config.learning_rate)
        self.optimizer.build(self.network.trainable_variables)
        self._learn = tf.function(self._learn_step, reduce_retracing=True)
        self._ask = tf.function(self.network.call, input_signature=[tf.TensorSpec([None, *shape], tf.float32)])

    def train(self, real: np.ndarray, synthetic: np.ndarray, seed: int) -> float:
        """From new weights, on real images (target 0) and synthetic ones (1); the last epoch's mean cross-entropy.

        Args:
            real, synthetic: uint8, or float in [0, 1], [N, H, W, C].
            seed: of the weights and of the order.

        Raises:
            DataError: values outside [0, 1], other shapes, or fewer images than a batch.
        """
        images = self._images(np.concatenate([_checked(real, "real images"), _checked(synthetic, "synthetic images")]))
        labels = tf.concat([tf.zeros([len(real)]), tf.ones([len(synthetic)])], 0)
        size = self.config.batch_size or (_SMALL_BATCH if len(real) < _SMALL_SET else _BATCH)
        size = min(size, len(images))
        self.reset(seed)
        rng = numpy_generator(seed, "order")
        losses: list[tf.Tensor] = []
        for _ in range(self.config.epochs):
            order = rng.permutation(len(images))
            steps = -(-len(order) // size)
            order = np.resize(order, steps * size)  # the last batch is filled up with the epoch's first images
            losses = [self._learn(images, labels, tf.constant(part)) for part in order.reshape(steps, size).astype(np.int32)]
        return float(np.mean([loss.numpy() for loss in losses]))

    def reset(self, seed: int) -> None:
        """New kernels (Glorot uniform) of this seed, biases and optimiser at 0."""
        for index, variable in enumerate(self.network.trainable_variables):
            if variable.shape.rank == 1:
                variable.assign(tf.zeros_like(variable))
            else:
                start = tf.keras.initializers.GlorotUniform(layer_seed(seed, f"evaluator/{index}"))
                variable.assign(start(variable.shape))
        for variable in self.optimizer.variables:
            if variable.dtype.is_floating and variable.shape.rank:
                variable.assign(tf.zeros_like(variable))
        self.optimizer.iterations.assign(0)

    def answer(self, images: np.ndarray) -> Answers:
        """What the network says of images, uint8 or float in [0, 1], [N, H, W, C].

        Raises:
            DataError: values outside [0, 1].
        """
        images = _checked(images, "images to judge")
        parts = [self._ask(self._images(images[start : start + _INFERENCE])) for start in range(0, len(images), _INFERENCE)]
        features = tf.concat([part["features"] for part in parts], 0)
        if self.activated:
            features = tf.nn.leaky_relu(features, SLOPE)
        return Answers(tf.sigmoid(tf.concat([part["logit"] for part in parts], 0)).numpy(), features.numpy())

    def _learn_step(self, images: tf.Tensor, labels: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logit = self.network(tf.gather(images, chosen))["logit"]
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.gather(labels, chosen), logits=logit)
            loss = tf.reduce_mean(losses)
        variables = self.network.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        return loss

    def _images(self, images: np.ndarray) -> tf.Tensor:
        return tf.constant(as_unit_float(images))


def _checked(images: np.ndarray, what: str) -> np.ndarray:
    return as_unit_float(require_images(images, what))
