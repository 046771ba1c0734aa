"""Cells of reprogramming side by side, and always what they must beat: a random frozen network, majority, a probe.

Source: Ye et al. 2025 (the cells); the controls are this project's own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cells import Reprogramming
from .kinds import frozen, kind_of, make_adapter
from .reprogram import CHUNK, classes_of, reprogram

PRETRAINED, RANDOM = "pretrained", "random"

APART = 7_919_000
"""Added to seeds of random networks, so that none is the start of a model that was made under the same seed."""


@dataclass(frozen=True)
class Reprogrammings:
    """What `compare_reprogramming` measured; it prints as a table.

    Fields:
        `rows`: a dictionary for each cell and network: `cell`, `network` (`pretrained`, `random`, or empty),
            `trainable` (the count of learnt numbers), `accuracy` on test rows, `learning_rate`.

    Example:
        >>> from gradatim.prompting import Reprogrammings
        >>> print(Reprogrammings([{"cell": "majority class", "network": "", "trainable": 0, "accuracy": 0.5}]))
        cell            network  learnt  accuracy
        majority class                0     0.500
    """

    rows: list[dict[str, Any]]

    def __str__(self) -> str:
        heads = ["cell", "network", "learnt", "accuracy"]
        lines = [
            [row["cell"], row["network"], f"{row['trainable']:,}", f"{row['accuracy']:.3f}"]
            for row in self.rows
        ]
        wide = [max(len(line[place]) for line in [heads, *lines]) for place in range(4)]
        form = f"{{:<{wide[0]}}}  {{:<{wide[1]}}}  {{:>{wide[2]}}}  {{:>{wide[3]}}}"
        return "\n".join(form.format(*line) for line in [heads, *lines])

    def gains(self) -> dict[str, float]:
        """Return by cell the accuracy of the pretrained network less that of the random one."""
        found = {(row["cell"], row["network"]): row["accuracy"] for row in self.rows}
        cells = dict.fromkeys(row["cell"] for row in self.rows if row["network"] == RANDOM)
        return {cell: found[cell, PRETRAINED] - found[cell, RANDOM] for cell in cells}


def compare_reprogramming(
    model: Any,
    X: Any,
    y: Any,
    cells: Iterable[Reprogramming | tuple[Reprogramming, Reprogramming]],
    *,
    X_test: Any = None,
    y_test: Any = None,
    rates: Sequence[float] = (),
    random: Callable[[int], Any] | None = None,
    seed: int = 0,
    **options: Any,
) -> Reprogrammings:
    """Return the accuracy of cells on a frozen model, beside the controls that say whether its knowledge was of use.

    Always there are the random frozen network of the same shape at equally many learnt numbers, the majority class, and
    a linear probe of either network's features (of a learner: of x).

    Args:
        model, X, y: as in `reprogram`.
        cells: at least one. A pair is what the pretrained and the random network use: they may differ in rate alone.
        X_test, y_test: rows to judge by. None: three tenths of X, chosen by the seed.
        rates: learning rates to choose from, for each cell and for both networks alike, on a quarter of the training
            rows. None given: that of the cell.
        random: makes the random network from a seed. None: the model's own `reset_parameters`, or its configuration.
        seed: of the random network, of splits and of training.
        options: of `reprogram`.

    Raises:
        ValueError: no cell, a test set without labels, a model that cannot be drawn anew; as `reprogram`.

    Example:
        >>> import torch
        >>> from gradatim.prompting import Reprogramming, compare_reprogramming
        >>> x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        >>> table = compare_reprogramming(torch.nn.Linear(4, 2), x, (x[:, 0] > 0).long(), [Reprogramming(steps=5)])
        >>> [(row["cell"], row["network"]) for row in table.rows][2:]
        [('linear probe', 'pretrained'), ('linear probe', 'random'), ('majority class', '')]
    """
    pairs = _pairs(cells)
    X, y, X_test, y_test = _parts(X, y, X_test, y_test, seed)
    networks = {PRETRAINED: model, RANDOM: random(seed) if random else random_twin(model, seed)}
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        for (name, network), how in zip(networks.items(), pair, strict=True):
            chosen = best_rate(network, X, y, how, rates, seed=seed, **options)
            found = reprogram(network, X, y, chosen, seed=seed, **options)
            accuracy = float((found.predict(X_test) == y_test).mean())
            rows.append(_row(how.name, name, found.n_trainable, accuracy, chosen.learning_rate))
        _check_equal(*rows[-2:])
    for name, network in networks.items():
        rows.append(_row("linear probe", name, *probe(network, X, y, X_test, y_test, **options), None))
    common, counts = np.unique(y, return_counts=True)
    rows.append(_row("majority class", "", 0, float((common[counts.argmax()] == y_test).mean()), None))
    return Reprogrammings(rows)


def _pairs(cells: Iterable[Any]) -> list[tuple[Reprogramming, Reprogramming]]:
    """Return each cell as what the pretrained and the random network use."""
    pairs = [cell if isinstance(cell, tuple) else (cell, cell) for cell in cells]
    if not pairs:
        raise ValueError("a comparison needs at least one cell; got none: give Reprogramming(...)")
    for pair in pairs:
        if len(pair) != 2 or replace(pair[0], learning_rate=1) != replace(pair[1], learning_rate=1):
            raise ValueError(f"both networks have the same cell, but for the learning rate; got {pair}")
    return pairs


def _parts(X: Any, y: Any, X_test: Any, y_test: Any, seed: int) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Return training and test rows and their labels."""
    if (X_test is None) != (y_test is None):
        raise ValueError("test rows come with their labels: give both X_test and y_test, or none")
    classes_of(y)
    return (
        split(X, np.asarray(y), 0.3, seed)
        if y_test is None
        else (X, np.asarray(y), X_test, np.asarray(y_test))
    )


def _check_equal(pretrained: dict[str, Any], random: dict[str, Any]) -> None:
    if pretrained["trainable"] != random["trainable"]:
        raise ValueError(
            f"both networks must learn as many numbers; got {pretrained['trainable']} and of the random one "
            f"{random['trainable']}: give a random= of the same shape"
        )


def _row(cell: str, network: str, trainable: int, accuracy: float, rate: float | None) -> dict[str, Any]:
    return {
        "cell": cell,
        "network": network,
        "trainable": trainable,
        "accuracy": accuracy,
        "learning_rate": rate,
    }


def split(X: Any, y: np.ndarray, share: float, seed: int) -> tuple[Any, np.ndarray, Any, np.ndarray]:
    """Return rows `[N, ...]` or texts and their labels in two parts; the second holds a share of them."""
    order = np.random.default_rng(seed).permutation(len(y))
    cut = max(1, round(share * len(y)))
    if len(X) != len(y):
        raise ValueError(f"X and y must have as many rows; got {len(X)} and {len(y)}")

    rows = (
        X if isinstance(X, Tensor) else list(np.asarray(X))
    )  # a frame or a series goes by place, not by label

    def some(places: np.ndarray) -> Any:
        return (
            rows[torch.as_tensor(places)] if isinstance(rows, Tensor) else [rows[place] for place in places]
        )

    return some(order[cut:]), y[order[cut:]], some(order[:cut]), y[order[:cut]]


def best_rate(
    model: Any, X: Any, y: Any, how: Reprogramming, rates: Sequence[float], *, seed: int = 0, **options: Any
) -> Reprogramming:
    """Return a cell with the learning rate that is best on a quarter of the rows `[N, ...]`, learnt on the others.

    Raises:
        ValueError: as `reprogram`.
    """
    if not rates or (how.configuration == "fixed" and how.alignment != "linear"):
        return how
    X, y, held, wanted = split(X, np.asarray(y), 0.25, seed)
    hows = [replace(how, learning_rate=rate) for rate in rates]
    scores = [
        float((reprogram(model, X, y, one, seed=seed, **options).predict(held) == wanted).mean())
        for one in hows
    ]
    return hows[int(np.argmax(scores))]


def random_twin(model: Any, seed: int) -> Any:
    """Return a model of the same shape whose weights are drawn anew, by its own `reset_parameters`, or its config.

    Raises:
        ValueError: a part has weights and no `reset_parameters`.

    Example:
        >>> import torch
        >>> from gradatim.prompting.compare import random_twin
        >>> model = torch.nn.Linear(3, 2)
        >>> torch.equal(random_twin(model, 0).weight, random_twin(model, 0).weight)
        True
    """
    if kind_of(model) == "language":
        from ..language.prompts import random_model

        return random_model(model[0], seed + APART), model[1]
    twin = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + APART)
        for name, part in twin.named_modules():
            reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
            if callable(reset):
                reset()
            elif next(part.parameters(recurse=False), None) is not None:
                raise ValueError(
                    f"{name or type(part).__name__} has weights and no reset_parameters, so no random network can be "
                    "made of it: give random=, a function of a seed that makes one"
                )
    return twin


def probe(model: Any, X: Any, y: Any, X_test: Any, y_test: Any, **options: Any) -> tuple[int, float]:
    """Return the count of weights and the accuracy of a logistic regression on the features of a frozen model.

    Features are those of x `[N, ...]` as it is: what a module's last linear layer reads, the mean of a language model's
    last hidden states, a learner's x.

    Raises:
        ValueError: as `reprogram`.
    """
    kind = kind_of(model)
    place = "concatenative" if kind != "module" else "additive"
    how = Reprogramming("fixed", "input", place, "identity")
    train, test = (rows if kind == "language" else _rows(rows) for rows in (X, X_test))
    x_shape = [] if kind == "language" else [*train.shape[1:]]
    shape = [*(options.get("shape") or x_shape)]
    if kind == "learner":
        shape = [model.predictor.x_dim or x_shape[0]]
    settings = {"seed": 0, "shape": shape, "x_shape": x_shape, "ask": "", "max_tokens": None}
    settings |= {name: options[name] for name in ("ask", "max_tokens") if name in options}
    adapter = make_adapter(model, how, settings)
    with frozen(model[0] if kind == "language" else model), torch.no_grad():
        features = [_features(adapter, adapter.encode(rows)) for rows in (train, test)]
    classes, codes = classes_of(y)
    weight, bias = logistic(features[0], codes, len(classes))
    said = classes[F.linear(features[1], weight, bias).argmax(1).numpy()]
    return weight.numel() + bias.numel(), float((said == np.asarray(y_test)).mean())


def _rows(X: Any) -> Tensor:
    return X if isinstance(X, Tensor) else torch.as_tensor(np.asarray(X, dtype=np.float64))


def _features(adapter: Any, rows: Any) -> Tensor:
    parts = torch.arange(len(rows)).split(CHUNK)
    return torch.cat([adapter.plain(adapter.take(rows, part)) for part in parts]).double().cpu()


def logistic(x: Tensor, y: Tensor, n_classes: int, strength: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return the weight `[C, F]` and bias `[C]` of a logistic regression of classes `[N]` on features `[N, F]`.

    Features are standardised, and squared weights are penalised as by one observation each.

    Example:
        >>> import torch
        >>> from gradatim.prompting.compare import logistic
        >>> weight, bias = logistic(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), 2)
        >>> weight.shape, bool(weight[1, 0] > 0)
        (torch.Size([2, 1]), True)
    """
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
    scaled = (x - mean) / deviation
    weight = torch.zeros(n_classes, x.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        penalty = strength * weight.square().sum() / (2 * len(x))
        loss = F.cross_entropy(F.linear(scaled, weight, bias), y) + penalty
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    weight, bias = weight.detach() / deviation, bias.detach()
    return weight, bias - weight @ mean
