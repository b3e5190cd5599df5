"""The pointwise part of a cell: from pre-activations to states, a block of one sample at a time.

The functions take the addresses of the pre-activations [units, slots, L], of the cell state [units, L] (LSTM), of the
peepholes [3, units, L] (or 0), of the block's part of the hidden state before, and of where the new one goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from sartor.share.kernels import vecmath
from sartor.share.kernels.scalar import Scalar
from sartor.tools.sparse_rnn.activations import Activation
from sartor.tools.sparse_rnn.kernels.form import Form, Machine, form_of
from sartor.tools.sparse_rnn.kernels.vector import SINGLE, Writer, instruction
from sartor.tools.sparse_rnn.oracle import Cell

_FUNCTIONS: dict[str, Callable[[Scalar, float, float], Scalar]] = {
    "affine": lambda x, a, b: x * a + b,
    "relu": lambda x, a, b: x.at_least(0.0),
    "leakyrelu": lambda x, a, b: (x < 0.0).select(x * a, x),
    "thresholdedrelu": lambda x, a, b: (x > a).select(x, 0.0),
    "tanh": lambda x, a, b: vecmath.FORMULAS["tanh_f32"](x),
    "scaledtanh": lambda x, a, b: vecmath.FORMULAS["tanh_f32"](x * b) * a,
    "sigmoid": lambda x, a, b: vecmath.FORMULAS["sigmoid_f32"](x),
    "hardsigmoid": lambda x, a, b: (x * a + b).at_least(0.0).at_most(1.0),
    "elu": lambda x, a, b: (x < 0.0).select(vecmath.FORMULAS["expm1_f32"](x) * a, x),
    "softsign": lambda x, a, b: x / (abs(x) + 1.0),
    "softplus": lambda x, a, b: vecmath.FORMULAS["softplus_f32"](x),
}


@dataclass(frozen=True)
class _Block:
    """Vectors of a block in memory."""

    writer: Writer
    form: Form
    lanes: int
    gates: Any
    cell: Any
    peepholes: Any
    before: Any
    after: Any

    def gate(self, unit: int, slot: int) -> Scalar:
        return self._load(self.gates, unit * self.form.slots + slot)

    def set_gate(self, unit: int, slot: int, value: Scalar) -> None:
        self._store(value, self.gates, unit * self.form.slots + slot)

    def memory(self, unit: int) -> Scalar:
        return self._load(self.cell, unit)

    def set_memory(self, unit: int, value: Scalar) -> None:
        self._store(value, self.cell, unit)

    def peephole(self, unit: int, which: int) -> Scalar:
        return self._load(self.peepholes, which * self.form.units + unit)

    def hidden(self, unit: int) -> Scalar:
        return self._load(self.before, unit)

    def set_hidden(self, unit: int, value: Scalar) -> None:
        self._store(value, self.after, unit)

    def _load(self, base: Any, index: int) -> Scalar:
        kind = ir.VectorType(SINGLE, self.lanes)
        return Scalar(self.writer.builder, self.writer.load(self.writer.at(base, index * self.lanes * 4), kind))

    def _store(self, value: Scalar, base: Any, index: int) -> None:
        self.writer.store(value.value, self.writer.at(base, index * self.lanes * 4))


def pointwise(machine: Machine, cell: Cell, direction: int, peepholes: bool, part: int) -> Any:
    """Make the function of a cell that follows a part of the recurrent weights."""
    form, functions = form_of(cell), tuple(map(_applied, cell.of(direction)))

    def body(w: Writer, gates: Any, state: Any, weights: Any, before: Any, after: Any) -> None:
        block = _Block(w, form, machine.lanes, gates, state, weights, before, after)
        for unit in range(form.units):
            if cell.kind == "LSTM":
                _lstm(cell, functions, peepholes, block, unit)
            elif cell.kind == "RNN":
                block.set_hidden(unit, functions[0](_clipped(cell, block.gate(unit, 0))))
            elif cell.linear_before_reset:
                _gru_inside(cell, functions, block, unit)
            elif part == 0:
                _gru_gates(cell, functions, block, unit)
            else:
                _gru_candidate(cell, functions, block, unit)

    return instruction(5, body)


_Function = Callable[[Scalar], Scalar]


def _applied(activation: Activation) -> _Function:
    function = _FUNCTIONS[activation.name]
    return lambda x: function(x, activation.alpha, activation.beta)


def _clipped(cell: Cell, x: Scalar) -> Scalar:
    return x if cell.clip is None else x.at_least(-cell.clip).at_most(cell.clip)


def _lstm(cell: Cell, f: tuple[_Function, ...], peepholes: bool, block: _Block, unit: int) -> None:
    old = block.memory(unit)
    i, o, forget, candidate = (block.gate(unit, slot) for slot in range(4))
    if peepholes:
        i, forget = i + block.peephole(unit, 0) * old, forget + block.peephole(unit, 2) * old
    i = f[0](_clipped(cell, i))
    forget = i.constant(1.0) - i if cell.input_forget else f[0](_clipped(cell, forget))
    new = forget * old + i * f[1](_clipped(cell, candidate))
    if peepholes:
        o = o + block.peephole(unit, 1) * new
    block.set_memory(unit, new)
    block.set_hidden(unit, f[0](_clipped(cell, o)) * f[2](new))


def _gru_inside(cell: Cell, f: tuple[_Function, ...], block: _Block, unit: int) -> None:
    """Write a GRU that applies the reset gate to the product: one part, the form that torch has."""
    update, reset = (f[0](_clipped(cell, block.gate(unit, slot))) for slot in range(2))
    candidate = f[1](_clipped(cell, block.gate(unit, 2) + reset * block.gate(unit, 3)))
    block.set_hidden(unit, (1.0 - update) * candidate + update * block.hidden(unit))


def _gru_gates(cell: Cell, f: tuple[_Function, ...], block: _Block, unit: int) -> None:
    """Write the first part of the other GRU: its gates, and the hidden state behind the reset gate."""
    update, reset = (f[0](_clipped(cell, block.gate(unit, slot))) for slot in range(2))
    block.set_gate(unit, 0, update)
    block.set_hidden(unit, reset * block.hidden(unit))


def _gru_candidate(cell: Cell, f: tuple[_Function, ...], block: _Block, unit: int) -> None:
    """Write its second part; the update gate has been computed."""
    update, candidate = block.gate(unit, 0), f[1](_clipped(cell, block.gate(unit, 2)))
    block.set_hidden(unit, (1.0 - update) * candidate + update * block.hidden(unit))
