"""Convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.operators.indexing import padded
from sartor.share.lowering.operators.linear import centred
from sartor.share.lowering.registry import NotLoweredError, Op, rule

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def same_pads(op: Op, sizes: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Return the padding, begins then ends, that `pads` or `auto_pad` asks for over spatial sizes."""
    rank = len(kernel)
    mode = op.attr("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return list(op.attr("pads") or [0] * (2 * rank))
    if mode == "VALID":
        return [0] * (2 * rank)
    strides, dilations = op.attr("strides") or [1] * rank, op.attr("dilations") or [1] * rank
    spans = [dilation * (width - 1) + 1 for width, dilation in zip(kernel, dilations, strict=True)]
    lacking = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, stride, span in zip(sizes, strides, spans, strict=True)
    ]
    less, more = [amount // 2 for amount in lacking], [amount - amount // 2 for amount in lacking]
    return less + more if mode == "SAME_UPPER" else more + less


def convolve(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve (B, C, spatial...) in 1 to 3 dimensions; raises NotLoweredError in more."""
    rank = x.dim() - 2
    if not 1 <= rank <= 3:
        raise NotLoweredError(f"a convolution of {rank} dimensions")
    pads = same_pads(op, x.shape[2:], weight.shape[2:])
    begins, ends = pads[:rank], pads[rank:]
    if begins != ends:
        x, begins = padded(x, pads), [0] * rank
    strides, dilations = op.attr("strides") or [1] * rank, op.attr("dilations") or [1] * rank
    return _CONVOLUTIONS[rank - 1](x, weight, bias, strides, begins, dilations, op.attr("group", 1))


@rule("Conv")
def convolution(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve."""
    return convolve(op, x, weight, bias)


@rule("ConvInteger")
def convolution_integer(
    op: Op, x: Tensor, weight: Tensor, zero_x: Tensor | None = None, zero_w: Tensor | None = None
) -> Tensor:
    """Convolve 8-bit integers to int32; float64 holds the sums exactly."""
    shape = [-1] + [1] * (weight.dim() - 1)
    zero = None if zero_w is None else zero_w.reshape(shape if zero_w.numel() > 1 else [])
    # The padding stands for the zero point, which is 0 after centring.
    return convolve(op, centred(x, zero_x), centred(weight, zero)).to(torch.int32)


@rule("ConvTranspose")
def convolution_transposed(op: Op, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve backwards, cut to the size that `pads`, `output_shape` or `auto_pad` asks for."""
    rank = x.dim() - 2
    if not 1 <= rank <= 3:
        raise NotLoweredError(f"a convolution of {rank} dimensions")
    strides, dilations = op.attr("strides") or [1] * rank, op.attr("dilations") or [1] * rank
    extra = op.attr("output_padding") or [0] * rank
    spans = [dilation * (width - 1) + 1 for width, dilation in zip(weight.shape[2:], dilations, strict=True)]
    full = [(n - 1) * s + k + e for n, s, k, e in zip(x.shape[2:], strides, spans, extra, strict=True)]
    begins, ends = _transposed_pads(op, x.shape[2:], full, strides)
    whole = _TRANSPOSED[rank - 1](x, weight, bias, strides, 0, 0, op.attr("group", 1), dilations)
    # The extra elements lie behind what torch gives; they hold the bias alone.
    lacking = [length - got for length, got in zip(full, whole.shape[2:], strict=True)]
    if any(lacking):
        whole = _extended(whole, lacking, bias)
    return padded(whole, [-amount for amount in (*begins, *ends)])


def _extended(x: Tensor, lacking: list[int], bias: Tensor | None) -> Tensor:
    shape = [1, -1] + [1] * len(lacking)
    base = 0 if bias is None else bias.reshape(shape)
    return padded(x - base, [0] * len(lacking) + lacking) + base


def _transposed_pads(
    op: Op, sizes: Sequence[int], full: list[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return what to cut off before and after."""
    rank, mode = len(full), op.attr("auto_pad", "NOTSET")
    wanted = op.attr("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is None:
        pads = list(op.attr("pads") or [0] * (2 * rank)) if mode == "NOTSET" else [0] * (2 * rank)
        return pads[:rank], pads[rank:]
    surplus = [length - target for length, target in zip(full, wanted[-rank:], strict=True)]
    less, more = [amount // 2 for amount in surplus], [amount - amount // 2 for amount in surplus]
    return (less, more) if mode == "SAME_UPPER" else (more, less)


@rule("DeformConv")
def convolution_deformed(
    op: Op, x_BCHW: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Convolve over points moved by offsets (Zhu et al. 2018, equation 1); raises NotLoweredError but in 2-D."""
    if x_BCHW.dim() != 4:
        raise NotLoweredError("a deformed convolution that is not 2-D")
    (kernel_h, kernel_w), (rows, columns) = weight.shape[2:], offset.shape[2:]
    batch, channels, _, _ = x_BCHW.shape
    groups, points = op.attr("offset_group", 1), kernel_h * kernel_w
    shift_BGK2HW = offset.reshape(batch, groups, points, 2, rows, columns)
    base_K2HW = _sampling_points(op, (kernel_h, kernel_w), (rows, columns), x_BCHW)
    sampled = _sample(x_BCHW, shift_BGK2HW + base_K2HW, groups)
    if mask is not None:
        sampled = sampled * mask.reshape(batch, groups, 1, points, rows, columns)
    sampled = sampled.reshape(batch, channels, points, rows, columns)
    group = op.attr("group", 1)
    columns_BGPHW = sampled.reshape(batch, group, channels // group * points, rows, columns)
    kernel_GOP = weight.reshape(group, weight.shape[0] // group, -1)
    result = torch.einsum("bgphw,gop->bgohw", columns_BGPHW, kernel_GOP).reshape(batch, -1, rows, columns)
    return result if bias is None else result + bias[:, None, None]


def _sampling_points(op: Op, kernel: tuple[int, int], output: tuple[int, int], x: Tensor) -> Tensor:
    """Return the rows and columns (K, 2, H, W) that an undeformed kernel reads."""
    pads, strides, dilations = op.attr("pads") or [0] * 4, op.attr("strides") or [1, 1], op.attr("dilations") or [1, 1]
    axes = []
    for axis in range(2):
        inner = torch.arange(kernel[axis], device=x.device) * dilations[axis]
        outer = torch.arange(output[axis], device=x.device) * strides[axis] - pads[axis]
        axes.append((inner[:, None] + outer).to(x.dtype))
    down = axes[0][:, None, :, None].expand(kernel[0], kernel[1], *output)
    right = axes[1][None, :, None, :].expand(kernel[0], kernel[1], *output)
    return torch.stack([down.flatten(0, 1), right.flatten(0, 1)], 1)


def _sample(x_BCHW: Tensor, points_BGK2HW: Tensor, groups: int) -> Tensor:
    """Read between pixels at points, zero outside; return (B, G, C/G, K, H, W)."""
    batch, channels, height, width = x_BCHW.shape
    count, rows, columns = points_BGK2HW.shape[2], *points_BGK2HW.shape[-2:]
    down, right = points_BGK2HW.unbind(3)
    flat = x_BCHW.reshape(batch, groups, channels // groups, height * width)
    total = x_BCHW.new_zeros(batch, groups, channels // groups, count, rows, columns)
    for row, column in itertools.product((0, 1), (0, 1)):
        y, x = torch.floor(down) + row, torch.floor(right) + column
        weight = (1 - (down - y).abs()) * (1 - (right - x).abs())
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        place = torch.where(inside, y * width + x, 0).to(torch.int64).reshape(batch, groups, 1, -1)
        read = flat.gather(3, place.expand(-1, -1, flat.shape[2], -1)).reshape(total.shape)
        total = total + read * torch.where(inside, weight, 0).unsqueeze(2)
    return total


@rule("CausalConvWithState")
def convolution_causal(
    op: Op, x_BCL: Tensor, weight: Tensor, bias: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve each channel over what came before; return the result and the last inputs as the next state."""
    length = weight.shape[2] - 1
    before = x_BCL.new_zeros(*x_BCL.shape[:2], length) if state is None else state
    whole = torch.cat([before, x_BCL], 2)
    result = F.conv1d(whole, weight, bias, groups=x_BCL.shape[1])
    if op.attr("activation", "none") in ("silu", "swish"):
        result = F.silu(result.float()).to(x_BCL.dtype)
    return result, whole.narrow(2, whole.shape[2] - length, length)


@rule("Col2Im", host=(1, 2))
def columns_to_image(op: Op, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Add columns (B, C * block, L) up to an image of any rank."""
    sizes, kernel = image.tolist(), block.tolist()
    rank = len(sizes)
    strides, dilations = op.attr("strides") or [1] * rank, op.attr("dilations") or [1] * rank
    pads = op.attr("pads") or [0] * (2 * rank)
    whole = [size + pads[i] + pads[i + rank] for i, size in enumerate(sizes)]
    index = torch.zeros([1] * (2 * rank), dtype=torch.int64, device=x.device)
    for axis in range(rank):
        steps = (whole[axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        inner = torch.arange(kernel[axis], device=x.device) * dilations[axis]
        outer = torch.arange(steps, device=x.device) * strides[axis]
        shape = [kernel[axis] if i == axis else steps if i == axis + rank else 1 for i in range(2 * rank)]
        index = index * whole[axis] + (inner[:, None] + outer).reshape(shape)
    flat = x.reshape(x.shape[0], -1, index.numel())
    result = x.new_zeros(*flat.shape[:2], int(torch.Size(whole).numel()))
    result = result.index_add(2, index.reshape(-1), flat).reshape(*flat.shape[:2], *whole)
    return padded(result, [-amount for amount in pads])
