"""The protobuf wire format, read field by field without decoding the payload (protobuf.dev, "Encoding")."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_HEADER_SIZE = 20  # the longest tag and the longest length, ten bytes each

MODEL_FIELDS = {
    1: VARINT,
    2: BYTES,
    3: BYTES,
    4: BYTES,
    5: VARINT,
    6: BYTES,
    7: BYTES,
    8: BYTES,
    14: BYTES,
    20: BYTES,
    25: BYTES,
    26: BYTES,
}
"""Number and wire type of the fields of onnx.ModelProto."""


class FramingError(Exception):
    """The bytes are not a sequence of protobuf fields."""


class TruncatedError(FramingError):
    """A field needs more bytes than there are; `needed` counts them from the start of the data."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True)
class Source:
    """Bytes at random access: `read(offset, size)` gives them, fewer at the end."""

    size: int
    read: Callable[[int, int], bytes]


@dataclass(frozen=True)
class Field:
    """One field: its number and wire type, where its payload lies, and its value if it is a varint."""

    number: int
    wire: int
    begin: int
    end: int
    value: int


def source_of_bytes(data: bytes) -> Source:
    """Wrap bytes in memory."""
    return Source(len(data), lambda offset, size: data[offset : offset + size])


def source_of_file(descriptor: int) -> Source:
    """Wrap an open regular file."""
    # pread and not mmap: a file that shrinks while it is read must not end in SIGBUS.
    return Source(os.fstat(descriptor).st_size, lambda offset, size: os.pread(descriptor, size, offset))


def fields(source: Source, begin: int, end: int) -> Iterator[Field]:
    """Yield the fields between two offsets; raise FramingError where the bytes stop making sense."""
    at = begin
    while at < end:
        field = _field(source.read(at, min(_HEADER_SIZE, end - at)), at)
        if field.end > end:
            raise TruncatedError(field.end)
        yield field
        at = field.end


def check_model_framing(source: Source) -> None:
    """Walk the outermost fields of a model; raise FramingError if they are not those of onnx.ModelProto."""
    for field in fields(source, 0, source.size):
        expected = MODEL_FIELDS.get(field.number)
        if expected is not None and expected != field.wire:
            raise FramingError(f"field {field.number} has wire type {field.wire}")


def starts_like_a_model(head: bytes) -> bool:
    """Tell whether the first two fields are fields of onnx.ModelProto, as far as `head` shows them."""
    at = 0
    for _ in range(2):
        if at >= len(head):
            return at > 0
        try:
            field = _field(head[at : at + _HEADER_SIZE], at)
        except TruncatedError:
            return True
        except FramingError:
            return False
        if MODEL_FIELDS.get(field.number) != field.wire:
            return False
        at = field.end
    return True


def _field(head: bytes, at: int) -> Field:
    tag, used = _varint(head, 0, at)
    number, wire = tag >> 3, tag & 7
    if number == 0 or number >= 1 << 29 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
        raise FramingError(f"field {number} has wire type {wire}")
    if wire == VARINT:
        value, used = _varint(head, used, at)
        return Field(number, wire, at + used, at + used, value)
    if wire == BYTES:
        length, used = _varint(head, used, at)
    else:
        length = _FIXED_SIZES[wire]
    return Field(number, wire, at + used, at + used + length, 0)


def _varint(head: bytes, start: int, at: int) -> tuple[int, int]:
    value = 0
    for index in range(start, start + 10):
        if index >= len(head):
            raise TruncatedError(at + index + 1)
        value |= (head[index] & 0x7F) << 7 * (index - start)
        if head[index] < 0x80:
            return value, index + 1
    raise FramingError("a number is longer than ten bytes")
