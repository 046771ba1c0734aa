"""An order of variables from sums over rows: learnt features of single cells, and their products of every two columns.

Source: this project's own. Hyvarinen, Smith 2013 order pairs by fixed moments of two columns; here they are learnt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.mlp import mlp
from ..nn.pairs import PairLayer
from ..refiner import Capabilities, Refiner
from ..tree import tree_map
from .statistics import remaining_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

UNITS = 32
"""Of the network that makes features of a cell."""

LEAST = 1e-4
"""The least variance of a feature that others are compared with."""


class PairSums(NamedTuple):
    """Sums over rows, each by its weight, in float64.

    Fields: `sums [B, d K]` of K features of each cell; `products [B, d K, d K]` of every two; `rows [B]`: how many.
    """

    sums: Tensor
    products: Tensor
    rows: Tensor


class PairRefiner(Refiner):
    """`score = network(moments)`, moments of learnt features u of single cells, and of every two columns.

        state = sum_n u_n,  sum_n u_n u_n',   u_n = (u(x_n1), ..., u(x_nd))
        R = correlations of u,  P = (R + a I)^-1 with a learnt, falling as 1 / sqrt(rows)
        pairs: R_ij, and the regression P_ii^-1 P_ij of one column's features on those of all others
        variables: means, R_ii, and P_ii^-1: what the others leave of column i

    Layers of `PairLayer` read them. States are additive: exact to merge and to forget, whatever the mini-batches. All
    variables share all weights, so columns in another order give scores in that order. No weight depends on d.

    Args:
        variables: d.
        keys: K, features of a cell. The last is the cell itself.
        width: of the vectors of pairs and variables.
        layers: how many.

    Raises:
        ValueError: sizes below 1; in a step, a signal without observations.

    Example:
        >>> from gradatim.refiners.pairs import PairRefiner
        >>> PairRefiner(variables=5, keys=4, width=16, layers=1).init(3).products.shape
        torch.Size([3, 20, 20])
    """

    needs_observations = True
    capabilities = Capabilities(merge=True, forget=True, weights=True, greedy=False)

    def __init__(self, variables: int, keys: int = 12, width: int = 48, layers: int = 3) -> None:
        super().__init__()
        if min(variables, keys, width, layers) < 1:
            raise ValueError(
                f"moments of pairs need sizes of at least 1; got variables {variables}, keys {keys}, width {width}, "
                f"layers {layers}"
            )
        self.variables, self.keys = variables, keys
        self.features = nn.Sequential(nn.Linear(1, UNITS), nn.Tanh(), nn.Linear(UNITS, keys))
        self.log_ridge = nn.Parameter(torch.tensor(-0.7))
        self.of_pairs = mlp(3 * keys**2, 2 * width, width)
        self.of_variables = mlp(keys + 2 * keys**2, 2 * width, width)
        self.layers = nn.ModuleList(PairLayer(width) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), mlp(width, width, 1))

    def init(self, n_tasks: int, query: Batch | None = None) -> PairSums:
        """Return the sums over no rows, of `n_tasks` tasks."""
        size = self.variables * self.keys
        sums = self.log_ridge.detach().double().new_zeros(n_tasks, size)
        return PairSums(sums, sums.new_zeros(n_tasks, size, size), sums.new_zeros(n_tasks))

    def step(self, state: PairSums, step_input: StepInput) -> PairSums:
        """Return the sums with one more mini-batch.

        Raises:
            ValueError: a signal without observations.
        """
        return tree_map(torch.add, state, self._sums(step_input))

    def merge(self, states: Sequence[PairSums]) -> PairSums:
        """Return the sums over all rows: exact."""
        return tree_map(lambda *parts: sum(parts[1:], parts[0]), *states)

    def forget(self, state: PairSums, step_input: StepInput) -> PairSums:
        """Return the sums without the rows of a mini-batch: exact.

        Raises:
            ValueError: more rows than the state has seen.
        """
        part = self._sums(step_input)
        return tree_map(torch.sub, state, part)._replace(rows=remaining_rows(state.rows, part.rows))

    def linearization_point(self, state: PairSums) -> Tensor:
        """Return zeros `[B, d, 1]`: rows are seen alike at any scores."""
        return self.log_ridge.new_zeros(len(state.rows), self.variables, 1)

    def latent(self, state: PairSums) -> Tensor:
        """Return the scores `[B, d, 1]`."""
        pairs, variables = self._moments(state)
        pairs, variables = self.of_pairs(pairs), self.of_variables(variables)
        for layer in self.layers:
            pairs, variables = layer(pairs, variables)
        return self.head(variables)

    def _sums(self, step_input: StepInput) -> PairSums:
        """Return the sums over the rows of a mini-batch."""
        batch = step_input.batch
        if batch is None:
            raise ValueError("moments are sums over rows; got a signal without observations: use PLAIN")
        cells = batch.x[..., None]
        u = torch.cat([self.features(cells)[..., :-1], cells], dim=-1).flatten(2)
        weighted = u * batch.weight[..., None]
        rows = batch.weight.double().sum(1)
        return PairSums(weighted.double().sum(1), (u.mT @ weighted).double(), rows)

    def _moments(self, state: PairSums) -> tuple[Tensor, Tensor]:
        """Return what is known of each pair `[B, d, d, 3 K K]` and of each variable `[B, d, K + 2 K K]`."""
        d, k = self.variables, self.keys
        rows = state.rows.clamp(min=1)[:, None]
        mean = state.sums / rows
        covariance = state.products / rows[..., None] - mean[:, :, None] * mean[:, None]
        deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=LEAST).sqrt()
        correlation = covariance / deviation[:, :, None] / deviation[:, None]
        like = self.log_ridge
        mean, correlation, rows = mean.to(like), correlation.to(like), rows.to(like)
        ridge = (like.exp() / rows.sqrt())[..., None] * torch.eye(d * k, dtype=like.dtype, device=like.device)
        precision = torch.linalg.inv(correlation + ridge)

        def blocks(matrix: Tensor) -> Tensor:
            return matrix.unflatten(2, (d, k)).unflatten(1, (d, k)).transpose(2, 3)

        here = torch.arange(d, device=like.device)
        related, inverse = blocks(correlation), blocks(precision)
        left = torch.linalg.inv(inverse[:, here, here])
        slopes = left[:, :, None] @ inverse
        both = torch.cat([part.flatten(3) for part in (related, slopes, slopes @ left[:, None])], dim=-1)
        apart = ~torch.eye(d, dtype=torch.bool, device=like.device)[None, :, :, None]
        alone = [mean.unflatten(1, (d, k)), related[:, here, here].flatten(2), 3 * left.flatten(2)]
        return both * apart, torch.cat(alone, dim=-1)
