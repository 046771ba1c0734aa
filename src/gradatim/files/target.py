"""The target of a table: whether it is a class or a number, and how its classes are spelt.

A label is learned as a word, a whole number or a truth value, and comes back as it stood first.

Source: Wickham 2014 (tidy data: a column has one type).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from .reading import BOOLEAN, NUMBER, TEXT, arrow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .reading import Cells

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = ("auto", CLASSIFICATION, REGRESSION)

FEW, MANY = 10, 100
"""Whole numbers are classes up to so many different ones: with a few rows each, or if they count from 0 or 1."""

ROWS_OF_FEW, ROWS_OF_MANY = 2, 20
"""Rows that each of few, or of many, whole numbers must have to be a class."""

MAX_CLASSES = 1000
"""A target with more classes than this is refused."""

TRUE_WORDS = ("true", "t", "yes", "y", "1")
"""Words that mean true in a column of truth values, in small letters."""


def looks_like_classes(values: np.ndarray) -> bool:
    """Return whether the numbers of a target `[rows]` are classes rather than amounts.

    Fractions are amounts. Whole numbers are classes in these cases:

    - at most 2 different ones
    - at most 10 with several rows each, unless they are years or five and more in equal steps beyond 1
    - at most 100 that run from 0 or 1 nearly without gaps, with 20 rows each

    Example:
        >>> import numpy as np
        >>> from gradatim.files.target import looks_like_classes
        >>> looks_like_classes(np.array([3, 5, 3, 5, 7, 7])), looks_like_classes(2700 + 25 * np.arange(50) % 9)
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


@dataclass
class Labels:
    """The classes of a target as an estimator learns them, and how each is spelt.

    Fields: `target`: its column; `cells`: what stands in it; `spelling`: for a label that is no word, its first
    spelling in a file; `odd`: words in a column of numbers or truth values that are none, with their rows.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.reading import NUMBER, Cells
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
        column = column.combine_chunks() if hasattr(column, "combine_chunks") else column
        coded = column.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        words = coded.dictionary.to_pylist()
        labels = [self._label(word) for word in words]
        for word, label, count in zip(words, labels, np.bincount(codes[codes >= 0], minlength=len(words)), strict=True):
            if label is None and word.strip():
                self.odd[word] = self.odd.get(word, 0) + int(count)
        present = np.array([label is not None for label in labels] + [False])[codes]
        table = np.empty(len(labels) + 1, dtype=self.dtype)
        filler = {TEXT: "", NUMBER: 0, BOOLEAN: False}[self.cells.kind]
        table[:] = [filler if label is None else label for label in [*labels, None]]
        return table[codes], present

    @property
    def dtype(self) -> Any:
        """Return the NumPy type of the labels."""
        return {TEXT: object, NUMBER: np.int64, BOOLEAN: np.bool_}[self.cells.kind]

    def parse(self, words: Sequence[str]) -> np.ndarray:
        """Return the labels `[classes]` that a user names, each once.

        Raises:
            ValueError: a word that is no label of this target.
        """
        y, present = self.read(arrow().array(list(words), arrow().string()))
        if not present.all():
            kind = {NUMBER: "numbers", BOOLEAN: "true or false"}.get(self.cells.kind, "words")
            raise ValueError(
                f"--classes names {words[int(np.argmin(present))]!r}; the target {self.target!r} holds {kind}: name "
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

    def _label(self, word: str) -> Any:
        """Return the label that a word spells, None if it is none; remember how it is spelt."""
        text = word.strip()
        if not text:
            return None
        if self.cells.kind == TEXT:
            return text
        label = text.lower() in TRUE_WORDS if self.cells.kind == BOOLEAN else self._whole_number(text)
        if label is not None:
            self.spelling.setdefault(str(label), text)
        return label

    def _whole_number(self, text: str) -> int | None:
        """Return the whole number in a text, or None if it holds no number.

        Raises:
            ValueError: a fraction, infinity, a number beyond 64 bits, or leading zeros.
        """
        names = f"start again with fit --text {self.target} if these are names"
        if len(text) > 1 and text[0] == "0" and text.isdecimal():
            raise ValueError(
                f"the target {self.target!r} holds numbers so far; got {text!r}, whose leading zero makes it a name: "
                f"write it as a number, or {names}"
            )
        plain = text.replace(self.cells.thousands, "") if self.cells.thousands else text
        try:
            number = Decimal(plain.replace(self.cells.decimal or ".", "."))
        except InvalidOperation:
            return None
        if number.is_nan():
            return None
        if number.is_infinite():
            raise ValueError(f"the target {self.target!r} holds infinity: remove those rows")
        if number != number.to_integral_value() or abs(number) >= 2**63:
            raise ValueError(
                f"classes of {self.target!r} are whole numbers; got {text}: start again with fit --task {REGRESSION}, "
                f"or {names.removeprefix('start again with fit ')}"
            )
        return int(number)


def _plain(label: str) -> str:
    """Return how a label that is a number or a truth value is spelt by default."""
    return {"True": "true", "False": "false"}.get(label, label)
