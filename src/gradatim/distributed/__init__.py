"""Many files learnt at once on Ray: one map, a state for each shard, merged in a fixed order.

Source: Moritz et al. 2018 (Ray); Dean, Ghemawat 2008 (parts are learnt apart, and joined).
"""

from .run import fit

__all__ = ["fit"]
