"""A fit from scratch, against which refinements are measured: store every row, minimise to convergence to predict.

Source: Liu, Nocedal 1989 (L-BFGS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..batch import Batch
from ..refiner import Capabilities, Refiner

if TYPE_CHECKING:
    from ..predictor import Predictor
    from ..signal import StepInput


class RowsSeen(NamedTuple):
    """Every row seen; it grows with the rows.

    Fields: `x [B, N, Dx]`; `y [B, N, Dy]`; `weight [B, N]`.
    """

    x: Tensor
    y: Tensor
    weight: Tensor


class Refit(Refiner):
    """`theta = argmin  sum_n loss(y_n, f(x_n, theta)) + strength / 2 |theta|^2`, by L-BFGS in float64.

    It is no amortized learner but the reference for one: each prediction fits from the start, task by task.

    Args:
        predictor: f, with a flat latent.
        x_dim: width of x.
        y_dim: width of y.
        classes: whether y is a class index.
        strength: of the L2 penalty.
        iterations: of L-BFGS at most.

    Raises:
        ValueError: strength negative; in a step, a signal without observations.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearClassification
        >>> from gradatim.predictors import CrossEntropy, Network
        >>> from gradatim.refiners import Refit
        >>> from gradatim.signal import PLAIN
        >>> task = LinearClassification(3, 4).sample(2, torch.Generator().manual_seed(0))
        >>> f = Network(3, CrossEntropy(4))
        >>> learner = Learner(f, Refit(f, 3, 1, classes=True), PLAIN)
        >>> state = learner.adapt(task.support, 32)
        >>> learner.predict(task.query.x, state).shape
        torch.Size([2, 64, 4])

    Source: Liu, Nocedal 1989.
    """

    capabilities = Capabilities(learnt=False, bounded=False, weights=True)
    keeps_rows = True
    needs_observations = True
    start: Tensor

    def __init__(
        self,
        predictor: Predictor,
        x_dim: int,
        y_dim: int,
        classes: bool,
        strength: float = 1.0,
        iterations: int = 2000,
    ) -> None:
        super().__init__()
        if strength < 0:
            raise ValueError(f"an L2 penalty needs strength >= 0; got {strength}")
        self.predictor, self.x_dim, self.y_dim, self.classes = predictor, x_dim, y_dim, classes
        self.strength, self.iterations = strength, iterations
        self.register_buffer("start", predictor.initial())

    def init(self, n_tasks: int, query: Batch | None = None) -> RowsSeen:
        """Return the state of `n_tasks` tasks that have seen no row."""
        x = self.start.new_zeros(n_tasks, 0, self.x_dim)
        y = torch.zeros(
            n_tasks, 0, self.y_dim, dtype=torch.int64 if self.classes else x.dtype, device=x.device
        )
        return RowsSeen(x, y, x.new_zeros(n_tasks, 0))

    def step(self, state: RowsSeen, step_input: StepInput) -> RowsSeen:
        """Return the state with the mini-batch's rows beside the others.

        Raises:
            ValueError: a signal without observations.
        """
        if step_input.batch is None:
            raise ValueError("a fit from scratch needs observations; got a signal without them")
        new = (step_input.batch.x, step_input.batch.y, step_input.batch.weight)
        return RowsSeen(*(torch.cat(pair, dim=1) for pair in zip(state, new, strict=True)))

    def latent(self, state: RowsSeen) -> Tensor:
        """Return the fitted theta `[B, S]`."""
        if state.x.shape[1] == 0:
            return self.start.expand(state.x.shape[0], -1)
        fits = [
            self._fit(Batch._trusted(state.x[b : b + 1], state.y[b : b + 1], state.weight[b : b + 1]))
            for b in range(state.x.shape[0])
        ]
        return torch.stack(fits).to(self.start)

    def linearization_point(self, state: RowsSeen) -> Tensor:
        """Return the start `[B, S]`: rows are seen as they are, without a fit."""
        return self.start.expand(state.x.shape[0], -1)

    def _fit(self, batch: Batch) -> Tensor:
        """Return one task's theta `[S]`, float64."""
        # tensors that were made in inference mode cannot be saved for a gradient: outside of it, copies can
        with torch.inference_mode(False):
            return self._minimize(batch._map(torch.clone).to(torch.float64))

    def _minimize(self, batch: Batch) -> Tensor:
        rows = batch.rows.double()

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            theta = torch.from_numpy(flat).requires_grad_()
            with torch.enable_grad():
                loss = (self.predictor.loss(batch, theta[None]) * rows).sum()
                loss = loss + 0.5 * self.strength * theta.square().sum()
                (gradient,) = torch.autograd.grad(loss, theta)
            return loss.item(), gradient.numpy()

        options = {"maxiter": self.iterations, "maxfun": 2 * self.iterations, "ftol": 1e-10, "gtol": 1e-5}
        start = self.start.double().cpu().numpy()
        result = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        return torch.from_numpy(np.asarray(result.x))
