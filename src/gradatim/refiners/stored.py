"""What a file holds of experts: sums, weights and the heads that score, as they are.

Source: Hoerl, Kennard 1970, eq. 2.1 (the sums of a ridge); this project's own form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..nn.widths import Widths
from .statistics import pack_triangle, unpack_triangle

if TYPE_CHECKING:
    from torch import Tensor


PARTS = ("noise", "log_likelihood", "products", "share", "solved")
"""Fields that are stored as they are."""


def pack_experts(experts: Any, state: Any) -> dict[str, Tensor]:
    """Return the tensors of a state without rows that wait by name, float64: nothing is rounded.

    Of the heads those that are not zero are packed, without the features that they do not see: `heads`, flat, of
    the experts `alive [A]`.
    """
    alive = state.theta.flatten(2).any(2).any(0).nonzero()[:, 0]
    heads = [state.theta[:, expert, experts.seen(int(expert))].flatten() for expert in alive]
    parts = {name: getattr(state, name) for name in PARTS} | {"widths": state.widths.joined}
    flat = torch.cat(heads) if heads else state.noise.new_zeros(0)
    return pack_triangle(state.moments) | parts | {"alive": alive, "heads": flat}


def unpack_experts(experts: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the state `[1, ...]` whose tensors `pack_experts` returned.

    Raises:
        ValueError: a tensor is missing or has another shape.
    """
    like = experts.init(1)
    shapes = {name: list(part.shape) for name, part in pack_experts(experts, like).items()}
    alive = tensors["alive"].tolist() if "alive" in tensors else []
    if not all(isinstance(expert, int) and 0 <= expert < experts.count for expert in alive):
        raise ValueError(f"'alive' must hold experts 0 .. {experts.count - 1}; got {alive[:8]}")
    sizes = [experts.outputs * len(experts.seen(expert)) for expert in alive]
    shapes |= {"alive": [len(alive)], "heads": [sum(sizes)]}
    for name, shape in shapes.items():
        if name not in tensors or list(tensors[name].shape) != shape:
            got = list(tensors[name].shape) if name in tensors else "nothing"
            raise ValueError(f"{name!r} must have shape {shape}; got {got}")
    parts: dict[str, Any] = {name: tensors[name].to(like.theta) for name in PARTS}
    parts["widths"] = Widths.split(tensors["widths"].to(like.theta))
    parts["widths"].check()
    theta = like.theta.clone()
    for expert, head in zip(alive, tensors["heads"].to(theta).split(sizes), strict=True):
        theta[0, expert, experts.seen(expert)] = head.reshape(-1, experts.outputs)
    return like._replace(moments=unpack_triangle(tensors, like.moments.gram), theta=theta, **parts)
