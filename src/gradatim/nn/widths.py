"""How wide the distributions of a number are, by what is predicted: rows that fell outside widen them, others narrow.

Source: Gibbs, Candes 2021, eq. 2 (adaptive conformal inference).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from .mixture import cumulative_at

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor

KNOTS, REACH = 7, 1.2
"""Predictions at which widths are learnt, evenly spread up to so many deviations of y on either side of its mean."""

LEVEL = 0.8
"""Of the central interval that should hold this share of rows."""

GAIN, PRIOR, MOST = 4.0, 20.0, 1.5
"""Step of a log factor for a row that falls outside, divided by the rows and by as many before; its largest size."""

TURNS = 8
"""How often factors change where all rows are at hand."""

TINY = 1e-12


class Widths(NamedTuple):
    """Log factors by which the distributions of B tasks are stretched about their means, at K predictions.

    Fields: `factor [B, K]`; `rows [B, K]`, the weight of rows by what was predicted of them; `missed [B, K]`: of those
    since factors changed, how many more than a fifth fell outside of the central 80%; `scale [B, 2]`, mean and
    deviation of y at that time. Of classes all are empty.

    Example:
        >>> import torch
        >>> from gradatim.nn.widths import Widths
        >>> widths = Widths.empty(1, torch.zeros(())).turned(torch.tensor([[0.0, 1.0]]))
        >>> mean, outside, weight = torch.zeros(1, 2), torch.tensor([[True, True]]), torch.ones(1, 2)
        >>> widths = widths.counted(mean, outside, weight).turned(torch.tensor([[0.0, 1.0]]))
        >>> widths.stretch(torch.tensor([[0.0, 9.0]])).round(decimals=2)
        tensor([[1.3400, 1.0000]])

    Source: Gibbs, Candes 2021, eq. 2.
    """

    factor: Tensor
    rows: Tensor
    missed: Tensor
    scale: Tensor

    @classmethod
    def empty(cls, n_tasks: int, like: Tensor, is_number: bool = True) -> Self:
        """Return those of tasks that have learnt no row; `is_number`: whether y is a number."""
        nothing = like.new_zeros(n_tasks, KNOTS * is_number)
        return cls(nothing, nothing, nothing, like.new_zeros(n_tasks, 2 * is_number))

    @classmethod
    def split(cls, flat: Tensor) -> Self:
        """Return those of which `flat [B, 3 K + 2]` is what `joined` returned."""
        count = max(0, flat.shape[1] - 2) // 3
        return cls(*flat.split((count, count, count, flat.shape[1] - 3 * count), 1))

    def check(self) -> None:
        """Raise ValueError where these cannot be: factors too large, rows below 0, a deviation below 0."""
        possible = self.factor.abs().le(MOST).all() & self.rows.ge(0).all() & self.scale[:, 1:].ge(0).all()
        if not bool(possible):
            raise ValueError(f"'widths' must be log factors up to {MOST}, weights of rows and a deviation")

    @property
    def joined(self) -> Tensor:
        """Return all in one tensor `[B, 3 K + 2]`."""
        return torch.cat(self, 1)

    def near(self, mean: Tensor) -> Tensor:
        """Return how near predictions `[B, N]` are to each of the K, `[B, N, K]`: they sum to 1."""
        centre, deviation = self.scale[:, :1], self.scale[:, 1:].clamp(min=TINY)
        at = ((mean - centre) / deviation).clamp(-REACH, REACH)[..., None]
        knots = torch.linspace(-REACH, REACH, KNOTS).to(at)
        return (1 - (at - knots).abs() * (KNOTS - 1) / (2 * REACH)).clamp(min=0)

    def stretch(self, mean: Tensor) -> Tensor:
        """Return the factor of the width of each distribution of mean `[B, N]`, `[B, N]`."""
        return (self.near(mean) @ self.factor[..., None])[..., 0].exp()

    def counted(self, mean: Tensor, outside: Tensor, weight: Tensor) -> Self:
        """Return those that have seen which of more rows fell outside; all `[B, N]`."""
        near = self.near(mean) * weight[..., None]
        missed = (outside.to(near) - (1 - LEVEL))[..., None] * near
        return self._replace(rows=self.rows + near.sum(1), missed=self.missed + missed.sum(1))

    def turned(self, scale: Tensor) -> Self:
        """Return those whose factors have changed by what was missed; `scale [B, 2]`, mean and deviation of y."""
        factor = (self.factor + GAIN * self.missed / (self.rows + PRIOR)).clamp(-MOST, MOST)
        return self._replace(factor=factor, missed=torch.zeros_like(self.missed), scale=scale)

    def with_rows(self, mixture: tuple[Tensor, Tensor, Tensor], y: Tensor, weight: Tensor) -> Self:
        """Return those that have seen rows y `[B, N]` of weights `[B, N]`.

        `mixture`: what was said of them, means `[B, N, E]`, noise `[B, E]` and weights `[B, E, T]`.
        """
        means, noise, share = mixture
        mean = (share.sum(2)[:, None] * means).sum(2)
        at = mean + (y - mean) / self.stretch(mean)
        outside = (cumulative_at(at, means, noise, share) - 0.5).abs() > LEVEL / 2
        return self.counted(mean, outside, weight)

    def with_all(self, mixture: tuple[Tensor, Tensor, Tensor], y: Tensor, weight: Tensor) -> Self:
        """Return those that have seen rows as in `with_rows`, in no order: steps as large as one after another."""
        widths = self
        for _ in range(TURNS):
            seen = widths.with_rows(mixture, y, weight)
            rows, missed = seen.rows - widths.rows, seen.missed - widths.missed
            step = GAIN / TURNS * ((seen.rows + PRIOR) / (self.rows + PRIOR)).log() / rows.clamp(min=TINY)
            widths = widths._replace(factor=(widths.factor + step * missed).clamp(-MOST, MOST))
        return widths._replace(rows=seen.rows)

    def moved(self, scale: float, shift: float) -> Self:
        """Return those of `scale y + shift`."""
        mean, deviation = self.scale.split(1, 1)
        return self._replace(scale=torch.cat([scale * mean + shift, abs(scale) * deviation], 1))

    def shared(self, share: Tensor) -> Self:
        """Return those in which rows count a share `[B]` of what they did."""
        return self._replace(rows=share[:, None] * self.rows, missed=share[:, None] * self.missed)

    def merged(self, others: Self) -> Self:
        """Return those of the rows of both; factors are averaged by rows."""
        rows = self.rows + others.rows
        part = torch.where(rows > 0, self.rows / rows.clamp(min=TINY), 0.5)
        factor = part * self.factor + (1 - part) * others.factor
        return self._replace(factor=factor, rows=rows, missed=self.missed + others.missed)
