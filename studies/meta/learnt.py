"""Learners that other tasks train, and learners that learn nothing, judged on the same tasks. Their work is stored.

A learner that is trained has a folder with its checkpoints, from which an interrupted run goes on, its weights, and
what it cost: seconds by the clock, and seconds of the processor, which do not depend on what else a machine does.

Source: this project's own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
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
from gradatim.training.train import TrainingResult, train

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

STEPS = tuple(f"gradatim.training.{name}" for name in ("config", "prefixes", "schemes", "train"))
"""Modules that say what an iteration of training does."""

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
    """Return the folder of a learner that is trained; another setting has another one."""
    assert setting.training is not None
    name = f"{type(setting.method).__name__.lower()}-{setting.training.config.iterations}-{seed}"
    return study.folder / "runs" / f"{name}-{_digest(described(setting.on(seed)))}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def described(setting: Setting) -> str:
    """Return a setting as text."""
    if setting.training is None:
        return str(setting.method)
    training = setting.training
    keys = " fixed keys" if training.fixed_keys else ""
    return f"{setting.method} {training.family} {training.scheme} {asdict(training.config)}{keys}"


def drawn_learner(setting: Setting, seed: int, family: Any) -> Learner:
    """Return a learner as a seed draws it; for the family that trains it, keys that are fixed learn nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = setting.method.build(family)
    if setting.training is not None and setting.training.fixed_keys:
        encoder: Any = learner.predictor.encoder
        encoder.requires_grad_(False)
    return learner


def trained(study: Study, setting: Setting, seed: int) -> Learner:
    """Return a trained learner: read from its folder, or trained there, from its last checkpoint if there is one.

    It is trained anew where other code would train another one, see `is_current`.
    """
    setting, folder = setting.on(seed), run_folder(study, setting, seed)
    assert setting.training is not None
    learner = drawn_learner(setting, seed, setting.training.family)
    if (folder / "cost.json").exists() and is_current(study, setting, seed):
        load_weights(learner, folder / "learner.safetensors")
        return learner.eval()
    code = code_of(setting)
    begun = folder / "begun.txt"
    if folder.exists() and ((folder / "cost.json").exists() or begun.read_text() != code):
        study.notify(f"{folder.name}: the code has changed, it is trained anew")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(begun, code.encode())
    clock = Clock(folder)
    result = run_training(learner, setting.training, clock, folder)
    facts = {
        "cpu_seconds": clock.total,
        "seconds": result.seconds,
        "losses": [entry["loss"] for entry in result.log],
        "setting": described(setting),
        "commit": commit(),
        "codes": [code],
        "steps": fingerprint(*STEPS, alone=True),
        "probe": probe(setting, seed),
    }
    write_bytes(folder / "cost.json", (json.dumps(facts) + "\n").encode())
    return learner.eval()


def run_training(
    learner: Learner, training: Training, on_log: Callable[[dict[str, Any]], None], folder: Path | None
) -> TrainingResult:
    """Train a learner on one thread, in a folder from where it was stopped."""
    tasks, scheme, config = training.family, training.scheme, training.config
    with on_threads(1):
        return train(learner, tasks, scheme, config, folder, {}, folder is not None, False, on_log)


def code_of(setting: Setting) -> str:
    """Return a hash of the code that trains a setting."""
    return fingerprint(*modules(setting.method, setting.training and setting.training.family))


def is_current(study: Study, setting: Setting, seed: int) -> bool:
    """Return whether the code of now would train the learner that is stored.

    It does where the code that is reached has not changed; or where the code of the steps of training has not, and the
    first iterations have the losses that they had. This is noted and said.
    """
    folder, facts = run_folder(study, setting, seed), cost(study, setting, seed)
    code = code_of(setting)
    if code in facts["codes"]:
        return True
    if facts["steps"] != fingerprint(*STEPS, alone=True):
        return False
    if not np.allclose(probe(setting, seed), facts["probe"], rtol=1e-5, atol=0):
        return False
    study.notify(f"{folder.name}: the code has changed and its first iterations have not, it is kept")
    write_bytes(
        folder / "cost.json", (json.dumps(facts | {"codes": [*facts["codes"], code]}) + "\n").encode()
    )
    return True


class _Enough(Exception):
    """The first iterations have been seen."""


def probe(setting: Setting, seed: int, count: int = 4) -> list[float]:
    """Return the losses of the first iterations of a training."""
    setting, seen = setting.on(seed), []
    training = setting.training
    assert training is not None

    def see(record: dict[str, Any]) -> None:
        seen.append(record["loss"])
        if len(seen) == count:
            raise _Enough

    config = replace(training.config, log_every=1)
    learner = drawn_learner(setting, seed, training.family)
    with suppress(_Enough):
        run_training(learner, replace(training, config=config), see, None)
    return seen


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
    """Return what is known of a trained learner: `cpu_seconds`, `seconds`, `losses` and more."""
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
