"""A language model as a classifier of points: it reads labelled examples in its prompt, and names one more label.

Source: Zhao, Nguyen, Grover 2024 (arXiv 2406.11233): the prompt, integers of 0 to 100, and the cached prefix.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from .models import with_padding

if TYPE_CHECKING:
    from collections.abc import Sequence

SYSTEM = (
    "Given pairs of numbers and their labels, predict the label for a new input pair of numbers based on the provided "
    "data. Answer with only one of the labels."
)
"""What the published prompt begins with, in our words."""

QUESTION = "What is the label for this input?\n"
"""What stands between the examples and the new input in the published prompt."""

TEMPLATE = "Input: {a} {b}\nLabel: {label}\n"
"""An example of the published prompt."""

COMPACT = "{a},{b}{label}"
"""A template of about 6 tokens where digits are tokens, for models with few positions; without system or question."""


@dataclass(frozen=True)
class _Ending:
    """How the answer is read: tokens that all labels begin with, and for each label the tokens that tell it apart."""

    shared: list[int]
    told: list[list[int]]


class InContextReader:
    """Classify points of two columns by a causal language model that reads labelled examples in its prompt.

    Nothing is trained. Columns are scaled to 0 to `scale`, by the least and greatest of the examples, and rounded to
    integers. The prompt is `system`, the examples in their order, `question`, and the new point. The label's
    probability is that of its first token which tells it apart, among those of all labels.

    The cache of the examples is computed once, in `fit`, and serves all points.

    Args:
        model: a causal language model of transformers, or of peft.
        tokenizer: its tokenizer.
        labels: what the classes are called in the prompt, in the order of the sorted classes.
        template: of one example, with `{a}`, `{b}` and at the end `{label}`. `reader.COMPACT` is short.
        system: what the prompt begins with; None: the published one, or nothing if the template is another.
        question: what stands before the new point; None: as `system`.
        scale: the greatest integer.
        batch_size: points that are asked at a time.

    Attributes:
        classes_: the labels of y, sorted.
        n_tokens_: of the examples and what stands before them.

    Raises:
        ValueError: labels that are alike, a template without its three fields, or a tokenizer that has neither a
            padding nor an end token.

    Example:
        >>> from gradatim.language import InContextReader, load_model  # doctest: +SKIP
        >>> model, tokenizer = load_model("weights/stories260k")  # doctest: +SKIP
        >>> reader = InContextReader(model, tokenizer, labels=("A", "B"))  # doctest: +SKIP
        >>> reader.fit([[0.1, 2.0], [3.0, 1.0]], [0, 1]).predict_proba([[2.0, 1.5]]).shape  # doctest: +SKIP
        (1, 2)
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        labels: Sequence[str] = ("Foo", "Bar"),
        *,
        template: str = TEMPLATE,
        system: str | None = None,
        question: str | None = None,
        scale: int = 100,
        batch_size: int = 64,
    ) -> None:
        published = template == TEMPLATE
        self.model, self.tokenizer, self.labels = model, with_padding(tokenizer), tuple(map(str, labels))
        self.template, self.scale, self.batch_size = template, scale, batch_size
        self.system = (f"{SYSTEM}\n" if published else "") if system is None else system
        self.question = (QUESTION if published else "") if question is None else question
        if len(set(self.labels)) < max(2, len(self.labels)) or not all(
            label.strip() for label in self.labels
        ):
            raise ValueError(f"labels are two different words or more; got {self.labels}")
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        if sorted(fields) != ["a", "b", "label"] or fields[-1] != "label":
            raise ValueError(
                f"a template has the fields {{a}}, {{b}} and, as the last one, {{label}}; got {template!r}"
            )

    def fit(self, X: Any, y: Any) -> Self:
        """Read examples X `[n, 2]`, y `[n]`, in their order; they are the whole context.

        Raises:
            ValueError: other than two numeric columns, y of one class or of more classes than labels, labels that no
                token tells apart, or more tokens than the model has positions.
        """
        X = _columns(X)
        y = np.asarray(y)
        if y.shape != (len(X),) or not len(X):
            raise ValueError(f"an example has one label: y has {y.shape} for X {X.shape}")
        classes = np.unique(y)
        if not 2 <= len(classes) <= len(self.labels):
            raise ValueError(
                f"y has {len(classes)} {'class' if len(classes) == 1 else 'classes'} and there are {len(self.labels)} "
                "labels: give examples of two classes or more, and as many labels"
            )
        self.classes_ = classes
        self._low, self._high = X.min(0), X.max(0)
        names = [self.labels[place] for place in np.searchsorted(classes, y)]
        examples = [self._text(row, name) for row, name in zip(self._integers(X), names, strict=True)]
        self._last = f"{examples[-1]}{self.question}"
        self._before = f"{self.system}{''.join(examples)}{self.question}"
        context = self._ids(self._before, special=True)
        self._ending = self._told_apart()
        longest = len(context) + len(self._query((self.scale, self.scale))) + len(self._ending.shared)
        self._check_length(longest, len(X))
        self.n_tokens_ = len(context)
        self._cache = self._read(context)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities `[n, C]` of the classes at X `[n, 2]`.

        Raises:
            ValueError: before `fit`; other than two numeric columns.
        """
        if not hasattr(self, "classes_"):
            raise ValueError("the reader has read no examples: call fit(X, y) first")
        points = self._integers(_columns(X))
        distinct, back = np.unique(points, axis=0, return_inverse=True)
        queries = [self._query(point) + self._ending.shared for point in distinct]
        parts = [
            self._ask(queries[start : start + self.batch_size])
            for start in range(0, len(queries), self.batch_size)
        ]
        found = np.concatenate(parts) if parts else np.zeros((0, len(self.classes_)))
        return found[back.reshape(-1)]

    def predict(self, X: Any) -> np.ndarray:
        """Return the likelier class of each row of X `[n, 2]`."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def prompt(self, point: Any) -> str:
        """Return the whole text that the model reads for one point, up to where the label stands.

        Raises:
            ValueError: before `fit`.
        """
        if not hasattr(self, "classes_"):
            raise ValueError("the reader has read no examples: call fit(X, y) first")
        return self._before + self._head(self._integers(_columns([point]))[0])

    def __deepcopy__(self, memo: Any) -> Self:
        """Return a reader that shares the model: `fit` replaces what was read, and changes nothing of it."""
        return copy.copy(self)

    def _integers(self, X: np.ndarray) -> np.ndarray:
        """Return columns as integers of 0 to `scale`; beyond the examples' range they go on."""
        width = np.where(self._high > self._low, self._high - self._low, 1.0)
        return np.rint(self.scale * (X - self._low) / width).astype(int)

    def _text(self, row: Any, label: str) -> str:
        return self.template.format(a=int(row[0]), b=int(row[1]), label=label)

    def _head(self, row: Any) -> str:
        """Return the text of a point up to its label, without the space before it."""
        before = self.template[: self.template.rindex("{label")]
        return before.format(a=int(row[0]), b=int(row[1])).rstrip(" ")

    def _ids(self, text: str, special: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def _after(self, before: str, text: str) -> list[int]:
        """Return the tokens of a text where it follows another.

        Raises:
            ValueError: a token spans both.
        """
        first, both = self._ids(before, special=False), self._ids(before + text, special=False)
        if both[: len(first)] != first:
            raise ValueError(
                f"a token of {before[-20:] + text!r} holds the end of one example and the beginning of the next: end "
                "the template with a line break"
            )
        return both[len(first) :]

    def _query(self, row: Any) -> list[int]:
        return self._after(self._last, self._head(row))

    def _told_apart(self) -> _Ending:
        """Return where labels begin to differ, written as in the template and with or without a space before them."""
        before = self.template[: self.template.rindex("{label")]
        end = self.template[self.template.rindex("{label") :].partition("}")[2]
        spaced, head = before.endswith(" "), self._head((1, 2))
        names = self.labels[: len(self.classes_)]
        written, other = (
            [self._after(head, f"{' ' if space else ''}{name}{end}") for name in names]
            for space in (spaced, not spaced)
        )
        place = _first_difference(written)
        if place is None:
            raise ValueError(
                f"the labels {', '.join(names)} differ in no single token of this tokenizer, since two of them begin "
                "alike: choose labels whose first tokens differ, such as A and B"
            )
        told = [[tokens[place]] for tokens in written]
        if place == 0 and _first_difference(other) == 0:
            for known, tokens in zip(told, other, strict=True):
                # a space alone names no label
                if tokens[0] not in known and self.tokenizer.decode([tokens[0]]).strip():
                    known.append(tokens[0])
        if len({token for known in told for token in known}) < sum(map(len, told)):
            told = [known[:1] for known in told]
        return _Ending(written[0][:place], told)

    def _check_length(self, needed: int, n_examples: int) -> None:
        most = getattr(self.model.config, "max_position_embeddings", None)
        if most is not None and needed > most:
            raise ValueError(
                f"{n_examples} examples and a point take {needed} tokens, and the model has {most} positions: give at "
                f"most about {n_examples * most // needed} examples, or a shorter template such as reader.COMPACT"
            )

    @torch.no_grad()
    def _read(self, context: list[int]) -> Any:
        """Return the cache of a context."""
        tokens = torch.tensor([context], device=self.model.device)
        return self.model(input_ids=tokens, use_cache=True).past_key_values

    @torch.no_grad()
    def _ask(self, queries: list[list[int]]) -> np.ndarray:
        """Return probabilities `[n, C]` after the context and each of the queries."""
        lengths = torch.tensor([len(query) for query in queries])
        width, pad = int(lengths.max()), self.tokenizer.pad_token_id
        tokens = torch.tensor([query + [pad] * (width - len(query)) for query in queries])
        seen = torch.arange(width) < lengths[:, None]
        mask = torch.cat([torch.ones(len(queries), self.n_tokens_, dtype=torch.bool), seen], 1).long()
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(len(queries))
        device = self.model.device
        found = self.model(
            input_ids=tokens.to(device), attention_mask=mask.to(device), past_key_values=cache, use_cache=True
        ).logits
        last = found[torch.arange(len(queries)), (lengths - 1).to(found.device)].double().cpu()
        scores = torch.stack([last[:, known].amax(1) for known in self._ending.told], 1)
        return scores.softmax(1).numpy()


def _first_difference(tokens: list[list[int]]) -> int | None:
    """Return the first place at which all sequences differ from one another, those before being the same."""
    for place in range(min(map(len, tokens))):
        here = {each[place] for each in tokens}
        if len(here) == len(tokens):
            return place
        if len(here) > 1:
            return None
    return None


def _columns(X: Any) -> np.ndarray:
    """Return X `[n, 2]` as float64."""
    try:
        values = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("the reader takes two columns of numbers; got cells that are no numbers") from error
    if values.ndim != 2 or values.shape[1] != 2:
        raise ValueError(f"the reader takes two columns; got X of shape {values.shape}: choose two columns")
    if not np.isfinite(values).all():
        raise ValueError(
            "the reader takes finite numbers; got missing or infinite ones: leave those rows out"
        )
    return values
