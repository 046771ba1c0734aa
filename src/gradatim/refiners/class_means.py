"""Classes in a space of keys: Gaussian class means with a learnt prior (PLDA), or plain means (prototypical).

Source: Ioffe 2006, section 2 (probabilistic LDA); Snell et al. 2017, eqs. 1-2 (prototypes).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from ..tree import tree_map
from .statistics import check_inputs, checked_places, remaining_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

_NONE_LEFT = 1e-9
"""Weight of a class below which no row of it is left: what rounding leaves where weights were taken away."""


class ClassSums(NamedTuple):
    """Sums over rows by class, each row by its weight.

    Fields: `counts [B, C]`; `sums [B, C, K]` of keys; `rows [B]`: how many were seen.
    """

    counts: Tensor
    sums: Tensor
    rows: Tensor


class ClassMeans(Refiner):
    """Classes told apart by the means of their keys. The state is counts and sums of keys by class, in float64.

    States are additive: exact to merge and to forget. Nothing learnt belongs to one class, so the number of classes is
    free. A subclass says in `heads` what is believed of each class.

    Args:
        keys: K, the width of a key.
        classes: C.

    Example:
        >>> from gradatim.refiners import PLDA
        >>> PLDA(keys=8, classes=3).init(n_tasks=2).sums.shape
        torch.Size([2, 3, 8])
    """

    needs_observations = True
    needs_inputs = True
    capabilities = Capabilities(merge=True, forget=True, widen=True, weights=True, greedy=False)
    like: Tensor

    def __init__(self, keys: int, classes: int) -> None:
        super().__init__()
        self.keys, self.classes = keys, classes
        self.register_buffer("like", torch.zeros(()))

    @abstractmethod
    def heads(self, state: ClassSums) -> tuple[Tensor, Tensor, Tensor]:
        """Return what multiplies k and k^2 `[B, C, K]` in the score of each class, and what is added `[B, C]`.

        `state`: in the module's dtype.
        """

    def init(self, n_tasks: int, query: Batch | None = None) -> ClassSums:
        """Return the sums over no rows, of `n_tasks` tasks."""
        sums = self.like.double().new_zeros(n_tasks, self.classes, self.keys)
        return ClassSums(sums.new_zeros(n_tasks, self.classes), sums, sums.new_zeros(n_tasks))

    def step(self, state: ClassSums, step_input: StepInput) -> ClassSums:
        """Return the sums with one more mini-batch."""
        return tree_map(torch.add, state, self._sums(step_input))

    def merge(self, states: Sequence[ClassSums]) -> ClassSums:
        """Return the sums over all rows: exact, the prior counted once."""
        return tree_map(lambda *parts: sum(parts[1:], parts[0]), *states)

    def forget(self, state: ClassSums, step_input: StepInput) -> ClassSums:
        """Return the sums without the rows of a mini-batch: exact.

        Raises:
            ValueError: more rows of a class than the state has seen.
        """
        part = self._sums(step_input)
        rows = remaining_rows(state.rows, part.rows)
        after = tree_map(torch.sub, state, part)
        if bool((after.counts < -1e-6 * state.counts.clamp(min=1)).any()):
            raise ValueError(
                "only rows that were learnt can be forgotten; of a class more rows would go than were seen: check that "
                "they are the rows and weights as they came"
            )
        left = after.counts > _NONE_LEFT
        return ClassSums(after.counts * left, after.sums * left[..., None], rows)

    def widen(self, state: ClassSums, place: Tensor) -> ClassSums:
        """Return the sums of fewer classes as those of this refiner's: class c becomes `place[c]`, `place [C]`.

        Raises:
            ValueError: places that are repeated or no classes.
        """
        checked_places(place, state.counts.shape[1], self.classes)
        wide, place = self.init(len(state.rows)), place.to(state.counts.device)
        wide.counts[:, place], wide.sums[:, place] = state.counts, state.sums
        return wide._replace(rows=state.rows)

    def linearization_point(self, state: ClassSums) -> Tensor:
        """Return zeros `[B, C (2 K + 1)]`: keys do not depend on the head."""
        return self.like.new_zeros(len(state.rows), self.classes * (2 * self.keys + 1))

    def latent(self, state: ClassSums) -> Tensor:
        """Return the head `[B, C (2 K + 1)]` as `Keys` reads it, in the module's dtype."""
        linear, square, constant = self.heads(tree_map(lambda part: part.to(self.like), state))
        return torch.cat([linear, square, constant[..., None]], dim=2).flatten(1)

    def _sums(self, step_input: StepInput) -> ClassSums:
        inputs, batch = check_inputs(step_input, 2 * self.keys + 1)
        with torch.autocast(inputs.device.type, enabled=False):
            keys = inputs[..., : self.keys].double()
            member = F.one_hot(batch.y[..., 0], self.classes).to(keys) * batch.weight[..., None]
            return ClassSums(member.sum(1), member.mT @ keys, step_input.rows.double())


class PLDA(ClassMeans):
    """Means of classes `~ N(m, diag(w))`, keys `~ N(mean, diag(v))`, with m, w, v learnt: probabilistic LDA.

        p_c = 1 / w + n_c / v,   mean_c = (m / w + sum_c / v) / p_c
        score_c = T log N(k; mean_c, 1 / p_c + v) + b_0 [n_c = 0] + b_1 log(1 + n_c)
        T = softplus(t_0 + t_1 log(1 + n))

    n_c rows of class c, n in all. A class without rows has the prior. Temperature and biases are learnt too: keys are
    not Gaussian, and their likelihood is too sure of itself.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import CrossEntropy, Keys
        >>> from gradatim.refiners import PLDA
        >>> from gradatim.signal import CLOSED_FORM
        >>> f = Keys(1, CrossEntropy(2), torch.nn.Identity(), keys=1)
        >>> learner, x = Learner(f, PLDA(1, 2), CLOSED_FORM), torch.tensor([[[-3.0], [3.0]]])
        >>> state = learner.adapt(Batch(x, torch.tensor([[[0], [1]]])), batch_size=2)
        >>> learner.predict(x, state).argmax(-1)
        tensor([[0, 1]])

    Source: Ioffe 2006, section 2; Prince, Elder 2007 (as a classifier); in a learnt space this project's own.
    """

    def __init__(self, keys: int, classes: int) -> None:
        super().__init__(keys, classes)
        self.mean = nn.Parameter(torch.zeros(keys))
        self.log_between = nn.Parameter(torch.zeros(keys))
        self.log_within = nn.Parameter(torch.zeros(keys))
        self.temperature = nn.Parameter(torch.tensor([-1.0, 0.0]))
        self.bias = nn.Parameter(torch.zeros(2))

    def heads(self, state: ClassSums) -> tuple[Tensor, Tensor, Tensor]:
        """Return what multiplies k and k^2 `[B, C, K]` in the score of each class, and what is added `[B, C]`."""
        between, within = self.log_between.exp(), self.log_within.exp()
        precision = 1 / between + state.counts[..., None] / within
        mean = (self.mean / between + state.sums / within) / precision
        variance = 1 / precision + within
        temperature = F.softplus(self.temperature[0] + self.temperature[1] * state.rows.log1p())[:, None]
        constant = -temperature / 2 * (mean.square() / variance + variance.log()).sum(-1)
        bias = self.bias[0] * (state.counts == 0) + self.bias[1] * state.counts.log1p()
        sharp = temperature[..., None] / variance
        return sharp * mean, -sharp / 2, constant + bias


class Prototypical(ClassMeans):
    """Scores `-T |k - mean_c|^2`, mean_c of the keys of class c, and a learnt score where none was seen.

    Snell et al. know one row of each class at least. Here classes come in time, and those not seen yet have one score
    u for all x. T starts at 1 / K.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import CrossEntropy, Keys
        >>> from gradatim.refiners import Prototypical
        >>> from gradatim.signal import CLOSED_FORM
        >>> f = Keys(1, CrossEntropy(2), torch.nn.Identity(), keys=1)
        >>> learner, x = Learner(f, Prototypical(1, 2), CLOSED_FORM), torch.tensor([[[-3.0], [3.0]]])
        >>> state = learner.adapt(Batch(x, torch.tensor([[[0], [1]]])), batch_size=2)
        >>> learner.predict(x, state).argmax(-1)
        tensor([[0, 1]])

    Source: Snell et al. 2017, eqs. 1, 2 and 8; the score of classes not seen is this project's own.
    """

    def __init__(self, keys: int, classes: int) -> None:
        super().__init__(keys, classes)
        self.log_scale = nn.Parameter(torch.tensor(float(keys)).log().neg())
        self.unseen = nn.Parameter(torch.tensor(-2.0))

    def heads(self, state: ClassSums) -> tuple[Tensor, Tensor, Tensor]:
        """Return what multiplies k and k^2 `[B, C, K]` in the score of each class, and what is added `[B, C]`."""
        seen = (state.counts > 0)[..., None]
        mean = state.sums / torch.where(seen, state.counts[..., None], 1)
        scale = self.log_scale.exp()
        constant = torch.where(seen[..., 0], -scale * mean.square().sum(-1), self.unseen)
        return 2 * scale * mean, -scale * seen.to(mean).expand_as(mean), constant
