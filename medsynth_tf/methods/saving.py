"""A method as a folder: `config.yaml`, which layers learn, and a checkpoint of weights, averages and optimiser state."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core import registry
from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_folder, write_text

TRAINABLE_FILE = "trainable.json"


def create(slug: str, config: MethodConfig | None = None) -> Any:
    """The method as a Keras model, built and not compiled.

    Args:
        slug: its name.
        config: its configuration; the profile `small` if none is given.
    """
    from medsynth_tf.methods.base import precision

    info = registry.method_info(slug)
    config = config or registry.load_config(slug)
    if not isinstance(config, info.config_class()):
        raise TypeError(f"method '{slug}' needs a {info.config_class().__name__}, got {type(config).__name__}")
    with precision(config):
        return info.model_class()(config)


def save_method(model: Any, path: str | Path) -> None:
    """Writes the folder `path`, whole or not at all; one that `save_method` wrote before is replaced.

    Raises:
        DataError: `path` exists and is something else.
    """
    path = Path(path)
    if path.exists() and not (path / "config.yaml").is_file():
        raise DataError(f"{path} exists and is not a saved method; choose another name")
    earlier = path.with_name(f".{path.name}-earlier")
    staging = path.with_name(f".{path.name}-new")
    for leftover in (earlier, staging):
        shutil.rmtree(leftover, ignore_errors=True)
    with replacing_folder(staging) as folder:
        model.config.to_yaml(folder / "config.yaml")
        # an optimiser has slots for what learnt, and for nothing else
        write_text(folder / TRAINABLE_FILE, json.dumps([[type(layer).__name__, layer.trainable] for layer in _layers(model)]))
        tf.train.Checkpoint(model=model).write(str(folder / "weights"))
    if path.exists():
        path.rename(earlier)
    staging.rename(path)
    shutil.rmtree(earlier, ignore_errors=True)


def load(path: str | Path) -> Any:
    """The method saved at `path`, compiled with the paper's optimisers in the state they were saved in.

    Layers that were frozen when it was saved are frozen.

    Raises:
        DataError: `path` is no saved method, or its weights do not fit its configuration.
    """
    path = Path(path)
    if not (path / "config.yaml").is_file() or not (path / "weights.index").is_file():
        raise DataError(f"{path} is not a saved method (it needs config.yaml and weights.index)")
    config = registry.load_any_config(path / "config.yaml")
    model = create(config.slug, config)
    if (path / TRAINABLE_FILE).is_file():
        _set_trainable(model, path / TRAINABLE_FILE)
    model.compile()
    try:
        tf.train.Checkpoint(model=model).read(str(path / "weights")).assert_existing_objects_matched()
    except (AssertionError, tf.errors.OpError, ValueError) as error:
        raise DataError(f"{path}: the weights do not fit the configuration: {str(error).splitlines()[0]}") from error
    return model


def _layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
    """The model and all that it is made of, a whole before its parts."""
    return list(model._flatten_layers())


def _set_trainable(model: tf.keras.Model, file: Path) -> None:
    flags, layers = json.loads(file.read_text()), _layers(model)
    if [kind for kind, _ in flags] != [type(layer).__name__ for layer in layers]:
        raise DataError(f"{file}: names other layers than the configuration builds")
    for layer, (_, trainable) in zip(layers, flags):  # setting a whole sets its parts, which come after it
        layer.trainable = trainable
