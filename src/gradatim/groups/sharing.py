"""What groups share, learnt from their rows: the experts, their pseudo-groups, and how much each counts.

Source: Lindley, Smith 1972; Geisser 1975 (groups that did not teach an expert judge it).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .experts import Expert, solve
from .features import COLUMN, LEVEL, POOLED, TIME
from .learning import learn
from .sums import Sums
from .weighing import Trials, Weighing, choose

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Noise of a group over that of all."""

PSEUDO = (1.0, 4.0, 16.0)
"""Counts of pseudo-groups that are tried."""

PREFIXES = (0, 1, 2, 4, 8, 16, 32, 64)
"""First parts of a group after which experts are judged."""

JUDGED = 48
"""Rows of a group at most that judge the experts after each part."""

TEACHERS = 300
"""Groups at most from which a prior is learnt: those whose hashes come first."""


class Taught(NamedTuple):
    """Rows that teach a prior: features `[n, d]`, groups `[n]` from 0 to T - 1, ranks in their group, the fold of each
    group `[T]`; residuals `[n]` of numbers, or y and pooled logits `[n]` of classes; weights `[n]`."""

    features: np.ndarray
    group: np.ndarray
    rank: np.ndarray
    fold: np.ndarray
    y: np.ndarray
    logit: np.ndarray | None
    weight: np.ndarray

    def sums(self, rows: np.ndarray) -> Sums:
        """Return the sums of some rows, bool `[n]`, by group."""
        features, y, group, weight = (part[rows] for part in (self.features, self.y, self.group, self.weight))
        if self.logit is None:
            return Sums.of_numbers(features, y, group, len(self.fold), weight)
        return Sums.of_classes(features, y, self.logit[rows], group, len(self.fold), weight)


def kinds_of_experts(kinds: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return the experts for features of kinds `[d]`: a name, what varies by group and what is fixed, bool `[d]`."""
    level, column, time, pooled = (kinds == kind for kind in (LEVEL, COLUMN, TIME, POOLED))
    none, every = np.zeros(len(kinds), dtype=bool), np.ones(len(kinds), dtype=bool)
    found = [
        ("level", level, none),
        ("level beside columns", level, every),
        ("level and pooled", level | pooled, every),
        ("columns", level | column, every),
        ("columns and pooled", level | column | pooled, every),
    ]
    if time.any():
        found += [("time", level | time, every), ("all", every, none)]
    return [(name, varying, fixed & ~varying) for name, varying, fixed in found]


def share(taught: Taught, kinds: np.ndarray) -> tuple[list[Expert], Weighing]:
    """Return the experts that rows teach, with features of some kinds `[d]`, and how they are weighed."""
    classes = taught.logit is not None
    scales = None if classes else np.array(SCALES)
    every = np.ones(len(taught.y), dtype=bool)
    whole, shapes = taught.sums(every), kinds_of_experts(kinds)
    parts = [(n, taught.sums(taught.rank < n)) for n in PREFIXES]
    chosen, columns = [], []
    for name, varying, fixed in shapes:
        best = None
        for pseudo in PSEUDO if varying.sum() > 1 else PSEUDO[:1]:
            said = [
                _judge(taught, parts, whole, (name, varying, fixed, kinds, pseudo), k, scales)
                for k in np.unique(taught.fold)
            ]
            score = float(np.concatenate([s.score for s in said]).sum())
            best = (score, pseudo, said) if best is None or score > best[0] else best
        assert best is not None
        chosen.append(learn(name, whole, varying, fixed, kinds, best[1], classes=classes).expert)
        columns.append(best[2])
    trials = _joined(taught, columns)
    # a slope for every column is the exception, a level the rule: validation tasks of three tables
    guess = np.array([1.0, 0.0, 0.0] + [-1.0] * (len(shapes) - 3))
    spread = np.zeros(1) if scales is None else -0.5 * np.log2(scales) ** 2
    return chosen, choose(trials, (guess[:, None] + spread).ravel(), classes)


class _Said(NamedTuple):
    """What one expert said of the groups of a fold: parts are (group, rows known)."""

    score: np.ndarray
    group: np.ndarray
    count: np.ndarray
    evidence: np.ndarray
    row: np.ndarray
    part: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _judge(
    taught: Taught,
    parts: list[tuple[int, Sums]],
    whole: Sums,
    shape: tuple[str, np.ndarray, np.ndarray, np.ndarray, float],
    fold: int,
    scales: np.ndarray | None,
) -> _Said:
    """Return what an expert taught by all folds but one says of the groups of that fold."""
    name, varying, fixed, blocks, pseudo = shape
    teachers, judges = taught.fold != fold, np.flatnonzero(taught.fold == fold)
    classes = scales is None
    expert = learn(name, whole.take(teachers), varying, fixed, blocks, pseudo, 15, classes).expert
    size, found, at = np.bincount(taught.group, minlength=len(taught.fold)), [], 0
    for n, sums in parts:
        groups = judges[size[judges] > n]
        if not len(groups):
            continue
        heads = solve(expert, sums.take(groups), scales)
        place = np.full(len(size), -1)
        place[groups] = np.arange(len(groups))
        step = np.maximum(1, (size - n) // JUDGED)[taught.group]
        rows = np.flatnonzero(
            (place[taught.group] >= 0) & (taught.rank >= n) & ((taught.rank - n) % step == 0)
        )
        mean, variance = heads.at(taught.features[rows], place[taught.group[rows]])
        mean, variance = _predicted(taught, rows, mean, variance, heads.noise)
        found.append(
            (
                groups,
                np.full(len(groups), n),
                heads.log_evidence,
                rows,
                at + place[taught.group[rows]],
                mean,
                variance,
            )
        )
        at += len(groups)
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    near = columns[1] == 32 if (columns[1] == 32).any() else columns[1] == columns[1].max()
    return _Said(columns[2][near][:, len(columns[2][0]) // 2], *columns)


def _predicted(
    taught: Taught, rows: np.ndarray, mean: np.ndarray, variance: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return what is predicted of y: means and variances, or the probabilities of class 1."""
    if taught.logit is None:
        return mean, variance + noise
    return probability(taught.logit[rows][:, None] + mean, variance), variance


def probability(logit: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the mean of a logistic of a normal logit (MacKay 1992, eq. 10).

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.sharing import probability
        >>> probability(np.array([0.0, 2.0]), np.array([1.0, 0.0])).round(2)
        array([0.5 , 0.88])
    """
    return 0.5 + 0.5 * np.tanh(0.5 * logit / np.sqrt(1 + np.pi * variance / 8))


def _joined(taught: Taught, columns: list[list[_Said]]) -> Trials:
    """Return what all experts said, side by side; the parts of all folds below each other."""
    first = columns[0]
    starts = np.cumsum([0] + [len(said.group) for said in first])
    part = np.concatenate([said.part + start for said, start in zip(first, starts, strict=False)])
    rows = np.concatenate([said.row for said in first])

    def side(name: str) -> np.ndarray:
        below = [np.concatenate([getattr(said, name) for said in column]) for column in columns]
        return np.concatenate(below, axis=1)

    count = np.concatenate([said.count for said in first])
    weight = taught.weight[rows] / np.bincount(part, taught.weight[rows])[part]
    return Trials(side("evidence"), part, side("mean"), side("variance"), taught.y[rows], count, weight)
