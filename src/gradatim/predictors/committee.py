"""f as a committee: linear heads on several families of fixed features, averaged by how likely each has been.

Source: Broomhead, Lowe 1988, eq. 3 (nearness to rows); Rahimi, Recht 2007 (random ramps); Raftery et al. 1997, eq. 1
(averaging).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..likelihood import CrossEntropy
from ..nn.mixture import SHARPNESS, TAILS, Tails, chances
from ..predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..likelihood import Likelihood

MOST = 900
"""Features in all: their second moments, packed in float32, take 1.6 MB."""

FILLED = 640
"""Features up to which random ramps fill the room that the other families leave."""

_CACHED = 2048  # rows at a time


class _Heads(NamedTuple):
    """H heads by family: `[B, ., H]` each, products also as squares `[B, d, H d]`; None where no head uses them."""

    linear: Tensor
    near: Tensor | None
    products: Tensor | None
    square: Tensor | None
    steps: Tensor | None
    ramps: Tensor | None


@dataclass(frozen=True)
class Widths:
    """How many features of each family there are at most: near to `landmarks`, `products` of two inputs, `steps`, and
    random `ramps`."""

    landmarks: int
    products: int
    steps: int
    ramps: int


def widths(x_dim: int, most: int = MOST) -> Widths:
    """Return the widths for x of width x_dim: as many as fit beside x and 1, and ramps where there is room to spare.

    Example:
        >>> widths(20)
        Widths(landmarks=192, products=192, steps=96, ramps=139)
    """
    share = min(1.0, max(0, most - 1 - x_dim) / 480)
    pairs = x_dim * (x_dim + 1) // 2
    near, products, steps = int(192 * share), min(pairs, int(192 * share)), int(96 * share)
    return Widths(near, products, steps, max(0, min(most, FILLED) - 1 - x_dim - near - products - steps))


class Committee(Predictor):
    """`p(y | x) = sum_e w_e p_e(y | theta_e phi(x))`, phi = `[x, 1, near(x), x_i x_j / 2, 1[x_k > t] / 2, ramps(x)]`.

    `near_k(x) = s_k exp(-|x - c_k|^2 / (spread v))`, c_k rows of x that are kept, s_k such that its mean square over
    them is 1, v the sum of their variances. Pairs i <= j are drawn once, those first whose product varies over the
    landmarks and is none of the two inputs. `ramps(x) = max(0, W x / sqrt(v) + b)`, W standard normal, b of deviation
    1/2. Nothing is learnt. Expert e sees some of the families (a block each,
    see `Experts`). Of classes: log probabilities, each expert's scores made logits by every `SHARPNESS`. Of a
    regression: the mean; `tails` and `variance` say the rest. The latent `[B, S]` is theta `[E, D, C]`, the log
    weights `[E, T]` and the noise variances `[E, C]`, flat.

    Args: `x_dim`; `likelihood`; `experts` E; `landmarks [K, x_dim]`: the rows c; `products`: how many; `steps`: (k, t)
    of every step feature; `spread`; `seed` of the draws; `ramps`: how many.

    Raises:
        ValueError: a size below 1, landmarks of another width, a step at a column that is not there, spread <= 0.

    Example:
        >>> f = Committee(8, CrossEntropy(3), 2, torch.randn(16, 8), products=10, steps=[(0, 0.5)])
        >>> f.blocks
        (9, 16, 10, 1, 0)

    Source: Broomhead, Lowe 1988, eq. 3; Rahimi, Recht 2007; Raftery et al. 1997, eq. 1.
    """

    landmarks: Tensor
    slope: Tensor
    pairs: Tensor
    column: Tensor
    threshold: Tensor
    place: Tensor
    direction: Tensor
    bias: Tensor

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
        ramps: int = 0,
    ) -> None:
        super().__init__()
        if (
            min(x_dim, experts) < 1
            or min(products, ramps) < 0
            or landmarks.shape[1:] != (x_dim,)
            or not spread > 0
        ):
            raise ValueError(
                "a committee needs x_dim and experts >= 1, products and ramps >= 0, landmarks [K, x_dim] and spread > "
                f"0; got {x_dim}, {experts}, {products}, {ramps}, {tuple(landmarks.shape)}, {spread}"
            )
        if any(not 0 <= column < x_dim for column, _ in steps):
            raise ValueError(f"a step is taken at a column of x, 0 .. {x_dim - 1}; got {steps}")
        self.x_dim, self.likelihood, self.experts = x_dim, likelihood, experts
        self.spread, self.seed = spread, seed
        self.output_dim = likelihood.output_dim
        self.classes = isinstance(likelihood, CrossEntropy)
        variance = float(landmarks.double().var(0, correction=0).sum()) if len(landmarks) else 0.0
        self.size = variance or float(x_dim)
        self._near(landmarks)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("pairs", _pairs_of(landmarks.double(), generator)[:, :products])
        self._grid(steps, landmarks)
        drawn = torch.randn(x_dim + 1, ramps, generator=generator, dtype=torch.float64)
        self.register_buffer("direction", (drawn[:-1] / self.size**0.5).to(landmarks))
        self.register_buffer("bias", (drawn[-1] / 2).to(landmarks))
        self.blocks = (x_dim + 1, len(landmarks), self.pairs.shape[1], len(self.place), ramps)
        self.variants = len(SHARPNESS if self.classes else TAILS)
        heads = experts * sum(self.blocks) * self.output_dim
        self.latent_shape = (heads + experts * self.variants + experts * self.output_dim,)

    def _near(self, landmarks: Tensor) -> None:
        """Keep the landmarks, and nearness to them as `exp([x, |x|^2, 1] slope)`: one product of matrices."""
        c, width = landmarks.double(), self.spread * self.size
        near = (-torch.cdist(c, c).square() / width).exp()
        scale = near.square().mean(0).clamp(min=1e-12).rsqrt() if len(c) else c[:, 0]
        offset = scale.log() - c.square().sum(1) / width
        slope = torch.cat([2 * c.mT / width, -torch.ones_like(offset)[None] / width, offset[None]])
        self.register_buffer("landmarks", landmarks.clone())
        self.register_buffer("slope", slope.to(landmarks))

    def _grid(self, steps: Sequence[tuple[int, float]], like: Tensor) -> None:
        """Keep the thresholds as a row for each column, infinite where it has fewer, and the place of each step."""
        columns = sorted({column for column, _ in steps})
        rows: list[list[float]] = [[] for _ in columns]
        place = []
        for column, threshold in steps:
            row = columns.index(column)
            place.append((row, len(rows[row])))
            rows[row].append(threshold)
        most = max(map(len, rows), default=0)
        full = [[*row, *[torch.inf] * (most - len(row))] for row in rows]
        self.register_buffer("column", torch.tensor(columns, dtype=torch.int64))
        self.register_buffer("threshold", torch.tensor(full, dtype=like.dtype).reshape(len(columns), most))
        self.register_buffer("place", torch.tensor([row * most + at for row, at in place], dtype=torch.int64))

    def inputs(self, x: Tensor, latent: Tensor) -> list[Tensor]:
        """Return phi(x) `[B, N, D]`."""
        return [self.features(x)]

    def features(self, x: Tensor) -> Tensor:
        """Return phi(x) `[..., D]`."""
        steps = self._above(x).mT.index_select(-1, self.place)
        return torch.cat(
            [x, torch.ones_like(x[..., :1]), self.near(x), self._pairs(x) / 2, steps / 2, self._ramps(x)],
            dim=-1,
        )

    def near(self, x: Tensor) -> Tensor:
        """Return how near x is to each landmark, `[..., K]`."""
        more = torch.cat([x, x.square().sum(-1, keepdim=True), torch.ones_like(x[..., :1])], dim=-1)
        return (more @ self.slope).exp_()

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Return log probabilities of classes `[B, N, C]`, or the means `[B, N, C]` of a regression."""
        theta, log_weight, _ = self._parts(latent)
        if not self.classes:
            share = log_weight.logsumexp(2).exp()[..., None, None]
            return self.scores(x, (share * theta).sum(1, keepdim=True))[:, :, 0]
        alive = log_weight > -torch.inf
        experts, variants = alive.any(2).any(0), alive.any(1).any(0)
        heads = theta[:, experts]
        scores = self.scores(x, heads[..., 1:] - heads[..., :1])  # of softmax only differences matter
        made = chances(torch.nn.functional.pad(scores, (1, 0)), variants)
        weight = log_weight[:, experts][:, :, variants].exp()
        return torch.einsum("bnetc,bet->bnc", made, weight).log()

    def scores(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return `theta_e phi(x)` `[B, N, E, C]` of heads `[B, E, D, C]`, without making phi where that is faster.

        A family that no head uses is passed over, a sum of products is `x' Q x`; few rows at a time stay in the cache.
        """
        outputs = theta.shape[1], theta.shape[3]
        heads = self._heads(theta.transpose(1, 2).flatten(2))
        return torch.cat([self._scores(rows, heads) for rows in x.split(_CACHED, dim=1)], dim=1).unflatten(
            2, outputs
        )

    def _heads(self, theta: Tensor) -> _Heads:
        """Return H heads `[B, D, H]` by family, in the form that is fastest."""
        linear, near, products, steps, ramps = theta.split(self.blocks, dim=1)
        square, width = None, self.landmarks.shape[1]
        if bool(products.any()) and width**2 <= 4 * products.shape[1]:
            one, other = self.pairs
            square = theta.new_zeros(len(theta), width, theta.shape[2], width)
            square[:, one, :, other] = products.transpose(0, 1) / 2
            square = square.flatten(2)
        grid = theta.new_zeros(len(theta), self.threshold.numel(), theta.shape[2])
        return _Heads(
            linear,
            near if bool(near.any()) else None,
            products / 2 if bool(products.any()) and square is None else None,
            square,
            grid.index_copy(1, self.place, steps / 2) if bool(steps.any()) else None,
            ramps if bool(ramps.any()) else None,
        )

    def _scores(self, x: Tensor, heads: _Heads) -> Tensor:
        """Return the scores of a few rows, `[B, N, H]`."""
        scores = torch.baddbmm(heads.linear[:, -1:], x, heads.linear[:, :-1])
        if heads.near is not None:
            scores = torch.baddbmm(scores, self.near(x), heads.near)
        if heads.products is not None:
            scores = torch.baddbmm(scores, self._pairs(x), heads.products)
        if heads.square is not None:
            scores = scores + ((x @ heads.square).unflatten(2, (-1, x.shape[2])) * x[:, :, None]).sum(-1)
        if heads.steps is not None:
            scores = torch.baddbmm(scores, self._above(x).mT, heads.steps)
        if heads.ramps is not None:
            scores = torch.baddbmm(scores, self._ramps(x), heads.ramps)
        return scores

    def _pairs(self, x: Tensor) -> Tensor:
        """Return the products of two inputs `[..., P]`."""
        return x.index_select(-1, self.pairs[0]) * x.index_select(-1, self.pairs[1])

    def _above(self, x: Tensor) -> Tensor:
        """Return 1 where x `[..., N, d]` is above a threshold, 0 where not: `[..., columns thresholds, N]`."""
        columns = x.mT.index_select(-2, self.column)
        return (columns[..., None, :] > self.threshold[..., None]).flatten(-3, -2).to(x)

    def _ramps(self, x: Tensor) -> Tensor:
        """Return the random ramps `[..., R]`."""
        return torch.nn.functional.linear(x, self.direction.mT, self.bias).relu_()

    def tails(self, x: Tensor, latent: Tensor) -> Tails:
        """Return the predictive distribution of a regression's first output at x."""
        theta, log_weight, noise = self._parts(latent)
        return Tails(self.scores(x, theta[..., :1])[..., 0], noise[..., 0], log_weight.exp())

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


def _pairs_of(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return all pairs i <= j of columns `[2, P]` in random order, those first whose product says more than they do.

    Two codes of one category never meet, a code of no row or its own square says nothing new.
    """
    i, j = pairs = torch.triu_indices(rows.shape[1], rows.shape[1])
    mean, square = rows.mT @ rows / len(rows), rows.square().mT @ rows.square() / len(rows)
    varies = square - mean.square() > 1e-9 * square
    varies.diagonal().logical_and_(~((rows == 0) | (rows == 1)).all(0))
    order = torch.randperm(len(i), generator=generator)
    return pairs[:, order[(~varies[i, j])[order].long().argsort(stable=True)]]
