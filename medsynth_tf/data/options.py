"""Options of a source's spec (`?size=128&seed=0`) as validated settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from medsynth_tf.core.settings import Settings

S = TypeVar("S", bound=Settings)


def settings_from_options(kind: type[S], options: Mapping[str, Any], where: str) -> S:
    """`kind` built from options; values that are still strings are read as YAML, so that `128` is a number.

    Raises:
        ConfigError: an option is unknown, of the wrong type or out of range; the message begins with `where`.
    """
    return kind.from_dict({key: yaml.safe_load(v) if isinstance(v, str) else v for key, v in options.items()}, where=where)
