"""Settings of tvps. Each help text ends in where its default comes from: [G] the abstract, [R] the authors' repository, [D] a
decision of this library, since nothing published says it (no training script, loss weights, split or mask recipe is)."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class VesselConfig(Settings):
    """How vessel maps are made in the domain 'vessel'."""

    source: Literal["filter", "mask", "network"] = setting(
        "filter", help="green channel, CLAHE, Frangi filter; or the record's mask; or a U-Net of the user's [D]"
    )
    code: int = setting(1, help="label of vessels in the record's mask, for source 'mask' [D]", minimum=0, maximum=255)
    weights: str | None = setting(
        None, help="file of UNet2D weights (two classes, widths as in unet_widths), for source 'network'; never downloaded [D]"
    )
    unet_widths: tuple[int, ...] = setting((64, 128, 256, 512), help="widths of that U-Net [D]", minimum=1)
    sigmas: tuple[float, ...] = setting(
        (1.0, 2.0, 3.0, 4.0), help="scales of the filter in pixels, of images of image_size [D]", above=0.0
    )
    clip_limit: float = setting(0.01, help="CLAHE's, as a share of a tile's pixels [D]", above=0.0, maximum=1.0)
    stretch: tuple[float, float] = setting(
        (50.0, 99.0), help="percentiles of the filter's answer that go to 0 and 1 [D]", minimum=0.0, maximum=100.0
    )

    def check(self) -> None:
        """Percentiles are in order; a network has a file."""
        if self.stretch[0] >= self.stretch[1]:
            raise ConfigError(f"vessels.stretch = {self.stretch}: the first percentile must be below the second")
        if (self.source == "network") != (self.weights is not None):
            raise ConfigError("vessels.weights: a file of weights goes with vessels.source 'network', and only with it")


@dataclasses.dataclass(frozen=True)
class GeneratorConfig(Settings):
    """The variational generator of patches."""

    levels: int = setting(5, help="halvings of the resolution [R]", minimum=1, maximum=7)
    filters: int = setting(16, help="width at full resolution; doubled at each level [R]", minimum=1)
    depth: int = setting(1, help="convolutions of a level; the file calls it width, the figure has 1 [R]", minimum=1)
    kernel: int = setting(3, help="side of the convolutions; the figure has 3 [R]", minimum=1)
    hidden: int = setting(256, help="units between the last map and the mixture's heads [R]", minimum=1)
    components: int = setting(
        5, help="K, Gaussians of the mixture; 1 is a plain VAE; 5 for Aptos, 10 for Fundus1000 [D]", minimum=1
    )
    latent: int = setting(64, help="D, length of the latent vector [D]", minimum=1)
    log_variance_range: tuple[float, float] = setting(
        (-10.0, 10.0), help="log σ² is clipped to it; the file clips above at 40 alone, beyond float16 [D]"
    )
    shortcuts: bool = setting(True, help="encoder maps go to the decoder; else the latent vector is all it has [G]")
    variational: bool = setting(True, help="latent vectors are drawn; else the mixture's mean, as in TeaNet, without KL [G]")
    temperature: float = setting(1.0, help="τ of the Gumbel-softmax, which is hard [R]", above=0.0)
    gumbel_input: Literal["log", "reference"] = setting(
        "log", help="log s; 'reference' feeds s itself as the authors' file does, whose frequencies are not s [D]"
    )
    posterior: Literal["x", "xy"] = setting(
        "x", help="'x': of the masked map alone; 'xy' (an extension): in training of the whole one, KL to the masked one's [R]"
    )
    norm: Literal["batch", "group"] = setting("batch", help="group suits batches below 4 [R]")

    def check(self) -> None:
        """The range of log σ² is one; the extension needs a posterior."""
        if self.log_variance_range[0] >= self.log_variance_range[1]:
            raise ConfigError(f"generator.log_variance_range = {self.log_variance_range}: the first must be below the second")
        if self.posterior == "xy" and not self.variational:
            raise ConfigError("generator.posterior 'xy' needs generator.variational: without it there is no posterior")


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig(Settings):
    """The discriminator of patches; losses.adversarial = 0 leaves it out."""

    filters: int = setting(64, help="base width [R]", minimum=1)
    patch: int = setting(64, help="side of the patch that has one score: 4 times a power of two [R]", minimum=8)
    scope: Literal["patch", "full"] = setting("patch", help="sees a patch around the hole, or the whole map [D]")

    @property
    def layers(self) -> int:
        """Strided convolutions: log2(patch / 4)."""
        return int(math.log2(self.patch // 4))

    def check(self) -> None:
        """The patch is 4·2^n."""
        if self.patch != 4 * 2**self.layers:
            raise ConfigError(f"discriminator.patch = {self.patch}: must be 4 times a power of two, such as 16, 32, 64")


@dataclasses.dataclass(frozen=True)
class MaskConfig(Settings):
    """Which part of an image is made anew."""

    extent: Literal["part", "whole", "whole_seen"] = setting(
        "part", help="a hole; the whole image from nothing (mask 0); the whole image from itself, all of it seen [G]"
    )
    recipe: Literal["square", "centre", "squares", "strokes"] = setting(
        "square", help="a random square; a fixed one in the middle (the file's mask_fix); several; irregular strokes [D]"
    )
    side: tuple[float, float] = setting(
        (0.25, 0.5), help="smallest and largest side or stroke length, as shares of the image's [D]", above=0.0, maximum=1.0
    )
    count: int = setting(3, help="squares or strokes, for recipes 'squares' and 'strokes' [D]", minimum=1, maximum=16)
    stroke_width: float = setting(0.08, help="width of strokes, as a share of the image's side [D]", above=0.0, maximum=1.0)
    retina_share: float = setting(
        0.5, help="of a square's area that must be retina (brighter than 10 of 255) [D]", minimum=0.0, maximum=1.0
    )
    feather: float = setting(
        5.0, help="standard deviation in pixels of the Gaussian that softens the hole's border, inwards [D]", minimum=0.0
    )

    def check(self) -> None:
        """The sides are a range."""
        if self.side[0] > self.side[1]:
            raise ConfigError(f"masks.side = {self.side}: the smallest must not be above the largest")


@dataclasses.dataclass(frozen=True)
class LossConfig(Settings):
    """Weights of the losses, and how they come in."""

    reconstruction: float = setting(10.0, help="λ_rec: BCE of vessel maps, L1 of images [D]", minimum=0.0)
    hole_weight: float = setting(5.0, help="weight of a hidden pixel in the reconstruction [D]", minimum=0.0)
    context_weight: float = setting(1.0, help="weight of a visible one [D]", minimum=0.0)
    kl: float = setting(1e-3, help="λ_kl, after the ramp [D]", minimum=0.0)
    kl_ramp: float = setting(0.2, help="share of the steps over which λ_kl rises from 0 [D]", minimum=0.0, maximum=1.0)
    kl_reduction: Literal["per_sample", "reference"] = setting(
        "per_sample", help="mean of each sample's; 'reference': the file's sum with its constant added once [D]"
    )
    adversarial: float = setting(0.1, help="λ_adv; 0: no discriminator [D]", minimum=0.0)
    task: float = setting(0.1, help="λ_task, the guidance by the classifier's loss; 0: none [D]", minimum=0.0)
    task_sign: Literal[1, -1] = setting(
        1, help="1: patches that the classifier gets right (as in TeaNet); -1: adversarial ones [D]"
    )
    synthetic: float = setting(1.0, help="λ_syn, weight of the classifier's loss on compositions [D]", minimum=0.0)
    warm_up: float = setting(
        0.1, help="share of the steps without task guidance and with λ_syn = 0 [D]", minimum=0.0, maximum=1.0
    )


@dataclasses.dataclass(frozen=True)
class TranslatorConfig(Settings):
    """The CycleGAN from vessel maps to photographs, stage A of the domain 'vessel'. Numbers are CycleGAN's (arXiv:1703.10593)."""

    filters: int = setting(64, help="base width of generators and discriminators [R]", minimum=1)
    blocks: int = setting(9, help="residual blocks [R]", minimum=1)
    cycle: float = setting(10.0, help="weight of the cycle's L1 [D]", minimum=0.0)
    identity: float = setting(
        5.0,
        help="weight of the identity's L1; vessel maps are repeated to the image's channels for it; 0: they are not [D]",
        minimum=0.0,
    )
    paired: float = setting(
        0.0,
        help="weight of the L1 between a translation and the photograph that its map was taken from; 0: CycleGAN, which sees "
        "no pairs [D]",
        minimum=0.0,
    )
    buffer: int = setting(50, help="earlier fakes that discriminators are shown again; 0: none [D]", minimum=0)
    learning_rate: float = setting(2e-4, help="of both Adam optimisers [D]", above=0.0)
    beta_1: float = setting(0.5, help="of both [D]", minimum=0.0, below=1.0)
    batch_size: int = setting(1, help="global batch of stage A [D]", minimum=1)
    epochs: int = setting(200, help="passes of stage A [D]", minimum=1)
    decay_epochs: int = setting(100, help="of them, the last ones in which learning rates fall to zero [D]", minimum=0)
    steps_per_epoch: int | None = setting(None, help="of stage A; default: one pass [D]", minimum=1)
    finetune: bool = setting(False, help="stage B goes on training the translator, by the task's gradient [D]")

    def check(self) -> None:
        """The decay is within the stage."""
        if self.decay_epochs > self.epochs:
            raise ConfigError(f"translator.decay_epochs = {self.decay_epochs}: more than translator.epochs")


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(Settings):
    """The classifier that is trained, the same for every kind of augmentation."""

    backbone: Literal["small", "resnet50", "resnet101", "resnet152", "vgg16", "inception_v3"] = setting(
        "resnet152", help="network [R]"
    )
    filters: int = setting(16, help="base width of the backbone 'small' [D]", minimum=1)
    weights: str | None = setting(None, help="file of ImageNet weights without top (Keras HDF5); never downloaded [D]")
    optimiser: Literal["sgd", "adam"] = setting("sgd", help="SGD with momentum and a cosine schedule, or Adam [D]")
    learning_rate: float = setting(1e-3, help="1e-3 for SGD, 1e-4 for Adam [D]", above=0.0)
    momentum: float = setting(0.9, help="of SGD [D]", minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class MixingConfig(Settings):
    """Of the baselines."""

    alpha: float = setting(1.0, help="λ ~ Beta(α, α) of MixUp and CutMix [D]", above=0.0)
    cutout_side: float = setting(0.5, help="side of CutOut's square, as a share of the image's [D]", above=0.0, maximum=1.0)


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam of the generator and of the discriminator."""

    learning_rate: float = setting(2e-4, help="of both [D]", above=0.0)
    beta_1: float = setting(0.5, help="of both [D]", minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, help="of both [D]", minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class TVPSConfig(MethodConfig):
    """A classifier and a generator of patches, trained together."""

    slug: ClassVar[str] = "tvps"

    image_size: int = setting(512, help="side of images in pixels [R]", minimum=8)
    channels: Literal[1, 3] = setting(3, help="of the images [R]")
    classes: int = setting(5, help="number of labels; 5 grades of Aptos2019, 39 of Fundus1000 [R]", minimum=2)
    graded: bool = setting(True, help="labels are grades: κ is weighted by squared distance, else plain; true suits Aptos [D]")
    domain: Literal["vessel", "image"] = setting(
        "vessel", help="patches are made of vessel maps, then translated; 'image': of the image itself [R]"
    )
    augmentation: Literal["tvps", "none", "mixup", "cutout", "cutmix"] = setting(
        "tvps", help="how the classifier's training images are extended; all but tvps are baselines [G]"
    )
    crop: Literal["retina", "none"] = setting(
        "retina", help="images of another size are cropped to the lit field and padded to a square, or squeezed as they are [D]"
    )
    rotate: bool = setting(True, help="training images are turned by 0, 90, 180 or 270 degrees [D]")
    balanced: bool = setting(True, help="rare classes are repeated, so that all are seen equally often [D]")
    vessels: VesselConfig = setting(VesselConfig, help="vessel maps [D]")
    generator: GeneratorConfig = setting(GeneratorConfig, help="encoder, decoder and latent mixture [R]")
    discriminator: DiscriminatorConfig = setting(DiscriminatorConfig, help="of patches [R]")
    masks: MaskConfig = setting(MaskConfig, help="holes [D]")
    losses: LossConfig = setting(LossConfig, help="weights [D]")
    translator: TranslatorConfig = setting(TranslatorConfig, help="vessel map to photograph [R]")
    classifier: ClassifierConfig = setting(ClassifierConfig, help="what is trained in the end [R]")
    mixing: MixingConfig = setting(MixingConfig, help="of MixUp, CutOut and CutMix [D]")
    optimiser: OptimiserConfig = setting(OptimiserConfig, help="of generator and discriminator [D]")

    @property
    def synthesises(self) -> bool:
        """Whether there is a generator."""
        return self.augmentation == "tvps"

    @property
    def map_channels(self) -> int:
        """Channels of what the generator makes."""
        return 1 if self.domain == "vessel" else self.channels

    @property
    def translates(self) -> bool:
        """Whether there is a translator to train."""
        return self.synthesises and self.domain == "vessel"

    def check(self) -> None:
        """Sizes divide and fit."""
        divisor = 2**self.generator.levels
        if self.synthesises and self.image_size % divisor:
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of 2^generator.levels = {divisor}")
        if self.synthesises and self.losses.adversarial and self.discriminator.patch > self.image_size:
            raise ConfigError(
                f"discriminator.patch = {self.discriminator.patch}: must be at most image_size = {self.image_size}"
            )
        if self.domain == "vessel" and self.channels != 3 and self.vessels.source != "mask":
            raise ConfigError("domain 'vessel' makes vessel maps of colour photographs: channels must be 3")
        if self.translates and (self.image_size % 4 or self.image_size < 24):
            raise ConfigError(f"image_size = {self.image_size}: must be a multiple of 4, and at least 24, for the translator")
        if self.losses.kl_reduction == "reference" and self.generator.posterior == "xy":
            raise ConfigError(
                "losses.kl_reduction 'reference' knows no other prior than N(0, I): generator.posterior must be 'x'"
            )
