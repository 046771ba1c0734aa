"""The page of `make study NAME=systems`: its question, its answer and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result

from .parts import PARTS

RATIOS = {
    "blocks.over_lasso": "blocks, 60 rows: over the lasso",
    "blocks.early": "blocks, 25 rows: over the lasso",
    "blocks.over_coclustering": "blocks, 60 rows: over co-clustering",
    "relations.over_uniform": "relations: over uniform ones",
    "memory.over_maml": "memory imitation: over MAML",
    "path.over_meta_sgd": "MAML whose steps differ: over Meta-SGD",
}
"""Errors over those of a baseline."""


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    return result.text(f"systems.{name}")


BUFFER = "50"
STREAMS = ("mnist", "fashion", "banking77", "omniglot")
REHEARSAL = {
    "rehearsal alone": "rehearsal alone",
    "ER-ACE": "ER-ACE",
    "logit adjustment": "logit adjustment",
    "marginal": "with information maximization",
    "streaming LDA, no buffer": "streaming LDA, no buffer",
    "RefinedClassifier, no buffer": "`RefinedClassifier`, no buffer",
}
"""Methods on streams of classes, by their name in the listings, and in words."""


def listed(result: Result, title: str, row: str, column: str) -> str:
    """Return a cell of a listing, by its title and the first cell of its row; empty where it was not run."""
    for listing in result.data.get("listings", ()):
        if listing["title"] == title:
            place = listing["columns"].index(column)
            return next((cells[place] for cells in listing["rows"] if cells[0] == row), "")
    return ""


def accuracies(result: Result) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return columns and rows of the accuracies at the end of streams of classes, buffers of 50 rows."""
    rows = [
        [words, *(listed(result, f"{stream}: final accuracy by buffer", name, BUFFER) for stream in STREAMS)]
        for name, words in REHEARSAL.items()
    ]
    return (f"percent right at the end, {BUFFER} rows in the buffer", *STREAMS), rows


def ahead(result: Result) -> str:
    """Return on how many streams a classifier without a buffer is better than the network with its penalty."""
    _, rows = accuracies(result)
    table = {
        name: [float(cell.split()[0]) for cell in cells if cell]
        for (_, *cells), name in zip(rows, REHEARSAL, strict=True)
    }
    if not table["marginal"]:
        return "an unmeasured number"
    best = [max(pair) for pair in zip(*(table[name] for name in [*REHEARSAL][-2:]), strict=True)]
    return str(sum(one > other for one, other in zip(best, table["marginal"], strict=True)))


def answer(result: Result) -> Iterator[str]:
    """Yield what each system gains over the baseline that could win."""
    yield (
        f"Rehearsal with information maximization gains {value(result, 'information.over_er')} points of accuracy over "
        f"rehearsal alone with buffers of 20 and 50 rows, and {value(result, 'information.over_ace')} over ER-ACE. "
        f"Streaming LDA and `RefinedClassifier`, which keep no row, are better still on "
        f"{ahead(result)} of the four streams."
    )
    yield (
        "Blocks of features and tasks have an excess error of "
        f"{value(result, 'blocks.over_lasso')} times the lasso's at 60 rows a task, and of "
        f"{value(result, 'blocks.over_coclustering')} times that of a lasso, co-clustering and a refit: two calls of "
        "scikit-learn."
    )
    yield (
        f"MAML whose steps differ has {value(result, 'path.over_meta_sgd')} times the error of Meta-SGD, memory "
        f"imitation {value(result, 'memory.over_maml')} times that of MAML where labels can be memorised, and learnt "
        f"relations {value(result, 'relations.over_uniform')} times that of uniform ones."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw the errors over those of a baseline, system by system."""
    found = {label: result.claim(f"systems.{name}") for name, label in RATIOS.items()}
    found = {label: claim for label, claim in found.items() if claim.get("value") is not None}
    values, low, high = ([float(claim[key]) for claim in found.values()] for key in ("value", "low", "high"))
    curves = [plots.Curve("gradatim", range(len(found)), values, low, high)]
    marks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
    title = "Five systems, each beside a baseline that could win"
    return plots.dots(png, title, "error over the baseline's (1: the same)", [*found], curves, 1.0, marks)


PAGE = Page(
    study="systems",
    questions=(
        Question(
            "ratios",
            "Do systems beside this one earn their place?",
            answer,
            draw,
            "Errors over those of a baseline, system by system",
            accuracies,
        ),
    ),
    claims={name: words for part in PARTS for name, words in part.claims.items()},
    notes=(
        "Settings were chosen on other seeds, validation tasks or validation rows. Intervals are over seeds. The JSON "
        "has the errors of every method on every stream, family and table. A claim that was not measured has no value, "
        "and fails."
    ),
)
