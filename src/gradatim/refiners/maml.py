"""MAML and its nested family: gradient descent whose start, rates and skips are learnt through the steps themselves.

Source: Finn, Abbeel, Levine 2017, eq. 1; Li et al. 2017, eq. 3; Antoniou et al. 2019; after the idea of Rajasegaran
et al. 2020.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from ..refiner import Capabilities, Refiner
from .gain import move
from .optimizers import seen_gradient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..batch import Batch
    from ..signal import StepInput

RATES = ("shared", "weight", "layer-step", "weight-step")
"""What has a rate of its own."""

GEAR = 10.0
"""How fast a learnt rate moves: an optimizer's step of .001 moves it by 1% of where it started.

Rates that start at .01 and move by .001 themselves make 5-shot sinusoids diverge, rates that move by .0001 do not.
"""

SKIP_GEAR = 0.1
"""How fast a skip moves: an optimizer's step of .001 moves it by .0001, which is what did not diverge."""


class MAMLState(NamedTuple):
    """Parameters.

    Fields: `theta [B, ...]`, like the latent; `rows [B]`: how many were seen.
    """

    theta: Tensor
    rows: Tensor


class PathState(NamedTuple):
    """Parameters of steps that differ.

    Fields: `theta [B, ...]`, like the latent; `rows [B]`: how many were seen; `steps [B]`: how many were taken;
    `anchor [B, ...]`: theta where the last skip ended.
    """

    theta: Tensor
    rows: Tensor
    steps: Tensor
    anchor: Tensor


class MAML(Refiner):
    """`theta_{t+1} = theta_t - rate_t * d loss(batch_t, theta_t) / d theta_t`, theta_0 learnt; one step a mini-batch.

    The signal chooses the order. Under `SECOND_ORDER` the meta-gradient goes through the gradients (MAML); under
    `GRADIENTS` they are constants (first-order MAML). It is trained by `Unrolled` or `Repeated`, because `Greedy` would
    show the start no step but the first. Each member of the family is the next with its extra parameters at rest:

    - `rates="shared"`: one rate (MAML); a tensor of rates is one for each weight (Meta-SGD).
    - `"weight"`: one for each weight (Meta-SGD).
    - `"layer-step"`: one for each layer and step (MAML++).
    - `"weight-step"`: one for each weight and step.
    - `skip=w`: every w steps theta goes back a learnt part of its way, `theta - P (theta - theta_{t-w})`. With
      `"weight-step"` this is after the idea of PAMELA.

    The last three kinds are stable at one learning rate for all parameters: a learnt rate is `rate (1 + 10 s)`, a skip
    `s / 10`, with s learnt from 0. Steps after the last that has a rate take that one.

    Args:
        start: `[...]`, where the learnt theta_0 starts.
        rate: one number, or one for each parameter, `[...]` like start. Rates that are learnt start there.
        learnt_rate: whether a shared rate is meta-trained. A learnt rate may become negative, as in Meta-SGD.
        rates: what has a rate of its own: `shared`, `weight`, `layer-step` or `weight-step`.
        steps: how many steps have rates and skips of their own.
        layers: how many numbers of a flat start `[S]` each layer has. None: start is one layer.
        skip: the window of the skips, at most `steps`. None: there are no skips.
        clip: the largest size of a coordinate of the gradient. None: any.

    Raises:
        ValueError: a rate that is not positive and finite, or of another shape; unknown rates; steps, a skip or a clip
            that are not positive, a skip above steps; layers that do not make up the start.

    Example:
        >>> import torch
        >>> from gradatim import Learner, LinearRegression
        >>> from gradatim.predictors import Network, SquaredError
        >>> from gradatim.refiners import MAML
        >>> from gradatim.signal import GRADIENTS, SECOND_ORDER
        >>> f = Network(3, SquaredError(), hidden=(8,))
        >>> maml = Learner(f, MAML(f.initial(), 0.1), SECOND_ORDER)
        >>> first_order = Learner(f, MAML(f.initial(), 0.1), GRADIENTS)
        >>> meta_sgd = Learner(f, MAML(f.initial(), 0.1, rates="weight"), SECOND_ORDER)
        >>> each_step = Learner(f, MAML(f.initial(), 0.1, rates="weight-step", steps=5, skip=2), SECOND_ORDER)
        >>> task = LinearRegression(3).sample(2, torch.Generator().manual_seed(0))
        >>> each_step.adapt(task.support, 32).theta.shape
        torch.Size([2, 41])

    Source: Finn, Abbeel, Levine 2017, eq. 1; Li et al. 2017, eq. 3; Antoniou et al. 2019, section 4 (rates of layers
    and steps); after the idea of Rajasegaran et al. 2020 (rates of weights and steps, skips), whose equations are not
    known to us.
    """

    capabilities = Capabilities(greedy=False, weights=True)
    needs_gradients = True
    rate: Tensor | float

    def __init__(
        self,
        start: Tensor,
        rate: float | Tensor,
        learnt_rate: bool = False,
        rates: str = "shared",
        steps: int = 5,
        layers: Sequence[int] | None = None,
        skip: int | None = None,
        clip: float | None = None,
    ) -> None:
        super().__init__()
        base = _checked_rate(rate, start)
        sizes = (start.numel(),) if layers is None else tuple(layers)
        _check_options(rates, steps, skip, clip)
        if sum(sizes) != start.numel() or min(sizes) < 1:
            raise ValueError(
                f"layers make up the start of {start.numel()} numbers; got layers of {sizes}: give the sizes of the "
                "network's weight matrices"
            )
        self.learnt_rate, self.rates, self.steps = learnt_rate, rates, steps
        self.layers, self.skip, self.clip = sizes, skip, clip
        self.start = nn.Parameter(start.detach().clone())
        if rates == "shared" and learnt_rate:
            self.rate = nn.Parameter(base.clone())
        elif isinstance(rate, Tensor):
            self.register_buffer("rate", base.clone())
        else:
            self.rate = rate
        if rates != "shared":
            moves = start.new_zeros(1 if rates == "weight" else steps, self._grain)
            self.moves = nn.Parameter(moves)
        if skip is not None:
            self.skips = nn.Parameter(start.new_zeros(steps // skip, self._grain))

    @property
    def _grain(self) -> int:
        """Return how many numbers a step has for its rate or its skip: one for each weight, for each layer, or one."""
        kinds = {"shared": 1, "layer-step": len(self.layers)}
        return kinds.get(self.rates, sum(self.layers))

    def init(self, n_tasks: int, query: Batch | None = None) -> MAMLState | PathState:
        """Return the learnt start for `n_tasks` tasks that have seen no row."""
        theta = self.start.expand(n_tasks, *self.start.shape)
        rows = theta.new_zeros(n_tasks)
        if self.rates in ("shared", "weight") and self.skip is None:
            return MAMLState(theta, rows)
        return PathState(theta, rows, rows, theta if self.skip else theta.flatten(1)[:, :0])

    def step(self, state: MAMLState | PathState, step_input: StepInput) -> MAMLState | PathState:
        """Return the state after one step down the gradient, and the skip that ends there."""
        gradient, seen = seen_gradient(step_input)
        if self.clip is not None:
            gradient = gradient.clamp(-self.clip, self.clip)
        theta = state.theta - self._rate(state) * gradient
        rows = state.rows + step_input.rows.to(state.rows.dtype)
        if isinstance(state, MAMLState):
            return MAMLState(move(state.theta, theta, seen), rows)
        steps, anchor = state.steps + seen, state.anchor
        if self.skip is not None:
            ends = steps.remainder(self.skip) == 0
            back = SKIP_GEAR * self._at(self.skips, steps.div(self.skip).ceil() - 1)
            ended = (ends & (seen > 0)).reshape(-1, *[1] * self.start.dim())
            theta = torch.where(ended, theta - back * (theta - anchor), theta)
            anchor = torch.where(ended, theta, anchor)
        return PathState(move(state.theta, theta, seen), rows, steps, anchor)

    def latent(self, state: MAMLState | PathState) -> Tensor:
        """Return theta `[B, ...]`."""
        return state.theta

    def _rate(self, state: MAMLState | PathState) -> Tensor | float:
        """Return the rates of the next step of each task, to be multiplied with theta `[B, ...]`."""
        if self.rates == "shared":
            return self.rate
        at = state.steps if isinstance(state, PathState) else state.rows.new_zeros(1)
        return self.rate * (1 + GEAR * self._at(self.moves, at))

    def _at(self, table: Tensor, step: Tensor) -> Tensor:
        """Return the rows of a table `[J, grain]` at `step [B]`, the last one beyond it, spread over `[B, ...]`."""
        if self._grain == len(self.layers) and self._grain > 1:
            sizes = torch.tensor(self.layers, device=table.device)
            table = table.repeat_interleave(sizes, dim=1)
        # a product with one-hot rows: its second derivative is cheap, that of an index is not
        place = step.clamp(0, len(table) - 1).long()
        chosen = nn.functional.one_hot(place, len(table)).to(table.dtype) @ table
        if table.shape[1] == 1:
            return chosen.reshape(-1, *[1] * self.start.dim())
        return chosen.unflatten(1, self.start.shape)


def _checked_rate(rate: float | Tensor, start: Tensor) -> Tensor:
    """Return a rate as a tensor in the dtype of the start."""
    rates = torch.as_tensor(rate, dtype=start.dtype, device=start.device)
    if rates.shape not in (torch.Size(), start.shape):
        raise ValueError(
            f"a rate is one number, or one for each parameter of shape {tuple(start.shape)}; got shape "
            f"{tuple(rates.shape)}: give a number, or torch.full_like(start, number)"
        )
    if not bool(((rates > 0) & rates.isfinite()).all()):
        raise ValueError(
            f"a rate is positive and finite; got {rates.min().item():g} to {rates.max().item():g}"
        )
    return rates


def _check_options(rates: str, steps: int, skip: int | None, clip: float | None) -> None:
    if rates not in RATES:
        raise ValueError(f"rates must be one of {', '.join(RATES)}; got {rates!r}")
    if steps < 1:
        raise ValueError(f"steps that have rates of their own are at least 1; got {steps}")
    if skip is not None and not 1 <= skip <= steps:
        raise ValueError(f"a skip goes back 1 to {steps} steps, the steps of this learner; got {skip}")
    if clip is not None and not clip > 0:
        raise ValueError(f"a clip is positive, or None; got {clip}")
