"""h_phi or r_gamma: one small learned refinement of the state.

Source: Mittal et al. 2025, eqs. 7-8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from .tree import flatten, unflatten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .batch import Batch
    from .signal import StepInput

_NOT_ADDITIVE = "a row's part in them is not a sum that can be taken away: learn the remaining rows anew"

State = Any
"""A value: a tensor or a NamedTuple of tensors, tasks first; returned by a step, never mutated."""


@dataclass(frozen=True)
class Capabilities:
    """What a refiner's state can do. What it cannot do is refused with a sentence.

    Fields:
        `per_query`: the state belongs to its queries (implicit). It cannot be saved, merged or used for others.
        `merge`: states of disjoint rows combine.
        `forget`: rows that were learnt can be subtracted.
        `widen`: new classes can be added.
        `score`: a step is weighed by how well the state predicts its rows before they are learnt.
        `weights`: rows may have any weight, not only 0 or 1.
        `discounts`: old rows are discounted.
        `greedy`: every learnt part of the state is read in the step that writes it.
        `prefixes`: one pass returns the states of many prefix lengths.
        `bounded`: the state does not grow with the rows.
        `learnt`: the refiner has parameters to meta-train.

    Example:
        >>> from gradatim import LinearRegression, build
        >>> can = build("ridge", LinearRegression(3)).refiner.capabilities
        >>> can.merge, can.forget, can.learnt
        (True, True, False)
    """

    per_query: bool = False
    merge: bool = False
    forget: bool = False
    widen: bool = False
    score: bool = False
    weights: bool = False
    discounts: bool = False
    greedy: bool = True
    prefixes: bool = False
    bounded: bool = True
    learnt: bool = True


class Refiner(nn.Module, ABC):
    """`state_0 = init(tasks, query);  state_{t+1} = step(state_t, step_input_t);  theta_t = latent(state_t)`.

    A subclass defines these three methods, and sets these class attributes.

    Attributes:
        capabilities: what its states can do.
        needs_observations: whether its steps need the rows.
        needs_gradients: whether its steps need the gradient.
        needs_inputs: whether its steps need the inputs of the latent's weight matrices.
        keeps_rows: whether the state holds rows as they came, so that anyone who has the state can read them.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Refiner, StepInput
        >>> class Mean(Refiner):
        ...     needs_observations = True
        ...
        ...     def init(self, n_tasks, query=None):
        ...         return torch.zeros(n_tasks, 2)
        ...
        ...     def step(self, state, step_input):
        ...         return state + torch.stack([step_input.batch.y.sum((1, 2)), step_input.rows], dim=1)
        ...
        ...     def latent(self, state):
        ...         return state[:, :1] / state[:, 1:].clamp(min=1)
        >>> batch, mean = Batch(torch.ones(1, 3, 1), torch.tensor([[[1.0], [2.0], [6.0]]])), Mean()
        >>> mean.latent(mean.step(mean.init(n_tasks=1), StepInput(batch.rows, batch)))
        tensor([[3.]])
    """

    capabilities = Capabilities()
    needs_observations = False
    needs_gradients = False
    needs_inputs = False
    keeps_rows = False

    @abstractmethod
    def init(self, n_tasks: int, query: Batch | None = None) -> State:
        """Return the state of n_tasks tasks before any row is seen.

        A per-query refiner uses `query.x [n_tasks, Nq, *X]`, and never `query.y`.
        """

    @abstractmethod
    def step(self, state: State, step_input: StepInput) -> State:
        """Return the state after one more mini-batch. A task without rows in it keeps its state."""

    @abstractmethod
    def latent(self, state: State) -> Tensor:
        """Return the latent that predictions are made with, `[B, *latent_shape]`."""

    def merge(self, states: Sequence[State]) -> State:
        """Return one state of all rows that the states have seen, each its own.

        Raises:
            ValueError: states of this refiner do not combine.
        """
        why = (
            "its state is a prediction for its own queries"
            if self.capabilities.per_query
            else ("its steps depend on the order of rows")
        )
        raise ValueError(f"states of {type(self).__name__} do not merge: {why}")

    def forget(self, state: State, step_input: StepInput) -> State:
        """Return the state as if the rows of a mini-batch, learnt before, had never been learnt.

        Raises:
            ValueError: rows cannot be subtracted from states of this refiner.
        """
        raise ValueError(f"states of {type(self).__name__} do not forget rows: {_NOT_ADDITIVE}")

    def widen(self, state: State, place: Tensor) -> State:
        """Return the state of fewer classes as one of this refiner's: class c becomes class `place[c]`, `place [C]`.

        Raises:
            ValueError: states of this refiner have a fixed number of outputs.
        """
        raise ValueError(
            f"states of {type(self).__name__} have a fixed number of outputs: name all classes at the start"
        )

    def score(self, state: State, step_input: StepInput, learnt: bool = False) -> State:
        """Return the state weighed by how well it predicts the rows of a mini-batch, which are not learnt yet.

        With `learnt` the rows are among those learnt, and each is predicted as if it had been left out.

        Raises:
            ValueError: states of this refiner have nothing to weigh.
        """
        raise ValueError(f"states of {type(self).__name__} are not weighed by their predictions")

    def settle(self, state: State) -> State:
        """Return the state with the work done that steps have put off; it predicts and goes on the same."""
        return state

    def pack(self, state: State) -> tuple[State, dict[str, Tensor]]:
        """Return a state as tensors by name for a file, `[B, ...]` each, and the state to go on with.

        `unpack` returns that state, up to the rounding of what is packed.
        """
        state = self.settle(state)
        return state, flatten(state)

    def unpack(self, tensors: dict[str, Tensor]) -> State:
        """Return the state whose tensors `[B, ...]` `pack` returned.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        return unflatten(self.init(1), tensors)

    def serves(self, state: State, x: Tensor) -> bool:
        """Return whether the state can predict at x `[B, N, *X]`. A per-query state can at its own queries only."""
        return True

    def linearization_point(self, state: State) -> Tensor:
        """Return the latent `[B, *latent_shape]` at which the next signal is taken.

        Where predictions use an average of iterates, this is the last iterate.
        """
        return self.latent(state)
