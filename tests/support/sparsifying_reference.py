"""The sparsifying methods written down naively: whole models, float64, sorting, one element at a time."""

import hashlib
from collections.abc import Sequence

import numpy as np

MASK_128, MULTIPLIER = 2**128 - 1, 0xDA942042E4DD58B5


def leading(delta: np.ndarray, rank: int) -> np.ndarray:
    """Mark the first elements by magnitude as float32, the lower flat index first, by a full sort."""
    flat = np.abs(delta.astype(np.float32)).reshape(-1)
    mask = np.zeros(flat.size, bool)
    mask[np.lexsort((np.arange(flat.size), -flat))[:rank]] = True
    return mask.reshape(delta.shape)


def trim(delta: np.ndarray, density: float) -> np.ndarray:
    return np.where(leading(delta, round(density * delta.size)), delta, 0)


def band(delta: np.ndarray, density: float, gamma: float) -> np.ndarray:
    outliers = round(gamma * delta.size)
    kept = leading(delta, outliers + round(density * delta.size)) & ~leading(delta, outliers)
    return np.where(kept, delta, 0)


def elected(c: Sequence[float], deltas: Sequence[np.ndarray]) -> np.ndarray:
    """Elect the sign and take the disjoint mean, element by element; the sums must be exact in float64."""
    tau = np.zeros(deltas[0].shape)
    for at in np.ndindex(tau.shape):
        votes = [(weight * float(delta[at]), weight) for weight, delta in zip(c, deltas, strict=True)]
        balance = sum(vote for vote, _ in votes)
        agreeing = [(vote, weight) for vote, weight in votes if vote * balance > 0]
        if agreeing:
            tau[at] = sum(vote for vote, _ in agreeing) / sum(weight for _, weight in agreeing)
    return tau


def drop(delta: np.ndarray, p: float, seed: int, tensor: str, checkpoint: int) -> np.ndarray:
    """DARE with the random stream that the project promises."""
    words = stream(f"{seed}/{checkpoint}/{tensor}", delta.size)
    kept = np.array([word / 2**32 >= p for word in words], bool).reshape(delta.shape)
    return np.where(kept, delta / (1 - p), 0)


def stream(name: str, count: int) -> list[int]:
    """Return 32-bit words of PCG64 DXSM (O'Neill) whose state and increment are the name's SHA-256."""
    digest = hashlib.sha256(name.encode()).digest()
    state, increment = int.from_bytes(digest[:16]), int.from_bytes(digest[16:]) | 1
    words: list[int] = []
    while len(words) < count:
        high, low = state >> 64, state & (2**64 - 1) | 1
        high = (high ^ high >> 32) * MULTIPLIER & (2**64 - 1)
        word = (high ^ high >> 48) * low & (2**64 - 1)
        words += [word & (2**32 - 1), word >> 32]
        state = (state * MULTIPLIER + increment) & MASK_128
    return words[:count]
