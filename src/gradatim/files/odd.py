"""Cells that could not be read: what they were, where the first stood, and how many there are.

Source: none; the sentences are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from .cells import KIND_NAMES, NUMBER, Cells, arrow
from .inference import odd_cells

MOST_WORDS, MOST_COLUMNS = 3, 10
"""Most words of a column, and most columns, that the notes name."""


class OddCells:
    """Count the odd cells of a file, column by column.

    Example:
        >>> import pyarrow
        >>> from gradatim.files.cells import Cells
        >>> from gradatim.files.odd import OddCells
        >>> odd = OddCells()
        >>> words = pyarrow.array(["1", "-"])
        >>> odd.add("x", Cells("number"), words, pyarrow.array([1.0, None]), (), str)
        >>> len(odd.notes())
        1
    """

    def __init__(self) -> None:
        self._columns: dict[str, tuple[Cells, dict[str, list[Any]]]] = {}

    def clear(self) -> None:
        """Forget all cells."""
        self._columns.clear()

    def add(
        self,
        name: str,
        cells: Cells,
        words: Any,
        values: Any,
        silent: tuple[str, ...],
        place: Callable[[int], str],
    ) -> None:
        """Add the odd cells among some rows of a column.

        Args:
            name, cells: the column, and how it is read.
            words: its words `[rows]`.
            values: what was read `[rows]`, null where nothing was.
            silent: words, in lower case, that mean missing.
            place: returns where row `i` stands.
        """
        rows = odd_cells(words, values, (*silent, *(word.lower() for word in cells.missing)))
        if not len(rows):
            return
        counted = words.take(arrow().array(rows)).value_counts()
        _, seen = self._columns.setdefault(name, (cells, {}))
        listed = words.take(arrow().array(rows[:1000])).to_pylist()
        for word, count in zip(
            counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True
        ):
            word_short = word.strip()[:50]
            if word_short in seen:
                seen[word_short][1] += count
            elif len(seen) < MOST_WORDS:
                first = listed.index(word) if word in listed else 0
                seen[word_short] = [place(int(rows[first])), count]
            else:
                seen.setdefault("", ["", 0])[1] += count

    def notes(self) -> list[str]:
        """Return a sentence for each column with odd cells."""
        notes = []
        for name, (cells, seen) in list(self._columns.items())[:MOST_COLUMNS]:
            parts = [
                f"{word!r} in {where} ({_cells(count)})" for word, (where, count) in seen.items() if word
            ]
            if "" in seen:
                parts.append(_cells(seen[""][1]) + " of other words")
            listing = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
            verb = "is" if len(parts) == 1 else "are"
            mark = "." if cells.decimal == "," else ","
            is_other = cells.kind == NUMBER and any(
                re.fullmatch(rf"[+-]?[0-9]+[{mark}][0-9]+", word) for word in seen
            )
            advice = (
                f"--decimal {mark} reads them as numbers" if is_other else "--missing says which words are"
            )
            notes.append(
                f"column {name!r} is read as {KIND_NAMES[cells.kind]}; {listing} {verb} taken as missing: {advice}"
            )
        if (more := len(self._columns) - MOST_COLUMNS) > 0:
            notes.append(f"{more} more column{'s' * (more > 1)} with such cells")
        return notes


def _cells(count: int) -> str:
    return f"{count:,} cell{'s' * (count != 1)}"
