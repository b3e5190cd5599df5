"""Operators that choose elements by index, and those that find the indices."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.frame import Frame
from sartor.share.lowering.registry import NotLoweredError, Op, Place, rule

_small = functools.partial(rule, place=Place.FOLLOWS)
_grows = functools.partial(rule, place=Place.GROWS)
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def wrapped(index: Tensor, length: int) -> Tensor:
    """Return indices as int64 from 0 on; negative ones count from the end."""
    index = index.to(torch.int64)
    return torch.where(index < 0, index + length, index)


@_small("Gather")
def gather(op: Op, x: Tensor, index: Tensor) -> Tensor:
    """Choose slices along an axis."""
    axis = op.attr("axis", 0) % x.dim()
    chosen = wrapped(index, x.shape[axis])
    picked = x.index_select(axis, chosen.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@_small("GatherElements")
def gather_elements(op: Op, x: Tensor, index: Tensor) -> Tensor:
    """Choose elements along an axis."""
    axis = op.attr("axis", 0)
    return x.gather(axis, wrapped(index, x.shape[axis]))


@rule("GatherND")
def gather_nd(op: Op, x: Tensor, index: Tensor) -> Tensor:
    """Choose slices by the indices of their first axes, behind axes of a batch."""
    batch = op.attr("batch_dims", 0)
    count = index.shape[-1]
    places = [wrapped(index[..., i], x.shape[batch + i]) for i in range(count)]
    shape = places[0].shape if places else index.shape[:-1]
    ranges = [
        torch.arange(x.shape[i], device=x.device).reshape([-1 if axis == i else 1 for axis in range(len(shape))])
        for i in range(batch)
    ]
    return x[(*ranges, *places)] if ranges or places else x.expand(*shape, *x.shape)


@_small("ScatterElements", "Scatter")
def scatter_elements(op: Op, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Write elements along an axis over or into a copy."""
    axis = op.attr("axis", 0)
    places = wrapped(index, x.shape[axis])
    reduction = op.attr("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, places, updates)
    return x.scatter_reduce(axis, places, updates, _REDUCTIONS[reduction])


@_small("ScatterND")
def scatter_nd(op: Op, x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
    """Write slices, found by the indices of their first axes, over or into a copy."""
    count = index.shape[-1]
    places = tuple(wrapped(index[..., i], x.shape[i]) for i in range(count))
    reduction = op.attr("reduction", "none")
    if reduction in ("none", "add"):
        return x.index_put(places, updates, accumulate=reduction == "add")
    strides = [int(torch.Size(x.shape[i + 1 : count]).numel()) for i in range(count)]
    flat = sum((place * stride for place, stride in zip(places, strides, strict=True)), torch.zeros_like(places[0]))
    rows = x.reshape(int(torch.Size(x.shape[:count]).numel()), -1)
    index_rows = flat.reshape(-1, 1).expand(-1, rows.shape[1])
    sources = updates.reshape(index_rows.shape)
    return rows.scatter_reduce(0, index_rows, sources, _REDUCTIONS[reduction]).reshape(x.shape)


@rule("TensorScatter")
def tensor_scatter(op: Op, cache: Tensor, update: Tensor, start_B: Tensor | None = None) -> Tensor:
    """Write a sequence into a cache from a place of each batch on, around its end where `circular`."""
    axis = op.attr("axis", -2) % cache.dim()
    places_BT = torch.arange(update.shape[axis], device=cache.device)[None, :]
    if start_B is not None:
        places_BT = places_BT + start_B[:, None]
    if op.attr("mode", "linear") == "circular":
        places_BT = places_BT % cache.shape[axis]
    shape = [1] * cache.dim()
    shape[0], shape[axis] = places_BT.shape
    return cache.scatter(axis, places_BT.reshape(shape).expand(update.shape), update)


@rule("OneHot", host=(1,))
def one_hot(op: Op, index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Return the second value where an index points to, the first one elsewhere."""
    count = int(depth.reshape(()).item())
    axis = op.attr("axis", -1) % (index.dim() + 1)
    places = index.to(torch.int64)
    places = torch.where(places < 0, places + count, places).unsqueeze(axis)
    shape = [1] * (index.dim() + 1)
    shape[axis] = count
    hot = places == torch.arange(count, device=index.device).reshape(shape)
    return torch.where(hot, values[1], values[0])


@_grows("NonZero")
def non_zero(_op: Op, x: Tensor) -> Tensor:
    """Return the indices of what is not 0, one row an axis."""
    return x.nonzero().T if x.dim() else x.reshape(1).nonzero().T[:0]


@rule("TopK", host=(1,))
def top_k(op: Op, x: Tensor, count: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the greatest or least elements along an axis and their indices, the first of equal ones first."""
    axis = op.attr("axis", -1)
    wanted = op.attr("k") if count is None else int(count.reshape(()).item())
    values, index = x.sort(dim=axis, descending=bool(op.attr("largest", 1)), stable=True)
    return values.narrow(axis, 0, wanted), index.narrow(axis, 0, wanted)


@rule("ArgMax", "ArgMin")
def arg_extreme(op: Op, x: Tensor) -> Tensor:
    """Return the index of the greatest or least element along an axis, of equal ones the first or the last."""
    axis, keep = op.attr("axis", 0), bool(op.attr("keepdims", 1))
    find = torch.argmax if op.node.op_type == "ArgMax" else torch.argmin
    if not op.attr("select_last_index", 0):
        return find(x, dim=axis, keepdim=keep)
    last: Tensor = x.shape[axis] - 1 - find(x.flip(axis), dim=axis, keepdim=keep)
    return last


@rule("Hardmax")
def hardmax(op: Op, x: Tensor) -> Tensor:
    """Return 1 at the first greatest element along an axis, 0 elsewhere."""
    if op.version < 13:
        flat = x.flatten(op.attr("axis", 1)) if op.attr("axis", 1) < x.dim() else x.unsqueeze(-1)
        matrix = flat.reshape(-1, flat.shape[-1])
        return _hard(matrix, -1).reshape(x.shape)
    return _hard(x, op.attr("axis", -1))


def _hard(x: Tensor, axis: int) -> Tensor:
    index = x.argmax(dim=axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, index, 1)


@rule("EyeLike")
def eye_like(op: Op, x: Tensor) -> Tensor:
    """Return ones on a diagonal, in the shape of a matrix."""
    from sartor.share.lowering.dtypes import torch_type

    dtype = torch_type(op.attr("dtype")) if op.attr("dtype") else x.dtype
    return torch.ones_like(x, dtype=torch.bool).triu(op.attr("k", 0)).tril(op.attr("k", 0)).to(dtype)


@rule("Unique")
def unique(op: Op, x: Tensor) -> tuple[Tensor, ...]:
    """Return the different elements or slices, where they first occur, which one each is, and their counts."""
    axis = op.attr("axis")
    x = x.reshape(-1) if axis is None else x
    axis = 0 if axis is None else axis
    values, inverse, counts = torch.unique(x, sorted=True, return_inverse=True, return_counts=True, dim=axis)
    places = torch.arange(x.shape[axis], device=x.device)
    first = torch.full_like(counts, x.shape[axis]).scatter_reduce(0, inverse, places, "amin")
    if op.attr("sorted", 1):
        return values, first, inverse, counts
    order = first.argsort()
    return values.index_select(axis, order), first[order], order.argsort()[inverse], counts[order]


@rule("ArrayFeatureExtractor", domain="ai.onnx.ml")
def extract_features(_op: Op, x: Tensor, index: Tensor) -> Tensor:
    """Choose columns."""
    return x.index_select(-1, index.reshape(-1)).reshape(*(x.shape[:-1] if x.dim() > 1 else (1,)), -1)


@rule("Binarizer", domain="ai.onnx.ml")
def binarize(op: Op, x: Tensor) -> Tensor:
    """Return 1 above a threshold, 0 elsewhere."""
    above = torch.gt(x, op.attr("threshold", 0.0))
    return above.to(x.dtype)


@rule("LabelEncoder", domain="ai.onnx.ml")
def encode_labels(op: Op, x: Tensor) -> Tensor:
    """Replace keys by values; raises NotLoweredError for strings."""
    tensors = {name: value for name, value in op.attributes.items() if value is not None}
    keys = [name for name in tensors if name.startswith("keys_")]
    values = [name for name in tensors if name.startswith("values_")]
    if "strings" in f"{keys}{values}" or "tensor" in f"{keys}{values}":
        raise NotLoweredError("strings or tensors of labels")
    default = op.attr("default_int64", -1) if values == ["values_int64s"] else op.attr("default_float", -0.0)
    table = torch.tensor(tensors[keys[0]], device=x.device)
    outputs = torch.tensor([*tensors[values[0]], default], device=x.device)
    hits = x.unsqueeze(-1) == table
    if x.is_floating_point():
        hits = hits | (x.unsqueeze(-1).isnan() & table.isnan())
    place = torch.where(hits.any(-1), hits.to(torch.int8).argmax(-1), len(table))
    return outputs[place]


@rule("NonMaxSuppression", host=(2, 3, 4), framed=True)
def suppress(
    op: Op,
    frame: Frame,
    boxes_BN4: Tensor,
    scores_BCN: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """Return (batch, class, box) of the best boxes, without those that overlap a better one (greedily, on the host)."""
    count = int(most.item()) if most is not None and most.numel() else 0
    iou = float(overlap.item()) if overlap is not None and overlap.numel() else 0.0
    floor = float(least.item()) if least is not None and least.numel() else None
    found: list[list[int]] = []
    boxes, scores = _corners(boxes_BN4.cpu(), bool(op.attr("center_point_box", 0))), scores_BCN.cpu()
    for batch in range(scores.shape[0]):
        for kind in range(scores.shape[1]):
            kept = _greedy(boxes[batch], scores[batch, kind], iou, floor)
            found += [[batch, kind, box] for box in kept[:count]]
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 3).to(frame.device)


def _corners(boxes: Tensor, centred: bool) -> Tensor:
    """Return boxes as two corners in order."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if centred:
        return torch.cat([first - second / 2, first + second / 2], -1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], -1)


def _greedy(boxes: Tensor, scores: Tensor, iou: float, floor: float | None) -> list[int]:
    kept: list[int] = []
    for box in scores.argsort(descending=True, stable=True).tolist():
        if floor is not None and not float(scores[box]) > floor:
            break
        if all(_overlap(boxes[box], boxes[other]) <= iou for other in kept):
            kept.append(box)
    return kept


def _overlap(a: Tensor, b: Tensor) -> float:
    """Return the intersection of two boxes over their union."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    common = float(sides.prod())
    union = float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - common
    return common / union if union > 0 else 0.0


@rule("Det")
def determinant(_op: Op, x: Tensor) -> Tensor:
    """Return the determinants of square matrices."""
    result: Tensor = torch.linalg.det(x)
    return result


def padded(x: Tensor, sides: list[int], value: float = 0.0) -> Tensor:
    """Pad the last axes; `sides` are begins then ends, as ONNX has them."""
    half = len(sides) // 2
    flat = [amount for axis in reversed(range(half)) for amount in (sides[axis], sides[half + axis])]
    return F.pad(x, flat, value=value) if any(flat) else x
