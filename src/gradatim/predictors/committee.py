"""f as a committee: linear heads on several families of fixed features, averaged by how likely each has been.

Source: Broomhead, Lowe 1988, eq. 3 (nearness to rows); Raftery et al. 1997, eq. 1 (averaging).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..nn.mixture import SHARPNESS, TAILS, cumulative, log_chances
from ..predictor import Predictor
from .likelihoods import CrossEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from .likelihoods import Likelihood

MOST = 900
"""Features in all: their second moments, packed in float32, take 1.6 MB."""

_BISECTIONS = 64


@dataclass(frozen=True)
class Widths:
    """How many features of each family there are at most: near to `landmarks`, `products` of two inputs, `steps`."""

    landmarks: int
    products: int
    steps: int


def widths(x_dim: int, most: int = MOST) -> Widths:
    """Return the widths for x of width x_dim: as many as fit beside x and 1.

    Example:
        >>> widths(20)
        Widths(landmarks=256, products=210, steps=128)
    """
    share = min(1.0, max(0, most - 1 - x_dim) / 640)
    pairs = x_dim * (x_dim + 1) // 2
    return Widths(int(256 * share), min(pairs, int(256 * share)), int(128 * share))


class Committee(Predictor):
    """`p(y | x) = sum_e w_e p_e(y | theta_e phi(x))`, `phi(x) = [x, 1, near(x), x_i x_j / 2, 1[x_k > t] / 2]`.

    `near_k(x) = s_k exp(-|x - c_k|^2 / (spread x_dim))`, c_k rows of x that are kept, s_k such that its mean square
    over them is 1. Pairs i <= j are drawn once; nothing is learnt. Expert e sees some of the families (a block each,
    see `Experts`). Of classes: log probabilities, each expert's scores made logits by every `SHARPNESS`. Of a
    regression: the mean; `quantiles` and `variance` say the rest. The latent `[B, S]` is theta `[E, D, C]`, the log
    weights `[E, T]` and the noise variances `[E, C]`, flat.

    Args: `x_dim`; `likelihood`; `experts` E; `landmarks [K, x_dim]`: the rows c; `products`: how many; `steps`: (k, t)
    of every step feature; `spread`; `seed` of the draws.

    Raises:
        ValueError: a size below 1, landmarks of another width, a step at a column that is not there, spread <= 0.

    Example:
        >>> f = Committee(8, CrossEntropy(3), 2, torch.randn(16, 8), products=10, steps=[(0, 0.5)])
        >>> f.blocks
        (9, 16, 10, 1)

    Source: Broomhead, Lowe 1988, eq. 3; Raftery et al. 1997, eq. 1.
    """

    landmarks: Tensor
    slope: Tensor
    pairs: Tensor
    column: Tensor
    threshold: Tensor

    def __init__(
        self,
        x_dim: int,
        likelihood: Likelihood,
        experts: int,
        landmarks: Tensor,
        products: int,
        steps: Sequence[tuple[int, float]] = (),
        spread: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(x_dim, experts) < 1 or products < 0 or landmarks.shape[1:] != (x_dim,) or not spread > 0:
            raise ValueError(
                "a committee needs x_dim and experts >= 1, products >= 0, landmarks [K, x_dim] and spread > 0; got "
                f"{x_dim}, {experts}, {products}, {tuple(landmarks.shape)}, {spread}"
            )
        if any(not 0 <= column < x_dim for column, _ in steps):
            raise ValueError(f"a step is taken at a column of x, 0 .. {x_dim - 1}; got {steps}")
        self.x_dim, self.likelihood, self.experts = x_dim, likelihood, experts
        self.spread, self.seed = spread, seed
        self.output_dim = likelihood.output_dim
        self.classes = isinstance(likelihood, CrossEntropy)
        self._near(landmarks)
        pairs = torch.triu_indices(x_dim, x_dim)
        chosen = torch.randperm(pairs.shape[1], generator=torch.Generator().manual_seed(seed))[:products]
        self.register_buffer("pairs", pairs[:, chosen])
        self.register_buffer("column", torch.tensor([column for column, _ in steps], dtype=torch.int64))
        thresholds = torch.tensor([threshold for _, threshold in steps], dtype=landmarks.dtype)
        self.register_buffer("threshold", thresholds)
        self.blocks = (x_dim + 1, len(landmarks), self.pairs.shape[1], len(self.column))
        self.variants = len(SHARPNESS if self.classes else TAILS)
        heads = experts * sum(self.blocks) * self.output_dim
        self.latent_shape = (heads + experts * self.variants + experts * self.output_dim,)

    def _near(self, landmarks: Tensor) -> None:
        """Keep the landmarks, and nearness to them as `exp([x, |x|^2, 1] slope)`: one product of matrices."""
        c, width = landmarks.double(), self.spread * landmarks.shape[1]
        near = (-torch.cdist(c, c).square() / width).exp()
        scale = near.square().mean(0).clamp(min=1e-12).rsqrt() if len(c) else c[:, 0]
        offset = scale.log() - c.square().sum(1) / width
        slope = torch.cat([2 * c.mT / width, -torch.ones_like(offset)[None] / width, offset[None]])
        self.register_buffer("landmarks", landmarks.clone())
        self.register_buffer("slope", slope.to(landmarks))

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return phi(x) `[B, N, D]`."""
        return [self.features(x)]

    def features(self, x: Tensor) -> Tensor:
        """Return phi(x) `[..., D]`."""
        products = x[..., self.pairs[0]] * x[..., self.pairs[1]] / 2
        steps = (x[..., self.column] > self.threshold).to(x) / 2
        return torch.cat([x, torch.ones_like(x[..., :1]), self.near(x), products, steps], dim=-1)

    def near(self, x: Tensor) -> Tensor:
        """Return how near x is to each landmark, `[..., K]`."""
        more = torch.stack([x.square().sum(-1), torch.ones_like(x[..., 0])], dim=-1)
        return (torch.cat([x, more], dim=-1) @ self.slope).exp_()

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return log probabilities of classes `[B, N, C]`, or the means `[B, N, C]` of a regression."""
        theta, log_weight, _ = self._parts(latent)
        if not self.classes:
            share = log_weight.logsumexp(2).exp()[..., None, None]
            return self.scores(x, (share * theta).sum(1, keepdim=True))[:, :, 0]
        alive = log_weight > -torch.inf
        experts, variants = alive.any(2).any(0), alive.any(1).any(0)
        scores = self.scores(x, theta[:, experts])
        chances = log_chances(scores, variants).exp()
        weight = log_weight[:, experts][:, :, variants].exp()
        return torch.einsum("bnetc,bet->bnc", chances, weight).log()

    def scores(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return `theta_e phi(x)` `[B, N, E, C]` of heads `[B, E, D, C]`, without making phi where that is faster.

        A family that no head uses is passed over, a sum of steps is looked up, one of products is `x' Q x`.
        """
        outputs = theta.shape[1], theta.shape[3]
        linear, near, products, steps = theta.transpose(1, 2).flatten(2).split(self.blocks, dim=1)
        scores = torch.baddbmm(linear[:, -1:], x, linear[:, :-1])
        if bool(near.any()):
            scores = torch.baddbmm(scores, self.near(x), near)
        if bool(products.any()):
            scores = scores + self._products(x, products)
        if bool(steps.any()):
            scores = scores + self._steps(x, steps)
        return scores.unflatten(2, outputs)

    def _products(self, x: Tensor, heads: Tensor) -> Tensor:
        """Return the sums of products `[B, N, H]` of heads `[B, P, H]`."""
        one, other = self.pairs
        width = x.shape[2]
        if width**2 > 2 * len(one):
            return (x[..., one] * x[..., other] / 2) @ heads
        square = heads.new_zeros(len(heads), heads.shape[2], width, width)
        square[:, :, one, other] = heads.mT / 2
        return ((x[:, None] @ square) * x[:, None]).sum(-1).mT

    def _steps(self, x: Tensor, heads: Tensor) -> Tensor:
        """Return the sums of steps `[B, N, H]` of heads `[B, S, H]`: a table of their partial sums for each column."""
        total = heads.new_zeros(len(heads), x.shape[1], heads.shape[2])
        for column in self.column.unique().tolist():
            own = self.column == column
            threshold, order = self.threshold[own].sort()
            sums = torch.nn.functional.pad(heads[:, own][:, order].cumsum(1) / 2, (0, 0, 1, 0))
            place = torch.searchsorted(threshold, x[..., column].contiguous())
            total += sums.gather(1, place[..., None].expand(-1, -1, heads.shape[2]))
        return total

    def quantiles(self, x: Tensor, latent: Tensor, levels: Tensor) -> Tensor:
        """Return the quantiles `[B, N, Q]` of a regression's first output at `levels [Q]`, by bisection."""
        theta, log_weight, noise = self._parts(latent)
        mean = self.scores(x, theta[..., :1])[..., 0]
        noise, weight = noise[:, None, None, :, 0], log_weight.exp()[:, None, None]
        reach = 1e4 * noise.amax((1, 2, 3)).sqrt()[:, None, None]
        low = (mean.amin(2)[..., None] - reach).expand(-1, -1, len(levels))
        high = (mean.amax(2)[..., None] + reach).expand(-1, -1, len(levels))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            below = (weight * cumulative(middle, mean[:, :, None], noise)).sum((3, 4)) < levels
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def variance(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return the variance of a regression's predictive distribution, `[B, N, C]`."""
        theta, log_weight, noise = self._parts(latent)
        means = self.scores(x, theta)
        weight = log_weight.exp()
        share = weight.sum(2)[:, None, :, None]
        width = (weight * weight.new_tensor([s * s * v / (v - 2) for s, v in TAILS])).sum(2)
        apart = (means - (share * means).sum(2, keepdim=True)).square()
        return (share * apart).sum(2) + (width[..., None] * noise).sum(1)[:, None]

    def row_loss(self, batch: Batch, latent: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the likelihood's loss of each row, `[B, N]`."""
        return self.likelihood.row_loss(self(batch.x, latent), batch.y)

    def check(self, batch: Batch) -> None:
        """Raise ValueError where x has another width, or y cannot be scored."""
        self.check_x(batch.x)
        self.likelihood.check(batch)

    def _parts(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return theta `[B, E, D, C]`, log weights `[B, E, T]`, noise `[B, E, C]`."""
        width, tail = sum(self.blocks), self.experts * self.output_dim
        sizes = (self.experts * width * self.output_dim, self.experts * self.variants, tail)
        theta, log_weight, noise = latent.split(sizes, dim=1)
        return (
            theta.unflatten(1, (self.experts, width, self.output_dim)),
            log_weight.unflatten(1, (self.experts, self.variants)),
            noise.unflatten(1, (self.experts, self.output_dim)),
        )
