"""Template matching: where in a mosaic of images another image is found, whatever its place and brightness.

Source: Tronchin et al., "Evaluating GANs in Medical Imaging", table 1: normalised cross-correlation, not centred.
"""

from __future__ import annotations

import numpy as np
from scipy import fft

from medsynth_tf.core.errors import DataError
from medsynth_tf.metrics.arrays import as_unit_float, require_images

_NOTHING = 1e-10  # share of a mosaic's greatest window energy below which a window is empty: rounding of the transforms


def mosaic(images: np.ndarray, side: int) -> np.ndarray:
    """Γ, images side by side in rows: [N, H, W] → [rows · H, columns · W].

    Args:
        images: [N, H, W], at most side² of them; missing ones are 0.
        side: columns at most; there are as many rows as are needed.

    Raises:
        DataError: more images than there are places.
    """
    if not 0 < len(images) <= side * side:
        raise DataError(f"a mosaic of {side}×{side} holds 1 to {side * side} images, not {len(images)}")
    columns = min(side, len(images))
    rows = -(-len(images) // columns)
    height, width = images.shape[1:]
    padded = np.zeros([rows * columns, height, width], images.dtype)
    padded[: len(images)] = images
    return padded.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)


class Lattice:
    """A mosaic prepared for many templates of one size: its transform and the energy of each window are computed once.

    Args:
        canvas: Γ, float [R, C], not below 0.
        height, width: of the templates.
    """

    def __init__(self, canvas: np.ndarray, height: int, width: int):
        self.canvas = canvas.astype(np.float64)
        self.height, self.width = height, width
        self.shape = [fft.next_fast_len(side, real=True) for side in canvas.shape]
        self.transform = fft.rfft2(self.canvas, self.shape)
        integral = np.pad((self.canvas**2).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        energy = (
            integral[height:, width:] - integral[:-height, width:] - integral[height:, :-width] + integral[:-height, :-width]
        )
        self.energy = np.maximum(energy, 0.0)

    def match(self, template: np.ndarray) -> np.ndarray:
        """The heat-map CCR(p, q) = Σ x̃ Γ / √(Σ x̃² Σ Γ²) of a template [H, W], float64 [R − H + 1, C − W + 1] in [0, 1].

        0 where window or template is empty.
        """
        template = template.astype(np.float64)
        product = fft.irfft2(self.transform * fft.rfft2(template, self.shape).conj(), self.shape)
        product = product[: self.energy.shape[0], : self.energy.shape[1]]
        own = (template**2).sum()
        filled = self.energy > _NOTHING * max(self.energy.max(), own)
        if own == 0.0:
            return np.zeros_like(self.energy)
        heat = np.divide(product, np.sqrt(own * self.energy), out=np.zeros_like(product), where=filled)
        return np.clip(heat, 0.0, 1.0)


def max_template_match(
    templates: np.ndarray, references: np.ndarray, side: int = 8, own: np.ndarray | None = None
) -> np.ndarray:
    """The best match of each template anywhere in mosaics of all references, float64 [N] in [0, 1].

    Args:
        templates: uint8, or float in [0, 1], [N, H, W, 1 or 3]; of colours the mean counts.
        references: the same size, [M, H, W, 1 or 3].
        side: images in a row and in a column of a mosaic; as many mosaics as are needed.
        own: for each template which reference it is itself, int [N], or None: windows that touch that one do not count.

    Raises:
        DataError: no images, or of different sizes, or a template has no other reference.
    """
    templates, references = (
        as_unit_float(require_images(images, name)).mean(-1)
        for images, name in ((templates, "templates"), (references, "images of the mosaic"))
    )
    if templates.shape[1:] != references.shape[1:]:
        raise DataError(f"templates are {list(templates.shape[1:])}, images of the mosaic {list(references.shape[1:])}")
    if own is not None and len(references) < 2:
        raise DataError("an image cannot be compared with others: there are none")
    height, width = templates.shape[1:]
    best = np.zeros(len(templates))
    for start in range(0, len(references), side * side):
        part = references[start : start + side * side]
        columns = min(side, len(part))
        lattice = Lattice(mosaic(part, side), height, width)
        for number, template in enumerate(templates):
            heat = lattice.match(template)
            place = -1 if own is None else own[number] - start
            if 0 <= place < len(part):
                top, left = place // columns * height, place % columns * width
                heat[max(top - height + 1, 0) : top + height, max(left - width + 1, 0) : left + width] = 0.0
            best[number] = max(best[number], heat.max())
    return best
