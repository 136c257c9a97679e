"""Changing the list of models while the server runs: by a request, or by a new text in --model_config_file.

A request may reorder, drop and re-label models, and bring back any that lie under the folders the operator named at the start; it
cannot point the server at a folder of the caller's choosing, since that would let a caller open any file of the machine.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from grpc import StatusCode
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from medsynth_tf.core.errors import ConfigError
from serving.server.manager import Manager
from serving.server.status import StatusError

log = logging.getLogger(__name__)


class Reloading:
    """`roots`: the folders under which a request may name base paths."""

    def __init__(self, manager: Manager, roots: Iterable[str]):
        self._manager = manager
        self._roots = [Path(os.path.realpath(root)) for root in roots]
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None

    def by_request(self, config: ModelServerConfig) -> None:
        """Takes over the list a client sent.

        Raises:
            StatusError: PERMISSION_DENIED: a base path outside the roots; and as Manager.configure.
        """
        for model in config.model_config_list.config:
            path = Path(os.path.realpath(model.base_path))
            if not any(path.is_relative_to(root) for root in self._roots):
                raise StatusError(
                    StatusCode.PERMISSION_DENIED,
                    f"model '{model.name}': base_path {model.base_path} is not under a folder that the server was started with; "
                    "--reload_base_paths allows others",
                )
        self._manager.configure(config)

    def watch(self, taken: ModelServerConfig, read: Callable[[], ModelServerConfig], seconds: float) -> None:
        """Calls `read` every `seconds`, and takes over what it returns once that is no longer `taken`; until `stop`."""
        self._watcher = threading.Thread(target=self._watch, args=(taken, read, seconds), name="poll-config", daemon=True)
        self._watcher.start()

    def _watch(self, taken: ModelServerConfig, read: Callable[[], ModelServerConfig], seconds: float) -> None:
        while not self._stop.wait(seconds):
            try:
                config = read()
                if config == taken:
                    continue
                self._manager.configure(config)
                taken = config
                log.info("took over the changed model config file")
            except (ConfigError, StatusError) as error:
                log.error("the model config file was not taken over, trying again in %s s: %s", seconds, error)

    def stop(self) -> None:
        """Ends watching."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join()
