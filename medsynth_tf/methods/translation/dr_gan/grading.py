"""Step 1 of DR-GAN: a grading network, and one Gaussian a grade over its features, which grading vectors are drawn from."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.translation.dr_gan.config import DRGANConfig
from medsynth_tf.networks.classifiers import ImageClassifier
from medsynth_tf.ops import random

_RESNET_LAYERS = ("conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out")


def unit_range(image: tf.Tensor) -> tf.Tensor:
    """uint8 → float32 in [-1, 1]."""
    return tf.cast(image, tf.float32) / 127.5 - 1.0


class Grader(tf.keras.Model):
    """The grading network as a Keras model with a train step of its own, on batches {"image": uint8, "grade": int64}.

    Args:
        config: the method's.
    """

    def __init__(self, config: DRGANConfig, **kwargs: Any):
        super().__init__(**kwargs)
        grading = config.grading
        self.config, self.image_size = config, grading.image_size
        self.classifier = ImageClassifier(
            grading.backbone,
            config.grades,
            filters=grading.filters,
            weights=grading.weights,
            seed=layer_seed(config.seed, "grader"),
            name="classifier",
        )
        network = self.classifier.network
        self._maps: tf.keras.Model | None = None
        if grading.backbone == "resnet50":
            self._maps = tf.keras.Model(network.input, [network.get_layer(name).output for name in _RESNET_LAYERS])
        self.feature_size = int(self.classifier.head.kernel.shape[0])
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.accuracy = tf.keras.metrics.Mean(name="accuracy")
        self.distribute_reduction_method = "first"
        self.built = True

    def compile_for(self, optimizer: tf.keras.optimizers.Optimizer, jit_compile: bool) -> None:
        """Compiles, and makes the optimiser's slots now, so that a checkpoint can fill them."""
        self.compile(optimizer=optimizer, jit_compile=jit_compile)
        optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """Running means of loss and accuracy."""
        return [self.loss_mean, self.accuracy]

    def call(self, images: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Images [B, S, S, 3] float32 in [-1, 1] → {"features" [B, F], "logits" [B, grades]}."""
        if images.shape[1] != self.image_size:
            images = tf.image.resize(images, [self.image_size] * 2, antialias=True)
        return self.classifier(images, training=training)

    def perceptual_maps(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Images [B, S, S, 3] float32 in [-1, 1], at their own size → feature maps, finest first, of the network at rest."""
        if self._maps is None:
            return self.classifier.feature_maps(images, training=False)
        return self._maps(tf.keras.applications.resnet.preprocess_input((images + 1.0) * 127.5), training=False)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step of cross-entropy."""
        with tf.GradientTape() as tape:
            logits = self(unit_range(batch["image"]), training=True)["logits"]
            loss = cross_entropy(logits, batch["grade"])
            scaled = loss / self.distribute_strategy.num_replicas_in_sync
            if isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
                scaled = self.optimizer.get_scaled_loss(scaled)
        gradients = tape.gradient(scaled, self.trainable_variables)
        if isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            gradients = self.optimizer.get_unscaled_gradients(gradients)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return self._record(loss, logits, batch["grade"])

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The same without learning."""
        logits = self(unit_range(batch["image"]), training=False)["logits"]
        return self._record(cross_entropy(logits, batch["grade"]), logits, batch["grade"])

    def _record(self, loss: tf.Tensor, logits: tf.Tensor, grade: tf.Tensor) -> dict[str, tf.Tensor]:
        self.loss_mean.update_state(loss)
        self.accuracy.update_state(tf.cast(tf.argmax(logits, -1) == tf.cast(grade, tf.int64), tf.float32))
        return {metric.name: metric.result() for metric in self.metrics}


class GradeGaussians(tf.Module):
    """N(μ_i, Σ_i) of the features of grade i, and their mean and deviation over all grades, which vectors are standardised with.

    A grade with fewer than two images has the Gaussian of all images. Before `settle`, all are N(0, I).

    Args:
        grades: K.
        size: F.
        covariance: 'diagonal', or 'full', which is shrunk: (1 - ρ) Σ + ρ diag Σ.
        shrinkage: ρ.
        minimum_deviation: floor of standard deviations.
    """

    def __init__(self, grades: int, size: int, covariance: str, shrinkage: float, minimum_deviation: float):
        super().__init__()
        self.full = covariance == "full"
        self.shrinkage, self.minimum_deviation = shrinkage, minimum_deviation

        def zeros(shape: list[int], dtype: tf.DType = tf.float64, summed: bool = True) -> tf.Variable:
            kinds: dict[str, Any] = {}
            if summed:  # each replica adds what it sees; reading takes the sum
                kinds = {
                    "synchronization": tf.VariableSynchronization.ON_READ,
                    "aggregation": tf.VariableAggregation.SUM,
                }
            return tf.Variable(tf.zeros(shape, dtype), trainable=False, **kinds)

        spread = [grades, size, size] if self.full else [grades, size]
        self.count, self.total, self.squares = zeros([grades]), zeros([grades, size]), zeros(spread)
        self.mean = zeros([grades, size], tf.float32, summed=False)
        self.factor = tf.Variable(tf.eye(size, batch_shape=[grades]) if self.full else tf.ones([grades, size]), trainable=False)
        self.centre = zeros([size], tf.float32, summed=False)
        self.scale = tf.Variable(tf.ones([size]), trainable=False)
        self.settled = tf.Variable(False, trainable=False)

    @property
    def moments(self) -> list[tf.Variable]:
        """The sums: numbers of images, features, and squares or products of features, by grade."""
        return [self.count, self.total, self.squares]

    def add(self, features: tf.Tensor, grades: tf.Tensor) -> None:
        """Counts features [B, F] of grades [B] in."""
        features = tf.cast(features, tf.float64)
        member = tf.one_hot(grades, self.count.shape[0], dtype=tf.float64)
        self.count.assign_add(tf.reduce_sum(member, 0))
        self.total.assign_add(tf.matmul(member, features, transpose_a=True))
        if self.full:
            self.squares.assign_add(tf.einsum("bk,bi,bj->kij", member, features, features))
        else:
            self.squares.assign_add(tf.matmul(member, features**2, transpose_a=True))

    def reset(self) -> None:
        """Forgets all features."""
        for variable in self.moments:
            variable.assign(tf.zeros_like(variable))
        self.settled.assign(False)

    def settle(self) -> None:
        """Turns the sums into means and factors of covariances; may be called again after more features.

        Raises:
            ValueError: no features were counted.
        """
        count, total, squares = (np.asarray(variable) for variable in self.moments)
        if count.sum() == 0:
            raise ValueError("grade Gaussians: no features were counted; run the stage 'gaussians' or collect_grades first")
        overall_mean, overall = _moments(count.sum(), total.sum(0), squares.sum(0))
        variance = np.diagonal(overall) if self.full else overall
        deviation = np.sqrt(np.maximum(variance, self.minimum_deviation**2))
        means, factors = [], []
        for number, features, products in zip(count, total, squares):
            mean, covariance = _moments(number, features, products) if number >= 2 else (overall_mean, overall)
            means.append(mean)
            factors.append(self._factor(covariance))
        self.mean.assign(np.stack(means).astype(np.float32))
        self.factor.assign(np.stack(factors).astype(np.float32))
        self.centre.assign(overall_mean.astype(np.float32))
        self.scale.assign(deviation.astype(np.float32))
        self.settled.assign(True)

    def _factor(self, covariance: np.ndarray) -> np.ndarray:
        """Standard deviations [F], or the Cholesky factor [F, F]."""
        floor = self.minimum_deviation**2
        if not self.full:
            return np.sqrt(np.maximum(covariance, floor))
        variance = np.maximum(np.diagonal(covariance), floor)
        shrunk = (1.0 - self.shrinkage) * covariance
        np.fill_diagonal(shrunk, variance)
        return np.linalg.cholesky(shrunk)

    def sample(self, grades: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Feature vectors [B, F] float32, each from the Gaussian of its own grade.

        Args:
            grades: int64 [B].
            seeds: int64 [B]; sample i depends on `seeds[i]` and `grades[i]` alone.
        """
        noise = random.normal(seeds, (self.mean.shape[1],), "grading vector")
        factor = tf.gather(self.factor, grades)
        spread = tf.linalg.matvec(factor, noise) if self.full else factor * noise
        return tf.gather(self.mean, grades) + spread

    def standardised(self, vectors: tf.Tensor) -> tf.Tensor:
        """Vectors [B, F] with mean 0 and deviation 1 over all images."""
        return (vectors - self.centre) / self.scale


def _moments(count: float, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sample mean [F], and sample variance [F] or covariance [F, F], over `count`, from sums in float64."""
    mean = total / count
    outer = np.outer(mean, mean) if squares.ndim == 2 else mean**2
    covariance = squares / count - outer
    return mean, covariance if squares.ndim == 2 else np.maximum(covariance, 0.0)


class GradeMoments(tf.keras.Model):
    """One pass over the training images as a Keras model: its train step counts the batch's features into the Gaussians.

    Args:
        grader: the trained grading network.
        gaussians: to count into.
    """

    def __init__(self, grader: Grader, gaussians: GradeGaussians, **kwargs: Any):
        super().__init__(**kwargs)
        self.grader, self.gaussians = grader, gaussians
        self.distribute_reduction_method = "first"
        self.built = True

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Nothing is learned; returns the number of images of this batch."""
        # a pass over all images can end in a batch that leaves a replica without any, and convolutions take no empty batch: so one
        # blank image goes along, and is left out again
        images = tf.pad(unit_range(batch["image"]), [[0, 1], [0, 0], [0, 0], [0, 0]])
        features = self.grader(images, training=False)["features"][:-1]
        self.gaussians.add(features, batch["grade"])
        return {"images": tf.cast(tf.shape(features)[0], tf.float32)}
