"""The bars of `make study NAME=meta`, fixed before the run, and claims and records held against them.

Source: the bars are this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradatim.comparison.runs import claim
from gradatim.metrics import bootstrap
from studies.tables.verdicts import Three, without_value

BARS: dict[str, tuple[str, float]] = {
    "meta.omniglot.over_unlearned": ("<=", 0.10),
    "meta.omniglot.over_proto": ("<=", 0.95),
    "meta.omniglot.five_way": (">=", 97.5),
    "meta.sinusoid.over_gp": ("<=", 0.05),
    "meta.sinusoid.long": ("<=", 2.0),
    "meta.sinusoid.over_oracle": ("<=", 1.2),
    "meta.refined.over_start": ("<=", 0.97),
    "meta.own.over_alone": ("<=", 0.85),
    "meta.own.over_best": ("<=", 0.98),
    "meta.own.long": ("<=", 1.0),
    "meta.own.coverage": ("<=", 0.05),
    "meta.own.few_tasks": ("<=", 1.02),
    "meta.groups": (">=", 0.3),
    "meta.group_bytes": ("<=", 4000.0),
    "meta.findings_converged": (">=", 1.0),
    "meta.causal.over_best": ("<=", 0.8),
}
"""The bar of each claim: at most, or at least."""


def measured(
    name: str, values: Three, beside: Mapping[str, Three] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a claim with its interval, what stands beside it in words, and more of its entries.

    Example:
        >>> verdict = measured("meta.own.long", (0.9, 0.8, 1.1), {"on schools": (1.0, 0.9, 1.1)})
        >>> verdict["holds"], verdict["beside"]
        (True, {'on schools': [1.0, 0.9, 1.1]})
    """
    direction, bar = BARS[name]
    verdict = claim(name, *values, bar, direction) | more
    rounded = {title: [float(f"{value:.5g}") for value in three] for title, three in (beside or {}).items()}
    return verdict | ({"beside": rounded} if rounded else {})


def unmeasured(name: str, why: str) -> dict[str, Any]:
    """Return a claim that has no value, and fails.

    Example:
        >>> unmeasured("meta.groups", "not reached yet")["range"]
        'not reached yet'
    """
    return without_value(name, *BARS[name], why)


def geometric(values: np.ndarray) -> float:
    """Return the geometric mean.

    Example:
        >>> round(geometric(np.array([1.0, 4.0])), 6)
        2.0
    """
    return float(np.exp(np.log(values).mean()))


def ratio(ours: np.ndarray, other: np.ndarray) -> float:
    """Return the geometric mean over numbers of rows of mean losses `[S, T, R]` over those of another learner.

    Example:
        >>> round(ratio(np.full((3, 5, 2), 0.2), np.full((1, 5, 2), 0.4)), 6)
        0.5
    """
    return geometric(ours.mean((0, 1)) / other.mean((0, 1)))


def over(ours: np.ndarray, other: np.ndarray) -> Three:
    """Return `ratio` of losses `[S, T, R]` and its interval over meta-training seeds and tasks."""
    return bootstrap(ratio, ours, other)


def best_of(losses: Mapping[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Return losses `[1, T, R]` of the learner that is best after each number of rows, an oracle's choice, and who.

    Example:
        >>> best_of({"a": np.array([[[0.1, 0.4]]]), "b": np.array([[[0.2, 0.3]]])})
        (array([[[0.1, 0.3]]]), ['a', 'b'])
    """
    n_rows = next(iter(losses.values())).shape[2]
    names = [min(losses, key=lambda name, r=r: float(losses[name][..., r].mean())) for r in range(n_rows)]
    return np.stack([losses[name][..., r] for r, name in enumerate(names)], -1), names


def entries(
    family: str, name: str, losses: np.ndarray, rows: tuple[int, ...], metric: str, **more: Any
) -> list[dict[str, Any]]:
    """Return a record for each number of rows, of losses `[S, T, R]` over seeds and tasks, and for each seed."""
    found = []
    for place, count in enumerate(rows):
        values = losses[..., place]
        for seed in ("all", *(range(len(values)) if len(values) > 1 else ())):
            chosen = values if seed == "all" else values[int(seed)][None]
            mean, low, high = bootstrap(lambda a: float(a.mean()), chosen, resamples=500)
            found.append(
                {
                    "name": name,
                    "method": name,
                    "family": family,
                    "seed": seed,
                    "steps": place + 1,
                    "rows": count,
                    "metric": metric,
                    "mean": float(f"{mean:.6g}"),
                    "low": float(f"{low:.6g}"),
                    "high": float(f"{high:.6g}"),
                    "tasks": values.shape[1],
                    **more,
                }
            )
    return found
