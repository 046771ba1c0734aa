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
from ..metrics import curve
from ..provenance import commit, process_environment, processes_on_threads, provenance
from ..recipes import Recipe, from_json
from ..training.snapshot import describe_learner, difference
from ..training.train import train

if TYPE_CHECKING:
    from rich.console import Console

    from ..batch import Task
    from ..family import TaskFamily
    from ..learner import Learner
    from ..metrics import Metric


_LOADED = [
    "gradatim.comparison.runs",
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
        """Return as JSON its recipe, threads aside, and how this version builds it; how training goes is not seen."""
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
        costs = {name: self._cost(name, recipe) for name, recipe in wanted.items()}
        self._train([(name, wanted[name]) for name, cost in costs.items() if cost is None])
        for name, recipe in wanted.items():
            cost = costs[name] or self._cost(name, recipe)
            if cost is None:
                raise ValueError(
                    f"{self._home(name)} was changed by another process: run one study at a time there"
                )
            self._known[name] = Costed(recipe, **cost, load=partial(self._load, name, recipe))
        return {name: self._known[name] for name in recipes}

    def arrays(
        self, key: str, about: Any, compute: Callable[[], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Return the named arrays of one record, computed once and kept with the commit it was computed at.

        `about`: JSON that says all the record depends on; another value is another record.
        """
        text = json.dumps(self._anywhere(about), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        path = self.folder / "records" / f"{key}-{digest}.npz"
        if not path.exists():
            values = {**compute(), "commit": np.asarray(commit() or "")}
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = path.with_suffix(".partial.npz")
            np.savez(begun, **values)  # type: ignore[arg-type]
            begun.replace(path)
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)

    def _home(self, name: str) -> Path:
        return self.folder / "runs" / name

    def _anywhere(self, about: Any) -> Any:
        """Return JSON in which files below the study's folder are named from there: it may be moved."""
        if isinstance(about, dict):
            return {key: self._anywhere(value) for key, value in about.items()}
        if isinstance(about, list | tuple):
            return [self._anywhere(value) for value in about]
        return about.removeprefix(f"{self.folder}{os.sep}") if isinstance(about, str) else about

    def _cost(self, name: str, recipe: Recipe) -> dict[str, Any] | None:
        """Return what `cost.json` of a finished run says, None where it is not of this recipe or not there."""
        try:
            kept = json.loads((self._home(name) / "cost.json").read_text())
            own, described = from_json(kept["recipe"]), kept["learner"]
            known = {key: kept[key] for key in ("seconds", "peak_memory", "threads")}
        except (OSError, KeyError, TypeError, ValueError):  # not there, damaged, or of other fields
            return None
        same = self._anywhere(_plain(own)) == self._anywhere(_plain(recipe))
        return known if same and _builds(described, recipe) else None

    def _train(self, waiting: list[tuple[str, Recipe]], threads: int | None = None) -> None:
        """Meta-train recipes, some at a time where they are `apart`; a failure or an interrupt stops the waiting."""
        threads = threads or (max(1, (os.cpu_count() or 1) // self.workers) if self.apart else None)
        pool = ThreadPoolExecutor(self.workers if self.apart else 1)
        with processes_on_threads(threads or torch.get_num_threads()), pool:
            jobs = {pool.submit(self._run, name, recipe, threads): name for name, recipe in waiting}
            try:
                for count, job in enumerate(as_completed(jobs), 1):
                    if error := job.exception():
                        said = f"{type(error).__name__}: {error}"
                        raise ValueError(f"meta-training {jobs[job]} failed: {said}") from error
                    self.console.print(f"meta-trained {jobs[job]} ({count} of {len(jobs)})")
            except BaseException:  # an interrupt, too
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _run(self, name: str, recipe: Recipe, threads: int | None) -> None:
        """Meta-train a recipe, where learners are `apart` in a process that is its alone; keep what it cost."""
        asked = recipe.to_json(), self._home(name), threads or torch.get_num_threads()
        if self.apart:
            context = get_context("forkserver" if sys.platform == "linux" else "spawn")
            context.set_forkserver_preload(_LOADED)
            with ProcessPoolExecutor(1, context) as process:
                process.submit(here, *asked).result()
        else:
            here(*asked)
        if self._cost(name, recipe) is None:
            header = read_header(self._home(name) / "learner.safetensors", "checkpoint")
            kept = {key: header[key] for key in ("learner", "seconds", "peak_memory")}
            kept |= {"threads": asked[2], "recipe": self._anywhere(recipe.to_json())}
            write_bytes(self._home(name) / "cost.json", (json.dumps(kept) + "\n").encode())

    def _load(self, name: str, recipe: Recipe) -> Learner:
        """Return the learner of a finished run, made again where its weights are left out or damaged.

        Raises:
            ValueError: the run is another recipe's by now.
        """
        path, cost = self._home(name) / "learner.safetensors", self._cost(name, recipe)
        if cost is None:
            raise ValueError(f"{self._home(name)} is the run of another recipe by now: train this one again")
        if not path.exists() or not _current(path, recipe):
            self._train([(name, recipe)], cost["threads"])
        learner = recipe.learner()
        load_weights(learner, path)
        return learner.eval()


def once(recipe: Recipe, method: str) -> Recipe:
    """Return the one-step twin of a recipe: the same size and rate, and as many refinements, so more tasks."""
    training = replace(recipe.train, tasks=recipe.train.tasks * recipe.scheme.horizon)
    return replace(
        recipe,
        method=variant(recipe.method, method),
        scheme=replace(recipe.scheme, horizon=1),
        train=training,
    )


def start(recipe: Recipe, home: Path, threads: int) -> subprocess.Popen[str]:
    """Start meta-training a recipe in a process of its own, or go on where it was interrupted in this folder."""
    asked = fresh(home, replace(recipe, train=replace(recipe.train, threads=threads)))
    options = ["--out", str(home), "--resume", "--quiet"]
    return subprocess.Popen(
        [sys.executable, "-m", "gradatim", "train", str(asked), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(threads),
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

    What stood there is removed if it is a run of another recipe, threads aside, or of one that cannot be read, or of a
    learner that this version builds otherwise.
    """
    asked, text = home / "asked.json", json.dumps(recipe.to_json(), indent=1) + "\n"
    try:
        other = asked.exists() and _plain(from_json(json.loads(asked.read_text()))) != _plain(recipe)
    except (KeyError, TypeError, ValueError):
        other = True
    saved = [path for path in (home / "learner.safetensors", latest(home)) if path and path.exists()]
    if other or not all(_current(path, recipe) for path in saved):
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    write_bytes(asked, text.encode())
    return asked


def _current(path: Path, recipe: Recipe) -> bool:
    """Return whether a checkpoint can be read and describes the learner that the recipe builds now."""
    try:
        return _builds(read_header(path, "checkpoint").get("learner"), recipe)
    except ValueError:
        return False


def _builds(described: Any, recipe: Recipe) -> bool:
    """Return whether a description is that of the learner that the recipe builds now."""
    return difference(described, describe_learner(recipe.learner())) is None


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
