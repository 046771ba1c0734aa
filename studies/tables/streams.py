"""Streams longer than the tables: projected MNIST and Fashion-MNIST, without and with drift.

Source: Johnson, Lindenstrauss 1984 (random projections); Gama et al. 2014, section 4 (abrupt and gradual drift).
"""

from __future__ import annotations

import math

import numpy as np

from gradatim.families.images import image_folder, load_images

DIM, SHORT, DEGREES = 64, 20_000, 90.0
STREAM_SETTINGS = (DIM, SHORT, DEGREES)
STREAMS = {
    "stream-mnist": ("mnist", "none"),
    "stream-fashion": ("fashion_mnist", "none"),
    "drift-labels": ("mnist", "labels"),
    "drift-rotation": ("mnist", "rotation"),
}
"""Source of the images and kind of drift. A stream has all 60,000 training images, or the first 20,000 with drift."""


def stream(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Return `x [n, 64]` float64, `y [n]` int64 and the number of classes: projected pixels, shuffled rows."""
    source, change = STREAMS[name]
    training, _ = load_images(source, image_folder(source))
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(training.labels))
    pixels = training.images.reshape(len(rows), -1).astype(np.float32) / np.float32(255)
    projection = rng.normal(size=(pixels.shape[1], DIM)).astype(np.float32) / np.float32(math.sqrt(DIM))
    x, y = (pixels @ projection).astype(np.float64)[rows], training.labels[rows].astype(np.int64)
    if change == "labels":
        x, y = x[:SHORT], permuted(y[:SHORT], 10, rng)
    elif change == "rotation":
        x, y = rotated(x[:SHORT], DEGREES, rng), y[:SHORT]
    return x, y, 10


def permuted(y: np.ndarray, classes: int, rng: np.random.Generator) -> np.ndarray:
    """Return the labels `[n]`, permuted in the second half so that every class has another label."""
    ring = rng.permutation(classes)
    renamed = np.empty(classes, dtype=np.int64)
    renamed[ring] = np.roll(ring, 1)  # one cycle: no class keeps its name
    half = len(y) // 2
    return np.concatenate([y[:half], renamed[y[half:]]])


def rotated(x: np.ndarray, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Return standardised rows `[n, d]` that rotate steadily in random planes, by `degrees` from the first row to the
    last.
    """
    x = (x - x.mean(0)) / x.std(0)
    basis = np.linalg.qr(rng.normal(size=(x.shape[1], x.shape[1])))[0]
    angle = np.radians(degrees) * np.arange(len(x))[:, None] / max(len(x) - 1, 1)
    half = x.shape[1] // 2
    seen = x @ basis
    first, second, last = seen[:, :half], seen[:, half : 2 * half], seen[:, 2 * half :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([cos * first - sin * second, sin * first + cos * second, last], axis=1) @ basis.T
