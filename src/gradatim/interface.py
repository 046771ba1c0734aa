"""What all estimators of tables share: the tables that they read, and calls that change everything or nothing.

Source: Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from sklearn.base import _clone_parametrized

if TYPE_CHECKING:
    from collections.abc import Iterator


class TableInterface:
    """A base of estimators; it stands before scikit-learn's own among the bases."""

    prior: Any

    def __sklearn_tags__(self) -> Any:
        """Return what kinds of tables are read."""
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        for kind in ("allow_nan", "sparse", "string", "categorical"):
            setattr(tags.input_tags, kind, True)
        return tags

    def __sklearn_clone__(self) -> Self:
        """Return an estimator of the same parameters that has learnt nothing; a prior that is fitted stays so."""
        fresh: Any = _clone_parametrized(self)
        fresh.prior = self.prior
        return fresh

    @contextmanager
    def _unharmed(self) -> Iterator[None]:
        """Put everything back as it was where something is raised."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
