"""Sampling that survives a kill: the state is written every few steps, and a later call goes on from it to the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import replacing_file
from medsynth_tf.methods.generation.pm_ddpm.model import PMDDPM


def sample_resumable(
    model: PMDDPM,
    seeds: Sequence[int],
    state: str | Path,
    *,
    labels: Sequence[int] | None = None,
    every: int = 50,
    few: bool = False,
) -> dict[str, np.ndarray]:
    """Samples with the averaged weights, in stretches of `every` steps; after each the state is written.

    Args:
        model: trained.
        seeds: one per sample.
        state: file (.npz) of the run: made anew, or that of the same run, which goes on. It stays when the run is done.
        labels: one per sample, for a model with classes.
        every: sampling steps between states; changes no byte of the result.
        few: by the few DDIM steps.

    Returns:
        As the signature `serving_default` does: "image" and, with masks, "mask" and "empty_mask".

    Raises:
        DataError: the file is of another run: other weights, settings, seeds or labels. ValueError: `every` is not positive.
    """
    if every < 1:
        raise ValueError(f"every = {every}: must be at least 1")
    state = Path(state)
    seed_tensor = tf.constant(list(seeds), tf.int64)
    label_tensor = None if labels is None else tf.constant(list(labels), tf.int64)
    last = len(model.times(few)) - 1
    with model.averaged_weights():
        run = _identity(model, seeds, labels, few)
        if state.is_file():
            x, position = _read(state, run)
        else:
            x, position = model.start(seed_tensor), 0
        while position < last:
            stop = min(position + every, last)
            x = model.advance(x, seed_tensor, label_tensor, tf.constant(position), tf.constant(stop), few)
            position = stop
            with replacing_file(state) as temporary, temporary.open("wb") as file:
                np.savez(file, x=x.numpy(), position=position, run=run)
    made = model.pixels(tf.clip_by_value(x, -1.0, 1.0))
    return {name: value.numpy() for name, value in made.items()}


def _identity(model: PMDDPM, seeds: Sequence[int], labels: Sequence[int] | None, few: bool) -> str:
    """sha256 of all that decides the samples."""
    digest = hashlib.sha256(json.dumps([model.config.to_dict(), list(seeds), labels and list(labels), few]).encode())
    for variable in [*model.network.trainable_variables, *model.data.weights]:
        digest.update(variable.numpy().tobytes())
    return digest.hexdigest()


def _read(state: Path, run: str) -> tuple[tf.Tensor, int]:
    with np.load(state) as stored:
        if str(stored["run"]) != run:
            raise DataError(f"{state} holds the state of another run (other weights, settings, seeds or labels)")
        return tf.constant(stored["x"]), int(stored["position"])
