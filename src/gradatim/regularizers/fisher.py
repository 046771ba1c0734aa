"""The empirical Fisher information of a network: the mean over rows of the squared gradients of each row's loss.

Source: Martens 2020, section 5 (empirical Fisher); Sharma et al. 2024 (arXiv 2406.14005), its released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK = 2**25
"""Numbers of per-row gradients that are held at a time."""


class _Scored(nn.Module):
    """A model and its loss as one module, so that its weights can be given with a call."""

    def __init__(self, model: nn.Module, loss: Callable[[Any, Any], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        """Return the loss of a batch of one row, a scalar."""
        value = self.loss(self.model, batch)
        if value.numel() != 1:
            raise ValueError(
                f"the loss of a batch of one row must be one number; got {tuple(value.shape)}: return a scalar, or a "
                "number for each row"
            )
        return value.reshape(())


def empirical_fisher(
    model: nn.Module, loss: Callable[[Any, Any], Tensor], batches: Iterable[Any]
) -> tuple[dict[str, Tensor], int, str]:
    """Return the empirical Fisher of each parameter, shaped as it, the rows, and how their gradients were taken.

    Rows are scored one by one, in eval mode: all at once with `torch.func.vmap` where the model allows it ("vmap"), as
    batches of one row where it does not ("rows"). Weights, their `grad` and the mode stay as they were.

    Args:
        model: any module.
        loss: `loss(model, batch)`, a scalar or `[B]`. It is called with batches of one row.
        batches: tensors whose first axis is the row, or tuples, lists or dicts of such; the rest is passed on as it is.

    Raises:
        ValueError: there is no row, no number per row, or a loss or gradient that is not finite.

    Example:
        >>> import torch
        >>> from gradatim.regularizers.fisher import empirical_fisher
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> fisher, rows, _ = empirical_fisher(model, lambda m, x: m(x).sum(), [torch.tensor([[1.0], [3.0]])])
        >>> float(fisher["weight"]), rows  # gradients are 1 and 3
        (5.0, 2)
    """
    modes = {module: module.training for module in model.modules()}
    scored = _Scored(model, loss)
    weights = {name: p.detach() for name, p in scored.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in weights.items()}
    rows, way = 0, "vmap" if sum(p.numel() for p in weights.values()) <= CHUNK // 2 else "rows"
    try:
        model.eval()
        for batch in batches:
            n = row_count(batch)
            if way == "vmap":
                try:
                    squares = _at_once(scored, weights, batch, n)
                except (
                    Exception
                ):  # of many kinds where vmap does not work; what is wrong itself is raised below
                    way = "rows"
            if way == "rows":
                squares = _one_by_one(scored, weights, batch, n)
            for name, square in squares.items():
                total[name] += square
            _check(squares, rows, n, scored, batch)
            rows += n
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not rows:
        raise ValueError("batches hold no row: give at least one batch of pretraining data")
    return {name.removeprefix("model."): value / rows for name, value in total.items()}, rows, way


def _at_once(scored: nn.Module, weights: dict[str, Tensor], batch: Any, n: int) -> dict[str, Tensor]:
    """Return the sum over rows of squared gradients, by vmap."""

    def one(given: dict[str, Tensor], index: Tensor) -> Tensor:
        return functional_call(scored, given, (some_rows(batch, index),))

    size = max(CHUNK // max(sum(p.numel() for p in weights.values()), 1), 1)
    gradients = vmap(grad(one), in_dims=(None, 0), randomness="different")
    squares: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in weights.items()}
    with sdpa_kernel(
        SDPBackend.MATH
    ):  # the fused one has no batched form on CPU, and is run row by row there
        for part in torch.arange(n).split(size):
            for name, value in gradients(weights, part[:, None].to(_device(batch))).items():
                squares[name] += value.square().sum(0)
    return squares


def _one_by_one(scored: nn.Module, weights: dict[str, Tensor], batch: Any, n: int) -> dict[str, Tensor]:
    """Return the sum over rows of squared gradients, by a pass for each row."""
    squares = {name: torch.zeros_like(p) for name, p in weights.items()}
    given = {name: p.clone().requires_grad_() for name, p in weights.items()}
    with torch.enable_grad():
        for row in range(n):
            value = functional_call(scored, given, (some_rows(batch, slice(row, row + 1)),))
            if not value.requires_grad:
                raise ValueError("the loss does not depend on the model's weights: compute it from the model")
            found = torch.autograd.grad(value, [*given.values()], allow_unused=True)
            for name, gradient in zip(given, found, strict=True):
                if gradient is not None:
                    squares[name] += gradient.square()
    return squares


def _check(squares: dict[str, Tensor], before: int, n: int, scored: nn.Module, batch: Any) -> None:
    """Refuse losses and gradients that are not finite."""
    if all(bool(square.isfinite().all()) for square in squares.values()):
        return
    with torch.no_grad():
        losses = [float(scored(some_rows(batch, slice(row, row + 1)))) for row in range(n)]
    row, value = next(((r, v) for r, v in enumerate(losses) if v - v != 0), (0, losses[0]))
    raise ValueError(
        f"each row needs a finite loss and gradient; the loss of row {before + row} is {value}: leave such rows out "
        "(a row without a word to predict has none), or lower the scale of the loss"
    )


def row_count(batch: Any) -> int:
    """Return how many rows a batch has.

    Raises:
        ValueError: it holds no tensor, no row, or tensors of different numbers of rows.
    """
    sizes = {len(leaf) if leaf.ndim else 0 for leaf in _leaves(batch)}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"a batch is a tensor, or a tuple, list or dict of tensors with the same number of rows, at least one; got "
            f"{type(batch).__name__} with rows {sorted(sizes)}: give [B, ...] tensors"
        )
    return sizes.pop()


def _leaves(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch]
    values = (
        batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    )
    return [leaf for value in values for leaf in _leaves(value)]


def some_rows(batch: Any, index: Any) -> Any:
    """Return some rows of a batch: each tensor in it at an index, the rest as it is."""
    if isinstance(batch, Tensor):
        return batch[index]
    if isinstance(batch, Mapping):
        return {key: some_rows(value, index) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        values = [some_rows(value, index) for value in batch]
        return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
    return batch


def _device(batch: Any) -> torch.device:
    return _leaves(batch)[0].device
