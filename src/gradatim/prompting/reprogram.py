"""A frozen model that answers another task: fitted through the model, asked, and stored without it.

Source: Ye et al. 2025 (arXiv 2506.04650); Elsayed et al. 2019; Lester et al. 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import Linear, Mapping, assign, count_outputs, too_many
from .cells import Reprogramming, check_built
from .file import read_delta, write_delta
from .kinds import frozen, kind_of, make_adapter
from .modules import as_rows

if TYPE_CHECKING:
    from pathlib import Path

CHUNK = 256
"""Rows that the model reads at a time where nothing is learnt."""


class Reprogrammed:
    """A frozen model, what is added to its input, and how its outputs are read. `reprogram` makes it.

    Fields:
        `how`: the cell and its sizes.
        `classes_`: the labels, sorted.
        `adapter`: the frozen model with what was learnt, `adapter.delta`.
        `alignment`: which output is which class.
        `settings`: what else it was made with: shapes, texts of the question, seed.

    Example:
        >>> import torch
        >>> from gradatim.prompting import Reprogrammed, Reprogramming, reprogram
        >>> model, x = torch.nn.Linear(4, 3), torch.eye(4)
        >>> mine = reprogram(model, x, ["a", "b", "a", "b"], Reprogramming(steps=5))
        >>> again = Reprogrammed.load(mine.save("mine.safetensors"), model)
        >>> bool((again.predict_proba(x) == mine.predict_proba(x)).all())
        True
    """

    def __init__(
        self, how: Reprogramming, adapter: Any, alignment: Any, classes: np.ndarray, settings: dict[str, Any]
    ) -> None:
        self.how, self.adapter, self.alignment = how, adapter, alignment
        self.classes_, self.settings = classes, settings

    @property
    def model(self) -> nn.Module:
        """Return the frozen model."""
        return getattr(self.adapter, "base", self.adapter.model)

    @property
    def n_trainable(self) -> int:
        """Return the count of learnt numbers: of the delta and of a linear alignment."""
        return sum(part.numel() for part in self.adapter.delta.values()) + self.alignment.n_trainable

    def logits(self, X: Any) -> Tensor:
        """Return logits of classes `[N, C]` for rows `[N, ...]` or N texts.

        Raises:
            ValueError: rows of another shape, or not finite; texts that are too long.
        """
        with frozen(self.model), torch.no_grad():
            rows = self.adapter.encode(X)
            self.adapter.check(rows)
            parts = torch.arange(len(rows)).split(CHUNK)
            return torch.cat([self._logits(self.adapter.take(rows, part)) for part in parts])

    def _logits(self, rows: Any, without: Tensor | None = None) -> Tensor:
        linear = isinstance(self.alignment, Linear)
        read = self.adapter.features if linear else self.adapter.outputs
        return self.alignment(read(rows, without))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities of classes `[N, C]` in the order of `classes_`; X as in `logits`.

        Raises:
            ValueError: as `logits`.
        """
        return self.logits(X).double().softmax(1).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable label of each row `[N]`; X as in `logits`.

        Raises:
            ValueError: as `logits`.
        """
        return self.classes_[self.predict_proba(X).argmax(1)]

    def save(self, path: Path | str) -> Path:
        """Write what was learnt and how outputs are read, without the model, to a safetensors file.

        Raises:
            ValueError: the file cannot be written.
        """
        return write_delta(path, self)

    @staticmethod
    def load(path: Path | str, model: Any) -> Reprogrammed:
        """Return what `save` wrote, around the same model: a module, a learner, or a language model with its tokenizer.

        Raises:
            ValueError: a file that is missing, damaged or foreign, or of a model with other weights.
        """
        how, settings, classes, tensors, make_alignment = read_delta(path, model)
        adapter = make_adapter(model, how, settings)
        for part in ("delta", "kept"):
            _put(path, getattr(adapter, part), {k: v for k, v in tensors[part].items()}, part)
        return Reprogrammed(how, adapter, make_alignment(adapter), classes, settings)


def _put(path: Any, into: dict[str, Tensor], stored: dict[str, Tensor], part: str) -> None:
    """Copy stored tensors into a delta; what is kept beside has shapes of its own."""
    if part == "kept":
        into |= stored
        return
    ours, theirs = ({name: [*value.shape] for name, value in of.items()} for of in (into, stored))
    if ours != theirs:
        raise ValueError(f"{path} does not fit this model: it holds {theirs}, and the cell learns {ours}")
    with torch.no_grad():
        for name, value in stored.items():
            into[name].copy_(value)


def reprogram(
    model: Any,
    X: Any,
    y: Any,
    how: Reprogramming | None = None,
    *,
    labels: Sequence[Any] | None = None,
    shape: Sequence[int] | None = None,
    ask: str = "",
    max_tokens: int | None = None,
    seed: int = 0,
) -> Reprogrammed:
    """Return a frozen model that answers another task. None of its weights is changed.

    Args:
        model: a torch module from tensors to logits `[N, S]`; a `Learner` of classes; or a pair of a causal language
            model of transformers and its tokenizer, as `gradatim.language.load_model` returns.
        X: rows `[N, D]`, images `[N, H, W]` or `[N, C, H, W]`; of a language model N texts. Images are resized to what
            a frame leaves of the input, columns become squares of pixels, shorter vectors are filled by zeros.
        y: labels `[N]`: whole numbers, words or truth values, of two classes or more.
        how: the cell and its sizes. None: numbers added to the input, outputs read by counts; of a language model
            soft tokens; of a learner examples.
        labels: by sorted class, an output of the model; of a language model a word of one token. Alignment `rule` takes
            a list of several each, of which the others read the first. None: the first outputs; of a language model
            the first tokens that are letters.
        shape: of one row of the model's own input. None: the shape of a row of X.
        ask: of a language model, what stands after each text.
        max_tokens: of a language model, where texts are cut. None: texts that do not fit are refused.
        seed: of starting numbers and of mini-batches.

    Raises:
        ImportError: a language model without transformers or peft.
        ValueError: a cell that is not built for the model; rows that do not fit, or are not finite; one class only;
            more classes than outputs; labels that are missing, repeated or of several tokens; a learning rate at
            which what is learnt does not stay finite.

    Example:
        >>> import torch
        >>> from gradatim.prompting import Reprogramming, reprogram
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> how = Reprogramming(operator="parametric", steps=100)
        >>> mine = reprogram(torch.nn.Linear(4, 3), x, (x[:, 0] > 0).long(), how)
        >>> mine.n_trainable, bool((mine.predict(x) == (x[:, 0] > 0).numpy()).mean() > 0.9)
        (20, True)

    Source: Ye et al. 2025; Elsayed et al. 2019.
    """
    kind = kind_of(model)
    how = how or _DEFAULT[kind]
    check_built(kind, how)
    classes, codes = classes_of(y)
    settings = {"seed": seed, "ask": ask, "max_tokens": max_tokens, **_shapes(model, kind, X, shape)}
    adapter = make_adapter(model, how, settings)
    rows = adapter.encode(X)
    if len(rows) != len(codes):
        raise ValueError(f"X and y must have as many rows; got {len(rows)} and {len(codes)}")
    groups = _groups(model, kind, how, labels, len(classes), adapter.n_outputs)
    return _learnt(model, adapter, how, groups, rows, (classes, codes), settings)


def _learnt(
    model: Any,
    adapter: Any,
    how: Reprogramming,
    groups: list[list[int]] | None,
    rows: Any,
    target: tuple[np.ndarray, Tensor],
    settings: dict[str, Any],
) -> Reprogrammed:
    """Return a model whose delta and alignment are learnt from rows and their classes."""
    kind, (classes, codes) = adapter.kind, target
    with frozen(model[0] if kind == "language" else model):
        if kind == "learner":
            adapter.show(rows, codes, len(classes))
        elif how.configuration == "fixed" and how.operator == "concatenative":
            tokens = groups or _first(model, kind, len(classes), adapter.n_outputs)
            adapter.show(rows, codes, [group[0] for group in tokens])
        alignment = _alignment(adapter, how, groups, rows, codes, len(classes))
        found = Reprogrammed(how, adapter, alignment, classes, settings)
        _fit(found, rows, codes, settings["seed"])
    return found


def _shapes(model: Any, kind: str, X: Any, shape: Sequence[int] | None) -> dict[str, list[int]]:
    """Return the shape of the model's own input and of a row of X; texts have none."""
    if kind == "language":
        return {"shape": [], "x_shape": []}
    x_shape = list(as_rows(X).shape[1:])
    if kind == "learner":
        if len(x_shape) != 1:
            raise ValueError(
                f"a learner's task comes as rows [N, D]; got [N, {str(x_shape)[1:-1]}]: flatten them"
            )
        shape = shape or (model.predictor.x_dim or x_shape[0],)
    return {"shape": [*(shape or x_shape)], "x_shape": x_shape}


_DEFAULT = {
    "module": Reprogramming("learnable", "input", "additive", "frequent"),
    "language": Reprogramming("learnable", "embedding", "concatenative", "identity"),
    "learner": Reprogramming("fixed", "input", "concatenative", "identity"),
}


def classes_of(y: Any) -> tuple[np.ndarray, Tensor]:
    """Return the labels, sorted, and the class of each row `[N]`.

    Raises:
        ValueError: numbers that are no classes, missing labels, fewer than two classes.

    Example:
        >>> from gradatim.prompting.reprogram import classes_of
        >>> classes_of(["b", "a", "b"])
        (array(['a', 'b'], dtype='<U1'), tensor([1, 0, 1]))
    """
    y = np.asarray(y.cpu() if isinstance(y, Tensor) else y)
    if y.dtype == object:
        y = np.array(y.tolist())
    if y.ndim != 1 or y.dtype.kind not in "iubU":
        raise ValueError(
            f"y is one label for each row: whole numbers, words or truth values; got {y.dtype} of shape {y.shape}"
        )
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y must have two classes or more; got {classes.tolist()} alone: nothing can be told apart"
        )
    return classes, torch.as_tensor(codes, dtype=torch.int64)


def _first(model: Any, kind: str, n_classes: int, outputs: int) -> list[list[int]]:
    """Return the first outputs, of a language model the first tokens that are letters, one for each class."""
    known: Sequence[int] = range(outputs)
    if kind == "language":
        from ..language.prompts import ordinary

        known = ordinary(model[1], outputs)
    if len(known) < n_classes:
        raise ValueError(too_many(n_classes, len(known)))
    return [[place] for place in known[:n_classes]]


def _groups(
    model: Any, kind: str, how: Reprogramming, labels: Any, n_classes: int, outputs: int
) -> list[list[int]] | None:
    """Return the outputs of each class where they are given or the first ones, None where they are counted or mapped.

    A language model that reads examples needs a word for each class in any case.
    """
    if how.alignment == "rule" and labels is None:
        raise ValueError(
            "a rule says which outputs are which class: give labels=, a list of outputs for each"
        )
    given = how.alignment in ("identity", "rule")
    if labels is None or not (given or how.configuration == "fixed"):
        return _first(model, kind, n_classes, outputs) if given else None
    if len(labels) != n_classes or isinstance(labels, str):
        raise ValueError(
            f"labels has one entry for each of {n_classes} classes, in sorted order; got {labels!r}"
        )
    several = [list(label) if isinstance(label, list | tuple) else [label] for label in labels]
    several = several if how.alignment == "rule" else [group[:1] for group in several]
    if kind == "language":
        from ..language.prompts import answer_token

        several = [[answer_token(model[1], word) for word in group] for group in several]
    flat = [place for group in several for place in group]
    whole = all(isinstance(p, int | np.integer) and not isinstance(p, bool) for p in flat)
    if not all(several) or not whole or not all(0 <= place < outputs for place in flat):
        raise ValueError(
            f"labels are outputs from 0 to {outputs - 1}, at least one for each class; got {labels!r}"
        )
    if len(set(flat)) < len(flat):
        raise ValueError(f"labels must differ from one another; got {labels!r}: two classes share an output")
    return several


def _alignment(
    adapter: Any, how: Reprogramming, groups: Any, rows: Any, codes: Tensor, n_classes: int
) -> Mapping | Linear:
    """Return how outputs are read before anything is learnt."""
    if how.alignment == "linear":
        features = adapter.features(adapter.take(rows, torch.arange(2)))
        zeros = torch.zeros(n_classes, features.shape[1], dtype=features.dtype, device=features.device)
        return Linear(zeros, zeros[:, 0].clone())
    if how.alignment in ("frequent", "iterative"):
        return counted(adapter, rows, codes, n_classes)
    return Mapping(groups)


@torch.no_grad()
def counted(adapter: Any, rows: Any, codes: Tensor, n_classes: int) -> Mapping:
    """Return the mapping that counts say, for classes `[N]`.

    A language model says the same token after most texts. So of it the logits are taken above their means over rows.
    """
    parts = torch.arange(len(codes)).split(CHUNK)
    outputs = torch.cat([adapter.outputs(adapter.take(rows, part)) for part in parts])
    if n_classes > outputs.shape[1]:
        raise ValueError(too_many(n_classes, outputs.shape[1]))
    outputs = outputs - outputs.mean(0) if adapter.centred else outputs
    return Mapping([[place] for place in assign(count_outputs(outputs.cpu(), codes, n_classes))])


def _fit(found: Reprogrammed, rows: Any, codes: Tensor, seed: int) -> None:
    """Learn the delta and a linear alignment by Adam, on the log loss of mini-batches."""
    how, adapter = found.how, found.adapter
    learnt = [*adapter.delta.values(), *found.alignment.parameters()]
    if not learnt or not how.steps:
        return
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(learnt, how.learning_rate)
    order = torch.empty(0, dtype=torch.int64)
    size = min(how.batch_size, max(1, len(codes) // 2) if adapter.kind == "learner" else len(codes))
    for step in range(how.steps):
        if len(order) < size:
            if step and how.alignment == "iterative":
                found.alignment = counted(adapter, rows, codes, len(found.classes_))
            order = torch.randperm(len(codes), generator=generator)
        index, order = order[:size], order[size:]
        logits = found._logits(adapter.take(rows, index), index)
        loss = F.cross_entropy(logits, codes[index].to(logits.device))
        gradients = torch.autograd.grad(loss, learnt, allow_unused=True)
        for part, gradient in zip(learnt, gradients, strict=True):
            part.grad = gradient
        optimizer.step()
    for part in learnt:
        part.grad = None
        if not torch.isfinite(part).all():
            raise ValueError(
                f"what was learnt is no longer finite at a learning rate of {how.learning_rate:g}: give a smaller one"
            )
