"""Long streams: is the average of all experts as good as the best single ridge head, solved anew from all rows?

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.metrics import bootstrap
from gradatim.refiners.heads import solve_heads

from .peers import RefinedEstimator
from .scores import errors
from .verdicts import Three, measured, unmeasured

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

    from .data import Table

LONG = ("stream-mnist", "stream-fashion")
LEARNT = 50_000
"""Rows learnt at most. The later ones, and at least a sixth of the stream, are held out."""


def over_heads(table: Table, order: int) -> Values:
    """Return the errors on held-out rows of the estimator, `error [n]`, and of every single head, `heads [E, n]`."""
    count = min(LEARNT, 5 * len(table.x) // 6)
    rows = (
        np.arange(len(table.x))
        if table.fixed
        else np.random.default_rng(1000 + order).permutation(len(table.x))
    )
    x, y = table.x[rows], table.y[rows]
    learner = RefinedEstimator(table, 0)
    learner.learn(x[:count], y[:count])
    held_x, held_y = x[count:], y[count:]
    by_head = head_errors(learner.model, learner.frame(held_x), held_y)
    return {"error": errors(learner.predict(held_x), held_y), "heads": by_head}


def head_errors(model: Any, x: Any, y: np.ndarray) -> np.ndarray:
    """Return the errors `[E, n]` of every expert's head on rows x, y, solved from the sums over all rows learnt."""
    task = model.task_
    [[learner, state], *_] = task.members.settle()
    experts, x = learner.refiner, task.encode(model._columns(x, reset=False))
    features = experts.features(torch.from_numpy(x)[None]).to(state.theta)
    everyone = torch.ones(1, experts.count, dtype=torch.bool)
    by_head = np.empty((experts.count, len(y)), dtype=np.float32)
    for factor in experts.factors(state, everyone):
        scores = features[:, None, :, factor.seen] @ solve_heads(state.moments, factor)
        for place, outputs in zip(factor.index.tolist(), scores[0].numpy(), strict=True):
            by_head[place] = errors(outputs, y)
    return by_head


def long_claim(streams: dict[str, Values]) -> dict[str, Any]:
    """Return the claim on the worse stream: held-out error over that of its best head, chosen on these very rows."""
    if not streams:
        return unmeasured("long.over_best_head", "no long stream was run")
    ratios, words = {}, {}
    for name, values in streams.items():
        heads = values["heads"].mean(1, dtype=float)
        ratios[name] = _ratio(values["error"], values["heads"][heads.argmin()])
        words[name] = {
            "error": round(float(values["error"].mean()), 5),
            "best head": round(float(heads.min()), 5),
        }
    worse = max(ratios, key=lambda name: ratios[name][0])
    return measured("long.over_best_head", ratios[worse], ratios, worse=worse, errors=words)


def _ratio(ours: np.ndarray, best: np.ndarray) -> Three:
    """Return the ratio of (errors + 0.5) on the same rows `[n]`, and its bootstrap interval over rows."""
    return bootstrap(
        lambda a, b: float((a.sum(dtype=float) + 0.5) / (b.sum(dtype=float) + 0.5)),
        ours[None],
        best[None],
        resamples=500,
    )
