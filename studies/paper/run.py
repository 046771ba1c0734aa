"""`make study NAME=paper`: the paper's tables, every cell of a list that was fixed before.

Three regimes on the paper's families, each trained greedily with a constant gain over ten steps, with our default gain,
and for one step alone; and a table for each question that the paper's reviewers asked.

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
from .claims import families_improved, generation, missing, order, references
from .costs import paced, prefix, spent, stopped
from .findings import crossings, findings, verdict_listing
from .page import PAGE
from .pictures import samples
from .recipes import WHOLE, recipes
from .settings import Setting, origin, settings
from .tables import (
    GENERATED,
    MOST,
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
    """Run the benchmark, or one `table` of it; return paper.json, paper.md and the pictures written below `out`.

    Of one table the result is called paper-table-N: paper.json is written by a whole run alone.

    Raises:
        ValueError: no such table, or data that is missing.
    """
    if table is not None and table not in TABLES:
        raise ValueError(f"the paper's tables are {', '.join(map(str, TABLES))}; got {table}")
    numbers = tuple(TABLES) if table is None else (table,)
    name = "paper" if table is None else f"paper-table-{table}"
    study = Study(out / "work" / ("paper-smoke" if smoke else "paper"), workers, console, not smoke)
    wanted = _rows(numbers)
    homes = {row.partition("@")[2] or origin(panel) for panel, rows in wanted.items() for row in rows}
    made = settings(smoke, {*wanted, *homes}, study.folder, console)
    records, found, chosen, trained = _panels(study, made, wanted, smoke, seeds)
    claims: list[dict[str, Any]] = []
    for measured in (own for panel, own in _MEASURED.items() if panel in wanted):
        own, said = measured(study, made, seeds, smoke)
        records += own
        claims += said
    if not smoke:
        console.print("timing iterations of meta-training, one recipe after another")
        seconds = paced(study, trained)
        records = [{**r, "seconds": round(seconds.get(r["name"], 0.0), 1)} for r in records]
    metrics = {panel: next(iter(setting.metrics)) for panel, setting in made.items()} | _METRICS
    listed = _reached(cells(numbers), made, records) if smoke else cells(numbers)
    kept = filled(listed, records, chosen, metrics)
    pictures: list[tuple[str, str]] = []
    verdicts: list[dict[str, Any]] = []
    if table is None:
        console.print("choosing learners on validation tasks, comparing with references")
        best = _best(study, made, chosen, smoke, seeds)
        claims += [families_improved(found, best, metrics), generation(found["mixture"], best["mixture"])]
        claims += order(found["order"], best["order"]["any"][0])
        claims += [prefix(found), *references(smoke)]
        verdicts = findings(found, chosen)
        pictures += _samples(study, out, made, best, smoke)
    result = {
        "benchmark": "paper",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "chosen": {f"{panel}, {row}": own for (panel, row), own in chosen.items()},
        "cells": records,
        "records": [],
        "findings": verdicts,
        "claims": [missing(kept), *claims],
        "listings": [*verdict_listing(verdicts), *crossings(kept, chosen), *listings(kept, chosen)],
        "pictures": pictures,
    }
    return write_result(out, name, _told(result), PAGE)


def _reached(
    listed: Iterable[Cell], made: Mapping[str, Setting], records: Iterable[Mapping[str, Any]]
) -> list[Cell]:
    """Return the cells that a smoke run is to fill: it has fewer families, and ends after fewer steps."""
    reached, homes = {(record["family"], record["steps"]) for record in records}, {"", *made}
    return [
        cell
        for cell in listed
        if (cell.panel, cell.column) in reached and cell.row.partition("@")[2] in homes
    ]


def _told(value: Any) -> Any:
    """Return a value as JSON can hold it: null for a number that is not finite, of a learner that diverged."""
    if isinstance(value, dict):
        return {key: _told(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_told(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _panels(
    study: Study, made: Mapping[str, Setting], wanted: Mapping[str, list[str]], smoke: bool, seeds: int
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Values]], Chosen, dict[str, Recipe]]:
    """Train and judge the rows of all panels that there are; return records, values, what was chosen, recipes."""
    records: list[dict[str, Any]] = []
    found: dict[str, dict[str, Values]] = {}
    chosen: Chosen = {}
    trained: dict[str, Recipe] = {}
    for panel, asked in wanted.items():
        rows = [row for row in asked if (row.partition("@")[2] or origin(panel)) in made]
        if rows and panel in made and panel not in _MEASURED:
            study.console.print(f"{panel}: {len(rows)} learners")
            chosen |= _choices(study, made, panel, rows, smoke)
            part = _part(made, panel, [chosen.get((panel, row), row) for row in rows], smoke)
            found[panel] = run_experiment(study, part, seeds, records)
            trained |= part.recipes | {own: part.recipes[one] for own, (one, _) in part.derived.items()}
    return records, found, chosen, trained


def _rows(numbers: Iterable[int]) -> dict[str, list[str]]:
    """Return the rows of some tables by panel, each once."""
    rows: dict[str, dict[str, None]] = {}
    for number in numbers:
        for panel, own in TABLES[number].rows.items():
            rows.setdefault(panel, {}).update(dict.fromkeys(own))
    return {panel: list(own) for panel, own in rows.items()}


def _part(
    made: Mapping[str, Setting], panel: str, rows: Iterable[str], smoke: bool, validation: bool = False
) -> Experiment:
    """Return the panel as a part of a study: these rows on its test tasks, or on its validation tasks."""
    setting, trained = made[panel], {}
    bags = {row: row.removeprefix("bagged-") for row in rows if row.startswith("bagged-")}
    for row in dict.fromkeys(bags.get(row, row) for row in rows):
        stem, _, home = row.partition("@")
        if not unlearnt(stem):
            home = home or origin(panel)
            trained[learner(panel, row)] = recipes(home, made[home], smoke)[stem]
    return Experiment(
        f"{panel}-validation" if validation else panel,
        setting.family.on("validation") if validation else setting.family,
        trained,
        methods_by_name(*(row for row in rows if unlearnt(row) and row != ORACLE and row not in PEERS)),
        setting.metrics,
        setting.batch_size,
        tuple(c for c in columns(panel) if c * setting.batch_size <= setting.family.support_rows),
        setting.judged,
        derived={learner(panel, row): (learner(panel, one), _bagged) for row, one in bags.items()},
        full_batch={learner(panel, row): MOST for row in rows if row.endswith(WHOLE)},
        peers={name: answers for name, answers in peers().items() if name in rows},
        curve=setting.judge,
    )


def _bagged(own: Learner) -> Learner:
    """Return the learner that answers with the mean of single refinements, one for each mini-batch."""
    return Learner(own.predictor, Bagged(own.refiner), own.signal)


def _choices(
    study: Study, made: Mapping[str, Setting], panel: str, rows: Iterable[str], smoke: bool
) -> Chosen:
    """Return which row stands for each with alternatives: the best after ten steps of validation tasks, seed 0.

    Signals are chosen by the paper's training, and that with our gain takes the same; learners for one step are chosen
    for themselves, after one step.
    """
    home, found = origin(panel), {}
    for row in rows:
        own = alternatives(home, row)
        if len(own) > 1:
            candidates = alternatives(home, row.removesuffix("-decaying"))
            names = [learner(home, candidate) for candidate in candidates]
            part = _part(made, home, candidates, smoke, validation=True)
            step = 1 if row.endswith("-one-step") else part.steps[-1]
            found[panel, row] = own[names.index(select_best(study, part, names, step, 1))]
    return found


def _best(
    study: Study, made: Mapping[str, Setting], chosen: Chosen, smoke: bool, seeds: int
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return for each family and regime our best learner after ten steps and the best trained for one.

    Both are chosen on validation tasks among those of tables 2 to 8; the regime "any" has the best of all regimes.
    """
    best: dict[str, dict[str, tuple[str, str]]] = {}
    for name, rows in _rows(range(2, 9)).items():
        if name not in made:
            continue
        rows = [row for row in rows if not unlearnt(row)]
        part = _part(made, name, [chosen.get((name, row), row) for row in rows], smoke, validation=True)
        regimes = dict.fromkeys(row.partition("-")[0] for row in rows)
        best[name] = {}
        for regime in (*regimes, "any"):
            mine = [own for own in part.recipes if regime == "any" or own.startswith(f"{name}-{regime}-")]
            single = [own for own in mine if own.endswith("one-step")]
            ours = [own for own in mine if own not in single]
            best[name][regime] = (
                select_best(study, part, ours, part.steps[-1], seeds),
                select_best(study, part, single, 1, seeds),
            )
    return best


def _samples(
    study: Study,
    out: Path,
    made: Mapping[str, Setting],
    best: Mapping[str, Mapping[str, tuple[str, str]]],
    smoke: bool,
) -> list[tuple[str, str]]:
    """Draw points of the best learner of each regime, trained with seed 0, for each family of points."""
    pictures = []
    for panel in GENERATED:
        if panel in made:
            names = [best[panel][regime][0] for regime in best[panel] if regime != "any"]
            part = _part(made, panel, [own.removeprefix(f"{panel}-") for own in names], smoke)
            learners = {own: runs[0] for own, runs in trained_runs(study, part, 1).items()}
            pictures += samples(out, "paper", panel, made[panel], learners, STEPS)
    return pictures


def _costs(study: Study, made: Mapping[str, Setting], seeds: int, smoke: bool) -> Any:
    study.console.print("timing adaptation, in turn and at once")
    return spent(study, smoke)


def _stops(study: Study, made: Mapping[str, Setting], seeds: int, smoke: bool) -> Any:
    study.console.print("fitting estimates of the loss, stopping streams by them")
    rows = next(iter(TABLES[13].rows.values()))
    runs = trained_runs(study, _part(made, "linear-8", rows, smoke), seeds)
    return stopped(
        study, {learner("linear-8", row): runs[learner("linear-8", row)] for row in rows}, smoke
    ), []


_MEASURED = {"cost": _costs, "linear-8-stopped": _stops}
_METRICS = {"cost": "seconds", **STOPPED}
"""Panels whose cells are not errors after so many steps: how they are filled, and what of."""
