"""For researchers: methods side by side on a task family of your own, with the best that learns nothing beside them.

python tutorials/07_compare_on_your_family.py    # about two minutes; GRADATIM_SMOKE=1: seconds, numbers without meaning
"""

import os
from dataclasses import dataclass

import torch

from gradatim import Batch, Prefixes, Task, TaskFamily, TrainConfig, compare
from gradatim.likelihood import SquaredError

smoke = os.environ.get("GRADATIM_SMOKE") == "1"


# A family is a likelihood, a width and `sample`. Here tasks are waves whose phase and height differ.
@dataclass(frozen=True, kw_only=True)
class Waves(TaskFamily):
    """Waves of one frequency: y = height sin(3 x + phase) + noise of deviation .3."""

    x_dim, likelihood, intercept = 1, SquaredError(1), True

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return tasks with new phases, heights and rows."""
        n_rows = self.support_rows + self.query_rows
        phase, height = torch.rand(2, n_tasks, 1, 1, generator=generator)
        x = 4 * torch.rand(n_tasks, n_rows, 1, generator=generator) - 2
        noise = 0.3 * torch.randn(n_tasks, n_rows, 1, generator=generator)
        rows = Batch(x, (0.5 + 2 * height) * torch.sin(3 * x + 6.3 * phase) + noise)
        return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, n_rows))


# One call: what is not meta-trained is tuned, what is meta-trained is trained, and all are judged on the same tasks.
# `alpaca` learns keys and a prior, so it is trained at all lengths at once. Read the first row of a table first.
train = TrainConfig(iterations=5 if smoke else 1500, tasks=2 if smoke else 16)
found = compare(
    ["ridge", "gaussian-process", "alpaca"],
    Waves(),
    steps=(1, 2, 4),
    batch_size=5,
    tasks=4 if smoke else 64,
    seeds=1,
    train=train,
    scheme=Prefixes(),
)
print(found.table())
