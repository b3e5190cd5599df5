"""Hand models that are not files to onnxruntime."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from sartor.share.errors import UnavailableError

_LARGEST = (1 << 31) - 1


def model_of_bytes(data: bytes) -> ir.Model:
    """Parse a model; raises google.protobuf.message.DecodeError."""
    import onnx

    return ir.serde.deserialize_model(onnx.ModelProto.FromString(data))


def serialized(model: ir.Model) -> tuple[bytes, Path | None]:
    """Return the bytes of a model and the folder of its external data, if it has any; raises UnavailableError."""
    folders = {
        Path(os.path.realpath(tensor.base_dir)) for tensor in _tensors(model) if isinstance(tensor, ir.ExternalTensor)
    }
    if len(folders) > 1:
        raise _refusal(model, "the external data lies in several folders")
    inside = sum(tensor.nbytes for tensor in _tensors(model) if not isinstance(tensor, ir.ExternalTensor))
    if inside > _LARGEST:
        raise _refusal(model, "it holds more than 2 GiB in memory")
    return ir.serde.serialize_model(model).SerializeToString(), next(iter(folders), None)


def _refusal(model: ir.Model, reason: str) -> UnavailableError:
    """Return the error for a model that only a file can carry."""
    return UnavailableError(reason, subject=model.graph.name or "model", remedy="Write it to a file and load that")


def _tensors(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Yield the initializers of all graphs."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value
