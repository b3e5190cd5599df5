"""Every rule against the reference evaluator of ONNX, in float64, with the kernel's tasks cut at random."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from tests.kits import fuse_kit as kit
from tests.kits import rule_samples as samples

from sartor.tools.fuse.rules import RULES, Kind

Array = np.ndarray[Any, Any]

SIZES = ({"n": 1, "m": 1000}, {"n": 63, "m": 63}, {"n": 1000, "m": 1})
RTOL = {"float16": 2e-3, "float32": 3e-6, "float64": 1e-12}
ATOL = {"float16": 2e-3, "float32": 2e-6, "float64": 1e-12}
SPECIAL = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1.0,
    -1.0,
    2.5,
    -0.5,
    1e-30,
    -1e-30,
    1e-41,
    -1e-41,
    3e38,
    -3e38,
    88.0,
    -104.0,
]
"""What goes wrong first: zeros, infinities, NaN, subnormal and huge numbers, halves, and where exp overflows."""


def _pairs() -> list[Any]:
    """Pair samples with their types; of float64 and float16 the default run takes every fourth."""
    pairs = []
    for i, sample in enumerate(samples.SAMPLES):
        for dtype in sample.types or (np.float32,):
            label = f"{sample.label}-{np.dtype(dtype).name}" if sample.types else sample.label
            late = bool(sample.types) and dtype != np.float32 and i % 4 > 0
            pairs.append(pytest.param(sample, dtype, id=label, marks=[pytest.mark.slow] if late else []))
    return pairs


def build(sample: Any, dtype: Any) -> onnx.ModelProto:
    """Make a sample's model with another floating type for float32."""

    def swap(kind: Any) -> Any:
        return dtype if kind == np.float32 else kind

    inputs = {name: (swap(kind), shape) for name, (kind, shape) in sample.inputs.items()}
    weights = {name: array.astype(swap(array.dtype)) for name, array in sample.weights.items()}
    return kit.model([sample.node], inputs, [out for out in sample.node.output if out], weights, sample.opset)


def draw(sample: Any, dtype: Any, sizes: dict[str, int]) -> dict[str, Array]:
    """Draw inputs for given sizes."""
    generator = np.random.default_rng(zlib.crc32(f"{sample.label} {sizes}".encode()))
    shapes = {
        name: tuple(size if isinstance(size, int) else sizes[size] for size in shape)
        for name, (_, shape) in sample.inputs.items()
    }
    feed = {}
    for name, (kind, _) in sample.inputs.items():
        wanted = dtype if kind == np.float32 else kind
        feed[name] = _draw(sample, name, np.dtype(wanted), shapes, generator)
    return feed


def _draw(
    sample: Any, name: str, dtype: np.dtype[Any], shapes: dict[str, tuple[int, ...]], generator: np.random.Generator
) -> Array:
    shape = shapes[name]
    if dtype.kind == "f":
        return generator.uniform(sample.low, sample.high, shape).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(generator.random(shape) < 0.5)
    if sample.operator == "Gather":
        axis = next((attr.i for attr in sample.node.attribute if attr.name == "axis"), 0)
        size = shapes["x"][axis]
        return np.asarray(generator.integers(-size, size, shape)).astype(dtype)
    if sample.operator == "BitShift" and name == "z":
        return np.asarray(generator.integers(0, 8 * dtype.itemsize, shape)).astype(dtype)
    numbers = np.asarray(generator.integers(-9 if dtype.kind == "i" else 0, 10, shape)).astype(dtype)
    # No division by zero: what integers do then is not defined.
    return np.where(numbers == 0, dtype.type(3), numbers) if sample.operator in ("Div", "Mod") else numbers


def _attributes(sample: Any) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in sample.node.attribute}


def _erf(sample: Any, x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _gelu(sample: Any, x: Array) -> Array:
    if "approximate" in _attributes(sample):
        return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x * 0.5 * (1 + _erf(sample, x / math.sqrt(2)))


def _old_softmax(sample: Any, x: Array) -> Array:
    axes = tuple(range(_attributes(sample)["axis"], x.ndim))
    power = np.exp(x - x.max(axes, keepdims=True))
    result = power / power.sum(axes, keepdims=True)
    return np.log(result) if sample.operator == "LogSoftmax" else result


def _lp_norm(sample: Any, x: Array) -> Array:
    attributes = _attributes(sample)
    return x / np.linalg.norm(x, attributes.get("p", 2), attributes["axis"], keepdims=True)


def _mean_variance(sample: Any, x: Array) -> Array:
    axes = tuple(_attributes(sample).get("axes", (0, 2, 3)))
    return (x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + 1e-9)


PLAIN = {
    "Erf": _erf, "Gelu": _gelu, "Gelu-tanh": _gelu, "Softmax-11": _old_softmax, "LogSoftmax-11": _old_softmax,
    "LpNormalization": _lp_norm, "LpNormalization-l1": _lp_norm, "MeanVarianceNormalization": _mean_variance,
    "MeanVarianceNormalization-axes": _mean_variance,
}  # fmt: skip
"""References for what the evaluator of ONNX computes in float32, in the newest version of the operator, or wrongly."""

NARROW = ("Swish", "Celu", "DequantizeLinear")
"""Operators that are not defined for float64."""


def expected(sample: Any, dtype: Any, feed: dict[str, Array]) -> list[Array]:
    """Evaluate a sample in float64 and round to the types of its outputs."""
    proto = build(sample, dtype)
    # ONNX infers no type through the function that GroupNormalization is.
    kinds = [out.type.tensor_type.elem_type for out in proto.graph.output]
    types = [helper.tensor_dtype_to_np_dtype(kind) if kind else dtype for kind in kinds]
    wide = np.float64 if sample.types and sample.operator not in NARROW else dtype
    arrays = {name: array.astype(wide) if array.dtype == dtype else array for name, array in feed.items()}
    with np.errstate(all="ignore"):
        if sample.label in PLAIN:
            outputs = [PLAIN[sample.label](sample, *arrays.values())]
        else:
            outputs = ReferenceEvaluator(build(sample, wide)).run(None, arrays)
        return [np.asarray(out).astype(kind) for out, kind in zip(outputs, types, strict=True)]


def check(sample: Any, dtype: Any, kernel: Any, order: list[str], feed: dict[str, Array]) -> None:
    """Compare a kernel with the reference on one set of inputs."""
    weights = {name: array.astype(dtype) for name, array in sample.weights.items() if array.dtype == np.float32}
    given = {**sample.weights, **weights, **feed}
    outputs = kit.call(kernel, [given[name] for name in order])
    wanted = expected(sample, dtype, feed)
    assert len(outputs) == len(wanted)
    for ours, reference in zip(outputs, wanted, strict=True):
        assert ours.dtype == reference.dtype
        assert ours.shape == reference.shape
        name = ours.dtype.name
        slack = 50 if RULES[sample.operator].kind is Kind.REDUCE else 1
        np.testing.assert_allclose(ours, reference, rtol=RTOL.get(name, 0), atol=slack * ATOL.get(name, 0))


def prepare(sample: Any, dtype: Any) -> tuple[Any, list[str]]:
    """Compile a sample and name the inputs of its kernel."""
    outlined, call = kit.whole(build(sample, dtype))
    return kit.compiled(call), [str(value.name) for value in outlined.inputs]


def _sizes(sample: Any) -> Iterator[dict[str, int]]:
    named = {size for _, shape in sample.inputs.values() for size in shape if isinstance(size, str)}
    yield from SIZES if named else SIZES[:1]


@pytest.mark.parametrize(("sample", "dtype"), _pairs())
def test_rule(sample: Any, dtype: Any) -> None:
    """A kernel computes what ONNX defines, at one element, a few and many."""
    kernel, order = prepare(sample, dtype)
    for sizes in _sizes(sample):
        check(sample, dtype, kernel, order, draw(sample, dtype, sizes))
    if sample.special:
        check(sample, dtype, kernel, order, _special(sample, dtype))


def _special(sample: Any, dtype: Any) -> dict[str, Array]:
    """Give special values to the first input, and a few of them to each column of the second."""
    with np.errstate(over="ignore"):
        values = np.array(SPECIAL).astype(dtype)
    if len(sample.inputs) == 1:
        return {"x": values}
    return {"x": np.repeat(values[:, None], 5, axis=1), "z": values[[0, 2, 4, 7, 13]]}


def test_every_operator_has_a_sample() -> None:
    """No rule is without a sample."""
    assert {sample.operator for sample in samples.SAMPLES} == set(RULES)
