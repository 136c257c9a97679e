"""Random numbers per sample: sample i depends on `seeds[i]` and a name, never on the batch or the replica it is in."""

from __future__ import annotations

import zlib

import tensorflow as tf


def sample_seeds(seeds: tf.Tensor, name: str) -> tf.Tensor:
    """Stateless seeds [B, 2] int32 for the use called `name`.

    Args:
        seeds: int64 [B], one per sample; all 64 bits count.
        name: what the numbers are for; two names give unrelated numbers.
    """
    seeds = tf.cast(seeds, tf.int64)
    halves = tf.bitcast(seeds, tf.int32)  # [B, 2]
    salt = tf.constant([zlib.crc32(name.encode()) & 0x7FFFFFFF, zlib.adler32(name.encode()) & 0x7FFFFFFF], tf.int32)
    return tf.bitwise.bitwise_xor(halves, salt)


def normal(seeds: tf.Tensor, shape: tuple[int, ...], name: str) -> tf.Tensor:
    """Standard normal noise [B, *shape] float32, one independent stream per sample."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, seed),
        sample_seeds(seeds, name),
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def normal_maps(seeds: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int, channels: int, name: str) -> tf.Tensor:
    """As `normal`, of maps [B, H, W, C] whose size may be known in the graph only."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_normal(tf.stack([height, width, channels]), seed),
        sample_seeds(seeds, name),
        fn_output_signature=tf.TensorSpec([None, None, channels], tf.float32),
    )


def uniform(seeds: tf.Tensor, shape: tuple[int, ...], name: str) -> tf.Tensor:
    """Uniform noise in [0, 1), [B, *shape] float32, one independent stream per sample."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform(shape, seed),
        sample_seeds(seeds, name),
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )


def normal_at(seeds: tf.Tensor, shape: tuple[int, ...], name: str, step: tf.Tensor) -> tf.Tensor:
    """As `normal`, with another independent stream for each value of `step`, an integer scalar that may be known in the graph only."""
    return tf.map_fn(
        lambda seed: tf.random.stateless_normal(shape, tf.random.experimental.stateless_fold_in(seed, step)),
        sample_seeds(seeds, name),
        fn_output_signature=tf.TensorSpec(shape, tf.float32),
    )
