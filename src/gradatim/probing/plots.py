"""Pictures of one run: loss of meta-training, groups, relations, blocks, boundaries. By matplotlib if there is one.

Source: matplotlib's object interface (`Figure`, the Agg canvas): no window, no global state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = "no picture drawn: it needs matplotlib, pip install gradatim[viz]"
INK, SOFT, RULE = "#1f2933", "#9fb3c8", "#d9e2ec"
CLASSES = (
    "#2f6690",
    "#d1495b",
    "#edae49",
    "#66a182",
    "#7d5ba6",
    "#8d6a4f",
    "#3a7d7c",
    "#c97b84",
    "#5c6b73",
    "#a3b18a",
)


def loss_curve(log: Path | str, png: Path | str) -> str | None:
    """Draw a training log's loss against iterations, with a running median over a tenth of the points.

    Args:
        log: JSON lines with `iteration` and `loss`.
        png: the picture's file.

    Returns:
        None, or why there is no picture.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("log.jsonl").write_text('{"iteration": 1, "loss": 2.0}')
        >>> notice = loss_curve("log.jsonl", "loss.png")
    """
    records = [json.loads(line) for line in Path(log).read_text().splitlines()]
    if not records:
        return f"no picture drawn: {log} has no lines"
    pair = figure("iteration (one gradient step)", "loss (mean over the episode's steps)")
    if pair is None:
        return MISSING
    canvas, axes = pair
    iterations, losses = [r["iteration"] for r in records], [r["loss"] for r in records]
    axes.plot(iterations, losses, color=SOFT, linewidth=1, label="logged")
    half = max(1, len(losses) // 20)
    windows = (sorted(losses[max(0, i - half) : i + half + 1]) for i in range(len(losses)))
    axes.plot(iterations, [w[len(w) // 2] for w in windows], color=INK, linewidth=2, label="running median")
    if min(losses) > 0 and max(losses) > 20 * min(losses):
        axes.set_yscale("log")
    axes.legend(frameon=False)
    return save(canvas, png)


def group_effects(names: Any, effect: Any, spread: Any, label: str, png: Path | str) -> str | None:
    """Draw the effects `[K]` of groups in ascending order, with two deviations `[K]` where `spread` is not None.

    Of more than 60 groups the lowest and the highest 30 are shown.

    Returns:
        None, or why there is no picture.

    Example:
        >>> from gradatim.probing.plots import group_effects
        >>> notice = group_effects(["a", "b"], [0.5, -0.5], [0.1, 0.2], "level", "effects.png")
    """
    order = sorted(range(len(names)), key=lambda at: float(effect[at]))
    if len(order) > 60:
        order = order[:30] + order[-30:]
    if not order:
        return "no picture drawn: no group is known"
    pair = figure(f"{label}, beyond what all groups share", "", 6.4, 1.2 + 0.18 * len(order))
    if pair is None:
        return MISSING
    canvas, axes = pair
    places = range(len(order))
    if spread is not None:
        wide = [2 * float(spread[at]) for at in order]
        axes.errorbar(
            [float(effect[at]) for at in order], places, xerr=wide, fmt="none", ecolor=SOFT, elinewidth=2
        )
    axes.plot([float(effect[at]) for at in order], places, "o", color=INK, markersize=4)
    axes.axvline(0.0, color=RULE, linewidth=1.5)
    axes.set_yticks(places, [str(names[at]) for at in order], fontsize=8)
    return save(canvas, png)


def block_picture(
    weights: Any, feature_groups: Any, task_groups: Any, features: Any, tasks: Any, png: Path | str
) -> str | None:
    """Draw weights `[T, d]` as a map, features `[d]` and tasks `[T]` in the order of their groups, with lines between.

    Names are shown of at most 60 features and 40 tasks.

    Returns:
        None, or why there is no picture.

    Example:
        >>> from gradatim.probing.plots import block_picture
        >>> notice = block_picture([[1.0, 0.0], [0.0, 1.0]], [0, 1], [0, 1], "ab", "xy", "blocks.png")
    """
    across = sorted(range(len(feature_groups)), key=lambda at: (int(feature_groups[at]), at))
    down = sorted(range(len(task_groups)), key=lambda at: (int(task_groups[at]), at))
    pair = figure("feature", "task", min(12.0, 3.0 + 0.12 * len(across)), min(12.0, 2.0 + 0.12 * len(down)))
    if pair is None:
        return MISSING
    canvas, axes = pair
    ordered = [[float(weights[t][i]) for i in across] for t in down]
    most = max((abs(w) for row in ordered for w in row), default=0.0) or 1.0
    axes.grid(visible=False)
    image = axes.imshow(ordered, cmap="RdBu", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    canvas.colorbar(image, ax=axes, label="weight, for a deviation of the feature")
    for order, groups, line in ((across, feature_groups, axes.axvline), (down, task_groups, axes.axhline)):
        for at in range(1, len(order)):
            if groups[order[at]] != groups[order[at - 1]]:
                line(at - 0.5, color=INK, linewidth=1)
    shown = [str(features[i]) for i in across] if len(across) <= 60 else []
    axes.set_xticks(range(len(shown)), shown, fontsize=6, rotation=90)
    shown = [str(tasks[t]) for t in down] if len(down) <= 40 else []
    axes.set_yticks(range(len(shown)), shown, fontsize=6)
    return save(canvas, png)


def relation_map(shares: Any, names: Any, png: Path | str, order: Any = None) -> str | None:
    """Draw in which shares `[T, T]` tasks help each other, as a heat map: row i is who helps task i.

    Args:
        shares: rows that sum to one, as `regularizers.relations.relations` returns them.
        names: of the tasks, `[T]`.
        png: the picture's file.
        order: of the tasks, `[T]`, such as `regularizers.clusters.order` finds. None: as they are.

    Returns:
        None, or why there is no picture.

    Example:
        >>> from gradatim.probing.plots import relation_map
        >>> notice = relation_map([[0.0, 1.0], [1.0, 0.0]], ["north", "south"], "relations.png")
    """
    places = [int(at) for at in (range(len(names)) if order is None else order)]
    side = 2.0 + 0.16 * min(len(places), 60)
    pair = figure("the task that helps", "the task that is helped", side + 0.8, side)
    if pair is None:
        return MISSING
    canvas, axes = pair
    drawn = axes.imshow([[float(shares[i][j]) for j in places] for i in places], cmap="Blues", vmin=0)
    if len(places) <= 60:
        words = [str(names[at]) for at in places]
        axes.set_xticks(range(len(places)), words, fontsize=6, rotation=90)
        axes.set_yticks(range(len(places)), words, fontsize=6)
    axes.grid(visible=False)
    canvas.colorbar(drawn, ax=axes, label="share", shrink=0.8)
    return save(canvas, png)


def boundary_pictures(found: Any, titles: Any, names: Any, path: Path | str) -> str | None:
    """Draw decision boundaries beside one another, or as a GIF that shows one after the other.

    A cell has the colour of its class, the paler the less certain. Points are the rows that were learnt.

    Args:
        found: boundaries, as `probing.boundary` returns them.
        titles: a line above each.
        names: of the two columns.
        path: the picture's file; a name that ends in .gif is an animation.

    Returns:
        None, or why there is no picture.

    Example:
        >>> from gradatim.probing.plots import boundary_pictures
        >>> notice = boundary_pictures([], [], ("a", "b"), "steps.png")
    """
    if not found:
        return "no picture drawn: there is no boundary"
    moving = str(path).lower().endswith(".gif")
    across = 1 if moving else min(len(found), 4)
    down = 1 if moving else -(-len(found) // across)
    pair = figure("", "", 3.2 * across + 0.6, 3.2 * down + 0.4)
    if pair is None:
        return MISSING
    canvas, first = pair
    first.remove()
    if moving:
        return _moving(canvas, found, titles, names, path)
    for place, (each, title) in enumerate(zip(found, titles, strict=True)):
        _draw_boundary(canvas.add_subplot(down, across, place + 1), each, title, names)
    return save(canvas, path)


def _moving(canvas: Any, found: Any, titles: Any, names: Any, path: Path | str) -> str | None:
    """Write boundaries as a GIF, two a second."""
    from matplotlib.animation import PillowWriter

    axes, writer = canvas.add_subplot(), PillowWriter(fps=2)
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with writer.saving(canvas, str(path), dpi=110):
            for each, title in zip(found, titles, strict=True):
                axes.clear()
                _draw_boundary(axes, each, title, names)
                writer.grab_frame()
    except OSError as error:
        return f"no picture drawn: {path} could not be written ({error.strerror})"
    return None


def _draw_boundary(axes: Any, each: Any, title: str, names: Any) -> None:
    """Draw one boundary: its cells, its border and its rows."""
    from matplotlib.colors import to_rgb

    colours = [to_rgb(CLASSES[c % len(CLASSES)]) for c in range(len(each.classes))]
    likely, sure = each.probabilities.argmax(-1).tolist(), each.probabilities.max(-1).tolist()
    least = 1 / len(colours)
    # from white at a probability of 1 / C to the colour, half strong so that rows are seen
    pale = [[0.12 + 0.43 * (p - least) / (1 - least) for p in row] for row in sure]
    image = [
        [[1 - a * (1 - part) for part in colours[c]] for c, a in zip(row, alphas, strict=True)]
        for row, alphas in zip(likely, pale, strict=True)
    ]
    box = (each.x_axis[0], each.x_axis[-1], each.y_axis[0], each.y_axis[-1])
    axes.imshow(image, origin="lower", extent=box, aspect="auto", interpolation="nearest")
    for c in range(len(colours)):
        mask = [[float(cell == c) for cell in row] for row in likely]
        if 0 < sum(map(sum, mask)) < len(likely) * len(likely[0]):
            axes.contour(each.x_axis, each.y_axis, mask, levels=[0.5], colors=[INK], linewidths=0.8)
        rows = each.y == each.classes[c]
        axes.scatter(
            each.X[rows, 0],
            each.X[rows, 1],
            s=14,
            color=[colours[c]],
            edgecolors="white",
            label=str(each.classes[c]),
        )
    axes.set(xlim=box[:2], ylim=box[2:], xlabel=names[0], ylabel=names[1])
    axes.set_title(title, fontsize=9)
    axes.legend(fontsize=7, loc="best", framealpha=0.8)


def figure(x_label: str, y_label: str, width: float = 6.4, height: float = 4.0) -> tuple[Any, Any] | None:
    """Return an empty Figure of `width` by `height` inches and its labelled Axes, or None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return None
    canvas = Figure(figsize=(width, height), dpi=110, layout="constrained")
    axes = canvas.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    return canvas, axes


def save(canvas: Any, png: Path | str) -> str | None:
    """Write a figure to a PNG file and return None, or why it could not be written."""
    try:
        Path(png).parent.mkdir(parents=True, exist_ok=True)
        canvas.savefig(png, format="png")
    except OSError as error:
        return f"no picture drawn: {png} could not be written ({error.strerror})"
    return None
