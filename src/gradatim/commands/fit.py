"""`gradatim fit`, `update` and `remap`: learn the rows of files, and keep what is known of them in a state.

Source: Dawid 1984 (prequential evaluation: every row is predicted before it is learned).
"""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.cells import NUMBER
from ..files.choice import Choice
from ..files.progress import Bar
from ..files.schema import STORED_OPTIONS, Schema
from ..files.streaming import fit_stream, prepare, reweigh
from ..files.target import CLASSIFICATION, MAX_CLASSES, TASKS, check_class_count
from ..names import as_item
from .grouped import fit_groups, fit_groups_under_map, is_grouped, update_groups
from .learning import (
    check_free,
    class_weights,
    learnable_sample,
    lock_state,
    notes_of_empty,
    notes_of_rows,
    notes_of_weights,
    report_rows,
    row_weights,
    save,
)
from .mapped import fit_under_map
from .show import print_written
from .tables import (
    FILES_HELP,
    add_examples,
    add_reading_options,
    check_output,
    column_name,
    column_names,
    count,
    file_version,
    interruptible,
    is_any_of,
    load_estimator,
    open_files,
    open_known,
    reading_options,
    say,
    say_notes,
    split_names,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

    from ..files.reading import TableFile
    from ..files.target import Labels


def fit_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `fit`."""
    parser.add_argument("files", type=str, nargs="+", help=FILES_HELP)
    parser.add_argument(
        "--target", type=str, help="the column to predict; rows without it are skipped (needed without --map)"
    )
    parser.add_argument("--state", type=str, required=True, help="file for what was learned (.safetensors)")
    parser.add_argument(
        "--task",
        type=str,
        default="auto",
        help="auto, classification or regression; auto: words are classes, and so are a few whole numbers that stand "
        "in several rows each",
    )
    parser.add_argument(
        "--classes",
        type=str,
        help="all classes, separated by commas (default: those of the rows; more may follow)",
    )
    _add_column_options(parser)
    add_reading_options(parser, stored=False)
    _add_model_options(parser)
    parser.add_argument(
        "--map",
        type=str,
        help="a state whose map, classes and options are taken, and no row: states learned under one map can be merged",
    )
    parser.add_argument(
        "--map-only", action="store_true", help="take the map from a sample of the files, and learn no row"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing state")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    add_examples(
        parser,
        [
            "gradatim fit train.csv --target y --state task.safetensors",
            "gradatim fit train.csv --target price --drop row,note --text zip --state price.safetensors",
            "gradatim fit 'days/*.csv' --target y --id customer --weight count --state task.safetensors",
            "gradatim fit sales.csv --delimiter ';' --decimal , --missing '-,n.a.' --target y --state s.safetensors",
            "zcat rows.csv.gz | gradatim fit - --target y --state task.safetensors",
            "gradatim fit 'days/*.csv' --target y --map-only --state base.safetensors",
            "gradatim fit days/monday.csv --map base.safetensors --state monday.safetensors",
            "gradatim fit stream.csv --target y --memory adaptive --state task.safetensors",
            "gradatim fit sales.csv --target y --group store --state s.safetensors",
        ],
    )


def _add_column_options(parser: ArgumentParser) -> None:
    """Add the options that say what columns are."""
    for name, text in (
        ("columns", "columns to learn from, separated by commas (default: all)"),
        ("drop", "columns to leave out, separated by commas, such as a row number"),
        ("text", "columns of numbers or dates to read as words, such as a zip code"),
    ):
        parser.add_argument(f"--{name}", type=str, action="append", help=text)
    for name, text in (
        ("id", "a column that names each row: not learned, but written beside each prediction"),
        ("weight", "a column of row weights of at least 0: a row of weight 2 counts as two"),
        (
            "group",
            "a column that names shops, patients or machines: a new one begins at what all of them share",
        ),
        (
            "class-weight",
            "what a row of each class counts: LABEL:NUMBER,..., or balanced: classes count alike",
        ),
    ):
        parser.add_argument(f"--{name}", type=str, help=text)


def _add_model_options(parser: ArgumentParser) -> None:
    """Add the options of a new estimator."""
    parser.add_argument("--batch-size", type=int, default=32, help="rows per mini-batch")
    parser.add_argument(
        "--memory",
        type=str,
        default="all",
        help="all: every row counts alike; adaptive: answers follow a stream that changes; or a number of rows",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random features")


def update_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `update`."""
    _add_learning_options(parser)
    add_examples(
        parser,
        [
            "gradatim update more.parquet --state task.safetensors",
            "gradatim update monday.csv tuesday.csv --state task.safetensors --out newer.safetensors",
        ],
    )


def remap_options(parser: ArgumentParser, arguments: list[str]) -> None:
    """Add the options of `remap`."""
    _add_learning_options(parser)
    add_examples(parser, ["gradatim remap recent.csv --state task.safetensors"])


def _add_learning_options(parser: ArgumentParser) -> None:
    parser.add_argument("files", type=str, nargs="+", help=f"{FILES_HELP}; with the columns of the state")
    parser.add_argument(
        "--state", type=str, required=True, help="a state that gradatim fit wrote; saved at the end"
    )
    parser.add_argument("--out", type=str, help="save to another file and leave the state as it is")
    parser.add_argument("--weight", type=str, help="a column of row weights (default: as in fit)")
    parser.add_argument(
        "--drop", type=str, action="append", help="columns of the files that the state does not know"
    )
    add_reading_options(parser, stored=True)
    parser.add_argument("--force", action="store_true", help="overwrite an existing file at --out")
    parser.add_argument("--quiet", action="store_true", help="show no progress")


def fit(options: Namespace, console: Console) -> None:
    """Fit an estimator to files and save its state.

    Raises:
        ValueError: invalid options, files that cannot be learned, or a state that would be overwritten.
    """
    _check_numbers(options)
    if options.map is not None and is_grouped(Path(options.map)):
        fit_groups_under_map(options, console)
        return
    if options.group is not None:
        fit_groups(options, console)
        return
    if options.map is not None:
        fit_under_map(options, console)
        return
    state = Path(options.state)
    check_output(state, "--state", options.files)
    reading = reading_options(options)
    with interruptible(state), lock_state(state, console):
        check_free(state, options.force)
        text = [*split_names(options.text), *(options.text or ())]
        table_file = open_files(options.files, reading, text=tuple(text))
        choice = _choice(options, table_file.names)
        stored = {name: reading[name] for name in STORED_OPTIONS if name in reading}
        schema = Schema.infer(table_file, choice, stored)
        labels = schema.labels()
        named = _named_classes(options.classes, schema, labels)
        sample = learnable_sample(table_file, schema)
        classes = None
        if schema.task == CLASSIFICATION:
            classes = np.unique(sample[1]) if named is None else np.union1d(named, sample[1])
            check_class_count(len(classes), schema.target, schema.target_cells, table_file.path)
        say(console, _describe_task(schema, table_file, classes, options.task, named is not None))
        say_notes(console, table_file.notes)
        weights = class_weights(options.class_weight, table_file, schema)
        say_notes(console, [*notes_of_empty(schema), *notes_of_weights(weights, classes)])
        model = _new_model(schema, options, weights)
        if table_file.rereadable or options.map_only:
            prepare(model, sample, table_file.path, schema.weight is not None, classes)
        if options.map_only:
            save(model, state, schema, labels)
            say(console, f"a map of {count(len(schema.columns), 'column', 'columns')}; no row was learned")
            print_written(console, [state])
            return
        started = time.perf_counter()
        with Bar(not options.quiet, f"learning {table_file.path.name}") as bar:
            first = None if table_file.rereadable or named is None else classes
            report = fit_stream(model, table_file, schema, labels, 0, bar, first)
        if table_file.rereadable:
            reweigh(model, sample, schema.weight is not None)
        save(model, state, schema, labels)
        report_rows(console, report, time.perf_counter() - started, schema, model)
        say_notes(console, [*table_file.notes_after(), *notes_of_rows(report, labels, options.state)])
        print_written(console, [state])


def _choice(options: Namespace, names: Sequence[str]) -> Choice:
    """Return what the options say of the columns with these names."""
    lists = {name: tuple(column_names(options[name], names)) for name in ("columns", "drop", "text")}
    target, row_id, weight = (column_name(options[name], names) for name in ("target", "id", "weight"))
    return Choice(target or "", options.task, id=row_id, weight=weight, **lists)


def update(options: Namespace, console: Console) -> None:
    """Learn more files and save the state; the previous state stays on disk until the end.

    Raises:
        ValueError: the state cannot be read, the files have other columns, or the state has changed in the meantime.
    """
    if is_grouped(Path(options.state)):
        update_groups(options, console)
        return
    _learn_more(options, console, with_new_map=False)


def remap(options: Namespace, console: Console) -> None:
    """Make a new map of the columns for rows like those of files, learn these files, and save the state.

    Raises:
        ValueError: as `update`.
    """
    _learn_more(options, console, with_new_map=True)


def _learn_more(options: Namespace, console: Console, with_new_map: bool) -> None:
    """Learn files into a state, with a map made anew for their rows or as it is."""
    state = Path(options.state)
    out = state if options.out is None else Path(options.out)
    is_new = not is_any_of(out, [options.state])
    check_output(out, "--out" if is_new else "--state", options.files)
    explicit = reading_options(options)
    with interruptible(out), lock_state(out, console):
        if is_new:
            check_free(out, options.force)
        version = file_version(state)
        model, schema, rows_before = load_estimator(state)
        if options.weight is not None:
            schema = schema.with_weight(options.weight)
        sampled = with_new_map or bool(schema.empty)
        table_file = open_known(options.files, schema, explicit, sampled=sampled)
        checked = schema.with_dropped(column_names(options.drop, table_file.names), table_file)
        note = checked.check_columns(table_file, state, learn=True)
        filled, notes = checked.with_filled(table_file)
        schema = replace(filled, dropped=schema.dropped)
        say_notes(console, [*table_file.notes, note, *notes])
        labels = schema.labels()
        started = time.perf_counter()
        learned = learnable_sample(table_file, schema) if with_new_map else None
        if learned is not None:
            _remap(model, learned, schema, table_file)
        with Bar(not options.quiet, f"learning {table_file.path.name}") as bar:
            report = fit_stream(model, table_file, schema, labels, rows_before, bar, learned=learned)
        if file_version(state) != version:
            raise ValueError(
                f"{state} was changed by another process in the meantime: nothing was saved; update again"
            )
        save(model, out, schema, labels)
        report_rows(console, report, time.perf_counter() - started, schema, model)
        say_notes(
            console,
            [
                *table_file.notes_after(),
                *notes_of_rows(report, labels, None if with_new_map else options.state),
            ],
        )
        print_written(console, [out])


def _check_numbers(options: Namespace) -> None:
    """Raise ValueError for options of `fit` that no fit can have."""
    if options.map is None and options.target is None:
        raise ValueError("Key(s) are required: --target (or a state at --map): see gradatim fit --help")
    if options.map is not None and options.map_only:
        raise ValueError("--map takes the map of a state, --map-only makes one: leave one of them out")
    if options.task not in TASKS:
        raise ValueError(f"--task must be one of {', '.join(TASKS)}; got {options.task!r}")
    for name, minimum in (("batch_size", 1), ("seed", 0)):
        if options[name] < minimum:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {minimum}; got {options[name]}")
    if options.seed >= 2**32:
        raise ValueError(f"--seed must be below 2**32; got {options.seed}")
    _memory(options.memory)


def _memory(text: str) -> str | int:
    """Return the memory that the option says."""
    if text == "all":
        return text
    from ..memory import read_memory

    try:
        return read_memory(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def _new_model(schema: Schema, options: Namespace, weights: dict[Any, float] | None) -> Any:
    """Return a new estimator for the task."""
    from ..estimators import RefinedClassifier, RefinedRegressor

    settings = {
        "batch_size": options.batch_size,
        "random_state": options.seed,
        "memory": _memory(options.memory),
    }
    if schema.task == CLASSIFICATION:
        return RefinedClassifier(**settings, class_weight=weights)
    return RefinedRegressor(**settings)


def _named_classes(text: str | None, schema: Schema, labels: Labels) -> np.ndarray | None:
    """Return the classes `[classes]` that the option `--classes` names."""
    if text is None:
        return None
    if schema.task != CLASSIFICATION:
        raise ValueError(
            f"--classes {text}: {schema.target!r} is a number, which has no classes: leave --classes out"
        )
    return labels.from_words(split_names(text))


def _remap(
    model: Any, sample: tuple[Any, np.ndarray, np.ndarray], schema: Schema, table_file: TableFile
) -> None:
    """Learn a sample, with a map made for it to which what was learned before is carried over."""
    X, y, weight = sample
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that they have left the range is why they are here
            model.remap(X, y, **row_weights(schema, weight))
    except ValueError as error:
        raise ValueError(f"{table_file.path}: {error}") from error


def _describe_task(
    schema: Schema, table_file: TableFile, classes: np.ndarray | None, task: str, is_named: bool
) -> str:
    """Return the task that was chosen for a target, and how to choose the other one."""
    target = schema.target
    if classes is not None:
        where = " in the first rows" if not table_file.rereadable else ""
        hint = " (use --task regression if it is a number)"
        if task != "auto" or schema.target_cells.kind != NUMBER:
            hint = ""
        named = " from --classes" if is_named else where
        return f"classification: {target!r} has {count(len(classes), 'class', 'classes')}{named}{hint}"
    hint = ""
    values = table_file.sample[target].drop_null().cast("float64").to_numpy()
    n_distinct = len(np.unique(values))
    is_whole = bool((values == np.round(values)).all())
    if task == "auto" and n_distinct <= MAX_CLASSES and (is_whole or 2 * n_distinct <= len(values)):
        option = "--task classification" if is_whole else f"--text {as_item(target)}"
        hint = f" (use {option} if its values are classes)"
    return f"regression: {target!r} is a number{hint}"
