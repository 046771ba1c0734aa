"""Boundaries of a language model that reads examples in its prompt: how right, how rough, how much order and names do.

Source: Zhao, Nguyen, Grover 2024 (the protocol); sizes are what 512 positions hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gradatim.language.reader import COMPACT, InContextReader
from gradatim.probing.boundary import boundary

from .boundary_tasks import SHAPES, apart, drawn, mean_difference
from .boundary_tuning import DIGITS, LABELS, Tuning, accuracy, tuned

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = (("A", "B"), ("B", "A"), ("Foo", "Bar"), ("Yes", "No"))
"""Label names that are compared."""

PROMPTS: dict[str, tuple[int, dict[str, Any]]] = {
    "published, 8 rows": (8, {"labels": ("Foo", "Bar")}),
    "compact, 48 rows": (48, {"labels": LABELS, "template": COMPACT}),
    "digits, 64 rows": (64, {"labels": LABELS, **DIGITS}),
}
"""Prompts, and as many rows of each as fit."""


def read(
    model: Any, tokenizer: Any, shape: str, seed: int, n: int, grid: int, options: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return error on new rows, disagreement with the best, roughness, regions, odd cells; and the labels."""
    X, y, best = drawn(shape, n + 200, seed)
    reader = InContextReader(model, tokenizer, **options)
    reader.fit(X[:n], y[:n])
    shown = boundary(reader, X[:n], y[:n], grid, reference=best)
    wrong = float((reader.predict(X[n:]) != y[n:]).mean())
    return np.array([wrong, apart(shown, best), shown.roughness, shown.regions, shown.odd]), shown.labels


def sensitivity(
    model: Any, tokenizer: Any, seed: int, n: int, grid: int, options: dict[str, Any], orders: int = 4
) -> tuple[float, float]:
    """Return the share of cells that differ between orders of the examples, and between names of the labels."""
    X, y, _ = drawn("linear", n, seed)
    generator = np.random.default_rng(seed)

    def labels(order: np.ndarray, names: tuple[str, str]) -> np.ndarray:
        reader = InContextReader(model, tokenizer, **{**options, "labels": names}).fit(X[order], y[order])
        return boundary(reader, X, y, grid).labels

    by_order = [labels(generator.permutation(n), options["labels"]) for _ in range(orders)]
    by_name = [labels(np.arange(n), names) for names in NAMES]
    return mean_difference(by_order), mean_difference(by_name)


def untuned(
    models: Callable[[], tuple[Any, Any]], seed: int, grid: int, smoke: bool
) -> dict[str, np.ndarray]:
    """Return what the model answers as it is: `[prompts, shapes, 5]`, and how it depends on order and names."""
    model, tokenizer = models()
    prompts = {name: (4 if smoke else n, options) for name, (n, options) in PROMPTS.items()}
    if smoke:  # a tokenizer of characters needs more tokens than positions for the published prompt
        prompts = {name: prompt for name, prompt in prompts.items() if not name.startswith("published")}
    found = [
        [read(model, tokenizer, shape, seed, n, grid, options)[0] for shape in SHAPES]
        for n, options in prompts.values()
    ]
    n, options = prompts["digits, 64 rows"]
    order, names = sensitivity(model, tokenizer, seed, n, grid, options)
    return {"found": np.array(found), "order": np.asarray(order), "names": np.asarray(names)}


def finetuned(
    models: Callable[[], tuple[Any, Any]], tuning: Tuning, seed: int, grid: int, tasks: int
) -> dict[str, np.ndarray]:
    """Return accuracies on unseen linear tasks before and after tuning, and the boundaries after, `[shapes, 5]`."""
    model, tokenizer = models()
    n = tuning.longest
    before = accuracy(model, tokenizer, n, tasks, seed=seed)
    adapted, seconds = tuned(model, tokenizer, tuning, seed)
    after = accuracy(adapted, tokenizer, n, tasks, seed=seed)
    options = {"labels": LABELS, **DIGITS}
    shown = [read(adapted, tokenizer, shape, seed, n, grid, options)[0] for shape in SHAPES]
    order, names = sensitivity(adapted, tokenizer, seed, n, grid, options)
    values = {"before": before, "after": after, "seconds": seconds, "order": order, "names": names}
    return {"found": np.array(shown), **{key: np.asarray(value) for key, value in values.items()}}
