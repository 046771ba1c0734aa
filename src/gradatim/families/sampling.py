"""Helpers of task families: checks of their fields, masks of ragged supports, sampling without replacement.

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


def check_count(name: str, value: object, minimum: int) -> None:
    """Check that a field is an integer of at least `minimum`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from gradatim.families.sampling import check_count
        >>> check_count("dim", 0, minimum=1)
        Traceback (most recent call last):
        ValueError: dim must be an integer of at least 1; got 0
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}; got {value!r}")


def check_amount(name: str, value: object, above: float, inclusive: bool = False) -> None:
    """Check that a field is a finite number above `above`, or with `inclusive` at least `above`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from gradatim.families.sampling import check_amount
        >>> check_amount("noise_std", 0.0, above=0)
        Traceback (most recent call last):
        ValueError: noise_std must be a finite number above 0; got 0.0
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        fits = value >= above if inclusive else value > above
    else:
        fits = False
    if not fits:
        relation = "of at least" if inclusive else "above"
        raise ValueError(f"{name} must be a finite number {relation} {above:g}; got {value!r}")


def check_rows(family: TaskFamily) -> None:
    """Check the numbers of rows of a family.

    Raises:
        ValueError: a number below 1, or `min_support_rows` above `support_rows`.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.families.sampling import check_rows
        >>> check_rows(LinearRegression(8, support_rows=20, min_support_rows=5))
    """
    check_count("support_rows", family.support_rows, minimum=1)
    check_count("query_rows", family.query_rows, minimum=1)
    if family.min_support_rows is None:
        return
    check_count("min_support_rows", family.min_support_rows, minimum=1)
    if family.min_support_rows > family.support_rows:
        raise ValueError(
            f"min_support_rows must be at most support_rows = {family.support_rows}; got "
            f"{family.min_support_rows}: lower it, or leave it None for supports of one size"
        )


def check_sample(n_tasks: object, generator: object) -> None:
    """Check the arguments of a family's `sample`.

    Raises:
        ValueError: n_tasks is not a positive integer, or generator is not a CPU generator.

    Example:
        >>> import torch
        >>> from gradatim.families.sampling import check_sample
        >>> check_sample(16, torch.Generator().manual_seed(0))
    """
    check_count("n_tasks", n_tasks, minimum=1)
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
    """Return the mask of supports, bool `[B, support_rows]`. The rows present are the first ones.

    Their number is uniform on `min_support_rows .. support_rows`, or `support_rows` where no minimum is set. Families
    draw the mask last, so that the rows are the same with and without it.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> from gradatim.families.sampling import support_mask
        >>> family = LinearRegression(8, support_rows=20, min_support_rows=5)
        >>> support_mask(family, 3, torch.Generator().manual_seed(0)).sum(1)
        tensor([17, 20, 10])
    """
    if family.min_support_rows is None:
        return torch.ones(n_tasks, family.support_rows, dtype=torch.bool)
    counts = torch.randint(
        family.min_support_rows, family.support_rows + 1, (n_tasks, 1), generator=generator
    )
    return torch.arange(family.support_rows) < counts


def permutations(sizes: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Return the first `length` elements of a uniformly random permutation of `range(sizes[b])`, for each b.

    Small ranges are shuffled by sorting random keys. Ranges of more than twice `length` are sampled with replacement,
    and repeats are dropped. That has the same distribution and costs O(length) for ranges of any size.

    Args:
        sizes: `[B]` int64.
        length: number of elements.
        generator: a CPU generator.

    Returns:
        Indices `[B, length]` int64. Those from position `sizes[b]` on have no meaning.

    Example:
        >>> import torch
        >>> from gradatim.families.sampling import permutations
        >>> permutations(torch.tensor([3]), 3, torch.Generator().manual_seed(0)).sort().values
        tensor([[0, 1, 2]])
    """
    smallest, largest = int(sizes.min()), int(sizes.max())
    if largest <= 256 or smallest <= 2 * length:
        keys = torch.rand(len(sizes), largest, generator=generator, dtype=torch.float64)
        keys.masked_fill_(torch.arange(largest) >= sizes[:, None], math.inf)
        return keys.argsort(dim=1)[:, :length]
    draws = torch.empty(len(sizes), 0, dtype=torch.int64)
    expected = -smallest * math.log1p(-length / smallest)
    while True:
        count = int(expected + 6 * math.sqrt(length)) + 8
        uniform = torch.rand(len(sizes), count, generator=generator, dtype=torch.float64) * sizes[:, None]
        draws = torch.cat((draws, uniform.long()), dim=1)
        ordered, place = draws.sort(dim=1, stable=True)
        repeats = torch.zeros_like(draws, dtype=torch.bool)
        repeats.scatter_(1, place[:, 1:], ordered[:, 1:] == ordered[:, :-1])
        rank = (~repeats).cumsum(dim=1) - 1
        if int(rank[:, -1].min()) >= length - 1:
            rank = torch.where(repeats, length, rank.clamp(max=length))
            return draws.new_zeros(len(sizes), length + 1).scatter_(1, rank, draws)[:, :length]


def draw_disjoint(
    sizes: Tensor, n_query: int, n_support: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return disjoint random indices of query and support in `range(sizes[b])`.

    Both are drawn without replacement. A support larger than what the query leaves repeats it, in reshuffled passes.

    Args:
        sizes: `[B]` int64.
        n_query: indices of the query.
        n_support: indices of the support.
        generator: a CPU generator.

    Returns:
        Indices of the query `[B, n_query]` and of the support `[B, n_support]`, int64.

    Raises:
        ValueError: the query leaves nothing for the support.

    Example:
        >>> import torch
        >>> from gradatim.families.sampling import draw_disjoint
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
    query, pool = first[:, :n_query], first[:, n_query:]
    pool_sizes = (sizes - n_query)[:, None]
    if n_support <= int(pool_sizes.min()):
        return query, pool[:, :n_support]
    position = torch.arange(n_support)
    width, passes = pool.shape[1], math.ceil(n_support / int(pool_sizes.min()))
    shuffled = [permutations(pool_sizes[:, 0].clamp(max=width), width, generator) for _ in range(passes - 1)]
    orders = torch.stack((torch.arange(width).expand(len(sizes), width), *shuffled), dim=1)
    order = orders[torch.arange(len(sizes))[:, None], position // pool_sizes, position % pool_sizes]
    return query, pool.gather(1, order)


def draw_classes(
    starts: Tensor,
    counts: Tensor,
    ways: int,
    support_rows: int,
    query_rows: int,
    n_tasks: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Return random rows of random classes for support and query, and their labels in random order.

    Args:
        starts: `[C]` int64, the first row of each class in a pool that is sorted by class.
        counts: `[C]` int64, the number of rows of each class.
        ways: classes of a task.
        support_rows: rows of the support.
        query_rows: rows of the query.
        n_tasks: B.
        generator: a CPU generator.

    Returns:
        Index and label, each `[B, support_rows + query_rows]` int64, the support first. Labels lie in 0 .. ways - 1.

    Raises:
        ValueError: the query leaves nothing for the support.

    Example:
        >>> import torch
        >>> from gradatim.families.sampling import draw_classes
        >>> starts, counts = torch.tensor([0, 5]), torch.tensor([5, 5])
        >>> index, label = draw_classes(starts, counts, 2, 4, 4, 1, torch.Generator().manual_seed(0))
        >>> index.shape, label.unique()
        (torch.Size([1, 8]), tensor([0, 1]))
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
    """Classification tasks from a pool of real rows; each has `ways` random classes, numbered in random order.

    A subclass defines the pool and the features of its rows.

    Fields: `source`: of the rows; `dim`: features of a row; `ways`: classes of a task; `split`: the pool, one of
    `SPLITS`.

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
            check_count("dim", self.dim, minimum=1)
        check_count("ways", self.ways, minimum=2)
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {self.split!r}")

    @property
    def likelihood(self) -> CrossEntropy:
        """Return that y is one of `ways` classes."""
        return CrossEntropy(self.ways)

    def on(self, split: str) -> Self:
        """Return the family over another pool: `train`, `validation` or `test`.

        Raises:
            ValueError: another name.
        """
        return replace(self, split=split)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator.

        Raises:
            ValueError: n_tasks below 1, no CPU generator, or what the class lists for sampling.
        """
        check_sample(n_tasks, generator)
        pool, n = self._pool(), self.support_rows
        index, label = self._draw(pool, n_tasks, generator)
        x, y = self._features(pool, index, generator), label[..., None]
        support = Batch(x[:, :n], y[:, :n], support_mask(self, n_tasks, generator))
        return Task(support, Batch(x[:, n:], y[:, n:]))

    def _draw(self, pool: Any, n_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return places in the pool and labels, `[B, support_rows + query_rows]` each, the support first."""
        return draw_classes(
            pool.starts, pool.counts, self.ways, self.support_rows, self.query_rows, n_tasks, generator
        )

    @abstractmethod
    def _pool(self) -> Any:
        """Return the pool of this split, sorted by class, with `starts [C]` and `counts [C]` of its classes."""

    @abstractmethod
    def _features(self, pool: Any, index: Tensor, generator: torch.Generator) -> Tensor:
        """Return the features `[B, N, x_dim]` of the pool's rows at `index [B, N]`."""
