# A task family of your own: a learner is trained, saved, shown, judged and compared. Run: python own_family.py
from dataclasses import dataclass

import torch

from gradatim import Batch, Greedy, Recipe, Task, TaskFamily, TrainConfig, compare, method, train
from gradatim.cli import main
from gradatim.likelihood import SquaredError


@dataclass(frozen=True, kw_only=True)
class Waves(TaskFamily):  # sines of unknown phase: x is one number, and so is y
    x_dim, likelihood = 1, SquaredError(1)

    def sample(self, n_tasks, generator):
        x = 6 * torch.rand(n_tasks, self.support_rows + self.query_rows, 1, generator=generator) - 3
        rows = Batch(x, torch.sin(x + 3 * torch.rand(n_tasks, 1, 1, generator=generator)))
        return Task(rows.slice(0, self.support_rows), rows.slice(self.support_rows, rows.n_rows))


if __name__ == "__main__":
    run = Recipe(method("explicit-both"), Waves(), Greedy(16, horizon=3), TrainConfig(iterations=20))
    train(run.learner(), run.family, run.scheme, run.train, "runs/waves", {"recipe": run.to_json()})
    assert main(["info", "runs/waves"]) == main(["eval", "runs/waves", "--steps", "1,5"]) == 0
    print(compare(["explicit-both", "maml", "ridge", "adam"], Waves(), train=run.train, seeds=1).table())
