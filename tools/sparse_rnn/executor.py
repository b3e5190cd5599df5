"""The executor of the domain `sartor.sparse_rnn`: from a call with constant coded weights to a kernel."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from sartor.share.console import warn
from sartor.share.kernels import machine as code
from sartor.share.packs import Entry
from sartor.share.runtime.calls import find_calls
from sartor.share.runtime.kernel import FunctionCall, Kernel, TensorType
from sartor.tools.sparse_rnn.emit import DOMAIN, coded_names
from sartor.tools.sparse_rnn.encode import Coded, decoded_shape
from sartor.tools.sparse_rnn.find import BIAS, PEEPHOLES, R, W, cell_of
from sartor.tools.sparse_rnn.judge import is_faster
from sartor.tools.sparse_rnn.kernels.form import Machine, ValueType, this_machine
from sartor.tools.sparse_rnn.oracle import GATES, Cell
from sartor.tools.sparse_rnn.pack import Packed, Tiles, pack, record
from sartor.tools.sparse_rnn.packed import UnfitError, entry_of, packed_of

Array = NDArray[Any]

X, LENGTHS, INITIAL_HIDDEN, INITIAL_CELL = 0, 4, 5, 6
"""Positions among the inputs of a recurrent operator that may change from call to call."""

PICOSECONDS_A_WEIGHT = 60
"""About what a weight costs for one sample: decides how many threads share a step."""


@dataclass(frozen=True)
class Bound:
    """A call taken apart: the cell, the operands by position in the operator, and where those stand in the call."""

    cell: Cell
    operands: Mapping[int, Coded | Array]
    places: Mapping[int, int]
    outputs: Mapping[int, int]


def kernel_for_call(call: FunctionCall) -> Kernel | None:
    """Pack the weights of a call and compile its kernel.

    None where a weight is no constant or no float32, and where onnxruntime would be faster.
    """
    bound = bind(call)
    if bound is None:
        return None
    machine = this_machine()
    built = build(call, bound, machine)
    return built.kernel if is_faster(call, built.kernel, built.packed, machine, bound.places[X], built.key) else None


@dataclass(frozen=True)
class Built:
    """A kernel with what it was made from; `key` says what its code depends on."""

    kernel: Kernel
    packed: Packed
    key: str


def build(call: FunctionCall, bound: Bound, machine: Machine) -> Built:
    """Make the kernel of a call for an instruction set."""
    packed = kept_of(call, bound, machine) or pack_bound(bound, machine)
    header = record(packed, machine, work_of(packed))
    source = source_of(call, bound, packed, machine)
    address, owner = code.link(code.compile_object(source))
    name = call.function.domain, call.function.name
    keep = (owner, packed, header)
    kernel = Kernel(*name, address, call.inputs, call.outputs, keep, None, 2, header.ctypes.data)
    return Built(kernel, packed, source.key)


def kept_of(call: FunctionCall, bound: Bound, machine: Machine) -> Packed | None:
    """Return what the caller's pack keeps of a call; None, with a warning, where that is for something else."""
    if call.packs is None:
        return None
    name = call.function.name
    entry = call.packs.entries.get(name)
    try:
        if entry is None:
            raise UnfitError("it has none of its weights")
        return packed_of(entry, bound.cell, bound.operands, machine)
    except UnfitError as reason:
        warnings.warn(f"{call.packs.subject}: {name} is packed anew: {reason}", RuntimeWarning, stacklevel=2)
        return None


def pack_calls(model: ir.Model) -> dict[str, Entry]:
    """Pack the weights of all calls of our functions for this machine, by the names of the functions."""
    wanted = frozenset(ident for ident in model.functions if ident[0] == DOMAIN)
    machine, entries = this_machine(), {}
    for (_, name, _), calls in find_calls(model, wanted).items():
        bound = next((found for call in calls if call is not None and (found := bind(call))), None)
        if bound is None:
            warn(f"{name}: it can't be packed, as types of its inputs are not known")
        else:
            entries[name] = entry_of(pack_bound(bound, machine), bound.cell, bound.operands, machine)
    return entries


def pack_bound(bound: Bound, machine: Machine) -> Packed:
    """Pack the weights of a call."""
    r, w = bound.operands[R], bound.operands[W]
    bias, peepholes = (bound.operands.get(place) for place in (BIAS, PEEPHOLES))
    assert isinstance(r, Coded)
    assert not isinstance(bias, Coded)
    assert not isinstance(peepholes, Coded)
    return pack(bound.cell, machine, r, w, bias, peepholes)


def work_of(packed: Packed) -> int:
    """Return about how many nanoseconds a step of one sample takes."""
    return max(sum(one.places for one in packed.parts) * PICOSECONDS_A_WEIGHT // 1000, 1)


def source_of(call: FunctionCall, bound: Bound, packed: Packed, machine: Machine) -> code.Source:
    """Return what the kernel of a call is compiled from."""
    from sartor.tools.sparse_rnn.kernels.design import Design, Places

    ranks = [0 if kind is None else kind.rank for kind in call.inputs]
    x = bound.places[X]
    places = Places(
        len(call.inputs), len(call.outputs), x, sum(ranks[:x]),
        *(bound.places.get(one, -1) for one in (LENGTHS, INITIAL_HIDDEN, INITIAL_CELL)),
        *(bound.outputs.get(one, -1) for one in range(3)),
    )  # fmt: skip
    sparse_input = isinstance(packed.input, Tiles)
    w, r = bound.operands[W], bound.operands[R]
    design = Design(
        machine, bound.cell, _value_type(r), _value_type(w), not sparse_input, packed.peepholes is not None, places
    )

    def make() -> Any:
        from sartor.tools.sparse_rnn.kernels.loop import make_kernel

        return make_kernel(design)

    return code.Source(f"{design!r}{_digest()}", make)


def _digest() -> str:
    here = Path(__file__).parent
    return code.digest_of([*sorted((here / "kernels").glob("*.py")), here / "oracle.py", here / "activations.py"])


def _value_type(weight: Coded | Array) -> ValueType:
    return "f16" if isinstance(weight, Coded) and weight.values.dtype == np.float16 else "f32"


def bind(call: FunctionCall) -> Bound | None:
    """Take a call apart; None where its function isn't one of ours or an operand is missing."""
    node = call.function[-1]
    if node.op_type not in GATES or any(kind.dtype != ir.DataType.FLOAT for kind in call.outputs):
        return None
    formals = {str(value.name): place for place, value in enumerate(call.function.inputs)}
    cell = cell_of(node, call.function.name)
    operands: dict[int, Coded | Array] = {}
    places: dict[int, int] = {}
    for place, value in enumerate(node.inputs):
        if value is None:
            continue
        names = coded_names(place)
        if names and all(name in formals for name in names):
            parts = [call.constants[formals[name]] for name in names]
            if None in parts:
                return None
            gaps, values = (one.numpy() for one in parts if one is not None)
            operands[place] = Coded(decoded_shape(value), gaps, values)
            continue
        places[place] = formals[str(value.name)]
        if place in (W, R, BIAS, PEEPHOLES):
            constant = call.constants[places[place]]
            if constant is None or constant.dtype != ir.DataType.FLOAT:
                return None
            operands[place] = constant.numpy()
    if not isinstance(operands.get(R), Coded) or not _fits(call, places):
        return None
    kept = [str(value.name) for value in call.function.outputs]
    outputs = {place: kept.index(str(out.name)) for place, out in enumerate(node.outputs) if str(out.name) in kept}
    return Bound(cell, operands, places, outputs)


def _fits(call: FunctionCall, places: Mapping[int, int]) -> bool:
    kinds = {place: call.inputs[at] for place, at in places.items()}
    return all(_is(kinds.get(place), ir.DataType.FLOAT) for place in (X, INITIAL_HIDDEN, INITIAL_CELL)) and _is(
        kinds.get(LENGTHS), ir.DataType.INT32
    )


def _is(kind: TensorType | None, dtype: ir.DataType) -> bool:
    return kind is None or kind.dtype == dtype
