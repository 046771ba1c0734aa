"""The page of `make study NAME=paper`: what it asks, its answers, its pictures and its tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradatim.comparison import plots
from gradatim.comparison.palette import words_of
from gradatim.comparison.report import Page, Question, Result, TextTable

from .tables import learner

FAMILIES = {
    "linear-8": "linear regression, 8 dimensions",
    "linear-100": "linear regression, 100 dimensions",
    "linear-classes": "linear classification",
    "mnist": "MNIST",
    "fashion-mnist": "Fashion-MNIST",
    "embeddings": "intents in sentence embeddings",
    "order": "causal orders",
    "mixture": "points of mixtures",
    "alphabets": "points of letters",
}

FINDINGS = {
    "1. ten": "1. Ten steps are better than one, in every regime, also on other families",
    "1. and": "1. Ten steps are better than five",
    "2. in low": "2. In 8 dimensions rows are a better signal than gradients",
    "2. in high": "2. In 100 dimensions and on images gradients are the better signal",
    "2. both": "2. Rows and gradients together are best",
    "2. the same": "2. Rows in low, gradients in high dimension, with the paper's bare signals",
    "2. and both": "2. Both together are best, with the paper's bare signals",
    "3. history": "3. A history of past steps barely helps",
    "3. but": "3. On Fashion-MNIST a history helps",
    "4. parametric": "4. Parametric learners are better than explicit ones",
    "5. of": "5. Logits are the best state of implicit learners",
}
"""The paper's findings by how the JSON's begin."""

LEARNERS = (
    "parametric-both",
    "explicit-both",
    "implicit-logits",
    "implicit-logits-one-step-whole",
    "bayesian",
    "newton",
    "maml",
    "learned-optimizer",
)
MORE = ("closed-form", "ridge", "momentum", "meta-sgd")
FAR = (
    "parametric-both-decaying",
    "parametric-both",
    "explicit-both-decaying",
    "implicit-logits-decaying",
    "newton",
    "ridge",
    "sgd",
    "oracle",
)
STEPS = (10, 100, 1000, 6250)


def named(result: Result, panel: str, row: str) -> str:
    """Return the name in records of a row of a panel: of those that are tuned, the one that was chosen."""
    return learner(panel, result.data.get("chosen", {}).get(f"{panel}, {row}", row))


def curves(result: Result, panel: str, rows: tuple[str, ...]) -> list[plots.Curve]:
    """Return the curves of rows of a panel."""
    return [curve for row in rows for curve in result.curve(panel, named(result, panel, row), method=row)]


def gaps(result: Result) -> dict[str, list[float]]:
    """Return by family by how many percent our error after ten steps differs from the one-step learner's after one."""
    beside: dict[str, Any] = result.claim("paper.families_improved").get("beside", {})
    return {title.partition(":")[0]: [100 * v for v in values] for title, values in beside.items()}


def answer(result: Result) -> Iterator[str]:
    """Yield how many findings hold."""
    sizes = sorted(-value for value, _, _ in gaps(result).values())
    least, best = (sizes[0], sizes[-1]) if sizes else (0.0, 0.0)
    yield (
        "The main finding does: after ten mini-batches the error of our best learner is between "
        f"{least:.0f}% and {best:.0f}% below that of the best learner trained for one step after one, outside the "
        f"interval on {result.value('paper.families_improved'):.0f} of {len(sizes)} families."
    )
    verdicts = [x["verdict"] for x in _findings(result).values()]
    yield (
        f"As general statements, {verdicts.count('reproduced')} of {len(verdicts)} hold in every comparison, "
        f"{verdicts.count('depends')} in some, and {verdicts.count('not reproduced')} in none (the table)."
    )
    yield (
        "Ten steps have seen ten times the rows of one; at equal rows, and beside baselines that learn nothing, the "
        "gain is smaller or gone (the next question)."
    )


def _findings(result: Result) -> dict[str, dict[str, Any]]:
    """Return the paper's findings that were judged, by their words."""
    judged = result.data.get("findings", [])
    return {
        words: found
        for start, words in FINDINGS.items()
        for found in judged
        if found["finding"].startswith(start) and not (start == "2. and" and "both" not in found["finding"])
    }


def draw(result: Result, png: Path) -> str | None:
    """Draw the difference of errors for each family."""
    values = {family: gaps(result)[family] for family in FAMILIES if family in gaps(result)}
    mean, low, high = ([three[k] for three in values.values()] for k in (0, 1, 2))
    curve = plots.Curve("gradatim", range(len(values)), mean, low, high)
    labels = [FAMILIES[family] for family in values]
    axis = "change of error by ten steps, %"
    return plots.dots(png, "Ten small steps beat a single one on every family", axis, labels, [curve], 0.0)


def table(result: Result) -> TextTable:
    """Return the findings with their verdicts."""
    rows = [[words, x["verdict"], f"{x['holds']} of {x['of']}"] for words, x in _findings(result).items()]
    return ("finding of the paper", "verdict", "comparisons in its favour"), rows


def answer_peers(result: Result) -> Iterator[str]:
    """Yield how refining compares with other ways to use the same rows."""
    ours, newton, ridge, best = (
        result.mean("linear-8", named(result, "linear-8", row), 10)
        for row in ("parametric-both", "newton", "ridge", "oracle")
    )
    yield (
        f"On linear regression after ten mini-batches no: ridge ({ridge:.3f}, the best possible is {best:.3f}) and a "
        f"damped Newton step ({newton:.3f}) have lower squared errors than refined weights ({ours:.3f}), though these "
        "beat SGD, MAML and learned optimizers."
    )
    explicit, whole, form = (
        result.mean("mnist", named(result, "mnist", row), 10)
        for row in ("explicit-both", "implicit-logits-one-step-whole", "closed-form")
    )
    yield (
        f"On MNIST one pass of an implicit learner over all 1,000 rows has the lowest error ({whole:.3f}); refined "
        f"task embeddings ({explicit:.3f}) and ridge on learnt features ({form:.3f}) follow."
    )
    turns = next((x for x in result.data.get("findings", []) if "in turn beat one pass" in x["finding"]), {})
    yield (
        "Ten mini-batches in turn beat one pass over the same rows in "
        f"{turns.get('holds', 0)} of {turns.get('of', 0)} comparisons, {_parametric(turns)} of them with parametric "
        "learners."
    )


def _parametric(finding: dict[str, Any]) -> int:
    """Return in how many comparisons of a finding a parametric learner is better outside the interval."""
    return sum("parametric" in key and high < 0 for key, (_, _, high) in finding.get("gaps", {}).items())


def draw_peers(result: Result, png: Path) -> str | None:
    """Draw errors against mini-batches beside other learners."""
    panels = {"linear-8": "linear regression: squared error", "mnist": "MNIST: error"}
    figures = {title: curves(result, panel, (*LEARNERS, *MORE)) for panel, title in panels.items()}
    title = "Refining beats MAML and learned optimizers; closed forms are ahead of it"
    return plots.panels(png, title, "mini-batches seen", "error", figures)


def table_peers(result: Result) -> TextTable:
    """Return errors after ten mini-batches, best on MNIST first."""
    rows = []
    for row in (*LEARNERS, *MORE):
        cells = [result.cell(panel, named(result, panel, row), 10) for panel in ("linear-8", "mnist")]
        rows.append([words_of(row), *cells])
    rows = sorted((row for row in rows if any(row[1:])), key=lambda row: row[2])
    return ("learner", "linear regression: squared error, step 10", "MNIST: error, step 10"), rows


def answer_far(result: Result) -> Iterator[str]:
    """Yield what more rows bring, far past the ten steps of training."""
    panel = "linear-8-long"
    falling, constant, best = (
        result.mean(panel, named(result, panel, row), 6250) for row in (*FAR[:2], "oracle")
    )
    early = result.mean(panel, named(result, panel, FAR[1]), 10)
    lost = [
        r["steps"] for r in result.records(panel, named(result, panel, "explicit-both")) if r["mean"] is None
    ]
    yield (
        f"With a gain that falls like 1/(1+t), yes: after 100,000 rows the squared error is {falling:.4f}, the best "
        f"possible {best:.4f}."
    )
    yield (
        f"With the paper's constant gain it is {constant:.3f}, and {early:.3f} was there after ten mini-batches; "
        f"explicit learners with it diverge by mini-batch {min(lost, default=0):,}."
    )
    yield (
        "At the trained ten steps the falling gain is not the better one in general: by intervals it is in "
        + _gains(result)
    )


def _gains(result: Result) -> str:
    """Return in how many comparisons the falling gain is better."""
    found = next((x for x in result.data.get("findings", []) if "falling gain" in x["finding"]), {})
    return f"{found.get('holds', 0)} of {found.get('of', 0)} comparisons."


def draw_far(result: Result, png: Path) -> str | None:
    """Draw squared error against mini-batches, to 100,000 rows."""
    title = "Far past the trained ten steps, the falling gain reaches the noise"
    lines = curves(result, "linear-8-long", FAR)
    return plots.lines(png, title, "mini-batches of 16 rows seen", "squared error", lines)


def table_far(result: Result) -> TextTable:
    """Return squared errors after 10 to 6,250 mini-batches."""
    panel = "linear-8-long"
    rows = [
        [words_of(row), *(result.cell(panel, named(result, panel, row), s) for s in STEPS)] for row in FAR
    ]
    return ["learner", *(f"step {step:,}" for step in STEPS)], [row for row in rows if any(row[1:])]


PAGE = Page(
    study="paper",
    questions=(
        Question(
            "findings",
            "Do the findings of *Iterative Amortized Inference* hold?",
            answer,
            draw,
            "Change of error by ten steps, family by family, with 95% intervals",
            table,
        ),
        Question(
            "peers",
            "Is refining better than other ways to learn from the same rows?",
            answer_peers,
            draw_peers,
            "Error against mini-batches on linear regression and MNIST, eight learners named",
            table_peers,
        ),
        Question(
            "far",
            "Does it go on improving, from 16 rows to 100,000?",
            answer_far,
            draw_far,
            "Squared error against mini-batches of linear regression, to 6,250 of them",
            table_far,
        ),
    ),
    claims={
        "paper.cells_missing": "cells of the list, fixed before the run, that have no record",
        "paper.cost_exponent": "time to adapt grows like rows to this power",
        "paper.cost_ratio": "seconds of one pass over 16,384 rows over those of mini-batches of 128",
        "paper.families_improved": "families on which ten steps beat the best one-step learner, outside the interval",
        "paper.generation": "regimes that generate better mixtures after ten steps, outside the interval",
        "paper.causal.over_best_baseline": "reversed causal edges over those of the better of DirectLiNGAM and GES",
        "paper.prefix": "one refiner for every length of mini-batch over one trained for each: error, worst length",
        "paper.maml_parity": "relative difference of MAML's meta-gradient from an independent reference",
        "paper.es_cosine": "how far the mean direction of evolution strategies is from the gradient's",
    },
    notes=(
        "A verdict is *reproduced* if every 95% interval of paired differences is on the finding's side, *not "
        "reproduced* if none is, else *depends*. Learners are trained on ten steps, three seeds. Signals and inner "
        "rates were chosen on validation tasks. What reviewers asked and what the text of the paper leaves open: "
        "[the paper's page](../paper.md) and [its details](../paper-details.md)."
    ),
)
