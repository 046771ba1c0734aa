"""`gradatim fit --group`: rows of groups (shops, patients, machines) in files, each group under what all share.

Source: Lindley, Smith 1972 (groups that share a prior).
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.cells import arrow
from ..files.choice import Choice
from ..files.progress import Bar
from ..files.schema import STORED_OPTIONS, Schema
from ..files.streaming import TargetReader
from ..files.target import CLASSIFICATION, REGRESSION
from ..files.writing import STDOUT, TableWriter
from .learning import check_free, lock_state, notes_of_empty
from .show import print_written
from .tables import (
    check_answers,
    check_output,
    column_name,
    column_names,
    count,
    count_rows,
    file_version,
    interruptible,
    is_any_of,
    open_files,
    open_known,
    reading_options,
    say,
    say_notes,
    split_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jsonargparse import Namespace
    from rich.console import Console

    from ..files.reading import TableFile

FIRST = 200_000
"""Rows at most that teach what groups share; later ones are learnt by their groups alone."""

UNFIT = ("map", "map_only", "classes", "class_weight", "id")
"""Options of `fit` that groups do not have."""


def is_grouped(path: Path) -> bool:
    """Return whether a file holds the state of groups; of one that is no file of gradatim, false."""
    from ..files.checkpoint import read_header

    try:
        return read_header(path)["kind"] == "groups"
    except ValueError:
        return False


def fit_groups(options: Namespace, console: Console) -> None:
    """Learn what groups share, and each of them, from files, and save the state.

    Raises:
        ValueError: invalid options, no such column of groups, files that cannot be learned, or a state in the way.
    """
    given = [name for name in UNFIT if options[name]] + (["memory"] if options.memory != "all" else [])
    if given:
        raise ValueError(f"--group does not go with --{given[0].replace('_', '-')}: leave one of them out")
    state = Path(options.state)
    check_output(state, "--state", options.files)
    reading = reading_options(options)
    with interruptible(state), lock_state(state, console):
        check_free(state, options.force)
        text = [*split_names(options.text), *(options.text or ())]
        table_file = open_files(options.files, reading, text=tuple(text))
        names = table_file.names
        columns, drop = (tuple(column_names(options[name], names)) for name in ("columns", "drop"))
        target, group, weight = (column_name(options[name], names) for name in ("target", "group", "weight"))
        if group not in names:
            raise ValueError(
                f"--group {group}: no column is called that; there are {', '.join(names[:10])}: name one"
            )
        choice = Choice(
            target or "",
            options.task,
            columns=columns,
            drop=drop,
            id=group,
            weight=weight,
            text=tuple(column_names(options.text, names)),
        )
        stored = {name: reading[name] for name in STORED_OPTIONS if name in reading}
        schema = Schema.infer(table_file, choice, stored)
        say_notes(console, [*table_file.notes, *notes_of_empty(schema)])
        model = _new_model(schema)
        started = time.perf_counter()
        with Bar(not options.quiet, f"learning {table_file.path.name}") as bar:
            notes = _learn(model, table_file, schema, bar, first=True)
        model.save(state)
        report_groups(console, model, notes, started)
        print_written(console, [state])


def fit_groups_under_map(options: Namespace, console: Console) -> None:
    """Learn rows of groups under the prior of the state at `--map`, and save a state of these rows alone.

    Raises:
        ValueError: an option that the state at `--map` has decided; as `update_groups`.
    """
    decided = ("target", "group", "columns", "text", "id", "map_only", "classes", "class_weight")
    if given := [name for name in decided if options[name]]:
        raise ValueError(
            f"{options.map} holds groups, and has decided --{given[0].replace('_', '-')}: leave it out, or leave "
            "--map out"
        )
    _learn_more(options, console, Path(options.map), Path(options.state), fresh=True)


def update_groups(options: Namespace, console: Console) -> None:
    """Learn more rows of groups, known or new, and save the state.

    Raises:
        ValueError: the state cannot be read, the files have other columns, or the state has changed in the meantime.
    """
    state = Path(options.state)
    _learn_more(options, console, state, state if options.out is None else Path(options.out))


def _learn_more(options: Namespace, console: Console, state: Path, out: Path, fresh: bool = False) -> None:
    """Learn rows of groups into a state, or under its prior alone into a `fresh` one."""
    is_new = not is_any_of(out, [str(state)])
    check_output(
        out, "--out" if is_new and not fresh else "--state", [*options.files, *([str(state)] * fresh)]
    )
    with interruptible(out), lock_state(out, console):
        if is_new:
            check_free(out, options.force)
        version = file_version(state)
        model, schema = load_groups(state)
        model = model.fork() if fresh else model
        if options.weight is not None:
            schema = schema.with_weight(options.weight)
        table_file = open_known(options.files, schema, reading_options(options))
        checked = schema.with_dropped(column_names(options.drop, table_file.names), table_file)
        note = checked.check_columns(table_file, state, learn=True)
        check_group(table_file, schema)
        say_notes(console, [*table_file.notes, note])
        started = time.perf_counter()
        with Bar(not options.quiet, f"learning {table_file.path.name}") as bar:
            notes = _learn(model, table_file, schema, bar, first=False)
        if file_version(state) != version:
            raise ValueError(
                f"{state} was changed by another process in the meantime: nothing was saved; update again"
            )
        model.save(out)
        report_groups(console, model, notes, started)
        print_written(console, [out])


def predict_groups(options: Namespace, levels: Sequence[float], console: Console) -> None:
    """Write the predictions for rows of groups, known or not, in their order: the group, then what is predicted.

    Raises:
        ValueError: the state cannot be read, the files have other columns, or it cannot give this kind of prediction.
    """
    out, started, n_rows = Path(options.out), time.perf_counter(), 0
    model, schema = load_groups(Path(options.state))
    check_answers(levels, options.proba, schema.task, options.state)
    if options.id is not None:
        raise ValueError("groups are written beside each prediction: leave --id out")
    with nullcontext() if options.out == STDOUT else interruptible(out):
        table_file = open_known(options.files, schema, reading_options(options))
        checked = schema.with_dropped(column_names(options.drop, table_file.names), table_file)
        note = checked.check_columns(table_file, options.state, learn=False)
        check_group(table_file, schema)
        say_notes(console, [*table_file.notes, note])
        cells = schema.cells_to_read(learn=False)
        with Bar(not options.quiet, f"predicting {table_file.path.name}") as bar, TableWriter(out) as file:
            for table, share in table_file.stream(cells):
                file.write(_answers(model, table, schema, options.proba, levels))
                n_rows += table.num_rows
                bar.update(share, f"{n_rows:,} rows")
    say_notes(console, table_file.notes_after())
    say(console, f"{count_rows(n_rows)} predicted in {time.perf_counter() - started:.1f} s")
    if options.out != STDOUT:
        print_written(console, [out])


def load_groups(path: Path) -> tuple[Any, Schema]:
    """Return the estimator in a state of groups, and the schema of its files.

    Raises:
        ValueError: a file that is missing, damaged or foreign, or was saved from Python.
    """
    from ..files.checkpoint import read_header
    from ..groups import GroupedClassifier, GroupedRegressor

    header = read_header(path, "groups")
    kind = GroupedRegressor if header.get("classes") is None else GroupedClassifier
    return kind.load(path), Schema.from_json(header, path)


def _new_model(schema: Schema) -> Any:
    from ..groups import GroupedClassifier, GroupedRegressor

    return GroupedClassifier() if schema.task == CLASSIFICATION else GroupedRegressor()


def check_group(table_file: TableFile, schema: Schema) -> None:
    """Raise ValueError if the column that names the group is missing."""
    if schema.id not in table_file.names:
        raise ValueError(
            f"{table_file.path}: column {schema.id!r}, which names the group, is missing: add it, or rename a column"
        )


def rows_of_groups(
    table_file: TableFile, reader: TargetReader, bar: Any, skipped: dict[str, int]
) -> Iterator[tuple[Any, ...]]:
    """Yield features, targets, groups and weights of rows that have all of these, and count the others."""
    schema, done = reader.schema, 0
    cells = schema.cells_to_read(learn=True) | schema.cells_to_read(learn=False)
    for table, share in table_file.stream(cells):
        X, y, weight, present = reader.read(table)
        names = np.array(table[schema.id].to_pylist(), dtype=object)
        has_group = np.array([name is not None for name in names.tolist()], dtype=bool)
        skipped["target"] += int((~present).sum())
        skipped["group"] += int((present & ~has_group).sum())
        skipped["weight"] += int((present & has_group & (weight == 0)).sum())
        chosen = present & has_group & (weight > 0)
        done += table.num_rows
        bar.update(share, f"{done:,} rows")
        if chosen.any():
            yield X.filter(arrow().array(chosen)), y[chosen], names[chosen], weight[chosen]


def _learn(model: Any, table_file: TableFile, schema: Schema, bar: Any, first: bool) -> list[str]:
    """Learn all rows of files, the `first` ones together, and return notes."""
    labels, skipped = schema.labels(), {"target": 0, "group": 0, "weight": 0}
    reader = TargetReader(schema, labels, table_file.path, table_file.place)
    held: list[tuple[Any, ...]] = []
    for rows in rows_of_groups(table_file, reader, bar, skipped):
        if not first:
            model.partial_fit(*rows)
            continue
        held.append(rows)
        if sum(len(part[1]) for part in held) >= FIRST:
            _fit(model, held)
            first = False
    if first:
        if not held:
            raise ValueError(
                f"{table_file.path}: no row has a target, a group and a weight: nothing can be learned"
            )
        _fit(model, held)
    model.table_ = replace(schema, spelling=labels.spelling).to_json()
    lacking = {
        "target": f"without {schema.target!r}",
        "group": f"without {schema.id!r}",
        "weight": "of weight 0",
    }
    notes = [f"{count_rows(n)} {lacking[kind]} skipped" for kind, n in skipped.items() if n]
    return [*notes, *table_file.notes_after()]


def _fit(model: Any, held: list[tuple[Any, ...]]) -> None:
    tables, *columns = zip(*held, strict=True)
    model.fit(arrow().concat_tables(tables), *map(np.concatenate, columns))


def report_groups(console: Console, model: Any, notes: list[str], started: float) -> None:
    """Print how many rows of how many groups are known, and notes."""
    rows = model.state_.rows()
    groups = count(len(rows), "group", "groups")
    say(
        console,
        f"{count_rows(int(rows.sum()))} of {groups} known, after {time.perf_counter() - started:.1f} s",
    )
    say_notes(console, notes)


def _answers(model: Any, table: Any, schema: Schema, probabilities: bool, levels: Sequence[float]) -> Any:
    """Return the predictions of the rows of a table; those without a group are predicted by what groups share."""
    names = [name if name is not None else "" for name in table[schema.id].to_pylist()]
    X, labels = schema.features(table), schema.labels()
    key = schema.id if schema.id != "prediction" else "prediction_id"
    columns: dict[Any, Any] = {key: table[schema.id]}
    if schema.task == REGRESSION:
        columns["prediction"] = model.predict(X, names)
        if levels:
            found = model.predict(X, names, quantiles=levels)
            columns |= {f"quantile_{level!r}": found[:, at] for at, level in enumerate(levels)}
        return arrow().table(columns)
    found = model.predict_proba(X, names)
    columns["prediction"] = labels.spell(model.classes_[found.argmax(1)])
    if probabilities:
        spelt = labels.spell(model.classes_).cast("string").to_pylist()
        columns |= {f"proba_{name}": found[:, at] for at, name in enumerate(spelt)}
    return arrow().table(columns)
