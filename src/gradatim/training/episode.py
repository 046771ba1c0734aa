"""One episode of meta-training as one module: what an engine wraps.

Source: Mittal et al. 2025, eq. 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from torch import nn

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..batch import Task
    from ..learner import Learner


class Objective(Protocol):
    """A loss to meta-train on: a scheme, or a part of one.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.training.episode import Episode
        >>> class FirstPrediction:
        ...     def loss(self, learner, task, generator):
        ...         return learner.loss(task.query, learner.init(task.n_tasks, differentiable=True)).mean()
        >>> family = LinearRegression(2)
        >>> episode = Episode(build("maml", family), FirstPrediction())
        >>> episode(family.sample(4, torch.Generator().manual_seed(0)), torch.Generator()).shape
        torch.Size([])
    """

    def loss(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the loss of one episode, all its steps included, of shape `[]`.

        `task`: support x `[B, N, *X]` and query x `[B, Nq, *X]`.
        """
        ...


class Episode(nn.Module):
    """A learner and the loss it is meta-trained on; one forward is one whole episode.

    DDP and FSDP average gradients when the forward that they wrap is left. An episode adapts, predicts and scores many
    times, so all of it stands in one forward.

    Args:
        learner: who is meta-trained.
        objective: a scheme.

    Example:
        >>> import torch
        >>> from gradatim import Greedy, LinearRegression, build
        >>> from gradatim.training.episode import Episode
        >>> family = LinearRegression(2, support_rows=8)
        >>> episode = Episode(build("parametric-both", family), Greedy(batch_size=4, horizon=2))
        >>> generator = torch.Generator().manual_seed(0)
        >>> loss = episode(family.sample(4, generator), generator)
        >>> loss.backward()
    """

    def __init__(self, learner: Learner, objective: Objective) -> None:
        super().__init__()
        self.learner, self.objective = learner, objective

    def forward(self, task: Task, generator: torch.Generator) -> Tensor:
        """Return the loss of one episode, of shape `[]`.

        `task`: support x `[B, N, *X]` and query x `[B, Nq, *X]`.
        """
        return self.objective.loss(self.learner, task, generator)
