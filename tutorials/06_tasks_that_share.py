"""What learning from other tasks is worth: the table of the README, over three training seeds.

Tasks are linear regressions of 20 columns whose weights lie in the same 3 directions. Learnt features find the
directions; a ridge, tuned on other tasks for every number of rows, knows one task at a time.

python tutorials/06_tasks_that_share.py [FILE.json]    # about 20 seconds; GRADATIM_SMOKE=1: numbers without meaning

With a file it also writes the numbers there: docs/results/tasks_that_share.json is what README shows.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from gradatim import Batch, Task, TaskFamily, TrainConfig, Unrolled, build, train
from gradatim.likelihood import SquaredError

SMOKE = os.environ.get("GRADATIM_SMOKE") == "1"


@dataclass(frozen=True, kw_only=True)
class Shared(TaskFamily):
    """Linear regression in 20 columns, noise of variance 1, weights in 3 directions that all tasks share."""

    x_dim, likelihood, intercept = 20, SquaredError(1), False

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return tasks with new weights and rows."""
        directions = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
        weights = torch.randn(n_tasks, 1, 3, generator=generator) @ directions
        x = torch.randn(n_tasks, self.support_rows + self.query_rows, 20, generator=generator)
        noise = torch.randn(*x.shape[:2], 1, generator=generator)
        rows = Batch(x, (x * weights).sum(-1, keepdim=True) + noise)
        return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, rows.n_rows))


def errors(learner, task, rows):
    """Return the mean squared error after each number of rows."""
    found = {}
    for count, state in enumerate(learner.states(task.support.split(8))):
        if 8 * count in rows:
            found[8 * count] = learner.loss(task.query, state).mean().item()
    return found


family, rows = Shared(), (8, 16, 32, 64)
task = family.sample(256, torch.Generator().manual_seed(1))

learnt = []
for seed in range(1 if SMOKE else 3):
    torch.manual_seed(seed)
    learner = build("closed-form", family, features=32)
    config = TrainConfig(iterations=20 if SMOKE else 300, tasks=16, lr=0.01, seed=seed)
    train(learner, family, Unrolled(batch_size=8, horizon=8), config, progress=False)
    learnt.append(errors(learner, task, rows))

tuning = family.sample(256, torch.Generator().manual_seed(2))
ridges = {strength: build("ridge", family, strength=strength) for strength in (0.1, 0.3, 1, 3, 10, 30)}
tuned = {strength: errors(ridge, tuning, rows) for strength, ridge in ridges.items()}

result = {}
print("rows  learnt (each seed)      best ridge")
for count in rows:
    best = min(tuned, key=lambda strength: tuned[strength][count])
    ridge = errors(ridges[best], task, (count,))[count]
    print(f"{count:4}  {' '.join(f'{e[count]:6.2f}' for e in learnt):22}  {ridge:6.2f}")
    result[count] = {"learnt": [e[count] for e in learnt], "best ridge": ridge, "strength": best}

if len(sys.argv) > 1:
    Path(sys.argv[1]).write_text(json.dumps(result, indent=1) + "\n")
