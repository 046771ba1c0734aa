"""Classes that tasks share: letters by their pixels and sentences by their embeddings, ten ways; one row of each class.

Source: the comparison is this project's own; the families are those of Lake et al. 2015 and Casanueva et al. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.families import EmbeddingClassification, OmniglotClassification
from gradatim.families.sampling import PooledClassification
from gradatim.methods import PLDA, Kernel, Method, Newton, Prototypical, RandomFeatures, Ridge
from gradatim.metrics import bootstrap
from studies.part import Found, Part
from studies.tables.protocol import compute

from .choosing import CORES, choose, over_seeds
from .learnt import (
    TEST,
    VALIDATION,
    Judged,
    Setting,
    classes_training,
    cost,
    described,
    judge,
    shots_training,
)
from .verdicts import best_of, entries, measured, over

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study

ROWS, SIZE = (10, 20, 50, 100), 10
"""Numbers of rows after which learners are judged, and rows of a mini-batch."""

LIMIT, LONG_LIMIT = 300.0, 1800.0
"""Seconds of `CORES` cores that training may take: for ten ways, and for one row of each class."""

LETTERS = OmniglotClassification(ways=10, support_rows=100, query_rows=100)
SENTENCES = EmbeddingClassification(dim=None, ways=10, support_rows=100, query_rows=100)
OURS, PROTO, UNTRAINED, FIXED = "plda", "prototypical", "plda-untrained", "plda-fixed-keys"


@dataclass(frozen=True)
class Stage:
    """Classes that tasks share: who learns them, and the iterations of training that validation chooses among."""

    name: str
    family: PooledClassification
    encoder: str
    width: int
    iterations: tuple[int, ...]

    def settings(self, kind: type[PLDA] | type[Prototypical], smoke: bool) -> list[Setting]:
        """Return the settings of a learner, one for each number of iterations."""
        turned = isinstance(self.family, OmniglotClassification)
        method: Any = kind(encoder=self.encoder, width=self.width)  # type: ignore[arg-type]
        counts = (2, 3) if smoke else self.iterations
        return [Setting(method, classes_training(self.family, count, turned)) for count in counts]


STAGES = {
    "omniglot": Stage("omniglot", LETTERS, "convolutions", 64, (2000, 4500, 7500)),
    "intents": Stage("intents", SENTENCES, "network", 128, (500, 1500, 4500)),
}


def unlearned() -> dict[str, list[Method]]:
    """Return the methods that learn nothing across tasks, each with the settings that validation chooses among."""
    strengths = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
    return {
        "ridge": [Ridge(strength=strength) for strength in strengths],
        "random-features": [
            RandomFeatures(strength=s, features=n)
            for s, n in product((0.03, 0.1, 0.3, 1.0, 3.0), (512, 1024))
        ],
        "kernel": [Kernel(width=width) for width in (2.0, 3.0, 5.0, 7.0, 10.0, 14.0)],
        "newton": [
            Newton(rate=rate, damping=damping, power=power)
            for rate, damping, power in product((1.0, 3.0, 10.0), (0.3, 1.0), (0.7, 1.0))
        ],
    }


def asked(setting: Setting, stage: Stage, split: str, smoke: bool, n_tasks: int = 400) -> Judged:
    """Return the job that judges a setting on validation or test classes."""
    draw = VALIDATION if split == "validation" else TEST
    return Judged(setting, 0, stage.family.on(split), 4 if smoke else n_tasks, draw, ROWS, SIZE)


def best_settings(study: Study, stage: Stage, smoke: bool) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Return the test losses `[1, T, R]` of each peer that learns nothing, and its settings.

    After each number of rows it has the setting that is best there on validation tasks.
    """
    found = {}
    for name, methods in unlearned().items():
        methods = methods[:2] if smoke else methods
        jobs = [asked(Setting(method), stage, "validation", smoke, 100) for method in methods]
        validation = compute(study, jobs, f"{stage.name}: tuning {name}", judge)
        chosen = [
            min(jobs, key=lambda job, r=r: float(validation[job]["losses"][:, r].mean()))
            for r in range(len(ROWS))
        ]
        tests = [asked(job.setting, stage, "test", smoke) for job in chosen]
        judged = compute(study, tests, f"{stage.name}: {name}", judge)
        losses = np.stack([judged[job]["losses"][:, r] for r, job in enumerate(tests)], -1)
        found[name] = losses[None], [str(job.setting.method) for job in chosen]
    return found


def best_training(study: Study, stage: Stage, settings: list[Setting], smoke: bool) -> Setting:
    """Return the setting whose training, of the first seed, is best on validation classes, within the limit."""
    jobs = [asked(setting, stage, "validation", smoke) for setting in settings]
    name = type(settings[0].method).__name__
    return choose(study, f"{stage.name}: iterations of {name}", jobs, LIMIT).setting


def spent(study: Study, setting: Setting, seeds: int) -> dict[str, Any]:
    """Return what the training of a setting took, the mean over seeds, and the setting."""
    costs = [cost(study, setting, seed) for seed in range(seeds)]
    means = {key: round(float(np.mean([c[key] for c in costs])), 1) for key in ("seconds", "cpu_seconds")}
    assert setting.training is not None
    return means | {"iterations": setting.training.config.iterations, "setting": described(setting)}


def learners(
    study: Study, stage: Stage, smoke: bool, seeds: int
) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Return test losses `[S, T, R]` and costs of what other tasks train, and of the same with a part switched off."""
    ours = best_training(study, stage, stage.settings(PLDA, smoke), smoke)
    proto = best_training(study, stage, stage.settings(Prototypical, smoke), smoke)
    assert ours.training is not None
    fixed = Setting(ours.method, replace(ours.training, fixed_keys=True))
    found = {}
    for name, setting in {OURS: ours, PROTO: proto, FIXED: fixed, UNTRAINED: Setting(ours.method)}.items():
        job = asked(setting, stage, "test", smoke)
        losses = over_seeds(study, f"{stage.name}: {name}", job, seeds)
        costs: dict[str, Any] = {} if setting.training is None else spent(study, setting, seeds)
        found[name] = losses, costs
    return found


def measure(study: Study, smoke: bool, seeds: int, name: str) -> tuple[Found, dict[str, np.ndarray]]:
    """Return the records and the listing of a stage, and the test losses of all learners by name."""
    stage = STAGES[name]
    learnt, peers = learners(study, stage, smoke, seeds), best_settings(study, stage, smoke)
    every = {key: value[0] for key, value in {**learnt, **peers}.items()}
    records, rows = [], []
    for key, values in every.items():
        more = learnt[key][1] if key in learnt else {"setting": peers[key][1]}
        records += entries(name, key, values, ROWS, "error", **more)
        shown = " / ".join(f"{value:.3f}" for value in values.mean((0, 1)))
        rows.append([key, shown, f"{more.get('cpu_seconds', 0):.0f}", str(more.get("iterations", ""))])
    columns = [
        "learner",
        "errors after 10 / 20 / 50 / 100 rows",
        "processor seconds of training",
        "iterations",
    ]
    listing = {"title": f"{name}: errors", "columns": columns, "rows": rows}
    return Found(records, [], [listing]), every


def letters(study: Study, smoke: bool, seeds: int) -> Found:
    """Return errors on letters of other alphabets, over those of peers and of a prototypical network."""
    found, every = measure(study, smoke, seeds, "omniglot")
    best, names = best_of({name: every[name] for name in unlearned()})
    seconds = {
        f"seconds of training on two cores, {name}": (
            next(r["cpu_seconds"] / CORES for r in found.records if r["name"] == name),
        )
        * 3
        for name in (OURS, PROTO)
    }
    off = {f"with {name}": over(every[name], best) for name in (UNTRAINED, FIXED, PROTO)}
    claims = [
        measured("meta.omniglot.over_unlearned", over(every[OURS], best), seconds | off, best=names),
        measured("meta.omniglot.over_proto", over(every[OURS], every[PROTO]), seconds),
    ]
    return found + Found(claims=claims)


def sentences(study: Study, smoke: bool, seeds: int) -> Found:
    """Return errors on sentences of other intents, ten ways. No bar is held against them."""
    return measure(study, smoke, seeds, "intents")[0]


# --- one row of each class

WAYS = 5


def shots_settings(smoke: bool) -> list[Setting]:
    """Return the trainings that validation letters choose among: the one of ten ways, sixty ways, twice the width."""
    counts = (2, 3, 2) if smoke else (7500, 20000, 7500)
    family = LETTERS
    ten_ways = STAGES["omniglot"].settings(PLDA, smoke)[-1]
    narrow, wide = (PLDA(encoder="convolutions", width=width) for width in (64, 128))
    return [
        ten_ways,
        Setting(narrow, shots_training(family, counts[0])),
        Setting(narrow, shots_training(family, counts[1])),
        Setting(wide, shots_training(family, counts[2])),
    ]


def one_each(setting: Setting, split: str, smoke: bool) -> Judged:
    """Return the job that judges a setting after one row of each of five letters."""
    family = replace(LETTERS.on(split), **{"ways": WAYS, "support_rows": WAYS, "query_rows": 50, "shots": 1})
    return Judged(setting, 0, family, 4 if smoke else 1000, 3, (WAYS,), WAYS)


def percent(losses: np.ndarray) -> tuple[float, float, float]:
    """Return the accuracy in percent of losses `[S, T, 1]`, and its interval over seeds and tasks."""
    return bootstrap(lambda a: 100 * (1 - float(a.mean())), losses)


def five_way(study: Study, smoke: bool, seeds: int) -> Found:
    """Return the accuracy after one row of each of five letters of the evaluation alphabets."""
    settings = shots_settings(smoke)
    jobs = [one_each(setting, "validation", smoke) for setting in settings]
    chosen = choose(study, "five ways: trainings", jobs, LONG_LIMIT).setting
    assert chosen.training is not None
    proto = Setting(
        Prototypical(encoder="convolutions", width=chosen.method.width),  # type: ignore[attr-defined]
        chosen.training,
    )
    records, accuracies = [], {}
    for name, setting in {OURS: chosen, PROTO: proto, UNTRAINED: Setting(chosen.method)}.items():
        count = 1 if name == PROTO else seeds
        losses = over_seeds(study, f"five ways: {name}", one_each(setting, "test", smoke), count)
        more = {} if setting.training is None else spent(study, setting, count)
        records += entries("omniglot, one of each of five", name, losses, (WAYS,), "error", **more)
        accuracies[name] = percent(losses), more
    three, more = accuracies[OURS]
    beside = {
        "seconds of training on two cores": (more["cpu_seconds"] / CORES,) * 3,
        "prototypical network, the same training, one seed": accuracies[PROTO][0],
        "keys and prior not trained": accuracies[UNTRAINED][0],
    }
    return Found(records, [measured("meta.omniglot.five_way", three, beside, setting=more["setting"])])


LETTERS_PART = Part(
    "letters",
    {
        "meta.omniglot.over_unlearned": "letters, ten ways: errors over those of the best tuned peer that learns "
        "nothing after each number of rows, geometric mean over 10, 20, 50, 100 rows",
        "meta.omniglot.over_proto": "the same over a prototypical network's of the same encoder and training time",
    },
    letters,
)
SENTENCES_PART = Part("sentences", {}, sentences)
FIVE_WAY_PART = Part(
    "five ways",
    {
        "meta.omniglot.five_way": "accuracy after one row of each of five letters, evaluation alphabets, percent"
    },
    five_way,
)
