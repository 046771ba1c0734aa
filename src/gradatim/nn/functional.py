"""Networks whose weights are an argument: one flat vector per task, and the layout that reads it.

Source: Ha, Dai, Le 2016, HyperNetworks, eq. 1: a layer's weights are the output of another map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Where the weight matrices of a network lie in one flat vector theta.

    Fields: `sizes`: widths from input to output; `bias`: whether each matrix has a last column of biases.

    Raises:
        ValueError: fewer than two sizes, or a size below 1.

    Example:
        >>> layout = Layout((64, 10))
        >>> layout.shapes, layout.size
        (((10, 65),), 650)
    """

    sizes: tuple[int, ...]
    bias: bool = True

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(
                f"a network needs an input and an output width, each at least 1; got {self.sizes}"
            )

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Return (outputs, inputs + bias) of every weight matrix; a row holds one unit's weights."""
        pairs = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        return tuple((out, inner + self.bias) for inner, out in pairs)

    @property
    def size(self) -> int:
        """Return S, the length of theta."""
        return sum(rows * width for rows, width in self.shapes)


def split_rows(theta: Tensor, shapes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Return the matrices `[B, rows, width]` that lie one after the other in theta `[B, S]`.

    Raises:
        ValueError: theta is longer or shorter than the matrices.
    """
    sizes = [rows * width for rows, width in shapes]
    if theta.shape[1] != sum(sizes):
        raise ValueError(
            f"weight matrices of shapes {shapes} lie in a flat vector of {sum(sizes)} numbers a task; got "
            f"{theta.shape[1]}: give the refiner the widths of this network (a bias is a column, hidden layers count)"
        )
    parts = theta.split(sizes, dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def network(
    x: Tensor, theta: Tensor, layout: Layout, activation: Callable[[Tensor], Tensor] = torch.tanh
) -> Tensor:
    """Return the outputs `[B, N, sizes[-1]]` of each task's own network theta `[B, S]` at its rows x `[B, N, Dx]`.

    h_0 = x;  h_{l+1} = activation(h_l W_l' + b_l), no activation after the last.
    """
    *_, (_, outputs) = _layers(x, theta, layout, activation)
    return outputs


def inputs(
    x: Tensor, theta: Tensor, layout: Layout, activation: Callable[[Tensor], Tensor] = torch.tanh
) -> list[Tensor]:
    """Return what multiplies each weight matrix, `[B, N, inputs + bias]`: h_l, and a 1 where there is a bias."""
    entered = [hidden for hidden, _ in _layers(x, theta, layout, activation)]
    if layout.bias:
        entered = [torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1) for hidden in entered]
    return entered


def jacobian(x: Tensor, theta: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return the outputs `[B, N, Do]` of tanh networks theta at x, and their slopes in theta, `[B, N, Do, S]`.

    Row by row and output by output backwards: `dh_l = dh_{l+1} W_{l+1} (1 - h_l^2)`, `dW_l = dh_l' h_{l-1}`.
    """
    matrices = split_rows(theta, layout.shapes)
    *_, outputs = (out for _, out in _layers(x, theta, layout, torch.tanh))
    entered = inputs(x, theta, layout)
    eye = torch.eye(outputs.shape[2], dtype=x.dtype, device=x.device)
    slope, parts = eye.expand(*outputs.shape, -1), []
    for depth in reversed(range(len(matrices))):
        parts.append((slope[..., None] * entered[depth][:, :, None, None]).flatten(3))
        if depth:
            width = layout.sizes[depth]
            hidden = entered[depth][..., :width]
            slope = (slope @ matrices[depth][:, None, :, :width]) * (1 - hidden.square())[:, :, None]
    return outputs, torch.cat(parts[::-1], dim=-1)


def _layers(
    x: Tensor, theta: Tensor, layout: Layout, activation: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what enters each layer, and what comes out of it before the next activation."""
    out = x
    for depth, matrix in enumerate(split_rows(theta, layout.shapes)):
        hidden = activation(out) if depth else x
        if layout.bias:
            out = torch.baddbmm(matrix[..., None, :, -1], hidden, matrix[..., :-1].mT)
        else:
            out = torch.bmm(hidden, matrix.mT)
        yield hidden, out
