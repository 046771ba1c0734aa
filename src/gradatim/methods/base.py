"""What a method is: a frozen dataclass that holds every option it has and builds its learner for a family.

Source: one small config class for each model, after sbi (Tejero-Cantero et al. 2020).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ..config import from_json, init_fields
from ..registry import Registry

if TYPE_CHECKING:
    from ..family import TaskFamily
    from ..learner import Learner

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Learning rates that optimizers are tuned over."""

STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Penalties that ridge regressions are tuned over."""


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """One way of learning. Its fields are its options, and every one has an effect.

    Attributes:
        summary: what it is, in one line.
        learnt: whether it is meta-trained.
        one_step: whether it is meta-trained to predict after a single mini-batch.
        grid: options to be tuned on meta-training tasks, with the values to try.
        regression: whether it knows no classes.
        classification: whether it knows classes only.
        orders: whether it predicts an order of x's columns, for families that ask for one.

    Example:
        >>> from gradatim.families import LinearRegression
        >>> from gradatim.methods import Adam
        >>> learner = Adam(rate=0.1).build(LinearRegression(dim=8))
        >>> learner.refiner.lr
        0.1
    """

    summary: ClassVar[str] = ""
    learnt: ClassVar[bool] = True
    one_step: ClassVar[bool] = False
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    regression: ClassVar[bool] = False
    classification: ClassVar[bool] = False
    orders: ClassVar[bool] = False

    @abstractmethod
    def build(self, family: TaskFamily) -> Learner:
        """Return the learner for the tasks of a family."""


@dataclass(frozen=True)
class Preset:
    """A class of methods with some options fixed: what a name in the table of methods stands for.

    Fields:
        `kind`: the class.
        `fixed`: values of options that are fixed, and so are options no more.
        `text`: a summary in place of the class's.

    Example:
        >>> from gradatim.methods import METHODS
        >>> METHODS["parametric-gradients"](width=32)
        Parametric(..., signal='gradients', ...)
    """

    kind: type[Method]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""

    @property
    def summary(self) -> str:
        """Return what it is, in one line."""
        return self.text or self.kind.summary

    @property
    def learnt(self) -> bool:
        """Return whether it is meta-trained."""
        return self.kind.learnt

    @property
    def one_step(self) -> bool:
        """Return whether it is meta-trained to predict after a single mini-batch."""
        return self.kind.one_step

    @property
    def regression(self) -> bool:
        """Return whether it knows no classes."""
        return self.kind.regression

    @property
    def classification(self) -> bool:
        """Return whether it knows classes only."""
        return self.kind.classification

    @property
    def orders(self) -> bool:
        """Return whether it predicts an order of x's columns."""
        return self.kind.orders

    @property
    def grid(self) -> dict[str, tuple[Any, ...]]:
        """Return the options to be tuned on meta-training tasks, with the values to try."""
        return {name: tuple(values) for name, values in self.kind.grid.items() if name not in self.fixed}

    @property
    def options(self) -> dict[str, Any]:
        """Return the options by name, with their defaults."""
        defaults = {}
        for option in init_fields(self.kind):
            if option.name not in self.fixed:
                factory = option.default_factory
                defaults[option.name] = option.default if factory is MISSING else factory()
        return defaults

    def __call__(self, name: str | None = None, /, **options: Any) -> Method:
        """Return the method with these options; `name`: what it is called in error messages.

        Raises:
            ValueError: an option that it does not have, or a value of another type.
        """
        name = name or self.kind.__name__
        valid = self.options
        unknown = sorted(set(options) - set(valid))
        if unknown:
            has = ", ".join(valid) or "none"
            raise ValueError(f"{name} has no option {unknown[0]!r}; it has {has}")
        return from_json(self.kind, {**self.fixed, **options}, name)


class MethodRegistry(Registry[Preset]):
    """The table of methods: a preset for each name.

    Example:
        >>> from gradatim.methods import METHODS
        >>> METHODS["maml"].options
        {'hidden': (), 'rate': 0.03, 'learnt_rate': False}
    """

    def name_of(self, value: Any) -> str:
        """Return the name of a method: of the first preset of its class whose fixed options it has.

        Raises:
            ValueError: a class that no other program can import.

        Example:
            >>> from gradatim.methods import METHODS, Parametric
            >>> METHODS.name_of(Parametric(signal="gradients", width=32))
            'parametric-gradients'
        """
        kind = value if isinstance(value, type) else type(value)
        for name, preset in self.items():
            if preset.kind is kind and all(
                getattr(value, option, MISSING) == fixed for option, fixed in preset.fixed.items()
            ):
                return name
        return super().name_of(kind)

    def _entry(self, kind: type) -> Preset:
        return Preset(kind)
