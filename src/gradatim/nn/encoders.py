"""Encoders: networks that map the rows of all tasks to keys, in whose space tasks are alike.

Source: Snell et al. 2017, section 3 (four convolutions); Harrison et al. 2018, section 3 (a tanh network).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

ENCODERS = ("network", "convolutions", "linear", "tanh")
"""Names of encoders."""

_BLOCKS = 4


class Residual(nn.Module):
    """A linear map plus a network of two layers, `A x + W2 gelu(norm(W1 x))`, from `[..., inputs]` to `[..., keys]`.

    Args:
        inputs: the width of x.
        keys: the width of a key.
        width: units of the hidden layer.

    Example:
        >>> import torch
        >>> from gradatim.nn.encoders import Residual
        >>> Residual(5, 3, 16)(torch.randn(2, 7, 5)).shape
        torch.Size([2, 7, 3])

    Source: this project's own; the skip after He et al. 2016.
    """

    def __init__(self, inputs: int, keys: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, keys)
        self.network = nn.Sequential(
            nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, keys)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the keys `[..., keys]` of x `[..., inputs]`."""
        return self.linear(x) + self.network(x)


class Convolutions(nn.Module):
    """Four convolutions of stride 2 on square images, and a linear map: from `[..., pixels]` to `[..., keys]`.

    Each has a group norm of one group, which unlike a batch norm lets no row see another, and a rectifier.

    Args:
        pixels: of an image, a square number.
        keys: the width of a key.
        width: channels of the last two convolutions; the first two have half as many.

    Raises:
        ValueError: images that are not square.

    Example:
        >>> import torch
        >>> from gradatim.nn.encoders import Convolutions
        >>> Convolutions(784, 64, 32)(torch.rand(2, 7, 784)).shape
        torch.Size([2, 7, 64])

    Source: Snell et al. 2017, section 3.1, with strides in place of pooling; Wu, He 2018 (group norm).
    """

    def __init__(self, pixels: int, keys: int, width: int) -> None:
        super().__init__()
        self.side = math.isqrt(pixels)
        if self.side**2 != pixels:
            raise ValueError(
                f"convolutions read square images; got x of {pixels} numbers, which is no square: choose the encoder "
                "'network', or give images of equal height and width"
            )
        channels = [1, max(1, width // 2), max(1, width // 2), width, width]
        blocks: list[nn.Module] = []
        for inner, out in pairwise(channels):
            blocks += [nn.Conv2d(inner, out, 3, stride=2, padding=1), nn.GroupNorm(1, out), nn.ReLU()]
        left = self.side
        for _ in range(_BLOCKS):
            left = (left + 1) // 2
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Linear(width * left * left, keys)

    def forward(self, x: Tensor) -> Tensor:
        """Return the keys `[..., keys]` of images x `[..., pixels]`."""
        images = x.reshape(-1, 1, self.side, self.side)
        return self.last(self.blocks(images).flatten(1)).unflatten(0, x.shape[:-1])


def tanh_network(*sizes: int) -> nn.Sequential:
    """Return linear layers with tanh after each, from `[..., sizes[0]]` to `[..., sizes[-1]]`.

    Example:
        >>> import torch
        >>> from gradatim.nn.encoders import tanh_network
        >>> tanh_network(1, 64, 64, 32)(torch.zeros(5, 1)).shape
        torch.Size([5, 32])

    Source: Harrison et al. 2018, section 5 (hidden layers of tanh).
    """
    layers: list[nn.Module] = []
    for inner, out in pairwise(sizes):
        layers += [nn.Linear(inner, out), nn.Tanh()]
    return nn.Sequential(*layers)


def encoder(name: str, inputs: int, keys: int, width: int) -> nn.Module:
    """Return an encoder by name, from `[..., inputs]` to `[..., keys]`.

    Args:
        name: one of `ENCODERS`.
        inputs: the width of x.
        keys: the width of a key.
        width: units of hidden layers, or channels.

    Raises:
        ValueError: an unknown name, a size below 1, or images that are not square.

    Example:
        >>> from gradatim.nn.encoders import encoder
        >>> encoder("linear", 5, 3, 16)
        Linear(in_features=5, out_features=3, bias=True)
    """
    if min(inputs, keys, width) < 1:
        raise ValueError(
            f"an encoder needs sizes of at least 1; got {inputs} inputs, {keys} keys, width {width}"
        )
    if name == "network":
        return Residual(inputs, keys, width)
    if name == "convolutions":
        return Convolutions(inputs, keys, width)
    if name == "linear":
        return nn.Linear(inputs, keys)
    if name == "tanh":
        return tanh_network(inputs, width, width, keys)
    raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}; got {name!r}")
