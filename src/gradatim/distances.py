"""Distances between two samples of points, task by task: they judge generated points.

Source: Szekely, Rizzo 2013 (energy distance); Bonneel et al. 2015 (sliced Wasserstein distance).
"""

from __future__ import annotations

import torch
from torch import Tensor


def energy_distance(points: Tensor, others: Tensor) -> Tensor:
    """Return the energy distance of two samples.

        2 E|p - q| - E|p - p'| - E|q - q'|,    p != p', q != q'

    The means are over pairs of different points, so the estimate is unbiased. It is 0 on average for two samples of one
    distribution, and may be below 0 by chance.

    Args:
        points: the first sample, `[B, N, D]`.
        others: the second sample, `[B, M, D]`.

    Returns:
        the distance for each task, `[B]`.

    Raises:
        ValueError: the samples differ in tasks or width, or have fewer than two points.

    Example:
        >>> import torch
        >>> from gradatim.distances import energy_distance
        >>> energy_distance(torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[3.0], [3.0]]]))
        tensor([6.])

    Source: Szekely, Rizzo 2013, eqs. 2.5 and 6.1, without the pairs of a point with itself.
    """
    _check(points, others, smallest=2)
    return 2 * _gaps(points, others).mean((1, 2)) - _within(points) - _within(others)


def sliced_wasserstein(
    points: Tensor, others: Tensor, generator: torch.Generator, projections: int = 64
) -> Tensor:
    """Return the sliced Wasserstein distance of order 1 of two samples.

        mean_u  mean_i |sorted_i(u'p) - sorted_i(u'q)|,    u uniform on the sphere

    It is exact in each direction, and in one dimension it is the Wasserstein distance itself. The distance between two
    samples of one distribution is not 0, so compare with that.

    Args:
        points: the first sample, `[B, N, D]`.
        others: the second sample, `[B, N, D]`, with as many points.
        generator: a CPU generator that draws the directions, the same for all tasks.
        projections: the number of directions.

    Returns:
        the distance for each task, `[B]`.

    Raises:
        ValueError: the samples differ in tasks, width or number of points, or there is no direction.

    Example:
        >>> import torch
        >>> from gradatim.distances import sliced_wasserstein
        >>> sliced_wasserstein(torch.zeros(1, 4, 1), torch.ones(1, 4, 1), torch.Generator().manual_seed(0))
        tensor([1.])

    Source: Bonneel et al. 2015, eq. 11, order 1.
    """
    _check(points, others, smallest=1)
    if points.shape[1] != others.shape[1]:
        raise ValueError(
            f"sorted samples pair up point by point; got {points.shape[1]} points and {others.shape[1]}: draw as many"
        )
    if projections < 1:
        raise ValueError(f"a sliced distance needs at least one direction; got projections {projections}")
    normals = torch.randn(points.shape[2], projections, generator=generator, dtype=torch.float64)
    directions = (normals / normals.norm(dim=0)).to(points)
    first, second = ((sample @ directions).sort(dim=1).values for sample in (points, others))
    return (first - second).abs().mean((1, 2))


def _within(points: Tensor) -> Tensor:
    """Return the mean distance of two different points, `[B]`."""
    n_points = points.shape[1]
    return _gaps(points, points).sum((1, 2)) / (n_points * (n_points - 1))


def _gaps(points: Tensor, others: Tensor) -> Tensor:
    """Return the distances `[B, N, M]`, from differences: through squares they would lose half the digits."""
    return torch.cdist(points, others, compute_mode="donot_use_mm_for_euclid_dist")


def _check(points: Tensor, others: Tensor, smallest: int) -> None:
    """Raise ValueError where two samples cannot be compared."""
    shapes = tuple(points.shape), tuple(others.shape)
    if points.dim() != 3 or others.dim() != 3 or shapes[0][::2] != shapes[1][::2]:
        raise ValueError(
            f"samples must be [tasks, points, coordinates] of the same tasks and width; got {shapes[0]} and {shapes[1]}"
        )
    if min(points.shape[1], others.shape[1]) < smallest:
        raise ValueError(f"a sample needs at least {smallest} points; got {shapes[0]} and {shapes[1]}")
