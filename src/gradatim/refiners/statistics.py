"""Ridge regression by sufficient statistics: sums over rows, updated exactly, solved in closed form.

Source: Hoerl, Kennard 1970, eq. 2.1 (ridge); Bishop 2006, eqs. 3.50-3.51 (its posterior mean).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from ..tree import tree_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput


REMAINDER = 1e-8
"""Of the largest second moment: what rounding may leave below 0 where rows were taken away."""


class Statistics(NamedTuple):
    """Sums over rows, each by its weight.

    Fields: `gram [B, D, D]` of a a'; `cross [B, D, C]` of a y'; `squares [B, C]` of y^2; `rows [B]`: how many were
    seen.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    rows: Tensor


def empty(n_tasks: int, width: int, outputs: int, like: Tensor) -> Statistics:
    """Return the statistics of no rows, `[n_tasks, ...]`, in the dtype and on the device of `like`.

    Args:
        n_tasks: B.
        width: D of the inputs.
        outputs: C, the width of y or the number of classes.
        like: a tensor.
    """
    zeros = like.new_zeros(n_tasks, width, width)
    cross, squares = zeros.new_zeros(n_tasks, width, outputs), zeros.new_zeros(n_tasks, outputs)
    return Statistics(zeros, cross, squares, zeros.new_zeros(n_tasks))


def mean_and_deviation(moments: Statistics, intercept: int) -> Tensor:
    """Return mean and deviation of the first output `[B, 2]`; `intercept`: the place of the input that is 1.

    Example:
        >>> import torch
        >>> from gradatim.refiners.statistics import Statistics, mean_and_deviation
        >>> two = torch.full((1, 1), 2.0)
        >>> mean_and_deviation(Statistics(two[None], two[None], two, two[0]), 0)  # y = 1, 1
        tensor([[1., 0.]])
    """
    rows = moments.rows.clamp(min=1e-300)
    mean = moments.cross[:, intercept, 0] / rows
    return torch.stack([mean, (moments.squares[:, 0] / rows - mean.square()).clamp(min=0).sqrt()], 1)


def accumulate(step_input: StepInput, state: Statistics, classes: bool) -> Statistics:
    """Return the statistics `[B, ...]` of one mini-batch, like `state`; class indices become one-hot codes.

    Under autocast too the sums are in the state's dtype. Rounded to bfloat16 they need not be positive definite.

    Raises:
        ValueError: see `check_inputs`.
    """
    width, outputs = state.cross.shape[1:]
    inputs, batch = check_inputs(step_input, width)
    a, y = inputs.to(state.gram), batch.y
    if classes:
        y = torch.nn.functional.one_hot(y[..., 0], outputs)
    weight = batch.weight[..., None].to(a)
    y = y.to(a)
    with torch.autocast(a.device.type, enabled=False):
        weighted = (a * weight).mT if batch.is_weighted else a.mT  # absent rows are zero in a
        squares = (y.square() * weight).sum(1)
        return Statistics(weighted @ a, weighted @ y, squares, step_input.rows.to(a.dtype))


def check_inputs(step_input: StepInput, width: int) -> tuple[Tensor, Batch]:
    """Return the inputs `[B, N, width]` of the one weight matrix that is solved for, and their rows.

    Raises:
        ValueError: a signal without rows and inputs, inputs of more than one weight matrix or of another width.
    """
    if step_input.batch is None or step_input.inputs is None:
        raise ValueError(
            "statistics need observations and inputs; got a signal without them: use CLOSED_FORM"
        )
    widths = [part.shape[-1] for part in step_input.inputs]
    if widths != [width]:
        raise ValueError(
            f"one weight matrix is solved for, whose inputs have width {width}; got inputs of widths {widths}: give "
            "the refiner the width of a linear layer's inputs, the bias's 1 included, and f no hidden layers"
        )
    return step_input.inputs[0], step_input.batch


def log_precisions(blocks: Sequence[int], precisions: Sequence[Sequence[float]]) -> Tensor:
    """Return the logs `[K, blocks]` of the precisions of K priors.

    Raises:
        ValueError: a precision that is not positive or missing.
    """
    start = torch.tensor(precisions, dtype=torch.get_default_dtype())
    if start.shape[1:] != (len(blocks),) or not bool((start > 0).all()):
        raise ValueError(
            f"every prior needs a positive precision for each of the {len(blocks)} blocks; got {precisions}"
        )
    return start.log()


def add(*states: Statistics) -> Statistics:
    """Return the statistics `[B, ...]` of all rows."""
    return tree_map(lambda *parts: sum(parts[1:], parts[0]), *states)


def remaining_rows(before: Tensor, subtracted: Tensor) -> Tensor:
    """Return the number of rows `[B]` after some `[B]` were subtracted, not below 0 by rounding.

    Raises:
        ValueError: a task with fewer rows than are subtracted.
    """
    rows = before - subtracted.to(before)
    short = rows < -1e-6 * before.clamp(min=1)
    if bool(short.any()):
        b = int(short.nonzero()[0])
        raise ValueError(
            f"only rows that were learnt can be forgotten; task {b} has seen {before[b].item():g} rows, and "
            f"{subtracted[b].item():g} should go"
        )
    return rows.clamp(min=0)


def subtract(state: Statistics, part: Statistics) -> Statistics:
    """Return the statistics `[B, ...]` without a part of the rows summed: exact up to rounding.

    Raises:
        ValueError: fewer rows than are subtracted, or a sum of squares that becomes negative.
    """
    rows = remaining_rows(state.rows, part.rows)
    after = tree_map(torch.sub, state, part)
    for before, squares in (
        (state.gram.diagonal(dim1=1, dim2=2), after.gram.diagonal(dim1=1, dim2=2)),
        (state.squares, after.squares),
    ):
        if bool((squares < -1e-6 * before.amax(1, keepdim=True).clamp(min=1)).any()):
            raise ValueError(
                "only rows that were learnt can be forgotten; without these a sum of squares would be negative: check "
                "that they are the rows and weights as they came"
            )
    return after._replace(rows=rows)


def spread_classes(state: Statistics, place: Tensor, outputs: int) -> Statistics:
    """Return the statistics of fewer classes as those `[B, ...]` of `outputs` classes; a new class has no rows.

    Args:
        state: of C classes, regressed one-hot.
        place: `[C]` int64, the new index of each class, all different.
        outputs: the number of classes afterwards.

    Raises:
        ValueError: as many places as classes are needed, all different, in 0 .. outputs - 1.
    """
    classes = state.cross.shape[2]
    checked_places(place, classes, outputs)
    place = place.to(state.cross.device)
    cross = state.cross.new_zeros(*state.cross.shape[:2], outputs)
    squares = state.squares.new_zeros(len(state.squares), outputs)
    cross[..., place], squares[:, place] = state.cross, state.squares
    return state._replace(cross=cross, squares=squares)


def checked_places(place: Tensor, classes: int, outputs: int) -> None:
    """Check the new indices `[C]` of `classes` classes among `outputs`.

    Raises:
        ValueError: no int64 tensor `[classes]`, or indices that are repeated or outside 0 .. outputs - 1.
    """
    if place.dtype != torch.int64 or place.shape != (classes,):
        raise ValueError(
            f"a state of {classes} classes needs as many new indices, int64; got {place.dtype} {tuple(place.shape)}"
        )
    values = place.tolist()
    if len(set(values)) < classes or min(values) < 0 or max(values) >= outputs:
        raise ValueError(
            f"new indices of classes must be different and lie in 0 .. {outputs - 1}; got {values}"
        )


class Packed(NamedTuple):
    """Statistics in float32, of the symmetric gram only the lower triangle.

    Fields: `gram [B, D (D + 1) / 2]`; `cross [B, D, C]`; `squares [B, C]`; `rows [B]`.
    """

    gram: Tensor
    cross: Tensor
    squares: Tensor
    rows: Tensor


def pack(state: Statistics) -> Packed:
    """Return statistics `[B, ...]` packed: 2 D (D + 1) bytes a task and a little more.

    Example:
        >>> import torch
        >>> from gradatim.refiners.statistics import empty, pack, unpack
        >>> state = empty(1, 4, 2, torch.zeros(()))
        >>> packed = pack(state)
        >>> packed.gram.shape
        torch.Size([1, 10])
        >>> unpack(packed, state.gram).gram.shape
        torch.Size([1, 4, 4])
    """
    below = torch.tril_indices(*state.gram.shape[1:], device=state.gram.device)
    parts = state._replace(gram=state.gram[:, below[0], below[1]])
    return Packed(*(part.float() for part in parts))


def unpack(packed: Packed, like: Tensor) -> Statistics:
    """Return packed statistics as `[B, ...]` again, in the dtype and on the device of `like`."""
    triangle, cross, squares, rows = (part.to(like) for part in packed)
    width = packed.cross.shape[1]
    below = torch.tril_indices(width, width, device=triangle.device)
    gram = triangle.new_zeros(len(triangle), width, width)
    gram[:, below[0], below[1]] = triangle
    gram[:, below[1], below[0]] = triangle
    return Statistics(gram, cross, squares, rows)


def check_remainder(state: Statistics, exclusive: bool) -> None:
    """Raise ValueError where sums from which rows were taken away are such as no rows have.

    `exclusive`: whether products of two outputs are 0, as those of one-hot codes are, or there is one output.

    Example:
        >>> import torch
        >>> from gradatim.refiners.statistics import Statistics, check_remainder
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> check_remainder(Statistics(one[None], one[None], one, one[0]), exclusive=True)
        >>> check_remainder(Statistics(one[None], 2 * one[None], one, one[0]), exclusive=True)
        Traceback (most recent call last):
        ValueError: some of these rows were never learnt, or with another target or weight
    """
    second, cross, squares, rows = (part.double() for part in state)
    if exclusive:
        second = torch.cat(
            [torch.cat([second, cross], 2), torch.cat([cross.mT, torch.diag_embed(squares)], 2)], 1
        )
    values = torch.linalg.eigvalsh(second)
    lowest = -REMAINDER * values[:, -1:].clamp(min=1.0)
    if bool((values < lowest).any() or (squares < lowest).any() or (rows < lowest[:, 0]).any()):
        raise ValueError("some of these rows were never learnt, or with another target or weight")


def pack_triangle(state: Statistics) -> dict[str, Tensor]:
    """Return the statistics `[B, ...]` by name as they are, of the symmetric gram only the lower triangle."""
    below = torch.tril_indices(*state.gram.shape[1:], device=state.gram.device)
    return state._asdict() | {"gram": state.gram[:, below[0], below[1]]}


def unpack_triangle(tensors: dict[str, Tensor], like: Tensor) -> Statistics:
    """Return the statistics that `pack_triangle` packed, `[B, ...]` each, in the dtype and on the device of `like`."""
    return unpack(Packed(*(tensors[name] for name in Packed._fields)), like)


def congruent(state: Statistics, matrix: Tensor) -> Statistics:
    """Return the statistics `[B, ...]` of inputs `matrix a`, `[D', D]`."""
    present, source = matrix != 0, matrix.abs().argmax(1)
    if bool((present.sum(1) <= 1).all()):  # multiples of old inputs: no product of matrices
        factor = matrix.gather(1, source[:, None])
        gram = factor * state.gram[:, source][:, :, source] * factor[:, 0]
        return state._replace(gram=gram, cross=factor * state.cross[:, source])
    gram = matrix @ state.gram @ matrix.mT
    return state._replace(gram=(gram + gram.mT) / 2, cross=matrix @ state.cross)


class Ridge(Refiner):
    """`theta = (G + strength I)^-1 M`, G and M summed over all rows seen: exact, additive.

    The latent is the flat theta `[B, C width]` of a linear layer, one row of weights for each output. A bias is
    penalised like a weight. The inputs that multiply theta come with the signal: x, or features of it. Classes are
    regressed one-hot.

    Args:
        width: of the inputs, with the 1 of a bias.
        outputs: C, the width of y or the number of classes.
        strength: of the prior, in units of noise variance over prior variance.
        classes: whether y is a class index.
        learnt: whether the strength is meta-trained, and the features with it. The statistics then stay in the module's
            dtype; else they are float64.

    Raises:
        ValueError: strength not positive; in a step, inputs of more than one weight matrix or of another width.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import Ridge
        >>> from gradatim.signal import CLOSED_FORM
        >>> f = Network(1, SquaredError())
        >>> learner = Learner(f, Ridge(2, 1, strength=1e-6), CLOSED_FORM)
        >>> x = torch.arange(8.0)[None, :, None]
        >>> state = learner.adapt(Batch(x, 2 * x + 3), batch_size=4)
        >>> learner.predict(torch.full((1, 1, 1), 10.0), state).round(decimals=2)
        tensor([[[23.]]])

    Source: Hoerl, Kennard 1970, eq. 2.1; learnt: Bertinetto et al. 2019, eq. 4.
    """

    needs_observations = True
    needs_inputs = True
    like: Tensor

    def __init__(
        self, width: int, outputs: int, strength: float, classes: bool = False, learnt: bool = False
    ) -> None:
        super().__init__()
        if not strength > 0:
            raise ValueError(f"ridge needs strength > 0; got {strength}")
        self.width, self.outputs, self.classes, self.learnt = width, outputs, classes, learnt
        self.capabilities = Capabilities(
            merge=True, forget=True, widen=classes, weights=True, learnt=learnt, greedy=not learnt
        )
        self.strength = strength
        self.log_scale = nn.Parameter(torch.zeros(())) if learnt else None
        self.register_buffer("like", torch.zeros(()))

    def init(self, n_tasks: int, query: Batch | None = None) -> Statistics:
        """Return the statistics of no rows, of `n_tasks` tasks."""
        like = self.like if self.learnt else self.like.double()
        return empty(n_tasks, self.width, self.outputs, like)

    def step(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the statistics with one more mini-batch added."""
        return add(state, accumulate(step_input, state, self.classes))

    def merge(self, states: Sequence[Statistics]) -> Statistics:
        """Return the statistics of all rows: exact."""
        return add(*states)

    def forget(self, state: Statistics, step_input: StepInput) -> Statistics:
        """Return the statistics without the rows of a mini-batch: exact.

        Raises:
            ValueError: rows that the state has not seen, as far as their sums show it.
        """
        return subtract(state, accumulate(step_input, state, self.classes))

    def widen(self, state: Statistics, place: Tensor) -> Statistics:
        """Return the statistics of fewer classes as those of `outputs` classes: class c becomes `place[c]`.

        Args:
            state: of as many classes as `place` has entries.
            place: `[C]` int64, all different.

        Raises:
            ValueError: y is no class index, or places that are repeated or no classes.
        """
        if not self.classes:
            return super().widen(state, place)
        return spread_classes(state, place, self.outputs)

    def linearization_point(self, state: Statistics) -> Tensor:
        """Return zeros `[B, C width]`: the inputs of a linear head do not depend on it, so nothing is solved."""
        return self.like.new_zeros(len(state.rows), self.outputs * self.width)

    def latent(self, state: Statistics) -> Tensor:
        """Return theta `[B, C width]` in the module's dtype."""
        prior = self.strength * torch.eye(self.width, dtype=state.gram.dtype, device=state.gram.device)
        if self.log_scale is not None:
            prior = self.log_scale.clamp(-8, 4).exp() * prior
        factor = torch.linalg.cholesky(state.gram + prior)
        return torch.cholesky_solve(state.cross, factor).mT.flatten(1).to(self.like)
