"""Rows of many tasks at once, and the tasks they make up.

Source: Mittal et al. 2025, eqs. 5-6: `D_train` is a task's support, `D_valid` its query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of B tasks: `(x[b, n], y[b, n])` is a row of task b where `mask[b, n]`.

    Shapes: x `[B, N, Dx]` floating; y `[B, N, Dy]` floating, or int64 class indices with Dy = 1;
    mask `[B, N]` bool, True = the row is there (default: all). Whatever stands in masked rows is set to zero.

    Raises:
        ValueError: wrong rank, width, dtype or device; no rows; a task whose mask is all False; NaN or infinity
            in a row that is there.

    Example:
        >>> batch = Batch(torch.randn(2, 5, 3), torch.randn(2, 5, 1))
        >>> batch.n_tasks, batch.n_rows, batch.rows.tolist()
        (2, 5, [5, 5])
    """

    x: Tensor
    y: Tensor
    mask: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        x, y = self.x, self.y
        for name, value in (("x", x), ("y", y)):
            if not isinstance(value, torch.Tensor):
                raise ValueError(f"{name} must be a tensor [tasks, rows, width]; got {type(value).__name__}")
            if value.dim() != 3:
                raise ValueError(
                    f"{name} must have three dimensions [tasks, rows, width]; got shape {tuple(value.shape)}: "
                    "add the missing one with unsqueeze"
                )
        if x.shape[:2] != y.shape[:2]:
            raise ValueError(
                f"x and y must agree in [tasks, rows]; got {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if 0 in x.shape or 0 in y.shape:
            raise ValueError(
                f"a batch needs tasks, rows and columns; got x {tuple(x.shape)}, y {tuple(y.shape)}"
            )
        if not x.is_floating_point():
            raise ValueError(f"x must be floating point; got {x.dtype}: convert it with x.float()")
        if not (y.is_floating_point() or y.dtype == torch.int64):
            raise ValueError(f"y must be floating point, or int64 for class indices; got {y.dtype}")
        if y.dtype == torch.int64 and y.shape[2] != 1:
            raise ValueError(f"class indices must have width 1; got y {tuple(y.shape)}")
        if self.mask is None:
            object.__setattr__(self, "mask", torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))
        mask = self.mask
        if not isinstance(mask, torch.Tensor):
            raise ValueError(f"mask must be a bool tensor [tasks, rows]; got {type(mask).__name__}")
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            raise ValueError(f"mask must be bool {tuple(x.shape[:2])}; got {mask.dtype} {tuple(mask.shape)}")
        if not (x.device == y.device == mask.device):
            raise ValueError(
                f"x, y and mask must be on one device; got {x.device}, {y.device}, {mask.device}"
            )
        if not bool(mask.all()):
            if not bool(mask.any(dim=1).all()):
                empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
                raise ValueError(
                    f"every task needs at least one row; the mask is all False for tasks {empty[:8]}"
                )
            object.__setattr__(self, "x", torch.where(mask[..., None], x, torch.zeros_like(x)))
            object.__setattr__(self, "y", torch.where(mask[..., None], y, torch.zeros_like(y)))
        for name, value in (("x", self.x), ("y", self.y)):
            if value.is_floating_point() and not bool(value.isfinite().all()):
                b, n, d = (~value.isfinite()).nonzero()[0].tolist()
                raise ValueError(
                    f"{name} must be finite where mask is True; got {value[b, n, d].item()} at task {b}, row {n}, "
                    f"column {d}: fill it in or mask the row"
                )

    @classmethod
    def _trusted(cls, x: Tensor, y: Tensor, mask: Tensor) -> Batch:
        """Make a batch of tensors that come from a checked one; a task may be without rows here."""
        batch = object.__new__(cls)
        for name, value in (("x", x), ("y", y), ("mask", mask)):
            object.__setattr__(batch, name, value)
        return batch

    @property
    def n_tasks(self) -> int:
        """Return B, the number of tasks."""
        return self.x.shape[0]

    @property
    def n_rows(self) -> int:
        """Return N, the number of places for rows, present or not."""
        return self.x.shape[1]

    @property
    def rows(self) -> Tensor:
        """Return the number of rows present in each task, `[B]` int64."""
        return self.mask.sum(dim=1)

    def slice(self, start: int, stop: int) -> Batch:
        """Return the places start to stop - 1 of every task; a ragged task may have no rows left there."""
        return Batch._trusted(self.x[:, start:stop], self.y[:, start:stop], self.mask[:, start:stop])

    def split(self, size: int) -> Iterator[Batch]:
        """Yield mini-batches of `size` places in order; the last one may be shorter.

        Raises:
            ValueError: size below 1.
        """
        if size < 1:
            raise ValueError(f"a mini-batch needs at least one row; got size {size}")
        for start in range(0, self.n_rows, size):
            yield self.slice(start, start + size)

    def tasks(self, index: slice | Tensor) -> Batch:
        """Return the tasks chosen by `index`, a slice or int64 indices."""
        return Batch._trusted(self.x[index], self.y[index], self.mask[index])

    def repeat(self, times: int) -> Batch:
        """Return every task `times` times in a row: `[B * times, N, D]`, copies of one task side by side."""
        if times == 1:
            return self
        return Batch._trusted(*(part.repeat_interleave(times, dim=0) for part in (self.x, self.y, self.mask)))

    def prefixes(self, lengths: Tensor) -> Batch:
        """Return every task once for each of `lengths` `[P]`, masked to its first rows: `[B * P, N, D]`."""
        tiled = self.repeat(len(lengths))
        place = torch.arange(self.n_rows, device=self.x.device)
        inside = (place < lengths.to(place.device)[:, None]).repeat(self.n_tasks, 1)
        return Batch._trusted(tiled.x, tiled.y, tiled.mask & inside)

    def to(self, target: torch.device | str | torch.dtype) -> Batch:
        """Return the batch on another device or in another floating dtype; class indices stay int64."""
        if isinstance(target, torch.dtype):
            y = self.y.to(target) if self.y.is_floating_point() else self.y
            return Batch._trusted(self.x.to(target), y, self.mask)
        return Batch._trusted(self.x.to(target), self.y.to(target), self.mask.to(target))


@dataclass(frozen=True, eq=False)
class Task:
    """B tasks of a family: what the learner may see and what it is judged on.

    `support` and `query` are batches of the same B tasks and the same widths. `target [B, ...]` is the answer where
    it is not a row's y. `truth [B, Nq, Do]` is the noiseless answer at the query rows where the family knows it
    (`E[y | x]`, or the true logits): for judging only, no learner sees it.

    Raises:
        ValueError: support and query disagree in tasks or widths.

    Example:
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
        if s.n_tasks != q.n_tasks or s.x.shape[2] != q.x.shape[2] or s.y.shape[2] != q.y.shape[2]:
            raise ValueError(
                "support and query must hold the same tasks with rows of the same widths; got "
                f"x {tuple(s.x.shape)} and {tuple(q.x.shape)}, y {tuple(s.y.shape)} and {tuple(q.y.shape)}"
            )

    @property
    def n_tasks(self) -> int:
        """Return B, the number of tasks."""
        return self.support.n_tasks

    def to(self, target: torch.device | str | torch.dtype) -> Task:
        """Return the tasks on another device or in another floating dtype."""

        def moved(part: Tensor | None) -> Tensor | None:
            if part is None or (isinstance(target, torch.dtype) and not part.is_floating_point()):
                return part
            return part.to(target)

        return Task(self.support.to(target), self.query.to(target), moved(self.target), moved(self.truth))
