"""Pictures and probes of what was learnt."""

from .boundary import Boundary, acquire, boundaries, boundary, draw_boundaries
from .dependence import Dependence, support_dependence

__all__ = [
    "Boundary",
    "Dependence",
    "acquire",
    "boundaries",
    "boundary",
    "draw_boundaries",
    "support_dependence",
]
