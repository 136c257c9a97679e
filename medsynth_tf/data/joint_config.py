"""Settings that generators of image and masks together share."""

from __future__ import annotations

import dataclasses
from typing import Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting

MASK_NAMES = ("optic_disc", "atrophy")
"""What the channels after RGB mark; a label map has the first with code 1, the second with code 2."""


@dataclasses.dataclass(frozen=True)
class MaskConfig(Settings):
    """How masks become channels of the image."""

    encoding: Literal["plus_minus_one", "zero_one"] = setting(
        "plus_minus_one", help="values outside and inside a mask: -1 and 1, the whole range of the image; or 0 and 1"
    )
    smoothing: float = setting(
        0.0, help="values are moved this share of the way to their middle, where a tanh can reach them", minimum=0.0, below=1.0
    )

    @property
    def levels(self) -> tuple[float, float]:
        """Values outside and inside a mask."""
        centre, half = (0.0, 1.0) if self.encoding == "plus_minus_one" else (0.5, 0.5)
        return centre - half * (1.0 - self.smoothing), centre + half * (1.0 - self.smoothing)

    @property
    def threshold(self) -> float:
        """Generated values above it are inside."""
        return sum(self.levels) / 2


@dataclasses.dataclass(frozen=True)
class JudgeConfig(Settings):
    """The segmenter that judges whether images and masks belong together. It learns from real images alone."""

    steps: int = setting(300, help="train steps of the segmenter, a U-Net", minimum=1)
    batch_size: int = setting(16, minimum=1)
    widths: tuple[int, ...] = setting((16, 32, 64), help="channels of the U-Net's levels", minimum=1)
    learning_rate: float = setting(1e-3, above=0.0)
    downstream: bool = setting(
        False, help="also train a second one on real and synthetic pairs, and compare both on held-out images"
    )


@dataclasses.dataclass(frozen=True)
class JointImageConfig(MethodConfig):
    """Base of methods that make photographs with their masks as further channels."""

    image_size: int = setting(64, help="side of images and masks in pixels", minimum=16)
    channels: Literal[3, 4, 5] = setting(4, help="3: RGB alone; 4: and the optic disc's mask; 5: and that of atrophy")
    masks: MaskConfig = setting(MaskConfig)
    crop: Literal["centre", "field_of_view"] = setting(
        "centre",
        help="square that is kept of a photograph: its centre, or the box around what its mask does not call outside (255)",
    )
    random_crop: float = setting(
        1.0, help="smallest share of the square's area that training crops keep; 1: no random crops", above=0.0, maximum=1.0
    )
    judge: JudgeConfig = setting(JudgeConfig)

    @property
    def mask_names(self) -> tuple[str, ...]:
        """What the channels after RGB mark."""
        return MASK_NAMES[: self.channels - 3]

    def check(self) -> None:
        """The segmenter halves its images a whole number of times."""
        factor = 2 ** (len(self.judge.widths) - 1)
        if not self.judge.widths or self.image_size % factor:
            raise ConfigError(
                f"judge.widths = {self.judge.widths}: image_size = {self.image_size} must be a multiple of {factor}, "
                "since the segmenter halves its maps between levels"
            )
