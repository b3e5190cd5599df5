"""The header of a safetensors file, read and checked without its numbers.

Source: the format's description in the safetensors repository (README.md, "Format").
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sartor.share.artifact.contents import damaged, quote
from sartor.share.artifact.sniff import Kind, identify, refuse_unless, unreadable

_LARGEST_HEADER = 100_000_000

_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: element type as the file spells it, shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """The `__metadata__` of a file and its tensors by name."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]


def read_safetensors_header(path: str | Path) -> SafetensorsHeader:
    """Read the header of a safetensors file; raise InputRefusedError if it does not describe the file."""
    subject = str(path)
    refuse_unless(identify(path), Kind.SAFETENSORS, subject)
    try:
        with open(path, "rb") as file:
            return _read(file, os.fstat(file.fileno()).st_size, subject)
    except OSError as error:
        raise unreadable(path, error) from error


def check_safetensors(data: bytes, subject: str) -> SafetensorsHeader:
    """Read the header of a safetensors file in memory; raise InputRefusedError if it does not describe the file."""
    return _read(io.BytesIO(data), len(data), subject)


def _read(file: BinaryIO, file_size: int, subject: str) -> SafetensorsHeader:
    header_size = int.from_bytes(file.read(8), "little")
    if header_size > _LARGEST_HEADER:
        raise damaged(f"the header claims {header_size:,} bytes", subject)
    _refuse_short(file_size, 8 + header_size, subject)
    return _header(file.read(header_size), 8 + header_size, file_size, subject)


def _header(text: bytes, data_begin: int, file_size: int, subject: str) -> SafetensorsHeader:
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise damaged("the header is not JSON", subject) from None
    metadata = content.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise damaged("the metadata in the header is not text", subject)
    tensors = {name: _entry(name, entry, data_begin, subject) for name, entry in content.items()}
    _check_spans(tensors, data_begin, file_size, subject)
    return SafetensorsHeader(metadata, tensors)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _entry(name: str, entry: Any, data_begin: int, subject: str) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sane = dtype in _BITS and all(type(size) is int and size >= 0 for size in (*shape, begin, end))
    except (KeyError, TypeError, ValueError):
        sane = False
    if not sane:
        raise damaged(f"tensor {quote(name)} is not described as it should be", subject)
    needed = math.prod(shape) * _BITS[dtype]
    if needed != 8 * (end - begin):
        raise damaged(f"tensor {quote(name)} has other bytes than its type and shape need", subject)
    return TensorEntry(dtype, shape, data_begin + begin, data_begin + end)


def _check_spans(tensors: Mapping[str, TensorEntry], data_begin: int, file_size: int, subject: str) -> None:
    """Refuse tensors that overlap, leave gaps, or do not end where the file ends."""
    at = data_begin
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != at:
            raise damaged(f"tensor {quote(name)} does not begin where the one before it ends", subject)
        at = entry.end
    _refuse_short(file_size, at, subject)
    if file_size > at:
        raise damaged(f"the file has {file_size - at:,} bytes after its last tensor", subject)


def _refuse_short(size: int, needed: int, subject: str) -> None:
    if size < needed:
        raise damaged(f"the file is cut short, {size:,} bytes of {needed:,} are here", subject)
