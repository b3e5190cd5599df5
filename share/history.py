"""The history of an artifact: one record by every writer, the same bytes for the same work."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sartor import __version__
from sartor.share.artifact import atomic, read_manifest
from sartor.share.errors import InputRefusedError

if TYPE_CHECKING:
    import h5py
    import onnx_ir as ir

KEY = "sartor.history"
"""Where ONNX metadata, HDF5 root attributes and safetensors metadata hold it."""

MANIFEST_KEY = "history"


@dataclass(frozen=True)
class Record:
    """What one writer did: no time, host or absolute path; `previous` is the id of the record before it."""

    tool: str
    version: str
    argv: tuple[str, ...]
    input_sha256: tuple[str, ...]
    parameters: Mapping[str, Any]
    seed: int | None
    previous: str | None

    @property
    def id(self) -> str:
        """Return the first 16 hex digits of the sha256 over the canonical JSON."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()[:16]


def make_record(
    tool: str,
    argv: Sequence[str],
    inputs: Sequence[str],
    parameters: Mapping[str, Any],
    seed: int | None,
    previous: str | None,
) -> Record:
    """Make a record from a command line, the sha256 of each input and the effective parameters.

    Raises TypeError or ValueError for parameters that JSON can't hold.
    """
    return Record(
        tool=tool,
        version=__version__,
        argv=tuple(map(_cut, argv)),
        input_sha256=tuple(inputs),
        # Through JSON, so that the record equals the one that is read back.
        parameters=json.loads(_canonical(dict(parameters))),
        seed=seed,
        previous=previous,
    )


def last_id(records: Sequence[Record]) -> str | None:
    """Return what the next record names as its previous one."""
    return records[-1].id if records else None


def read_onnx(model: ir.Model, subject: str = "model") -> list[Record]:
    """Return the history of a model; raise InputRefusedError if it is damaged."""
    return _parse(model.metadata_props.get(KEY), subject)


def append_onnx(model: ir.Model, record: Record, subject: str = "model") -> None:
    """Append a record to the metadata of a model."""
    model.metadata_props[KEY] = _text([*read_onnx(model, subject), record])


def read_hdf5(file: h5py.File, subject: str = "") -> list[Record]:
    """Return the history of an open HDF5 file; raise InputRefusedError if it is damaged."""
    return _parse(file.attrs.get(KEY), subject or os.fsdecode(file.filename))


def append_hdf5(file: h5py.File, record: Record, subject: str = "") -> None:
    """Append a record to the root attributes of an open HDF5 file."""
    file.attrs[KEY] = _text([*read_hdf5(file, subject), record])


def read_safetensors(metadata: Mapping[str, str], subject: str = "safetensors file") -> list[Record]:
    """Return the history in a safetensors `__metadata__`; raise InputRefusedError if it is damaged."""
    return _parse(metadata.get(KEY), subject)


def append_safetensors(
    metadata: Mapping[str, str], record: Record, subject: str = "safetensors file"
) -> dict[str, str]:
    """Return a safetensors `__metadata__` with a record appended."""
    return {**metadata, KEY: _text([*read_safetensors(metadata, subject), record])}


def read_run_directory(folder: str | Path) -> list[Record]:
    """Return the history in the manifest of a run directory; raise InputRefusedError if it is damaged."""
    return _records(read_manifest(folder).get(MANIFEST_KEY, []), str(folder))


def append_run_directory(folder: str | Path, record: Record) -> None:
    """Append a record to the manifest of a run directory, atomically."""
    manifest = read_manifest(folder)
    records = _records(manifest.get(MANIFEST_KEY, []), str(folder))
    manifest[MANIFEST_KEY] = [_entry(each) for each in _linked([*records, record])]
    with atomic(Path(folder, "manifest.json")) as file:
        file.write(json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _cut(argument: str) -> str:
    """Cut paths to basenames: `/a/b.onnx`, `--data=/a/b.h5` and `-o/a/b.onnx`."""
    if "/" not in argument:
        return argument
    head = ""
    if argument.startswith("--"):
        head, equals, argument = argument.partition("=")
        head += equals
    elif argument.startswith("-"):
        head, argument = argument[:2], argument[2:]
    return head + os.path.basename(argument.rstrip("/"))


def _linked(records: list[Record]) -> list[Record]:
    before = last_id(records[:-1])
    assert records[-1].previous == before, f"the record must name {before!r} as its previous one"
    return records


def _text(records: list[Record]) -> str:
    return _canonical([_entry(record) for record in _linked(records)])


def _entry(record: Record) -> dict[str, Any]:
    return {"id": record.id, **asdict(record)}


def _parse(text: Any, subject: str) -> list[Record]:
    if text is None:
        return []
    try:
        return _records(json.loads(text), subject)
    except (TypeError, ValueError, RecursionError):
        raise _damaged("is not JSON", subject) from None


def _records(entries: Any, subject: str) -> list[Record]:
    if not isinstance(entries, list):
        raise _damaged("is not a list", subject)
    records: list[Record] = []
    for entry in entries:
        record = _record(entry)
        if record is None:
            raise _damaged(f"has a damaged record at position {len(records) + 1}", subject)
        if record.previous != last_id(records):
            raise _damaged(f"is broken before position {len(records) + 1}", subject)
        records.append(record)
    return records


def _record(entry: Any) -> Record | None:
    """Return the record in a JSON value, None unless it is whole and its id is its own."""
    if not isinstance(entry, dict) or entry.keys() != {"id", *(field.name for field in fields(Record))}:
        return None
    lists = ([entry["tool"], entry["version"]], entry["argv"], entry["input_sha256"])
    optional = isinstance(entry["previous"], str | None) and type(entry["seed"]) in (int, type(None))
    if not (isinstance(entry["parameters"], dict) and all(map(_is_strings, lists)) and optional):
        return None
    values: dict[str, Any] = {key: value for key, value in entry.items() if key != "id"}
    record = Record(**{**values, "argv": tuple(entry["argv"]), "input_sha256": tuple(entry["input_sha256"])})
    return record if record.id == entry["id"] else None


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _damaged(reason: str, subject: str) -> InputRefusedError:
    return InputRefusedError(
        f"the history in it {reason}", subject=subject, remedy="Pass --no-history to go on without it"
    )
