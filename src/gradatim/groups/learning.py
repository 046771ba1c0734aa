"""A prior over heads learnt from the sums of groups, by EM with the common mean integrated out.

Source: Dempster, Laird, Rubin 1977, sec. 4.6; Laird, Ware 1982, eq. 3.9 to 3.14; Haff 1980 (shrunken covariance).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .experts import Expert, solve
from .sums import LEVELS, Sums

STEPS = 25
SMALL = 1e-8
QUIET = 1e-6
"""The least noise, for a y of variance 1: below it the sums of rows without noise over it are no sums any more."""


class Learnt(NamedTuple):
    """What EM has learnt: the expert, and the log evidence before each step and after the last, `[steps + 1]`."""

    expert: Expert
    log_evidence: np.ndarray


class _Moments(NamedTuple):
    """What is expected of heads: the mean m and its covariance, moments of w - m in units of the root, and misses."""

    log_evidence: float
    mean: np.ndarray
    mean_covariance: np.ndarray
    second: np.ndarray
    misses: float


def learn(
    name: str,
    sums: Sums,
    varying: np.ndarray,
    fixed: np.ndarray,
    blocks: np.ndarray,
    pseudo: float = 1.0,
    steps: int = STEPS,
    classes: bool = False,
) -> Learnt:
    """Learn m, the covariance and the noise of heads from the sums of groups.

    Args:
        name: of the expert.
        sums: of the groups.
        varying: features whose weight varies by group, bool `[d]`.
        fixed: features with one weight for all groups; a feature in neither has the weight 0, bool `[d]`.
        blocks: features of one number have one prior precision, and pseudo-groups of one variance, int `[d]`.
        pseudo: pseudo-groups with an isotropic covariance in each block, added to the groups.
        steps: of EM.
        classes: whether the sums are of classes.

    Example:
        >>> import numpy as np
        >>> from gradatim.groups.learning import learn
        >>> from gradatim.groups.sums import Sums
        >>> rng = np.random.default_rng(0)
        >>> group = np.repeat(np.arange(200), 20)
        >>> y = 3 * rng.normal(size=200)[group] + rng.normal(size=4000)
        >>> sums = Sums.of_numbers(np.ones((4000, 1)), y, group, 200)
        >>> yes, no = np.ones(1, bool), np.zeros(1, bool)
        >>> expert = learn("level", sums, yes, no, np.zeros(1, int)).expert
        >>> expert.covariance.round(), round(expert.noise, 1)
        (array([[8.]]), 1.0)
    """
    used, places = varying | fixed, np.flatnonzero(varying)
    width, rows = len(varying), max(1.0, float(sums.count.sum()))
    noise = 1.0 if classes else max(QUIET, float(sums.value.sum()) / rows)
    root = np.zeros((width, len(places)))
    scale = (
        np.einsum("kpq,q->q", sums.square, np.ones(sums.square.shape[2]))[_diagonal(width)]
        / rows
        / sums.value.shape[1]
    )
    root[places, np.arange(len(places))] = np.sqrt(
        0.1 * noise / np.maximum(scale[places], 0.1) / max(1, len(places))
    )
    precision = np.where(used, 1.0, np.inf)
    expert, history = Expert(name, np.zeros(width), root, noise), []
    for _ in range(steps):
        found = _expect(expert, sums, precision, used, classes)
        history.append(found.log_evidence)
        expert, precision = _maximise(expert, found, sums, blocks, pseudo, used, places, precision, classes)
    found = _expect(expert, sums, precision, used, classes)
    return Learnt(expert._replace(mean=found.mean), np.array([*history, found.log_evidence]))


def _diagonal(width: int) -> np.ndarray:
    rows, columns = np.tril_indices(width)
    return np.flatnonzero(rows == columns)


def _quadratic(expert: Expert, sums: Sums, classes: bool) -> tuple[np.ndarray, np.ndarray, float]:
    """Return `square [K, d, d]` and `linear [K, d]` over the noise, and the log-likelihood of heads of zero."""
    if not classes:
        rows, noise = float(sums.count.sum()), expert.noise
        constant = -0.5 * (rows * np.log(2 * np.pi * noise) + float(sums.value.sum()) / noise)
        return sums.matrices()[:, 0] / noise, sums.linear[:, 0] / noise, constant
    levels = np.array(LEVELS)
    centre = solve(expert, sums).effects()[0][:, 0, 0]
    best, every = abs(centre[:, None] - levels).argmin(1), np.arange(len(centre))
    square, linear = sums.matrices()[every, best], sums.linear[every, best]
    shift = levels[best]
    constant = sums.value[every, best] - shift * linear[:, 0] - 0.5 * shift**2 * square[:, 0, 0]
    return square, linear + shift[:, None] * square[:, 0], float(constant.sum())


def _expect(expert: Expert, sums: Sums, precision: np.ndarray, used: np.ndarray, classes: bool) -> _Moments:
    """Return what is expected of m and of heads, and the log evidence with both integrated out."""
    square, linear, constant = _quadratic(expert, sums, classes)
    root = expert.root
    projected = square @ root
    inner = np.eye(root.shape[1]) + root.T @ projected
    inverse = np.linalg.inv(inner)
    pulled = linear @ root
    whole = square - projected @ inverse @ projected.transpose(0, 2, 1)
    direction = linear - np.einsum("kdr,krs,ks->kd", projected, inverse, pulled)
    total = whole.sum(0)[np.ix_(used, used)] + np.diag(precision[used])
    mean, covariance = np.zeros(len(used)), np.zeros((len(used), len(used)))
    covariance[np.ix_(used, used)] = np.linalg.inv(total)
    mean[used] = np.linalg.solve(total, direction.sum(0)[used])
    log_evidence = (
        constant
        - 0.5 * np.linalg.slogdet(inner)[1].sum()
        + 0.5 * np.einsum("kr,krs,ks->", pulled, inverse, pulled)
        + 0.5 * direction.sum(0) @ mean
        + 0.5 * np.log(precision[used]).sum()
        - 0.5 * np.linalg.slogdet(total)[1]
    )
    bend = inverse @ projected.transpose(0, 2, 1)
    place = np.einsum("krs,ks->kr", inverse, (linear - square @ mean) @ root)
    second = place[:, :, None] * place[:, None] + inverse + bend @ covariance @ bend.transpose(0, 2, 1)
    heads = mean + place @ root.T
    fitted = (((square @ heads[:, :, None])[..., 0] - 2 * linear) * heads).sum()
    own = np.einsum("krs,ksr->", root.T @ projected, inverse)
    kept = np.eye(len(used)) - root @ bend
    shared = float((((kept.transpose(0, 2, 1) @ square) @ kept).sum(0) * covariance).sum())
    return _Moments(float(log_evidence), mean, covariance, second.mean(0), float(fitted + own + shared))


def _maximise(
    expert: Expert,
    found: _Moments,
    sums: Sums,
    blocks: np.ndarray,
    pseudo: float,
    used: np.ndarray,
    places: np.ndarray,
    precision: np.ndarray,
    classes: bool,
) -> tuple[Expert, np.ndarray]:
    """Return the expert and the precision of m that are likeliest under what is expected."""
    n_groups = len(sums.count)
    inner = expert.root[places]
    covariance = inner @ found.second @ inner.T
    isotropic = np.zeros(len(places))
    for block in np.unique(blocks[places]):
        inside = blocks[places] == block
        isotropic[inside] = (
            covariance[inside, inside].mean() if inside.sum() == 1 else np.diag(covariance)[inside].mean()
        )
    covariance = (n_groups * covariance + pseudo * np.diag(isotropic)) / (n_groups + pseudo)
    covariance += SMALL * np.eye(len(places)) * max(1e-6, isotropic.max(initial=0.0))
    root = np.zeros_like(expert.root)
    root[places] = np.linalg.cholesky(covariance)
    noise = expert.noise
    if not classes:
        noise = max(
            QUIET, (float(sums.value.sum()) + expert.noise * found.misses) / max(1.0, float(sums.count.sum()))
        )
    size = found.mean**2 + np.diag(found.mean_covariance)
    new = precision.copy()
    for block in np.unique(blocks[used]):
        inside = used & (blocks == block)
        new[inside] = inside.sum() / max(SMALL, float(size[inside].sum()))
    return Expert(expert.name, found.mean, root, noise), new
