"""A Bayesian linear head whose prior is learnt from other tasks: mean, covariance and noise.

Source: Harrison, Sharma, Pavone 2018 (ALPaCA), algorithms 1 and 2; Bishop 2006, eqs. 3.50-3.51.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from .statistics import Statistics, accumulate, add, empty, subtract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput


SPEED = 10.0
"""By how much a step of the optimizer moves the log noise further than another parameter. It falls by ten nats or more
where tasks have no noise, and held the training back at a speed of 1."""


class ALPaCA(Refiner):
    """`w ~ N(m, L L')`, `y = w' k + e`, `e ~ N(0, s)`, with m, L and s learnt: a posterior from sums over rows.

        A = I + L' G L / s,   mean = m + L A^-1 L' (M - G m) / s,   covariance = L A^-1 L' = R' R

    G and M are sums of k k' and k y' in float64: additive, exact to merge and to forget. The latent is that of
    `GaussianKeys`: mean, R and log noise. Of several outputs s is the geometric mean of their noise variances, and the
    covariance of an output is scaled by its noise over s.

    ALPaCA has a precision in place of L L', and a known noise. Its prior covariance is full.

    Args:
        keys: K, the width of a key.
        outputs: C, the width of y.
        rank: the prior covariance is a matrix of this rank plus a diagonal. None: a full one.

    Raises:
        ValueError: a rank below 1.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import GaussianKeys, SquaredError
        >>> from gradatim.refiners import ALPaCA
        >>> from gradatim.signal import CLOSED_FORM
        >>> f = GaussianKeys(2, SquaredError(), torch.nn.Identity(), keys=2)
        >>> learner = Learner(f, ALPaCA(2, 1), CLOSED_FORM)
        >>> x = torch.stack([torch.arange(8.0), torch.ones(8)], 1)[None]
        >>> state = learner.adapt(Batch(x, x @ torch.tensor([[2.0], [3.0]])), batch_size=4)
        >>> bool((learner.predict(x, state)[0, 7] - 17).abs() < 0.3)
        True

    Source: Harrison, Sharma, Pavone 2018, eqs. 3-6.
    """

    needs_observations = True
    needs_inputs = True
    capabilities = Capabilities(merge=True, forget=True, weights=True, greedy=False)
    like: Tensor

    def __init__(self, keys: int, outputs: int, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise ValueError(
                f"a prior covariance has a rank of at least 1, or None for a full one; got {rank}"
            )
        self.keys, self.outputs = keys, outputs
        self.mean = nn.Parameter(torch.zeros(keys, outputs))
        # a factor that starts at zero would have no gradient through its square
        start = torch.zeros(keys, keys) if rank is None else torch.randn(keys, rank) * 0.1 / rank**0.5
        self.factor = nn.Parameter(start)
        self.log_diagonal = nn.Parameter(torch.zeros(keys))
        self.scaled_log_noise = nn.Parameter(torch.zeros(outputs))
        self.full = rank is None
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> Statistics:
        """Return the sums over no rows, of `n_tasks` tasks."""
        return empty(n_tasks, self.keys, self.outputs, self.like.double())

    def step(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the sums with one more mini-batch."""
        return add(state, accumulate(step_input, state, classes=False))

    def merge(self, states: Sequence[Statistics]) -> Statistics:
        """Return the sums over all rows: exact, the prior counted once."""
        return add(*states)

    def forget(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the sums without the rows of a mini-batch: exact.

        Raises:
            ValueError: rows that the state has not seen, as far as their sums show it.
        """
        return subtract(state, accumulate(step_input, state, classes=False))

    def linearization_point(self, state: Statistics) -> Tensor:
        """Return zeros `[B, S]`: keys do not depend on the head, so nothing is solved."""
        return self.like.new_zeros(len(state.rows), self.outputs * (self.keys + 1) + self.keys**2)

    @property
    def log_noise(self) -> Tensor:
        """Return the logs of the noise variances, `[C]`."""
        return SPEED * self.scaled_log_noise

    def root(self) -> Tensor:
        """Return L `[K, K]` in float64, lower triangular, `L L'` the prior covariance of the head."""
        factor, log_diagonal = self.factor.double(), self.log_diagonal.double()
        if self.full:
            return factor.tril(-1) + torch.diag_embed(log_diagonal.exp())
        return torch.linalg.cholesky(factor @ factor.mT + torch.diag_embed((2 * log_diagonal).exp()))

    def latent(self, state: Statistics) -> Tensor:
        """Return the posterior `[B, C K + K K + C]` as `GaussianKeys` reads it, in the module's dtype."""
        with torch.autocast(state.gram.device.type, enabled=False):
            root, mean, log_noise = self.root(), self.mean.double(), self.log_noise.double()
            scaled = root / (log_noise.mean() / 2).exp()
            precision = scaled.mT @ state.gram @ scaled
            precision = precision + torch.eye(self.keys, dtype=precision.dtype, device=precision.device)
            factor = torch.linalg.cholesky(precision)
            residual = scaled.mT @ (state.cross - state.gram @ mean)
            head = mean + scaled @ torch.cholesky_solve(residual, factor)
            whitened = torch.linalg.solve_triangular(factor, root.mT.expand_as(factor), upper=False)
            parts = head.mT.flatten(1), whitened.flatten(1), log_noise.expand(len(head), -1)
            return torch.cat(parts, dim=1).to(self.like)
