"""One loaded version of a model: its signatures, and how to run them."""

from __future__ import annotations

import abc
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from serving.server.batching import Batcher
from serving.server.metrics import Metrics


class Servable(abc.ABC):
    """A version that answers; with a `batcher`, requests that come at the same time run together."""

    runtime = "TF1"  # label of the metrics: TensorFlow Serving's name for a Session

    def __init__(
        self, name: str, version: int, signatures: Mapping[str, SignatureDef], metrics: Metrics, batcher: Batcher | None
    ):
        self.name = name
        self.version = version
        self.signatures = dict(signatures)
        self._metrics = metrics
        self._batcher = batcher
        self._queue = f"{name}/{version}/{id(self)}/"

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int = 0) -> list[np.ndarray]:
        """Values of the tensors `fetches`, given those of `feeds`; names as in the signatures. `timeout_ms` 0: no limit.

        Raises:
            tf.errors.OpError, StatusError: the run failed, or (DEADLINE_EXCEEDED) took longer than `timeout_ms`.
        """
        if self._batcher is None:
            return self.run_alone(feeds, fetches, timeout_ms)
        return self._batcher.run(self._queue + ",".join(sorted(feeds)), self.run_alone, feeds, fetches, timeout_ms)

    def run_alone(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int = 0) -> list[np.ndarray]:
        """As `run`, never together with another request."""
        started = time.perf_counter()
        values = self._run(feeds, fetches, timeout_ms)
        self._metrics.graph_runs.add()
        self._metrics.graph_run_time.add(amount=round(1e6 * (time.perf_counter() - started)))
        return values

    @abc.abstractmethod
    def _run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int) -> list[np.ndarray]:
        """The run itself."""

    @abc.abstractmethod
    def close(self) -> None:
        """Frees the model's memory; no run may be in progress."""


class SavedModelServable(Servable):
    """A SavedModel (TF1 or TF2) in a session of its own, closed with everything it holds when the version is unloaded.

    A session rather than tf.saved_model.load: it takes models of both kinds, frees its memory on close, and bounds a run by
    the request's deadline.
    """

    def __init__(
        self,
        name: str,
        version: int,
        path: Path,
        *,
        tags: Sequence[str],
        session_config: tf.compat.v1.ConfigProto,
        metrics: Metrics,
        batcher: Batcher | None = None,
    ):
        """Loads the version in `path`.

        Raises:
            tf.errors.OpError, OSError, ValueError, RuntimeError: TensorFlow cannot load the model.
        """
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=session_config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, list(tags), str(path))
            graph.finalize()
        except BaseException:
            self._session.close()
            raise
        super().__init__(name, version, meta_graph.signature_def, metrics, batcher)

    def _run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int) -> list[np.ndarray]:
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None
        return self._session.run(list(fetches), dict(feeds), options=options)

    def close(self) -> None:
        """Frees the session with its variables."""
        self._session.close()
