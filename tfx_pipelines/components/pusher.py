"""TFX's Pusher, but a model server that looks at the folder meanwhile never sees half a version."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from tfx.components import Pusher
from tfx.components.pusher import executor
from tfx.dsl.components.base import executor_spec
from tfx.proto import pusher_pb2
from tfx.types import Artifact, artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from medsynth_tf.training.export import next_version


class AtomicPushExecutor(executor.Executor):
    """Lets the Pusher copy into a dotted folder beside the versions, then gives the copy its name.

    Versions are the Unix time, as the Pusher's are, or the next number where the folder holds a later one already.
    """

    def Do(
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See `tfx.components.pusher.executor.Executor.Do`."""
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        base = Path(destination.filesystem.base_directory)
        base.mkdir(parents=True, exist_ok=True)
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        with tempfile.TemporaryDirectory(prefix=".push-", dir=base) as staging:
            destination.filesystem.base_directory = staging
            staged = proto_utils.proto_to_json(destination)
            super().Do(input_dict, output_dict, {**exec_properties, standard_component_specs.PUSH_DESTINATION_KEY: staged})
            if not pushed.get_int_custom_property("pushed"):
                return
            copy = Path(pushed.get_string_custom_property("pushed_destination"))
            version = base / str(max(int(copy.name), next_version(base)))
            os.rename(copy, version)
        pushed.set_string_custom_property("pushed_destination", str(version))
        pushed.set_string_custom_property("pushed_version", version.name)


class AtomicPusher(Pusher):
    """The component; arguments and outputs are the Pusher's."""

    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AtomicPushExecutor)
