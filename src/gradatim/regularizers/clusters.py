"""Clusters and an order of tasks, read from the shares in which they help each other.

Source: Sokal, Michener 1958 (mean linkage); Page et al. 1999 (walks that may end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..batch import check_count

if TYPE_CHECKING:
    from torch import Tensor

GOES_ON = 0.8
"""The probability with which a walk along the shares goes on."""


def clusters(shares: Tensor, count: int) -> Tensor:
    """Return the cluster of each task, `[T]` int64 from 0 in order of appearance, from shares `[T, T]`.

    Tasks are joined by the mean of the links between them, the strongest first, until `count` clusters are left. A
    link says how often a walk along the shares that begins at one task visits the other; it ends at each step with
    probability .2.

    Raises:
        ValueError: no square matrix, a count not in 1 .. T.

    Example:
        >>> import torch
        >>> from gradatim.regularizers.clusters import clusters
        >>> clusters(torch.tensor([[0.0, 0.1, 0.9], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]]), 2)
        tensor([0, 1, 0])
    """
    check_count("count", count)
    if count > len(shares):
        raise ValueError(f"{len(shares)} tasks make at most {len(shares)} clusters; got {count}")
    found = torch.zeros(len(shares), dtype=torch.int64)
    for place, members in enumerate(sorted(_joined(shares, count), key=min)):
        found[members] = place
    return found


def order(shares: Tensor) -> Tensor:
    """Return an order of tasks `[T]` int64 in which those that help each other stand together, for a heat map.

    It is that in which `clusters` joins them.

    Raises:
        ValueError: no square matrix.

    Example:
        >>> import torch
        >>> from gradatim.regularizers.clusters import order
        >>> order(torch.tensor([[0.0, 0.1, 0.9], [0.5, 0.0, 0.5], [0.9, 0.1, 0.0]]))
        tensor([0, 2, 1])
    """
    return torch.tensor(_joined(shares, 1)[0])


def _joined(shares: Tensor, count: int) -> list[list[int]]:
    """Return the members of the `count` clusters that are left, in the order in which they were joined.

    Raises:
        ValueError: no square matrix.
    """
    if shares.dim() != 2 or shares.shape[0] != shares.shape[1]:
        raise ValueError(f"shares are a square matrix [T, T]; got shape {tuple(shares.shape)}")
    mutual = ((shares + shares.mT) / 2).double()
    scale = mutual.sum(1).clamp(min=1e-12).sqrt()
    step = GOES_ON * mutual / (scale[:, None] * scale)
    link = torch.linalg.inv(torch.eye(len(step), dtype=torch.float64, device=step.device) - step)
    members = {at: [at] for at in range(len(link))}
    size = torch.ones(len(link), dtype=torch.float64)
    while len(members) > count:
        mean = (link / (size[:, None] * size)).fill_diagonal_(-torch.inf)
        mean[size == 0] = -torch.inf
        mean[:, size == 0] = -torch.inf
        kept, gone = sorted(divmod(int(mean.argmax()), len(link)))
        link[kept] += link[gone]
        link[:, kept] += link[:, gone]
        size[kept] += size[gone]
        size[gone] = 0
        members[kept] += members.pop(gone)
    return list(members.values())
