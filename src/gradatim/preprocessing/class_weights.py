"""Weights of classes: what each row of a class counts, where classes are of different sizes or costs.

Source: King, Zeng 2001 (weights by the inverse share of a class); Pedregosa et al. 2011 (`class_weight`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .labels import from_json as labels_from_json
from .labels import positions, read_labels, union
from .labels import to_json as labels_to_json

BALANCED = "balanced"


class ClassWeights(NamedTuple):
    """Labels `[C]`, sorted, and what a row of each counts, `[C]`. Rows of other labels count 1.

    Example:
        >>> import numpy as np
        >>> from gradatim.preprocessing.class_weights import ClassWeights
        >>> ClassWeights.read({"rare": 4, "common": 0.5}).of(np.array(["rare", "new"], dtype=object))
        array([4., 1.])
    """

    labels: np.ndarray
    weights: np.ndarray

    @classmethod
    def read(cls, value: Any) -> ClassWeights:
        """Return the weights that a dict names.

        Raises:
            ValueError: no dict, an empty one, labels of several types, or weights that are no positive numbers.

        Example:
            >>> from gradatim.preprocessing.class_weights import ClassWeights
            >>> ClassWeights.read({"yes": 0})
            Traceback (most recent call last):
            ValueError: class_weight must hold positive numbers; got 0 for 'yes': leave the rows of that class out
        """
        if not isinstance(value, Mapping) or not value:
            raise ValueError(
                f"class_weight must be None, {BALANCED!r} or a dict with a weight for each label; got {value!r}"
            )
        for label, weight in value.items():
            is_number = isinstance(weight, int | float | np.integer | np.floating) and np.isfinite(weight)
            if not is_number or weight <= 0:
                remedy = "leave the rows of that class out" if is_number and weight == 0 else "correct it"
                raise ValueError(
                    f"class_weight must hold positive numbers; got {weight!r} for {label!r}: {remedy}"
                )
        try:
            is_bytes = all(isinstance(label, bytes) for label in value)
            names = read_labels(np.array([*value]) if is_bytes else [*value])
        except ValueError as error:
            raise ValueError(f"class_weight: {error}") from error
        labels, first = np.unique(names, return_index=True)
        return cls(labels, np.array([*value.values()], dtype=np.float64)[first])

    @classmethod
    def balanced(cls, y: np.ndarray, weight: np.ndarray) -> ClassWeights:
        """Return weights under which all classes of y `[n]` count alike, and a row 1 in the mean of `weight [n]`.

        Those of scikit-learn: the sum of all weights, over the number of classes times that of the class.

        Example:
            >>> import numpy as np
            >>> from gradatim.preprocessing.class_weights import ClassWeights
            >>> ClassWeights.balanced(np.array([0, 0, 0, 1]), np.ones(4)).weights.tolist()
            [0.6666666666666666, 2.0]
        """
        labels, codes = np.unique(y[weight > 0], return_inverse=True)
        return cls.of_sums(labels, np.bincount(codes, weight[weight > 0]))

    @classmethod
    def of_sums(cls, labels: np.ndarray, sums: np.ndarray) -> ClassWeights:
        """Return the weights that balance classes, labels `[C]` sorted, whose rows weigh `sums [C]` together."""
        return cls(labels, sums.sum() / (len(labels) * sums))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClassWeights:
        """Return the weights that `to_json` wrote."""
        labels = labels_from_json(value["labels"])
        assert labels is not None
        return cls(labels, np.array(value["weights"], dtype=np.float64))

    def to_json(self) -> dict[str, Any]:
        """Return labels and weights as plain JSON; nothing is rounded."""
        return {"labels": labels_to_json(self.labels), "weights": self.weights.tolist()}

    def of(self, y: np.ndarray) -> np.ndarray:
        """Return what rows of labels y `[n]` count, `[n]`.

        Raises:
            ValueError: the labels are of another type.
        """
        try:
            classes = union(self.labels, y)
        except ValueError as error:
            raise ValueError(
                f"class_weight names {self.labels[:4].tolist()}, which are of another type than the labels "
                f"{np.unique(y)[:4].tolist()}: name labels of y"
            ) from error
        weights = np.ones(len(classes))
        weights[positions(classes, self.labels)] = self.weights
        return weights[positions(classes, y)]

    def check(self, classes: np.ndarray) -> None:
        """Check that the labels are among all `classes [C]`, or all of these among them, as scikit-learn does.

        Raises:
            ValueError: a label is no class, and a class has no weight.
        """
        present, named = classes.tolist(), self.labels.tolist()
        odd, bare = [set(named) - set(present), set(present) - set(named)]
        if odd and bare:
            raise ValueError(
                f"class_weight names {min(odd, key=str)!r}, which is no class of y, and not {min(bare, key=str)!r}, "
                "which is one: name the classes of y"
            )

    def as_dict(self) -> dict[Any, float]:
        """Return the weight of each label."""
        return dict(zip(self.labels.tolist(), self.weights.tolist(), strict=True))
