"""YOLOv5's network: a CSP backbone with spatial pyramid pooling, features passed down and up again, and a head on each level.

After Bochkovskiy et al. (arXiv:2004.10934), Wang et al. (CSPNet, arXiv:1911.11929), Liu et al. (PANet, arXiv:1803.01534); widths and
depths are those of YOLOv5 5.0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.layers.normalization import BatchNormalization
from medsynth_tf.ops.resize import upsample_nearest

_BASE_WIDTHS, _BASE_DEPTHS = (64, 128, 256, 512, 1024), (3, 9, 9, 3)
_FIRST_STRIDE = 8
_POOLS = (5, 9, 13)


class ConvolutionBlock(tf.keras.layers.Layer):
    """Conv without bias, padded symmetrically, BatchNorm (ε 1e-3, momentum 0.97), SiLU.

    Args:
        filters: width.
        kernel: side, odd.
        stride: 1 or 2.
        seed: of the kernel.
    """

    def __init__(self, filters: int, kernel: int = 1, stride: int = 1, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = kernel // 2
        # PyTorch's default for convolutions
        initializer = tf.keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=layer_seed(seed, "convolution"))
        self.convolution = tf.keras.layers.Conv2D(
            filters, kernel, stride, "valid", use_bias=False, kernel_initializer=initializer, name="convolution"
        )
        self.norm = BatchNormalization(0.97, 1e-3, name="norm")

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H / stride, W / stride, filters]."""
        p = self.padding
        x = tf.pad(x, [[0, 0], [p, p], [p, p], [0, 0]]) if p else x
        return tf.nn.silu(self.norm(self.convolution(x), training=training))


class CrossStagePartial(tf.keras.layers.Layer):
    """C3: one half through n bottlenecks [1×1, 3×3, added to their input if `shortcut`], the other past them, then a 1×1 of both.

    Args:
        filters: width of the result; the halves have half of it.
        depth: n.
        shortcut: add inputs.
        seed: of the kernels.
    """

    def __init__(self, filters: int, depth: int, shortcut: bool, seed: int, **kwargs: Any):
        super().__init__(**kwargs)

        def block(name: str, width: int, kernel: int = 1) -> ConvolutionBlock:
            return ConvolutionBlock(width, kernel, seed=layer_seed(seed, name), name=name)

        half = filters // 2
        self.through, self.past, self.join = block("through", half), block("past", half), block("join", filters)
        self.bottlenecks = [(block(f"reduce_{i}", half), block(f"spread_{i}", half, 3)) for i in range(depth)]
        self.shortcut = shortcut

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, H, W, C] → [B, H, W, filters]."""
        y = self.through(x, training=training)
        for reduce, spread in self.bottlenecks:
            z = spread(reduce(y, training=training), training=training)
            y = y + z if self.shortcut else z
        return self.join(tf.concat([y, self.past(x, training=training)], -1), training=training)


class YOLO(tf.keras.Model):
    """Focus, backbone, neck and heads.

    Args:
        outputs: numbers for each anchor: 4 of the box, 1 of the object, one a class.
        anchors: of each level.
        width, depth: multipliers; 0.50 and 0.33 are YOLOv5s.
        levels: output maps, of strides 8, 16, … (3).
        seed: of all weights.
    """

    def __init__(
        self,
        outputs: int,
        anchors: int = 3,
        width: float = 0.5,
        depth: float = 0.33,
        levels: int = 3,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        widths = [math.ceil(w * width / 8) * 8 for w in _BASE_WIDTHS[: levels + 2]]
        depths = [max(round(d * depth), 1) for d in _BASE_DEPTHS[: levels + 1]]
        once = max(round(3 * depth), 1)
        self.outputs_per_anchor, self.anchors = outputs, anchors

        def convolution(name: str, filters: int, kernel: int = 1, stride: int = 1) -> ConvolutionBlock:
            return ConvolutionBlock(filters, kernel, stride, layer_seed(seed, name), name=name)

        def partial(name: str, filters: int, count: int, shortcut: bool) -> CrossStagePartial:
            return CrossStagePartial(filters, count, shortcut, layer_seed(seed, name), name=name)

        self.focus = convolution("focus", widths[0], 3)
        self.stages: list[tuple[ConvolutionBlock, CrossStagePartial]] = []
        for i, (filters, count) in enumerate(zip(widths[1:], depths)):
            last = i == levels
            block = partial(f"stage_{i}", filters, once if last else count, not last)
            self.stages.append((convolution(f"down_{i}", filters, 3, 2), block))
        self.pool_reduce = convolution("pool_reduce", widths[-1] // 2)
        self.pool_join = convolution("pool_join", widths[-1])
        maps = widths[2:]  # of strides 8, 16, …
        self.narrow = [convolution(f"narrow_{i}", maps[i]) for i in range(levels - 1)]
        self.top_down = [partial(f"top_down_{i}", maps[i], once, False) for i in range(levels - 1)]
        self.shrink = [convolution(f"shrink_{i}", maps[i], 3, 2) for i in range(levels - 1)]
        self.bottom_up = [partial(f"bottom_up_{i}", maps[i + 1], once, False) for i in range(levels - 1)]
        self.heads = [
            tf.keras.layers.Conv2D(
                anchors * outputs,
                1,
                kernel_initializer=tf.keras.initializers.VarianceScaling(
                    1 / 3, "fan_in", "uniform", seed=layer_seed(seed, f"head_{i}")
                ),
                bias_initializer=tf.keras.initializers.Constant(self._biases(_FIRST_STRIDE * 2**i)),
                dtype=tf.float32,
                name=f"head_{i}",
            )
            for i in range(levels)
        ]

    def _biases(self, stride: int) -> list[float]:
        """Few objects are expected, and each class as likely as any other (YOLOv5's priors, for images of 640 pixels)."""
        classes = self.outputs_per_anchor - 5
        objects = math.log(8 / (640 / stride) ** 2)
        return ([0.0] * 4 + [objects] + [math.log(0.6 / (classes - 0.99))] * classes) * self.anchors

    @property
    def strides(self) -> list[int]:
        """Of the output maps."""
        return [_FIRST_STRIDE * 2**i for i in range(len(self.heads))]

    def call(self, images: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """float32 [B, H, W, 3] in [0, 1], sides multiples of the largest stride → logits [B, h, w, A, outputs] of each level."""
        # the four phases of 2×2 squares
        phases = [images[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.focus(tf.concat(phases, -1), training=training)
        features: list[tf.Tensor] = []
        for i, (down, block) in enumerate(self.stages):
            x = down(x, training=training)
            if i == len(self.stages) - 1:
                x = self._pool(x, training)
            x = block(x, training=training)
            features.append(x)
        features = features[1:]  # of stride 8 and more
        kept: list[tf.Tensor] = []
        for i in reversed(range(len(self.narrow))):
            x = self.narrow[i](x, training=training)
            kept.append(x)
            x = self.top_down[i](tf.concat([upsample_nearest(x), features[i]], -1), training=training)
        maps = [x]
        for i, (shrink, block) in enumerate(zip(self.shrink, self.bottom_up)):
            x = block(tf.concat([shrink(x, training=training), kept[-1 - i]], -1), training=training)
            maps.append(x)
        return [self._split(head(y)) for head, y in zip(self.heads, maps)]

    def _pool(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        x = self.pool_reduce(x, training=training)
        pooled: Sequence[tf.Tensor] = [tf.nn.max_pool2d(x, side, 1, "SAME") for side in _POOLS]
        return self.pool_join(tf.concat([x, *pooled], -1), training=training)

    def _split(self, x: tf.Tensor) -> tf.Tensor:
        shape = tf.shape(x)
        return tf.reshape(x, [shape[0], shape[1], shape[2], self.anchors, self.outputs_per_anchor])
