"""Your own data in two families of the paper: classes of embeddings, and points to generate.

python tutorials/05_embeddings_and_points.py    # about three minutes; GRADATIM_SMOKE=1: seconds
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from gradatim import Greedy, TrainConfig, train
from gradatim.comparison.plots import clouds
from gradatim.comparison.runs import sample_tasks
from gradatim.families import EmbeddingClassification, GaussianMixture
from gradatim.families.flows import flow_points
from gradatim.generation import generate, sample_curve
from gradatim.methods import build
from gradatim.metrics import curve, error_rate

smoke = os.environ.get("GRADATIM_SMOKE") == "1"
console, folder = Console(), Path(tempfile.mkdtemp())

# Any npz or Parquet file of `embeddings [n, d]` and `labels [n]` is a distribution over tasks: for example images
# through DINOv2, or sentences through an encoder. Here 60 classes are simulated. Test classes are not in training.
rng = np.random.default_rng(0)
labels = np.repeat(np.arange(60), 40)
np.savez(
    folder / "mine.npz",
    embeddings=rng.normal(size=(60, 64))[labels] + rng.normal(size=(2400, 64)),
    labels=labels,
)
family = EmbeddingClassification(str(folder / "mine.npz"), dim=32, ways=5, support_rows=80, query_rows=40)
learner = build("parametric-both", family)
length = TrainConfig(iterations=3 if smoke else 200, tasks=2 if smoke else 16)
train(learner, family, Greedy(batch_size=8, horizon=10), length)
task = sample_tasks(family.on("test"), 4 if smoke else 64, seed=0)
errors = curve(learner, task, 8, (1, 5, 10), {"error": error_rate})["error"].mean(axis=1)
console.print(
    f"five new classes: error {errors[0]:.2f} after 8 rows, {errors[1]:.2f} after 40, {errors[2]:.2f} after 80"
)

# Generation by flow matching: a row is a point on its way from noise, and the learner predicts its velocity. The
# method `kernel` is not meta-trained. It follows the kernel density of the points, and is the baseline to beat.
mixture = GaussianMixture(dim=2, support_rows=320, query_rows=128)
flow = build("parametric-both", mixture, hidden=(32, 32))
train(flow, mixture, Greedy(batch_size=32, horizon=10), length)
task = sample_tasks(mixture, 4, seed=0)
for name, candidate in {"parametric": flow, "kernel": build("kernel", mixture, width=0.2)}.items():
    energy = sample_curve(candidate, task, 32, (1, 5, 10))["energy"].mean(axis=1)
    console.print(f"{name}: energy distance {energy[0]:.3f} after 32 points, {energy[2]:.3f} after 320")
generator = torch.Generator().manual_seed(0)
points = generate(flow, task.support, 128, generator, batch_size=32)
notice = clouds(
    folder / "points.png", "mixtures", {"truth": flow_points(task.query).numpy(), "generated": points.numpy()}
)
console.print(notice or f"drawn in {folder / 'points.png'}")
