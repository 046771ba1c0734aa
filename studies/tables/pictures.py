"""Pictures of `make study NAME=tables`: anytime curves, error over the ridge's by table, calibration, coverage.

Source: DESIGN.md, Results (pictures come from the records they stand beside).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.compare.plots import COLORS
from gradatim.probing.plots import INK, SOFT, figure, save

from .figures import BINS, coverage, mean_of
from .peers import CENTRAL, OURS, RIDGE

if TYPE_CHECKING:
    from pathlib import Path

    from .figures import Passes

SHOWN = 6
ROWS = (30, 100, 300, 1000, 3000, 10_000)
ERRORS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
RATIOS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0)
"""Where axes are marked."""


def drawn(out: Path, names: dict[str, list[str]], passes: dict[str, Passes]) -> list[list[str]]:
    """Draw all pictures below `out`; return [title, file] of those written, none without matplotlib."""
    classes, numbers = passes["classification"], passes["regression"]
    works = {
        "tables-anytime.png": ("prequential error against rows", _anytime, names["classification"], classes),
        "tables-over-ridge.png": (
            "prequential error over the plain ridge's",
            _dots,
            names["classification"],
            classes,
        ),
        "tables-regression.png": (
            "prequential RMSE over the plain ridge's",
            _dots,
            names["regression"],
            numbers,
        ),
        "tables-calibration.png": ("confidence and accuracy", _calibration, names["classification"], classes),
        "tables-coverage.png": ("rows inside central intervals", _coverage, names["regression"], numbers),
    }
    made = []
    for file, (title, draw, tables, own) in works.items():
        if draw(out / file, title, tables, own) is None:
            made.append([title, file])
    return made


def spaced(count: int) -> list[int]:
    """Return up to six places, evenly spaced from the first to the last."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(SHOWN, count))})


def _anytime(png: Path, title: str, tables: list[str], passes: Passes) -> str | None:
    """Draw the mean error so far, over the orders, on tables evenly spaced by size."""
    places = spaced(len(tables))
    made = figure("", "", width=11.0, height=6.0 if len(places) > 3 else 3.5)
    if made is None:
        return "no matplotlib"
    picture, axes = made
    axes.remove()
    panes = picture.subplots(1 + (len(places) > 3), 3, squeeze=False).ravel()
    for pane, place in zip(panes, places, strict=False):
        for color, (name, records) in zip(_colors(passes), passes.items(), strict=True):
            error = np.mean([own["error"] for own in records[place]], axis=0)
            rows = np.arange(1, len(error) + 1)
            shown = np.unique(np.geomspace(32, len(error), 60).astype(int)) - 1
            so_far = (np.cumsum(error) / rows)[shown]
            pane.plot(rows[shown], so_far, color=color, linewidth=2.4 if name == OURS else 1.3, label=name)
        pane.set(xscale="log", yscale="log", title=tables[place])
        _marks(pane, "x", ROWS)
        _marks(pane, "y", ERRORS)
        pane.spines[["top", "right"]].set_visible(False)
    for pane in panes[len(places) :]:
        pane.remove()
    picture.supxlabel("rows seen")
    picture.supylabel("prequential error so far")
    handles, labels = panes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside right center", frameon=False)
    picture.suptitle(title)
    return save(picture, png)


def _dots(png: Path, title: str, tables: list[str], passes: Passes) -> str | None:
    """Draw a line of dots for each table: every learner's mean error over the plain ridge's."""
    made = figure(title, "", width=8.0, height=1.2 + 0.3 * len(tables))
    if made is None:
        return "no matplotlib"
    picture, axes = made
    metric = "error" if "error" in passes[RIDGE][0][0] else "square"
    means = {name: values.mean(0) for name, values in mean_of(passes, metric).items()}
    ours = means.get(OURS, means[RIDGE]) / means[RIDGE]
    order = np.argsort(-ours)
    for color, (name, values) in zip(_colors(passes), means.items(), strict=True):
        ratio = (values / means[RIDGE])[order]
        size, front = (60, 3) if name == OURS else (22, 2)
        axes.scatter(ratio.clip(max=4), range(len(order)), s=size, color=color, label=name, zorder=front)
    axes.axvline(1.0, color=INK, linewidth=1)
    axes.set_yticks(range(len(order)), [tables[place] for place in order], fontsize="small")
    axes.set_xscale("log")
    _marks(axes, "x", RATIOS)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return save(picture, png)


def _calibration(png: Path, title: str, tables: list[str], passes: Passes) -> str | None:
    """Draw accuracy against confidence, all rows of all tables in 15 bins."""
    made = figure("confidence", "accuracy", width=6.4, height=5.0)
    if made is None:
        return "no matplotlib"
    picture, axes = made
    axes.plot([0, 1], [0, 1], ":", color=INK, linewidth=1, label="calibrated")
    for color, (name, records) in zip(_colors(passes), passes.items(), strict=True):
        flat: list[dict[str, Any]] = [own for orders in records for own in orders]
        confidence = np.concatenate([own["confidence"] for own in flat]).astype(float)
        right = 1 - np.concatenate([own["error"] for own in flat])
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        rows, sums, hits = (np.bincount(place, w, BINS) for w in (None, confidence, right))
        there = rows >= 50
        width = 2.4 if name == OURS else 1.3
        axes.plot(
            sums[there] / rows[there],
            hits[there] / rows[there],
            "o-",
            color=color,
            markersize=3,
            linewidth=width,
            label=name,
        )
    axes.set(title=f"{title}, {len(tables)} tables")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return save(picture, png)


def _coverage(png: Path, title: str, tables: list[str], passes: Passes) -> str | None:
    """Draw the share of rows inside the 80% and 95% intervals, table by table."""
    made = figure(title, "", width=6.4, height=1.2 + 0.3 * len(tables))
    if made is None or OURS not in passes:
        return "no picture"
    picture, axes = made
    found = coverage(passes, OURS)
    for place, level in enumerate(CENTRAL):
        axes.axvline(level, color=SOFT, linewidth=1)
        axes.scatter(
            found[:, place], range(len(tables)), s=30, color=COLORS[place], label=f"{level:.0%} interval"
        )
    axes.set_yticks(range(len(tables)), tables, fontsize="small")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    return save(picture, png)


def _marks(axes: Any, axis: str, wanted: tuple[float, ...]) -> None:
    """Mark a logarithmic axis at the wanted numbers that it reaches, or at every other one of many."""
    low, high = getattr(axes, f"get_{axis}lim")()
    marks = [mark for mark in wanted if low <= mark <= high]
    marks = marks[:: 1 + len(marks) // 9]
    getattr(axes, f"set_{axis}ticks")(marks, [f"{mark:g}" for mark in marks])
    axes.minorticks_off()


def _colors(passes: Passes) -> list[str]:
    return [COLORS[place % len(COLORS)] for place in range(len(passes))]
