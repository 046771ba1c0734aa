"""Memory that follows a stream: copies of heads that forget at different rates, weighed by what they said lately.

Source: Herbster, Warmuth 1998 (fixed share).
"""

from .bank import Bank
from .classes import ClassBank
from .following import Following
from .numbers import NumberBank
from .packing import unpack
from .start import begin, read_memory

__all__ = ["Bank", "ClassBank", "Following", "NumberBank", "begin", "read_memory", "unpack"]
