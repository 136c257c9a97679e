"""DDPM of photograph and masks together (Makinde and Saeed, section 3.2 and 4.2), as one Keras model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.core.seeds import derive_seed
from medsynth_tf.data.joint_images import pairs
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.running_gaussian import RunningGaussian
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.generation.pm_ddpm.config import PMDDPMConfig
from medsynth_tf.methods.joint_images import JointImageMethod
from medsynth_tf.methods.stage import Stage
from medsynth_tf.networks.diffusion_unet import DiffusionUNet
from medsynth_tf.ops import diffusion, random

NO_CLASS = -1


class PMDDPM(JointImageMethod):
    """Photographs with their masks from noise.

    Call it on {"seed": int64 [B]}, with classes also "label": int64 [B], for float32 [B, S, S, C] in [-1, 1]: RGB, then a channel
    a mask.

    Args:
        config: its settings; S is `image_size`, C is `channels`.
    """

    config_class = PMDDPMConfig
    config: PMDDPMConfig

    def __init__(self, config: PMDDPMConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        size, channels = config.image_size, config.channels
        self.schedule = diffusion.make_schedule(
            config.schedule.kind, config.schedule.steps, config.schedule.beta_start, config.schedule.beta_end
        )
        self.network = DiffusionUNet(
            size,
            channels,
            config.network.widths,
            config.network.bottleneck,
            config.network.attention,
            config.network.most_attention_side,
            config.condition.classes,
            layer_seed(config.seed, "network"),
            name="network",
        )
        self.loss_mean = tf.keras.metrics.Mean(name="loss")
        self.data = RunningGaussian(self.shape, name="data")
        inputs = {"x": tf.keras.Input([size, size, channels]), "t": tf.keras.Input([], dtype=tf.int32)}
        if self.conditional:
            inputs["label"] = tf.keras.Input([], dtype=tf.int64)
        self.network(inputs)
        self.built = True
        if config.training.ema_decay is not None:
            self.average = WeightAverage(
                self.network.trainable_variables, config.training.ema_decay, config.optimiser.average_warmup
            )

    @property
    def conditional(self) -> bool:
        """Whether samples are of a class."""
        return self.config.condition.classes > 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(S, S, C) of a sample."""
        return self.config.image_size, self.config.image_size, self.config.channels

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: PMDDPMConfig,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches {"image": uint8 [B, S, S, 3], "label_map": uint8 [B, S, S], "seed": int64 [B]} of records with all masks; with
        classes also "label": int64 [B]."""
        training = split == "train" if training is None else training
        return pairs(source, config, split, seed, first_step, epochs, training, labelled=config.condition.classes > 0)

    @classmethod
    def record_requirements(cls, config: PMDDPMConfig) -> RecordRequirements:
        """8-bit photographs; with more than three channels, label maps of 0 retina, 1 optic disc, 2 atrophy; classes if there are."""
        return cls.pair_requirements(config, config.condition.classes or None)

    # -- optimiser ----------------------------------------------------------------------------------------------------------
    def compile(self, optimizer: tf.keras.optimizers.Optimizer | None = None, **kwargs: Any) -> None:
        """As Keras's, with the paper's AdamW unless another optimiser is given."""
        rates = self.config.optimiser
        optimizer = optimizer or tf.keras.optimizers.AdamW(
            rates.learning_rate,
            rates.weight_decay,
            rates.beta_1,
            rates.beta_2,
            epsilon=1e-8,
            global_clipnorm=self.config.training.clip_norm,
        )
        kwargs.setdefault("jit_compile", self.config.training.jit_compile)
        super().compile(optimizer=self.with_loss_scale(optimizer), **kwargs)
        self.optimizer.build(self.network.trainable_variables)

    @property
    def metrics(self) -> list[tf.keras.metrics.Metric]:
        """The running mean of the loss."""
        return [self.loss_mean]

    # -- training -----------------------------------------------------------------------------------------------------------
    def stages(self, source: Source) -> list[Stage]:
        """One; moments of other data, which a loaded model brings along, are forgotten."""
        self.data.reset()
        return super().stages(source)

    def drawn_steps(self, seeds: tf.Tensor) -> tf.Tensor:
        """Steps int32 [B], uniform over 1 … T (or T - 1, see `schedule.train_on_last`), one per seed."""
        most = self.schedule.steps - (not self.config.schedule.train_on_last)
        return 1 + tf.cast(tf.floor(random.uniform(seeds, (), "step") * most), tf.int32)

    def kept_labels(self, batch: dict[str, tf.Tensor]) -> tf.Tensor | None:
        """Labels int64 [B], of which a share is dropped to "no class"; None without classes."""
        if not self.conditional:
            return None
        dropped = random.uniform(batch["seed"], (), "dropped label") < self.config.condition.drop
        return tf.where(dropped, tf.constant(NO_CLASS, tf.int64), batch["label"])

    def objective(self, real: tf.Tensor, seeds: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """mean ‖ε - ε_θ(x_t, t)‖² over all channels of x_0 float32 [B, S, S, C] alike, float32 scalar (Ho et al., eq. 14); of v in
        the place of ε with `network.predicts: velocity`."""
        t = self.drawn_steps(seeds)
        noise = random.normal(seeds, self.shape, "noise")
        target = noise if self.predicts_noise else diffusion.velocity(self.schedule, real, t, noise)
        predicted = self.predicted(diffusion.q_sample(self.schedule, real, t, noise), t, labels)
        return tf.reduce_mean((target - predicted) ** 2)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """One step; returns the running mean of the loss."""
        real = self.joined(batch)
        with tf.GradientTape() as tape:
            loss = self.objective(real, batch["seed"], self.kept_labels(batch))
            objective = self.replica_loss(loss, self.optimizer)
        variables = self.network.trainable_variables
        self.apply(self.optimizer, tape.gradient(objective, variables), variables)
        if self.average is not None:
            self.average.update()
        self.data.observe(real, batch["seed"])
        self.loss_mean.update_state(loss)
        return {"loss": self.loss_mean.result()}

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The loss without learning, with all labels."""
        labels = batch["label"] if self.conditional else None
        self.loss_mean.update_state(self.objective(self.joined(batch), batch["seed"], labels))
        return {"loss": self.loss_mean.result()}

    # -- sampling -----------------------------------------------------------------------------------------------------------
    @property
    def predicts_noise(self) -> bool:
        """Whether the network's output is ε; else it is v."""
        return self.config.network.predicts == "noise"

    def predicted(self, x: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """The network's output for x [B, S, S, C] at steps t int32 [B]; labels int64 [B], -1 or None for no class."""
        inputs = {"x": x, "t": t}
        if self.conditional:
            inputs["label"] = tf.fill(tf.shape(t), tf.constant(NO_CLASS, tf.int64)) if labels is None else labels
        return self.network(inputs)

    def noise(self, x: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """ε by the network, whatever it predicts; arguments as for `predicted`."""
        predicted = self.predicted(x, t, labels)
        return predicted if self.predicts_noise else diffusion.noise_of_velocity(self.schedule, x, t, predicted)

    def guided_noise(self, x: tf.Tensor, t: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """ε_u + s (ε_c - ε_u) (Ho and Salimans, arXiv:2207.12598), both by one pass; the plain ε without classes."""
        scale = self.config.condition.guidance
        if not self.conditional or labels is None or scale == 0.0:
            return self.noise(x, t, None)
        if scale == 1.0:
            return self.noise(x, t, labels)
        none = tf.fill(tf.shape(labels), tf.constant(NO_CLASS, tf.int64))
        both = self.noise(tf.concat([x, x], 0), tf.concat([t, t], 0), tf.concat([none, labels], 0))
        without, conditional = tf.split(both, 2)
        return without + scale * (conditional - without)

    def times(self, few: bool = False) -> np.ndarray:
        """The steps that sampling visits, from T down to 0; `few`: those of the short way."""
        sampling = self.config.sampling
        return diffusion.timetable(self.schedule.steps, sampling.few_steps if few else sampling.steps or self.schedule.steps)

    def start(self, seeds: tf.Tensor) -> tf.Tensor:
        """x_T as `sampling.start` says, float32 [B, S, S, C], one stream per seed.

        Where the schedule ends before the image is gone, noise around 0 is not what the network has seen at step T: all of its pixels
        are nearer to grey, and what it paints to make up for them is wrong for the image as a whole. "gaussian" is
        √ᾱ_T·N(μ, Σ) + √(1 - ᾱ_T)·N(0, I), μ and Σ those of the training data.
        """
        noise = random.normal(seeds, self.shape, "start")
        if self.config.sampling.start == "noise":
            return noise
        left = self.schedule.alpha_bar[-1]
        return math.sqrt(left) * self.data(seeds) + math.sqrt(1.0 - left) * noise

    @tf.function(autograph=False, reduce_retracing=True)
    def advance(
        self, x: tf.Tensor, seeds: tf.Tensor, labels: tf.Tensor | None, first: tf.Tensor, last: tf.Tensor, few: bool = False
    ) -> tf.Tensor:
        """x at position `first` of `times(few)` → x at position `last`; one loop in the graph.

        Args:
            x: float32 [B, S, S, C].
            seeds: int64 [B]; fresh noise depends on them and the step alone.
            labels: int64 [B], or None.
            first, last: int32 scalars.
            few: by the few DDIM steps of `sampling.few_steps`, whatever `sampling.sampler` is.
        """
        sampling = self.config.sampling
        return diffusion.reverse(
            self.schedule,
            self.times(few),
            lambda x, t: self.guided_noise(x, tf.fill([tf.shape(x)[0]], t), labels),
            lambda t: random.normal_at(seeds, self.shape, "fresh noise", t),
            x,
            first,
            last,
            sampler="ddim" if few else sampling.sampler,
            eta=sampling.eta,
            clip_start=sampling.clip_start,
        )

    def sample(self, seeds: tf.Tensor, labels: tf.Tensor | None = None, few: bool = False) -> tf.Tensor:
        """Samples float32 [B, S, S, C] clipped to [-1, 1]; arguments as for `advance`."""
        last = tf.constant(len(self.times(few)) - 1)
        return tf.clip_by_value(self.advance(self.start(seeds), seeds, labels, tf.constant(0), last, few), -1.0, 1.0)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"seed": int64 [B], perhaps "label": int64 [B]} → samples float32 [B, S, S, C] in [-1, 1]."""
        return self.sample(inputs["seed"], inputs.get("label"))

    # -- serving and pictures -----------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Any]:
        """`serving_default`: seed int64 [B], with classes also label int64 [B] → image uint8 [B, S, S, 3] and, with masks, mask
        uint8 [B, S, S] (0 retina, 1 optic disc, 2 atrophy), empty_mask bool [B] (a mask has no pixel). `few_steps`: the same by
        the few DDIM steps of `sampling.few_steps`."""
        classes = self.config.condition.classes

        def checked(seed: tf.Tensor) -> tf.Tensor:
            # convolutions of oneDNN give an empty batch a wrong shape, so it is refused here, in words and before anything runs
            with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(seed)[0], "seed: the batch is empty")]):
                return tf.identity(seed)

        def signature(few: bool) -> Any:
            def synthesize(seed: tf.Tensor) -> dict[str, tf.Tensor]:
                return self.pixels(self.sample(checked(seed), None, few))

            def synthesize_class(seed: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
                seed = checked(seed)
                tf.debugging.assert_equal(tf.shape(seed)[0], tf.shape(label)[0], "seed and label differ in batch size")
                known = tf.reduce_all((label >= 0) & (label < classes))
                with tf.control_dependencies([tf.debugging.assert_equal(known, True, f"label: classes are 0 … {classes - 1}")]):
                    label = tf.identity(label)
                return self.pixels(self.sample(seed, label, few))

            specs = [tf.TensorSpec([None], tf.int64, name=name) for name in ("seed", "label")]
            if self.conditional:
                return tf.function(synthesize_class, input_signature=specs)
            return tf.function(synthesize, input_signature=specs[:1])

        return {"serving_default": signature(few=False), "few_steps": signature(few=True)}

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One request per signature."""
        names = ("seed", "label") if self.conditional else ("seed",)
        return {key: {name: np.zeros([1], np.int64) for name in names} for key in ("serving_default", "few_steps")}

    def fixed_grid(self) -> tf.Tensor:
        """What the averaged weights make now of the same `fixed_samples` noises, by the few steps; float32 [N, S, S, C]. With
        classes, these take turns."""
        count, classes = self.config.fixed_samples, self.config.condition.classes
        seeds = [derive_seed(self.config.seed, "fixed samples", index) for index in range(count)]
        labels = tf.range(count, dtype=tf.int64) % classes if classes else None
        with self.averaged_weights():
            return self.sample(tf.constant(seeds, tf.int64), labels, few=True)

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The fixed samples, photographs left and masks right; the batch is not looked at."""
        return self.picture_columns(self.fixed_grid(), rows=min(8, self.config.fixed_samples))
