"""The parts of the study, one for each system: what they claim, and what measures them.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from studies.part import Part, part_of

from . import blocks, information, memory, path, relations

BARS: dict[str, tuple[str, float]] = {
    "systems.information.over_er": (">=", 6.0),
    "systems.information.over_ace": (">=", 2.0),
    "systems.information.never_worse": ("<=", 0.5),
    "systems.path.over_meta_sgd": ("<=", 0.9),
    "systems.path.omniglot": (">=", 96.0),
    "systems.relations.recovered": (">=", 0.8),
    "systems.relations.over_uniform": ("<=", 0.97),
    "systems.relations.over_none": ("<=", 1.0),
    "systems.relations.clusters_over_one": ("<=", 0.97),
    "systems.memory.dependence": (">=", 2.0),
    "systems.memory.over_maml": ("<=", 0.85),
    "systems.blocks.over_lasso": ("<=", 0.4),
    "systems.blocks.early": ("<=", 1.0),
    "systems.blocks.over_coclustering": ("<=", 0.9),
    "systems.blocks.checks_failed": ("<=", 0.0),
}
"""The bar of each claim, fixed before the run: at most, or at least."""


PARTS: tuple[Part, ...] = (
    part_of(
        "blocks of features and tasks",
        {
            "systems.blocks.over_lasso": "blocks: excess error over the lasso's, 60 rows a task",
            "systems.blocks.early": "blocks: the same with 25 rows a task",
            "systems.blocks.over_coclustering": "blocks: the same over a lasso, co-clustering and a refit, 60 rows",
            "systems.blocks.checks_failed": "blocks: checks of scikit-learn that fail",
        },
        blocks.part,
        8,
    ),
    part_of(
        "relations of tasks",
        {
            "systems.relations.recovered": "relations: adjusted Rand index of clusters read from learnt relations",
            "systems.relations.over_uniform": "relations: error of new tasks over that with uniform relations",
            "systems.relations.over_none": "relations: the same over that without relations",
            "systems.relations.clusters_over_one": "relations: error of a learner for each cluster read, over one "
            "learner trained as long",
        },
        relations.part,
        3,
    ),
    part_of(
        "memory imitation",
        {
            "systems.memory.dependence": "memory imitation: dependence on the support over MAML's",
            "systems.memory.over_maml": "memory imitation: error on unseen tasks over MAML's",
        },
        memory.part,
        3,
    ),
    part_of(
        "rehearsal with information maximization",
        {
            "systems.information.over_er": "rehearsal: points of accuracy over rehearsal alone, buffers of 20 and 50",
            "systems.information.over_ace": "rehearsal: the same over ER-ACE",
            "systems.information.never_worse": "rehearsal: points below rehearsal alone, worst stream and buffer",
        },
        information.part,
        8,
    ),
    part_of(
        "path-aware MAML",
        {
            "systems.path.over_meta_sgd": "MAML whose steps differ: error on sinusoids after 5 steps over Meta-SGD's",
            "systems.path.omniglot": "MAML whose steps differ: percent right, 5 letters, one row of each",
        },
        path.part,
        8,
    ),
)
