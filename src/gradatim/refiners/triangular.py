"""Cholesky factors and Gram matrices of float64 on a CPU by the LAPACK of SciPy, twice as fast as PyTorch's.

Source: Golub, Van Loan 2013, section 4.2 (Cholesky factors).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.linalg import blas, lapack

if TYPE_CHECKING:
    from torch import Tensor

dpotrf, dpotrs, dtrtri = (getattr(lapack, name) for name in ("dpotrf", "dpotrs", "dtrtri"))
(dsyrk,) = (getattr(blas, name) for name in ("dsyrk",))

MANY = 128
"""Rows from which on the symmetry of their Gram matrix is worth a copy."""


def cholesky(matrices: Tensor) -> Tensor:
    """Return the Cholesky factors, of shape `[..., d, d]`, of positive definite matrices, which are overwritten.

    Above the diagonal is anything.

    Raises:
        torch.linalg.LinAlgError: a matrix that is not positive definite.

    Example:
        >>> import torch
        >>> from gradatim.refiners.triangular import cholesky
        >>> cholesky(torch.tensor([[4.0, 2.0], [2.0, 5.0]]).double()).tril()
        tensor([[2., 0.],
                [1., 2.]], dtype=torch.float64)
    """
    if not _is_fast(matrices):
        return torch.linalg.cholesky(matrices)
    for part in matrices.flatten(0, -3) if matrices.dim() > 2 else matrices[None]:
        _, info = dpotrf(part.numpy().T, lower=0, clean=0, overwrite_a=1)
        if info:
            raise torch.linalg.LinAlgError(f"the leading minor of order {info} is not positive definite")
    return matrices


def solve(lower: Tensor, right: Tensor) -> Tensor:
    """Return the solutions of systems with Cholesky factors `[..., d, d]`, of the shape of `right [..., d, C]`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.triangular import solve
        >>> solve(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]).double(), torch.ones(1, 2, 1).double()).flatten()
        tensor([0.2500, 1.0000], dtype=torch.float64)
    """
    right = right.expand(*lower.shape[:-2], *right.shape[-2:])
    if not _is_fast(lower):
        return torch.cholesky_solve(right, lower)
    solutions = torch.empty_like(right, memory_format=torch.contiguous_format)
    flat = zip(lower.flatten(0, -3), right.flatten(0, -3), solutions.flatten(0, -3), strict=True)
    for part, right_side, solution in flat:
        solution.copy_(torch.from_numpy(dpotrs(part.numpy().T, right_side.numpy(), lower=0)[0]))
    return solutions


def added_gram(gram: Tensor, a: Tensor, weight: Tensor) -> Tensor:
    """Return Gram matrices `[B, D, D]` with those of rows a `[B, N, D]` of weights `[B, N]` added.

    Of many rows of one task, each of weight 1, half is computed.

    Example:
        >>> import torch
        >>> from gradatim.refiners.triangular import added_gram
        >>> added_gram(torch.zeros(1, 2, 2), torch.tensor([[[1.0, 2.0]]]), torch.tensor([[3.0]]))
        tensor([[[ 3.,  6.],
                 [ 6., 12.]]])
    """
    if a.shape[1] < MANY or len(a) > 1 or not _is_fast(gram) or bool((weight != 1).any()):
        return torch.baddbmm(gram, (a * weight[..., None]).mT, a)
    total = dsyrk(1.0, a[0].numpy().T, beta=1.0, c=gram[0].numpy().T, lower=0)
    lower = torch.from_numpy(total.T)[None].tril()
    return lower + lower.tril(-1).mT


def inverse_diagonal(lower: Tensor) -> Tensor:
    """Return the diagonals `[..., d]` of the inverses of matrices, from Cholesky factors of shape `[..., d, d]`.

    Example:
        >>> import torch
        >>> from gradatim.refiners.triangular import inverse_diagonal
        >>> inverse_diagonal(torch.tensor([[2.0, 0.0], [1.0, 2.0]]).double())
        tensor([0.3125, 0.2500], dtype=torch.float64)
    """
    if not _is_fast(lower):
        return torch.cholesky_inverse(lower).diagonal(dim1=-2, dim2=-1)
    flat = lower.flatten(0, -3) if lower.dim() > 2 else lower[None]
    parts = [torch.from_numpy(dtrtri(part.numpy().T, lower=0)[0].T) for part in flat]
    return torch.stack([part.tril().square().sum(0) for part in parts]).view(lower.shape[:-1])


def _is_fast(matrices: Tensor) -> bool:
    is_plain = matrices.device.type == "cpu" and matrices.dtype == torch.float64 and matrices.is_contiguous()
    return is_plain and not matrices.requires_grad and matrices.numel() > 0
