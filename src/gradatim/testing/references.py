"""Plain loops that a part of the library must agree with, and by how much it does not.

Source: Finn, Abbeel, Levine 2017, algorithm 1, written as it stands there, task by task.
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
    """Return `|ours - plain| / |plain|`, the meta-gradient of MAML beside a plain nested loop.

        plain = d/d(start, rate) 1/(B T) sum_bt L_b(query, theta_bt),  theta_b,t+1 = theta_bt - rate * dL_b/dtheta_bt

    Ours is `Unrolled` over `horizon` T mini-batches of `batch_size` rows. To be asked in float64. A fixed rate is left
    out; under a signal that keeps no graph both are first-order.

    Raises:
        ValueError: a learner whose refiner is not `MAML`, or too few support rows.

    Example:
        >>> learner = build("maml", LinearRegression(4)).double()
        >>> meta_gradient_error(learner, task.to(torch.float64), batch_size=5) < 1e-10
        True
    """
    if not isinstance(learner.refiner, MAML):
        raise ValueError(
            f"the plain loop is that of MAML; got {type(learner.refiner).__name__}: build 'maml', 'first-order-maml' "
            "or 'meta-sgd'"
        )
    asked = list(learner.refiner.parameters())
    loss = Unrolled(batch_size, horizon).loss(learner, task, torch.Generator())
    ours = torch.autograd.grad(loss, asked)
    plain = _nested(learner, learner.refiner, task, batch_size, horizon)
    one, other = (torch.cat([part.flatten() for part in parts]) for parts in (ours, plain))
    return ((one - other).norm() / other.norm()).item()


def _nested(learner: Learner, refiner: MAML, task: Task, batch_size: int, horizon: int) -> tuple[Tensor, ...]:
    """Return the gradient in the start, and in the rate where it is learnt, one task after the other."""
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
    asked = [start, rate] if refiner.learnt_rate else [start]
    return torch.autograd.grad(total / (task.n_tasks * horizon), asked)
