"""What came before a row: running means of its columns and of the targets, as further features.

Source: Brown 1956 (exponential smoothing).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATES = (0.5, 0.2, 0.03)
"""Of the running means of columns, a row: means of about 2, 5 and 33 rows. None is a row: a file holds them."""

TARGETS = (0.5, 0.1)
"""Of the running means of targets."""

WIDEST = 30
"""Columns of numbers of which running means are kept, at most."""


@dataclass
class Context:
    """Running means of the columns `numbers [m]` of encoded rows, and of targets of width C.

    Fields: `numbers [m]`; `means [3, m]`, at first 0, the map's centre; `targets [2, C]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.context import Context
        >>> context = Context.empty(np.array([0]), outputs=1)
        >>> context.learn(np.array([[1.0, 5.0], [3.0, 5.0]]), np.array([[1.0], [0.0]]))
        >>> context.rows(np.array([[4.0, 7.0]])).round(2)
        array([[4.  , 7.  , 2.25, 3.24, 3.88]])
    """

    numbers: np.ndarray
    means: np.ndarray
    targets: np.ndarray

    @classmethod
    def empty(cls, numbers: np.ndarray, outputs: int) -> Context:
        """Return the context of a first row, for the columns `numbers [m]`."""
        return cls(numbers, np.zeros((len(RATES), len(numbers))), np.zeros((len(TARGETS), outputs)))

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Return rows `[n, d]` with how far their numbers are from the means, `[n, d + 3 m]`."""
        apart = x[:, None, self.numbers] - self.means
        return np.concatenate([x, apart.reshape(len(x), -1)], axis=1)

    def tail(self, n: int) -> np.ndarray:
        """Return the means of targets for each of n rows, `[n, 2 C]`."""
        return np.broadcast_to(self.targets.ravel(), (n, self.targets.size))

    def move(self, place: np.ndarray, scale: np.ndarray, shift: np.ndarray) -> None:
        """Go on with rows whose input `numbers[j]` is now `place[j]`, and was scaled and shifted."""
        self.numbers, self.means = place.clip(0), scale * self.means + shift

    def learn(self, x: np.ndarray, codes: np.ndarray) -> None:
        """Go on after rows `[n, d]` with targets `[n, C]`."""
        self.means = np.stack(
            [smoothed(*part, x[:, self.numbers]) for part in zip(self.means, RATES, strict=True)]
        )
        self.targets = np.stack([smoothed(*part, codes) for part in zip(self.targets, TARGETS, strict=True)])


def smoothed(mean: np.ndarray, rate: float, values: np.ndarray) -> np.ndarray:
    """Return the running mean `[m]` after values `[n, m]`."""
    faded = (1 - rate) ** np.arange(len(values) - 1, -1, -1)
    return (1 - rate) ** len(values) * mean + rate * faded @ values
