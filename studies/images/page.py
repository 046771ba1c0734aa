"""The page of `make study NAME=images`: what it asks, its answer, its picture and its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.palette import words_of
from gradatim.comparison.report import Page, Question, Result, TextTable

SOURCES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST, learners of MNIST"}

NAMED = (
    "parametric-both",
    "explicit-both",
    "implicit-one-step-all",
    "closed-form",
    "random-features",
    "newton",
    "adam",
    "lbfgs",
)
GREY = (
    "parametric-one-step-gradients",
    "voted-parametric-one-step-gradients",
    "parametric-one-step-all",
    "implicit",
    "hypernetwork",
    "sgd",
    "momentum",
    "ridge",
)
ROWS = (*NAMED, "parametric-one-step-gradients", "parametric-one-step-all", "implicit", "momentum")


def answer(result: Result) -> Iterator[str]:
    """Yield what iterating gains on MNIST, and what stands beside it."""
    value = result.value
    yield (
        "On tasks of MNIST after ten mini-batches of 100 rows, the refined parametric learner makes "
        f"{value('images.over_adam'):.2f} times the errors of tuned Adam and {value('images.over_onestep'):.2f} times "
        "those of its one-step twin after one mini-batch; on Fashion-MNIST, which it has never seen, the latter is "
        f"{value('images.ood'):.2f}."
    )
    yield (
        "What a learnt update adds is less than that: a tuned damped Newton step, which learns nothing, has the same "
        f"errors (ratio {result.beside('images.over_adam', 'over a tuned damped Newton'):.2f}), so has the one-step "
        f"learner applied ten times ({result.beside('images.over_onestep', 'over the same one-step'):.2f}), and one "
        "implicit pass over all 1,000 rows has fewer (ours over it: "
        f"{result.beside('images.over_full', 'over the implicit one-shot'):.2f})."
    )
    yield (
        f"The best of our learners, ridge on learnt features, is {value('images.best_points'):.1f} points better than "
        "L-BFGS on all rows; tuned random features, which learn nothing, are "
        f"{result.beside('images.best_points', 'of tuned random features'):.1f} points better."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw error against rows seen, on both sources."""
    figures = {
        title: [
            curve
            for name in (*NAMED, *GREY)
            for curve in result.curve(source, name, "error", axis="rows", method=name)
        ]
        for source, title in SOURCES.items()
    }
    title = "Refining beats Adam and one step; closed forms and one pass over all rows beat refining"
    return plots.panels(png, title, "rows seen", "error", figures)


def table(result: Result) -> TextTable:
    """Return errors after 1, 10 and 98 mini-batches."""
    columns = ["method", *(f"MNIST, step {step}" for step in (1, 10, 98))]
    columns += [f"Fashion-MNIST, step {step}" for step in (1, 10, 98)]
    rows = []
    for name in ROWS:
        cells = [result.cell(source, name, step, "error") for source in SOURCES for step in (1, 10, 98)]
        rows.append([words_of(name), *cells])
    return columns, sorted((row for row in rows if any(row[1:])), key=lambda row: row[2])


PAGE = Page(
    study="images",
    questions=(
        Question(
            "rows",
            "Does iterating pay on real images, against baselines that could win?",
            answer,
            draw,
            "Error against rows seen, MNIST and Fashion-MNIST",
            table,
        ),
    ),
    claims={
        "images.points_to_lbfgs": "points of error behind L-BFGS on all rows so far, ten mini-batches",
        "images.over_adam": "error over tuned Adam's, ten mini-batches",
        "images.over_onestep": "error after ten mini-batches over that of the best one-step learner after one",
        "images.over_bagged": "error over that of the best bag of ten one-step answers",
        "images.over_full": "error over that of one parametric pass over all 1,000 rows",
        "images.ood": "the same as over_onestep on Fashion-MNIST, both trained on MNIST",
        "images.best_points": "points by which our best learner is better than L-BFGS on all rows so far",
        "images.ddp": "relative difference of gradients of two processes from those of one",
    },
    notes=(
        "Tasks have ten classes, 64 random projections of the pixels and mini-batches of 100 rows. Learners see no "
        "pixel of Fashion-MNIST in meta-training. Which learner stands for a group was chosen on validation tasks. "
        "One pass over all rows stops where its work, which grows with their square, gets too large."
    ),
)
