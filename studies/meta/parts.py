"""The parts of the study, in the order in which they run. A new part is a module with a `Part`, and its name here.

The cheap ones come first: what is learnt for half an hour is last.

Source: this project's own.
"""

from __future__ import annotations

from studies.part import Part, part_of

from . import causal, converged, refined
from .classes import FIVE_WAY_PART, LETTERS_PART, SENTENCES_PART
from .grouped import OWN_PART
from .waves import WAVES_PART

CAUSAL_PART = part_of(
    "orders of causes",
    {
        "meta.causal.over_best": "orders: edges reversed over those of the best peer that learns nothing, six laws"
    },
    causal.part,
    3,
)
CONVERGED_PART = part_of(
    "the paper's findings with converged learners",
    {"meta.findings_converged": "the paper's findings: share of learners whose loss stands still at the end"},
    converged.part,
    3,
)
REFINED_PART = part_of(
    "learnt steps on top of a learnt prior",
    {
        "meta.refined.over_start": "learnt steps on top of a learnt prior: error over the prior's alone, best of three "
        "families"
    },
    refined.part,
    3,
)

PARTS: tuple[Part, ...] = (
    OWN_PART,
    WAVES_PART,
    SENTENCES_PART,
    LETTERS_PART,
    CAUSAL_PART,
    REFINED_PART,
    CONVERGED_PART,
    FIVE_WAY_PART,
)
"""Each has the claims that it makes; their bars are in `verdicts.BARS`."""
