"""The parts of the study, in the order in which they run. A new part is a module with a `Part`, and its name here.

The cheap ones come first: what is learnt for half an hour is last.

Source: this project's own.
"""

from __future__ import annotations

from studies.part import Part

from .classes import FIVE_WAY_PART, LETTERS_PART, SENTENCES_PART
from .grouped import OWN_PART
from .waves import WAVES_PART

PARTS: tuple[Part, ...] = (OWN_PART, WAVES_PART, SENTENCES_PART, LETTERS_PART, FIVE_WAY_PART)
"""Each has the claims that it makes; their bars are in `verdicts.BARS`."""
