"""River's generators with changes of concept at rows that are known: abrupt, gradual and recurring.

Source: Gama et al. 2014, section 4 (kinds of change); Montiel et al. 2021 (river, whose generators these are).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

CHANGES = ("abrupt", "gradual", "recurring")
STILL = "still"
"""The name of a stream without change."""

WINDOW = 0.2
"""The share of the rows over which a gradual change goes on."""


@dataclass(frozen=True)
class Generator:
    """A generator of river.

    Attributes:
        make: `make(synth, concept, seed)` returns its rows, where `synth` is river's module.
        concepts: how many it has.
        classes: their number, 0 for numbers.
        categorical: columns of categories.
        permuted: whether a concept is an order of the columns, since the generator has one concept alone.
    """

    make: Callable[[Any, int, int], Iterable[tuple[dict, Any]]]
    concepts: int
    classes: int = 2
    categorical: tuple[int, ...] = ()
    permuted: bool = False


_MANY = 1000
GENERATORS: dict[str, Generator] = {
    "agrawal": Generator(
        lambda synth, concept, seed: synth.Agrawal(concept, seed=seed, perturbation=0.05),
        10,
        categorical=(3, 4, 5),
    ),
    "hyperplane": Generator(lambda synth, concept, seed: synth.Hyperplane(seed=concept), _MANY),
    "led": Generator(
        lambda synth, concept, seed: synth.LEDDrift(
            seed=seed, noise_percentage=0.1, irrelevant_features=True, n_drift_features=(0, 3, 7)[concept]
        ),
        3,
        classes=10,
    ),
    "mixed": Generator(lambda synth, concept, seed: synth.Mixed(concept, seed=seed), 2),
    "rbf": Generator(
        lambda synth, concept, seed: synth.RandomRBF(seed_model=concept, seed_sample=seed, n_classes=4),
        _MANY,
        classes=4,
    ),
    "sea": Generator(lambda synth, concept, seed: synth.SEA(concept, noise=0.1, seed=seed), 4),
    "sine": Generator(lambda synth, concept, seed: synth.Sine(concept, seed=seed), 4),
    "stagger": Generator(
        lambda synth, concept, seed: synth.STAGGER(concept, seed=seed), 3, categorical=(0, 1, 2)
    ),
    "waveform": Generator(
        lambda synth, concept, seed: synth.Waveform(seed=seed), _MANY, classes=3, permuted=True
    ),
    "friedman": Generator(
        lambda synth, concept, seed: synth.Friedman(seed=seed), _MANY, classes=0, permuted=True
    ),
}
"""Families of streams by name. Concepts of most are drawn by the seed of a stream."""


def schedule(change: str, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return which concept each row is of, `[rows]` from 0, and the rows at which a change begins or has its middle.

    - abrupt: concepts 0, 1 and 2, each a third of the rows.
    - gradual: the same, while over a fifth of the rows around each change the new concept becomes ever more probable.
    - recurring: concepts 0, 1, 0, 1, each a quarter.
    - still: concept 0 alone.

    Example:
        >>> schedule("recurring", 8, np.random.default_rng(0))
        (array([0, 0, 1, 1, 0, 0, 1, 1]), (2, 4, 6))

    Raises:
        ValueError: the kind of change is unknown.
    """
    if change not in (*CHANGES, STILL):
        raise ValueError(f"no kind of change is called {change!r}: there are {', '.join((*CHANGES, STILL))}")
    parts = {STILL: 1, "recurring": 4}.get(change, 3)
    points = tuple(rows * part // parts for part in range(1, parts))
    place = np.arange(rows)
    if change == "gradual":
        width = WINDOW * rows
        chances = [np.clip((place - point) / width + 0.5, 0, 1) for point in points]
        return np.sum([rng.random(rows) < chance for chance in chances], axis=0), points
    concepts = np.searchsorted(points, place, side="right")
    return concepts % 2 if change == "recurring" else concepts, points


def generate(
    family: str, change: str, seed: int, rows: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return x `[rows, d]` float64, y `[rows]` and the rows of change of a stream, the same ones for the same seed.

    Raises:
        ValueError: river is not installed, or the kind of change is unknown.
    """
    try:
        from river.datasets import synth  # type: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("river's generators are not installed: pip install gradatim[studies]") from error
    generator = GENERATORS[family]
    rng = np.random.default_rng([seed, sorted(GENERATORS).index(family), (*CHANGES, STILL).index(change)])
    which, points = schedule(change, rows, rng)
    order = rng.choice(generator.concepts, size=min(3, generator.concepts), replace=False)
    which = order[which % len(order)]
    x, y = None, np.empty(rows)
    for concept in np.unique(which).tolist():
        places = np.flatnonzero(which == concept)
        examples = islice(generator.make(synth, concept, int(rng.integers(2**31))), len(places))
        pairs = [([float(value) for value in row.values()], float(answer)) for row, answer in examples]
        values = np.array([row for row, _ in pairs])
        if generator.permuted:
            values = values[:, np.random.default_rng(concept).permutation(values.shape[1])]
        x = np.empty((rows, values.shape[1])) if x is None else x
        x[places], y[places] = values, [answer for _, answer in pairs]
    assert x is not None
    return x, y.astype(np.int64) if generator.classes else y, points
