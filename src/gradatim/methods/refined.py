"""Methods whose update is a transformer: parametric, explicit and implicit learners.

Source: Mittal et al. 2025, table 1: parametric (g learnt), explicit (f and g), implicit (f).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..learner import Learner
from ..refiners import DECAYING, Bagged, Gain, TransformerConfig
from ..regimes import explicit, implicit, parametric
from ..signal import BOTH, GRADIENTS, OBSERVATIONS, PLAIN
from .base import Method

if TYPE_CHECKING:
    from ..family import TaskFamily

SIGNALS = {"observations": OBSERVATIONS, "gradients": GRADIENTS, "both": BOTH, "plain": PLAIN}


@dataclass(frozen=True, kw_only=True)
class TransformerMethod(Method):
    """A method whose update is a transformer.

    Fields:
        `width`: the width of the transformer's tokens.
        `layers`: the number of the transformer's layers.
        `heads`: the number of its attention heads.
        `gain`: how far a step moves.

    Example:
        >>> from gradatim.methods import Implicit
        >>> Implicit(width=32).transformer().width
        32
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    gain: Gain = DECAYING

    def transformer(self) -> TransformerConfig:
        """Return the configuration of the transformer: the method's fields of the same names."""
        names = {field.name for field in fields(TransformerConfig)}
        return TransformerConfig(**{f.name: getattr(self, f.name) for f in fields(self) if f.name in names})


@dataclass(frozen=True, kw_only=True)
class LatentMethod(TransformerMethod):
    """A method whose latent a transformer refines, see `TransformerConfig`.

    Fields:
        `signal`: what a step sees. Observations are rows with the predictions at them; plain is rows alone.
        `prefixes`: one pass predicts for many prefix lengths, and rows see only themselves and the state.
        `tail`: eta of the tail average that predictions use. null: the last iterate.
        `at_average`: signals are taken at the tail average too.
        `curvature`: the gain of the second moments that precondition gradients. null: no preconditioning.
        `proximal`: damping grows with the rows seen.
        `precision`: proposals come with a precision and are fused by it.
        `memory`: tokens that are carried beside the latent.
        `history`: past latents and gradients that a step sees.

    Example:
        >>> from gradatim.methods import Explicit, Parametric
        >>> Parametric(tail=0.0).tail, Explicit(memory=2).memory
        (0.0, 2)
    """

    signal: Literal["observations", "gradients", "both", "plain"] = "both"
    prefixes: bool = False
    tail: float | None = None
    at_average: bool = False
    curvature: Gain | None = None
    proximal: bool = False
    precision: bool = False
    memory: int = 0
    history: int = 0


@dataclass(frozen=True, kw_only=True)
class Parametric(LatentMethod):
    """f of known form, a linear model or a tanh network, whose weights are refined.

    Fields:
        `hidden`: widths of f's hidden layers. Without any f is linear.
        `token_per_row`: one token for each row of each weight matrix, or one token for all weights.

    Example:
        >>> from gradatim.families import LinearRegression
        >>> from gradatim.methods import Parametric
        >>> learner = Parametric(signal="gradients", width=32).build(LinearRegression(dim=8))
        >>> learner.signal.gradients, learner.signal.observations
        (True, False)

    Source: Mittal et al. 2025, eq. 7.
    """

    summary: ClassVar[str] = "weights of a known form, refined"
    hidden: tuple[int, ...] = ()
    token_per_row: bool = True

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        signal = SIGNALS[self.signal]
        return parametric(family, signal, self.transformer(), self.hidden, self.token_per_row)


@dataclass(frozen=True, kw_only=True)
class ParametricOneStep(Parametric):
    """Weights of a known form from a single refinement.

    Example:
        >>> from gradatim.methods import Parametric, ParametricOneStep
        >>> ParametricOneStep().one_step, Parametric().one_step
        (True, False)
    """

    summary: ClassVar[str] = "weights from a single refinement"
    one_step: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class BaggedOneStep(Parametric):
    """The mean of single refinements, one for each mini-batch.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import BaggedOneStep
        >>> learner = BaggedOneStep(width=32).build(LinearRegression(dim=3))
        >>> learner.init(n_tasks=2).latent.shape
        torch.Size([2, 3])
    """

    summary: ClassVar[str] = "the mean of single refinements, one for each mini-batch"
    one_step: ClassVar[bool] = True

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        single = super().build(family)
        return Learner(single.predictor, Bagged(single.refiner), single.signal)


@dataclass(frozen=True, kw_only=True)
class Explicit(LatentMethod):
    """A learnt f on a learnt embedding z of the task, which is refined.

    Fields:
        `tokens`: z is this number of vectors. null: 16.
        `token_width`: the width of these vectors. null: 32.
        `features`: z is a linear head on this number of learnt features instead.
        `modulated`: z scales and shifts hidden layers of these widths instead.

    Example:
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Explicit
        >>> learner = Explicit(tokens=4, token_width=8).build(LinearRegression(dim=3))
        >>> learner.init(n_tasks=2).latent.shape
        torch.Size([2, 4, 8])

    Source: Mittal et al. 2025, eq. 7.
    """

    summary: ClassVar[str] = "a task embedding and a learnt decoder, refined"
    tokens: int | None = None
    token_width: int | None = None
    features: int | None = None
    modulated: tuple[int, ...] | None = None

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""
        shape = (self.tokens, self.token_width, self.features, self.modulated)
        return explicit(family, SIGNALS[self.signal], self.transformer(), *shape)


@dataclass(frozen=True, kw_only=True)
class ExplicitOneStep(Explicit):
    """A task embedding from a single refinement.

    Example:
        >>> from gradatim.methods import ExplicitOneStep
        >>> ExplicitOneStep(width=32).one_step
        True
    """

    summary: ClassVar[str] = "a task embedding from a single refinement"
    one_step: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class Implicit(TransformerMethod):
    """The prediction of each query row is the state, refined by rows.

    Fields:
        `state`: what is refined: the query's logits (outputs in a regression), latents or probabilities.
        `prefixes`: one pass predicts for many prefix lengths, and rows see only themselves.

    Example:
        >>> import torch
        >>> from gradatim import LinearRegression
        >>> from gradatim.methods import Implicit
        >>> family = LinearRegression(dim=3)
        >>> learner, task = Implicit(width=32).build(family), family.sample(2, torch.Generator().manual_seed(0))
        >>> learner.predict(task.query.x, learner.init(n_tasks=2, query=task.query)).shape
        torch.Size([2, 64, 1])

    Source: Mittal et al. 2025, eq. 8.
    """

    summary: ClassVar[str] = "the query's prediction, refined by rows"
    state: Literal["logits", "latents", "probabilities"] = "logits"
    prefixes: bool = False

    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family.

        Raises:
            ValueError: a learnt gain, or probabilities in a regression.
        """
        if self.gain.learnt:
            raise ValueError(
                "an implicit state belongs to its queries, so no gain is learnt for its coordinates; got gain.learnt: "
                "leave it out"
            )
        return implicit(family, config=self.transformer(), state=self.state)


@dataclass(frozen=True, kw_only=True)
class ImplicitOneStep(Implicit):
    """One-shot in-context learning.

    Example:
        >>> from gradatim.methods import ImplicitOneStep
        >>> ImplicitOneStep(width=32).state
        'logits'
    """

    summary: ClassVar[str] = "one-shot in-context learning (as a PFN)"
    one_step: ClassVar[bool] = True


def preset_summaries(regime: str) -> dict[str, Any]:
    """Return the summaries of a regime's presets, by signal or state.

    Example:
        >>> from gradatim.methods.refined import preset_summaries
        >>> preset_summaries("parametric")["gradients"]
        'weights of a known form, refined by gradients'
    """
    seen = "by rows (x, y) alone"
    if regime == "parametric":
        form = "weights of a known form, refined by {}"
    elif regime == "explicit":
        form = "a task embedding and a learnt decoder, refined by {}"
    else:
        return {
            state: f"the query's {state}, refined by rows" for state in ("logits", "latents", "probabilities")
        }
    plain = form.replace("by {}", seen)
    return {**{name: form.format(name) for name in ("observations", "gradients", "both")}, "plain": plain}
