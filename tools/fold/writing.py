"""What is stored of a sequence, compressed by whoever read it, and how a shard is written.

D rows, L residues, K places of deletions, T templates.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.columns import ORDER
from sartor.tools.fold.parse.alignment import Alignment
from sartor.tools.fold.store import COLUMNS, KIND, SCHEMA, SUMMARY, TEXTS, Chain, Templates, key_of, packed

if TYPE_CHECKING:
    import h5py

ROWS = 256
"""Rows of an alignment in a chunk."""

LEVEL = 1
"""How hard is compressed: more costs more than it gains."""

_TYPES: Mapping[str, Any] = {"resolution": np.float64}


@dataclass(frozen=True)
class Compressed:
    """An array in chunks along its first axis, each as zlib has it; the last is filled with zeros."""

    shape: tuple[int, ...]
    type: str
    rows: int
    chunks: tuple[bytes, ...]


@dataclass(frozen=True)
class PackedChain:
    """What is a chain's own: positions (L, 37, 3), mask (L, 37), its templates by number, and facts for the table."""

    name: str
    positions: NDArray[np.float32]
    mask: NDArray[np.bool_]
    templates: tuple[int, ...]
    cluster: int
    resolution: float
    date: str


@dataclass(frozen=True)
class PackedSequence:
    """What chains of one sequence share, and those chains; deletions are (K, 3), profile is (L, 22)."""

    key: str
    msa: Compressed
    deletions: Compressed
    profile: NDArray[np.float32]
    templates: Templates
    placed: Compressed
    chains: tuple[PackedChain, ...]


def compress(array: NDArray[Any], rows: int) -> Compressed:
    """Compress an array in chunks of so many rows."""
    rows = max(1, min(rows, len(array)))
    chunks = []
    for start in range(0, len(array), rows):
        chunk = np.zeros((rows, *array.shape[1:]), array.dtype)
        chunk[: len(array) - start] = array[start : start + rows]
        chunks.append(zlib.compress(chunk.tobytes(), LEVEL))
    return Compressed(array.shape, array.dtype.str, rows, tuple(chunks))


def pack_sequence(
    key: str, alignment: Alignment, profile: NDArray[np.float32], templates: Templates, chains: Sequence[PackedChain]
) -> PackedSequence:
    """Compress what is large."""
    cut = alignment.deletions
    table = np.stack([cut.rows, cut.columns, cut.counts.astype(np.int32)], axis=1)
    msa, deletions = compress(alignment.rows, ROWS), compress(table, max(len(table), 1))
    return PackedSequence(key, msa, deletions, profile, templates, compress(templates.positions, 1), tuple(chains))


def pack_chain(chain: Chain) -> PackedSequence:
    """Return a chain as it is stored, the only one of its sequence."""
    numbers = tuple(range(len(chain.templates.names)))
    facts = (chain.cluster, chain.resolution, chain.date)
    own = PackedChain(chain.name, chain.positions, chain.mask, numbers, *facts)
    alignment = Alignment(chain.msa, chain.deletions)
    return pack_sequence(key_of(chain.aatype), alignment, chain.profile, chain.templates, [own])


def write_shard(file: h5py.File, sequences: Iterable[PackedSequence]) -> int:
    """Fill an open file with sequences of different keys, one after the other; return the number of chains."""
    file.attrs.update({"kind": KIND, "schema": SCHEMA})
    shared, own = file.create_group("sequences"), file.create_group("chains")
    table: list[tuple[Any, ...]] = []
    for sequence in sequences:
        _write_sequence(shared.create_group(sequence.key), sequence)
        for chain in sequence.chains:
            _write_own(own.create_group(chain.name), chain)
            table.append(_row(sequence, chain))
    _write_table(file.create_group("table"), table)
    return len(table)


def write_summary(file: h5py.File, summary: Mapping[str, Any]) -> None:
    """Write what came of the packing beside the chains, as JSON."""
    file[SUMMARY] = json.dumps(summary, sort_keys=True)


def _write_sequence(group: h5py.Group, sequence: PackedSequence) -> None:
    import h5py

    _write_compressed(group, "msa", sequence.msa)
    _write_compressed(group, "deletions", sequence.deletions)
    group["profile"] = sequence.profile
    known = sequence.templates
    if known.names:
        templates = group.create_group("templates")
        templates["names"] = np.array(known.names, h5py.string_dtype())
        templates["aatype"], templates["sum_probs"], templates["mask"] = (
            known.aatype,
            known.sum_probs,
            packed(known.mask),
        )
        _write_compressed(templates, "positions", sequence.placed)


def _write_compressed(group: h5py.Group, name: str, array: Compressed) -> None:
    """Write chunks as they are; HDF5 would compress them here and now, one after the other."""
    if not array.chunks:
        group.create_dataset(name, array.shape, array.type)
        return
    chunk = (array.rows, *array.shape[1:])
    dataset = group.create_dataset(
        name, array.shape, array.type, chunks=chunk, compression="gzip", compression_opts=LEVEL
    )
    for number, data in enumerate(array.chunks):
        dataset.id.write_direct_chunk((number * array.rows, *(0 for _ in chunk[1:])), data)


def _write_own(group: h5py.Group, chain: PackedChain) -> None:
    group.create_dataset("positions", data=chain.positions, compression="gzip", compression_opts=LEVEL)
    group["mask"] = packed(chain.mask)
    group["templates"] = np.array(chain.templates, np.uint16)


def _row(sequence: PackedSequence, chain: PackedChain) -> tuple[Any, ...]:
    """Return what the table says of a chain, in the order of its columns."""
    depth, length = sequence.msa.shape
    templates = len(chain.templates)
    return (chain.name, sequence.key, length, depth, templates, chain.cluster, chain.resolution, chain.date)


def _write_table(group: h5py.Group, rows: Sequence[tuple[Any, ...]]) -> None:
    import h5py

    group.attrs[ORDER] = " ".join(COLUMNS)
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    for name, column in zip(COLUMNS, columns, strict=True):
        group[name] = np.array(column, h5py.string_dtype() if name in TEXTS else _TYPES.get(name, np.int32))
