"""Bayesian linear regression: sufficient statistics under a normal-inverse-gamma prior, or several of them.

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
"""A precision that holds the weights of a block at zero, however many rows there are."""


class Posterior(NamedTuple):
    """The posterior under each of K priors.

    Fields: `mean [B, K, D, C]`; `factor [B, K, D, D]`: Cholesky factor of precision over noise precision. `shape [B]`,
    `scale [B, K, C]`: of the noise variance. `log_weight [B, K]`: log probability of each prior; `log_evidence [B]`.
    """

    mean: Tensor
    factor: Tensor
    shape: Tensor
    scale: Tensor
    log_weight: Tensor
    log_evidence: Tensor


class Conjugate(Refiner):
    """`theta = sum_k w_k (G + P_k)^-1 M`, `w_k` the posterior probability of prior k: an exact Bayesian linear head.

        theta ~ N(0, v P_k^-1),  v ~ InvGamma(shape, scale),  w_k ~ p_k p(rows | k)

    Weights and noise variance v are integrated out, so all three follow from the same statistics G and M. These are
    sums over rows in float64: additive, and exact to merge. P_k is diagonal, with one number for each block of inputs.
    Classes are regressed one-hot.

    Args:
        blocks: how many inputs share a precision, e.g. (8, 1, 256) for x, a bias and features.
        outputs: C, the width of y or the number of classes.
        precisions: `[K, blocks]`, where the priors start, in units of noise variance over prior variance.
        classes: whether y is a class index.
        learnt: whether precisions, weights of the priors and the noise's scale are meta-trained.
        forgetting: factor in (0, 1] by which a row counts less with every later one.

    Raises:
        ValueError: a precision that is not positive or missing, a factor outside (0, 1]; in a step, inputs of another
            width.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import OFF, Conjugate
        >>> from gradatim.signal import CLOSED_FORM
        >>> refiner = Conjugate((1, 1), 1, precisions=((0.1, OFF), (0.1, 0.1)))
        >>> learner = Learner(Network(1, SquaredError()), refiner, CLOSED_FORM)
        >>> x = torch.arange(8.0)[None, :, None]
        >>> state = learner.adapt(Batch(x, 2 * x + 3), batch_size=4)
        >>> refiner.posterior(state).log_weight.exp().round(decimals=2)  # the prior without a bias is ruled out
        tensor([[0., 1.]], dtype=torch.float64)

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
        """Return the statistics of no rows, of `n_tasks` tasks."""
        return empty(n_tasks, sum(self.blocks), self.outputs, self.like.double())

    def step(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the statistics with one more mini-batch; earlier ones count less by `forgetting ** rows`."""
        new = accumulate(step_input, state, self.classes)
        return add(state if self.forgetting == 1 else self.discount(state, self.forgetting**new.rows), new)

    def latent(self, state: Statistics) -> Tensor:
        """Return theta, averaged over the priors, in the module's dtype, `[B, C D]`."""
        posterior = self.posterior(state)
        mean = (posterior.log_weight.exp()[..., None, None] * posterior.mean).sum(1)
        return mean.mT.flatten(1).to(self.like)

    def linearization_point(self, state: Statistics) -> Tensor:
        """Return zeros `[B, C D]`: the inputs of a linear head do not depend on it, so nothing is solved."""
        return self.like.new_zeros(len(state.rows), self.outputs * sum(self.blocks))

    def merge(self, states: Sequence[Statistics]) -> Statistics:
        """Return the statistics of all rows: exact, the prior counted once.

        Raises:
            ValueError: this refiner discounts old rows, so that their order matters.
        """
        if self.forgetting < 1:
            raise ValueError(
                f"states that forget (factor {self.forgetting:g}) depend on the order of rows: they do not merge; "
                "merge those of a refiner with forgetting=1"
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
        """Return the posterior under each prior, given statistics `[B, ...]`.

        `log_evidence [B] = log sum_k p_k p(rows | k)`; that of a mini-batch given earlier rows is a difference of two.
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
        noise = log_shape.exp() * log_scale - shape[:, None, None] * scale.log()
        constant = torch.lgamma(shape) - torch.lgamma(log_shape.exp()) - rows / 2 * math.log(2 * math.pi)
        log_rows = self.outputs * (volume + constant[:, None]) + noise.sum(-1)
        joint = self.log_prior.double().log_softmax(0) + log_rows
        total = joint.logsumexp(1)
        return Posterior(mean, factor, shape, scale, joint - total[:, None], total)

    def variance(self, state: Statistics, inputs: Tensor) -> Tensor:
        """Return the predictive variance at inputs `[B, N, D]`, noise included, `[B, N, C]`.

            sum_k w_k (noise_k (1 + a' (G + P_k)^-1 a) + (mean_k - mean)^2),  noise_k = scale_k / (shape - 1)

        noise_k is the posterior mean of the noise variance. Below 3/2 the shape counts as 3/2: that mean is large
        there, or does not exist.
        """
        posterior = self.posterior(state)
        a = inputs.to(posterior.mean)[:, None]
        reach = torch.linalg.solve_triangular(posterior.factor, a.mT, upper=False).square().sum(2)
        noise = posterior.scale / (posterior.shape - 1).clamp(min=0.5)[:, None, None]
        means, weight = a @ posterior.mean, posterior.log_weight.exp()[..., None, None]
        spread = (means - (weight * means).sum(1, keepdim=True)).square()
        return (weight * (noise[:, :, None] * (1 + reach[..., None]) + spread)).sum(1).to(self.like)
