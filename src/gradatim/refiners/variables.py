"""h_phi for tasks about columns: a token for each variable, refined by attention over rows and variables in turn.

Source: Lorch et al. 2022 (AVICI), section 4.2; Mittal et al. 2025, eq. 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..nn.columns import ColumnLayer
from ..nn.mlp import mlp
from ..refiner import Capabilities, Refiner
from .gain import LearntGain, move

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput
    from .transformer_config import TransformerConfig


class VariableState(NamedTuple):
    """Tokens of variables.

    Fields: `latent [B, d, S]`: a token for each variable; `rows [B]`: how many were seen.
    """

    latent: Tensor
    rows: Tensor


class VariableRefiner(Refiner):
    """`z_{t+1} = z_t + g_t * head(tokens)`, g_t the gain, tokens and cells refined by layers of attention in turn.

        token_i = A z_i + count(N)
        cell_ni = value(x_ni)
        cells, tokens = layer(cells, tokens)

    A layer is a `ColumnLayer`. Every variable has the same weights and the same start, so columns in another order give
    tokens in that order. No weight depends on d, and y is not used.

    Args:
        config: width, layers (of both kinds of attention), heads and gain.
        variables: d.
        width: S of a token.

    Raises:
        ValueError: fields of `config` that have no effect here, or sizes below 1; in a step, a signal without
            observations.

    Example:
        >>> from gradatim.refiners import TransformerConfig, VariableRefiner
        >>> refiner = VariableRefiner(TransformerConfig(), variables=10, width=32)
        >>> refiner.init(4).latent.shape
        torch.Size([4, 10, 32])
    """

    needs_observations = True

    def __init__(self, config: TransformerConfig, variables: int, width: int) -> None:
        super().__init__()
        for name in ("tail", "curvature"):
            if getattr(config, name) is not None:
                raise ValueError(f"tokens of variables have no {name}; got it in the config: leave it out")
        for name in ("prefixes", "precision", "memory", "history"):
            if getattr(config, name):
                raise ValueError(f"tokens of variables have no {name}; got it in the config: leave it out")
        if min(config.layers, variables, width) < 1:
            raise ValueError(
                f"tokens of variables need sizes of at least 1; got layers {config.layers}, variables {variables}, "
                f"width {width}"
            )
        self.variables, self.capabilities = variables, Capabilities()
        self.gain = LearntGain(config.gain, (1, width)) if config.gain.learnt else config.gain
        self.start = nn.Parameter(torch.zeros(width))
        self.value = mlp(1, config.width, config.width)
        self.state = nn.Linear(width, config.width)
        self.count = nn.Linear(1, config.width, bias=False)
        self.layers = nn.ModuleList(ColumnLayer(config.width, config.heads) for _ in range(config.layers))
        self.head = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, width))

    def init(self, n_tasks: int, query: Batch | None = None) -> VariableState:
        """Return the learnt start, the same for every variable, for n_tasks tasks that have seen no row."""
        latent = self.start.expand(n_tasks, self.variables, -1)
        return VariableState(latent, latent.new_zeros(n_tasks))

    def step(self, state: VariableState, step_input: StepInput) -> VariableState:
        """Return the state refined by one mini-batch.

        Raises:
            ValueError: a signal without observations.
        """
        batch = step_input.batch
        if batch is None:
            raise ValueError("tokens of variables are refined by rows; got a signal without observations")
        now = step_input.rows.to(state.rows.dtype)
        tokens = self.state(state.latent) + self.count(torch.log1p(now)[:, None, None])
        cells = self.value(batch.x[..., None])
        for layer in self.layers:
            cells, tokens = layer(cells, tokens, batch.mask)
        target = state.latent + self.head(tokens)
        return VariableState(move(state.latent, target, self.gain(now, state.rows)), state.rows + now)

    def latent(self, state: VariableState) -> Tensor:
        """Return the tokens `[B, d, S]`."""
        return state.latent
