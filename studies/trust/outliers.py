"""A cell that is absurd: how much worse predictions of clean rows are for it.

Source: Huber 1964 (gross errors); the bars are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.tables.data import Table, load, names

from .figure import Figure, Part, geometric, ratio, rounded

ROWS = 2_000
"""Rows that are learnt, at most."""

SEEDS, FIRST = 3, 200
"""Draws of a cell; the first of them is among the first rows, which decide most."""

WAYS = ("partial_fit", "fit")

Spoil = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], None]
"""Changes x `[n, columns]` or y `[n]` in place, in or near the row given."""


def cell(value: float) -> Spoil:
    """Return what puts a value into a cell of a random column of numbers."""

    def spoil(x: np.ndarray, y: np.ndarray, row: int, rng: np.random.Generator) -> None:
        x[row, int(rng.integers(x.shape[1]))] = value

    return spoil


def cell_that_says_most(x: np.ndarray, y: np.ndarray, row: int, rng: np.random.Generator) -> None:
    """Put 1e9 into a cell of the column that y depends on most, by their correlation."""
    centred = x - np.nanmean(x, axis=0)
    size = np.sqrt(np.nansum(centred**2, axis=0))
    product = np.abs(np.nansum(centred * (y - y.mean())[:, None], axis=0)) / np.where(size > 0, size, np.inf)
    x[row, int(product.argmax())] = 1e9


def code_of_missing(x: np.ndarray, y: np.ndarray, row: int, rng: np.random.Generator) -> None:
    """Put -9999, which some write for missing, into 2% of the cells."""
    x[rng.random(x.shape) < 0.02] = -9999.0


def target(x: np.ndarray, y: np.ndarray, row: int, rng: np.random.Generator) -> None:
    """Put 1e9 into the target."""
    y[row] = 1e9


SPOILS: dict[str, Spoil] = {
    "1e9 in a cell": cell(1e9),
    "1e9 in a cell of the column that says most": cell_that_says_most,
    "1e6 in a cell": cell(1e6),
    "-9999 in 2% of cells": code_of_missing,
    "1e9 in the target": target,
}


def error_after(
    model: Callable[[], Any], table: Table, way: str, spoil: Spoil | None = None, seed: int = 0
) -> float:
    """Return the error on clean rows after learning rows that are spoilt, or clean where `spoil` is None.

    It is a root mean square, or the share of wrong classes with half a row added.

    Args:
        model: makes an estimator.
        table: whose columns of numbers are spoilt.
        way: `fit` or `partial_fit`.
        spoil: spoils a row.
        seed: which row; 0: among the first.
    """
    rng = np.random.default_rng(seed)
    x, y, new_x, new_y = table.split(0)
    x, y = x[:ROWS].copy(), y[:ROWS].copy()
    if spoil is not None:
        numbers = [place for place in range(x.shape[1]) if place not in table.categorical]
        part = x[:, numbers]
        spoil(part, y, int(rng.integers(len(x) if seed else min(FIRST, len(x)))), rng)
        x[:, numbers] = part
    try:
        predicted = getattr(model(), way)(x, y).predict(new_x)
    except ValueError:  # to refuse is no answer
        return float("inf")
    return _error(predicted, new_y, bool(table.classes))


def _error(predicted: np.ndarray, y: np.ndarray, classes: bool) -> float:
    if classes:
        return float(((predicted != y).sum() + 0.5) / len(y))
    with np.errstate(over="ignore"):
        return float(np.sqrt(np.mean((predicted - y) ** 2)))


def losses(model: Callable[[], Any], table: Table, spoils: Sequence[str], seeds: int) -> dict[str, float]:
    """Return by name of what spoils a table the geometric mean of its errors over those of clean rows.

    The mean is over draws of the row and both ways to learn. An answer that is refused or infinite counts as 1e9.
    """
    ratios: dict[str, list[float]] = {name: [] for name in spoils}
    for way in WAYS:
        clean = error_after(model, table, way)
        for name in spoils:
            for seed in range(seeds):
                spoilt = error_after(model, table, way, SPOILS[name], seed)
                ratios[name].append(spoilt / clean if np.isfinite(spoilt) else 1e9)
    return {name: geometric(values) for name, values in ratios.items()}


def _measure(folder: Path, kind: str, table: str, spoils: list[str], seeds: int) -> Part:
    from gradatim import RefinedClassifier, RefinedRegressor

    data = load(table)
    model = RefinedClassifier if data.classes else RefinedRegressor
    if len(data.categorical) == data.x.shape[1]:
        return {"table": table, "kind": kind, "ratios": {}}
    return {"table": table, "kind": kind, "ratios": losses(model, data, spoils, seeds)}


def _claims(results: list[Part]) -> list[Part]:
    main = next(iter(SPOILS))
    numbers = [result for result in results if result["kind"] == "regression" and result["ratios"]]
    classes = [result for result in results if result["kind"] == "classification" and result["ratios"]]
    beside = {
        name: rounded(geometric([result["ratios"][name] for result in numbers]))
        for name in SPOILS
        if all(name in result["ratios"] for result in numbers)
    }
    errors = geometric([result["ratios"][main] for result in classes]) if classes else float("nan")
    tables = {result["table"]: rounded(result["ratios"][main]) for result in (*numbers, *classes)}
    return [
        ratio(
            "outliers",
            [result["ratios"][main] for result in numbers],
            spoils=beside,
            classification=rounded(errors),
            tables=tables,
        )
    ]


def _parts(smoke: bool) -> list[Part]:
    seeds = 1 if smoke else SEEDS
    spoils = {"regression": list(SPOILS), "classification": list(SPOILS)[:1]}
    return [
        {"kind": kind, "table": name, "spoils": spoils[kind], "seeds": seeds}
        for kind in spoils
        for name in names(kind, "validation", smoke)
    ]


FIGURES = {"outliers": Figure(_parts, _measure, _claims, ("outliers",))}
