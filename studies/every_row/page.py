"""The page of `make study NAME=every_row`: what it asks, its answers, its pictures and its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.palette import words_of
from gradatim.comparison.report import Page, Question, Result, TextTable

GAINS = ("constant", "decaying", "precision", "proximal", "bayesian", "newton", "sgd", "oracle")
"""Learners of the first picture, by the end of their names in records."""

NETWORKS = (
    "smoother",
    "kalman",
    "network-bayesian",
    "random-features",
    "mlp-tanh",
    "mlp-relu",
    "boosted-trees",
    "network-decaying",
)
DRIFT = (
    "run-length",
    "conjugate-forgets",
    "bank",
    "conjugate",
    "river-linear",
    "river-restarted",
    "river-forest",
    "oracle",
)
STOPS = ("fitted estimate", "prequential average", "mean of the last 4")


def curves(
    result: Result, families: Mapping[str, str], metric: str, names: tuple[str, ...]
) -> dict[str, list[plots.Curve]]:
    """Return curves by the title of their plot; a name may stand alone or after its family."""
    return {
        title: [
            curve
            for name in names
            for curve in result.curve(family, f"{family}-{name}", metric, method=name)
            or result.curve(
                family, name, metric, method=name.removeprefix("network-") if "decay" in name else name
            )
        ]
        for family, title in families.items()
    }


def answer(result: Result) -> Iterator[str]:
    """Yield how far learners are from the best possible after a thousand mini-batches."""
    value = result.value
    constant = result.mean("isotropic", "isotropic-constant", 1000) / result.mean("isotropic", "oracle", 1000)
    yield (
        "With a constant gain no: after 1,000 mini-batches its excess risk is "
        f"{constant:,.0f} times that of the best possible estimator: each mini-batch replaces what the last ones said."
    )
    yield (
        "A transformer trained on ten steps that takes proximal steps stays within "
        f"{value('gain.transformer.ratio1000'):.2f} times the best possible after 1,000, and within "
        f"{value('gain.transformer.correlated160'):.2f} times on correlated rows after 160."
    )
    yield (
        "The default learner keeps a posterior in closed form and loses nothing "
        f"({value('gain.default.ratio1000'):.3f} times); so does ridge, which learns nothing."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw excess risk against mini-batches, on rows alike in every direction and on correlated ones."""
    families = {
        "isotropic": "rows alike in every direction",
        "correlated": "correlated rows, condition number 30",
    }
    title = "A constant gain stops improving; a posterior does not"
    return plots.panels(
        png, title, "mini-batches of 16 rows seen", "excess risk", curves(result, families, "", GAINS)
    )


def table(result: Result) -> TextTable:
    """Return excess risks after 10, 160 and 1,000 mini-batches."""
    steps, rows = (10, 160, 1000), []
    for name in (*GAINS, "learnt-gain", "memory", "constant-averaged", "proximal-average-late"):
        cells = []
        for family in ("isotropic", "correlated"):
            record = f"{family}-{name}" if result.records(family, f"{family}-{name}") else name
            cells += [result.cell(family, record, step) for step in steps]
        rows.append([words_of(name), *cells])
    columns = [f"{kind}, step {step:,}" for kind in ("alike", "correlated") for step in steps]
    return ["method", *columns], [row for row in rows if any(row[1:])]


def answer_networks(result: Result) -> Iterator[str]:
    """Yield how good one pass is where no closed form exists."""
    value, beside = result.value, result.beside
    yield (
        "On random networks a posterior over weights with a window of rows has "
        f"{value('gain.network.ratio160'):.2f} times the excess risk of a tuned MLP trained on all rows; the mean of "
        f"four such MLPs is better (ours over theirs: {beside('gain.network.ratio160', 'over the mean of four'):.2f}), "
        "and without the window, learnt features or weights fail."
    )
    yield (
        "On MNIST one pass on landmarks, with a state of 4 MB, leaves "
        f"{value('gain.mnist.error_over_mlp'):.2f} times the errors of a converged MLP; with 15 MB "
        f"{beside('gain.mnist.error_over_mlp', 'landmarks-2700'):.2f} times."
    )
    yield (
        "Where rows have classes, the excess loss after 160 mini-batches is "
        f"{value('gain.classification.excess160'):.3f} times that after ten."
    )


def draw_networks(result: Result, png: Path) -> str | None:
    """Draw excess risk on random networks."""
    (lines,) = curves(result, {"network": ""}, "", NETWORKS).values()
    title = "A posterior over weights, with a window, does as well as one MLP on all rows"
    return plots.lines(png, title, "mini-batches of 16 rows seen", "excess risk", lines)


def answer_drift(result: Result) -> Iterator[str]:
    """Yield whether learners follow a task that changes."""
    value, beside = result.value, result.beside
    yield (
        "Where the task changes at once, a posterior over the time of the last change has "
        f"{value('gain.drift.regret'):.2f} times the regret of the best tuned linear model of river."
    )
    yield (
        "River's model that is restarted at each detected change does as well "
        f"({beside('gain.drift.regret', 'regret of run-length over river-restarted'):.2f}: no gain there)."
    )
    yield (
        "Where the task rotates slowly, forgetting at a tuned rate ties with river's linear model "
        f"({beside('gain.drift.regret', 'excess error of conjugate-forgets over river-linear'):.2f})."
    )


def draw_drift(result: Result, png: Path) -> str | None:
    """Draw the excess error under both kinds of drift."""
    families = {"drift-abrupt": "the task changes at once", "drift-rotating": "the task rotates"}
    title = "Under drift a state has to forget"
    found = curves(result, families, "excess error", DRIFT)
    return plots.panels(png, title, "mini-batches seen", "excess error", found)


def answer_stops(result: Result) -> Iterator[str]:
    """Yield whether a learner's estimate of its own loss can be believed where it stops."""
    value, beside = result.value, result.beside
    yield (
        "Stopping by an estimate picks the moments at which it happens to be low; a fitted estimate is still off by "
        f"{value('gain.stop_calibration'):.1%} in the mean, what chance alone would measure being "
        f"{beside('gain.stop_calibration', 'what chance'):.1%}."
    )
    yield (
        f"The prequential average is off by {beside('gain.stop_calibration', 'the prequential'):.0%}, the mean of the "
        f"last four mini-batches by {beside('gain.stop_calibration', 'the mean of the last'):.0%}."
    )
    yield f"The worst bin of the fitted estimate is off by {beside('gain.stop_calibration', 'the worst bin'):.1%}."


def draw_stops(result: Result, png: Path) -> str | None:
    """Draw predicted over realised loss at the time of stopping."""
    families = {"linear": "linear regression", "classes": "classes", "network": "random networks"}
    found = curves(result, families, "predicted over realised loss", STOPS)
    title = "At the stopping time, the fitted estimate is what comes true"
    axis = "mini-batches after which half of the tasks have stopped"
    return plots.panels(png, title, axis, "predicted over realised loss", found, across=3)


PAGE = Page(
    study="every_row",
    questions=(
        Question(
            "gains",
            "Does every row still count after a thousand mini-batches?",
            answer,
            draw,
            "Excess risk against mini-batches: rows alike in every direction, and correlated rows",
            table,
        ),
        Question(
            "networks",
            "And where there is no closed form?",
            answer_networks,
            draw_networks,
            "Excess risk on random networks against mini-batches",
        ),
        Question(
            "drift",
            "Can it follow a task that changes?",
            answer_drift,
            draw_drift,
            "Excess error under abrupt drift and under rotation",
        ),
        Question(
            "stops",
            "Can its own estimate of its loss be believed?",
            answer_stops,
            draw_stops,
            "Predicted over realised loss at the time of stopping, three families",
        ),
    ),
    claims={
        "gain.transformer.ratio10": "best transformer, rows alike, step 10: excess risk over the best possible",
        "gain.transformer.ratio160": "the same, step 160",
        "gain.transformer.ratio1000": "the same, step 1,000",
        "gain.transformer.correlated160": "best transformer, correlated rows, step 160",
        "gain.default.ratio1000": "default learner, step 1,000, the worse of both kinds of rows",
        "gain.linear100.ratio160": "default learner in 100 dimensions, step 160",
        "gain.classification.excess160": "default learner, classes: excess loss at step 160 over that at step 10",
        "gain.network.moments160": "random networks, best state of finite sums or a Gaussian, over a tuned MLP",
        "gain.network.ratio160": "random networks, best learner of ours, over a tuned MLP",
        "gain.mnist.error_over_mlp": "MNIST in one pass, a state of at most 4 MB: errors over a converged MLP's",
        "gain.never_worse": "default learner: share of steps after which the excess rises by more than 1%",
        "gain.merge8": "eight merged shards over one pass: excess risk",
        "gain.drift.regret": "abrupt drift: regret over that of the best tuned linear model of river",
        "gain.stop_calibration": "relative error of the predicted loss at the stopping time, mean of bins",
    },
    notes=(
        "*Best possible* is the exact posterior under the true noise. Learners with transformers are trained on ten "
        "steps. Which of them a claim is about was chosen on validation tasks."
    ),
)
