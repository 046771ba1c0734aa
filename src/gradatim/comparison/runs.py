"""What comparisons stand on: meta-trained learners, tuned baselines, and records that survive a kill.

Source: Mittal et al. 2025, section 4: learners trained and judged side by side on the same tasks.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..files.checkpoint import latest, load_weights, read_header, write_bytes
from ..methods import variant
from ..metrics import curve as metric_curve
from ..provenance import commit, process_environment, processes_on_threads, provenance
from ..recipes import Recipe, from_json
from ..training.snapshot import describe, describe_learner, difference
from ..training.train import train

if TYPE_CHECKING:
    from rich.console import Console

    from ..batch import Task
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric


_PRELOADED = [
    "gradatim.comparison.runs",
    "lightning_fabric",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
]
"""Modules that a process for meta-training needs: loaded by the server that forks such processes, once."""


@dataclass(frozen=True)
class TrainedRun:
    """A meta-trained learner: its recipe, and what it cost.

    Attributes:
        recipe: what it was trained by.
        seconds: of meta-training.
        peak_memory: of its process, in bytes.
        threads: that it was trained on.
        load: reads the weights, or makes them again where they are not in the study's folder.
        change: makes another learner of the trained one.
    """

    recipe: Recipe
    seconds: float
    peak_memory: int
    threads: int
    load: Callable[[], Learner]
    change: Callable[[Learner], Learner] | None = None

    @cached_property
    def learner(self) -> Learner:
        """Return the learner, in eval mode."""
        return self._changed(self.load())

    @cached_property
    def description(self) -> list[Any]:
        """Return as JSON the recipe, threads aside, and the learner that this version builds of it."""
        return [_plain_json(self.recipe), describe_learner(self._changed(self.recipe.learner()))]

    def _changed(self, learner: Learner) -> Learner:
        return learner if self.change is None else self.change(learner)


@dataclass(frozen=True)
class Study:
    """A folder of meta-trained learners and records. The same work in the same folder goes on where it was stopped.

    Attributes:
        folder: where `runs/` and `records/` lie.
        workers: processes at a time.
        console: for progress.
        isolated: whether each learner is meta-trained in a process of its own, which measures its peak memory. A
            process takes seconds to start, and must be able to import the classes of the recipe.
        report: called with a sentence whenever a part of the work ends; by default the sentence is printed.
    """

    folder: Path
    workers: int
    console: Console
    isolated: bool = True
    report: Callable[[str], None] | None = None
    _runs: dict[str, TrainedRun] = field(default_factory=dict, init=False, repr=False, compare=False)

    def notify(self, sentence: str) -> None:
        """Report that a part of the work ended."""
        (self.report or self.console.print)(sentence)

    def train(self, recipes: Mapping[str, Recipe]) -> dict[str, TrainedRun]:
        """Meta-train each recipe, or continue a run that was interrupted; return the runs by name.

        A run is removed and trained anew where it cannot be read, or where this version builds another learner of its
        recipe. Of a finished run `cost.json` says what it cost. Its weights may be deleted: they are made again when
        they are needed.

        Raises:
            ValueError: meta-training failed, or a process was killed.
        """
        new = {
            name: recipe
            for name, recipe in recipes.items()
            if name not in self._runs or self._runs[name].recipe != recipe
        }
        costs = {name: self._cost(name, recipe) for name, recipe in new.items()}
        self._train([(name, new[name]) for name, cost in costs.items() if cost is None])
        for name, recipe in new.items():
            cost = costs[name] or self._cost(name, recipe)
            if cost is None:
                raise ValueError(
                    f"{self._run_folder(name)} was changed by another process: run one study at a time there"
                )
            self._runs[name] = TrainedRun(recipe, **cost, load=partial(self._load, name, recipe))
        return {name: self._runs[name] for name in recipes}

    def cached(
        self, key: str, inputs: Any, compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return the named arrays of a record, computed once and stored with the commit that computed them.

        Args:
            key: the name of the record.
            inputs: JSON of everything that the record depends on. Other inputs are another record.
            compute: returns the arrays, each of any shape.
        """
        text = json.dumps(self._relative(inputs), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        path = self.folder / "records" / f"{key}-{digest}.npz"
        if not path.exists():
            values = {**compute(), "commit": np.asarray(commit() or "")}
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".partial.npz")
            np.savez(unfinished, **values)  # type: ignore[arg-type]
            unfinished.replace(path)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def _run_folder(self, name: str) -> Path:
        return self.folder / "runs" / name

    def _relative(self, value: Any) -> Any:
        """Return JSON in which paths below the study's folder are relative to it, so that it may be moved."""
        if isinstance(value, dict):
            return {key: self._relative(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._relative(inner) for inner in value]
        return value.removeprefix(f"{self.folder}{os.sep}") if isinstance(value, str) else value

    def _cost(self, name: str, recipe: Recipe) -> dict[str, Any] | None:
        """Return what a finished run of the recipe cost, by `cost.json`, or None where there is no such run."""
        try:
            stored = json.loads((self._run_folder(name) / "cost.json").read_text())
            costs = {key: stored[key] for key in ("seconds", "peak_memory", "threads")}
            described, expected = stored["learner"], self._relative(_plain_json(recipe))
            same = _is_recipe(stored["recipe"], expected, self._relative)
        except (OSError, KeyError, TypeError, ValueError):  # missing, damaged, or of other fields
            return None
        return costs if same and _builds(described, recipe) else None

    def _train(self, queue: list[tuple[str, Recipe]], threads: int | None = None) -> None:
        """Meta-train recipes, several at a time where they are isolated. A failure or an interrupt ends the queue."""
        threads = threads or (max(1, (os.cpu_count() or 1) // self.workers) if self.isolated else None)
        pool = ThreadPoolExecutor(self.workers if self.isolated else 1)
        with processes_on_threads(threads or torch.get_num_threads()), pool:
            jobs = {pool.submit(self._run, name, recipe, threads): name for name, recipe in queue}
            try:
                for count, job in enumerate(as_completed(jobs), 1):
                    if error := job.exception():
                        text = f"{type(error).__name__}: {error}"
                        raise ValueError(f"meta-training {jobs[job]} failed: {text}") from error
                    self.notify(f"meta-trained {jobs[job]} ({count} of {len(jobs)})")
            except BaseException:  # an interrupt, too
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run(self, name: str, recipe: Recipe, threads: int | None) -> None:
        """Meta-train a recipe, where runs are isolated in a process of its own, and store what it cost."""
        folder, threads = self._run_folder(name), threads or torch.get_num_threads()
        if self.isolated:
            context = get_context("forkserver" if sys.platform == "linux" else "spawn")
            context.set_forkserver_preload(_PRELOADED)
            with ProcessPoolExecutor(1, context) as process:
                process.submit(train_run, recipe.to_json(), folder, threads).result()
        else:
            train_run(recipe, folder, threads)
        if self._cost(name, recipe) is None:
            header = read_header(folder / "learner.safetensors", "checkpoint")
            cost = {key: header[key] for key in ("learner", "seconds", "peak_memory")}
            cost |= {"threads": threads, "recipe": self._relative(_recipe_json(recipe))}
            write_bytes(folder / "cost.json", (json.dumps(cost) + "\n").encode())

    def _load(self, name: str, recipe: Recipe) -> Learner:
        """Return the learner of a finished run, made again where its weights are missing or damaged.

        Raises:
            ValueError: the run is another recipe's by now.
        """
        folder, cost = self._run_folder(name), self._cost(name, recipe)
        if cost is None:
            raise ValueError(f"{folder} is the run of another recipe by now: train this one again")
        path = folder / "learner.safetensors"
        if not path.exists() or not _is_current(path, recipe):
            self._train([(name, recipe)], cost["threads"])
        learner = recipe.learner()
        load_weights(learner, path)
        return learner.eval()


def one_step_recipe(recipe: Recipe, method: str) -> Recipe:
    """Return the one-step twin of a recipe: the same size and rate, and as many refinements, so more tasks."""
    training = replace(recipe.train, tasks=recipe.train.tasks * recipe.scheme.horizon)
    return replace(
        recipe,
        method=variant(recipe.method, method),
        scheme=replace(recipe.scheme, horizon=1),
        train=training,
    )


def start_process(recipe: Recipe, folder: Path, threads: int) -> subprocess.Popen[str]:
    """Start `gradatim train` on a recipe in a process, or continue its interrupted run in the folder."""
    path = prepare_folder(folder, replace(recipe, train=replace(recipe.train, threads=threads)))
    options = ["--out", str(folder), "--resume", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "gradatim", "train", str(path), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(threads),
    )


def train_run(recipe: Recipe | dict[str, Any], folder: Path, threads: int) -> None:
    """Meta-train a recipe, or its JSON, in this process, into a folder as `start_process` does."""
    recipe = recipe if isinstance(recipe, Recipe) else from_json(recipe)
    recipe = replace(recipe, train=replace(recipe.train, threads=threads))
    prepare_folder(folder, recipe)
    header = {"recipe": _recipe_json(recipe), **provenance(), "threads": threads}
    train(recipe.learner(), recipe.family, recipe.scheme, recipe.train, folder, header, True, progress=False)


def prepare_folder(folder: Path, recipe: Recipe) -> Path:
    """Write a recipe's JSON into the folder of its run, and return the file.

    The folder is emptied first where it holds the run of another recipe, threads aside, or one that cannot be read, or
    a learner that this version builds otherwise.
    """
    path, text = folder / "recipe.json", json.dumps(_recipe_json(recipe), indent=1) + "\n"
    try:
        same = not path.exists() or _is_recipe(json.loads(path.read_text()), _plain_json(recipe))
    except (KeyError, TypeError, ValueError):
        same = False
    checkpoints = [
        file for file in (folder / "learner.safetensors", latest(folder)) if file and file.exists()
    ]
    if not same or not all(_is_current(file, recipe) for file in checkpoints):
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.encode())
    return path


def _is_current(path: Path, recipe: Recipe) -> bool:
    """Return whether a checkpoint can be read and describes the learner that the recipe builds now."""
    try:
        return _builds(read_header(path, "checkpoint").get("learner"), recipe)
    except ValueError:
        return False


def _builds(described: Any, recipe: Recipe) -> bool:
    """Return whether a description is that of the learner that the recipe builds now."""
    return difference(described, describe_learner(recipe.learner())) is None


def _recipe_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as JSON; where no program can import a class of it, only a description of its parts."""
    try:
        return recipe.to_json()
    except ValueError:  # classes of a notebook or of a function
        return {name: describe(getattr(recipe, name)) for name in ("method", "family", "scheme", "train")}


def _plain_json(recipe: Recipe) -> Any:
    """Return a recipe as JSON, threads aside: equal where it makes the same weights; a list equals a tuple."""
    return _without_threads(json.loads(json.dumps(_recipe_json(recipe))))


def _is_recipe(stored: Any, expected: Any, convert: Callable[[Any], Any] = lambda value: value) -> bool:
    """Return whether the JSON of a recipe, converted, is the one expected; fields that it lacks have their defaults.

    Raises:
        ValueError, TypeError, KeyError: it is no recipe of this version.
    """
    same = convert(_without_threads(stored)) == expected
    return same or convert(_plain_json(from_json(stored))) == expected


def _without_threads(recipe: dict[str, Any]) -> dict[str, Any]:
    return recipe | {"train": recipe["train"] | {"threads": None}}


def sample_tasks(family: TaskFamily, tasks: int, seed: int) -> Task:
    """Return evaluation tasks, supports `[tasks, N, ...]`.

    `seed` chooses them, apart from all streams of meta-training.
    """
    mixed = int(np.random.SeedSequence([seed, 0, 0, 0, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return family.sample(tasks, torch.Generator().manual_seed(mixed))


def grid_search(
    build: Callable[..., Learner],
    grid: Mapping[str, Iterable[Any]],
    task: Task,
    batch_size: int,
    step: int,
    metric: Metric,
    name: str = "metric",
    curve: Callable[..., dict[str, np.ndarray]] = metric_curve,
) -> dict[str, Any]:
    """Return the setting of a grid with the lowest mean metric after `step` mini-batches.

    Args:
        build: builds the learner of a setting.
        grid: the values of each option.
        task: meta-training tasks, supports `[T, N, ...]`.
        batch_size: rows of a mini-batch.
        step: number of mini-batches.
        metric: to be minimized.
        name: what `curve` calls the metric.
        curve: computes it, as `metrics.curve` does.
    """
    best: tuple[float, dict[str, Any]] = (np.inf, {})
    for values in product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        errors = curve(build(**setting), task, batch_size, [step], {name: metric})[name]
        score = float(np.nan_to_num(errors.mean(), nan=np.inf))
        best = min(best, (score, setting), key=lambda pair: pair[0])
    return best[1]


def normal_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over tasks of values `[T]` and its normal 95% interval: (mean, low, high)."""
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def claim(name: str, value: float, low: float, high: float, bar: float, direction: str) -> dict[str, Any]:
    """Return a claim: a measured value with its interval, its bar, and whether it holds (`<=` or `>=`)."""
    holds = value <= bar if direction == "<=" else value >= bar
    rounded = {"value": value, "low": low, "high": high}
    rounded = {key: float(f"{number:.5g}") for key, number in rounded.items()}
    return {"id": name, **rounded, "bar": bar, "direction": direction, "holds": holds}
