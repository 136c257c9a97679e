"""A network that learns the clusters of its own features, round by round."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.errors import DataError
from medsynth_tf.core.files import write_text
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import RecordKey, Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.methods.base import Method
from medsynth_tf.methods.curation.deepmcat import clusters, sampler, views
from medsynth_tf.methods.curation.deepmcat.config import DeepMCATConfig
from medsynth_tf.methods.curation.deepmcat.data import ImageSet, in_order, mean_and_deviation, shuffled
from medsynth_tf.methods.curation.deepmcat.export import UNNAMED, write_clusters
from medsynth_tf.methods.curation.deepmcat.serving import signatures_of
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks.deep_clustering import DENSE_DEVIATION, ClusteringNetwork, dense
from medsynth_tf.ops.clustering import squared_distances

Batch = dict[str, tf.Tensor]
_OF_LABELS = ("purity", "nmi_labels")


class DeepMCAT(Method):
    """Sorts images into clusters without labels.

    Each round clusters features of all training images, then trains the network to tell the clusters apart. `cluster` does the first
    half; `stages` has a stage for each round, and a last clustering with the final weights, which `assign` and the signatures go by.

    Call it on {"image": float32 [B, H, W, C]} for features of unit length, float32 [B, D].

    Args:
        config: its settings.
    """

    config_class = DeepMCATConfig
    config: DeepMCATConfig

    def __init__(self, config: DeepMCATConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        own, count = config.network, config.clustering.clusters
        self.network = ClusteringNetwork(
            own.stages,
            own.pool_size,
            own.hidden,
            own.dropout,
            own.dense_deviation,
            seed=layer_seed(config.seed, "network"),
            name="network",
        )
        self.network(tf.keras.Input([config.input.size, config.input.size, config.planes]))
        self.top = dense(count, config.seed, "top", dtype=tf.float32)
        self.top.build([None, own.hidden[-1]])
        size = config.feature_size
        self.centroids = _kept("centroids", tf.zeros([count, size]))
        self.assignments = _kept("assignments", tf.zeros([0], tf.int32), [None])
        self.sizes = _kept("sizes", tf.zeros([count], tf.int32))
        self.cluster_labels = _kept("cluster_labels", tf.fill([count], UNNAMED))
        self.clustered_round = _kept("clustered_round", tf.constant(-1, tf.int64))
        self.round_values = {
            name: _kept(name, tf.constant(0.0)) for name in ("objective", "nmi_previous", "nonempty", *_OF_LABELS)
        }
        if config.clustering.feature_reduction == "pca":
            self.offset = _kept("offset", tf.zeros([own.hidden[-1]]))
            self.projection = _kept("projection", tf.zeros([own.hidden[-1], size]))
        if config.input.normalisation == "global":
            self.intensity = _kept("intensity", tf.constant([0.0, 1.0]))  # mean and deviation
        self.labelled = False
        self._trained_round: dict[str, Any] = {}
        self._round_loss: float | None = None
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.distance_mean = tf.keras.metrics.Mean(name="distance")
        self.built = True

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: DeepMCATConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": float32 [B, L, L, C], "position" of the record in its split, "seed": int64 [B]}.

        Images are middle squares of side `input.loaded_size`, in their own units; views are cut inside the train step.
        """
        training = split == "train" if training is None else training
        images = ImageSet(source, config, split)
        choose = shuffled(len(images.keys), seed) if training else in_order(len(images.keys))
        anew = training and epochs is not None
        return images.batches(choose, epochs, first_step * config.training.batch_size, training, anew)

    @classmethod
    def record_requirements(cls, config: DeepMCATConfig) -> RecordRequirements:
        """Images of one or three channels and any type. Labels, where there are some, are for judging."""
        return RecordRequirements(image_dtypes=("uint8", "int16", "uint16", "int32", "float32"))

    # -- rounds -------------------------------------------------------------------------------------------------------------
    def stages(self, source: Source) -> list[Stage]:
        """A stage for each round; the first `begin`s by clustering features as they are, the last `end`s by clustering the final ones.

        Rounds are counted anew, as the model may have learnt other data; a checkpoint that is restored after this brings its count.

        Raises:
            DataError: the training split is empty.
        """
        images = ImageSet(source, self.config, "train")
        self.labelled = images.labels is not None
        self.clustered_round.assign(-1)
        rounds, count = self.config.rounds, len(images.keys)
        held_out = bool(source.split("val", self.config.data.split_fractions, self.config.seed))
        stages = []
        for number in range(rounds):
            length = count * self.config.epochs_of_round(number)
            steps = math.ceil(length / self.config.training.batch_size)
            last = number == rounds - 1
            stages.append(
                Stage(
                    name=f"round-{number:04d}",
                    model=self,
                    epochs=1,
                    steps_per_epoch=min(steps, self.config.training.steps_per_epoch or steps),
                    batches=functools.partial(self._round_batches, images, number, length),
                    validation=(lambda: self.dataset(source, self.config, "val", self.config.seed)) if held_out else None,
                    begin=functools.partial(self._begin_round, images, number),
                    callbacks=[tf.keras.callbacks.LambdaCallback(on_epoch_end=self._note_loss)],
                    end=functools.partial(self._end, images, rounds) if last else None,
                    report=functools.partial(self._report, images.keys, last),
                )
            )
        return stages

    def cluster(self, source: Source) -> clusters.RoundLog:
        """Clusters the training split's features by the weights as they are, for training or for `assign`; the top layer begins anew.

        Raises:
            DataError: the split holds fewer images than there are clusters.
        """
        images = ImageSet(source, self.config, "train")
        number = int(self.clustered_round.numpy()) + 1
        log = self.cluster_images(images, number)
        self.reset_top_layer(number)
        return log

    def _begin_round(self, images: ImageSet, number: int) -> None:
        """Clusters and begins a new top layer, unless a checkpoint has brought this round's back."""
        self._round_loss = None
        if int(self.clustered_round.numpy()) < number:
            self.cluster_images(images, number)
            self.reset_top_layer(number)

    def _note_loss(self, epoch: int, logs: dict[str, Any]) -> None:
        """Keeps the round's mean loss: validation resets the metric, and reading it is a meeting of all workers."""
        self._round_loss = float(logs["loss"])

    def _end(self, images: ImageSet, rounds: int) -> None:
        """Clusters by the final weights."""
        self._trained_round = self._figures()
        self.cluster_images(images, rounds)

    def reset_top_layer(self, number: int) -> None:
        """Weights N(0, 0.01²) and biases 0, by (seed, round); its optimiser, plain gradient descent, has no state."""
        seed = derive_seed(self.config.seed, "top layer", number) % 2**31
        kernel = tf.random.stateless_normal(self.top.kernel.shape, [seed, number], stddev=DENSE_DEVIATION)
        self.top.kernel.assign(kernel)
        self.top.bias.assign(tf.zeros_like(self.top.bias))

    def cluster_images(self, images: ImageSet, number: int) -> clusters.RoundLog:
        """Extracts, normalises and clusters the features of all images, and keeps what round `number` needs."""
        own = self.config.clustering
        if self.config.input.normalisation == "global" and number == 0:
            self.intensity.assign(mean_and_deviation(images))
        features = self.extract(images, number)
        if own.feature_reduction == "pca":
            offset, projection = clusters.whitening(features, own.components)
            self.offset.assign(offset)
            self.projection.assign(projection)
            features = (features - offset) @ projection
        found = clusters.find_clusters(
            clusters.l2_normalised(features), own, derive_seed(self.config.seed, "clustering", number) % 2**32
        )
        log = clusters.round_log(number, found, self.assignments.numpy(), own.clusters, images.labels)
        self.assignments.assign(found.assignments)
        self.centroids.assign(found.centroids)
        self.sizes.assign(log.sizes)
        self.clustered_round.assign(number)
        self.cluster_labels.assign(tf.fill([own.clusters], UNNAMED))  # names belonged to other clusters
        for name, variable in self.round_values.items():
            value = getattr(log, name)
            variable.assign(0.0 if value is None else float(value))
        return log

    def extract(self, images: ImageSet, number: int) -> np.ndarray:
        """Features of all images in order, float32 [N, D], of a random view each (or the middle one) that is new in each round.

        Memory: these features and a few batches of images.
        """
        count = len(images.keys)
        features = np.empty([count, self.config.network.hidden[-1]], np.float32)
        start = 0
        salt = tf.constant(derive_seed(self.config.seed, "clustered views", number) % 2**62, tf.int64)
        for batch in images.batches(in_order(count), 1, 0, whole=False):
            found = self._features_of(batch["image"], tf.bitwise.bitwise_xor(batch["seed"], salt)).numpy()
            features[start : start + len(found)] = found
            start += len(found)
        return features

    @functools.cached_property
    def _features_of(self) -> Any:
        """A graph function, traced once: images and seeds → features in inference mode, float32 [B, D]."""

        def features(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            return tf.cast(self.network(self.views(image, seed if self.config.clustering.augment else None)), tf.float32)

        size = self.config.input.loaded_size
        image = tf.TensorSpec([None, size, size, self.config.input.channels])
        return tf.function(features, input_signature=[image, tf.TensorSpec([None], tf.int64)])

    def _round_batches(self, images: ImageSet, number: int, length: int, first_step: int) -> tf.data.Dataset:
        """The images of a round, drawn by cluster, from a step on.

        The last batch may be smaller; where replicas share it, it is filled up with the round's first images: none gets nothing.
        """
        rng = numpy_generator(self.config.seed, "round", number)
        if self.config.clustering.sampler == "uniform":
            order = sampler.uniform_over_clusters(self.assignments.numpy(), length, rng)
        else:
            order = sampler.natural(len(images.keys), length, rng)
        batch, shared = self.config.training.batch_size, self.distribute_strategy.num_replicas_in_sync > 1
        drawn = tf.constant(order)
        batches = images.batches(
            lambda index: drawn[index % length],
            None if shared else length // len(images.keys),
            first_step * batch,
            whole=shared,
        )
        if shared:
            batches = batches.take(math.ceil(length / batch) - first_step)
        salt = tf.constant(derive_seed(self.config.seed, "trained views", number) % 2**62, tf.int64)
        return batches.map(lambda one: {**one, "seed": tf.bitwise.bitwise_xor(one["seed"], salt)})

    def _figures(self) -> dict[str, Any]:
        """Of the last clustering, for `clusters/round-NNNN.json`."""
        values = {name: float(v.numpy()) for name, v in self.round_values.items() if self.labelled or name not in _OF_LABELS}
        return {"round": int(self.clustered_round.numpy()), **values, "sizes": self.sizes.numpy().tolist()}

    def _report(self, keys: list[RecordKey], last: bool, folder: Path) -> None:
        """`clusters/round-NNNN.json`; after the last round also the final clustering's, and `clusters/clusters.csv`."""
        trained = self._trained_round if last else self._figures()
        found = [{**trained, "loss": self._round_loss}]
        if last:
            found.append(self._figures())
            write_clusters(folder / "clusters" / "clusters.csv", [key.id for key in keys], self.export_clusters())
        for figures in found:
            write_text(folder / "clusters" / f"round-{figures['round']:04d}.json", json.dumps(figures, indent=2))

    # -- clusters -----------------------------------------------------------------------------------------------------------
    def export_clusters(self) -> dict[str, np.ndarray]:
        """{"assignments": int32 [N] of the training split, "centroids": float32 [K, D], "sizes", "labels": int32 [K]}."""
        return {
            "assignments": self.assignments.numpy(),
            "centroids": self.centroids.numpy(),
            "sizes": self.sizes.numpy(),
            "labels": self.cluster_labels.numpy(),
        }

    def name_clusters(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Names each cluster by the commonest label of a few labelled examples in it; the others are unnamed, -1.

        Args:
            images: [N, H, W, C].
            labels: integers [N], not below 0.

        Returns:
            int32 [K]; `assign` and the signatures give them from now on.

        Raises:
            DataError: no example, or a label below 0.
        """
        labels = np.asarray(labels)
        if len(labels) == 0 or len(labels) != len(images) or labels.min() < 0:
            raise DataError(
                f"naming clusters: expected as many labels (0 or above) as images, got {len(labels)} and {len(images)}"
            )
        found = self.assign(tf.constant(images))["cluster"].numpy()
        self.cluster_labels.assign(clusters.majority_labels(found, labels, self.config.clustering.clusters))
        return self.cluster_labels.numpy()

    # -- forward ------------------------------------------------------------------------------------------------------------
    def views(self, images: tf.Tensor, seeds: tf.Tensor | None) -> tf.Tensor:
        """Loaded images float32 [B, L, L, C] → what the network sees, [B, S, S, planes]: of random views, or of middle ones."""
        own = self.config.input
        if seeds is None:
            found = views.middle_views(images, own.size)
        else:
            found = views.random_views(images, seeds, own.size, self.config.augmentation, self.config.data)
        if own.normalisation == "per_image":
            found = views.z_scores(found)
        else:
            found = (found - self.intensity[0]) / tf.maximum(self.intensity[1], 1e-12)
        return views.sobel(found) if own.filter == "sobel" else found

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """{"image": float32 [B, H, W, C]} → features of the middle view, as they are clustered, float32 [B, D] of length 1."""
        own = self.config.input
        images = views.loaded(inputs["image"], own.loaded_size, own.channels)
        features = tf.cast(self.network(self.views(images, None)), tf.float32)
        if self.config.clustering.feature_reduction == "pca":
            features = (features - self.offset) @ self.projection
        return tf.math.l2_normalize(features, -1, epsilon=1e-24)

    def assign(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Images [B, H, W, C] → "cluster" int32 [B], its squared "distance" float32 [B], its "label" int32 [B], -1 without."""
        distances = squared_distances(self({"image": images}), self.centroids)
        # a centroid without images, where the images were fewer kinds than clusters, is nobody's
        distances = tf.where(self.sizes > 0, distances, float("inf"))
        cluster = tf.argmin(distances, -1, output_type=tf.int32)
        return {
            "cluster": cluster,
            "distance": tf.reduce_min(distances, -1),
            "label": tf.gather(self.cluster_labels, cluster),
        }

    # -- steps --------------------------------------------------------------------------------------------------------------
    def compile(
        self,
        optimizer: tf.keras.optimizers.Optimizer | None = None,
        top_optimizer: tf.keras.optimizers.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """As Keras's; by default gradient descent with momentum for the network and without for the top layer."""
        own, clip = self.config.optimiser, self.config.training.clip_norm
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        optimizer = optimizer or tf.keras.optimizers.SGD(own.learning_rate, own.momentum, global_clipnorm=clip)
        super().compile(optimizer=self.with_loss_scale(optimizer), **kwargs)
        self.top_optimizer = top_optimizer or tf.keras.optimizers.SGD(own.learning_rate, global_clipnorm=clip)
        self.top_optimizer = self.with_loss_scale(self.top_optimizer)
        self.optimizer.build(self.network.trainable_variables)
        self.top_optimizer.build(self.top.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The mean loss; in validation the mean distance to the nearest centroid."""
        return [self.loss_mean, self.distance_mean]

    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """One step of the network and the top layer on images whose clusters a round has found."""
        known = tf.debugging.assert_less(
            batch["position"],
            tf.size(self.assignments, tf.int64),
            "images that have no cluster: call cluster(source) on this data first, or train by stages",
        )
        with tf.control_dependencies([known]):
            cluster = tf.gather(self.assignments, batch["position"])
        seen = self.views(batch["image"], batch["seed"])
        trunk, top = self.network.trainable_variables, self.top.trainable_variables
        with tf.GradientTape() as trunk_tape:
            features = self.network(seen, training=True, seeds=batch["seed"])
            trunk_decay = self.replica_loss(self._decay(trunk), self.optimizer)
        with tf.GradientTape() as top_tape:
            top_tape.watch(features)
            loss = cross_entropy(self.top(tf.nn.relu(features)), cluster)
            objective = self.replica_loss(loss + self._decay(top), self.optimizer)
        reached, *top_gradients = top_tape.gradient(objective, [features, *top])
        trunk_gradients = trunk_tape.gradient([features, trunk_decay], trunk, [reached, tf.ones([])])
        if isinstance(self.optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
            top_gradients = self.optimizer.get_unscaled_gradients(top_gradients)
        self.top_optimizer.apply_gradients(zip(top_gradients, top))
        self.apply(self.optimizer, trunk_gradients, trunk)
        self.loss_mean.update_state(loss)
        shown = [name for name in self.round_values if self.labelled or name not in _OF_LABELS]
        return {"loss": self.loss_mean.result(), **{name: tf.identity(self.round_values[name]) for name in shown}}

    def _decay(self, variables: list[tf.Variable]) -> tf.Tensor:
        """½ wd Σ w²: its gradient is SGD's coupled weight decay, wd · w."""
        return self.config.optimiser.weight_decay * tf.add_n([tf.nn.l2_loss(v) for v in variables])

    def test_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Mean squared distance of held-out images to their nearest centroid."""
        self.distance_mean.update_state(self.assign(batch["image"])["distance"])
        return {"distance": self.distance_mean.result()}

    # -- serving ------------------------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """`serving_default` and `categorize`: image → cluster, distance, label. `embed`: image → embedding. See `signatures_of`."""
        return signatures_of(self)

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """A slope of grey, for each signature."""
        side = self.config.input.loaded_size
        image = np.broadcast_to(
            np.linspace(0, 1, side, dtype=np.float32)[:, None, None], [side, side, self.config.input.channels]
        )
        return {name: {"image": image[np.newaxis].copy()} for name in ("serving_default", "categorize", "embed")}

    def preview(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Middles of images, and a random view of each."""
        own = self.config
        images = batch["image"]
        pictures = {
            "image": views.middle_views(images, own.input.size),
            "view": views.random_views(images, batch["seed"], own.input.size, own.augmentation, own.data),
        }
        return {name: _for_eyes(picture) for name, picture in pictures.items()}


def _kept(name: str, value: tf.Tensor, shape: list[int | None] | None = None) -> tf.Variable:
    """A variable that is saved and that no optimiser touches."""
    return tf.Variable(
        value,
        trainable=False,
        name=name,
        shape=shape,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _for_eyes(images: tf.Tensor) -> tf.Tensor:
    """Each from its smallest to its largest value, uint8 [B, H, W, 1 or 3]."""
    low, high = (reduce(images, [1, 2, 3], keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    return tf.saturate_cast(tf.round(255.0 * tf.math.divide_no_nan(images - low, high - low)), tf.uint8)
