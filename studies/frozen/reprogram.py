"""Reprogramming: does what a frozen model has learnt help it with another task, or would any frozen model do as well?

An MNIST network answers clothes, small digits and three tables; stories260k answers four text sets. Every cell is
judged beside a random frozen network of the same shape that learns as many numbers, at a rate chosen in the same way.

Source: Ye et al. 2025 (the cells); the tasks and controls are this project's own.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import RidgeClassifier

from gradatim.comparison.runs import claim
from gradatim.prompting import Reprogramming, cells
from gradatim.prompting.cells import BUILT, Cell
from gradatim.prompting.compare import best_rate, compare_reprogramming
from gradatim.provenance import on_threads
from studies.meta.sources import fingerprint

from .reprogram_data import TEXTS, data_of, embeddings, kind_of_target, pretrained, random_network

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study

CHOICE_SEED = 99
"""Rates are chosen on a quarter of the training rows of this seed, which no result has. Of tables, whose rows are few,
about half of these rows are among those that judge other seeds: for both networks alike."""

TARGETS = ("fashion", "digits", "wine", "cancer", "iris", *TEXTS, "intents")
CLAIMED, SAME_CLASSES = TARGETS[:9], "digits"
SMOKE = ("wine", "subj", "moved")
"""The targets of a smoke run."""

Rows = dict[str, dict[str, Any]]
"""By cell and network: the accuracy, and how many numbers are learnt."""

Found = dict[tuple[str, str, Cell], list[Rows]]
"""By kind, target and cell: the rows of each seed."""

ONCE = {"module": "wine", "language": "subj", "learner": "moved"}
"""Where cells of many learnt numbers are judged; the low-capacity ones are judged on all targets."""

WIDE_SEEDS = {"module": 1000, "language": 2, "learner": 1000}
"""Seeds whose runs judge cells that are not of low capacity; those of language models take long, and judge nothing."""

SIZES: dict[str, dict[str, Any]] = {
    "module": {"frame": 4, "rank": 8, "steps": 120},
    "language": {"tokens": 8, "steps": 40, "batch_size": 12, "learning_rate": 0.1},
    "learner": {"tokens": 16, "steps": 60, "batch_size": 32, "learning_rate": 0.03},
}
RATES: dict[str, tuple[float, ...]] = {"module": (0.01, 0.1), "language": (0.03, 0.3), "learner": (0.03,)}
MAX_TOKENS = 20


def is_low(cell: Cell) -> bool:
    """Return whether a cell is learnt and of low capacity: additive or concatenative, identity or frequent."""
    return (
        cell[0] == "learnable"
        and cell[2] in ("additive", "concatenative")
        and cell[3] in ("identity", "frequent")
    )


# --- records


def options(kind: str, model: Any, n_classes: int) -> dict[str, Any]:
    """Return what cells need beside their sizes: outputs of classes, the shape of the input, how long texts may be.

    Class c is output c, or the c-th token of letters; by a rule also every C-th output after it.
    """
    if kind == "learner":
        return {}
    if kind == "module":
        return {"shape": (1, 28, 28), "labels": [[*range(c, 10, n_classes)] for c in range(n_classes)]}
    from gradatim.language.prompts import ordinary

    tokens = ordinary(model[1], 512)[:10]
    return {"max_tokens": MAX_TOKENS, "labels": [tokens[c::n_classes] for c in range(n_classes)]}


def setting(kind: str, cell: Cell, smoke: bool) -> Reprogramming:
    """Return a cell with the sizes of the study."""
    sizes = dict(SIZES[kind])
    if kind == "module" and cell[2] not in ("concatenative", "replacement"):
        sizes["frame"] = 0
    if kind == "language" and cell[2] == "parametric":
        sizes |= {"rank": 4, "learning_rate": 0.01}
    if kind == "language" and cell[0] == "fixed":
        sizes |= {"tokens": 4, "learning_rate": 0.01}
    if smoke:
        sizes["steps"] = 2
    return Reprogramming(*cell, **sizes)  # type: ignore[arg-type]


def chosen(
    study: Study, kind: str, target: str, cell: Cell, smoke: bool
) -> tuple[Reprogramming, Reprogramming]:
    """Return a low-capacity cell at the rate that is best for the pretrained, and for the random network.

    The rate is chosen with alignment identity, and serves frequent as well; for language models on one text set.
    """
    how = setting(kind, cell, smoke)
    if smoke or not is_low(cell) or kind == "learner":
        return how, how
    asked = replace(how, alignment="identity")
    at = ONCE[kind] if kind == "language" else target

    def compute() -> dict[str, Any]:
        with on_threads(1):
            data, model = data_of(at, CHOICE_SEED, smoke), pretrained(kind, CHOICE_SEED, smoke)
            given = options(kind, model, len(set(data.y)))
            both = (model, random_network(kind, CHOICE_SEED, model, smoke))
            found = [
                best_rate(m, data.X, data.y, asked, RATES[kind], seed=CHOICE_SEED, **given) for m in both
            ]
            return {"rates": np.array([one.learning_rate for one in found])}

    inputs = [code(), at, asdict(asked), RATES[kind]]
    rates = study.cached(f"reprogram-rate-{at}-{'-'.join(asked.cell)}", inputs, compute)["rates"]
    first, second = (replace(how, learning_rate=float(rate)) for rate in rates)
    return first, second


SOURCES = ("prompting.alignment", "prompting.learners", "prompting.modules", "language.prompts")
"""Modules whose code decides the figures."""


def code() -> str:
    """Return the hash of the code that records depend on."""
    return fingerprint(*(f"gradatim.{name}" for name in SOURCES), alone=True)


def judged(study: Study, kind: str, target: str, known: list[Cell], seed: int, smoke: bool) -> Rows:
    """Return what each network and cell, the probes and the majority reach on a target, by their row's name."""
    pairs = [chosen(study, kind, target, cell, smoke) for cell in known]

    def compute() -> dict[str, Any]:
        with on_threads(1):
            data, model = data_of(target, seed, smoke), pretrained(kind, seed, smoke)
            other = random_network(kind, seed, model, smoke)
            table = compare_reprogramming(
                model,
                data.X,
                data.y,
                pairs,
                X_test=data.X_test,
                y_test=data.y_test,
                random=lambda _: other,
                seed=seed,
                **options(kind, model, len(set(data.y))),
            )
        return {
            "names": np.array([f"{row['cell']}/{row['network']}" for row in table.rows]),
            "accuracy": np.array([row["accuracy"] for row in table.rows]),
            "trainable": np.array([row["trainable"] for row in table.rows]),
        }

    inputs = [code(), target, [[asdict(how) for how in pair] for pair in pairs], seed, smoke]
    stored = study.cached(f"reprogram-{target}-{seed}", inputs, compute)
    columns = zip(*(stored[name].tolist() for name in ("names", "accuracy", "trainable")), strict=True)
    return {name: {"accuracy": accuracy, "trainable": trainable} for name, accuracy, trainable in columns}


def cell_name(cell: Cell) -> str:
    """Return a cell as tables write it."""
    return " ".join(cell)


def jobs(smoke: bool) -> list[tuple[str, str, list[Cell]]]:
    """Return kind, target and cells of all that is judged: low-capacity cells on every target, the others on one.

    Language models are left out where transformers or peft is not installed.
    """
    found: list[tuple[str, str, list[Cell]]] = []
    for target in SMOKE if smoke else (*TARGETS, "moved"):
        kind = kind_of_target(target)
        if kind == "language" and not (find_spec("transformers") and find_spec("peft")):
            continue
        known = [cell for cell in cells(kind) if target == ONCE[kind] or is_low(cell)]
        if target == "intents":
            known = [("learnable", "embedding", "concatenative", "identity")]
        found.append((kind, target, known))
    return found


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of reprogramming."""
    todo = jobs(smoke)
    if not any(kind == "language" for kind, _, _ in todo):
        study.notify(
            "reprogramming: language models are left out, for transformers and peft are not installed"
        )
    found: Found = {}
    for kind, target, known in todo:
        for seed in range(seeds):
            asked = known if seed < WIDE_SEEDS[kind] else [cell for cell in known if is_low(cell)]
            rows = judged(study, kind, target, asked, seed, smoke)
            for cell in asked:
                found.setdefault((kind, target, cell), []).append(rows)
        study.notify(f"reprogramming: {target}, {seeds} seeds")
    recorded = {(kind, cell) for kind, _, cell in found}
    missing = float(sum((kind, cell) not in recorded for kind in BUILT for cell in cells(kind)))
    claims = [
        control(found, seeds),
        claim("frozen.reprogram.cells_missing", missing, missing, missing, 0.0, "<="),
    ]
    return {
        "records": records(found),
        "claims": claims,
        "listings": [cell_table(found), target_table(found, smoke, seeds)],
    }


def gains(found: Found, seed: int) -> dict[str, list[float]]:
    """Return by target the points of the pretrained over the random network, one for each low-capacity cell."""
    points: dict[str, list[float]] = {}
    for (_, target, cell), of_seeds in found.items():
        if target in CLAIMED and is_low(cell):
            one = of_seeds[seed]
            names = [f"{cell_name(cell)}/{network}" for network in ("pretrained", "random")]
            points.setdefault(target, []).append(
                100 * (one[names[0]]["accuracy"] - one[names[1]]["accuracy"])
            )
    return points


def control(found: Found, seeds: int) -> dict[str, Any]:
    """Return the claim of the pretrained over the random network, a mean over cells and targets, with its interval.

    The interval is over seeds. Beside it stand the means of each target, their interval over targets, and the mean
    without the small digits, which have the classes of MNIST.
    """
    by_seed = [gains(found, seed) for seed in range(seeds)]
    means = np.array([np.mean([np.mean(of) for of in points.values()]) for points in by_seed])
    half = 1.96 * float(np.std(means, ddof=1)) / seeds**0.5 if seeds > 1 else 0.0
    middle = float(means.mean())
    each = {target: float(np.mean([points[target] for points in by_seed])) for target in by_seed[0]}
    spread = 1.96 * float(np.std([*each.values()], ddof=1)) / len(each) ** 0.5 if len(each) > 1 else 0.0
    beside: dict[str, Any] = {target: round(value, 2) for target, value in each.items()}
    others = [value for target, value in each.items() if target != SAME_CLASSES]
    beside["without digits"] = round(float(np.mean(others)), 2) if others else None
    beside["interval over targets"] = [round(middle - spread, 2), round(middle + spread, 2)]
    name = "frozen.reprogram.control"
    return claim(name, middle, middle - half, middle + half, 8.0, ">=") | {"beside": beside}


def records(found: Found) -> list[dict[str, Any]]:
    """Return the errors of each network, cell, target and seed; probes and majority once for each target."""
    entries, seen = [], set()
    for (_, target, _), of_seeds in found.items():
        for seed, rows in enumerate(of_seeds):
            for name, row in rows.items():
                if (name, target, seed) not in seen:
                    seen.add((name, target, seed))
                    error = round(1 - row["accuracy"], 6)
                    entry = {"name": f"reprogram/{name}", "family": target, "seed": seed, "errors": [error]}
                    entries.append(entry | {"trainable": row["trainable"]})
    return entries


def cell_table(found: Found) -> dict[str, Any]:
    """Return the listing of cells: accuracy of both networks and what they learn, a mean over targets and seeds."""
    rows = []
    for kind in BUILT:
        for cell in cells(kind):
            of = [rows for (k, _, c), rows in found.items() if (k, c) == (kind, cell)]
            if of:
                both = [
                    np.mean(
                        [one[f"{cell_name(cell)}/{network}"]["accuracy"] for seeds in of for one in seeds]
                    )
                    for network in ("pretrained", "random")
                ]
                learnt = of[0][0][f"{cell_name(cell)}/pretrained"]["trainable"]
                values = [f"{value:.3f}" for value in both]
                counts = [f"{len(of)}", f"{len(of[0])}", f"{learnt:,}"]
                rows.append([kind, cell_name(cell), *counts, *values])
    columns = ["model", "cell", "targets", "seeds", "learnt", "pretrained", "random"]
    return {
        "title": "cells of reprogramming beside a random frozen network",
        "columns": columns,
        "rows": rows,
    }


def target_table(found: Found, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the listing of targets: the best low-capacity cell, probes, majority, and for texts a ridge."""
    rows = []
    for target in dict.fromkeys(target for _, target, _ in found):
        of = {cell: rows for (_, t, cell), rows in found.items() if t == target and is_low(cell)}
        low = {
            network: np.mean(
                [[one[f"{cell_name(cell)}/{network}"]["accuracy"] for one in r] for cell, r in of.items()]
            )
            for network in ("pretrained", "random")
        }
        first = next(iter(of.values()))
        names = ("linear probe/pretrained", "linear probe/random", "majority class/")
        beside = [np.mean([one[name]["accuracy"] for one in first]) for name in names]
        ridge = baseline(target, smoke, seeds) if kind_of_target(target) == "language" else ""
        rows.append([target, *(f"{value:.3f}" for value in (*low.values(), *beside)), ridge])
    columns = [
        "target",
        "low cells, pretrained",
        "low cells, random",
        "probe",
        "probe of random",
        "majority",
        "ridge",
    ]
    return {"title": "targets of reprogramming", "columns": columns, "rows": rows}


def baseline(target: str, smoke: bool, seeds: int) -> str:
    """Return the accuracy of ridge on the same rows: on MiniLM's vectors for intents, else on words as their stand-in.

    Vectors of MiniLM are at hand for intents alone.
    """
    scores = []
    for seed in range(seeds):
        data = data_of(target, seed, smoke)
        if target == "intents" and not smoke:
            vectors = embeddings()
            train, test = ([vectors[text] for text in X] for X in (data.X, data.X_test))
        else:
            words = TfidfVectorizer(sublinear_tf=True).fit(data.X)
            train, test = words.transform(data.X), words.transform(data.X_test)
        scores.append(RidgeClassifier().fit(train, data.y).score(test, data.y_test))
    return f"{np.mean(scores):.3f}" + (" (MiniLM)" if target == "intents" else " (words)")
