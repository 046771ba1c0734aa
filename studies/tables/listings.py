"""What `make study NAME=tables` lists beside its claims: settings, learners, and results table by table."""

from __future__ import annotations

from typing import Any

import numpy as np

from .data import load
from .figures import (
    Passes,
    chosen_reference,
    coverage,
    geometric_ratio,
    mean_of,
    missed_by_fifths,
    ranks,
    wins,
    without_aside,
)
from .peers import OURS


def settings_listing(kind: str, chosen: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return which setting each learner has."""
    rows = [
        [name, ", ".join(f"{key} {value}" for key, value in setting.items())]
        for name, setting in chosen.items()
    ]
    return {"title": f"settings, {kind}", "columns": ["learner", "setting"], "rows": rows}


def classes_listings(
    side: str, tables: list[str], by_learner: Passes, references: Passes
) -> list[dict[str, Any]]:
    """Return the results of a side's tables with classes: learner by learner, then table by table."""
    error, loss, final = (mean_of(by_learner, metric) for metric in ("error", "log_loss", "final_error"))
    ranking = ranks(without_aside(error))
    rows = [
        [
            name,
            *(f"{1 - v.mean():.4f}" for v in (error[name], final[name])),
            f"{loss[name].mean():.4f}",
            f"{geometric_ratio(by_learner, name)[0]:.3f}",
            f"{ranking[name].mean():.2f}" if name in ranking else "",
            f"{np.mean([[float(v['seconds']) for v in orders] for orders in by_learner[name]]):.1f}",
        ]
        for name in by_learner
    ]
    if references:
        picked, best = (accuracy.mean() for accuracy in chosen_reference(references))
        rows += [
            ["batch, chosen by cross-validation", "", f"{picked:.4f}", *[""] * 4],
            ["batch, best on the held-out rows", "", f"{best:.4f}", *[""] * 4],
        ]
    columns = ["learner", "prequential accuracy", "final accuracy", "log-loss", "errors over ridge's"]
    title = f"{side}: {len(tables)} tables with classes"
    listings = [{"title": title, "columns": [*columns, "rank", "seconds a pass"], "rows": rows}]
    won = wins(without_aside(error)) if OURS in by_learner else np.full(len(tables), False)
    table_rows = [
        [
            f"{table} ({len(load(table).x)} x {load(table).x.shape[1]}, {load(table).classes})",
            *(f"{100 * error[name][:, place].mean():.2f}" for name in by_learner),
            "yes" if won[place] else "no",
        ]
        for place, table in enumerate(tables)
    ]
    columns = ["table (rows x columns, classes)", *by_learner, "none better"]
    return [*listings, {"title": f"{side}: prequential error (%)", "columns": columns, "rows": table_rows}]


def numbers_listings(side: str, tables: list[str], by_learner: Passes) -> list[dict[str, Any]]:
    """Return the results of a side's regression tables, table by table."""
    rmse = mean_of(by_learner, "square")
    ranking = ranks(without_aside(rmse))
    inside, fifths = coverage(by_learner, OURS), missed_by_fifths(by_learner, OURS)
    rows = [
        [
            f"{table} ({len(load(table).x)} x {load(table).x.shape[1]})",
            *(f"{rmse[name][:, place].mean() / load(table).y.std():.4f}" for name in by_learner),
            *(f"{share:.3f}" for share in (*inside[place], fifths[place])),
        ]
        for place, table in enumerate(tables)
    ]
    means = [f"{ranking[name].mean():.2f}" if name in ranking else "" for name in by_learner]
    rows.append(["mean rank", *means, "", "", ""])
    columns = ["table (rows x columns)", *by_learner, "inside 80%", "inside 95%", "80% missed by fifths"]
    title = f"{side}: prequential RMSE over the standard deviation"
    return [{"title": title, "columns": columns, "rows": rows}]
