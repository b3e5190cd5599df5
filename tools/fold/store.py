"""Shards of proteins in HDF5, and how they are read.

    /                    attributes: kind, schema, contents (sha256 of names, sizes and choices), history
    /table/<column>      one entry a chain, in order: the columns of `Table`
    /sequences/<key>     what chains of one sequence share: msa (D, L) uint8; deletions (K, 3) int32, each a row, a
                         column and a count; profile (L, 22) float32; templates/{names (T,), aatype (T, L) uint8,
                         positions (T, L, 37, 3) float32, mask (T, L, 5) uint8, sum_probs (T,) float32} where it has any
    /chains/<name>       positions (L, 37, 3) float32 in angstroms; mask (L, 5) uint8, 37 bits a residue; templates (t,)
                         uint16, those of its sequence that it may see, the surest first
    /summary             what came of the packing, as JSON: rows read, what was left out and why

Alignments lie in chunks of 256 rows, templates in chunks of one, both compressed a little. D rows, L residues, K places
of deletions, T templates.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact import hdf5_item, open_hdf5
from sartor.share.artifact.contents import damaged
from sartor.share.errors import InputRefusedError
from sartor.tools.fold.parse.alignment import Deletions

if TYPE_CHECKING:
    import h5py

KIND, SCHEMA = "sartor.fold.shard", 1
CONTENTS, SUMMARY = "contents", "summary"
ATOMS = 37
SUFFIX = ".h5"

_DAMAGE = (AssertionError, IndexError, KeyError, OSError, RuntimeError, TypeError, UnicodeDecodeError, ValueError)
"""What h5py, numpy and our own checks raise over a damaged file."""


@dataclass(frozen=True)
class Templates:
    """Structures on the places of a sequence.

    Their names, aatype (T, L), positions (T, L, 37, 3) in angstroms, mask (T, L, 37), and sum_probs (T,): how many of
    their residues are expected to be aligned rightly.
    """

    names: tuple[str, ...]
    aatype: NDArray[np.uint8]
    positions: NDArray[np.float32]
    mask: NDArray[np.bool_]
    sum_probs: NDArray[np.float32]


def no_templates(length: int) -> Templates:
    """Return no templates for a sequence of some length."""
    return Templates(
        (),
        np.zeros((0, length), np.uint8),
        np.zeros((0, length, ATOMS, 3), np.float32),
        np.zeros((0, length, ATOMS), bool),
        np.zeros(0, np.float32),
    )


@dataclass(frozen=True)
class Chain:
    """A chain to train on or to predict.

    Its residues are aatype (L,), 20 is unknown; msa (D, L) has them in row 0, and 21 for a gap; profile (L, 22) is the
    share of each class in a column; positions (L, 37, 3) are in angstroms where mask (L, 37) is set. The templates are
    those that this chain may see, the surest first.
    """

    name: str
    aatype: NDArray[np.uint8]
    msa: NDArray[np.uint8]
    deletions: Deletions
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


@dataclass(frozen=True)
class Table:
    """What a sampler knows of the chains, one entry each in every column.

    The key of the sequence, its length, the rows of its alignment, the number of templates, how many chains are in its
    cluster, resolution in angstroms, ISO date of release.
    """

    name: tuple[str, ...] = ()
    sequence: tuple[str, ...] = ()
    length: tuple[int, ...] = ()
    depth: tuple[int, ...] = ()
    templates: tuple[int, ...] = ()
    cluster: tuple[int, ...] = ()
    resolution: tuple[float, ...] = ()
    date: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.name)

    def __add__(self, other: Table) -> Table:
        return Table(*(getattr(self, column) + getattr(other, column) for column in COLUMNS))


COLUMNS = tuple(column.name for column in fields(Table))
TEXTS = ("name", "sequence", "date")


@dataclass(frozen=True)
class Shards:
    """The chains of one or several shards, which are opened when they are first read from.

    `places` tells which of the paths has each chain, `digest` is equal for equal chains, whatever the files are called.
    An instance may go to other processes and threads.
    """

    paths: tuple[Path, ...]
    places: tuple[int, ...]
    chains: Table
    digest: str
    _open: dict[tuple[int, int], h5py.File] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.chains)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the chains."""
        return self.chains.name

    @property
    def lengths(self) -> tuple[int, ...]:
        """The number of residues of each chain."""
        return self.chains.length

    @property
    def clusters(self) -> tuple[int, ...]:
        """How many chains are in the cluster of each."""
        return self.chains.cluster

    def position(self, name: str) -> int:
        """Return the position of a chain; raises InputRefusedError where there is none of that name."""
        if name not in self.names:
            subject = str(self.paths[0].parent if len(self.paths) > 1 else self.paths[0])
            raise InputRefusedError(f"there is no chain {name} in it", subject=subject, remedy="See `sartor inspect`")
        return self.names.index(name)

    def load(self, position: int) -> Chain:
        """Read a chain; raises InputRefusedError where the shard is damaged."""
        place = self.places[position]
        try:
            return _read_chain(self._file(place), self.chains, position)
        except _DAMAGE as error:
            reason = f"chain {self.names[position]} can't be read ({error})"
            raise damaged(reason, str(self.paths[place])) from error

    def close(self) -> None:
        """Close the files that are open."""
        for file in self._open.values():
            file.close()
        self._open.clear()

    def _file(self, place: int) -> h5py.File:
        # A file that was open before a fork shares its offset with the other process.
        key = (os.getpid(), place)
        if key not in self._open:
            self._open[key] = open_hdf5(self.paths[place], whole=False)
        return self._open[key]


def open_shards(path: str | Path) -> Shards:
    """Open a shard, or all shards of a folder in the order of their names.

    Raises InputRefusedError for what is missing, damaged or foreign, has no chains, or has one twice.
    """
    paths = shard_paths(path)
    tables = [read_table(one) for one in paths]
    table = sum(tables, Table())
    if not len(table):
        raise InputRefusedError("there are no chains in it", subject=str(path), remedy="See the report of fold-pack")
    if len(set(table.name)) < len(table):
        twice = sorted(name for name in set(table.name) if table.name.count(name) > 1)
        reason = f"chain {twice[0]} is in it twice"
        raise InputRefusedError(reason, subject=str(path), remedy="Pack into a folder of its own")
    places = tuple(place for place, one in enumerate(tables) for _ in range(len(one)))
    digest = hashlib.sha256(repr([getattr(table, column) for column in COLUMNS]).encode()).hexdigest()
    return Shards(paths, places, table, digest)


def shard_paths(path: str | Path) -> tuple[Path, ...]:
    """Return the shards that a path names; raises InputRefusedError for a folder without any."""
    path = Path(path)
    if not path.is_dir():
        return (path,)
    found = tuple(sorted(one for one in path.glob(f"*{SUFFIX}") if not one.name.startswith(".")))
    if not found:
        reason = "there are no shards in this folder"
        raise InputRefusedError(reason, subject=str(path), remedy="Make some with `sartor fold-pack`")
    return found


def read_table(path: Path) -> Table:
    """Read the table of a shard; raises InputRefusedError for another kind of file, another schema and damage."""
    with open_hdf5(path, whole=False) as file:
        require_shard(file, str(path))
        try:
            return _table(hdf5_item(file, "table"))
        except _DAMAGE as error:
            raise damaged(f"its table can't be read ({error})", str(path)) from error


def require_shard(file: h5py.File, subject: str) -> None:
    """Raise InputRefusedError unless an open file is a shard of the schema that we know."""
    if file.attrs.get("kind") != KIND:
        raise InputRefusedError("this is no shard of proteins", subject=subject, remedy="Give shards of fold-pack")
    if file.attrs.get("schema") != SCHEMA:
        found = file.attrs.get("schema")
        raise InputRefusedError(f"its schema is {found}, not {SCHEMA}", subject=subject, remedy="Pack it again")


def _table(group: h5py.Group) -> Table:
    columns: dict[str, tuple[Any, ...]] = {}
    for name in COLUMNS:
        values = hdf5_item(group, name)[()].tolist()
        columns[name] = tuple(value.decode() for value in values) if name in TEXTS else tuple(values)
    assert len({len(column) for column in columns.values()}) == 1, "its columns differ in length"
    return Table(**columns)


def _read_chain(file: h5py.File, table: Table, position: int) -> Chain:
    shared = hdf5_item(file, f"sequences/{table.sequence[position]}")
    own = hdf5_item(file, f"chains/{table.name[position]}")
    msa, cut, profile = (hdf5_item(shared, name)[()] for name in ("msa", "deletions", "profile"))
    positions, bits, chosen = (hdf5_item(own, name)[()] for name in ("positions", "mask", "templates"))
    length = table.length[position]
    assert msa.shape == (table.depth[position], length), f"its alignment is {msa.shape}"
    assert positions.shape == (length, ATOMS, 3), f"its positions are {positions.shape}"
    chain = Chain(
        name=table.name[position],
        aatype=np.minimum(msa[0], 20),
        msa=msa,
        deletions=Deletions(cut[:, 0].copy(), cut[:, 1].copy(), cut[:, 2].astype(np.uint16)),
        profile=profile,
        templates=_read_templates(shared, chosen, length),
        positions=positions,
        mask=unpacked(bits),
        resolution=table.resolution[position],
        date=table.date[position],
        cluster=table.cluster[position],
    )
    _check(chain)
    return chain


def _check(chain: Chain) -> None:
    """Assert what compiled code takes for granted, as it would read past the end of an array otherwise."""
    depth, length = chain.msa.shape
    cut = chain.deletions
    assert chain.msa.max(initial=0) <= 21, "its alignment has unknown classes"
    assert chain.profile.shape == (length, 22), f"its profile is {chain.profile.shape}"
    assert chain.mask.shape == (length, ATOMS), f"its mask is {chain.mask.shape}"
    assert ((cut.rows >= 0) & (cut.rows < depth)).all(), "its deletions are outside the alignment"
    assert ((cut.columns >= 0) & (cut.columns < length)).all(), "its deletions are outside the alignment"
    assert (np.diff(cut.rows) >= 0).all(), "its deletions are out of order"


def _read_templates(shared: h5py.Group, chosen: NDArray[np.uint16], length: int) -> Templates:
    """Read the templates of a sequence that a chain may see, in its order."""
    if not len(chosen):
        return no_templates(length)
    group = hdf5_item(shared, "templates")
    # HDF5 reads in ascending order only.
    ascending, order = np.unique(chosen, return_inverse=True)
    aatype, positions, mask, sum_probs, names = (
        hdf5_item(group, name)[ascending][order] for name in ("aatype", "positions", "mask", "sum_probs", "names")
    )
    count = len(chosen)
    assert aatype.shape == (count, length), f"its templates are {aatype.shape}"
    assert positions.shape == (count, length, ATOMS, 3), f"its templates are {positions.shape}"
    return Templates(tuple(name.decode() for name in names), aatype, positions, unpacked(mask), sum_probs)


def packed(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask of atoms (..., 37) as bits (..., 5)."""
    return np.packbits(mask, axis=-1)


def unpacked(bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the mask of atoms (..., 37) of bits (..., 5)."""
    return np.unpackbits(bits, axis=-1, count=ATOMS).astype(bool)


def key_of(aatype: NDArray[np.uint8]) -> str:
    """Return the name under which a sequence (L,) is stored."""
    return hashlib.sha256(aatype.tobytes()).hexdigest()[:16]


def read_summary(file: h5py.File, subject: str) -> dict[str, Any]:
    """Return what an open shard tells of its packing; raises InputRefusedError where it is damaged."""
    try:
        summary = json.loads(hdf5_item(file, SUMMARY)[()])
        assert isinstance(summary, dict)
    except _DAMAGE as error:
        raise damaged("its summary can't be read", subject) from error
    return summary
