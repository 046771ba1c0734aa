"""Fit an estimator to a file of any length, mini-batch by mini-batch.

Source: Dawid 1984 (prequential evaluation: every row is predicted before it is learned).
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import KIND_NAMES, arrow
from .reading import NoRowsError
from .sampling import hash_columns
from .target import CLASSIFICATION, REGRESSION, check_class_count, check_target, check_weights

if TYPE_CHECKING:
    from pathlib import Path

    from .progress import Bar
    from .reading import Table, TableFile
    from .schema import Schema
    from .target import Labels

    Rows = tuple[Table, np.ndarray, np.ndarray]

CHUNK_ROWS = 1024
"""Most rows that are predicted at once before they are learned; at first an eighth of the rows learned so far."""

WEIGHED_ROWS = 2048
"""Rows at most that weigh the experts at the end."""


@dataclass
class StreamReport:
    """What happened while an estimator was fitted to a file.

    Fields: `task`: "classification" or "regression"; `rows`: rows learned; `skipped`: rows without a target;
    `unweighted`: rows of weight 0. `scored`: rows predicted before they were learned; `total_weight`: the sum of their
    weights. `total_loss`: the weight of those in a wrong class, or the weighted sum of squared errors. `warnings`: the
    category and the text of each warning.

    Example:
        >>> from gradatim.files.streaming import StreamReport
        >>> StreamReport("classification", rows=120, scored=100, total_weight=100, total_loss=25).metric
        'accuracy 0.7500'
    """

    task: str
    rows: int = 0
    skipped: int = 0
    unweighted: int = 0
    scored: int = 0
    total_weight: float = 0.0
    total_loss: float = 0.0
    warnings: list[tuple[type[Warning], str]] = field(default_factory=list)

    @property
    def metric(self) -> str:
        """Return the prequential accuracy, or root mean squared error, as text; empty if no row was scored."""
        if not self.scored:
            return ""
        mean = self.total_loss / self.total_weight
        return f"accuracy {1 - mean:.4f}" if self.task == CLASSIFICATION else f"RMSE {np.sqrt(mean):.4g}"

    def add(self, prediction: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
        """Add the loss of predictions `[n]` of y `[n]`, in rows of these weights `[n]`."""
        losses = prediction != y if self.task == CLASSIFICATION else np.square(prediction - y)
        self.scored += len(y)
        self.total_weight += float(weight.sum())
        self.total_loss += float((weight * losses).sum())


class TargetReader:
    """Read features, targets and row weights from tables of a file.

    Args:
        schema: the columns.
        labels: the classes, which gather spellings.
        path: the file, for messages.
        place: returns where row `i` stands.

    Attributes: `n_read`: rows so far.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import NUMBER, Cells
        >>> from gradatim.files.schema import Schema
        >>> from gradatim.files.streaming import TargetReader
        >>> schema = Schema("y", "regression", Cells(NUMBER), {"x": Cells(NUMBER)})
        >>> table = pyarrow.table({"x": [1.0, 2.0], "y": [0.5, None]})
        >>> X, y, weight, present = TargetReader(schema, schema.labels(), "train.csv").read(table)
        >>> X.num_rows, y, present
        (2, array([0.5, 0. ]), array([ True, False]))
    """

    def __init__(
        self, schema: Schema, labels: Labels, path: Path | str, place: Callable[[int], str] = str
    ) -> None:
        self.schema, self.labels, self.path, self.place, self.n_read = schema, labels, path, place, 0

    def read(self, table: Table) -> tuple[Table, np.ndarray, np.ndarray, np.ndarray]:
        """Return the features, and the targets, weights and truth values `[rows]` of `read_targets`.

        Raises:
            ValueError: as `read_targets`.
        """
        return self.schema.features(table), *self.read_targets(table)

    def read_targets(self, table: Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the target `[rows]` with a filler where it is missing, the weights `[rows]`, and a boolean array
        `[rows]` of the targets that are there.

        Raises:
            ValueError: a target that is too large or no class, a weight that is missing, negative, or too large or
                small. The message names the line.
        """
        column = table[self.schema.target]
        try:
            if self.schema.task == CLASSIFICATION:
                y, present = self.labels.read(column)
            else:
                y, present = column.cast("float64").to_numpy(), np.ones(len(column), dtype=bool)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error
        if self.schema.task == REGRESSION:
            present = check_target(y, self.schema.target, self._where)
            y = np.where(present, y, 0.0)
        weight = self._weights(table)
        self.n_read += table.num_rows
        return y, weight, present

    def learnable(
        self, tables: Iterable[Table], report: StreamReport, learned: Rows | None = None
    ) -> Iterator[Rows]:
        """Yield the rows that have a target and a weight above 0, and count the others.

        `learned`: features, targets `[n]` and weights `[n]` of rows among them that are left out, each as often as it
        stands there.
        """
        absent = Counter[int]() if learned is None else Counter(_hashes(learned).tolist())
        for table in tables:
            X, y, weight, present = self.read(table)
            report.skipped += int((~present).sum())
            report.unweighted += int((present & (weight == 0)).sum())
            chosen = present & (weight > 0)
            rows = X.filter(arrow().array(chosen)), y[chosen], weight[chosen]
            yield _without(rows, absent) if absent else rows

    def _where(self, row: int) -> str:
        """Return the file and the place of a row of the table that is being read."""
        return f"{self.path}, {self.place(self.n_read + row)}"

    def _weights(self, table: Table) -> np.ndarray:
        """Return the row weights `[rows]`."""
        name = self.schema.weight
        if name is None:
            return np.ones(table.num_rows)
        weight = table[name].to_numpy()
        check_weights(weight, name, self._where)
        return weight


def prepare(model: Any, rows: Rows, path: Path | str, weighted: bool, classes: Any = None) -> None:
    """Let an estimator fix its map from a sample of the rows to come.

    Args:
        model: an estimator with `prepare`.
        rows: features, targets `[n]` and weights `[n]`.
        path: the file, for messages.
        weighted: whether the weights differ.
        classes: class labels `[classes]`, of a classification.

    Raises:
        ValueError: the table is too large for this estimator, or invalid; the message names the file.
    """
    X, y, weight = rows
    more = {"sample_weight": weight} if weighted else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few rows for many classes: said of the whole
            model.prepare(X, y, **more, **({} if classes is None else {"classes": classes}))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def reweigh(model: Any, rows: Rows, weighted: bool) -> None:
    """Weigh the experts of an estimator by a sample of the rows learned, so that their order does not matter.

    Args:
        model: an estimator with `reweigh`.
        rows: features, targets `[n]` and weights `[n]`, in an order that says nothing; the first `WEIGHED_ROWS` count.
        weighted: whether the weights differ.
    """
    X, y, weight = (part[:WEIGHED_ROWS] for part in rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model.reweigh(X, y, **({"sample_weight": weight} if weighted else {}))


def fit_stream(
    model: Any,
    table_file: TableFile,
    schema: Schema,
    labels: Labels,
    rows_before: float,
    bar: Bar,
    classes: Any = None,
    learned: Rows | None = None,
) -> StreamReport:
    """Fit an estimator to a file in one pass; each chunk is predicted before it is learned.

    Chunks are complete mini-batches, so the result is that of one `partial_fit`.

    Args:
        model: an estimator with `predict_then_learn` and `batch_size`.
        table_file, schema: the opened table and its columns.
        labels: the classes, which gather spellings.
        rows_before, bar: rows learned before, and the progress bar to update.
        classes: class labels `[classes]` for the first call.
        learned: features, targets `[n]` and weights `[n]` of rows of the file that are learned already.

    Raises:
        ValueError: the file turns out to be invalid; the message names it. Earlier rows are in `model`.
    """
    report = StreamReport(schema.task, rows=0 if learned is None else len(learned[1]))
    reader = TargetReader(schema, labels, table_file.path, table_file.place)
    fitted, share = rows_before > 0, [0.0]

    def tables() -> Iterator[Table]:
        for table, share[0] in table_file.stream(schema.cells_to_read(learn=True)):
            yield table

    def chunk_size() -> int:
        batches = int(rows_before + report.rows) // (8 * model.batch_size)
        return model.batch_size * min(max(1, batches), max(1, CHUNK_ROWS // model.batch_size))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for X, y, weight in chunks(reader.learnable(tables(), report, learned), chunk_size):
            more = {} if schema.weight is None else {"sample_weight": weight}
            if classes is not None and not report.rows:
                more["classes"] = classes
            try:
                prediction = model.predict_then_learn(X, y, **more)
            except ValueError as error:
                place = f"rows {report.rows + 1:,} to {report.rows + len(y):,}"
                raise ValueError(f"{table_file.path}, {place}: {error}") from error
            if fitted:
                report.add(prediction, y, weight)
            fitted, report.rows = True, report.rows + len(y)
            if schema.task == CLASSIFICATION:
                check_class_count(len(model.classes_), schema.target, schema.target_cells, table_file.path)
            bar.update(share[0], ", ".join(filter(None, [f"{report.rows:,} rows", report.metric])))
    if not report.rows:
        cause = _why_nothing(report, schema, next(iter(labels.odd), None))
        raise NoRowsError(f"{table_file.path}: {cause} in every row: nothing was learned")
    report.warnings += [(warning.category, str(warning.message)) for warning in caught]
    return report


def _why_nothing(report: StreamReport, schema: Schema, odd: str | None) -> str:
    """Return why no row was learned."""
    if report.unweighted:
        return "its weight is 0"
    if odd is None:
        return f"the target {schema.target!r} is missing"
    kind = KIND_NAMES[schema.target_cells.kind]
    return f"the target {schema.target!r} holds {kind} so far; got {odd!r}, and no class"


def _hashes(rows: Rows) -> np.ndarray:
    """Return a hash `[n]` of each row's features, target and weight."""
    X, y, weight = rows
    return hash_columns(
        [*(column.combine_chunks() for column in X.columns), arrow().array(y), arrow().array(weight)]
    )


def _without(rows: Rows, absent: Counter[int]) -> Rows:
    """Return rows but for those whose hashes are `absent`, which are then counted down."""
    chosen = np.ones(len(rows[1]), dtype=bool)
    for place, value in enumerate(_hashes(rows).tolist()):
        if absent[value] > 0:
            absent[value] -= 1
            chosen[place] = False
    X, y, weight = rows
    return X.filter(arrow().array(chosen)), y[chosen], weight[chosen]


def chunks(tables: Iterable[Rows], size: Callable[[], int]) -> Iterator[Rows]:
    """Yield rows in order, in chunks of tables `[n, columns]`, targets `[n]` and weights `[n]`.

    `size()` is called at the start of each chunk and returns its number of rows; the last chunk may be shorter.

    Example:
        >>> import numpy as np
        >>> import pyarrow
        >>> from gradatim.files.streaming import chunks
        >>> tables = [(pyarrow.table({"a": [1, 2, 3]}), np.zeros(3), np.ones(3)) for _ in range(2)]
        >>> [len(y) for _, y, _ in chunks(tables, lambda: 4)]
        [4, 2]
    """
    buffer: list[Rows] = []
    n_buffered, n_rows = 0, size()
    for part in tables:
        buffer.append(part)
        n_buffered += len(part[1])
        while n_buffered >= n_rows:
            X, y, weight = _concat(buffer)
            yield X.slice(0, n_rows), y[:n_rows], weight[:n_rows]
            buffer = [(X.slice(n_rows), y[n_rows:], weight[n_rows:])]
            n_buffered -= n_rows
            n_rows = size()
    if n_buffered:
        yield _concat(buffer)


def _concat(parts: Sequence[Rows]) -> Rows:
    tables, targets, weights = zip(*parts, strict=True)
    return arrow().concat_tables(tables), np.concatenate(targets), np.concatenate(weights)
