"""Settings of us_style. Defaults are the paper's; where it and the authors' code differ, each field says whose they are."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting

VGG_BLOCKS = 5


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """The two encoders and the decoder."""

    filters: tuple[int, ...] = setting(
        (64, 128, 256, 512, 1024), help="of the scales, finest first; each halves the side", minimum=1
    )
    adain_site: Literal["decoder", "skip", "bottleneck"] = setting(
        "decoder",
        help="where features get the style's statistics, besides the coarsest scale: decoder, after each of its levels (the code); "
        "skip, on the skip connections (the paper's eq. 2); bottleneck, nowhere, and there are no skips (Huang and Belongie)",
    )
    style_head: Literal["conv1x1", "convblock"] = setting(
        "conv1x1", help="what gives μ and σ: a 1×1 convolution (the code), or two 3×3 ones before it (the paper)"
    )
    batch_momentum: float = setting(0.9, help="of batch norms", minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class StyleConfig(Settings):
    """The style as a distribution."""

    variational: bool = setting(True, help="styles are Gaussian maps; else plain features, as in deterministic transfer")
    noise_scale: float = setting(0.5, help="τ in z = μ + τσε, in training and after; 0.5 is the code's", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class PerceptualConfig(Settings):
    """The fixed network whose features style and content are compared by: VGG16."""

    weights: str | None = setting(
        None, help="file of VGG16 weights without top (Keras HDF5), never downloaded; null: random stand-in"
    )
    filters: tuple[int, ...] = setting((64, 128, 256, 512, 512), help="of its blocks; with a file VGG16's", minimum=1)
    pooling: Literal["max", "average"] = setting("max", help="between blocks")
    input_size: int | None = setting(224, help="side that it sees images at; null: as they are", minimum=16)
    calibration_batches: int = setting(
        0,
        help="batches over which each layer's losses between unrelated images are measured before training, and then divided by; "
        "0: not. The stand-in needs it, since its features are at other scales",
        minimum=0,
    )

    def check(self) -> None:
        """As many blocks as VGG16 has, at most."""
        if not 1 <= len(self.filters) <= VGG_BLOCKS:
            raise ConfigError(f"perceptual.filters = {self.filters}: expected one to {VGG_BLOCKS} blocks")


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """Weights of the losses; of the first two, one for the first convolution of each block."""

    perceptual: tuple[float, ...] = setting(
        (0.0, 0.0, 0.0, 0.0, 0.01), help="mean squares of features, against the content", minimum=0.0
    )
    style: tuple[float, ...] = setting((0.1, 0.002, 0.001, 0.01, 10.0), help="style loss, against the style", minimum=0.0)
    style_form: Literal["gram", "moments"] = setting(
        "gram", help="half the mean squares between Gram matrices; or those between means and deviations (Huang and Belongie)"
    )
    kl: float = setting(1.0, help="divergence of styles from N(0, 1), a sum over scales", minimum=0.0)
    kl_form: Literal["exact", "paper"] = setting("exact", help="the divergence; or eq. 6, which has μ²/σ² in it")
    reconstruction: float = setting(0.0, help="mean squares between pixels, against the content", minimum=0.0)
    total_variation: float = setting(0.0, help="absolute differences of neighbouring pixels, a pixel", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(Settings):
    """The encoders alone first, each with a decoder of its own that is not used again."""

    epochs: int = setting(2, help="of each; 0: none", minimum=0)
    learning_rate: float = setting(5e-5, above=0.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam."""

    learning_rate: float = setting(5e-5, help="the paper's; the code has 5e-3", above=0.0)
    beta_1: float = setting(0.9, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class USStyleConfig(MethodConfig):
    """An image's content in another's style."""

    slug: ClassVar[str] = "us_style"

    image_size: int = setting(256, help="side of training images in pixels", minimum=8)
    network: NetworkConfig = setting(NetworkConfig)
    style: StyleConfig = setting(StyleConfig)
    perceptual: PerceptualConfig = setting(PerceptualConfig)
    losses: LossConfig = setting(LossConfig)
    pretraining: PretrainingConfig = setting(PretrainingConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)

    @property
    def scales(self) -> int:
        """How many there are."""
        return len(self.network.filters)

    @property
    def divisor(self) -> int:
        """What the sides of content images are multiples of."""
        return 2 ** (self.scales - 1)

    def check(self) -> None:
        """Sizes divide; each block has its weights, and one of them counts."""
        if not self.network.filters or self.image_size % self.divisor:
            raise ConfigError(
                f"image_size = {self.image_size}: must be a multiple of {self.divisor} for the {self.scales} scales of network.filters"
            )
        blocks = len(self.perceptual.filters)
        for name in ("perceptual", "style"):
            weights = getattr(self.losses, name)
            if len(weights) != blocks:
                raise ConfigError(f"losses.{name} = {weights}: expected {blocks} weights, as perceptual.filters has blocks")
        side, smallest = self.perceptual.input_size or self.image_size, 2 ** (blocks - 1)
        if side < smallest:
            raise ConfigError(f"perceptual.input_size: {side} pixels cannot be halved {blocks - 1} times")
        if not any(self.losses.perceptual + self.losses.style):
            raise ConfigError("losses.perceptual and losses.style: all weights are 0, so that nothing would be learnt")
