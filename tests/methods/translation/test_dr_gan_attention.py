"""Card 31, M4 to M6: attention over positions and channels."""

import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.layers.attention import (
    ChannelAttention,
    SpatialAttention,
    SpatialChannelAttention,
    attention,
    attention_in_chunks,
    attention_weights,
)


def normal(*shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, len(shape)])


def randomised(layer):
    """Random weights everywhere, so that nothing hides behind a zero."""
    for index, weight in enumerate(layer.trainable_variables):
        weight.assign(weight + 0.5 * tf.random.stateless_normal(weight.shape, [0, index]))
    return layer


def built(layer, shape):
    layer(tf.zeros(shape))
    return layer


def test_m4_attention_at_rest_is_the_identity_weighted_by_alpha_and_beta():
    layer = SpatialChannelAttention(reduction=2)
    x = normal(2, 5, 6, 8)
    layer(x)
    for part in (layer.spatial_output, layer.channel_output):
        part.kernel.assign(tf.eye(8)[tf.newaxis, tf.newaxis])
    layer.spatial_weight.assign(0.7)
    layer.channel_weight.assign(-1.9)
    np.testing.assert_allclose(layer(x), (0.7 - 1.9) * x, atol=1e-6)


def test_m4_attention_maps_have_rows_of_sum_one_and_the_cards_shapes():
    layer = randomised(built(SpatialAttention(2), [2, 5, 6, 8]))
    query, key, value = layer.projections(normal(2, 5, 6, 8))
    spatial = attention_weights(query, key)
    assert spatial.shape == [2, 30, 30]
    assert query.shape[-1] == key.shape[-1] == 4
    assert value.shape[-1] == 8
    np.testing.assert_allclose(tf.reduce_sum(spatial, -1), np.ones([2, 30]), rtol=1e-5)
    for energy in ("mean", "correlation"):
        channel = ChannelAttention(energy).weights_of(normal(2, 5, 6, 8))
        assert channel.shape == [2, 8, 8]
        np.testing.assert_allclose(tf.reduce_sum(channel, -1), np.ones([2, 8]), rtol=1e-5)


def test_m4_channel_attention_is_the_sum_written_out():
    layer = ChannelAttention()
    x = normal(1, 4, 4, 3)
    layer(x)
    layer.residual_scale.assign(0.8)
    flat = x.numpy().reshape(16, 3).astype(np.float64)
    energy = flat.T @ flat / 16
    weights = np.exp(energy) / np.exp(energy).sum(1, keepdims=True)
    expected = flat + 0.8 * np.stack([sum(weights[i, j] * flat[:, j] for j in range(3)) for i in range(3)], -1)
    np.testing.assert_allclose(layer(x).numpy().reshape(16, 3), expected, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 5, 12, 100])
def test_m5_chunked_attention_is_the_naive_one_in_values_and_gradients(rows):
    query, key, value, upstream = normal(2, 12, 3), normal(2, 9, 3, seed=1), normal(2, 9, 5, seed=2), normal(2, 12, 5, seed=3)

    @tf.function
    def of(function):
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            out = function(query, key, value)
            total = tf.reduce_sum(out * upstream)
        return out, *tape.gradient(total, [query, key, value])

    for naive, chunked in zip(of(attention), of(lambda q, k, v: attention_in_chunks(q, k, v, rows))):
        np.testing.assert_allclose(chunked, naive, atol=1e-5)


def test_m5_layers_of_every_implementation_agree_where_nothing_is_pooled():
    x = normal(2, 6, 6, 8)
    exact = randomised(built(SpatialAttention(2, "exact"), x.shape))
    outputs, gradients = {}, {}
    for name, options in {
        "exact": {},
        "chunked": {"chunk_rows": 7},
        "pooled": {"chunk_rows": 7, "pooled_side": 6},
        "coarser": {"pooled_side": 3},
    }.items():
        kind = "pooled" if name == "coarser" else name
        layer = built(SpatialAttention(2, kind, **options), x.shape)
        layer.set_weights(exact.get_weights())
        with tf.GradientTape() as tape:
            outputs[name] = layer(x)
            loss = tf.reduce_sum(outputs[name] ** 2)
        gradients[name] = tape.gradient(loss, layer.trainable_variables)
    for name in ("chunked", "pooled"):
        np.testing.assert_allclose(outputs[name], outputs["exact"], atol=1e-5)
        for one, other in zip(gradients[name], gradients["exact"]):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    query, key, value = exact.projections(x)
    key, value = (
        tf.reshape(tf.nn.avg_pool2d(tf.reshape(part, [2, 6, 6, -1]), 2, 2, "VALID"), [2, 9, -1]) for part in (key, value)
    )
    expected = x + exact.residual_scale * tf.reshape(attention(query, key, value), x.shape)
    np.testing.assert_allclose(outputs["coarser"], expected, atol=1e-5)
    assert np.abs(outputs["coarser"] - outputs["exact"]).max() > 0.01


def test_m6_spatial_attention_commutes_with_permutations_of_positions():
    x = normal(1, 4, 5, 6)
    layer = randomised(built(SpatialAttention(2), x.shape))
    order = np.random.default_rng(0).permutation(20)

    def permuted(y):
        return tf.reshape(tf.gather(tf.reshape(y, [1, 20, 6]), order, axis=1), [1, 4, 5, 6])

    np.testing.assert_allclose(layer(permuted(x)), permuted(layer(x)), atol=1e-5)


@pytest.mark.parametrize("energy", ["mean", "correlation"])
def test_m6_channel_attention_commutes_with_permutations_of_channels(energy):
    x = normal(1, 4, 5, 6)
    layer = built(ChannelAttention(energy), x.shape)
    layer.residual_scale.assign(0.9)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(layer(tf.gather(x, order, axis=-1)), tf.gather(layer(x), order, axis=-1), atol=1e-5)
