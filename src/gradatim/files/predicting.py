"""Predict the rows of a file of any length.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import arrow
from .streaming import chunks
from .target import CLASSIFICATION, REGRESSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .reading import Table, TableFile
    from .schema import Schema
    from .streaming import Rows

PREDICT_ROWS = 2048
"""Rows that are predicted at once."""


def predict_stream(
    model: Any,
    table_file: TableFile,
    schema: Schema,
    probabilities: bool,
    levels: Sequence[float],
) -> Iterator[tuple[Table, float]]:
    """Yield the predictions for a file as tables, each with the share of the file that has been read.

    The columns are:

    - the ids, if the schema names a column of them and the file has it;
    - `prediction`;
    - `proba_CLASS` for each class, if `probabilities` is true;
    - `quantile_LEVEL` for each of `levels`.

    Raises:
        ValueError: the file turns out to be invalid; the message names it.

    Example:
        >>> from pathlib import Path
        >>> from gradatim import RefinedRegressor
        >>> from gradatim.files.reading import open_table
        >>> from gradatim.files.choice import Choice
        >>> from gradatim.files.schema import Schema
        >>> from gradatim.files.predicting import predict_stream
        >>> _ = Path("line.csv").write_text("x,y\\n1.5,2.5\\n2.5,3.5\\n3.5,4.5\\n")
        >>> table_file = open_table("line.csv")
        >>> schema = Schema.infer(table_file, Choice("y", task="regression"))
        >>> model = RefinedRegressor().fit(table_file.sample.select(["x"]), [2.5, 3.5, 4.5])
        >>> for table, share in predict_stream(model, table_file, schema, False, [0.1, 0.9]):
        ...     print(table.column_names, table.num_rows, share)
        ['prediction', 'quantile_0.1', 'quantile_0.9'] 3 1.0
    """
    share, n_rows = [0.0], 0
    cells = schema.cells_to_read(learn=False)
    if schema.id is not None and schema.id not in table_file.cells:
        del cells[schema.id]
    labels = schema.labels()

    def tables() -> Iterator[Rows]:
        for table, share[0] in table_file.stream(cells):
            yield table, np.zeros(table.num_rows), np.ones(table.num_rows)

    for table, *_ in chunks(tables(), lambda: PREDICT_ROWS):
        try:
            outputs = _predict(model, schema.features(table), schema, probabilities, levels)
        except ValueError as error:
            rows = f"rows {n_rows + 1:,} to {n_rows + table.num_rows:,}"
            raise ValueError(f"{table_file.path}, {rows}: {error}") from error
        n_rows += table.num_rows
        columns: dict[str, Any] = {}
        if schema.id in cells:
            columns[schema.id if schema.id not in outputs else f"{schema.id}_id"] = table[schema.id]
        for name, values in outputs.items():
            is_label = name == "prediction" and schema.task == CLASSIFICATION
            columns[name] = labels.spell(values) if is_label else values
        yield arrow().table(columns), share[0]


def _predict(
    model: Any, X: Table, schema: Schema, probabilities: bool, levels: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return the columns of predictions, each `[n]`."""
    if schema.task == REGRESSION:
        columns = {"prediction": model.predict(X)}
        if levels:
            outputs = model.predict(X, quantiles=levels)
            columns |= {f"quantile_{level!r}": outputs[:, j] for j, level in enumerate(levels)}
        return columns
    outputs = model.predict_proba(X)
    columns = {"prediction": model.classes_[outputs.argmax(1)]}
    if probabilities:
        names = schema.labels().spell(model.classes_).cast("string").to_pylist()
        columns |= {f"proba_{name}": outputs[:, j] for j, name in enumerate(names)}
    return columns
