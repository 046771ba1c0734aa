"""Tasks that change over time: a bank of forgetting factors, or a posterior over when the task last changed.

Source: Herbster, Warmuth 1998, section 3 (fixed share); Adams, MacKay 2007, algorithm 1 (online changepoints).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..refiner import Capabilities, Refiner
from ..tree import tree_map, where
from .conjugate import Conjugate
from .statistics import Statistics, accumulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput


class DriftState(NamedTuple):
    """K copies of a head, each with other weights on past rows.

    Fields: `moments`: statistics with K behind the tasks, e.g. `gram [B, K, D, D]`; `log_weight [B, K]`: log
    probability of each copy, -inf where it is not in use and its moments mean nothing; `rows [B]`: how many were seen.
    """

    moments: Statistics
    log_weight: Tensor
    rows: Tensor


class Drift(Refiner):
    """`theta = sum_k w_k theta_k`: K copies of an exact linear head, each with other weights on past rows.

    This is the base of `Bank` and `RunLength`. A copy is weighted by the likelihood that it gives to each new
    mini-batch before it learns it:

        log p(batch | copy) = log_evidence(copy + batch) - log_evidence(copy)

    All tasks and copies are computed in one call.

    Args:
        inner: the head.
        first: `[K]`, weights of the copies before any row.

    Raises:
        ValueError: an inner refiner that is no `Conjugate`, or that discounts old rows itself.
    """

    needs_observations = True
    needs_inputs = True

    def __init__(self, inner: Conjugate, first: Sequence[float]) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(inner, Conjugate):
            raise ValueError(
                f"{name} compares how likely new rows are under each copy, so it needs a Conjugate; got "
                f"{type(inner).__name__}: wrap a Conjugate on the same inputs"
            )
        if not inner.capabilities.merge:
            raise ValueError(
                f"{name} itself discounts old rows, so it needs an inner Conjugate that forgets nothing; got one "
                f"with forgetting={inner.forgetting:g}: leave forgetting out"
            )
        self.inner, self.first = inner, tuple(first)
        self.capabilities = Capabilities(
            discounts=True, weights=True, greedy=inner.capabilities.greedy, learnt=inner.capabilities.learnt
        )

    @abstractmethod
    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return moments `[B, K, ...]` and log weights `[B, K]` after a mini-batch with statistics `new [B, ...]`."""

    def init(self, n_tasks: int, query: Batch | None = None) -> DriftState:
        """Return copies that have seen no rows, of `n_tasks` tasks."""
        flat = self.inner.init(n_tasks * len(self.first))
        log_weight = flat.rows.new_tensor(self.first).log().repeat(n_tasks, 1)
        return DriftState(_unfold(flat, len(self.first)), log_weight, flat.rows.new_zeros(n_tasks))

    def step(self, state: DriftState, step_input: StepInput) -> DriftState:
        """Return the copies after one more mini-batch; a task without rows in it keeps them bit for bit."""
        new = accumulate(step_input, tree_map(lambda part: part[:, 0], state.moments), self.inner.classes)
        after = DriftState(*self.follow(state, new), state.rows + new.rows)
        return where(new.rows > 0, after, state)

    def latent(self, state: DriftState) -> Tensor:
        """Return theta, averaged over the copies, in the module's dtype, `[B, C D]`."""
        thetas = self.inner.latent(_fold(state.moments)).unflatten(0, state.log_weight.shape)
        return (state.log_weight.exp()[..., None] * thetas).sum(1).to(thetas)

    def linearization_point(self, state: DriftState) -> Tensor:
        """Return zeros `[B, C D]`: the inputs of a linear head do not depend on it."""
        return self.inner.linearization_point(tree_map(lambda part: part[:, 0], state.moments))

    def merge(self, states: Sequence[DriftState]) -> DriftState:
        """Refuse: how much a row counts depends on the order of rows.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            f"states of {type(self).__name__} do not merge: they forget, so they depend on the order of rows; merge "
            "those of the inner Conjugate, which forgets nothing"
        )

    def learn(self, moments: Statistics, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return all copies `[B, K, ...]` with `new [B, ...]` added, and its log likelihood under each, `[B, K]`."""
        after = tree_map(lambda old, fresh: old + fresh[:, None], moments, new)
        evidence = (self.inner.posterior(_fold(part)).log_evidence for part in (after, moments))
        now, before = (part.view(moments.rows.shape) for part in evidence)
        return after, now - before


class Bank(Drift):
    """`w_k <- (1 - share) w_k' + share / K`, `w_k' ~ w_k p(batch | copy k)`: one copy for each forgetting factor.

    Copy k counts a row `factors[k]` times less with every later one. After each mini-batch all copies divide a small
    share of the weight, so that a copy that was wrong for long can come back.

    Args:
        inner: an exact head that forgets nothing.
        factors: forgetting factors in (0, 1]; 1 forgets nothing.
        share: of the weight that all copies divide, in [0, 1).

    Raises:
        ValueError: no factor, one outside (0, 1], a share outside [0, 1), an inner refiner that is no `Conjugate` or
            forgets; in a merge, always.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import Bank, Conjugate
        >>> from gradatim.signal import CLOSED_FORM
        >>> refiner = Bank(Conjugate((1,), 1, [[1.0]]), factors=(1.0, 0.9, 0.5))
        >>> learner = Learner(Network(1, SquaredError(), bias=False), refiner, CLOSED_FORM)
        >>> x = torch.ones(1, 40, 1)
        >>> y = torch.cat([x[:, :20], -x[:, :20]], dim=1)  # the slope jumps from 1 to -1
        >>> learner.adapt(Batch(x, y), batch_size=2).log_weight.exp().argmax().item()
        2

    Source: Herbster, Warmuth 1998, section 3; Raftery et al. 2010, eqs. 5-9 (forgetting, averaged).
    """

    def __init__(self, inner: Conjugate, factors: Sequence[float], share: float = 0.01) -> None:
        if not factors or not all(0 < factor <= 1 for factor in factors):
            raise ValueError(
                f"a bank needs forgetting factors in (0, 1], 1 forgets nothing; got {list(factors)}: 0.99 remembers "
                "about 100 rows"
            )
        if not 0 <= share < 1:
            raise ValueError(
                f"the share of weight that all copies divide lies in [0, 1); got {share}: with 0 a copy that was "
                "wrong for long does not come back"
            )
        super().__init__(inner, [1 / len(factors)] * len(factors))
        self.factors, self.share = tuple(factors), share

    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return discounted copies `[B, K, ...]` with the mini-batch, and their log weights `[B, K]`."""
        factor = new.rows.new_tensor(self.factors) ** new.rows[:, None]
        faded = _unfold(self.inner.discount(_fold(state.moments), factor.flatten()), len(self.factors))
        after, likely = self.learn(faded, new)
        log_weight = (state.log_weight + likely).log_softmax(1)
        if self.share > 0:
            equal = log_weight.new_full((), math.log(self.share / len(self.factors)))
            log_weight = torch.logaddexp(log_weight + math.log1p(-self.share), equal)
        return after, log_weight


class RunLength(Drift):
    """A posterior over when the task last changed: copy s holds the rows since mini-batch s.

        w_s <- (1 - hazard) w_s p(batch | rows since s);  for a new s: w_s = hazard p(batch)

    Before every mini-batch but the first, the task may change, with probability `hazard`. Where there are more than
    `limit` copies, the least probable is dropped, but never the newest.

    Args:
        inner: an exact head that forgets nothing.
        hazard: probability of a change before a mini-batch, in (0, 1).
        limit: number of copies, at least 2.

    Raises:
        ValueError: a hazard outside (0, 1), a limit below 2, an inner refiner that is no `Conjugate` or forgets; in a
            merge, always.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import Conjugate, RunLength
        >>> from gradatim.signal import CLOSED_FORM
        >>> refiner = RunLength(Conjugate((1,), 1, [[1.0]]), hazard=0.02)
        >>> learner = Learner(Network(1, SquaredError(), bias=False), refiner, CLOSED_FORM)
        >>> x = torch.ones(1, 40, 1)
        >>> y = torch.cat([x[:, :30], -x[:, :10]], dim=1)  # the slope jumps from 1 to -1 ten rows before the end
        >>> refiner.run_length(learner.adapt(Batch(x, y), batch_size=2)).round()
        tensor([10.], dtype=torch.float64)

    Source: Adams, MacKay 2007, algorithm 1, a mini-batch in the place of a row.
    """

    def __init__(self, inner: Conjugate, hazard: float, limit: int = 32) -> None:
        if not 0 < hazard < 1:
            raise ValueError(
                f"a hazard is the probability of a change before a mini-batch, in (0, 1); got {hazard}: take 1 over "
                "the mini-batches that a task lasts"
            )
        if limit < 2:
            raise ValueError(
                f"a change is seen by comparing at least 2 copies, with and without it; got limit={limit}: take 32"
            )
        super().__init__(inner, [1.0] + [0.0] * (limit - 1))  # one copy is in use
        self.hazard, self.limit = hazard, limit

    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return the old copies and a new one, without the least probable old one, and their log weights `[B, K]`."""
        # before the first mini-batch there is nothing to change from
        started = (state.rows > 0)[:, None]
        old = state.log_weight + math.log1p(-self.hazard)
        change = old.new_full((len(old), 1), math.log(self.hazard))
        prior = torch.cat([old.where(started, -math.inf), change.where(started, 0.0)], dim=1)
        fresh = tree_map(lambda part: torch.cat([part, torch.zeros_like(part[:, :1])], dim=1), state.moments)
        after, likely = self.learn(fresh, new)
        log_weight = (prior + likely).log_softmax(1)
        place = torch.arange(self.limit, device=prior.device)
        survivors = place.expand_as(old).where(
            place != log_weight[:, :-1].argmin(1, keepdim=True), self.limit
        )
        moments = tree_map(
            lambda part: part[torch.arange(len(part), device=part.device)[:, None], survivors], after
        )
        return moments, log_weight.gather(1, survivors).log_softmax(1)

    def run_length(self, state: DriftState) -> Tensor:
        """Return the posterior mean of the number of rows since the task last changed, `[B]` float64."""
        return (state.log_weight.exp() * state.moments.rows).sum(1)


def _fold(state: Statistics) -> Statistics:
    """Return `[B, K, ...]` as `[B K, ...]`."""
    return tree_map(lambda part: part.flatten(0, 1), state)


def _unfold(state: Statistics, copies: int) -> Statistics:
    """Return `[B K, ...]` as `[B, K, ...]`."""
    return tree_map(lambda part: part.unflatten(0, (-1, copies)), state)
