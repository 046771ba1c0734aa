"""`gradatim merge`: one state of the rows of several, which were learned apart under one map.

Source: Dean, Ghemawat 2008 (parts are learnt apart, and joined).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files.joined_schema import join_schemas
from ..files.streaming import reweigh
from .grouped import is_grouped
from .grouped_states import merge_groups
from .learning import check_free, learnable_sample, lock_state, save
from .show import print_written
from .tables import (
    FILES_HELP,
    add_examples,
    add_reading_options,
    check_output,
    count,
    count_rows,
    interruptible,
    load_estimator,
    open_known,
    reading_options,
    say,
    say_notes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.schema import Schema


def merge_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `merge`."""
    parser.add_argument(
        "states", type=str, nargs="+", help="states that were learned under one map, no row twice"
    )
    parser.add_argument(
        "--out", type=str, required=True, help="file for the state of all rows (.safetensors)"
    )
    parser.add_argument(
        "--weigh",
        type=str,
        action="append",
        help=f"rows among those learned, by which the models are weighed; a few hundred do. {FILES_HELP}",
    )
    add_reading_options(parser, stored=True)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file at --out")
    add_examples(
        parser,
        [
            "gradatim fit 'days/*.csv' --target y --map-only --state base.safetensors",
            "gradatim fit days/monday.csv --map base.safetensors --state monday.safetensors  # on one machine",
            "gradatim fit days/tuesday.csv --map base.safetensors --state tuesday.safetensors  # on another",
            "gradatim merge monday.safetensors tuesday.safetensors --out whole.safetensors",
            "gradatim merge parts/*.safetensors --weigh days/monday.csv --out whole.safetensors",
            "gradatim merge north.safetensors south.safetensors --out stores.safetensors  # groups of one prior",
        ],
    )


def merge(options: Namespace, console: Console) -> None:
    """Merge states and save one of all their rows; the parts stay as they are.

    Raises:
        ValueError: states that cannot be read or do not belong together, rows that would count twice, or a file that
            would be overwritten. Nothing is written then.
    """
    out, reading = Path(options.out), reading_options(options)
    check_output(out, "--out", [*options.states, *(options.weigh or ())])
    _check_different(options.states)
    if any(is_grouped(Path(state)) for state in options.states):
        merge_groups(options, console)
        return
    with interruptible(out), lock_state(out, console):
        check_free(out, options.force)
        started = time.perf_counter()
        model, schema, notes = merged(Path(state) for state in options.states)
        if options.weigh:
            notes += weigh_by(options.weigh, model, schema, reading, out)
        say_notes(console, notes)
        save(model, out, schema, schema.labels())
        classes = (
            f" of {count(len(model.classes_), 'class', 'classes')}" if hasattr(model, "classes_") else ""
        )
        seconds = time.perf_counter() - started
        rows = count_rows(round(model.task_.rows))
        say(
            console,
            f"{rows}{classes} in {count(len(options.states), 'state', 'states')} merged in {seconds:.1f} s",
        )
        print_written(console, [out])


def _check_different(states: Sequence[str]) -> None:
    """Raise ValueError if a state is given twice, also by a link, or alone."""
    if len(states) < 2:
        raise ValueError(
            f"merge needs at least two states; got {states[0]} alone: give all parts in one call"
        )
    for place, state in enumerate(states):
        for earlier in states[:place]:
            if Path(state).exists() and Path(earlier).exists() and Path(state).samefile(earlier):
                named = state if state == earlier else f"{state}, the same file as {earlier},"
                raise ValueError(f"{named} is given twice, so its rows would count twice: give it once")


def merged(states: Iterable[Path]) -> tuple[Any, Schema, list[str]]:
    """Return an estimator of the rows of all states, merged in order, the schema of their files, and notes.

    The next state is asked for when those before it are merged.

    Raises:
        ValueError: states that cannot be read or do not belong together, or rows that would count twice.
    """
    paths = iter(states)
    first = next(paths)
    model, schema, _ = load_estimator(first)
    rows_of: dict[str, Path] = {}
    _check_rows(model, first, rows_of)
    notes: list[str] = []
    for path in paths:
        part, more, _ = load_estimator(path)
        _check_rows(part, path, rows_of)
        schema, further = join_schemas([schema, more], [first, path])
        notes += further
        try:
            model.merge(part)
        except ValueError as error:
            raise ValueError(f"{path} and {first} cannot be merged: {error}") from error
    return model, schema, notes


def _check_rows(model: Any, path: Path, rows_of: dict[str, Path]) -> None:
    """Remember whose rows a state holds. Raise ValueError if a state before it has some of them."""
    from ..preprocessing.lineage import lineage_of  # it imports torch, which --help does without

    model.merged_ = model.merged_ or lineage_of(model.task_)  # states of version 0.1 have no name
    for name in model.merged_:
        if name in rows_of:
            raise ValueError(
                f"{path} and {rows_of[name]} hold the same rows, which would count twice: merge each state once, and "
                "learn more files with fit --map, which takes no row of the state at --map"
            )
    rows_of |= dict.fromkeys(model.merged_, path)


def weigh_by(
    files: Sequence[str], model: Any, schema: Schema, reading: dict[str, Any], out: Path
) -> list[str]:
    """Weigh the models of an estimator by rows of files; return notes for the user.

    Args:
        files: their paths.
        model, schema: the estimator, and the columns of what it has learned.
        reading: options of reading.
        out: the file of its state, for messages.

    Raises:
        ValueError: files that cannot be read, or of other columns.
    """
    table_file = open_known(files, schema, reading, sampled=True)
    note = schema.check_columns(table_file, out, learn=True)
    reweigh(model, learnable_sample(table_file, schema), schema.weight is not None)
    return [text for text in (*table_file.notes, note) if text]
