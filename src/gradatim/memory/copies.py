"""Copies of a head that forget at different rates: sums over rows in which old rows count less.

Source: Haykin 2002, section 9.3 (exponentially weighted least squares); Green 1984, eq. 3 (working responses).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack

BLOCK = 32
"""Rows after which all rows before count less, by a copy's factor."""

FOREVER = 0.9999
"""The factor of a copy that forgets nothing for as long as float32 sums are exact enough: 320,000 rows."""

STRENGTHS = (1.0, 10.0)
"""Of the ridge heads of a copy, on x alone and on all features."""

SOFT = 0.3
"""The strength of a softmax head, of one logit."""

FEWEST, MOST_LOGIT = 0.02, 12.0
"""The least weight of a row in a softmax head's sums, and its largest logit: no row may decide alone."""

ROUNDING = 3e-6
"""Of a feature's own second moment, added to every strength."""


@dataclass
class Copy:
    """Sums over rows of phi phi' and phi y', and heads solved from them; each row counts `factor` less a block later.

    Fields: `factor`; `share`: heads are solved once the rows since then are this share of all. `gram [D, D]` and
    `cross [D, C]`, float32; `heads [D, H C]` float32. `rows`: the sum of the weights, discounted; `new`: of them, since
    heads were solved.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.copies import Ridge
        >>> copy = Ridge.empty(width=3, outputs=2, factor=0.8, linear=2)
        >>> phi = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
        >>> copy.add(phi.T @ phi, phi.T @ phi[:, :2], 32.0)
        >>> copy.turn(32)
        >>> copy.heads.shape
        (3, 8)
    """

    factor: float
    share: float
    gram: np.ndarray
    cross: np.ndarray
    heads: np.ndarray
    rows: float = 0.0
    new: float = 0.0

    def add(self, gram: np.ndarray, cross: np.ndarray, rows: float) -> None:
        """Add the sums `[D, D]` and `[D, C]` of rows whose weights sum to `rows`."""
        self.gram, self.cross = self.gram + gram, self.cross + cross
        self.rows, self.new = self.rows + rows, self.new + rows

    def turn(self, rows: float) -> None:
        """End a block of some rows: solve heads where this is due; then all rows count less."""
        if self.new >= min(BLOCK, self.rows / 4) and self.new >= self.share * self.rows:
            self.solve()
            self.new = 0.0
        faded = np.float32(self.factor ** (rows / BLOCK))
        self.gram, self.cross, self.rows = faded * self.gram, faded * self.cross, self.rows * float(faded)

    def solve(self) -> None:
        """Solve the heads from the sums."""
        raise NotImplementedError

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Go on with more classes: class c becomes `place[c]`."""
        raise NotImplementedError

    def become(self, copy: Copy) -> None:
        """Begin anew from another copy."""
        self.gram, self.cross, self.heads = copy.gram, copy.cross, copy.heads
        self.rows, self.new = copy.rows, 0.0

    def carry(self, matrix: np.ndarray) -> None:
        """Go on with features `matrix phi`, by a matrix of shape `[D', D]`."""
        self.gram, self.cross = (matrix @ self.gram @ matrix.T), matrix @ self.cross
        self.heads = matrix @ self.heads
        if not is_embedding(matrix):
            self.solve()


@dataclass
class Ridge(Copy):
    """Ridge heads: the first `linear` features alone, and all of them, each under several strengths.

    Source: Hoerl, Kennard 1970, eq. 2.1.
    """

    linear: int = 0

    @classmethod
    def empty(cls, width: int, outputs: int, factor: float, linear: int, share: float = 0.2) -> Ridge:
        """Return a copy that has seen no row, of D features and C outputs."""
        heads = np.zeros((width, 2 * len(STRENGTHS) * outputs), np.float32)
        gram, cross = np.zeros((width, width), np.float32), np.zeros((width, outputs), np.float32)
        return cls(factor, share, gram, cross, heads, linear=linear)

    def solve(self) -> None:
        """Solve the heads `[D, H C]`: those of the first features are 0 for the others."""
        parts = []
        for width in (self.linear, len(self.gram)):
            for strength in STRENGTHS:
                head = np.zeros_like(self.cross)
                head[:width] = solved(self.gram[:width, :width], strength, self.cross[:width])
                parts.append(head)
        self.heads = np.concatenate(parts, axis=1)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Go on with more classes: class c becomes `place[c]`."""
        count = self.heads.shape[1] // self.cross.shape[1]
        heads = self.heads.reshape(len(self.heads), count, -1)
        self.cross = spread(self.cross, place, outputs)
        self.heads = spread(heads, place, outputs).reshape(len(heads), -1)


@dataclass
class Softmax(Copy):
    """A softmax head fitted by working responses, one matrix of second moments for all classes.

    At the head of the time z = theta phi, p = softmax(z) and `w = sum_c p_c (1 - p_c) / (C - 1)`. A row adds to the
    sums, from which the head follows:

        gram <- gram + w phi phi',    cross_c <- cross_c + phi (w z_c + y_c - p_c),    theta = (gram + s I)^-1 cross.

    So each row is held as the quadratic that its log-likelihood was when it came.

    Source: Green 1984, eq. 3.
    """

    @classmethod
    def empty(cls, width: int, outputs: int, factor: float, share: float = 0.1) -> Softmax:
        """Return a copy that has seen no row, of D features and C classes."""
        gram, cross = np.zeros((width, width), np.float32), np.zeros((width, outputs), np.float32)
        return cls(factor, share, gram, cross, np.zeros_like(cross))

    def learn(self, phi: np.ndarray, codes: np.ndarray, weight: np.ndarray) -> None:
        """Add rows phi `[n, D]`, y `[n, C]` one-hot, of weights `[n]`, all float32."""
        classes = codes.shape[1]
        logits = (phi @ self.heads).clip(-MOST_LOGIT, MOST_LOGIT)
        p = softmax(logits)
        w = (p * (1 - p)).sum(1) / max(1, classes - 1)
        w = np.maximum(w, FEWEST) * weight
        response = w[:, None] * logits + weight[:, None] * (codes - p)
        self.add((phi.T * w) @ phi, phi.T @ response, float(weight.sum()))

    def solve(self) -> None:
        """Solve the head."""
        # of two classes the logit is the difference of two that move against each other
        classes = self.cross.shape[1]
        self.heads = solved(self.gram, SOFT * classes / max(1, classes - 1), self.cross)

    def widen(self, place: np.ndarray, outputs: int) -> None:
        """Go on with more classes: class c becomes `place[c]`."""
        self.cross = spread(self.cross, place, outputs)
        self.heads = spread(self.heads, place, outputs)


def solved(gram: np.ndarray, strength: float, right: np.ndarray) -> np.ndarray:
    """Return `(gram + R)^-1 right` float32 `[D, C]`; R is the strength, and room for rounding.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.copies import solved
        >>> solved(np.eye(2, dtype=np.float32), 1.0, np.ones((2, 1), np.float32)).round(3).ravel()
        array([0.5, 0.5], dtype=float32)
    """
    matrix = gram.astype(np.float64, order="F")
    diagonal = np.einsum("ii->i", matrix)
    diagonal += strength + ROUNDING * diagonal
    factor, info = lapack.dpotrf(matrix, lower=1, clean=0, overwrite_a=1)  # type: ignore[attr-defined]
    if info:
        raise ArithmeticError("second moments are not positive definite")
    head = lapack.dpotrs(factor, right.astype(np.float64), lower=1)[0]  # type: ignore[attr-defined]
    return head.astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities of logits `[n, ..., C]`."""
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def spread(part: np.ndarray, place: np.ndarray, outputs: int) -> np.ndarray:
    """Return `[..., C]` with its entries at `place [C]` among `outputs`, 0 elsewhere."""
    wider = np.zeros((*part.shape[:-1], outputs), part.dtype)
    wider[..., place] = part
    return wider


def is_embedding(matrix: np.ndarray) -> bool:
    """Return whether new features, by a matrix of shape `[D', D]`, are old ones as they were, or new."""
    return bool(np.isin(matrix, (0, 1)).all()) and bool(
        (matrix.sum(1) <= 1).all() & (matrix.sum(0) <= 1).all()
    )
