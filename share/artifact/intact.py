"""The cheap check whether a file is intact: headers and framing, never the weights."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sartor.share.artifact.contents import Stored, check_stored, damaged
from sartor.share.artifact.framing import (
    BYTES,
    VARINT,
    Field,
    FramingError,
    Source,
    check_model_framing,
    fields,
    source_of_file,
)
from sartor.share.artifact.read import framing_refusal
from sartor.share.artifact.safetensors_header import read_safetensors_header
from sartor.share.artifact.sniff import Kind, identify, refuse_unless, unreadable
from sartor.share.errors import InputRefusedError

MANIFEST = "manifest.json"

_GRAPH, _OPSET_IMPORT = 7, 8
_INITIALISER = 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_TYPED_DATA = {
    4: "float_data",
    5: "int32_data",
    6: "string_data",
    7: "int64_data",
    10: "double_data",
    11: "uint64_data",
}


def quickcheck(path: str | Path) -> str | None:
    """Return None for an intact artifact, else the reason in one line."""
    try:
        _check(path)
    except InputRefusedError as error:
        return error.reason
    return None


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read the manifest of a run directory; raise InputRefusedError if it is damaged."""
    path = os.path.join(folder, MANIFEST)
    try:
        with open(path, "rb") as file:
            content = json.load(file)
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError):
        raise damaged("the manifest is not JSON", path) from None
    if not isinstance(content, dict):
        raise damaged("the manifest is not a JSON object", path)
    return content


def _check(path: str | Path) -> None:
    kind = identify(path)
    if kind is Kind.RUN_DIRECTORY:
        _check_run_directory(Path(path))
    elif kind is Kind.HDF5:
        _check_hdf5(path)
    elif kind is Kind.SAFETENSORS:
        read_safetensors_header(path)
    else:
        refuse_unless(kind, Kind.ONNX, str(path))
        _check_model(Path(path))


def _check_hdf5(path: str | Path) -> None:
    """Check an HDF5 file in a process of its own, which may crash."""
    command = [sys.executable, "-P", "-m", "sartor.share.artifact.hdf5_probe", os.fspath(path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    if done.returncode != 0:
        raise damaged(done.stdout.strip() or "the HDF5 file is damaged", str(path))


def _check_run_directory(folder: Path) -> None:
    read_manifest(folder)
    for path in sorted(folder.iterdir()):
        if path.suffix in (".onnx", ".h5", ".hdf5", ".safetensors"):
            reason = quickcheck(path)
            if reason is not None:
                raise damaged(f"{path.name}: {reason}", str(folder))


def _check_model(path: Path) -> None:
    try:
        with path.open("rb") as file:
            source = source_of_file(file.fileno())
            try:
                check_model_framing(source)
                _check_graph(source, path)
            except FramingError as error:
                raise framing_refusal(error, source.size, str(path)) from None
    except OSError as error:
        raise unreadable(path, error) from error


def _check_graph(source: Source, path: Path) -> None:
    outermost = list(fields(source, 0, source.size))
    graphs = [field for field in outermost if field.number == _GRAPH]
    if not graphs:
        raise damaged("the model has no graph", str(path))
    if all(field.number != _OPSET_IMPORT for field in outermost):
        raise damaged("the model imports no operator set", str(path))
    for graph in graphs:
        for field in _inner(source, graph):
            if field.number == _INITIALISER:
                check_stored(_stored(source, field), path.parent, str(path))


def _stored(source: Source, tensor: Field) -> Stored:
    dims: list[int] = []
    data_type = outside = 0
    name, raw = "", None
    entries: dict[str, int] = {}
    external: dict[str, str] = {}
    for field in _inner(source, tensor):
        if field.number == _DIMS:
            dims.extend(_numbers(source, field))
        elif field.number == _DATA_TYPE:
            data_type = field.value
        elif field.number == _NAME:
            name = _text(source, field)
        elif field.number == _RAW_DATA:
            raw = field.end - field.begin
        elif field.number == _EXTERNAL_DATA:
            external.update([_pair(source, field)])
        elif field.number == _DATA_LOCATION:
            outside = field.value
        elif field.number in _TYPED_DATA:
            title = _TYPED_DATA[field.number]
            entries[title] = entries.get(title, 0) + _count(source, field)
    return Stored(name, tuple(dims), data_type, entries, raw, external if outside == 1 else None)


def _inner(source: Source, field: Field) -> Iterator[Field]:
    if field.wire != BYTES:
        raise FramingError(f"field {field.number} has wire type {field.wire}")
    try:
        yield from fields(source, field.begin, field.end)
    except FramingError as error:
        # What overruns its parent, whose end is in the file, is damage and no truncation.
        raise FramingError(str(error)) from None


def _numbers(source: Source, field: Field) -> list[int]:
    """Return the int64 values of a repeated field, packed or not."""
    if field.wire == VARINT:
        return [_signed(field.value)]
    values: list[int] = []
    value = shift = 0
    for byte in source.read(field.begin, field.end - field.begin):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(_signed(value))
            value = shift = 0
    return values


def _count(source: Source, field: Field) -> int:
    """Count the entries of one occurrence of a typed data field."""
    size = field.end - field.begin
    if field.wire != BYTES or field.number == 6:
        return 1
    if field.number in (4, 10):
        return size // (4 if field.number == 4 else 8)
    return sum(byte < 0x80 for byte in source.read(field.begin, size))


def _signed(value: int) -> int:
    return int(struct.unpack("<q", struct.pack("<Q", value & (1 << 64) - 1))[0])


def _pair(source: Source, field: Field) -> tuple[str, str]:
    texts = {inner.number: _text(source, inner) for inner in _inner(source, field)}
    return texts.get(1, ""), texts.get(2, "")


def _text(source: Source, field: Field) -> str:
    return source.read(field.begin, field.end - field.begin).decode(errors="replace")
