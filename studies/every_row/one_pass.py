"""One pass over 50,000 MNIST images as one task: the figure `gain.mnist.error_over_mlp`.

Source: Broomhead, Lowe 1988, and Rahimi, Recht 2007, for the features; the protocol is this project's own.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gradatim.batch import Batch
from gradatim.comparison.runs import Study, claim, normal_interval
from gradatim.families.images import image_folder, load_images
from gradatim.learner import Learner
from gradatim.predictors import CrossEntropy, Features, Landmarks
from gradatim.refiners import Conjugate
from gradatim.refiners.statistics import pack, unpack
from gradatim.signal import CLOSED_FORM

from .claims import Made, ratio

if TYPE_CHECKING:
    from gradatim.comparison.experiment import Values

DIM, HELD, SIZE = 64, 10_000, 100
KINDS = ("random", "landmarks")
"""Features: ramps of random projections; nearness to held-out images under the same projection, their labels unused."""

WIDTHS = (700, 1338, 2700)
"""Of them; x and 1 beside them. 1,338 make a packed state of just less than `MOST` bytes."""

MOST = 4_000_000
SCALES = ((0.7, 0.5), (1.0, 0.5), (1.0, 1.0), (1.4, 1.0))
"""Standard deviations of weights (times 1 / sqrt(64)) and biases that the first 10,000 images choose from."""

STRENGTHS = (0.03, 0.3, 3.0)
SPREADS, RIDGES = (0.75, 1.0, 1.25), (0.3, 1.0, 3.0)
"""The same for landmarks: how far nearness reaches; below .3 moments in float32 stop being positive definite."""

ALPHAS = (1e-4, 1e-2, 1e-1)
GRIDS = {
    "random": (SCALES, SPREADS, STRENGTHS, ALPHAS),
    "landmarks": (SPREADS, RIDGES),
    "mlp": (SCALES, STRENGTHS, ALPHAS),
}
"""What a record depends on."""


def mnist(study: Study, smoke: bool) -> Made:
    """Return records and the claim: one pass, mini-batches of 100, the state packed to float32 after each.

    The first 10,000 training images are the landmarks, and choose the features' scales, the penalty and the kind of
    features; the other 50,000 are the stream. Three random projections; a converged `MLPClassifier(64)` on the same
    rows is the measure.
    """
    widths, seeds = ((64,), 1) if smoke else (WIDTHS, 3)
    records: list[dict[str, Any]] = []
    errors: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    tuning: dict[str, float] = {}
    for name in (*(f"{kind}-{width}" for kind in KINDS for width in widths), "mlp-64"):
        values = []
        grid = GRIDS[name.partition("-")[0]]
        for seed in range(seeds):
            study.console.print(f"one pass over MNIST: {name}, projection {seed}")
            make = (
                partial(_mlp, seed, smoke)
                if name == "mlp-64"
                else partial(_stream, *name.split("-"), seed, smoke)
            )
            values.append(study.cached(f"one-pass-{name}-{seed}", [DIM, SIZE, smoke, *grid], make))
        errors[name] = np.stack([v["wrong"].astype(float) for v in values])
        sizes[name] = int(values[0]["bytes"])
        if name != "mlp-64":
            tuning[name] = float(np.mean([v["tuning"] for v in values]))
        mean, low, high = normal_interval(errors[name].mean(0))
        records.append(_record(name, mean, low, high, errors[name].shape[1], sizes[name], values[0]))
    fitting = [name for name in errors if name != "mlp-64" and (sizes[name] <= MOST or smoke)]
    ours = min(fitting, key=lambda name: tuning[name])
    own = claim("gain.mnist.error_over_mlp", *ratio(errors[ours], errors["mlp-64"]), 1.3, "<=")
    beside = {
        f"{name}, a state of {sizes[name] / 1e6:.1f} MB": ratio(errors[name], errors["mlp-64"])
        for name in errors
        if name not in (ours, "mlp-64")
    }
    return records, [{**own, "chosen": ours, "bytes": sizes[ours], "beside": beside}]


def _rows(seed: int, smoke: bool) -> list[torch.Tensor]:
    """Return held-out x, y, stream x, y and test x, y under one random projection, standardised as held-out."""
    if smoke:
        from sklearn.datasets import load_digits

        x, y = map(np.asarray, load_digits(return_X_y=True))
        pixels, labels, cuts = x / 16.0, y, (300, 1200)
    else:
        training, test = load_images("mnist", image_folder("mnist"))
        pixels = np.concatenate([training.images, test.images]).reshape(-1, 784) / 255.0
        labels, cuts = np.concatenate([training.labels, test.labels]), (HELD, len(training.labels))
    rng = np.random.default_rng(seed)
    seen = pixels.astype(np.float32) @ rng.normal(size=(pixels.shape[1], DIM)).astype(np.float32)
    seen = (seen - seen[: cuts[0]].mean(0)) / seen[: cuts[0]].std(0)
    xs, ys = torch.from_numpy(seen).split(_sizes(len(seen), cuts)), torch.from_numpy(labels.astype(np.int64))
    return [
        part for pair in zip(xs, ys[:, None].split(_sizes(len(seen), cuts)), strict=True) for part in pair
    ]


def _sizes(total: int, cuts: tuple[int, int]) -> list[int]:
    return [cuts[0], cuts[1] - cuts[0], total - cuts[1]]


def _random(width: int, scales: tuple[float, float], held: torch.Tensor) -> Features:
    """Return ramps of random projections; nothing is learnt."""
    f = Features(DIM, CrossEntropy(10), width, scaled=False, skip=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        f.first.weight.copy_(torch.randn(width, DIM, generator=generator) * scales[0] / DIM**0.5)
        f.first.bias.copy_(torch.randn(width, generator=generator) * scales[1])
    f.requires_grad_(False)
    return f


def _landmarks(width: int, spread: float, held: torch.Tensor) -> Landmarks:
    """Return nearness to the first held-out images."""
    return Landmarks(held[:width], held, CrossEntropy(10), spread)


def _stream(kind: str, count: str, seed: int, smoke: bool) -> Values:
    """Return which test images are misread after one pass, the bytes of the state, and the error that chose it."""
    held_x, held_y, x, y, test_x, test_y = _rows(seed, smoke)
    width, cut = int(count), 4 * len(held_x) // 5
    make, scales, strengths = (
        (_random, SCALES, STRENGTHS) if kind == "random" else (_landmarks, SPREADS, RIDGES)
    )
    settings = [(scale, strength) for scale in scales for strength in strengths]

    def learner(scale: Any, strength: float) -> Learner:
        f = make(width, scale, held_x)
        return Learner(f, Conjugate(f.blocks, 10, [(10.0, strength, 1.0)], classes=True), CLOSED_FORM)

    begin = min(width, cut // 2) if kind == "landmarks" else 0  # a landmark is too near itself to choose by
    trials = [
        _wrong(learner(*setting), held_x[begin:cut], held_y[begin:cut], held_x[cut:], held_y[cut:], 1000)[
            0
        ].mean()
        for setting in settings
    ]
    best = settings[int(np.argmin(trials))]
    wrong, size = _wrong(learner(*best), x, y, test_x, test_y)
    setting = np.asarray([*np.atleast_1d(best[0]), best[1]])
    return {"wrong": wrong, "bytes": np.asarray(size), "setting": setting, "tuning": np.asarray(min(trials))}


def _wrong(
    learner: Learner,
    x: torch.Tensor,
    y: torch.Tensor,
    asked: torch.Tensor,
    answer: torch.Tensor,
    size: int = SIZE,
) -> tuple[np.ndarray, int]:
    """Return where the answers are wrong after one pass, and the bytes that the state takes between mini-batches."""
    with torch.no_grad():
        state = learner.refiner.init(1)
        kept = pack(state)
        for start in range(0, len(x), size):
            batch = Batch(x[None, start : start + size], y[None, start : start + size])
            kept = pack(learner.step(unpack(kept, state.gram), batch))
        said = learner.predict(asked[None], unpack(kept, state.gram))[0].argmax(-1)
    held = sum(part.numel() * part.element_size() for part in kept)
    return (said != answer[:, 0]).numpy(), held


def _mlp(seed: int, smoke: bool) -> Values:
    """Return which test images a converged `MLPClassifier(64)` misreads, its penalty chosen on the held-out images."""
    from sklearn.neural_network import MLPClassifier

    held_x, held_y, x, y, test_x, test_y = (part.numpy() for part in _rows(seed, smoke))
    fits = []
    for alpha in ALPHAS[:1] if smoke else ALPHAS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = MLPClassifier(64, alpha=alpha, random_state=0, max_iter=20 if smoke else 400)
            fits.append(fit.fit(x, y[:, 0]))
    best = max(fits, key=lambda fit: fit.score(held_x, held_y[:, 0]))
    size = 4 * sum(part.size for part in (*best.coefs_, *best.intercepts_))
    return {"wrong": best.predict(test_x) != test_y[:, 0], "bytes": np.asarray(size)}


def _record(
    name: str, mean: float, low: float, high: float, rows: int, size: int, stored: Values
) -> dict[str, Any]:
    return {
        "name": name,
        "method": name,
        "family": "mnist-one-pass",
        "signal": None,
        "steps": 500,
        "rows": 50_000,
        "metric": "error",
        "seed": None,
        "mean": round(mean, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "tasks": rows,
        "setting": {"bytes": size},
        "commit": str(stored["commit"]),
        "seconds": 0.0,
        "peak_memory": None,
        "threads": None,
    }
