"""Pooling over windows and over whole images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.operators.convolution import same_pads
from sartor.share.lowering.operators.indexing import padded
from sartor.share.lowering.registry import NotLoweredError, Op, rows, rule

_MAXIMA = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
_MEANS = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
_SUMS = (F.conv1d, F.conv2d, F.conv3d)


def _axes(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


rows(
    {
        "GlobalAveragePool": lambda x: x.mean(_axes(x), keepdim=True),
        "GlobalMaxPool": lambda x: x.amax(_axes(x), keepdim=True),
    }
)


@dataclass(frozen=True)
class Windows:
    """How windows lie over an image: `begins` and `ends` are the padding that is counted, `extra` what lies beyond."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def plain(self) -> bool:
        """Tell whether torch can average over them: padding of half a window at most, the same on both sides."""
        even = self.begins == self.ends and not any(self.extra) and set(self.dilations) == {1}
        return even and all(2 * pad <= width for pad, width in zip(self.begins, self.kernel, strict=True))

    def pads(self) -> list[int]:
        """Return all padding, begins then ends."""
        return [*self.begins, *(end + extra for end, extra in zip(self.ends, self.extra, strict=True))]


def windows(op: Op, x: Tensor) -> Windows:
    """Lay the windows of a pooling operator; raises NotLoweredError but in 1 to 3 dimensions."""
    kernel = tuple(op.attr("kernel_shape"))
    rank = len(kernel)
    if not 1 <= rank <= 3:
        raise NotLoweredError(f"pooling of {rank} dimensions")
    strides, dilations = tuple(op.attr("strides") or [1] * rank), tuple(op.attr("dilations") or [1] * rank)
    pads = same_pads(op, x.shape[2:], kernel)
    begins, ends = tuple(pads[:rank]), tuple(pads[rank:])
    extra = []
    for axis, size in enumerate(x.shape[2:]):
        span = dilations[axis] * (kernel[axis] - 1) + 1
        room = size + begins[axis] + ends[axis] - span
        steps = room // strides[axis]
        if op.attr("ceil_mode", 0) and room % strides[axis]:
            # A window that would begin in the padding behind the image is left out.
            steps += (steps + 1) * strides[axis] < size + begins[axis]
        extra.append(max(steps * strides[axis] - room, 0))
    return Windows(kernel, strides, dilations, begins, ends, tuple(extra))


@rule("MaxPool")
def max_pool(op: Op, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Return the greatest element of each window, and where in the whole tensor it lies."""
    laid = windows(op, x)
    wide = x if x.is_floating_point() else x.double()
    least = -math.inf
    whole = padded(wide, laid.pads(), least)
    pool = _MAXIMA[len(laid.kernel) - 1]
    steps = (laid.kernel, laid.strides, 0, laid.dilations)
    if not op.wants(1):
        return pool(whole, *steps).to(x.dtype)
    values, index = pool(whole, *steps, return_indices=True)
    return values.to(x.dtype), _in_tensor(op, index, x, whole.shape[2:], laid.begins)


def _in_tensor(op: Op, index: Tensor, x: Tensor, whole: Sequence[int], begins: Sequence[int]) -> Tensor:
    """Turn indices within a padded image into ones of the tensor without padding."""
    sizes = list(x.shape[2:])
    places = []
    for size, begin in zip(reversed(whole), reversed(begins), strict=True):
        places.append(index % size - begin)
        index = index // size
    order = range(len(sizes)) if op.attr("storage_order", 0) else reversed(range(len(sizes)))
    flat, stride = torch.zeros_like(places[0]), 1
    for axis in order:
        flat, stride = flat + places[len(sizes) - 1 - axis] * stride, stride * sizes[axis]
    images = torch.arange(x.shape[0] * x.shape[1], device=x.device) * stride
    return flat + images.reshape(x.shape[0], x.shape[1], *[1] * len(sizes))


@rule("AveragePool")
def average_pool(op: Op, x: Tensor) -> Tensor:
    """Return the mean of each window, over the padding too where `count_include_pad`."""
    laid = windows(op, x)
    include = bool(op.attr("count_include_pad", 0))
    if laid.plain:
        return _MEANS[len(laid.kernel) - 1](x, laid.kernel, laid.strides, laid.begins, False, include)
    ones = x.new_ones(1, 1, *x.shape[2:])
    counted = padded(ones, [*laid.begins, *laid.ends], 1.0 if include else 0.0)
    counts = _window_sums(padded(counted, [0] * len(laid.extra) + list(laid.extra)), laid)
    return _window_sums(padded(x, laid.pads()), laid) / counts


def _window_sums(whole: Tensor, laid: Windows) -> Tensor:
    """Add the elements of each window up, as a convolution with ones: pooling in torch knows no dilations."""
    single = whole.reshape(-1, 1, *whole.shape[2:])
    ones = whole.new_ones(1, 1, *laid.kernel)
    total = _SUMS[len(laid.kernel) - 1](single, ones, None, laid.strides, 0, laid.dilations)
    return total.reshape(*whole.shape[:2], *total.shape[2:])


@rule("LpPool")
def lp_pool(op: Op, x: Tensor) -> Tensor:
    """Return the p-norm of each window."""
    laid, p = windows(op, x), op.attr("p", 2)
    return torch.pow(_window_sums(padded(torch.pow(x.abs(), p), laid.pads()), laid), 1 / p)


@rule("GlobalLpPool")
def global_lp_pool(op: Op, x: Tensor) -> Tensor:
    """Return the p-norm of each channel."""
    p = op.attr("p", 2)
    return torch.pow(torch.pow(x.abs(), p).sum(_axes(x), keepdim=True), 1 / p)


@rule("MaxUnpool", host=(2,))
def max_unpool(op: Op, x: Tensor, index: Tensor, output_shape: Tensor | None = None) -> Tensor:
    """Write elements where MaxPool found them, zeros elsewhere."""
    kernel = op.attr("kernel_shape")
    rank = len(kernel)
    strides, pads = op.attr("strides") or [1] * rank, op.attr("pads") or [0] * (2 * rank)
    sizes = [
        (x.shape[2 + axis] - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel[axis] for axis in range(rank)
    ]
    inferred = [*x.shape[:2], *sizes]
    flat = x.new_zeros(math.prod(inferred)).scatter(0, index.reshape(-1), x.reshape(-1))
    result = flat.reshape(inferred)
    if output_shape is None:
        return result
    lacking = [wanted - got for wanted, got in zip(output_shape.tolist()[2:], sizes, strict=True)]
    return padded(result, [0] * rank + lacking)
