"""Size and options of the transformer refiner.

Source: Mittal et al. 2025, eq. 7.
"""

from __future__ import annotations

from dataclasses import dataclass

from .gain import DECAYING, Gain


@dataclass(frozen=True)
class TransformerConfig:
    """Size and options of the transformer refiner.

    Fields: `width`, `layers`, `heads` of the transformer; `gain`: how far a step moves; `prefixes`: whether one pass
    predicts for many prefix lengths, so that rows see only themselves and the state, not each other; `tail`: eta of the
    tail average that predictions read (None: the last iterate); `at_average`: whether signals are taken at that average
    too; `curvature`: the gain by which second moments of the weights' inputs are averaged over mini-batches, to
    precondition the gradient (power 0: of the newest mini-batch; 1: of all rows seen; None: no preconditioning);
    `proximal`: whether that preconditioner's damping grows with the rows seen, which leaves its step whole and scales
    the rest of a move by the gain squared; `precision`: whether proposals come with a precision and are fused by it, a
    learnt Kalman gain for each coordinate, times `gain`'s value; `memory`: how many tokens are carried beside the
    latent, trained by `Unrolled`; `history`: how many of the last latents, and gradients where there are any, a step
    sees and may move along.

    Raises:
        ValueError: `at_average` without `tail`, a learnt gain beside `precision`, `proximal` without `curvature` or
            with `history`, a negative memory or history.

    Example:
        >>> from gradatim.refiners import TransformerConfig
        >>> TransformerConfig(width=32, layers=1).heads
        4
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    gain: Gain = DECAYING
    prefixes: bool = False
    tail: float | None = None
    at_average: bool = False
    curvature: Gain | None = None
    proximal: bool = False
    precision: bool = False
    memory: int = 0
    history: int = 0

    def __post_init__(self) -> None:
        if self.at_average and self.tail is None:
            raise ValueError("signals at the average need an average; got tail None: give tail=0.0")
        if self.precision and self.gain.learnt:
            raise ValueError(
                "a gain is learnt or follows from precisions; got both: drop gain.learnt or precision"
            )
        if self.proximal and self.curvature is None:
            raise ValueError("a proximal step needs curvature; got None: give curvature=Gain(power=0.0)")
        if self.proximal and self.history:
            raise ValueError("a proximal step is taken whole, from the last latent alone: leave out history")
        for name, what in (("memory", "tokens"), ("history", "mini-batches")):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is a number of {what}, at least 0; got {getattr(self, name)}")
