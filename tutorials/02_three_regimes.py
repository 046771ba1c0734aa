"""The same tasks in the three regimes: what is the state, and what can you do with it?

python tutorials/02_three_regimes.py        # about three minutes; GRADATIM_SMOKE=1: seconds
"""

import os
import tempfile
from pathlib import Path

import torch
from rich.console import Console

from gradatim import load_state, recipe, save_state, train
from gradatim.comparison.runs import sample_tasks
from gradatim.metrics import curve, error_rate
from gradatim.recipes import from_json

smoke = os.environ.get("GRADATIM_SMOKE") == "1"
console = Console()

# Three recipes: tasks made of real images of digits, and a learner of each regime.
learners = {}
for name in ("digits", "digits-explicit", "digits-implicit"):
    run = recipe(name).to_json()
    run["train"] |= {"iterations": 3 if smoke else 100, "tasks": 2 if smoke else 16}
    run = from_json(run)
    learners[name] = train(run.learner(), run.family, run.scheme, run.train).learner
    task = sample_tasks(run.family.on("test"), 4 if smoke else 64, seed=0)
    errors = curve(learners[name], task, 50, (1, 5, 10), {"error": error_rate})["error"].mean(axis=1)
    console.print(
        f"{name}: error {errors[0]:.2f} after 50 rows, {errors[1]:.2f} after 250, {errors[2]:.2f} after 500"
    )

# A parametric state is the weights of a known model. An explicit state is a task embedding. Both serve any query, so
# both can be saved, and learning can go on from the file.
learner = learners["digits"]
with torch.no_grad():
    state = learner.adapt(task.support.slice(0, 250), batch_size=50)
    path = Path(tempfile.mkdtemp()) / "tasks.safetensors"
    save_state(path, state, learner)
    again = load_state(path, learner)
    for batch in task.support.slice(250, 500).split(50):
        again = learner.step(again, batch)
    one_pass = learner.adapt(task.support, batch_size=50)
console.print(
    f"saved half way and resumed, the state is the same: {torch.equal(again.latent, one_pass.latent)}"
)

# An implicit state is the predictions for given queries. It cannot be saved, and the error says why.
try:
    save_state(path, None, learners["digits-implicit"])
except ValueError as refusal:
    console.print(f"implicit: {refusal}")
