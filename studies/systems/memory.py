"""Memory imitation: does a learner that remembers its support read it, where tasks could be memorised instead?

Intents of banking77, five of a task, whose labels follow from the intent (they can be memorised) or are in random order
(they cannot); and sinusoids whose x names the task. Judged on unseen intents and unseen sinusoids.

Source: Zhao et al. 2022; Yin et al. 2020 (memorisation in meta-learning); the tasks are this project's own.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import product
from time import process_time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from gradatim.batch import Batch, Task
from gradatim.comparison.runs import claim
from gradatim.families import EmbeddingClassification
from gradatim.families.sampling import permutations
from gradatim.family import TaskFamily
from gradatim.likelihood import SquaredError
from gradatim.methods import MAML, MemoryImitation, Method, Ridge
from gradatim.probing import support_dependence
from gradatim.provenance import on_threads
from gradatim.training.config import TrainConfig
from gradatim.training.repeated import Repeated
from gradatim.training.snapshot import describe
from gradatim.training.train import train

if TYPE_CHECKING:
    from torch import Tensor

    from gradatim.comparison.runs import Study
    from gradatim.learner import Learner

STEPS, WAYS, SHOTS = 5, 5, 2
CHOICE_SEED = 1000
"""The seed of the runs that choose settings, on validation tasks."""


@dataclass(frozen=True)
class Intents(EmbeddingClassification):
    """Tasks of five intents, two sentences of each, whose labels follow from the intent or are in random order.

    Fields: `fixed`: intent c has the label c mod 5 in every task, so labels can be learnt by heart.
    """

    fixed: bool = True

    def _draw(self, pool: Any, n_tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return places in the pool and labels, `[B, support_rows + query_rows]` each, the support first."""
        counts = [(len(pool.counts) - label - 1) // WAYS + 1 for label in range(WAYS)]
        places = [torch.randint(count, (n_tasks,), generator=generator) for count in counts]
        groups = torch.stack([label + WAYS * place for label, place in enumerate(places)], dim=1)
        each = (self.support_rows + self.query_rows) // WAYS
        rows = permutations(pool.counts[groups].flatten(), each, generator).unflatten(0, (n_tasks, -1))
        place = rows + pool.starts[groups][..., None]
        label = torch.arange(WAYS).expand(n_tasks, -1)
        if not self.fixed:
            label = torch.rand(n_tasks, WAYS, generator=generator).argsort(1)
        label = label[..., None].expand_as(place)
        shots = self.support_rows // WAYS
        parts = [
            torch.cat([part[..., :shots].flatten(1), part[..., shots:].flatten(1)], 1)
            for part in (place, label)
        ]
        return parts[0], parts[1]


@dataclass(frozen=True)
class NamedWaves(TaskFamily):
    """Sinusoids `y = a sin(t - p)` of few tasks; x is t, and eight numbers that name the task.

    Twenty tasks of a split and no more: a learner can learn them by heart, by their names. Tasks of other splits have
    names of their own.

    Fields: `split`: `train`, `validation` or `test`; the last two have 200 tasks.
    """

    support_rows: int = 10
    query_rows: int = 20
    split: str = "train"

    x_dim = 9
    likelihood = SquaredError(1)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks of the split, x `[B, N, 9]`, y `[B, N, 1]`."""
        known = torch.Generator().manual_seed(["train", "validation", "test"].index(self.split))
        count = 20 if self.split == "train" else 200
        amplitude, phase = (
            0.1 + 4.9 * torch.rand(count, generator=known),
            math.pi * torch.rand(count, generator=known),
        )
        names = torch.randn(count, self.x_dim - 1, generator=known)
        chosen = torch.randint(count, (n_tasks,), generator=generator)
        rows = self.support_rows + self.query_rows
        t = 10 * torch.rand(n_tasks, rows, 1, generator=generator) - 5
        y = amplitude[chosen, None, None] * (t - phase[chosen, None, None]).sin()
        x = torch.cat([t, names[chosen][:, None].expand(-1, rows, -1)], dim=2)
        n = self.support_rows
        return Task(Batch(x[:, :n], y[:, :n]), Batch(x[:, n:], y[:, n:]))

    def on(self, split: str) -> NamedWaves:
        """Return the tasks of another split."""
        return replace(self, split=split)


SENTENCES = Intents(dim=None, ways=WAYS, support_rows=WAYS * SHOTS, query_rows=WAYS * 5)
FAMILIES: dict[str, Intents | NamedWaves] = {
    "fixed": SENTENCES,
    "permuted": replace(SENTENCES, fixed=False),
    "named": NamedWaves(),
}
"""Labels that can be memorised, labels that cannot, and a regression that can."""

MEMORY_ITERATIONS = {"fixed": 300, "permuted": 300, "named": 400}
MAML_ITERATIONS = {"fixed": 600, "permuted": 600, "named": 600}
"""Iterations of both: about as many CPU seconds of training; records have them."""

GRIDS: dict[str, dict[str, list[Method]]] = {
    "sentences": {
        "maml": [MAML(hidden=(64,), rate=rate) for rate in (0.03, 0.1, 0.3)],
        "memory-imitation": [
            MemoryImitation(hidden=(64,), rate=0.1, share=share, kept_rows=10) for share in (0.5, 0.9, 1.0)
        ],
        "ridge": [Ridge(strength=strength) for strength in (10.0, 100.0, 1000.0)],
    },
    "named": {
        "maml": [MAML(hidden=(40, 40), rate=rate) for rate in (0.01, 0.03, 0.1)],
        "memory-imitation": [
            MemoryImitation(hidden=(40, 40), rate=0.03, share=share, encoder="tanh", kept_rows=10)
            for share in (0.5, 0.9, 1.0)
        ],
        "ridge": [Ridge(strength=strength) for strength in (1.0, 10.0, 100.0)],
    },
}
FLOOR = 1e-3
"""The least gap and error that a ratio is taken of."""

NEAR = (0.25, 0.5, 0.75, 1.0)
"""Weights of the nearest neighbours beside MAML's answer."""


def grid(kind: str) -> dict[str, list[Method]]:
    """Return the settings of each learner for a kind of tasks."""
    return GRIDS["named" if kind == "named" else "sentences"]


def trained(kind: str, method: Method, iterations: int, seed: int) -> tuple[Learner, float]:
    """Return a learner of a kind of tasks, and the CPU seconds of its training."""
    family = FAMILIES[kind]
    torch.manual_seed(seed)
    learner = method.build(family)
    if not method.learnt:
        return learner.eval(), 0.0
    config = TrainConfig(iterations=iterations, tasks=8, lr=3e-3, clip=10.0, seed=seed, ema=0.98)
    begin = process_time()
    train(learner, family, Repeated(family.support_rows, STEPS), config, progress=False)
    return learner.eval(), process_time() - begin


def passes(method: Method) -> int:
    """Return how often a learner goes through the support."""
    return STEPS if method.learnt else 1


@torch.no_grad()
def answers(learner: Learner, method: Method, task: Task) -> Tensor:
    """Return outputs at the query `[B, Nq, C]`: of classes probabilities."""
    state = learner.fit(task.support, task.support.n_rows, passes(method))
    outputs = learner.predict(task.query.x, state)
    return outputs if task.query.y.is_floating_point() else outputs.softmax(-1)


def neighbours(task: Task) -> Tensor:
    """Return what the nearest row of the support says, `[B, Nq, C]`."""
    y = task.support.y
    values = y if y.is_floating_point() else F.one_hot(y[..., 0], WAYS).float()
    nearest = torch.cdist(task.query.x, task.support.x).argmin(-1)
    return values.gather(1, nearest[..., None].expand(-1, -1, values.shape[2]))


def error(outputs: Tensor, task: Task) -> float:
    """Return the share of wrong classes, or the mean squared error."""
    if task.query.y.is_floating_point():
        return float((outputs - task.query.y).square().mean())
    return float((outputs.argmax(-1) != task.query.y[..., 0]).float().mean())


def judged(
    kind: str, name: str, method: Method, seed: int, iterations: int, n_tasks: int
) -> dict[str, np.ndarray]:
    """Return errors on validation and test tasks, MAML's with neighbours beside, the dependence and the seconds."""
    with on_threads(1), torch.random.fork_rng(devices=[]):
        learner, seconds = trained(kind, method, iterations, seed)
        found: dict[str, Any] = {"seconds": seconds}
        for split in ("validation", "test"):
            task = FAMILIES[kind].on(split).sample(n_tasks, torch.Generator().manual_seed(10**6))
            outputs, near = answers(learner, method, task), neighbours(task)
            found[split] = error(outputs, task)
            if name == "maml":
                found[f"{split}-near"] = [error((1 - w) * outputs + w * near, task) for w in NEAR]
        gap = support_dependence(learner, task, repeats=5, passes=passes(method))
        return {key: np.asarray(value) for key, value in (found | gap._asdict()).items()}


def record(study: Study, kind: str, name: str, method: Method, seed: int, smoke: bool) -> Any:
    """Return the record of one learner, from the study's folder where it is there."""
    wanted = MAML_ITERATIONS if name == "maml" else MEMORY_ITERATIONS
    iterations, n_tasks = (2, 4) if smoke else (wanted[kind], 400)
    inputs = [str(method), asdict(method), describe(FAMILIES[kind]), iterations, n_tasks, seed]
    return study.cached(
        f"memory-{kind}-{name}-{seed}", inputs, lambda: judged(kind, name, method, seed, iterations, n_tasks)
    )


def chosen(study: Study, kind: str, smoke: bool) -> dict[str, Method]:
    """Return the setting of each learner with the lowest error on validation tasks, in a run of another seed."""
    if smoke:
        return {name: settings[-1] for name, settings in grid(kind).items()}
    best = {}
    for name, settings in grid(kind).items():
        scores = [float(record(study, kind, name, s, CHOICE_SEED, smoke)["validation"]) for s in settings]
        best[name] = settings[int(np.argmin(scores))]
        study.notify(f"memory, {kind}: {best[name]}")
    return best


def ratio(one: list[float], other: list[float]) -> tuple[float, float, float]:
    """Return the geometric mean over seeds of a ratio of positive numbers, and its 95% interval."""
    logs = np.log(np.array(one) / np.array(other))
    half = 1.96 * float(np.std(logs, ddof=1)) / len(logs) ** 0.5 if len(logs) > 1 else 0.0
    middle = float(logs.mean())
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of memory imitation."""
    found: dict[str, dict[str, list[Any]]] = {}
    rows, entries = [], []
    for kind in FAMILIES:
        methods = chosen(study, kind, smoke)
        found[kind] = {
            name: [record(study, kind, name, method, seed, smoke) for seed in range(seeds)]
            for name, method in methods.items()
        }
        study.notify(f"memory, {kind}: {seeds} seeds")
        for (name, table), key in product(found[kind].items(), ("test", "near")):
            if key == "near" and name != "maml":
                continue
            label = name if key == "test" else "maml and nearest neighbours"
            errors = [float(r["test"]) if key == "test" else near_error(r) for r in table]
            gaps = f"{np.mean([r['gap'] for r in table]):.3f}" if key == "test" else ""
            seconds = f"{np.mean([r['seconds'] for r in table]):.1f}"
            rows.append([kind, label, f"{np.mean(errors):.4f}", gaps, seconds, str(methods[name])])
            entries += [
                {"name": f"memory/{label}", "family": kind, "seed": seed, "errors": [round(value, 6)]}
                for seed, value in enumerate(errors)
            ]
    claims = [
        over_maml("dependence", found, "gap", 2.0, ">="),
        over_maml("over_maml", found, "test", 0.85, "<="),
    ]
    columns = ["tasks", "learner", "error on unseen tasks", "gap", "seconds", "setting"]
    listing = {"title": "support dependence and errors", "columns": columns, "rows": rows}
    return {"records": entries, "claims": claims, "listings": [listing]}


def over_maml(name: str, found: dict[str, Any], key: str, bar: float, direction: str) -> dict[str, Any]:
    """Return the claim of a ratio to MAML on intents whose labels are fixed; beside it the one on named sinusoids."""
    ratios: dict[str, tuple[float, float, float]] = {}
    for kind in ("fixed", "named"):
        ours, maml = (
            [max(float(r[key]), FLOOR) for r in found[kind][n]] for n in ("memory-imitation", "maml")
        )
        ratios[kind] = ratio(ours, maml)
    beside = {"named sinusoids": [round(value, 5) for value in ratios["named"]]}
    return claim(f"systems.memory.{name}", *ratios["fixed"], bar, direction) | {"beside": beside}


def near_error(found: Any) -> float:
    """Return the test error of MAML and neighbours, at the weight that is best on validation tasks."""
    return float(found["test-near"][int(np.argmin(found["validation-near"]))])
