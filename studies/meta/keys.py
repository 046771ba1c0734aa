"""`python -m studies.meta.keys PART`: learnt keys and learnt priors against the best that learns nothing.

Parts: `omniglot` (letters by their pixels, ten ways), `intents` (sentences by their embeddings, ten ways), and `peers`
and `peers-intents` for them; `few-shot` (letters, few rows of each); `sinusoids`, `noisy`, `hidden` (frequencies).
Choices rest on validation tasks; test tasks are read once, at the end of a part. Records are added to a JSON file, and
a part that is in it is not run again.

Source: the comparison is this project's own; the families are those of Lake et al. 2015 and Finn et al. 2017.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

import torch

from gradatim.families import EmbeddingClassification, OmniglotClassification, Sinusoids
from gradatim.families.sampling import PooledClassification
from gradatim.methods import PLDA, ALPaCA, Kernel, Method, Newton, Prototypical, RandomFeatures, Ridge
from gradatim.metrics import error_rate
from gradatim.provenance import commit, on_threads
from gradatim.training.config import TrainConfig
from gradatim.training.prefixes import Prefixes
from gradatim.training.train import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from gradatim.batch import Task
    from gradatim.family import TaskFamily
    from gradatim.learner import Learner

ROWS = {"omniglot": (10, 20, 50, 100), "sinusoids": (5, 10, 20, 40)}
SIZE = 10
"""Rows of a mini-batch."""

LETTERS = OmniglotClassification(ways=10, support_rows=100, query_rows=100)
INTENTS = EmbeddingClassification(dim=None, ways=10, support_rows=100, query_rows=100)
ENCODERS: dict[str, Method] = {
    "plda": PLDA(encoder="convolutions", width=64),
    "prototypical": Prototypical(encoder="convolutions", width=64),
}
STAGES: dict[str, tuple[PooledClassification, dict[str, Method]]] = {
    "omniglot": (LETTERS, ENCODERS),
    "intents": (INTENTS, {"plda": PLDA(), "prototypical": Prototypical()}),
}
"""Families of classes and the learnt methods on them."""


@dataclass(frozen=True)
class Training:
    """How a learner is trained: the tasks, and iterations of so many of them."""

    family: TaskFamily
    scheme: Prefixes
    config: TrainConfig


def classes_training(family: PooledClassification, iterations: int, seed: int) -> Training:
    """Return the training of a learner of classes: thirty ways, a hundred rows, ten prefixes; letters are turned."""
    family = replace(family, ways=30, query_rows=60)
    if isinstance(family, OmniglotClassification):
        family = replace(family, turned=True)
    config = TrainConfig(iterations=iterations, tasks=4, lr=5e-3, ema=0.99, seed=seed)
    return Training(family, Prefixes(batch_size=SIZE, horizon=10), config)


def waves_training(family: Sinusoids, iterations: int, seed: int) -> Training:
    """Return the training of a learner of sinusoids: four prefixes of random length out of forty."""
    config = TrainConfig(iterations=iterations, tasks=64, lr=5e-3, ema=0.99, seed=seed)
    return Training(family, Prefixes(batch_size=1, horizon=40, chosen=4), config)


def trained(method: Method, training: Training) -> tuple[Learner, float]:
    """Return a learner that was trained, and the seconds of one core that it took."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.config.seed)
        learner = method.build(training.family)
    begin = process_time()
    train(learner, training.family, training.scheme, training.config, progress=False)
    return learner, process_time() - begin


def served(learner: Learner, method: Method, family: TaskFamily) -> Learner:
    """Return a trained learner for a family of another number of ways."""
    other = method.build(family)
    other.load_state_dict(learner.state_dict())
    return other.eval()


def drawn(family: TaskFamily, n_tasks: int, seed: int, chunk: int = 40) -> Iterator[Task]:
    """Yield tasks of a family, `chunk` at a time."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, n_tasks, chunk):
        yield family.sample(min(chunk, n_tasks - start), generator)


@torch.no_grad()
def curve(
    learner: Learner,
    tasks: Iterator[Task],
    rows: tuple[int, ...],
    size: int,
    loss: Callable[[Tensor, Task], Tensor],
) -> list[float]:
    """Return the mean loss after each number of rows, learnt in mini-batches of `size`."""
    totals, count = torch.zeros(len(rows), dtype=torch.float64), 0
    for task in tasks:
        query = task.query if learner.refiner.capabilities.per_query else None
        wanted = dict(zip(rows, range(len(rows)), strict=True))
        states = learner.states(task.support.slice(0, rows[-1]).split(size), query)
        for step, state in enumerate(states):
            if step * size in wanted:
                outputs = learner.predict(task.query.x, state)
                totals[wanted[step * size]] += loss(outputs, task).double().sum()
        count += task.n_tasks
    return (totals / count).tolist()


def truth_error(outputs: Tensor, task: Task) -> Tensor:
    """Return the squared error of each task to the noiseless answer, `[B]`."""
    assert task.truth is not None
    return (outputs - task.truth).square().mean((1, 2))


# --- letters


def peers() -> dict[str, list[Method]]:
    """Return the methods that learn nothing across tasks, each with the settings that it is tuned over."""
    strengths = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
    return {
        "ridge": [Ridge(strength=strength) for strength in (*strengths, 3000.0)],
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


def classes_peers(smoke: bool, family: PooledClassification) -> dict[str, Any]:
    """Return the test errors of each peer, with the setting that is best on validation tasks at each number of rows."""
    n_validation, n_test = (4, 4) if smoke else (20, 200)
    rows, errors = ROWS["omniglot"], {}
    for name, settings in peers().items():
        settings = settings[:2] if smoke else settings
        learners = [setting.build(family) for setting in settings]
        found = [
            curve(learner, drawn(family.on("validation"), n_validation, 1, 20), rows, SIZE, error_rate)
            for learner in learners
        ]
        best = [min(range(len(found)), key=lambda s, r=r: found[s][r]) for r in range(len(rows))]
        tests = {
            s: curve(learners[s], drawn(family.on("test"), n_test, 2, 20), rows, SIZE, error_rate)
            for s in set(best)
        }
        errors[name] = {
            "validation": [found[s][r] for r, s in enumerate(best)],
            "test": [tests[s][r] for r, s in enumerate(best)],
            "settings": [str(settings[s]) for s in best],
        }
    return errors


def classes(smoke: bool, seed: int, iterations: int, stage: str) -> dict[str, Any]:
    """Return errors of the learnt methods on validation and test classes, and the seconds of their training."""
    n_tasks, rows, result = 4 if smoke else 400, ROWS["omniglot"], {}
    family, methods = STAGES[stage]
    for name, method in methods.items():
        learner, seconds = trained(method, classes_training(family, iterations, seed))
        record: dict[str, Any] = {"seconds": seconds, "iterations": iterations}
        record |= shots(learner, method, smoke) if stage == "omniglot" else {}
        learner = served(learner, method, family)
        for split in ("validation", "test"):
            tasks = drawn(family.on(split), n_tasks, 2)
            record[split] = curve(learner, tasks, rows, SIZE, error_rate)
        result[name] = record
    return result


def shots(learner: Learner, method: Method, smoke: bool) -> dict[str, float]:
    """Return the accuracies of a learner of letters after one row or five of each."""
    accuracy = {}
    for split, (ways, each) in product(("validation", "test"), ((5, 1), (5, 5), (20, 1))):
        asked = replace(
            LETTERS.on(split), ways=ways, support_rows=ways * each, query_rows=ways * 10, shots=each
        )
        tasks = drawn(asked, 4 if smoke else 1000, 3)
        size = asked.support_rows
        (error,) = curve(served(learner, method, asked), tasks, (size,), size, error_rate)
        accuracy[f"{split}-{ways}-way-{each}-shot"] = 1 - error
    return accuracy


def few_shot(smoke: bool, seed: int, iterations: int) -> dict[str, Any]:
    """Return accuracies after one row of each letter; the training has turned letters, sixty ways, one to five rows."""
    training = classes_training(LETTERS, iterations, seed)
    ways = 60
    family = replace(training.family, ways=ways, support_rows=ways * 2, query_rows=ways, shots=2)
    training = replace(training, family=family, scheme=Prefixes(batch_size=ways // 2, horizon=4))
    result: dict[str, Any] = {}
    for name, method in ENCODERS.items():
        learner, seconds = trained(method, training)
        record: dict[str, Any] = {"seconds": seconds, "iterations": iterations}
        record |= shots(learner, method, smoke)
        result[name] = record
    return result


# --- sinusoids


def process_mean(task: Task, rows: int, length: float, noise: float) -> Tensor:
    """Return the posterior mean `[B, Nq, 1]` of a Gaussian process, its noise variance in units of the signal's."""
    x, y, at = (part.double() for part in (task.support.x[:, :rows], task.support.y[:, :rows], task.query.x))
    kernel = (-torch.cdist(x, x).square() / (2 * length**2)).exp()
    # the least jitter that keeps the factor of forty rows positive definite
    kernel = kernel + max(noise, 1e-9) * torch.eye(rows, dtype=x.dtype)
    across = (-torch.cdist(at, x).square() / (2 * length**2)).exp()
    return across @ torch.cholesky_solve(y, torch.linalg.cholesky(kernel))


def process(family: Sinusoids, n_validation: int, n_test: int) -> dict[str, Any]:
    """Return errors of the Gaussian process with the length and the noise that are best at each number of rows."""
    lengths = [0.25 * 2 ** (k / 3) for k in range(18)]
    grid = list(product(lengths, (0.0, 1e-8, 1e-6, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)))
    validation, test = (
        family.sample(n, torch.Generator().manual_seed(k)) for n, k in ((n_validation, 1), (n_test, 2))
    )
    best, errors = [], []
    for rows in ROWS["sinusoids"]:
        found = [
            truth_error(process_mean(validation, rows, *pair), validation).mean().item() for pair in grid
        ]
        best.append(grid[min(range(len(grid)), key=found.__getitem__)])
        errors.append(truth_error(process_mean(test, rows, *best[-1]), test).mean().item())
    return {"test": errors, "settings": best}


def waves(smoke: bool, seed: int, iterations: int, **fields: Any) -> dict[str, Any]:
    """Return squared errors to the noiseless curve of learnt keys, the tuned process and, where known, the oracle."""
    family = Sinusoids(support_rows=40, query_rows=50, **fields)
    n_test, rows = 20 if smoke else 1000, ROWS["sinusoids"]
    learner, seconds = trained(ALPaCA(), waves_training(replace(family, query_rows=20), iterations, seed))
    test = family.sample(n_test, torch.Generator().manual_seed(2))
    result: dict[str, Any] = {
        "alpaca": {
            "seconds": seconds,
            "iterations": iterations,
            "test": curve(learner, iter([test]), rows, rows[0], truth_error),
        },
        "gaussian-process": process(family, 20 if smoke else 300, n_test),
    }
    oracles = [family.oracle(test, n) for n in rows]
    if oracles[0] is not None:
        result["oracle"] = {"test": [truth_error(o, test).mean().item() for o in oracles if o is not None]}
    return result


# --- figures and the runner


def geometric(values: list[float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values)) / len(values))


def figures(records: dict[str, Any]) -> dict[str, list[float]]:
    """Return the figures that records allow by id, one value for each seed of training."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    over = lambda a, b, at=slice(None): geometric([x / y for x, y in zip(a[at], b[at], strict=True)])  # noqa: E731
    for key, record in records.items():
        part = key.rsplit("/", 1)[0]
        if part in STAGES:
            error, peers = record["plda"]["test"], "peers/0" if part == "omniglot" else f"peers-{part}/0"
            if peers in records:
                best = [min(p["test"][r] for p in records[peers].values()) for r in range(len(error))]
                add(f"meta.{part}.over_unlearned", over(error, best))
            add(f"meta.{part}.over_proto", over(error, record["prototypical"]["test"]))
        if part == "few-shot":
            add("meta.omniglot.five_way", 100 * record["plda"]["test-5-way-1-shot"])
        if part == "sinusoids":
            pair = record["alpaca"]["test"], record["gaussian-process"]["test"]
            add("meta.sinusoid.over_gp", over(*pair, slice(2)))
            add("meta.sinusoid.long", over(*pair, slice(3, 4)))
        if part == "noisy":
            add("meta.sinusoid.over_oracle", over(record["alpaca"]["test"], record["oracle"]["test"]))
    return found


PARTS: dict[str, tuple[Callable[..., dict[str, Any]], int, dict[str, Any]]] = {
    "omniglot": (classes, 4500, {"stage": "omniglot"}),
    "intents": (classes, 2000, {"stage": "intents"}),
    "few-shot": (few_shot, 2000, {}),
    "sinusoids": (waves, 2000, {}),
    "noisy": (waves, 2000, {"noise_std": 0.3}),
    "hidden": (waves, 2000, {"frequencies": (0.5, 2.0)}),
}
"""What measures a part, the iterations of its training, and fields of its family."""


def measure(part: str, smoke: bool, seed: int, iterations: int | None = None) -> dict[str, Any]:
    """Return the record of one part with one seed of training; `peers` need none."""
    if part.startswith("peers"):
        return classes_peers(smoke, INTENTS if part == "peers-intents" else LETTERS)
    run, wanted, fields = PARTS[part]
    return run(smoke, seed, 2 if smoke else iterations or wanted, **fields)


def main() -> None:
    """Run a part, add its record to a file, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["peers", "peers-intents", *PARTS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/meta-keys.json"))
    arguments = parser.parse_args()
    records = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    key = f"{arguments.part}/{arguments.seed}"
    if key not in records:
        with on_threads(1):
            record = measure(arguments.part, arguments.smoke, arguments.seed, arguments.iterations)
        records[key] = record | ({} if arguments.part.startswith("peers") else {"commit": commit()})
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(records, indent=1))
    print(json.dumps({key: records[key], "figures": figures(records)}, indent=1))


if __name__ == "__main__":
    main()
