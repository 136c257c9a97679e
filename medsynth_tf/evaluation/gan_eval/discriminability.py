"""How well a fresh network tells synthetic from real images it has never seen, and how far apart they lie in its features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from medsynth_tf.core.errors import DataError
from medsynth_tf.data.gan_protocol_config import GANProtocolConfig
from medsynth_tf.evaluation.gan_eval.evaluator import Answers, Evaluator
from medsynth_tf.metrics.gaussian_distances import floor, gaussian_frechet, mahalanobis


@dataclasses.dataclass(frozen=True)
class Run:
    """One evaluator's judgement.

    Attributes:
        scores: name → number; see `one_run`.
        real: features of RTs, float32 [M, F].
        synthetic: features of STs, float32 [N, F].
    """

    scores: dict[str, float]
    real: np.ndarray
    synthetic: np.ndarray


def confusion_scores(real: np.ndarray, synthetic: np.ndarray, positive: str = "synthetic") -> dict[str, float]:
    """Scores of a classifier that takes an image for synthetic from 1/2 on.

    Args:
        real: probabilities that real images are synthetic, [M].
        synthetic: the same of synthetic images, [N].
        positive: whose detection `recall` is: 'synthetic' or 'real'.

    Returns:
        `recall`, `specificity` (lower is better for the generator; both 1/2: it cannot be told from real), `accuracy`,
        `balanced_accuracy`, `auc`, and `p_value`, how probable so many right answers or more are where there is no difference
        (binomial, P(right) = 1/2; Lopez-Paz and Oquab, arXiv:1610.06545).
    """
    found, kept = (synthetic >= 0.5).mean(), (real < 0.5).mean()
    recall, specificity = (found, kept) if positive == "synthetic" else (kept, found)
    right = int((synthetic >= 0.5).sum() + (real < 0.5).sum())
    total = len(real) + len(synthetic)
    truth = np.concatenate([np.zeros(len(real)), np.ones(len(synthetic))])
    return {
        "recall": float(recall),
        "specificity": float(specificity),
        "accuracy": right / total,
        "balanced_accuracy": float(found + kept) / 2,
        "auc": float(roc_auc_score(truth, np.concatenate([real, synthetic]))),
        "p_value": float(stats.binomtest(right, total, 0.5, alternative="greater").pvalue),
    }


def one_run(
    evaluator: Evaluator,
    protocol: GANProtocolConfig,
    real: tuple[np.ndarray, np.ndarray],
    synthetic: tuple[np.ndarray, np.ndarray],
    seed: int,
) -> Run:
    """Trains an evaluator on (RTr, STr) and judges (RTs, STs).

    Args:
        evaluator: its weights are replaced.
        protocol: settings.
        real: RTr and RTs.
        synthetic: STr and STs.
        seed: of weights, order, floors and classifiers.

    Returns:
        Scores of `confusion_scores`; `loss` of training; `mahalanobis` (mean over STs) and `frechet` in the features, each with
        `_floor`, what two parts of the real images get in the same network with the same numbers of images;
        `classifier.<name>`, balanced accuracy of other classifiers on its features, if they are asked for.
    """
    loss = evaluator.train(real[0], synthetic[0], seed)
    on_real, on_synthetic = evaluator.answer(real[1]), evaluator.answer(synthetic[1])
    learnt_real = evaluator.answer(real[0])

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        return float(mahalanobis(x, y, protocol.covariance).mean())

    scores = confusion_scores(on_real.probability, on_synthetic.probability, protocol.positive) | {"loss": loss}
    pool = np.concatenate([learnt_real.features, on_real.features])
    for name, measure in (("mahalanobis", distance), ("frechet", gaussian_frechet)):
        scores[name] = measure(on_synthetic.features, on_real.features)
        counts = len(on_synthetic.features), len(on_real.features)
        scores[f"{name}_floor"] = floor(measure, pool, *counts, draws=protocol.floor_draws, seed=seed)[0]
    if protocol.classifiers:
        learnt_synthetic = evaluator.answer(synthetic[0])
        scores |= cross_check((learnt_real, on_real), (learnt_synthetic, on_synthetic), seed)
    return Run(scores, on_real.features, on_synthetic.features)


def cross_check(real: tuple[Answers, Answers], synthetic: tuple[Answers, Answers], seed: int) -> dict[str, float]:
    """Balanced accuracy on test features of classifiers that were fitted to training features.

    Args:
        real: answers on RTr and RTs.
        synthetic: answers on STr and STs.
        seed: of what is random in them.
    """
    kinds: dict[str, Any] = {
        "tree": DecisionTreeClassifier(random_state=seed % 2**32),
        "forest": RandomForestClassifier(random_state=seed % 2**32),
        "svm": make_pipeline(StandardScaler(), SVC(kernel="linear")),
        "neighbours": KNeighborsClassifier(),
        "adaboost": AdaBoostClassifier(random_state=seed % 2**32),
    }
    features = np.concatenate([real[0].features, synthetic[0].features])
    truth = np.repeat([0, 1], [len(real[0].features), len(synthetic[0].features)])
    found = {}
    for name, classifier in kinds.items():
        classifier.fit(features, truth)
        kept = (classifier.predict(real[1].features) == 0).mean()
        caught = (classifier.predict(synthetic[1].features) == 1).mean()
        found[f"classifier.{name}"] = float(kept + caught) / 2
    return found


def summary(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (of the population) over runs: score → {"mean", "std"}.

    Raises:
        DataError: there is no run.
    """
    if not runs:
        raise DataError("no run to sum up")
    names = runs[0].scores
    values = {name: np.array([run.scores[name] for run in runs]) for name in names}
    return {name: {"mean": float(each.mean()), "std": float(each.std())} for name, each in values.items()}


def median_run(runs: Sequence[Run]) -> int:
    """The run whose balanced accuracy is the median (of an even number the lower one of the two)."""
    order = np.argsort([run.scores["balanced_accuracy"] for run in runs], kind="stable")
    return int(order[(len(runs) - 1) // 2])
