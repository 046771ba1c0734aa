"""The page of `make study NAME=core`: what it asks, its answer, its picture and its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.palette import words_of
from gradatim.comparison.report import Page, Question, Result, TextTable

LINES = {
    "both": "parametric-both",
    "explicit": "explicit",
    "implicit": "implicit",
    "one-step": "parametric-one-step",
    "parametric-one-step-gradients": "parametric-one-step",
    "ridge": "ridge",
    "sgd": "sgd",
    "lbfgs": "lbfgs",
    "oracle": "oracle",
}
"""Methods of the picture by the end of their names in records."""

ROWS = {**LINES, "observations": "parametric-observations", "momentum": "momentum", "adam": "adam"}


def answer(result: Result) -> Iterator[str]:
    """Yield what refining gains, and over what it gains nothing."""
    ratios = {regime: values[0] for regime, values in result.claim("core.regimes").get("ratios", {}).items()}
    text = ", ".join(f"{regime} {ratio:.2f}" for regime, ratio in ratios.items())
    yield (
        "After ten mini-batches of digits, learners that refine make a fraction of the errors of learners trained "
        f"for one step and judged after one ({text})."
    )
    ours, best = (result.mean("linear", f"linear-{name}", 10, "excess risk") for name in ("both", "ridge"))
    yield (
        f"On linear regression the paper's constant gain has {result.value('core.linear.ratio10'):.2f} times the "
        f"excess risk of the best possible estimator after ten mini-batches; with the falling gain it is {ours:.4f}, "
        f"where ridge, which learns nothing, has {best:.4f}."
    )
    refined, fit, blind = (
        result.mean("digits", f"digits-{name}", 10) for name in ("both", "lbfgs", "observations")
    )
    late, sgd = (result.mean("digits", f"digits-{name}", 50) for name in ("both", "sgd"))
    yield (
        f"On digits the refined error after ten mini-batches is {refined:.3f}, that of L-BFGS on all those rows "
        f"{fit:.3f}; after fifty SGD ({sgd:.3f}) has passed it ({late:.3f}), and a parametric learner that sees rows "
        f"without their predictions or gradients learns nothing ({blind:.3f})."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw excess risk and error against mini-batches."""
    plots_ = {
        title: [
            curve
            for end, method in LINES.items()
            for curve in result.curve(family, f"{family}-{end}", metric, method=method)
        ]
        for title, family, metric in (
            ("digits: error", "digits", "error"),
            ("linear regression: excess risk", "linear", "excess risk"),
        )
    }
    return plots.panels(
        png,
        "Each mini-batch improves the answer; ridge and L-BFGS stay ahead",
        "mini-batches seen",
        "error",
        plots_,
    )


def table(result: Result) -> TextTable:
    """Return errors after one, ten and fifty mini-batches."""
    columns = ["method"]
    columns += [f"digits, step {step}" for step in (1, 10, 50)] + [
        f"linear, step {step}" for step in (1, 10, 50)
    ]
    rows: dict[str, list[str]] = {}
    for end, method in ROWS.items():
        cells = [result.cell("digits", f"digits-{end}", step) for step in (1, 10, 50)]
        cells += [result.cell("linear", f"linear-{end}", step, "excess risk") for step in (1, 10, 50)]
        before = rows.setdefault(words_of(method), [""] * len(cells))
        rows[words_of(method)] = [cell or text for cell, text in zip(cells, before, strict=True)]
    return columns, [[name, *cells] for name, cells in rows.items() if any(cells)]


PAGE = Page(
    study="core",
    questions=(
        Question(
            "steps",
            "Does refining in small steps pay, in every regime?",
            answer,
            draw,
            "Error on digits and excess risk on linear regression against mini-batches seen",
            table,
        ),
    ),
    claims={
        "core.linear.ratio10": "linear regression, step 10: excess risk over that of the best possible estimator",
        "core.linear.falls": "share of the first ten steps after which the excess risk is lower",
        "core.digits.over_onestep": "digits: error at step 10 over that of the best one-step learner at step 1",
        "core.regimes": "regimes in which ten steps beat a learner trained for one, outside the interval",
        "core.throughput": "operations a second in meta-training over those of one large matrix product",
        "core.kill_resume": "killed runs that came back bit for bit, of five",
    },
    notes=(
        "Columns *linear* are excess risks, columns *digits* shares of wrong answers, ± half of a 95% interval. "
        "Settings of baselines are tuned on meta-training tasks, to be best after ten steps."
    ),
)
