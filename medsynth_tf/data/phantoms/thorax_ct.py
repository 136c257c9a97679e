"""Chest CT slices with ground-glass opacities, reconstructed with a soft or a sharp kernel from one noisy sinogram.

For methods that must segment alike whatever the kernel. The two kernels are outside the family that FBPAug draws from. Lengths are in
96ths of the side.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal

import numpy as np
from scipy import ndimage

from medsynth_tf.core.seeds import numpy_generator
from medsynth_tf.core.settings import Settings, setting

SOFT, SHARP = 0, 1
_GRID = 96.0
_DRAWN = 192  # shapes are drawn at least this large, then averaged
_AIR, _BODY, _LUNG, _VESSEL, _BONE = -1000.0, 40.0, -850.0, 0.0, 400.0
_BLOOD_VESSELS, _LESIONS = (25, 45), (1, 3)
_NOISE = 0.1  # of a projection, in pixels of water: 1e-5 where water attenuates by 1e-4 a pixel
_FIELD_OF_VIEW = 384.0  # millimetres


@dataclasses.dataclass(frozen=True)
class ThoraxOptions(Settings):
    """Options of `phantom:thorax_ct`."""

    size: int = setting(64, help="side of the slices in pixels", minimum=32, maximum=512)
    seed: int = setting(0, help="which series of patients", minimum=0)
    kernel: Literal["soft", "sharp", "pairs", "none"] = setting(
        "soft", help="reconstruction; 'pairs': each slice with both, labels 0 soft and 1 sharp; 'none': as drawn, without noise"
    )
    angles: int | None = setting(None, help="of the sinogram; default: the size, at most 256", minimum=1)
    slices: int = setting(1, help="of a patient; they share the anatomy, and lesions are drawn anew", minimum=1)
    healthy: float = setting(0.0, help="share of slices without lesion", minimum=0.0, maximum=1.0)


class ThoraxPhantom:
    """Draws `phantom:thorax_ct`: Hounsfield units; labels 0 anything, 1 ground-glass opacity."""

    options_class = ThoraxOptions

    def __init__(self, options: ThoraxOptions):
        self.options = options

    def _slice(self, index: int) -> int:
        """Number of the slice, which a pair shares."""
        return index // 2 if self.options.kernel == "pairs" else index

    def patient(self, index: int) -> int:
        """Both of a pair are the same patient's, as are `slices` in a row."""
        return self._slice(index) // self.options.slices

    def label(self, index: int) -> int | None:
        """Of pairs, 0 for soft and 1 for sharp; else none."""
        return index % 2 if self.options.kernel == "pairs" else None

    def labels(self) -> dict[str, int]:
        """Names and values of the label map."""
        return {"other": 0, "ground-glass opacity": 1}

    def draw(self, index: int) -> dict[str, Any]:
        """`image` int16 [S, S, 1] HU, `mask` uint8 [S, S], `spacing`, `modality` CT."""
        number, options = self._slice(index), self.options
        drawn, mask = self._anatomy(number)
        if options.kernel != "none":
            noise = numpy_generator(options.seed, "thorax_ct/noise", number)
            sharp = options.kernel == "sharp" or (options.kernel == "pairs" and index % 2 == SHARP)
            drawn = _reconstructed(drawn, options.angles or min(options.size, 256), noise, sharp)
        image = np.clip(np.rint(drawn), -1024, 3071).astype(np.int16)[..., None]
        spacing = np.full(2, _FIELD_OF_VIEW / options.size, np.float32)
        return {"image": image, "mask": mask, "spacing": spacing, "modality": "CT"}

    def _anatomy(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The slice as drawn, HU float64 [S, S], and its lesions."""
        size = self.options.size
        of_patient = numpy_generator(self.options.seed, "thorax_ct/patient", number // self.options.slices)
        of_slice = numpy_generator(self.options.seed, "thorax_ct/slice", number)
        x, y = _axes(size)
        scale = len(x) / _GRID
        body = _ellipse(x, y, (0, 0), (of_patient.uniform(40, 44), of_patient.uniform(32, 37)))
        image = np.where(body, _BODY, _AIR)
        lungs, centres = np.zeros(image.shape, bool), []
        for side in (-1, 1):
            centre = np.array([side * of_patient.uniform(18, 20), 0.0])
            axes = np.array([of_patient.uniform(12, 15), of_patient.uniform(20, 25)])
            lungs |= _ellipse(x, y, centre, axes)
            centres.append((centre, axes))
        texture = _smooth_noise(of_patient, len(x), 4.0)
        image[lungs] = (_LUNG + 25.0 * texture)[lungs]
        for _ in range(of_patient.integers(_BLOOD_VESSELS[0], _BLOOD_VESSELS[1] + 1)):
            width = of_patient.uniform(0.7, 1.6)
            shape = _ellipse(
                x,
                y,
                _inside(of_patient, centres, 0.95),
                (width, width * of_patient.uniform(1, 4)),
                of_patient.uniform(0, np.pi),
            )
            image[shape & lungs] = _VESSEL
        image[_ellipse(x, y, (0, 26), (4.5, 4.5))] = _BONE
        mask = np.zeros(image.shape, bool)
        if of_slice.uniform() >= self.options.healthy:
            added = np.zeros(image.shape)
            for _ in range(of_slice.integers(_LESIONS[0], _LESIONS[1] + 1)):
                centre, turn = _inside(of_slice, centres, 0.7), of_slice.uniform(0, np.pi)
                shape = _ellipse(x, y, centre, of_slice.uniform(4, 9, 2), turn) & lungs
                mask |= shape
                added[shape] = np.maximum(added[shape], of_slice.uniform(180, 350))
            grain = 1.0 + 0.25 * _smooth_noise(of_slice, len(x), 1.0)
            haze = ndimage.gaussian_filter(added, 0.7 * scale) * grain
            image = np.where(lungs, np.minimum(image + haze, np.maximum(image, _BODY)), image)
        return _reduced(image, size), (_reduced(mask, size) > 0.5).astype(np.uint8)


def soft_kernel(r: np.ndarray) -> np.ndarray:
    """r·½(1 + cos(π·r/0.9)) below 0.9 and 0 above; r = |w|, 1 at the Nyquist frequency."""
    return np.where(r < 0.9, r * 0.5 * (1.0 + np.cos(np.pi * r / 0.9)), 0.0)


def sharp_kernel(r: np.ndarray) -> np.ndarray:
    """r·(1 + 0.6·exp(-((r - 0.65)/0.25)²))."""
    return r * (1.0 + 0.6 * np.exp(-(((r - 0.65) / 0.25) ** 2)))


def _reconstructed(hounsfield: np.ndarray, angles: int, noise: np.random.Generator, sharp: bool) -> np.ndarray:
    """The slice from its noisy sinogram, HU [S, S].

    By SciPy and not by `ops.radon`: sources are read inside `tf.data`, whose threads TensorFlow needs for its own loops.
    """
    size = len(hounsfield)
    centre, reach = size // 2, size // 2 + 2
    offset = np.arange(size) - centre
    circle = offset[:, None] ** 2 + offset**2 <= centre**2
    turns = np.arange(angles) * np.pi / angles
    attenuation = np.where(circle, np.maximum(hounsfield, _AIR) / 1000 + 1, 0.0)  # in units of water's
    sinogram = np.empty([angles, 2 * reach + 1])
    for row, turn in enumerate(turns):
        matrix = np.array([[np.sin(turn), np.cos(turn)], [np.cos(turn), -np.sin(turn)]])  # (bin, step) to (y, x)
        start = centre - matrix @ [reach, reach]
        rays = ndimage.affine_transform(attenuation, matrix, start, sinogram.shape[1:] * 2, order=1, prefilter=False)
        sinogram[row] = rays.sum(1)
    sinogram += _NOISE * noise.standard_normal(sinogram.shape)
    length = max(64, 2 ** math.ceil(math.log2(2 * math.ceil(math.sqrt(2) * size))))
    taps = np.zeros(length)
    odd = np.arange(1, length // 2, 2)
    taps[0], taps[odd], taps[-odd] = 0.25, -1 / (np.pi * odd) ** 2, -1 / (np.pi * odd) ** 2
    response = (sharp_kernel if sharp else soft_kernel)(2 * np.fft.rfft(taps).real)
    filtered = np.fft.irfft(np.fft.rfft(sinogram, length) * response, length)[:, : 2 * reach + 1]
    image, bins = np.zeros(circle.sum()), np.arange(-reach, reach + 1)
    y, x = np.nonzero(circle)
    for turn, projection in zip(turns, filtered):
        image += np.interp((x - centre) * np.cos(turn) + (y - centre) * np.sin(turn), bins, projection)
    result = np.full(hounsfield.shape, _AIR)
    result[circle] = 1000 * (np.pi / 2 / angles * image - 1)
    return result


@functools.lru_cache(maxsize=4)
def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the finer grid's points, in units, from the middle of pixel (S//2, S//2)."""
    factor = -(-_DRAWN // size)
    fine = (np.arange(size * factor) + 0.5) / factor - 0.5 - size // 2
    x, y = np.meshgrid(fine * _GRID / size, fine * _GRID / size)
    for array in (x, y):
        array.setflags(write=False)
    return x, y


def _ellipse(x: np.ndarray, y: np.ndarray, centre: Any, axes: Any, turn: float = 0.0) -> np.ndarray:
    """bool, inside the ellipse of the given semi-axes; only its surroundings are looked at."""
    reach = max(axes)
    columns = slice(*np.searchsorted(x[0], [centre[0] - reach, centre[0] + reach]))
    rows = slice(*np.searchsorted(y[:, 0], [centre[1] - reach, centre[1] + reach]))
    dx, dy = x[rows, columns] - centre[0], y[rows, columns] - centre[1]
    along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
    inside = np.zeros(x.shape, bool)
    inside[rows, columns] = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    return inside


def _inside(rng: np.random.Generator, lungs: list[Any], share: float) -> np.ndarray:
    """A point in one of the lungs, within `share` of its axes."""
    centre, axes = lungs[rng.integers(len(lungs))]
    radius, angle = share * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return centre + radius * axes * np.array([np.cos(angle), np.sin(angle)])


def _smooth_noise(rng: np.random.Generator, side: int, sigma: float) -> np.ndarray:
    """Gaussian noise smoothed over `sigma` units, mean 0, deviation 1, [side, side]; the same whatever the side, but for detail."""
    noise = ndimage.gaussian_filter(rng.standard_normal([int(_GRID)] * 2), sigma)
    noise = (noise - noise.mean()) / noise.std()
    return ndimage.zoom(noise, side / _GRID, order=1, mode="nearest", grid_mode=True)


def _reduced(fine: np.ndarray, size: int) -> np.ndarray:
    """Means of the finer grid's squares, float64 [S, S]."""
    factor = len(fine) // size
    return fine.reshape(size, factor, size, factor).astype(np.float64).mean((1, 3))
