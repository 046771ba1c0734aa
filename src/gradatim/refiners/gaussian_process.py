"""Gaussian process regression: every row is held, and the posterior mean at the queries is exact.

Source: Rasmussen, Williams 2006, algorithm 2.1 (posterior) and section 5.4.1 (hyper-parameters by marginal likelihood).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..refiner import Capabilities, Refiner
from .in_context import checked_query

if TYPE_CHECKING:
    from ..batch import Batch
    from ..signal import StepInput

_TIE = 1e-6
"""Penalty in nats on the squared log of a hyper-parameter from the middle of its range. A few rows can leave all values
equally likely, and rounding would choose between them."""


class Hyperparameters(NamedTuple):
    """Hyper-parameters of each task's kernel.

    Fields: `length [B]`: length scale, in units of x; `signal [B]`, `noise [B]`: variances, in units of y squared.
    """

    length: Tensor
    signal: Tensor
    noise: Tensor


class GaussianProcessState(NamedTuple):
    """All rows seen, and the queries.

    Fields: `x [B, N, Dx]`; `y [B, N, Dy]`; `weight [B, N]`; `query [B, Nq, Dx]`.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    query: Tensor


class GaussianProcess(Refiner):
    """`m(x) = k(x)' (K + noise I)^-1 y`, the posterior mean under `y ~ GP(0, k) + N(0, noise)`.

        k(x, x') = signal exp(-|x - x'|^2 / 2 length^2)

    The three hyper-parameters maximise each task's marginal likelihood. Given length and noise / signal, the best
    signal follows in closed form. These two are searched on a grid, which is then refined around its best point.
    All rows are held, so the state grows with them, and a prediction costs `O(N^3)`. A row of weight w has the noise
    variance `noise / w`: the posterior is that of w copies, and so is the marginal likelihood.

    Args:
        x_dim: width of x.
        outputs: width of y; all outputs share the hyper-parameters.
        lengths: the shortest and the longest length scale, in units of x.
        noises: the smallest and the largest noise variance over signal variance.
        points: of the grid along each hyper-parameter.
        refinements: how often the grid's spacing is halved around the best point.

    Raises:
        ValueError: an empty range or one that is not positive, fewer than three points, negative refinements; in
            `init`, no query, or one of other tasks; in a step, classes.

    Example:
        >>> import torch
        >>> from gradatim import Batch, Learner
        >>> from gradatim.predictors import Readout, SquaredError
        >>> from gradatim.refiners import GaussianProcess
        >>> from gradatim.signal import PLAIN
        >>> learner = Learner(Readout(SquaredError(1), x_dim=1), GaussianProcess(1), PLAIN)
        >>> x = torch.linspace(0, 6, 20)[None, :, None]
        >>> query = Batch(x + 0.1, (x + 0.1).sin())
        >>> state = learner.adapt(Batch(x, x.sin()), batch_size=5, query=query)
        >>> bool((learner.predict(query.x, state) - query.y).abs().max() < 0.01)
        True

    Source: Rasmussen, Williams 2006, algorithm 2.1, eqs. 2.30 and 5.8.
    """

    capabilities = Capabilities(per_query=True, weights=True, bounded=False, learnt=False)
    keeps_rows = True
    needs_observations = True

    def __init__(
        self,
        x_dim: int,
        outputs: int = 1,
        lengths: tuple[float, float] = (0.05, 20.0),
        noises: tuple[float, float] = (1e-6, 10.0),
        points: int = 8,
        refinements: int = 4,
    ) -> None:
        super().__init__()
        for name, (low, high) in (("lengths", lengths), ("noises", noises)):
            if not 0 < low < high < math.inf:
                raise ValueError(
                    f"a Gaussian process needs a positive, increasing range of {name}; got {low} to {high}"
                )
        if points < 3 or refinements < 0:
            raise ValueError(
                "a grid of hyper-parameters needs points >= 3 and refinements >= 0; got "
                f"points {points}, refinements {refinements}"
            )
        self.x_dim, self.outputs = x_dim, outputs
        self.lengths, self.noises = tuple(lengths), tuple(noises)
        self.points, self.refinements = points, refinements

    def init(self, n_tasks: int, query: Batch | None = None) -> GaussianProcessState:
        """Return the state of no rows, for `query.x [n_tasks, Nq, Dx]`."""
        x = checked_query(n_tasks, query)
        columns, y = (x.new_zeros(n_tasks, 0, width) for width in (self.x_dim, self.outputs))
        return GaussianProcessState(columns, y, x.new_zeros(n_tasks, 0), x)

    def step(self, state: GaussianProcessState, step_input: StepInput) -> GaussianProcessState:
        """Return the state with the mini-batch's rows beside the others.

        Raises:
            ValueError: a signal without rows, or classes.
        """
        batch = step_input.batch
        if batch is None:
            raise ValueError("a Gaussian process needs observations; got a signal without them: use PLAIN")
        if not batch.y.is_floating_point():
            raise ValueError(
                f"a Gaussian process fits regressions: y must be floating point; got {batch.y.dtype}: use a method "
                "for classes, such as 'bayesian'"
            )
        new = (batch.x, batch.y, batch.weight)
        x, y, weight = (torch.cat(pair, dim=1) for pair in zip(state[:3], new, strict=True))
        return GaussianProcessState(x, y, weight, state.query)

    def latent(self, state: GaussianProcessState) -> Tensor:
        """Return the posterior mean at every query row, `[B, Nq, Dy]`, under the best hyper-parameters."""
        if state.x.shape[1] == 0:
            return state.x.new_zeros(*state.query.shape[:2], self.outputs)
        return self.posterior(state, self.hyperparameters(state))[0]

    def linearization_point(self, state: GaussianProcessState) -> Tensor:
        """Return zeros `[B, Nq, Dy]`: rows are seen as they are, without a fit."""
        return state.x.new_zeros(*state.query.shape[:2], self.outputs)

    def serves(self, state: GaussianProcessState, x: Tensor) -> bool:
        """Return whether x `[B, Nq, Dx]` are the queries of the state."""
        return torch.equal(state.query, x)

    def posterior(
        self, state: GaussianProcessState, hyperparameters: Hyperparameters
    ) -> tuple[Tensor, Tensor]:
        """Return mean `[B, Nq, Dy]` and variance `[B, Nq]` of the noiseless function at the queries.

        Source: Rasmussen, Williams 2006, algorithm 2.1.
        """
        x, y, weight, query = (part.double() for part in state)
        length, signal, noise = (part.double()[:, None, None] for part in hyperparameters)
        # the root of the weights makes the noise equal in all rows, and leaves absent ones out
        root = weight.sqrt()[..., None]
        with torch.autocast(x.device.type, enabled=False):
            gram = signal * _kernel(x, x, length) * root * root.mT
            gram.diagonal(dim1=1, dim2=2).add_(noise[..., 0])
            factor = torch.linalg.cholesky(gram)
            cross = signal * _kernel(query, x, length) * root.mT
            mean = cross @ torch.cholesky_solve(root * y, factor)
            reach = torch.linalg.solve_triangular(factor, cross.mT, upper=False)
        variance = (signal[..., 0] - reach.square().sum(1)).clamp(min=0)
        return mean.to(state.query), variance.to(state.query)

    def log_marginal_likelihood(
        self, state: GaussianProcessState, hyperparameters: Hyperparameters
    ) -> Tensor:
        """Return `log p(y | x)` of each task's rows, `[B]` float64, summed over outputs.

        Source: Rasmussen, Williams 2006, eq. 2.30.
        """
        length, signal, noise = (part.double() for part in hyperparameters)
        spectrum = _Spectrum.of(state, length)
        ratio = noise / signal
        quadratic = spectrum.quadratic(ratio[:, None])[:, 0] / signal
        volume = spectrum.volume(ratio[:, None])[:, 0] + spectrum.rows * (2 * math.pi * signal).log()
        return -(quadratic + self.outputs * volume) / 2

    def hyperparameters(self, state: GaussianProcessState) -> Hyperparameters:
        """Return the hyper-parameters that maximise the marginal likelihood of each task's rows, `[B]` each."""
        like = state.x.new_zeros((), dtype=torch.float64)
        low, high = like.new_tensor([self.lengths, self.noises]).log().unbind(1)
        spacing, middle = (high - low) / (self.points - 1), (low + high) / 2
        steps = torch.arange(self.points, device=like.device)[:, None].to(like)
        best = self._best(state, (low + steps * spacing).expand(len(state.x), -1, -1), middle)
        for halving in range(1, self.refinements + 1):
            grid = best[:, None] + (steps[:3] - 1) * spacing / 2**halving
            best = self._best(state, grid.clamp(low, high), middle)
        length, ratio = best.exp().unbind(1)
        signal = self._signal(_Spectrum.of(state, length), ratio[:, None])[:, 0]
        return Hyperparameters(*(part.to(state.x) for part in (length, signal, ratio * signal)))

    def _best(self, state: GaussianProcessState, grid: Tensor, middle: Tensor) -> Tensor:
        """Return the best logs of length and noise over signal, `[B, 2]`, on a grid `[B, P, 2]` of each."""
        lengths, ratios = grid.unbind(2)
        values = []
        for length in lengths.unbind(1):
            spectrum = _Spectrum.of(state, length.exp())
            signal = self._signal(spectrum, ratios.exp())
            volume = spectrum.volume(ratios.exp()) + spectrum.rows[:, None] * signal.log()
            values.append(-self.outputs / 2 * volume)
        off = (grid - middle).square()
        value = torch.stack(values, dim=1) - _TIE * (off[:, :, None, 0] + off[:, None, :, 1])
        best = value.flatten(1).argmax(1)
        index = torch.stack([best // grid.shape[1], best % grid.shape[1]], dim=1)[:, None]
        return grid.gather(1, index)[:, 0]

    def _signal(self, spectrum: _Spectrum, ratio: Tensor) -> Tensor:
        """Return the signal variance that maximises the marginal likelihood, `[B, P]`, given noise over signal."""
        rows = self.outputs * spectrum.rows[:, None].clamp(min=1e-12)
        return (spectrum.quadratic(ratio) / rows).clamp(min=1e-30)


class _Spectrum(NamedTuple):
    """The kernel of unit signal between rows times the roots of their weights, by its eigenvalues.

    `values [B, N]`; `power [B, N]`: the squares of y along the eigenvectors, summed over outputs; `rows [B]`.
    One decomposition serves every noise. Copies of a row differ by noise alone, which is why `volume` has an extra
    term where the weights of a task do not sum to the number of places; absent rows cancel in it.
    """

    values: Tensor
    power: Tensor
    rows: Tensor

    @classmethod
    def of(cls, state: GaussianProcessState, length: Tensor) -> _Spectrum:
        """Return the spectrum of a state's rows at `length [B]`."""
        x, y, weight = (part.double() for part in state[:3])
        root = weight.sqrt()[..., None]
        with torch.autocast(x.device.type, enabled=False):
            kernel = _kernel(x, x, length[:, None, None]) * root * root.mT
            values, vectors = torch.linalg.eigh(kernel)
            power = (vectors.mT @ (root * y)).square().sum(2)
        return cls(values.clamp(min=0), power, weight.sum(1))

    def quadratic(self, ratio: Tensor) -> Tensor:
        """Return `y' (K + ratio I)^-1 y`, `[B, P]` for `ratio [B, P]`."""
        return (self.power[:, None] / (self.values[:, None] + ratio[..., None])).sum(2)

    def volume(self, ratio: Tensor) -> Tensor:
        """Return `log |K + ratio I|`, and of repeated rows the noise between copies, `[B, P]`."""
        surplus = self.rows - self.values.shape[1]
        return (self.values[:, None] + ratio[..., None]).log().sum(2) + surplus[:, None] * ratio.log()


def _kernel(a: Tensor, b: Tensor, length: Tensor) -> Tensor:
    """Return `exp(-|a - b|^2 / 2 length^2)`, `[B, N, M]` of a `[B, N, D]` and b `[B, M, D]`; length `[B, 1, 1]`."""
    square = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()
    return (-square / (2 * length.square())).exp()
