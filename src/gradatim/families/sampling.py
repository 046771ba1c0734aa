"""What every family does: check its fields, hide rows of ragged supports, draw images without replacement.

Source: this project's own; ragged supports stand for the mini-batches of every size in Mittal et al. 2025.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from ..batch import Batch, Task
from ..family import TaskFamily
from ..likelihood import CrossEntropy

if TYPE_CHECKING:
    from typing import Self

    from torch import Tensor


SPLITS = ("train", "validation", "test")
"""The pools that a family of real rows is divided into."""


def check_count(name: str, value: object, least: int) -> None:
    """Refuse a field that is not an integer of at least `least`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_count("dim", 8, least=1)
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}; got {value!r}")


def check_amount(name: str, value: object, above: float, inclusive: bool = False) -> None:
    """Refuse a field that is not a finite number above (or, inclusive, at least) `above`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_amount("noise_std", 0.5, above=0)
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        fits = value >= above if inclusive else value > above
    else:
        fits = False
    if not fits:
        wanted = "of at least" if inclusive else "above"
        raise ValueError(f"{name} must be a finite number {wanted} {above:g}; got {value!r}")


def check_rows(family: TaskFamily) -> None:
    """Refuse row counts that no task can have.

    Raises:
        ValueError: no rows asked for, or `min_support_rows` above `support_rows`.

    Example:
        >>> check_rows(LinearRegression(8, support_rows=20, min_support_rows=5))
    """
    check_count("support_rows", family.support_rows, least=1)
    check_count("query_rows", family.query_rows, least=1)
    if family.min_support_rows is None:
        return
    check_count("min_support_rows", family.min_support_rows, least=1)
    if family.min_support_rows > family.support_rows:
        raise ValueError(
            f"min_support_rows must be at most support_rows = {family.support_rows}; got "
            f"{family.min_support_rows}: lower it, or leave it None for supports of one size"
        )


def check_sample(n_tasks: object, generator: object) -> None:
    """Refuse arguments with which no family can sample.

    Raises:
        ValueError: n_tasks is not a positive integer, or generator is not a CPU generator.

    Example:
        >>> check_sample(16, torch.Generator().manual_seed(0))
    """
    check_count("n_tasks", n_tasks, least=1)
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"sample needs an explicit torch.Generator; got {type(generator).__name__}: "
            "pass torch.Generator().manual_seed(0)"
        )
    if generator.device.type != "cpu":
        raise ValueError(
            f"tasks are drawn with a CPU generator; got one on {generator.device}: "
            "make it without a device, and move the tasks with Task.to"
        )


def support_mask(family: TaskFamily, n_tasks: int, generator: torch.Generator) -> Tensor:
    """Return the mask `[B, support_rows]` of supports; ragged ones keep their first rows.

    The number kept is uniform on `min_support_rows .. support_rows`. Families draw it last, so that the rows are
    the same with and without it.

    Example:
        >>> family = LinearRegression(8, support_rows=20, min_support_rows=5)
        >>> support_mask(family, 3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 20])
    """
    if family.min_support_rows is None:
        return torch.ones(n_tasks, family.support_rows, dtype=torch.bool)
    kept = torch.randint(family.min_support_rows, family.support_rows + 1, (n_tasks, 1), generator=generator)
    return torch.arange(family.support_rows) < kept


def permutations(sizes: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return the first `length` places of a uniformly random order of `range(sizes[b])`, for each b: `[B, length]`.

    Where `sizes[b] < length`, what stands from place `sizes[b]` on has no meaning. Small ranges are shuffled by
    sorting random keys; ranges of more than twice `length` by drawing with replacement and keeping first
    occurrences, which costs O(length) however large the range is and has the same distribution.

    Example:
        >>> permutations(torch.tensor([3, 60000]), 2, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 2])
    """
    smallest, largest = int(sizes.min()), int(sizes.max())
    if largest <= 256 or smallest <= 2 * length:
        keys = torch.rand(len(sizes), largest, generator=generator, dtype=torch.float64)
        keys.masked_fill_(torch.arange(largest) >= sizes[:, None], math.inf)
        return keys.argsort(dim=1)[:, :length]
    draws = torch.empty(len(sizes), 0, dtype=torch.int64)
    expected = -smallest * math.log1p(-length / smallest)
    while True:
        more = int(expected + 6 * math.sqrt(length)) + 8
        fresh = torch.rand(len(sizes), more, generator=generator, dtype=torch.float64) * sizes[:, None]
        draws = torch.cat((draws, fresh.long()), dim=1)
        ordered, place = draws.sort(dim=1, stable=True)
        again = torch.zeros_like(draws, dtype=torch.bool)
        again.scatter_(1, place[:, 1:], ordered[:, 1:] == ordered[:, :-1])
        rank = (~again).cumsum(dim=1) - 1
        if int(rank[:, -1].min()) >= length - 1:
            rank = torch.where(again, length, rank.clamp(max=length))
            return draws.new_zeros(len(sizes), length + 1).scatter_(1, rank, draws)[:, :length]


def draw_disjoint(
    sizes: Tensor, n_query: int, n_support: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return places `[B, n_query]` and `[B, n_support]` in `range(sizes[b])`, no query place among the support's.

    Both are drawn without replacement. Where the support asks for more than the query leaves, it goes on in fresh
    reshuffled passes over the places that are left: rows beyond the pool are repeats.

    Raises:
        ValueError: the query leaves nothing for the support.

    Example:
        >>> query, support = draw_disjoint(torch.tensor([10]), 4, 12, torch.Generator().manual_seed(0))
        >>> len(set(query[0].tolist())), len(set(support[0].tolist()))
        (4, 6)
    """
    if n_query >= int(sizes.min()):
        raise ValueError(
            f"query_rows must leave rows for the support; got {n_query} of a pool of {int(sizes.min())}: "
            "ask for fewer query rows"
        )
    first = permutations(sizes, min(n_query + n_support, int(sizes.max())), generator)
    query, rest = first[:, :n_query], first[:, n_query:]
    left = (sizes - n_query)[:, None]
    if n_support <= int(left.min()):
        return query, rest[:, :n_support]
    place = torch.arange(n_support)
    width, passes = rest.shape[1], math.ceil(n_support / int(left.min()))
    shuffled = [permutations(left[:, 0].clamp(max=width), width, generator) for _ in range(passes - 1)]
    orders = torch.stack((torch.arange(width).expand(len(sizes), width), *shuffled), dim=1)
    order = orders[torch.arange(len(sizes))[:, None], place // left, place % left]
    return query, rest.gather(1, order)


def draw_classes(
    starts: Tensor,
    counts: Tensor,
    ways: int,
    support_rows: int,
    query_rows: int,
    n_tasks: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return rows of random classes for support and query, and their classes in random order: index, label `[B, N]`.

    A pool's rows are sorted by class: class c has `counts[c]` of them from `starts[c]` on. The first `support_rows` are
    the support's, the others the query's (`draw_disjoint`); label lies in 0 .. ways - 1.

    Raises:
        ValueError: the query leaves nothing for the support.

    Example:
        >>> starts, counts = torch.tensor([0, 5]), torch.tensor([5, 5])
        >>> index, label = draw_classes(starts, counts, 2, 4, 4, 1, torch.Generator().manual_seed(0))
    """
    chosen = permutations(torch.full((n_tasks,), len(counts)), ways, generator)
    sizes = counts[chosen]
    ends = sizes.cumsum(dim=1)
    query, support = draw_disjoint(ends[:, -1], query_rows, support_rows, generator)
    place = torch.cat((support, query), dim=1)
    label = torch.searchsorted(ends, place, right=True)
    return place + (starts[chosen] - ends + sizes).gather(1, label), label


@dataclass(frozen=True)
class PooledClassification(TaskFamily):
    """Tasks of `ways` classes of a pool of real rows, numbered anew for each task; a subclass says rows and features.

    Fields: `source` of the rows; `dim` of a row's features; `ways`; `split`: the pool, one of `SPLITS`.

    Raises:
        ValueError: an unknown split, dim below 1, ways below 2, impossible rows.
    """

    source: str = ""
    dim: int | None = None
    ways: int = 10
    split: str = "train"

    def __post_init__(self) -> None:
        check_rows(self)
        if self.dim is not None:
            check_count("dim", self.dim, least=1)
        check_count("ways", self.ways, least=2)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    @property
    def likelihood(self) -> CrossEntropy:
        """Return that y is one of `ways` classes."""
        return CrossEntropy(self.ways)

    def on(self, split: str) -> Self:
        """Return the family over another pool: `train`, `validation` or `test`.

        Raises:
            ValueError: it is none of them.
        """
        return replace(self, split=split)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator.

        Raises:
            ValueError: n_tasks below 1, no CPU generator, or what the class says of sampling.
        """
        check_sample(n_tasks, generator)
        pool, n = self._pool(), self.support_rows
        index, label = draw_classes(
            pool.starts, pool.counts, self.ways, n, self.query_rows, n_tasks, generator
        )
        x, y = self._features(pool, index, generator), label[..., None]
        support = Batch(x[:, :n], y[:, :n], support_mask(self, n_tasks, generator))
        return Task(support, Batch(x[:, n:], y[:, n:]))

    @abstractmethod
    def _pool(self) -> Any:
        """Return the pool of this split: rows sorted by class, of which class c has `counts[c]` from `starts[c]` on."""

    @abstractmethod
    def _features(self, pool: Any, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the features `[B, N, x_dim]` of the pool's rows at `index [B, N]`."""
