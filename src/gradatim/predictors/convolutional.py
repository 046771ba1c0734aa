"""Parametric f of images: a convolutional network whose weights are the latent.

Source: Finn, Abbeel, Levine 2017, section 5.2 (four convolutions); Wu, He 2018 (group norm of one group).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..nn.functional import split_rows
from ..predictor import Predictor

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Batch
    from ..likelihood import Likelihood

EPS = 1e-5
"""Added to the variance of a norm."""


class ConvolutionalNetwork(Predictor):
    """Convolutions of three by three pixels and stride 2, and a linear head; the latent theta `[B, S]` has all weights.

        h_l = relu(norm(h_{l-1} * W_l + b_l)),   f = W h_L + b

    The norm is over all numbers of an image, so no row sees another.

    Args:
        side: the height and the width of an image.
        likelihood: gives the number of outputs and the loss.
        channels: of the convolutions.
        colours: channels of an image.

    x is `[B, N, side * side * colours]`, the pixels row by row, or `[B, N, side, side, colours]`.

    Raises:
        ValueError: a size below 1, no convolution.

    Example:
        >>> import torch
        >>> from gradatim import CrossEntropy
        >>> from gradatim.predictors import ConvolutionalNetwork
        >>> f = ConvolutionalNetwork(28, CrossEntropy(5), channels=(8, 8))
        >>> f.latent_shape
        (2629,)
        >>> f(torch.rand(2, 7, 784), f.initial().expand(2, -1)).shape
        torch.Size([2, 7, 5])

    Source: Finn, Abbeel, Levine 2017, section 5.2, with strides in place of pooling; Wu, He 2018.
    """

    def __init__(
        self,
        side: int,
        likelihood: Likelihood,
        channels: tuple[int, ...] = (32, 32, 32, 32),
        colours: int = 1,
    ) -> None:
        super().__init__()
        if not channels or min(side, colours, *channels) < 1:
            raise ValueError(
                f"a convolutional network needs convolutions and sizes of at least 1; got side {side}, channels "
                f"{tuple(channels)}, colours {colours}"
            )
        self.side, self.colours, self.likelihood = side, colours, likelihood
        self.output_dim = likelihood.output_dim
        left = side
        for _ in channels:
            left = (left + 1) // 2
        widths = [9 * inner + 1 for inner in (colours, *channels[:-1])]
        self.shapes = (
            *zip(channels, widths, strict=True),
            (likelihood.output_dim, channels[-1] * left * left + 1),
        )
        self.latent_shape = (sum(self.layers),)

    @property
    def layers(self) -> tuple[int, ...]:
        """Return how many numbers of theta each layer has."""
        return tuple(rows * width for rows, width in self.shapes)

    def initial(self, generator: torch.Generator | None = None) -> Tensor:
        """Return initial theta `[S]`: weights ~ N(0, 2 / fan_in), biases and the last layer zero."""
        parts = [torch.zeros(shape) for shape in self.shapes]
        for part in parts[:-1]:
            inner = part.shape[1] - 1
            part[:, :inner] = torch.randn(part.shape[0], inner, generator=generator) * math.sqrt(2 / inner)
        return torch.cat([part.flatten() for part in parts])

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return outputs `[B, N, output_dim]` of the networks theta `[B, S]` at images x."""
        *convolutions, head = split_rows(latent, self.shapes)
        tasks, rows = x.shape[:2]
        hidden = x.reshape(tasks * rows, self.side, self.side, self.colours)
        for matrix in convolutions:
            patches = _patches(hidden)
            flat = patches.reshape(tasks, -1, patches.shape[-1])
            out = torch.baddbmm(matrix[:, None, :, -1], flat, matrix[..., :-1].mT)
            out = F.relu(_norm(out.reshape(tasks * rows, -1)))
            hidden = out.reshape(*patches.shape[:3], -1)
        return torch.baddbmm(head[:, None, :, -1], hidden.reshape(tasks, rows, -1), head[..., :-1].mT)

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check_x(self, x: Tensor) -> None:
        """Raise ValueError where x is not of images of this size."""
        image = (self.side, self.side, self.colours)
        if not x.is_floating_point() or tuple(x.shape[2:]) not in (image, (math.prod(image),)):
            raise ValueError(
                f"this learner wants images: x floating point, [tasks, rows, {', '.join(map(str, image))}] or [tasks, "
                f"rows, {math.prod(image)}]; got {x.dtype} {tuple(x.shape)}"
            )

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x is of other images, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)


def _patches(images: Tensor) -> Tensor:
    """Return the patches of three by three pixels, two apart, `[M, H', W', 9 C]`, of images `[M, H, W, C]`."""
    height, width = ((size + 1) // 2 for size in images.shape[1:3])
    padded = F.pad(images, (0, 0, 1, 2, 1, 2))
    return torch.cat(
        [
            padded[:, row : row + 2 * height : 2, column : column + 2 * width : 2]
            for row in range(3)
            for column in range(3)
        ],
        dim=-1,
    )


def _norm(flat: Tensor) -> Tensor:
    """Return rows `[M, D]` with mean 0 and variance 1."""
    centred = flat - flat.mean(1, keepdim=True)
    return centred * (centred.square().mean(1, keepdim=True) + EPS).rsqrt()
