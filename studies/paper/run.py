"""`make study NAME=paper`: the paper's tables. Every cell is on a list that was fixed before.

The study has three regimes on the paper's families. Each is trained greedily over ten steps with a constant gain,
with our default gain, and for one step only. More tables answer the questions of the paper's reviewers.

Source: Mittal et al. 2025, tables 2-6; the comparison is this project's own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from gradatim.comparison.experiment import Experiment, Values, methods_by_name
from gradatim.comparison.panel import run_experiment, select_best, trained_runs
from gradatim.comparison.report import write_result
from gradatim.comparison.runs import Study
from gradatim.learner import Learner
from gradatim.provenance import commit
from gradatim.refiners import Bagged

from .causal_peers import PEERS, peers
from .claims import causal_order, cells_missing, families_improved, generation, references
from .costs import adaptation_costs, prefix_claim, stopping_records, training_seconds
from .findings import crossings, findings, verdict_listing
from .page import PAGE
from .pictures import samples
from .recipes import WHOLE, recipes
from .settings import Setting, origin, settings
from .tables import (
    GENERATED,
    MAX_BATCHES,
    ORACLE,
    STEPS,
    STOPPED,
    TABLES,
    Cell,
    alternatives,
    cells,
    columns,
    filled,
    learner,
    listings,
    unlearnt,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from rich.console import Console

    from gradatim.recipes import Recipe

Chosen = dict[tuple[str, str], str]


def run(
    out: Path, smoke: bool, seeds: int, workers: int, console: Console, table: int | None = None
) -> list[Path]:
    """Run the study, or one `table` of it. Return paper.json, paper.md and the pictures, written below `out`.

    The result of one table is called paper-table-N. Only a complete run writes paper.json.

    Raises:
        ValueError: the table is unknown, or data are missing.
    """
    if table is not None and table not in TABLES:
        raise ValueError(f"the paper's tables are {', '.join(map(str, TABLES))}; got {table}")
    numbers = tuple(TABLES) if table is None else (table,)
    name = "paper" if table is None else f"paper-table-{table}"
    study = Study(out / "work" / ("paper-smoke" if smoke else "paper"), workers, console, not smoke)
    panel_rows = _rows(numbers)
    homes = {row.partition("@")[2] or origin(panel) for panel, rows in panel_rows.items() for row in rows}
    panels = settings(smoke, {*panel_rows, *homes}, study.folder, console)
    records, results, chosen, trained = _panels(study, panels, panel_rows, smoke, seeds)
    claims: list[dict[str, Any]] = []
    for measured in (measure_panel for panel, measure_panel in _MEASURED.items() if panel in panel_rows):
        new_records, new_claims = measured(study, panels, seeds, smoke)
        records += new_records
        claims += new_claims
    if not smoke:
        console.print("timing iterations of meta-training, one recipe after another")
        seconds = training_seconds(study, trained)
        records = [{**r, "seconds": round(seconds.get(r["name"], 0.0), 1)} for r in records]
    metrics = {panel: next(iter(setting.metrics)) for panel, setting in panels.items()} | _METRICS
    listed = _reachable(cells(numbers), panels, records) if smoke else cells(numbers)
    filled_cells = filled(listed, records, chosen, metrics)
    pictures: list[tuple[str, str]] = []
    verdicts: list[dict[str, Any]] = []
    if table is None:
        console.print("choosing learners on validation tasks, comparing with references")
        best = _best(study, panels, chosen, smoke, seeds)
        claims += [families_improved(results, best, metrics), generation(results["mixture"], best["mixture"])]
        claims += causal_order(results["order"], best["order"]["any"][0])
        claims += [prefix_claim(results), *references(smoke)]
        verdicts = findings(results, chosen)
        pictures += _samples(study, out, panels, best, smoke)
    result = {
        "benchmark": "paper",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "chosen": {f"{panel}, {row}": choice for (panel, row), choice in chosen.items()},
        "cells": records,
        "records": [],
        "findings": verdicts,
        "claims": [cells_missing(filled_cells), *claims],
        "listings": [
            *verdict_listing(verdicts),
            *crossings(filled_cells, chosen),
            *listings(filled_cells, chosen),
        ],
        "pictures": pictures,
    }
    return write_result(out, name, _json_ready(result), PAGE)


def _reachable(
    listed: Iterable[Cell], panels: Mapping[str, Setting], records: Iterable[Mapping[str, Any]]
) -> list[Cell]:
    """Return the cells that a smoke run can fill. It has fewer families and fewer steps."""
    reached, homes = {(record["family"], record["steps"]) for record in records}, {"", *panels}
    return [
        cell
        for cell in listed
        if (cell.panel, cell.column) in reached and cell.row.partition("@")[2] in homes
    ]


def _json_ready(value: Any) -> Any:
    """Return a value that JSON can represent. Numbers that are not finite, of diverged learners, become null."""
    if isinstance(value, dict):
        return {key: _json_ready(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_ready(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _panels(
    study: Study, panels: Mapping[str, Setting], panel_rows: Mapping[str, list[str]], smoke: bool, seeds: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Values]], Chosen, dict[str, Recipe]]:
    """Train and judge the rows of all available panels. Return records, values, choices and recipes."""
    records: list[dict[str, Any]] = []
    results: dict[str, dict[str, Values]] = {}
    chosen: Chosen = {}
    trained: dict[str, Recipe] = {}
    for panel, listed_rows in panel_rows.items():
        rows = [row for row in listed_rows if (row.partition("@")[2] or origin(panel)) in panels]
        if rows and panel in panels and panel not in _MEASURED:
            study.console.print(f"{panel}: {len(rows)} learners")
            chosen |= _choices(study, panels, panel, rows, smoke)
            experiment = _experiment(panels, panel, [chosen.get((panel, row), row) for row in rows], smoke)
            results[panel] = run_experiment(study, experiment, seeds, records)
            trained |= experiment.recipes | {
                bag: experiment.recipes[single] for bag, (single, _) in experiment.derived.items()
            }
    return records, results, chosen, trained


def _rows(numbers: Iterable[int]) -> dict[str, list[str]]:
    """Return the distinct rows of some tables, by panel."""
    rows: dict[str, dict[str, None]] = {}
    for number in numbers:
        for panel, names in TABLES[number].rows.items():
            rows.setdefault(panel, {}).update(dict.fromkeys(names))
    return {panel: list(names) for panel, names in rows.items()}


def _experiment(
    panels: Mapping[str, Setting], panel: str, rows: Iterable[str], smoke: bool, validation: bool = False
) -> Experiment:
    """Return the panel as an experiment: these rows on its test tasks, or on its validation tasks."""
    setting, trained = panels[panel], {}
    bags = {row: row.removeprefix("bagged-") for row in rows if row.startswith("bagged-")}
    for row in dict.fromkeys(bags.get(row, row) for row in rows):
        stem, _, home = row.partition("@")
        if not unlearnt(stem):
            home = home or origin(panel)
            trained[learner(panel, row)] = recipes(home, panels[home], smoke)[stem]
    return Experiment(
        f"{panel}-validation" if validation else panel,
        setting.family.on("validation") if validation else setting.family,
        trained,
        methods_by_name(*(row for row in rows if unlearnt(row) and row != ORACLE and row not in PEERS)),
        setting.metrics,
        setting.batch_size,
        tuple(c for c in columns(panel) if c * setting.batch_size <= setting.family.support_rows),
        setting.judged,
        derived={learner(panel, row): (learner(panel, single), _bagged) for row, single in bags.items()},
        full_batch={learner(panel, row): MAX_BATCHES for row in rows if row.endswith(WHOLE)},
        peers={name: answers for name, answers in peers().items() if name in rows},
        curve=setting.judge,
    )


def _bagged(model: Learner) -> Learner:
    """Return the learner that predicts with the mean of single refinements, one for each mini-batch."""
    return Learner(model.predictor, Bagged(model.refiner), model.signal)


def _choices(
    study: Study, panels: Mapping[str, Setting], panel: str, rows: Iterable[str], smoke: bool
) -> Chosen:
    """Return the chosen row for each row with alternatives: the best after ten steps on validation tasks, seed 0.

    The paper's training chooses the signal. The same signal is used with our gain. Learners for one step are
    chosen separately, after one step.
    """
    home, choices = origin(panel), {}
    for row in rows:
        variants = alternatives(home, row)
        if len(variants) > 1:
            candidates = alternatives(home, row.removesuffix("-decaying"))
            names = [learner(home, candidate) for candidate in candidates]
            experiment = _experiment(panels, home, candidates, smoke, validation=True)
            step = 1 if row.endswith("-one-step") else experiment.steps[-1]
            choices[panel, row] = variants[names.index(select_best(study, experiment, names, step, 1))]
    return choices


def _best(
    study: Study, panels: Mapping[str, Setting], chosen: Chosen, smoke: bool, seeds: int
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return for each family and regime our best learner after ten steps, and the best one trained for one step.

    Both are chosen on validation tasks, among those of tables 2 to 8. The regime "any" has the best of all
    regimes.
    """
    best: dict[str, dict[str, tuple[str, str]]] = {}
    for name, rows in _rows(range(2, 9)).items():
        if name not in panels:
            continue
        rows = [row for row in rows if not unlearnt(row)]
        experiment = _experiment(
            panels, name, [chosen.get((name, row), row) for row in rows], smoke, validation=True
        )
        regimes = dict.fromkeys(row.partition("-")[0] for row in rows)
        best[name] = {}
        for regime in (*regimes, "any"):
            mine = [
                candidate
                for candidate in experiment.recipes
                if regime == "any" or candidate.startswith(f"{name}-{regime}-")
            ]
            single = [candidate for candidate in mine if candidate.endswith("one-step")]
            iterated = [candidate for candidate in mine if candidate not in single]
            best[name][regime] = (
                select_best(study, experiment, iterated, experiment.steps[-1], seeds),
                select_best(study, experiment, single, 1, seeds),
            )
    return best


def _samples(
    study: Study,
    out: Path,
    panels: Mapping[str, Setting],
    best: Mapping[str, Mapping[str, tuple[str, str]]],
    smoke: bool,
) -> list[tuple[str, str]]:
    """Draw points of the best learner of each regime, trained with seed 0, for each family of points."""
    pictures = []
    for panel in GENERATED:
        if panel in panels:
            names = [best[panel][regime][0] for regime in best[panel] if regime != "any"]
            experiment = _experiment(
                panels, panel, [label.removeprefix(f"{panel}-") for label in names], smoke
            )
            learners = {label: runs[0] for label, runs in trained_runs(study, experiment, 1).items()}
            pictures += samples(out, "paper", panel, panels[panel], learners, STEPS)
    return pictures


def _costs(study: Study, panels: Mapping[str, Setting], seeds: int, smoke: bool) -> Any:
    study.console.print("timing adaptation, in turn and at once")
    return adaptation_costs(study, smoke)


def _stops(study: Study, panels: Mapping[str, Setting], seeds: int, smoke: bool) -> Any:
    study.console.print("fitting estimates of the loss, stopping streams by them")
    rows = next(iter(TABLES[13].rows.values()))
    runs = trained_runs(study, _experiment(panels, "linear-8", rows, smoke), seeds)
    return stopping_records(
        study, {learner("linear-8", row): runs[learner("linear-8", row)] for row in rows}, smoke
    ), []


_MEASURED = {"cost": _costs, "linear-8-stopped": _stops}
_METRICS = {"cost": "seconds", **STOPPED}
"""Panels whose cells are not errors after so many steps: how they are filled, and what of."""
