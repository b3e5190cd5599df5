"""Writing of models: small ones as one file, large ones with one content-addressed data file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sartor.share.artifact.read import LARGEST_MODEL
from sartor.share.artifact.structure import tensors_of
from sartor.share.artifact.write import (
    STDOUT_SUBJECT,
    Staged,
    commit,
    is_special,
    refuse_terminal,
    remove_stale,
    resolve_target,
    staged,
    write_pieces,
)
from sartor.share.errors import OutputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

EXTERNAL_ABOVE = 1 << 30
"""The bytes of initialisers above which they go to an external file."""

_INLINE_BELOW = 1024
# Tags of embedded messages (field number times 8, plus 2): ModelProto.graph and GraphProto.initializer.
_GRAPH, _INITIALISER = 7 << 3 | 2, 5 << 3 | 2
# Readers map the file page by page.
_ALIGNMENT = 4096


@dataclass(frozen=True, eq=False)
class _Slot:
    """A place in a model that holds a tensor, and how to put another one there."""

    tensor: ir.TensorProtocol
    is_initialiser: bool
    put: Callable[[ir.TensorProtocol], None]


@dataclass(frozen=True)
class _Placed:
    """Where a tensor lies in the data file, in bytes."""

    slot: _Slot
    offset: int
    length: int


def write_model(model: ir.Model, target: str | Path, *, external_above: int = EXTERNAL_ABOVE) -> None:
    """Write a model atomically to a file, or to standard output for "-"; the same model gives the same bytes.

    Initialisers of more than `external_above` bytes go to `{stem}.{12 hex of sha256}.data` beside it, everything else
    inside. Raises OutputError, WriteError, and UsageError if standard output is a terminal.
    """
    slots = list(_slots(model))
    outside = _to_place_outside(slots, external_above)
    if not outside:
        with _inlined(slots):
            write_pieces(_serialise(model, str(target)), target)
        return
    if str(target) == "-":
        refuse_terminal()
        raise _needs_a_file(STDOUT_SUBJECT)
    final = resolve_target(Path(target))
    if is_special(final):
        raise _needs_a_file(str(target))
    _write_with_data(model, slots, outside, final, str(target))


def _write_with_data(model: ir.Model, slots: list[_Slot], outside: list[_Slot], final: Path, subject: str) -> None:
    """Stage both files, then rename the data before the model, so that a model never lacks its data."""
    name = f"{final.stem}.data"
    apart = set(outside)
    inside = [slot for slot in slots if slot not in apart]
    with staged(final.parent, name, subject) as data, staged(final.parent, final.name, subject) as part:
        placed, digest = _stream(outside, data.file)
        data_path = final.with_name(f"{final.stem}.{digest[:12]}.data")
        with _inlined(inside), _moved(placed, data_path.name):
            part.file.writelines(_serialise(model, subject))
        part.file.flush()
        _commit_both(data, data_path, part, final)
    remove_stale(final.parent, name)
    remove_stale(final.parent, final.name)


def _commit_both(data: Staged, data_path: Path, part: Staged, final: Path) -> None:
    existed = data_path.exists()
    try:
        commit(data, data_path)
        commit(part, final)
    except BaseException:
        # A data file that was there before belongs to another model, or to the old one.
        if not existed and not _is_renamed(part):
            data_path.unlink(missing_ok=True)
        raise


def _is_renamed(part: Staged) -> bool:
    return not os.path.exists(part.path)


def _to_place_outside(slots: Sequence[_Slot], external_above: int) -> list[_Slot]:
    import onnx_ir as ir

    initialisers = [slot for slot in slots if slot.is_initialiser and slot.tensor.dtype != ir.DataType.STRING]
    if sum(slot.tensor.nbytes for slot in initialisers) <= external_above:
        return []
    return [slot for slot in initialisers if slot.tensor.nbytes >= _INLINE_BELOW]


def _stream(slots: Sequence[_Slot], file: BinaryIO) -> tuple[list[_Placed], str]:
    """Write each distinct tensor once; return where they lie and the sha256 of the file."""
    sink = _HashingFile(file)
    spans: dict[Hashable, tuple[int, int]] = {}
    placed: list[_Placed] = []
    for slot in slots:
        identity = _identity(slot.tensor)
        if identity not in spans:
            sink.write(bytes(-sink.size % _ALIGNMENT))
            offset = sink.size
            _write_tensor(slot.tensor, sink)
            spans[identity] = (offset, sink.size - offset)
        placed.append(_Placed(slot, *spans[identity]))
    return placed, sink.digest.hexdigest()


def _identity(tensor: ir.TensorProtocol) -> Hashable:
    """Tell tensors apart that may share their data, as tied weights do."""
    import onnx_ir as ir

    if isinstance(tensor, ir.ExternalTensor):
        return tensor.path, tensor.offset or 0, tensor.nbytes
    return id(tensor)


class _HashingFile:
    """A file that only takes bytes, and knows their digest and count."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of the bytes and return how many."""
        self._file.write(data)
        self.digest.update(data)
        size = len(data) if isinstance(data, bytes) else data.nbytes
        self.size += size
        return size


def _write_tensor(tensor: ir.TensorProtocol, sink: _HashingFile) -> None:
    import onnx_ir as ir

    # An external tensor copies itself in pieces; the others are in memory anyway.
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(sink)
    else:
        sink.write(tensor.tobytes())


@contextmanager
def _inlined(slots: Sequence[_Slot]) -> Iterator[None]:
    """Hold external data in memory for the block, so that the model is written as one file."""
    import onnx_ir as ir

    external = [slot for slot in slots if isinstance(slot.tensor, ir.ExternalTensor)]
    with _replaced(external, [_in_memory(slot.tensor) for slot in external]):
        yield


@contextmanager
def _moved(placed: Sequence[_Placed], location: str) -> Iterator[None]:
    """Let the model refer to the data file for the block."""
    import onnx_ir as ir

    moved = [
        ir.ExternalTensor(
            location,
            place.offset,
            place.length,
            place.slot.tensor.dtype,
            shape=ir.Shape(place.slot.tensor.shape.numpy()),
            name=place.slot.tensor.name or "",
            doc_string=place.slot.tensor.doc_string,
            metadata_props=dict(place.slot.tensor.metadata_props),
        )
        for place in placed
    ]
    with _replaced([place.slot for place in placed], moved):
        yield


@contextmanager
def _replaced(slots: Sequence[_Slot], tensors: Sequence[ir.TensorProtocol]) -> Iterator[None]:
    """Put other tensors into a model for the block; the caller's model is the same afterwards."""
    try:
        for slot, tensor in zip(slots, tensors, strict=True):
            slot.put(tensor)
        yield
    finally:
        for slot in slots:
            slot.put(slot.tensor)


def _in_memory(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    import onnx
    import onnx_ir as ir

    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        raw_data=tensor.tobytes() if tensor.size else b"",
        doc_string=tensor.doc_string or None,
    )
    for key, value in tensor.metadata_props.items():
        proto.metadata_props.add(key=key, value=value)
    return ir.serde.TensorProtoTensor(proto)


def _serialise(model: ir.Model, target: str) -> list[bytes]:
    """Return the bytes of a model in pieces; raise OutputError if they exceed what protobuf can hold.

    Fields of a message may come in any order, so each initialiser is a piece behind the rest of the graph: one buffer
    for all would be grown, and copied, again and again.
    """
    import onnx_ir as ir
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    proto = ir.to_proto(model)
    _drop_repeated_metadata(proto)
    try:
        tensors = [tensor.SerializeToString(deterministic=True) for tensor in proto.graph.initializer]
        del proto.graph.initializer[:]
        graph = proto.graph.SerializeToString(deterministic=True)
        proto.ClearField("graph")
        head = proto.SerializeToString(deterministic=True)
    except EncodeError:
        raise _too_large(target) from None
    heads = [_header(_INITIALISER, tensor) for tensor in tensors]
    inside = len(graph) + sum(map(len, heads)) + sum(map(len, tensors))
    pieces = [
        head,
        _varint(_GRAPH),
        _varint(inside),
        graph,
        *(p for pair in zip(heads, tensors, strict=True) for p in pair),
    ]
    if sum(map(len, pieces)) > LARGEST_MODEL:
        raise _too_large(target)
    return pieces


def _header(tag: int, data: bytes) -> bytes:
    """Return what stands before an embedded message: its tag and its length."""
    return _varint(tag) + _varint(len(data))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _too_large(target: str) -> OutputError:
    return OutputError(
        "the model without its initialisers is larger than 2 GiB, which ONNX can't store",
        subject=STDOUT_SUBJECT if target == "-" else target,
        remedy="Turn its large constants into initialisers",
    )


def _drop_repeated_metadata(proto: onnx.ModelProto) -> None:
    """Keep one entry a key: onnx_ir copies a tensor's entries and then adds them again, so that files would grow."""
    for tensor in tensors_of(proto):
        if len(tensor.metadata_props) > 1:
            unique = {entry.key: entry.value for entry in tensor.metadata_props}
            del tensor.metadata_props[:]
            for key in sorted(unique):
                tensor.metadata_props.add(key=key, value=unique[key])


def _needs_a_file(subject: str) -> OutputError:
    return OutputError(
        "the model is so large that its data needs a file of its own", subject=subject, remedy="Name a file with -o"
    )


def _slots(model: ir.Model) -> Iterator[_Slot]:
    """Yield the places of all tensors, in the order of the graph."""
    seen: set[int] = set()
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for each in (graph, *graph.subgraphs()):
            if id(each) not in seen:
                seen.add(id(each))
                yield from _slots_of_graph(each)


def _slots_of_graph(graph: ir.Graph) -> Iterator[_Slot]:
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield _Slot(value.const_value, True, _value_setter(value))
    for node in graph:
        for attribute in node.attributes.values():
            yield from _slots_of_attribute(node, attribute)


def _slots_of_attribute(node: ir.Node, attribute: ir.Attr) -> Iterator[_Slot]:
    import onnx_ir as ir

    if attribute.is_ref() or attribute.value is None:
        return
    if attribute.type == ir.AttributeType.TENSOR:
        yield _Slot(attribute.value, False, lambda tensor: _set_attribute(node, attribute, tensor))
    elif attribute.type == ir.AttributeType.TENSORS:
        tensors = list(attribute.value)
        for index, tensor in enumerate(tensors):
            yield _Slot(tensor, False, _list_setter(node, attribute, tensors, index))


def _value_setter(value: ir.Value) -> Callable[[ir.TensorProtocol], None]:
    def put(tensor: ir.TensorProtocol) -> None:
        value.const_value = tensor

    return put


def _set_attribute(node: ir.Node, attribute: ir.Attr, tensor: ir.TensorProtocol) -> None:
    import onnx_ir as ir

    node.attributes[attribute.name] = ir.AttrTensor(attribute.name, tensor, doc_string=attribute.doc_string)


def _list_setter(
    node: ir.Node, attribute: ir.Attr, tensors: list[ir.TensorProtocol], index: int
) -> Callable[[ir.TensorProtocol], None]:
    import onnx_ir as ir

    def put(tensor: ir.TensorProtocol) -> None:
        tensors[index] = tensor
        node.attributes[attribute.name] = ir.AttrTensors(attribute.name, tensors, doc_string=attribute.doc_string)

    return put
