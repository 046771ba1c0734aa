"""A language model tuned to sample from a posterior: random numbers, names, a middle sentence, temperatures.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363), sections 2 and 4, at the size of 260,032 parameters.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.comparison.runs import claim
from gradatim.provenance import on_threads
from studies.meta.sources import fingerprint

from . import sampler_runs as runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from gradatim.comparison.runs import Study

MODULES = (
    *(f"gradatim.language.{name}" for name in ("replay", "rewards", "sampling", "sequences", "subtb")),
    *(f"studies.frozen.sampler_{name}" for name in ("peers", "runs", "tasks")),
    "studies.frozen.models",
)
"""The code that the numbers depend on."""

PLAIN = ("untuned", "temperature sampling", "importance resampling")
NUMBER_METHODS = (*PLAIN, "reinforce, no entropy", "reinforce", "subtb")
NAME_METHODS = (*PLAIN, "fine-tuned", "reinforce, no entropy", "reinforce", "subtb")
INFILLING_METHODS = (*PLAIN, "reinforce", "subtb", "fine-tuned")
TEMPERATURES = (0.5,)
"""Of rewards. At 2 most of the posterior lies outside the enumerated table, so that is not measured."""

FEWEST, TEMPERATURE_SEEDS = 5, 2
SIDE, SIDE_SEEDS = ("fine-tuned", "reinforce, no entropy"), 2
"""Methods of numbers and names that no claim is about, and their seeds; other methods have all."""

Records = dict[str, list[dict[str, np.ndarray]]]
"""What each seed of each method found."""


def record(
    study: Study, key: str, seed: int, smoke: bool, compute: Callable[[], dict[str, np.ndarray]], **more: Any
) -> dict[str, np.ndarray]:
    """Return a record from the study's folder, computed once."""
    inputs = [key, seed, asdict(size_of(smoke)), smoke, more, fingerprint(*MODULES, alone=True)]

    def on_one_thread() -> dict[str, np.ndarray]:
        with on_threads(1):
            return compute()

    found = study.cached(f"sampler-{key.replace(', ', '-').replace(' ', '-')}-{seed}", inputs, on_one_thread)
    return {name: value for name, value in found.items() if name != "commit"}


def size_of(smoke: bool) -> runs.Size:
    """Return how much is done."""
    return runs.SMALL if smoke else runs.Size()


def numbers(study: Study, smoke: bool, seeds: int) -> Records:
    """Return what each method found on numbers."""
    size = size_of(smoke)
    found: Records = {method: [] for method in NUMBER_METHODS}
    for seed in range(seeds):
        for method in at_seed(NUMBER_METHODS, seed):
            make = lambda m=method, s=seed: runs.numbers(m, s, size, smoke)  # noqa: E731
            found[method].append(record(study, f"numbers-{method}", seed, smoke, make))
        study.notify(f"sampler, numbers: seed {seed + 1} of {seeds}")
    return chosen_heat(found)


def names(study: Study, smoke: bool, seeds: int, temperature: float = 1.0) -> Records:
    """Return what each method found on names, at a temperature of rewards."""
    size = size_of(smoke)
    methods = NAME_METHODS if temperature == 1 else (*PLAIN, "subtb")
    found: Records = {method: [] for method in methods}
    for seed in range(seeds):
        for method in at_seed(methods, seed):
            make = lambda m=method, s=seed: runs.names(m, s, size, smoke, temperature)  # noqa: E731
            key = f"names-{temperature:g}-{method}"
            found[method].append(record(study, key, seed, smoke, make, temperature=temperature))
        study.notify(f"sampler, names at a temperature of {temperature:g}: seed {seed + 1} of {seeds}")
    return chosen_heat(found)


def at_seed(methods: tuple[str, ...], seed: int) -> list[str]:
    """Return the methods that a seed measures."""
    return [method for method in methods if seed < SIDE_SEEDS or method not in SIDE]


def chosen_heat(found: Records, key: str = "kl", sign: int = 1) -> Records:
    """Return records whose temperature sampling has the best of its temperatures, in its favour on these seeds.

    The best has the lowest `key` times `sign`.
    """
    rows = found["temperature sampling"]
    every = sign * np.array([row[key] for row in rows])
    best = int(every.reshape(*every.shape[:2], -1).mean((0, 2)).argmin())
    rows = [
        {key: value[best] for key, value in row.items()} | {"heat": np.asarray(runs.HEATS[best])}
        for row in rows
    ]
    return found | {"temperature sampling": rows}


def infilling(study: Study, smoke: bool, seeds: int) -> Records:
    """Return what each method found on the middle sentence; fine-tuning has the reward calls of the sampler."""
    size = size_of(smoke)
    found: Records = {method: [] for method in INFILLING_METHODS}
    for seed in range(seeds):
        calls = 0
        for method in INFILLING_METHODS:
            make = lambda m=method, s=seed, c=calls: runs.infilling(m, s, size, smoke, c)  # noqa: E731
            given = calls if method == "fine-tuned" else 0
            row = record(study, f"infilling-{method}", seed, smoke, make, calls=given)
            calls = int(row["calls"]) if method == "subtb" else calls
            found[method].append(row)
        study.notify(f"sampler, infilling: seed {seed + 1} of {seeds}")
    return chosen_heat(found, "bound", -1)


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of samplers."""
    seeds = 1 if smoke else max(seeds, FEWEST)
    number, name = numbers(study, smoke, seeds), names(study, smoke, seeds)
    middle = infilling(study, smoke, seeds)
    few = 1 if smoke else min(seeds, TEMPERATURE_SEEDS)
    heated = {heat: names(study, smoke, few, heat) for heat in TEMPERATURES}
    kl = "KL from the wanted distribution, nats"
    entries = [
        *entered("numbers", number, "kl", kl),
        *entered("names", name, "kl", kl),
        *entered("infilling", middle, "bound", "expected log-reward plus entropy, nats"),
        *(entry for heat, found in heated.items() for entry in entered(f"names-{heat:g}", found, "kl", kl)),
    ]
    listings = [
        listing("random numbers", number, ("valid", "kl", "seconds")),
        listing("names and their posterior", name, ("kl", "forward", "outside", "seconds")),
        listing("a middle sentence", middle, ("bound", "unseen", "calls", "seconds")),
        *(
            listing(f"names at a temperature of {h:g}", found, ("kl", "forward", "outside"))
            for h, found in heated.items()
        ),
        said(middle),
    ]
    return {"records": entries, "claims": claims(number, name, middle), "listings": listings}


def claims(number: Records, name: Records, middle: Records) -> list[dict[str, Any]]:
    """Return the claims of the part."""

    def column(found: Records, method: str, key: str) -> np.ndarray:
        return np.array([float(np.mean(row[key])) for row in found[method]])

    ours, untuned, rival = (column(name, method, "kl") for method in ("subtb", "untuned", "reinforce"))
    gain = column(middle, "subtb", "bound") - column(middle, "fine-tuned", "bound")
    resampling = float(column(name, "importance resampling", "kl").mean())
    bars = (
        ("kl_numbers", mean(column(number, "subtb", "kl")), 0.01, "<="),
        ("valid", mean(column(number, "subtb", "valid")), 0.97, ">="),
        ("kl_names", ratio(ours, untuned), 0.05, "<="),
        ("over_reinforce", ratio(ours, rival), 0.2, "<="),
        ("infilling", mean(gain), 0.5, ">="),
    )
    found = [claim(f"frozen.sampler.{key}", *value, bar, direction) for key, value, bar, direction in bars]
    found[2]["beside"] = {"importance resampling": round(resampling / float(untuned.mean()), 5)}
    forward = ratio(column(name, "subtb", "forward"), column(name, "reinforce", "forward"))
    found[4]["beside"] = {
        method: round(float(column(middle, method, "bound").mean()), 3)
        for method in ("importance resampling", "reinforce", "subtb")
    }
    found[3]["beside"] = {"the divergence from posterior to sampler": [round(value, 5) for value in forward]}
    return found


def mean(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95% interval."""
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def ratio(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the geometric mean over seeds of a ratio of positive numbers, and its 95% interval."""
    middle, low, high = mean(np.log(np.maximum(one, 1e-12) / np.maximum(other, 1e-12)))
    return math.exp(middle), math.exp(low), math.exp(high)


def entered(family: str, found: Records, key: str, metric: str) -> list[dict[str, Any]]:
    """Return the records of the study's JSON."""
    return [
        {"name": f"sampler/{method}", "family": family, "metric": metric, "seed": seed, "errors": [value]}
        for method, rows in found.items()
        for seed, value in enumerate(round(float(np.mean(row[key])), 6) for row in rows)
    ]


def listing(title: str, found: Records, keys: tuple[str, ...]) -> dict[str, Any]:
    """Return a table of means over seeds."""
    rows = [
        [
            method,
            *(f"{np.mean([r[key] for r in rows]):.4g}" if key in rows[0] else "" for key in keys),
            str(len(rows)),
        ]
        for method, rows in found.items()
    ]
    return {"title": title, "columns": ["method", *keys, "seeds"], "rows": rows}


def said(middle: Records) -> dict[str, Any]:
    """Return a sentence of each method and story of the first seed."""
    rows = [[method, *map(str, rows[0]["said"])] for method, rows in middle.items()]
    stories = [f"{start} ...{end}" for start, end in runs.tasks.STORIES["test"][: len(rows[0]) - 1]]
    return {"title": "a draw of each story", "columns": ["method", *stories], "rows": rows}
