"""What refinements on top of a start have in common: at which numbers of rows they are kept.

Source: Mittal et al. 2025, eq. 7 (a state refined by learnt steps); where steps are kept is this project's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..refiner import Refiner

OCTAVES = 40
"""Numbers of rows are told apart by their powers of two: 0, 1, 2 to 3, 4 to 7 and so on."""


class Refined(Refiner):
    """A refiner whose latent is that of a start, moved by learnt steps where these are kept.

    Attributes:
        kept: `[OCTAVES]` bool, whether steps are taken after 0 rows, 1, 2 to 3, 4 to 7 and so on. At first all are.

    Example:
        >>> import torch
        >>> from gradatim.refiners import RefinedALPaCA
        >>> refiner = RefinedALPaCA(4, 1)
        >>> refiner.kept[3] = False
        >>> refiner.gate(torch.tensor([3.0, 4.0, 7.0, 8.0]))
        tensor([1., 0., 0., 1.])
    """

    kept: Tensor

    def keep_all(self) -> None:
        """Keep the steps at all numbers of rows."""
        self.register_buffer("kept", torch.ones(OCTAVES, dtype=torch.bool))

    def gate(self, rows: Tensor) -> Tensor:
        """Return 1 where steps are kept after `rows [B]`, else 0, in their dtype, `[B]`."""
        return self.kept[octave(rows)].to(rows)


def octave(rows: Tensor) -> Tensor:
    """Return the index in `kept` of numbers of rows `[B]`, int64.

    Example:
        >>> import torch
        >>> from gradatim.refiners.refined import octave
        >>> octave(torch.tensor([0.0, 1.0, 3.0, 4.0])).tolist()
        [0, 1, 2, 3]
    """
    # the exponent of a number: exact where a logarithm is rounded
    return torch.frexp(rows.floor()).exponent.long().clamp(0, OCTAVES - 1)
