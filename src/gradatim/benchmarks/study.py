"""What every study needs: meta-training in processes of their own, tuned baselines, records that survive a kill.

Source: DESIGN.md, Results.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..metrics import curve
from ..provenance import commit, provenance
from ..recipes import Recipe, from_json
from ..training.checkpoint import latest, load_weights, read_header
from ..training.snapshot import describe_learner, difference
from ..training.train import train

if TYPE_CHECKING:
    from rich.console import Console

    from ..batch import Task
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric


_LOADED = [
    "gradatim.benchmarks.study",
    "lightning_fabric",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
]
"""What a process that meta-trains needs: loaded once, where such processes begin, and not by each of them."""


@dataclass(frozen=True)
class Costed:
    """A meta-trained learner: its recipe, and what it cost: seconds, peak bytes of its process, threads.

    `load` reads the weights, or makes them again where they were left out of the study's folder; `change`: what is made
    of the learner that was trained.
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
    def about(self) -> list[Any]:
        """Return what the learner depends on, as JSON: its recipe, threads aside, and how this version builds it."""
        return [_plain(self.recipe), describe_learner(self._changed(self.recipe.learner()))]

    def _changed(self, learner: Learner) -> Learner:
        return learner if self.change is None else self.change(learner)


@dataclass(frozen=True)
class Study:
    """Where a study keeps its work: `folder`; `workers` processes at a time; `console` for progress.

    `apart`: whether each learner is meta-trained in a process of its own, so that its peak memory is known; not where
    starting one takes longer than the work.
    """

    folder: Path
    workers: int
    console: Console
    apart: bool = True
    _known: dict[str, Costed] = field(default_factory=dict, init=False, repr=False, compare=False)

    def train(self, recipes: Mapping[str, Recipe]) -> dict[str, Costed]:
        """Meta-train each recipe in a process of its own, and go on where one was interrupted.

        A run whose learner this version builds otherwise, or that cannot be read, is removed and trained anew. Of one
        that is done `cost.json` says what it cost; weights may be left out: they are made again when asked for.

        Raises:
            ValueError: meta-training failed, or a process was killed.
        """
        wanted = {
            name: recipe
            for name, recipe in recipes.items()
            if name not in self._known or self._known[name].recipe != recipe
        }
        self._train([(name, recipe) for name, recipe in wanted.items() if not self._done(name, recipe)])
        self._known.update({name: self._costed(name, recipe) for name, recipe in wanted.items()})
        return {name: self._known[name] for name in recipes}

    def arrays(
        self, key: str, about: Any, compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return the named arrays of one record, computed once and kept with the commit it was computed at.

        `about`: JSON that says all the record depends on; another value is another record.
        """
        digest = hashlib.sha256(self._anywhere(about).encode()).hexdigest()[:10]
        path = self.folder / "records" / f"{key}-{digest}.npz"
        if not path.exists():
            values = {**compute(), "commit": np.asarray(commit() or "")}
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **values)  # type: ignore[arg-type]
            partial.replace(path)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def _home(self, name: str) -> Path:
        return self.folder / "runs" / name

    def _anywhere(self, about: Any) -> str:
        """Return JSON as text in which files below the study's folder are named from there: it may be moved."""
        return json.dumps(about, sort_keys=True).replace(f"{self.folder}{os.sep}", "")

    def _done(self, name: str, recipe: Recipe) -> bool:
        """Return whether a run is whole: its weights are those of this recipe, or are left out beside `cost.json`."""
        path, cost = self._home(name) / "learner.safetensors", self._home(name) / "cost.json"
        try:
            stored = read_header(path, "checkpoint") if path.exists() else json.loads(cost.read_text())
            own = stored["recipe"]["recipe"]
            own = self._anywhere({**own, "train": {**own["train"], "threads": None}})
        except (OSError, KeyError, ValueError):  # not there, damaged, or of another version
            return False
        return own == self._anywhere(_plain(recipe)) and _builds(stored, recipe)

    def _train(self, waiting: list[tuple[str, Recipe]]) -> None:
        """Meta-train recipes, each in a process of its own where they are `apart`."""
        threads = max(1, (os.cpu_count() or 1) // self.workers) if self.apart else torch.get_num_threads()
        with self._pool() as pool:
            jobs = {
                pool.submit(here, recipe.to_json(), self._home(name), threads): name
                for name, recipe in waiting
            }
            for count, job in enumerate(as_completed(jobs), 1):
                if job.exception():
                    raise ValueError(
                        f"meta-training {jobs[job]} failed: {job.exception()}"
                    ) from job.exception()
                self.console.print(f"meta-trained {jobs[job]} ({count} of {len(jobs)})")

    def _pool(self) -> Executor:
        """Return what runs a job in a process that is its alone, or one job after the other in this process."""
        if not self.apart:
            return ThreadPoolExecutor(1)
        context = get_context("forkserver" if sys.platform == "linux" else "spawn")
        context.set_forkserver_preload(_LOADED)
        return ProcessPoolExecutor(self.workers, context, max_tasks_per_child=1)

    def _costed(self, name: str, recipe: Recipe) -> Costed:
        path, cost = self._home(name) / "learner.safetensors", self._home(name) / "cost.json"
        if path.exists():
            header = read_header(path, "checkpoint")
            kept = {key: header[key] for key in ("recipe", "learner", "seconds", "peak_memory")}
            cost.write_text(self._anywhere(kept) + "\n")
        header = json.loads(cost.read_text())
        threads = header["recipe"]["recipe"]["train"]["threads"] or 0
        return Costed(
            recipe, header["seconds"], header["peak_memory"], threads, partial(self._load, name, recipe)
        )

    def _load(self, name: str, recipe: Recipe) -> Learner:
        path, learner = self._home(name) / "learner.safetensors", recipe.learner()
        if not path.exists():
            self._train([(name, recipe)])
        load_weights(learner, path)
        return learner.eval()


def once(recipe: Recipe, method: str) -> Recipe:
    """Return the one-step twin of a recipe: the same size and rate, and as many refinements, so more tasks."""
    training = replace(recipe.train, tasks=recipe.train.tasks * recipe.scheme.horizon)
    return replace(recipe, method=method, scheme=replace(recipe.scheme, horizon=1), train=training)


def start(recipe: Recipe, home: Path, threads: int) -> subprocess.Popen[str]:
    """Start meta-training a recipe in a process of its own, or go on where it was interrupted in this folder."""
    asked = fresh(home, replace(recipe, train=replace(recipe.train, threads=threads)))
    options = ["--out", str(home), "--resume", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "gradatim", "train", str(asked), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )


def here(asked: dict[str, Any], home: Path, threads: int) -> None:
    """Meta-train a recipe, given as JSON, in this process, into a folder as `start` does."""
    recipe = from_json(asked)
    recipe = replace(recipe, train=replace(recipe.train, threads=threads))
    fresh(home, recipe)
    record = {"recipe": recipe.to_json(), **provenance(), "threads": threads}
    train(recipe.learner(), recipe.family, recipe.scheme, recipe.train, home, record, True, progress=False)


def fresh(home: Path, recipe: Recipe) -> Path:
    """Return the recipe's JSON written in a run's folder.

    What stood there is removed if it is a run of another recipe, or of a learner that this version builds otherwise.
    """
    asked, text = home / "asked.json", json.dumps(recipe.to_json(), indent=1) + "\n"
    other = asked.exists() and json.loads(asked.read_text()) != json.loads(text)
    saved = [path for path in (home / "learner.safetensors", latest(home)) if path and path.exists()]
    if other or not all(_current(path, recipe) for path in saved):
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    asked.write_text(text)
    return asked


def _current(path: Path, recipe: Recipe) -> bool:
    """Return whether a checkpoint can be read and describes the learner that the recipe builds now."""
    try:
        return _builds(read_header(path, "checkpoint"), recipe)
    except ValueError:
        return False


def _builds(stored: Mapping[str, Any], recipe: Recipe) -> bool:
    """Return whether what was stored describes the learner that the recipe builds now."""
    return difference(stored.get("learner"), describe_learner(recipe.learner())) is None


def _plain(recipe: Recipe) -> Any:
    """Return a recipe as JSON, threads aside: equal where it makes the same weights; a list equals a tuple."""
    return json.loads(json.dumps(replace(recipe, train=replace(recipe.train, threads=None)).to_json()))


def sample(family: TaskFamily, tasks: int, seed: int) -> Task:
    """Return evaluation tasks; `seed` says which, apart from every meta-training stream."""
    mixed = int(np.random.SeedSequence([seed, 0, 0, 0, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    return family.sample(tasks, torch.Generator().manual_seed(mixed))


def tune(
    build: Callable[..., Learner],
    grid: Mapping[str, Iterable[Any]],
    task: Task,
    batch_size: int,
    step: int,
    metric: Metric,
    name: str = "metric",
    judge: Callable[..., dict[str, np.ndarray]] = curve,
) -> dict[str, Any]:
    """Return the setting of the grid with the lowest mean metric after `step` mini-batches of meta-training tasks.

    `judge`: how the metric called `name` comes about, as `metrics.curve` does it.
    """
    best: tuple[float, dict[str, Any]] = (np.inf, {})
    for values in product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        found = judge(build(**setting), task, batch_size, [step], {name: metric})[name]
        score = float(np.nan_to_num(found.mean(), nan=np.inf))
        best = min(best, (score, setting), key=lambda pair: pair[0])
    return best[1]


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over tasks and its normal 95% interval."""
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def claim(name: str, value: float, low: float, high: float, bar: float, direction: str) -> dict[str, Any]:
    """Return a claim: a measured value with its interval, its bar, and whether it holds (`<=` or `>=`)."""
    holds = value <= bar if direction == "<=" else value >= bar
    rounded = {"value": value, "low": low, "high": high}
    rounded = {key: float(f"{number:.5g}") for key, number in rounded.items()}
    return {"id": name, **rounded, "bar": bar, "direction": direction, "holds": holds}
