"""Learnt steps on top of a learnt prior of heads: each puts a prior where the posterior points, and solves again.

Source: Mittal et al. 2025, eq. 7 (a state refined by learnt steps); a local prior as the step is this project's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from .alpaca import ALPaCA
from .refined import Refined

if TYPE_CHECKING:
    from .statistics import Statistics

_SPREAD, _NOISE = 5.0, 3.0
"""By how many nats a step moves the prior's precisions and the noise at most."""


class Evidence(NamedTuple):
    """What rows say of heads u, through their sums, in float64.

    Fields: `precision [B, K, K]` of the likelihood of u; `pull [B, K, C]`, minus the gradient of its loss at u = 0;
    `misfit [B, C]`, the squares that u = 0 leaves, in units of the noise; `rows [B]`.
    """

    precision: Tensor
    pull: Tensor
    misfit: Tensor
    rows: Tensor


class LocalPrior(NamedTuple):
    """A prior of heads u, `N(center, diag(exp(-log_precision)))`, and what is added to the log noise, in float64.

    Fields: `center [B, K, C]`; `log_precision [B, K]`; `log_noise [B, 1]`.
    """

    center: Tensor
    log_precision: Tensor
    log_noise: Tensor


class RefinedALPaCA(Refined, ALPaCA):
    """The posterior of `ALPaCA`, refined by a few learnt steps before it predicts.

        w = m + L u,   D = L' G L / s,   b = L' (M - G m) / s,   u_0 = (D + I)^-1 b
        c, p, d = h(u_t, deviations of u_t, misfit at u_t, rows)
        u_{t+1} = (D e^-d + diag(p))^-1 (b e^-d + p c)

    One Gaussian prior serves all tasks. Where their heads lie on a curved surface, rows tell on which piece of it. A
    step h puts the prior N(c, 1 / p) there, and scales the noise. `D u - b` is the gradient of the loss of all rows.
    The posterior is where the prior balances it, so u_t shows it, and many rows overrule h.

    The state is that of `ALPaCA`: merging and forgetting stay exact, and `Prefixes` trains it. All steps share h. Its
    last layer starts at zero, where c = 0, p = 1 and d = 0: untrained, it is `ALPaCA`.

    Args:
        keys: K, the width of a key.
        outputs: C, the width of y.
        rank: of the prior covariance, as in `ALPaCA`.
        steps: how many are taken.
        units: of the two hidden layers of h.

    Raises:
        ValueError: no step, no unit, or a rank below 1.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import GaussianKeys, SquaredError
        >>> from gradatim.refiners import ALPaCA, RefinedALPaCA
        >>> from gradatim.signal import CLOSED_FORM
        >>> f, x = GaussianKeys(1, SquaredError(), torch.nn.Identity(), keys=1), torch.ones(1, 8, 1)
        >>> start, refined = (Learner(f, kind(1, 1), CLOSED_FORM) for kind in (ALPaCA, RefinedALPaCA))
        >>> [learner.predict(x, learner.adapt(Batch(x, x), 4))[0, 0].item() for learner in (start, refined)]
        [0.8888888955116272, 0.8888888955116272]

    Source: Mittal et al. 2025, eq. 7; Harrison et al. 2018, eqs. 3-6 (the start).
    """

    def __init__(
        self, keys: int, outputs: int, rank: int | None = None, steps: int = 2, units: int = 128
    ) -> None:
        super().__init__(keys, outputs, rank)
        if min(steps, units) < 1:
            raise ValueError(
                f"a refinement has at least one step and one unit; got {steps} steps, {units} units"
            )
        self.steps = steps
        last = nn.Linear(units, keys * (outputs + 1) + 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first = nn.Linear(keys * (outputs + 1) + outputs + 1, units)
        self.move = nn.Sequential(
            first, nn.LayerNorm(units), nn.GELU(), nn.Linear(units, units), nn.GELU(), last
        )
        self.keep_all()

    def latent(self, state: Statistics) -> Tensor:
        """Return the refined posterior `[B, C K + K K + C]` as `GaussianKeys` reads it, in the module's dtype."""
        with torch.autocast(state.gram.device.type, enabled=False):
            root, evidence = self.root(), self._evidence(state)
            center = torch.zeros_like(evidence.pull)
            local = LocalPrior(center, center[..., 0], center[:, :1, 0])
            head, factor = _posterior(evidence, local)
            gate = self.gate(state.rows)[:, None]
            for _ in range(self.steps):
                local = self._local(evidence, head, factor, gate)
                head, factor = _posterior(evidence, local)
            whitened = torch.linalg.solve_triangular(factor, root.mT.expand_as(factor), upper=False)
            heads = self.mean.double() + root @ head
            log_noise = self.log_noise.double() + local.log_noise
            return torch.cat([heads.mT.flatten(1), whitened.flatten(1), log_noise], dim=1).to(self.like)

    def _evidence(self, state: Statistics) -> Evidence:
        """Return what the sums say of u, `w = m + L u`, at the noise of the prior."""
        root, mean, noise = self.root(), self.mean.double(), self.log_noise.double().mean().exp()
        scaled = root / noise.sqrt()
        fitted = state.gram @ mean
        misfit = state.squares - 2 * (state.cross * mean).sum(1) + (mean * fitted).sum(1)
        pull = scaled.mT @ (state.cross - fitted) / noise.sqrt()
        return Evidence(scaled.mT @ state.gram @ scaled, pull, misfit / noise, state.rows)

    def _local(self, evidence: Evidence, head: Tensor, factor: Tensor, gate: Tensor) -> LocalPrior:
        """Return the prior that a step puts where the posterior points: heads `[B, K, C]`, its precision's factor."""
        identity = torch.eye(self.keys, dtype=factor.dtype, device=factor.device)
        whitened = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
        deviations = whitened.square().sum(1).sqrt()
        left = evidence.misfit + (head * (evidence.precision @ head - 2 * evidence.pull)).sum(1)
        rows = evidence.rows[:, None]
        misfit = (left.clamp(min=0) / rows.clamp(min=1)).log1p()
        seen = torch.cat([head.flatten(1), deviations, misfit, rows.log1p()], dim=1)
        moved = self.move(seen.to(self.like)).to(head) * gate
        size = self.keys * self.outputs
        center = moved[:, :size].unflatten(1, (self.keys, self.outputs))
        return LocalPrior(center, _within(moved[:, size:-1], _SPREAD), _within(moved[:, -1:], _NOISE))


def _posterior(evidence: Evidence, local: LocalPrior) -> tuple[Tensor, Tensor]:
    """Return the mean `[B, K, C]` of heads u under a prior, and the factor of their precision `[B, K, K]`."""
    sure, precision = (-local.log_noise).exp()[..., None], local.log_precision.exp()
    factor = torch.linalg.cholesky(evidence.precision * sure + torch.diag_embed(precision))
    return torch.cholesky_solve(evidence.pull * sure + precision[..., None] * local.center, factor), factor


def _within(value: Tensor, limit: float) -> Tensor:
    """Return values drawn smoothly into -limit .. limit, with slope 1 at zero."""
    return limit * torch.tanh(value / limit)
