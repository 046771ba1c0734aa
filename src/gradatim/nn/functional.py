"""Networks whose weights are an argument: one flat vector per task, and the layout of that vector.

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
    """The layout of a network's weight matrices in one flat vector theta.

    Fields: `sizes`: widths from input to output; `bias`: whether each matrix has a last column of biases.

    Raises:
        ValueError: fewer than two sizes, or a size below 1.

    Example:
        >>> from gradatim.nn.functional import Layout
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
        """Return the shape (outputs, inputs + bias) of every weight matrix; a row holds one unit's weights."""
        pairs = zip(self.sizes[:-1], self.sizes[1:], strict=True)
        return tuple((out, inner + self.bias) for inner, out in pairs)

    @property
    def size(self) -> int:
        """Return S, the length of theta."""
        return sum(rows * width for rows, width in self.shapes)


def split_rows(theta: Tensor, shapes: tuple[tuple[int, int], ...]) -> list[Tensor]:
    """Return the weight matrices that a flat vector holds, one after the other.

    Args:
        theta: `[B, S]`.
        shapes: (rows, width) of each matrix.

    Returns:
        For each shape a view `[B, rows, width]`.

    Raises:
        ValueError: theta is longer or shorter than the matrices.

    Example:
        >>> import torch
        >>> from gradatim.nn.functional import split_rows
        >>> [part.shape for part in split_rows(torch.zeros(5, 10), ((2, 3), (1, 4)))]
        [torch.Size([5, 2, 3]), torch.Size([5, 1, 4])]
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
    """Return the outputs of one network per task.

        h_0 = x;  h_{l+1} = activation(h_l W_l' + b_l)

    There is no activation after the last layer.

    Args:
        x: `[B, N, Dx]`.
        theta: the weights of each task's network, `[B, S]`.
        layout: where the weight matrices lie in theta.
        activation: of the hidden layers.

    Returns:
        Outputs `[B, N, layout.sizes[-1]]`.

    Raises:
        ValueError: theta does not have `layout.size` numbers per task.

    Example:
        >>> import torch
        >>> from gradatim.nn.functional import Layout, network
        >>> layout, theta = Layout((2, 1)), torch.tensor([[1.0, 2.0, 10.0]])
        >>> network(torch.tensor([[[1.0, 1.0]]]), theta, layout)
        tensor([[[13.]]])
    """
    *_, (_, outputs) = _layers(x, theta, layout, activation)
    return outputs


def inputs(
    x: Tensor, theta: Tensor, layout: Layout, activation: Callable[[Tensor], Tensor] = torch.tanh
) -> list[Tensor]:
    """Return the input of each layer, with a 1 appended where there is a bias.

    Args:
        x: `[B, N, Dx]`.
        theta: the weights of each task's network, `[B, S]`.
        layout: where the weight matrices lie in theta.
        activation: of the hidden layers.

    Returns:
        For each layer `[B, N, inputs + bias]`.

    Raises:
        ValueError: theta does not have `layout.size` numbers per task.

    Example:
        >>> import torch
        >>> from gradatim.nn.functional import Layout, inputs
        >>> layout = Layout((2, 4, 1))
        >>> [part.shape for part in inputs(torch.zeros(3, 5, 2), torch.zeros(3, layout.size), layout)]
        [torch.Size([3, 5, 3]), torch.Size([3, 5, 5])]
    """
    layer_inputs = [hidden for hidden, _ in _layers(x, theta, layout, activation)]
    if layout.bias:
        layer_inputs = [
            torch.cat([hidden, torch.ones_like(hidden[..., :1])], dim=-1) for hidden in layer_inputs
        ]
    return layer_inputs


def jacobian(x: Tensor, theta: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Return the outputs of one tanh network per task, and their Jacobian in the weights.

        dh_l = dh_{l+1} W_{l+1} (1 - h_l^2);   dW_l = dh_l' h_{l-1}

    Args:
        x: `[B, N, Dx]`.
        theta: the weights of each task's network, `[B, S]`.
        layout: where the weight matrices lie in theta.

    Returns:
        Outputs `[B, N, Do]` and their Jacobian `[B, N, Do, S]`.

    Raises:
        ValueError: theta does not have `layout.size` numbers per task.

    Example:
        >>> import torch
        >>> from gradatim.nn.functional import Layout, jacobian
        >>> layout, theta = Layout((2, 1)), torch.tensor([[1.0, 2.0, 10.0]])
        >>> jacobian(torch.tensor([[[3.0, 4.0]]]), theta, layout)
        (tensor([[[21.]]]), tensor([[[[3., 4., 1.]]]]))

    Source: Rumelhart, Hinton, Williams 1986 (backpropagation).
    """
    matrices = split_rows(theta, layout.shapes)
    *_, outputs = (out for _, out in _layers(x, theta, layout, torch.tanh))
    layer_inputs = inputs(x, theta, layout)
    eye = torch.eye(outputs.shape[2], dtype=x.dtype, device=x.device)
    slope, parts = eye.expand(*outputs.shape, -1), []
    for depth in reversed(range(len(matrices))):
        parts.append((slope[..., None] * layer_inputs[depth][:, :, None, None]).flatten(3))
        if depth:
            width = layout.sizes[depth]
            hidden = layer_inputs[depth][..., :width]
            slope = (slope @ matrices[depth][:, None, :, :width]) * (1 - hidden.square())[:, :, None]
    return outputs, torch.cat(parts[::-1], dim=-1)


def _layers(
    x: Tensor, theta: Tensor, layout: Layout, activation: Callable[[Tensor], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the input of each layer, and its output before the next activation."""
    out = x
    for depth, matrix in enumerate(split_rows(theta, layout.shapes)):
        hidden = activation(out) if depth else x
        if layout.bias:
            out = torch.baddbmm(matrix[..., None, :, -1], hidden, matrix[..., :-1].mT)
        else:
            out = torch.bmm(hidden, matrix.mT)
        yield hidden, out
