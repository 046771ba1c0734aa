"""A regressor for rows in groups: what groups share, and what each of them says of itself.

Source: Lindley, Smith 1972; Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score

from ..preprocessing.labels import read_targets
from .base import Grouped
from .weighing import mixture_quantiles

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class GroupedRegressor(RegressorMixin, Grouped):
    """Predict numbers of rows in groups (shops, patients, machines): a new group begins at what all groups share.

    `y = pooled(x) + w_g' phi(x) + noise`, w_g ~ N(m, S): boosted trees that have not seen the group, and a head of its
    own. Experts differ in what varies by group: the level, the slope on the pooled model, the slopes of all columns. m,
    S and the noise are learnt from the groups by EM; each group's own rows weigh the experts. Of a group sums are kept.

    Args:
        prior: what groups share, from elsewhere: the file of `save_prior` or `save`, or a fitted estimator.

    Attributes:
        groups_: the names of the groups that are known.
        effects_: how they differ, a dict of columns.
        n_features_in_: how many columns.
        feature_names_in_: the names of named columns.

    Example:
        >>> import numpy as np
        >>> from gradatim import GroupedRegressor
        >>> rng = np.random.default_rng(0)
        >>> group = np.repeat(np.arange(30), 10)
        >>> X = rng.normal(size=(300, 1))
        >>> y = 5 * rng.normal(size=30)[group] + X[:, 0] + 0.1 * rng.normal(size=300)
        >>> model = GroupedRegressor().fit(X, y, group)
        >>> float(abs(model.predict(X, group) - y).mean().round(1))
        0.1

    Source: Lindley, Smith 1972, eq. 8; Laird, Ware 1982, eq. 3.9; Yao et al. 2018, eq. 5.
    """

    def predict(
        self, X: Any, groups: Any = None, quantiles: Sequence[float] | None = None, return_std: bool = False
    ) -> Any:
        """Return means `[n]` of rows X `[n, columns]` of groups `[n]`; or quantiles `[n, Q]`; or `(means, deviations)`.

        A group that is not known is predicted by what groups share.

        Raises:
            ValueError: other columns than were learnt, a row without a group, a quantile outside (0, 1), both wanted.
        """
        levels = None if quantiles is None else np.asarray(quantiles, dtype=np.float64)
        if levels is not None and (return_std or levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all()):
            raise ValueError(f"quantiles must lie in (0, 1), without return_std; got {quantiles!r}")
        now, found = self._now(), []
        for x, fold, group, sums in now._asked(X, groups):
            weight, mean, variance, stretch = now.prior_.answer(x, fold, group, sums)
            middle = (weight * mean).sum(1)
            if levels is None:
                spread = (weight * (variance + (mean - middle[:, None]) ** 2)).sum(1)
                found.append(np.stack([middle, stretch * np.sqrt(spread)], axis=1))
            else:
                around = middle[:, None] + stretch[:, None] * (mean - middle[:, None])
                found.append(mixture_quantiles(weight, around, stretch[:, None] * np.sqrt(variance), levels))
        out = np.concatenate(found)
        return out if levels is not None else (out[:, 0], out[:, 1]) if return_std else out[:, 0]

    def score(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> float:  # type: ignore[override]
        """Return R squared of rows X `[n, columns]` and y `[n]` of groups `[n]`."""
        return float(r2_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def _checked(self, y: Any) -> np.ndarray:
        return read_targets(y)

    def _coded(self, y: np.ndarray) -> np.ndarray:
        return y

    def _note_classes(self, y: np.ndarray) -> None:
        pass

    def _n_classes(self) -> None:
        return None

    @classmethod
    def load(cls, path: Path | str) -> GroupedRegressor:
        """Return the estimator that `save` wrote.

        Raises:
            ValueError: a file that is missing, damaged, foreign, newer, or of another estimator.
        """
        return super().load(path)
