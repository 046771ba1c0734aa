"""One colour, one line style and one name in words for each method, wherever a picture or a page shows it.

Source: Okabe, Ito 2008, for colours that stay apart under most kinds of colour vision.
"""

from __future__ import annotations

import zlib

INK = "#1f2933"
_SPARE = ("#3b6ea8", "#b8475a", "#4a8f5f", "#c98a1b", "#7d62a8", "#3f9aa8", "#8a7050", "#9a5580")

METHODS: dict[str, tuple[str, str]] = {
    "gradatim": ("#1f5fa8", "gradatim"),
    "parametric": ("#1f5fa8", "parametric"),
    "parametric-both": ("#1f5fa8", "parametric, rows and gradients"),
    "parametric-gradients": ("#5a9bd8", "parametric, gradients"),
    "parametric-observations": ("#7cc4e8", "parametric, rows"),
    "parametric-plain": ("#7cc4e8", "parametric, bare rows"),
    "explicit": ("#1e7d46", "explicit"),
    "explicit-both": ("#1e7d46", "explicit, rows and gradients"),
    "explicit-gradients": ("#5fb37c", "explicit, gradients"),
    "explicit-observations": ("#9bd3a6", "explicit, rows"),
    "explicit-order": ("#1e7d46", "explicit, orders"),
    "implicit": ("#7a4fa3", "implicit"),
    "implicit-logits": ("#7a4fa3", "implicit, logits"),
    "implicit-latents": ("#b48fd6", "implicit, latents"),
    "implicit-probabilities": ("#9c6bc4", "implicit, probabilities"),
    "implicit-order": ("#7a4fa3", "implicit, orders"),
    "constant": ("#5a9bd8", "transformer, constant gain"),
    "decaying": ("#1f5fa8", "transformer, falling gain"),
    "precision": ("#7a4fa3", "transformer, learnt precision"),
    "proximal": ("#1e7d46", "transformer, proximal steps"),
    "hypernetwork": ("#b03a8c", "hypernetwork"),
    "closed-form": ("#17a2a2", "ridge on learnt features"),
    "bayesian": ("#0b6e6e", "Bayesian, closed form"),
    "conjugate": ("#0b6e6e", "Bayesian, never forgets"),
    "conjugate-forgets": ("#17a2a2", "Bayesian, forgets at one rate"),
    "bank": ("#5a9bd8", "Bayesian, several rates"),
    "run-length": ("#1f5fa8", "Bayesian over the time of the change"),
    "smoother": ("#7a4fa3", "posterior over weights, with a window"),
    "kalman": ("#5a9bd8", "extended Kalman filter"),
    "network-bayesian": ("#0b6e6e", "Bayesian on learnt features"),
    "random-features": ("#d9a400", "random features"),
    "landmarks": ("#1f5fa8", "Bayesian on landmarks"),
    "ridge": ("#e08e0b", "ridge"),
    "plain-ridge": ("#e08e0b", "ridge"),
    "sgd": ("#d1495b", "SGD"),
    "momentum": ("#e8837a", "momentum"),
    "adam": ("#a61e4d", "Adam"),
    "newton": ("#8c6d46", "Newton's method, damped"),
    "lbfgs": ("#4a4e57", "L-BFGS on all rows"),
    "mlp": ("#b03a8c", "MLP"),
    "mlp-64": ("#b03a8c", "MLP, 64 units"),
    "mlp-relu": ("#d683bb", "MLP, ReLU"),
    "mlp-tanh": ("#b03a8c", "MLP, tanh"),
    "boosted-trees": ("#6b8e23", "boosted trees"),
    "gaussian-nb": ("#8c6d46", "naive Bayes"),
    "gaussian-process": ("#6b8e23", "Gaussian process"),
    "river-forest": ("#2f4f4f", "adaptive forest (river)"),
    "river-tree": ("#6f9a8d", "Hoeffding tree (river)"),
    "river-linear": ("#d1495b", "linear model (river)"),
    "river-restarted": ("#e8837a", "linear model, restarted (river)"),
    "maml": ("#c2a000", "MAML"),
    "first-order-maml": ("#d9c04a", "MAML, first order"),
    "meta-sgd": ("#8a7300", "Meta-SGD"),
    "learned-optimizer": ("#b5651d", "learned optimizer"),
    "conditional-neural-process": ("#ff9da7", "conditional neural process"),
    "attentive-neural-process": ("#e15759", "attentive neural process"),
    "fitted estimate": ("#1f5fa8", "fitted estimate"),
    "prequential average": ("#d1495b", "prequential average"),
    "mean of the last 4": ("#e08e0b", "mean of the last 4 mini-batches"),
    "kernel": ("#e08e0b", "kernel density"),
    "direct-lingam": ("#d1495b", "DirectLiNGAM"),
    "ges": ("#e08e0b", "GES"),
    "shape-order": ("#8c6d46", "sort by the shape of columns"),
    "random-order": ("#9aa5b1", "random order"),
    "logistic regression": ("#4a4e57", "logistic regression"),
    "random forest": ("#2f4f4f", "random forest"),
    "oracle": (INK, "best possible"),
}
"""Colour and words of each method. A name that is not in it has those of the longest entry that it begins with."""

VARIANTS: dict[str, tuple[str, str]] = {
    "one-step-whole": ("-.", "one pass over all rows"),
    "one-step-all": ("-.", "one pass over all rows"),
    "one-step": (":", "trained for one step"),
    "decaying": ("--", "falling gain"),
    "unrolled": ("-.", "trained through all steps"),
    "evolution": (":", "trained by evolution"),
    "persistent": (":", "trained by persistent evolution"),
    "uncurved": ("-.", "without curvature"),
    "masked": ("--", "rows do not see one another"),
    "prefixes": ("--", "every prefix"),
    "whole": ("-.", "all rows at once"),
    "average-late": (":", "averaged late"),
    "averaged-late": (":", "averaged late"),
    "average": ("--", "averaged"),
    "averaged": ("--", "averaged"),
}
"""Line style and words of what may follow a method's name."""

_PREFIXES = {"bagged-": "mean of weights of ", "voted-": "mean of probabilities of "}


def color_of(method: str) -> str:
    """Return the colour of a method, the same in every picture.

    Example:
        >>> color_of("ridge") == color_of("ridge") != color_of("adam")
        True
        >>> color_of("parametric-both-decaying") == color_of("parametric-both@fashion-mnist")
        True
    """
    base, _ = _parts(method)
    if base:
        return METHODS[base][0]
    return _SPARE[zlib.crc32(method.encode()) % len(_SPARE)]


def style_of(method: str) -> str:
    """Return the line style of a method: solid, or that of its variant.

    Example:
        >>> style_of("adam"), style_of("explicit-both-one-step")
        ('-', ':')
    """
    _, variant = _parts(method)
    if method.startswith(tuple(_PREFIXES)):
        return "-."
    return next((style for name, (style, _) in VARIANTS.items() if _has(variant, name)), "-")


def words_of(method: str) -> str:
    """Return a method's name in words.

    Example:
        >>> words_of("parametric-both-decaying")
        'parametric, rows and gradients, falling gain'
        >>> words_of("closed-form@fashion-mnist")
        'ridge on learnt features, trained on Fashion-MNIST'
        >>> words_of("my-method")
        'my method'
    """
    prefix = next((prefix for prefix in _PREFIXES if method.startswith(prefix)), "")
    base, variant = _parts(method)
    stem, _, home = method.partition("@")
    words = METHODS[base][1] if base else stem.removeprefix(prefix)
    if not base and " " not in words:
        words = words.replace("-", " ")
    texts = []
    for name, (_, text) in VARIANTS.items():
        if _has(variant, name):
            texts.append(text)
            variant = f"{variant}-".replace(f"-{name}-", "-")
    remainder = variant.replace("-", " ").strip()
    source = {"fashion-mnist": "Fashion-MNIST", "fashion_mnist": "Fashion-MNIST", "mnist": "MNIST"}
    return (
        _PREFIXES.get(prefix, "")
        + ", ".join([words, *([remainder] if remainder else []), *texts])
        + (f", trained on {source.get(home, home)}" if home else "")
    )


def _has(variant: str, name: str) -> bool:
    """Return whether the end of a method's name has a variant in it, between hyphens."""
    return f"-{name}-" in f"{variant}-"


def _parts(method: str) -> tuple[str, str]:
    """Return the entry of METHODS that a name begins with, or "", and what follows it."""
    stem = method.partition("@")[0].lower()
    for prefix in _PREFIXES:
        stem = stem.removeprefix(prefix)
    matches = [name for name in METHODS if stem == name or stem.startswith(f"{name}-")]
    base = max(matches, key=len, default="")
    return base, stem[len(base) :] if base else ""
