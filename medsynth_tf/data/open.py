"""`open_source("kind:path?key=value&key=value")`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from urllib.parse import parse_qsl

from medsynth_tf.core.errors import ConfigError, UnknownNameError
from medsynth_tf.core.names import look_up, suggestion
from medsynth_tf.data.source import Source


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """A source specification, taken apart."""

    kind: str
    path: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Takes `kind:path?key=value&…` apart; values may be percent-encoded.

        Raises:
            ConfigError: no kind or path, or an option without a value.
        """
        kind, colon, rest = text.partition(":")
        path, _, query = rest.partition("?")
        if not colon or not kind or not path:
            example = f"folder:{text}" if text and not colon else "folder:PATH"
            raise ConfigError(f"source '{text}': expected kind:path, for example '{example}'; kinds: {', '.join(_KINDS)}")
        try:
            options = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError as error:
            raise ConfigError(f"source '{text}': after '?' expected key=value&key=value") from error
        if len(dict(options)) < len(options):
            raise ConfigError(f"source '{text}': an option stands twice")
        return cls(kind, path, dict(options))


def open_source(text: str) -> Source:
    """Opens a source.

    Args:
        text: `folder:PATH?layout=…&manifest=…&patient=…&masks=…`, `tfrecord:PATH`, `phantom:NAME?…`, `skimage:NAME?…`.

    Raises:
        ConfigError: the text is not of this form, or an option's value is not allowed.
        UnknownNameError: no such kind or option. DataError: there is nothing to open at the path.
    """
    spec = SourceSpec.parse(text)
    return look_up(_KINDS, spec.kind, "kind of source")(spec)


def _folder(spec: SourceSpec) -> Source:
    from medsynth_tf.data.folder_source import FolderSource

    return _constructed(FolderSource, spec)


def _tfrecord(spec: SourceSpec) -> Source:
    from medsynth_tf.data.tfrecord_source import TFRecordSource

    return _constructed(TFRecordSource, spec)


def _phantom(spec: SourceSpec) -> Source:
    from medsynth_tf.data.phantoms import open_phantom

    return open_phantom(spec.path, spec.options)


def _skimage(spec: SourceSpec) -> Source:
    from medsynth_tf.data.skimage_source import SkimageSource

    return SkimageSource(spec.path, **spec.options)


def _constructed(kind: Callable[..., Source], spec: SourceSpec) -> Source:
    """`kind(path, **options)`; options annotated `int` or `float` are converted."""
    parameters = dict(list(inspect.signature(kind).parameters.items())[1:])
    arguments: dict[str, str | int | float] = {}
    for name, value in spec.options.items():
        if name not in parameters:
            raise UnknownNameError(f"unknown option '{name}' of {spec.kind} sources" + suggestion(name, parameters))
        convert = {"int": int, "float": float}.get(str(parameters[name].annotation).split(" ")[0])
        try:
            arguments[name] = convert(value) if convert else value
        except ValueError as error:
            raise ConfigError(f"{spec.kind} source: {name} = '{value}': expected {parameters[name].annotation}") from error
    return kind(spec.path, **arguments)


_KINDS: dict[str, Callable[[SourceSpec], Source]] = {
    "folder": _folder,
    "tfrecord": _tfrecord,
    "phantom": _phantom,
    "skimage": _skimage,
}
