"""The map from a column of categories to one-hot codes: a table of levels, extended as new ones appear.

Source: Pedregosa et al. 2011 (one-hot codes).
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

MAX_LEVELS, SPARE_LEVELS = 32, 4
"""Levels of a column that get a code of their own, and free codes for levels that appear later."""

LONGEST = 200
"""Letters of a word that are stored; a longer one is known by its beginning and a hash."""

MAX_CODES = 512
"""One-hot codes of all columns together; with more, each column of categories gets fewer levels, but at least one."""


@dataclass(frozen=True)
class Category:
    """The map of a column of categories: a table of levels, with one code each.

    Fields:
        `levels`: the sorted levels of the fitted rows, then those that were added later.
        `slots`: the number of codes for levels.
        `has_other`: whether all further levels share one more code.
        `has_missing`: whether a value was missing. Then missing has a code.
        `truncated`: whether the fitted rows had more levels than codes.

    Raises:
        ValueError: a level occurs twice, or there are fewer slots than levels.

    Example:
        >>> from gradatim.preprocessing import Category
        >>> colour = Category(("blue", "red"), slots=6, has_other=True, has_missing=False, truncated=False)
        >>> colour.width, colour.codes()
        (7, {'blue': 0, 'red': 1})
    """

    levels: tuple[str, ...]
    slots: int
    has_other: bool
    has_missing: bool
    truncated: bool

    def __post_init__(self) -> None:
        if len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels must differ; got {self.levels}")
        if self.slots < len(self.levels):
            raise ValueError(f"slots must hold the {len(self.levels)} levels; got {self.slots}")

    @classmethod
    def from_tally(cls, tally: Tally, max_slots: int) -> Category:
        """Return the map of a counted column with at most `max_slots` slots; with 0, one code for the first level
        alone.
        """
        if max_slots == 0:
            truncated = tally.distinct > 1 or tally.has_missing
            return cls(tuple(tally.top[:1]), 1, has_other=False, has_missing=False, truncated=truncated)
        levels = tally.top[: max_slots - min(SPARE_LEVELS, max_slots // 8)]
        slots = min(tally.distinct + SPARE_LEVELS, max_slots)
        return cls(tuple(sorted(levels)), slots, True, tally.has_missing, tally.distinct > len(levels))

    @property
    def width(self) -> int:
        """Return the number of codes."""
        return self.slots + self.has_other + self.has_missing

    @property
    def other_code(self) -> int:
        """Return the code that all further levels share, or -1 if they have none."""
        return self.slots if self.has_other else -1

    def codes(self) -> dict[str | None, int]:
        """Return the code of each level, and of None if missing has one."""
        codes: dict[str | None, int] = {level: code for code, level in enumerate(self.levels)}
        return codes | {None: self.slots + self.has_other} if self.has_missing else codes

    def extend(self, values: np.ndarray, max_slots: int) -> Category:
        """Return the map with the new levels of a column `[rows]`, in the order in which they appear.

        Slots double where none is free, up to `max_slots`; then further levels share the code of all others.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing import Category
            >>> colour = Category(("red",), slots=1, has_other=True, has_missing=False, truncated=False)
            >>> wider = colour.extend(np.array(["green", "blue", "green", None], dtype=object), max_slots=2)
            >>> wider.levels, wider.slots
            (('red', 'green'), 2)
        """
        limit = max(self.slots, max_slots)
        if len(self.levels) >= limit or not (set(values.tolist()) - {None, *self.levels}):
            return self
        return self._with(dict.fromkeys(value for value in values.tolist() if value is not None), limit)

    def _with(self, levels: dict[str, None], max_slots: int) -> Category:
        """Return the map with further levels, as many as `max_slots` slots hold."""
        all_levels = tuple(dict.fromkeys((*self.levels, *levels)))[:max_slots]
        slots = self.slots
        while slots < len(all_levels):
            slots = min(2 * slots, max_slots)
        return replace(self, levels=all_levels, slots=slots)

    def merge(self, category: Category, max_slots: int) -> Category | None:
        """Return the map with the levels of both, these first; None if both were not one map in the beginning.

        Example:
            >>> from gradatim.preprocessing import Category
            >>> first, second = (Category(("a", level), 4, True, False, False) for level in "bc")
            >>> first.merge(second, max_slots=4).levels
            ('a', 'b', 'c')
        """
        same = (self.has_other, self.has_missing, self.truncated) == (
            category.has_other,
            category.has_missing,
            category.truncated,
        )
        if not same:
            return None
        return self._with(dict.fromkeys(category.levels), max(self.slots, category.slots, max_slots))


def shortened(values: np.ndarray) -> np.ndarray:
    """Return words `[rows]`, of those longer than `LONGEST` the beginning and a hash; the array itself if none is.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.category import shortened
        >>> len(shortened(np.array(["a" * 1000, None], dtype=object))[0])
        117
    """
    if max((len(word) for word in values.tolist() if word is not None), default=0) <= LONGEST:
        return values
    short = np.empty(len(values), dtype=object)
    short[:] = [
        _short(word) if word is not None and len(word) > LONGEST else word for word in values.tolist()
    ]
    return short


def _short(word: str) -> str:
    return f"{word[: LONGEST // 2]}…{hashlib.sha256(word.encode(errors='surrogatepass')).hexdigest()[:16]}"


class Tally(NamedTuple):
    """The counted levels of a column.

    Fields: `top`: its `MAX_LEVELS` heaviest levels, ties by name; `distinct`: the number of levels; `has_missing`:
    whether a value is missing.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.category import Category, Tally
        >>> tally = Tally.from_column(np.array(["b", "a", "a", None], dtype=object), np.ones(4))
        >>> tally
        Tally(top=['a', 'b'], distinct=2, has_missing=True)
        >>> Category.from_tally(tally, max_slots=8).levels
        ('a', 'b')
    """

    top: list[str]
    distinct: int
    has_missing: bool

    @classmethod
    def from_column(cls, values: np.ndarray, weight: np.ndarray) -> Tally:
        """Count the levels of a column `[rows]`, None for missing, with positive weights `[rows]`.

        Shares of the weight are rounded to twelve digits, so that rounding errors break no tie.
        """
        code_of: dict[str | None, int] = {}
        codes = np.fromiter(
            (code_of.setdefault(value, len(code_of)) for value in values.tolist()), np.int64, len(values)
        )
        counts = np.bincount(codes, weight, len(code_of))
        shares = np.round(counts / counts.max(), 12)
        has_missing = None in code_of
        if has_missing:
            shares[code_of[None]] = -1.0  # below every level
        n_top = min(MAX_LEVELS, len(shares))
        lowest_share = np.partition(shares, -n_top)[-n_top]
        pairs = list(zip(code_of, shares.tolist(), strict=True))
        above = sorted(
            (-share, level) for level, share in pairs if level is not None and share > lowest_share
        )
        tied = heapq.nsmallest(
            n_top, (level for level, share in pairs if level is not None and share == lowest_share)
        )
        return cls(
            [*(level for _, level in above), *tied][:MAX_LEVELS], len(code_of) - has_missing, has_missing
        )


def slots_per_column(tallies: list[Tally]) -> int:
    """Return how many slots a column of categories may have so that all codes fit in `MAX_CODES`."""
    for n_slots in range(MAX_LEVELS + SPARE_LEVELS, 0, -1):
        if sum(Category.from_tally(tally, n_slots).width for tally in tallies) <= MAX_CODES:
            return n_slots
    return 0
