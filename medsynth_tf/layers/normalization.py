"""Instance, pixel, group and batch normalisation, and spectral normalisation of convolution kernels."""

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
        axes = list(range(1, x.shape.rank - 1))
        x32 = tf.cast(x, tf.float32)
        # Not by tf.nn.moments: TensorFlow's graph optimiser takes its form for an instance norm with constant scale, and aborts the
        # process in inference graphs where a scale that is none follows, as SPADE's does.
        centred = x32 - tf.reduce_mean(x32, axes, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axes, keepdims=True)
        return tf.cast(centred * tf.math.rsqrt(variance + self.epsilon), x.dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class PixelNormalization(tf.keras.layers.Layer):
    """x / √(mean of x² over channels + ε): each pixel's vector to unit mean square (Karras et al., arXiv:1710.10196, section 4.2);
    of latents [B, N] the whole vector. In float32.

    Args:
        epsilon: added to the mean square.
    """

    def __init__(self, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[…, C] → the same shape and dtype."""
        x32 = tf.cast(x, tf.float32)
        return tf.cast(x32 * tf.math.rsqrt(tf.reduce_mean(x32 * x32, -1, keepdims=True) + self.epsilon), x.dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "epsilon": self.epsilon}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class GroupNormalization(tf.keras.layers.Layer):
    """Normalises each sample over space and groups of channels, then scales and shifts each channel; [B, H, W, C].

    Source: Wu and He, arXiv:1803.08494. Statistics are taken in float32, and not by `tf.nn.moments`, for the reason given above.

    Args:
        groups: must divide the channels.
        epsilon: added to the variance.
    """

    def __init__(self, groups: int, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups, self.epsilon = groups, epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes scale γ and shift β, float32 [C].

        Raises:
            ValueError: the groups do not divide the channels.
        """
        channels = tf.TensorShape(input_shape)[-1]
        if channels % self.groups:
            raise ValueError(f"groups = {self.groups} must divide the {channels} channels")
        common: dict[str, Any] = {"shape": [channels], "dtype": tf.float32, "experimental_autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer="ones", **common)
        self.beta = self.add_weight(name="beta", initializer="zeros", **common)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → the same shape and dtype."""
        shape, channels = tf.shape(x), x.shape[-1]
        grouped = tf.reshape(tf.cast(x, tf.float32), [shape[0], -1, self.groups, channels // self.groups])
        centred = grouped - tf.reduce_mean(grouped, [1, 3], keepdims=True)
        variance = tf.reduce_mean(centred * centred, [1, 3], keepdims=True)
        normalised = tf.reshape(centred * tf.math.rsqrt(variance + self.epsilon), shape)
        return tf.ensure_shape(tf.cast(normalised * self.gamma + self.beta, x.dtype), x.shape)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class BatchStatisticsNormalization(tf.keras.layers.Layer):
    """Batch normalisation without scale and offset, with statistics over the batches of all replicas.

    Unlike Keras's synchronised form it exchanges means and variances once a call, since each exchange makes `MirroredStrategy` walk
    the graph again while tracing, and it adds up deviations from the mean instead of subtracting squares, so that several
    replicas give what one device gives. On one replica it is TensorFlow's fused kernel.

    Args:
        momentum: share of the old moving statistics that is kept at a step; PyTorch's 0.1 is 0.9 here.
        epsilon: added to the variance.
    """

    def __init__(self, momentum: float = 0.9, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.momentum, self.epsilon = momentum, epsilon

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes the moving mean and variance, float32 [C]."""
        channels = tf.TensorShape(input_shape)[-1]
        common: dict[str, Any] = {
            "shape": [channels],
            "dtype": tf.float32,
            "trainable": False,
            "experimental_autocast": False,
            # each replica moves its own copy by the same amount; reading takes their mean
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **common)
        self.moving_variance = self.add_weight(name="moving_variance", initializer="ones", **common)
        super().build(input_shape)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → the same shape and dtype."""
        if not training:
            return self._normalise(x, self.moving_mean, self.moving_variance)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            scale, offset = self._scale_and_offset(x.shape[-1])
            y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=self.epsilon)[:3]
            count = tf.cast(tf.size(x) / x.shape[-1], tf.float32)
            variance *= (count - 1.0) / tf.maximum(
                count, 2.0
            )  # the kernel returns the unbiased one, and normalises by the biased
        else:
            mean, variance = self._over_replicas(x, context)
            y = self._normalise(x, mean, variance)
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add((1.0 - self.momentum) * (value - moving))
        return y

    @staticmethod
    def _over_replicas(x: tf.Tensor, context: tf.distribute.ReplicaContext) -> tuple[tf.Tensor, tf.Tensor]:
        """Mean and variance over all replicas, whose batches are of one size, by the parallel formula of Chan et al. (1979)."""
        mean, variance = tf.nn.moments(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))
        row = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)[:, tf.newaxis, tf.newaxis]
        gathered = context.all_reduce(tf.distribute.ReduceOp.SUM, row * tf.stack([mean, variance]))  # [replica, 2, C]
        means, variances = gathered[:, 0], gathered[:, 1]
        total = tf.reduce_mean(means, axis=0)
        return total, tf.reduce_mean(variances + (means - total) ** 2, axis=0)

    def _normalise(self, x: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
        scale, offset = self._scale_and_offset(x.shape[-1])
        scale *= tf.math.rsqrt(variance + self.epsilon)
        return tf.cast((tf.cast(x, tf.float32) - mean) * scale + offset, x.dtype)

    def _scale_and_offset(self, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
        """What normalised values are multiplied by and added to, each float32 [C]."""
        return tf.ones([channels]), tf.zeros([channels])

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class BatchNormalization(BatchStatisticsNormalization):
    """`BatchStatisticsNormalization` with a learned scale γ and offset β (Ioffe and Szegedy, arXiv:1502.03167).

    Args:
        momentum, epsilon: as there.
        gamma_initializer: of the scale; DCGAN takes N(1, 0.02).
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        gamma_initializer: tf.keras.initializers.Initializer | str = "ones",
        **kwargs: Any,
    ):
        super().__init__(momentum, epsilon, **kwargs)
        self.gamma_initializer = tf.keras.initializers.get(gamma_initializer)

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes γ and β, float32 [C], and the moving statistics."""
        shape = [tf.TensorShape(input_shape)[-1]]
        common: dict[str, Any] = {"shape": shape, "dtype": tf.float32, "experimental_autocast": False}
        self.gamma = self.add_weight(name="gamma", initializer=self.gamma_initializer, **common)
        self.beta = self.add_weight(name="beta", initializer="zeros", **common)
        super().build(input_shape)

    def _scale_and_offset(self, channels: int) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "gamma_initializer": tf.keras.initializers.serialize(self.gamma_initializer)}


def parameter_free_norm(kind: str, name: str | None = None) -> tf.keras.layers.Layer:
    """The normalisation inside SPADE: 'batch' (statistics over all replicas) or 'instance', without scale and offset.

    Raises:
        ValueError: another kind.
    """
    if kind == "instance":
        return InstanceNormalization(name=name)
    if kind == "batch":
        return BatchStatisticsNormalization(name=name)
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
            # every replica computes the same vector from the same kernel, in a copy of its own
            synchronization=tf.VariableSynchronization.ON_READ,
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
