"""Shards of proteins in HDF5, and what a training reads of them.

    /                    attributes: kind, schema, made_from (sha256 of what was packed), history
    /table               name, sequence, length, depth, templates, cluster, resolution, date of every chain, in order
    /sequences/<key>     what chains of one sequence share: msa (D, L) uint8; deletions/{rows, columns, counts}; profile
                         (L, 22) float32; templates/{aatype (T, L), positions (T, L, 37, 3), mask (T, L, 5),
                         sum_probs (T,)}
    /chains/<name>       positions (L, 37, 3) float32 in angstroms, mask (L, 5) uint8: 37 bits a residue

A shard is written whole, then renamed. Alignments lie in chunks of 256 rows, compressed a little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact import open_hdf5
from sartor.share.artifact.contents import damaged
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.alignment import Alignment, Deletions

if TYPE_CHECKING:
    import h5py

KIND, SCHEMA = "sartor.fold.shard", 1
MADE_FROM = "made_from"
ROWS = 256


@dataclass(frozen=True)
class Templates:
    """Structures aligned to a sequence: aatype (T, L), positions (T, L, 37, 3), mask (T, L, 37), sum_probs (T,)."""

    aatype: NDArray[np.uint8]
    positions: NDArray[np.float32]
    mask: NDArray[np.bool_]
    sum_probs: NDArray[np.float32]


@dataclass(frozen=True)
class Chain:
    """A chain as it is trained on; `profile` (L, 22) is the share of each residue and of gaps among all rows."""

    name: str
    aatype: NDArray[np.uint8]
    alignment: Alignment
    profile: NDArray[np.float32]
    templates: Templates
    positions: NDArray[np.float32]
    mask: NDArray[np.bool_]
    resolution: float
    date: str = ""
    cluster: int = 1

    @property
    def length(self) -> int:
        """The number of residues."""
        return len(self.aatype)


def no_templates(length: int) -> Templates:
    """Return no templates for a sequence of some length."""
    return Templates(
        np.zeros((0, length), np.uint8),
        np.zeros((0, length, 37, 3), np.float32),
        np.zeros((0, length, 37), bool),
        np.zeros(0, np.float32),
    )


def profile_of(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the share (L, 22) of every residue and of gaps in each column (AlphaFold 2, supplementary 1.2.7)."""
    return np.stack([np.mean(rows == kind, axis=0, dtype=np.float64) for kind in range(22)], 1).astype(np.float32)


TABLE: dict[str, Any] = {
    "name": str, "sequence": str, "length": np.int32, "depth": np.int32, "templates": np.int32, "cluster": np.int32,
    "resolution": np.float32, "date": str,
}  # fmt: skip
"""The columns of the table and their types."""


def write_shard(file: h5py.File, chains: Iterable[Chain]) -> None:
    """Fill an open file with chains, one after the other."""
    file.attrs.update({"kind": KIND, "schema": SCHEMA})
    shared, own = file.create_group("sequences"), file.create_group("chains")
    rows: list[tuple[Any, ...]] = []
    for chain in chains:
        key = key_of(chain.aatype)
        if key not in shared:
            _write_sequence(shared.create_group(key), chain)
        group = own.create_group(chain.name)
        group.create_dataset("positions", data=chain.positions, compression="gzip", compression_opts=1)
        group["mask"] = np.packbits(chain.mask, axis=-1)
        rows.append(_row(key, chain))
    _write_table(file.create_group("table"), rows)


def key_of(aatype: NDArray[np.uint8]) -> str:
    """Return the name under which a sequence is stored."""
    return hashlib.sha256(aatype.tobytes()).hexdigest()[:16]


def _write_sequence(group: h5py.Group, chain: Chain) -> None:
    rows, deletions, templates = chain.alignment.rows, chain.alignment.deletions, chain.templates
    chunks = (min(ROWS, len(rows)), rows.shape[1])
    group.create_dataset("msa", data=rows, chunks=chunks, compression="gzip", compression_opts=1)
    cut = group.create_group("deletions")
    for name in ("rows", "columns", "counts"):
        cut[name] = getattr(deletions, name)
    group["profile"] = chain.profile
    known = group.create_group("templates")
    known["aatype"], known["sum_probs"] = templates.aatype, templates.sum_probs
    known["positions"] = templates.positions
    known["mask"] = np.packbits(templates.mask, axis=-1)


def _row(key: str, chain: Chain) -> tuple[Any, ...]:
    """Return what the table says of a chain."""
    depth, templates = len(chain.alignment.rows), len(chain.templates.sum_probs)
    return (chain.name, key, chain.length, depth, templates, chain.cluster, chain.resolution, chain.date)


def _write_table(table: h5py.Group, rows: Sequence[tuple[Any, ...]]) -> None:
    import h5py

    columns = zip(*rows, strict=True) if rows else [()] * len(TABLE)
    for (name, kind), column in zip(TABLE.items(), columns, strict=True):
        table[name] = np.array(column, dtype=h5py.string_dtype() if kind is str else kind)


@dataclass(frozen=True)
class Shards:
    """The chains of one or several shards; `places` tells the file of each, the others are columns of the table.

    `digest` is the same for the same chains in the same order, whatever the files are called.
    """

    files: tuple[h5py.File, ...]
    places: tuple[int, ...]
    names: tuple[str, ...]
    keys: tuple[str, ...]
    lengths: tuple[int, ...]
    clusters: tuple[int, ...]
    resolutions: tuple[float, ...]
    dates: tuple[str, ...]
    digest: str = field(compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def load(self, position: int) -> Chain:
        """Read a chain; raises InputRefusedError where the shard is damaged."""
        file, name = self.files[self.places[position]], self.names[position]
        try:
            return _read_chain(file, self, position)
        except (KeyError, OSError, ValueError, TypeError) as error:
            raise damaged(f"the chain {name} in it can't be read ({error})", str(file.filename)) from None

    def close(self) -> None:
        """Close the files."""
        for file in self.files:
            file.close()


def _read_chain(file: h5py.File, shards: Shards, position: int) -> Chain:
    shared, own = file["sequences"][shards.keys[position]], file["chains"][shards.names[position]]
    rows, cut = shared["msa"][:], shared["deletions"]
    deletions = Deletions(cut["rows"][:], cut["columns"][:], cut["counts"][:])
    known = shared["templates"]
    templates = Templates(known["aatype"][:], known["positions"][:], _mask(known["mask"][:]), known["sum_probs"][:])
    return Chain(
        shards.names[position],
        rows[0],
        Alignment(rows, deletions),
        shared["profile"][:],
        templates,
        own["positions"][:],
        _mask(own["mask"][:]),
        shards.resolutions[position],
        shards.dates[position],
        shards.clusters[position],
    )


def _mask(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.unpackbits(packed, axis=-1, count=37).astype(bool)


def open_shards(path: str | Path) -> Shards:
    """Open a shard, or all shards of a folder in the order of their names.

    Raises InputRefusedError for what is missing, damaged, foreign, or has no chains.
    """
    path = Path(path)
    found = sorted(path.glob("*.h5")) if path.is_dir() else [path]
    if not found:
        remedy = "Make shards with sartor fold-pack"
        raise InputRefusedError("there are no shards in this folder", subject=str(path), remedy=remedy)
    files = tuple(_open(one) for one in found)
    columns: dict[str, list[Any]] = {name: [] for name in TABLE}
    places: list[int] = []
    for number, file in enumerate(files):
        table = _table(file)
        places += [number] * len(table["name"])
        for name in TABLE:
            columns[name] += table[name]
    if not places:
        raise InputRefusedError(
            "there are no chains in it", subject=str(path), remedy="Pack some with sartor fold-pack"
        )
    digest = hashlib.sha256(repr([columns[name] for name in TABLE]).encode()).hexdigest()
    chosen = (columns[name] for name in ("name", "sequence", "length", "cluster", "resolution", "date"))
    return Shards(files, tuple(places), *(tuple(column) for column in chosen), digest)  # type: ignore[arg-type]


def _open(path: Path) -> h5py.File:
    file = open_hdf5(path)
    if file.attrs.get("kind") != KIND:
        file.close()
        remedy = "Give shards that sartor fold-pack made"
        raise InputRefusedError("it is no shard of proteins", subject=str(path), remedy=remedy)
    if file.attrs.get("schema") != SCHEMA:
        found = file.attrs.get("schema")
        file.close()
        remedy = "Pack it again with this version"
        raise InputRefusedError(f"its schema is {found}, not {SCHEMA}", subject=str(path), remedy=remedy)
    return file


def _table(file: h5py.File) -> dict[str, list[Any]]:
    """Read the table of a shard; raises InputRefusedError where it is damaged."""
    try:
        table = {name: file["table"][name][:].tolist() for name in TABLE}
    except (KeyError, OSError, ValueError, TypeError) as error:
        raise damaged(f"its table can't be read ({error})", str(file.filename)) from None
    for name in ("name", "sequence", "date"):
        table[name] = [one.decode("utf-8") for one in table[name]]
    if len({len(column) for column in table.values()}) != 1:
        raise damaged("the columns of its table differ in length", str(file.filename))
    return table
