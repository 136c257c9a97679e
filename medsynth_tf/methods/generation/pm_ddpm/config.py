"""Settings of pm_ddpm. Defaults are the paper's (table 2) and those of the repository that it modified."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, Literal

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.joint_config import JointImageConfig


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(Settings):
    """The forward process."""

    kind: Literal["paper", "rescaled", "cosine"] = setting(
        "paper",
        help="paper: β linear, which leaves 22 % of the signal at step 300; rescaled: the same times 1000/steps; cosine",
    )
    steps: int = setting(300, help="T", minimum=2)
    beta_start: float = setting(1e-4, help="of the linear schedules", above=0.0, below=1.0)
    beta_end: float = setting(0.02, help="of the linear schedules", above=0.0, below=1.0)
    train_on_last: bool = setting(True, help="steps are drawn from 1 … T in training; false: 1 … T-1, as the base does")

    def check(self) -> None:
        """β stays below 1."""
        largest = self.beta_end * (1000 / self.steps if self.kind == "rescaled" else 1.0)
        if self.kind != "cosine" and largest >= 1.0:
            raise ConfigError(
                f"schedule.beta_end = {self.beta_end}: β reaches {largest:.3g} at steps = {self.steps}, must be below 1"
            )


@dataclasses.dataclass(frozen=True)
class NetworkConfig(Settings):
    """The U-Net."""

    widths: tuple[int, ...] = setting((64, 128, 256, 256), help="channels after the first block and each halving", minimum=4)
    bottleneck: int = setting(512, help="channels of the blocks on the smallest map", minimum=1)
    attention: tuple[str, ...] | None = setting(
        None, help="blocks that self-attention follows, of down_0, down_1 …, up_0, up_1 …; null: all; []: none"
    )
    most_attention_side: int = setting(
        64, help="no attention on maps larger than this; it grows with the fourth power", minimum=1
    )
    predicts: Literal["noise", "velocity"] = setting(
        "noise",
        help="ε, as in the paper, or v = √ᾱ ε - √(1-ᾱ) x_0 (arXiv:2202.00512), which learns the image's large forms sooner",
    )

    def check(self) -> None:
        """Places exist, heads divide widths."""
        levels = len(self.widths) - 1
        if levels < 1:
            raise ConfigError(f"network.widths = {self.widths}: must be two or more")
        places = [f"{way}_{index}" for way in ("down", "up") for index in range(levels)]
        unknown = [place for place in self.attention or () if place not in places]
        if unknown:
            raise ConfigError(f"network.attention: no block '{unknown[0]}'; blocks: {', '.join(places)}")
        if self.attention != () and any(width % 4 for width in self.widths):
            raise ConfigError(f"network.widths = {self.widths}: must be multiples of 4, the attention's heads")


@dataclasses.dataclass(frozen=True)
class OptimiserConfig(Settings):
    """AdamW at a constant rate."""

    learning_rate: float = setting(3e-4, above=0.0)
    weight_decay: float = setting(0.01, minimum=0.0)
    beta_1: float = setting(0.9, minimum=0.0, below=1.0)
    beta_2: float = setting(0.999, minimum=0.0, below=1.0)
    average_warmup: int = setting(
        2000, help="steps in which the average is a copy of the weights; only with training.ema_decay", minimum=0
    )


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Settings):
    """The reverse process."""

    sampler: Literal["ddpm", "ddim"] = setting("ddpm", help="ddpm: all T steps with fresh noise; ddim: any number of steps")
    steps: int | None = setting(None, help="of ddim; null: all T", minimum=1)
    few_steps: int = setting(25, help="DDIM steps of the signature few_steps and of previews", minimum=1)
    eta: float = setting(0.0, help="fresh noise of ddim: 0 none, 1 as much as ddpm", minimum=0.0, maximum=1.0)
    start: Literal["noise", "gaussian"] = setting(
        "noise", help="x_T from N(0, I), or from the Gaussian with the moments that noised training data have at step T"
    )
    clip_start: bool = setting(False, help="clip the predicted image to [-1, 1] at each step, as in Ho et al.'s code")


@dataclasses.dataclass(frozen=True)
class ConditionConfig(Settings):
    """Classes, with classifier-free guidance."""

    classes: int = setting(0, help="of the records' labels; 0: unconditional, as all of the paper's results", minimum=0)
    drop: float = setting(0.1, help="share of training labels that are dropped", minimum=0.0, below=1.0)
    guidance: float = setting(
        3.0, help="s in ε_u + s (ε_c - ε_u): 0 ignores the class, 1 is the plain conditional prediction", minimum=0.0
    )


@dataclasses.dataclass(frozen=True)
class PMDDPMConfig(JointImageConfig):
    """Noise to photograph and masks."""

    slug: ClassVar[str] = "pm_ddpm"

    schedule: ScheduleConfig = setting(ScheduleConfig)
    network: NetworkConfig = setting(NetworkConfig)
    optimiser: OptimiserConfig = setting(OptimiserConfig)
    sampling: SamplingConfig = setting(SamplingConfig)
    condition: ConditionConfig = setting(ConditionConfig)
    fixed_samples: int = setting(8, help="samples of the grid that is drawn from the same noise throughout", minimum=1)

    def check(self) -> None:
        """Maps halve, sampling steps exist."""
        super().check()
        factor = 2 ** (len(self.network.widths) - 1)
        if self.image_size % factor:
            raise ConfigError(
                f"image_size = {self.image_size}: must be a multiple of {factor}, for network.widths of {len(self.network.widths)}"
            )
        total, sampling = self.schedule.steps, self.sampling
        if sampling.sampler == "ddpm" and sampling.steps not in (None, total):
            raise ConfigError(f"sampling.steps = {sampling.steps}: ddpm takes all {total}; choose sampler ddim or null")
        if max(sampling.steps or 1, sampling.few_steps) > total:
            raise ConfigError(
                f"sampling.steps = {sampling.steps}, few_steps = {sampling.few_steps}: at most schedule.steps = {total}"
            )
