"""The three ways of filling the same slots; each refuses a misfit with a sentence.

Source: Mittal et al. 2025, table 1: parametric (g learnt), explicit (f and g), implicit (f).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from .learner import Learner
from .likelihood import Likelihood
from .nn.fixed_features import FixedFeatures, widths
from .predictors import (
    Committee,
    Decoder,
    Features,
    Modulated,
    Network,
    Order,
    OrderScores,
    Readout,
    Velocity,
)
from .refiners import (
    OFF,
    Conjugate,
    Experts,
    InContextRefiner,
    Laplace,
    Ridge,
    TransformerConfig,
    TransformerRefiner,
    VariableRefiner,
)
from .signal import BOTH, CLOSED_FORM, PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from .family import TaskFamily
    from .refiner import Refiner
    from .signal import Signal

DEFAULT = TransformerConfig()

REACH = 0.4
"""Of several committees: the standard deviation of the log of the distance at which nearness fades."""


def linear(family: TaskFamily, hidden: tuple[int, ...] = ()) -> Network:
    """Return the predictor of known form for a family: (softmax-)linear, or a tanh network with `hidden` layers.

    A linear model of a family without an intercept has no bias.
    """
    bias = family.intercept or bool(hidden)
    return Network(family.x_dim, y_likelihood(family), hidden, bias)


def parametric(
    family: TaskFamily,
    signal: Signal = BOTH,
    config: TransformerConfig = DEFAULT,
    hidden: tuple[int, ...] = (),
    token_per_row: bool = True,
) -> Learner:
    """Return a parametric learner: f of known form, its weights theta refined by h_phi.

    `hidden`: widths of f's hidden layers; `token_per_row`: a token for each row of each weight matrix, or one for all
    of theta (the paper). Where `config.curvature` asks for it, the rows' inputs are seen as well.
    """
    signal = replace(signal, inputs=config.curvature is not None)
    predictor = linear(family, hidden)
    shapes = predictor.layout.shapes if token_per_row else ((1, predictor.layout.size),)
    y = family.likelihood
    widths = (family.x_dim, y.y_dim, y.classes, predictor.output_dim)
    matrices = predictor.layout.shapes
    refiner = TransformerRefiner(config, signal, predictor.initial(), shapes, *widths, matrices)
    return Learner(predictor, refiner, signal)


def explicit(
    family: TaskFamily,
    signal: Signal = BOTH,
    config: TransformerConfig = DEFAULT,
    tokens: int | None = None,
    token_width: int | None = None,
    features: int | None = None,
    modulated: tuple[int, ...] | None = None,
) -> Learner:
    """Return an explicit learner: a learnt f_gamma, a decoder, on a learnt embedding z.

    z are `tokens` vectors (16) of `token_width` (32). With `modulated`, f_gamma is one network with hidden
    layers of these widths, and z scales and shifts its hidden units: few numbers, however many weights it has.

    With `features`, f_gamma is that many learnt features of x and z the head on them, one vector for each output; then
    `config.curvature` is for z what it is for the weights of a parametric learner.

    Raises:
        ValueError: `config.curvature` without `features`: an embedding has none; more than one of tokens, `features`
            and `modulated`: each says what z is.
    """
    kinds = ((tokens, token_width) != (None, None), features is not None, modulated is not None)
    if sum(kinds) > 1:
        raise ValueError(
            "z is an embedding of tokens, the head on learnt features, or scales and shifts of hidden units; got "
            f"features {features}, modulated {modulated} with tokens {tokens}, token_width {token_width}: give one"
        )
    out = y_likelihood(family)
    widths = (family.x_dim, out.y_dim, out.classes, out.output_dim)
    if features is not None:
        head = Features(family.x_dim, out, features, scaled=out.classes is not None)
        shapes = ((out.output_dim, features + 1),)
        signal = replace(signal, inputs=config.curvature is not None)
        return Learner(
            head, TransformerRefiner(config, signal, head.initial(), shapes, *widths, shapes), signal
        )
    if config.curvature is not None:
        raise ValueError(
            f"the embedding of a decoder has no curvature; got curvature {config.curvature}: leave it out, or give "
            "features, for an f_gamma of learnt features and z the head on them"
        )
    if modulated is not None:
        network = Modulated(family.x_dim, out, modulated)
        refiner = TransformerRefiner(config, signal, network.initial(), network.shapes, *widths)
        return Learner(network, refiner, signal)
    shape = 16 if tokens is None else tokens, 32 if token_width is None else token_width
    predictor = Decoder(family.x_dim, out, *shape, width=config.width)
    refiner = TransformerRefiner(config, signal, predictor.initial(), (shape,), *widths)
    return Learner(predictor, refiner, signal)


def closed_form(family: TaskFamily, features: int = 512, strength: float = 1.0) -> Learner:
    """Return a learner with meta-learnt features, shared by all tasks, and a head solved from sufficient statistics.

    f and its features are learnt, g is analytic, the head's natural parameters are the state: exact, additive.
    `strength`: where the learnt ridge penalty starts.

    Source: Bertinetto et al. 2019 (R2-D2), eqs. 4-6.
    """
    out = y_likelihood(family)
    classes = out.classes is not None
    predictor = Features(family.x_dim, out, features, scaled=classes)
    refiner = Ridge(features + 1, predictor.output_dim, strength, classes, learnt=True)
    return Learner(predictor, refiner, CLOSED_FORM)


def bayesian(
    family: TaskFamily,
    features: int = 64,
    precisions: Sequence[Sequence[float]] | None = None,
    learnt: bool = True,
    activation: Callable[[Tensor], Tensor] = torch.relu,
) -> Learner:
    """Return the default learner: a head on x and on meta-learnt features that knows how sure it is.

    Every row counts, early and late: a regression's posterior is exact (`Conjugate`), that of classes nearly so
    (`Laplace`). Priors with and without the features are averaged by what the task's own rows say, so that features
    do no harm where a linear f is right. `precisions`: the priors' start, for (x, features, 1; no 1 without intercept).

    Source: Harrison et al. 2018 (ALPaCA); Raftery et al. 1997 (averaging).
    """
    out = y_likelihood(family)
    predictor = Features(family.x_dim, out, features, False, True, family.intercept, activation)
    if precisions is None:
        weights = (OFF, 0.1) if out.classes is not None else (OFF, 0.3, 0.01)
        precisions = [(1.0, weight) + (1.0,) * family.intercept for weight in weights]
    if out.classes is not None:
        refiner: Refiner = Laplace(predictor.blocks, out.classes, precisions, learnt)
    else:
        refiner = Conjugate(predictor.blocks, out.output_dim, precisions, learnt=learnt)
    if not learnt:
        predictor.requires_grad_(False)
    return Learner(predictor, refiner, CLOSED_FORM)


def committee(
    likelihood: Likelihood,
    landmarks: Tensor,
    steps: Sequence[tuple[int, float]] = (),
    spread: float = 1.0,
    seed: int = 0,
) -> Learner:
    """Return the learner of tables: experts on families of fixed features, nothing learnt, averaged by likelihood.

    `landmarks [K, x_dim]`: rows that nearness is measured to; `steps`: (column of x, threshold) of step features; of
    both the first, as there is room (`widths`); `seed` of the pairs that are multiplied and of random ramps. States are
    exact and additive.

    Source: Broomhead, Lowe 1988; Rahimi, Recht 2007; Raftery et al. 1997 (averaging).
    """
    room = widths(landmarks.shape[1])
    features = FixedFeatures(
        landmarks[: room.landmarks], room.products, steps[: room.steps], spread, seed, room.ramps
    )
    refiner = Experts(features, likelihood.output_dim, likelihood.classes is not None)
    return Learner(Committee(features, likelihood, refiner.count), refiner, PLAIN)


def committees(
    likelihood: Likelihood,
    landmarks: Sequence[Tensor],
    steps: Sequence[tuple[int, float]],
    seeds: Sequence[int],
) -> list[Learner]:
    """Return committees that differ by their `landmarks [K, x_dim]`, the reach of nearness and what is drawn.

    Nearness of the first has the reach 1; that of later members is drawn, its log with the deviation `REACH`.
    """
    draws = [float(np.random.default_rng(seed).standard_normal()) for seed in seeds]
    reaches = [float(np.exp(REACH * draw)) if member else 1.0 for member, draw in enumerate(draws)]
    members = zip(landmarks, reaches, seeds, strict=True)
    return [committee(likelihood, rows, steps, reach, seed) for rows, reach, seed in members]


def implicit(
    family: TaskFamily,
    signal: Signal = PLAIN,
    config: TransformerConfig = DEFAULT,
    state: str = "logits",
) -> Learner:
    """Return an implicit learner: r_gamma refines the prediction itself, one per query row.

    `state`: logits (or a regression's outputs), latents or probabilities.

    Raises:
        ValueError: any signal but PLAIN, an unknown state, or probabilities in a regression.
    """
    if signal != PLAIN:
        raise ValueError(
            "an implicit learner exposes no parameters to take gradients at and no prediction for support rows: it "
            f"takes observations only; got {signal}: use PLAIN, or a parametric or explicit learner"
        )
    out = y_likelihood(family)
    if state == "probabilities" and out.classes is None:
        raise ValueError(
            "probabilities need classes; this family is a regression: use state='logits' or 'latents'"
        )
    predictor = Readout(out, state, config.width, family.x_dim)
    refiner = InContextRefiner(
        config,
        predictor.state_width,
        family.x_dim,
        out.y_dim,
        out.classes,
        state == "probabilities",
        isinstance(out, Velocity),
    )
    return Learner(predictor, refiner, PLAIN)


def ordering(
    family: TaskFamily,
    signal: Signal = PLAIN,
    config: TransformerConfig = DEFAULT,
    token_width: int | None = 32,
) -> Learner:
    """Return a learner of orders of the columns: explicit, a token for each variable and a learnt score of tokens.

    `token_width`: of the tokens; None: implicit, the state is the scores themselves, the prediction, and f is fixed.

    Raises:
        ValueError: a family whose answer is no order, or any signal but PLAIN.

    Source: Mittal et al. 2025, topological order; Lorch et al. 2022 (the attention).
    """
    if not isinstance(family.likelihood, Order):
        raise ValueError(
            f"an order is asked of families whose answer is one; got {type(family).__name__}: use another regime"
        )
    if signal != PLAIN:
        raise ValueError(
            "rows of a causal model have no answer, so no prediction stands at them and their loss has no gradient: "
            f"an order is learnt from observations only; got {signal}: use PLAIN"
        )
    predictor = OrderScores(family.x_dim, token_width)
    return Learner(predictor, VariableRefiner(config, family.x_dim, predictor.latent_shape[1]), PLAIN)


def y_likelihood(family: TaskFamily) -> Likelihood:
    """Return the likelihood of a family's rows.

    Raises:
        ValueError: a family without one, or whose support rows have no y.
    """
    if not isinstance(family.likelihood, Likelihood):
        raise ValueError(
            "a family says what y is in its attribute likelihood, such as SquaredError(1) or CrossEntropy(3); "
            f"{type(family).__name__} has {family.likelihood!r}"
        )
    if isinstance(family.likelihood, Order):
        raise ValueError(
            f"the support rows of {type(family).__name__} have no y: its answer is an order of x's columns: use "
            "ordering, or the methods explicit-order and implicit-order"
        )
    return family.likelihood
