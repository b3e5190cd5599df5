"""RNN, GRU and LSTM of ONNX in float64, as plainly as the specification has them: what everything else is judged by.

Letters: T steps, B samples, I inputs, H hidden units, D directions, G gates (1 RNN, 3 GRU: z r h, 4 LSTM: i o f c).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sartor.tools.sparse_rnn.activations import Activation

Array = NDArray[Any]
Kind = Literal["RNN", "GRU", "LSTM"]
Direction = Literal["forward", "reverse", "bidirectional"]

GATES: dict[Kind, str] = {"RNN": "h", "GRU": "zrh", "LSTM": "iofc"}
"""The order of gates along the rows of W and R."""

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}  # fmt: skip
"""The activations of one direction."""


@dataclass(frozen=True)
class Cell:
    """What a recurrent operator is, but for its weights; `activations` are those of one direction after the other."""

    kind: Kind
    direction: Direction
    activations: tuple[Activation, ...]
    clip: float | None = None
    linear_before_reset: bool = False
    input_forget: bool = False

    @property
    def directions(self) -> int:
        """The number of directions."""
        return 2 if self.direction == "bidirectional" else 1

    def of(self, direction: int) -> tuple[Activation, ...]:
        """Return the activations of a direction."""
        count = len(DEFAULTS[self.kind])
        return self.activations[direction * count : (direction + 1) * count]


@dataclass(frozen=True)
class Weights:
    """Weights of all directions: w [D, G H, I], r [D, G H, H], bias [D, 2 G H], peepholes [D, 3 H] in order i o f."""

    w: Array
    r: Array
    bias: Array | None = None
    peepholes: Array | None = None


@dataclass(frozen=True)
class State:
    """Hidden state [D, B, H], and cell state of an LSTM; None is zero."""

    hidden: Array | None = None
    cell: Array | None = None


def run(
    cell: Cell, weights: Weights, x_TBI: Array, lengths: Array | None = None, state: State | None = None
) -> tuple[Array, Array, Array]:
    """Run all directions; return Y [T, D, B, H], and the states [D, B, H] after each sample's last step.

    Steps at and after the length of a sample are zero in Y. A sample of no steps leaves zeros as states, as
    onnxruntime has it; the specification says nothing of it.
    """
    steps, samples = x_TBI.shape[:2]
    hidden = weights.r.shape[2]
    y = np.zeros((steps, cell.directions, samples, hidden))
    last_h, last_c = (np.zeros((cell.directions, samples, hidden)) for _ in range(2))
    lengths = np.full(samples, steps) if lengths is None else lengths
    state = state or State()
    for direction in range(cell.directions):
        reverse = cell.direction == "reverse" or direction == 1
        for sample in range(samples):
            order = range(int(lengths[sample]))
            h, c = (
                np.zeros(hidden) if given is None else given[direction, sample].astype(np.float64)
                for given in (state.hidden, state.cell)
            )
            for t in reversed(order) if reverse else order:
                h, c = _step(cell, weights, direction, x_TBI[t, sample].astype(np.float64), h, c)
                y[t, direction, sample] = h
            if len(order):
                last_h[direction, sample], last_c[direction, sample] = h, c
    return y, last_h, last_c


def _step(cell: Cell, weights: Weights, direction: int, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """Make one step of one sample."""
    w, r = (one[direction].astype(np.float64) for one in (weights.w, weights.r))
    count = len(w)
    bias = np.zeros(2 * count) if weights.bias is None else weights.bias[direction].astype(np.float64)
    wb, rb = bias[:count], bias[count:]
    steps = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
    peepholes = None if weights.peepholes is None else weights.peepholes[direction].astype(np.float64)
    return steps[cell.kind](cell, cell.of(direction), w @ x + wb, r, rb, peepholes, h, c)


def _clipped(cell: Cell, x: Array) -> Array:
    return x if cell.clip is None else np.clip(x, -cell.clip, cell.clip)


def _rnn(
    cell: Cell, f: tuple[Activation, ...], wx: Array, r: Array, rb: Array, _p: Array | None, h: Array, c: Array
) -> tuple[Array, Array]:
    return f[0](_clipped(cell, wx + r @ h + rb)), c


def _gru(
    cell: Cell, f: tuple[Activation, ...], wx: Array, r: Array, rb: Array, _p: Array | None, h: Array, c: Array
) -> tuple[Array, Array]:
    size = len(h)
    z, reset = f[0](_clipped(cell, (wx + r @ h + rb)[: 2 * size])).reshape(2, size)
    if cell.linear_before_reset:
        inner = reset * (r[2 * size :] @ h + rb[2 * size :])
    else:
        inner = r[2 * size :] @ (reset * h) + rb[2 * size :]
    candidate = f[1](_clipped(cell, wx[2 * size :] + inner))
    return (1 - z) * candidate + z * h, c


def _lstm(
    cell: Cell, f: tuple[Activation, ...], wx: Array, r: Array, rb: Array, p: Array | None, h: Array, c: Array
) -> tuple[Array, Array]:
    size = len(h)
    i, o, forget, candidate = (wx + r @ h + rb).reshape(4, size)
    pi, po, pf = np.zeros((3, size)) if p is None else p.reshape(3, size)
    i = f[0](_clipped(cell, i + pi * c))
    forget = 1 - i if cell.input_forget else f[0](_clipped(cell, forget + pf * c))
    new = forget * c + i * f[1](_clipped(cell, candidate))
    return f[0](_clipped(cell, o + po * new)) * f[2](new), new
