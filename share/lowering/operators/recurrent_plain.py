"""Recurrent layers that torch has: one call instead of a loop, and cuDNN on a GPU.

Shapes: T steps, B batch, I inputs, H hidden, D directions, G gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from sartor.share.lowering.registry import Op

_GATES = MappingProxyType({"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)})
"""Where each of torch's gates stands in ONNX: GRU has update, reset, hidden; LSTM has input, output, forget, cell."""

_USUAL = MappingProxyType({"RNN": ("tanh",), "GRU": ("sigmoid", "tanh"), "LSTM": ("sigmoid", "tanh", "tanh")})
_LAYERS: MappingProxyType[str, Callable[..., Any]] = MappingProxyType(
    {"RNN": torch.rnn_tanh, "GRU": torch.gru, "LSTM": torch.lstm}
)


def is_plain(op: Op, x_TBI: Tensor) -> bool:
    """Tell whether a torch layer does all that the node asks for."""
    kind = op.node.op_type
    usual = _USUAL[kind]
    names = tuple(name.lower() for name in op.attr("activations") or usual)
    reset_last = kind != "GRU" or bool(op.attr("linear_before_reset", 0))
    plain = reset_last and not op.attr("clip", 0.0) and not op.attr("input_forget", 0)
    held = x_TBI.device.type != "cpu" or x_TBI.dtype is not torch.float16
    return plain and held and names in (usual, usual * 2) and x_TBI.numel() > 0


def run_plain(
    op: Op, x_TBI: Tensor, weight_DGI: Tensor, recurrence_DGH: Tensor, bias_D2G: Tensor | None, starts: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return all hidden states (T, D, B, H), the last ones (D, B, H) and, of an LSTM, the last cell states."""
    kind, backwards = op.node.op_type, op.attr("direction", "forward") == "reverse"
    ways, gates = len(weight_DGI), len(_GATES[op.node.op_type])
    biases = [None] * ways if bias_D2G is None else list(bias_D2G)
    flat: list[Tensor] = []
    for weight, recurrence, both in zip(weight_DGI, recurrence_DGH, biases, strict=True):
        parts = [weight, recurrence] if both is None else [weight, recurrence, *both.chunk(2)]
        flat += [_reordered(part, kind, gates) for part in parts]
    x_TBI = x_TBI.flip(0) if backwards else x_TBI
    state = tuple(start.contiguous() for start in starts)
    options = (bias_D2G is not None, 1, 0.0, torch.is_grad_enabled(), ways == 2, False)
    hidden, *last = _LAYERS[kind](x_TBI, state if kind == "LSTM" else state[0], flat, *options)
    every = hidden.unflatten(2, (ways, -1)).transpose(1, 2)
    return (every.flip(0) if backwards else every), *last


def _reordered(part: Tensor, kind: str, gates: int) -> Tensor:
    """Return the gates' parts in torch's order."""
    chunks = part.chunk(gates, 0)
    return torch.cat([chunks[place] for place in _GATES[kind]])
