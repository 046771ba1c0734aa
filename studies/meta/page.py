"""The page of `make study NAME=meta`: its question, its answer, its picture and its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result, TextTable, number

from .parts import PARTS

SHOWN: dict[str, dict[str, tuple[str, str]]] = {
    "omniglot": {
        "plda": ("gradatim", "learnt keys and prior"),
        "prototypical": ("closed-form", "prototypical network"),
        "plda-fixed-keys": ("parametric-gradients", "prior alone, keys as they are drawn"),
        "random-features": ("random-features", "random features, tuned"),
        "ridge": ("ridge", "ridge, tuned"),
        "kernel": ("boosted-trees", "kernel or Gaussian process, tuned"),
    },
    "sinusoids, noise .3": {
        "alpaca": ("gradatim", "learnt keys and prior"),
        "alpaca-fixed-keys": ("parametric-gradients", "prior alone, keys as they are drawn"),
        "gaussian-process": ("boosted-trees", "kernel or Gaussian process, tuned"),
        "oracle": ("oracle", "knows the family"),
    },
}
"""The learners of the picture by family: whose colour they have, and what the legend says."""

TITLES = {
    "omniglot": "letters of other alphabets, ten ways: error",
    "sinusoids, noise .3": "sinusoids, noise .3: squared error",
}


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    claim = result.claim(f"meta.{name}")
    return "an unmeasured share" if claim.get("value") is None else number(claim["value"])


def times(result: Result, name: str) -> str:
    """Return a ratio as text, with the errors that it is a multiple of to follow."""
    text = value(result, name)
    return f"{text} of" if text.startswith("an") else f"{text} times"


def answer(result: Result) -> Iterator[str]:
    """Yield how far tasks help one another: on letters, on sinusoids, and on tables in groups."""
    yield (
        f"On letters of other alphabets, ten ways, learnt keys and a learnt prior make "
        f"{times(result, 'omniglot.over_unlearned')} the errors of the best tuned method that learns nothing from "
        f"other tasks, and {times(result, 'omniglot.over_proto')} those of a prototypical network."
    )
    yield (
        f"On sinusoids they make {times(result, 'sinusoid.over_gp')} the squared errors of a tuned Gaussian process "
        f"after 5 and 10 rows, and with noise {times(result, 'sinusoid.over_oracle')} those of the posterior that "
        "knows the family."
    )
    yield (
        f"On tables in groups a new group's loss after 8 to 32 rows is {times(result, 'own.over_alone')} that of the "
        f"estimator on the group alone, and {times(result, 'own.over_best')} that of the best tool for grouped rows "
        "on each table."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw errors against rows on letters and on sinusoids."""
    panes = {
        TITLES[family]: [
            curve
            for name, (method, label) in learners.items()
            for curve in result.curve(family, name, axis="rows", method=method, label=label)
        ]
        for family, learners in SHOWN.items()
    }
    title = "What was learnt from other tasks, on new ones"
    return plots.panels(png, title, "rows seen of a new task", "error", panes)


def table(result: Result) -> TextTable:
    """Return the losses on tables in groups."""
    title = "losses of test tasks"
    listing = next((x for x in result.data.get("listings", ()) if x["title"].startswith(title)), None)
    if listing is None:
        return (), []
    return ["new groups' loss after 8 / 16 / 32 rows and 80% of the rows", *listing["columns"][1:]], listing[
        "rows"
    ]


PAGE = Page(
    study="meta",
    questions=(
        Question(
            "rows",
            "What is gained by learning from other tasks?",
            answer,
            draw,
            "Errors on new tasks against rows seen, learnt and not learnt from other tasks",
            table,
        ),
    ),
    claims={name: words for part in PARTS for name, words in part.claims.items()},
    notes=(
        "Settings and iterations of training were chosen on validation tasks from grids that the study holds; test "
        "tasks chose nothing. Of several tuned peers the best is an oracle's choice on test tasks. States are sums "
        "over rows: a learner that takes all rows in one step is the same learner. Training times are seconds of the "
        "processor, of which two pass in a second of two cores. Test groups are drawn from those on which no setting "
        "of the library was chosen. Squared errors of tables are over the variance of y; of classes it is the "
        "log-loss. Intervals are by bootstrap over seeds (divisions of groups) and tasks."
    ),
)
