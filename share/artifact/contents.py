"""The checks of one stored tensor: sizes that add up, and external data that lies where it may."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from sartor.share.errors import InputRefusedError

if TYPE_CHECKING:
    import onnx

AGAIN = "Download, copy or export it again"
"""The remedy for damaged files."""

_MOVE = "Copy the data file next to the model and export or rewrite the model"


@dataclass(frozen=True)
class Stored:
    """What a tensor declares and what it holds, without the numbers themselves.

    `entries` counts the numbers in each typed field that has any; `raw` is the size of raw_data in bytes, None if
    absent; `external` holds the key-value pairs of external data, None if the data is inside.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    entries: Mapping[str, int]
    raw: int | None
    external: Mapping[str, str] | None


@dataclass(frozen=True)
class _Layout:
    bits: int
    field: str
    bits_per_entry: int


def stored_of(tensor: onnx.TensorProto) -> Stored:
    """Describe a parsed tensor."""
    outside = tensor.data_location == tensor.EXTERNAL
    counts = {field: len(getattr(tensor, field)) for field in _TYPED_FIELDS}
    return Stored(
        name=tensor.name,
        dims=tuple(tensor.dims),
        data_type=tensor.data_type,
        entries={field: count for field, count in counts.items() if count},
        raw=len(tensor.raw_data) if tensor.HasField("raw_data") else None,
        external={pair.key: pair.value for pair in tensor.external_data} if outside else None,
    )


def check_stored(tensor: Stored, folder: Path | None, subject: str) -> Path | None:
    """Return the file that holds a tensor's external data, None if it is inside.

    `folder` is where the model lies, None for standard input. Raises InputRefusedError.
    """
    where = f"tensor {quote(tensor.name)}"
    _check_dims(tensor.dims, where, subject)
    layout = _layout(tensor.data_type)
    if layout is None:
        raise damaged(f"{where} has the unknown element type {tensor.data_type}", subject)
    count = math.prod(tensor.dims)
    if tensor.external is None:
        _check_inside(tensor, layout, count, where, subject)
        return None
    if layout.field == "string_data":
        raise damaged(f"{where} keeps strings in an external file", subject)
    if folder is None:
        raise InputRefusedError(
            "the model keeps its data in external files, which a pipe can't carry",
            subject=subject,
            remedy="Name the model's file",
        )
    return _check_outside(tensor, -(-count * layout.bits // 8), folder, where, subject)


def damaged(reason: str, subject: str) -> InputRefusedError:
    """Make the refusal of a file whose content contradicts itself."""
    return InputRefusedError(reason, subject=subject, remedy=AGAIN)


def quote(name: str) -> str:
    """Show a name from a file on one line, cut to a length that people can read."""
    return repr(name if len(name) <= 60 else name[:57] + "...")


_MOST_AXES = 64  # numpy's limit
_MOST_NUMBERS = 1 << 56

_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")

_FIELD_OF = {
    "FLOAT": "float_data",
    "COMPLEX64": "float_data",
    "DOUBLE": "double_data",
    "COMPLEX128": "double_data",
    "INT64": "int64_data",
    "UINT32": "uint64_data",
    "UINT64": "uint64_data",
}


def _check_dims(dims: tuple[int, ...], where: str, subject: str) -> None:
    if any(dim < 0 for dim in dims):
        raise damaged(f"{where} has a negative size, {min(dims)}", subject)
    if len(dims) > _MOST_AXES:
        raise damaged(f"{where} has {len(dims):,} axes", subject)
    # An empty tensor with a huge other size is as impossible for numpy.
    if math.prod(max(dim, 1) for dim in dims) > _MOST_NUMBERS:
        raise damaged(f"{where} declares more numbers than any file can hold", subject)


def _layout(data_type: int) -> _Layout | None:
    import onnx_ir as ir

    try:
        dtype = ir.DataType(data_type)
    except ValueError:
        return None
    if dtype is ir.DataType.UNDEFINED:
        return None
    if dtype is ir.DataType.STRING:
        return _Layout(1, "string_data", 1)
    bits = dtype.bitwidth
    # The parts of a complex number take an entry each; 2- and 4-bit numbers share a byte, 6-bit ones do not.
    bits_per_entry = bits // 2 if dtype.name.startswith("COMPLEX") else {2: 8, 4: 8}.get(bits, bits)
    return _Layout(bits, _FIELD_OF.get(dtype.name, "int32_data"), bits_per_entry)


def _check_inside(tensor: Stored, layout: _Layout, count: int, where: str, subject: str) -> None:
    if tensor.raw is not None:
        needed, held, unit = -(-count * layout.bits // 8), tensor.raw, "bytes"
        if layout.field == "string_data":
            raise damaged(f"{where} keeps strings as raw data", subject)
    else:
        held, unit = tensor.entries.get(layout.field, 0), "entries"
        needed = -(-count * layout.bits // layout.bits_per_entry)
        if tensor.entries.keys() - {layout.field}:
            raise damaged(f"{where} keeps its numbers in a field of another type", subject)
    if needed != held:
        raise damaged(f"{where} declares {needed:,} {unit} and holds {held:,}", subject)


def _check_outside(tensor: Stored, needed: int, folder: Path, where: str, subject: str) -> Path:
    assert tensor.external is not None
    path = _inside(tensor.external.get("location", ""), folder, where, subject)
    size = _size_of(path, where, subject)
    offset = _number(tensor.external, "offset", 0, where, subject)
    length = _number(tensor.external, "length", needed, where, subject)
    if length != needed:
        raise damaged(f"{where} declares {needed:,} bytes and its external data {length:,}", subject)
    if offset + length > size:
        raise damaged(
            f"{where} needs {offset + length:,} bytes of its data file {quote(path.name)}, which has {size:,}", subject
        )
    return path


def _number(external: Mapping[str, str], key: str, default: int, where: str, subject: str) -> int:
    text = external.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise damaged(f"{where} has the external data {key} {quote(text)}, which is not a size", subject)
    return int(text)


def _inside(location: str, folder: Path, where: str, subject: str) -> Path:
    """Return the path of a data file; refuse a location that could leave the model's folder."""
    parts = PurePosixPath(location).parts
    if location.startswith("/") or PureWindowsPath(location).is_absolute():
        reason = "as an absolute path"
    elif ".." in parts or ".." in PureWindowsPath(location).parts:
        reason = "outside the model's folder"
    elif not parts or "\0" in location:
        reason = "without a file name"
    else:
        _refuse_links(folder, parts, location, where, subject)
        return folder.joinpath(*parts)
    raise InputRefusedError(f"{where} names its data file {quote(location)} {reason}", subject=subject, remedy=_MOVE)


def _refuse_links(folder: Path, parts: tuple[str, ...], location: str, where: str, subject: str) -> None:
    for depth in range(1, len(parts) + 1):
        if os.path.islink(folder.joinpath(*parts[:depth])):
            raise InputRefusedError(
                f"{where} reaches its data file {quote(location)} through a symbolic link",
                subject=subject,
                remedy="Replace the link by the file itself",
            )


def _size_of(path: Path, where: str, subject: str) -> int:
    try:
        status = os.lstat(path)
    except OSError:
        raise InputRefusedError(
            f"{where} needs the data file {quote(path.name)}, which is not there",
            subject=subject,
            remedy="Put it next to the model",
        ) from None
    if not stat.S_ISREG(status.st_mode):
        raise damaged(f"{where} needs the data file {quote(path.name)}, which is not a file", subject)
    if status.st_nlink > 1:
        raise InputRefusedError(
            f"{where} needs the data file {quote(path.name)}, which has {status.st_nlink} hard links",
            subject=subject,
            remedy="Replace it by a copy of its own",
        )
    return status.st_size
