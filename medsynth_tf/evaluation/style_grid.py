"""Do transferred images help a segmenter of another domain? A grid of training sets.

{transferred, raw, none} × {augmented, not} × numbers of real images: table 1 of Hung and Galeotti (DGM4MICCAI 2021).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from scipy import ndimage

from medsynth_tf.core.errors import ConfigError, DataError
from medsynth_tf.core.seeds import derive_seed, numpy_generator
from medsynth_tf.core.settings import Settings, setting
from medsynth_tf.data.balanced_mix import balanced_order, repeated
from medsynth_tf.layers.initializers import layer_seed
from medsynth_tf.losses.classification import cross_entropy
from medsynth_tf.metrics.overlap import pooled_overlap
from medsynth_tf.networks.unet import UNet2D


class Segmented(NamedTuple):
    """Images uint8 [N, H, W, 1] and label maps uint8 [N, H, W]."""

    images: np.ndarray
    masks: np.ndarray


Transfer = Callable[[np.ndarray, int], np.ndarray]
"""(images uint8 [N, H, W, 1], epoch) → the same images in another style; another epoch may give others."""


@dataclasses.dataclass(frozen=True)
class GridConfig(Settings):
    """The segmenter, a U-Net, and how its training images are changed where they are augmented."""

    classes: int = setting(2, help="codes of the label maps, 0 being the rest", minimum=2)
    widths: tuple[int, ...] = setting((64, 128, 256, 512, 1024), help="of the U-Net's levels", minimum=1)
    epochs: int = setting(20, help="passes over the larger of the two sets", minimum=1)
    batch_size: int = setting(8, minimum=1)
    learning_rate: float = setting(1e-3, above=0.0)
    gamma: tuple[float, float] = setting((0.7, 1.4), help="range of the exponent", above=0.0)
    blur: tuple[float, float] = setting((0.0, 1.0), help="range of the Gaussian's width in pixels", minimum=0.0)

    def check(self) -> None:
        """Ranges are ranges."""
        for name in ("gamma", "blur"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"{name} = {(low, high)}: the first must not be above the second")


def with_styles(predict: Callable[..., np.ndarray], styles: np.ndarray, seed: int, batch_size: int = 32) -> Transfer:
    """A `Transfer` that gives each image, anew in each epoch, the style of a random one of `styles`.

    Args:
        predict: (contents, styles, seeds int64 [B]) → images, all uint8 [B, H, W, 1].
        styles: uint8 [M, h, w, 1], of training images alone.
        seed: of the choice and of the noise.
        batch_size: images a call.
    """

    def transfer(images: np.ndarray, epoch: int) -> np.ndarray:
        chosen = numpy_generator(seed, "styles", epoch).integers(0, len(styles), len(images))
        seeds = np.arange(len(images), dtype=np.int64) + epoch * len(images)
        parts = np.split(np.arange(len(images)), range(batch_size, len(images), batch_size))
        return np.concatenate([predict(images[part], styles[chosen[part]], seeds[part]) for part in parts])

    return transfer


def augmented(data: Segmented, settings: GridConfig, rng: np.random.Generator) -> Segmented:
    """The 'traditional' augmentation of each image: a power of its values, a Gaussian blur, flips along both axes, which the label map
    goes along with. Strengths are not the paper's, which gives none."""
    images, masks = [], []
    for image, mask in zip(*data):
        changed = 255.0 * (image / 255.0) ** np.exp(rng.uniform(*np.log(settings.gamma)))
        changed = ndimage.gaussian_filter(changed, (*[rng.uniform(*settings.blur)] * 2, 0))
        axes = tuple(axis for axis in (0, 1) if rng.random() < 0.5)
        images.append(np.flip(np.rint(changed).astype(np.uint8), axes))
        masks.append(np.flip(mask, axes))
    return Segmented(np.stack(images), np.stack(masks))


def segmentation_grid(
    settings: GridConfig,
    phantom: Segmented,
    real: Segmented,
    test: Segmented,
    transfers: Mapping[str, Transfer | None],
    counts: Sequence[int],
    augmentation: Sequence[bool] = (True, False),
    seed: int = 0,
    report: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Trains and tests a U-Net for each cell. All cells have the same number of steps, and the same test images.

    Args:
        settings: of the U-Net and of augmentation.
        phantom: images of the labelled domain.
        real: training images of the domain that counts, labelled.
        test: held-out images of it.
        transfers: name → how phantom images get to look real ('raw' would leave them); None: none are used, real images alone.
        counts: numbers of real images; fewer are among the first of more.
        augmentation: with and without.
        seed: of everything.
        report: called with each cell.

    Returns:
        One dict a cell: "source" (the name in `transfers`), "real", "augmented", and "class_1" … each with Dice, IoU, precision and
        recall over all test pixels.

    Raises:
        DataError: more real images are asked for than there are.
    """
    if not counts or max(counts) > len(real.images) or min(counts) < 1:
        raise DataError(f"counts = {list(counts)}: expected 1 to {len(real.images)}, as there are real images")
    order = numpy_generator(seed, "real images").permutation(len(real.images))
    cells = []
    for count in counts:
        few = Segmented(real.images[order[:count]], real.masks[order[:count]])
        for source, transfer in transfers.items():
            for augment in augmentation:
                network = _trained(settings, phantom, few, transfer, augment, seed)
                cell = {"source": source, "real": count, "augmented": augment, **_tested(network, settings, test)}
                cells.append(cell)
                if report is not None:
                    report(cell)
    return cells


def _epoch(
    settings: GridConfig, phantom: Segmented, real: Segmented, transfer: Transfer | None, augment: bool, seed: int, epoch: int
) -> Segmented:
    """One epoch's images in their order: half transferred, half real; or real ones alone, as many."""
    rng = numpy_generator(seed, "epoch", epoch)
    if transfer is None:
        chosen = repeated(len(real.images), 2 * max(len(phantom.images), len(real.images)), rng)
        data = Segmented(real.images[chosen], real.masks[chosen])
    else:
        transferred = Segmented(transfer(phantom.images, epoch), phantom.masks)  # the label maps stay what they are
        parts = (transferred, real)
        mixed = balanced_order(len(phantom.images), len(real.images), derive_seed(seed, "mix"), epoch)
        data = Segmented(*(np.stack([parts[part][i][position] for part, position in mixed]) for i in range(2)))
    return augmented(data, settings, rng) if augment else data


def _trained(
    settings: GridConfig, phantom: Segmented, real: Segmented, transfer: Transfer | None, augment: bool, seed: int
) -> tf.keras.Model:
    network = UNet2D(settings.classes, settings.widths, layer_seed(seed, "segmenter"))
    network(tf.keras.Input(real.images.shape[1:]))
    variables = network.trainable_variables
    optimizer = tf.keras.optimizers.Adam(settings.learning_rate)
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)
    def step(images: tf.Tensor, masks: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = cross_entropy(network(_scaled(images), training=True), masks)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    for epoch in range(settings.epochs):
        images, masks = _epoch(settings, phantom, real, transfer, augment, seed, epoch)
        for first in range(0, len(images) - settings.batch_size + 1, settings.batch_size):
            part = slice(first, first + settings.batch_size)
            step(tf.constant(images[part]), tf.constant(masks[part]))
    return network


def _tested(network: tf.keras.Model, settings: GridConfig, test: Segmented) -> dict[str, Any]:
    parts = np.split(test.images, range(32, len(test.images), 32))
    found = np.concatenate([np.asarray(network(_scaled(tf.constant(part)))).argmax(-1) for part in parts])
    return {f"class_{code}": pooled_overlap(found == code, test.masks == code) for code in range(1, settings.classes)}


def _scaled(images: tf.Tensor) -> tf.Tensor:
    return tf.cast(images, tf.float32) / 127.5 - 1.0
