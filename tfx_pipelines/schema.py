"""The curated schema of records, from what a method demands of them."""

from __future__ import annotations

from tensorflow_metadata.proto.v0 import schema_pb2

from medsynth_tf.data.schema import RecordRequirements

BYTES, INT, FLOAT = schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT

# pixels are not summarised: their shapes, types and label values are features of their own
SUMMARISED = (
    "id",
    "patient_id",
    "modality",
    "split",
    "label",
    "spacing",
    "box_labels",
    "image/shape",
    "image/channels",
    "image/dtype",
    "mask/shape",
    "mask/dtype",
    "mask/values",
)


def make_schema(requirements: RecordRequirements) -> schema_pb2.Schema:
    """A TFMD schema under which ExampleValidator reports: a missing mask, an image of the wrong rank, channels or type, a label or a
    mask code outside its domain, a record without id or patient.

    Args:
        requirements: of the method.
    """
    schema = schema_pb2.Schema()
    _feature(schema, "id", BYTES, required=True)
    _feature(schema, "patient_id", BYTES, required=True)
    _feature(schema, "split", BYTES, required=True, words=("train", "val", "test"))
    _feature(schema, "modality", BYTES)
    _feature(schema, "image/shape", INT, required=True, count=requirements.image_rank, minimum=1)
    channels = requirements.image_channels
    _feature(schema, "image/channels", INT, required=True, minimum=min(channels), maximum=max(channels))
    _feature(schema, "image/dtype", BYTES, required=True, words=requirements.image_dtypes)
    masked = "mask" in requirements.names
    _feature(schema, "mask/shape", INT, required=masked, count=requirements.image_rank - 1, minimum=1)
    _feature(schema, "mask/dtype", BYTES, required=masked, words=("uint8", "uint16"))
    # the outside code 255 is not among mask/values, so that their domain is an interval; a mask may be all outside
    _feature(schema, "mask/values", INT, minimum=0, maximum=requirements.mask_codes, any_count=True)
    top = None if requirements.labels is None else requirements.labels - 1
    _feature(schema, "label", INT, required="label" in requirements.names, minimum=0, maximum=top)
    _feature(schema, "spacing", FLOAT, required="spacing" in requirements.names, count=requirements.image_rank - 1)
    _feature(schema, "box_labels", INT, required="box_labels" in requirements.names, any_count=True, minimum=0)
    return schema


def _feature(
    schema: schema_pb2.Schema,
    name: str,
    kind: int,
    *,
    required: bool = False,
    count: int = 1,
    any_count: bool = False,
    minimum: int | None = None,
    maximum: int | None = None,
    words: tuple[str, ...] = (),
) -> None:
    feature = schema.feature.add(name=name, type=kind)
    if required:
        feature.presence.min_fraction = 1.0
        feature.presence.min_count = 1
    if any_count:
        feature.value_count.min = 0
    else:
        feature.value_count.min = feature.value_count.max = count
    if kind == INT and (minimum is not None or maximum is not None):
        feature.int_domain.SetInParent()
        if minimum is not None:
            feature.int_domain.min = minimum
        if maximum is not None:
            feature.int_domain.max = maximum
    if words:
        feature.string_domain.value.extend(words)
