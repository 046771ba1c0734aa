"""What a user says of the columns of a table, and the task that follows from them.

Source: Wickham 2014 (tidy data: a column is a variable).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..names import as_item
from .cells import BOOLEAN, DATE, KIND_NAMES, NUMBER, TEXT
from .options import suggest
from .target import CLASSIFICATION, REGRESSION, check_class_count, looks_like_classes

if TYPE_CHECKING:
    from .reading import TableFile

ROLES = ("target", "id", "weight")


@dataclass(frozen=True)
class Choice:
    """What a user says of the columns of a table.

    Fields: `target`: the column to predict; `task`: "auto", "classification" or "regression". `columns`: those to learn
    from, if not all; `drop`: those that are not used; `text`: those to read as words. `id`: a column that names a row;
    `weight`: a column of row weights.

    Example:
        >>> from gradatim.files.choice import Choice
        >>> Choice("price", drop=("row",)).task
        'auto'
    """

    target: str
    task: str = "auto"
    columns: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    id: str | None = None
    weight: str | None = None

    def check(self, table_file: TableFile) -> None:
        """Check that the file has these columns, and that none has two roles.

        Raises:
            ValueError: the message names the option and the column.
        """
        singles = {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}
        lists = {name: getattr(self, name) for name in ("columns", "drop", "text")}
        for option, names in {**{role: (name,) for role, name in singles.items()}, **lists}.items():
            check_has(table_file, names, f"--{option}")
        roles = [*singles.items(), *(("columns", name) for name in self.columns)]
        if self.target in self.drop:
            roles.append(("drop", self.target))
        for number, (option, name) in enumerate(roles):
            for earlier, same in roles[:number]:
                if name == same:
                    raise ValueError(
                        f"column {name!r} has two roles, --{earlier} and --{option}: leave it out of one of them"
                    )
        if self.weight is not None:
            cells = table_file.cells[self.weight]
            if cells is None or cells.kind != NUMBER:
                holds = "nothing" if cells is None else KIND_NAMES[cells.kind]
                raise ValueError(
                    f"{table_file.path}: --weight: column {self.weight!r} holds {holds}; row weights are numbers of "
                    "at least 0: choose another column"
                )


def infer_task(table_file: TableFile, choice: Choice) -> str:
    """Return the task of a target, from the sample of its rows: classification or regression.

    Raises:
        ValueError: the target is missing, holds dates, or does not suit the task that the user chose.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.choice import Choice, infer_task
        >>> from gradatim.files.reading import open_table
        >>> _ = Path("sold.csv").write_text("year,price\\n2023,99.5\\n2024,95\\n2024,80\\n")
        >>> infer_task(open_table("sold.csv"), Choice("price"))
        'regression'
    """
    target, cells = choice.target, table_file.cells[choice.target]
    column = table_file.sample[target]
    where = f"{table_file.path}: the target {target!r}"
    if cells is None or column.null_count == len(column):
        rows = "every row" if table_file.rereadable else f"the first {len(column):,} rows"
        advice = "choose another --target" if table_file.rereadable else "put rows that have it first"
        raise ValueError(f"{where} is missing in {rows}: {advice}")
    if cells.kind == DATE:
        raise ValueError(
            f"{where} holds dates: choose a target of numbers or classes; --text {as_item(target)} makes them classes"
        )
    if cells.kind == TEXT and choice.task == REGRESSION:
        raise ValueError(f"{where} holds words: --task regression needs numbers")
    task = choice.task
    if cells.kind == BOOLEAN:
        task = CLASSIFICATION if task == "auto" else task
    elif cells.kind == TEXT:
        task = CLASSIFICATION
    elif task == "auto":
        values = column.drop_null().to_numpy()
        task = CLASSIFICATION if looks_like_classes(values) else REGRESSION
    if task == CLASSIFICATION:
        check_class_count(len(column.drop_null().unique()), target, cells, table_file.path)
    return task


def check_has(table_file: TableFile, names: Sequence[str], option: str) -> None:
    """Check that a file has the columns that an option names.

    Raises:
        ValueError: it has no such column; the message names one of a similar name.

    Example:
        >>> from pathlib import Path
        >>> from gradatim.files.reading import open_table
        >>> from gradatim.files.choice import check_has
        >>> _ = Path("train.csv").write_text("age,city\\n31,Oslo\\n27,Bern\\n")
        >>> check_has(open_table("train.csv"), ["City"], "--drop")
        Traceback (most recent call last):
        ValueError: train.csv has no column 'City' (--drop): did you mean 'city'?
    """
    for name in names:
        if name not in table_file.cells:
            near = suggest(name, table_file.names)
            raise ValueError(f"{table_file.path} has no column {name!r} ({option}): {near}")
