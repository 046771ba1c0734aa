"""What is known of many groups: a place for each name, and the sums of all of them in a few arrays.

Source: Knuth 1997, sec. 2.2.2 (arrays that grow by a share of their size).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .sums import LEVELS, NEVER, REMAINDER, Sums, check_remainder

NEW = -1
"""The fold of groups that taught the pooled models nothing."""


class GroupState:
    """The sums of K groups, each with some heads, found by name; changed in place.

    Fields: `index`: the place of each name; `heads`: of a group; `fold` and `sums`: arrays with room for more groups.

    Example:
        >>> from gradatim.groups.state import GroupState
        >>> state = GroupState.empty(width=2, heads=1, classes=False)
        >>> state.places(["a", "b", "a"]), len(state)
        (array([0, 1, 0]), 2)
    """

    def __init__(self, index: dict[Any, int], heads: int, fold: np.ndarray, sums: Sums) -> None:
        self.index, self.heads, self.fold, self.sums = index, heads, fold, sums

    @classmethod
    def empty(cls, width: int, heads: int, classes: bool) -> GroupState:
        """Return the state of no groups, with features `width` wide."""
        sums = Sums.zeros(0, width, len(LEVELS) if classes else 1)
        return cls({}, heads, np.zeros(0, dtype=np.int64), sums)

    def __len__(self) -> int:
        """Return how many groups there are."""
        return len(self.index)

    def places(self, names: list[Any], fold: np.ndarray | None = None) -> np.ndarray:
        """Return the places of groups `[k]`; new ones get one, with the folds `[k]` or `NEW`."""
        index, before = self.index, len(self.index)
        found = np.array([index.setdefault(name, len(index)) for name in names], dtype=np.int64)
        if len(index) > before:
            if len(index) > len(self.fold):
                room = max(len(index), len(self.fold) * 5 // 4)
                self.fold = np.concatenate([self.fold, np.full(room - len(self.fold), NEW)])
                self.sums = self.sums.grown(room * self.heads)
            if fold is not None:
                is_new = found >= before
                self.fold[found[is_new]] = fold[is_new]
        return found

    def folds(self, names: list[Any]) -> np.ndarray:
        """Return the folds of groups `[k]`, `NEW` of those that are not known."""
        index, fold = self.index, self.fold
        return np.array([fold[index[name]] if name in index else NEW for name in names], dtype=np.int64)

    def add(self, names: list[Any], sums: Sums, fold: np.ndarray | None = None) -> None:
        """Add the sums of groups, all different, to what is known of them."""
        places = self.places(names, fold)  # which may make room: new arrays
        self.sums.add_at(self._heads_of(places), sums)

    def take_away(self, names: list[Any], sums: Sums) -> GroupState:
        """Return the state without sums of groups, all different; a group of which no row is left is gone.

        Raises:
            ValueError: the sums that would be left are those of no rows.
        """
        unknown = [name for name in names if name not in self.index]
        if unknown:
            raise ValueError(f"{NEVER}: group {unknown[0]!r} is not known")
        before = self.of(names)
        left = before.plus(sums, -1.0)
        check_remainder(left, before)
        gone = left.count[:: self.heads] <= REMAINDER * before.count[:: self.heads]
        kept = Sums(*(part.copy() for part in self.sums))
        places = self._heads_of(np.array([self.index[name] for name in names], dtype=np.int64))
        for mine, theirs in zip(kept, left, strict=True):
            mine[places] = theirs
        kept.beyond[kept.far <= REMAINDER * kept.count] = (
            0.0  # of absurd numbers, rounding is no small number
        )
        state = GroupState(dict(self.index), self.heads, self.fold.copy(), kept)
        return state.without([name for name, none in zip(names, gone, strict=True) if none])

    def of(self, names: list[Any]) -> Sums:
        """Return the sums of groups; those that are not known have none."""
        places = np.array([self.index.get(name, NEW) for name in names], dtype=np.int64)
        known = np.flatnonzero(places >= 0)
        out = Sums.zeros(len(names) * self.heads, self.sums.linear.shape[2], self.sums.linear.shape[1])
        out.add_at(self._heads_of(known), self.sums.take(self._heads_of(places[known])))
        return out

    def rows(self) -> np.ndarray:
        """Return how many rows each group has, `[K]`."""
        return self.sums.count[: len(self) * self.heads : self.heads].copy()

    def compact(self) -> tuple[np.ndarray, Sums]:
        """Return the folds and the sums without room."""
        return self.fold[: len(self)], self.sums.take(slice(len(self) * self.heads))

    def without(self, names: list[Any]) -> GroupState:
        """Return the state without some groups."""
        gone = set(names)
        index = {other: place for other, place in self.index.items() if other not in gone}
        kept = np.array(list(index.values()), dtype=np.int64)
        index = dict(zip(index, range(len(index)), strict=True))
        return GroupState(index, self.heads, self.fold[kept], self.sums.take(self._heads_of(kept)))

    def _heads_of(self, places: np.ndarray) -> np.ndarray:
        return (places[:, None] * self.heads + np.arange(self.heads)).ravel()
