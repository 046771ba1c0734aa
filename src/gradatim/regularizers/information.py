"""A penalty on what a batch is predicted to be: classes should be used evenly, each answer should be sure, or both.

After the idea of: Alssum, Hammoud, Alfarra, Leon Alcazar, Ghanem 2025, "Forget Less, Retain More" (arXiv 2512.01818).
Its abstract names a penalty by "the expected label distribution" for rehearsal, beside entropy minimisation as another
method. Its equation was not public when this was written, nor its code: the formulation here is ours.

Source: Krause, Perona, Gomes 2010, eq. 2 (mutual information of inputs and labels); Grandvalet, Bengio 2004, eq. 5
(entropy minimisation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import log_softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

KINDS = ("marginal", "full", "entropy")
"""What is penalised: an uneven use of classes, that and unsure answers, or unsure answers alone."""


def information_loss(
    logits: Tensor,
    seen: Tensor | Sequence[int] | None = None,
    kind: str = "marginal",
    weight: float | Tensor = 1.0,
) -> Tensor:
    """Return a penalty to add to the loss of a batch.

    With `p_i = softmax(logits_i)` over the classes seen, `q = mean_i p_i` and the entropy `H`:

    - `"marginal"`: `-H(q)`. The batch as a whole should be spread over the classes. It says nothing of single rows.
    - `"full"`: `mean_i H(p_i) - H(q)`, minus the mutual information of rows and classes.
    - `"entropy"`: `mean_i H(p_i)`. Each row should be sure. It is the usual method to compare with.

    A network that learns a stream of classes calls nearly everything by the newest names. `"marginal"` holds against
    that, on current rows and replayed rows together.

    Args:
        logits: `[..., n, C]`, n rows of one batch.
        seen: which classes may be used: their indices, or truth values `[C]`. None: all of them.
        kind: what is penalised.
        weight: what the result is multiplied by, a number or `[...]`.

    Returns:
        `[...]`, a scalar for logits `[n, C]`.

    Raises:
        ValueError: logits that are no batch of rows, an unknown kind, or a `seen` that names no class, or one that is
            not there.

    Example:
        >>> import torch
        >>> from gradatim.regularizers.information import information_loss
        >>> sided = torch.tensor([[9.0, 0.0], [9.0, 0.0]])  # both rows are called class 0
        >>> spread = torch.tensor([[9.0, 0.0], [0.0, 9.0]])
        >>> round(float(information_loss(sided)), 3), round(float(information_loss(spread)), 3)
        (-0.001, -0.693)
    """
    if logits.ndim < 2 or not logits.shape[-2] or not logits.shape[-1]:
        raise ValueError(
            f"logits must be [rows, classes], of at least one row; got {tuple(logits.shape)}: give one whole batch"
        )
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}: choose one of them")
    if seen is not None:
        logits = logits[..., _chosen(seen, logits.shape[-1], logits.device)]
    logs = log_softmax(logits, -1)
    penalty = logits.new_zeros(logits.shape[:-2])
    if kind != "marginal":
        penalty = penalty - (logs.exp() * logs).sum(-1).mean(-1)
    if kind != "entropy":
        q = logs.logsumexp(-2) - torch.tensor(logits.shape[-2], dtype=logits.dtype).log()
        penalty = penalty + (q.exp() * q).sum(-1)
    return weight * penalty


def _chosen(seen: Tensor | Sequence[int], classes: int, device: torch.device) -> Tensor:
    """Return the indices of the classes that may be used."""
    index = torch.as_tensor(seen, device=device)
    if index.dtype == torch.bool and tuple(index.shape) == (classes,):
        index = index.nonzero()[:, 0]
    whole = index.ndim == 1 and not index.is_floating_point() and index.dtype != torch.bool
    if not whole or not index.numel() or int(index.min()) < 0 or int(index.max()) >= classes:
        raise ValueError(
            f"seen must be indices of classes below {classes}, or {classes} truth values with one that is true; got "
            f"{index.tolist()!r:.80}: name the classes of the rows so far"
        )
    return index.unique()
