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

    slopes are directions of descent: the gradient, the gradient preconditioned by curvature, or none. So a step along
    each is contained in a move, at the start a plain small one; and s lets the size of a move, which falls a
    hundredfold as theta settles, be learnt apart from its shape.

    Args: `shapes`: (rows, width) of the matrices that lie one after the other in the flat latent, e.g. `Layout.shapes`
    for a token per weight row, `((1, S),)` for one token, `((K, Wz),)` for tokens of z; `latent_shape`; `width` W;
    `slopes`: how many there are, the last `faint` of them starting at a step of nearly 0.
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
        """Return tokens `[B, K, W]` of latent and slopes, each `[B, *latent_shape]`; slopes not given are zero."""
        missing = [torch.zeros_like(latent)] * (self.slopes - len(slopes))
        parts = (split_rows(part.flatten(1), self.shapes) for part in (latent, *slopes, *missing))
        pairs = zip(self.embed, zip(*parts, strict=True), strict=True)
        tokens = [embed(torch.cat(values, dim=-1)) for embed, values in pairs]
        return torch.cat(tokens, dim=1) + self.identity

    def move(self, tokens: Tensor, slopes: Sequence[Tensor] = ()) -> Tensor:
        """Return the move `[B, *latent_shape]` that refined tokens `[B, K, W]` propose."""
        return self.free(tokens) - self.along(tokens, slopes)

    def free(self, tokens: Tensor) -> Tensor:
        """Return `exp(s) C token`, the part of a move that follows no slope."""
        parts = self._split(tokens)
        size = self.size(tokens.mean(dim=1, keepdim=True)).clamp(-8, 4).exp()
        return self._join([size * head(part) for head, part in zip(self.head, parts, strict=True)])

    def along(self, tokens: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """Return `sum_i exp(D_i token) * slope_i`, the part that does."""
        parts, found = self._split(tokens), torch.zeros(())
        for rates, slope in zip(self.rate, slopes, strict=True):
            assert isinstance(rates, nn.ModuleList)
            speeds = [rate(part).clamp(-8, 4).exp() for rate, part in zip(rates, parts, strict=True)]
            down = split_rows(slope.flatten(1), self.shapes)
            found = found + self._join([speed * s for speed, s in zip(speeds, down, strict=True)])
        return found

    def _split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tokens.split([rows for rows, _ in self.shapes], dim=1)

    def _join(self, parts: list[Tensor]) -> Tensor:
        return torch.cat([part.flatten(1) for part in parts], dim=1).unflatten(1, self.latent_shape)


class Trust(nn.Module):
    """How far a proposal is trusted, a precision for each coordinate: `r = n exp(C token) / rms(slope)^p`.

    While the latent is far off, slopes are large and proposals poor; later the slope is noise and r counts rows. p
    starts at 2 (a variance), C at zero; without slopes r is `n exp(C token)`.

    Args: `tokens`: whose refined tokens it reads. Its `prior` is the log precision of the start.
    """

    def __init__(self, tokens: StateTokens) -> None:
        super().__init__()
        self.shapes, self.latent_shape = tokens.shapes, tokens.latent_shape
        width = tokens.identity.shape[1]
        self.head = nn.ModuleList(_constant(width, inner, 0.0) for _, inner in self.shapes)
        self.prior = nn.Parameter(torch.zeros(()))
        self.power = nn.Parameter(torch.tensor(2.0))

    def forward(self, tokens: Tensor, slopes: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Return r `[B, *latent_shape]` of refined tokens `[B, K, W]`, slopes as in a move, and `rows [B]`."""
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
