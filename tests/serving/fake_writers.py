"""What synthesis uses of medsynth_tf.data.writers; slow when told to, so that a kill finds it at work."""

from __future__ import annotations

import dataclasses
import os
import time

from PIL import Image, PngImagePlugin

from medsynth_tf.core.files import replacing_file


@dataclasses.dataclass(frozen=True)
class Provenance:
    model: str
    version: str
    seed: int
    method: str
    created: str


def write_image(path, image, provenance):
    time.sleep(float(os.environ.get("SLOW_WRITES", "0")))
    text = PngImagePlugin.PngInfo()
    for key, value in dataclasses.asdict(provenance).items():
        text.add_text(key, str(value))
    with replacing_file(path) as temporary:
        Image.fromarray(image).save(temporary, format="png", pnginfo=text)
