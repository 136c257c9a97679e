"""SavedModels and TFLite files that take a moment to make, TF1 and TF2: half plus two in all its forms."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

CLASSES = (b"small", b"large")


def save_tf1(path: Path, half: float = 0.5) -> Path:
    """A TF1 SavedModel with ref variables and a table: y = half * x + 2, by predict, regress, classify and in several signatures."""
    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default(), v1.Session(graph=graph) as session:
        factor = v1.get_variable("factor", initializer=half, use_resource=False)
        offset = v1.get_variable("offset", initializer=2.0, use_resource=False)
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = v1.parse_example(serialized, {"x": v1.FixedLenFeature([1], tf.float32)})
        parsed = tf.identity(features["x"], name="x")
        y = tf.add(parsed * factor, offset, name="y")
        names = tf.lookup.KeyValueTensorInitializer(tf.constant([0, 1], tf.int64), tf.constant(CLASSES))
        table = v1.lookup.StaticHashTable(names, default_value="?")
        classes = tf.tile(table.lookup(tf.constant([[0, 1]], tf.int64)), [tf.shape(y)[0], 1])
        scores = tf.concat([1.0 - y / 100.0, y / 100.0], axis=1)
        signatures = {
            "serving_default": _definition({"x": parsed}, {"y": y}, tf.saved_model.PREDICT_METHOD_NAME),
            "regress_x_to_y": _definition({"inputs": serialized}, {"outputs": y}, tf.saved_model.REGRESS_METHOD_NAME),
            "classify_x_to_y": _definition(
                {"inputs": serialized}, {"scores": scores, "classes": classes}, tf.saved_model.CLASSIFY_METHOD_NAME
            ),
            "scores_only": _definition({"inputs": serialized}, {"scores": scores}, tf.saved_model.CLASSIFY_METHOD_NAME),
            "other_input": _definition(
                {"inputs": v1.placeholder(tf.string, [None])}, {"outputs": y}, tf.saved_model.REGRESS_METHOD_NAME
            ),
        }
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING], signature_def_map=signatures, main_op=v1.tables_initializer()
        )
        builder.save()
    return path


def _definition(inputs, outputs, method):
    build = tf.compat.v1.saved_model.utils.build_tensor_info
    return tf.compat.v1.saved_model.signature_def_utils.build_signature_def(
        {name: build(tensor) for name, tensor in inputs.items()},
        {name: build(tensor) for name, tensor in outputs.items()},
        method,
    )


class HalfPlusTwo(tf.Module):
    """The same as a TF2 module: predict on tensors; classify and regress on tf.Examples; all types of JSON."""

    def __init__(self, half: float = 0.5):
        super().__init__()
        self.half = tf.Variable(half)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
    def predict(self, x):
        return {"y": self.half * x + 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def regress(self, inputs):
        x = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32)})["x"]
        return {"outputs": self.half * x + 2.0}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="inputs")])
    def classify(self, inputs):
        scores = self.regress(inputs)["outputs"] / 100.0
        return {"classes": tf.fill(tf.shape(scores), "large"), "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None], tf.float32, name="numbers"),
            tf.TensorSpec([None], tf.string, name="text"),
            tf.TensorSpec([None], tf.bool, name="flag"),
            tf.TensorSpec([None], tf.int64, name="count"),
        ]
    )
    def mixed(self, numbers, text, flag, count):
        return {"sums": tf.reduce_sum(numbers, 1), "text": text, "raw_bytes": text, "flag": ~flag, "count": count + 1}


def save_tf2(path: Path, half: float = 0.5) -> Path:
    """A TF2 SavedModel."""
    module = HalfPlusTwo(half)
    signatures = {
        "serving_default": module.predict,
        "regress": module.regress,
        "classify": module.classify,
        "mixed": module.mixed,
    }
    tf.saved_model.save(module, str(path), signatures=signatures)
    return path


def save_tflite(path: Path, half: float = 0.5, signatures: bool = True) -> Path:
    """`model.tflite` in the folder `path`; without signatures: from a Keras-less concrete function."""
    module = HalfPlusTwo(half)
    concrete = module.predict.get_concrete_function()
    if signatures:
        saved = path.parent / f".saved-{path.name}"
        tf.saved_model.save(module, str(saved), signatures={"serving_default": concrete})
        converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    else:
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    path.mkdir(parents=True)
    (path / "model.tflite").write_bytes(converter.convert())
    return path


def example(**features: float) -> tf.train.Example:
    """A tf.Example of single floats."""
    return tf.train.Example(
        features=tf.train.Features(
            feature={name: tf.train.Feature(float_list=tf.train.FloatList(value=[value])) for name, value in features.items()}
        )
    )
