"""What every method's configuration shares: how to train it and how to feed it; and YAML files of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import yaml

from medsynth_tf.core.errors import ConfigError
from medsynth_tf.core.files import write_text
from medsynth_tf.core.settings import Settings, setting

C = TypeVar("C", bound="MethodConfig")


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """How records become batches."""

    split_fractions: tuple[float, float, float] = setting(
        (0.8, 0.1, 0.1), help="train, val, test shares; by patient", minimum=0.0, maximum=1.0
    )
    flip_horizontal: bool = setting(True, help="random left-right flips of training examples")
    flip_vertical: bool = setting(False, help="random up-down flips of training examples")
    cache: bool = setting(False, help="prepare each training example once and keep it in memory; for small sets only")

    def check(self) -> None:
        """Split fractions sum to one and leave something to train on."""
        if abs(sum(self.split_fractions) - 1.0) > 1e-6 or self.split_fractions[0] <= 0.0:
            raise ConfigError(
                f"data.split_fractions = {self.split_fractions}: train, val, test must sum to 1 with train above 0"
            )


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Settings):
    """How long, how fast and on what a method trains. Learning rates and optimisers stand in the method's own settings."""

    batch_size: int = setting(8, help="global batch, over all replicas", minimum=1)
    epochs: int = setting(1, help="passes over the training split", minimum=1)
    steps_per_epoch: int | None = setting(None, help="steps that count as one epoch; default: one pass", minimum=1)
    strategy: Literal["auto", "cpu", "one_device", "mirrored", "multi_worker"] = setting(
        "auto", help="tf.distribute strategy; auto: mirrored with several GPUs, else the one device there is"
    )
    mixed_precision: Literal["none", "float16", "bfloat16"] = setting("none", help="compute type; variables stay float32")
    clip_norm: float | None = setting(None, help="global gradient norm is clipped to this, after summing replicas", above=0.0)
    ema_decay: float | None = setting(None, help="decay of the exponential moving average of weights", above=0.0, below=1.0)
    jit_compile: bool = setting(False, help="compile the train step with XLA")
    checkpoint_steps: int = setting(200, help="steps between checkpoints", minimum=1)
    checkpoints_kept: int = setting(2, help="newest checkpoints that are kept", minimum=1)
    image_steps: int = setting(500, help="steps between picture grids in TensorBoard and the run folder", minimum=1)


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Settings):
    """How a trained model is judged."""

    samples: int = setting(64, help="synthetic images at most that are judged", minimum=2)
    extractor_weights: str | None = setting(
        None, help="file of InceptionV3 weights without top (Keras HDF5) for FID and KID; null: the documented stand-in"
    )
    gates: tuple[str, ...] = setting(
        (),
        help="what must hold before a model is pushed: 'metric >= 0.8', or 'metric >= 0.9 * baseline' against the last blessed one",
    )


@dataclasses.dataclass(frozen=True)
class MethodConfig(Settings):
    """Base of every method's configuration; `slug` names the method in files."""

    slug: ClassVar[str] = ""

    seed: int = setting(0, help="every random number of a run derives from it", minimum=0, maximum=2**31 - 1)
    data: DataConfig = setting(DataConfig)
    training: TrainingConfig = setting(TrainingConfig)
    evaluation: EvaluationConfig = setting(EvaluationConfig)

    def to_yaml(self, path: str | Path) -> None:
        """Writes all settings, with the method's slug on top."""
        write_text(path, yaml.safe_dump({"method": self.slug, **self.to_dict()}, sort_keys=False))

    @classmethod
    def from_yaml(cls: type[C], path: str | Path, overrides: Mapping[str, Any] | None = None) -> C:
        """Reads a file that `to_yaml` or a person wrote; settings not named keep their defaults.

        Raises:
            ConfigError: the file is missing, not YAML, of another method, or a setting is not allowed.
        """
        return cls.from_mapping(read_yaml(path), overrides, origin=str(path))

    @classmethod
    def from_mapping(
        cls: type[C], values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None, origin: str = ""
    ) -> C:
        """Builds from plain values with the method's slug among them, then applies dotted `overrides`."""
        values = dict(values)
        named = values.pop("method", cls.slug)
        if named != cls.slug:
            raise ConfigError(f"{origin or 'configuration'} is for method '{named}', not '{cls.slug}'")
        try:
            return cls.from_dict(values).replace(overrides or {})
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error}" if origin else str(error)) from error


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {type(values).__name__}")
    return values


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """`["training.epochs=3", …]` → `{"training.epochs": 3}`; values are read as YAML.

    Raises:
        ConfigError: a pair has no `=`.
    """
    overrides = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise ConfigError(f"override '{pair}': expected key=value, for example training.epochs=3")
        overrides[key] = yaml.safe_load(text)
    return overrides
