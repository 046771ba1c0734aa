"""Meta-train a learner on linear regressions. Then let it read a new task, one mini-batch at a time.

python tutorials/01_first_learner.py        # about a minute; GRADATIM_SMOKE=1: seconds, numbers without meaning
"""

import os

import torch
from rich.console import Console

from gradatim import Greedy, LinearRegression, TrainConfig, build, train
from gradatim.metrics import curve, excess_risk

smoke = os.environ.get("GRADATIM_SMOKE") == "1"
console = Console()

# A task family is a distribution over tasks. Here y = w'x + noise, and every task has its own w.
family = LinearRegression(dim=4, noise_std=0.5, support_rows=80)

# A parametric learner: the model is linear, its weights are the state, and a small transformer refines them.
torch.manual_seed(0)
learner = build("parametric-both", family, width=32)

# Greedy is the scheme of the paper: every step is trained by itself, and no gradient crosses a step.
scheme = Greedy(batch_size=8, horizon=10, relative=True)
train(learner, family, scheme, TrainConfig(iterations=10 if smoke else 400, tasks=16, lr=3e-3))

# New tasks. There is a state after every mini-batch, and a prediction from every state.
task = family.sample(256, torch.Generator().manual_seed(1))
states = list(learner.states(task.support.split(8)))
prediction = learner.predict(task.query.x, states[-1])
console.print(
    f"{len(states)} states for {task.n_tasks} tasks, predictions of shape {tuple(prediction.shape)}"
)

# How far is this from the best possible prediction, the Bayes posterior mean on the same rows?
steps = (1, 2, 5, 10)
risks = curve(learner, task, 8, steps, {"excess": excess_risk})["excess"].mean(axis=1)
for step, risk in zip(steps, risks, strict=True):
    best = excess_risk(family.oracle(task, 8 * step), task).mean()
    console.print(f"after {8 * step:3d} rows: excess risk {risk:.3f}, the best possible {best:.3f}")
