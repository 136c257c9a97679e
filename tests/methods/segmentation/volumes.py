"""Sources of volumes for the tests of segmentation methods."""

import numpy as np

from medsynth_tf.data.source import RecordKey, Source


class Volumes(Source):
    """Volumes of one shape whose image is a function of place, with a ball for a mask."""

    def __init__(
        self, count=3, shape=(14, 16, 18), spacing=(1.0, 1.0, 1.0), image=None, unknown=False, parts=("mask", "spacing")
    ):
        self.count, self.shape, self.spacing, self.image, self.unknown = count, shape, spacing, image, unknown
        self.parts = parts
        self.reads = []

    def keys(self):
        return [RecordKey(f"v{i}", f"p{i}") for i in range(self.count)]

    def read(self, key):
        index = int(key.id[1:])
        self.reads.append(index)
        rng = np.random.default_rng(index)
        image = rng.normal(size=self.shape) if self.image is None else self.image
        places = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in self.shape), indexing="ij"), -1) * self.spacing
        mask = (np.linalg.norm(places - 0.5 * index, axis=-1) < 0.3 * min(np.array(self.shape) * self.spacing)).astype(np.uint8)
        if self.unknown:
            mask[:, :, : self.shape[2] // 2] = 255
        record = {
            "id": key.id,
            "patient_id": key.patient_id,
            "image": image.astype(np.float32)[..., None],
            "mask": mask,
            "spacing": np.asarray(self.spacing, np.float32),
        }
        return {name: value for name, value in record.items() if name not in ("mask", "spacing") or name in self.parts}

    def describe(self):
        return {"kind": "volumes", "count": self.count}
