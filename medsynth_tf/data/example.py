"""`tf.train.Example` messages without TensorFlow, so that ingest workers start in a fraction of a second.

The message classes are built from a description of the published schema, in a pool of their own; their bytes are those of
TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Value = bytes | Sequence[bytes] | Sequence[int] | Sequence[float]

_LISTS = {"bytes_list": ("BytesList", 12), "float_list": ("FloatList", 2), "int64_list": ("Int64List", 3)}


def _example_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    for kind, scalar in _LISTS.values():
        file.message_type.add(name=kind).field.add(name="value", number=1, type=scalar, label=3)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (field, (kind, _)) in enumerate(_LISTS.items(), start=1):
        feature.field.add(name=field, number=number, type=11, label=1, type_name=f".tensorflow.{kind}", oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=11, label=1, type_name=".tensorflow.Feature")
    features.field.add(name="feature", number=1, type=11, label=3, type_name=".tensorflow.Features.FeatureEntry")
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=11, label=1, type_name=".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.MessageFactory(pool).GetPrototype(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_class()


def to_example(
    features: Mapping[str, tuple[str, Sequence[Any]]], large: Mapping[str, bytes | memoryview] | None = None
) -> bytes:
    """`{name: ("bytes_list" | "float_list" | "int64_list", values)}` → a serialized Example, the same bytes every time.

    Args:
        features: the lists by name, none of them in `large`.
        large: names with one long value each, of bytes, that is copied once: protobuf would do so three times.
    """
    example = _Example()
    for name, (kind, values) in features.items():
        getattr(example.features.feature[name], kind).value.extend(values)
    parts = [example.features.SerializeToString(deterministic=True)]
    for name, value in (large or {}).items():
        parts += [_entry_start(name.encode(), len(value)), value]
    return b"".join([_start(1, sum(map(len, parts))), *parts])


def _entry_start(name: bytes, length: int) -> bytes:
    """What comes before the `length` bytes of the only value in an entry of the map of features."""
    value = _start(1, length)  # BytesList.value
    values = _start(1, len(value) + length) + value  # Feature.bytes_list
    feature = _start(2, len(values) + length) + values  # FeatureEntry.value
    key = _start(1, len(name)) + name
    return _start(1, len(key) + len(feature) + length) + key + feature  # Features.feature


def _start(field: int, length: int) -> bytes:
    """Number and wire type of a field of bytes or of a message, and its length as a varint."""
    start = bytearray([field << 3 | 2])
    while length > 0x7F:
        start.append(length & 0x7F | 0x80)
        length >>= 7
    start.append(length)
    return bytes(start)


def from_example(serialized: bytes) -> dict[str, Sequence[Any]]:
    """A serialized Example → its lists by name.

    Raises:
        ValueError: the bytes are no Example.
    """
    try:
        example = _Example.FromString(serialized)
    except message.DecodeError as error:
        raise ValueError(f"not a tf.Example: {error}") from error
    lists = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind is not None:
            lists[name] = getattr(feature, kind).value
    return lists
