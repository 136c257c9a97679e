"""One loaded version of a model: a TensorFlow session over its SavedModel, as TensorFlow Serving runs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from medsynth_tf.core.card import ModelCard
from serving.server.warmup import replay


class Servable:
    """A SavedModel (TF1 or TF2) in a session of its own, closed with everything it holds when the version is unloaded.

    A session rather than tf.saved_model.load: it takes models of both kinds, frees its memory on close, and bounds a run by
    the request's deadline.
    """

    def __init__(self, name: str, version: int, path: Path):
        """Checks the files against the card, where there is one, loads, and replays the warm-up requests.

        Raises:
            ExportError: the files are not those of the card. tf.errors.OpError, OSError, ValueError, RuntimeError: TensorFlow
                cannot load the model, or a warm-up request fails.
        """
        self.name = name
        self.version = version
        card = ModelCard.read(path)
        if card is not None:
            card.verify(path)
        graph = tf.Graph()
        config = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        config.gpu_options.allow_growth = True  # the new version loads beside the old one
        self._session = tf.compat.v1.Session(graph=graph, config=config)
        try:
            with graph.as_default():
                meta_graph = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], str(path))
            graph.finalize()
            self.signatures: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)
            replay(self, path)
        except BaseException:
            self._session.close()
            raise

    def run(self, feeds: Mapping[str, np.ndarray], fetches: Sequence[str], timeout_ms: int = 0) -> list[np.ndarray]:
        """Values of the tensors `fetches`, given those of `feeds`; graph names. `timeout_ms` 0: no limit.

        Raises:
            tf.errors.OpError: the run failed, or (DeadlineExceededError) took longer than `timeout_ms`.
        """
        options = tf.compat.v1.RunOptions(timeout_in_ms=timeout_ms) if timeout_ms else None
        return self._session.run(list(fetches), dict(feeds), options=options)

    def close(self) -> None:
        """Frees the model's memory; no run may be in progress."""
        self._session.close()
