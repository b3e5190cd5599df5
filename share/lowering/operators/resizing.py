"""Resize and Upsample: every axis on its own, as a weighted sum of neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.registry import NotLoweredError, Op, rule


@dataclass(frozen=True)
class Axis:
    """One axis to resize: `begin` and `end` are the region of interest as parts of its length."""

    index: int
    length: int
    target: int
    scale: float
    begin: float
    end: float


@rule("Upsample", host=(1,))
def upsample(op: Op, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """Enlarge by factors, from the corner on."""
    factors = op.attr("scales") if scales is None else scales.tolist()
    axes = [Axis(i, n, math.floor(n * s), s, 0.0, 1.0) for i, (n, s) in enumerate(zip(x.shape, factors, strict=True))]
    return _resize(op, x, axes, "asymmetric", "floor")


@rule("Resize", host=(1, 2, 3))
def resize(op: Op, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Resize to sizes or by scales."""
    if op.version < 11:
        return upsample(op, x, parameters[0])
    roi, scales, sizes = (*parameters, None, None, None)[:3]
    axes = _plan(op, x, *(None if one is None or not one.numel() else one.tolist() for one in (roi, scales, sizes)))
    coordinates = op.attr("coordinate_transformation_mode", "half_pixel")
    return _resize(op, x, axes, coordinates, op.attr("nearest_mode", "round_prefer_floor"))


def _plan(
    op: Op, x: Tensor, roi: list[float] | None, scales: list[float] | None, sizes: list[int] | None
) -> list[Axis]:
    """Return the axes with their new sizes."""
    axes = [axis % x.dim() for axis in op.attr("axes") or range(x.dim())]
    lengths = [x.shape[axis] for axis in axes]
    if sizes is not None:
        scales = [size / length for size, length in zip(sizes, lengths, strict=True)]
        policy = op.attr("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            scale = (min if policy == "not_larger" else max)(scales)
            scales, sizes = [scale] * len(axes), [int(scale * length + 0.5) for length in lengths]
    assert scales is not None
    targets = sizes or [math.floor(length * scale) for length, scale in zip(lengths, scales, strict=True)]
    region = roi or [0.0] * len(axes) + [1.0] * len(axes)
    return [
        Axis(axis, lengths[i], targets[i], scales[i], region[i], region[i + len(axes)]) for i, axis in enumerate(axes)
    ]


def _resize(op: Op, x: Tensor, axes: Sequence[Axis], coordinates: str, nearest: str) -> Tensor:
    """Resize the axes that change."""
    crop = coordinates == "tf_crop_and_resize"
    changed = [axis for axis in axes if crop or axis.target != axis.length or axis.scale != 1]
    mode = op.attr("mode", "nearest")
    if (fast := _direct(op, x, changed, coordinates, nearest)) is not None:
        return fast
    result = x if x.is_floating_point() or mode == "nearest" else x.float()
    for axis in changed:
        place = _coordinates(axis, coordinates, x.device)
        if mode == "nearest":
            index = _rounded(place, nearest).clamp(0, axis.length - 1)
            moved = result.index_select(axis.index, index)
        else:
            moved = _blend(op, result, axis, place)
        result = _extrapolate(op, moved, axis, place) if crop else moved
    return result if result.dtype is x.dtype else _to_integers(result, x.dtype)


def _to_integers(result: Tensor, dtype: torch.dtype) -> Tensor:
    limits = torch.iinfo(dtype)
    return result.clamp(limits.min, limits.max).to(dtype)


def _direct(op: Op, x: Tensor, axes: Sequence[Axis], coordinates: str, nearest: str) -> Tensor | None:
    """Return what one torch function gives, or None where none does exactly that."""
    spatial = x.dim() == 4 and [axis.index for axis in axes] == [2, 3] and x.is_floating_point()
    exact = all(axis.target == axis.length * axis.scale and axis.target > 1 for axis in axes)
    plain = not op.attr("antialias", 0) and not op.attr("exclude_outside", 0)
    if not (spatial and exact and plain):
        return None
    size, mode = [axis.target for axis in axes], op.attr("mode", "nearest")
    if mode == "nearest":
        return F.interpolate(x, size, mode="nearest") if (coordinates, nearest) == ("asymmetric", "floor") else None
    corners = coordinates == "align_corners"
    if not corners and coordinates not in ("half_pixel", "pytorch_half_pixel"):
        return None
    cubic = mode == "cubic"
    if cubic and op.attr("cubic_coeff_a", -0.75) != -0.75:
        return None
    return F.interpolate(x, size, mode="bicubic" if cubic else "bilinear", align_corners=corners)


def _coordinates(axis: Axis, mode: str, device: torch.device) -> Tensor:
    """Return where in the input each output element lies, in float32 as onnxruntime computes it."""
    out = torch.arange(axis.target, device=device, dtype=torch.float32)
    last, width = axis.length - 1, axis.scale * axis.length
    if mode == "align_corners":
        # Of the size that the result has, as in onnxruntime, not of the one that the scale asks for.
        return out * (last / (axis.target - 1)) if axis.target > 1 else out * 0
    if mode == "asymmetric":
        return out / axis.scale
    if mode == "tf_crop_and_resize":
        if axis.target == 1:
            return out * 0 + 0.5 * (axis.begin + axis.end) * last
        return axis.begin * last + out * ((axis.end - axis.begin) * last / (axis.target - 1))
    if mode == "pytorch_half_pixel" and axis.target == 1:
        return out * 0
    centre = (out + 0.5) / axis.scale - 0.5
    if mode == "half_pixel_symmetric":
        return centre + axis.length / 2 * (1 - axis.target / width)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return centre
    raise NotLoweredError(f"the coordinates {mode}")


def _rounded(place: Tensor, mode: str) -> Tensor:
    """Return the nearest element."""
    if mode == "round_prefer_floor":
        return torch.ceil(place - 0.5).to(torch.int64)
    if mode == "round_prefer_ceil":
        return torch.floor(place + 0.5).to(torch.int64)
    return (torch.floor(place) if mode == "floor" else torch.ceil(place)).to(torch.int64)


def _linear(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(a: float) -> Callable[[Tensor], Tensor]:
    """Return the convolution kernel of Keys (1981), equation 4."""

    def weigh(distance: Tensor) -> Tensor:
        d = distance.abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))

    return weigh


def _blend(op: Op, x: Tensor, axis: Axis, place: Tensor) -> Tensor:
    """Return sums of neighbours, weighted by distance; a filter against aliases is as wide as the step."""
    reach, weigh = (1, _linear) if op.attr("mode") == "linear" else (2, _cubic(op.attr("cubic_coeff_a", -0.75)))
    factor = min(axis.scale, 1.0) if op.attr("antialias", 0) else 1.0
    first = math.floor(-reach / factor) + 1
    low = torch.floor(place)
    taps = torch.arange(first, 2 - first, device=x.device)
    weights_OK = weigh((taps - (place - low)[:, None]) * factor)
    index_OK = low.to(torch.int64)[:, None] + taps
    if op.attr("exclude_outside", 0):
        weights_OK = weights_OK * ((index_OK >= 0) & (index_OK < axis.length))
    if op.attr("exclude_outside", 0) or factor < 1:
        weights_OK = weights_OK / weights_OK.sum(1, keepdim=True)
    shape = [-1] + [1] * (x.dim() - 1 - axis.index)
    index_OK = index_OK.clamp(0, axis.length - 1)
    parts = [
        x.index_select(axis.index, index_OK[:, tap]) * weights_OK[:, tap].to(x.dtype).reshape(shape)
        for tap in range(len(taps))
    ]
    return torch.stack(parts).sum(0)


def _extrapolate(op: Op, x: Tensor, axis: Axis, place: Tensor) -> Tensor:
    outside = (place < 0) | (place > axis.length - 1)
    value = op.attr("extrapolation_value", 0.0)
    return torch.where(outside.reshape([-1] + [1] * (x.dim() - 1 - axis.index)), value, x)
