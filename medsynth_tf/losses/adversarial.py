"""Adversarial losses. All are means over what they are given; the train step divides by the number of replicas."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf


def hinge_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(G(z)))] (Lim and Ye, arXiv:1705.02894, eq. 6), float32 scalar."""
    real, fake = tf.cast(real, tf.float32), tf.cast(fake, tf.float32)
    return tf.reduce_mean(tf.nn.relu(1.0 - real)) + tf.reduce_mean(tf.nn.relu(1.0 + fake))


def hinge_generator(fake: tf.Tensor) -> tf.Tensor:
    """-E[D(G(z))], float32 scalar."""
    return -tf.reduce_mean(tf.cast(fake, tf.float32))


def logistic_discriminator(real: tf.Tensor, fake: tf.Tensor, real_target: float = 1.0) -> tf.Tensor:
    """Cross-entropy of logits: real ones towards `real_target` (below 1: one-sided label smoothing), fake ones towards 0.

    Source: Goodfellow et al., arXiv:1406.2661, eq. 1. Float32 scalar: 2 ln 2 where every D(x) is 1/2 and `real_target` is 1.
    """
    real, fake = tf.cast(real, tf.float32), tf.cast(fake, tf.float32)
    on_real = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.fill(tf.shape(real), real_target), logits=real)
    return tf.reduce_mean(on_real) + tf.reduce_mean(tf.nn.softplus(fake))


def logistic_generator(fake: tf.Tensor) -> tf.Tensor:
    """-E[log D(G(z))] of logits, the form that does not saturate (Goodfellow et al., section 3), float32 scalar."""
    return tf.reduce_mean(tf.nn.softplus(-tf.cast(fake, tf.float32)))


def least_squares_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """½ E[(D(x) - 1)²] + ½ E[D(G(z))²] (Mao et al., arXiv:1611.04076, eq. 9), float32 scalar."""
    real, fake = tf.cast(real, tf.float32), tf.cast(fake, tf.float32)
    return 0.5 * (tf.reduce_mean((real - 1.0) ** 2) + tf.reduce_mean(fake**2))


def least_squares_generator(fake: tf.Tensor) -> tf.Tensor:
    """E[(D(G(z)) - 1)²], as CycleGAN has it (arXiv:1703.10593, section 4), float32 scalar."""
    return tf.reduce_mean((tf.cast(fake, tf.float32) - 1.0) ** 2)


def feature_matching(real: Sequence[Sequence[tf.Tensor]], fake: Sequence[Sequence[tf.Tensor]]) -> tf.Tensor:
    """L1 between discriminator features of real and fake (Wang et al., arXiv:1711.11585, eq. 4), float32 scalar.

    Summed over all layers of a scale but the last (the score), averaged over scales. Real features are detached.

    Args:
        real, fake: per scale, the list of that discriminator's outputs, score last.
    """
    total = tf.constant(0.0)
    for real_scale, fake_scale in zip(real, fake):
        for real_feature, fake_feature in zip(real_scale[:-1], fake_scale[:-1]):
            target = tf.stop_gradient(tf.cast(real_feature, tf.float32))
            total += tf.reduce_mean(tf.abs(target - tf.cast(fake_feature, tf.float32)))
    return total / len(real)


def wasserstein_critic(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """-E[D(x)] + E[D(G(z))] (Arjovsky et al., arXiv:1701.07875), float32 scalar; the generator's part is `hinge_generator`."""
    return tf.reduce_mean(tf.cast(fake, tf.float32)) - tf.reduce_mean(tf.cast(real, tf.float32))


def score_drift(real: tf.Tensor) -> tf.Tensor:
    """E[D(x)²], which keeps a critic's scores, whose level no Wasserstein loss fixes, near 0 (Karras et al., arXiv:1710.10196,
    appendix A.1), float32 scalar, without its weight."""
    return tf.reduce_mean(tf.cast(real, tf.float32) ** 2)


def gradient_penalty(critic: Callable[[tf.Tensor], tf.Tensor], real: tf.Tensor, fake: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """E[(‖∇ D(x̂)‖₂ - 1)²] at x̂ = u x + (1 - u) G(z) (Gulrajani et al., arXiv:1704.00028, eq. 3), float32 scalar, without its weight λ.

    Args:
        critic: images [B, ...] → scores [B]. Where a score looks at its neighbours in the batch too, as with minibatch deviation, an
            image's slope is that of all scores together, as in the code of Karras et al. (arXiv:1710.10196).
        real, fake: float32 [B, ...].
        share: u in [0, 1], float32 [B].
    """
    share = tf.reshape(share, [-1] + [1] * (real.shape.rank - 1))
    between = share * real + (1.0 - share) * fake
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(between)
        score = tf.reduce_sum(critic(between))
    gradient = tf.cast(tape.gradient(score, between), tf.float32)
    squares = tf.reduce_sum(gradient**2, axis=list(range(1, gradient.shape.rank)))
    return tf.reduce_mean((tf.sqrt(squares + 1e-12) - 1.0) ** 2)  # a root has no slope at 0
