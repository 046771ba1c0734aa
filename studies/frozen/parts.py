"""The parts of the study, one for each way to adapt a frozen model: what they claim, and what measures them.

Source: the bars are this project's own, fixed before the run.
"""

from __future__ import annotations

from studies.part import Part, part_of

from . import boundary, dropout, reprogram, sampler

BARS: dict[str, tuple[str, float]] = {
    "frozen.boundary.roughness": ("<=", 1.5),
    "frozen.boundary.acquire": ("<=", 0.85),
    "frozen.boundary.finetuned": (">=", 15.0),
    "frozen.reprogram.control": (">=", 8.0),
    "frozen.reprogram.cells_missing": ("<=", 0.0),
    "frozen.dropout.over_uniform": (">=", 0.0),
    "frozen.dropout.over_reversed": (">=", 0.5),
    "frozen.sampler.kl_numbers": ("<=", 0.01),
    "frozen.sampler.valid": (">=", 0.97),
    "frozen.sampler.kl_names": ("<=", 0.05),
    "frozen.sampler.over_reinforce": ("<=", 0.2),
    "frozen.sampler.infilling": (">=", 0.5),
}
"""The bar of each claim, fixed before the run: at most, or at least."""


PARTS: tuple[Part, ...] = (
    part_of(
        "decision boundaries",
        {
            "frozen.boundary.roughness": "boundaries: roughness over that of the Bayes boundary, default classifier, "
            "128 rows, worst of three shapes",
            "frozen.boundary.acquire": "boundaries: error with 64 labelled rows, chosen over drawn at random",
            "frozen.boundary.finetuned": "boundaries: points a language model gains on new linear tasks by tuning "
            "on others",
        },
        boundary.part,
        5,
    ),
    part_of(
        "reprogramming",
        {
            "frozen.reprogram.control": "reprogramming: points of a pretrained network over a random one, cells of low "
            "capacity",
            "frozen.reprogram.cells_missing": "reprogramming: cells of the fixed list without a record",
        },
        reprogram.part,
        5,
    ),
    part_of(
        "guided dropout",
        {
            "frozen.dropout.over_uniform": "guided dropout: points over uniform dropout of one mean, 100 and 300 rows",
            "frozen.dropout.over_reversed": "guided dropout: the same over the reversed order",
        },
        dropout.part,
        20,
    ),
    part_of(
        "samplers of sequences",
        {
            "frozen.sampler.kl_numbers": "samplers: nats from samples to uniform numbers, among valid ones",
            "frozen.sampler.valid": "samplers: share of valid numbers",
            "frozen.sampler.kl_names": "samplers: nats to the enumerated posterior of names, over the untuned model's",
            "frozen.sampler.over_reinforce": "samplers: the same over REINFORCE with entropy, as many updates",
            "frozen.sampler.infilling": "samplers: nats of the bound over supervised tuning, as many calls of the "
            "reward",
        },
        sampler.part,
        5,
    ),
)
