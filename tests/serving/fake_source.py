"""A source of label maps without files."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Key:
    id: str


class FakeSource:
    """`count` label maps of `size`², of labels 0 … 3."""

    def __init__(self, count: int = 5, size: int = 8):
        self._count, self._size = count, size

    def keys(self):
        return [Key(f"record{i}") for i in range(self._count)]

    def read(self, key):
        rng = np.random.default_rng(int(key.id.removeprefix("record")))
        return {"id": key.id, "mask": rng.integers(0, 4, (self._size, self._size)).astype(np.uint8)}

    def fingerprint(self):
        return f"fake-{self._count}-{self._size}"
