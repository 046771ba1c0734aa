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

UNLEARNED = ("ridge", "random-features", "kernel", "newton")
LEARNERS = (
    (("plda", "alpaca"), "learnt keys and prior"),
    (("plda-fixed-keys", "alpaca-fixed-keys"), "prior alone, keys as they are drawn"),
    (("plda-untrained", "alpaca-untrained"), "nothing trained"),
    (("prototypical",), "prototypical network"),
    (("ridge",), "ridge, tuned"),
    (("random-features",), "random features, tuned"),
    (("kernel",), "kernel, tuned"),
    (("newton",), "Newton's method, damped, tuned"),
    (("gaussian-process",), "Gaussian process, tuned"),
    (("oracle",), "knows the family"),
)
FAMILIES = {
    "omniglot": "letters",
    "intents": "sentences",
    "sinusoids": "sinusoids",
    "sinusoids, noise .3": "noise .3",
    "sinusoids, hidden frequency": "hidden frequency",
}
"""The learners and the families of the second table."""

TITLES = {
    "omniglot": "letters of other alphabets, ten ways: error",
    "sinusoids, noise .3": "sinusoids, noise .3: squared error",
}


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    return result.text(f"meta.{name}", "an unmeasured share")


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


def shares(result: Result) -> Iterator[str]:
    """Yield what remains without a learnt part, and where other tasks help little."""
    letters, shots = "meta.omniglot.over_unlearned", "meta.omniglot.five_way"
    off = [number(result.beside(letters, f"with {name}")) for name in ("plda-fixed-keys", "plda-untrained")]
    seconds = number(result.beside(letters, "seconds of training on two cores, plda"))
    yield (
        f"On letters, the prior alone, with keys as they are drawn, makes {off[0]} times the errors of the best that "
        f"learns nothing from other tasks, and with nothing trained {off[1]} times; training of keys and prior takes "
        f"{seconds} seconds of two cores."
    )
    ours = [number(result.mean("intents", "plda", step)) for step in (1, 4)]
    others = [number(least(result, "intents", step)) for step in (1, 4)]
    yield (
        f"On sentences of other intents, where training has 46 classes, errors are {ours[0]} after 10 rows and "
        f"{ours[1]} after 100; those of the best that learns nothing are {others[0]} and {others[1]}."
    )
    yield (
        f"After one row of each of five letters the accuracy is {value(result, 'omniglot.five_way')} percent, that of "
        f"a prototypical network of the same training {number(result.beside(shots, 'prototypical'))}."
    )


def least(result: Result, family: str, step: int) -> float:
    """Return the lowest mean error of the methods that learn nothing from other tasks."""
    return min(result.mean(family, name, step) for name in UNLEARNED)


def errors(result: Result) -> TextTable:
    """Return the errors of all learners on all families of tasks that share something."""
    rows = []
    for names, words in LEARNERS:
        cells = [
            " / ".join(f"{record['mean']:.2g}" for record in next((r for r in found if r), []))
            for family in FAMILIES
            for found in [[result.records(family, name) for name in names]]
        ]
        if any(cells):
            rows.append([words, *cells])
    return ("error after 10 / 20 / 50 / 100 rows, sinusoids 5 / 10 / 20 / 40", *FAMILIES.values()), rows


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
        Question("parts", "What is it that is learnt, and where does it help little?", shares, table=errors),
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
