"""Reprogramming of any module from tensors to logits: numbers and images.

Source: Elsayed et al. 2019 (adversarial reprogramming); Hu et al. 2022 (low rank).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from .cells import Reprogramming


def place(X: Tensor, shape: tuple[int, ...], frame: int = 0) -> tuple[Tensor, Tensor]:
    """Return x in the shape of a model's input, `[N, *shape]`, and where it stands, bool `[*shape]`; zeros around.

    Args:
        X: images `[N, H, W]` or `[N, C, H, W]`, or rows `[N, D]`.
        shape: of the input. `(C, H, W)`: images are resized to what the frame leaves, columns of rows become a grid of
            squares there. `(D,)`: flat x comes after the first `frame` numbers.
        frame: pixels, or numbers of a vector, that x leaves free at each side.

    Raises:
        ValueError: x does not fit.

    Example:
        >>> import torch
        >>> from gradatim.prompting.modules import place
        >>> placed, stands = place(torch.ones(2, 4), (1, 8, 8), frame=2)
        >>> placed.shape, int(stands.sum())
        (torch.Size([2, 1, 8, 8]), 16)
    """
    if len(shape) == 1:
        return _beside(X.flatten(1), shape[0], frame)
    if len(shape) != 3:
        raise ValueError(
            f"an input is a vector (D,) or an image (C, H, W); got {shape}: reshape it in the model"
        )
    channels, height, width = shape
    inner = (height - 2 * frame, width - 2 * frame)
    if min(inner) < 1:
        raise ValueError(
            f"a frame of {frame} leaves nothing of {height} x {width} pixels: give a smaller one"
        )
    X = _grid(X, inner) if X.ndim == 2 else X[:, None] if X.ndim == 3 else X
    if X.ndim != 4 or X.shape[1] not in (1, channels):
        raise ValueError(
            f"images come as [N, H, W] or [N, {channels}, H, W], tables as [N, D]; got "
            f"[N, {str([*X.shape[1:]])[1:-1]}]: reshape them"
        )
    if tuple(X.shape[2:]) != inner:
        X = F.interpolate(X, inner, mode="bilinear", antialias=True)
    placed = X.new_zeros(len(X), *shape)
    stands = torch.zeros(shape, dtype=torch.bool, device=X.device)
    inside = (slice(None), slice(frame, frame + inner[0]), slice(frame, frame + inner[1]))
    placed[:, *inside], stands[inside] = X, True
    return placed, stands


def _beside(X: Tensor, width: int, frame: int) -> tuple[Tensor, Tensor]:
    """Return rows `[N, D]` after the first `frame` numbers of a vector, and where they stand."""
    if X.shape[1] + 2 * frame > width:
        raise ValueError(
            f"x has {X.shape[1]} numbers, and a frame of {frame} at both sides; the model takes {width}: choose a "
            "parametric operator, fewer columns, or a smaller frame"
        )
    inside = slice(frame, frame + X.shape[1])
    placed, stands = X.new_zeros(len(X), width), torch.zeros(width, dtype=torch.bool, device=X.device)
    placed[:, inside], stands[inside] = X, True
    return placed, stands


def _grid(X: Tensor, inner: tuple[int, int]) -> Tensor:
    """Return columns `[N, D]` as squares of equal pixels, `[N, 1, *inner]`, row by row."""
    side = math.ceil(X.shape[1] ** 0.5)
    if side > min(inner):
        raise ValueError(
            f"{X.shape[1]} columns do not fit into {inner[0]} x {inner[1]} pixels: use a parametric operator"
        )
    down, across = inner[0] // side, inner[1] // side
    squares = F.pad(X, (0, side * side - X.shape[1])).reshape(len(X), 1, side, side)
    squares = squares.repeat_interleave(down, 2).repeat_interleave(across, 3)
    return F.pad(squares, (0, inner[1] - side * across, 0, inner[0] - side * down))


class ModuleAdapter:
    """A frozen module whose input, hidden layer or output is met.

    Args:
        model: takes `[N, *shape]`, gives logits `[N, S]`.
        how: the cell.
        shape: of the input.
        x_shape: of a row of the new task.
        seed: of where a low-rank map starts.

    Raises:
        ValueError: rows or sizes that do not fit the model; a model whose outputs are no logits.
    """

    kind, centred = "module", False

    def __init__(
        self,
        model: nn.Module,
        how: Reprogramming,
        shape: tuple[int, ...],
        x_shape: tuple[int, ...],
        seed: int = 0,
    ) -> None:
        self.model, self.how, self.shape, self.x_shape = model, how, shape, x_shape
        example = next(model.parameters(), torch.zeros(()))
        self.kept: dict[str, Tensor] = {}
        self.delta: dict[str, Tensor] = {}
        self._zeros = lambda *size: torch.zeros(*size, dtype=example.dtype, device=example.device)
        self._met = _layer(model, how.layer) if how.location == "hidden" else None
        with torch.no_grad():
            empty = self._zeros(2, *x_shape)
            seen: list[Tensor] = []
            hook = self._met.register_forward_hook(lambda *met: seen.append(met[-1])) if self._met else None
            try:
                outputs = model(self._placed(empty))
            except (RuntimeError, TypeError) as error:
                raise ValueError(
                    f"the model does not take input of shape {list(shape)}: give shape=, that of one row of its own "
                    f"input ({str(error).splitlines()[0]})"
                ) from error
            finally:
                if hook is not None:
                    hook.remove()
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise ValueError("a model to reprogram gives logits [N, outputs]: wrap it in a module that does")
        self.n_outputs = self.n_features = outputs.shape[1]
        generator = torch.Generator().manual_seed(seed)
        self._start(seen[0] if seen else outputs, generator)

    def _placed(self, X: Tensor) -> Tensor:
        """Return x `[N, ...]` as input before anything is added; of a parametric operator zeros."""
        if self.how.operator == "parametric" and self.how.location == "input":
            return self._zeros(len(X), *self.shape)
        frame = 0 if self.how.operator == "replacement" else self.how.frame
        placed, self.stands = place(X, self.shape, frame)
        return placed

    def _start(self, met: Tensor, generator: torch.Generator) -> None:
        """Make what is learnt: zero, but for the first factor of a low-rank map."""
        how = self.how
        if how.configuration == "fixed":
            return
        size = self.shape if how.location == "input" else tuple(met.shape[1:])
        if how.operator == "parametric":
            wide = math.prod(self.x_shape) if how.location == "input" else size[0]
            tall = math.prod(size) if how.location == "input" else size[0]
            self._linear(wide, tall, generator)
            if how.location == "input":
                self.delta["shift"] = self._zeros(*size)
        elif how.location != "input" or how.operator == "additive":
            self.delta["shift"] = self._zeros(*size)
        else:
            self.free = _border(size, how.frame) if how.operator == "replacement" else ~self.stands
            if not self.free.any():
                raise ValueError(
                    f"x fills the whole input {list(size)}, and nothing stands beside it: give frame=, or use additive"
                )
            self.delta["beside"] = self._zeros(int(self.free.sum()))
        for part in self.delta.values():
            part.requires_grad_()

    def _linear(self, wide: int, tall: int, generator: torch.Generator) -> None:
        rank = self.how.rank
        if rank == 0:
            self.delta["map"] = self._zeros(tall, wide)
            return
        start = torch.randn(rank, wide, generator=generator) / wide**0.5
        self.delta["down"] = start.to(self._zeros(1))
        self.delta["up"] = self._zeros(tall, rank)

    def encode(self, X: Any) -> Tensor:
        """Return rows of any container as a tensor of the model's type, `[N, ...]`."""
        return as_rows(X).to(self._zeros(1))

    def check(self, rows: Tensor) -> None:
        """Check that rows have the shape that was learnt.

        Raises:
            ValueError: another shape.
        """
        if tuple(rows.shape[1:]) != self.x_shape:
            raise ValueError(
                f"rows have shape {list(self.x_shape)}, as in training; got {list(rows.shape[1:])}"
            )

    def take(self, rows: Tensor, index: Tensor) -> Tensor:
        """Return some rows `[n, ...]`."""
        return rows[index]

    def outputs(self, rows: Tensor, without: Tensor | None = None) -> Tensor:
        """Return logits of the model's own outputs `[n, S]`."""
        if self.how.location == "hidden" and self._met is not None:
            hook = self._met.register_forward_hook(lambda *met: self._changed(met[-1]))
            try:
                return self.model(self._input(rows))
            finally:
                hook.remove()
        outputs = self.model(self._input(rows))
        return self._changed(outputs) if self.how.location == "output" else outputs

    features = outputs

    def _input(self, rows: Tensor) -> Tensor:
        placed = self._placed(rows)
        if self.how.location != "input" or self.how.configuration == "fixed":
            return placed
        if self.how.operator == "additive":
            return placed + self.delta["shift"]
        if self.how.operator == "parametric":
            return placed + self.delta["shift"] + self._mapped(rows.flatten(1)).reshape(placed.shape)
        beside = torch.zeros_like(placed[0]).masked_scatter(self.free.to(placed.device), self.delta["beside"])
        return torch.where(self.free.to(placed.device), beside, placed)

    def _changed(self, met: Tensor) -> Tensor:
        """Return a hidden layer's or the model's output `[n, ...]`, changed."""
        if self.how.operator == "additive":
            return met + self.delta["shift"]
        return met + self._mapped(met.movedim(1, -1)).movedim(-1, 1)

    def _mapped(self, x: Tensor) -> Tensor:
        if self.how.rank == 0:
            return F.linear(x, self.delta["map"])
        return F.linear(F.linear(x, self.delta["down"]), self.delta["up"])

    def plain(self, rows: Tensor) -> Tensor:
        """Return what the last linear layer reads `[n, F]` of x as it is: features for a linear probe."""
        linear = [part for part in self.model.modules() if isinstance(part, nn.Linear)]
        if not linear:
            return self.model(self._placed(rows))
        seen: list[Tensor] = []
        hook = linear[-1].register_forward_pre_hook(lambda m, given: seen.append(given[0]))
        try:
            self.model(self._placed(rows))
        finally:
            hook.remove()
        return seen[-1].flatten(1)


def as_rows(X: Any) -> Tensor:
    """Return numbers of any container as a tensor `[N, ...]`.

    Raises:
        ValueError: no numbers, no rows, numbers that are missing or infinite.

    Example:
        >>> from gradatim.prompting.modules import as_rows
        >>> as_rows([[1, 2], [3, 4]]).shape
        torch.Size([2, 2])
    """
    try:
        rows = X if isinstance(X, Tensor) else torch.as_tensor(np.asarray(X, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X must be numbers, one row for each answer; {error}: encode words as numbers"
        ) from error
    if rows.ndim < 2 or not len(rows):
        raise ValueError(f"X must have rows, [N, ...]; got shape {list(rows.shape)}")
    if not torch.isfinite(rows).all():
        row = int((~torch.isfinite(rows.flatten(1))).any(1).nonzero()[0])
        raise ValueError(f"X must be finite; row {row} holds a missing or infinite number: fill or drop it")
    return rows


def _layer(model: nn.Module, name: str) -> nn.Module:
    """Return a submodule by name, or the first that has weights of its own."""
    parts = dict(model.named_modules())
    if name:
        if name not in parts:
            known = ", ".join(part for part in parts if part)
            raise ValueError(f"the model has no layer {name!r}: it has {known or 'none'}")
        return parts[name]
    for part in parts.values():
        if part is not model and next(part.parameters(recurse=False), None) is not None:
            return part
    raise ValueError("the model has no hidden layer with weights: choose location input or output")


def _border(shape: tuple[int, ...], frame: int) -> Tensor:
    """Return where the outer numbers of an input stand, bool `[*shape]`."""
    border = torch.ones(shape, dtype=torch.bool)
    sides = shape if len(shape) == 1 else shape[1:]
    if any(side <= 2 * frame for side in sides):
        raise ValueError(f"a frame of {frame} replaces all of {list(shape)}: give a smaller one")
    inner = tuple(slice(frame, side - frame) for side in sides)
    border[inner if len(shape) == 1 else (slice(None), *inner)] = False
    return border
