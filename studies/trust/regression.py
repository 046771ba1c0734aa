"""Whether errors on validation tables went up: those of the estimators over the ridge's, now over before.

`before.json` has the errors of before, at its commit.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.house.moved import OURS, RIDGE

from .figure import Part, geometric, ratio, rounded

BEFORE = Path(__file__).with_name("before.json")
"""The errors and the figures of before this step."""

Errors = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Errors by table, learner and metric."""


def before() -> dict[str, Any]:
    """Return what was measured before: `commit`, `validation` (errors) and `figures` (claims by id)."""
    return json.loads(BEFORE.read_text(encoding="utf-8"))


def changes(earlier: Errors, now: Errors, metric: str = "") -> dict[str, float]:
    """Return by table the error over the ridge's now, over that of before: of classes, or root mean squares.

    Args:
        earlier: the errors of before.
        now: those of today, of the same tables.
        metric: a beginning of the metric's name: `final_` for held-out rows, or nothing for the stream.
    """
    return {table: _over_ridge(now[table], metric) / _over_ridge(earlier[table], metric) for table in earlier}


def _over_ridge(errors: Mapping[str, Mapping[str, float]], metric: str) -> float:
    """Return the error of ours over the ridge's; an error of nothing counts as half a row of a thousand."""
    if f"{metric}square" in errors[OURS]:
        return math.sqrt(errors[OURS][f"{metric}square"] / errors[RIDGE][f"{metric}square"])
    ours, ridge = (errors[name][f"{metric}error"] + 0.0005 for name in (OURS, RIDGE))
    return ours / ridge


def claims(earlier: Errors, now: Errors) -> list[Part]:
    """Return the claim about errors now over before, with the tables."""
    stream, heldout = changes(earlier, now), changes(earlier, now, "final_")
    return [
        ratio(
            "regression",
            list(stream.values()),
            heldout=rounded(geometric(list(heldout.values()))),
            tables={table: rounded(value) for table, value in stream.items()},
        )
    ]
