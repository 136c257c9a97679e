"""Exports: numbered SavedModels that TensorFlow Serving loads, with warm-up requests, card and configuration."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.card import ModelCard, fingerprints, method_text, utc_now
from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import ExportError
from medsynth_tf.core.files import replacing_folder
from medsynth_tf.version import __version__

DEFAULT_SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"


def export(
    model: tf.keras.Model,
    folder: str | Path,
    name: str | None = None,
    *,
    data_fingerprint: str | None = None,
    metrics: Mapping[str, float] | None = None,
    warmup: bool = True,
) -> Path:
    """Writes `model` as the next version under `folder`, there whole or not at all, with its averaged weights if it keeps any.

    Args:
        model: has `config` (MethodConfig), `signatures()` → {name: tf.function with an input_signature of named specs} and,
            for `warmup`, `example_inputs()` → {signature name: {input name: array with a batch axis}}.
        folder: the model's base path; versions are its numbered subfolders.
        name: what the model is called when served; default: the method's slug. Warm-up requests carry it.
        data_fingerprint: of the training data, for the card.
        metrics: of the evaluation, for the card.
        warmup: write one request per signature, which a server replays before it lets a version answer.

    Returns:
        The version's folder, `folder/<n>`.

    Raises:
        ExportError: a signature cannot be served (none called serving_default, no batch axis …), or writing failed.
    """
    folder = Path(folder)
    prepared = _prepare(model, name, data_fingerprint, metrics, warmup)
    with _said_once(folder), _averaged(model):
        while True:
            path = folder / str(next_version(folder))
            try:
                prepared.write(path)
                return path
            except OSError as error:  # another export took the number meanwhile; renaming onto a folder says ENOTEMPTY
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not isinstance(error, FileExistsError):
                    raise


def write_export(
    model: tf.keras.Model,
    folder: str | Path,
    name: str | None = None,
    *,
    data_fingerprint: str | None = None,
    metrics: Mapping[str, float] | None = None,
    warmup: bool = True,
) -> None:
    """Writes `model` into exactly `folder`, there whole or not at all; for callers that number versions themselves.

    Args:
        model, name, data_fingerprint, metrics, warmup: as for `export`.
        folder: of the one version; absent or empty.

    Raises:
        ExportError: as `export`, and if the folder holds something.
    """
    folder = Path(folder)
    prepared = _prepare(model, name, data_fingerprint, metrics, warmup)
    with _said_once(folder), _averaged(model):
        if folder.is_dir():
            folder.rmdir()  # fails, as it should, where there is something in it
        prepared.write(folder)


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A model whose signatures are checked, ready to be written."""

    config: MethodConfig
    functions: Mapping[str, Any]
    requests: Sequence[bytes]
    card: ModelCard

    def write(self, path: Path) -> None:
        with replacing_folder(path) as temporary:
            _save(self.functions, temporary)
            if self.requests:
                _write_warmup(self.requests, temporary / WARMUP_FILE)
            self.config.to_yaml(temporary / "config.yaml")
            dataclasses.replace(self.card, created=utc_now(), files=fingerprints(temporary)).write(temporary)


def _prepare(
    model: tf.keras.Model,
    name: str | None,
    data_fingerprint: str | None,
    metrics: Mapping[str, float] | None,
    warmup: bool,
) -> _Prepared:
    name = name or model.config.slug
    functions = _concrete_functions(model)
    described = {key: _description(key, function) for key, function in functions.items()}
    title, reference = method_text(model.config.slug)
    card = ModelCard(
        name=name,
        method=model.config.slug,
        title=title,
        reference=reference,
        config=model.config.to_dict(),
        data_fingerprint=data_fingerprint,
        metrics={key: float(value) for key, value in (metrics or {}).items()},
        versions=_versions(),
        created=utc_now(),
        signatures=described,
        files={},
    )
    requests = _warmup_requests(name, described, model.example_inputs()) if warmup else []
    return _Prepared(model.config, functions, requests, card)


def _averaged(model: tf.keras.Model) -> contextlib.AbstractContextManager[None]:
    """Within the block the model has the weights that it is judged and served with: their average, if it keeps one."""
    return model.averaged_weights() if hasattr(model, "averaged_weights") else contextlib.nullcontext()


@contextlib.contextmanager
def _said_once(folder: Path) -> Iterator[None]:
    """Failures to write, in one line."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"cannot export to {folder}: {error.strerror or error}") from error
    except tf.errors.OpError as error:  # what TensorFlow's own file writers raise, a full disk among it
        raise ExportError(f"cannot export to {folder}: {error.message.splitlines()[0]}") from error


def _concrete_functions(model: tf.keras.Model) -> dict[str, Any]:
    signatures = model.signatures()
    if DEFAULT_SIGNATURE not in signatures:
        raise ExportError(
            f"{type(model).__name__} has no signature '{DEFAULT_SIGNATURE}'; it has: {', '.join(sorted(signatures)) or 'none'}"
        )
    functions = {}
    for key, signature in signatures.items():
        if getattr(signature, "input_signature", None) is None:
            raise ExportError(f"signature '{key}' must be a tf.function with an input_signature")
        functions[key] = signature.get_concrete_function()
    return functions


def _description(key: str, function: Any) -> dict[str, Any]:
    """Names, dtypes and shapes of a signature; checks that a server can batch it."""
    arguments, keywords = function.structured_input_signature
    inputs = {spec.name: spec for spec in tf.nest.flatten((arguments, keywords)) if isinstance(spec, tf.TypeSpec)}
    outputs = function.structured_outputs
    if not isinstance(outputs, dict) or not all(isinstance(value, tf.TensorSpec | tf.Tensor) for value in outputs.values()):
        raise ExportError(f"signature '{key}' must return a flat dict of named tensors, got {type(outputs).__name__}")
    for kind, specs in (("input", inputs), ("output", outputs)):
        for name, spec in specs.items():
            if spec.shape.rank is not None and (spec.shape.rank == 0 or spec.shape[0] is not None):
                raise ExportError(
                    f"signature '{key}': {kind} '{name}' has no batch dimension: its shape is {spec.shape}, "
                    "the first axis must be None"
                )
    return {
        kind: {name: {"dtype": spec.dtype.name, "shape": _plain_shape(spec.shape)} for name, spec in specs.items()}
        for kind, specs in (("inputs", inputs), ("outputs", outputs))
    }


def _plain_shape(shape: tf.TensorShape) -> list[int | None] | None:
    return None if shape.rank is None else shape.as_list()


def _save(functions: Mapping[str, Any], folder: Path) -> None:
    """A SavedModel of the signatures and the variables they read: no optimiser, no training graph, no Keras metadata."""
    module = tf.Module()
    unique = {id(variable): variable for function in functions.values() for variable in function.variables}
    module.used_variables = list(unique.values())
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(module, str(folder), signatures=dict(functions), options=options)
    except (AssertionError, ValueError) as error:
        raise ExportError(f"TensorFlow cannot save the signatures: {' '.join(str(error).split())}") from error


def _warmup_requests(name: str, described: Mapping[str, Any], examples: Mapping[str, Mapping[str, np.ndarray]]) -> list[bytes]:
    """One serialised PredictionLog per signature."""
    try:
        from tensorflow_serving.apis import predict_pb2, prediction_log_pb2
    except ImportError as error:
        raise ExportError(
            "warm-up requests need tensorflow-serving-api: install medsynth_tf[serving], or export with warmup=False"
        ) from error
    logs = []
    for key, signature in described.items():
        if set(examples.get(key, {})) != set(signature["inputs"]):
            raise ExportError(
                f"example_inputs()['{key}'] has inputs {sorted(examples.get(key, {}))}, "
                f"the signature takes {sorted(signature['inputs'])}"
            )
        request = predict_pb2.PredictRequest()
        request.model_spec.name = name
        request.model_spec.signature_name = key
        for tensor, spec in signature["inputs"].items():
            array = np.asarray(examples[key][tensor])
            proto = tf.make_tensor_proto(array)
            if tf.as_dtype(proto.dtype).name != spec["dtype"] or not tf.TensorShape(spec["shape"]).is_compatible_with(
                array.shape
            ):
                raise ExportError(
                    f"example_inputs()['{key}']['{tensor}'] is {array.dtype} {list(array.shape)}, "
                    f"the signature takes {spec['dtype']} {spec['shape']}"
                )
            request.inputs[tensor].CopyFrom(proto)
        log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
        logs.append(log.SerializeToString())
    return logs


def _write_warmup(requests: Sequence[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for request in requests:
            writer.write(request)


def next_version(folder: Path) -> int:
    """One more than the highest number that names a version in `folder`; 1 if there is none."""
    if not folder.is_dir():
        return 1
    return 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in ("keras", "numpy")}
    return {"medsynth_tf": __version__, "tensorflow": tf.__version__, **packages}
