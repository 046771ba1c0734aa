"""The laws of a learner.

Source: the tests that optax runs over its whole table of methods (`optax/contrib/_common_test.py`); the laws are
this project's own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..batch import Batch
from ..training.states import load_state, save_state
from ..tree import flatten, select, tree_map
from .tools import ragged, randomised, refuses, rows, same

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..family import TaskFamily
    from ..learner import Learner
    from ..refiner import State


def check_refiner(learner: Learner, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Raise where a learner breaks a law, on tasks of the family, with randomised parameters.

    Four tasks, ragged: one has a hole, one no row in the first mini-batch, one rows there only. The laws:
    two runs are equal bit for bit; a step moves the answer; states are values; a task without rows in a mini-batch
    keeps its state; rows seen are counted; row order inside a mini-batch does not matter; masked junk and padding
    change nothing; tasks do not see each other; queries do not see each other; nothing looks at `query.y`; a step with
    `lengths` is a step on each prefix; a saved state resumes exactly (a per-query one is refused). Where a state
    keeps no rows it is compared itself, else the answers drawn from it.

    Args: `tolerance`: largest difference, as a share of the largest value (of 1 where that is smaller).

    Raises:
        AssertionError: a law is broken, with the sentence.

    Example:
        >>> check_refiner(build("adam", LinearRegression(4)), LinearRegression(4))
    """
    support, query, size = ragged(family, seed)
    case = _Case(randomised(learner, seed), list(support.split(size)), query, tolerance)
    with torch.no_grad():
        for law in _LAWS:
            law(case)


class _Case(NamedTuple):
    """A learner and the tasks it is asked on."""

    learner: Learner
    batches: list[Batch]
    query: Batch
    tolerance: float

    def run(self, batches: Sequence[Batch] | None = None, query: Batch | None = None) -> list[State]:
        """Return all states of the loop."""
        batches = self.batches if batches is None else batches
        return list(self.learner.states(batches, self.query if query is None else query))

    def view(self, state: State, query: Batch | None = None) -> dict[str, Tensor]:
        """Return what two equal states have in common: their answers, and their tensors where they are bounded."""
        answer = self.learner.predict((query or self.query).x, state)
        return {"answer": answer} | ({} if self.learner.refiner.keeps_rows else flatten(state))

    def same(self, law: str, one: State, other: State, exact: bool = False) -> None:
        """Raise where two states differ."""
        same(law, self.view(one), self.view(other), 0.0 if exact else self.tolerance)


def _deterministic(case: _Case) -> None:
    for one, other in zip(case.run(), case.run(), strict=True):
        case.same("two runs on the same rows must be equal", one, other, exact=True)


def _moves(case: _Case) -> None:
    states = case.run()
    for t, batch in enumerate(case.batches):
        before, after = (case.view(state)["answer"] for state in states[t : t + 2])
        moved = (after - before).abs().flatten(1).amax(1)[batch.rows > 0]
        assert bool((moved > 1e-6).all()), f"a step must move the answer; step {t + 1} does not"
    assert bool(after.isfinite().all()), "answers must be finite"


def _values(case: _Case) -> None:
    for state, batch in zip(case.run()[:-1], case.batches, strict=True):
        kept, parts = tree_map(torch.clone, state), (batch.x.clone(), batch.y.clone(), batch.weight.clone())
        case.learner.step(state, batch)
        same("a step must not change the state it was handed", flatten(kept), flatten(state), 0)
        for part, now in zip(parts, (batch.x, batch.y, batch.weight), strict=True):
            assert torch.equal(part, now), "a step must not change the mini-batch it was handed"


def _absent(case: _Case) -> None:
    """A bounded state bit for bit, its answer up to rounding: the same numbers may lie otherwise in memory."""
    law = "a task without rows in a mini-batch must keep its state"
    states, refits = case.run(), not case.learner.refiner.capabilities.bounded
    for before, after, batch in zip(states, states[1:], case.batches, strict=False):
        out = batch.rows == 0
        one, other = ({name: part[out] for name, part in case.view(s).items()} for s in (before, after))
        answers = {"answer": one.pop("answer")}, {"answer": other.pop("answer")}
        same(law, *answers, case.tolerance if one or refits else 0.0)
        same(law, one, other, case.tolerance if refits else 0.0)


def _counts(case: _Case) -> None:
    seen = torch.zeros(case.query.n_tasks)
    for state, batch in zip(case.run()[1:], case.batches, strict=True):
        seen = seen + batch.rows
        got = getattr(state, "rows", seen)
        assert torch.equal(got.double(), seen.double()), (
            f"rows seen must be {seen.tolist()}; got {got.tolist()}"
        )


def _row_order(case: _Case) -> None:
    generator, shuffled = torch.Generator().manual_seed(1), []
    for batch in case.batches:
        order = torch.rand(batch.mask.shape, generator=generator).argsort(1)[..., None]
        x, y = (part.gather(1, order.expand_as(part)) for part in (batch.x, batch.y))
        shuffled.append(Batch._trusted(x, y, batch.weight.gather(1, order[..., 0])))
    for one, other in zip(case.run(), case.run(shuffled), strict=True):
        case.same("the order of rows inside a mini-batch must not matter", one, other)


def _junk(case: _Case) -> None:
    """Put absent rows at the front, the middle and the end of every mini-batch, before Batch sees them."""
    padded: list[list[Tensor]] = [[], [], []]
    for batch in case.batches:
        for parts, value in zip(padded, (batch.x, batch.y, batch.weight), strict=True):
            fill = float("nan") if value.is_floating_point() else 10**6
            fill = 0.0 if value is batch.weight else fill
            junk = torch.full_like(value[:, :1], fill)
            parts += [junk, value[:, :2], junk, value[:, 2:], junk, junk]
    dirty = Batch(*(torch.cat(parts, dim=1) for parts in padded))
    for one, other in zip(case.run(), case.run(list(dirty.split(case.batches[0].n_rows + 4))), strict=True):
        case.same("masked rows, junk or padding, must change nothing", one, other)


def _company(case: _Case) -> None:
    together = case.run()
    for b in range(case.query.n_tasks):
        one = torch.tensor([b])
        query = case.query.tasks(one)
        for whole, alone in zip(
            together, case.run([part.tasks(one) for part in case.batches], query), strict=True
        ):
            wanted = {name: part[one] for name, part in case.view(whole).items()}
            law = "a task must get the same answer alone as in company"
            same(law, wanted, case.view(alone, query), case.tolerance)


def _queries(case: _Case) -> None:
    law, few = "a query's answer must not depend on the other queries", torch.tensor([4, 0, 3])
    query = Batch(*rows(case.query, few))
    for whole, cut in zip(case.run(), case.run(query=query), strict=True):
        answers = case.learner.predict(case.query.x, whole)[:, few], case.learner.predict(query.x, cut)
        same(law, {"answer": answers[0]}, {"answer": answers[1]}, case.tolerance)


def _blind(case: _Case) -> None:
    y = case.query.y.flip(1) if case.query.y.dtype == torch.int64 else case.query.y + 1
    for one, other in zip(case.run(), case.run(query=Batch(case.query.x, y)), strict=True):
        case.same("no state may depend on the query's y", one, other, exact=True)


def _prefixes(case: _Case) -> None:
    law = "a step with lengths must be the steps on each prefix"
    size = case.batches[0].n_rows
    lengths = torch.tensor([1, size - 1, size])
    tasks = torch.arange(case.query.n_tasks) * len(lengths)
    for before, batch in zip(case.run()[:-1], case.batches, strict=True):
        many = case.learner.step(before, batch, lengths)
        for p, length in enumerate(lengths.tolist()):
            case.same(law, select(many, tasks + p), case.learner.step(before, batch.slice(0, length)))


def _saved(case: _Case) -> None:
    law, refiner, states = (
        "a saved, reloaded state must go on as if it had not been",
        case.learner.refiner,
        case.run(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        try:
            save_state(path, states[1], case.learner)
        except ValueError:
            assert refiner.capabilities.per_query, "a state that serves any query must be saved"
            return
        assert not refiner.capabilities.per_query, "a state that belongs to its queries must not be saved"
        state = load_state(path, case.learner)
        for batch, wanted in zip(case.batches[1:], states[2:], strict=True):
            state = case.learner.step(state, batch)
            case.same(law, state, wanted, exact=True)


def _weights(case: _Case) -> None:
    law = "a row of weight k must count as k rows"
    generator = torch.Generator().manual_seed(2)
    counts = [
        torch.randint(1, 4, batch.mask.shape, generator=generator) * batch.mask for batch in case.batches
    ]
    weighted = [
        Batch._trusted(batch.x, batch.y, count.to(batch.weight))
        for batch, count in zip(case.batches, counts, strict=True)
    ]
    if not case.learner.refiner.capabilities.weights:
        refuses("weights that have no place must be refused", lambda: case.run(weighted))
        return
    copies = [
        Batch._trusted(
            batch.x.repeat(1, 3, 1),
            batch.y.repeat(1, 3, 1),
            torch.cat([count > k for k in range(3)], dim=1).to(batch.weight),
        )
        for batch, count in zip(case.batches, counts, strict=True)
    ]
    for state, repeated in zip(case.run(weighted), case.run(copies), strict=True):
        case.same(law, state, repeated)


def _forgets(case: _Case) -> None:
    states, first = case.run(), case.batches[0]
    if not case.learner.refiner.capabilities.forget:
        refuses(
            "rows that cannot be subtracted must be refused", lambda: case.learner.forget(states[-1], first)
        )
        return
    remaining = case.learner.forget(states[-1], first)
    case.same("rows forgotten must be as never learnt", remaining, case.run(case.batches[1:])[-1])
    refuses("rows never learnt must not be forgotten", lambda: case.learner.forget(states[0], first))


def _widens(case: _Case) -> None:
    """Classes in another order are the case in which all of them are known."""
    law, state = (
        "a state whose classes got new indices must be that of rows with these classes",
        case.run()[-1],
    )
    classes = case.learner.predictor.output_dim
    place = torch.arange(classes).roll(1)
    if not case.learner.refiner.capabilities.widen:
        refuses("new classes that have no place must be refused", lambda: case.learner.widen(state, place))
        return
    renamed = [Batch._trusted(batch.x, place[batch.y], batch.weight) for batch in case.batches]
    case.same(law, case.learner.widen(state, place), case.run(renamed)[-1])
    repeated = torch.zeros_like(place)
    refuses("two classes must not get one index", lambda: case.learner.widen(state, repeated))


_LAWS: tuple[Callable[[_Case], None], ...] = (_deterministic, _moves, _values, _absent, _counts, _row_order)
_LAWS += (_junk, _company, _queries, _blind, _prefixes, _saved, _weights, _forgets, _widens)
