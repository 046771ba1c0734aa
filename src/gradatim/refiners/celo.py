"""Celo as a refiner: a published learned optimizer moves the weights of each task's network.

Source: Moudgil et al. 2025, algorithm 1; nothing is meta-trained here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..nn.celo import CeloRule, CeloState
from ..refiner import Capabilities, Refiner
from ..tree import where
from .optimizers import seen_gradient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..batch import Batch
    from ..signal import StepInput


class CeloLatent(NamedTuple):
    """Parameters and what Celo remembers of them.

    Fields: `theta [B, S]`; `memory`: see `CeloState`.
    """

    theta: Tensor
    memory: CeloState


class Celo(Refiner):
    """One step of Celo for each mini-batch, on the weight matrices and biases of a network as tensors of their own.

    Args:
        start: `[S]`, theta_0: weight matrices one after the other, a bias as their last column.
        shapes: (rows, width) of the matrices.
        bias: whether they have that column.
        weights: of Celo, by the names of the published file.
        total: how many mini-batches a task has. Celo's rates follow the share that is done.

    Raises:
        ValueError: as `CeloRule`; in a step, a signal without gradients.

    Source: Moudgil et al. 2025, algorithm 1.
    """

    capabilities = Capabilities(learnt=False, weights=True)
    needs_gradients = True
    start: Tensor
    place: Tensor

    def __init__(
        self,
        start: Tensor,
        shapes: Sequence[tuple[int, int]],
        bias: bool,
        weights: Mapping[str, Tensor],
        total: int,
    ) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        tensors: list[tuple[int, ...]] = []
        places, first = [], 0
        for rows, width in shapes:
            matrix = torch.arange(first, first + rows * width).view(rows, width)
            first += rows * width
            parts = [matrix[:, :-1], matrix[:, -1]] if bias else [matrix]
            places += [part.flatten() for part in parts]
            tensors += [tuple(part.shape) for part in parts]
        self.register_buffer("place", torch.cat(places))
        self.rule = CeloRule(weights, tensors, total)

    def init(self, n_tasks: int, query: Batch | None = None) -> CeloLatent:
        """Return theta_0 of `n_tasks` tasks, with nothing remembered."""
        return CeloLatent(self.start.expand(n_tasks, -1), self.rule.init(n_tasks))

    def step(self, state: CeloLatent, step_input: StepInput) -> CeloLatent:
        """Return the state after one step of Celo.

        Raises:
            ValueError: a signal without gradients.
        """
        gradient, seen = seen_gradient(step_input)
        loss = step_input.loss
        if loss is None:
            raise ValueError(
                "Celo needs the loss of a mini-batch; got a step input without it: use GRADIENTS"
            )
        theta, place = state.theta, self.place
        moved, memory = self.rule(state.memory, theta[:, place], gradient[:, place], loss)
        after = CeloLatent(torch.empty_like(theta).index_copy(1, place, moved), memory)
        return where(seen > 0, after, state)

    def latent(self, state: CeloLatent) -> Tensor:
        """Return theta `[B, S]`."""
        return state.theta
