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
from .tools import assert_close, assert_refused, ragged_tasks, randomised, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..family import TaskFamily
    from ..learner import Learner
    from ..refiner import State


def check_refiner(learner: Learner, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Check the laws of a learner on ragged tasks of a family, with randomised parameters.

    - Two runs are equal bit for bit.
    - A step changes the prediction, and does not change the state or the mini-batch that it gets.
    - A task without rows in a mini-batch keeps its state. Learnt rows are counted.
    - The order of rows in a mini-batch does not matter. Masked rows change nothing, whatever they hold.
    - Tasks do not affect each other, nor do query rows.
    - No state depends on `query.y`.
    - A step with `lengths` equals a step on each prefix.
    - A saved state resumes exactly. A per-query state is not saved.
    - A row of weight k counts as k rows, or weights are refused.
    - A state without forgotten rows is that of the remaining ones, or forgetting is refused.
    - A state whose classes got new indices is that of rows with these classes, or widening is refused.

    States that hold no rows are compared themselves, the others by their predictions.

    Args:
        learner: to be checked; it is not changed.
        family: of at least 6 support rows.
        tolerance: largest difference, as a share of the largest value (of 1 where that is smaller).
        seed: of tasks and parameters.

    Raises:
        AssertionError: a law is broken; the sentence says which.

    Example:
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.testing import check_refiner
        >>> family = LinearRegression(4)
        >>> check_refiner(build("sgd", family), family)
    """
    support, query, size = ragged_tasks(family, seed)
    case = _Case(randomised(learner, seed), list(support.split(size)), query, tolerance)
    with torch.no_grad():
        for law in _LAWS:
            law(case)


class _Case(NamedTuple):
    """A learner and the tasks that it is checked on."""

    learner: Learner
    batches: list[Batch]
    query: Batch
    tolerance: float

    def run(self, batches: Sequence[Batch] | None = None, query: Batch | None = None) -> list[State]:
        """Return all states of the loop."""
        batches = self.batches if batches is None else batches
        return list(self.learner.states(batches, self.query if query is None else query))

    def view(self, state: State, query: Batch | None = None) -> dict[str, Tensor]:
        """Return what equal states share, by name: their predictions, and their tensors where they hold no rows."""
        answer = self.learner.predict((query or self.query).x, state)
        return {"answer": answer} | ({} if self.learner.refiner.keeps_rows else flatten(state))

    def assert_close(self, law: str, actual: State, expected: State, exact: bool = False) -> None:
        """Raise where two states differ."""
        assert_close(law, self.view(actual), self.view(expected), 0.0 if exact else self.tolerance)


def _deterministic(case: _Case) -> None:
    for first, second in zip(case.run(), case.run(), strict=True):
        case.assert_close("two runs on the same rows must be equal", first, second, exact=True)


def _changes_prediction(case: _Case) -> None:
    states = case.run()
    for t, batch in enumerate(case.batches):
        before, after = (case.view(state)["answer"] for state in states[t : t + 2])
        change = (after - before).abs().flatten(1).amax(1)[batch.rows > 0]
        assert bool((change > 1e-6).all()), f"a step must move the answer; step {t + 1} does not"
    assert bool(after.isfinite().all()), "answers must be finite"


def _no_side_effects(case: _Case) -> None:
    for state, batch in zip(case.run()[:-1], case.batches, strict=True):
        copy, parts = tree_map(torch.clone, state), (batch.x.clone(), batch.y.clone(), batch.weight.clone())
        case.learner.step(state, batch)
        assert_close("a step must not change the state it was handed", flatten(copy), flatten(state), 0)
        for part, current in zip(parts, (batch.x, batch.y, batch.weight), strict=True):
            assert torch.equal(part, current), "a step must not change the mini-batch it was handed"


def _without_rows(case: _Case) -> None:
    """Compare a bounded state bit for bit, and its prediction up to rounding."""
    # The memory layout of equal states may differ, so matrix products may round differently.
    law = "a task without rows in a mini-batch must keep its state"
    states, refits = case.run(), not case.learner.refiner.capabilities.bounded
    for before, after, batch in zip(states, states[1:], case.batches, strict=False):
        empty = batch.rows == 0
        old, new = ({name: part[empty] for name, part in case.view(s).items()} for s in (before, after))
        answers = {"answer": old.pop("answer")}, {"answer": new.pop("answer")}
        assert_close(law, *answers, case.tolerance if old or refits else 0.0)
        assert_close(law, old, new, case.tolerance if refits else 0.0)


def _row_count(case: _Case) -> None:
    expected = torch.zeros(case.query.n_tasks)
    for state, batch in zip(case.run()[1:], case.batches, strict=True):
        expected = expected + batch.rows
        actual = getattr(state, "rows", expected)
        assert torch.equal(actual.double(), expected.double()), (
            f"rows seen must be {expected.tolist()}; got {actual.tolist()}"
        )


def _row_order(case: _Case) -> None:
    generator, shuffled = torch.Generator().manual_seed(1), []
    for batch in case.batches:
        order = torch.rand(batch.mask.shape, generator=generator).argsort(1)[..., None]
        x, y = (part.gather(1, order.expand_as(part)) for part in (batch.x, batch.y))
        shuffled.append(Batch._trusted(x, y, batch.weight.gather(1, order[..., 0])))
    for state, permuted in zip(case.run(), case.run(shuffled), strict=True):
        case.assert_close("the order of rows inside a mini-batch must not matter", state, permuted)


def _masked_rows(case: _Case) -> None:
    """Insert masked rows at the start, in the middle and at the end of every mini-batch."""
    padded: list[list[Tensor]] = [[], [], []]
    for batch in case.batches:
        for parts, value in zip(padded, (batch.x, batch.y, batch.weight), strict=True):
            fill = float("nan") if value.is_floating_point() else 10**6
            fill = 0.0 if value is batch.weight else fill
            junk = torch.full_like(value[:, :1], fill)
            parts += [junk, value[:, :2], junk, value[:, 2:], junk, junk]
    dirty = Batch(*(torch.cat(parts, dim=1) for parts in padded))
    batches = list(dirty.split(case.batches[0].n_rows + 4))
    for state, with_junk in zip(case.run(), case.run(batches), strict=True):
        case.assert_close("masked rows, junk or padding, must change nothing", state, with_junk)


def _independent_tasks(case: _Case) -> None:
    together = case.run()
    for b in range(case.query.n_tasks):
        index = torch.tensor([b])
        query = case.query.tasks(index)
        alone = case.run([part.tasks(index) for part in case.batches], query)
        for joint, single in zip(together, alone, strict=True):
            expected = {name: part[index] for name, part in case.view(joint).items()}
            law = "a task must get the same answer alone as in company"
            assert_close(law, expected, case.view(single, query), case.tolerance)


def _independent_queries(case: _Case) -> None:
    law, index = "a query's answer must not depend on the other queries", torch.tensor([4, 0, 3])
    query = Batch(*take_rows(case.query, index))
    for full, subset in zip(case.run(), case.run(query=query), strict=True):
        answers = case.learner.predict(case.query.x, full)[:, index], case.learner.predict(query.x, subset)
        assert_close(law, {"answer": answers[0]}, {"answer": answers[1]}, case.tolerance)


def _no_query_y(case: _Case) -> None:
    y = case.query.y.flip(1) if case.query.y.dtype == torch.int64 else case.query.y + 1
    for state, altered in zip(case.run(), case.run(query=Batch(case.query.x, y)), strict=True):
        case.assert_close("no state may depend on the query's y", state, altered, exact=True)


def _prefixes(case: _Case) -> None:
    law = "a step with lengths must be the steps on each prefix"
    size = case.batches[0].n_rows
    lengths = torch.tensor([1, size - 1, size])
    tasks = torch.arange(case.query.n_tasks) * len(lengths)
    for before, batch in zip(case.run()[:-1], case.batches, strict=True):
        many = case.learner.step(before, batch, lengths)
        for p, length in enumerate(lengths.tolist()):
            prefix = case.learner.step(before, batch.slice(0, length))
            case.assert_close(law, select(many, tasks + p), prefix)


def _saved(case: _Case) -> None:
    law, refiner = "a saved, reloaded state must go on as if it had not been", case.learner.refiner
    states = case.run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        try:
            save_state(path, states[1], case.learner)
        except ValueError:
            assert refiner.capabilities.per_query, "a state that serves any query must be saved"
            return
        assert not refiner.capabilities.per_query, "a state that belongs to its queries must not be saved"
        state = load_state(path, case.learner)
        for batch, expected in zip(case.batches[1:], states[2:], strict=True):
            state = case.learner.step(state, batch)
            case.assert_close(law, state, expected, exact=True)


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
        assert_refused("weights that have no place must be refused", lambda: case.run(weighted))
        return
    copies = [
        Batch._trusted(
            batch.x.repeat(1, 3, 1),
            batch.y.repeat(1, 3, 1),
            torch.cat([count > k for k in range(3)], dim=1).to(batch.weight),
        )
        for batch, count in zip(case.batches, counts, strict=True)
    ]
    if case.learner.refiner.capabilities.score:  # a pass scores rows in their order, and copies come later
        runs = [[case.learner.fit(_joined(batches), 4)] for batches in (weighted, copies)]
    else:
        runs = [case.run(weighted), case.run(copies)]
    for state, repeated in zip(*runs, strict=True):
        case.assert_close(law, state, repeated)


def _joined(batches: Sequence[Batch]) -> Batch:
    """Return mini-batches `[B, N, ...]` as one."""
    x, y, weight = (torch.cat([getattr(b, name) for b in batches], dim=1) for name in ("x", "y", "weight"))
    return Batch._trusted(x, y, weight)


def _forgets(case: _Case) -> None:
    states, first = case.run(), case.batches[0]
    if not case.learner.refiner.capabilities.forget:
        assert_refused(
            "rows that cannot be subtracted must be refused", lambda: case.learner.forget(states[-1], first)
        )
        return
    remaining = case.learner.forget(states[-1], first)
    expected = case.run(case.batches[1:])[-1]
    case.assert_close("rows forgotten must be as never learnt", remaining, expected)
    assert_refused("rows never learnt must not be forgotten", lambda: case.learner.forget(states[0], first))


def _widens(case: _Case) -> None:
    """Classes in another order are the case in which all of them are known."""
    law, state = (
        "a state whose classes got new indices must be that of rows with these classes",
        case.run()[-1],
    )
    classes = case.learner.predictor.output_dim
    place = torch.arange(classes).roll(1)
    if not case.learner.refiner.capabilities.widen:
        assert_refused(
            "new classes that have no place must be refused", lambda: case.learner.widen(state, place)
        )
        return
    renamed = [Batch._trusted(batch.x, place[batch.y], batch.weight) for batch in case.batches]
    case.assert_close(law, case.learner.widen(state, place), case.run(renamed)[-1])
    repeated = torch.zeros_like(place)
    assert_refused("two classes must not get one index", lambda: case.learner.widen(state, repeated))


_LAWS: tuple[Callable[[_Case], None], ...] = (
    _deterministic,
    _changes_prediction,
    _no_side_effects,
    _without_rows,
    _row_count,
    _row_order,
    _masked_rows,
    _independent_tasks,
    _independent_queries,
    _no_query_y,
    _prefixes,
    _saved,
    _weights,
    _forgets,
    _widens,
)
