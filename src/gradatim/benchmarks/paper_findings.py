"""The paper's five findings, each with a verdict from paired differences of errors on the same tasks.

Source: Mittal et al. 2025, the findings of its experiments; the verdicts are of this project's own runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..metrics import bootstrap
from .paper_tables import CHOSEN, TABLES, learner

if TYPE_CHECKING:
    from .panel import Values

Found = Mapping[str, Mapping[str, "Values"]]
Chosen = Mapping[tuple[str, str], str]
Gap = tuple[float, float, float]
VERDICTS = ("reproduced", "not reproduced", "depends")
SMALL = 0.02
"""A gain below this share of the error is no gain: what `barely helps` is held to."""


def verdict(gaps: Iterable[Gap]) -> str:
    """Return a verdict on differences that a finding says are negative.

    `reproduced`: every 95% interval lies below 0; `not reproduced`: none does; else `depends`.
    """
    below = [high < 0 for _, _, high in gaps]
    return VERDICTS[0] if all(below) else VERDICTS[1] if not any(below) else VERDICTS[2]


def findings(found: Found, chosen: Chosen) -> list[dict[str, Any]]:
    """Return for each finding what it says, the verdict, and the relative differences that it rests on."""

    def at(panel: str, row: str, place: int = -1) -> Any:
        name = learner(panel, chosen.get((panel, row), row))
        return next(iter(found[panel][name].values()))[:, place]

    def gap(panel: str, row: str, other: str, place: int = -1, before: int = -1) -> Gap:
        return bootstrap(
            lambda a, b: float((a.mean() - b.mean()) / abs(b.mean())),
            at(panel, row, place),
            at(panel, other, before),
            resamples=1000,
        )

    paper = {
        (panel, row)
        for number in (2, 3, 4, 5, 7, 8, 9)
        for panel, rows in TABLES[number].rows.items()
        for row in rows
        if not row.partition("@")[0].endswith(("-one-step", "-decaying"))
        and learner(panel, chosen.get((panel, row), row)) in found.get(panel, ())
    }
    more = {
        f"{panel}: {row}, step 10 less step 1": gap(panel, row, row, -1, 0) for panel, row in sorted(paper)
    }
    late = {
        f"{panel}: {row}, step 10 less step 5": gap(panel, row, row, -1, 1) for panel, row in sorted(paper)
    }
    low = {
        f"linear-8, {regime}: observations less gradients": gap(
            "linear-8", f"{regime}-observations", f"{regime}-gradients"
        )
        for regime in ("parametric", "explicit")
    }
    high = {
        f"{panel}, {regime}: gradients less observations": gap(
            panel, f"{regime}-gradients", f"{regime}-observations"
        )
        for panel in ("linear-100", "mnist")
        for regime in ("parametric", "explicit")
    }
    both = {
        f"{panel}, {regime}: both less {other}": gap(panel, f"{regime}-both", f"{regime}-{other}")
        for panel in ("linear-8", "linear-100", "mnist")
        for regime in ("parametric", "explicit")
        for other in ("observations", "gradients")
    }
    history = {
        f"{panel}: none less {row}, less {SMALL:.0%}": _less(gap(panel, "parametric-both", row))
        for panel, rows in TABLES[18].rows.items()
        for row in rows
        if "history" in row and panel in found
    }
    regimes = {
        f"{panel}: parametric less explicit": gap(panel, f"parametric-{signal}", f"explicit-{signal}")
        for panel, rows in TABLES[2].rows.items()
        for signal in ("both" if "parametric-both" in rows else CHOSEN,)
        if panel in found
    }
    states = {
        f"{panel}: logits less {row.partition('-')[2]}": gap(panel, "implicit-logits", row)
        for panel, rows in TABLES[6].rows.items()
        for row in rows
        if not row.endswith(("-one-step", "-decaying"))
    }
    said = (
        ("1. more steps help: ten are better than one, in every regime, in distribution and out of it", more),
        ("1. and ten are better than five", late),
        ("2. in low dimension observations beat gradients", low),
        ("2. in high dimension gradients help more", high),
        ("2. both together are best", both),
        ("3. history barely helps: without it the error is not higher by 2%", history),
        ("4. parametric beats explicit", regimes),
        ("5. of implicit states logits are best", states),
    )
    return [
        {
            "finding": title,
            "verdict": verdict(gaps.values()),
            "holds": sum(own[2] < 0 for own in gaps.values()),
            "of": len(gaps),
            "gaps": {key: [round(value, 4) for value in own] for key, own in gaps.items()},
        }
        for title, gaps in said
    ]


def _less(gap: Gap) -> Gap:
    """Return a difference less what counts as small."""
    value, low, high = gap
    return value - SMALL, low - SMALL, high - SMALL


def verdict_listing(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings as a page shows them: verdicts, then the differences that they rest on."""
    rows = [[own["finding"], own["verdict"], f"{own['holds']} of {own['of']}"] for own in found]
    heads = ["the paper's finding", "verdict", "intervals below 0"]
    gaps = [
        [own["finding"].partition(".")[0], key, f"{100 * value:+.1f}% [{100 * low:+.1f}, {100 * high:+.1f}]"]
        for own in found
        for key, (value, low, high) in own["gaps"].items()
    ]
    if not rows:
        return []
    return [
        {"title": "The paper's findings", "columns": heads, "rows": rows},
        {
            "title": "Differences of errors that the verdicts rest on, of the second's error, paired by task",
            "columns": ["finding", "difference", "value [95%]"],
            "rows": gaps,
        },
    ]
