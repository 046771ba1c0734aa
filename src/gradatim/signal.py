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
    """What a refiner is handed: one mini-batch of B tasks, seen through a `Signal`.

    Fields: `rows [B]`: the number of rows present (with lengths: in each prefix, `[B * P]`); `batch`: the observations,
    or None; `outputs [B, N, Do]`: what f says at them now, or None; `gradient`, like the latent (with lengths:
    `[B * P, ...]`): of the mean loss, or None; `lengths [P]`: the prefixes to answer for, or None: all the rows;
    `inputs`: what multiplies each weight matrix of the latent, `[B, N, width]` (with lengths: `[B * P, N, width]`),
    zero at absent rows, or None; `weight [B, N]` (with lengths: `[B * P, N]`) of the rows where some count other than
    once, or None.
    """

    rows: Tensor
    batch: Batch | None = None
    outputs: Tensor | None = None
    gradient: Tensor | None = None
    lengths: Tensor | None = None
    inputs: tuple[Tensor, ...] | None = None
    weight: Tensor | None = None


@dataclass(frozen=True)
class Signal:
    """`step_input = signal(f, latent, batch)`: what a step sees.

    Fields: `observations`: the rows (x, y); `gradients`: `d loss(batch, latent) / d latent`; `outputs`: with the
    observations also `f(x, latent)`, the predictions there as they stand (they follow from latent and x, but a
    transformer would have to learn to multiply to find them; False is the paper's plain observation);
    `keep_graph`: what is seen stays differentiable, in the latent (MAML, second order) and in f's own parameters;
    `inputs`: also what multiplies each weight matrix of the latent (x for a linear f): the features of a closed form;
    their second moments are the factor of the Hessian that all rows of a matrix share.

    Raises:
        ValueError: neither observations nor gradients.

    Example:
        >>> step_input = BOTH(f, theta, batch)
        >>> step_input.gradient.shape == theta.shape
        True
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
        """Return what is seen of `batch` at `latent [B, ...]`, for the whole batch or for each of `lengths [P]`.

        `generator` is for losses that draw (the noise of a generative one).
        """
        rows, outputs, gradient, inputs = batch.rows, None, None, None
        if self.sees_outputs:
            outputs = predictor(batch.x, latent)
            outputs = outputs if self.keep_graph else outputs.detach()
        answered = batch
        if lengths is not None:
            answered = batch.prefixes(lengths)
            rows, latent = answered.rows, latent.repeat_interleave(len(lengths), dim=0)
        if self.gradients:
            gradient = self._gradient(predictor, latent, answered, generator)
        if self.inputs:
            entered = predictor.inputs(answered.x, latent)
            factors = entered if self.keep_graph else [part.detach() for part in entered]
            inputs = tuple(part.masked_fill(~answered.mask[..., None], 0) for part in factors)
        weight = answered.weight if batch.is_weighted else None
        return StepInput(
            rows, batch if self.observations else None, outputs, gradient, lengths, inputs, weight
        )

    def _gradient(
        self, predictor: Predictor, latent: Tensor, batch: Batch, generator: torch.Generator | None
    ) -> Tensor:
        """Return the gradient of each task's mean loss; tasks do not meet, so one sum serves all."""
        keep = self.keep_graph and torch.is_grad_enabled()
        with torch.enable_grad():
            point = latent if keep and latent.requires_grad else latent.detach().requires_grad_()
            loss = predictor.loss(batch, point, generator).sum()
            (gradient,) = torch.autograd.grad(loss, point, create_graph=keep)
        return gradient


OBSERVATIONS = Signal()
PLAIN = Signal(outputs=False)
CLOSED_FORM = Signal(outputs=False, keep_graph=True, inputs=True)
GRADIENTS = Signal(observations=False, gradients=True)
SECOND_ORDER = Signal(observations=False, gradients=True, keep_graph=True)
BOTH = Signal(gradients=True)
