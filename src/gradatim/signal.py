"""What one step may see of a mini-batch: its observations, the gradient of its loss, or both.

Source: Mittal et al. 2025, section on iterative amortization: tokens of observations and / or gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Batch
    from .predictor import Predictor


class StepInput(NamedTuple):
    """What a refiner gets of a mini-batch of B tasks, through a `Signal`. What the signal leaves out is None.

    Fields:
        `rows`: the number of present rows of each task, `[B]`.
        `batch`: the observations, x `[B, N, *X]` and y `[B, N, *Y]`.
        `outputs`: the predictions at the rows before the step, `[B, N, Do]`.
        `gradient`: the gradient of each task's mean loss, of the latent's shape `[B, *latent_shape]`.
        `lengths`: the prefix lengths to return a state for, `[P]`. None: the whole mini-batch.
        `inputs`: what multiplies each weight matrix of the latent, `[B, N, width]` each, zero at absent rows.
        `weight`: the weights of the rows, `[B, N]`. None: every present row counts once.
        `loss`: the mean loss of each task whose gradient is shown, `[B]`. Like the gradient None where none is shown.

    With `lengths` the first axis of rows, gradient, loss, inputs and weight is `B * P`: a task once for each prefix.

    Example:
        >>> import torch
        >>> from gradatim import Batch, StepInput
        >>> batch = Batch(torch.ones(2, 5, 3), torch.ones(2, 5, 1))
        >>> StepInput(batch.rows, batch).gradient is None
        True
    """

    rows: Tensor
    batch: Batch | None = None
    outputs: Tensor | None = None
    gradient: Tensor | None = None
    lengths: Tensor | None = None
    inputs: tuple[Tensor, ...] | None = None
    weight: Tensor | None = None
    loss: Tensor | None = None


@dataclass(frozen=True)
class Signal:
    """`step_input = signal(f, latent, batch)`: what a step sees.

    Fields:
        `observations`: show the rows (x, y).
        `gradients`: show `d loss(batch, latent) / d latent`.
        `outputs`: beside the observations show the predictions `f(x, latent)`. False is the paper's plain observation.
        `keep_graph`: keep all that is shown differentiable, in the latent and in the predictor's parameters.
        `inputs`: show what multiplies each weight matrix of the latent, which is x for a linear f.

    - A transformer could compute the outputs from x and the latent only if it learnt to multiply.
    - MAML needs the graph for its second-order gradient.
    - The inputs are the features of a closed form. Their second moments are the factor of the Hessian that all rows of
      a weight matrix share.

    Raises:
        ValueError: neither observations nor gradients.

    Example:
        >>> import torch
        >>> from gradatim import BOTH, Batch
        >>> from gradatim.predictors import Network, SquaredError
        >>> batch, f = Batch(torch.ones(2, 5, 3), torch.ones(2, 5, 1)), Network(3, SquaredError())
        >>> BOTH(f, torch.zeros(2, *f.latent_shape), batch).outputs.shape
        torch.Size([2, 5, 1])
    """

    observations: bool = True
    gradients: bool = False
    outputs: bool = True
    keep_graph: bool = False
    inputs: bool = False

    def __post_init__(self) -> None:
        if not (self.observations or self.gradients):
            raise ValueError("a signal needs observations, gradients or both; got neither")

    @property
    def sees_outputs(self) -> bool:
        """Return whether the predictions at the rows come with them."""
        return self.observations and self.outputs

    def __call__(
        self,
        predictor: Predictor,
        latent: Tensor,
        batch: Batch,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> StepInput:
        """Return what is seen of a mini-batch.

        Args:
            predictor: f.
            latent: where predictions and gradients are taken, `[B, *latent_shape]`.
            batch: the rows of B tasks, x `[B, N, *X]`.
            lengths: prefix lengths `[P]`. None: the whole mini-batch.
            generator: for losses that draw random numbers.
        """
        rows, outputs, gradient, inputs, loss = batch.rows, None, None, None, None
        if self.sees_outputs:
            outputs = predictor(batch.x, latent)
            outputs = outputs if self.keep_graph else outputs.detach()
        answered = batch
        if lengths is not None:
            answered = batch.prefixes(lengths)
            rows, latent = answered.rows, latent.repeat_interleave(len(lengths), dim=0)
        if self.gradients:
            gradient, loss = self._gradient(predictor, latent, answered, generator)
        if self.inputs:
            entered = predictor.inputs(answered.x, latent)
            factors = entered if self.keep_graph else [part.detach() for part in entered]
            inputs = tuple(part.masked_fill(~answered.mask[..., None], 0) for part in factors)
        weight = answered.weight if batch.is_weighted else None
        return StepInput(
            rows, batch if self.observations else None, outputs, gradient, lengths, inputs, weight, loss
        )

    def _gradient(
        self, predictor: Predictor, latent: Tensor, batch: Batch, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return the gradient of each task's mean loss, of the latent's shape, and that loss `[B]`."""
        # Tasks do not meet, so the gradient of the sum over tasks holds that of each task.
        keep = self.keep_graph and torch.is_grad_enabled()
        with torch.enable_grad():
            point = latent if keep and latent.requires_grad else latent.detach().requires_grad_()
            loss = predictor.loss(batch, point, generator)
            (gradient,) = torch.autograd.grad(loss.sum(), point, create_graph=keep)
        return gradient, loss if keep else loss.detach()


OBSERVATIONS = Signal()
"""Rows and the predictions at them."""

PLAIN = Signal(outputs=False)
"""Rows alone."""

CLOSED_FORM = Signal(outputs=False, keep_graph=True, inputs=True)
"""Rows, and the features that multiply the weights: what sufficient statistics are made of."""

GRADIENTS = Signal(observations=False, gradients=True)
"""The gradient alone."""

SECOND_ORDER = Signal(observations=False, gradients=True, keep_graph=True)
"""The gradient alone, through which meta-training differentiates."""

BOTH = Signal(gradients=True)
"""Rows, the predictions at them, and the gradient."""
