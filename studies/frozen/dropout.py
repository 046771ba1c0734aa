"""Guided dropout: a small transformer pretrained by masked words, fine-tuned on few rows, and what could win.

Share, learning rate and epochs come from other seeds, on rows that no one is judged on, for guided and uniform dropout
alike. Intervals are over seeds, which draw the rows to learn from; the rows that judge are the same.

Source: Sharma et al. 2024 (arXiv 2406.14005), as `gradatim.regularizers.fisher_dropout` says.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from gradatim.comparison.runs import claim
from gradatim.provenance import on_threads
from studies.meta.sources import fingerprint

from .encoder import TARGETS
from .fine_tuning import Bench, Setting, bench, tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gradatim.comparison.runs import Study

SIZES, FEW, LATER = (100, 300, 1000), (100, 300), 1000
"""Rows to learn from, those of the figures, and those that are learnt last."""

SEEDS, TOGETHER = 20, 5
"""Paired seeds at least, and how many of them train at a time."""

CHOICE_SEEDS = (1000, 1001, 1002)
HIGHEST, RATES = (0.1, 0.3, 0.6), (1e-3, 3e-3)
EPOCHS = {20: (1, 2), 100: (3, 6, 9), 300: (2, 3, 5), 1000: (1, 2, 3)}
"""Epochs to choose from by rows; 20 rows are those of a smoke run."""

VARIANTS = {
    "none": "no dropout",
    "guided": "guided",
    "uniform": "uniform, equal mean",
    "maximum": "uniform, equal maximum",
    "reversed": "reversed order",
    "early": "early stopping, no dropout",
    "gaussian": "Gaussian, equal mean",
}
Scores = dict[tuple[str, int], dict[str, np.ndarray]]
"""Accuracies `[seeds]` by set and rows, by variant."""


def part(study: Study, smoke: bool, seeds: int) -> dict[str, Any]:
    """Return the records, claims and listings of guided dropout."""
    sizes, count = ((20,), 2) if smoke else (SIZES, max(seeds, SEEDS))
    with on_threads(1):
        begin = bench(study, smoke)
        settings: dict[int, dict[str, Setting]] = {}
        scores: Scores = {(name, size): {} for size, name in product(sizes, TARGETS)}
        for groups in ([size for size in sizes if size != LATER], [size for size in sizes if size == LATER]):
            settings |= {size: chosen(study, begin, size) for size in groups}
            for first, size in product(range(0, count, TOGETHER), groups):
                group = range(first, min(first + TOGETHER, count))
                for name, variant in product(TARGETS, VARIANTS):
                    new = record(study, begin, name, size, group, settings[size][variant], "judge")[-1]
                    old = scores[name, size].setdefault(variant, np.zeros(0))
                    scores[name, size][variant] = np.concatenate([old, new])
                study.notify(f"dropout: {size} rows, seeds before {group.stop} of {count}")
    few = [size for size in sizes if size in FEW] or list(sizes)
    return {
        "records": [
            {
                "name": f"dropout-{variant}",
                "family": f"{name}, {size} rows",
                "metric": "accuracy",
                "seed": seed,
                "errors": [round(1 - float(value), 6)],
            }
            for (name, size), table in scores.items()
            for variant, values in table.items()
            for seed, value in enumerate(values)
        ],
        "claims": [
            claim("frozen.dropout.over_uniform", *points(scores, "uniform", few), 0.0, ">="),
            claim("frozen.dropout.over_reversed", *points(scores, "reversed", few), 0.5, ">="),
        ],
        "listings": [*listings(scores, sizes, settings), fisher_listing(begin)],
    }


def record(
    study: Study, begin: Bench, name: str, size: int, seeds: Sequence[int], setting: Setting, on: str
) -> np.ndarray:
    """Return accuracies `[stops, seeds]`: after each of the epochs to choose from, or after the last one."""
    stops = (
        [epochs for epochs in EPOCHS[size] if epochs <= setting.epochs]
        if on == "choose"
        else [setting.epochs]
    )
    code = fingerprint("studies.frozen.fine_tuning", "studies.frozen.encoder", alone=True)
    inputs = [code, begin.ranked, begin.smoke, name, size, list(seeds), asdict(setting), stops, on]
    key = f"dropout-{name}-{size}-{setting.variant}-{seeds[0]}"
    found = study.cached(
        key, inputs, lambda: {"accuracy": tuned(begin, name, size, seeds, setting, stops, on)}
    )
    return found["accuracy"]


def chosen(study: Study, begin: Bench, size: int) -> dict[str, Setting]:
    """Return the setting of each variant by rows that choose, the mean over sets.

    First the learning rate, at the middle of the shares; then epochs and the share. The share is the best of guided
    dropout's, which favours it. The reversed order has guided dropout's rate and epochs, the others have uniform's.
    """
    most = EPOCHS[size][-1]

    def score(variant: str, highest: float, lr: float) -> np.ndarray:
        setting = Setting(variant, highest, lr, most)
        seeds = CHOICE_SEEDS[:1] if begin.smoke else CHOICE_SEEDS
        return np.mean(
            [record(study, begin, name, size, seeds, setting, "choose").mean(1) for name in TARGETS], 0
        )

    found: dict[str, Setting] = {}
    highest = HIGHEST[1]
    for variant in ("guided", "uniform"):
        lr = max(RATES, key=lambda rate, v=variant: float(score(v, HIGHEST[1], rate).max()))
        if variant == "guided" and not begin.smoke:
            highest = max(HIGHEST, key=lambda share, rate=lr: float(score("guided", share, rate).max()))
        epochs = EPOCHS[size][int(score(variant, highest, lr).argmax())]
        found[variant] = Setting(variant, highest, lr, epochs)
        study.notify(f"dropout, {size} rows: {found[variant]}")
    for variant in VARIANTS:
        like = found["guided" if variant == "reversed" else "uniform"]
        found.setdefault(variant, replace(like, variant=variant))
    found["early"] = replace(found["early"], epochs=most)
    return found


def points(scores: Scores, over: str, sizes: Sequence[int]) -> tuple[float, float, float]:
    """Return the points of accuracy of guided dropout over another variant, mean of sets and sizes, by seeds."""
    gains = [table["guided"] - table[over] for (_, size), table in scores.items() if size in sizes]
    return interval(100 * np.mean(gains, 0))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of values `[seeds]` and its 95% interval by Student's t."""
    mean, n = float(values.mean()), len(values)
    half = float(student.ppf(0.975, max(n - 1, 1))) * float(values.std(ddof=1)) / n**0.5 if n > 1 else 0.0
    return mean, mean - half, mean + half


def listings(
    scores: Scores, sizes: Sequence[int], settings: dict[int, dict[str, Setting]]
) -> list[dict[str, Any]]:
    """Return tables: accuracy, points of guided dropout over each variant, and the settings."""
    accuracy = table(
        "guided dropout: accuracy in percent", scores, lambda values: f"{100 * values.mean():.1f}", VARIANTS
    )
    rows = []
    for variant in VARIANTS:
        if variant != "guided":
            cells = [points(scores, variant, [size]) for size in sizes]
            shown = [f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in cells]
            rows.append([VARIANTS[variant], *shown])
    columns = ["over", *(f"{size} rows" for size in sizes)]
    gains = {
        "title": "guided dropout: points over the others, mean of sets",
        "columns": columns,
        "rows": rows,
    }
    rows = [
        [str(size), VARIANTS[s.variant], f"{s.highest:g}", f"{s.lr:g}", str(s.epochs)]
        for size, table in settings.items()
        for s in table.values()
    ]
    columns = ["rows", "variant", "highest share", "rate", "epochs"]
    return [accuracy, gains, {"title": "guided dropout: settings", "columns": columns, "rows": rows}]


def table(
    title: str, scores: Scores, shown: Callable[[np.ndarray], str], names: dict[str, str]
) -> dict[str, Any]:
    """Return a table of one number for each variant, set and count of rows."""
    columns = ["variant", *(f"{name}, {size}" for name, size in scores)]
    rows = [
        [label, *(shown(values[variant]) for values in scores.values())] for variant, label in names.items()
    ]
    return {"title": title, "columns": columns, "rows": rows}


def fisher_listing(begin: Bench) -> dict[str, Any]:
    """Return the sites of dropout from the lowest Fisher to the highest."""
    rows = [[name, f"{value:.2e}"] for name, value in zip(begin.ranked, begin.fisher, strict=True)]
    return {"title": "guided dropout: sites by Fisher", "columns": ["site", "Fisher"], "rows": rows}
