"""Label map to image by SPADE residual blocks, and the style encoder (Park et al., arXiv:1903.07291, appendix A)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from medsynth_tf.layers.initializers import layer_seed, xavier_normal
from medsynth_tf.layers.normalization import InstanceNormalization, SpectralConv2D
from medsynth_tf.layers.spade import SPADEResidualBlock
from medsynth_tf.ops.resize import downsample_nearest, upsample_nearest

UPSAMPLINGS = {"normal": 5, "more": 6, "most": 7}


def block_plan(filters: int, upsampling: str) -> list[tuple[int, bool]]:
    """Per residual block: (its width, whether ×2 up-sampling comes before it).

    'normal' up-samples five times; 'more' once more between the two middle blocks; 'most' adds one further block at the end.
    """
    plan = [(16 * filters, False), (16 * filters, True), (16 * filters, upsampling != "normal")]
    plan += [(8 * filters, True), (4 * filters, True), (2 * filters, True), (filters, True)]
    if upsampling == "most":
        plan.append((filters // 2, True))
    return plan


class SPADEGenerator(tf.keras.Model):
    """Residual blocks that are modulated by the label map at their own resolution; tanh output.

    The entry is a dense layer of the style vector, or a convolution of the label map at the entry's resolution if there is none.

    Args:
        image_size: side of the output; a multiple of 2^5 ('normal'), 2^6 ('more') or 2^7 ('most').
        filters: base width (64 in the paper): the widest block has 16 times as many.
        hidden_filters, norm: of the SPADE layers.
        upsampling: 'normal', 'more' or 'most'.
        styled: whether a style vector is the entry.
        image_channels: channels of the output.
        seed: of the kernels.
    """

    def __init__(
        self,
        image_size: int,
        filters: int = 64,
        hidden_filters: int = 128,
        norm: str = "batch",
        upsampling: str = "normal",
        styled: bool = True,
        image_channels: int = 3,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.plan = block_plan(filters, upsampling)
        self.entry_size = image_size // 2 ** UPSAMPLINGS[upsampling]
        self.entry_filters = 16 * filters
        self.styled = styled
        if styled:
            units = self.entry_size**2 * self.entry_filters
            self.entry = tf.keras.layers.Dense(units, kernel_initializer=xavier_normal(seed, "entry"), name="entry")
        else:
            self.entry = tf.keras.layers.Conv2D(
                self.entry_filters, 3, padding="same", kernel_initializer=xavier_normal(seed, "entry"), name="entry"
            )
        self.blocks = [
            SPADEResidualBlock(width, hidden_filters, norm, layer_seed(seed, f"block_{index}"), name=f"block_{index}")
            for index, (width, _) in enumerate(self.plan)
        ]
        self.to_image = tf.keras.layers.Conv2D(
            image_channels,
            3,
            padding="same",
            kernel_initializer=xavier_normal(seed, "to_image"),
            dtype=tf.float32,
            name="to_image",
        )

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """{"label": planes [B, S, S, K], "style": [B, N] if styled} → image [B, S, S, channels] float32 in [-1, 1]."""
        label = inputs["label"]
        size, factor = self.entry_size, label.shape[1] // self.entry_size
        planes = downsample_nearest(label, factor)
        if self.styled:
            x = tf.reshape(self.entry(inputs["style"]), [-1, size, size, self.entry_filters])
        else:
            x = self.entry(planes)
        for block, (_, doubled) in zip(self.blocks, self.plan):
            if doubled:
                x, factor = upsample_nearest(x), factor // 2
                planes = downsample_nearest(label, factor)  # blocks of one resolution share these
            x = block((x, planes), training=training)
        return tf.tanh(self.to_image(tf.nn.leaky_relu(x, 0.2)))


class StyleEncoder(tf.keras.Model):
    """Image to mean and log-variance of its style: six 3×3 convolutions at stride 2 with spectral and instance norm, two dense heads.

    Args:
        style_size: length N of the style vector (256).
        filters: base width (64): widths are 1, 2, 4, 8, 8, 8 times it.
        image_size: images are resized to this side first (256); at least 128, since instance norm blanks a 1×1 map.
        seed: of the kernels.
    """

    def __init__(self, style_size: int = 256, filters: int = 64, image_size: int = 256, seed: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.image_size = image_size
        self.convolutions, self.norms = [], []
        for index, multiple in enumerate((1, 2, 4, 8, 8, 8)):
            name = f"conv_{index}"
            self.convolutions.append(
                SpectralConv2D(
                    multiple * filters,
                    3,
                    2,
                    "valid",
                    use_bias=False,  # instance norm would remove it
                    kernel_initializer=xavier_normal(seed, name),
                    seed=layer_seed(seed, name),
                    name=name,
                )
            )
            self.norms.append(InstanceNormalization(name=f"norm_{index}"))
        self.mean = tf.keras.layers.Dense(style_size, kernel_initializer=xavier_normal(seed, "mean"), dtype=tf.float32)
        self.log_variance = tf.keras.layers.Dense(style_size, kernel_initializer=xavier_normal(seed, "var"), dtype=tf.float32)

    def call(self, images: tf.Tensor, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Images [B, H, W, C] float32 in [-1, 1] → mean and log-variance, each [B, N] float32."""
        x = images
        if x.shape[1] != self.image_size:
            x = tf.image.resize(x, [self.image_size, self.image_size])
        for convolution, norm in zip(self.convolutions, self.norms):
            x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])  # symmetric, unlike "same" at stride 2
            x = tf.nn.leaky_relu(norm(convolution(x, training=training)), 0.2)
        x = tf.reshape(x, [-1, x.shape[1] * x.shape[2] * x.shape[3]])
        return self.mean(x), self.log_variance(x)
