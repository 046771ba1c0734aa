"""Causal orders under six laws of noise: learnt moments of pairs, the paper's refinement, orders that learn nothing.

`part(study, smoke, seeds)` trains and judges, and goes on where it was stopped. Validation tasks choose the scale of
columns and the settings of peers, the latter under each law. Test tasks are read once. On each law the best peer is
the one that is best on test tasks, which favours peers.

Source: Mittal et al. 2025 (topological order); Lorch et al. 2022 (the refinement's attention); peers: causal_peers.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import claim, normal_interval, sample_tasks
from gradatim.config import to_json
from gradatim.families import StructuralCausalModel
from gradatim.families.causal import LAWS
from gradatim.methods import ExplicitOrder, PairwiseOrder, name_of
from gradatim.metrics import curve, reversed_by, reversed_edges
from gradatim.provenance import commit, on_threads
from gradatim.recipes import Recipe
from gradatim.training.config import TrainConfig
from gradatim.training.schemes import Greedy, Unrolled

from .causal_peers import Peer, peers

if TYPE_CHECKING:
    from gradatim.batch import Task
    from gradatim.comparison.experiment import Values
    from gradatim.comparison.runs import Study, TrainedRun

FAMILY = StructuralCausalModel(10, 2.0, support_rows=200, noise="mixed")
SMALL = StructuralCausalModel(4, 2.0, support_rows=40, noise="mixed")
METRIC = "reversed edges"
BAR = 0.8
STEPS = (1, 2, 4)
"""Numbers of mini-batches, a quarter of all rows each, after which learners are judged."""

OURS, REFINED, RANKS = "pairwise-order", "explicit-order", "pairwise-order on ranks"
ASIDE = {
    "gumbel": {"noise": "gumbel"},
    "linear": {"mechanism": "linear", "noise": "mixed"},
    "20 variables": {"variables": 20, "noise": "mixed"},
}
"""Tasks that learners were not trained on: a law that is held out, other mechanisms, more variables."""

ITERATIONS, CHOOSING, REFINING = 1200, 300, 100
VALIDATION, TEST, CHUNK = 64, 256, 64


def recipes(smoke: bool, seeds: int) -> dict[str, Recipe]:
    """Return what is trained: ours with each seed; with one, ours on ranks and beside it, and the paper's refinement.

    States of ours are sums. So one step with all rows, whose number differs by task, trains for every mini-batch.
    """
    family, share = (SMALL, 0.001) if smoke else (FAMILY, 1.0)
    rows = family.support_rows
    varied = replace(family, min_support_rows=rows // 4)

    def ours(iterations: int, seed: int, columns: str = "standard") -> Recipe:
        config = TrainConfig(iterations=max(2, int(share * iterations)), tasks=32, lr=2e-3, seed=seed)
        return Recipe(PairwiseOrder(), replace(varied, columns=columns), Unrolled(rows, 1), config)

    refining = TrainConfig(iterations=max(2, int(share * REFINING)), tasks=16, lr=2e-3, warmup=20)
    return {
        **{f"causal-{seed}": ours(ITERATIONS, seed) for seed in range(seeds)},
        "causal-brief": ours(CHOOSING, 0),
        "causal-ranks": ours(CHOOSING, 0, "ranks"),
        "causal-refined": Recipe(ExplicitOrder(), family, Greedy(rows // 4, 4), refining),
    }


def tasks(family: StructuralCausalModel, split: str, count: int) -> Iterator[Task]:
    """Yield validation or test tasks, `CHUNK` at a time."""
    offset = {"validation": 10_000, "test": 20_000}[split]
    for at, start in enumerate(range(0, count, CHUNK)):
        yield sample_tasks(family, min(CHUNK, count - start), offset + at)


def learner_errors(
    study: Study, name: str, run: TrainedRun, family: StructuralCausalModel, split: str, count: int
) -> np.ndarray:
    """Return the share of reversed edges of a trained learner, `[steps, tasks]`."""
    size = family.support_rows // 4
    if family.x_dim != run.recipe.family.x_dim:
        other = run.recipe.method.build(family)
        other.load_state_dict(run.learner.state_dict())
        learner = other.eval()
    else:
        learner = run.learner

    def compute() -> Values:
        found = [
            curve(learner, task, size, list(STEPS), {METRIC: reversed_edges})[METRIC]
            for task in tasks(family, split, count)
        ]
        return {METRIC: np.concatenate(found, axis=1)}

    inputs = [run.description, to_json(family), split, count]
    return study.cached(f"{name}-{split}", inputs, compute)[METRIC]


def peer_errors(
    study: Study, name: str, setting: str, peer: Peer, family: StructuralCausalModel, split: str, count: int
) -> np.ndarray:
    """Return the share of reversed edges of a peer, `[tasks]`."""

    def compute() -> Values:
        found = [
            reversed_by(peer(task.support.x).argsort(1, descending=True), task.query.y).numpy()
            for task in tasks(family, split, count)
        ]
        return {METRIC: np.concatenate(found)}

    key = "".join(c if c.isalnum() else "-" for c in f"causal-{name}-{setting}-{split}")
    return study.cached(key, [name, setting, to_json(family), split, count], compute)[METRIC]


def judged_peers(
    study: Study, family: StructuralCausalModel, smoke: bool
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return test errors of each peer on a family, and the setting that is best on validation tasks."""
    errors, chosen = {}, {}
    validation, test = (4, 4) if smoke else (VALIDATION, TEST)
    for name, settings in peers().items():
        settings = dict(list(settings.items())[:1]) if smoke else settings
        scores = {
            setting: peer_errors(study, name, setting, peer, family, "validation", validation).mean()
            for setting, peer in settings.items()
            if len(settings) > 1
        }
        best = min(scores, key=scores.__getitem__) if scores else next(iter(settings))
        errors[name], chosen[name] = (
            peer_errors(study, name, best, settings[best], family, "test", test),
            best,
        )
    return errors, chosen


def over_best(ours: dict[str, np.ndarray], best: dict[str, np.ndarray], draws: int = 1000) -> np.ndarray:
    """Return the geometric mean over laws of our errors over the best peer's: itself, and its 95% interval, `[3]`.

    Args:
        ours: by law, `[seeds, tasks]`.
        best: by law, `[tasks]`.
        draws: of tasks, of each law anew, and of seeds.

    Example:
        >>> over_best({"laplace": np.full((3, 9), 0.1)}, {"laplace": np.full(9, 0.2)}).tolist()
        [0.5, 0.5, 0.5]
    """
    rng = np.random.default_rng(0)
    seeds = len(next(iter(ours.values())))

    def once(resample: bool) -> float:
        chosen, logs = rng.integers(seeds, size=seeds), []
        for law, errors in ours.items():
            at = rng.integers(errors.shape[1], size=errors.shape[1]) if resample else slice(None)
            errors = errors[chosen] if resample else errors
            logs.append(np.log(max(errors[:, at].mean(), 1e-9) / max(best[law][at].mean(), 1e-9)))
        return float(np.exp(np.mean(logs)))

    drawn = [once(True) for _ in range(draws)]
    return np.array([once(False), *np.quantile(drawn, [0.025, 0.975])])


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of causal orders."""
    seeds = 1 if smoke else seeds
    base, test = (SMALL, 4) if smoke else (FAMILY, TEST)
    wanted = recipes(smoke, seeds)
    with on_threads(1):
        runs = study.train(wanted)
        by_law = {law: judged_peers(study, replace(base, noise=law), smoke) for law in LAWS}
        test_errors = {
            law: np.stack(
                [
                    learner_errors(study, name, runs[name], replace(base, noise=law), "test", test)
                    for name in (f"causal-{seed}" for seed in range(seeds))
                ]
            )
            for law in LAWS
        }
        refined = {
            law: learner_errors(
                study, "causal-refined", runs["causal-refined"], replace(base, noise=law), "test", test
            )
            for law in LAWS
        }
        choice = choosing(study, runs, base, smoke)
        aside = others(study, runs["causal-0"], base, smoke)
    best = {
        law: min(errors, key=lambda name, e=errors: e[name].mean()) for law, (errors, _) in by_law.items()
    }
    ratio = over_best(
        {law: errors[:, -1] for law, errors in test_errors.items()},
        {law: by_law[law][0][name] for law, name in best.items()},
    )
    value, low, high = ratio.tolist()
    verdict = claim("meta.causal.over_best", value, low, high, BAR, "<=")
    verdict["beside"] = {
        "seconds of training": round(float(np.mean([runs[f"causal-{s}"].seconds for s in range(seeds)])), 1)
    }
    return {
        "records": records(runs, test_errors, refined, by_law, base),
        "claims": [verdict],
        "listings": [laws_listing(test_errors, refined, by_law, best), choice, aside],
    }


def choosing(
    study: Study, runs: dict[str, TrainedRun], base: StructuralCausalModel, smoke: bool
) -> dict[str, Any]:
    """Return validation errors of standardised columns and of ranks, trained alike."""
    count, rows = 4 if smoke else TEST, []
    for title, name, columns in (
        ("standard", "causal-brief", "standard"),
        ("ranks", "causal-ranks", "ranks"),
    ):
        found = [
            learner_errors(
                study, name, runs[name], replace(base, noise=law, columns=columns), "validation", count
            )[-1].mean()
            for law in LAWS
        ]
        rows.append([title, *(f"{error:.3f}" for error in found)])
    return {
        "title": "causal orders: columns standardised or Gaussianised by rank, a short training, validation tasks",
        "columns": ["columns", *LAWS],
        "rows": rows,
    }


def others(study: Study, run: TrainedRun, base: StructuralCausalModel, smoke: bool) -> dict[str, Any]:
    """Return validation errors of ours and of peers on tasks of other kinds than those of the training."""
    count, rows = 4 if smoke else VALIDATION, []
    for title, changed in ASIDE.items():
        family = replace(base, **(changed if not smoke or "variables" not in changed else {"variables": 5}))
        ours = learner_errors(study, f"causal-0-{title}", run, family, "validation", count)[-1].mean()
        found = {
            f"{name} {setting}".strip(): peer_errors(
                study, name, setting, peer, family, "validation", count
            ).mean()
            for name, settings in peers().items()
            for setting, peer in settings.items()
            if name not in ("RESIT", "SCORE")
        }
        best = min(found, key=found.__getitem__)
        rows.append([title, f"{ours:.3f}", f"{found[best]:.3f}", best])
    return {
        "title": "causal orders: tasks of other kinds, validation; RESIT and SCORE left out",
        "columns": ["tasks", OURS, "best peer", "which"],
        "rows": rows,
    }


def laws_listing(
    ours: dict[str, np.ndarray],
    refined: dict[str, np.ndarray],
    by_law: dict[str, tuple[dict[str, np.ndarray], dict[str, str]]],
    best: dict[str, str],
) -> dict[str, Any]:
    """Return test errors by law: ours after each number of steps, the refinement's, each peer's."""
    rows = [
        [f"{OURS}, {step}/4 of the rows", *(f"{ours[law][:, at].mean():.3f}" for law in LAWS)]
        for at, step in enumerate(STEPS)
    ]
    rows += [
        [f"{REFINED}, {step}/4 of the rows", *(f"{refined[law][at].mean():.3f}" for law in LAWS)]
        for at, step in enumerate(STEPS)
    ]
    rows += [
        [name, *(f"{by_law[law][0][name].mean():.3f}" + " *" * (best[law] == name) for law in LAWS)]
        for name in next(iter(by_law.values()))[0]
    ]
    return {
        "title": "causal orders: share of edges reversed, test tasks; * the best peer of a law",
        "columns": ["order", *LAWS],
        "rows": rows,
    }


def records(
    runs: dict[str, TrainedRun],
    ours: dict[str, np.ndarray],
    refined: dict[str, np.ndarray],
    by_law: dict[str, tuple[dict[str, np.ndarray], dict[str, str]]],
    base: StructuralCausalModel,
) -> list[dict[str, Any]]:
    """Return a record for each law, learner or peer, seed and number of steps."""
    found: list[dict[str, Any]] = []

    def add(
        name: str,
        law: str,
        step: int,
        errors: np.ndarray,
        seed: int | None,
        setting: Any,
        run: TrainedRun | None,
    ):
        mean, low, high = normal_interval(errors.astype(float))
        found.append(
            {
                "name": name,
                "method": name_of(run.recipe.method) if run else name,
                "family": f"order-{law}",
                "signal": None,
                "steps": step,
                "rows": step * (base.support_rows // 4),
                "metric": METRIC,
                "seed": seed,
                **{key: round(value, 6) for key, value in (("mean", mean), ("low", low), ("high", high))},
                "tasks": len(errors),
                "setting": setting,
                "commit": commit(),
                "seconds": round(run.seconds, 1) if run else 0.0,
                "peak_memory": run.peak_memory if run else None,
                "threads": run.threads if run else 1,
            }
        )

    for law in LAWS:
        for at, step in enumerate(STEPS):
            for seed, errors in enumerate(ours[law]):
                add(OURS, law, step, errors[at], seed, None, runs[f"causal-{seed}"])
            add(REFINED, law, step, refined[law][at], 0, None, runs["causal-refined"])
        errors_of, chosen = by_law[law]
        for name, errors in errors_of.items():
            add(name, law, STEPS[-1], errors, None, {"setting": chosen[name]} if chosen[name] else None, None)
    return found
