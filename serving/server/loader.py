"""How a version becomes a servable: checked against its card, loaded as what it is, warmed up."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import tensorflow as tf

from medsynth_tf.core.card import ModelCard
from serving.server import storage, tflite
from serving.server.batching import Batcher
from serving.server.metrics import Metrics
from serving.server.servable import SavedModelServable, Servable
from serving.server.warmup import replay


@dataclasses.dataclass(frozen=True)
class Loader:
    """Loads versions; what the flags of the server say about loading and running them.

    Attributes:
        tags: of the MetaGraph to load.
        session_config: what sessions are made with; TFLite takes the number of its threads from it.
        warmup: replay the recorded requests; `warmup_iterations` times each.
        prefer_tflite: take `model.tflite` where there is one, in `interpreters` interpreters.
        flush_caches: after loading, let the system take back the memory in which it holds the files.
    """

    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    batcher: Batcher | None = None
    tags: tuple[str, ...] = (tf.saved_model.SERVING,)
    session_config: tf.compat.v1.ConfigProto = dataclasses.field(
        default_factory=lambda: tf.compat.v1.ConfigProto(allow_soft_placement=True)
    )
    warmup: bool = True
    warmup_iterations: int = 1
    prefer_tflite: bool = False
    interpreters: int = 1
    flush_caches: bool = True

    def __call__(self, name: str, version: int, path: Path) -> Servable:
        """The version in the folder `path`, ready to answer.

        Raises:
            ExportError: the files are not those of the model card, where there is one. tf.errors.OpError, OSError, ValueError,
                RuntimeError: TensorFlow cannot load the model. StatusError: a warm-up request fails.
        """
        started = time.perf_counter()
        try:
            servable = self._load(name, version, path)
        except BaseException:
            self.metrics.load_attempts.add(str(path), "fail")
            raise
        self.metrics.load_attempts.add(str(path), "success")
        self.metrics.load_latency.add(str(path), amount=round(1e6 * (time.perf_counter() - started)))
        if self.flush_caches:
            storage.flush_caches(path)
        if self.warmup:
            self._warm_up(servable, path)
        return servable

    def _load(self, name: str, version: int, path: Path) -> Servable:
        card = ModelCard.read(path)
        if card is not None:
            card.verify(path)
        if self.prefer_tflite and (path / tflite.FILE).is_file():
            return tflite.TFLiteServable(
                name,
                version,
                path,
                interpreters=self.interpreters,
                threads=self.session_config.intra_op_parallelism_threads or 1,
                metrics=self.metrics,
                batcher=self.batcher,
            )
        return SavedModelServable(
            name,
            version,
            path,
            tags=self.tags,
            session_config=self.session_config,
            metrics=self.metrics,
            batcher=self.batcher,
        )

    def _warm_up(self, servable: Servable, path: Path) -> None:
        started = time.perf_counter()
        try:
            requests = replay(servable, path, self.warmup_iterations)
        except BaseException:
            servable.close()
            raise
        if requests:
            self.metrics.warmup_latency.observe(1e6 * (time.perf_counter() - started), str(path), "OK")
