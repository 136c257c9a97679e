"""Settings of multiplanar_unet. Defaults are the paper's; help texts end in [D] where the paper is silent and this library decides."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class PlaneConfig(Settings):
    """Which planes are annotated, and which are trained on. For the 3-D network read cubes for training planes."""

    annotation: int = setting(4, help="n_a, annotated planes; over all training volumes, see per_volume", minimum=1)
    training: int = setting(
        512, help="n_t, resampled planes with labels on lines alone; 0: the annotated planes themselves", minimum=0
    )
    validation_training: int | None = setting(
        None, help="resampled planes of the validation split; default: half of planes.training [D]", minimum=1
    )
    size: int = setting(256, help="S, pixels along a side; follows from 4·S² = 64³ pixels a step", minimum=8)
    pixel: float | None = setting(
        None,
        help="h, side of a pixel, in millimetres or voxels as space says; default: the volume's finest spacing [D]",
        above=0.0,
    )
    thickness: float = setting(1.0, help="of annotated planes, in voxels, when they are drawn into the volume", above=0.0)
    per_volume: bool = setting(
        False, help="planes.annotation and planes.training count for each volume, not for all together [D]"
    )
    orientation: Literal["random", "axis_aligned"] = setting(
        "random", help="of annotated and training planes and of views; axis_aligned is the ordinary 2-D U-Net"
    )
    draw: Literal["fixed", "redraw", "live"] = setting(
        "fixed",
        help="training planes are fixed for a run; or new in each batch; or so, near the views' normals and a share with foreground",
    )
    jitter: float = setting(0.1, help="draw 'live': deviation of the noise on a view's normal", minimum=0.0)
    foreground_share: float = setting(
        0.5, help="draw 'live': share of a batch in which there must be foreground", minimum=0.0, maximum=1.0
    )
    minimum_hit: float = setting(
        0.1,
        help="area that a plane must hit, as a share of the volume's smallest face, or of the plane if that is smaller [D]",
        minimum=0.0,
        maximum=0.5,
    )
    minimum_labelled: int = setting(8, help="annotated pixels that a training plane must have [D]", minimum=1)


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """The 2-D network, and what both networks share."""

    filters: int = setting(64, help="channels of the first level; doubled at each of the next", minimum=1)
    levels: int = setting(4, help="poolings", minimum=1, maximum=6)
    initialiser: Literal["glorot_uniform", "he_normal"] = setting("glorot_uniform", help="of all kernels [D]")
    batch_momentum: float = setting(
        0.99, help="of batch norms' moving statistics; short runs need 0.9 [D]", minimum=0.0, below=1.0
    )


@dataclasses.dataclass(frozen=True)
class ComparatorConfig(Settings):
    """The 3-D U-Net that the paper compares with (model: unet3d)."""

    size: int = setting(64, help="side of training cubes and of windows", minimum=8)
    stride: int = setting(32, help="between windows when a volume is segmented; must divide size [D]", minimum=1)
    filters: int = setting(32, help="channels of the first convolution", minimum=1)
    levels: int = setting(3, help="poolings", minimum=1, maximum=5)

    def check(self) -> None:
        """Windows are whole numbers of strides and can be pooled."""
        if self.size % self.stride or self.size % 2**self.levels:
            raise ConfigError(
                f"comparator.size = {self.size}: must be a multiple of comparator.stride and of 2^comparator.levels"
            )


@dataclasses.dataclass(frozen=True)
class ViewConfig(Settings):
    """How a volume is segmented."""

    count: int = setting(3, help="K, views of random orientation that are fused", minimum=1, maximum=64)
    fusion: Literal["mean", "learned"] = setting(
        "mean", help="mean of the views' probabilities; or a weight for each view and class, learned in a second stage"
    )
    interpolation: Literal["linear", "nearest"] = setting("linear", help="of predictions, on the way back to the voxels")
    slices: int = setting(16, help="predicted at a time; memory grows with it [D]", minimum=1)
    largest_side: int = setting(
        2048, help="points along a side of a view; requests for finer grids are refused [D]", minimum=16, maximum=8192
    )


@dataclasses.dataclass(frozen=True)
class FusionConfig(Settings):
    """The stage that learns the weights of views, for views.fusion 'learned'. Numbers are those of the parent method (mpunet)."""

    epochs: int = setting(10, help="of the stage [D]", minimum=1)
    steps_per_epoch: int = setting(50, help="of the stage [D]", minimum=1)
    batch_size: int = setting(4096, help="annotated voxels a step [D]", minimum=1)
    learning_rate: float = setting(1e-2, help="of Adam [D]", above=0.0)
    l2: float = setting(1e-6, help="weight decay of the views' weights, as a loss", minimum=0.0)


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Settings):
    """Augmentation on the fly; the paper names the kinds and gives no ranges, so all of them are [D].

    Mirroring goes by data.flip_horizontal (last axis) and data.flip_vertical (the others).
    """

    enabled: bool = setting(True, help="all of it; the paper holds that resampled planes are worth more")
    probability: float = setting(0.5, help="of each kind, for each example", minimum=0.0, maximum=1.0)
    rotation: float = setting(
        180.0, help="degrees at most, either way; of cubes around a random axis", minimum=0.0, maximum=180.0
    )
    scale: tuple[float, float] = setting((0.8, 1.25), help="smallest and largest magnification", above=0.0)
    brightness: float = setting(0.1, help="at most added, in deviations of the example", minimum=0.0)
    contrast: tuple[float, float] = setting((0.8, 1.2), help="factor of the distance from the mean", above=0.0)
    gamma: tuple[float, float] = setting((0.7, 1.5), help="exponent of intensities between the example's extremes", above=0.0)
    noise: float = setting(0.05, help="largest deviation of Gaussian noise, in deviations of the example", minimum=0.0)

    def check(self) -> None:
        """Ranges are in order."""
        for name in ("scale", "contrast", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"augmentation.{name} = {[low, high]}: the first must not be above the second")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam."""

    learning_rate: float = setting(1e-5, above=0.0)
    beta_1: float = setting(0.9, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)
    epsilon: float = setting(1e-7, above=0.0)


@dataclasses.dataclass(frozen=True)
class MultiPlanarUNetConfig(MethodConfig):
    """Planes of all directions through a volume, of which few pixels are annotated, to a segmentation of volumes."""

    slug: ClassVar[str] = "multiplanar_unet"

    model: Literal["mpunet2d", "unet3d"] = setting("mpunet2d", help="the method, or the 3-D U-Net it is compared with")
    space: Literal["mm", "voxel"] = setting(
        "mm", help="planes are planes in millimetres, by the records' spacing; or in voxels [D]"
    )
    foreground: tuple[int, ...] = setting(
        (), help="label codes that are the structure; none: every code but 0. 255 is not annotated [D]", minimum=1, maximum=254
    )
    planes: PlaneConfig = setting(PlaneConfig)
    network: NetworkConfig = setting(NetworkConfig)
    comparator: ComparatorConfig = setting(ComparatorConfig)
    views: ViewConfig = setting(ViewConfig)
    fusion: FusionConfig = setting(FusionConfig)
    augmentation: AugmentationConfig = setting(AugmentationConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a training example, without channel."""
        return (self.planes.size,) * 2 if self.model == "mpunet2d" else (self.comparator.size,) * 3

    def check(self) -> None:
        """Sizes can be pooled; axis-aligned views are at most three; the comparator has one view and draws no planes near views."""
        if self.model == "unet3d":
            if self.planes.draw == "live" or self.planes.orientation == "axis_aligned":
                raise ConfigError("model 'unet3d' needs planes.draw 'fixed' or 'redraw' and planes.orientation 'random'")
            if self.views.fusion == "learned":
                raise ConfigError("model 'unet3d' has one view: views.fusion must be 'mean'")
        elif self.planes.size % 2**self.network.levels:
            raise ConfigError(
                f"planes.size = {self.planes.size}: must be a multiple of 2^network.levels = {2**self.network.levels}"
            )
        if self.planes.orientation == "axis_aligned" and self.views.count > 3:
            raise ConfigError(f"views.count = {self.views.count}: there are three axis-aligned views")
        if self.data.cache:
            raise ConfigError("data.cache: planes are kept in memory as it is, and volumes never; leave it false")
        if self.planes.training == 0 and self.planes.draw != "fixed":
            raise ConfigError(f"planes.draw '{self.planes.draw}' draws training planes: planes.training must be above 0")
