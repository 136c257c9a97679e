"""Card 17: metric, flow and samplers, each by its number."""

import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from medsynth_tf.methods.generation.rhvae.config import SamplingConfig
from medsynth_tf.methods.generation.rhvae.sampling import Mixture, geometric, inside, of_mixture, start_points
from medsynth_tf.networks.vae import MetricFactor
from medsynth_tf.ops import random
from medsynth_tf.ops.hamiltonian import hamiltonian_monte_carlo, leapfrog, metropolis, riemannian_flow, tempering
from medsynth_tf.ops.riemannian import LatentMetric, exponential_map


def metric_of(count=12, size=3, temperature=1.1, regularisation=1e-2, seed=0, isotropic=False):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(count, size, size)).astype(np.float32)
    matrices = np.tile(np.eye(size, dtype=np.float32), (count, 1, 1)) if isotropic else factors @ factors.transpose(0, 2, 1)
    centroids = rng.normal(size=(count, size)).astype(np.float32)
    return LatentMetric(tf.constant(centroids), tf.constant(matrices), tf.ones([count]), temperature, regularisation)


def points_of(count=7, size=3, seed=1, spread=1.0):
    return tf.constant(np.random.default_rng(seed).normal(size=(count, size)) * spread, tf.float32)


def looped_inverse(metric, points):
    """G⁻¹ in float64, centroid by centroid."""
    size = points.shape[-1]
    result = []
    for z in np.asarray(points, np.float64):
        total = metric.regularisation * np.eye(size)
        for c, m, w in zip(metric.centroids.numpy(), metric.matrices.numpy(), metric.weights.numpy()):
            total += w * m * math.exp(-((z - c) ** 2).sum() / metric.temperature**2)
        result.append(total)
    return np.array(result)


# -- M1 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "pooling"), [(1, 1), (2, 2), (5, 1)])
def test_m1_factors_are_lower_triangular_with_a_positive_diagonal(size, pooling):
    network = MetricFactor((8, 12, 1), size, 20, pooling, "torch", seed=3)
    images = tf.constant(np.random.default_rng(0).uniform(size=(6, 8, 12, 1)), tf.float32)
    factor = network(images).numpy()
    assert factor.shape == (6, size, size)
    np.testing.assert_array_equal(factor, np.tril(factor))
    assert (np.diagonal(factor, axis1=1, axis2=2) > 0).all()
    matrices = factor @ factor.transpose(0, 2, 1)
    np.testing.assert_array_equal(matrices, matrices.transpose(0, 2, 1))
    assert (np.linalg.eigvalsh(matrices) > 0).all()
    if size > 1:
        strict = factor[(slice(None), *np.tril_indices(size, -1))]
        assert (np.abs(strict) > 0).all(), "every entry below the diagonal is used"
        assert len(np.unique(strict[0])) == strict.shape[1]
    # the heads are what they should be: the diagonal is the exponential of the first, whatever the second says
    for variable in network.log_diagonal.variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_array_equal(np.diagonal(network(images), axis1=1, axis2=2), 1.0)
    pooled = (8 // pooling) * (12 // pooling)
    parameters = (pooled + 1) * 20 + 21 * size + 21 * (size * (size - 1) // 2)
    assert network.count_params() == parameters


# -- M2, M3 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 10])
def test_m2_the_inverse_metric_equals_the_loop_over_centroids(size):
    metric, points = metric_of(size=size), points_of(size=size)
    inverse = metric.at(points).inverse.numpy()
    np.testing.assert_allclose(inverse, looped_inverse(metric, points), rtol=1e-5, atol=1e-5)
    assert (np.linalg.eigvalsh(inverse) >= metric.regularisation * (1 - 1e-4)).all()
    far = metric.at(points_of(size=size, spread=1e3)).inverse
    np.testing.assert_allclose(far, np.tile(metric.regularisation * np.eye(size), (7, 1, 1)), atol=1e-9)
    half = metric._replace(weights=tf.constant([1.0, 0.0] * 6))
    np.testing.assert_allclose(half.at(points).inverse, looped_inverse(half, points), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_m3_metric_and_inverse_multiply_to_one_and_the_log_determinant_is_right(size):
    metric, points = metric_of(size=size, count=30), points_of(size=size)
    here = metric.at(points)
    np.testing.assert_allclose(here.tensor @ here.inverse, np.tile(np.eye(size), (7, 1, 1)), atol=2e-4)
    _, log_determinant = np.linalg.slogdet(looped_inverse(metric, points))
    np.testing.assert_allclose(here.log_density, 0.5 * log_determinant, rtol=1e-4, atol=1e-4)
    # det G⁻¹ = 1e-5^10 is no float32, its logarithm is no trouble
    tiny = metric_of(size=10, regularisation=1e-5).at(points_of(size=10, spread=1e3))
    np.testing.assert_allclose(tiny.log_density, 5 * math.log(1e-5), rtol=1e-5)
    functions = tf.function(lambda z: metric.at(z).log_density).get_concrete_function(points)
    operations = {op.type for op in functions.graph.get_operations()}
    assert "Cholesky" in operations
    assert not operations & {"MatrixDeterminant", "LogMatrixDeterminant"}


# -- M4 ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 6])
def test_m4_the_closed_gradient_is_that_of_automatic_differentiation(size):
    metric, points = metric_of(size=size), points_of(size=size)
    momentum = points_of(size=size, seed=5)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        here = metric.at(points)
        log_density, kinetic = here.log_density, here.kinetic(momentum)
    exact = here.log_density_gradient()
    np.testing.assert_allclose(exact, tape.gradient(log_density, points), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(here.kinetic_gradient(momentum), tape.gradient(kinetic, points), rtol=1e-3, atol=1e-4)
    reference = here.log_density_gradient("reference").numpy()
    # what the authors' code computes, by a loop
    expected = []
    for z, g in zip(points.numpy(), here.tensor.numpy()):
        total = np.zeros(size)
        for c, m in zip(metric.centroids.numpy(), metric.matrices.numpy()):
            total += math.exp(-((z - c) ** 2).sum() / metric.temperature**2) * (m @ (c - z))
        expected.append(g @ total / metric.temperature**2)
    np.testing.assert_allclose(reference, expected, rtol=1e-3, atol=1e-4)
    if size == 1:
        np.testing.assert_allclose(reference, exact, rtol=1e-3, atol=1e-5)
    else:
        assert np.abs(reference - exact).max() > 0.05


def test_m4_the_reference_gradient_of_isotropic_matrices_is_too_small_by_the_dimension():
    metric, points = metric_of(size=4, isotropic=True), points_of(size=4)
    here = metric.at(points)
    np.testing.assert_allclose(4 * here.log_density_gradient("reference"), here.log_density_gradient(), rtol=1e-4, atol=1e-6)


# -- M5, M6 -----------------------------------------------------------------------------------------------------------------


def quadratic(here):
    """∇U of U = ½ ‖z‖² - ℓ(z): the flow's potential with a decoder that says nothing."""
    return here.points - here.log_density_gradient()


def test_m5_the_flow_is_reversible():
    metric, points, momentum = metric_of(size=3), points_of(), points_of(seed=9)
    there, moved = riemannian_flow(metric, quadratic, points, momentum, 5, 0.01, iterations=12)
    assert float(tf.reduce_max(tf.abs(there.points - points))) > 0.05, "it went somewhere"
    back, returned = riemannian_flow(metric, quadratic, there.points, -moved, 5, 0.01, iterations=12)
    np.testing.assert_allclose(back.points, points, atol=1e-3)
    np.testing.assert_allclose(-returned, momentum, atol=1e-3)


def test_m5_energy_is_kept_and_its_error_falls_with_the_square_of_the_step():
    metric = metric_of(size=3, temperature=2.0, regularisation=0.1)
    metric = metric._replace(matrices=0.1 * metric.matrices)
    points, momentum = points_of(), points_of(seed=9)

    def energy(here, rho):
        return 0.5 * tf.reduce_sum(here.points**2, -1) - here.log_density + here.kinetic(rho)

    before = energy(metric.at(points), momentum)
    errors = []
    for steps in (10, 20):
        there, moved = riemannian_flow(metric, quadratic, points, momentum, steps, 0.3 / steps, iterations=15)
        errors.append(float(tf.reduce_max(tf.abs(energy(there, moved) - before))))
    assert errors[0] < 0.05
    assert 3.0 < errors[0] / errors[1] < 5.5


def test_m5_the_second_equation_looks_at_the_new_point():
    metric, points, momentum = metric_of(size=3, temperature=0.5), points_of(), points_of(seed=9)
    there, _ = riemannian_flow(metric, quadratic, points, momentum, 1, 0.1, iterations=30)
    here = metric.at(points)
    half = momentum
    for _ in range(30):
        half = momentum - 0.05 * (quadratic(here) + here.kinetic_gradient(half))
    expected = points + 0.05 * (here.velocity(half) + there.velocity(half))
    np.testing.assert_allclose(there.points, expected, atol=1e-5)
    assert np.abs(there.points - (points + 0.1 * here.velocity(half))).max() > 1e-3, "not the point of the old metric alone"


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_m6_tempering_multiplies_to_the_square_root_of_beta_zero(steps):
    roots = tempering(steps, 0.3)
    assert roots[0] == pytest.approx(0.3)
    assert roots[-1] == 1.0
    assert (np.diff(roots) > 0).all()
    assert np.prod(roots[:-1] / roots[1:]) == pytest.approx(0.3)
    # the flow applies them: where nothing pulls, momenta end 0.3 times as large
    flat = metric_of(size=2)._replace(matrices=tf.zeros([12, 2, 2]), regularisation=1.0)
    momentum = points_of(size=2)
    _, moved = riemannian_flow(flat, lambda here: tf.zeros_like(here.points), points_of(size=2), momentum, steps, 0.1, 3, 0.3)
    np.testing.assert_allclose(moved, 0.3 * momentum, rtol=1e-5)


# -- M9 ---------------------------------------------------------------------------------------------------------------------


def test_m9_geodesics_keep_their_energy_and_converge():
    metric, points = metric_of(size=2, count=8, temperature=2.0, regularisation=0.1), points_of(size=2, spread=0.7)
    velocity = points_of(size=2, seed=4, spread=0.3)
    start = metric.at(points)
    before = start.kinetic(start.lowered(velocity)).numpy()
    worst, places = {}, {}
    for steps in (10, 20, 400):
        places[steps], momentum = exponential_map(metric, points, velocity, steps)
        after = metric.at(places[steps]).kinetic(momentum).numpy()
        worst[steps] = np.abs(after / before - 1).max()
    assert worst[10] < 0.01
    errors = [float(tf.reduce_max(tf.abs(places[steps] - places[400]))) for steps in (10, 20)]
    assert 3.0 < errors[0] / errors[1] < 5.5
    wrong, momentum = exponential_map(metric, points, velocity, 400, sign="reference")
    drift = np.abs(metric.at(wrong).kinetic(momentum) / before - 1).max()
    assert drift > 0.1, "with the reference's sign energy drifts however many steps there are"


def test_m9_a_constant_metric_has_straight_geodesics():
    metric = metric_of(size=3)._replace(matrices=tf.zeros([12, 3, 3]), regularisation=0.25)
    points, velocity = points_of(), points_of(seed=2)
    for sign in ("hamilton", "reference"):
        np.testing.assert_allclose(exponential_map(metric, points, velocity, 10, sign)[0], points + velocity, atol=1e-5)


# -- M10, M12 ---------------------------------------------------------------------------------------------------------------


def test_m10_the_random_walk_accepts_by_the_ratio_of_volumes():
    metric = metric_of(size=2)
    settings = SamplingConfig(sampler="random_walk", steps=40, proposal_deviation=0.7, bounds="none")
    seeds = tf.range(64, dtype=tf.int64)
    chains = geometric(settings, metric, seeds, keep_trace=True)
    trace = chains.trace.numpy()
    assert trace.shape == (41, 64, 2)
    moved = (trace[1:] != trace[:-1]).any(-1)
    np.testing.assert_allclose(chains.acceptance, moved.mean(0), atol=1e-6)
    assert 0.2 < moved.mean() < 0.95
    centroids = {tuple(c) for c in metric.centroids.numpy()}
    assert {tuple(p) for p in trace[0]} <= centroids, "chains start at centroids"
    np.testing.assert_array_equal(trace[-1], chains.states)
    # repeat each proposal from the random numbers: accepted exactly where u < √det G⁻¹(z̃) / √det G⁻¹(z)
    noise, uniforms = random.normal(seeds, (40, 2), "momenta"), random.uniform(seeds, (40,), "acceptance").numpy()
    for step in range(40):
        here = tf.constant(trace[step])
        proposal = exponential_map(metric, here, 0.7 * noise[:, step], 10)[0].numpy()
        ratio = np.sqrt(np.linalg.det(looped_inverse(metric, proposal)) / np.linalg.det(looped_inverse(metric, here)))
        clear = np.abs(ratio - uniforms[:, step]) > 1e-3
        np.testing.assert_array_equal(moved[step][clear], (uniforms[:, step] < ratio)[clear])
        np.testing.assert_allclose(trace[step + 1][moved[step]], proposal[moved[step]], atol=1e-5)
        assert moved[step][(ratio > 1.001)].all(), "an improvement is always accepted"


def test_m10_refused_chains_keep_their_state():
    start = tf.constant([[1.0], [2.0], [3.0]])
    ratio = tf.constant([-math.inf, 0.0, math.nan])
    chains = metropolis(start, tf.fill([3, 5], 0.999), lambda step, states: (states + 1.0, ratio), keep_trace=True)
    np.testing.assert_array_equal(chains.states[:, 0], [1.0, 7.0, 3.0])
    np.testing.assert_array_equal(chains.acceptance, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(chains.trace[:, 1, 0], [2, 3, 4, 5, 6, 7])


def test_m12_acceptance_in_logarithms_stands_any_difference_of_energies():
    huge = 1e4
    for sign, states in ((1.0, [1.0]), (-1.0, [0.0])):
        chains = metropolis(tf.zeros([1, 1]), tf.constant([[0.5]]), lambda step, z, s=sign: (z + 1.0, tf.constant([s * huge])))
        np.testing.assert_array_equal(chains.states[0], states)

    # energies of 800 and more: proposals up the hill of a wrong gradient are all refused, those down it all accepted
    for start, gradient, accepted in ((0.1, 1600.0, 0.0), (2.0, -1600.0, 1.0)):
        chains = hamiltonian_monte_carlo(
            lambda z: -800.0 * z[:, 0] ** 2,
            lambda z, g=gradient: g * z,
            tf.fill([4, 1], start),
            tf.zeros([4, 1, 1]),
            tf.fill([4, 1], 0.5),
            leapfrog_steps=3,
            step_size=0.02,
        )
        np.testing.assert_array_equal(chains.acceptance, tf.fill([4], accepted))
        assert np.isfinite(chains.states).all()


# -- M11 --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gradient", ["exact", "reference"])
def test_m11_hmc_samples_the_volume_density(gradient):
    temperature, regularisation = 1.0, 0.05
    metric = LatentMetric(tf.zeros([1, 1]), tf.ones([1, 1, 1]), tf.ones([1]), temperature, regularisation)
    settings = SamplingConfig(
        steps=60, leapfrog_steps=10, step_size=0.3, bounds="box", bounds_margin=3.0, hmc_gradient=gradient
    )
    chains = tf.function(lambda seeds: geometric(settings, metric, seeds))(tf.range(3000, dtype=tf.int64))
    states = chains.states.numpy()[:, 0]
    assert np.abs(states).max() <= 3.0
    grid = np.linspace(-3, 3, 6001)
    density = np.sqrt(np.exp(-(grid**2) / temperature**2) + regularisation)
    cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    cumulative /= cumulative[-1]
    result = stats.kstest(states, lambda x: np.interp(x, grid, cumulative))
    assert result.pvalue > 0.01
    assert stats.kstest(states, stats.norm(0, states.std()).cdf).pvalue < 0.05, "it is no Gaussian"
    assert 0.7 < float(tf.reduce_mean(chains.acceptance)) < 1.0


def test_m11_one_trajectory_is_the_textbook_leapfrog():
    points, momentum = points_of(size=2), points_of(size=2, seed=3)
    z, rho = points.numpy().astype(np.float64), momentum.numpy().astype(np.float64)
    for _ in range(7):
        rho = rho - 0.05 * z
        z = z + 0.1 * rho
        rho = rho - 0.05 * z
    got = leapfrog(lambda z: -z, points, momentum, 7, 0.1)
    np.testing.assert_allclose(got[0], z, atol=1e-5)
    np.testing.assert_allclose(got[1], rho, atol=1e-5)


# -- what is around the samplers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["metric_hmc", "random_walk", "wrapped_normal"])
def test_chains_do_not_depend_on_the_batch_they_are_in(sampler):
    metric = metric_of(size=2)
    settings = SamplingConfig(sampler=sampler, steps=10)
    seeds = tf.constant([5, 2**40, -3, 8], tf.int64)
    together = geometric(settings, metric, seeds)
    alone = [geometric(settings, metric, seeds[i : i + 1]).states[0] for i in range(4)]
    np.testing.assert_allclose(together.states, alone, atol=1e-4)
    assert len({tuple(s) for s in together.states.numpy().round(4)}) == 4


def test_starts_are_uniform_over_the_centroids_that_count():
    metric = metric_of(count=5, size=2)._replace(weights=tf.constant([0.0, 1.0, 1.0, 0.0, 1.0]))
    starts = start_points(metric, tf.range(3000, dtype=tf.int64)).numpy()
    counts = [(starts == c).all(-1).sum() for c in metric.centroids.numpy()]
    assert counts[0] == counts[3] == 0
    assert stats.chisquare([counts[1], counts[2], counts[4]]).pvalue > 0.001


def test_bounds_hold_the_centroids_and_a_margin():
    metric = metric_of(count=5, size=2, temperature=0.5)._replace(
        centroids=tf.constant([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0], [50.0, 50.0]]),
        weights=tf.constant([1.0, 1.0, 1.0, 1.0, 0.0]),
    )
    probes = tf.constant([[3.4, 2.4], [3.55, 0.5], [1.0, 2.6], [-1.4, -1.4], [60.0, 0.0]])
    margin = {"bounds_margin": 3.0}
    np.testing.assert_array_equal(inside(SamplingConfig(**margin), metric, probes), [True, False, False, True, False])
    # the ball around (1, 0.5) of radius √1.25 + 1.5
    ball = inside(SamplingConfig(bounds="ball", **margin), metric, probes)
    np.testing.assert_array_equal(ball, [False, True, True, False, False])
    assert inside(SamplingConfig(bounds="none"), metric, probes).numpy().all()
    settings = SamplingConfig(sampler="random_walk", steps=30, proposal_deviation=5.0, bounds="box", bounds_margin=0.5)
    states = geometric(settings, metric, tf.range(50, dtype=tf.int64)).states
    assert inside(settings, metric, states).numpy().all()


def test_the_wrapped_normal_is_the_exponential_map_of_a_gaussian():
    flat = metric_of(size=2)._replace(
        matrices=tf.zeros([12, 2, 2]), weights=tf.constant([1.0] + [0.0] * 11), regularisation=1.0
    )
    settings = SamplingConfig(sampler="wrapped_normal", proposal_deviation=0.4)
    states = geometric(settings, flat, tf.range(2000, dtype=tf.int64)).states.numpy() - flat.centroids[0].numpy()
    for axis in range(2):
        assert stats.kstest(states[:, axis], stats.norm(0, 0.4).cdf).pvalue > 0.001


def test_mixtures_are_drawn_by_weight():
    mixture = Mixture(
        tf.constant([0.25, 0.0, 0.75]), tf.constant([[-5.0], [0.0], [5.0]]), tf.constant([[[0.5]], [[1.0]], [[2.0]]])
    )
    drawn = of_mixture(mixture, tf.range(4000, dtype=tf.int64)).numpy()[:, 0]
    low, high = drawn[drawn < -2.5], drawn[drawn > 0]
    assert low.size / drawn.size == pytest.approx(0.25, abs=0.03)
    assert stats.kstest(low, stats.norm(-5, 0.5).cdf).pvalue > 0.001
    assert high.mean() == pytest.approx(5.0, abs=0.2)
    assert high.std() == pytest.approx(2.0, rel=0.06)
