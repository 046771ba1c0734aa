"""The claims of `make study NAME=tables`: from records of strict passes to numbers with intervals.

Source: Guo et al. 2017, equation 3 (expected calibration error); Demsar 2006 (ranks with shared ties).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata, t

from gradatim.metrics import bootstrap

from .peers import ASIDE, CENTRAL, OURS, RIDGE
from .refits import LIGHTGBM
from .scores import SIZE
from .verdicts import Three, measured, unmeasured

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

Passes = dict[str, list[list["Values"]]]
"""Records of strict passes by learner: for each table, for each order of its rows."""

BINS, DRAWS, LEVEL, FIFTHS = 15, 200, 0.05, 5
EVERY = slice(None)


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


def error_counts(passes: Passes, name: str, rows: slice = EVERY) -> np.ndarray:
    """Return the number of misclassified rows in each pass, `[orders, tables]`, among some rows of the stream."""
    return np.array([[record["error"][rows].sum() for record in orders] for orders in passes[name]]).T


def log_rmse(passes: Passes, name: str, rows: slice = EVERY) -> np.ndarray:
    """Return the log of each table's RMSE, the mean over orders, `[tables]`, among some rows of the stream.

    Records begin with the second mini-batch, row 32.
    """
    start, stop = (None if end is None else max(end - SIZE, 0) for end in (rows.start, rows.stop))
    values = [[np.sqrt(record["square"][start:stop].mean()) for record in orders] for orders in passes[name]]
    return np.log([np.mean(orders) for orders in values])


def geometric_ratio(passes: Passes, name: str, other: str = RIDGE, rows: slice = EVERY) -> Three:
    """Return the geometric mean over tables of a learner's errors over another's, with its interval."""
    return geometric(log_error_ratio(*(error_counts(passes, who, rows) for who in (name, other))))


def rmse_ratio(passes: Passes, name: str, other: str, rows: slice = EVERY) -> Three:
    """Return the geometric mean over tables of a learner's RMSE over another's, with its interval."""
    return geometric(log_rmse(passes, name, rows) - log_rmse(passes, other, rows))


def geometric(logs: np.ndarray) -> Three:
    """Return the geometric mean of ratios from their logs `[tables]`, and its bootstrap interval."""
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


def missed_by_fifths(passes: Passes, name: str) -> np.ndarray:
    """Return how far the coverage of the 80% intervals is off, the mean over fifths of the prediction, `[tables]`.

    The rows of all orders are sorted by what is predicted, and cut into fifths.
    """
    level, off = CENTRAL[0], []
    for orders in passes[name]:
        predicted = np.concatenate([record["predicted"] for record in orders])
        inside = np.concatenate([record["inside"][:, 0] for record in orders])[
            predicted.argsort(kind="stable")
        ]
        off.append(np.mean([abs(part.mean() - level) for part in np.array_split(inside, FIFTHS)]))
    return np.array(off)


def chosen_reference(passes: Passes) -> tuple[np.ndarray, np.ndarray]:
    """Return the final accuracies `[orders, tables]` of two references.

    The first is chosen by cross-validation. The second is the best on a table's held-out rows, over its orders.
    """
    final = _of_references(passes, "final_error")
    lowest = np.take_along_axis(final, final.mean(2).argmin(0)[None, :, None], 0)[0]
    return 1 - of_chosen(passes, "final_error"), 1 - lowest.T


def of_chosen(passes: Passes, key: str) -> np.ndarray:
    """Return what the records of the references that cross-validation chooses say, `[orders, tables]`."""
    valid, values = (_of_references(passes, name) for name in ("cross_validated", key))
    return np.take_along_axis(values, valid.argmax(0)[None], 0)[0].T


def _of_references(passes: Passes, key: str) -> np.ndarray:
    """Return a number of every record, `[references, tables, orders]`."""
    return np.array(
        [[[float(record[key]) for record in orders] for orders in tables] for tables in passes.values()]
    )


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
    ranked = without_aside(error)
    ranking = ranks(ranked)
    ratios = {name: geometric_ratio(passes, name) for name in passes}
    interval, others = ratios.pop(OURS), [name for name in passes if name not in (OURS, RIDGE)]
    later = slice(SIZE, None)
    beside = {
        "ours, without the 32 rows that all predict uniformly": geometric_ratio(passes, OURS, rows=later)
    }
    beside |= {f"{name} over the plain ridge": ratios[name] for name in others}
    first = measured("prequential.over_ridge", interval, beside)
    first["holds"] = first["holds"] and interval[2] < 1
    of_peers = {f"rank of {name}": mean(ranking[name]) for name in ranked if name != OURS}
    off = {name: mean(excess_calibration_errors(passes, name).mean(0)) for name in passes}
    return [
        first,
        measured("prequential.sum_over_ridge", ratio(error[OURS], error[RIDGE])),
        measured("prequential.rank", mean(ranking[OURS]), of_peers),
        measured("prequential.wins", mean(wins(ranked))),
        measured("logloss.over_ridge", ratio(loss[OURS], loss[RIDGE])),
        *final_claims(passes, references),
        measured("ece_excess", off.pop(OURS), {f"of {name}": values for name, values in off.items()}),
    ]


def without_aside(errors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the errors of the learners that take part in ranks: those that see every row once, ours once."""
    return {name: values for name, values in errors.items() if name not in ASIDE}


def final_claims(passes: Passes, references: Passes) -> list[dict[str, Any]]:
    """Return the claims on the held-out rows, after the pass, against batch models."""
    final, recall, rows = (
        np.array([[float(record[key]) for record in orders] for orders in passes[OURS]]).T
        for key in ("final_error", "final_recall", "heldout")
    )
    picked, best = chosen_reference(references)
    counts = [
        geometric(log_error_ratio(rows * final, rows * (1 - reference))) for reference in (picked, best)
    ]
    beside = {"over the reference that is best on the held-out rows": ratio(1 - final, best)}
    return [
        measured("final.over_batch", ratio(1 - final, picked), beside),
        measured("final.errors_over_batch", counts[0], dict.fromkeys(beside, counts[1])),
        measured("macro_recall", ratio(recall, of_chosen(references, "final_recall"))),
    ]


def regression_claims(passes: Passes) -> list[dict[str, Any]]:
    """Return the claims on the test tables with a number to predict."""
    ranking = ranks(without_aside(mean_of(passes, "square")))
    off = np.abs(coverage(passes, OURS) - np.asarray(CENTRAL))
    of_peers = {f"rank of {name}": mean(ranking[name]) for name in ranking if name != OURS}
    return [
        measured("regression.rank", mean(ranking[OURS]), of_peers),
        measured("regression.coverage", mean(off.mean(1))),
        measured("coverage.fifths", mean(missed_by_fifths(passes, OURS))),
    ]


def refit_claims(
    classes: Passes, numbers: Passes, large: tuple[Sequence[int], Sequence[int]], row: int
) -> list[dict[str, Any]]:
    """Return the claims against LightGBM refitted whenever rows have doubled, beyond a row and up to it.

    Args:
        classes: records of the tables with classes.
        numbers: records of the tables with numbers.
        large: the places of the tables of both kinds that have enough rows for the claims beyond the row.
        row: where early ends and late begins.
    """
    late, early = slice(row, None), slice(row)
    names = ("refit.over_lightgbm", "refit.over_lightgbm_rmse", "refit.early")
    if LIGHTGBM not in classes or LIGHTGBM not in numbers:
        return [unmeasured(name, "LightGBM is not installed") for name in names]
    parts = (some(classes, large[0]), late), (some(numbers, large[1]), late), (classes, early)
    claims = []
    for name, over, (passes, rows) in zip(
        names, (geometric_ratio, rmse_ratio, geometric_ratio), parts, strict=True
    ):
        if not passes[OURS]:
            claims.append(unmeasured(name, "no table has so many rows"))
            continue
        peers = [peer for peer in passes if peer in ASIDE and peer != LIGHTGBM]
        beside = {f"{peer} over LightGBM": over(passes, peer, LIGHTGBM, rows) for peer in peers}
        if name == "refit.early":
            beside["RMSE of numbers"] = rmse_ratio(numbers, OURS, LIGHTGBM, rows)
        claims.append(measured(name, over(passes, OURS, LIGHTGBM, rows), beside, tables=len(passes[OURS])))
    return claims


def some(passes: Passes, places: Sequence[int]) -> Passes:
    """Return the records of some tables."""
    return {name: [tables[place] for place in places] for name, tables in passes.items()}
