"""The bars of `make study NAME=tables`, fixed before the run, and claims held against them.

Source: the bars are this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradatim.comparison.runs import claim

Three = tuple[float, float, float]
"""A value and its interval."""

BARS: dict[str, tuple[str, float]] = {
    "prequential.over_ridge": ("<=", 0.84),
    "prequential.sum_over_ridge": ("<=", 0.97),
    "prequential.rank": ("<=", 2.0),
    "prequential.wins": (">=", 0.8),
    "refit.over_lightgbm": ("<=", 1.0),
    "refit.over_lightgbm_rmse": ("<=", 1.0),
    "refit.early": ("<=", 0.8),
    "early.over_mean": ("<=", 1.02),
    "final.over_batch": (">=", 0.985),
    "final.errors_over_batch": ("<=", 1.1),
    "macro_recall": (">=", 0.98),
    "logloss.over_ridge": ("<=", 0.68),
    "ece_excess": ("<=", 0.03),
    "regression.rank": ("<=", 1.6),
    "regression.coverage": ("<=", 0.04),
    "coverage.fifths": ("<=", 0.05),
    "long.over_best_head": ("<=", 1.02),
    "merge32": ("<=", 1.02),
    "forget": ("<=", 1e-6),
    "row_by_row": ("<=", 1.0),
    "update_speed": (">=", 5.0),
    "predict_speed": (">=", 0.3),
    "state_bytes": ("<=", 4_000_000),
    "ray": ("<=", 0.0),
    "ray_difference": ("<=", 1e-9),
    "checks_failed": ("<=", 0.0),
    "killed_updates": (">=", 20.0),
}
"""The bar of each claim: at most, or at least."""


def measured(name: str, values: Three, beside: Mapping[str, Three] | None = None, **more: Any) -> dict:
    """Return a claim with its interval, what stands beside it, and more of its entries.

    Example:
        >>> verdict = measured("merge32", (1.01, 0.99, 1.03), {"errors": (1.0, 1.0, 1.0)})
        >>> verdict["id"], verdict["holds"], verdict["beside"]
        ('tables.merge32', True, {'errors': [1.0, 1.0, 1.0]})
    """
    direction, bar = BARS[name]
    verdict = claim(f"tables.{name}", *values, bar, direction) | more
    rounded = {title: [float(f"{value:.5g}") for value in three] for title, three in (beside or {}).items()}
    return verdict | ({"beside": rounded} if rounded else {})


def constant(name: str, value: float, **more: Any) -> dict:
    """Return a claim on a number that has no interval."""
    return measured(name, (value, value, value), **more)


def unmeasured(name: str, why: str) -> dict[str, Any]:
    """Return a claim that has no value, and fails.

    Example:
        >>> verdict = unmeasured("ray", "ray is not installed")
        >>> verdict["value"], verdict["holds"], verdict["range"]
        (None, False, 'ray is not installed')
    """
    return without_value(f"tables.{name}", *BARS[name], why)


def without_value(name: str, direction: str, bar: float, why: str) -> dict[str, Any]:
    """Return a claim of any study that has no value, and fails."""
    nothing: dict[str, Any] = {"id": name, "value": None, "low": None, "high": None}
    return nothing | {"bar": bar, "direction": direction, "holds": False, "range": why}
