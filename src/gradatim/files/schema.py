"""What a state remembers of the files it learnt from: which column is the target, what the others hold.

Source: DESIGN.md, scaler and category table are part of a state's header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import nearest
from .reading import BOOLEAN, DATE, NUMBER, SHOWN, TEXT, ZONED, refuse_unread

if TYPE_CHECKING:
    from pathlib import Path

    from .reading import Source, Table

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = ("auto", CLASSIFICATION, REGRESSION)

MANY = 100
"""Whole numbers of more distinct values than this are taken for numbers, not for classes."""

MOST = 1000
"""A column of more classes than this is not one of classes."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table: `target`, of kind `label`; `columns`, name to kind, in order; `dropped` ones."""

    target: str
    task: str
    label: str
    columns: dict[str, str]
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, source: Source, target: str, task: str, dropped: Sequence[str] = (), texts: Sequence[str] = ()
    ) -> Schema:
        """Return the layout of a table that is to be learnt; `texts`: columns to be read as words.

        Raises:
            ValueError: a column that is not there, a target that cannot be learnt so, nothing to learn it from.
        """
        for option, names in (("--target", [target]), ("--drop", dropped), ("--text", texts)):
            for name in names:
                if name not in source.kinds:
                    raise ValueError(
                        f"{source.path} has no column {name!r} ({option}): {_near(name, source.names)}"
                    )
        if target in dropped:
            raise ValueError(f"--drop {target} is the target: drop another column")
        label = TEXT if target in texts else source.kinds[target]
        names = [name for name in source.names if name != target and name not in dropped]
        refuse_unread(source, [target, *names])
        if not names:
            raise ValueError(f"{source.path} has no column beside the target: there is nothing to learn from")
        kinds = {name: TEXT if name in texts else source.kinds[name] or TEXT for name in names}
        return cls(target, _task(source, target, task, label), label or TEXT, kinds, tuple(dropped))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, header: Mapping[str, Any], path: Path | str) -> Schema:
        """Return the layout in a state's header.

        Raises:
            ValueError: there is none: the state was saved from Python.
        """
        try:
            value = dict(header["table"])
            layout = cls(**{**value, "dropped": tuple(value["dropped"])})
            whole = {layout.label, *layout.columns.values()} <= set(SHOWN) and layout.task in TASKS
        except (KeyError, TypeError, AttributeError, ValueError):
            whole, layout = False, None
        if not whole or layout is None:
            raise ValueError(
                f"{path} does not say which columns of a file it knows (it was not made by gradatim fit): go on with "
                "it in Python, or fit anew"
            )
        return layout

    def wanted(self, source: Source, state: Path | str, labelled: bool) -> dict[str, str]:
        """Return the kinds of the columns to read from a file, once it is known to hold them; their order is free.

        Raises:
            ValueError: a column is missing, unknown or of a type that is not read; it is named.
        """
        wanted = {**self.columns, **({self.target: self.label} if labelled else {})}
        surplus = [name for name in source.names if name not in (*self.columns, *self.dropped, self.target)]
        for name in wanted:
            if name not in source.kinds:
                what = "the target" if name == self.target else "which the state knows,"
                raise ValueError(
                    f"{source.path}: column {name!r}, {what} is missing: {_near(name, surplus or source.names)}"
                )
        if surplus:
            raise ValueError(
                f"{source.path}: column {surplus[0]!r} is unknown to {state}: take it out of the file, or begin anew "
                f"with fit --drop {surplus[0]}"
            )
        refuse_unread(source, list(wanted))
        return wanted

    def labels(self, table: Table, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the target of all rows, with a filler where it is missing, and whether it is there.

        Raises:
            ValueError: numbers that are not finite, or none that a class can have.
        """
        column = table[self.target]
        if self.label == TEXT:
            y = np.empty(len(column), dtype=object)
            y[:] = [text or "" for text in column.to_pylist()]
            return y, ~np.asarray(column.is_null())
        y = column.cast("float64").to_numpy()
        there = ~np.isnan(y)
        y = np.where(there, y, 0.0)
        if np.isinf(y).any():
            raise ValueError(f"{path}: the target {self.target!r} holds infinity: take those rows out")
        if self.task == REGRESSION:
            return y, there
        if self.label == BOOLEAN:
            return y != 0, there
        if len(odd := y[(y != np.round(y)) | (np.abs(y) > 2**53)]):
            raise ValueError(
                f"{path}: classes of {self.target!r} are whole numbers; got {odd[0]:g}: begin anew with fit --task "
                f"regression, or with --text {self.target} if these are names"
            )
        return y.astype(np.int64), there

    def classes(self, text: str, names: Sequence[str]) -> np.ndarray:
        """Return the labels that `--classes` names.

        Raises:
            ValueError: words where the target holds numbers, or a regression.
        """
        if self.task == REGRESSION:
            raise ValueError(f"--classes {text}: {self.target!r} is learnt as a number, which has no classes")
        if self.label == TEXT:
            made = np.empty(len(names), dtype=object)
            made[:] = names
            return made
        try:
            if self.label == NUMBER:
                return np.array([int(name) for name in names])
            return np.array([{"true": True, "false": False}[name.lower()] for name in names])
        except (ValueError, KeyError):
            raise ValueError(
                f"--classes {text}: the target {self.target!r} holds {SHOWN[self.label]}"
            ) from None


def _task(source: Source, target: str, asked: str, kind: str | None) -> str:
    """Return what kind of task a target makes."""
    column = source.head[target]
    if kind is None or column.null_count == len(column):
        raise ValueError(
            f"{source.path}: the target {target!r} is missing in the first {len(column):,} rows: put rows that have it "
            "first"
        )
    if kind in (DATE, ZONED):
        raise ValueError(f"{source.path}: the target {target!r} holds dates: give numbers or classes")
    if kind == TEXT and asked == REGRESSION:
        raise ValueError(f"{source.path}: the target {target!r} holds text: --task regression wants numbers")
    if kind != NUMBER or asked == REGRESSION:
        return asked if asked != "auto" else CLASSIFICATION
    values = column.cast("float64", safe=False).drop_null().to_numpy()
    values = np.unique(values[np.isfinite(values)])
    if asked == "auto":
        whole = bool((values == np.round(values)).all())
        return CLASSIFICATION if whole and len(values) <= MANY else REGRESSION
    return asked


def _near(name: str, known: Sequence[str]) -> str:
    """Return the end of a sentence about a column that is not there."""
    near = nearest(name, known) or nearest(name.lower(), [k.lower() for k in known])
    if near is not None:
        return f"did you mean {next(k for k in known if near in (k, k.lower()))!r}?"
    more = f", ... ({len(known)} in all)" if len(known) > 10 else ""
    return f"it has {', '.join(map(repr, known[:10]))}{more}"
