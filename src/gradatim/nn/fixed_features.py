"""Fixed features of rows: nearness to some of them, products of two inputs, steps and random ramps; nothing is learnt.

Source: Broomhead, Lowe 1988, eq. 3 (nearness to rows); Rahimi, Recht 2007 (random ramps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def widths(x_dim: int, limit: int = MOST) -> Widths:
    """Return the widths for x of width x_dim: as many as fit beside x and 1, and ramps where there is room to spare.

    Example:
        >>> widths(20)
        Widths(landmarks=192, products=192, steps=96, ramps=139)
    """
    share = min(1.0, max(0, limit - 1 - x_dim) / 480)
    pairs = x_dim * (x_dim + 1) // 2
    near, products, steps = int(192 * share), min(pairs, int(192 * share)), int(96 * share)
    return Widths(near, products, steps, max(0, min(limit, FILLED) - 1 - x_dim - near - products - steps))


class FixedFeatures(nn.Module):
    """`phi(x) = [x, 1, near(x), x_i x_j / 2, 1[x_k > t] / 2, ramps(x)]`: five families, side by side.

    - `near_k(x) = s_k exp(-|x - c_k|^2 / (spread v))`. The landmarks c_k are rows of x, v is the sum of their
      variances, and s_k makes the mean square over the landmarks 1.
    - The pairs i <= j are drawn once. Those come first whose product varies over the landmarks and is none of the two
      inputs.
    - `ramps(x) = max(0, W x / sqrt(v) + b)`, W standard normal, b of standard deviation 1/2.

    Args:
        landmarks: `[K, x_dim]`, the rows c.
        products: how many products of two inputs.
        steps: (k, t) of every step feature.
        spread: how far nearness reaches.
        seed: of the draws.
        ramps: how many random ramps.

    Attributes:
        blocks: the widths of the five families, x and 1 together first.

    Raises:
        ValueError: a number of features below 0, landmarks that are no rows, a step at a column that does not exist,
            spread <= 0.

    Example:
        >>> import torch
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> features = FixedFeatures(torch.randn(16, 8), products=10, steps=[(0, 0.5)])
        >>> features.blocks, features(torch.randn(2, 3, 8)).shape
        ((9, 16, 10, 1, 0), torch.Size([2, 3, 36]))

    Source: Broomhead, Lowe 1988, eq. 3; Rahimi, Recht 2007.
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
        landmarks: Tensor,
        products: int = 0,
        steps: Sequence[tuple[int, float]] = (),
        spread: float = 1.0,
        seed: int = 0,
        ramps: int = 0,
    ) -> None:
        super().__init__()
        if landmarks.dim() != 2 or not landmarks.shape[1] or min(products, ramps) < 0 or not spread > 0:
            raise ValueError(
                "fixed features need landmarks [K, x_dim], products and ramps >= 0, and spread > 0; got "
                f"{tuple(landmarks.shape)}, {products}, {ramps}, {spread}"
            )
        self.x_dim = x_dim = landmarks.shape[1]
        if any(not 0 <= column < x_dim for column, _ in steps):
            raise ValueError(f"a step is taken at a column of x, 0 .. {x_dim - 1}; got {steps}")
        variance = float(landmarks.double().var(0, correction=0).sum()) if len(landmarks) else 0.0
        self.spread, self.size = spread, variance or float(x_dim)
        self._near(landmarks)
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("pairs", _pairs_of(landmarks.double(), generator)[:, :products])
        self._grid(steps, landmarks)
        normal = torch.randn(x_dim + 1, ramps, generator=generator, dtype=torch.float64)
        self.register_buffer("direction", (normal[:-1] / self.size**0.5).to(landmarks))
        self.register_buffer("bias", (normal[-1] / 2).to(landmarks))
        self.blocks = (x_dim + 1, len(landmarks), self.pairs.shape[1], len(self.place), ramps)

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
        places = []
        for column, threshold in steps:
            row = columns.index(column)
            places.append((row, len(rows[row])))
            rows[row].append(threshold)
        longest = max(map(len, rows), default=0)
        full = [[*row, *[torch.inf] * (longest - len(row))] for row in rows]
        self.register_buffer("column", torch.tensor(columns, dtype=torch.int64))
        self.register_buffer("threshold", torch.tensor(full, dtype=like.dtype).reshape(len(columns), longest))
        self.register_buffer(
            "place", torch.tensor([row * longest + at for row, at in places], dtype=torch.int64)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return phi(x), shape `[..., D]`, at x, shape `[..., x_dim]`."""
        steps = self._above(x).mT.index_select(-1, self.place)
        return torch.cat(
            [x, torch.ones_like(x[..., :1]), self.near(x), self._pairs(x) / 2, steps / 2, self._ramps(x)],
            dim=-1,
        )

    def near(self, x: Tensor) -> Tensor:
        """Return how near x, shape `[..., x_dim]`, is to each landmark, shape `[..., K]`."""
        more = torch.cat([x, x.square().sum(-1, keepdim=True), torch.ones_like(x[..., :1])], dim=-1)
        return (more @ self.slope).exp_()

    def scores(self, x: Tensor, theta: Tensor) -> Tensor:
        """Return `theta_e phi(x)` `[B, N, E, C]` at x `[B, N, x_dim]` of heads `[B, E, D, C]`, without making phi.

        A family that no head uses is passed over, and a sum of products is `x' Q x`.
        """
        outputs = theta.shape[1], theta.shape[3]
        heads = self._heads(theta.transpose(1, 2).flatten(2))
        # few rows at a time stay in the cache
        return torch.cat([self._scores(rows, heads) for rows in x.split(_CACHED, dim=1)], dim=1).unflatten(
            2, outputs
        )

    def _heads(self, theta: Tensor) -> _Heads:
        """Return H heads `[B, D, H]` by family, in the form that is fastest."""
        linear, near, products, steps, ramps = theta.split(self.blocks, dim=1)
        square, width = None, self.landmarks.shape[1]
        if bool(products.any()) and width**2 <= 4 * products.shape[1]:
            i, j = self.pairs
            square = theta.new_zeros(len(theta), width, theta.shape[2], width)
            square[:, i, :, j] = products.transpose(0, 1) / 2
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


def choose_landmarks(rows: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Return at most `limit` different rows of `[n, d]` as float32 `[K, d]`, whatever their order.

    They are those whose hash is smallest, so that the same rows are chosen in whatever portions they come.

    Example:
        >>> import numpy as np
        >>> from gradatim.nn.fixed_features import choose_landmarks
        >>> rows = np.random.default_rng(0).normal(size=(50, 3))
        >>> np.array_equal(choose_landmarks(rows, 8, 0), choose_landmarks(rows[::-1], 8, 0))
        True
    """
    chosen = np.empty((0, rows.shape[1]), dtype=np.float32)
    for start in range(0, len(rows), _CACHED):
        chosen = np.concatenate([chosen, rows[start : start + _CACHED].astype(np.float32)])
        _, index = np.unique(_hashes(chosen, seed), return_index=True)
        chosen = chosen[index[:limit]]
    return chosen


def _hashes(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a number for each row of float32 `[n, d]` that depends on its values and the seed alone, `[n]` uint64."""
    rng = np.random.default_rng(seed)
    odd = rng.integers(0, 2**63, rows.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    bits = (rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 is 0
    mixed = ((bits * odd) ^ (bits * odd >> np.uint64(29))).sum(1, dtype=np.uint64)
    return (mixed ^ (mixed >> np.uint64(31))) * odd[0]


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
