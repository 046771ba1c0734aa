"""Tables as they come, as rows of numbers: a map fitted to the first rows, and stored with the model that uses it.

Source: Pedregosa et al. 2011 (standardisation, one-hot codes).
"""

from .category import MAX_CODES, MAX_LEVELS, SPARE_LEVELS, Category
from .columns import Columns
from .encoder import Encoder
from .number import QUANTILES, Number
from .reading import read_columns

__all__ = [
    "MAX_CODES",
    "MAX_LEVELS",
    "QUANTILES",
    "SPARE_LEVELS",
    "Category",
    "Columns",
    "Encoder",
    "Number",
    "read_columns",
]
