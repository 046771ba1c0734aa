"""A softmax head that knows how sure it is: a Gaussian posterior, moved and sharpened by every mini-batch.

Source: Ritter et al. 2018 (online Laplace), eqs. 8-9; MacKay 1992 (moderation); Raftery et al. 1997 (averaging).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from ..tree import where
from .moments import check_inputs, log_precisions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import Evidence


MODERATION = torch.pi / 8
"""Of the probit that comes nearest to a logistic curve (MacKay 1992)."""

_HALVINGS = 12
"""Of a Newton step at most: blocks leave out how classes pull on each other, and a whole step can overshoot."""


class LaplaceState(NamedTuple):
    """Of K priors: `theta [B, K, C, D]`, `precision [B, K, C, D, D]`, `log_weight [B, K]`; and `rows [B]`; float64."""

    theta: Tensor
    precision: Tensor
    log_weight: Tensor
    rows: Tensor


class Laplace(Refiner):
    """`theta_t = argmin sum_n ce(y_n, k_n theta a_n) / k_n + |theta - theta_{t-1}|^2_P / 2`, then `P = P + H(theta_t)`.

    P is the precision of a Gaussian posterior, one block for each class, H the mini-batch's Hessian there,
    `H_c = C / (C - 1) sum_n k_n p_c (1 - p_c) a a'` (equal to the whole one on contrasts of equally likely classes). So
    every row counts once, early and late, at constant memory. `k_n = (1 + pi / 8 v_n)^-1/2`, v_n the variance of the
    logits there: while theta is uncertain its logits say less than they seem to, and curvature at
    a start near zero would hold theta back for good. One posterior for each of K priors; the answer is their mean,
    weighted by the evidence of the mini-batches so far.

    Args: `blocks`: how many inputs share a precision; `classes` C; `precisions [K, blocks]`: of the priors
    `theta ~ N(0, P_0^-1)`, where they start; `learnt`: whether these, and the weights of the priors, are meta-trained;
    `iterations` of Newton's method a mini-batch.

    Raises:
        ValueError: a precision that is not positive or missing, fewer than two classes, no iteration; in a step, inputs
            of another width.

    Example:
        >>> refiner = Laplace((8, 1), 4, precisions=((1.0, 1.0),))

    Source: Ritter et al. 2018, eqs. 8-9.
    """

    needs_observations = True
    needs_inputs = True
    like: Tensor

    def __init__(
        self,
        blocks: Sequence[int],
        classes: int,
        precisions: Sequence[Sequence[float]],
        learnt: bool = False,
        iterations: int = 3,
    ) -> None:
        super().__init__()
        if classes < 2 or iterations < 1:
            raise ValueError(
                f"a softmax head needs classes >= 2 and iterations >= 1; got {classes}, {iterations}"
            )
        start = log_precisions(blocks, precisions)
        self.blocks, self.classes, self.iterations = tuple(blocks), classes, iterations
        self.capabilities = Capabilities(mergeable=True, learnt=learnt, greedy=not learnt)
        self.log_precision = nn.Parameter(start, requires_grad=learnt)
        self.log_prior = nn.Parameter(torch.zeros(len(start)), requires_grad=learnt)
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> LaplaceState:
        """Return the priors."""
        precision = torch.diag_embed(self._prior())[None, :, None].expand(n_tasks, -1, self.classes, -1, -1)
        log_weight = self.log_prior.double().log_softmax(0).expand(n_tasks, -1)
        return LaplaceState(
            torch.zeros_like(precision[..., 0]), precision, log_weight, log_weight.new_zeros(n_tasks)
        )

    def step(self, state: LaplaceState, evidence: Evidence) -> LaplaceState:
        """Return the posteriors after one more mini-batch."""
        inputs, batch = check_inputs(evidence, sum(self.blocks))
        theta, precision, log_weight, before = state
        with torch.autocast(inputs.device.type, enabled=False):
            a, mask = inputs.to(theta)[:, None], batch.mask[:, None, :, None]
            codes = torch.nn.functional.one_hot(batch.y[..., 0], self.classes).to(theta)[:, None] * mask
            softer = self._moderation(a, mask, theta, precision)
            moved, height = self._mode(a, codes, softer, theta, precision)
            chances = (softer * (a @ moved.mT)).softmax(-1)
            precision = precision + self._hessian(a, chances, softer * mask)
            log_weight = log_weight - height + self._volume(state.precision) - self._volume(precision)
        after = LaplaceState(moved, precision, log_weight.log_softmax(1), before + evidence.rows)
        return where(evidence.rows > 0, after, state)

    def read(self, state: LaplaceState) -> Tensor:
        """Return theta, averaged over the priors, in the module's dtype, `[B, C D]`."""
        weight = state.log_weight.exp()[..., None, None]
        return (weight * state.theta).sum(1).flatten(1).to(self.like)

    def at(self, state: LaplaceState) -> Tensor:
        """Return zeros: what enters a linear head does not depend on it."""
        return self.like.new_zeros(len(state.rows), self.classes * sum(self.blocks))

    def merge(self, states: Sequence[LaplaceState]) -> LaplaceState:
        """Return the product of the posteriors, the prior counted once: means weighted by precision.

        As exact as the quadratics that stand for past rows: 8 shards of 320 rows of linear classification have about
        1.3 times the excess loss of one pass (`gradatim bench gain`). The weight of a prior is multiplied by how well
        the posteriors under it agree: each has paid alone for learning what all of them learnt,
        `p(D) = prod_s p(D_s) integral prod_s q_s(theta) / p(theta)^(S - 1)`.
        """
        extra = len(states) - 1
        precision = sum((s.precision for s in states[1:]), states[0].precision)
        precision = precision - extra * torch.diag_embed(self._prior())[None, :, None]
        pulled = torch.stack([s.precision @ s.theta[..., None] for s in states]).sum(0)
        theta = torch.cholesky_solve(pulled, torch.linalg.cholesky(precision))[..., 0]
        log_weight = sum((s.log_weight for s in states[1:]), states[0].log_weight)
        log_weight = log_weight - extra * self.log_prior.double().log_softmax(0)
        log_weight = log_weight + self._overlap(states, theta, precision)
        rows = sum((s.rows for s in states[1:]), states[0].rows)
        return LaplaceState(theta, precision, log_weight.log_softmax(1), rows)

    def _overlap(self, states: Sequence[LaplaceState], theta: Tensor, precision: Tensor) -> Tensor:
        """Return the log of the integral in `merge`, `[B, K]`, for the merged mean and precision."""

        def density(at: Tensor, p: Tensor) -> Tensor:
            pull = (at * (p @ at[..., None])[..., 0]).sum((2, 3)) / 2
            return self._volume(p) - pull

        prior = torch.diag_embed(self._prior())[None, :, None].expand_as(precision)
        own = torch.stack([density(s.theta, s.precision) for s in states]).sum(0)
        return own - (len(states) - 1) * self._volume(prior) - density(theta, precision)

    def _volume(self, precision: Tensor) -> Tensor:
        """Return half the log determinant of all blocks, `[B, K]`.

        A shift of all classes alike changes nothing that is said: of C blocks C - 1 count.
        """
        factor = torch.linalg.cholesky(precision)
        return factor.diagonal(dim1=-2, dim2=-1).log().sum((2, 3)) * (self.classes - 1) / self.classes

    def _moderation(self, a: Tensor, mask: Tensor, theta: Tensor, precision: Tensor) -> Tensor:
        """Return k_n `[B, K, N, 1]`; v_n is the variance of the logits halfway through the mini-batch."""
        chances = (a @ theta.mT).softmax(-1)
        halfway = precision + self._hessian(a, chances, mask / 2)
        factor = torch.linalg.cholesky(halfway)
        variance = torch.linalg.solve_triangular(factor, a.mT[:, :, None], upper=False).square().sum(-2)
        return (1 + MODERATION * variance.mean(2)).rsqrt()[..., None]

    def _mode(
        self, a: Tensor, codes: Tensor, softer: Tensor, theta: Tensor, precision: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the least of moderated loss and pull to theta: where it is, `[B, K, C, D]`, and how low.

        By Newton steps, halved until they do not raise it; `codes` are zero at absent rows.
        """

        def height(at: Tensor) -> Tensor:
            apart = at - theta
            pull = (apart * (precision @ apart[..., None])[..., 0]).sum((2, 3)) / 2
            return pull - (codes / softer * (softer * (a @ at.mT)).log_softmax(-1)).sum((2, 3))

        mask = codes.sum(-1, keepdim=True)
        moved, low = theta, height(theta)
        for _ in range(self.iterations):
            chances = (softer * (a @ moved.mT)).softmax(-1)
            pull = (precision @ (theta - moved)[..., None])[..., 0]
            slope = (codes - chances * mask).mT @ a + pull
            factor = torch.linalg.cholesky(precision + self._hessian(a, chances, softer * mask))
            move = torch.cholesky_solve(slope[..., None], factor)[..., 0]
            for _ in range(_HALVINGS):
                now = height(moved + move)
                higher = now > low
                if not bool(higher.any()):
                    break
                move = torch.where(higher[..., None, None], move / 2, move)
            moved = torch.where((now <= low)[..., None, None], moved + move, moved)
            low = torch.minimum(now, low)
        return moved, low

    def _prior(self) -> Tensor:
        """Return the diagonal of P_0 `[K, D]`."""
        counts = torch.tensor(self.blocks, device=self.like.device)
        return self.log_precision.double().exp().repeat_interleave(counts, dim=1)

    def _hessian(self, a: Tensor, chances: Tensor, weight: Tensor) -> Tensor:
        """Return H `[B, K, C, D, D]` of inputs `[B, 1, N, D]`, probabilities `[B, K, N, C]`, weights `[B, K, N, 1]`."""
        spread = (weight * chances * (1 - chances)).mT * (self.classes / (self.classes - 1))
        return (a[:, :, None] * spread[..., None]).mT @ a[:, :, None]
