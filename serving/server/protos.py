"""The configuration messages of tensorflow_model_server that the tensorflow-serving-api package leaves out.

Same names, fields and numbers as in session_bundle_config.proto, ssl_config.proto and monitoring_config.proto, in a pool of their
own, so that a package which does bring them is not disturbed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from medsynth_tf.core.errors import ConfigError

Field = descriptor_pb2.FieldDescriptorProto
PACKAGE = "tensorflow.serving"
_FIELDS = {
    "BatchingParameters": (
        (1, "max_batch_size", "Int64Value"),
        (2, "batch_timeout_micros", "Int64Value"),
        (3, "max_enqueued_batches", "Int64Value"),
        (4, "num_batch_threads", "Int64Value"),
        (5, "thread_pool_name", "StringValue"),
        (6, "allowed_batch_sizes", "repeated int64"),
        (7, "pad_variable_length_inputs", "bool"),
        (8, "enable_large_batch_splitting", "BoolValue"),
        (9, "max_execution_batch_size", "Int64Value"),
    ),
    "SSLConfig": (
        (1, "server_key", "string"),
        (2, "server_cert", "string"),
        (3, "custom_ca", "string"),
        (4, "client_verify", "bool"),
    ),
    "PrometheusConfig": ((1, "enable", "bool"), (2, "path", "string")),
    "MonitoringConfig": ((1, "prometheus_config", "PrometheusConfig"),),
}
_SCALARS = {"int64": Field.TYPE_INT64, "string": Field.TYPE_STRING, "bool": Field.TYPE_BOOL}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="medsynth/serving/model_server_files.proto",
        package=PACKAGE,
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, field_name, declared in fields:
            *repeated, kind = declared.split()
            field = message.field.add(name=field_name, number=number)
            field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = Field.TYPE_MESSAGE
                field.type_name = f".{PACKAGE}.{kind}" if kind in _FIELDS else f".google.protobuf.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    factory = message_factory.MessageFactory(pool)
    return {name: factory.GetPrototype(pool.FindMessageTypeByName(f"{PACKAGE}.{name}")) for name in _FIELDS}


_CLASSES = _messages()
BatchingParameters = _CLASSES["BatchingParameters"]
SSLConfig = _CLASSES["SSLConfig"]
MonitoringConfig = _CLASSES["MonitoringConfig"]


def read_text(path: str | Path, message: Any, flag: str) -> Any:
    """Reads the text-format file that `flag` names into `message`, which is returned.

    Raises:
        ConfigError: the file cannot be read, or is not such a message.
    """
    try:
        return text_format.Parse(Path(path).read_text(encoding="utf-8"), message)
    except OSError as error:
        raise ConfigError(f"cannot read --{flag} {path}: {error.strerror}") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        reason = re.sub(r"\s+", " ", str(error))
        raise ConfigError(f"Invalid protobuf file: '{path}': {reason}") from error
