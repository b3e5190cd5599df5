"""Operators that move elements without looking at them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sartor.share.lowering.frame import Frame
from sartor.share.lowering.registry import NotLoweredError, Op, Place, rule

_small = functools.partial(rule, place=Place.FOLLOWS)
_grows = functools.partial(rule, place=Place.GROWS)


def integers(op: Op, name: str, given: Tensor | None) -> list[int] | None:
    """Return what is an input in later opsets and an attribute in earlier ones."""
    return given.reshape(-1).tolist() if given is not None else op.attr(name)


@rule("Shape", place=Place.SHAPE)
def shape(op: Op, x: Tensor) -> Tensor:
    """Return sizes as int64 on the host."""
    sizes = x.shape[op.attr("start", 0) : op.attr("end", x.dim())]
    return torch.tensor(list(sizes), dtype=torch.int64)


@rule("Size", place=Place.SHAPE)
def size(_op: Op, x: Tensor) -> Tensor:
    """Return the number of elements as int64 on the host."""
    return torch.tensor(x.numel(), dtype=torch.int64)


@_small("Reshape", host=(1,))
def reshape(op: Op, x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """Reshape; 0 keeps a size unless `allowzero`, -1 takes the rest."""
    wanted = integers(op, "shape", sizes) or []
    if not op.attr("allowzero", 0):
        wanted = [x.shape[axis] if length == 0 else length for axis, length in enumerate(wanted)]
    if -1 in wanted and x.numel() == 0:
        wanted[wanted.index(-1)] = 0
    return x.reshape(wanted)


@_small("Transpose")
def transpose(op: Op, x: Tensor) -> Tensor:
    """Permute axes; by default in reverse order."""
    return x.permute(op.attr("perm") or list(reversed(range(x.dim()))))


@_small("Squeeze", host=(1,))
def squeeze(op: Op, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Drop axes of size 1, all of them by default."""
    chosen = integers(op, "axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@_small("Unsqueeze", host=(1,))
def unsqueeze(op: Op, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Insert axes of size 1 at places of the result."""
    chosen = integers(op, "axes", axes) or []
    for axis in sorted(axis % (x.dim() + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@_small("Flatten")
def flatten(op: Op, x: Tensor) -> Tensor:
    """Make a matrix of the axes before and from `axis` on."""
    axis = op.attr("axis", 1)
    axis = axis + x.dim() if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@_small("Concat")
def concatenate(op: Op, *parts: Tensor) -> Tensor:
    """Join tensors along an axis."""
    return torch.cat(parts, dim=op.attr("axis", 1))


@_small("Split", host=(1,))
def split(op: Op, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Cut along an axis into parts of given sizes, or of equal ones with a smaller last one."""
    axis = op.attr("axis", 0)
    wanted = integers(op, "split", sizes)
    if wanted is None:
        count = op.attr("num_outputs", len(op.node.outputs))
        length = x.shape[axis]
        each = -(-length // count)
        wanted = [min(each, max(length - each * part, 0)) for part in range(count)]
    return torch.split_with_sizes(x, wanted, axis)


@_small("Slice", host=(1, 2, 3, 4))
def slice_(op: Op, x: Tensor, *parameters: Tensor | None) -> Tensor:
    """Cut along axes; a negative step reads backwards."""
    names = ("starts", "ends", "axes", "steps")
    given = [*parameters, *[None] * (4 - len(parameters))]
    starts, ends, axes, steps = (integers(op, name, one) for name, one in zip(names, given, strict=True))
    starts, ends = starts or [], ends or []
    for index, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = axes[index] if axes else index
        x = _cut(x, axis, slice(start, end, steps[index] if steps else 1))
    return x


def _cut(x: Tensor, axis: int, wanted: slice) -> Tensor:
    length = x.shape[axis]
    chosen = range(*wanted.indices(length))
    if chosen.step < 0:
        start = length - 1 - chosen.start
        x, chosen = x.flip(axis), range(start, start - chosen.step * len(chosen), -chosen.step)
    index = [slice(None)] * x.dim()
    index[axis] = slice(chosen.start, max(chosen.stop, chosen.start), chosen.step)
    return x[tuple(index)]


@_grows("Expand", host=(1,))
def expand(_op: Op, x: Tensor, sizes: Tensor) -> Tensor:
    """Broadcast to a shape, or both to a common one."""
    wanted = sizes.tolist()
    lacking = max(x.dim() - len(wanted), 0)
    target = [1] * lacking + wanted
    first = len(target) - x.dim()
    return x.expand([x.shape[i - first] if i >= first and size == 1 else size for i, size in enumerate(target)])


@_grows("Tile", host=(1, 2))
def tile(op: Op, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Repeat along every axis, or along one in the first opset."""
    if op.version < 6 and axis is not None:
        counts = [1] * x.dim()
        counts[int(axis)] = int(repeats)
        return x.repeat(counts)
    return x.repeat(repeats.tolist())


@_small("Pad", host=(1, 3))
def pad(
    op: Op, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    """Add elements before and after, or remove them where a number is negative."""
    amounts = integers(op, "pads" if op.version > 1 else "paddings", pads) or []
    chosen = list(range(x.dim())) if axes is None else axes.tolist()
    sides = [(axis % x.dim(), amounts[i], amounts[i + len(chosen)]) for i, axis in enumerate(chosen)]
    mode = op.attr("mode", "constant")
    if mode == "constant":
        return pad_constant(x, sides, op.attr("value", 0.0) if value is None else value)
    for axis, before, after in sides:
        if before or after:
            x = x.index_select(axis, _mirrored(x.shape[axis], before, after, mode, x.device))
    return x


def pad_constant(x: Tensor, sides: Sequence[tuple[int, int, int]], value: Tensor | float) -> Tensor:
    """Pad (axis, before, after) with one number, which may be a tensor on the device."""
    flat = [0] * (2 * x.dim())
    for axis, before, after in sides:
        place = 2 * (x.dim() - 1 - axis)
        flat[place : place + 2] = [before, after]
    if not isinstance(value, Tensor):
        return torch.nn.functional.pad(x, flat, value=value)
    # Filling by a mask spares the device the question what the number is.
    inside = torch.nn.functional.pad(torch.ones_like(x, dtype=torch.bool), flat)
    return torch.where(inside, torch.nn.functional.pad(x, flat), value.reshape(()).to(x.dtype))


def _mirrored(length: int, before: int, after: int, mode: str, device: torch.device) -> Tensor:
    """Return which element stands at each place of a padded axis."""
    places = torch.arange(-before, length + after, device=device)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    if mode != "reflect":
        raise NotLoweredError(f"the mode {mode}")
    period = max(2 * (length - 1), 1)
    places = places % period
    return torch.where(places >= length, period - places, places)


@_small("CenterCropPad", host=(1,))
def center_crop_pad(op: Op, x: Tensor, sizes: Tensor) -> Tensor:
    """Crop or pad with zeros about the centre to the sizes wanted."""
    axes = op.attr("axes") or list(range(x.dim()))
    for axis, wanted in zip(axes, sizes.tolist(), strict=True):
        length = x.shape[axis]
        if wanted <= length:
            x = x.narrow(axis, (length - wanted) // 2, wanted)
        else:
            before = (wanted - length) // 2
            x = pad_constant(x, [(axis % x.dim(), before, wanted - length - before)], 0)
    return x


@rule("DepthToSpace")
def depth_to_space(op: Op, x_BCHW: Tensor) -> Tensor:
    """Move channels into blocks of pixels."""
    block = op.attr("blocksize")
    batch, channels, height, width = x_BCHW.shape
    if op.attr("mode", "DCR") == "CRD":
        parts = x_BCHW.reshape(batch, channels // block**2, block, block, height, width).permute(0, 1, 4, 2, 5, 3)
    else:
        parts = x_BCHW.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // block**2, height * block, width * block)


@rule("SpaceToDepth")
def space_to_depth(op: Op, x_BCHW: Tensor) -> Tensor:
    """Move blocks of pixels into channels."""
    block = op.attr("blocksize")
    batch, channels, height, width = x_BCHW.shape
    parts = x_BCHW.reshape(batch, channels, height // block, block, width // block, block)
    if op.attr("mode", "DCR") == "CRD":
        parts = parts.permute(0, 1, 3, 5, 2, 4)
    else:
        parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * block**2, height // block, width // block)


@rule("ReverseSequence")
def reverse_sequence(op: Op, x: Tensor, lengths: Tensor) -> Tensor:
    """Reverse the first elements of each sequence along the time axis, as many as its length."""
    time, batch = op.attr("time_axis", 0), op.attr("batch_axis", 1)
    places_T1 = torch.arange(x.shape[time], device=x.device)[:, None]
    index_TB = torch.where(places_T1 < lengths, lengths - 1 - places_T1, places_T1)
    moved = x.movedim((time, batch), (0, 1))
    index = index_TB.reshape(*index_TB.shape, *[1] * (moved.dim() - 2)).expand_as(moved)
    return moved.gather(0, index).movedim((0, 1), (time, batch))


@_grows("Trilu", host=(1,))
def trilu(op: Op, x: Tensor, diagonal: Tensor | None = None) -> Tensor:
    """Keep the upper or the lower triangle of matrices."""
    offset = 0 if diagonal is None else int(diagonal)
    return x.triu(offset) if op.attr("upper", 1) else x.tril(offset)


@_grows("ConstantOfShape", host=(0,), framed=True)
def constant_of_shape(op: Op, frame: Frame, sizes: Tensor) -> Tensor:
    """Return a tensor full of one number, float32 zero by default."""
    from sartor.share.lowering.dtypes import torch_type

    value = op.attr("value")
    number = 0.0 if value is None else value.numpy().reshape(-1)[0].item()
    dtype = torch.float32 if value is None else torch_type(value.dtype)
    return torch.full(sizes.tolist(), number, dtype=dtype, device=frame.device)


@_grows("Range", host=(0, 1, 2), framed=True)
def range_(_op: Op, frame: Frame, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Return the numbers from start to limit, which is excluded, in steps of delta."""
    first, end, step = start.item(), limit.item(), delta.item()
    count = max(math.ceil((end - first) / step), 0)
    places = torch.arange(count, device=frame.device, dtype=start.dtype)
    return places * step + first


@_small("Compress", host=(1,))
def compress(op: Op, x: Tensor, condition: Tensor) -> Tensor:
    """Keep the elements, or the slices along an axis, for which a condition holds."""
    chosen = [index for index, kept in enumerate(condition.tolist()) if kept]
    axis = op.attr("axis")
    flat = x.reshape(-1) if axis is None else x
    return flat.index_select(axis or 0, torch.tensor(chosen, dtype=torch.int64, device=x.device))
