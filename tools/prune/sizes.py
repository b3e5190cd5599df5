"""The sizes of all values: by symbolic inference, then by onnx's own, then by running the model on a few samples.

What channels can be removed, and what a model multiplies, is not known of values without a rank.
"""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir

from sartor.share.inputs import required_inputs
from sartor.share.shapes import infer_shapes
from sartor.tools.prune.evaluate import Arrays, Runner, samples_of

LARGEST_PROTO = 1 << 30
"""Bytes of weights up to which a model goes through onnx's own shape inference, which copies it."""

BATCHES = (2, 3)
"""Numbers of samples of two runs of a model with an open batch: sizes that differ follow it."""


def infer_all_shapes(model: ir.Model, samples: Arrays) -> None:
    """Infer types and shapes of all values in place; the first of the samples, inputs by name, are run if need be."""
    infer_shapes(model)
    if _unknown(model):
        _ask_onnx(model)
        infer_shapes(model)
    if samples and samples_of(samples):
        _observe(model, samples)


def _unknown(model: ir.Model) -> dict[str, ir.Value]:
    return {str(out.name): out for node in model.graph for out in node.outputs if out.shape is None and out.name}


def _invented(model: ir.Model) -> dict[str, ir.Value]:
    """Return values with a size that inference made up a name for, where the batch alone is open in the inputs."""
    given = [(axis, size) for value in model.graph.inputs for axis, size in enumerate(value.shape or ())]
    if any(axis > 0 and not isinstance(size, int) for axis, size in given):
        return {}
    names = {str(size.value) for _, size in given if not isinstance(size, int)}
    return {
        str(out.name): out
        for node in model.graph
        for out in node.outputs
        if out.shape is not None and any(not isinstance(size, int) and not _uses(size, names) for size in out.shape)
    }


def _uses(size: ir.SymbolicDim, names: set[str]) -> bool:
    return bool(names & set(re.findall(r"\w+", str(size.value))))


def _ask_onnx(model: ir.Model) -> None:
    """Take over what onnx's inference has an answer to, such as Expand to a computed size."""
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    if size > LARGEST_PROTO:
        return
    missing = _unknown(model)
    inferred = onnx.shape_inference.infer_shapes(ir.serde.serialize_model(model), data_prop=True)
    for info in inferred.graph.value_info:
        kind = info.type.tensor_type
        if info.name in missing and kind.HasField("shape"):
            sizes = [one.dim_value if one.HasField("dim_value") else one.dim_param or None for one in kind.shape.dim]
            missing[info.name].shape = ir.Shape(sizes)
            missing[info.name].type = ir.TensorType(ir.DataType(kind.elem_type))


def _observe(model: ir.Model, samples: Arrays) -> None:
    """Run the model twice and take over the sizes of arrays; those that follow the batch have its name."""
    missing = _unknown(model) or _invented(model)
    if not missing:
        return
    runner = Runner(model, fetch=list(missing))
    counts = _batches(model)
    feeds = [{name: np.resize(array, (count, *array.shape[1:])) for name, array in samples.items()} for count in counts]
    found = [next(runner.batches(feed, count)) for feed, count in zip(feeds, counts, strict=True)]
    for name, value in missing.items():
        left, right = (one[name] for one in found)
        if isinstance(left, np.ndarray) and left.ndim == right.ndim:
            pairs = zip(left.shape, right.shape, strict=True)
            value.shape = ir.Shape([n if n == m else "batch" if (n, m) == counts else None for n, m in pairs])
            value.type = ir.TensorType(ir.DataType.from_numpy(left.dtype))


def _batches(model: ir.Model) -> tuple[int, int]:
    """Return the numbers of samples to run with, twice the same where inputs fix it."""
    firsts = [value.shape[0] for value in required_inputs(model) if value.shape]
    fixed = next((size for size in firsts if isinstance(size, int)), None)
    return BATCHES if fixed is None else (fixed, fixed)
