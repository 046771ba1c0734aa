"""Flow matching as regression: x is a point on its path from noise at time t, and y is its velocity there.

Source: Lipman et al. 2023, eqs. 22-23 (the conditional path with sigma_min = 0 and its velocity).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..batch import Batch, Task
from ..family import TaskFamily
from .sampling import check_sample, support_mask

if TYPE_CHECKING:
    from torch import Tensor


def flow_rows(points: Tensor, generator: torch.Generator) -> Batch:
    """Return rows of flow matching, one for each point.

        x = [x_t, t],  x_t = (1 - t) e + t point,  y = point - e
        e ~ N(0, I),  t ~ U(0, 1).

    The best answer at x, `E[y | x]`, is the velocity that transports noise to the distribution of the points.

    Args:
        points: `[B, N, D]`.
        generator: a CPU generator, for e and t.

    Returns:
        A batch with x `[B, N, D + 1]` and y `[B, N, D]`.

    Raises:
        ValueError: points that are not `[B, N, D]`.

    Example:
        >>> import torch
        >>> from gradatim.families.flows import flow_rows
        >>> rows = flow_rows(torch.randn(4, 32, 2), torch.Generator().manual_seed(0))
        >>> rows.x.shape, rows.y.shape
        (torch.Size([4, 32, 3]), torch.Size([4, 32, 2]))

    Source: Lipman et al. 2023, eqs. 22-23.
    """
    if points.dim() != 3:
        raise ValueError(f"points must be [tasks, rows, coordinates]; got shape {tuple(points.shape)}")
    noise = torch.randn(points.shape, generator=generator).to(points)
    t = torch.rand(*points.shape[:2], 1, generator=generator).to(points)
    return Batch(torch.cat([(1 - t) * noise + t * points, t], dim=-1), points - noise)


def flow_points(rows: Batch) -> Tensor:
    """Return the points `[B, N, D]` of rows of flow matching: `x_t + (1 - t) y`.

    Example:
        >>> import torch
        >>> from gradatim.families.flows import flow_points, flow_rows
        >>> points = torch.tensor([[[1.0, 2.0]]])
        >>> flow_points(flow_rows(points, torch.Generator().manual_seed(0))).round(decimals=4)
        tensor([[[1., 2.]]])

    Source: Lipman et al. 2023, eqs. 22-23, solved for the point.
    """
    return rows.x[..., :-1] + (1 - rows.x[..., -1:]) * rows.y


class Components(NamedTuple):
    """A mixture of K Gaussians for each task.

        p(point) = sum_k w_k N(point; m_k, U_k diag(l_k) U_k')

    Fields: `weights`: w `[B, K]`, summing to 1; `means`: m `[B, K, D]`; `variances`: l `[B, K, D]`, positive;
    `bases`: U `[B, K, D, D]`, orthogonal, or None for the identity.

    Example:
        >>> import torch
        >>> from gradatim.families.flows import Components
        >>> single = Components(torch.ones(1, 1), torch.full((1, 1, 2), 3.0), torch.full((1, 1, 2), 1e-6))
        >>> single.velocity(torch.tensor([[[3.0, 3.0, 1.0]]])).round(decimals=3)
        tensor([[[3., 3.]]])

    Source: Lipman et al. 2023, eq. 8, of Gaussians.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    bases: Tensor | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n points `[B, n, D]` of each task, drawn with a CPU generator."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        task = torch.arange(len(which))[:, None]
        step = self.variances[task, which].sqrt() * torch.randn(
            *which.shape, self.means.shape[2], generator=generator
        )
        if self.bases is not None:
            step = (self.bases[task, which] @ step[..., None]).squeeze(-1)
        return self.means[task, which] + step

    def velocity(self, x: Tensor) -> Tensor:
        """Return the velocity `E[y | x]` of the mixture's flow.

            E[y | x] = sum_k r_k (m_k + (t S_k - (1 - t) I) C_k^-1 (x_t - t m_k))
            C_k = t^2 S_k + (1 - t)^2 I.

        r_k is the posterior probability that x_t is from component k, N(t m_k, C_k). S_k is its covariance. The
        computation is in float64.

        Args:
            x: [x_t, t] `[B, N, D + 1]`.

        Returns:
            Velocity `[B, N, D]`, in x's dtype.

        Source: Lipman et al. 2023, eq. 8, of Gaussians (Bishop 2006, eq. 2.116).
        """
        x_t, t = x[..., None, :-1].double(), x[..., None, -1:].double()
        means, spread = self.means[:, None].double(), self.variances[:, None].double()
        residual = x_t - t * means  # [B, N, K, D]
        bases = None if self.bases is None else self.bases.double()
        if bases is not None:
            residual = torch.einsum("bnkd,bkde->bnke", residual, bases)
        variance = t.square() * spread + (1 - t).square()
        log = (
            self.weights.double().log()[:, None] - (residual.square() / variance + variance.log()).sum(-1) / 2
        )
        shift = (t * spread - (1 - t)) / variance * residual
        if bases is not None:
            shift = torch.einsum("bnke,bkde->bnkd", shift, bases)
        return (log.softmax(-1)[..., None] * (means + shift)).sum(2).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class FlowFamily(TaskFamily):
    """Generation tasks: rows of flow matching of points from a mixture, a new mixture for each task.

    Support and query are rows of different points, each with its own noise and time (`flow_rows`). The answer to a
    query is a velocity; `gradatim.generation.generate` integrates it. `truth` is the velocity of the mixture.

    A subclass defines `components`.

    Source: Lipman et al. 2023, eqs. 22-23.
    """

    @property
    def x_dim(self) -> int:
        """Return the width of [x_t, t], one more than a point's."""
        return self.likelihood.y_dim + 1

    @abstractmethod
    def components(self, n_tasks: int, generator: torch.Generator) -> Components:
        """Return the mixtures of n_tasks tasks, weights `[B, K]`, drawn with `generator`, a CPU generator."""

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, no CPU generator, or what the class lists for sampling.
        """
        check_sample(n_tasks, generator)
        mixtures = self.components(n_tasks, generator)
        points = mixtures.sample(self.support_rows + self.query_rows, generator).float()
        rows, n = flow_rows(points, generator), self.support_rows
        support = Batch(rows.x[:, :n], rows.y[:, :n], support_mask(self, n_tasks, generator))
        query = rows.slice(n, rows.n_rows)
        return Task(support, query, truth=mixtures.velocity(query.x))
