"""How groups differ: a table of effects, and its picture.

Source: Gelman, Hill 2006, sec. 12.5 (group effects, partly pooled, with their deviations).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .features import COLUMN, POOLED
from .prior import CHUNK


def table_of_effects(estimator: Any) -> dict[str, np.ndarray]:
    """Return a column for each effect, `[K]`; more than two classes have the effects of each of them."""
    prior, state = estimator.prior_, estimator.state_
    sums, heads = state.compact()[1], prior.heads
    parts = [prior.effects(sums.take(slice(at, at + CHUNK))) for at in range(0, len(sums.count), CHUNK)]
    shape = (len(state), heads, len(prior.features.kinds))
    empty = np.zeros(shape)
    mean = np.concatenate([part[0] for part in parts]).reshape(shape) if parts else empty
    spread = np.concatenate([part[1] for part in parts]).reshape(shape) if parts else empty
    shared = prior.effects(type(sums).zeros(1, shape[2], sums.linear.shape[1]))[0][0]
    kinds, names = prior.features.kinds, slope_names(prior)
    table = {"group": np.array(list(state.index), dtype=object), "rows": state.rows()}
    for head in range(heads):
        end = "" if heads == 1 else f" ({estimator.classes_[head]})"
        table[f"level{end}"], table[f"level_std{end}"] = mean[:, head, 0] - shared[0], spread[:, head, 0]
        for name, at in zip(names, np.flatnonzero((kinds == COLUMN) | (kinds == POOLED)), strict=True):
            table[f"{name}{end}"] = mean[:, head, at] - shared[at]
    return table


def slope_names(prior: Any) -> list[str]:
    """Return the names of the slopes: columns with their levels, or principal directions, and the pooled model."""
    directions = prior.features.directions
    if ((directions != 0).sum(0) == 1).all():
        inputs = prior.encoder.inputs
        said = [inputs[int(at)] for at in abs(directions).argmax(0)]
        names = [
            name if kind == "number" else f"{name}={'missing' if level is None else level}"
            for kind, name, level in said
        ]
    else:
        names = [f"direction {at + 1}" for at in range(directions.shape[1])]
    return [*names, "pooled"]
