"""The models and versions a server holds: polls their folders, loads what is new, unloads what is no longer wanted.

A version that is wanted is loaded and warmed up before any other is unloaded, requests running on a version finish before it
closes, and a version that cannot be loaded leaves the others serving.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from pathlib import Path

import tensorflow as tf
from grpc import StatusCode
from tensorflow_serving.apis import get_model_status_pb2, model_pb2
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig, ModelServerConfig

from serving.server import storage
from serving.server.loader import Loader
from serving.server.servable import Servable
from serving.server.status import StatusError, as_status

log = logging.getLogger(__name__)
State = get_model_status_pb2.ModelVersionStatus.State


@dataclasses.dataclass
class Version:
    """One version of a model in its life START → LOADING → AVAILABLE → UNLOADING → END; `error` says why it never loaded."""

    number: int
    path: Path
    state: int = State.START
    error: StatusError | None = None
    servable: Servable | None = None
    requests: int = 0
    stamp: frozenset[tuple[str, int, int]] = frozenset()  # of the files, when loading failed
    attempts: int = 1  # to load these files
    failed_at: float = 0.0  # of time.monotonic


@dataclasses.dataclass
class Model:
    """A configured model and every version of it that was ever seen."""

    config: ModelConfig
    versions: dict[int, Version] = dataclasses.field(default_factory=dict)

    def available(self) -> list[int]:
        """Numbers of the versions that answer, ascending."""
        return sorted(number for number, version in self.versions.items() if version.state == State.AVAILABLE)


class Manager:
    """Thread-safe; one thread polls and loads, others acquire and release versions."""

    def __init__(
        self,
        poll_seconds: float = 1.0,
        load: Callable[[str, int, Path], Servable] | None = None,
        *,
        allow_labels_for_unavailable: bool = False,
        version_files: Sequence[str] = storage.SAVED_MODEL_FILES,
        load_retries: int = 0,
        retry_seconds: float = 60.0,
        load_threads: int = 0,
        unload_threads: int = 0,
    ):
        """`poll_seconds` 0: look at the folders once, when configured. `load` makes a servable of (name, version, path).

        `allow_labels_for_unavailable`: a label may be given to a version that is not loaded yet.
        `version_files`: what makes a numbered folder a version, any of them. `load_retries`: how often a version that does not
        load is tried again though its files are the same, each time after `retry_seconds`. `load_threads`: models that are looked
        at and loaded at the same time; 0: one after the other. `unload_threads`: versions unloaded at the same time; 0: all.
        """
        self._poll_seconds = poll_seconds
        self._load = load or Loader()
        self._version_files = version_files
        self._load_retries = load_retries
        self._retry_seconds = retry_seconds
        self._load_threads = load_threads
        self._unloading = threading.BoundedSemaphore(unload_threads) if unload_threads else contextlib.nullcontext()
        self._allow_labels_for_unavailable = allow_labels_for_unavailable
        self._models: dict[str, Model] = {}
        self._changed = threading.Condition()  # guards every Version and the table of models
        self._reconciling = threading.Lock()  # one pass at a time; held while loading, unlike _changed
        self._stop = threading.Event()
        self._poller: threading.Thread | None = None

    # Configuration and life

    def configure(self, config: ModelServerConfig) -> None:
        """Takes over the list of models, and loads and unloads until it is served. A configuration without a list changes nothing.

        Raises:
            StatusError: INVALID_ARGUMENT: the list is not allowed, the former one stays; UNKNOWN: no version of a model could
                be loaded; FAILED_PRECONDITION: a label is for a version that is not available.
        """
        if config.WhichOneof("config") is None:  # a file that is just being written, say: no reason to unload everything
            return
        listed = checked_models(config)
        with self._changed:
            for name, model_config in listed.items():
                self._models.setdefault(name, Model(model_config)).config = model_config
            removed = [model for name, model in self._models.items() if name not in listed]
            for model in removed:
                model.config = ModelConfig(name=model.config.name)  # no base path: nothing is aspired any more
        self.reconcile()
        while self._retries_pending(listed) and not self._stop.wait(self._retry_seconds):
            self.reconcile()
        with self._changed:
            failures = [text for name in listed for text in _failures(self._models[name])]
            unmet = [(name, number) for name in listed for number in _unmet_labels(self._models[name])]
        if failures:
            raise StatusError(
                StatusCode.UNKNOWN, f"{len(failures)} servable(s) did not become available: {{{', '.join(failures)}}}"
            )
        for name, number in () if self._allow_labels_for_unavailable else unmet:
            raise StatusError(
                StatusCode.FAILED_PRECONDITION,
                f"Request to assign label to version {number} of model {name}, which is not currently available for inference",
            )

    def start_polling(self) -> None:
        """Looks at the folders again every `poll_seconds`, until `stop`."""
        if self._poll_seconds > 0:
            self._poller = threading.Thread(target=self._poll, name="poll-versions", daemon=True)
            self._poller.start()

    def _poll(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            try:
                self.reconcile()
            except Exception:
                log.exception("polling the model folders failed; trying again in %s s", self._poll_seconds)

    def stop(self) -> None:
        """Ends polling and closes every version once its requests are done."""
        self._stop.set()
        if self._poller is not None:
            self._poller.join()
        with self._changed:
            loaded = [version for model in self._models.values() for version in model.versions.values() if version.servable]
        for version in loaded:
            self._unload(version)

    def reconcile(self) -> None:
        """One pass over all models: find versions, load the wanted, then unload the unwanted."""
        with self._reconciling:
            models = list(self._models.values())
            if self._load_threads < 2 or len(models) < 2:
                for model in models:
                    self._reconcile_model(model)
                return
            with futures.ThreadPoolExecutor(self._load_threads, thread_name_prefix="load") as pool:
                list(pool.map(self._reconcile_model, models))  # what one raises is raised here

    def _reconcile_model(self, model: Model) -> None:
        config, wanted = model.config, {}
        if config.base_path:
            try:
                wanted = storage.aspired(
                    storage.find_versions(config.base_path, self._version_files), config.model_version_policy
                )
            except OSError as error:
                log.warning("model %s: cannot read its base path %s: %s", config.name, config.base_path, error.strerror)
                return
        for number in sorted(wanted):
            version = model.versions.get(number)
            if version is None or (version.state == State.END and self._worth_loading(version, wanted[number])):
                again = version is not None and version.error is not None and version.stamp == storage.stamp(wanted[number])
                version = Version(number, wanted[number], attempts=version.attempts + 1 if version and again else 1)
                with self._changed:
                    model.versions[number] = version
                self._load_version(config.name, version)
        if wanted and not any(number in wanted for number in model.available()):
            return  # nothing that is wanted can serve yet: keep what does
        for number in model.available():
            if number not in wanted:
                threading.Thread(target=self._unload, args=(model.versions[number],), name="unload", daemon=True).start()

    def _worth_loading(self, version: Version, path: Path) -> bool:
        """A version that ended well is wanted again; one that failed once its files have changed, or as often as retries allow."""
        if version.error is None or storage.stamp(path) != version.stamp:
            return True
        return version.attempts <= self._load_retries and time.monotonic() >= version.failed_at + self._retry_seconds

    def _retries_pending(self, names: Iterable[str]) -> bool:
        """Whether a model that cannot answer has a version that will be tried again."""
        with self._changed:
            return any(
                version.error is not None and version.attempts <= self._load_retries
                for model in (self._models[name] for name in names)
                if not model.available()
                for version in model.versions.values()
            )

    def _load_version(self, name: str, version: Version) -> None:
        log.info("loading {name: %s version: %d} from %s", name, version.number, version.path)
        self._set_state(version, State.LOADING)
        version.stamp = storage.stamp(version.path)
        try:
            servable = self._load(name, version.number, version.path)
        except Exception as error:
            version.error, version.failed_at = _why(error), time.monotonic()
            log.error("refused {name: %s version: %d}: %s", name, version.number, version.error.message)
            self._set_state(version, State.END)
            return
        with self._changed:
            version.servable = servable
            version.state = State.AVAILABLE
            self._changed.notify_all()
        log.info("serving {name: %s version: %d}", name, version.number)

    def _unload(self, version: Version) -> None:
        with self._unloading:
            self._close(version)

    def _close(self, version: Version) -> None:
        with self._changed:
            if version.state != State.AVAILABLE or version.servable is None:
                return
            version.state = State.UNLOADING
            self._changed.notify_all()
            self._changed.wait_for(lambda: version.requests == 0)
            servable, version.servable = version.servable, None
        servable.close()
        self._set_state(version, State.END)
        log.info("unloaded version %d of %s", version.number, version.path.parent)

    def _set_state(self, version: Version, state: int) -> None:
        with self._changed:
            version.state = state
            self._changed.notify_all()

    # What the services ask

    def has_model(self, name: str) -> bool:
        """Whether a model of that name is, or was, configured."""
        return name in self._models

    @contextlib.contextmanager
    def servable(self, spec: model_pb2.ModelSpec) -> Iterator[Servable]:
        """The version that `spec` chooses (number, label, or else the newest), held open during the block.

        Raises:
            StatusError: INVALID_ARGUMENT: no name, unknown label; NOT_FOUND: no such model or version; UNAVAILABLE: the
                version was unloaded.
        """
        with self._changed:
            version = self._choose(spec)
            servable = version.servable
            assert servable is not None
            version.requests += 1
        try:
            yield servable
        finally:
            with self._changed:
                version.requests -= 1
                self._changed.notify_all()

    def _choose(self, spec: model_pb2.ModelSpec) -> Version:
        if not spec.name:
            raise StatusError(StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        model = self._models.get(spec.name)
        versions = model.versions if model else {}
        number = None
        if spec.HasField("version"):
            number = spec.version.value
        elif spec.HasField("version_label"):
            labels = model.config.version_labels if model else {}
            if spec.version_label not in labels:
                raise StatusError(StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}")
            number = labels[spec.version_label]
        elif model and model.available():
            number = model.available()[-1]
        else:
            raise StatusError(StatusCode.NOT_FOUND, f"Servable not found for request: Latest({spec.name})")
        version = versions.get(number)
        if version is None or version.state != State.AVAILABLE:
            gone = version is not None and version.error is None and version.state in (State.UNLOADING, State.END)
            raise StatusError(
                StatusCode.UNAVAILABLE if gone else StatusCode.NOT_FOUND,
                f"Servable not found for request: Specific({spec.name}, {number})",
            )
        return version

    def statuses(self, spec: model_pb2.ModelSpec) -> list[Version]:
        """Copies of the versions of a model (of one, where `spec` names it), newest first.

        Raises:
            StatusError: NOT_FOUND: none; INVALID_ARGUMENT: unknown label.
        """
        with self._changed:
            model = self._models.get(spec.name)
            versions = model.versions if model else {}
            if not spec.HasField("version") and not spec.HasField("version_label"):
                if not versions:
                    raise StatusError(StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}")
                return [dataclasses.replace(versions[number]) for number in sorted(versions, reverse=True)]
            number = spec.version.value
            if spec.HasField("version_label"):
                number = self._choose(spec).number
            if number not in versions:
                raise StatusError(StatusCode.NOT_FOUND, f"Could not find version {number} of model {spec.name}")
            return [dataclasses.replace(versions[number])]

    def wait_available(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until every configured model has a version that answers; whether that is so."""
        with self._changed:
            return self._changed.wait_for(
                lambda: all(model.available() for model in self._models.values() if model.config.base_path), timeout
            )


def _unmet_labels(model: Model) -> list[int]:
    """Labelled versions that do not answer, of a model that does."""
    available = model.available()
    return [number for number in model.config.version_labels.values() if available and number not in available]


def checked_models(config: ModelServerConfig) -> dict[str, ModelConfig]:
    """The models of a configuration by name.

    Raises:
        StatusError: the configuration is not one that this server can follow.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise StatusError(StatusCode.INVALID_ARGUMENT, "ServerModelConfig type not supported: only model_config_list is")
    models: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if not model.name or not model.base_path:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"model '{model.name}': both name and base_path must be given")
        if model.name in models:
            raise StatusError(StatusCode.INVALID_ARGUMENT, f"Illegal to list model {model.name} multiple times in config list")
        if model.model_platform not in ("", "tensorflow"):
            raise StatusError(
                StatusCode.INVALID_ARGUMENT, f"model '{model.name}': platform '{model.model_platform}' is not 'tensorflow'"
            )
        models[model.name] = model
    return models


def _failures(model: Model) -> list[str]:
    """Why nothing of `model` can be served, if versions were found and each of them failed."""
    if model.available():
        return []
    return [
        f"{{{{name: {model.config.name} version: {number}}} due to error: {version.error.message}}}"
        for number, version in model.versions.items()
        if version.error is not None
    ]


def _why(error: Exception) -> StatusError:
    """Why a version did not load; unlike a failure of a request, one that is not TensorFlow's is told as it is."""
    if isinstance(error, (StatusError, tf.errors.OpError)):
        return as_status(error)
    return StatusError(StatusCode.UNKNOWN, " ".join(str(error).split()) or type(error).__name__)
