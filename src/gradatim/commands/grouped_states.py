"""States of groups on the command line: merged, freed of rows or of whole groups, and described.

Source: Lindley, Smith 1972 (groups that share a prior).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.joined_schema import join_schemas
from ..files.progress import Bar
from ..files.streaming import TargetReader
from .grouped import check_group, is_grouped, load_groups, report_groups, rows_of_groups
from .learning import check_free, lock_state
from .show import format_bytes, print_written
from .tables import (
    check_output,
    count_rows,
    file_version,
    interruptible,
    is_any_of,
    open_known,
    reading_options,
    say,
    say_notes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace
    from rich.console import Console

    from ..files.schema import Schema

BARS = " ▁▂▃▄▅▆▇█"
BINS = 28
"""Characters of the picture of how groups differ."""


def merge_groups(options: Namespace, console: Console) -> None:
    """Merge states of groups that share one prior, and save one of all their rows; the parts stay as they are.

    Raises:
        ValueError: states that cannot be read or do not belong together, rows that would count twice, or a file that
            would be overwritten. Nothing is written then.
    """
    out, states = Path(options.out), [Path(state) for state in options.states]
    if options.weigh:
        raise ValueError("each group's own rows weigh the experts of groups: leave --weigh out")
    if others := [state for state in states if state.exists() and not is_grouped(state)]:
        raise ValueError(f"{others[0]} holds no groups, and other states here do: merge states of one kind")
    with interruptible(out), lock_state(out, console):
        check_free(out, options.force)
        started, (model, schema), notes = time.perf_counter(), load_groups(states[0]), []
        for path in states[1:]:
            part, more = load_groups(path)
            schema, further = join_schemas([schema, more], [states[0], path])
            notes += further
            try:
                model.merge(part)
            except ValueError as error:
                raise ValueError(f"{path} and {states[0]} cannot be merged: {error}") from error
        model.table_ = schema.to_json()
        model.save(out)
        report_groups(console, model, notes, started)
        print_written(console, [out])


def forget_groups(options: Namespace, console: Console) -> None:
    """Take rows of files, or all rows of some groups, away from a state of groups, and save it.

    Raises:
        ValueError: the state cannot be read, the files have other columns, a row was never learnt, a group is not
            known, or the state has changed in the meantime.
    """
    state = Path(options.state)
    out = state if options.out is None else Path(options.out)
    is_new = not is_any_of(out, [options.state])
    check_output(out, "--out" if is_new else "--state", options.files)
    if not options.files and not options.group:
        raise ValueError("nothing is named that is to be forgotten: give files of rows, or --group NAME")
    with interruptible(out), lock_state(out, console):
        if is_new:
            check_free(out, options.force)
        version, started = file_version(state), time.perf_counter()
        model, schema = load_groups(state)
        notes = _forget_files(model, schema, options, console) if options.files else []
        for name in options.group or ():
            model.forget_group(_known(model, name, state))
        if file_version(state) != version:
            raise ValueError(
                f"{state} was changed by another process in the meantime: nothing was saved; forget again"
            )
        model.save(out)
        report_groups(console, model, notes, started)
        say(
            console, "what these rows taught the prior stays: fit again without them, if that must go as well"
        )
        print_written(console, [out])


def _known(model: Any, name: str, state: Path) -> Any:
    """Return the name of a group as the state has it: a word, or the whole number that is written so."""
    known = model.state_.index
    if name in known:
        return name
    whole = int(name) if name.lstrip("-").isdecimal() else None
    if whole in known and str(whole) == name:
        return whole
    raise ValueError(f"--group {name}: {state} knows no such group; gradatim info names some that it knows")


def _forget_files(model: Any, schema: Schema, options: Namespace, console: Console) -> list[str]:
    """Take the rows of files away, and return notes."""
    table_file = open_known(options.files, schema, reading_options(options))
    note = schema.check_columns(table_file, options.state, learn=True)
    check_group(table_file, schema)
    say_notes(console, [*table_file.notes, note])
    reader, done = TargetReader(schema, schema.labels(), table_file.path, table_file.place), 0
    skipped = {"target": 0, "group": 0, "weight": 0}
    with Bar(not options.quiet, f"forgetting {table_file.path.name}") as bar:
        for rows in rows_of_groups(table_file, reader, bar, skipped):
            try:
                model.forget(*rows)
            except ValueError as error:
                place = f"rows {done + 1:,} to {done + len(rows[1]):,}"
                raise ValueError(f"{table_file.path}, {place}: {error}; nothing was saved") from error
            done += len(rows[1])
    if not done:
        raise ValueError(
            f"{table_file.path}: no row has a target, a group and a weight: nothing was forgotten"
        )
    return [f"{count_rows(done)} forgotten", *table_file.notes_after()]


def describe_groups(path: Path) -> list[list[str]]:
    """Return what a state of groups holds, as lines for `gradatim info`.

    Raises:
        ValueError: a file that is missing, damaged or foreign.
    """
    from ..files.checkpoint import read_header

    header, model = read_header(path, "groups"), load_model(path)
    rows, weighing = model.state_.rows(), model.prior_.weighing
    share = (
        weighing.weights(np.zeros((1, len(weighing.log_prior))))[0]
        .reshape(len(model.prior_.experts), -1)
        .sum(1)
    )
    experts = ", ".join(f"{e.name} ({s:.0%})" for e, s in zip(model.prior_.experts, share, strict=True))
    lines = [["file", str(path)], ["kind", f"groups, format version {header['gradatim_format']}"]]
    lines += [["size", format_bytes(path.stat().st_size)], ["estimator", header["estimator"]]]
    sizes = f", of {rows.min():,.0f} to {rows.max():,.0f} rows" if len(rows) else ", a prior alone"
    lines.append(["groups", f"{len(rows):,}{sizes}"])
    lines.append(["rows", f"{rows.sum():,.0f}"])
    if (parts := len(header.get("merged") or ())) > 1:
        lines.append(["merged", f"{parts} states, no row twice"])
    lines.append(["prior", f"taught by {model.prior_.rows:,} rows of {model.prior_.groups:,} groups"])
    lines.append(["experts", experts])
    effects = model.effects_
    for name in [name for name in effects if name.startswith("level") and "std" not in name]:
        lines += differences(name, effects["group"], effects[name])
    if (table := header.get("table")) is not None:
        lines += [["target", f"{table['target']} ({table['task']})"], ["group", str(table["id"])]]
    lines.append(["columns", f"{header['n_features']}"])
    lines.append(["stored rows", "none as they came: sums over the rows of each group"])
    names = ", ".join(map(str, model.groups_[:20]))
    return [*lines, ["stored values", f"the names of groups: {names}{', ...' if len(rows) > 20 else ''}"]]


def differences(name: str, groups: Sequence[Any], effect: np.ndarray) -> list[list[str]]:
    """Return how groups differ in an effect `[K]`, as lines of two columns: its range, and how many groups are where.

    Example:
        >>> import numpy as np
        >>> from gradatim.commands.grouped_states import differences
        >>> lines = differences("level", list("abcdefgh"), np.array([-1.0, 0, 0, 0, 0, 0, 0, 3]))
        >>> lines[0]
        ['level', '-1 (a) to 3 (h) beyond the pooled model']
        >>> lines[1]
        ['', '▂      █                   ▂']
    """
    if len(effect) < 2:
        return []
    low, high = int(np.argmin(effect)), int(np.argmax(effect))
    said = f"{effect[low]:.3g} ({groups[low]}) to {effect[high]:.3g} ({groups[high]}) beyond the pooled model"
    if not effect[high] > effect[low]:
        return [[name, "the same in all groups"]]
    counts = np.histogram(effect, BINS)[0]
    tall = np.ceil(counts / counts.max() * (len(BARS) - 1)).astype(int)
    return [[name, said], ["", "".join(BARS[height] for height in tall)]]


def plot_groups(path: Path, png: Path, column: str | None, console: Console) -> None:
    """Draw how the groups of a state differ, by the effect of a column.

    Raises:
        ValueError: a file that is missing, damaged, foreign or of no groups; no such column.
    """
    if not is_grouped(path):
        raise ValueError(f"--plot draws how groups differ; {path} holds no groups: leave --plot out")
    model = load_model(path)
    first = next(name for name in model.effects_ if name.startswith("level"))
    notice = model.plot_effects(png, column or first)
    if notice:
        say(console, notice)
    else:
        print_written(console, [png])


def load_model(path: Path) -> Any:
    """Return the estimator in a state of groups, also in one that was saved from Python.

    Raises:
        ValueError: a file that is missing, damaged or foreign.
    """
    from ..files.checkpoint import read_header
    from ..groups import GroupedClassifier, GroupedRegressor

    header = read_header(path, "groups")
    return (GroupedRegressor if header.get("classes") is None else GroupedClassifier).load(path)
