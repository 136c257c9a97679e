"""Settings of stage 1, label maps by grade. Defaults are those of the authors' code; the poster gives no numbers."""

from __future__ import annotations

import dataclasses
from typing import Literal

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting


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
    """Stage 1 with networks that grow, as progan's and stylegan's do. Each tuple has a value for the sides 4, 8, 16 … 512, of which
    those up to `label_generator.size` are used; longer ones are allowed, shorter ones are not."""

    epochs: tuple[int, ...] = setting((20, 40, 60, 80, 100, 120, 140, 160), help="at each side", minimum=1)
    batch_sizes: tuple[int, ...] = setting((512, 256, 128, 64, 32, 16, 8, 4), help="at each side", minimum=1)
    filters: tuple[int, ...] = setting(
        (512, 512, 512, 512, 256, 128, 64, 32),
        help="the generator's width at each side, stylegan's discriminator's too, at most label_generator.generator_filters (defaults: "
        "arXiv:1710.10196, table 2)",
        minimum=1,
    )
    fade_share: float = setting(
        0.5, help="of the steps at each side after the first, in which it is faded in", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class StyleGANConfig(Settings):
    """What stage 1 has of StyleGAN (arXiv:1812.04948) beside `ProgressiveConfig`."""

    mapping_layers: int = setting(8, help="dense layers from z and grade to the style w, as long as z", minimum=1)
    mapping_learning_rate: float = setting(0.01, help="of the mapping layers, as a multiple of the generator's", above=0.0)
    style_mixing: float = setting(
        0.9, help="share of training maps whose finer layers take the style of another z", minimum=0.0, maximum=1.0
    )
    truncation: float = setting(
        1.0, help="ψ: sampled styles are drawn towards their grade's mean, down to this share; 1: not", minimum=0.0, maximum=1.0
    )
    gradient_penalty: float = setting(10.0, help="its weight λ", above=0.0)
    drift: float = setting(1e-3, help="weight of E[D(real)²]", minimum=0.0)
    minibatch_group: int = setting(
        4, help="maps over whose variety the discriminator is told; batch sizes are multiples of it, or smaller", minimum=1
    )


@dataclasses.dataclass(frozen=True)
class LabelGeneratorConfig(Settings):
    """Stage 1: label maps by grade."""

    enabled: bool = setting(False, help="train stage 1 and serve label maps; the records need grades, or a way to infer them")
    source: Literal["acgan", "progan", "stylegan"] = setting(
        "acgan",
        help="AC-GAN at one resolution, or a progressive GAN or StyleGAN that grows from 4×4 with a stage for each resolution",
    )
    progressive: ProgressiveConfig = setting(ProgressiveConfig)
    style_gan: StyleGANConfig = setting(StyleGANConfig)
    size: int = setting(256, help="side of the generated maps, which are then enlarged to image_size", minimum=16)
    doublings: int = setting(
        6,
        help="of the side in the generator, and halvings in the discriminator; their smallest maps have the side size / 2^doublings, "
        "4 in the paper and always with progan and stylegan",
        minimum=2,
        maximum=8,
    )
    grades: int = setting(5, help="number of grades", minimum=1)
    latent_size: int = setting(128, help="length of z", minimum=1)
    conditioning: Literal["multiply", "concat"] = setting("multiply", help="how the grade meets z; only with acgan")
    generator_filters: int = setting(
        512, help="width of the generator's entry; with progan and stylegan its largest", minimum=2
    )
    discriminator_filters: int = setting(
        8, help="first width of the discriminator, small on purpose; not with stylegan", minimum=1
    )
    spectral_norm: bool = setting(False, help="normalise the discriminator's kernels; not with stylegan")
    generator_class_loss: float = setting(
        1.0, help="weight of the generator's class term; 0 as in the authors' code", minimum=0.0
    )
    discriminator_steps: int = setting(1, help="per batch", minimum=1)
    generator_steps: int = setting(2, help="per batch", minimum=1)
    generator_learning_rate: float = setting(5e-4, above=0.0)
    discriminator_learning_rate: float = setting(1e-4, above=0.0)
    beta_1: float = setting(0.5, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)
    discriminator_clip_norm: float | None = setting(
        0.01, help="largest norm of the discriminator's gradient; null: any", above=0.0
    )
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    mask_retina: bool = setting(False, help="sampled maps get an ideal disc for the field of view")
    batch_size: int = setting(64, help="only with acgan; the others': progressive.batch_sizes", minimum=1)
    epochs: int = setting(1000, help="only with acgan; the others': progressive.epochs", minimum=1)
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
    def grows(self) -> bool:
        """Whether there is a stage for each resolution."""
        return self.source != "acgan"

    @property
    def levels(self) -> int:
        """Resolutions of networks that grow: 4, 8 … size."""
        return self.doublings + 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Of a generator that grows, at each of its resolutions."""
        return tuple(min(width, self.generator_filters) for width in self.progressive.filters[: self.levels])

    def check(self) -> None:
        """Sizes divide and leave a map to judge; rates fall within training; a classifier has weights; nothing is set in vain."""
        if self.grows:
            self._check_progressive()
        elif self.progressive != ProgressiveConfig():
            raise ConfigError(
                "label_generator.progressive: changes nothing while label_generator.source = 'acgan'; leave it out"
            )
        if self.source == "stylegan":
            self._check_style()
        elif self.style_gan != StyleGANConfig():
            raise ConfigError(
                f"label_generator.style_gan: changes nothing while label_generator.source = '{self.source}'; leave it out"
            )
        last, name = (self.epochs, "epochs")
        if self.grows:
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
                f"label_generator.size = {self.size}, doublings = {self.doublings}: '{self.source}' grows from 4, so the size must be "
                f"4 · 2^doublings = {4 * 2**self.doublings}"
            )
        for name in ("epochs", "batch_sizes", "filters"):
            values = getattr(self.progressive, name)
            if len(values) < self.levels:
                raise ConfigError(
                    f"label_generator.progressive.{name} = {values}: size {self.size} needs {self.levels} values, "
                    f"one for each side 4, 8 … {self.size}"
                )
        enters = "conditional batch norm" if self.source == "progan" else "the mapping network"
        self._refuse("conditioning", f"grades enter by {enters}")
        self._refuse("batch_size", "progressive.batch_sizes counts")
        self._refuse("epochs", "progressive.epochs counts")

    def _check_style(self) -> None:
        self._refuse("discriminator_filters", "the discriminator has the generator's widths")
        self._refuse("spectral_norm", "a gradient penalty bounds the discriminator")
        if self.augmentation.enabled and self.augmentation.fixed_probability is None:
            raise ConfigError(
                "label_generator.augmentation: adapts to the sign of the discriminator's scores, which says nothing of overfitting "
                "where scores are unbounded, as with source 'stylegan'; set augmentation.fixed_probability, or "
                "augmentation.enabled = false"
            )
        group = self.style_gan.minibatch_group
        for number, batch_size in enumerate(self.progressive.batch_sizes[: self.levels]):
            if batch_size % min(group, batch_size):
                raise ConfigError(
                    f"label_generator.progressive.batch_sizes[{number}] = {batch_size}: must be a multiple of "
                    f"label_generator.style_gan.minibatch_group = {group}, or smaller"
                )

    def _refuse(self, name: str, instead: str) -> None:
        """A setting of the AC-GAN that this source has no use for stays at its default."""
        value, default = getattr(self, name), type(self).__dataclass_fields__[name].default
        if value != default:
            raise ConfigError(
                f"label_generator.{name} = {value!r}: changes nothing with source '{self.source}', where {instead}; "
                f"leave it at {default!r}"
            )
