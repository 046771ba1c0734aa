"""The laws of the other parts: predictors, task families, schemes.

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
from .tools import ragged, randomised, refuses, same

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Task
    from ..family import TaskFamily
    from ..predictor import Predictor
    from ..training.schemes import Scheme


def check_predictor(predictor: Predictor, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0) -> None:
    """Raise where a predictor breaks a law, on rows of the family, with randomised parameters and latents.

    The laws: `initial` is a latent, a function of its generator; outputs are finite `[B, N, output_dim]`; rows do not
    see each other, nor tasks; the loss is the mean of `row_loss` over present rows, whatever stands at absent ones, 0
    without rows; `check` takes the family's rows and refuses unknown classes or a wider y. A readout (empty
    `latent_shape`) gets a latent for each row, of its `state_width`, positive, with sum 1.

    Raises:
        AssertionError: a law is broken, with the sentence.

    Example:
        >>> check_predictor(Network(4, SquaredError()), LinearRegression(4))
    """
    f, (batch, _, _) = randomised(predictor, seed), ragged(family, seed)
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
        outputs, few, one = f(batch.x, latent), torch.tensor([3, 0, 4]), torch.tensor([2])
        assert outputs.shape == (*batch.mask.shape, f.output_dim), f"outputs must be [B, N, {f.output_dim}]"
        assert bool(outputs.isfinite().all()), "outputs must be finite"
        cut = f(batch.x[:, few], latent[:, few] if per_row else latent)
        same("rows must not see each other", {"answer": outputs[:, few]}, {"answer": cut}, tolerance)
        same(
            "tasks must not meet",
            {"answer": outputs[one]},
            {"answer": f(batch.x[one], latent[one])},
            tolerance,
        )
        _check_loss(f, batch, latent, tolerance)
    f.check(batch)
    classes = family.likelihood.classes
    wrong = batch.y + classes if classes else batch.y.repeat(1, 1, 2)
    refuses("check must refuse a y that it cannot score", lambda: f.check(Batch(batch.x, wrong, batch.mask)))


def _check_loss(f: Predictor, batch: Batch, latent: Tensor, tolerance: float) -> None:
    """Raise where a predictor's loss breaks a law."""
    rows, loss = f.row_loss(batch, latent), f.loss(batch, latent)
    means = torch.stack([row[mask].mean() for row, mask in zip(rows, batch.mask, strict=True)])
    same("the loss must be the mean over present rows", {"loss": means}, {"loss": loss}, tolerance)
    absent = ~batch.mask[..., None]
    dirty = Batch._trusted(batch.x + 3.0 * absent, torch.where(absent, batch.y.flip(1), batch.y), batch.mask)
    same("absent rows must not count", {"loss": loss}, {"loss": f.loss(dirty, latent)}, tolerance)
    empty = Batch._trusted(batch.x, batch.y, torch.zeros_like(batch.mask))
    assert not f.loss(empty, latent).any(), "the loss of a task without rows must be 0"


def check_family(family: TaskFamily, disjoint: bool = True, seed: int = 0) -> None:
    """Raise where a task family breaks a law.

    The laws: the same generator state gives the same tasks and nothing else is drawn from; tasks differ; shapes are
    those the family says; classes are int64 in 0 .. classes - 1; supports keep between `min_support_rows` and
    `support_rows` rows, queries all; no query row's x stands in its task's support (`disjoint`: False where x is
    discrete and may repeat by chance); `truth` and the oracle are finite outputs; the oracle looks at the first `rows`
    of the support and never at the query's y.

    Raises:
        AssertionError: a law is broken, with the sentence.

    Example:
        >>> check_family(LinearRegression(4))
    """
    kept = torch.get_rng_state()
    generator = torch.Generator().manual_seed(seed)
    task, next_task = family.sample(8, generator), family.sample(8, generator)
    again = family.sample(8, torch.Generator().manual_seed(seed))
    same("the same generator state must give the same tasks", _parts(task), _parts(again), 0)
    assert torch.equal(kept, torch.get_rng_state()), "tasks must be drawn from the generator given, no other"
    assert not torch.equal(task.support.x, next_task.support.x), (
        "a generator that goes on must give other tasks"
    )
    assert not torch.equal(task.support.x[0], task.support.x[1]), "the tasks of one sample must differ"
    for name, batch, count in (
        ("support", task.support, family.support_rows),
        ("query", task.query, family.query_rows),
    ):
        classes = family.likelihood.classes
        wanted = {"x": (8, count, family.x_dim), "y": (8, count, family.likelihood.y_dim), "mask": (8, count)}
        for part, shape in wanted.items():
            came = tuple(getattr(batch, part).shape)
            assert came == shape, f"{name}.{part} must have shape {shape}; got {came}"
        if classes:
            assert batch.y.dtype == torch.int64, f"classes must be int64; got {batch.y.dtype}"
            low, high = (int(bound) for bound in batch.y.aminmax())
            assert 0 <= low <= high < classes, f"classes must lie in 0 .. {classes - 1}; got {low}, {high}"
        else:
            assert batch.y.dtype == batch.x.dtype, f"y must be {batch.x.dtype} as x is; got {batch.y.dtype}"
        Batch(batch.x, batch.y, batch.mask)
    least = family.min_support_rows or family.support_rows
    assert int(task.support.rows.min()) >= least, f"supports must keep at least {least} rows"
    assert bool(task.query.mask.all()), "every query row must be there"
    twice = (task.query.x[:, :, None] == task.support.x[:, None]).all(-1) & task.support.mask[:, None]
    assert not disjoint or not twice.any(), "no query row may stand in its task's support"
    _check_answers(family, task)


def _parts(task: Task) -> dict[str, Tensor]:
    """Return the tensors of tasks by name."""
    both = {"support": task.support, "query": task.query}
    found = {
        f"{name}.{part}": getattr(batch, part) for name, batch in both.items() for part in ("x", "y", "mask")
    }
    extras = {"target": task.target, "truth": task.truth}
    return found | {name: value for name, value in extras.items() if value is not None}


def _check_answers(family: TaskFamily, task: Task) -> None:
    """Raise where the noiseless or the best possible answer breaks a law."""
    shape = (*task.query.mask.shape, family.likelihood.output_dim)
    rows = family.support_rows // 2
    for name, answer in (("truth", task.truth), ("the oracle", family.oracle(task, rows))):
        if answer is not None:
            assert answer.shape == shape, f"{name} must have shape {shape}; got {tuple(answer.shape)}"
            assert bool(answer.isfinite().all()), f"{name} must be finite"
    best = family.oracle(task, rows)
    if best is not None:
        hidden = replace(task, query=Batch(task.query.x, task.query.y.flip(1)), truth=None, target=None)
        blind = family.oracle(hidden, rows)
        assert blind is not None and torch.equal(best, blind), "the oracle must not look at the query's y"
        place = torch.arange(family.support_rows).expand_as(task.support.mask)
        fewer = Batch(task.support.x, task.support.y, task.support.mask & (place < rows))
        cut = family.oracle(replace(task, support=fewer))
        assert cut is not None and torch.allclose(best, cut), "the oracle must look at the first rows alone"


def check_scheme(
    scheme: Scheme, learner: Learner, family: TaskFamily, tolerance: float = 1e-9, seed: int = 0
) -> None:
    """Raise where a scheme breaks a law, training a learner on tasks of the family.

    The laws: the loss is a number from which a gradient reaches the learner; loss and gradient are functions of the
    generator given, bit for bit, and nothing else is drawn from; on whole mini-batches the loss is the mean over the
    plain loop, of one of the lengths that the horizon allows; one step with as many prefixes as rows is trained on
    each of them; learners without parameters and supports too small are refused.

    Raises:
        AssertionError: a law is broken, with the sentence.

    Example:
        >>> check_scheme(Greedy(4, 3), build("parametric-both", family), family)
    """
    learner = randomised(learner, seed)
    task = family.sample(4, torch.Generator().manual_seed(seed)).to(torch.float64)
    kept = torch.get_rng_state()
    (loss, slopes), (again, slopes_again) = (_value(scheme, learner, task, seed) for _ in range(2))
    assert loss.dim() == 0 and bool(loss.isfinite()), "the loss must be one finite number"
    assert any(bool(slope.any()) for slope in slopes.values()), "a gradient must reach the learner"
    law = "loss and gradient must be functions of the generator"
    same(law, {"loss": loss, **slopes}, {"loss": again, **slopes_again}, 0)
    assert torch.equal(kept, torch.get_rng_state()), "a scheme must draw from the generator given, no other"
    with torch.no_grad():
        plain = replace(scheme, prefixes=1)
        batches = list(islice(task.support.split(scheme.batch_size), scheme.horizon))
        losses = torch.stack(
            [learner.loss(task.query, s).mean() for s in learner.states(batches, task.query)]
        )[1:]
        losses = losses.log() if scheme.relative else losses
        lengths = range(1 if scheme.random_horizon else scheme.horizon, scheme.horizon + 1)
        found = plain.loss(learner, task, torch.Generator().manual_seed(seed))
        gaps = [(found - losses[:length].mean()).abs().item() for length in lengths]
        assert min(gaps) <= tolerance, (
            f"the loss must be the mean over the plain loop; it differs by {min(gaps):.2g}"
        )
        size = scheme.batch_size
        each = replace(scheme, horizon=1, random_horizon=False, prefixes=size)
        first, start = batches[0], learner.refiner.init(4, task.query)
        parts = [
            learner.loss(task.query, learner.step(start, first.slice(0, n + 1))).mean() for n in range(size)
        ]
        wanted = torch.stack(parts).mean()
        wanted = {"loss": wanted.log() if scheme.relative else wanted}
        found = {"loss": each.loss(learner, task, torch.Generator())}
        same("one step on all prefixes must train every length", wanted, found, tolerance)
    unlearnt = Learner(learner.predictor, SGD(torch.zeros(1), lr=0.1), GRADIENTS)
    refuses("a learner without parameters must be refused", lambda: scheme.check(unlearnt))
    if scheme.horizon > 1 and not scheme.random_horizon:
        short = replace(task, support=task.support.slice(0, scheme.batch_size * (scheme.horizon - 1)))
        refuses(
            "too few support rows must be refused", lambda: scheme.loss(learner, short, torch.Generator())
        )


def _value(scheme: Scheme, learner: Learner, task: Task, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Return an episode's loss and its gradient by parameter, zeros where none arrives."""
    parameters = dict(learner.named_parameters())
    loss = learner(scheme, task, torch.Generator().manual_seed(seed))
    slopes = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    pairs = zip(parameters.items(), slopes, strict=True)
    return loss.detach(), {
        name: torch.zeros_like(p) if slope is None else slope for (name, p), slope in pairs
    }
