"""Settings of semantic_retina. Defaults are the paper's; where it gives none, those of SPADE (arXiv:1903.07291)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting

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
class AugmentationConfig(Settings):
    """Adaptive augmentation of what stage 1's discriminator sees."""

    enabled: bool = setting(True, help="augment at all")
    fixed_probability: float | None = setting(None, help="this probability for ever; null: adapt it", minimum=0.0, maximum=1.0)
    target: float = setting(0.6, help="of E[sign(D(real))], above which the probability rises", minimum=-1.0, maximum=1.0)
    step: float = setting(0.01, help="by which the probability moves at a discriminator step", above=0.0, maximum=1.0)
    maximum: float = setting(0.85, help="of the probability", minimum=0.0, maximum=1.0)
    fill: Literal["background", "reference"] = setting(
        "background", help="class outside a moved map; reference: class 0, the retina, as the authors' code has it"
    )


@dataclasses.dataclass(frozen=True)
class ProgressiveConfig(Settings):
    """Stage 1 as a progressive GAN. Each tuple has a value for the sides 4, 8, 16 … 512, of which those up to
    `label_generator.size` are used; longer ones are allowed, shorter ones are not."""

    epochs: tuple[int, ...] = setting((20, 40, 60, 80, 100, 120, 140, 160), help="at each side", minimum=1)
    batch_sizes: tuple[int, ...] = setting((512, 256, 128, 64, 32, 16, 8, 4), help="at each side", minimum=1)
    filters: tuple[int, ...] = setting(
        (512, 512, 512, 512, 256, 128, 64, 32),
        help="the generator's width at each side, at most label_generator.generator_filters (defaults: arXiv:1710.10196, table 2)",
        minimum=1,
    )
    fade_share: float = setting(
        0.5, help="of the steps at each side after the first, in which it is faded in", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class LabelGeneratorConfig(Settings):
    """Stage 1: label maps by grade."""

    enabled: bool = setting(False, help="train stage 1 and serve label maps; the records need grades, or a way to infer them")
    source: Literal["acgan", "progan"] = setting(
        "acgan", help="AC-GAN at one resolution, or a progressive GAN that grows from 4×4 with a stage for each resolution"
    )
    progressive: ProgressiveConfig = setting(ProgressiveConfig)
    size: int = setting(256, help="side of the generated maps, which are then enlarged to image_size", minimum=16)
    doublings: int = setting(
        6,
        help="of the side in the generator, and halvings in the discriminator; their smallest maps have the side size / 2^doublings, "
        "4 in the paper and always with progan",
        minimum=2,
        maximum=8,
    )
    grades: int = setting(5, help="number of grades", minimum=1)
    latent_size: int = setting(128, help="length of z", minimum=1)
    conditioning: Literal["multiply", "concat"] = setting("multiply", help="how the grade meets z; only with acgan")
    generator_filters: int = setting(512, help="width of the generator's entry; with progan its largest", minimum=2)
    discriminator_filters: int = setting(8, help="first width of the discriminator, small on purpose", minimum=1)
    spectral_norm: bool = setting(False, help="normalise the discriminator's kernels")
    generator_class_loss: float = setting(
        1.0, help="weight of the generator's class term; 0 as in the authors' code", minimum=0.0
    )
    discriminator_steps: int = setting(1, help="per batch", minimum=1)
    generator_steps: int = setting(2, help="per batch", minimum=1)
    generator_learning_rate: float = setting(5e-4, above=0.0)
    discriminator_learning_rate: float = setting(1e-4, above=0.0)
    beta_1: float = setting(0.5, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)
    discriminator_clip_norm: float = setting(0.01, help="largest norm of the discriminator's gradient", above=0.0)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    mask_retina: bool = setting(False, help="sampled maps get an ideal disc for the field of view")
    batch_size: int = setting(64, help="only with acgan; progan's: progressive.batch_sizes", minimum=1)
    epochs: int = setting(1000, help="only with acgan; progan's: progressive.epochs", minimum=1)
    decay_epochs: int = setting(0, help="of all epochs, the last ones in which learning rates fall to zero", minimum=0)
    steps_per_epoch: int | None = setting(None, help="steps that count as one epoch; default: one pass", minimum=1)
    grading: Literal["given", "random", "image_model", "label_model"] = setting(
        "given", help="where grades come from: the records' label, chance, or a classifier of photographs or of label maps"
    )
    grading_weights: str | None = setting(
        None, help="weights of that classifier, as `ImageClassifier.save_weights` writes them"
    )
    grading_backbone: Literal["small", "resnet50", "resnet101"] | None = setting(
        None, help="of that classifier; default: resnet101 for photographs, resnet50 for label maps"
    )

    @property
    def levels(self) -> int:
        """Resolutions of the progressive GAN: 4, 8 … size."""
        return self.doublings + 1

    def check(self) -> None:
        """Sizes divide and leave a map to judge; rates fall within training; a classifier has weights; nothing is set in vain."""
        if self.source == "progan":
            self._check_progressive()
        elif self.progressive != ProgressiveConfig():
            raise ConfigError(
                "label_generator.progressive: changes nothing while label_generator.source = 'acgan'; leave it out"
            )
        last, name = (self.epochs, "epochs")
        if self.source == "progan":
            last, name = self.progressive.epochs[self.levels - 1], f"progressive.epochs[{self.levels - 1}]"
        if self.decay_epochs > last:
            raise ConfigError(f"label_generator.decay_epochs = {self.decay_epochs}: more than label_generator.{name} = {last}")
        if self.size % 2**self.doublings or self.size < 2 ** (self.doublings + 1):
            raise ConfigError(
                f"label_generator.size = {self.size}: must be a multiple of 2^doublings = {2**self.doublings}, and at least twice that"
            )
        if self.grading.endswith("_model") != (self.grading_weights is not None):
            raise ConfigError(
                f"label_generator.grading = '{self.grading}', grading_weights = {self.grading_weights}: "
                "a classifier needs weights, and weights are for a classifier"
            )

    def _check_progressive(self) -> None:
        if self.size != 4 * 2**self.doublings:
            raise ConfigError(
                f"label_generator.size = {self.size}, doublings = {self.doublings}: 'progan' grows from 4, so the size must be "
                f"4 · 2^doublings = {4 * 2**self.doublings}"
            )
        for name in ("epochs", "batch_sizes", "filters"):
            values = getattr(self.progressive, name)
            if len(values) < self.levels:
                raise ConfigError(
                    f"label_generator.progressive.{name} = {values}: size {self.size} needs {self.levels} values, "
                    f"one for each side 4, 8 … {self.size}"
                )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, instead in (
            ("conditioning", "grades enter by conditional batch norm"),
            ("batch_size", "progressive.batch_sizes counts"),
            ("epochs", "progressive.epochs counts"),
        ):
            if getattr(self, name) != defaults[name]:
                raise ConfigError(
                    f"label_generator.{name} = {getattr(self, name)!r}: changes nothing with source 'progan', where {instead}; "
                    f"leave it at {defaults[name]!r}"
                )


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
