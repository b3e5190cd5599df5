"""What a layer reads: a window that slides over a feature map, and the design matrix that it unfolds to.

Every layer that sums over channels is one: Conv and ConvTranspose of any rank, Gemm and MatMul with no spatial axes.
Its output is `A W + b`. A has a row for each output position of each image and, in each group, a column for each pair
of a channel and a tap of the window, channels slowest.

Letters: N images, C channels, G groups, O outputs, T taps, R rows, K = C / G * T columns of a group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """The attributes of Conv or ConvTranspose, one entry a spatial axis; `output_padding` only where transposed."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()

    @property
    def taps(self) -> int:
        """Count the positions of the window."""
        return math.prod(self.kernel)


DENSE = Window((), (), (), (), ())
"""The window of Gemm and MatMul: rows of features."""


@dataclass(frozen=True)
class Sliding:
    """A window reduced to a correlation: it reads positions `output * stride + offsets[tap]` of a spread map."""

    insert: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    stride: tuple[int, ...]
    offsets: tuple[tuple[int, ...], ...]


def sliding(window: Window) -> Sliding:
    """Reduce a window to a correlation; a transposed one inserts zeros and runs its taps backwards."""
    reach = tuple(d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True))
    taps = product(*map(range, window.kernel))
    steps = [tuple(d * t for d, t in zip(window.dilation, tap, strict=True)) for tap in taps]
    ones = (1,) * len(reach)
    if not window.transposed:
        return Sliding(ones, window.begin, window.end, window.stride, tuple(steps))
    backwards = tuple(tuple(r - s for r, s in zip(reach, step, strict=True)) for step in steps)
    extra = window.output_padding or (0,) * len(reach)
    begin = tuple(r - b for r, b in zip(reach, window.begin, strict=True))
    end = tuple(r - e + x for r, e, x in zip(reach, window.end, extra, strict=True))
    return Sliding(window.stride, begin, end, ones, backwards)


def padded_shape(spatial: tuple[int, ...], slide: Sliding) -> tuple[int, ...]:
    """Work out the spatial shape of a map with zeros inserted and padded."""
    axes = zip(slide.begin, slide.insert, spatial, slide.end, strict=True)
    return tuple(b + i * (n - 1) + 1 + e for b, i, n, e in axes)


def spread(x: Array, slide: Sliding) -> Array:
    """Insert zeros between the positions of a map [N, C, *spatial] and pad it with zeros; negative padding crops."""
    padded = padded_shape(x.shape[2:], slide)
    made = np.zeros((*x.shape[:2], *padded), x.dtype)
    target, source = [], []
    for begin, step, size, length in zip(slide.begin, slide.insert, x.shape[2:], padded, strict=True):
        first = max(-(begin // step), 0)
        last = min(size, -(-(length - begin) // step))
        source.append(slice(first, last))
        target.append(slice(begin + first * step, begin + (last - 1) * step + 1, step))
    made[:, :, *target] = x[:, :, *source]
    return made


def output_shape(padded: tuple[int, ...], slide: Sliding) -> tuple[int, ...]:
    """Work out the spatial shape of the output from that of the padded map."""
    reach = np.max(np.array(slide.offsets).reshape(len(slide.offsets), -1), axis=0).tolist()
    return tuple((n - r - 1) // s + 1 for n, r, s in zip(padded, reach, slide.stride, strict=True))


def unfold(x: Array, window: Window) -> Array:
    """Write out the design matrix [G, R, K] of a map [N, C, *spatial]; the kernels do without it."""
    slide = sliding(window)
    padded = spread(x, slide)
    shape = output_shape(padded.shape[2:], slide)
    taps = [padded[:, :, *_steps(offset, slide.stride, shape)] for offset in slide.offsets]
    channels = x.shape[1]
    patches_NCTP = np.stack(taps, axis=2).reshape(len(x), channels, window.taps, math.prod(shape))
    patches_NPCT = patches_NCTP.transpose(0, 3, 1, 2)
    rows = patches_NPCT.shape[0] * patches_NPCT.shape[1]
    grouped = patches_NPCT.reshape(rows, window.groups, channels // window.groups * window.taps)
    return grouped.transpose(1, 0, 2)


def _steps(first: tuple[int, ...], stride: tuple[int, ...], count: tuple[int, ...]) -> list[slice]:
    return [slice(f, f + s * (n - 1) + 1, s) for f, s, n in zip(first, stride, count, strict=True)]


def output_rows(y: Array, groups: int) -> Array:
    """Write an output [N, O, *spatial] as rows [G, R, O / G] in the order of the design matrix."""
    positions = math.prod(y.shape[2:])
    rows = np.moveaxis(y.reshape(*y.shape[:2], positions), 1, 2)
    return rows.reshape(len(y) * positions, groups, y.shape[1] // groups).transpose(1, 0, 2)


def columns_of(weight: Array, window: Window) -> Array:
    """Turn a weight ([O, C / G, *kernel]; transposed or dense [C, O / G, *kernel]) into W [G, K, O / G]."""
    groups, taps = window.groups, window.taps
    if window.transposed or not window.kernel:
        blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], taps)
        return blocks.swapaxes(2, 3).reshape(groups, -1, weight.shape[1])
    return weight.reshape(groups, weight.shape[0] // groups, -1).swapaxes(1, 2)


def weight_of(columns: Array, window: Window) -> Array:
    """Turn W [G, K, O / G] back into the weight of a layer."""
    groups, outputs, taps = window.groups, columns.shape[2], window.taps
    if window.transposed or not window.kernel:
        blocks = columns.reshape(groups, -1, taps, outputs).swapaxes(2, 3)
        return blocks.reshape(-1, outputs, *window.kernel)
    return columns.swapaxes(1, 2).reshape(groups * outputs, -1, *window.kernel)


def class_columns(channels: Array, taps: int) -> Array:
    """List the columns [n, m * taps] of classes of channels [n, m], numbered within a group."""
    columns = channels[:, :, None] * taps + np.arange(taps)
    return columns.reshape(len(channels), channels.shape[1] * taps)
