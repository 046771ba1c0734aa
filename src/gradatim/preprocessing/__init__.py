"""Tables as they come, as rows of numbers: a map fixed after the first rows and kept with what is learnt through it.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes); when they are fixed is this project's own.
"""

from .columns import Columns
from .encoder import WIDTH, Encoder
from .maps import LEVELS, QUANTILES, SPARE, Category, Number
from .reading import read_columns

__all__ = [
    "LEVELS",
    "QUANTILES",
    "SPARE",
    "WIDTH",
    "Category",
    "Columns",
    "Encoder",
    "Number",
    "read_columns",
]
