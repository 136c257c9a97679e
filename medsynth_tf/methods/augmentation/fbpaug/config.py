"""Settings of fbpaug. Defaults are the paper's (arXiv:2107.08543) or, where it is silent, the released code's."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class KernelConfig(Settings):
    """The convolution kernels |w|·(1 + a·|w|^b) that slices are reconstructed anew with."""

    mode: Literal["both", "smooth", "sharpen"] = setting("both", help="which kind is drawn; both: either, by a fair coin")
    smooth_a: tuple[float, float] = setting((-1.0, 0.0), help="range of a when smoothing", minimum=-1.0)
    smooth_b: tuple[float, float] = setting((0.1, 1.0), help="range of b when smoothing", above=0.0)
    sharpen_a: tuple[float, float] = setting((10.0, 40.0), help="range of a when sharpening", minimum=-1.0)
    sharpen_b: tuple[float, float] = setting((1.0, 4.0), help="range of b when sharpening", above=0.0)
    angles: int | None = setting(
        None, help="of the sinogram; null: half the slice's side in training, the side when served", minimum=1
    )
    circle: bool = setting(True, help="what is outside the inscribed circle is air")
    dc_exact: bool = setting(True, help="zero frequency is left alone; false: as the authors' code, whose discrete ramp leaks")
    backend: Literal["sinogram", "fourier2d"] = setting(
        "sinogram", help="by projections, as in the paper, or by a filter of the slice itself, which is much faster"
    )

    def check(self) -> None:
        """Ranges are in order."""
        for name in ("smooth_a", "smooth_b", "sharpen_a", "sharpen_b"):
            _check_order(f"augment.kernels.{name}", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class AugmentConfig(Settings):
    """The intensity augmentation under study, and the turns that all of them share."""

    kind: Literal["none", "fbp", "gamma", "noise", "windowing"] = setting("fbp", help="one of the paper's five")
    probability: float = setting(0.5, help="that a training slice is changed by it", minimum=0.0, maximum=1.0)
    turn_probability: float = setting(
        0.5,
        help="that a training slice is turned by a random multiple of 90 degrees, and again that it is flipped",
        minimum=0.0,
        maximum=1.0,
    )
    gamma_log_std: float = setting(0.2, help="gamma: standard deviation of ln γ", minimum=0.0)
    noise_std: float = setting(0.1, help="noise: standard deviation, of the intensity range 0 … 1", minimum=0.0)
    window_centre: tuple[float, float] = setting((-700.0, -500.0), help="windowing: range of the window's centre in HU")
    window_width: tuple[float, float] = setting((1300.0, 1700.0), help="windowing: range of its width in HU", above=0.0)
    kernels: KernelConfig = setting(KernelConfig, help="fbp: what is drawn")

    def check(self) -> None:
        """Ranges are in order."""
        for name in ("window_centre", "window_width"):
            _check_order(f"augment.{name}", getattr(self, name))


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """The residual U-Net."""

    filters: int = setting(8, help="width at full resolution; doubled at each level", minimum=1)
    levels: int = setting(5, help="poolings", minimum=1, maximum=8)
    norm: Literal["batch", "group"] = setting("batch", help="group suits short trainings with small batches")
    groups: int = setting(4, help="of group norm; must divide filters", minimum=1)

    def check(self) -> None:
        """Groups divide the width."""
        if self.norm == "group" and self.filters % self.groups:
            raise ConfigError(f"network.groups = {self.groups}: must divide network.filters = {self.filters}")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam at a constant rate."""

    learning_rate: float = setting(1e-3, above=0.0)
    beta_1: float = setting(0.9, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class FoldConfig(Settings):
    """Cross-validation by patient, of records that are in no split yet."""

    folds: int | None = setting(None, help="number of folds; null: data.split_fractions", minimum=2)
    fold: int = setting(0, help="which of them is the test split", minimum=0)
    validation_patients: int = setting(3, help="held out of the others", minimum=0)

    def check(self) -> None:
        """The fold is one of them."""
        if self.folds is not None and self.fold >= self.folds:
            raise ConfigError(f"folds.fold = {self.fold}: must be below folds.folds = {self.folds}")


@dataclasses.dataclass(frozen=True)
class AgreementConfig(Settings):
    """How the agreement of predictions between kernels is measured."""

    pairs: str | None = setting(
        None,
        help="source of slices in two reconstructions, label 0 smooth and 1 sharp, the k-th of each of a patient a pair; "
        "'split': the judged split is such; null: not measured",
    )
    smooth: tuple[float, float] = setting((-1.0, 0.7), help="(a, b) that held-out slices are smoothed with", minimum=-1.0)
    sharp: tuple[float, float] = setting((30.0, 3.0), help="(a, b) that they are sharpened with", minimum=-1.0)

    def check(self) -> None:
        """b is above 0."""
        for name in ("smooth", "sharp"):
            if getattr(self, name)[1] <= 0:
                raise ConfigError(f"agreement.{name} = {getattr(self, name)}: (a, b), b must be above 0")


@dataclasses.dataclass(frozen=True)
class FBPAugConfig(MethodConfig):
    """A segmentation network of CT slices and the augmentation that it is trained with."""

    slug: ClassVar[str] = "fbpaug"

    pixel_spacing: float | None = setting(
        1.0, help="slices are resampled to pixels of this many millimetres; null: taken as they are", above=0.0
    )
    window: tuple[float, float] = setting((-1350.0, 150.0), help="HU are clipped to this range, which becomes 0 … 1")
    intensity: Literal["unit", "zscore"] = setting(
        "unit", help="0 … 1; zscore: then to mean 0 and deviation 1 of each slice, as in the released code"
    )
    lesion_probability: float | None = setting(
        0.5,
        help="training slices: a random patient's, with this probability one that holds lesion; null: each slice once a pass",
        minimum=0.0,
        maximum=1.0,
    )
    soft_dice: float = setting(0.0, help="weight of 1 - soft Dice of the batch, beside the cross-entropy's 1", minimum=0.0)
    augment: AugmentConfig = setting(AugmentConfig)
    network: NetworkConfig = setting(NetworkConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    folds: FoldConfig = setting(FoldConfig)
    agreement: AgreementConfig = setting(AgreementConfig)

    def check(self) -> None:
        """The window is one."""
        if self.window[0] >= self.window[1]:
            raise ConfigError(f"window = {self.window}: the first must be below the second")


def _check_order(name: str, bounds: tuple[float, float]) -> None:
    if bounds[0] > bounds[1]:
        raise ConfigError(f"{name} = {bounds}: the first must not be above the second")
