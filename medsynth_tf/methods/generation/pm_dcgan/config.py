"""Settings of pm_dcgan. Defaults are the paper's (table 1); what it leaves open is off."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.joint_config import JointImageConfig


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """Adam, the same for both players."""

    learning_rate: float = setting(2e-4, above=0.0)
    beta_1: float = setting(0.5, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)


@dataclasses.dataclass(frozen=True)
class StabiliserConfig(Settings):
    """What keeps the discriminator from winning on what is exact in real data: masks of two values, a black surround."""

    instance_noise: float = setting(
        0.0, help="standard deviation of the noise that is added to all that the discriminator sees", minimum=0.0
    )
    instance_noise_steps: int = setting(
        0, help="train steps over which that noise falls linearly to none; 0: it stays", minimum=0
    )
    label_smoothing: float = setting(0.0, help="real images are to be judged 1 minus this (one-sided)", minimum=0.0, below=0.5)


@dataclasses.dataclass(frozen=True)
class PMDCGANConfig(JointImageConfig):
    """Latent vector to photograph and masks."""

    slug: ClassVar[str] = "pm_dcgan"

    image_size: int = setting(360, help="side in pixels: 4 to 7 times twos and threes (32, 64, 128, 256, 360 …)", minimum=16)
    latent_size: int = setting(100, help="length of the latent vector", minimum=1)
    generator_filters: int = setting(32, help="width of the generator's last hidden map", minimum=1)
    discriminator_filters: int = setting(64, help="width of the discriminator's first map", minimum=1)
    initialiser: Literal["xavier", "n002"] = setting("xavier", help="of all kernels; n002: N(0, 0.02), as in the DCGAN paper")
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    stabilisers: StabiliserConfig = setting(StabiliserConfig)
    fixed_samples: int = setting(
        64, help="samples of the grid that is drawn from the same latent vectors throughout", minimum=1
    )
