"""Sub-trajectory balance of sequences that may stop after every token, each of which has a reward.

Source: Hu, Jain, Elmoznino et al. 2024 (arXiv 2310.04363), eq. 3; Madan et al. 2023 (sub-trajectory balance);
Deleu et al. 2022 (states that may all stop, so that no flow is learnt).
"""

from __future__ import annotations

import torch
from torch import Tensor


def subtb_loss(
    log_q: Tensor, log_stop: Tensor, log_reward: Tensor, lengths: Tensor, decay: float = 1.0
) -> Tensor:
    """Return the modified sub-trajectory balance `[]`: zero where a sampler draws sequences in proportion to rewards.

        d_i  = log R(z_1:i) + log q(z_i+1 | z_1:i) + log q(stop | z_1:i+1) - log R(z_1:i+1) - log q(stop | z_1:i)
        c_i  = d_0 + ... + d_i-1
        loss = sum over i < j of decay^(j-i-1) (c_j - c_i)^2 / sum of decay^(j-i-1)

    Pairs i < j reach to the length of their sequence. A sequence that stops at once has no pair.

    Args:
        log_q: log q(z_i+1 | z_1:i) of each token, `[B, L]`.
        log_stop: log q(stop | z_1:i) after i tokens, `[B, L + 1]`. It is 0 where stopping is forced.
        log_reward: log R(z_1:i) of stopping after i tokens, `[B, L + 1]`.
        lengths: tokens of each sequence, `[B]` int64. What lies behind them counts for nothing.
        decay: how much longer pairs count than shorter ones.

    Raises:
        ValueError: shapes that do not fit, lengths outside 0 .. L, a decay that is not positive.

    Example:
        >>> import torch
        >>> from gradatim.language.subtb import subtb_loss
        >>> log_q, log_stop = torch.tensor([[0.75]]).log(), torch.tensor([[0.25, 1.0]]).log()
        >>> reward = torch.tensor([[1.0, 3.0]]).log()  # one token is three times as good as none
        >>> subtb_loss(log_q, log_stop, reward, torch.tensor([1]))
        tensor(0.)

    Source: Hu et al. 2024, eq. 3.
    """
    _check(log_q, log_stop, log_reward, lengths, decay)
    places = torch.arange(log_stop.shape[1], device=log_q.device)
    inside = places <= lengths[:, None]
    flow = torch.where(inside, log_reward - log_stop, 0)
    step = torch.where(inside[:, 1:], flow[:, :-1] + log_q - flow[:, 1:], 0)
    total = torch.cat([step.new_zeros(len(step), 1), step.cumsum(1)], dim=1)
    gap = total[:, None, :] - total[:, :, None]
    apart = places - places[:, None]
    weight = torch.where(apart > 0, decay ** (apart - 1).clamp(min=0).to(gap), 0) * inside[:, None]
    return (weight * gap.square()).sum() / weight.sum().clamp(min=1e-12)


def _check(log_q: Tensor, log_stop: Tensor, log_reward: Tensor, lengths: Tensor, decay: float) -> None:
    if log_q.dim() != 2:
        raise ValueError(f"log_q has one number for each token, [B, L]; got the shape {tuple(log_q.shape)}")
    wanted = (log_q.shape[0], log_q.shape[1] + 1)
    for name, part in (("log_stop", log_stop), ("log_reward", log_reward)):
        if tuple(part.shape) != wanted:
            raise ValueError(
                f"{name} has one number for each prefix of the {wanted[0]} sequences, the empty one included: the "
                f"shape {wanted}; got {tuple(part.shape)}"
            )
    if tuple(lengths.shape) != wanted[:1]:
        raise ValueError(
            f"lengths has one number for each of {wanted[0]} sequences; got {tuple(lengths.shape)}"
        )
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= log_q.shape[1]:
        raise ValueError(
            f"lengths lie in 0 .. {log_q.shape[1]}; got {int(lengths.min())} .. {int(lengths.max())}"
        )
    if not decay > 0:
        raise ValueError(f"decay must be above 0; got {decay}")
