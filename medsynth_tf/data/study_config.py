"""Settings of the experiment that generators for augmentation are for, which `evaluation.augmentation_study` runs."""

from __future__ import annotations

import dataclasses
from typing import Literal

from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class StudyConfig(Settings):
    """The experiment that a generator is for: classifiers of real, of real and synthetic, and of synthetic images alone."""

    classifier: Literal["mlp", "cnn", "densenet"] = setting("mlp", help="dense 400; three convolutions; DenseNet-BC-40-12")
    samples: tuple[int, ...] = setting((200,), help="synthetic images a class; the paper has 200, 500, 1000, 2000", minimum=1)
    classic: tuple[int, ...] = setting(
        (), help="factors of classic augmentation as further arms; the paper has 5, 10, 15", minimum=2
    )
    runs: int = setting(5, help="independent runs of each arm", minimum=1)
    epochs: int = setting(100, help="most passes of a classifier's training", minimum=1)
    patience: int = setting(20, help="passes without a lower validation loss after which it ends", minimum=1)
    batch_size: int = setting(32, minimum=1)
    learning_rate: float = setting(1e-3, help="of Adam", above=0.0)
