"""What a us_style model answers over gRPC."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from medsynth_tf.data.transforms import from_unit_range
from medsynth_tf.methods.translation.us_style.config import USStyleConfig

Answer = dict[str, tf.Tensor]


def signatures(model: Any) -> dict[str, Callable[..., Answer]]:
    """Images are uint8 [B, H, W, 1]; `content`'s sides are multiples of 2^(scales - 1), styles may have any other size.

    `serving_default`: content, style, seed int64 [B] → image, as all but `code`. `code`: style → code_1 … code_n float32, of each
    scale μ. `decode`: content and these. `interpolate`: content, style, other_style, share float32 [B], that of the first style.
    Of the variational method: `prior`: content, seed, coherent bool [B] (one draw a channel; else one a pixel). `shift`: content,
    style, amount float32 [B] of deviations, scales bool [B, n], which of them, finest first. `constant`: content, value float32 [B],
    scales.
    """
    scales = model.config.scales
    images = {name: tf.TensorSpec([None, None, None, 1], tf.uint8, name=name) for name in ("content", "style", "other_style")}
    numbers = {name: tf.TensorSpec([None], tf.float32, name=name) for name in ("share", "amount", "value")}
    codes = [
        tf.TensorSpec([None, None, None, width], tf.float32, name=f"code_{i}")
        for i, width in enumerate(model.config.network.filters, start=1)
    ]
    seeds = tf.TensorSpec([None], tf.int64, name="seed")
    coherences = tf.TensorSpec([None], tf.bool, name="coherent")
    chosen = tf.TensorSpec([None, scales], tf.bool, name="scales")
    checked = _Checks(model)

    def transfer(content: tf.Tensor, style: tf.Tensor, seed: tf.Tensor) -> Answer:
        content, style, seed = checked(content=content, style=style, others={"seed": seed})
        return _image(model.transfer(content, style, seed))

    def code(style: tf.Tensor) -> Answer:
        (style,) = checked(style=style)
        return {f"code_{i}": each for i, each in enumerate(model.style_code(style), start=1)}

    def decode(content: tf.Tensor, *latents: tf.Tensor) -> Answer:
        content, *found = checked(content=content, others={spec.name: z for spec, z in zip(codes, latents)})
        return _image(model.decode(content, found))

    def interpolate(content: tf.Tensor, style: tf.Tensor, other_style: tf.Tensor, share: tf.Tensor) -> Answer:
        same = tf.debugging.assert_equal(tf.shape(style), tf.shape(other_style), "style and other_style differ in size")
        with tf.control_dependencies([same]):
            content, style, other_style, share = checked(
                content=content, style=style, other_style=other_style, others={"share": share}
            )
        return _image(model.interpolate(content, style, other_style, share))

    def prior(content: tf.Tensor, seed: tf.Tensor, coherent: tf.Tensor) -> Answer:
        content, seed, coherent = checked(content=content, others={"seed": seed, "coherent": coherent})
        return _image(model.from_prior(content, seed, coherent))

    def shift(content: tf.Tensor, style: tf.Tensor, amount: tf.Tensor, scales: tf.Tensor) -> Answer:
        content, style, amount, scales = checked(content=content, style=style, others={"amount": amount, "scales": scales})
        return _image(model.shift(content, style, amount, scales))

    def constant(content: tf.Tensor, value: tf.Tensor, scales: tf.Tensor) -> Answer:
        content, value, scales = checked(content=content, others={"value": value, "scales": scales})
        return _image(model.constant(content, value, scales))

    content, style = images["content"], images["style"]
    answers: dict[str, tuple[Callable[..., Answer], list[tf.TensorSpec]]] = {
        "serving_default": (transfer, [content, style, seeds]),
        "code": (code, [style]),
        "interpolate": (interpolate, [content, style, images["other_style"], numbers["share"]]),
    }
    if model.config.style.variational:
        answers |= {
            "prior": (prior, [content, seeds, coherences]),
            "shift": (shift, [content, style, numbers["amount"], chosen]),
            "constant": (constant, [content, numbers["value"], chosen]),
        }
    served = {name: tf.function(function, input_signature=inputs) for name, (function, inputs) in answers.items()}
    return served | {"decode": _with_names(decode, [content, *codes])}


def _with_names(function: Callable[..., Answer], inputs: Sequence[tf.TensorSpec]) -> Any:
    """A `tf.function` of any number of arguments that takes them by the names of their specs."""

    def named(*arguments: tf.Tensor) -> Answer:
        return function(*arguments)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    named.__signature__ = inspect.Signature([inspect.Parameter(spec.name, kind) for spec in inputs])  # type: ignore[attr-defined]
    return tf.function(named, input_signature=inputs, autograph=False)


class _Checks:
    """Turns images into float32 in [0, 1] once they, and what comes with them, are found right; nothing runs before."""

    def __init__(self, model: Any):
        self.unit, self.divisor = model.unit, model.config.divisor

    def __call__(
        self,
        content: tf.Tensor | None = None,
        others: Mapping[str, tf.Tensor] | None = None,
        **styles: tf.Tensor,
    ) -> list[tf.Tensor]:
        """The content, if there is one, the styles and the others, in this order."""
        images = ({"content": content} if content is not None else {}) | styles
        (first, image), *_ = images.items()
        count = tf.shape(image)[0]
        checks = [tf.debugging.assert_positive(count, f"{first}: the batch is empty")]
        for name, other in {**images, **(others or {})}.items():
            message = f"{first} and {name} differ in batch size"
            checks.append(tf.debugging.assert_equal(tf.shape(other)[0], count, message))
            if other.dtype == tf.float32:
                finite = tf.reduce_all(tf.math.is_finite(other))
                checks.append(tf.debugging.assert_equal(finite, True, f"{name}: values must be finite"))
            if other.shape.rank == 4:
                smallest = tf.reduce_min(tf.shape(other)[1:3])
                least = self.divisor if name in images else 1
                checks.append(tf.debugging.assert_greater_equal(smallest, least, f"{name}: sides must be at least {least}"))
        if content is not None:
            rest = tf.reduce_max(tf.shape(content)[1:3] % self.divisor)
            checks.append(tf.debugging.assert_equal(rest, 0, f"content: sides must be multiples of {self.divisor}"))
        with tf.control_dependencies(checks):
            return [self.unit(tf.identity(each)) for each in images.values()] + [
                tf.identity(each) for each in (others or {}).values()
            ]


def _image(made: tf.Tensor) -> Answer:
    return {"image": from_unit_range(2.0 * made - 1.0)}


def example_inputs(config: USStyleConfig) -> dict[str, dict[str, np.ndarray]]:
    """One request per signature: a dark disc in grey, in the style of stripes."""
    side = max(4 * config.divisor, 16)
    axis = np.arange(side) - side // 2
    disc = axis[:, None] ** 2 + axis**2 < (side // 4) ** 2
    content: dict[str, np.ndarray] = {"content": np.where(disc, 30, 150).astype(np.uint8)[None, ..., None]}
    stripes = np.tile((100 + 50 * (np.arange(side) % 4 < 2)).astype(np.uint8), (1, side, 1))[..., None]
    style = {"style": stripes}
    seed = {"seed": np.zeros([1], np.int64)}
    codes = {
        f"code_{i + 1}": np.zeros([1, side // 2**i, side // 2**i, width], np.float32)
        for i, width in enumerate(config.network.filters)
    }
    other: dict[str, np.ndarray] = {"other_style": stripes.transpose(0, 2, 1, 3), "share": np.full([1], 0.5, np.float32)}
    requests: dict[str, dict[str, np.ndarray]] = {
        "serving_default": {**content, **style, **seed},
        "code": style,
        "decode": {**content, **codes},
        "interpolate": {**content, **style, **other},
    }
    if config.style.variational:
        chosen: dict[str, np.ndarray] = {"scales": np.ones([1, config.scales], bool)}
        requests |= {
            "prior": {**content, **seed, "coherent": np.ones([1], bool)},
            "shift": {**content, **style, **chosen, "amount": np.full([1], 0.5, np.float32)},
            "constant": {**content, **chosen, "value": np.zeros([1], np.float32)},
        }
    return requests
