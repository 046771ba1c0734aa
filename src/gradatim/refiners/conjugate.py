"""A state that knows how sure it is: sufficient statistics under a normal-inverse-gamma prior, or several of them.

Source: Bishop 2006, eqs. 3.50-3.51 and exercise 3.23 (posterior, evidence); Harrison et al. 2018 (ALPaCA), section 3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from .statistics import Statistics, accumulate, add, empty, log_precisions, spread_classes, subtract

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

OFF = 1e10
"""A precision that shuts a block of inputs off at any number of rows."""


class Posterior(NamedTuple):
    """Of K priors: `mean [B, K, D, C]`, `factor [B, K, D, D]` (Cholesky of the precision over the noise precision),
    `shape [B]` and `scale [B, K, C]` of the noise variance, `log_weight [B, K]`, `log_evidence [B]`."""

    mean: Tensor
    factor: Tensor
    shape: Tensor
    scale: Tensor
    log_weight: Tensor
    log_evidence: Tensor


class Conjugate(Refiner):
    """`theta = sum_k w_k (G + P_k)^-1 M`, `w_k` the posterior probability of prior k: an exact Bayesian linear head.

    Under prior k `theta ~ N(0, v P_k^-1)`, the noise variance `v ~ InvGamma(shape, scale)`, both integrated out, so
    `w_k ~ p_k p(rows | k)` comes from the same statistics: additive, exact to merge, at no memory of its own. P_k is
    diagonal, one number for each block of inputs. Classes are regressed one-hot. Statistics are float64.

    Args: `blocks`: how many inputs share a precision, e.g. (8, 1, 256) for x, a bias and features; `outputs` C;
    `precisions [K, blocks]`: where the priors start, in units of noise variance over prior variance; `classes`: whether
    y is a class index; `learnt`: whether precisions, the weights of the priors and the noise's scale are meta-trained;
    `forgetting`: factor in (0, 1] by which a row counts less with every later one.

    Raises:
        ValueError: a precision that is not positive or missing, a factor outside (0, 1]; in a step, inputs of another
            width.

    Example:
        >>> refiner = Conjugate((8, 256), 1, precisions=((1.0, OFF), (1.0, 10.0)))

    Source: Bishop 2006, exercise 3.23; Raftery et al. 1997, eq. 1 (averaging); Harrison et al. 2018.
    """

    needs_observations = True
    needs_inputs = True
    like: Tensor
    log_precision: Tensor

    def __init__(
        self,
        blocks: Sequence[int],
        outputs: int,
        precisions: Sequence[Sequence[float]],
        classes: bool = False,
        learnt: bool = False,
        forgetting: float = 1.0,
    ) -> None:
        super().__init__()
        start = log_precisions(blocks, precisions)
        if not 0 < forgetting <= 1:
            raise ValueError(f"a forgetting factor lies in (0, 1], 1 forgets nothing; got {forgetting}")
        self.blocks, self.outputs, self.classes, self.forgetting = tuple(blocks), outputs, classes, forgetting
        self.capabilities = Capabilities(
            merge=forgetting == 1,
            forget=forgetting == 1,
            widen=classes,
            weights=True,
            discounts=forgetting < 1,
            learnt=learnt,
            greedy=not learnt,
        )
        self.log_precision = nn.Parameter(start, requires_grad=learnt)
        self.log_prior = nn.Parameter(torch.zeros(len(start)), requires_grad=learnt)
        self.log_noise = nn.Parameter(torch.full((2,), -1.0), requires_grad=learnt)
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> Statistics:
        """Return the statistics of no rows."""
        return empty(n_tasks, sum(self.blocks), self.outputs, self.like.double())

    def step(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the statistics with one more mini-batch; earlier ones count less by `forgetting ** rows`."""
        new = accumulate(step_input, state, self.classes)
        return add(state if self.forgetting == 1 else self.discount(state, self.forgetting**new.rows), new)

    def latent(self, state: Statistics) -> Tensor:
        """Return theta, averaged over the priors, in the module's dtype, `[B, C D]`."""
        found = self.posterior(state)
        mean = (found.log_weight.exp()[..., None, None] * found.mean).sum(1)
        return mean.mT.flatten(1).to(self.like)

    def linearization_point(self, state: Statistics) -> Tensor:
        """Return zeros: what enters a linear head does not depend on it, so nothing is solved for."""
        return self.like.new_zeros(len(state.rows), self.outputs * sum(self.blocks))

    def merge(self, states: Sequence[Statistics]) -> Statistics:
        """Return the statistics of all rows: exact, the prior counted once.

        Raises:
            ValueError: this learner forgets, so that the order of the rows matters.
        """
        if self.forgetting < 1:
            raise ValueError(
                f"states that forget (factor {self.forgetting:g}) depend on the order of rows: they do not merge"
            )
        return add(*states)

    def forget(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the statistics without the rows of a mini-batch: exact.

        Raises:
            ValueError: rows that the state has not seen, as far as their sums show it, or old rows are discounted.
        """
        if self.forgetting < 1:
            raise ValueError(
                f"states that discount old rows (factor {self.forgetting:g}) do not know how much a row still counts: "
                "learn the remaining rows anew"
            )
        return subtract(state, accumulate(step_input, state, self.classes))

    def widen(self, state: Statistics, place: Tensor) -> Statistics:
        """Return the statistics of fewer classes as those of `outputs` classes: class c becomes `place[c]`.

        It is the state of one that knew all classes from the start. Priors are weighed by the evidence of all classes,
        new ones included, so predictions of known classes can change a little where there are several.

        Args:
            state: of as many classes as `place` has entries.
            place: `[C]` int64, all different.

        Raises:
            ValueError: y is no class index, or places that are repeated or no classes.
        """
        if not self.classes:
            return super().widen(state, place)
        return spread_classes(state, place, self.outputs)

    @staticmethod
    def discount(state: Statistics, factor: Tensor) -> Statistics:
        """Return the statistics with every row counted `factor [B]` times."""
        gram, cross, squares, rows = state
        return Statistics(
            gram * factor[:, None, None],
            cross * factor[:, None, None],
            squares * factor[:, None],
            rows * factor,
        )

    def posterior(self, state: Statistics) -> Posterior:
        """Return what the rows say under each prior.

        `log_evidence = log sum_k p_k p(rows | k)`; that of a mini-batch given earlier rows is a difference of two.
        """
        precision = (
            self.log_precision.double()
            .exp()
            .repeat_interleave(torch.tensor(self.blocks, device=self.like.device), dim=1)
        )
        log_shape, log_scale = self.log_noise.double().clamp(-12, 4)
        gram, cross, squares, rows = state
        with torch.autocast(gram.device.type, enabled=False):
            factor = torch.linalg.cholesky(gram[:, None] + torch.diag_embed(precision))
            mean = torch.cholesky_solve(cross[:, None].expand(-1, len(precision), -1, -1), factor)
            explained = (cross[:, None] * mean).sum(2)
        shape, scale = (
            log_shape.exp() + rows / 2,
            log_scale.exp() + (squares[:, None] - explained).clamp(min=0) / 2,
        )
        volume = precision.log().sum(1) / 2 - factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        each = log_shape.exp() * log_scale - shape[:, None, None] * scale.log()
        constant = torch.lgamma(shape) - torch.lgamma(log_shape.exp()) - rows / 2 * math.log(2 * math.pi)
        log_rows = self.outputs * (volume + constant[:, None]) + each.sum(-1)
        joint = self.log_prior.double().log_softmax(0) + log_rows
        total = joint.logsumexp(1)
        return Posterior(mean, factor, shape, scale, joint - total[:, None], total)

    def variance(self, state: Statistics, inputs: Tensor) -> Tensor:
        """Return the predictive variance at inputs `[B, N, D]`, noise included, `[B, N, C]`.

        `sum_k w_k (noise_k (1 + a' (G + P_k)^-1 a) + (mean_k - mean)^2)`, noise_k the posterior mean of the noise
        variance, `scale / (shape - 1)`; while shape is below 3/2, and the mean large or none, as if it were 3/2.
        """
        found = self.posterior(state)
        a = inputs.to(found.mean)[:, None]
        reach = torch.linalg.solve_triangular(found.factor, a.mT, upper=False).square().sum(2)
        noise = found.scale / (found.shape - 1).clamp(min=0.5)[:, None, None]
        means, weight = a @ found.mean, found.log_weight.exp()[..., None, None]
        apart = (means - (weight * means).sum(1, keepdim=True)).square()
        return (weight * (noise[:, :, None] * (1 + reach[..., None]) + apart)).sum(1).to(self.like)
