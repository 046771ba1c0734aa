"""The paper's findings, with learners that are trained until their loss stands still.

Each learner is trained at a constant rate, in rounds of a third of all iterations before, until the last quarter has
changed the loss on validation tasks by less than `FLAT`, or until `CAP` iterations. Then the rate falls to zero. A
learner that still moves has no vote. Findings are judged on test tasks, paired, by the recipes of the study `paper`.

`python -m studies.meta.converged FOLDER` runs the part by itself.

Source: Mittal et al. 2025 (the findings); the rule is this project's own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from gradatim.comparison.runs import Study
from gradatim.families import LinearRegression, Sinusoids
from gradatim.methods import method
from gradatim.metrics import bootstrap
from gradatim.provenance import on_threads
from gradatim.training.train import train
from studies.paper.findings import verdict
from studies.paper.recipes import HORIZON, recipes
from studies.paper.settings import SQUARES, Setting

from .learnt import Setting as Trained
from .learnt import drawn_learner
from .sources import fingerprint
from .verdicts import entries, measured

if TYPE_CHECKING:
    from gradatim.learner import Learner
    from gradatim.recipes import Recipe

FLAT, FIRST, CAP = 0.02, 300, 3200
"""The fall of the loss over the last quarter below which a learner votes; iterations at first, and at most."""

STEPS = (1, 5, HORIZON)
"""Numbers of mini-batches after which learners are judged."""

VALIDATION, TEST = 20_000, 30_000
"""Seeds of the tasks that say when to stop, and of those that judge."""

SETTINGS: dict[str, Setting] = {
    "linear-8": Setting(
        LinearRegression(8, 0.5, support_rows=160, query_rows=64),
        16,
        SQUARES,
        FIRST,
        8,
        relative=True,
        judged=500,
    ),
    "sinusoids": Setting(
        Sinusoids(support_rows=50, query_rows=50),
        5,
        SQUARES,
        FIRST,
        16,
        relative=True,
        judged=500,
        settings={"parametric": {"hidden": (40, 40)}},
    ),
}
"""The families, as in the study `paper`; on sinusoids a learner has more to learn than a ridge."""

ROWS: dict[str, tuple[str, ...]] = {
    "linear-8": (
        *(f"parametric-{signal}" for signal in ("observations", "gradients", "both")),
        "parametric-plain",
        "parametric-both-one-step",
        "parametric-both-one-step-whole",
        "explicit-both",
        "explicit-both-one-step",
        "explicit-both-one-step-whole",
        "implicit-logits",
        "implicit-latents",
        "implicit-logits-one-step",
        "implicit-logits-one-step-whole",
        "unrolled-10",
        "maml-0.3",
        "meta-sgd-0.3",
        "learned-optimizer",
    ),
    "sinusoids": (
        "parametric-both",
        "explicit-both-decoder",
        "explicit-both-decoder-unrolled",
        "implicit-logits",
        "implicit-logits-one-step-whole",
        "maml-0.01",
        "meta-sgd-0.01",
        "learned-optimizer",
        "conditional-neural-process",
        "attentive-neural-process",
    ),
}
"""The cells, by family: rows of the study `paper`."""

UNLEARNT = {"linear-8": ("ridge", "newton"), "sinusoids": ("gaussian-process",)}
"""Methods that learn nothing from other tasks, beside."""

FINDINGS: tuple[tuple[str, str, str, str], ...] = (
    ("1. ten steps are better than one", "linear-8", "parametric-both", "parametric-both-one-step"),
    ("1. ten steps are better than one", "linear-8", "explicit-both", "explicit-both-one-step"),
    ("1. ten steps are better than one", "linear-8", "implicit-logits", "implicit-logits-one-step"),
    (
        "2. rows beat gradients in low dimension",
        "linear-8",
        "parametric-observations",
        "parametric-gradients",
    ),
    ("2. plain rows beat gradients in low dimension", "linear-8", "parametric-plain", "parametric-gradients"),
    ("2. both together are best", "linear-8", "parametric-both", "parametric-gradients"),
    ("2. both together are best", "linear-8", "parametric-both", "parametric-observations"),
    ("4. parametric beats explicit", "linear-8", "parametric-both", "explicit-both"),
    ("4. parametric beats explicit", "sinusoids", "parametric-both", "explicit-both-decoder"),
    ("5. logits are the best implicit state", "linear-8", "implicit-logits", "implicit-latents"),
    (
        "asked. steps beat one pass over the same rows",
        "linear-8",
        "parametric-both",
        "parametric-both-one-step-whole",
    ),
    (
        "asked. steps beat one pass over the same rows",
        "linear-8",
        "explicit-both",
        "explicit-both-one-step-whole",
    ),
    (
        "asked. steps beat one pass over the same rows",
        "linear-8",
        "implicit-logits",
        "implicit-logits-one-step-whole",
    ),
    (
        "asked. steps beat one pass over the same rows",
        "sinusoids",
        "implicit-logits",
        "implicit-logits-one-step-whole",
    ),
    ("asked. greedy training is as good as unrolled", "linear-8", "parametric-both", "unrolled-10"),
    (
        "asked. greedy training is as good as unrolled",
        "sinusoids",
        "explicit-both-decoder",
        "explicit-both-decoder-unrolled",
    ),
    ("asked. refinement beats neighbours", "linear-8", "parametric-both", "maml-0.3"),
    ("asked. refinement beats neighbours", "linear-8", "parametric-both", "meta-sgd-0.3"),
    ("asked. refinement beats neighbours", "linear-8", "parametric-both", "learned-optimizer"),
    ("asked. refinement beats neighbours", "sinusoids", "parametric-both", "maml-0.01"),
    ("asked. refinement beats neighbours", "sinusoids", "parametric-both", "meta-sgd-0.01"),
    ("asked. refinement beats neighbours", "sinusoids", "parametric-both", "conditional-neural-process"),
    ("asked. refinement beats neighbours", "sinusoids", "parametric-both", "attentive-neural-process"),
)
"""What is said, the family, and the two rows whose errors after ten mini-batches are paired: the first is lower."""


@dataclass(frozen=True)
class Cell:
    """A learner on a family, by its recipe; `first` and `cap` bound its iterations."""

    family: str
    row: str
    recipe: Recipe
    first: int = FIRST
    cap: int = CAP


def cells(smoke: bool) -> Iterator[Cell]:
    """Yield the cells."""
    for family, setting in SETTINGS.items():
        known = recipes(family, setting, smoke)
        if "explicit-both-decoder" in known:
            decoder, unrolled = known["explicit-both-decoder"], known["parametric-gradients-unrolled"].scheme
            known["explicit-both-decoder-unrolled"] = replace(decoder, scheme=unrolled)
        for name in ("maml", "meta-sgd"):  # a rate of 0.1 diverges on sinusoids
            slow = known[f"{name}-0.1"]
            known[f"{name}-0.01"] = replace(slow, method=replace(slow.method, rate=0.01))
        for row in ROWS[family][:2] if smoke else ROWS[family]:
            yield Cell(family, row, known[row], *((3, 4) if smoke else ()))


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, the claim and the listings of findings with converged learners."""
    results: dict[str, dict[str, dict[str, np.ndarray]]] = {family: {} for family in SETTINGS}
    trainings: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    reached = fingerprint("studies.meta.converged")
    for cell in cells(smoke):
        runs = []
        for seed in range(seeds):
            inputs = {"recipe": asdict(cell.recipe), "seed": seed, "smoke": smoke, "code": reached}
            with on_threads(1):
                runs.append(
                    study.cached(
                        f"converged-{cell.family}-{cell.row}-{seed}",
                        inputs,
                        lambda c=cell, s=seed: measure(c, s),
                    )
                )
            study.notify(f"converged: {cell.family}, {cell.row}, seed {seed}: fell {runs[-1]['fall']:.1%}")
        trainings[cell.family, cell.row] = runs
        results[cell.family][cell.row] = {"error": np.stack([run["errors"] for run in runs])}
    for family, names in UNLEARNT.items():
        for name in names:
            learner = method(name).build(SETTINGS[family].family)
            results[family][name] = {"error": judged(learner, family)[None]}
    votes = {cell: max(abs(float(run["fall"])) for run in runs) < FLAT for cell, runs in trainings.items()}
    value = float(np.mean(list(votes.values())))
    gaps = judge_findings(results, votes)
    claim = measured(
        "meta.findings_converged", (value, value, value), cells=len(votes), of=sum(votes.values())
    )
    return {
        "records": [
            entry
            for family, rows in results.items()
            for row, values in rows.items()
            for entry in entries(
                family,
                row,
                values["error"].transpose(0, 2, 1),
                tuple(step * SETTINGS[family].batch_size for step in STEPS),
                "squared error",
            )
        ],
        "claims": [claim],
        "listings": [cells_listing(trainings, results), findings_listing(gaps)],
    }


def measure(cell: Cell, seed: int) -> dict[str, np.ndarray]:
    """Return test errors `[steps, T]` of a learner that is trained until it is flat, and how that went."""
    learner, begin = drawn_learner(Trained(cell.recipe.method), seed, cell.recipe.family), process_time()
    curve = [validation_loss(learner, cell)]
    total, fall = 0, 1.0
    for number, iterations in enumerate(rounds(cell.first, cell.cap)):
        go_on(learner, cell, iterations, 1000 * seed + number, constant=True)
        total += iterations
        curve.append(validation_loss(learner, cell))
        fall = 1 - curve[-1] / curve[-2]
        if number and abs(fall) < FLAT:
            break
    go_on(learner, cell, max(1, total // 3), 1000 * seed + 999, constant=False)
    return {
        "errors": judged(learner, cell.family, cell.recipe),
        "fall": np.asarray(fall),
        "losses": np.array([*curve, validation_loss(learner, cell)]),
        "iterations": np.asarray(total + max(1, total // 3)),
        "seconds": np.asarray(process_time() - begin),
    }


def rounds(first: int, cap: int) -> Iterator[int]:
    """Yield numbers of iterations: each round after the first is the last quarter of all so far.

    Example:
        >>> list(rounds(300, 800))
        [300, 100, 133, 177]
    """
    total = first
    yield first
    while total < cap and (more := max(1, total // 3)) and total + more <= cap:
        total += more
        yield more


def go_on(learner: Learner, cell: Cell, iterations: int, seed: int, constant: bool) -> None:
    """Train a learner on, at a constant rate or at one that falls to zero."""
    config = cell.recipe.train
    last = config.lr if constant else 0.0
    config = replace(config, iterations=iterations, final_lr=last, warmup=min(50, iterations // 3), seed=seed)
    train(learner, cell.recipe.family, cell.recipe.scheme, config, progress=False)


def validation_loss(learner: Learner, cell: Cell) -> float:
    """Return the mean error after the last mini-batch on validation tasks."""
    return float(judged(learner, cell.family, cell.recipe, VALIDATION)[-1].mean())


def judged(learner: Learner, family: str, recipe: Recipe | None = None, draw: int = TEST) -> np.ndarray:
    """Return the errors `[steps, T]` of a learner on tasks that `draw` seeds.

    A learner of one step from all rows is asked for that step with as many rows.
    """
    setting = SETTINGS[family]
    task = setting.family.sample(setting.judged, torch.Generator().manual_seed(draw))
    whole = (
        recipe is not None and recipe.scheme.horizon == 1 and recipe.scheme.batch_size > setting.batch_size
    )
    learner.eval()
    if not whole:
        return setting.judge(learner, task, setting.batch_size, STEPS, SQUARES)["squared error"]
    values = [
        setting.judge(learner, task, step * setting.batch_size, (1,), SQUARES)["squared error"]
        for step in STEPS
    ]
    return np.concatenate(values)


def judge_findings(
    results: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], votes: Mapping[tuple[str, str], bool]
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return by finding the relative differences, with intervals, of the pairs of which both have a vote."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for title, family, row, reference in FINDINGS:
        found.setdefault(title, {})
        if votes.get((family, row)) and votes.get((family, reference)):
            found[title][f"{family}: {row} over {reference}"] = bootstrap(
                relative, *(results[family][key]["error"][:, -1] for key in (row, reference)), resamples=1000
            )
    return found


def relative(first: np.ndarray, second: np.ndarray) -> float:
    """Return the relative difference of the means of two arrays."""
    return float(first.mean() / second.mean() - 1)


def cells_listing(
    trainings: Mapping[tuple[str, str], list[dict[str, np.ndarray]]],
    results: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
) -> dict[str, Any]:
    """Return how each learner was trained, and its errors."""
    rows = []
    for (family, row), runs in trainings.items():
        errors = results[family][row]["error"].mean((0, 2))
        fall = max((float(run["fall"]) for run in runs), key=abs)
        cost = [f"{np.mean([float(run[key]) for run in runs]):,.0f}" for key in ("iterations", "seconds")]
        vote = "yes" if abs(fall) < FLAT else "no"
        rows.append([family, row, *cost, f"{fall:.1%}", vote, *(f"{error:.4g}" for error in errors)])
    for family, names in UNLEARNT.items():
        for name in names:
            errors = results[family][name]["error"].mean((0, 2))
            rows.append([family, name, "0", "0", "", "", *(f"{error:.4g}" for error in errors)])
    heads = ["family", "learner", "iterations", "seconds", "largest fall", "vote"]
    return {
        "title": "Learners trained until they are flat",
        "columns": [*heads, *(f"after {step}" for step in STEPS)],
        "rows": rows,
    }


def findings_listing(gaps: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> dict[str, Any]:
    """Return the verdict of each finding, by learners with a vote."""
    rows = [
        [
            title,
            verdict(pairs.values()) if pairs else "no vote",
            "; ".join(f"{key} {v:+.1%} [{low:+.1%}, {high:+.1%}]" for key, (v, low, high) in pairs.items()),
        ]
        for title, pairs in gaps.items()
    ]
    return {
        "title": "The paper's findings with converged learners",
        "columns": ["finding", "verdict", "pairs"],
        "rows": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="findings with converged learners, by itself")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    console = Console()
    found = part(Study(options.folder, 1, console), options.smoke, options.seeds)
    for listing in found["listings"]:
        console.print(listing["title"])
        for line in [listing["columns"], *listing["rows"]]:
            console.print("  ".join(line))
    console.print(found["claims"])
