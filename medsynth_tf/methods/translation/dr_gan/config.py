"""Settings of dr_gan. Defaults are the paper's where it gives a number; what is ours says so in `configs/dr_gan/paper.yaml`."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting

FIELD_OF_VIEW = "field_of_view"  # as a structure: 1 wherever a label map is not 255
SCALES = 3  # synthesis blocks, each on twice the resolution of the one before


@dataclasses.dataclass(frozen=True)
class GradingConfig(Settings):
    """The grading network, trained first, and the Gaussians of its features, one a grade."""

    backbone: Literal["small", "resnet50"] = setting("resnet50", help="'small': three convolutions, for small images")
    filters: int = setting(16, help="base width of the backbone 'small'", minimum=1)
    weights: str | None = setting(None, help="file of ResNet-50 weights without top (Keras HDF5); never downloaded")
    image_size: int = setting(512, help="photographs are resized to this side to be graded", minimum=8)
    epochs: int = setting(10, help="passes over the training split", minimum=1)
    learning_rate: float = setting(1e-4, help="of Adam", above=0.0)
    covariance: Literal["diagonal", "full"] = setting(
        "diagonal", help="of each grade's Gaussian; full is shrunk to its diagonal"
    )
    shrinkage: float = setting(
        0.1, help="share of the diagonal in a full covariance, which few images leave singular", above=0.0, maximum=1.0
    )
    minimum_deviation: float = setting(1e-3, help="floor of each feature's standard deviation", above=0.0)


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(Settings):
    """The coarse generator G_m and the mapping network."""

    filters: int = setting(64, help="base width; the deepest maps have 8 times as many channels", minimum=2)
    residual_blocks: int = setting(7, minimum=0)
    mapping_layers: int = setting(4, help="dense layers from grading vector to style; only with use_agm", minimum=1)
    mapping_width: int = setting(512, help="their width; only with use_agm", minimum=1)


@dataclasses.dataclass(frozen=True)
class FineConfig(Settings):
    """The fine generator G_l, which doubles the resolution of G_m."""

    enabled: bool = setting(True, help="G_m at half the image's size, then G_m + G_l; else G_m alone at the image's size")
    filters: int = setting(32, help="width of its first convolution", minimum=1)
    epochs: int = setting(10, help="passes over the training split with G_m + G_l", minimum=1)


@dataclasses.dataclass(frozen=True)
class AttentionConfig(Settings):
    """Spatial and channel attention in the synthesis blocks; only with use_sca."""

    implementation: Literal["exact", "chunked", "pooled"] = setting(
        "chunked", help="whole map at once; the same some rows at a time; or that with pooled keys and values"
    )
    reductions: tuple[int, int, int] = setting((8, 16, 32), help="d of each synthesis block, coarsest first", minimum=1)
    chunk_rows: int = setting(512, help="rows of the attention map in memory; for chunked and pooled", minimum=1)
    pooled_side: int = setting(80, help="keys and values are averaged down to this side; for pooled", minimum=1)
    channel_energy: Literal["mean", "correlation"] = setting(
        "mean", help="channel attention's products: over the number of pixels, or of standardised channels"
    )


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """Equal discriminators on the image, on its half, on its quarter …"""

    count: int = setting(3, minimum=1, maximum=4)
    filters: int = setting(64, help="base width", minimum=1)
    norm: Literal["none", "instance"] = setting("none", help="of the second to fourth convolution")


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """Weights of the losses; the adversarial one has weight 1."""

    feature_matching: float = setting(10.0, help="λ₁", minimum=0.0)
    perceptual: float = setting(10.0, help="λ₂; only with use_perceptual", minimum=0.0)
    perceptual_weights: str | None = setting(
        None, help="file of VGG19 weights without top (Keras HDF5); null: features of the grading network"
    )
    classification: float = setting(1.0, help="λ₃: grade heads of the discriminators; only with use_cls_in_d", minimum=0.0)
    grade_head: float = setting(1.0, help="grade head of the encoder", minimum=0.0)
    focal_gamma: float = setting(2.0, help="focusing of the focal losses; 0 is cross-entropy", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam for both players."""

    generator_learning_rate: float = setting(1e-4, above=0.0)
    discriminator_learning_rate: float = setting(1e-4, above=0.0)
    beta_1: float = setting(0.5, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class DRGANConfig(MethodConfig):
    """Masks and a grade to a fundus photograph."""

    slug: ClassVar[str] = "dr_gan"

    image_size: int = setting(1280, help="side of images and masks in pixels", minimum=16)
    grades: int = setting(5, help="severity grades", minimum=2)
    labels: tuple[str, ...] = setting(
        ("retina", "vessel", "optic_disc", "microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate"),
        help="classes of the label map by code; 255 is outside the field of view",
    )
    structures: tuple[str, ...] = setting(
        ("vessel", "optic_disc"), help="condition channels of the anatomy; 'field_of_view' is all that is not 255"
    )
    lesions: tuple[str, ...] = setting(
        ("microaneurysm", "haemorrhage", "hard_exudate", "soft_exudate", "laser_mark", "proliferate_membrane"),
        help="condition channels of lesions; one that is no class of the label map can be given as a soft mask only",
    )
    minimum_coverage: float = setting(
        0.35, help="share of a pixel that a later class must cover to win it when maps are resized", above=0.0, maximum=1.0
    )
    grade_source: Literal["given", "predicted"] = setting(
        "given", help="who says the grade of an image that is asked for: the caller, or the encoder's grade head"
    )
    use_sca: bool = setting(True, help="spatial and channel attention in the synthesis blocks")
    use_lesion_masks: bool = setting(True, help="else the lesion channels are zero")
    use_agm: bool = setting(True, help="adaptive grading manipulation; else batch norm takes its place")
    use_perceptual: bool = setting(True, help="perceptual loss")
    use_cls_in_d: bool = setting(True, help="grade heads of the discriminators and their losses")
    grading: GradingConfig = setting(GradingConfig)
    generator: GeneratorConfig = setting(GeneratorConfig)
    fine: FineConfig = setting(FineConfig)
    attention: AttentionConfig = setting(AttentionConfig)
    discriminator: DiscriminatorConfig = setting(DiscriminatorConfig)
    losses: LossConfig = setting(LossConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the condition's channels, in order."""
        return self.structures + self.lesions

    @property
    def coarse_size(self) -> int:
        """Side of what G_m makes."""
        return self.image_size // 2 if self.fine.enabled else self.image_size

    @property
    def needs_grader(self) -> bool:
        """Whether a grading network is trained: for the Gaussians, or for want of VGG19 in the perceptual loss."""
        return self.use_agm or (self.perceptual_weight > 0 and self.losses.perceptual_weights is None)

    @property
    def perceptual_weight(self) -> float:
        """λ₂, 0 without the perceptual loss."""
        return self.losses.perceptual if self.use_perceptual else 0.0

    def check(self) -> None:
        """Sizes divide, names are known."""
        if self.image_size % 16:
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of 16")
        if self.generator.filters % 2:
            raise ConfigError(f"generator.filters = {self.generator.filters}: must be even, since noise takes a quarter of 2F")
        if not 1 <= len(self.labels) <= 254 or len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels = {self.labels}: expected 1 to 254 different names")
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise ConfigError(f"structures and lesions = {self.channels}: expected different names, one or more")
        strangers = [name for name in self.structures if name not in (*self.labels, FIELD_OF_VIEW)]
        if strangers:
            known = ", ".join((*self.labels, FIELD_OF_VIEW))
            raise ConfigError(f"structures: {', '.join(strangers)} must be among labels or '{FIELD_OF_VIEW}': {known}")
        smallest = self.coarse_size // 2 ** (self.discriminator.count - 1)
        if smallest < 8:
            raise ConfigError(
                f"discriminator.count = {self.discriminator.count}: images of {self.coarse_size} pixels are {smallest} wide for the "
                "last one, at least 8 are needed"
            )
        if self.discriminator.norm == "instance" and smallest < 32:
            raise ConfigError(f"discriminator.norm = 'instance': blanks the 1×1 maps that images of {smallest} pixels end in")
        if self.grading.backbone == "small" and self.grading.weights is not None:
            raise ConfigError("grading.weights: the backbone 'small' has none to be loaded from a file")
