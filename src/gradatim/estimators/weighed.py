"""What rows of a class count in an estimator: the settings, what is counted for them, and what files hold of them.

Source: Pedregosa et al. 2011 (`class_weight`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..preprocessing.class_weights import BALANCED, ClassWeights
from ..preprocessing.rows import read_weights

if TYPE_CHECKING:
    import numpy as np


class Weighed:
    """Weights of classes, of which a regressor has none."""

    class_weight: Any = None
    class_weight_: dict[Any, float]

    @property
    def _is_weighed(self) -> bool:
        return self.class_weight is not None and not (
            type(self.class_weight) is dict and not self.class_weight
        )

    @property
    def _is_balanced(self) -> bool:
        return isinstance(self.class_weight, str) and self.class_weight == BALANCED

    def _class_weights(self) -> ClassWeights:
        """Return what rows of each class count; those of `"balanced"` are known once classes were counted."""
        if not self._is_balanced:
            return ClassWeights.read(self.class_weight)
        if not hasattr(self, "class_weight_"):
            raise ValueError(
                "class_weight='balanced' needs the number of rows of each class, which partial_fit does not know: call "
                "fit or prepare first, or give a dict (sklearn.utils.class_weight.compute_class_weight makes one)"
            )
        return ClassWeights.read(self.class_weight_)

    def _check_weights(self, labels: np.ndarray) -> None:
        """Raise ValueError for weights of labels that are none of the classes `[C]` of a whole table."""
        if self._is_weighed:
            self._class_weights().check(labels)

    def _weighed(self, y: np.ndarray, weight: np.ndarray, fit: bool = False) -> np.ndarray:
        """Return the weights `[n]` of rows times those of their labels y `[n]`; to `fit`, classes are counted first."""
        if fit:
            self.__dict__.pop("class_weight_", None)
        if not self._is_weighed or not len(y):
            return weight
        if fit and self._is_balanced:
            self.class_weight_ = ClassWeights.balanced(y, weight).as_dict()
        return read_weights(weight * self._class_weights().of(y), len(y))

    def _weights_to_json(self) -> dict[str, Any]:
        """Return the entry of a file's header, if there is one."""
        if not self._is_weighed:
            return {}
        return {"class_weight": {**self._class_weights().to_json(), "balanced": self._is_balanced}}

    @staticmethod
    def _weights_from_json(header: dict[str, Any]) -> dict[str, Any]:
        """Return the attributes that a file's header says, as `_weights_to_json` wrote it."""
        entry = header.get("class_weight")
        if entry is None:
            return {}
        weights = ClassWeights.from_json(entry).as_dict()
        return (
            {"class_weight": BALANCED, "class_weight_": weights}
            if entry["balanced"]
            else {"class_weight": weights}
        )
