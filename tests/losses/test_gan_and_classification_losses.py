import numpy as np
import pytest
import tensorflow as tf

from medsynth_tf.losses import adversarial as gan
from medsynth_tf.losses.classification import cross_entropy, focal_loss

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=[2, 6, 1])


def test_logistic_losses_equal_their_definition_and_are_2_ln_2_at_one_half():
    d = {name: 1 / (1 + np.exp(-values)) for name, values in (("real", REAL), ("fake", FAKE))}
    smoothed = -(0.9 * np.log(d["real"]) + 0.1 * np.log(1 - d["real"])).mean() - np.log(1 - d["fake"]).mean()
    assert float(gan.logistic_discriminator(REAL, FAKE, 0.9)) == pytest.approx(smoothed, rel=1e-5)
    assert float(gan.logistic_generator(FAKE)) == pytest.approx(-np.log(d["fake"]).mean(), rel=1e-5)
    assert float(gan.logistic_discriminator(tf.zeros([3]), tf.zeros([3]))) == pytest.approx(2 * np.log(2))


def test_least_squares_losses():
    expected = 0.5 * ((REAL - 1) ** 2).mean() + 0.5 * (FAKE**2).mean()
    assert float(gan.least_squares_discriminator(REAL, FAKE)) == pytest.approx(expected, rel=1e-5)
    assert float(gan.least_squares_generator(FAKE)) == pytest.approx(((FAKE - 1) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_equals_its_definition(gamma):
    logits, labels = RNG.normal(size=[7, 4]), RNG.integers(4, size=7)
    p = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))[np.arange(7), labels]
    assert float(focal_loss(logits, labels, gamma)) == pytest.approx((-((1 - p) ** gamma) * np.log(p)).mean(), rel=1e-5)
    if gamma == 0:
        assert float(focal_loss(logits, labels, 0.0)) == float(cross_entropy(logits, labels))


def test_focal_loss_has_a_finite_gradient_where_nothing_is_wrong():
    logits = tf.constant([[60.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = focal_loss(logits, [0], 0.5)
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_drift_is_the_mean_square_of_scores_also_of_those_whose_square_is_beyond_half_precision():
    assert float(gan.score_drift(REAL)) == pytest.approx((REAL**2).mean(), rel=1e-5)
    assert float(gan.score_drift(tf.constant([300.0, -400.0], tf.float16))) == pytest.approx(125_000.0)
