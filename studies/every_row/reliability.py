"""Predicted against realised losses in bins: the mean error, the worst error, and the error expected by chance.

Source: Murphy, Winkler 1977 (reliability diagrams); the relative error of a bin is this project's own.
"""

from __future__ import annotations

import numpy as np

BINS = 8


def bins(stops: np.ndarray) -> np.ndarray:
    """Return the mean predicted and realised loss of each bin, and the standard error of their difference.

    `stops` is `[..., T, 3]`. The result is `[bins, ..., 3]`.
    """
    order = stops[..., 0].argsort(axis=-1, kind="stable")[..., None]
    parts = np.array_split(np.take_along_axis(stops, order, axis=-2), BINS, axis=-2)
    deviations = [(part[..., 1] - part[..., 0]).std(axis=-1) / part.shape[-2] ** 0.5 for part in parts]
    means = [part.mean(axis=-2)[..., :2] for part in parts]
    return np.asarray([np.concatenate([m, e[..., None]], -1) for m, e in zip(means, deviations, strict=True)])


def _binned(values: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return predicted loss, realised loss and its error, `[3, families, ...]`, of each family's `[S, T, K, 3]`."""
    binned = [bins(np.moveaxis(stops, 1, -2)) for stops in values]
    return np.moveaxis(np.stack(binned), -1, 0)


def error(*values: np.ndarray) -> float:
    """Return the mean over all bins of `|mean predicted - mean realised| / mean realised`, of values `[S, T, K, 3]`."""
    predicted, realised, _ = _binned(values)
    return float((np.abs(predicted - realised) / realised).mean())


def worst(*values: np.ndarray) -> float:
    """Return the largest relative error of a bin, of values `[S, T, K, 3]`."""
    predicted, realised, _ = _binned(values)
    return float((np.abs(predicted - realised) / realised).max())


def chance(*values: np.ndarray) -> float:
    """Return the mean relative error expected by chance where the estimate is unbiased, of values `[S, T, K, 3]`."""
    _, realised, deviation = _binned(values)
    return float((np.sqrt(2 / np.pi) * deviation / realised).mean())
