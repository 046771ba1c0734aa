"""A plain feed-forward network.

Source: Hendrycks, Gimpel 2016, for the activation.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn


def mlp(*sizes: int) -> nn.Sequential:
    """Return linear layers of the given widths with GELU between them.

    Args:
        sizes: widths from input to output, at least two. The network maps `[..., sizes[0]]` to `[..., sizes[-1]]`.

    Example:
        >>> import torch
        >>> from gradatim.nn.mlp import mlp
        >>> mlp(3, 64, 1)(torch.randn(5, 3)).shape
        torch.Size([5, 1])
    """
    layers: list[nn.Module] = []
    for inner, out in pairwise(sizes):
        layers += [nn.Linear(inner, out), nn.GELU()]
    return nn.Sequential(*layers[:-1])
