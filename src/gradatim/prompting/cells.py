"""The four axes of reprogramming as values, which of their combinations make sense, and which are built.

Source: Ye et al. 2025 (neural network reprogrammability, arXiv 2506.04650): `y = O_omega(f(I_lambda(x)))`, f frozen.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from ..batch import check_count

Configuration = Literal["learnable", "fixed"]
Location = Literal["input", "embedding", "hidden", "output"]
Operator = Literal["additive", "concatenative", "parametric", "replacement"]
Alignment = Literal["identity", "rule", "frequent", "iterative", "linear"]
Cell = tuple[str, str, str, str]

AXES: dict[str, tuple[str, ...]] = {
    "configuration": get_args(Configuration),
    "location": get_args(Location),
    "operator": get_args(Operator),
    "alignment": get_args(Alignment),
}
"""The values of each axis."""


@dataclass(frozen=True)
class Reprogramming:
    """How a frozen model is made to answer another task: what is added where, and how its outputs are read.

    Fields:
        `configuration`: `learnable`: by gradient through the frozen model; `fixed`: nothing is learnt of the input.
        `location`: where the model is met: its input, the embedding of its tokens, a hidden layer, its output.
        `operator`: `additive`: numbers are added; `concatenative`: numbers, tokens or rows stand beside; `parametric`:
            a learnt linear map; `replacement`: the outer numbers of the input give way to learnt ones.
        `alignment`: which output is which class. `identity`: output c is class c, or the one of `labels`; `rule`:
            several outputs for a class, by `labels`; `frequent`: the output that comes most often for a class's
            rows; `iterative`: that, counted anew after each pass; `linear`: a learnt linear map of all outputs.
        `tokens`: soft tokens, tokens of a prefix, or learnt rows; of a fixed one, examples in the prompt.
        `frame`: pixels, or numbers of a vector, at each side that x leaves free or that are replaced.
        `rank`: of a parametric map; 0 is a full one.
        `steps`, `batch_size`, `learning_rate`: of Adam on the delta and on a linear alignment.
        `layer`: the name of the hidden layer whose output is met; empty: the first one with weights.

    Raises:
        ValueError: an unknown word, a combination that makes no sense, sizes out of range.

    Example:
        >>> from gradatim.prompting import Reprogramming
        >>> Reprogramming(operator="additive", alignment="frequent").cell
        ('learnable', 'input', 'additive', 'frequent')

    Source: Ye et al. 2025; Tsai et al. 2020 (frequent); Chen et al. 2023 (iterative); Hu et al. 2022 (rank).
    """

    configuration: Configuration = "learnable"
    location: Location = "input"
    operator: Operator = "additive"
    alignment: Alignment = "identity"
    tokens: int = 8
    frame: int = 0
    rank: int = 0
    steps: int = 300
    batch_size: int = 32
    learning_rate: float = 0.01
    layer: str = ""

    def __post_init__(self) -> None:
        for axis, values in AXES.items():
            if getattr(self, axis) not in values:
                raise ValueError(f"{axis} is one of {', '.join(values)}; got {getattr(self, axis)!r}")
        for name in ("tokens", "batch_size"):
            check_count(name, getattr(self, name))
        for name in ("frame", "rank", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is a whole number of at least 0; got {value!r}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is a finite number above 0; got {self.learning_rate!r}")
        if why := _nonsense(*self.cell):
            raise ValueError(why)
        if self.operator == "replacement" and not self.frame:
            raise ValueError(
                "a replacement needs to know how much is replaced; got frame=0: give frame, the numbers at each side"
            )

    @property
    def cell(self) -> Cell:
        """Return the four axes."""
        return (self.configuration, self.location, self.operator, self.alignment)

    @property
    def name(self) -> str:
        """Return the four axes as a line of a table."""
        return " ".join(self.cell)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def _nonsense(configuration: str, location: str, operator: str, alignment: str) -> str | None:
    """Return why a combination makes no sense, in a sentence, or None."""
    if location == "output" and operator in ("concatenative", "replacement"):
        return (
            f"outputs are added to or mapped; got a {operator} output: choose additive or parametric, or "
            "another location"
        )
    if location == "output" and alignment == "linear":
        return (
            "a linear alignment maps outputs already; got another map of outputs before it: choose location "
            "input, embedding or hidden"
        )
    if location != "input" and operator == "replacement":
        return (
            f"only numbers of the input are replaced; got a replacement at {location}: choose location input"
        )
    if configuration == "learnable":
        return None
    if location != "input":
        return (
            f"what is fixed stands in the input; got a fixed {location}: choose location input, or learnable"
        )
    if operator in ("parametric", "replacement"):
        return (
            f"a {operator} operator has numbers that must be learnt; got configuration fixed: choose learnable, or "
            "additive, which leaves x as it is"
        )
    if alignment == "iterative":
        return (
            "a fixed input gives the same counts at every pass; got iterative: choose frequent, or learnable"
        )
    return None


ALL: tuple[str, ...] = AXES["alignment"]
COUNTED: tuple[str, ...] = ("identity", "rule", "frequent", "iterative")

BUILT: dict[str, dict[tuple[str, str, str], tuple[str, ...]]] = {
    "module": {
        ("fixed", "input", "additive"): ("identity", "rule", "frequent", "linear"),
        ("learnable", "input", "additive"): ALL,
        ("learnable", "input", "concatenative"): ALL,
        ("learnable", "input", "parametric"): ALL,
        ("learnable", "input", "replacement"): ALL,
        ("learnable", "hidden", "additive"): ALL,
        ("learnable", "hidden", "parametric"): ALL,
        ("learnable", "output", "additive"): ("identity", "rule", "frequent"),
        ("learnable", "output", "parametric"): ("identity", "rule", "frequent"),
    },
    "language": {
        ("fixed", "input", "concatenative"): ("identity", "rule", "frequent", "linear"),
        ("learnable", "embedding", "additive"): ALL,
        ("learnable", "embedding", "concatenative"): ALL,
        ("learnable", "hidden", "concatenative"): ALL,
        ("learnable", "hidden", "parametric"): ALL,
    },
    "learner": {
        ("fixed", "input", "concatenative"): ("identity",),
        ("learnable", "input", "additive"): ("identity",),
        ("learnable", "input", "concatenative"): ("identity",),
        ("learnable", "input", "parametric"): ("identity",),
    },
}
"""What is built for each kind of model: alignments by configuration, location and operator."""


def cells(kind: str) -> tuple[Cell, ...]:
    """Return the fixed list of cells that are built for a kind of model: `module`, `language` or `learner`.

    Raises:
        ValueError: an unknown kind.

    Example:
        >>> from gradatim.prompting import cells
        >>> len(cells("module")), len(cells("language")), len(cells("learner"))
        (40, 24, 4)
    """
    if kind not in BUILT:
        raise ValueError(f"models are of the kinds {', '.join(BUILT)}; got {kind!r}")
    return tuple((*place, alignment) for place, known in BUILT[kind].items() for alignment in known)


def check_built(kind: str, how: Reprogramming) -> None:
    """Check that a cell is built for a kind of model.

    Raises:
        ValueError: it is not; the message lists what is.
    """
    known = BUILT[kind].get(how.cell[:3], ())
    if how.alignment not in known:
        places = sorted({" ".join(place) for place in BUILT[kind]})
        raise ValueError(
            f"{how.name} is not built for a {kind}: "
            + (f"alignment there is one of {', '.join(known)}" if known else f"known are {', '.join(places)}")
        )


in_context_learning = Reprogramming("fixed", "input", "concatenative", "identity")
"""Labelled examples stand before the question; nothing is learnt. For language models and for learners."""

prompt_tuning = Reprogramming("learnable", "embedding", "concatenative", "identity")
"""Learnt tokens stand before the text. For language models. Source: Lester et al. 2021."""

prefix_tuning = Reprogramming("learnable", "hidden", "concatenative", "identity")
"""Learnt keys and values stand before the text in every layer. For language models. Source: Li, Liang 2021."""

model_reprogramming = Reprogramming("learnable", "input", "additive", "frequent")
"""Learnt numbers are added to x, and outputs are read by counts. For modules. Source: Elsayed et al. 2019."""
