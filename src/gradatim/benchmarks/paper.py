"""`gradatim bench paper`: the paper's tables, every cell of a list that was fixed before.

Three regimes on the paper's families, each trained greedily with a constant gain over ten steps, with our default gain,
and for one step alone.

Source: Mittal et al. 2025, tables 2-6; the comparison is this project's own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from ..provenance import commit
from ..report import write_result
from .panel import Values, choose, measure
from .paper_claims import families_improved, generation, missing, order, references
from .paper_settings import Setting, learner, part, recipes, settings, signals
from .paper_tables import CHOSEN, TABLES, PaperTable, cells, filled, listings
from .study import Study

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from ..recipes import Recipe


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
    tables = {number: own for number, own in TABLES.items() if table in (None, number)}
    study = Study(out / "work" / ("paper-smoke" if smoke else "paper"), workers, console, not smoke)
    families = {
        name: setting
        for name, setting in settings(smoke).items()
        if any(name in own.families for own in tables.values())
    }
    records: list[dict[str, Any]] = []
    found: dict[str, dict[str, Values]] = {}
    chosen: dict[tuple[str, str], str] = {}
    for name, setting in families.items():
        own = [one for one in tables.values() if name in one.families]
        for regime in dict.fromkeys(one.regime for one in own):
            console.print(f"{name}: choosing the signal of {regime} learners on validation tasks")
            chosen[name, regime] = _signal(study, name, setting, regime, smoke)
        wanted = _wanted(name, setting, own, chosen, smoke)
        found[name] = measure(study, part(name, setting, wanted), seeds, records)
    listed = [cell for cell in cells(tables) if not smoke or cell.family in families]
    metrics = {name: next(iter(setting.metrics)) for name, setting in families.items()}
    kept = filled(listed, records, chosen, metrics)
    claims = [missing(kept)]
    if table is None:
        console.print("choosing learners on validation tasks, comparing with references")
        best = _best(study, families, chosen, smoke, seeds)
        claims += [families_improved(found, best, metrics), generation(found["mixture"], best["mixture"])]
        claims += order(study, families["order"], found["order"], best["order"])
        claims += references(smoke)
    result = {
        "benchmark": "paper",
        "smoke": smoke,
        "seeds": seeds,
        "commit": commit(),
        "torch": torch.__version__,
        "chosen": {f"{family}, {regime}": signal for (family, regime), signal in chosen.items()},
        "records": records,
        "claims": claims,
        "listings": listings(kept, chosen),
    }
    name = "paper" if table is None else f"paper-table-{table}"
    return write_result(out, name, json.loads(json.dumps(result)))


def _signal(study: Study, name: str, setting: Setting, regime: str, smoke: bool) -> str:
    """Return the signal with which the paper's training is best after ten steps of validation tasks, one seed."""
    names = {learner(name, regime, signal, "greedy"): signal for signal in signals(name, regime)}
    if len(names) == 1:
        return next(iter(names.values()))
    made = {own: recipes(setting, regime, signal, smoke)["greedy"] for own, signal in names.items()}
    panel = part(name, setting, made, validation=True)
    return names[choose(study, panel, list(names), panel.steps[-1], 1)]


def _wanted(
    name: str,
    setting: Setting,
    tables: list[PaperTable],
    chosen: Mapping[tuple[str, str], str],
    smoke: bool,
) -> dict[str, Recipe]:
    """Return the recipes that these tables ask for on a family, by learner's name."""
    wanted: dict[str, Recipe] = {}
    for table in tables:
        for signal, variant in table.rows(name):
            said = chosen[name, table.regime] if signal == CHOSEN else signal
            made = recipes(setting, table.regime, said, smoke)
            wanted[learner(name, table.regime, said, variant)] = made[variant]
    return wanted


def _best(
    study: Study,
    families: Mapping[str, Setting],
    chosen: Mapping[tuple[str, str], str],
    smoke: bool,
    seeds: int,
) -> dict[str, dict[str, tuple[str, str]]]:
    """Return for each family and regime our best learner after ten steps and the best trained for one.

    Both are chosen on validation tasks; the regime "any" has the best of all regimes.
    """
    best: dict[str, dict[str, tuple[str, str]]] = {}
    for name, setting in families.items():
        tables = [own for own in TABLES.values() if name in own.families]
        wanted = _wanted(name, setting, tables, chosen, smoke)
        panel = part(name, setting, wanted, validation=True)
        best[name] = {}
        for regime in (*dict.fromkeys(own.regime for own in tables), "any"):
            mine = [own for own in wanted if regime == "any" or own.startswith(f"{name}-{regime}-")]
            single = [own for own in mine if own.endswith("one-step")]
            ours = [own for own in mine if own not in single]
            best[name][regime] = (
                choose(study, panel, ours, panel.steps[-1], seeds),
                choose(study, panel, single, 1, seeds),
            )
    return best
