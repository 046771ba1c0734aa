"""Plain reference loops, and the error of the library against them.

Source: Finn, Abbeel, Levine 2017, algorithm 1, task by task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..refiners import MAML
from ..training.schemes import Unrolled

if TYPE_CHECKING:
    from ..batch import Task
    from ..learner import Learner


def meta_gradient_error(learner: Learner, task: Task, batch_size: int, horizon: int = 1) -> float:
    """Return the relative error of the meta-gradient of MAML against a plain nested loop, `|g - plain| / |plain|`.

        plain = d/d(start, rate) 1/(B T) sum_bt L_b(query, theta_bt)
        theta_b,t+1 = theta_bt - rate * dL_b/dtheta_bt

    g is the gradient of `Unrolled`. A rate that is not learnt is excluded. Under a signal that keeps no graph both
    gradients are first-order.

    Args:
        learner: MAML, in float64.
        task: B tasks in float64, support x `[B, N, Dx]`.
        batch_size: rows of each mini-batch.
        horizon: T, the number of mini-batches.

    Raises:
        ValueError: a learner whose refiner is not `MAML` with shared rates and no skips, or too few support rows.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.testing import meta_gradient_error
        >>> family = LinearRegression(4)
        >>> task = family.sample(2, torch.Generator().manual_seed(0)).to(torch.float64)
        >>> meta_gradient_error(build("maml", family).double(), task, batch_size=5) < 1e-10
        True

    Source: Finn, Abbeel, Levine 2017, algorithm 1.
    """
    if not isinstance(learner.refiner, MAML):
        raise ValueError(
            f"the plain loop is that of MAML; got {type(learner.refiner).__name__}: build 'maml', 'first-order-maml' "
            "or 'meta-sgd'"
        )
    if learner.refiner.rates != "shared" or learner.refiner.skip is not None:
        raise ValueError(
            f"the plain loop has shared rates and no skips; got rates {learner.refiner.rates!r}, skip "
            f"{learner.refiner.skip}: build 'maml' or 'meta-sgd'"
        )
    parameters = list(learner.refiner.parameters())
    loss = Unrolled(batch_size, horizon).loss(learner, task, torch.Generator())
    unrolled = torch.autograd.grad(loss, parameters)
    nested = _nested(learner, learner.refiner, task, batch_size, horizon)
    actual, expected = (torch.cat([part.flatten() for part in parts]) for parts in (unrolled, nested))
    return ((actual - expected).norm() / expected.norm()).item()


def _nested(learner: Learner, refiner: MAML, task: Task, batch_size: int, horizon: int) -> tuple[Tensor, ...]:
    """Return the gradient in the start, and in the rate where it is learnt, computed task by task."""
    start = refiner.start.detach().clone().requires_grad_()
    rate = torch.as_tensor(refiner.rate, dtype=start.dtype, device=start.device)
    rate = rate.detach().clone().requires_grad_(refiner.learnt_rate)
    total = start.new_zeros(())
    for b in range(task.n_tasks):
        support, query = (batch.tasks(slice(b, b + 1)) for batch in (task.support, task.query))
        theta = start
        for t in range(horizon):
            batch = support.slice(t * batch_size, (t + 1) * batch_size)
            inner = learner.predictor.loss(batch, theta[None]).sum()
            (slope,) = torch.autograd.grad(inner, theta, create_graph=learner.signal.keep_graph)
            theta = theta - rate * slope
            total = total + learner.predictor.loss(query, theta[None]).sum()
    parameters = [start, rate] if refiner.learnt_rate else [start]
    return torch.autograd.grad(total / (task.n_tasks * horizon), parameters)
