"""Rows of many tasks at once, and the tasks they make up.

Source: Mittal et al. 2025, eqs. 5-6: `D_train` is a task's support, `D_valid` its query.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of B tasks: `(x[b, n], y[b, n])` is a row of task b, and counts `weight[b, n]` times.

    Args:
        x: `[B, N, *X]`, floating point, or int64 tokens.
        y: `[B, N, *Y]`, floating point, or int64 class indices `[B, N, 1]`.
        weight: `[B, N]`, finite and at least 0. A row of weight 0 is absent, and its values are set to zero. None:
            every row counts once. A bool tensor says which rows are present.

    Raises:
        ValueError: a wrong rank, dtype or device; no rows; a task without a present row; a weight that is negative or
            not finite; NaN or infinity in a present row.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> batch = Batch(torch.ones(2, 5, 3), torch.ones(2, 5, 1))
        >>> batch.n_tasks, batch.n_rows, batch.rows.tolist()
        (2, 5, [5.0, 5.0])
    """

    x: Tensor
    y: Tensor
    weight: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        _check_shapes(x, y)
        _check_dtypes(x, y)
        plain = self.weight is None or getattr(self.weight, "dtype", None) == torch.bool
        object.__setattr__(self, "weight", _checked_weight(self.weight, x, y))
        if plain:
            self.__dict__["is_weighted"] = False
        if not bool(self.mask.all()):
            if not bool(self.mask.any(dim=1).all()):
                empty = (~self.mask.any(dim=1)).nonzero().flatten().tolist()
                raise ValueError(
                    f"every task needs at least one row; the weight is 0 in all rows of tasks {empty[:8]}"
                )
            object.__setattr__(self, "x", x.masked_fill(_over(~self.mask, x), 0))
            object.__setattr__(self, "y", y.masked_fill(_over(~self.mask, y), 0))
        for name, value in (("x", self.x), ("y", self.y)):
            if value.is_floating_point() and not bool(value.isfinite().all()):
                b, n, *column = (~value.isfinite()).nonzero()[0].tolist()
                raise ValueError(
                    f"{name} must be finite where weight is above 0; got {value[b, n][tuple(column)].item()} at task "
                    f"{b}, row {n}, column {', '.join(map(str, column))}: fill it in or give the row weight 0"
                )

    @classmethod
    def _trusted(cls, x: Tensor, y: Tensor, weight: Tensor, is_weighted: bool | None = None) -> Batch:
        """Make a batch of tensors that come from a checked one; a task may be without rows here.

        `is_weighted`: what the property of that name will say, where it is known.
        """
        batch = object.__new__(cls)
        for name, value in (("x", x), ("y", y), ("weight", weight)):
            object.__setattr__(batch, name, value)
        if is_weighted is not None:
            batch.__dict__["is_weighted"] = is_weighted
        return batch

    @classmethod
    def from_rows(cls, tasks: Sequence[Batch | tuple[Tensor, ...]]) -> Batch:
        """Return one batch of tasks with different numbers of rows. Shorter ones get rows of weight 0 at their end.

        Args:
            tasks: for each task a tuple `(x [N, *X], y [N, *Y])`, or with `weight [N]` behind; or a batch `[B, N, *X]`.

        Raises:
            ValueError: no tasks, a tuple of another length, rows of different widths or dtypes.

        Example:
            >>> import torch
            >>> from gradatim import Batch
            >>> batch = Batch.from_rows([(torch.ones(n, 3), torch.ones(n, 1)) for n in (2, 5)])
            >>> batch.n_rows, batch.rows.tolist()
            (5, [2.0, 5.0])
        """
        batches = [_as_batch(task, place) for place, task in enumerate(tasks)]
        if not batches:
            raise ValueError("a batch needs at least one task; got none")
        first = batches[0]
        for place, batch in enumerate(batches):
            for name in ("x", "y"):
                part, like = getattr(batch, name), getattr(first, name)
                if part.shape[2:] != like.shape[2:] or part.dtype != like.dtype:
                    raise ValueError(
                        f"tasks of one batch need rows alike; {name} of task {place} is {part.dtype} of width "
                        f"{tuple(part.shape[2:])}, of the first {like.dtype} of width {tuple(like.shape[2:])}"
                    )
        rows = max(batch.n_rows for batch in batches)
        x, y, weight = (torch.cat(parts) for parts in zip(*(_padded(b, rows) for b in batches), strict=True))
        return cls._trusted(x, y, weight)

    @cached_property
    def mask(self) -> Tensor:
        """Return which rows are present, `[B, N]` bool: those with a weight above 0."""
        return self.weight > 0

    @cached_property
    def is_weighted(self) -> bool:
        """Return whether a weight is neither 0 nor 1."""
        return not bool((self.weight == self.mask).all())

    @property
    def n_tasks(self) -> int:
        """Return B, the number of tasks."""
        return self.x.shape[0]

    @property
    def n_rows(self) -> int:
        """Return N, the number of places for rows, present or not."""
        return self.x.shape[1]

    @cached_property
    def rows(self) -> Tensor:
        """Return the number of rows of each task, `[B]`: the sum of their weights."""
        return self.weight.sum(dim=1)

    def slice(self, start: int, stop: int) -> Batch:
        """Return rows start to stop - 1 of every task, `[B, stop - start, ...]`.

        A shorter task may have no present row among them.
        """
        return self._map(lambda part: part[:, start:stop])

    def split(self, size: int) -> Iterator[Batch]:
        """Yield mini-batches of `size` rows in order, `[B, size, ...]`. The last one may be shorter.

        Raises:
            ValueError: size below 1.
        """
        for start in self.starts(size):
            yield self.slice(start, start + size)

    def starts(self, size: int) -> range:
        """Return the first row of each mini-batch of `size` rows.

        Raises:
            ValueError: size below 1.
        """
        if not _is_count(size):
            raise ValueError(f"a mini-batch needs at least one row; got size {size!r}: give a whole number")
        return range(0, self.n_rows, size)

    def tasks(self, index: slice | Tensor) -> Batch:
        """Return the tasks chosen by `index`, a slice or int64 indices `[K]`, as a batch `[K, N, ...]`."""
        return self._map(lambda part: part[index])

    def repeat(self, times: int) -> Batch:
        """Return every task `times` times in a row: `[B * times, N, ...]`, copies of one task side by side."""
        if times == 1:
            return self
        return self._map(lambda part: part.repeat_interleave(times, dim=0))

    def prefixes(self, lengths: Tensor) -> Batch:
        """Return every task once for each of `lengths [P]`, cut to its first rows: `[B * P, N, ...]`."""
        tiled = self.repeat(len(lengths))
        place = torch.arange(self.n_rows, device=self.x.device)
        inside = (place < lengths.to(place.device)[:, None]).repeat(self.n_tasks, 1)
        return Batch._trusted(tiled.x, tiled.y, tiled.weight * inside, self.is_weighted)

    def to(self, target: torch.device | str | torch.dtype) -> Batch:
        """Return the batch, `[B, N, ...]` as it is, on another device or in another floating dtype.

        Class indices and tokens stay int64.
        """
        if isinstance(target, torch.dtype):
            return self._map(lambda part: part.to(target) if part.is_floating_point() else part)
        try:
            torch.device(target)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"rows go to a device or a floating dtype; got {target!r}: {error}") from None
        return self._map(lambda part: part.to(target))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        # of rows that all count once, none counts otherwise in a part of them
        return Batch._trusted(change(self.x), change(self.y), change(self.weight), self.is_weighted)


def check_batch(batch: object) -> None:
    """Check that rows are a batch.

    Raises:
        ValueError: they are something else.

    Example:
        >>> import torch
        >>> from gradatim.batch import check_batch
        >>> check_batch((torch.ones(1, 2, 3), torch.ones(1, 2, 1)))
        Traceback (most recent call last):
        ValueError: rows must come as a Batch; got tuple: make one, Batch(x, y)
    """
    if not isinstance(batch, Batch):
        raise ValueError(f"rows must come as a Batch; got {type(batch).__name__}: make one, Batch(x, y)")


def check_count(name: str, value: object) -> None:
    """Check that a number of things is a whole number of at least 1.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from gradatim.batch import check_count
        >>> check_count("n_tasks", 0)
        Traceback (most recent call last):
        ValueError: n_tasks must be a whole number of at least 1; got 0
    """
    if not _is_count(value):
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r:.60}")


def _is_count(value: object) -> bool:
    try:
        return not isinstance(value, bool) and index(value) >= 1  # type: ignore[arg-type]
    except TypeError:
        return False


def _check_shapes(x: Tensor, y: Tensor) -> None:
    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, torch.Tensor):
            raise ValueError(
                f"{name} must be a tensor [tasks, rows, width]; got {type(value).__name__}: convert it with "
                "torch.as_tensor"
            )
        if value.dim() < 3:
            raise ValueError(
                f"{name} must have at least three dimensions [tasks, rows, width]; got shape {tuple(value.shape)}: "
                "add the missing one with unsqueeze"
            )
    if x.shape[:2] != y.shape[:2]:
        raise ValueError(f"x and y must agree in [tasks, rows]; got {tuple(x.shape)} and {tuple(y.shape)}")
    if 0 in x.shape or 0 in y.shape:
        raise ValueError(f"a batch needs tasks, rows and columns; got x {tuple(x.shape)}, y {tuple(y.shape)}")


def _check_dtypes(x: Tensor, y: Tensor) -> None:
    if not (x.is_floating_point() or x.dtype == torch.int64):
        raise ValueError(
            f"x must be floating point, or int64 for tokens; got {x.dtype}: convert it with x.float()"
        )
    if not (y.is_floating_point() or y.dtype == torch.int64):
        raise ValueError(f"y must be floating point, or int64 for class indices; got {y.dtype}")
    if y.dtype == torch.int64 and y.shape[2:] != (1,):
        raise ValueError(f"class indices must have width 1; got y {tuple(y.shape)}")
    if x.device != y.device:
        raise ValueError(f"x and y must be on one device; got {x.device} and {y.device}")


def _checked_weight(weight: Tensor | None, x: Tensor, y: Tensor) -> Tensor:
    """Return the weights `[B, N]` in the dtype of the rows."""
    dtype = next((part.dtype for part in (x, y) if part.is_floating_point()), torch.get_default_dtype())
    if weight is None:
        return torch.ones(x.shape[:2], dtype=dtype, device=x.device)
    if not isinstance(weight, torch.Tensor):
        raise ValueError(
            f"weight must be a tensor [tasks, rows]; got {type(weight).__name__}: convert it with torch.as_tensor"
        )
    if weight.shape != x.shape[:2] or not (weight.is_floating_point() or weight.dtype == torch.bool):
        raise ValueError(
            f"weight must be floating point or bool, {tuple(x.shape[:2])} as [tasks, rows]; got {weight.dtype} "
            f"{tuple(weight.shape)}"
        )
    if weight.device != x.device:
        raise ValueError(f"x, y and weight must be on one device; got {x.device} and {weight.device}")
    # a large weight may be infinite in the dtype of the rows
    converted = weight.to(dtype)
    valid = converted.isfinite() & (converted >= 0)
    if not bool(valid.all()):
        b, n = (~valid).nonzero()[0].tolist()
        why = f", too large for {dtype}" if bool(weight[b, n].isfinite() & (weight[b, n] > 0)) else ""
        raise ValueError(
            f"weights must be finite and at least 0; got {weight[b, n].item()} at task {b}, row {n}{why}"
        )
    return converted


def _over(mask: Tensor, part: Tensor) -> Tensor:
    """Return a mask `[B, N]` with a dimension of 1 for each further one of `part [B, N, ...]`."""
    return mask.view(*mask.shape, *[1] * (part.dim() - 2))


def _as_batch(task: Batch | tuple[Tensor, ...], place: int) -> Batch:
    if isinstance(task, Batch):
        return task
    if not isinstance(task, tuple | list) or len(task) not in (2, 3):
        raise ValueError(
            f"task {place} must be a Batch or a tuple (x, y) or (x, y, weight); got {task!r:.60}"
        )
    for name, part in zip(("x", "y", "weight"), task, strict=False):
        if not isinstance(part, torch.Tensor):
            raise ValueError(
                f"{name} of task {place} must be a tensor; got {type(part).__name__}: convert it with torch.as_tensor"
            )
    return Batch(*(part[None] for part in task))


def _padded(batch: Batch, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, y and weight `[B, rows, ...]`, zeros behind the last row."""
    short = rows - batch.n_rows
    parts = batch.x, batch.y, batch.weight
    return tuple(  # type: ignore[return-value]
        torch.cat([part, part.new_zeros(len(part), short, *part.shape[2:])], dim=1) if short else part
        for part in parts
    )


@dataclass(frozen=True, eq=False)
class Task:
    """B tasks of a family: what a learner sees, and what it is evaluated on.

    Args:
        support: the rows to learn from, x `[B, N, *X]`.
        query: the rows to predict, x `[B, Nq, *X]`, of the same tasks and widths.
        target: `[B, ...]`, the answer if it is not the y of a row.
        truth: `[B, Nq, Do]`, the noiseless answer at the query rows if the family knows it: `E[y | x]`, or the true
            logits. It is for evaluation only; no learner sees it.

    Raises:
        ValueError: support or query is no batch, or they disagree in tasks or widths.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Task
        >>> rows = Batch(torch.randn(4, 8, 3), torch.randn(4, 8, 1))
        >>> Task(support=rows.slice(0, 6), query=rows.slice(6, 8)).n_tasks
        4
    """

    support: Batch
    query: Batch
    target: Tensor | None = None
    truth: Tensor | None = None

    def __post_init__(self) -> None:
        s, q = self.support, self.query
        for name, part in (("support", s), ("query", q)):
            if not isinstance(part, Batch):
                raise ValueError(f"{name} must be a Batch; got {type(part).__name__}: make one, Batch(x, y)")
        if s.n_tasks != q.n_tasks or s.x.shape[2:] != q.x.shape[2:] or s.y.shape[2:] != q.y.shape[2:]:
            raise ValueError(
                "support and query must hold the same tasks with rows of the same widths; got "
                f"x {tuple(s.x.shape)} and {tuple(q.x.shape)}, y {tuple(s.y.shape)} and {tuple(q.y.shape)}"
            )

    @property
    def n_tasks(self) -> int:
        """Return B, the number of tasks."""
        return self.support.n_tasks

    def to(self, target: torch.device | str | torch.dtype) -> Task:
        """Return the tasks, `[B, N, ...]` as they are, on another device or in another floating dtype."""

        def convert(part: Tensor | None) -> Tensor | None:
            if part is None or (isinstance(target, torch.dtype) and not part.is_floating_point()):
                return part
            return part.to(target)

        return Task(self.support.to(target), self.query.to(target), convert(self.target), convert(self.truth))
