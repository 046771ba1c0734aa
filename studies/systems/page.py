"""The page of `make study NAME=systems`: its question, its answer and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result, number

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
    measured = result.claim(f"systems.{name}").get("value")
    return "an unmeasured number" if measured is None else number(measured)


def answer(result: Result) -> Iterator[str]:
    """Yield what each system gains over the baseline that could win."""
    yield (
        f"Rehearsal with information maximization gains {value(result, 'information.over_er')} points of accuracy over "
        f"rehearsal alone with buffers of 20 and 50 rows, and {value(result, 'information.over_ace')} over ER-ACE."
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
        ),
    ),
    claims={name: words for part in PARTS for name, words in part.claims.items()},
    notes=(
        "Settings were chosen on other seeds, validation tasks or validation rows. Intervals are over seeds. The JSON "
        "has the errors of every method on every stream, family and table. A claim that was not measured has no value, "
        "and fails."
    ),
)
