"""Features of rows seen, as those of a changed map of their columns: one matrix, for sums of products of features.

Source: Golub, Van Loan 2013, section 1.1 (a congruence: the second moments of T phi are T G T').
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .fixed_features import FixedFeatures


class Change(NamedTuple):
    """How the inputs of a map become those of another: `x'[place[j]] = scale[j] x[j] + shift[j]`.

    Fields: `place [d]` int64, the new index of every input, -1 where it is gone. `scale [d]`, `shift [d]` float64;
    `width`: of x'. `flag [d]` int64: for a number, the input that is 1 where it is missing, -1 if none.
    Inputs that are new are 0 for all rows seen, and numbers that are missing stay 0.

    Example:
        >>> import torch
        >>> from gradatim.nn.carry import Change
        >>> Change(torch.arange(2), torch.ones(2), torch.zeros(2), width=2).nothing
        True
    """

    place: Tensor
    scale: Tensor
    shift: Tensor
    width: int
    flag: Tensor | None = None

    @property
    def nothing(self) -> bool:
        """Return whether x' is x, but for inputs that are gone, whose place is empty."""
        stays = (self.place == torch.arange(len(self.place))) | (self.place < 0)
        same = len(self.place) == self.width and bool(stays.all())
        return same and self.only_wider

    @property
    def only_wider(self) -> bool:
        """Return whether x' has the inputs of x as they were, some of them gone, and new ones."""
        return bool((self.scale == 1).all()) and not bool(self.shift.any())


def carry_matrix(old: FixedFeatures, new: FixedFeatures, change: Change, same_draws: bool) -> Tensor:
    """Return T float64 of shape `[D', D]`, where `T phi(x) = phi'(x')` for rows that were seen.

    - x, 1 and products of two inputs are carried exactly; but not a product of two different inputs of another centre,
      where one of them is missing.
    - Nearness, steps and ramps stay what they were if `same_draws`. Else they are drawn anew, and 0 for the rows seen.
    - A product that the old features lack is 0 for the rows seen.

    Example:
        >>> import torch
        >>> from gradatim.nn.carry import Change, carry_matrix
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> f = FixedFeatures.draw(torch.randn(6, 2).double(), products=3)
        >>> change = Change(torch.arange(2), torch.tensor([2.0, 1.0]), torch.tensor([0.5, 0.0]), 2)
        >>> x = torch.randn(4, 2).double()
        >>> T = carry_matrix(f, f, change, same_draws=False)
        >>> exact = [0, 1, 2, 9, 10, 11]
        >>> torch.allclose((f(x) @ T.mT)[:, exact], f(2 * x * torch.tensor([1, 0.5]) + change.shift)[:, exact])
        True
    """
    place, scale, shift = change.place, change.scale.double(), change.shift.double()
    matrix = torch.zeros(sum(new.blocks), sum(old.blocks), dtype=torch.float64)
    d, constant = old.x_dim, new.x_dim
    matrix[constant, d] = 1.0
    present = torch.nonzero(place >= 0)[:, 0]
    matrix[place[present], present] = scale[present]
    matrix[place[present], d] += shift[present]
    flag = torch.full_like(place, -1) if change.flag is None else change.flag
    flagged = present[flag[present] >= 0]
    matrix[place[flagged], flag[flagged]] -= shift[flagged]  # where a number is missing x is 0, and stays 0
    before = torch.full((new.x_dim,), -1, dtype=torch.int64)
    before[place[present]] = present
    _carry_products(matrix, old, new, before, scale, shift, flag)
    if same_draws:
        ends = [torch.tensor(f.blocks).cumsum(0).tolist() for f in (new, old)]
        for block in (1, 3, 4):
            rows, columns = (slice(end[block - 1], end[block]) for end in ends)
            matrix[rows, columns] = torch.eye(new.blocks[block], dtype=torch.float64)
    return matrix


def _carry_products(
    matrix: Tensor,
    old: FixedFeatures,
    new: FixedFeatures,
    before: Tensor,
    scale: Tensor,
    shift: Tensor,
    flag: Tensor,
) -> None:
    """Fill in the rows of products: `(a x + b)(c y + d) = ac xy + ad x + bc y + bd`, all halved."""
    start_new, start_old = sum(new.blocks[:2]), sum(old.blocks[:2])
    pair_index = {tuple(sorted(pair)): at for at, pair in enumerate(old.pairs.mT.tolist())}
    for at, (p, q) in enumerate(new.pairs.mT.tolist()):
        i, j = int(before[p]), int(before[q])
        if i < 0 or j < 0 or (pair := pair_index.get((min(i, j), max(i, j)))) is None:
            continue
        row = matrix[start_new + at]
        row[start_old + pair] = scale[i] * scale[j]
        row[i] += scale[i] * shift[j] / 2
        row[j] += scale[j] * shift[i] / 2
        row[old.x_dim] += shift[i] * shift[j] / 2
        if i == j and flag[i] >= 0:
            row[flag[i]] -= shift[i] ** 2 / 2
