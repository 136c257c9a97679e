"""medsynth_tf: published methods that synthesise, translate, extend or judge medical images, as Keras models.

Importing the package is light; TensorFlow is imported when data or a model is first asked for.
"""

from typing import Any

from medsynth_tf.core.registry import list_methods, load_config, method_info
from medsynth_tf.version import __version__

_FROM_API = ("create", "export", "load", "load_data", "open_source")

__all__ = ["__version__", "create", "export", "list_methods", "load", "load_config", "load_data", "method_info", "open_source"]


def __getattr__(name: str) -> Any:
    if name in _FROM_API:
        from medsynth_tf import api

        return getattr(api, name)
    raise AttributeError(f"module 'medsynth_tf' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
