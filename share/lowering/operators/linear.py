"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from sartor.share.lowering.registry import Op, rows, rule
from sartor.share.lowering.unsigned import signed

rows({"MatMul": signed(torch.matmul)})


@rule("Gemm")
def gemm(op: Op, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Return alpha a b + beta c, of transposed matrices where attributes say so."""
    a = a.T if op.attr("transA", 0) else a
    b = b.T if op.attr("transB", 0) else b
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    if alpha == beta == 1.0 and c is not None and c.dim() == 1 and a.is_floating_point():
        return torch.addmm(c, a, b)
    product = a @ b
    if alpha != 1.0:
        product = (product * alpha).to(a.dtype)
    if c is None:
        return product
    return product + (c if beta == 1.0 else (c * beta).to(a.dtype))


@rule("Einsum")
def einsum(op: Op, *inputs: Tensor) -> Tensor:
    """Sum products over indices."""
    return torch.einsum(op.attr("equation").replace(" ", ""), *inputs)


@rule("MatMulInteger")
def matmul_integer(_op: Op, a: Tensor, b: Tensor, zero_a: Tensor | None = None, zero_b: Tensor | None = None) -> Tensor:
    """Multiply 8-bit matrices to int32; zero points are for the whole, for rows of a or for columns of b."""
    return exact_matmul(centred(a, zero_a, rows=True), centred(b, zero_b)).to(torch.int32)


def centred(x: Tensor, zero: Tensor | None, rows: bool = False) -> Tensor:
    """Return quantised numbers minus their zero points as float64, which holds sums of their products exactly."""
    if zero is None:
        return x.double()
    per_row = rows and zero.dim() == 1 and zero.numel() > 1
    return x.double() - (zero.unsqueeze(-1) if per_row else zero).double()


def exact_matmul(a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices of integers held by float64: faster than int32 on CPU, and at hand on CUDA."""
    return a @ b
