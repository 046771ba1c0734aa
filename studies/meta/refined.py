"""The paper's refinement on top of a learnt prior: learnt steps that begin at its posterior, against the prior alone.

Four families: sinusoids with hidden frequency and noise, letters of Omniglot, sentences of banking77, random networks
with a shared first layer. In the last one the prior is right, so nothing is to be gained. The start is trained, then
trained on without steps for as long as the steps are: that is the control. Validation tasks say where steps are kept,
and which refined learner and which start count. Test tasks are read once.

`python -m studies.meta.refined FOLDER` runs the part by itself.

Source: the comparison is this project's own; Mittal et al. 2025, eq. 7 (learnt steps).
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from gradatim.comparison.runs import Study, claim
from gradatim.families import RandomNetworkRegression, Sinusoids
from gradatim.methods import PLDA, ALPaCA, Method, RefinedALPaCA, RefinedPLDA
from gradatim.metrics import error_rate
from gradatim.provenance import on_threads
from gradatim.training.refining import begin_from, keep_where_better
from gradatim.training.train import train

from .keys import (
    INTENTS,
    LETTERS,
    ROWS,
    SIZE,
    Training,
    classes_training,
    curve,
    drawn,
    served,
    trained,
    truth_error,
    waves_training,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gradatim.batch import Task
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner

BAR = 0.97
TASKS = 32
"""Of an iteration on numbers."""

RATE = 2e-3
"""Of training that goes on from a trained start. Steps on a frozen start have the rate of the start."""

T_975 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Quantiles of Student's t for a 95% interval of the mean over so many seeds."""

STARTS, REFINED = ("start", "start, trained as long"), ("steps, start frozen", "steps, start trained on")
ONE = "one step, start frozen"


@dataclass(frozen=True)
class Stage:
    """A family with the methods on it: iterations of the start and of the steps, and tasks that choose and judge."""

    family: TaskFamily
    start: Method
    refined: Method
    iterations: tuple[int, int]
    tasks: tuple[int, int]
    error: Callable[[Tensor, Task], Tensor]
    rows: tuple[int, ...]
    size: int

    def training(self, iterations: int, seed: int) -> Training:
        """Return the training of a learner on this family."""
        if self.family.likelihood.classes is not None:
            return classes_training(self.family, iterations, seed)  # type: ignore[arg-type]
        training = waves_training(Sinusoids(), iterations, seed)
        config = replace(training.config, tasks=TASKS)
        return replace(training, family=replace(self.family, query_rows=20), config=config)

    def inputs(self) -> dict[str, Any]:
        """Return what a record of this stage depends on, the same in every process."""
        parts = {key: value for key, value in vars(self).items() if key != "error"}
        return {
            "stage": {key: repr(value) for key, value in parts.items()},
            "error": self.error.__name__,
            "settings": [RATE, TASKS],
        }


def stages() -> dict[str, Stage]:
    """Return the families, named before any test task was read."""
    waves = Sinusoids(0.3, (0.5, 2.0), support_rows=40, query_rows=50)
    network = RandomNetworkRegression(8, 32, 0.1, shared=0, support_rows=40, query_rows=50)
    numbers = {"error": truth_error, "rows": ROWS["sinusoids"], "size": 5, "tasks": (500, 1000)}
    classes = {"error": error_rate, "rows": ROWS["omniglot"], "size": SIZE, "tasks": (60, 200)}
    letters = PLDA(encoder="convolutions", width=64), RefinedPLDA(encoder="convolutions", width=64)
    return {
        "hidden": Stage(waves, ALPaCA(), RefinedALPaCA(), (800, 800), **numbers),
        "intents": Stage(INTENTS, PLDA(), RefinedPLDA(), (1000, 400), **classes),
        "letters": Stage(LETTERS, *letters, (800, 400), **classes),
        "network": Stage(network, ALPaCA(), RefinedALPaCA(), (800, 800), **numbers),
    }


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, the claim and the listings of learnt steps on top of a learnt prior."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, stage in stages().items():
        if smoke:
            stage = replace(stage, iterations=(2, 2), tasks=(4, 4))
        for seed in range(seeds):
            inputs = stage.inputs() | {"seed": seed}
            with on_threads(1):
                values = study.cached(f"refined-{name}-{seed}", inputs, lambda s=stage, k=seed: measure(s, k))
            study.notify(f"refined: {name}, seed {seed}")
            found.setdefault(name, []).append(unpacked(values))
    ratios = {name: [over_start(one) for one in rows] for name, rows in found.items()}
    best = min(ratios, key=lambda name: chosen_by(found[name]))
    value = interval(ratios[best])
    beside = {name: [round(v, 5) for v in interval(values)] for name, values in ratios.items()}
    claims = [claim("meta.refined.over_start", *value, BAR, "<=") | {"family": best, "beside": beside}]
    listings = [
        listing for name, rows in found.items() for listing in listings_of(name, stages()[name], rows)
    ]
    return {"records": records(found), "claims": claims, "listings": listings}


# --- one family and one seed


def measure(stage: Stage, seed: int) -> dict[str, np.ndarray]:
    """Return validation and test errors of all learners of a stage, seconds, and where steps are kept."""
    start, seconds = trained(stage.start, stage.training(stage.iterations[0], seed))
    learners: dict[str, tuple[Learner, Method, float]] = {STARTS[0]: (start, stage.start, seconds)}
    longer = copy.deepcopy(start)
    learners[STARTS[1]] = longer, stage.start, go_on(longer, stage, seed, RATE)
    for name, frozen in zip(REFINED, (True, False), strict=True):
        learners[name] = refined(stage, stage.refined, start, seed, frozen)
    if getattr(stage.refined, "steps", 1) > 1:
        learners[ONE] = refined(stage, replace(stage.refined, steps=1), start, seed, True)
    values: dict[str, np.ndarray] = {"names": np.array(list(learners))}
    columns: dict[str, list[Any]] = {"validation": [], "test": [], "seconds": [], "kept": []}
    for learner, method, spent in learners.values():
        learner = served(learner, method, stage.family)
        columns["kept"].append(kept(learner, stage))
        for split, seed_of_tasks, count in zip(("validation", "test"), (1, 2), stage.tasks, strict=True):
            tasks = drawn(stage.family.on(split), count, seed_of_tasks)
            columns[split].append(curve(learner, tasks, stage.rows, stage.size, stage.error))
        columns["seconds"].append(spent)
    return values | {name: np.array(column) for name, column in columns.items()}


def refined(
    stage: Stage, method: Method, start: Learner, seed: int, frozen: bool
) -> tuple[Learner, Method, float]:
    """Return a learner whose steps were trained on top of a start, its method, and the seconds that it took."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = method.build(stage.training(1, seed).family)
    begin_from(learner, start, frozen)
    seconds = go_on(learner, stage, seed, None if frozen else RATE)
    return learner, method, seconds


def go_on(learner: Learner, stage: Stage, seed: int, rate: float | None) -> float:
    """Train a learner on tasks that its start has not seen, and return the seconds of one core that it took."""
    training = stage.training(stage.iterations[1], 1000 + seed)
    config = training.config if rate is None else replace(training.config, lr=rate)
    begin = process_time()
    train(learner, training.family, training.scheme, config, progress=False)
    return process_time() - begin


def kept(learner: Learner, stage: Stage) -> list[float]:
    """Keep steps where they are better on validation tasks; return after which numbers of rows, of those asked."""
    if not hasattr(learner.refiner, "kept"):
        return [0.0] * len(stage.rows)
    family = replace(stage.family.on("validation"), query_rows=50)
    (task,) = drawn(family, stage.tasks[0], 3, chunk=stage.tasks[0])
    keep_where_better(learner, task, stage.size)
    gate: Callable[[Tensor], Tensor] = learner.refiner.gate  # type: ignore[assignment]
    return gate(torch.tensor(stage.rows, dtype=torch.float64)).tolist()


# --- figures


def unpacked(values: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return a record as values by learner."""
    names = [str(name) for name in values["names"]]
    columns = ("validation", "test", "seconds", "kept")
    by_name = {name: {c: values[c][i] for c in columns} for i, name in enumerate(names)}
    return {"learners": by_name, "commit": str(values["commit"])}


def geometric(errors: np.ndarray) -> float:
    """Return the geometric mean of errors; one of zero counts as the least positive number."""
    return float(np.exp(np.log(np.maximum(errors, 1e-30)).mean()))


def pick(one: dict[str, Any], names: tuple[str, ...]) -> str:
    """Return which of some learners has the least validation errors."""
    return min(names, key=lambda name: geometric(one["learners"][name]["validation"]))


def over_start(one: dict[str, Any], split: str = "test") -> float:
    """Return the errors of the refined learner over the start's; validation tasks choose which of each counts."""
    top, bottom = (geometric(one["learners"][pick(one, names)][split]) for names in (REFINED, STARTS))
    return top / bottom


def chosen_by(rows: list[dict[str, Any]]) -> float:
    """Return the ratio on validation tasks, a geometric mean over seeds, by which the best family is chosen."""
    return geometric(np.array([over_start(one, "validation") for one in rows]))


def interval(values: list[float]) -> tuple[float, float, float]:
    """Return the geometric mean over seeds and its 95% interval by Student's t.

    Example:
        >>> [round(value, 3) for value in interval([0.5, 0.5, 0.5])]
        [0.5, 0.5, 0.5]
    """
    logs = np.log(values)
    half = T_975[len(logs)] * logs.std(ddof=1) / len(logs) ** 0.5 if len(logs) > 1 else 0.0
    return float(np.exp(logs.mean())), float(np.exp(logs.mean() - half)), float(np.exp(logs.mean() + half))


def listings_of(name: str, stage: Stage, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return errors of all learners of a family, over the start's, and seconds: means over seeds."""
    base = [geometric(one["learners"][STARTS[0]]["test"]) for one in rows]
    lines = []
    for learner in rows[0]["learners"]:
        of = [one["learners"][learner] for one in rows]
        errors = np.exp(np.log(np.maximum([one["test"] for one in of], 1e-30)).mean(0))
        ratio = interval([geometric(one["test"]) / b for one, b in zip(of, base, strict=True)])
        kept_in = np.mean([one["kept"] for one in of], axis=0) * len(rows)
        lines.append(
            [
                learner,
                *(f"{error:.4g}" for error in errors),
                f"{ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}]",
                "" if learner in STARTS else " / ".join(f"{count:.0f}" for count in kept_in),
                f"{np.mean([one['seconds'] for one in of]):.0f}",
            ]
        )
    over = interval([over_start(one) for one in rows])
    lines.append(
        ["chosen on validation, over the better start", *[""] * len(stage.rows), _text(over), "", ""]
    )
    columns = [
        "learner",
        *(f"{count} rows" for count in stage.rows),
        "over start",
        "kept, of seeds",
        "seconds",
    ]
    return [{"title": f"refined: {name}", "columns": columns, "rows": lines}]


def _text(three: tuple[float, float, float]) -> str:
    return f"{three[0]:.3f} [{three[1]:.3f}, {three[2]:.3f}]"


def records(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the test errors of each learner, family, number of rows and seed."""
    entries = []
    for family, rows in found.items():
        stage = stages()[family]
        metric = "error" if stage.family.likelihood.classes is not None else "squared error to the truth"
        for seed, one in enumerate(rows):
            for name, values in one["learners"].items():
                for count, error in zip(stage.rows, values["test"], strict=True):
                    entries.append(
                        {
                            "name": name,
                            "method": "refined" if name not in STARTS else "start",
                            "family": family,
                            "signal": None,
                            "steps": count // stage.size,
                            "rows": count,
                            "metric": metric,
                            "seed": seed,
                            "mean": float(f"{error:.6g}"),
                            "low": None,
                            "high": None,
                            "tasks": stage.tasks[1],
                            "setting": asdict(stage.refined if name not in STARTS else stage.start),
                            "commit": one["commit"],
                            "seconds": round(float(values["seconds"]), 1),
                            "peak_memory": None,
                            "threads": 1,
                        }
                    )
    return entries


def main() -> None:
    """Run the part in a folder, and print its claim and listings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    console = Console()
    result = part(Study(options.folder, 1, console), options.smoke, options.seeds)
    for found in result["claims"]:
        console.print(found)
    for listing in result["listings"]:
        console.print(listing["title"])
        for row in (listing["columns"], *listing["rows"]):
            console.print("  " + " | ".join(row))


if __name__ == "__main__":
    main()
