"""The page of `make study NAME=frozen`: its question, its answer and its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gradatim.comparison import plots
from gradatim.comparison.report import Page, Question, Result, number

from .parts import PARTS

RATIOS = {
    "boundary.roughness": "roughness, worst shape: over Bayes",
    "boundary.acquire": "rows chosen: error over random rows",
    "sampler.kl_names": "names: distance over the untuned model",
    "sampler.over_reinforce": "names: distance over REINFORCE",
}
"""What is measured over a baseline: less is better."""


def value(result: Result, name: str) -> str:
    """Return a claim's value as text: words where it was not measured."""
    return result.text(f"frozen.{name}")


def besides(result: Result, name: str, key: str) -> str:
    """Return what stands beside a claim as text: a number, or the first of three."""
    found = result.claim(f"frozen.{name}").get("beside", {}).get(key)
    found = found[0] if isinstance(found, list) else found
    return "an unmeasured number" if found is None else number(found)


def by_target(result: Result) -> tuple[tuple[str, ...], list[list[str]]]:
    """Return columns and rows of what a pretrained network gains over a random one, target by target."""
    beside = result.claim("frozen.reprogram.control").get("beside", {})
    rows = [[target, number(points)] for target, points in beside.items() if isinstance(points, int | float)]
    return ("target", "points of a pretrained network over a random one, cells of few parameters"), rows


def answer(result: Result) -> Iterator[str]:
    """Yield what each way gains over what could do without it."""
    yield (
        f"After 128 rows the default classifier's boundary is {value(result, 'boundary.roughness')} times as rough as "
        f"the Bayes boundary at worst; 64 rows chosen by entropy and spread leave {value(result, 'boundary.acquire')} "
        "times the error of 64 random ones."
    )
    yield (
        f"A pretrained network is reprogrammed {value(result, 'reprogram.control')} points better than a random one "
        f"by what has few parameters, {besides(result, 'reprogram.control', 'without digits')} without the small "
        "digits, whose classes it knows; a linear probe is ahead of nearly all of it. Between guided and "
        f"uniform dropout of one mean lie {value(result, 'dropout.over_uniform')} points."
    )
    yield (
        f"A tuned sampler of names is {value(result, 'sampler.kl_names')} times as far from the exact posterior as the "
        f"untuned model, and {value(result, 'sampler.over_reinforce')} times as far as REINFORCE with entropy; "
        "importance resampling, which tunes nothing, is "
        f"{besides(result, 'sampler.kl_names', 'importance resampling')} times as far as the untuned model."
    )


def draw(result: Result, png: Path) -> str | None:
    """Draw what is measured over a baseline."""
    found = {label: result.claim(f"frozen.{name}") for name, label in RATIOS.items()}
    found = {label: claim for label, claim in found.items() if claim.get("value") is not None}
    values, low, high = ([float(claim[key]) for claim in found.values()] for key in ("value", "low", "high"))
    curves = [plots.Curve("gradatim", range(len(found)), values, low, high)]
    marks = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    title = "Frozen models adapted, each way beside a baseline"
    return plots.dots(png, title, "over the baseline's (1: the same)", [*found], curves, 1.0, marks)


PAGE = Page(
    study="frozen",
    questions=(
        Question(
            "ratios",
            "Does it pay to adapt a frozen model?",
            answer,
            draw,
            "Errors, roughness and distances over those of a baseline",
            by_target,
        ),
    ),
    claims={name: words for part in PARTS for name, words in part.claims.items()},
    notes=(
        "Settings were chosen on other seeds, validation tasks or validation rows. Intervals are over seeds. The JSON "
        "has the errors of every method on every stream, family and table. A claim that was not measured has no value, "
        "and fails."
    ),
)
