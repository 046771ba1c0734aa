"""Boosted trees, grown anew on the last rows whenever there are half as many more: they see rules that no head does.

Source: Friedman 2001, alg. 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..nn.trees import Trees, fit_trees

if TYPE_CHECKING:
    from ..nn.carry import Change

FEWEST, MOST, GAP = 64, 8192, 4096
"""Rows that the first trees are grown on; rows of the past that are held at most; rows after which trees are grown
anew at the latest."""

MORE = 1.5
"""Times as many rows as trees were grown on, from which on they are grown anew."""

SETTINGS: dict[str, Any] = {
    "learning_rate": 0.1,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
}

ROUNDS, TREES = 60, 240
"""Trees of one output, and of all outputs together, at most."""

WORK = 4e8
"""Rows times columns times trees of one growth, at most: about three seconds."""

YOUNG = 512
"""Rows of the past that are held at a change."""


@dataclass
class Grown:
    """Boosted trees, and the rows of the past that the next ones will be grown on. A file holds the trees alone.

    Fields: `trees`, None until there are some; `known`: the classes `[k]` that they tell apart, in order; `grown_on`:
    how many rows that was. `past`: blocks of rows x `[n, d]` float32, y `[n]` and weights `[n]`, in order; `new`: rows
    since trees were grown; `recent`: the rows of this block.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.grown import Grown
        >>> rng, grown = np.random.default_rng(0), Grown()
        >>> for _ in range(8):
        ...     x = rng.uniform(size=(32, 3))
        ...     grown.learn(x, (x[:, 0] > 0.5) == (x[:, 1] > 0.5), np.ones(32))
        ...     grown.turn(classes=2)
        >>> grown.probabilities(np.array([[0.2, 0.2, 0.5], [0.2, 0.8, 0.5]]), np.array([0.5, 0.5])).argmax(1)
        array([1, 0])

    Source: Friedman 2001, alg. 1.
    """

    trees: Trees | None = None
    known: np.ndarray | None = None
    grown_on: int = 0
    new: int = 0
    past: tuple[tuple[np.ndarray, ...], ...] = ()
    recent: tuple[tuple[np.ndarray, ...], ...] = ()

    def learn(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        """Take in rows x `[n, d]`, y `[n]` of weights `[n]`."""
        self.recent = (*self.recent, (x.astype(np.float32), y.astype(np.float64), weight))

    def turn(self, classes: int | None) -> None:
        """End a block; grow trees where this is due, of numbers (None), or of so many classes."""
        block = _joined(self.recent)
        self.past, self.recent, self.new = (*self.past, block), (), self.new + len(block[0])
        held = sum(len(x) for x, *_ in self.past)
        if held > 2 * MOST:
            self.past, held = (tuple(part[-MOST:] for part in _joined(self.past)),), MOST
        enough = held >= max(FEWEST, min(MORE * self.grown_on, MOST))
        if enough and self.new >= min((MORE - 1) * self.grown_on, GAP):
            self._grow(classes)

    def _grow(self, classes: int | None) -> None:
        x, y, weight = (part[-MOST:] for part in _joined(self.past))
        self.past = ((x, y, weight),)
        self.grown_on, self.new = len(x), 0
        present = np.unique(y[weight > 0]).astype(int) if classes is not None else None
        outputs = 1 if present is None or len(present) == 2 else len(present)
        rounds = min(ROUNDS, TREES // max(1, outputs))
        rows = int(min(len(x), WORK / (x.shape[1] * max(1, rounds * outputs))))
        if rounds < ROUNDS // 10 or rows < FEWEST or (present is not None and len(present) < 2):
            self.trees, self.known = None, None
            return
        x, y, weight = x[-rows:], y[-rows:], weight[-rows:]
        if present is not None:
            present = np.unique(y[weight > 0]).astype(int)
            x, y, weight = (part[weight > 0] for part in (x, y, weight))
            y = np.searchsorted(present, y)
        self.trees = fit_trees(x, y, None if present is None else len(present), rounds, weight, **SETTINGS)
        self.known = present

    def probabilities(self, x: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
        """Return probabilities `[n, C]` of rows `[n, d]`; `otherwise [C]`: what is said without trees."""
        if self.trees is None or self.known is None:
            return np.repeat(otherwise[None], len(x), axis=0)
        logits = self.trees.outputs(x)
        if logits.shape[1] == 1:
            logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
        odds = np.exp(logits - logits.max(1, keepdims=True))
        answer = np.zeros((len(x), len(otherwise)))
        answer[:, self.known] = odds / odds.sum(1, keepdims=True)
        return answer

    def means(self, x: np.ndarray, otherwise: float) -> np.ndarray:
        """Return means `[n]` at rows `[n, d]`; `otherwise`: what is said without trees."""
        return np.full(len(x), otherwise) if self.trees is None else self.trees.outputs(x)[:, 0]

    def shorten(self) -> None:
        """Keep the last rows alone, and grow trees on them soon: the task has changed."""
        if not self.past:  # a state that was just loaded holds no rows
            self.grown_on = 0
            return
        block = tuple(part[-YOUNG:] for part in _joined(self.past))
        self.past, self.grown_on = (block,), min(self.grown_on, len(block[0]))

    def carry(self, change: Change) -> None:
        """Go on with rows whose inputs changed."""
        place, scale, shift = (part.numpy() for part in change[:3])
        self.trees = None if self.trees is None else self.trees.moved(place, scale, shift)
        blocks = {name: getattr(self, name) for name in ("past", "recent")}
        for name, rows in blocks.items():
            moved = []
            for x, *others in rows:
                values = scale * x + shift
                if change.flag is not None:  # numbers that are missing stay 0
                    numbers = np.flatnonzero(change.flag.numpy() >= 0)
                    values[:, numbers] *= x[:, change.flag.numpy()[numbers]] != 1
                wider = np.zeros((len(x), change.width), np.float32)
                wider[:, place[place >= 0]] = values[:, place >= 0]
                moved.append((wider, *others))
            setattr(self, name, tuple(moved))

    def widen(self, place: np.ndarray) -> None:
        """Go on with more classes: class c becomes `place[c]`."""
        self.known = None if self.known is None else place[self.known]
        for name in ("past", "recent"):
            rows = getattr(self, name)
            setattr(self, name, tuple((x, place[y.astype(int)].astype(float), w) for x, y, w in rows))


def _joined(rows: tuple[tuple[np.ndarray, ...], ...]) -> tuple[np.ndarray, ...]:
    """Return blocks of rows as one."""
    return tuple(np.concatenate(parts) for parts in zip(*rows, strict=True))
