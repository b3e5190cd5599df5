"""Gram matrices of what a layer reads, on the CPU.

Where a window of several taps moves by one position, the design matrix is never written. An element of its Gram,
`sum_o x[c, o + a] x[c', o + a']` over output positions o for taps at a and a', depends on the taps by their distance
only, but for the border of the map. So each distance needs one product of channels with channels: 13 instead of 45 for
a 3 x 3 window. The last axis is cut where the box of some pair of taps begins or ends, the other axes are kept apart,
and each pair of taps sums the parts of its own box. Other windows, among them those of a single tap, whose design
matrix is the map, and windows over few channels, unfold some images at a time.

Products are float32 over a few thousand rows, all further sums float64. A channel's `shift`, about its mean, is taken
off before: a product of float32 is only as exact as what it multiplies is free of an offset.

Letters: N images, C channels, G groups, T taps, P positions of the output, R rows, K = C / G * T columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sartor.tools.prune.kernels.window import Array, Sliding, Window, output_shape, sliding, spread, unfold

CHUNK = 4096
"""Rows of a float32 product."""

SHIFT_BITS = 4
"""Significant bits of a shift: what a ReLU has made zero is then a number of few bits, whose squares sum exactly."""

LEAST_CHANNELS = 8
"""Channels of a group below which products of channels with channels are too small for their calls."""

Box = tuple[int, ...]


@dataclass(frozen=True)
class Moments:
    """Sums over rows of the design matrix A less `shift` [C] by channel: gram [G, K, K] = A^T A and sums [G, K]."""

    rows: int
    shift: Array
    gram: Array
    sums: Array

    def __add__(self, other: Moments) -> Moments:
        """Join the moments of two batches that were shifted alike."""
        assert np.array_equal(self.shift, other.shift)
        return Moments(self.rows + other.rows, self.shift, self.gram + other.gram, self.sums + other.sums)


def shift_of(x: Array, window: Window) -> Array:
    """Choose the shift [C] of a layer's channels from its first batch [N, C, *spatial].

    It is zero where the window is transposed: most of what such a window reads are inserted zeros.
    """
    if window.transposed or not x.size:
        return np.zeros(x.shape[1], np.float32)
    return rounded_shift(x.mean(axis=(0, *range(2, x.ndim)), dtype=np.float64))


def rounded_shift(mean: Array) -> Array:
    """Round means of channels [C] to a few bits."""
    mantissas, exponents = np.frexp(mean)
    rounded = np.ldexp(np.round(np.ldexp(mantissas, SHIFT_BITS)), exponents - SHIFT_BITS)
    return np.asarray(rounded, np.float32)


def moments_reference(x: Array, window: Window, shift: Array) -> Moments:
    """Sum over the design matrix of a map [N, C, *spatial] in float64."""
    by_column = np.repeat(shift.astype(np.float64), window.taps).reshape(window.groups, 1, -1)
    design = unfold(x.astype(np.float64), window) - by_column
    return Moments(design.shape[1], shift, design.swapaxes(1, 2) @ design, design.sum(1))


def moments(x: Array, window: Window, shift: Array) -> Moments:
    """Sum over the rows of the design matrix of a float32 map [N, C, *spatial]."""
    slide = sliding(window)
    channels = x.shape[1] // window.groups
    sum_up = _by_distance if channels >= LEAST_CHANNELS and window.taps > 1 and set(slide.stride) == {1} else _by_rows
    columns = channels * window.taps
    empty = Moments(0, shift, np.zeros((window.groups, columns, columns)), np.zeros((window.groups, columns)))
    return sum_up(x, slide, empty)


def batches(images: int, positions: int) -> Iterator[tuple[int, int]]:
    """Split images so that images times positions do not exceed CHUNK, if there is more than one image."""
    most = max(CHUNK // max(positions, 1), 1)
    return ((first, min(first + most, images)) for first in range(0, images, most))


def _pad(x: Array, slide: Sliding, shift: Array) -> Array:
    """Insert zeros, pad with zeros, and take the shift off."""
    by_channel = shift.reshape(-1, *(1,) * (x.ndim - 2))
    trivial = set(slide.insert) <= {1} and not any((*slide.begin, *slide.end))
    return (x if trivial else spread(x, slide)) - by_channel


def unfolded(x: Array, slide: Sliding, shift: Array) -> Array:
    """Write what each tap reads, less the shift, as [C, T, N, *P]: positions along the last axis are copied in runs."""
    padded = _pad(x, slide, shift)
    if padded.ndim == 2:
        return padded.T
    shape = output_shape(padded.shape[2:], slide)
    made = np.empty((padded.shape[1], len(slide.offsets), len(padded), *shape), padded.dtype)
    for tap, offset in enumerate(slide.offsets):
        steps = zip(offset, slide.stride, shape, strict=True)
        made[:, tap] = padded.swapaxes(0, 1)[:, :, *(slice(o, o + s * (n - 1) + 1, s) for o, s, n in steps)]
    return made


def _by_rows(x: Array, slide: Sliding, total: Moments) -> Moments:
    """Unfold some images at a time."""
    rows, (groups, columns) = 0, total.sums.shape
    ones = np.ones(CHUNK, x.dtype)
    for first, last in batches(len(x), math.prod(x.shape[2:])):
        design_GKR = unfolded(x[first:last], slide, total.shift).reshape(groups, columns, -1)
        rows += design_GKR.shape[2]
        for chunk in (design_GKR[:, :, i : i + CHUNK] for i in range(0, design_GKR.shape[2], CHUNK)):
            np.add(total.gram, chunk @ chunk.swapaxes(1, 2), out=total.gram)
            np.add(total.sums, chunk @ ones[: chunk.shape[2]], out=total.sums)
    return Moments(rows, total.shift, total.gram, total.sums)


def _by_distance(x: Array, slide: Sliding, total: Moments) -> Moments:
    """Sum products of channels with channels, one for each distance of two taps."""
    groups, taps = len(total.sums), len(slide.offsets)
    channels = total.sums.shape[1] // taps
    blocks_TTGCC = np.zeros((taps, taps, groups, channels, channels))
    sums_TGC = np.zeros((taps, groups, channels))
    rows = 0
    for first, last in batches(len(x), x.shape[-1]):
        padded = _pad(x[first:last], slide, total.shift)
        output = output_shape(padded.shape[2:], slide)
        rows += len(padded) * math.prod(output)
        grouped = padded.reshape(len(padded), groups, channels, *padded.shape[2:])
        map_GPNC = np.ascontiguousarray(np.moveaxis(grouped, (0, 2), (-2, -1)))
        _add_sums(sums_TGC, map_GPNC, slide.offsets, output)
        for distance, pairs in _alike(slide.offsets).items():
            _add_products(blocks_TTGCC, map_GPNC, distance, pairs, output)
    return Moments(rows, total.shift, _gram(blocks_TTGCC), sums_TGC.transpose(1, 2, 0).reshape(groups, -1))


@dataclass(frozen=True)
class _Pair:
    """Two taps; the first one reads a box of the map that begins at `start`."""

    first: int
    second: int
    start: Box


def _alike(offsets: tuple[Box, ...]) -> dict[Box, list[_Pair]]:
    """Sort pairs of taps, the second not before the first, by their distance."""
    found: dict[Box, list[_Pair]] = defaultdict(list)
    for second, end in enumerate(offsets):
        for first, start in enumerate(offsets[: second + 1]):
            found[tuple(b - a for a, b in zip(start, end, strict=True))].append(_Pair(first, second, start))
    return found


def _add_sums(sums_TGC: Array, map_GPNC: Array, offsets: tuple[Box, ...], output: Box) -> None:
    over_images = np.ones(map_GPNC.shape[-2], map_GPNC.dtype) @ map_GPNC
    for total, start in zip(sums_TGC, offsets, strict=True):
        box = over_images[:, *(slice(s, s + n) for s, n in zip(start, output, strict=True))]
        total += box.sum(tuple(range(1, len(output) + 1)), dtype=np.float64)


def _add_products(blocks_TTGCC: Array, map_GPNC: Array, distance: Box, pairs: list[_Pair], output: Box) -> None:
    """Add the products of all pairs at one distance: the parts that some box needs first, then sums of parts."""
    low, high = (tuple(map(choose, *(pair.start for pair in pairs), pairs[0].start)) for choose in (min, max))
    outer = [slice(a, b + n) for a, b, n in zip(low, high, output, strict=True)][:-1]
    moved = [slice(s.start + d, s.stop + d) for s, d in zip(outer, distance[:-1], strict=True)]
    spans = list(pairwise(_cuts(pairs, output[-1], CHUNK // map_GPNC.shape[-2])))
    parts = [
        _products(map_GPNC[:, *outer, begin:end], map_GPNC[:, *moved, begin + distance[-1] : end + distance[-1]])
        for begin, end in spans
    ]
    parts_GSCC = np.concatenate([part.reshape(len(part), -1, part.shape[-1] ** 2) for part in parts], axis=1)
    chosen = np.array([_choice(pair, low, outer, spans, output) for pair in pairs], parts_GSCC.dtype)
    sums = (chosen @ parts_GSCC).swapaxes(0, 1).reshape(len(pairs), *blocks_TTGCC.shape[2:])
    for pair, product in zip(pairs, sums, strict=True):
        blocks_TTGCC[pair.first, pair.second] += product


def _cuts(pairs: list[_Pair], length: int, most: int) -> list[int]:
    """List the positions of the last axis where some box begins or ends, and more where a part exceeds `most`."""
    ends = sorted({pair.start[-1] + extra for pair in pairs for extra in (0, length)})
    return [cut for begin, end in pairwise(ends) for cut in range(begin, end, max(most, 1))] + ends[-1:]


def _products(left: Array, right: Array) -> Array:
    """Multiply channels with channels over positions of the last axis and images: [G, *outer, C, C]."""
    a, b = (part.reshape(*part.shape[:-3], -1, part.shape[-1]) for part in (left, right))
    return np.asarray(np.swapaxes(a, -1, -2) @ b)


def _choice(pair: _Pair, low: Box, outer: list[slice], spans: list[tuple[int, int]], output: Box) -> Array:
    """Mark with ones the parts of a pair's box: of each span of the last axis, all positions of the other axes."""
    inside = np.zeros([s.stop - s.start for s in outer])
    inside[*(slice(a - b, a - b + n) for a, b, n in zip(pair.start[:-1], low[:-1], output[:-1], strict=True))] = 1
    begin = pair.start[-1]
    spanned = [begin <= first and last <= begin + output[-1] for first, last in spans]
    return np.outer(spanned, inside).ravel()


def _gram(blocks_TTGCC: Array) -> Array:
    """Order the products of taps as a symmetric matrix [G, K, K]."""
    taps, _, groups, channels, _ = blocks_TTGCC.shape
    for tap in range(taps):
        for earlier in range(tap):
            blocks_TTGCC[tap, earlier] = blocks_TTGCC[earlier, tap].swapaxes(1, 2)
        blocks_TTGCC[tap, tap] = (blocks_TTGCC[tap, tap] + blocks_TTGCC[tap, tap].swapaxes(1, 2)) / 2
    return blocks_TTGCC.transpose(2, 3, 0, 4, 1).reshape(groups, channels * taps, channels * taps)
