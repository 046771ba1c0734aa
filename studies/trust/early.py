"""Few rows: whether intervals hold what they promise from the third row on, and claim nothing from one.

Source: the bars are this project's own; Gneiting, Raftery 2007 (coverage of central intervals).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from studies.tables.data import Table, load, names

from .figure import Figure, Part, averaged, counted, rounded

FIRST, LAST, NEW = 3, 20, 100
"""Rows learnt, from and to; and new rows whose intervals are checked."""

UNITS = (1.0, 1e6, 1e-6)
"""The units of y."""

CENTRAL = (0.1, 0.9)
"""The quantiles of a central 80% interval."""


def intervals(model: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the low and high ends `[n]` of central 80% intervals; where there is no answer they are infinite."""
    try:
        low, high = np.asarray(model.predict(x, quantiles=list(CENTRAL)), float).T
    except ValueError:
        return np.full(len(x), -np.inf), np.full(len(x), np.inf)
    return low, high


def coverage(
    model: Callable[[], Any], table: Table, order: int, unit: float, counts: Sequence[int]
) -> tuple[list[float], float]:
    """Return the share of new rows inside their intervals after each count of rows, and a share after one row.

    That is the share of finite intervals shorter than the spread of y: what one row cannot tell.

    Args:
        model: makes a regressor.
        table: a regression.
        order: of its rows.
        unit: y is multiplied by it.
        counts: rows learnt one by one, rising.
    """
    rows = np.random.default_rng(order).permutation(len(table.x))
    x, y = table.x[rows], table.y[rows] * unit
    new_x, new_y = x[LAST : LAST + NEW], y[LAST : LAST + NEW]
    learner, shares, sure = model(), [], 0.0
    for count in range(1, max(counts) + 1):
        learner.partial_fit(x[count - 1 : count], y[count - 1 : count])
        if count == 1:
            low, high = intervals(learner, new_x)
            with np.errstate(invalid="ignore"):
                length = high - low
            sure = float((np.isfinite(length) & (length < y.std())).mean())
        if count in counts:
            low, high = intervals(learner, new_x)
            shares.append(float(((low <= new_y) & (new_y <= high)).mean()))
    return shares, sure


def _measure(folder: Path, table: str, orders: int, counts: Sequence[int]) -> Part:
    from gradatim import RefinedRegressor

    data, shares, sure = load(table), {}, []
    for unit in UNITS:
        results = [coverage(RefinedRegressor, data, order, unit, counts) for order in range(orders)]
        shares[f"{unit:g}"] = np.mean([share for share, _ in results], 0).tolist()
        sure += [share for _, share in results]
    return {"table": table, "counts": list(counts), "shares": shares, "one_row": float(np.mean(sure))}


def _claims(results: list[Part]) -> list[Part]:
    """Return both claims; the coverage is that of the unit of y in which it is lowest."""
    units = {
        unit: [float(np.mean(result["shares"][unit])) for result in results] for unit in results[0]["shares"]
    }
    unit = min(units, key=lambda name: float(np.mean(units[name])))
    rows = {
        str(count): rounded(float(np.mean([result["shares"][unit][place] for result in results])))
        for place, count in enumerate(results[0]["counts"])
    }
    tables = {result["table"]: rounded(share) for result, share in zip(results, units[unit], strict=True)}
    means = {name: rounded(float(np.mean(shares))) for name, shares in units.items()}
    return [
        averaged("early_coverage", units[unit], units=means, rows=rows, tables=tables),
        counted("early_coverage_one_row", float(np.mean([result["one_row"] for result in results]))),
    ]


def _parts(smoke: bool) -> list[Part]:
    counts, orders = ((3, 8), 1) if smoke else (tuple(range(FIRST, LAST + 1)), 3)
    return [
        {"table": name, "orders": orders, "counts": counts}
        for name in names("regression", "validation", smoke)
    ]


FIGURES = {"early": Figure(_parts, _measure, _claims, ("early_coverage", "early_coverage_one_row"))}
