"""How far two clouds of points are apart, task by task: what generated points are judged by.

Source: Szekely, Rizzo 2013 (energy distance); Bonneel et al. 2015 (sliced Wasserstein distance).
"""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(points: Tensor, others: Tensor) -> Tensor:
    """Return the energy distance of two samples, `[B]`, from points `[B, N, D]` and others `[B, M, D]`.

        2 E|p - q| - E|p - p'| - E|q - q'|,    p != p', q != q':

    means over pairs of different points, so it is right on average: 0 for two samples of one distribution, and
    below 0 by chance.

    Raises:
        ValueError: samples of other tasks or widths, or of fewer than two points.

    Example:
        >>> energy_distance(torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[3.0], [3.0]]]))
        tensor([6.])

    Source: Szekely, Rizzo 2013, eqs. 2.5 and 6.1, without the pairs of a point with itself.
    """
    _check(points, others, least=2)
    return 2 * _gaps(points, others).mean((1, 2)) - _within(points) - _within(others)


def sliced_wasserstein(
    points: Tensor, others: Tensor, generator: torch.Generator, projections: int = 64
) -> Tensor:
    """Return the sliced Wasserstein distance of order 1 of two samples of N points `[B, N, D]`, `[B]`.

        mean_u  mean_i |sorted_i(u'p) - sorted_i(u'q)|,    u uniform on the sphere

    Exact in each of the `projections` directions, which a CPU generator draws, the same for all tasks; in one
    dimension it is the distance itself. Two samples of one distribution are not at 0: compare with their distance.

    Raises:
        ValueError: samples of other tasks, widths or numbers of points, or no direction.

    Example:
        >>> sliced_wasserstein(torch.zeros(1, 4, 1), torch.ones(1, 4, 1), torch.Generator().manual_seed(0))
        tensor([1.])

    Source: Bonneel et al. 2015, eq. 11, order 1.
    """
    _check(points, others, least=1)
    if points.shape[1] != others.shape[1]:
        raise ValueError(
            f"sorted samples pair up point by point; got {points.shape[1]} points and {others.shape[1]}: draw as many"
        )
    if projections < 1:
        raise ValueError(f"a sliced distance needs at least one direction; got projections {projections}")
    drawn = torch.randn(points.shape[2], projections, generator=generator, dtype=torch.float64)
    directions = (drawn / drawn.norm(dim=0)).to(points)
    ours, theirs = ((part @ directions).sort(dim=1).values for part in (points, others))
    return (ours - theirs).abs().mean((1, 2))


def _within(points: Tensor) -> Tensor:
    """Return the mean distance of two different points, `[B]`."""
    n = points.shape[1]
    return _gaps(points, points).sum((1, 2)) / (n * (n - 1))


def _gaps(points: Tensor, others: Tensor) -> Tensor:
    """Return the distances `[B, N, M]`, from differences: through squares they would lose half the digits."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _check(points: Tensor, others: Tensor, least: int) -> None:
    """Raise ValueError where two samples cannot be compared."""
    shapes = tuple(points.shape), tuple(others.shape)
    if points.dim() != 3 or others.dim() != 3 or shapes[0][::2] != shapes[1][::2]:
        raise ValueError(
            f"samples must be [tasks, points, coordinates] of the same tasks and width; got {shapes[0]} and {shapes[1]}"
        )
    if min(points.shape[1], others.shape[1]) < least:
        raise ValueError(f"a sample needs at least {least} points; got {shapes[0]} and {shapes[1]}")
