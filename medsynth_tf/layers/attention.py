"""Self-attention over positions and over channels, and their sum (Fu et al., arXiv:1809.02983; Zhou et al., arXiv:1912.04670).

Over P positions the attention map has P² entries: 42 GB at 320×320. `attention_in_chunks` computes the same values and gradients with
a few of its rows at a time, in both directions.
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed

IMPLEMENTATIONS = ("exact", "chunked", "pooled")


def attention_weights(query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
    """softmax over source positions of query · keyᵀ: [B, Q, D] and [B, P, D] → [B, Q, P]; each row sums to 1."""
    return tf.nn.softmax(tf.matmul(query, key, transpose_b=True), axis=-1)


def attention(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Each output position as a convex combination of the values: [B, Q, D], [B, P, D], [B, P, C] → [B, Q, C]."""
    return tf.matmul(attention_weights(query, key), value)


def attention_in_chunks(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, rows: int) -> tf.Tensor:
    """`attention` with at most `rows` rows of its map in memory, whose gradient computes them again instead of keeping them.

    Not differentiable twice.

    Args:
        query: [B, Q, D].
        key: [B, P, D].
        value: [B, P, C].
        rows: query positions at a time, at least 1; need not divide Q.

    Returns:
        [B, Q, C].
    """
    total = query.shape[1]
    rows = min(rows, total)
    pieces = math.ceil(total / rows)
    batch, width, channels = tf.shape(query)[0], query.shape[2], value.shape[2]

    def cut(x: tf.Tensor) -> tf.Tensor:  # [B, Q, N] → [pieces, B, rows, N]; rows added at the end count for nothing
        padded = tf.pad(x, [[0, 0], [0, pieces * rows - total], [0, 0]])
        return tf.transpose(tf.reshape(padded, [batch, pieces, rows, x.shape[2]]), [1, 0, 2, 3])

    def join(x: tf.Tensor, last: int) -> tf.Tensor:
        return tf.reshape(tf.transpose(x, [1, 0, 2, 3]), [batch, pieces * rows, last])[:, :total]

    @tf.custom_gradient
    def forward(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, Any]:
        spec = tf.TensorSpec([None, rows, channels], value.dtype)
        # parallel iterations would each hold rows of their own
        outputs = tf.map_fn(lambda q: attention(q, key, value), cut(query), fn_output_signature=spec, parallel_iterations=1)

        def backward(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            queries, upstreams = cut(query), cut(upstream)

            def step(index: tf.Tensor, d_key: tf.Tensor, d_value: tf.Tensor, d_query: tf.TensorArray) -> tuple:
                q, d_out = queries[index], upstreams[index]
                weights = attention_weights(q, key)
                d_weights = tf.matmul(d_out, value, transpose_b=True)
                d_scores = weights * (d_weights - tf.reduce_sum(weights * d_weights, axis=-1, keepdims=True))
                d_key += tf.matmul(d_scores, q, transpose_a=True)
                d_value += tf.matmul(weights, d_out, transpose_a=True)
                return index + 1, d_key, d_value, d_query.write(index, tf.matmul(d_scores, key))

            gathered = tf.TensorArray(query.dtype, size=pieces, element_shape=[None, rows, width])
            start = (tf.constant(0), tf.zeros_like(key), tf.zeros_like(value), gathered)
            _, d_key, d_value, d_query = tf.while_loop(
                lambda index, *_: index < pieces, step, start, parallel_iterations=1, maximum_iterations=pieces
            )
            return join(d_query.stack(), width), d_key, d_value

        return join(outputs, channels), backward

    return forward(query, key, value)


def _convolution(filters: int, seed: int, name: str, dtype: Any) -> tf.keras.layers.Conv2D:
    initializer = tf.keras.initializers.RandomNormal(stddev=0.02, seed=layer_seed(seed, name))
    return tf.keras.layers.Conv2D(filters, 1, kernel_initializer=initializer, dtype=dtype, name=name)


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class SpatialAttention(tf.keras.layers.Layer):
    """x + s · attention over positions, with three 1×1 convolutions: query and key of C/d channels, value of C; s starts at 0.

    Scores, softmax and sums are float32 under any precision policy.

    Args:
        reduction: d.
        implementation: 'exact' (the whole map at once), 'chunked' (the same, a few rows at a time), or 'pooled' (chunked, with keys and
            values averaged over squares of pixels until their side is at most `pooled_side`).
        chunk_rows: query positions at a time for 'chunked' and 'pooled'.
        pooled_side: for 'pooled'.
        seed: of the kernels.
    """

    def __init__(
        self,
        reduction: int,
        implementation: str = "exact",
        chunk_rows: int = 512,
        pooled_side: int = 80,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if implementation not in IMPLEMENTATIONS:
            raise ValueError(f"implementation = '{implementation}': expected one of {', '.join(IMPLEMENTATIONS)}")
        self.reduction, self.implementation, self.seed = reduction, implementation, seed
        self.chunk_rows, self.pooled_side = chunk_rows, pooled_side

    def build(self, input_shape: tf.TensorShape) -> None:
        """Builds for x [B, H, W, C]."""
        channels = tf.TensorShape(input_shape)[-1]
        narrow = max(1, channels // self.reduction)
        policy = self.dtype_policy
        self.query = _convolution(narrow, self.seed, "query", policy)
        self.key = _convolution(narrow, self.seed, "key", policy)
        self.value = _convolution(channels, self.seed, "value", policy)
        for part in (self.query, self.key, self.value):
            part.build(input_shape)
        self.residual_scale = self.add_weight(
            name="residual_scale", shape=[], initializer="zeros", dtype=tf.float32, experimental_autocast=False
        )
        super().build(input_shape)

    def projections(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[B, H, W, C] → query [B, P, C/d], key [B, P', C/d], value [B, P', C] in float32; P' = P unless they are pooled."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.implementation == "pooled":
            factor = math.ceil(max(x.shape[1], x.shape[2]) / self.pooled_side)
            key, value = (tf.nn.avg_pool2d(part, factor, factor, "SAME") for part in (key, value))
        flat = [tf.reshape(part, [-1, part.shape[1] * part.shape[2], part.shape[3]]) for part in (query, key, value)]
        return tuple(tf.cast(part, tf.float32) for part in flat)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → the same shape and dtype."""
        query, key, value = self.projections(x)
        if self.implementation == "exact":
            mixed = attention(query, key, value)
        else:
            mixed = attention_in_chunks(query, key, value, self.chunk_rows)
        mixed = tf.reshape(mixed, [-1, *x.shape[1:]])
        return x + tf.cast(self.residual_scale * mixed, x.dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = {
            "reduction": self.reduction,
            "implementation": self.implementation,
            "chunk_rows": self.chunk_rows,
            "pooled_side": self.pooled_side,
            "seed": self.seed,
        }
        return {**super().get_config(), **own}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class ChannelAttention(tf.keras.layers.Layer):
    """x + s · attention over channels, without convolutions: rows of softmax(I Iᵀ / P) mix the channels; s starts at 0.

    Args:
        energy: 'mean' divides I Iᵀ by the number of positions P; 'correlation' standardises each channel first, so that the entries
            are correlations in [-1, 1]. Plain I Iᵀ would make the softmax one-hot from the start.
    """

    def __init__(self, energy: str = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if energy not in ("mean", "correlation"):
            raise ValueError(f"energy = '{energy}': expected 'mean' or 'correlation'")
        self.energy = energy

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes s."""
        self.residual_scale = self.add_weight(
            name="residual_scale", shape=[], initializer="zeros", dtype=tf.float32, experimental_autocast=False
        )
        super().build(input_shape)

    def weights_of(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → [B, C, C] float32; each row sums to 1."""
        flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[1] * x.shape[2], x.shape[3]])
        if self.energy == "correlation":
            mean, variance = tf.nn.moments(flat, [1], keepdims=True)
            flat = (flat - mean) * tf.math.rsqrt(variance + 1e-8)
        return tf.nn.softmax(tf.matmul(flat, flat, transpose_a=True) / flat.shape[1], axis=-1)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → the same shape and dtype."""
        flat = tf.reshape(tf.cast(x, tf.float32), [-1, x.shape[1] * x.shape[2], x.shape[3]])
        mixed = tf.matmul(flat, self.weights_of(x), transpose_b=True)  # channel i of the result is row i's combination
        return x + tf.cast(self.residual_scale * tf.reshape(mixed, [-1, *x.shape[1:]]), x.dtype)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        return {**super().get_config(), "energy": self.energy}


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class SpatialChannelAttention(tf.keras.layers.Layer):
    """α · conv(spatial attention) + β · conv(channel attention), with learned α and β that start at 1 and 1×1 convolutions.

    Source: Zhou et al., arXiv:1912.04670, section III.B.

    Args:
        reduction, implementation, chunk_rows, pooled_side: of the spatial part.
        energy: of the channel part.
        seed: of the kernels.
    """

    def __init__(
        self,
        reduction: int,
        implementation: str = "exact",
        chunk_rows: int = 512,
        pooled_side: int = 80,
        energy: str = "mean",
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.seed = seed
        self.spatial = SpatialAttention(
            reduction, implementation, chunk_rows, pooled_side, layer_seed(seed, "spatial"), name="spatial"
        )
        self.channel = ChannelAttention(energy, name="channel")

    def build(self, input_shape: tf.TensorShape) -> None:
        """Builds for x [B, H, W, C]."""
        channels = tf.TensorShape(input_shape)[-1]
        self.spatial_output = _convolution(channels, self.seed, "spatial_output", self.dtype_policy)
        self.channel_output = _convolution(channels, self.seed, "channel_output", self.dtype_policy)
        for part in (self.spatial, self.channel, self.spatial_output, self.channel_output):
            part.build(tf.TensorShape(input_shape))
        common: dict[str, Any] = {"shape": [], "initializer": "ones", "dtype": tf.float32, "experimental_autocast": False}
        self.spatial_weight = self.add_weight(name="spatial_weight", **common)
        self.channel_weight = self.add_weight(name="channel_weight", **common)
        super().build(input_shape)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] → the same shape and dtype."""
        spatial = tf.cast(self.spatial_weight, x.dtype) * self.spatial_output(self.spatial(x))
        return spatial + tf.cast(self.channel_weight, x.dtype) * self.channel_output(self.channel(x))

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        spatial = self.spatial.get_config()
        own = {name: spatial[name] for name in ("reduction", "implementation", "chunk_rows", "pooled_side")}
        return {**super().get_config(), **own, "energy": self.channel.energy, "seed": self.seed}
