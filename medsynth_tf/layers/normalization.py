"""Normalisation without trainable parameters, and spectral normalisation of convolution kernels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class InstanceNormalization(tf.keras.layers.Layer):
    """(x - mean) / √(variance + ε) over the spatial axes of each sample and channel; any number of spatial axes.

    Source: Ulyanov et al., arXiv:1607.08022, without scale and offset. Statistics are taken in float32.
    """

    def __init__(self, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, …, C] → the same shape and dtype."""
        x32 = tf.cast(x, tf.float32)
        mean, variance = tf.nn.moments(x32, list(range(1, x.shape.rank - 1)), keepdims=True)
        return tf.cast((x32 - mean) * tf.math.rsqrt(variance + self.epsilon), x.dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


def parameter_free_norm(kind: str, momentum: float = 0.9, name: str | None = None) -> tf.keras.layers.Layer:
    """The normalisation inside SPADE: 'batch' (statistics over all replicas) or 'instance', without scale and offset.

    PyTorch's momentum 0.1, which the reference uses, is Keras's 0.9. The synchronised form is slower on one device, where it
    changes nothing, so it is taken only where the current strategy has several replicas.
    """
    if kind == "instance":
        return InstanceNormalization(name=name)
    if kind == "batch":
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return tf.keras.layers.BatchNormalization(
            center=False, scale=False, momentum=momentum, epsilon=1e-5, synchronized=replicas > 1, name=name
        )
    raise ValueError(f"norm = '{kind}': expected 'batch' or 'instance'")


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class SpectralConv2D(tf.keras.layers.Conv2D):
    """Convolution whose kernel is divided by its largest singular value (Miyato et al., arXiv:1802.05957, eq. 8 and alg. 1).

    The stored kernel stays unnormalised and the gradient flows through σ, as in the paper; Keras's own wrapper overwrites the
    kernel instead. One power iteration runs at each call in training.

    Args:
        seed: of the first singular vector.
        power_iterations: iterations a training call.
        epsilon: added to norms.
        **kwargs: as for Conv2D.
    """

    def __init__(self, *args: Any, seed: int = 0, power_iterations: int = 1, epsilon: float = 1e-12, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.power_iterations = power_iterations
        self.epsilon = epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes kernel, bias and the left singular vector u [filters]."""
        super().build(input_shape)
        self.singular_vector = self.add_weight(
            name="singular_vector",
            shape=[self.filters],
            initializer=tf.keras.initializers.RandomNormal(seed=layer_seed(self.seed, "singular_vector")),
            trainable=False,
            dtype=tf.float32,
            experimental_autocast=False,
            # every replica computes the same vector from the same kernel
            synchronization=tf.VariableSynchronization.ON_WRITE,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def normalised_kernel(self, training: bool = False) -> tf.Tensor:
        """kernel / σ, with σ = uᵀ W v from the stored u; in training u moves on by `power_iterations`."""
        kernel = tf.cast(self.kernel.read_value() if hasattr(self.kernel, "read_value") else self.kernel, tf.float32)
        matrix = tf.reshape(kernel, [-1, self.filters])  # [k·k·in, out]
        fixed = tf.stop_gradient(matrix)
        u = tf.convert_to_tensor(self.singular_vector)
        v = self._unit(tf.linalg.matvec(fixed, u))
        if training:
            for _ in range(self.power_iterations):
                v = self._unit(tf.linalg.matvec(fixed, u))
                u = self._unit(tf.linalg.matvec(fixed, v, transpose_a=True))
            self.singular_vector.assign(u)
        u, v = tf.stop_gradient(u), tf.stop_gradient(v)
        sigma = tf.tensordot(v, tf.linalg.matvec(matrix, u), 1)
        return kernel / (sigma + self.epsilon)

    def _unit(self, vector: tf.Tensor) -> tf.Tensor:
        return vector / (tf.norm(vector) + self.epsilon)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """As Conv2D, with the normalised kernel."""
        kernel = tf.cast(self.normalised_kernel(bool(training)), x.dtype)
        y = self.convolution_op(x, kernel)
        if self.use_bias:
            y = tf.nn.bias_add(y, tf.cast(self.bias, y.dtype))
        return y if self.activation is None else self.activation(y)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {"seed": self.seed, "power_iterations": self.power_iterations, "epsilon": self.epsilon}
        return {**super().get_config(), **own}
