"""Rows as tokens, and the attention masks between rows, prefixes and queries.

Source: Mittal et al. 2025: "the attention mask is changed so that one pass serves mini-batches of every size".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RowEmbedding(nn.Module):
    """Tokens `[B, N, W]` of rows, bilinear in x and the answer.

        answer_n = [y_n, f(x_n)]
        token_n  = A x_n + C answer_n + (D x_n) * (E answer_n)

    Classes enter the answer one-hot, and logits as probabilities. The product stands there because the gradient of a
    linear model is a product too: x times a residual.

    Args:
        x_dim: width of x.
        y_dim: width of y in a regression.
        classes: number of classes, or None for a regression. With classes, y is int64 `[B, N, 1]`.
        width: W of the tokens.
        output_dim: width of the predictor's outputs where they are given to `forward`, else 0.

    Example:
        >>> import torch
        >>> from gradatim.nn.sets import RowEmbedding
        >>> embed = RowEmbedding(x_dim=4, y_dim=1, classes=None, width=16)
        >>> embed(torch.randn(2, 5, 4), torch.randn(2, 5, 1)).shape
        torch.Size([2, 5, 16])

    Source: this project's own.
    """

    def __init__(self, x_dim: int, y_dim: int, classes: int | None, width: int, output_dim: int = 0) -> None:
        super().__init__()
        self.classes = classes
        self.x = nn.Linear(x_dim, width)
        self.scale = nn.Linear(x_dim, width, bias=False)
        self.answer = nn.Linear((classes or y_dim) + output_dim, 2 * width, bias=False)

    def forward(self, x: Tensor, y: Tensor, outputs: Tensor | None = None) -> Tensor:
        """Return the tokens of rows.

        Args:
            x: `[B, N, x_dim]`.
            y: `[B, N, y_dim]` floating, or int64 classes `[B, N, 1]`.
            outputs: `[B, N, output_dim]`, the predictor's present outputs at x. Logits become probabilities.

        Returns:
            Tokens `[B, N, W]`.
        """
        answer = F.one_hot(y[..., 0], self.classes).to(x.dtype) if self.classes else y
        if outputs is not None:
            answer = torch.cat([answer, outputs.softmax(-1) if self.classes else outputs], dim=-1)
        shift, scale = self.answer(answer).chunk(2, dim=-1)
        return self.x(x) + shift + self.scale(x) * scale


def prefix_mask(rows: Tensor, lengths: Tensor, states: int) -> Tensor:
    """Return the attention mask with which one pass serves P prefixes of the rows.

    The tokens are, in order: K tokens of the state, N rows, and K tokens for each prefix. Their number is
    L = K + N + P K.

    - The state attends to itself.
    - A row attends to itself and to the state.
    - The tokens of a prefix attend to the state, to each other and to the rows of the prefix.

    So each prefix gets the result of a pass over its rows alone.

    Args:
        rows: bool `[B, N]`, True where a row is present.
        lengths: int64 `[P]`, the number of rows in each prefix.
        states: K.

    Returns:
        Mask `[B, L, L]` bool; `mask[b, q, k]` means that q attends to k.

    Example:
        >>> import torch
        >>> from gradatim.nn.sets import prefix_mask
        >>> prefix_mask(torch.ones(1, 2, dtype=torch.bool), torch.tensor([1, 2]), states=1)[0].int()
        tensor([[1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 0, 1, 0, 0],
                [1, 1, 0, 1, 0],
                [1, 1, 1, 0, 1]], dtype=torch.int32)

    Source: Mittal et al. 2025: one pass serves mini-batches of every size.
    """
    n_tasks, n_rows = rows.shape
    n_prefixes, first = len(lengths), states + n_rows
    total = first + n_prefixes * states
    visible = torch.eye(total, dtype=torch.bool, device=rows.device).repeat(n_tasks, 1, 1)
    visible[:, :, :states] = True
    inside = torch.arange(n_rows, device=rows.device) < lengths.to(rows.device)[:, None]  # [P, N]
    prefix_rows = (rows[:, None] & inside).repeat_interleave(states, dim=1)  # [B, P K, N]
    visible[:, first:, states:first] = prefix_rows
    prefix = torch.arange(n_prefixes, device=rows.device).repeat_interleave(states)
    visible[:, first:, first:] = prefix[:, None] == prefix
    return visible


def query_mask(rows: Tensor, lengths: Tensor, queries: int, mixing: bool) -> Tensor:
    """Return the attention mask with which queries attend to the rows of P prefixes.

    The tokens are, in order: N rows, and Nq queries for each prefix. Their number is L = N + P Nq.
    A query attends to itself and to the rows of its prefix, never to another query.

    Args:
        rows: bool `[B, N]`, True where a row is present.
        lengths: int64 `[P]`, the number of rows in each prefix.
        queries: Nq.
        mixing: whether rows attend to all present rows. Otherwise each attends to itself alone.

    Returns:
        Mask `[B, L, L]` bool; `mask[b, q, k]` means that q attends to k.

    Raises:
        ValueError: mixing with more than one prefix, or with a prefix shorter than the rows.

    Example:
        >>> import torch
        >>> from gradatim.nn.sets import query_mask
        >>> query_mask(torch.ones(1, 2, dtype=torch.bool), torch.tensor([1]), queries=1, mixing=False)[0].int()
        tensor([[1, 0, 0],
                [0, 1, 0],
                [1, 0, 1]], dtype=torch.int32)

    Source: Mittal et al. 2025: one pass serves mini-batches of every size.
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
