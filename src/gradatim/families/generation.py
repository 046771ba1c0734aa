"""Generation tasks with simulated points: mixtures of Gaussians.

Source: Mittal et al. 2025, generative modelling of Gaussian mixtures; constants are this project's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..likelihood import Velocity
from .flows import Components, FlowFamily
from .sampling import check_amount, check_count, check_rows

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture(FlowFamily):
    """Points of a mixture of K Gaussians with equal weights.

        p(point) = 1/K sum_k N(point; m_k, S_k),   m_k ~ N(0, I)

    `S_k` has a random orthogonal basis and eigenvalues `std^2 stretch^u`, where `u ~ U(-1, 1)`. So a stretch of 1 makes
    circles.

    Shapes: x = [x_t, t] `[B, N, dim + 1]`, y `[B, N, dim]`, `truth = E[y | x]` at the query `[B, Nq, dim]`.

    Fields: `dim`: coordinates of a point; `components_max`: K; `components_min`: where given, K is uniform between the
    two in each task; `std`: size of a component; `stretch`: how far components are from circles.

    Raises:
        ValueError: dim or a number of components below 1, more components at least than at most, std not above 0,
            stretch below 1, impossible rows.

    Example:
        >>> import torch
        >>> from gradatim.families import GaussianMixture
        >>> from gradatim.families.flows import flow_points
        >>> family = GaussianMixture(2, components_max=4, support_rows=160)
        >>> flow_points(family.sample(16, torch.Generator().manual_seed(0)).support).shape
        torch.Size([16, 160, 2])

    Source: Mittal et al. 2025, mixtures of Gaussians; constants are this project's own.
    """

    dim: int = 2
    components_max: int = 4
    components_min: int | None = None
    std: float = 0.2
    stretch: float = 2.0

    def __post_init__(self) -> None:
        check_rows(self)
        check_count("dim", self.dim, minimum=1)
        check_count("components_max", self.components_max, minimum=1)
        check_amount("std", self.std, above=0)
        check_amount("stretch", self.stretch, above=1, inclusive=True)
        if self.components_min is not None:
            check_count("components_min", self.components_min, minimum=1)
            if self.components_min > self.components_max:
                raise ValueError(
                    f"components_min must be at most components_max = {self.components_max}; got "
                    f"{self.components_min}: lower it, or leave it None for mixtures of one size"
                )

    @property
    def likelihood(self) -> Velocity:
        """Return that y is a velocity of `dim` coordinates."""
        return Velocity(self.dim)

    def components(self, n_tasks: int, generator: torch.Generator) -> Components:
        """Return the mixtures of n_tasks tasks; weights `[B, K]` are 0 where a task has fewer than K components."""
        shape = (n_tasks, self.components_max, self.dim)
        means = torch.randn(shape, generator=generator)
        tilt = 2 * torch.rand(shape, generator=generator) - 1
        variances = self.std**2 * (math.log(self.stretch) * tilt).exp()
        bases = torch.linalg.qr(torch.randn(*shape, self.dim, generator=generator)).Q
        return Components(self._weights(n_tasks, generator), means, variances, bases)

    def _weights(self, n_tasks: int, generator: torch.Generator) -> Tensor:
        """Return equal weights `[B, K]` of the first components of each task, and 0 of the others."""
        size = self.components_max
        counts = torch.full((n_tasks, 1), size)
        if self.components_min is not None:
            counts = torch.randint(self.components_min, size + 1, (n_tasks, 1), generator=generator)
        return (torch.arange(size) < counts) / counts
