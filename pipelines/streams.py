"""Counter-based randomness: every draw is a pure function of a key and a counter.

A key is a chain of integers (seed, purpose, epoch, sample, view, ...), so nothing depends on the order
in which samples are processed, on the number of threads or ranks, or on what was drawn before. The
mixing function is splitmix64's finaliser (Steele et al., OOPSLA 2014); `raymask/streams.py` gives the same
numbers on any torch device. Called from Python, keys and counters must be `np.uint64`: numba takes a bare
int for an int64.
"""

import hashlib

import numpy as np
from numba import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX1 = np.uint64(0xBF58476D1CE4E5B9)
MIX2 = np.uint64(0x94D049BB133111EB)


@njit(nogil=True, cache=True)
def mix(z: np.uint64) -> np.uint64:
    """The finaliser of splitmix64: a bijection of 64 bits whose output bits all depend on all input bits."""
    z = np.uint64(z)
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return z ^ (z >> np.uint64(31))


@njit(nogil=True, cache=True)
def fold(key: np.uint64, value: np.uint64) -> np.uint64:
    """The key of the sub-stream `value` of the stream `key`."""
    return mix(np.uint64(key) + GOLDEN * (np.uint64(value) + np.uint64(1)))


@njit(nogil=True, cache=True)
def uniform(key: np.uint64, counter: np.uint64) -> float:
    """The draw number `counter` of the stream `key`: uniform in [0, 1), 53 bits."""
    bits = mix(np.uint64(key) + GOLDEN * (np.uint64(counter) + np.uint64(1)))
    return float(bits >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def purpose(name: str) -> int:
    """A stable 64-bit number for the name of a purpose ("crop", "mask", ...)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def stream(seed: int, name: str, *keys: int) -> np.uint64:
    """The key of the stream (seed, purpose name, further keys)."""
    key = fold(np.uint64(seed & 0xFFFFFFFFFFFFFFFF), np.uint64(purpose(name)))
    for value in keys:
        key = fold(np.uint64(key), np.uint64(value & 0xFFFFFFFFFFFFFFFF))
    return np.uint64(key)


def generator(key: np.uint64) -> np.random.Generator:
    """A NumPy generator (Philox) for bulk draws such as permutations of the stream `key`."""
    return np.random.Generator(np.random.Philox(key=int(key)))
