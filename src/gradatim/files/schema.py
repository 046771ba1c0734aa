"""The columns of a table that a model is fitted to: which column is the target, and what the others hold.

A state stores this schema, so that later files are read alike and checked against it.

Source: Apache Arrow (the schema of a table).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..names import as_item
from .cells import DATE, KIND_NAMES, NUMBER, TEXT, Cells, arrow, arrow_type
from .choice import check_has, infer_task
from .options import NAMED as NAMED
from .options import listed, suggest
from .target import CLASSIFICATION, TASKS, Labels

if TYPE_CHECKING:
    from pathlib import Path

    from .choice import Choice
    from .reading import Table, TableFile

STORED_OPTIONS = ("decimal", "missing", "delimiter", "header")
"""Options of reading that a state stores if they were given, for later files."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table.

    Fields: `target`: the column to predict; `task`: "classification" or "regression"; `target_cells`: what stands in
    the target. `columns`: what stands in each feature by name, in order; `empty`: those of them in which nothing has
    stood so far, so that they count as missing. `dropped`: columns that are not used; `id`: the column that names a
    row; `weight`: that of row weights. `spelling`: how labels are spelt that are no words; `reading`: options of
    reading that later files need.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> from gradatim.files.choice import Choice
        >>> from gradatim.files.schema import Schema
        >>> _ = Path("train.csv").write_text("age,city,bought\\n31,Oslo,yes\\n27,Bern,no\\n")
        >>> schema = Schema.infer(open_table("train.csv"), Choice("bought"))
        >>> schema.task, schema.columns["city"].kind
        ('classification', 'text')
    """

    target: str
    task: str
    target_cells: Cells
    columns: dict[str, Cells]
    empty: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    id: str | None = None
    weight: str | None = None
    spelling: dict[str, str] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    weight_cells: Cells | None = None

    @classmethod
    def infer(cls, table_file: TableFile, choice: Choice, reading: Mapping[str, Any] | None = None) -> Schema:
        """Return the schema of a table, from the sample of its rows.

        Args:
            table_file: the opened table.
            choice: what the user says of its columns.
            reading: options of reading that later files need.

        Raises:
            ValueError: a column does not exist, the target does not suit the task, or no column is left to learn from.
        """
        choice.check(table_file)
        special = (choice.target, choice.id, choice.weight)
        names = [name for name in table_file.cells if name not in special and name not in choice.drop]
        dropped = list(choice.drop)
        if choice.columns:
            dropped += [name for name in names if name not in choice.columns]
            names = [name for name in names if name in choice.columns]
        if not names:
            raise ValueError(
                f"{table_file.path} has no column besides the target to learn from: add one, or drop fewer"
            )
        _check_readable(
            table_file, (choice.target, *names), "leave it out with --drop, or write it as numbers or text"
        )
        cells = {name: table_file.cells[name] for name in names}
        empty = tuple(name for name, value in cells.items() if value is None)
        columns = {name: value or Cells(NUMBER) for name, value in cells.items()}
        if len(empty) == len(columns):
            raise ValueError(
                f"{table_file.path}: every column besides the target is empty: there is nothing to learn from"
            )
        task = infer_task(table_file, choice)
        target_cells = table_file.cells[choice.target]
        assert target_cells is not None
        return cls(
            choice.target,
            task,
            target_cells,
            columns,
            empty,
            tuple(dropped),
            choice.id,
            choice.weight,
            {},
            dict(reading or {}),
            None if choice.weight is None else table_file.cells[choice.weight],
        )

    def to_json(self) -> dict[str, Any]:
        """Return the schema as plain JSON."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        value |= {name: list(value[name]) for name in ("empty", "dropped")}
        value["columns"] = {name: cells.to_json() for name, cells in self.columns.items()}
        value["weight_cells"] = self.weight_cells and self.weight_cells.to_json()
        return value | {"target_cells": self.target_cells.to_json()}

    @classmethod
    def from_json(cls, header: Mapping[str, Any], path: Path | str) -> Schema:
        """Return the schema stored in the header of a state. The kinds of columns in older states are words.

        Raises:
            ValueError: the header has no schema, because the state was saved from Python.
        """
        try:
            value = dict(header["table"])
            if "target_kind" in value:
                value["target_cells"] = value.pop("target_kind")
            value["target_cells"] = _cells(value["target_cells"])
            if value.get("weight_cells") is not None:
                value["weight_cells"] = _cells(value["weight_cells"])
            value["columns"] = {str(name): _cells(cells) for name, cells in value["columns"].items()}
            value |= {name: tuple(map(str, value.get(name, ()))) for name in ("empty", "dropped")}
            # in older states a column that was empty is no feature
            value["empty"] = tuple(name for name in value["empty"] if name in value["columns"])
            schema = cls(**value)
            optional = (schema.id, schema.weight)
            is_valid = (
                schema.task in TASKS[1:]
                and isinstance(schema.target, str)
                and all(name is None or isinstance(name, str) for name in optional)
                and all(isinstance(text, str) for text in schema.spelling.values())
                and set(schema.reading) <= set(STORED_OPTIONS)
                and set(schema.columns) == set(header.get("feature_names", schema.columns))
            )
        except (KeyError, TypeError, AttributeError, ValueError):
            is_valid, schema = False, None
        if not is_valid or schema is None:
            raise ValueError(
                f"{path} does not name the columns of a file, because gradatim fit did not make it: go on with it in "
                "Python, or fit again"
            )
        return schema

    def labels(self) -> Labels:
        """Return the classes of the target, spelt as the schema says."""
        return Labels(self.target, self.target_cells, dict(self.spelling))

    def known_cells(self) -> dict[str, Cells]:
        """Return what stands in the columns by name, as later files are to be read.

        The target of a classification and the column of ids are read as they stand.
        """
        cells = {name: how for name, how in self.columns.items() if name not in self.empty}
        cells[self.target] = self.target_cells
        if self.task == CLASSIFICATION:
            cells[self.target] = as_text(self.target_cells)
        if self.id is not None:
            cells[self.id] = Cells(TEXT)
        if self.weight is not None:
            cells[self.weight] = self.weight_cells or Cells(NUMBER)
        return cells

    def cells_to_read(self, learn: bool) -> dict[str, Cells]:
        """Return what stands in the columns that are read, to learn rows, or else to predict them.

        Example:
            >>> from gradatim.files.cells import NUMBER, Cells
            >>> from gradatim.files.schema import Schema
            >>> schema = Schema("y", "regression", Cells(NUMBER), {"x": Cells(NUMBER)}, id="row")
            >>> list(schema.cells_to_read(learn=True)), list(schema.cells_to_read(learn=False))
            (['x', 'y'], ['x', 'row'])
        """
        cells = self.known_cells()
        extra = (self.target, self.weight) if learn else (self.id,)
        names = [name for name in self.columns if name not in self.empty]
        return {name: cells[name] for name in (*names, *extra) if name is not None}

    def features(self, table: Table) -> Table:
        """Return the features of a table that was read, in their order; those that are empty so far are missing.

        Example:
            >>> import pyarrow
            >>> from gradatim.files.cells import NUMBER, Cells
            >>> from gradatim.files.schema import Schema
            >>> schema = Schema("y", "regression", Cells(NUMBER), dict.fromkeys("xz", Cells(NUMBER)), ("z",))
            >>> schema.features(pyarrow.table({"y": [0.5], "x": [1.0]})).to_pydict()
            {'x': [1.0], 'z': [None]}
        """
        missing = arrow().nulls(table.num_rows, arrow_type(NUMBER))
        names = self.columns
        return arrow().table({name: missing if name in self.empty else table[name] for name in names})

    def with_filled(self, table_file: TableFile) -> tuple[Schema, list[str]]:
        """Return the schema with what a file holds of columns that were empty so far, and notes for the user.

        Numbers, dates, and true and false are learned from now on. Words stay missing: the map has no place for them.

        Example:
            >>> from pathlib import Path
            >>> from gradatim.files.cells import NUMBER, Cells
            >>> from gradatim.files.reading import open_table
            >>> from gradatim.files.schema import Schema
            >>> _ = Path("day.csv").write_text("day,y\\n2024-02-03,1\\n")
            >>> schema = Schema("y", "regression", Cells(NUMBER), {"day": Cells(NUMBER)}, ("day",))
            >>> schema.with_filled(open_table("day.csv"))[0].columns["day"].kind
            'date'
        """
        columns, notes = dict(self.columns), []
        for name in self._unread():
            cells = table_file.cells.get(name)
            if cells is not None and cells.kind == TEXT:
                notes.append(
                    f"{table_file.path}: column {name!r} was empty in the rows learned so far: its words count as "
                    "missing; gradatim fit learns them"
                )
            elif cells is not None:
                columns[name] = cells
                notes.append(
                    f"{table_file.path}: column {name!r} was empty in the rows learned so far; its "
                    f"{KIND_NAMES[cells.kind]} are learned from now on"
                )
        empty = tuple(name for name in self.empty if columns[name] is self.columns[name])
        return replace(self, columns=columns, empty=empty), notes

    def _unread(self) -> list[str]:
        """Return the columns that were empty so far and are to be read where they are filled."""
        return [name for name in self.empty if name not in (*self.dropped, self.id, self.weight)]

    def _is_read(self, name: str) -> bool:
        return name in self.columns and name not in self.empty

    def with_weight(self, name: str) -> Schema:
        """Return the schema with another column of row weights.

        Raises:
            ValueError: the column is one of the features, or the target.
        """
        if self._is_read(name) or name in (self.target, self.id):
            role = "a feature" if self._is_read(name) else "the target" if name == self.target else "the ids"
            raise ValueError(f"--weight {name} is {role} of the state: choose another column")
        return replace(self, weight=name, weight_cells=None)

    def with_id(self, name: str) -> Schema:
        """Return the schema with another column that names a row.

        Raises:
            ValueError: the column is one of the features.
        """
        if self._is_read(name):
            raise ValueError(
                f"--id {name} is a feature of the state: choose another column, or start again with fit --id "
                f"{quote(name)}"
            )
        return replace(self, id=name)

    def with_dropped(self, names: Sequence[str], table_file: TableFile) -> Schema:
        """Return the schema with more columns that are not used, of a file that has them.

        Raises:
            ValueError: the file has no such column, or the state needs it.
        """
        for name in names:
            if self._is_read(name) or name == self.target:
                raise ValueError(
                    f"--drop {name}: the state needs this column: start again with fit --drop {as_item(name)}"
                )
        check_has(table_file, names, "--drop")
        return replace(self, dropped=(*self.dropped, *names))

    def check_columns(self, table_file: TableFile, state: Path | str, learn: bool) -> str | None:
        """Check that a file has the columns of the state, in any order; return a note of columns that are ignored.

        Args:
            table_file: the opened table.
            state: the file of the state, for messages.
            learn: whether the rows are learned, which takes the target and the weights as well.

        Raises:
            ValueError: a column is missing. The message names it, and one of a similar name. A feature may be missing
                in a file whose rows leave out what they lack, if others are there.

        Example:
            >>> from pathlib import Path
            >>> from gradatim.files.reading import open_table
            >>> from gradatim.files.choice import Choice
            >>> from gradatim.files.schema import Schema
            >>> _ = Path("train.csv").write_text("age,bought\\n31,1\\n27,0\\n44,\\n")
            >>> _ = Path("test.csv").write_text("age,shoe\\n31,44\\n")
            >>> schema = Schema.infer(open_table("train.csv"), Choice("bought"))
            >>> schema.check_columns(open_table("test.csv"), "s", learn=False)
            "test.csv: column 'shoe' is ignored, because s did not learn from it"
        """
        names = table_file.names
        needed = {name: "which the state knows" for name in self.columns if name not in self.empty}
        if learn:
            needed[self.target] = "the target"
            if self.weight is not None:
                needed[self.weight] = "the row weights"
        known_names = {*needed, *self.empty, *self.dropped, self.target, self.id, self.weight}
        unknown = [name for name in names if name not in known_names]
        missing = [name for name in needed if name not in table_file.cells]
        absent = [name for name in missing if name in self.columns] if table_file.leaves_out else []
        if len(absent) < len(self.columns) - len(self.empty):
            missing = [name for name in missing if name not in absent]
        if missing:
            more = f" ({len(missing)} columns are missing)" if len(missing) > 1 else ""
            raise ValueError(
                f"{table_file.path}: column {missing[0]!r}, {needed[missing[0]]}, is missing{more}: "
                f"{suggest(missing[0], unknown or names)}"
            )
        _check_readable(table_file, needed, "write it as numbers or text")
        notes = [f"{listed(absent)} stood in no row: every cell is missing"] if absent else []
        if unknown:
            words = ("is", "it") if len(unknown) == 1 else ("are", "them")
            notes.append(
                f"{listed(unknown)} {words[0]} ignored, because {state} did not learn from {words[1]}"
            )
        filled = [name for name in self._unread() if table_file.cells.get(name) is not None]
        if filled and not learn:
            words = ("was", "it counts") if len(filled) == 1 else ("were", "they count")
            notes.append(
                f"{listed(filled)} {words[0]} empty in the rows learned so far: {words[1]} as missing until gradatim "
                "update learns rows in which numbers or dates stand there"
            )
        return f"{table_file.path}: {'; '.join(notes)}" if notes else None


def as_text(cells: Cells) -> Cells:
    """Return cells that are read as they stand, with the same words for missing ones."""
    return Cells(TEXT, missing=cells.missing)


def _cells(value: Any) -> Cells:
    """Return cells from JSON; older states hold their kind as a word."""
    if not isinstance(value, str):
        return Cells.from_json(value)
    kind = DATE if value == "zoned" else value
    if kind not in KIND_NAMES:
        raise ValueError(f"no kind of column is called {value!r}")
    return Cells(kind)


def _check_readable(table_file: TableFile, names: Iterable[str], advice: str) -> None:
    """Raise ValueError if a column is of a type that is not supported."""
    for name in names:
        if name in table_file.unreadable:
            raise ValueError(
                f"{table_file.path}: column {name!r} is of type {table_file.unreadable[name]}, which is not supported: "
                f"{advice}"
            )
