"""Settings of the protocol that compares generators, which `evaluation.gan_eval` runs."""

from __future__ import annotations

import dataclasses
from typing import Literal

from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class EvaluatorConfig(Settings):
    """The network that is trained anew to tell synthetic from real images, in each run."""

    width: int = setting(32, help="filters of the first of its four blocks", minimum=1)
    features: int = setting(128, help="units of the layer in which distances are measured", minimum=2)
    epochs: int = setting(20, help="passes over the training images; some over-fitting is wanted", minimum=1)
    batch_size: int | None = setting(None, help="null: 128, or 32 for less than 500 real training images", minimum=2)
    learning_rate: float = setting(1e-3, help="of Adam", above=0.0)


@dataclasses.dataclass(frozen=True)
class StructureConfig(Settings):
    """How images are compared pixel by pixel, one to one."""

    scales: int = setting(3, help="of MS-SSIM: the standard's first ones; five need 176 pixels", minimum=1, maximum=5)
    window: int = setting(11, help="side of MS-SSIM's Gaussian window", minimum=3)
    template_matching: bool = setting(True, help="also search each image in mosaics of others")
    mosaic: int = setting(8, help="images in a row and in a column of a mosaic", minimum=1)
    queries: int | None = setting(
        None, help="images of each kind at most whose nearest others are sought; null: all", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class FlagConfig(Settings):
    """When to warn. The paper has no thresholds."""

    margin: float = setting(0.05, help="by how much a median similarity may exceed that of real images", minimum=0.0)
    near_one: float = setting(0.01, help="a median similarity to training images above 1 minus this is copying", minimum=0.0)
    chance: float = setting(
        0.55, help="balanced accuracy below which an evaluator has learnt nothing", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class GANProtocolConfig(Settings):
    """The whole protocol (Tronchin et al., section 2)."""

    runs: int = setting(50, help="evaluators for each generator and class", minimum=1)
    redraw: bool = setting(True, help="new synthetic images in each run; false: only the evaluator is new")
    by_class: bool = setting(True, help="each class on its own; false: all pooled")
    positive: Literal["synthetic", "real"] = setting("synthetic", help="whose detection recall is; specificity is of the other")
    evaluator: EvaluatorConfig = setting(EvaluatorConfig)
    activated: bool = setting(False, help="measure distances after the feature layer's activation instead of before")
    covariance: Literal["auto", "plain", "shrinkage", "pinv"] = setting(
        "auto", help="of real features for the Mahalanobis distance; auto: plain where that can be inverted, else shrinkage"
    )
    floor_draws: int = setting(5, help="divisions of the real images that the distances' floors are means over", minimum=1)
    classifiers: bool = setting(
        True, help="cross-check by tree, forest, linear SVM, nearest neighbours and AdaBoost on features"
    )
    align: bool = setting(False, help="turn evaluators' features onto the first one's (Procrustes) before they are averaged")
    structure: StructureConfig = setting(StructureConfig)
    flags: FlagConfig = setting(FlagConfig)
