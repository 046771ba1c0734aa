"""What a table's task says of the spread of a number: quantiles and deviations of its predictive distribution.

Source: Dawid 1984 (predictive distributions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .nn.mixture import Mixture


class Spread:
    """What is said of a number beside its mean, by a task that knows its distribution and how many rows it learnt."""

    count: int

    def distribution(self, x: Tensor) -> Mixture:
        """Return the predictive distribution of y `[1, n]` at x of shape `[1, n, d]`."""
        raise NotImplementedError

    def quantiles(self, x: Tensor, levels: np.ndarray) -> Tensor:
        """Return quantiles `[n, Q]` of a regression's y at x `[1, n, d]`, `levels [Q]`."""
        distribution = self.distribution(x)
        if self.count > 1:
            return distribution.quantiles(torch.from_numpy(levels).to(x))[0]
        infinite = np.where(levels == 0.5, 0.0, np.copysign(np.inf, levels - 0.5))  # one row shows no spread
        return distribution.mean[0, :, None] + torch.from_numpy(infinite).to(x)

    def deviations(self, x: Tensor) -> Tensor:
        """Return means and standard deviations `[n, 2]` of a regression's y at x `[1, n, d]`."""
        mean, variance = self.distribution(x).moments[0].unbind(-1)
        return torch.stack(
            [mean, variance.sqrt() if self.count > 1 else torch.full_like(mean, torch.inf)], -1
        )
