"""Which output of a frozen model is which class of the new task: given, counted, or a learnt linear map.

Source: Tsai et al. 2020 (frequency); Chen et al. 2023 (iterative label mapping, arXiv 2211.11635).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence


def count_outputs(outputs: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Return how often each output is the largest for the rows of each class, `[C, S]`.

    Below one, the mean probability is added: it decides among equal counts.

    Args:
        outputs: logits `[N, S]`.
        y: classes `[N]`, whole numbers below n_classes.
        n_classes: C.

    Example:
        >>> import torch
        >>> from gradatim.prompting.alignment import count_outputs
        >>> outputs = torch.tensor([[0.0, 9.0], [0.0, 9.0], [9.0, 0.0]])
        >>> count_outputs(outputs, torch.tensor([0, 0, 1]), 2).floor()
        tensor([[0., 2.],
                [1., 0.]], dtype=torch.float64)
    """
    member = F.one_hot(y, n_classes).double().mT
    best = F.one_hot(outputs.argmax(1), outputs.shape[1]).double()
    mean = member @ outputs.double().softmax(1) / member.sum(1, keepdim=True).clamp(min=1)
    return member @ best + 0.999 * mean


def assign(counts: Tensor) -> list[int]:
    """Return an output for each class, none twice: the largest count of `[C, S]` first, then the largest that is left.

    Raises:
        ValueError: fewer outputs than classes.

    Example:
        >>> import torch
        >>> from gradatim.prompting.alignment import assign
        >>> assign(torch.tensor([[5.0, 4.0, 0.0], [6.0, 1.0, 0.0]]))
        [1, 0]
    """
    classes, outputs = counts.shape
    if classes > outputs:
        raise ValueError(too_many(classes, outputs))
    left, found = counts.clone().double(), [0] * classes
    for _ in range(classes):
        row, column = divmod(int(left.argmax()), outputs)
        found[row] = column
        left[row], left[:, column] = -torch.inf, -torch.inf
    return found


def too_many(classes: int, outputs: int) -> str:
    """Return the sentence about a task with more classes than the model has outputs."""
    return (
        f"an output for each class needs at least {classes} outputs; the model has {outputs}: use alignment linear, "
        "or a model with more outputs"
    )


class Mapping:
    """Classes as outputs, or as logarithms of summed exponentials of several.

    Args:
        groups: the outputs of each class.

    Example:
        >>> import torch
        >>> from gradatim.prompting.alignment import Mapping
        >>> Mapping([[2], [0]])(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[3., 1.]])
    """

    n_trainable = 0

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        self.groups = [[int(place) for place in group] for group in groups]

    def parameters(self) -> list[Tensor]:
        """Return what is learnt: nothing."""
        return []

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return logits of classes `[N, C]` from those of outputs `[N, S]`."""
        if all(len(group) == 1 for group in self.groups):
            return outputs[:, [group[0] for group in self.groups]]
        return torch.stack([outputs[:, group].logsumexp(1) for group in self.groups], 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the outputs of each class `[C, most]`, -1 where a class has fewer."""
        most = max(map(len, self.groups))
        return {"outputs": torch.tensor([group + [-1] * (most - len(group)) for group in self.groups])}


class Linear:
    """A learnt linear map of features to classes, which starts at zero.

    Args:
        weight: `[C, F]`.
        bias: `[C]`.

    Example:
        >>> import torch
        >>> from gradatim.prompting.alignment import Linear
        >>> Linear(torch.zeros(3, 4), torch.zeros(3)).n_trainable
        15
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight.requires_grad_(), bias.requires_grad_()

    @property
    def n_trainable(self) -> int:
        """Return the count of learnt numbers."""
        return self.weight.numel() + self.bias.numel()

    def parameters(self) -> list[Tensor]:
        """Return what is learnt."""
        return [self.weight, self.bias]

    def __call__(self, features: Tensor) -> Tensor:
        """Return logits of classes `[N, C]` from features `[N, F]`."""
        return F.linear(features, self.weight, self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weight and the bias."""
        return {"weight": self.weight.detach(), "bias": self.bias.detach()}


def from_tensors(tensors: dict[str, Tensor], n_classes: int, outputs: int, features: int) -> Any:
    """Return the alignment of a file, of any shapes, checked.

    Raises:
        ValueError: tensors that are no alignment of n_classes to this many outputs or features.
    """
    if set(tensors) == {"weight", "bias"}:
        weight, bias = tensors["weight"], tensors["bias"]
        if weight.shape != (n_classes, features) or bias.shape != (n_classes,):
            raise ValueError(
                f"the map of outputs must have shape {[n_classes, features]}; got {[*weight.shape]}"
            )
        return Linear(weight.clone(), bias.clone())
    places = tensors.get("outputs")
    if set(tensors) != {"outputs"} or places is None or places.ndim != 2 or len(places) != n_classes:
        raise ValueError(
            f"an alignment of {n_classes} classes must be one list of outputs for each, or a map"
        )
    if places.is_floating_point() or bool((places >= outputs).any()) or bool((places < -1).any()):
        raise ValueError(f"outputs of classes must be whole numbers below {outputs}")
    groups = [[place for place in row if place >= 0] for row in places.tolist()]
    if not all(groups):
        raise ValueError("every class must have an output")
    return Mapping(groups)
