"""`compare`: methods side by side on a family of tasks, meta-trained or tuned first, judged on the same tasks.

Source: Mittal et al. 2025, section 4; intervals over seeds and tasks by the bootstrap (Efron, Tibshirani 1993).
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from ..metrics import mean_interval
from ..training.snapshot import describe
from .panel import run_experiment, trained_runs
from .plan import Plan, check_count, make_plan, refuse_unimportable
from .result import Comparison
from .runs import Study

if TYPE_CHECKING:
    from torch import Tensor

    from ..family import TaskFamily
    from ..learner import Learner
    from ..methods import Method
    from ..metrics import Metric
    from ..training.schemes import Scheme
    from ..training.train import TrainConfig
    from .experiment import Experiment


def compare(
    methods: Sequence[str | Method] | Mapping[str, str | Method | Learner],
    family: TaskFamily | str,
    *,
    steps: Iterable[int] = (1, 2, 5, 10),
    batch_size: int | None = None,
    tasks: int = 64,
    seeds: int = 3,
    train: TrainConfig | None = None,
    scheme: Scheme | None = None,
    metrics: Mapping[str, Metric] | None = None,
    out: Path | str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Comparison:
    """Return how well methods predict after each number of mini-batches, on the same unseen tasks.

    Methods with parameters to meta-train are trained with each seed. Others are tuned over the grids of their options
    to be best after the last step, or the tenth if that is earlier. Options that a `Method` has away from their
    defaults are not tuned. Both use `family.on("train")`. All are judged on `family.on("test")`, beside the family's
    oracle where it has one.

    Args:
        methods: names, aliases, import paths or `Method` values; or a dictionary of these and of trained learners.
        family: the tasks, or the name of a family whose fields have defaults.
        steps: numbers of mini-batches after which to judge. Supports grow to the rows that the last one needs.
        batch_size: rows of a mini-batch; by default that of `scheme`, else up to 16 as `family.support_rows` allows.
        tasks, seeds: how many tasks are judged, and how often each method is meta-trained.
        train: settings of meta-training; by default 500 iterations of 16 tasks.
        scheme: how methods are meta-trained; by default Greedy, or Unrolled for methods that need it. Methods of one
            step train on single steps, of as many more tasks.
        metrics: functions from outputs `[B, Nq, C]` and tasks to errors `[B]`, by name; the first one tunes. By default
            the error rate, or the squared error and, where known, the excess risk.
        out: a folder for learners and records, where the same call goes on. By default nothing is stored. Choose
            another folder after a change of code in a method of yours: that is not noticed.
        workers: processes that meta-train at a time. With 1, all happens in this process.
        progress: show a progress bar on a terminal.

    Raises:
        ValueError: no methods, two of one name, an unknown name, a method that the family or the scheme does not suit,
            numbers below 1, or tasks with fewer rows than the last step needs.

    Example:
        >>> from gradatim import LinearRegression, TrainConfig, compare
        >>> train = TrainConfig(iterations=2, tasks=2)
        >>> compare(["ridge", "maml"], LinearRegression(2), steps=(1, 2), tasks=4, seeds=1, train=train)
        Comparison(ridge, maml, oracle on LinearRegression: 4 tasks, steps 1, 2)
    """
    for name, count in (("tasks", tasks), ("seeds", seeds), ("workers", workers)):
        check_count(name, count)
    plan = make_plan(methods, family, steps, batch_size, tasks, metrics, train, scheme)
    if workers > 1:
        refuse_unimportable(plan.experiment.recipes)
    with _folder(out) as folder, _Progress(plan, seeds, progress) as bar:
        home = Path(folder) / f"{type(plan.family).__name__}-{_digest(plan.family)}"
        study = Study(home, workers, bar.console, isolated=workers > 1, report=bar.advance)
        return _measure(study, plan, seeds)


def _folder(out: Path | str | None) -> AbstractContextManager[Path | str]:
    """Return the folder to write to: a temporary one by default."""
    return tempfile.TemporaryDirectory() if out is None else nullcontext(out)


def _digest(family: TaskFamily) -> str:
    """Return a hash of a family's fields and of two of its tasks: learners of other tasks are other learners."""
    task = family.on("train").sample(2, torch.Generator().manual_seed(0))
    fields = json.dumps(describe(family), sort_keys=True)
    return _hash(fields, task.support.x, task.support.y, task.query.x, task.query.y)[:8]


def _judgement(experiment: Experiment) -> str:
    """Return a hash of two of the tasks that are judged, of their best answers and of the errors of some outputs.

    The code of a family or of a metric may change while its name stays.
    """
    family, generator = experiment.family, torch.Generator().manual_seed(0)
    task = family.sample(2, generator)
    rows = task.support.x, task.support.y, task.query.x, task.query.y
    outputs = torch.randn(2, task.query.n_rows, family.likelihood.output_dim, generator=generator)
    errors = [metric(outputs, task) for metric in experiment.metrics.values()]
    return _hash("", *rows, task.truth, family.oracle(task, experiment.batch_size), *errors)


def _hash(text: str, *tensors: Tensor | None) -> str:
    """Return a hash of a text and of tensors of any shape."""
    digest = hashlib.sha256(text.encode())
    for tensor in tensors:
        if tensor is not None:
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _measure(study: Study, plan: Plan, seeds: int) -> Comparison:
    """Run the experiment of a plan and return its records."""
    experiment, rows = replace(plan.experiment, judgement=_judgement(plan.experiment)), []
    with np.errstate(all="ignore"):  # errors of methods that diverge
        results = run_experiment(study, experiment, seeds, rows)
    runs = trained_runs(study, experiment, seeds)
    settings = {row["name"]: row["setting"] for row in rows}
    records = []
    for name in [*plan.parameters, *(name for name in results if name not in plan.parameters)]:
        seconds = [run.seconds for run in runs.get(name, ())]
        about = {
            "method": name,
            "learnt": name in runs or (name in experiment.learners and plan.parameters[name] > 0),
            "parameters": plan.parameters.get(name, 0),
            "setting": settings[name],
        }
        for metric, values in results[name].items():
            parts: dict[Any, np.ndarray] = {"all" if seconds else None: values}
            parts |= {seed: values[seed : seed + 1] for seed in range(len(seconds))}
            for seed, array in parts.items():
                spent = seconds[seed] if isinstance(seed, int) else sum(seconds) / max(1, len(seconds))
                records += [
                    _record(about, seed, step, experiment.batch_size, metric, array[:, place], spent)
                    for place, step in enumerate(experiment.steps)
                ]
    return Comparison(experiment.name, experiment.batch_size, experiment.tasks, seeds, records)


def _record(
    about: dict[str, Any],
    seed: Any,
    step: int,
    batch_size: int,
    metric: str,
    values: np.ndarray,
    seconds: float,
) -> dict[str, Any]:
    """Return a record of values `[S, T]`: their mean and its interval over seeds and tasks, NaN where any diverged."""
    finite = bool(np.isfinite(values).all())
    mean, low, high = mean_interval(values) if finite else (math.nan,) * 3
    return {
        "method": about["method"],
        "learnt": about["learnt"],
        "seed": seed,
        "step": step,
        "rows": step * batch_size,
        "metric": metric,
        "mean": mean,
        "low": low,
        "high": high,
        "seconds": round(seconds, 2),
        "parameters": about["parameters"],
        "setting": about["setting"],
    }


class _Progress:
    """A bar that advances whenever a learner is meta-trained or a method judged."""

    def __init__(self, plan: Plan, seeds: int, visible: bool) -> None:
        self.console = Console(stderr=True, quiet=not visible)
        self._bar = Progress(console=self.console, transient=True, disable=not self.console.is_terminal)
        experiment = plan.experiment
        count = (
            len(experiment.recipes) * (seeds + 1) + len(experiment.baselines) + len(experiment.learners) + 1
        )
        self._job = self._bar.add_task("meta-training" if experiment.recipes else "judging", total=count)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def advance(self, sentence: str) -> None:
        """Advance by one part of the work, and show what ended."""
        self._bar.update(self._job, advance=1, description=sentence)
