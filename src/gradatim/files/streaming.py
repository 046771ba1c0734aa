"""Learn a file that need not fit into memory, mini-batch by mini-batch; or answer it, row by row.

Source: Dawid 1984 (every row is predicted before it is learnt).
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

from .reading import arrow
from .schema import CLASSIFICATION, MOST, REGRESSION

if TYPE_CHECKING:
    from typing import Self

    from .progress import Bar
    from .reading import Source, Table
    from .schema import Schema

PIECE = 1024
"""Rows at most that are predicted at once before they are learnt; fewer, an eighth of those known, at first."""

ANSWERED = 2048
"""Rows that are predicted at a time."""


@dataclass
class Told:
    """What was learnt of a file. `rows`; `skipped`: rows without a target; `judged`: rows predicted before learnt.

    `wrong`: of those, the wrong ones, or for a regression the sum of squared errors; `notes`: what is worth saying.
    """

    task: str
    rows: int = 0
    skipped: int = 0
    judged: int = 0
    wrong: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def score(self) -> str:
        """Return the prequential accuracy, or root mean squared error, in words; empty where nothing was judged."""
        if not self.judged:
            return ""
        if self.task == CLASSIFICATION:
            return f"accuracy {1 - self.wrong / self.judged:.4f}"
        return f"RMSE {np.sqrt(self.wrong / self.judged):.4g}"


def learn(
    model: Any,
    source: Source,
    layout: Schema,
    kinds: dict[str, str],
    known: float,
    watch: Bar,
    classes: Any = None,
) -> Told:
    """Let an estimator learn a file in one pass, each piece predicted before it is learnt.

    Pieces are whole mini-batches, so that what is learnt is what one `partial_fit` of the whole file learns.
    `known`: rows learnt before; `classes`: for the first call of `partial_fit`.

    Raises:
        ValueError: a file that turns out to be wrong, whose name is said; rows before that are in `model`.
    """
    told = Told(layout.task)
    begun = known > 0
    first = {} if classes is None else {"classes": classes}
    done = [0.0]

    def labelled() -> Iterator[tuple[Table, np.ndarray]]:
        for table, done[0] in source.stream(kinds):
            y, there = layout.labels(table, source.path)
            told.skipped += int((~there).sum())
            yield table.select(list(layout.columns)).filter(arrow().array(there)), y[there]

    def size() -> int:
        batches = int(known + told.rows) // (8 * model.batch_size)
        return model.batch_size * min(max(1, batches), max(1, PIECE // model.batch_size))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        for X, y in pieces(labelled(), size):
            try:
                if begun:
                    _judge(told, model.predict(X), y)
                model.partial_fit(X, y, **({} if begun else first))
            except ValueError as error:
                rows = f"rows {told.rows + 1:,} to {told.rows + len(y):,}"
                raise ValueError(f"{source.path}, {rows}: {error}") from error
            begun, told.rows = True, told.rows + len(y)
            refuse_many(getattr(model, "classes_", ()), layout, source.path)
            watch.at(done[0], ", ".join(filter(None, [f"{told.rows:,} rows", told.score])))
    if not told.rows:
        raise ValueError(
            f"{source.path}: the target {layout.target!r} is missing in every row: nothing was learnt"
        )
    told.notes += dict.fromkeys(str(warning.message) for warning in caught)
    return told


def pieces(
    tables: Iterable[tuple[Table, np.ndarray]], size: Callable[[], int]
) -> Iterator[tuple[Table, np.ndarray]]:
    """Yield rows in the order they come, in pieces as long as `size()` says when a piece is begun; the last is less."""
    waiting: list[tuple[Table, np.ndarray]] = []
    rows, wanted = 0, size()
    for table, y in tables:
        waiting.append((table, y))
        rows += len(y)
        while rows >= wanted:
            X, y = _joined(waiting)
            yield X.slice(0, wanted), y[:wanted]
            waiting, rows = [(X.slice(wanted), y[wanted:])], rows - wanted
            wanted = size()
    if rows:
        yield _joined(waiting)


def _joined(parts: Sequence[tuple[Table, np.ndarray]]) -> tuple[Table, np.ndarray]:
    tables, labels = zip(*parts, strict=True)
    return arrow().concat_tables(tables), np.concatenate(labels)


def _judge(told: Told, said: np.ndarray, y: np.ndarray) -> None:
    """Count how wrong predictions were."""
    told.judged += len(y)
    told.wrong += float((said != y).sum() if told.task == CLASSIFICATION else np.square(said - y).sum())


def refuse_many(classes: Any, layout: Schema, path: Path) -> None:
    """Raise ValueError where a target has more classes than one has."""
    if len(classes) > MOST:
        raise ValueError(
            f"{path}: the target {layout.target!r} has more than {MOST:,} classes, the last {classes[-1]!r}: is it a "
            f"name or a number? Give another --target, or --task {REGRESSION}"
        )


def answer(
    model: Any, source: Source, layout: Schema, kinds: dict[str, str], chances: bool, levels: Sequence[float]
) -> Iterator[tuple[Table, float]]:
    """Yield predictions as tables, each with the share of the file that is done.

    Columns: `prediction`; with `chances` a `proba_CLASS` for each class; for each of `levels` a `quantile_LEVEL`.

    Raises:
        ValueError: a file that turns out to be wrong, whose name is said.
    """
    done, rows = [0.0], 0

    def tables() -> Iterator[tuple[Table, np.ndarray]]:
        for table, done[0] in source.stream(kinds):
            yield table, np.zeros(table.num_rows)

    for X, _ in pieces(tables(), lambda: ANSWERED):
        try:
            if layout.task == REGRESSION:
                columns = {"prediction": model.predict(X)}
                if levels:
                    found = model.predict(X, quantiles=levels)
                    columns |= {f"quantile_{level:g}": found[:, j] for j, level in enumerate(levels)}
            else:
                found = model.predict_proba(X)
                columns = {"prediction": model.classes_[found.argmax(1)]}
                if chances:
                    columns |= {f"proba_{label}": found[:, j] for j, label in enumerate(model.classes_)}
        except ValueError as error:
            raise ValueError(f"{source.path}, rows {rows + 1:,} to {rows + len(X):,}: {error}") from error
        rows += len(X)
        yield arrow().table(columns), done[0]


class Written:
    """A CSV or Parquet file, by its suffix, written a table at a time; at its path once it is whole, or not at all.

    Example:
        >>> with Written(Path("predictions.csv")) as file:
        ...     file.add(table)
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

    def add(self, table: Table) -> None:
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
        except OSError as fault:
            raise ValueError(
                f"{self.path} could not be written ({fault.strerror or fault}): make room or choose another folder"
            ) from fault
        finally:
            self._file.close()
            with suppress(OSError):  # it has been renamed
                self._temporary.unlink()
