"""Operators that read images at any point."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.registry import NotLoweredError, Op, rule

_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "bicubic": "bicubic"}


@rule("GridSample")
def grid_sample(op: Op, x: Tensor, grid: Tensor) -> Tensor:
    """Read an image, or a volume, at the points of a grid from -1 to 1."""
    mode = _MODES[op.attr("mode", "linear")]
    corners = bool(op.attr("align_corners", 0))
    if x.dim() == 3 or (x.dim() == 5 and mode == "bicubic"):
        raise NotLoweredError(f"{mode} in {x.dim() - 2} dimensions")
    return F.grid_sample(x, grid.to(x.dtype), mode, op.attr("padding_mode", "zeros"), corners)


@rule("AffineGrid", host=(1,))
def affine_grid(op: Op, theta: Tensor, size: Tensor) -> Tensor:
    """Return the points of a grid after affine maps."""
    return F.affine_grid(theta, size.tolist(), align_corners=bool(op.attr("align_corners", 0)))
