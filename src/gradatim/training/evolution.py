"""Meta-training without a graph: evolution strategies over an episode, or persistent ones over its segments.

Source: Salimans et al. 2017, section 2.1 (antithetic pairs); Vicol, Metz, Sohl-Dickstein 2021, section 4 (persistent).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call

from ..learner import Learner
from .episode import Episode
from .schemes import Scheme, Unrolled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..batch import Task
    from ..refiner import State


@dataclass(frozen=True)
class Evolution(Scheme):
    """Estimate the gradient from the losses of perturbed learners, without backpropagation.

        d loss / d phi ~ 1/P sum_i sum_s (L_s(+i) - L_s(-i)) / (2 sigma) * (e_i1 + ... + e_is),   e ~ N(0, I)

    L_s(+-i) is the loss of segment s. It belongs to a learner that runs its own complete episode, with parameters phi
    +- sigma e_is in that segment. No graph is kept, so the memory does not grow with the horizon.

    Fields:
        `pairs`: the number P of antithetic pairs.
        `sigma`: the size of a perturbation, the same for every parameter. It must be well above the rounding error.
        `truncation`: the number of steps of a segment. None: one segment (plain evolution strategies).

    The other fields are those of `Scheme`.

    - The value of the loss is that of the unperturbed learner.
    - The gradient is that of the loss averaged over perturbations. It follows every path, also through signals that
      autograd sees detached.
    - Each segment draws new perturbations. The sum over all draws so far keeps the estimate unbiased for the full
      horizon. Without it the estimate would have the bias of `Unrolled(truncation=...)`.
    - All learners of an episode see the same mini-batches and draws. The cost is `1 + 2 pairs` episodes.
    - Parameters that require no gradient are not perturbed.

    Raises:
        ValueError: pairs or truncation below 1, or a sigma that is not positive and finite.

    Example:
        >>> import torch
        >>> from gradatim import Evolution, LinearRegression, build
        >>> family = LinearRegression(3)
        >>> learner = build("parametric-gradients", family)
        >>> generator = torch.Generator().manual_seed(0)
        >>> scheme = Evolution(batch_size=8, horizon=2, pairs=2, sigma=0.01)
        >>> scheme.loss(learner, family.sample(4, generator), generator).backward()

    Source: Salimans et al. 2017, section 2.1; Vicol, Metz, Sohl-Dickstein 2021, section 4.
    """

    pairs: int = 16
    sigma: float = 0.01
    truncation: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.penalties:
            raise ValueError(
                f"evolution estimates the slope of the losses alone; got penalties {self.penalties}: use Greedy or "
                "Unrolled"
            )
        if self.pairs < 1 or not 0 < self.sigma < math.inf:
            raise ValueError(
                f"evolution needs at least 1 pair and a positive, finite sigma; got pairs {self.pairs}, "
                f"sigma {self.sigma}"
            )
        if self.truncation is not None and self.truncation < 1:
            raise ValueError(f"truncation counts steps: None or at least 1; got {self.truncation}")

    def carry(self, state: State, step: int) -> State:
        """Return the state as it is: there is no graph to cut."""
        return state

    def loss(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the mean loss of an episode, of shape `[]`; its backward pass gives the evolution estimate of the
        gradient.

        If gradients are off, nothing is perturbed.

        Raises:
            ValueError: the learner has nothing to meta-train, or there are too few support rows for one step.
        """
        self.check(learner)
        episode = _seed(generator)
        with torch.no_grad():
            losses = self.losses(learner, task, _generator(episode))
            value = self._of_steps(losses).mean()
        if not torch.is_grad_enabled():
            return value
        slopes = self._slopes(learner, task, episode, len(losses), generator)
        parameters = dict(learner.named_parameters())
        surrogate = torch.stack([(slope * parameters[name]).sum() for name, slope in slopes.items()]).sum()
        return value + (surrogate - surrogate.detach())

    def check(self, learner: Learner) -> None:
        """Check that there is a parameter to perturb.

        Raises:
            ValueError: the learner has nothing to meta-train, or no parameter requires a gradient.
        """
        super().check(learner)
        if not _trained(learner):
            raise ValueError("evolution perturbs parameters; this learner has none that requires a gradient")

    @torch.no_grad()
    def _slopes(
        self, learner: Learner, task: Task, episode: int, steps: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the gradient estimate by parameter name, each of the parameter's shape.

        The episodes are drawn from the seed `episode`, the perturbations from `generator`.
        """
        parameters = _trained(learner)
        slopes = {name: torch.zeros_like(p) for name, p in parameters.items()}
        length = self.truncation or steps
        for _ in range(self.pairs):
            episodes = [self._losses(learner, task, _generator(episode)) for _ in range(2)]
            noise_sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
            for start in range(0, steps, length):
                noise = {name: _normal(p, generator) for name, p in parameters.items()}
                sums = []
                for sign, losses in zip((1, -1), episodes, strict=True):
                    shifted = {
                        f"learner.{name}": p + sign * self.sigma * noise[name]
                        for name, p in parameters.items()
                    }
                    segment = Episode(learner, _Segment(self, losses, min(length, steps - start)))
                    sums.append(functional_call(segment, shifted, (task, generator)))
                weight = (sums[0] - sums[1]) / (2 * self.sigma * self.pairs * steps)
                for name, slope in slopes.items():
                    noise_sums[name] += noise[name]
                    slope += weight * noise_sums[name]
        return slopes


@dataclass
class _Segment:
    """The loss of the next steps of an episode in progress, while other parameters stand in for the learner's own."""

    scheme: Evolution
    losses: Iterator[Tensor]
    steps: int

    def loss(self, learner: Learner, task: Task, generator: torch.Generator) -> Tensor:
        """Return the sum of the losses of the segment's steps, of shape `[]`."""
        return self.scheme._of_steps(torch.stack(list(islice(self.losses, self.steps)))).sum()


def expected_cosine(pairs: int, dimensions: int) -> float:
    """Return the expected cosine between an evolution gradient and the true one, for a small sigma.

        E[cos] = G((P + 1) / 2) G((P + D - 1) / 2) / (G(P / 2) G((P + D) / 2)),   G the gamma function

    P is the number of pairs and D the number of dimensions. The derivation:

    - As sigma falls, an antithetic pair tends to the directional derivative `(g.e) e`, e ~ N(0, I).
    - Turn the axes so that g is the first one, and write e = (z, w). The mean over P pairs is then `|g|/P (sum z_i^2,
      sum z_i w_i)`.
    - Let S = sum z_i^2, chi-squared with P degrees of freedom. Given the z's, sum z_i w_i is `N(0, S I)` in D - 1
      dimensions.
    - Its squared norm is therefore S Q, with Q chi-squared with D - 1 degrees of freedom, independent of S.
    - Hence `cos^2 = S^2 / (S^2 + S Q) = S / (S + Q)`, which has the distribution Beta(P / 2, (D - 1) / 2).
    - E[cos] is the mean of its root, and E[cos^2] = P / (P + D - 1).
    - The squared norm of the estimate is `|g|^2 / P^2 (S^2 + S Q)`. Its mean is `|g|^2 (P + D + 1) / P`, because
      E[S^2] = P (P + 2) and E[S Q] = P (D - 1).

    Raises:
        ValueError: pairs or dimensions below 1.

    Example:
        >>> from gradatim.training.evolution import expected_cosine
        >>> round(expected_cosine(1, 1), 3), round(expected_cosine(100, 101), 3)
        (1.0, 0.706)

    Source: derived here; a pair is the Gaussian smoothing of Nesterov, Spokoiny 2017, section 2.
    """
    if min(pairs, dimensions) < 1:
        raise ValueError(f"a cosine needs at least 1 pair and 1 dimension; got {pairs} and {dimensions}")
    half_sum = (pairs + dimensions) / 2
    upper = math.lgamma((pairs + 1) / 2) + math.lgamma(half_sum - 0.5)
    return math.exp(upper - math.lgamma(pairs / 2) - math.lgamma(half_sum))


def cosine_ratios(
    scheme: Evolution, learner: Learner, task: Task, generator: torch.Generator, draws: int = 64
) -> Tensor:
    """Return the cosines of evolution gradients with autograd's gradient, divided by `expected_cosine`: `[draws]`.

        ratio_k = cos(evolution_k, d Unrolled loss / d phi) / E[cos]

    Both gradients are those of the same learner and episode, with signals that keep their graph. The mean ratio is
    near 1 if sigma is small. Its standard error is near `1 / sqrt(2 pairs draws)` if there are many parameters.

    Raises:
        ValueError: fewer than 1 draw, or a scheme with segments, to which the theory does not apply.

    Example:
        >>> import torch
        >>> from gradatim import Evolution, LinearRegression, build
        >>> from gradatim.training.evolution import cosine_ratios
        >>> family = LinearRegression(3)
        >>> learner = build("parametric-gradients", family).double()
        >>> generator = torch.Generator().manual_seed(0)
        >>> task = family.sample(2, generator).to(torch.float64)
        >>> cosine_ratios(Evolution(batch_size=4, horizon=2, pairs=2), learner, task, generator, draws=3).shape
        torch.Size([3])

    Source: see `expected_cosine`.
    """
    if scheme.truncation is not None or draws < 1:
        raise ValueError(
            f"the expected cosine is that of whole episodes, over at least 1 draw; got truncation "
            f"{scheme.truncation} and {draws} draws"
        )
    scheme.check(learner)
    with_graph = Learner(learner.predictor, learner.refiner, replace(learner.signal, keep_graph=True))
    parameters, episode = _trained(with_graph), _seed(generator)
    shared = (scheme.batch_size, scheme.horizon, scheme.random_horizon, scheme.prefixes, scheme.relative)
    unrolled = Unrolled(*shared)
    losses = unrolled._of_steps(unrolled.losses(with_graph, task, _generator(episode)))
    exact_slopes = torch.autograd.grad(
        losses.mean(), list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    exact = torch.cat([slope.flatten() for slope in exact_slopes])
    ratios = []
    for _ in range(draws):
        slopes = scheme._slopes(with_graph, task, episode, len(losses), generator)
        estimate = torch.cat([slopes[name].flatten() for name in parameters])
        ratios.append(torch.dot(estimate, exact) / (estimate.norm() * exact.norm()))
    return torch.stack(ratios) / expected_cosine(scheme.pairs, exact.numel())


def _trained(learner: Learner) -> dict[str, Tensor]:
    """Return the parameters that require a gradient, by name."""
    return {name: p for name, p in learner.named_parameters() if p.requires_grad}


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normals of a parameter's shape, drawn on the CPU, so that they are equal on every device."""
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _seed(generator: torch.Generator) -> int:
    """Return a seed for episodes that are run several times with the same draws."""
    return int(torch.randint(2**63 - 1, (), generator=generator))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
