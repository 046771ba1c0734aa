"""`gradatim fit --map`: learn files under the map of another state, of which no row is taken.

Source: Dean, Ghemawat 2008 (parts are learnt apart, and joined).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.cells import TEXT
from ..files.progress import Bar
from ..files.streaming import fit_stream, reweigh
from ..files.target import CLASSIFICATION
from .learning import (
    check_free,
    learnable_sample,
    lock_state,
    notes_of_rows,
    report_rows,
    save,
)
from .show import print_written
from .tables import (
    check_output,
    column_name,
    column_names,
    interruptible,
    load_estimator,
    open_known,
    reading_options,
    say,
    say_notes,
    split_names,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jsonargparse import Namespace
    from rich.console import Console

    from ..files.schema import Schema


def fit_under_map(options: Namespace, console: Console) -> None:
    """Learn files under the map, the classes and the options of the state at `--map`, and save a state of these rows.

    Raises:
        ValueError: an option that contradicts the state at `--map`, files of other columns, or a state that would be
            overwritten.
    """
    base, state = Path(options.map), Path(options.state)
    check_output(state, "--state", [*options.files, options.map])
    reading = reading_options(options)
    with interruptible(state), lock_state(state, console):
        check_free(state, options.force)
        base_model, schema, _ = load_estimator(base)
        for sentence in _contradictions(options, base_model, schema):
            raise ValueError(f"{base} is the map of {options.state}: {sentence}, or leave --map out")
        try:
            model = base_model.fork()
        except ValueError as error:
            raise ValueError(f"{base}: {error}") from error
        schema = schema if options.weight is None else schema.with_weight(options.weight)
        schema = schema if options.id is None else schema.with_id(options.id)
        table_file = open_known(options.files, schema, reading, sampled=True)
        dropped = [*column_names(options.drop, table_file.names)]
        schema = schema.with_dropped([name for name in dropped if name not in schema.dropped], table_file)
        note = schema.check_columns(table_file, base, learn=True)
        schema, notes = schema.with_filled(table_file)
        say(console, _describe(model, schema, base))
        say_notes(console, [*table_file.notes, note, *notes])
        labels, started = schema.labels(), time.perf_counter()
        with Bar(not options.quiet, f"learning {table_file.path.name}") as bar:
            report = fit_stream(model, table_file, schema, labels, 0, bar)
        if table_file.rereadable:
            reweigh(model, learnable_sample(table_file, schema), schema.weight is not None)
        save(model, state, schema, labels)
        report_rows(console, report, time.perf_counter() - started, schema, model)
        say_notes(console, [*table_file.notes_after(), *notes_of_rows(report, labels, None)])
        print_written(console, [state])


def _contradictions(options: Namespace, model: Any, schema: Schema) -> Iterator[str]:
    """Yield how options contradict the state whose map is taken, and what to do."""
    names = list(schema.columns)
    target = column_name(options.target, [schema.target])
    if target not in (None, schema.target):
        yield f"--target {target} must be its target, {schema.target!r}"
    if options.task not in ("auto", schema.task):
        yield f"--task {options.task} must be its task, {schema.task}"
    chosen = column_names(options.columns, names)
    if chosen and set(chosen) != set(names):
        odd = sorted(set(chosen) ^ set(names))[0]
        yield f"--columns must be its columns; {odd!r} is in one alone: leave --columns out"
    for name in column_names(options.text, [*names, schema.target]):
        cells = schema.target_cells if name == schema.target else schema.columns.get(name)
        if cells is None or cells.kind != TEXT:
            yield f"--text {name} must be a column that it reads as words: leave --text out"
    if options.classes is not None:
        if schema.task != CLASSIFICATION:
            yield f"--classes: its target {schema.target!r} is a number: leave --classes out"
        odd = sorted(set(schema.labels().from_words(split_names(options.classes))) - set(model.classes_))
        if odd:
            yield f"--classes names {str(odd[0])!r}, which is no class of it: name all classes when it is made"
    if options.class_weight is not None:
        yield "--class-weight is said when it is made: leave it out"
    for option, default, base_value in (
        ("batch_size", 32, model.batch_size),
        ("seed", 0, model.random_state),
    ):
        if options[option] not in (default, base_value):
            yield f"--{option.replace('_', '-')} {options[option]} must be its own, {base_value}: leave it out"


def _describe(model: Any, schema: Schema, base: Path) -> str:
    """Return the task, and whose it is."""
    if schema.task == CLASSIFICATION:
        return (
            f"classification of {schema.target!r}, under the map of {base} ({len(model.classes_):,} classes)"
        )
    return f"regression of {schema.target!r}, under the map of {base}"
