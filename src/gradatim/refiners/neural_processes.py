"""Neural processes: rows are encoded one by one, and combined by a mean or by the attention of each query.

Source: Garnelo et al. 2018 (conditional neural processes), eqs. 2-4; Kim et al. 2019 (attentive neural processes),
section 3; the running softmax: Milakov, Gimelshein 2018, algorithm 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.mlp import mlp
from ..nn.sets import RowEmbedding
from ..refiner import Capabilities, Refiner
from .gain import positive
from .in_context import checked_query
from .statistics import remaining_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

LOWEST = -1e30
"""The largest score of no rows: its exponential is 0, and a difference of two is finite."""


def rows_of(step_input: StepInput) -> Batch:
    """Return the rows of a mini-batch, `[B, N, ...]`.

    Raises:
        ValueError: a signal without observations.
    """
    if step_input.batch is None:
        raise ValueError("this refiner sees rows; got a signal without them: use PLAIN")
    return step_input.batch


class NeuralProcessState(NamedTuple):
    """The sum of encoded rows.

    Fields: `total [B, K, Wz]`; `rows [B]`: how many were seen.
    """

    total: Tensor
    rows: Tensor


class NeuralProcess(Refiner):
    """`z = 1/N sum_n h(x_n, y_n)`, h an mlp on the row's embedding; zeros before any row. A decoder reads z.

    A sum over rows is continued exactly from one mini-batch to the next, states of shards add, and rows can be
    subtracted. It is trained by `Unrolled`, because under `Greedy` earlier rows would teach h nothing.

    Args:
        latent_shape: (K, Wz) of z.
        x_dim: width of x.
        y_dim: width of y.
        classes: the number of classes, None where y is not one.
        width: of h's hidden layers.

    Raises:
        ValueError: in a step, a signal without observations.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Decoder, SquaredError
        >>> from gradatim.refiners import NeuralProcess
        >>> from gradatim.signal import PLAIN
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Decoder(3, SquaredError(), tokens=4, token_width=8)
        >>> learner = Learner(f, NeuralProcess(f.latent_shape, 3, 1, None), PLAIN)
        >>> learner.refiner.latent(learner.adapt(task.support, 32)).shape
        torch.Size([2, 4, 8])

    Source: Garnelo et al. 2018, eqs. 2-4. Their decoder is an mlp on [x, z], ours that of explicit learners.
    """

    capabilities = Capabilities(merge=True, forget=True, weights=True, greedy=False)
    needs_observations = True

    def __init__(
        self, latent_shape: tuple[int, ...], x_dim: int, y_dim: int, classes: int | None, width: int = 64
    ) -> None:
        super().__init__()
        self.latent_shape = tuple(latent_shape)
        self.embed = RowEmbedding(x_dim, y_dim, classes, width)
        self.encode = mlp(width, width, width, torch.Size(latent_shape).numel())

    def init(self, n_tasks: int, query: Batch | None = None) -> NeuralProcessState:
        """Return the sum of no rows, of `n_tasks` tasks."""
        like = self.embed.x.weight
        return NeuralProcessState(like.new_zeros(n_tasks, *self.latent_shape), like.new_zeros(n_tasks))

    def step(self, state: NeuralProcessState, step_input: StepInput) -> NeuralProcessState:
        """Return the sum with one more mini-batch."""
        total = state.total + self._sum(step_input).to(state.total.dtype)
        return NeuralProcessState(total, state.rows + step_input.rows.to(state.rows.dtype))

    def forget(self, state: NeuralProcessState, step_input: StepInput) -> NeuralProcessState:
        """Return the sum without the rows of a mini-batch: exact.

        Raises:
            ValueError: more rows than the state has seen.
        """
        rows = remaining_rows(state.rows, step_input.rows)
        return NeuralProcessState(state.total - self._sum(step_input).to(state.total.dtype), rows)

    def latent(self, state: NeuralProcessState) -> Tensor:
        """Return the mean z `[B, K, Wz]`."""
        count = positive(state.rows)
        return state.total / count.reshape(-1, *[1] * len(self.latent_shape))

    def _sum(self, step_input: StepInput) -> Tensor:
        """Return the sum of the encoded rows of a mini-batch, `[B, K, Wz]`."""
        batch = rows_of(step_input)
        encoded = self.encode(self.embed(batch.x, batch.y)) * batch.weight[..., None]
        return encoded.sum(1).unflatten(1, self.latent_shape)

    def merge(self, states: Sequence[NeuralProcessState]) -> NeuralProcessState:
        """Return the sum over all rows: exact."""
        total, rows = (torch.stack(parts).sum(0) for parts in zip(*states, strict=True))
        return NeuralProcessState(total, rows)


class AttentionState(NamedTuple):
    """Running sums of a softmax over rows, for every query and head, as multiples of its largest term.

    Fields: `values [B, Nq, H, V]`: the weighted sum of encoded rows. `weights [B, Nq, H]`: the sum of their weights.
    `peak [B, Nq, H]`: the log of the largest term. `x [B, Nq, Dx]` of the queries. `rows [B]`: how many were seen.
    """

    values: Tensor
    weights: Tensor
    peak: Tensor
    x: Tensor
    rows: Tensor


def unattended(n_tasks: int, query: Batch | None, heads: int, width: int) -> AttentionState:
    """Return sums of no rows, for every query row.

    Args:
        n_tasks: B.
        query: its x `[B, Nq, Dx]` are the queries.
        heads: H.
        width: V of the values.

    Raises:
        ValueError: no query, or one of other tasks.
    """
    x = checked_query(n_tasks, query)
    peak = x.new_full((*x.shape[:2], heads), LOWEST)
    values = x.new_zeros(*peak.shape, width)
    return AttentionState(values, torch.zeros_like(peak), peak, x, x.new_zeros(n_tasks))


def attended(state: AttentionState, scores: Tensor, values: Tensor, step_input: StepInput) -> AttentionState:
    """Return the sums with one more mini-batch, as multiples of the largest term so far.

    Args:
        state: sums `[B, Nq, H, ...]`.
        scores: `[B, Nq, H, N]`, the logs of the rows' terms.
        values: `[B, N, H, V]`.
        step_input: the mini-batch, whose rows count by their weight.

    Raises:
        ValueError: a signal without observations.

    Source: Milakov, Gimelshein 2018, algorithm 3.
    """
    batch, now = rows_of(step_input), step_input.rows.to(state.rows.dtype)
    present = batch.mask[:, None, None]
    scores = scores.masked_fill(~present, LOWEST)
    peak = torch.maximum(state.peak, scores.detach().amax(-1))
    weights = (scores - peak[..., None]).exp() * batch.weight[:, None, None]
    scale = (state.peak - peak).exp()
    summed = scale[..., None] * state.values + torch.einsum("bqhn,bnhv->bqhv", weights, values)
    return AttentionState(summed, scale * state.weights + weights.sum(-1), peak, state.x, state.rows + now)


class AttentiveProcess(Refiner):
    """`r(x) = sum_n softmax_n(<q(x), k(x_n)> / sqrt(V)) v(x_n, y_n)`, heads side by side; latent `mlp([x, out r(x)])`.

    This is the deterministic path of attentive neural processes. A query attends to all rows seen. Numerator and
    denominator of its softmax are running sums, so mini-batches give the same as one pass over all rows, and no row is
    stored. Rows do not see each other. Keys start equal to queries, so attention starts as a similarity. It is trained
    by `Unrolled`, as `NeuralProcess`.

    Args:
        x_dim: width of x.
        y_dim: width of y.
        classes: the number of classes, None where y is not one.
        width: of the latents, which a `Readout` reads.
        heads: of the attention.

    Raises:
        ValueError: heads that do not divide the width; in `init`, no query, or one of other tasks.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Readout, SquaredError
        >>> from gradatim.refiners import AttentiveProcess
        >>> from gradatim.signal import PLAIN
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> f = Readout(SquaredError(), "latents", 16, x_dim=3)
        >>> learner = Learner(f, AttentiveProcess(3, 1, None, width=16), PLAIN)
        >>> state = learner.adapt(task.support, 32, task.query)
        >>> learner.predict(task.query.x, state).shape
        torch.Size([2, 64, 1])

    Source: Kim et al. 2019, section 3 and figure 2.
    """

    capabilities = Capabilities(per_query=True, weights=True, greedy=False)
    needs_observations = True

    def __init__(self, x_dim: int, y_dim: int, classes: int | None, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        if min(width, heads) < 1 or width % heads:
            raise ValueError(
                f"attention needs width, heads >= 1 and heads that divide the width; got width {width}, heads {heads}"
            )
        self.heads = heads
        self.place = mlp(x_dim, width, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.key.load_state_dict(self.query.state_dict())
        self.embed = RowEmbedding(x_dim, y_dim, classes, width)
        self.encode = mlp(width, width, width)
        self.out = nn.Linear(width, width)
        self.decode = mlp(x_dim + width, width, width)

    def init(self, n_tasks: int, query: Batch | None = None) -> AttentionState:
        """Return sums of no rows, for every query row of `query.x [n_tasks, Nq, Dx]`."""
        return unattended(n_tasks, query, self.heads, self.query.out_features // self.heads)

    def step(self, state: AttentionState, step_input: StepInput) -> AttentionState:
        """Return the sums with one more mini-batch, as multiples of the largest term so far."""
        batch = rows_of(step_input)
        queries = self._split(self.query(self.place(state.x)))
        keys = self._split(self.key(self.place(batch.x)))
        values = self._split(self.encode(self.embed(batch.x, batch.y)))
        scores = torch.einsum("bqhv,bnhv->bqhn", queries, keys) / keys.shape[-1] ** 0.5
        return attended(state, scores, values, step_input)

    def serves(self, state: AttentionState, x: Tensor) -> bool:
        """Return whether x `[B, Nq, Dx]` are the queries of the state."""
        return torch.equal(state.x, x)

    def latent(self, state: AttentionState) -> Tensor:
        """Return the latent at every query row, `[B, Nq, width]`."""
        attended_values = state.values / positive(state.weights)[..., None]
        return self.decode(torch.cat([state.x, self.out(attended_values.flatten(-2))], dim=-1))

    def _split(self, tokens: Tensor) -> Tensor:
        """Return `[B, L, W]` as heads `[B, L, H, V]`."""
        return tokens.unflatten(-1, (self.heads, -1))
