"""A fast decoder for RLE Lossless, registered with pydicom beside its own.

DICOM's run-length code is TIFF's PackBits, which Pillow decodes in C; pydicom's own decoder goes through the runs in Python.
The functions and their names are those that pydicom asks of a decoding plugin.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import RLELossless

RLE_PLUGIN = "medsynth_packbits"
DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = {RLELossless: ()}

_HEADER_BYTES = 64


def is_available(uid: str) -> bool:
    """Whether this plugin decodes the transfer syntax."""
    return uid in DECODER_DEPENDENCIES


def decode_frame(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame, little endian, colour by plane.

    Raises:
        ValueError: a segment is missing or too short.
    """
    sample_bytes = runner.bits_allocated // 8
    pixels = runner.rows * runner.columns
    header = np.frombuffer(source[:_HEADER_BYTES], "<u4")
    segments = int(header[0]) if header.size == _HEADER_BYTES // 4 else 0
    if segments != runner.samples_per_pixel * sample_bytes:
        raise ValueError(f"{segments} RLE segments, expected {runner.samples_per_pixel * sample_bytes}")
    bounds = [*header[1 : segments + 1].tolist(), len(source)]
    # Segments go from the most to the least significant byte of each sample.
    decoded = np.empty((runner.samples_per_pixel, pixels, sample_bytes), np.uint8)
    for index in range(segments):
        sample, byte = divmod(index, sample_bytes)
        segment = source[bounds[index] : bounds[index + 1]]
        # As one row: some writers let runs cross the rows of the image.
        row = Image.frombytes("L", (pixels, 1), segment, "packbits", "L")
        decoded[sample, :, sample_bytes - 1 - byte] = np.asarray(row)[0]
    runner.set_option("planar_configuration", 1)
    return decoded.tobytes()


if RLE_PLUGIN not in get_decoder(RLELossless).available_plugins:
    get_decoder(RLELossless).add_plugin(RLE_PLUGIN, (__name__, "decode_frame"))
