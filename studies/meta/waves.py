"""Sinusoids: learnt keys and a learnt prior beside a tuned Gaussian process, and the posterior that knows the family.

Source: Finn, Abbeel, Levine 2017, section 5.1 (the family); the comparison is this project's own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.families import Sinusoids
from gradatim.methods import ALPaCA
from studies.part import Found, Part
from studies.tables.protocol import compute

from .choosing import choose, over_seeds
from .classes import spent
from .learnt import TEST, VALIDATION, Judged, Setting, waves_training
from .references import ORACLE, PROCESS, ROWS, Reference, refer
from .verdicts import entries, measured, over

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study
    from studies.tables.verdicts import Three

ITERATIONS = (1000, 2000, 4000)
"""Iterations of training that validation tasks choose among."""

FAMILIES: dict[str, Sinusoids] = {
    "sinusoids": Sinusoids(support_rows=40, query_rows=50),
    "sinusoids, noise .3": Sinusoids(support_rows=40, query_rows=50, noise_std=0.3),
    "sinusoids, hidden frequency": Sinusoids(support_rows=40, query_rows=50, frequencies=(0.5, 2.0)),
}
OURS, UNTRAINED, FIXED = "alpaca", "alpaca-untrained", "alpaca-fixed-keys"


def asked(setting: Setting, family: Sinusoids, draw: int, smoke: bool) -> Judged:
    """Return the job that judges a setting on validation or test tasks."""
    count = 20 if smoke else 300 if draw == VALIDATION else 1000
    return Judged(setting, 0, family, count, draw, ROWS, 5, "truth_error")


def learners(
    study: Study, name: str, smoke: bool, seeds: int
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Return test losses `[S, T, R]` and costs of learnt keys and prior, and of the same with a part switched off."""
    family = FAMILIES[name]
    settings = [
        Setting(ALPaCA(), waves_training(family, count)) for count in ((2, 3) if smoke else ITERATIONS)
    ]
    jobs = [asked(setting, family, VALIDATION, smoke) for setting in settings]
    ours = choose(study, f"{name}: iterations", jobs).setting
    assert ours.training is not None
    fixed = Setting(ours.method, replace(ours.training, fixed_keys=True))
    found = {}
    for key, setting in {OURS: ours, FIXED: fixed, UNTRAINED: Setting(ours.method)}.items():
        losses = over_seeds(study, f"{name}: {key}", asked(setting, family, TEST, smoke), seeds)
        found[key] = losses, {} if setting.training is None else spent(study, setting, seeds)
    return found


def measure(study: Study, name: str, smoke: bool, seeds: int) -> tuple[Found, dict[str, np.ndarray]]:
    """Return the records and the listing of a family, and the test losses of all learners by name."""
    learnt, family = learners(study, name, smoke, seeds), FAMILIES[name]
    references = [PROCESS, *([ORACLE] if family.noise_std and family.one_frequency else [])]
    jobs = [Reference(key, family, *((20, 20) if smoke else (300, 1000))) for key in references]
    found = compute(study, jobs, f"{name}: references", refer)
    every = {key: value[0] for key, value in learnt.items()}
    every |= {job.name: found[job]["losses"][None] for job in jobs}
    records, rows = [], []
    for key, values in every.items():
        more = learnt[key][1] if key in learnt else {}
        if key == PROCESS:
            more = {"setting": found[jobs[0]]["settings"].tolist()}
        records += entries(name, key, values, ROWS, "squared error to the curve", **more)
        shown = " / ".join(f"{value:.2g}" for value in values.mean((0, 1)))
        rows.append([key, shown, f"{more.get('cpu_seconds', 0):.0f}", str(more.get("iterations", ""))])
    columns = [
        "learner",
        "squared errors after 5 / 10 / 20 / 40 rows",
        "processor seconds of training",
        "iterations",
    ]
    listing = {"title": f"{name}: errors", "columns": columns, "rows": rows}
    return Found(records, [], [listing]), every


def first(losses: np.ndarray, other: np.ndarray, at: slice) -> Three:
    """Return the ratio of losses after some of the numbers of rows, and its interval."""
    return over(losses[..., at], other[..., at])


def waves(study: Study, smoke: bool, seeds: int) -> Found:
    """Return squared errors on sinusoids over the tuned process's, and over those of who knows the family."""
    found, every = measure(study, "sinusoids", smoke, seeds)
    early, late = slice(0, 2), slice(3, 4)
    off = {f"with {key}": first(every[key], every[PROCESS], early) for key in (UNTRAINED, FIXED)}
    claims = [
        measured("meta.sinusoid.over_gp", first(every[OURS], every[PROCESS], early), off),
        measured("meta.sinusoid.long", first(every[OURS], every[PROCESS], late)),
    ]
    more, noisy = measure(study, "sinusoids, noise .3", smoke, seeds)
    off = {f"with {key}": over(noisy[key], noisy[ORACLE]) for key in (UNTRAINED, FIXED, PROCESS)}
    claims.append(measured("meta.sinusoid.over_oracle", over(noisy[OURS], noisy[ORACLE]), off))
    hidden, _ = measure(study, "sinusoids, hidden frequency", smoke, seeds)
    return found + more + hidden + Found(claims=claims)


WAVES_PART = Part(
    "sinusoids",
    {
        "meta.sinusoid.over_gp": "sinusoids: squared error over that of a Gaussian process tuned for each number of "
        "rows, geometric mean over 5 and 10 rows",
        "meta.sinusoid.long": "the same at 40 rows",
        "meta.sinusoid.over_oracle": "noise .3: squared error over that of the posterior that knows the family, "
        "geometric mean over 5, 10, 20, 40 rows",
    },
    waves,
)
