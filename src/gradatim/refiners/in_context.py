"""r_gamma: a transformer in which the rows of a mini-batch refine the prediction of each query.

Source: Mittal et al. 2025, eq. 8: `yhat^(i+1) = r_gamma([x, yhat^(i)], B^(i))`; Vinyals et al. 2016, eqs. 1-2 (votes).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.attention import Transformer
from ..nn.sets import RowEmbedding, query_mask
from ..refiner import Capabilities, Refiner
from .gain import move
from .transformer_config import TransformerConfig

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput


SHARPNESS = 3.0
"""Attention starts as a sharp kernel between queries and rows. An implicit learner of digits then left the plateau
after 100 iterations; from the usual start it had learnt nothing after 200 (docs/lab-book.md)."""


class InContextState(NamedTuple):
    """The predictions of the query rows.

    Fields: `prediction [B, Nq, C]`; `x [B, Nq, Dx]` of the queries; `rows [B]`: how many were seen.
    """

    prediction: Tensor
    x: Tensor
    rows: Tensor


class Vote(nn.Module):
    """`v(x) = sum_n softmax_n(-t |M (x - x_n)|^2) y_n`: the mean answer of similar rows, y one-hot where it is a class.

    Attention over rows can learn this, but learns it late. M starts as an isometry.

    Args:
        x_dim: width of x.
        width: of M's image.
        classes: the number of classes, None where y is not one.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.refiners.in_context import Vote
        >>> rows = Batch(torch.randn(2, 5, 3), torch.zeros(2, 5, 1))
        >>> Vote(3, 8, None)(torch.randn(2, 4, 3), rows, torch.tensor([1, 5])).shape
        torch.Size([2, 2, 4, 1])
    """

    def __init__(self, x_dim: int, width: int, classes: int | None) -> None:
        super().__init__()
        self.classes = classes
        self.metric = nn.Linear(x_dim, width, bias=False)
        nn.init.orthogonal_(self.metric.weight)
        self.log_sharpness = nn.Parameter(torch.tensor(8.0 / x_dim).log())

    def forward(self, x: Tensor, batch: Batch, lengths: Tensor) -> Tensor:
        """Return v `[B, P, Nq, C]` at queries x `[B, Nq, Dx]`, from the first `lengths [P]` rows of the batch."""
        answers = F.one_hot(batch.y[..., 0], self.classes).to(x.dtype) if self.classes else batch.y
        queries, rows = self.metric(x), self.metric(batch.x)
        near = 2 * queries @ rows.mT - rows.square().sum(-1)[:, None]
        inside = torch.arange(batch.n_rows, device=x.device) < lengths.to(x.device)[:, None]
        absent = ~(batch.mask[:, None] & inside)[:, :, None]  # [B, P, 1, N]
        scores = (self.log_sharpness.exp() * near)[:, None].masked_fill(absent, -1e9)
        return scores.softmax(-1) @ answers[:, None]


class FlowVote(nn.Module):
    """The velocity of flow matching at queries x = [x_t, t], from the points of a mini-batch.

        v(x) = p + (t h^2 - (1 - t)) / c (x_t - t p),    c = t^2 h^2 + (1 - t)^2.

    Here p is a mean of the points p_n, of which the nearest count most:

        p = sum_n softmax_n(-|x_t - t p_n|^2 / 2 c) p_n,    p_n = x_n + (1 - t_n) y_n.

    It is the exact velocity of the flow to the kernel density estimate of the points p_n. The width h is meta-learnt.

    Args:
        width: where h starts.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.refiners.in_context import FlowVote
        >>> rows = Batch(torch.rand(2, 5, 3), torch.randn(2, 5, 2))
        >>> FlowVote()(torch.rand(2, 4, 3), rows, torch.tensor([5])).shape
        torch.Size([2, 1, 4, 2])

    Source: Lipman et al. 2023, eqs. 8 and 22; Rosenblatt 1956, eq. 1.3 (the density).
    """

    def __init__(self, width: float = 0.2) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.tensor(width).log())

    def forward(self, x: Tensor, batch: Batch, lengths: Tensor) -> Tensor:
        """Return v `[B, P, Nq, D]` at queries x `[B, Nq, D + 1]`, from the first `lengths [P]` rows of the batch."""
        scores, points = flow_scores(x, batch, self.log_width.exp())
        inside = torch.arange(batch.n_rows, device=x.device) < lengths.to(x.device)[:, None]
        absent = ~(batch.mask[:, None] & inside)[:, :, None]  # [B, P, 1, N]
        mean = scores[:, None].masked_fill(absent, -1e9).softmax(-1) @ points[:, None]
        return flow_velocity(x[:, None], mean, self.log_width.exp())


def flow_scores(x: Tensor, batch: Batch, width: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log weight of each row at each query, `[B, Nq, N]`, and the points p `[B, N, D]`.

    It is `-|x_t - t p_n|^2 / 2 c`, without terms that all n have in common.

    Args:
        x: `[B, Nq, D + 1]`, queries [x_t, t].
        batch: rows of flow matching, x `[B, N, D + 1]`.
        width: h, a scalar.
    """
    points = batch.x[..., :-1] + (1 - batch.x[..., -1:]) * batch.y
    place, t = x[..., :-1], x[..., -1:]
    near = t * place @ points.mT - t.square() / 2 * points.square().sum(-1)[:, None]
    return near / _spread(t, width), points


def flow_velocity(x: Tensor, mean: Tensor, width: Tensor) -> Tensor:
    """Return the velocity `p + (t h^2 - (1 - t)) / c (x_t - t p)`, `[..., D]`.

    Args:
        x: `[..., D + 1]`, queries [x_t, t].
        mean: `[..., D]`, the mean p of the points there.
        width: h, a scalar.
    """
    place, t = x[..., :-1], x[..., -1:]
    slope = (t * width.square() - (1 - t)) / _spread(t, width)
    return mean + slope * (place - t * mean)


def _spread(t: Tensor, width: Tensor) -> Tensor:
    """Return `c = t^2 h^2 + (1 - t)^2`, the variance of x_t around t p, for a point p."""
    return t.square() * width.square() + (1 - t).square()


def checked_query(n_tasks: int, query: Batch | None) -> Tensor:
    """Return the x `[B, Nq, Dx]` of the queries that a per-query state will belong to.

    Raises:
        ValueError: no query, or one of other tasks.
    """
    if query is None:
        raise ValueError(
            "an implicit learner refines the answers to given queries; got no query: pass query=..., "
            "or use a parametric or explicit learner for a state that serves any query"
        )
    if query.n_tasks != n_tasks:
        raise ValueError(
            f"the query must be of the same {n_tasks} tasks as the mini-batches; got {query.n_tasks}"
        )
    return query.x


class InContextRefiner(Refiner):
    """`s_{t+1} = s_t + g_t * head(transformer([x, s_t, vote(x, rows)], rows))`; queries never see each other.

    Args:
        config: size, gain and `prefixes`, as for `TransformerRefiner`.
        state_width: C, the width of s.
        x_dim: width of x.
        y_dim: width of y.
        classes: the number of classes, None where y is not one.
        simplex: whether s are probabilities; a step then moves towards a softmax.
        flow: whether rows are those of flow matching, which vote by `FlowVote`. Where s is the velocity itself, a step
            moves towards that vote + head(...).

    Raises:
        ValueError: a config with `tail`, `curvature` or `history`; in `init`, no query, or one of other tasks; in a
            step, a signal without observations.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Readout, SquaredError
        >>> from gradatim.refiners import InContextRefiner, TransformerConfig
        >>> from gradatim.signal import PLAIN
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> refiner = InContextRefiner(TransformerConfig(width=16), 1, x_dim=3, y_dim=1, classes=None)
        >>> learner = Learner(Readout(SquaredError(1), x_dim=3), refiner, PLAIN)
        >>> learner.adapt(task.support, 32, task.query).prediction.shape
        torch.Size([2, 64, 1])

    Source: Mittal et al. 2025, eq. 8.
    """

    needs_observations = True

    def __init__(
        self,
        config: TransformerConfig,
        state_width: int,
        x_dim: int,
        y_dim: int,
        classes: int | None,
        simplex: bool = False,
        flow: bool = False,
    ) -> None:
        super().__init__()
        if config.tail is not None:
            raise ValueError("an implicit state keeps no tail average; got tail in the config: leave it out")
        if config.curvature is not None:
            raise ValueError("an implicit state has no curvature; got curvature in the config: leave it out")
        if config.history:
            raise ValueError("an implicit state has no history; got history in the config: leave it out")
        self.config, self.simplex = config, simplex
        self.follows = flow and state_width == y_dim
        self.capabilities = Capabilities(per_query=True, prefixes=config.prefixes)
        self.start = nn.Parameter(torch.zeros(state_width))
        self.rows = RowEmbedding(x_dim, y_dim, classes, config.width)
        self.state = nn.Linear(state_width, config.width)
        self.count = nn.Linear(1, config.width, bias=False)
        self.transformer = Transformer(config.width, config.layers, config.heads, SHARPNESS)
        self.head = nn.Linear(config.width, state_width)
        self.vote = FlowVote() if flow else Vote(x_dim, config.width, classes)
        self.heard = nn.Linear(classes or y_dim, config.width, bias=False)

    def init(self, n_tasks: int, query: Batch | None = None) -> InContextState:
        """Return the learnt marginal prediction at every query row.

        Raises:
            ValueError: no query, to which this state would belong, or one of other tasks.
        """
        x = checked_query(n_tasks, query)
        start = self.start.softmax(-1) if self.simplex else self.start
        prediction = start.expand(n_tasks, x.shape[1], -1)
        return InContextState(prediction, x, prediction.new_zeros(n_tasks))

    def step(self, state: InContextState, step_input: StepInput) -> InContextState:
        """Return the state refined by one mini-batch; with lengths, one for each prefix, `[B * P, ...]`.

        Raises:
            ValueError: a signal without observations.
        """
        batch, lengths = step_input.batch, step_input.lengths
        if batch is None:
            raise ValueError("an implicit learner refines by observations; got a signal without them")
        if lengths is None:
            lengths = torch.tensor([batch.n_rows])
        n_tasks, queries, times = batch.n_tasks, state.x.shape[1], len(lengths)
        now = step_input.rows.to(state.rows.dtype)
        count = self.count(torch.log1p(now).reshape(n_tasks, times, 1, 1))
        queried = self.rows.x(state.x) + self.state(state.prediction)
        vote = self.vote(state.x, batch, lengths)
        queried = (queried[:, None] + self.heard(vote) + count).reshape(n_tasks, times * queries, -1)
        tokens = torch.cat([self.rows(batch.x, batch.y), queried], dim=1)
        visible = query_mask(batch.mask, lengths, queries, mixing=not self.config.prefixes)
        refined = self.transformer(tokens, visible, slice(batch.n_rows, None))
        refined = refined.reshape(n_tasks * times, queries, -1)
        prediction, x, before = (part.repeat_interleave(times, dim=0) for part in state)
        origin = vote.flatten(0, 1) if self.follows else prediction
        target = self.head(refined).softmax(-1) if self.simplex else origin + self.head(refined)
        return InContextState(move(prediction, target, self.config.gain(now, before)), x, before + now)

    def serves(self, state: InContextState, x: Tensor) -> bool:
        """Return whether x `[B, Nq, Dx]` are the queries of the state."""
        return torch.equal(state.x, x)

    def latent(self, state: InContextState) -> Tensor:
        """Return the prediction's state at every query row, `[B, Nq, C]`."""
        return state.prediction
