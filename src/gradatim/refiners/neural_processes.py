"""Neural processes: rows encoded one by one, and put together by a mean, or by each query's own attention.

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
"""The largest score so far where there was none: its exponential is 0, and differences of two are finite."""


def rows_of(step_input: StepInput) -> Batch:
    """Return the rows of a mini-batch.

    Raises:
        ValueError: a signal without observations.
    """
    if step_input.batch is None:
        raise ValueError("this refiner sees rows; got a signal without them: use PLAIN")
    return step_input.batch


class NeuralProcessState(NamedTuple):
    """`total [B, K, Wz]`, the sum of encoded rows; `rows [B]` seen."""

    total: Tensor
    rows: Tensor


class NeuralProcess(Refiner):
    """`z = 1/N sum_n h(x_n, y_n)`, h an mlp on the row's embedding; zeros before any row. A decoder reads z.

    A sum over rows goes on exactly from one mini-batch to the next, and states of shards add. Trained by `Unrolled`:
    under `Greedy` earlier rows would teach h nothing.

    Args: `latent_shape` (K, Wz) of z; `x_dim`, `y_dim`, `classes`: widths of the rows; `width` of h's hidden layers.

    Example:
        >>> f = Decoder(8, SquaredError(), tokens=16, token_width=32)
        >>> learner = Learner(f, NeuralProcess(f.latent_shape, 8, 1, None), PLAIN)

    Source: Garnelo et al. 2018, eqs. 2-4; their decoder is an mlp on [x, z], ours the one of explicit learners.
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
        """Return the sum of no rows."""
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
    """For every query and head: `values [B, Nq, H, V]`, the weighted sum of encoded rows, and the sum of their `weights
    [B, Nq, H]`, both as shares of the largest weight, whose log is `peak [B, Nq, H]`; the queries' `x [B, Nq, Dx]`;
    `rows [B]` seen."""

    values: Tensor
    weights: Tensor
    peak: Tensor
    x: Tensor
    rows: Tensor


def unattended(n_tasks: int, query: Batch | None, heads: int, width: int) -> AttentionState:
    """Return sums of no rows, for every query row.

    Raises:
        ValueError: no query, or one of other tasks.
    """
    x = checked_query(n_tasks, query)
    peak = x.new_full((*x.shape[:2], heads), LOWEST)
    values = x.new_zeros(*peak.shape, width)
    return AttentionState(values, torch.zeros_like(peak), peak, x, x.new_zeros(n_tasks))


def attended(state: AttentionState, scores: Tensor, values: Tensor, step_input: StepInput) -> AttentionState:
    """Return the sums with one more mini-batch; every one as a share of the largest weight so far.

    `scores [B, Nq, H, N]` of its rows, whose `values` are `[B, N, H, V]`.
    """
    batch, now = rows_of(step_input), step_input.rows.to(state.rows.dtype)
    present = batch.mask[:, None, None]
    scores = scores.masked_fill(~present, LOWEST)
    peak = torch.maximum(state.peak, scores.detach().amax(-1))
    weights = (scores - peak[..., None]).exp() * batch.weight[:, None, None]
    kept = (state.peak - peak).exp()
    summed = kept[..., None] * state.values + torch.einsum("bqhn,bnhv->bqhv", weights, values)
    return AttentionState(summed, kept * state.weights + weights.sum(-1), peak, state.x, state.rows + now)


class AttentiveProcess(Refiner):
    """`r(x) = sum_n softmax_n(<q(x), k(x_n)> / sqrt(V)) v(x_n, y_n)`, heads side by side; latent `mlp([x, out r(x)])`.

    The deterministic path. A query attends to all rows seen: numerator and denominator of its softmax are running sums,
    so mini-batches give what one pass over all rows gives, and no row is kept. Rows do not see each other. Keys start
    equal to queries: attention starts as a similarity. Trained by `Unrolled`, as `NeuralProcess`.

    Args: `x_dim`, `y_dim`, `classes`: widths of the rows; `width` of the latents, a `Readout`'s; `heads`.

    Raises:
        ValueError: heads that do not divide the width; in `init`, no query, or one of other tasks.

    Example:
        >>> f = Readout(SquaredError(), "latents", 64, x_dim=8)
        >>> learner = Learner(f, AttentiveProcess(8, 1, None), PLAIN)

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
        """Return sums of no rows, for every query row."""
        return unattended(n_tasks, query, self.heads, self.query.out_features // self.heads)

    def step(self, state: AttentionState, step_input: StepInput) -> AttentionState:
        """Return the sums with one more mini-batch; every one as a share of the largest weight so far."""
        batch = rows_of(step_input)
        asked = self._split(self.query(self.place(state.x)))
        keys = self._split(self.key(self.place(batch.x)))
        values = self._split(self.encode(self.embed(batch.x, batch.y)))
        scores = torch.einsum("bqhv,bnhv->bqhn", asked, keys) / keys.shape[-1] ** 0.5
        return attended(state, scores, values, step_input)

    def serves(self, state: AttentionState, x: Tensor) -> bool:
        """Return whether x are the queries of the state."""
        return torch.equal(state.x, x)

    def latent(self, state: AttentionState) -> Tensor:
        """Return the latent at every query row, `[B, Nq, width]`."""
        heard = state.values / positive(state.weights)[..., None]
        return self.decode(torch.cat([state.x, self.out(heard.flatten(-2))], dim=-1))

    def _split(self, tokens: Tensor) -> Tensor:
        """Return `[B, L, W]` as heads `[B, L, H, V]`."""
        return tokens.unflatten(-1, (self.heads, -1))
