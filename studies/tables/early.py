"""The first rows of a table: is what the estimator says of them worse than the running mean or the base rates?

Source: Krichevsky, Trofimov 1981 (base rates with half a row of each class); the collections are those of Goldstein
1991 (schools), Xue et al. 2007 (landmines) and Tsanas et al. 2010 (Parkinson's disease).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import ratio
from .peers import RefinedEstimator
from .scores import log_losses
from .verdicts import Three, measured, unmeasured

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

    from .data import Table

KNOWN = (1, 2, 4, 8, 16)
"""Rows known before the next as many are predicted."""


def base_rates(y: np.ndarray, classes: int) -> np.ndarray:
    """Return (n_c + 1/2) / (n + C/2) of each class, `[C]`.

    Example:
        >>> base_rates(np.array([0]), 2).tolist()
        [0.75, 0.25]
    """
    return (np.bincount(y, minlength=classes) + 0.5) / (len(y) + 0.5 * classes)


def early_losses(table: Table, order: int) -> Values:
    """Return the losses of the estimator and of the plainest guess on rows 2 to 32, and how many rows were known.

    `ours [n]`, `plain [n]`, `known [n]`: log-losses, or squared errors. `scale`: 1, or the variance of y in the table.
    """
    x, y, *_ = table.split(order)
    learner, parts = RefinedEstimator(table, 0), []
    for known in KNOWN:
        learner.learn(x[known // 2 : known], y[known // 2 : known])
        rows = slice(known, 2 * known)
        if not len(y[rows]):
            break
        predictions = learner.predict(x[rows])
        if table.classes:
            rates = np.tile(base_rates(y[:known], table.classes), (len(y[rows]), 1))
            both = log_losses(predictions, y[rows]), log_losses(rates, y[rows])
        else:
            both = (predictions[:, 0] - y[rows]) ** 2, (y[:known].mean() - y[rows]) ** 2
        parts.append((*both, np.full(len(y[rows]), known)))
    ours, plain, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    scale = 1.0 if table.classes else table.y.var()
    return {"ours": ours, "plain": plain, "known": known, "scale": np.asarray(scale)}


def early_claim(collections: Mapping[str, list[list[Values]]], common: tuple[str, ...]) -> dict[str, Any]:
    """Return the claim on the worst collection: summed losses over those of the plainest guess.

    Args:
        collections: records by table and order.
        common: collections whose tables share the unit of y: squared errors are summed as they are there. In others
            each table's are over the variance of its y.
    """
    if not collections:
        return unmeasured("early.over_mean", "no table was run")

    def over(title: str, known: int | None = None) -> Three:
        both = (_sums(collections[title], key, title in common, known) for key in ("ours", "plain"))
        return ratio(*both)

    ratios = {title: over(title) for title in collections}
    worst = max(ratios, key=lambda title: ratios[title][0])
    present = {int(n) for orders in collections[worst] for record in orders for n in record["known"]}
    after = {f"{worst}, {known} rows known": over(worst, known) for known in sorted(present)}
    return measured("early.over_mean", ratios[worst], ratios | after, worst=worst)


def _sums(tables: list[list[Values]], key: str, common: bool, known: int | None = None) -> np.ndarray:
    """Return the summed losses of each table and order, `[orders, tables]`; of rows after so many known ones."""

    def total(record: Values) -> float:
        losses = record[key] if known is None else record[key][record["known"] == known]
        return float(losses.sum()) / (1.0 if common else float(record["scale"]))

    return np.array([[total(record) for record in orders] for orders in tables]).T
