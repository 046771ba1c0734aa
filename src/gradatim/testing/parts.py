"""The laws of predictors, task families and schemes.

Source: the tests that optax runs over its whole table of methods (`optax/contrib/_common_test.py`); the laws are
this project's own.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from ..batch import Batch
from ..learner import Learner
from ..refiners import SGD
from ..signal import GRADIENTS
from ..training.episode import Episode
from .tools import assert_close, assert_refused, ragged_tasks, randomised

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Task
    from ..family import TaskFamily
    from ..predictor import Predictor
    from ..training.schemes import Scheme


def check_predictor(predictor: Predictor, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Check the laws of a predictor on rows of a family, with randomised parameters and latents.

    - `initial` has shape `latent_shape` and depends on its generator alone.
    - Outputs are finite, of shape `[B, N, output_dim]`.
    - Rows do not affect each other, nor do tasks.
    - The loss is the mean of `row_loss` over present rows. It is 0 for a task without rows.
    - `check` accepts the family's rows, and refuses unknown classes or a wider y.

    A readout has an empty `latent_shape`. It gets a positive latent of width `state_width` for each row, with sum 1.

    Args:
        predictor: to be checked; it is not changed.
        family: of at least 6 support rows.
        tolerance: largest difference, as a share of the largest value (of 1 where that is smaller).
        seed: of rows, parameters and latents.

    Raises:
        AssertionError: a law is broken; the sentence says which.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.testing import check_predictor
        >>> check_predictor(Network(4, SquaredError()), LinearRegression(4))
    """
    f, (batch, _, _) = randomised(predictor, seed), ragged_tasks(family, seed)
    generator, per_row = torch.Generator().manual_seed(seed), not predictor.latent_shape
    shape = (batch.n_rows, getattr(f, "state_width", f.output_dim)) if per_row else f.latent_shape
    latent = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    latent = latent.softmax(-1) if per_row else latent
    if not per_row:
        starts = [f.initial(torch.Generator().manual_seed(seed)) for _ in range(2)]
        assert starts[0].shape == f.latent_shape, (
            f"initial must have shape {f.latent_shape}; got {starts[0].shape}"
        )
        assert torch.equal(*starts), "initial must depend on its generator alone"
    with torch.no_grad():
        outputs, rows, task = f(batch.x, latent), torch.tensor([3, 0, 4]), torch.tensor([2])
        assert outputs.shape == (*batch.mask.shape, f.output_dim), f"outputs must be [B, N, {f.output_dim}]"
        assert bool(outputs.isfinite().all()), "outputs must be finite"
        subset = f(batch.x[:, rows], latent[:, rows] if per_row else latent)
        law = "rows must not see each other"
        assert_close(law, {"answer": outputs[:, rows]}, {"answer": subset}, tolerance)
        single = f(batch.x[task], latent[task])
        assert_close("tasks must not meet", {"answer": outputs[task]}, {"answer": single}, tolerance)
        _check_loss(f, batch, latent, tolerance)
    f.check(batch)
    classes = family.likelihood.classes
    wrong = batch.y + classes if classes else batch.y.repeat(1, 1, 2)
    assert_refused(
        "check must refuse a y that it cannot score", lambda: f.check(Batch(batch.x, wrong, batch.weight))
    )


def _check_loss(f: Predictor, batch: Batch, latent: Tensor, tolerance: float) -> None:
    """Raise where a predictor's loss breaks a law."""
    rows, loss = f.row_loss(batch, latent), f.loss(batch, latent)
    means = torch.stack([row[mask].mean() for row, mask in zip(rows, batch.mask, strict=True)])
    assert_close("the loss must be the mean over present rows", {"loss": means}, {"loss": loss}, tolerance)
    absent = ~batch.mask[..., None]
    dirty = Batch._trusted(
        batch.x + 3.0 * absent, torch.where(absent, batch.y.flip(1), batch.y), batch.weight
    )
    assert_close("absent rows must not count", {"loss": loss}, {"loss": f.loss(dirty, latent)}, tolerance)
    empty = Batch._trusted(batch.x, batch.y, torch.zeros_like(batch.weight))
    assert not f.loss(empty, latent).any(), "the loss of a task without rows must be 0"


def check_family(family: TaskFamily, disjoint: bool = True, seed: int = 0) -> None:
    """Check the laws of a task family.

    - Tasks depend on the generator alone, and they differ.
    - Shapes are those that the family declares. Classes are int64 in 0 .. classes - 1.
    - Supports have between `min_support_rows` and `support_rows` rows. Queries have all their rows.
    - No x of a query row occurs in the support of its task.
    - `truth` and the oracle are finite outputs.
    - The oracle uses the first `rows` of the support, and not the y of the query.

    Args:
        family: to be checked.
        disjoint: False where x is discrete, so that a query row may equal a support row by chance.
        seed: of the tasks.

    Raises:
        AssertionError: a law is broken; the sentence says which.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.testing import check_family
        >>> check_family(LinearRegression(4))
    """
    rng_state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(seed)
    task, next_task = family.sample(8, generator), family.sample(8, generator)
    again = family.sample(8, torch.Generator().manual_seed(seed))
    assert_close("the same generator state must give the same tasks", _parts(task), _parts(again), 0)
    assert torch.equal(rng_state, torch.get_rng_state()), (
        "tasks must be drawn from the generator given, no other"
    )
    assert not torch.equal(task.support.x, next_task.support.x), (
        "a generator that goes on must give other tasks"
    )
    assert not torch.equal(task.support.x[0], task.support.x[1]), "the tasks of one sample must differ"
    for name, batch, count in (
        ("support", task.support, family.support_rows),
        ("query", task.query, family.query_rows),
    ):
        _check_rows(family, name, batch, count)
    minimum = family.min_support_rows or family.support_rows
    assert int(task.support.rows.min()) >= minimum, f"supports must keep at least {minimum} rows"
    assert bool(task.query.mask.all()), "every query row must be there"
    repeated = (task.query.x[:, :, None] == task.support.x[:, None]).all(-1) & task.support.mask[:, None]
    assert not disjoint or not repeated.any(), "no query row may stand in its task's support"
    _check_answers(family, task)


def _check_rows(family: TaskFamily, name: str, batch: Batch, count: int) -> None:
    """Raise where the shapes or the classes of a batch with `count` rows are not those of the family."""
    width = 1 if family.likelihood.classes else family.likelihood.y_dim
    shapes = {"x": (8, count, family.x_dim), "y": (8, count, width), "mask": (8, count)}
    for part, expected in shapes.items():
        actual = tuple(getattr(batch, part).shape)
        assert actual == expected, f"{name}.{part} must have shape {expected}; got {actual}"
    if family.likelihood.classes:
        assert batch.y.dtype == torch.int64, f"classes must be int64; got {batch.y.dtype}"
        low, high = (int(bound) for bound in batch.y.aminmax())
        assert 0 <= low <= high < family.likelihood.classes, (
            f"classes must lie in 0 .. {family.likelihood.classes - 1}; got {low}, {high}"
        )
    else:
        assert batch.y.dtype == batch.x.dtype, f"y must be {batch.x.dtype} as x is; got {batch.y.dtype}"
    Batch(batch.x, batch.y, batch.weight)


def _parts(task: Task) -> dict[str, Tensor]:
    """Return the tensors of tasks by name."""
    batches = {"support": task.support, "query": task.query}
    parts = {
        f"{name}.{part}": getattr(batch, part)
        for name, batch in batches.items()
        for part in ("x", "y", "mask")
    }
    extras = {"target": task.target, "truth": task.truth}
    return parts | {name: value for name, value in extras.items() if value is not None}


def _check_answers(family: TaskFamily, task: Task) -> None:
    """Raise where `truth` or the oracle breaks a law."""
    shape = (*task.query.mask.shape, family.likelihood.output_dim)
    rows = family.support_rows // 2
    for name, answer in (("truth", task.truth), ("the oracle", family.oracle(task, rows))):
        if answer is not None:
            assert answer.shape == shape, f"{name} must have shape {shape}; got {tuple(answer.shape)}"
            assert bool(answer.isfinite().all()), f"{name} must be finite"
    oracle = family.oracle(task, rows)
    if oracle is not None:
        altered = replace(task, query=Batch(task.query.x, task.query.y.flip(1)), truth=None, target=None)
        without_y = family.oracle(altered, rows)
        assert without_y is not None and torch.equal(oracle, without_y), (
            "the oracle must not look at the query's y"
        )
        place = torch.arange(family.support_rows).expand_as(task.support.mask)
        first = Batch(task.support.x, task.support.y, task.support.mask & (place < rows))
        limited = family.oracle(replace(task, support=first))
        assert limited is not None and torch.allclose(oracle, limited), (
            "the oracle must look at the first rows alone"
        )


def check_scheme(
    scheme: Scheme, learner: Learner, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0
) -> None:
    """Check the laws of a scheme that trains a learner on tasks of a family.

    - The loss is one finite number, and its gradient reaches the learner.
    - Loss and gradient depend on the generator alone, bit for bit.
    - Without prefixes the loss is the mean over the plain loop, of a length that the horizon allows.
    - One step with as many prefixes as rows is trained on each prefix.
    - Learners without parameters and supports with too few rows are refused.

    Args:
        scheme: to be checked.
        learner: with parameters; it is not changed.
        family: of at least `batch_size * horizon` support rows.
        tolerance: largest difference between losses.
        seed: of tasks and parameters.

    Raises:
        AssertionError: a law is broken; the sentence says which.

    Example:
        >>> from gradatim import Greedy, LinearRegression, build
        >>> from gradatim.testing import check_scheme
        >>> family = LinearRegression(4)
        >>> check_scheme(Greedy(batch_size=4, horizon=3), build("parametric-both", family), family)
    """
    learner = randomised(learner, seed)
    task = family.sample(4, torch.Generator().manual_seed(seed)).to(torch.float64)
    rng_state = torch.get_rng_state()
    (loss, gradient), (loss_again, gradient_again) = (_value(scheme, learner, task, seed) for _ in range(2))
    assert loss.dim() == 0 and bool(loss.isfinite()), "the loss must be one finite number"
    assert any(bool(part.any()) for part in gradient.values()), "a gradient must reach the learner"
    law = "loss and gradient must be functions of the generator"
    assert_close(law, {"loss": loss, **gradient}, {"loss": loss_again, **gradient_again}, 0)
    assert torch.equal(rng_state, torch.get_rng_state()), (
        "a scheme must draw from the generator given, no other"
    )
    with torch.no_grad():
        _check_scheme_loss(scheme, learner, task, tolerance, seed)
    unlearnt = Learner(learner.predictor, SGD(torch.zeros(1), lr=0.1), GRADIENTS)
    assert_refused("a learner without parameters must be refused", lambda: scheme.check(unlearnt))
    if scheme.horizon > 1 and not scheme.random_horizon:
        short = replace(task, support=task.support.slice(0, scheme.batch_size * (scheme.horizon - 1)))
        assert_refused(
            "too few support rows must be refused", lambda: scheme.loss(learner, short, torch.Generator())
        )


def _check_scheme_loss(scheme: Scheme, learner: Learner, task: Task, tolerance: float, seed: int) -> None:
    """Raise where the loss of a scheme is not that of the plain loop, or of the loop on each prefix."""
    plain = replace(scheme, prefixes=1)
    batches = list(islice(task.support.split(scheme.batch_size), scheme.horizon))
    losses = torch.stack([learner.loss(task.query, s).mean() for s in learner.states(batches, task.query)])[
        1:
    ]
    losses = losses.log() if scheme.relative else losses
    lengths = range(1 if scheme.random_horizon else scheme.horizon, scheme.horizon + 1)
    actual = plain.loss(learner, task, torch.Generator().manual_seed(seed))
    gaps = [(actual - losses[:length].mean()).abs().item() for length in lengths]
    assert min(gaps) <= tolerance, (
        f"the loss must be the mean over the plain loop; it differs by {min(gaps):.2g}"
    )
    size = scheme.batch_size
    all_prefixes = replace(scheme, horizon=1, random_horizon=False, prefixes=size)
    first, start = batches[0], learner.refiner.init(4, task.query)
    parts = [
        learner.loss(task.query, learner.step(start, first.slice(0, n + 1), differentiable=True)).mean()
        for n in range(size)
    ]
    mean = torch.stack(parts).mean()
    expected = {"loss": mean.log() if scheme.relative else mean}
    prefix_loss = {"loss": all_prefixes.loss(learner, task, torch.Generator())}
    law = "one step on all prefixes must train every length"
    assert_close(law, prefix_loss, expected, tolerance)


def _value(scheme: Scheme, learner: Learner, task: Task, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an episode's loss and its gradient by parameter, zeros where none arrives."""
    parameters = dict(learner.named_parameters())
    loss = Episode(learner, scheme)(task, torch.Generator().manual_seed(seed))
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), gradients, strict=True)
    return loss.detach(), {
        name: torch.zeros_like(p) if gradient is None else gradient for (name, p), gradient in pairs
    }
