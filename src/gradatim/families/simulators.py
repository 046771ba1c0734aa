"""Simulated tasks: linear regression with its exact posterior, linear classification, random networks.

Source: Mittal et al. 2025, section on linear regression and classification; constants are this project's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..batch import Batch, Task
from ..family import TaskFamily
from ..likelihood import CrossEntropy, SquaredError
from .sampling import check_amount, check_count, check_rows, check_sample, support_mask

if TYPE_CHECKING:
    from torch import Tensor

_SIGNAL_ROWS = 512


def _rows(family: TaskFamily, n_tasks: int, width: int, generator: torch.Generator) -> Tensor:
    """Return standard normal rows for support and query together, `[B, Ns + Nq, width]`."""
    return torch.randn(n_tasks, family.support_rows + family.query_rows, width, generator=generator)


def _task(family: TaskFamily, x: Tensor, y: Tensor, truth: Tensor, generator: torch.Generator) -> Task:
    """Divide rows into support and query, and mask rows of ragged supports."""
    n = family.support_rows
    support = Batch(x[:, :n], y[:, :n], support_mask(family, len(x), generator))
    return Task(support, Batch(x[:, n:], y[:, n:]), truth=truth[:, n:])


@dataclass(frozen=True)
class LinearRegression(TaskFamily):
    """Linear regression with a Gaussian prior, and its exact posterior as the oracle.

        y = w'x + noise_std * e,   w ~ N(0, I),   e ~ N(0, 1),   x ~ N(0, I)

    With `condition` x ~ N(0, Sigma), where Sigma is drawn for each task. Its basis is random. Its eigenvalues are
    evenly spaced in the logarithm, with `largest / smallest = condition` and `trace(Sigma) = dim`.

    Shapes: x `[B, N, dim]`, y `[B, N, 1]`, `truth = w'x` at the query `[B, Nq, 1]`.

    Fields: `dim`: number of features; `noise_std`: standard deviation of the noise; `condition`: condition number of
    Sigma, or None for the identity.

    Raises:
        ValueError: dim below 1, noise_std not above 0, condition not above 1 (or dim 1 with it), impossible rows.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> family = LinearRegression(8, noise_std=0.5, support_rows=160)
        >>> task = family.sample(16, torch.Generator().manual_seed(0))
        >>> error = (family.oracle(task, rows=32) - task.truth).square().mean()
        >>> bool(error < task.truth.square().mean() / 10)
        True

    Source: Mittal et al. 2025, linear regression; Bishop 2006, eqs. 3.50, 3.51 and 3.58 (the posterior).
    """

    dim: int = 8
    noise_std: float = 0.5
    condition: float | None = None

    intercept = False
    likelihood = SquaredError(1)

    def __post_init__(self) -> None:
        check_rows(self)
        check_count("dim", self.dim, minimum=1)
        check_amount("noise_std", self.noise_std, above=0)
        if self.condition is not None:
            check_amount("condition", self.condition, above=1)
            if self.dim == 1:
                raise ValueError("condition needs dim of at least 2: one feature has no condition number")

    @property
    def x_dim(self) -> int:
        """Return the number of features, `dim`."""
        return self.dim

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        w = torch.randn(n_tasks, self.dim, 1, generator=generator)
        x = _rows(self, n_tasks, self.dim, generator)
        if self.condition is not None:
            x = x @ self.covariance_roots(n_tasks, generator).mT.float()
        clean = x @ w
        y = clean + self.noise_std * torch.randn(clean.shape, generator=generator)
        return _task(self, x, y, clean, generator)

    def covariance_roots(self, n_tasks: int, generator: torch.Generator) -> Tensor:
        """Return random factors R `[B, dim, dim]` float64, where `Sigma = R R'` has the family's condition number.

        Raises:
            ValueError: the family has no `condition`.
        """
        if self.condition is None:
            raise ValueError("the rows of this family are white: give it a condition to draw covariances")
        gaussian = torch.randn(n_tasks, self.dim, self.dim, generator=generator, dtype=torch.float64)
        basis = torch.linalg.qr(gaussian).Q
        spread = torch.linspace(0, -math.log(self.condition), self.dim, dtype=torch.float64).exp()
        return basis * (spread * (self.dim / spread.sum())).sqrt()

    def oracle(self, task: Task, rows: int | None = None) -> Tensor:
        """Return the posterior mean of `w'x` at the query, given the first `rows` of the support (default: all).

            x' (X'X + noise_std^2 I)^-1 X'Y

        X and Y are the rows present among them. The computation is in float64.

        Returns:
            Means `[B, Nq, 1]`, in the task's dtype.

        Raises:
            ValueError: negative rows, or tasks of another width.
        """
        factor, moment = self._posterior(task, rows)
        mean = torch.cholesky_solve(moment, factor)
        return (task.query.x.double() @ mean).to(task.query.x.dtype)

    def oracle_risk(self, task: Task, rows: int | None = None) -> Tensor:
        """Return the expected excess risk of the oracle: the mean over query rows of `x' Sigma_post x`.

            Sigma_post = noise_std^2 (X'X + noise_std^2 I)^-1

        That is the expectation of `(oracle - w'x)^2` over w and the noise, given X. The computation is in float64.

        Returns:
            Risk `[B]`, in the task's dtype.

        Raises:
            ValueError: negative rows, or tasks of another width.
        """
        factor, _ = self._posterior(task, rows)
        query = task.query
        whitened = torch.linalg.solve_triangular(factor, query.x.double().mT, upper=False)
        variance = self.noise_std**2 * whitened.square().sum(dim=1) * query.mask
        return (variance.sum(dim=1) / query.rows).to(query.x.dtype)

    def _posterior(self, task: Task, rows: int | None) -> tuple[Tensor, Tensor]:
        """Return the Cholesky factor of `X'X + noise_std^2 I` and `X'Y`, float64, from the rows present."""
        if rows is not None:
            check_count("rows", rows, minimum=0)
        if task.support.x.shape[2] != self.dim or task.support.y.shape[2] != 1:
            raise ValueError(
                f"the oracle needs tasks with x of width {self.dim} and y of width 1; got "
                f"{task.support.x.shape[2]} and {task.support.y.shape[2]}: ask the family that drew them"
            )
        support = task.support if rows is None else task.support.slice(0, rows)
        present = support.mask[..., None]
        x, y = (part.double().masked_fill(~present, 0) for part in (support.x, support.y))
        noise = self.noise_std**2 * torch.eye(self.dim, dtype=x.dtype, device=x.device)
        return torch.linalg.cholesky(x.mT @ x + noise), x.mT @ y


@dataclass(frozen=True)
class LinearClassification(TaskFamily):
    """Softmax-linear classification.

        p(y = c | x) = softmax(W x)_c,   x ~ N(0, I),   W_cj ~ N(0, 9 / dim)

    The logits have standard deviation 3 at an x of average length.

    Shapes: x `[B, N, dim]`, y `[B, N, 1]` int64, `truth` = the true logits at the query `[B, Nq, classes]`.

    Fields: `dim`: number of features; `classes`: number of classes.

    Raises:
        ValueError: dim below 1, classes below 2, impossible rows.

    Example:
        >>> import torch
        >>> from gradatim.families import LinearClassification
        >>> family = LinearClassification(8, 4)
        >>> family.sample(16, torch.Generator().manual_seed(0)).truth.shape
        torch.Size([16, 64, 4])

    Source: Mittal et al. 2025, linear classification.
    """

    dim: int = 8
    classes: int = 4

    def __post_init__(self) -> None:
        check_rows(self)
        check_count("dim", self.dim, minimum=1)
        check_count("classes", self.classes, minimum=2)

    @property
    def x_dim(self) -> int:
        """Return the number of features, `dim`."""
        return self.dim

    @property
    def likelihood(self) -> CrossEntropy:
        """Return that y is one of `classes`."""
        return CrossEntropy(self.classes)

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        weight = torch.randn(n_tasks, self.dim, self.classes, generator=generator) * (3 / math.sqrt(self.dim))
        x = _rows(self, n_tasks, self.dim, generator)
        logits = x @ weight
        gumbel = -torch.empty_like(logits).exponential_(generator=generator).log()
        y = (logits + gumbel).argmax(dim=2, keepdim=True)
        return _task(self, x, y, logits, generator)


@dataclass(frozen=True)
class RandomNetworkRegression(TaskFamily):
    """Regression on a random network without biases.

        y = v' tanh(U x) + s e,   U ~ N(0, 2 / dim),   v ~ N(0, 2 / hidden),   x, e ~ N(0, I)

    s is `noise` times the standard deviation of the signal in that task. It is measured on 512 separate x, so that it
    does not depend on the rows of the task.

    With `shared` all tasks have the same U, which its generator draws, and differ in v alone.

    Shapes: x `[B, N, dim]`, y `[B, N, 1]`, `truth = v' tanh(U x)` at the query `[B, Nq, 1]`.

    Fields: `dim`: number of features; `hidden`: units of the network; `noise`: noise over signal, in standard
    deviations; `shared`: the seed of the first layer that all tasks share, or None for one of each task.

    Raises:
        ValueError: dim or hidden below 1, noise or shared negative, impossible rows.

    Example:
        >>> import torch
        >>> from gradatim.families import RandomNetworkRegression
        >>> family = RandomNetworkRegression(8, 32, 0.1)
        >>> family.sample(16, torch.Generator().manual_seed(0)).query.y.shape
        torch.Size([16, 64, 1])

    Source: Mittal et al. 2025, parametric networks as the likelihood; constants are this project's own.
    """

    dim: int = 8
    hidden: int = 32
    noise: float = 0.1
    shared: int | None = None

    intercept = False
    likelihood = SquaredError(1)

    def __post_init__(self) -> None:
        check_rows(self)
        check_count("dim", self.dim, minimum=1)
        check_count("hidden", self.hidden, minimum=1)
        check_amount("noise", self.noise, above=0, inclusive=True)
        if self.shared is not None:
            check_count("shared", self.shared, minimum=0)

    @property
    def x_dim(self) -> int:
        """Return the number of features, `dim`."""
        return self.dim

    def sample(self, n_tasks: int, generator: torch.Generator) -> Task:
        """Return n_tasks tasks drawn with `generator`, a CPU generator; float32.

        Raises:
            ValueError: n_tasks below 1, or no CPU generator.
        """
        check_sample(n_tasks, generator)
        first, layers = generator, n_tasks
        if self.shared is not None:
            first, layers = torch.Generator().manual_seed(self.shared), 1
        inner = torch.randn(layers, self.dim, self.hidden, generator=first) * math.sqrt(2 / self.dim)
        outer = torch.randn(n_tasks, self.hidden, 1, generator=generator) * math.sqrt(2 / self.hidden)
        # The signal is odd in x, so its mean is zero.
        separate = torch.randn(n_tasks, _SIGNAL_ROWS, self.dim, generator=generator)
        deviation = ((separate @ inner).tanh() @ outer).square().mean(dim=1, keepdim=True).sqrt()
        x = _rows(self, n_tasks, self.dim, generator)
        clean = (x @ inner).tanh() @ outer
        y = clean + self.noise * deviation * torch.randn(clean.shape, generator=generator)
        return _task(self, x, y, clean, generator)
