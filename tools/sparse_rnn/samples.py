"""Samples of a recurrent model: which axis counts them, what a model gives for them, and how good that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from sartor.share.data import Axes, Split
from sartor.share.errors import InputRefusedError
from sartor.share.inputs import required_inputs
from sartor.share.quality import likeness
from sartor.share.runtime import stock_options

Arrays = Mapping[str, NDArray[Any]]
BATCH = 64


def batch_axes(model: ir.Model, subject: str) -> dict[str, int | None]:
    """Return the axis of the samples of every input and output: that of the size whose name they all share.

    Of several such names the one counts that begins as `batch` or `n` does. Models with fixed sizes have it first. An
    input that is one number has None: all samples share it. Raises InputRefusedError where no name or more than one is
    left.
    """
    inputs = required_inputs(model)
    numbers = {str(value.name): None for value in inputs if value.shape is not None and not len(value.shape)}
    values = [*(value for value in inputs if value.name not in numbers), *model.graph.outputs]
    names = [[dim.value if isinstance(dim, ir.SymbolicDim) else None for dim in value.shape or ()] for value in values]
    shared = sorted(set.intersection(*({name for name in one if name} for one in names)))
    if not any(name for one in names for name in one):
        return {str(value.name): 0 for value in values} | numbers
    found = shared if len(shared) == 1 else [name for name in shared if name.lower().startswith(("b", "n"))]
    if len(found) != 1:
        reason = f"which size counts samples is not clear: inputs and outputs share {shared or 'no name of a size'}"
        raise InputRefusedError(reason, subject=subject, remedy="Name that size `batch` in all of them")
    return {str(value.name): one.index(found[0]) for value, one in zip(values, names, strict=True)} | numbers


def outputs_of(model: ir.Model, split: Split, axes: Axes, threads: int) -> dict[str, NDArray[Any]]:
    """Return what stock onnxruntime gives for a split, the samples first."""
    content = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, stock_options(threads), providers=["CPUExecutionProvider"])
    names = [str(value.name) for value in model.graph.outputs]
    parts = []
    for begin in range(0, len(split), BATCH):
        feed = {
            name: np.ascontiguousarray(np.moveaxis(array[begin : begin + BATCH], 0, axes[name] or 0))
            for name, array in split.inputs.items()
        }
        found = zip(names, session.run(names, feed | split.shared), strict=True)
        parts.append({name: np.moveaxis(output, axes[name] or 0, 0) for name, output in found})
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def quality(outputs: Arrays, split: Split, wanted: Arrays) -> float:
    """Return the share of right labels, classes along the last axis, or without labels the likeness to `wanted`."""
    if not split.labels:
        return likeness(outputs, wanted)
    return float(np.mean([np.mean(outputs[name].argmax(-1) == labels) for name, labels in split.labels.items()]))
