"""Sine curves, with the posterior over the family as the oracle where there is noise.

Source: Finn, Abbeel, Levine 2017, section 5.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..family import TaskFamily
from ..likelihood import SquaredError
from .sampling import check_amount, check_count, check_rows, check_sample
from .simulators import _task

if TYPE_CHECKING:
    from torch import Tensor

    from ..batch import Task

_AMPLITUDES = (0.1, 5.0)
_GRID = (256, 512)
"""Amplitudes and phases of the grid that the oracle integrates over. With twice as many its error changes by 1e-4 of
itself at a noise of .3 and 40 rows."""

_CHUNK = 32


@dataclass(frozen=True)
class Sinusoids(TaskFamily):
    """Sine curves: `y = amplitude sin(frequency x - phase) + noise_std * e`, `e ~ N(0, 1)`.

    `amplitude ~ U(0.1, 5)` and `phase ~ U(0, pi)` for each task, `x ~ U(-5, 5)`. The frequency is 1, or uniform in
    `frequencies` for each task. With one frequency tasks are linear in sin x and cos x; with a range they are not
    linear in any few functions of x.

    Shapes: x `[B, N, 1]`, y `[B, N, 1]`; `truth = amplitude sin(frequency x - phase)` at the query `[B, Nq, 1]`.

    Fields: `noise_std`: standard deviation of the noise on y; `frequencies`: the lowest and the highest frequency.

    Raises:
        ValueError: noise_std negative, frequencies not positive or falling, impossible rows.

    Example:
        >>> import torch
        >>> from gradatim.families import Sinusoids
        >>> task = Sinusoids(support_rows=10).sample(16, torch.Generator().manual_seed(0))
        >>> task.support.x.shape, bool(task.support.y.abs().max() <= 5)
        (torch.Size([16, 10, 1]), True)

    Source: Finn, Abbeel, Levine 2017, section 5.1; hidden frequencies are this project's own.
    """

    noise_std: float = 0.0
    frequencies: tuple[float, float] = (1.0, 1.0)

    x_dim = 1
    likelihood = SquaredError(1)

    def __post_init__(self) -> None:
        check_rows(self)
        check_amount("noise_std", self.noise_std, above=0, inclusive=True)
        for frequency in self.frequencies:
            check_amount("frequencies", frequency, above=0)
        if self.frequencies[0] > self.frequencies[1]:
            raise ValueError(f"frequencies go from the lowest to the highest; got {self.frequencies}")

    @property
    def one_frequency(self) -> bool:
        """Return whether all tasks have the same frequency."""
        return self.frequencies[0] == self.frequencies[1]

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32, x `[B, N, 1]`, y `[B, N, 1]`.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        low, high = _AMPLITUDES
        amplitude = low + (high - low) * torch.rand(n_tasks, 1, 1, generator=generator)
        phase = math.pi * torch.rand(n_tasks, 1, 1, generator=generator)
        n_rows = self.support_rows + self.query_rows
        x = 10 * torch.rand(n_tasks, n_rows, 1, generator=generator) - 5
        slow, fast = self.frequencies
        frequency = torch.full((n_tasks, 1, 1), slow)
        if not self.one_frequency:
            frequency += (fast - slow) * torch.rand(n_tasks, 1, 1, generator=generator)
        clean = amplitude * (frequency * x - phase).sin()
        y = clean + self.noise_std * torch.randn(clean.shape, generator=generator)
        return _task(self, x, y, clean, generator)

    def oracle(self, task: Task, rows: int | None = None) -> Tensor | None:
        """Return the posterior mean of the curve at the query `[B, Nq, 1]`, given the first `rows` of the support.

        It is None without noise, where two rows say all, and where the frequency is hidden. Amplitude and phase are
        integrated on a grid: given two sums over rows, the likelihood of each is a quadratic.

        Raises:
            ValueError: negative rows.
        """
        if self.noise_std == 0 or not self.one_frequency:
            return None
        if rows is not None:
            check_count("rows", rows, minimum=0)
        support = task.support if rows is None else task.support.slice(0, rows)
        waves = self._waves(support.x) * support.mask[..., None]
        gram, cross = waves.mT @ waves, waves.mT @ support.y.double()
        parts = zip(gram.split(_CHUNK), cross.split(_CHUNK), strict=True)
        mean = torch.cat([self._posterior_mean(*part) for part in parts])
        return (self._waves(task.query.x) @ mean).to(task.query.x)

    def _waves(self, x: Tensor) -> Tensor:
        """Return sin and cos `[B, N, 2]` at x `[B, N, 1]`, in float64."""
        angle = self.frequencies[0] * x.double()
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _posterior_mean(self, gram: Tensor, cross: Tensor) -> Tensor:
        """Return the posterior mean `[B, 2, 1]` of the weights of sin and cos, from sums `[B, 2, 2]`, `[B, 2, 1]`."""
        (low, high), (n_amplitudes, n_phases) = _AMPLITUDES, _GRID
        middle = [(torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (n_amplitudes, n_phases)]
        amplitude, phase = low + (high - low) * middle[0][:, None], math.pi * middle[1]
        weights = torch.stack([amplitude * phase.cos(), -amplitude * phase.sin()], -1).flatten(0, 1).to(cross)
        fit = (weights @ cross)[..., 0] - ((weights @ gram) * weights).sum(-1) / 2
        return weights.mT @ (fit / self.noise_std**2).softmax(1)[..., None]
