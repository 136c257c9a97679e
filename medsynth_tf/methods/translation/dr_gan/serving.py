"""The served signatures of DR-GAN, and what they refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from medsynth_tf.ops import labels as label_ops

if TYPE_CHECKING:
    from medsynth_tf.methods.translation.dr_gan.model import DRGAN


def to_pixels(image: tf.Tensor) -> tf.Tensor:
    """[-1, 1] float → 0 … 255 uint8, rounded."""
    return tf.cast(tf.round((tf.clip_by_value(tf.cast(image, tf.float32), -1.0, 1.0) + 1.0) * 127.5), tf.uint8)


def takes_grades(model: DRGAN) -> bool:
    """Whether requests say a grade: not if the encoder always decides, nor if no grade changes the image."""
    return model.config.use_agm and model.config.grade_source == "given"


def signatures(model: DRGAN) -> dict[str, Any]:
    """`serving_default` from label maps, `synthesize_planes` from soft masks; see `DRGAN.signatures`."""
    config = model.config
    size, channels, grades = config.image_size, len(config.channels), config.grades
    graded = takes_grades(model)

    def answer(planes: tf.Tensor, grade: tf.Tensor | None, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        made = model.generate(model.condition({"planes": planes}), grade, seed)
        return {
            "image": to_pixels(made["image"]),
            "grade": made["grade"],
            "grade_probabilities": tf.nn.softmax(made["grade_logits"]),
        }

    def checked(
        masks: tf.Tensor, name: str, allowed: tf.Tensor, complaint: str, seed: tf.Tensor, grade: tf.Tensor | None
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """The inputs, which nothing can read before they have passed: kernels may crash on batches that do not fit."""
        batch = tf.shape(masks)[0]
        checks = [
            # convolutions of oneDNN give an empty batch a wrong shape, so it is refused here, in words
            tf.debugging.assert_positive(batch, f"{name}: the batch is empty"),
            tf.debugging.assert_equal(batch, tf.shape(seed)[0], f"{name} and seed differ in batch size"),
            tf.debugging.assert_equal(tf.reduce_all(allowed), True, complaint),
        ]
        if grade is not None:
            known = tf.reduce_all((grade >= -1) & (grade < grades))
            message = f"grade: must be 0 … {grades - 1}, or -1 to leave it to the masks"
            checks += [
                tf.debugging.assert_equal(batch, tf.shape(grade)[0], f"{name} and grade differ in batch size"),
                tf.debugging.assert_equal(known, True, message),
            ]
        with tf.control_dependencies(checks):
            return tf.identity(masks), tf.identity(seed), None if grade is None else tf.identity(grade)

    def from_map(label_map: tf.Tensor, seed: tf.Tensor, grade: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        codes = tf.cast(label_map, tf.int32)
        allowed = (codes < len(config.labels)) | (codes == label_ops.BACKGROUND)
        complaint = f"label_map: label codes must be 0 … {len(config.labels) - 1} or 255 (outside the field of view)"
        label_map, seed, grade = checked(label_map, "label_map", allowed, complaint, seed, grade)
        return answer(model.planes(label_map), grade, seed)

    def from_planes(planes: tf.Tensor, seed: tf.Tensor, grade: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        allowed = (planes >= 0.0) & (planes <= 1.0)  # NaN is neither
        planes, seed, grade = checked(planes, "planes", allowed, "planes: masks must be numbers in [0, 1]", seed, grade)
        return answer(planes, grade, seed)

    maps = tf.TensorSpec([None, size, size], tf.uint8, name="label_map")
    soft = tf.TensorSpec([None, size, size, channels], tf.float32, name="planes")
    others = [tf.TensorSpec([None], tf.int64, name="seed")]
    if graded:
        others.append(tf.TensorSpec([None], tf.int64, name="grade"))
    return {
        "serving_default": tf.function(from_map, input_signature=[maps, *others]),
        "synthesize_planes": tf.function(from_planes, input_signature=[soft, *others]),
    }


def example_inputs(model: DRGAN) -> dict[str, dict[str, np.ndarray]]:
    """A request per signature."""
    size, channels = model.config.image_size, len(model.config.channels)
    others = {"seed": np.zeros([1], np.int64)}
    if takes_grades(model):
        others["grade"] = np.zeros([1], np.int64)
    return {
        "serving_default": {"label_map": np.zeros([1, size, size], np.uint8), **others},
        "synthesize_planes": {"planes": np.zeros([1, size, size, channels], np.float32), **others},
    }
