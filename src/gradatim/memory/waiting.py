"""A table's task whose columns may come in another unit: rows that wait, the map that they are learnt under, the file.

Source: Dawid 1984 (a map is judged by what is predicted under it).
"""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..files.checkpoint import select_prefix
from ..nn.mixture import log_density
from ..preprocessing.columns import NUMBER
from ..preprocessing.drift import warn_of_units
from .units import WINDOWS, Units
from .usual import Usual

if TYPE_CHECKING:
    from torch import Tensor

    from ..nn.mixture import Mixture
    from ..preprocessing import Encoder
    from ..preprocessing.rows import Rows

    class Task(Protocol):
        """A table's task, as far as it is told here."""

        outputs: int | None
        target: Any
        memory: str | int
        encoder: Encoder | None
        units: Units | None
        members: Any
        rows: float
        count: int

        def learn(self, rows: Rows, batch_size: int, x: np.ndarray | None = None) -> None: ...
        def outputs_at(self, x: Tensor) -> Tensor: ...
        def distribution(self, x: Tensor) -> Mixture: ...


def begin_units(task: Task, rows: Rows) -> Units | None:
    """Return the units of the columns of rows that a map was made from; None for a memory that follows none."""
    if task.memory != "adaptive" or task.encoder is None:
        return None
    return Units.begin(task.encoder, rows.columns)


def learn_in_units(task: Task, rows: Rows, batch_size: int, x: np.ndarray | None = None) -> None:
    """Learn rows, `x [n, d]` if they are encoded, in blocks; those in which columns move wait, see `Units`.

    Rows that wait count as learnt.
    """
    first, start = task.encoder, 0
    while start < len(rows):
        assert task.units is not None and task.encoder is not None
        part = slice(start, start + task.units.room)
        piece = rows.take(part) if start or len(rows) > task.units.room else rows
        before = task.units.pending
        if before is None and task.units.block_rows % WINDOWS[0] == 0:
            task.units = replace(task.units, calm=(*_basis(task), task.members))
        units, parts = task.units.take(piece, task.encoder, lambda *pair: log_likelihoods(task, *pair))
        _count(task, before, -1)
        task.units = units
        for move, due in parts:
            if move is not None:
                if before is not None:  # what is refined later is no news
                    warn_of_units(move.names(task.encoder))
                task.encoder = move.applied(task.encoder)
            task.learn(
                due, batch_size, x[part] if x is not None and due is piece and task.encoder is first else None
            )
        _count(task, units.pending, 1)
        start += len(piece)


def learn_pending(task: Task) -> None:
    """Learn rows that wait as they stand; a file holds no row, and none is lost."""
    if task.units is not None:
        task.units, rows = task.units.settled()
        if rows is not None:
            _count(task, rows, -1)
            task.learn(rows, len(rows))


def bare(task: Any) -> Any:
    """Return a task (`TableTask`) without what can be solved again."""
    units = task.units and replace(task.units, calm=None)
    return replace(task, members=task.members.bare(), early=None, units=units)


def _basis(task: Task) -> tuple[Any, ...]:
    """Return what must be the same for a task's members to answer as before."""
    return task.encoder, task.target, task.outputs


def _count(task: Task, pending: Rows | None, sign: int) -> None:
    if pending is not None:
        task.rows, task.count = (
            task.rows + sign * float(pending.weight.sum()),
            task.count + sign * len(pending),
        )


def log_likelihoods(task: Task, encoder: Encoder, rows: Rows) -> np.ndarray:
    """Return the log-likelihood of rows `[n]` under another map, as the task predicted before these rows."""
    judge = copy.copy(task)
    if task.units is not None and task.units.calm is not None:
        *basis, members = task.units.calm
        same = all(old is new for old, new in zip(basis, _basis(task), strict=True))
        judge.members = members if same else task.members
    judge.members, task = judge.members.answering(), judge
    x = torch.from_numpy(encoder.encode(rows.columns))[None]
    with torch.inference_mode():
        if task.outputs is not None:
            shares = task.outputs_at(x)[np.arange(len(rows)), rows.y.astype(int)]
            return shares.double().clamp(1e-4).log().numpy()
        means, noise, weight, _ = task.distribution(x)
        y = torch.from_numpy(rows.y).to(means)[None, :, None]
        density = log_density(y, means[..., None], noise[:, None, :, None].expand_as(means[..., None]))
        return (density + weight.log()[:, None]).flatten(2).logsumexp(-1)[0].double().numpy()


def pack_units(units: Units | None) -> dict[str, Tensor]:
    """Return what is usual in columns as tensors `[p]` by name: means and variances of many rows, and no row."""
    if units is None:
        return {}
    arrays = {"places": units.places, "total": np.array(units.total), **vars(units.usual)}
    return {f"memory.units.{name}": torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def unpack_units(encoder: Encoder, tensors: dict[str, Tensor]) -> tuple[Units | None, dict[str, Tensor]]:
    """Return the units that `pack_units` made tensors of, if any, and the other tensors of a memory.

    Raises:
        ValueError: a tensor is missing, unknown, of another shape, or such as no units have.
    """
    bank_tensors = {name: part for name, part in tensors.items() if not name.startswith("units.")}
    parts = select_prefix(tensors, "units")
    if not parts:
        return None, bank_tensors
    names = {field.name for field in fields(Usual)} | {"places", "total"}
    if parts.keys() != names:
        raise ValueError(f"tensor 'memory.units.{min(parts.keys() ^ names)}' is missing or unknown")
    places, total = parts.pop("places").numpy(), parts.pop("total")
    fits = places.dtype == np.int64 and places.ndim == 1 and total.shape == () and total >= 0
    numbers = [at for at, kind in enumerate(encoder.kinds) if kind == NUMBER]
    if not fits or not np.isin(places, numbers).all():
        raise ValueError("tensors 'memory.units.places' and 'memory.units.total' must be columns and a count")
    for name, part in parts.items():
        if part.shape != places.shape or part.dtype != torch.float64 or bool(part.isnan().any()):
            raise ValueError(
                f"tensor 'memory.units.{name}' must hold a number for each of {len(places)} columns"
            )
    if bool((parts["count"] < 0).any() | (parts["var"] < 0).any() | (parts["spread"] <= 0).any()):
        raise ValueError("tensors 'memory.units.*' must be counts, variances and deviations of rows")
    usual = Usual(**{name: part.numpy() for name, part in parts.items()})
    return Units(places, usual, int(total), np.empty((0, len(places)))), bank_tensors
