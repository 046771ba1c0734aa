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

Part = dict[str, Any]
"""Plain JSON: the arguments of a part of a figure, or its result."""


@dataclass(frozen=True)
class Figure:
    """What is measured for one or two claims.

    Attributes:
        parts: returns the arguments of each part, for a smoke run or a full one.
        measure: measures a part, in an empty folder, and returns its result as plain JSON.
        claims: returns the claims that the results of all parts make.
    """

    parts: Callable[[bool], list[Part]]
    measure: Callable[..., Part]
    claims: Callable[[list[Part]], list[Part]]


def counted(name: str, value: float, bar: float, direction: str = "<=", **beside: Any) -> Part:
    """Return a claim about a count: its interval is the value. A value that is not finite is null in JSON.

    Example:
        >>> counted("lost_updates", 3, 0)["holds"]
        False
    """
    verdict = claim(f"trust.{name}", value, value, value, bar, direction) | {"range": "no interval"}
    return _plain(verdict) | beside


def averaged(name: str, values: Sequence[float], bar: float, direction: str = "<=", **beside: Any) -> Part:
    """Return a claim about the mean of values `[tables]`, with its normal interval over tables."""
    mean, half = _normal(values)
    return _plain(claim(f"trust.{name}", mean, mean - half, mean + half, bar, direction)) | beside


def ratio(name: str, ratios: Sequence[float], bar: float, **beside: Any) -> Part:
    """Return a claim about the geometric mean of ratios `[tables]`, with its normal interval over tables.

    Example:
        >>> ratio("order", [1.0, 4.0, 2.0], 1.05)["value"]
        2.0
    """
    mean, half = _normal(np.log(np.asarray(ratios, float)))
    values = (math.exp(place) for place in (mean, mean - half, mean + half))
    return _plain(claim(f"trust.{name}", *values, bar, "<=")) | beside


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
