"""What is known before the first row of a group: the map of columns, the pooled model, and experts on the heads.

Source: Efron, Morris 1975 (a prior learnt from many groups); Wolpert 1992 (predictions by models of other groups).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..nn.trees import STAGES, Trees, fit_trees
from ..preprocessing import Encoder, Number
from .experts import Expert, solve
from .features import Features, moments
from .sharing import SCALES, TEACHERS, Taught, probability, share
from .sums import MOST, SEVERAL, Sums
from .weighing import Weighing

if TYPE_CHECKING:
    from ..preprocessing import Columns

FOLDS = 5
"""Parts of the groups; the pooled model of a part has seen the other parts only."""

POOLED_ROWS = 200_000
"""Rows at most that teach a pooled model: every k-th one."""

FENCE = 12.0
"""Residuals further out than so many of their deviations, as the quantiles show them, count as if they stood there."""

CHUNK = 4096
"""Rows, and groups, that are predicted at a time."""


@dataclass(frozen=True)
class GroupPrior:
    """What groups share. It holds no row and no group, and goes to other machines.

    Fields: `encoder`: the map of columns; `classes`: how many, or None of numbers; `centre`, `scale`: of y; `trees`:
    pooled models, one that has seen all groups, then one for each fold; `features`: of heads; `experts` and `weighing`.
    `rows`, `groups`: how many taught it. `fence`: residuals of numbers beyond it are drawn in.
    """

    encoder: Encoder
    classes: int | None
    centre: float
    scale: float
    trees: tuple[Trees, ...]
    features: Features
    experts: tuple[Expert, ...]
    weighing: Weighing
    rows: int
    groups: int
    fence: float = 1.0

    @property
    def heads(self) -> int:
        """Return how many heads a group has: one, or with more than two classes one for each."""
        return self.classes if self.classes is not None and self.classes > 2 else 1

    def pooled(self, x: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Return the pooled outputs `[n, heads]` of encoded rows: standardised numbers, or logits of each class.

        `fold [n]`: -1 for groups that taught nothing, else the part whose pooled model has not seen the group.
        """
        out = np.zeros((len(x), self.heads))
        for part in np.unique(fold):
            out[fold == part] = against_rest(self.trees[part + 1].outputs(x[fold == part]))
        return out

    def sums(
        self,
        x: np.ndarray,
        fold: np.ndarray,
        y: np.ndarray,
        group: np.ndarray,
        n_groups: int,
        weight: np.ndarray,
    ) -> Sums:
        """Return the sums of `n_groups` groups times heads; y `[n]` is numbers, or indices of classes."""
        pooled, parts = self.pooled(x, fold), []
        for head in range(self.heads):
            features = self.features.of(x, pooled[:, head])
            if self.classes is None:
                residual = (y - self.centre) / self.scale - pooled[:, 0]
                parts.append(Sums.of_numbers(features, residual, group, n_groups, weight, self.fence))
            else:
                is_mine = (y == (head if self.heads > 1 else 1)).astype(np.float64)
                parts.append(Sums.of_classes(features, is_mine, pooled[:, head], group, n_groups, weight))
        if len(parts) == 1:
            return parts[0]
        return Sums(
            *(
                np.stack(part, axis=1).reshape(n_groups * self.heads, *part[0].shape[1:])
                for part in zip(*parts, strict=True)
            )
        )

    def answer(
        self, x: np.ndarray, fold: np.ndarray, group: np.ndarray, sums: Sums
    ) -> tuple[np.ndarray, ...]:
        """Return weights, means and variances `[n, E]` of numbers, and factors of the deviations `[n]`.

        x `[n, width]` are encoded rows of groups `[n]`, numbered as in `sums`.
        """
        pooled = self.pooled(x, fold)[:, 0]
        weight, mean, variance = self._mixed(self.features.of(x, pooled), group, sums)
        mean = self.centre + self.scale * (pooled[:, None] + mean)
        return weight, mean, self.scale**2 * variance, self.weighing.stretched(sums.count)[group]

    def probabilities(self, x: np.ndarray, fold: np.ndarray, group: np.ndarray, sums: Sums) -> np.ndarray:
        """Return probabilities `[n, C]` of classes; arguments as in `answer`."""
        pooled, parts = self.pooled(x, fold), []
        for head in range(self.heads):
            features = self.features.of(x, pooled[:, head])
            mine = sums.take(slice(head, None, self.heads))
            weight, mean, variance = self._mixed(features, group, mine)
            parts.append((weight * probability(pooled[:, head, None] + mean, variance)).sum(1))
        if self.heads == 1:
            return np.stack([1 - parts[0], parts[0]], axis=1)
        found = np.maximum(np.stack(parts, axis=1), 1e-12)
        return found / found.sum(1, keepdims=True)

    def _mixed(self, features: np.ndarray, group: np.ndarray, sums: Sums) -> tuple[np.ndarray, ...]:
        """Return weights, and means and variances of what heads say, `[n, E]`; of numbers with their noise."""
        scales = None if self.classes is not None else np.array(SCALES)
        solved = [solve(expert, sums, scales) for expert in self.experts]
        weight = self.weighing.weights(np.concatenate([heads.log_evidence for heads in solved], axis=1))
        said = [heads.at(features, group) for heads in solved]
        noise = 0.0 if scales is None else np.concatenate([heads.noise for heads in solved])
        mean = np.concatenate([part[0] for part in said], axis=1)
        return weight[group], mean, np.concatenate([part[1] for part in said], axis=1) + noise

    def effects(self, sums: Sums) -> tuple[np.ndarray, np.ndarray]:
        """Return means and deviations `[K, d]` of the heads of groups, all experts weighed, in units of y or logits."""
        scales = None if self.classes is not None else np.array(SCALES)
        solved = [solve(expert, sums, scales) for expert in self.experts]
        weight = self.weighing.weights(np.concatenate([heads.log_evidence for heads in solved], axis=1))[
            ..., None
        ]
        means, variances = (
            np.concatenate(part, axis=1) for part in zip(*(h.effects() for h in solved), strict=True)
        )
        mean = (weight * means).sum(1)
        spread = np.sqrt((weight * (variances + (means - mean[:, None]) ** 2)).sum(1))
        return self.scale * mean, self.scale * spread


def against_rest(outputs: np.ndarray) -> np.ndarray:
    """Return outputs `[n, C]` of more than two classes as logits of each class against the others."""
    if outputs.shape[1] == 1:
        return outputs
    shifted = outputs - outputs.max(1, keepdims=True)
    share = np.exp(shifted)
    share = np.clip(share / share.sum(1, keepdims=True), 1e-9, 1 - 1e-9)
    return np.log(share) - np.log1p(-share)


def learn_prior(
    columns: Columns,
    y: np.ndarray,
    group: np.ndarray,
    hashes: np.ndarray,
    classes: int | None,
    weight: np.ndarray,
) -> tuple[GroupPrior, np.ndarray]:
    """Return what groups share, and the fold of each group `[T]`.

    Args:
        columns: of the rows.
        y: numbers, or indices of classes `[n]`.
        group: of each row, from 0 to T - 1, `[n]`.
        hashes: of each group `[T]`; they decide its fold, so that the order of groups does not matter.
        classes: how many, or None of numbers.
        weight: of the rows, positive `[n]`.
    """
    encoder = Encoder.fit(columns, weight)
    x = encoder.encode(columns)
    n_groups = len(hashes)
    fold = np.empty(n_groups, dtype=np.int64)
    fold[np.argsort(hashes, kind="stable")] = np.arange(n_groups) % min(FOLDS, n_groups)
    centre, scale = _spread(y, weight) if classes is None else (0.0, 1.0)
    target = (y - centre) / scale if classes is None else y
    near = np.clip(target, -FENCE, FENCE) if classes is None else y
    trees = pooled_models(x, near, fold[group], classes, weight)
    draft = GroupPrior(encoder, classes, centre, scale, trees, _NOTHING, (), _UNWEIGHED, len(y), n_groups)
    pooled = draft.pooled(x, fold[group])
    features = Features.fit(x, group, pooled.ravel() if draft.heads == 1 else pooled[:, 0], weight)
    if draft.heads > 1:
        offset, spread = moments(pooled.ravel(), np.repeat(weight, draft.heads))
        features = replace(features, offset=offset, scale=max(1e-6, spread))
    if classes is None:
        residual = target - pooled[:, 0]
        draft = replace(draft, fence=FENCE * _spread(residual, weight)[1])
        target = pooled[:, 0] + drawn_in(residual, draft.fence, group, weight)
    draft = replace(draft, features=features)
    taught = _taught(draft, x, target, group, fold, pooled, hashes, weight)
    experts, weighing = share(taught, features.kinds)
    return replace(draft, experts=tuple(experts), weighing=weighing), fold


def _spread(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Return the mean and the deviation of values `[n]`, winsorised as those of columns are; 1 of a constant."""
    found = Number.fit(values, weight, codes=False)
    return (
        (found.centre, found.scale)
        if found.scale > 1e-12 * max(1.0, abs(found.centre))
        else (found.centre, 1.0)
    )


def drawn_in(residual: np.ndarray, fence: float, group: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return residuals `[n]` no further than a fence, but for those of groups `[n]` most of whose rows are beyond it.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.prior import drawn_in
        >>> drawn_in(np.array([0.5, 1e9, 0.1, 7, 8, 9]), 2.0, np.array([0, 0, 0, 1, 1, 1]), np.ones(6))
        array([0.5, 2. , 0.1, 7. , 8. , 9. ])
    """
    near = np.clip(residual, -fence, fence)
    far = np.bincount(group, weight * (near != residual))
    apart = (far >= SEVERAL) & (far > MOST * np.bincount(group, weight))
    return np.where(apart[group], residual, near)


_NOTHING = Features(
    np.zeros((0, 0)), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0), 0.0, 1.0
)
_UNWEIGHED = Weighing(np.zeros(0), 1.0, np.zeros(1), np.ones(1))


def pooled_models(
    x: np.ndarray, y: np.ndarray, fold: np.ndarray, classes: int | None, weight: np.ndarray
) -> tuple[Trees, ...]:
    """Return the pooled model of all rows, then that of each part, with as many trees as other groups like best."""
    parts, losses, n = [], np.zeros(len(STAGES)), len(y)
    for part in range(int(fold.max()) + 1):
        rows, other = (
            np.flatnonzero(fold != part),
            np.flatnonzero(fold == part)[:: max(1, 5 * n // POOLED_ROWS)],
        )
        rows = rows[:: max(1, len(rows) // POOLED_ROWS)]
        trees = fit_trees(x[rows], y[rows], classes, STAGES[-1], weight[rows])
        parts.append(trees)
        counts = tuple(min(stage, len(trees.feature)) for stage in STAGES)
        stages = trees.stages(x[other], counts)
        by_count = dict(zip(dict.fromkeys(counts), stages, strict=False))
        losses += [_loss(by_count[count], y[other], classes, weight[other]) for count in counts]
    count = STAGES[int(losses.argmin())]
    rows = np.arange(n)[:: max(1, n // POOLED_ROWS)]
    whole = fit_trees(x[rows], y[rows], classes, count, weight[rows])
    return (whole, *(trees.first(count) for trees in parts))


def _loss(outputs: np.ndarray, y: np.ndarray, classes: int | None, weight: np.ndarray) -> float:
    if classes is None:
        return float(weight @ (outputs[:, 0] - y) ** 2)
    if classes == 2:
        return float(weight @ np.logaddexp(0.0, np.where(y > 0, -outputs[:, 0], outputs[:, 0])))
    top = outputs.max(1)
    total = top + np.log(np.exp(outputs - top[:, None]).sum(1))
    return float(weight @ (total - outputs[np.arange(len(y)), y.astype(int)]))


def _taught(
    draft: GroupPrior,
    x: np.ndarray,
    target: np.ndarray,
    group: np.ndarray,
    fold: np.ndarray,
    pooled: np.ndarray,
    hashes: np.ndarray,
    weight: np.ndarray,
) -> Taught:
    """Return the rows that teach the experts: those of at most `TEACHERS` groups, times heads."""
    known = np.full(len(fold), -1)
    chosen = np.argsort(hashes, kind="stable")[: max(2, TEACHERS // draft.heads)]
    known[chosen] = np.arange(len(chosen))
    rows = np.flatnonzero(known[group] >= 0)
    order = np.argsort(group[rows], kind="stable")
    ordered = group[rows][order]
    first = np.unique(ordered, return_index=True)[1]
    rank = np.empty(len(rows), dtype=np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(first, np.diff(np.append(first, len(rows))))
    mine, outputs, weight = known[group[rows]], pooled[rows], weight[rows]
    if draft.classes is None:
        residual = target[rows] - outputs[:, 0]
        features = draft.features.of(x[rows], outputs[:, 0])
        return Taught(features, mine, rank, fold[chosen], residual, None, weight)
    heads = range(draft.heads)
    features = np.concatenate([draft.features.of(x[rows], outputs[:, head]) for head in heads])
    y = np.concatenate([target[rows] == (head if draft.heads > 1 else 1) for head in heads]).astype(
        np.float64
    )
    every = np.concatenate([mine + head * len(chosen) for head in heads])
    folds = np.tile(fold[chosen], draft.heads)
    ranks, weights = (np.tile(part, draft.heads) for part in (rank, weight))
    return Taught(features, every, ranks, folds, y, outputs.T.ravel(), weights)
