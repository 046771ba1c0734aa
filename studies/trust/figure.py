"""A figure of the study: parts that processes measure one by one, and the claims that their results make.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradatim.comparison.runs import claim

ROOT = Path(__file__).parents[2]
"""The checkout."""

BARS: dict[str, tuple[float, str]] = {
    "cases_wrong": (0, "<="),
    "fuzz_failures": (0, "<="),
    "fuzz_cases": (1_000_000, ">="),
    "damaged_accepted": (0, "<="),
    "tracebacks": (0, "<="),
    "lost_updates": (0, "<="),
    "mixed_reads": (0, "<="),
    "torn": (0, "<="),
    "leftovers": (0, "<="),
    "cycles": (1e-6, "<="),
    "cut": (1e-9, "<="),
    "order": (1.05, "<="),
    "rows_in_state": (0, "<="),
    "outliers": (1.1, "<="),
    "early_coverage": (0.7, ">="),
    "early_coverage_one_row": (0, "<="),
    "regression": (1.005, "<="),
}
"""The bar of each claim and its direction."""

Part = dict[str, Any]
"""Plain JSON: the arguments of a part of a figure, or its result."""


@dataclass(frozen=True)
class Figure:
    """What is measured for one or two claims.

    Attributes:
        parts: returns the arguments of each part, for a smoke run or a full one.
        measure: measures a part, in an empty folder, and returns its result as plain JSON.
        claims: returns the claims that the results of all parts make.
        names: of these claims.
    """

    parts: Callable[[bool], list[Part]]
    measure: Callable[..., Part]
    claims: Callable[[list[Part]], list[Part]]
    names: tuple[str, ...]


def counted(name: str, value: float, **beside: Any) -> Part:
    """Return a claim about a count: its interval is the value. A value that is not finite is null in JSON.

    Example:
        >>> counted("lost_updates", 3)["holds"]
        False
    """
    verdict = claim(f"trust.{name}", value, value, value, *BARS[name]) | {"range": "no interval"}
    return _plain(verdict) | beside


def averaged(name: str, values: Sequence[float], **beside: Any) -> Part:
    """Return a claim about the mean of values `[tables]`, with its normal interval over tables."""
    mean, half = _normal(values)
    return _plain(claim(f"trust.{name}", mean, mean - half, mean + half, *BARS[name])) | beside


def ratio(name: str, ratios: Sequence[float], **beside: Any) -> Part:
    """Return a claim about the geometric mean of ratios `[tables]`, with its normal interval over tables.

    Example:
        >>> ratio("order", [1.0, 4.0, 2.0])["value"]
        2.0
    """
    mean, half = _normal(np.log(np.asarray(ratios, float)))
    value, low, high = (math.exp(place) for place in (mean, mean - half, mean + half))
    return _plain(claim(f"trust.{name}", value, low, high, *BARS[name])) | beside


def rounded(value: float) -> float | None:
    """Return a number with five digits, or None where it is not finite: plain JSON."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def geometric(ratios: Sequence[float]) -> float:
    """Return the geometric mean of ratios `[n]`."""
    return float(np.exp(np.mean(np.log(np.asarray(ratios, float)))))


def _normal(values: Any) -> tuple[float, float]:
    values = np.asarray(values, float)
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(values.mean()), float(1.96 * spread / len(values) ** 0.5)


def _plain(verdict: Part) -> Part:
    if not math.isfinite(verdict["value"]):
        return verdict | {"value": None, "low": None, "high": None, "holds": False}
    return verdict
