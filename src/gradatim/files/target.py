"""The target of a table: whether it is a class or a number, and how its classes are spelt.

A label is learned as a word, a whole number or a truth value, and comes back as it stood first.

Source: Wickham 2014 (tidy data: a column has one type).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..names import as_item
from .cells import BOOLEAN, NUMBER, TEXT, arrow
from .inference import PLAIN_MISSING
from .parsing import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .cells import Cells

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = ("auto", CLASSIFICATION, REGRESSION)

FEW, MANY = 10, 100
"""Whole numbers are classes up to so many different ones: with a few rows each, or if they count from 0 or 1."""

ROWS_OF_FEW, ROWS_OF_MANY = 2, 20
"""Rows that each of few, or of many, whole numbers must have to be a class."""

MAX_CLASSES = 1000
"""A target with more classes than this is refused."""

LARGEST = 1e100
LIGHTEST, HEAVIEST = 1e-15, 1e15
"""The largest number of a regression and the row weights that estimators take; a test holds them to be the same."""


def check_target(y: np.ndarray, name: str, where: Callable[[int], str]) -> np.ndarray:
    """Return which numbers of a regression's target `[rows]` are there, bool `[rows]`; NaN is missing.

    Args:
        y: the numbers.
        name: the column.
        where: returns the file and the place of row `i`, for messages.

    Raises:
        ValueError: a number that estimators refuse. The message names its place.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.target import check_target
        >>> check_target(np.array([1.5, np.nan]), "y", str).tolist()
        [True, False]
    """
    if (row := _first(np.abs(y) > LARGEST)) is not None:
        raise ValueError(
            f"{where(row)}: the target {name!r} must be at most {LARGEST:g} in size; got {y[row]:g}: correct it, "
            "remove the row, or use another unit"
        )
    return ~np.isnan(y)


def check_weights(weight: np.ndarray, name: str, where: Callable[[int], str]) -> None:
    """Check that row weights `[rows]` are such as estimators take.

    Args:
        weight: the numbers.
        name: the column.
        where: returns the file and the place of row `i`, for messages.

    Raises:
        ValueError: one is not. The message names its place.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.target import check_weights
        >>> check_weights(np.array([1.0, -1.0]), "w", "f.csv, row {}".format)
        Traceback (most recent call last):
        ValueError: f.csv, row 1: the weight in column 'w' must be a number ...
    """
    if (row := _first(~_are_weights(weight))) is None:
        return
    value = "a cell that is empty or no number" if np.isnan(weight[row]) else f"{weight[row]:g}"
    expected, advice = "a number of at least 0", "correct it, or remove the row"
    if weight[row] > 0:
        expected = f"0, or a number from {LIGHTEST:g} to {HEAVIEST:g}"
        advice = "correct it, remove the row, or use another unit for all weights"
    raise ValueError(f"{where(row)}: the weight in column {name!r} must be {expected}; got {value}: {advice}")


def sound_rows(y: np.ndarray | None, weight: np.ndarray | None, n_rows: int) -> np.ndarray:
    """Return which rows `check_target` and `check_weights` do not refuse, bool `[n_rows]`; None is no such column.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.target import sound_rows
        >>> sound_rows(np.array([1e99, 1e101, np.nan]), np.array([1.0, 1.0, 0.0]), 3).tolist()
        [True, False, True]
    """
    sound = np.ones(n_rows, dtype=bool) if y is None else ~(np.abs(y) > LARGEST)
    return sound if weight is None else sound & _are_weights(weight)


def _are_weights(weight: np.ndarray) -> np.ndarray:
    return (weight == 0) | ((weight >= LIGHTEST) & (weight <= HEAVIEST))


def _first(flags: np.ndarray) -> int | None:
    return int(flags.argmax()) if flags.any() else None


def looks_like_classes(values: np.ndarray) -> bool:
    """Return whether the numbers of a target `[rows]` are classes rather than amounts.

    Fractions are amounts. Whole numbers are classes in these cases:

    - There are at most 2 different ones.
    - There are at most 10 with several rows each, unless they are years or five and more in equal steps beyond 1.
    - There are at most 100 that run from 0 or 1 nearly without gaps, with 20 rows each.

    Example:
        >>> import numpy as np
        >>> from gradatim.files.target import looks_like_classes
        >>> looks_like_classes(np.array([3, 5, 3, 5, 7, 7])), looks_like_classes(2700 + 25 * np.arange(50))
        (True, False)
        >>> looks_like_classes(np.array([2019, 2020, 2021] * 9)), looks_like_classes(np.array([0.5, 1.5]))
        (False, False)
    """
    values = np.asarray(values, dtype=np.float64)
    distinct, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    if (distinct != np.round(distinct)).any():
        return False
    if len(distinct) <= 2:
        return True
    low, high = distinct[0], distinct[-1]
    steps = np.diff(distinct)
    if len(distinct) <= FEW:
        are_years = low >= 1900 and high <= 2100
        are_steps = len(distinct) >= 5 and steps[0] > 1 and bool((steps == steps[0]).all())
        return bool(counts.min() >= ROWS_OF_FEW) and not are_years and not are_steps
    is_dense = low in (0, 1) and high - low + 1 <= 1.1 * len(distinct)
    return len(distinct) <= MANY and is_dense and bool(counts.min() >= ROWS_OF_MANY)


def check_class_count(n_classes: int, target: str, cells: Cells, path: Path | str) -> None:
    """Check that a target has few enough classes.

    Raises:
        ValueError: more than `MAX_CLASSES` classes.

    Example:
        >>> from gradatim.files.cells import NUMBER, Cells
        >>> from gradatim.files.target import check_class_count
        >>> check_class_count(2000, "number", Cells(NUMBER), "train.csv")
        Traceback (most recent call last):
        ValueError: train.csv: the target 'number' has 2,000 classes, more than 1,000: ...
    """
    if n_classes > MAX_CLASSES:
        advice = f", or --task {REGRESSION} if it is a number" if cells.kind == NUMBER else ""
        raise ValueError(
            f"{path}: the target {target!r} has {n_classes:,} classes, more than {MAX_CLASSES:,}: choose another "
            f"--target{advice}"
        )


@dataclass
class Labels:
    """The classes of a target as an estimator learns them, and how each is spelt.

    Fields: `target`: its column; `cells`: what stands in it; `spelling`: for a label that is no word, its first
    spelling in a file; `odd`: words in a column of numbers or truth values that are none, with their rows.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import NUMBER, Cells
        >>> from gradatim.files.target import Labels
        >>> labels = Labels("y", Cells(NUMBER))
        >>> labels.read(pyarrow.array(["1.0", "2.0", None, "1"]))
        (array([1, 2, 0, 1]), array([ True,  True, False,  True]))
        >>> labels.spell(np.array([1, 2])).to_pylist()
        ['1.0', '2.0']
    """

    target: str
    cells: Cells
    spelling: dict[str, str] = field(default_factory=dict)
    odd: dict[str, int] = field(default_factory=dict)

    def read(self, column: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels `[rows]` in a column of text, with a filler where none is, and a boolean array `[rows]`
        of those that are there.

        Raises:
            ValueError: a number that is no class.
        """
        coded = arrow().chunked_array(column).combine_chunks().dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        words = coded.dictionary
        values = parse(words, self.cells).to_pylist()
        labels = [self._label(*pair) for pair in zip(words.to_pylist(), values, strict=True)]
        counts = np.bincount(codes[codes >= 0], minlength=len(words))
        for word, label, number in zip(words.to_pylist(), labels, counts.tolist(), strict=True):
            if label is None and word.strip().lower() not in ("", *PLAIN_MISSING, *self.cells.missing):
                self.odd[word] = self.odd.get(word, 0) + number
        labels.append(None)
        table = np.empty(len(labels), dtype=self.dtype)
        filler = {TEXT: "", NUMBER: 0, BOOLEAN: False}[self.cells.kind]
        table[:] = [filler if label is None else label for label in labels]
        return table[codes], np.array([label is not None for label in labels])[codes]

    @property
    def dtype(self) -> Any:
        """Return the NumPy type of the labels."""
        return {TEXT: object, NUMBER: np.int64, BOOLEAN: np.bool_}[self.cells.kind]

    def from_words(self, words: Sequence[str], option: str = "--classes") -> np.ndarray:
        """Return the labels `[classes]` that a user names, each once.

        Raises:
            ValueError: a word that is no label of this target.
        """
        y, present = self.read(arrow().array(list(words), arrow().string()))
        if not present.all():
            kind = {NUMBER: "numbers", BOOLEAN: "true or false"}.get(self.cells.kind, "words")
            raise ValueError(
                f"{option} names {words[int(np.argmin(present))]!r}; the target {self.target!r} holds {kind}: name "
                "classes of that kind"
            )
        return np.unique(y)

    def spell(self, labels: np.ndarray) -> Any:
        """Return labels `[rows]` as an Arrow array: numbers and truth values, or text where they were spelt otherwise.

        The type is that of all spellings so far, whatever labels come.
        """
        pa = arrow()
        if self.cells.kind == TEXT:
            return pa.array(labels, pa.string())
        if all(text == _plain(label) for label, text in self.spelling.items()):
            return pa.array(labels)
        distinct, codes = np.unique(labels, return_inverse=True)
        texts = [self.spelling.get(str(label), _plain(str(label))) for label in distinct.tolist()]
        return pa.array(np.array(texts, dtype=object)[codes], pa.string())

    def _label(self, word: str, value: Any) -> Any:
        """Return the label of a word that was read as a value, None if it is none; remember how it is spelt.

        Raises:
            ValueError: a fraction, a number that is not exact in 53 bits, or leading zeros.
        """
        if value is None or self.cells.kind == TEXT:
            return value
        text = word.strip()
        if self.cells.kind == NUMBER:
            names = f"--text {as_item(self.target)} if these are names"
            if re.match(r"[+-]?0\d", text):
                raise ValueError(
                    f"the target {self.target!r} holds numbers so far; got {text!r}, whose leading zero makes it a "
                    f"name: write it as a number, or start again with fit {names}"
                )
            if value != round(value) or abs(value) >= 2**53:
                raise ValueError(
                    f"classes of {self.target!r} are whole numbers; got {text}: start again with fit --task "
                    f"{REGRESSION}, or with {names}"
                )
            value = int(value)
        self.spelling.setdefault(str(value), text)
        return value


def _plain(label: str) -> str:
    """Return how a label that is a number or a truth value is spelt by default."""
    return {"True": "true", "False": "false"}.get(label, label)
