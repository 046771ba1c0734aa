"""Points as rows of flow matching: where a point is on its way from noise at time t, and how it moves there.

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
    """Return the rows of flow matching of points `[B, N, D]`: x `[B, N, D + 1]`, y `[B, N, D]`.

        x = [x_t, t],  x_t = (1 - t) e + t point,  y = point - e;   e ~ N(0, I),  t ~ U(0, 1)

    One draw of (t, e) for each point, with `generator`, a CPU generator; other draws make other rows.
    The best answer at x, `E[y | x]`, is the velocity that carries noise to the points.

    Raises:
        ValueError: points that are not `[B, N, D]`.

    Example:
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
    """Return the points `[B, N, D]` that rows of flow matching belong to: `x_t + (1 - t) y`.

    Example:
        >>> points = flow_points(task.support)

    Source: Lipman et al. 2023, eqs. 22-23, solved for the point.
    """
    return rows.x[..., :-1] + (1 - rows.x[..., -1:]) * rows.y


class Components(NamedTuple):
    """A mixture of K Gaussians for each task: `p(point) = sum_k w_k N(point; m_k, U_k diag(l_k) U_k')`.

    Fields: `weights w [B, K]`, summing to 1; `means m [B, K, D]`; `variances l [B, K, D]`, positive; `bases U
    [B, K, D, D]`, orthogonal, or None: the axes.
    """

    weights: Tensor
    means: Tensor
    variances: Tensor
    bases: Tensor | None = None

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Return n points of each task, `[B, n, D]`, drawn with a CPU generator."""
        which = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        task = torch.arange(len(which))[:, None]
        step = self.variances[task, which].sqrt() * torch.randn(
            *which.shape, self.means.shape[2], generator=generator
        )
        if self.bases is not None:
            step = (self.bases[task, which] @ step[..., None]).squeeze(-1)
        return self.means[task, which] + step

    def velocity(self, x: Tensor) -> Tensor:
        """Return `E[y | x]`, the velocity of the mixture's flow `[B, N, D]` at rows' x = [x_t, t] `[B, N, D + 1]`.

            E[y | x] = sum_k r_k (m_k + (t S_k - (1 - t) I) C_k^-1 (x_t - t m_k)),  C_k = t^2 S_k + (1 - t)^2 I,

        r_k the chance that component k, N(t m_k, C_k), made x_t; computed in float64, in x's dtype.

        Source: Lipman et al. 2023, eq. 8, of Gaussians (Bishop 2006, eq. 2.116).
        """
        place, t = x[..., None, :-1].double(), x[..., None, -1:].double()
        means, spread = self.means[:, None].double(), self.variances[:, None].double()
        apart = place - t * means  # [B, N, K, D]
        bases = None if self.bases is None else self.bases.double()
        if bases is not None:
            apart = torch.einsum("bnkd,bkde->bnke", apart, bases)
        wide = t.square() * spread + (1 - t).square()
        log = self.weights.double().log()[:, None] - (apart.square() / wide + wide.log()).sum(-1) / 2
        moved = (t * spread - (1 - t)) / wide * apart
        if bases is not None:
            moved = torch.einsum("bnke,bkde->bnkd", moved, bases)
        return (log.softmax(-1)[..., None] * (means + moved)).sum(2).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class FlowFamily(TaskFamily):
    """Tasks of generation: rows of flow matching of points that a mixture makes, a new one for each task.

    Support and query are rows of different points, each with its own noise and time (`flow_rows`). To answer a query
    is to say which way noise moves there; `gradatim.generation.generate` follows it. `truth`: the mixture's velocity.

    Source: Lipman et al. 2023, eqs. 22-23.
    """

    @property
    def x_dim(self) -> int:
        """Return the width of [x_t, t], one more than a point's."""
        return self.likelihood.y_dim + 1

    @abstractmethod
    def components(self, n_tasks: int, generator: torch.Generator) -> Components:
        """Return the mixtures of n_tasks tasks, drawn with `generator`, a CPU generator."""

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, no CPU generator, or what the class says of sampling.
        """
        check_sample(n_tasks, generator)
        mixtures = self.components(n_tasks, generator)
        points = mixtures.sample(self.support_rows + self.query_rows, generator).float()
        rows, n = flow_rows(points, generator), self.support_rows
        support = Batch(rows.x[:, :n], rows.y[:, :n], support_mask(self, n_tasks, generator))
        query = rows.slice(n, rows.n_rows)
        return Task(support, query, truth=mixtures.velocity(query.x))
