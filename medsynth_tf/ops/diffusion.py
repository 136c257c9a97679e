"""Denoising diffusion: noise schedules, the forward process, and single steps of the reverse one.

Steps are counted t = 1 … T; t = 0 is the image. Tables have T + 1 entries, so that entry t is that of step t: β_0 = 0, ᾱ_0 = 1.
Sources: Ho et al., arXiv:2006.11239 (DDPM); Song et al., arXiv:2010.02502 (DDIM); Nichol and Dhariwal, arXiv:2102.09672 (cosine);
Salimans and Ho, arXiv:2202.00512 (velocity).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

SCHEDULES = ("paper", "rescaled", "cosine")
_COSINE_OFFSET = 0.008
_MOST_BETA = 0.999


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How fast images turn into noise.

    Attributes:
        beta: float64 [T + 1], variance of the noise that step t adds.
        alpha_bar: float64 [T + 1], share of the image's variance that is left after step t.
    """

    beta: np.ndarray
    alpha_bar: np.ndarray

    @property
    def steps(self) -> int:
        """T."""
        return len(self.beta) - 1


def make_schedule(kind: str, steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """The schedule of `steps` steps.

    Args:
        kind: 'paper', β linear from `beta_start` to `beta_end` whatever T is, so that T = 300 leaves a signal of √0.048 in the last
            image; 'rescaled', these β times 1000/T, so that T steps end where 1000 do; 'cosine', ᾱ a squared cosine.
        steps: T.
        beta_start, beta_end: of the linear schedules.

    Raises:
        ValueError: another kind, or a β outside (0, 1).
    """
    if kind == "cosine":
        share = np.cos((np.arange(steps + 1) / steps + _COSINE_OFFSET) / (1 + _COSINE_OFFSET) * np.pi / 2) ** 2
        beta = np.minimum(1 - share[1:] / share[:-1], _MOST_BETA)
    elif kind in SCHEDULES:
        beta = np.linspace(beta_start, beta_end, steps) * (1000 / steps if kind == "rescaled" else 1.0)
    else:
        raise ValueError(f"schedule = '{kind}': expected one of {', '.join(SCHEDULES)}")
    if beta.min() <= 0 or beta.max() >= 1:
        raise ValueError(
            f"schedule '{kind}' of {steps} steps: β goes from {beta.min():.3g} to {beta.max():.3g}, must be in (0, 1)"
        )
    beta = np.concatenate([[0.0], beta])
    return Schedule(beta, np.cumprod(1 - beta))


def timetable(total: int, steps: int) -> np.ndarray:
    """`steps` of the steps 1 … `total`, evenly, from the last to the first, then 0: int64 [steps + 1].

    Raises:
        ValueError: `steps` is not in 1 … `total`.
    """
    if not 1 <= steps <= total:
        raise ValueError(f"{steps} sampling steps of {total}: must be 1 to {total}")
    chosen = np.rint(np.linspace(total, 1, steps)).astype(np.int64) if steps > 1 else np.array([total])
    return np.append(chosen, 0)


def at(table: np.ndarray, t: tf.Tensor, rank: int) -> tf.Tensor:
    """Entries of a table for steps t: int scalar or [B] → float32, with axes of one added up to `rank` if there is a batch."""
    values = tf.gather(tf.constant(table, tf.float32), t)
    return tf.reshape(values, [-1] + [1] * (rank - 1)) if values.shape.rank else values


def q_sample(schedule: Schedule, x: tf.Tensor, t: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε (Ho et al., eq. 4).

    Args:
        schedule: of the process.
        x: float32 [B, …].
        t: int [B].
        noise: ε, of x's shape.
    """
    rank = x.shape.rank
    return at(np.sqrt(schedule.alpha_bar), t, rank) * x + at(np.sqrt(1 - schedule.alpha_bar), t, rank) * noise


def predict_start(schedule: Schedule, x: tf.Tensor, t: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """x̂_0 = (x_t - √(1 - ᾱ_t) ε) / √ᾱ_t; arguments as for `q_sample`, t perhaps a scalar."""
    rank = x.shape.rank
    return (x - at(np.sqrt(1 - schedule.alpha_bar), t, rank) * noise) / at(np.sqrt(schedule.alpha_bar), t, rank)


def noise_of(schedule: Schedule, x: tf.Tensor, t: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """The ε that leads from `start` to x at step t: the inverse of `predict_start`."""
    rank = x.shape.rank
    return (x - at(np.sqrt(schedule.alpha_bar), t, rank) * start) / at(np.sqrt(1 - schedule.alpha_bar), t, rank)


def velocity(schedule: Schedule, start: tf.Tensor, t: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """v = √ᾱ_t ε - √(1 - ᾱ_t) x_0 (Salimans and Ho, section 4): what a network can be asked for in place of ε.

    Where little is left of the image, it is nearly -x_0, so that the image's large forms are learned there and not divided by
    √ᾱ_t out of small errors of ε. Arguments as for `q_sample`.
    """
    rank = start.shape.rank
    return at(np.sqrt(schedule.alpha_bar), t, rank) * noise - at(np.sqrt(1 - schedule.alpha_bar), t, rank) * start


def noise_of_velocity(schedule: Schedule, x: tf.Tensor, t: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """ε = √ᾱ_t v + √(1 - ᾱ_t) x_t for x_t [B, …], t int [B] and v of x_t's shape."""
    rank = x.shape.rank
    return at(np.sqrt(schedule.alpha_bar), t, rank) * predicted + at(np.sqrt(1 - schedule.alpha_bar), t, rank) * x


def ddpm_step(schedule: Schedule, x: tf.Tensor, t: tf.Tensor, predicted: tf.Tensor, fresh: tf.Tensor) -> tf.Tensor:
    """x_{t-1} = (x_t - (1 - α_t)/√(1 - ᾱ_t) ε) / √α_t + √β_t n, without n at t = 1 (Ho et al., algorithm 2 with σ² = β).

    Args:
        schedule: of the process.
        x: x_t, float32 [B, …].
        t: int scalar.
        predicted: ε, of x's shape.
        fresh: n, standard normal, of x's shape.
    """
    rank = x.shape.rank
    # at t = 0 nothing is divided: the entry is never asked for
    shares = schedule.beta / np.sqrt(np.maximum(1 - schedule.alpha_bar, np.finfo(np.float64).tiny))
    mean = (x - at(shares, t, rank) * predicted) / at(np.sqrt(1 - schedule.beta), t, rank)
    spread = tf.where(t > 1, at(np.sqrt(schedule.beta), t, rank), 0.0)
    return mean + spread * fresh


def ddim_step(
    schedule: Schedule, x: tf.Tensor, t: tf.Tensor, after: tf.Tensor, predicted: tf.Tensor, fresh: tf.Tensor, eta: float
) -> tf.Tensor:
    """From step t to any earlier step `after`: x̂_0 and ε put together anew, with σ = η √((1-ᾱ')/(1-ᾱ)) √(1-ᾱ/ᾱ') of fresh noise.

    Source: Song et al., eq. 12 and 16; η = 0 adds no noise, η = 1 with all steps has DDPM's posterior variance.

    Args:
        schedule, x, t, predicted, fresh: as for `ddpm_step`.
        after: int scalar below t; at 0 the result is x̂_0.
        eta: η, at least 0.
    """
    bar = tf.constant(schedule.alpha_bar, tf.float32)
    now, then = tf.gather(bar, t), tf.gather(bar, after)
    start = predict_start(schedule, x, t, predicted)
    variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then)
    return tf.sqrt(then) * start + tf.sqrt(tf.maximum(1 - then - variance, 0.0)) * predicted + tf.sqrt(variance) * fresh


def reverse(
    schedule: Schedule,
    times: np.ndarray,
    predict: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    fresh: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    first: int | tf.Tensor,
    last: int | tf.Tensor,
    *,
    sampler: str = "ddpm",
    eta: float = 0.0,
    clip_start: bool = False,
) -> tf.Tensor:
    """The reverse process from position `first` of a timetable to position `last`, as one loop in the graph.

    Args:
        schedule: of the process.
        times: int64 [S + 1] as `timetable` gives it; with 'ddpm' of all steps.
        predict: (x_t, t) → ε.
        fresh: t → standard normal noise of x's shape; not asked for by 'ddim' with η = 0.
        x: x at step times[first], float32 [B, …].
        first, last: positions, 0 … S; all of them: 0 and S.
        sampler: 'ddpm' or 'ddim'.
        eta: of 'ddim'.
        clip_start: clip x̂_0 to [-1, 1] at each step.

    Returns:
        x at step times[last]; the image where that is 0.
    """
    table = tf.constant(times, tf.int32)
    noiseless = sampler == "ddim" and eta == 0.0

    def step(position: tf.Tensor, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        t, after = table[position], table[position + 1]
        predicted = predict(x, t)
        if clip_start:
            start = tf.clip_by_value(predict_start(schedule, x, t, predicted), -1.0, 1.0)
            predicted = noise_of(schedule, x, t, start)
        noise = tf.zeros_like(x) if noiseless else fresh(t)
        if sampler == "ddim":
            x = ddim_step(schedule, x, t, after, predicted, noise, eta)
        else:
            x = ddpm_step(schedule, x, t, predicted, noise)
        return position + 1, x

    last = tf.cast(last, tf.int32)
    _, x = tf.while_loop(lambda position, _: position < last, step, [tf.cast(first, tf.int32), x])
    return x
