"""Attention and what goes with it.

Shapes: B batch, H heads, S queries, T keys, C size of a head.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from sartor.share.lowering.dtypes import torch_type
from sartor.share.lowering.operators.movement import pad_constant
from sartor.share.lowering.registry import Op, rule

_RAW, _CAPPED, _BIASED, _PROBABILITIES = range(4)


def split_heads(x: Tensor, heads: int | None) -> Tensor:
    """Return (B, S, H * C) as (B, H, S, C); four axes stay."""
    return x if x.dim() == 4 or heads is None else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


@rule("Attention")
def attention(
    op: Op,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths_B: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return the mixed values, the keys and values with the past before them, and the scores at the wanted stage."""
    query_BHSC, key_BHTC, value_BHTC = (
        split_heads(x, op.attr(f"{side}_num_heads")) for x, side in ((query, "q"), (key, "kv"), (value, "kv"))
    )
    offset: int | Tensor = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        key_BHTC, value_BHTC = torch.cat([past_key, key_BHTC], 2), torch.cat([past_value, value_BHTC], 2)
    elif lengths_B is not None:
        offset = (lengths_B.reshape(-1, 1, 1, 1) - query_BHSC.shape[2]).to(torch.int64)
    unmasked = mask is None and lengths_B is None and not (op.attr("is_causal", 0) and past_key is not None)
    if unmasked and _is_plain(op, query):
        mixed = _mix_plain(op, query_BHSC, key_BHTC, value_BHTC)
        return (mixed if query.dim() == 4 else mixed.transpose(1, 2).flatten(2)), key_BHTC, value_BHTC
    bias = _bias(op, query_BHSC, key_BHTC.shape[2], mask, offset, lengths_B)
    mixed, scores = _mix(op, query_BHSC, key_BHTC, value_BHTC, bias)
    if query.dim() == 3:
        mixed = mixed.transpose(1, 2).flatten(2)
    return mixed, key_BHTC, value_BHTC, scores


def _is_plain(op: Op, query: Tensor) -> bool:
    """Tell whether torch's own attention does what the node asks for; on the CPU it rounds float16 in other places."""
    if query.dtype is torch.float16 and query.device.type == "cpu":
        return False
    windows = max(op.attr("left_window_size", -1), op.attr("right_window_size", -1))
    return windows < 0 and not op.attr("softcap", 0.0) and not op.attr("softmax_precision", 0) and not op.wants(3)


def _mix_plain(op: Op, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return the values mixed by torch's own attention."""
    causal, scale, grouped = bool(op.attr("is_causal", 0)), op.attr("scale") or None, query.shape[1] != key.shape[1]
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=scale, enable_gqa=grouped)


def _bias(
    op: Op, query: Tensor, keys: int, mask: Tensor | None, offset: int | Tensor, lengths_B: Tensor | None
) -> Tensor:
    """Return what is added to the scores: the mask, and minus infinity for keys out of reach."""
    bias = query.new_zeros(query.shape[2], keys)
    if mask is not None:
        lacking = keys - mask.shape[-1]
        if mask.dtype is torch.bool:
            mask = query.new_zeros(mask.shape).masked_fill(~mask, -math.inf)
        bias = bias + pad_constant(mask, [(mask.dim() - 1, 0, lacking)], -math.inf)
    place_S1 = torch.arange(query.shape[2], device=query.device)[:, None] + offset
    key_T = torch.arange(keys, device=query.device)
    left, right = op.attr("left_window_size", -1), op.attr("right_window_size", -1)
    limits = [(op.attr("is_causal", 0), key_T <= place_S1), (left >= 0, place_S1 - key_T <= left)]
    limits.append((right >= 0, key_T - place_S1 <= right))
    for active, allowed in limits:
        if active:
            bias = bias + query.new_zeros(allowed.shape).masked_fill(~allowed, -math.inf)
    if lengths_B is not None:
        padding = key_T >= lengths_B.reshape(-1, 1, 1, 1)
        bias = bias + query.new_zeros(padding.shape).masked_fill(padding, -math.inf)
    return bias


def _mix(op: Op, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values mixed by the softmax of the scores, and the scores at the stage of the mode."""
    scale = math.sqrt(op.attr("scale") or 1 / math.sqrt(query.shape[-1]))
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    stages = {_RAW: (query * scale) @ (key * scale).transpose(-1, -2)}
    cap = op.attr("softcap", 0.0)
    stages[_CAPPED] = torch.tanh(stages[_RAW] / cap) * cap if cap else stages[_RAW]
    stages[_BIASED] = stages[_CAPPED] + bias
    precision = op.attr("softmax_precision")
    wide = stages[_BIASED].to(torch_type(precision)) if precision else stages[_BIASED]
    # A query that may see no key gets zeros: its scores are all minus infinity, and their softmax NaN.
    blind = bias.amax(-1, keepdim=True) == -math.inf
    stages[_PROBABILITIES] = torch.softmax(wide, -1).masked_fill(blind, 0).to(query.dtype)
    return stages[_PROBABILITIES] @ value, stages[op.attr("qk_matmul_output_mode", _RAW)]


@rule("RotaryEmbedding")
def rotary_embedding(op: Op, x: Tensor, cosine: Tensor, sine: Tensor, places_BS: Tensor | None = None) -> Tensor:
    """Rotate pairs of channels by angles that grow with the place (Su et al. 2021, equation 34)."""
    x_BHSC = split_heads(x, op.attr("num_heads") or None)
    turned = op.attr("rotary_embedding_dim", 0) or x_BHSC.shape[-1]
    rotate, keep = x_BHSC[..., :turned], x_BHSC[..., turned:]
    if places_BS is not None:
        cosine, sine = cosine[places_BS.to(torch.int64)], sine[places_BS.to(torch.int64)]
    cosine, sine = cosine.unsqueeze(1), sine.unsqueeze(1)
    interleaved = bool(op.attr("interleaved", 0))
    a, b = (rotate[..., 0::2], rotate[..., 1::2]) if interleaved else rotate.chunk(2, -1)
    pair = (cosine * a - sine * b, sine * a + cosine * b)
    turned_x = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    result = torch.cat([turned_x, keep], -1)
    return result.transpose(1, 2).flatten(2) if x.dim() == 3 else result


@rule("LinearAttention")
def linear_attention(
    op: Op,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    state: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Write keys and values to a matrix and read it by the queries, step by step; return the last matrix too."""
    heads, groups = op.attr("q_num_heads"), op.attr("kv_num_heads")
    query_BHSC, key_BHSC, value_BHSC = (
        split_heads(x.float(), count) for x, count in ((query, heads), (key, groups), (value, groups))
    )
    decay_BHSC = None if decay is None else split_heads(decay.float(), groups)
    beta_BHS1 = None if beta is None else split_heads(beta.float(), beta.shape[-1])
    matrix = key_BHSC.new_zeros(*key_BHSC.shape[:2], key_BHSC.shape[3], value_BHSC.shape[3])
    matrix = matrix if state is None else state.float()
    outputs = []
    for step in range(query.shape[1]):
        new, written = key_BHSC[:, :, step], value_BHSC[:, :, step]
        if decay_BHSC is not None:
            matrix = matrix * torch.exp(decay_BHSC[:, :, step]).unsqueeze(-1)
        if beta_BHS1 is not None:
            written = beta_BHS1[:, :, step] * (written - torch.einsum("bhdm,bhd->bhm", matrix, new))
        matrix = matrix + new.unsqueeze(-1) * written.unsqueeze(-2)
        read = matrix.repeat_interleave(heads // groups, 1)
        outputs.append(torch.einsum("bhd,bhdm->bhm", query_BHSC[:, :, step], read))
    scale = op.attr("scale", 0.0) or 1 / math.sqrt(key_BHSC.shape[3])
    result = (torch.stack(outputs, 1) * scale).flatten(2).to(query.dtype)
    return result, matrix.to(query.dtype if state is None else state.dtype)
