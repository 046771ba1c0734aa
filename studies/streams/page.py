"""The page of `make study NAME=streams`: its question, its answer, its picture and its table."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result, TextTable, number
from studies.tables.words import words as words_of_both

OURS, ARF = "gradatim", "river-forest"
SHOWN = (OURS, "river-patches", "river-tree", "refit-lightgbm", "no-change")
WORDS = {
    "gradatim-32": "gradatim, 32 rows at a time",
    "gradatim-all": "gradatim, all rows alike, 32 at a time",
    "river-patches": "streaming random patches (river)",
    "river-forest-32": "adaptive forest (river), 32 rows at a time",
    "river-bayes": "naive Bayes (river)",
    "river-neighbours": "nearest neighbours in a window (river)",
}
COLORS = {"river-patches": "direct-lingam", "refit-lightgbm": "boosted-trees", "no-change": "random-order"}
"""Whose colour a learner without one of its own has, so that no two are alike."""

FARTHEST, ROWS = 4.0, 12
TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0)


def words(learner: str) -> str:
    """Return a learner's name in words."""
    return WORDS.get(learner) or words_of_both(learner)


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    return result.text(f"streams.{name}")


def times(result: Result, name: str) -> str:
    """Return a ratio as text, with the errors that it is a multiple of to follow."""
    text = value(result, name)
    return f"{text} of times" if text.startswith("an") else f"{text} times"


def alike(result: Result, name: str) -> str:
    """Return the ratio where both are asked 32 rows at a time, in brackets, or nothing where it was not run."""
    ratio = result.beside(f"streams.{name}.over_arf", "both asked")
    return "" if math.isnan(ratio) else f" ({number(ratio)} times where both are asked 32 rows at a time)"


def answer(result: Result) -> Iterator[str]:
    """Yield how the estimators do on streams that change, on real ones, and what it costs where nothing changes."""
    yield (
        f"Where the concept changes the estimator makes {times(result, 'drift.over_arf')} the errors of river's "
        f"adaptive forest{alike(result, 'drift')}, and on real streams "
        f"{times(result, 'real.over_arf')} its errors{alike(result, 'real')}."
    )
    yield (
        f"On real streams it makes {times(result, 'real.over_best')} the errors of the peer that is best on each, and "
        f"its mean rank over all streams is {value(result, 'rank')}."
    )
    yield (
        f"On stationary tables adaptive memory makes {times(result, 'stationary')} the errors of memory of all rows, "
        f"and 2,000 rows after columns moved the accuracy lost is {value(result, 'moved_columns')}."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw every learner's errors over those of river's forest, stream by stream."""
    rows = result.listing("test: over river's forest")
    if not rows:
        return "no picture drawn: river's forest was not run"
    listings = (x for x in result.data["listings"] if x["title"] == "test: over river's forest")
    places = {name: place for place, name in enumerate(next(listings)["columns"])}
    order = sorted(range(len(rows)), key=lambda row: float(rows[row][places[OURS]]))
    curves = []
    for name in SHOWN:
        if name in places:
            ys = [min(float(rows[row][places[name]]), FARTHEST) for row in order]
            curves.append(plots.Curve(COLORS.get(name, name), range(len(order)), ys, ys, ys, words(name)))
    labels = [rows[row][0].replace("-", ", ") for row in order]
    fewer = sum(float(row[places[OURS]]) < 1 for row in rows)
    title = f"One pass: fewer errors than river's forest on {fewer} of {len(rows)} streams"
    axis = "errors over those of river's adaptive forest (1: the same; beyond 4: drawn at 4)"
    return plots.dots(png, title, axis, labels, curves, 1.0, TICKS)


def table(result: Result) -> TextTable:
    """Return the learners, the best mean rank first."""
    columns = ("learner", "errors over river's forest, drifting", "real", "mean rank", "seconds a pass")
    return columns, [[words(row[0]), *row[1:]] for row in result.listing("learners")[:ROWS]]


PAGE = Page(
    study="streams",
    questions=(
        Question(
            "over-forest",
            "Do the estimators keep up with streams that change?",
            answer,
            draw,
            "Errors over those of river's adaptive forest, stream by stream",
            table,
        ),
    ),
    claims={
        "streams.drift.over_arf": "errors over river's adaptive forest's, generated streams, geometric mean",
        "streams.real.over_arf": "errors over river's adaptive forest's, real streams, geometric mean",
        "streams.real.over_best": "errors over those of the best peer on each real stream, geometric mean",
        "streams.rank": "mean rank among all learners, all streams",
        "streams.stationary": "errors on stationary tables, adaptive memory over memory of all rows",
        "streams.moved_columns": "accuracy lost 2,000 rows after columns moved, against a learner that began there",
        "streams.time_over_all": "seconds of a pass by 32 rows, adaptive memory over memory of all rows",
    },
    notes=(
        "One strict pass: every row is predicted before it is learnt, one at a time. Models refitted at doublings see "
        "mini-batches of 32. "
        "Settings were chosen on other streams, which are in the JSON, too. Seconds are of the processor. Intervals "
        "are by bootstrap over streams and seeds. A claim that was not measured has no value, and fails."
    ),
)
