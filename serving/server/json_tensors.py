"""JSON of the REST predict API to tensors and back; row and columnar. Messages are TensorFlow Serving's."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from serving.server.status import StatusError

ROW, COLUMN = "row", "column"
MAX_QUOTED = 200  # characters of a request that a message repeats
_JSON_TYPES = {type(None): "Null", bool: "Bool", int: "Number", float: "Number", str: "String", list: "Array", dict: "Object"}
_CPP_NAMES = {"float16": "half", "float32": "float", "float64": "double"}


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body.

    Raises:
        StatusError: INVALID_ARGUMENT: empty, no JSON, or no object.
    """
    if not body:
        raise _invalid("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except RecursionError:
        raise _invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise _invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise _invalid(f"JSON Value: {_quoted(document)} Is not object")
    return document


def signature_name(document: Mapping[str, Any]) -> str:
    """Which signature a request asks for; "": the default.

    Raises:
        StatusError: INVALID_ARGUMENT: not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _invalid(f"JSON Value: {_quoted(document)} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def predict_inputs(
    document: Mapping[str, Any], signature_inputs: Mapping[str, TensorInfo]
) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a predict request by input name, and the form (ROW or COLUMN) in which to answer.

    Raises:
        StatusError: INVALID_ARGUMENT: the document does not fit the signature.
    """
    if "instances" in document and "inputs" in document:
        raise _invalid(
            f"JSON Value: {_quoted(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
        )
    dtypes = {name: tf.as_dtype(info.dtype) for name, info in signature_inputs.items()}
    if "instances" in document:
        columns = _columns_of_rows(document, document["instances"], set(dtypes))
        form = ROW
    elif "inputs" in document:
        columns = _columns(document["inputs"], set(dtypes))
        form = COLUMN
    else:
        raise _invalid("Missing 'inputs' or 'instances' key")
    return {name: _array(value, dtypes[name]) for name, value in columns.items()}, form


def predict_answer(outputs: Mapping[str, np.ndarray], form: str) -> bytes:
    """The JSON of a predict response, `predictions` or `outputs`.

    Raises:
        StatusError: INVALID_ARGUMENT: outputs that have no common first axis cannot be answered in rows.
    """
    if form == COLUMN:
        values: Any = {name: _plain(name, array) for name, array in sorted(outputs.items())}
        return dump({"outputs": values if len(values) > 1 else next(iter(values.values()))})
    size = -1
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise _invalid(f"Tensor name: {name} has no shape information")
        if size not in (-1, len(array)):
            raise _invalid(f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {size}")
        size = len(array)
    columns = {name: _plain(name, array) for name, array in sorted(outputs.items())}
    if len(columns) == 1:
        return dump({"predictions": next(iter(columns.values()))})
    return dump({"predictions": [dict(zip(columns, row)) for row in zip(*columns.values())]})


def shortest(array: np.ndarray) -> np.ndarray:
    """float64 whose decimal text is the shortest that is still that float16 or float32: 0.1, not 0.10000000149."""
    return array.astype(np.float64) if array.dtype == np.float64 else array.astype("U32").astype(np.float64)


def dump(document: Any) -> bytes:
    """As bytes; NaN and the infinities as such, text that is not UTF-8 as it was."""
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogateescape")


def decode_base64(value: Mapping[str, Any]) -> bytes:
    """The bytes of a {"b64": …} object.

    Raises:
        StatusError: INVALID_ARGUMENT.
    """
    if not is_base64(value):
        raise _invalid(f"JSON Value: {_quoted(value)} not formatted correctly for base64 data")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid("Unable to base64 decode") from error


def is_base64(value: Any) -> bool:
    """Whether that is a {"b64": …} object."""
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _columns_of_rows(document: Mapping[str, Any], rows: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(rows, list):
        raise _invalid(f"JSON Value: {_quoted(document)} Excepting 'instances' to be an list/array")
    if not rows:
        raise _invalid(f"JSON Value: {_quoted(document)} No values in 'instances' array")
    named = isinstance(rows[0], dict) and not is_base64(rows[0])
    if not named and len(names) > 1:
        raise _invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map"
        )
    for index, row in enumerate(rows):
        if named != (isinstance(row, dict) and not is_base64(row)):
            kinds = ("object", "list") if named else ("value/list", "object")
            raise _invalid(f"Expecting {kinds[0]} but got {kinds[1]} at item {index} of input list")
        if named and set(row) != names:
            raise _invalid(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_quoted(row)} "
                f"keys must be equal to: {','.join(sorted(names))}"
            )
    return {name: [row[name] for row in rows] for name in names} if named else {next(iter(names)): rows}


def _columns(value: Any, names: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict) or is_base64(value):
        if len(names) > 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map"
            )
        return {next(iter(names)): value}
    for name in sorted(names):
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: value[name] for name in names}


def _array(value: Any, dtype: tf.DType) -> np.ndarray:
    """A dense array of a nest of lists, level by level; its shape is that of the first elements."""
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        for item in level:
            if not isinstance(item, list):
                raise _invalid(
                    f"JSON Value: {_quoted(item)} found at incorrect level: {len(shape) + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape) + _depth(level[0])}"
                )
            if len(item) != size:
                raise _invalid(f"Encountered list at unexpected size: {len(item)} at level: {len(shape)} expected size: {size}")
        shape.append(size)
        level = list(itertools.chain.from_iterable(level))
    for item in level:
        if isinstance(item, list):
            raise _invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _leaves(level, dtype).reshape(shape)


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list) and value:
        value, depth = value[0], depth + 1
    return depth


def _leaves(leaves: list[Any], dtype: tf.DType) -> np.ndarray:
    if dtype == tf.string:
        array = np.empty(len(leaves), object)
        array[:] = [_text(leaf) for leaf in leaves]
        return array
    if dtype == tf.bool:
        allowed: tuple[type, ...] = (bool,)
    elif dtype.is_integer and not dtype.is_quantized:
        allowed = (int,)
    elif dtype in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
        allowed = (int, float)
    else:
        raise StatusError(StatusCode.UNIMPLEMENTED, f"Conversion of JSON values to type: {_name(dtype)}")
    for kind in set(map(type, leaves)).difference(allowed):
        raise _type_error(next(leaf for leaf in leaves if type(leaf) is kind), dtype)
    if dtype.is_floating:
        _check_lossless(leaves, dtype)
    elif dtype.is_integer:
        for leaf in (min(leaves, default=0), max(leaves, default=0)):
            if not dtype.min <= leaf <= dtype.max:
                raise _type_error(leaf, dtype)
    return np.array(leaves, dtype.as_numpy_dtype)


def _check_lossless(leaves: Iterable[Any], dtype: tf.DType) -> None:
    largest_whole = 2.0 ** {tf.float64: 53, tf.float32: 24, tf.float16: 11, tf.bfloat16: 8}[dtype] - 1
    for leaf in leaves:
        limit = largest_whole if isinstance(leaf, int) else dtype.max
        if abs(leaf) > limit and leaf not in (float("inf"), float("-inf")):
            raise _invalid(f"Cannot convert JSON value: {_quoted(leaf)} to {_name(dtype)} without loss of precision.")


def _text(leaf: Any) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode("utf-8", "surrogatepass")
    if isinstance(leaf, dict):
        return decode_base64(leaf)
    raise _type_error(leaf, tf.string)


def _plain(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        encode = _base64 if name.endswith("_bytes") else _decoded
        return _mapped(encode, array.tolist())
    if tf.as_dtype(array.dtype).is_floating:
        return shortest(array).tolist()
    if array.dtype.kind not in "biu":
        raise _invalid(f"Failed to write JSON value for tensor type: {_name(tf.as_dtype(array.dtype))}")
    return array.tolist()


def _mapped(function: Any, value: Any) -> Any:
    return [_mapped(function, item) for item in value] if isinstance(value, list) else function(value)


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode()}


def _decoded(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


def _type_error(value: Any, dtype: tf.DType) -> StatusError:
    kind = str(value) if isinstance(value, bool) else _JSON_TYPES[type(value)]
    return _invalid(f"JSON Value: {_quoted(value)} Type: {kind} is not of expected type: {_name(dtype)}")


def _name(dtype: tf.DType) -> str:
    return _CPP_NAMES.get(dtype.name, dtype.name)


def _quoted(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= MAX_QUOTED else text[:MAX_QUOTED] + "..."


def _invalid(message: str) -> StatusError:
    return StatusError(StatusCode.INVALID_ARGUMENT, message)
