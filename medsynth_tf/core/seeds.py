"""Seeds derived from one number by name, so that no two uses share a random stream and no global state is touched."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) for the use called `names`: the same on every machine, unrelated for any two different uses."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the use called `names`."""
    return np.random.default_rng(derive_seed(seed, *names))
