"""Pictures and probes of what was learnt."""

from .dependence import Dependence, support_dependence

__all__ = ["Dependence", "support_dependence"]
