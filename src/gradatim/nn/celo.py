"""Celo's update: an LSTM schedules a small network that moves every coordinate, given averages of its gradients.

Source: Moudgil et al. 2025, section 3 and appendix; Metz et al. 2022 (2211.09760), whose features it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DECAYS = (0.9, 0.99, 0.999)
"""Of the averages of gradients, and of their factored squares."""

SQUARES = 0.999
"""The decay of the average of squares."""

STAGES = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
"""Shares of all steps at which the features of time turn."""

TIMES = 10
"""How many running means of the loss are kept; their times grow from 10 steps to all of them."""

STEP = 0.001
NEVER = 999999999999.0
_BLOCKS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)
"""Widths of the blocks of features that the small network reads."""


class CeloState(NamedTuple):
    """What Celo remembers of B tasks, whose parameters are T tensors of S numbers together.

    Fields: `momenta [B, S, 3]`; `squares [B, S]`; `factors [B, F, 3]`: means of squares over each of two axes;
    `hidden [B, T, W]` and `cell [B, T, W]` of the LSTM; `means [B, 10]` of the loss and their `lowest [B, 10]`;
    `steps [B]`: how many were taken.
    """

    momenta: Tensor
    squares: Tensor
    factors: Tensor
    hidden: Tensor
    cell: Tensor
    means: Tensor
    lowest: Tensor
    steps: Tensor


class CeloRule(nn.Module):
    """`theta = theta - .001 a_T scale_T direction`: a_T of an LSTM for each tensor, directions of one small network.

    - The LSTM sees the share of steps done and how the loss fell. One vector for each tensor, mixed by a maximum.
    - The network sees for each coordinate its value, gradient, averages of it and of its squares, and the means of
      squares over the rows and columns of its tensor. Each is divided by its root mean square over the tensor.
    - `scale_T` is the root mean square of the tensor. So a tensor of zeros hardly moves.

    Without weights of the small network (Celo-Adam) the direction is Adam's, and the scale is 1.

    Args:
        weights: by the names of the published file, `PART|MODULE|NAME`.
        shapes: of the tensors, axes as torch has them: the first is the output.
        total: how many steps training will take.

    Raises:
        ValueError: weights that are missing or of other shapes, no tensor, fewer than 2 steps.

    Source: Moudgil et al. 2025, section 3.
    """

    decays: Tensor

    def __init__(self, weights: Mapping[str, Tensor], shapes: Sequence[tuple[int, ...]], total: int) -> None:
        super().__init__()
        if not shapes or total < 2:
            raise ValueError(
                f"Celo needs a tensor to move and at least 2 steps; got {len(shapes)} tensors, {total} steps"
            )
        self.shapes = [tuple(shape) or (1,) for shape in shapes]
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]
        self.axes = [factored(shape) for shape in self.shapes]
        self.total = total
        self.adam = not any(name.startswith("ff_mod_stack") for name in weights)
        for name, shape in self.expected().items():
            found = tuple(weights[name].shape) if name in weights else None
            if found != shape:
                raise ValueError(
                    f"weights of Celo hold {name} of shape {shape}; got "
                    f"{'none' if found is None else found}: give the file as it was published"
                )
            self.register_buffer(_plain(name), weights[name].detach().clone())
        times = torch.logspace(1, torch.tensor(float(total)).log10().item(), TIMES, dtype=torch.float64)
        self.register_buffer("decays", (-1 / times).exp().to(torch.float32))

    def expected(self) -> dict[str, tuple[int, ...]]:
        """Return the names and shapes of the weights."""
        width, seen = 64, len(STAGES) + TIMES - 1
        rnn = "rnn_params|"
        shapes: dict[str, tuple[int, ...]] = {
            "lstm_init_state|hidden": (1, width),
            "lstm_init_state|cell": (1, width),
            f"{rnn}linear_1|b": (width,),
            f"{rnn}linear_1|w": (seen, width),
            f"{rnn}linear_2|b": (width,),
            f"{rnn}linear_2|w": (seen, width),
            f"{rnn}rnn/linear|b": (4 * width,),
            f"{rnn}rnn/linear|w": (2 * width, 4 * width),
            f"{rnn}step_size|b": (1,),
            f"{rnn}step_size|w": (width, 1),
        }
        if not self.adam:
            stack = "ff_mod_stack|~|"
            shapes |= {f"{stack}w0__{i}": (1, n, 4) for i, n in enumerate(_BLOCKS)}
            shapes |= {f"{stack}w1": (1, 4, 4), f"{stack}w2": (1, 4, 3)}
            shapes |= {f"{stack}b0": (1, 4), f"{stack}b1": (1, 4), f"{stack}b2": (1, 3)}
        return shapes

    def init(self, n_tasks: int) -> CeloState:
        """Return the state of B tasks before any step."""
        none = self.decays.new_zeros(n_tasks)
        tensors, total = len(self.shapes), sum(self.sizes)
        means = none[:, None].expand(-1, TIMES)
        hidden, cell = (
            self._of(f"lstm_init_state|{part}").expand(n_tasks, tensors, -1) for part in ("hidden", "cell")
        )
        return CeloState(
            none.new_zeros(n_tasks, total, len(DECAYS)),
            none.new_zeros(n_tasks, total),
            none.new_zeros(n_tasks, sum(self._factor_sizes()), len(DECAYS)),
            hidden,
            cell,
            means,
            torch.full_like(means, NEVER),
            none,
        )

    def forward(
        self, state: CeloState, theta: Tensor, gradient: Tensor, loss: Tensor
    ) -> tuple[Tensor, CeloState]:
        """Return the parameters `[B, S]` after one step, and the state.

        Args:
            state: before the step.
            theta: `[B, S]`, the tensors one after the other.
            gradient: `[B, S]`.
            loss: `[B]`.
        """
        gradient = gradient.clamp(-1000.0, 1000.0)
        means, lowest, told = self._losses(state, loss)
        done = state.steps[:, None] / self.total - self.decays.new_tensor(STAGES)
        sizes, hidden, cell = self._schedule(torch.cat([(10 * done).tanh(), told], dim=1), state)
        decays = gradient.new_tensor(DECAYS)
        momenta = decays * state.momenta + (1 - decays) * gradient[..., None]
        squares = SQUARES * state.squares + (1 - SQUARES) * gradient.square()
        moved, factors = [], []
        parts = (part.split(self.sizes, dim=1) for part in (theta, gradient, momenta, squares))
        old = state.factors.split(self._factor_sizes(), dim=1)
        for at, (p, g, m, v) in enumerate(zip(*parts, strict=True)):
            shape, size = self.shapes[at], sizes[:, at, None]
            if self.adam:
                count = state.steps[:, None] + 1
                first = m[..., 0] / (1 - DECAYS[0] ** count)
                second = (v / (1 - SQUARES**count) + 1e-10).sqrt() + 1e-8
                moved.append(p - STEP * size * first / second)
                factors.append(old[at])
                continue
            new, rows, columns = self._factors(old[at], g.unflatten(1, shape), self.axes[at])
            factors.append(new)
            p, g, v = p.unflatten(1, shape), g.unflatten(1, shape), v.unflatten(1, shape)
            step = self._direction(p, g, m.unflatten(1, shape), v, rows, columns, self.axes[at]).flatten(1)
            scale = (p.flatten(1).square().mean(1, keepdim=True) + 1e-9).sqrt()
            moved.append(p.flatten(1) - STEP * size * scale * step)
        after = CeloState(
            momenta, squares, torch.cat(factors, dim=1), hidden, cell, means, lowest, state.steps + 1
        )
        return torch.cat(moved, dim=1), after

    def _of(self, name: str) -> Tensor:
        return getattr(self, _plain(name))

    def _factor_sizes(self) -> list[int]:
        """Return how many means of squares are kept of each tensor."""
        return [
            size if axes is None else size // shape[axes[0]] + size // shape[axes[1]]
            for size, shape, axes in zip(self.sizes, self.shapes, self.axes, strict=True)
        ]

    def _losses(self, state: CeloState, loss: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the running means of the loss, their lowest values, and what the LSTM is told of them, `[B, 9]`."""
        steps = state.steps[:, None]
        known = 1 - self.decays ** (steps + 1)
        highest = torch.where(steps == 0, loss[:, None], (state.means / known).amax(1, keepdim=True))
        loss = torch.minimum(2 * highest.abs(), loss[:, None])
        means = state.means * self.decays + loss * (1 - self.decays)
        now = means / known
        lowest = torch.minimum(state.lowest, now)
        width = (now[:, 1:] - lowest[:, :-1]).clamp(min=1e-8)
        told = ((now - lowest)[:, :-1] / width - 1).clamp(-1, 1)
        return means, lowest, torch.where(steps + 1 <= 2, 0.0, told)

    def _schedule(self, told: Tensor, state: CeloState) -> tuple[Tensor, Tensor, Tensor]:
        """Return the factor of each tensor's step `[B, T]`, and the LSTM's state."""
        x = told[:, None].expand(-1, len(self.shapes), -1)
        x = self._linear("linear_2", x) + self._linear("linear_1", x).relu().amax(1, keepdim=True)
        gates = self._linear("rnn/linear", torch.cat([x, state.hidden], dim=-1))
        put, new, keep, show = gates.chunk(4, dim=-1)
        cell = (keep + 1).sigmoid() * state.cell + put.sigmoid() * new.tanh()
        hidden = show.sigmoid() * cell.tanh()
        return 0.1 * self._linear("step_size", hidden)[..., 0].exp(), hidden, cell

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self._of(f"rnn_params|{name}|w") + self._of(f"rnn_params|{name}|b")

    def _factors(
        self, old: Tensor, gradient: Tensor, axes: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return means of squares as they are kept, and spread over the tensor: by rows and by columns."""
        decays = gradient.new_tensor(DECAYS)
        square = gradient.square()[..., None] + 1e-30
        if axes is None:
            new = decays * old + (1 - decays) * square
            return new, new, new
        means = [
            square.mean(axis + 1, keepdim=True) for axis in axes[::-1]
        ]  # over the larger axis, over the other
        flat = torch.cat([part.flatten(1, -2) for part in means], dim=1)
        new = decays * old + (1 - decays) * flat
        parts = new.split([part.flatten(1, -2).shape[1] for part in means], dim=1)
        rows, columns = (part.reshape(*mean.shape[:-1], -1) for part, mean in zip(parts, means, strict=True))
        return new, rows, columns

    def _direction(
        self,
        p: Tensor,
        g: Tensor,
        m: Tensor,
        v: Tensor,
        rows: Tensor,
        columns: Tensor,
        axes: tuple[int, int] | None,
    ) -> Tensor:
        """Return how far each coordinate of one tensor moves, before scales; `m` and the factors end in 3 decays."""
        v, g1 = v[..., None], g[..., None]
        if axes is None:
            whitened = g1 * _inverse_root(rows + 1e-9)
            last = m * rows**-0.5
        else:
            level = rows.mean(axes[0] + 1, keepdim=True)
            both = _inverse_root(rows / (level + 1e-9)) * _inverse_root(columns)
            whitened, last = g1 * both, m * both
        root = (v + 1e-6).rsqrt()
        rows, columns = rows.expand_as(m), columns.expand_as(m)
        blocks = [g1, g1.clamp(-0.1, 0.1), p[..., None], m, v, m * root, root, whitened, g1 * root]
        blocks += [rows, columns, (rows + 1e-8).rsqrt(), (columns + 1e-8).rsqrt(), last]
        axis = tuple(range(1, p.dim()))
        hidden = self._of("ff_mod_stack|~|b0")[0]
        for at, block in enumerate(blocks):
            block = block * (1e-5 + block.square().mean(axis, keepdim=True)).rsqrt()
            hidden = hidden + block @ self._of(f"ff_mod_stack|~|w0__{at}")[0]
        for layer in (1, 2):
            hidden = (
                hidden.relu() @ self._of(f"ff_mod_stack|~|w{layer}")[0]
                + self._of(f"ff_mod_stack|~|b{layer}")[0]
            )
        return hidden[..., 0] * (STEP * hidden[..., 1]).exp()


def factored(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the second largest axis of a tensor and the largest, None where it has one axis.

    Of equal axes the first counts as the larger: torch has the output first, the published weights have it last.

    Example:
        >>> from gradatim.nn.celo import factored
        >>> factored((64, 3, 5, 5)), factored((8, 8)), factored((8,))
        ((2, 0), (1, 0), None)
    """
    if len(shape) < 2:
        return None
    order = sorted(range(len(shape)), key=lambda axis: (shape[axis], -axis))
    return order[-2], order[-1]


def _inverse_root(x: Tensor) -> Tensor:
    return x.clamp(min=1e-9).rsqrt()


def _plain(name: str) -> str:
    return name.replace("|", "_").replace("/", "_").replace("~", "")
