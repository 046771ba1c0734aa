"""What experts know of tasks.

Source: Dawid 1984 (prequential likelihood); this project's own form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from ..nn.widths import Widths
    from .pending import Pending
    from .statistics import Statistics


class ExpertsState(NamedTuple):
    """What experts know of B tasks.

    Fields: `moments`, sums over rows; `theta [B, E, D, C]` and `noise [B, E, C]`, the heads that score the next rows,
    solved after `solved [B]` rows; `log_likelihood [B, E, T]` of rows before they were learnt; `pending`, more rows. Of
    a regression also the `products [B, E + 1, E + 1]` of what experts missed rows by, the `share [B, E, T]` of each
    when heads were solved, and how wide their average is, `widths`.
    """

    moments: Statistics
    theta: Tensor
    noise: Tensor
    solved: Tensor
    log_likelihood: Tensor
    products: Tensor
    share: Tensor
    widths: Widths
    pending: Pending

    def counting(self, share: Tensor) -> ExpertsState:
        """Return the state in which what rows have said of experts counts a share `[B]` of what it did."""
        found, products = (share[:, None, None] * part for part in (self.log_likelihood, self.products))
        return self._replace(log_likelihood=found, products=products, widths=self.widths.shared(share))

    def mixture(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of scores `[B, N, E, C]` the means `[B, N, E]` of the first output, noise `[B, E]` and the share."""
        return scores[..., 0], self.noise[..., 0], self.share
