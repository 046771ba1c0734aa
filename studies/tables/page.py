"""The page of `make study NAME=tables`: its questions, answers, pictures and tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result, TextTable, number

from .words import WORDS, words

OURS, RIDGE, ADAPTIVE = "gradatim", "plain-ridge", "gradatim-adaptive"
PEERS = (OURS, RIDGE, "sgd", "mlp-64", "gaussian-nb", "river-forest", "river-tree")
STREAMS = {
    "stream-mnist": "60,000 images of MNIST",
    "stream-fashion": "60,000 images of Fashion-MNIST",
    "drift-labels": "drift: labels are permuted",
    "drift-rotation": "drift: images are rotated",
}
SHOWN = (*PEERS, *WORDS)
"""Learners of the tables; the last ones take no part in ranks."""

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
    yield "It has nothing meta-trained. Long streams and drift, where others may win, are below."


def answer_refits(result: Result) -> Iterator[str]:
    """Yield how the estimators compare with models that see rows many times."""
    yield (
        "LightGBM is fitted anew to all rows so far whenever these have doubled, so that it sees a row many times. "
        f"Up to row 1,000 the estimator makes {times(result, 'refit.early')} its errors, beyond it, on tables of 2,000 "
        f"rows and more, {times(result, 'refit.over_lightgbm')}; where numbers are predicted its RMSE there is "
        f"{times(result, 'refit.over_lightgbm_rmse')} LightGBM's."
    )
    yield (
        f"At the end of the pass it makes {times(result, 'final.errors_over_batch')} the errors of the batch model "
        "that cross-validation picks among logistic regression, a network, a forest and boosted trees."
    )
    yield (
        "On the first 32 rows, after 1, 2, 4, 8 and 16 known ones, its loss is "
        f"{times(result, 'early.over_mean')} that of the running mean or of the base rates, in the worst of five "
        "collections of tables."
    )


def times(result: Result, name: str) -> str:
    """Return a ratio as text, with what it is a multiple of to follow."""
    claim = result.claim(f"tables.{name}")
    if not claim or claim.get("value") is None:
        return "an unmeasured number of times"
    return f"{number(claim['value'])} times"


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
    """Return which column of a listing belongs to which learner; those that take no part in ranks are left out."""
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
    listed = (row for row in result.listing("test: ") if not row[0].startswith("batch, best"))
    rows = [[words(row[0]), *row[1:6]] for row in listed]
    return columns, rows


def answer_streams(result: Result) -> Iterator[str]:
    """Yield how the estimators do on long streams, and where the task changes."""
    refined, ridge = (result.mean("stream-mnist", name, 1875) for name in (OURS, RIDGE))
    fashion, fashion_ridge = (result.mean("stream-fashion", name, 1875) for name in (OURS, RIDGE))
    yield (
        f"Over 60,000 images of MNIST in one pass the errors so far are {refined:.3f}, those of plain ridge "
        f"{ridge:.3f}; of Fashion-MNIST {fashion:.3f} and {fashion_ridge:.3f}."
    )
    yield (
        "After 50,000 rows of the two streams its errors on the 10,000 held-out ones are "
        f"{times(result, 'long.over_best_head')} those of the best single ridge head, solved anew from all rows and "
        "picked on these very rows, on the worse of the two."
    )
    names = (OURS, ADAPTIVE, "sgd", "mlp-64")
    shifted, adaptive, sgd, mlp = (result.mean("drift-labels", name, 625) for name in names)
    yield (
        f"Where labels are permuted in the middle of the stream its errors are {shifted:.3f}, as it never forgets by "
        f'itself; with memory="adaptive" they are {adaptive:.3f}, of SGD {sgd:.3f}, of an MLP {mlp:.3f}.'
    )


def draw_streams(result: Result, png: Path) -> str | None:
    """Draw the error so far on the long streams and on drift."""
    figures = {
        title: [
            *(c for name in PEERS for c in result.curve(stream, name, axis="rows")),
            *result.curve(
                stream, ADAPTIVE, axis="rows", method="parametric-gradients", label=words(ADAPTIVE)
            ),
        ]
        for stream, title in STREAMS.items()
    }
    title = "Long streams and drift"
    return plots.panels(png, title, "rows seen", "error so far", figures)


def table_streams(result: Result) -> TextTable:
    """Return the error so far at the end of each stream."""
    rows = []
    for name in SHOWN:
        last = [max((r["steps"] for r in result.records(stream, name)), default=0) for stream in STREAMS]
        cells = [result.cell(s, name, steps) for s, steps in zip(STREAMS, last, strict=True)]
        if any(cells):
            rows.append([words(name), *cells])
    return ["learner", *STREAMS.values()], rows


def answer_calibration(result: Result) -> Iterator[str]:
    """Yield whether probabilities and intervals are calibrated, and what a model costs."""
    excess, size = result.value("tables.ece_excess"), result.value("tables.state_bytes")
    others = {
        words(title.removeprefix("of ")): values[0]
        for title, values in result.claim("tables.ece_excess").get("beside", {}).items()
    }
    text = ", ".join(f"{name} {value:.3f}" for name, value in others.items())
    yield f"Calibration error beyond chance is {excess:.4f}; of the peers it is {text or 'not run'}."
    yield (
        f"Intervals of regression miss their level by {result.value('tables.regression.coverage'):.3f} in the mean "
        "over tables and levels; among the lowest to the highest fifth of what is predicted, 80% intervals miss it by "
        f"{result.value('tables.coverage.fifths'):.3f}."
    )
    yield (
        f"The largest state is {size / 1e6 if not math.isnan(size) else size:.2f} MB. By mini-batches, each predicted "
        f"before it is learnt, it takes in {result.value('tables.update_speed'):.1f} times as many rows a second as "
        f"river's forest, which goes row by row; row by row it takes {times(result, 'row_by_row')} the forest's time. "
        f"It predicts {result.value('tables.predict_speed'):.2f} times as many rows a second as an MLP."
    )


def answer_states(result: Result) -> Iterator[str]:
    """Yield whether merging and forgetting come to the same as one pass."""
    sums = number(result.beside("tables.merge32", "weighed by merged sums"))
    yield (
        "After 32 shards are learnt apart and merged, and experts are weighed by the first 256 rows, the log-loss is "
        f"{times(result, 'merge32')} that of one pass. Weighed by the merged sums alone, without any row: {sums}."
    )
    forget, lost, difference = (
        number(result.value(f"tables.{name}")) for name in ("forget", "ray", "ray_difference")
    )
    solved, reweighed = (
        number(result.beside("tables.forget", start)) for start in ("heads of both", "and experts of both")
    )
    yield (
        "Where half the rows are forgotten, the greatest change of a probability, against never having learnt them, is "
        f"{forget}; with the heads of both solved anew it is {solved}, and with the experts of both weighed anew by "
        f"the rows that remain, {reweighed}."
    )
    yield (
        f"Rows lost or counted twice on a cluster whose workers are killed: {lost}; greatest difference of a "
        f"probability from one process: {difference}."
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
            "refits",
            "Does it keep up with models that see every row many times?",
            answer_refits,
        ),
        Question(
            "streams",
            "What of long streams, and of a task that changes?",
            answer_streams,
            draw_streams,
            "Error so far on two long streams and under two kinds of drift",
            table_streams,
        ),
        Question(
            "calibration", "Can its probabilities be believed, and what does it cost?", answer_calibration
        ),
        Question("states", "Does merging or forgetting come to the same as one pass?", answer_states),
    ),
    claims={
        "tables.prequential.over_ridge": "classification: errors in the pass over ridge's, geometric mean of tables",
        "tables.prequential.sum_over_ridge": "classification: errors of all tables together over ridge's",
        "tables.prequential.rank": "classification: mean rank among the one-pass learners",
        "tables.prequential.wins": "share of tables on which no one-pass learner is better outside the interval",
        "tables.logloss.over_ridge": "classification: log-loss in the pass over ridge's",
        "tables.refit.over_lightgbm": "errors beyond row 1,000 over those of LightGBM refitted at doublings, tables of "
        "2,000 rows and more, geometric mean of (errors + .5) over (errors + .5)",
        "tables.refit.over_lightgbm_rmse": "the same where numbers are predicted: RMSE beyond row 1,000",
        "tables.refit.early": "errors up to row 1,000 over those of LightGBM refitted at doublings, all tables",
        "tables.early.over_mean": "loss on rows 2 to 32 over that of the running mean or the base rates, summed in a "
        "collection of tables, the worst collection",
        "tables.final.over_batch": "accuracy on held-out rows over that of the batch model that cross-validation picks",
        "tables.final.errors_over_batch": "errors on held-out rows over those of that batch model, geometric mean of "
        "(errors + .5) over (errors + .5)",
        "tables.macro_recall": "recall on held-out rows averaged over classes, mean over that of that batch model",
        "tables.ece_excess": "calibration error beyond what chance alone would measure",
        "tables.regression.rank": "regression: mean rank among the one-pass learners",
        "tables.regression.coverage": "regression: how far the 80% and 95% intervals are from their level",
        "tables.coverage.fifths": "how far the 80% intervals are from their level in fifths of what is predicted",
        "tables.long.over_best_head": "held-out errors after 50,000 rows over those of the best single ridge head, the "
        "worse of two streams of images",
        "tables.merge32": "log-loss after merging 32 shards, experts weighed by the first 256 rows, over that of "
        "one pass, geometric mean of tables",
        "tables.forget": "greatest change of a probability: half the rows forgotten, or never learnt",
        "tables.checks_failed": "checks of scikit-learn that fail",
        "tables.state_bytes": "bytes of the largest state",
        "tables.predict_speed": "rows predicted a second, over an MLP of scikit-learn",
        "tables.update_speed": "rows a second, each mini-batch of 32 predicted and then learnt, over river's forest, "
        "which predicts and learns row by row",
        "tables.row_by_row": "processor time to predict and learn one row, rows 1,000 to 3,000, over river's forest's",
        "tables.killed_updates": "of 20 updates that were killed, those whose file is whole",
        "tables.ray": "rows lost or counted twice on a cluster of Ray whose workers are killed",
        "tables.ray_difference": "greatest difference of a probability between that cluster and one process",
    },
    notes=(
        "One strict pass: mini-batches of 32 rows are predicted before they are learnt. 30% of the rows are held out "
        "for the accuracy at the end. Settings, one for all tables, were chosen on other tables, which are in the "
        "JSON, too. Learners without a rank are our estimator with another memory, and models that are fitted anew to "
        "all rows so far (32, 64, 128, ...), which see rows many times. Intervals are by bootstrap over tables. A "
        "claim that was not measured has no value, and fails."
    ),
)
