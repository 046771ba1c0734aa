"""Units that change in mid-stream: columns that moved are noticed, and a standardisation that undoes it is judged.

Source: Dawid 1984 (a map is judged by what is predicted under it).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..preprocessing.number import YOUNG, Number
from .copies import BLOCK
from .moves import Moments, Move, standard
from .usual import NEVER, START, WINDOWS, Usual

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..preprocessing import Columns, Encoder
    from ..preprocessing.rows import Rows

    LogLikelihood = Callable[[Encoder, Rows], np.ndarray]

MARGIN, MOST = 16.0, float(-np.log(1e-4))
"""Nats by which rows must be likelier, in all, and at most each."""

WORSE = 1.0
"""Nats by which rows may be less likely where a standardisation is refined."""

FIRST, LAST = 128, 1024
"""Rows after which a new standardisation is refined, at each doubling."""

TENS, NEAR = 0.2, 1.0
"""A factor is a power of ten if its logarithm to the base ten is so close to one, and the mean so many deviations."""

SURPRISE = 20.0
"""Nats at most by which one number says whether it is of before or after a move."""


@dataclass(frozen=True)
class Units:
    """Columns that may come in another unit, and rows that wait where they seem to.

    A block of 32 rows in which a column moves waits. If the rows after it move, too, these are taken to be the numbers
    of before in another unit: the standardisation that says so is adopted if the predictor as it is finds the rows
    likelier by `MARGIN` nats. Otherwise they are learnt as they stand.

    Fields: `places [p]` of columns in the table; `usual`, what their numbers are, standardised; `total`: rows seen.
    `past [m, p]`: the last rows, at most 32, standardised; `block_rows`: how many are of this block. `suspects [p]` and
    `pending`: columns that moved, and rows that wait. `calm`: what predicted before the last window began, if known.

    Example:
        >>> import numpy as np
        >>> from gradatim.memory.units import Units
        >>> from gradatim.preprocessing import Encoder, read_columns
        >>> columns = read_columns(np.arange(64.0)[:, None])
        >>> Units.begin(Encoder.fit(columns), columns).usual.count
        array([64.])
    """

    places: np.ndarray
    usual: Usual
    total: int
    past: np.ndarray
    block_rows: int = 0
    suspects: np.ndarray | None = None
    pending: Rows | None = None
    calm: tuple[Any, ...] | None = None

    @classmethod
    def begin(cls, encoder: Encoder, columns: Columns) -> Self | None:
        """Return what is usual in rows that a map was made from; None where no column can be followed."""
        maps = enumerate(encoder.maps)
        places = np.array(
            [at for at, column in maps if isinstance(column, Number) and column.stage != YOUNG], np.int64
        )
        if not len(places):
            return None
        usual = Usual.of_rows(standard(encoder, columns, places))
        return cls(places, usual, columns.n_rows, np.empty((0, len(places))))

    def widened(self, place: np.ndarray) -> Self:
        """Return the units where class c has become class `place[c]`."""
        if self.pending is None:
            return self
        return replace(self, pending=replace(self.pending, y=place[self.pending.y.astype(int)].astype(float)))

    @property
    def room(self) -> int:
        """Return how many rows may be taken at once."""
        return BLOCK - (self.block_rows if self.pending is None else 0)

    def take(
        self, rows: Rows, encoder: Encoder, log_likelihood: LogLikelihood
    ) -> tuple[Self, list[tuple[Move | None, Rows]]]:
        """Return the units after rows, at most `room`, and what is to be learnt now: rows, each after a move, if any.

        `log_likelihood(encoder, rows)`: of rows under a map, `[n]`, as the predictor finds it.
        """
        units = replace(self, total=self.total + len(rows))
        if self.pending is not None:
            pending = self.pending.concat(rows)
            return (
                units._decided(pending, encoder, log_likelihood)
                if len(pending) > BLOCK
                else (replace(units, pending=pending), [])
            )
        z = np.concatenate([self.past, standard(encoder, rows.columns, self.places)])
        block_rows, windows = self.block_rows + len(rows), self.block_rows // WINDOWS[0]
        units = replace(units, past=z[-BLOCK:], block_rows=block_rows)
        if block_rows // WINDOWS[0] > windows and units.total > START:
            suspects = np.any([self.usual.drifted(z[-size:]) for size in WINDOWS if len(z) >= size], axis=0)
            if suspects.any():
                return replace(units, suspects=suspects, pending=rows), []
        if block_rows < BLOCK:
            return units, [(None, rows)]
        units, move = replace(units._restarted(), usual=self.usual.after(z[-BLOCK:]))._refined(
            rows, encoder, log_likelihood
        )
        return units, [(move, rows)]

    def settled(self) -> tuple[Self, Rows | None]:
        """Return the units without rows that wait or a block that is not full, and the rows that waited."""
        usual = self.usual
        if self.pending is None:
            block = Moments.of(self.past[len(self.past) - self.block_rows :])
            usual = usual.joined(block, block.count > 0)
        return replace(self._restarted(), usual=usual, past=self.past[:0]), self.pending

    def _restarted(self) -> Self:
        """Return the units at the start of a block, without rows that wait."""
        return replace(self, block_rows=0, suspects=None, pending=None)

    def _decided(
        self, pending: Rows, encoder: Encoder, log_likelihood: LogLikelihood
    ) -> tuple[Self, list[tuple[Move | None, Rows]]]:
        """Return the units after rows that waited, and these, to be learnt as they stand or under a move."""
        z = standard(encoder, pending.columns, self.places)
        drifted, suspects = self.usual.drifted(z[-BLOCK:]), self.suspects
        assert suspects is not None
        usual = self.usual.after(z, drifted | suspects)
        units = replace(self._restarted(), past=z[-BLOCK:])
        if not (drifted & suspects).any():
            return replace(units, usual=usual.muted(suspects)), [(None, pending)]
        cut = self._cut(z, self._candidate(Moments.of(z[-BLOCK:]), drifted, encoder))
        after, late = Moments.of(z[cut:]), pending.take(slice(cut, None))
        move = self._candidate(after, drifted, encoder)
        if not gain(move, late, encoder, log_likelihood) > MARGIN:
            usual = usual.restarted(Moments.of(z[-BLOCK:]), drifted).muted(drifted)
            return replace(units, usual=usual), [(None, pending)]
        parts = [(None, pending.take(slice(cut)))] if cut else []
        units = replace(units, usual=adopted(usual, after, move), past=move.read(z[-BLOCK:]))
        return units, [*parts, (move, late)]

    def _candidate(self, after: Moments, drifted: np.ndarray, encoder: Encoder) -> Move:
        """Return the move after which columns that moved `[p]` have the mean and the deviation of before."""
        usual = self.usual
        factor = np.where(drifted & usual.rescaled(after), after.deviation / usual.spread, 1.0)
        shift = np.where(drifted, after.mean - factor * usual.level, 0.0)
        tens = 10.0 ** np.round(np.log10(factor))
        columns: list[Number] = [encoder.maps[place] for place in self.places]  # type: ignore[misc]
        exact = (tens - 1) * np.array([column.centre / column.scale for column in columns])
        ten = (tens != 1) & (np.abs(np.log10(factor / tens)) < TENS)
        ten &= np.abs((after.mean - exact) / tens - usual.level) < NEAR * usual.spread
        return Move(self.places, np.where(ten, exact, shift), np.where(ten, tens, factor)).possible(encoder)

    def _cut(self, z: np.ndarray, move: Move) -> int:
        """Return before which of rows `[n, p]` columns moved, as their normal likelihood before and after says."""
        usual = self.usual
        before, after = (((part - usual.level) / usual.spread) ** 2 / 2 for part in (z, move.read(z)))
        gains = np.where(move.moves & ~np.isnan(z), after + np.log(move.factor) - before, 0.0)
        sums = gains.clip(-SURPRISE, SURPRISE).sum(1).cumsum()
        return int(np.concatenate([[0.0], sums])[: len(z) - BLOCK // 2].argmax())

    def _refined(
        self, rows: Rows, encoder: Encoder, log_likelihood: LogLikelihood
    ) -> tuple[Self, Move | None]:
        """Return the units, and a move by which columns whose rows have doubled since they moved are read better."""
        usual, now = self.usual, self.usual.count >= self.usual.due
        if not now.any():
            return self, None
        deviation = usual.moments.deviation
        factor = np.where(now & (usual.scaled > 0) & (deviation > 0), deviation / usual.spread, 1.0)
        shift = np.where(now, usual.mean - factor * usual.level, 0.0)
        move = Move(self.places, shift, factor).possible(encoder)
        usual = replace(usual, due=np.where(now, np.where(usual.due < LAST, 2 * usual.due, NEVER), usual.due))
        if gain(move, rows, encoder, log_likelihood) < -WORSE:
            return replace(self, usual=usual), None
        usual = replace(usual, mean=move.read(usual.mean), var=usual.var / move.factor**2)
        return replace(self, usual=usual, past=move.read(self.past)), move


def gain(move: Move, rows: Rows, encoder: Encoder, log_likelihood: LogLikelihood) -> float:
    """Return by how many nats rows are likelier after a move, as a predictor finds them."""
    if not move.moves.any():
        return 0.0
    gains = log_likelihood(move.applied(encoder), rows) - log_likelihood(encoder, rows)
    return float(gains.clip(-MOST, MOST) @ rows.weight)


def adopted(usual: Usual, after: Moments, move: Move) -> Usual:
    """Return what is usual under a new map; numbers that moved by a power of ten are what they were."""
    tens = (move.factor != 1) & (move.factor == 10.0 ** np.round(np.log10(move.factor)))
    guessed = move.moves & ~tens
    read = Moments(after.count, move.read(after.mean), after.var / move.factor**2)
    return replace(
        usual,
        **read.where(guessed, usual.moments)._asdict(),
        due=np.where(guessed, FIRST, usual.due),
        scaled=np.where(guessed, move.factor != 1, usual.scaled),
    )
