"""Fit an estimator to a file of any length, mini-batch by mini-batch, or predict its rows.

Source: Dawid 1984 (prequential evaluation: every row is predicted before it is learned).
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import Cells
from .reading import arrow
from .schema import CLASSIFICATION, MAX_CLASSES, REGRESSION

if TYPE_CHECKING:
    from typing import Self

    from .progress import Bar
    from .reading import Table, TableFile
    from .schema import Schema

CHUNK_ROWS = 1024
"""Most rows that are predicted at once before they are learned; at first an eighth of the rows learned so far."""

PREDICT_ROWS = 2048
"""Rows that are predicted at once."""


@dataclass
class StreamReport:
    """What happened while an estimator was fitted to a file.

    Fields: `task`: "classification" or "regression"; `rows`: rows learned; `skipped`: rows without a target; `scored`:
    rows predicted before they were learned; `total_loss`: of those, the number of wrong classes, or the sum of squared
    errors; `notes`: warnings for the user.

    Example:
        >>> from gradatim.files.streaming import StreamReport
        >>> StreamReport("classification", rows=120, scored=100, total_loss=25).metric
        'accuracy 0.7500'
    """

    task: str
    rows: int = 0
    skipped: int = 0
    scored: int = 0
    total_loss: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        """Return the prequential accuracy, or root mean squared error, as text; empty if no row was scored."""
        if not self.scored:
            return ""
        if self.task == CLASSIFICATION:
            return f"accuracy {1 - self.total_loss / self.scored:.4f}"
        return f"RMSE {np.sqrt(self.total_loss / self.scored):.4g}"


def fit_stream(
    model: Any,
    table_file: TableFile,
    schema: Schema,
    kinds: dict[str, str],
    rows_before: float,
    bar: Bar,
    classes: Any = None,
) -> StreamReport:
    """Fit an estimator to a file in one pass; each chunk is predicted before it is learned.

    Chunks consist of complete mini-batches, so the result is that of one `partial_fit` on the whole file.

    Args:
        model: an estimator with `predict_then_learn` and `batch_size`.
        table_file, schema, kinds: the opened table, its columns, and the kinds of those to read.
        rows_before: rows learned before.
        bar: the progress bar to update.
        classes: class labels `[classes]` for the first call.

    Raises:
        ValueError: the file turns out to be invalid; the message names it. Earlier rows are in `model`.
    """
    report = StreamReport(schema.task)
    fitted = rows_before > 0
    first_call = {} if classes is None else {"classes": classes}
    share = [0.0]

    def labelled_tables() -> Iterator[tuple[Table, np.ndarray]]:
        for table, share[0] in table_file.stream(_cells(table_file, kinds)):
            y, present = schema.target_values(table, table_file.path)
            report.skipped += int((~present).sum())
            yield table.select(list(schema.columns)).filter(arrow().array(present)), y[present]

    def chunk_size() -> int:
        batches = int(rows_before + report.rows) // (8 * model.batch_size)
        return model.batch_size * min(max(1, batches), max(1, CHUNK_ROWS // model.batch_size))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for X, y in chunks(labelled_tables(), chunk_size):
            try:
                prediction = model.predict_then_learn(X, y, **({} if fitted else first_call))
                if fitted:
                    _score(report, prediction, y)
            except ValueError as error:
                rows = f"rows {report.rows + 1:,} to {report.rows + len(y):,}"
                raise ValueError(f"{table_file.path}, {rows}: {error}") from error
            fitted, report.rows = True, report.rows + len(y)
            check_class_count(getattr(model, "classes_", ()), schema, table_file.path)
            bar.update(share[0], ", ".join(filter(None, [f"{report.rows:,} rows", report.metric])))
    if not report.rows:
        raise ValueError(
            f"{table_file.path}: the target {schema.target!r} is missing in every row: nothing was learned"
        )
    report.notes += dict.fromkeys(str(warning.message) for warning in caught)
    return report


def _cells(table_file: TableFile, kinds: dict[str, str]) -> dict[str, Cells]:
    """Return how columns of these kinds are read, as the file itself suggests where it is of the same kind."""
    cells = {name: table_file.cells[name] for name in kinds}
    return {
        name: old if (old := cells[name]) and old.kind == kind else Cells(kind)
        for name, kind in kinds.items()
    }


def chunks(
    tables: Iterable[tuple[Table, np.ndarray]], size: Callable[[], int]
) -> Iterator[tuple[Table, np.ndarray]]:
    """Yield rows in order, in chunks of tables `[n, columns]` and targets `[n]`.

    `size()` is called at the start of each chunk and returns its number of rows; the last chunk may be shorter.

    Example:
        >>> import numpy as np
        >>> import pyarrow
        >>> from gradatim.files.streaming import chunks
        >>> tables = [(pyarrow.table({"a": [1, 2, 3]}), np.zeros(3)) for _ in range(2)]
        >>> [len(y) for _, y in chunks(tables, lambda: 4)]
        [4, 2]
    """
    buffer: list[tuple[Table, np.ndarray]] = []
    rows, n_rows = 0, size()
    for table, y in tables:
        buffer.append((table, y))
        rows += len(y)
        while rows >= n_rows:
            X, y = _concat(buffer)
            yield X.slice(0, n_rows), y[:n_rows]
            buffer, rows = [(X.slice(n_rows), y[n_rows:])], rows - n_rows
            n_rows = size()
    if rows:
        yield _concat(buffer)


def _concat(parts: Sequence[tuple[Table, np.ndarray]]) -> tuple[Table, np.ndarray]:
    tables, labels = zip(*parts, strict=True)
    return arrow().concat_tables(tables), np.concatenate(labels)


def _score(report: StreamReport, prediction: np.ndarray, y: np.ndarray) -> None:
    """Add the loss of predictions `[n]` to a report."""
    report.scored += len(y)
    report.total_loss += float(
        (prediction != y).sum() if report.task == CLASSIFICATION else np.square(prediction - y).sum()
    )


def check_class_count(classes: Any, schema: Schema, path: Path) -> None:
    """Raise ValueError if a target has too many classes.

    Raises:
        ValueError: more than `MAX_CLASSES` classes.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.schema import Schema
        >>> from gradatim.files.streaming import check_class_count
        >>> schema = Schema("number", "classification", "number", {"age": "number"})
        >>> check_class_count(range(2000), schema, Path("train.csv"))
        Traceback (most recent call last):
        ValueError: train.csv: the target 'number' has more than 1,000 classes, the last 1999: ...
    """
    if len(classes) > MAX_CLASSES:
        raise ValueError(
            f"{path}: the target {schema.target!r} has more than {MAX_CLASSES:,} classes, the last {classes[-1]!r}: "
            f"choose another --target, or --task {REGRESSION} if it is a number"
        )


def predict_stream(
    model: Any,
    table_file: TableFile,
    schema: Schema,
    kinds: dict[str, str],
    probabilities: bool,
    levels: Sequence[float],
) -> Iterator[tuple[Table, float]]:
    """Yield the predictions for a file as tables, each with the share of the file that has been read.

    The columns are:

    - `prediction`;
    - `proba_CLASS` for each class, if `probabilities` is true;
    - `quantile_LEVEL` for each of `levels`.

    Raises:
        ValueError: the file turns out to be invalid; the message names it.

    Example:
        >>> from pathlib import Path
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.files.reading import open_table
        >>> from gradatim.files.schema import Schema
        >>> from gradatim.files.streaming import predict_stream
        >>> _ = Path("line.csv").write_text("x,y\\n1.5,2.5\\n2.5,3.5\\n3.5,4.5\\n")
        >>> table_file = open_table("line.csv")
        >>> schema = Schema.infer(table_file, target="y", task="regression")
        >>> model = RefinedRegressor().fit(table_file.sample.select(["x"]), [2.5, 3.5, 4.5])
        >>> for table, share in predict_stream(model, table_file, schema, schema.columns, False, [0.1, 0.9]):
        ...     print(table.column_names, table.num_rows, share)
        ['prediction', 'quantile_0.1', 'quantile_0.9'] 3 1.0
    """
    share, rows = [0.0], 0

    def tables() -> Iterator[tuple[Table, np.ndarray]]:
        for table, share[0] in table_file.stream(_cells(table_file, kinds)):
            yield table, np.zeros(table.num_rows)

    for X, _ in chunks(tables(), lambda: PREDICT_ROWS):
        try:
            if schema.task == REGRESSION:
                columns = {"prediction": model.predict(X)}
                if levels:
                    outputs = model.predict(X, quantiles=levels)
                    columns |= {f"quantile_{level:g}": outputs[:, j] for j, level in enumerate(levels)}
            else:
                outputs = model.predict_proba(X)
                columns = {"prediction": model.classes_[outputs.argmax(1)]}
                if probabilities:
                    columns |= {f"proba_{label}": outputs[:, j] for j, label in enumerate(model.classes_)}
        except ValueError as error:
            raise ValueError(f"{table_file.path}, rows {rows + 1:,} to {rows + len(X):,}: {error}") from error
        rows += len(X)
        yield arrow().table(columns), share[0]


class TableWriter:
    """Write tables to one CSV or Parquet file, chosen by its suffix. The file appears at its path when it is complete.

    Raises:
        ValueError: the file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> import pyarrow
        >>> from gradatim.files.streaming import TableWriter
        >>> with TableWriter(Path("predictions.csv")) as file:
        ...     file.write(pyarrow.table({"prediction": [0, 1]}))
        >>> Path("predictions.csv").read_text().split()
        ['prediction', '0', '1']
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._temporary = self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")
        self._writer: Any = None

    def __enter__(self) -> Self:
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("wb")
        except OSError as error:
            raise ValueError(
                f"{self.path} cannot be written ({error.strerror}): choose another path"
            ) from error
        return self

    def write(self, table: Table) -> None:
        """Write more rows."""
        arrow()
        from pyarrow import csv as arrow_csv
        from pyarrow import parquet

        if self._writer is None and self.path.suffix == ".parquet":
            self._writer = parquet.ParquetWriter(self._file, table.schema)
        elif self._writer is None:
            names = io.StringIO()
            csv.writer(names, lineterminator="\n").writerow(table.column_names)
            self._file.write(names.getvalue().encode())
            plain = arrow_csv.WriteOptions(include_header=False)
            self._writer = arrow_csv.CSVWriter(self._file, table.schema, write_options=plain)
        self._writer.write_table(table)

    def __exit__(self, kind: Any, *error: object) -> None:
        try:
            if kind is None:
                self._writer.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                os.replace(self._temporary, self._target)
        except OSError as failure:
            raise ValueError(
                f"{self.path} could not be written ({failure.strerror or failure}): make room or choose another "
                "folder"
            ) from failure
        finally:
            self._file.close()
            with suppress(OSError):  # it has been renamed
                self._temporary.unlink()
