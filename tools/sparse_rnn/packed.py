"""Packed layers as entries of a pack, and back for the same weights, instruction set and version of the layout."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.packs import Entry
from sartor.tools.sparse_rnn.encode import Coded
from sartor.tools.sparse_rnn.find import BIAS, PEEPHOLES, R, W
from sartor.tools.sparse_rnn.kernels.form import Form, Machine, form_of
from sartor.tools.sparse_rnn.oracle import GATES, Cell
from sartor.tools.sparse_rnn.pack import Packed, Tiles, block_starts, blocks_of

Array = NDArray[Any]
Operands = Mapping[int, Coded | Array]
"""Weights by their positions among the inputs of a recurrent operator, some of them coded."""

LAYOUT = 1
"""The version of what `pack.py` makes: a change of it needs another number."""


class UnfitError(Exception):
    """An entry is not for this layer and processor; the message says why."""


def entry_of(packed: Packed, cell: Cell, operands: Operands, machine: Machine) -> Entry:
    """Return what is kept of a packed layer."""
    tiles = {f"R{part}": one for part, one in enumerate(packed.parts)}
    arrays = {"bias": packed.bias}
    if isinstance(packed.input, Tiles):
        tiles["W"] = packed.input
    else:
        arrays["W"] = packed.input
    if packed.peepholes is not None:
        arrays["peepholes"] = packed.peepholes
    for name, one in tiles.items():
        arrays |= {f"{name}_data": one.data, f"{name}_counts": one.counts}
    nonzeros = {f"{name}_nonzeros": one.nonzeros for name, one in tiles.items()}
    return Entry({**_identity(cell, operands, machine), **nonzeros}, arrays)


def packed_of(entry: Entry, cell: Cell, operands: Operands, machine: Machine) -> Packed:
    """Return the packed layer of an entry; raises UnfitError where it is for another layer, processor or version."""
    for name, wanted in _identity(cell, operands, machine).items():
        if entry.facts.get(name) != wanted:
            raise UnfitError(_REASONS[name].format(found=entry.facts.get(name), wanted=wanted))
    r, w, form = operands[R], operands[W], form_of(cell)
    assert isinstance(r, Coded)
    hidden, inputs, total = r.shape[2], w.shape[2], len(GATES[cell.kind])
    blocks = cell.directions * blocks_of(hidden, form.units, machine)
    parts = tuple(
        _tiles(entry, f"R{part}", r, form, len(form.gates(part)), blocks, machine) for part in range(len(form.parts))
    )
    dense = (blocks, inputs, form.units, total, machine.lanes)
    return Packed(
        hidden, inputs, parts,
        _tiles(entry, "W", w, form, total, blocks, machine) if isinstance(w, Coded) else _floats(entry, "W", dense),
        _floats(entry, "bias", (blocks, form.units, form.slots, machine.lanes)),
        _floats(entry, "peepholes", (blocks, 3, form.units, machine.lanes)) if PEEPHOLES in operands else None,
    )  # fmt: skip


_REASONS = {
    "layout": "it is packed as version {found} has it, not {wanted}",
    "instruction_set": "it is packed for {found}, this processor has {wanted}",
    "weights": "its weights are others",
}


def _identity(cell: Cell, operands: Operands, machine: Machine) -> dict[str, str | int]:
    """Return what an entry has to agree in; the order is that in which people want to hear of it."""
    return {**about(machine), "weights": _digest(cell, operands)}


def about(machine: Machine) -> dict[str, str | int]:
    """Return what is the same for all layers of a pack."""
    return {"layout": LAYOUT, "instruction_set": machine.name}


def _digest(cell: Cell, operands: Operands) -> str:
    """Return a digest of a layer: what it computes, and its weights, coded ones as they are."""
    digest = hashlib.sha256(repr(cell).encode())
    for place in (W, R, BIAS, PEEPHOLES):
        one = operands.get(place)
        for array in (one.gaps, one.values) if isinstance(one, Coded) else () if one is None else (one,):
            digest.update(f"{place} {one.shape if one is not None else ()} {array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _tiles(entry: Entry, name: str, coded: Coded, form: Form, gates: int, blocks: int, machine: Machine) -> Tiles:
    """Return a matrix in tiles of which every address that a kernel makes lies within it."""
    width, size = form.units * gates * machine.lanes, coded.values.dtype.itemsize
    slot = width * (size + 1)
    counts = _array(entry, f"{name}_counts", np.uint8, (blocks, -(-coded.shape[2] // machine.columns)))
    slots = int(counts.sum(dtype=np.int64))
    data = _array(entry, f"{name}_data", np.uint8, (slots * slot,))
    columns = data.reshape(slots, slot)[:, width * size :]
    nonzeros = entry.facts.get(f"{name}_nonzeros")
    if columns.max(initial=0) >= machine.columns or not isinstance(nonzeros, int):
        raise UnfitError(f"its {name} is not that of this layer")
    return Tiles(data, counts, block_starts(counts, slot), nonzeros, width)


def _floats(entry: Entry, name: str, shape: tuple[int, ...]) -> Array:
    return _array(entry, name, np.float32, shape)


def _array(entry: Entry, name: str, dtype: type, shape: tuple[int, ...]) -> Array:
    found = entry.arrays.get(name)
    if found is None or found.dtype != dtype or found.shape != shape:
        raise UnfitError(f"its {name} is not that of this layer")
    return found
