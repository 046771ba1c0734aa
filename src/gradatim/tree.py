"""States are values: a tensor, or a NamedTuple of tensors, tasks first. What can be done to any of them.

Source: the pure `(init, update)` pairs of Hessel et al. 2020, optax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def tree_map(fn: Callable[..., Any], *states: Any) -> Any:
    """Apply fn to the tensors that stand at the same place in every state, and return a state of the results.

    A state is a tensor, None, or a (possibly nested) NamedTuple of states. None stays None.

    Raises:
        ValueError: the states have different structures, or hold something else.

    Example:
        >>> tree_map(lambda a, b: a + b, torch.ones(2), torch.ones(2))
        tensor([2., 2.])
    """
    first = states[0]
    if any(type(other) is not type(first) for other in states[1:]):
        raise ValueError(f"states must have one structure; got {[type(s).__name__ for s in states]}")
    if first is None:
        return None
    if isinstance(first, tuple):
        return type(first)(*(tree_map(fn, *parts) for parts in zip(*states, strict=True)))
    if isinstance(first, Tensor):
        return fn(*states)
    raise ValueError(f"a state holds tensors, None and NamedTuples of them; got {type(first).__name__}")


def detach(state: Any) -> Any:
    """Return the state cut off from the graph that made it: what `Greedy` hands from step to step."""
    return tree_map(lambda t: t.detach(), state)


def where(chosen: Tensor, one: Any, other: Any) -> Any:
    """Return the tasks of state `one` that are `chosen [B]`, and of `other` the rest."""
    return tree_map(lambda a, b: torch.where(chosen.view(-1, *[1] * (a.dim() - 1)), a, b), one, other)


def select(state: Any, index: Tensor) -> Any:
    """Return the tasks of a state chosen by int64 `index [K]`."""
    return tree_map(lambda t: t[index], state)


def concatenate(states: Sequence[Any]) -> Any:
    """Return one state of the tasks of all the states, in order: each tensor `[B1 + B2 + ..., ...]`.

    Example:
        >>> import torch
        >>> from gradatim.tree import concatenate
        >>> concatenate([torch.ones(1, 2), torch.zeros(2, 2)]).shape
        torch.Size([3, 2])
    """
    return tree_map(lambda *parts: torch.cat(parts), *states)


def flatten(state: Any, prefix: str = "state") -> dict[str, Tensor]:
    """Return the tensors of a state by dotted name, for a file."""
    if state is None:
        return {}
    if isinstance(state, Tensor):
        return {prefix: state}
    return {
        name: tensor
        for field, part in zip(state._fields, state, strict=True)
        for name, tensor in flatten(part, f"{prefix}.{field}").items()
    }


def unflatten(like: Any, tensors: dict[str, Tensor], prefix: str = "state") -> Any:
    """Return a state of the structure of `like` from tensors by dotted name, the inverse of `flatten`.

    A width of 0 in `like` is one that grows with the rows seen: it may have become any.

    Raises:
        ValueError: a tensor is missing, or has another width than in `like`.
    """
    if like is None:
        return None
    if isinstance(like, Tensor):
        if prefix not in tensors:
            raise ValueError(f"the saved state has no {prefix!r}; it holds {sorted(tensors)}")
        came, wanted = tensors[prefix].shape[1:], like.shape[1:]
        if len(came) != len(wanted) or any(b not in (0, a) for a, b in zip(came, wanted, strict=True)):
            raise ValueError(
                f"{prefix!r} must have shape [tasks, {', '.join(map(str, like.shape[1:]))}]; "
                f"got {list(tensors[prefix].shape)}: was it saved by another learner?"
            )
        return tensors[prefix]
    parts = (
        unflatten(part, tensors, f"{prefix}.{field}") for field, part in zip(like._fields, like, strict=True)
    )
    return type(like)(*parts)
