"""Settings that validation tasks choose, and losses over meta-training seeds.

Source: this project's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from studies.tables.protocol import compute

from .learnt import Judged, cost, judge
from .verdicts import geometric

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study

CORES = 2
"""Cores of the machine that limits of training time are about: as many seconds of the processor pass in one second."""


def over_seeds(study: Study, title: str, job: Judged, seeds: int) -> np.ndarray:
    """Return the losses `[S, T, R]` of a setting that is trained with each seed."""
    jobs = [job._replace(seed=seed) for seed in range(seeds)]
    found = compute(study, jobs, title, judge)
    return np.stack([found[entry]["losses"] for entry in jobs])


def choose(study: Study, title: str, jobs: Sequence[Judged], limit: float | None = None) -> Judged:
    """Return the job of the lowest geometric mean of losses on validation tasks.

    Args:
        study: the study's folder.
        title: what is chosen, for progress.
        jobs: one for each setting, all on the same validation tasks.
        limit: seconds that training may take on `CORES` cores. Settings beyond it are left out, but for the quickest.
    """
    found = compute(study, jobs, title, judge)
    scores = {job: geometric(found[job]["losses"].mean(0)) for job in jobs}
    if limit is not None:
        spent = {job: cost(study, job.setting, job.seed)["cpu_seconds"] / CORES for job in jobs}
        jobs = [job for job in jobs if spent[job] <= limit] or [min(jobs, key=spent.__getitem__)]
    return min(jobs, key=scores.__getitem__)
