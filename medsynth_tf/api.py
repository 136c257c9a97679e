"""What a user calls: methods, configurations, data, saving and exporting, under the names of the package's front page."""

from __future__ import annotations

from typing import Any

from medsynth_tf.core import registry
from medsynth_tf.core.config import MethodConfig
from medsynth_tf.data.open import open_source
from medsynth_tf.data.source import Source
from medsynth_tf.methods.saving import create, load
from medsynth_tf.training.export import export

__all__ = ["create", "export", "load", "load_data", "open_source"]


def load_data(slug: str, config: MethodConfig, source: str | Source) -> tuple[Any, Any]:
    """Training batches (shuffled anew each pass, augmented) and validation batches of a method.

    Args:
        slug: the method.
        config: its configuration; says how to split by patient, and the batch size.
        source: a specification like `folder:PATH`, or an open source.

    Returns:
        Two `tf.data.Dataset`s of named tensors; each pass over the first is another order.
    """
    opened = open_source(source) if isinstance(source, str) else source
    model_class = registry.method_info(slug).model_class()
    return (
        model_class.dataset(opened, config, "train", config.seed),
        model_class.dataset(opened, config, "val", config.seed),
    )
