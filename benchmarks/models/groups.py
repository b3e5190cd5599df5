"""Seven groups of memory-intensive operators in torch, at sizes with equally many elements.

Where torch has a function that becomes one ONNX operator (LayerNormalization, Gelu) the group exists in two spellings:
with it, which onnxruntime has a kernel of its own for, and `_plain`, in primitive operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.example import export_module

Shape = tuple[int, int]
"""Rows and columns; groups of attention arrange rows x columns elements as heads."""

TINY, SMALL, LARGE, HUGE = (24, 64), (128, 768), (2048, 1024), (16384, 1024)
HEADS = {TINY: 2, SMALL: 12, LARGE: 8, HUGE: 16}
WIDTH = 64
"""Size of one head, which rotary embedding turns."""


@dataclass(frozen=True)
class Group:
    """A function of tensors, with inputs of one size; the last ones are parameters of a layer."""

    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__


class Computation(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return what the function does."""
        return self.function(*inputs)


def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias and apply GELU."""
    return functional.gelu(x + bias)


def bias_gelu_plain(x: Tensor, bias: Tensor) -> Tensor:
    """Add a bias and apply GELU."""
    return gelu(x + bias)


def residual_layernorm(x: Tensor, residual: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise a sum over its last axis."""
    return functional.layer_norm(x + residual, scale.shape, scale, bias)


def residual_layernorm_plain(x: Tensor, residual: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise a sum over its last axis."""
    return layer_norm(x + residual, scale, bias)


def gate_rmsnorm_softmax_mul(x: Tensor, gate: Tensor, scale: Tensor) -> Tensor:
    """Gate, normalise, and weigh the gated values by their softmax."""
    gated = x * torch.sigmoid(gate)
    normed = gated * torch.rsqrt(gated.square().mean(-1, keepdim=True) + 1e-6) * scale
    return torch.softmax(normed, -1) * gated


def ln_gelu_ln_softmax(x: Tensor, scale: Tensor, bias: Tensor, scale2: Tensor, bias2: Tensor) -> Tensor:
    """Chain LayerNorm, GELU, LayerNorm and softmax."""
    inner = functional.gelu(functional.layer_norm(x, scale.shape, scale, bias))
    return torch.softmax(functional.layer_norm(inner, scale.shape, scale2, bias2), -1)


def ln_gelu_ln_softmax_plain(x: Tensor, scale: Tensor, bias: Tensor, scale2: Tensor, bias2: Tensor) -> Tensor:
    """Chain LayerNorm, GELU, LayerNorm and softmax."""
    return torch.softmax(layer_norm(gelu(layer_norm(x, scale, bias)), scale2, bias2), -1)


def masked_softmax(scores_BHQK: Tensor, mask_11QK: Tensor) -> Tensor:
    """Scale attention scores, mask them with -inf and take the softmax over the keys."""
    scores_BHQK = (scores_BHQK / math.sqrt(WIDTH)).masked_fill(~mask_11QK, -math.inf)
    return torch.softmax(scores_BHQK, -1)


def rotary(x_BHSD: Tensor, cosine_SD: Tensor, sine_SD: Tensor) -> Tensor:
    """Turn the pairs (i, i + D/2) of every head by the angles of their positions."""
    first, second = x_BHSD.chunk(2, -1)
    return x_BHSD * cosine_SD + torch.cat((-second, first), -1) * sine_SD


def dequantise_scale_add(q: Tensor, residual: Tensor, zero: Tensor, scale: Tensor) -> Tensor:
    """Take 8-bit integers to numbers by a scale and a zero point a channel, and add a residual."""
    return (q.to(residual.dtype) - zero.to(residual.dtype)) * scale + residual


def gelu(x: Tensor) -> Tensor:
    """Apply GELU, written with erf."""
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalise the last axis, in primitive operators."""
    centred = x - x.mean(-1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5) * scale + bias


def groups(shape: Shape) -> tuple[Group, ...]:
    """Return all groups with seeded inputs of `shape`, one of TINY, SMALL, LARGE and HUGE."""
    draw = torch.Generator().manual_seed(11)
    rows, columns = shape

    def normal(*sizes: int, mean: float = 0.0) -> Tensor:
        return mean + torch.randn(sizes, generator=draw) * (1.0 if len(sizes) > 1 else 0.2)

    def integers(*sizes: int) -> Tensor:
        return torch.randint(-128, 128, sizes, generator=draw, dtype=torch.int8)

    x, other = normal(rows, columns), normal(rows, columns)
    norm, norm2 = ((normal(columns, mean=1.0), normal(columns)) for _ in range(2))
    return (
        *(Group(function, (x, norm[1])) for function in (bias_gelu, bias_gelu_plain)),
        *(Group(function, (x, other, *norm)) for function in (residual_layernorm, residual_layernorm_plain)),
        Group(gate_rmsnorm_softmax_mul, (x, other, norm[0])),
        *(Group(function, (x, *norm, *norm2)) for function in (ln_gelu_ln_softmax, ln_gelu_ln_softmax_plain)),
        Group(masked_softmax, _scores(shape, normal)),
        Group(rotary, _heads(shape, normal)),
        Group(dequantise_scale_add, (integers(rows, columns), x, integers(columns), normal(columns).abs())),
    )


def _scores(shape: Shape, normal: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Return attention scores (1, heads, queries, keys) and a causal mask (1, 1, queries, keys)."""
    pairs = shape[0] * shape[1] // HEADS[shape]
    queries = 2 ** (int(math.log2(pairs)) // 2)
    scores = normal(1, HEADS[shape], queries, pairs // queries) * 8
    return scores, torch.ones(1, 1, *scores.shape[2:]).tril(scores.shape[3] - queries).bool()


def _heads(shape: Shape, normal: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return one projection (1, heads, positions, width) and the cosines and sines of its positions."""
    positions = shape[0] * shape[1] // (HEADS[shape] * WIDTH)
    angles = torch.outer(torch.arange(positions), 10000 ** (-torch.arange(0, WIDTH, 2) / WIDTH)).repeat(1, 2)
    return normal(1, HEADS[shape], positions, WIDTH), angles.cos(), angles.sin()


def export_group(group: Group, folder: Path) -> Path:
    """Write a group into `folder` as torch.onnx.export makes it, all tensors as inputs, and return its path."""
    path = folder / f"{group.name}.onnx"
    names = [f"x{index}" for index in range(len(group.inputs))]
    export_module(Computation(group.function).eval(), group.inputs, path, names)
    return path
