"""The tensors of a launch: what is packed, on a device, and what each call allocates and fills.

Letters as in `kernel.py`; B samples, T steps, D directions, I inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sartor.tools.sparse_rnn.gpu.layout import Packed
from sartor.tools.sparse_rnn.gpu.shape import Shape

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

MISSING = -0x7FFF8000
"""Minus zero in both lanes of 16 bits, which no program gives; what Lamport's buffers are filled with."""


@dataclass(frozen=True)
class Resident:
    """What is packed, as tensors on a device; `inputs` is w [I, D G H], its columns in the order of places."""

    shape: Shape
    weights: torch.Tensor
    begins: torch.Tensor
    threads: torch.Tensor
    bias: torch.Tensor
    peepholes: torch.Tensor
    places: torch.Tensor
    units: torch.Tensor
    inputs: torch.Tensor


@dataclass(frozen=True)
class Call:
    """The arguments of a launch in order, without numbers and constants, and the outputs among them."""

    tensors: tuple[torch.Tensor, ...]
    y: torch.Tensor
    hidden: torch.Tensor
    cell: torch.Tensor
    steps: int
    samples: int


def resident(packed: Packed, w: NDArray[Any], device: torch.device) -> Resident:
    """Bring a packed layer to a device; w is that of its directions, [D, G H, I]."""
    import torch

    shape = packed.shape
    columns = w.reshape(shape.directions * shape.input_slots, shape.hidden, -1)[:, packed.units]
    inputs = np.ascontiguousarray(columns.reshape(-1, w.shape[2]).T, np.float32)
    arrays = (packed.weights, packed.begins, packed.threads, packed.bias, packed.peepholes, packed.places, packed.units)
    held = [torch.from_numpy(np.ascontiguousarray(one)).to(device) for one in (*arrays, inputs)]
    return Resident(shape, *held)


def prepare(
    held: Resident, x: torch.Tensor, lengths: torch.Tensor | None, hidden: torch.Tensor | None,
    cell: torch.Tensor | None, status: torch.Tensor,
) -> Call:  # fmt: skip
    """Project x [T, B, I] and fill what a launch reads; states [D, B, H] and lengths [B] are those of a call."""
    import torch

    shape, (steps, samples, _) = held.shape, x.shape
    state = (shape.directions, samples, shape.hidden)
    projected = torch.matmul(x.reshape(steps * samples, x.shape[2]), held.inputs)
    full = torch.full((samples,), steps, dtype=torch.int32, device=x.device)
    ran = full if lengths is None else lengths.to(torch.int32).clamp(0, steps)
    before, memory = (
        torch.zeros(state, dtype=torch.float32, device=x.device) if one is None else one.contiguous()
        for one in (hidden, cell)
    )
    y = torch.zeros((steps, *state), dtype=torch.float32, device=x.device)
    last_hidden, last_cell = torch.empty_like(before), torch.empty_like(before)
    tensors = (
        held.weights, held.begins, held.threads, held.bias, held.peepholes, held.places, projected, ran, before, memory,
        _exchange(held, before), _arrivals(shape, steps, x.device), y, last_hidden, last_cell, status,
    )  # fmt: skip
    return Call(tensors, y, last_hidden, last_cell, steps, samples)


def _exchange(held: Resident, hidden: torch.Tensor) -> torch.Tensor:
    """Return the buffers of states between programs, [D, buffers, words], the first one filled."""
    import torch

    shape, (directions, samples, size) = held.shape, hidden.shape
    kind = torch.float16 if shape.values == "fp16" else torch.bfloat16
    word = torch.int64 if shape.word_lanes == 4 else torch.int32
    lanes = torch.zeros((directions, shape.lanes, size), dtype=kind, device=hidden.device)
    # Adding zero makes plus zero of minus zero.
    lanes[:, :samples] = hidden[:, :, held.units].to(kind) + 0.0
    by_plane = lanes.reshape(directions, shape.planes, shape.plane_lanes, size).transpose(2, 3).contiguous()
    buffers = torch.full(
        (directions, shape.buffers, shape.exchange_words * shape.word_lanes // 2), MISSING, dtype=torch.int32,
        device=hidden.device,
    )  # fmt: skip
    buffers[:, 0] = by_plane.reshape(directions, -1).view(torch.int32)
    return buffers.view(word)


def _arrivals(shape: Shape, steps: int, device: torch.device) -> torch.Tensor:
    """Return what programs tell one another by, all 0: a counter an exchange, or two flags a program."""
    import torch

    exchanges = steps * len(shape.parts) + 1
    count = {"counter": exchanges, "flags": 2 * shape.programs, "lamport": 1}[shape.sync]
    return torch.zeros(shape.directions * count, dtype=torch.int32, device=device)
