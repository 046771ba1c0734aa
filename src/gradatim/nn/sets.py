"""Rows as tokens, and who sees whom among rows, prefixes and the tokens that read them.

Source: Mittal et al. 2025: "the attention mask is changed so that one pass serves mini-batches of every size".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowEmbedding(nn.Module):
    """Tokens `[B, N, W]` of rows, bilinear in x and what is known of its answer.

        answer_n = [y_n (one-hot where it is a class), f(x_n) (as probabilities)]
        token_n  = A x_n + C answer_n + (D x_n) * (E answer_n)

    The product is there because the gradient of any linear model is one, x times a residual.

    Args: `x_dim`; `y_dim`: its width, or `classes`: the number of classes (then y is int64 `[B, N, 1]`);
    `width` W; `output_dim`: width of f's outputs where a step sees them, else 0.
    """

    def __init__(self, x_dim: int, y_dim: int, classes: int | None, width: int, output_dim: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.x = nn.Linear(x_dim, width)
        self.scale = nn.Linear(x_dim, width, bias=False)
        self.answer = nn.Linear((classes or y_dim) + output_dim, 2 * width, bias=False)

    def forward(self, x: Tensor, y: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Return tokens `[B, N, W]`; outputs `[B, N, Do]` are what f says at x now (logits become probabilities)."""
        answer = F.one_hot(y[..., 0], self.classes).to(x.dtype) if self.classes else y
        if outputs is not None:
            answer = torch.cat([answer, outputs.softmax(-1) if self.classes else outputs], dim=-1)
        shift, scale = self.answer(answer).chunk(2, dim=-1)
        return self.x(x) + shift + self.scale(x) * scale


def prefix_mask(rows: Tensor, lengths: Tensor, states: int) -> Tensor:
    """Return who sees whom `[B, L, L]` where one pass serves P prefixes: L = K + N + P K.

    Tokens in order: K tokens of the state, N rows (present where `rows [B, N]`), K tokens for each of the
    `lengths [P]`. The state sees itself; a row sees itself and the state; a prefix's tokens see the state, each other
    and the prefix's rows. So a prefix's answer is what a pass over its rows alone would give.
    """
    n_tasks, n_rows = rows.shape
    n_prefixes, first = len(lengths), states + n_rows
    total = first + n_prefixes * states
    visible = torch.eye(total, dtype=torch.bool, device=rows.device).repeat(n_tasks, 1, 1)
    visible[:, :, :states] = True
    inside = torch.arange(n_rows, device=rows.device) < lengths.to(rows.device)[:, None]  # [P, N]
    seen = (rows[:, None] & inside).repeat_interleave(states, dim=1)  # [B, P K, N]
    visible[:, first:, states:first] = seen
    own = torch.arange(n_prefixes, device=rows.device).repeat_interleave(states)
    visible[:, first:, first:] = own[:, None] == own
    return visible


def query_mask(rows: Tensor, lengths: Tensor, queries: int, mixing: bool) -> Tensor:
    """Return who sees whom `[B, L, L]` where queries read rows: L = N + P Nq.

    Tokens in order: N rows (present where `rows [B, N]`), Nq queries for each of the `lengths [P]`. Rows see the
    present rows (`mixing`) or only themselves; a query sees itself and its prefix's rows, never another query.

    Raises:
        ValueError: rows mix and there is more than one prefix, or one that leaves rows out.
    """
    n_tasks, n_rows = rows.shape
    visible = torch.eye(n_rows + len(lengths) * queries, dtype=torch.bool, device=rows.device)
    visible = visible.repeat(n_tasks, 1, 1)
    inside = torch.arange(n_rows, device=rows.device) < lengths.to(rows.device)[:, None]
    visible[:, n_rows:, :n_rows] = (rows[:, None] & inside).repeat_interleave(queries, dim=1)
    if mixing:
        if len(lengths) > 1 or int(lengths[0]) < n_rows:
            raise ValueError("rows that see each other serve one length at a time: the whole mini-batch")
        visible[:, :n_rows, :n_rows] |= rows[:, None]
    return visible
