"""Tasks of the study of relations: around centres, each in a window of x, and real tables; known relations of both.

Source: Finn et al. 2017 (sinusoids); Argyriou et al. 2008 (school); Xue et al. 2007 (landmine); Tsanas et al. 2010.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

from gradatim.batch import Batch, Task
from gradatim.family import TaskFamily
from gradatim.likelihood import CrossEntropy, SquaredError
from gradatim.regularizers.relations import all_rows, answers, consistency
from studies.meta.tasks import divide_by_hash, read

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.learner import Learner
    from gradatim.likelihood import Likelihood
    from gradatim.refiner import State

NOISE, CENTRES, DIM, COLUMNS, NEW = 0.3, 4, 8, 5, 200
"""Noise on y; centres; width of x of linear tasks, and how many of its columns vary in a window; new tasks."""


@dataclass(frozen=True)
class Fixed:
    """The consistency of `Relations` in shares that are not learnt: uniform, or those of known clusters.

    Fields: `weight`; `known`: whether a task is answered by those of its cluster alone, which `Task.target` names.
    """

    weight: float
    known: bool

    def of_states(self, learner: Learner, task: Task, state: State) -> Tensor:
        """Return the penalty `[]`."""
        said = answers(learner, state, task.query)
        others = 1 - torch.eye(task.n_tasks)
        if self.known:
            assert task.target is not None
            mates = others * (task.target[:, None] == task.target)
            others = torch.where(mates.sum(1, keepdim=True) > 0, mates, others)
        return self.weight * consistency(said, task.query, others / others.sum(1, keepdim=True))


@dataclass(frozen=True, kw_only=True)
class Clustered(TaskFamily):
    """32 training tasks of 20 rows around 4 centres: `a sin(x - b)`, or linear in 8 columns.

    Of a sine a task sees a window of x, a share `width` of (-5, 5); of linear tasks five columns vary, the others are
    a fifth as large. New tasks are asked at all x.

    Fields: `kind`; `spread` of tasks around their centre; `width`; `members`: which training tasks (empty: all).
    """

    kind: str
    spread: float
    width: float = 0.6
    support_rows: int = 8
    query_rows: int = 12
    batch: int = 32
    seed: int = 0
    members: tuple[int, ...] = ()
    likelihood = SquaredError(1)
    clusters = CENTRES

    @property
    def x_dim(self) -> int:
        """Return the width of x."""
        return 1 if self.kind == "sine" else DIM

    @property
    def label(self) -> str:
        """Return a name for files."""
        return self.kind

    def only(self, members: list[int]) -> Self:
        """Return the family of some of the training tasks."""
        return replace(self, members=tuple(members), batch=len(members))

    def truth(self) -> np.ndarray:
        """Return the true cluster of each training task, `[T]`."""
        return np.arange(self.batch) % CENTRES

    def training_rows(self) -> Batch:
        """Return all rows of the training tasks."""
        return all_rows(self._training)

    def new_tasks(self) -> Task:
        """Return the new tasks: a support in a window, a query everywhere."""
        return self._draw(NEW, self.support_rows, 64, 1)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return the training tasks, their rows divided anew into support and query."""
        rows = self.training_rows()
        index = torch.tensor(self.members or range(rows.n_tasks))
        place = torch.rand(len(index), rows.n_rows, 1, generator=generator).argsort(1)
        x, y = rows.x[index], rows.y[index]
        mixed = Batch(x.gather(1, place.expand(-1, -1, x.shape[2])), y.gather(1, place))
        cut = self.support_rows
        return Task(mixed.slice(0, cut), mixed.slice(cut, rows.n_rows), target=index % CENTRES)

    @cached_property
    def _training(self) -> Task:
        return self._draw(32, self.support_rows, self.query_rows, 0)

    def _draw(self, n_tasks: int, known: int, asked: int, stream: int) -> Task:
        """Return tasks around the centres; `stream` 0 sees its window in the query too."""
        centres = self._centres(torch.Generator().manual_seed(100 * self.seed))
        generator = torch.Generator().manual_seed(100 * self.seed + 1 + stream)
        home = torch.arange(n_tasks) % CENTRES
        shift = self.spread * torch.randn(n_tasks, centres.shape[1], generator=generator)
        rows = known + asked
        if self.kind == "sine":
            low = (1 - self.width) * torch.rand(n_tasks, 1, 1, generator=generator)
            x = torch.rand(n_tasks, rows, 1, generator=generator)
            seen = low + self.width * x
            x, seen = 10 * x - 5, 10 * seen - 5
        else:
            x = torch.randn(n_tasks, rows, DIM, generator=generator)
            varies = torch.rand(n_tasks, 1, DIM, generator=generator).argsort(2) < COLUMNS
            seen = x if self.width == 1 else x * torch.where(varies, 1.0, 0.2)
        x = torch.cat([seen[:, :known], (x if stream else seen)[:, known:]], 1)
        clean = self._curve(x, centres[home], shift)
        y = clean + NOISE * torch.randn(clean.shape, generator=generator)
        batch = Batch(x, y)
        return Task(batch.slice(0, known), batch.slice(known, rows), truth=clean[:, known:])

    def _centres(self, generator: torch.Generator) -> Tensor:
        """Return the centres, `[4, 2]` amplitude and phase, or `[4, 8]` slopes."""
        if self.kind != "sine":
            return torch.randn(CENTRES, DIM, generator=generator)
        drawn = torch.rand(CENTRES, 2, generator=generator)
        phase = 2 * math.pi * (torch.arange(CENTRES) + 0.5 * drawn[:, 1]) / CENTRES
        return torch.stack([1 + 3 * drawn[:, 0], phase], 1)

    def _curve(self, x: Tensor, centre: Tensor, shift: Tensor) -> Tensor:
        """Return the noiseless answers `[T, N, 1]` of tasks that lie `shift` from their centres."""
        if self.kind != "sine":
            return x @ (centre + 2 * shift)[..., None]
        amplitude, phase = centre[:, :1, None] * (1 + shift[:, :1, None]), centre[:, 1:, None]
        return amplitude * (x - phase - 2 * shift[:, 1:, None]).sin()


@dataclass(frozen=True, kw_only=True)
class RealTasks(TaskFamily):
    """Training tasks of one of the tables of related tasks, 16 at a time, with new rows at each time.

    Clusters that are known: fields of mines under leaves and on bare earth; patients by sex. Of schools none is known.

    Fields: `name` of the table; `members`: which training tasks (empty: all).
    """

    name: str
    batch: int = 16
    seed: int = 0
    members: tuple[int, ...] = ()
    clusters = 2

    @property
    def label(self) -> str:
        """Return a name for files."""
        return self.name

    @property
    def likelihood(self) -> Likelihood:  # type: ignore[override]
        """Return what y is."""
        return CrossEntropy(2) if self.name == "landmine" else SquaredError(1)

    @property
    def x_dim(self) -> int:  # type: ignore[override]
        """Return the width of x."""
        return self._tables[0][0][0].shape[1]

    def only(self, members: list[int]) -> Self:
        """Return the family of some of the training tasks."""
        return replace(self, members=tuple(members), batch=min(self.batch, len(members)))

    def truth(self) -> np.ndarray:
        """Return the cluster that is known of each training task, `[T]`."""
        return self._tables[2].numpy()

    def training_rows(self, most: int = 60) -> Batch:
        """Return rows of the training tasks, at most so many of each."""
        return Batch.from_rows([(x[:most], y[:most]) for x, y in self._tables[0]])

    def new_tasks(self, most: int = 100) -> Task:
        """Return the test tasks: their first rows as support, at most so many of the others as query."""
        cut = self.support_rows
        support = Batch.from_rows([(x[:cut], y[:cut]) for x, y in self._tables[1]])
        return Task(
            support, Batch.from_rows([(x[cut : cut + most], y[cut : cut + most]) for x, y in self._tables[1]])
        )

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return some of the training tasks, each with rows drawn anew."""
        among = torch.tensor(self.members or range(len(self._tables[0])))
        index = among[torch.randperm(len(among), generator=generator)[:n_tasks]]
        drawn = []
        for at in index.tolist():
            x, y = self._tables[0][at]
            rows = torch.randperm(len(x), generator=generator)[: self.support_rows + self.query_rows]
            drawn.append((x[rows], y[rows]))
        batch, cut = Batch.from_rows(drawn), self.support_rows
        return Task(batch.slice(0, cut), batch.slice(cut, batch.n_rows), target=self._tables[2][index])

    @cached_property
    def _tables(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]], Tensor]:
        """Return x and y of the training tasks and of the test tasks, and the cluster known of training tasks."""
        tasks = read(self.name)
        training, test = divide_by_hash(tasks, validation=False)
        rows = tasks.of(training)
        mean, deviation = tasks.x[rows].mean(0), tasks.x[rows].std(0) + 1e-6
        scaled = torch.tensor(((tasks.x - mean) / deviation).clip(-4, 4), dtype=torch.float32)
        level = (tasks.y - tasks.y[rows].mean()) / tasks.y[rows].std()
        y = torch.tensor(tasks.y).long() if tasks.classes else torch.tensor(level, dtype=torch.float32)
        shuffled = np.random.default_rng(self.seed)
        parts = []
        for names in (training, test):
            places = [shuffled.permutation(tasks.rows(int(name))) for name in names]
            parts.append([(scaled[at], y[at][:, None]) for at in places])
        return parts[0], parts[1], torch.tensor(self._known(tasks.x, tasks.task, training))

    def _known(self, x: np.ndarray, task: np.ndarray, training: np.ndarray) -> np.ndarray:
        """Return the cluster known of each training task."""
        if self.name == "landmine":
            return (training >= 15).astype(int)  # fields 1 to 15 lie under leaves
        if self.name == "parkinsons":
            return np.array([int(x[task == name, 1].mean() > 0.5) for name in training])
        return np.zeros(len(training), int)
