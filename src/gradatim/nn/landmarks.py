"""Landmarks in the midst of rows: random mixtures of several, so that none of them is anybody's row.

Source: Efron 1979, section 2 (draws that look like the sample); Chawla et al. 2002, section 4.2 (points between rows).
"""

from __future__ import annotations

import numpy as np

MIXED = 5
"""Different rows that every landmark is mixed of; of fewer rows there are no landmarks."""

POOL = 2048
"""Rows at most of which landmarks are mixed."""

JITTER = 0.03
"""Deviations of a column by which its entry in a landmark is moved at random: rows that are alike do not show."""

_PORTION = 2048  # rows at a time


def choose_landmarks(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Return at most `limit` landmarks float32 `[K, d]` of rows `[n, d]`, whatever the order of the rows.

    A landmark is `m + sum_i w_i (x_i - m) / |w|`, of five rows x_i drawn at random with random weights that sum to 1,
    and m the mean of rows. It varies as rows do. The rows that count are those with the smallest hash, so that the same
    are chosen in whatever portions they come.

    Example:
        >>> import numpy as np
        >>> from gradatim.nn.landmarks import choose_landmarks
        >>> rows = np.random.default_rng(0).normal(size=(50, 3))
        >>> landmarks = choose_landmarks(rows, 8, 0)
        >>> np.allclose(landmarks, choose_landmarks(rows[::-1], 8, 0))
        True
        >>> bool((abs(rows[:, None] - landmarks).max(2) > 1e-3).all())
        True

    Source: this project's own.
    """
    pool = smallest_hashes(rows, POOL, seed).astype(np.float64)
    if len(pool) < MIXED or not limit:
        return np.empty((0, rows.shape[1]), dtype=np.float32)
    rng, count, centre = np.random.default_rng(seed), min(limit, len(pool)), pool.mean(0)
    chosen = np.stack([rng.permutation(len(pool))[:MIXED] for _ in range(count)])
    weight = rng.dirichlet(np.ones(MIXED), count)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)  # a mean of rows varies less than rows
    landmarks = centre + (weight[:, :, None] * (pool - centre)[chosen]).sum(1)
    return (landmarks + JITTER * pool.std(0) * rng.standard_normal(landmarks.shape)).astype(np.float32)


def smallest_hashes(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Return at most `limit` different rows of `[n, d]`, those of the smallest hash, as float32 `[K, d]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.nn.landmarks import smallest_hashes
        >>> smallest_hashes(np.ones((9, 2)), 4, seed=0)
        array([[1., 1.]], dtype=float32)
    """
    chosen = np.empty((0, rows.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _PORTION):
        chosen = np.concatenate([chosen, rows[start : start + _PORTION].astype(np.float32)])
        _, index = np.unique(row_hashes(chosen, seed), return_index=True)
        chosen = chosen[index[:limit]]
    return chosen


def row_hashes(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a number for each row of float32 `[n, d]` that depends on its values and the seed alone, `[n]` uint64.

    Example:
        >>> from gradatim.nn.landmarks import row_hashes
        >>> first, second, third = row_hashes(np.array([[1.0], [2.0], [1.0]], dtype=np.float32), seed=0)
        >>> bool(first == third), bool(first == second)
        (True, False)
    """
    rng = np.random.default_rng(seed)
    odd = rng.integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bits = (rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 is 0
    mixed = ((bits * odd) ^ (bits * odd >> np.uint64(29))).sum(1, dtype=np.uint64)
    return (mixed ^ (mixed >> np.uint64(31))) * odd[0]
