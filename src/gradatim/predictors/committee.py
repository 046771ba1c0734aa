"""f as a committee: linear heads on several families of fixed features, averaged by how likely each has been.

Source: Raftery et al. 1997, eq. 1 (averaging).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..likelihood import CrossEntropy
from ..nn.mixture import SHARPNESS, TAILS, Mixture, sharpened
from ..nn.widths import Widths
from ..predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..batch import Batch
    from ..likelihood import Likelihood
    from ..nn.fixed_features import FixedFeatures


class Committee(Predictor):
    """`p(y | x) = sum_e w_e p_e(y | theta_e phi(x))`, phi fixed features. Nothing is learnt in it.

    Expert e sees some of the families of features (see `Experts`). Outputs are log probabilities of classes, where each
    expert's scores become logits by every factor of `SHARPNESS`; or the means of a regression, whose `distribution` is
    a mixture of Student laws. The latent `[B, S]` is flat: theta `[E, D, C]`, the log weights `[E, T]` and the noise
    variances `[E, C]`; in their place classes have what is added to their probabilities, and taken from the experts'.
    A regression's ends with how wide distributions are, `[3 K + 2]` (see `Widths`).

    Args:
        features: the map phi.
        likelihood: of y.
        experts: E.

    Raises:
        ValueError: no experts.

    Example:
        >>> import torch
        >>> from gradatim.likelihood import CrossEntropy
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> from gradatim.predictors import Committee
        >>> f = Committee(FixedFeatures.draw(torch.randn(16, 8), products=10), CrossEntropy(3), experts=2)
        >>> f.x_dim, f.output_dim
        (8, 3)

    Source: Raftery et al. 1997, eq. 1.
    """

    def __init__(self, features: FixedFeatures, likelihood: Likelihood, experts: int) -> None:
        super().__init__()
        if experts < 1:
            raise ValueError(f"a committee needs experts >= 1; got {experts}")
        self.features, self.likelihood, self.experts = features, likelihood, experts
        self.x_dim, self.output_dim = features.x_dim, likelihood.output_dim
        self.classes = isinstance(likelihood, CrossEntropy)
        self.variants = len(SHARPNESS if self.classes else TAILS)
        heads = experts * sum(features.blocks) * self.output_dim
        tail = experts * (self.variants + self.output_dim)
        self.latent_shape = (
            heads + tail + Widths.empty(1, torch.zeros(()), not self.classes).joined.shape[1],
        )

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return phi(x) `[B, N, D]`."""
        return [self.features(x)]

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return log probabilities of classes `[B, N, C]`, or the means `[B, N, C]` of a regression."""
        return self.at(latent)(x)

    def at(self, latent: Tensor) -> Callable[[Tensor], Tensor]:
        """Return f under latent `[B, S]`, with the heads of experts that have a weight at hand."""
        theta, log_weight, noise, _ = self._parts(latent)
        if not self.classes:
            share = log_weight.logsumexp(2).exp()[..., None, None]
            return partial(_mean, self.features.scorer((share * theta).sum(1, keepdim=True)))
        alive = log_weight > -torch.inf
        experts, variants = alive.any(2).any(0), alive.any(1).any(0)
        heads = theta[:, experts]
        # of softmax only differences matter
        scorer = self.features.scorer(heads[..., 1:] - heads[..., :1])
        weight = log_weight[:, experts][:, :, variants].exp()
        sharpness = torch.tensor(SHARPNESS, dtype=weight.dtype, device=weight.device)[variants]
        added = noise[:, :1].clamp(min=0)
        added = added / added.sum(2, keepdim=True).clamp(min=1)
        weight = (1 - added.sum(2, keepdim=True)) * weight
        return partial(_log_average, scorer, weight.flatten(1)[:, None, None], sharpness, added)

    def distribution(self, x: Tensor, latent: Tensor) -> Mixture:
        """Return the predictive distribution of a regression's first output at x `[B, N, x_dim]`.

        Raises:
            ValueError: a committee of classes.
        """
        if self.classes:
            return super().distribution(x, latent)
        theta, log_weight, noise, widths = self._parts(latent)
        means = self.features.scores(x, theta[..., :1])[..., 0]
        mixture = Mixture(means, noise[..., 0], log_weight.exp())
        return mixture._replace(stretch=Widths.split(widths).stretch(mixture.mean))

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)

    def _parts(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return theta `[B, E, D, C]`, log weights `[B, E, T]`, noise `[B, E, C]`, widths `[B, 3 K + 2]`."""
        width, tail = sum(self.features.blocks), self.experts * self.output_dim
        sizes = [self.experts * width * self.output_dim, self.experts * self.variants, tail]
        theta, log_weight, noise, widths = latent.split([*sizes, latent.shape[1] - sum(sizes)], dim=1)
        return (
            theta.unflatten(1, (self.experts, width, self.output_dim)),
            log_weight.unflatten(1, (self.experts, self.variants)),
            noise.unflatten(1, (self.experts, self.output_dim)),
            widths,
        )


def _mean(scorer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the means `[B, N, C]` of a regression."""
    return scorer(x)[:, :, 0]


def _log_average(
    scorer: Callable[[Tensor], Tensor], weight: Tensor, sharpness: Tensor, added: Tensor, x: Tensor
) -> Tensor:
    """Return log probabilities `[B, N, C]`, of E experts sharpened by T factors, of weight `[B, 1, 1, E T]`.

    `added [B, 1, C]` to them.
    """
    probabilities = sharpened(torch.nn.functional.pad(scorer(x), (1, 0)), sharpness)
    average = (weight @ probabilities.flatten(2, 3))[:, :, 0] + added
    return average.clamp(min=torch.finfo(average.dtype).tiny).log()
