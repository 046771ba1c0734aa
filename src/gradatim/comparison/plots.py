"""Pictures of comparisons. A method has one colour, one line style and one name in words, in every picture.

Pictures are drawn with matplotlib where it is installed. Without it, functions return the sentence that says what to
install.

Source: matplotlib's object interface (`Figure`, the Agg canvas): no window, no global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..probing.plots import INK, MISSING, RULE, save
from .palette import color_of, style_of, words_of

NAMED = 8
"""How many methods of a picture have a colour and a name; all others are grey."""

GREY = "#c3ccd6"


class Curve(NamedTuple):
    """A method's curve: `x`, `y`, and the band between `low` and `high`, all of one length.

    The colour is that of `method`. The legend says `label`, by default the method's name in words.
    """

    method: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    label: str = ""

    @property
    def words(self) -> str:
        """Return what a legend says."""
        return self.label or words_of(self.method)


def lines(
    png: Path | str,
    title: str,
    x_label: str,
    y_label: str,
    curves: Sequence[Curve],
    log_y: bool = True,
) -> str | None:
    """Draw curves with their bands; the first eight are coloured and named in a legend, the others grey.

    Args:
        png: the picture's file.
        title: what the picture finds, or asks.
        x_label: the x axis, which is logarithmic.
        y_label: the y axis; a picture of accuracies is never logarithmic.
        curves: in the order of the legend.
        log_y: whether y is logarithmic where all of it is above 0.

    Returns:
        None, or why there is no picture.

    Raises:
        ValueError: an x that is not above 0.

    Example:
        >>> curve = Curve("ridge", [1, 2, 5], [0.9, 0.5, 0.3], [0.8, 0.4, 0.2], [1.0, 0.6, 0.4])
        >>> notice = lines("error.png", "digits", "mini-batches seen", "error", [curve])
    """
    return panels(png, title, x_label, y_label, {"": curves}, log_y)


def panels(
    png: Path | str,
    title: str,
    x_label: str,
    y_label: str,
    plots: Mapping[str, Sequence[Curve]],
    log_y: bool = True,
    across: int = 2,
) -> str | None:
    """Draw several plots of curves side by side, with one legend for all of them.

    Args:
        png: the picture's file.
        title: what the picture finds, or asks.
        x_label: the x axes, which are logarithmic.
        y_label: the y axes; a picture of accuracies is never logarithmic.
        plots: curves by the title of their plot.
        log_y: whether y is logarithmic where all of it is above 0.
        across: plots in a row.

    Returns:
        None, or why there is no picture.

    Raises:
        ValueError: an x that is not above 0.

    Example:
        >>> curve = Curve("ridge", [1, 2], [0.9, 0.5], [0.8, 0.4], [1.0, 0.6])
        >>> notice = panels("errors.png", "errors", "rows seen", "error", {"digits": [curve], "letters": [curve]})
    """
    plots = {name: curves for name, curves in plots.items() if curves}
    if not plots:
        return "no picture drawn: there are no curves"
    columns = min(across, len(plots))
    n_rows = -(-len(plots) // columns)
    methods = list(dict.fromkeys(curve.words for curves in plots.values() for curve in curves))[:NAMED]
    size = (4.4 * columns, 3.1 * n_rows + 0.7 + 0.12 * len(methods)) if len(plots) > 1 else (8.0, 4.4)
    canvas = _canvas(*size)
    if canvas is None:
        return MISSING
    panes = canvas.subplots(n_rows, columns, squeeze=False).flatten()
    linear = "accuracy" in y_label.lower()
    handles: dict[str, Any] = {}
    for axes, (name, curves) in zip(panes, plots.items(), strict=False):
        handles |= _draw(axes, curves, log_y and not linear, methods)
        axes.set_title(name, fontsize="medium")
        _frame(axes)
    for axes in panes[len(plots) :]:
        axes.set_axis_off()
    for axes in panes[max(0, len(plots) - columns) : len(plots)]:
        axes.set_xlabel(x_label)
    canvas.supylabel(y_label, fontsize="medium")
    canvas.suptitle(title, fontsize="large")
    _legend(canvas, {name: handles[name] for name in methods if name in handles}, columns)
    return save(canvas, png)


def _canvas(width: float, height: float) -> Any:
    """Return an empty Figure of `width` by `height` inches, or None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _frame(axes: Any) -> None:
    """Draw light rules behind the plot and no frame above or to the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)


def _legend(canvas: Any, handles: Mapping[str, Any], columns: int = 1) -> None:
    """Name what is coloured: at the right of a plot, or below several side by side."""
    canvas.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center" if columns > 1 else "outside right center",
        ncols=columns,
        frameon=False,
        fontsize="small",
        handlelength=2.8,
    )


def _draw(axes: Any, curves: Sequence[Curve], log_y: bool, methods: Sequence[str]) -> dict[str, Any]:
    """Draw curves with their bands; return the line of each of `methods`, by its words. NaN is left out."""
    handles: dict[str, Any] = {}
    for curve in curves:
        named = curve.words in methods
        color, style = (color_of(curve.method), style_of(curve.method)) if named else (GREY, "-")
        # no line leads to a single answer: a larger mark, above the lines
        point = {"marker": "D", "markersize": 6, "zorder": 3} if len(curve.x) == 1 else {}
        marks = point or {"marker": "o", "markersize": 3, "zorder": 2 + named / 2}
        width = 1.8 if named else 1.0
        (line,) = axes.plot(curve.x, curve.y, style, color=color, linewidth=width, label=curve.words, **marks)
        if len(curve.x) == 1:
            axes.vlines(curve.x, curve.low, curve.high, color=color, linewidth=1.2)
        if named:
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.12, linewidth=0)
            handles[curve.words] = line
    _scale(axes, curves, log_y)
    return handles


def _scale(axes: Any, curves: Sequence[Curve], log_y: bool) -> None:
    """Set the scales of both axes and mark them; x logarithmic, y so where it is asked for and possible."""
    xs = sorted({x for curve in curves for x in curve.x})
    if xs and not xs[0] > 0:
        raise ValueError(f"x must be above 0, its axis is logarithmic; got {xs[0]:g}")
    log_y = log_y and not any(y <= 0 for curve in curves for y in (*curve.y, *curve.low))
    axes.set(xscale="log", yscale="log" if log_y else "linear")
    ticks: list[float] = []
    first, last = xs[:1], xs[-1:]
    rounds = [x for x in xs if f"{x:e}"[0] in "125" or [x] in (first, last)]
    # nearer than a ninth of the axis marks would overlap
    for x in reversed(rounds if len(rounds) > 5 else xs):
        if not ticks or (ticks[-1] / x) ** 9 >= xs[-1] / xs[0]:
            ticks.append(x)
    ticks[-1:] = xs[:1]  # both ends are marked
    axes.set_xticks(ticks, [f"{tick:,g}" if tick < 1e5 else f"{tick:,.0f}" for tick in ticks])
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


def dots(
    png: Path | str,
    title: str,
    x_label: str,
    labels: Sequence[str],
    curves: Sequence[Curve],
    reference: float | None = None,
    ticks: Sequence[float] = (),
) -> str | None:
    """Draw a line of dots for each label, one dot a method, each with its interval.

    Args:
        png: the picture's file.
        title: what the picture finds, or asks.
        x_label: the x axis: what the dots measure.
        labels: of the lines, from the top.
        curves: of each method, x the places of labels, from 0, and y the values measured.
        reference: where a vertical line stands.
        ticks: marks of a logarithmic x axis; without them it is linear.

    Returns:
        None, or why there is no picture.

    Example:
        >>> ours = Curve("gradatim", [0, 1], [0.9, 1.1], [0.8, 1.0], [1.0, 1.2])
        >>> notice = dots("ratio.png", "errors", "error over the ridge's", ["digits", "letters"], [ours], reference=1.0)
    """
    if not labels:
        return "no picture drawn: there are no dots"
    canvas = _canvas(8.5, 1.3 + 0.3 * len(labels))
    if canvas is None:
        return MISSING
    axes = canvas.subplots()
    if reference is not None:
        axes.axvline(reference, color=INK, linewidth=1)
    handles: dict[str, Any] = {}
    for place, curve in enumerate(curves):
        named = place < NAMED
        color = color_of(curve.method) if named else GREY
        front = {"s": 60, "zorder": 4} if not place else {"s": 24, "zorder": 3 if named else 2}
        axes.hlines(curve.x, curve.low, curve.high, color=color, linewidth=1.6, zorder=2)
        handle = axes.scatter(curve.y, curve.x, color=color, **front)
        if named:
            handles[curve.words] = handle
    axes.set_yticks(range(len(labels)), labels, fontsize="small")
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(x_label)
    if ticks:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        marks = [tick for tick in ticks if low <= tick <= high]
        axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
        axes.minorticks_off()
    _frame(axes)
    canvas.suptitle(title, fontsize="large")
    if len(handles) > 1:
        _legend(canvas, handles)
    return save(canvas, png)


def clouds(
    png: Path | str, title: str, columns: Mapping[str, Sequence[Any]], width: float = 1.6
) -> str | None:
    """Draw clouds of points in the plane side by side, a row for each task.

    Args:
        png: the picture's file.
        title: of the picture.
        columns: by label (`truth`, `after 1 step`, ...), a cloud `[N, 2]` for each task. Of more coordinates the first
            two are drawn. A row's axes are those of its first column.
        width: of a cloud, in inches.

    Returns:
        None, or why there is no picture.

    Example:
        >>> import torch
        >>> points = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0))
        >>> notice = clouds("points.png", "mixtures", {"truth": points, "generated": points})
    """
    n_tasks = min(map(len, columns.values()), default=0)
    if not n_tasks:
        return "no picture drawn: there are no clouds of points"
    canvas = _canvas(width * len(columns), width * n_tasks)
    if canvas is None:
        return MISSING
    panes = canvas.subplots(n_tasks, len(columns), sharex="row", sharey="row", squeeze=False)
    for row in range(n_tasks):
        for place, (label, tasks) in enumerate(columns.items()):
            axes, cloud = panes[row][place], tasks[row]
            axes.scatter(
                cloud[:, 0], cloud[:, 1], s=2, linewidths=0, color=color_of("gradatim") if place else INK
            )
            axes.set_xticks([])
            axes.set_yticks([])
            if not row:
                axes.set_title(label, fontsize="small")
        truth = np.asarray(columns[next(iter(columns))][row])[:, :2]
        centre = (truth.min(0) + truth.max(0)) / 2
        half = 0.6 * float((truth.max(0) - truth.min(0)).max()) or 1.0
        panes[row][0].set(
            xlim=(centre[0] - half, centre[0] + half), ylim=(centre[1] - half, centre[1] + half)
        )
    canvas.suptitle(title)
    return save(canvas, png)
