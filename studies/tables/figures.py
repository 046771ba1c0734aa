"""The figures of `make study NAME=tables`: from the records of strict passes to numbers with intervals.

Source: Guo et al. 2017, equation 3 (expected calibration error); ranks with ties shared as in Demsar 2006.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata, t

from gradatim.comparison.runs import claim
from gradatim.metrics import bootstrap

from .peers import CENTRAL, OURS, RIDGE

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

Passes = dict[str, list[list["Values"]]]
"""By learner: for each table, for each order of its rows, the record of one strict pass."""

Three = tuple[float, float, float]
BINS, DRAWS, LEVEL = 15, 200, 0.05


def mean_of(passes: Passes, metric: str) -> dict[str, np.ndarray]:
    """Return each learner's mean of a metric over the rows of a pass, `[orders, tables]`; of squares, its root."""
    made = {}
    for name, tables in passes.items():
        values = np.array([[own[metric].mean() for own in orders] for orders in tables]).T
        made[name] = np.sqrt(values) if metric.endswith("square") else values
    return made


def over(ours: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Return the log of (errors + 0.5) over (the ridge's + 0.5) of each table, from counts `[orders, tables]`.

    Errors are those of one pass, the mean over the orders.
    """
    return np.log((ours.mean(0) + 0.5) / (ridge.mean(0) + 0.5))


def counts(passes: Passes, name: str, skip: int = 0) -> np.ndarray:
    """Return how many rows a learner got wrong in each pass, `[orders, tables]`, the first `skip` rows left out."""
    return np.array([[own["error"][skip:].sum() for own in orders] for orders in passes[name]]).T


def _geometric(passes: Passes, name: str, skip: int = 0) -> Three:
    """Return the geometric mean over tables of a learner's errors over the ridge's, with its interval."""
    logs = over(counts(passes, name, skip), counts(passes, RIDGE, skip))
    return bootstrap(lambda a: float(np.exp(a.mean())), logs[None])


def ranks(errors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each learner's rank on each table, `[tables]`, 1 the lowest mean error over orders, ties shared."""
    stacked = np.stack([values.mean(0) for values in errors.values()]).round(10)
    return dict(zip(errors, rankdata(stacked, axis=0), strict=True))


def beaten(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return on which tables their error is significantly lower, from `[orders, tables]`: paired, two-sided t at 5%.

    Where all differences are the same number, not 0, they are significant.
    """
    gap = (ours - theirs).round(10)
    mean, spread = gap.mean(0), gap.std(0, ddof=1) if len(gap) > 1 else np.full(gap.shape[1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = mean / (spread / len(gap) ** 0.5)
    bar = t.ppf(1 - LEVEL / 2, max(len(gap) - 1, 1))
    return (mean > 0) & (statistic > bar)


def wins(errors: dict[str, np.ndarray]) -> np.ndarray:
    """Return on which tables no peer is significantly better than ours."""
    lost = [beaten(errors[OURS], values) for name, values in errors.items() if name != OURS]
    return ~np.any(lost, axis=0)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error with 15 bins of equal width.

    sum_b n_b / n |mean right in b - mean confidence in b|
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def excess(confidence: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> float:
    """Return the calibration error above that of a perfectly calibrated predictor of the same confidences, simulated:
    the mean of 200 draws in which each row is right with the probability that its confidence says."""
    drawn = rng.random((DRAWS, len(confidence))) < confidence
    perfect = np.mean([calibration_error(confidence, own.astype(float)) for own in drawn])
    return calibration_error(confidence, right) - float(perfect)


def excesses(passes: Passes, name: str) -> np.ndarray:
    """Return the excess calibration error of each pass, `[orders, tables]`."""
    rng = np.random.default_rng(0)
    return np.array(
        [
            [excess(own["confidence"].astype(float), 1 - own["error"], rng) for own in orders]
            for orders in passes[name]
        ]
    ).T


def coverage(passes: Passes, name: str) -> np.ndarray:
    """Return the share of rows inside each central interval, `[tables, levels]`, over all orders."""
    return np.array([np.concatenate([own["inside"] for own in orders]).mean(0) for orders in passes[name]])


def chosen_reference(passes: Passes) -> tuple[np.ndarray, np.ndarray]:
    """Return the final accuracy `[orders, tables]` of the reference chosen by cross-validation, and of the one that is
    best on a table's held-out rows, over its orders."""
    valid, final = (
        np.array([[[float(own[key]) for own in orders] for orders in tables] for tables in passes.values()])
        for key in ("cross_validated", "final_error")
    )  # [references, tables, orders]
    picked = np.take_along_axis(final, valid.argmax(0)[None], 0)[0]
    lowest = np.take_along_axis(final, final.mean(2).argmin(0)[None, :, None], 0)[0]
    return 1 - picked.T, 1 - lowest.T


def ratio(one: np.ndarray, other: np.ndarray) -> Three:
    """Return the ratio of two means over tables, `[orders, tables]` each, and its bootstrap interval over tables."""
    first, second = one.mean(0)[None], other.mean(0)[None]
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), first, second)


def mean(values: np.ndarray) -> Three:
    """Return the mean over tables `[tables]` and its bootstrap interval."""
    return bootstrap(lambda a: float(a.mean()), np.asarray(values, dtype=float)[None])


def classification_claims(passes: Passes, references: Passes) -> list[dict[str, Any]]:
    """Return the claims of test tables with classes."""
    error, loss = mean_of(passes, "error"), mean_of(passes, "log_loss")
    geometric = {name: _geometric(passes, name) for name in passes}
    placed = ranks(error)
    final = 1 - mean_of(passes, "final_error")[OURS]
    picked, best = chosen_reference(references)
    ours, others = geometric.pop(OURS), [name for name in passes if name not in (OURS, RIDGE)]
    first = claim("tables.prequential.over_ridge", *ours, 0.94, "<=")
    first["holds"] = first["holds"] and ours[2] < 1
    beside = {"ours, without the 32 rows that all predict uniformly": _geometric(passes, OURS, 32)}
    beside |= {f"{name} over the plain ridge": geometric[name] for name in others}
    made = [
        first | {"beside": _rounded(beside)},
        claim("tables.prequential.sum_over_ridge", *ratio(error[OURS], error[RIDGE]), 0.97, "<="),
        claim("tables.prequential.rank", *mean(placed[OURS]), 2.0, "<=")
        | {"beside": _rounded({f"rank of {name}": mean(placed[name]) for name in passes if name != OURS})},
        claim("tables.prequential.wins", *mean(wins(error)), 0.8, ">="),
        claim("tables.logloss.over_ridge", *ratio(loss[OURS], loss[RIDGE]), 0.85, "<="),
        claim("tables.final.over_batch", *ratio(final, picked), 0.985, ">=")
        | {"beside": _rounded({"over the reference that is best on the held-out rows": ratio(final, best)})},
    ]
    off = {name: mean(excesses(passes, name).mean(0)) for name in passes}
    made.append(
        claim("tables.ece_excess", *off.pop(OURS), 0.03, "<=")
        | {"beside": _rounded({f"of {name}": values for name, values in off.items()})}
    )
    return made


def regression_claims(passes: Passes) -> list[dict[str, Any]]:
    """Return the claims of test tables with a number to predict."""
    placed = ranks(mean_of(passes, "square"))
    off = np.abs(coverage(passes, OURS) - np.asarray(CENTRAL))
    return [
        claim("tables.regression.rank", *mean(placed[OURS]), 1.6, "<=")
        | {"beside": _rounded({f"rank of {name}": mean(placed[name]) for name in passes if name != OURS})},
        claim("tables.regression.coverage", *mean(off.mean(1)), 0.04, "<="),
    ]


def _rounded(found: dict[str, Three]) -> dict[str, list[float]]:
    return {name: [round(value, 5) for value in values] for name, values in found.items()}
