"""Task relations: tasks around centres and tables of related tasks, with no, uniform, learnt and known relations.

Every learner is MAML of one inner step. A penalty counts .3, chosen with the rest on validation tasks of other seeds.
Of clustered tasks each is seen in a window of its own and asked everywhere, so what it lacks only others can tell it.

Source: the comparison is this project's own, after the claims of Wang et al. 2024.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from gradatim.batch import Task
from gradatim.comparison.runs import claim, normal_interval
from gradatim.methods import MAML
from gradatim.regularizers.clusters import clusters
from gradatim.regularizers.relations import Relations, relations
from gradatim.training.config import TrainConfig
from gradatim.training.schemes import Unrolled
from gradatim.training.train import train

from .related_tasks import Clustered, Fixed, RealTasks

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study
    from gradatim.learner import Learner

LONG, PER_CLUSTER = "none, as long", "a learner per cluster"
ARMS = ("none", "uniform", "learnt", "oracle", LONG, PER_CLUSTER)
"""Without relations; three penalties; without, for as many iterations as all learners of clusters take together."""

WEIGHT, FIRST_SEED, SEEDS = 0.3, 1, 3
CLUSTERED = {
    "sine": Clustered(kind="sine", spread=0.05),
    "linear": Clustered(kind="linear", spread=0.05),
}
REAL = {
    "school": RealTasks(name="school", support_rows=10, query_rows=12),
    "landmine": RealTasks(name="landmine", support_rows=40, query_rows=40),
    "parkinsons": RealTasks(name="parkinsons", support_rows=16, query_rows=32),
}
ITERATIONS = {"clustered": 600, "real": 200}
Family = Clustered | RealTasks


def part(study: Study, smoke: bool, seeds: int = SEEDS) -> dict[str, Any]:
    """Return `records`, `claims` and `listings` of task relations; a smoke run needs no data and few seconds."""
    seeds = 1 if smoke else seeds
    families: dict[str, Family] = {"sine": CLUSTERED["sine"]} if smoke else {**CLUSTERED, **REAL}
    found: dict[tuple[str, str, int], Values] = {}
    for name, family in families.items():
        for seed in range(FIRST_SEED, FIRST_SEED + seeds):
            for arm in arms(family):
                found[name, arm, seed] = result(study, replace(family, seed=seed), arm, smoke)
            study.notify(f"relations: {name}, seed {seed}")
    return {"records": records(found), "claims": claims(found), "listings": listings(found)}


def arms(family: Family) -> list[str]:
    """Return the arms of a family: known relations only where there are some."""
    known = isinstance(family, Clustered) or family.name != "school"
    return [arm for arm in ARMS if known or arm != "oracle"]


def result(study: Study, family: Family, arm: str, smoke: bool) -> Values:
    """Return what one arm came to on new tasks: `error [tasks]`, `rand`, `seconds`; computed once."""
    iterations = 5 if smoke else ITERATIONS["clustered" if isinstance(family, Clustered) else "real"]
    inputs = {
        "family": asdict(family),
        "kind": type(family).__name__,
        "arm": arm,
        "weight": WEIGHT,
        "iterations": iterations,
    }
    key = f"relations-{family.label}-{arm.replace(',', '').replace(' ', '-')}-{family.seed}"
    return study.cached(key, inputs, partial(run, family, arm, iterations))


def run(family: Family, arm: str, iterations: int) -> dict[str, np.ndarray]:
    """Train one arm on the training tasks; return its errors on new tasks and the clusters read from relations."""
    begin = time.process_time()
    if arm == PER_CLUSTER:
        learner = meta_train(family, "none", iterations)
        labels = clusters(relations(learner, family.training_rows()), family.clusters)
        parts = [torch.nonzero(labels == c)[:, 0] for c in range(family.clusters)]
        # a cluster of one task teaches no learner of its own
        learners = [meta_train(family.only(p.tolist()), "none", iterations) for p in parts if len(p) > 1]
        error = of_best(learners or [learner], family.new_tasks())
    else:
        times = family.clusters if arm == LONG else 1
        learner = meta_train(family, "none" if arm == LONG else arm, times * iterations)
        labels = clusters(relations(learner, family.training_rows()), family.clusters)
        error = errors(learner, family.new_tasks())
    rand = adjusted_rand_score(family.truth(), labels.numpy())
    seconds = time.process_time() - begin
    return {"error": error.double().numpy(), "rand": np.array(rand), "seconds": np.array(seconds)}


def meta_train(family: Family, arm: str, iterations: int) -> Learner:
    """Return MAML of one inner step, trained on the tasks of a family with the penalty of an arm."""
    penalties = {
        "none": (),
        "uniform": (Fixed(WEIGHT, known=False),),
        "learnt": (Relations(WEIGHT),),
        "oracle": (Fixed(WEIGHT, known=True),),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(family.seed)
        hidden = (32, 32) if family.label.startswith("sine") else (32,)
        learner = MAML(hidden=hidden, rate=0.1, learnt_rate=True).build(family)
    scheme = Unrolled(batch_size=family.support_rows, horizon=1, penalties=penalties[arm])
    config = TrainConfig(
        iterations=iterations, tasks=family.batch, lr=3e-3, seed=family.seed, clip=10.0, ema=0.98, threads=1
    )
    train(learner, family, scheme, config, progress=False)
    return learner


@torch.no_grad()
def errors(learner: Learner, task: Task) -> torch.Tensor:
    """Return the loss of each new task after its support `[T]`, to the noiseless answer where it is known."""
    state = learner.adapt(task.support, task.support.n_rows)
    if task.truth is None:
        return learner.loss(task.query, state)
    return (learner.predict(task.query.x, state) - task.truth).square().mean((1, 2))


@torch.no_grad()
def of_best(learners: list[Learner], task: Task) -> torch.Tensor:
    """Return the loss of each new task `[T]` by the learner whose start answers its support best."""
    first = torch.stack([one.loss(task.support, one.init(task.n_tasks)) for one in learners])
    found = torch.stack([errors(one, task) for one in learners])
    return found.gather(0, first.argmin(0)[None])[0]


# --- what is reported


def mean_errors(found: dict[tuple[str, str, int], Values], name: str, arm: str) -> np.ndarray:
    """Return the mean error over new tasks of each seed, `[seeds]`."""
    return np.array([v["error"].mean() for (n, a, _), v in found.items() if (n, a) == (name, arm)])


def over(
    found: dict[tuple[str, str, int], Values], names: tuple[str, ...], one: str, other: str
) -> np.ndarray:
    """Return the logarithms of an arm's errors over another's, one for each family and seed."""
    pairs = [(mean_errors(found, n, one), mean_errors(found, n, other)) for n in names]
    return np.concatenate([np.log(a / b) for a, b in pairs if len(a)])


def claims(found: dict[tuple[str, str, int], Values]) -> list[dict[str, Any]]:
    """Return the figures; intervals are over seeds and families."""
    rand = np.array([float(v["rand"]) for (n, a, _), v in found.items() if a == "learnt" and n in CLUSTERED])
    made = [claim("systems.relations.recovered", *interval(rand), 0.8, ">=")]
    ratios = {
        "over_uniform": ("learnt", "uniform", 0.97),
        "over_none": ("learnt", "none", 1.0),
        "clusters_over_one": (PER_CLUSTER, LONG, 0.97),
    }
    for name, (arm, other, bar) in ratios.items():
        value, low, high = map(math.exp, interval(over(found, tuple(CLUSTERED), arm, other)))
        made.append(claim(f"systems.relations.{name}", value, low, high, bar, "<="))
    return made


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its interval; of a single value the value thrice."""
    only = float(values[0])
    return normal_interval(values) if len(values) > 1 else (only, only, only)


def records(found: dict[tuple[str, str, int], Values]) -> list[dict[str, Any]]:
    """Return one record for each family, arm and seed."""
    return [
        {
            "family": name,
            "arm": arm,
            "seed": seed,
            "error": round(float(v["error"].mean()), 6),
            "tasks": len(v["error"]),
            "rand": round(float(v["rand"]), 4),
            "seconds": round(float(v["seconds"]), 2),
            "commit": str(v["commit"]),
        }
        for (name, arm, seed), v in found.items()
    ]


def listings(found: dict[tuple[str, str, int], Values]) -> list[dict[str, Any]]:
    """Return errors by family and arm, over those without relations, and how well clusters are read."""
    names, shown = list(dict.fromkeys(n for n, _, _ in found)), dict.fromkeys(a for _, a, _ in found)
    table = {name: {arm: mean_errors(found, name, arm) for arm in shown} for name in names}
    rands = {
        n: {a: [float(v["rand"]) for (m, b, _), v in found.items() if (m, b) == (n, a)] for a in shown}
        for n in names
    }

    def rows(cell: Any) -> list[list[str]]:
        return [
            [name, *(cell(name, arm) if len(table[name][arm]) else "" for arm in shown)] for name in names
        ]

    columns = ["tasks", *shown]
    return [
        {
            "title": "error of new tasks",
            "columns": columns,
            "rows": rows(lambda n, a: f"{table[n][a].mean():.4f}"),
        },
        {
            "title": "over no relations",
            "columns": columns,
            "rows": rows(lambda n, a: f"{np.exp(over(found, (n,), a, 'none').mean()):.3f}"),
        },
        {
            "title": "adjusted Rand index of clusters read from relations of the training tasks",
            "columns": columns,
            "rows": rows(lambda n, a: f"{np.mean(rands[n][a]):.2f}"),
        },
    ]
