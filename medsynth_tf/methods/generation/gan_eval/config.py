"""Settings of gan_eval. What is null has the value that the paper's table 3 gives the GAN that is chosen."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.gan_protocol_config import GANProtocolConfig


@dataclasses.dataclass(frozen=True)
class TableRow:
    """A row of the paper's table 3, which has no widths, initialisers and value of the smoothing; fields as `HyperParameters`'."""

    latent_size: int
    generator_rate: float
    discriminator_rate: float
    beta_1: float
    beta_2: float
    generator_kernel: int
    discriminator_kernel: int
    generator_activation: str
    batch_norm: str
    label_smoothing: float
    generator_filters: int
    discriminator_filters: int
    initialiser: str


TABLE = {
    "dcgan": TableRow(
        latent_size=100,
        generator_rate=1e-4,
        discriminator_rate=1e-4,
        beta_1=0.5,
        beta_2=0.99,
        generator_kernel=3,
        discriminator_kernel=5,
        generator_activation="leaky_relu",
        batch_norm="none",
        label_smoothing=0.1,
        generator_filters=32,
        discriminator_filters=64,
        initialiser="glorot_uniform",
    ),
    "lsgan": TableRow(
        latent_size=1024,
        generator_rate=1e-4,
        discriminator_rate=1e-4,
        beta_1=0.5,
        beta_2=0.99,
        generator_kernel=3,
        discriminator_kernel=5,
        generator_activation="relu",
        batch_norm="none",
        label_smoothing=0.0,
        generator_filters=64,
        discriminator_filters=64,
        initialiser="glorot_uniform",
    ),
    "wgangp": TableRow(
        latent_size=128,
        generator_rate=2e-4,
        discriminator_rate=1e-4,
        beta_1=0.0,
        beta_2=0.9,
        generator_kernel=3,
        discriminator_kernel=3,
        generator_activation="leaky_relu",
        batch_norm="generator",
        label_smoothing=0.0,
        generator_filters=64,
        discriminator_filters=64,
        initialiser="he_uniform",
    ),
    "acgan": TableRow(
        latent_size=110,
        generator_rate=2e-4,
        discriminator_rate=2e-4,
        beta_1=0.5,
        beta_2=0.99,
        generator_kernel=5,
        discriminator_kernel=3,
        generator_activation="relu",
        batch_norm="none",
        label_smoothing=0.0,
        generator_filters=48,
        discriminator_filters=16,
        initialiser="glorot_uniform",
    ),
}


@dataclasses.dataclass(frozen=True)
class HyperParameters(Settings):
    """Table 3 of the paper; null: its value for the GAN that is chosen."""

    latent_size: int | None = setting(None, help="length of z; AC-GAN's label is added to it", minimum=1)
    generator_rate: float | None = setting(None, help="of its Adam", above=0.0)
    discriminator_rate: float | None = setting(None, help="of its Adam", above=0.0)
    beta_1: float | None = setting(None, help="of both", minimum=0.0, below=1.0)
    beta_2: float | None = setting(None, help="of both", minimum=0.0, below=1.0)
    generator_kernel: int | None = setting(None, help="side of its convolutions", minimum=2)
    discriminator_kernel: int | None = setting(None, help="side of its convolutions", minimum=2)
    generator_activation: Literal["relu", "leaky_relu"] | None = setting(None, help="the discriminator's is leaky_relu")
    batch_norm: Literal["none", "generator", "both"] | None = setting(None, help="where; not in WGAN-GP's critic")
    label_smoothing: float | None = setting(
        None, help="real images are to be judged 1 minus this; DCGAN and AC-GAN", minimum=0.0, below=0.5
    )
    generator_filters: int | None = setting(None, help="width of the generator's last hidden map", minimum=1)
    discriminator_filters: int | None = setting(None, help="width of the discriminator's first map", minimum=1)
    initialiser: Literal["glorot_uniform", "he_uniform", "n002"] | None = setting(None, help="of all kernels; n002: N(0, 0.02)")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Of the GAN's training images, as in the first author's earlier code; for flips see `data.flip_horizontal` and `_vertical`."""

    rotation: float = setting(175.0, help="degrees at most, both ways; 0: none", minimum=0.0, maximum=180.0)
    shift: float = setting(7.0, help="pixels at most, in each direction", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class IntensityConfig(Settings):
    """How records become images in [0, 1]."""

    window: tuple[float, float] = setting(
        (-1000.0, 400.0), help="values that become 0 and 1 where images are not 8-bit: Hounsfield units"
    )
    roi: bool = setting(False, help="pixels where a record's mask is 0 or 255 become 0")
    fit: Literal["resize", "pad"] = setting(
        "resize", help="to image_size: scaled, or kept in scale and cropped or padded with 0"
    )

    def check(self) -> None:
        """The window is not empty."""
        if self.window[0] >= self.window[1]:
            raise ConfigError(f"intensity.window = {list(self.window)}: the first must be below the second")


@dataclasses.dataclass(frozen=True)
class GANEvalConfig(MethodConfig):
    """One of four GANs, and the protocol that compares it."""

    slug: ClassVar[str] = "gan_eval"

    gan: Literal["dcgan", "lsgan", "wgangp", "acgan"] = setting(
        "dcgan", help="which; each brings its row of the paper's table 3"
    )
    image_size: int = setting(80, help="side in pixels, a multiple of 16", minimum=16)
    channels: Literal[1, 3] = setting(1, help="of the images")
    classes: int = setting(2, help="labels of the records", minimum=1)
    class_index: int = setting(0, help="the one class that dcgan, lsgan and wgangp are trained on; acgan learns all", minimum=0)
    hyper: HyperParameters = setting(HyperParameters)
    gradient_penalty: float = setting(10.0, help="λ of wgangp", minimum=0.0)
    discriminator_steps: int = setting(2, help="updates of the discriminator for each of the generator", minimum=1)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    intensity: IntensityConfig = setting(IntensityConfig)
    protocol: GANProtocolConfig = setting(GANProtocolConfig)
    fixed_samples: int = setting(
        64, help="samples of the picture that is drawn from the same latent vectors throughout", minimum=1
    )

    def check(self) -> None:
        """Sizes, classes and norms fit each other."""
        if self.image_size % 16:
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of 16, such as 32, 48, 64, 80 or 128")
        if self.class_index >= self.classes:
            raise ConfigError(f"class_index = {self.class_index}: classes are 0 … {self.classes - 1}")
        if self.gan == "acgan" and self.classes < 2:
            raise ConfigError("gan = acgan: needs classes >= 2")
        if self.gan == "wgangp" and self.hyper.batch_norm == "both":
            raise ConfigError("hyper.batch_norm = both: a norm over the batch has no place in a critic with a gradient penalty")
        if self.gan in ("lsgan", "wgangp") and self.hyper.label_smoothing:
            raise ConfigError(
                f"hyper.label_smoothing = {self.hyper.label_smoothing}: {self.gan} has no cross-entropy to smooth"
            )

    @property
    def conditional(self) -> bool:
        """Whether the GAN is told the class."""
        return self.gan == "acgan"

    @property
    def chosen(self) -> TableRow:
        """The chosen GAN's row, with what `hyper` says in its place."""
        given = {name: value for name, value in self.hyper.to_dict().items() if value is not None}
        return dataclasses.replace(TABLE[self.gan], **given)

    @property
    def labels(self) -> list[int]:
        """Classes that the model makes."""
        return list(range(self.classes)) if self.conditional else [self.class_index]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(S, S, C)."""
        return self.image_size, self.image_size, self.channels
