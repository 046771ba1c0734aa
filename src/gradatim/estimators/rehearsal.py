"""A classifier for streams of classes: a network, a small buffer of rows, and a penalty on what a batch is called.

After the idea of: Alssum et al. 2025 (arXiv 2512.01818); `regularizers.information` has the formulation, which is ours.

Source: Chaudhry et al. 2019 (rehearsal from a reservoir); Pedregosa et al. 2011 (the estimator's interface).
"""

from __future__ import annotations

import copy
import numbers
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from torch import nn
from torch.nn.functional import cross_entropy

from ..names import hint
from ..preprocessing.labels import positions, read_labels, union
from ..regularizers.information import KINDS, information_loss
from . import rehearsal_file
from .base import RAVEL
from .buffer import Buffer, Moments

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

FIT_PASSES = 10
"""`fit` goes over its rows so many times as often as `partial_fit`: they are no stream, in shuffled order."""

CHUNK = 1000
"""Rows that are predicted at a time."""


class RehearsalClassifier(ClassifierMixin, BaseEstimator):
    """Learn classes that come one after the other, and keep the earlier ones.

    Each mini-batch of new rows is learnt together with as many rows drawn from a buffer, which holds every row so far
    with the same probability. `loss = CE(new) + CE(replayed) + weight * penalty`, by plain gradient steps, over the
    classes that have had rows. The penalty keeps the network from calling everything by its newest classes.

    For a table, or for features of a frozen network, `RefinedClassifier` is often better and keeps no rows.

    Args:
        net: maps x `[n, ...]` to features `[n, f]`; a linear head on them grows with the classes. A copy is trained.
            None: one hidden layer on flat x.
        buffer: rows kept; 0 learns without rehearsal.
        regularizer: `"marginal"`, `"full"`, `"entropy"` (see `information_loss`), or None for rehearsal alone.
        target: the rows it sees: `"both"` new and replayed ones, or those of the `"replay"`.
        weight: of the regularizer.
        lr: the size of a step.
        batch_size: new rows of a step, and replayed ones.
        n_passes: over the rows of each `partial_fit`; `fit` makes ten times as many, in shuffled order.
        standardize: columns by running moments of the rows so far; images by one mean and deviation.
        random_state: of the default network and the buffer.

    Attributes:
        classes_: the labels, sorted.
        n_features_in_: how many columns, or channels of images.
        feature_names_in_: the names of named columns.
        module_: the trained network and its head.
        buffer_: the rows kept.

    Example:
        >>> import numpy as np
        >>> from gradatim.estimators.rehearsal import RehearsalClassifier
        >>> rng = np.random.default_rng(0)
        >>> y = np.repeat(["ash", "elm", "oak", "yew"], 200)  # one class after the other
        >>> X = 3 * np.eye(4)[np.repeat(range(4), 200)] + rng.normal(size=(800, 4))
        >>> model = RehearsalClassifier(buffer=20)
        >>> for start in range(0, 800, 50):
        ...     model = model.partial_fit(X[start : start + 50], y[start : start + 50])
        >>> bool(model.score(X, y) > 0.85)
        True
    """

    n_features_in_: int
    feature_names_in_: np.ndarray
    classes_: np.ndarray
    codes_: np.ndarray
    module_: nn.ModuleDict
    buffer_: Buffer
    moments_: Moments
    shape_: tuple[int, ...]

    def __init__(
        self,
        net: nn.Module | None = None,
        buffer: int = 200,
        regularizer: str | None = "marginal",
        target: str = "both",
        weight: float = 3.0,
        lr: float = 0.03,
        batch_size: int = 10,
        n_passes: int = 1,
        standardize: bool = True,
        random_state: Any = 0,
    ) -> None:
        self.net = net
        self.buffer = buffer
        self.regularizer = regularizer
        self.target = target
        self.weight = weight
        self.lr = lr
        self.batch_size = batch_size
        self.n_passes = n_passes
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Learn rows X `[n, ...]`, y `[n]` in shuffled order, forgetting what was known.

        Raises:
            ValueError: no rows, NaN or infinity, labels that are none, an argument out of range.
        """
        self._check_arguments()
        fresh = copy.copy(self)
        for name in [name for name in vars(fresh) if name.endswith("_")]:
            delattr(fresh, name)
        x, y = fresh._read(X, y, reset=True)
        order = np.random.default_rng(0).permutation(len(y))
        fresh._learn(x[order], y[order], self.n_passes * FIT_PASSES)
        self.__dict__ = fresh.__dict__
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learn more rows X `[n, ...]`, y `[n]`, in their order; any class may be new, or come back.

        `classes`: all that there are, as far as they are known. Those without a row are never predicted.

        Raises:
            ValueError: as `fit`; rows of another shape, labels of another type, a network that diverged.
        """
        self._check_arguments()
        first = not hasattr(self, "classes_")
        if not first and self.buffer != self.buffer_.size:
            raise ValueError(
                f"buffer was {self.buffer_.size} when learning began; got {self.buffer}: put it back, or call fit"
            )
        x, y = self._read(X, y, reset=first)
        known = None if classes is None else read_labels(classes, RAVEL)
        self._learn(x, y, self.n_passes, known)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities `[n, C]`, float64, columns as in `classes_`; of a class without rows they are 0.

        Raises:
            ValueError: rows of another shape than were learnt, NaN or infinity.
        """
        check_is_fitted(self)
        x = self._checked(validate_data(self, X, dtype=np.float32, allow_nd=True, reset=False))
        self.module_.eval()
        with torch.no_grad():
            parts = [self._logits(part).double().softmax(1).numpy() for part in x.split(CHUNK)]
        wide = np.zeros((len(x), len(self.classes_)))
        seen = self.codes_ >= 0
        wide[:, seen] = np.concatenate(parts)[:, self.codes_[seen]]
        return wide

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely class of each row, `[n]`.

        Raises:
            ValueError: as `predict_proba`.
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def save(self, path: Path | str) -> Path:
        """Write network, buffer and classes to one file without pickle; return its path.

        The file holds the rows of the buffer. A loaded classifier goes on as this one would, to the last bit.

        Raises:
            ValueError: the file cannot be written; what stood there stays.
        """
        check_is_fitted(self)
        return rehearsal_file.write_rehearsal(path, self)

    @classmethod
    def load(cls, path: Path | str, net: nn.Module | None = None) -> Self:
        """Return the classifier that `save` wrote; a network of your own is given again, and its weights are read.

        Raises:
            ValueError: a file that is missing, damaged, foreign or newer, or that belongs to another network.
        """
        return rehearsal_file.read_rehearsal(path, cls, net)

    def _read(self, X: Any, y: Any, reset: bool) -> tuple[Tensor, np.ndarray]:
        """Return rows `[n, ...]` and labels `[n]`, checked before anything is learnt."""
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None")
        x = self._checked(validate_data(self, X, dtype=np.float32, allow_nd=True, reset=reset), reset)
        labels = read_labels(y, RAVEL)
        check_consistent_length(x, labels)
        return x, labels

    def _checked(self, x: Any, reset: bool = False) -> Tensor:
        if not reset and x.shape[1:] != self.shape_:
            raise ValueError(
                f"rows must have the shape {self.shape_}, as those learnt; got {x.shape[1:]}: give rows of that shape"
            )
        return torch.from_numpy(np.ascontiguousarray(x))

    def _learn(self, x: Tensor, y: np.ndarray, passes: int, known: np.ndarray | None = None) -> None:
        labels = np.unique(y) if known is None else union(np.unique(known), y)
        if hasattr(self, "classes_"):
            labels = union(self.classes_, labels)
        else:
            self._begin(x)
            self.classes_, self.codes_ = labels[:0], np.zeros(0, dtype=np.int64)
        codes = np.full(len(labels), -1)
        if len(self.classes_):
            codes[positions(labels, self.classes_)] = self.codes_
        self.classes_, self.codes_ = labels, codes
        place = positions(labels, y)
        for turn in range(passes):
            for start in range(0, len(y), self.batch_size):
                part = slice(start, start + self.batch_size)
                if not turn:
                    self._meet(x[part], place[part])
                self._step(x[part], torch.from_numpy(self.codes_[place[part]]), keep=not turn)

    def _begin(self, x: Tensor) -> None:
        """Make the network, the buffer and the moments for rows like x `[n, ...]`."""
        state = self.random_state
        seed = (
            int(state)
            if isinstance(state, numbers.Integral)
            else int(check_random_state(state).randint(2**31))
        )
        shape = tuple(x.shape[1:])
        module = nn.ModuleDict({"net": self._network(shape, seed)})
        module.eval()
        with torch.no_grad():
            features = module["net"](x[:1])
        if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 1:
            got = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise ValueError(
                f"net must map rows [n, ...] to features [n, f]; of one row it made {got}: end it with nn.Flatten()"
            )
        module["head"] = rehearsal_file.head(features.shape[1], 1)
        self.module_, self.shape_ = module, shape
        self.buffer_ = Buffer(self.buffer, shape, np.random.default_rng([seed, self.buffer]))
        self.moments_ = Moments(shape)

    def _network(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """Return a copy of the network, or the default one with weights drawn by the seed."""
        if self.net is not None:
            return copy.deepcopy(self.net)
        return rehearsal_file.default_net(shape, seed)

    def _meet(self, x: Tensor, place: np.ndarray) -> None:
        """Count new rows `[n, ...]` into the moments, and give each new class a place in the head."""
        if self.standardize:
            self.moments_.add(x)
        fresh = [at for at in dict.fromkeys(place.tolist()) if self.codes_[at] < 0]
        for at in fresh:
            self.codes_[at] = self.codes_.max() + 1
        if fresh:
            old = self.module_["head"]
            assert isinstance(old, nn.Linear)
            new = rehearsal_file.head(old.in_features, int(self.codes_.max()) + 1)
            with torch.no_grad():
                new.weight[: old.out_features], new.bias[: old.out_features] = old.weight, old.bias
            self.module_["head"] = new

    def _step(self, x: Tensor, y: Tensor, keep: bool) -> None:
        """Take one gradient step on new rows x `[n, ...]`, y `[n]` and replayed ones, and keep some of the new ones."""
        old_x, old_y = self.buffer_.draw_rows(self.batch_size)
        self.module_.train()
        loss = self._loss(self._logits(torch.cat([x, old_x])), torch.cat([y, old_y]), len(y))
        if not bool(torch.isfinite(loss)):
            raise ValueError(
                f"the network diverged, its loss is {loss.item()}: choose a smaller lr than {self.lr:g}, or scale X; "
                "what was learnt before this step stays"
            )
        weights = [w for w in self.module_.parameters() if w.requires_grad]
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                if slope is not None:
                    weight -= self.lr * slope
        if keep:
            self.buffer_.add(x, y)

    def _loss(self, logits: Tensor, y: Tensor, n_new: int) -> Tensor:
        loss = cross_entropy(logits[:n_new], y[:n_new])
        if len(y) > n_new:
            loss = loss + cross_entropy(logits[n_new:], y[n_new:])
        rows = logits if self.target == "both" else logits[n_new:]
        if self.regularizer is None or not len(rows):
            return loss
        return loss + information_loss(rows, None, self.regularizer, float(self.weight))

    def _logits(self, x: Tensor) -> Tensor:
        return self.module_["head"](self.module_["net"](self.moments_(x) if self.standardize else x))

    def _check_arguments(self) -> None:
        """Check the arguments.

        Raises:
            ValueError: one is out of range.
        """
        for name, low in (("buffer", 0), ("batch_size", 1), ("n_passes", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
                raise ValueError(f"{name} must be a whole number of at least {low}; got {value!r}: change it")
        for name in ("weight", "lr"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or not 0 <= float(value) < np.inf:
                raise ValueError(f"{name} must be a finite number of at least 0; got {value!r}: change it")
        for name, allowed in (("regularizer", KINDS), ("target", ("both", "replay"))):
            value = getattr(self, name)
            if value not in allowed and not (value is None and name == "regularizer"):
                raise ValueError(
                    f"{name} must be one of its names; got {value!r}: {hint(str(value), allowed)}"
                )
        if self.net is not None and not isinstance(self.net, nn.Module):
            raise ValueError(
                f"net must be a torch.nn.Module or None; got a {type(self.net).__name__}: give a module"
            )
        if not self.buffer and self.target == "replay" and self.regularizer is not None:
            raise ValueError(
                "target='replay' needs rows to replay; got buffer=0: keep a buffer, or choose target='both'"
            )
