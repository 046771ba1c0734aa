"""Predictor, refiner and signal in the one loop of the library.

Source: Mittal et al. 2025, eqs. 5-8: `f_gamma(x, g_phi(D))`, g a loop of small learned refinements.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batch import Batch, check_batch, check_count
from .tree import check_mergeable, check_state, concatenate, detach, flatten, ordinary, select, tree_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .predictor import Predictor
    from .refiner import Refiner, State
    from .signal import Signal, StepInput

FEWER = 0.5
"""Tasks whose rows have ended are set aside once at most this share of tasks has rows. Moving states has a price."""


class Learner(nn.Module):
    """`state_{t+1} = refiner.step(state_t, signal(predictor, refiner.linearization_point(state_t), batch_t))`.

    `learner(x, state)` predicts. Adapting builds no autograd graph unless `differentiable` is True.

    Args:
        predictor: f_gamma.
        refiner: h_phi or r_gamma.
        signal: what a step sees of a mini-batch.

    Raises:
        ValueError: the refiner needs what the signal does not show.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> family = LinearRegression(8, noise_std=0.5)
        >>> task = family.sample(4, torch.Generator().manual_seed(0))
        >>> learner = build("ridge", family)
        >>> for state in learner.states(task.support.split(32)):
        ...     prediction = learner(task.query.x, state)
        >>> prediction.shape
        torch.Size([4, 64, 1])
    """

    def __init__(self, predictor: Predictor, refiner: Refiner, signal: Signal) -> None:
        super().__init__()
        for need in ("observations", "gradients", "inputs"):
            if getattr(refiner, f"needs_{need}") and not getattr(signal, need):
                raise ValueError(
                    f"{type(refiner).__name__} needs {need}; got {signal}: choose another signal"
                )
        self.predictor, self.refiner, self.signal = predictor, refiner, signal

    def init(self, n_tasks: int = 1, query: Batch | None = None, differentiable: bool = False) -> State:
        """Return the state of `n_tasks` tasks before any row is seen.

        `query`: for a per-query (implicit) learner, the rows that will be predicted, x `[n_tasks, Nq, *X]`.
        `differentiable`: keep the graph of a learnt start.

        Raises:
            ValueError: n_tasks below 1, a query of another width or dtype.
        """
        check_count("n_tasks", n_tasks)
        if query is not None:
            check_batch(query)
            self._check_dtype(query.x)
            self.predictor.check_x(query.x)
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            state = self.refiner.init(n_tasks, query)
        # a view of a learnt start requires a gradient even where none is recorded
        return state if differentiable else detach(state)

    def states(
        self,
        batches: Iterable[Batch],
        query: Batch | None = None,
        carry: Callable[[State], State] = lambda state: state,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        differentiable: bool = False,
    ) -> Iterator[State]:
        """Yield state_0, state_1, ..., one more after each mini-batch.

        Args:
            batches: the mini-batches of B tasks, x `[B, N, *X]` each.
            query: for a per-query (implicit) learner, the rows that will be predicted, x `[B, Nq, *X]`.
            carry: maps a state to the one that the next step starts from. Schemes detach there.
            lengths: prefix lengths `[P]`. A step then yields states `[B * P, ...]`, one for each prefix of each task,
                and `carry` must choose one per task.
            generator: for losses that draw random numbers.
            differentiable: keep the graph of all steps, for meta-training. Memory then grows with the steps.

        Raises:
            ValueError: no mini-batch at all, one that does not fit this learner, or one of another number of tasks.
        """
        if isinstance(batches, Batch) or not hasattr(batches, "__iter__"):
            raise ValueError(
                f"mini-batches must come one by one; got one {type(batches).__name__}: give "
                "support.split(batch_size)"
            )
        batches = iter(batches)
        first = next(batches, _NONE)
        if first is _NONE:
            raise ValueError("a learner needs at least one mini-batch; got none")
        check_batch(first)
        state = self.init(first.n_tasks, query, differentiable)
        yield state
        for batch in chain([first], batches):
            self.check(batch)
            if batch.n_tasks != first.n_tasks:
                raise ValueError(
                    f"every mini-batch must be of the same {first.n_tasks} tasks; got one of {batch.n_tasks}"
                )
            state = self.step(carry(state), batch, lengths, generator, differentiable)
            yield state

    def check(self, batch: Batch) -> None:
        """Check that a batch fits this learner.

        Raises:
            ValueError: no batch, unknown classes, other widths or another dtype, or weights if the refiner counts
                every row once.
        """
        check_batch(batch)
        self._check_dtype(batch.x, batch.y)
        self.predictor.check(batch)
        if batch.is_weighted and not self.refiner.capabilities.weights:
            raise ValueError(
                f"{type(self.refiner).__name__} counts every row once: weights must be 0 or 1; repeat rows, or use "
                "a learner such as 'ridge' or 'bayesian'"
            )

    def _check_dtype(self, *rows: Tensor) -> None:
        parts = (part.dtype for part in chain(self.parameters(), self.buffers()) if part.is_floating_point())
        dtype = next(parts, rows[0].dtype)
        for part in rows:
            if part.is_floating_point() and part.dtype != dtype:
                raise ValueError(
                    f"this learner computes in {dtype}; got rows in {part.dtype}: convert the rows with "
                    f"batch.to({dtype}), or the learner with learner.to({part.dtype})"
                )

    def learn(
        self, state: State, batch: Batch, generator: torch.Generator | None = None, predict: bool = True
    ) -> tuple[Any, State]:
        """Return the prediction `[B, N, Do]` of a mini-batch's rows before they are learnt, and the state after.

        With `predict=False` no prediction is computed, and None is returned in its place.

        Raises:
            ValueError: as `check` and `predict`.

        Example:
            >>> import torch
            >>> from gradatim import LinearRegression, build
            >>> family = LinearRegression(8, noise_std=0.5)
            >>> learner = build("ridge", family)
            >>> state = learner.init(n_tasks=4)
            >>> for batch in family.sample(4, torch.Generator().manual_seed(0)).support.split(32):
            ...     prediction, state = learner.learn(state, batch)
        """
        self.check(batch)
        check_state(state)
        with torch.no_grad():
            state = self.refiner.settle(state) if predict else state
            prediction = self.predict(batch.x, state) if predict else None
        return prediction, self.step(state, batch, generator=generator)

    def step(
        self,
        state: State,
        batch: Batch,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
        differentiable: bool = False,
    ) -> State:
        """Return the state after one more mini-batch, or after each of its prefixes.

        A refiner that weighs by predictions scores the rows before it learns them. Tasks without a row in the
        mini-batch keep their state.

        `batch`: x `[B, N, *X]`. `lengths`, `generator` and `differentiable`: as in `states`.

        Raises:
            ValueError: rows that are no batch, a state that is none.
        """
        check_batch(batch)
        check_state(state)
        if torch.is_inference_mode_enabled():
            # Gradients of the rows' loss cannot be taken in inference mode: step outside, on ordinary tensors.
            with torch.inference_mode(False), torch.no_grad():
                state, batch = tree_map(ordinary, state), batch._map(ordinary)
                return self._step(state, batch, lengths, generator)
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return self._step(state, batch, lengths, generator)

    def _step(
        self, state: State, batch: Batch, lengths: Tensor | None, generator: torch.Generator | None
    ) -> State:
        if lengths is not None and not self.refiner.capabilities.prefixes:
            times = len(lengths)
            state = tree_map(lambda part: part.repeat_interleave(times, dim=0), state)
            batch, lengths = batch.prefixes(lengths), None
        step_input = self._seen(state, batch, lengths, generator)
        if self.refiner.capabilities.score:
            state = self.refiner.score(state, step_input)
        return self.refiner.step(state, step_input)

    def _seen(
        self,
        state: State,
        batch: Batch,
        lengths: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> StepInput:
        """Return what a step sees of a mini-batch, through the signal."""
        return self.signal(self.predictor, self.refiner.linearization_point(state), batch, lengths, generator)

    @torch.no_grad()
    def adapt(self, support: Batch, batch_size: int, query: Batch | None = None) -> State:
        """Return the state after one pass over the support `[B, N, ...]` in mini-batches of `batch_size` rows.

        Tasks whose rows have ended are set aside, so that a few long tasks cost no more beside many short ones.

        `query`: as in `states`.

        Raises:
            ValueError: a support or query that does not fit this learner, a batch_size below 1.
        """
        check_batch(support)
        state = self.init(support.n_tasks, query)
        active = torch.arange(support.n_tasks, device=support.x.device)
        ended: list[tuple[Tensor, State]] = []
        counts = torch.arange(1, support.n_rows + 1, dtype=torch.int32, device=support.x.device)
        last = support.mask.int().mul(counts).amax(1)
        # sorted on the host: a device is asked once, not at every step
        ends, shapes = sorted(last.tolist()), _shapes(state)
        for start in support.starts(batch_size):
            few_active = ends and sum(end > start for end in ends) <= FEWER * len(ends)
            # states that have grown with their rows, to different lengths, would not meet again
            if few_active and _shapes(state := self.refiner.settle(state)) == shapes:
                going, ends = last > start, [end for end in ends if end > start]
                ended.append((active[~going], select(state, (~going).nonzero()[:, 0])))
                active, going = active[going], going.nonzero()[:, 0]
                state, support, last = select(state, going), support.tasks(going), last[going]
            batch = support.slice(start, start + batch_size)
            self.check(batch)
            state = self.step(state, batch)
        if not ended:
            return state
        index, parts = zip(*ended, (active, self.refiner.settle(state)), strict=True)
        return select(concatenate(parts), torch.cat(index).argsort())

    def fit(self, support: Batch, batch_size: int, passes: int = 1) -> State:
        """Return the state of tasks whose rows `[B, N, ...]` are all at hand, learnt in mini-batches of `batch_size`.

        A refiner that weighs by predictions learns all rows, then scores each as if it had been left out.

        Raises:
            ValueError: a support that is not this learner's; more than one pass where each row counts once.
        """
        self.check(support)
        check_count("passes", passes)
        state = self.init(support.n_tasks)
        if not self.refiner.capabilities.score:
            for batch in chain.from_iterable(support.split(batch_size) for _ in range(passes)):
                state = self.step(state, batch)
            return state
        if passes != 1:
            raise ValueError(f"this learner counts every row once, exactly: one pass; got {passes}")
        with torch.no_grad():
            for batch in support.split(batch_size):
                state = self.refiner.step(state, self._seen(state, batch))
            return self.refiner.score(state, self._seen(state, support), learnt=True)

    def merge(self, states: Sequence[State]) -> State:
        """Return one state of all rows that the states have seen: adapt to shards apart, then combine.

        Every state must come from this learner. The result is exact if states are additive. Otherwise it is an average
        that is weighted by rows or by precision.

        Raises:
            ValueError: no state, states of different shapes, or a refiner whose states do not merge.

        Example:
            >>> import torch
            >>> from gradatim import LinearRegression, build
            >>> family = LinearRegression(8, noise_std=0.5)
            >>> learner, task = build("ridge", family), family.sample(4, torch.Generator().manual_seed(0))
            >>> shards = [task.support.slice(0, 80), task.support.slice(80, 160)]
            >>> state = learner.merge([learner.adapt(shard, 16) for shard in shards])
        """
        check_mergeable(states, self.refiner.init(1) if self.refiner.capabilities.merge else None)
        with torch.no_grad():
            return self.refiner.merge(states)

    def forget(self, state: State, batch: Batch) -> State:
        """Return the state as if the rows of a mini-batch `[B, N, ...]`, learnt before, had never been learnt.

        Raises:
            ValueError: a batch that is not this learner's, or a refiner whose states do not forget.

        Example:
            >>> import torch
            >>> from gradatim import LinearRegression, build
            >>> family = LinearRegression(8, noise_std=0.5)
            >>> learner, task = build("ridge", family), family.sample(4, torch.Generator().manual_seed(0))
            >>> state = learner.adapt(task.support, 16)
            >>> shorter = learner.forget(state, task.support.slice(0, 16))
            >>> shorter.rows.tolist()
            [144.0, 144.0, 144.0, 144.0]
        """
        self.check(batch)
        check_state(state)
        with torch.no_grad():
            return self.refiner.forget(state, self._seen(state, batch))

    def widen(self, state: State, place: Tensor) -> State:
        """Return a state of a learner of fewer classes as one of this learner's.

        `place [C]` int64: class c becomes class `place[c]`.

        Raises:
            ValueError: a refiner whose states have a fixed number of outputs.

        Example:
            >>> import torch
            >>> from gradatim import LinearClassification, build
            >>> small, large = (build("bayesian", LinearClassification(2, classes)) for classes in (2, 3))
            >>> state = large.widen(small.init(n_tasks=1), place=torch.tensor([2, 0]))
            >>> large.predict(torch.zeros(1, 4, 2), state).shape
            torch.Size([1, 4, 3])
        """
        check_state(state)
        with torch.no_grad():
            return self.refiner.widen(state, place)

    def predict(self, x: Tensor, state: State) -> Tensor:
        """Return outputs `[B, N, Do]` at x `[B, N, *X]`.

        Raises:
            ValueError: x of another width or dtype, a state of another number of tasks, or, in an implicit learner, x
                that are not the queries of the state.
        """
        self.predictor.check_x(x)
        self._check_dtype(x)
        return self.predictor(x, self._latent(x, state))

    def forward(self, x: Tensor, state: State) -> Tensor:
        """Return outputs `[B, N, Do]` at x `[B, N, *X]`, as `predict` does."""
        return self.predict(x, state)

    def loss(self, query: Batch, state: State, generator: torch.Generator | None = None) -> Tensor:
        """Return the mean loss over the query rows of each task, `[B]`.

        `query`: the rows to predict, x `[B, Nq, *X]`. `generator`: for losses that draw random numbers.

        Raises:
            ValueError: a query that does not fit this learner or its state, as in `predict`.
        """
        check_batch(query)
        self._check_dtype(query.x, query.y)
        self.predictor.check(query)
        return self.predictor.loss(query, self._latent(query.x, state), generator)

    def _latent(self, x: Tensor, state: State) -> Tensor:
        """Return the latent to predict at x `[B, N, *X]` with, or raise ValueError where the state is of others."""
        check_state(state)
        if not self.refiner.serves(state, x):
            raise ValueError(
                "an implicit learner's state answers the queries it was made for; got other x: begin again with "
                "query=..., or use a parametric or explicit learner"
            )
        latent = self.refiner.latent(state)
        if len(latent) != len(x):
            raise ValueError(
                f"x and the state must be of the same tasks; got x of {len(x)} and a state of {len(latent)}"
            )
        return latent


_NONE: Any = object()
"""What `next` returns of no mini-batches: a None among them is a mistake of its own."""


def _shapes(state: State) -> list[torch.Size]:
    return [part.shape[1:] for part in flatten(state).values()]
