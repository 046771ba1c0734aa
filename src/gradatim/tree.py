"""Functions on states. A state is a tensor, None, or a NamedTuple of states; the first axis of tensors is the task.

Source: the pure `(init, update)` pairs of Hessel et al. 2020, optax.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def tree_map(fn: Callable[..., Any], *states: Any) -> Any:
    """Apply `fn` to the tensors at the same place of every state, and return a state of the results.

    None stays None.

    Raises:
        ValueError: the states have different structures, or hold something else than tensors.

    Example:
        >>> import torch
        >>> from gradatim.tree import tree_map
        >>> tree_map(lambda a, b: a + b, torch.ones(2), torch.ones(2))
        tensor([2., 2.])
    """
    first = states[0]
    if any(type(state) is not type(first) for state in states[1:]):
        raise ValueError(f"states must have one structure; got {[type(s).__name__ for s in states]}")
    if first is None:
        return None
    if isinstance(first, tuple):
        return type(first)(*(tree_map(fn, *parts) for parts in zip(*states, strict=True)))
    if isinstance(first, Tensor):
        return fn(*states)
    raise ValueError(f"a state holds tensors, None and NamedTuples of them; got {type(first).__name__}")


def detach(state: Any) -> Any:
    """Return the state without its autograd graph, as `Greedy` hands it from step to step.

    Example:
        >>> import torch
        >>> from gradatim.tree import detach
        >>> detach(torch.ones(1, requires_grad=True)).requires_grad
        False
    """
    return tree_map(lambda t: t.detach(), state)


def ordinary(part: Tensor) -> Tensor:
    """Return a tensor of any shape that autograd can use, also where it was made in inference mode.

    Example:
        >>> import torch
        >>> from gradatim.tree import ordinary
        >>> with torch.inference_mode():
        ...     part = torch.ones(1)
        >>> ordinary(part).is_inference()
        False
    """
    return part.clone() if part.is_inference() else part


def check_state(state: Any) -> None:
    """Check that something is a state: a tensor or a NamedTuple.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from gradatim.tree import check_state
        >>> check_state("here")
        Traceback (most recent call last):
        ValueError: a state is what init, adapt or learn returned; got str: begin with init(n_tasks)
    """
    if not isinstance(state, Tensor) and not hasattr(state, "_fields"):
        raise ValueError(
            f"a state is what init, adapt or learn returned; got {type(state).__name__}: begin with init(n_tasks)"
        )


def where(condition: Tensor, if_true: Any, if_false: Any) -> Any:
    """Return a state that takes some tasks from one state and the others from a second one.

    Args:
        condition: boolean `[B]`, true for the tasks taken from `if_true`.
        if_true: a state of B tasks.
        if_false: a state of B tasks with the same structure and shapes.

    Example:
        >>> import torch
        >>> from gradatim.tree import where
        >>> where(torch.tensor([True, False]), torch.zeros(2, 1), torch.ones(2, 1))
        tensor([[0.],
                [1.]])
    """
    return tree_map(
        lambda a, b: torch.where(condition.view(-1, *[1] * (a.dim() - 1)), a, b), if_true, if_false
    )


def select(state: Any, index: Tensor) -> Any:
    """Return a state of K tasks, those of the state at int64 `index [K]`.

    Example:
        >>> import torch
        >>> from gradatim.tree import select
        >>> select(torch.tensor([5.0, 6.0, 7.0]), torch.tensor([2, 0]))
        tensor([7., 5.])
    """
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
    """Return the tensors of a state by dotted name, for a file. Their shapes `[B, ...]` stay.

    Example:
        >>> import torch
        >>> from typing import NamedTuple
        >>> from gradatim.tree import flatten
        >>> class Mean(NamedTuple):
        ...     total: torch.Tensor
        ...     count: torch.Tensor
        >>> sorted(flatten(Mean(torch.zeros(2, 3), torch.zeros(2))))
        ['state.count', 'state.total']
    """
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
    """Return a state from tensors by dotted name, the inverse of `flatten`.

    Args:
        like: a state of the same structure and widths, of any number of tasks. A width of 0 stands for one that grows
            with the rows seen: it fits any.
        tensors: tensors `[B, ...]` by name.
        prefix: the first part of the names.

    Raises:
        ValueError: a tensor is missing, or has another width than in `like`.

    Example:
        >>> import torch
        >>> from gradatim.tree import unflatten
        >>> unflatten(torch.zeros(1, 2), {"state": torch.ones(3, 2)}).shape
        torch.Size([3, 2])
    """
    if like is None:
        return None
    if isinstance(like, Tensor):
        if prefix not in tensors:
            raise ValueError(f"the saved state has no {prefix!r}; it holds {sorted(tensors)}")
        saved, expected = tensors[prefix].shape[1:], like.shape[1:]
        if len(saved) != len(expected) or any(b not in (0, a) for a, b in zip(saved, expected, strict=True)):
            raise ValueError(
                f"{prefix!r} must have shape [tasks, {', '.join(map(str, like.shape[1:]))}]; "
                f"got {list(tensors[prefix].shape)}: was it saved by another learner?"
            )
        return tensors[prefix]
    parts = (
        unflatten(part, tensors, f"{prefix}.{field}") for field, part in zip(like._fields, like, strict=True)
    )
    return type(like)(*parts)


def check_mergeable(states: Sequence[Any], template: Any = None) -> None:
    """Check that states have the same structure, and tensors of the same shapes `[B, ...]`.

    A width that is 0 in `template`, a state before any row, grows with the rows. It may differ.

    Raises:
        ValueError: no state, something else than a list of states, or a part that has another shape in one of them.

    Example:
        >>> import torch
        >>> from gradatim.tree import check_mergeable
        >>> check_mergeable([torch.ones(1, 2), torch.ones(1, 3)])
        Traceback (most recent call last):
        ValueError: merging needs states of one learner and as many tasks; state is [1, 2] in the first ...
    """
    if not isinstance(states, list | tuple) or hasattr(states, "_fields"):
        raise ValueError(
            f"merging needs a list of at least one state; got one {type(states).__name__}: put it in []"
        )
    if not states:
        raise ValueError("merging needs at least one state; got none")
    for state in states:
        check_state(state)
    empty = flatten(template)
    first, *others = (
        {name: _fixed_shape(part, empty.get(name)) for name, part in flatten(state).items()}
        for state in states
    )
    for shapes in others:
        for name in first | shapes:
            if first.get(name) != shapes.get(name):
                raise ValueError(
                    f"merging needs states of one learner and as many tasks; {name} is "
                    f"{first.get(name, 'missing')} in the first and {shapes.get(name, 'missing')} in another"
                )


def _fixed_shape(part: Tensor, empty: Tensor | None) -> list[int]:
    """Return a tensor's shape, with 0 for a width that is 0 before any row."""
    if empty is None or empty.dim() != part.dim():
        return list(part.shape)
    return [0 if start == 0 else width for width, start in zip(part.shape, empty.shape, strict=True)]
