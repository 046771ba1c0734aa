"""Refinement on top of a trained prior: begin at its posterior, and keep the learnt steps only where they beat it.

Source: Mittal et al. 2025, eq. 7 (a state refined by learnt steps); the choice of where is this project's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..refiners.refined import OCTAVES, Refined, octave

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Task
    from ..learner import Learner

_SURE = 2.0
"""By how many standard errors of the mean over tasks the steps must be better."""


def begin_from(learner: Learner, start: Learner, frozen: bool = False) -> None:
    """Copy the weights of a trained start into a learner that refines it.

    Args:
        learner: of the method `refined-alpaca` or `refined-plda`.
        start: of `alpaca` or `plda`, of the same sizes.
        frozen: whether further training leaves these weights as they are. Then the learner without its steps stays the
            start, and is what is returned to where steps are not kept. Otherwise keys and prior are trained on.

    Raises:
        ValueError: a learner without learnt steps on top, or a start of other parts or sizes.

    Example:
        >>> import torch
        >>> from gradatim import Sinusoids, build
        >>> from gradatim.training.refining import begin_from
        >>> family = Sinusoids(support_rows=10)
        >>> start, learner = build("alpaca", family), build("refined-alpaca", family)
        >>> begin_from(learner, start, frozen=True)
        >>> task = family.sample(2, torch.Generator().manual_seed(0))
        >>> answers = [one.predict(task.query.x, one.adapt(task.support, 5)) for one in (start, learner)]
        >>> torch.equal(*answers)
        True
    """
    refined_in(learner)
    weights = start.state_dict()
    own = {name: value.shape for name, value in learner.state_dict().items()}
    for name, value in weights.items():
        if own.get(name) != value.shape:
            raise ValueError(
                f"the start's {name} has shape {tuple(value.shape)}, the learner's is "
                f"{tuple(own[name]) if name in own else 'missing'}: build both of one family, with the same options"
            )
    if own.keys() == weights.keys():
        raise ValueError("the start has learnt steps already: begin from 'alpaca' or 'plda'")
    learner.load_state_dict(weights, strict=False)
    for name, parameter in learner.named_parameters():
        if name in weights:
            parameter.requires_grad_(not frozen)


@torch.no_grad()
def keep_where_better(learner: Learner, task: Task, batch_size: int) -> list[tuple[int, float]]:
    """Keep the learnt steps only at numbers of rows where they beat the start on validation tasks.

    Numbers of rows are told apart by their powers of two: 0, 1, 2 to 3, 4 to 7 and so on. Steps are kept where the mean
    difference of the query losses is below zero by two standard errors. Where no number of rows was tried, the nearest
    one that was decides.

    Args:
        learner: whose refiner has learnt steps. It is changed: see `Refined.kept`.
        task: tasks that no training has seen, the support `[B, N, ...]`.
        batch_size: rows of a mini-batch; the losses are compared after each.

    Returns:
        The least number of rows of each power of two that was tried, and the ratio of the losses there, with steps
        over without.

    Raises:
        ValueError: a learner without learnt steps on top, or fewer than two tasks.

    Example:
        >>> import torch
        >>> from gradatim import Sinusoids, build
        >>> from gradatim.training.refining import keep_where_better
        >>> family = Sinusoids(support_rows=10)
        >>> learner = build("refined-alpaca", family)  # untrained steps change nothing
        >>> keep_where_better(learner, family.sample(20, torch.Generator().manual_seed(0)), 5)
        [(0, 1.0), (4, 1.0), (8, 1.0)]
        >>> bool(learner.refiner.kept.any())
        False
    """
    refiner = refined_in(learner)
    if task.n_tasks < 2:
        raise ValueError(f"where steps are better is judged by at least two tasks; got {task.n_tasks}")
    found: dict[int, list[Tensor]] = {}
    for state in learner.states(task.support.split(batch_size)):
        losses = []
        for kept in (True, False):
            refiner.kept.fill_(kept)
            losses.append(learner.loss(task.query, state).double())
        pair = torch.stack(losses)
        places = octave(state.rows)
        for place in places.unique().tolist():
            found.setdefault(place, []).append(torch.where(places == place, pair, torch.nan))
    better, ratios = {}, []
    for place in sorted(found):
        # a task counts once, by its mean over mini-batches
        with_steps, without = torch.stack(found[place]).nanmean(0)
        present = ~with_steps.isnan()
        with_steps, without = with_steps[present], without[present]
        gain = without - with_steps
        error = gain.std() / len(gain) ** 0.5 if len(gain) > 1 else gain.new_tensor(torch.inf)
        better[place] = bool(gain.mean() > _SURE * error)
        ratios.append((2 ** (place - 1) if place else 0, float(with_steps.mean() / without.mean())))
    nearest = [min(better, key=lambda tried: abs(tried - place)) for place in range(OCTAVES)]
    refiner.kept.copy_(torch.tensor([better[place] for place in nearest]))
    return ratios


def refined_in(learner: Learner) -> Refined:
    """Return the refiner of a learner that has learnt steps on top of a start.

    Raises:
        ValueError: it has none.

    Example:
        >>> from gradatim import Sinusoids, build
        >>> from gradatim.training.refining import refined_in
        >>> refined_in(build("alpaca", Sinusoids()))
        Traceback (most recent call last):
        ValueError: ALPaCA has no learnt steps on top of a start: choose 'refined-alpaca' or 'refined-plda'
    """
    if not isinstance(learner.refiner, Refined):
        raise ValueError(
            f"{type(learner.refiner).__name__} has no learnt steps on top of a start: choose 'refined-alpaca' or "
            "'refined-plda'"
        )
    return learner.refiner
