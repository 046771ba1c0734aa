"""The three ways of filling the same slots; each refuses a misfit with a sentence.

Source: Mittal et al. 2025, table 1: parametric (g learnt), explicit (f and g), implicit (f).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .learner import Learner
from .likelihood import Likelihood
from .predictors import (
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


def linear(family: TaskFamily, hidden: tuple[int, ...] = ()) -> Network:
    """Return the predictor of known form for a family: (softmax-)linear, or a tanh network with `hidden` layers.

    A linear model of a family without an intercept has no bias.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import linear
        >>> linear(LinearRegression(3)).latent_shape, linear(LinearRegression(3), hidden=(8,)).latent_shape
        ((3,), (41,))
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

    Args:
        family: the tasks.
        signal: what a step sees. With `config.curvature` it sees the inputs of the weights as well.
        config: the transformer of h_phi.
        hidden: widths of f's hidden layers.
        token_per_row: one token for each row of each weight matrix, or one for all of theta (the paper).

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import parametric
        >>> parametric(LinearRegression(3)).init(n_tasks=2).latent.shape
        torch.Size([2, 3])
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

    Args:
        family: the tasks.
        signal: what a step sees.
        config: the transformer. With `features`, `config.curvature` preconditions z as it does parametric weights.
        tokens: z is this number of vectors (16).
        token_width: the width of these vectors (32).
        features: z is the head on this number of learnt features of x instead, one vector for each output.
        modulated: z scales and shifts the hidden units of one network with hidden layers of these widths instead.

    Raises:
        ValueError: `config.curvature` without `features`, because an embedding has none; or more than one of tokens,
            `features` and `modulated`, because each says what z is.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import explicit
        >>> explicit(LinearRegression(3)).init(n_tasks=2).latent.shape
        torch.Size([2, 16, 32])
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

    The features are learnt. The state is the head's sufficient statistics, so it is exact and additive.

    Args:
        family: the tasks.
        features: the number of learnt features.
        strength: where the learnt ridge penalty starts.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import closed_form
        >>> closed_form(LinearRegression(3), features=16).refiner.capabilities.merge
        True

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

    - The posterior of a regression is exact (`Conjugate`), that of classes nearly so (`Laplace`).
    - Priors with and without the features are averaged by the likelihood of the task's rows. So features do no harm
      where a linear f is right.

    Args:
        family: the tasks.
        features: the number of learnt features.
        precisions: where the priors start, each for (x, features, 1). The 1 is left out without an intercept.
        learnt: whether features and priors are meta-trained.
        activation: the activation of the features, on tensors `[B, N, features]`.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import bayesian
        >>> bayesian(LinearRegression(3), features=16).refiner.capabilities.merge
        True

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


def implicit(
    family: TaskFamily,
    signal: Signal = PLAIN,
    config: TransformerConfig = DEFAULT,
    state: str = "logits",
) -> Learner:
    """Return an implicit learner: r_gamma refines the prediction itself, one per query row.

    Args:
        family: the tasks.
        signal: PLAIN.
        config: the transformer of r_gamma.
        state: what is refined: `logits` (outputs in a regression), `latents` or `probabilities`.

    Raises:
        ValueError: any signal but PLAIN, an unknown state, or probabilities in a regression.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import implicit
        >>> implicit(LinearRegression(3)).refiner.capabilities.per_query
        True
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
    """Return a learner that predicts an order of x's columns.

    Args:
        family: the tasks, whose answer is an order.
        signal: PLAIN.
        config: the transformer.
        token_width: the width of a token for each variable, which a learnt score reads (explicit). None: the state is
            the scores themselves (implicit).

    Raises:
        ValueError: a family whose answer is no order, or any signal but PLAIN.

    Example:
        >>> from gradatim import StructuralCausalModel
        >>> from gradatim.regimes import ordering
        >>> ordering(StructuralCausalModel(variables=5)).init(n_tasks=2).latent.shape
        torch.Size([2, 5, 32])

    Source: Mittal et al. 2025, topological order; Lorch et al. 2022 (the attention).
    """
    check_order(family)
    if signal != PLAIN:
        raise ValueError(
            "rows of a causal model have no answer, so no prediction stands at them and their loss has no gradient: "
            f"an order is learnt from observations only; got {signal}: use PLAIN"
        )
    predictor = OrderScores(family.x_dim, token_width)
    return Learner(predictor, VariableRefiner(config, family.x_dim, predictor.latent_shape[1]), PLAIN)


def check_order(family: TaskFamily) -> None:
    """Check that a family asks for an order of x's columns.

    Raises:
        ValueError: its answer is something else.
    """
    if not isinstance(family.likelihood, Order):
        raise ValueError(
            f"an order is asked of families whose answer is one; got {type(family).__name__}: use another regime"
        )


def y_likelihood(family: TaskFamily) -> Likelihood:
    """Return the likelihood of a family's rows.

    Raises:
        ValueError: a family without one, or whose support rows have no y.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.regimes import y_likelihood
        >>> y_likelihood(LinearRegression(3))
        SquaredError(output_dim=1)
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
