"""What TFX's Trainer runs: the same stages as `medsynth train`, then an export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

from medsynth_tf.core.errors import TrainingError
from medsynth_tf.core.registry import method_info
from medsynth_tf.data.open import open_source
from medsynth_tf.training.export import write_export
from medsynth_tf.training.trainer import train


def run_fn(fn_args: Any) -> None:
    """Trains on the examples and writes the SavedModel where the Pusher looks for it.

    Args:
        fn_args: of TFX. `custom_config` holds `config` (the method's configuration as plain values, with its slug), `run_folder`
            (where checkpoints live, so that a run that was killed goes on when the pipeline is run again) and `fingerprint`.

    Raises:
        TrainingError: the run was interrupted; its checkpoint is in the run folder.
    """
    settings = fn_args.custom_config
    config = method_info(settings["config"]["method"]).config_class().from_mapping(settings["config"])
    examples = Path(fn_args.train_files[0]).parent.parent  # …/Split-train/*: the artifact with all its splits
    run = train(config, open_source(f"tfrecord:{examples}"), settings["run_folder"])
    if not run.finished:
        raise TrainingError(f"training was interrupted; run the pipeline again to go on from {settings['run_folder']}")
    write_export(run.model, fn_args.serving_model_dir, data_fingerprint=settings["fingerprint"])
    tf.io.gfile.makedirs(fn_args.model_run_dir)
    tf.io.gfile.copy(str(run.folder / "log.csv"), f"{fn_args.model_run_dir}/log.csv", overwrite=True)
