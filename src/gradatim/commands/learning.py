"""What commands that learn share: locks, samples, states that are saved, and what is said of the rows learnt.

Source: Dawid 1984 (prequential evaluation: every row is predicted before it is learned).
"""

from __future__ import annotations

from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files.cells import KIND_NAMES
from ..files.lock import locked
from ..files.schema import NAMED
from ..files.streaming import TargetReader
from ..files.target import CLASSIFICATION, sound_rows
from ..names import as_item
from .tables import LOCK_SECONDS, count, count_rows, say, split_names

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rich.console import Console

    from ..files.reading import TableFile
    from ..files.schema import Schema
    from ..files.streaming import StreamReport
    from ..files.target import Labels


def check_free(path: Path, force: bool) -> None:
    """Raise ValueError if a file would be overwritten that the user has not given up."""
    if path.exists() and not force:
        raise ValueError(
            f"{path} already exists: learn more rows with gradatim update, or overwrite it with --force"
        )


def lock_state(path: Path, console: Console) -> AbstractContextManager[None]:
    """Return the lock of a state, which another process may hold for a while."""
    return locked(path, LOCK_SECONDS, lambda sentence: say(console, sentence))


def learnable_sample(table_file: TableFile, schema: Schema) -> tuple[Any, np.ndarray, np.ndarray]:
    """Return the features, targets `[n]` and weights `[n]` of the rows of a sample that can be learned."""
    table, target = table_file.sample, schema.target
    y = None if schema.task == CLASSIFICATION else table[target].cast("float64").to_numpy()
    if y is None:  # numbers become text, as they are read in the stream
        table = table.set_column(table.column_names.index(target), target, table[target].cast("string"))
    weight = None if schema.weight is None else table[schema.weight].to_numpy()
    table = table.filter(sound_rows(y, weight, table.num_rows))
    X, y, weight, present = TargetReader(schema, schema.labels(), table_file.path).read(table)
    chosen = present & (weight > 0)
    if not chosen.any():
        if table.num_rows < table_file.sample.num_rows:  # the stream names the line of what is wrong
            reader = TargetReader(schema, schema.labels(), table_file.path, table_file.place)
            for part, _ in table_file.stream(schema.cells_to_read(learn=True)):
                reader.read(part)
        cause = "its weight is 0" if present.any() else f"the target {target!r} is missing"
        where = "every row" if table_file.rereadable else f"the first {len(chosen):,} rows"
        raise ValueError(f"{table_file.path}: {cause} in {where}: nothing can be learned")
    return X.filter(chosen), y[chosen], weight[chosen]


def class_weights(text: str | None, table_file: TableFile, schema: Schema) -> dict[Any, float] | None:
    """Return the weight of each class that an option says: "balanced", or labels with a number each.

    Args:
        text: the option; "balanced" counts the rows of each class in the files.
        table_file, schema: the opened table and its columns.

    Raises:
        ValueError: a target without classes, words that are no labels with numbers, or a stream that is read once.
    """
    from ..preprocessing.class_weights import BALANCED, ClassWeights

    if text is None:
        return None
    if schema.task != CLASSIFICATION:
        raise ValueError(
            f"--class-weight {text}: {schema.target!r} is a number, which has no classes: leave --class-weight out"
        )
    if text == BALANCED:
        return _count_classes(table_file, schema).as_dict()
    weights, labels = dict[Any, float](), schema.labels()
    for item in split_names(text):
        word, _, number = item.rpartition(":")
        try:
            weight = float(number)
        except ValueError:
            raise ValueError(f"--class-weight needs balanced, or LABEL:NUMBER,...; got {item!r}") from None
        (label,) = labels.from_words([word], "--class-weight").tolist()
        if label in weights:
            raise ValueError(f"--class-weight {text} names {word!r} twice: name it once")
        weights[label] = weight
    try:
        return ClassWeights.read(weights).as_dict()
    except ValueError as error:
        raise ValueError(f"--class-weight {text}: {error}") from error


def _count_classes(table_file: TableFile, schema: Schema) -> Any:
    """Return the weights that balance the classes of all rows of a file."""
    from ..preprocessing.class_weights import ClassWeights

    if not table_file.rereadable:
        raise ValueError(
            "--class-weight balanced counts the classes first, and standard input and pipes are read once: give the "
            "weights, such as yes:3,no:1"
        )
    cells = schema.known_cells()
    chosen = {name: cells[name] for name in (schema.target, schema.weight) if name is not None}
    reader = TargetReader(schema, schema.labels(), table_file.path, table_file.place)
    sums: dict[Any, float] = {}
    for table, _ in table_file.stream(chosen):
        y, weight, present = reader.read_targets(table)
        labels, codes = np.unique(y[present & (weight > 0)], return_inverse=True)
        for label, weights in zip(
            labels.tolist(), np.bincount(codes, weight[present & (weight > 0)]), strict=True
        ):
            sums[label] = sums.get(label, 0.0) + float(weights)
    return ClassWeights.of_sums(np.array([*sums], dtype=object), np.array([*sums.values()]))


def row_weights(schema: Schema, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Return what an estimator is told of the weights `[n]` of rows, where files have a column of them."""
    return {} if schema.weight is None else {"sample_weight": weight}


def save(model: Any, path: Path, schema: Schema, labels: Labels) -> None:
    """Save an estimator with the schema of its files."""
    model.save(path, {"table": replace(schema, spelling=labels.spelling).to_json()})


def report_rows(console: Console, report: StreamReport, seconds: float, schema: Schema, model: Any) -> None:
    """Print what was learned."""
    classes = f" of {count(len(model.classes_), 'class', 'classes')}" if schema.task == CLASSIFICATION else ""
    skipped = f"; {count_rows(report.skipped)} without {schema.target!r} skipped" if report.skipped else ""
    if report.unweighted:
        skipped += f"; {count_rows(report.unweighted)} of weight 0 skipped"
    say(console, f"{count_rows(report.rows)}{classes} learned in {seconds:.1f} s{skipped}")
    if report.scored:
        say(
            console,
            f"prequential {report.metric}: {count_rows(report.scored)}, each predicted before it was learned",
        )


def notes_of_rows(report: StreamReport, labels: Labels, state: str | None) -> list[str]:
    """Return notes of what came up while rows were learned, and of a state that can have a new map, how."""
    from ..preprocessing.drift import DriftWarning

    notes = []
    for word, number in labels.odd.items():
        kind = KIND_NAMES[labels.cells.kind]
        notes.append(
            f"{labels.target!r} holds {word!r} in {count_rows(number)}, among {kind}: these rows are skipped; "
            f"fit --text {as_item(labels.target)} takes every value as a word"
        )
    for category, message in report.warnings:
        if issubclass(category, DriftWarning):
            remap = f"gradatim remap FILE --state {quote(state or '')} in place of update makes a new map"
            notes.append(message.partition(". Call remap")[0] + (f"; {remap} for such rows" if state else ""))
        elif category.__module__.startswith("gradatim"):
            notes.append(message)
    return list(dict.fromkeys(notes))


def notes_of_empty(schema: Schema) -> list[str]:
    """Return a note of columns in which nothing stands."""
    if not schema.empty:
        return []
    listed = ", ".join(map(repr, schema.empty[:NAMED])) + (", ..." if len(schema.empty) > NAMED else "")
    until = "until gradatim update learns rows in which numbers or dates stand there"
    if len(schema.empty) == 1:
        return [f"column {listed} is empty: it counts as missing {until}"]
    return [f"{len(schema.empty)} columns are empty: {listed}; they count as missing {until}"]


def notes_of_weights(weights: Mapping[Any, float] | None, classes: Any) -> list[str]:
    """Return a note of labels with a weight of their own that are no class so far."""
    odd = [] if weights is None else sorted(set(weights) - set(classes.tolist()), key=str)
    if not odd:
        return []
    return [f"--class-weight names {', '.join(map(repr, odd[:NAMED]))}, of which no row was seen so far"]
