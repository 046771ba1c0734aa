"""The best sequences of each prompt, kept to learn from again.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363), section 3.3 and their released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

ALIKE = 0.25
"""Two sequences are near-duplicates below this share of the sum of their lengths in edits."""


class Replay:
    """The sequences with the highest rewards of one prompt; of near-duplicates the better one.

    Args:
        size: how many are kept.

    Example:
        >>> from gradatim.language.replay import Replay
        >>> replay = Replay(size=2)
        >>> [replay.add(row, reward) for row, reward in (([1, 2, 3], 0.0), ([1, 2, 4], -1.0), ([7, 8, 9], -2.0))]
        [True, False, True]
        >>> replay.rows
        [[1, 2, 3], [7, 8, 9]]
    """

    def __init__(self, size: int = 50) -> None:
        self._size = size
        self._kept: list[tuple[float, list[int]]] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def rows(self) -> list[list[int]]:
        """Return what is kept, the best first."""
        return [row for _, row in self._kept]

    def add(self, row: Sequence[int], reward: float) -> bool:
        """Keep a sequence where it is good enough; return whether it is kept."""
        full = len(self._kept) >= self._size
        if full and reward <= self._kept[-1][0]:
            return False
        alike = [entry for entry in self._kept if near(row, entry[1])]
        if any(kept >= reward for kept, _ in alike):
            return False
        rest = [entry for entry in self._kept if not any(entry is other for other in alike)]
        self._kept = sorted([*rest, (reward, list(row))], key=lambda entry: -entry[0])[: self._size]
        return True

    def draw(self, n: int, generator: torch.Generator) -> list[list[int]]:
        """Return n sequences, drawn with replacement.

        Raises:
            ValueError: nothing is kept yet.
        """
        if not self._kept:
            raise ValueError("nothing is kept yet: add a sequence first")
        places = torch.randint(len(self._kept), (n,), generator=generator)
        return [self._kept[place][1] for place in places.tolist()]


def near(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two sequences are the same, or few edits apart for their lengths.

    Example:
        >>> from gradatim.language.replay import near
        >>> near([1, 2, 3, 4], [1, 2, 3, 5]), near([1, 2], [1, 3])
        (True, False)
    """
    if list(one) == list(other):
        return True
    limit = ALIKE * (len(one) + len(other))
    return abs(len(one) - len(other)) < limit and edits(one, other) < limit


def edits(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the least number of insertions, deletions and replacements that make one sequence the other.

    Example:
        >>> from gradatim.language.replay import edits
        >>> edits([1, 2, 3], [2, 3, 4])
        2
    """
    row = list(range(len(other) + 1))
    for i, symbol in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (symbol != wanted))
    return row[-1]
