"""Settings of heatmap_landmark. Defaults are the paper's or its released code's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting

DOMAINS = {"sim": 0, "intraop": 1}
"""Values of a record's `label`; records without one are of the domain that is trained for."""
FOLDS: dict[str, dict[int, tuple[str, ...]]] = {
    "sim": {
        1: ("aicm9", "aicm10"),
        2: ("aicm7", "aicm8"),
        3: ("aicm5", "aicm6"),
        4: ("aicm3", "aicm4"),
        5: ("aicm1", "aicm2"),
    },
    "intraop": {1: ("aicm14",), 2: ("aicm13",), 3: ("aicm12",), 4: ("aicm11",)},
}
"""Surgeries that each fold holds out, by the domain that is trained for (paper, Tables 1 and 2)."""


@dataclasses.dataclass(frozen=True)
class DetectorConfig(Settings):
    """The network from image to heatmap."""

    encoder: Literal["resnext50_32x4d", "plain"] = setting(
        "resnext50_32x4d", help="ResNeXt-50 U-Net, or the baseline's plain one"
    )
    widths: tuple[int, ...] = setting((16, 32, 64, 128, 256, 512), help="levels of the plain one, bottleneck last", minimum=1)
    head_kernel: Literal[1, 3] = setting(1, help="of the last convolution; the authors' library has 3")
    weights: str | None = setting(
        None, help="file of weights of the whole network to begin with (`save_weights`); never downloaded"
    )


@dataclasses.dataclass(frozen=True)
class HeatmapConfig(Settings):
    """The target and the loss."""

    variance: float = setting(32.0, help="of the Gaussians, px² (64 in an early version of the code)", above=0.0)
    compose: Literal["sum_minmax", "max"] = setting("sum_minmax", help="how Gaussians of one image meet")
    loss: Literal["dice", "bce_dice", "focal", "mse_dice", "mse"] = setting("dice", help="mse_dice is the baseline's")


@dataclasses.dataclass(frozen=True)
class DecoderConfig(Settings):
    """From probability maps to points."""

    threshold: Literal["otsu", "fixed"] = setting(
        "otsu", help="of the map's own histogram, or fixed_threshold (the baseline's)"
    )
    fixed_threshold: float = setting(0.5, help="with threshold 'fixed'", above=0.0, below=1.0)
    minimum_peak: float = setting(
        0.0, help="maps whose maximum is below hold no points; 0.1 spares empty frames", minimum=0.0, maximum=1.0
    )
    opening_radius: int = setting(2, help="of the disc, pixels; 0 leaves the opening out", minimum=0)
    cut: bool = setting(True, help="cut blobs that are larger than the mean")
    cut_area_factor: float = setting(1.0, help="times the mean area, above which a blob is cut", above=0.0)
    max_points: int = setting(64, help="rows of an answer; the largest blobs go first", minimum=1)
    flips: bool = setting(False, help="average logits over the image, its two mirrors and its half turn, as submitted")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Random changes of training images; flips stand in `data`."""

    rotation: float = setting(40.0, help="largest angle, degrees (60 in the baseline)", minimum=0.0, maximum=180.0)
    rotation_probability: float = setting(0.7, minimum=0.0, maximum=1.0)
    shift: float = setting(0.0, help="largest shift, share of a side (0.1 in the baseline)", minimum=0.0, maximum=0.5)
    colour_probability: float = setting(
        0.5, help="of jitter of brightness, contrast, saturation and hue", minimum=0.0, maximum=1.0
    )
    colour: float = setting(0.2, help="range of each of the four", minimum=0.0, maximum=0.5)
    brightness_probability: float = setting(
        0.5, help="of a further change of brightness and contrast", minimum=0.0, maximum=1.0
    )
    brightness: float = setting(0.2, help="range of both", minimum=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """AdamW with warm-up and half a cosine."""

    learning_rate: float = setting(1e-4, above=0.0)
    weight_decay: float = setting(0.01, help="decoupled", minimum=0.0)
    warmup_epochs: int = setting(5, help="in which the rate grows linearly; 0: a constant rate all along", minimum=0)
    warmup_start: Literal["zero", "first_fifth"] = setting(
        "zero", help="rate of epoch 0: none, as released, or 1 / warmup_epochs of it"
    )


@dataclasses.dataclass(frozen=True)
class TranslatorConfig(Settings):
    """CycleGAN from simulator to operation."""

    filters: int = setting(64, help="first width of generators and discriminators", minimum=1)
    blocks: int = setting(9, help="residual blocks", minimum=1)
    learning_rate: float = setting(1e-5, above=0.0)
    beta_1: float = setting(0.9, minimum=0.0, below=1.0)
    batch_size: int = setting(1, minimum=1)
    epochs: int = setting(40, minimum=1)
    steps_per_epoch: int | None = setting(None, help="default: the larger domain's number of frames", minimum=1)
    cycle: float = setting(10.0, help="weight of the cycle's L1", minimum=0.0)
    identity: float = setting(0.5, help="weight of the identity's L1", minimum=0.0)
    sigmoid: bool = setting(
        True, help="discriminators end in a sigmoid, though the loss is least squares, as in the authors' code"
    )


@dataclasses.dataclass(frozen=True)
class HeatmapLandmarkConfig(MethodConfig):
    """All settings."""

    slug: ClassVar[str] = "heatmap_landmark"

    image_height: int = setting(288, help="images are resized to it", minimum=16)
    image_width: int = setting(512, minimum=16)
    train_domains: Literal["intraop", "sim", "intraop+sim", "intraop+translated_sim"] = setting(
        "intraop", help="records by label: 0 simulator, 1 intra-operative; the first named is the one that is validated"
    )
    translated_ratio: float = setting(0.5, help="share of simulator frames in a batch of two domains", above=0.0, below=1.0)
    fold: int | None = setting(
        None, help="hold out the surgeries of the paper's fold; null: split_fractions", minimum=1, maximum=5
    )
    matching_radius: float = setting(6.0, help="pixels at image_height × image_width; a point this near is found", above=0.0)
    detector: DetectorConfig = setting(DetectorConfig)
    heatmap: HeatmapConfig = setting(HeatmapConfig)
    decoder: DecoderConfig = setting(DecoderConfig)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    translator: TranslatorConfig = setting(TranslatorConfig)

    def check(self) -> None:
        """Sides divide; folds exist; batches of two domains have some of each."""
        divisor = 32 if self.detector.encoder == "resnext50_32x4d" else 2 ** (len(self.detector.widths) - 1)
        for name in ("image_height", "image_width"):
            if getattr(self, name) % divisor:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be a multiple of {divisor} for this detector")
            if self.translates and getattr(self, name) % 4:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be a multiple of 4 for the translator")
        if self.fold is not None and self.fold not in FOLDS[self.domain]:
            raise ConfigError(f"fold = {self.fold}: the paper has folds {sorted(FOLDS[self.domain])} for '{self.domain}'")
        if self.mixes and not 0 < self.simulated_in_batch < self.training.batch_size:
            raise ConfigError(
                f"translated_ratio = {self.translated_ratio}: leaves one of the domains out of batches of {self.training.batch_size}"
            )

    @property
    def domain(self) -> str:
        """The one that is trained for: 'intraop' or 'sim'."""
        return self.train_domains.split("+")[0]

    @property
    def mixes(self) -> bool:
        """Whether batches have frames of both domains."""
        return "+" in self.train_domains

    @property
    def translates(self) -> bool:
        """Whether simulator frames are translated."""
        return self.train_domains.endswith("translated_sim")

    @property
    def simulated_in_batch(self) -> int:
        """Simulator frames in a training batch of two domains; they come first."""
        return round(self.translated_ratio * self.training.batch_size) if self.mixes else 0
