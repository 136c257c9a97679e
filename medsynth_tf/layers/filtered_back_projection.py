"""FBPAug as a Keras layer: CT slices as if they had been reconstructed with another convolution kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from medsynth_tf.ops import random
from medsynth_tf.ops.convolution_kernels import (
    AIR_HU,
    HIGHEST_HU,
    Backend,
    reconstruct,
    to_attenuation,
    to_hounsfield,
)

Mode = Literal["both", "smooth", "sharpen"]


class KernelParameters(NamedTuple):
    """What `FilteredBackProjection` does with each slice: whether it changes it (bool [B]), and the kernel's a and b (float32 [B])."""

    applied: tf.Tensor
    a: tf.Tensor
    b: tf.Tensor


@tf.keras.utils.register_keras_serializable("medsynth_tf")
class FilteredBackProjection(tf.keras.layers.Layer):
    """Reconstructs CT slices anew with kernels drawn for each slice; geometry stays, so label maps still fit.

    Source: Saparov et al., arXiv:2107.08543. It has no weights and no state: what it draws depends on the seeds alone, so it may be
    called in a Keras model, in `tf.data` with parallel calls, and in an exported signature.

    Args:
        probability: that a slice is changed at all.
        mode: 'smooth', 'sharpen', or 'both': either with probability one half.
        smooth_a, smooth_b, sharpen_a, sharpen_b: ranges that a and b are uniform in.
        angles: n, of the sinogram; None: `angles_per_pixel` times the slice's side.
        angles_per_pixel: 1 is all that the slice holds; the authors train with one half.
        circle, dc_exact, backend: as for `ops.convolution_kernels.reconstruct`; 'fourier2d' has no angles, and is much faster.

    Raises:
        ValueError: a range is not one, or a setting is not allowed.
    """

    def __init__(
        self,
        probability: float = 0.5,
        mode: Mode = "both",
        smooth_a: Sequence[float] = (-1.0, 0.0),
        smooth_b: Sequence[float] = (0.1, 1.0),
        sharpen_a: Sequence[float] = (10.0, 40.0),
        sharpen_b: Sequence[float] = (1.0, 4.0),
        angles: int | None = None,
        angles_per_pixel: float = 1.0,
        circle: bool = True,
        dc_exact: bool = True,
        backend: Backend = "fourier2d",
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", tf.float32)  # Hounsfield units in 16 bits would lose the detail that this is about
        super().__init__(**kwargs)
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability = {probability}: must be in [0, 1]")
        if mode not in ("both", "smooth", "sharpen") or backend not in ("sinogram", "fourier2d"):
            raise ValueError(
                f"mode = {mode!r}, backend = {backend!r}: expected both, smooth or sharpen, and sinogram or fourier2d"
            )
        if (angles is not None and angles < 1) or angles_per_pixel <= 0:
            raise ValueError(f"angles = {angles}, angles_per_pixel = {angles_per_pixel}: must be at least 1, and above 0")
        self.probability, self.mode = probability, mode
        self.smooth_a, self.smooth_b = _range("smooth_a", smooth_a, -1.0), _range("smooth_b", smooth_b, 0.0)
        self.sharpen_a, self.sharpen_b = _range("sharpen_a", sharpen_a, -1.0), _range("sharpen_b", sharpen_b, 0.0)
        self.angles, self.angles_per_pixel = angles, angles_per_pixel
        self.circle, self.dc_exact, self.backend = circle, dc_exact, backend

    def parameters(self, seeds: tf.Tensor) -> KernelParameters:
        """What the seeds int64 [B] draw for their slices."""
        drawn = random.uniform(seeds, (4,), "filtered back-projection")
        applied, coin, place_a, place_b = tf.unstack(drawn, axis=-1)
        smooth = {"smooth": tf.ones_like(coin, tf.bool), "sharpen": tf.zeros_like(coin, tf.bool), "both": coin < 0.5}[self.mode]
        a = tf.where(smooth, _within(self.smooth_a, place_a), _within(self.sharpen_a, place_a))
        b = tf.where(smooth, _within(self.smooth_b, place_b), _within(self.sharpen_b, place_b))
        return KernelParameters(applied < self.probability, a, b)

    def call(self, images: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        """Draws for each slice whether and how it changes.

        Args:
            images: HU, [B, H, W, 1], [B, H, W] or one slice [H, W]; integers are cast.
            seeds: int64 [B], or a scalar for one slice; the same seed does the same to a slice, in whatever batch it is.

        Returns:
            float32 of the images' shape. Slices that are not changed come back as they are; of changed ones see `with_kernels`.
        """
        images = tf.cast(images, tf.float32)
        if images.shape.rank == 2:
            return self.call(images[tf.newaxis], tf.reshape(seeds, [1]))[0]
        drawn = self.parameters(seeds)
        chosen = tf.where(drawn.applied)

        def changed() -> tf.Tensor:
            some = self.with_kernels(*(tf.gather_nd(value, chosen) for value in (images, drawn.a, drawn.b)))
            return tf.tensor_scatter_nd_update(images, chosen, some)

        return tf.cond(tf.size(chosen) > 0, changed, lambda: images)

    def with_kernels(self, images: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        """All slices, with kernels of the given a ≥ -1 and b > 0, float32 [B] or scalars for one slice; images as for `call`.

        Slices that are not square are padded with air for it. With `circle`, all outside the circle of the (padded) square becomes
        -1000.

        Returns:
            float32 of the images' shape, in [-1000, 3000].
        """
        images = tf.cast(images, tf.float32)
        if images.shape.rank == 2:
            return self.with_kernels(images[tf.newaxis], tf.reshape(a, [1]), tf.reshape(b, [1]))[0]
        plane = images[..., 0] if images.shape.rank == 4 else images
        size = tf.shape(plane)
        side = tf.maximum(size[1], size[2])
        top, left = (side - size[1]) // 2, (side - size[2]) // 2
        padding = [[0, 0], [top, side - size[1] - top], [left, side - size[2] - left]]
        square = to_attenuation(tf.pad(plane, padding, constant_values=AIR_HU))
        if self.angles is not None:
            angles = tf.constant(self.angles)
        else:
            angles = tf.maximum(tf.cast(tf.round(self.angles_per_pixel * tf.cast(side, tf.float32)), tf.int32), 1)
        made = reconstruct(square, a, b, angles, circle=self.circle, dc_exact=self.dc_exact, backend=self.backend)
        made = tf.clip_by_value(to_hounsfield(made), AIR_HU, HIGHEST_HU)
        made = made[:, top : top + size[1], left : left + size[2]]
        return tf.ensure_shape(made[..., tf.newaxis] if images.shape.rank == 4 else made, images.shape)

    def compute_output_shape(self, input_shape: tf.TensorShape) -> tf.TensorShape:
        """The images'."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments."""
        own = ["probability", "mode", "smooth_a", "smooth_b", "sharpen_a", "sharpen_b"]
        own += ["angles", "angles_per_pixel", "circle", "dc_exact", "backend"]
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _range(name: str, values: Sequence[float], lowest: float) -> tuple[float, float]:
    low, high = (float(value) for value in values)
    if not lowest <= low <= high or (lowest == 0.0 and low == 0.0):
        bound = "above 0" if lowest == 0.0 else f"at least {lowest:g}"
        raise ValueError(f"{name} = {tuple(values)}: expected (low, high), low {bound} and not above high")
    return low, high


def _within(bounds: tuple[float, float], place: tf.Tensor) -> tf.Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * place
