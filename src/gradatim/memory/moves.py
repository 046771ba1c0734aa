"""Numbers of some columns in another unit: how they are read as before, and how columns are looked at.

Source: Pedregosa et al. 2011 (standardisation); Chan, Golub, LeVeque 1983, eq. 2.1 (moments of two parts).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from typing import Self

    from ..preprocessing import Columns, Encoder

LARGEST = 1e140
"""Standardised numbers are taken as it beyond it: their squares stay finite."""


class Moments(NamedTuple):
    """How many numbers a column holds, their mean and their variance, `[p]` each.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.moves import Moments
        >>> first, more = (Moments.of(np.array(part)) for part in ([[1.0], [3.0]], [[np.nan], [8.0]]))
        >>> first.plus(more).mean, Moments.of(np.array([[1.0], [3.0], [8.0]])).var.round(4)
        (array([4.]), array([8.6667]))
    """

    count: np.ndarray
    mean: np.ndarray
    var: np.ndarray

    @classmethod
    def of(cls, numbers: np.ndarray) -> Moments:
        """Return the moments of numbers `[n, p]`, NaN where missing."""
        present = ~np.isnan(numbers)
        count = present.sum(0).astype(float)
        divisor = np.maximum(count, 1)
        mean = np.where(present, numbers, 0).sum(0) / divisor
        return cls(count, mean, (np.where(present, numbers - mean, 0) ** 2).sum(0) / divisor)

    def plus(self, more: Moments) -> Moments:
        """Return the moments of the rows of both."""
        count = self.count + more.count
        share, apart = more.count / np.maximum(count, 1), more.mean - self.mean
        var = (1 - share) * self.var + share * more.var + share * (1 - share) * apart**2
        return Moments(count, self.mean + share * apart, var)

    def where(self, chosen: np.ndarray, otherwise: Moments) -> Moments:
        """Return these moments where `chosen [p]`, elsewhere the others."""
        return Moments(*(np.where(chosen, *pair) for pair in zip(self, otherwise, strict=True)))

    @property
    def deviation(self) -> np.ndarray:
        """Return the standard deviation of each column `[p]`."""
        return np.sqrt(self.var)


@dataclass(frozen=True)
class Move:
    """Another standardisation of some columns: what read as z now reads as `(z - shift) / factor`.

    Fields: `places [p]` of columns in the table; `shift [p]` and `factor [p]`, 0 and 1 where a column stays.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.moves import Move
        >>> from gradatim.preprocessing import Encoder, read_columns
        >>> encoder = Encoder.fit(read_columns([[1.0], [3.0]]))
        >>> move = Move(np.array([0]), np.array([1998.0]), np.array([1000.0]))
        >>> move.applied(encoder).encode(read_columns([[1000.0], [3000.0]]))
        array([[-1.],
               [ 1.]])
    """

    places: np.ndarray
    shift: np.ndarray
    factor: np.ndarray

    @property
    def moves(self) -> np.ndarray:
        """Return whether columns move, `[p]`."""
        return (self.shift != 0) | (self.factor != 1)

    def read(self, z: np.ndarray) -> np.ndarray:
        """Return what reads as z `[n, p]` now as it reads then."""
        return (z - self.shift) / self.factor

    def applied(self, encoder: Encoder) -> Encoder:
        """Return the map under which numbers are read so."""
        maps = list(encoder.maps)
        for place, shift, factor in self:
            maps[place] = maps[place].moved(shift, factor)  # type: ignore[union-attr]
        return replace(encoder, maps=tuple(maps))

    def possible(self, encoder: Encoder) -> Self:
        """Return the move of the columns that it can be of: their scale stays in the range of numbers."""
        possible = np.ones(len(self.places), bool)
        for at, (place, shift, factor) in enumerate(zip(self.places, self.shift, self.factor, strict=True)):
            try:
                encoder.maps[place].moved(float(shift), float(factor))  # type: ignore[union-attr]
            except (ValueError, OverflowError):
                possible[at] = False
        return replace(
            self, shift=np.where(possible, self.shift, 0), factor=np.where(possible, self.factor, 1)
        )

    def names(self, encoder: Encoder) -> list[str]:
        """Return the columns and how they moved, for a warning."""
        phrases = []
        for place, shift, factor in self:
            by = shift * encoder.maps[place].scale  # type: ignore[union-attr]
            phrases.append(
                f"{encoder.names[place]!r} ({f'moved by {by:.4g}' if factor == 1 else f'times {factor:.4g}'})"
            )
        return phrases

    def __iter__(self):  # type: ignore[no-untyped-def]
        for place, shift, factor in zip(
            self.places.tolist(), self.shift.tolist(), self.factor.tolist(), strict=True
        ):
            if (shift, factor) != (0.0, 1.0):
                yield place, shift, factor


def standard(encoder: Encoder, columns: Columns, places: np.ndarray) -> np.ndarray:
    """Return the numbers of columns, standardised, with nothing soft about their tails; NaN where missing `[n, p]`.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.moves import standard
        >>> from gradatim.preprocessing import Encoder, read_columns
        >>> columns = read_columns([[1.0], [3.0]])
        >>> standard(Encoder.fit(columns), read_columns([[1002.0]]), np.array([0]))
        array([[1000.]])
    """
    columns = encoder.align(columns)
    maps = [encoder.maps[place] for place in places]
    raw = (
        np.stack([np.asarray(columns.values[place], dtype=float) for place in places], axis=1)
        if columns.matrix is None
        else columns.matrix[:, places]
    )
    for at, column in enumerate(maps):
        if column.codes:  # type: ignore[union-attr]
            raw[:, at] = np.where(np.isin(raw[:, at], column.codes), np.nan, raw[:, at])  # type: ignore[union-attr]
    centre, scale = np.array([(column.centre, column.scale) for column in maps]).T  # type: ignore[union-attr]
    with np.errstate(over="ignore"):
        return ((raw - centre) / scale).clip(-LARGEST, LARGEST)
