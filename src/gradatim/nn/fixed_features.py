"""Fixed features of rows: nearness to landmarks, products of two inputs, steps and random ramps; nothing is learnt.

Source: Broomhead, Lowe 1988, eq. 3 (nearness to landmarks); Rahimi, Recht 2007 (random ramps).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

MOST = 900
"""Features in all: their second moments take 3.2 MB in a file."""

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


class Draws(NamedTuple):
    """What fixed features are made of, the arrays of a file.

    Fields: `landmarks [K, d]`; `reach [1]`, the squared distance at which nearness falls to 1/e; `pairs [2, P]` int64
    of inputs; `column [S]` int64 and `threshold [S]` of the steps; `direction [d, R]` and `bias [R]` of the ramps.
    """

    landmarks: Tensor
    reach: Tensor
    pairs: Tensor
    column: Tensor
    threshold: Tensor
    direction: Tensor
    bias: Tensor

    def packed(self) -> Draws:
        """Return the draws as a file holds them: landmarks and ramps are float32 numbers."""
        floats = {name: getattr(self, name).float() for name in ("landmarks", "direction", "bias")}
        return self._replace(**floats)

    def unpacked(self) -> Draws:
        """Return the draws that `packed` returned, float64."""
        return Draws(*(part.double() if part.is_floating_point() else part for part in self))

    def widened(self, place: Tensor, width: int) -> Draws:
        """Return the draws for rows of `width` inputs, where input j is at `place[j]`, `place [d]`, or gone (-1).

        Inputs that are new have the coordinate 0 in every landmark, and no ramp depends on them.
        """
        present = place >= 0
        landmarks = self.landmarks.new_zeros(len(self.landmarks), width)
        landmarks[:, place[present]] = self.landmarks[:, present]
        direction = self.direction.new_zeros(width, self.direction.shape[1])
        direction[place[present]] = self.direction[present]
        pairs = place[self.pairs]
        pairs = pairs[:, (pairs >= 0).all(0)]  # a product of an input that is gone was 0 for every row
        return self._replace(landmarks=landmarks, pairs=pairs, column=place[self.column], direction=direction)

    def without(self, inputs: Tensor) -> Draws:
        """Return the draws without products of some `inputs [m]`, and with ramps that do not depend on them.

        Of inputs that no row has used yet: which word takes a free code must not decide what is learnt of it.
        """
        direction = self.direction.clone()
        direction[inputs] = 0.0
        return self._replace(pairs=self.pairs[:, ~torch.isin(self.pairs, inputs).any(0)], direction=direction)


class FixedFeatures(nn.Module):
    """`phi(x) = [x, 1, near(x), x_i x_j / 2, 1[x_k > t] / 2, ramps(x)]`: five families, side by side.

    - `near_k(x) = s_k exp(-|x - c_k|^2 / reach)`, where s_k makes the mean square over the landmarks c_k 1.
    - `ramps(x) = max(0, x' W + b)`.

    Args:
        draws: the landmarks, pairs, thresholds and ramps.

    Attributes:
        blocks: the widths of the five families, x and 1 together first.
        draws: as given.

    Raises:
        ValueError: draws of different widths, or a step at a column that does not exist.

    Example:
        >>> import torch
        >>> from gradatim.nn.fixed_features import FixedFeatures
        >>> features = FixedFeatures.draw(torch.randn(16, 8), products=10, steps=[(0, 0.5)])
        >>> features.blocks, features(torch.randn(2, 3, 8)).shape
        ((9, 16, 10, 1, 0), torch.Size([2, 3, 36]))

    Source: Broomhead, Lowe 1988, eq. 3; Rahimi, Recht 2007.
    """

    slope: Tensor
    pairs: Tensor
    column: Tensor
    threshold: Tensor
    place: Tensor
    direction: Tensor
    bias: Tensor

    def __init__(self, draws: Draws) -> None:
        super().__init__()
        if draws.landmarks.dim() != 2 or not draws.landmarks.shape[1]:
            raise ValueError(
                f"fixed features need landmarks [K, x_dim]; got shape {tuple(draws.landmarks.shape)}"
            )
        self.x_dim = x_dim = draws.landmarks.shape[1]
        inputs = torch.cat([draws.pairs.flatten(), draws.column])
        if len(draws.direction) != x_dim or bool(((inputs < 0) | (inputs >= x_dim)).any()):
            raise ValueError(
                f"products, steps and ramps are of inputs 0 .. {x_dim - 1}; got inputs {inputs.tolist()[:8]}, "
                f"ramps of {len(draws.direction)} inputs"
            )
        self.draws, like = draws, draws.landmarks
        self._near(draws.landmarks.double(), float(draws.reach), like)
        self.register_buffer("pairs", draws.pairs)
        self._grid(draws.column.tolist(), draws.threshold.tolist(), like)
        self.register_buffer("direction", draws.direction.to(like))
        self.register_buffer("bias", draws.bias.to(like))
        self.blocks = (
            x_dim + 1,
            len(draws.landmarks),
            draws.pairs.shape[1],
            len(self.place),
            draws.direction.shape[1],
        )

    @classmethod
    def draw(
        cls,
        landmarks: Tensor,
        products: int = 0,
        steps: Sequence[tuple[int, float]] = (),
        spread: float = 1.0,
        seed: int = 0,
        ramps: int = 0,
        rows: Tensor | None = None,
    ) -> Self:
        """Return features of which pairs and ramps are drawn once.

        - Nearness reaches `spread v`, v the sum of the landmarks' variances.
        - Those pairs i <= j come first whose product varies over rows and is none of the two inputs.
        - Ramps are `max(0, W x / sqrt(v) + b)`, W standard normal, b of standard deviation 1/2.

        Args:
            landmarks: `[K, x_dim]`.
            products: how many products of two inputs.
            steps: (k, t) of every step feature.
            spread: how far nearness reaches.
            seed: of the draws.
            ramps: how many random ramps.
            rows: `[n, x_dim]`, over which products should vary (default: the landmarks).

        Raises:
            ValueError: a number of features below 0, landmarks of no width, spread <= 0.
        """
        if landmarks.dim() != 2 or not landmarks.shape[1] or min(products, ramps) < 0 or not spread > 0:
            raise ValueError(
                "fixed features need landmarks [K, x_dim], products and ramps >= 0, and spread > 0; got "
                f"{tuple(landmarks.shape)}, {products}, {ramps}, {spread}"
            )
        x_dim = landmarks.shape[1]
        variance = float(landmarks.double().var(0, correction=0).sum()) if len(landmarks) else 0.0
        size = variance or float(x_dim)
        generator = torch.Generator().manual_seed(seed)
        pairs = _pairs_of((landmarks if rows is None else rows).double(), products, generator)
        normal = torch.randn(x_dim + 1, ramps, generator=generator, dtype=torch.float64)
        column, threshold = zip(*steps, strict=True) if steps else ((), ())
        return cls(
            Draws(
                landmarks.clone(),
                torch.tensor([spread * size], dtype=torch.float64),
                pairs,
                torch.tensor(column, dtype=torch.int64),
                torch.tensor(threshold, dtype=torch.float64),
                (normal[:-1] / size**0.5).float().to(landmarks),  # float32 numbers: a file holds them as such
                (normal[-1] / 2).float().to(landmarks),
            )
        )

    def _near(self, c: Tensor, reach: float, like: Tensor) -> None:
        """Keep nearness to the landmarks as `exp([x, |x|^2, 1] slope)`: one product of matrices."""
        near = (-torch.cdist(c, c).square() / reach).exp()
        scale = near.square().mean(0).clamp(min=1e-12).rsqrt() if len(c) else c[:, 0]
        offset = scale.log() - c.square().sum(1) / reach
        slope = torch.cat([2 * c.mT / reach, -torch.ones_like(offset)[None] / reach, offset[None]])
        self.register_buffer("slope", slope.to(like))

    def _grid(self, columns: list[int], thresholds: list[float], like: Tensor) -> None:
        """Keep the thresholds as a row for each column, infinite where it has fewer, and the place of each step."""
        different = sorted(set(columns))
        rows: list[list[float]] = [[] for _ in different]
        places = []
        for column, threshold in zip(columns, thresholds, strict=True):
            row = different.index(column)
            places.append((row, len(rows[row])))
            rows[row].append(threshold)
        longest = max(map(len, rows), default=0)
        full = [[*row, *[torch.inf] * (longest - len(row))] for row in rows]
        self.register_buffer("column", torch.tensor(different, dtype=torch.int64))
        self.register_buffer(
            "threshold", torch.tensor(full, dtype=like.dtype).reshape(len(different), longest)
        )
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
        return self.scorer(theta)(x)

    def scorer(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Return what `scores` does of heads `[B, E, D, C]`, to be asked at many x."""
        heads = self._heads(theta.transpose(1, 2).flatten(2))
        return partial(self._scored, heads, (theta.shape[1], theta.shape[3]))

    def _scored(self, heads: _Heads, outputs: tuple[int, int], x: Tensor) -> Tensor:
        """Return the scores `[B, N, E, C]`, few rows at a time: they stay in the cache."""
        parts = [self._scores(rows, heads) for rows in x.split(_CACHED, dim=1)]
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)).unflatten(2, outputs)

    def _heads(self, theta: Tensor) -> _Heads:
        """Return H heads `[B, D, H]` by family, in the form that is fastest."""
        linear, near, products, steps, ramps = theta.split(self.blocks, dim=1)
        square, width = None, self.x_dim
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


def _pairs_of(rows: Tensor, limit: int, generator: torch.Generator) -> Tensor:
    """Return at most `limit` pairs i <= j of columns `[2, P]`, at random among those whose product says more than they.

    Others follow where these are too few. Two codes of one category never meet, a code of no row or its own square says
    nothing new.
    """
    if not limit:  # of very many columns there is no room for a list of all pairs
        return torch.empty(2, 0, dtype=torch.int64)
    i, j = pairs = torch.triu_indices(rows.shape[1], rows.shape[1])
    mean, square = rows.mT @ rows / len(rows), rows.square().mT @ rows.square() / len(rows)
    varies = square - mean.square() > 1e-9 * square
    varies.diagonal().logical_and_(~((rows == 0) | (rows == 1)).all(0))
    order = torch.randperm(len(i), generator=generator)
    return pairs[:, order[(~varies[i, j])[order].long().argsort(stable=True)[:limit]]]
