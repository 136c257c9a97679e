"""Settings of semantic_retina. Defaults are the paper's; where it gives none, those of SPADE (arXiv:1903.07291)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.methods.translation.semantic_retina.label_config import LabelGeneratorConfig

LESION_LABELS = (
    "retina",
    "optic_disc",
    "microaneurysm",
    "haemorrhage",
    "hard_exudate",
    "soft_exudate",
    "neovascularisation",
    "irma",
)
ENTRY_DIVISORS = {"normal": 32, "more": 64, "most": 128}


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(Settings):
    """The SPADE generator."""

    filters: int = setting(64, help="base width; the widest block has 16 times as many", minimum=2)
    hidden_filters: int = setting(128, help="width of the label convolution in each SPADE layer", minimum=1)
    upsampling: Literal["normal", "more", "most"] = setting("normal", help="five, six or seven doublings from entry to image")
    norm: Literal["batch", "instance"] = setting("batch", help="parameter-free norm inside SPADE; batch is over all replicas")


@dataclasses.dataclass(frozen=True)
class StyleConfig(Settings):
    """The style encoder, which makes the generator a variational auto-encoder."""

    enabled: bool = setting(True, help="style vector as the generator's entry; else the label map itself")
    size: int = setting(256, help="length of the style vector", minimum=1)
    filters: int = setting(64, help="base width of the encoder", minimum=1)
    image_size: int = setting(256, help="images are resized to this side before encoding", minimum=128)


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """The multi-scale patch discriminator."""

    scales: int = setting(2, help="discriminators, each on half the resolution of the one before", minimum=1, maximum=4)
    filters: int = setting(64, help="base width", minimum=1)
    layers: int = setting(4, help="convolutions before the score", minimum=2, maximum=6)


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """Weights of the generator's losses; the adversarial one has weight 1."""

    feature_matching: float = setting(10.0, help="L1 between discriminator features", minimum=0.0)
    perceptual: float = setting(10.0, help="L1 between VGG19 features; only with perceptual_weights", minimum=0.0)
    perceptual_weights: str | None = setting(None, help="file of VGG19 weights without top (Keras HDF5); never downloaded")
    l1: float = setting(10.0, help="L1 between images, in place of the perceptual loss when it has no weights", minimum=0.0)
    kl: float = setting(0.05, help="divergence of styles from N(0, I); only with the style encoder", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam for both, with two learning rates."""

    generator_learning_rate: float = setting(1e-4, above=0.0)
    discriminator_learning_rate: float = setting(4e-4, above=0.0)
    beta_1: float = setting(0.0, minimum=0.0, below=1.0)
    beta_2: float = setting(0.9, minimum=0.0, below=1.0)
    decay_epochs: int = setting(0, help="of training.epochs, the last ones in which learning rates fall to zero", minimum=0)


@dataclasses.dataclass(frozen=True)
class SegmenterConfig(Settings):
    """Stage 3: the U-Net that is trained on real and synthetic pairs."""

    lesion: str | None = setting(None, help="the one class to find, for example hard_exudate; null: all classes")
    widths: tuple[int, ...] = setting((64, 128, 256, 512, 512), help="of the U-Net's levels", minimum=1)
    learning_rate: float = setting(5e-4, above=0.0)
    momentum: float = setting(0.9, minimum=0.0, below=1.0)
    weight_decay: float = setting(1e-8, help="added to the gradient, as PyTorch's RMSprop does", minimum=0.0)
    clip_value: float = setting(0.1, help="largest element of a gradient", above=0.0)
    batch_size: int = setting(8, minimum=1)
    epochs: int = setting(200, minimum=1)
    contrast_normalised: bool = setting(True, help="photographs are contrast-normalised first")


@dataclasses.dataclass(frozen=True)
class SemanticRetinaConfig(MethodConfig):
    """Grade to label map to fundus photograph."""

    slug: ClassVar[str] = "semantic_retina"

    image_size: int = setting(512, help="side of images and label maps in pixels", minimum=32)
    labels: tuple[str, ...] = setting(
        LESION_LABELS, help="classes by code, in painting order of resized maps; 255 is background"
    )
    instance_label: str | None = setting("optic_disc", help="class whose outline is given as an edge channel; null: no edges")
    minimum_coverage: float = setting(
        0.35, help="share of a pixel that a later class must cover to win it when maps are resized", above=0.0, maximum=1.0
    )
    generator: GeneratorConfig = setting(GeneratorConfig)
    style: StyleConfig = setting(StyleConfig)
    discriminator: DiscriminatorConfig = setting(DiscriminatorConfig)
    losses: LossConfig = setting(LossConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    label_generator: LabelGeneratorConfig = setting(LabelGeneratorConfig)
    segmenter: SegmenterConfig = setting(SegmenterConfig)

    @property
    def label_channels(self) -> int:
        """One-hot channels: the classes and the background."""
        return len(self.labels) + 1

    def check(self) -> None:
        """Sizes divide, names are known."""
        divisor = ENTRY_DIVISORS[self.generator.upsampling]
        if self.image_size % divisor:
            raise ConfigError(
                f"image_size = {self.image_size}: must be a multiple of {divisor} for upsampling '{self.generator.upsampling}'"
            )
        if not 1 <= len(self.labels) <= 254 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels = {self.labels}: expected 1 to 254 different names")
        if self.instance_label is not None and self.instance_label not in self.labels:
            raise ConfigError(
                f"instance_label = '{self.instance_label}': must be one of labels {', '.join(self.labels)}, or null"
            )
        lesion = self.segmenter.lesion
        if lesion is not None and lesion not in self.labels:
            raise ConfigError(f"segmenter.lesion = '{lesion}': must be one of labels {', '.join(self.labels)}, or null")
        if self.optimiser.decay_epochs > self.training.epochs:
            raise ConfigError(f"optimiser.decay_epochs = {self.optimiser.decay_epochs}: more than training.epochs")
