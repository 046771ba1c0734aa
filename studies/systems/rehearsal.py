"""Many networks on one stream at once: the same rows, the same buffer, a setting each.

Their weights are stacked, so a step of all costs little more than its arithmetic. `RehearsalClassifier` takes the same
steps (tests hold one to the other).

Source: Chaudhry et al. 2019 (rehearsal); Caccia et al. 2022, eq. 2 (the asymmetric loss of ER-ACE); Menon et al. 2021,
eq. 10 (logits adjusted by how often a class was learnt); Grandvalet, Bengio 2004 (entropy minimisation).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from gradatim.estimators.buffer import Reservoir
from gradatim.regularizers.information import information_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from .class_streams import Stream

HIDDEN = 128
BATCH = 10


@dataclass(frozen=True)
class Setting:
    """What a network is trained by.

    Fields: `method`: a name below; `lr`; `weight`: of the regularizer, or the power of counts; `target`: the rows the
    regularizer sees.
    """

    method: str
    lr: float
    weight: float = 0.0
    target: str = "both"


REGULARIZED = {"marginal": "marginal", "full": "full", "entropy": "entropy"}


def losses(
    method: str, target: str, logits: Tensor, y: Tensor, n_new: int, weight: Tensor, counts: Tensor
) -> Tensor:
    """Return the loss `[K]` of K networks with logits `[K, n, C]` of one batch, new rows first.

    `y [n]`: classes; `weight [K]`; `counts [C]`: how often each class was learnt lately.
    """
    K, n, C = logits.shape
    fitted = logits
    if method.endswith("adjusted"):
        power = weight[:, None, None] if method == "adjusted" else 1.0
        fitted = logits + power * (counts / counts.sum()).clamp_min(1e-6).log()
    if method.endswith("ace"):
        there = torch.zeros(C, dtype=torch.bool)
        there[y[:n_new]] = True
        fitted = torch.cat([logits[:, :n_new].masked_fill(~there, -torch.inf), logits[:, n_new:]], 1)
    each = cross_entropy(fitted.reshape(-1, C), y.repeat(K), reduction="none").view(K, n)
    loss = each[:, :n_new].mean(1)
    if n > n_new:
        loss = loss + each[:, n_new:].mean(1)
    kind = method.split("+")[0].split(",")[0]
    if kind in REGULARIZED:
        rows = logits[:, n_new:] if target == "replay" else logits
        if rows.shape[1]:
            loss = loss + information_loss(rows, None, kind, weight)
    return loss


def train(
    stream: Stream, settings: Sequence[Setting], buffer: int, seed: int, batch: int = BATCH
) -> np.ndarray:
    """Return the accuracy on each earlier task after each task, `[settings, after, of]`, NaN where it is to come."""
    groups: dict[tuple[str, str], list[int]] = {}
    for at, setting in enumerate(settings):
        groups.setdefault((setting.method, setting.target), []).append(at)
    order = [at for members in groups.values() for at in members]
    lr = torch.tensor([settings[at].lr for at in order])
    weight = torch.tensor([settings[at].weight for at in order])
    nets = Nets(len(order), stream.x.shape[1], int(stream.y.max()) + 1, lr, seed)
    generator = np.random.default_rng([seed, buffer])
    keep = Reservoir(buffer, generator)
    slots = np.zeros(buffer, dtype=np.int64)
    x, y = torch.from_numpy(stream.x), torch.from_numpy(stream.y)
    tasks = stream.kind.tasks
    accuracy = np.full((len(order), tasks, tasks), np.nan)
    seen, counts = 0, torch.zeros(nets.classes)
    for t in range(tasks):
        part = stream.task(t)
        for turn in range(stream.kind.passes):
            for start in range(part.start, part.stop, batch):
                new = np.arange(start, min(start + batch, part.stop))
                old = slots[keep.draw(batch)] if keep.filled else new[:0]
                rows = torch.from_numpy(np.concatenate([new, old]))
                seen = max(seen, int(y[new].max()) + 1)
                counts = 0.95 * counts + torch.bincount(y[rows], minlength=nets.classes)
                nets.step(x[rows], y[rows], len(new), seen, groups, weight, counts)
                if not turn:
                    placed = keep.place(len(new))
                    for row, slot in zip(new, placed, strict=True):
                        if slot >= 0:
                            slots[slot] = row
        right = nets.right(torch.from_numpy(stream.judged_x), torch.from_numpy(stream.judged_y), seen)
        judged = stream.judged_y // stream.kind.per_task
        for of in range(t + 1):
            accuracy[:, t, of] = right[:, judged == of].mean(1)
    result = np.empty_like(accuracy)
    result[order] = accuracy
    return result


class Nets:
    """K networks with one hidden layer and a head that begins at zero, trained by plain gradient steps."""

    def __init__(self, K: int, inputs: int, classes: int, lr: Tensor, seed: int) -> None:
        body = torch.nn.Linear(inputs, HIDDEN)
        generator = torch.Generator().manual_seed(seed)
        bound = inputs**-0.5
        w = torch.empty_like(body.weight).uniform_(-bound, bound, generator=generator)
        b = torch.empty_like(body.bias).uniform_(-bound, bound, generator=generator)
        self.K, self.classes, self.lr = K, classes, lr
        self.w, self.b = w.detach().repeat(K, 1), b.detach().repeat(K)
        self.v, self.c = torch.zeros(K, HIDDEN, classes), torch.zeros(K, 1, classes)

    def hidden(self, x: Tensor) -> Tensor:
        """Return `[K, n, HIDDEN]`."""
        return torch.addmm(self.b, x, self.w.T).view(len(x), self.K, HIDDEN).transpose(0, 1).relu()

    def step(
        self, x: Tensor, y: Tensor, n_new: int, seen: int, groups, weight: Tensor, counts: Tensor
    ) -> None:
        """Take one gradient step on a batch x `[n, d]`, y `[n]`."""
        h = self.hidden(x)
        logits = (h @ self.v[:, :, :seen] + self.c[:, :, :seen]).requires_grad_()
        total, at = logits.new_zeros(()), 0
        for (method, target), members in groups.items():
            part = slice(at, at + len(members))
            total = total + losses(method, target, logits[part], y, n_new, weight[part], counts[:seen]).sum()
            at += len(members)
        (slope,) = torch.autograd.grad(total, logits)
        slope = slope * self.lr[:, None, None]
        back = (slope @ self.v[:, :, :seen].transpose(1, 2)) * (h > 0)
        self.v[:, :, :seen] -= h.transpose(1, 2) @ slope
        self.c[:, :, :seen] -= slope.sum(1, keepdim=True)
        back = back.transpose(0, 1).reshape(len(x), -1)
        self.w.addmm_(back.T, x, alpha=-1)
        self.b -= back.sum(0)

    def right(self, x: Tensor, y: Tensor, seen: int) -> np.ndarray:
        """Return which rows each network names rightly, `[K, n]`."""
        parts = [
            ((self.hidden(some) @ self.v[:, :, :seen] + self.c[:, :, :seen]).argmax(2) == of).numpy()
            for some, of in zip(x.split(250), y.split(250), strict=True)
        ]
        return np.concatenate(parts, 1)


def final(accuracy: np.ndarray) -> np.ndarray:
    """Return the mean accuracy over tasks after the last, `[...]`, of `[..., after, of]`."""
    return accuracy[..., -1, :].mean(-1)


def forgetting(accuracy: np.ndarray) -> np.ndarray:
    """Return how much accuracy of a task fell from its best to the last, the mean over all tasks but the last."""
    return (np.nanmax(accuracy[..., :-1, :-1], -2) - accuracy[..., -1, :-1]).mean(-1)
