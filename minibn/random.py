"""Randomness as an argument: one root seed, split by name (nothing here is global).

`generator(seed, "order", epoch)` is a NumPy Generator of its own for each list of names, for what is
drawn on the host: weights, the order of the data, augmentation. What is drawn per activation
(noise, dropout) is stateless instead: see `philox`.
"""

import hashlib

import numpy as np


def derive(seed: int, *names: object) -> int:
    """A 128-bit integer that depends on the seed and on each name in turn (SHA-256, so that
    neighbouring seeds share nothing).

    >>> derive(0, "weights", "conv1.weight") == derive(0, "weights", "conv1.weight")
    True
    >>> derive(0, "a", "bc") == derive(0, "ab", "c")
    False
    """
    text = repr((int(seed), *(str(name) for name in names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


def generator(seed: int, *names: object) -> np.random.Generator:
    """The NumPy Generator that belongs to `names` under the root seed."""
    return np.random.default_rng(derive(seed, *names))
