"""Which tasks help each other: shares learnt from how states of other tasks answer a task's rows; a penalty of them.

Source: after the idea of Wang, Qiang, Sun, Zheng, Li 2024 (TRLearner, arXiv 2409.08474), whose equations are not
public. The consistency has the form of Yao et al. 2024 (D3G, arXiv 2302.02609). The formulation is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..batch import Batch, Task, check_count
from ..learner import Learner
from ..predictor import weighted_mean

if TYPE_CHECKING:
    from torch import Tensor

    from ..refiner import State

SHARPNESS = 8.0
"""Where the sharpness of shares starts: tasks that are alike then weigh e^8 times as much as unrelated ones."""

RATE, TINY = 0.3, 1e-12


def relations(learner: Learner, tasks: Task | Batch, heads: int = 4, batch_size: int | None = None) -> Tensor:
    """Return in which shares the states of other tasks answer for each task, `[T, T]`: which tasks help each other.

    Row i is task i: how much task j helps it. Rows sum to one, a task has no share in itself, and a row that is the
    same everywhere says that no task helps more than another. The learner adapts to each task first.

        d_j(x) = f_j(x) - mean_k f_k(x)        how task j's state departs from what all states answer
        e_i(x) = y_i(x) - mean_k f_k(x)        how task i's rows do
        a_ij = sum_r s_r (cos_r(d_j, e_i) + cos_r(d_i, e_j)) / 2,    shares = softmax over j != i

    `cos_r` is the cosine over the rows of a task, which head r weighs by the region of x it looks at. The sharpness
    s_r of each head is learnt: with it the mixtures `sum_j shares_ij f_j` answer the rows of task i best.

    Args:
        learner: of any kind whose state answers any x.
        tasks: of T tasks the support to learn and the query; or rows `[T, N, ...]`, all of them learnt. No state
            is judged by rows that it has learnt.
        heads: how many regions of x are looked at. The first is all of x.
        batch_size: rows of a mini-batch that the learner adapts by. None: all of a task at once.

    Raises:
        ValueError: fewer than two tasks, a learner whose states belong to their queries, rows that are not its own,
            answers that are neither numbers like y nor logits of classes.

    Example:
        >>> import torch
        >>> from gradatim import Batch, LinearRegression, build
        >>> from gradatim.regularizers.clusters import clusters
        >>> from gradatim.regularizers.relations import relations
        >>> x = torch.randn(6, 20, 2, generator=torch.Generator().manual_seed(0))
        >>> slope = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])[:, None, None]
        >>> shares = relations(build("ridge", LinearRegression(2)), Batch(x, slope * x[..., :1]))
        >>> clusters(shares, 2).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    if not isinstance(learner, Learner):
        raise ValueError(
            f"relations reads states of a Learner; got {type(learner).__name__}: of other models give `related` "
            "their answers"
        )
    if not isinstance(tasks, Task | Batch):
        raise ValueError(
            f"tasks come as a Task or a Batch; got {type(tasks).__name__}: make one, Batch.from_rows(...)"
        )
    rows = tasks if isinstance(tasks, Batch) else all_rows(tasks)
    support = tasks if isinstance(tasks, Batch) else tasks.support
    _check(learner, rows, heads)
    with torch.no_grad():
        state = learner.adapt(support, support.n_rows if batch_size is None else batch_size)
        return related(answers(learner, state, rows), rows, heads)


def answers(learner: Learner, state: State, rows: Batch) -> Tensor:
    """Return what the state of each task answers at the rows of every task, `[T, T, N, Do]`: state first.

    Raises:
        ValueError: as `Learner.predict`.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, build
        >>> from gradatim.regularizers.relations import answers
        >>> learner = build("ridge", LinearRegression(2))
        >>> rows = LinearRegression(2).sample(3, torch.Generator().manual_seed(0)).query
        >>> answers(learner, learner.adapt(rows, 32), rows).shape
        torch.Size([3, 3, 64, 1])
    """
    x = rows.x.flatten(0, 1)
    said = learner.predict(x.expand(rows.n_tasks, *x.shape), state)
    return said.unflatten(1, (rows.n_tasks, rows.n_rows))


def related(said: Tensor, rows: Batch, heads: int = 4, rounds: int = 60) -> Tensor:
    """Return the shares of `relations`, `[T, T]`, of any models, one for each task, from what they answer.

    Args:
        said: what the model of task j answers at the rows of task i, `[T, T, N, Do]`, j first: numbers like y, or
            logits where y is a class.
        rows: of T tasks.
        heads: as in `relations`.
        rounds: steps of learning the sharpness of each head.

    Raises:
        ValueError: fewer than two tasks, answers of another shape or not finite.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.regularizers.relations import related
        >>> rows = Batch(torch.zeros(3, 2, 1), torch.tensor([1.0, 1.0, 5.0])[:, None, None].expand(3, 2, 1))
        >>> said = rows.y.mean(1)[:, None, None].expand(3, 3, 2, 1)
        >>> related(said, rows)[0].round(decimals=2)
        tensor([0., 1., 0.], dtype=torch.float64)
    """
    check_count("heads", heads)
    _check_answers(said, rows)
    said, target = _on_one_scale(said.detach().double(), rows)
    alike = _alike(said, target, rows, heads)
    with torch.inference_mode(False), torch.enable_grad():
        own, asked, wanted, weight = (part.clone() for part in (alike, said, target, rows.weight))
        sharpness = _sharpness(own, asked, wanted, weight, _of_classes(rows), rounds)
    return _shares(alike, sharpness)


def consistency(said: Tensor, rows: Batch, shares: Tensor) -> Tensor:
    """Return the mean loss `[]` of mixtures of answers `[T, T, N, Do]` in shares `[T, T]` at the rows of T tasks.

    It is the squared error of numbers, the log loss of classes, whose probabilities are mixed.

    Raises:
        ValueError: as `related`.

    Example:
        >>> import torch
        >>> from gradatim import Batch
        >>> from gradatim.regularizers.relations import consistency
        >>> rows = Batch(torch.zeros(2, 3, 1), torch.tensor([[[2.0]], [[4.0]]]).expand(2, 3, 1))
        >>> said = rows.y[:, None].expand(2, 2, 3, 1)
        >>> consistency(said, rows, shares=torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
        tensor(2.5000)
    """
    _check_answers(said, rows)
    said, target = _on_one_scale(said, rows)
    return weighted_mean(_losses(said, target, shares.to(said), _of_classes(rows)), rows).mean()


@dataclass(frozen=True)
class Relations:
    """A penalty of a scheme: what other tasks have become should answer a task's query, in the shares of relations.

        penalty = weight mean_i L(query_i, sum_{j != i} shares_ij f_j)

    The shares are those of `relations`, learnt anew from the support and query of each meta-batch. They are numbers:
    no gradient goes through them.

    Fields:
        `weight`: how much the penalty counts.
        `heads`: as in `relations`.
        `rounds`: steps of learning the sharpness in each meta-batch.

    Raises:
        ValueError: a negative weight, heads or rounds below 1. In training: meta-batches of one task, a learner whose
            states belong to their queries.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression, Unrolled, build
        >>> from gradatim.regularizers.relations import Relations
        >>> family, generator = LinearRegression(2, support_rows=8), torch.Generator().manual_seed(0)
        >>> scheme = Unrolled(batch_size=8, horizon=1, penalties=(Relations(weight=0.3),))
        >>> scheme.loss(build("maml", family), family.sample(4, generator), generator).backward()

    Source: after the idea of Wang et al. 2024; Yao et al. 2024.
    """

    weight: float = 0.3
    heads: int = 4
    rounds: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"a penalty needs a weight of at least 0, and finite; got {self.weight}")
        check_count("heads", self.heads)
        check_count("rounds", self.rounds)

    def of_states(self, learner: Learner, task: Task, state: State) -> Tensor:
        """Return the penalty `[]` of a meta-batch of T tasks, whose states are `[T, ...]` after the last step."""
        rows = all_rows(task)
        _check(learner, rows, self.heads)
        if self.weight == 0:
            return rows.weight.new_zeros(())
        said, known = answers(learner, state, rows), task.support.n_rows
        shares = related(said, rows, self.heads, self.rounds)
        return self.weight * consistency(said[:, :, known:], task.query, shares)


def all_rows(task: Task) -> Batch:
    """Return the support and the query of tasks as one batch, `[T, N + Nq, ...]`.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> from gradatim.regularizers.relations import all_rows
        >>> all_rows(LinearRegression(2).sample(3, torch.Generator().manual_seed(0))).n_rows
        224
    """
    parts = task.support, task.query
    x, y, weight = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("x", "y", "weight"))
    return Batch._trusted(x, y, weight)


# --- from answers to shares


def _of_classes(rows: Batch) -> bool:
    return not rows.y.is_floating_point()


def _on_one_scale(said: Tensor, rows: Batch) -> tuple[Tensor, Tensor]:
    """Return answers `[T, T, N, Do]` and targets `[T, N, Do]`: numbers, or of classes probabilities."""
    if rows.y.is_floating_point():
        return said, rows.y.to(said)
    return said.softmax(-1), F.one_hot(rows.y[..., 0], said.shape[-1]).to(said)


def _alike(said: Tensor, target: Tensor, rows: Batch, heads: int) -> Tensor:
    """Return the cosine of departures of tasks i and j as each head sees it, `[heads, T, T]`, symmetric.

    It is 0 where a task departs from the mean in nothing.
    """
    look = _regions(rows, heads)
    mean = said.mean(0)
    state, own = said - mean, target - mean
    product = torch.einsum("rin,jind,ind->rij", look, state, own)
    length = torch.einsum("rin,jind->rij", look, state.square())
    length = length * torch.einsum("rin,ind->ri", look, own.square())[..., None]
    smallest = 1e-13 * (said.square().mean() + target.square().mean()) + TINY**2
    cosine = product / (length.sqrt() + smallest)
    return (cosine + cosine.mT) / 2


def _regions(rows: Batch, heads: int) -> Tensor:
    """Return the weight of each row of a task for each head, `[heads, T, N]`, which sum to one within a task."""
    x = rows.x.flatten(2).double()
    present = rows.weight.double()[..., None]
    mean = (x * present).sum((0, 1)) / present.sum()
    deviation = ((x - mean).square() * present).sum((0, 1)).div(present.sum()).sqrt()
    scaled = (x - mean) / (deviation + TINY)
    direction = torch.randn(
        heads, x.shape[2], generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    direction[0] = 0
    height = torch.einsum("tnd,rd->rtn", scaled, direction.to(x) / x.shape[2] ** 0.5)
    weight = height.masked_fill(~rows.mask, -torch.inf).softmax(2) * rows.weight
    return weight / weight.sum(2, keepdim=True)


def _sharpness(
    alike: Tensor, said: Tensor, target: Tensor, weight: Tensor, classes: bool, rounds: int
) -> Tensor:
    """Return the sharpness of each head `[heads]` with which mixtures answer rows with weights `[T, N]` best."""
    heads, n_tasks = alike.shape[:2]
    log = alike.new_full((heads,), math.log(SHARPNESS / heads)).requires_grad_()
    optimizer = torch.optim.Adam([log], RATE)
    uniform = _shares(alike, log.new_zeros(heads))
    weight = weight.to(said) / weight.sum(1, keepdim=True) / n_tasks
    scale = (_losses(said, target, uniform, classes) * weight).sum() + TINY
    for _ in range(rounds):
        optimizer.zero_grad()
        loss = (_losses(said, target, _shares(alike, log.exp()), classes) * weight).sum() / scale
        loss.backward()
        optimizer.step()
    return log.detach().exp()


def _shares(alike: Tensor, sharpness: Tensor) -> Tensor:
    """Return shares `[T, T]` of how alike tasks are for each head `[heads, T, T]`; a task has none in itself."""
    score = torch.einsum("rij,r->ij", alike, sharpness)
    own = torch.eye(len(score), dtype=torch.bool, device=score.device)
    return score.masked_fill(own, -torch.inf).softmax(1)


def _losses(said: Tensor, target: Tensor, shares: Tensor, classes: bool) -> Tensor:
    """Return the loss of mixtures of answers `[T, T, N, Do]` at each row, `[T, N]`; targets `[T, N, Do]`."""
    mixed = torch.einsum("ij,jind->ind", shares, said)
    if classes:
        return -(mixed * target).sum(-1).clamp(min=TINY).log()
    return (mixed - target).square().sum(-1)


# --- checks


def _check(learner: Learner, rows: Batch, heads: int) -> None:
    """Raise ValueError where relations of these tasks cannot be read from states of this learner."""
    check_count("heads", heads)
    _check_number(rows)
    if learner.refiner.capabilities.per_query:
        raise ValueError(
            "relations ask each task's state at rows of other tasks; states of an implicit learner answer their own "
            "queries alone: use a parametric or explicit learner"
        )
    learner.check(rows)


def _check_number(rows: Batch) -> None:
    if rows.n_tasks < 2:
        raise ValueError(
            f"relations are between tasks: at least two are needed; got {rows.n_tasks}: give several tasks in one batch"
        )


def _check_answers(said: Tensor, rows: Batch) -> None:
    """Raise ValueError where answers are not `[T, T, N, Do]` of T tasks, or not finite."""
    _check_number(rows)
    lead = (rows.n_tasks, *rows.y.shape[:2])
    width = rows.y.shape[2] if rows.y.is_floating_point() else max(2, int(rows.y.max()) + 1)
    fits = said.dim() == 4 and (
        said.shape[3] == width or (not rows.y.is_floating_point() and said.shape[3] > width)
    )
    if tuple(said.shape[:3]) != lead or not fits:
        kind = "numbers like y" if rows.y.is_floating_point() else "a logit for each class"
        raise ValueError(
            f"answers of {rows.n_tasks} tasks at their {rows.n_rows} rows have the shape {(*lead, width)}, {kind}; got "
            f"{tuple(said.shape)}"
        )
    if not bool(said.isfinite().all()):
        raise ValueError("a task's state answers with numbers that are not finite: adapt it by smaller steps")
