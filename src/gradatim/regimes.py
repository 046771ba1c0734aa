"""The three ways of filling the same slots; each refuses a misfit with a sentence.

Source: Mittal et al. 2025, table 1: parametric (g learnt), explicit (f and g), implicit (f).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .learner import Learner
from .predictors import Decoder, Network, Readout, likelihood
from .refiners import QueryRefiner, RowsConfig, RowsRefiner
from .signal import BOTH, PLAIN

if TYPE_CHECKING:
    from .family import TaskFamily
    from .signal import Signal

DEFAULT = RowsConfig()


def linear(family: TaskFamily, hidden: tuple[int, ...] = ()) -> Network:
    """Return the predictor of known form for a family: (softmax-)linear, or a tanh network with `hidden` layers.

    A linear model of a family without an intercept has no bias.
    """
    bias = family.intercept or bool(hidden)
    return Network(family.x_dim, likelihood(family.y_dim, family.classes), hidden, bias)


def parametric(
    family: TaskFamily,
    signal: Signal = BOTH,
    config: RowsConfig = DEFAULT,
    hidden: tuple[int, ...] = (),
    token_per_row: bool = True,
) -> Learner:
    """Return a parametric learner: f of known form, its weights theta refined by h_phi.

    `hidden`: widths of f's hidden layers; `token_per_row`: a token for each row of each weight matrix, or one for all
    of theta (the paper).
    """
    predictor = linear(family, hidden)
    shapes = predictor.layout.shapes if token_per_row else ((1, predictor.layout.size),)
    widths = (family.x_dim, family.y_dim, family.classes, predictor.output_dim)
    return Learner(predictor, RowsRefiner(config, signal, predictor.initial(), shapes, *widths), signal)


def explicit(
    family: TaskFamily,
    signal: Signal = BOTH,
    config: RowsConfig = DEFAULT,
    tokens: int = 16,
    token_width: int = 32,
) -> Learner:
    """Return an explicit learner: a learnt decoder f_gamma on a learnt embedding z of `tokens` vectors."""
    out = likelihood(family.y_dim, family.classes)
    predictor = Decoder(family.x_dim, out, tokens, token_width, width=config.width)
    widths = (family.x_dim, family.y_dim, family.classes, predictor.output_dim)
    refiner = RowsRefiner(config, signal, predictor.initial(), ((tokens, token_width),), *widths)
    return Learner(predictor, refiner, signal)


def implicit(
    family: TaskFamily,
    signal: Signal = PLAIN,
    config: RowsConfig = DEFAULT,
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
    if state == "probabilities" and family.classes is None:
        raise ValueError(
            "probabilities need classes; this family is a regression: use state='logits' or 'latents'"
        )
    predictor = Readout(likelihood(family.y_dim, family.classes), state, config.width, family.x_dim)
    refiner = QueryRefiner(
        config, predictor.state_width, family.x_dim, family.y_dim, family.classes, state == "probabilities"
    )
    return Learner(predictor, refiner, PLAIN)
