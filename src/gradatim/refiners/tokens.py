"""The state as tokens: one for all of theta, one per row of each weight matrix, or one per vector of z.

Source: Mittal et al. 2025 (theta as one token); a token per weight row is ours, for theta of many rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..nn.functional import split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence


class StateTokens(nn.Module):
    """Tokens `[B, K, W]` of a latent, and from the refined tokens back to a move of the latent.

        token_k = A [latent_k, slope_k1, ...] + identity_k
        move_k  = exp(s) C token_k - sum_i exp(D_i token_k) * slope_ki,     s = d . mean_k token_k

    Slopes are directions of descent: the gradient, the gradient preconditioned by curvature, or none. A move contains a
    step along each of them, which is plain and small at the start. The size of a move falls a hundredfold as theta
    settles; s lets it be learnt apart from the shape.

    Args:
        shapes: (rows, width) of the matrices that lie one after the other in the flat latent. `Layout.shapes` gives a
            token for each weight row, `((1, S),)` one token, `((K, Wz),)` the tokens of z.
        latent_shape: of the latent, without tasks.
        width: W of the tokens.
        slopes: how many there are.
        faint: how many of the last ones start with a step of nearly 0.

    Example:
        >>> import torch
        >>> from gradatim.refiners.tokens import StateTokens
        >>> tokens = StateTokens(((2, 3),), (6,), width=8, slopes=1)
        >>> latent, gradient = torch.zeros(4, 6), torch.ones(4, 6)
        >>> tokens(latent, (gradient,)).shape
        torch.Size([4, 2, 8])
        >>> tokens.move(tokens(latent, (gradient,)), (gradient,)).shape
        torch.Size([4, 6])
    """

    def __init__(
        self,
        shapes: tuple[tuple[int, int], ...],
        latent_shape: tuple[int, ...],
        width: int,
        slopes: int,
        faint: int = 0,
    ) -> None:
        super().__init__()
        self.shapes, self.latent_shape, self.slopes = shapes, latent_shape, slopes
        self.count = sum(rows for rows, _ in shapes)
        self.identity = nn.Parameter(torch.randn(self.count, width) / width**0.5)
        self.embed = nn.ModuleList(nn.Linear((1 + slopes) * inner, width) for _, inner in shapes)
        self.head = nn.ModuleList(_constant(width, inner, 0.0) for _, inner in shapes)
        self.rate = nn.ModuleList(
            nn.ModuleList(
                _constant(width, inner, -5.0 if i >= slopes - faint else -1.0) for _, inner in shapes
            )
            for i in range(slopes)
        )
        self.size = _constant(width, 1, 0.0)

    def forward(self, latent: Tensor, slopes: Sequence[Tensor] = ()) -> Tensor:
        """Return tokens `[B, K, W]` of latent and slopes, each `[B, *latent_shape]`; missing slopes are zero."""
        missing = [torch.zeros_like(latent)] * (self.slopes - len(slopes))
        parts = (split_rows(part.flatten(1), self.shapes) for part in (latent, *slopes, *missing))
        pairs = zip(self.embed, zip(*parts, strict=True), strict=True)
        tokens = [embed(torch.cat(values, dim=-1)) for embed, values in pairs]
        return torch.cat(tokens, dim=1) + self.identity

    def move(self, tokens: Tensor, slopes: Sequence[Tensor] = ()) -> Tensor:
        """Return the move `[B, *latent_shape]` that refined tokens `[B, K, W]` propose."""
        return self.free(tokens) - self.along(tokens, slopes)

    def free(self, tokens: Tensor) -> Tensor:
        """Return `exp(s) C token`, the part of a move that follows no slope, `[B, *latent_shape]`."""
        parts = self._split(tokens)
        size = self.size(tokens.mean(dim=1, keepdim=True)).clamp(-8, 4).exp()
        return self._join([size * head(part) for head, part in zip(self.head, parts, strict=True)])

    def along(self, tokens: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """Return `sum_i exp(D_i token) * slope_i`, the part along slopes, `[B, *latent_shape]`."""
        parts, total = self._split(tokens), torch.zeros(())
        for rates, slope in zip(self.rate, slopes, strict=True):
            assert isinstance(rates, nn.ModuleList)
            speeds = [rate(part).clamp(-8, 4).exp() for rate, part in zip(rates, parts, strict=True)]
            down = split_rows(slope.flatten(1), self.shapes)
            total = total + self._join([speed * s for speed, s in zip(speeds, down, strict=True)])
        return total

    def _split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tokens.split([rows for rows, _ in self.shapes], dim=1)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], dim=1).unflatten(1, self.latent_shape)


class Trust(nn.Module):
    """The precision of a proposal, one for each coordinate: `r = n exp(C token) / rms(slope)^p`.

    While the latent is far off, slopes are large and proposals poor. Later the slope is noise, and r counts rows. p
    starts at 2 (a variance) and C at zero. Without slopes r is `n exp(C token)`. `prior` is the log precision of the
    start.

    Args:
        tokens: whose refined tokens it reads.

    Example:
        >>> import torch
        >>> from gradatim.refiners.tokens import StateTokens, Trust
        >>> trust = Trust(StateTokens(((2, 3),), (6,), width=8, slopes=0))
        >>> trust(torch.zeros(1, 2, 8), (), torch.tensor([5.0])).detach()
        tensor([[5., 5., 5., 5., 5., 5.]])
    """

    def __init__(self, tokens: StateTokens) -> None:
        super().__init__()
        self.shapes, self.latent_shape = tokens.shapes, tokens.latent_shape
        width = tokens.identity.shape[1]
        self.head = nn.ModuleList(_constant(width, inner, 0.0) for _, inner in self.shapes)
        self.prior = nn.Parameter(torch.zeros(()))
        self.power = nn.Parameter(torch.tensor(2.0))

    def forward(self, tokens: Tensor, slopes: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Return r `[B, *latent_shape]`, given refined tokens `[B, K, W]`, slopes as in a move, and `rows [B]`."""
        parts = tokens.split([rows for rows, _ in self.shapes], dim=1)
        flat = torch.cat([head(part).flatten(1) for head, part in zip(self.head, parts, strict=True)], dim=1)
        log = flat.clamp(-4, 4) + rows.clamp(min=1e-30).log()[:, None]
        if slopes:
            square = slopes[-1].flatten(1).square().mean(dim=1, keepdim=True)
            log = log - self.power / 2 * (square + 1e-8).log()
        return (log.exp() * (rows > 0)[:, None]).unflatten(1, self.latent_shape)


def _constant(width: int, out: int, value: float) -> nn.Linear:
    """Return a linear layer that starts as a constant."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, value)
    return layer
