"""Pictures, drawn with matplotlib where it is installed; without it, the sentence that says what to install.

Source: matplotlib's object interface (`Figure`, the Agg canvas): no window, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..probing.plots import INK, MISSING, RULE, figure, save

COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#e08e0b", "#7a4fa3", "#3aa6b9", "#8c6d46", "#5c677d")
STYLES = ("-", "--", ":", "-.")


class Curve(NamedTuple):
    """A labelled line: `x`, `y`, and the band between `low` and `high`, all of one length."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def end(self) -> float:
        """Return y at its end, infinite where it diverged: what curves are ordered by."""
        return math.inf if math.isnan(self.y[-1]) else self.y[-1]


def curves(
    png: Path | str, title: str, x_label: str, y_label: str, lines: Sequence[Curve], log_y: bool = True
) -> str | None:
    """Draw curves with their bands, named in a legend; x and, with `log_y`, y logarithmic; return None, or why not.

    Raises:
        ValueError: an x that is not above 0.

    Example:
        >>> notice = curves("error.png", "digits", "mini-batches", "error", [Curve("ours", x, y, low, high)])
    """
    made = figure(x_label, y_label, width=8.0, height=max(5.0, 0.21 * len(lines)))
    if made is None:
        return MISSING
    picture, axes = made
    _draw(axes, lines, log_y)
    axes.set(title=title)
    axes.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", handlelength=3.5
    )
    return save(picture, png)


def grid(
    png: Path | str, title: str, x_label: str, plots: Mapping[str, Sequence[Curve]], across: int = 2
) -> str | None:
    """Draw plots of curves side by side, `across` in a row, each with its own legend; return None, or why not.

    `plots`: by title, as `curves` draws them.

    Raises:
        ValueError: an x that is not above 0.

    Example:
        >>> notice = grid("table.png", "errors", "mini-batches", {"digits": [Curve("ours", x, y, low, high)]})
    """
    if not plots:
        return "no picture drawn: there are no plots"
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return MISSING
    down = -(-len(plots) // across)
    most = max(map(len, plots.values()))
    size = (7.0 * min(across, len(plots)), max(3.2, 0.19 * most) * down)
    picture = Figure(figsize=size, dpi=110, layout="constrained")
    places = picture.subplots(down, min(across, len(plots)), squeeze=False).flatten()
    for axes, (name, lines) in zip(places, plots.items(), strict=False):
        _draw(axes, lines, True)
        axes.set(title=name, xlabel=x_label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=RULE, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(
            frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="x-small", handlelength=3.5
        )
    for axes in places[len(plots) :]:
        axes.set_axis_off()
    picture.suptitle(title, fontsize="medium", wrap=True)
    return save(picture, png)


def _draw(axes: Any, lines: Sequence[Curve], log_y: bool) -> None:
    """Draw curves with their bands; x and, with `log_y`, y logarithmic where all of it is above 0; NaN is left out."""
    for index, line in enumerate(lines):
        color, style = COLORS[index % len(COLORS)], STYLES[index // len(COLORS) % len(STYLES)]
        alone = len(line.x) == 1  # no line leads to it: a larger mark, above the lines
        marks = {"marker": "D", "markersize": 5, "zorder": 3} if alone else {"marker": "o", "markersize": 3}
        axes.plot(line.x, line.y, style, color=color, linewidth=1.8, label=line.label, **marks)
        if alone:
            axes.vlines(line.x, line.low, line.high, color=color, linewidth=1.2)
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.1, linewidth=0)
    places = sorted({x for line in lines for x in line.x})
    if places and not places[0] > 0:
        raise ValueError(f"x must be above 0, its axis is logarithmic; got {places[0]:g}")
    log_y = log_y and not any(y <= 0 for line in lines for y in (*line.y, *line.low))
    axes.set(xscale="log", yscale="log" if log_y else "linear")
    ticks: list[float] = []
    for x in reversed(places):  # nearer than a ninth of the axis they would overlap
        if not ticks or (ticks[-1] / x) ** 9 >= places[-1] / places[0]:
            ticks.append(x)
    ticks[-1:] = places[:1]  # both ends are marked
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    if log_y:
        marks = _marks(*axes.get_ylim())
        axes.set_yticks(marks, [f"{mark:g}" for mark in marks])


def _marks(low: float, high: float) -> list[float]:
    """Return three to a dozen round values between two ends of a logarithmic axis."""
    from matplotlib.ticker import MaxNLocator

    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if high < 3 * low:
        marks = MaxNLocator(8, steps=(1, 2, 5, 10)).tick_values(low, high)
    elif high < 10 * low:
        marks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    elif last < first + 5:
        marks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
    else:
        marks = [10.0**e for e in range(first, last + 1, max(1, (last - first) // 8))]
    return [float(mark) for mark in marks if low <= mark <= high]


def reliability(png: Path | str, title: str, ours: Sequence[Curve], beside: Sequence[Curve]) -> str | None:
    """Draw realised against predicted losses and the diagonal, both axes logarithmic; return None, or why not.

    `beside`: what each of `ours` is set against, in order: drawn in its colour, dashed.

    Example:
        >>> notice = reliability("reliability.png", "stopped", [Curve("ours", predicted, realised, low, high)], [])
    """
    made = figure("predicted loss", "realised loss", width=8.0, height=5.0)
    if made is None:
        return MISSING
    picture, axes = made
    lines = [
        *zip(ours, COLORS, ["-"] * len(ours), strict=False),
        *zip(beside, COLORS, ["--"] * len(beside), strict=False),
    ]
    for line, color, style in lines:
        axes.plot(
            line.x, line.y, style, color=color, linewidth=1.8, marker="o", markersize=3, label=line.label
        )
        axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.1, linewidth=0)
    ends = [end(value for line, _, _ in lines for value in (*line.x, *line.y)) for end in (min, max)]
    axes.plot(ends, ends, ":", color=INK, linewidth=1, label="predicted = realised")
    axes.set(xscale="log", yscale="log", title=title)
    axes.legend(
        frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", handlelength=3.5
    )
    return save(picture, png)


def clouds(
    png: Path | str, title: str, columns: Mapping[str, Sequence[Any]], width: float = 1.6
) -> str | None:
    """Draw clouds of points in the plane side by side, a row for each task; return None, or why there is no picture.

    `columns`: by label (`truth`, `after 1 step`, ...), a cloud `[N, 2]` for each task: its first two coordinates are
    drawn. A row's axes are those of its first column. `width` of a cloud in inches.

    Example:
        >>> notice = clouds("points.png", "mixtures", {"truth": real[:4], "generated": points[:4]})
    """
    rows = min(map(len, columns.values()), default=0)
    if not rows:
        return "no picture drawn: there are no clouds of points"
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return MISSING
    picture = Figure(figsize=(width * len(columns), width * rows), dpi=150, layout="constrained")
    grid = picture.subplots(rows, len(columns), sharex="row", sharey="row", squeeze=False)
    for row in range(rows):
        for place, (label, tasks) in enumerate(columns.items()):
            axes, cloud = grid[row][place], tasks[row]
            axes.scatter(cloud[:, 0], cloud[:, 1], s=2, linewidths=0, color=COLORS[bool(place)])
            axes.set_xticks([])
            axes.set_yticks([])
            if not row:
                axes.set_title(label, fontsize="small")
        shown = np.asarray(columns[next(iter(columns))][row])[:, :2]
        centre = (shown.min(0) + shown.max(0)) / 2
        half = 0.6 * float((shown.max(0) - shown.min(0)).max()) or 1.0
        grid[row][0].set(xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half))
    picture.suptitle(title)
    return save(picture, png)
