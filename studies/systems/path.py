"""Path-aware MAML: does a rate for each weight and step, or a skip over steps, pay beside MAML and Meta-SGD?

5-shot sinusoids and letters of Omniglot, five inner steps on the same rows. Settings are chosen on other seeds.

Source: Finn et al. 2017, sections 5.1 and 5.2; Li et al. 2017; Antoniou et al. 2019; Rajasegaran et al. 2020.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.runs import claim
from gradatim.families import OmniglotClassification, Sinusoids
from gradatim.methods import PathMAML
from gradatim.predictors import ConvolutionalNetwork
from gradatim.provenance import on_threads
from gradatim.training.config import TrainConfig
from gradatim.training.repeated import Repeated
from gradatim.training.snapshot import describe
from gradatim.training.train import train

if TYPE_CHECKING:
    from pathlib import Path

    from gradatim.batch import Task
    from gradatim.comparison.runs import Study
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner

STEPS = 5
MEMBERS: dict[str, dict[str, Any]] = {
    "maml": {"rates": "shared"},
    "meta-sgd": {"rates": "weight"},
    "layer-step": {"rates": "layer-step"},
    "weight-step": {"rates": "weight-step"},
    "weight-step-skip": {"rates": "weight-step", "skip": 2},
}
"""The nested family: MAML, Meta-SGD, a rate for each layer and step (MAML++), for each weight and step, and skips."""

WAVES = Sinusoids(support_rows=5, query_rows=10)
WAVES_ITERATIONS, WAVES_TASKS = 1200, 12
GRID = ((0.01, 3e-3), (0.03, 3e-3), (0.1, 3e-3), (0.03, 1e-2))
"""Where the rates start, and the learning rate of meta-training."""

CHOICE_SEEDS, CHOICE_ITERATIONS = (1000, 1001), 400
"""Seeds and iterations of the runs that choose settings. No reported run has these seeds."""

LETTERS = OmniglotClassification(ways=5, support_rows=5, query_rows=50, shots=1, turned=True)
CHANNELS = (16, 32, 32, 32)
LETTERS_ITERATIONS, LETTERS_TASKS, LETTERS_SETTING = 5000, 4, (0.1, 5e-3)
LETTERS_MEMBERS = ("layer-step", "maml", "meta-sgd", "weight-step", "weight-step-skip")
BARS = {"over_meta_sgd": ("<=", 0.9), "omniglot": (">=", 96.0)}


def method(name: str, rate: float, hidden: tuple[int, ...] = ()) -> PathMAML:
    """Return a member of the family."""
    return PathMAML(hidden=hidden, rate=rate, steps=STEPS, **MEMBERS[name])


@torch.no_grad()
def after_steps(learner: Learner, task: Task) -> np.ndarray:
    """Return the error of each task after 0, 1, ..., 5 steps on its whole support, `[steps + 1, tasks]`.

    The error is the share of wrong answers where y is a class, else the mean squared error.
    """
    errors = []
    for state in learner.states([task.support] * STEPS):
        outputs = learner.predict(task.query.x, state)
        if task.query.y.is_floating_point():
            errors.append((outputs - task.query.y).square().mean((1, 2)))
        else:
            errors.append((outputs.argmax(-1) != task.query.y[..., 0]).float().mean(1))
    return torch.stack(errors).double().numpy()


def drawn(family: TaskFamily, n_tasks: int, seed: int) -> Task:
    """Return tasks of a seed that no training reads."""
    return family.sample(n_tasks, torch.Generator().manual_seed(10**6 + seed))


def measured(
    learner: Learner,
    family: TaskFamily,
    config: TrainConfig,
    tests: dict[str, Task],
    watched: Task,
    folder: Path | None = None,
) -> dict[str, np.ndarray]:
    """Return errors on test tasks by their name, errors on watched tasks during training, and the CPU seconds.

    With a folder, training goes on from its last checkpoint; seconds and errors are then those of the last start.
    """
    errors: list[float] = []

    def watch(record: dict[str, Any]) -> None:
        errors.append(float(after_steps(learner, watched)[-1].mean()))

    begin = process_time()
    scheme = Repeated(family.support_rows, STEPS)
    train(learner, family, scheme, config, folder, resume=folder is not None, progress=False, on_log=watch)
    seconds = process_time() - begin
    found = {name: after_steps(learner, task).mean(1) for name, task in tests.items()}
    return {**found, "watched": np.asarray(errors), "seconds": np.asarray(seconds)}


# --- sinusoids


def waves_config(iterations: int, lr: float, seed: int) -> TrainConfig:
    """Return the training of a learner of sinusoids; its error is watched twenty times."""
    every = max(1, iterations // 20)
    return TrainConfig(
        iterations=iterations, tasks=WAVES_TASKS, lr=lr, clip=10.0, seed=seed, log_every=every, ema=0.98
    )


def wave(study: Study, name: str, setting: tuple[float, float], seed: int, iterations: int) -> Any:
    """Return the record of one member on sinusoids."""
    rate, lr = setting
    chosen, config = method(name, rate, (40, 40)), waves_config(iterations, lr, seed)
    n_tasks = 20 if iterations < CHOICE_ITERATIONS else 1000

    def compute() -> dict[str, np.ndarray]:
        with on_threads(1), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = chosen.build(WAVES)
            tests = {"validation": drawn(WAVES, n_tasks, 1), "test": drawn(WAVES, n_tasks, 2)}
            try:
                return measured(learner, WAVES, config, tests, drawn(WAVES, min(n_tasks, 200), 3))
            except ValueError as error:  # training that diverged is a result
                return {"diverged": np.asarray(str(error))}

    inputs = [asdict(chosen), describe(WAVES), asdict(config), n_tasks]
    return study.cached(f"path-waves-{name}-{seed}", inputs, compute)


def chosen_settings(study: Study, smoke: bool) -> dict[str, tuple[float, float]]:
    """Return each member's setting with the lowest error on validation tasks, in short runs of other seeds."""
    if smoke:
        return dict.fromkeys(MEMBERS, GRID[0])
    settings = {}
    for name in MEMBERS:
        scores = {
            setting: np.mean(
                [
                    np.log(wave(study, name, setting, seed, CHOICE_ITERATIONS)["validation"][-1])
                    for seed in CHOICE_SEEDS
                ]
            )
            for setting in GRID
            if all(
                "validation" in wave(study, name, setting, seed, CHOICE_ITERATIONS) for seed in CHOICE_SEEDS
            )
        }
        settings[name] = min(scores, key=scores.__getitem__)
        study.notify(f"path, sinusoids: {name} starts at {settings[name]}")
    return settings


def waves(study: Study, smoke: bool, seeds: int) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Return the records of all members on sinusoids, a list over seeds each, and the settings."""
    iterations = 4 if smoke else WAVES_ITERATIONS
    settings = chosen_settings(study, smoke)
    records: dict[str, list[Any]] = {name: [] for name in MEMBERS}
    for seed, name in product(range(seeds), MEMBERS):
        records[name].append(wave(study, name, settings[name], seed, iterations))
        study.notify(f"path, sinusoids: {name}, seed {seed}")
    return records, settings


def geometric_ratio(one: list[Any], other: list[Any]) -> tuple[float, float, float]:
    """Return the geometric mean over seeds of the ratio of test errors, and its 95% interval."""
    logs = [np.log(a["test"][-1] / b["test"][-1]) for a, b in zip(one, other, strict=True)]
    half = 1.96 * float(np.std(logs, ddof=1)) / len(logs) ** 0.5 if len(logs) > 1 else 0.0
    middle = float(np.mean(logs))
    return tuple(float(np.exp(value)) for value in (middle, middle - half, middle + half))  # type: ignore[return-value]


def threshold_iterations(records: dict[str, list[Any]]) -> dict[str, str]:
    """Return the median iteration at which each member's watched error is at most MAML's last one of the same seed."""
    found = {}
    for name, rows in records.items():
        firsts = []
        for record, maml in zip(rows, records["maml"], strict=True):
            below = np.flatnonzero(record["watched"] <= maml["watched"][-1])
            firsts.append((below[0] + 1) / len(record["watched"]) if len(below) else np.inf)
        middle = float(np.median(firsts))
        found[name] = "never" if np.isinf(middle) else f"{round(middle * WAVES_ITERATIONS)}"
    return found


def waves_listing(records: dict[str, list[Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Return errors after each inner step, iterations to MAML's last error, settings and seconds."""
    firsts, rows = threshold_iterations(records), []
    for name, found in records.items():
        tests = np.array([record["test"] for record in found])
        seconds = np.mean([float(record["seconds"]) for record in found])
        cells = [f"{value:.3f}" for value in np.exp(np.log(tests).mean(0))]
        rows.append([name, *cells, firsts[name], str(settings[name]), f"{seconds:.0f}"])
    columns = ["member", *(f"step {t}" for t in range(STEPS + 1)), "iterations", "rate, lr", "seconds"]
    return {"title": "squared error of 5-shot sinusoids after each step", "columns": columns, "rows": rows}


# --- letters


def letters_learner(name: str, family: OmniglotClassification, rate: float) -> Learner:
    """Return a convolutional member."""
    network = ConvolutionalNetwork(28, family.likelihood, CHANNELS)
    return method(name, rate).learner(network, network.layers)


def letters(study: Study, name: str, seed: int, iterations: int, n_tasks: int) -> Any:
    """Return the record of one member on letters: errors of 5 ways and 1 or 5 shots, on unseen alphabets."""
    rate, lr = LETTERS_SETTING
    config = TrainConfig(
        iterations=iterations,
        tasks=LETTERS_TASKS,
        lr=lr,
        clip=10.0,
        seed=seed,
        log_every=max(1, iterations // 10),
        ema=0.98,
    )

    def compute() -> dict[str, np.ndarray]:
        with on_threads(1), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            learner = letters_learner(name, LETTERS, rate)
            tests = {}
            for shots, split in product((1, 5), ("validation", "test")):
                sizes = {"support_rows": 5 * shots, "query_rows": 25, "shots": shots}
                family = replace(LETTERS.on(split), turned=False, **sizes)
                tests[f"{split}-{shots}"] = drawn(family, n_tasks, shots)
            watched = drawn(replace(LETTERS.on("validation"), turned=False), min(n_tasks, 100), 3)
            folder = study.folder / "runs" / f"path-letters-{name}-{seed}-{iterations}"
            return measured(learner, LETTERS, config, tests, watched, folder)

    inputs = [MEMBERS[name], rate, CHANNELS, describe(LETTERS), asdict(config), n_tasks]
    return study.cached(f"path-letters-{name}-{seed}", inputs, compute)


def letters_listing(records: dict[str, list[Any]]) -> dict[str, Any]:
    """Return accuracies on evaluation alphabets."""
    rows = []
    for name, found in records.items():
        cells = [
            f"{100 * (1 - np.mean([record[f'{split}-{shots}'][-1] for record in found])):.2f}"
            for shots, split in product((1, 5), ("validation", "test"))
        ]
        seconds = np.mean([float(record["seconds"]) for record in found])
        rows.append([name, *cells, str(len(found)), f"{seconds:.0f}"])
    columns = ["member", "validation, 1 shot", "test, 1 shot", "validation, 5 shots", "test, 5 shots"]
    columns += ["seeds", "seconds"]
    return {"title": "accuracy of 5-way Omniglot in percent", "columns": columns, "rows": rows}


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of path-aware MAML."""
    records, settings = waves(study, smoke, seeds)
    ours = min(
        ("layer-step", "weight-step", "weight-step-skip"),
        key=lambda name: np.mean([np.log(record["validation"][-1]) for record in records[name]]),
    )
    ratio = geometric_ratio(records[ours], records["meta-sgd"])
    claims = [claim("systems.path.over_meta_sgd", *ratio, 0.9, "<=") | {"member": ours}]
    names = LETTERS_MEMBERS[:1] if smoke else LETTERS_MEMBERS
    images: dict[str, list[Any]] = {}
    for name in names:
        images[name] = [letters(study, name, 0, 2 if smoke else LETTERS_ITERATIONS, 4 if smoke else 1000)]
        study.notify(f"path, letters: {name}")
    best = min(names, key=lambda name: np.mean([r["validation-1"][-1] for r in images[name]]))
    right = [100 * (1 - float(record["test-1"][-1])) for record in images[best]]
    claims.append(
        claim("systems.path.omniglot", float(np.mean(right)), min(right), max(right), 96, ">=")
        | {"member": best}
    )
    entries = [
        {"name": f"path/{name}", "family": family, "seed": seed, "errors": record[key].round(6).tolist()}
        | {"seconds": round(float(record["seconds"]), 1), "commit": str(record["commit"])}
        for family, table, key in (("sinusoids", records, "test"), ("omniglot", images, "test-1"))
        for name, found in table.items()
        for seed, record in enumerate(found)
    ]
    listings = [waves_listing(records, settings), letters_listing(images)]
    return {"records": entries, "claims": claims, "listings": listings}
