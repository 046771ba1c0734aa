"""Predictor, refiner and signal in the one loop of the library.

Source: Mittal et al. 2025, eqs. 5-8: `f_gamma(x, g_phi(D))`, g a loop of small learned refinements.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Protocol

from torch import Size, Tensor, nn

from .tree import flatten, tree_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import torch

    from .batch import Batch, Task
    from .predictor import Predictor
    from .refiner import Refiner, State
    from .signal import Signal


class Episode(Protocol):
    """What a scheme is to the learner: a loss to meta-train on."""

    def loss(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the scalar loss of one episode: all its steps."""
        ...


class Learner(nn.Module):
    """`state_{t+1} = refiner.step(state_t, signal(predictor, refiner.linearization_point(state_t), batch_t))`.

    Args: `predictor` f_gamma; `refiner` h_phi or r_gamma; `signal`: what a step sees.

    Raises:
        ValueError: the refiner needs what the signal does not show.

    Example:
        >>> for state in learner.states(support.split(32)):
        ...     answer = learner.predict(query.x, state)
    """

    def __init__(self, predictor: Predictor, refiner: Refiner, signal: Signal) -> None:
        super().__init__()
        for need in ("observations", "gradients", "inputs"):
            if getattr(refiner, f"needs_{need}") and not getattr(signal, need):
                raise ValueError(
                    f"{type(refiner).__name__} needs {need}; got {signal}: choose another signal"
                )
        self.predictor, self.refiner, self.signal = predictor, refiner, signal

    def states(
        self,
        batches: Iterable[Batch],
        query: Batch | None = None,
        carry: Callable[[State], State] = lambda state: state,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[State]:
        """Yield state_0, state_1, ..., one more after each mini-batch.

        `query`: for a per-query (implicit) learner, the rows asked about. `carry` is what is handed from one step to
        the next (schemes detach there). With `lengths [P]`, each step yields a state for each of the first `lengths`
        rows, `[B * P, ...]`, and `carry` must choose one per task. `generator`: for losses that draw.

        Raises:
            ValueError: no mini-batch at all, or one that is not this learner's or of another number of tasks.
        """
        batches = iter(batches)
        first = next(batches, None)
        if first is None:
            raise ValueError("a learner needs at least one mini-batch; got none")
        if query is not None:
            self._check_dtype(query.x)
            self.predictor.check_x(query.x)
        state = self.refiner.init(first.n_tasks, query)
        yield state
        for batch in chain([first], batches):
            if batch.n_tasks != first.n_tasks:
                raise ValueError(
                    f"every mini-batch must be of the same {first.n_tasks} tasks; got one of {batch.n_tasks}"
                )
            self.check(batch)
            state = self.step(carry(state), batch, lengths, generator)
            yield state

    def check(self, batch: Batch) -> None:
        """Raise ValueError where a batch cannot be this learner's: unknown classes, other widths or another dtype."""
        self._check_dtype(batch.x, batch.y)
        self.predictor.check(batch)

    def _check_dtype(self, *rows: Tensor) -> None:
        parts = (part.dtype for part in chain(self.parameters(), self.buffers()) if part.is_floating_point())
        own = next(parts, rows[0].dtype)
        for part in rows:
            if part.is_floating_point() and part.dtype != own:
                raise ValueError(
                    f"this learner computes in {own}; got rows in {part.dtype}: convert the rows with "
                    f"batch.to({own}), or the learner with learner.to({part.dtype})"
                )

    def step(
        self,
        state: State,
        batch: Batch,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> State:
        """Return the state after one more mini-batch, or after each of its prefixes of `lengths [P]`."""
        if lengths is not None and not self.refiner.capabilities.prefixes:
            times = len(lengths)
            state = tree_map(lambda part: part.repeat_interleave(times, dim=0), state)
            batch, lengths = batch.prefixes(lengths), None
        latent = self.refiner.linearization_point(state)
        return self.refiner.step(state, self.signal(self.predictor, latent, batch, lengths, generator))

    def adapt(self, support: Batch, batch_size: int, query: Batch | None = None) -> State:
        """Return the state after one pass over the support in mini-batches of `batch_size` rows."""
        for state in self.states(support.split(batch_size), query):
            last = state
        return last

    def merge(self, states: Sequence[State]) -> State:
        """Return one state of what all the states have seen: adapt to shards apart, then combine.

        Every state must come from this learner. Exact where the state is additive; weighted by rows, or by
        precision, where it is not.

        Raises:
            ValueError: no state, states of different shapes, or a refiner whose states do not merge.

        Example:
            >>> state = learner.merge([learner.adapt(shard, 32) for shard in shards])
        """
        if not states:
            raise ValueError("merging needs at least one state; got none")
        like = flatten(self.refiner.init(1)) if self.refiner.capabilities.merge else {}
        shapes = [
            {name: _fixed(part, like.get(name)) for name, part in flatten(state).items()} for state in states
        ]
        for other in shapes[1:]:
            for name in shapes[0] | other:
                if shapes[0].get(name) != other.get(name):
                    raise ValueError(
                        f"merging needs states of one learner and as many tasks; {name} is "
                        f"{_shape(shapes[0], name)} in the first and {_shape(other, name)} in another"
                    )
        return self.refiner.merge(states)

    def predict(self, x: Tensor, state: State) -> Tensor:
        """Return outputs `[B, N, Do]` at x `[B, N, Dx]`.

        Raises:
            ValueError: x of another width or dtype, or, for an implicit learner, not the queries of the state.
        """
        self._check_dtype(x)
        self.predictor.check_x(x)
        if not self.refiner.serves(state, x):
            raise ValueError(
                "an implicit learner's state answers the queries it was made for; got other x: begin again with "
                "query=..., or use a parametric or explicit learner"
            )
        return self.predictor(x, self.refiner.latent(state))

    def loss(self, query: Batch, state: State, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean loss over the query rows of each task, `[B]`.

        Raises:
            ValueError: a query that is not this learner's.
        """
        self.check(query)
        return self.predictor.loss(query, self.refiner.latent(state), generator)

    def forward(self, scheme: Episode, task: Task, generator: torch.Generator) -> Tensor:
        """Return the loss of one whole episode, all steps included: one call, so that DDP and FSDP are correct."""
        return scheme.loss(self, task, generator)


def _fixed(part: Tensor, like: Tensor | None) -> Size:
    """Return a tensor's shape, with 0 for a width that grows with the rows seen: one that is 0 before any (`like`)."""
    if like is None or like.dim() != part.dim():
        return part.shape
    return Size(0 if none == 0 else width for width, none in zip(part.shape, like.shape, strict=True))


def _shape(shapes: dict[str, Size], name: str) -> str:
    return str(list(shapes[name])) if name in shapes else "missing"
