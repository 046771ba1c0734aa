"""How a bank begins: its features are drawn from the rows that the map was made from.

Source: this project's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .bank import ROOM, STEPS, Bank, draw_features
from .classes import ClassBank
from .context import WIDEST, Context
from .copies import BLOCK
from .numbers import NumberBank

if TYPE_CHECKING:
    from ..preprocessing import Encoder

LEAST = 8
"""Different numbers in a column from which on its running means are features."""

SHORTEST = 64
"""The least number of rows that a memory may be."""

MOST = 2048
"""Rows at most of which features are drawn."""


def read_memory(memory: Any, is_given: bool = False, device: str = "cpu") -> str | int:
    """Return a memory: "all", "adaptive", or a number of rows.

    `is_given`: whether a learner was given as model; `device`: where it computes.

    Raises:
        ValueError: something else, or a memory that such a learner cannot have.

    Example:
        >>> from gradatim.memory import read_memory
        >>> read_memory("adaptive"), read_memory(1000)
        ('adaptive', 1000)
        >>> read_memory("adaptve")
        Traceback (most recent call last):
        ValueError: memory must be "all", "adaptive" or a number of rows, at least 64; got 'adaptve'
    """
    if isinstance(memory, np.integer | int) and not isinstance(memory, bool) and memory >= SHORTEST:
        memory = int(memory)
    elif not isinstance(memory, str) or memory not in ("all", "adaptive"):
        raise ValueError(
            f'memory must be "all", "adaptive" or a number of rows, at least {SHORTEST}; got {memory!r}'
        )
    if memory != "all" and (is_given or device != "cpu"):
        raise ValueError(
            f"memory={memory!r} is of the shipped model on the CPU: leave out model and device, or memory"
        )
    return memory


def begin(memory: str | int, encoder: Encoder, x: np.ndarray, outputs: int | None, seed: int) -> Bank:
    """Return a bank that has learnt no row, with features for encoded rows `[n, d]` in their order."""
    x = x[:MOST]
    columns, thresholds = encoder.threshold_features(STEPS)
    steps = [*zip(columns.tolist(), thresholds.tolist(), strict=True)]
    room = max(0, ROOM - x.shape[1])
    features = draw_features(x, steps, seed)
    numbers = np.array(
        [
            j
            for j, (family, *_) in enumerate(encoder.inputs)
            if family == "number" and len(np.unique(x[:, j])) > LEAST
        ],
        dtype=np.int64,
    )
    kind = NumberBank if outputs is None else ClassBank
    if not len(numbers) or 3 * len(numbers) > room or len(numbers) > WIDEST:
        return kind(memory, features, outputs or 1, np.empty(0, np.int64), None)
    context, rows = Context.empty(numbers, outputs or 1), []
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        rows.append(context.rows(part))
        context.learn(part, np.zeros((len(part), outputs or 1)))
    around = np.concatenate(rows)
    return kind(memory, features, outputs or 1, numbers, draw_features(around, _steps(around), seed))


def _steps(rows: np.ndarray) -> list[tuple[int, float]]:
    """Return columns of rows `[n, d]` and thresholds between their numbers, equally many of each, at most `STEPS`."""
    per_column = max(1, STEPS // rows.shape[1])
    levels = np.arange(1, per_column + 1) / (per_column + 1)
    candidates = [
        (j, float(t)) for j in range(rows.shape[1]) for t in np.unique(np.quantile(rows[:, j], levels))
    ]
    steps = [(j, t) for j, t in candidates if rows[:, j].min() <= t < rows[:, j].max()]
    order = np.random.default_rng(0).permutation(len(steps))
    return [steps[at] for at in order[:STEPS]]
