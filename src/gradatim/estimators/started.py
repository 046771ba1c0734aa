"""Tables that begin at a prior which other tables taught: the prior is one more expert beside the committee.

Source: Raftery et al. 1997, eq. 1 (averaging); Grünwald 2012 (a power of the likelihood).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import expit, ndtr, ndtri

from ..files.checkpoint import select_prefix
from ..groups.start import Start, taught
from ..nn.mixture import Mixture, cumulative_at
from ..table_task import TableTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..preprocessing import Columns
    from ..preprocessing.rows import Rows

POWER, ODDS = 0.1, 3.0
"""A power of the evidence, and the log odds of the prior beforehand: validation tasks of three tables chose them."""

STEPS = 60
"""Halvings of a bisection."""


class Started:
    """What both estimators share of a prior from elsewhere; without one nothing is changed."""

    prior: Any
    start_: Start | None = None
    batch_size: int
    task_: TableTask

    def _begun(self, columns: Columns, anew: bool = False) -> None:
        """Begin at the prior, if there is one and no row was learnt before; `anew`: forgetting what was begun.

        Raises:
            ValueError: other columns than taught it, another kind of prior, a memory that forgets, a learner as model.
        """
        if anew:
            self.start_ = None
        if self.prior is None or self.start_ is not None:
            return
        estimator: Any = self
        if estimator.memory != "all" or estimator.model != "experts":
            raise ValueError("prior goes with memory='all' and the shipped model: leave one of them out")
        if not anew and getattr(self, "task_", None) is not None and self.task_.count:
            raise ValueError(
                f"a prior begins a table, and {self.task_.count} rows were learnt without one: call fit, or leave it "
                "out"
            )
        start = Start(taught(self.prior, self._kind()))
        start.check(columns)
        self.start_ = start

    def _kind(self) -> Any:
        """Return the grouped estimator whose priors are taken."""
        raise NotImplementedError

    def _start_learns(self, rows: Rows, y: np.ndarray, anew: bool = False) -> None:
        """Learn rows under the prior, y `[n]` numbers or class indices; `anew`: forgetting those of before."""
        if self.start_ is not None:
            start = self.start_.empty() if anew else self.start_
            present = rows.weight > 0
            columns = rows.columns if present.all() else rows.columns.take(present)
            self.start_ = start.learnt(columns, y[present].astype(np.float64), rows.weight[present])

    def _start_forgets(self, rows: Rows) -> None:
        """Take rows away, y numbers or class indices `[n]`."""
        if self.start_ is not None:
            self.start_ = self.start_.without(rows.columns, rows.y.astype(np.float64), rows.weight)

    def _start_merged(self, other: Any) -> Start | None:
        """Return what both have learnt under their prior; None without one."""
        starts = [part.start_ for part in (self, other) if part.start_ is not None]
        if len(starts) == 1:
            raise ValueError("merging needs one prior; one of the two has none: begin both with fork()")
        return starts[0].merged(starts[1]) if starts else None

    def _start_packed(
        self, tensors: dict[str, Tensor], entries: dict[str, Any]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors of any shape and entries of a file, with those of the prior."""
        if self.start_ is None:
            return tensors, entries
        arrays, header = self.start_.pack()
        more = {
            f"prior.{name}": torch.from_numpy(np.ascontiguousarray(part)) for name, part in arrays.items()
        }
        return tensors | more, entries | {"prior": header}

    def _start_unpacked(self, tensors: dict[str, Tensor], header: dict[str, Any]) -> dict[str, Tensor]:
        """Take the prior out of the tensors of a file, of any shape, and return the others."""
        if "prior" not in header:
            return tensors
        self.start_ = Start.unpack(select_prefix(tensors, "prior"), header["prior"], self._kind())
        self.prior = self.start_.empty().estimator
        return {name: part for name, part in tensors.items() if not name.startswith("prior.")}

    def _said(
        self, task: TableTask, columns: Columns, x: np.ndarray, read: Callable[[TableTask, Tensor], Tensor]
    ) -> np.ndarray:
        """Return what `read` returns of a task and of rows, encoded as x `[n, d]`: `[n, ...]`, with the prior's say."""
        start = self.start_
        if start is None or not len(x):
            return task.predict(x, read)
        share = share_of(start, task)
        if start.classes is not None:
            return share * start.probabilities(columns) + (1 - share) * task.predict(x, TableTask.outputs_at)
        weight, mean, deviation = start.numbers(columns)
        middle = (weight * mean).sum(1)
        if read is TableTask.outputs_at:
            return share * middle + (1 - share) * task.predict(x, read)
        if read is TableTask.deviations:
            variance = (weight * (deviation**2 + (mean - middle[:, None]) ** 2)).sum(1)
            other, spread = task.predict(x, read).T
            spread = spread if share < 1 else np.zeros_like(spread)  # infinite after one row
            both = share * middle + (1 - share) * other
            second = share * (variance + middle**2) + (1 - share) * (spread**2 + other**2)
            return np.stack([both, np.sqrt(np.maximum(second - both**2, 0.0))], axis=1)
        assert isinstance(read, partial)
        return _quantiles(task, x, (weight, mean, deviation), share, read.keywords["levels"])


def share_of(start: Start, task: TableTask) -> float:
    """Return the weight of the prior beside the committee of a task: by what each said of the rows beforehand."""
    if task.count < 2:
        return 1.0  # of one row a committee knows no spread
    committee, rows = evidence_of(task)
    difference = start.log_evidence() - committee * start.rows / max(rows, 1e-300)
    return float(expit(POWER * difference + ODDS))


def evidence_of(task: TableTask) -> tuple[float, float]:
    """Return the log evidence of a committee, and of how many rows, in units of y or of classes."""
    found, rows = [], 0.0
    for learner, state in task.members.settle():
        refiner: Any = learner.refiner
        state: Any = refiner.settle(state)
        said = state.log_likelihood[0]
        found.append(float(said.flatten().logsumexp(0)) - math.log(said.numel()))
        rows = float(state.moments.rows[0])
    scale = 0.0 if task.outputs is not None else rows * math.log(task.target.scale)
    return float(np.mean(found)) - scale, rows


def _quantiles(
    task: TableTask,
    x: np.ndarray,
    normals: tuple[np.ndarray, np.ndarray, np.ndarray],
    share: float,
    levels: np.ndarray,
) -> np.ndarray:
    """Return quantiles `[n, Q]` of the prior's normals and the committee's mixture together, by bisection."""
    weight, mean, deviation = normals
    with torch.inference_mode():
        mixture = task.distribution(torch.from_numpy(x)[None].to(task.device))
        centre = mixture.mean[0].cpu().numpy()
        wide = np.ones(len(x)) if mixture.stretch is None else mixture.stretch[0].cpu().numpy()
        said = mixture.quantiles(torch.from_numpy(levels).to(mixture.means))[0].cpu().numpy()
    out = np.empty((len(x), len(levels)))
    for at, level in enumerate(levels):
        # a quantile of a mixture lies between those of its components
        ends = mean + ndtri(level) * deviation
        low, high = ends.min(1), ends.max(1)
        if share < 1:
            low, high = np.minimum(low, said[:, at]), np.maximum(high, said[:, at])
        for _ in range(STEPS):
            middle = 0.5 * (low + high)
            below = share * (weight * ndtr((middle[:, None] - mean) / deviation)).sum(1)
            if share < 1:
                below += (1 - share) * _below(mixture, centre + (middle - centre) / wide)
            low, high = np.where(below < level, middle, low), np.where(below < level, high, middle)
        out[:, at] = 0.5 * (low + high)
    return out


def _below(mixture: Mixture, y: np.ndarray) -> np.ndarray:
    """Return the cumulative probability of y `[n]` under an unstretched mixture of each row, `[n]`."""
    with torch.inference_mode():
        at = torch.from_numpy(y)[None].to(mixture.means)
        return cumulative_at(at, mixture.means, mixture.noise, mixture.weight)[0].cpu().numpy()
