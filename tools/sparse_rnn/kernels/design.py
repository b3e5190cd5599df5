"""What the code of a kernel depends on."""

from __future__ import annotations

from dataclasses import dataclass, field

from sartor.tools.sparse_rnn.kernels.form import Form, Machine, ValueType, form_of
from sartor.tools.sparse_rnn.oracle import Cell


@dataclass(frozen=True)
class Places:
    """Where tensors stand among inputs and outputs, -1 if absent; `x_dims` counts the sizes before those of X."""

    inputs: int
    outputs: int
    x: int
    x_dims: int
    lengths: int = -1
    hidden: int = -1
    cell: int = -1
    y: int = -1
    last_hidden: int = -1
    last_cell: int = -1


@dataclass(frozen=True)
class Design:
    """Everything that the code of a kernel depends on but sizes; `dense_input` where W is not sparse."""

    machine: Machine
    cell: Cell
    values: ValueType
    input_values: ValueType
    dense_input: bool
    peepholes: bool
    places: Places
    form: Form = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "form", form_of(self.cell))
