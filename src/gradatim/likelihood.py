"""What an output says about y, and how wrong it is.

Source: Mittal et al. 2025, eq. 5: the loss `L(y, f(x))`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Batch


class Likelihood(ABC):
    """What y is, and a loss for outputs `[B, N, output_dim]` against y `[B, N, y_dim]`, row by row.

    A subclass defines `row_loss` and `check`, and sets `output_dim`.

    Example:
        >>> from gradatim import CrossEntropy, SquaredError
        >>> CrossEntropy(3).classes, SquaredError(2).classes, SquaredError(2).y_dim
        (3, None, 2)
    """

    output_dim: int

    @property
    def classes(self) -> int | None:
        """Return the number of classes, or None if y is no class."""
        return None

    @property
    def y_dim(self) -> int:
        """Return the width of y."""
        return self.output_dim

    @abstractmethod
    def row_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row, `[B, N]`, of outputs `[B, N, output_dim]` against y `[B, N, y_dim]`."""

    @abstractmethod
    def check(self, batch: Batch) -> None:
        """Check that y can be scored.

        Raises:
            ValueError: y of another dtype or width, or unknown classes.
        """


@dataclass(frozen=True)
class SquaredError(Likelihood):
    """`sum_d (f_d - y_d)^2`: the negative log-likelihood of Gaussian noise up to scale.

    Example:
        >>> import torch
        >>> from gradatim import SquaredError
        >>> SquaredError(1).row_loss(torch.zeros(1, 1, 1), torch.full((1, 1, 1), 2.0))
        tensor([[4.]])
    """

    output_dim: int = 1

    def row_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the squared error of each row, `[B, N]`, of outputs `[B, N, Do]` against y `[B, N, Do]`."""
        return (outputs - y).square().sum(-1)

    def check(self, batch: Batch) -> None:
        """Check that y is floating point of width output_dim.

        Raises:
            ValueError: another dtype or width.
        """
        if not batch.y.is_floating_point() or batch.y.shape[2] != self.output_dim:
            raise ValueError(
                f"a regression wants y floating point of width {self.output_dim}; got {batch.y.dtype} of width "
                f"{batch.y.shape[2]}"
            )


@dataclass(frozen=True)
class CrossEntropy(Likelihood):
    """`-log softmax(f)_y`, f the logits of `output_dim` classes, in nats.

    Example:
        >>> import torch
        >>> from gradatim import CrossEntropy
        >>> CrossEntropy(2).row_loss(torch.zeros(1, 1, 2), torch.zeros(1, 1, 1, dtype=torch.int64))
        tensor([[0.6931]])
    """

    output_dim: int

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        return self.output_dim

    @property
    def y_dim(self) -> int:
        """Return 1: y is a class index."""
        return 1

    def row_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the cross-entropy of each row, `[B, N]`, of logits `[B, N, C]` against int64 y `[B, N, 1]`."""
        return -outputs.log_softmax(-1).gather(-1, y).squeeze(-1)

    def check(self, batch: Batch) -> None:
        """Check that y is a class index.

        Raises:
            ValueError: y that is not int64, or not in 0 .. classes - 1.
        """
        if batch.y.dtype != torch.int64:
            raise ValueError(
                f"a classification wants y as int64 class indices; got {batch.y.dtype}: use y.long()"
            )
        low, high = batch.y.aminmax()
        if int(low) < 0 or int(high) >= self.output_dim:
            wrong = int(low) if int(low) < 0 else int(high)
            raise ValueError(
                f"class indices must lie in 0 .. {self.output_dim - 1}; got {wrong}: recode the labels, or make the "
                f"learner for more classes"
            )


@dataclass(frozen=True)
class Velocity(SquaredError):
    """The squared error of a velocity: y of the rows of flow matching, x their place and time.

    Example:
        >>> import torch
        >>> from gradatim.likelihood import Velocity
        >>> Velocity(2).row_loss(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
        tensor([[2.]])

    Source: Lipman et al. 2023, eq. 23.
    """


@dataclass(frozen=True)
class Order(Likelihood):
    """`sum_j y_j softplus(-f_j)`, f the log odds that the row's variable stands before j, y its children.

    Support rows have no y: the prediction is an order of the `output_dim` columns of x.

    Example:
        >>> import torch
        >>> from gradatim.likelihood import Order
        >>> Order(2).row_loss(torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
        tensor([[0.6931]])
    """

    output_dim: int

    def row_loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the loss of each row `[B, N]`, in nats, of outputs `[B, N, d]` against y `[B, N, d]`."""
        return (y * F.softplus(-outputs)).sum(-1)

    def check(self, batch: Batch) -> None:
        """Check that y is floating point of width output_dim.

        Raises:
            ValueError: another dtype or width.
        """
        if not batch.y.is_floating_point() or batch.y.shape[2] != self.output_dim:
            raise ValueError(
                f"an order of {self.output_dim} variables wants y floating point of that width: the children of "
                f"a query's variable, zeros in the support; got {batch.y.dtype} of width {batch.y.shape[2]}"
            )
