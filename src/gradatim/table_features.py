"""The features of a table's committees, drawn for encoded rows.

Source: Broomhead, Lowe 1988, eq. 3 (nearness to landmarks); Rahimi, Recht 2007 (random ramps).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from .committees import committee_features
from .nn.fixed_features import widths
from .nn.landmarks import POOL, choose_landmarks, smallest_hashes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .nn.fixed_features import Draws
    from .preprocessing import Encoder


def draw_members(
    encoder: Encoder, x: np.ndarray, seeds: Sequence[int], landmarks: np.ndarray | None = None
) -> list[Draws]:
    """Return the features of one member for each of `seeds`, drawn for rows that a map encoded.

    Args:
        encoder: the map.
        x: encoded rows `[n, d]`.
        seeds: of the landmarks, pairs and ramps.
        landmarks: given ones `[K, d]`, of a file of version 0.1, whose sums are there already.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing import Encoder, read_columns
        >>> from gradatim.table_features import draw_members
        >>> columns = read_columns(np.random.default_rng(0).normal(size=(50, 2)))
        >>> encoder = Encoder.fit(columns)
        >>> [draws] = draw_members(encoder, encoder.encode(columns), seeds=[0])
        >>> tuple(draws.landmarks.shape), tuple(draws.pairs.shape)
        ((50, 2), (2, 3))
    """
    room = widths(encoder.width)
    columns, thresholds = encoder.threshold_features(room.steps)
    steps = list(zip(columns.tolist(), thresholds.tolist(), strict=True))
    points = [choose_landmarks(x, room.landmarks, s) if landmarks is None else landmarks for s in seeds]
    sample = x if landmarks is not None else smallest_hashes(x, POOL, seeds[0])
    committees = committee_features(
        [torch.from_numpy(rows).double() for rows in points],
        torch.from_numpy(sample).double(),
        steps,
        seeds,
    )
    if landmarks is not None:
        return [features.draws for features in committees]
    free = torch.tensor([at for at, (family, *_) in enumerate(encoder.inputs) if family == "free"])
    return [features.draws.without(free.long()) for features in committees]
