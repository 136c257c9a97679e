"""NumPy arrays in and out of TensorProto, with as few copies as the protobuf library allows."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

# A few bytes of a request can declare a huge tensor of one repeated value; more than a message could carry is refused.
MAX_DECLARED_BYTES = 2**31


def fill_proto(proto: tensor_pb2.TensorProto, array: np.ndarray) -> None:
    """Writes `array` into the empty `proto` (one inside a request or response, to spare a copy); numbers as raw bytes.

    Raises:
        TypeError: the dtype has no TensorFlow equivalent. ValueError: 2 GiB or more, protobuf's limit.
    """
    if array.dtype.kind not in "biufc":  # strings, and bfloat16 (kind V), which TensorFlow knows how to encode
        proto.CopyFrom(tf.make_tensor_proto(array))
        return
    if array.nbytes >= MAX_DECLARED_BYTES:
        raise ValueError(f"{array.dtype} {list(array.shape)} is {array.nbytes} bytes: a message holds less than 2 GiB")
    proto.dtype = tf.as_dtype(array.dtype).as_datatype_enum
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    proto.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def from_proto(proto: tensor_pb2.TensorProto, writable: bool = False) -> np.ndarray:
    """The array in `proto`; a read-only view of its bytes where that is possible, unless `writable`.

    Raises:
        ValueError: the proto is not a whole tensor: type not of data, shape unknown, or bytes that do not fit the shape.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
        numpy_dtype = np.dtype(dtype.as_numpy_dtype)
    except (TypeError, KeyError) as error:
        raise ValueError(f"unknown dtype {proto.dtype}") from error
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape) or dtype in (tf.resource, tf.variant):
        raise ValueError(f"{dtype.name} of shape {shape} is not a whole tensor")
    declared = math.prod(shape) * numpy_dtype.itemsize
    content = proto.tensor_content
    if content and dtype != tf.string:
        if len(content) != declared:
            raise ValueError(f"{dtype.name} {shape} is {declared} bytes, got {len(content)}")
        array = np.frombuffer(content, numpy_dtype).reshape(shape)
        return array.copy() if writable else array
    if declared > MAX_DECLARED_BYTES:
        raise ValueError(f"{dtype.name} {shape} is {declared} bytes, more than a message can carry")
    try:  # the typed fields have rules of their own (a last value that repeats, …): TensorFlow's parser knows them
        return np.asarray(tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy(), numpy_dtype)  # a scalar is no array
    except tf.errors.OpError as error:
        raise ValueError(error.message.splitlines()[0]) from error
