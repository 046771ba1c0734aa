"""References of sinusoids that learn nothing from other tasks: a tuned Gaussian process, and who knows the family.

Source: Rasmussen, Williams 2006, section 2.2 (the process).
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from gradatim.batch import Batch, Task
from gradatim.families.sinusoids import Sinusoids

from .learnt import TEST, VALIDATION, drawn, truth_error
from .sources import fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study

ROWS = (5, 10, 20, 40)
PROCESS, ORACLE = "gaussian-process", "oracle"
LENGTHS = tuple(0.25 * 2 ** (k / 3) for k in range(18))
NOISES = (0.0, 1e-8, 1e-6, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)


class Reference(NamedTuple):
    """A job: a reference that learns nothing across tasks, on test tasks of a family."""

    name: str
    family: Sinusoids
    n_validation: int
    n_test: int


def process_mean(task: Task, rows: int, length: float, noise: float) -> Tensor:
    """Return the posterior mean `[B, Nq, 1]` of a Gaussian process, its noise variance in units of the signal's."""
    x, y, at = (part.double() for part in (task.support.x[:, :rows], task.support.y[:, :rows], task.query.x))
    kernel = (-torch.cdist(x, x).square() / (2 * length**2)).exp()
    # the least jitter that keeps the factor of forty rows positive definite
    kernel = kernel + max(noise, 1e-9) * torch.eye(rows, dtype=x.dtype)
    across = (-torch.cdist(at, x).square() / (2 * length**2)).exp()
    return across @ torch.cholesky_solve(y, torch.linalg.cholesky(kernel))


def process(family: Sinusoids, n_validation: int, n_test: int) -> Values:
    """Return losses `[T, R]` of the process with the length and the noise that are best after each number of rows."""
    grid = list(product(LENGTHS, NOISES))
    validation, test = (
        join(drawn(family, n, draw)) for n, draw in ((n_validation, VALIDATION), (n_test, TEST))
    )
    found, chosen = [], []
    for rows in ROWS:
        errors = [
            float(truth_error(process_mean(validation, rows, *pair), validation).mean()) for pair in grid
        ]
        best = grid[int(np.argmin(errors))]
        found.append(truth_error(process_mean(test, rows, *best), test).double().numpy())
        chosen.append(best)
    return {"losses": np.stack(found, 1), "settings": np.array(chosen)}


def oracle(family: Sinusoids, n_test: int) -> Values:
    """Return losses `[T, R]` of the posterior that knows the family."""
    test = join(drawn(family, n_test, TEST))
    means = [family.oracle(test, rows) for rows in ROWS]
    return {"losses": np.stack([truth_error(m, test).double().numpy() for m in means if m is not None], 1)}


def join(tasks: Iterable[Task]) -> Task:
    """Return chunks of tasks as one."""
    chunks = list(tasks)

    def rows(part: str) -> Batch:
        return Batch(*(torch.cat([getattr(getattr(c, part), side) for c in chunks]) for side in ("x", "y")))

    return Task(
        rows("support"), rows("query"), truth=torch.cat([c.truth for c in chunks if c.truth is not None])
    )


def refer(study: Study, job: Reference) -> Values:
    """Return the losses of a reference, computed once."""
    depends = [fingerprint(__name__), repr(job)]
    if job.name == ORACLE:
        return study.cached(ORACLE, depends, lambda: oracle(job.family, job.n_test))
    return study.cached(PROCESS, depends, lambda: process(job.family, job.n_validation, job.n_test))
