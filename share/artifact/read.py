"""Guarded reading of models: everything that is damaged, unsafe or foreign is refused by name."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sartor.share.artifact.contents import AGAIN, check_stored, damaged, stored_of
from sartor.share.artifact.framing import FramingError, TruncatedError, check_model_framing, source_of_bytes
from sartor.share.artifact.model import Model
from sartor.share.artifact.sniff import (
    HEAD_SIZE,
    Kind,
    kind_of,
    refuse_device,
    refuse_unless,
    status_of,
    unreadable,
)
from sartor.share.artifact.structure import check_graphs, check_texts, check_versions, tensors_of
from sartor.share.errors import InputRefusedError, UsageError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

STDIN_SUBJECT = "standard input"

LARGEST_MODEL = (1 << 31) - 1
"""The bytes that a protobuf message may have."""

_PIECE = 1 << 20


def read_model(source: str | Path, piped: bytes | None = None) -> Model:
    """Read an ONNX model from a file, or from standard input for "-"; external data stays memory-mapped.

    `piped` is what standard input held, where somebody has read it already (`read_stdin`). Raises InputRefusedError,
    and UsageError if standard input is a terminal.
    """
    path = None if str(source) == "-" else Path(source)
    subject = STDIN_SUBJECT if path is None else str(path)
    if path is not None:
        data = _from_file(path)
    else:
        data = read_stdin() if piped is None else piped
    folder = None if path is None else path.parent
    proto = parse_model(data, subject)
    data_files = _check(proto, folder, subject)
    return Model(
        ir=_deserialise(proto, folder, subject),
        source=str(source),
        path=path,
        file_sha256=hashlib.sha256(data).hexdigest(),
        data_files=data_files,
    )


def parse_model(data: bytes, subject: str) -> onnx.ModelProto:
    """Parse the bytes of a model; raise InputRefusedError if they are cut short or damaged."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    refuse_framing(data, subject)
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError:
        raise damaged("the model is damaged", subject) from None
    return proto


def refuse_framing(data: bytes, subject: str) -> None:
    """Raise InputRefusedError unless the bytes are those of a whole model."""
    refuse_unless(kind_of(data[:HEAD_SIZE]), Kind.ONNX, subject)
    try:
        check_model_framing(source_of_bytes(data))
    except FramingError as error:
        raise framing_refusal(error, len(data), subject) from None


def framing_refusal(error: FramingError, size: int, subject: str) -> InputRefusedError:
    """Make the refusal of a model whose bytes are cut short or damaged."""
    if isinstance(error, TruncatedError):
        return damaged(f"the model is cut short, {size:,} bytes of at least {error.needed:,} are here", subject)
    return damaged("the model is damaged", subject)


def read_stdin(others: Collection[Kind] = ()) -> bytes:
    """Return all of standard input, which is a model or of one of these other kinds.

    Raises InputRefusedError, and UsageError if it is a terminal.
    """
    # Python sets stdin to None when the shell closed it (`<&-`).
    if sys.stdin is None:
        raise InputRefusedError("it is closed", subject=STDIN_SUBJECT, remedy="Pipe a model in, or name a file")
    if sys.stdin.isatty():
        raise UsageError("it is a terminal", subject=STDIN_SUBJECT, remedy="Pipe a model in, or name a file")
    try:
        return _whole(sys.stdin.buffer, STDIN_SUBJECT, others)
    except OSError as error:
        raise unreadable(STDIN_SUBJECT, error) from error


def _from_file(path: Path) -> bytes:
    subject = str(path)
    status = status_of(path)
    if stat.S_ISDIR(status.st_mode):
        kind = Kind.RUN_DIRECTORY if os.path.exists(path / "manifest.json") else Kind.FOLDER
        refuse_unless(kind, Kind.ONNX, subject)
    refuse_device(path)
    try:
        with path.open("rb") as file:
            return _whole(file, subject)
    except OSError as error:
        raise unreadable(subject, error) from error


def _whole(file: BinaryIO, subject: str, others: Collection[Kind] = ()) -> bytes:
    """Read everything, but no more than a model can have, and nothing more if the head tells of something else."""
    head = file.read(HEAD_SIZE)
    kind = kind_of(head)
    if kind not in others:
        refuse_unless(kind, Kind.ONNX, subject)
    if file.seekable():
        _refuse_large(file.seek(0, io.SEEK_END), subject)
        file.seek(0)
        return file.read()
    pieces = [head]
    size = len(head)
    while piece := file.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        _refuse_large(size, subject)
    return b"".join(pieces)


def _refuse_large(size: int, subject: str) -> None:
    if size > LARGEST_MODEL:
        raise InputRefusedError(
            "the model is larger than 2 GiB, which no ONNX file can be",
            subject=subject,
            remedy="Export it with external data",
        )


def _check(proto: onnx.ModelProto, folder: Path | None, subject: str) -> tuple[Path, ...]:
    """Run every check; return the external data files in order of name."""
    check_texts(proto, subject)
    check_versions(proto, subject)
    check_graphs(proto, subject)
    found = {check_stored(stored_of(tensor), folder, subject) for tensor in tensors_of(proto)}
    return tuple(sorted(path for path in found if path is not None))


def _deserialise(proto: onnx.ModelProto, folder: Path | None, subject: str) -> ir.Model:
    import onnx_ir as ir

    try:
        model = ir.serde.deserialize_model(proto)
    # onnx_ir has no common base for what it raises on contents that the checks above do not cover.
    except Exception as error:
        reason = _first_line(error)
        raise InputRefusedError(f"the model can't be understood ({reason})", subject=subject, remedy=AGAIN) from error
    if folder is not None:
        for graph in (model.graph, *(function.graph for function in model.functions.values())):
            ir.external_data.set_base_dir(graph, folder)
    return model


def _first_line(error: BaseException) -> str:
    """Return the first line of the error at the root, which names the trouble where the outer ones name the place."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:120].rstrip(".")
