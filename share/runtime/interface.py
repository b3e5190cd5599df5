"""The part of onnxruntime's interface that our own sessions offer: descriptions, metadata, checks of what is fed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from sartor.share.runtime.kernel import Dim, TensorType

Array = npt.NDArray[Any]

_ORT_NAMES = MappingProxyType({"FLOAT": "float", "DOUBLE": "double"})


@dataclass(frozen=True)
class NodeArg:
    """Name, type and shape of an input or output, in onnxruntime's terms."""

    name: str
    type: str
    shape: list[Dim]


@dataclass(frozen=True)
class ModelMetadata:
    """What onnxruntime tells about a model."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


def model_metadata(model: ir.Model) -> ModelMetadata:
    """Return the metadata of a model."""
    graph = model.graph
    return ModelMetadata(
        producer_name=model.producer_name or "",
        graph_name=graph.name or "",
        domain=model.domain or "",
        description=model.doc_string or "",
        graph_description=graph.doc_string or "",
        version=model.model_version or 0,
        custom_metadata_map=dict(model.metadata_props),
    )


def tensor_arg(name: str, type_: TensorType) -> NodeArg:
    """Describe an input or output that is a tensor of known rank."""
    return NodeArg(name, f"tensor({_element(type_.dtype)})", list(type_.shape))


def value_arg(value: ir.Value) -> NodeArg:
    """Describe an input or output of any kind."""
    shape = [dim if isinstance(dim, int) else dim.value for dim in value.shape or ()]
    return NodeArg(str(value.name), _kind(value.type), shape)


def _kind(type_: ir.TypeProtocol | None) -> str:
    if isinstance(type_, ir.SequenceType):
        return f"seq({_kind(type_.elem_type)})"
    if isinstance(type_, ir.OptionalType):
        return f"optional({_kind(type_.elem_type)})"
    assert isinstance(type_, ir.TensorType), "inputs and outputs of a valid model have types"
    return f"tensor({_element(type_.dtype)})"


def _element(dtype: ir.DataType) -> str:
    return _ORT_NAMES.get(dtype.name, dtype.name.lower())


def check_names(
    inputs: Collection[str], outputs: Collection[str], given: Collection[str], asked: Iterable[str]
) -> None:
    """Raise ValueError, as onnxruntime does, for a missing input and for a name that the model lacks."""
    if missing := sorted(set(inputs) - set(given)):
        raise ValueError(f"Required inputs ({missing}) are missing from input feed ({sorted(given)}).")
    if unknown := sorted((set(given) - set(inputs)) | (set(asked) - set(outputs))):
        raise ValueError(f"Unknown inputs or outputs: {unknown}.")


def checked_array(name: str, type_: TensorType, value: object) -> Array:
    """Return an input as a C-contiguous array; raises onnxruntime's InvalidArgument where it doesn't fit."""
    array = contiguous(value)
    if array.dtype != type_.dtype.numpy():
        raise invalid(name, type_, array.dtype, array.shape)
    check_shape(name, type_, array.dtype, array.shape)
    return array


def check_shape(name: str, type_: TensorType, dtype: object, shape: tuple[int, ...]) -> None:
    """Raise onnxruntime's InvalidArgument for a rank or a size that the model does not take."""
    fixed = [(have, want) for have, want in zip(shape, type_.shape, strict=False) if isinstance(want, int)]
    if len(shape) != type_.rank or any(have != want for have, want in fixed):
        raise invalid(name, type_, dtype, shape)


def invalid(name: str, type_: TensorType, dtype: object, shape: tuple[int, ...]) -> Exception:
    """Make the exception that onnxruntime raises for an input that doesn't fit."""
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    made: Exception = InvalidArgument(f"{name}: got {dtype}{shape}, the model takes {type_.dtype}{type_.shape}")
    return made


def contiguous(value: object) -> Array:
    """Return a C-contiguous array of the same rank."""
    array: Array = np.asarray(value, order="C")
    return array
