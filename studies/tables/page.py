"""The page of `make study NAME=tables`: what it asks, its answers, its pictures and its tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.palette import words_of
from gradatim.comparison.report import Page, Question, Result, TextTable

OURS, RIDGE = "gradatim", "plain-ridge"
PEERS = (OURS, RIDGE, "sgd", "mlp-64", "gaussian-nb", "river-forest", "river-tree")
STREAMS = {
    "stream-mnist": "60,000 images of MNIST",
    "stream-fashion": "60,000 images of Fashion-MNIST",
    "drift-labels": "drift: labels are permuted",
    "drift-rotation": "drift: images are rotated",
}
TICKS = (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)


def answer(result: Result) -> Iterator[str]:
    """Yield how the estimators compare with one-pass learners and with fits of all rows."""
    value = result.value
    classes = result.listing("test: prequential error")
    numbers = result.listing("test: prequential RMSE")[:-1]
    yield (
        f"In one strict pass over {len(classes)} real tables with classes the estimator makes "
        f"{value('tables.prequential.over_ridge'):.3f} times the errors of a ridge classifier and has a mean rank of "
        f"{value('tables.prequential.rank'):.2f} among {len(_columns(result, 'test: prequential error'))} one-pass "
        f"learners; on {len(numbers)} tables with numbers to predict its mean rank is "
        f"{value('tables.regression.rank'):.2f} among {len(_columns(result, 'test: prequential RMSE'))}."
    )
    yield (
        f"At the end of the pass its accuracy on held-out rows is {value('tables.final.over_batch'):.3f} times that "
        "of the batch model that cross-validation picks, and "
        f"{result.beside('tables.final.over_batch', 'over the reference that is best'):.3f} times that of the best one."
    )
    yield ("It has nothing meta-trained, and there are streams on which it loses: the next question.")


def draw(result: Result, png: Path) -> str | None:
    """Draw every learner's errors over the ridge's, table by table."""
    rows = result.listing("test: prequential error")
    if not rows:
        return "no picture drawn: no table was run"
    columns = _columns(result, "test: prequential error")
    values = {name: [float(row[place]) for row in rows] for place, name in columns.items()}
    ratios = {name: [v / r for v, r in zip(values[name], values[RIDGE], strict=True)] for name in values}
    order = sorted(range(len(rows)), key=lambda place: ratios[OURS][place])
    curves = []
    for name in PEERS:
        if name in ratios and name != RIDGE:
            ys = [min(ratios[name][place], 4.0) for place in order]
            curves.append(plots.Curve(name, range(len(order)), ys, ys, ys))
    labels = [rows[place][0].replace("_", " ") for place in order]
    fewer = sum(ratio < 1 for ratio in ratios[OURS])
    title = f"One pass: fewer errors than ridge on {fewer} of {len(labels)} tables"
    axis = "errors over those of ridge (1: the same; beyond 4: drawn at 4)"
    return plots.dots(png, title, axis, labels, curves, 1.0, TICKS)


def _columns(result: Result, start: str) -> dict[int, str]:
    """Return which column of a listing belongs to which learner."""
    listings = (x["columns"] for x in result.data.get("listings", ()) if x["title"].startswith(start))
    return {place: name for place, name in enumerate(next(listings, ())) if name in PEERS}


def table(result: Result) -> TextTable:
    """Return the learners' means over the tables with classes."""
    columns = (
        "learner",
        "accuracy in the pass",
        "accuracy at its end",
        "log-loss",
        "errors over ridge's",
        "mean rank",
    )
    rows = [[words_of(row[0]), *row[1:6]] for row in result.listing("test: ")]
    return columns, rows


def lost(result: Result) -> Iterator[str]:
    """Yield where the estimators lose."""
    ours, ridge = (result.mean("stream-mnist", name, 1875) for name in (OURS, RIDGE))
    fashion, other = (result.mean("stream-fashion", name, 1875) for name in (OURS, RIDGE))
    yield (
        "On long streams of images plain ridge is better: over 60,000 rows of MNIST the errors so far are "
        f"{ours:.3f}, ridge's {ridge:.3f}; of Fashion-MNIST {fashion:.3f} and {other:.3f}."
    )
    shifted, sgd, mlp = (result.mean("drift-labels", name, 625) for name in (OURS, "sgd", "mlp-64"))
    yield (
        "Where labels are permuted in the middle of the stream, learners that forget win by far: "
        f"SGD has {sgd:.3f}, an MLP {mlp:.3f}, the estimator {shifted:.3f}."
    )
    yield "It never forgets by itself: it warns (`DriftWarning`), and leaves the rest to its user."


def draw_streams(result: Result, png: Path) -> str | None:
    """Draw the error so far on the long streams and on drift."""
    figures = {
        title: [c for name in PEERS for c in result.curve(stream, name, axis="rows")]
        for stream, title in STREAMS.items()
    }
    title = "Long streams and drift: where the estimator is not the best"
    return plots.panels(png, title, "rows seen", "error so far", figures)


def table_streams(result: Result) -> TextTable:
    """Return the error so far at the end of each stream."""
    rows = []
    for name in PEERS:
        last = [max((r["steps"] for r in result.records(stream, name)), default=0) for stream in STREAMS]
        cells = [result.cell(s, name, steps) for s, steps in zip(STREAMS, last, strict=True)]
        if any(cells):
            rows.append([words_of(name), *cells])
    return ["learner", *STREAMS.values()], rows


def answer_calibration(result: Result) -> Iterator[str]:
    """Yield whether probabilities and intervals can be believed, and what a model costs."""
    excess, size = result.value("tables.ece_excess"), result.value("tables.state_bytes")
    others = {
        words_of(title.removeprefix("of ")): values[0]
        for title, values in result.claim("tables.ece_excess").get("beside", {}).items()
    }
    text = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
    yield f"Calibration error beyond chance is {excess:.4f}; of the peers it is {text or 'not run'}."
    yield (
        f"Intervals of regression miss their level by {result.value('tables.regression.coverage'):.3f} in the mean "
        "over tables and levels."
    )
    yield (
        f"The largest state is {size / 1e6 if not math.isnan(size) else size:.2f} MB; it learns "
        f"{result.value('tables.update_speed'):.1f} times as many rows a second as river's forest "
        f"({result.beside('tables.update_speed', 'ours predicting'):.1f} times with a prediction before each "
        f"mini-batch) and predicts {result.value('tables.predict_speed'):.2f} times as many as an MLP."
    )


PAGE = Page(
    study="tables",
    questions=(
        Question(
            "over-ridge",
            "Can a table be learned in one pass, as well as by other one-pass learners and by fits of all rows?",
            answer,
            draw,
            "Errors in the pass over those of ridge, table by table",
            table,
        ),
        Question(
            "streams",
            "Where does it lose?",
            lost,
            draw_streams,
            "Error so far on two long streams and under two kinds of drift",
            table_streams,
        ),
        Question(
            "calibration", "Can its probabilities be believed, and what does it cost?", answer_calibration
        ),
    ),
    claims={
        "tables.prequential.over_ridge": "classification: errors in the pass over ridge's, geometric mean of tables",
        "tables.prequential.sum_over_ridge": "classification: errors of all tables together over ridge's",
        "tables.prequential.rank": "classification: mean rank among the one-pass learners",
        "tables.prequential.wins": "share of tables on which no peer is better outside the interval",
        "tables.logloss.over_ridge": "classification: log-loss in the pass over ridge's",
        "tables.final.over_batch": "accuracy on held-out rows over that of the batch model that cross-validation picks",
        "tables.ece_excess": "calibration error beyond what chance alone would measure",
        "tables.regression.rank": "regression: mean rank among the one-pass learners",
        "tables.regression.coverage": "regression: how far the 80% and 95% intervals are from their level",
        "tables.checks_failed": "checks of scikit-learn that fail",
        "tables.state_bytes": "bytes of the largest state",
        "tables.predict_speed": "rows predicted a second, over an MLP of scikit-learn",
        "tables.update_speed": "rows learnt a second, over river's forest",
        "tables.killed_updates": "of 20 updates that were killed, those whose file is whole",
    },
    notes=(
        "One strict pass: mini-batches of 32 rows are predicted before they are learnt. 30% of the rows are held out "
        "for the accuracy at the end. Settings, one for all tables, were chosen on other tables, which are in the "
        "JSON, too. Intervals are by bootstrap over tables."
    ),
)
