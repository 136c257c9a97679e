"""Serves the exported model once, in a process of its own, before anything is pushed."""

import os

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import InfraBlessing, Model
from tfx.utils import path_utils

from medsynth_tf.core.errors import MedSynthError
from medsynth_tf.core.files import write_text
from serving.smoke import smoke_test


@component
def ServingSmokeTest(model: InputArtifact[Model], blessing: OutputArtifact[InfraBlessing]) -> None:
    """Starts the model server on the export, sends every warm-up request and compares answers with the SavedModel in process.

    TFX's InfraValidator does this with the TensorFlow Serving image and needs a container engine; this one runs anywhere.

    Args:
        model: from the Trainer.
        blessing: infra-blessed if every request was answered alike; else `reason.txt` says what failed.
    """
    folder = path_utils.serving_model_path(model.uri)
    reason = ""
    try:
        smoke_test(folder)
    except MedSynthError as error:
        reason = str(error)
        write_text(os.path.join(blessing.uri, "reason.txt"), reason)
    write_text(os.path.join(blessing.uri, "INFRA_NOT_BLESSED" if reason else "INFRA_BLESSED"), "")
    blessing.set_int_custom_property("blessed", int(not reason))  # what Pusher looks at
    blessing.set_string_custom_property("reason", reason)
