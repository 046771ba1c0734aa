"""Rows of a stream that a buffer of fixed size keeps, each row so far with the same probability; and running moments.

Source: Vitter 1985, algorithm R; Chan, Golub, LeVeque 1979 (moments that are added).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FURTHEST = 8.0
"""Deviations at which standardised numbers end: the first rows say little of how far a column goes."""


class Reservoir:
    """Slots of a buffer. What is in them is the caller's.

    Args:
        size: how many slots; 0 keeps nothing.
        generator: draws.
        count: rows that came so far.

    Example:
        >>> import numpy as np
        >>> from gradatim.estimators.buffer import Reservoir
        >>> buffer = Reservoir(2, np.random.default_rng(0))
        >>> buffer.place(2).tolist(), buffer.filled
        ([0, 1], 2)
        >>> slots = buffer.place(1000)  # -1: not kept
        >>> bool((slots >= 0).sum() < 40), sorted(buffer.draw(5).tolist())
        (True, [0, 1])
    """

    def __init__(self, size: int, generator: np.random.Generator, count: int = 0) -> None:
        self.size, self.generator, self.count = size, generator, count

    @property
    def filled(self) -> int:
        """Return how many slots hold a row."""
        return min(self.count, self.size)

    def place(self, n: int) -> np.ndarray:
        """Return the slot of each of n new rows, `[n]`: -1 where it is not kept. Later rows replace earlier ones."""
        at = np.arange(self.count, self.count + n)
        drawn = self.generator.integers(0, at + 1)
        self.count += n
        slots = np.where(at < self.size, at, drawn)
        return np.where(slots < self.size, slots, -1)

    def draw(self, n: int) -> np.ndarray:
        """Return up to n different slots that hold a row, drawn evenly, `[k]`."""
        return self.generator.choice(self.filled, min(n, self.filled), replace=False)


class Buffer(Reservoir):
    """Rows x of one shape with their classes y, in the slots of a reservoir.

    Example:
        >>> import numpy as np
        >>> import torch
        >>> from gradatim.estimators.buffer import Buffer
        >>> buffer = Buffer(2, (3,), np.random.default_rng(0))
        >>> buffer.add(torch.ones(1, 3), torch.tensor([4]))
        >>> buffer.draw_rows(10)[1].tolist()
        [4]
    """

    def __init__(self, size: int, shape: tuple[int, ...], generator: np.random.Generator) -> None:
        super().__init__(size, generator)
        self.x, self.y = torch.zeros(0, *shape), torch.zeros(0, dtype=torch.int64)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Keep some of the rows x `[n, ...]`, y `[n]`."""
        for row, slot in enumerate(self.place(len(y)).tolist()):
            if slot == len(self.y):  # grows as rows come: a large buffer takes no room before
                self.x, self.y = torch.cat([self.x, x[row : row + 1]]), torch.cat([self.y, y[row : row + 1]])
            elif slot >= 0:
                self.x[slot], self.y[slot] = x[row], y[row]

    def draw_rows(self, n: int) -> tuple[Tensor, Tensor]:
        """Return up to n different rows x `[k, ...]`, y `[k]`."""
        if not self.filled:
            return self.x[:0], self.y[:0]
        slots = torch.from_numpy(self.draw(n))
        return self.x[slots], self.y[slots]


class Moments:
    """Running means and deviations: of each column of rows `[n, d]`, of all numbers of rows `[n, ...]` with more axes.

    Example:
        >>> import torch
        >>> from gradatim.estimators.buffer import Moments
        >>> moments = Moments((1,))
        >>> moments.add(torch.tensor([[1.0], [3.0]]))
        >>> moments(torch.tensor([[1.0], [3.0], [100.0]]))[:, 0].tolist()
        [-1.0, 1.0, 8.0]
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        width = shape[0] if len(shape) == 1 else 1
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Count rows x `[n, ...]`."""
        x = x.double().reshape(-1, len(self.mean))
        n, mean = len(x), x.mean(0)
        total, apart = self.count + n, mean - self.mean
        self.square = self.square + ((x - mean) ** 2).sum(0) + apart**2 * (self.count * n / total)
        self.mean = self.mean + apart * (n / total)
        self.count = total

    def __call__(self, x: Tensor) -> Tensor:
        """Return rows x `[n, ...]` in deviations from the mean; a column that never varied keeps its unit."""
        deviation = (self.square / max(self.count, 1)).sqrt()
        deviation = torch.where(deviation > 1e-6 * self.mean.abs(), deviation, torch.ones_like(deviation))
        z = ((x.double().reshape(-1, len(self.mean)) - self.mean) / deviation).clamp(-FURTHEST, FURTHEST)
        return z.float().reshape(x.shape)
