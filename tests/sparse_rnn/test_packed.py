"""Packed layers come back from a pack as they were, for the same weights, processor and layout and no others."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from tests.sparse_rnn.test_kernels import CASES, call_of, feed_of, made

from sartor.share.packs import Entry, read_packs, write_packs
from sartor.share.runtime import load
from sartor.share.runtime.session import kernels_of
from sartor.tools.sparse_rnn import executor
from sartor.tools.sparse_rnn.encode import encode
from sartor.tools.sparse_rnn.executor import Bound, bind, pack_bound, pack_calls
from sartor.tools.sparse_rnn.find import BIAS
from sartor.tools.sparse_rnn.kernels.form import MACHINES, Machine
from sartor.tools.sparse_rnn.pack import Packed, Tiles, pack
from sartor.tools.sparse_rnn.packed import LAYOUT, UnfitError, entry_of, packed_of

pytestmark = pytest.mark.usefixtures("everywhere")

LAYOUTS = {"avx512": "216c980f8b5d4fb8", "avx2": "a39741039815a97a", "portable": "8ce74519b2815feb"}
"""Digests of what CASES are packed as."""


def bound_of(name: str, seed: int = 0) -> Bound:
    bound = bind(call_of(made(40, 33, CASES[name], seed)[0]))
    assert bound is not None
    return bound


def entry(bound: Bound, machine: Machine) -> Entry:
    return entry_of(pack_bound(bound, machine), bound.cell, bound.operands, machine)


def parts_of(packed: Packed) -> list[Any]:
    """Return everything that a layer is packed as."""
    tiles = [*packed.parts, *([packed.input] if isinstance(packed.input, Tiles) else [])]
    found = [part for one in tiles for part in (one.data, one.counts, one.starts, one.nonzeros, one.width)]
    dense = [one for one in (packed.input, packed.peepholes) if isinstance(one, np.ndarray)]
    return [packed.hidden, packed.inputs, packed.bias, *found, *dense]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
@pytest.mark.parametrize("name", CASES)
def test_a_layer_comes_back(name: str, machine: Machine) -> None:
    bound = bound_of(name)
    packed = pack_bound(bound, machine)
    again = packed_of(entry(bound, machine), bound.cell, bound.operands, machine)
    for got, want in zip(parts_of(again), parts_of(packed), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.name)
def test_layouts_have_a_version(machine: Machine) -> None:
    """Who changes what is packed changes LAYOUT too, so that no older pack is taken for the new."""
    digest = hashlib.sha256()
    for name in CASES:
        made_entry = entry(bound_of(name), machine)
        for key, array in sorted(made_entry.arrays.items()):
            digest.update(f"{key}{array.dtype.str}{array.shape}".encode() + array.tobytes())
    assert (LAYOUT, digest.hexdigest()[:16]) == (1, LAYOUTS[machine.name])


def test_others_do_not_fit() -> None:
    machine, other = MACHINES[:2]
    bound = bound_of("lstm of everything")
    kept = entry(bound, machine)
    bias = bound.operands[BIAS]
    assert isinstance(bias, np.ndarray)
    changed = {**bound.operands, BIAS: bias + 1}
    for facts, cell, operands, asked, reason in (
        ({}, bound.cell, bound.operands, other, "it is packed for avx512, this processor has avx2"),
        ({}, replace(bound.cell, clip=None), bound.operands, machine, "its weights are others"),
        ({}, bound.cell, changed, machine, "its weights are others"),
        ({"layout": 0}, bound.cell, bound.operands, machine, "it is packed as version 0 has it, not 1"),
    ):
        with pytest.raises(UnfitError) as caught:
            packed_of(Entry({**kept.facts, **facts}, kept.arrays), cell, operands, asked)
        assert str(caught.value) == reason


@pytest.mark.parametrize("name", ["R0_data", "R0_counts", "W", "bias", "peepholes"])
def test_arrays_that_would_lead_outside_do_not_fit(name: str) -> None:
    """A kernel trusts what is packed, so a pack that says it is for these weights still has to have their sizes."""
    bound = bound_of("lstm of everything")
    kept = entry(bound, MACHINES[0])
    array = kept.arrays[name]
    absent = {key: one for key, one in kept.arrays.items() if key != name}
    wrongs = [array[1:], array.astype(np.int32), *([np.full_like(array, 255)] if array.dtype == np.uint8 else [])]
    for arrays in (absent, *({**absent, name: wrong} for wrong in wrongs)):
        with pytest.raises(UnfitError, match=f"its {name.partition('_')[0]}"):
            packed_of(Entry(kept.facts, arrays), bound.cell, bound.operands, MACHINES[0])


def test_sessions_use_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cell, _ = made(64, 20, CASES["lstm"])
    content = ir.serde.serialize_model(model).SerializeToString()
    write_packs(pack_calls(model), {}, [], tmp_path / "p.h5")
    feed = feed_of(cell, 64, 20, 6, 2)
    fresh = load(content, threads=1).run(None, feed)

    def never(*_: Any) -> Packed:
        raise AssertionError

    monkeypatch.setattr(executor, "pack", never)
    session = load(content, threads=1, pack=tmp_path / "p.h5")
    assert len(kernels_of(session)) == 1
    for got, want in zip(session.run(None, feed), fresh, strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_for_something_else_is_left_aside(tmp_path: Path) -> None:
    model, cell, _ = made(64, 20, CASES["lstm"])
    content = ir.serde.serialize_model(model).SerializeToString()
    feed = feed_of(cell, 64, 20, 6, 2)
    fresh = load(content, threads=1).run(None, feed)
    ((name, kept),) = pack_calls(model).items()
    others = {
        "is packed anew: it is packed for m68k": {name: Entry({**kept.facts, "instruction_set": "m68k"}, kept.arrays)},
        "is left aside, nothing in it is of this model": {"LSTM_another": kept},
    }
    for reason, entries in others.items():
        write_packs(entries, {}, [], tmp_path / "p.h5")
        with pytest.warns(RuntimeWarning, match=reason):
            session = load(content, threads=1, pack=tmp_path / "p.h5")
        assert len(kernels_of(session)) == 1
        for got, want in zip(session.run(None, feed), fresh, strict=True):
            np.testing.assert_array_equal(got, want)
    assert read_packs(tmp_path / "p.h5").entries.keys() == {"LSTM_another"}


def test_balanced_tiles_are_full() -> None:
    """A balanced pattern needs no fillers where tiles are its groups."""
    _, cell, weights = made(64, 16, CASES["lstm"], density=0.25)
    machine = MACHINES[0]
    mask = weights.r != 0
    packed = pack(cell, machine, encode(weights.r, mask), weights.w, None, None)
    assert packed.parts[0].fill == 1.0
    assert packed.parts[0].nonzeros == int(mask.sum())
