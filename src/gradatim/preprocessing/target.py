"""A regression's y, standardised.

Source: Pedregosa et al. 2011 (standardisation).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Target(NamedTuple):
    """How a regression's y becomes numbers of mean 0 and variance 1: `(y - centre) / scale`.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.target import Target
        >>> Target.fit(np.array([1.0, 3.0]), np.ones(2))
        Target(centre=2.0, scale=1.0)
    """

    centre: float = 0.0
    scale: float = 1.0

    @classmethod
    def fit(cls, y: np.ndarray, weight: np.ndarray) -> Target:
        """Return the weighted mean and standard deviation of y `[n]`; of a constant the scale is 1."""
        total = weight.sum()
        centre = float((weight * y).sum() / total)
        spread = float(np.sqrt((weight * (y - centre) ** 2).sum() / total))
        return cls(centre, spread if spread > 1e-12 * float(np.abs(y).max()) else 1.0)


STANDARD = Target()
"""That of a y which is standardised already."""
