"""Is a learner's estimate of its own loss honest where it stops, which is where selection favours optimists.

Source: McCullagh, Nelder 1989, chapter 8 (the gamma deviance); Dawid 1984 (the prequential average beside it).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.comparison.runs import claim, sample_tasks
from gradatim.families import LinearClassification, LinearRegression, RandomNetworkRegression
from gradatim.methods import build
from gradatim.metrics import bootstrap
from gradatim.stopping import WINDOWS, LossEstimate, fit_estimate, hitting_times, prequential
from gradatim.training.states import fingerprint

from .reliability import chance, error, worst

if TYPE_CHECKING:
    from gradatim.batch import Task
    from gradatim.comparison.runs import Study
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner

    Stops = dict[str, np.ndarray]

SIZE = 16
AT_ONCE = 64
OURS, AVERAGE = "fitted estimate", "prequential average"


def calibration(study: Study, smoke: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the records and the claim `gain.stop_calibration`.

        mean over families, thresholds and bins of |mean predicted - mean realised| / mean realised

    At the stopping times of fresh test tasks (those that end unstopped included, at the end), in 8 bins of as many
    tasks by their predicted loss. A threshold is one by which half of the tuning tasks have stopped at a given step,
    for each estimator its own. The learners are unlearnt ones. The seeds are those of the fits.
    """
    families = _families(smoke)
    learners = _learners(families)
    names = (OURS, AVERAGE, *(f"mean of the last {window:g}" for window in WINDOWS[:-1]))
    times, seeds = ((2, 5, 10), 1) if smoke else ((10, 50, 98), 3)
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    tuned: dict[str, list[np.ndarray]] = {name: [] for name in names}
    runs: list[Stops] = []
    for key, family in families.items():
        study.console.print(f"fitting and judging estimates of the loss on {key}")
        fits = [_judged(study, key, family, learners[key], seed, times, smoke) for seed in range(seeds)]
        runs.append(fits[0])
        for index, name in enumerate(names):
            own = fits if name == OURS else fits[:1]
            found[name].append(np.stack([fit["test"][index] for fit in own]))  # [S, T, K, 3]
            tuned[name].append(np.stack([fit["tuning"][index] for fit in own]))
    window = min(names[2:], key=lambda name: error(*tuned[name]))
    records = [
        record
        for key, run, *kept in zip(families, runs, found[OURS], found[AVERAGE], found[window], strict=True)
        for name, values in zip((OURS, AVERAGE, window), kept, strict=True)
        for record in _records(key, name, values, times, run)
    ]
    result = claim("gain.stop_calibration", *bootstrap(error, *found[OURS], resamples=500), 0.05, "<=")
    result["range"] = "tasks drawn again add their chance to an absolute deviation: above the value"
    beside = {
        "the worst bin": (OURS, worst),
        "what chance alone would measure": (OURS, chance),
        "the prequential average": (AVERAGE, error),
        f"the {window} mini-batches, best of the windows on tuning tasks": (window, error),
    }
    result["beside"] = {
        title: [round(value, 5) for value in bootstrap(statistic, *found[name], resamples=500)]
        for title, (name, statistic) in beside.items()
    }
    return records, [result]


def _families(smoke: bool) -> dict[str, TaskFamily]:
    rows = {"support_rows": SIZE * (16 if smoke else 160), "query_rows": 32 if smoke else 512}
    return {
        "linear": LinearRegression(8, 0.5, **rows),
        "classes": LinearClassification(8, 4, **rows),
        "network": RandomNetworkRegression(8, 32, 0.1, **rows),
    }


def _learners(families: dict[str, TaskFamily]) -> dict[str, Learner]:
    """Return learners that are cheap to follow over many streams, each with a plateau of another kind or none."""
    return {
        "linear": build("ridge", families["linear"], strength=0.25),
        "classes": build("newton", families["classes"], rate=3.0, damping=0.3, power=0.7),
        "network": build("random-features", families["network"], strength=1.0, features=32),
    }


def _judged(
    study: Study,
    key: str,
    family: TaskFamily,
    learner: Learner,
    seed: int,
    times: tuple[int, ...],
    smoke: bool,
) -> Stops:
    """Fit on tasks of a seed; return each estimator's stops of tuning and of test tasks, `[1 + W, T, K, 3]`."""
    fitted, iterations = (32, 4) if smoke else (1024, 1000)
    counts = {"tuning": 32 if smoke else 256, "test": 32 if smoke else 512}
    about = [type(family).__name__, asdict(family), fingerprint(learner)]
    about += [seed, list(times), fitted, iterations, counts, list(WINDOWS)]

    def compute() -> Stops:
        begun = time.perf_counter()
        steps = family.support_rows // SIZE
        estimate = fit_estimate(learner, family, SIZE, steps, fitted, seed, iterations)
        seconds = time.perf_counter() - begun
        (tuning, losses), (test, realised) = (
            _paths(estimate, learner, sample_tasks(family, counts[kind], number))
            for kind, number in (("tuning", 2), ("test", 1))
        )
        thresholds = tuning.cummin(1).values[:, [step - 1 for step in times]].median(0).values  # [K, 1 + W]
        made = {"tuning": _stops(tuning, losses, thresholds), "test": _stops(test, realised, thresholds)}
        return {**made, "thresholds": thresholds[:, 0].numpy(), "seconds": np.asarray(seconds)}

    return study.cached(f"calibration-{key}-{seed}", about, compute)


@torch.no_grad()
def _paths(estimate: LossEstimate, learner: Learner, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each estimator says, ours, the average and the windows, `[T, steps, 1 + W]`, and the query losses."""

    def few(start: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        support, query = (part.tasks(slice(start, start + AT_ONCE)) for part in (task.support, task.query))
        running = estimate.init(support.n_tasks)
        for seen in prequential(learner, support.split(SIZE)):
            running = estimate.update(running, seen)
            means = running.mean[:, [-1, *range(len(WINDOWS) - 1)], 0]
            yield torch.cat([estimate(running)[:, None], means], 1), learner.loss(query, seen.state)

    parts = [zip(*few(start), strict=True) for start in range(0, task.n_tasks, AT_ONCE)]
    said, losses = zip(*([torch.stack(made, 1) for made in part] for part in parts), strict=True)
    return torch.cat(said), torch.cat(losses)


def _stops(said: torch.Tensor, losses: torch.Tensor, thresholds: torch.Tensor) -> np.ndarray:
    """Return (predicted, realised, steps) where each estimator stops at each of its thresholds, `[1 + W, T, K, 3]`."""
    made = []
    for path, own in zip(said.unbind(-1), thresholds.unbind(-1), strict=True):
        place, _ = hitting_times(path, own)
        made.append(torch.stack([path.gather(1, place), losses.gather(1, place), place + 1.0], dim=-1))
    return torch.stack(made).numpy()


def _records(
    key: str, name: str, values: np.ndarray, times: tuple[int, ...], run: Stops
) -> list[dict[str, Any]]:
    """Return the error, predicted over realised and the mean step, for each threshold, named by its tuning step."""
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        "error of the predicted loss": lambda at: error(at[:, :, None]),
        "predicted over realised loss": lambda at: float(at[..., 0].mean() / at[..., 1].mean()),
        "stopping time": lambda at: float(at[..., 2].mean()),
    }
    seconds = round(float(run["seconds"]), 1) if name == OURS else 0.0
    about = {"name": name, "method": name, "family": key, "signal": None, "seed": None, "setting": None}
    about |= {"tasks": values.shape[1], "commit": str(run["commit"]), "seconds": seconds}
    about |= {"peak_memory": None, "threads": torch.get_num_threads()}
    made = []
    for place, step in enumerate(times):
        for metric, statistic in metrics.items():
            found = bootstrap(statistic, values[:, :, place], resamples=500)
            bounds = dict(zip(("mean", "low", "high"), (round(value, 6) for value in found), strict=True))
            made.append({**about, "steps": step, "rows": step * SIZE, "metric": metric, **bounds})
    return made
