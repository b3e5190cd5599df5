"""Least squares on the first k columns for all k at once: one Cholesky factor, and one solution.

With G = L L^T and Z = L^-1 B the weights of the first k columns are W_k = L_k^-T Z_k, where L_k and Z_k are the leading
parts, and the squares of the rows of Z beyond k are what the first k columns leave unexplained.

Letters: G groups, K columns, O outputs of a group.
"""

from __future__ import annotations

import numpy as np
import torch

from sartor.tools.prune.kernels.window import Array

_WHOLE = 96
"""Rows up to which a triangular matrix is inverted by substitution."""


def cholesky(gram: Array) -> Array:
    """Factor positive definite matrices [G, K, K]; raises LinAlgError for others."""
    return np.linalg.cholesky(gram)


def forward(factor: Array, right: Array) -> Array:
    """Solve L Z = B for lower triangular L [G, K, K] and B [G, K, O]."""
    solved = torch.linalg.solve_triangular(torch.from_numpy(factor), torch.from_numpy(right), upper=False)
    return np.asarray(solved.numpy())


def weights_of_first(factor: Array, solved: Array, columns: int) -> Array:
    """Solve L_k^T W = Z_k for the first k columns: [G, k, O]."""
    leading = torch.from_numpy(factor)[:, :columns, :columns].mT
    found = torch.linalg.solve_triangular(leading, torch.from_numpy(solved)[:, :columns], upper=True)
    return np.asarray(found.numpy())


def inverse_of_transpose(factor: Array) -> Array:
    """Invert L^T for lower triangular L [G, K, K], by halves: upper triangular [G, K, K]."""
    size = factor.shape[1]
    if size <= _WHOLE:
        identity = torch.eye(size, dtype=torch.float64).expand(factor.shape)
        return np.asarray(torch.linalg.solve_triangular(torch.from_numpy(factor).mT, identity, upper=True).numpy())
    half = size // 2
    made = np.zeros_like(factor)
    made[:, :half, :half] = inverse_of_transpose(factor[:, :half, :half])
    made[:, half:, half:] = inverse_of_transpose(factor[:, half:, half:])
    below = factor[:, half:, :half].swapaxes(1, 2)
    made[:, :half, half:] = -made[:, :half, :half] @ (below @ made[:, half:, half:])
    return made


def weights_reference(gram: Array, right: Array, columns: int) -> Array:
    """Solve for the first k columns from scratch: [G, k, O]."""
    return np.linalg.solve(gram[:, :columns, :columns], right[:, :columns])
