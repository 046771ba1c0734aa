"""Decision boundaries: how rough learners, peers and a language model are, and rows that are labelled where it pays.

Linear, circles and moons; 8 to 256 rows; roughness in units of the best boundary. Rows of a pool are labelled 16 to 64.
A language model reads examples in its prompt, as it is and after LoRA on linear tasks.

Source: Zhao, Nguyen, Grover 2024 (arXiv 2406.11233); the bars are this project's own.
"""

from __future__ import annotations

import math
from importlib.metadata import version
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import claim, normal_interval
from gradatim.provenance import on_threads
from studies.meta.sources import fingerprint

from . import models
from .boundary_reading import PROMPTS, finetuned, untuned
from .boundary_tasks import GRIDS, OURS, SHAPES, SPREADS, acquired, by_size, moved_by_order
from .boundary_tuning import Tuning, described

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradatim.comparison.runs import Study

SIZES, GRID, READ_GRID = (8, 16, 32, 64, 128, 256), 50, 25
CHOICE_SEEDS = (1000, 1001, 1002)
"""Seeds that choose settings of peers and the spread; no reported seed is among them."""

ACQUIRING = ("RefinedClassifier", "RBF-SVM", "MLP")
HOW = ("random", "entropy", "spread")
WHAT = ("error", "cells unlike the best", "roughness", "regions", "odd cells")
TUNED_SEEDS, PARTS_SEEDS = 5, 2
"""Seeds of tuning all layers, and of the first or the last two alone."""


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of decision boundaries."""
    with on_threads(1):
        makers = chosen(study, smoke)
        tables = {name: sized(study, name, make, smoke, seeds) for name, (_, make) in makers.items()}
        study.notify(f"boundaries of {len(tables)} classifiers: {seeds} seeds")
        spread = chosen_spread(study, makers, smoke)
        errors = acquiring(study, makers, spread, smoke, seeds)
        study.notify(f"rows acquired: spread {spread:g}, {seeds} seeds")
        read = [reading(study, seed, smoke) for seed in range(seeds)]
        learnt = tunings(study, smoke, seeds)
        study.notify("a language model read and tuned")
    claims = [roughness_claim(tables["RefinedClassifier"], smoke), acquire_claim(errors)]
    points = np.array([100 * float(r["after"] - r["before"]) for r in learnt["all layers"]])
    claims.append(claim("frozen.boundary.finetuned", *interval(points), 15.0, ">="))
    records = [
        {
            "name": f"boundary/{name}",
            "family": shape,
            "seed": seed,
            "steps": size,
            "errors": [round(float(v[0]), 6)],
        }
        for name, table in tables.items()
        for (seed, each), (s, shape) in product(enumerate(table), enumerate(SHAPES))
        for size, v in zip(sizes(smoke), each[s], strict=True)
    ]
    listings = [
        sizes_listing(tables, makers, smoke),
        order_listing(study, makers, read, learnt, smoke, seeds),
        acquire_listing(errors, makers, spread),
        reading_listing(read, learnt, smoke),
    ]
    return {"records": records, "claims": claims, "listings": listings}


def sizes(smoke: bool) -> tuple[int, ...]:
    """Return the numbers of rows that boundaries are drawn after."""
    return (8, 16) if smoke else SIZES


def inputs(name: str, *more: Any) -> list[Any]:
    """Return what a record of classifiers depends on."""
    own = fingerprint("studies.frozen.boundary_tasks", "gradatim.probing.boundary", alone=True)
    ours = fingerprint("gradatim.estimators") if name in OURS else ""
    return [name, own, ours, *more]


def one_size(study: Study, name: str, setting: str, make: Any, seed: int, smoke: bool) -> np.ndarray:
    """Return the boundaries of a classifier on a seed, `[shapes, sizes, 5]`."""
    grid = 12 if smoke else GRID
    key = "".join(c if c.isalnum() else "-" for c in f"boundary-{name}-{setting}-{seed}")
    return study.cached(
        key,
        inputs(name, setting, seed, sizes(smoke), grid),
        lambda: {"found": np.array([by_size(make, shape, seed, sizes(smoke), grid) for shape in SHAPES])},
    )["found"]


def sized(study: Study, name: str, make: Any, smoke: bool, seeds: int) -> np.ndarray:
    """Return the boundaries of a classifier, `[seeds, shapes, sizes, 5]`."""
    setting = chosen(study, smoke)[name][0]
    return np.array([one_size(study, name, setting, make, seed, smoke) for seed in range(seeds)])


def chosen(study: Study, smoke: bool) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Return ours, and each peer with the setting whose cells are nearest to the best at 64 rows, on other seeds."""
    found = {name: ("", make) for name, make in list(OURS.items())[: 1 if smoke else None]}
    for name, settings in GRIDS.items():
        if smoke:
            found[name] = settings[0]
            continue
        at = SIZES.index(64)
        scores = [
            np.mean([one_size(study, name, setting, make, seed, smoke)[:, at, 1] for seed in CHOICE_SEEDS])
            for setting, make in settings
        ]
        found[name] = settings[int(np.argmin(scores))]
    return found


def one_acquired(
    study: Study, name: str, maker: tuple[str, Any], how: str, spread: float, seed: int, smoke: bool
) -> np.ndarray:
    """Return the error at the last row that is labelled, for each shape."""
    size: dict[str, Any] = {"sizes": (8, 16), "pool_rows": 60} if smoke else {}
    setting, make = maker
    key = "".join(c if c.isalnum() else "-" for c in f"acquire-{name}-{how}-{spread:g}-{seed}")
    return study.cached(
        key,
        inputs(name, setting, how, spread, seed, size),
        lambda: {"error": np.array([acquired(make, shape, seed, how, spread, **size) for shape in SHAPES])},
    )["error"]


def chosen_spread(study: Study, makers: dict[str, Any], smoke: bool) -> float:
    """Return the spread with the lowest geometric mean error, on other seeds."""
    if smoke:
        return 1.0
    scores = [
        np.mean(
            [
                np.log(one_acquired(study, name, makers[name], "spread", spread, seed, smoke))
                for name, seed in product(ACQUIRING, CHOICE_SEEDS)
            ]
        )
        for spread in SPREADS
    ]
    return SPREADS[int(np.argmin(scores))]


def acquiring(
    study: Study, makers: dict[str, Any], spread: float, smoke: bool, seeds: int
) -> dict[str, np.ndarray]:
    """Return errors at the last row labelled, for each way of choosing `[seeds, predictors, shapes]`."""
    names = ACQUIRING[:2] if smoke else ACQUIRING
    return {
        how: np.array(
            [
                [
                    one_acquired(
                        study, name, makers[name], how, spread if how == "spread" else 0.0, seed, smoke
                    )
                    for name in names
                ]
                for seed in range(seeds)
            ]
        )
        for how in HOW
    }


def language_inputs(*more: Any) -> list[Any]:
    """Return what a record of a language model depends on."""
    own = fingerprint("studies.frozen.boundary_tuning", "gradatim.language.reader", alone=True)
    return [own, version("transformers"), version("peft"), *more]


def reading(study: Study, seed: int, smoke: bool) -> Any:
    """Return the boundaries of the untuned language model on a seed."""
    grid = 5 if smoke else READ_GRID
    more = fingerprint(
        "studies.frozen.boundary_reading",
        "studies.frozen.boundary_tasks",
        "gradatim.probing.boundary",
        alone=True,
    )
    return study.cached(
        f"reading-{seed}",
        language_inputs(more, seed, grid, smoke),
        lambda: untuned(models.tiny if smoke else models.stories, seed, grid, smoke),
    )


def tunings(study: Study, smoke: bool, seeds: int) -> dict[str, list[Any]]:
    """Return what LoRA learns in all layers, in the first two, and in the last two."""
    base = Tuning(steps=2, rows=16, rank=2, shortest=4, longest=8) if smoke else Tuning()
    layers = {"all layers": None, "first two layers": (0, 1), "last two layers": (0, 1) if smoke else (3, 4)}
    grid, tasks = (5, 2) if smoke else (READ_GRID, 100)
    found: dict[str, list[Any]] = {}
    for name, which in layers.items():
        tuning = Tuning(**{**described(base), "layers": which})
        count = min(seeds, TUNED_SEEDS if which is None else PARTS_SEEDS)
        for seed in range(count):
            record = study.cached(
                f"tuned-{name.replace(' ', '-')}-{seed}",
                language_inputs(described(tuning), seed, grid, tasks),
                lambda tuning=tuning, seed=seed: finetuned(
                    models.tiny if smoke else models.stories, tuning, seed, grid, tasks
                ),
            )
            found.setdefault(name, []).append(record)
            study.notify(f"tuned, {name}, seed {seed}: {record['before']:.3f} to {record['after']:.3f}")
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95% interval; of one seed the value itself."""
    only = float(values[0])
    return normal_interval(values) if len(values) > 1 else (only, only, only)


def roughness_claim(table: np.ndarray, smoke: bool) -> dict[str, Any]:
    """Return the claim of the default classifier's roughness after 128 rows, of the worst shape."""
    at = -1 if smoke else SIZES.index(128)
    ratios = table[:, :, at, 2]
    worst = int(ratios.mean(0).argmax())
    beside = {shape: [round(v, 4) for v in interval(ratios[:, s])] for s, shape in enumerate(SHAPES)}
    return claim("frozen.boundary.roughness", *interval(ratios[:, worst]), 1.5, "<=") | {"beside": beside}


def geometric(ratios: np.ndarray) -> tuple[float, float, float]:
    """Return the geometric mean of ratios `[seeds, ...]` and its 95% interval over seeds."""
    middle, low, high = interval(np.log(ratios).reshape(len(ratios), -1).mean(1))
    return math.exp(middle), math.exp(low), math.exp(high)


def acquire_claim(errors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the claim of the error of rows acquired over that of random ones; beside it, of entropy alone."""
    found = geometric(errors["spread"] / errors["random"])
    beside = {
        "entropy alone over random": geometric(errors["entropy"] / errors["random"]),
        "over entropy alone": geometric(errors["spread"] / errors["entropy"]),
    }
    beside = {key: [round(v, 4) for v in value] for key, value in beside.items()}
    made = claim("frozen.boundary.acquire", *found, 0.85, "<=")
    return made | {"holds": made["holds"] and made["high"] < 1, "beside": beside}


def sizes_listing(tables: dict[str, np.ndarray], makers: dict[str, Any], smoke: bool) -> dict[str, Any]:
    """Return error and roughness of each classifier by rows."""
    rows = []
    for (name, table), (s, shape), (at, size) in product(
        tables.items(), enumerate(SHAPES), enumerate(sizes(smoke))
    ):
        label = f"{name}, {makers[name][0]}" if makers[name][0] else name
        rows.append([shape, str(size), label, *(f"{v:.3f}" for v in table[:, s, at].mean(0))])
    return {
        "title": "boundaries by rows (roughness in units of the best boundary)",
        "columns": ["shape", "rows", "classifier", *WHAT],
        "rows": rows,
    }


def order_listing(
    study: Study, makers: dict[str, Any], read: Any, learnt: Any, smoke: bool, seeds: int
) -> dict[str, Any]:
    """Return how many cells change with the order of 64 rows of the linear shape, and with names of labels."""
    n, grid = (16, 5) if smoke else (64, READ_GRID)
    name = "RefinedClassifier"
    make = makers[name][1]
    ours = [
        study.cached(
            f"order-{seed}",
            inputs(name, "order", seed, n, grid),
            lambda seed=seed: {"share": np.asarray(moved_by_order(make, "linear", seed, n, grid))},
        )["share"]
        for seed in range(seeds)
    ]
    rows = [[name, f"{np.mean(ours):.3f}", "0"]]
    rows.append(["language model", *(f"{np.mean([r[key] for r in read]):.3f}" for key in ("order", "names"))])
    tuned = learnt["all layers"]
    rows.append(
        ["language model, tuned", *(f"{np.mean([r[k] for r in tuned]):.3f}" for k in ("order", "names"))]
    )
    return {
        "title": "share of cells whose label changes (64 rows, linear)",
        "columns": ["classifier", "with the order of rows", "with the labels' names"],
        "rows": rows,
    }


def acquire_listing(errors: dict[str, np.ndarray], makers: dict[str, Any], spread: float) -> dict[str, Any]:
    """Return the geometric mean errors of rows acquired."""
    names = ACQUIRING[: errors["random"].shape[1]]
    rows = [
        [shape, name, *(f"{np.exp(np.log(errors[how][:, p, s]).mean()):.4f}" for how in HOW)]
        for (s, shape), (p, name) in product(enumerate(SHAPES), enumerate(names))
    ]
    return {
        "title": f"error at the last of 64 rows labelled, spread {spread:g}",
        "columns": ["shape", "classifier", "random rows", "entropy", "entropy and spread"],
        "rows": rows,
    }


def reading_listing(read: Any, learnt: dict[str, list[Any]], smoke: bool) -> dict[str, Any]:
    """Return the boundaries of the language model, as it is and tuned."""
    prompts = [name for name in PROMPTS if not (smoke and name.startswith("published"))]
    found = {f"as it is; {name}": np.mean([r["found"][p] for r in read], 0) for p, name in enumerate(prompts)}
    found |= {f"tuned, {name}": np.mean([r["found"] for r in table], 0) for name, table in learnt.items()}
    unseen = {
        f"tuned, {name}": f"{np.mean([r['before'] for r in t]):.3f} to {np.mean([r['after'] for r in t]):.3f}, "
        f"{np.mean([r['seconds'] for r in t]):.0f} s"
        for name, t in learnt.items()
    }
    rows = [
        [name, shape, *(f"{v:.3f}" for v in table[s]), unseen.get(name, "")]
        for name, table in found.items()
        for s, shape in enumerate(SHAPES)
    ]
    return {
        "title": "a language model that reads examples",
        "columns": ["model and prompt", "shape", *WHAT, "right on unseen linear tasks, before and after"],
        "rows": rows,
    }
