"""Whether a learner reads its support at all: its error with the support's answers, and with them shuffled.

Source: Yin et al. 2020 (memorisation in meta-learning); the measure is this project's own.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..batch import Batch, Task, check_count
from ..learner import Learner

if TYPE_CHECKING:
    from torch import Tensor

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""One task as arrays: support x `[N, D]` and y `[N]`, query x `[Nq, D]` and y `[Nq]`."""


class Dependence(NamedTuple):
    """How much worse answers become when the support's answers are shuffled.

    Fields: `error`: with the support as it is; `error_shuffled`: with its answers shuffled among its rows, a mean over
    repeats; `gap`: the difference. A gap near 0 says that the support's answers are not read.

    Errors are the share of wrong classes, or the mean squared error, as means over tasks.
    """

    error: float
    error_shuffled: float
    gap: float


def support_dependence(
    learner_or_estimator: Any,
    task: Task | Arrays,
    repeats: int = 10,
    *,
    batch_size: int | None = None,
    passes: int = 1,
    seed: int = 0,
) -> Dependence:
    """Return the error of a learner, and its error where the support's answers are shuffled among the rows.

    A learner that has memorised its training tasks answers unseen queries without their support. Its error may look
    good on tasks like those of training. Then both errors are alike, and the gap says so.

    Args:
        learner_or_estimator: a `Learner`; or anything with `fit(X, y)` and `predict(X)`, such as an estimator of
            scikit-learn. It is not changed: each fit is of a deep copy.
        task: B tasks, support x `[B, N, *X]`; or one task of an estimator, `(X, y, X_query, y_query)`.
        repeats: the number of shuffles. Each changes at least one answer of each task.
        batch_size: rows of a learner's mini-batch. None: the whole support.
        passes: how often a learner goes through the support.
        seed: of the shuffles.

    Raises:
        ValueError: something without fit and predict; a task whose support has one row, or the same answer in all
            rows: no shuffle changes it; repeats, passes or a batch_size below 1; parts of a task that do not fit.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.probing import support_dependence
        >>> family = LinearRegression(3, noise_std=0.1)
        >>> task = family.sample(20, torch.Generator().manual_seed(0))
        >>> ridge = support_dependence(build("ridge", family), task)
        >>> ridge.gap > 1
        True
        >>> from sklearn.dummy import DummyRegressor
        >>> support_dependence(DummyRegressor(), task).gap
        0.0
    """
    for name, value in (("repeats", repeats), ("passes", passes), ("batch_size", batch_size or 1)):
        check_count(name, value)
    answers = _answering(learner_or_estimator, task, batch_size, passes)
    supports = answers.supports
    for place, y in enumerate(supports):
        _check_varied(y, place)
    generator = np.random.default_rng(seed)
    error = answers.error(supports)
    shuffled = [answers.error([_shuffled(y, generator) for y in supports]) for _ in range(repeats)]
    mean = float(np.mean(shuffled))
    return Dependence(error, mean, mean - error)


def _answering(
    learner_or_estimator: Any, task: Task | Arrays, batch_size: int | None, passes: int
) -> _Adapted | _Fitted:
    """Return who answers the queries of a task."""
    if isinstance(learner_or_estimator, Learner):
        if not isinstance(task, Task):
            raise ValueError(
                f"a learner's tasks come as a Task; got {type(task).__name__}: make one, Task(support, query)"
            )
        return _Adapted(learner_or_estimator, task, batch_size, passes)
    if all(callable(getattr(learner_or_estimator, name, None)) for name in ("fit", "predict")):
        return _Fitted(learner_or_estimator, task)
    raise ValueError(
        "the support is read by a Learner, or by anything with fit(X, y) and predict(X); got "
        f"{type(learner_or_estimator).__name__}"
    )


def _check_varied(y: np.ndarray, place: int) -> None:
    """Check that a shuffle can change the answers of a support."""
    if len(y) < 2:
        raise ValueError(
            f"the support of task {place} has one row: shuffling it changes nothing: give two rows or more"
        )
    if (y == y[0]).all():
        raise ValueError(
            f"the support of task {place} has the same answer, {np.asarray(y[0]).tolist()}, in all rows: shuffling it "
            "changes nothing: give tasks with two different answers or more"
        )


def _shuffled(y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return the answers `[N, ...]` in another order, at least one of them changed."""
    order = generator.permutation(len(y))
    if np.array_equal(y[order], y):
        order = np.roll(order, 1)  # answers that are not all equal differ from themselves turned by one
    return y[order]


class _Adapted:
    """A learner, on all tasks at once."""

    def __init__(self, learner: Learner, task: Task, batch_size: int | None, passes: int) -> None:
        self.learner, self.task, self.passes = learner, task, passes
        self.size = batch_size or task.support.n_rows
        self.present = [mask.nonzero()[:, 0] for mask in task.support.mask]
        self.supports = [y[rows].cpu().numpy() for y, rows in zip(task.support.y, self.present, strict=True)]
        if passes > 1 and learner.refiner.capabilities.per_query:
            raise ValueError(
                f"{type(learner.refiner).__name__} goes through its support once; got {passes} passes"
            )

    @torch.no_grad()
    def error(self, supports: list[np.ndarray]) -> float:
        """Return the mean error where the tasks' supports have these answers."""
        task, y = self.task, self.task.support.y.clone()
        for b, (rows, values) in enumerate(zip(self.present, supports, strict=True)):
            y[b, rows] = torch.as_tensor(values, device=y.device)
        support = Batch(task.support.x, y, task.support.weight)
        if self.learner.refiner.capabilities.per_query:
            state = self.learner.adapt(support, self.size, task.query)
        else:
            state = self.learner.fit(support, self.size, self.passes)
        return float(_errors(self.learner.predict(task.query.x, state), task.query).mean())


def _errors(outputs: Tensor, query: Batch) -> Tensor:
    """Return the error of each task `[B]`: the share of wrong classes, or the mean squared error."""
    if query.y.is_floating_point():
        wrong = (outputs - query.y).square().mean(-1)
    else:
        wrong = (outputs.argmax(-1) != query.y[..., 0]).to(outputs.dtype)
    return (wrong * query.weight).sum(1) / query.rows


class _Fitted:
    """An estimator, on one task after the other."""

    def __init__(self, estimator: Any, task: Task | Arrays) -> None:
        self.estimator = estimator
        self.tasks = [*_arrays(task)] if isinstance(task, Task) else [_checked(task)]
        self.supports = [y for _, y, _, _ in self.tasks]

    def error(self, supports: list[np.ndarray]) -> float:
        """Return the mean error where the tasks' supports have these answers."""
        errors = []
        for (x, _, at, wanted), y in zip(self.tasks, supports, strict=True):
            fitted = deepcopy(self.estimator)
            fitted.fit(x, y)
            found = np.asarray(fitted.predict(at)).reshape(wanted.shape)
            # whole numbers are classes only to an estimator that answers with them
            if "f" in (wanted.dtype.kind, found.dtype.kind):
                errors.append(np.square(found - wanted).mean())
            else:
                errors.append((found != wanted).mean())
        return float(np.mean(errors))


def _arrays(task: Task) -> list[Arrays]:
    """Return each task as arrays of its present rows, y `[N]` where it has one column."""
    found = []
    for b in range(task.n_tasks):
        parts = []
        for batch in (task.support, task.query):
            rows = batch.mask[b]
            x, y = batch.x[b, rows].flatten(1).cpu().numpy(), batch.y[b, rows].cpu().numpy()
            parts += [x, y[:, 0] if y.shape[1:] == (1,) else y]
        found.append(tuple(parts))
    return found


def _checked(task: Any) -> Arrays:
    """Return one task as arrays."""
    if not isinstance(task, tuple | list) or len(task) != 4:
        raise ValueError(
            f"a task is a Task, or a tuple (X, y, X_query, y_query); got {type(task).__name__}"
            + (f" of {len(task)}" if isinstance(task, tuple | list) else "")
        )
    x, y, at, wanted = (np.asarray(part) for part in task)
    if len(x) != len(y) or len(at) != len(wanted) or not len(wanted):
        raise ValueError(
            f"a task has as many answers as rows; got X {x.shape}, y {y.shape}, X_query {at.shape}, y_query "
            f"{wanted.shape}"
        )
    return x, y, at, wanted
