"""Count the zeros among the weights of a model, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Zeros:
    """How many elements of a weight are zero."""

    name: str
    rank: int
    elements: int
    zeros: int

    @property
    def fraction(self) -> float:
        """Return the share of zeros; an empty weight has none."""
        return self.zeros / self.elements if self.elements else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return the counts as the JSON contracts spell them."""
        return {"name": self.name, **counts_json(self.elements, self.zeros)}


def counts_json(elements: int, zeros: int) -> dict[str, Any]:
    """Return counts with the fraction, rounded to six places."""
    return {"elements": elements, "zeros": zeros, "fraction": round(zeros / elements, 6) if elements else 0.0}


def count_zeros(model: ir.Model) -> tuple[Zeros, ...]:
    """Count the zeros of every floating-point or quantised initialiser of all graphs; -0.0 is one."""
    return tuple(
        Zeros(str(value.name), len(tensor.shape), tensor.size, sum(_count(chunk) for chunk in _chunks(tensor)))
        for graph in model.graphs()
        for value in graph.initializers.values()
        if (tensor := value.const_value) is not None and _is_weight(tensor)
    )


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    # Wider integers are shapes and indices.
    return tensor.dtype.is_floating_point() or (tensor.dtype.is_integer() and tensor.dtype.bitwidth <= 8)


def _count(chunk: NDArray[Any]) -> int:
    return int(chunk.size - np.count_nonzero(chunk))


def _chunks(tensor: ir.TensorProtocol) -> Iterator[NDArray[Any]]:
    """Yield the elements in pieces; external data is read, not mapped, so that it does not stay in memory."""
    if isinstance(tensor, ir.ExternalTensor) and tensor.dtype.bitwidth >= 8:
        yield from _external_chunks(tensor)
        return
    flat = tensor.numpy().reshape(-1)
    step = max(1, _CHUNK_BYTES // max(1, flat.itemsize))
    for start in range(0, flat.size, step):
        yield flat[start : start + step]


def _external_chunks(tensor: ir.ExternalTensor) -> Iterator[NDArray[Any]]:
    dtype = np.dtype(tensor.dtype.numpy())
    remaining = tensor.size * dtype.itemsize
    with open(tensor.path, "rb") as file:
        file.seek(tensor.offset or 0)
        while remaining > 0:
            data = file.read(min(_CHUNK_BYTES, remaining))
            assert data, "reading checked that the data is whole"
            remaining -= len(data)
            yield np.frombuffer(data, dtype)
