"""Files that are damaged: states of estimators and of learners, and checkpoints; and what each of them answers.

Source: the files are those that `gradatim` writes.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

Reader = Callable[[Path], Callable[[], list[Any]]]
"""Loads a file, and returns what asks it: arrays, and lists of plain values."""


@dataclass(frozen=True)
class About:
    """How a kind of file is written: `build(folder)` returns its path and its reader; `share` of all damaged files."""

    build: Callable[[Path], tuple[Path, Reader]]
    share: float


class Rows(NamedTuple):
    """Rows of a table `x [n, columns]`, labels and numbers `[n]`."""

    x: Any
    labels: np.ndarray
    numbers: np.ndarray

    def take(self, first: int, last: int) -> Rows:
        """Return some of the rows."""
        return Rows(self.x[first:last], self.labels[first:last], self.numbers[first:last])


def rows(count: int, seed: int = 0) -> Rows:
    """Return rows of numbers, words and dates, some missing."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, count))
    word = rng.choice(np.array(["red", "green", "blue"], dtype=object), count)
    second = np.where(rng.random(count) < 0.1, np.nan, second)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 700, count), unit="D")
    table = pd.DataFrame({"size": first, "weight": second, "colour": word, "day": days})
    numbers = first + (word == "red") + 0.1 * rng.normal(size=count)
    return Rows(table, np.where(numbers > 0.5, "yes", "no"), numbers)


def _estimator(task: str, count: int) -> Callable[[Path], tuple[Path, Reader]]:
    """Return what writes the state of an estimator that has learnt `count` rows."""

    def build(folder: Path) -> tuple[Path, Reader]:
        from gradatim import RefinedClassifier, RefinedRegressor

        table = rows(count + 16)
        learnt, more = table.take(0, count), table.take(count, count + 8)
        probe = table.take(count + 8, count + 16)
        kind = RefinedClassifier if task == "classifier" else RefinedRegressor
        target = "labels" if task == "classifier" else "numbers"
        path = kind().partial_fit(learnt.x, getattr(learnt, target)).save(folder / "s.safetensors")

        def read(path: Path) -> Callable[[], list[Any]]:
            model: Any = kind.load(path)

            def ask() -> list[Any]:
                answers = [_ask(model, probe.x)]
                model.partial_fit(more.x, getattr(more, target))
                return [
                    *answers,
                    _ask(model, probe.x),
                    list(getattr(model, "classes_", [])),
                    model.task_.rows,
                ]

            return ask

        return path, read

    return build


def _ask(model: Any, x: Any) -> np.ndarray:
    """Return what an estimator answers: probabilities, or quantiles."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(x)
    return model.predict(x, quantiles=[0.1, 0.5, 0.9])


def _learner(method: str) -> Callable[[Path], tuple[Path, Reader]]:
    """Return what writes the state of a learner of tasks."""

    def build(folder: Path) -> tuple[Path, Reader]:
        from gradatim import LinearRegression, load_state, save_state
        from gradatim import build as built

        family = LinearRegression(3, support_rows=32)
        torch.manual_seed(0)
        learner = built(method, family).eval()
        task = family.sample(2, torch.Generator().manual_seed(0))
        with torch.no_grad():
            state = learner.adapt(task.support, batch_size=16)
        path = save_state(folder / "s.safetensors", state, learner)

        def read(path: Path) -> Callable[[], list[Any]]:
            state = load_state(path, learner)

            def ask() -> list[Any]:
                with torch.no_grad():
                    first = learner.predict(task.query.x, state)
                    _, further = learner.learn(state, next(iter(task.support.split(16))))
                    return [first.numpy(), learner.predict(task.query.x, further).numpy()]

            return ask

        return path, read

    return build


def _trained(folder: Path, resume: bool = False) -> Any:
    """Train a small learner for three iterations into a folder and return the result."""
    from gradatim import Greedy, LinearRegression, Recipe, TrainConfig, train
    from gradatim.methods import method

    config = TrainConfig(iterations=3, tasks=4, warmup=1, checkpoint_every=3, log_every=3, threads=1)
    recipe = Recipe(
        method("parametric-gradients"), LinearRegression(3), Greedy(batch_size=8, horizon=2), config
    )
    torch.manual_seed(0)
    learner = recipe.learner()
    header = {"recipe": recipe.to_json()}
    with contextlib.redirect_stderr(io.StringIO()):
        return train(
            learner, recipe.family, recipe.scheme, config, folder, header, resume=resume, progress=False
        )


def checkpoint(folder: Path) -> tuple[Path, Reader]:
    """Write the checkpoint of a learner; return its path and its reader."""
    from gradatim import LinearRegression, rebuild

    _trained(folder / "run")
    task = LinearRegression(3).sample(1, torch.Generator().manual_seed(0))

    def read(path: Path) -> Callable[[], list[Any]]:
        learner = rebuild(path)[0]

        def ask() -> list[Any]:
            with torch.no_grad():
                state = learner.adapt(task.support, batch_size=16)
                return [learner.predict(task.query.x, state).numpy()]

        return ask

    return folder / "run" / "learner.safetensors", read


def step(folder: Path) -> tuple[Path, Reader]:
    """Write the checkpoint of a run; return its path and its reader, which resumes the run."""
    _trained(folder / "run")

    def read(path: Path) -> Callable[[], list[Any]]:
        run = path.parent / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        shutil.copy(path, run / path.name)
        result = _trained(run, resume=True)
        return lambda: [value.numpy() for value in result.learner.state_dict().values()]

    return next((folder / "run").glob("step-*.safetensors")), read


def command(folder: Path) -> tuple[Path, Reader]:
    """Write a state by `gradatim fit`; return its path and its reader: `info --check` and `predict`."""
    from gradatim.cli import main

    table = rows(300)
    table.x.assign(y=table.labels).to_csv(folder / "rows.csv", index=False)
    table.x[:20].to_csv(folder / "new.csv", index=False)
    path = folder / "s.safetensors"
    fit = ["fit", str(folder / "rows.csv"), "--target", "y", "--state", str(path), "--quiet"]
    _line(main, fit)

    def read(path: Path) -> Callable[[], list[Any]]:
        out = path.with_name("predictions.csv")
        _line(main, ["info", str(path), "--check"])
        predict = ["predict", str(folder / "new.csv"), "--state", str(path), "--proba", "--quiet"]
        _line(main, [*predict, "--out", str(out)])
        return lambda: [out.read_text()]

    return path, read


def _line(main: Callable[[list[str]], int], arguments: list[str]) -> None:
    """Run a command in this process.

    Raises:
        ValueError: it ended with one line, on stderr, or on stdout where that is silent: a list of files. The line is
            the text.
        RuntimeError: it ended otherwise, with a code above 0.
    """
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        code = main(arguments)
    lines = (error.getvalue().strip() or output.getvalue().strip()).splitlines()
    if code and len(lines) == 1:
        raise ValueError(lines[0])
    if code:
        raise RuntimeError(f"code {code}, {len(lines)} lines")


SOURCES = {
    "classifier": About(_estimator("classifier", 400), 0.12),
    "regressor": About(_estimator("regressor", 400), 0.12),
    "early classifier": About(_estimator("classifier", 60), 0.18),
    "early regressor": About(_estimator("regressor", 60), 0.18),
    "ridge": About(_learner("ridge"), 0.1),
    "adam": About(_learner("adam"), 0.1),
    "checkpoint": About(checkpoint, 0.14),
    "step": About(step, 0.04),
    "command": About(command, 0.02),
}
"""The kinds of files by name."""
