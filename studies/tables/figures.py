"""The claims of `make study NAME=tables`: from records of strict passes to numbers with intervals.

Source: Guo et al. 2017, equation 3 (expected calibration error); Demsar 2006 (ranks with shared ties).
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
"""Records of strict passes by learner: for each table, for each order of its rows."""

Three = tuple[float, float, float]
BINS, DRAWS, LEVEL = 15, 200, 0.05


def mean_of(passes: Passes, metric: str) -> dict[str, np.ndarray]:
    """Return each learner's mean of a metric over the rows of a pass, `[orders, tables]`. Of squares it is the root."""
    means = {}
    for name, tables in passes.items():
        values = np.array([[record[metric].mean() for record in orders] for orders in tables]).T
        means[name] = np.sqrt(values) if metric.endswith("square") else values
    return means


def log_error_ratio(errors: np.ndarray, ridge: np.ndarray) -> np.ndarray:
    """Return the log of (errors + 0.5) over (the ridge's errors + 0.5) for each table `[tables]`.

    The counts are `[orders, tables]`. Errors are those of one pass, the mean over orders.
    """
    return np.log((errors.mean(0) + 0.5) / (ridge.mean(0) + 0.5))


def error_counts(passes: Passes, name: str, skip: int = 0) -> np.ndarray:
    """Return the number of misclassified rows in each pass, `[orders, tables]`, without the first `skip` rows."""
    return np.array([[record["error"][skip:].sum() for record in orders] for orders in passes[name]]).T


def _geometric_ratio(passes: Passes, name: str, skip: int = 0) -> Three:
    """Return the geometric mean over tables of a learner's errors over the ridge's, with its interval."""
    logs = log_error_ratio(error_counts(passes, name, skip), error_counts(passes, RIDGE, skip))
    return bootstrap(lambda a: float(np.exp(a.mean())), logs[None])


def ranks(errors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return each learner's rank on each table, `[tables]`. Rank 1 has the lowest mean error over orders. Ties are
    shared.
    """
    stacked = np.stack([values.mean(0) for values in errors.values()]).round(10)
    return dict(zip(errors, rankdata(stacked, axis=0), strict=True))


def peer_is_better(errors: np.ndarray, peer_errors: np.ndarray) -> np.ndarray:
    """Return on which tables the peer's error is significantly lower, `[tables]` bool, from errors `[orders,
    tables]`.

    The test is a paired, two-sided t test at 5%. Equal nonzero differences are significant.
    """
    gap = (errors - peer_errors).round(10)
    mean, spread = gap.mean(0), gap.std(0, ddof=1) if len(gap) > 1 else np.full(gap.shape[1], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = mean / (spread / len(gap) ** 0.5)
    bar = t.ppf(1 - LEVEL / 2, max(len(gap) - 1, 1))
    return (mean > 0) & (statistic > bar)


def wins(errors: dict[str, np.ndarray]) -> np.ndarray:
    """Return on which tables no peer is significantly better than ours, `[tables]` bool."""
    lost = [peer_is_better(errors[OURS], values) for name, values in errors.items() if name != OURS]
    return ~np.any(lost, axis=0)


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error of confidences `[n]` with 15 bins of equal width.

    sum_b n_b / n |mean right in b - mean confidence in b|
    """
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def excess_calibration_error(confidence: np.ndarray, right: np.ndarray, rng: np.random.Generator) -> float:
    """Return the calibration error above that of a perfectly calibrated predictor with the same confidences `[n]`.

    The latter is simulated: the mean of 200 samples in which each row is right with the probability of its
    confidence.
    """
    simulated = rng.random((DRAWS, len(confidence))) < confidence
    perfect = np.mean([calibration_error(confidence, sample.astype(float)) for sample in simulated])
    return calibration_error(confidence, right) - float(perfect)


def excess_calibration_errors(passes: Passes, name: str) -> np.ndarray:
    """Return the excess calibration error of each pass, `[orders, tables]`."""
    rng = np.random.default_rng(0)
    return np.array(
        [
            [
                excess_calibration_error(record["confidence"].astype(float), 1 - record["error"], rng)
                for record in orders
            ]
            for orders in passes[name]
        ]
    ).T


def coverage(passes: Passes, name: str) -> np.ndarray:
    """Return the share of rows inside each central interval over all orders, `[tables, levels]`."""
    return np.array(
        [np.concatenate([record["inside"] for record in orders]).mean(0) for orders in passes[name]]
    )


def chosen_reference(passes: Passes) -> tuple[np.ndarray, np.ndarray]:
    """Return the final accuracies `[orders, tables]` of two references.

    The first is chosen by cross-validation. The second is the best on a table's held-out rows, over its orders.
    """
    valid, final = (
        np.array(
            [[[float(record[key]) for record in orders] for orders in tables] for tables in passes.values()]
        )
        for key in ("cross_validated", "final_error")
    )  # [references, tables, orders]
    picked = np.take_along_axis(final, valid.argmax(0)[None], 0)[0]
    lowest = np.take_along_axis(final, final.mean(2).argmin(0)[None, :, None], 0)[0]
    return 1 - picked.T, 1 - lowest.T


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Three:
    """Return the ratio of two means over tables, of `[orders, tables]` each, and its bootstrap interval over tables."""
    first, second = numerator.mean(0)[None], denominator.mean(0)[None]
    return bootstrap(lambda a, b: float(a.mean() / b.mean()), first, second)


def mean(values: np.ndarray) -> Three:
    """Return the mean over tables `[tables]`, and its bootstrap interval."""
    return bootstrap(lambda a: float(a.mean()), np.asarray(values, dtype=float)[None])


def classification_claims(passes: Passes, references: Passes) -> list[dict[str, Any]]:
    """Return the claims on the test tables with classes."""
    error, loss = mean_of(passes, "error"), mean_of(passes, "log_loss")
    geometric = {name: _geometric_ratio(passes, name) for name in passes}
    ranking = ranks(error)
    final = 1 - mean_of(passes, "final_error")[OURS]
    picked, best = chosen_reference(references)
    interval, others = geometric.pop(OURS), [name for name in passes if name not in (OURS, RIDGE)]
    first = claim("tables.prequential.over_ridge", *interval, 0.94, "<=")
    first["holds"] = first["holds"] and interval[2] < 1
    beside = {"ours, without the 32 rows that all predict uniformly": _geometric_ratio(passes, OURS, 32)}
    beside |= {f"{name} over the plain ridge": geometric[name] for name in others}
    entries = [
        first | {"beside": _rounded(beside)},
        claim("tables.prequential.sum_over_ridge", *ratio(error[OURS], error[RIDGE]), 0.97, "<="),
        claim("tables.prequential.rank", *mean(ranking[OURS]), 2.0, "<=")
        | {"beside": _rounded({f"rank of {name}": mean(ranking[name]) for name in passes if name != OURS})},
        claim("tables.prequential.wins", *mean(wins(error)), 0.8, ">="),
        claim("tables.logloss.over_ridge", *ratio(loss[OURS], loss[RIDGE]), 0.85, "<="),
        claim("tables.final.over_batch", *ratio(final, picked), 0.985, ">=")
        | {"beside": _rounded({"over the reference that is best on the held-out rows": ratio(final, best)})},
    ]
    off = {name: mean(excess_calibration_errors(passes, name).mean(0)) for name in passes}
    entries.append(
        claim("tables.ece_excess", *off.pop(OURS), 0.03, "<=")
        | {"beside": _rounded({f"of {name}": values for name, values in off.items()})}
    )
    return entries


def regression_claims(passes: Passes) -> list[dict[str, Any]]:
    """Return the claims on the test tables with a number to predict."""
    ranking = ranks(mean_of(passes, "square"))
    off = np.abs(coverage(passes, OURS) - np.asarray(CENTRAL))
    return [
        claim("tables.regression.rank", *mean(ranking[OURS]), 1.6, "<=")
        | {"beside": _rounded({f"rank of {name}": mean(ranking[name]) for name in passes if name != OURS})},
        claim("tables.regression.coverage", *mean(off.mean(1)), 0.04, "<="),
    ]


def _rounded(intervals: dict[str, Three]) -> dict[str, list[float]]:
    return {name: [round(value, 5) for value in values] for name, values in intervals.items()}
