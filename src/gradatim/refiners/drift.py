"""Following a task that changes: a bank of forgetting factors, or a posterior over when the task last changed.

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
    """K ways of having weighted the past: `moments` with K behind the tasks, e.g. `gram [B, K, D, D]`, `log_weight
    [B, K]` (their exp sums to one; -inf: not in use, its moments mean nothing), `rows [B]` seen."""

    moments: Statistics
    log_weight: Tensor
    rows: Tensor


class Drift(Refiner):
    """`theta = sum_k w_k theta_k`: K copies of an exact linear head, each with a past of its own; what both share.

    A copy is weighted by how likely it found each new mini-batch before it learnt it,
    `log p(batch | copy) = log_evidence(copy + batch) - log_evidence(copy)`. All tasks and copies are one call.

    Args: `inner`: the head; `first`: weights of the copies before any row, `[K]`.

    Raises:
        ValueError: an inner refiner that is no `Conjugate`, or that forgets by itself.
    """

    needs_observations = True
    needs_inputs = True

    def __init__(self, inner: Conjugate, first: Sequence[float]) -> None:
        super().__init__()
        name = type(self).__name__
        if not isinstance(inner, Conjugate):
            raise ValueError(
                f"{name} compares what each copy says of new rows, so it needs a Conjugate; got "
                f"{type(inner).__name__}: wrap a Conjugate on the same inputs"
            )
        if not inner.capabilities.merge:
            raise ValueError(
                f"{name} itself says what is forgotten, so it needs an inner Conjugate that forgets nothing; got one "
                f"with forgetting={inner.forgetting:g}: leave forgetting out"
            )
        self.inner, self.first = inner, tuple(first)
        self.capabilities = Capabilities(
            discounts=True, weights=True, greedy=inner.capabilities.greedy, learnt=inner.capabilities.learnt
        )

    @abstractmethod
    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return moments and log weights after `new`, the statistics `[B, ...]` of one mini-batch."""

    def init(self, n_tasks: int, query: Batch | None = None) -> DriftState:
        """Return copies that have seen no rows."""
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
        each = self.inner.latent(_fold(state.moments)).unflatten(0, state.log_weight.shape)
        return (state.log_weight.exp()[..., None] * each).sum(1).to(each)

    def linearization_point(self, state: DriftState) -> Tensor:
        """Return zeros: what enters a linear head does not depend on it."""
        return self.inner.linearization_point(tree_map(lambda part: part[:, 0], state.moments))

    def merge(self, states: Sequence[DriftState]) -> DriftState:
        """Refuse.

        Raises:
            ValueError: always: what is forgotten depends on the order of rows.
        """
        raise ValueError(
            f"states of {type(self).__name__} do not merge: they forget, so they depend on the order of rows; merge "
            "those of the inner Conjugate, which forgets nothing"
        )

    def learn(self, moments: Statistics, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return all copies `[B, K, ...]` with `new [B, ...]` added, and its log-likelihood under each, `[B, K]`."""
        after = tree_map(lambda old, fresh: old + fresh[:, None], moments, new)
        evidence = (self.inner.posterior(_fold(part)).log_evidence for part in (after, moments))
        now, before = (part.view(moments.rows.shape) for part in evidence)
        return after, now - before


class Bank(Drift):
    """`w_k <- (1 - share) w_k' + share / K`, `w_k' ~ w_k p(batch | copy k)`: a forgetting factor for every pace.

    Copy k counts a row `factors[k]` times less with every later one. The share of weight that all copies divide after
    each mini-batch lets one that was wrong for long come back.

    Args: `inner`: an exact head that forgets nothing; `factors`, each in (0, 1], 1 forgets nothing; `share` in [0, 1).

    Raises:
        ValueError: no factor, one outside (0, 1], a share outside [0, 1), an inner refiner that is no `Conjugate` or
            forgets; in a merge, always.

    Example:
        >>> refiner = Bank(Conjugate((8,), 1, [[1.0]]), factors=(1.0, 0.99, 0.97, 0.9))

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
                f"the share of weight that all copies divide lies in [0, 1); got {share}: 0 never changes its mind"
            )
        super().__init__(inner, [1 / len(factors)] * len(factors))
        self.factors, self.share = tuple(factors), share

    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return discounted copies with the mini-batch, weighted by how likely they found it."""
        factor = new.rows.new_tensor(self.factors) ** new.rows[:, None]
        faded = _unfold(self.inner.discount(_fold(state.moments), factor.flatten()), len(self.factors))
        after, likely = self.learn(faded, new)
        log_weight = (state.log_weight + likely).log_softmax(1)
        if self.share > 0:
            equal = log_weight.new_full((), math.log(self.share / len(self.factors)))
            log_weight = torch.logaddexp(log_weight + math.log1p(-self.share), equal)
        return after, log_weight


class RunLength(Drift):
    """`w_s <- (1 - hazard) w_s p(batch | rows since s)`, for a new s `w_s = hazard p(batch)`: when did the task change?

    Copy s holds the rows since mini-batch s, when the task began. Before any mini-batch but the first it may have begun
    anew, with probability `hazard`. Where there are more than `limit` copies the least probable goes, never the newest.

    Args: `inner`: an exact head that forgets nothing; `hazard` in (0, 1), a mini-batch; `limit` of copies, at least 2.

    Raises:
        ValueError: a hazard outside (0, 1), a limit below 2, an inner refiner that is no `Conjugate` or forgets; in a
            merge, always.

    Example:
        >>> refiner = RunLength(Conjugate((8,), 1, [[1.0]]), hazard=0.02)

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
                f"finding a change needs at least 2 copies, with and without it; got limit={limit}: 32 is a start"
            )
        super().__init__(inner, [1.0] + [0.0] * (limit - 1))  # one copy is in use
        self.hazard, self.limit = hazard, limit

    def follow(self, state: DriftState, new: Statistics) -> tuple[Statistics, Tensor]:
        """Return the old copies and a new one, the least probable old one left out."""
        begun = (state.rows > 0)[:, None]  # before the first mini-batch there is nothing to change from
        old = state.log_weight + math.log1p(-self.hazard)
        change = old.new_full((len(old), 1), math.log(self.hazard))
        prior = torch.cat([old.where(begun, -math.inf), change.where(begun, 0.0)], dim=1)
        fresh = tree_map(lambda part: torch.cat([part, torch.zeros_like(part[:, :1])], dim=1), state.moments)
        after, likely = self.learn(fresh, new)
        log_weight = (prior + likely).log_softmax(1)
        place = torch.arange(self.limit, device=prior.device)
        kept = place.expand_as(old).where(place != log_weight[:, :-1].argmin(1, keepdim=True), self.limit)
        moments = tree_map(
            lambda part: part[torch.arange(len(part), device=part.device)[:, None], kept], after
        )
        return moments, log_weight.gather(1, kept).log_softmax(1)

    def run_length(self, state: DriftState) -> Tensor:
        """Return the posterior mean of the number of rows since the task last changed, `[B]` float64."""
        return (state.log_weight.exp() * state.moments.rows).sum(1)


def _fold(state: Statistics) -> Statistics:
    """Return `[B, K, ...]` as `[B K, ...]`."""
    return tree_map(lambda part: part.flatten(0, 1), state)


def _unfold(state: Statistics, copies: int) -> Statistics:
    """Return `[B K, ...]` as `[B, K, ...]`."""
    return tree_map(lambda part: part.unflatten(0, (-1, copies)), state)
