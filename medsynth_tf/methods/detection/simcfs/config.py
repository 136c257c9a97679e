"""Settings of simcfs. Defaults are the paper's; where it is silent, those of its code, a fork of YOLOv5 5.0."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.compound_figures import SimulatorConfig

ANCHORS = (
    (10.0, 13.0, 16.0, 30.0, 33.0, 23.0),
    (30.0, 61.0, 62.0, 45.0, 59.0, 119.0),
    (116.0, 90.0, 156.0, 198.0, 373.0, 326.0),
)


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """YOLOv5."""

    width: float = setting(0.5, help="multiplier of widths; 0.25 n, 0.5 s, 0.75 m", above=0.0)
    depth: float = setting(0.33, help="multiplier of depths; 0.33 n and s, 0.67 m", above=0.0)
    anchors: tuple[tuple[float, ...], ...] = setting(
        ANCHORS, help="of each level, strides 8, 16, …: width, height, width, … in pixels of image_size"
    )
    auto_anchors: bool = setting(True, help="estimate anchors anew if fewer than 98 % of the boxes match one")
    weights: str | None = setting(None, help="file of weights to begin with (`save_weights`); never downloaded")

    def check(self) -> None:
        """Levels have the same number of anchors, each a pair of positive numbers."""
        lengths = {len(level) for level in self.anchors}
        if not 1 <= len(self.anchors) <= 3 or len(lengths) != 1 or lengths.pop() % 2 or not self.anchors[0]:
            raise ConfigError(
                f"network.anchors = {self.anchors}: expected 1 to 3 levels, each with as many pairs width, height"
            )
        if any(value <= 0 for level in self.anchors for value in level):
            raise ConfigError("network.anchors: widths and heights must be above 0")


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """Gains of the losses, before they are scaled to levels, image size and classes."""

    box: float = setting(0.05, help="of 1 - CIoU; 0.5 in the paper's text, 0.05 in its code", minimum=0.0)
    objectness: float = setting(1.0, minimum=0.0)
    classification: float = setting(0.5, minimum=0.0)
    side_ratio: float = setting(
        1 / 30, help="side loss, as a share of the box's weight; 1/30 paper, 1/20 code, 0 off", minimum=0.0
    )
    side_units: Literal["grid", "pixel", "normalised"] = setting(
        "grid", help="of the overshoot: cells of each level, as in the code"
    )
    balance: tuple[float, ...] = setting((4.0, 1.0, 0.4), help="of the objectness of each level", minimum=0.0)
    times_batch: bool = setting(
        True, help="multiply the loss by the batch's size, as the code does; the rate of SGD goes with it"
    )
    anchor_ratio: float = setting(4.0, help="boxes match anchors whose sides differ by less than this factor", above=1.0)


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Changes of training figures beside the simulator's, as in YOLOv5."""

    mosaic: float = setting(1.0, help="probability that a figure is one of four in a mosaic", minimum=0.0, maximum=1.0)
    translate: float = setting(0.1, help="largest shift, share of a side", minimum=0.0, maximum=0.5)
    scale: float = setting(0.5, help="largest change of size", minimum=0.0, below=1.0)
    hue: float = setting(0.015, minimum=0.0, maximum=0.5)
    saturation: float = setting(0.7, minimum=0.0, maximum=1.0)
    value: float = setting(0.4, minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """SGD with Nesterov momentum, warm-up and a cosine; or plain Adam."""

    kind: Literal["sgd", "adam"] = setting("sgd")
    learning_rate: float = setting(0.01, above=0.0)
    final_rate: float = setting(0.2, help="share of the rate at the end of the cosine", minimum=0.0, maximum=1.0)
    momentum: float = setting(0.937, help="of SGD, and β₁ of Adam", minimum=0.0, below=1.0)
    weight_decay: float = setting(5e-4, help="of the kernels of convolutions alone", minimum=0.0)
    warmup_epochs: float = setting(
        3.0, help="in which the rate rises from 0 (of biases falls from warmup_bias_rate)", minimum=0.0
    )
    warmup_steps: int = setting(1000, help="at least, of that; 0 with warmup_epochs 0: no warm-up", minimum=0)
    warmup_bias_rate: float = setting(0.1, minimum=0.0)
    warmup_momentum: float = setting(0.8, minimum=0.0, below=1.0)
    average_ramp: int = setting(2000, help="τ of the average's decay, ema_decay·(1 - e^(-n/τ)) after n steps", minimum=1)


@dataclasses.dataclass(frozen=True)
class DetectionConfig(Settings):
    """From the heads' numbers to boxes."""

    confidence: float = setting(0.25, help="least score of what is served", minimum=0.0, maximum=1.0)
    overlap: float = setting(
        0.45, help="IoU above which the weaker of two boxes of a class is dropped", minimum=0.0, maximum=1.0
    )
    evaluation_confidence: float = setting(0.001, minimum=0.0, maximum=1.0)
    evaluation_overlap: float = setting(0.6, minimum=0.0, maximum=1.0)
    most: int = setting(300, help="boxes of a figure", minimum=1)
    fusion_overlap: float = setting(0.5, help="of weighted boxes fusion over an ensemble", above=0.0, below=1.0)
    fusion_skip: float = setting(1e-4, help="scores below it are left out of the fusion", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class SimCFSConfig(MethodConfig):
    """All settings."""

    slug: ClassVar[str] = "simcfs"

    image_size: int = setting(640, help="figures are scaled to this longer side and padded to squares", minimum=32)
    classes: int = setting(4, help="of panels, labels 0 …; 1: all panels alike", minimum=1)
    training_data: Literal["simulated", "real"] = setting(
        "simulated", help="figures made of the source's single panels (records with a label), or its records with boxes"
    )
    most_boxes: int = setting(64, help="of a training figure", minimum=1)
    simulator: SimulatorConfig = setting(SimulatorConfig)
    validation_figures: int = setting(200, help="simulated of held-out panels where they have no boxes", minimum=1)
    network: NetworkConfig = setting(NetworkConfig)
    losses: LossConfig = setting(LossConfig)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    detection: DetectionConfig = setting(DetectionConfig)

    def check(self) -> None:
        """The size fits the strides; each level has a balance."""
        stride = 8 * 2 ** (self.levels - 1)
        if self.image_size % stride:
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of {stride}, the largest stride")
        if len(self.losses.balance) < self.levels:
            raise ConfigError(f"losses.balance = {self.losses.balance}: {self.levels} levels need as many numbers")

    @property
    def levels(self) -> int:
        """Output maps of the network."""
        return len(self.network.anchors)

    def gains(self) -> dict[str, float]:
        """λ1 … λ4: weights of box, objectness, classification and side loss (paper, eq. 6, and its code's scaling)."""
        own, share = self.losses, 3.0 / self.levels
        box = own.box * share
        return {
            "box": box,
            "objectness": own.objectness * (self.image_size / 640) ** 2 * share,
            "classification": own.classification * self.classes / 80 * share,
            "side": box * own.side_ratio,
        }
