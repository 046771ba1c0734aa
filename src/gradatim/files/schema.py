"""The columns of a table that a model is fitted to: which column is the target, and what the others hold.

A state stores this schema, so that later files are checked against it.

Source: Apache Arrow (the schema of a table).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import nearest
from .cells import BOOLEAN, DATE, KIND_NAMES, NUMBER, TEXT
from .reading import check_readable

if TYPE_CHECKING:
    from pathlib import Path

    from .reading import Table, TableFile

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = ("auto", CLASSIFICATION, REGRESSION)

MAX_INTEGER_CLASSES = 100
"""A target with more distinct whole numbers than this is a number, not a class."""

MAX_CLASSES = 1000
"""A target with more classes than this is refused."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Fields: `target`: the column to predict; `task`: "classification" or "regression"; `target_kind`: the kind of the
    target column; `columns`: the kind of each other column by name, in order; `dropped`: columns that are not used.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> from gradatim.files.schema import Schema
        >>> _ = Path("train.csv").write_text("age,city,bought\\n31,Oslo,yes\\n27,Bern,no\\n")
        >>> schema = Schema.infer(open_table("train.csv"), target="bought", task="auto")
        >>> schema.task, schema.columns
        ('classification', {'age': 'number', 'city': 'text'})
    """

    target: str
    task: str
    target_kind: str
    columns: dict[str, str]
    dropped: tuple[str, ...] = ()

    @classmethod
    def infer(
        cls,
        table_file: TableFile,
        target: str,
        task: str,
        dropped: Sequence[str] = (),
        text_columns: Sequence[str] = (),
    ) -> Schema:
        """Return the schema of a table, from its first rows.

        Args:
            table_file: the opened table.
            target: the column to predict.
            task: "auto", "classification" or "regression".
            dropped: columns that are not used.
            text_columns: columns to be read as text.

        Raises:
            ValueError: a column does not exist, the target does not suit the task, or no column is left to learn from.
        """
        for option, names in (("--target", [target]), ("--drop", dropped), ("--text", text_columns)):
            for name in names:
                if name not in table_file.kinds:
                    raise ValueError(
                        f"{table_file.path} has no column {name!r} ({option}): {_suggest(name, table_file.names)}"
                    )
        if target in dropped:
            raise ValueError(f"--drop {target} is the target: drop another column")
        target_kind = TEXT if target in text_columns else table_file.kinds[target]
        names = [name for name in table_file.names if name != target and name not in dropped]
        check_readable(table_file, [target, *names])
        if not names:
            raise ValueError(
                f"{table_file.path} has no column besides the target: there is nothing to learn from"
            )
        kinds = {name: TEXT if name in text_columns else table_file.kinds[name] or TEXT for name in names}
        return cls(
            target,
            _infer_task(table_file, target, task, target_kind),
            target_kind or TEXT,
            kinds,
            tuple(dropped),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, header: Mapping[str, Any], path: Path | str) -> Schema:
        """Return the schema stored in the header of a state.

        Raises:
            ValueError: the header has no schema, because the state was saved from Python.
        """
        try:
            value = dict(header["table"])
            schema = cls(**{**value, "dropped": tuple(value["dropped"])})
            is_valid = {schema.target_kind, *schema.columns.values()} <= set(
                KIND_NAMES
            ) and schema.task in TASKS
        except (KeyError, TypeError, AttributeError, ValueError):
            is_valid, schema = False, None
        if not is_valid or schema is None:
            raise ValueError(
                f"{path} does not name the columns of a file, because gradatim fit did not make it: go on with it in "
                "Python, or fit again"
            )
        return schema

    def columns_to_read(self, table_file: TableFile, state: Path | str, with_target: bool) -> dict[str, str]:
        """Return the kinds of the columns to read from a file, after checking that it has them; their order is free.

        Args:
            table_file: the opened table.
            state: the file of the state, for error messages.
            with_target: whether the target is read as well.

        Raises:
            ValueError: a column is missing, unknown or of an unsupported type. The message names it.

        Example:
            >>> from pathlib import Path
            >>> from gradatim.files.reading import open_table
            >>> from gradatim.files.schema import Schema
            >>> _ = Path("train.csv").write_text("age,bought\\n31,1\\n27,0\\n44,\\n")
            >>> table_file = open_table("train.csv")
            >>> schema = Schema.infer(table_file, target="bought", task="auto")
            >>> schema.columns_to_read(table_file, "model.safetensors", with_target=True)
            {'age': 'number', 'bought': 'number'}
        """
        kinds = {**self.columns, **({self.target: self.target_kind} if with_target else {})}
        unknown = [
            name for name in table_file.names if name not in (*self.columns, *self.dropped, self.target)
        ]
        for name in kinds:
            if name not in table_file.kinds:
                role = "the target" if name == self.target else "which the state knows,"
                raise ValueError(
                    f"{table_file.path}: column {name!r}, {role} is missing: "
                    f"{_suggest(name, unknown or table_file.names)}"
                )
        if unknown:
            raise ValueError(
                f"{table_file.path}: column {unknown[0]!r} is unknown to {state}: remove it from the file, or start "
                f"again with fit --drop {unknown[0]}"
            )
        check_readable(table_file, list(kinds))
        return kinds

    def target_values(self, table: Table, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the target `[rows]`, with a filler where it is missing, and a boolean array `[rows]` of the present
        values.

        Raises:
            ValueError: numbers that are not finite, or that are no class labels.

        Example:
            >>> from pathlib import Path
            >>> from gradatim.files.reading import open_table
            >>> from gradatim.files.schema import Schema
            >>> _ = Path("train.csv").write_text("age,bought\\n31,1\\n27,0\\n44,\\n")
            >>> table_file = open_table("train.csv")
            >>> schema = Schema.infer(table_file, target="bought", task="auto")
            >>> table, share = next(table_file.stream(table_file.cells))
            >>> schema.target_values(table, table_file.path)
            (array([1, 0, 0]), array([ True,  True, False]))
        """
        column = table[self.target]
        if self.target_kind == TEXT:
            y = np.empty(len(column), dtype=object)
            y[:] = [text or "" for text in column.to_pylist()]
            return y, ~np.asarray(column.is_null())
        y = column.cast("float64").to_numpy()
        present = ~np.isnan(y)
        y = np.where(present, y, 0.0)
        if np.isinf(y).any():
            raise ValueError(f"{path}: the target {self.target!r} holds infinity: remove those rows")
        if self.task == REGRESSION:
            return y, present
        if self.target_kind == BOOLEAN:
            return y != 0, present
        if len(invalid := y[(y != np.round(y)) | (np.abs(y) > 2**53)]):
            raise ValueError(
                f"{path}: classes of {self.target!r} are whole numbers; got {invalid[0]:g}: start again with fit "
                f"--task regression, or with --text {self.target} if these are names"
            )
        return y.astype(np.int64), present

    def parse_classes(self, text: str, names: Sequence[str]) -> np.ndarray:
        """Return the class labels `[classes]` that the option `--classes` names, in the type of the target.

        Raises:
            ValueError: the target holds numbers and a name is none, or the task is a regression.

        Example:
            >>> from gradatim.files.schema import Schema
            >>> Schema("bought", "classification", "number", {"age": "number"}).parse_classes("0,1", ["0", "1"])
            array([0, 1])
        """
        if self.task == REGRESSION:
            raise ValueError(
                f"--classes {text}: {self.target!r} is a number, which has no classes: leave --classes out"
            )
        if self.target_kind == TEXT:
            labels = np.empty(len(names), dtype=object)
            labels[:] = names
            return labels
        try:
            if self.target_kind == NUMBER:
                return np.array([int(name) for name in names])
            return np.array([{"true": True, "false": False}[name.lower()] for name in names])
        except (ValueError, KeyError):
            raise ValueError(
                f"--classes {text}: the target {self.target!r} holds {KIND_NAMES[self.target_kind]}"
            ) from None


def _infer_task(table_file: TableFile, target: str, task: str, kind: str | None) -> str:
    """Return the task of a target: classification or regression."""
    column = table_file.sample[target]
    if kind is None or column.null_count == len(column):
        raise ValueError(
            f"{table_file.path}: the target {target!r} is missing in the first {len(column):,} rows: put rows that "
            "have it first"
        )
    if kind == DATE:
        raise ValueError(
            f"{table_file.path}: the target {target!r} holds dates: choose a target of numbers or classes"
        )
    if kind == TEXT and task == REGRESSION:
        raise ValueError(
            f"{table_file.path}: the target {target!r} holds text: --task regression needs numbers"
        )
    if kind != NUMBER or task == REGRESSION:
        return task if task != "auto" else CLASSIFICATION
    values = column.cast("float64", safe=False).drop_null().to_numpy()
    values = np.unique(values[np.isfinite(values)])
    if task == "auto":
        all_integers = bool((values == np.round(values)).all())
        return CLASSIFICATION if all_integers and len(values) <= MAX_INTEGER_CLASSES else REGRESSION
    return task


def _suggest(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about a column that does not exist: a similar name, or all names."""
    near = nearest(name, names) or nearest(name.lower(), [candidate.lower() for candidate in names])
    if near is not None:
        return f"did you mean {next(candidate for candidate in names if near in (candidate, candidate.lower()))!r}?"
    more = f", ... ({len(names)} in all)" if len(names) > 10 else ""
    return f"it has {', '.join(map(repr, names[:10]))}{more}"
