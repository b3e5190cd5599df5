"""Packs: what kernels make of a model's constants, kept in an HDF5 file beside the model, which stays the original.

    <function>         a group for each function that has a kernel, named like it, with facts as attributes
    <function>/<name>  an array as the kernel reads it

A digest over facts and arrays is checked when a pack is read. Whether an entry is for these weights and this processor
its facts tell the executor.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sartor.share.artifact import open_hdf5, write_bytes
from sartor.share.artifact.contents import damaged
from sartor.share.errors import InputRefusedError
from sartor.share.history import Record, append_hdf5

if TYPE_CHECKING:
    import h5py

KIND, SCHEMA = "packed constants", 1
DIGEST = "sha256"
AGAIN = "Write it again with `sartor sparsify-rnn --pack`"

Fact = str | int


@dataclass(frozen=True)
class Entry:
    """What is kept for a function."""

    facts: Mapping[str, Fact]
    arrays: Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Packs:
    """The entries of a file by the names of functions; `subject` is what to call it in a message."""

    subject: str
    entries: Mapping[str, Entry]


def write_packs(
    entries: Mapping[str, Entry], about: Mapping[str, Fact], records: Sequence[Record], target: str | Path
) -> None:
    """Write a pack atomically, with what to tell people about it and the history of the model that it belongs to."""
    import h5py

    buffer = io.BytesIO()
    # Newer formats note the time in groups.
    with h5py.File(buffer, "w", libver="earliest") as file:
        file.attrs.update({"kind": KIND, "schema": SCHEMA, "entries": len(entries), **about})
        for record in records:
            append_hdf5(file, record)
        for name, entry in sorted(entries.items()):
            group = file.create_group(name)
            group.attrs.update({**entry.facts, DIGEST: _digest(entry)})
            for key, array in sorted(entry.arrays.items()):
                group[key] = array
    write_bytes(buffer.getvalue(), target)


def read_packs(path: str | Path) -> Packs:
    """Read a pack whole; raises InputRefusedError for another kind of file, another schema, and damage."""
    subject = str(path)
    with open_hdf5(path) as file:
        if file.attrs.get("kind") != KIND:
            raise InputRefusedError("this is no pack of a model", subject=subject, remedy=AGAIN)
        schema = file.attrs.get("schema")
        if schema != SCHEMA:
            raise InputRefusedError(f"its schema is {schema}, not {SCHEMA}", subject=subject, remedy=AGAIN)
        try:
            entries = {name: _read(group) for name, group in file.items()}
            _require(len(entries) == file.attrs["entries"])
        # h5py maps the failures of the HDF5 library on a damaged file to any of these.
        except (KeyError, OSError, RuntimeError, TypeError, UnicodeDecodeError, ValueError, AttributeError) as error:
            raise damaged("the pack is damaged", subject) from error
    return Packs(subject, entries)


def _read(group: h5py.Group) -> Entry:
    """Read an entry; raises ValueError where it isn't what was written."""
    facts = {name: getattr(value, "item", lambda value=value: value)() for name, value in group.attrs.items()}
    digest = facts.pop(DIGEST)
    entry = Entry(facts, {name: _array(dataset) for name, dataset in group.items()})
    _require(_digest(entry) == digest)
    return entry


def _array(dataset: h5py.Dataset) -> NDArray[Any]:
    # What takes its declared size in the file can't ask for more memory than the file has bytes.
    _require(dataset.chunks is None and dataset.id.get_storage_size() == dataset.nbytes)
    _require(dataset.dtype.kind in "fiu")
    return np.asarray(dataset[()])


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError


def _digest(entry: Entry) -> str:
    digest = hashlib.sha256(json.dumps(dict(entry.facts), sort_keys=True).encode())
    for name, array in sorted(entry.arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
