"""The contract of a method: a Keras model that knows its configuration, its data, its stages and its signatures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from medsynth_tf.core.config import MethodConfig
from medsynth_tf.core.errors import DataError
from medsynth_tf.data.schema import RecordRequirements
from medsynth_tf.data.source import Source
from medsynth_tf.methods.averaging import WeightAverage
from medsynth_tf.methods.optimisation import Optimisation
from medsynth_tf.methods.replicas import evenly
from medsynth_tf.methods.stage import Stage

PRECISION_POLICIES = {"none": "float32", "float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


class Method(Optimisation, tf.keras.Model):
    """Base of all methods.

    Subclasses build every variable in their constructor, and define `dataset`, `train_step`, `call`, `signatures` and
    `example_inputs`; `stages` where training is more than one fit.

    Args:
        config: the method's configuration, an instance of `config_class`.
    """

    config_class: ClassVar[type[MethodConfig]]

    def __init__(self, config: MethodConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.config = config
        self.average: WeightAverage | None = None
        # train steps return metrics, which are means over all replicas already; Keras would add them up over workers
        self.distribute_reduction_method = "first"

    # -- configuration ------------------------------------------------------------------------------------------------------
    def get_config(self) -> dict[str, Any]:
        """{"config": the configuration as plain values}."""
        return {"config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Method:
        """The inverse of `get_config`."""
        return cls(cls.config_class.from_dict(config["config"]))

    # -- data ---------------------------------------------------------------------------------------------------------------
    @classmethod
    def dataset(
        cls,
        source: Source,
        config: Any,
        split: str,
        seed: int = 0,
        first_step: int = 0,
        epochs: int | None = 1,
        training: bool | None = None,
    ) -> tf.data.Dataset:
        """Batches of named tensors for this method; among them the inputs of its signature `serving_default`.

        Args:
            source: where records come from.
            config: the method's configuration.
            split: 'train', 'val', 'test' or 'all'.
            seed: of order and augmentation.
            first_step: batches to pass over, without reading them.
            epochs: passes over the split; None for ever. Training data for a number of passes are in another order each time
                they are iterated; the endless stream is always the same.
            training: shuffled, augmented, whole batches only; by default for the split 'train'. Else in order and as they are.
        """
        raise NotImplementedError(f"{cls.__name__} defines no dataset")

    @classmethod
    def record_requirements(cls, config: Any) -> RecordRequirements:
        """What records must have for this method; pipelines validate data against it."""
        raise NotImplementedError(f"{cls.__name__} states no requirements")

    def stages(self, source: Source) -> list[Stage]:
        """Training as a list of stages; by default one fit of the method on its training split, over `training.epochs`."""
        return [self.stage("train", source)]

    def stage(self, name: str, source: Source, callbacks: Sequence[tf.keras.callbacks.Callback] = ()) -> Stage:
        """One fit of the method on the training split, validated on the validation split.

        Raises:
            DataError: the training split holds less than one batch.
        """
        config = self.config
        fractions, batch = config.data.split_fractions, config.training.batch_size
        available = len(source.split("train", fractions, config.seed))
        if available < batch:
            raise DataError(
                f"the training split holds {available} records, less than one batch (training.batch_size = {batch})"
            )
        held_out = len(source.split("val", fractions, config.seed))
        return Stage(
            name=name,
            model=self,
            epochs=config.training.epochs,
            steps_per_epoch=config.training.steps_per_epoch or available // batch,
            batches=lambda first_step: self.dataset(source, config, "train", config.seed, first_step, epochs=None),
            validation=(lambda: self.dataset(source, config, "val", config.seed)) if held_out else None,
            callbacks=callbacks,
        )

    def evaluate(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As Keras's; with several replicas each gets as many examples as the others, see `evenly`."""
        if isinstance(x, tf.data.Dataset):
            x = evenly(x, self.distribute_strategy.num_replicas_in_sync)
        return super().evaluate(x, *args, **kwargs)

    # -- weights ------------------------------------------------------------------------------------------------------------
    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Within the block the model has its averaged weights, if it keeps an average."""
        return self.average.applied() if self.average is not None else contextlib.nullcontext()

    # -- serving ------------------------------------------------------------------------------------------------------------
    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """Named `tf.function`s with an input signature; `serving_default` is the method's main job."""
        raise NotImplementedError(f"{type(self).__name__} defines no signatures")

    def example_inputs(self) -> dict[str, dict[str, np.ndarray]]:
        """One valid small request per signature, for warm-up and smoke tests."""
        raise NotImplementedError(f"{type(self).__name__} defines no example inputs")

    def preview(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Pictures to look at while training, from a validation batch: name → uint8 [B, H, W, 1 or 3], shown side by side."""
        raise NotImplementedError(f"{type(self).__name__} defines no preview")

    # -- saving -------------------------------------------------------------------------------------------------------------
    def save(self, path: str | Path, **_: Any) -> None:
        """Writes configuration, weights, averages and optimiser state to the folder `path`; `medsynth_tf.load` reads it."""
        from medsynth_tf.methods.saving import save_method

        save_method(self, path)


@contextlib.contextmanager
def precision(config: MethodConfig) -> Iterator[None]:
    """Within the block new layers compute in the configuration's precision."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(PRECISION_POLICIES[config.training.mixed_precision])
    try:
        yield
    finally:
        tf.keras.mixed_precision.set_global_policy(before)
