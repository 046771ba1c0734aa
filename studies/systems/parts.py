"""The parts of the study, one for each system: what they claim, and what measures them.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from studies.part import Found, Part

from . import blocks, information, memory, path, relations

if TYPE_CHECKING:
    from gradatim.comparison.runs import Study


BARS: dict[str, tuple[str, float]] = {
    "systems.information.over_er": (">=", 6.0),
    "systems.information.over_ace": (">=", 2.0),
    "systems.information.never_worse": ("<=", 0.5),
    "systems.path.over_meta_sgd": ("<=", 0.9),
    "systems.path.omniglot": (">=", 96.0),
    "systems.relations.recovered": (">=", 0.8),
    "systems.relations.over_uniform": ("<=", 0.97),
    "systems.memory.dependence": (">=", 2.0),
    "systems.memory.over_maml": ("<=", 0.85),
    "systems.blocks.over_lasso": ("<=", 0.4),
    "systems.blocks.early": ("<=", 1.0),
    "systems.blocks.over_coclustering": ("<=", 0.9),
    "systems.blocks.checks_failed": ("<=", 0.0),
}
"""The bar of each claim, fixed before the run: at most, or at least."""


def _part(
    name: str,
    claims: Mapping[str, str],
    measure: Callable[[Study, bool, int], Mapping[str, Any]],
    fewest: int,
) -> Part:
    """Return a part of at least `fewest` seeds, whose records are of one seed, or over all: None."""

    def measured(study: Study, smoke: bool, seeds: int) -> Found:
        found = measure(study, smoke, 1 if smoke else max(seeds, fewest))
        records = [{"metric": "error", "steps": 0, "seed": None} | record for record in found["records"]]
        return Found(records, [*found["claims"]], [*found["listings"]])

    return Part(name, {f"systems.{id_}": words for id_, words in claims.items()}, measured)


PARTS: tuple[Part, ...] = (
    _part(
        "blocks of features and tasks",
        {
            "blocks.over_lasso": "blocks: excess error over the lasso's, 60 rows a task",
            "blocks.early": "blocks: the same with 25 rows a task",
            "blocks.over_coclustering": "blocks: excess error over that of a lasso, co-clustering and a refit, 60 rows",
            "blocks.checks_failed": "blocks: checks of scikit-learn that fail",
        },
        blocks.part,
        8,
    ),
    _part(
        "relations of tasks",
        {
            "relations.recovered": "relations: adjusted Rand index of clusters read from learnt relations",
            "relations.over_uniform": "relations: error of new tasks over that with uniform relations",
        },
        relations.part,
        3,
    ),
    _part(
        "memory imitation",
        {
            "memory.dependence": "memory imitation: dependence on the support over MAML's, labels fixed by intent",
            "memory.over_maml": "memory imitation: error on unseen tasks over MAML's",
        },
        memory.part,
        3,
    ),
    _part(
        "rehearsal with information maximization",
        {
            "information.over_er": "rehearsal: points of accuracy over rehearsal alone, buffers of 20 and 50",
            "information.over_ace": "rehearsal: the same over ER-ACE",
            "information.never_worse": "rehearsal: points below rehearsal alone, worst stream and buffer",
        },
        information.part,
        8,
    ),
    _part(
        "path-aware MAML",
        {
            "path.over_meta_sgd": "MAML whose steps differ: error on sinusoids after 5 steps over Meta-SGD's",
            "path.omniglot": "MAML whose steps differ: percent right, 5 letters, one row of each",
        },
        path.part,
        8,
    ),
)
