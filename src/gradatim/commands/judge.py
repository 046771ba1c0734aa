"""`gradatim eval`: how well a checkpoint predicts.

Source: Efron, Tibshirani 1993, chapter 13 (the percentile intervals of `gradatim.metrics.bootstrap`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import nearest
from .show import print_table, print_written
from .train import provenance

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..batch import Task
    from ..learner import Learner
    from ..metrics import Metric
    from ..recipes import Recipe


SPLITS = ("train", "validation", "test")


def eval_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `eval`."""
    parser.add_argument("checkpoint", help="a file that gradatim train wrote, or a run's folder")
    parser.add_argument(
        "--split", type=str, default="test", help="the pool of tasks: train, validation or test"
    )
    parser.add_argument("--tasks", type=int, default=64, help="unseen tasks to adapt to")
    parser.add_argument("--steps", type=str, default="1,2,5,10,20", help="mini-batches after which to judge")
    parser.add_argument("--batch-size", type=int | None, help="rows in each (default: as in training)")
    parser.add_argument("--seed", type=int, default=0, help="which tasks")
    parser.add_argument("--out", type=str | None, help="JSON file to write the numbers to")


def evaluate(options: Namespace, console: Console) -> None:
    """Adapt a trained learner to unseen tasks and print its error after each number of steps.

    Raises:
        ValueError: no usable checkpoint, or impossible options.
    """
    import torch

    check_options(options)
    path = checkpoint_path(options.checkpoint)
    from ..recipes import rebuild

    learner, recipe, header = rebuild(path)
    steps = step_numbers(options.steps)
    batch_size = recipe.scheme.batch_size if options.batch_size is None else options.batch_size
    rows = max(max(steps) * batch_size, 1)
    family = replace(recipe.family.on(options.split), support_rows=rows, min_support_rows=None)
    task = family.sample(options.tasks, torch.Generator().manual_seed(options.seed))
    task = task.to(next(learner.parameters()).dtype)
    records = evaluation_records(learner, recipe, task, batch_size, steps)
    about = {"seed": recipe.train.seed} | {name: header.get(name) for name in ("seconds", "peak_memory")}
    console.print(
        f"{recipe.name} on {options.tasks} {options.split} tasks of {type(family).__name__}, "
        f"{batch_size} rows a step, means with 95% intervals over tasks",
        soft_wrap=True,
    )
    show(console, records, steps, batch_size)
    if options.out:
        from ..files.checkpoint import write_bytes

        settings = {name: options[name] for name in ("split", "tasks", "seed")} | {"batch_size": batch_size}
        result = {"checkpoint": str(path), **settings, "recipe": recipe.to_json(), **provenance()}
        result["records"] = [{**record, **about} for record in records]
        write_bytes(Path(options.out), (json.dumps(result, indent=1) + "\n").encode())
        print_written(console, [Path(options.out)])


def check_options(options: Namespace) -> None:
    """Check the options of `eval`.

    Raises:
        ValueError: an impossible value; the sentence names the option.
    """
    if options.split not in SPLITS:
        splits, near = ", ".join(SPLITS), nearest(options.split, SPLITS)
        hint = "" if near is None else f": did you mean {near}?"
        raise ValueError(f"--split must be one of {splits}; got {options.split!r}{hint}")
    for name, minimum in (("tasks", 1), ("batch_size", 1), ("seed", 0)):
        value = options[name]
        if value is not None and value < minimum:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {minimum}; got {value}")
    if options.seed >= 2**63:
        raise ValueError(f"--seed must be below 2**63; got {options.seed}")


def evaluation_records(
    learner: Learner, recipe: Recipe, task: Task, batch_size: int, steps: list[int]
) -> list[dict[str, Any]]:
    """Return a record for each metric and number of steps: the mean over tasks and its 95% interval.

    If the best possible prediction is known, its risk is recorded as the method `oracle`.

    Args:
        learner: the learner that is evaluated.
        recipe: its recipe.
        task: the tasks, with enough support rows for the last step.
        batch_size: rows of a mini-batch.
        steps: the numbers of mini-batches to evaluate after, ascending.

    Example:
        >>> import torch
        >>> from gradatim import Greedy, LinearRegression, Recipe
        >>> from gradatim.commands.judge import evaluation_records
        >>> run = Recipe("ridge", LinearRegression(3), Greedy())
        >>> task = run.family.sample(8, torch.Generator().manual_seed(0))
        >>> records = evaluation_records(run.learner(), run, task, batch_size=8, steps=[1, 2])
        >>> sorted({(record["method"], record["metric"]) for record in records})
        [('oracle', 'excess risk'), ('ridge', 'excess risk'), ('ridge', 'squared error')]
    """
    from ..likelihood import Order
    from ..metrics import (
        bootstrap,
        curve,
        error_rate,
        excess_risk,
        invalid_order,
        reversed_edges,
        squared_error,
    )

    metrics: dict[str, Metric] = {"error": error_rate}
    if isinstance(recipe.family.likelihood, Order):
        metrics = {"reversed edges": reversed_edges, "invalid order": invalid_order}
    elif recipe.family.likelihood.classes is None:
        metrics = {"squared error": squared_error}
        if task.truth is not None:
            metrics["excess risk"] = excess_risk
    scores = {(recipe.name, m): v for m, v in curve(learner, task, batch_size, steps, metrics).items()}
    best = [recipe.family.oracle(task, step * batch_size) for step in steps]
    if "excess risk" in metrics and best[0] is not None:
        scores["oracle", "excess risk"] = np.stack(
            [excess_risk(b, task).numpy() for b in best if b is not None]
        )
    records = []
    for (method, metric), values in scores.items():
        for step, per_task in zip(steps, values, strict=True):
            mean, low, high = bootstrap(lambda a: float(a.mean()), per_task[None])
            record = {"method": method, "family": type(recipe.family).__name__, "steps": step}
            record |= {"rows": step * batch_size, "metric": metric, "tasks": task.n_tasks}
            records.append(record | {"mean": mean, "low": low, "high": high})
    return records


def show(console: Console, records: list[dict[str, Any]], steps: list[int], batch_size: int) -> None:
    """Print records as a table, a line for each number of steps."""
    columns = list(dict.fromkeys((r["method"], r["metric"]) for r in records))
    titles = ["steps", "rows"]
    lines = [[str(step), str(step * batch_size)] for step in steps]
    for method, metric in columns:
        chosen = [r for r in records if (r["method"], r["metric"]) == (method, metric)]
        titles.append(f"oracle's {metric}" if method == "oracle" else metric)
        for line, r in zip(lines, chosen, strict=True):
            line.append(f"{r['mean']:.3g} [{r['low']:.3g}, {r['high']:.3g}]")
        if metric == "error":
            titles.append("accuracy")
            for line, r in zip(lines, chosen, strict=True):
                line.append(f"{1 - r['mean']:.3f}")
    print_table(console, "", titles, lines, align_right=True)


def step_numbers(text: str) -> list[int]:
    """Return the step numbers in a text, ascending.

    Raises:
        ValueError: a text that is no list of whole numbers.

    Example:
        >>> from gradatim.commands.judge import step_numbers
        >>> step_numbers("5, 1,2")
        [1, 2, 5]
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise ValueError(f"--steps wants numbers with commas, such as 1,2,5; got {text!r}")
    return sorted({int(part) for part in parts})


def checkpoint_path(name: str) -> Path:
    """Return the checkpoint of a name: the file itself, or in a run's folder the finished learner or the last step.

    Raises:
        ValueError: a folder without a checkpoint.

    Example:
        >>> from gradatim.commands.judge import checkpoint_path
        >>> checkpoint_path("learner.safetensors").name
        'learner.safetensors'
    """
    from ..files.checkpoint import latest

    path = Path(name)
    if not path.is_dir():
        return path
    finished = path / "learner.safetensors"
    file = finished if finished.exists() else latest(path)
    if file is None:
        raise ValueError(f"{path} holds no checkpoint: give a folder that gradatim train wrote")
    return file
