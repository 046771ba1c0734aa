"""Training across processes: do two of them take the step that one would take on all their tasks.

`python -m studies.images.processes HOME` trains the recipes in HOME/asked.json, one after the other.

Source: Li et al. 2020, PyTorch Distributed: the mean of gradients is the gradient of the mean loss.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.batch import Batch, Task
from gradatim.comparison.runs import claim
from gradatim.families import LinearClassification
from gradatim.files.checkpoint import read, select_prefix, step_files
from gradatim.methods import method
from gradatim.recipes import Recipe, from_json, recipe
from gradatim.training.schemes import Greedy
from gradatim.training.train import TrainConfig, streams, train

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study

REGIMES = {"parametric": "digits", "explicit": "digits-explicit", "implicit": "digits-implicit"}
"""The recipe of each regime."""

ROOT = Path(__file__).parents[2]
"""Where the package of studies is imported from."""

PATIENCE = 600
"""Seconds after which two processes are taken to wait for each other for ever."""


def ddp(study: Study, smoke: bool) -> dict[str, Any]:
    """Return `images.ddp`: the distance of two processes' gradient to one process's on all their tasks, float32.

        |g_2 - g_1| / |g_1|

    The largest of three regimes, at the last iteration of a run that `train` makes with two gloo processes: g_2 stands
    in its last checkpoint, g_1 is taken at the weights of the one before.

    Raises:
        ValueError: the run failed, its last lines are quoted; or it did not end.

    Source: Li et al. 2020.
    """
    runs = recipes(smoke)
    about = {name: run.to_json() for name, run in runs.items()}
    values = study.cached("ddp", about, lambda: _distances(study.folder / "ddp", runs))
    distances = {name: float(f"{float(values[name]):.3g}") for name in runs}
    least, largest = min(distances.values()), max(distances.values())
    exact = {"value": largest, "low": least, "high": largest}  # claim rounds to what is above the bar
    return {
        **claim("images.ddp", largest, least, largest, 1e-5, "<="),
        **exact,
        "range": "least and most of the regimes",
        "regimes": distances,
    }


def recipes(smoke: bool) -> dict[str, Recipe]:
    """Return a run with two processes for each regime; with betas[0] = 0, AdamW's first moment is the gradient."""
    training = TrainConfig(
        iterations=24 if smoke else 4,
        tasks=4 if smoke else 16,
        betas=(0.0, 0.98),
        clip=None,
        threads=2,
        checkpoint_every=1,
        devices=2,
        accelerator="cpu",
    )
    runs = {regime: replace(recipe(name), train=training) for regime, name in REGIMES.items()}
    if not smoke:
        return runs
    tiny = {
        "family": LinearClassification(4, 3, support_rows=16, query_rows=8),
        "scheme": Greedy(batch_size=8, horizon=2),
    }
    return {
        regime: replace(run, method=replace(method(run.name), width=16, layers=1), **tiny)
        for regime, run in runs.items()
    }


def _distances(home: Path, runs: dict[str, Recipe]) -> dict[str, np.ndarray]:
    """Train with two processes and return each run's distance."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "asked.json").write_text(json.dumps({name: run.to_json() for name, run in runs.items()}))
    command = [sys.executable, "-m", "studies.images.processes", str(home.resolve())]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"training with two processes did not end in {PATIENCE} s") from error
    if done.returncode:
        raise ValueError(f"training with two processes failed: {(done.stderr or done.stdout)[-2000:]}")
    return {name: np.asarray(_distance(home / name, run)) for name, run in runs.items()}


def _distance(folder: Path, run: Recipe) -> float:
    """Return how far the gradient in a run's last checkpoint is from that of one process on the union of tasks."""
    before, after = (read(path, "checkpoint")[0] for path in list(step_files(folder).values())[-2:])
    learner = run.learner()
    learner.load_state_dict(select_prefix(before, "weights"))
    share, last = run.train.tasks // run.train.devices, run.train.iterations - 1
    draws = [streams(run.train.seed, last, rank) for rank in range(run.train.devices)]
    tasks = [run.family.sample(share, tasks) for tasks, _ in draws]
    union = Task(_joined([task.support for task in tasks]), _joined([task.query for task in tasks]))
    run.scheme.loss(learner.train(), union, draws[0][1]).backward()
    pairs = [
        (parameter.grad, after[f"optimizer.{name}.exp_avg"])
        for name, parameter in learner.named_parameters()
        if parameter.grad is not None
    ]
    one, two = (torch.cat([g.flatten().double() for g in side]) for side in zip(*pairs, strict=True))
    return float((two - one).norm() / one.norm())


def _joined(batches: list[Batch]) -> Batch:
    """Return the tasks of several batches as one."""
    return Batch(*(torch.cat([getattr(b, name) for b in batches]) for name in ("x", "y", "weight")))


def _train(home: Path) -> None:
    for name, asked in json.loads((home / "asked.json").read_text()).items():
        run = from_json(asked)
        train(run.learner(), run.family, run.scheme, run.train, home / name, progress=False)


if __name__ == "__main__":
    _train(Path(sys.argv[1]))
