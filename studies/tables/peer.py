"""What a learner of a one-pass study is, and how it stands in a list of them.

Source: the protocol is this project's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


class OnePass(Protocol):
    """A learner that sees each row once.

    `predict` returns class probabilities `[n, classes]`, numbers `[n]`, or numbers and quantiles `[n, 1 + q]`.
    """

    def learn(self, x: np.ndarray, y: np.ndarray) -> None:
        """Learn the rows of a mini-batch, x `[n, d]`, y `[n]`."""

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return predictions for x `[n, d]`. It is called only after some rows were learnt."""
        ...


@dataclass(frozen=True)
class Peer:
    """One learner.

    Attributes:
        make: `make(table, seed, **setting)` builds it.
        grid: the settings that one is chosen from.
        package: that it comes from.
        tuning: the number of orders of the validation tables on which the setting is chosen. River's models, which take
            most of the time, have one.
    """

    make: Callable[..., OnePass]
    grid: tuple[dict[str, Any], ...] = ({},)
    package: str = "scikit-learn"
    tuning: int = 2
