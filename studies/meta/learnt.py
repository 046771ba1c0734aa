"""Learners that other tasks train, and learners that learn nothing, judged on the same tasks. Their work is stored.

A learner that is trained has a folder with its checkpoints, from which an interrupted run goes on, its weights, and
what it cost: seconds by the clock, and seconds of the processor, which do not depend on what else a machine does.

Source: this project's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gradatim.files.checkpoint import latest, load_weights, write_bytes
from gradatim.metrics import error_rate
from gradatim.provenance import commit, on_threads
from gradatim.training.config import TrainConfig
from gradatim.training.prefixes import Prefixes
from gradatim.training.train import train

from .sources import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.batch import Task
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study
    from gradatim.families import Sinusoids
    from gradatim.families.sampling import PooledClassification
    from gradatim.learner import Learner
    from gradatim.methods import Method

CHUNK = 20
"""Tasks that are drawn together."""

VALIDATION, TEST = 1, 2
"""Draws of validation and of test tasks."""


@dataclass(frozen=True)
class Training:
    """How a learner is trained: the tasks, and iterations of so many of them; the keys may stay as they are drawn."""

    family: Any
    scheme: Prefixes
    config: TrainConfig
    fixed_keys: bool = False


class Setting(NamedTuple):
    """A learner and its training, but for the seed. Without training it stays as it is drawn."""

    method: Method
    training: Training | None = None

    def on(self, seed: int) -> Setting:
        """Return the setting with a seed of training."""
        if self.training is None:
            return self
        config = replace(self.training.config, seed=seed)
        return Setting(self.method, replace(self.training, config=config))


class Judged(NamedTuple):
    """A job: a setting, the seed of its training, and the tasks that judge it after some numbers of rows."""

    setting: Setting
    seed: int
    family: Any
    n_tasks: int
    draw: int
    rows: tuple[int, ...]
    size: int
    loss: str = "error_rate"


def truth_error(outputs: Tensor, task: Task) -> Tensor:
    """Return the squared error of each task to the noiseless answer, `[B]`."""
    assert task.truth is not None
    return (outputs - task.truth).square().mean((1, 2))


LOSSES: dict[str, Callable[[Tensor, Task], Tensor]] = {"error_rate": error_rate, "truth_error": truth_error}


def modules(*parts: Any) -> tuple[str, ...]:
    """Return the modules that define methods and families, and this one."""
    return (__name__, *sorted({type(part).__module__ for part in parts if part is not None}))


# --- training


def run_folder(study: Study, setting: Setting, seed: int) -> Path:
    """Return the folder of a learner that is trained; other code or another setting has another one."""
    assert setting.training is not None
    code = fingerprint(*modules(setting.method, setting.training.family))
    text = f"{code} {described(setting.on(seed))}"
    name = f"{type(setting.method).__name__.lower()}-{setting.training.config.iterations}-{seed}"
    return study.folder / "runs" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def described(setting: Setting) -> str:
    """Return a setting as text, without what does not change its numbers."""
    if setting.training is None:
        return str(setting.method)
    training = setting.training
    keys = " fixed keys" if training.fixed_keys else ""
    return f"{setting.method} {training.family} {training.scheme} {asdict(training.config)}{keys}"


def drawn_learner(setting: Setting, seed: int, family: Any) -> Learner:
    """Return a learner as a seed draws it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return setting.method.build(family)


def trained(study: Study, setting: Setting, seed: int) -> Learner:
    """Return a trained learner: read from its folder, or trained there, from its last checkpoint if there is one."""
    setting, folder = setting.on(seed), run_folder(study, setting, seed)
    training = setting.training
    assert training is not None
    learner = drawn_learner(setting, seed, training.family)
    if training.fixed_keys:
        learner.predictor.encoder.requires_grad_(False)
    path = folder / "learner.safetensors"
    if (folder / "cost.json").exists() and path.exists():
        load_weights(learner, path)
        return learner.eval()
    clock = Clock(folder)
    with on_threads(1):
        result = train(
            learner,
            training.family,
            training.scheme,
            training.config,
            folder,
            resume=folder.exists(),
            progress=False,
            on_log=clock,
        )
    cost = {
        "cpu_seconds": clock.total,
        "seconds": result.seconds,
        "losses": [entry["loss"] for entry in result.log],
        "setting": described(setting),
        "commit": commit(),
    }
    write_bytes(folder / "cost.json", (json.dumps(cost) + "\n").encode())
    return learner.eval()


class Clock:
    """Seconds of the processor that a training takes, those before an interruption included.

    Args:
        folder: of the run, where they are stored beside each checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock.json"
        self.marks: dict[str, float] = json.loads(self.path.read_text()) if self.path.exists() else {}
        checkpoint = latest(folder) if folder.exists() else None
        step = "" if checkpoint is None else str(int(checkpoint.stem.split("-")[1]))
        self.before, self.begin = self.marks.get(step, 0.0), process_time()

    @property
    def total(self) -> float:
        """Return the seconds so far."""
        return self.before + process_time() - self.begin

    def __call__(self, record: dict[str, Any]) -> None:
        """Note the seconds at an iteration that is logged, which is before its checkpoint is written."""
        self.marks[str(record["iteration"])] = self.total
        write_bytes(self.path, json.dumps(self.marks).encode())


def cost(study: Study, setting: Setting, seed: int) -> dict[str, Any]:
    """Return what a trained learner cost: `cpu_seconds`, `seconds`, `losses`."""
    return json.loads((run_folder(study, setting, seed) / "cost.json").read_text())


# --- judging


def served(study: Study, job: Judged) -> Learner:
    """Return the learner of a job for the family that judges it, whose number of ways may be another."""
    if job.setting.training is None:
        return drawn_learner(job.setting, job.seed, job.family).eval()
    learner = job.setting.method.build(job.family)
    learner.load_state_dict(trained(study, job.setting, job.seed).state_dict())
    return learner.eval()


def drawn(family: Any, n_tasks: int, draw: int) -> Iterator[Task]:
    """Yield tasks of a family, `CHUNK` at a time: the same ones for whoever is judged."""
    generator = torch.Generator().manual_seed(draw)
    for start in range(0, n_tasks, CHUNK):
        yield family.sample(min(CHUNK, n_tasks - start), generator)


@torch.no_grad()
def losses(
    learner: Learner, tasks: Iterator[Task], rows: tuple[int, ...], size: int, loss: str
) -> np.ndarray:
    """Return the loss of each task after each number of rows, learnt in mini-batches of `size`, `[T, R]`."""
    found = []
    for task in tasks:
        query = task.query if learner.refiner.capabilities.per_query else None
        states = learner.states(task.support.slice(0, rows[-1]).split(size), query)
        by_rows = {
            step * size: LOSSES[loss](learner.predict(task.query.x, state), task).double()
            for step, state in enumerate(states)
            if step * size in rows
        }
        found.append(torch.stack([by_rows[count] for count in rows], 1))
    return torch.cat(found).numpy()


def judge(study: Study, job: Judged) -> Values:
    """Return the losses `[T, R]` of a job, computed once."""
    training = job.setting.training
    code = fingerprint(*modules(job.setting.method, training and training.family, job.family))
    depends = [code, described(job.setting.on(job.seed)), job.seed, repr(job[2:]), CHUNK]

    def measure() -> Values:
        with on_threads(1):
            tasks = drawn(job.family, job.n_tasks, job.draw)
            return {"losses": losses(served(study, job), tasks, job.rows, job.size, job.loss)}

    name = f"{type(job.setting.method).__name__.lower()}-{getattr(job.family, 'split', 'tasks')}"
    return study.cached(name, depends, measure)


# --- trainings


def classes_training(family: PooledClassification, iterations: int, turned: bool = False) -> Training:
    """Return the training of a learner of classes: thirty ways, a hundred rows, ten prefixes; letters may be turned."""
    family = replace(family, ways=30, query_rows=60, **({"turned": True} if turned else {}))
    return Training(family, Prefixes(batch_size=10, horizon=10), _config(iterations, tasks=4))


def shots_training(family: PooledClassification, iterations: int) -> Training:
    """Return the training for few rows of each class: sixty ways, two rows of each, turned letters."""
    ways = 60
    family = replace(
        family, **{"ways": ways, "support_rows": ways * 2, "query_rows": ways, "shots": 2, "turned": True}
    )
    return Training(family, Prefixes(batch_size=ways // 2, horizon=4), _config(iterations, tasks=4))


def waves_training(family: Sinusoids, iterations: int) -> Training:
    """Return the training of a learner of sinusoids: four prefixes of random length out of forty."""
    family = replace(family, query_rows=20)
    return Training(family, Prefixes(batch_size=1, horizon=40, chosen=4), _config(iterations, tasks=64))


def _config(iterations: int, tasks: int) -> TrainConfig:
    return TrainConfig(iterations=iterations, tasks=tasks, lr=5e-3, ema=0.99)
